//! Engines and stores that ask the test before each step, so that no test waits for a clock.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crossbeam::channel::{Receiver, unbounded};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::*;
use crate::engine::{
    Answer, Batch, CallBounds, ContentId, EncryptedQuery, EngineError, Residency, ShardStore,
    ShardView, StoreUse,
};
use crate::params::Shape;
use crate::schedule::{Arrival, ConnectionId, FrontEnd, Ticket};
use crate::scheme::KeyBundle;

const LONG: Duration = Duration::from_secs(600);

/// Shards below 100 have a byte, those below 200 a million: what is measured on the one says of the
/// other that it takes no time, or minutes.
const LARGE: u32 = 100;
static ZEROS: [u8; 1 << 20] = [0; 1 << 20];
/// The shard that loses its content when a test says so.
const LOST: u32 = 177;

struct One {
    shape: Shape,
    shard: u32,
    lost: Arc<AtomicBool>,
}

impl Content for One {
    fn view(&self) -> ShardView<'_> {
        let matrix = if self.shard < LARGE { &ZEROS[..1] } else { &ZEROS };
        let content = Some(ContentId([self.shard as u8; 16]));
        ShardView { shape: &self.shape, matrix, tables: &[], content }
    }

    fn is_whole(&self) -> bool {
        self.shard != LOST || !self.lost.load(Ordering::Relaxed)
    }
}

struct Contents {
    shape: Shape,
    /// Whether shard [`LOST`] has lost its content.
    lost: Arc<AtomicBool>,
}

impl Shards for Contents {
    fn content(&self, shard: u32) -> Option<Arc<dyn Content>> {
        let one = One { shape: self.shape, shard, lost: self.lost.clone() };
        (shard < 200).then(|| Arc::new(one) as _)
    }
}

/// What an engine or a store is about to do.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// Answer so many queries.
    Call(usize),
    Renew,
    /// Upload this shard.
    Upload(u8),
}

/// What comes of it; of a call after so many answers.
#[derive(Clone, Copy)]
enum Verdict {
    Go,
    Fail(usize),
    Panic(usize),
    /// Says it is done, but some answers are missing.
    Leave(usize),
}

use Verdict::{Fail, Go, Leave, Panic};

impl Verdict {
    /// What a step that has answered its queries returns.
    fn end(self) -> Result<(), EngineError> {
        match self {
            Go | Leave(_) => Ok(()),
            Fail(_) => Err(EngineError::Device("scripted".into())),
            Panic(_) => panic!("scripted"),
        }
    }
}

/// Where an engine or a store asks; without a test that listens it always goes on.
struct Gate {
    steps: Sender<Step>,
    verdicts: Receiver<Verdict>,
}

impl Gate {
    fn ask(&self, step: Step) -> Verdict {
        let asked = self.steps.send(step).is_ok();
        let verdict = asked.then(|| self.verdicts.recv().ok());
        verdict.flatten().unwrap_or(Go)
    }
}

/// The test's side of a gate.
struct GateControl {
    steps: Receiver<Step>,
    verdicts: Sender<Verdict>,
}

impl GateControl {
    fn is_at(&self, step: Step) {
        assert_eq!(self.steps.recv().unwrap(), step);
    }

    fn answer(&self, verdict: Verdict) {
        self.verdicts.send(verdict).unwrap();
    }

    /// Waits for a step and says what comes of it.
    fn let_on(&self, step: Step, verdict: Verdict) {
        self.is_at(step);
        self.answer(verdict);
    }

    fn is_quiet(&self) -> bool {
        self.steps.try_recv().is_err()
    }
}

fn gate() -> (Gate, GateControl) {
    let ((steps, at), (verdicts, verdict)) = (unbounded(), unbounded());
    (Gate { steps, verdicts: verdict }, GateControl { steps: at, verdicts })
}

struct Store {
    gate: Gate,
    here: Mutex<HashSet<ContentId>>,
    /// Of what is not here.
    residency: Mutex<Residency>,
}

impl Store {
    fn set(&self, residency: Residency) {
        *self.residency.lock().unwrap() = residency;
    }
}

impl ShardStore for Store {
    fn residency(&self, shard: &ShardView<'_>) -> Residency {
        let here = self.here.lock().unwrap().contains(&shard.content.unwrap());
        if here { Residency::Here } else { *self.residency.lock().unwrap() }
    }

