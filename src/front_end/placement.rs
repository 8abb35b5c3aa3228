//! The placement file: which answer servers have which shards of which database, and which of them
//! a query goes to first.
//!
//! ```toml
//! [[database]]
//! id = "eu1"                                # as the directory calls it
//! evaluate = "https://evaluate.example/"    # where blinded elements are evaluated; optional
//! filter = "eu1.filter"                     # its signed routing filter; optional
//! proof = "eu1.proof"                       # proofs that its epochs are in a log; optional
//!
//! [[database.server]]
//! address = "answers-1.example:4433"
//! name = "answers-1.example"                # the name in its certificate
//! shards = [0, 4999]                        # the first and the last that it has; optional
//! ```
//!
//! In place of its servers a database may have `placement = "eu1.placement.json"`, which is what
//! the hosts themselves use (`sotto placement make`): the names of its hosts are in their
//! certificates, or `server_name` is.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use crate::hosts::{Host, Ranges, has_port, score};
use crate::limits;
use crate::shard::files::read_text;
use crate::shard::{OpenError, read_placement};
use crate::wire::parameters::check_database_name;

/// What a placement file says, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// Each database once.
    pub databases: Vec<PlacedDatabase>,
}

/// A database and its servers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlacedDatabase {
    /// Its name in the directory.
    pub id: String,
    /// Where blinded elements are evaluated, unless this front-end does it.
    #[serde(default)]
    pub evaluate: Option<String>,
    /// The file of its signed routing filter.
    #[serde(default)]
    pub filter: Option<PathBuf>,
    /// The file of the proofs that its newest epochs are in a log.
    #[serde(default)]
    pub proof: Option<PathBuf>,
    /// The file with its hosts and their shards, in place of servers.
    #[serde(default)]
    pub placement: Option<PathBuf>,
    /// The name in the certificates of these hosts, where that is not each one's own.
    #[serde(default)]
    pub server_name: Option<String>,
    /// Its answer servers, at least one; with a file of hosts it is they.
    #[serde(rename = "server", default)]
    pub servers: Vec<PlacedServer>,
}

/// An answer server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlacedServer {
    /// `host:port`.
    pub address: String,
    /// The name that its certificate must be for.
    pub name: String,
    /// The first and the last shard that it has; all of them where nothing is said.
    #[serde(default, deserialize_with = "first_and_last")]
    pub shards: Option<Ranges>,
    /// Its name in a file of hosts.
    #[serde(skip)]
    pub host: Option<String>,
    /// Of how many shards that file is.
    #[serde(skip)]
    pub shard_count: Option<u32>,
}

fn first_and_last<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Ranges>, D::Error> {
    match Vec::<u32>::deserialize(from)?[..] {
        [first, last] => Ranges::between(first, last).map(Some).ok_or_else(|| {
            let found = format!("shards = [{first}, {last}]");
            D::Error::custom(format!("found {found}, expected the first and then the last"))
        }),
        ref other => Err(D::Error::invalid_length(other.len(), &"the first and the last shard")),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(rename = "database", default)]
    databases: Vec<PlacedDatabase>,
}

/// Why a placement file is refused.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum PlacementError {
    #[error("the placement file {path} cannot be read: {error}")]
    Unreadable { path: PathBuf, error: std::io::Error },
    #[error(
        "the placement file has {found} bytes, expected at most {}: split it over front-ends",
        limits::PLACEMENT_BYTES_MAX
    )]
    TooLong { found: u64 },
    #[error("the placement file is not TOML of this form: {0}")]
    Toml(String),
    #[error("the placement file names no database; write at least one [[database]]")]
    Empty,
    #[error("the hosts of database {id}: {error}")]
    Hosts { id: String, error: Box<OpenError> },
    #[error("in the placement of database {id}, {what}: found {found}, expected {expected}")]
    Database { id: String, what: &'static str, found: String, expected: &'static str },
}

impl Placement {
    /// Reads a placement file, and those of hosts that it names.
    ///
    /// # Errors
    /// One cannot be read, or [`Placement::parse`] refuses it.
    pub fn read(path: &Path) -> Result<Self, PlacementError> {
        let unreadable = |error| PlacementError::Unreadable { path: path.to_owned(), error };
        let found = std::fs::metadata(path).map_err(unreadable)?.len();
        if found > limits::PLACEMENT_BYTES_MAX {
            return Err(PlacementError::TooLong { found });
        }
        let text = read_text(path, limits::PLACEMENT_BYTES_MAX).map_err(unreadable)?;
        let mut placement = Self::parse(&text)?;
        for database in &mut placement.databases {
            if let Some(file) = &database.placement {
                let hosts = read_placement(file).map_err(|error| {
                    let id = database.id.clone();
                    PlacementError::Hosts { id, error: error.into() }
                })?;
                database.servers = placed(hosts, database.server_name.as_deref());
            }
        }
        Ok(placement)
    }

