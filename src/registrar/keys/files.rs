//! Files of the operator.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use crate::builder::keys::load;
use crate::shard::files::{open_to_others, read_regular};
use ed25519_dalek::SigningKey;
use zeroize::Zeroizing;

use crate::limits::keys::KEY_MAC_BYTES;
use crate::registrar::keys::errors::KeysError;

/// Reads a file of at most `max` bytes.
pub(crate) fn read_file(what: &'static str, path: &Path, max: u64) -> Result<Vec<u8>, KeysError> {
    let unreadable = |source| KeysError::Unreadable { what, path: path.to_owned(), source };
    let bytes = read_regular(path, max + 1).map_err(unreadable)?;
    match bytes.len() as u64 <= max {
        true => Ok(bytes),
        false => Err(KeysError::Long { what, path: path.to_owned(), max }),
    }
}

fn check_mode(what: &'static str, path: &Path) -> Result<(), KeysError> {
    let found = fs::metadata(path);
    let found =
        found.map_err(|source| KeysError::Unreadable { what, path: path.to_owned(), source })?;
    match open_to_others(&found) {
        None => Ok(()),
        Some(mode) => Err(KeysError::Open { what, path: path.to_owned(), mode }),
    }
}

/// The long-term key of the service, which signs its OHTTP keys.
pub(crate) fn read_identity(path: &Path) -> Result<SigningKey, KeysError> {
    let what = "identity";
    check_mode(what, path)?;
    let content = |why: String| KeysError::Content { what, path: path.to_owned(), why };
    let key = load(path).map_err(|error| content(error.to_string()))?;
    key.ok_or_else(|| content("it is not there any more".to_owned()))
}

/// The key under which identifiers and requesters are stored; made if it is missing.
pub(crate) fn mac_key(path: &Path) -> Result<Zeroizing<[u8; KEY_MAC_BYTES]>, KeysError> {
    let what = "key of identifiers";
    let unreadable = |source| KeysError::Unreadable { what, path: path.to_owned(), source };
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    match made {
        Ok(mut file) => {
            let mut key = Zeroizing::new([0; KEY_MAC_BYTES]);
            getrandom::fill(&mut *key).map_err(KeysError::Random)?;
            file.write_all(&*key).and_then(|()| file.sync_all()).map_err(unreadable)?;
            Ok(key)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            check_mode(what, path)?;
            let bytes = Zeroizing::new(read_file(what, path, KEY_MAC_BYTES as u64)?);
            let found = bytes.len();
            let key = <[u8; KEY_MAC_BYTES]>::try_from(bytes.as_slice());
            let why = format!("it has {found} bytes, expected {KEY_MAC_BYTES}");
            let wrong = KeysError::Content { what, path: path.to_owned(), why };
            key.map(Zeroizing::new).map_err(|_| wrong)
        }
        Err(error) => Err(unreadable(error)),
    }
}
