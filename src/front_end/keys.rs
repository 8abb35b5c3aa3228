//! The keys of Oblivious HTTP, in a folder that all processes of a front-end share.
//!
//! Each week since 1970 has one key, in a file `WEEK.key`. Whoever needs the key of a week and does
//! not find it makes it; a link that only one process can make decides which key it is. So all
//! processes have the same keys and sign the same list of them, byte for byte. A key is given to
//! devices for its week, opens requests for 48 hours more, and is then removed: who takes the
//! folder later opens nothing that was sealed before.
//!
//! The folder belongs to one user, and so does each file: others are refused, not mended.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use ed25519_dalek::SigningKey;
use zeroize::Zeroizing;

use crate::discovery::jws::{base64url, from_base64url};
use crate::discovery::sealed::SealedError;
use crate::discovery::sealed::capsule::Gateway;
use crate::discovery::sealed::keys::{GatewayKey, SEED_BYTES, sign_keys};
use crate::limits::{
    OHTTP_KEY_FILE_BYTES_MAX, OHTTP_KEY_GRACE_SECONDS, OHTTP_KEY_SECONDS,
    OHTTP_KEYS_LOOK_AGAIN_SECONDS,
};
use crate::shard::files::{gone, open_to_others, read_regular, sync_parent};

/// The first word of a file with a key, so that no other file is taken for one.
const FILE_WORD: &str = "sotto-ohttp-1";

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // The texts say it.
pub enum KeysError {
    #[error("cannot {doing} {path}, in the folder of OHTTP keys: {error}")]
    File { doing: &'static str, path: PathBuf, error: io::Error },
    #[error(
        "{path} may be used by others than its owner (mode {mode:03o}): OHTTP keys are secret; \
         if nobody has read them, use chmod go-rwx, else remove them"
    )]
    Open { path: PathBuf, mode: u32 },
    #[error(
        "{path} holds no OHTTP key: expected one line, \"{FILE_WORD} KEY\"; remove the file, and a \
         new key is made: devices then fetch the keys again"
    )]
    NoKey { path: PathBuf },
    #[error("the operating system gives no randomness: {0}")]
    NoRandomness(String),
    #[error("an OHTTP key cannot be used: {0}")]
    Key(#[from] SealedError),
}

/// The keys as of one time.
pub struct Keyring {
    /// Opens requests for each key that has not expired.
    pub gateway: Gateway,
    /// The signed list for devices. It has the key of the week alone, so that it is the same for
    /// the whole week, from every process.
    pub list: String,
    /// Weeks since 1970.
    week: u64,
}

impl Keyring {
    /// Reads the keys of a folder, makes the one of this week if it is not there, and removes those
    /// that have expired at `now` (unix seconds).
    ///
    /// # Errors
    /// The folder cannot be used, or is open to others.
    pub fn open(folder: &Path, identity: &SigningKey, now: u64) -> Result<Self, KeysError> {
        prepare(folder)?;
        let week = now / OHTTP_KEY_SECONDS;
        let mut weeks = Vec::new();
        for (path, name) in files(folder)? {
            let Some((Ok(of_week), rest)) =
                name.split_once('.').map(|(number, rest)| (number.parse::<u64>(), rest))
            else {
                continue;
            };
            if ends(of_week) <= now {
                gone(fs::remove_file(&path)).map_err(|error| file("remove", &path, error))?;
            } else if rest == "key" && of_week <= week + 1 {
                // One of the next week is there if another process's clock is a little ahead.
                weeks.push(of_week);
            }
        }
        if !weeks.contains(&week) {
            make(folder, week)?;
            weeks.push(week);
        }
        weeks.sort_unstable_by(|a, b| b.cmp(a));
        let keys = weeks.iter().map(|&week| read(folder, week)).collect::<Result<Vec<_>, _>>()?;
        let newest = keys.iter().zip(&weeks).find(|(_, of_week)| **of_week == week);
        let config = newest.map(|(key, _)| key.config().to_vec()).into_iter().collect::<Vec<_>>();
        let list = sign_keys(&config, identity, week * OHTTP_KEY_SECONDS, ends(week));
        Ok(Self { gateway: Gateway::new(keys), list, week })
    }

    /// Whether the list is that of the week of `now`.
    pub fn is_current(&self, now: u64) -> bool {
        self.week == now / OHTTP_KEY_SECONDS
    }
}

/// When the key of a week opens nothing any more.
fn ends(week: u64) -> u64 {
    week.saturating_add(1).saturating_mul(OHTTP_KEY_SECONDS).saturating_add(OHTTP_KEY_GRACE_SECONDS)
}

/// Makes the folder, or sees that it is its owner's alone.
fn prepare(folder: &Path) -> Result<(), KeysError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|error| file("make", folder, error))?;
    check_mode(folder)
}

fn check_mode(path: &Path) -> Result<(), KeysError> {
    let found = fs::metadata(path).map_err(|error| file("look at", path, error))?;
    match open_to_others(&found) {
        None => Ok(()),
        Some(mode) => Err(KeysError::Open { path: path.to_owned(), mode }),
    }
}

