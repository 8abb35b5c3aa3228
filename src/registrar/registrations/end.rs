//! How registrations end: withdrawals by application providers and users, and what they share with
//! other ends.

use crate::discovery::jws;
use crate::discovery::statement::{
    MAPPING_TYP, Mapping, Statement, UserKey, Withdrawal, WithdrawnBy,
};
use crate::limits::JWS_BYTES_MAX;
use crate::registrar::Problem;
use crate::registrar::api::{NewWithdrawal, State};
use crate::registrar::store::{Failed, StoreError};
use serde::Serialize;
use sqlx::{AnyConnection, Row as _};

use crate::limits::registrar::ERASE_SECONDS;
use crate::registrar::registrations::Core;
use crate::registrar::registrations::change::{
    Caller, Done, Prepared, check_id, malformed, unknown,
};
use crate::registrar::registrations::sql::stored_mapping;
use crate::registrar::registrations::sql::{
    WITHHOLD, bigint, lock_sii, lock_sii_of, made, unsigned,
};
use crate::registrar::registrations::state::{from_number, is_in_force, is_pending, number};
use crate::registrar::registrations::transition::Transition;

/// A registration with a mapping in force.
pub(crate) struct InForce {
    pub(crate) id: String,
    pub(crate) ap: String,
    pub(crate) iat: u64,
    pub(crate) state: State,
    pub(crate) since: u64,
    pub(crate) statement: String,
}

impl InForce {
    /// What its statement says.
    pub(crate) fn mapping(&self) -> Result<Mapping, Failed> {
        let broken = || StoreError::Row("a statement of a registration");
        let token =
            jws::parse(&self.statement, MAPPING_TYP, JWS_BYTES_MAX).map_err(|_| broken())?;
        Mapping::from_claims(&token.payload).map_err(|_| broken().into())
    }

    pub(crate) fn has_key(&self, key: &UserKey) -> Result<bool, Failed> {
        Ok(self.mapping()?.user.is_some_and(|user| user.key == *key))
    }
}

#[derive(Serialize)]
struct Withdrawn {
    withdrawn: u64,
}

impl Core {
    pub(crate) fn prepare_withdrawal(
        &self,
        request: NewWithdrawal,
        now: u64,
    ) -> Result<Prepared, Problem> {
        let expected = "either id or statement, a withdrawal that the user signed";
        let line = match (request.id, request.statement) {
            (Some(id), None) => {
                check_id(&id)?;
                return Ok(Prepared::WithdrawOne(id));
            }
            (None, Some(line)) => line,
            _ => return Err(malformed("both or neither of id and statement", expected)),
        };
        // Signed by the user, so that an expired directory does not keep anyone from it.
        match self.read(&line, &self.last_directory(), now)? {
            Statement::Withdrawal(withdrawal) if matches!(withdrawal.by, WithdrawnBy::User(_)) => {
                let sii_mac = self.settings.sii_mac(&withdrawal.sub);
                Ok(Prepared::WithdrawByUser { withdrawal, sii_mac })
            }
            _ => Err(malformed("a statement of another kind", expected)),
        }
    }

    /// Ends a registration of the caller's.
    pub(crate) async fn withdraw_one(
        &self,
        db: &mut AnyConnection,
        caller: &Caller<'_>,
        id: &str,
        now: u64,
    ) -> Result<Done, Failed> {
        let sii_mac = lock_sii_of(&mut *db, id, caller.ap).await?.ok_or_else(unknown)?;
        let query = sqlx::query("SELECT state, iat FROM registrations WHERE id = $1").bind(id);
        let row = query.fetch_optional(&mut *db).await?.ok_or_else(unknown)?;
        let state = from_number(row.try_get(0)?).ok_or(StoreError::Row("a state"))?;
        let iat = unsigned(row.try_get(1)?);
        if !is_pending(state) && !is_in_force(state) {
            let found = "a registration that is over";
            let expected = "one that is pending or has a mapping in force";
            return Err(Problem::new(409, "state", found, expected).into());
        }
        end(&mut *db, id, State::Withdrawn, now).await?;
        if is_in_force(state) {
            bury(&mut *db, &sii_mac, State::Withdrawn, now.max(iat)).await?;
        }
        let done = Done::json(200, &Withdrawn { withdrawn: 1 });
        Ok(Done { id: Some(id.to_owned()), ..done.with(Transition::Withdrawn, 1) })
    }

