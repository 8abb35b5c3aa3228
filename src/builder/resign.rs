//! Signing content that is there as a new epoch: the newest content for longer ([`renew`]), or
//! that of the epoch before ([`rollback`]). Builds nothing and removes nothing.

use std::fs::File;
use std::io;
use std::path::Path;

use super::errors::{BuildError, IoContext as _};
use super::progress::{Progress, Stage};
use super::work::WorkDir;
use super::{keys, session};
use crate::shard::files::write_atomically;
use crate::shard::manifest::{MANIFEST_NAME, MANIFEST_PREVIOUS_NAME};
use crate::shard::verify::{verify, verify_bytes};
use crate::shard::{Database, Manifest, ManifestHead, OpenError, Opening};
use crate::wire::Lifetime;

/// What a rollback came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // Names say it.
pub struct RolledBack {
    /// The epoch whose content it is.
    pub content_of: u64,
    pub epoch: u64,
    /// Shards that are others than they were.
    pub changed: usize,
}

/// Signs the newest epoch's content again, for `expires_days` from now, with the operator's key
/// ([`keys::default_path`] where `None`). The manifest before stays, for a rollback to other
/// content.
///
/// # Errors
/// A build was interrupted, a file is missing or another, or the key is another: nothing is
/// changed.
pub fn renew(
    db: &Path,
    signing_key: Option<&Path>,
    expires_days: u32,
) -> Result<Manifest, BuildError> {
    let resigning = Resigning::begin(db, "signed again", expires_days)?;
    let newest = Database::open(db).map_err(|error| resigning.refused(error))?;
    let manifest = resigning.sign(newest.manifest(), newest.manifest(), signing_key)?;
    resigning.write(MANIFEST_NAME, &manifest)?;
    Ok(manifest)
}

/// Signs the content of the epoch before as the next epoch, for `expires_days` from now, once every
/// byte of it was verified: clients refuse an epoch older than one they have seen. The manifest
/// that it replaces becomes the one before, so a second rollback undoes the first.
///
/// # Errors
/// There is no epoch before, a file of it is missing, damaged or another's, clients would refuse
/// it, or the key is not the operator's: nothing is changed.
pub fn rollback(
    db: &Path,
    signing_key: Option<&Path>,
    expires_days: u32,
    progress: &dyn Progress,
) -> Result<RolledBack, BuildError> {
    let resigning = Resigning::begin(db, "rolled back", expires_days)?;
    let newest = Database::read_manifest(db).map_err(|error| resigning.refused(error))?;
    let before = Manifest::read(&db.join(MANIFEST_PREVIOUS_NAME)).map_err(|error| match error {
        OpenError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
            resigning.refused(format!("it has no epoch before ({MANIFEST_PREVIOUS_NAME})"))
        }
        error => resigning.refused(error),
    })?;
    if (before.seed, before.shard_count) != (newest.seed, newest.shard_count) {
        let problem = "the epoch before has another seed or number of shards, which clients refuse";
        return Err(resigning.refused(problem));
    }
    let manifest = resigning.sign(&newest, &before, signing_key)?;
    let content_of = before.epoch;
    let before = Database::open_named(db, None, before, &Opening::default())
        .map_err(|error| resigning.refused(error))?;
    progress.begin(Stage::Verifying, verify_bytes(&before));
    let problems = verify(&before, &|bytes| progress.advance(bytes));
    progress.end();
    if let Some(problem) = problems.first() {
        return Err(resigning.refused(problem));
    }
    // In this order: interrupted between the two, what was asked for is done.
    resigning.write(MANIFEST_NAME, &manifest)?;
    resigning.write(MANIFEST_PREVIOUS_NAME, &newest)?;
    let shards = manifest.shards.iter().zip(&newest.shards);
    let changed = shards.filter(|(then, now)| then != now).count();
    Ok(RolledBack { content_of, epoch: manifest.epoch, changed })
}

/// A database directory that no builder works in, locked against others.
struct Resigning<'a> {
    db: &'a Path,
    /// What is to be done, for messages.
    what: &'static str,
    lifetime: Lifetime,
    _lock: File,
}

impl<'a> Resigning<'a> {
    fn begin(db: &'a Path, what: &'static str, expires_days: u32) -> Result<Self, BuildError> {
        let lifetime = session::lifetime(session::now()?, expires_days)?;
        let resigning = Self { db, what, lifetime, _lock: session::lock(db)? };
        if WorkDir::of(db).load()?.is_some() {
            let problem = "a build was interrupted there: finish it, or throw it away (--restart)";
            return Err(resigning.refused(problem));
        }
        Ok(resigning)
    }

    fn refused(&self, problem: impl ToString) -> BuildError {
        let (path, what) = (self.db.to_owned(), self.what);
        BuildError::NotResigned { path, what, problem: problem.to_string() }
    }

    /// The shards of `content` as the epoch after `newest`.
    fn sign(
        &self,
        newest: &Manifest,
        content: &Manifest,
        signing_key: Option<&Path>,
    ) -> Result<Manifest, BuildError> {
        let path = signing_key.map_or_else(|| keys::default_path(self.db), Path::to_owned);
        let Some(key) = keys::load(&path)? else {
            return Err(BuildError::SigningKey { path, problem: "there is no such file".into() });
        };
        keys::check_operator(&key, &path, newest)?;
        let head = ManifestHead {
            epoch: newest.epoch + 1,
            lifetime: self.lifetime,
            shape: content.shape(),
            ..newest.head()
        };
        Ok(Manifest::sign(&head, content.shards.clone(), &key)?)
    }

    fn write(&self, name: &str, manifest: &Manifest) -> Result<(), BuildError> {
        let path = self.db.join(name);
        write_atomically(&path, &manifest.to_json()).context("write", &path)
    }
}
