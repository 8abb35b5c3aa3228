//! What a client does after each thing that can happen to a request (docs/wire.md, "Retries"), and
//! how long it goes on without any server.
//!
//! The rule behind every row is docs/scheme.md, "Secrets": the identical bytes may go out any
//! number of times, a second ciphertext under one secret never. So a client either sends identical
//! bytes again ([`Action::Resend`]) or fetches new parameters ([`Action::Refresh`]), after which a
//! look-up keeps its bytes or gets a whole new secret. Nothing here depends on a decoded value:
//! decoding begins when every query of the call is finished.

use std::time::Duration;

use tokio::time::Instant;

use super::error::{ClientError, LookupError};
use crate::limits;
use crate::wire::Status;

/// What came of a request instead of its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A reply with another status than success, and its `retry_after_ms`.
    #[expect(missing_docs, reason = "the fields are those of the reply")]
    Refused { status: Status, retry_after: Duration },
    /// No answer in time.
    TimedOut,
    /// The stream ended, was reset or carried something else than an answer.
    StreamLost,
    /// The connection ended, or none could be made.
    ConnectionLost,
    /// The server closed the connection because of who calls.
    NotAllowed,
    /// The server has not the epoch yet that another one has.
    Behind,
}

/// An attempt that brought no answer.
#[derive(Debug, Clone)]
pub struct FailedAttempt {
    /// What happened.
    pub event: Event,
    /// The event in words.
    pub detail: String,
}

impl FailedAttempt {
    /// What a refusal means by the epoch that was asked for and the one that the server said: one
    /// that has not come to it yet says a smaller one.
    pub fn of_epochs(self, asked: u64, said: u64) -> Self {
        match self.event {
            Event::Refused { status: Status::EpochGone, .. } if said < asked => {
                Self { event: Event::Behind, ..self }
            }
            _ => self,
        }
    }
}

/// No connection could be made.
impl From<ClientError> for FailedAttempt {
    fn from(error: ClientError) -> Self {
        Self { event: Event::ConnectionLost, detail: error.to_string() }
    }
}

/// Where identical bytes go. Of several wishes the later one in this list counts.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Via {
    /// The connection in use.
    #[default]
    Same,
    /// A new connection, to the same server or another.
    Reconnect,
    /// Another replica where there is one, else a new connection to the only server.
    Replica,
}

/// What to do after a failed attempt, and how long from now.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "`wait` is the time until then, `via` the way")]
pub enum Action {
    /// Send the identical bytes again.
    Resend { via: Via, wait: Duration },
    /// Fetch parameters. Look-ups that they do not concern keep their bytes.
    Refresh { wait: Duration },
    /// Give the look-up up.
    Fail(LookupError),
}

/// The row of docs/wire.md, "Retries", for an attempt that failed, after `attempts` sendings (the
/// first one included) to a database with `replicas` known addresses.
pub fn action(failed: &FailedAttempt, attempts: u32, replicas: usize) -> Action {
    let action = row(failed, attempts, replicas);
    if attempts < limits::ATTEMPTS_MAX || matches!(action, Action::Fail(_)) {
        return action;
    }
    Action::Fail(LookupError::Exhausted { attempts, last: failed.detail.clone() })
}

