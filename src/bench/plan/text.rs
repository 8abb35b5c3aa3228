//! A plan for a terminal: a table of shapes, then figures with their formulas.

use std::fmt::Write as _;

use super::basis::number;
use super::{Figure, GpuPlan, HostPlan, Plan, ShapePlan};

impl Plan {
    /// The plan as text: all shapes side by side, then every figure of those asked for (`every`), or
    /// of the cheapest one.
    pub fn text(&self, every: bool) -> String {
        let mut out = String::new();
        let scenario = &self.scenario;
        let _ = writeln!(out, "{}: {}\n", scenario.name, scenario.about);
        figures(&mut out, "asked for", &self.demand);
        let _ = writeln!(out, "{}", self.table());
        let cheapest = self.cheapest();
        for (at, shape) in self.shapes.iter().enumerate() {
            if every || at == cheapest {
                out.push_str(&shape.text());
            }
            for warning in &shape.warnings {
                let _ = writeln!(out, "! {} records a shard: {warning}", records(shape));
            }
        }
        for warning in &self.warnings {
            let _ = writeln!(out, "! {warning}");
        }
        if !every && self.shapes.len() > 1 {
            let _ = writeln!(
                out,
                "The figures are those of the cheapest shape without GPUs; --all has every shape's."
            );
        }
        let _ = writeln!(
            out,
            "~ marks what is extrapolated: no measurement says it. Prices: {} ({}).\n\nrecords",
            self.prices.about, self.prices.currency
        );
        for used in &self.records {
            let _ = writeln!(
                out,
                "  {}: {}, {}, {}, commit {}",
                used.path,
                used.kind,
                used.machine,
                used.date.as_deref().unwrap_or("undated"),
                used.commit.as_deref().unwrap_or("unknown")
            );
        }
        out
    }

    /// The shape whose hosts without GPUs cost least.
    pub fn cheapest(&self) -> usize {
        let cost = |at: &usize| self.shapes[*at].cpu.cost_month.value;
        (0..self.shapes.len()).min_by(|a, b| cost(a).total_cmp(&cost(b))).unwrap_or(0)
    }

    fn table(&self) -> String {
        let mut rows: Vec<Vec<String>> = vec![
            ["records a shard", "shards", "MB a shard", "", "hosts", "units", "binds", "batch",
             "a host, 1/s", "a month", "a million"].map(String::from).to_vec(),
        ];
        for shape in &self.shapes {
            let bytes = (shape.shape.matrix_bytes + shape.shape.tables_bytes) as f64;
            let about =
                [records(shape), number(shape.shards as f64), number((bytes / 1e6).round())];
            let row = |about: [String; 3], cells: Vec<String>| about.into_iter().chain(cells).collect();
            rows.push(row(about, cells("CPU", &shape.cpu)));
            let blank = || ["", "", ""].map(String::from);
            rows.push(row(blank(), match &shape.gpu {
                GpuPlan::Measured(plan) => cells("GPU", plan),
                GpuPlan::NotMeasured { .. } => {
                    let mut cells = vec!["GPU".to_owned(), "not measured".into()];
                    cells.resize(8, String::new());
                    cells
                }
            }));
        }
        let mut out = String::new();
        let widths: Vec<usize> = (0..rows[0].len())
            .map(|at| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0))
            .collect();
        for row in rows {
            let cells: Vec<String> =
                row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:>width$}")).collect();
            let _ = writeln!(out, "{}", cells.join("  ").trim_end());
        }
        out
    }
}

fn records(shape: &ShapePlan) -> String {
    number(shape.shape.records_per_shard as f64)
}

fn cells(kind: &str, plan: &HostPlan) -> Vec<String> {
    let figure = |figure: &Figure| {
        let mark = if figure.extrapolated.is_some() { "~" } else { "" };
        format!("{mark}{}", number(figure.value))
    };
    vec![
        kind.to_owned(),
        figure(&plan.hosts),
        format!("{} {}", number(plan.units.value), plan.units.name),
        plan.binds.name().to_owned(),
        figure(&plan.batch),
        figure(&plan.capacity),
        figure(&plan.cost_month),
        figure(&plan.cost_million),
    ]
}

impl ShapePlan {
    fn text(&self) -> String {
        let mut out = String::new();
        let _ = writeln!(
            out,
            "== {} records a shard: {} shards, {} packs of {} rows, {} columns\n",
            records(self),
            number(self.shards as f64),
            self.shape.packs,
            self.shape.pack_rows,
            self.shape.columns
        );
        figures(&mut out, "a device", &self.device);
        figures(&mut out, "the provider", &self.provider);
        hosts(&mut out, &self.cpu);
        match &self.gpu {
            GpuPlan::Measured(plan) => hosts(&mut out, plan),
            GpuPlan::NotMeasured { why, figures: known } => {
                figures(&mut out, &format!("hosts with GPUs: {why}"), known);
            }
        }
        out
    }
}

fn hosts(out: &mut String, plan: &HostPlan) {
    let needs: Vec<Figure> = plan.needs.iter().map(|need| need.hosts.clone()).collect();
    let main = [&plan.hosts, &plan.units, &plan.capacity, &plan.batch].map(Clone::clone);
    figures(out, &format!("hosts: {}; {} binds", plan.host, plan.binds.name()), &main);
    figures(out, "hosts that each resource takes", &needs);
    figures(out, "costs", &plan.costs);
    figures(out, "costs in all", &[plan.cost_month.clone(), plan.cost_million.clone()]);
    figures(out, "more", &plan.figures);
}

fn figures(out: &mut String, title: &str, figures: &[Figure]) {
    let _ = writeln!(out, "{title}");
    let width = figures.iter().map(|figure| figure.name.chars().count()).max().unwrap_or(0);
    for Figure { name, value, unit, formula, sources, extrapolated } in figures {
        let mark = if extrapolated.is_some() { "~" } else { " " };
        let _ = writeln!(out, "  {name:width$} {mark} {} {unit}", number(*value));
        let _ = writeln!(out, "      = {formula}");
        let _ = writeln!(out, "      from {}", sources.join("; "));
        if let Some(why) = extrapolated {
            let _ = writeln!(out, "      ~ {why}");
        }
    }
    out.push('\n');
}
