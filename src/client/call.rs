//! One call of many look-ups: everything is encrypted here, everything is decoded here, and
//! nothing is decoded before every look-up of the call has its answer or is given up.
//!
//! No IO and no clock: [`super::round`] moves the bytes. The secrets of a call live in its
//! [`SecretPool`] and are dropped with the call. The pool keeps the once-only rule: it gives the
//! stored bytes of a query any number of times, and a query under a new secret, and nothing else.
//! Encrypting ends by type when [`Call::finish`] seals the pool.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::time::Instant;
use zeroize::Zeroizing;

use super::error::LookupError;
use super::hints::HintDigest;
use super::retry::{Action, FailedAttempt, Via, action};
use crate::keyword::{Extracted, Location, band, extract, extract_of_pack, locate};
use crate::limits;
use crate::params::Shape;
use crate::scheme::{
    QueryId, SecretError, SecretPool, Seed, Selection, Sharing, random_permutation,
};
use crate::wire::message::PirResponse;
use crate::wire::{Bytes, HINT_DIGEST_BYTES, PublicParameters};

/// What a ciphertext was made for. While all of it stays, the same bytes ask the same question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Footing {
    seed: Seed,
    shard_count: u32,
    shape: Shape,
    /// None where the shard is gone.
    ribbon_seed: Option<u32>,
}

/// Accepted parameters of one epoch, with the signed hint digests.
pub(super) struct View {
    pub(super) parameters: PublicParameters,
    pub(super) digests: Bytes,
}

impl View {
    /// The signed digest of a shard's hint. The shard is one that [`locate`] gave.
    pub(super) fn digest(&self, shard: u32) -> HintDigest {
        let at = shard as usize * HINT_DIGEST_BYTES;
        self.digests[at..at + HINT_DIGEST_BYTES]
            .try_into()
            .expect("this is a bug: the list of digests was checked")
    }

    fn footing(&self, shard: u32) -> Footing {
        Footing {
            seed: *self.parameters.seed(),
            shard_count: self.parameters.shard_count(),
            shape: *self.parameters.shape(),
            ribbon_seed: self.parameters.ribbon_seed(shard),
        }
    }
}

/// Look-ups that are not encrypted yet: which ones, where they go, and what they select there.
#[derive(Default)]
struct Aims {
    places: Vec<(usize, Box<Location>)>,
    selections: Vec<(u32, Selection)>,
}

/// A look-up that is encrypted: where it goes and how its answer will be read.
struct Target {
    /// Boxed: a state is moved about, and what it is moved from is not wiped.
    place: Box<Location>,
    view: Arc<View>,
    query: QueryId,
}

enum LookupState {
    /// Not encrypted yet.
    Aimed,
    Waiting(Target),
    /// With the undecoded answer and the hint it was computed under.
    Answered(Target, Vec<Vec<u8>>, Arc<[u8]>),
    Failed(LookupError),
}

struct Lookup {
    /// Place of the key in the caller's list.
    place: usize,
    key: Zeroizing<Vec<u8>>,
    attempts: u32,
    ready_at: Instant,
    state: LookupState,
}

/// An encrypted query as it is sent: public bytes, the same at every attempt.
#[derive(Clone)]
#[expect(missing_docs, reason = "the fields are those of PirRequest")]
pub struct PreparedQuery {
    pub shard: u32,
    pub uid: String,
    pub epoch: u64,
    /// 3 bytes a column.
    pub vector: Arc<[u8]>,
}

/// What failed attempts ask for before the next ones: new parameters, another connection.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    pub(super) refresh: bool,
    pub(super) via: Via,
}

/// Whether nobody waits any more for what a thread encrypts or decodes. It looks between any two
/// secrets while it encrypts (at most 16 queries) and any two answers while it decodes.
#[derive(Default)]
pub(super) struct Cancelled {
    flag: AtomicBool,
    #[cfg(test)]
    looks: std::sync::atomic::AtomicUsize,
}

