//! A long run is judged by what was sampled of the server's process, its answers and its log.

use std::fs;
use std::io;
use std::path::Path;

use crate::found::{Found, Record};
use crate::load::Trial;
use crate::table::Table;

/// A judgement as Markdown, and whether all that has to be so is so.
pub(super) type Judgement = (String, bool);

/// Growth of a median from an earlier quarter of a phase to its last that still is flat: memory, as
/// a share and in KiB, whichever is more; open files.
const MEMORY_SHARE_MAX: f64 = 0.02;
const MEMORY_KIB_MAX: f64 = 8192.0;
const FILES_MAX: f64 = 2.0;
/// What the server may answer beyond its capacity, and what the generator then does not send.
const REFUSALS: [&str; 3] = ["OVERLOADED", "DEADLINE", "not sent"];

pub(super) fn read(folder: &Path, name: &str) -> io::Result<String> {
    match fs::read(folder.join(name)) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(error),
    }
}

/// Judgements, a row each: what has to be so, what was seen, whether it is so.
type Rows = Vec<(String, String, bool)>;

/// Samples of a server's process: the columns, then a line each.
struct Samples<'a>(Vec<Vec<&'a str>>);

impl<'a> Samples<'a> {
    fn of(text: &'a str) -> Self {
        Self(text.lines().map(|line| line.split(',').collect()).collect())
    }

    /// The median over a quarter of a phase, the first being 0.
    fn quarter(&self, phase: &str, number: usize, column: &str) -> Option<f64> {
        let place = |name| self.0.first()?.iter().position(|column| *column == name);
        let (phases, at) = (place("phase")?, place(column)?);
        let of_phase = self.0.iter().filter(|row| row.get(phases) == Some(&phase));
        let values: Vec<f64> = of_phase.filter_map(|row| row.get(at)?.parse().ok()).collect();
        let mut part = values[values.len() * number / 4..values.len() * (number + 1) / 4].to_vec();
        part.sort_by(f64::total_cmp);
        let upper = *part.get(part.len() / 2)?;
        Some((part[(part.len() - 1) / 2] + upper) / 2.0)
    }

    /// Whether memory, threads and files are flat from a quarter of a phase to its last.
    fn flat(&self, phase: &str, early: usize) -> Rows {
        let judge = |column, allowed: fn(f64) -> f64| {
            let what = format!("{phase}: {column} flat from quarter {} to 4", early + 1);
            match self.quarter(phase, early, column).zip(self.quarter(phase, 3, column)) {
                None => (what, "too few samples".to_owned(), false),
                Some((first, last)) => {
                    (what, format!("{first} to {last}"), last - first <= allowed(first))
                }
            }
        };
        vec![
            judge("anon_kib", |first| MEMORY_KIB_MAX.max(MEMORY_SHARE_MAX * first)),
            judge("threads", |_| 0.0),
            judge("files", |_| FILES_MAX),
        ]
    }
}

/// Memory, threads and files flat, no answer wrong, no query lost at 80%, no panic, a server that
/// leaves when told; none where there are no samples.
pub(super) fn long_run(folder: &Path, records: &[Found]) -> io::Result<Option<Judgement>> {
    let text = read(folder, "samples.csv")?;
    if text.is_empty() {
        return Ok(None);
    }
    let samples = Samples::of(&text);
    // From a quarter in which what is filled once is full.
    let mut rows = samples.flat("steady", 0);
    rows.extend(samples.flat("flood", 1));
    rows.extend(answers(records, "steady", &[]));
    rows.extend(answers(records, "flood", &REFUSALS));
    let log = read(folder, "soak-server.txt")?;
    let lines = |mark: &str| log.lines().filter(|line| line.contains(mark)).count();
    let (panics, errors) = (lines("panicked"), lines(" ERROR "));
    let code = read(folder, "exit-code.txt")?;
    let code = code.trim();
    rows.push(("no panic".into(), format!("{panics} in the log"), panics == 0));
    rows.push(("no error in the log".into(), format!("{errors} lines"), errors == 0));
    rows.push(("the server leaves when told".into(), format!("exit code {code}"), code == "0"));
    let passed = rows.iter().all(|(_, _, is_so)| *is_so);
    let mut table = Table::new(["what has to be so", "what was seen", "is it"]);
    for (what, seen, is_so) in rows {
        table.row([what, seen, if is_so { "yes" } else { "**NO**" }.into()]);
    }
    let text = format!(
        "\n## A long run: {}\n\n80% of the capacity is `steady`, 200% is `flood`. Memory, threads \
         and files are medians over a quarter of a phase (`samples.csv`: {} samples).\n\n{}",
        read(folder, "capacity.txt")?.trim(),
        samples.0.len() - 1,
        table.markdown()
    );
    Ok(Some((text, passed)))
}

fn answers(records: &[Found], phase: &str, allowed: &[&str]) -> Rows {
    let report = records.iter().find_map(|found| match &found.record {
        Record::Load(report) if found.path.file_stem().is_some_and(|stem| stem == phase) => {
            Some(report)
        }
        _ => None,
    });
    let Some(report) = report else {
        let seen = format!("there is no `{phase}.json`: see `{phase}.txt`");
        return vec![(format!("{phase}: the generator ran"), seen, false)];
    };
    let mut rows = Vec::new();
    for Trial { verified, errors, .. } in &report.trials {
        let (right, wrong) = (verified.right, verified.wrong);
        let seen = format!("{right} right, {wrong} wrong");
        rows.push((format!("{phase}: no answer wrong"), seen, wrong == 0 && right > 0));
        let is_allowed = |what: &String| allowed.iter().any(|allowed| what.starts_with(allowed));
        let without: u64 = errors.values().sum();
        let seen = format!("{without} without an answer: {errors:?}");
        rows.push((format!("{phase}: no query lost"), seen, errors.keys().all(is_allowed)));
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_grows_is_not_flat() {
        let passed = |growth: f64| {
            let mut text = "seconds,phase,rss_kib,anon_kib,file_kib,threads,files\n".to_owned();
            for at in 0..40 {
                let memory = 100_000.0 + growth * f64::from(at);
                text += &format!("{at},steady,0,{memory},0,4,20\n");
            }
            let rows = Samples::of(&text).flat("steady", 0);
            rows.into_iter().map(|(_, _, is_so)| is_so).collect::<Vec<_>>()
        };
        assert_eq!(passed(10.0), [true; 3]);
        assert_eq!(passed(1_000.0), [false, true, true]);
        let none = Samples::of("seconds,phase,anon_kib\n").flat("steady", 0);
        assert!(none.iter().all(|(_, _, is_so)| !is_so), "too few samples");
    }
}
