//! The numbers of records that a plan needs, for the shape that it needs them for.
//!
//! The newest record of an engine says which machine a plan is of; records of other machines are
//! used only where there is none of this one, and said to be guesses then. Of several, the one
//! whose shape is nearest is taken; where it is another shape, each stage is scaled by what it
//! works on, and said to be extrapolated.

use std::collections::BTreeMap;

use super::basis::{Basis, formula};
use super::batch::Curve;
use super::{Host, PlanError, Used};
use crate::found::{Found, Record};
use crate::load::report::{Report, ServerSide, Trial};
use crate::record::{Answer, Build, Cold, Gpu, Head, Kernel, Machine, Reload, ShapeFacts, Startup};
use sotto::limits::QUERIES_PER_SECRET_MAX;

/// Records, and of which machine.
pub(super) struct Measured<'a> {
    records: Vec<(String, &'a Record)>,
    machine: &'a Machine,
}

/// What an engine takes for a pass.
pub(super) struct Cost {
    /// Core-seconds of a processor, seconds of a GPU.
    pub(super) pass: Curve,
    pub(super) basis: Basis,
    /// What was measured, in a few words.
    pub(super) how: String,
    /// 10^9 bytes a second that so many cores, or the GPU, were seen to read.
    pub(super) read_gb_per_s: f64,
    pub(super) read: Basis,
    /// Cores measured; 1 for a GPU.
    pub(super) cores: f64,
    /// Core time of a query on twice as many cores, where that was measured.
    pub(super) doubling: Option<f64>,
}

/// What queries take beside passes, in core-seconds for each byte that they bring.
pub(super) struct Outside {
    pub(super) a_byte: f64,
    pub(super) basis: Basis,
    /// How that came about.
    pub(super) formula: String,
}

/// Something measured and what it stands on.
pub(super) struct Known {
    pub(super) value: f64,
    pub(super) basis: Basis,
    /// How it came about.
    pub(super) formula: String,
}

fn same(a: &Machine, b: &Machine) -> bool {
    (&a.cpu, a.logical_cpus, &a.arch) == (&b.cpu, b.logical_cpus, &b.arch)
}

fn machine_name(machine: &Machine) -> String {
    format!("{}, {} cores", machine.cpu.as_deref().unwrap_or("unknown"), machine.logical_cpus)
}

fn pass_bytes(shape: &ShapeFacts) -> f64 {
    shape.pass_bytes() as f64
}

fn same_sizes(a: &ShapeFacts, b: &ShapeFacts) -> bool {
    (a.pack_rows, a.packs, a.columns) == (b.pack_rows, b.packs, b.columns)
}

/// How far one size is from another, whichever is more.
fn distance(a: f64, b: f64) -> f64 {
    (a / b).ln().abs()
}

fn effort_rank(effort: &str) -> u8 {
    match effort {
        "full" => 0,
        "quick" => 1,
        _ => 2,
    }
}

/// A guess where another shape was measured.
fn scaled(basis: Basis, measured: &ShapeFacts, shape: &ShapeFacts) -> Basis {
    if same_sizes(measured, shape) {
        return basis;
    }
    basis.guess(formula!(
        "measured for shards of {} MB, each stage scaled by what it reads",
        pass_bytes(measured) / 1e6
    ))
}

/// A guess where it was measured to see that it can be.
fn with_effort(basis: Basis, effort: &str) -> Basis {
    if effort_rank(effort) < 2 {
        return basis;
    }
    basis.guess("a test's numbers, not measured with care")
}

/// What stages take for another shape, as multiples of what they took.
struct Scale {
    matrix: f64,
    tables: f64,
    input: f64,
    packs: f64,
}

impl Scale {
    fn new(to: &ShapeFacts, from: &ShapeFacts) -> Self {
        let ratio = |a: usize, b: usize| a as f64 / b as f64;
        Self {
            matrix: ratio(to.matrix_bytes, from.matrix_bytes),
            tables: ratio(to.tables_bytes, from.tables_bytes),
            input: ratio(to.query_bytes + to.bundle_bytes, from.query_bytes + from.bundle_bytes),
            packs: f64::from(to.packs) / f64::from(from.packs),
        }
    }

    /// Of the whole, given its stages: scan, pack, prepare, finish, all else.
    fn of(&self, [scan, pack, prepare, finish, other]: [f64; 5]) -> f64 {
        let whole = scan + pack + prepare + finish + other;
        if whole <= 0.0 {
            return self.matrix;
        }
        let scaled = scan * self.matrix
            + pack * self.tables
            + prepare * self.input
            + finish * self.packs
            + other;
        scaled / whole
    }
}