impl Cancelled {
    pub(super) fn set(&self) {
        self.flag.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_set(&self) -> bool {
        #[cfg(test)]
        self.looks.fetch_add(1, Ordering::Relaxed);
        self.flag.load(Ordering::Relaxed)
    }
}

/// What the answers of a call bring.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Brings {
    /// All packs of a shard: from an answer server.
    AllPacks,
    /// The record's pack, or all packs where a record may straddle them: from a front-end.
    OnePack,
}

/// One call.
pub(super) struct Call {
    view: Arc<View>,
    brings: Brings,
    secrets: SecretPool,
    /// In random order, in which they also go out.
    lookups: Vec<Lookup>,
}

impl Call {
    /// Encrypts a look-up of every key, in random order: which queries go out first or share a
    /// bundle must not tell the server which keys the caller has side by side.
    pub(super) fn encrypt(
        view: Arc<View>,
        keys: Vec<Zeroizing<Vec<u8>>>,
        now: Instant,
        cancelled: &Cancelled,
    ) -> Result<Self, SecretError> {
        Self::encrypt_for(Brings::AllPacks, Sharing::Shared, view, keys, now, cancelled)
    }

    /// The same for answers of which each brings one pack, say, and with a bundle for each query.
    pub(super) fn encrypt_for(
        brings: Brings,
        sharing: Sharing,
        view: Arc<View>,
        mut keys: Vec<Zeroizing<Vec<u8>>>,
        now: Instant,
        cancelled: &Cancelled,
    ) -> Result<Self, SecretError> {
        let secrets = SecretPool::new(*view.parameters.seed(), *view.parameters.shape());
        let mut call = Self { view, brings, secrets, lookups: Vec::with_capacity(keys.len()) };
        let mut aims = Aims::default();
        for (index, place) in random_permutation(keys.len())?.into_iter().enumerate() {
            if cancelled.is_set() {
                return Err(SecretError::Stopped);
            }
            let key = std::mem::take(&mut keys[place]);
            let state = match key.len() {
                0 => LookupState::Failed(LookupError::KeyEmpty),
                1..=limits::KEY_BYTES_MAX => {
                    call.aim(index, &key, &mut aims);
                    LookupState::Aimed
                }
                found => LookupState::Failed(LookupError::KeyTooLong { found }),
            };
            call.lookups.push(Lookup { place, key, attempts: 0, ready_at: now, state });
        }
        call.encrypt_aimed(aims, sharing, cancelled)?;
        Ok(call)
    }

    fn aim(&self, index: usize, key: &[u8], aims: &mut Aims) {
        let parameters = &self.view.parameters;
        let shape = parameters.shape();
        let groups = shape.groups() as u32;
        let place = locate(parameters.seed(), key, parameters.shard_count(), groups);
        let ribbon_seed = parameters.ribbon_seed(place.shard);
        let ribbon_seed = ribbon_seed.expect("this is a bug: located beyond the last shard");
        let band = band(&place.identity, ribbon_seed, shape);
        aims.selections.push((place.shard, band));
        aims.places.push((index, Box::new(place)));
    }

    /// Encrypts look-ups in one step of the pool: their secrets depend on all of them.
    fn encrypt_aimed(
        &mut self,
        aims: Aims,
        sharing: Sharing,
        cancelled: &Cancelled,
    ) -> Result<(), SecretError> {
        let wanted = || !cancelled.is_set();
        let queries = self.secrets.encrypt_while(&aims.selections, sharing, &wanted)?;
        for ((index, place), query) in aims.places.into_iter().zip(queries) {
            let target = Target { place, view: self.view.clone(), query };
            self.lookups[index].state = LookupState::Waiting(target);
        }
        Ok(())
    }

