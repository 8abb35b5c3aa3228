//! Stale registrations whose number may have changed hands, for whoever asks carriers (CAMARA
//! Number Recycling). A registration in use is never asked about.

use crate::discovery::identifier::Identifier;
use crate::registrar::api::State;
use crate::registrar::store::transaction;
use crate::registrar::store::{Failed, StoreError};
use sqlx::Row as _;

use crate::limits::registrar::STALE_CHECKS_MAX;
use crate::registrar::registrations::Core;
use crate::registrar::registrations::end::{InForce, bury, end};
use crate::registrar::registrations::sql::{bigint, lock_sii, stored, unsigned};

/// A stale registration. It has no `Debug`: it is about a person.
pub struct Stale {
    /// Its name.
    pub id: String,
    /// Whose number it is to be asked about.
    pub sii: Identifier,
    /// When the number was proved.
    pub proved_at: u64,
    /// When the registration ends.
    pub ends_at: u64,
}

impl Core {
    /// Some stale registrations, the first to end first: those that come after one, or the first.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn stale(&self, after: Option<&Stale>) -> Result<Vec<Stale>, StoreError> {
        let (ends_at, id) = after.map_or((0, ""), |after| (after.ends_at, after.id.as_str()));
        // Those of one request with heartbeats end in the same second.
        let query = "SELECT id, ap, iat, since, statement, due_at FROM registrations
            WHERE state = 4 AND due_at >= $1 AND (due_at > $1 OR id > $2)
                AND statement IS NOT NULL
            ORDER BY due_at, id LIMIT $3";
        let query = sqlx::query(query).bind(bigint(ends_at)).bind(id);
        let rows = query.bind(bigint(STALE_CHECKS_MAX)).fetch_all(self.store.pool()).await?;
        let read = |row: sqlx::any::AnyRow| {
            let stale = InForce {
                id: row.try_get(0)?,
                ap: row.try_get(1)?,
                iat: unsigned(row.try_get(2)?),
                state: State::Stale,
                since: unsigned(row.try_get(3)?),
                statement: row.try_get(4)?,
            };
            let ends_at = unsigned(row.try_get(5)?);
            let mapping = stale.mapping()?;
            Ok(Stale { id: stale.id, sii: mapping.sub, proved_at: mapping.proof_at, ends_at })
        };
        stored(rows.into_iter().map(read).collect::<Result<_, Failed>>())
    }

    /// Voids a registration whose number has another holder, unless it is in use again. Returns
    /// whether it was voided.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn recycled(&self, id: &str, now: u64) -> Result<bool, StoreError> {
        let ended = transaction!(self.store, |db| {
            let find = "SELECT sii_mac FROM registrations WHERE id = $1";
            let row = sqlx::query(find).bind(id).fetch_optional(&mut *db).await?;
            let Some(row) = row else { return Ok(false) };
            let sii_mac: String = row.try_get(0)?;
            lock_sii(&mut *db, &sii_mac).await?;
            let take = "UPDATE registrations SET state = 10 WHERE id = $1 AND state = 4";
            if sqlx::query(take).bind(id).execute(&mut *db).await?.rows_affected() == 0 {
                return Ok(false);
            }
            end(&mut *db, id, State::Voided, now).await?;
            bury(&mut *db, &sii_mac, State::Voided, now).await?;
            Ok(true)
        });
        stored(ended.await)
    }
}
