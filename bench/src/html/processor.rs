//! What kernel and GPU records say: a query alone and in a batch, and what it is held against.

use maud::{Markup, html};

use super::chart::{Axis, Bars, Chart, Lines, Point, Series, Stroke, Tone, parts};
use super::number::Unit;
use super::page::{Headline, Page, headlines, machine, measured, shards, stem};
use crate::found::Found;
use crate::record::{Answer, Gpu, Kernel, Spread};

pub(super) fn kernel(page: &mut Page, found: &Found, kernel: &Kernel) -> Markup {
    let Some(best) = fastest(kernel) else { return html! {} };
    let charts = [batches(kernel, best), stages(kernel, best), threads(kernel, best)];
    html! {
        section {
            h2 { "In the processor" }
            p.lead { "One reading of a shard answers a whole batch, so large batches are cheap." }
            article {
                h3 { (shards(1, &kernel.shape)) }
                p.from { (stem(found)) " · " (measured(found)) (effort(&kernel.effort)) }
                (headlines(&figures(kernel, best)))
                div.charts { @for chart in charts { (page.figure(chart)) } }
            }
        }
    }
}

/// Said of a record that was not measured in full.
fn effort(effort: &str) -> String {
    match effort {
        "full" => String::new(),
        other => format!(" · effort: {other}"),
    }
}

/// The answer of the highest rate.
fn fastest(kernel: &Kernel) -> Option<&Answer> {
    let most = |a: &&Answer, b: &&Answer| b.ms_per_query.best.total_cmp(&a.ms_per_query.best);
    kernel.answers.iter().max_by(most)
}

fn figures(kernel: &Kernel, best: &Answer) -> Vec<Headline> {
    let like = |answer: &&Answer| answer.engine == best.engine && answer.threads == best.threads;
    let alone = kernel.answers.iter().filter(like).find(|answer| answer.batch == 1);
    let on = match best.threads {
        1 => "one thread".into(),
        threads => format!("{threads} threads"),
    };
    let rate = Headline::new(
        Unit::Count.show(1e3 / best.ms_per_query.best),
        format!("look-ups a second in batches of {}, {} on {on}", best.batch, best.engine),
    );
    let alone = alone.map(|answer| {
        Headline::new(Unit::Ms.show(answer.ms_per_query.best), "for a look-up alone")
    });
    let share = best.whole_share.map(|share| {
        Headline::new(Unit::Share.show(share), "of what this machine could do at best")
    });
    [Some(rate), alone, share].into_iter().flatten().collect()
}

fn spread(x: f64, spread: &Spread, scale: f64) -> Point {
    Point::between(x, spread.median * scale, [spread.q1 * scale, spread.q3 * scale])
}

/// Engines as they first appear, each with its tone; the last tone is the floor's.
fn engines(kernel: &Kernel) -> Vec<(&str, Tone)> {
    let mut names: Vec<&str> = Vec::new();
    for answer in &kernel.answers {
        if !names.contains(&answer.engine.as_str()) {
            names.push(&answer.engine);
        }
    }
    names.into_iter().enumerate().map(|(place, name)| (name, Tone::at(place % 5))).collect()
}

fn batches(kernel: &Kernel, best: &Answer) -> Chart {
    let on = |engine: &str| {
        let engine = engine.to_owned();
        kernel
            .answers
            .iter()
            .filter(move |answer| answer.engine == engine && answer.threads == best.threads)
    };
    let line = |(engine, tone): (&str, Tone)| {
        let points =
            on(engine).map(|answer| spread(answer.batch as f64, &answer.ms_per_query, 1.0));
        Series::new(engine, tone, points.collect())
    };
    let mut series: Vec<Series> = engines(kernel).into_iter().map(line).collect();
    let floor = on(&best.engine)
        .filter_map(|answer| Some(Point::new(answer.batch as f64, answer.floor_ms?)));
    series.push(Series::new("floor", Tone::Grey, floor.collect()).drawn(Stroke::Dashed));
    let values = series.iter().flat_map(|series| series.points.iter().map(|point| point.y));
    Chart::Lines(Lines {
        title: "Time for a look-up".into(),
        note: format!(
            "medians, bands to the quartiles; floor: the most that {} could do on this machine",
            best.engine
        ),
        x: Axis::doubling("look-ups a batch", kernel.answers.iter().map(|a| a.batch as f64)),
        y: Axis::of("a look-up's part", Unit::Ms, values),
        series,
        levels: Vec::new(),
    })
}

fn stages(kernel: &Kernel, best: &Answer) -> Chart {
    let parts = parts(&[
        ("scan", Tone::Blue),
        ("pack", Tone::Orange),
        ("prepare and finish", Tone::Teal),
        ("hand out, wait", Tone::Grey),
    ]);
    let mut answers: Vec<&Answer> = kernel
        .answers
        .iter()
        .filter(|answer| answer.engine == best.engine && answer.threads == best.threads)
        .collect();
    answers.sort_by_key(|answer| answer.batch);
    let row = |answer: &Answer| {
        let around = answer.prepare_ms + answer.finish_ms;
        let values = vec![answer.scan_ms, answer.pack_ms, around, answer.other_ms.max(0.0)];
        (format!("batch of {}", answer.batch), values)
    };
    let rows = answers.into_iter().map(row).collect();
    let note = format!("{}, by batch, the best run", best.engine);
    let x = ("a look-up's part", Unit::Ms);
    Chart::Bars(Bars::stacked("Where time goes", &note, x, parts, rows))
}

