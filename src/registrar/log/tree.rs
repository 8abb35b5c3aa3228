//! The tree in its database: entries, tiles and manifests, appended in one transaction each.

use crate::registrar::store::Failed;
use crate::registrar::store::transaction;
use crate::registrar::{Problem, Store, StoreError};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use sha2::{Digest as _, Sha256};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Executor, Row as _};

use crate::discovery::log::entry::{Entry, Manifest};
use crate::discovery::log::leaf_hash;
use crate::discovery::log::proof::{PROOFS_MAX, is_short, nodes};
use crate::discovery::log::tiles::{Frontier, LEVELS, Tile, read_tile, tile_bytes, within};
use crate::discovery::log::tree::{ENTRIES_MAX, Hash, fold};
use crate::limits::log::REQUEST_SECONDS;

/// The tables of the log.
pub const MIGRATIONS: &[(i64, &str, &str)] =
    &[(20, "log", include_str!("migrations/0020_log.sql"))];

/// What a request appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Appended {
    /// Where each entry is, in the order of the request.
    pub(super) places: Vec<u64>,
    /// Entries of the log after it.
    pub(super) size: u64,
}

/// Who asks, under which name (`Idempotency-Key`), and a digest of what.
pub(super) struct Request {
    pub(super) caller: String,
    pub(super) name: String,
    pub(super) digest: Hash,
}

/// What was signed last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct State {
    pub(super) size: u64,
    /// Size and root of the newest signed tree; none before the first.
    pub(super) signed: Option<(u64, Hash)>,
}

/// A manifest whose proof is to be made.
pub(super) struct Unproved {
    pub(super) manifest: Manifest,
    pub(super) previous: u64,
    pub(super) place: u64,
}

pub(super) fn base64(bytes: &[u8]) -> String {
    BASE64.encode(bytes)
}

pub(super) fn bytes(text: &str) -> Result<Vec<u8>, StoreError> {
    BASE64.decode(text).map_err(|_| StoreError::Row("a text is no base64url"))
}

fn hash(text: &str) -> Result<Hash, StoreError> {
    bytes(text)?.try_into().map_err(|_| StoreError::Row("a hash has not 32 bytes"))
}

fn number(row: &AnyRow, column: usize) -> Result<u64, StoreError> {
    let found: i64 = row.try_get(column)?;
    u64::try_from(found).map_err(|_| StoreError::Row("a number is below zero"))
}

/// Appends entries, each once: one that is there already keeps its place.
///
/// # Errors
/// A manifest differs from the one of its epoch, or is older than the newest; the key of the
/// request was used for another; the database.
pub(super) async fn append(
    store: &Store,
    request: Request,
    entries: Vec<Entry>,
    now: u64,
) -> Result<Appended, Failed> {
    let work = transaction!(store, |db| {
        // Whoever comes second waits here for the first.
        sqlx::query("UPDATE log_state SET size = size WHERE id = 1").execute(&mut *db).await?;
        claim(&mut *db, &request, now).await?;
        let size = state(&mut *db).await?.size;
        let mut growing = Growing { frontier: frontier(&mut *db, size).await?, full: vec![] };
        let mut places = Vec::with_capacity(entries.len());
        for entry in &entries {
            let place = match entry {
                Entry::Manifest(manifest) => add_manifest(db, &mut growing, manifest).await?,
                _ => match growing.add(db, entry).await? {
                    Some(place) => place,
                    None => place_of(db, entry).await?,
                },
            };
            places.push(place);
        }
        let size = growing.store(db).await?;
        Ok(Appended { places, size })
    });
    work.await
}