impl<'a> Measured<'a> {
    pub(super) fn of(found: &'a [Found]) -> Result<Self, PlanError> {
        let kernels = found.iter().filter(|found| matches!(found.record, Record::Kernel(_)));
        let newest = kernels.max_by_key(|found| found.record.head().date.as_deref());
        let machine = newest.ok_or(PlanError::NoKernel { records: found.len() })?.record.machine();
        let records =
            found.iter().map(|found| (found.path.display().to_string(), &found.record)).collect();
        Ok(Self { records, machine })
    }

    /// Those of one kind, with their paths; of this machine where there are any.
    fn all<T: 'a>(&self, pick: impl Fn(&'a Record) -> Option<&'a T>) -> Vec<(&str, &'a T, bool)> {
        let mut all = Vec::new();
        for (path, record) in &self.records {
            if let Some(picked) = pick(record) {
                all.push((path.as_str(), picked, same(record.machine(), self.machine)));
            }
        }
        if all.iter().any(|entry| entry.2) {
            all.retain(|entry| entry.2);
        }
        all
    }

    /// Of another machine, and so a guess.
    fn elsewhere(&self, basis: Basis, head: &Head, here: bool) -> Basis {
        if here {
            return basis;
        }
        basis.guess(format!(
            "measured on {}, not on {}",
            machine_name(&head.machine),
            machine_name(self.machine)
        ))
    }

    fn kernel(&self, shape: &ShapeFacts) -> Option<(&str, &'a Kernel)> {
        let kernels = self.all(|record| match record {
            Record::Kernel(kernel) => Some(&**kernel),
            _ => None,
        });
        let nearest = kernels.into_iter().min_by(|a, b| {
            let key = |kernel: &Kernel| {
                let far = distance(pass_bytes(&kernel.shape), pass_bytes(shape));
                (!same_sizes(&kernel.shape, shape), far, effort_rank(&kernel.effort))
            };
            let (a, b) = (a.1, b.1);
            key(a)
                .partial_cmp(&key(b))
                .unwrap_or(std::cmp::Ordering::Equal)
                .then(b.head.date.cmp(&a.head.date))
        })?;
        Some((nearest.0, nearest.1))
    }

    /// A host's processor: its fastest engine, all cores.
    pub(super) fn processor(&self, shape: &ShapeFacts, cores: u32) -> Option<Cost> {
        let (path, kernel) = self.kernel(shape)?;
        let cores = cores as usize;
        let threads: Vec<usize> = kernel.answers.iter().map(|answer| answer.threads).collect();
        let enough = threads.iter().copied().filter(|&threads| threads >= cores).min();
        let threads = enough.or_else(|| threads.iter().copied().max())?;
        let (engine, answers) = fastest(kernel, threads)?;
        let scale = Scale::new(shape, &kernel.shape);
        let pass = Curve::of(answers.iter().map(|answer| {
            (
                answer.batch as f64,
                core_ms(answer) * answer.batch as f64 * scale.of(stages(answer)) / 1e3,
            )
        }))?;
        let mut basis = Basis::of([format!(
            "{path}: answers[engine={engine}, threads={threads}].ms_per_query.median"
        )]);
        basis = scaled(basis, &kernel.shape, shape);
        if cores > threads {
            basis = basis.guess(format!(
                "{threads} cores measured, {cores} taken to lose no more of their time"
            ));
        }
        basis = with_effort(basis, &kernel.effort);
        let read = kernel.floors.read.iter().filter(|read| read.threads <= threads);
        let read = read.max_by_key(|read| read.threads)?;
        Some(Cost {
            pass,
            basis,
            how: format!("{engine}, measured on {threads} cores"),
            read_gb_per_s: read.gb_per_s,
            read: Basis::of([format!("{path}: floors.read[threads={}].gb_per_s", read.threads)]),
            cores: threads as f64,
            doubling: doubling(kernel, engine, threads),
        })
    }

    /// A GPU; none where no real one was measured.
    pub(super) fn gpu(&self, shape: &ShapeFacts) -> Option<Cost> {
        let mut gpus = self.all(|record| match record {
            Record::Gpu(gpu) if !gpu.device.software => Some(&**gpu),
            _ => None,
        });
        gpus.sort_by(|a, b| {
            let far = |gpu: &Gpu| distance(pass_bytes(&gpu.shape), pass_bytes(shape));
            far(a.1).total_cmp(&far(b.1)).then(b.1.head.date.cmp(&a.1.head.date))
        });
        let &(path, gpu, _) = gpus.first()?;
        let scale = Scale::new(shape, &gpu.shape);
        let pass = Curve::of(gpu.answers.iter().map(|answer| {
            let stages = [answer.scan_us, answer.pack_us, answer.prepare_us, answer.finish_us, 0.0];
            let batch = answer.batch as f64;
            (batch, batch * answer.streamed_us.median / 1e6 * scale.of(stages))
        }))?;
        let basis = Basis::of([format!("{path}: answers.streamed_us.median")]);
        let basis = with_effort(scaled(basis, &gpu.shape, shape), &gpu.effort);
        Some(Cost {
            pass,
            basis,
            how: gpu.device.name.clone(),
            read_gb_per_s: gpu.floors.read_gb_per_s,
            read: Basis::of([format!("{path}: floors.read_gb_per_s")]),
            cores: 1.0,
            doubling: None,
        })
    }

    /// What queries that bring so many bytes take beside their passes.
    pub(super) fn outside(&self, bytes_in: f64) -> Option<Outside> {
        let mut loads = Vec::new();
        for (path, report, here) in self.all(|record| match record {
            Record::Load(report) => Some(&**report),
            _ => None,
        }) {
            if let Some((trial, server)) = busiest(report) {
                loads.push((path, report, here, trial, server));
            }
        }
        let far = |report: &Report| distance(load_bytes_in(report), bytes_in);
        let (path, report, here, trial, server) =
            loads.into_iter().min_by(|a, b| far(a.1).total_cmp(&far(b.1)))?;
        let engine = server.scan_ms + server.pack_ms + self.beside_stages(report, server);
        let cpu = server.cpu_seconds * 1e3 / server.answers as f64;
        let measured = (cpu - engine).max(0.0) / 1e3;
        let of_bytes = load_bytes_in(report);
        let basis = Basis::of([format!(
            "{path}: trials[rate={:.1}].server.cpu_seconds, .answers, .scan_ms, .pack_ms",
            trial.rate
        )]);
        let mut basis = self.elsewhere(basis, &report.head, here);
        if (bytes_in / of_bytes - 1.0).abs() > 0.05 {
            basis = basis.guess("time beside passes scaled by the bytes that a query brings");
        }
        let formula = formula!(
            "({} ms of processor time a query - {} ms in passes) / {} bytes in",
            cpu,
            engine,
            of_bytes
        );
        Some(Outside { a_byte: measured / of_bytes, basis, formula })
    }

    /// Preparing, finishing and the like of an engine's calls, which servers do not tell apart;
    /// milliseconds a query.
    fn beside_stages(&self, report: &Report, server: &ServerSide) -> f64 {
        let shape = &report.server.shape;
        let Some((_, kernel)) = self.kernel(shape) else { return 0.0 };
        let least = kernel.answers.iter().map(|answer| answer.threads).min().unwrap_or(1);
        let Some((_, answers)) = fastest(kernel, least) else { return 0.0 };
        let scale = Scale::new(shape, &kernel.shape);
        let near = |answer: &&&Answer| distance(answer.batch as f64, server.batch_mean);
        let nearest = answers.iter().min_by(|a, b| near(a).total_cmp(&near(b)));
        nearest.map_or(0.0, |answer| {
            let Answer { prepare_ms, finish_ms, other_ms, threads, .. } = **answer;
            (prepare_ms * scale.input + finish_ms * scale.packs + other_ms) * threads as f64
        })
    }

    /// Core-seconds to build one shard.
    pub(super) fn build(&self, shape: &ShapeFacts) -> Option<Known> {
        let builds = self.all(|record| match record {
            Record::Build(build) => Some(&**build),
            _ => None,
        });
        let far = |build: &Build| distance(pass_bytes(&build.content.shape), pass_bytes(shape));
        let (path, build, here) =
            builds.into_iter().min_by(|a, b| far(a.1).total_cmp(&far(b.1)))?;
        let scale = pass_bytes(shape) / pass_bytes(&build.content.shape);
        let shards = f64::from(build.content.shards);
        let mut basis = Basis::of([format!("{path}: cpu_seconds.median, content.shards")]);
        basis = self.elsewhere(basis, &build.head, here);
        if !same_sizes(&build.content.shape, shape) {
            basis = basis.guess("building scaled by the bytes of a shard");
        }
        let formula = formula!("{} s / {shards} shards * {}", build.cpu_seconds.median, scale);
        Some(Known { value: build.cpu_seconds.median / shards * scale, basis, formula })
    }

    /// Seconds until a server that starts with nothing in memory has answered one look-up.
    pub(super) fn first_answer(&self) -> Option<Known> {
        let startups = self.all(|record| match record {
            Record::Startup(startup) => Some(&**startup),
            _ => None,
        });
        let most = |startup: &Startup| startup.content.database_bytes;
        let (path, startup, here) = startups.into_iter().max_by_key(|entry| most(entry.1))?;
        let basis = Basis::of([format!("{path}: cold.first_answer_ms.median")]);
        let basis = self.elsewhere(basis, &startup.head, here);
        let ms = startup.cold.first_answer_ms.median;
        Some(Known { value: ms / 1e3, basis, formula: formula!("{} ms", ms) })
    }

    /// Bytes a second that shards come from the disk with.
    pub(super) fn disk(&self, shape: &ShapeFacts) -> Option<Known> {
        let (path, kernel) = self.kernel(shape)?;
        let plain = |cold: &&Cold| cold.engine.is_none() && cold.disk_bytes.is_some();
        let cold = kernel.cold.iter().find(plain)?;
        let (bytes, ms) = (cold.disk_bytes? as f64, cold.ms.median);
        let basis = Basis::of([format!("{path}: cold[plain read].disk_bytes, .ms.median")])
            .guess("the measuring machine's disk");
        let formula = formula!("{} MB / {} ms", bytes / 1e6, ms);
        Some(Known { value: bytes / (ms / 1e3), basis, formula })
    }

    /// Seconds of a reload of so many new shards, and the slowest look-up meanwhile.
    pub(super) fn reload(&self, shards: f64) -> Option<(Known, f64)> {
        let reloads = self.all(|record| match record {
            Record::Reload(reload) => Some(&**reload),
            _ => None,
        });
        let changes = reloads.into_iter().flat_map(|(path, reload, here): (_, &Reload, _)| {
            reload.changes.iter().map(move |change| (path, reload, here, change))
        });
        let (path, reload, here, change) =
            changes.filter(|entry| entry.3.shards > 0).min_by(|a, b| {
                let far = |new: u32| distance(f64::from(new), shards.max(1.0));
                far(a.3.shards).total_cmp(&far(b.3.shards))
            })?;
        let (new, ms) = (f64::from(change.shards), change.reload_ms.median);
        let mut basis =
            Basis::of([format!("{path}: changes[shards={}].reload_ms.median", change.shards)]);
        basis = self.elsewhere(basis, &reload.head, here);
        if (shards / new - 1.0).abs() > 0.05 {
            basis = basis.guess("reloading scaled by the number of new shards");
        }
        let formula = formula!("{} ms * {} new shards / {}", ms, shards, new);
        Some((Known { value: ms / 1e3 * shards / new, basis, formula }, change.lookup_ms_max))
    }

    /// What is not told for want of a record.
    pub(super) fn missing(&self, shape: &ShapeFacts) -> Vec<String> {
        let mut missing = Vec::new();
        let mut say = |is_there: bool, what: &str| {
            if !is_there {
                missing.push(what.to_owned());
            }
        };
        say(
            self.outside(1.0).is_some(),
            "no record of a server under load with its own metrics (`sotto-bench load --metrics`): \
             what queries take beside passes (network, decrypting) counts as nothing",
        );
        say(
            self.build(shape).is_some(),
            "no record of building (`sotto-bench build`): building epochs is not in the costs",
        );
        say(
            self.first_answer().is_some(),
            "no record of starting (`sotto-bench startup`): not told how soon a host is back",
        );
        say(
            self.reload(1.0).is_some(),
            "no record of a new epoch under load (`sotto-bench reload`): not told how long it \
             takes",
        );
        missing
    }

    /// All records, for the plan to name.
    pub(super) fn used(&self) -> Vec<Used> {
        let used = |(path, record): &(String, &Record)| Used {
            path: path.clone(),
            kind: record.kind().into(),
            machine: machine_name(record.machine()),
            date: record.head().date.clone(),
            commit: record.head().commit.clone(),
        };
        self.records.iter().map(used).collect()
    }
}

