//! What every report begins with, targets, and numbers as they are written down.

use std::ops::{Bound, RangeBounds};
use std::time::Duration;

use serde::Serialize;
use sotto::params::Shape;

use super::machine::{Machine, commit, said};

/// What is run, and where: known before.
#[derive(Serialize)]
pub(crate) struct Head {
    command: String,
    effort: &'static str,
    commit: Option<String>,
    date: Option<String>,
    machine: Machine,
    shard: Shard,
}

#[derive(Serialize)]
struct Shard {
    rows: usize,
    columns: usize,
    packs: usize,
    pack_rows: usize,
    matrix_bytes: usize,
    tables_bytes: usize,
}

impl Head {
    /// Of one of the benchmarks, pinned to so many cores or to none.
    pub(crate) fn new(
        bench: &str,
        effort: &'static str,
        arguments: &[String],
        shape: &Shape,
        cores: &[usize],
    ) -> Self {
        Self {
            command: format!("cargo bench --bench {bench} -- {}", arguments.join(" ")),
            effort,
            commit: commit(),
            date: said("date", &["-u", "+%FT%TZ"]),
            machine: Machine::new(cores),
            shard: Shard {
                rows: shape.rows(),
                columns: shape.columns(),
                packs: shape.packs(),
                pack_rows: shape.pack_rows(),
                matrix_bytes: shape.matrix_bytes(),
                tables_bytes: shape.packs() * shape.table_bytes(),
            },
        }
    }

    /// Bytes of a shard that every pass reads.
    pub(crate) fn shard_bytes(&self) -> f64 {
        (self.shard.matrix_bytes + self.shard.tables_bytes) as f64
    }

    pub(crate) fn print(&self) {
        let or_unknown = |text: &Option<String>| text.clone().unwrap_or("unknown".into());
        println!(
            "commit {}, {}, {}, pinned to {:?}, load {}",
            or_unknown(&self.commit),
            or_unknown(&self.date),
            self.machine.cpu,
            self.machine.pinned_to,
            self.machine.load
        );
        let Shard { rows, columns, packs, pack_rows, .. } = self.shard;
        println!(
            "{rows} x {columns} matrix, {packs} packs of {pack_rows} rows: {:.1} MB",
            self.shard_bytes() / 1e6
        );
    }
}

/// A number that an issue asks for, and what was found.
#[derive(Serialize)]
pub(crate) struct Target {
    what: &'static str,
    wanted: String,
    /// The best of the run, which decides.
    measured: Option<f64>,
    /// The same of the medians, for whole answers.
    median: Option<f64>,
    met: Option<bool>,
}

impl Target {
    /// Wanted is `least..` or `..=most`.
    pub(crate) fn new(
        what: &'static str,
        wanted: impl RangeBounds<f64>,
        measured: Option<f64>,
    ) -> Self {
        let met = measured.map(|measured| wanted.contains(&measured));
        let wanted = match (wanted.start_bound(), wanted.end_bound()) {
            (Bound::Included(least), _) => format!("at least {least}"),
            (_, Bound::Included(most)) => format!("at most {most}"),
            _ => "anything".into(),
        };
        Self { what, wanted, measured, median: None, met }
    }

    pub(crate) fn with_median(self, median: Option<f64>) -> Self {
        Self { median: median.map(rounded), ..self }
    }

    /// All of them, below a heading that says for which machine they are.
    pub(crate) fn print_all(heading: &str, targets: &[Self]) {
        println!("\n{heading:45}    wanted       best  median");
        for Self { what, wanted, measured, median, met } in targets {
            let verdict = match met {
                Some(true) => "met",
                Some(false) => "NOT MET",
                None => "not measured",
            };
            let (best, median) = (digits(*measured, 2), digits(*median, 2));
            println!("{what:42} {wanted:>13}   {best:>8}  {median:>6}   {verdict}");
        }
    }
}

pub(crate) fn rounded(number: f64) -> f64 {
    (number * 1e4).round() / 1e4
}

pub(crate) fn ms(time: Duration) -> f64 {
    rounded(time.as_secs_f64() * 1e3)
}

pub(crate) fn median<T: Ord + Copy>(all: impl Iterator<Item = T>) -> Option<T> {
    let mut all: Vec<_> = all.collect();
    all.sort();
    all.get(all.len() / 2).copied()
}

/// A number to so many digits, or a dash.
pub(crate) fn digits(number: Option<f64>, digits: usize) -> String {
    number.map_or("-".into(), |number| format!("{number:.digits$}"))
}

pub(crate) fn percent(share: Option<f64>) -> String {
    share.map_or("-".into(), |share| format!("{:.0}%", share * 100.0))
}