/// Notes the request under its name; refuses another one under the same name.
async fn claim(db: &mut AnyConnection, request: &Request, now: u64) -> Result<(), Failed> {
    sqlx::query("DELETE FROM log_requests WHERE at < $1")
        .bind(now.saturating_sub(REQUEST_SECONDS) as i64)
        .execute(&mut *db)
        .await?;
    sqlx::query(
        "INSERT INTO log_requests (caller, name, digest, at) VALUES ($1, $2, $3, $4)
         ON CONFLICT (caller, name) DO NOTHING",
    )
    .bind(&request.caller)
    .bind(&request.name)
    .bind(base64(&request.digest))
    .bind(now as i64)
    .execute(&mut *db)
    .await?;
    let row = sqlx::query("SELECT digest FROM log_requests WHERE caller = $1 AND name = $2")
        .bind(&request.caller)
        .bind(&request.name)
        .fetch_one(&mut *db)
        .await?;
    if hash(row.try_get(0).map_err(StoreError::from)?)? == request.digest {
        return Ok(());
    }
    let found = "an Idempotency-Key that was used for other entries";
    Err(Problem::new(422, "idempotency_key", found, "a new key for a new request").into())
}

/// A tree while entries are added.
struct Growing {
    frontier: Frontier,
    full: Vec<Tile>,
}

impl Growing {
    /// Adds an entry; `None` where it is there already.
    async fn add(&mut self, db: &mut AnyConnection, entry: &Entry) -> Result<Option<u64>, Failed> {
        let place = self.frontier.size();
        if place >= ENTRIES_MAX {
            let expected = "fewer; the operator of this log has to begin another one";
            return Err(Problem::new(507, "full", "a log of 2^40 entries", expected).into());
        }
        let bytes = entry.encode();
        let leaf = leaf_hash(&bytes);
        let added = sqlx::query(
            "INSERT INTO log_entries (place, entry, hash) VALUES ($1, $2, $3)
             ON CONFLICT (hash) DO NOTHING",
        )
        .bind(place as i64)
        .bind(base64(&bytes))
        .bind(base64(&leaf))
        .execute(&mut *db)
        .await?;
        if added.rows_affected() == 0 {
            return Ok(None);
        }
        self.full.extend(self.frontier.push(leaf));
        Ok(Some(place))
    }

    /// Stores tiles and size.
    async fn store(self, db: &mut AnyConnection) -> Result<u64, Failed> {
        let size = self.frontier.size();
        for tile in self.full.into_iter().chain(self.frontier.tiles()) {
            sqlx::query(
                "INSERT INTO log_tiles (level, number, hashes) VALUES ($1, $2, $3)
                 ON CONFLICT (level, number) DO UPDATE SET hashes = $3",
            )
            .bind(i64::from(tile.level))
            .bind(tile.number as i64)
            .bind(base64(&tile_bytes(&tile.hashes)))
            .execute(&mut *db)
            .await?;
        }
        let update = sqlx::query("UPDATE log_state SET size = $1 WHERE id = 1");
        update.bind(size as i64).execute(&mut *db).await?;
        Ok(size)
    }
}

async fn place_of(db: &mut AnyConnection, entry: &Entry) -> Result<u64, Failed> {
    let row = sqlx::query("SELECT place FROM log_entries WHERE hash = $1")
        .bind(base64(&leaf_hash(&entry.encode())))
        .fetch_one(&mut *db)
        .await?;
    Ok(number(&row, 0)?)
}

