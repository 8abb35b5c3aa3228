//! Back to the content of the epoch before, as a new epoch.
//!
//! Clients refuse an epoch older than one they have seen, so the manifest before is not put back:
//! what it names is signed again under the next epoch. The one it replaces becomes the one before,
//! so that a second rollback is the way back. Builds nothing and removes nothing.

use std::io;
use std::path::Path;

use super::progress::{Progress, Stage};
use super::work::WorkDir;
use super::{BuildError, IoContext as _, directory, keys, run};
use crate::shard::files::write_atomically;
use crate::shard::manifest::{MANIFEST_NAME, MANIFEST_PREVIOUS_NAME};
use crate::shard::verify::{verify, verify_bytes};
use crate::shard::{Database, Manifest, ManifestHead, OpenError};
use crate::wire::SigningKey;

/// What a rollback came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RolledBack {
    /// The epoch whose content it is.
    pub content_of: u64,
    /// The epoch it has now.
    pub epoch: u64,
    /// Shards that are others than they were.
    pub changed: usize,
}

/// Makes the content of the epoch before the newest one, for `expires_days` from now, once every
/// byte of it was read and is as its digests say. The key is the operator's,
/// [`keys::default_path`] when there is no other.
///
/// # Errors
/// There is no epoch before, a file of it is missing, damaged or another's, clients would not go
/// along, or the key is not the operator's: nothing is changed.
pub fn rollback(
    db: &Path,
    signing_key: Option<&Path>,
    expires_days: u32,
    progress: &dyn Progress,
) -> Result<RolledBack, BuildError> {
    let lifetime = run::lifetime(run::now()?, expires_days)?;
    let _lock = directory::lock(db)?;
    let no_way = |problem: String| BuildError::NoRollback { path: db.to_owned(), problem };
    if WorkDir::of(db).load()?.is_some() {
        let problem = "a build was interrupted there: finish it, or throw it away (--restart)";
        return Err(no_way(problem.into()));
    }
    let unusable = |error: OpenError| no_way(error.to_string());
    let newest = Database::read_manifest(db).map_err(unusable)?;
    let before = match Manifest::read(&db.join(MANIFEST_PREVIOUS_NAME)) {
        Err(OpenError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Err(no_way(format!("it has no epoch before ({MANIFEST_PREVIOUS_NAME})")));
        }
        read => read.map_err(unusable)?,
    };
    if (before.seed, before.shard_count) != (newest.seed, newest.shard_count) {
        let problem = "the epoch before has another seed or number of shards, which clients refuse";
        return Err(no_way(problem.into()));
    }
    let path = signing_key.map_or_else(|| keys::default_path(db), Path::to_owned);
    let key = operator_key(&path, &newest)?;
    let content_of = before.epoch;
    let before = Database::open_named(db, before).map_err(unusable)?;
    progress.begin(Stage::Verifying, verify_bytes(&before));
    let verified = verify(&before, &|bytes| progress.advance(bytes));
    progress.end();
    if let Some(problem) = verified.problems.into_iter().next() {
        return Err(unusable(problem));
    }
    let epoch = newest.epoch + 1;
    let head = ManifestHead {
        seed: newest.seed.0,
        epoch,
        lifetime,
        database: newest.database.clone(),
        shape: *before.shape(),
    };
    let entries = &before.manifest().shards;
    let changed = entries.iter().zip(&newest.shards).filter(|(then, now)| then != now).count();
    let manifest = Manifest::sign(&head, entries.clone(), &key)?;
    // In this order: interrupted between the two, what was asked for is done.
    for (name, manifest) in [(MANIFEST_NAME, &manifest), (MANIFEST_PREVIOUS_NAME, &newest)] {
        let path = db.join(name);
        write_atomically(&path, &manifest.to_json()).context("write", &path)?;
    }
    Ok(RolledBack { content_of, epoch, changed })
}

/// The key that signed this manifest.
pub(super) fn operator_key(path: &Path, newest: &Manifest) -> Result<SigningKey, BuildError> {
    let problem = "there is no such file".into();
    let missing = || BuildError::SigningKey { path: path.to_owned(), problem };
    let key = keys::load(path)?.ok_or_else(missing)?;
    if key.verifying_key().to_bytes() != newest.operator_key.0 {
        return Err(BuildError::OtherOperator { path: path.to_owned() });
    }
    Ok(key)
}
