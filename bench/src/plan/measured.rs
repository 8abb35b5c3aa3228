//! The numbers of records that a plan needs, for the shape that it needs them for.
//!
//! The newest record of an engine says which machine a plan is of. Records of other machines are
//! used only where there is none of this one. That of the nearest shape is taken, each stage scaled
//! by what it works on. Both are marked as extrapolated.

use std::cmp::Reverse;

use sotto::limits::QUERIES_PER_SECRET_MAX;

use super::batch::Curve;
use super::figure::{Basis, formula};
use super::scenario::Host;
use crate::found::{Found, Record};
use crate::load::report::{Report, ServerSide, Trial};
use crate::record::{Answer, Build, Gpu, Kernel, ShapeFacts};

/// Records, the newest first, and of which machine.
pub(super) struct Measured<'a> {
    records: Vec<&'a Found>,
    machine: String,
}

pub(super) struct Cost {
    /// Core-seconds of a processor, seconds of a GPU.
    pub(super) batch: Curve,
    pub(super) basis: Basis,
    pub(super) how: String,
    /// 10^9 bytes a second that so many cores, or the GPU, were seen to read.
    read_gb_per_s: f64,
    read: Basis,
    /// Cores measured; 1 for a GPU.
    cores: f64,
}

/// Something measured, what it stands on and how it came about.
pub(super) struct Known {
    pub(super) value: f64,
    pub(super) basis: Basis,
    pub(super) formula: String,
}

fn same_sizes(a: &ShapeFacts, b: &ShapeFacts) -> bool {
    (a.pack_rows, a.packs, a.columns) == (b.pack_rows, b.packs, b.columns)
}

/// How far one size is from another, whichever is more.
fn distance(a: f64, b: f64) -> f64 {
    (a / b).ln().abs()
}

fn far(a: &ShapeFacts, b: &ShapeFacts) -> f64 {
    distance(a.scan_bytes() as f64, b.scan_bytes() as f64)
}