    /// Reads the text of a placement file.
    ///
    /// # Errors
    /// What is wrong, in which database.
    pub fn parse(text: &str) -> Result<Self, PlacementError> {
        let File { databases } =
            toml::from_str(text).map_err(|error| PlacementError::Toml(error.to_string()))?;
        if databases.is_empty() {
            return Err(PlacementError::Empty);
        }
        let mut ids = HashSet::new();
        for database in &databases {
            let wrong = |what, found: String, expected| {
                let id = database.id.chars().take(limits::DATABASE_NAME_BYTES_MAX).collect();
                Err(PlacementError::Database { id, what, found, expected })
            };
            if let Err(error) = check_database_name(&database.id) {
                return wrong("id", error.to_string(), "the name that the directory has");
            }
            if !ids.insert(&database.id) {
                return wrong("id", "it twice".into(), "each database once");
            }
            let (hosts, servers) = (&database.placement, &database.servers);
            if hosts.is_some() && !servers.is_empty() {
                return wrong("server", "servers and a placement".into(), "one of them");
            }
            if hosts.is_none() && database.server_name.is_some() {
                return wrong("server_name", "no placement".into(), "one, whose hosts have it");
            }
            if hosts.is_some() {
                continue;
            }
            if let Err((what, found, expected)) = check_servers(servers) {
                return wrong(what, found, expected);
            }
        }
        Ok(Self { databases })
    }
}

/// The servers that hosts of a database are.
fn placed(hosts: crate::hosts::Placement, server_name: Option<&str>) -> Vec<PlacedServer> {
    let shard_count = Some(hosts.shard_count);
    let server = |Host { name, address, shards }: Host| PlacedServer {
        address,
        name: server_name.unwrap_or(&name).to_owned(),
        shards: Some(shards),
        host: Some(name),
        shard_count,
    };
    hosts.hosts.into_iter().map(server).collect()
}

fn check_servers(servers: &[PlacedServer]) -> Result<(), (&'static str, String, &'static str)> {
    if !(1..=limits::SERVERS_PER_DATABASE_MAX).contains(&servers.len()) {
        return Err(("server", servers.len().to_string(), "1 to 256 of them"));
    }
    let mut addresses = HashSet::new();
    for PlacedServer { address, name, .. } in servers {
        if !has_port(address) {
            return Err(("address", format!("{address:?}"), "host:port"));
        }
        if !addresses.insert(address) {
            return Err(("address", format!("{address:?} twice"), "each server once"));
        }
        if name.is_empty() {
            return Err(("name", "nothing".into(), "the name in the server's certificate"));
        }
    }
    Ok(())
}

impl PlacedServer {
    /// Whether the server has this shard.
    pub fn holds(&self, shard: u32) -> bool {
        self.shards.as_ref().is_none_or(|shards| shards.contains(shard))
    }

