//! Hints a client holds, by the digest the operator signed.
//!
//! A hint is public and the same for everyone until its shard's content changes, so it is kept
//! from call to call.

use std::collections::HashMap;
use std::sync::Arc;

use crate::scheme::hint_digest;
use crate::wire::HINT_DIGEST_BYTES;

/// The digest of a shard's hint ([`hint_digest`]).
pub(super) type HintDigest = [u8; HINT_DIGEST_BYTES];

/// Hints by digest, bounded in bytes: when there is no room for another, all go.
pub(super) struct HintCache {
    held: HashMap<HintDigest, Arc<[u8]>>,
    bytes: usize,
    bytes_max: usize,
}

impl HintCache {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { held: HashMap::new(), bytes: 0, bytes_max }
    }

    pub(super) fn get(&self, digest: &HintDigest) -> Option<Arc<[u8]>> {
        self.held.get(digest).cloned()
    }

    /// Keeps a shard's packed hints if `signed` is their digest; none if it is not.
    pub(super) fn keep(&mut self, signed: HintDigest, packs: &[Vec<u8>]) -> Option<Arc<[u8]>> {
        if hint_digest(packs.iter().map(Vec::as_slice)) != signed {
            return None;
        }
        let hints: Arc<[u8]> = packs.concat().into();
        if self.held.contains_key(&signed) {
            return Some(hints);
        }
        if self.bytes + hints.len() > self.bytes_max {
            self.held.clear();
            self.bytes = 0;
        }
        self.bytes += hints.len();
        self.held.insert(signed, hints.clone());
        Some(hints)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_signed_hint_is_kept() {
        let mut cache = HintCache::new(100);
        let packs = vec![vec![1; 10], vec![2; 10]];
        let digest = hint_digest(packs.iter().map(Vec::as_slice));
        assert!(cache.keep([0; 16], &packs).is_none() && cache.get(&digest).is_none());
        assert_eq!(cache.keep(digest, &packs).as_deref(), Some(&packs.concat()[..]));
        assert_eq!(cache.get(&digest).as_deref(), Some(&packs.concat()[..]));
        let swapped = vec![packs[1].clone(), packs[0].clone()];
        let otherwise_cut = vec![vec![1; 10], vec![2; 5], vec![2; 5]];
        for wrong in [swapped, otherwise_cut] {
            assert!(cache.keep(digest, &wrong).is_none());
        }
    }

    #[test]
    fn all_go_when_the_bound_is_reached() {
        let mut cache = HintCache::new(100);
        let hints: Vec<Vec<u8>> = (0..5).map(|at| vec![at; 40]).collect();
        let digests: Vec<_> = hints.iter().map(|hint| hint_digest([&hint[..]])).collect();
        for (hint, digest) in hints.iter().zip(&digests) {
            cache.keep(*digest, std::slice::from_ref(hint)).unwrap();
            cache.keep(*digest, std::slice::from_ref(hint)).unwrap(); // counted once
        }
        let held: Vec<bool> = digests.iter().map(|digest| cache.get(digest).is_some()).collect();
        assert_eq!(held, [false, false, false, false, true]);
        assert_eq!(cache.bytes, 40);
    }
}
