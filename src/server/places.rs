//! How many handshakes and connections there are at once, and which are displaced when there are
//! too many.
//!
//! The oldest handshake is displaced: an honest one takes two round trips. Of the connections one
//! is displaced that asks nothing, of the holder that has the most: its front-end where front-ends
//! are known, and otherwise its network.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use quinn::{Connection, VarInt};
use tokio::sync::oneshot;

use crate::limits;
use crate::wire::StreamCode;

/// Who has a place: a front-end, or where none is known a network, which is the addresses that one
/// operator usually has, /24 of IPv4 and /48 of IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Holder {
    /// By its number in the schedule.
    FrontEnd(u64),
    V4(u32),
    V6(u128),
    /// All that use this machine share one address.
    Loopback,
}

impl Holder {
    pub(super) fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            address if address.is_loopback() => Self::Loopback,
            IpAddr::V4(v4) => Self::V4(v4.to_bits() >> 8),
            IpAddr::V6(v6) => Self::V6(v6.to_bits() >> 80),
        }
    }
}

/// Places for what has begun and not ended: handshakes, connections whose request is not here yet.
pub(super) struct Unfinished<K> {
    max: usize,
    per_key_max: usize,
    begun: Mutex<Begun<K>>,
}

struct Begun<K> {
    next: u64,
    /// The oldest first. The sender tells it that it was displaced.
    all: BTreeMap<u64, (K, oneshot::Sender<()>)>,
}

/// Its place is free again when this is dropped.
pub(super) struct UnfinishedPlace<K> {
    unfinished: Arc<Unfinished<K>>,
    number: u64,
}

impl<K: Copy + Eq + Hash> Unfinished<K> {
    pub(super) fn new(max: usize, per_key_max: usize) -> Arc<Self> {
        let begun = Mutex::new(Begun { next: 0, all: BTreeMap::new() });
        Arc::new(Self { max, per_key_max, begun })
    }

    /// A place for one more, and what is ready when it was displaced. Where there are too many of
    /// its key or of all, the oldest of its key goes, or of the key that has the most.
    pub(super) fn enter(self: &Arc<Self>, key: K) -> (UnfinishedPlace<K>, oneshot::Receiver<()>) {
        let (displace, displaced) = oneshot::channel();
        let mut begun = self.lock();
        let mut has: HashMap<K, usize> = HashMap::new();
        begun.all.values().for_each(|(key, _)| *has.entry(*key).or_default() += 1);
        let whose = if has.get(&key).is_some_and(|&own| own >= self.per_key_max) {
            Some(key)
        } else if begun.all.len() >= self.max {
            has.into_iter().max_by_key(|&(_, count)| count).map(|(key, _)| key)
        } else {
            None
        };
        let oldest = begun.all.iter().find(|(_, (key, _))| Some(*key) == whose);
        if let Some(number) = oldest.map(|(&number, _)| number)
            && let Some((_, displace)) = begun.all.remove(&number)
        {
            // Fails where it has just ended by itself.
            let _ = displace.send(());
        }
        let number = begun.next;
        begun.next += 1;
        begun.all.insert(number, (key, displace));
        drop(begun);
        (UnfinishedPlace { unfinished: self.clone(), number }, displaced)
    }
}

impl<K> Unfinished<K> {
    fn lock(&self) -> MutexGuard<'_, Begun<K>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.lock().all.len()
    }
}

impl<K> Drop for UnfinishedPlace<K> {
    fn drop(&mut self) {
        self.unfinished.lock().all.remove(&self.number);
    }
}

/// Whether a connection asks anything. Opening streams is not asking: a request has to be whole.
pub(super) struct Activity {
    begun: Instant,
    asked_ms: AtomicU64,
    answering: AtomicUsize,
}

pub(super) struct Answering<'a>(&'a Activity);

impl Activity {
    pub(super) fn new() -> Arc<Self> {
        let (asked_ms, answering) = (AtomicU64::new(0), AtomicUsize::new(0));
        Arc::new(Self { begun: Instant::now(), asked_ms, answering })
    }

