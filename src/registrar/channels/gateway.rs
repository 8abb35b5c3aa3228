//! What a gateway is to the channels.

use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::registrar::channels::message::Message;

/// Something that carries messages to phones or mailboxes.
///
/// `send` returns when the gateway has answered. Its future may be dropped at any time: the message
/// then counts as one that the gateway may have taken. It tries again only after an answer which
/// says that the message was not taken because of load.
pub(crate) trait Gateway: Send + Sync {
    /// Hands a message over.
    fn send<'a>(&'a self, message: &'a Message) -> Sending<'a>;

    /// Where the gateway is away: in how much time it may be back.
    fn down_for(&self) -> Option<Duration>;
}

/// An `async fn send` whose gateways may be of different types.
pub(crate) type Sending<'a> = Pin<Box<dyn Future<Output = Result<Receipt, Refused>> + Send + 'a>>;

/// What is heard of a message that was taken.
pub(crate) enum Receipt {
    /// Nothing: to have taken it is all that this gateway ever says.
    None,
    /// Whether it was delivered.
    Awaited(oneshot::Receiver<Delivery>),
}

/// What a receipt says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    Delivered,
    Failed,
}

/// Why a gateway has not taken a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It is away.
    Down,
    /// It says no.
    Rejected,
    /// It did not answer, or the connection broke: it may have the message.
    Late,
}

/// Whether something that is reached anew for each message is there: after a failure it is left
/// alone for a time that doubles.
#[derive(Default)]
pub(crate) struct Health(Mutex<Failures>);

#[derive(Default)]
struct Failures {
    count: u32,
    until: Option<Instant>,
}

const ALONE_MIN: Duration = Duration::from_millis(500);
const ALONE_MAX: Duration = Duration::from_secs(30);

/// The wait after so many failures, one after the other.
pub(crate) fn backoff(failures: u32) -> Duration {
    ALONE_MIN.saturating_mul(1 << failures.clamp(1, 10).saturating_sub(1)).min(ALONE_MAX)
}

impl Health {
    pub(crate) fn down_for(&self) -> Option<Duration> {
        let failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let left = failures.until?.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    pub(crate) fn failed(&self) {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        failures.count = failures.count.saturating_add(1);
        failures.until = Some(Instant::now() + backoff(failures.count));
    }

    pub(crate) fn worked(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Failures::default();
    }
}
