//! New holders of a number, between discovery providers: the mapping that proves it is handed to
//! every other one that may have mappings of that number, until it has acknowledged it.

use crate::discovery::directory::Directory;
use crate::discovery::identifier::Identifier;
use crate::discovery::statement::{Mapping, Statement};
use crate::registrar::Problem;
use crate::registrar::api::{NewEvent, State};
use crate::registrar::store::transaction;
use crate::registrar::store::{Failed, StoreError};
use sqlx::{AnyConnection, Row as _};

use crate::limits::registrar::{EVENT_RETRY_SECONDS, EVENT_RETRY_SECONDS_MAX, EVENTS_MAX};
use crate::registrar::registrations::Core;
use crate::registrar::registrations::change::{Caller, Done, Prepared, malformed};
use crate::registrar::registrations::end::{bury, end, in_force};
use crate::registrar::registrations::home::homes;
use crate::registrar::registrations::sql::{bigint, lock_sii, stored, unsigned};
use crate::registrar::registrations::transition::Transition;

/// A mapping that another discovery provider has to be told of. It has no `Debug`: it is about a
/// person.
pub struct Event {
    /// The registration here.
    pub registration: String,
    /// Domain of the discovery provider.
    pub dp: String,
    /// The mapping, as POST `/v1/events` takes it.
    pub statement: String,
}

impl Core {
    /// Events to send now.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn pending_events(&self, now: u64) -> Result<Vec<Event>, StoreError> {
        let query = "SELECT e.registration, e.dp, r.statement
            FROM events e JOIN registrations r ON r.id = e.registration
            WHERE e.next_at <= $1 AND r.statement IS NOT NULL ORDER BY e.next_at LIMIT $2";
        let query = sqlx::query(query).bind(bigint(now)).bind(bigint(EVENTS_MAX));
        let rows = query.fetch_all(self.store.pool()).await?;
        let read = |row: sqlx::any::AnyRow| {
            Ok(Event {
                registration: row.try_get(0)?,
                dp: row.try_get(1)?,
                statement: row.try_get(2)?,
            })
        };
        rows.into_iter().map(read).collect()
    }

    /// Notes that the other discovery provider has an event: it is not sent again.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn event_acknowledged(&self, event: &Event) -> Result<(), StoreError> {
        let delete = "DELETE FROM events WHERE registration = $1 AND dp = $2";
        let ended = transaction!(self.store, |db| {
            let query = sqlx::query(delete).bind(event.registration.as_str());
            query.bind(event.dp.as_str()).execute(db).await?;
            Ok(())
        });
        stored(ended.await)
    }

    /// Notes that an event was not acknowledged: it is sent again later.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn event_failed(&self, event: &Event, now: u64) -> Result<(), StoreError> {
        let ended = transaction!(self.store, |db| {
            let (id, dp) = (event.registration.as_str(), event.dp.as_str());
            let find = "SELECT tries FROM events WHERE registration = $1 AND dp = $2";
            let row = sqlx::query(find).bind(id).bind(dp).fetch_optional(&mut *db).await?;
            let Some(row) = row else { return Ok(()) };
            let tries = u32::try_from(row.try_get::<i64, _>(0)?).unwrap_or(0);
            let factor = 2_u64.checked_pow(tries).unwrap_or(u64::MAX);
            let wait = EVENT_RETRY_SECONDS.saturating_mul(factor).min(EVENT_RETRY_SECONDS_MAX);
            let update = "UPDATE events SET tries = tries + 1, next_at = $1
                WHERE registration = $2 AND dp = $3";
            let update = sqlx::query(update).bind(bigint(now + wait)).bind(id).bind(dp);
            update.execute(db).await?;
            Ok(())
        });
        stored(ended.await)
    }

    /// Reads another discovery provider's event: it has to be its own mapping, of an identifier
    /// that it may vouch for.
    pub(crate) fn prepare_event(
        &self,
        caller: &Caller<'_>,
        request: &NewEvent,
        directory: &Directory,
        now: u64,
    ) -> Result<Prepared, Problem> {
        let Statement::Mapping(mapping) = self.read(&request.statement, directory, now)? else {
            return Err(malformed("a statement of another kind", "a mapping with new_holder"));
        };
        if !mapping.new_holder {
            return Err(malformed("a mapping without new_holder", "a mapping with new_holder"));
        }
        if mapping.iss != caller.ap || mapping.iss == self.settings.iss {
            let found = "a mapping of another issuer than the caller";
            return Err(Problem::new(403, "event_issuer", found, "the caller's own mapping"));
        }
        if !homes(directory, &mapping.sub).iter().any(|issuer| issuer.domain == mapping.iss) {
            let found = "a mapping of an identifier that the directory gives to another";
            let expected = "a mapping of an identifier whose home is its issuer";
            return Err(Problem::new(421, "not_home", found, expected));
        }
        let sii_mac = self.settings.sii_mac(&mapping.sub);
        Ok(Prepared::Event { mapping, sii_mac })
    }

    /// Voids what is earlier here than the mapping of an event, by the merging rule of records.
    pub(crate) async fn event(
        &self,
        db: &mut AnyConnection,
        mapping: &Mapping,
        sii_mac: &str,
        now: u64,
    ) -> Result<Done, Failed> {
        lock_sii(&mut *db, sii_mac).await?;
        let mut voided = 0;
        for one in in_force(&mut *db, sii_mac).await? {
            if one.iat < mapping.iat {
                end(&mut *db, &one.id, State::Voided, now).await?;
                voided += 1;
            }
        }
        bury(&mut *db, sii_mac, State::Voided, mapping.iat.saturating_sub(1)).await?;
        // The same whether or not there was one.
        Ok(Done::json(200, &serde_json::json!({})).with(Transition::Voided, voided))
    }
}

/// The discovery providers that may have vouched for an identifier, beside this one.
pub(crate) fn receivers(directory: &Directory, own: &str, sii: &Identifier) -> Vec<String> {
    let issuers = directory.content().issuers.iter();
    issuers
        .filter(|issuer| issuer.domain != own && !issuer.remit.providers.is_empty())
        .filter(|issuer| issuer.remit.covers(sii))
        .map(|issuer| issuer.domain.clone())
        .collect()
}

/// Has an event sent to each of them.
pub(crate) async fn announce(
    db: &mut AnyConnection,
    registration: &str,
    receivers: &[String],
    now: u64,
) -> Result<(), Failed> {
    let insert = "INSERT INTO events (registration, dp, next_at) VALUES ($1, $2, $3)
        ON CONFLICT (registration, dp) DO NOTHING";
    for dp in receivers {
        let query = sqlx::query(insert).bind(registration).bind(dp.as_str());
        query.bind(bigint(now)).execute(&mut *db).await?;
    }
    Ok(())
}

impl Core {
    /// Events that nobody has acknowledged yet, for a gauge.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn events_waiting(&self) -> Result<u64, StoreError> {
        let row = sqlx::query("SELECT COUNT(*) FROM events").fetch_one(self.store.pool()).await?;
        Ok(unsigned(row.try_get(0)?))
    }
}