fn row(failed: &FailedAttempt, attempts: u32, replicas: usize) -> Action {
    let detail = || failed.detail.clone();
    let (status, retry_after) = match failed.event {
        Event::Refused { status, retry_after } => (status, retry_after),
        // Each server may have a list of its own.
        Event::NotAllowed if (attempts as usize) < replicas => {
            return Action::Resend { via: Via::Replica, wait: Duration::ZERO };
        }
        Event::NotAllowed => return Action::Fail(LookupError::NotAllowed { reason: detail() }),
        Event::Behind if replicas > 1 => {
            return Action::Resend { via: Via::Replica, wait: pause(attempts) };
        }
        Event::Behind => return Action::Refresh { wait: pause(attempts) },
        event @ (Event::TimedOut | Event::StreamLost | Event::ConnectionLost) => {
            // The bytes may have arrived and been answered; the same bytes again tell no more. A
            // server that lost one stream is there; one that is silent is not.
            let elsewhere = replicas > 1 && (attempts > 1 || event != Event::StreamLost);
            let via = if elsewhere { Via::Replica } else { Via::Reconnect };
            return Action::Resend { via, wait: pause(attempts) };
        }
    };
    let wait = wait_for(retry_after, attempts);
    let elsewhere = if replicas > 1 { Via::Replica } else { Via::Same };
    match status {
        Status::Overloaded | Status::Device => Action::Resend { via: elsewhere, wait },
        Status::Quota | Status::Deadline => Action::Resend { via: Via::Same, wait },
        Status::EpochGone => Action::Refresh { wait: pause(attempts) },
        Status::ShardUnknown if replicas > 1 => {
            Action::Resend { via: Via::Replica, wait: pause(attempts) }
        }
        Status::ShardUnknown => Action::Fail(LookupError::ShardUnknown),
        // The link has forgotten the bundle, so that it goes out before the query.
        Status::KeyMissing => Action::Resend { via: Via::Same, wait: pause(attempts) },
        Status::Draining => Action::Resend { via: Via::Replica, wait },
        // To try again at once would only repeat it.
        Status::Malformed => Action::Fail(LookupError::Malformed { detail: detail() }),
        _ => Action::Fail(LookupError::Refused { status: detail() }),
    }
}

/// The server's wish, within bounds; where it has none, a wait that doubles.
fn wait_for(retry_after: Duration, attempts: u32) -> Duration {
    match retry_after.is_zero() {
        true => backoff(attempts),
        false => retry_after.clamp(limits::RETRY_WAIT_MIN, limits::RETRY_WAIT_MAX),
    }
}

/// No wait before the second attempt, which is expected to succeed; then a wait that doubles.
fn pause(attempts: u32) -> Duration {
    if attempts <= 1 { Duration::ZERO } else { backoff(attempts) }
}

/// A wait that doubles with every attempt.
pub(super) fn backoff(attempts: u32) -> Duration {
    let doubled = limits::RETRY_WAIT_MIN.saturating_mul(1 << attempts.min(10));
    doubled.min(limits::RETRY_WAIT_MAX)
}

/// The time since a server was last heard, if none is heard now: counted once for a whole call, of
/// which all waits for the same servers. The log gets one line when it begins and one when it ends.
#[derive(Debug)]
pub(super) struct Outage {
    longest: Duration,
    begun: Option<Instant>,
    last: String,
}

impl Outage {
    pub(super) fn new(longest: Duration) -> Self {
        Self { longest, begun: None, last: String::new() }
    }

    /// What came of requests: whether anything was heard, and why their connection seems lost.
    pub(super) fn note(&mut self, heard: bool, lost: Option<&str>) {
        match lost {
            _ if heard => self.heard(),
            Some(reason) => self.silent(reason, Instant::now()),
            None => {}
        }
    }

    /// Something came from a server.
    fn heard(&mut self) {
        if self.begun.take().is_some() {
            tracing::warn!("the server answers again: going on");
        }
    }

    /// There is no connection, or nothing came over it. The time counts from the first of these.
    pub(super) fn silent(&mut self, reason: &str, now: Instant) {
        reason.clone_into(&mut self.last);
        if self.begun.is_none() {
            self.begun = Some(now);
            let seconds = self.longest.as_secs_f32().ceil();
            tracing::warn!("server lost ({reason}): trying to reach it for {seconds} s");
        }
    }

