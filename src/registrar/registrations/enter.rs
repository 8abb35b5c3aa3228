//! Codes that are entered, and what follows from a right one.

use crate::discovery::directory::Directory;
use crate::discovery::statement::{Mapping, Statement};
use crate::registrar::Problem;
use crate::registrar::api::State;
use crate::registrar::log::client::enqueue;
use crate::registrar::store::{Failed, StoreError};
use serde::Serialize;
use sqlx::{AnyConnection, Row as _};

use crate::limits::registrar::CODE_TRIES;
use crate::registrar::registrations::change::{Caller, Count, Counted, Done, channel_of, unknown};
use crate::registrar::registrations::end::{InForce, bury, end, in_force};
use crate::registrar::registrations::sql::stored_mapping;
use crate::registrar::registrations::sql::{PUBLISH, bigint, lock_sii_of, made, unsigned};
use crate::registrar::registrations::state::{Times, from_number, is_pending, next};
use crate::registrar::registrations::transition::Transition;
use crate::registrar::registrations::{Core, events};

#[derive(Serialize)]
struct Proved<'a> {
    statement: &'a str,
}

/// A try that was taken.
struct Try {
    code_mac: String,
    claims: String,
    tries_left: u64,
}

impl Core {
    /// Takes a try, compares the code, and vouches for the mapping if it is right.
    pub(crate) async fn enter(
        &self,
        db: &mut AnyConnection,
        caller: &Caller<'_>,
        id: &str,
        code: &str,
        now: u64,
    ) -> Result<Done, Failed> {
        let sii_mac = lock_sii_of(&mut *db, id, caller.ap).await?.ok_or_else(unknown)?;
        let Some(taken) = take_try(&mut *db, id, now).await? else {
            return Err(explain(db, id, now).await?.into());
        };
        let mut done = if self.settings.is_code_of(id, code, &taken.code_mac) {
            self.vouch(db, caller, id, &sii_mac, &taken.claims, now).await?
        } else {
            wrong(db, id, taken.tries_left, now).await?
        };
        done.id = Some(id.to_owned());
        Ok(done)
    }

    /// Signs the mapping that was proved, unless its consent is no longer one, and ends what it
    /// stands in place of.
    async fn vouch(
        &self,
        db: &mut AnyConnection,
        caller: &Caller<'_>,
        id: &str,
        sii_mac: &str,
        claims: &str,
        now: u64,
    ) -> Result<Done, Failed> {
        let mapping = stored_mapping(claims)?;
        let others = in_force(&mut *db, sii_mac).await?;
        if let Some(floor) = self.floor(&mut *db, caller, sii_mac, &others).await?
            && mapping.iat <= floor
        {
            end(&mut *db, id, State::Failed, now).await?;
            let found = "a consent no later than a withdrawal or another mapping";
            let expected = "a new registration, signed by the user now";
            let refusal = Done::refusal(&Problem::new(409, "consent_old", found, expected));
            return Ok(refusal.with(Transition::Failed, 1));
        }
        let directory = self.directory(now)?;
        let statement = self.issue(&mapping, &directory, now)?;
        let replaced = self.replace(&mut *db, caller, id, &mapping, sii_mac, &others, now).await?;
        if mapping.new_holder {
            let receivers = events::receivers(&directory, &self.settings.iss, &mapping.sub);
            events::announce(&mut *db, id, &receivers, now).await?;
        }
        let times =
            Times { code_expires_at: 0, iat: mapping.iat, exp: mapping.exp, heartbeat_at: now };
        let (state, due_at) = next(State::Active, &times, now);
        debug_assert_eq!(state, State::Active);
        let update = format!(
            "UPDATE registrations
             SET state = 2, since = $1, heartbeat_at = $1, due_at = $2, statement = $3,
                 claims = NULL, code_mac = NULL, {PUBLISH}
             WHERE id = $4"
        );
        sqlx::query(made(update))
            .bind(bigint(now))
            .bind(bigint(due_at.unwrap_or(now)))
            .bind(statement.as_str())
            .bind(id)
            .execute(&mut *db)
            .await?;
        if self.settings.is_logged {
            enqueue(&mut *db, id, &statement, now).await?;
        }
        let counted = Counted {
            what: Count::Entered,
            sii: mapping.sub.clone(),
            sii_mac: sii_mac.to_owned(),
            channel: channel_of(mapping.proof),
            purpose: mapping.purpose,
        };
        let done = Done::json(200, &Proved { statement: &statement });
        let done = done.with(replaced.0, replaced.1).with(Transition::Active, 1);
        Ok(Done { counted: Some(counted), ..done })
    }

    /// The time up to which consents count no more: that of the latest withdrawal or new holder of
    /// the identifier, and of the mapping at the same application provider.
    async fn floor(
        &self,
        db: &mut AnyConnection,
        caller: &Caller<'_>,
        sii_mac: &str,
        others: &[InForce],
    ) -> Result<Option<u64>, Failed> {
        let query = "SELECT MAX(at) FROM tombstones WHERE sii_mac = $1";
        let row = sqlx::query(query).bind(sii_mac).fetch_one(db).await?;
        let buried = row.try_get::<Option<i64>, _>(0)?.map(unsigned);
        let own = others.iter().filter(|other| other.ap == caller.ap).map(|other| other.iat).max();
        Ok(buried.max(own))
    }

