//! How fast messages are handed to a gateway that throttles: the time between two doubles when it
//! does, and shrinks with every message that it takes.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

const SPACING_MIN: Duration = Duration::from_millis(20);
const SPACING_MAX: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(crate) struct Pace(Mutex<State>);

#[derive(Default)]
struct State {
    spacing: Duration,
    /// When the next message may go, and when the pace was last slowed.
    next: Option<Instant>,
    slowed: Option<Instant>,
}

impl Pace {
    /// Waits until it is this message's turn.
    pub(crate) async fn turn(&self) {
        let turn = {
            let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            if state.spacing.is_zero() && state.next.is_none_or(|next| next <= now) {
                return;
            }
            let turn = state.next.map_or(now, |next| next.max(now));
            state.next = Some(turn + state.spacing);
            turn
        };
        sleep_until(turn).await;
    }

    /// The gateway throttled a message that was handed to it at `handed`. Those that were on the
    /// way together slow the pace once.
    pub(crate) fn throttled(&self, handed: Instant) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.slowed.is_some_and(|slowed| slowed >= handed) {
            return;
        }
        let now = Instant::now();
        state.spacing = (2 * state.spacing).clamp(SPACING_MIN, SPACING_MAX);
        state.slowed = Some(now);
        let earliest = now + state.spacing;
        state.next = Some(state.next.map_or(earliest, |next| next.max(earliest)));
    }

    /// The gateway took a message.
    pub(crate) fn took(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.spacing = state.spacing * 7 / 8;
        if state.spacing < SPACING_MIN / 4 {
            state.spacing = Duration::ZERO;
        }
    }
}
