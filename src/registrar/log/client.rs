//! The other side: what a registrar and an operator of a database ask of a log, and the registrar's
//! queue of statements that are to be in it.

use crate::https::{Client, HttpsError};
use crate::registrar::store::Failed;
use crate::registrar::store::transaction;
use crate::registrar::{Store, StoreError};
use http::Method;
use sqlx::{AnyConnection, AssertSqlSafe, Row as _};

use super::service::{NewEntries, NewEntry, Stored};
use super::tree::{base64, request_digest};
use crate::discovery::log::entry::{Entry, Manifest, SALT_BYTES, salted_hash};
use crate::discovery::log::proof::FILE_BYTES_MAX;
use crate::discovery::log::tree::Hash;
use crate::limits::log::{BATCH_ENTRIES_MAX, REPLY_BYTES_MAX};

/// The registrar's table of statements that are to be in the log.
pub const QUEUE_MIGRATIONS: &[(i64, &str, &str)] =
    &[(21, "log queue", include_str!("migrations/0021_log_queue.sql"))];

const JSON_TYPE: (&str, &str) = ("content-type", "application/json");

/// Why nothing was appended, or no proof was fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // Names and messages say it.
pub enum AppendError {
    #[error("the log does not answer: {0}; the same again later appends nothing twice")]
    Https(#[from] HttpsError),
    #[error("the log refuses the entries with status {status} ({code}); its operator knows why")]
    Refused { status: u16, code: String },
    #[error("the log answers with something else than places of entries: is this its address?")]
    Reply,
    #[error("the log has no proof of this epoch yet; ask again in a second")]
    NoProof,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the system's random generator gave nothing: {0}")]
    Random(getrandom::Error),
}

impl From<Failed> for AppendError {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Store(error) => Self::Store(error),
            Failed::Refused(problem) => Self::Store(StoreError::Query(problem.to_string())),
            Failed::Again => Self::Store(StoreError::Unavailable("a busy database".into())),
        }
    }
}

/// Asks a log.
#[derive(Clone)]
pub struct LogClient {
    client: Client,
    /// Its address, without a slash at the end.
    url: String,
}

impl LogClient {
    /// A client of the log at `url`, such as `https://log.example`. `client` shows the certificate
    /// of the caller.
    pub fn new(client: Client, url: &str) -> Self {
        Self { client, url: url.trim_end_matches('/').to_owned() }
    }

    /// Appends at most [`BATCH_ENTRIES_MAX`] entries; returns their places once they are stored.
    /// The same entries again have the same places.
    ///
    /// # Errors
    /// The log refuses them or does not answer: they may be stored all the same.
    pub async fn append(&self, entries: &[Entry]) -> Result<Vec<u64>, AppendError> {
        let key = base64(&request_digest(entries));
        let body = NewEntries { entries: entries.iter().filter_map(NewEntry::new).collect() };
        let body = serde_json::to_vec(&body).map_err(|_| AppendError::Reply)?;
        let headers = [JSON_TYPE, ("idempotency-key", &key)];
        let url = format!("{}/v1/entries", self.url);
        let reply =
            self.client.send(Method::POST, &url, &headers, body.into(), REPLY_BYTES_MAX).await?;
        if reply.status != 200 {
            return Err(refusal(reply.status, &reply.body));
        }
        let stored: Stored = serde_json::from_slice(&reply.body).map_err(|_| AppendError::Reply)?;
        match stored.places.len() == entries.len() {
            true => Ok(stored.places),
            false => Err(AppendError::Reply),
        }
    }

    /// Appends the manifest of an epoch: what an operator does before the epoch is served.
    ///
    /// # Errors
    /// As [`Self::append`].
    pub async fn append_manifest(&self, manifest: &Manifest) -> Result<u64, AppendError> {
        let places = self.append(&[Entry::Manifest(manifest.clone())]).await?;
        places.first().copied().ok_or(AppendError::Reply)
    }

    /// The file of proofs that ends with an epoch: what the operator places beside the database. It
    /// is there a second after [`Self::append_manifest`].
    ///
    /// # Errors
    /// [`AppendError::NoProof`] where it is not there yet.
    pub async fn proofs(&self, database: &str, epoch: u64) -> Result<Vec<u8>, AppendError> {
        let url = format!("{}/v1/proofs/{database}/{epoch}", self.url);
        let sent = self.client.send(Method::GET, &url, &[], Default::default(), FILE_BYTES_MAX);
        let reply = sent.await?;
        match reply.status {
            200 => Ok(reply.body.to_vec()),
            404 => Err(AppendError::NoProof),
            status => Err(refusal(status, &reply.body)),
        }
    }
}

/// The code of a problem, if it is one: what else the log says is not repeated.
fn refusal(status: u16, body: &[u8]) -> AppendError {
    let body: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let code = body["code"].as_str().unwrap_or_default();
    let code = code.chars().filter(|char| char.is_ascii_lowercase() || *char == '_').take(32);
    AppendError::Refused { status, code: code.collect() }
}