    /// How much longer to try.
    pub(super) fn left(&self, now: Instant) -> Result<Duration, ClientError> {
        let lasting = self.begun.map_or(Duration::ZERO, |begun| now - begun);
        match self.longest.checked_sub(lasting) {
            Some(left) if !left.is_zero() => Ok(left),
            _ => Err(ClientError::Unreachable { tried: self.longest, last: self.last.clone() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(event: Event, attempts: u32, replicas: usize) -> Action {
        action(&FailedAttempt { event, detail: "why".into() }, attempts, replicas)
    }

    #[test]
    fn every_row_of_the_table() {
        let ms = Duration::from_millis;
        let said = |status, after| Event::Refused { status, retry_after: ms(after) };
        let same = |wait| Action::Resend { via: Via::Same, wait: ms(wait) };
        let away = |wait| Action::Resend { via: Via::Replica, wait: ms(wait) };
        let again = || Action::Resend { via: Via::Reconnect, wait: Duration::ZERO };
        let refresh = || Action::Refresh { wait: Duration::ZERO };
        let fail = Action::Fail;
        let refused = || LookupError::NotAllowed { reason: "why".into() };
        let malformed = || LookupError::Malformed { detail: "why".into() };
        let other = || LookupError::Refused { status: "why".into() };
        let rows = [
            (said(Status::Overloaded, 700), same(700), away(700)),
            (said(Status::Quota, 700), same(700), same(700)),
            (said(Status::EpochGone, 0), refresh(), refresh()),
            (said(Status::ShardUnknown, 0), fail(LookupError::ShardUnknown), away(0)),
            (said(Status::KeyMissing, 0), same(0), same(0)),
            (said(Status::Deadline, 300), same(300), same(300)),
            (said(Status::Draining, 300), away(300), away(300)),
            (said(Status::Device, 300), same(300), away(300)),
            (said(Status::Malformed, 0), fail(malformed()), fail(malformed())),
            // Success of another kind of request is no answer to this one.
            (said(Status::SchemeMatched, 0), fail(other()), fail(other())),
            (said(Status::ResponseSuccess, 0), fail(other()), fail(other())),
            (Event::TimedOut, again(), away(0)),
            (Event::StreamLost, again(), again()),
            (Event::ConnectionLost, again(), away(0)),
            (Event::NotAllowed, fail(refused()), away(0)),
            (Event::Behind, refresh(), away(0)),
        ];
        for (event, alone, with_replica) in rows {
            assert_eq!(after(event, 1, 1), alone, "{event:?}, one address");
            assert_eq!(after(event, 1, 2), with_replica, "{event:?}, two addresses");
        }
        assert_eq!(after(Event::NotAllowed, 2, 2), fail(refused()));
    }

    #[test]
    fn attempts_end_and_waits_are_bounded() {
        let week = Duration::from_secs(7 * 86_400);
        for status in [Status::Overloaded, Status::Quota, Status::Draining, Status::Device] {
            let event = Event::Refused { status, retry_after: week };
            for attempts in 1..limits::ATTEMPTS_MAX {
                let Action::Resend { wait, .. } = after(event, attempts, 1) else {
                    panic!("{status:?} is not sent again after {attempts} attempts");
                };
                assert_eq!(wait, limits::RETRY_WAIT_MAX);
            }
            let last = after(event, limits::ATTEMPTS_MAX, 1);
            assert!(matches!(last, Action::Fail(LookupError::Exhausted { .. })), "{last:?}");
        }
        assert!(backoff(1) < backoff(2) && backoff(u32::MAX) <= limits::RETRY_WAIT_MAX);
    }

    #[test]
    fn an_outage_counts_from_its_first_silence_until_something_is_heard() {
        let second = Duration::from_secs(1);
        let start = Instant::now();
        let mut outage = Outage::new(30 * second);
        assert_eq!(outage.left(start + 100 * second).unwrap(), 30 * second);
        outage.silent("first", start);
        outage.silent("second", start + 20 * second);
        assert_eq!(outage.left(start + 29 * second).unwrap(), second);
        let over = outage.left(start + 30 * second);
        let Err(ClientError::Unreachable { tried, last }) = over else { panic!("{over:?}") };
        assert_eq!((tried, &*last), (30 * second, "second"));
        outage.heard();
        outage.silent("third", start + 50 * second);
        assert_eq!(outage.left(start + 60 * second).unwrap(), 20 * second);
    }
}
