//! What is drawn of records: how far a server goes under load, what processors and GPUs can do, how
//! long it takes to build, to start and to renew. All numbers of a record stand in a table below.

use std::collections::BTreeSet;

use super::chart::{Chart, Kind, Point, Series, TONES};
use super::page::{Article, Section, from, shards};
use crate::found::{Found, Record};
use crate::load::{Report, Trial};
use crate::numbers;
use crate::record::{
    Answer, Build, Gpu, GpuAnswer, GpuLoop, Kernel, Reload, Spread, Started, Startup,
};
use crate::units::Unit;

/// All that records show, a section for each kind of question.
pub(super) fn sections(records: &[Found]) -> Vec<Section> {
    let (mut loads, mut engines, mut operations) = (Vec::new(), Vec::new(), Vec::new());
    for found in records {
        let (section, charts) = match &found.record {
            Record::Load(load) => (&mut loads, load_charts(load)),
            Record::Kernel(kernel) => (&mut engines, kernel_charts(kernel)),
            Record::Gpu(gpu) => (&mut engines, gpu_charts(gpu)),
            Record::Build(build) => (&mut operations, build_chart(build)),
            Record::Startup(startup) => (&mut operations, startup_chart(startup)),
            Record::Reload(reload) => (&mut operations, reload_chart(reload)),
        };
        let (count, shape) = found.record.shards();
        let mut title = shards(count, shape);
        if let Record::Gpu(gpu) = &found.record {
            title = format!("{}: {title}", gpu.device.name);
        }
        let notes = numbers::doubts(&found.record);
        let numbers = Some(numbers::table(&numbers::of(&found.record)));
        section.push(Article {
            title,
            from: from(found),
            charts,
            notes,
            numbers,
            ..Article::default()
        });
    }
    let all = [
        ("Under load", "Look-ups arrive when they will, not when the server is ready.", loads),
        (
            "Processors and GPUs",
            "One reading of a shard answers a whole batch, so large batches are cheap.",
            engines,
        ),
        (
            "Building, starting, renewing",
            "How long until there is a database, a server, a new epoch.",
            operations,
        ),
    ];
    let some = all.into_iter().filter(|(_, _, articles)| !articles.is_empty());
    some.map(|(title, lead, articles)| Section { title: title.into(), lead: lead.into(), articles })
        .collect()
}

/// Runs that say something of the server, slowest first.
pub(super) fn valid(report: &Report) -> Vec<&Trial> {
    let mut trials: Vec<_> = report.trials.iter().filter(|trial| trial.invalid.is_none()).collect();
    trials.sort_by(|a, b| a.rate.total_cmp(&b.rate));
    trials
}

fn load_charts(report: &Report) -> Vec<Chart> {
    let trials = valid(report);
    // With an interval of a share of y on both sides, where one is known.
    let within = |x: f64, y: f64, share: Option<f64>| Point {
        low_high: share.map(|share| [y * (1.0 - share.min(0.95)), y * (1.0 + share)]),
        ..Point::new(x, y)
    };
    let series = |name: &str, tone, point: &dyn Fn(&Trial) -> Point| {
        Series::new(name, tone, trials.iter().map(|trial| point(trial)).collect())
    };
    let latency = vec![
        series("p99", "orange", &|t| within(t.throughput, t.latency_ms.p99, t.intervals.p99)),
        series("p50", "blue", &|t| Point::new(t.throughput, t.latency_ms.p50)),
    ];
    let most = trials.iter().map(|trial| trial.throughput).fold(0.0, f64::max);
    let saturation = vec![
        // The diagonal, as far as the answers go.
        series("offered", "grey", &|t| Point::new(t.rate.min(most), t.rate.min(most)))
            .drawn("dashed"),
        series("answered", "blue", &|t| within(t.rate, t.throughput, t.intervals.throughput)),
        series("in time", "teal", &|t| Point::new(t.rate, t.goodput)),
    ];
    let title = ("Latency", "from the planned time; bars: 95% interval of p99");
    let x = ("answered a second", Unit::Count);
    let latency = Chart::lines(title, x, ("latency", Unit::Ms), latency)
        .with_level("objective", report.objective_ms);
    let title = ("Saturation", "what is offered, answered, and answered in time");
    let (x, y) = (("offered a second", Unit::Count), ("look-ups a second", Unit::Count));
    vec![latency, Chart::lines(title, x, y, saturation)]
}

/// A point between quartiles; `value` says what a time is drawn as.
fn spread(x: f64, spread: &Spread, value: impl Fn(f64) -> f64) -> Point {
    let (low, high) = (value(spread.q1), value(spread.q3));
    let low_high = Some([low.min(high), low.max(high)]);
    Point { low_high, ..Point::new(x, value(spread.median)) }
}

const BY_BATCH: [(&str, Unit); 2] =
    [("look-ups a batch", Unit::Count), ("a look-up's part", Unit::Ms)];

