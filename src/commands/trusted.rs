//! What the commands about the directory, statements and records share: the clock, keys in files,
//! and the directory as its pins accept it.

use std::fmt::Display;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use sotto::builder::keys;
#[cfg(feature = "front-end")]
use sotto::client::OperatorKey;
use sotto::discovery::directory::{Directory, Pins};
use sotto::limits::DIRECTORY_BYTES_MAX;
use sotto::shard::files::{read_regular, write_atomically};
use sotto::wire::SigningKey;

/// The time in seconds since 1970.
pub(in crate::commands) fn now() -> Result<u64, String> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map(|since| since.as_secs()).map_err(|_| "this machine's clock is before 1970".to_owned())
}

/// The private key in a file.
pub(super) fn load(path: &Path) -> Result<SigningKey, String> {
    let key = keys::load(path).map_err(|error| error.to_string())?;
    key.ok_or_else(|| format!("there is no key in {}", path.display()))
}

/// A file of a directory, a draft or pins.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, String> {
    read_regular(path, DIRECTORY_BYTES_MAX as u64 + 1).map_err(|error| in_file(path, &error))
}

/// The public key of a database's operator, in a file.
#[cfg(feature = "front-end")]
pub(super) fn operator_key(path: &Path) -> Result<OperatorKey, String> {
    let text = read(path)?;
    OperatorKey::from_text(&String::from_utf8_lossy(&text)).map_err(|error| in_file(path, &error))
}

pub(super) fn read_pins(path: &Path) -> Result<Pins, String> {
    Pins::from_json(&read(path)?).map_err(|error| in_file(path, &error))
}

/// Writes such a file as a whole.
pub(super) fn write(path: &Path, text: &str) -> Result<(), String> {
    write_atomically(path, text.as_bytes())
        .map_err(|error| format!("cannot write {}: {error}", path.display()))
}

/// The directory in a file as of a time. The pins stay as they are.
pub(super) fn directory(file: &Path, pins: &Path, now: u64) -> Result<Directory, String> {
    let pins = read_pins(pins)?;
    Directory::open(&read(file)?, &pins, now).map_err(|error| in_file(file, &error))
}

pub(super) fn in_file(path: &Path, error: &dyn Display) -> String {
    format!("{}: {error}", path.display())
}
