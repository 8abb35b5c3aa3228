//! What can go wrong for a client: each error says what was found, what was expected, what to do.
//!
//! A [`ClientError`] ends a connection or a whole call, a [`LookupError`] ends one look-up of a
//! call. None of them carries a key, a value or anything decoded.

#![expect(missing_docs, reason = "the message of each error says what it and its fields are")]

use std::net::SocketAddr;
use std::time::Duration;

use crate::hosts::HostsError;
use crate::limits;
use crate::scheme::SecretError;
use crate::wire::parameters::{LifetimeError, ParametersError};

/// Why a client cannot connect, or gives a whole call up.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("{what}: found {found}, expected {expected}")]
    Option { what: &'static str, found: String, expected: &'static str },
    #[error(
        "operator key: found {found}, expected a PEM public key (Ed25519, as `sotto build` writes \
         to operator.pub) or 64 hex digits"
    )]
    OperatorKey { found: &'static str },
    #[error("server address {found:?}: {reason}; expected HOST:PORT with a name that resolves")]
    Address { found: String, reason: String },
    #[error("no socket for QUIC: {0}; check that UDP is allowed here")]
    Socket(std::io::Error),
    #[error(
        "no connection to {address}: {reason}; check that `sotto serve` listens there over UDP and \
         that the CA file belongs to its certificate"
    )]
    Connect { address: SocketAddr, reason: String },
    #[error(
        "no server answered for {} s, at last: {last}; check the network and the server, then try \
         again",
        tried.as_secs_f32().ceil()
    )]
    Unreachable { tried: Duration, last: String },
    #[error(
        "the server refuses this caller: {reason}; use a certificate that its operator's authority \
         signed and whose name is on the operator's list (--client-cert, --client-key)"
    )]
    NotAllowed { reason: String },
    #[error("the server gives no parameters: {reason}; try again later or at a replica")]
    NoParameters { reason: String },
    #[error(transparent)]
    Parameters(#[from] ParameterError),
    #[error(
        "{found} keys in one call, expected at most {}: look the rest up in another call, at a \
         time and with keys that do not depend on what this one finds",
        limits::KEYS_PER_CALL_MAX
    )]
    TooManyKeys { found: usize },
    #[error("this is a bug: encrypting or decoding failed ({0}); the call's secrets are gone")]
    Computing(String),
    #[error("queries cannot be encrypted: {0}")]
    Secret(#[from] SecretError),
}

/// Why parameters are refused. Every one of these may be an attempt to single out a look-up.
#[derive(Debug, thiserror::Error)]
pub enum ParameterError {
    #[error("{0}; do not use this server, tell the operator")]
    Unusable(#[from] ParametersError),
    #[error(
        "the parameters are not signed with the operator's key ({found}): check the key with the \
         operator; do not use this server before"
    )]
    Signature { found: String },
    #[error(
        "the server shows operator key {found}, expected the pinned {expected}: if the operator \
         announced a new key, pin that one; do not use this server before"
    )]
    OtherKey { found: String, expected: String },
    #[error(transparent)]
    Placement(#[from] HostsError),
    #[error("the server shows no operator key: get it from the operator and pin it")]
    NoKey,
    #[error(
        "hint digests: {found}, expected {expected}: the server is broken or lies; use another"
    )]
    HintDigests { found: String, expected: String },
    #[error(
        "the database has another seed than before, expected the pinned one: a new seed moves \
         every key to another shard and so tells who looks for what. A database keeps its seed for \
         life; if this is a new database, forget the pinned one on purpose"
    )]
    SeedChanged,
    #[error(
        "the parameters are of epoch {found}, expected {expected} or newer: this server lags \
         behind; use another or try again later"
    )]
    EpochOlder { found: u64, expected: u64 },
    #[error(
        "epoch {epoch} has two sets of parameters, expected one for all clients: someone treats \
         clients differently; do not use this server, tell the operator"
    )]
    EpochForked { epoch: u64 },
    #[error(
        "the database is called {found}, expected {expected}: the server shows another database of \
         this operator; use the server of the one that was meant, or forget the pinned one on \
         purpose"
    )]
    DatabaseChanged { found: String, expected: String },
    #[error("the database {0}")]
    Lifetime(#[from] LifetimeError),
    #[error(
        "the database has {found} shards, expected {expected} or twice that: several shard \
         numbers for one key single it out; ask the operator"
    )]
    ShardCountChanged { found: u32, expected: u32 },
    #[error(
        "the database has {found} shards, expected {expected}: that number doubled less than {} \
         days ago or in this session already, and each doubling tells the server one more bit \
         about a key; ask the operator",
        limits::DOUBLING_INTERVAL.as_secs() / 86_400
    )]
    DoubledAgain { found: u32, expected: u32 },
    #[error(
        "the emptiest shard has {found} records, expected at least {expected}: the server sees the \
         shard number, and the shard's records are the crowd a look-up hides in. Use a database \
         with fewer, larger shards, or accept this number on purpose (--accept-shard-records)"
    )]
    TooFewRecords { found: u64, expected: u64 },
    #[error(
        "a pack of the emptiest shard has {found} records, expected at least {expected}: a \
         front-end sees shard and pack of a look-up, and the pack's records are the crowd it hides \
         in. Use a database with fewer packs or more records a shard, or accept this number on \
         purpose"
    )]
    TooFewPackRecords { found: u64, expected: u64 },
}

