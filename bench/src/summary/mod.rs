//! The summary of a record's folder, as Markdown for its README: every number, targets met and
//! missed, and for runs that are judged (`soak.sh`, `failures.sh`) what has to be so and is not.
//! What is there decides what is said: records, `machine.txt` with steps and how they ended,
//! `parity.txt`, `samples.csv` of a long run, files of tests that end with `ended: CODE`.

mod judged;

use std::io;
use std::path::Path;

use judged::read;

use crate::common::report::{target, targets_table};
use crate::found::{Found, Record};
use crate::numbers;
use crate::record::{Build, Target};

/// What a record's folder says, as Markdown, and whether all that is judged is as it has to be.
///
/// # Errors
/// The folder or a file in it cannot be read.
pub(crate) fn summary(folder: &Path, records: &[Found]) -> io::Result<(String, bool)> {
    let machine = read(folder, "machine.txt")?;
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let mut text = format!("# {name}\n\n");
    let commit = machine.lines().find_map(|line| line.strip_prefix("commit")).unwrap_or("").trim();
    let commit = if commit.is_empty() { "unknown" } else { commit };
    text += &format!("Commit {commit}. The machine and its load: `machine.txt`.\n");
    // Lines such as `parity ended 0 after 12 s`.
    let step = |line: &'_ str| {
        let (name, rest) = line.split_once(" ended ")?;
        let (code, time) = rest.split_once(" after ")?;
        let failed = format!("**{name} failed** (exit {code}) after {time}: `{name}.txt`.\n");
        (code != "0").then_some(failed)
    };
    text.extend(machine.lines().filter_map(step));
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
    let mut passed = true;
    let judged = [judged::long_run(folder, records)?, judged::failures(folder)?];
    for (part, is_so) in judged.into_iter().flatten() {
        text += &part;
        passed &= is_so;
    }
    Ok((text, passed))
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
