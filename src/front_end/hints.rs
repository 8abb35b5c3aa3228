//! The hints that the front-end holds: by the digest that the operator signed, within a budget,
//! each fetched once for all look-ups that wait for it.
//!
//! Who asks first for a hint is told to have it fetched ([`Claim::Fetch`]); whoever asks while it
//! is on its way waits for the same one. Nothing here sends: requests for hints go out with the
//! queries ([`super::mix`]), so that hints show no more of a device than its queries do.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::epochs::HintDigest;
use crate::scheme::{hint_digest, pack_digest};
use crate::wire::Bytes;

/// The hint of a shard, which is the signed one.
pub(super) struct Hint {
    /// All packs' packed coefficients, one after the other.
    packs: Vec<Vec<u8>>,
    /// The digests of all packs, 16 bytes each.
    pub(super) pack_digests: Bytes,
}

impl Hint {
    /// Takes a hint if `signed` is its digest.
    pub(super) fn verified(signed: HintDigest, packs: Vec<Vec<u8>>) -> Option<Self> {
        if hint_digest(packs.iter().map(Vec::as_slice)) != signed {
            return None;
        }
        let pack_digests: Vec<u8> = packs.iter().flat_map(|pack| pack_digest(pack)).collect();
        Some(Self { packs, pack_digests: pack_digests.into() })
    }

    /// The packs in order.
    pub(super) fn packs(&self) -> &[Vec<u8>] {
        &self.packs
    }

    /// All packs in one.
    pub(super) fn concat(&self) -> Vec<u8> {
        self.packs.concat()
    }

    fn bytes(&self) -> usize {
        self.packs.iter().map(Vec::len).sum::<usize>() + self.pack_digests.len()
    }
}

/// A hint that comes, or nothing when it could not be had.
pub(super) type Coming = oneshot::Receiver<Arc<Hint>>;

/// What who needs a hint gets.
pub(super) enum Claim {
    /// The hint.
    Held(Arc<Hint>),
    /// It is on its way.
    Wait(Coming),
    /// It comes once somebody has it fetched: whoever gets this must.
    Fetch(Coming),
}

/// Hints by digest.
pub(super) struct Hints {
    state: Mutex<State>,
    bytes_max: usize,
}

#[derive(Default)]
struct State {
    held: HashMap<HintDigest, Held>,
    /// The digests by the time of their last use.
    by_use: BTreeMap<u64, HintDigest>,
    uses: u64,
    bytes: usize,
    waiting: HashMap<HintDigest, Vec<oneshot::Sender<Arc<Hint>>>>,
}

struct Held {
    hint: Arc<Hint>,
    used: u64,
}

impl Hints {
    /// None yet, and at most this many bytes of them later.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { state: Mutex::default(), bytes_max }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for a hint.
    pub(super) fn claim(&self, digest: HintDigest) -> Claim {
        let mut state = self.state();
        if let Some(hint) = state.use_held(digest) {
            return Claim::Held(hint);
        }
        let (sender, coming) = oneshot::channel();
        // Those who left before the hint came are forgotten, so that the list stays short.
        match state.waiting.get_mut(&digest) {
            Some(waiting) => {
                waiting.retain(|sender| !sender.is_closed());
                waiting.push(sender);
                Claim::Wait(coming)
            }
            None => {
                state.waiting.insert(digest, vec![sender]);
                Claim::Fetch(coming)
            }
        }
    }

    /// Keeps a hint that came, and gives it to all who wait for it.
    pub(super) fn keep(&self, digest: HintDigest, hint: Hint) {
        let hint = Arc::new(hint);
        let mut state = self.state();
        let waiting = state.waiting.remove(&digest).unwrap_or_default();
        state.hold(digest, hint.clone(), self.bytes_max);
        drop(state);
        for sender in waiting {
            let _ = sender.send(hint.clone()); // whoever left needs none
        }
    }

    /// A hint could not be had: all who wait for it are told so.
    pub(super) fn fail(&self, digest: HintDigest) {
        drop(self.state().waiting.remove(&digest));
    }

    /// Hints held, and their bytes.
    pub(super) fn size(&self) -> (usize, usize) {
        let state = self.state();
        (state.held.len(), state.bytes)
    }
}

