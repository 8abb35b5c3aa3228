//! Queries made ahead of their time: drawn, encrypted, framed, and kept until they are due.
//!
//! The rule on secrets holds as for any client. A few queries are encrypted under fresh secrets of
//! a [`SecretPool`], which is sealed before the first of them goes out; each is sent once. So no
//! ciphertext is made twice, and nothing that is sent depends on anything decoded. Which shard and
//! record a query asks for comes from the seed of the run, its secret from the operating system.
//! Threads at the lowest priority make them; where they fall behind, the run shows it as lag.

use std::collections::{HashSet, VecDeque};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::arrivals::Draws;
use sotto::builder::input::{self, Entry, ValueBound};
use sotto::builder::{Input, source::Source};
use sotto::client::frames::{BundleFrame, FrameSender, PreparedQuery};
use sotto::keyword::{Location, Outcome, band, extract, locate_known};
use sotto::limits;
use sotto::params::Shape;
use sotto::scheme::{Decoder, QueryId, SecretError, SecretPool, Sharing};
use sotto::wire::Bytes;

/// Memory of a secret that stays until its answers are decoded, without what it made.
const SECRET_BYTES: usize = 48 << 10;
/// Groups made beyond those a run was expected to take.
const GROUPS_AHEAD: u64 = 16;

/// Keys to ask for, with what the answer must be.
pub struct Records(Vec<Record>);

struct Record {
    key: Box<[u8]>,
    value: Box<[u8]>,
}

impl Records {
    /// Reads the builder's input, or `sotto sample`'s output.
    pub fn read(path: &Path) -> Result<Self, String> {
        let wrong = |reason: String| format!("records {}: {reason}", path.display());
        let mut records = Vec::new();
        let bound = ValueBound { bytes: limits::VALUE_BYTES_MAX as usize, why: "" };
        let mut each = |entry: Entry<'_>| {
            records.push(Record { key: entry.key.into(), value: entry.value.into() });
            Ok::<(), std::convert::Infallible>(())
        };
        let found = Source::open(&Input::File(path.to_owned()))
            .and_then(|source| input::read(source.reader, source.format, bound, &mut each));
        let errors = found.map_err(|error| wrong(error.to_string()))?.errors;
        match (errors.count, records.len()) {
            (0, 1..) => Ok(Self(records)),
            (0, 0) => Err(wrong("found no record, expected at least one".into())),
            _ => Err(wrong(format!("found lines that are no records:{errors}"))),
        }
    }
}

/// How often each shard is asked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Popularity {
    /// All alike: what hashed keys come to.
    Uniform,
    /// The n-th most popular shard in proportion to 1/n^s; which one that is, the seed says.
    Zipf(f64),
}

impl Popularity {
    /// `uniform` or `zipf:S`.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "uniform" => Ok(Self::Uniform),
            Some(("zipf", s)) => match s.parse() {
                Ok(s) if (0.0..=10.0).contains(&s) => Ok(Self::Zipf(s)),
                _ => Err(format!("zipf: found {s:?}, expected an exponent from 0 to 10")),
            },
            _ => Err(format!("found {text:?}, expected uniform or zipf:S")),
        }
    }

    /// The shards in order of popularity, each with the share of it and those before.
    fn shares(self, shard_count: u32, draws: &mut Draws) -> Vec<(f64, u32)> {
        let exponent = match self {
            Self::Uniform => 0.0,
            Self::Zipf(s) => s,
        };
        let mut shards: Vec<u32> = (0..shard_count).collect();
        for last in (1..shards.len()).rev() {
            shards.swap(last, draws.below(last + 1));
        }
        let mut sum = 0.0;
        let mut shares: Vec<(f64, u32)> = Vec::with_capacity(shards.len());
        for (rank, shard) in shards.into_iter().enumerate() {
            sum += ((rank + 1) as f64).powf(-exponent);
            shares.push((sum, shard));
        }
        shares.iter_mut().for_each(|(share, _)| *share /= sum);
        shares
    }
}

/// What is asked, and how it is put together.
pub(super) struct Mix {
    pub(super) seed: u64,
    pub(super) popularity: Popularity,
    pub(super) records: Option<Records>,
    pub(super) batch: usize,
    pub(super) bundle_queries: usize,
    /// Share of the answers that are decoded.
    pub(super) verify: f64,
}

