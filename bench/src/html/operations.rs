//! What build, startup and reload records say, those of a machine side by side.

use maud::{Markup, html};

use super::chart::{Bars, Chart, Tone, parts};
use super::number::Unit;
use super::page::{Headline, Page, headlines, machine, shards};
use crate::found::{Found, Record};
use crate::record::{Build, Content, Reload, Started, Startup};

pub(super) fn section(page: &mut Page, records: &[Found]) -> Markup {
    let mut machines: Vec<String> = Vec::new();
    for found in records {
        let name = machine(found.record.machine());
        let is_one =
            matches!(found.record, Record::Build(_) | Record::Startup(_) | Record::Reload(_));
        if is_one && !machines.contains(&name) {
            machines.push(name);
        }
    }
    html! {
        @if !machines.is_empty() {
            section {
                h2 { "Building, starting, renewing" }
                p.lead { "How long until there is a database, a server, a new epoch." }
                @for name in &machines {
                    (article(page, name, records))
                }
            }
        }
    }
}

fn article(page: &mut Page, name: &str, records: &[Found]) -> Markup {
    let (mut builds, mut startups, mut reloads) = (Vec::new(), Vec::new(), Vec::new());
    for found in records.iter().filter(|found| machine(found.record.machine()) == name) {
        match &found.record {
            Record::Build(build) => builds.push(&**build),
            Record::Startup(startup) => startups.push(&**startup),
            Record::Reload(reload) => reloads.push(&**reload),
            Record::Load(_) | Record::Kernel(_) | Record::Gpu(_) => {}
        }
    }
    let charts = [build(&builds), startup(&startups), reload(&reloads)];
    html! {
        article {
            p.from { (name) }
            (headlines(&figures(&builds, &startups, &reloads)))
            div.charts { @for chart in charts { (page.figure(chart)) } }
        }
    }
}

fn figures(builds: &[&Build], startups: &[&Startup], reloads: &[&Reload]) -> Vec<Headline> {
    let rate = |build: &&Build| build.content.records as f64 / build.seconds.median;
    let built = builds.iter().map(rate).fold(0.0, f64::max);
    let built = (built > 0.0)
        .then(|| Headline::new(Unit::Count.show(built), "records built a second, at most"));
    let cold = startups.iter().map(|startup| startup.cold.first_answer_ms.median);
    let cold = cold.fold(None, |most: Option<f64>, ms| Some(most.map_or(ms, |most| most.max(ms))));
    let cold = cold.map(|ms| {
        Headline::new(Unit::Ms.show(ms), "from a cold start to the first answer, at most")
    });
    let lookups: u64 = reloads.iter().map(|reload| reload.lookups).sum();
    let lost: u64 = reloads.iter().map(|reload| reload.lost).sum();
    let lost = (lookups > 0).then(|| {
        let what = format!("of {} look-ups lost by reloads", Unit::Count.show(lookups as f64));
        Headline::new(Unit::Count.show(lost as f64), what)
    });
    [built, cold, lost].into_iter().flatten().collect()
}

fn content(content: &Content) -> String {
    shards(content.shards.into(), &content.shape)
}

fn build(builds: &[&Build]) -> Chart {
    let row = |build: &&Build| {
        let times = vec![build.seconds.median * 1e3, build.verify_seconds.median * 1e3];
        let threads =
            if build.threads == 1 { "1 thread" } else { &format!("{} threads", build.threads) };
        (format!("{}, {threads}", content(&build.content)), times)
    };
    let parts = parts(&[("build", Tone::Blue), ("verify every byte", Tone::Teal)]);
    let rows = builds.iter().map(row).collect();
    Chart::Bars(Bars::stacked("A database", "medians", ("time", Unit::Ms), parts, rows))
}

fn startup(startups: &[&Startup]) -> Chart {
    let parts =
        parts(&[("listens", Tone::Grey), ("is ready", Tone::Blue), ("has answered", Tone::Teal)]);
    let row = |startup: &Startup, name: &str, started: &Started| {
        let listening = started.listening_ms.median;
        let ready = started.ready_ms.median.max(listening);
        let answer = started.first_answer_ms.median.max(ready);
        let times = vec![listening, ready - listening, answer - ready];
        (format!("{}, {name}", content(&startup.content)), times)
    };
    let both = |startup: &&Startup| {
        [row(startup, "warm", &startup.warm), row(startup, "cold", &startup.cold)]
    };
    let rows = startups.iter().flat_map(both).collect();
    let note = "until it listens, is ready, has answered; cold: no file in memory; medians";
    Chart::Bars(Bars::stacked("A server", note, ("time from its start", Unit::Ms), parts, rows))
}

fn reload(reloads: &[&Reload]) -> Chart {
    let rows = reloads.iter().flat_map(|reload| {
        reload.changes.iter().map(|change| {
            let of = Unit::Count.show(reload.content.shards.into());
            let changed = Unit::Count.show(change.shards.into());
            let bytes = Unit::Bytes.show(change.bytes as f64);
            let times = vec![change.reload_ms.median, change.lookup_ms_max];
            let name = match change.shards {
                0 => format!("none of {of} shards new"),
                _ => format!("{changed} of {of} shards new, {bytes}"),
            };
            (name, times)
        })
    });
    let parts = parts(&[("reload", Tone::Blue), ("slowest look-up", Tone::Orange)]);
    let note = "until the new epoch is served, the median; of the look-ups meanwhile, the slowest";
    let x = ("time", Unit::Ms);
    Chart::Bars(Bars::dots("A new epoch", note, x, parts, rows.collect()))
}
