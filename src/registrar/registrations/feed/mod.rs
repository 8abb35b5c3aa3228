//! The feed: batches of what has changed among the mappings and preferences in force, each signed
//! and chained to the one before. [`Fold`](fold::Fold) makes statements of them again.
//!
//! A batch is a text. Its first line is a JWS of type [`FEED_TYP`] by the issuer:
//!
//! | claim | what it says |
//! |---|---|
//! | `iss`, `iat` | the issuer, and when the batch was closed |
//! | `seq` | its number, from 1 |
//! | `previous` | SHA-256 of the first line of the batch before; absent in number 1 |
//! | `count` | lines after the first |
//! | `sha256` | SHA-256 over the SHA-256 digests of these lines, in order |
//!
//! Each other line is an object of JSON with one member ([`Line`]). An erased line has the digest
//! of the line that it was, so that the batch stays verifiable; whoever serves batches could as
//! well withhold a line like this, but never add or change one.
//!
//! What changed is a mark in the row of each registration and preference, set by the transaction
//! that changed it. It gets its place when a batch is closed: until then no request waits for
//! another because of the feed, and what came and went in between is in no batch.

pub mod fold;

use crate::discovery::jws::{self, base64url};
use crate::registrar::store::transaction;
use crate::registrar::store::{Failed, StoreError};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use sqlx::{AnyConnection, Row as _};

use crate::limits::registrar::{FEED_LINES_MAX, SQL_ROWS};
use crate::registrar::registrations::Core;
use crate::registrar::registrations::sql::{
    bigint, list, made, places, skip_locked, stored, unsigned,
};

/// The `typ` of the first line of a batch.
pub const FEED_TYP: &str = "sotto-feed+jwt";

/// A line of a batch after the first.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Line {
    /// A mapping (JWS) or preference (line of JSON) is in force.
    Add(String),
    /// It is not any more: `jti` of the mapping, or SHA-256 of the preference.
    Remove(String),
    /// What was added is erased: SHA-256 of the line as it was.
    Erased(String),
}

#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    seq: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    previous: Option<String>,
    count: u64,
    sha256: String,
    iat: u64,
}

/// What a line does, as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    AddMapping = 1,
    AddPreference = 2,
    Remove = 3,
}

/// A line that a batch gets.
struct Pending {
    kind: Kind,
    name: String,
    digest: [u8; 32],
}

/// Where lines come from.
#[derive(Clone, Copy)]
enum Source {
    Registrations,
    Preferences,
}

impl Core {
    /// Makes a batch of what has changed, at most [`FEED_LINES_MAX`] lines, and returns its number;
    /// `None` if nothing has. Called until it returns `None`, at least once a day.
    ///
    /// # Errors
    /// The database does not answer; nothing is lost.
    pub async fn close_batch(&self, now: u64) -> Result<Option<u64>, StoreError> {
        stored(transaction!(self.store, |db| self.close(db, now).await).await)
    }

    /// The bytes of a batch, the same each time but for lines that were erased; `None` if there is
    /// no such batch.
    ///
    /// # Errors
    /// The database does not answer, or is not what was written.
    pub async fn batch(&self, seq: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let query = sqlx::query("SELECT header FROM feed_batches WHERE seq = $1").bind(bigint(seq));
        let Some(row) = query.fetch_optional(self.store.pool()).await? else { return Ok(None) };
        let mut text: String = row.try_get(0)?;
        text.push('\n');
        let query = "SELECT f.kind, f.name, f.digest, r.statement, p.line FROM feed_lines f
            LEFT JOIN registrations r ON f.kind = 1 AND r.id = f.name
            LEFT JOIN preferences p ON f.kind = 2 AND p.name = f.name
            WHERE f.seq = $1 ORDER BY f.position";
        let rows = sqlx::query(query).bind(bigint(seq)).fetch_all(self.store.pool()).await?;
        for row in rows {
            let (kind, name): (i64, String) = (row.try_get(0)?, row.try_get(1)?);
            let digest: String = row.try_get(2)?;
            let (statement, line): (Option<String>, Option<String>) =
                (row.try_get(3)?, row.try_get(4)?);
            let line = match (kind == Kind::Remove as i64, statement.or(line)) {
                (true, _) => Line::Remove(name).to_text(),
                (false, Some(added)) => Line::Add(added).to_text(),
                (false, None) => Line::Erased(digest.clone()).to_text(),
            };
            if !line.starts_with(r#"{"erased""#) && base64url(&sha256(&line)) != digest {
                return Err(StoreError::Row("a line of the feed is not the one that was signed"));
            }
            text.push_str(&line);
            text.push('\n');
        }
        Ok(Some(text.into_bytes()))
    }

