//! How long no server has been heard, and when that is too long.
//!
//! One [`Outage`] serves a whole call. Whatever waits in the call waits for the same server, so
//! the time is counted once and not for each look-up, wave or address; [`super::exchange`] asks
//! here before it connects. Says in the log when an outage begins and ends: one line each.

use std::time::Duration;

use tokio::time::Instant;

use super::error::{ClientError, LookupError};

/// No server could be reached for too long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unreachable {
    tried: Duration,
    last: String,
}

impl From<Unreachable> for ClientError {
    fn from(Unreachable { tried, last }: Unreachable) -> Self {
        Self::Unreachable { tried, last }
    }
}

impl From<Unreachable> for LookupError {
    fn from(Unreachable { tried, last }: Unreachable) -> Self {
        Self::Unreachable { tried, last }
    }
}

/// The time since a server was last heard, if none is heard now.
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

    /// Something came from a server.
    pub(super) fn heard(&mut self) {
        if self.begun.take().is_some() {
            tracing::warn!("the server answers again: going on");
        }
    }

    /// No connection, or nothing came over it. The time counts from the first of these on.
    pub(super) fn silent(&mut self, reason: &str, now: Instant) {
        reason.clone_into(&mut self.last);
        if self.begun.is_none() {
            self.begun = Some(now);
            let seconds = self.longest.as_secs_f32().ceil();
            tracing::warn!("server lost ({reason}): trying to reach it for {seconds} s");
        }
    }

    /// How much longer to try.
    pub(super) fn left(&self, now: Instant) -> Result<Duration, Unreachable> {
        let lasting = self.begun.map_or(Duration::ZERO, |begun| now - begun);
        match self.longest.checked_sub(lasting) {
            Some(left) if !left.is_zero() => Ok(left),
            _ => Err(Unreachable { tried: self.longest, last: self.last.clone() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_counts_from_its_first_silence_until_something_is_heard() {
        let second = Duration::from_secs(1);
        let start = Instant::now();
        let mut outage = Outage::new(30 * second);
        assert_eq!(outage.left(start + 100 * second), Ok(30 * second));
        outage.silent("first", start);
        outage.silent("second", start + 20 * second);
        assert_eq!(outage.left(start + 29 * second), Ok(second));
        let over = outage.left(start + 30 * second).unwrap_err();
        assert_eq!(over, Unreachable { tried: 30 * second, last: "second".into() });
        outage.heard();
        outage.silent("third", start + 50 * second);
        assert_eq!(outage.left(start + 60 * second), Ok(20 * second));
    }
}