    /// New parameters for all that wait: identical bytes where the footing is the same, else a
    /// new secret for that look-up.
    pub(super) fn rebase(
        &mut self,
        view: Arc<View>,
        cancelled: &Cancelled,
    ) -> Result<(), SecretError> {
        self.secrets.set_shape(*view.parameters.shape());
        self.view = view;
        let mut aims = Aims::default();
        for index in 0..self.lookups.len() {
            if cancelled.is_set() {
                return Err(SecretError::Stopped);
            }
            let lookup = &mut self.lookups[index];
            let LookupState::Waiting(target) = &mut lookup.state else { continue };
            let shard = target.place.shard;
            if target.view.footing(shard) == self.view.footing(shard) {
                target.view = self.view.clone();
            } else {
                self.aim(index, &self.lookups[index].key, &mut aims);
            }
        }
        self.encrypt_aimed(aims, Sharing::Apart, cancelled)
    }

    /// Whether all that wait would keep their bytes under other parameters.
    #[cfg(feature = "client")]
    pub(super) fn keeps_bytes(&self, view: &View) -> bool {
        let waiting = (0..self.lookups.len()).filter_map(|index| self.waiting(index));
        let mut shards = waiting.map(|target| (&target.view, target.place.shard));
        shards.all(|(was, shard)| was.footing(shard) == view.footing(shard))
    }

    /// The parameters that waiting look-ups are sent under.
    pub(super) fn view(&self) -> &Arc<View> {
        &self.view
    }

    /// The look-ups to attempt next, and when: those that are ready first, under at most
    /// `bundles_max` secrets. None when nothing waits.
    pub(super) fn wave(&self, bundles_max: usize, now: Instant) -> Option<(Instant, Vec<usize>)> {
        let waiting = || {
            let lookups = self.lookups.iter().enumerate();
            lookups.filter_map(|(index, lookup)| Some((index, lookup, self.waiting(index)?)))
        };
        let first = waiting().map(|(_, lookup, _)| lookup.ready_at).min()?.max(now);
        let mut bundles = HashSet::new();
        let mut wave = Vec::new();
        for (index, lookup, target) in waiting() {
            let (uid, _) = self.bundle_of(target);
            let fits = bundles.contains(uid) || bundles.len() < bundles_max.max(1);
            if lookup.ready_at <= first && fits {
                bundles.insert(uid);
                wave.push(index);
            }
        }
        Some((first, wave))
    }

    /// What goes out for a look-up that waits.
    pub(super) fn query(&self, index: usize) -> Option<PreparedQuery> {
        let target = self.waiting(index)?;
        let vector = self.secrets.vector(target.query);
        Some(PreparedQuery {
            shard: target.place.shard,
            uid: self.bundle_of(target).0.to_owned(),
            epoch: target.view.parameters.epoch(),
            vector: vector.expect("this is a bug: a query of another pool"),
        })
    }

    /// Place of a look-up's key in the caller's list.
    pub(super) fn place(&self, index: usize) -> usize {
        self.lookups[index].place
    }

    /// The shard of a look-up that waits.
    pub(super) fn shard(&self, index: usize) -> Option<u32> {
        self.waiting(index).map(|target| target.place.shard)
    }

    /// The pack that the answer to a look-up that waits brings, from 0 on; `None` for all packs.
    pub(super) fn pack(&self, index: usize) -> Option<u32> {
        let target = self.waiting(index)?;
        match self.brings {
            Brings::AllPacks => None,
            Brings::OnePack => target.place.pack(target.view.parameters.shape()),
        }
    }

    /// Name and bytes of the bundle of a look-up that waits.
    pub(super) fn bundle(&self, index: usize) -> Option<(&str, Arc<[u8]>)> {
        self.waiting(index).map(|target| self.bundle_of(target))
    }

    fn waiting(&self, index: usize) -> Option<&Target> {
        match &self.lookups[index].state {
            LookupState::Waiting(target) => Some(target),
            _ => None,
        }
    }

