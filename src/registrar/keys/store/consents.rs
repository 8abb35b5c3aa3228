//! Consent: who has asked, and what users have decided; and whom an identifier belongs to.

use crate::discovery::statement::Ssi;
use crate::registrar::store::{Failed, transaction};
use crate::registrar::{Problem, Store};
use serde::{Deserialize, Serialize};
use sqlx::any::AnyRow;

use super::rows::{ASKED, GRANTED, REVOKED, number, text, time};
use crate::limits::keys::{KEY_CONSENTS_MAX, KEY_CONSENTS_WAITING_MAX};

/// A decision about consent, or a question for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Consent {
    /// The URI of who asked.
    pub requester: String,
    /// The room; none stands for every room.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub room: Option<String>,
    /// `asked`, `granted` or `revoked`.
    pub state: String,
}

/// Keeps a question for consent where a user decides by a list, or forgets it. Nothing tells
/// whether there is such a user.
///
/// # Errors
/// The database.
pub async fn ask_consent(
    store: &Store,
    target: &Ssi,
    (requester, room): (&str, &str),
    now: u64,
) -> Result<(), Failed> {
    transaction!(store, |db| {
        sqlx::query(
            "INSERT INTO key_consents (ssi, requester, room, state, changed_at)
                 SELECT u.ssi, $2, $3, $4, $5 FROM key_users u WHERE u.ssi = $1
                 AND u.policy = 'list' AND (SELECT COUNT(*) FROM key_consents c
                 WHERE c.ssi = u.ssi AND c.state = $4) < $6
                 ON CONFLICT (ssi, requester, room) DO NOTHING",
        )
        .bind(target.as_str())
        .bind(requester)
        .bind(room)
        .bind(ASKED)
        .bind(time(now))
        .bind(KEY_CONSENTS_WAITING_MAX)
        .execute(&mut *db)
        .await?;
        Ok(())
    })
    .await
}

/// Takes a question for consent back.
///
/// # Errors
/// The database.
pub async fn cancel_consent(
    store: &Store,
    target: &Ssi,
    (requester, room): (&str, &str),
) -> Result<(), Failed> {
    transaction!(store, |db| {
        let query = "DELETE FROM key_consents WHERE ssi = $1 AND requester = $2 AND room = $3
                 AND state = $4";
        let query = sqlx::query(query).bind(target.as_str()).bind(requester).bind(room);
        query.bind(ASKED).execute(&mut *db).await?;
        Ok(())
    })
    .await
}

/// Stores what a user has decided.
///
/// # Errors
/// 422 `too_many`, or the database.
pub async fn decide_consent(
    store: &Store,
    ssi: &Ssi,
    (requester, room): (&str, &str),
    is_granted: bool,
    now: u64,
) -> Result<(), Failed> {
    transaction!(store, |db| {
        let found = sqlx::query("SELECT COUNT(*) FROM key_consents WHERE ssi = $1");
        let found = found.bind(ssi.as_str()).fetch_one(&mut *db).await?;
        if number(&found, 0)? >= KEY_CONSENTS_MAX {
            let found = "as many decisions as are stored for a user";
            let expected = "the policy none or all instead of so many entries";
            return Err(Problem::new(422, "too_many", found, expected).into());
        }
        sqlx::query(
            "INSERT INTO key_consents (ssi, requester, room, state, changed_at)
                 VALUES ($1, $2, $3, $4, $5) ON CONFLICT (ssi, requester, room)
                 DO UPDATE SET state = excluded.state, changed_at = excluded.changed_at",
        )
        .bind(ssi.as_str())
        .bind(requester)
        .bind(room)
        .bind(if is_granted { GRANTED } else { REVOKED })
        .bind(time(now))
        .execute(&mut *db)
        .await?;
        Ok(())
    })
    .await
}

/// A user's decisions and the questions that wait for one.
///
/// # Errors
/// The database.
pub async fn consents_of(store: &Store, ssi: &Ssi) -> Result<Vec<Consent>, Failed> {
    let rows = sqlx::query(
        "SELECT requester, room, state FROM key_consents WHERE ssi = $1
         ORDER BY state, requester, room",
    );
    let rows = rows.bind(ssi.as_str()).fetch_all(store.pool()).await?;
    let consent = |row: &AnyRow| {
        let (room, state) = (text(row, 1)?, number(row, 2)?);
        let state = match state {
            GRANTED => "granted",
            REVOKED => "revoked",
            _ => "asked",
        };
        let room = (!room.is_empty()).then_some(room);
        Ok(Consent { requester: text(row, 0)?, room, state: state.to_owned() })
    };
    rows.iter().map(consent).collect()
}

/// The user whom an identifier belongs to, unless the user's policy is none.
///
/// # Errors
/// The database.
pub async fn find(store: &Store, mac: &str, now: u64) -> Result<Option<String>, Failed> {
    let row = sqlx::query(
        "SELECT u.ssi FROM key_identifiers i JOIN key_users u ON u.ssi = i.ssi
         WHERE i.sii_mac = $1 AND i.expires_at > $2 AND u.policy <> 'none'",
    );
    let row = row.bind(mac).bind(time(now)).fetch_optional(store.pool()).await?;
    row.map(|row| text(&row, 0)).transpose()
}

/// Whether there is a user with this SSI whose policy is not none.
///
/// # Errors
/// The database.
pub async fn has(store: &Store, ssi: &Ssi) -> Result<bool, Failed> {
    let row = sqlx::query("SELECT 1 FROM key_users WHERE ssi = $1 AND policy <> 'none'");
    Ok(row.bind(ssi.as_str()).fetch_optional(store.pool()).await?.is_some())
}
