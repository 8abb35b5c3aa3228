//! The run as it is written down, and targets.

use std::time::Duration;

use sotto::arith::IsaName;
use sotto::params::Shape;

use super::answers::{Run, Series, Setting};
use super::floors::{self, Floors};
use super::pin::Cores;
use crate::common::{Effort, ms, target_shape};
use crate::record::{self, Answer, ClientWork, Cold, Head, Kernel, Read, Refusal};
use crate::record::{ShapeFacts, Spread, Target, Work, rounded};

pub(super) struct Measured {
    pub(super) floors: Floors,
    pub(super) settings: Vec<Setting>,
    pub(super) client: ClientWork,
    pub(super) memory_bytes: Option<u64>,
    pub(super) refusal: Refusal,
    pub(super) counting: Duration,
    pub(super) cold: Vec<Cold>,
}

pub(super) fn record(
    head: Head,
    effort: Effort,
    shape: &Shape,
    cores: &Cores,
    measured: Measured,
) -> Kernel {
    let Measured { floors, settings, client, memory_bytes, refusal, counting, cold } = measured;
    let shape_facts = ShapeFacts::of(shape);
    let answers = settings.iter().flat_map(|setting| {
        let row = |series| answer(setting, series, shape, &floors, cores);
        setting.series.iter().filter_map(row)
    });
    let mut record = Kernel {
        head,
        effort: effort.name().into(),
        pinned_to: cores.cpus.clone(),
        shape: shape_facts,
        answers: answers.collect(),
        floors: floors_record(&floors, &settings, shape, &shape_facts),
        client,
        batch_memory_bytes: memory_bytes,
        refusal,
        counting_ns_per_query: counting.as_nanos() as f64,
        cold,
        targets: Vec::new(),
    };
    if target_shape().is_ok_and(|target| target == *shape) {
        record.targets = targets(&record);
    }
    record
}

fn floors_record(
    floors: &Floors,
    settings: &[Setting],
    shape: &Shape,
    facts: &ShapeFacts,
) -> record::Floors {
    let bytes = facts.scan_bytes() as f64;
    let read = floors.read.iter().map(|(&threads, &(time, how))| Read {
        threads,
        ms: ms(time),
        gb_per_s: rounded(bytes / time.as_nanos().max(1) as f64),
        how: how.into(),
    });
    let work = |isa: IsaName| {
        let [scan, pack] = floors::work(isa, shape)?;
        let work = [("scan", scan), ("pack", pack)].map(|(stage, work)| Work {
            stage: stage.into(),
            instruction: work.instruction.into(),
            millions_a_query: rounded(work.count / 1e6),
            floor_ms: floors.work_ms(&work).map(rounded),
        });
        Some((isa.name().to_owned(), work.to_vec()))
    };
    record::Floors {
        read: read.collect(),
        peaks_g_per_s: floors.peaks.iter().map(|(&n, &rate)| (n.into(), rounded(rate))).collect(),
        work: settings.iter().filter_map(|setting| work(setting.isa)).collect(),
    }
}

fn answer(
    setting: &Setting,
    series: &Series,
    shape: &Shape,
    floors: &Floors,
    cores: &Cores,
) -> Option<Answer> {
    let Setting { isa, threads, .. } = *setting;
    let best = series.runs.iter().min()?;
    let (batch, read) = (series.batch as f64, floors.read.get(&threads)?.0);
    let a_query = |time: Duration| time.as_secs_f64() * 1e3 / batch;
    let whole = a_query(best.whole);
    let stage = |of: fn(&Run) -> Duration| a_query(of(best)) / threads as f64;
    let (scan, pack) = (stage(|run| run.scan), stage(|run| run.pack));
    let (prepare, finish) = (stage(|run| run.prepare), stage(|run| run.finish));
    // Threads of one core share what multiplies.
    let multipliers = threads.min(cores.cores) as f64;
    let [scan_floor, pack_floor] = match floors::work(isa, shape) {
        Some(work) => work.map(|work| Some(floors.work_ms(&work)? / multipliers)),
        None => [None, None],
    };
    let multiplying = scan_floor.zip(pack_floor).map(|(scan, pack)| scan + pack);
    let floor = multiplying.map(|multiplying| multiplying.max(a_query(read)));
    Some(Answer {
        engine: isa.name().into(),
        threads,
        batch: series.batch,
        ms_per_query: Spread::of(series.runs.iter().map(|run| a_query(run.whole)))?,
        scan_ms: rounded(scan),
        pack_ms: rounded(pack),
        prepare_ms: rounded(prepare),
        finish_ms: rounded(finish),
        other_ms: rounded(whole - scan - pack - prepare - finish),
        floor_ms: floor.map(rounded),
        whole_share: floor.map(|floor| rounded(floor / whole)),
        scan_share: scan_floor.map(|floor| rounded(floor / scan)),
        pack_share: pack_floor.map(|floor| rounded(floor / pack)),
        times_reading: rounded(best.whole.as_secs_f64() / read.as_secs_f64()),
    })
}