    fn bundle_of(&self, target: &Target) -> (&str, Arc<[u8]>) {
        self.secrets.bundle(target.query).expect("this is a bug: a query of another pool")
    }

    /// Keeps an answer, undecoded, or gives the look-up up if it cannot be one.
    pub(super) fn keep(&mut self, index: usize, answer: PirResponse, hints: Arc<[u8]>) {
        let one_pack = self.pack(index).is_some();
        let lookup = &mut self.lookups[index];
        let placeholder = LookupState::Failed(LookupError::ShardUnknown);
        lookup.state = match std::mem::replace(&mut lookup.state, placeholder) {
            LookupState::Waiting(target) => {
                let packs = if one_pack { 1 } else { target.view.parameters.shape().packs() };
                match check_answer(&target.view, target.place.shard, packs, &answer) {
                    Ok(()) => LookupState::Answered(target, answer.encrypted_response, hints),
                    Err(error) => LookupState::Failed(error),
                }
            }
            done => done,
        };
    }

    /// The hint of this look-up's shard is not the signed one.
    pub(super) fn distrust(&mut self, index: usize) {
        self.fail(index, LookupError::HintForged);
    }

    /// Applies docs/wire.md, "Retries", to an attempt that brought no answer.
    pub(super) fn settle(
        &mut self,
        index: usize,
        failed: &FailedAttempt,
        replicas: usize,
        now: Instant,
        wishes: &mut Wishes,
    ) {
        let lookup = &mut self.lookups[index];
        lookup.attempts += 1;
        match action(failed, lookup.attempts, replicas) {
            Action::Resend { via, wait } => {
                wishes.via = wishes.via.max(via);
                lookup.ready_at = now + wait;
            }
            Action::Refresh { wait } => {
                wishes.refresh = true;
                lookup.ready_at = now + wait;
            }
            Action::Fail(error) => lookup.state = LookupState::Failed(error),
        }
    }

    /// Gives one look-up up that waits.
    pub(super) fn fail(&mut self, index: usize, error: LookupError) {
        self.lookups[index].state = LookupState::Failed(error);
    }

    /// Nothing of a look-up can go out before this time.
    pub(super) fn postpone(&mut self, index: usize, until: Instant) {
        self.lookups[index].ready_at = until;
    }

    /// Gives up all that waits, for a reason that may name how often it went out.
    pub(super) fn give_up(&mut self, why: impl Fn(u32) -> LookupError) {
        for lookup in &mut self.lookups {
            if matches!(lookup.state, LookupState::Waiting(_)) {
                lookup.state = LookupState::Failed(why(lookup.attempts));
            }
        }
    }

    /// Ends encryption for good, then decodes what came, in constant time. Every look-up is
    /// finished or failed. The records are in the order of the caller's keys; none was looked at.
    pub(super) fn finish(mut self, cancelled: &Cancelled) -> Vec<Result<Extracted, LookupError>> {
        self.lookups.sort_unstable_by_key(|lookup| lookup.place);
        let (decoder, brings) = (self.secrets.seal(), self.brings);
        let outcome = |lookup: Lookup| match lookup.state {
            LookupState::Aimed | LookupState::Waiting(_) => {
                panic!("this is a bug: a call ended with a look-up waiting")
            }
            LookupState::Failed(error) => Err(error),
            LookupState::Answered(target, mut response, hints) => {
                let shape = target.view.parameters.shape();
                if brings == Brings::OnePack && shape.groups_per_pack().is_some() {
                    let response = response.pop().unwrap_or_default();
                    let decoded = decoder.decode_pack(target.query, shape, response, &hints)?;
                    let extracted = extract_of_pack(&decoded, &target.place, shape);
                    return Ok(extracted.expect("this is a bug: a record of no pack"));
                }
                let decoded = decoder.decode(target.query, shape, &response, &hints)?;
                Ok(extract(&decoded, &target.place, shape))
            }
        };
        self.lookups.into_iter().take_while(|_| !cancelled.is_set()).map(outcome).collect()
    }
}

