//! The page for people: what a server is like now, on one page that reads well on a phone.
//!
//! One document, nothing loaded beside it, no scripts; the browser fetches it again now and then.
//! Names of front-ends and engines are the operator's own, and escaped like all that is text.

use std::fmt::Write as _;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use super::rates::{MINUTE, Rate, Sample};
use super::state::{AdminState, Watched};
use crate::metrics::Gauges;
use crate::server::status::Readiness;
use crate::server::{Callers, Counters, Service, unix_now};
use crate::wire::Status;
use crate::worker::{EngineKind, EngineReport, EngineState};

/// How often a browser fetches the page again, in seconds.
const AGAIN_AFTER_S: u32 = 5;
const SHORT: Duration = Duration::from_secs(10);
const STYLE: &str = include_str!("page.css");

/// The whole page.
pub(super) fn render(admin_state: &AdminState) -> String {
    let mut body = String::new();
    let readiness = admin_state.readiness();
    match admin_state.server() {
        None => {
            head(&mut body, ("starting", "busy"), &[]);
            why(&mut body, &readiness);
        }
        Some(watched) => served(&mut body, watched, &readiness),
    }
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"refresh\" content=\"{AGAIN_AFTER_S}\">\n\
         <title>sotto</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n{body}\
         <footer>Fetched again every {AGAIN_AFTER_S} seconds. For machines: \
         <a href=\"/metrics\">/metrics</a> <a href=\"/readyz\">/readyz</a> \
         <a href=\"/livez\">/livez</a> <a href=\"/startupz\">/startupz</a></footer>\n\
         </body>\n</html>\n"
    )
}

fn served(out: &mut String, watched: &Watched, readiness: &Readiness) {
    let service = &*watched.service;
    let (gauges, engines) = (service.gauges(), service.queue.engines(Instant::now()));
    let state = match (readiness.missing.is_empty(), gauges.draining) {
        (_, true) => ("leaving", "busy"),
        (true, false) => ("ready", "good"),
        (false, false) => ("not ready", "bad"),
    };
    let facts = [
        super::host_name(),
        format!("epoch {}", gauges.epochs.served),
        format!("up for {}", span(service.started.0.elapsed())),
        certificate(gauges.certificate_expiry_timestamp_seconds),
        concat!("version ", env!("CARGO_PKG_VERSION")).into(),
    ];
    head(out, state, &facts);
    why(out, readiness);
    traffic(out, watched, &gauges);
    engine_cards(out, &engines);
    database(out, &gauges, service.refused_reload().as_deref());
    front_ends(out, service);
    refusals(out, &service.counters);
    memory(out, &gauges);
}

fn head(out: &mut String, (state, class): (&str, &str), facts: &[String]) {
    let facts = escape(&facts.join(" · "));
    push(out, format_args!("<header><h1>sotto</h1><span class=\"state {class}\">{state}</span>"));
    push(out, format_args!("<p>{facts}</p></header>\n"));
}

fn why(out: &mut String, Readiness { missing, notes }: &Readiness) {
    for (lines, class) in [(missing, "bad"), (notes, "busy")] {
        if !lines.is_empty() {
            let items: String = lines.iter().map(|l| format!("<li>{}</li>", escape(l))).collect();
            push(out, format_args!("<ul class=\"why {class}\">{items}</ul>\n"));
        }
    }
}

fn certificate(expires: Option<i64>) -> String {
    match expires.map(|expires| expires - unix_now() as i64) {
        None => "certificate without an end".into(),
        Some(left) if left <= 0 => "CERTIFICATE EXPIRED".into(),
        Some(left) => format!("certificate good for {}", span(Duration::from_secs(left as u64))),
    }
}