fn find<'a>(record: &'a Kernel, engine: &str, threads: usize, batch: usize) -> Option<&'a Answer> {
    let wanted = (engine, threads, batch);
    record.answers.iter().find(|found| (&*found.engine, found.threads, found.batch) == wanted)
}

/// Batch 16 with one thread over two: of the best, and of the medians.
fn two_threads_speedup(record: &Kernel, engine: &str) -> Option<[f64; 2]> {
    let [one, two] = [1, 2].map(|threads| find(record, engine, threads, 16));
    let (one, two) = (one?.ms_per_query, two?.ms_per_query);
    Some([one.best / two.best, one.median / two.median])
}

/// What counting one query takes of the fastest answer there is here.
fn counting_percent(record: &Kernel) -> Option<f64> {
    let fastest = record.answers.iter().map(|answer| answer.ms_per_query.best);
    let fastest = fastest.min_by(f64::total_cmp)?;
    Some(record.counting_ns_per_query / fastest / 1e4)
}

/// Those of docs/design.md, "Targets", for `avx512`, whose instructions they name; without it for
/// the fastest.
fn targets(record: &Kernel) -> Vec<Target> {
    let engines = || record.answers.iter().map(|answer| &*answer.engine);
    let avx512 = engines().find(|&engine| engine == IsaName::Avx512.name());
    let Some(engine) = avx512.or_else(|| engines().next_back()) else { return Vec::new() };
    let (one, sixteen) = (find(record, engine, 1, 1), find(record, engine, 1, 16));
    let read = record.floors.read.first().map(|read| read.ms);
    let reading = one.zip(read).map(|(one, read)| one.ms_per_query.median / read);
    let speedup = two_threads_speedup(record, engine);
    let client = &record.client;
    let memory = record.batch_memory_bytes.map(|bytes| bytes as f64 / 1e6);
    let share = |of: fn(&Answer) -> Option<f64>| sixteen.and_then(of);
    let times = one.map(|answer| answer.times_reading);
    let two = find(record, engine, 1, 2).map(|answer| answer.times_reading);
    let best = sixteen.map(|answer| answer.ms_per_query.best);
    let middle = sixteen.map(|answer| answer.ms_per_query.median);
    let [faster, faster_median] = [0, 1].map(|at| speedup.map(|speedup| speedup[at]));
    let scan = share(|answer| answer.scan_share);
    let pack = share(|answer| answer.pack_share);
    vec![
        Target::new("batch 1, one core: times reading the shard", ..=1.15, times, reading),
        Target::new("batch 2, one core: times reading the shard", ..=1.25, two, None),
        Target::new("batch 16, one core: ms a query", ..=4.0, best, middle),
        Target::new("batch 16, one core: scan, share of peak", 0.8.., scan, None),
        Target::new("batch 16, one core: pack, share of peak", 0.8.., pack, None),
        Target::new("batch 16: two threads over one", 1.8.., faster, faster_median),
        Target::new("client: secret and key bundle, ms", ..=2.0, Some(client.key_bundle_ms), None),
        Target::new("client: encrypting a query, ms", ..=2.0, Some(client.encrypt_ms), None),
        Target::new("client: decoding a record, ms", ..=1.0, Some(client.decode_ms), None),
        Target::new("memory of a batch of 32, MB", ..=64.0, memory, None),
        Target::new(
            "refusal at a full queue, worst, ms",
            ..=1.0,
            Some(record.refusal.ms_worst),
            None,
        ),
        Target::new("counting one query, % of an answer", ..=1.0, counting_percent(record), None),
    ]
}
