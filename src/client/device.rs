//! Look-ups of a device that has no connection to an answer server: it makes the frames of a batch
//! and reads the answers, and others carry them (docs/federation.md). The answers bring one pack of
//! a shard each, so the device's own front-end learns which one.
//!
//! The rule on secrets is kept as in [`super::ask`]: a batch is encrypted whole, its frames are the
//! same bytes however often they are sent, and nothing is decoded before the batch is over. What
//! answers leave to be done ([`Progress`]) depends on their statuses alone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use zeroize::Zeroizing;

use super::ask::Answers;
use super::call::{Brings, Call, Cancelled, View, Wishes};
use super::error::{ClientError, LookupError, ParameterError};
use super::exchange::{frame, parameter_request, query, refused};
use super::hints::HintDigest;
use super::trust::{Pins, Rules};
use crate::keyword::{Outcome, locate};
use crate::limits;
use crate::scheme::{Sharing, hint_digest, hint_digest_of, pack_digest};
use crate::wire::message::{PirBatch, PirParameterResponse, PirRequest, PirResponse, RequestBody};
use crate::wire::{Bytes, HINT_DIGEST_BYTES, PublicParameters, Status};

/// The hint of one pack, or of a whole shard where the pack is `None`, by the shard's digest.
type HeldHints = HashMap<(HintDigest, Option<u32>), Arc<[u8]>>;

/// What a device knows of a database: what it pinned, and the parameters in use.
pub struct Known {
    rules: Rules,
    pack_records_min: u64,
    view: Option<Arc<View>>,
    hints: Arc<Mutex<HeldHints>>,
}

impl Known {
    /// A database that was pinned in an earlier session, or of which the operator's key is known.
    /// Parameters are refused where a pack has fewer expected records than `pack_records_min`
    /// ([`limits::RECORDS_PER_PACK_ACCEPTED_MIN`] unless the user was asked).
    pub fn new(pins: Pins, pack_records_min: u64) -> Self {
        let (rules, hints) = (Rules::new(pins, 0), Arc::default());
        Self { rules, pack_records_min, view: None, hints }
    }

    /// Checks parameters with their signature and the hint digests, and uses them from now on.
    ///
    /// # Errors
    /// Why they must not be used; those before stay in use.
    pub fn accept(&mut self, reply: &PirParameterResponse, now: u64) -> Result<(), ParameterError> {
        let mut rules = self.rules.clone();
        let parameters = rules.accept(reply, now)?;
        let (records, shape) = (parameters.shard_records_min(), parameters.shape());
        let packs = shape.groups_per_pack().map_or(1, |_| shape.packs());
        let (found, expected) = (u64::from(records) / packs as u64, self.pack_records_min);
        if found < expected {
            return Err(ParameterError::TooFewPackRecords { found, expected });
        }
        self.view = Some(Arc::new(View { parameters, digests: reply.hint_digests.clone() }));
        self.rules = rules;
        Ok(())
    }

    /// What to keep for the next session.
    pub fn pins(&self) -> &Pins {
        &self.rules.pins
    }

    /// The parameters in use; none before the first were accepted.
    pub fn parameters(&self) -> Option<&PublicParameters> {
        self.view.as_ref().map(|view| &view.parameters)
    }

    /// The shard of a key, which the front-end and the answer server see.
    pub fn shard(&self, key: &[u8]) -> Option<u32> {
        let parameters = self.parameters()?;
        let groups = parameters.shape().groups() as u32;
        Some(locate(parameters.seed(), key, parameters.shard_count(), groups).shard)
    }
}

/// What is to be done with a batch after its answers came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Every look-up has its answer or is given up: [`DeviceBatch::open`] it.
    Done,
    /// Send the same frames again after this time.
    Again {
        #[expect(missing_docs, reason = "said above")]
        wait: Duration,
    },
    /// After this time fetch parameters and [`DeviceBatch::renew`] the batch, then send it again.
    Refresh {
        #[expect(missing_docs, reason = "said above")]
        wait: Duration,
    },
}

