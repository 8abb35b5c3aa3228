//! What a client does after each thing that can happen to a request: docs/wire.md, "Retries", as
//! pure logic.
//!
//! No socket, no clock, no secret: an [`Event`] and a count go in, an [`Action`] comes out. The
//! rule behind every row is docs/scheme.md, "Secrets": the identical bytes may go out any number of
//! times, a second ciphertext under one secret never. So the only ways on are identical bytes
//! ([`Action::Resend`], [`Action::ResendBundle`]), or a whole new secret after new parameters
//! ([`Reuse::Fresh`]). Nothing here can see a decoded value, and a look-up that decodes to INVALID
//! never comes here: by then every query of the call is finished. Read next: [`super::call`].

use std::time::Duration;

use crate::limits;
use crate::params::Shape;
use crate::scheme::Seed;
use crate::wire::Status;

/// The kinds of request, which succeed with different statuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RequestKind {
    /// Parameters, or that a key bundle be kept.
    Parameters,
    /// An answer to a query, or a hint.
    Answer,
}

/// What came of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// The server said so, and may have said how long to wait.
    Answered {
        /// What it said.
        status: Status,
        /// Its `retry_after_ms`.
        retry_after: Duration,
    },
    /// No answer in time.
    TimedOut,
    /// The stream ended, was reset or carried something else than an answer.
    StreamLost,
    /// The connection ended, or none could be made.
    ConnectionLost,
    /// The server closed the connection because of who calls.
    NotAllowed,
}

/// Where identical bytes go; what asks for more comes later.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Via {
    /// The connection that is there.
    #[default]
    Same,
    /// A new connection, to the same server or another.
    Reconnect,
    /// Another replica where there is one, else a new connection to the only server.
    Replica,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// The answer is there: keep it, undecoded.
    Keep,
    /// The identical bytes again.
    Resend {
        /// Where.
        via: Via,
        /// How long from now.
        wait: Duration,
    },
    /// The identical bundle bytes, then the identical query.
    ResendBundle {
        /// How long from now.
        wait: Duration,
    },
    /// Fetch parameters; [`reuse`] then says whether the bytes stay.
    Refresh {
        /// How long from now.
        wait: Duration,
    },
    /// This look-up is given up.
    Fail(Failure),
}

/// Why a look-up is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// A defect of ours, says the server, before anything was decoded. Trying again at once would
    /// only repeat it; the key's next regular look-up draws a fresh secret.
    Malformed,
    /// No server that we know holds the shard.
    ShardUnknown,
    /// No server that we know lets this caller in.
    NotAllowed,
    /// A status that a request of this kind never succeeds or waits with.
    Refused(Status),
    /// [`limits::ATTEMPTS_MAX`] attempts, and this is how the last one ended.
    Exhausted,
}

/// The row of docs/wire.md, "Retries", for `event`, after `attempts` sendings (the first one
/// included) to a database with `replicas` known addresses.
pub(crate) fn action(asked: RequestKind, event: Event, attempts: u32, replicas: usize) -> Action {
    let wanted = row(asked, event, attempts, replicas);
    match wanted {
        Action::Keep | Action::Fail(_) => wanted,
        _ if attempts >= limits::ATTEMPTS_MAX => Action::Fail(Failure::Exhausted),
        _ => wanted,
    }
}