/// Frames that share bundles, all for one connection.
pub(super) struct Group {
    pub(super) bundles: Vec<BundleFrame>,
    pub(super) frames: VecDeque<Frame>,
}

/// Queries that go out together.
pub(super) struct Frame {
    pub(super) bytes: Bytes,
    /// In the order of their nonces.
    pub(super) queries: Vec<Asked>,
    pub(super) held: Option<Held>,
}

/// A query that is encrypted.
pub(super) struct Asked {
    pub(super) shard: u32,
    /// For those of the sample.
    pub(super) check: Option<Check>,
}

/// What it takes to say whether an answer is right.
pub(super) struct Check {
    decoder: Arc<Decoder>,
    query: QueryId,
    place: Location,
    expected: Expected,
}

#[derive(Clone, Copy)]
enum Expected {
    Absent,
    /// By its place in the list.
    Record(usize),
}

/// Makes groups: the same questions for the same number, under secrets of their own.
pub(super) struct Maker {
    sender: FrameSender,
    mix: Mix,
    shares: Vec<(f64, u32)>,
    /// The records of each shard.
    by_shard: Vec<Vec<usize>>,
}

impl Maker {
    pub(super) fn new(sender: FrameSender, mix: Mix) -> Self {
        let parameters = sender.parameters();
        let (shard_count, groups) = (parameters.shard_count(), parameters.shape().groups() as u32);
        let mut by_shard = vec![Vec::new(); shard_count as usize];
        for (at, record) in mix.records.iter().flat_map(|records| &records.0).enumerate() {
            let place = locate_known(parameters.seed(), &record.key, shard_count, groups);
            by_shard[place.shard as usize].push(at);
        }
        let shares = mix.popularity.shares(shard_count, &mut Draws::new(mix.seed, "shards", 0));
        Self { sender, mix, shares, by_shard }
    }

    pub(super) fn group_queries(&self) -> usize {
        self.mix.batch * (self.mix.bundle_queries / self.mix.batch).max(1)
    }

    fn shape(&self) -> &Shape {
        self.sender.parameters().shape()
    }

    /// A record of a shard that is drawn; where there is none, an identity that is nobody's.
    fn target(&self, draws: &mut Draws) -> (Location, Expected) {
        let parameters = self.sender.parameters();
        let groups = self.shape().groups();
        let unit = draws.unit();
        let rank = self.shares.partition_point(|&(share, _)| share < unit);
        let shard = self.shares[rank.min(self.shares.len() - 1)].1;
        let records = &self.by_shard[shard as usize];
        if let (Some(all), 1..) = (&self.mix.records, records.len()) {
            let at = records[draws.below(records.len())];
            let (seed, shards) = (parameters.seed(), parameters.shard_count());
            return (
                locate_known(seed, &all.0[at].key, shards, groups as u32),
                Expected::Record(at),
            );
        }
        let group = draws.below(groups) as u32;
        (Location { shard, group, identity: draws.bytes() }, Expected::Absent)
    }

    /// Group `number` of the run, and its bytes.
    fn group(&self, number: u64) -> Result<(Group, u64), SecretError> {
        let mut draws = Draws::new(self.mix.seed, "queries", number);
        let mut group = Group { bundles: Vec::new(), frames: VecDeque::new() };
        let (mut asked, mut sendings) = (Vec::new(), Vec::new());
        let (mut left, mut kept) = (self.group_queries(), 0);
        while left > 0 {
            let count = left.min(self.mix.bundle_queries);
            left -= count;
            kept += self.under_fresh_secrets(
                count,
                &mut draws,
                &mut group.bundles,
                &mut sendings,
                &mut asked,
            )?;
        }
        let mut asked = asked.into_iter();
        let mut bytes = kept;
        for sendings in sendings.chunks(self.mix.batch) {
            let frame = self.sender.query_frame(sendings.iter().cloned());
            bytes += frame.len() as u64;
            let queries = asked.by_ref().take(sendings.len()).collect();
            group.frames.push_back(Frame { bytes: frame, queries, held: None });
        }
        bytes += group.bundles.iter().map(|(_, bundle)| bundle.len() as u64).sum::<u64>();
        Ok((group, bytes))
    }