/// The look-ups of one sealed request. Neither Clone nor Debug.
pub struct DeviceBatch {
    keys: Vec<Zeroizing<Vec<u8>>>,
    call: Call,
    hints: Arc<Mutex<HeldHints>>,
    /// As they go out, in the random order of the call's look-ups.
    requests: Vec<PirRequest>,
    /// The hint that each answer will be read with, where it is held.
    held: Vec<Option<Arc<[u8]>>>,
    bundles: Vec<Bytes>,
}

impl DeviceBatch {
    /// Encrypts look-ups of these keys, as many as a batch has. With
    /// [`limits::SHARDS_FOR_ONE_BUNDLE`] shards or more they share a key bundle and have to be in
    /// distinct shards; with fewer each has one of its own. This takes milliseconds of a core.
    ///
    /// # Errors
    /// No parameters are known yet, two keys are in one shard, or secrets cannot be drawn.
    pub fn encrypt(known: &Known, keys: Vec<Zeroizing<Vec<u8>>>) -> Result<Self, ClientError> {
        let view = known.view.clone().ok_or_else(|| ClientError::NoParameters {
            reason: "none were accepted before look-ups were encrypted".into(),
        })?;
        let one_bundle = view.parameters.shard_count() >= limits::SHARDS_FOR_ONE_BUNDLE;
        let sharing = if one_bundle { Sharing::Shared } else { Sharing::Apart };
        let (now, wanted) = (Instant::now(), Cancelled::default());
        let copies = keys.clone();
        let call = Call::encrypt_for(Brings::OnePack, sharing, view, copies, now, &wanted)?;
        let mut batch = Self {
            requests: Vec::new(),
            held: Vec::new(),
            bundles: Vec::new(),
            hints: known.hints.clone(),
            keys,
            call,
        };
        batch.prepare(if one_bundle { 1 } else { batch.keys.len() })?;
        Ok(batch)
    }

    /// Makes the requests and the frames of the bundles.
    fn prepare(&mut self, bundles: usize) -> Result<(), ClientError> {
        let mut uids: Vec<String> = Vec::new();
        for index in 0..self.keys.len() {
            let (prepared, bundle) =
                self.call.query(index).zip(self.call.bundle(index)).ok_or(ClientError::Option {
                    what: "look-up key of a batch",
                    found: "an empty or a long one".into(),
                    expected: "1 to 1024 bytes",
                })?;
            if !uids.iter().any(|uid| uid == bundle.0) {
                uids.push(bundle.0.to_owned());
                self.bundles.push(parameter_request(Some(bundle)));
            }
            let pack = self.call.pack(index).map_or(0, |pack| pack + 1);
            // Two digits, so that all batches have one length.
            let nonce = format!("{index:02}");
            self.requests.push(PirRequest { nonce, pack, ..query(index, prepared, 0) });
        }
        if self.bundles.len() != bundles {
            return Err(ClientError::Option {
                what: "key bundles of a batch",
                found: self.bundles.len().to_string(),
                expected: "look-ups in distinct shards, which take one",
            });
        }
        self.choose_hints();
        Ok(())
    }

    /// Hints are asked for by all queries of a batch or by none.
    fn choose_hints(&mut self) {
        let held = lock(&self.hints);
        let hint = |index| {
            let shard = self.call.shard(index)?;
            let digest = self.call.view().digest(shard);
            held.get(&(digest, self.call.pack(index))).cloned()
        };
        let found: Vec<_> = (0..self.requests.len()).map(hint).collect();
        drop(held);
        let want_hint = found.iter().any(Option::is_none);
        self.held = found;
        for request in &mut self.requests {
            request.want_hint = want_hint;
        }
    }

    /// The frames of the key bundles, which go before [`DeviceBatch::batch`].
    pub fn bundles(&self) -> &[Bytes] {
        &self.bundles
    }

    /// The frame of the queries: the same bytes until the batch is renewed.
    pub fn batch(&self) -> Bytes {
        frame(RequestBody::Batch(PirBatch { requests: self.requests.clone() }))
    }