fn row(asked: RequestKind, event: Event, attempts: u32, replicas: usize) -> Action {
    let (status, retry_after) = match event {
        Event::Answered { status, retry_after } => (status, retry_after),
        // Each server may have a list of its own, and says the same the next time.
        Event::NotAllowed if (attempts as usize) < replicas => {
            return Action::Resend { via: Via::Replica, wait: Duration::ZERO };
        }
        Event::NotAllowed => return Action::Fail(Failure::NotAllowed),
        Event::TimedOut | Event::StreamLost | Event::ConnectionLost => {
            // The bytes may have arrived and been answered; the same bytes again tell no more. A
            // server that lost one stream is there; one that is silent is not.
            let wait = pause(attempts);
            let elsewhere = replicas > 1 && (attempts > 1 || event != Event::StreamLost);
            let via = if elsewhere { Via::Replica } else { Via::Reconnect };
            return Action::Resend { via, wait };
        }
    };
    let wait = wait_for(retry_after, attempts);
    match status {
        Status::SchemeMatched if asked == RequestKind::Parameters => Action::Keep,
        Status::ResponseSuccess if asked == RequestKind::Answer => Action::Keep,
        Status::Overloaded if replicas > 1 => Action::Resend { via: Via::Replica, wait },
        Status::Overloaded | Status::Quota => Action::Resend { via: Via::Same, wait },
        Status::EpochGone => Action::Refresh { wait: pause(attempts) },
        Status::ShardUnknown if replicas > 1 => {
            Action::Resend { via: Via::Replica, wait: pause(attempts) }
        }
        Status::ShardUnknown => Action::Fail(Failure::ShardUnknown),
        Status::KeyMissing => Action::ResendBundle { wait: pause(attempts) },
        Status::Deadline => Action::Resend { via: Via::Same, wait },
        Status::Device if replicas > 1 => Action::Resend { via: Via::Replica, wait },
        Status::Device => Action::Resend { via: Via::Same, wait },
        Status::Draining => Action::Resend { via: Via::Replica, wait },
        Status::Malformed => Action::Fail(Failure::Malformed),
        other => Action::Fail(Failure::Refused(other)),
    }
}

/// The server's wish, bounded from both sides; where it has none, a wait that doubles.
fn wait_for(retry_after: Duration, attempts: u32) -> Duration {
    if retry_after.is_zero() {
        return backoff(attempts);
    }
    retry_after.clamp(limits::RETRY_WAIT_MIN, limits::RETRY_WAIT_MAX)
}

/// No wait the first time: a row that is expected to succeed at once. Then a wait that doubles.
fn pause(attempts: u32) -> Duration {
    if attempts <= 1 { Duration::ZERO } else { backoff(attempts) }
}

/// A wait that doubles with every attempt.
pub(crate) fn backoff(attempts: u32) -> Duration {
    let doubled = limits::RETRY_WAIT_MIN.saturating_mul(1 << attempts.min(10));
    doubled.min(limits::RETRY_WAIT_MAX)
}

/// What a ciphertext was made for. Equal footing: the same bytes still ask the same question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Footing {
    /// The database.
    pub(crate) seed: Seed,
    /// With the key, gives the shard.
    pub(crate) shard_count: u32,
    /// Columns above all; packs and rows decide what an answer looks like.
    pub(crate) shape: Shape,
    /// With the key, gives the band.
    pub(crate) ribbon_seed: u32,
}

/// Whether the bytes of a look-up stay after new parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reuse {
    /// The identical bytes, under the new epoch.
    Identical,
    /// A new secret, a new bundle and a new query, all of them for this look-up alone.
    Fresh,
}

