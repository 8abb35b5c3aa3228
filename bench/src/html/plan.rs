//! What a plan says: hosts, money and what binds, by shape of shards; each figure with its formula.

use maud::{Markup, html};

use super::chart::{Axis, Bars, Chart, Lines, Point, Series, Stroke, Tone};
use super::load::valid;
use super::number::Unit;
use super::page::{Headline, Page, headlines, mark, prose, shards};
use crate::found::Found;
use crate::load::Report;
use crate::plan::{Figure, GpuPlan, Group, HostPlan, Plan, Resource, ShapePlan};

pub(super) fn section(page: &mut Page, plan: &Plan, loads: &[(&Found, &Report)]) -> Markup {
    let Some(first) = plan.shapes.first() else { return html! {} };
    let money = Unit::Money(plan.prices.currency.clone());
    let charts = [cost(plan, &money), needs(plan), batches(first, loads), moved(plan)];
    html! {
        section {
            h2 { "What it takes: " (plan.scenario.name) }
            p.lead { (prose(&plan.scenario.about)) }
            article {
                h3 { (shards(first.shards, &first.shape)) }
                p.from {
                    "the shape that the scenario names first, on hosts of the kind "
                    (first.cpu.host)
                }
                (headlines(&figures(plan, &first.cpu, &money)))
                div.charts { @for chart in charts { (page.figure(chart)) } }
                (gpu(first))
                (warnings(plan.warnings.iter().chain(&first.warnings)))
                p.from { "Prices: " (prose(&plan.prices.about)) }
                (all(plan))
            }
        }
    }
}

/// With its unit.
fn show(figure: &Figure) -> String {
    match (bytes(figure), figure.unit.as_str()) {
        (Some(bytes), _) => Unit::Bytes.show(bytes),
        (None, "") => Unit::Count.show(figure.value),
        (None, "ms") => Unit::Ms.show(figure.value),
        (None, "s") => Unit::Ms.show(figure.value * 1e3),
        (None, unit) if figure.value == 1.0 && unit.len() > 3 => {
            format!("1 {}", unit.strip_suffix('s').unwrap_or(unit))
        }
        (None, _) => format!("{} {}", Unit::Count.show(figure.value), figure.unit_in_words()),
    }
}

/// Of a figure of bytes.
fn bytes(figure: &Figure) -> Option<f64> {
    (figure.unit == "bytes").then_some(figure.value)
}

fn headline(figure: &Figure, value: String, what: impl Into<String>) -> Headline {
    Headline { value, what: what.into(), guess: figure.extrapolated.clone() }
}

fn figures(plan: &Plan, host: &HostPlan, money: &Unit) -> Vec<Headline> {
    let count = |figure: &Figure| Unit::Count.show(figure.value);
    let hosts = if host.hosts.value == 1.0 { "host" } else { "hosts" };
    // The peak stands last.
    let peak = plan.demand.last().map(|peak| headline(peak, count(peak), peak.name.as_str()));
    let rest = [
        headline(
            &host.hosts,
            count(&host.hosts),
            format!(
                "{hosts}, {} {}{}; bound by {}",
                count(&host.units),
                host.units.name,
                reserve(host),
                host.binds.name()
            ),
        ),
        headline(&host.cost_million, money.show(host.cost_million.value), "for a million look-ups"),
        headline(&host.cost_month, money.show(host.cost_month.value), "a month"),
    ];
    peak.into_iter().chain(rest).collect()
}

/// How many of the hosts are in reserve, where any are.
fn reserve(host: &HostPlan) -> String {
    match host.reserve {
        0 => String::new(),
        1 => ", 1 host of them in reserve".into(),
        count => format!(", {count} hosts of them in reserve"),
    }
}

/// A shape among the others of its plan.
fn name(shape: &ShapePlan) -> String {
    format!("{} records a shard", Unit::Count.show(shape.shape.records_per_shard as f64))
}