impl State {
    fn use_held(&mut self, digest: HintDigest) -> Option<Arc<Hint>> {
        self.uses += 1;
        let held = self.held.get_mut(&digest)?;
        self.by_use.remove(&held.used);
        held.used = self.uses;
        self.by_use.insert(self.uses, digest);
        Some(held.hint.clone())
    }

    /// Makes room by the hints that were not used for the longest. One that is larger than the
    /// budget is not kept.
    fn hold(&mut self, digest: HintDigest, hint: Arc<Hint>, bytes_max: usize) {
        let bytes = hint.bytes();
        if bytes > bytes_max || self.held.contains_key(&digest) {
            return;
        }
        while self.bytes + bytes > bytes_max
            && let Some((_, oldest)) = self.by_use.pop_first()
            && let Some(gone) = self.held.remove(&oldest)
        {
            self.bytes -= gone.hint.bytes();
        }
        self.uses += 1;
        self.bytes += bytes;
        self.by_use.insert(self.uses, digest);
        self.held.insert(digest, Held { hint, used: self.uses });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint(byte: u8) -> (HintDigest, Hint) {
        let packs = vec![vec![byte; 34], vec![byte; 34]];
        let digest = hint_digest(packs.iter().map(Vec::as_slice));
        (digest, Hint::verified(digest, packs).unwrap())
    }

    #[test]
    fn only_the_signed_hint_counts_and_its_packs_prove_themselves() {
        let (digest, hint) = hint(1);
        let hashed = blake3::hash(&hint.pack_digests);
        assert_eq!(hashed.as_bytes()[..16], digest);
        assert_eq!(hint.pack_digests[16..], pack_digest(&hint.packs()[1]));
        assert!(Hint::verified([7; 16], hint.packs().to_vec()).is_none());
        assert!(Hint::verified(digest, hint.packs()[..1].to_vec()).is_none());
        let cut_otherwise = vec![vec![1; 17], vec![1; 17], vec![1; 34]];
        assert!(Hint::verified(digest, cut_otherwise).is_none());
    }

    #[tokio::test]
    async fn a_hint_is_fetched_once_for_all_who_wait() {
        let hints = Hints::new(1_000);
        let (digest, made) = hint(1);
        let Claim::Fetch(first) = hints.claim(digest) else { panic!("nobody fetches it") };
        let Claim::Wait(second) = hints.claim(digest) else { panic!("it is fetched twice") };
        let Claim::Wait(left) = hints.claim(digest) else { panic!("it is fetched twice") };
        drop(left);
        hints.keep(digest, made);
        assert_eq!(first.await.unwrap().concat(), [1; 68]);
        assert_eq!(second.await.unwrap().concat(), [1; 68]);
        assert!(matches!(hints.claim(digest), Claim::Held(_)));
    }

    #[tokio::test]
    async fn when_it_cannot_be_had_all_are_told_and_the_next_one_fetches() {
        let hints = Hints::new(1_000);
        let (digest, _) = hint(1);
        let Claim::Fetch(first) = hints.claim(digest) else { panic!("nobody fetches it") };
        let Claim::Wait(second) = hints.claim(digest) else { panic!("it is fetched twice") };
        hints.fail(digest);
        assert!(first.await.is_err() && second.await.is_err());
        assert!(matches!(hints.claim(digest), Claim::Fetch(_)));
    }

    #[test]
    fn the_budget_holds_and_what_is_used_stays() {
        let hints = Hints::new(300);
        let made: Vec<HintDigest> = (1..=3)
            .map(|byte| {
                let (digest, hint) = hint(byte);
                hints.keep(digest, hint);
                digest
            })
            .collect();
        assert_eq!(hints.size(), (3, 300));
        assert!(matches!(hints.claim(made[0]), Claim::Held(_)));
        let (fourth, hint_4) = hint(4);
        hints.keep(fourth, hint_4);
        assert_eq!(hints.size(), (3, 300));
        assert!(matches!(hints.claim(made[1]), Claim::Fetch(_)));
        for held in [made[0], made[2], fourth] {
            assert!(matches!(hints.claim(held), Claim::Held(_)));
        }
        // The same one again counts once, and one beyond the budget is given and not kept.
        hints.keep(fourth, hint(4).1);
        assert_eq!(hints.size(), (3, 300));
        let small = Hints::new(99);
        small.keep(fourth, hint(4).1);
        assert_eq!(small.size(), (0, 0));
    }
}