    /// Encrypts `count` queries in a pool of their own and seals it. Back come the
    /// bytes that stay for decoding.
    fn under_fresh_secrets(
        &self,
        count: usize,
        draws: &mut Draws,
        bundles: &mut Vec<BundleFrame>,
        sendings: &mut Vec<PreparedQuery>,
        asked: &mut Vec<Asked>,
    ) -> Result<u64, SecretError> {
        let parameters = self.sender.parameters();
        let mut pool = SecretPool::new(*parameters.seed(), *self.shape());
        // All or none: a secret stays for one answer as for sixteen.
        let sampled = draws.unit() <= self.mix.verify;
        let (mut targets, mut selections) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let (place, expected) = self.target(draws);
            let ribbon_seed = parameters.ribbon_seed(place.shard);
            let ribbon_seed = ribbon_seed.expect("this is a bug: drawn beyond the last shard");
            let band = band(&place.identity, ribbon_seed, self.shape());
            selections.push((place.shard, band));
            targets.push((place, expected));
        }
        let queries = pool.encrypt(&selections, Sharing::Shared)?;
        let mut named = HashSet::new();
        for (&query, (place, _)) in queries.iter().zip(&targets) {
            let (uid, bundle) = pool.bundle(query)?;
            if named.insert(uid.to_owned()) {
                bundles.push(self.sender.bundle_frame(uid, bundle));
            }
            sendings.push(PreparedQuery {
                shard: place.shard,
                uid: uid.to_owned(),
                epoch: parameters.epoch(),
                vector: pool.vector(query)?,
            });
        }
        let decoder = Arc::new(pool.seal());
        let targets = queries.into_iter().zip(targets);
        asked.extend(targets.map(|(query, (place, expected))| Asked {
            shard: place.shard,
            check: sampled.then(|| Check { decoder: decoder.clone(), query, place, expected }),
        }));
        // A secret keeps its bundle and the vectors it made.
        let secret_bytes = SECRET_BYTES + self.shape().bundle_bytes();
        let kept = named.len() * secret_bytes + count * self.shape().query_bytes();
        Ok(if sampled { kept as u64 } else { 0 })
    }

    /// Whether an answer, of the right sizes, says what it must.
    pub(super) fn is_right(&self, check: &Check, response: &[Vec<u8>], hint: &[u8]) -> bool {
        let Check { decoder, query, place, expected } = check;
        let Ok(decoded) = decoder.decode(*query, self.shape(), response, hint) else {
            return false;
        };
        match (extract(&decoded, place, self.shape()).outcome(), expected) {
            (Outcome::Absent, Expected::Absent) => true,
            (Outcome::Found(value), &Expected::Record(at)) => {
                let records = self.mix.records.as_ref();
                records.is_some_and(|records| *records.0[at].value == *value)
            }
            _ => false,
        }
    }
}

/// Groups that are made and not yet taken, and the memory of all whose answers are not there.
pub(super) struct Stock {
    state: Mutex<State>,
    changed: Condvar,
    bytes_max: u64,
}

#[derive(Default)]
struct State {
    ready: VecDeque<Group>,
    bytes: u64,
    /// Groups begun, taken, and wanted so far.
    begun: u64,
    taken: u64,
    wanted: u64,
    failed: Option<SecretError>,
    closed: bool,
}

/// Gives a frame's memory back when its exchange is over.
pub(super) struct Held(Arc<Stock>, u64);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.lock().bytes -= self.1;
        self.0.changed.notify_all();
    }
}

/// The threads that make groups; they end when it is dropped.
pub(super) struct Preparing(pub(super) Arc<Stock>);

impl Drop for Preparing {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.closed = true;
        let never_sent = std::mem::take(&mut state.ready);
        drop(state); // frames take the lock when they go
        drop(never_sent);
        self.0.changed.notify_all();
    }
}