/// Plans of hosts, with the names of their rows.
fn hosts(plan: &Plan) -> Vec<(String, &HostPlan)> {
    let mut hosts = Vec::new();
    for shape in plan.by_size() {
        hosts.push((name(shape), &shape.cpu));
        if let GpuPlan::Measured(host) = &shape.gpu {
            hosts.push((format!("{}, GPUs", name(shape)), &**host));
        }
    }
    hosts
}

fn cost(plan: &Plan, money: &Unit) -> Chart {
    let hosts = hosts(plan);
    let mut parts: Vec<&str> = Vec::new();
    for figure in hosts.iter().flat_map(|(_, host)| &host.costs) {
        if !parts.contains(&figure.name.as_str()) {
            parts.push(&figure.name);
        }
    }
    let row = |(name, host): &(String, &HostPlan)| {
        let month = host.cost_month.value;
        // Of a month's cost, to a million look-ups' part of it.
        let scale = if month > 0.0 { host.cost_million.value / month } else { 0.0 };
        let of = |part: &&str| {
            let found = host.costs.iter().filter(|figure| figure.name == **part);
            found.map(|figure| figure.value * scale).sum()
        };
        (name.clone(), parts.iter().map(of).collect())
    };
    let rows = hosts.iter().map(row).collect();
    let parts = toned(parts.iter().copied());
    let note = "smaller shards hide a look-up in a smaller crowd";
    let x = ("for a million look-ups", money.clone());
    Chart::Bars(Bars::stacked("Cost by shape", note, x, parts, rows))
}

fn needs(plan: &Plan) -> Chart {
    let hosts = hosts(plan);
    let mut resources: Vec<Resource> =
        hosts.iter().flat_map(|(_, host)| host.needs.iter().map(|need| need.resource)).collect();
    resources.sort();
    resources.dedup();
    let of = |host: &HostPlan, resource: &Resource| {
        let found = host.needs.iter().filter(|need| need.resource == *resource);
        found.map(|need| need.hosts.value).fold(0.0, f64::max)
    };
    // The last dot is the number of the plan, as its headline has it.
    let row = |(name, host): &(String, &HostPlan)| {
        let needs = resources.iter().map(|resource| of(host, resource));
        (name.clone(), needs.chain([host.hosts.value]).collect())
    };
    let rows = hosts.iter().map(row).collect();
    let mut parts = toned(resources.iter().map(|resource| resource.name()));
    parts.push(("planned".into(), Tone::Ink));
    let note = "hosts that each resource alone would take; the most decides, and the plan adds \
                whole hosts and those in reserve";
    Chart::Bars(Bars::dots("What binds", note, ("hosts", Unit::Count), parts, rows))
}

/// Each with a tone of its own.
fn toned<'a>(names: impl Iterator<Item = &'a str>) -> Vec<(String, Tone)> {
    names.enumerate().map(|(place, name)| (name.to_owned(), Tone::at(place))).collect()
}

/// The model's queries a pass, and what a server of like shards had.
fn batches(plan: &ShapePlan, loads: &[(&Found, &Report)]) -> Chart {
    let curve = &plan.cpu.curve;
    let model = curve.iter().map(|point| Point::new(point.utilisation, point.batch)).collect();
    let mut series = vec![Series::new("planned", Tone::Blue, model).drawn(Stroke::Dashed)];
    // Nearly this shard, whatever the cores: each over the share of its own limit.
    let like = |report: &Report| {
        let (ours, theirs) = (&plan.shape, &report.server.shape);
        let columns = f64::from(ours.columns) / f64::from(theirs.columns);
        (ours.pack_rows, ours.packs, plan.shards)
            == (theirs.pack_rows, theirs.packs, report.server.shards.into())
            && (0.9..1.1).contains(&columns)
    };
    for (_, report) in loads.iter().filter(|(_, report)| like(report)) {
        let Some(limit) = &report.limit else { continue };
        let point = |trial: &&crate::load::Trial| {
            let server = trial.server.filter(|_| trial.rate <= limit.rate * 1.001)?;
            Some(Point::new(trial.throughput / limit.rate, server.batch_mean))
        };
        let points: Vec<Point> = valid(report).iter().filter_map(point).collect();
        if !points.is_empty() {
            let measured = Series::new("measured", Tone::Orange, points);
            series.push(measured.drawn(Stroke::Points));
        }
    }
    let note = match series.len() {
        1 => "queries that one reading of a shard answers, on one host",
        _ => "queries that one reading answers, on one host; dots: a server of like shards",
    };
    let points = || series.iter().flat_map(|series| &series.points);
    let x = Axis::linear(
        "of the rate at which the objective is just met",
        Unit::Share,
        points().map(|point| point.x).fold(0.0, f64::max),
    );
    let y = Axis::of("queries a pass", Unit::Count, points().map(|point| point.y));
    Chart::Lines(Lines {
        title: "Batch size".into(),
        note: note.into(),
        x,
        y,
        series,
        levels: Vec::new(),
    })
}

