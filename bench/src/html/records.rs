//! What is drawn of records: how far a server goes under load, what processors and GPUs can do, how
//! long it takes to build, to start and to renew.

use super::chart::{Chart, Kind, Point, Series, Stroke, Tone};
use super::page::{Article, Headline, Section, from, shards};
use crate::found::{Found, Record};
use crate::load::{Report, Trial};
use crate::record::{Answer, Content, Gpu, GpuAnswer, GpuLoop, Kernel, Spread};
use crate::units::{Unit, number};

/// All that records show, a section for each kind of question.
pub(super) fn sections(records: &[Found]) -> Vec<Section> {
    let (mut loads, mut engines) = (Vec::new(), Vec::new());
    let mut machines: Vec<String> = Vec::new();
    for found in records {
        match &found.record {
            Record::Load(report) => loads.push(load(found, report)),
            Record::Kernel(record) => engines.extend(kernel(found, record)),
            Record::Gpu(record) => engines.push(gpu(found, record)),
            Record::Build(_) | Record::Startup(_) | Record::Reload(_) => {
                machines.push(found.record.machine().name());
            }
        }
    }
    machines.sort();
    machines.dedup();
    let operations = machines.into_iter().map(|machine| operations(machine, records)).collect();
    let section = |title: &str, lead: &str, articles| Section {
        title: title.into(),
        lead: lead.into(),
        articles,
    };
    let mut sections = vec![
        section(
            "Under load",
            "Look-ups arrive when they will, not when the server is ready.",
            loads,
        ),
        section(
            "Processors and GPUs",
            "One reading of a shard answers a whole batch, so large batches are cheap.",
            engines,
        ),
        section(
            "Building, starting, renewing",
            "How long until there is a database, a server, a new epoch.",
            operations,
        ),
    ];
    sections.retain(|section| !section.articles.is_empty());
    sections
}

/// Runs that say something of the server, slowest first.
pub(super) fn valid(report: &Report) -> Vec<&Trial> {
    let mut trials: Vec<_> = report.trials.iter().filter(|trial| trial.invalid.is_none()).collect();
    trials.sort_by(|a, b| a.rate.total_cmp(&b.rate));
    trials
}

fn load(found: &Found, report: &Report) -> Article {
    let trials = valid(report);
    let objective = Unit::Ms.show(report.objective_ms);
    let mut headlines = Vec::new();
    if let Some(best) = trials.iter().rfind(|trial| trial.within) {
        let bound = report.limit.as_ref().is_some_and(|limit| limit.generator_bound);
        let least = if bound { ", at least: the generator could send no more" } else { "" };
        let what = format!("look-ups a second, 99% within {objective}{least}");
        headlines.push(Headline::new(number(best.rate.round()), what));
        for (ms, of) in [(best.latency_ms.p50, "half"), (best.latency_ms.p99, "99%")] {
            let what = format!("{of} of the answers, at that rate");
            headlines.push(Headline::new(Unit::Ms.show(ms), what));
        }
    }
    let dropped = report.trials.len() - trials.len();
    let note = format!("{dropped} runs are not drawn: in those the generator could not keep up.");
    Article {
        title: shards(report.server.shards.into(), &report.server.shape),
        from: from(found),
        headlines,
        charts: load_charts(report, &trials),
        notes: if dropped > 0 { vec![note] } else { Vec::new() },
        ..Article::default()
    }
}

