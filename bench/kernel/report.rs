//! The run as it is written down: JSON for machines, tables for people, targets beside both.
//!
//! Milliseconds of an answer are a query's: the batch's over its size. A share is what the
//! machine could have taken at best over what was taken.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use sotto::arith::IsaName;
use sotto::params::Shape;

use super::Measured;
use super::answers::{Run, Series, Setting};
use super::cold::Cold;
use super::floors::{self, Floors};
use crate::common::report::{Head, Target, digits, median, ms, percent, rounded};

/// Everything a run found.
#[derive(Serialize)]
pub(super) struct Report {
    #[serde(flatten)]
    head: Head,
    floors: FloorsReport,
    answers: Vec<Answer>,
    /// By engine: milliseconds a query at batch 16 with one thread over those with two.
    two_threads_speedup_batch_16: BTreeMap<&'static str, f64>,
    client: ClientReport,
    /// What the fastest engine and a batch of 32 take beyond shard and queries, in 10^6 bytes.
    memory_batch_32_mb: Option<f64>,
    refusal: RefusalReport,
    counting: CountingReport,
    cold: Vec<ColdReport>,
    targets: Vec<Target>,
}

/// From a query's frame decoded to its refusal encoded, at a full queue.
#[derive(Serialize)]
struct RefusalReport {
    queued: usize,
    ms_median: f64,
    ms_worst: f64,
}

/// Everything a server counts and measures of one query, on all cores at once.
#[derive(Serialize)]
struct CountingReport {
    ns_per_query: f64,
    /// Of the fastest answer there is here.
    percent_of_an_answer: Option<f64>,
}

/// The best of the run.
#[derive(Serialize)]
struct FloorsReport {
    /// One core.
    read_shard_ms: f64,
    read_shard_how: &'static str,
    /// Two cores.
    read_shard_ms_2: Option<f64>,
    read_shard_how_2: Option<&'static str>,
    /// One core, 10^9 a second; a name with two instructions counts pairs.
    peaks_g_per_s: BTreeMap<&'static str, f64>,
    /// By engine: what it multiplies with, and how often a query.
    work: BTreeMap<&'static str, [WorkReport; 2]>,
}

#[derive(Serialize)]
struct WorkReport {
    stage: &'static str,
    instruction: &'static str,
    millions_a_query: f64,
    /// At the peak, on one core.
    floor_ms: Option<f64>,
}

#[derive(Serialize)]
struct Answer {
    engine: &'static str,
    threads: usize,
    batch: usize,
    runs: usize,
    ms_per_query: f64,
    ms_per_query_median: f64,
    /// Stages of the best run: time of all threads over their number.
    scan_ms: f64,
    pack_ms: f64,
    prepare_ms: f64,
    finish_ms: f64,
    /// Handing out work and waiting.
    other_ms: f64,
    /// The larger of reading the shard and of multiplying at the peak.
    floor_ms: Option<f64>,
    whole_share: Option<f64>,
    scan_share: Option<f64>,
    pack_share: Option<f64>,
    /// The batch's time over reading the shard once with as many cores.
    times_reading: f64,
}

#[derive(Serialize)]
struct ClientReport {
    key_bundle_ms: f64,
    encrypt_ms: f64,
    decode_ms: f64,
}

#[derive(Serialize)]
struct ColdReport {
    what: &'static str,
    engine: Option<&'static str>,
    threads: Option<usize>,
    batch: Option<usize>,
    /// Of the whole read or batch.
    ms: f64,
    ms_median: f64,
    disk_mb: Option<f64>,
    times_plain_read: f64,
}

impl Report {
    pub(super) fn new(head: Head, shape: &Shape, measured: &Measured) -> Self {
        let Measured { floors, settings, client, memory_bytes, refusal, counting, cold } = measured;
        let answers = settings.iter().flat_map(|setting| {
            let row = |series| Answer::new(setting, series, shape, floors);
            setting.series.iter().filter_map(row)
        });
        let mut report = Self {
            head,
            floors: FloorsReport::new(floors, settings, shape),
            answers: answers.collect(),
            two_threads_speedup_batch_16: BTreeMap::new(),
            client: ClientReport {
                key_bundle_ms: ms(client.key_bundle),
                encrypt_ms: ms(client.encrypt),
                decode_ms: ms(client.decode),
            },
            memory_batch_32_mb: memory_bytes.map(|bytes| rounded(bytes as f64 / 1e6)),
            refusal: RefusalReport {
                queued: refusal.queued,
                ms_median: median(refusal.times.iter().copied()).map_or(0.0, ms),
                ms_worst: refusal.times.iter().max().copied().map_or(0.0, ms),
            },
            counting: CountingReport {
                ns_per_query: rounded(counting.as_nanos() as f64),
                percent_of_an_answer: None,
            },
            cold: cold_rows(cold),
            targets: Vec::new(),
        };
        let fastest = report.answers.iter().map(|answer| answer.ms_per_query);
        let percent = |fastest: f64| rounded(counting.as_secs_f64() * 1e5 / fastest);
        report.counting.percent_of_an_answer = fastest.min_by(f64::total_cmp).map(percent);
        for engine in report.answers.iter().map(|answer| answer.engine) {
            let one = report.answer(engine, 1, 16).map(|answer| answer.ms_per_query);
            let two = report.answer(engine, 2, 16).map(|answer| answer.ms_per_query);
            if let (Some(one), Some(two)) = (one, two) {
                report.two_threads_speedup_batch_16.insert(engine, rounded(one / two));
            }
        }
        report
    }

