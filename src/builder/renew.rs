//! The same content, signed again as a new epoch, so that clients go on accepting it.
//!
//! Reads the manifest and every shard's header, but no records: a database need not be built again
//! for its signature. [`super::run()`] renews too, where it finds nothing changed.

use std::path::Path;

use super::work::WorkDir;
use super::{BuildError, IoContext as _, directory, keys, rollback, run};
use crate::shard::files::write_atomically;
use crate::shard::manifest::MANIFEST_NAME;
use crate::shard::{Database, Manifest, ManifestHead, OpenError};
use crate::wire::Lifetime;

/// What a renewal came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Renewed {
    /// The epoch now.
    pub epoch: u64,
    /// From when until when clients accept it.
    pub lifetime: Lifetime,
}

/// Signs the newest epoch's content again for `expires_days` from now. The key is the operator's,
/// [`keys::default_path`] when there is no other. The manifest before stays: a rollback still goes
/// to other content.
///
/// # Errors
/// A build was interrupted, a file is missing or another, or the key is not the operator's:
/// nothing is changed.
pub fn renew(
    db: &Path,
    signing_key: Option<&Path>,
    expires_days: u32,
) -> Result<Renewed, BuildError> {
    let lifetime = run::lifetime(run::now()?, expires_days)?;
    let _lock = directory::lock(db)?;
    let no_way = |problem: String| BuildError::NoRenewal { path: db.to_owned(), problem };
    if WorkDir::of(db).load()?.is_some() {
        let problem = "a build was interrupted there: finish it, or throw it away (--restart)";
        return Err(no_way(problem.into()));
    }
    let unusable = |error: OpenError| no_way(error.to_string());
    let newest = Database::open(db).map_err(unusable)?;
    let newest = newest.manifest();
    let path = signing_key.map_or_else(|| keys::default_path(db), Path::to_owned);
    let key = rollback::operator_key(&path, newest)?;
    let head = ManifestHead {
        seed: newest.seed.0,
        epoch: newest.epoch + 1,
        lifetime,
        database: newest.database.clone(),
        shape: newest.shape(),
    };
    let manifest = Manifest::sign(&head, newest.shards.clone(), &key)?;
    let path = db.join(MANIFEST_NAME);
    write_atomically(&path, &manifest.to_json()).context("write", &path)?;
    Ok(Renewed { epoch: head.epoch, lifetime })
}
