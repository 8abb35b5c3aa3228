//! Queries made ahead of their time: drawn, encrypted, framed, and kept until they are due.
//!
//! A few queries are encrypted under fresh secrets of a [`SecretPool`], which is sealed before the
//! first of them is sent; each is sent once. Which shard and record a query asks for comes from the
//! seed of the run, its secret from the operating system.

use std::collections::{HashSet, VecDeque};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::arrivals::Draws;
use super::options::LoadOptions;
use crate::Failed;
use sotto::builder::input::{self, Entry, ValueBound};
use sotto::builder::{Input, source::Source};
use sotto::client::frames::{BundleFrame, FrameSender, PreparedQuery};
use sotto::keyword::{Location, Outcome, band, extract, locate_known};
use sotto::limits::{self, QUERIES_PER_SECRET_MAX};
use sotto::scheme::{Decoder, QueryId, SecretError, SecretPool, Sharing};
use sotto::wire::Bytes;

/// Memory of a secret that stays until its answers are decoded, without what it made.
const SECRET_BYTES: usize = 48 << 10;
/// Groups made beyond those a run was expected to take.
const GROUPS_AHEAD: u64 = 16;

struct Record {
    key: Box<[u8]>,
    value: Box<[u8]>,
}

/// Reads the builder's input.
fn read_records(path: &Path) -> Result<Vec<Record>, Failed> {
    let wrong = |reason: String| Failed::from(format!("records {}: {reason}", path.display()));
    let mut records = Vec::new();
    let bound = ValueBound { bytes: limits::VALUE_BYTES_MAX as usize, why: "" };
    let mut each = |entry: Entry<'_>| {
        records.push(Record { key: entry.key.into(), value: entry.value.into() });
        Ok(())
    };
    let found = Source::open(&Input::File(path.to_owned()))
        .and_then(|source| input::read(source.reader, source.format, bound, &mut each));
    let errors = found.map_err(|error| wrong(error.to_string()))?.errors;
    match (errors.count, records.len()) {
        (0, 1..) => Ok(records),
        (0, 0) => Err(wrong("found no record, expected at least one".into())),
        _ => Err(wrong(format!("found lines that are no records:{errors}"))),
    }
}

/// Frames that share bundles, all for one connection.
pub(super) struct Group {
    pub(super) bundles: Vec<BundleFrame>,
    pub(super) frames: VecDeque<Frame>,
}

/// Queries that are sent together.
pub(super) struct Frame {
    pub(super) bytes: Bytes,
    pub(super) queries: Vec<Asked>,
    pub(super) held: Option<Held>,
}

pub(super) struct Asked {
    pub(super) shard: u32,
    /// For those whose answers are decoded.
    pub(super) check: Option<Check>,
}

/// What it takes to say whether an answer is right.
pub(super) struct Check {
    decoder: Arc<Decoder>,
    query: QueryId,
    target: Target,
}

/// What a query asks for; a record by its place in the list, or a key that is nobody's.
struct Target {
    place: Location,
    record: Option<usize>,
}

/// Makes groups: the same questions for the same number, under secrets of their own.
pub(super) struct Maker {
    sender: FrameSender,
    seed: u64,
    batch: usize,
    verify: f64,
    records: Vec<Record>,
    by_shard: Vec<Vec<usize>>,
}

impl Maker {
    pub(super) fn new(sender: FrameSender, options: &LoadOptions) -> Result<Self, Failed> {
        let LoadOptions { seed, batch, verify, .. } = *options;
        let records = options.records.as_deref().map(read_records).transpose()?.unwrap_or_default();
        let by_shard = vec![Vec::new(); sender.parameters().shard_count() as usize];
        let mut maker = Self { sender, seed, batch, verify, records, by_shard };
        for at in 0..maker.records.len() {
            let place = maker.locate(at);
            maker.by_shard[place.shard as usize].push(at);
        }
        Ok(maker)
    }

    fn locate(&self, record: usize) -> Location {
        let parameters = self.sender.parameters();
        let groups = parameters.shape().groups() as u32;
        let key = &self.records[record].key;
        locate_known(parameters.seed(), key, parameters.shard_count(), groups)
    }

    /// Frames whose queries fill their bundles, where one frame does not fill several.
    pub(super) fn group_queries(&self) -> usize {
        self.batch * (QUERIES_PER_SECRET_MAX / self.batch).max(1)
    }

