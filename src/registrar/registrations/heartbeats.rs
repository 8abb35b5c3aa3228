//! Heartbeats: an application provider names the accounts that are in use.

use std::collections::BTreeSet;

use crate::registrar::Problem;
use crate::registrar::api::Heartbeats;
use crate::registrar::store::Failed;
use serde::Serialize;
use sqlx::AnyConnection;

use crate::limits::registrar::{HEARTBEATS_MAX, ID_BYTES_MAX, SQL_ROWS};
use crate::registrar::registrations::Core;
use crate::registrar::registrations::change::{Caller, Done, Prepared, malformed};
use crate::registrar::registrations::sql::{PUBLISH, bigint, list, made};
use crate::registrar::registrations::transition::Transition;

#[derive(Serialize)]
struct Noted {
    /// Registrations of the caller's that are in force.
    noted: u64,
}

impl Core {
    /// Checks what does not depend on what is stored.
    pub(crate) fn prepare_heartbeats(&self, heartbeats: Heartbeats) -> Result<Prepared, Problem> {
        let ids = heartbeats.ids;
        if ids.len() > HEARTBEATS_MAX {
            let found = format!("{} ids", ids.len());
            let expected = format!("at most {HEARTBEATS_MAX} in one request");
            return Err(Problem::new(413, "too_many_ids", found, expected));
        }
        if ids.iter().any(|id| id.len() > ID_BYTES_MAX) {
            return Err(malformed("an id that is too long", "ids of registrations"));
        }
        // Each once, in one order, so that requests that overlap rarely wait in a circle.
        let ids: BTreeSet<String> = ids.into_iter().collect();
        Ok(Prepared::Heartbeats(ids.into_iter().collect()))
    }

    /// Notes that accounts are in use. A stale one is active again: whether its proof is due, the
    /// next sweep says. Ids of others are passed over like unknown ones.
    pub(crate) async fn heartbeats(
        &self,
        db: &mut AnyConnection,
        caller: &Caller<'_>,
        ids: &[String],
        now: u64,
    ) -> Result<Done, Failed> {
        let (mut noted, mut returned) = (0, 0);
        for ids in ids.chunks(SQL_ROWS) {
            let list = list(3, ids.len());
            // It locks the rows, so that none becomes stale between this and what follows.
            let note = format!(
                "UPDATE registrations SET
                    heartbeat_at = CASE WHEN heartbeat_at < $1 THEN $1 ELSE heartbeat_at END
                 WHERE ap = $2 AND state IN (2, 3, 4) AND id IN {list}"
            );
            noted += update(&mut *db, note, caller, ids, now).await?;
            let wake = format!(
                "UPDATE registrations SET state = 2, since = $1, due_at = $1, {PUBLISH}
                 WHERE ap = $2 AND state = 4 AND id IN {list}"
            );
            returned += update(&mut *db, wake, caller, ids, now).await?;
        }
        Ok(Done::json(200, &Noted { noted }).with(Transition::Returned, returned))
    }
}

/// Runs an update of some of the caller's registrations; how many it changed.
async fn update(
    db: &mut AnyConnection,
    update: String,
    caller: &Caller<'_>,
    ids: &[String],
    now: u64,
) -> Result<u64, Failed> {
    let mut query = sqlx::query(made(update)).bind(bigint(now)).bind(caller.ap);
    for id in ids {
        query = query.bind(id.as_str());
    }
    Ok(query.execute(db).await?.rows_affected())
}
