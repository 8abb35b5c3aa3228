//! What each account has used of its quotas: two leaky buckets (`bucket.rs`) in a file (redb).
//!
//! The file holds 48 bytes an account and nothing else: HMAC-SHA256 of the account's name under a
//! key of this relay, and the buckets. Requests change buckets in memory; what has changed is
//! written once a second, so that no request waits for a disk to flush. A crash forgets what was
//! counted since, at most a second of requests. A file that cannot be read is never replaced: the
//! relay says what is wrong and does not start.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use hmac::{Hmac, KeyInit, Mac as _};
use redb::backends::FileBackend;
use redb::{
    Builder, Database, DatabaseError, ReadableDatabase as _, ReadableTableMetadata as _,
    StorageError, TableDefinition, TableError,
};
use sha2::Sha256;
use tempfile::NamedTempFile;
use zeroize::Zeroizing;

use super::bucket::{Bucket, Kind, Quota};
use super::errors::StateError;
use crate::limits::{QUOTA_ACCOUNTS_IN_MEMORY_MAX, QUOTA_CACHE_BYTES, RELAY_ACCOUNT_REQUESTS_MAX};
use crate::shard::files::{read_regular, sync_parent};

const KEY_BYTES: usize = 32;
/// The version of the file's content, under this name.
const ABOUT: TableDefinition<&str, u32> = TableDefinition::new("sotto relay");
const VERSION: (&str, u32) = ("version", 1);
const BUCKETS: TableDefinition<&[u8; 32], &[u8; 16]> = TableDefinition::new("buckets");
type BucketTable<'a> = redb::Table<'a, &'static [u8; 32], &'static [u8; 16]>;

/// Unix seconds.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// What stands for an account: nobody finds its name without the relay's key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct AccountKey([u8; 32]);

/// Why a request is not counted.
#[derive(Debug)]
pub(super) enum NotTaken {
    /// The account may ask again after so many seconds.
    Quota { seconds: u64 },
    /// The account has too many requests at once.
    Busy,
    /// The file cannot be read, or could not be written for too long.
    Unavailable,
}

/// The buckets of all accounts.
pub(super) struct Quotas {
    path: PathBuf,
    key: Zeroizing<Vec<u8>>,
    quotas: [Quota; Kind::ALL.len()],
    clock: Clock,
    /// None after an error, until it is opened again: redb uses no file after one.
    file: RwLock<Option<Database>>,
    memory: Mutex<Memory>,
    /// Held by whoever writes.
    writer: Mutex<()>,
}

/// Accounts that have requests now, or whose buckets are not written yet.
#[derive(Default)]
struct Memory {
    accounts: HashMap<AccountKey, Entry>,
    /// Rises when accounts are removed from memory.
    written: u64,
}

struct Entry {
    buckets: [Bucket; Kind::ALL.len()],
    requests: u32,
    is_changed: bool,
}

impl Quotas {
    /// Opens the quotas in a folder, and makes what is missing at the first start.
    ///
    /// # Errors
    /// Something is there that cannot be used; nothing of it is removed.
    pub(super) fn open(
        folder: &Path,
        quotas: [Quota; Kind::ALL.len()],
        clock: Clock,
    ) -> Result<Self, StateError> {
        std::fs::create_dir_all(folder).map_err(|source| failed(folder, source))?;
        let (path, key_path) = (folder.join("quotas.redb"), folder.join("relay.key"));
        let is_there = path.try_exists().map_err(|source| failed(&path, source))?;
        let key = match read_key(&key_path)? {
            Some(key) => key,
            None if is_there => return Err(StateError::KeyMissing { path: key_path }),
            None => make_key(folder, &key_path)?,
        };
        if !is_there {
            make_file(folder, &path)?;
        }
        let file = RwLock::new(Some(open_file(&path)?));
        let (memory, writer) = Default::default();
        Ok(Self { path, key, quotas, clock, file, memory, writer })
    }

    /// What stands for the account of this name.
    pub(super) fn account(&self, name: &str) -> AccountKey {
        let hmac = <Hmac<Sha256> as KeyInit>::new_from_slice(&self.key);
        let mut hmac = hmac.expect("this is a bug: HMAC takes a key of any length");
        hmac.update(name.as_bytes());
        AccountKey(hmac.finalize().into_bytes().into())
    }

