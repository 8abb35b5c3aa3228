//! `sotto-bench compare`: two records of one kind side by side, and what of it is more than noise.
//!
//! A number is judged by its median, or by its mean over windows. It is better or worse when it
//! changed by more than the tolerance and by more than the noise of both, when its best run changed
//! the same way, and when what no program can beat (its floor, measured in the same minutes) did
//! not change as much. It is the same when both change and noise are within the tolerance, and
//! unclear otherwise. [`crate::numbers`] lists what a record of each kind measured.

use crate::found::Record;
use crate::numbers::{self, Number, Sense};
use crate::table::Table;
use crate::units::number;

/// Change that is taken for none, unless told otherwise.
pub(crate) const TOLERANCE: f64 = 0.03;
/// What was measured once tells nothing of its noise: so much is allowed it.
const ONCE: f64 = 0.25;

/// How two records are compared.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CompareOptions {
    /// Change, as a share, that does not matter.
    pub(crate) tolerance: f64,
    /// Whether machine, shape and how it was measured may differ.
    pub(crate) across: bool,
}

/// Two records of one kind.
#[derive(Debug)]
pub(crate) struct Comparison {
    /// What else differs, or is to be known.
    notes: Vec<String>,
    rows: Vec<Row>,
    only_before: Vec<String>,
    only_after: Vec<String>,
}

/// A number of both records; changes are shares of what was before.
#[derive(Debug)]
struct Row {
    what: String,
    unit: &'static str,
    before: f64,
    after: f64,
    change: f64,
    best: Option<f64>,
    floor: Option<f64>,
    /// Change that noise explains; none where it is unknown.
    noise: Option<f64>,
    /// None of what is no better for being more or less.
    verdict: Option<Verdict>,
    note: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Better,
    Same,
    Worse,
    Unclear,
}

/// Compares what two records say.
///
/// # Errors
/// They are of different kinds, were measured under different conditions, or share no number.
pub(crate) fn compare(
    before: &Record,
    after: &Record,
    options: CompareOptions,
) -> Result<Comparison, String> {
    let (old, new) = (before.head(), after.head());
    if old.schema != new.schema {
        let (old, new) = (&old.schema, &new.schema);
        return Err(format!("found a record of {old} and one of {new}, expected two of one kind"));
    }
    let mut notes = Vec::new();
    let conditions = numbers::conditions(before).into_iter().zip(numbers::conditions(after));
    for ((what, before), (_, after)) in conditions.filter(|(old, new)| old != new) {
        if !options.across {
            return Err(format!(
                "{what}: found {before} and {after}, expected the same; --across compares all the \
                 same"
            ));
        }
        notes.push(format!("not the same {what}: {before} and {after}"));
    }
    for (record, which) in [(before, "before"), (after, "after")] {
        notes.extend(numbers::doubts(record).into_iter().map(|doubt| format!("{which}: {doubt}")));
    }
    let (mut rows, mut only_before, mut new) = (Vec::new(), Vec::new(), numbers::of(after));
    for number in numbers::of(before) {
        match new.iter().position(|other| other.what == number.what) {
            Some(place) => rows.push(Row::of(number, new.remove(place), options.tolerance)),
            None => only_before.push(number.what),
        }
    }
    if rows.is_empty() {
        let help = "expected some: measure with the same options";
        return Err(format!("found no number that both records have, {help}"));
    }
    let only_after = new.into_iter().map(|number| number.what).collect();
    Ok(Comparison { notes, rows, only_before, only_after })
}

impl Row {
    fn of(before: Number, after: Number, tolerance: f64) -> Self {
        let noise =
            before.noise.zip(after.noise).map(|(old, new)| (old + new) / before.value.abs());
        let mut row = Self {
            change: change(before.value, after.value),
            best: before.best.zip(after.best).map(|(old, new)| change(old, new)),
            floor: before.floor.zip(after.floor).map(|(old, new)| change(old, new)),
            noise: noise.filter(|noise| noise.is_finite()),
            what: before.what,
            unit: before.unit,
            before: before.value,
            after: after.value,
            verdict: None,
            note: "",
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

    /// `sense` is 1 where less is better, -1 where more is.
    fn judge(&self, sense: f64, tolerance: f64) -> (Verdict, &'static str) {
        let worse = sense * self.change;
        let size = worse.abs();
        let noise = self.noise.unwrap_or(ONCE);
        if size <= noise.max(tolerance) {
            return match (size <= tolerance, self.noise) {
                (true, Some(noise)) if noise > tolerance => {
                    (Verdict::Unclear, " (noise hides what would matter)")
                }
                (true, _) => (Verdict::Same, ""),
                (false, None) => (Verdict::Unclear, " (measured once)"),
                (false, Some(_)) => (Verdict::Unclear, " (within the noise)"),
            };
        }
        // In the direction of the change.
        let along = |share: f64| sense * share * worse.signum();
        if self.best.is_some_and(|best| along(best) <= tolerance) {
            return (Verdict::Unclear, " (the best run did not change with it)");
        }
        if self.floor.is_some_and(|floor| size - along(floor) <= tolerance) {
            return (Verdict::Unclear, " (its floor changed as much: the machine's doing)");
        }
        (if worse > 0.0 { Verdict::Worse } else { Verdict::Better }, "")
    }
}

fn change(before: f64, after: f64) -> f64 {
    if before == after { 0.0 } else { (after - before) / before.abs() }
}

impl Comparison {
    pub(crate) fn count(&self, verdict: Verdict) -> usize {
        self.rows.iter().filter(|row| row.verdict == Some(verdict)).count()
    }

    /// For people, a row a line; `changed_only` leaves out what is the same or only context.
    pub(crate) fn table(&self, changed_only: bool) -> String {
        let mut text: String = self.notes.iter().map(|note| format!("note: {note}\n")).collect();
        let shown = |row: &&Row| !matches!(row.verdict, None | Some(Verdict::Same));
        let mut table = Table::new([
            "", "before", "after", "unit", "change", "noise", "best", "floor", "verdict",
        ]);
        let percent = |share: f64| format!("{:+.1}%", share * 1e2);
        let share = |share: Option<f64>| share.map_or("-".into(), percent);
        for row in self.rows.iter().filter(|row| !changed_only || shown(row)) {
            let verdict = row.verdict.map_or("-", Verdict::name);
            table.row([
                row.what.clone(),
                number(row.before),
                number(row.after),
                row.unit.into(),
                percent(row.change),
                row.noise.map_or("?".into(), |noise| format!("{:.1}%", noise * 1e2)),
                share(row.best),
                share(row.floor),
                format!("{verdict}{}", row.note),
            ]);
        }
        if !table.is_empty() {
            text += &table.text();
        }
        for (names, which) in [(&self.only_before, "before"), (&self.only_after, "after")] {
            if !names.is_empty() {
                text += &format!("only {which}: {}\n", names.join("; "));
            }
        }
        let all = [Verdict::Better, Verdict::Same, Verdict::Worse, Verdict::Unclear];
        let counts = all.map(|verdict| format!("{} {}", self.count(verdict), verdict.name()));
        text + &counts.join(", ") + "\n"
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

#[cfg(test)]
mod tests;
