//! Requests that change something: prepared outside the database, done in one transaction together
//! with the reply, which is kept under its `Idempotency-Key`.

use crate::discovery::directory::{Directory, Proof};
use crate::discovery::identifier::Identifier;
use crate::discovery::jws::base64url;
use crate::discovery::statement::{
    Code, Mapping, Preference, Purpose, Refusal, Statement, Withdrawal,
};
use crate::registrar::Problem;
use crate::registrar::api::{Change, Channel, Outgoing, Reply};
use crate::registrar::fraud::Attempt;
use crate::registrar::store::transaction;
use crate::registrar::store::{Failed, StoreError};
use serde::Serialize;
use sqlx::{AnyConnection, Row as _};

use crate::limits::registrar::{ID_BYTES_MAX, IDEMPOTENCY_KEY_BYTES_MAX};
use crate::registrar::registrations::sql::{bigint, unsigned};
use crate::registrar::registrations::transition::{Transition, Transitions};
use crate::registrar::registrations::{Core, codes};

/// Who sends a request.
#[derive(Debug, Clone, Copy)]
pub struct Caller<'a> {
    /// Domain of the application provider in the directory; of a discovery provider for events.
    pub ap: &'a str,
}

/// What a request is known by when it is sent again.
#[derive(Clone, Copy)]
pub struct Keyed<'a> {
    /// `Idempotency-Key`.
    pub key: &'a str,
    /// SHA-256 of method, path and body.
    pub digest: [u8; 32],
}

/// A request whose form, signatures and remit are right.
pub(crate) enum Prepared {
    Register(Box<Registration>),
    Enter { id: String, code: zeroize::Zeroizing<String> },
    Resend { id: String, code: zeroize::Zeroizing<String> },
    Heartbeats(Vec<String>),
    WithdrawOne(String),
    WithdrawByUser { withdrawal: Withdrawal, sii_mac: String },
    Prefer { preference: Preference, line: String, sii_mac: String },
    Event { mapping: Mapping, sii_mac: String },
}

/// A registration that is to be stored.
pub(crate) struct Registration {
    pub(crate) mapping: Mapping,
    pub(crate) sii_mac: String,
    pub(crate) language: Option<String>,
    pub(crate) code: zeroize::Zeroizing<String>,
}

/// What a request came to.
pub struct Changed {
    /// The reply, which may be a problem.
    pub reply: Reply,
    /// The code that is to be sent.
    pub outgoing: Option<Outgoing>,
    /// What happened to registrations; nothing where a reply is given again.
    pub transitions: Transitions,
}

impl Changed {
    /// The reply to an earlier request.
    fn again(reply: Reply) -> Self {
        Self { reply, outgoing: None, transitions: Vec::new() }
    }
}

/// What a transaction did.
pub(crate) struct Done {
    pub(crate) reply: Reply,
    /// The registration that the reply is about.
    pub(crate) id: Option<String>,
    pub(crate) outgoing: Option<Outgoing>,
    pub(crate) counted: Option<Counted>,
    pub(crate) transitions: Transitions,
}

/// What the rules against fraud are told of at the end of the transaction.
pub(crate) struct Counted {
    pub(crate) what: Count,
    pub(crate) sii: Identifier,
    pub(crate) sii_mac: String,
    pub(crate) channel: Channel,
    pub(crate) purpose: Purpose,
}

#[derive(Clone, Copy)]
pub(crate) enum Count {
    Sent,
    Entered,
}

impl Done {
    /// A reply and nothing else.
    pub(crate) fn json(status: u16, body: &impl Serialize) -> Self {
        let body = serde_json::to_vec(body).unwrap_or_default();
        Self::reply(Reply { status, body, retry_after: None })
    }

    /// A refusal that changed something, and so is kept.
    pub(crate) fn refusal(problem: &Problem) -> Self {
        let body = problem.to_json();
        Self::reply(Reply { status: problem.status, body, retry_after: problem.retry_after })
    }

    fn reply(reply: Reply) -> Self {
        Self { reply, id: None, outgoing: None, counted: None, transitions: Vec::new() }
    }

    /// The same, which happened to so many registrations.
    pub(crate) fn with(mut self, transition: Transition, count: u64) -> Self {
        if count > 0 {
            self.transitions.push((transition, count));
        }
        self
    }
}