    /// Counts one more request of an account. It is taken back when its place is dropped, unless
    /// [`Place::count`] was called before. May read the file.
    pub(super) fn take(
        self: &Arc<Self>,
        account: AccountKey,
        kind: Kind,
    ) -> Result<Place, NotTaken> {
        let mut memory = self.load(account)?;
        let now = (self.clock)();
        let minute = minute(now);
        let entry = memory.accounts.get_mut(&account).ok_or(NotTaken::Unavailable)?;
        if entry.requests >= RELAY_ACCOUNT_REQUESTS_MAX {
            return Err(NotTaken::Busy);
        }
        let bucket = &mut entry.buckets[kind as usize];
        match self.quotas[kind as usize].take(*bucket, minute) {
            Ok(taken) => *bucket = taken,
            Err(minutes) => {
                let then = (u64::from(minute) + u64::from(minutes)) * 60;
                return Err(NotTaken::Quota { seconds: then.saturating_sub(now).max(1) });
            }
        }
        entry.requests += 1;
        entry.is_changed = true;
        Ok(Place { quotas: self.clone(), account, kind, minute, counts: false })
    }

    /// The memory, with this account in it.
    fn load(&self, account: AccountKey) -> Result<MutexGuard<'_, Memory>, NotTaken> {
        loop {
            let written = {
                let memory = self.memory();
                if memory.accounts.contains_key(&account) {
                    return Ok(memory);
                }
                if memory.accounts.len() >= QUOTA_ACCOUNTS_IN_MEMORY_MAX {
                    return Err(NotTaken::Unavailable);
                }
                memory.written
            };
            let buckets = self.read(account).map_err(|error| {
                tracing::debug!(%error, "quotas cannot be read");
                NotTaken::Unavailable
            })?;
            let mut memory = self.memory();
            // Otherwise what was read may be older than what was written meanwhile.
            if memory.written == written {
                let entry = Entry { buckets, requests: 0, is_changed: false };
                memory.accounts.entry(account).or_insert(entry);
                return Ok(memory);
            }
        }
    }

    fn read(&self, account: AccountKey) -> Result<[Bucket; Kind::ALL.len()], redb::Error> {
        let file = self.file.read().unwrap_or_else(PoisonError::into_inner);
        let file = file.as_ref().ok_or(redb::Error::PreviousIo)?;
        let table = file.begin_read()?.open_table(BUCKETS)?;
        Ok(table.get(&account.0)?.map(|value| from_bytes(value.value())).unwrap_or_default())
    }

    /// A request has ended.
    fn leave(&self, place: &Place) {
        let now = minute((self.clock)());
        // An account with a request is in memory.
        if let Some(entry) = self.memory().accounts.get_mut(&place.account) {
            entry.requests = entry.requests.saturating_sub(1);
            if !place.counts {
                let bucket = &mut entry.buckets[place.kind as usize];
                let quota = &self.quotas[place.kind as usize];
                *bucket = quota.give_back(*bucket, place.minute, now);
                entry.is_changed = true;
            }
        }
    }

    /// Writes what has changed, and says whether anything had. Nothing is lost by an error: it is
    /// written the next time.
    pub(super) fn write(&self) -> Result<bool, StateError> {
        let _one = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed = Vec::new();
        for (account, entry) in &mut self.memory().accounts {
            if std::mem::take(&mut entry.is_changed) {
                changed.push((*account, entry.buckets));
            }
        }
        let written = if changed.is_empty() { Ok(()) } else { self.store(&changed) };
        let mut memory = self.memory();
        if let Err(error) = written {
            for (account, _) in &changed {
                // What is not written stays in memory.
                if let Some(entry) = memory.accounts.get_mut(account) {
                    entry.is_changed = true;
                }
            }
            return Err(error);
        }
        memory.accounts.retain(|_, entry| entry.is_changed || entry.requests > 0);
        memory.written += 1;
        Ok(!changed.is_empty())
    }

    fn store(&self, changed: &[(AccountKey, [Bucket; 2])]) -> Result<(), StateError> {
        self.change(|table| {
            for (account, buckets) in changed {
                table.insert(&account.0, &to_bytes(buckets))?;
            }
            Ok(())
        })
    }

    /// Forgets accounts whose buckets are empty.
    pub(super) fn sweep(&self) -> Result<(), StateError> {
        let _one = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let minute = minute((self.clock)());
        self.change(|table| {
            table.retain(|_, value| {
                let buckets = from_bytes(value).into_iter();
                !buckets.zip(&self.quotas).all(|(bucket, quota)| quota.is_empty(bucket, minute))
            })
        })
    }

    /// One transaction. After an error the file is opened anew, now or the next time.
    fn change(
        &self,
        change: impl FnOnce(&mut BucketTable<'_>) -> Result<(), StorageError>,
    ) -> Result<(), StateError> {
        if self.file.read().unwrap_or_else(PoisonError::into_inner).is_none() {
            let file = open_file(&self.path)?;
            *self.file.write().unwrap_or_else(PoisonError::into_inner) = Some(file);
        }
        let file = self.file.read().unwrap_or_else(PoisonError::into_inner);
        let changed = file.as_ref().map_or(Err(redb::Error::PreviousIo), |file| {
            let transaction = file.begin_write()?;
            change(&mut transaction.open_table(BUCKETS)?)?;
            Ok(transaction.commit()?)
        });
        drop(file);
        changed.map_err(|error| {
            *self.file.write().unwrap_or_else(PoisonError::into_inner) = None;
            StateError::Unwritable { path: self.path.clone(), why: error.to_string() }
        })
    }

    /// Accounts in the file.
    pub(super) fn accounts(&self) -> Option<u64> {
        let file = self.file.read().unwrap_or_else(PoisonError::into_inner);
        file.as_ref()?.begin_read().ok()?.open_table(BUCKETS).ok()?.len().ok()
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that has begun: counted for now, and for good once it goes to the front-end.
pub(super) struct Place {
    quotas: Arc<Quotas>,
    account: AccountKey,
    kind: Kind,
    minute: u32,
    counts: bool,
}

impl Place {
    /// It goes to the front-end now.
    pub(super) fn count(&mut self) {
        self.counts = true;
    }

    /// It has not arrived there.
    pub(super) fn give_back(mut self) {
        self.counts = false;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.quotas.leave(self);
    }
}

fn minute(now: u64) -> u32 {
    u32::try_from(now / 60).unwrap_or(u32::MAX)
}

fn to_bytes(buckets: &[Bucket; 2]) -> [u8; 16] {
    let mut bytes = [0; 16];
    for (bytes, bucket) in bytes.chunks_exact_mut(8).zip(buckets) {
        bytes.copy_from_slice(&bucket.to_bytes());
    }
    bytes
}

fn from_bytes(bytes: &[u8; 16]) -> [Bucket; 2] {
    let half = |at: usize| std::array::from_fn(|i| bytes[at + i]);
    [Bucket::from_bytes(half(0)), Bucket::from_bytes(half(8))]
}

fn failed(path: &Path, source: io::Error) -> StateError {
    StateError::Io { path: path.to_owned(), source }
}

fn read_key(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, StateError> {
    match read_regular(path, KEY_BYTES as u64 + 1) {
        Ok(key) if key.len() == KEY_BYTES => Ok(Some(Zeroizing::new(key))),
        Ok(key) => Err(StateError::Key { path: path.to_owned(), found: key.len() }),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(failed(path, source)),
    }
}

fn make_key(folder: &Path, path: &Path) -> Result<Zeroizing<Vec<u8>>, StateError> {
    let mut key = Zeroizing::new(vec![0; KEY_BYTES]);
    getrandom::fill(&mut key).map_err(StateError::Random)?;
    // Its mode is 0600.
    let mut file = NamedTempFile::new_in(folder).map_err(|source| failed(path, source))?;
    let written = file.write_all(&key).and_then(|()| file.as_file().sync_all());
    written.map_err(|source| failed(path, source))?;
    persist(file, path)?;
    // Another relay may have been faster, and waits for the quotas in vain.
    read_key(path)?.ok_or_else(|| failed(path, ErrorKind::NotFound.into()))
}

/// Gives a file its name, unless another has it.
fn persist(file: NamedTempFile, path: &Path) -> Result<(), StateError> {
    match file.persist_noclobber(path) {
        Err(error) if error.error.kind() != ErrorKind::AlreadyExists => {
            Err(failed(path, error.error))
        }
        _ => sync_parent(path).map_err(|source| failed(path, source)),
    }
}

/// Makes a file of quotas that appears whole or not at all.
fn make_file(folder: &Path, path: &Path) -> Result<(), StateError> {
    let file = NamedTempFile::new_in(folder).map_err(|source| failed(path, source))?;
    let own: File = file.reopen().map_err(|source| failed(path, source))?;
    let make = || -> Result<(), redb::Error> {
        let database = Builder::new().create_with_backend(FileBackend::new(own)?)?;
        let transaction = database.begin_write()?;
        transaction.open_table(ABOUT)?.insert(VERSION.0, VERSION.1)?;
        transaction.open_table(BUCKETS)?;
        transaction.commit()?;
        Ok(())
    };
    make().map_err(|error| failed(path, io::Error::other(error.to_string())))?;
    persist(file, path)
}

fn open_file(path: &Path) -> Result<Database, StateError> {
    let damaged = |why: String| StateError::Damaged { path: path.to_owned(), why };
    let length = std::fs::metadata(path).map_err(|source| failed(path, source))?.len();
    if length == 0 {
        return Err(damaged("it is empty".to_owned()));
    }
    let mut builder = Builder::new();
    // A file that was written into by others is refused here, not found out later.
    builder.set_cache_size(QUOTA_CACHE_BYTES).set_check_integrity_on_open(true);
    let database = builder.open(path).map_err(|error| match error {
        DatabaseError::DatabaseAlreadyOpen => StateError::InUse { path: path.to_owned() },
        DatabaseError::Storage(StorageError::Io(source))
            if !matches!(source.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof) =>
        {
            failed(path, source)
        }
        other => damaged(other.to_string()),
    })?;
    let foreign = |found: String| StateError::Foreign { path: path.to_owned(), found };
    match version(&database) {
        Ok(Some(found)) if found == VERSION.1 => Ok(database),
        Ok(Some(found)) => Err(foreign(format!("quotas in version {found}"))),
        Ok(None) => Err(foreign("another database (redb)".to_owned())),
        Err(error) => Err(damaged(error.to_string())),
    }
}

/// The version of the quotas in a file; none where it holds something else.
fn version(database: &Database) -> Result<Option<u32>, redb::Error> {
    let read = database.begin_read()?;
    let about = match read.open_table(ABOUT) {
        Ok(about) => about,
        Err(TableError::Storage(error)) => return Err(error.into()),
        Err(_) => return Ok(None),
    };
    let found = about.get(VERSION.0)?.map(|version| version.value());
    match read.open_table(BUCKETS) {
        Ok(_) => Ok(found),
        Err(TableError::Storage(error)) => Err(error.into()),
        Err(_) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    const NOW: u64 = 1_796_000_040;
    const DAY: u64 = 86_400;

    struct Opened {
        folder: tempfile::TempDir,
        now: Arc<AtomicU64>,
        quotas: Arc<Quotas>,
    }

    fn clock(now: &Arc<AtomicU64>) -> Clock {
        let now = now.clone();
        Arc::new(move || now.load(Ordering::Relaxed))
    }

    fn open_in(folder: &Path, now: &Arc<AtomicU64>) -> Result<Arc<Quotas>, StateError> {
        let quotas = ["32,16/day", "64,32/day"].map(|text| text.parse().unwrap());
        Quotas::open(folder, quotas, clock(now)).map(Arc::new)
    }

    fn open() -> Opened {
        let folder = tempfile::tempdir().unwrap();
        let now = Arc::new(AtomicU64::new(NOW));
        let quotas = open_in(folder.path(), &now).unwrap();
        Opened { folder, now, quotas }
    }

    impl Opened {
        fn take(&self, name: &str, kind: Kind) -> Result<Place, NotTaken> {
            self.quotas.take(self.quotas.account(name), kind)
        }

        /// Counts requests until the quota is used, and says how many there were.
        fn use_up(&self, name: &str, kind: Kind) -> u32 {
            let mut requests = 0;
            while let Ok(mut place) = self.take(name, kind) {
                place.count();
                requests += 1;
            }
            requests
        }

        fn reopen(self) -> Self {
            let Self { folder, now, quotas } = self;
            drop(quotas);
            let quotas = open_in(folder.path(), &now).unwrap();
            Self { folder, now, quotas }
        }

        fn file(&self) -> PathBuf {
            self.folder.path().join("quotas.redb")
        }
    }

    #[test]
    fn what_was_written_is_there_after_a_restart_and_a_crash_forgets_the_rest() {
        let opened = open();
        assert_eq!(opened.use_up("one", Kind::Evaluate), 2);
        assert!(opened.quotas.write().unwrap());
        assert!(!opened.quotas.write().unwrap(), "there was nothing to write");
        assert_eq!(opened.use_up("one", Kind::Lookup), 4);
        // As after a crash: what is on the disk while the file is open.
        let crashed = tempfile::tempdir().unwrap();
        for name in ["quotas.redb", "relay.key"] {
            fs::copy(opened.folder.path().join(name), crashed.path().join(name)).unwrap();
        }
        let crashed = Opened {
            quotas: open_in(crashed.path(), &opened.now).unwrap(),
            now: opened.now.clone(),
            folder: crashed,
        };
        assert_eq!(crashed.use_up("one", Kind::Evaluate), 0);
        assert_eq!(crashed.use_up("one", Kind::Lookup), 4);

        opened.quotas.write().unwrap();
        let opened = opened.reopen();
        assert_eq!(opened.use_up("one", Kind::Evaluate), 0);
        assert_eq!(opened.use_up("one", Kind::Lookup), 0);
        assert_eq!(opened.use_up("two", Kind::Evaluate), 2);
        let refused = opened.take("one", Kind::Evaluate).err().unwrap();
        // 16 leak in a day, and a minute begins now.
        let NotTaken::Quota { seconds } = refused else { panic!("{refused:?}") };
        opened.now.store(NOW + seconds - 1, Ordering::Relaxed);
        assert_eq!(opened.use_up("one", Kind::Evaluate), 0);
        opened.now.store(NOW + seconds, Ordering::Relaxed);
        assert_eq!(opened.use_up("one", Kind::Evaluate), 1);
    }

    #[test]
    fn a_request_that_went_nowhere_is_not_counted() {
        let opened = open();
        for _ in 0..10 {
            drop(opened.take("one", Kind::Evaluate).unwrap());
            let mut place = opened.take("one", Kind::Evaluate).unwrap();
            place.count();
            place.give_back();
            // Written in between or not.
            opened.quotas.write().unwrap();
        }
        // While it is on its way it counts.
        let places = [0; 2].map(|_| opened.take("one", Kind::Evaluate).unwrap());
        assert!(matches!(opened.take("one", Kind::Evaluate), Err(NotTaken::Quota { .. })));
        opened.quotas.write().unwrap();
        drop(places);
        assert_eq!(opened.use_up("one", Kind::Evaluate), 2);
    }

    #[test]
    fn an_account_has_few_requests_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let now = Arc::new(AtomicU64::new(NOW));
        let quotas = ["1024,1/day"; 2].map(|text| text.parse().unwrap());
        let quotas = Arc::new(Quotas::open(folder.path(), quotas, clock(&now)).unwrap());
        let account = quotas.account("one");
        let mut places = Vec::new();
        for n in 0..RELAY_ACCOUNT_REQUESTS_MAX {
            let kind = Kind::ALL[n as usize % 2];
            places.push(quotas.take(account, kind).unwrap());
        }
        assert!(matches!(quotas.take(account, Kind::Lookup), Err(NotTaken::Busy)));
        assert!(quotas.take(quotas.account("two"), Kind::Lookup).is_ok());
        places.pop();
        assert!(quotas.take(account, Kind::Lookup).is_ok());
    }

    #[test]
    fn names_are_found_by_the_key_alone_and_only_the_owner_reads_it() {
        let (one, two) = (open(), open());
        assert!(one.quotas.account("a") == one.quotas.account("a"));
        assert!(one.quotas.account("a") != one.quotas.account("b"));
        assert!(one.quotas.account("a") != two.quotas.account("a"));
        one.use_up("a name that is nowhere", Kind::Lookup);
        one.quotas.write().unwrap();
        for name in ["quotas.redb", "relay.key"] {
            let path = one.folder.path().join(name);
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{name}");
            let bytes = fs::read(&path).unwrap();
            assert!(!bytes.windows(6).any(|bytes| bytes == b"a name"), "{name}");
        }
        assert_eq!(fs::read_dir(one.folder.path()).unwrap().count(), 2, "temporary files");
    }

    #[test]
    fn two_relays_do_not_count_in_one_file() {
        let opened = open();
        let second = open_in(opened.folder.path(), &opened.now).err().unwrap();
        assert!(matches!(second, StateError::InUse { .. }), "{second}");
        assert_eq!(opened.use_up("one", Kind::Evaluate), 2);
    }

    #[test]
    fn a_key_that_is_missing_or_cut_is_an_error() {
        let opened = open();
        let (folder, now) = (opened.folder, opened.now);
        drop(opened.quotas);
        let (key, aside) = (folder.path().join("relay.key"), folder.path().join("aside"));
        fs::rename(&key, &aside).unwrap();
        let error = open_in(folder.path(), &now).err().unwrap();
        assert!(matches!(error, StateError::KeyMissing { .. }), "{error}");
        assert!(!key.exists());
        for bytes in [0, 31, 33] {
            fs::write(&key, vec![1; bytes]).unwrap();
            let error = open_in(folder.path(), &now).err().unwrap();
            assert!(matches!(error, StateError::Key { .. }), "{bytes}: {error}");
        }
        fs::rename(&aside, &key).unwrap();
        open_in(folder.path(), &now).unwrap();
    }

    #[test]
    fn a_file_that_is_damaged_or_anothers_is_refused_and_nothing_is_removed() {
        let opened = open();
        for n in 0..300 {
            opened.use_up(&n.to_string(), Kind::Evaluate);
        }
        opened.quotas.write().unwrap();
        let (path, now, folder) = (opened.file(), opened.now, opened.folder);
        drop(opened.quotas);
        let whole = fs::read(&path).unwrap();
        let refused = |bytes: &[u8], what: &str| {
            fs::write(&path, bytes).unwrap();
            let error = open_in(folder.path(), &now).err().unwrap_or_else(|| panic!("{what}"));
            // An attempt to repair it may set flags in the first 64 bytes.
            let left = fs::read(&path).unwrap();
            let is_left = left.len() == bytes.len() && left.get(64..) == bytes.get(64..);
            assert!(is_left, "{what}: the file was changed");
            error
        };
        for length in [0, 1, 100, 320, 4_095, 4_096, 8_192, whole.len() / 2] {
            let error = refused(&whole[..length], &format!("{length} bytes"));
            assert!(matches!(error, StateError::Damaged { .. }), "{length} bytes: {error}");
        }
        for text in ["not a database", &"x".repeat(whole.len())] {
            let error = refused(text.as_bytes(), "a text");
            assert!(matches!(error, StateError::Damaged { .. }), "{error}");
        }
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(open_in(folder.path(), &now).is_err());
        fs::remove_dir(&path).unwrap();
        fs::write(&path, &whole).unwrap();
        open_in(folder.path(), &now).unwrap();
    }

    #[test]
    fn the_database_of_another_program_or_version_is_refused() {
        let opened = open();
        let (path, now, folder) = (opened.file(), opened.now, opened.folder);
        drop(opened.quotas);
        let version = |version: u32| {
            let database = Database::open(&path).unwrap();
            let transaction = database.begin_write().unwrap();
            transaction.open_table(ABOUT).unwrap().insert(VERSION.0, version).unwrap();
            transaction.commit().unwrap();
        };
        version(2);
        let error = open_in(folder.path(), &now).err().unwrap();
        assert!(matches!(error, StateError::Foreign { .. }), "{error}");
        assert!(error.to_string().contains("version 2"), "{error}");
        version(VERSION.1);
        open_in(folder.path(), &now).unwrap();

        fs::remove_file(&path).unwrap();
        let others: TableDefinition<&str, u64> = TableDefinition::new("others");
        let database = Database::create(&path).unwrap();
        let transaction = database.begin_write().unwrap();
        transaction.open_table(others).unwrap().insert("kept", 7).unwrap();
        transaction.commit().unwrap();
        drop(database);
        let error = open_in(folder.path(), &now).err().unwrap();
        assert!(matches!(error, StateError::Foreign { .. }), "{error}");
        let database = Database::open(&path).unwrap();
        let read = database.begin_read().unwrap();
        assert_eq!(read.open_table(others).unwrap().get("kept").unwrap().unwrap().value(), 7);
    }

    /// One byte of a file changed, at a thousand places: a panic would end the relay.
    #[test]
    fn a_changed_byte_is_found_or_harmless() {
        let opened = open();
        for n in 0..100 {
            opened.use_up(&n.to_string(), Kind::Evaluate);
        }
        opened.quotas.write().unwrap();
        let (path, now, folder) = (opened.file(), opened.now, opened.folder);
        drop(opened.quotas);
        let whole = fs::read(&path).unwrap();
        let mut refused = 0;
        for at in (0..whole.len()).step_by(whole.len() / 300) {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x55;
            fs::write(&path, &bytes).unwrap();
            match open_in(folder.path(), &now) {
                Ok(quotas) => {
                    let _ = quotas.take(quotas.account("1"), Kind::Evaluate);
                    quotas.write().unwrap();
                }
                Err(error) => {
                    assert!(!error.to_string().is_empty());
                    refused += 1;
                }
            }
        }
        assert!(refused > 0);
    }

    #[test]
    fn ten_thousand_accounts_are_small_and_forgotten_when_their_buckets_are_empty() {
        let opened = open();
        for n in 0..10_000 {
            let mut place = opened.take(&n.to_string(), Kind::ALL[n % 2]).unwrap();
            place.count();
        }
        opened.quotas.write().unwrap();
        assert_eq!(opened.quotas.accounts(), Some(10_000));
        assert!(opened.quotas.memory().accounts.is_empty());
        let bytes = fs::metadata(opened.file()).unwrap().len();
        println!("10 000 accounts: {bytes} bytes on disk");
        assert!(bytes < 4 << 20, "{bytes}");
        // 16 look-ups leak in half a day, 16 evaluations in a day.
        opened.now.store(NOW + DAY / 2 + 60, Ordering::Relaxed);
        opened.quotas.sweep().unwrap();
        assert_eq!(opened.quotas.accounts(), Some(5_000));
        assert_eq!(opened.use_up("0", Kind::Evaluate), 1);
        opened.quotas.write().unwrap();
        opened.now.store(NOW + DAY + 60, Ordering::Relaxed);
        opened.quotas.sweep().unwrap();
        assert_eq!(opened.quotas.accounts(), Some(1));
    }

    #[test]
    fn after_an_error_the_file_is_opened_again_and_nothing_is_lost() {
        let opened = open();
        assert_eq!(opened.use_up("one", Kind::Evaluate), 2);
        let failing = opened.quotas.change(|_| Err(StorageError::PreviousIo)).unwrap_err();
        assert!(matches!(failing, StateError::Unwritable { .. }), "{failing}");
        // Accounts in memory go on, others have to wait.
        assert!(matches!(opened.take("one", Kind::Evaluate), Err(NotTaken::Quota { .. })));
        assert!(matches!(opened.take("two", Kind::Evaluate), Err(NotTaken::Unavailable)));
        assert_eq!(opened.quotas.accounts(), None);
        assert!(opened.quotas.write().unwrap());
        assert_eq!(opened.use_up("one", Kind::Evaluate), 0);
        assert_eq!(opened.use_up("two", Kind::Evaluate), 2);
        // It cannot be opened either: what is counted stays in memory until it can.
        *opened.quotas.file.write().unwrap() = None;
        let aside = opened.folder.path().join("aside");
        fs::rename(opened.file(), &aside).unwrap();
        assert!(opened.quotas.write().is_err());
        assert!(matches!(opened.take("two", Kind::Evaluate), Err(NotTaken::Quota { .. })));
        fs::rename(&aside, opened.file()).unwrap();
        assert!(opened.quotas.write().unwrap());
        let opened = opened.reopen();
        assert_eq!(opened.use_up("two", Kind::Evaluate), 0);
    }

    #[test]
    fn requests_beside_each_other_and_beside_a_writer_are_all_counted() {
        let opened = open();
        let counted = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for n in 0..200 {
                        // Few accounts, so that they meet; written and forgotten in between.
                        if let Ok(mut place) = opened.take(&(n % 50).to_string(), Kind::Lookup) {
                            place.count();
                            counted.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
            scope.spawn(|| {
                for _ in 0..20 {
                    opened.quotas.write().unwrap();
                }
            });
        });
        // 64 at once are four requests.
        assert_eq!(counted.load(Ordering::Relaxed), 4 * 50);
    }
}
