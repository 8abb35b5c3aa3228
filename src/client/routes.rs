//! Which replica a look-up goes to: all of them have the whole database, or each has the shards
//! that a placement gives it.
//!
//! Where all have everything, the first is asked until it fails, then the next one. Where there is
//! a placement, a shard has an order of hosts of its own, the same for all clients (rendezvous
//! hashing), so that the queries for a shard meet at one host; a host that failed comes last for
//! [`limits::HOST_AVOIDED_TIME`].

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::link::{Dialer, Link};
use super::options::Options;
use super::retry::{Event, FailedAttempt, Via};
use crate::hosts::{Placement, score};
use crate::limits;
use crate::wire::Status;

/// What is given up: a replica, or one shard of it.
type Target = (usize, Option<u32>);

/// The replicas of a client, and which of them failed.
pub(super) struct Routes {
    pub(super) dialer: Arc<Dialer>,
    /// By shard, those that have it; the preferred one first. None where all have everything.
    hosts_of: Option<Vec<Vec<usize>>>,
    /// When each was last given up: in what order, and at what time.
    given_up: HashMap<Target, (u64, Instant)>,
    count: u64,
}

impl Routes {
    pub(super) fn new(options: &Options, dialer: Arc<Dialer>) -> Self {
        let hosts_of = options.placement.as_deref().map(hosts_of);
        Self { dialer, hosts_of, given_up: HashMap::new(), count: 0 }
    }

    /// How many have a shard.
    pub(super) fn holders(&self, shard: u32) -> usize {
        match &self.hosts_of {
            None => self.dialer.replica_count(),
            Some(hosts_of) => hosts_of.get(shard as usize).map_or(0, Vec::len),
        }
    }

    /// Those that have a shard, or all of them, the one to ask first.
    pub(super) fn order(&self, shard: Option<u32>) -> Vec<usize> {
        let mut order = match (&self.hosts_of, shard) {
            (Some(hosts_of), Some(shard)) => {
                hosts_of.get(shard as usize).cloned().unwrap_or_default()
            }
            _ => (0..self.dialer.replica_count()).collect(),
        };
        let longest = match self.hosts_of {
            None => Duration::MAX,
            Some(_) => limits::HOST_AVOIDED_TIME,
        };
        let last = |target: Target| {
            let (number, at) = self.given_up.get(&target)?;
            (at.elapsed() < longest).then_some(*number)
        };
        // Stable: those that did not fail stay as they are.
        let of_shard = |replica| shard.and_then(|shard| last((replica, Some(shard))));
        order.sort_by_key(|&replica| last((replica, None)).max(of_shard(replica)));
        order
    }

    /// An open connection to whoever did not fail; none if there is none.
    pub(super) fn any_open(&self) -> Option<Arc<Link>> {
        let order = self.order(None);
        let never = |&&replica: &&usize| !self.given_up.contains_key(&(replica, None));
        let first = order.first().and_then(|&first| self.dialer.open(first));
        first.or_else(|| order.iter().filter(never).find_map(|&replica| self.dialer.open(replica)))
    }

    /// A replica, or one shard of it, comes after the others from now on.
    pub(super) fn give_up(&mut self, replica: usize, shard: Option<u32>) {
        if self.given_up.len() >= limits::GIVEN_UP_MAX {
            self.given_up.clear();
        }
        self.count += 1;
        self.given_up.insert((replica, shard), (self.count, Instant::now()));
    }

    /// Whoever comes before this one in an order was tried, and did not answer.
    pub(super) fn passed_over(&mut self, order: &[usize], taken: usize) {
        for &replica in order.iter().take_while(|&&replica| replica != taken) {
            self.give_up(replica, None);
        }
    }

    /// Gives up those whose connections fell silent.
    pub(super) fn note_silent(&mut self) {
        for replica in 0..self.dialer.replica_count() {
            if self.dialer.fell_silent(replica) {
                self.give_up(replica, None);
            }
        }
    }

    /// Goes another way after an attempt over a link failed, unless the next bytes go over it too.
    pub(super) fn go(&mut self, link: &Arc<Link>, via: Via, shard: Option<u32>) {
        if via == Via::Same {
            return;
        }
        if via == Via::Replica {
            self.give_up(link.replica, shard);
        }
        if shard.is_none() {
            self.dialer.give_up(link);
        }
    }
}

