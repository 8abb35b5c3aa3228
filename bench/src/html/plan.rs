//! What a plan says: hosts, money and what binds, by shape of shards; each figure with its formula.

use super::chart::{Chart, Kind, Point, Series};
use super::page::{Article, Headline, Section, shards};
use super::records::valid;
use crate::found::{Found, Record};
use crate::load::Trial;
use crate::plan::{Figure, GpuPlan, HostPlan, PACKS_NOTE, Plan, ShapePlan, packs_table};
use crate::units::Unit;

pub(super) fn section(plan: &Plan, records: &[Found]) -> Option<Section> {
    let first = plan.shapes.first()?;
    let money = Unit::Money(plan.prices.currency.clone());
    let mut notes: Vec<String> = plan.warnings.iter().chain(&first.warnings).cloned().collect();
    if let GpuPlan::NotMeasured { why } = &first.gpu {
        notes.push(format!("With GPUs: {why}"));
    }
    notes.push(format!("Prices: {}", plan.prices.about));
    let article = Article {
        title: shards(first.shards, &first.shape),
        from: format!(
            "the shape that the scenario names first, on hosts of the kind {}",
            first.cpu.host
        ),
        headlines: headlines(plan, &first.cpu, &money),
        charts: vec![cost(plan, money), needs(plan), batches(first, records), moved(plan)],
        notes,
        table: Some((PACKS_NOTE.into(), packs_table(first))),
        numbers: None,
        text: Some(plan.text(true)),
    };
    Some(Section {
        title: format!("What it takes: {}", plan.scenario.name),
        lead: plan.scenario.about.clone(),
        articles: vec![article],
    })
}

fn headlines(plan: &Plan, host: &HostPlan, money: &Unit) -> Vec<Headline> {
    let one = |figure: &Figure, unit: &Unit, what: String| Headline {
        value: unit.show(figure.value),
        what,
        guess: figure.extrapolated.clone(),
    };
    let hosts = format!(
        "hosts, {} of them in reserve; {} {}; bound by {}",
        host.reserve,
        Unit::Count.show(host.units.value),
        host.units.name,
        host.binds.name()
    );
    // The peak stands last.
    let peak = plan.demand.last().map(|peak| one(peak, &Unit::Count, peak.name.clone()));
    let rest = [
        one(&host.hosts, &Unit::Count, hosts),
        one(&host.cost_million, money, "for a million look-ups".into()),
        one(&host.cost_month, money, "a month".into()),
    ];
    peak.into_iter().chain(rest).collect()
}

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

fn cost(plan: &Plan, money: Unit) -> Chart {
    let rows = hosts(plan).into_iter().map(|(name, host)| {
        // Of a month's cost, to a million look-ups' part of it.
        let scale = host.cost_million.value / host.cost_month.value.max(f64::MIN_POSITIVE);
        let costs = host.costs.iter();
        (name, costs.map(|cost| (&*cost.name, cost.value * scale)).collect())
    });
    let title = ("Cost by shape", "smaller shards hide a look-up in a smaller crowd");
    Chart::rows(Kind::Stack, title, ("for a million look-ups", money), rows.collect())
}

fn needs(plan: &Plan) -> Chart {
    // The last dot is the number of the plan, as its headline has it.
    let rows = hosts(plan).into_iter().map(|(name, host)| {
        let mut needs: Vec<_> = host.needs.iter().collect();
        needs.sort_by_key(|need| need.resource);
        let needs = needs.into_iter().map(|need| (need.resource.name(), need.hosts.value));
        let name = format!("{name}: {} planned", Unit::Count.show(host.hosts.value));
        (name, needs.chain([("planned", host.hosts.value)]).collect())
    });
    let note = "hosts that each resource alone would take; the most decides, and the plan adds \
                whole hosts and those in reserve";
    let x = ("hosts", Unit::Count);
    let mut chart = Chart::rows(Kind::Dots, ("What binds", note), x, rows.collect());
    chart.series.iter_mut().filter(|one| one.name == "planned").for_each(|one| one.tone = "ink");
    chart
}

/// The model's queries a batch, and what servers of like shards had.
fn batches(plan: &ShapePlan, records: &[Found]) -> Chart {
    let curve = plan.cpu.curve.iter();
    let model = curve.map(|point| Point::new(point.utilisation, point.batch)).collect();
    let mut series = vec![Series::new("planned", "blue", model).drawn("dashed")];
    for found in records {
        let Record::Load(report) = &found.record else { continue };
        // Nearly this shard, whatever the cores: each over the share of its own limit.
        let (ours, theirs) = (&plan.shape, &report.server.shape);
        let columns = f64::from(ours.columns) / f64::from(theirs.columns);
        if (ours.pack_rows, ours.packs) != (theirs.pack_rows, theirs.packs)
            || plan.shards != u64::from(report.server.shards)
            || !(0.9..1.1).contains(&columns)
        {
            continue;
        }
        let Some(limit) = &report.limit else { continue };
        let point = |trial: &&Trial| {
            let server = trial.server.filter(|_| trial.rate <= limit.rate * 1.001)?;
            Some(Point::new(trial.throughput / limit.rate, server.batch_mean))
        };
        let points: Vec<Point> = valid(report).iter().filter_map(point).collect();
        if !points.is_empty() {
            series.push(Series::new("measured", "orange", points).drawn("points"));
        }
    }
    let note = "queries that one reading of a shard answers, on one host; dots: measured servers \
                of like shards";
    let x = ("of the rate at which the objective is just met", Unit::Share);
    Chart::lines(("Batch size", note), x, ("queries a batch", Unit::Count), series)
}

/// What a device sends and receives a day.
fn moved(plan: &Plan) -> Chart {
    let rows = plan.by_size().into_iter().map(|shape| {
        let bytes = shape.device.iter().filter(|figure| figure.unit == "bytes");
        (name(shape), bytes.map(|figure| (&*figure.name, figure.value)).collect())
    });
    Chart::rows(
        Kind::Stack,
        ("What a device moves", ""),
        ("a device, a day", Unit::Bytes),
        rows.collect(),
    )
}
