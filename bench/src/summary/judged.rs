//! Runs that are judged: a long one, by what was sampled of the server's process; and tests of
//! failures, by how each ended.

use std::fs;
use std::io;
use std::path::Path;

use super::{Summary, read};
use crate::found::{Found, Record};
use crate::load::Trial;
use crate::table::Table;

/// Growth of a median from an earlier quarter of a phase to its last that still is flat: memory, as
/// a share and in KiB, whichever is more; open files.
const MEMORY_SHARE_MAX: f64 = 0.02;
const MEMORY_KIB_MAX: f64 = 8192.0;
const FILES_MAX: f64 = 2.0;
/// What the server may answer beyond its capacity, and what the generator then does not send.
const REFUSALS: [&str; 3] = ["OVERLOADED", "DEADLINE", "not sent"];

pub(super) fn judge(folder: &Path, records: &[Found]) -> io::Result<Summary> {
    let mut all = Summary { text: String::new(), passed: true };
    for part in [long_run(folder, records)?, failures(folder)?].into_iter().flatten() {
        all.text += &part.text;
        all.passed &= part.passed;
    }
    Ok(all)
}

/// Judgements, a row each.
struct Judged {
    table: Table,
    passed: bool,
}

impl Judged {
    fn new() -> Self {
        Self { table: Table::new(["what has to be so", "what was seen", "is it"]), passed: true }
    }

    fn say(&mut self, what: String, is_so: bool, seen: String) {
        self.passed &= is_so;
        self.table.row([what, seen, if is_so { "yes" } else { "**NO**" }.into()]);
    }
}