    /// Ends what a user withdraws: every registration of the identifier with this key, in force or
    /// pending, that is not later.
    pub(crate) async fn withdraw_by_user(
        &self,
        db: &mut AnyConnection,
        withdrawal: &Withdrawal,
        sii_mac: &str,
        now: u64,
    ) -> Result<Done, Failed> {
        let WithdrawnBy::User(key) = &withdrawal.by else {
            return Err(malformed("a withdrawal by somebody else", "one by a user").into());
        };
        lock_sii(&mut *db, sii_mac).await?;
        let is_meant = |mapping: &Mapping| {
            mapping.user.is_some_and(|user| user.key == *key)
                && mapping.iat <= withdrawal.iat
                && withdrawal.ssi.as_ref().is_none_or(|ssi| *ssi == mapping.ssi)
        };
        let mut withdrawn = 0;
        for one in in_force(&mut *db, sii_mac).await? {
            if is_meant(&one.mapping()?) {
                end(&mut *db, &one.id, State::Withdrawn, now).await?;
                withdrawn += 1;
            }
        }
        let pending = "SELECT id, claims FROM registrations
            WHERE sii_mac = $1 AND state IN (0, 1) AND claims IS NOT NULL";
        for row in sqlx::query(pending).bind(sii_mac).fetch_all(&mut *db).await? {
            let (id, claims): (String, String) = (row.try_get(0)?, row.try_get(1)?);
            if is_meant(&stored_mapping(&claims)?) {
                end(&mut *db, &id, State::Withdrawn, now).await?;
                withdrawn += 1;
            }
        }
        // Whoever has none of its keys leaves nothing behind.
        if withdrawn > 0 {
            bury(&mut *db, sii_mac, State::Withdrawn, withdrawal.iat).await?;
        }
        let done = Done::json(200, &Withdrawn { withdrawn });
        Ok(done.with(Transition::Withdrawn, withdrawn))
    }
}

/// The registrations of an identifier whose mappings are in force.
pub(crate) async fn in_force(
    db: &mut AnyConnection,
    sii_mac: &str,
) -> Result<Vec<InForce>, Failed> {
    let query = "SELECT id, ap, iat, state, since, statement FROM registrations
        WHERE sii_mac = $1 AND state IN (2, 3, 4) AND statement IS NOT NULL
        ORDER BY ap, id";
    let rows = sqlx::query(query).bind(sii_mac).fetch_all(db).await?;
    let read = |row: sqlx::any::AnyRow| {
        Ok(InForce {
            id: row.try_get(0)?,
            ap: row.try_get(1)?,
            iat: unsigned(row.try_get(2)?),
            state: from_number(row.try_get(3)?).ok_or(StoreError::Row("a state"))?,
            since: unsigned(row.try_get(4)?),
            statement: row.try_get(5)?,
        })
    };
    rows.into_iter().map(read).collect()
}

/// Ends a registration: its code and claims are gone at once, its statement leaves the feed, and
/// the preferences that its key made end with it.
pub(crate) async fn end(
    db: &mut AnyConnection,
    id: &str,
    state: State,
    now: u64,
) -> Result<(), Failed> {
    let update = format!(
        "UPDATE registrations
         SET state = $1, since = $2, due_at = $3, claims = NULL, code_mac = NULL, {WITHHOLD}
         WHERE id = $4"
    );
    sqlx::query(made(update))
        .bind(number(state))
        .bind(bigint(now))
        .bind(bigint(now + ERASE_SECONDS))
        .bind(id)
        .execute(&mut *db)
        .await?;
    let update = format!(
        "UPDATE preferences SET ended_at = $1, {WITHHOLD} WHERE registration = $2 AND ended_at = 0"
    );
    sqlx::query(made(update)).bind(bigint(now)).bind(id).execute(db).await?;
    Ok(())
}

/// Notes that consents for an identifier which were signed at a time or before count no more.
pub(crate) async fn bury(
    db: &mut AnyConnection,
    sii_mac: &str,
    state: State,
    at: u64,
) -> Result<(), Failed> {
    let insert = "INSERT INTO tombstones (sii_mac, state, at) VALUES ($1, $2, $3)
        ON CONFLICT (sii_mac, at, state) DO NOTHING";
    sqlx::query(insert).bind(sii_mac).bind(number(state)).bind(bigint(at)).execute(db).await?;
    Ok(())
}