/// Of records of one machine, the newest of each kind and shape.
pub(super) fn newest(found: Vec<Found>, machine: &Machine) -> Vec<Found> {
    let mut newest: BTreeMap<String, Found> = BTreeMap::new();
    for found in found.into_iter().filter(|found| same(found.record.machine(), machine)) {
        let shape = |shape: &ShapeFacts| (shape.pack_rows, shape.packs, shape.columns);
        let (kind, of) = (found.record.kind(), &found.record);
        let key = match of {
            Record::Kernel(record) => format!("{kind} {:?}", shape(&record.shape)),
            Record::Gpu(record) => {
                format!("{kind} {:?} {}", shape(&record.shape), record.device.name)
            }
            Record::Load(record) => {
                let told = busiest(record).is_some();
                let server = &record.server;
                format!("{kind} {:?} {} {told}", shape(&server.shape), server.shards)
            }
            Record::Build(record) => format!("{kind} {:?}", record.content),
            Record::Startup(record) => format!("{kind} {:?}", record.content),
            Record::Reload(record) => format!("{kind} {:?}", record.content),
        };
        let older = |other: &Found| other.record.head().date <= found.record.head().date;
        if newest.get(&key).is_none_or(older) {
            newest.insert(key, found);
        }
    }
    newest.into_values().collect()
}

