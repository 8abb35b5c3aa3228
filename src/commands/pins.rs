//! Where `sotto lookup` keeps the pins of a database ([`sotto::client::Pins`]) between runs: a file
//! that only its owner can read.
//!
//! The default file is named after the operator's key if the user gave one, and after the database
//! if `--database` names one, so that all servers of an operator share a file. Without a key it is
//! named after the server's address, as in `ssh`.

use std::env;
use std::fs::{DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use sotto::client::Pins;
use sotto::limits;
use sotto::shard::files::{read_bounded, sync_parent};

/// Below the user's state folder.
const FOLDER: &str = "sotto/pins";

/// What to do about a file that the system denies.
const INSTEAD: &str = "use another file (--pins FILE), or keep nothing (--no-pins)";

/// Why a file of pins cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PinsFileError {
    #[error(
        "the pins in {} cannot be used: {why}. They say what must not change about a database; to \
         forget it on purpose, remove the file, or use another (--pins FILE)", .path.display()
    )]
    Refused { path: PathBuf, why: String },
    #[error("cannot read pins from {}: {why}; {INSTEAD}", .path.display())]
    Unreadable { path: PathBuf, why: io::Error },
    #[error("cannot write pins to {}: {why}; {INSTEAD}", .path.display())]
    Unwritable { path: PathBuf, why: io::Error },
}

/// The default file for a database at this server; none where there is no state folder.
pub(crate) fn default_file(sought: &Pins, server: &str) -> Option<PathBuf> {
    let state = state_folder(|name| env::var_os(name).map(PathBuf::from))?;
    Some(state.join(FOLDER).join(default_name(sought, server)))
}

/// What the user said of the database, joined with what is stored.
pub(crate) fn read(path: &Path, sought: Pins) -> Result<Pins, PinsFileError> {
    match stored(path)? {
        None => Ok(sought),
        Some(stored) => stored.join(sought).map_err(|error| refuse(path, &error)),
    }
}

/// Stores what is known now, joined with what other runs stored meanwhile. There is one writer at a
/// time, and the file is replaced as a whole.
pub(crate) fn write(path: &Path, pins: &Pins) -> Result<(), PinsFileError> {
    let failed = |why: io::Error| PinsFileError::Unwritable { path: path.to_owned(), why };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    if !folder.exists() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    }
    // Unlocked when it is closed.
    let lock = File::open(folder).map_err(failed)?;
    lock.lock().map_err(failed)?;
    let joined = read(path, pins.clone())?;
    if stored(path)?.as_ref() == Some(&joined) {
        return Ok(());
    }
    let mut json = serde_json::to_vec_pretty(&joined).map_err(|e| failed(e.into()))?;
    json.push(b'\n');
    // Its mode is 0600.
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
    file.write_all(&json).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    sync_parent(path).map_err(failed)
}

fn stored(path: &Path) -> Result<Option<Pins>, PinsFileError> {
    let bytes = match read_bounded(path, limits::PINS_BYTES_MAX + 1) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(why) => return Err(PinsFileError::Unreadable { path: path.to_owned(), why }),
    };
    if bytes.len() as u64 > limits::PINS_BYTES_MAX {
        let most = limits::PINS_BYTES_MAX;
        let why = format_args!("it is larger than {most} bytes, which no file of pins is");
        return Err(refuse(path, &why));
    }
    serde_json::from_slice(&bytes).map(Some).map_err(|error| refuse(path, &error))
}

fn refuse(path: &Path, why: &dyn std::fmt::Display) -> PinsFileError {
    PinsFileError::Refused { path: path.to_owned(), why: why.to_string() }
}

/// `$XDG_STATE_HOME`, or else `~/.local/state`, as the XDG base directory specification has it;
/// none where there is no home. Relative paths count as unset.
fn state_folder(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    let absolute = |name: &str| variable(name).filter(|path| path.is_absolute());
    absolute("XDG_STATE_HOME").or_else(|| {
        let home = absolute("HOME").filter(|home| home.is_dir())?;
        Some(home.join(".local/state"))
    })
}

fn default_name(sought: &Pins, server: &str) -> String {
    let database = sought.database().map_or(String::new(), |name| format!(".{name}"));
    match sought.operator_key() {
        Some(key) => format!("operator-{key}{database}.json"),
        None => {
            let inner = |c: char| c.is_ascii_alphanumeric() || ".-".contains(c);
            let server: String = server.chars().map(|c| if inner(c) { c } else { '_' }).collect();
            format!("server-{server}{database}.json")
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn pins(seed: u8, epoch: u64) -> Pins {
        let json = serde_json::json!({
            "version": 1,
            "operator_key": "01".repeat(32),
            "database": "main",
            "seen": {
                "seed": format!("{seed:02x}").repeat(32),
                "epoch": epoch,
                "parameters_hash": format!("{epoch:02x}").repeat(32),
                "shard_count": 4,
            },
        });
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn the_newest_of_what_runs_beside_each_other_saw_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state/pins/a.json");
        assert_eq!(read(&path, Pins::first_use()).unwrap(), Pins::first_use());
        let write = |epoch: u64| write(&path, &pins(1, epoch)).unwrap();
        std::thread::scope(|scope| {
            for epoch in 1..=40 {
                scope.spawn(move || write(epoch));
            }
        });
        assert_eq!(read(&path, Pins::first_use()).unwrap(), pins(1, 40));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        let left = fs::read_dir(path.parent().unwrap()).unwrap().count();
        assert_eq!(left, 1, "temporary files");
    }

    #[test]
    fn a_file_that_is_too_large_or_no_file_is_refused_and_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        let large = vec![b' '; limits::PINS_BYTES_MAX as usize + 1];
        fs::write(&path, &large).unwrap();
        for error in [read(&path, Pins::first_use()).err(), write(&path, &pins(1, 6)).err()] {
            let error = error.unwrap().to_string();
            assert!(error.contains("larger than") && error.contains("a.json"), "{error}");
        }
        assert_eq!(fs::read(&path).unwrap(), large);
        let error = read(folder.path(), Pins::first_use()).unwrap_err().to_string();
        assert!(error.contains("cannot read pins"), "{error}");
    }

    #[test]
    fn the_default_file_is_named_after_what_the_user_is_sure_of() {
        let home = tempfile::tempdir().unwrap();
        let below_home = Some(home.path().join(".local/state"));
        let home = Some(home.path());
        for (state, home, expected) in [
            (Some("/state"), None, Some("/state".into())),
            (Some("relative"), home, below_home.clone()),
            (None, home, below_home),
            (None, Some(Path::new("/nonexistent")), None),
            (None, None, None),
        ] {
            let found = state_folder(|name| match name {
                "XDG_STATE_HOME" => state.map(PathBuf::from),
                _ => home.map(Path::to_owned),
            });
            assert_eq!(found, expected);
        }

        let known = Pins::operator(sotto::client::OperatorKey([0xab; 32]));
        let key = "ab".repeat(32);
        assert_eq!(default_name(&known, "h:1"), format!("operator-{key}.json"));
        let named = known.for_database("mails").unwrap();
        assert_eq!(default_name(&named, "h:1"), format!("operator-{key}.mails.json"));
        assert_eq!(default_name(&Pins::first_use(), "[::1]:4433"), "server-___1__4433.json");
        assert_eq!(default_name(&Pins::first_use(), "../x"), "server-.._x.json");
    }
}
