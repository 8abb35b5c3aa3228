//! What a record of each kind measured: a list of named numbers, each with its unit and which way
//! is better. Tables, summaries and comparisons, which go by name, are made of these. Beside them
//! stand what a record was measured of, targets, and doubts.

use crate::found::Record;
use crate::load::ledger::half_interval;
use crate::load::report::{Report, Row, Trial};
use crate::load::search::{Limit, RESOLUTION};
use crate::record::*;
use crate::table::Table;
use crate::units;
use sotto::text::counted;

pub(crate) struct Number {
    pub(crate) what: String,
    pub(crate) unit: &'static str,
    pub(crate) value: f64,
    pub(crate) best: Option<f64>,
    /// How far it may be off by chance, in its unit; none where it was measured once.
    pub(crate) noise: Option<f64>,
    /// What no program can beat, in its unit.
    pub(crate) floor: Option<f64>,
    pub(crate) sense: Sense,
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Sense {
    LessIsBetter,
    MoreIsBetter,
    /// Neither: a floor, a part of a number that is judged, what is one of very few.
    Context,
}

use Sense::{Context, LessIsBetter, MoreIsBetter};

/// Below so many runs quartiles say nothing of noise.
const RUNS_MIN: usize = 3;

impl Number {
    fn once(what: impl Into<String>, value: f64, unit: &'static str, sense: Sense) -> Self {
        Self { what: what.into(), unit, value, best: None, noise: None, floor: None, sense }
    }

    fn exact(what: impl Into<String>, value: f64, unit: &'static str, sense: Sense) -> Self {
        Self { noise: Some(0.0), ..Self::once(what, value, unit, sense) }
    }

    fn time(what: impl Into<String>, spread: Spread, unit: &'static str) -> Self {
        let once = Self::once(what, spread.median, unit, LessIsBetter);
        if spread.runs < RUNS_MIN {
            return once;
        }
        Self { best: Some(spread.best), noise: Some(spread.noise()), ..once }
    }