/// Core-milliseconds of a query in a batch.
fn core_ms(answer: &Answer) -> f64 {
    answer.ms_per_query.median * answer.threads as f64
}

fn stages(answer: &Answer) -> [f64; 5] {
    let Answer { scan_ms, pack_ms, prepare_ms, finish_ms, other_ms, .. } = *answer;
    [scan_ms, pack_ms, prepare_ms, finish_ms, other_ms]
}

/// The engine that answers its largest batch soonest with so many threads, and all it did.
fn fastest(kernel: &Kernel, threads: usize) -> Option<(&str, Vec<&Answer>)> {
    let with = || kernel.answers.iter().filter(|answer| answer.threads == threads);
    let largest = with().map(|answer| answer.batch).max()?;
    let full = with().filter(|answer| answer.batch == largest);
    let best = full.min_by(|a, b| a.ms_per_query.median.total_cmp(&b.ms_per_query.median))?;
    Some((&best.engine, with().filter(|answer| answer.engine == best.engine).collect()))
}

/// Core time of a query with so many threads over that with half as many, in the largest batch.
fn doubling(kernel: &Kernel, engine: &str, threads: usize) -> Option<f64> {
    let at = |threads: usize| {
        let all = kernel.answers.iter();
        all.filter(|answer| answer.engine == engine && answer.threads == threads)
            .max_by_key(|answer| answer.batch)
    };
    let (half, whole) = (at(threads / 2)?, at(threads)?);
    (threads.is_multiple_of(2) && half.batch == whole.batch).then(|| core_ms(whole) / core_ms(half))
}