    fn held(&self) -> StoreUse {
        let shards = self.here.lock().unwrap().len();
        StoreUse { shards, bytes: 0, bytes_max: 0 }
    }

    fn upload(&self, shard: &ShardView<'_>) -> Result<(), EngineError> {
        let name = shard.content.unwrap();
        self.gate.ask(Step::Upload(name.0[0])).end()?;
        let mut here = self.here.lock().unwrap();
        if matches!(*self.residency.lock().unwrap(), Residency::InPlace { .. }) {
            let other = here.iter().next().copied();
            other.map(|other| here.remove(&other));
        }
        assert!(here.insert(name), "uploaded twice");
        Ok(())
    }
}

/// Answers with the query's first byte and its own number.
struct Scripted {
    number: u8,
    gate: Gate,
    store: Option<Arc<Store>>,
}

impl Engine for Scripted {
    fn name(&self) -> String {
        format!("scripted {}", self.number)
    }

    fn call_bounds(&self) -> CallBounds {
        CallBounds { shards_max: 8, queries_max: 8 }
    }

    fn store(&self) -> Option<Arc<dyn ShardStore>> {
        self.store.clone().map(|store| store as _)
    }

    fn answer(
        &mut self,
        batches: &[Batch<'_>],
        done: &mut dyn FnMut(usize, usize, Answer),
    ) -> Result<(), EngineError> {
        let queries = batches.iter().enumerate().flat_map(|(at, batch)| {
            batch.queries.iter().enumerate().map(move |(index, query)| (at, index, query))
        });
        let verdict = self.gate.ask(Step::Call(queries.clone().count()));
        let count = match verdict {
            Go => usize::MAX,
            Fail(count) | Panic(count) | Leave(count) => count,
        };
        for (at, index, query) in queries.take(count) {
            done(at, index, vec![vec![query.vector[0], self.number]]);
        }
        verdict.end()
    }

    fn renew(&mut self) -> Result<(), EngineError> {
        self.gate.ask(Step::Renew).end()
    }
}

/// Workers of scripted engines: number 0 the processor, if there is one, then devices from 1 on.
struct Bench {
    workers: Workers,
    stores: Vec<Arc<Store>>,
    bundle: Arc<KeyBundle>,
    outcomes: UnboundedReceiver<(usize, Outcome)>,
    sender: UnboundedSender<(usize, Outcome)>,
    lost: Arc<AtomicBool>,
}

/// A bench, the controls of its engines in order of their numbers, and those of the stores.
fn bench(processors: u8, devices: u8) -> (Bench, Vec<GateControl>, Vec<GateControl>) {
    bench_proving(processors, devices, None)
}

/// The same, whose engines run their known-answer test at first and then so often.
fn bench_proving(
    processors: u8,
    devices: u8,
    every: Option<Duration>,
) -> (Bench, Vec<GateControl>, Vec<GateControl>) {
    let shape = Shape::new(24, 128, 1, 192).unwrap();
    let (mut engines, mut stores) = (Vec::<Box<dyn Engine>>::new(), Vec::new());
    let (mut controls, mut store_controls) = (Vec::new(), Vec::new());
    for number in 1 - processors..=devices {
        let store = (number > 0).then(|| {
            let (gate, control) = gate();
            store_controls.push(control);
            let (here, residency) = (Mutex::default(), Mutex::new(Residency::Room));
            Arc::new(Store { gate, here, residency })
        });
        stores.extend(store.clone());
        let (gate, control) = gate();
        controls.push(control);
        engines.push(Box::new(Scripted { number, gate, store }));
    }
    let lost = Arc::<AtomicBool>::default();
    let shards = Arc::new(Contents { shape, lost: lost.clone() });
    let workers = Workers::start(engines, shards, ScheduleBounds::default(), every).unwrap();
    let zeros = vec![0; shape.bundle_bytes()];
    let bundle = Arc::new(KeyBundle::decode(&zeros, &shape).unwrap());
    let (sender, outcomes) = unbounded_channel();
    (Bench { workers, stores, bundle, outcomes, sender, lost }, controls, store_controls)
}

/// Waits for what a thread does without asking.
fn until(is_so: impl Fn() -> bool) {
    while !is_so() {
        std::thread::yield_now();
    }
}

impl Bench {
    fn admit(&self, index: usize, shard: u32, wait: Duration) -> Ticket {
        let vector = Arc::from([index as u8]);
        let query = EncryptedQuery { vector, bundle: self.bundle.clone() };
        let item = Job { query, index, outcomes: self.sender.clone() };
        let (connection, front_end) = (ConnectionId(1), FrontEnd { number: 1, share: 1 });
        let (now, scan_bytes, bytes) = (Instant::now(), 1, 1);
        let deadline = now + wait;
        let arrival = Arrival { connection, front_end, shard, scan_bytes, bytes, deadline, item };
        self.workers.queue().submit(now, arrival).unwrap()
    }

