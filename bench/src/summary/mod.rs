//! The summary of a record's folder, as Markdown for its README: what was measured, targets met and
//! missed, and for runs that are judged (`soak.sh`, `failures.sh`) what has to be so and is not.
//!
//! What is there decides what is said: records (`*.json`), `machine.txt` with steps and how they
//! ended, `parity.txt` of engines beside the reference, `samples.csv` of a long run, files of tests
//! that end with `ended: CODE`.

mod judged;

use std::fs;
use std::io;
use std::path::Path;

use crate::common::report::{target, targets_table};
use crate::found::{Found, Record};
use crate::numbers;
use crate::record::{Build, Target};

/// A text, and whether all that has to be so is so.
#[derive(Debug)]
pub struct Summary {
    /// As Markdown.
    pub text: String,
    /// False where something that is judged is wrong.
    pub passed: bool,
}

/// Reads a record's folder.
///
/// # Errors
/// The folder or a file in it cannot be read.
pub fn summary(folder: &Path, records: &[Found]) -> io::Result<Summary> {
    let machine = read(folder, "machine.txt")?;
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let mut text = format!("# {name}\n\n");
    let commit = line_after(&machine, "commit").unwrap_or("unknown");
    text += &format!("Commit {commit}. The machine and its load: `machine.txt`.\n");
    for step in machine.lines().filter_map(Step::read).filter(|step| step.code != "0") {
        let Step { name, code, seconds } = step;
        text += &format!("**{name} failed** (exit {code}) after {seconds} s: `{name}.txt`.\n");
    }
    if records.iter().any(|found| matches!(&found.record, Record::Gpu(gpu) if gpu.device.software))
    {
        text += "**Not measured on a GPU**: a processor plays this one. The numbers show that the \
                 measurement runs, and nothing else.\n";
    }
    let parity = read(folder, "parity.txt")?;
    if let Some(result) = parity.lines().find_map(|line| line.strip_prefix("test result: ")) {
        let result = result.split(';').next().unwrap_or(result);
        text += &format!("Engines beside the reference: {result} (`parity.txt`).\n");
    }
    let targets: Vec<Target> = records.iter().flat_map(|found| targets(&found.record)).collect();
    if !targets.is_empty() {
        text += "\nThe best of the runs decides, the median stands beside.\n\n";
        text += &targets_table(&targets).markdown();
    }
    for found in records {
        let file = found.path.strip_prefix(folder).unwrap_or(&found.path).display();
        text += &format!("\n## `{file}`\n\n");
        text += &numbers::table(&numbers::of(&found.record)).markdown();
    }
    let judged = judged::judge(folder, records)?;
    Ok(Summary { text: text + &judged.text, passed: judged.passed })
}

/// A file's text; empty where there is none.
fn read(folder: &Path, name: &str) -> io::Result<String> {
    match fs::read(folder.join(name)) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(error),
    }
}

fn line_after<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    let rest = text.lines().find_map(|line| line.strip_prefix(word));
    rest.map(str::trim).filter(|rest| !rest.is_empty())
}

/// A line such as `parity ended 0 after 12 s`.
struct Step<'a> {
    name: &'a str,
    code: &'a str,
    seconds: &'a str,
}

impl<'a> Step<'a> {
    fn read(line: &'a str) -> Option<Self> {
        let (name, rest) = line.split_once(" ended ")?;
        let (code, rest) = rest.split_once(" after ")?;
        Some(Self { name, code, seconds: rest.strip_suffix(" s")? })
    }
}

/// Those of docs/design.md, "Targets".
fn targets(record: &Record) -> Vec<Target> {
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
        1 => 8.0,
        10_000 => 240.0,
        _ => return Vec::new(),
    };
    if content.records < 1_000_000 {
        return Vec::new();
    }
    let what = format!("building {} records in {} shards, s", content.records, content.shards);
    let mut all = vec![target(&what, ..=most, Some(seconds.best), Some(seconds.median))];
    if content.shards == 1 {
        let mib = (peak_memory_bytes >> 20) as f64;
        all.push(target("its peak memory, MiB", ..=1536.0, Some(mib), None));
    }
    all
}
