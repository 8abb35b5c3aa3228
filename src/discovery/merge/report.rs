//! What is told about statements that have no effect: a line of the report each, and counts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::super::statement::Refusal;
use super::resolve::Reason;
use super::row::Place;

/// How often each code occurs.
pub type Counts = BTreeMap<String, u64>;

/// A line of the report. It contains nothing that names a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Finding {
    pub(super) file: String,
    pub(super) line: u64,
    pub(super) code: String,
    pub(super) found: String,
    pub(super) expected: String,
}

impl Finding {
    pub(super) fn refused(file: &str, line: u64, refusal: Refusal) -> Self {
        let Refusal { code, found, expected } = refusal;
        Self { file: file.to_owned(), line, code: code.as_str().to_owned(), found, expected }
    }

    pub(super) fn without_effect(file: &str, place: Place, reason: Reason) -> Self {
        Self {
            file: file.to_owned(),
            line: place.line,
            code: reason.code().to_owned(),
            found: reason.found(),
            expected: reason.expected().to_owned(),
        }
    }

    /// Appends it as a line of JSON.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        // Writing texts and numbers into memory cannot fail.
        let _ = serde_json::to_writer(&mut *out, self);
        out.push(b'\n');
    }
}

/// What a run did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // Names say it.
pub struct Tally {
    /// Lines that are no batch's first one, and not empty.
    pub lines: u64,
    /// Statements in the Merkle tree.
    pub accepted: u64,
    /// Statements that were not accepted, and batches; by code.
    pub refused: Counts,
    /// Accepted statements without effect on a record, by code.
    pub without_effect: Counts,
    /// Statements about identifiers that another database has.
    pub elsewhere: u64,
    pub records: u64,
    pub records_with_preference: u64,
    /// What did not fit into records.
    pub dropped_key_hashes: u64,
    pub dropped_handles: u64,
    pub dropped_tags: u64,
    pub dropped_services: u64,
    pub value_bytes_longest: u64,
    /// Records whose keys were derived before.
    pub keys_from_cache: u64,
}

impl Tally {
    pub(super) fn refuse(&mut self, code: &str) {
        *self.refused.entry(code.to_owned()).or_default() += 1;
    }

    pub(super) fn no_effect(&mut self, code: &str) {
        *self.without_effect.entry(code.to_owned()).or_default() += 1;
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.lines += other.lines;
        self.accepted += other.accepted;
        other.refused.iter().for_each(|(code, n)| {
            *self.refused.entry(code.clone()).or_default() += n;
        });
        other.without_effect.iter().for_each(|(code, n)| {
            *self.without_effect.entry(code.clone()).or_default() += n;
        });
        self.elsewhere += other.elsewhere;
        self.records += other.records;
        self.records_with_preference += other.records_with_preference;
        self.dropped_key_hashes += other.dropped_key_hashes;
        self.dropped_handles += other.dropped_handles;
        self.dropped_tags += other.dropped_tags;
        self.dropped_services += other.dropped_services;
        self.value_bytes_longest = self.value_bytes_longest.max(other.value_bytes_longest);
        self.keys_from_cache += other.keys_from_cache;
    }
}