/// Adds a manifest, after padding where its proof would be too long.
async fn add_manifest(
    db: &mut AnyConnection,
    growing: &mut Growing,
    manifest: &Manifest,
) -> Result<u64, Failed> {
    let rows = sqlx::query(
        "SELECT epoch, place, digest FROM log_manifests WHERE name = $1
         AND (epoch = $2 OR epoch = (SELECT MAX(epoch) FROM log_manifests WHERE name = $1))
         ORDER BY epoch",
    )
    .bind(&manifest.database)
    .bind(manifest.epoch as i64)
    .fetch_all(&mut *db)
    .await?;
    let mut previous = 0;
    for row in rows {
        let (epoch, place) = (number(&row, 0)?, number(&row, 1)?);
        let digest = hash(row.try_get(2).map_err(StoreError::from)?)?;
        if epoch == manifest.epoch && digest == manifest.digest {
            return Ok(place);
        }
        if epoch == manifest.epoch {
            let found = "another manifest of an epoch that the log has";
            let expected = "a new epoch for what is new: an epoch has one manifest for ever";
            return Err(Problem::new(409, "other_manifest", found, expected).into());
        }
        if epoch > manifest.epoch {
            let found = "an epoch before the newest of this database";
            return Err(Problem::new(409, "epoch_order", found, "a later epoch").into());
        }
        previous = place + 1;
    }
    while !is_short(previous, growing.frontier.size())
        && !growing.frontier.size().is_multiple_of(256)
    {
        growing.add(db, &Entry::Padding(growing.frontier.size())).await?;
    }
    if !is_short(previous, growing.frontier.size()) {
        let found = "more entries since this database's last epoch than a proof has room for";
        let expected = "an epoch more often; begin another database, with another name";
        return Err(Problem::new(507, "full", found, expected).into());
    }
    let place = growing.add(db, &Entry::Manifest(manifest.clone())).await?;
    let place = place.ok_or(StoreError::Row("a manifest is an entry and not in its table"))?;
    sqlx::query(
        "INSERT INTO log_manifests (name, epoch, place, previous, digest)
         VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(&manifest.database)
    .bind(manifest.epoch as i64)
    .bind(place as i64)
    .bind(previous as i64)
    .bind(base64(&manifest.digest))
    .execute(&mut *db)
    .await?;
    Ok(place)
}

/// The size of the log, and what was signed.
pub(super) async fn state<'c>(
    db: impl Executor<'c, Database = sqlx::Any>,
) -> Result<State, StoreError> {
    let query = "SELECT size, signed_size, signed_root FROM log_state WHERE id = 1";
    let row = sqlx::query(query).fetch_one(db).await?;
    let root: String = row.try_get(2)?;
    let signed = match root.is_empty() {
        true => None,
        false => Some((number(&row, 1)?, hash(&root)?)),
    };
    Ok(State { size: number(&row, 0)?, signed })
}

/// Notes that a tree is about to be signed. Refuses one that is not larger than the last, unless it
/// is the same.
pub(super) async fn sign(store: &Store, size: u64, root: &Hash) -> Result<bool, Failed> {
    let root = base64(root);
    let work = transaction!(store, |db| {
        let update = sqlx::query(
            "UPDATE log_state SET signed_size = $1, signed_root = $2 WHERE id = 1
                 AND size >= $1 AND (signed_root = '' OR signed_size < $1
                 OR (signed_size = $1 AND signed_root = $2))",
        );
        let update = update.bind(size as i64).bind(&root);
        Ok(update.execute(&mut *db).await?.rows_affected())
    });
    Ok(work.await? == 1)
}

/// The last tiles of the tree at a size, which it may have outgrown.
pub(super) async fn frontier(db: &mut AnyConnection, size: u64) -> Result<Frontier, StoreError> {
    let mut levels: [Vec<Hash>; LEVELS] = Default::default();
    for (level, (number, width)) in Frontier::places(size).into_iter().enumerate() {
        if width > 0 {
            levels[level] = tile(&mut *db, level as u8, number, width).await?;
        }
    }
    Frontier::new(size, levels).map_err(|_| StoreError::Row("a tile has too few hashes"))
}

/// A tile with at least so many hashes.
pub(super) async fn tile(
    db: &mut AnyConnection,
    level: u8,
    number: u64,
    width: usize,
) -> Result<Vec<Hash>, StoreError> {
    let row = sqlx::query("SELECT hashes FROM log_tiles WHERE level = $1 AND number = $2")
        .bind(i64::from(level))
        .bind(number as i64)
        .fetch_optional(db)
        .await?;
    let row = row.ok_or(StoreError::Row("a tile is missing"))?;
    let hashes = bytes(row.try_get(0)?)?;
    read_tile(&hashes, width).map_err(|_| StoreError::Row("a tile has too few hashes"))
}