/// The second half of the EPOCH_GONE row.
pub(crate) fn reuse(was: &Footing, now: &Footing) -> Reuse {
    if was == now { Reuse::Identical } else { Reuse::Fresh }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(status: Status, ms: u64) -> Event {
        Event::Answered { status, retry_after: Duration::from_millis(ms) }
    }

    #[test]
    fn every_row_of_the_table() {
        let answer = |event, replicas| action(RequestKind::Answer, event, 1, replicas);
        let same = |ms| Action::Resend { via: Via::Same, wait: Duration::from_millis(ms) };
        let away = |ms| Action::Resend { via: Via::Replica, wait: Duration::from_millis(ms) };
        let again = Action::Resend { via: Via::Reconnect, wait: Duration::ZERO };
        let now = Duration::ZERO;
        let rows = [
            (said(Status::ResponseSuccess, 0), Action::Keep, Action::Keep),
            (said(Status::Overloaded, 700), same(700), away(700)),
            (said(Status::Quota, 700), same(700), same(700)),
            (
                said(Status::EpochGone, 0),
                Action::Refresh { wait: now },
                Action::Refresh { wait: now },
            ),
            (said(Status::ShardUnknown, 0), Action::Fail(Failure::ShardUnknown), away(0)),
            (
                said(Status::KeyMissing, 0),
                Action::ResendBundle { wait: now },
                Action::ResendBundle { wait: now },
            ),
            (said(Status::Deadline, 300), same(300), same(300)),
            (said(Status::Draining, 300), away(300), away(300)),
            (said(Status::Device, 300), same(300), away(300)),
            (Event::TimedOut, again, away(0)),
            (Event::StreamLost, again, again),
            (Event::ConnectionLost, again, away(0)),
        ];
        for (event, alone, with_replica) in rows {
            assert_eq!(answer(event, 1), alone, "{event:?}, one address");
            assert_eq!(answer(event, 2), with_replica, "{event:?}, two addresses");
        }
        let failed = Action::Fail(Failure::Malformed);
        assert_eq!(answer(said(Status::Malformed, 0), 2), failed);
        let refused = Action::Fail(Failure::NotAllowed);
        assert_eq!(answer(Event::NotAllowed, 1), refused);
        assert_eq!(answer(Event::NotAllowed, 2), away(0));
        assert_eq!(action(RequestKind::Parameters, Event::NotAllowed, 2, 2), refused);
    }

    #[test]
    fn success_is_another_status_for_another_request() {
        let matched = said(Status::SchemeMatched, 0);
        let success = said(Status::ResponseSuccess, 0);
        assert_eq!(action(RequestKind::Parameters, matched, 1, 1), Action::Keep);
        assert_eq!(action(RequestKind::Answer, success, 1, 1), Action::Keep);
        for (asked, event) in [(RequestKind::Answer, matched), (RequestKind::Parameters, success)] {
            let refused = action(asked, event, 1, 1);
            assert!(matches!(refused, Action::Fail(Failure::Refused(_))), "{refused:?}");
        }
    }

    #[test]
    fn attempts_end_and_waits_are_bounded() {
        let week = Duration::from_secs(7 * 86_400);
        for status in [Status::Overloaded, Status::Quota, Status::Draining, Status::Device] {
            let event = Event::Answered { status, retry_after: week };
            for attempts in 1..limits::ATTEMPTS_MAX {
                let Action::Resend { wait, .. } = action(RequestKind::Answer, event, attempts, 1)
                else {
                    panic!("{status:?} is not sent again after {attempts} attempts");
                };
                assert_eq!(wait, limits::RETRY_WAIT_MAX);
            }
            let last = action(RequestKind::Answer, event, limits::ATTEMPTS_MAX, 1);
            assert_eq!(last, Action::Fail(Failure::Exhausted));
        }
        let kept = action(RequestKind::Answer, said(Status::ResponseSuccess, 0), u32::MAX, 1);
        assert_eq!(kept, Action::Keep);
        assert!(backoff(1) < backoff(2) && backoff(u32::MAX) <= limits::RETRY_WAIT_MAX);
    }

    #[test]
    fn bytes_stay_only_on_the_same_footing() {
        let shape = Shape::new(24, 128, 1, 192).unwrap();
        let was = Footing { seed: [7; 32], shard_count: 16, shape, ribbon_seed: 3 };
        assert_eq!(reuse(&was, &was), Reuse::Identical);
        let moved = [
            Footing { seed: [8; 32], ..was },
            Footing { shard_count: 32, ..was },
            Footing { shape: shape.widened().unwrap(), ..was },
            Footing { ribbon_seed: 4, ..was },
        ];
        for now in moved {
            assert_eq!(reuse(&was, &now), Reuse::Fresh, "{now:?}");
        }
    }
}
