//! What a record of each kind measured: a list of named numbers. Each measured field has its name,
//! its unit and which way is better here and nowhere else: tables, the summary of a record's folder
//! and comparisons, which go by name, are made of these. What is worked out of others (times
//! reading) is left out.

use crate::found::Record;
use crate::load::ledger::half_interval;
use crate::load::report::{Quantiles, Report, Row, ServerSide, Trial};
use crate::load::search::{Limit, RESOLUTION};
use crate::record::*;
use crate::table::Table;

/// One number.
pub(crate) struct Number {
    pub(crate) what: String,
    pub(crate) unit: &'static str,
    pub(crate) value: f64,
    pub(crate) best: Option<f64>,
    pub(crate) noise: Noise,
    /// What no program can beat, in its unit.
    pub(crate) floor: Option<f64>,
    pub(crate) sense: Sense,
}

/// How sure a number is, in its unit.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Noise {
    /// It would be the same again.
    Exact,
    /// Of a median: [`Spread::noise`].
    Notch(f64),
    /// Half of the 95% confidence interval of a mean.
    Interval(f64),
    /// It may be more by up to this: the next that was looked at was too much.
    Step(f64),
    /// Measured once.
    Unknown,
}

impl Noise {
    /// Whether it is a matter of chance, and how much of one is known.
    pub(crate) fn is_known(self) -> bool {
        matches!(self, Self::Notch(_) | Self::Interval(_))
    }
}

/// Which way is better.
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
    /// Measured once.
    fn once(what: impl Into<String>, value: f64, unit: &'static str, sense: Sense) -> Self {
        let (what, noise) = (what.into(), Noise::Unknown);
        Self { what, unit, value, best: None, noise, floor: None, sense }
    }

    fn exact(what: impl Into<String>, value: f64, unit: &'static str, sense: Sense) -> Self {
        Self { noise: Noise::Exact, ..Self::once(what, value, unit, sense) }
    }

    /// A time, measured several times.
    fn time(what: impl Into<String>, spread: Spread, unit: &'static str) -> Self {
        let once = Self::once(what, spread.median, unit, LessIsBetter);
        if spread.runs < RUNS_MIN {
            return once;
        }
        Self { best: Some(spread.best), noise: Noise::Notch(spread.noise()), ..once }
    }

    /// `share` is half of its interval, of the value.
    fn mean(
        what: String,
        value: f64,
        share: Option<f64>,
        unit: &'static str,
        sense: Sense,
    ) -> Self {
        let noise = share.map_or(Noise::Unknown, |share| Noise::Interval(share * value));
        Self { noise, ..Self::once(what, value, unit, sense) }
    }

    fn above(self, floor: Option<f64>) -> Self {
        Self { floor, ..self }
    }

    pub(crate) fn is_judged(&self) -> bool {
        self.sense != Context
    }
}

/// All numbers of a record.
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
    for number in numbers {
        let share = number.floor.map(|floor| match number.sense {
            MoreIsBetter => number.value / floor,
            _ => floor / number.value,
        });
        let noise = match number.noise {
            Noise::Notch(noise) | Noise::Interval(noise) | Noise::Step(noise) => digits(noise),
            Noise::Exact | Noise::Unknown => String::new(),
        };
        table.row([
            number.what.clone(),
            digits(number.value),
            number.best.map(digits).unwrap_or_default(),
            number.unit.into(),
            noise,
            share.filter(|share| share.is_finite()).map(percent).unwrap_or_default(),
        ]);
    }
    table
}

fn percent(share: f64) -> String {
    format!("{:.0}%", share * 1e2)
}

/// Four of them, more or less.
pub(crate) fn digits(value: f64) -> String {
    let places = match value.abs() {
        size if size >= 1e3 => 0,
        size if size >= 1e2 => 1,
        size if size >= 1e1 => 2,
        size if size >= 1.0 || size == 0.0 => 3,
        _ => 4,
    };
    format!("{value:.places$}")
}

