//! A plan for a terminal: a table of shapes, then figures with their formulas; below, in a list
//! each, what they come from and why some are extrapolated.

use std::fmt::Write as _;
use std::mem::take;

use super::figure::Figure;
use super::outcome::{GpuPlan, HostPlan, PacksPlan, Plan, ShapePlan};
use crate::table::Table;
use crate::units::number;

/// What is written, and the notes that it refers to.
#[derive(Default)]
struct Page {
    text: String,
    sources: Vec<String>,
    guesses: Vec<String>,
}

impl Plan {
    /// The plan as text: the shapes side by side, then the figures of all or of the first.
    pub fn text(&self, all: bool) -> String {
        let mut page = Page::default();
        page.line(format!("{}: {}\n", self.scenario.name, self.scenario.about));
        page.figures("asked for", &self.demand.iter().collect::<Vec<_>>());
        page.line(self.table());
        page.line("Smaller shards cost less, and are a smaller crowd for a look-up to hide in.\n");
        let count = if all { self.shapes.len() } else { 1 };
        self.shapes.iter().take(count).for_each(|shape| page.shape(shape));
        if count < self.shapes.len() {
            page.line(
                "These are the figures of the shape that the scenario names first; --all has every \
                 shape's.\n",
            );
        }
        for shape in self.by_size() {
            if let GpuPlan::NotMeasured { why } = &shape.gpu {
                page.line(format!("! {} records a shard, with GPUs: {why}", records(shape)));
            }
            for warning in &shape.warnings {
                page.line(format!("! {} records a shard: {warning}", records(shape)));
            }
        }
        self.warnings.iter().for_each(|warning| page.line(format!("! {warning}")));
        page.line(format!("! prices in {}: {}\n", self.prices.currency, self.prices.about));
        let (sources, guesses) = (take(&mut page.sources), take(&mut page.guesses));
        page.notes("from", "", &sources);
        page.notes("~ extrapolated: no measurement says it", "~", &guesses);
        page.line("records");
        for used in &self.records {
            let date = used.date.as_deref().unwrap_or("undated");
            let commit = used.commit.as_deref().unwrap_or("unknown");
            let (path, kind, machine) = (&used.path, &used.kind, &used.machine);
            page.line(format!("  {path}: {kind}, {machine}, {date}, commit {commit}"));
        }
        page.text
    }

    fn table(&self) -> String {
        let mut table = Table::new([
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
        ]);
        for shape in self.by_size() {
            let bytes = shape.shape.scan_bytes() as f64;
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

/// What stands above the table of [`packs_table`].
pub(crate) const PACKS_NOTE: &str = "a look-up by the number of packs, * as planned: through a \
     front-end a device gets one pack of the answer with its hint, and hides from it among the \
     records of the pack";

/// Numbers of packs side by side.
pub(crate) fn packs_table(shape: &ShapePlan) -> Table {
    let longest = shape.packs.iter().max_by_key(|plan| plan.figures.len());
    let figures = longest.into_iter().flat_map(|plan| &plan.figures);
    let names = figures.map(|figure| figure.name.clone());
    let mut table = Table { rows: vec![["packs".to_owned()].into_iter().chain(names).collect()] };
    for PacksPlan { shape: other, figures } in &shape.packs {
        let planned = if other.packs == shape.shape.packs { "*" } else { "" };
        let cells = figures.iter().map(|figure| format!("{}{}", mark(figure), figure.in_words()));
        table.row([format!("{}{planned}", other.packs)].into_iter().chain(cells));
    }
    table
}

fn mark(figure: &Figure) -> &'static str {
    if figure.extrapolated.is_some() { "~" } else { "" }
}

fn cells(kind: &str, plan: &HostPlan) -> Vec<String> {
    let marked = |figure: &Figure| format!("{}{}", mark(figure), number(figure.value));
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

fn note(notes: &mut Vec<String>, text: &str) -> usize {
    let at = notes.iter().position(|note| note == text).unwrap_or_else(|| {
        notes.push(text.into());
        notes.len() - 1
    });
    at + 1
}

impl Page {
    fn line(&mut self, text: impl AsRef<str>) {
        self.text += text.as_ref();
        self.text.push('\n');
    }

    fn shape(&mut self, shape: &ShapePlan) {
        let records = records(shape);
        let count = number(shape.shards as f64);
        self.line(format!("== {records} records a shard: {count} shards\n"));
        self.line(format!("{PACKS_NOTE}\n\n{}", packs_table(shape).text()));
        for (title, figures) in shape.groups() {
            self.figures(&title, &figures);
        }
    }

    fn figures(&mut self, title: &str, figures: &[&Figure]) {
        let mut table = Table::new(["", "", ""]);
        for figure in figures {
            let sources = figure.sources.iter();
            let sources: Vec<String> =
                sources.map(|source| note(&mut self.sources, source).to_string()).collect();
            let mut how = format!("= {} [{}]", figure.formula, sources.join(" "));
            for why in figure.extrapolated.iter().flat_map(|why| why.split("; ")) {
                let _ = write!(how, " ~{}", note(&mut self.guesses, why));
            }
            let value = format!("{}{}", mark(figure), figure.in_words());
            table.row([format!("  {}", figure.name), value, how]);
        }
        self.line(format!("{title}{}", table.text()));
    }

    fn notes(&mut self, title: &str, mark: &str, notes: &[String]) {
        self.line(title);
        for (at, text) in notes.iter().enumerate() {
            self.line(format!("  {mark}{}  {text}", at + 1));
        }
        self.text.push('\n');
    }
}