/// A basis marked for another shape than was measured, and for a test's record.
fn marked(mut basis: Basis, from: &ShapeFacts, to: &ShapeFacts, effort: &str) -> Basis {
    if !same_sizes(from, to) {
        basis = basis.guess(formula!(
            "measured for shards of {} MB, each stage scaled by what it reads",
            from.scan_bytes() as f64 / 1e6
        ));
    }
    if effort == "test" { basis.guess("a test's numbers, not measured with care") } else { basis }
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
    pub(super) fn of(found: &'a [Found]) -> Result<Self, String> {
        let mut records: Vec<&Found> = found.iter().collect();
        records.sort_by_key(|found| Reverse(found.record.head().date.as_deref()));
        let newest = records.iter().find(|found| matches!(found.record, Record::Kernel(_)));
        let newest = newest.ok_or_else(|| {
            format!(
                "found no record of an engine among {} records: run `sotto-bench kernel` here, or \
                 give what others measured (--record bench/record/...)",
                found.len()
            )
        })?;
        Ok(Self { machine: newest.record.machine().name(), records })
    }

    /// Those of one kind, of this machine where there are any; each with a basis on its field.
    fn all<T>(&self, pick: impl Fn(&'a Record) -> Option<T>) -> Vec<(&'a Found, T)> {
        let here = |found: &Found| found.record.machine().name() == self.machine;
        let picked = self.records.iter().filter_map(|found| Some((*found, pick(&found.record)?)));
        let mut all: Vec<_> = picked.collect();
        if all.iter().any(|(found, _)| here(found)) {
            all.retain(|(found, _)| here(found));
        }
        all
    }

    /// On fields of a record; a guess where it is of another machine.
    fn basis(&self, found: &Found, fields: &str) -> Basis {
        let basis = Basis::of([format!("{}: {fields}", found.path.display())]);
        let machine = found.record.machine().name();
        if machine == self.machine {
            return basis;
        }
        basis.guess(format!("measured on {machine}, not on {}", self.machine))
    }

    fn kernel(&self, shape: &ShapeFacts) -> Option<(&'a Found, &'a Kernel)> {
        let kernels = self.all(|record| match record {
            Record::Kernel(kernel) => Some(&**kernel),
            _ => None,
        });
        let effort = |kernel: &Kernel| ["full", "quick"].iter().position(|e| *e == kernel.effort);
        kernels.into_iter().min_by(|(_, a), (_, b)| {
            let other = |kernel: &Kernel| !same_sizes(&kernel.shape, shape);
            let rank = |kernel: &Kernel| effort(kernel).unwrap_or(2);
            let by_size = far(&a.shape, shape).total_cmp(&far(&b.shape, shape));
            other(a).cmp(&other(b)).then(by_size).then(rank(a).cmp(&rank(b)))
        })
    }

    /// A host's processor: its fastest engine, all cores.
    pub(super) fn processor(&self, shape: &ShapeFacts, cores: u32) -> Option<Cost> {
        let (found, kernel) = self.kernel(shape)?;
        let cores = cores as usize;
        let threads = || kernel.answers.iter().map(|answer| answer.threads);
        let enough = threads().filter(|&threads| threads >= cores).min();
        let threads = enough.or_else(|| threads().max())?;
        let (engine, answers) = fastest(kernel, threads)?;
        let scale = Scale::new(shape, &kernel.shape);
        let batch = Curve::of(answers.iter().map(|answer| {
            let core_ms = answer.ms_per_query.median * answer.threads as f64;
            let Answer { scan_ms, pack_ms, prepare_ms, finish_ms, other_ms, .. } = **answer;
            let stages = [scan_ms, pack_ms, prepare_ms, finish_ms, other_ms];
            let batch = answer.batch as f64;
            (batch, core_ms * batch * scale.of(stages) / 1e3)
        }))?;
        let field = format!("answers[engine={engine}, threads={threads}].ms_per_query.median");
        let mut basis = marked(self.basis(found, &field), &kernel.shape, shape, &kernel.effort);
        if cores > threads {
            basis = basis.guess(format!(
                "{threads} cores measured, {cores} taken to lose no more of their time"
            ));
        }
        let read = kernel.floors.read.iter().filter(|read| read.threads <= threads);
        let read = read.max_by_key(|read| read.threads)?;
        let field = format!("floors.read[threads={}].gb_per_s", read.threads);
        Some(Cost {
            batch,
            basis,
            how: format!("{engine}, measured on {threads} cores"),
            read_gb_per_s: read.gb_per_s,
            read: self.basis(found, &field),
            cores: threads as f64,
        })
    }

    /// A GPU; none where no real one was measured.
    pub(super) fn gpu(&self, shape: &ShapeFacts) -> Option<Cost> {
        let gpus = self.all(|record| match record {
            Record::Gpu(gpu) if !gpu.device.software => Some(&**gpu),
            _ => None,
        });
        let nearest = |a: &Gpu, b: &Gpu| far(&a.shape, shape).total_cmp(&far(&b.shape, shape));
        let (found, gpu) = gpus.into_iter().min_by(|a, b| nearest(a.1, b.1))?;
        let scale = Scale::new(shape, &gpu.shape);
        let batch = Curve::of(gpu.answers.iter().map(|answer| {
            let stages = [answer.scan_us, answer.pack_us, answer.prepare_us, answer.finish_us, 0.0];
            let batch = answer.batch as f64;
            (batch, batch * answer.streamed_us.median / 1e6 * scale.of(stages))
        }))?;
        // A GPU is planned as itself, wherever it was measured.
        let basis = |field: &str| Basis::of([format!("{}: {field}", found.path.display())]);
        Some(Cost {
            batch,
            basis: marked(basis("answers.streamed_us.median"), &gpu.shape, shape, &gpu.effort),
            how: gpu.device.name.clone(),
            read_gb_per_s: gpu.floors.read_gb_per_s,
            read: basis("floors.read_gb_per_s"),
            cores: 1.0,
        })
    }

    /// Core-seconds that queries take beside their batches for each byte that they bring, where
    /// they bring about so many.
    pub(super) fn outside(&self, bytes_in: f64) -> Option<Known> {
        let loads = self.all(|record| match record {
            Record::Load(report) => {
                busiest(report).map(|(trial, server)| (&**report, trial, server))
            }
            _ => None,
        });
        let far = |report: &Report| distance(load_bytes_in(report), bytes_in);
        let (found, (report, trial, server)) =
            loads.into_iter().min_by(|a, b| far(a.1.0).total_cmp(&far(b.1.0)))?;
        let engine = server.scan_ms + server.pack_ms + self.beside_stages(report, server);
        let cpu = server.cpu_seconds * 1e3 / server.answers as f64;
        let of_bytes = load_bytes_in(report);
        let fields = ".server.cpu_seconds, .answers, .scan_ms, .pack_ms";
        let mut basis = self.basis(found, &format!("trials[rate={:.1}]{fields}", trial.rate));
        if (bytes_in / of_bytes - 1.0).abs() > 0.05 {
            basis = basis.guess("time beside batches scaled by the bytes that a query brings");
        }
        let formula = formula!(
            "({} ms of processor time a query - {} ms in batches) / {} bytes in",
            cpu,
            engine,
            of_bytes
        );
        Some(Known { value: (cpu - engine).max(0.0) / 1e3 / of_bytes, basis, formula })
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

    pub(super) fn build(&self, shape: &ShapeFacts) -> Option<Known> {
        let builds = self.all(|record| match record {
            Record::Build(build) => Some(&**build),
            _ => None,
        });
        let near = |build: &Build| far(&build.content.shape, shape);
        let (found, build) = builds.into_iter().min_by(|a, b| near(a.1).total_cmp(&near(b.1)))?;
        let from = &build.content.shape;
        let scale = shape.scan_bytes() as f64 / from.scan_bytes() as f64;
        let shards = f64::from(build.content.shards);
        let mut basis = self.basis(found, "cpu_seconds.median, content.shards");
        if !same_sizes(from, shape) {
            basis = basis.guess("building scaled by the bytes of a shard");
        }
        let formula = formula!("{} s / {shards} shards * {}", build.cpu_seconds.median, scale);
        Some(Known { value: build.cpu_seconds.median / shards * scale, basis, formula })
    }
}

impl Cost {
    /// Seconds in which a host reads a shard, or a GPU where it has any, and what says so.
    pub(super) fn reading(&self, host: &Host, shape: &ShapeFacts) -> (f64, Basis) {
        let bytes = shape.scan_bytes() as f64;
        let cores = f64::from(host.cores);
        let stated = host.memory_gb_per_s.filter(|_| host.gpus == 0);
        if let Some(rate) = stated {
            return (bytes / (rate * 1e9), Basis::of(["prices: hosts.memory_gb_per_s"]));
        }
        if host.gpus > 0 || cores <= self.cores {
            let scale = if host.gpus > 0 { 1.0 } else { cores / self.cores };
            return (bytes / (self.read_gb_per_s * scale * 1e9), self.read.clone());
        }
        let rate = self.read_gb_per_s * cores / self.cores;
        (bytes / (rate * 1e9), self.read.clone().guess("reading taken to grow with cores"))
    }
}

/// The engine that answers its largest batch soonest with so many threads, and all it did.
fn fastest(kernel: &Kernel, threads: usize) -> Option<(&str, Vec<&Answer>)> {
    let with = || kernel.answers.iter().filter(|answer| answer.threads == threads);
    let largest = with().map(|answer| answer.batch).max()?;
    let full = with().filter(|answer| answer.batch == largest);
    let best = full.min_by(|a, b| a.ms_per_query.median.total_cmp(&b.ms_per_query.median))?;
    Some((&best.engine, with().filter(|answer| answer.engine == best.engine).collect()))
}

/// The valid run with the most answers of which the server told something.
fn busiest(report: &Report) -> Option<(&Trial, &ServerSide)> {
    let told = report.trials.iter().filter(|trial| trial.invalid.is_none());
    told.filter_map(|trial| Some((trial, trial.server.as_ref()?)))
        .filter(|(_, server)| server.answers > 0)
        .max_by(|(a, _), (b, _)| {
            a.within.cmp(&b.within).then(a.throughput.total_cmp(&b.throughput))
        })
}

/// Bytes that a query of a load record brought, with its part of a bundle.
fn load_bytes_in(report: &Report) -> f64 {
    let distinct = f64::from(report.server.shards).min(QUERIES_PER_SECRET_MAX as f64).max(1.0);
    let shape = &report.server.shape;
    shape.query_bytes as f64 + shape.bundle_bytes as f64 / distinct
}