    fn ask(&self, index: usize, shard: u32) {
        self.admit(index, shard, LONG);
    }

    fn outcome(&mut self) -> (usize, Outcome) {
        self.outcomes.blocking_recv().unwrap()
    }

    /// The next outcome is that of this query, answered by the engine of this number.
    fn is_answered(&mut self, index: usize, number: u8) {
        let answer = vec![vec![index as u8, number]];
        assert_eq!(self.outcome(), (index, Outcome::Answered(answer)));
    }

    /// Asks a query, which the engine of this number answers.
    fn is_answered_by(&mut self, index: usize, shard: u32, engine: &GateControl, number: u8) {
        self.ask(index, shard);
        engine.let_on(Step::Call(1), Go);
        self.is_answered(index, number);
    }

    fn put_here(&self, device: usize, shard: u32) {
        self.stores[device].here.lock().unwrap().insert(ContentId([shard as u8; 16]));
    }

    /// Answered by a device; after an upload; by the processor; after a failure.
    fn answered(&self) -> [u64; 4] {
        let counters = self.workers.counters();
        [
            counters.answered_by_device.get(),
            counters.answered_by_device_after_upload.get(),
            counters.answered_by_processor.get(),
            counters.answered_by_processor_after_failure.get(),
        ]
    }

    /// Has the processor measured on a shard, by a query that no device is to have.
    fn measure_processor(&mut self, processor: &GateControl, shard: u32) {
        self.stores[0].set(Residency::Never);
        self.is_answered_by(255, shard, processor, 0);
        self.stores[0].set(Residency::Room);
    }
}

#[test]
fn answers_come_back_and_a_failed_engine_fails_only_what_it_did_not_answer() {
    let (mut bench, controls, _) = bench(1, 0);
    let control = &controls[0];
    bench.ask(0, 1);
    control.is_at(Step::Call(1));
    // While the first is computed: an error after one answer, a panic, one too few, then as before.
    (1..4).for_each(|index| bench.ask(index, 2));
    control.answer(Go);
    bench.is_answered(0, 0);
    control.is_at(Step::Call(3));
    bench.ask(4, 2);
    control.answer(Fail(1));
    bench.is_answered(1, 0);
    control.let_on(Step::Renew, Go);
    assert_eq!(bench.outcome(), (2, Outcome::Device));
    assert_eq!(bench.outcome(), (3, Outcome::Device));
    for verdict in [Panic(0), Leave(0)] {
        control.let_on(Step::Call(1), verdict);
        assert_eq!(bench.outcome(), (4, Outcome::Device));
        bench.ask(4, 2);
        control.let_on(Step::Renew, Go);
    }
    control.let_on(Step::Call(1), Go);
    bench.is_answered(4, 0);
    bench.ask(5, 200); // no such shard, no call
    assert_eq!(bench.outcome(), (5, Outcome::Quarantined));
    assert!(control.is_quiet());
}

#[test]
fn what_was_computed_of_a_shard_that_lost_its_content_is_not_sent() {
    let (mut bench, controls, store_controls) = bench(1, 1);
    // While the processor reads it, and before it would.
    bench.stores[0].set(Residency::Never);
    bench.ask(0, LOST);
    controls[0].is_at(Step::Call(1));
    bench.ask(1, LOST);
    bench.lost.store(true, Ordering::Relaxed);
    controls[0].answer(Go);
    assert_eq!(bench.outcome(), (0, Outcome::Quarantined));
    assert_eq!(bench.outcome(), (1, Outcome::Quarantined));
    // While it is uploaded: the device is not to blame, and what it has is not used.
    bench.lost.store(false, Ordering::Relaxed);
    bench.stores[0].set(Residency::Room);
    bench.ask(2, LOST);
    store_controls[0].is_at(Step::Upload(LOST as u8));
    bench.lost.store(true, Ordering::Relaxed);
    store_controls[0].answer(Go);
    assert_eq!(bench.outcome(), (2, Outcome::Quarantined));
    let counters = bench.workers.counters();
    assert_eq!((counters.uploads.get(), counters.uploads_failed.get()), (0, 0));
    assert!(controls[1].is_quiet());
}

#[test]
fn late_and_cancelled_queries_are_not_computed() {
    let (mut bench, controls, _) = bench(1, 0);
    let control = &controls[0];
    bench.ask(0, 1);
    control.is_at(Step::Call(1));
    bench.admit(1, 1, Duration::ZERO);
    let ticket = bench.admit(2, 1, LONG);
    bench.ask(3, 1);
    assert_eq!(bench.workers.queue().cancel(&[ticket, ticket]), 1);
    control.answer(Go);
    bench.is_answered(0, 0);
    assert_eq!(bench.outcome(), (1, Outcome::Deadline));
    control.let_on(Step::Call(1), Go);
    bench.is_answered(3, 0);
}

#[test]
fn a_shard_is_uploaded_while_the_processor_answers_and_then_stays() {
    let (mut bench, controls, stores) = bench(1, 1);
    bench.ask(0, 7);
    stores[0].is_at(Step::Upload(7));
    controls[0].let_on(Step::Call(1), Go);
    bench.is_answered(0, 0);
    stores[0].answer(Go);
    // Counted before it is known to be there.
    until(|| bench.workers.counters().upload_time.read().count == 1);
    for index in 1..3 {
        bench.is_answered_by(index, 7, &controls[1], 1);
    }
    assert_eq!(bench.answered(), [2, 0, 1, 0]);
    assert_eq!(bench.workers.counters().uploads.get(), 1);
    assert!(stores[0].is_quiet());
}

#[test]
fn queries_wait_for_an_upload_that_is_sooner_done_than_a_batch() {
    let (mut bench, controls, stores) = bench(1, 1);
    // On a small shard: a batch of a large one will take minutes.
    bench.measure_processor(&controls[0], 1);
    bench.ask(0, LARGE);
    bench.ask(1, LARGE);
    stores[0].is_at(Step::Upload(LARGE as u8));
    // One whose time is up is told so meanwhile.
    bench.admit(2, LARGE, Duration::from_millis(1));
    assert_eq!(bench.outcome(), (2, Outcome::Deadline));
    stores[0].answer(Go);
    controls[1].let_on(Step::Call(2), Go);
    bench.is_answered(0, 1);
    bench.is_answered(1, 1);
    assert_eq!(bench.answered(), [0, 2, 1, 0]);
    assert!(controls[0].is_quiet());
}

#[test]
fn a_device_that_fails_loses_nothing_and_is_recreated_before_it_answers() {
    let (mut bench, controls, stores) = bench(1, 1);
    let (processor, device) = (&controls[0], &controls[1]);
    (1..4).for_each(|shard| bench.put_here(0, shard));
    bench.ask(0, 1);
    device.is_at(Step::Call(1));
    (1..5).for_each(|index| bench.ask(index, 2));
    device.answer(Go);
    bench.is_answered(0, 1);
    // Two were answered before it failed, the others are not lost.
    device.let_on(Step::Call(4), Fail(2));
    bench.is_answered(1, 1);
    bench.is_answered(2, 1);
    processor.let_on(Step::Call(2), Go);
    bench.is_answered(3, 0);
    bench.is_answered(4, 0);
    // Until it is back the processor answers everything, and nothing is uploaded.
    for verdict in [Fail(0), Panic(0)] {
        device.is_at(Step::Renew);
        for (index, shard) in [(5, 2), (6, 9)] {
            bench.is_answered_by(index, shard, processor, 0);
        }
        device.answer(verdict);
    }
    device.let_on(Step::Renew, Go);
    until(|| bench.workers.counters().renewals.get() == 1);
    assert!(stores[0].is_quiet());
    // A panic is a failure like any other; so is a call that leaves queries out.
    for (index, verdict) in [(7, Panic(0)), (8, Leave(0))] {
        bench.ask(index, 3);
        device.let_on(Step::Call(1), verdict);
        processor.let_on(Step::Call(1), Go);
        bench.is_answered(index, 0);
        device.let_on(Step::Renew, Go);
        until(|| bench.workers.counters().renewals.get() == index as u64 - 5);
    }
    bench.is_answered_by(9, 3, device, 1);
    let counters = bench.workers.counters();
    assert_eq!(counters.device_failures.get(), 3);
    assert_eq!((counters.renewals.get(), counters.renewals_failed.get()), (3, 2));
    assert_eq!(bench.answered(), [4, 0, 4, 4]);
    // What failed on the device has waited once, and was in two batches.
    let sizes = counters.batch_queries.read();
    assert_eq!((sizes.count, sizes.sum, counters.queue_time.read().count), (12, 16.0, 12));
    assert_eq!(counters.scan_time.read().count, 0, "these engines keep no time");
}

#[test]
fn what_the_processor_fails_at_after_a_device_ends() {
    let (mut bench, controls, _) = bench(1, 1);
    bench.put_here(0, 1);
    bench.ask(0, 1);
    controls[1].let_on(Step::Call(1), Fail(0));
    controls[0].let_on(Step::Call(1), Panic(0));
    assert_eq!(bench.outcome(), (0, Outcome::Device));
    controls[0].answer(Go);
    controls[1].answer(Go);
}

#[test]
fn a_device_alone_answers_what_is_not_there_and_fails_what_it_fails_at() {
    let (mut bench, controls, stores) = bench(0, 1);
    bench.stores[0].set(Residency::Never);
    bench.is_answered_by(0, 1, &controls[0], 1);
    bench.stores[0].set(Residency::Room);
    bench.ask(1, 1);
    stores[0].let_on(Step::Upload(1), Go);
    controls[0].let_on(Step::Call(1), Fail(0));
    assert_eq!(bench.outcome(), (1, Outcome::Device));
    // While it is recreated, queries wait.
    controls[0].is_at(Step::Renew);
    bench.ask(2, 1);
    controls[0].answer(Go);
    controls[0].let_on(Step::Call(1), Go);
    bench.is_answered(2, 1);
}

#[test]
fn a_shard_that_cannot_be_uploaded_is_left_to_the_processor_and_the_device_asked() {
    let (mut bench, controls, stores) = bench(1, 1);
    bench.measure_processor(&controls[0], 1);
    for (index, verdict) in [Fail(0), Panic(0)].into_iter().enumerate() {
        let shard = LARGE + index as u32;
        bench.ask(index, shard);
        stores[0].let_on(Step::Upload(shard as u8), verdict);
        controls[0].let_on(Step::Call(1), Go);
        bench.is_answered(index, 0);
        // It is alive.
        controls[1].let_on(Step::Call(0), Go);
        // Asked again: not tried again.
        bench.is_answered_by(index, shard, &controls[0], 0);
    }
    bench.ask(2, LARGE + 2);
    stores[0].let_on(Step::Upload(LARGE as u8 + 2), Fail(0));
    controls[1].let_on(Step::Call(0), Fail(0));
    controls[1].let_on(Step::Renew, Go);
    controls[0].let_on(Step::Call(1), Go);
    bench.is_answered(2, 0);
    let counters = bench.workers.counters();
    assert_eq!((counters.uploads.get(), counters.uploads_failed.get()), (0, 3));
    assert_eq!(counters.device_failures.get(), 1);
}

#[test]
fn leaving_does_not_wait_for_a_device_to_come_back() {
    let (mut bench, controls, _stores) = bench(1, 1);
    bench.put_here(0, 1);
    bench.ask(0, 1);
    controls[1].let_on(Step::Call(1), Fail(0));
    controls[0].let_on(Step::Call(1), Go);
    bench.is_answered(0, 0);
    // It never is.
    (0..1000).for_each(|_| controls[1].answer(Fail(0)));
    controls[1].is_at(Step::Renew);
    controls[1].is_at(Step::Renew);
    drop(bench);
}

#[test]
fn shards_are_spread_over_devices_and_over_the_rest_when_one_is_down() {
    let (mut bench, controls, stores) = bench(1, 2);
    (0..2).for_each(|shard| bench.put_here(shard as usize, shard));
    for (index, number) in [(0, 1), (1, 2)] {
        bench.is_answered_by(index, index as u32, &controls[usize::from(number)], number);
    }
    bench.ask(2, 0);
    controls[1].let_on(Step::Call(1), Fail(0));
    controls[0].let_on(Step::Call(1), Go);
    bench.is_answered(2, 0);
    controls[1].is_at(Step::Renew);
    // The other one takes its shards: those it has at once, others when they are uploaded.
    bench.put_here(1, 2);
    bench.is_answered_by(3, 2, &controls[2], 2);
    bench.ask(4, LARGE);
    stores[1].let_on(Step::Upload(LARGE as u8), Go);
    controls[2].let_on(Step::Call(1), Go);
    bench.is_answered(4, 2);
    controls[1].answer(Go);
}

/// Two devices that fail at random at everything they do.
#[test]
fn every_query_is_answered_once_whatever_fails() {
    let seed = std::process::id();
    println!("seed {seed}");
    let mut state = u64::from(seed) | 1;
    let mut random = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) % below
    };
    let (mut bench, mut controls, stores) = bench(1, 2);
    controls.remove(0); // the processor never fails
    bench.put_here(1, 1);
    controls[1].answer(Fail(0));
    for control in controls.iter().chain(&stores) {
        for _ in 0..10_000 {
            let count = random(4) as usize;
            control.answer(match random(12) {
                0 => Fail(count),
                1 => Panic(count),
                2 => Leave(count),
                _ => Go,
            });
        }
    }
    let count = 2_000;
    let mut open: HashSet<usize> = (0..count).collect();
    for index in 0..count {
        let residency = match random(3) {
            0 => Residency::Room,
            1 => Residency::InPlace { unused: LONG },
            _ => Residency::Never,
        };
        bench.stores[random(2) as usize].set(residency);
        bench.ask(index, if index == 0 { 1 } else { random(12) as u32 });
        if index % 40 == 39 {
            for _ in 0..30 {
                is_right(bench.outcome(), &mut open);
            }
        }
    }
    while !open.is_empty() {
        is_right(bench.outcome(), &mut open);
    }
    assert!(bench.outcomes.try_recv().is_err());
    assert_eq!(bench.answered().iter().sum::<u64>(), count as u64);
    assert!(bench.workers.counters().device_failures.get() > 0);
}

