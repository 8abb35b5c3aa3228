//! The form of `placement.json`, and what is said of one.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::limits;
use crate::text;

pub(super) const VERSION: u32 = 1;

/// Which hosts have which shards. One that exists is valid, but a shard may have no host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)] // Names say it.
pub struct Placement {
    pub(super) version: u32,
    pub shard_count: u32,
    pub hosts: Vec<Host>,
}

/// A host and what it has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// Its name, also in its certificate.
    pub name: String,
    /// `host:port`.
    pub address: String,
    /// The shards that it has.
    pub shards: Ranges,
}

/// Shard numbers as text: `0-4,7`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ranges(Vec<(u32, u32)>);

/// Whether an address ends with a port to connect to.
pub fn has_port(address: &str) -> bool {
    let port = address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
    port.is_some_and(|port| port != 0)
}

/// What differs between two placements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Copies of shards that hosts have to fetch.
    pub moved: u64,
    /// Of each host that changes: its name, what it fetches, and what it holds no more.
    pub hosts: Vec<(String, Ranges, Ranges)>,
    /// Hosts that are not in the second one.
    pub left: Vec<String>,
}

/// Why a placement is refused.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum HostsError {
    #[error("the placement is not JSON of this form: {0}")]
    Json(#[from] serde_json::Error),
    #[error("in the placement, {what}: found {found}, expected {expected}")]
    Wrong { what: String, found: String, expected: String },
    #[error("the placement has no host {0}: correct the name, or make another placement")]
    NoHost(String),
    #[error("the placement gives host {0} no shard")]
    NoShards(String),
    #[error(
        "the placement is of {found} shards, and the database has {expected}: make one for this \
         database (`sotto placement make`)"
    )]
    ShardCount { found: u32, expected: u32 },
    #[error("{0:?} is no list of shards, expected numbers and ranges in order, such as 0-4,7")]
    Ranges(String),
}

impl Ranges {
    /// Of these shards, in order and each once.
    pub fn of(shards: impl IntoIterator<Item = u32>) -> Self {
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        for shard in shards {
            match ranges.last_mut() {
                Some((_, last)) if last.checked_add(1) == Some(shard) => *last = shard,
                _ => ranges.push((shard, shard)),
            }
        }
        Self(ranges)
    }

    /// From the first to the last, if they are in this order.
    pub fn between(first: u32, last: u32) -> Option<Self> {
        (first <= last).then(|| Self(vec![(first, last)]))
    }

    /// Whether a shard is among them.
    pub fn contains(&self, shard: u32) -> bool {
        let after = self.0.partition_point(|&(first, _)| first <= shard);
        after > 0 && shard <= self.0[after - 1].1
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        self.0.iter().flat_map(|&(first, last)| first..=last)
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.0.iter().map(|&(first, last)| u64::from(last - first) + 1).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn last(&self) -> Option<u32> {
        self.0.last().map(|&(_, last)| last)
    }
}

impl FromStr for Ranges {
    type Err = HostsError;

    fn from_str(text: &str) -> Result<Self, HostsError> {
        let wrong = || HostsError::Ranges(text.chars().take(40).collect());
        let number = |text: &str| text.trim().parse::<u32>().map_err(|_| wrong());
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        for part in text.split(',').filter(|_| !text.trim().is_empty()) {
            let (first, last) = match part.split_once('-') {
                Some((first, last)) => (number(first)?, number(last)?),
                None => (number(part)?, number(part)?),
            };
            if first > last || ranges.last().is_some_and(|&(_, before)| before >= first) {
                return Err(wrong());
            }
            ranges.push((first, last));
        }
        Ok(Self(ranges))
    }
}

impl fmt::Display for Ranges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = |&(first, last): &(u32, u32)| match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        };
        f.write_str(&self.0.iter().map(part).collect::<Vec<_>>().join(","))
    }
}