impl Preparing {
    pub(super) fn start(
        maker: &Arc<Maker>,
        threads: usize,
        bytes_max: u64,
    ) -> std::io::Result<Self> {
        let stock = Stock { state: Mutex::default(), changed: Condvar::new(), bytes_max };
        let preparing = Self(Arc::new(stock));
        for _ in 0..threads {
            let (maker, stock) = (maker.clone(), preparing.0.clone());
            thread::Builder::new().name("prepare".into()).spawn(move || {
                lowest_priority();
                stock.fill(&maker);
            })?;
        }
        Ok(preparing)
    }
}

/// Of the calling thread alone. Where it is refused, preparing only disturbs more.
pub(super) fn lowest_priority() {
    let _ = rustix::process::setpriority_process(None, 19);
}

impl Stock {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fill(self: &Arc<Self>, maker: &Maker) {
        loop {
            let idle = |state: &mut State| {
                let wanted = state.begun < state.wanted && state.bytes < self.bytes_max;
                !state.closed && !wanted
            };
            let state = self.changed.wait_while(self.lock(), idle);
            let mut state = state.unwrap_or_else(PoisonError::into_inner);
            if state.closed {
                return;
            }
            let number = state.begun;
            state.begun += 1;
            drop(state);
            let made = maker.group(number);
            let mut state = self.lock();
            match made {
                Ok(_) if state.closed => return,
                Ok((mut group, bytes)) => {
                    let share = bytes / group.frames.len() as u64;
                    for frame in &mut group.frames {
                        frame.held = Some(Held(self.clone(), share));
                        state.bytes += share;
                    }
                    state.ready.push_back(group);
                }
                Err(error) => {
                    state.failed = Some(error);
                    state.closed = true;
                }
            }
            drop(state);
            self.changed.notify_all();
        }
    }

    /// Waits until so many groups are there, or as many as the memory allows. Back comes how many
    /// are, and the bytes of all.
    pub(super) fn prepare(&self, groups: u64) -> Result<(u64, u64), SecretError> {
        let mut state = self.lock();
        state.wanted = state.wanted.max(state.taken + groups);
        self.changed.notify_all();
        let short = |state: &mut State| {
            let ready = state.ready.len() as u64;
            !state.closed && ready < groups && state.bytes < self.bytes_max
        };
        let state = self.changed.wait_while(state, short);
        let state = state.unwrap_or_else(PoisonError::into_inner);
        match &state.failed {
            Some(error) => Err(error.clone()),
            None => Ok((state.ready.len() as u64, state.bytes)),
        }
    }

    /// The next group, if one is made.
    pub(super) fn take(&self) -> Option<Group> {
        let mut state = self.lock();
        let group = state.ready.pop_front()?;
        state.taken += 1;
        // What a run takes beyond what was asked for is made while it runs.
        state.wanted = state.wanted.max(state.taken + GROUPS_AHEAD);
        self.changed.notify_all();
        Some(group)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_as_popular_as_asked() {
        let drawn = |popularity: Popularity, seed| {
            let shares = popularity.shares(100, &mut Draws::new(seed, "shards", 0));
            let mut shards: Vec<u32> = shares.iter().map(|&(_, shard)| shard).collect();
            let first = shards[0];
            shards.sort_unstable();
            assert!(shards.into_iter().eq(0..100));
            (shares[0].0, shares[1].0 - shares[0].0, shares[99].0, first)
        };
        let (first, second, all, _) = drawn(Popularity::Uniform, 1);
        assert!((first - 0.01).abs() < 1e-9 && (second - 0.01).abs() < 1e-9 && all == 1.0);
        let (first, second, all, most_popular) = drawn(Popularity::Zipf(1.0), 1);
        assert!((first / second - 2.0).abs() < 1e-9 && first > 0.19 && all == 1.0);
        assert_eq!(most_popular, drawn(Popularity::Zipf(2.0), 1).3);
        assert!((2..9).any(|seed| drawn(Popularity::Zipf(1.0), seed).3 != most_popular));
        assert_eq!(Popularity::parse("uniform"), Ok(Popularity::Uniform));
        assert_eq!(Popularity::parse("zipf:0.9"), Ok(Popularity::Zipf(0.9)));
        for wrong in ["zipf", "zipf:-1", "zipf:NaN", "Uniform", ""] {
            assert!(Popularity::parse(wrong).is_err(), "{wrong}");
        }
    }
}
