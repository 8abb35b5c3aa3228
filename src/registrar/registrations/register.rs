//! New registrations, further codes, and what became of a message.

use crate::discovery::directory::{Directory, Proof};
use crate::discovery::identifier::Identifier;
use crate::discovery::jws::from_base64url;
use crate::discovery::statement::{Consent, Mapping, Purpose, Ssi};
use crate::limits::MAPPING_SECONDS_MAX;
use crate::registrar::Problem;
use crate::registrar::api::{Accepted, Channel, NewRegistration, Outgoing};
use crate::registrar::store::{Failed, StoreError};
use sqlx::{AnyConnection, Row as _};

use crate::limits::registrar::{
    CLOCK_SECONDS_MAX, CODE_SECONDS, CODE_TRIES, CODES_A_DAY, CODES_AN_HOUR, ERASE_SECONDS,
    LANGUAGE_BYTES_MAX, RESEND_SECONDS,
};
use crate::registrar::registrations::change::{
    Caller, Count, Counted, Done, Prepared, Registration, channel_of, malformed, refused, unknown,
};
use crate::registrar::registrations::sql::{
    bigint, count_code, lock_sii_of, stored_mapping, unsigned,
};
use crate::registrar::registrations::transition::Transition;
use crate::registrar::registrations::{Core, codes};

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// A gateway has accepted it.
    Accepted,
    /// No gateway took it: another may be asked for at once.
    Refused,
}

impl Core {
    /// Checks everything about a request that does not depend on what is stored: above all that the
    /// user agreed, before anything is paid for.
    pub(crate) fn prepare_registration(
        &self,
        caller: &Caller<'_>,
        request: NewRegistration,
        directory: &Directory,
        now: u64,
    ) -> Result<Prepared, Problem> {
        let sub = Identifier::from_uri(&request.sii).map_err(|_| {
            let expected = "tel: and a number with +, or mailto: and an address in lower case";
            Problem::new(422, "identifier", "an identifier not in canonical form", expected)
        })?;
        let ssi = Ssi::parse(&request.ssi).map_err(|refusal| refused(&refusal))?;
        if ssi.domain() != caller.ap {
            let expected = format!("an SSI of {}", caller.ap);
            return Err(Problem::new(403, "ssi_domain", "an SSI of another domain", expected));
        }
        let proof = proof_of(request.channel, &sub)?;
        check_language(request.language.as_deref())?;
        check_clock(request.iat, now)?;
        self.check_home(directory, &sub)?;
        let mapping = Mapping {
            iss: self.settings.iss.clone(),
            ssi,
            jti: codes::name()?,
            iat: request.iat,
            exp: request.iat + MAPPING_SECONDS_MAX,
            proof,
            proof_at: request.iat,
            region: self.settings.region.clone(),
            new_holder: request.new_holder,
            tags: Vec::new(),
            user: Some(consent(&request)?),
            purpose: request.purpose,
            sub,
        };
        let issuer = mapping.check(directory, now).map_err(|refusal| refused(&refusal))?;
        mapping.verify_consent().map_err(|refusal| refused(&refusal))?;
        let kid = crate::discovery::jws::key_id(&self.settings.signing_key.verifying_key());
        if issuer.key(&kid, mapping.iat).is_none() {
            tracing::error!(
                "the directory gives this issuer another key than the one it signs with"
            );
            let found = "an issuer whose key the directory does not have";
            let expected = "the same request, once the directory has it";
            return Err(Problem::new(503, "issuer_key", found, expected).retry_after(60));
        }
        let sii_mac = self.settings.sii_mac(&mapping.sub);
        let (language, code) = (request.language, codes::generate()?);
        Ok(Prepared::Register(Box::new(Registration { mapping, sii_mac, language, code })))
    }