impl Serialize for Ranges {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Ranges {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl Placement {
    /// Reads a placement.
    ///
    /// # Errors
    /// It is not JSON of this form; or a host is there twice, or has a shard that there is not.
    pub fn parse(json: &[u8]) -> Result<Self, HostsError> {
        let json = json.strip_prefix(text::BYTE_ORDER_MARK).unwrap_or(json);
        let placement: Self = serde_json::from_slice(json)?;
        placement.check()?;
        Ok(placement)
    }

    pub(super) fn check(&self) -> Result<(), HostsError> {
        let wrong = |what: &str, found: &dyn ToString, expected: &dyn ToString| {
            let (what, found) = (what.to_owned(), found.to_string());
            Err(HostsError::Wrong { what, found, expected: expected.to_string() })
        };
        if self.version != VERSION {
            return wrong("version", &self.version, &VERSION);
        }
        let most = limits::SHARDS_MAX;
        if !(1..=most).contains(&self.shard_count) {
            return wrong("shard_count", &self.shard_count, &format!("1 to {most}"));
        }
        let most = limits::HOSTS_MAX;
        if !(1..=most).contains(&self.hosts.len()) {
            return wrong("hosts", &self.hosts.len(), &format!("1 to {most} of them"));
        }
        let (mut names, mut addresses) = (HashSet::new(), HashSet::new());
        for Host { name, address, shards } in &self.hosts {
            let is_name = !name.is_empty()
                && name.len() <= limits::HOST_NAME_BYTES_MAX
                && name.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c));
            if !is_name {
                let expected = "letters, digits, dots, dashes and underscores";
                return wrong("name", &format!("{name:?}"), &expected);
            }
            if !names.insert(name) {
                return wrong("name", &format!("{name} twice"), &"each host once");
            }
            if !has_port(address) {
                return wrong("address", &format!("{address:?}"), &"host:port");
            }
            if !addresses.insert(address) {
                return wrong("address", &format!("{address} twice"), &"each address once");
            }
            if let Some(last) = shards.last().filter(|&last| last >= self.shard_count) {
                let what = format!("shards of {name}");
                return wrong(&what, &last, &format!("0 to {}", self.shard_count - 1));
            }
        }
        Ok(())
    }

    /// JSON for people too: a host a line.
    pub fn to_json(&self) -> String {
        let json = |host| serde_json::to_string(host).expect("this is a bug: a host is not JSON");
        let hosts: Vec<String> = self.hosts.iter().map(json).collect();
        let (version, shard_count) = (self.version, self.shard_count);
        format!(
            "{{\n \"version\": {version},\n \"shard_count\": {shard_count},\n \"hosts\": [\n  {}\n \
             ]\n}}\n",
            hosts.join(",\n  ")
        )
    }

    /// How many hosts have each shard.
    pub fn copies(&self) -> Vec<u32> {
        let mut copies_of = vec![0u32; self.shard_count as usize];
        let held = self.hosts.iter().flat_map(|host| host.shards.iter());
        held.for_each(|shard| copies_of[shard as usize] += 1);
        copies_of
    }

    /// The shards that fewer than so many hosts have.
    pub fn lacking(&self, copies: u32) -> Ranges {
        let few = (0..).zip(self.copies()).filter(|&(_, found)| found < copies);
        Ranges::of(few.map(|(shard, _)| shard))
    }

    /// What hosts have to fetch, and may remove, to go from this placement to another.
    pub fn difference(&self, to: &Self) -> Difference {
        let before: HashMap<&str, &Host> =
            self.hosts.iter().map(|host| (&*host.name, host)).collect();
        let change = |host: &Host| {
            let had = before.get(&*host.name).map(|host| &host.shards);
            let is_new = |shard: &u32| had.is_none_or(|had| !had.contains(*shard));
            let fetched = Ranges::of(host.shards.iter().filter(is_new));
            let gone = had.into_iter().flat_map(Ranges::iter);
            let gone = Ranges::of(gone.filter(|&shard| !host.shards.contains(shard)));
            (host.name.clone(), fetched, gone)
        };
        let mut hosts: Vec<_> = to.hosts.iter().map(change).collect();
        hosts.retain(|(_, fetched, gone)| fetched.count() + gone.count() > 0);
        let left = self.hosts.iter().filter(|host| to.host(&host.name).is_none());
        Difference {
            moved: hosts.iter().map(|(_, fetched, _)| fetched.count()).sum(),
            hosts,
            left: left.map(|host| host.name.clone()).collect(),
        }
    }