impl Core {
    /// Does what a request asks for. The code that is to be sent, if there is one, is handed out
    /// once; whoever sends it says what became of it with [`Core::sent`]. A reply may be a problem:
    /// one that changed something, such as a wrong code, which is kept like any reply.
    ///
    /// # Errors
    /// Why nothing was changed.
    pub async fn change(
        &self,
        caller: &Caller<'_>,
        keyed: &Keyed<'_>,
        change: Change,
        now: u64,
    ) -> Result<Changed, Problem> {
        check_key(keyed.key)?;
        let refusal = match self.prepare(caller, change, now) {
            Ok(prepared) => match self.commit(caller, keyed, &prepared, now).await {
                Ok(done) => return Ok(done),
                Err(failed) => Problem::from(failed),
            },
            Err(problem) => problem,
        };
        if refusal.status >= 500 {
            return Err(refusal);
        }
        // What was right when it came first may be too old or done by now.
        let mut db = self.store.pool().acquire().await.map_err(StoreError::from)?;
        let replayed = replayed(&mut db, caller.ap, keyed).await?;
        replayed.map(Changed::again).ok_or(refusal)
    }

    async fn commit(
        &self,
        caller: &Caller<'_>,
        keyed: &Keyed<'_>,
        prepared: &Prepared,
        now: u64,
    ) -> Result<Changed, Failed> {
        let ended = transaction!(self.store, |db| {
            if let Some(reply) = replayed(&mut *db, caller.ap, keyed).await? {
                return Ok(Changed::again(reply));
            }
            let done = self.apply(&mut *db, caller, prepared, now).await?;
            keep(&mut *db, caller.ap, keyed, &done, now).await?;
            if let Some(counted) = &done.counted {
                self.count(&mut *db, caller, counted, now).await?;
            }
            let Done { reply, outgoing, transitions, .. } = done;
            Ok(Changed { reply, outgoing, transitions })
        });
        ended.await
    }

    fn prepare(&self, caller: &Caller<'_>, change: Change, now: u64) -> Result<Prepared, Problem> {
        match change {
            Change::Register(request) => {
                self.prepare_registration(caller, request, &*self.directory(now)?, now)
            }
            Change::Enter { id, entered } => {
                check_id(&id)?;
                let code = zeroize::Zeroizing::new(entered.code);
                match codes::is_code(&code) {
                    true => Ok(Prepared::Enter { id, code }),
                    false => Err(malformed("a code of another form", "six digits")),
                }
            }
            Change::Resend { id } => {
                check_id(&id)?;
                Ok(Prepared::Resend { id, code: codes::generate()? })
            }
            Change::Heartbeats(heartbeats) => self.prepare_heartbeats(heartbeats),
            Change::Withdraw(request) => self.prepare_withdrawal(request, now),
            Change::Prefer(request) => self.prepare_preference(&request, now),
            Change::Event(request) => {
                self.prepare_event(caller, &request, &*self.directory(now)?, now)
            }
        }
    }

    async fn apply(
        &self,
        db: &mut AnyConnection,
        caller: &Caller<'_>,
        prepared: &Prepared,
        now: u64,
    ) -> Result<Done, Failed> {
        match prepared {
            Prepared::Register(registration) => self.register(db, caller, registration, now).await,
            Prepared::Enter { id, code } => self.enter(db, caller, id, code, now).await,
            Prepared::Resend { id, code } => self.resend(db, caller, id, code, now).await,
            Prepared::Heartbeats(ids) => self.heartbeats(db, caller, ids, now).await,
            Prepared::WithdrawOne(id) => self.withdraw_one(db, caller, id, now).await,
            Prepared::WithdrawByUser { withdrawal, sii_mac } => {
                self.withdraw_by_user(db, withdrawal, sii_mac, now).await
            }
            Prepared::Prefer { preference, line, sii_mac } => {
                self.prefer(db, caller, preference, line, sii_mac, now).await
            }
            Prepared::Event { mapping, sii_mac } => self.event(db, mapping, sii_mac, now).await,
        }
    }

    /// The last step, for it locks counters that other identifiers share.
    async fn count(
        &self,
        db: &mut AnyConnection,
        caller: &Caller<'_>,
        counted: &Counted,
        now: u64,
    ) -> Result<(), Failed> {
        let Counted { what, sii, sii_mac, channel, purpose } = counted;
        let (channel, purpose) = (*channel, *purpose);
        let attempt = Attempt { ap: caller.ap, sii, sii_mac, channel, purpose };
        match what {
            Count::Sent => self.fraud.admit(db, &attempt, now).await,
            Count::Entered => self.fraud.entered(db, &attempt, now).await,
        }
    }

