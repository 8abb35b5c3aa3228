//! A message centre for tests: npm's `smpp` in node, which shares no code with the client.
//!
//! Its packages are installed by `npm ci` the first time, from the lock file there, into a folder
//! for temporary files whose name has the hash of that file.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::child::{Talker, folder};
use super::postgres::said::there;

/// A message centre that runs until it is dropped. What it can be told is in `smsc/smsc.js`.
pub(crate) struct Smsc(Talker);

impl std::ops::Deref for Smsc {
    type Target = Talker;

    fn deref(&self) -> &Talker {
        &self.0
    }
}

impl Smsc {
    /// Starts one without TLS; `None` where node is not installed.
    pub(crate) fn start() -> Option<Self> {
        Self::with(&[])
    }

    /// Starts one with TLS: a key and a certificate, PEM files.
    pub(crate) fn start_tls(key: &Path, certificate: &Path) -> Option<Self> {
        Self::with(&[key, certificate])
    }

    fn with(files: &[&Path]) -> Option<Self> {
        if !there("node", has("node") && has("npm"), "apt-get install nodejs npm") {
            return None;
        }
        let folder = folder().join("smsc");
        let mut node = Command::new("node");
        node.env("NODE_PATH", installed(&folder).join("node_modules"));
        Some(Self(Talker::start(node.arg(folder.join("smsc.js")).args(files))))
    }

    /// `host:port`.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

/// The folder that has what the lock file of `folder` names, which is installed if it is missing.
fn installed(folder: &Path) -> PathBuf {
    let names = ["package.json", "package-lock.json"];
    let hash = blake3::hash(&fs::read(folder.join(names[1])).unwrap()).to_hex();
    let place = std::env::temp_dir().join(format!("sotto-test-smsc-{}", &hash[..16]));
    DirBuilder::new().recursive(true).mode(0o700).create(&place).unwrap();
    // What somebody else has put there is not run.
    let owner = |path: &Path| fs::metadata(path).unwrap().uid();
    assert_eq!(owner(&place), owner(Path::new("/proc/self")), "{place:?} is another user's");
    // One installs while others wait. What was installed in part has no mark, and is replaced.
    let (lock, mark) = (place.join("lock"), place.join("installed"));
    let lock = File::options().create(true).append(true).open(lock).unwrap();
    lock.lock().unwrap();
    if !mark.exists() {
        for name in names {
            fs::copy(folder.join(name), place.join(name)).unwrap();
        }
        let mut npm = Command::new("npm");
        npm.args(["ci", "--no-audit", "--no-fund", "--prefer-offline"]).current_dir(&place);
        assert!(npm.stdout(Stdio::null()).status().unwrap().success(), "npm ci");
        fs::write(mark, "").unwrap();
    }
    place
}

fn has(program: &str) -> bool {
    let mut command = Command::new(program);
    let quiet = command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null());
    quiet.stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}