    /// The number of the last batch; 0 before the first.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn last_batch(&self) -> Result<u64, StoreError> {
        let query = sqlx::query("SELECT MAX(seq) FROM feed_batches");
        let row = query.fetch_one(self.store.pool()).await?;
        Ok(row.try_get::<Option<i64>, _>(0)?.map_or(0, unsigned))
    }

    async fn close(&self, db: &mut AnyConnection, now: u64) -> Result<Option<u64>, Failed> {
        let mappings = self.pending_lines(&mut *db, Source::Registrations, FEED_LINES_MAX).await?;
        let room = FEED_LINES_MAX - mappings.len() as u64;
        let preferences = self.pending_lines(&mut *db, Source::Preferences, room).await?;
        let lines: Vec<&Pending> = mappings.iter().chain(&preferences).collect();
        if lines.is_empty() {
            return Ok(None);
        }
        let seq = self.chain(&mut *db, &lines, now).await?;
        insert_lines(&mut *db, seq, &lines).await?;
        settle(&mut *db, "registrations", "id", &mappings).await?;
        settle(&mut *db, "preferences", "name", &preferences).await?;
        Ok(Some(seq))
    }

    /// What changed and is in no batch yet. Only what is of this region is ever added.
    async fn pending_lines(
        &self,
        db: &mut AnyConnection,
        source: Source,
        most: u64,
    ) -> Result<Vec<Pending>, Failed> {
        let (select, add) = match source {
            Source::Registrations => {
                ("SELECT id, feed, statement FROM registrations", Kind::AddMapping)
            }
            Source::Preferences => {
                ("SELECT name, feed, line FROM preferences", Kind::AddPreference)
            }
        };
        let query = format!(
            "{select} WHERE feed IN (1, 3) AND (feed = 3 OR region = $1) LIMIT $2{}",
            skip_locked(self.store.databases())
        );
        let region = self.settings.region.clone().unwrap_or_default();
        let query = sqlx::query(made(query)).bind(region).bind(bigint(most));
        let rows = query.fetch_all(db).await?;
        let read = |row: sqlx::any::AnyRow| {
            let (name, feed): (String, i64) = (row.try_get(0)?, row.try_get(1)?);
            let (kind, line) = match feed {
                1 => (add, Line::Add(row.try_get(2)?)),
                _ => (Kind::Remove, Line::Remove(name.clone())),
            };
            Ok(Pending { kind, name, digest: sha256(&line.to_text()) })
        };
        rows.into_iter().map(read).collect()
    }

    /// Signs the first line of the next batch and stores it.
    async fn chain(
        &self,
        db: &mut AnyConnection,
        lines: &[&Pending],
        now: u64,
    ) -> Result<u64, Failed> {
        let last = "SELECT seq, header FROM feed_batches ORDER BY seq DESC LIMIT 1";
        let last = match sqlx::query(last).fetch_optional(&mut *db).await? {
            Some(row) => Some((unsigned(row.try_get(0)?), row.try_get::<String, _>(1)?)),
            None => None,
        };
        let mut digest = Sha256::new();
        lines.iter().for_each(|line| digest.update(line.digest));
        let claims = Claims {
            iss: self.settings.iss.clone(),
            seq: last.as_ref().map_or(1, |(seq, _)| seq + 1),
            previous: last.map(|(_, header)| base64url(&sha256(&header))),
            count: lines.len() as u64,
            sha256: base64url(&digest.finalize()),
            iat: now,
        };
        let payload = serde_json::to_vec(&claims).unwrap_or_default();
        let header = jws::sign(FEED_TYP, &payload, &self.settings.signing_key);
        let insert = "INSERT INTO feed_batches (seq, header) VALUES ($1, $2)
            ON CONFLICT (seq) DO NOTHING";
        let insert = sqlx::query(insert).bind(bigint(claims.seq)).bind(header);
        match insert.execute(db).await?.rows_affected() {
            // Another process closed one meanwhile.
            0 => Err(Failed::Again),
            _ => Ok(claims.seq),
        }
    }
}

impl Line {
    /// The line without its end.
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

fn sha256(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

async fn insert_lines(db: &mut AnyConnection, seq: u64, lines: &[&Pending]) -> Result<(), Failed> {
    for (chunk, some) in lines.chunks(SQL_ROWS).enumerate() {
        let insert = format!(
            "INSERT INTO feed_lines (seq, position, kind, name, digest) VALUES {}",
            places(1, 5, some.len())
        );
        let mut query = sqlx::query(made(insert));
        for (at, line) in some.iter().enumerate() {
            let position = (chunk * SQL_ROWS + at) as u64 + 1;
            query = query
                .bind(bigint(seq))
                .bind(bigint(position))
                .bind(line.kind as i64)
                .bind(line.name.as_str())
                .bind(base64url(&line.digest));
        }
        query.execute(&mut *db).await?;
    }
    Ok(())
}

/// Marks what a batch now has: what was added is in the feed, what was removed is not.
async fn settle(
    db: &mut AnyConnection,
    table: &str,
    name: &str,
    lines: &[Pending],
) -> Result<(), Failed> {
    for some in lines.chunks(SQL_ROWS) {
        let update = format!(
            "UPDATE {table} SET feed = CASE feed WHEN 1 THEN 2 ELSE 0 END WHERE {name} IN {}",
            list(1, some.len())
        );
        let mut query = sqlx::query(made(update));
        for line in some {
            query = query.bind(line.name.as_str());
        }
        query.execute(&mut *db).await?;
    }
    Ok(())
}