    /// Stores a registration. A pending one of the same identifier, application provider and
    /// purpose ends: only the newest code works.
    pub(crate) async fn register(
        &self,
        db: &mut AnyConnection,
        caller: &Caller<'_>,
        registration: &Registration,
        now: u64,
    ) -> Result<Done, Failed> {
        let Registration { mapping, sii_mac, language, code } = registration;
        check_rate(count_code(&mut *db, sii_mac, now).await?)?;
        let purpose = purpose_number(mapping.purpose);
        let end = "UPDATE registrations
            SET state = 9, since = $1, due_at = $2, claims = NULL, code_mac = NULL
            WHERE sii_mac = $3 AND ap = $4 AND purpose = $5 AND state IN (0, 1)";
        let ended = sqlx::query(end)
            .bind(bigint(now))
            .bind(bigint(now + ERASE_SECONDS))
            .bind(sii_mac.as_str())
            .bind(caller.ap)
            .bind(purpose)
            .execute(&mut *db)
            .await?;
        let insert = "INSERT INTO registrations
            (id, ap, sii_mac, region, purpose, language, claims, state, since, due_at, iat, exp,
             code_mac, code_expires_at, tries_left, resend_at)
            VALUES ($1, $2, $3, $4, $5, $6, $7, 0, $8, $9, $10, $11, $12, $9, $13, $14)";
        let (expires_at, resend_after) = (now + CODE_SECONDS, now + RESEND_SECONDS[0]);
        let id = &mapping.jti;
        sqlx::query(insert)
            .bind(id.as_str())
            .bind(caller.ap)
            .bind(sii_mac.as_str())
            .bind(mapping.region.clone().unwrap_or_default())
            .bind(purpose)
            .bind(language.clone())
            .bind(mapping.to_claims())
            .bind(bigint(now))
            .bind(bigint(expires_at))
            .bind(bigint(mapping.iat))
            .bind(bigint(mapping.exp))
            .bind(self.settings.code_mac(id, code))
            .bind(bigint(CODE_TRIES))
            .bind(bigint(resend_after))
            .execute(&mut *db)
            .await?;
        let accepted = Accepted { id: id.clone(), expires_at, resend_after };
        let done = on_its_way(caller, mapping, sii_mac, language.clone(), code, &accepted);
        let done = done.with(Transition::Superseded, ended.rows_affected());
        Ok(done.with(Transition::Requested, 1))
    }

    /// Makes another code for a pending registration, which ends the one before.
    pub(crate) async fn resend(
        &self,
        db: &mut AnyConnection,
        caller: &Caller<'_>,
        id: &str,
        code: &zeroize::Zeroizing<String>,
        now: u64,
    ) -> Result<Done, Failed> {
        // The registration first, so that one that is over counts no code. Both are undone where
        // too many were sent.
        let sii_mac = lock_sii_of(&mut *db, id, caller.ap).await?.ok_or_else(unknown)?;
        let row = self.pending(&mut *db, id, now).await?;
        let resend_at = unsigned(row.try_get(3)?);
        if now < resend_at {
            let expected = "another code later; the one before still works";
            let problem = Problem::new(429, "resend_later", "a code asked for too soon", expected);
            return Err(problem.retry_after(resend_at - now).into());
        }
        check_rate(count_code(&mut *db, &sii_mac, now).await?)?;
        let claims: String = row.try_get::<Option<String>, _>(0)?.unwrap_or_default();
        let language: Option<String> = row.try_get(1)?;
        let resends = usize::try_from(row.try_get::<i64, _>(2)?).unwrap_or(usize::MAX);
        let mapping = stored_mapping(&claims)?;
        let wait = RESEND_SECONDS[resends.saturating_add(1).min(RESEND_SECONDS.len() - 1)];
        let (expires_at, resend_after) = (now + CODE_SECONDS, now + wait);
        let update = "UPDATE registrations
            SET state = 0, since = $1, due_at = $2, code_expires_at = $2, code_mac = $3,
                tries_left = $4, resends = resends + 1, resend_at = $5
            WHERE id = $6";
        sqlx::query(update)
            .bind(bigint(now))
            .bind(bigint(expires_at))
            .bind(self.settings.code_mac(id, code))
            .bind(bigint(CODE_TRIES))
            .bind(bigint(resend_after))
            .bind(id)
            .execute(&mut *db)
            .await?;
        let accepted = Accepted { id: id.to_owned(), expires_at, resend_after };
        let done = on_its_way(caller, &mapping, &sii_mac, language, code, &accepted);
        Ok(done.with(Transition::Resent, 1))
    }