fn traffic(out: &mut String, watched: &Watched, gauges: &Gauges) {
    let now = Sample::take(Instant::now(), &watched.service.counters);
    let samples = watched.samples.lock().unwrap_or_else(PoisonError::into_inner);
    let (short, minute) = (samples.rate(&now, SHORT), samples.rate(&now, MINUTE));
    drop(samples);
    let both = |of: &dyn Fn(&Rate) -> String| {
        let text = |rate: &Option<Rate>| rate.as_ref().map_or("–".into(), of);
        (text(&short), format!("last minute {}", text(&minute)))
    };
    push(out, format_args!("<h2>The last 10 seconds</h2>\n<div class=\"cards\">\n"));
    let (now, before) = both(&|rate| per_second(rate.answered_per_second));
    card(out, "answered", &now, &before);
    let (now, before) = both(&|rate| per_second(rate.refused_per_second));
    card(out, "not answered", &now, &before);
    let (now, before) = both(&|rate| at_most(rate.seconds_median));
    card(out, "half of the replies within", &now, &before);
    let (now, before) = both(&|rate| at_most(rate.seconds_p99));
    card(out, "99% of the replies within", &now, &before);
    let (now, before) = both(&|rate| bytes(rate.received_bytes_per_second) + "/s");
    card(out, "received", &now, &before);
    let (now, before) = both(&|rate| bytes(rate.sent_bytes_per_second) + "/s");
    card(out, "sent", &now, &before);
    push(out, format_args!("</div>\n<h2>Now</h2>\n<div class=\"cards\">\n"));
    let queued = bytes(gauges.queued_bytes as f64);
    card(out, "queries waiting", &grouped(gauges.queued_queries as u64), &queued);
    card(out, "requests in flight", &grouped(gauges.streams as u64), "streams open");
    let bundles = format!("{} key bundles kept", grouped(gauges.bundles as u64));
    card(out, "connections", &grouped(gauges.connections as u64), &bundles);
    push(out, format_args!("</div>\n"));
}

fn engine_cards(out: &mut String, engines: &[EngineReport]) {
    push(out, format_args!("<h2>Engines</h2>\n<div class=\"cards wide\">\n"));
    for EngineReport { name, kind, state, busy, proven } in engines {
        let up = *state == EngineState::Up;
        let (state, class) = if up { ("up", "good") } else { ("failed, being recreated", "bad") };
        let at_work = busy.map_or("waits for work".into(), |b| format!("at work for {}", ms(b)));
        let doing = if up { at_work } else { "takes no queries".into() };
        let proven = proven.map_or("known-answer test not passed yet".into(), |ago| {
            format!("passed its known-answer test {} ago", span(ago))
        });
        let name = escape(name);
        push(out, format_args!("<div class=\"card\"><h3>{name}</h3>"));
        push(out, format_args!("<p><span class=\"state {class}\">{state}</span></p>"));
        push(out, format_args!("<p>{doing}; {proven}</p>"));
        if let EngineKind::Device(held) = kind {
            let (of, most) = (bytes(held.bytes as f64), bytes(held.bytes_max as f64));
            let shards = grouped(held.shards as u64);
            push(out, format_args!("<p>{shards} shards on it, {of} of {most}</p>"));
        }
        push(out, format_args!("</div>\n"));
    }
    push(out, format_args!("</div>\n"));
}

fn database(out: &mut String, gauges: &Gauges, refused: Option<&str>) {
    let epochs = &gauges.epochs;
    push(out, format_args!("<h2>Database</h2>\n<div class=\"cards\">\n"));
    let expected = match (epochs.served == epochs.expected, refused) {
        (true, None) => "the one on disk".into(),
        (false, None) => format!("{} on disk", epochs.expected),
        // Why is said above.
        (true, Some(_)) => "what is on disk is refused".into(),
        (false, Some(_)) => format!("{} on disk, refused", epochs.expected),
    };
    card(out, "epoch", &epochs.served.to_string(), &expected);
    let left = epochs.expiry_timestamp_seconds.saturating_sub(unix_now());
    card(out, "accepted for", &span(Duration::from_secs(left)), "then sign it again");
    let quarantined = format!("{} taken out as damaged", grouped(epochs.quarantined_shards as u64));
    card(out, "shards", &grouped(gauges.shards.into()), &quarantined);
    let resident = bytes(gauges.resident_bytes as f64);
    card(out, "shards on devices", &grouped(gauges.resident_shards as u64), &resident);
    push(out, format_args!("</div>\n"));
}

fn front_ends(out: &mut String, service: &Service) {
    push(out, format_args!("<h2>Front-ends</h2>\n"));
    let connected = service.connected.list();
    if !matches!(*service.callers(), Callers::Known(_)) {
        push(out, format_args!("<p class=\"none\">Callers are not known here.</p>\n"));
    } else if connected.is_empty() {
        push(out, format_args!("<p class=\"none\">None is connected.</p>\n"));
    }
    if !connected.is_empty() {
        let rows = connected.iter().map(|(name, share, connections)| {
            (&**name, vec![grouped((*share).into()), grouped(*connections as u64)])
        });
        table(out, &["name", "share", "connections"], rows);
    }
}