fn files(folder: &Path) -> Result<Vec<(PathBuf, String)>, KeysError> {
    let read = || -> io::Result<_> {
        let mut files = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            files.extend(entry.file_name().into_string().ok().map(|name| (entry.path(), name)));
        }
        Ok(files)
    };
    read().map_err(|error| file("list", folder, error))
}

fn path_of(folder: &Path, week: u64) -> PathBuf {
    folder.join(format!("{week}.key"))
}

/// Makes the key of a week, unless another process has made it meanwhile.
fn make(folder: &Path, week: u64) -> Result<(), KeysError> {
    let random = |bytes: &mut [u8]| {
        getrandom::fill(bytes).map_err(|error| KeysError::NoRandomness(error.to_string()))
    };
    let (mut seed, mut name) = (Zeroizing::new([0; SEED_BYTES]), [0; 8]);
    random(&mut *seed)?;
    random(&mut name)?;
    let encoded = Zeroizing::new(base64url(&*seed));
    let line = Zeroizing::new(format!("{FILE_WORD} {}\n", encoded.as_str()));
    let path = path_of(folder, week);
    // A file of this name goes with its week, should it remain.
    let temporary = folder.join(format!("{week}.{}.tmp", base64url(&name)));
    let write = || {
        let options = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary);
        options.and_then(|mut file| {
            file.write_all(line.as_bytes())?;
            file.sync_all()
        })
    };
    let linked = write().and_then(|()| fs::hard_link(&temporary, &path));
    let removed = gone(fs::remove_file(&temporary));
    match linked {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        linked => linked.and(removed).and_then(|()| sync_parent(&path)),
    }
    .map_err(|error| file("make", &path, error))
}

fn read(folder: &Path, week: u64) -> Result<GatewayKey, KeysError> {
    let path = path_of(folder, week);
    check_mode(&path)?;
    let bytes = read_regular(&path, OHTTP_KEY_FILE_BYTES_MAX);
    let bytes = Zeroizing::new(bytes.map_err(|error| file("read", &path, error))?);
    let seed = seed_of(&bytes).ok_or(KeysError::NoKey { path })?;
    // Neighbouring weeks have different identifiers.
    Ok(GatewayKey::new(week as u8, &seed)?)
}

fn seed_of(bytes: &[u8]) -> Option<Zeroizing<[u8; SEED_BYTES]>> {
    let encoded = std::str::from_utf8(bytes).ok()?.trim_end().strip_prefix(FILE_WORD)?;
    let seed = Zeroizing::new(from_base64url(encoded.strip_prefix(' ')?)?);
    Some(Zeroizing::new(seed.as_slice().try_into().ok()?))
}

fn file(doing: &'static str, path: &Path, error: io::Error) -> KeysError {
    KeysError::File { doing, path: path.to_owned(), error }
}

/// The keys of a front-end or a key service that runs. Its methods read files: call them on threads
/// that may wait.
pub(crate) struct Keys {
    folder: PathBuf,
    identity: SigningKey,
    ring: RwLock<Arc<Keyring>>,
    looked: AtomicU64,
    /// Held while the folder is read, so that the newest keys are used in the end.
    reading: Mutex<()>,
}

impl Keys {
    pub(crate) fn open(folder: PathBuf, identity: SigningKey, now: u64) -> Result<Self, KeysError> {
        let ring = RwLock::new(Arc::new(Keyring::open(&folder, &identity, now)?));
        let looked = AtomicU64::new(now);
        Ok(Self { folder, identity, ring, looked, reading: Mutex::new(()) })
    }