fn threads(kernel: &Kernel, best: &Answer) -> Chart {
    let line = |(engine, tone): (&str, Tone)| {
        let like = kernel
            .answers
            .iter()
            .filter(|answer| answer.engine == engine && answer.batch == best.batch);
        let point = |answer: &Answer| {
            let Spread { q1, median, q3, .. } = answer.ms_per_query;
            let rates = [1e3 / q3, 1e3 / q1];
            Point::between(answer.threads as f64, 1e3 / median, rates)
        };
        Series::new(engine, tone, like.map(point).collect())
    };
    let mut series: Vec<Series> = engines(kernel).into_iter().map(line).collect();
    let counts = || kernel.answers.iter().map(|answer| answer.threads as f64);
    // As if threads added up, from the least that was measured.
    let first = series.iter().find(|series| series.name == best.engine);
    let first = first.and_then(|series| series.points.first().cloned());
    if let Some(first) = first {
        let mut counts: Vec<f64> = counts().collect();
        counts.sort_by(f64::total_cmp);
        counts.dedup();
        let point = |threads: f64| Point::new(threads, first.y * threads / first.x);
        let sum = counts.into_iter().map(point).collect();
        series.push(Series::new("added up", Tone::Grey, sum).drawn(Stroke::Dashed));
    }
    let values = series.iter().flat_map(|series| series.points.iter().map(|point| point.y));
    Chart::Lines(Lines {
        title: "More threads".into(),
        note: format!("batches of {}, medians", best.batch),
        x: Axis::doubling("threads", counts()),
        y: Axis::of("look-ups a second", Unit::Count, values),
        series,
        levels: Vec::new(),
    })
}

pub(super) fn gpu(page: &mut Page, found: &Found, gpu: &Gpu) -> Markup {
    let charts = [gpu_batches(gpu), gpu_traffic(gpu)];
    let streamed = gpu.answers.iter().map(|answer| answer.streamed_us.best);
    let rate = streamed.map(|us| 1e6 / us).fold(0.0, f64::max);
    let figures = [
        Headline::new(Unit::Count.show(rate), "look-ups a second, shards and bundles there"),
        Headline::new(
            Unit::Count.show(gpu.traffic.loops.iter().map(|l| l.queries_per_s).fold(0.0, f64::max)),
            "of random look-ups through the server's queue",
        ),
    ];
    html! {
        section {
            h2 { "On a GPU" }
            p.lead {
                @if gpu.device.software {
                    "A processor plays this GPU: nothing here says how fast a GPU is."
                } @else {
                    (gpu.device.name)
                }
            }
            article {
                h3 { (shards(gpu.traffic.shards as u64, &gpu.shape)) }
                p.from {
                    (stem(found)) " · " (gpu.device.name) " · " (machine(&gpu.head.machine))
                    (effort(&gpu.effort))
                }
                (headlines(&figures))
                div.charts { @for chart in charts { (page.figure(chart)) } }
            }
        }
    }
}

fn gpu_batches(gpu: &Gpu) -> Chart {
    let us = 1e-3;
    let of = |value: fn(&crate::record::GpuAnswer) -> &Spread| {
        let point = |answer| spread(gpu_batch(answer), value(answer), us);
        gpu.answers.iter().map(point).collect()
    };
    let floor = |answer| Point::new(gpu_batch(answer), answer.floor_us * us);
    let series = vec![
        Series::new("alone", Tone::Blue, of(|answer| &answer.alone_us)),
        Series::new("streamed", Tone::Teal, of(|answer| &answer.streamed_us)),
        Series::new("floor", Tone::Grey, gpu.answers.iter().map(floor).collect())
            .drawn(Stroke::Dashed),
    ];
    let values = series.iter().flat_map(|series| series.points.iter().map(|point| point.y));
    Chart::Lines(Lines {
        title: "Time for a look-up".into(),
        note: "batches one at a time, and many in flight; medians, bands to the quartiles".into(),
        x: Axis::doubling("look-ups a batch", gpu.answers.iter().map(gpu_batch)),
        y: Axis::of("a look-up's part", Unit::Ms, values),
        series,
        levels: Vec::new(),
    })
}

fn gpu_batch(answer: &crate::record::GpuAnswer) -> f64 {
    answer.batch as f64
}

fn gpu_traffic(gpu: &Gpu) -> Chart {
    let loops = &gpu.traffic.loops;
    let of = |y: fn(&crate::record::GpuLoop) -> f64| {
        loops.iter().map(|each| Point::new(each.queries_per_s, y(each))).collect()
    };
    let times = loops.iter().flat_map(|each| [each.median_ms, each.p99_ms]);
    Chart::Lines(Lines {
        title: "Latency".into(),
        note: format!("random look-ups for {} shards, more and more at once", gpu.traffic.shards),
        x: Axis::of("answered a second", Unit::Count, loops.iter().map(|each| each.queries_per_s)),
        y: Axis::of("latency", Unit::Ms, times),
        series: vec![
            Series::new("p99", Tone::Orange, of(|each| each.p99_ms)),
            Series::new("p50", Tone::Blue, of(|each| each.median_ms)),
        ],
        levels: Vec::new(),
    })
}