fn refusals(out: &mut String, counters: &Counters) {
    push(out, format_args!("<h2>Not answered since the start</h2>\n"));
    let rows: Vec<_> = not_answered(counters).into_iter().filter(|(_, count)| *count > 0).collect();
    if rows.is_empty() {
        push(out, format_args!("<p class=\"none\">Nothing.</p>\n"));
        return;
    }
    let rows = rows.iter().map(|(what, count)| (&**what, vec![grouped(*count)]));
    table(out, &["what", "count"], rows);
}

/// What was not answered and why; each thing is counted in one row. Outcomes that have several
/// reasons are told by these, and by what is left where none of them was it.
fn not_answered(counters: &Counters) -> Vec<(String, u64)> {
    let reasons = [
        (Status::Overloaded, "the queue is full", &counters.refused_queue_full),
        (Status::Overloaded, "a front-end's part of it is", &counters.refused_front_end_full),
        (Status::Overloaded, "a connection's part of it is", &counters.refused_connection_full),
        (Status::Overloaded, "would come too late", &counters.refused_too_late),
        (Status::Overloaded, "no room for answers", &counters.refused_no_answer_room),
        (Status::ShardUnknown, "damaged and taken out", &counters.refused_quarantined),
    ];
    let mut rows = Vec::new();
    for status in Status::ALL.into_iter().filter(|status| *status != Status::ResponseSuccess) {
        let name = status.name().to_ascii_lowercase().replace('_', " ");
        let mut left = counters.queries.get(status);
        let of_status = reasons.iter().filter(|(of, ..)| *of == status);
        for (_, reason, counter) in of_status {
            left = left.saturating_sub(counter.get());
            rows.push((format!("{name}: {reason}"), counter.get()));
        }
        rows.push((name, left));
    }
    let others = [
        ("taken out of the queue: nobody waits any more", &counters.queries_cancelled),
        ("connections refused: too many", &counters.connections_refused),
        ("connections refused: too many of a front-end", &counters.front_end_connections_refused),
        ("connections refused: not on the list", &counters.callers_refused),
        ("handshakes failed", &counters.handshakes_failed),
    ];
    rows.extend(others.map(|(what, counter)| (what.to_owned(), counter.get())));
    rows
}

fn memory(out: &mut String, gauges: &Gauges) {
    push(out, format_args!("<h2>Memory</h2>\n"));
    let parts = gauges.memory_used_bytes.iter().zip(&gauges.memory_budget_bytes);
    let parts = parts.map(|(&(part, used), &(_, most))| {
        let part = if part == "bundles" { "key bundles" } else { part };
        (part, used, Some(most))
    });
    let process = gauges.process_resident_memory_bytes;
    let process = ("the process, with shards it looks at", process, gauges.machine_memory_bytes);
    let size = |size: u64| bytes(size as f64);
    let rows = std::iter::once(process).chain(parts).map(|(what, used, most)| {
        (what, vec![size(used), most.map_or("no bound is known".into(), size)])
    });
    table(out, &["what", "used", "at most"], rows);
}

fn card(out: &mut String, what: &str, value: &str, more: &str) {
    let (what, value, more) = (escape(what), escape(value), escape(more));
    push(out, format_args!("<div class=\"card\"><span>{what}</span><b>{value}</b>"));
    push(out, format_args!("<span>{more}</span></div>\n"));
}

fn table<'a>(out: &mut String, heads: &[&str], rows: impl Iterator<Item = (&'a str, Vec<String>)>) {
    let heads: String = heads.iter().map(|head| format!("<th>{head}</th>")).collect();
    push(out, format_args!("<table><thead><tr>{heads}</tr></thead><tbody>\n"));
    for (name, values) in rows {
        let values: String = values.iter().map(|v| format!("<td>{}</td>", escape(v))).collect();
        push(out, format_args!("<tr><th>{}</th>{values}</tr>\n", escape(name)));
    }
    push(out, format_args!("</tbody></table>\n"));
}

fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    let _ = out.write_fmt(text);
}

/// Text as it may stand anywhere in a document.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            _ => out.push(c),
        }
    }
    out
}

/// Thousands apart, by a space that does not break.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push('\u{a0}');
        }
        out.push(digit);
    }
    out
}

fn per_second(rate: f64) -> String {
    match rate {
        0.0 => "0/s".into(),
        ..1.0 => format!("{rate:.2}/s"),
        ..10.0 => format!("{rate:.1}/s"),
        _ => grouped(rate.round() as u64) + "/s",
    }
}