    fn above(self, floor: Option<f64>) -> Self {
        Self { floor, ..self }
    }
}

pub(crate) fn of(record: &Record) -> Vec<Number> {
    match record {
        Record::Load(record) => load(record),
        Record::Kernel(record) => kernel(record),
        Record::Gpu(record) => gpu(record),
        Record::Build(record) => build(record),
        Record::Startup(record) => startup(record),
        Record::Reload(record) => reload(record),
    }
}

/// Numbers for people: the median or mean, the best run, how sure it is and its share of the floor.
pub(crate) fn table(numbers: &[Number]) -> Table {
    let mut table = Table::new(["", "median", "best", "unit", "noise", "of its floor"]);
    let percent = |share: f64| format!("{:.0}%", share * 1e2);
    for number in numbers {
        let share = number.floor.map(|floor| match number.sense {
            MoreIsBetter => number.value / floor,
            _ => floor / number.value,
        });
        let noise = number.noise.filter(|&noise| noise > 0.0);
        table.row([
            number.what.clone(),
            units::number(number.value),
            number.best.map(units::number).unwrap_or_default(),
            number.unit.into(),
            noise.map(units::number).unwrap_or_default(),
            share.filter(|share| share.is_finite()).map(percent).unwrap_or_default(),
        ]);
    }
    table
}

/// What was wanted and what was found; the best of the run decides, the median stands beside.
pub(crate) fn targets_table(targets: &[Target]) -> Table {
    let mut table = Table::new(["target", "wanted", "best", "median", ""]);
    for Target { what, wanted, measured, median, met } in targets {
        let verdict = match met {
            Some(true) => "met",
            Some(false) => "NOT MET",
            None => "not measured",
        };
        let [best, median] =
            [measured, median].map(|found| found.map_or("-".into(), units::number));
        table.row([what.clone(), wanted.clone(), best, median, verdict.into()]);
    }
    table
}

/// Those of docs/design.md, "Targets", which are for the machines named there.
pub(crate) fn targets(record: &Record) -> Vec<Target> {
    match record {
        Record::Kernel(kernel) => kernel.targets.clone(),
        Record::Gpu(gpu) => gpu.targets.clone(),
        Record::Build(build) => build_targets(build),
        _ => Vec::new(),
    }
}

/// For a million records: in one shard, or in ten thousand.
fn build_targets(build: &Build) -> Vec<Target> {
    let Build { content, seconds, peak_memory_bytes, .. } = build;
    let most = match content.shards {
        _ if content.records < 1_000_000 => return Vec::new(),
        1 => 8.0,
        10_000 => 240.0,
        _ => return Vec::new(),
    };
    let what = format!("building {} records in {} shards, s", content.records, content.shards);
    let mut all = vec![Target::new(&what, ..=most, Some(seconds.best), Some(seconds.median))];
    if content.shards == 1 {
        let mib = (peak_memory_bytes >> 20) as f64;
        all.push(Target::new("its peak memory, MiB", ..=1536.0, Some(mib), None));
    }
    all
}

/// A record for people: where and of what, every number, and targets.
pub(crate) fn text(record: &Record) -> String {
    let mut text = format!("{}\n", record.head().origin());
    text.extend(subject(record).iter().map(|(what, value)| format!("{what}: {value}\n")));
    text.extend(doubts(record).iter().map(|doubt| format!("! {doubt}\n")));
    text += &format!("\n{}", table(&of(record)).text());
    let targets = targets(record);
    if !targets.is_empty() {
        text += &format!("\n{}", targets_table(&targets).text());
    }
    text
}

/// What must be the same for two records to be compared; the same names for each of a kind.
pub(crate) fn conditions(record: &Record) -> Vec<(&'static str, String)> {
    let machine = record.machine();
    let cpu = machine.cpu.as_deref().unwrap_or("unknown");
    let mut all = vec![
        ("machine", format!("{cpu}, {} cores, {}", machine.logical_cpus, machine.arch)),
        ("processor's flags", machine.flags.join(" ")),
        ("number of cores to use", machine.cpus.to_string()),
    ];
    all.extend(subject(record));
    all
}

/// What a record was measured of.
fn subject(record: &Record) -> Vec<(&'static str, String)> {
    let ShapeFacts { value_len, pack_rows, packs, columns, .. } = record.shards().1;
    let shape = format!(
        "{packs} packs of {pack_rows} rows x {columns} columns, fields of {value_len} bytes"
    );
    let mut all = vec![("shape", shape)];
    let mut database = |content: &Content, threads: usize| {
        let Content { records, shards, .. } = content;
        all.push(("database", format!("{records} records, {shards} shards")));
        all.push(("number of threads", threads.to_string()));
    };
    match record {
        Record::Load(record) => {
            all.push(("number of shards", record.server.shards.to_string()));
            all.push(("objective", format!("{} ms", record.objective_ms)));
        }
        Record::Kernel(_) => {}
        Record::Gpu(record) => {
            all.push(("device", record.device.name.clone()));
            all.push(("engine", record.engine.clone()));
        }
        Record::Build(record) => database(&record.content, record.threads),
        Record::Startup(record) => database(&record.content, record.threads),
        Record::Reload(record) => database(&record.content, record.threads),
    }
    all
}

/// Why a record, or a part of it, is not to be trusted.
pub(crate) fn doubts(record: &Record) -> Vec<String> {
    let effort = match record {
        Record::Load(record) => {
            let invalid = record.trials.iter().filter(|trial| trial.invalid.is_some());
            let said = |trial: &Trial| format!("INVALID, left out: {:.1} a second", trial.rate);
            return invalid.map(said).collect();
        }
        Record::Gpu(record) if record.device.software => {
            return vec![
                "a processor plays this GPU: the numbers show that the measurement runs, and \
                 nothing else"
                    .into(),
            ];
        }
        Record::Kernel(record) => &record.effort,
        Record::Gpu(record) => &record.effort,
        _ => return Vec::new(),
    };
    if effort == "full" { Vec::new() } else { vec![format!("measured with effort {effort:?}")] }
}

const MS: &str = "ms";
const MS_A_QUERY: &str = "ms/query";
const A_SECOND: &str = "a second";
const MB: &str = "MB";

fn mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// Measured once each: what of it, the value, its unit and which way is better.
fn once<const N: usize>(of: &str, all: [(&str, f64, &'static str, Sense); N]) -> Vec<Number> {
    all.map(|(part, value, unit, sense)| Number::once(format!("{of}{part}"), value, unit, sense))
        .into()
}

/// Stages of an answer, each with its share of what could be at best.
fn stages<const N: usize>(
    of: &str,
    unit: &'static str,
    all: [(&str, f64, Option<f64>); N],
) -> Vec<Number> {
    all.map(|(part, time, share)| {
        let stage = Number::once(format!("{of}: {part}"), time, unit, Context);
        stage.above(share.map(|share| share * time))
    })
    .into()
}

fn kernel(record: &Kernel) -> Vec<Number> {
    let mut all = Vec::new();
    for read in &record.floors.read {
        let what = format!("floor: reading the shard, {}", counted(read.threads as u64, "thread"));
        all.push(Number::once(what, read.ms, MS, Context));
    }
    for (name, &peak) in &record.floors.peaks_g_per_s {
        all.push(Number::once(format!("floor: {name}"), peak, "10^9 a second", Context));
    }
    for answer in &record.answers {
        let reads = record.floors.read.iter().find(|read| read.threads == answer.threads);
        let reading = reads.map(|read| read.ms / answer.batch as f64);
        let threads = counted(answer.threads as u64, "thread");
        let what = format!("{}, {threads}, batch {}", answer.engine, answer.batch);
        let whole = Number::time(&what, answer.ms_per_query, MS_A_QUERY);
        all.push(whole.above(answer.floor_ms.or(reading)));
        let parts = [
            ("scan", answer.scan_ms, answer.scan_share),
            ("pack", answer.pack_ms, answer.pack_share),
            ("prepare", answer.prepare_ms, None),
            ("finish", answer.finish_ms, None),
            ("other", answer.other_ms, None),
        ];
        all.extend(stages(&what, MS_A_QUERY, parts));
    }
    let (client, refusal) = (&record.client, &record.refusal);
    let memory = record
        .batch_memory_bytes
        .map(|bytes| Number::once("memory of the largest batch", mb(bytes), MB, LessIsBetter));
    all.extend(memory);
    all.extend(once(
        "",
        [
            ("client: secret and key bundle", client.key_bundle_ms, MS, LessIsBetter),
            ("client: encrypting a query", client.encrypt_ms, MS, LessIsBetter),
            ("client: decoding a record", client.decode_ms, MS, LessIsBetter),
            ("refusing: median", 1e3 * refusal.ms_median, "us", LessIsBetter),
            ("refusing: worst", 1e3 * refusal.ms_worst, "us", Context),
            ("counting", record.counting_ns_per_query, "ns/query", LessIsBetter),
        ],
    ));
    let is_read = |cold: &&Cold| cold.engine.is_none();
    let plain = record.cold.iter().find(is_read).map(|read| read.ms.median);
    all.extend(record.cold.iter().map(|cold| {
        match cold.engine.as_deref().zip(cold.threads).zip(cold.batch) {
            None => Number {
                sense: Context,
                ..Number::time(format!("floor, not cached: {}", cold.what), cold.ms, MS)
            },
            Some(((engine, threads), batch)) => {
                let threads = counted(threads as u64, "thread");
                let what = format!("not cached: {engine}, {threads}, batch {batch}");
                Number::time(what, cold.ms, MS).above(plain)
            }
        }
    }));
    all
}

fn gpu(record: &Gpu) -> Vec<Number> {
    const PEAK: &str = "10^9 a second";
    let (floors, up) = (&record.floors, &record.uploads);
    let mut all = once(
        "floor: ",
        [
            ("reading memory", floors.read_gb_per_s, "GB/s", Context),
            ("u32 multiply-adds", floors.narrow_g_per_s, PEAK, Context),
            ("dot4I8Packed", floors.dot_g_per_s, PEAK, Context),
        ],
    );
    let wide = |wide| Number::once("floor: u64 multiply-adds", wide, PEAK, Context);
    all.extend(floors.wide_g_per_s.map(wide));
    for answer in &record.answers {
        let unit = "us/query";
        for (part, spread) in [("alone", answer.alone_us), ("streamed", answer.streamed_us)] {
            let what = format!("batch {}, {part}", answer.batch);
            all.push(Number::time(what, spread, unit).above(Some(answer.floor_us)));
        }
        let parts = [
            ("prepare", answer.prepare_us, answer.prepare_share),
            ("scan", answer.scan_us, answer.scan_share),
            ("pack", answer.pack_us, answer.pack_share),
            ("finish", answer.finish_us, answer.finish_share),
        ];
        all.extend(stages(&format!("batch {}, device", answer.batch), unit, parts));
    }
    let beside = up.answers_per_s_while_uploading;
    all.extend(once(
        "",
        [
            ("upload into free memory", up.into_free_memory_gb_per_s, "GB/s", MoreIsBetter),
            ("upload in place of others", up.in_place_of_others_gb_per_s, "GB/s", MoreIsBetter),
            ("upload while answering", up.while_answering_gb_per_s, "GB/s", MoreIsBetter),
            ("answers beside no uploads", up.answers_per_s, A_SECOND, MoreIsBetter),
            ("answers beside uploads", beside, A_SECOND, MoreIsBetter),
        ],
    ));
    for each in &record.traffic.loops {
        all.extend(once(
            &format!("{} outstanding, ", each.outstanding),
            [
                ("answered", each.queries_per_s, A_SECOND, MoreIsBetter),
                ("median", each.median_ms, MS, LessIsBetter),
                ("99%", each.p99_ms, MS, LessIsBetter),
            ],
        ));
    }
    all
}

fn build(record: &Build) -> Vec<Number> {
    let (database, peak) = (record.content.database_bytes, record.peak_memory_bytes);
    vec![
        Number::time("building", record.seconds, "s"),
        Number::time("building: processor time", record.cpu_seconds, "s"),
        Number::time("verifying", record.verify_seconds, "s"),
        Number::once("most memory", mb(peak), MB, LessIsBetter),
        Number::exact("database", mb(database), MB, LessIsBetter),
        Number::exact("input", mb(record.input_bytes), MB, Context),
    ]
}

fn startup(record: &Startup) -> Vec<Number> {
    let of = |(name, started): (&str, &Started)| {
        let memory = mb(started.own_memory_bytes);
        [
            Number::time(format!("{name}: listening"), started.listening_ms, MS),
            Number::time(format!("{name}: ready"), started.ready_ms, MS),
            Number::time(format!("{name}: first answer"), started.first_answer_ms, MS),
            Number::once(format!("{name}: own memory"), memory, MB, LessIsBetter),
        ]
    };
    [("cached", &record.warm), ("not cached", &record.cold)].into_iter().flat_map(of).collect()
}

fn reload(record: &Reload) -> Vec<Number> {
    let mut all = Vec::new();
    for change in &record.changes {
        let what = |part: &str| format!("{} new, {part}", counted(change.shards.into(), "shard"));
        all.push(Number::time(what("reloaded"), change.reload_ms, MS));
        all.push(Number::once(what("slowest look-up"), change.lookup_ms_max, MS, Context));
    }
    all.push(Number::once("look-ups meanwhile", record.lookups as f64, "", Context));
    all.push(Number::exact("look-ups lost", record.lost as f64, "", LessIsBetter));
    all
}

fn load(record: &Report) -> Vec<Number> {
    let mut all = Vec::new();
    if let Some(limit) = record.limit {
        // The walk tells rates apart down to its last step, half of which counts for each of two
        // limits, and cannot see beyond the generator.
        let sense = if limit.generator_bound { Context } else { MoreIsBetter };
        let noise = Some((RESOLUTION - 1.0) / 2.0 * limit.rate);
        all.push(Number { noise, ..Number::once("limit", limit.rate, A_SECOND, sense) });
    }
    let wrong = record.trials.iter().map(|trial| trial.verified.wrong).sum::<u64>();
    all.push(Number::exact("wrong answers", wrong as f64, "", LessIsBetter));
    let valid = |trial: &&Trial| trial.invalid.is_none();
    for trial in record.trials.iter().filter(valid) {
        // Limits differ, so that latencies at them are not judged.
        let (place, latency) = match record.limit.and_then(|limit| beside(limit, trial.rate)) {
            Some(place) => (place, Context),
            None => (format!("{:.1} a second", trial.rate), LessIsBetter),
        };
        let numbers = run(trial, &format!("at {place}: "), latency);
        // What was invalid was tried again; what counts is the last.
        all.retain(|number| numbers.iter().all(|other| other.what != number.what));
        all.extend(numbers);
    }
    all
}

/// Where a rate lies that is the limit or one of those shown beside it.
fn beside(limit: Limit, rate: f64) -> Option<String> {
    let is = |factor: &f64| (rate / (limit.rate * factor) - 1.0).abs() < 1e-6;
    let factor = [1.0].into_iter().chain(crate::load::BEYOND).find(is)?;
    Some(if factor == 1.0 { "the limit".into() } else { format!("{factor} times the limit") })
}

fn run(trial: &Trial, of: &str, judged: Sense) -> Vec<Number> {
    let (latency, sent) = (&trial.latency_ms, &trial.from_send_ms);
    // Half of the interval over the windows.
    let over = |value: fn(&Row) -> f64| {
        half_interval(&trial.windows.iter().map(value).collect::<Vec<_>>())
    };
    let means = [
        ("answered", trial.throughput, trial.intervals.throughput, A_SECOND, MoreIsBetter),
        ("good", trial.goodput, over(|row| row.good as f64), A_SECOND, MoreIsBetter),
        ("p50", latency.p50, over(|row| row.latency_ms.p50), MS, judged),
        ("p90", latency.p90, over(|row| row.latency_ms.p90), MS, judged),
        ("p99", latency.p99, trial.intervals.p99, MS, judged),
        ("p50 from send", sent.p50, over(|row| row.from_send_ms.p50), MS, judged),
        ("p99 from send", sent.p99, over(|row| row.from_send_ms.p99), MS, judged),
    ];
    let mean = |(part, value, share, unit, sense): (&str, f64, Option<f64>, _, _)| Number {
        noise: share.map(|share| share * value),
        ..Number::once(format!("{of}{part}"), value, unit, sense)
    };
    let mut all: Vec<Number> = means.map(mean).into();
    all.extend(once(
        of,
        [("p99.9", latency.p999, MS, Context), ("slowest", latency.max, MS, Context)],
    ));
    let Some(server) = &trial.server else { return all };
    let cpu = 1e3 * server.cpu_seconds / server.answers.max(1) as f64;
    let parts = [
        ("server, processor time", cpu, MS_A_QUERY, LessIsBetter),
        ("server, memory", mb(server.resident_memory_bytes), MB, LessIsBetter),
        ("server, queries a batch", server.batch_mean, "", Context),
        ("server, queue", server.queue_ms, MS_A_QUERY, Context),
        ("server, scan", server.scan_ms, MS_A_QUERY, Context),
        ("server, pack", server.pack_ms, MS_A_QUERY, Context),
        ("server, send", server.send_ms, MS_A_QUERY, Context),
        ("server, whole", server.answer_ms, MS_A_QUERY, Context),
    ];
    all.extend(once(of, parts));
    all
}
