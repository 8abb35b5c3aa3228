//! What a connection waits for, and since when. No IO; the clock is an argument.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::bounds::Bounds;

/// What a connection waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// For the first byte of a request.
    Idle,
    /// For the rest of a request's head.
    Head,
    /// For the rest of a request's body.
    Body,
    /// For the server's own answer.
    Working,
    /// For the peer to take a reply.
    Sending,
    /// The same, where all of the reply was handed to the connection.
    Flushing,
}

/// The phase of one connection, which its parts report to.
#[derive(Debug)]
pub(super) struct State(Mutex<(Phase, Instant)>);

impl State {
    pub(super) fn new(now: Instant) -> Self {
        Self(Mutex::new((Phase::Idle, now)))
    }

    fn lock(&self) -> MutexGuard<'_, (Phase, Instant)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self) -> (Phase, Instant) {
        *self.lock()
    }

    /// Bytes came from the peer.
    pub(super) fn heard(&self, now: Instant) {
        let mut state = self.lock();
        if state.0 == Phase::Idle {
            *state = (Phase::Head, now);
        }
    }

    /// The head of a request is complete; its body is not.
    pub(super) fn asked(&self, now: Instant) {
        *self.lock() = (Phase::Body, now);
    }

    /// The body of a request is complete.
    pub(super) fn received(&self, now: Instant) {
        let mut state = self.lock();
        if state.0 == Phase::Body {
            *state = (Phase::Working, now);
        }
    }

    /// There is a reply.
    pub(super) fn answering(&self, now: Instant) {
        *self.lock() = (Phase::Sending, now);
    }

    /// All of the reply was handed to the connection, which has not yet sent it.
    pub(super) fn answered(&self) {
        let mut state = self.lock();
        if state.0 == Phase::Sending {
            state.0 = Phase::Flushing;
        }
    }

    /// The connection has sent all that was handed to it.
    pub(super) fn flushed(&self, now: Instant) {
        let mut state = self.lock();
        if state.0 == Phase::Flushing {
            *state = (Phase::Idle, now);
        }
    }
}

impl Phase {
    /// How long it may last; none where the server itself is what is waited for.
    pub(super) fn time_max(self, bounds: &Bounds) -> Option<Duration> {
        match self {
            Self::Idle => Some(bounds.idle_time),
            Self::Head => Some(bounds.head_time),
            Self::Body | Self::Sending | Self::Flushing => Some(bounds.body_time),
            Self::Working => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_goes_through_its_phases() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let state = State::new(at(0));
        let is = |phase, since| assert_eq!(state.get(), (phase, at(since)));
        is(Phase::Idle, 0);
        state.heard(at(1));
        state.heard(at(2));
        is(Phase::Head, 1);
        state.asked(at(3));
        state.heard(at(4));
        is(Phase::Body, 3);
        state.received(at(5));
        state.received(at(6));
        is(Phase::Working, 5);
        state.flushed(at(7));
        is(Phase::Working, 5);
        state.answering(at(8));
        state.flushed(at(9));
        is(Phase::Sending, 8);
        state.answered();
        is(Phase::Flushing, 8);
        state.flushed(at(10));
        is(Phase::Idle, 10);
        state.answered();
        state.received(at(11));
        is(Phase::Idle, 10);
    }
}