fn bytes(bytes: f64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB"];
    let (mut bytes, mut unit) = (bytes, 0);
    while bytes >= 1000.0 && unit + 1 < units.len() {
        (bytes, unit) = (bytes / 1000.0, unit + 1);
    }
    let digits = usize::from(unit > 0 && bytes < 100.0);
    format!("{bytes:.digits$}\u{a0}{}", units[unit])
}

/// A histogram's bound.
fn at_most(seconds: Option<f64>) -> String {
    match seconds {
        None => "–".into(),
        Some(seconds) if seconds.is_infinite() => "more than 10\u{a0}s".into(),
        Some(seconds) if seconds < 1.0 => format!("{}\u{a0}ms", (seconds * 1e5).round() / 1e2),
        Some(seconds) => format!("{seconds}\u{a0}s"),
    }
}

fn ms(time: Duration) -> String {
    if time < Duration::from_secs(1) { format!("{}\u{a0}ms", time.as_millis()) } else { span(time) }
}

/// The two largest parts of a time.
fn span(time: Duration) -> String {
    let s = time.as_secs();
    let (days, hours, minutes) = (s / 86_400, s / 3_600 % 24, s / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{s}\u{a0}s"),
        (0, 0, minutes) => format!("{minutes}\u{a0}min {}\u{a0}s", s % 60),
        (0, hours, minutes) => format!("{hours}\u{a0}h {minutes}\u{a0}min"),
        (1..100, ..) => format!("{days}\u{a0}d {hours}\u{a0}h"),
        _ => format!("{}\u{a0}days", grouped(days)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped_and_numbers_read_well() {
        assert_eq!(
            escape("<a href='x' id=\"y\">&"),
            "&lt;a href=&#39;x&#39; id=&quot;y&quot;&gt;&amp;"
        );
        assert_eq!(
            [0, 999, 1_000, 1_234_567].map(grouped),
            ["0", "999", "1\u{a0}000", "1\u{a0}234\u{a0}567"]
        );
        assert_eq!([0.0, 0.04, 9.96, 123.4].map(per_second), ["0/s", "0.04/s", "10.0/s", "123/s"]);
        let sizes = [0.0, 999.0, 24_600.0, 242e6, 1.5e15].map(bytes);
        assert_eq!(
            sizes,
            ["0\u{a0}B", "999\u{a0}B", "24.6\u{a0}kB", "242\u{a0}MB", "1500\u{a0}TB"]
        );
        let bounds = [None, Some(1e-4), Some(0.25), Some(2.5), Some(f64::INFINITY)].map(at_most);
        assert_eq!(
            bounds,
            ["–", "0.1\u{a0}ms", "250\u{a0}ms", "2.5\u{a0}s", "more than 10\u{a0}s"]
        );
        let spans = [0, 61, 3_600, 90_000, 8_640_000].map(|s| span(Duration::from_secs(s)));
        let expected = [
            "0\u{a0}s",
            "1\u{a0}min 1\u{a0}s",
            "1\u{a0}h 0\u{a0}min",
            "1\u{a0}d 1\u{a0}h",
            "100\u{a0}days",
        ];
        assert_eq!(spans, expected);
        assert_eq!(certificate(Some(0)), "CERTIFICATE EXPIRED");
    }

    #[test]
    fn what_was_not_answered_is_counted_in_one_row() {
        let counters = Counters::default();
        let refuse = |status, reason: &crate::worker::Counter| {
            counters.queries.add(status);
            reason.add(1);
        };
        refuse(Status::Overloaded, &counters.refused_queue_full);
        refuse(Status::Overloaded, &counters.refused_too_late);
        refuse(Status::ShardUnknown, &counters.refused_quarantined);
        counters.queries.add(Status::ShardUnknown);
        counters.queries.add(Status::Quota);
        counters.queries.add(Status::ResponseSuccess);
        let mut rows = not_answered(&counters);
        rows.retain(|(_, count)| *count > 0);
        let expected = [
            ("overloaded: the queue is full", 1),
            ("overloaded: would come too late", 1),
            ("shard unknown: damaged and taken out", 1),
            ("shard unknown", 1),
            ("quota", 1),
        ];
        assert_eq!(rows, expected.map(|(what, count)| (what.to_owned(), count)));
    }

    #[test]
    fn a_server_that_starts_says_how_far_it_is() {
        let admin_state = AdminState::default();
        let page = render(&admin_state);
        assert!(
            page.contains("the server is starting: opening the database, 0 of 0 shards"),
            "{page}"
        );
        assert!(!page.contains("<script"));
    }
}