/// Everything of an answer of so many packs that does not need the secret: lengths, epoch, digest.
pub(super) fn check_answer(
    view: &View,
    shard: u32,
    expected_packs: usize,
    answer: &PirResponse,
) -> Result<(), LookupError> {
    let wrong =
        |what, found: String, expected: String| Err(LookupError::Answer { what, found, expected });
    let (parameters, shape) = (&view.parameters, view.parameters.shape());
    if answer.epoch != parameters.epoch() {
        return wrong("epoch", answer.epoch.to_string(), parameters.epoch().to_string());
    }
    if answer.hint_digest != view.digest(shard) {
        let found = format!("another ({} bytes)", answer.hint_digest.len());
        return wrong("hint_digest", found, "the signed one".into());
    }
    let (packs, bytes) = (&answer.encrypted_response, shape.response_bytes());
    if packs.len() != expected_packs {
        let found = format!("{} packs", packs.len());
        return wrong("encrypted_response", found, expected_packs.to_string());
    }
    if let Some(pack) = packs.iter().find(|pack| pack.len() != bytes) {
        let found = format!("a pack of {} bytes", pack.len());
        return wrong("encrypted_response", found, bytes.to_string());
    }
    Ok(())
}

/// With a generator that gives the same bytes every time, as after a snapshot of a machine.
#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::scheme::frozen::while_frozen;
    use crate::wire::{Lifetime, ParameterFields};

    const SHARDS: usize = 3;
    const KEYS: usize = 24;

    fn view(epoch: u64, ribbon_seeds: [u32; SHARDS], columns: u32) -> Arc<View> {
        let shape = Shape::new(24, 128, 1, columns).unwrap();
        let fields = ParameterFields {
            seed: [5; 32],
            epoch,
            shape,
            ribbon_seeds: ribbon_seeds.to_vec(),
            hint_digests_hash: [0; 32],
            lifetime: Lifetime { created: 1, expires: 2 },
            database: "test".into(),
            record_count: 0,
            shard_records_min: 0,
            content: [0; 32],
        };
        let parameters = PublicParameters::new(fields).unwrap();
        Arc::new(View { parameters, digests: Bytes::new() })
    }

    fn keys() -> Vec<Zeroizing<Vec<u8>>> {
        (0..KEYS).map(|n| Zeroizing::new(format!("key {n}").into_bytes())).collect()
    }

    fn call(keys: Vec<Zeroizing<Vec<u8>>>) -> Call {
        let wanted = Cancelled::default();
        let view = view(1, [0; SHARDS], 192);
        while_frozen(1, || Call::encrypt(view, keys, Instant::now(), &wanted).unwrap())
    }

    fn rebased(mut call: Call, view: Arc<View>) -> Call {
        while_frozen(1, || call.rebase(view, &Cancelled::default()).unwrap());
        call
    }

    /// Shard, bundle and vector that go out for each key.
    fn sent(call: &Call) -> BTreeMap<usize, (u32, String, Arc<[u8]>)> {
        let of = |index| {
            let query = call.query(index).unwrap();
            (call.place(index), (query.shard, query.uid, query.vector))
        };
        (0..call.lookups.len()).map(of).collect()
    }

    fn uids(call: &Call) -> HashSet<String> {
        sent(call).into_values().map(|(_, uid, _)| uid).collect()
    }

    #[test]
    fn the_identical_call_sends_the_identical_bytes_and_another_shares_no_secret() {
        assert!(sent(&call(keys())) == sent(&call(keys())));
        let first = uids(&call(keys()));
        type Change = fn(&mut Vec<Zeroizing<Vec<u8>>>, usize);
        let changes: [Change; 3] = [
            |keys, at| keys[at].push(b'!'),
            |keys, at| drop(keys.remove(at)),
            |keys, at| keys.swap(at, 3),
        ];
        for at in [0, 7, KEYS - 1] {
            for (number, change) in changes.iter().enumerate() {
                let mut other = keys();
                change(&mut other, at);
                assert!(uids(&call(other)).is_disjoint(&first), "change {number} of key {at}");
            }
        }
    }

    #[test]
    fn bytes_stay_only_on_the_same_footing() {
        let was = view(1, [0; SHARDS], 192).footing(0);
        assert_eq!(was, view(2, [0, 1, 1], 192).footing(0), "another epoch alone");
        assert_ne!(was, Footing { seed: [8; 32], ..was });
        assert_ne!(was, Footing { shard_count: 32, ..was });
        assert_ne!(was, Footing { shape: was.shape.widened().unwrap(), ..was });
        assert_ne!(was, Footing { ribbon_seed: Some(4), ..was });
    }

    /// A server that answers two copies of one call with EPOCH_GONE and other parameters each.
    #[test]
    fn copies_of_a_call_that_get_other_parameters_share_no_new_secret() {
        let before = sent(&call(keys()));
        let moves = [
            view(2, [1, 0, 0], 192),
            view(2, [2, 0, 0], 192),
            view(2, [1, 1, 0], 192),
            view(2, [0, 0, 1], 192),
            view(2, [0, 0, 0], 256),
            view(2, [1, 0, 0], 256),
        ];
        let mut seen: HashSet<String> = uids(&call(keys()));
        for (number, view) in moves.into_iter().enumerate() {
            let after = sent(&rebased(call(keys()), view.clone()));
            let mut fresh = HashSet::new();
            for (place, now) in &after {
                if call(keys()).view.footing(now.0) == view.footing(now.0) {
                    assert!(before[place] == *now, "move {number}");
                } else {
                    assert!(fresh.insert(now.1.clone()), "one secret a look-up");
                }
            }
            assert!(!fresh.is_empty() && fresh.is_disjoint(&seen), "move {number}");
            seen.extend(fresh);
            // The same move again is the same bytes.
            assert!(after == sent(&rebased(call(keys()), view)), "move {number}");
        }
    }

    fn looks(cancelled: &Cancelled) -> usize {
        cancelled.looks.load(Ordering::Relaxed)
    }

    #[test]
    fn a_thread_looks_between_any_two_secrets_and_answers_whether_anybody_waits() {
        let wanted = Cancelled::default();
        let (first, second) = (view(1, [0; SHARDS], 192), view(2, [1; SHARDS], 192));
        let mut call = Call::encrypt(first, keys(), Instant::now(), &wanted).unwrap();
        let mut secrets = call.secrets.secret_count();
        assert!(secrets > 1 && looks(&wanted) == KEYS + secrets);
        call.rebase(second, &wanted).unwrap(); // a secret of its own for each
        secrets = call.secrets.secret_count();
        assert_eq!(looks(&wanted), 2 * KEYS + secrets);
        call.give_up(|_| LookupError::ShardUnknown);
        assert_eq!(call.finish(&wanted).len(), KEYS);
        assert_eq!(looks(&wanted), 3 * KEYS + secrets);
    }

    #[test]
    fn nothing_is_encrypted_or_decoded_for_nobody() {
        let (gone, shown) = (Cancelled::default(), view(1, [0; SHARDS], 192));
        gone.set();
        let stopped = Call::encrypt(shown, keys(), Instant::now(), &gone).err();
        assert_eq!(stopped, Some(SecretError::Stopped));
        let mut call = call(keys());
        let stopped = call.rebase(view(2, [1; SHARDS], 192), &gone);
        assert_eq!(stopped, Err(SecretError::Stopped));
        call.give_up(|_| LookupError::ShardUnknown);
        assert!(call.finish(&gone).is_empty());
        assert_eq!(looks(&gone), 3);
    }
}