    /// The host of a name.
    pub fn host(&self, name: &str) -> Option<&Host> {
        self.hosts.iter().find(|host| host.name == name)
    }

    /// What a host has of a database of so many shards.
    ///
    /// # Errors
    /// The placement is of another number of shards, or gives the host none.
    pub fn shards_of(&self, name: &str, shard_count: u32) -> Result<Ranges, HostsError> {
        self.check_shard_count(shard_count)?;
        let shards = &self.host(name).ok_or_else(|| HostsError::NoHost(name.to_owned()))?.shards;
        match shards.is_empty() {
            true => Err(HostsError::NoShards(name.to_owned())),
            false => Ok(shards.clone()),
        }
    }

    /// An error unless it is of a database of so many shards.
    pub fn check_shard_count(&self, expected: u32) -> Result<(), HostsError> {
        match self.shard_count {
            found if found != expected => Err(HostsError::ShardCount { found, expected }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"version": 1, "shard_count": 10, "hosts": [
        {"name": "a-0", "address": "a-0.example:4433", "shards": "0-4,7"},
        {"name": "a-1", "address": "a-1.example:4433", "shards": "5-9"}]}"#;

    #[test]
    fn a_placement_comes_back() {
        let placement = Placement::parse(GOOD.as_bytes()).unwrap();
        assert_eq!(Placement::parse(placement.to_json().as_bytes()).unwrap(), placement);
        let first = &placement.host("a-0").unwrap().shards;
        let held: Vec<u32> = (0..10).filter(|&shard| first.contains(shard)).collect();
        assert_eq!((held, first.count()), (vec![0, 1, 2, 3, 4, 7], 6));
        assert_eq!(Ranges::of(first.iter()), *first);
        assert_eq!("".parse::<Ranges>().unwrap().count(), 0);
        assert!(placement.host("a-2").is_none());
        assert_eq!(placement.shards_of("a-1", 10).unwrap().to_string(), "5-9");
        let refused = |name, shards| placement.shards_of(name, shards).unwrap_err();
        assert!(matches!(refused("a-2", 10), HostsError::NoHost(_)));
        let counts = HostsError::ShardCount { found: 10, expected: 11 };
        assert_eq!(refused("a-1", 11).to_string(), counts.to_string());
        let mut idle = placement.clone();
        idle.hosts[1].shards = Ranges::default();
        assert!(matches!(idle.shards_of("a-1", 10), Err(HostsError::NoShards(_))));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (from, to, said) in [
            ("\"version\": 1", "\"version\": 2", "version: found 2, expected 1"),
            (
                "\"shard_count\": 10",
                "\"shard_count\": 9",
                "shards of a-1: found 9, expected 0 to 8",
            ),
            ("\"shard_count\": 10", "\"shard_count\": 0", "shard_count: found 0"),
            ("\"a-1\"", "\"a-0\"", "a-0 twice"),
            ("\"a-1\"", "\"a 1\"", "letters, digits"),
            ("a-1.example:4433", "a-0.example:4433", "each address once"),
            ("a-1.example:4433", "a-1.example", "host:port"),
            ("0-4,7", "0-4,4", "no list of shards"),
            ("0-4,7", "4-0", "no list of shards"),
            ("0-4,7", "x", "no list of shards"),
            ("address", "adress", "not JSON of this form"),
        ] {
            let error = Placement::parse(GOOD.replacen(from, to, 1).as_bytes()).unwrap_err();
            assert!(error.to_string().contains(said), "{error} for {said}");
        }
    }
}
