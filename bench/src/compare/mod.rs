//! `sotto-bench compare`: two records of one kind side by side, and what of it is more than noise.
//!
//! A number is judged by its median, or by its mean over windows. It is better or worse when it
//! changed by more than the tolerance and by more than noise explains, when its best run changed
//! the same way, and when what no program can beat (its floor, measured in the same minutes) did
//! not change as much. It is the same when both change and noise are within the tolerance, and
//! unclear otherwise. Noise is that of 95% confidence for all numbers that are judged together
//! (Bonferroni: the more there are, the more each is allowed), so that a gate over two hundred
//! numbers is not red by chance every day.
//!
//! What it deliberately does not do: average over records, or know how a machine differs from day
//! to day beyond what the floors tell. Read next: [`crate::numbers`], what a record of each kind
//! measured.

use crate::found::Record;
use crate::numbers::{self, Noise, Number, Sense, digits};
use crate::record::Head;
use crate::table::Table;

/// Change that is taken for none, unless told otherwise.
pub const TOLERANCE: f64 = 0.03;
/// What was measured once tells nothing of its noise: so much is allowed it.
pub const ONCE: f64 = 0.25;

/// How two records are compared.
#[derive(Debug, Clone, Copy)]
pub struct CompareOptions {
    /// Change, as a share, that does not matter.
    pub tolerance: f64,
    /// Whether machine, shape and how it was measured may differ.
    pub across: bool,
}

/// Two records of one kind.
#[derive(Debug)]
pub struct Comparison {
    /// What else differs, or is to be known.
    pub notes: Vec<String>,
    /// What both measured, in the order of the first.
    pub rows: Vec<Row>,
    /// What only the first has.
    pub only_before: Vec<String>,
    /// What only the second has.
    pub only_after: Vec<String>,
}

/// A number of both records.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Which.
    pub what: String,
    /// Of both values.
    pub unit: &'static str,
    /// In the first record: the median, or the mean over windows.
    pub before: f64,
    /// In the second.
    pub after: f64,
    /// The best of the runs changed by this share, where there were several.
    pub best: Option<f64>,
    /// Change that noise explains, as a share of the value before; none where it is unknown.
    pub noise: Option<f64>,
    /// Its floor changed by this share.
    pub floor: Option<f64>,
    /// None of what is no better for being more or less.
    pub verdict: Option<Verdict>,
    /// Why that, where it is not plain.
    pub note: Option<&'static str>,
}

/// What a change is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// For the better.
    Better,
    /// None that matters.
    Same,
    /// For the worse.
    Worse,
    /// It cannot be told.
    Unclear,
}

/// Why two records cannot be compared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the messages say it")]
pub enum CompareError {
    #[error("found a record of {before} and one of {after}, expected two of one kind")]
    Kind { before: String, after: String },
    #[error(
        "{what}: found {before} and {after}, expected the same; --across compares all the same"
    )]
    Differs { what: &'static str, before: String, after: String },
    #[error("found no number that both records have, expected some: measure with the same options")]
    Nothing,
}

