//! The registrar's keys: the issuer's signing key, and a folder of two secrets, the pepper of codes
//! and the key under which identifiers are found in the database.
//!
//! All are files of their owner alone (mode 0600). The two secrets are made once, by `sotto
//! registrar init`, and never by a registrar that starts: with another key it would not find what
//! is stored, and so not know who holds a number and how many codes it has had.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::builder::keys::{create, load};
use crate::discovery::jws::{base64url, from_base64url};
use crate::shard::files::{open_to_others, read_regular, sync_parent};
use ed25519_dalek::SigningKey;
use zeroize::Zeroizing;

/// The first word of a file with a secret, so that no other file is taken for one.
const FILE_WORD: &str = "sotto-registrar-1";
/// More than such a file has.
const FILE_BYTES_MAX: u64 = 128;
/// The names of the two files in the folder.
const PEPPER: &str = "pepper.key";
const SII: &str = "sii.key";

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // The texts say it.
pub enum KeysError {
    #[error("cannot {doing} {}: {error}", .path.display())]
    File { doing: &'static str, path: PathBuf, error: io::Error },
    #[error(
        "{} may be used by others than its owner (mode {mode:03o}): it is secret; if nobody has \
         read it, use chmod go-rwx, else make another one", .path.display()
    )]
    Open { path: PathBuf, mode: u32 },
    #[error(
        "{} is no secret of a registrar: expected one line, \"{FILE_WORD} KEY\"; bring it back \
         from a backup", .path.display()
    )]
    NoSecret { path: PathBuf },
    #[error(
        "{} is missing; bring it back from a backup, or run `sotto registrar init` if this \
         registrar has never run", .path.display()
    )]
    Missing { path: PathBuf },
    #[error(
        "{} exists already; a registrar that has another key does not find what it stored, so \
         nothing was changed", .path.display()
    )]
    Exists { path: PathBuf },
    #[error("the issuer's key: {0}")]
    Signing(String),
    #[error("the operating system gives no randomness: {0}")]
    NoRandomness(String),
}

/// The keys of a registrar; wiped when they are dropped.
pub struct Keys {
    /// Signs mappings and the feed.
    pub signing: SigningKey,
    /// Mixed into codes before they are stored.
    pub pepper: Zeroizing<[u8; 32]>,
    /// Identifiers are found by their HMAC with it.
    pub sii: Zeroizing<[u8; 32]>,
}

impl Keys {
    /// Reads the issuer's key (PKCS#8 PEM) and the two secrets of the folder.
    ///
    /// # Errors
    /// A file is missing, is no key, or others than its owner may read it.
    pub fn read(signing: &Path, folder: &Path) -> Result<Self, KeysError> {
        let key = load(signing).map_err(|error| KeysError::Signing(error.to_string()))?;
        let key = key.ok_or_else(|| KeysError::Missing { path: signing.to_owned() })?;
        check_mode(signing)?;
        let (pepper, sii) = (secret(&folder.join(PEPPER))?, secret(&folder.join(SII))?);
        Ok(Self { signing: key, pepper, sii })
    }

    /// Makes the folder with its two secrets, and the issuer's key where there is none yet.
    ///
    /// # Errors
    /// The folder is there already, or nothing can be written.
    pub fn create(signing: &Path, folder: &Path) -> Result<Self, KeysError> {
        match DirBuilder::new().mode(0o700).create(folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(KeysError::Exists { path: folder.to_owned() });
            }
            made => made.map_err(|error| file("make", folder, error))?,
        }
        for name in [PEPPER, SII] {
            make(&folder.join(name))?;
        }
        sync_parent(folder).map_err(|error| file("make", folder, error))?;
        if !signing.exists() {
            create(signing).map_err(|error| KeysError::Signing(error.to_string()))?;
        }
        Self::read(signing, folder)
    }

    /// The issuer's public key, as the directory has it.
    pub fn public_key(&self) -> String {
        base64url(self.signing.verifying_key().as_bytes())
    }
}

fn check_mode(path: &Path) -> Result<(), KeysError> {
    let found = fs::metadata(path).map_err(|error| file("look at", path, error))?;
    match open_to_others(&found) {
        None => Ok(()),
        Some(mode) => Err(KeysError::Open { path: path.to_owned(), mode }),
    }
}

fn make(path: &Path) -> Result<(), KeysError> {
    let mut secret = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *secret).map_err(|error| KeysError::NoRandomness(error.to_string()))?;
    let encoded = Zeroizing::new(base64url(&*secret));
    let line = Zeroizing::new(format!("{FILE_WORD} {}\n", encoded.as_str()));
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let written = made.and_then(|mut file| {
        file.write_all(line.as_bytes())?;
        file.sync_all()?;
        sync_parent(path)
    });
    written.map_err(|error| file("make", path, error))
}

fn secret(path: &Path) -> Result<Zeroizing<[u8; 32]>, KeysError> {
    let bytes = match read_regular(path, FILE_BYTES_MAX) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(KeysError::Missing { path: path.to_owned() });
        }
        read => Zeroizing::new(read.map_err(|error| file("read", path, error))?),
    };
    check_mode(path)?;
    decode(&bytes).ok_or_else(|| KeysError::NoSecret { path: path.to_owned() })
}

fn decode(bytes: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
    let encoded = std::str::from_utf8(bytes).ok()?.trim_end().strip_prefix(FILE_WORD)?;
    let secret = Zeroizing::new(from_base64url(encoded.strip_prefix(' ')?)?);
    Some(Zeroizing::new(secret.as_slice().try_into().ok()?))
}

fn file(doing: &'static str, path: &Path, error: io::Error) -> KeysError {
    KeysError::File { doing, path: path.to_owned(), error }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use super::*;

    fn refused(result: Result<Keys, KeysError>) -> KeysError {
        match result {
            Err(error) => error,
            Ok(_) => panic!("these keys were accepted"),
        }
    }

    #[test]
    fn keys_are_made_once_and_are_their_owners_alone() {
        let place = tempfile::tempdir().unwrap();
        let (signing, folder) = (place.path().join("issuer.pem"), place.path().join("keys"));
        let missing = refused(Keys::read(&signing, &folder));
        assert!(matches!(missing, KeysError::Missing { .. }), "{missing}");
        let made = Keys::create(&signing, &folder).unwrap();
        let read = Keys::read(&signing, &folder).unwrap();
        assert_eq!((&*made.pepper, &*made.sii), (&*read.pepper, &*read.sii));
        assert_eq!(made.public_key(), read.public_key());
        assert_ne!(made.pepper, made.sii);
        let again = refused(Keys::create(&signing, &folder));
        assert!(matches!(again, KeysError::Exists { .. }), "{again}");
        assert_eq!(Keys::read(&signing, &folder).unwrap().pepper, made.pepper);
        for path in [folder.join(PEPPER), folder.join(SII), signing.clone()] {
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
            fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
            let open = refused(Keys::read(&signing, &folder));
            assert!(matches!(open, KeysError::Open { mode: 0o640, .. }), "{open}");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        }
        let pepper = folder.join(PEPPER);
        for wrong in ["", "sotto-registrar-1", "sotto-registrar-1 AAAA\n", "sotto-ohttp-1 x"] {
            fs::write(&pepper, wrong).unwrap();
            let error = refused(Keys::read(&signing, &folder));
            assert!(matches!(error, KeysError::NoSecret { .. }), "{wrong:?}: {error}");
        }
        fs::remove_file(&pepper).unwrap();
        let error = refused(Keys::read(&signing, &folder));
        assert!(matches!(error, KeysError::Missing { .. }), "{error}");
    }
}