    /// Takes the answers to the queries in their order. Those of look-ups that have theirs already
    /// are left out, and nothing is decoded.
    pub fn take(&mut self, answers: Vec<PirResponse>) -> Progress {
        let (now, mut wishes) = (Instant::now(), Wishes::default());
        let mut answers = answers.into_iter();
        for index in 0..self.requests.len() {
            let answer = answers.next().unwrap_or_default();
            if self.call.query(index).is_none() {
                continue;
            }
            if answer.response_status == Status::ResponseSuccess.code() {
                match self.hint_of(index, &answer) {
                    Some(hint) => self.call.keep(index, answer, hint),
                    None => self.call.distrust(index),
                }
                continue;
            }
            let failed = refused(answer.response_status, answer.retry_after_ms, &answer.detail);
            self.call.settle(index, &failed, 1, now, &mut wishes);
        }
        let Some((at, _)) = self.call.wave(usize::MAX, now) else { return Progress::Done };
        let wait = at - now;
        if wishes.refresh { Progress::Refresh { wait } } else { Progress::Again { wait } }
    }

    /// The hint to read an answer with: the one that came with it if it is the signed one, or the
    /// one that is held.
    fn hint_of(&self, index: usize, answer: &PirResponse) -> Option<Arc<[u8]>> {
        if !self.requests[index].want_hint {
            return self.held[index].clone();
        }
        let (shard, pack) = (self.call.shard(index)?, self.call.pack(index));
        let signed = self.call.view().digest(shard);
        let hint: Arc<[u8]> = match pack {
            None => {
                let digest = hint_digest(answer.hint.iter().map(Vec::as_slice));
                (digest == signed).then(|| answer.hint.concat().into())?
            }
            Some(pack) => {
                let [hint] = answer.hint.as_slice() else { return None };
                let digests = &answer.pack_digests;
                let packs = self.call.view().parameters.shape().packs();
                let own = digests.chunks_exact(HINT_DIGEST_BYTES).nth(pack as usize)?;
                let is_whole = digests.len() == packs * HINT_DIGEST_BYTES;
                let is_signed = is_whole && hint_digest_of(digests) == signed;
                (is_signed && own == pack_digest(hint)).then(|| hint.as_slice().into())?
            }
        };
        let mut held = lock(&self.hints);
        if held.len() >= limits::DEVICE_HINTS_MAX {
            held.clear();
        }
        held.insert((signed, pack), hint.clone());
        Some(hint)
    }

    /// After [`Progress::Refresh`] and [`Known::accept`]. Where what was encrypted still asks the
    /// same questions, the identical vectors go out with the new epoch; else the whole batch is
    /// encrypted anew, under secrets that were never used.
    ///
    /// # Errors
    /// As those of [`DeviceBatch::encrypt`]; the batch is lost then.
    pub fn renew(&mut self, known: &Known) -> Result<(), ClientError> {
        let Some(view) = known.view.clone() else { return Ok(()) };
        if !self.call.keeps_bytes(&view) {
            *self = Self::encrypt(known, std::mem::take(&mut self.keys))?;
            return Ok(());
        }
        self.call.rebase(view, &Cancelled::default())?;
        // A look-up that has its answer goes out again too, for a batch is always whole.
        let newest = self.call.view().parameters.epoch();
        self.requests.iter_mut().for_each(|request| request.epoch = newest);
        self.choose_hints();
        Ok(())
    }

    /// Gives up what has no answer, for a reason that is not an outcome.
    pub fn give_up(&mut self, reason: &str) {
        self.call.give_up(|_| LookupError::Ended { reason: reason.to_owned() });
    }

    /// Decodes all answers, in constant time, and does not look at them yet. What has no answer is
    /// given up.
    pub fn finish(mut self) -> Answers {
        self.give_up("the batch was ended");
        Answers::of(self.call.finish(&Cancelled::default()))
    }

    /// What each look-up ends in, in the order of the keys. See [`Answers::open`].
    pub fn open(self) -> Vec<Result<Outcome, LookupError>> {
        self.finish().open()
    }
}

fn lock(held: &Mutex<HeldHints>) -> MutexGuard<'_, HeldHints> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}