/// Notes that a statement is to be in the log: to be called in the transaction in which it is
/// issued. Draws the salt.
///
/// # Errors
/// The database, or no random bytes.
pub async fn enqueue(
    db: &mut AnyConnection,
    jti: &str,
    statement: &str,
    now: u64,
) -> Result<(), Failed> {
    let mut salt = [0; SALT_BYTES];
    getrandom::fill(&mut salt)
        .map_err(|error| StoreError::Unavailable(format!("no random bytes: {error}")))?;
    let hash = salted_hash(&salt, statement.as_bytes());
    sqlx::query(
        "INSERT INTO log_statements (jti, salt, hash, queued_at) VALUES ($1, $2, $3, $4)
         ON CONFLICT (jti) DO NOTHING",
    )
    .bind(jti)
    .bind(base64(&salt))
    .bind(base64(&hash))
    .bind(now as i64)
    .execute(db)
    .await?;
    Ok(())
}

/// Deletes the salts of statements that are deleted, some hundred at most: to be called in the same
/// transaction. What is in the log is nobody's from then on. A statement that is still on its way
/// gets there without it. Names of which no statement was queued are passed over.
///
/// # Errors
/// The database.
pub async fn forget(db: &mut AnyConnection, jtis: &[String]) -> Result<(), Failed> {
    if jtis.is_empty() {
        return Ok(());
    }
    let places: Vec<String> = (1..=jtis.len()).map(|at| format!("${at}")).collect();
    let places = places.join(", ");
    for change in [
        format!("DELETE FROM log_statements WHERE jti IN ({places}) AND place IS NOT NULL"),
        format!("UPDATE log_statements SET salt = '' WHERE jti IN ({places})"),
    ] {
        // Made of constants and places of values alone.
        let mut change = sqlx::query(AssertSqlSafe(change));
        for jti in jtis {
            change = change.bind(jti.as_str());
        }
        change.execute(&mut *db).await?;
    }
    Ok(())
}

/// Statements that the log has not acknowledged yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Waiting {
    /// How many.
    pub count: u64,
    /// When the oldest was queued, in seconds since 1970.
    pub oldest: Option<u64>,
}

/// What waits for the log.
///
/// # Errors
/// The database.
pub async fn waiting(store: &Store) -> Result<Waiting, StoreError> {
    let query = "SELECT COUNT(*), MIN(queued_at) FROM log_statements WHERE place IS NULL";
    let row = sqlx::query(query).fetch_one(store.pool()).await?;
    let count = row.try_get::<i64, _>(0)?;
    let oldest = row.try_get::<Option<i64>, _>(1)?;
    let unsigned = |value: i64| u64::try_from(value).unwrap_or(0);
    Ok(Waiting { count: unsigned(count), oldest: oldest.map(unsigned) })
}

/// Sends the statements that wait, oldest first, at most [`BATCH_ENTRIES_MAX`]. Returns how many
/// the log has acknowledged: where it is that many, more may wait. What ends between the reply and
/// the database is sent again, and has the same place. Takes the database twice and never while the
/// log is asked.
///
/// # Errors
/// The log or the database; nothing is lost.
pub async fn submit_pending(store: &Store, client: &LogClient) -> Result<usize, AppendError> {
    let rows = sqlx::query(
        "SELECT jti, hash FROM log_statements WHERE place IS NULL ORDER BY queued_at, jti LIMIT $1",
    )
    .bind(BATCH_ENTRIES_MAX as i64)
    .fetch_all(store.pool())
    .await
    .map_err(StoreError::from)?;
    let mut waiting = Vec::with_capacity(rows.len());
    for row in &rows {
        let jti: String = row.try_get(0).map_err(StoreError::from)?;
        let hash = super::tree::bytes(row.try_get(1).map_err(StoreError::from)?)?;
        let hash: Hash = hash.try_into().map_err(|_| StoreError::Row("a hash has not 32 bytes"))?;
        waiting.push((jti, Entry::Statement(hash)));
    }
    if waiting.is_empty() {
        return Ok(0);
    }
    let (names, entries): (Vec<String>, Vec<Entry>) = waiting.into_iter().unzip();
    let (places, count) = (client.append(&entries).await?, names.len());
    let work = transaction!(store, |db| {
        for (jti, place) in names.iter().zip(&places) {
            sqlx::query("UPDATE log_statements SET place = $1 WHERE jti = $2")
                .bind(*place as i64)
                .bind(jti)
                .execute(&mut *db)
                .await?;
        }
        // Those that were deleted on their way.
        sqlx::query("DELETE FROM log_statements WHERE salt = '' AND place IS NOT NULL")
            .execute(&mut *db)
            .await?;
        Ok(())
    });
    work.await?;
    Ok(count)
}