/// Whether an attempt failed for its shard alone, so that others may go to the same host.
pub(super) fn is_of_shard(failed: &FailedAttempt) -> bool {
    matches!(failed.event, Event::Refused { status: Status::ShardUnknown, .. })
}

/// The hosts of each shard of a placement, by rank.
fn hosts_of(placement: &Placement) -> Vec<Vec<usize>> {
    let mut hosts_of = vec![Vec::new(); placement.shard_count as usize];
    for (number, host) in placement.hosts.iter().enumerate() {
        host.shards.iter().for_each(|shard| hosts_of[shard as usize].push(number));
    }
    for (shard, hosts) in (0..).zip(&mut hosts_of) {
        hosts.sort_by_cached_key(|&host| {
            std::cmp::Reverse(score(&[&placement.hosts[host].name], shard))
        });
    }
    hosts_of
}

#[cfg(feature = "server")]
#[cfg(test)]
mod tests {
    use super::super::options::Replica;
    use super::super::trust::Pins;
    use super::*;
    use crate::hosts::make;

    fn routes(hosts: usize, copies: Option<u32>) -> Routes {
        let ca_pem = crate::server::certificates::localhost().unwrap().ca_pem.into_bytes();
        let replica =
            |n: usize| Replica::new(([127, 0, 0, 1], 4433 + n as u16).into(), "localhost");
        let mut options = Options::new(replica(0), ca_pem, Pins::first_use());
        options.replicas = (0..hosts).map(replica).collect();
        let names = || (0..hosts).map(|n| (format!("a-{n}"), format!("localhost:{}", 4433 + n)));
        options.placement =
            copies.map(|copies| Arc::new(make(100, names().collect(), copies).unwrap()));
        let dialer = Arc::new(Dialer::new(&options).unwrap());
        Routes::new(&options, dialer)
    }

    #[test]
    fn replicas_of_everything_are_asked_one_until_it_fails() {
        let mut routes = routes(3, None);
        assert_eq!((routes.order(Some(7)), routes.holders(7)), (vec![0, 1, 2], 3));
        for (failed, then) in [(0, [1, 2, 0]), (1, [2, 0, 1]), (2, [0, 1, 2]), (0, [1, 2, 0])] {
            routes.give_up(failed, None);
            assert_eq!(routes.order(Some(7)), then);
        }
        // Those before the one that answered did not.
        routes.passed_over(&[1, 2, 0], 0);
        assert_eq!(routes.order(None), [0, 1, 2]);
    }

    #[test]
    fn shards_go_to_their_hosts_and_past_one_that_fails() {
        let mut routes = routes(5, Some(2));
        let firsts: Vec<usize> = (0..100).map(|shard| routes.order(Some(shard))[0]).collect();
        for host in 0..5 {
            let first = firsts.iter().filter(|&&first| first == host).count();
            assert!((8..=32).contains(&first), "{first} of 100 shards go to host {host} first");
        }
        let shards = || 0..100u32;
        assert!(shards().all(|shard| routes.holders(shard) == 2));
        assert_eq!((routes.order(Some(100)), routes.holders(100)), (vec![], 0));
        // One shard of a host, and then all of it.
        let host = firsts[7];
        let second = routes.order(Some(7))[1];
        routes.give_up(host, Some(7));
        for shard in shards() {
            let expected = if shard == 7 { second } else { firsts[shard as usize] };
            assert_eq!(routes.order(Some(shard))[0], expected);
        }
        routes.give_up(host, None);
        for (shard, &first) in shards().zip(&firsts) {
            let order = routes.order(Some(shard));
            assert_eq!((order.len(), order[0] == first), (2, first != host), "{shard}");
        }
        // When both failed, the one that failed earlier is tried.
        routes.give_up(second, None);
        assert_eq!(routes.order(Some(7)), [host, second]);
        // After some time the host is asked again.
        let long_ago = Instant::now().checked_sub(limits::HOST_AVOIDED_TIME).unwrap();
        routes.given_up.values_mut().for_each(|(_, at)| *at = long_ago);
        assert!(shards().zip(firsts).all(|(shard, first)| routes.order(Some(shard))[0] == first));
    }
}