/// What must be the same for two records to be compared; the same names for each of a kind.
pub(crate) fn conditions(record: &Record) -> Vec<(&'static str, String)> {
    let machine = record.machine();
    let cpu = machine.cpu.as_deref().unwrap_or("unknown");
    let flags = machine.flags.join(" ");
    let mut all = vec![
        ("machine", format!("{cpu}, {} cores, {}", machine.logical_cpus, machine.arch)),
        ("processor's flags", flags),
        ("number of cores to use", machine.cpus.to_string()),
    ];
    let content = |all: &mut Vec<_>, content: &Content, threads: usize| {
        all.push(("shape", shape(&content.shape)));
        all.push(("database", format!("{} records, {} shards", content.records, content.shards)));
        all.push(("number of threads", threads.to_string()));
    };
    match record {
        Record::Load(record) => {
            all.push(("shape", shape(&record.server.shape)));
            all.push(("number of shards", record.server.shards.to_string()));
            all.push(("objective", format!("{} ms", record.objective_ms)));
        }
        Record::Kernel(record) => all.push(("shape", shape(&record.shape))),
        Record::Gpu(record) => {
            all.push(("shape", shape(&record.shape)));
            all.push(("device", record.device.name.clone()));
            all.push(("engine", record.engine.clone()));
        }
        Record::Build(record) => content(&mut all, &record.content, record.threads),
        Record::Startup(record) => content(&mut all, &record.content, record.threads),
        Record::Reload(record) => content(&mut all, &record.content, record.threads),
    }
    all
}

fn shape(shape: &ShapeFacts) -> String {
    let ShapeFacts { value_len, pack_rows, packs, columns, .. } = shape;
    format!("{packs} packs of {pack_rows} rows x {columns} columns, fields of {value_len} bytes")
}