/// Samples of a server's process: the columns, then a line each.
struct Samples {
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Samples {
    fn of(text: &str) -> Self {
        let mut lines = text.lines().map(|line| line.split(',').map(str::to_owned).collect());
        Self { columns: lines.next().unwrap_or_default(), rows: lines.collect() }
    }

    fn values(&self, phase: &str, column: &str) -> Vec<f64> {
        let place = |name: &str| self.columns.iter().position(|column| column == name);
        let (Some(phases), Some(at)) = (place("phase"), place(column)) else { return Vec::new() };
        let of_phase = self.rows.iter().filter(|row| row.get(phases).is_some_and(|p| p == phase));
        of_phase.filter_map(|row| row.get(at)?.parse().ok()).collect()
    }

    /// The median over a quarter of a phase, the first being 0.
    fn quarter(&self, phase: &str, number: usize, column: &str) -> Option<f64> {
        let values = self.values(phase, column);
        let part = values.len() * number / 4..values.len() * (number + 1) / 4;
        let mut part = values[part].to_vec();
        part.sort_by(f64::total_cmp);
        let upper = *part.get(part.len() / 2)?;
        let lower = part[(part.len() - 1) / 2];
        Some((lower + upper) / 2.0)
    }
}

/// Memory, threads and files flat, no answer wrong, no query lost at 80%, no panic, a server that
/// leaves when told.
fn long_run(folder: &Path, records: &[Found]) -> io::Result<Option<Summary>> {
    let text = read(folder, "samples.csv")?;
    if text.is_empty() {
        return Ok(None);
    }
    let samples = Samples::of(&text);
    let mut judged = Judged::new();
    // From a quarter in which what is filled once is full.
    for (phase, early) in [("steady", 0), ("flood", 1)] {
        let memory = |first: f64| MEMORY_KIB_MAX.max(MEMORY_SHARE_MAX * first);
        flat(&mut judged, &samples, (phase, early), "anon_kib", memory);
        flat(&mut judged, &samples, (phase, early), "threads", |_| 0.0);
        flat(&mut judged, &samples, (phase, early), "files", |_| FILES_MAX);
    }
    answers(&mut judged, records, "steady", &[]);
    answers(&mut judged, records, "flood", &REFUSALS);
    let log = read(folder, "soak-server.txt")?;
    let lines = |mark: &str| log.lines().filter(|line| line.contains(mark)).count();
    let (panics, errors) = (lines("panicked"), lines(" ERROR "));
    judged.say("no panic".into(), panics == 0, format!("{panics} in the log"));
    judged.say("no error in the log".into(), errors == 0, format!("{errors} lines"));
    let code = read(folder, "exit-code.txt")?;
    let code = code.trim();
    judged.say("the server leaves when told".into(), code == "0", format!("exit code {code}"));
    let text = format!(
        "\n## A long run: {}\n\n80% of the capacity is `steady`, 200% is `flood`. Memory, threads \
         and files are medians over a quarter of a phase (`samples.csv`: {} samples).\n\n{}",
        read(folder, "capacity.txt")?.trim(),
        samples.rows.len(),
        judged.table.markdown()
    );
    Ok(Some(Summary { text, passed: judged.passed }))
}

/// From a quarter of a phase, the first being 0, to its last.
fn flat(
    judged: &mut Judged,
    samples: &Samples,
    (phase, early): (&str, usize),
    column: &str,
    allowed: impl Fn(f64) -> f64,
) {
    let what = format!("{phase}: {column} flat from quarter {} to 4", early + 1);
    let quarter = |number| samples.quarter(phase, number, column);
    match quarter(early).zip(quarter(3)) {
        None => judged.say(what, false, "too few samples".into()),
        Some((first, last)) => {
            judged.say(what, last - first <= allowed(first), format!("{first} to {last}"));
        }
    }
}

fn answers(judged: &mut Judged, records: &[Found], phase: &str, allowed: &[&str]) {
    let report = records.iter().find_map(|found| match &found.record {
        Record::Load(report) if found.path.file_stem().is_some_and(|stem| stem == phase) => {
            Some(report)
        }
        _ => None,
    });
    let Some(report) = report else {
        return judged.say(
            format!("{phase}: the generator ran"),
            false,
            format!("there is no `{phase}.json`: see `{phase}.txt`"),
        );
    };
    for Trial { verified, errors, .. } in &report.trials {
        let (right, wrong) = (verified.right, verified.wrong);
        let seen = format!("{right} right, {wrong} wrong");
        judged.say(format!("{phase}: no answer wrong"), wrong == 0 && right > 0, seen);
        let is_allowed = |what: &str| allowed.iter().any(|allowed| what.starts_with(allowed));
        let lost = errors.keys().filter(|what| !is_allowed(what)).count();
        let without: u64 = errors.values().sum();
        let seen = format!("{without} without an answer: {errors:?}");
        judged.say(format!("{phase}: no query lost"), lost == 0, seen);
    }
}

/// Files that end with `ended: CODE`, one a test.
fn failures(folder: &Path) -> io::Result<Option<Summary>> {
    let mut files: Vec<_> =
        fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    files.sort();
    let mut table = Table::new(["test", "what was seen", "panics", "passed"]);
    let mut failed = Vec::new();
    for path in files {
        let text = String::from_utf8_lossy(&fs::read(&path)?).into_owned();
        let Some(code) = text.lines().find_map(|line| line.strip_prefix("ended: ")) else {
            continue;
        };
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let seen = text.lines().filter_map(|line| line.split_once("record: "));
        let seen = seen.filter(|(before, _)| before.is_empty() || before.starts_with("test "));
        let seen: Vec<&str> = seen.map(|(_, seen)| seen).collect();
        let skipped: Vec<&str> = text.lines().filter(|line| line.starts_with("skipped")).collect();
        let panicked = |line: &&str| line.starts_with("thread '") && line.contains("panicked");
        let passed = match (code.trim(), seen.is_empty(), skipped.is_empty()) {
            ("0", true, false) => "skipped",
            ("0", ..) => "yes",
            _ => "**NO**",
        };
        if code.trim() != "0" {
            failed.push(name.clone());
        }
        let words = [skipped, seen].concat();
        let words = if words.is_empty() { "as its name says".into() } else { words.join("; ") };
        let panics = text.lines().filter(panicked).count();
        table.row([format!("`{name}`"), words, panics.to_string(), passed.into()]);
    }
    if table.is_empty() {
        return Ok(None);
    }
    let names = if failed.is_empty() { "none".into() } else { failed.join(", ") };
    let text = format!(
        "\n## Failures\n\nEvery look-up of every test was compared with its record and every \
         admitted query was accounted for, or the test had failed.\n\n{}\nFailed: {names}.\n",
        table.markdown()
    );
    Ok(Some(Summary { text, passed: failed.is_empty() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(growth: f64) -> String {
        let mut text = "seconds,phase,rss_kib,anon_kib,file_kib,threads,files\n".to_owned();
        for (phase, at) in ["steady", "flood"].iter().flat_map(|p| (0..40).map(move |at| (p, at))) {
            let memory = 100_000.0 + growth * f64::from(at);
            text += &format!("{at},{phase},0,{memory},0,4,20\n");
        }
        text
    }

    #[test]
    fn memory_that_grows_is_not_flat() {
        let rows = |growth| {
            let (mut judged, samples) = (Judged::new(), Samples::of(&samples(growth)));
            let memory = |first: f64| MEMORY_KIB_MAX.max(MEMORY_SHARE_MAX * first);
            flat(&mut judged, &samples, ("steady", 0), "anon_kib", memory);
            flat(&mut judged, &samples, ("flood", 1), "threads", |_| 0.0);
            judged
        };
        assert!(rows(10.0).passed);
        let grown = rows(1_000.0);
        assert!(!grown.passed && grown.table.markdown().contains("**NO**"));
        let (mut judged, none) = (Judged::new(), Samples::of("seconds,phase,anon_kib\n"));
        flat(&mut judged, &none, ("steady", 0), "anon_kib", |_| 0.0);
        assert!(!judged.passed, "too few samples");
    }

    #[test]
    fn a_test_that_failed_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write("a.txt", "record: 3 ms\nended: 0\n");
        write("b.txt", "skipped: no clock\nended: 0\n");
        write("machine.txt", "commit 1\n");
        let summary = failures(folder.path()).unwrap().unwrap();
        assert!(summary.passed && summary.text.contains("| `a` | 3 ms | 0 | yes |"));
        assert!(summary.text.contains("| `b` | skipped: no clock | 0 | skipped |"));
        write("c.txt", "thread 'x' panicked at y\nended: 101\n");
        let summary = failures(folder.path()).unwrap().unwrap();
        assert!(!summary.passed && summary.text.contains("Failed: c."), "{}", summary.text);
        let none = tempfile::tempdir().unwrap();
        assert!(failures(none.path()).unwrap().is_none());
    }
}
