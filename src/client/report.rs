//! What a call did, in numbers and in what the server saw of it. Nothing here is secret: it is
//! what went over the wire.

use std::time::Duration;

/// One query as the server saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentQuery {
    /// The shard asked.
    pub shard: u32,
    /// Name of the key bundle it was under.
    pub uid: String,
    /// Bytes of the encrypted vector.
    pub vector_bytes: usize,
    /// Its first bytes.
    pub vector_head: Vec<u8>,
    /// Bytes of the answer.
    pub response_bytes: usize,
}

/// What the last call did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CallReport {
    /// Queries answered, in the order of the keys.
    pub queries: Vec<SentQuery>,
    /// Times the client sent something, looked at what came back and went on.
    pub rounds: u32,
    /// Frames that brought nothing for a quarter of the time-out and were sent to another replica
    /// too, the identical bytes.
    pub hedges: u32,
    /// Queries in these.
    pub hedged_queries: u32,
    /// Key bundles sent, each time counted.
    pub bundles: u32,
    /// Hints fetched.
    pub hints: u32,
    /// Bytes of all request frames.
    pub bytes_up: u64,
    /// Bytes of all reply frames.
    pub bytes_down: u64,
    /// Bytes of bundle frames, part of `bytes_up`.
    pub bundle_bytes: u64,
    /// Bytes of hint frames, part of `bytes_down`.
    pub hint_bytes: u64,
    /// Drawing secrets and encrypting every query.
    pub encrypt_time: Duration,
    /// Fetching hints that were not held.
    pub hint_time: Duration,
    /// Sending key bundles.
    pub bundle_time: Duration,
    /// From the first query sent to the last answer, without the two above.
    pub answer_time: Duration,
    /// Decoding all answers.
    pub decode_time: Duration,
}
