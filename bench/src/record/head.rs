//! What every record begins with, the shape of shards, and numbers measured several times.

#![allow(missing_docs, reason = "bench/README.md says what each field is; a test compares")]

use std::fs;
use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

use sotto::params::{Shape, ShapeError};
use sotto::server::kib_of;

/// The head of a record; its fields stand at the record's top level.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Head {
    pub schema: String,
    pub command: String,
    pub commit: Option<String>,
    pub date: Option<String>,
    pub machine: Machine,
}

impl Head {
    pub fn new(schema: &str) -> Self {
        Self {
            schema: schema.into(),
            command: std::env::args().collect::<Vec<_>>().join(" "),
            commit: commit(),
            date: said("date", &["-u", "+%FT%TZ"], None),
            machine: Machine::here(),
        }
    }

    /// Where and when it was measured, for people.
    pub(crate) fn origin(&self) -> String {
        let known = |text: &Option<String>| text.clone().unwrap_or("unknown".into());
        let Machine { cpu, cpus, logical_cpus, load, .. } = &self.machine;
        format!(
            "{}, {cpus} of {logical_cpus} processors, load {}; commit {}, {}",
            known(cpu),
            known(load),
            known(&self.commit),
            known(&self.date),
        )
    }
}

/// A machine, as it tells of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    pub cpu: Option<String>,
    pub cpus: usize,
    pub logical_cpus: usize,
    pub flags: Vec<String>,
    pub arch: String,
    pub kernel: Option<String>,
    pub load: Option<String>,
    pub memory_bytes: Option<u64>,
}

/// Processor flags that decide which engine runs.
const FLAGS: &str = "avx2 avx512f avx512bw avx512dq avx512vl avx512_vnni avx512ifma avx512vbmi \
                     amx_tile amx_int8 asimd asimddp";

impl Machine {
    pub fn here() -> Self {
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let field = |name: &str| {
            let line = info.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let flags = field("flags").or_else(|| field("Features")).unwrap_or_default();
        let has = |flag: &&str| flags.split(' ').any(|found| found == *flag);
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        Self {
            cpu: field("model name").or_else(|| field("CPU part")),
            cpus: std::thread::available_parallelism().map_or(0, usize::from),
            logical_cpus: info.lines().filter(|line| line.starts_with("processor")).count(),
            flags: FLAGS.split(' ').filter(has).map(str::to_owned).collect(),
            arch: std::env::consts::ARCH.into(),
            kernel: said("uname", &["-sr"], None),
            load: fs::read_to_string("/proc/loadavg").ok().map(|load| load.trim().to_owned()),
            memory_bytes: kib_of(&memory, "MemTotal:"),
        }
    }

    /// For people; two machines of one name count as the same.
    pub fn name(&self) -> String {
        let cpu = self.cpu.as_deref().unwrap_or("unknown processor");
        let cores = if self.logical_cpus == 1 { "core" } else { "cores" };
        format!("{cpu}, {} {cores}", self.logical_cpus)
    }

    /// Short and fit for a file's name, such as `amd-epyc-2-cores`.
    pub fn slug(&self) -> String {
        let name = self.cpu.as_deref().unwrap_or("unknown").to_ascii_lowercase();
        let words =
            name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
        format!("{}-{}-cores", words.collect::<Vec<_>>().join("-"), self.logical_cpus)
    }
}

/// What a command prints when it is run there, if it can be run.
fn said(command: &str, arguments: &[&str], folder: Option<&Path>) -> Option<String> {
    let mut command = Command::new(command);
    folder.map(|folder| command.current_dir(folder));
    let output = command.args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

fn commit() -> Option<String> {
    let told = std::env::var("SOTTO_COMMIT").ok();
    told.or_else(|| {
        let program = std::env::current_exe().ok()?;
        said("git", &["describe", "--always", "--exclude=*", "--dirty"], program.parent())
    })
}

/// The shape of a database's shards, all of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShapeFacts {
    pub records_per_shard: u64,
    pub value_len: u32,
    pub pack_rows: u32,
    pub packs: u32,
    pub columns: u32,
    pub matrix_bytes: usize,
    pub tables_bytes: usize,
    pub hints_bytes: usize,
    pub query_bytes: usize,
    pub bundle_bytes: usize,
    pub answer_bytes: usize,
}

impl ShapeFacts {
    pub fn of(shape: &Shape) -> Self {
        Self {
            records_per_shard: shape.records_expected(),
            value_len: shape.value_len() as u32,
            pack_rows: shape.pack_rows() as u32,
            packs: shape.packs() as u32,
            columns: shape.columns() as u32,
            matrix_bytes: shape.matrix_bytes(),
            tables_bytes: shape.packs() * shape.table_bytes(),
            hints_bytes: shape.packs() * shape.hint_bytes(),
            query_bytes: shape.query_bytes(),
            bundle_bytes: shape.bundle_bytes(),
            answer_bytes: shape.packs() * shape.response_bytes(),
        }
    }