fn is_right((index, outcome): (usize, Outcome), open: &mut HashSet<usize>) {
    assert!(open.remove(&index), "{index} twice");
    let Outcome::Answered(answer) = outcome else { panic!("{index}: {outcome:?}") };
    assert_eq!(answer[0][0], index as u8);
}

#[test]
fn engines_are_asked_a_known_query_beside_others() {
    // Scripted engines are wrong about it.
    let (mut bench, controls, _) = bench_proving(1, 1, Some(LONG));
    let (processor, device) = (&controls[0], &controls[1]);
    let queue = bench.workers.queue();
    let engine = |number: usize| queue.engines(Instant::now()).swap_remove(number);
    let of = |number: usize| (engine(number).state, engine(number).proven.is_some());
    processor.is_at(Step::Call(1));
    device.is_at(Step::Call(1));
    assert!((0..2).all(|number| engine(number).busy.is_some()));
    // The processor goes on, and is not trusted; the device is recreated, and proves itself so.
    processor.answer(Go);
    device.answer(Go);
    device.is_at(Step::Renew);
    assert_eq!([of(0), of(1)], [(EngineState::Up, false), (EngineState::Down, false)]);
    bench.is_answered_by(0, 1, processor, 0);
    assert_eq!(of(0), (EngineState::Up, false));
    device.answer(Go);
    until(|| of(1) == (EngineState::Up, true));
    until(|| (0..2).all(|number| engine(number).busy.is_none()));
    assert!(processor.is_quiet() && device.is_quiet());
    assert_eq!(bench.workers.counters().device_failures.get(), 1);
}

#[test]
fn an_engine_is_asked_again_when_its_time_has_come() {
    let (bench, controls, _) = bench_proving(1, 0, Some(Duration::ZERO));
    (0..3).for_each(|_| controls[0].let_on(Step::Call(1), Go));
    // A busy one too, before its next query.
    controls[0].is_at(Step::Call(1));
    (0..2).for_each(|index| bench.ask(index, 1));
    controls[0].answer(Go);
    controls[0].let_on(Step::Call(1), Go);
    assert_eq!(bench.workers.counters().batch_queries.read().count, 0);
}
