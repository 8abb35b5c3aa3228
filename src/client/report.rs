//! What a call did, in numbers and in what the server saw of it. Nothing here is secret: it is
//! what went over the wire.

use super::call::PreparedQuery;

/// Bytes of a vector that a report shows.
const HEAD_BYTES: usize = 16;

/// One query as the server saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentQuery {
    /// The shard that was asked.
    pub shard: u32,
    /// Name of the key bundle that the query was under.
    pub uid: String,
    /// Bytes of the encrypted vector.
    pub vector_bytes: usize,
    /// The first bytes of the encrypted vector.
    pub vector_head: Vec<u8>,
    /// Bytes of the answer.
    pub response_bytes: usize,
}

/// What the last call did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CallReport {
    /// Queries that were answered, in the order of the keys.
    pub queries: Vec<SentQuery>,
    /// Times the client sent something, looked at what came back and went on.
    pub rounds: u32,
    /// Slow frames that were sent to another replica too.
    pub hedges: u32,
    /// Key bundles sent, each time counted.
    pub bundles: u32,
    /// Hints fetched.
    pub hints: u32,
    /// Bytes of all request frames.
    pub bytes_up: u64,
    /// Bytes of all reply frames.
    pub bytes_down: u64,
}

impl SentQuery {
    pub(super) fn new(query: PreparedQuery, response_bytes: usize) -> Self {
        let vector_head = query.vector.iter().copied().take(HEAD_BYTES).collect();
        let PreparedQuery { shard, uid, vector, .. } = query;
        Self { shard, uid, vector_bytes: vector.len(), vector_head, response_bytes }
    }
}

impl CallReport {
    /// A request and its replies crossed.
    pub(super) fn count(&mut self, bytes_up: u64, bytes_down: u64) {
        self.bytes_up += bytes_up;
        self.bytes_down += bytes_down;
    }
}