    fn answer(&self, engine: &str, threads: usize, batch: usize) -> Option<&Answer> {
        let wanted = (engine, threads, batch);
        self.answers.iter().find(|found| (found.engine, found.threads, found.batch) == wanted)
    }

    /// Those of issue 3, for `avx512`, whose instructions they name; without it for the fastest.
    pub(super) fn add_targets(&mut self) {
        let engines = || self.answers.iter().map(|answer| answer.engine);
        let avx512 = engines().find(|&engine| engine == IsaName::Avx512.name());
        let Some(engine) = avx512.or_else(|| engines().next_back()) else { return };
        let one = self.answer(engine, 1, 1);
        let sixteen = self.answer(engine, 1, 16);
        let share = |of: fn(&Answer) -> Option<f64>| sixteen.and_then(of);
        let speedup = self.two_threads_speedup_batch_16.get(engine).copied();
        let median =
            |threads, batch| Some(self.answer(engine, threads, batch)?.ms_per_query_median);
        let reading = median(1, 1).map(|ms| ms / self.floors.read_shard_ms);
        let medians = median(1, 16).zip(median(2, 16)).map(|(one, two)| one / two);
        self.targets = vec![
            Target::new(
                "batch 1, one core: times reading the shard",
                ..=1.15,
                one.map(|a| a.times_reading),
            )
            .with_median(reading),
            Target::new("batch 16, one core: ms a query", ..=4.0, sixteen.map(|a| a.ms_per_query))
                .with_median(median(1, 16)),
            Target::new("batch 16, one core: scan, share of peak", 0.75.., share(|a| a.scan_share)),
            Target::new("batch 16, one core: pack, share of peak", 0.6.., share(|a| a.pack_share)),
            Target::new("batch 16: two threads over one", 1.8.., speedup).with_median(medians),
            Target::new(
                "client: secret and key bundle, ms",
                ..=2.0,
                Some(self.client.key_bundle_ms),
            ),
            Target::new("client: encrypting a query, ms", ..=2.0, Some(self.client.encrypt_ms)),
            Target::new("client: decoding a record, ms", ..=1.0, Some(self.client.decode_ms)),
            Target::new("memory of a batch of 32, MB", ..=64.0, self.memory_batch_32_mb),
            Target::new("refusal at a full queue, worst, ms", ..=1.0, Some(self.refusal.ms_worst)),
            Target::new(
                "counting one query, % of an answer",
                ..=1.0,
                self.counting.percent_of_an_answer,
            ),
        ];
    }
}

impl FloorsReport {
    fn new(floors: &Floors, settings: &[Setting], shape: &Shape) -> Self {
        let work = |isa: IsaName| {
            let [scan, pack] = floors::work(isa, shape)?;
            let report = [("scan", scan), ("pack", pack)].map(|(stage, work)| WorkReport {
                stage,
                instruction: work.instruction,
                millions_a_query: rounded(work.count / 1e6),
                floor_ms: floors.work_ms(&work).map(rounded),
            });
            Some((isa.name(), report))
        };
        let two = floors.read.get(1);
        Self {
            read_shard_ms: ms(floors.read[0].0),
            read_shard_how: floors.read[0].1,
            read_shard_ms_2: two.map(|read| ms(read.0)),
            read_shard_how_2: two.map(|read| read.1),
            peaks_g_per_s: floors.peaks.iter().map(|(&n, &rate)| (n, rounded(rate))).collect(),
            work: settings.iter().filter_map(|setting| work(setting.isa)).collect(),
        }
    }
}

