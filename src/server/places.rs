//! Places: how many handshakes and how many connections there are at once, and which of them goes
//! when there are too many.
//!
//! Of handshakes the oldest goes: an honest one takes two round trips, whoever never ends one has
//! most of the old ones. Of connections one that asks nothing goes, of whoever has the most. Whose
//! a connection is says its front-end where front-ends are known, else the network it comes from.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use quinn::{Connection, VarInt};
use tokio::sync::oneshot;

use crate::limits;
use crate::wire::StreamCode;

/// A network: the addresses that one operator usually has, /24 of IPv4 and /48 of IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Network {
    V4(u32),
    V6(u128),
}

impl Network {
    pub(super) fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self::V4(v4.to_bits() >> 8),
            IpAddr::V6(v6) => Self::V6(v6.to_bits() >> 80),
        }
    }
}

/// The handshakes that have begun and not ended.
pub(super) struct Handshakes {
    max: usize,
    per_network_max: usize,
    begun: Mutex<Begun>,
}

#[derive(Default)]
struct Begun {
    next: u64,
    /// The oldest first. Dropping the sender tells the handshake to go.
    all: BTreeMap<u64, (Network, oneshot::Sender<()>)>,
    by_network: HashMap<Network, BTreeSet<u64>>,
}

/// A handshake's place.
pub(super) struct HandshakePlace {
    handshakes: Arc<Handshakes>,
    number: u64,
    displaced: oneshot::Receiver<()>,
}

impl Handshakes {
    /// At least one, and of one network at most half of them.
    pub(super) fn new(max: usize) -> Arc<Self> {
        let (max, per_network_max) = (max.max(1), max.div_ceil(2).max(1));
        Arc::new(Self { max, per_network_max, begun: Mutex::default() })
    }

    /// A place for one more. Where its network or all together have as many as they may, the oldest
    /// goes: the network's own, or that of whoever has the most.
    pub(super) fn enter(self: &Arc<Self>, from: IpAddr) -> HandshakePlace {
        let network = Network::of(from);
        let (stay, displaced) = oneshot::channel();
        let mut begun = self.lock();
        let own = begun.by_network.get(&network).map_or(0, BTreeSet::len);
        if own >= self.per_network_max {
            begun.displace_of(network);
        } else if begun.all.len() >= self.max {
            let most = begun.by_network.iter().max_by_key(|(_, numbers)| numbers.len());
            let most = most.map(|(&most, _)| most);
            most.into_iter().for_each(|most| begun.displace_of(most));
        }
        let number = begun.next;
        begun.next += 1;
        begun.all.insert(number, (network, stay));
        begun.by_network.entry(network).or_default().insert(number);
        drop(begun);
        HandshakePlace { handshakes: self.clone(), number, displaced }
    }

    fn lock(&self) -> MutexGuard<'_, Begun> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Begun {
    fn displace_of(&mut self, network: Network) {
        let oldest = self.by_network.get(&network).and_then(|numbers| numbers.first().copied());
        oldest.into_iter().for_each(|number| self.remove(number));
    }

    fn remove(&mut self, number: u64) {
        let Some((network, _)) = self.all.remove(&number) else { return };
        let numbers = self.by_network.get_mut(&network);
        let numbers = numbers.expect("this is a bug: a handshake of no network");
        numbers.remove(&number);
        if numbers.is_empty() {
            self.by_network.remove(&network);
        }
    }
}

impl HandshakePlace {
    /// Ready when another took this place.
    pub(super) async fn displaced(&mut self) {
        let _ = (&mut self.displaced).await;
    }
}

impl Drop for HandshakePlace {
    fn drop(&mut self) {
        self.handshakes.lock().remove(self.number);
    }
}

/// Whose a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Holder {
    /// A front-end's, by its number in the schedule.
    FrontEnd(u64),
    /// Somebody's from this network.
    Network(Network),
    /// This machine's: all that use it share one address.
    Loopback,
}

impl Holder {
    pub(super) fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            address if address.is_loopback() => Self::Loopback,
            address => Self::Network(Network::of(address)),
        }
    }
}

/// Whether a connection asks anything. Opening streams is not asking: a request has to be read
/// whole and be one.
pub(super) struct Activity {
    begun: Instant,
    asked_ms: AtomicU64,
    answering: AtomicUsize,
}

/// A request that is being answered.
pub(super) struct Answering<'a>(&'a Activity);

impl Activity {
    pub(super) fn new() -> Arc<Self> {
        let (asked_ms, answering) = (AtomicU64::new(0), AtomicUsize::new(0));
        Arc::new(Self { begun: Instant::now(), asked_ms, answering })
    }

    /// A request was read.
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

/// The connections that are served.
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

/// A connection's place.
pub(super) struct ConnectionPlace {
    connections: Arc<Connections>,
    number: u64,
}

/// What came of asking for a place.
pub(super) enum Entered {
    /// There was room.
    Yes(ConnectionPlace),
    /// Another connection had to go.
    MadeRoom(ConnectionPlace),
    /// All are taken by connections that ask something.
    No,
}

impl Connections {
    pub(super) fn new(max: usize, per_network_max: usize) -> Arc<Self> {
        Arc::new(Self { max, per_network_max, served: Mutex::default() })
    }

    /// How many are served.
    pub(super) fn count(&self) -> usize {
        self.lock().all.len()
    }

    /// Whether a handshake is worth it.
    pub(super) fn may_enter(&self, now: Instant) -> bool {
        let served = self.lock();
        served.all.len() < self.max || served.all.values().any(|entry| entry.quiet(now).is_some())
    }

