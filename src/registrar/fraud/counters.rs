//! What this part counts: plain atomics, read when somebody asks. Labels come from closed sets;
//! none says which provider, number or address.

use crate::https::{Counter, Sample};
use crate::registrar::api::Channel;

use super::refusal::Refusal;

pub(super) const CHANNELS: [Channel; 3] = [Channel::Sms, Channel::Call, Channel::Email];

fn channel_name(channel: Channel) -> &'static str {
    match channel {
        Channel::Sms => "sms",
        Channel::Call => "call",
        Channel::Email => "email",
    }
}

/// What was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Closed {
    /// Numbers of one prefix or addresses of one domain, for one application provider.
    Group,
    /// Numbers of one country or all addresses, for one application provider.
    Area,
}

impl Closed {
    const ALL: [Self; 2] = [Self::Group, Self::Area];

    fn name(self) -> &'static str {
        match self {
            Self::Group => "group",
            Self::Area => "area",
        }
    }
}

/// What is counted since the start. What was admitted or closed is counted before its transaction
/// is committed, so that one which is repeated counts twice.
#[derive(Debug, Default)]
pub(super) struct Counters {
    admitted: [Counter; CHANNELS.len()],
    refused: [[Counter; CHANNELS.len()]; Refusal::ALL.len()],
    closed: [Counter; Closed::ALL.len()],
}

impl Counters {
    pub(super) fn admitted(&self, channel: Channel) {
        self.admitted[channel as usize].add(1);
    }

    pub(super) fn refused(&self, why: Refusal, channel: Channel) {
        self.refused[why as usize][channel as usize].add(1);
    }

    pub(super) fn closed(&self, what: Closed) {
        self.closed[what as usize].add(1);
    }

    pub(super) fn samples(&self) -> Vec<Sample> {
        let mut found = Vec::new();
        let mut add = |name, help, labels: &[(&'static str, &str)], counter: &Counter| {
            let labels = labels.iter().map(|&(label, value)| (label, value.to_owned())).collect();
            found.push(Sample { name, help, labels, value: counter.get() as f64 });
        };
        for channel in CHANNELS {
            let labels = [("channel", channel_name(channel))];
            let help = "Codes that the rules against fraud let pass.";
            let counter = &self.admitted[channel as usize];
            add("registrar_fraud_admitted_total", help, &labels, counter);
        }
        for why in Refusal::ALL {
            for channel in CHANNELS {
                let labels = [("reason", why.name()), ("channel", channel_name(channel))];
                let help = "Codes that the rules against fraud refused, and by which rule.";
                let counter = &self.refused[why as usize][channel as usize];
                add("registrar_fraud_refusals_total", help, &labels, counter);
            }
        }
        for what in Closed::ALL {
            let labels = [("of", what.name())];
            let help = "Prefixes or domains (group), countries or email (area) that were closed.";
            add("registrar_fraud_closings_total", help, &labels, &self.closed[what as usize]);
        }
        found
    }
}
