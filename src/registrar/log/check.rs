//! Follows a log as its auditors do: everything that is new since the checkpoint that was verified
//! last, every entry hashed again, every tile compared, and the root computed anew.
//!
//! A log that shows two trees is found by the first checkpoint that does not contain the remembered
//! one; both are then kept, signed, as the proof of it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::https::{Client, HttpsError};
use crate::shard::files::{read_regular, write_atomically};
use axum::body::Bytes;
use http::Method;
use serde::{Deserialize, Serialize};

use super::publish::CHECKPOINT;
use crate::discovery::log::entry::{ENTRY_BYTES_MAX, Entry};
use crate::discovery::log::note::NOTE_BYTES_MAX;
use crate::discovery::log::proof::nodes;
use crate::discovery::log::tiles::{
    Content, Frontier, LEVELS, Place, TILE_WIDTH, Tile, changed, read_bundle, read_tile, within,
};
use crate::discovery::log::tree::{Hash, Peaks, fold};
use crate::discovery::log::{Checkpoint, LogError, LogKey, leaf_hash};
use crate::limits::log::STATE_BYTES_MAX;

/// Most bytes of a file of the log.
const FILE_BYTES_MAX: usize = TILE_WIDTH * (2 + ENTRY_BYTES_MAX);

/// Where a log is read.
pub enum Source {
    /// A folder of its static files.
    Folder(PathBuf),
    /// The address above them, without a slash at the end. What comes from there is verified, so
    /// that plain HTTP does as well.
    Web(Client, String),
}

/// What is remembered between two runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Remembered {
    /// The newest checkpoint that was verified, as it was signed.
    checkpoint: String,
    /// The newest epoch of each database.
    epochs: BTreeMap<String, u64>,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checked {
    /// Entries that were verified before.
    pub before: u64,
    /// Entries now.
    pub size: u64,
    /// New statements.
    pub statements: u64,
    /// New padding.
    pub padding: u64,
    /// New manifests: database and epoch.
    pub manifests: Vec<(String, u64)>,
}

/// Why a log is not as it has to be, or could not be checked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // Names and messages say it.
pub enum CheckError {
    #[error(
        "{what}. Found this checkpoint, signed by the log:\n{found}\nexpected what follows this \
         one, signed by the same log:\n{expected}\nTogether they prove it: publish them, and tell \
         whoever relies on the log"
    )]
    Fork { what: LogError, found: String, expected: String },
    #[error(
        "the log shows a checkpoint of {found} entries, and had {seen} before: ask again past any \
         cache; if it stays so, entries were removed, and you should publish what was remembered"
    )]
    Older { found: u64, seen: u64 },
    #[error(
        "the log has two manifests of one epoch, or an older one after a newer: entry {place} is \
         of database {database}, epoch {epoch}. Publish this, and tell who uses the database"
    )]
    Manifest { place: u64, database: String, epoch: u64 },
    #[error(
        "{path} of the log is not what its checkpoint says: {why}. Check again; if it stays so, \
         tell the operator of the log: entries that nobody can read may hide anything"
    )]
    Broken { path: String, why: String },
    #[error("{path} of the log cannot be read: {why}")]
    Source { path: String, why: String },
    #[error("the checkpoint of the log: {0}")]
    Log(#[from] LogError),
    #[error(
        "what was remembered, {}: {why}; bring it back, or remove it and begin to trust the log \
         anew", .path.display()
    )]
    State { path: PathBuf, why: String },
}

impl CheckError {
    /// Whether the log has done what no log may do: exit code 1. Everything else is a failure to
    /// check: exit code 2.
    pub fn is_evidence(&self) -> bool {
        matches!(self, Self::Fork { .. } | Self::Manifest { .. })
    }
}

