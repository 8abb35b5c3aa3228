//! New epochs of a server under load: how long it takes until one is served, and what becomes of
//! the look-ups meanwhile.
//!
//! An epoch that changes so many shards is built once; after that epochs go there and back
//! ([`rollback`]), each a new one to the server, which opens and verifies what changed as it always
//! does. A changed shard has one record that is another.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, BufWriter, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::server::{Server, Site};
use super::{
    IoContext as _, OperationError, OperationOptions, blocking, content, ms, seed, spread,
};
use crate::record::{Change, Content, Head, RELOAD_SCHEMA, Reload};
use sotto::builder::{Silent, rollback};
use sotto::client::{Client, Outcome};
use sotto::keyword::locate_known;
use sotto::limits;
use sotto::shard::Database;
use sotto::shard::header::file_bytes;

/// Clients that ask, each one look-up after the other.
const CLIENTS: usize = 4;
/// Records they ask for, at most.
const ASKED_MAX: u64 = 4096;

/// What the values of the sample begin with, and those of changed records.
const VALUE: &str = "im:u";
const CHANGED_VALUE: &str = "im:v";

/// Measures reloads that change one shard, a tenth of them, and all.
pub async fn reload(
    options: &OperationOptions,
    shown: &mut dyn FnMut(&str),
) -> Result<Reload, OperationError> {
    let head = Head::new(RELOAD_SCHEMA);
    let own = options.clone();
    let bench = Arc::new(blocking(move || Bench::new(own)).await?);
    let site = Site::new(options, &options.db())?;
    let server = site.start().await?;
    server.ready().await?;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(Client::connect(server.options.clone()).await?);
    }
    let mut sum = Sum::default();
    let mut changes = Vec::new();
    for shards in bench.numbers() {
        let (mut reloads, mut lookup_ms_max) = (Vec::new(), 0f64);
        // There and back: at the end it is as it was.
        for run in 0..options.runs.next_multiple_of(2) {
            let bench = bench.clone();
            let next = bench.clone();
            let epoch = blocking(move || next.next_epoch(shards, run)).await?;
            let expected = bench.first(shards, run);
            let seen = one(&server, &mut clients, &bench, epoch, &expected).await?;
            shown(&format!(
                "epoch {epoch}, {shards} of {} shards changed: served after {:.1} ms; {} look-ups \
                 meanwhile, the slowest {:.1} ms",
                options.shards,
                ms(seen.reload),
                seen.lookups,
                ms(seen.slowest)
            ));
            sum.add(&seen);
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
    let Sum { lookups, lost } = sum;
    if lost > 0 {
        return Err(OperationError::Lost { lost, lookups });
    }
    let (threads, content) = (options.threads(), bench.content);
    Ok(Reload { head, content, threads, changes, lookups, lost })
}

/// Over all reloads.
#[derive(Default)]
struct Sum {
    lookups: u64,
    lost: u64,
}

impl Sum {
    fn add(&mut self, seen: &Seen) {
        self.lookups += seen.lookups;
        self.lost += seen.lost;
    }
}

/// A record that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
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

/// The database and its epochs.
struct Bench {
    options: OperationOptions,
    content: Content,
    groups: u32,
    shard_bytes: u64,
    /// The first record of every shard that has one, by its number: what changes.
    firsts: Vec<(u32, Asked)>,
    /// Records of all shards.
    asked: Vec<Asked>,
}

impl Bench {
    fn new(options: OperationOptions) -> Result<Self, OperationError> {
        options.write_input()?;
        options.build(&options.input(), seed(0))?;
        let database = Database::open(&options.db())?;
        let (content, shape) = (content(&database), database.shape());
        let (groups, shard_bytes) = (shape.groups() as u32, file_bytes(shape));
        let (firsts, asked) = (Vec::new(), Vec::new());
        let mut bench = Self { options, content, groups, shard_bytes, firsts, asked };
        let mut firsts = BTreeMap::new();
        let step = (bench.options.records / ASKED_MAX).max(1);
        let mut asked = Vec::new();
        let mut number = 0;
        bench.each_record(&mut |shard, key, value| {
            let (key, value) = (key.to_owned(), value.to_owned());
            let mut record = Asked { key, value, changed: None };
            if let std::collections::btree_map::Entry::Vacant(first) = firsts.entry(shard) {
                record.changed = Some(changed(&record.value));
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

    /// How many shards reloads change.
    fn numbers(&self) -> Vec<usize> {
        let all = self.firsts.len();
        let mut numbers = vec![1, all / 10, all];
        numbers.retain(|&number| number > 0);
        numbers.dedup();
        numbers
    }

    /// The first record of the first shard, as it is in the epoch of a run.
    fn first(&self, shards: usize, run: u32) -> Asked {
        let (_, first) = &self.firsts[shards - 1];
        let value = if run.is_multiple_of(2) { first.changed.clone() } else { None };
        let value = value.unwrap_or_else(|| first.value.clone());
        Asked { key: first.key.clone(), value, changed: None }
    }

    /// Makes the next epoch: in even runs the first `shards` shards are changed, in odd ones as
    /// they were. Its number.
    fn next_epoch(&self, shards: usize, run: u32) -> Result<u64, OperationError> {
        let (epoch, changed) = if run == 0 {
            let input = self.write_changed(shards)?;
            let report = self.options.build(&input, seed(0))?;
            (report.epoch, report.built as usize)
        } else {
            let days = limits::EXPIRES_DAYS_DEFAULT;
            let rolled = rollback(&self.options.db(), None, days, &Silent)?;
            (rolled.epoch, rolled.changed)
        };
        assert_eq!(changed, shards, "this is a bug: other shards were changed");
        Ok(epoch)
    }

    /// The input with one record of each of the first `shards` shards changed.
    fn write_changed(&self, shards: usize) -> Result<PathBuf, OperationError> {
        let path = self.options.folder.join("changed.csv");
        let file = File::create(&path).context("write", &path)?;
        let mut out = BufWriter::with_capacity(1 << 18, file);
        writeln!(out, "sii,value").context("write", &path)?;
        let changes: BTreeMap<u32, &str> =
            self.firsts[..shards].iter().map(|(shard, first)| (*shard, &*first.key)).collect();
        self.each_record(&mut |shard, key, value| {
            let is_changed = changes.get(&shard).is_some_and(|&first| first == key);
            let value = if is_changed { changed(value) } else { value.to_owned() };
            writeln!(out, "{key},{value}")
        })?;
        out.flush().context("write", &path)?;
        Ok(path)
    }

    /// Shard, key and value of every record of the input.
    fn each_record(
        &self,
        take: &mut dyn FnMut(u32, &str, &str) -> io::Result<()>,
    ) -> Result<(), OperationError> {
        let input = self.options.input();
        let file = File::open(&input).context("read", &input)?;
        let mut lines = BufReader::with_capacity(1 << 18, file).lines().skip(1);
        let (seed, shards) = (seed(0), self.options.shards);
        let mut read = || {
            lines.try_for_each(|line| {
                let line = line?;
                // The sample's own lines: no field needs quotes.
                let Some((key, value)) = line.split_once(',') else { return Ok(()) };
                let shard = locate_known(&seed, key.as_bytes(), shards, self.groups).shard;
                take(shard, key, value)
            })
        };
        read().context("read", &input)
    }
}

fn changed(value: &str) -> String {
    value.replacen(VALUE, CHANGED_VALUE, 1)
}

/// A look-up while a server reloads.
struct LookUp {
    client: usize,
    begun: Instant,
    ended: Instant,
    right: bool,
}

/// What one reload was like.
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
    expected: &Asked,
) -> Result<Seen, OperationError> {
    let (stop, stopped) = watch::channel(false);
    let (tell, mut told) = mpsc::unbounded_channel();
    let mut asking = JoinSet::new();
    for (number, client) in clients.drain(..).enumerate() {
        asking.spawn(ask(client, number, bench.clone(), stopped.clone(), tell.clone()));
    }
    drop(tell);
    let mut lookups = Vec::new();
    since(&mut told, &mut lookups, None).await?;
    let begun = Instant::now();
    let said = server.reload().await?;
    let ended = Instant::now();
    if !said.contains(&format!("epoch {epoch} is served now")) {
        let problem = format!("that of the reload is {:?}, expected epoch {epoch}", said.trim());
        return Err(OperationError::Wrong(problem));
    }
    since(&mut told, &mut lookups, Some(ended)).await?;
    stop.send_replace(true);
    while let Some(lookup) = told.recv().await {
        lookups.push(lookup);
    }
    clients.extend(asking.join_all().await);
    let mut new = Client::connect(server.options.clone()).await?;
    let outcome = Outcome::Found(expected.value.clone().into_bytes());
    Server::find(&mut new, &expected.key, &outcome).await?;
    drop(new.close().await);
    let meanwhile = || lookups.iter().filter(|lookup: &&LookUp| lookup.ended >= begun);
    Ok(Seen {
        reload: ended - begun,
        lookups: meanwhile().count() as u64,
        lost: meanwhile().filter(|lookup| !lookup.right).count() as u64,
        slowest: meanwhile().map(|l| l.ended - l.begun).max().unwrap_or_default(),
    })
}

/// Takes look-ups until every client had one that was begun after a time, or any.
async fn since(
    told: &mut mpsc::UnboundedReceiver<LookUp>,
    lookups: &mut Vec<LookUp>,
    time: Option<Instant>,
) -> Result<(), OperationError> {
    let mut waiting = [true; CLIENTS];
    while waiting.contains(&true) {
        let lookup = told.recv().await.ok_or(OperationError::Thread)?;
        if time.is_none_or(|time| lookup.begun >= time) {
            waiting[lookup.client] = false;
        }
        lookups.push(lookup);
    }
    Ok(())
}

/// Looks one key up after the other until told to stop.
async fn ask(
    mut client: Client,
    number: usize,
    bench: Arc<Bench>,
    stopped: watch::Receiver<bool>,
    tell: mpsc::UnboundedSender<LookUp>,
) -> Client {
    let records = bench.asked.iter().cycle().skip(number).step_by(CLIENTS);
    for record in records {
        if *stopped.borrow() {
            break;
        }
        let begun = Instant::now();
        let outcomes = client.lookup(&[&record.key]).await;
        let ended = Instant::now();
        let outcome = outcomes.ok().and_then(|outcomes| outcomes.into_iter().next());
        let right = outcome.and_then(Result::ok).is_some_and(|found| record.is_right(&found));
        // Whoever listens is there until all have stopped.
        let _ = tell.send(LookUp { client: number, begun, ended, right });
    }
    client
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
