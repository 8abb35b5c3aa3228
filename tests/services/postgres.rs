//! A PostgreSQL server of one's own for tests: made by `initdb` in a temporary folder, reached over
//! a Unix socket, with fsync on. Where PostgreSQL is not installed, tests run on SQLite alone and
//! say so; in CI (`SOTTO_TEST_SERVICES=1`) that is an error.

#[path = "said.rs"]
pub(crate) mod said;

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError, Weak};
use std::{fs, sync::Arc};

use self::said::there;
use super::Store;

/// A server that runs until it is dropped.
pub(crate) struct Postgres {
    folder: tempfile::TempDir,
    server: Mutex<Option<Child>>,
    made: AtomicU32,
}

/// The folder of PostgreSQL's programs: Debian keeps them out of PATH.
fn programs() -> Option<PathBuf> {
    let mut versions: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .map(|entries| entries.flatten().map(|entry| entry.path().join("bin")).collect())
        .unwrap_or_default();
    versions.sort();
    versions.into_iter().rev().find(|bin| bin.join("initdb").exists())
}

impl Postgres {
    /// Whether PostgreSQL is installed; says so where it is not.
    pub(crate) fn is_there() -> bool {
        there("PostgreSQL", programs().is_some(), "apt-get install postgresql")
    }

    /// Starts a server of its own; `None` where it is not installed.
    pub(crate) fn start() -> Option<Self> {
        if !Self::is_there() {
            return None;
        }
        let programs = programs().unwrap();
        let folder = tempfile::Builder::new().prefix("sotto-pg-").tempdir().unwrap();
        own(folder.path());
        let run = |program: &str, arguments: &[&str]| {
            let mut command = Command::new(programs.join(program));
            as_somebody(&mut command).args(arguments).current_dir(folder.path());
            let output = command.output().unwrap();
            assert!(output.status.success(), "{program}: {output:?}");
        };
        run("initdb", &["-D", "data", "-U", "sotto", "-A", "trust", "-E", "UTF8", "--no-locale"]);
        let started = Self { folder, server: Mutex::default(), made: AtomicU32::new(0) };
        started.resume();
        Some(started)
    }

    /// Starts the server again after [`Self::stop`] or [`Self::kill`], and waits until it answers.
    pub(crate) fn resume(&self) {
        let programs = programs().unwrap();
        let folder = self.folder.path().to_str().unwrap();
        let mut command = Command::new(programs.join("postgres"));
        as_somebody(&mut command).current_dir(self.folder.path());
        let mut log = fs::File::options();
        let log = log.create(true).append(true).open(self.folder.path().join("log")).unwrap();
        command.args(["-D", "data", "-k", folder, "-c", "listen_addresses=", "-c", "fsync=on"]);
        command.args(["-c", "max_connections=200"]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        let mut server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        *server = Some(child.unwrap());
        loop {
            let mut ready = Command::new(programs.join("pg_isready"));
            ready.args(["-q", "-h", folder, "-U", "sotto", "-d", "postgres", "-t", "30"]);
            if ready.status().unwrap().success() {
                return;
            }
            let ended = server.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "postgres ended: see {folder}/log");
            std::thread::yield_now();
        }
    }

    /// Ends the server as its operator does: connections end at once, nothing is lost.
    #[allow(dead_code)] // Not every program of tests does it.
    pub(crate) fn stop(&self) {
        self.end(signals::INT);
    }

    /// Ends it without warning.
    pub(crate) fn kill(&self) {
        self.end(signals::QUIT);
    }

    fn end(&self, signal: &str) {
        let mut server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(mut child) = server.take() else { return };
        let _ = Command::new("kill").args([signal, &child.id().to_string()]).status();
        let _ = child.wait();
    }

    /// The address of a new, empty database.
    pub(crate) fn database(&self) -> String {
        let name = format!("test{}", self.made.fetch_add(1, Ordering::Relaxed));
        let folder = self.folder.path().to_str().unwrap();
        let mut command = Command::new(programs().unwrap().join("createdb"));
        command.args(["-h", folder, "-U", "sotto", &name]);
        assert!(command.status().unwrap().success(), "createdb {name}");
        format!("postgres://sotto@localhost/{name}?host={folder}")
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill();
    }
}

mod signals {
    pub(super) const INT: &str = "-INT";
    pub(super) const QUIT: &str = "-QUIT";
}

/// PostgreSQL refuses to run as root: then it runs as `nobody`, and the folder is nobody's.
fn as_somebody(command: &mut Command) -> &mut Command {
    if is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

const NOBODY: u32 = 65_534;

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

fn own(folder: &Path) {
    if is_root() {
        std::os::unix::fs::chown(folder, Some(NOBODY), Some(NOBODY)).unwrap();
    }
}

/// The server that the tests of this process share while one of them uses it.
pub(crate) fn shared() -> Option<Arc<Postgres>> {
    static SHARED: OnceLock<Mutex<Weak<Postgres>>> = OnceLock::new();
    let mut shared =
        SHARED.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(server) = shared.upgrade() {
        return Some(server);
    }
    let server = Arc::new(Postgres::start()?);
    *shared = Arc::downgrade(&server);
    Some(server)
}

/// Runs a test on SQLite and on PostgreSQL, each with an empty database.
pub(crate) async fn both(
    migrations: &[(i64, &'static str, &'static str)],
    test: impl AsyncFn(Store),
) {
    let folder = tempfile::tempdir().unwrap();
    let file = format!("sqlite:{}/test.sqlite", folder.path().display());
    test(Store::open(&file, 1, migrations).await.unwrap()).await;
    if let Some(server) = shared() {
        test(Store::open(&server.database(), 16, migrations).await.unwrap()).await;
    }
}
