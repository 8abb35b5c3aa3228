//! New epochs of a server under load: how long it takes until one is served, and what becomes of
//! the look-ups meanwhile. An epoch that changes so many shards is built once; after that epochs go
//! there and back ([`rollback`]), each a new one to the server.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, BufWriter, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sotto::builder::{Silent, rollback};
use sotto::client::{Client, Outcome};
use sotto::commands::out::report;
use sotto::keyword::locate_known;
use sotto::limits;
use sotto::shard::Database;
use sotto::shard::header::file_bytes;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::place::{Place, cannot, ms, seed, spread};
use super::server::{Server, Site};
use crate::Failed;
use crate::record::{Change, Head, RELOAD_SCHEMA, Reload};

/// Clients that ask, each one look-up after the other.
const CLIENTS: usize = 4;
/// Records they ask for, at most.
const ASKED_MAX: u64 = 4096;

/// What the values of the sample begin with, and those of changed records.
const VALUE: &str = "im:u";
const CHANGED_VALUE: &str = "im:v";

/// Measures reloads that change one shard, a tenth of them, and all.
pub(crate) async fn reload(place: Place) -> Result<Reload, Failed> {
    let head = Head::new(RELOAD_SCHEMA);
    let bench = Arc::new(place.blocking(Bench::new).await?);
    let server = Site::new(&place)?.start().await?;
    server.ready().await?;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(Client::connect(server.options.clone()).await?);
    }
    let (mut lookups, mut lost, mut changes) = (0, 0, Vec::new());
    let all = bench.firsts.len();
    let mut numbers = vec![1, all / 10, all];
    numbers.retain(|&number| number > 0);
    numbers.dedup();
    for shards in numbers {
        let (mut reloads, mut lookup_ms_max) = (Vec::new(), 0f64);
        // There and back: at the end it is as it was.
        for run in 0..place.options.runs.next_multiple_of(2) {
            let next = bench.clone();
            let epoch = place.blocking(move |_| next.next_epoch(shards, run)).await?;
            let seen = one(&server, &mut clients, &bench, epoch, (shards, run)).await?;
            report(format_args!(
                "epoch {epoch}, {shards} of {} shards changed: served after {:.1} ms; {} look-ups \
                 meanwhile, the slowest {:.1} ms",
                place.options.shards,
                ms(seen.reload),
                seen.lookups,
                ms(seen.slowest)
            ));
            lookups += seen.lookups;
            lost += seen.lost;
            reloads.push(ms(seen.reload));
            lookup_ms_max = lookup_ms_max.max(ms(seen.slowest));
        }
        let bytes = shards as u64 * bench.shard_bytes;
        let reload_ms = spread(reloads);
        changes.push(Change { shards: shards as u32, bytes, reload_ms, lookup_ms_max });
    }
    for client in clients {
        drop(client.close().await);
    }
    server.leave().await?;
    if lost > 0 {
        return Err(format!(
            "{lost} of {lookups} look-ups during reloads had no right answer, expected all of them"
        )
        .into());
    }
    let content = place.blocking(Place::content).await?;
    Ok(Reload { head, content, threads: place.threads(), changes, lookups, lost })
}

#[derive(Debug, Clone)]
struct Asked {
    key: String,
    value: String,
    /// What else it may be: that of an epoch in which it is changed.
    changed: Option<String>,
}

impl Asked {
    fn is_right(&self, outcome: &Outcome) -> bool {
        let is = |value: &String| *outcome == Outcome::Found(value.clone().into_bytes());
        is(&self.value) || self.changed.as_ref().is_some_and(is)
    }
}

struct Bench {
    place: Place,
    groups: u32,
    shard_bytes: u64,
    /// The first record of every shard that has one, by its number: what changes.
    firsts: Vec<(u32, Asked)>,
    asked: Vec<Asked>,
}

impl Bench {
    fn new(place: &Place) -> Result<Self, Failed> {
        place.write_input()?;
        place.build(&place.input(), seed(0))?;
        let database = Database::open(&place.db())?;
        let shape = database.shape();
        let records: u64 = database.shards().iter().map(|shard| shard.header().records).sum();
        let mut bench = Self {
            place: place.clone(),
            groups: shape.groups() as u32,
            shard_bytes: file_bytes(shape),
            firsts: Vec::new(),
            asked: Vec::new(),
        };
        let step = (records / ASKED_MAX).max(1);
        let (mut firsts, mut asked, mut number) = (BTreeMap::new(), Vec::new(), 0);
        bench.each_record(&mut |shard, key, value| {
            let mut record = Asked { key: key.into(), value: value.into(), changed: None };
            if let Entry::Vacant(first) = firsts.entry(shard) {
                record.changed = Some(changed(value));
                first.insert(record.clone());
            }
            if number % step == 0 {
                asked.push(record);
            }
            number += 1;
            Ok(())
        })?;
        bench.firsts = firsts.into_iter().collect();
        bench.asked = asked;
        Ok(bench)
    }