    pub(super) fn asked(&self) -> Answering<'_> {
        self.answering.fetch_add(1, Ordering::Relaxed);
        Answering(self)
    }

    /// Since when it has asked nothing; none while it is answered.
    pub(super) fn quiet_since(&self) -> Option<Instant> {
        let asked = Duration::from_millis(self.asked_ms.load(Ordering::Relaxed));
        (self.answering.load(Ordering::Relaxed) == 0).then(|| self.begun + asked)
    }
}

impl Drop for Answering<'_> {
    fn drop(&mut self) {
        let now = self.0.begun.elapsed().as_millis() as u64;
        self.0.asked_ms.fetch_max(now, Ordering::Relaxed);
        self.0.answering.fetch_sub(1, Ordering::Relaxed);
    }
}

pub(super) struct Connections {
    max: usize,
    per_network_max: usize,
    served: Mutex<Served>,
}

#[derive(Default)]
struct Served {
    next: u64,
    all: HashMap<u64, Entry>,
}

struct Entry {
    holder: Holder,
    activity: Arc<Activity>,
    /// Ends it: without an end in tests.
    connection: Option<Connection>,
}

pub(super) struct ConnectionPlace {
    connections: Arc<Connections>,
    number: u64,
}

impl Connections {
    pub(super) fn new(max: usize, per_network_max: usize) -> Arc<Self> {
        Arc::new(Self { max, per_network_max, served: Mutex::default() })
    }

    pub(super) fn count(&self) -> usize {
        self.lock().all.len()
    }

    /// Whether a handshake is worth it.
    pub(super) fn may_enter(&self, now: Instant) -> bool {
        let served = self.lock();
        served.all.len() < self.max || served.all.values().any(|entry| entry.quiet(now).is_some())
    }

    /// A place for this connection, and whether another had to go for it; none where all ask.
    pub(super) fn enter(
        self: &Arc<Self>,
        now: Instant,
        holder: Holder,
        activity: Arc<Activity>,
        connection: Option<Connection>,
    ) -> Option<(ConnectionPlace, bool)> {
        let mut served = self.lock();
        let own = served.all.values().filter(|entry| entry.holder == holder).count();
        let crowded =
            matches!(holder, Holder::V4(_) | Holder::V6(_)) && own >= self.per_network_max;
        let is_full = crowded || served.all.len() >= self.max;
        if is_full {
            // Nobody takes a place from who has fewer.
            let whose = |other: Holder, has: usize| other == holder || (!crowded && has > own);
            let number = served.quietest(now, whose)?;
            let gone = served.all.remove(&number).and_then(|entry| entry.connection);
            if let Some(connection) = gone {
                let code = VarInt::from_u32(StreamCode::ExcessiveLoad.code());
                connection.close(code, b"idle, and others ask");
            }
        }
        let number = served.next;
        served.next += 1;
        served.all.insert(number, Entry { holder, activity, connection });
        drop(served);
        Some((ConnectionPlace { connections: self.clone(), number }, is_full))
    }