impl ParameterError {
    /// Whether a replica that is not behind the others may have better parameters.
    pub(super) fn is_of_one_replica(&self) -> bool {
        matches!(self, Self::EpochOlder { .. } | Self::Lifetime(_))
    }
}

/// Why pins cannot be used: read, or joined with those of another session.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PinsError {
    #[error(
        "these pins have version {found}, expected {expected}: use the program that wrote them"
    )]
    Version { found: u32, expected: u32 },
    #[error("{0}")]
    Name(String),
    #[error("these pins have seen a database and lack its operator_key or its name")]
    Incomplete,
    #[error("these pins are of operator key {found}, expected {expected}")]
    Operator { found: String, expected: String },
    #[error("these pins are of the database {found}, expected {expected}")]
    Database { found: String, expected: String },
    #[error("these pins are of a database with another seed")]
    Seed,
    #[error(
        "epoch {epoch} came with two sets of parameters, expected one for all clients: someone \
         treats clients differently; tell the operator"
    )]
    Forked { epoch: u64 },
}

/// Why one look-up of a call has no outcome.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    #[error("the key is empty, expected 1 to {} bytes", limits::KEY_BYTES_MAX)]
    KeyEmpty,
    #[error("the key has {found} bytes, expected at most {}", limits::KEY_BYTES_MAX)]
    KeyTooLong { found: usize },
    #[error(
        "the server calls the query malformed: {detail}; this is a defect of the client or the \
         server: compare their versions. The key's next regular look-up draws a fresh secret"
    )]
    Malformed { detail: String },
    #[error("the server refuses the query: {status}; check its version, or use another server")]
    Refused { status: String },
    #[error(
        "the server refuses this caller: {reason}; use a certificate that its operator's authority \
         signed and whose name is on the operator's list"
    )]
    NotAllowed { reason: String },
    #[error("no server of this client holds the key's shard: add the replica that does")]
    ShardUnknown,
    #[error(
        "no server answered for {} s, at last: {last}; what had its answer by then is kept. Check \
         the network and the server, then look the rest up again",
        tried.as_secs_f32().ceil()
    )]
    Unreachable { tried: Duration, last: String },
    #[error(
        "the call took longer than its {} s; what had its answer by then is kept. Look the rest up \
         again, in smaller calls or with more time",
        after.as_secs_f32().ceil()
    )]
    CallTimeout { after: Duration },
    #[error("no answer after {attempts} attempts, the last one: {last}; try again later")]
    Exhausted { attempts: u32, last: String },
    #[error("the call ended before this key was sent: {reason}")]
    Ended { reason: String },
    #[error(
        "the server's hint is not the one the operator signed, so its answer would not be \
         believed: use another server, and tell the operator"
    )]
    HintForged,
    #[error("the answer is not one to this query: {what} is {found}, expected {expected}")]
    Answer { what: &'static str, found: String, expected: String },
    #[error("the answer cannot be decoded: {0}")]
    Secret(#[from] SecretError),
}

impl LookupError {
    /// Whether nothing that follows in the call will be answered either.
    pub(super) fn ends_the_call(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::CallTimeout { .. })
    }
}