    /// The present keys.
    pub(crate) fn ring(&self) -> Arc<Keyring> {
        self.ring.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the folder again. Where it cannot be used, the keys stay as they were.
    pub(crate) fn refresh(&self, now: u64) -> Result<Arc<Keyring>, KeysError> {
        let _reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let ring = Arc::new(Keyring::open(&self.folder, &self.identity, now)?);
        *self.ring.write().unwrap_or_else(PoisonError::into_inner) = ring.clone();
        Ok(ring)
    }

    /// The keys for a request whose key is not among them: another process may have made it. None
    /// where the folder was read just before.
    pub(crate) fn look_again(&self, now: u64) -> Option<Arc<Keyring>> {
        let due =
            |looked: u64| (now.abs_diff(looked) >= OHTTP_KEYS_LOOK_AGAIN_SECONDS).then_some(now);
        self.looked.fetch_update(Ordering::Relaxed, Ordering::Relaxed, due).ok()?;
        self.refresh(now).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    use std::thread;

    use super::*;
    use crate::discovery::sealed::capsule::{InnerRequest, seal};
    use crate::discovery::sealed::keys::KeyList;

    /// The beginning of a week.
    const MONDAY: u64 = 2_900 * OHTTP_KEY_SECONDS;

    fn identity() -> SigningKey {
        SigningKey::from_bytes(&[5; 32])
    }

    fn open(folder: &Path, now: u64) -> Keyring {
        Keyring::open(folder, &identity(), now).unwrap_or_else(|error| panic!("{error}"))
    }

    fn refused(folder: &Path) -> KeysError {
        Keyring::open(folder, &identity(), MONDAY).err().expect("the folder was accepted")
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            files(folder).unwrap().into_iter().map(|file| file.1).collect();
        names.sort();
        names
    }

    /// A capsule for the key that a device of this time would use.
    fn sealed(ring: &Keyring, now: u64) -> Vec<u8> {
        let list = KeyList::open(&ring.list, &identity().verifying_key(), now).unwrap();
        let request = InnerRequest {
            method: "GET".to_owned(),
            path: "/directory".to_owned(),
            content_type: None,
            body: Vec::new(),
        };
        seal(list.newest(), &request).unwrap().0
    }

    #[test]
    fn a_key_is_given_for_a_week_and_opens_for_two_days_more() {
        let folder = tempfile::tempdir().unwrap();
        let folder = &folder.path().join("keys");
        let first = open(folder, MONDAY);
        let last = MONDAY + OHTTP_KEY_SECONDS - 1;
        let capsule = sealed(&first, last);
        assert!(first.is_current(last) && !first.is_current(last + 1));
        assert_eq!(open(folder, last).list, first.list);

        let next = open(folder, last + 1);
        assert_ne!(next.list, first.list);
        assert!(next.gateway.open(&capsule).is_ok());
        assert_eq!(names(folder), ["2900.key", "2901.key"]);
        let end = last + OHTTP_KEY_GRACE_SECONDS;
        assert!(open(folder, end).gateway.open(&capsule).is_ok());
        // The list that devices hold ends with the key.
        let opened = |now| KeyList::open(&first.list, &identity().verifying_key(), now).is_ok();
        assert!(opened(end) && !opened(end + 1));
        assert!(open(folder, end + 1).gateway.open(&capsule).is_err());
        assert_eq!(names(folder), ["2901.key"]);
    }

    #[test]
    fn processes_on_one_folder_agree() {
        let folder = tempfile::tempdir().unwrap();
        let folder = &folder.path().join("keys");
        let lists: Vec<String> = thread::scope(|scope| {
            let process = || scope.spawn(|| open(folder, MONDAY).list);
            let processes: Vec<_> = (0..8).map(|_| process()).collect();
            processes.into_iter().map(|process| process.join().unwrap()).collect()
        });
        assert!(lists.iter().all(|list| *list == lists[0]));
        assert_eq!(names(folder), ["2900.key"]);
    }

    #[test]
    fn a_key_that_another_process_made_a_little_before_the_week_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("keys");
        let before = MONDAY - 60;
        let keys = Keys::open(folder.clone(), identity(), before).unwrap();
        let capsule = sealed(&open(&folder, MONDAY), MONDAY);
        assert!(keys.ring().gateway.open(&capsule).is_err());
        assert!(keys.look_again(before + 1).is_none(), "it looks all the time");
        let ring = keys.look_again(before + 2).expect("it looks again");
        assert!(ring.gateway.open(&capsule).is_ok());
        assert!(ring.is_current(before + 2), "the list is still that of the week before");
        assert!(keys.look_again(before + 2).is_none());
    }

    #[test]
    fn folder_and_files_are_the_owners_alone() {
        let outer = tempfile::tempdir().unwrap();
        let folder = &outer.path().join("a/keys");
        open(folder, MONDAY);
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!((mode(folder), mode(&path_of(folder, 2_900))), (0o700, 0o600));
        let chmod = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        chmod(folder, 0o750);
        assert!(matches!(refused(folder), KeysError::Open { mode: 0o750, .. }));
        chmod(folder, 0o700);
        chmod(&path_of(folder, 2_900), 0o644);
        assert!(matches!(refused(folder), KeysError::Open { mode: 0o644, .. }));
    }

    #[test]
    fn a_file_that_holds_no_key_is_refused_and_others_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let folder = &folder.path().join("keys");
        let list = open(folder, MONDAY).list;
        let path = path_of(folder, 2_900);
        let text = fs::read_to_string(&path).unwrap();
        for wrong in ["", "sotto-ohttp-1", "sotto-ohttp-1 AAAA\n", &text[1..], &text[..40]] {
            fs::write(&path, wrong).unwrap();
            let error = refused(folder);
            assert!(matches!(error, KeysError::NoKey { .. }), "{wrong:?}: {error}");
            assert!(!error.to_string().contains(&text[14..40]), "it shows the key");
        }
        fs::write(&path, &text).unwrap();
        for name in ["README", "x.key", "2900.key.bak", "2950.key", "2800.AAAA.tmp"] {
            fs::write(folder.join(name), "something").unwrap();
        }
        assert_eq!(open(folder, MONDAY).list, list);
        // What was left of an expired week is removed, also a file that was never finished.
        assert_eq!(names(folder), ["2900.key", "2900.key.bak", "2950.key", "README", "x.key"]);
        fs::remove_dir_all(folder).unwrap();
        fs::write(folder, "a file").unwrap();
        assert!(matches!(refused(folder), KeysError::File { .. }));
    }
}