    /// How much this server is preferred for a shard: of those that can answer, the one with the
    /// highest score is asked (rendezvous hashing). So the queries for a shard meet at one server,
    /// and when a server leaves only its own shards move.
    pub fn score(&self, database: &str, shard: u32) -> u64 {
        match &self.host {
            // As for clients that ask these hosts themselves.
            Some(host) => score(&[host], shard),
            None => score(&[&self.address, database], shard),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        [[database]]
        id = "eu1"
        evaluate = "https://evaluate.example/"
        filter = "eu1.filter"
        [[database.server]]
        address = "one.example:4433"
        name = "one.example"
        shards = [0, 4999]
        [[database.server]]
        address = "[::1]:4433"
        name = "two"
        [[database]]
        id = "de1"
        [[database.server]]
        address = "one.example:4434"
        name = "one.example"
    "#;

    #[test]
    fn a_placement_is_read_whole() {
        let placement = Placement::parse(GOOD).unwrap();
        let [eu, de] = &placement.databases[..] else { panic!("two databases") };
        assert_eq!((&*eu.id, eu.evaluate.as_deref()), ("eu1", Some("https://evaluate.example/")));
        assert_eq!((eu.filter.as_deref(), &de.filter), (Some(Path::new("eu1.filter")), &None));
        let [one, two] = &eu.servers[..] else { panic!("two servers") };
        assert!(one.holds(0) && one.holds(4999) && !one.holds(5000) && two.holds(5000));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let with = |from: &str, to: &str| Placement::parse(&GOOD.replacen(from, to, 1));
        for (from, to, said) in [
            ("\"de1\"", "\"eu1\"", "each database once"),
            ("\"de1\"", "\"../x\"", "id: found"),
            ("[::1]:4433", "one.example:4433", "each server once"),
            ("one.example:4434", "one.example", "expected host:port"),
            ("one.example:4434", "one.example:0", "expected host:port"),
            ("[0, 4999]", "[4999, 0]", "the first and then the last"),
            ("[0, 4999]", "[0, 4999, 5]", "not TOML of this form"),
            ("\"two\"", "\"\"", "the name in the server's certificate"),
            ("filter", "fliter", "unknown field"),
        ] {
            let error = with(from, to).unwrap_err().to_string();
            assert!(error.contains(said), "{error} for {said}");
        }
        assert!(matches!(Placement::parse(""), Err(PlacementError::Empty)));
        let no_server = Placement::parse("[[database]]\nid = \"eu1\"").unwrap_err().to_string();
        assert!(no_server.contains("found 0, expected 1 to 256"), "{no_server}");
        let folder = tempfile::tempdir().unwrap();
        let long = folder.path().join("long");
        std::fs::write(&long, vec![b'#'; limits::PLACEMENT_BYTES_MAX as usize + 1]).unwrap();
        assert!(matches!(Placement::read(&long), Err(PlacementError::TooLong { .. })));
        let missing = Placement::read(&folder.path().join("none"));
        assert!(matches!(missing, Err(PlacementError::Unreadable { .. })));
    }

    #[test]
    fn hosts_come_from_the_file_that_they_use_themselves() {
        let folder = tempfile::tempdir().unwrap();
        let (hosts, toml) = (folder.path().join("eu1.json"), folder.path().join("placement.toml"));
        let made = [("a-0", "one:4433"), ("a-1", "two:4433")];
        let made = made.map(|(name, address)| (name.to_owned(), address.to_owned()));
        let made = crate::hosts::make(10, made.to_vec(), 1).unwrap();
        std::fs::write(&hosts, made.to_json()).unwrap();
        let text = format!("[[database]]\nid = \"eu1\"\nplacement = {hosts:?}\n");
        let read = |text: &str| {
            std::fs::write(&toml, text).unwrap();
            Placement::read(&toml)
        };
        let servers = read(&text).unwrap().databases.remove(0).servers;
        let names: Vec<_> = servers.iter().map(|it| (&*it.name, &*it.address)).collect();
        assert_eq!(names, [("a-0", "one:4433"), ("a-1", "two:4433")]);
        for (server, host) in servers.iter().zip(&made.hosts) {
            assert!((0..10).all(|shard| server.holds(shard) == host.shards.contains(shard)));
            assert_eq!(server.score("eu1", 3), score(&[&host.name], 3));
        }
        let named = read(&format!("{text}server_name = \"answers\"\n")).unwrap();
        assert!(named.databases[0].servers.iter().all(|server| server.name == "answers"));
        let both = format!("{text}[[database.server]]\naddress = \"a:1\"\nname = \"a\"\n");
        assert!(read(&both).unwrap_err().to_string().contains("expected one of them"));
        let error = read(&text.replace("eu1.json", "none.json")).unwrap_err().to_string();
        assert!(error.contains("the hosts of database eu1: cannot read"), "{error}");
    }

    #[test]
    fn shards_are_spread_evenly_and_move_only_from_a_server_that_left() {
        let server = |n: usize| PlacedServer {
            address: format!("host-{n}:4433"),
            name: "localhost".into(),
            ..PlacedServer::default()
        };
        let servers: Vec<_> = (0..4).map(server).collect();
        let first = |shard, without: usize| {
            let there = (0..4).filter(|&n| n != without);
            there.max_by_key(|&n| servers[n].score("eu1", shard)).unwrap()
        };
        let mut counts = [0; 4];
        for shard in 0..4_000 {
            let all = first(shard, 4);
            counts[all] += 1;
            assert!(all == 2 || first(shard, 2) == all);
        }
        assert!(counts.iter().all(|count| (850..1_150).contains(count)), "{counts:?}");
        let moved = (0..100).filter(|&shard| {
            let score = |database| (0..4).max_by_key(|&n| servers[n].score(database, shard));
            score("eu1") != score("de1")
        });
        assert!(moved.count() > 50);
    }
}
