//! The page for people: what a server is like now, on one page that reads well on a phone.
//!
//! One document, nothing loaded beside it, no scripts; the browser fetches it again now and then.
//! Names of front-ends and engines are the operator's own, and escaped like all that is text.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::gate::host_name;
use super::state::AdminState;
use crate::metrics::Counters;
use crate::server::callers::Callers;
use crate::server::machine::{machine_bytes, resident_bytes};
use crate::server::service::{Service, unix_now};
use crate::server::status::Readiness;
use crate::text::{bytes, duration, grouped};
use crate::wire::Status;
use crate::worker::{EngineKind, EngineReport, EngineState};

/// How often a browser fetches the page again, in seconds.
const AGAIN_AFTER_S: u32 = 5;

pub(super) fn render(admin_state: &AdminState) -> String {
    let readiness = admin_state.readiness();
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="refresh" content=(AGAIN_AFTER_S);
                title { "sotto" }
                style { (PreEscaped(include_str!("page.css"))) }
            }
            body {
                @match admin_state.server.get() {
                    None => {
                        (header("starting", "busy", &[]))
                        (reasons(&readiness))
                    }
                    Some(watched) => (served(&watched.service, &readiness)),
                }
                footer {
                    "Fetched again every " (AGAIN_AFTER_S) " seconds. For machines:"
                    @for path in ["/metrics", "/readyz", "/livez", "/startupz"] {
                        " " a href=(path) { (path) }
                    }
                }
            }
        }
    };
    page.into_string()
}

fn served(service: &Service, readiness: &Readiness) -> Markup {
    let (epoch, engines) = (service.epochs.epoch(), service.queue.engines(Instant::now()));
    let (state, class) = match (readiness.missing.is_empty(), service.draining()) {
        (_, true) => ("leaving", "busy"),
        (true, false) => ("ready", "good"),
        (false, false) => ("not ready", "bad"),
    };
    let facts = [
        host_name(),
        format!("epoch {epoch}"),
        format!("up for {}", duration(service.started.0.elapsed())),
        certificate(service.certificate_expiry()),
        concat!("version ", env!("CARGO_PKG_VERSION")).into(),
    ];
    html! {
        (header(state, class, &facts))
        (reasons(readiness))
        (traffic(service))
        h2 { "Engines" }
        div class="cards wide" { @for engine in &engines { (engine_card(engine)) } }
        (database(service))
        (front_ends(service))
        h2 { "Not answered since the start" }
        (refusals(&service.counters))
        h2 { "Memory" }
        (memory(service))
    }
}

fn header(state: &str, class: &str, facts: &[String]) -> Markup {
    html! {
        header {
            h1 { "sotto" }
            span class={ "state " (class) } { (state) }
            p { (facts.join(" · ")) }
        }
    }
}

fn reasons(Readiness { missing, notes }: &Readiness) -> Markup {
    html! {
        @for (lines, class) in [(missing, "bad"), (notes, "busy")] {
            @if !lines.is_empty() {
                ul class={ "why " (class) } { @for line in lines { li { (line) } } }
            }
        }
    }
}

fn certificate(expires: Option<i64>) -> String {
    match expires.map(|expires| expires - unix_now() as i64) {
        None => "certificate without an end".into(),
        Some(left) if left <= 0 => "CERTIFICATE EXPIRED".into(),
        Some(left) => {
            format!("certificate good for {}", duration(Duration::from_secs(left as u64)))
        }
    }
}

fn traffic(service: &Service) -> Markup {
    let answered = service.counters.queries.get(Status::ResponseSuccess);
    let bundles = service.bundles().count();
    html! {
        h2 { "Queries" }
        div class="cards" {
            (card("queries answered", &grouped(answered), "since the start"))
            (card("queries waiting", &count(service.queue.queued()), "for an engine"))
            (card("requests in flight", &count(*service.streams.borrow()), "streams open"))
            (card("connections", &count(service.connections.count()), "served"))
            (card("key bundles", &count(bundles), "kept"))
        }
    }
}

fn count(number: usize) -> String {
    grouped(number as u64)
}

fn engine_card(EngineReport { name, kind, state, busy, proven }: &EngineReport) -> Markup {
    let up = *state == EngineState::Up;
    let (state, class) = if up { ("up", "good") } else { ("failed, being recreated", "bad") };
    let doing = match busy {
        _ if !up => "takes no queries".into(),
        Some(busy) => format!("at work for {}", duration(*busy)),
        None => "waits for work".into(),
    };
    let proven = proven.map_or("known-answer test not passed yet".into(), |ago| {
        format!("passed its known-answer test {} ago", duration(ago))
    });
    html! {
        div class="card" {
            h3 { (name) }
            p { span class={ "state " (class) } { (state) } }
            p { (doing) "; " (proven) }
            @if let EngineKind::Device(held) = kind {
                p {
                    (count(held.shards)) " shards on it, "
                    (bytes(held.bytes)) " of " (bytes(held.bytes_max))
                }
            }
        }
    }
}

