//! A database as a device knows it in one session: its pins, parameters and hints.

use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard};

use super::errors::{ResolveError, StateError};
use super::exchange::{Exchange, Fetched};
use super::state::DatabaseState;
use crate::client::device::Known;
use crate::client::{OperatorKey, Pins, PinsError};
use crate::discovery::directory::{Database, Log};
use crate::discovery::log::proof::FILE_BYTES_MAX;
use crate::discovery::log::{LogError, LogKey, Pinned, accept, advance, parameters_digest};
use crate::limits::PARAMETERS_REPLY_BYTES_MAX;
use crate::wire::message::{PirParameterResponse, ReplyBody};
use crate::wire::{
    Bytes, FRAME_HEAD_BYTES_MAX, PublicParameters, Status, decode_reply, reply_head,
};

const WHAT: &str = "request for parameters";
const PROOFS: &str = "request for the proof of an epoch";

/// A database that is asked. Tasks share it.
pub(super) struct Held {
    pub(super) name: String,
    known: RwLock<Known>,
    /// The body of the newest parameters; empty before the first ones.
    body: Mutex<Bytes>,
    /// The log that its epochs have to be in; none where the directory names none.
    log: RwLock<Option<Log>>,
    /// What was verified of it.
    pinned: Mutex<Option<Pinned>>,
}

impl Held {
    /// Begins with what the directory says of the database and with what was kept of it.
    pub(super) fn new(
        entry: &Database,
        kept: &DatabaseState,
        pack_records_min: u64,
    ) -> Result<Self, ResolveError> {
        let pins = pins(entry, kept)
            .map_err(|error| ResolveError::Pins { database: entry.id.clone(), error })?;
        Ok(Self {
            name: entry.id.clone(),
            known: RwLock::new(Known::new(pins, pack_records_min)),
            body: Mutex::new(Bytes::copy_from_slice(&kept.parameters)),
            log: RwLock::new(entry.log.clone()),
            pinned: Mutex::new(pinned(entry, kept)?),
        })
    }

    /// Refuses a directory that contradicts what is known here.
    pub(super) fn check(&self, entry: &Database) -> Result<(), ResolveError> {
        let joined = named_by(entry).and_then(|named| named.join(self.known().pins().clone()));
        let failed = |error| ResolveError::Pins { database: self.name.clone(), error };
        drop(joined.map_err(failed)?);
        let mut log = self.log.write().unwrap_or_else(PoisonError::into_inner);
        // A log that was named once is not left out later.
        if entry.log.is_none() && self.pinned().is_some() {
            let error = LogError::KeyChanged;
            return Err(ResolveError::Log { database: self.name.clone(), error });
        }
        log.clone_from(&entry.log);
        Ok(())
    }