    /// Reads a statement that somebody sent.
    pub(crate) fn read(
        &self,
        line: &str,
        directory: &Directory,
        now: u64,
    ) -> Result<Statement, Problem> {
        Statement::read(line, directory, now).map_err(|refusal| refused(&refusal))
    }
}

/// The reply to an earlier request with this key.
async fn replayed(
    db: &mut AnyConnection,
    ap: &str,
    keyed: &Keyed<'_>,
) -> Result<Option<Reply>, Failed> {
    let query = "SELECT digest, status, body, retry_after FROM replies WHERE ap = $1 AND key = $2";
    let query = sqlx::query(query).bind(ap).bind(keyed.key);
    let Some(row) = query.fetch_optional(db).await? else { return Ok(None) };
    if row.try_get::<String, _>(0)? != base64url(&keyed.digest) {
        let found = "an Idempotency-Key that stands for another request";
        return Err(Problem::new(422, "idempotency_key", found, "a key of its own").into());
    }
    let status = u16::try_from(row.try_get::<i64, _>(1)?).unwrap_or(500);
    let body = row.try_get::<String, _>(2)?.into_bytes();
    let retry_after = row.try_get::<Option<i64>, _>(3)?.map(unsigned);
    Ok(Some(Reply { status, body, retry_after }))
}

async fn keep(
    db: &mut AnyConnection,
    ap: &str,
    keyed: &Keyed<'_>,
    done: &Done,
    now: u64,
) -> Result<(), Failed> {
    let insert = "INSERT INTO replies
        (ap, key, digest, status, body, retry_after, registration, at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (ap, key) DO NOTHING";
    let Reply { status, body, retry_after } = &done.reply;
    let kept = sqlx::query(insert)
        .bind(ap)
        .bind(keyed.key)
        .bind(base64url(&keyed.digest))
        .bind(i64::from(*status))
        .bind(String::from_utf8_lossy(body).into_owned())
        .bind(retry_after.map(bigint))
        .bind(done.id.clone())
        .bind(bigint(now))
        .execute(db)
        .await?;
    match kept.rows_affected() {
        // The same request, sent twice at once: what this one did is undone, and it gets the reply.
        0 => Err(Failed::Again),
        _ => Ok(()),
    }
}

fn check_key(key: &str) -> Result<(), Problem> {
    let is_text = key.bytes().all(|byte| byte.is_ascii_graphic());
    if is_text && (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&key.len()) {
        return Ok(());
    }
    let expected =
        format!("Idempotency-Key: 1 to {IDEMPOTENCY_KEY_BYTES_MAX} visible ASCII characters");
    Err(Problem::new(400, "idempotency_key", format!("{} bytes or others", key.len()), expected))
}

/// Refuses what is no name of a registration as an unknown one.
pub(crate) fn check_id(id: &str) -> Result<(), Problem> {
    let is_name = id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    if is_name && (1..=ID_BYTES_MAX).contains(&id.len()) { Ok(()) } else { Err(unknown()) }
}

/// The same for a registration that there is not and for one of another application provider.
pub(crate) fn unknown() -> Problem {
    let expected = "the id of a registration of this application provider that is not erased";
    Problem::new(404, "unknown", "no such registration", expected)
}

pub(crate) fn malformed(found: &str, expected: &str) -> Problem {
    Problem::new(422, "malformed", found, expected)
}

/// Why a statement is refused, as the client is told.
pub(crate) fn refused(refusal: &Refusal) -> Problem {
    let status = match refusal.code {
        Code::OutOfRemit | Code::UnknownProvider | Code::UnknownIssuer | Code::WeakProof => 403,
        _ => 422,
    };
    let (found, expected) = (refusal.found.clone(), refusal.expected.clone());
    Problem::new(status, refusal.code.as_str(), found, expected)
}

/// How a code was sent, by the proof that it is.
pub(crate) fn channel_of(proof: Proof) -> Channel {
    match proof {
        Proof::Call => Channel::Call,
        Proof::Email => Channel::Email,
        Proof::Sms | Proof::SelfDeclared => Channel::Sms,
    }
}