/// Why a record, or a part of it, is not to be trusted.
pub(crate) fn doubts(record: &Record) -> Vec<String> {
    let effort = match record {
        Record::Load(record) => {
            let invalid = record.trials.iter().filter(|trial| trial.invalid.is_some());
            let said = |trial: &Trial| format!("INVALID, left out: {:.1} a second", trial.rate);
            return invalid.map(said).collect();
        }
        Record::Kernel(record) => &record.effort,
        Record::Gpu(record) => &record.effort,
        _ => return Vec::new(),
    };
    if effort == "full" { Vec::new() } else { vec![format!("measured with effort {effort:?}")] }
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

const MS: &str = "ms";
const MS_A_QUERY: &str = "ms/query";
const US_A_QUERY: &str = "us/query";
const A_SECOND: &str = "1/s";
const GB_PER_S: &str = "GB/s";
const G_PER_S: &str = "10^9/s";
const MB: &str = "MB";
const SECONDS: &str = "s";

fn mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

pub(crate) fn kernel(record: &Kernel) -> Vec<Number> {
    let mut all = Vec::new();
    for read in &record.floors.read {
        let what = format!("floor: reading the shard, {}", counted(read.threads, "thread"));
        all.push(Number::once(what, read.ms, MS, Context));
    }
    for (name, &peak) in &record.floors.peaks_g_per_s {
        all.push(Number::once(format!("floor: {name}"), peak, G_PER_S, Context));
    }
    for answer in &record.answers {
        let reads = record.floors.read.iter().find(|read| read.threads == answer.threads);
        let reading = reads.map(|read| read.ms / answer.batch as f64);
        let threads = counted(answer.threads, "thread");
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
        let part = |(part, ms, share): (_, f64, Option<f64>)| {
            let floor = share.map(|share| share * ms);
            Number::once(format!("{what}: {part}"), ms, MS_A_QUERY, Context).above(floor)
        };
        all.extend(parts.map(part));
    }
    let client = &record.client;
    let client = [
        ("client: secret and key bundle", client.key_bundle_ms),
        ("client: encrypting a query", client.encrypt_ms),
        ("client: decoding a record", client.decode_ms),
    ];
    all.extend(client.map(|(what, ms)| Number::once(what, ms, MS, LessIsBetter)));
    if let Some(bytes) = record.batch_memory_bytes {
        all.push(Number::once("memory of the largest batch", mb(bytes), MB, LessIsBetter));
    }
    let refusal = &record.refusal;
    all.push(Number::once("refusing: median", 1e3 * refusal.ms_median, "us", LessIsBetter));
    all.push(Number::once("refusing: worst", 1e3 * refusal.ms_worst, "us", Context));
    all.push(Number::once("counting", record.counting_ns_per_query, "ns/query", LessIsBetter));
    let is_read = |cold: &&Cold| cold.engine.is_none();
    let plain = record.cold.iter().find(is_read).map(|read| read.ms.median);
    for cold in &record.cold {
        let answer = cold.engine.as_deref().zip(cold.threads).zip(cold.batch);
        all.push(match answer {
            None => Number {
                sense: Context,
                ..Number::time(format!("floor, not cached: {}", cold.what), cold.ms, MS)
            },
            Some(((engine, threads), batch)) => {
                let threads = counted(threads, "thread");
                let what = format!("not cached: {engine}, {threads}, batch {batch}");
                Number::time(what, cold.ms, MS).above(plain)
            }
        });
    }
    all
}

pub(crate) fn gpu(record: &Gpu) -> Vec<Number> {
    let answers = record.answers.iter().flat_map(gpu_answer);
    let all = gpu_floors(&record.floors).into_iter().chain(answers);
    all.chain(gpu_uploads(&record.uploads)).chain(gpu_traffic(&record.traffic)).collect()
}

pub(crate) fn gpu_floors(floors: &GpuFloors) -> Vec<Number> {
    let peak = |what, value, unit| Number::once(what, value, unit, Context);
    let mut all = vec![
        peak("floor: reading memory", floors.read_gb_per_s, GB_PER_S),
        peak("floor: u32 multiply-adds", floors.narrow_g_per_s, G_PER_S),
        peak("floor: dot4I8Packed", floors.dot_g_per_s, G_PER_S),
    ];
    let wide = floors.wide_g_per_s;
    all.extend(wide.map(|value| peak("floor: u64 multiply-adds", value, G_PER_S)));
    all
}

pub(crate) fn gpu_answer(answer: &GpuAnswer) -> Vec<Number> {
    let what = |part: &str| format!("batch {}, {part}", answer.batch);
    let time =
        |part, spread| Number::time(what(part), spread, US_A_QUERY).above(Some(answer.floor_us));
    let parts = [
        ("device: prepare", answer.prepare_us, answer.prepare_share),
        ("device: scan", answer.scan_us, answer.scan_share),
        ("device: pack", answer.pack_us, answer.pack_share),
        ("device: finish", answer.finish_us, answer.finish_share),
    ];
    let part = |(part, us, share): (_, f64, Option<f64>)| {
        let floor = share.map(|share| share * us);
        Number::once(what(part), us, US_A_QUERY, Context).above(floor)
    };
    let whole = [time("alone", answer.alone_us), time("streamed", answer.streamed_us)];
    whole.into_iter().chain(parts.map(part)).collect()
}

pub(crate) fn gpu_uploads(up: &GpuUploads) -> Vec<Number> {
    let uploads = [
        ("upload into free memory", up.into_free_memory_gb_per_s, GB_PER_S),
        ("upload in place of others", up.in_place_of_others_gb_per_s, GB_PER_S),
        ("upload while answering", up.while_answering_gb_per_s, GB_PER_S),
        ("answers beside no uploads", up.answers_per_s, A_SECOND),
        ("answers beside uploads", up.answers_per_s_while_uploading, A_SECOND),
    ];
    let number = |(what, value, unit)| Number::once(what, value, unit, MoreIsBetter);
    uploads.map(number).into()
}

pub(crate) fn gpu_traffic(traffic: &GpuTraffic) -> Vec<Number> {
    let of = |traffic: &GpuLoop| {
        let what = |part: &str| format!("{} outstanding, {part}", traffic.outstanding);
        let rate = traffic.queries_per_s;
        [
            Number::once(what("answered"), rate, A_SECOND, MoreIsBetter),
            Number::once(what("median"), traffic.median_ms, MS, LessIsBetter),
            Number::once(what("99%"), traffic.p99_ms, MS, LessIsBetter),
        ]
    };
    traffic.loops.iter().flat_map(of).collect()
}

pub(crate) fn build(record: &Build) -> Vec<Number> {
    let (database, peak) = (record.content.database_bytes, record.peak_memory_bytes);
    vec![
        Number::time("building", record.seconds, SECONDS),
        Number::time("building: processor time", record.cpu_seconds, SECONDS),
        Number::time("verifying", record.verify_seconds, SECONDS),
        Number::once("most memory", mb(peak), MB, LessIsBetter),
        Number::exact("database", mb(database), MB, LessIsBetter),
        Number::exact("input", mb(record.input_bytes), MB, Context),
    ]
}

pub(crate) fn startup(record: &Startup) -> Vec<Number> {
    let mut all = Vec::new();
    for (name, started) in [("cached", &record.warm), ("not cached", &record.cold)] {
        let times = [
            ("listening", started.listening_ms),
            ("ready", started.ready_ms),
            ("first answer", started.first_answer_ms),
        ];
        all.extend(times.map(|(until, time)| Number::time(format!("{name}: {until}"), time, MS)));
        let (what, own) = (format!("{name}: own memory"), started.own_memory_bytes);
        all.push(Number::once(what, mb(own), MB, LessIsBetter));
    }
    all
}

pub(crate) fn reload(record: &Reload) -> Vec<Number> {
    let mut all = Vec::new();
    for change in &record.changes {
        let what = |part: &str| format!("{} new, {part}", counted(change.shards as usize, "shard"));
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
        // The walk tells rates apart down to its last step, and cannot see beyond the generator.
        let sense = if limit.generator_bound { Context } else { MoreIsBetter };
        let noise = Noise::Step((RESOLUTION - 1.0) * limit.rate);
        all.push(Number { noise, ..Number::once("limit", limit.rate, A_SECOND, sense) });
    }
    let wrong = record.trials.iter().map(|trial| trial.verified.wrong).sum::<u64>();
    all.push(Number::exact("wrong answers", wrong as f64, "", LessIsBetter));
    let valid = |trial: &&Trial| trial.invalid.is_none();
    for trial in record.trials.iter().filter(valid) {
        let numbers = match record.limit.and_then(|limit| beside(limit, trial.rate)) {
            Some(place) => at_limit(trial, &place),
            None => at_rate(trial, &format!("{:.1} a second", trial.rate)),
        };
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

/// Limits differ, so that only what a server makes of one is told by comparing two.
fn at_limit(trial: &Trial, place: &str) -> Vec<Number> {
    let goodput = over(trial, |row| row.good as f64);
    let what = |part: &str| format!("at {place}: {part}");
    let Trial { latency_ms: Quantiles { p50, p99, .. }, .. } = *trial;
    let mut all = vec![
        Number::mean(what("good"), trial.goodput, goodput, A_SECOND, MoreIsBetter),
        Number::once(what("p50"), p50, MS, Context),
        Number::once(what("p99"), p99, MS, Context),
    ];
    all.extend(trial.server.iter().flat_map(|server| server_side(server, place)));
    all
}

fn at_rate(trial: &Trial, place: &str) -> Vec<Number> {
    let what = |part: &str| format!("at {place}: {part}");
    let rate = |part, value, share| Number::mean(what(part), value, share, A_SECOND, MoreIsBetter);
    let came = trial.intervals.throughput;
    let mut all = vec![
        rate("answered", trial.throughput, came),
        rate("good", trial.goodput, over(trial, |row| row.good as f64)),
    ];
    let latency = [
        ("p50", trial.latency_ms.p50, over(trial, |row| row.latency_ms.p50)),
        ("p90", trial.latency_ms.p90, over(trial, |row| row.latency_ms.p90)),
        ("p99", trial.latency_ms.p99, trial.intervals.p99),
        ("p50 from send", trial.from_send_ms.p50, over(trial, |row| row.from_send_ms.p50)),
        ("p99 from send", trial.from_send_ms.p99, over(trial, |row| row.from_send_ms.p99)),
    ];
    let time = |(part, ms, share)| Number::mean(what(part), ms, share, MS, LessIsBetter);
    all.extend(latency.map(time));
    all.push(Number::once(what("p99.9"), trial.latency_ms.p999, MS, Context));
    all.push(Number::once(what("slowest"), trial.latency_ms.max, MS, Context));
    all.extend(trial.server.iter().flat_map(|server| server_side(server, place)));
    all
}

/// Half of the interval over the windows.
fn over(trial: &Trial, value: fn(&Row) -> f64) -> Option<f64> {
    half_interval(&trial.windows.iter().map(value).collect::<Vec<_>>())
}

fn server_side(server: &ServerSide, place: &str) -> Vec<Number> {
    let what = |part: &str| format!("at {place}, server: {part}");
    let cpu = 1e3 * server.cpu_seconds / server.answers.max(1) as f64;
    let memory = mb(server.resident_memory_bytes);
    let parts = [
        ("queue", server.queue_ms),
        ("scan", server.scan_ms),
        ("pack", server.pack_ms),
        ("send", server.send_ms),
        ("whole", server.answer_ms),
    ];
    let mut all = vec![
        Number::once(what("processor time"), cpu, MS_A_QUERY, LessIsBetter),
        Number::once(what("memory"), memory, MB, LessIsBetter),
        Number::once(what("queries a pass"), server.batch_mean, "", Context),
    ];
    all.extend(parts.map(|(part, ms)| Number::once(what(part), ms, MS_A_QUERY, Context)));
    all
}