    /// Makes the next epoch: in even runs the first `shards` shards are changed, in odd ones as
    /// they were. Its number.
    fn next_epoch(&self, shards: usize, run: u32) -> Result<u64, Failed> {
        let (epoch, changed) = if run == 0 {
            let built = self.place.build(&self.write_changed(shards)?, seed(0))?;
            // A shard changed as in an epoch before is not built again, but changes.
            (built.epoch, (built.shard_count - built.reused) as usize)
        } else {
            let days = limits::EXPIRES_DAYS_DEFAULT;
            let rolled = rollback(&self.place.db(), None, days, &Silent)?;
            (rolled.epoch, rolled.changed)
        };
        assert_eq!(changed, shards, "this is a bug: other shards were changed");
        Ok(epoch)
    }

    /// The input with one record of each of the first `shards` shards changed.
    fn write_changed(&self, shards: usize) -> Result<PathBuf, Failed> {
        let path = self.place.folder.join("changed.csv");
        let file = File::create(&path).map_err(cannot("write", &path))?;
        let mut out = BufWriter::new(file);
        writeln!(out, "sii,value").map_err(cannot("write", &path))?;
        let changes: BTreeMap<u32, &str> =
            self.firsts[..shards].iter().map(|(shard, first)| (*shard, &*first.key)).collect();
        self.each_record(&mut |shard, key, value| match changes.get(&shard) {
            Some(&first) if first == key => writeln!(out, "{key},{}", changed(value)),
            _ => writeln!(out, "{key},{value}"),
        })?;
        out.flush().map_err(cannot("write", &path))?;
        Ok(path)
    }

    fn each_record(
        &self,
        take: &mut dyn FnMut(u32, &str, &str) -> io::Result<()>,
    ) -> Result<(), Failed> {
        let input = self.place.input();
        let file = File::open(&input).map_err(cannot("read", &input))?;
        let mut lines = BufReader::new(file).lines().skip(1);
        let (seed, shards) = (seed(0), self.place.options.shards);
        let read = lines.try_for_each(|line| {
            let line = line?;
            // The sample's own lines: no field needs quotes.
            let Some((key, value)) = line.split_once(',') else { return Ok(()) };
            let shard = locate_known(&seed, key.as_bytes(), shards, self.groups).shard;
            take(shard, key, value)
        });
        read.map_err(cannot("read", &input))
    }
}

fn changed(value: &str) -> String {
    value.replacen(VALUE, CHANGED_VALUE, 1)
}

struct Seen {
    reload: Duration,
    lookups: u64,
    lost: u64,
    slowest: Duration,
}

/// Has a server reload while clients ask; then a client that never asked before must find what
/// only the new epoch has.
async fn one(
    server: &Server,
    clients: &mut Vec<Client>,
    bench: &Arc<Bench>,
    epoch: u64,
    (shards, run): (usize, u32),
) -> Result<Seen, Failed> {
    let (stop, stopped) = watch::channel(false);
    let mut asking = JoinSet::new();
    for (number, client) in clients.drain(..).enumerate() {
        asking.spawn(ask(client, number, bench.clone(), stopped.clone()));
    }
    let begun = Instant::now();
    let said = server.reload().await?;
    let reload = begun.elapsed();
    if !said.contains(&format!("epoch {epoch} is served now")) {
        return Err(format!("the reload said {:?}, expected epoch {epoch}", said.trim()).into());
    }
    stop.send_replace(true);
    let mut lookups = Vec::new();
    for (client, ended) in asking.join_all().await {
        clients.push(client);
        lookups.extend(ended);
    }
    let mut new = Client::connect(server.options.clone()).await?;
    let (_, first) = &bench.firsts[shards - 1];
    let in_epoch = if run.is_multiple_of(2) { first.changed.as_ref() } else { None };
    Server::find(&mut new, &first.key, in_epoch.unwrap_or(&first.value)).await?;
    drop(new.close().await);
    Ok(Seen {
        reload,
        lookups: lookups.len() as u64,
        lost: lookups.iter().filter(|(_, is_right)| !is_right).count() as u64,
        slowest: lookups.iter().map(|(took, _)| *took).max().unwrap_or_default(),
    })
}

/// Looks one key up after the other until it is stopped, the last one after that: how long each
/// took, and whether its answer was right.
async fn ask(
    mut client: Client,
    number: usize,
    bench: Arc<Bench>,
    stopped: watch::Receiver<bool>,
) -> (Client, Vec<(Duration, bool)>) {
    let mut lookups = Vec::new();
    for record in bench.asked.iter().cycle().skip(number).step_by(CLIENTS) {
        let is_last = *stopped.borrow();
        let begun = Instant::now();
        let outcomes = client.lookup(&[&record.key]).await;
        let took = begun.elapsed();
        let outcome = outcomes.ok().and_then(|outcomes| outcomes.into_iter().next());
        let right = outcome.and_then(Result::ok).is_some_and(|found| record.is_right(&found));
        lookups.push((took, right));
        if is_last {
            break;
        }
    }
    (client, lookups)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_record_may_be_either_and_others_are_what_they_are() {
        assert_eq!(changed("im:u7@provider7.example"), "im:v7@provider7.example");
        let found = |text: &str| Outcome::Found(text.into());
        let mut asked = Asked { key: "k".into(), value: "old".into(), changed: Some("new".into()) };
        assert!(asked.is_right(&found("old")) && asked.is_right(&found("new")));
        assert!(!asked.is_right(&found("other")) && !asked.is_right(&Outcome::Absent));
        asked.changed = None;
        assert!(asked.is_right(&found("old")) && !asked.is_right(&found("new")));
    }
}