    fn lock(&self) -> MutexGuard<'_, Served> {
        self.served.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Served {
    /// Of the connections that ask nothing: one of whoever has the most, quiet for longest.
    fn quietest(&self, now: Instant, whose: impl Fn(Holder, usize) -> bool) -> Option<u64> {
        let mut has: HashMap<Holder, usize> = HashMap::new();
        self.all.values().for_each(|entry| *has.entry(entry.holder).or_default() += 1);
        let quiet = self.all.iter().filter_map(|(&number, entry)| {
            let has = has[&entry.holder];
            let quiet = entry.quiet(now).filter(|_| whose(entry.holder, has))?;
            Some((has, quiet, number))
        });
        quiet.max().map(|(.., number)| number)
    }
}

impl Entry {
    /// For how long it has asked nothing, where that is long enough to go.
    fn quiet(&self, now: Instant) -> Option<Duration> {
        let quiet = now.saturating_duration_since(self.activity.quiet_since()?);
        (quiet >= limits::QUIET_TIME).then_some(quiet)
    }
}

impl Drop for ConnectionPlace {
    fn drop(&mut self) {
        self.connections.lock().all.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn networks_are_those_of_one_operator() {
        let same = |a: &str, b: &str| Holder::of(address(a)) == Holder::of(address(b));
        assert!(same("192.0.2.1", "192.0.2.255") && !same("192.0.2.1", "192.0.3.1"));
        assert!(same("192.0.2.1", "::ffff:192.0.2.7"));
        assert!(same("2001:db8:1::1", "2001:db8:1:ffff::2") && !same("2001:db8:1::", "2001:db8::"));
        assert_eq!(Holder::of(address("::ffff:127.0.0.1")), Holder::Loopback);
        assert_eq!(Holder::of(address("::1")), Holder::Loopback);
    }

    #[test]
    fn the_oldest_goes_of_whoever_has_the_most() {
        let unfinished = Unfinished::new(4, 2);
        let enter = |from| unfinished.enter(Holder::of(address(from)));
        let gone = |places: &mut [(_, oneshot::Receiver<()>)]| -> Vec<bool> {
            places.iter_mut().map(|(_, displaced)| displaced.try_recv().is_ok()).collect()
        };
        let mut flood = vec![enter("192.0.2.1"), enter("192.0.2.1")];
        assert_eq!(gone(&mut flood), [false, false]);
        // A network has half of the places.
        flood.push(enter("192.0.2.2"));
        assert_eq!(gone(&mut flood), [true, false, false]);
        let mut others = vec![enter("198.51.100.1"), enter("203.0.113.1")];
        // All are taken.
        others.push(enter("2001:db8::1"));
        assert_eq!(gone(&mut flood)[1..], [true, false]);
        assert_eq!(gone(&mut others), [false; 3]);
        drop((flood, others));
        assert_eq!(unfinished.count(), 0);
    }

    /// A place asked for after so many seconds.
    fn enter(
        connections: &Arc<Connections>,
        second: u64,
        from: &str,
    ) -> (Option<(ConnectionPlace, bool)>, Arc<Activity>) {
        let activity = Activity::new();
        let at = activity.begun + Duration::from_secs(second);
        let holder = Holder::of(address(from));
        (connections.enter(at, holder, activity.clone(), None), activity)
    }

    #[test]
    fn who_asks_nothing_goes_and_nobody_takes_from_who_has_fewer() {
        let connections = Connections::new(3, 2);
        let (few, many) = ("192.0.2.1", "198.51.100.1");
        let honest = enter(&connections, 0, few).0.unwrap();
        let busy = enter(&connections, 0, many);
        let asked = busy.1.asked();
        let quiet = enter(&connections, 0, many).0.unwrap();
        assert!(!honest.1 && !quiet.1);
        assert_eq!(connections.count(), 3);
        // Nobody has been quiet for long enough.
        let now = Instant::now();
        assert!(!connections.may_enter(now));
        assert!(enter(&connections, 0, "203.0.113.1").0.is_none());
        // Later the one that asks nothing goes, of those who have the most.
        assert!(connections.may_enter(now + limits::QUIET_TIME));
        let (late, made_room) = enter(&connections, 9, "203.0.113.1").0.unwrap();
        assert!(made_room && connections.count() == 3);
        assert!(connections.lock().all.contains_key(&honest.0.number));
        // Its own only, and it is answered: who has one takes none from who has one.
        assert!(enter(&connections, 9, many).0.is_none());
        drop((late, quiet, honest, asked));
        assert_eq!(connections.count(), 1, "what is displaced leaves once");
    }

    #[test]
    fn a_network_has_its_part_and_this_machine_all() {
        let connections = Connections::new(8, 2);
        let from = |from: &str| enter(&connections, 0, from).0;
        let _two = [from("192.0.2.1").unwrap(), from("192.0.2.2").unwrap()];
        assert!(from("192.0.2.3").is_none() && from("192.0.3.3").is_some());
        let here: Vec<_> = (0..5).map(|_| from("127.0.0.1").unwrap()).collect();
        assert_eq!(here.len(), 5);
        // One of its own makes room.
        let (_third, made_room) = enter(&connections, 9, "192.0.2.3").0.unwrap();
        assert!(made_room && connections.count() == 7);
    }
}
