//! The page around the sections: head, what it may load (nothing), where its numbers come from.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use sha2::{Digest, Sha256};

use super::chart::Chart;
use crate::found::{Found, Record};
use crate::plan::Plan;
use crate::record::{Machine, ShapeFacts};

use super::number::Unit;

/// The plotting library and what it stands on, as released; bench/report/README.md.
const D3: &str = include_str!("../../report/d3.min.js");
const PLOT: &str = include_str!("../../report/plot.min.js");
const SCRIPT: &str = include_str!("report.js");
const STYLE: &str = include_str!("report.css");

/// What is gathered on the way through the sections.
#[derive(Default)]
pub(super) struct Page {
    charts: Vec<Chart>,
}

/// A number that says most, and what it is.
pub(super) struct Headline {
    pub(super) value: String,
    pub(super) what: String,
    /// Why it is a guess, where it is one.
    pub(super) guess: Option<String>,
}

impl Headline {
    pub(super) fn new(value: String, what: impl Into<String>) -> Self {
        Self { value, what: what.into(), guess: None }
    }
}

pub(super) fn headlines(all: &[Headline]) -> Markup {
    html! {
        dl.headlines {
            @for Headline { value, what, guess } in all {
                div {
                    dt { (what) @if guess.is_some() { " " (mark(guess.as_deref())) } }
                    dd { (value) }
                }
            }
        }
    }
}

/// Beside a number that is extrapolated.
pub(super) fn mark(why: Option<&str>) -> Markup {
    html! {
        @if let Some(why) = why { span.guess title=(why.replace('`', "")) { "extrapolated" } }
    }
}

/// A sentence whose words in backticks are code.
pub(super) fn prose(text: &str) -> Markup {
    html! {
        @for (place, part) in text.split('`').enumerate() {
            @if place % 2 == 1 { code { (part) } } @else { (part) }
        }
    }
}

impl Page {
    /// A place for a chart, with its numbers below; nothing where it would show nothing.
    pub(super) fn figure(&mut self, chart: Chart) -> Markup {
        if chart.is_empty() {
            return html! {};
        }
        let place = self.charts.len();
        let markup = html! {
            figure #{ "chart-" (place) } {
                figcaption {
                    strong { (chart.title()) }
                    @if !chart.note().is_empty() { span { (chart.note()) } }
                }
                (chart.legend())
                div.plot {}
                details {
                    summary { "Numbers" }
                    div.scroll tabindex="0" role="region" aria-label=(chart.title()) {
                        (chart.table())
                    }
                }
            }
        };
        self.charts.push(chart.in_words());
        markup
    }

    pub(super) fn finish(&self, sections: &Markup, records: &[Found], plans: &[Plan]) -> String {
        let scripts = [D3, PLOT, SCRIPT];
        let hash = |script: &str| STANDARD.encode(Sha256::digest(script.as_bytes()));
        let hashes = scripts.map(|script| format!("'sha256-{}'", hash(script))).join(" ");
        // Plot styles what it draws in place.
        let policy = format!(
            "default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; base-uri 'none'; \
             form-action 'none'"
        );
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta http-equiv="Content-Security-Policy" content=(policy);
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    title { "sotto: measured" }
                    style { (PreEscaped(STYLE)) }
                }
                body {
                    header {
                        h1 { "sotto" }
                        p { (subject(records, plans)) }
                    }
                    main { (sections) }
                    (sources(records))
                    script #data type="application/json" { (PreEscaped(self.data())) }
                    @for script in scripts { script { (PreEscaped(script)) } }
                }
            }
        };
        page.into_string()
    }

    /// The charts as JSON that no text in it can end: `<` begins nothing.
    fn data(&self) -> String {
        match serde_json::to_string(&self.charts) {
            Ok(text) => text.replace('<', "\\u003c"),
            Err(error) => panic!("this is a bug: charts are plain data: {error}"),
        }
    }
}

fn subject(records: &[Found], plans: &[Plan]) -> String {
    let mut machines: Vec<String> =
        records.iter().map(|found| machine(found.record.machine())).collect();
    machines.sort();
    machines.dedup();
    let measured = match machines.as_slice() {
        [] => String::new(),
        [one] => format!("Measured on {one}."),
        many => format!("Measured on {} machines.", many.len()),
    };
    match plans.len() {
        0 => measured,
        _ => format!("What it takes to serve, planned from what was measured. {measured}"),
    }
}

/// A machine in a few words.
pub(super) fn machine(machine: &Machine) -> String {
    let cpu = machine.cpu.as_deref().unwrap_or("an unknown processor");
    let cores = if machine.logical_cpus == 1 { "core" } else { "cores" };
    format!("{cpu}, {} {cores}", machine.logical_cpus)
}

/// A record's machine and day.
pub(super) fn measured(found: &Found) -> String {
    let head = found.record.head();
    let day = head.date.as_deref().and_then(|date| date.get(..10));
    let on = day.map(|day| format!(", {day}")).unwrap_or_default();
    format!("{}{on}", machine(&head.machine))
}

/// Shards in a few words.
pub(super) fn shards(count: u64, shape: &ShapeFacts) -> String {
    let records = Unit::Count.show(shape.records_per_shard as f64);
    match count {
        1 => format!("One shard of {records} records"),
        _ => format!("{} shards of {records} records", Unit::Count.show(count as f64)),
    }
}

/// A file's name without its extension.
pub(super) fn stem(found: &Found) -> String {
    found.path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

fn kind(record: &Record) -> &'static str {
    match record {
        Record::Load(_) => "load",
        Record::Kernel(_) => "processor",
        Record::Gpu(_) => "GPU",
        Record::Build(_) => "build",
        Record::Startup(_) => "start",
        Record::Reload(_) => "reload",
    }
}

fn sources(records: &[Found]) -> Markup {
    html! {
        footer {
            details {
                summary { "Where it comes from" }
                div.scroll tabindex="0" role="region" aria-label="Records" {
                    table {
                        thead {
                            tr {
                                @for name in ["record", "of", "machine, day", "commit", "command"] {
                                    th scope="col" { (name) }
                                }
                            }
                        }
                        tbody {
                            @for found in records {
                                @let head = found.record.head();
                                tr {
                                    th scope="row" { (found.path.display()) }
                                    td { (kind(&found.record)) }
                                    td { (measured(found)) }
                                    td { (head.commit.as_deref().unwrap_or("unknown")) }
                                    td { code { (head.command) } }
                                }
                            }
                        }
                    }
                }
            }
            p {
                "Charts: Observable Plot and D3 (ISC licence). bench/README.md says what each "
                "number is and how to measure it again."
            }
        }
    }
}
