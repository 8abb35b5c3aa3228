//! What a resolver is given.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use ed25519_dalek::VerifyingKey;
use zeroize::Zeroizing;

use super::errors::{ResolveError, StateError};
use crate::client::OperatorKey;
use crate::discovery::directory::{Key, Pins};
use crate::scheme::random_bytes;

/// Bytes of the key that seals a state.
const STATE_KEY_BYTES: usize = 32;

/// Gives the account's token for a request. It is asked anew for each one.
pub type Token = Box<dyn Fn() -> String + Send + Sync>;
/// Gives the time in seconds since 1970.
pub type Clock = Box<dyn Fn() -> u64 + Send + Sync>;

/// What a [`super::Resolver`] is given.
pub struct Options {
    /// The relay, such as `https://relay.example`.
    pub relay: String,
    /// Certificates (PEM) of the authorities that may sign the relay's certificate.
    pub ca_pem: Vec<u8>,
    /// The account at the relay.
    pub token: Token,
    /// The long-term key with which the front-end signs its keys.
    pub front_end_key: VerifyingKey,
    /// The file of the state, which nobody else writes.
    pub state: PathBuf,
    /// Seals that file. A new key is a new device.
    pub state_key: Zeroizing<[u8; 32]>,
    /// What the directory is checked with until a first one was seen.
    pub directory_pins: Pins,
    /// The fewest records of a pack that are accepted. Towards the front-end a look-up hides among
    /// them.
    pub pack_records_min: u64,
    /// The clock; by default the machine's.
    pub clock: Clock,
}

/// The machine's clock. One before 1970 gives 0, at which everything is refused.
pub fn system_clock() -> Clock {
    Box::new(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.map_or(0, |since| since.as_secs())
    })
}

/// The public key in a text: 43 characters of base64url, as `sotto directory key` prints them, or
/// PEM.
///
/// # Errors
/// It is neither.
pub fn read_front_end_key(text: &str) -> Result<VerifyingKey, ResolveError> {
    let text = text.trim();
    if let Ok(key) = Key::try_from(text.to_owned()) {
        return Ok(*key.verifying_key());
    }
    let refused = || {
        let expected = "43 characters of base64url, or a public key (Ed25519) in PEM";
        ResolveError::Options(format!("no key of the front-end was found, expected {expected}"))
    };
    let key = OperatorKey::from_text(text).map_err(|_| refused())?;
    VerifyingKey::from_bytes(&key.0).map_err(|_| refused())
}

/// The key in a file of 32 bytes. Where there is no file, one is made that only its owner reads.
///
/// # Errors
/// The file cannot be read or made, or has another length.
pub fn state_key(path: &Path) -> Result<Zeroizing<[u8; STATE_KEY_BYTES]>, ResolveError> {
    let failed = |doing| {
        let path = path.display().to_string();
        move |error| StateError::File { doing, path, error }
    };
    let mut options = OpenOptions::new();
    match options.write(true).create_new(true).mode(0o600).open(path) {
        Ok(mut file) => {
            let key = Zeroizing::new(random_bytes()?);
            let written = file.write_all(&*key).and_then(|()| file.sync_all());
            written.map_err(failed("write"))?;
            return Ok(key);
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => return Err(failed("create")(error).into()),
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(STATE_KEY_BYTES + 1));
    // Where it is a pipe, this does not wait for a writer.
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_NONBLOCK);
    let file = options.open(path).map_err(failed("read"))?;
    let read = file.take(STATE_KEY_BYTES as u64 + 1).read_to_end(&mut bytes);
    read.map_err(failed("read"))?;
    match bytes.as_slice().try_into() {
        Ok(key) => Ok(Zeroizing::new(key)),
        Err(_) => Err(ResolveError::Options(format!(
            "{} has another length than {STATE_KEY_BYTES} bytes, the key of a state: bring the \
             right file back, or begin with a new state and without a key, which makes one",
            path.display()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_front_end_key_is_base64url_or_pem() {
        // The public key of RFC 8410, section 10.1.
        let pem = "-----BEGIN PUBLIC KEY-----\n\
            MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n\
            -----END PUBLIC KEY-----\n";
        let key = read_front_end_key(pem).unwrap();
        let text = Key::from(key).to_string();
        assert_eq!(read_front_end_key(&format!(" {text}\n")).unwrap(), key);
        for wrong in ["", &text[1..], &text.replace('G', "!"), &pem[..60]] {
            assert!(matches!(read_front_end_key(wrong), Err(ResolveError::Options(_))), "{wrong}");
        }
    }

    #[test]
    fn a_state_key_is_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let key = state_key(&path).unwrap();
        assert_eq!(*state_key(&path).unwrap(), *key);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        for length in [0, 31, 33, 99] {
            std::fs::write(&path, vec![1; length]).unwrap();
            assert!(matches!(state_key(&path), Err(ResolveError::Options(_))), "{length}");
        }
        let error = state_key(&folder.path().join("none/key")).unwrap_err();
        assert!(matches!(error, ResolveError::State(StateError::File { .. })), "{error}");
    }
}
