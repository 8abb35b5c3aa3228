//! What load records say: how far it goes, what it feels like, where the time goes.

use maud::{Markup, html};

use super::chart::{Axis, Bars, Chart, Level, Lines, Point, Series, Stroke, Tone, parts};
use super::number::Unit;
use super::page::{Headline, Page, headlines, measured, shards, stem};
use crate::found::Found;
use crate::load::{Report, ServerSide, Trial};

pub(super) fn section(page: &mut Page, loads: &[(&Found, &Report)]) -> Markup {
    let (walks, single): (Vec<_>, Vec<_>) =
        loads.iter().copied().partition(|(_, report)| valid(report).len() > 1);
    html! {
        @if !loads.is_empty() {
            section {
                h2 { "Under load" }
                p.lead { "Look-ups arrive when they will, not when the server is ready." }
                @for (found, report) in walks { (walk(page, found, report)) }
                @if !single.is_empty() { (runs(&single)) }
            }
        }
    }
}

/// Runs that say something of the server, slowest first.
pub(super) fn valid(report: &Report) -> Vec<&Trial> {
    let mut trials: Vec<_> = report.trials.iter().filter(|trial| trial.invalid.is_none()).collect();
    trials.sort_by(|a, b| a.rate.total_cmp(&b.rate));
    trials
}

fn walk(page: &mut Page, found: &Found, report: &Report) -> Markup {
    let trials = valid(report);
    let charts = [
        Some(latency(report, &trials)),
        Some(saturation(&trials)),
        breakdown(&trials),
        batches(&trials),
    ];
    let dropped = report.trials.len() - trials.len();
    html! {
        article {
            h3 { (shards(report.server.shards.into(), &report.server.shape)) }
            p.from { (stem(found)) " · " (measured(found)) }
            (headlines(&figures(report, &trials)))
            div.charts {
                @for chart in charts.into_iter().flatten() { (page.figure(chart)) }
            }
            @if dropped > 0 {
                p.from {
                    (dropped) " of " (report.trials.len()) " runs are not drawn: in those the "
                    "generator could not keep up."
                }
            }
        }
    }
}

fn figures(report: &Report, trials: &[&Trial]) -> Vec<Headline> {
    let within = || trials.iter().filter(|trial| trial.within);
    let best = within().max_by(|a, b| a.rate.total_cmp(&b.rate));
    let objective = Unit::Ms.show(report.objective_ms);
    let Some(best) = best else {
        let most = trials.iter().map(|trial| trial.goodput).fold(0.0, f64::max);
        let what = format!("look-ups a second within {objective}, at most");
        return vec![Headline::new(Unit::Count.show(most), what)];
    };
    let bound = report.limit.as_ref().is_some_and(|limit| limit.generator_bound);
    let least = if bound { ", at least: the generator gave out" } else { "" };
    vec![
        Headline::new(
            Unit::Count.show(best.rate),
            format!("look-ups a second, 99% within {objective}{least}"),
        ),
        Headline::new(Unit::Ms.show(best.latency_ms.p50), "half of the answers, at that rate"),
        Headline::new(Unit::Ms.show(best.latency_ms.p99), "99% of the answers, at that rate"),
    ]
}

fn latency(report: &Report, trials: &[&Trial]) -> Chart {
    let of = |y: fn(&Trial) -> f64, share: fn(&Trial) -> Option<f64>| {
        let point = |trial: &&Trial| Point::within(trial.throughput, y(trial), share(trial));
        trials.iter().map(point).collect::<Vec<_>>()
    };
    let p50 = of(|trial| trial.latency_ms.p50, |_| None);
    let p99 = of(|trial| trial.latency_ms.p99, |trial| trial.intervals.p99);
    let rates = trials.iter().map(|trial| trial.throughput);
    let times = trials.iter().flat_map(|trial| [trial.latency_ms.p50, trial.latency_ms.p99]);
    Chart::Lines(Lines {
        title: "Latency".into(),
        note: "from the planned time; band: 95% interval of p99".into(),
        x: Axis::of("answered a second", Unit::Count, rates),
        y: Axis::of("latency", Unit::Ms, times.chain([report.objective_ms])),
        series: vec![Series::path("p99", Tone::Orange, p99), Series::path("p50", Tone::Blue, p50)],
        levels: vec![Level { name: "objective".into(), y: report.objective_ms }],
    })
}