/// Entries from `from` to before `to`.
pub(super) async fn entries(
    db: &mut AnyConnection,
    from: u64,
    to: u64,
) -> Result<Vec<Vec<u8>>, StoreError> {
    let query = "SELECT entry FROM log_entries WHERE place >= $1 AND place < $2 ORDER BY place";
    let rows = sqlx::query(query).bind(from as i64).bind(to as i64).fetch_all(db).await?;
    if rows.len() as u64 != to - from {
        return Err(StoreError::Row("an entry is missing"));
    }
    rows.iter().map(|row| bytes(row.try_get(0)?)).collect()
}

/// Manifests below `size` whose proofs are not made yet, oldest first.
pub(super) async fn unproved(
    db: &mut AnyConnection,
    size: u64,
) -> Result<Vec<Unproved>, StoreError> {
    let rows = sqlx::query(
        "SELECT name, epoch, place, previous, digest FROM log_manifests
         WHERE proof IS NULL AND place < $1 ORDER BY place",
    )
    .bind(size as i64)
    .fetch_all(db)
    .await?;
    let read = |row: &AnyRow| {
        let digest = hash(row.try_get(4)?)?;
        let manifest = Manifest { database: row.try_get(0)?, epoch: number(row, 1)?, digest };
        Ok(Unproved { manifest, place: number(row, 2)?, previous: number(row, 3)? })
    };
    rows.iter().map(read).collect()
}

/// The hashes of a manifest's proof.
pub(super) async fn proof_hashes(
    db: &mut AnyConnection,
    unproved: &Unproved,
) -> Result<Vec<Hash>, StoreError> {
    let mut hashes = Vec::new();
    for node in nodes(unproved.previous, unproved.place) {
        let (level, number, first, count) = within(node);
        let tile = tile(&mut *db, level, number, first + count).await?;
        hashes.push(fold(&tile[first..first + count]));
    }
    Ok(hashes)
}

/// Keeps a proof.
pub(super) async fn keep_proof(
    store: &Store,
    manifest: &Manifest,
    proof: &[u8],
) -> Result<(), Failed> {
    let (manifest, proof) = (manifest.clone(), base64(proof));
    let work = transaction!(store, |db| {
        sqlx::query("UPDATE log_manifests SET proof = $1 WHERE name = $2 AND epoch = $3")
            .bind(&proof)
            .bind(&manifest.database)
            .bind(manifest.epoch as i64)
            .execute(&mut *db)
            .await?;
        Ok(())
    });
    work.await
}

/// The newest proofs of epochs before one, oldest first: what its own stands after in the file.
pub(super) async fn proofs_before(
    db: &mut AnyConnection,
    database: &str,
    epoch: u64,
) -> Result<Vec<u8>, StoreError> {
    let rows = sqlx::query(
        "SELECT proof FROM log_manifests WHERE name = $1 AND epoch < $2
         ORDER BY epoch DESC LIMIT $3",
    )
    .bind(database)
    .bind(epoch as i64)
    .bind(PROOFS_MAX as i64 - 1)
    .fetch_all(db)
    .await?;
    let mut file = Vec::new();
    for row in rows.iter().rev() {
        let proof: Option<String> = row.try_get(0)?;
        let proof = proof.ok_or(StoreError::Row("an epoch has no proof, and a later one has"))?;
        file.extend(bytes(&proof)?);
    }
    Ok(file)
}

/// A digest of the entries of a request.
pub(super) fn request_digest(entries: &[Entry]) -> Hash {
    let mut digest = Sha256::new();
    for entry in entries {
        digest.update(leaf_hash(&entry.encode()));
    }
    digest.finalize().into()
}