impl Source {
    async fn read(&self, path: &str, bytes_max: usize) -> Result<Vec<u8>, CheckError> {
        let failed = |why: String| CheckError::Source { path: path.to_owned(), why };
        match self {
            Self::Folder(folder) => {
                let file = folder.join(path);
                let read = move || read_regular(&file, bytes_max as u64);
                let read = tokio::task::spawn_blocking(read).await;
                let read = read.unwrap_or_else(|_| Err(io::Error::other("its thread ended")));
                read.map_err(|error| failed(error.to_string()))
            }
            Self::Web(client, url) => {
                let url = format!("{url}/{path}");
                let sent = client.send(Method::GET, &url, &[], Bytes::new(), bytes_max);
                let reply = sent.await.map_err(|error: HttpsError| failed(error.to_string()))?;
                match reply.status {
                    200 => Ok(reply.body.to_vec()),
                    status => Err(failed(format!("status {status}"))),
                }
            }
        }
    }

    /// A file of the tree; the full one where the partial one was removed meanwhile.
    async fn place(&self, place: Place) -> Result<Vec<u8>, CheckError> {
        match self.read(&place.path(), FILE_BYTES_MAX).await {
            Err(_) if place.width < TILE_WIDTH => {
                let full = Place { width: TILE_WIDTH, ..place };
                self.read(&full.path(), FILE_BYTES_MAX).await
            }
            read => read,
        }
    }

    /// The last tiles of the tree at a size, out of those of a tree that has grown to another.
    async fn frontier(&self, size: u64, grown: u64) -> Result<Frontier, CheckError> {
        let mut levels: [Vec<Hash>; LEVELS] = Default::default();
        for (level, (number, width)) in Frontier::places(size).into_iter().enumerate() {
            if width == 0 {
                continue;
            }
            levels[level] = self.tile(level as u8, number, width, grown).await?;
        }
        Ok(Frontier::new(size, levels)?)
    }

    /// A tile of a tree of `grown` entries, with at least `width` hashes.
    async fn tile(
        &self,
        level: u8,
        number: u64,
        width: usize,
        grown: u64,
    ) -> Result<Vec<Hash>, CheckError> {
        let there = (grown >> (8 * level)) - number * TILE_WIDTH as u64;
        let content = Content::Hashes(level);
        let place = Place { content, number, width: there.min(TILE_WIDTH as u64) as usize };
        let tile = read_tile(&self.place(place).await?, width);
        tile.map_err(|error| broken(&place.path(), &error))
    }

    /// The roots of a tree before and after it grew, both from the same hashes.
    async fn roots(&self, before: u64, size: u64) -> Result<(Hash, Hash), CheckError> {
        let (mut peaks, mut at) = (Peaks::default(), 0);
        let mut root = peaks.root();
        for node in nodes(before, size) {
            let (level, number, first, count) = within(node);
            let tile = self.tile(level, number, first + count, size).await?;
            peaks.push(node.height, fold(&tile[first..first + count]));
            at += 1_u64 << node.height;
            if at == before {
                root = peaks.root();
            }
        }
        Ok((root, peaks.root()))
    }
}

fn broken(path: &str, why: &dyn std::fmt::Display) -> CheckError {
    CheckError::Broken { path: path.to_owned(), why: why.to_string() }
}

