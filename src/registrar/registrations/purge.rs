//! Erasure: registrations that are over, replies, preferences, the times of codes, and in the end
//! what was kept against replays.
//!
//! A statement that is in the feed is removed from it by a batch before its row goes. The batch
//! that added it stays as it is but for that line, of which only the digest is left.

use crate::registrar::api::State;
use crate::registrar::log::client::forget;
use crate::registrar::store::transaction;
use crate::registrar::store::{Failed, StoreError};
use sqlx::{AnyConnection, Row as _};

use crate::limits::registrar::{
    CODES_SECONDS, ERASE_SECONDS, REPLY_SECONDS, SWEEP_ROWS, TOMBSTONE_SECONDS,
};
use crate::registrar::registrations::Core;
use crate::registrar::registrations::sql::{bigint, list, made, skip_locked, stored};
use crate::registrar::registrations::state::number;

/// What was erased.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // Names say it.
pub struct Purged {
    pub registrations: u64,
    pub preferences: u64,
    pub replies: u64,
    /// HMACs that were kept against replays.
    pub tombstones: u64,
    /// Identifiers of which no code was sent for a day.
    pub siis: u64,
    /// Counts of the rules against fraud.
    pub counts: u64,
}

/// What is erased, some rows at a time.
#[derive(Clone, Copy)]
enum What {
    /// Those of a state that is over.
    Registrations(State),
    Preferences,
    Replies,
    Siis,
    Tombstones,
}

/// The states of what is over.
const OVER: [State; 6] = [
    State::Ended,
    State::Failed,
    State::Expired,
    State::Withdrawn,
    State::Superseded,
    State::Voided,
];

impl Core {
    /// Erases what has to be gone by now. Runs each hour, so that nothing stays longer than a day.
    ///
    /// # Errors
    /// The database does not answer; what was erased before is gone.
    pub async fn purge(&self, now: u64) -> Result<Purged, StoreError> {
        // What is to be erased has to leave the feed first.
        if self.is_leaving(now).await? {
            while self.close_batch(now).await?.is_some() {}
        }
        let mut purged = Purged::default();
        for state in OVER {
            purged.registrations += self.erase(What::Registrations(state), now).await?;
        }
        purged.preferences = self.erase(What::Preferences, now).await?;
        purged.replies = self.erase(What::Replies, now).await?;
        purged.siis = self.erase(What::Siis, now).await?;
        purged.tombstones = self.erase(What::Tombstones, now).await?;
        let counts = transaction!(self.store, |db| self.fraud.purge(db, now).await);
        purged.counts = stored(counts.await)?;
        Ok(purged)
    }

    /// Whether something that is to be erased is still in the feed.
    async fn is_leaving(&self, now: u64) -> Result<bool, StoreError> {
        let queries = [
            "SELECT 1 FROM registrations WHERE feed IN (1, 3) AND feed = 3 AND due_at <= $1
             AND state >= 5 LIMIT 1",
            "SELECT 1 FROM preferences WHERE feed IN (1, 3) AND feed = 3 AND ended_at > 0
             AND ended_at <= $1 LIMIT 1",
        ];
        for (query, until) in queries.into_iter().zip([now, now.saturating_sub(ERASE_SECONDS)]) {
            let query = sqlx::query(query).bind(bigint(until));
            if query.fetch_optional(self.store.pool()).await?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Erases in transactions of some rows each, until one finds no more.
    async fn erase(&self, what: What, now: u64) -> Result<u64, StoreError> {
        let mut erased = 0;
        loop {
            let some = transaction!(self.store, |db| self.erase_some(db, what, now).await);
            let some = stored(some.await)?;
            erased += some;
            if some < SWEEP_ROWS {
                return Ok(erased);
            }
        }
    }

    async fn erase_some(
        &self,
        db: &mut AnyConnection,
        what: What,
        now: u64,
    ) -> Result<u64, Failed> {
        let (delete, seconds) = match what {
            What::Registrations(state) => return self.erase_registrations(db, state, now).await,
            What::Preferences => (
                "DELETE FROM preferences WHERE name IN (SELECT name FROM preferences
                 WHERE ended_at > 0 AND ended_at <= $1 AND feed = 0 LIMIT $2)",
                ERASE_SECONDS,
            ),
            What::Replies => (
                "DELETE FROM replies WHERE (ap, key) IN (SELECT ap, key FROM replies
                 WHERE at <= $1 ORDER BY at LIMIT $2)",
                REPLY_SECONDS,
            ),
            // The condition again: a code may have been sent since the row was found.
            What::Siis => (
                "DELETE FROM siis WHERE code_1 <= $1 AND sii_mac IN (SELECT sii_mac FROM siis
                 WHERE code_1 <= $1 ORDER BY code_1 LIMIT $2)",
                CODES_SECONDS,
            ),
            What::Tombstones => (
                "DELETE FROM tombstones WHERE (sii_mac, at, state) IN
                 (SELECT sii_mac, at, state FROM tombstones WHERE at <= $1 ORDER BY at LIMIT $2)",
                TOMBSTONE_SECONDS,
            ),
        };
        let delete = sqlx::query(delete).bind(bigint(now.saturating_sub(seconds)));
        Ok(delete.bind(bigint(SWEEP_ROWS)).execute(db).await?.rows_affected())
    }

    /// Erases some registrations that are over, with the replies and events about them, and what
    /// leads from them to entries of the log.
    async fn erase_registrations(
        &self,
        db: &mut AnyConnection,
        state: State,
        now: u64,
    ) -> Result<u64, Failed> {
        let some = format!(
            "SELECT id FROM registrations WHERE state = $1 AND due_at <= $2 AND feed = 0
             ORDER BY due_at LIMIT $3{}",
            skip_locked(self.store.databases())
        );
        let some = sqlx::query(made(some)).bind(number(state)).bind(bigint(now));
        let some = some.bind(bigint(SWEEP_ROWS));
        let rows = some.fetch_all(&mut *db).await?;
        if rows.is_empty() {
            return Ok(0);
        }
        let ids: Result<Vec<String>, _> = rows.iter().map(|row| row.try_get(0)).collect();
        let ids = ids?;
        forget(&mut *db, &ids).await?;
        for (table, column) in
            [("replies", "registration"), ("events", "registration"), ("registrations", "id")]
        {
            let places = list(1, ids.len());
            let delete = format!("DELETE FROM {table} WHERE {column} IN {places}");
            let mut delete = sqlx::query(made(delete));
            for id in &ids {
                delete = delete.bind(id.as_str());
            }
            delete.execute(&mut *db).await?;
        }
        Ok(ids.len() as u64)
    }
}