    /// The signed mapping, which the directory has to allow as anyone reads it.
    fn issue(&self, mapping: &Mapping, directory: &Directory, now: u64) -> Result<String, Problem> {
        let statement = mapping.sign(&self.settings.signing_key);
        match Statement::read(&statement, directory, now) {
            Ok(_) => Ok(statement),
            Err(refusal) => {
                tracing::error!(code = %refusal.code, "the directory does not allow a mapping");
                let found = "a mapping that the directory no longer allows";
                let expected = "the same request later, or a new registration";
                Err(Problem::new(503, "not_issued", found, expected).retry_after(60))
            }
        }
    }

    /// Ends what a new mapping stands in place of: that of the same application provider, and where
    /// the number has a new holder every other one. Says what became of how many.
    #[allow(clippy::too_many_arguments)] // Each is another kind.
    async fn replace(
        &self,
        db: &mut AnyConnection,
        caller: &Caller<'_>,
        id: &str,
        mapping: &Mapping,
        sii_mac: &str,
        others: &[InForce],
        now: u64,
    ) -> Result<(Transition, u64), Failed> {
        let mut void_until = mapping.iat;
        let mut superseded = 0;
        for other in others {
            if mapping.new_holder {
                end(&mut *db, &other.id, State::Voided, now).await?;
                void_until = void_until.max(other.iat);
            } else if other.ap == caller.ap {
                let same_key =
                    mapping.user.map(|user| user.key) == other.mapping()?.user.map(|u| u.key);
                if same_key {
                    let update = "UPDATE preferences SET registration = $1
                        WHERE registration = $2 AND ended_at = 0";
                    sqlx::query(update).bind(id).bind(other.id.as_str()).execute(&mut *db).await?;
                }
                end(&mut *db, &other.id, State::Superseded, now).await?;
                superseded += 1;
            }
        }
        if mapping.new_holder {
            // Consents of the holder before, whoever has one.
            bury(&mut *db, sii_mac, State::Voided, void_until).await?;
            return Ok((Transition::Voided, others.len() as u64));
        }
        Ok((Transition::Superseded, superseded))
    }
}

/// Takes a try of a pending registration, before anything is compared: so however many guess at
/// once, no more than five codes are compared.
async fn take_try(db: &mut AnyConnection, id: &str, now: u64) -> Result<Option<Try>, Failed> {
    let update = "UPDATE registrations SET tries_left = tries_left - 1
        WHERE id = $1 AND state IN (0, 1) AND tries_left > 0 AND code_expires_at > $2
        RETURNING code_mac, claims, tries_left";
    let row = sqlx::query(update).bind(id).bind(bigint(now)).fetch_optional(db).await?;
    let Some(row) = row else { return Ok(None) };
    let broken = StoreError::Row("a pending registration without code or claims");
    match (row.try_get(0)?, row.try_get(1)?) {
        (Some(code_mac), Some(claims)) => {
            Ok(Some(Try { code_mac, claims, tries_left: unsigned(row.try_get(2)?) }))
        }
        _ => Err(broken.into()),
    }
}

async fn wrong(
    db: &mut AnyConnection,
    id: &str,
    tries_left: u64,
    now: u64,
) -> Result<Done, Failed> {
    let failed = u64::from(tries_left == 0);
    if failed > 0 {
        end(db, id, State::Failed, now).await?;
    }
    let expected = "the code of the newest message; after that a new registration";
    let problem = Problem::new(409, "wrong_code", "another code than the one sent", expected);
    let refusal = Done::refusal(&problem.with("tries_left", tries_left));
    Ok(refusal.with(Transition::WrongCode, 1).with(Transition::Failed, failed))
}

/// Why no code of a registration is awaited.
pub(crate) async fn explain(db: &mut AnyConnection, id: &str, now: u64) -> Result<Problem, Failed> {
    let query = "SELECT state, code_expires_at FROM registrations WHERE id = $1";
    let Some(row) = sqlx::query(query).bind(id).fetch_optional(db).await? else {
        return Ok(unknown());
    };
    let state = from_number(row.try_get(0)?).ok_or(StoreError::Row("a state"))?;
    let expires_at = unsigned(row.try_get(1)?);
    let gone = |code, found: &str| Problem::new(410, code, found, "a new registration");
    Ok(match state {
        State::Failed => {
            gone("failed", &format!("a registration with {CODE_TRIES} wrong codes, or a late one"))
        }
        State::Expired => gone("expired", "a registration whose code has expired"),
        state if is_pending(state) && expires_at <= now => {
            gone("expired", "a registration whose code has expired")
        }
        State::Superseded => gone("expired", "a registration that a newer one has replaced"),
        _ => {
            let found = "a registration whose code is not awaited";
            Problem::new(409, "state", found, "a registration that is requested or sent")
        }
    })
}