/// The valid run with the most answers of which the server told something.
fn busiest(report: &Report) -> Option<(&Trial, &ServerSide)> {
    let told = report.trials.iter().filter(|trial| trial.invalid.is_none());
    told.filter_map(|trial| Some((trial, trial.server.as_ref()?)))
        .filter(|(_, server)| server.answers > 0)
        .max_by(|a, b| {
            let key = |trial: &Trial| (trial.within, trial.throughput);
            key(a.0).partial_cmp(&key(b.0)).unwrap_or(std::cmp::Ordering::Equal)
        })
}

/// Bytes that a query of a load record brought, with its part of a bundle.
fn load_bytes_in(report: &Report) -> f64 {
    let distinct = f64::from(report.server.shards).min(QUERIES_PER_SECRET_MAX as f64).max(1.0);
    let shape = &report.server.shape;
    shape.query_bytes as f64 + shape.bundle_bytes as f64 / distinct
}

/// Bytes a second that the host's cores read, and a shard's time at that.
pub(super) fn reading(cost: &Cost, host: &Host, shape: &ShapeFacts) -> (f64, Basis) {
    let cores = f64::from(host.cores);
    match host.memory_gb_per_s {
        Some(stated) => {
            (pass_bytes(shape) / (stated * 1e9), Basis::of(["prices: hosts.memory_gb_per_s"]))
        }
        None => {
            let rate = cost.read_gb_per_s * cores / cost.cores;
            let basis = if cores > cost.cores {
                cost.read.clone().guess("reading taken to grow with cores")
            } else {
                cost.read.clone()
            };
            (pass_bytes(shape) / (rate * 1e9), basis)
        }
    }
}
