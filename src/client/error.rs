//! What can go wrong for a client: each error says what was found, what was expected, what to do.
//!
//! A [`ClientError`] ends a connection or a whole call, a [`LookupError`] ends one look-up of a
//! call. None of them carries a key, a value or anything decoded.

use std::net::SocketAddr;
use std::time::Duration;

use crate::limits;
use crate::scheme::SecretError;
use crate::wire::parameters::{LifetimeError, ParametersError};

/// Why a client cannot connect, or gives a whole call up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// An option that cannot work.
    #[error("{what}: found {found}, expected {expected}")]
    Option {
        /// Which option.
        what: &'static str,
        /// What it is.
        found: String,
        /// What it may be.
        expected: &'static str,
    },
    /// An operator's key that is none.
    #[error(
        "operator key: found {found}, expected a PEM public key (Ed25519, as `sotto build` writes \
         to operator.pub) or 64 hex digits"
    )]
    OperatorKey {
        /// What was there.
        found: &'static str,
    },
    /// A host name without an address.
    #[error("server address {found:?}: {reason}; expected HOST:PORT with a name that resolves")]
    Address {
        /// What was given.
        found: String,
        /// What the resolver said.
        reason: String,
    },
    /// The local side of QUIC could not start.
    #[error("no socket for QUIC: {0}; check that UDP is allowed here")]
    Socket(std::io::Error),
    /// No address answered.
    #[error(
        "no connection to {address}: {reason}; check that `sotto serve` listens there over UDP and \
         that the CA file belongs to its certificate"
    )]
    Connect {
        /// The last address tried.
        address: SocketAddr,
        /// What QUIC or TLS said.
        reason: String,
    },
    /// Connected once, and then no server could be reached for too long.
    #[error(
        "no server answered for {} s, at last: {last}; check the network and the server, then try \
         again",
        tried.as_secs_f32().ceil()
    )]
    Unreachable {
        /// How long it was tried.
        tried: Duration,
        /// How the last try ended.
        last: String,
    },
    /// No server lets this caller in.
    #[error(
        "the server refuses this caller: {reason}; use a certificate that its operator's authority \
         signed and whose name is on the operator's list (--client-cert, --client-key)"
    )]
    NotAllowed {
        /// What the server said.
        reason: String,
    },
    /// The server gave no parameters.
    #[error("the server gives no parameters: {reason}; try again later or at a replica")]
    NoParameters {
        /// Its status and detail, or what happened to the stream.
        reason: String,
    },
    /// The server gave parameters that must not be used.
    #[error(transparent)]
    Parameters(#[from] ParameterError),
    /// More keys than one call takes.
    #[error(
        "{found} keys in one call, expected at most {}: look the rest up in another call, at a \
         time and with keys that do not depend on what this one finds",
        limits::KEYS_PER_CALL_MAX
    )]
    TooManyKeys {
        /// Keys given.
        found: usize,
    },
    /// A thread of ours that encrypts or decodes was lost.
    #[error("this is a bug: encrypting or decoding failed ({0}); the call's secrets are gone")]
    Computing(String),
    /// The scheme could not encrypt.
    #[error("queries cannot be encrypted: {0}")]
    Secret(#[from] SecretError),
}

/// Why parameters are refused. Every one of these may be an attempt to single out a look-up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ParameterError {
    /// Bytes that are no parameters, or a shape that is refused.
    #[error("{0}; do not use this server, tell the operator")]
    Unusable(#[from] ParametersError),
    /// Signed by someone else, or not at all.
    #[error(
        "the parameters are not signed with the operator's key ({found}): check the key with the \
         operator; do not use this server before"
    )]
    Signature {
        /// What the check said.
        found: String,
    },
    /// The server shows a key other than the pinned one.
    #[error(
        "the server shows operator key {found}, expected the pinned {expected}: if the operator \
         announced a new key, pin that one; do not use this server before"
    )]
    OtherKey {
        /// Fingerprint shown.
        found: String,
        /// Fingerprint pinned.
        expected: String,
    },
    /// The server showed no key on first use.
    #[error("the server shows no operator key: get it from the operator and pin it")]
    NoKey,
    /// The list of hint digests is not the signed one.
    #[error(
        "hint digests: {found}, expected {expected}: the server is broken or lies; use another"
    )]
    HintDigests {
        /// What came.
        found: String,
        /// What was signed.
        expected: String,
    },
    /// A seed other than the pinned one.
    #[error(
        "the database has another seed than before, expected the pinned one: a new seed moves \
         every key to another shard and so tells who looks for what. A database keeps its seed for \
         life; if this is a new database, forget the pinned one on purpose"
    )]
    SeedChanged,
    /// An epoch older than one already seen.
    #[error(
        "the parameters are of epoch {found}, expected {expected} or newer: this server lags \
         behind; use another or try again later"
    )]
    EpochOlder {
        /// Epoch of the parameters.
        found: u64,
        /// Newest epoch seen.
        expected: u64,
    },
    /// Two sets of parameters for one epoch.
    #[error(
        "epoch {epoch} has two sets of parameters, expected one for all clients: someone treats \
         clients differently; do not use this server, tell the operator"
    )]
    EpochForked {
        /// The epoch.
        epoch: u64,
    },
    /// Another name than the pinned one.
    #[error(
        "the database is called {found}, expected {expected}: the server shows another database of \
         this operator; use the server of the one that was meant, or forget the pinned one on \
         purpose"
    )]
    DatabaseChanged {
        /// Name in the parameters.
        found: String,
        /// Name pinned.
        expected: String,
    },
    /// Their time is over or has not begun.
    #[error("the database {0}")]
    Lifetime(#[from] LifetimeError),
    /// The number of shards changed, not by doubling.
    #[error(
        "the database has {found} shards, expected {expected} or twice that: several shard \
         numbers for one key single it out; ask the operator"
    )]
    ShardCountChanged {
        /// Shards of the parameters.
        found: u32,
        /// Shards pinned.
        expected: u32,
    },
    /// The number of shards doubled, and had doubled shortly before.
    #[error(
        "the database has {found} shards, expected {expected}: that number doubled less than {} \
         days ago or in this session already, and each doubling tells the server one more bit \
         about a key; ask the operator",
        limits::DOUBLING_INTERVAL.as_secs() / 86_400
    )]
    DoubledAgain {
        /// Shards of the parameters.
        found: u32,
        /// Shards pinned.
        expected: u32,
    },
    /// The crowd of a shard is too small.
    #[error(
        "the emptiest shard has {found} records, expected at least {expected}: the server sees the \
         shard number, and the shard's records are the crowd a look-up hides in. Use a database \
         with fewer, larger shards, or accept this number on purpose (--accept-shard-records)"
    )]
    TooFewRecords {
        /// Records of the emptiest shard, as the operator signed them.
        found: u64,
        /// Fewest the client accepts.
        expected: u64,
    },
}

