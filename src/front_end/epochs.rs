//! What is known of a database's epochs: parameters that the operator signed, as devices get them.
//!
//! Each answer server shows its own parameters, which its connection has checked. Here they are
//! compared with those of the others: one epoch has one set of parameters, the seed never changes,
//! and what devices are given never becomes older.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use crate::client::{Pins, PinsError};
use crate::limits;
use crate::wire::message::{PirParameterResponse, Reply, ReplyBody};
use crate::wire::{
    Bytes, HINT_DIGEST_BYTES, PIR_SCHEME_SOTTO_2, PROTOCOL_VERSION, PublicParameters, Status,
    encode_frame,
};

/// The digest of a shard's hint.
pub(super) type HintDigest = [u8; HINT_DIGEST_BYTES];

/// One epoch of a database.
pub(super) struct Epoch {
    pub(super) parameters: PublicParameters,
    digests: Bytes,
    /// The frame that devices get: parameters, signature and hint digests.
    pub(super) body: Bytes,
}

impl Epoch {
    /// The signed digest of a shard's hint; none where there is no such shard.
    pub(super) fn digest(&self, shard: u32) -> Option<HintDigest> {
        self.digests.chunks_exact(HINT_DIGEST_BYTES).nth(shard as usize)?.try_into().ok()
    }
}

/// The newest epochs of a database.
pub(super) struct Epochs(RwLock<State>);

struct State {
    pins: Pins,
    held: BTreeMap<u64, Arc<Epoch>>,
}

impl Epochs {
    /// Of a database of which these are the pins.
    pub(super) fn new(pins: Pins) -> Self {
        Self(RwLock::new(State { pins, held: BTreeMap::new() }))
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest epoch; none before a server showed one.
    pub(super) fn newest(&self) -> Option<Arc<Epoch>> {
        self.state().held.values().next_back().cloned()
    }

    /// The number of the newest epoch; 0 before there is one.
    pub(super) fn newest_number(&self) -> u64 {
        self.state().held.keys().next_back().copied().unwrap_or(0)
    }

    /// One epoch, if it is among the newest.
    pub(super) fn get(&self, epoch: u64) -> Option<Arc<Epoch>> {
        self.state().held.get(&epoch).cloned()
    }

    /// Takes what a connection to a server has checked: its pins, and the parameters in use with
    /// the reply that they came in.
    ///
    /// # Errors
    /// They contradict those of another server.
    pub(super) fn accept(
        &self,
        pins: &Pins,
        parameters: &PublicParameters,
        signed: &PirParameterResponse,
    ) -> Result<(), PinsError> {
        let number = parameters.epoch();
        if let Some(known) = self.get(number)
            && known.parameters == *parameters
        {
            return Ok(());
        }
        let mut state = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if state.held.get(&number).is_some_and(|known| known.parameters != *parameters) {
            return Err(PinsError::Forked { epoch: number });
        }
        state.pins = state.pins.clone().join(pins.clone())?;
        let epoch = Epoch {
            parameters: parameters.clone(),
            digests: signed.hint_digests.clone(),
            body: body(signed),
        };
        state.held.insert(number, Arc::new(epoch));
        while state.held.len() > limits::POOL_EPOCHS_MAX {
            state.held.pop_first();
        }
        Ok(())
    }
}

/// The frame that devices get: the same bytes for every device of an epoch, so nothing of a
/// server's reply is in it but what was signed.
fn body(signed: &PirParameterResponse) -> Bytes {
    let reply = PirParameterResponse {
        protocol_version: PROTOCOL_VERSION,
        response_status: Status::SchemeMatched.code(),
        pir_scheme: PIR_SCHEME_SOTTO_2,
        parameters: signed.parameters.clone(),
        signature: signed.signature.clone(),
        hint_digests: signed.hint_digests.clone(),
        ..Default::default()
    };
    encode_frame(&Reply::from(ReplyBody::Parameters(reply))).into()
}
