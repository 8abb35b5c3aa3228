//! The static files of the log: tiles, bundles, and after them the checkpoint that names them; then
//! the proofs of new epochs. Whatever step the process ends at, the next start does it again with
//! the same bytes.
//!
//! What is signed was stored before, and no two trees of one size ever are: the database notes size
//! and root before the signature is made, the checkpoint in the folder is compared with the
//! database at start, and signatures are deterministic.

use std::io;
use std::path::{Path, PathBuf};

use crate::registrar::{Store, StoreError};
use crate::shard::files::{read_regular, sync_parent, write_atomically};
use ed25519_dalek::SigningKey;

use super::errors::ServeError;
use super::tree;
use crate::discovery::log::note::NOTE_BYTES_MAX;
use crate::discovery::log::tiles::{
    Content, LEVELS, Place, TILE_WIDTH, bundle_bytes, changed, tile_bytes,
};
use crate::discovery::log::{Checkpoint, EpochProof, LogKey};

/// The path of the checkpoint.
pub(super) const CHECKPOINT: &str = "checkpoint";

/// Where in its work the log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // Names say it.
pub enum Step {
    Asked,
    Stored,
    TilesWritten,
    SignatureNoted,
    CheckpointWritten,
    ProofKept,
    ProofWritten,
}

/// Writes the static files.
pub struct Publisher {
    store: Store,
    folder: PathBuf,
    log: LogKey,
    key: SigningKey,
    /// The newest checkpoint in the folder.
    published: Option<u64>,
    at_step: fn(Step),
}