    /// Notes what became of the message with the code of a registration. What is not awaited any
    /// more stays as it is.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn sent(&self, id: &str, outcome: Outcome, now: u64) -> Result<(), Problem> {
        let update = match outcome {
            Outcome::Accepted => {
                "UPDATE registrations SET state = 1, since = $2 WHERE id = $1 AND state = 0"
            }
            Outcome::Refused => {
                "UPDATE registrations SET resend_at = $2
                 WHERE id = $1 AND state = 0 AND resend_at > $2"
            }
        };
        let update = sqlx::query(update).bind(id).bind(bigint(now));
        update.execute(self.store.pool()).await.map_err(StoreError::from)?;
        Ok(())
    }

    /// Claims, language, resends and time of the next code of a registration whose code is awaited.
    async fn pending(
        &self,
        db: &mut AnyConnection,
        id: &str,
        now: u64,
    ) -> Result<sqlx::any::AnyRow, Failed> {
        let find = "SELECT claims, language, resends, resend_at FROM registrations
            WHERE id = $1 AND state IN (0, 1) AND code_expires_at > $2";
        let query = sqlx::query(find).bind(id).bind(bigint(now));
        match query.fetch_optional(&mut *db).await? {
            Some(row) => Ok(row),
            None => Err(crate::registrar::registrations::enter::explain(db, id, now).await?.into()),
        }
    }
}

/// The reply to a request for a code, the code, and its count.
fn on_its_way(
    caller: &Caller<'_>,
    mapping: &Mapping,
    sii_mac: &str,
    language: Option<String>,
    code: &zeroize::Zeroizing<String>,
    accepted: &Accepted,
) -> Done {
    let (channel, purpose) = (channel_of(mapping.proof), mapping.purpose);
    let counted = Counted {
        what: Count::Sent,
        sii: mapping.sub.clone(),
        sii_mac: sii_mac.to_owned(),
        channel,
        purpose,
    };
    let outgoing = Outgoing {
        id: accepted.id.clone(),
        ap: caller.ap.to_owned(),
        to: mapping.sub.clone(),
        channel,
        purpose,
        language,
        code: code.clone(),
    };
    let done = Done::json(202, accepted);
    Done { id: Some(accepted.id.clone()), outgoing: Some(outgoing), counted: Some(counted), ..done }
}

pub(crate) fn purpose_number(purpose: Purpose) -> i64 {
    match purpose {
        Purpose::Register => 0,
        Purpose::Prefer => 1,
    }
}

fn check_rate(wait: Option<u64>) -> Result<(), Problem> {
    let Some(wait) = wait else { return Ok(()) };
    let found = "too many codes for one identifier";
    let expected =
        format!("at most {CODES_AN_HOUR} codes an hour and {CODES_A_DAY} a day, whoever asks");
    Err(Problem::new(429, "too_many_codes", found, expected).retry_after(wait))
}

/// What a code proves that is sent in this way.
fn proof_of(channel: Channel, sii: &Identifier) -> Result<Proof, Problem> {
    match (channel, sii.digits()) {
        (Channel::Sms, Some(_)) => Ok(Proof::Sms),
        (Channel::Call, Some(_)) => Ok(Proof::Call),
        (Channel::Email, None) => Ok(Proof::Email),
        _ => {
            let found = "a channel that does not reach such an identifier";
            Err(Problem::new(422, "channel", found, "sms or call for numbers, email for addresses"))
        }
    }
}

fn check_language(language: Option<&str>) -> Result<(), Problem> {
    let is_tag = |text: &str| {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        (1..=LANGUAGE_BYTES_MAX).contains(&text.len()) && text.bytes().all(inner)
    };
    match language {
        Some(text) if !is_tag(text) => Err(malformed("another language", "a tag such as de")),
        _ => Ok(()),
    }
}

pub(crate) fn check_clock(iat: u64, now: u64) -> Result<(), Problem> {
    let apart = now.abs_diff(iat);
    if apart <= CLOCK_SECONDS_MAX {
        return Ok(());
    }
    let side = if iat < now { "before" } else { "after" };
    let found = format!("iat {apart} seconds {side} now");
    let expected = format!("at most {CLOCK_SECONDS_MAX} seconds; check both clocks, and sign anew");
    Err(Problem::new(422, "clock", found, expected))
}

fn consent(request: &NewRegistration) -> Result<Consent, Problem> {
    let key = from_base64url(&request.uk).and_then(|bytes| bytes.try_into().ok());
    let signature = from_base64url(&request.up).and_then(|bytes| bytes.try_into().ok());
    match (key, signature) {
        (Some(key), Some(signature)) => Ok(Consent { key, signature }),
        _ => Err(malformed(
            "uk or up of another length or alphabet",
            "uk of 32 and up of 64 bytes as base64url without padding",
        )),
    }
}
