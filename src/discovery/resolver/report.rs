//! What a caller is told: of a contact, of a synchronisation, and meanwhile.

use std::collections::BTreeMap;

use crate::discovery::open::{Contact, OpenError};

/// Most reasons that a report tells apart.
const REASONS_MAX: usize = 32;

/// What is known of one contact. No Debug of it shows a person.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resolved {
    /// What each database that was asked said last, by its name.
    pub answers: BTreeMap<String, Answer>,
}

/// What a database said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// When it was asked, in seconds since 1970.
    pub asked: u64,
    /// What it said.
    pub finding: Finding,
}

/// What an answer means. Nothing that is sent may depend on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// A record that was verified.
    Found(Box<Contact>),
    /// The database has no record of the contact, or somebody withholds it.
    Absent,
    /// The answer cannot be believed. The next one comes at its time.
    Invalid,
    /// A record that is refused.
    Refused(OpenError),
}

impl Answer {
    /// Whether it is a record that holds at `now`.
    pub(super) fn holds(&self, now: u64) -> bool {
        matches!(&self.finding, Finding::Found(contact) if contact.expires > now)
    }
}

impl Resolved {
    /// The newest record that holds at `now`.
    pub fn contact(&self, now: u64) -> Option<&Contact> {
        let found = self.answers.values().filter_map(|answer| match &answer.finding {
            Finding::Found(contact) if contact.expires > now => Some(&**contact),
            _ => None,
        });
        found.max_by_key(|contact| contact.issued)
    }

    /// Whether nobody has answered yet. It says nothing of the contact.
    pub fn is_unknown(&self) -> bool {
        self.answers.is_empty()
    }
}

/// How far a call is. It tells nothing of what was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress {
    /// Directory, keys and parameters are being fetched.
    Fetching,
    /// Requests for evaluation that were answered, of all there are.
    Evaluated {
        /// Those that were answered.
        done: usize,
        /// All of them.
        total: usize,
    },
    /// Batches that were answered or given up, of all there are.
    LookedUp {
        /// Those that are over.
        done: usize,
        /// All of them.
        total: usize,
    },
}

/// What a call did, and what was verified.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Bytes of HTTP bodies to the relay.
    pub bytes_up: u64,
    /// Bytes of HTTP bodies from the relay.
    pub bytes_down: u64,
    /// Requests of any kind.
    pub requests: u64,
    /// Sealed requests for evaluation, those sent again included.
    pub evaluations: u64,
    /// Sealed look-ups, those sent again included. The relay counts sixteen for each.
    pub lookups: u64,
    /// Identifiers that were evaluated, by verified proofs.
    pub evaluated: usize,
    /// Batches that were asked.
    pub batches: usize,
    /// New batches that were not asked yet.
    pub batches_left: usize,
    /// Batches whose time has come, and that got another one because they would not have been
    /// alone.
    pub batches_put_off: usize,
    /// Contacts found, each database counted.
    pub found: usize,
    /// Contacts not found.
    pub absent: usize,
    /// Contacts that are not looked up, each database counted: its routing filter says that it does
    /// not have them.
    pub ruled_out: usize,
    /// Answers that cannot be believed.
    pub invalid: usize,
    /// Dummies and their answers, whatever these say.
    pub dummies: usize,
    /// Records that were refused, by reason.
    pub refused: BTreeMap<String, usize>,
    /// Look-ups of contacts that were not answered, by reason. They are due at their next time.
    pub failed: BTreeMap<String, usize>,
    /// The version of the directory, verified against its pins.
    pub directory_version: u64,
    /// The epoch of each database that was asked, its parameters verified against their pins.
    pub epochs: BTreeMap<String, u64>,
}

impl Report {
    pub(super) fn count_finding(&mut self, finding: &Finding) {
        match finding {
            Finding::Found(_) => self.found += 1,
            Finding::Absent => self.absent += 1,
            Finding::Invalid => self.invalid += 1,
            Finding::Refused(error) => {
                *self.refused.entry(error.to_string()).or_default() += 1;
            }
        }
    }

    /// Reasons may have words of a peer, which are not to fill memory.
    pub(super) fn count_failed(&mut self, reason: String) {
        let is_room = self.failed.len() < REASONS_MAX || self.failed.contains_key(&reason);
        let reason = if is_room { reason } else { "other reasons".to_owned() };
        *self.failed.entry(reason).or_default() += 1;
    }
}
