//! The template of the page: sections of articles, each with headlines, charts and tables; what the
//! page may load (nothing) and where its numbers come from.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use sha2::{Digest, Sha256};

use super::chart::Chart;
use crate::found::Found;
use crate::plan::Plan;
use crate::record::ShapeFacts;
use crate::table::Table;
use crate::units::Unit;

/// The plotting library and what it stands on, as released (bench/report/README.md), and our own.
const SCRIPTS: [&str; 3] = [
    include_str!("../../report/d3.min.js"),
    include_str!("../../report/plot.min.js"),
    include_str!("report.js"),
];
const STYLE: &str = include_str!("report.css");

pub(super) struct Section {
    pub(super) title: String,
    pub(super) lead: String,
    pub(super) articles: Vec<Article>,
}

/// What belongs together: of one record, or of one machine.
#[derive(Default)]
pub(super) struct Article {
    pub(super) title: String,
    pub(super) from: String,
    pub(super) headlines: Vec<Headline>,
    pub(super) charts: Vec<Chart>,
    pub(super) notes: Vec<String>,
    /// With its caption.
    pub(super) table: Option<(String, Table)>,
    pub(super) numbers: Option<Table>,
    pub(super) text: Option<String>,
}

/// A number that says most, and what it is.
pub(super) struct Headline {
    pub(super) value: String,
    pub(super) what: String,
    /// Why it is a guess, where it is one.
    pub(super) guess: Option<String>,
}

/// A sentence whose words in backticks are code.
fn prose(text: &str) -> Markup {
    html! {
        @for (place, part) in text.split('`').enumerate() {
            @if place % 2 == 1 { code { (part) } } @else { (part) }
        }
    }
}

fn table(caption: &str, Table { rows }: &Table) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label=(caption) {
            table {
                caption { (prose(caption)) }
                thead { tr { @for name in &rows[0] { th scope="col" { (name) } } } }
                tbody {
                    @for row in &rows[1..] {
                        tr {
                            @for (place, cell) in row.iter().enumerate() {
                                @if place == 0 { th scope="row" { (prose(cell)) } }
                                @else { td { (prose(cell)) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn figure(chart: &Chart, place: usize) -> Markup {
    html! {
        figure #{ "chart-" (place) } {
            figcaption { strong { (chart.title) } span { (chart.note) } }
            @if chart.series.len() > 1 {
                ul.legend {
                    @for one in &chart.series { li class=(one.tone) { (one.name) } }
                }
            }
            div.plot {}
        }
    }
}

fn article<'a>(article: &'a Article, data: &mut Vec<&'a Chart>) -> Markup {
    let begin = data.len();
    data.extend(article.charts.iter().filter(|chart| !chart.is_empty()));
    html! {
        article {
            @if !article.title.is_empty() { h3 { (article.title) } }
            p.from { (article.from) }
            dl.headlines {
                @for Headline { value, what, guess } in &article.headlines {
                    div {
                        dt {
                            (what) " "
                            @if let Some(why) = guess {
                                span.guess title=(why.replace('`', "")) { "extrapolated" }
                            }
                        }
                        dd { (value) }
                    }
                }
            }
            div.charts {
                @for (at, chart) in data.iter().enumerate().skip(begin) { (figure(chart, at)) }
            }
            @if let Some((caption, rows)) = &article.table { (table(caption, rows)) }
            @for note in &article.notes { p.from { (prose(note)) } }
            @if let Some(numbers) = &article.numbers {
                details { summary { "All numbers" } (table("All numbers", numbers)) }
            }
            @if let Some(text) = &article.text {
                details {
                    summary { "Every figure, its formula and where its numbers came from" }
                    div.scroll tabindex="0" role="region" aria-label="Figures" { pre { (text) } }
                }
            }
        }
    }
}

pub(super) fn page(sections: &[Section], records: &[Found], plans: &[Plan]) -> String {
    let mut data: Vec<&Chart> = Vec::new();
    let hash = |script: &str| STANDARD.encode(Sha256::digest(script.as_bytes()));
    let hashes = SCRIPTS.map(|script| format!("'sha256-{}'", hash(script))).join(" ");
    // Plot styles what it draws in place.
    let policy = format!(
        "default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; base-uri 'none'; \
         form-action 'none'"
    );
    let body = html! {
        @for Section { title, lead, articles } in sections {
            section {
                h2 { (title) }
                p.lead { (prose(lead)) }
                @for one in articles { (article(one, &mut data)) }
            }
        }
    };
    // No text in it ends it: `<` begins nothing.
    let data = match serde_json::to_string(&data) {
        Ok(text) => text.replace('<', "\\u003c"),
        Err(error) => panic!("this is a bug: charts are plain data: {error}"),
    };
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
                header { h1 { "sotto" } p {
                    @if !plans.is_empty() {
                        "What it takes to serve, planned from what was measured. "
                    }
                    (records.len()) " records; where they come from stands at the end."
                } }
                main { (body) }
                footer {
                    details {
                        summary { "Where it comes from" }
                        (table("Records", &sources(records)))
                    }
                    p {
                        "Charts: Observable Plot and D3 (ISC licence). bench/README.md says what "
                        "each number is and how to measure it again."
                    }
                }
                script #data type="application/json" { (PreEscaped(data)) }
                @for script in SCRIPTS { script { (PreEscaped(script)) } }
            }
        }
    };
    page.into_string()
}

fn sources(records: &[Found]) -> Table {
    let mut table = Table::new(["record", "of", "machine, day", "commit", "command"]);
    for found in records {
        let head = found.record.head();
        table.row([
            found.path.display().to_string(),
            found.record.kind().into(),
            measured(found),
            head.commit.clone().unwrap_or("unknown".into()),
            head.command.clone(),
        ]);
    }
    table
}

fn measured(found: &Found) -> String {
    let head = found.record.head();
    let day = head.date.as_deref().and_then(|date| date.get(..10)).unwrap_or("undated");
    format!("{}, {day}", head.machine.name())
}

/// A record's name, machine and day.
pub(super) fn from(found: &Found) -> String {
    let name = found.path.file_stem().unwrap_or_default().to_string_lossy();
    format!("{name} · {}", measured(found))
}

/// Shards in a few words.
pub(super) fn shards(count: u64, shape: &ShapeFacts) -> String {
    let records = Unit::Count.show(shape.records_per_shard as f64);
    match count {
        1 => format!("One shard of {records} records"),
        _ => format!("{} shards of {records} records", Unit::Count.show(count as f64)),
    }
}