/// By batch with all threads of the fastest answer, and by threads with its batch.
fn kernel_charts(kernel: &Kernel) -> Vec<Chart> {
    let answers = || kernel.answers.iter();
    let time = |answer: &&Answer| answer.ms_per_query.best;
    let fastest = answers().min_by(|a, b| time(a).total_cmp(&time(b)));
    let Some(best) = fastest else { return Vec::new() };
    let names: BTreeSet<&str> = answers().map(|answer| &*answer.engine).collect();
    let (mut batches, mut threads) = (Vec::new(), Vec::new());
    // Grey, the last, is left for the floor.
    for (name, tone) in names.into_iter().zip(TONES[..5].iter().cycle()) {
        let of_engine = || answers().filter(|answer| answer.engine == name);
        let points = of_engine()
            .filter(|answer| answer.threads == best.threads)
            .map(|answer| spread(answer.batch as f64, &answer.ms_per_query, |ms| ms));
        batches.push(Series::new(name, tone, points.collect()));
        let points = of_engine()
            .filter(|answer| answer.batch == best.batch)
            .map(|answer| spread(answer.threads as f64, &answer.ms_per_query, |ms| 1e3 / ms));
        threads.push(Series::new(name, tone, points.collect()));
    }
    let floor = answers()
        .filter(|answer| (&answer.engine, answer.threads) == (&best.engine, best.threads))
        .filter_map(|answer| Some(Point::new(answer.batch as f64, answer.floor_ms?)));
    batches.push(Series::new("floor", "grey", floor.collect()).drawn("dashed"));
    let note = format!(
        "medians, bars to the quartiles; floor: the most that {} could do on this machine",
        best.engine
    );
    let [x, y] = BY_BATCH;
    let batches = Chart::lines(("Time for a look-up", &note), x, y, batches);
    let note = format!("batches of {}, medians", best.batch);
    let (x, y) = (("threads", Unit::Count), ("look-ups a second", Unit::Count));
    let threads = Chart::lines(("More threads", &note), x, y, threads);
    vec![batches.over_counts(), threads.over_counts()]
}

fn gpu_charts(gpu: &Gpu) -> Vec<Chart> {
    let of = |point: fn(&GpuAnswer, f64) -> Point| {
        gpu.answers.iter().map(|answer| point(answer, answer.batch as f64)).collect()
    };
    let batches = vec![
        Series::new("alone", "blue", of(|answer, x| spread(x, &answer.alone_us, |us| us / 1e3))),
        Series::new(
            "streamed",
            "teal",
            of(|answer, x| spread(x, &answer.streamed_us, |us| us / 1e3)),
        ),
        Series::new("floor", "grey", of(|answer, x| Point::new(x, answer.floor_us / 1e3)))
            .drawn("dashed"),
    ];
    let note = "batches one at a time, and many in flight; medians, bars to the quartiles";
    let [x, y] = BY_BATCH;
    let batches = Chart::lines(("Time for a look-up", note), x, y, batches).over_counts();
    let of = |y: fn(&GpuLoop) -> f64| {
        gpu.traffic.loops.iter().map(|each| Point::new(each.queries_per_s, y(each))).collect()
    };
    let traffic = vec![
        Series::new("p99", "orange", of(|each| each.p99_ms)),
        Series::new("p50", "blue", of(|each| each.median_ms)),
    ];
    let note = format!("random look-ups for {} shards, more and more at once", gpu.traffic.shards);
    let (x, y) = (("answered a second", Unit::Count), ("latency", Unit::Ms));
    vec![batches, Chart::lines(("Latency", &note), x, y, traffic)]
}

fn build_chart(build: &Build) -> Vec<Chart> {
    let (build_ms, verify_ms) = (build.seconds.median * 1e3, build.verify_seconds.median * 1e3);
    let times = vec![("build", build_ms), ("verify every byte", verify_ms)];
    let rows = vec![(format!("threads: {}", build.threads), times)];
    vec![Chart::rows(Kind::Stack, ("A database", "medians"), ("time", Unit::Ms), rows)]
}

fn startup_chart(startup: &Startup) -> Vec<Chart> {
    let row = |(state, started): (&str, &Started)| {
        let listening = started.listening_ms.median;
        let ready = started.ready_ms.median.max(listening);
        let answer = started.first_answer_ms.median.max(ready);
        let (readied, answered) =
            (("is ready", ready - listening), ("has answered", answer - ready));
        (state.to_owned(), vec![("listens", listening), readied, answered])
    };
    let rows = [("warm", &startup.warm), ("cold", &startup.cold)].map(row).into();
    let note = "until it listens, is ready, has answered; cold: no file in memory; medians";
    let x = ("time from its start", Unit::Ms);
    vec![Chart::rows(Kind::Stack, ("A server", note), x, rows)]
}

fn reload_chart(reload: &Reload) -> Vec<Chart> {
    let rows = reload.changes.iter().map(|change| {
        let (bytes, of) = (Unit::Bytes.show(change.bytes as f64), reload.content.shards);
        let slowest = ("slowest look-up", change.lookup_ms_max);
        let times = vec![("reload", change.reload_ms.median), slowest];
        (format!("{} of {of} shards new, {bytes}", change.shards), times)
    });
    let note = "until it is served, the median; of the look-ups meanwhile, the slowest";
    let title = ("A new epoch", note);
    vec![Chart::rows(Kind::Dots, title, ("time", Unit::Ms), rows.collect())]
}