    /// Bytes of a shard that a scan reads, and that are in memory.
    pub fn scan_bytes(&self) -> usize {
        self.matrix_bytes + self.tables_bytes
    }

    /// Bytes of a shard with its hints, as it is stored and brought to a host.
    pub fn shard_bytes(&self) -> usize {
        self.scan_bytes() + self.hints_bytes
    }

    pub fn shape(&self) -> Result<Shape, ShapeError> {
        Shape::new(self.value_len, self.pack_rows, self.packs, self.columns)
    }
}

pub(crate) fn rounded(number: f64) -> f64 {
    (number * 1e4).round() / 1e4
}

/// A number measured several times.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    pub best: f64,
    pub q1: f64,
    pub median: f64,
    pub q3: f64,
    pub runs: usize,
}

impl Spread {
    /// Of all that was measured, rounded; nothing of nothing.
    pub fn of(runs: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut runs: Vec<f64> = runs.into_iter().collect();
        runs.sort_by(f64::total_cmp);
        // Between the two that are nearest.
        let at = |share: f64| {
            let place = share * (runs.len() - 1) as f64;
            let (low, high) = (runs[place.floor() as usize], runs[place.ceil() as usize]);
            rounded(low + (high - low) * place.fract())
        };
        runs.first()?;
        Some(Self { best: at(0.0), q1: at(0.25), median: at(0.5), q3: at(0.75), runs: runs.len() })
    }

    /// Half of the notch of a box plot around the median: where two notches do not overlap, the
    /// medians differ with some 95% confidence (McGill, Tukey, Larsen, "Variations of Box Plots",
    /// The American Statistician 32, 1978: 1.57 quartile distances over the root of the count).
    pub fn noise(&self) -> f64 {
        1.57 * (self.q3 - self.q1) / (self.runs as f64).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreads_are_quartiles_and_slugs_are_file_names() {
        let spread = Spread::of([4.0, 1.0, 3.0, 2.0, 5.0]).unwrap();
        let expected = Spread { best: 1.0, q1: 2.0, median: 3.0, q3: 4.0, runs: 5 };
        assert_eq!(spread, expected);
        assert!((spread.noise() - 1.57 * 2.0 / 5f64.sqrt()).abs() < 1e-12);
        assert_eq!(Spread::of([1.0, 2.0]).unwrap().median, 1.5);
        assert_eq!(Spread::of([]), None);
        let mut machine = Machine::here();
        machine.cpu = Some("Intel(R) Xeon(R) Processor".into());
        machine.logical_cpus = 2;
        assert_eq!(machine.slug(), "intel-r-xeon-r-processor-2-cores");
    }

    #[test]
    fn a_head_and_a_shape_are_read_as_written() {
        let head = Head::new("sotto-bench-test/1");
        assert_eq!(head.machine.arch, std::env::consts::ARCH);
        assert!(head.machine.memory_bytes.is_some_and(|bytes| bytes > 1 << 28), "{head:?}");
        let text = serde_json::to_string(&head).unwrap();
        assert_eq!(serde_json::from_str::<Head>(&text).unwrap(), head);
        let shape = Shape::new(120, 2048, 4, 17_280).unwrap();
        let facts = ShapeFacts::of(&shape);
        assert_eq!((facts.query_bytes, facts.answer_bytes), (51_840, 12_288));
        assert_eq!(facts.shape(), Ok(shape));
    }
}