fn database(service: &Service) -> Markup {
    let database = service.epochs.database();
    let (served, on_disk) = (database.epoch(), service.expected_epoch.load(Ordering::Relaxed));
    let expected = match (served == on_disk, service.refused_reload().is_some()) {
        (true, false) => "the one on disk".into(),
        (false, false) => format!("{on_disk} on disk"),
        // The reason is above.
        (true, true) => "what is on disk is refused".into(),
        (false, true) => format!("{on_disk} on disk, refused"),
    };
    let left = Duration::from_secs(database.manifest().lifetime().left(unix_now()));
    let quarantined = format!("{} taken out as damaged", count(service.epochs.quarantined()));
    let shards = match (database.held().len(), database.shard_count() as usize) {
        (held, all) if held < all => format!("{} of {}", count(held), count(all)),
        (all, _) => count(all),
    };
    html! {
        h2 { "Database" }
        div class="cards" {
            (card("epoch", &served.to_string(), &expected))
            (card("accepted for", &duration(left), "then sign it again"))
            (card("shards", &shards, &quarantined))
        }
    }
}

fn front_ends(service: &Service) -> Markup {
    let connected = service.connected.list();
    let rows = connected.iter().map(|(name, share, connections)| {
        vec![name.to_string(), grouped((*share).into()), count(*connections)]
    });
    html! {
        h2 { "Front-ends" }
        @if !matches!(*service.callers(), Callers::Known(_)) {
            p class="none" { "Callers are not known here." }
        } @else if connected.is_empty() {
            p class="none" { "None is connected." }
        }
        @if !connected.is_empty() { (table(&["name", "share", "connections"], rows)) }
    }
}

fn refusals(counters: &Counters) -> Markup {
    let rows = not_answered(counters);
    let is_empty = rows.is_empty();
    let rows = rows.into_iter().map(|(what, count)| vec![what, grouped(count)]);
    html! {
        @if is_empty { p class="none" { "Nothing." } } @else { (table(&["what", "count"], rows)) }
    }
}

/// Queries by their outcome, refusals by their reason too, and who was not let in.
fn not_answered(counters: &Counters) -> Vec<(String, u64)> {
    let failed = Status::ALL.into_iter().filter(|status| *status != Status::ResponseSuccess);
    let outcomes = failed.map(|status| {
        let name = status.name().to_ascii_lowercase().replace('_', " ");
        (name, counters.queries.get(status))
    });
    let reasons = [
        ("refused: the queue is full", &counters.refused_queue_full),
        ("refused: a front-end's part of it is", &counters.refused_front_end_full),
        ("refused: a connection's part of it is", &counters.refused_connection_full),
        ("refused: would come too late", &counters.refused_too_late),
        ("refused: no room for answers", &counters.refused_no_answer_room),
        ("refused: damaged and taken out", &counters.refused_quarantined),
        ("taken out of the queue: nobody waits any more", &counters.queries_cancelled),
        ("connections refused: too many", &counters.connections_refused),
        ("connections refused: too many of a front-end", &counters.front_end_connections_refused),
        ("connections refused: not on the list", &counters.callers_refused),
        ("handshakes failed", &counters.handshakes_failed),
    ];
    let reasons = reasons.map(|(what, counter)| (what.to_owned(), counter.get()));
    outcomes.chain(reasons).filter(|(_, count)| *count > 0).collect()
}

fn memory(service: &Service) -> Markup {
    let budget = service.bounds.memory(&service.shape).parts();
    let parts = service.memory_used().parts().into_iter().zip(budget);
    let parts = parts.map(|((part, used), (_, most))| (part, used, Some(most)));
    let process = resident_bytes().unwrap_or_default();
    let process = ("the process, with shards it looks at", process, machine_bytes());
    let rows = std::iter::once(process).chain(parts).map(|(what, used, most)| {
        let what = if what == "bundles" { "key bundles" } else { what };
        vec![what.into(), bytes(used), most.map_or("no bound is known".into(), bytes)]
    });
    table(&["what", "used", "at most"], rows)
}

fn card(what: &str, value: &str, more: &str) -> Markup {
    html! {
        div class="card" { span { (what) } b { (value) } span { (more) } }
    }
}

/// The first cell of each row is its name.
fn table(heads: &[&str], rows: impl Iterator<Item = Vec<String>>) -> Markup {
    html! {
        table {
            thead { tr { @for head in heads { th { (head) } } } }
            tbody {
                @for row in rows {
                    tr { th { (row[0]) } @for value in &row[1..] { td { (value) } } }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_and_certificates_that_expired_are_named() {
        let name = "<a href=\"x\">&".to_owned();
        let page = table(&["name"], [vec![name]].into_iter()).into_string();
        assert!(page.contains("<th>&lt;a href=&quot;x&quot;&gt;&amp;</th>"), "{page}");
        assert_eq!(certificate(Some(0)), "CERTIFICATE EXPIRED");
    }
}