impl Answer {
    fn new(setting: &Setting, series: &Series, shape: &Shape, floors: &Floors) -> Option<Self> {
        let Setting { isa, threads, .. } = *setting;
        let best = series.runs.iter().min()?;
        let median = median(series.runs.iter().map(|run| run.whole))?;
        let (batch, read) = (series.batch as f64, floors.read.get(threads - 1)?.0);
        let whole = ms(best.whole) / batch;
        let stage = |of: fn(&Run) -> Duration| ms(of(best)) / threads as f64 / batch;
        let (scan, pack) = (stage(|run| run.scan), stage(|run| run.pack));
        let (prepare, finish) = (stage(|run| run.prepare), stage(|run| run.finish));
        let work = floors::work(isa, shape);
        let [scan_floor, pack_floor] = match &work {
            Some(work) => work.each_ref().map(|work| Some(floors.work_ms(work)? / threads as f64)),
            None => [None, None],
        };
        let multiplying = scan_floor.zip(pack_floor).map(|(scan, pack)| scan + pack);
        let floor = multiplying.map(|multiplying| multiplying.max(ms(read) / batch));
        Some(Self {
            engine: isa.name(),
            threads,
            batch: series.batch,
            runs: series.runs.len(),
            ms_per_query: rounded(whole),
            ms_per_query_median: rounded(ms(median) / batch),
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
}

fn cold_rows(all: &[Cold]) -> Vec<ColdReport> {
    let best = |cold: &Cold| cold.runs.iter().min().copied();
    let plain = all.iter().find(|cold| cold.answer.is_none()).and_then(best);
    let report = |cold: &Cold| {
        let best = best(cold)?;
        Some(ColdReport {
            what: if cold.answer.is_some() { "answer" } else { "plain sequential read" },
            engine: cold.answer.map(|_| cold.isa.name()),
            threads: cold.answer.map(|answer| answer.0),
            batch: cold.answer.map(|answer| answer.1),
            ms: ms(best),
            ms_median: ms(median(cold.runs.iter().copied())?),
            disk_mb: cold.disk_bytes.map(|bytes| rounded(bytes as f64 / 1e6)),
            times_plain_read: rounded(best.as_secs_f64() / plain?.as_secs_f64()),
        })
    };
    all.iter().filter_map(report).collect()
}

impl Report {
    /// Everything, for people.
    pub(super) fn print(&self) {
        self.head.print();
        self.print_floors();
        self.print_answers();
        for (engine, speedup) in &self.two_threads_speedup_batch_16 {
            println!("{engine}: two threads {speedup:.2} times one at batch 16");
        }
        let ClientReport { key_bundle_ms, encrypt_ms, decode_ms } = self.client;
        println!(
            "client: secret and key bundle {key_bundle_ms:.2} ms, encrypting {encrypt_ms:.2} ms, \
             decoding {decode_ms:.2} ms; memory of a full batch {} MB",
            digits(self.memory_batch_32_mb, 1)
        );
        let RefusalReport { queued, ms_median, ms_worst } = self.refusal;
        println!(
            "refused with {queued} queries waiting: median {ms_median:.4} ms, worst \
             {ms_worst:.4} ms"
        );
        let CountingReport { ns_per_query, percent_of_an_answer } = self.counting;
        println!(
            "counting one query: {ns_per_query:.0} ns, {} % of the fastest answer",
            digits(percent_of_an_answer, 3)
        );
        println!("\nnot in the page cache      ms   median   from disk MB   x plain read");
        for cold in &self.cold {
            let what = match (cold.threads, cold.batch) {
                (Some(threads), Some(batch)) => format!("threads {threads}, batch {batch}"),
                _ => cold.what.to_owned(),
            };
            let disk = digits(cold.disk_mb, 1);
            let (ms, median, times) = (cold.ms, cold.ms_median, cold.times_plain_read);
            println!("{what:21} {ms:7.1}  {median:7.1}   {disk:>12}   {times:12.2}");
        }
        if !self.targets.is_empty() {
            Target::print_all("targets are for an AMD EPYC Zen 4", &self.targets);
        }
    }

    fn print_floors(&self) {
        let bytes = self.head.shard_bytes();
        let floors = &self.floors;
        let read = |cores, ms: f64, how| {
            println!("read on {cores}: {ms:.2} ms, {:.1} GB/s ({how})", bytes / ms / 1e6);
        };
        read("one core", floors.read_shard_ms, floors.read_shard_how);
        if let (Some(ms), Some(how)) = (floors.read_shard_ms_2, floors.read_shard_how_2) {
            read("two cores", ms, how);
        }
        for (name, rate) in &floors.peaks_g_per_s {
            println!("{name}: {rate:.2} G/s on one core");
        }
        for (engine, work) in &floors.work {
            for WorkReport { stage, instruction, millions_a_query, floor_ms } in work {
                println!(
                    "{engine}: a query's {stage} is {millions_a_query:.1} M {instruction}, \
                     {} ms at the peak",
                    digits(*floor_ms, 2)
                );
            }
        }
    }

    fn print_answers(&self) {
        let mut last = ("", 0);
        for answer in &self.answers {
            if last != (answer.engine, answer.threads) {
                last = (answer.engine, answer.threads);
                println!("\n{}, threads: {}; ms a query, share of the floor", last.0, last.1);
                println!(
                    "batch     whole           median      scan             pack          other   \
                     x reading"
                );
            }
            println!(
                "{:5}  {:8.3} {:>5}  {:8.3}  {:8.3} {:>5}  {:8.3} {:>5}  {:6.3}  {:8.2}",
                answer.batch,
                answer.ms_per_query,
                percent(answer.whole_share),
                answer.ms_per_query_median,
                answer.scan_ms,
                percent(answer.scan_share),
                answer.pack_ms,
                percent(answer.pack_share),
                answer.prepare_ms + answer.finish_ms + answer.other_ms,
                answer.times_reading
            );
        }
        println!();
    }
}