fn load_charts(report: &Report, trials: &[&Trial]) -> Vec<Chart> {
    // With an interval of a share of y on both sides, where one is known.
    let within = |x: f64, y: f64, share: Option<f64>| match share {
        None => Point::new(x, y),
        Some(share) => Point::between(x, y, [y * (1.0 - share.min(0.95)), y * (1.0 + share)]),
    };
    let series = |name: &str, tone, point: &dyn Fn(&Trial) -> Point| {
        Series::new(name, tone, trials.iter().map(|trial| point(trial)).collect())
    };
    let latency = vec![
        series("p99", Tone::Orange, &|t| within(t.throughput, t.latency_ms.p99, t.intervals.p99)),
        series("p50", Tone::Blue, &|t| Point::new(t.throughput, t.latency_ms.p50)),
    ];
    let most = trials.iter().map(|trial| trial.throughput).fold(0.0, f64::max);
    let saturation = vec![
        // The diagonal, as far as the answers go.
        series("offered", Tone::Grey, &|t| Point::new(t.rate.min(most), t.rate.min(most)))
            .drawn(Stroke::Dashed),
        series("answered", Tone::Blue, &|t| within(t.rate, t.throughput, t.intervals.throughput)),
        series("in time", Tone::Teal, &|t| Point::new(t.rate, t.goodput)),
    ];
    let served = trials.iter().filter_map(|trial| Some((trial.rate, trial.server?)));
    let batches = served.clone().map(|(rate, server)| Point::new(rate, server.batch_mean));
    let batches = vec![Series::new("measured", Tone::Blue, batches.collect())];
    let times = served.map(|(rate, server)| {
        let known = [server.queue_ms, server.scan_ms, server.pack_ms, server.send_ms];
        let rest = (server.answer_ms - known.iter().sum::<f64>()).max(0.0);
        (format!("{} a second", number(rate.round())), known.into_iter().chain([rest]).collect())
    });
    let parts = [
        ("waits for an engine", Tone::Grey),
        ("scan", Tone::Blue),
        ("pack", Tone::Orange),
        ("send", Tone::Teal),
        ("rest: waiting for others of the batch, network", Tone::Violet),
    ];
    let (count, ms) = (Unit::Count, Unit::Ms);
    let offered = ("offered a second", count.clone());
    let title = ("Latency", "from the planned time; bars: 95% interval of p99");
    let x = ("answered a second", count.clone());
    let latency = Chart::lines(title, x, ("latency", ms.clone()), latency)
        .with_level("objective", report.objective_ms);
    let title = ("Saturation", "what is offered, answered, and answered in time");
    let y = ("look-ups a second", count.clone());
    let saturation = Chart::lines(title, offered.clone(), y, saturation);
    let title = ("Where time goes", "the mean in the server, by look-ups offered a second");
    let times = Chart::rows(Kind::Stack, title, ("a query's time", ms), &parts, times.collect());
    let title = ("Batch size", "queries that one reading of a shard answers, the mean");
    let batches = Chart::lines(title, offered, ("queries a batch", count), batches);
    vec![latency, saturation, times, batches]
}

fn spread(x: f64, spread: &Spread, scale: f64) -> Point {
    Point::between(x, spread.median * scale, [spread.q1 * scale, spread.q3 * scale])
}

/// Answers of an engine with so many threads, the smallest batch first.
fn like<'a>(kernel: &'a Kernel, engine: &str, threads: usize) -> Vec<&'a Answer> {
    let is_like = |answer: &&Answer| answer.engine == engine && answer.threads == threads;
    let mut answers: Vec<_> = kernel.answers.iter().filter(is_like).collect();
    answers.sort_by_key(|answer| answer.batch);
    answers
}

/// A line for each engine; grey is left for floors.
fn by_engine(kernel: &Kernel, points: impl Fn(&str) -> Vec<Point>) -> Vec<Series> {
    let mut names: Vec<&str> = kernel.answers.iter().map(|answer| &*answer.engine).collect();
    names.sort_unstable();
    names.dedup();
    let line = |(at, name)| Series::new(name, Tone::at(at % 5), points(name));
    names.into_iter().enumerate().map(line).collect()
}

fn kernel(found: &Found, kernel: &Kernel) -> Option<Article> {
    let speed = |a: &&Answer, b: &&Answer| a.ms_per_query.best.total_cmp(&b.ms_per_query.best);
    let best = kernel.answers.iter().min_by(speed)?;
    let Answer { engine, threads, batch, .. } = best;
    let rate = number((1e3 / best.ms_per_query.best).round());
    let what = format!("look-ups a second in batches of {batch}, {engine}, threads: {threads}");
    let mut headlines = vec![Headline::new(rate, what)];
    headlines.extend(
        like(kernel, engine, *threads).first().map(|alone| {
            Headline::new(Unit::Ms.show(alone.ms_per_query.best), "for a look-up alone")
        }),
    );
    headlines.extend(best.whole_share.map(|share| {
        Headline::new(Unit::Share.show(share), "of what this machine could do at best")
    }));
    Some(Article {
        title: shards(1, &kernel.shape),
        from: format!("{} · effort: {}", from(found), kernel.effort),
        headlines,
        charts: kernel_charts(kernel, best),
        ..Article::default()
    })
}