/// Compares what two records say.
pub fn compare(
    before: &Record,
    after: &Record,
    options: CompareOptions,
) -> Result<Comparison, CompareError> {
    let (old, new) = (before.head(), after.head());
    if old.schema != new.schema {
        let (before, after) = (old.schema.clone(), new.schema.clone());
        return Err(CompareError::Kind { before, after });
    }
    let mut notes = Vec::new();
    let conditions = numbers::conditions(before).into_iter().zip(numbers::conditions(after));
    for ((what, before), (_, after)) in conditions.filter(|(old, new)| old != new) {
        if !options.across {
            return Err(CompareError::Differs { what, before, after });
        }
        notes.push(format!("not the same {what}: {before} and {after}"));
    }
    notes.extend(differences(old, new));
    notes.extend([(before, "before"), (after, "after")].into_iter().flat_map(|(record, which)| {
        numbers::doubts(record).into_iter().map(move |doubt| format!("{which}: {doubt}"))
    }));
    let (old, mut new) = (numbers::of(before), numbers::of(after));
    let mut pairs = Vec::new();
    let mut only_before = Vec::new();
    for number in old {
        match new.iter().position(|other| other.what == number.what) {
            Some(place) => pairs.push((number, new.remove(place))),
            None => only_before.push(number.what),
        }
    }
    if pairs.is_empty() {
        return Err(CompareError::Nothing);
    }
    let by_chance = |(old, _): &&(Number, Number)| {
        let is_known = matches!(old.noise, Noise::Notch(_) | Noise::Interval(_));
        is_known && old.sense != Sense::Context
    };
    let wider = widening(pairs.iter().filter(by_chance).count());
    let rows = pairs.iter().map(|(old, new)| Row::of(old, new, options.tolerance, wider)).collect();
    let only_after = new.into_iter().map(|number| number.what).collect();
    Ok(Comparison { notes, rows, only_before, only_after })
}

/// What differs between two runs and may explain a change.
fn differences(before: &Head, after: &Head) -> Vec<String> {
    let mut found = Vec::new();
    let mut differs = |what: &str, before: &Option<String>, after: &Option<String>| {
        if before != after {
            let said = |text: &Option<String>| text.as_deref().unwrap_or("unknown").to_owned();
            found.push(format!("{what}: {}, then {}", said(before), said(after)));
        }
    };
    differs("system", &before.machine.kernel, &after.machine.kernel);
    let memory = |head: &Head| head.machine.memory_bytes.map(|b| format!("{} MiB", b >> 20));
    differs("memory", &memory(before), &memory(after));
    for (head, which) in [(before, "before"), (after, "after")] {
        let load = head.machine.load.as_deref().and_then(|load| load.split(' ').next());
        let load: Option<f64> = load.and_then(|load| load.parse().ok());
        if let Some(load) = load.filter(|&load| load > 0.5) {
            found.push(format!("{which}: {load} others ran in the minute before it began"));
        }
    }
    found
}

impl Row {
    fn of(before: &Number, after: &Number, tolerance: f64, wider: f64) -> Self {
        let best = before.best.zip(after.best).map(|(before, after)| change(before, after));
        let noise = both(before, after, wider).map(|noise| noise / before.value.abs());
        let floor = before.floor.zip(after.floor).map(|(before, after)| change(before, after));
        let mut row = Self {
            what: before.what.clone(),
            unit: before.unit,
            before: before.value,
            after: after.value,
            best,
            noise: noise.filter(|noise| noise.is_finite()),
            floor,
            verdict: None,
            note: None,
        };
        let sense = match before.sense {
            Sense::Context => return row,
            Sense::LessIsBetter => 1.0,
            Sense::MoreIsBetter => -1.0,
        };
        let (verdict, note) = row.judge(sense, tolerance);
        (row.verdict, row.note) = (Some(verdict), note);
        row
    }

    /// The value changed by this share.
    pub fn change(&self) -> f64 {
        change(self.before, self.after)
    }

    /// `sense` is 1 where less is better, -1 where more is.
    fn judge(&self, sense: f64, tolerance: f64) -> (Verdict, Option<&'static str>) {
        let worse = sense * self.change();
        let size = worse.abs();
        let noise = self.noise.unwrap_or(ONCE);
        if size <= noise.max(tolerance) {
            return match (size <= tolerance, self.noise) {
                (true, Some(noise)) if noise > tolerance => {
                    (Verdict::Unclear, Some("noise hides what would matter"))
                }
                (true, _) => (Verdict::Same, None),
                (false, None) => (Verdict::Unclear, Some("measured once")),
                (false, Some(_)) => (Verdict::Unclear, Some("within the noise")),
            };
        }
        // In the direction of the change.
        let along = |share: f64| sense * share * worse.signum();
        if self.best.is_some_and(|best| along(best) <= tolerance) {
            return (Verdict::Unclear, Some("the best run did not change with it"));
        }
        if self.floor.is_some_and(|floor| size - along(floor) <= tolerance) {
            return (Verdict::Unclear, Some("its floor changed as much: the machine's doing"));
        }
        (if worse > 0.0 { Verdict::Worse } else { Verdict::Better }, None)
    }
}