/// Checks what is new in a log since the checkpoint that `state` remembers, or all of it where
/// there is no such file yet, and remembers its checkpoint.
///
/// # Errors
/// The log forks, shows an older checkpoint, has two manifests of one epoch, or could not be read;
/// what was remembered stays.
pub async fn check(source: &Source, log: &LogKey, state: &Path) -> Result<Checked, CheckError> {
    let note = source.read(CHECKPOINT, NOTE_BYTES_MAX + 1).await?;
    let now = Checkpoint::open(&note, log)?;
    let note = String::from_utf8_lossy(&note).into_owned();
    let remembered = remembered(state, log)?;
    let fork = |what: LogError, expected: &str| CheckError::Fork {
        what,
        found: note.clone(),
        expected: expected.to_owned(),
    };
    let (mut tree, mut epochs) = match &remembered {
        None => (Frontier::new(0, Default::default())?, BTreeMap::new()),
        Some((before, kept)) => {
            if now.size < before.size {
                return Err(CheckError::Older { found: now.size, seen: before.size });
            }
            if now.size == before.size && now.root != before.root {
                return Err(fork(LogError::Forked { size: now.size }, &kept.checkpoint));
            }
            let tree = source.frontier(before.size, now.size).await?;
            if tree.root() != before.root {
                // That the log signed another tree is known only if its tiles give the root that
                // it signs now.
                let (old, new) = source.roots(before.size, now.size).await?;
                if new != now.root || old == before.root {
                    return Err(broken("tile/0", &"tiles do not give the root of any checkpoint"));
                }
                return Err(fork(LogError::Forked { size: before.size }, &kept.checkpoint));
            }
            (tree, kept.epochs.clone())
        }
    };
    let mut checked = Checked { before: tree.size(), size: now.size, ..Checked::default() };
    read_new(source, &mut tree, now.size, &mut epochs, &mut checked).await?;
    for tile in tree.tiles() {
        compare(source, &tile).await?;
    }
    if tree.root() != now.root {
        return Err(broken(CHECKPOINT, &"its entries have another root"));
    }
    let kept = Remembered { checkpoint: note, epochs };
    let failed = |why: String| CheckError::State { path: state.to_owned(), why };
    let kept = serde_json::to_vec_pretty(&kept).map_err(|error| failed(error.to_string()))?;
    write_atomically(state, &kept).map_err(|error| failed(error.to_string()))?;
    Ok(checked)
}

fn remembered(path: &Path, log: &LogKey) -> Result<Option<(Checkpoint, Remembered)>, CheckError> {
    let failed = |why: String| CheckError::State { path: path.to_owned(), why };
    let bytes = match read_regular(path, STATE_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error.to_string())),
    };
    let kept: Remembered =
        serde_json::from_slice(&bytes).map_err(|error| failed(error.to_string()))?;
    let before = Checkpoint::open(kept.checkpoint.as_bytes(), log);
    let before = before.map_err(|error| failed(error.to_string()))?;
    Ok(Some((before, kept)))
}

/// Adds the entries of every bundle that is new, and compares the tiles that become full.
async fn read_new(
    source: &Source,
    tree: &mut Frontier,
    size: u64,
    epochs: &mut BTreeMap<String, u64>,
    checked: &mut Checked,
) -> Result<(), CheckError> {
    for place in changed(Content::Entries, tree.size(), size) {
        let entries = read_bundle(&source.place(place).await?, place.width);
        let entries = entries.map_err(|error| broken(&place.path(), &error))?;
        // The first bundle begins with entries that are known.
        let known = (tree.size() - place.number * TILE_WIDTH as u64) as usize;
        for entry in &entries[known..place.width] {
            count(entry, tree.size(), &place, epochs, checked)?;
            for tile in tree.push(leaf_hash(entry)) {
                compare(source, &tile).await?;
            }
        }
    }
    Ok(())
}

fn count(
    entry: &[u8],
    at: u64,
    place: &Place,
    epochs: &mut BTreeMap<String, u64>,
    checked: &mut Checked,
) -> Result<(), CheckError> {
    match Entry::decode(entry).map_err(|error| broken(&place.path(), &error))? {
        Entry::Padding(index) if index == at => checked.padding += 1,
        Entry::Padding(_) => return Err(broken(&place.path(), &"padding of another place")),
        Entry::Statement(_) => checked.statements += 1,
        Entry::Manifest(manifest) => {
            let (database, epoch) = (manifest.database, manifest.epoch);
            if epochs.get(&database).is_some_and(|newest| *newest >= epoch) {
                return Err(CheckError::Manifest { place: at, database, epoch });
            }
            epochs.insert(database.clone(), epoch);
            checked.manifests.push((database, epoch));
        }
    }
    Ok(())
}

/// Compares a tile with its file.
async fn compare(source: &Source, tile: &Tile) -> Result<(), CheckError> {
    let content = Content::Hashes(tile.level);
    let place = Place { content, number: tile.number, width: tile.hashes.len() };
    let found = read_tile(&source.place(place).await?, place.width);
    let found = found.map_err(|error| broken(&place.path(), &error))?;
    match found[..place.width] == tile.hashes {
        true => Ok(()),
        false => Err(broken(&place.path(), &"it has other hashes than its entries give")),
    }
}