    /// A place for this connection.
    pub(super) fn enter(
        self: &Arc<Self>,
        now: Instant,
        holder: Holder,
        activity: Arc<Activity>,
        connection: Option<Connection>,
    ) -> Entered {
        let mut served = self.lock();
        let own = served.all.values().filter(|entry| entry.holder == holder).count();
        let crowded = matches!(holder, Holder::Network(_)) && own >= self.per_network_max;
        let mut made_room = false;
        if crowded || served.all.len() >= self.max {
            let whose = |other: Holder, has: usize| {
                // Nobody takes a place from who has fewer.
                other == holder || (!crowded && has > own)
            };
            let Some(number) = served.quietest(now, whose) else { return Entered::No };
            let gone = served.all.remove(&number).and_then(|entry| entry.connection);
            if let Some(connection) = gone {
                let code = VarInt::from_u32(StreamCode::ExcessiveLoad.code());
                connection.close(code, b"idle, and others ask");
            }
            made_room = true;
        }
        let number = served.next;
        served.next += 1;
        served.all.insert(number, Entry { holder, activity, connection });
        drop(served);
        let place = ConnectionPlace { connections: self.clone(), number };
        if made_room { Entered::MadeRoom(place) } else { Entered::Yes(place) }
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

    fn gone(place: &mut HandshakePlace) -> bool {
        matches!(place.displaced.try_recv(), Err(oneshot::error::TryRecvError::Closed))
    }

    #[test]
    fn networks_are_those_of_one_operator() {
        let same = |a: &str, b: &str| Network::of(address(a)) == Network::of(address(b));
        assert!(same("192.0.2.1", "192.0.2.255") && !same("192.0.2.1", "192.0.3.1"));
        assert!(same("192.0.2.1", "::ffff:192.0.2.7"));
        assert!(same("2001:db8:1::1", "2001:db8:1:ffff::2") && !same("2001:db8:1::", "2001:db8::"));
        assert_eq!(Holder::of(address("::ffff:127.0.0.1")), Holder::Loopback);
        assert_eq!(Holder::of(address("::1")), Holder::Loopback);
    }

    #[test]
    fn the_oldest_handshake_goes_of_whoever_has_the_most() {
        let handshakes = Handshakes::new(4);
        let mut flood: Vec<_> = (0..2).map(|_| handshakes.enter(address("192.0.2.1"))).collect();
        assert!(!flood.iter_mut().any(gone));
        // A network has half of the places.
        flood.push(handshakes.enter(address("192.0.2.2")));
        let went: Vec<_> = flood.iter_mut().map(gone).collect();
        assert_eq!(went, [true, false, false]);
        let mut others = [handshakes.enter(address("198.51.100.1"))];
        let _more = handshakes.enter(address("203.0.113.1"));
        // All are taken.
        let mut last = handshakes.enter(address("2001:db8::1"));
        let went: Vec<_> = flood.iter_mut().map(gone).collect();
        assert_eq!(went, [true, true, false]);
        assert!(!others.iter_mut().any(gone) && !gone(&mut last));
        drop((flood, others, _more, last));
        let begun = handshakes.lock();
        assert!(begun.all.is_empty() && begun.by_network.is_empty());
    }

    /// A place asked for after so many seconds.
    fn enter(connections: &Arc<Connections>, second: u64, from: &str) -> (Entered, Arc<Activity>) {
        let activity = Activity::new();
        let at = activity.begun + Duration::from_secs(second);
        let holder = Holder::of(address(from));
        (connections.enter(at, holder, activity.clone(), None), activity)
    }

    fn place((entered, _): (Entered, Arc<Activity>)) -> Option<(ConnectionPlace, bool)> {
        match entered {
            Entered::Yes(place) => Some((place, false)),
            Entered::MadeRoom(place) => Some((place, true)),
            Entered::No => None,
        }
    }

    #[test]
    fn who_asks_nothing_goes_and_nobody_takes_from_who_has_fewer() {
        let connections = Connections::new(3, 2);
        let (few, many) = ("192.0.2.1", "198.51.100.1");
        let honest = place(enter(&connections, 0, few)).unwrap();
        let busy = enter(&connections, 0, many);
        let asked = busy.1.asked();
        let quiet = place(enter(&connections, 0, many)).unwrap();
        assert!(!honest.1 && !quiet.1);
        assert_eq!(connections.count(), 3);
        // Nobody has been quiet for long enough.
        let now = Instant::now();
        assert!(!connections.may_enter(now));
        assert!(place(enter(&connections, 0, "203.0.113.1")).is_none());
        // Later the one that asks nothing goes, of those who have the most.
        assert!(connections.may_enter(now + limits::QUIET_TIME));
        let (late, made_room) = place(enter(&connections, 9, "203.0.113.1")).unwrap();
        assert!(made_room && connections.count() == 3);
        assert!(connections.lock().all.contains_key(&honest.0.number));
        // Its own only, and it is answered: who has one takes none from who has one.
        assert!(place(enter(&connections, 9, many)).is_none());
        drop((late, quiet, honest, asked));
        assert_eq!(connections.count(), 1, "what is displaced leaves once");
    }

    #[test]
    fn a_network_has_its_part_and_this_machine_all() {
        let connections = Connections::new(8, 2);
        let from = |from: &str| place(enter(&connections, 0, from));
        let _two = [from("192.0.2.1").unwrap(), from("192.0.2.2").unwrap()];
        assert!(from("192.0.2.3").is_none() && from("192.0.3.3").is_some());
        let here: Vec<_> = (0..5).map(|_| from("127.0.0.1").unwrap()).collect();
        assert_eq!(here.len(), 5);
        // One of its own makes room.
        let (_third, made_room) = place(enter(&connections, 9, "192.0.2.3")).unwrap();
        assert!(made_room && connections.count() == 7);
    }
}