    /// A record of a shard that is drawn; where there is none, an identity that is nobody's.
    fn target(&self, draws: &mut Draws) -> Target {
        let shard = draws.below(self.by_shard.len());
        let records = &self.by_shard[shard];
        if !records.is_empty() {
            let record = records[draws.below(records.len())];
            return Target { place: self.locate(record), record: Some(record) };
        }
        let group = draws.below(self.sender.parameters().shape().groups()) as u32;
        let place = Location { shard: shard as u32, group, identity: draws.bytes() };
        Target { place, record: None }
    }

    /// Group `number` of the run, and its bytes.
    fn group(&self, number: u64) -> Result<(Group, u64), SecretError> {
        let mut draws = Draws::new(self.seed, "queries", number);
        let (mut bundles, mut queries) = (Vec::new(), Vec::new());
        let (mut left, mut bytes) = (self.group_queries(), 0);
        while left > 0 {
            let count = left.min(QUERIES_PER_SECRET_MAX);
            left -= count;
            bytes += self.encrypt(count, &mut draws, &mut bundles, &mut queries)?;
        }
        let mut frames = VecDeque::new();
        let mut queries = queries.into_iter();
        while !queries.as_slice().is_empty() {
            let (prepared, queries): (Vec<_>, _) = queries.by_ref().take(self.batch).unzip();
            let frame = self.sender.query_frame(prepared.into_iter());
            bytes += frame.len();
            frames.push_back(Frame { bytes: frame, queries, held: None });
        }
        bytes += bundles.iter().map(|(_, bundle): &BundleFrame| bundle.len()).sum::<usize>();
        Ok((Group { bundles, frames }, bytes as u64))
    }

    /// Encrypts `count` queries in a pool of their own and seals it. Returns the bytes that stay
    /// for decoding.
    fn encrypt(
        &self,
        count: usize,
        draws: &mut Draws,
        bundles: &mut Vec<BundleFrame>,
        made: &mut Vec<(PreparedQuery, Asked)>,
    ) -> Result<usize, SecretError> {
        let parameters = self.sender.parameters();
        let shape = parameters.shape();
        let mut pool = SecretPool::new(*parameters.seed(), *shape);
        // All or none: a secret stays for one answer as for sixteen.
        let sampled = draws.unit() <= self.verify;
        let targets: Vec<Target> = (0..count).map(|_| self.target(draws)).collect();
        let selection = |Target { place, .. }: &Target| {
            let ribbon_seed = parameters.ribbon_seed(place.shard);
            let ribbon_seed = ribbon_seed.expect("this is a bug: drawn beyond the last shard");
            (place.shard, band(&place.identity, ribbon_seed, shape))
        };
        let selections: Vec<_> = targets.iter().map(selection).collect();
        let queries = pool.encrypt(&selections, Sharing::Shared)?;
        let (mut named, mut prepared) = (HashSet::new(), Vec::new());
        for (&query, Target { place, .. }) in queries.iter().zip(&targets) {
            let (uid, bundle) = pool.bundle(query)?;
            if named.insert(uid.to_owned()) {
                bundles.push(self.sender.bundle_frame(uid, bundle));
            }
            let (shard, uid, epoch) = (place.shard, uid.to_owned(), parameters.epoch());
            prepared.push(PreparedQuery { shard, uid, epoch, vector: pool.vector(query)? });
        }
        let decoder = Arc::new(pool.seal());
        let asked = queries.into_iter().zip(targets).map(|(query, target)| Asked {
            shard: target.place.shard,
            check: sampled.then(|| Check { decoder: decoder.clone(), query, target }),
        });
        made.extend(prepared.into_iter().zip(asked));
        // A secret keeps its bundle and the vectors it made.
        let secret_bytes = SECRET_BYTES + shape.bundle_bytes();
        Ok(usize::from(sampled) * (named.len() * secret_bytes + count * shape.query_bytes()))
    }

    /// Whether an answer, of the right sizes, says what it must.
    pub(super) fn is_right(&self, check: &Check, response: &[Vec<u8>], hint: &[u8]) -> bool {
        let Check { decoder, query, target } = check;
        let shape = self.sender.parameters().shape();
        let Ok(decoded) = decoder.decode(*query, shape, response, hint) else { return false };
        match (extract(&decoded, &target.place, shape).outcome(), target.record) {
            (Outcome::Absent, None) => true,
            (Outcome::Found(value), Some(record)) => *self.records[record].value == *value,
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
    pub(super) fn start(maker: &Arc<Maker>, bytes_max: u64) -> std::io::Result<Self> {
        let stock = Stock { state: Mutex::default(), changed: Condvar::new(), bytes_max };
        let preparing = Self(Arc::new(stock));
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
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

    /// Waits until so many groups are there, or as many as the memory allows. Returns how many
    /// there are, and the bytes of all.
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