/// By which share; none of nothing is no change.
fn change(before: f64, after: f64) -> f64 {
    if before == after { 0.0 } else { (after - before) / before.abs() }
}

/// Half of the interval that the difference of two lies in by chance, in their unit.
fn both(before: &Number, after: &Number, wider: f64) -> Option<f64> {
    match (before.noise, after.noise) {
        (Noise::Exact, Noise::Exact) => Some(0.0),
        // Notches are made to be laid side by side: medians differ where they do not meet.
        (Noise::Notch(before), Noise::Notch(after)) => Some(wider * (before + after)),
        (Noise::Interval(before), Noise::Interval(after)) => Some(wider * before.hypot(after)),
        (Noise::Step(before), Noise::Step(after)) => Some(before.max(after)),
        _ => None,
    }
}

/// By how much wider an interval of 95% must be so that all of `count` hold with 95%
/// (Bonferroni's bound, quantiles of the normal distribution).
fn widening(count: usize) -> f64 {
    let quantile = |outside: f64| {
        let (mut low, mut high) = (0.0, 40.0);
        for _ in 0..60 {
            let middle: f64 = (low + high) / 2.0;
            let above = libm::erfc(middle / std::f64::consts::SQRT_2) > outside;
            *(if above { &mut low } else { &mut high }) = middle;
        }
        low
    };
    quantile(0.05 / count.max(1) as f64) / quantile(0.05)
}

impl Comparison {
    /// How many of a verdict.
    pub fn count(&self, verdict: Verdict) -> usize {
        self.rows.iter().filter(|row| row.verdict == Some(verdict)).count()
    }

    /// For people, a row a line; `changed_only` leaves out what is the same or only context.
    pub fn table(&self, changed_only: bool) -> String {
        let mut text: String = self.notes.iter().map(|note| format!("note: {note}\n")).collect();
        let shown = |row: &&Row| !matches!(row.verdict, None | Some(Verdict::Same));
        let mut table = Table::new([
            "", "before", "after", "unit", "change", "noise", "best", "floor", "verdict",
        ]);
        for row in self.rows.iter().filter(|row| !changed_only || shown(row)) {
            let share = |share: Option<f64>| share.map_or("-".into(), percent);
            let verdict = row.verdict.map_or("-", Verdict::name);
            let note = row.note.map_or(String::new(), |note| format!(" ({note})"));
            table.row([
                row.what.clone(),
                digits(row.before),
                digits(row.after),
                row.unit.into(),
                percent(row.change()),
                row.noise.map_or("?".into(), |noise| format!("{:.1}%", noise * 1e2)),
                share(row.best),
                share(row.floor),
                format!("{verdict}{note}"),
            ]);
        }
        if !table.is_empty() {
            text += &table.text();
        }
        let mut line = |line: String| text += &format!("{line}\n");
        for (names, which) in [(&self.only_before, "before"), (&self.only_after, "after")] {
            if !names.is_empty() {
                line(format!("only {which}: {}", names.join("; ")));
            }
        }
        let all = [Verdict::Better, Verdict::Same, Verdict::Worse, Verdict::Unclear];
        let counts = all.map(|verdict| format!("{} {}", self.count(verdict), verdict.name()));
        line(counts.join(", "));
        text
    }
}

impl Verdict {
    fn name(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Same => "same",
            Self::Worse => "WORSE",
            Self::Unclear => "unclear",
        }
    }
}

fn percent(share: f64) -> String {
    format!("{:+.1}%", share * 1e2)
}

#[cfg(test)]
mod tests;