    fn pinned(&self) -> Option<Pinned> {
        self.pinned.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What is known, for as long as no parameters are accepted.
    pub(super) fn known(&self) -> RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn body(&self) -> Bytes {
        self.body.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Fetches the parameters where they are other than those here, and checks them in any case:
    /// they may have expired.
    pub(super) async fn refresh(&self, exchange: &Exchange) -> Result<(), ResolveError> {
        let path = format!("/databases/{}/parameters", self.name);
        let held = self.body();
        let max = PARAMETERS_REPLY_BYTES_MAX;
        let fetched = exchange.get(WHAT, &path, &held, max).await?;
        let body = fetched.unwrap_or(held);
        let reply = decode(body.clone())?;
        let pinned = self.prove(exchange, &reply).await?;
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known
            .accept(&reply, exchange.now())
            .map_err(|error| ResolveError::Parameters { database: self.name.clone(), error })?;
        *self.body.lock().unwrap_or_else(PoisonError::into_inner) = body;
        *self.pinned.lock().unwrap_or_else(PoisonError::into_inner) = pinned;
        Ok(())
    }

    /// Verifies that the parameters are in the log that the directory names, if it names one:
    /// fetches the proofs where the parameters are others than those that were verified last, which
    /// is the same for everybody.
    async fn prove(
        &self,
        exchange: &Exchange,
        reply: &PirParameterResponse,
    ) -> Result<Option<Pinned>, ResolveError> {
        let failed = |error| ResolveError::Log { database: self.name.clone(), error };
        let log = self.log.read().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(log) = log else { return Ok(None) };
        let log = LogKey::new(&log.name, &log.key.to_bytes()).map_err(failed)?;
        let parameters = &reply.parameters[..];
        let epoch = PublicParameters::decode(parameters)
            .map(|it| it.epoch())
            .map_err(|error| ResolveError::Reply { what: WHAT, problem: error.to_string() })?;
        let (pinned, digest) = (self.pinned(), parameters_digest(parameters));
        let is_held = |pinned: &Pinned| pinned.digest == digest && pinned.key == log.bytes();
        if pinned.as_ref().is_some_and(is_held) {
            return Ok(pinned);
        }
        let path = format!("/databases/{}/proof", self.name);
        let file = exchange.get(PROOFS, &path, &[], FILE_BYTES_MAX).await?.unwrap_or_default();
        let mut pinned = pinned;
        loop {
            let accepted = accept(pinned.as_ref(), &file, &self.name, (epoch, &digest), &log);
            let (Err(gap @ LogError::Gap { .. }), Some(seen)) = (&accepted, &pinned) else {
                return accepted.map(Some).map_err(failed);
            };
            // This device was away for longer than the file covers: it goes on from where it was.
            let path = format!("/databases/{}/proof/{}", self.name, seen.size);
            let older = exchange.get_if_there(PROOFS, &path, &[], FILE_BYTES_MAX).await?;
            let Fetched::Other(older) = older else { return Err(failed(gap.clone())) };
            pinned = Some(advance(seen, &older, &self.name, &log).map_err(failed)?);
        }
    }

    /// Writes down what is to be kept.
    pub(super) fn write_to(&self, kept: &mut DatabaseState) {
        let pins = serde_json::to_string(self.known().pins());
        kept.pins = pins.expect("this is a bug: pins that are no JSON");
        kept.log = self.pinned().map_or_else(String::new, |pinned| {
            serde_json::to_string(&pinned).expect("this is a bug: a pin that is no JSON")
        });
        let body = self.body();
        if kept.parameters != body {
            kept.parameters = body.to_vec();
        }
    }
}

/// What was kept of the log. It is not forgotten when the directory names none any more.
fn pinned(entry: &Database, kept: &DatabaseState) -> Result<Option<Pinned>, ResolveError> {
    if kept.log.is_empty() {
        return Ok(None);
    }
    let pinned = serde_json::from_str(&kept.log)
        .map_err(|_| StateError::Content("what was verified of a log cannot be read"))?;
    match entry.log {
        Some(_) => Ok(Some(pinned)),
        None => {
            let error = LogError::KeyChanged;
            Err(ResolveError::Log { database: entry.id.clone(), error })
        }
    }
}

/// The pins that follow from the directory alone.
fn named_by(entry: &Database) -> Result<Pins, PinsError> {
    Pins::operator(OperatorKey(entry.operator_key.to_bytes())).for_database(&entry.id)
}

fn pins(entry: &Database, kept: &DatabaseState) -> Result<Pins, PinsError> {
    let named = named_by(entry)?;
    if kept.pins.is_empty() {
        return Ok(named);
    }
    let stored: Pins = serde_json::from_str(&kept.pins)
        .map_err(|_| PinsError::Name("the pins in the state cannot be read".into()))?;
    named.join(stored)
}

/// The parameters in the body of a reply, which is one frame.
fn decode(body: Bytes) -> Result<PirParameterResponse, ResolveError> {
    let refuse = |problem: String| ResolveError::Reply { what: WHAT, problem };
    let head = reply_head(&body[..body.len().min(FRAME_HEAD_BYTES_MAX)], None)
        .map_err(|error| refuse(error.to_string()))?
        .filter(|head| head.frame_bytes == body.len())
        .ok_or_else(|| refuse(format!("{} bytes that are not one frame", body.len())))?;
    let reply = decode_reply(&head, body, None).map_err(|error| refuse(error.to_string()))?;
    match reply.body {
        Some(ReplyBody::Parameters(reply))
            if reply.response_status == Status::SchemeMatched.code() =>
        {
            Ok(reply)
        }
        _ => Err(refuse("it holds no parameters".into())),
    }
}
