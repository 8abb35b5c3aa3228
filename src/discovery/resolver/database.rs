//! A database as a device knows it in one session: its pins, parameters and hints.

use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard};

use super::errors::ResolveError;
use super::exchange::Exchange;
use super::state::DatabaseState;
use crate::client::device::Known;
use crate::client::{OperatorKey, Pins, PinsError};
use crate::discovery::directory::Database;
use crate::limits::PARAMETERS_REPLY_BYTES_MAX;
use crate::wire::message::{PirParameterResponse, ReplyBody};
use crate::wire::{Bytes, FRAME_HEAD_BYTES_MAX, Status, decode_reply, reply_head};

const WHAT: &str = "request for parameters";

/// A database that is asked. Tasks share it.
pub(super) struct Held {
    pub(super) name: String,
    known: RwLock<Known>,
    /// The body of the newest parameters; empty before the first ones.
    body: Mutex<Bytes>,
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
        })
    }

    /// Refuses a directory that contradicts what is known here.
    pub(super) fn check(&self, entry: &Database) -> Result<(), ResolveError> {
        let joined = named_by(entry).and_then(|named| named.join(self.known().pins().clone()));
        let failed = |error| ResolveError::Pins { database: self.name.clone(), error };
        joined.map(drop).map_err(failed)
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
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known
            .accept(&reply, exchange.now())
            .map_err(|error| ResolveError::Parameters { database: self.name.clone(), error })?;
        *self.body.lock().unwrap_or_else(PoisonError::into_inner) = body;
        Ok(())
    }

    /// Writes down what is to be kept.
    pub(super) fn write_to(&self, kept: &mut DatabaseState) {
        let pins = serde_json::to_string(self.known().pins());
        kept.pins = pins.expect("this is a bug: pins that are no JSON");
        let body = self.body();
        if kept.parameters != body {
            kept.parameters = body.to_vec();
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
