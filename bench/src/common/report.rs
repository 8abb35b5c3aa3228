//! What is printed while measuring, targets, and numbers as they are written down.

use std::fmt::Display;
use std::io::Write as _;
use std::ops::{Bound, RangeBounds};
use std::time::Duration;

use crate::numbers::{self, Number};
use crate::record::{Head, ShapeFacts, Spread, Target};
use crate::table::Table;

/// Prints to standard output at once, and keeps what was printed for the record.
#[derive(Default)]
pub(crate) struct Printed(String);

impl Printed {
    pub(crate) fn say(&mut self, text: impl Display) {
        let text = format!("{text}\n");
        let mut out = std::io::stdout().lock();
        // A reader who goes away is no reason to lose what the record will hold.
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        self.0.push_str(&text);
    }

    pub(crate) fn numbers(&mut self, numbers: &[Number]) {
        self.say(format_args!("\n{}", numbers::table(numbers).text().trim_end()));
    }

    pub(crate) fn text(&self) -> &str {
        &self.0
    }
}

/// Where and when a record was measured.
pub(crate) fn origin(head: &Head) -> String {
    let known = |text: &Option<String>| text.clone().unwrap_or("unknown".into());
    let machine = &head.machine;
    format!(
        "{}, {} of {} processors, load {}; commit {}, {}",
        known(&machine.cpu),
        machine.cpus,
        machine.logical_cpus,
        known(&machine.load),
        known(&head.commit),
        known(&head.date),
    )
}

/// The same, and what an engine reads.
pub(crate) fn heading(head: &Head, shape: &ShapeFacts) -> String {
    format!(
        "{}\n{} x {} matrix, {} packs of {} rows: {:.1} MB",
        origin(head),
        shape.packs * shape.pack_rows,
        shape.columns,
        shape.packs,
        shape.pack_rows,
        shape.scan_bytes() as f64 / 1e6
    )
}

/// What is wanted is `least..` or `..=most`.
pub(crate) fn target(
    what: &str,
    wanted: impl RangeBounds<f64>,
    measured: Option<f64>,
    median: Option<f64>,
) -> Target {
    let met = measured.map(|measured| wanted.contains(&measured));
    let wanted = match (wanted.start_bound(), wanted.end_bound()) {
        (Bound::Included(least), _) => format!("at least {least}"),
        (_, Bound::Included(most)) => format!("at most {most}"),
        _ => "anything".into(),
    };
    let measured = measured.map(rounded);
    Target { what: what.into(), wanted, measured, median: median.map(rounded), met }
}

/// All of them, below a heading that says for which machine they are.
pub(crate) fn targets_text(heading: &str, targets: &[Target]) -> String {
    format!("\n{heading}\n{}", targets_table(targets).text())
}

/// What was wanted and what was found; the best of the run decides, the median stands beside.
pub(crate) fn targets_table(targets: &[Target]) -> Table {
    let mut table = Table::new(["target", "wanted", "best", "median", ""]);
    for Target { what, wanted, measured, median, met } in targets {
        let verdict = match met {
            Some(true) => "met",
            Some(false) => "NOT MET",
            None => "not measured",
        };
        let [best, median] =
            [measured, median].map(|number| number.map_or("-".into(), numbers::digits));
        table.row([what.clone(), wanted.clone(), best, median, verdict.into()]);
    }
    table
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

/// Numbers, each rounded; nothing of none.
pub(crate) fn spread(all: impl Iterator<Item = f64>) -> Option<Spread> {
    let Spread { best, q1, median, q3, runs } = Spread::of(all)?;
    let [best, q1, median, q3] = [best, q1, median, q3].map(rounded);
    Some(Spread { best, q1, median, q3, runs })
}
