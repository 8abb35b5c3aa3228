//! The key bundles that a server keeps. Every connection finds all of them by name (docs/wire.md,
//! "Names and digests"). When there is no room for another, the connection that brought the most
//! loses its least recently used one.
//!
//! So a connection that keeps no more than its part of the room loses none to others: the promise
//! of `limits::BUNDLES_PER_CONNECTION`. Bundles of connections that have ended are removed first.
//! Until then a connection that asks under such a bundle takes it over.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

use lru::LruCache;

use crate::schedule::ConnectionId;
use crate::scheme::KeyBundle;
use crate::wire::Uid;

/// Keeps what connections left behind. Connections are numbered from 0.
const NOBODY: ConnectionId = ConnectionId(u64::MAX);

type Kept = LruCache<Uid, Arc<KeyBundle>>;

pub(super) struct Bundles {
    most: NonZeroUsize,
    keepers: HashMap<Uid, ConnectionId>,
    /// No empty one stays.
    kept: HashMap<ConnectionId, Kept>,
}

impl Bundles {
    pub(super) fn new(most: NonZeroUsize) -> Self {
        Self { most, keepers: HashMap::new(), kept: HashMap::new() }
    }

    /// The bundle of this name, which thereby is its keeper's most recently used one.
    pub(super) fn get(&mut self, peer: ConnectionId, uid: &Uid) -> Option<Arc<KeyBundle>> {
        let keeper = *self.keepers.get(uid)?;
        if keeper == NOBODY {
            let bundle = self.remove(NOBODY, |kept| kept.pop_entry(uid))?;
            self.insert(peer, *uid, bundle.clone());
            return Some(bundle);
        }
        self.kept.get_mut(&keeper)?.get(uid).cloned()
    }

    /// Keeps a bundle that this connection brought; whether another had to make room.
    pub(super) fn keep(&mut self, peer: ConnectionId, uid: Uid, bundle: KeyBundle) -> bool {
        if self.get(peer, &uid).is_some() {
            return false;
        }
        let full = self.keepers.len() >= self.most.get();
        if full {
            // Of two who have the same, whoever wants more.
            let kept = self.kept.iter().map(|(&who, kept)| (kept.len(), who == peer, who));
            let most = kept.max().map(|(.., who)| who);
            let from = if self.kept.contains_key(&NOBODY) { Some(NOBODY) } else { most };
            from.and_then(|from| self.remove(from, Kept::pop_lru));
        }
        self.insert(peer, uid, Arc::new(bundle));
        full
    }

    pub(super) fn count(&self) -> usize {
        self.keepers.len()
    }

    pub(super) fn leave(&mut self, peer: ConnectionId) {
        let Some(mut left) = self.kept.remove(&peer) else { return };
        while let Some((uid, bundle)) = left.pop_lru() {
            self.insert(NOBODY, uid, bundle);
        }
    }

    fn insert(&mut self, keeper: ConnectionId, uid: Uid, bundle: Arc<KeyBundle>) {
        self.keepers.insert(uid, keeper);
        self.kept.entry(keeper).or_insert_with(Kept::unbounded).put(uid, bundle);
    }

    /// Takes one out of what this connection keeps.
    fn remove(
        &mut self,
        keeper: ConnectionId,
        which: impl FnOnce(&mut Kept) -> Option<(Uid, Arc<KeyBundle>)>,
    ) -> Option<Arc<KeyBundle>> {
        let kept = self.kept.get_mut(&keeper)?;
        let (uid, bundle) = which(kept)?;
        if kept.is_empty() {
            self.kept.remove(&keeper);
        }
        self.keepers.remove(&uid);
        Some(bundle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::Shape;

    fn bundle() -> KeyBundle {
        let shape = Shape::new(24, 128, 2, 192).unwrap();
        KeyBundle::decode(&vec![0; shape.bundle_bytes()], &shape).unwrap()
    }

    fn uid(number: u8) -> Uid {
        Uid::of(&[number])
    }

    /// Which of the first few are there; asked by nobody, so that none is taken over.
    fn there(bundles: &Bundles) -> Vec<u8> {
        (0..100).filter(|&number| bundles.keepers.contains_key(&uid(number))).collect()
    }

    #[test]
    fn who_brings_the_most_loses_its_oldest() {
        let mut bundles = Bundles::new(NonZeroUsize::new(6).unwrap());
        let [modest, greedy, late] = [1, 2, 3].map(ConnectionId);
        for number in 0..2 {
            assert!(!bundles.keep(modest, uid(number), bundle()));
        }
        for number in 10..50 {
            assert_eq!(bundles.keep(greedy, uid(number), bundle()), number >= 14);
        }
        assert_eq!(there(&bundles), [0, 1, 46, 47, 48, 49]);
        // What was used lately stays, whoever used it.
        assert!(bundles.get(modest, &uid(46)).is_some());
        bundles.keep(late, uid(60), bundle());
        assert_eq!(there(&bundles), [0, 1, 46, 48, 49, 60]);
        // Once more is not another one.
        assert!(!bundles.keep(late, uid(0), bundle()));
        assert_eq!(there(&bundles), [0, 1, 46, 48, 49, 60]);
    }

    #[test]
    fn what_is_left_behind_goes_first_unless_it_is_asked_for() {
        let mut bundles = Bundles::new(NonZeroUsize::new(4).unwrap());
        let [gone, here] = [1, 2].map(ConnectionId);
        (0..2).for_each(|number| _ = bundles.keep(gone, uid(number), bundle()));
        (10..12).for_each(|number| _ = bundles.keep(here, uid(number), bundle()));
        bundles.leave(gone);
        bundles.leave(gone);
        assert!(bundles.get(here, &uid(0)).is_some());
        bundles.keep(here, uid(20), bundle());
        assert_eq!(there(&bundles), [0, 10, 11, 20]);
        bundles.keep(here, uid(21), bundle());
        assert_eq!(there(&bundles), [0, 11, 20, 21], "its own, oldest first");
        assert!(bundles.kept.len() == 1 && bundles.get(here, &uid(1)).is_none());
    }
}