fn kernel_charts(kernel: &Kernel, best: &Answer) -> Vec<Chart> {
    let on = |engine: &str| like(kernel, engine, best.threads).into_iter();
    let point = |answer: &Answer| spread(answer.batch as f64, &answer.ms_per_query, 1.0);
    let mut batches = by_engine(kernel, |engine| on(engine).map(point).collect());
    let floor = on(&best.engine).filter_map(|a| Some(Point::new(a.batch as f64, a.floor_ms?)));
    batches.push(Series::new("floor", Tone::Grey, floor.collect()).drawn(Stroke::Dashed));
    let threads = by_engine(kernel, |engine| {
        let like = kernel.answers.iter().filter(|a| a.engine == engine && a.batch == best.batch);
        let point = |answer: &Answer| {
            let Spread { q1, median, q3, .. } = answer.ms_per_query;
            Point::between(answer.threads as f64, 1e3 / median, [1e3 / q3, 1e3 / q1])
        };
        like.map(point).collect()
    });
    let stages = on(&best.engine).map(|answer| {
        let around = answer.prepare_ms + answer.finish_ms;
        let values = vec![answer.scan_ms, answer.pack_ms, around, answer.other_ms.max(0.0)];
        (format!("batch of {}", answer.batch), values)
    });
    let parts = [
        ("scan", Tone::Blue),
        ("pack", Tone::Orange),
        ("prepare and finish", Tone::Teal),
        ("hand out, wait", Tone::Grey),
    ];
    let part = ("a look-up's part", Unit::Ms);
    let note = format!(
        "medians, bars to the quartiles; floor: the most that {} could do on this machine",
        best.engine
    );
    let x = ("look-ups a batch", Unit::Count);
    let batches = Chart::lines(("Time for a look-up", &note), x, part.clone(), batches);
    let note = format!("{}, by batch, the best run", best.engine);
    let stages =
        Chart::rows(Kind::Stack, ("Where time goes", &note), part, &parts, stages.collect());
    let (note, y) = (format!("batches of {}, medians", best.batch), Unit::Count);
    let x = ("threads", Unit::Count);
    let threads = Chart::lines(("More threads", &note), x, ("look-ups a second", y), threads);
    vec![batches.over_counts(), stages, threads.over_counts()]
}

