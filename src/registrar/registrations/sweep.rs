//! What time does: codes expire, mappings become stale, proofs are due, registrations end.

use crate::registrar::api::State;
use crate::registrar::store::transaction;
use crate::registrar::store::{Failed, StoreError};
use sqlx::{AnyConnection, Row as _};

use crate::limits::registrar::SWEEP_ROWS;
use crate::registrar::registrations::Core;
use crate::registrar::registrations::end::{bury, end};
use crate::registrar::registrations::sql::{
    PUBLISH, WITHHOLD, bigint, made, skip_locked, stored, unsigned,
};
use crate::registrar::registrations::state::{Times, from_number, is_published, next, number};

/// What a sweep changed: registrations that came into each state.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // Names say it.
pub struct Swept {
    pub expired: u64,
    pub stale: u64,
    pub ended: u64,
    pub proof_due: u64,
    /// Back from stale.
    pub active: u64,
}

/// States that end by themselves.
const SWEPT: [State; 5] =
    [State::Requested, State::Sent, State::Active, State::ProofDue, State::Stale];

impl Swept {
    fn count(&mut self, state: State) {
        match state {
            State::Expired => self.expired += 1,
            State::Stale => self.stale += 1,
            State::Ended => self.ended += 1,
            State::ProofDue => self.proof_due += 1,
            _ => self.active += 1,
        }
    }
}

struct Due {
    id: String,
    sii_mac: String,
    state: State,
    times: Times,
}

impl Core {
    /// Brings every registration to the state that it has now. It reads only what is due, some
    /// hundred rows in a transaction; several may run at once.
    ///
    /// # Errors
    /// The database does not answer; what was changed before stays.
    pub async fn sweep(&self, now: u64) -> Result<Swept, StoreError> {
        let mut swept = Swept::default();
        for state in SWEPT {
            loop {
                let changed = transaction!(self.store, |db| self.sweep_some(db, state, now).await);
                let (found, changed) = stored(changed.await)?;
                changed.into_iter().for_each(|state| swept.count(state));
                if found < SWEEP_ROWS {
                    break;
                }
            }
        }
        Ok(swept)
    }

    /// Sweeps some registrations of a state. Returns how many were looked at, and the states that
    /// some of them came into.
    async fn sweep_some(
        &self,
        db: &mut AnyConnection,
        state: State,
        now: u64,
    ) -> Result<(u64, Vec<State>), Failed> {
        let query = format!(
            "SELECT id, sii_mac, state, code_expires_at, iat, exp, heartbeat_at FROM registrations
             WHERE state = $1 AND due_at <= $2 ORDER BY due_at LIMIT $3{}",
            skip_locked(self.store.databases())
        );
        let query = sqlx::query(made(query)).bind(number(state)).bind(bigint(now));
        let rows = query.bind(bigint(SWEEP_ROWS)).fetch_all(&mut *db).await?;
        let found = rows.len() as u64;
        let mut changed = Vec::new();
        for row in rows {
            let due = Due {
                id: row.try_get(0)?,
                sii_mac: row.try_get(1)?,
                state: from_number(row.try_get(2)?).ok_or(StoreError::Row("a state"))?,
                times: Times {
                    code_expires_at: unsigned(row.try_get(3)?),
                    iat: unsigned(row.try_get(4)?),
                    exp: unsigned(row.try_get(5)?),
                    heartbeat_at: unsigned(row.try_get(6)?),
                },
            };
            changed.extend(bring_on(&mut *db, &due, now).await?);
        }
        Ok((found, changed))
    }
}

/// Brings a registration to the state that it has now, which is returned if it is another one.
async fn bring_on(db: &mut AnyConnection, due: &Due, now: u64) -> Result<Option<State>, Failed> {
    let (state, due_at) = next(due.state, &due.times, now);
    let Some(due_at) = due_at else {
        end(&mut *db, &due.id, state, now).await?;
        if state == State::Ended {
            bury(db, &due.sii_mac, state, now).await?;
        }
        return Ok(Some(state));
    };
    if state == due.state {
        let update = "UPDATE registrations SET due_at = $1 WHERE id = $2";
        sqlx::query(update).bind(bigint(due_at)).bind(due.id.as_str()).execute(db).await?;
        return Ok(None);
    }
    let feed = if is_published(state) { PUBLISH } else { WITHHOLD };
    let update = format!(
        "UPDATE registrations SET state = $1, since = $2, due_at = $3, {feed} WHERE id = $4"
    );
    sqlx::query(made(update))
        .bind(number(state))
        .bind(bigint(now))
        .bind(bigint(due_at))
        .bind(due.id.as_str())
        .execute(db)
        .await?;
    Ok(Some(state))
}
