//! Making a placement: rendezvous hashing within bounds, so that hosts hold about the same and a
//! change of hosts moves little.

use super::placement::{Host, HostsError, Placement, Ranges, VERSION};

/// Places each shard on so many hosts. A shard goes to the hosts of its highest scores that have
/// room, and a host has room for the mean of all and one more. The same hosts in any order give the
/// same placement.
///
/// # Errors
/// There are fewer hosts than copies, or what [`Placement::parse`] refuses.
pub fn make(
    shard_count: u32,
    hosts: Vec<(String, String)>,
    copies: u32,
) -> Result<Placement, HostsError> {
    if copies == 0 || copies as usize > hosts.len() {
        let (what, found) = ("copies".to_owned(), copies.to_string());
        let expected = format!("1 to the number of hosts, {}", hosts.len());
        return Err(HostsError::Wrong { what, found, expected });
    }
    let mut hosts = hosts;
    hosts.sort_unstable();
    let all = u64::from(shard_count) * u64::from(copies);
    let mut placing = Placing {
        // A shard's hosts, of which there are as many as copies.
        hosts_of: Vec::with_capacity(shard_count as usize),
        loads: vec![0; hosts.len()],
        room: all.div_ceil(hosts.len() as u64) + 1,
    };
    for shard in 0..shard_count {
        // By its name alone, so that a host that gets another address keeps what it has.
        let scores = hosts.iter().enumerate().map(|(at, (name, _))| (score(&[name], shard), at));
        let mut scores: Vec<(u64, usize)> = scores.collect();
        scores.sort_unstable_by(|a, b| b.cmp(a));
        placing.place(scores.into_iter().map(|(_, at)| at), copies as usize);
    }
    let mut held = vec![Vec::new(); hosts.len()];
    for (shard, hosts) in (0..).zip(&placing.hosts_of) {
        hosts.iter().for_each(|&host| held[host].push(shard));
    }
    let host = |((name, address), held)| Host { name, address, shards: Ranges::of(held) };
    let hosts = hosts.into_iter().zip(held).map(host).collect();
    let placement = Placement { version: VERSION, shard_count, hosts };
    placement.check()?;
    Ok(placement)
}

/// How much what has these names is preferred for a shard: of several, the one with the highest
/// score is (rendezvous hashing).
pub fn score(names: &[&str], shard: u32) -> u64 {
    let mut hasher = blake3::Hasher::new();
    // Names have no zero byte.
    names.iter().for_each(|name| _ = hasher.update(name.as_bytes()).update(&[0]));
    let hash = hasher.update(&shard.to_le_bytes()).finalize();
    u64::from_le_bytes(*hash.as_bytes().first_chunk().expect("this is a bug: a short hash"))
}

struct Placing {
    hosts_of: Vec<Vec<usize>>,
    loads: Vec<u64>,
    room: u64,
}

impl Placing {
    /// Places the next shard on the first of these hosts that have room.
    fn place(&mut self, hosts: impl Iterator<Item = usize>, copies: usize) {
        let mut chosen: Vec<usize> =
            hosts.filter(|&host| self.loads[host] < self.room).take(copies).collect();
        chosen.iter().for_each(|&host| self.loads[host] += 1);
        // At the end nearly all hosts are full: one gives an earlier shard to a host with room.
        while chosen.len() < copies {
            chosen.push(self.make_room(&chosen));
        }
        self.hosts_of.push(chosen);
    }

    /// A host that is none of these, and has the next shard instead of an earlier one, which went
    /// to one of these: the only hosts that have room.
    fn make_room(&mut self, chosen: &[usize]) -> usize {
        for hosts in self.hosts_of.iter_mut().rev() {
            let taker = (0..self.loads.len())
                .find(|host| self.loads[*host] < self.room && !hosts.contains(host));
            let giver = hosts.iter().position(|host| !chosen.contains(host));
            if let (Some(taker), Some(giver)) = (taker, giver) {
                let gives = std::mem::replace(&mut hosts[giver], taker);
                self.loads[taker] += 1;
                return gives; // one less, and one more
            }
        }
        // Where there is no such shard, the host that has least takes one more than its share.
        let least = (0..self.loads.len()).filter(|host| !chosen.contains(host));
        let least = least.min_by_key(|&host| self.loads[host]);
        let least = least.expect("this is a bug: fewer hosts than copies");
        self.loads[least] += 1;
        least
    }
}

#[cfg(test)]
mod tests {
    use super::super::placement::Difference;
    use super::*;

    fn hosts(count: usize) -> Vec<(String, String)> {
        (0..count).map(|at| (format!("host-{at}"), format!("host-{at}:4433"))).collect()
    }

    fn loads(placement: &Placement) -> Vec<u64> {
        placement.hosts.iter().map(|host| host.shards.count()).collect()
    }

    #[test]
    fn every_shard_has_its_copies_and_no_host_more_than_the_mean_and_one() {
        for (shards, count, copies) in [
            (1, 1, 1),
            (7, 3, 2),
            (10, 3, 3),
            (100, 8, 2),
            (1_000, 7, 3),
            (10_000, 148, 2),
            (10_000, 3, 2),
            (5, 9, 2),
        ] {
            let placement = make(shards, hosts(count), copies).unwrap();
            let loads = loads(&placement);
            let mean = (u64::from(shards) * u64::from(copies)).div_ceil(count as u64);
            assert_eq!(loads.iter().sum::<u64>(), u64::from(shards) * u64::from(copies));
            assert!(loads.iter().all(|&load| load <= mean + 1), "{shards} {count}: {loads:?}");
            for shard in 0..shards {
                let held = placement.hosts.iter().filter(|host| host.shards.contains(shard));
                assert_eq!(held.count(), copies as usize, "{shards} {count}: {shard}");
            }
        }
        assert!(make(10, hosts(2), 3).unwrap_err().to_string().contains("1 to the number"));
        assert!(make(10, hosts(2), 0).is_err());
    }

    #[test]
    fn the_order_of_hosts_changes_nothing_and_a_new_host_moves_little() {
        let placement = make(10_000, hosts(148), 2).unwrap();
        let mut other = hosts(148);
        other.reverse();
        assert_eq!(make(10_000, other, 2).unwrap(), placement);
        let more = make(10_000, hosts(149), 2).unwrap();
        let Difference { moved, .. } = placement.difference(&more);
        assert!((134..400).contains(&moved) && more.lacking(1).is_empty(), "{moved}");
        let fewer = make(10_000, hosts(147), 2).unwrap();
        assert!(placement.difference(&fewer).moved < 400);
    }
}
