//! What the channels count, by name of the gateway. Names come from the configuration; nothing here
//! says whom a message was for or which application provider it came from.

use crate::https::{Counter, Sample};

use crate::registrar::channels::gateway::Refused;

/// What came of a message at a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Accepted,
    Delivered,
    Failed,
    NoReceipt,
    Down,
    Rejected,
    Late,
}

impl Outcome {
    pub(crate) const ALL: [Self; 7] = [
        Self::Accepted,
        Self::Delivered,
        Self::Failed,
        Self::NoReceipt,
        Self::Down,
        Self::Rejected,
        Self::Late,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Delivered => "delivered",
            Self::Failed => "failed",
            Self::NoReceipt => "no_receipt",
            Self::Down => "down",
            Self::Rejected => "rejected",
            Self::Late => "late",
        }
    }
}

impl From<Refused> for Outcome {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Down => Self::Down,
            Refused::Rejected => Self::Rejected,
            Refused::Late => Self::Late,
        }
    }
}

/// The counters of one gateway.
#[derive(Debug, Default)]
pub(crate) struct Counters([Counter; Outcome::ALL.len()]);

impl Counters {
    pub(crate) fn add(&self, outcome: Outcome) {
        self.0[outcome as usize].add(1);
    }

    #[cfg(test)]
    pub(crate) fn get(&self, outcome: Outcome) -> u64 {
        self.0[outcome as usize].get()
    }

    /// All numbers, for an exporter.
    pub(crate) fn samples(&self, gateway: &str, found: &mut Vec<Sample>) {
        for outcome in Outcome::ALL {
            found.push(Sample {
                name: "channel_messages_total",
                help: "Messages handed to a gateway, and what came of them.",
                labels: vec![
                    ("gateway", gateway.to_owned()),
                    ("outcome", outcome.name().to_owned()),
                ],
                value: self.0[outcome as usize].get() as f64,
            });
        }
    }
}
