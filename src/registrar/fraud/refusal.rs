//! Why a code is not sent, and what the application provider is told.

use crate::registrar::Problem;
use crate::registrar::api::Channel;
use crate::registrar::store::Failed;

/// The rule that a code was refused by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    Provider,
    Channel,
    NumberType,
    Country,
    Closed,
    Rate,
    Messages,
    Money,
}

impl Refusal {
    pub(super) const ALL: [Self; 8] = [
        Self::Provider,
        Self::Channel,
        Self::NumberType,
        Self::Country,
        Self::Closed,
        Self::Rate,
        Self::Messages,
        Self::Money,
    ];

    /// Its name in metrics.
    pub(super) fn name(self) -> &'static str {
        self.code().trim_start_matches("fraud_")
    }

    /// The code of its problem.
    pub(super) fn code(self) -> &'static str {
        match self {
            Self::Provider => "fraud_provider",
            Self::Channel => "fraud_channel",
            Self::NumberType => "fraud_number_type",
            Self::Country => "fraud_country",
            Self::Closed => "fraud_closed",
            Self::Rate => "fraud_rate",
            Self::Messages => "fraud_messages",
            Self::Money => "fraud_money",
        }
    }

    pub(super) fn at_once(self) -> Refused {
        Refused { why: self, retry_after: None }
    }

    pub(super) fn until(self, then: u64, now: u64) -> Refused {
        Refused { why: self, retry_after: Some(then.saturating_sub(now).max(1)) }
    }

    fn found(self) -> &'static str {
        match self {
            Self::Provider => "an application provider that this registrar has no rules for",
            Self::Channel => "a channel that does not reach this kind of identifier",
            Self::NumberType => "a number of a type that this channel sends no codes to",
            Self::Country => "a number of a country that the application provider has not declared",
            Self::Closed => "too few codes of the last ones entered",
            Self::Rate => "as many codes this hour as such identifiers get",
            Self::Messages => "as many codes today as the application provider's budget has",
            Self::Money => {
                "less left of the application provider's budget of today than this costs"
            }
        }
    }

    fn expected(self, channel: Channel) -> &'static str {
        match (self, channel) {
            (Self::Provider, _) => "one that the operator has configured; write to the operator",
            (Self::Channel, _) => "sms or call for a number, email for an address",
            (Self::NumberType, Channel::Call) => "a mobile number or a fixed line",
            (Self::NumberType, _) => "a mobile number, or one that may be mobile",
            (Self::Country, _) => "a number of a declared country; write to the operator for more",
            (Self::Closed, _) => {
                "users who asked for their codes; look for requests made by machines, and try \
                 again later"
            }
            (Self::Rate, _) => "fewer; try again in the next hour",
            (Self::Messages | Self::Money, _) => {
                "a request within the budget; try again after midnight UTC, or write to the \
                 operator"
            }
        }
    }
}

/// A refusal, with the seconds after which the same request may succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) why: Refusal,
    retry_after: Option<u64>,
}

impl Refused {
    pub(super) fn problem(self, channel: Channel) -> Problem {
        let status = if self.retry_after.is_some() { 429 } else { 403 };
        let (code, found) = (self.why.code(), self.why.found());
        let problem = Problem::new(status, code, found, self.why.expected(channel));
        match self.retry_after {
            Some(seconds) => problem.retry_after(seconds),
            None => problem,
        }
    }
}

/// Why nothing was counted.
pub(super) enum Stopped {
    Refused(Refused),
    Failed(Failed),
}

impl From<Refused> for Stopped {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl From<sqlx::Error> for Stopped {
    fn from(error: sqlx::Error) -> Self {
        Self::Failed(error.into())
    }
}
