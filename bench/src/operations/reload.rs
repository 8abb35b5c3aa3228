//! New epochs of a server under load: how long it takes until one is served, and what becomes of
//! the look-ups meanwhile. An epoch that changes so many shards is built once; after that epochs go
//! there and back ([`rollback`]), each a new one to the server.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, BufWriter, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use sotto::builder::{Silent, rollback};
use sotto::client::{Client, Outcome};
use sotto::commands::out::report;
use sotto::keyword::locate_known;
use sotto::limits;
use sotto::shard::Database;
use sotto::shard::header::file_bytes;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::place::{Place, cannot, seed, spread};
use super::server::{Server, Site};
use crate::Failed;
use crate::common::ms;
use crate::record::{Change, Head, RELOAD_SCHEMA, Reload};

/// Clients that ask, each one look-up after the other.
const CLIENTS: usize = 4;

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
    let all = bench.asked.len();
    let mut numbers = vec![1, all / 10, all];
    numbers.retain(|&number| number > 0);
    numbers.dedup();
    for shards in numbers {
        let (mut reloads, mut lookup_ms_max) = (Vec::new(), 0f64);
        // There and back: at the end it is as it was.
        for run in 0..place.options.runs.next_multiple_of(2) {
            let next = bench.clone();
            let epoch = place.blocking(move |_| next.next_epoch(shards, run)).await?;
            let (reload_ms, seen) = one(&server, &mut clients, &bench, epoch).await?;
            // A client that never asked before must find what only this epoch has.
            let last = &bench.asked[shards - 1];
            let value = if run.is_multiple_of(2) { &last.changed } else { &last.value };
            let mut new = Client::connect(server.options.clone()).await?;
            Server::find(&mut new, &last.key, value).await?;
            drop(new.close().await);
            let slowest = seen.iter().map(|lookup| lookup.0).fold(0.0, f64::max);
            report(format_args!(
                "epoch {epoch}, {shards} of {} shards changed: served after {reload_ms:.1} ms; {} \
                 look-ups meanwhile, the slowest {slowest:.1} ms",
                place.options.shards,
                seen.len(),
            ));
            lookups += seen.len() as u64;
            lost += seen.iter().filter(|lookup| !lookup.1).count() as u64;
            reloads.push(reload_ms);
            lookup_ms_max = lookup_ms_max.max(slowest);
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

/// A record that is asked for and changed.
struct Asked {
    key: String,
    value: String,
    changed: String,
}

impl Asked {
    /// An epoch in which it is changed, or one in which it is not, may have answered.
    fn is_right(&self, outcome: &Outcome) -> bool {
        let values = [&self.value, &self.changed];
        values.into_iter().any(|value| *outcome == Outcome::Found(value.clone().into_bytes()))
    }
}

struct Bench {
    place: Place,
    shard_bytes: u64,
    /// The first record of every shard that has one, in the order of the shards.
    asked: Vec<Asked>,
}

impl Bench {
    fn new(place: &Place) -> Result<Self, Failed> {
        place.write_input()?;
        place.build(&place.input(), seed(0))?;
        let database = Database::open(&place.db())?;
        let (shape, seed) = (database.shape(), seed(0));
        let mut firsts = BTreeMap::new();
        each_record(place, |key, value| {
            let groups = shape.groups() as u32;
            let shard = locate_known(&seed, key.as_bytes(), place.options.shards, groups).shard;
            firsts.entry(shard).or_insert_with(|| Asked {
                key: key.into(),
                value: value.into(),
                changed: changed(value),
            });
            Ok(())
        })?;
        let asked = firsts.into_values().collect();
        Ok(Self { place: place.clone(), shard_bytes: file_bytes(shape), asked })
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

    /// The input with the first record of each of the first `shards` shards changed.
    fn write_changed(&self, shards: usize) -> Result<PathBuf, Failed> {
        let path = self.place.folder.join("changed.csv");
        let file = File::create(&path).map_err(cannot("write", &path))?;
        let mut out = BufWriter::new(file);
        writeln!(out, "sii,value").map_err(cannot("write", &path))?;
        let keys: HashSet<&str> = self.asked[..shards].iter().map(|asked| &*asked.key).collect();
        each_record(&self.place, |key, value| match keys.contains(key) {
            true => writeln!(out, "{key},{}", changed(value)),
            false => writeln!(out, "{key},{value}"),
        })?;
        out.flush().map_err(cannot("write", &path))?;
        Ok(path)
    }
}

fn each_record(
    place: &Place,
    mut take: impl FnMut(&str, &str) -> io::Result<()>,
) -> Result<(), Failed> {
    let input = place.input();
    let file = File::open(&input).map_err(cannot("read", &input))?;
    let read = BufReader::new(file).lines().skip(1).try_for_each(|line| {
        // The sample's own lines: no field needs quotes.
        line?.split_once(',').map_or(Ok(()), |(key, value)| take(key, value))
    });
    read.map_err(cannot("read", &input))
}

fn changed(value: &str) -> String {
    value.replacen(VALUE, CHANGED_VALUE, 1)
}

/// Milliseconds that a look-up took, and whether its answer was right.
type Lookup = (f64, bool);

/// Has a server reload while clients ask: the milliseconds that it took, and the look-ups.
async fn one(
    server: &Server,
    clients: &mut Vec<Client>,
    bench: &Arc<Bench>,
    epoch: u64,
) -> Result<(f64, Vec<Lookup>), Failed> {
    let (stop, stopped) = watch::channel(false);
    let mut asking = JoinSet::new();
    for (number, client) in clients.drain(..).enumerate() {
        asking.spawn(ask(client, number, bench.clone(), stopped.clone()));
    }
    let begun = Instant::now();
    let said = server.reload().await?;
    let reload_ms = ms(begun.elapsed());
    if !said.contains(&format!("epoch {epoch} is served now")) {
        return Err(format!("the reload said {:?}, expected epoch {epoch}", said.trim()).into());
    }
    stop.send_replace(true);
    let mut lookups = Vec::new();
    for (client, ended) in asking.join_all().await {
        clients.push(client);
        lookups.extend(ended);
    }
    Ok((reload_ms, lookups))
}

/// Looks one key up after the other until it is stopped, the last one after that.
async fn ask(
    mut client: Client,
    number: usize,
    bench: Arc<Bench>,
    stopped: watch::Receiver<bool>,
) -> (Client, Vec<Lookup>) {
    let mut lookups = Vec::new();
    for record in bench.asked.iter().cycle().skip(number).step_by(CLIENTS) {
        let is_last = *stopped.borrow();
        let begun = Instant::now();
        let outcomes = client.lookup(&[&record.key]).await;
        let took = ms(begun.elapsed());
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
    fn an_answer_is_right_with_the_old_value_or_the_changed_one_and_no_other() {
        assert_eq!(changed("im:u7@provider7.example"), "im:v7@provider7.example");
        let found = |text: &str| Outcome::Found(text.into());
        let asked = Asked { key: "k".into(), value: "old".into(), changed: "new".into() };
        assert!(asked.is_right(&found("old")) && asked.is_right(&found("new")));
        assert!(!asked.is_right(&found("other")) && !asked.is_right(&Outcome::Absent));
    }
}
