//! A plan for a terminal: a table of shapes, then figures with their formulas. What they come from,
//! and why some are extrapolated, stands below in a list each.

use std::fmt::Write as _;

use super::basis::number;
use super::{Figure, GpuPlan, Group, HostPlan, Plan, ShapePlan};
use crate::table::Table;

/// Of which shapes all figures are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// The scenario's first.
    First,
    /// All.
    Every,
}

/// What is written, and the notes that it refers to.
#[derive(Default)]
struct Page {
    text: String,
    sources: Vec<String>,
    guesses: Vec<String>,
}

impl Plan {
    /// The plan as text: all shapes side by side, then figures.
    pub fn text(&self, shown: Shown) -> String {
        let mut page = Page::default();
        page.line(&format!("{}: {}\n", self.scenario.name, self.scenario.about));
        page.figures("asked for", &self.demand.iter().collect::<Vec<_>>());
        page.line(&self.table());
        page.line("Smaller shards cost less, and are a smaller crowd for a look-up to hide in.\n");
        let count = if shown == Shown::Every { self.shapes.len() } else { 1 };
        for shape in &self.shapes[..count.min(self.shapes.len())] {
            page.shape(shape);
        }
        if count < self.shapes.len() {
            page.line(
                "These are the figures of the shape that the scenario names first; --all has every \
                 shape's.\n",
            );
        }
        for shape in self.by_size() {
            for warning in &shape.warnings {
                page.line(&format!("! {} records a shard: {warning}", records(shape)));
            }
        }
        self.warnings.iter().for_each(|warning| page.line(&format!("! {warning}")));
        page.line(&format!("! prices in {}: {}\n", self.prices.currency, self.prices.about));
        page.notes();
        page.line("records");
        for used in &self.records {
            page.line(&format!(
                "  {}: {}, {}, {}, commit {}",
                used.path,
                used.kind,
                used.machine,
                used.date.as_deref().unwrap_or("undated"),
                used.commit.as_deref().unwrap_or("unknown")
            ));
        }
        page.text
    }

    fn table(&self) -> String {
        const HEADINGS: [&str; 11] = [
            "records a shard",
            "shards",
            "MB a shard",
            "",
            "hosts",
            "units",
            "binds",
            "batch",
            "a host, a second",
            "a month",
            "a million",
        ];
        let mut table = Table::new(HEADINGS);
        for shape in self.by_size() {
            let bytes = shape.shape.pass_bytes() as f64;
            let row = [records(shape), number(shape.shards as f64), number((bytes / 1e6).round())];
            table.row(row.into_iter().chain(cells("CPU", &shape.cpu)));
            let with = match &shape.gpu {
                GpuPlan::Measured(plan) => cells("GPU", plan),
                GpuPlan::NotMeasured { .. } => vec!["GPU".into(), "not measured".into()],
            };
            table.row([const { String::new() }; 3].into_iter().chain(with));
        }
        table.text()
    }
}

fn records(shape: &ShapePlan) -> String {
    number(shape.shape.records_per_shard as f64)
}

fn marked(figure: &Figure) -> String {
    let mark = if figure.extrapolated.is_some() { "~" } else { "" };
    format!("{mark}{}", number(figure.value))
}

/// Bytes by the largest unit that they fill.
fn with_unit(figure: &Figure) -> String {
    const UNITS: [(f64, &str); 5] =
        [(1e15, "PB"), (1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "KB")];
    let of = UNITS.iter().find(|of| figure.unit == "bytes" && figure.value >= of.0);
    let (size, unit) = of.copied().unwrap_or((1.0, figure.unit_in_words()));
    let scaled = Figure { value: figure.value / size, ..figure.clone() };
    format!("{} {unit}", marked(&scaled)).trim_end().to_owned()
}

fn cells(kind: &str, plan: &HostPlan) -> Vec<String> {
    vec![
        kind.to_owned(),
        marked(&plan.hosts),
        format!("{} {}", number(plan.units.value), plan.units.name),
        plan.binds.name().to_owned(),
        marked(&plan.batch),
        marked(&plan.capacity),
        marked(&plan.cost_month),
        marked(&plan.cost_million),
    ]
}

/// The note's number, from 1 on.
fn note(notes: &mut Vec<String>, text: &str) -> usize {
    let at = notes.iter().position(|note| note == text).unwrap_or_else(|| {
        notes.push(text.into());
        notes.len() - 1
    });
    at + 1
}

impl Page {
    fn line(&mut self, text: &str) {
        self.text.push_str(text);
        self.text.push('\n');
    }

    fn shape(&mut self, shape: &ShapePlan) {
        self.line(&format!(
            "== {} records a shard: {} shards, {} packs of {} rows, {} columns\n",
            records(shape),
            number(shape.shards as f64),
            shape.shape.packs,
            shape.shape.pack_rows,
            number(shape.shape.columns.into())
        ));
        for Group { title, figures } in shape.groups() {
            self.figures(&title, &figures);
        }
    }

    fn figures(&mut self, title: &str, figures: &[&Figure]) {
        self.line(title);
        let width = figures.iter().map(|figure| figure.name.chars().count()).max().unwrap_or(0);
        for figure in figures {
            let Figure { name, formula, sources, extrapolated, .. } = figure;
            let value = with_unit(figure);
            let notes: Vec<String> =
                sources.iter().map(|source| note(&mut self.sources, source).to_string()).collect();
            let mut line =
                format!("  {name:width$}  {value:<14} = {formula} [{}]", notes.join(" "));
            for why in extrapolated.iter().flat_map(|why| why.split("; ")) {
                let _ = write!(line, " ~{}", note(&mut self.guesses, why));
            }
            self.line(&line);
        }
        self.text.push('\n');
    }

    fn notes(&mut self) {
        let notes = [
            ("from", "", std::mem::take(&mut self.sources)),
            ("~ extrapolated: no measurement says it", "~", std::mem::take(&mut self.guesses)),
        ];
        for (title, mark, list) in notes {
            self.line(title);
            for (at, text) in list.iter().enumerate() {
                self.line(&format!("  {mark}{}  {text}", at + 1));
            }
            self.text.push('\n');
        }
    }
}