fn saturation(trials: &[&Trial]) -> Chart {
    let of = |y: fn(&Trial) -> f64, share: fn(&Trial) -> Option<f64>| {
        let point = |trial: &&Trial| Point::within(trial.rate, y(trial), share(trial));
        trials.iter().map(point).collect::<Vec<_>>()
    };
    let answered = of(|trial| trial.throughput, |trial| trial.intervals.throughput);
    let good = of(|trial| trial.goodput, |_| None);
    let all = answered.iter().chain(&good).flat_map(|point| [point.x, point.y]);
    let rates = || trials.iter().map(|trial| trial.rate);
    let x = Axis::of("offered a second", Unit::Count, rates());
    let y = Axis::of("look-ups a second", Unit::Count, all.filter(|value| *value > 0.0));
    let most = answered.iter().map(|point| point.y).fold(0.0, f64::max);
    // The diagonal, as far as the answers go.
    let diagonal = rates().chain([most]).filter(|rate| *rate <= most);
    let diagonal = diagonal.map(|rate| Point::new(rate, rate)).collect();
    Chart::Lines(Lines {
        title: "Saturation".into(),
        note: "what is offered, answered, and answered in time".into(),
        x,
        y,
        series: vec![
            Series::new("offered", Tone::Grey, diagonal).drawn(Stroke::Dashed),
            Series::new("answered", Tone::Blue, answered),
            Series::new("in time", Tone::Teal, good),
        ],
        levels: Vec::new(),
    })
}

fn served<'a>(trials: &'a [&Trial]) -> Vec<(&'a Trial, ServerSide)> {
    let with = |trial: &&'a Trial| trial.server.map(|server| (*trial, server));
    trials.iter().filter_map(with).filter(|(_, server)| server.answers > 0).collect()
}

/// Where a query's time in the server goes.
fn breakdown(trials: &[&Trial]) -> Option<Chart> {
    let parts = parts(&[
        ("waits for an engine", Tone::Grey),
        ("scan", Tone::Blue),
        ("pack", Tone::Orange),
        ("send", Tone::Teal),
        ("rest: waiting for others of the batch, network", Tone::Violet),
    ]);
    let row = |(trial, server): (&Trial, ServerSide)| {
        let known = server.queue_ms + server.scan_ms + server.pack_ms + server.send_ms;
        let rest = (server.answer_ms - known).max(0.0);
        let values = vec![server.queue_ms, server.scan_ms, server.pack_ms, server.send_ms, rest];
        (format!("{} a second", Unit::Count.show(trial.rate)), values)
    };
    let rows: Vec<_> = served(trials).into_iter().map(row).collect();
    let note = "the mean in the server, by look-ups offered a second";
    let x = ("a query's time", Unit::Ms);
    (!rows.is_empty()).then(|| Chart::Bars(Bars::stacked("Where time goes", note, x, parts, rows)))
}

fn batches(trials: &[&Trial]) -> Option<Chart> {
    let served = served(trials);
    let point = |(trial, server): &(&Trial, ServerSide)| Point::new(trial.rate, server.batch_mean);
    let points: Vec<Point> = served.iter().map(point).collect();
    (points.len() > 1).then(|| {
        Chart::Lines(Lines {
            title: "Batch size".into(),
            note: "queries that one reading of a shard answers, the mean".into(),
            x: Axis::of("offered a second", Unit::Count, points.iter().map(|point| point.x)),
            y: Axis::of("queries a pass", Unit::Count, points.iter().map(|point| point.y)),
            series: vec![Series::new("measured", Tone::Blue, points)],
            levels: Vec::new(),
        })
    })
}

/// Records of one run: too little for a line.
fn runs(single: &[(&Found, &Report)]) -> Markup {
    let head = ["run", "offered", "answered", "in time", "p50", "p99", "objective", ""];
    let count = |value| Unit::Count.show(value);
    html! {
        article {
            h3 { "Single runs" }
            div.scroll tabindex="0" role="region" aria-label="Single runs" {
                table {
                    thead { tr { @for name in head { th scope="col" { (name) } } } }
                    tbody {
                        @for (found, report) in single {
                            @for trial in &report.trials {
                                tr {
                                    th scope="row" { (stem(found)) }
                                    td { (count(trial.rate)) " a second" }
                                    td { (count(trial.throughput)) " a second" }
                                    td { (count(trial.goodput)) " a second" }
                                    td { (Unit::Ms.show(trial.latency_ms.p50)) }
                                    td { (Unit::Ms.show(trial.latency_ms.p99)) }
                                    td { (Unit::Ms.show(report.objective_ms)) }
                                    td { (trial.invalid.as_deref().unwrap_or_default()) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}
