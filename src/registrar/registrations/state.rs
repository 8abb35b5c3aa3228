//! States as the database numbers them, and when a registration leaves its state by itself.
//!
//! | number | state | ends by itself |
//! |---|---|---|
//! | 0, 1 | requested, sent | expired when its code does |
//! | 2 | active | proof due after 365 days; stale after 30 days without a heartbeat |
//! | 3 | proof due | ended when the mapping expires, after 60 more days at the latest; stale |
//! | 4 | stale | ended after 45 days without a heartbeat; active again by one |
//! | 5 to 10 | ended, failed, expired, withdrawn, superseded, voided | erased |
//!
//! 0 and 1 are pending, 2 to 4 in force, 5 and above over. Queries have these numbers in them.
//!
//! `due_at` of a row is no later than the next of these times. A heartbeat does not move it and so
//! changes no index; a sweep that finds a row too early moves it on.

use crate::registrar::api::State;

use crate::limits::registrar::{ENDED_SECONDS, PROOF_GRACE_SECONDS, PROOF_SECONDS, STALE_SECONDS};

/// Every state at its number.
const STATES: [State; 11] = [
    State::Requested,
    State::Sent,
    State::Active,
    State::ProofDue,
    State::Stale,
    State::Ended,
    State::Failed,
    State::Expired,
    State::Withdrawn,
    State::Superseded,
    State::Voided,
];

/// The number of a state.
pub(crate) fn number(state: State) -> i64 {
    let at = STATES.iter().position(|&other| other == state);
    at.and_then(|at| i64::try_from(at).ok()).expect("this is a bug: every state has a number")
}

/// The state of a number.
pub(crate) fn from_number(number: i64) -> Option<State> {
    STATES.get(usize::try_from(number).ok()?).copied()
}

/// Whether a code is awaited.
pub(crate) fn is_pending(state: State) -> bool {
    number(state) <= 1
}

/// Whether there is a mapping in force.
pub(crate) fn is_in_force(state: State) -> bool {
    (2..=4).contains(&number(state))
}

/// Whether the mapping is in the feed.
pub(crate) fn is_published(state: State) -> bool {
    matches!(state, State::Active | State::ProofDue)
}

/// The times on which a state depends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    pub(crate) code_expires_at: u64,
    /// When the mapping was issued and the number proved.
    pub(crate) iat: u64,
    pub(crate) exp: u64,
    pub(crate) heartbeat_at: u64,
}

/// What a registration in a state is now, and until when at the latest, if it is not over.
pub(crate) fn next(state: State, times: &Times, now: u64) -> (State, Option<u64>) {
    if is_pending(state) {
        return match times.code_expires_at <= now {
            true => (State::Expired, None),
            false => (state, Some(times.code_expires_at)),
        };
    }
    if !is_in_force(state) {
        return (state, None);
    }
    let void_at = times.exp.min(times.iat.saturating_add(PROOF_SECONDS + PROOF_GRACE_SECONDS));
    let proof_at = times.iat.saturating_add(PROOF_SECONDS);
    let stale_at = times.heartbeat_at.saturating_add(STALE_SECONDS);
    let ended_at = times.heartbeat_at.saturating_add(ENDED_SECONDS).min(void_at);
    if ended_at <= now {
        (State::Ended, None)
    } else if stale_at <= now {
        (State::Stale, Some(ended_at))
    } else if proof_at <= now {
        (State::ProofDue, Some(stale_at.min(void_at)))
    } else {
        (State::Active, Some(stale_at.min(proof_at).min(void_at)))
    }
}