impl Publisher {
    /// Compares the checkpoint in `folder`, if there is one, with the database.
    ///
    /// # Errors
    /// They are not of one log, or one cannot be read.
    pub async fn open(
        store: Store,
        folder: PathBuf,
        log: LogKey,
        key: SigningKey,
        at_step: fn(Step),
    ) -> Result<Self, ServeError> {
        let file = |path: &Path| {
            let path = path.to_owned();
            move |source| ServeError::File { path, source }
        };
        make_folder(&folder).map_err(file(&folder))?;
        let path = folder.join(CHECKPOINT);
        let published = match read_regular(&path, NOTE_BYTES_MAX as u64 + 1) {
            Ok(note) => Some(Checkpoint::open(&note, &log)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(file(&path)(error)),
        };
        let mut db = store.pool().acquire().await.map_err(StoreError::from)?;
        let state = tree::state(&mut *db).await?;
        let signed = state.signed.map(|(size, root)| Checkpoint { size, root });
        for Checkpoint { size, root } in published.iter().chain(&signed) {
            if *size > state.size {
                return Err(ServeError::Behind { found: state.size, signed: *size });
            }
            if tree::frontier(&mut db, *size).await?.root() != *root {
                return Err(ServeError::Differs { size: *size });
            }
        }
        drop(db);
        let published = published.map(|checkpoint| checkpoint.size);
        Ok(Self { store, folder, log, key, published, at_step })
    }

    /// Entries of the newest checkpoint in the folder.
    pub fn published(&self) -> u64 {
        self.published.unwrap_or(0)
    }

    /// Writes the files of every entry that is stored, a checkpoint of them, and the proofs of new
    /// epochs.
    ///
    /// # Errors
    /// The database or the folder; what was published stays.
    pub async fn publish(&mut self) -> Result<(), ServeError> {
        let mut db = self.store.pool().acquire().await.map_err(StoreError::from)?;
        let state = tree::state(&mut *db).await?;
        let before = self.published.unwrap_or(0);
        if state.size < before {
            return Err(ServeError::Behind { found: state.size, signed: before });
        }
        let root = tree::frontier(&mut db, state.size).await?.root();
        drop(db);
        if self.published != Some(state.size) {
            self.write_tree(before, state.size).await?;
            (self.at_step)(Step::TilesWritten);
            if !tree::sign(&self.store, state.size, &root).await? {
                return Err(ServeError::Differs { size: state.size });
            }
            (self.at_step)(Step::SignatureNoted);
            let note = Checkpoint { size: state.size, root }.sign(&self.log, &self.key);
            self.write(CHECKPOINT, note.into_bytes()).await?;
            self.published = Some(state.size);
            (self.at_step)(Step::CheckpointWritten);
        }
        self.prove(state.size).await
    }

    async fn write_tree(&self, before: u64, after: u64) -> Result<(), ServeError> {
        let levels = (0..LEVELS as u8).map(Content::Hashes);
        for content in levels.chain([Content::Entries]) {
            for place in changed(content, before, after) {
                let first = place.number * TILE_WIDTH as u64;
                let mut db = self.store.pool().acquire().await.map_err(StoreError::from)?;
                let bytes = match content {
                    Content::Entries => {
                        let last = first + place.width as u64;
                        bundle_bytes(&tree::entries(&mut db, first, last).await?)
                    }
                    Content::Hashes(level) => {
                        let tile = tree::tile(&mut db, level, place.number, place.width).await?;
                        tile_bytes(&tile[..place.width])
                    }
                };
                drop(db);
                self.write(&place.path(), bytes).await?;
                if place.width == TILE_WIDTH {
                    self.remove_partial(&place);
                }
            }
        }
        Ok(())
    }

    /// Removes what a full file replaces.
    fn remove_partial(&self, place: &Place) {
        // Best effort: nobody is misled by what stays.
        let _ = std::fs::remove_dir_all(self.folder.join(format!("{}.p", place.stem())));
    }

    /// Makes the proofs of manifests that are published. Their checkpoints end with the manifest,
    /// so they are signed of a tree that the database has had since.
    async fn prove(&self, size: u64) -> Result<(), ServeError> {
        let mut db = self.store.pool().acquire().await.map_err(StoreError::from)?;
        let waiting = tree::unproved(&mut db, size).await?;
        drop(db);
        for unproved in waiting {
            let mut db = self.store.pool().acquire().await.map_err(StoreError::from)?;
            let hashes = tree::proof_hashes(&mut db, &unproved).await?;
            let root = tree::frontier(&mut db, unproved.place + 1).await?.root();
            drop(db);
            let (manifest, places) = (&unproved.manifest, (unproved.previous, unproved.place));
            let proof = EpochProof::sign(&self.log, &self.key, manifest, places, hashes);
            if proof.checkpoint(&manifest.database).root != root {
                return Err(ServeError::Differs { size: unproved.place + 1 });
            }
            // The file first: a proof that is noted has one.
            let mut db = self.store.pool().acquire().await.map_err(StoreError::from)?;
            let before = tree::proofs_before(&mut db, &manifest.database, manifest.epoch).await?;
            drop(db);
            let path = proof_path(&manifest.database, manifest.epoch);
            let file = [before, proof.encode()].concat();
            self.write(&path, file).await?;
            (self.at_step)(Step::ProofWritten);
            tree::keep_proof(&self.store, manifest, &proof.encode()).await?;
            (self.at_step)(Step::ProofKept);
        }
        Ok(())
    }

    async fn write(&self, path: &str, bytes: Vec<u8>) -> Result<(), ServeError> {
        let path = self.folder.join(path);
        let written = tokio::task::spawn_blocking(move || {
            let parent = path.parent().map_or(Ok(()), make_folder);
            let written = parent.and_then(|()| write_atomically(&path, &bytes));
            written.map_err(|source| ServeError::File { path, source })
        });
        written.await.unwrap_or_else(|_| {
            let source = io::Error::other("the thread that writes it ended");
            Err(ServeError::File { path: self.folder.clone(), source })
        })
    }
}

/// Makes a folder and those above it, so that they last through a crash.
fn make_folder(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    path.parent().map_or(Ok(()), make_folder)?;
    match std::fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => sync_parent(path),
    }
}

/// Where the file of proofs that ends with an epoch is.
pub(super) fn proof_path(database: &str, epoch: u64) -> String {
    format!("v1/proofs/{database}/{epoch}")
}