fn gpu(found: &Found, gpu: &Gpu) -> Article {
    let (answers, loops) = (&gpu.answers, &gpu.traffic.loops);
    let streamed = answers.iter().map(|answer| 1e6 / answer.streamed_us.best).fold(0.0, f64::max);
    let random = loops.iter().map(|each| each.queries_per_s).fold(0.0, f64::max);
    let of = |point: fn(&GpuAnswer, f64) -> Point| {
        answers.iter().map(|answer| point(answer, answer.batch as f64)).collect()
    };
    let batches = vec![
        Series::new("alone", Tone::Blue, of(|answer, x| spread(x, &answer.alone_us, 1e-3))),
        Series::new("streamed", Tone::Teal, of(|answer, x| spread(x, &answer.streamed_us, 1e-3))),
        Series::new("floor", Tone::Grey, of(|answer, x| Point::new(x, answer.floor_us * 1e-3)))
            .drawn(Stroke::Dashed),
    ];
    let note = "batches one at a time, and many in flight; medians, bars to the quartiles";
    let (x, y) = (("look-ups a batch", Unit::Count), ("a look-up's part", Unit::Ms));
    let batches = Chart::lines(("Time for a look-up", note), x, y, batches).over_counts();
    let of = |y: fn(&GpuLoop) -> f64| {
        loops.iter().map(|each| Point::new(each.queries_per_s, y(each))).collect()
    };
    let traffic = vec![
        Series::new("p99", Tone::Orange, of(|each| each.p99_ms)),
        Series::new("p50", Tone::Blue, of(|each| each.median_ms)),
    ];
    let note = format!("random look-ups for {} shards, more and more at once", gpu.traffic.shards);
    let (x, y) = (("answered a second", Unit::Count), ("latency", Unit::Ms));
    let warning = "A processor plays this GPU: nothing here says how fast a GPU is.";
    Article {
        title: format!("{}: {}", gpu.device.name, shards(gpu.traffic.shards as u64, &gpu.shape)),
        from: format!("{} · effort: {}", from(found), gpu.effort),
        headlines: vec![
            Headline::new(
                number(streamed.round()),
                "look-ups a second, shards and bundles on the device",
            ),
            Headline::new(
                number(random.round()),
                "random look-ups a second through the server's queue",
            ),
        ],
        charts: vec![batches, Chart::lines(("Latency", &note), x, y, traffic)],
        notes: if gpu.device.software { vec![warning.into()] } else { Vec::new() },
        ..Article::default()
    }
}

/// What build, startup and reload records of a machine say, side by side.
fn operations(machine: String, records: &[Found]) -> Article {
    let (mut builds, mut startups, mut reloads) = (Vec::new(), Vec::new(), Vec::new());
    let (mut asked, mut lost) = (0, 0);
    let name = |content: &Content| shards(content.shards.into(), &content.shape);
    for found in records.iter().filter(|found| found.record.machine().name() == machine) {
        match &found.record {
            Record::Build(build) => {
                let times = vec![build.seconds.median * 1e3, build.verify_seconds.median * 1e3];
                builds
                    .push((format!("{}, threads: {}", name(&build.content), build.threads), times));
            }
            Record::Startup(startup) => {
                for (state, started) in [("warm", &startup.warm), ("cold", &startup.cold)] {
                    let listening = started.listening_ms.median;
                    let ready = started.ready_ms.median.max(listening);
                    let answer = started.first_answer_ms.median.max(ready);
                    let times = vec![listening, ready - listening, answer - ready];
                    startups.push((format!("{}, {state}", name(&startup.content)), times));
                }
            }
            Record::Reload(reload) => {
                (asked, lost) = (asked + reload.lookups, lost + reload.lost);
                reloads.extend(reload.changes.iter().map(|change| {
                    let bytes = Unit::Bytes.show(change.bytes as f64);
                    let of = reload.content.shards;
                    let times = vec![change.reload_ms.median, change.lookup_ms_max];
                    (format!("{} of {of} shards new, {bytes}", change.shards), times)
                }));
            }
            Record::Load(_) | Record::Kernel(_) | Record::Gpu(_) => {}
        }
    }
    let what = format!("of {} look-ups lost by reloads", number(asked as f64));
    let lost = (asked > 0).then(|| Headline::new(lost.to_string(), what));
    let time = |label| (label, Unit::Ms);
    let parts = [("build", Tone::Blue), ("verify every byte", Tone::Teal)];
    let builds = Chart::rows(Kind::Stack, ("A database", "medians"), time("time"), &parts, builds);
    let note = "until it listens, is ready, has answered; cold: no file in memory; medians";
    let parts = [("listens", Tone::Grey), ("is ready", Tone::Blue), ("has answered", Tone::Teal)];
    let startups =
        Chart::rows(Kind::Stack, ("A server", note), time("time from its start"), &parts, startups);
    let note = "until it is served, the median; of the look-ups meanwhile, the slowest";
    let parts = [("reload", Tone::Blue), ("slowest look-up", Tone::Orange)];
    let reloads = Chart::rows(Kind::Dots, ("A new epoch", note), time("time"), &parts, reloads);
    Article {
        headlines: lost.into_iter().collect(),
        from: machine,
        charts: vec![builds, startups, reloads],
        ..Article::default()
    }
}