/// What a device sends and receives a day.
fn moved(plan: &Plan) -> Chart {
    let mut names: Vec<&str> = Vec::new();
    let shapes = plan.by_size();
    for figure in shapes.iter().flat_map(|shape| &shape.device) {
        if bytes(figure).is_some() && !names.contains(&figure.name.as_str()) {
            names.push(&figure.name);
        }
    }
    let value = |shape: &ShapePlan, name: &str| {
        let mut found = shape.device.iter().filter(|figure| figure.name == name);
        found.find_map(bytes).unwrap_or(0.0)
    };
    let row =
        |shape: &ShapePlan| (name(shape), names.iter().map(|name| value(shape, name)).collect());
    let rows = shapes.into_iter().map(row).collect();
    let parts = toned(names.iter().copied());
    let x = ("a device, a day", Unit::Bytes);
    Chart::Bars(Bars::stacked("What a device moves", "", x, parts, rows))
}

/// GPUs beside it, or what can be said without a measured one.
fn gpu(shape: &ShapePlan) -> Markup {
    html! {
        @match &shape.gpu {
            GpuPlan::Measured(_) => {}
            GpuPlan::NotMeasured { why, figures } => {
                div.aside {
                    h4 { "With GPUs: not measured" }
                    p { (prose(why)) }
                    dl {
                        @for figure in figures {
                            div {
                                dt { (figure.name) " " (mark(figure.extrapolated.as_deref())) }
                                dd { (show(figure)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn warnings<'a>(warnings: impl Iterator<Item = &'a String>) -> Markup {
    let mut warnings = warnings.peekable();
    html! {
        @if warnings.peek().is_some() {
            ul.warnings { @for warning in warnings { li { (prose(warning)) } } }
        }
    }
}

/// Every figure with its formula and sources.
fn all(plan: &Plan) -> Markup {
    html! {
        details {
            summary { "Every figure, its formula and where its numbers came from" }
            (table("Demand", &plan.demand.iter().collect::<Vec<_>>()))
            @for shape in plan.by_size() {
                h4 { (shards(shape.shards, &shape.shape)) }
                (warnings(shape.warnings.iter()))
                @for Group { title, figures } in shape.groups() { (table(&title, &figures)) }
            }
        }
    }
}

fn table(caption: &str, figures: &[&Figure]) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label=(caption) {
            table.figures {
                caption { (caption) }
                thead {
                    tr {
                        @for name in ["figure", "value", "formula", "from"] {
                            th scope="col" { (name) }
                        }
                    }
                }
                tbody {
                    @for figure in figures {
                        tr {
                            th scope="row" {
                                (figure.name) " " (mark(figure.extrapolated.as_deref()))
                            }
                            td { (show(figure)) }
                            td { (figure.formula) }
                            td {
                                (prose(&figure.sources.join("; ")))
                                @if let Some(why) = &figure.extrapolated { " (" (prose(why)) ")" }
                            }
                        }
                    }
                }
            }
        }
    }
}
