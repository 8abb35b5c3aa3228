//! The operator's signing key: Ed25519, PKCS#8 PEM, as `openssl genpkey -algorithm ed25519` makes.
//! It lies beside the database and never inside, because a database is copied to servers.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::errors::{BuildError, IoContext as _};
use crate::limits;
use crate::scheme::random_bytes;
use crate::shard::Manifest;
use crate::shard::files::{read_bounded, sync_parent};
use crate::text;
use crate::wire::SigningKey;
use crate::wire::pkcs8::spki::EncodePublicKey as _;
use crate::wire::pkcs8::{
    DecodePrivateKey as _, EncodePrivateKey as _, KeypairBytes, spki::der::pem::LineEnding,
};

/// Where the key is when no option says so: `<OUT>.signing-key.pem`.
pub fn default_path(out: &Path) -> PathBuf {
    // `.` and `..` have no name to be beside: the folder they are has.
    let named = if out.file_name().is_none() { out.canonicalize().ok() } else { None };
    let out = named.as_deref().unwrap_or(out);
    let mut name = out.file_name().unwrap_or("database".as_ref()).to_owned();
    name.push(".signing-key.pem");
    out.with_file_name(name)
}

/// Refuses a key file in a folder that does not exist, or inside the database, which is copied to
/// servers: before the input is read.
pub fn check_place(path: &Path, out: &Path) -> Result<(), BuildError> {
    let folder = match path.parent() {
        Some(folder) if folder.as_os_str().is_empty() => Path::new("."),
        Some(folder) => folder,
        None => path,
    };
    let folder = folder.canonicalize().context("look into", folder)?;
    if out.canonicalize().is_ok_and(|out| folder.starts_with(out)) {
        let problem = "it is inside the database, which is copied to servers: keep it elsewhere";
        return Err(BuildError::SigningKey { path: path.to_owned(), problem: problem.into() });
    }
    Ok(())
}

/// Reads the key; `None` where there is no file.
pub fn load(path: &Path) -> Result<Option<SigningKey>, BuildError> {
    let bytes = match read_bounded(path, limits::SIGNING_KEY_BYTES_MAX) {
        Ok(bytes) => Zeroizing::new(bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).context("read", path),
    };
    let wrong = |problem: String| BuildError::SigningKey { path: path.to_owned(), problem };
    let bytes = Zeroizing::new(text::plain(&bytes));
    let text = std::str::from_utf8(&bytes).map_err(|_| wrong("it is not text".into()))?;
    SigningKey::from_pkcs8_pem(text).map(Some).map_err(|error| wrong(error.to_string()))
}

/// Refuses a key that did not sign this manifest.
pub fn check_operator(
    key: &SigningKey,
    path: &Path,
    manifest: &Manifest,
) -> Result<(), BuildError> {
    match key.verifying_key().to_bytes() == manifest.operator_key.0 {
        true => Ok(()),
        false => Err(BuildError::OtherOperator { path: path.to_owned() }),
    }
}

/// Makes a key and writes it, with mode 0600. Never replaces a file.
pub fn create(path: &Path) -> Result<SigningKey, BuildError> {
    let key = SigningKey::from_bytes(&Zeroizing::new(random_bytes()?));
    // Without the public key in it: the first version of PKCS#8, which every openssl reads.
    let pair = KeypairBytes { secret_key: key.to_bytes(), public_key: None };
    let pem = pair.to_pkcs8_pem(LineEnding::LF).expect("this is a bug: a key that is not PKCS#8");
    let mut options = OpenOptions::new();
    let mut file =
        options.write(true).create_new(true).mode(0o600).open(path).context("create", path)?;
    let outcome = file.write_all(pem.as_bytes()).and_then(|()| file.sync_all());
    outcome.and_then(|()| sync_parent(path)).context("write", path)?;
    Ok(key)
}

/// The public key as PEM, what clients pin.
pub fn public_pem(key: &SigningKey) -> String {
    key.verifying_key()
        .to_public_key_pem(LineEnding::LF)
        .expect("this is a bug: a public key that is not SPKI")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_never_inside_the_database_and_has_a_folder() {
        let directory = tempfile::tempdir().unwrap();
        let (out, below) = (directory.path().join("db"), directory.path().join("db/below"));
        std::fs::create_dir_all(&below).unwrap();
        for path in [&out, &below.join("..")] {
            let key = default_path(path);
            assert!(!key.parent().unwrap().canonicalize().unwrap().starts_with(&out), "{key:?}");
            assert!(key.ends_with("db.signing-key.pem"), "{key:?}");
        }
        assert!(check_place(&directory.path().join("key.pem"), &out).is_ok());
        let inside = check_place(&out.join("key.pem"), &out).unwrap_err().to_string();
        assert!(inside.contains("inside the database"), "{inside}");
        assert!(check_place(&directory.path().join("none/key.pem"), &out).is_err());
    }

    #[test]
    fn a_key_is_made_once_and_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = default_path(&directory.path().join("db"));
        assert!(load(&path).unwrap().is_none());
        let key = create(&path).unwrap();
        assert_eq!(load(&path).unwrap().unwrap().to_bytes(), key.to_bytes());
        assert!(create(&path).is_err());
        let mode = std::os::unix::fs::MetadataExt::mode(&path.metadata().unwrap());
        assert_eq!(mode & 0o777, 0o600);
        // As an editor on Windows saves it.
        let pem = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("\u{feff}{}", pem.replace('\n', "\r\n"))).unwrap();
        assert_eq!(load(&path).unwrap().unwrap().to_bytes(), key.to_bytes());
        assert!(public_pem(&key).starts_with("-----BEGIN PUBLIC KEY-----\n"));
        std::fs::write(&path, "nonsense").unwrap();
        assert!(load(&path).unwrap_err().to_string().contains("PKCS#8"));
    }

    /// Made by `openssl genpkey -algorithm ed25519`: RFC 8410's example.
    #[test]
    fn a_key_of_openssl_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key.pem");
        let pem = "-----BEGIN PRIVATE KEY-----\n\
            MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
            -----END PRIVATE KEY-----\n";
        std::fs::write(&path, pem).unwrap();
        let key = load(&path).unwrap().unwrap();
        let public = "MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=";
        assert!(public_pem(&key).contains(public), "{}", public_pem(&key));
    }
}