impl ParameterError {
    /// Whether a replica that is not behind the others may have better parameters.
    pub(super) fn is_of_one_replica(&self) -> bool {
        matches!(self, Self::EpochOlder { .. } | Self::Lifetime(_))
    }
}

/// Why pins cannot be used: read, or joined with those of another session.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PinsError {
    /// Of another version.
    #[error(
        "these pins have version {found}, expected {expected}: use the program that wrote them"
    )]
    Version {
        /// Version found.
        found: u32,
        /// The one version there is.
        expected: u32,
    },
    /// Not the name of a database.
    #[error("{0}")]
    Name(String),
    /// A database without operator or name.
    #[error("these pins have seen a database and lack its operator_key or its name")]
    Incomplete,
    /// Of another operator.
    #[error("these pins are of operator key {found}, expected {expected}")]
    Operator {
        /// Fingerprint found.
        found: String,
        /// Fingerprint expected.
        expected: String,
    },
    /// Of another database.
    #[error("these pins are of the database {found}, expected {expected}")]
    Database {
        /// Name found.
        found: String,
        /// Name expected.
        expected: String,
    },
    /// Of a database with another seed.
    #[error("these pins are of a database with another seed")]
    Seed,
    /// Of one epoch that came in two versions.
    #[error(
        "epoch {epoch} came with two sets of parameters, expected one for all clients: someone \
         treats clients differently; tell the operator"
    )]
    Forked {
        /// The epoch.
        epoch: u64,
    },
}

/// Why one look-up of a call has no outcome.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LookupError {
    /// No key has no bytes.
    #[error("the key is empty, expected 1 to {} bytes", limits::KEY_BYTES_MAX)]
    KeyEmpty,
    /// The key is longer than any key of a database.
    #[error("the key has {found} bytes, expected at most {}", limits::KEY_BYTES_MAX)]
    KeyTooLong {
        /// Bytes of the key.
        found: usize,
    },
    /// The server found a defect in the query or its bundle.
    #[error(
        "the server calls the query malformed: {detail}; this is a defect of the client or the \
         server: compare their versions. The key's next regular look-up draws a fresh secret"
    )]
    Malformed {
        /// Which field, what was found, what was expected.
        detail: String,
    },
    /// The server refused, and not for a reason that passes.
    #[error("the server refuses the query: {status}; check its version, or use another server")]
    Refused {
        /// Status and detail.
        status: String,
    },
    /// No server lets this caller in any more.
    #[error(
        "the server refuses this caller: {reason}; use a certificate that its operator's authority \
         signed and whose name is on the operator's list"
    )]
    NotAllowed {
        /// What the server said.
        reason: String,
    },
    /// No known server holds the shard.
    #[error("no server of this client holds the key's shard: add the replica that does")]
    ShardUnknown,
    /// No server of this client has been reached for too long.
    #[error(
        "no server answered for {} s, at last: {last}; what had its answer by then is kept. Check \
         the network and the server, then look the rest up again",
        tried.as_secs_f32().ceil()
    )]
    Unreachable {
        /// How long it was tried.
        tried: Duration,
        /// How the last try ended.
        last: String,
    },
    /// The time of the whole call is over.
    #[error(
        "the call took longer than its {} s; what had its answer by then is kept. Look the rest up \
         again, in smaller calls or with more time",
        after.as_secs_f32().ceil()
    )]
    CallTimeout {
        /// What the call was given.
        after: Duration,
    },
    /// Every attempt failed.
    #[error("no answer after {attempts} attempts, the last one: {last}; try again later")]
    Exhausted {
        /// How often the query went out.
        attempts: u32,
        /// How the last one ended.
        last: String,
    },
    /// The call ended in an earlier part than this key's.
    #[error("the call ended before this key was sent: {reason}")]
    Ended {
        /// What ended it.
        reason: String,
    },
    /// The hint is not the one the operator signed.
    #[error(
        "the server's hint is not the one the operator signed, so its answer would not be \
         believed: use another server, and tell the operator"
    )]
    HintForged,
    /// An answer that is none for this database.
    #[error("the answer is not one to this query: {what} is {found}, expected {expected}")]
    Answer {
        /// Which field.
        what: &'static str,
        /// What came.
        found: String,
        /// What fits.
        expected: String,
    },
    /// The scheme could not decode.
    #[error("the answer cannot be decoded: {0}")]
    Secret(#[from] SecretError),
}
