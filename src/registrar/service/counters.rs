//! What a registrar counts. Labels come from closed sets; none says who asked or about whom.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::https::{Counter, Sample, labels};
use crate::registrar::registrations::Transition;

labels! {
    /// What was asked.
    Route {
        Register "register"
        Show "show"
        Enter "enter"
        Resend "resend"
        Heartbeats "heartbeats"
        Withdraw "withdraw"
        Prefer "prefer"
        Event "event"
        Mine "mine"
        Other "other"
    }
}

labels! {
    /// The first digit of a status.
    Class { Done "2xx" Other "3xx" Refused "4xx" Failed "5xx" }
}

labels! {
    /// What came of something that may fail.
    Outcome { Done "done" Failed "failed" }
}

labels! {
    /// What came of handing statements to the log.
    Submission {
        Done "done"
        /// It says no.
        Refused "refused"
        /// It does not answer, or with something else than a log does.
        Away "away"
        /// The registrar's own database.
        Failed "failed"
    }
}

/// No more codes of refusals are told apart; the registrar has fewer.
const CODES_MAX: usize = 100;

/// Everything a registrar counts.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    requests: [[Counter; Class::ALL.len()]; Route::ALL.len()],
    transitions: [Counter; Transition::ALL.len()],
    events: [Counter; Outcome::ALL.len()],
    reloads: [Counter; Outcome::ALL.len()],
    chores: [Counter; Outcome::ALL.len()],
    submissions: [Counter; Submission::ALL.len()],
    /// By the `code` of the problem.
    refusals: Mutex<BTreeMap<String, u64>>,
    /// Seconds since the oldest line was made that no batch has yet.
    pub(crate) feed_age: AtomicU64,
    /// Events that another discovery provider has not acknowledged.
    pub(crate) events_pending: AtomicU64,
    /// Statements that the log has not acknowledged, and the age of the oldest in seconds.
    pub(crate) log_waiting: AtomicU64,
    pub(crate) log_age: AtomicU64,
}

impl Counters {
    pub(crate) fn request(&self, route: Route, status: u16) {
        let class = match status {
            200..300 => Class::Done,
            400..500 => Class::Refused,
            500.. => Class::Failed,
            _ => Class::Other,
        };
        self.requests[route as usize][class as usize].add(1);
    }

    pub(crate) fn refusal(&self, code: &str) {
        let mut refusals = self.refusals();
        if let Some(count) = refusals.get_mut(code) {
            *count += 1;
        } else if refusals.len() < CODES_MAX {
            refusals.insert(code.to_owned(), 1);
        }
    }

    pub(crate) fn transitions(&self, to: Transition, count: u64) {
        self.transitions[to as usize].add(count);
    }

    pub(crate) fn event(&self, outcome: Outcome) {
        self.events[outcome as usize].add(1);
    }

    pub(crate) fn reload(&self, outcome: Outcome) {
        self.reloads[outcome as usize].add(1);
    }

    pub(crate) fn chore(&self, outcome: Outcome) {
        self.chores[outcome as usize].add(1);
    }

    pub(crate) fn submission(&self, outcome: Submission) {
        self.submissions[outcome as usize].add(1);
    }

    fn refusals(&self) -> MutexGuard<'_, BTreeMap<String, u64>> {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All numbers, for an exporter.
    pub(crate) fn samples(&self) -> Vec<Sample> {
        let mut found = Vec::new();
        let mut add = |name, help, labels: &[(&'static str, &str)], value: f64| {
            let labels = labels.iter().map(|&(label, value)| (label, value.to_owned())).collect();
            found.push(Sample { name, help, labels, value });
        };
        let (name, help) = ("registrar_requests_total", "Requests, and how they ended.");
        for route in Route::ALL {
            for class in Class::ALL {
                let labels = [("route", route.name()), ("status", class.name())];
                let count = self.requests[route as usize][class as usize].get();
                add(name, help, &labels, count as f64);
            }
        }
        let name = "registrar_registrations_total";
        let help = "Registrations by the state that they reached.";
        for to in Transition::ALL {
            add(name, help, &[("to", to.name())], self.transitions[to as usize].get() as f64);
        }
        let (name, help) =
            ("registrar_refusals_total", "Requests refused, by code of the problem.");
        for (code, &count) in &*self.refusals() {
            add(name, help, &[("code", code.as_str())], count as f64);
        }
        for outcome in Submission::ALL {
            let name = "registrar_log_submissions_total";
            let help = "Requests with statements for the log, and how they ended.";
            let count = self.submissions[outcome as usize].get();
            add(name, help, &[("outcome", outcome.name())], count as f64);
        }
        for outcome in Outcome::ALL {
            let labels = [("result", outcome.name())];
            let help = "Attempts to tell another discovery provider of a new holder.";
            add(
                "registrar_events_total",
                help,
                &labels,
                self.events[outcome as usize].get() as f64,
            );
            let help = "Times that files were read again.";
            let value = self.reloads[outcome as usize].get() as f64;
            add("registrar_reloads_total", help, &labels, value);
            let help = "Times that states were updated and old rows erased.";
            let value = self.chores[outcome as usize].get() as f64;
            add("registrar_chores_total", help, &labels, value);
        }
        let help = "Seconds since the oldest statement was made that no batch of the feed has yet.";
        add("registrar_feed_age_seconds", help, &[], gauge(&self.feed_age));
        let help = "Events that another discovery provider has not acknowledged yet.";
        add("registrar_events_pending", help, &[], gauge(&self.events_pending));
        let help = "Statements that the log has not acknowledged yet.";
        add("registrar_log_waiting", help, &[], gauge(&self.log_waiting));
        let help = "Seconds since the oldest of them was vouched for.";
        add("registrar_log_age_seconds", help, &[], gauge(&self.log_age));
        found
    }
}

fn gauge(value: &AtomicU64) -> f64 {
    value.load(Ordering::Relaxed) as f64
}
