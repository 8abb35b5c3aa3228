//! The messages of docs/wire.md, "Messages": one struct each, with its names and field numbers.
//!
//! These hold whatever a peer wrote: nothing here is checked. [`super::request`] and
//! [`super::parameters`] turn them into types that are valid by construction.

use prost::bytes::Bytes;

/// What a front-end sends: one frame a stream.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Request {
    /// Which request this is.
    #[prost(oneof = "RequestBody", tags = "1, 2, 3")]
    pub body: Option<RequestBody>,
}

/// The kinds of request.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum RequestBody {
    /// Parameters, and perhaps a key bundle to keep.
    #[prost(message, tag = "1")]
    Parameters(PirParameterRequest),
    /// Encrypted queries.
    #[prost(message, tag = "2")]
    Batch(PirBatch),
    /// Hints of shards.
    #[prost(message, tag = "3")]
    Hints(HintRequest),
}

/// What the server sends: one or more frames a stream.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Reply {
    /// Which reply this is.
    #[prost(oneof = "ReplyBody", tags = "1, 2, 3")]
    pub body: Option<ReplyBody>,
}

/// The kinds of reply.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum ReplyBody {
    /// To a parameter request.
    #[prost(message, tag = "1")]
    Parameters(PirParameterResponse),
    /// To one query of a frame.
    #[prost(message, tag = "2")]
    Answer(PirResponse),
    /// To one shard of a hint request.
    #[prost(message, tag = "3")]
    Hint(Hint),
}

/// Asks for the parameters; with a key bundle, asks the server to keep it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PirParameterRequest {
    /// [`super::PROTOCOL_VERSION`].
    #[prost(uint32, tag = "1")]
    pub protocol_version: u32,
    /// Echoed in the reply.
    #[prost(string, tag = "2")]
    pub nonce: String,
    /// Name of the bundle in `public_key`; empty without one.
    #[prost(string, tag = "3")]
    pub uid: String,
    /// [`super::PIR_SCHEME_SOTTO_2`].
    #[prost(int32, tag = "4")]
    pub pir_scheme: i32,
    /// One element, the whole key bundle; none: parameters only.
    #[prost(bytes = "bytes", repeated, tag = "5")]
    pub public_key: Vec<Bytes>,
    /// Whether the reply carries every shard's hint digest.
    #[prost(bool, tag = "16")]
    pub want_hint_digests: bool,
}

/// The reply to [`PirParameterRequest`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct PirParameterResponse {
    /// [`super::PROTOCOL_VERSION`].
    #[prost(uint32, tag = "1")]
    pub protocol_version: u32,
    /// The request's nonce.
    #[prost(string, tag = "2")]
    pub nonce: String,
    /// The request's uid.
    #[prost(string, tag = "3")]
    pub uid: String,
    /// A [`super::Status`]: 0 is success.
    #[prost(int32, tag = "4")]
    pub response_status: i32,
    /// [`super::PIR_SCHEME_SOTTO_2`].
    #[prost(int32, tag = "5")]
    pub pir_scheme: i32,
    /// A [`PublicParameters`], serialized: the bytes the signature is over. Empty, as signature and
    /// operator's key, in the reply to a bundle: who made it has the parameters.
    #[prost(bytes = "bytes", tag = "16")]
    pub parameters: Bytes,
    /// Ed25519 over `parameters`, 64 bytes.
    #[prost(bytes = "bytes", tag = "17")]
    pub signature: Bytes,
    /// 16 bytes a shard, when asked for.
    #[prost(bytes = "bytes", tag = "18")]
    pub hint_digests: Bytes,
    /// What this server lets one connection do.
    #[prost(message, optional, tag = "19")]
    pub limits: Option<Limits>,
    /// With OVERLOADED: when to come again.
    #[prost(uint32, tag = "20")]
    pub retry_after_ms: u32,
    /// With MALFORMED: which field, what was found, what was expected.
    #[prost(string, tag = "21")]
    pub detail: String,
    /// The operator's Ed25519 public key, 32 bytes. Read only by clients that asked for trust on
    /// first use; whoever pinned a key uses the pinned one.
    #[prost(bytes = "bytes", tag = "22")]
    pub operator_key: Bytes,
}

/// What the operator signed: the same bytes for every client of an epoch. The checked form is
/// [`super::PublicParameters`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct PublicParameters {
    /// Database seed, 32 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub seed: Vec<u8>,
    /// Content version.
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
    /// Shards of the database.
    #[prost(uint32, tag = "3")]
    pub shard_count: u32,
    /// Bytes of the value field.
    #[prost(uint32, tag = "4")]
    pub value_len: u32,
    /// Rows a pack.
    #[prost(uint32, tag = "5")]
    pub pack_rows: u32,
    /// Packs a shard.
    #[prost(uint32, tag = "6")]
    pub packs: u32,
    /// Matrix columns.
    #[prost(uint32, tag = "7")]
    pub columns: u32,
    /// Bits a response coefficient.
    #[prost(uint32, tag = "8")]
    pub response_bits: u32,
    /// Bits a hint coefficient.
    #[prost(uint32, tag = "9")]
    pub hint_bits: u32,
    /// A varint a shard; all are below 64, so a byte a shard.
    #[prost(bytes = "vec", tag = "10")]
    pub ribbon_seeds: Vec<u8>,
    /// BLAKE3 over all hint digests in shard order, 32 bytes.
    #[prost(bytes = "vec", tag = "11")]
    pub hint_digests_hash: Vec<u8>,
    /// Unix seconds.
    #[prost(uint64, tag = "12")]
    pub created: u64,
    /// Name of the database, 1 to 64 bytes.
    #[prost(string, tag = "13")]
    pub database: String,
    /// Unix seconds; refused after.
    #[prost(uint64, tag = "14")]
    pub expires: u64,
    /// Records of all shards.
    #[prost(uint64, tag = "15")]
    pub record_count: u64,
    /// Records of the emptiest shard.
    #[prost(uint32, tag = "16")]
    pub shard_records_min: u32,
    /// BLAKE3 over the header digests of all shards in order, 32 bytes.
    #[prost(bytes = "vec", tag = "17")]
    pub content: Vec<u8>,
}

/// What a server lets one connection do.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Limits {
    /// Queries one frame may carry.
    #[prost(uint32, tag = "1")]
    pub queries_per_batch: u32,
    /// Request streams open at once.
    #[prost(uint32, tag = "2")]
    pub batches_in_flight: u32,
    /// Bundles one connection may count on staying known.
    #[prost(uint32, tag = "3")]
    pub bundles_per_connection: u32,
    /// Deadline of a query that names none.
    #[prost(uint32, tag = "4")]
    pub deadline_ms: u32,
}

/// Queries sent in one frame.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PirBatch {
    /// The queries.
    #[prost(message, repeated, tag = "1")]
    pub requests: Vec<PirRequest>,
}

/// One encrypted query.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PirRequest {
    /// [`super::PROTOCOL_VERSION`].
    #[prost(uint32, tag = "1")]
    pub protocol_version: u32,
    /// Chosen by the client, unique in its frame, 1 to 32 bytes.
    #[prost(string, tag = "2")]
    pub nonce: String,
    /// Name of the key bundle the query is under.
    #[prost(string, tag = "3")]
    pub uid: String,
    /// [`super::PIR_SCHEME_SOTTO_2`].
    #[prost(int32, tag = "4")]
    pub pir_scheme: i32,
    /// The shard asked.
    #[prost(uint32, tag = "5")]
    pub shard: u32,
    /// One element: 3 bytes a column, little-endian.
    #[prost(bytes = "bytes", repeated, tag = "6")]
    pub encrypted_vector: Vec<Bytes>,
    /// Epoch whose parameters the client used.
    #[prost(uint64, tag = "16")]
    pub epoch: u64,
    /// Whether the answer carries the shard's hint.
    #[prost(bool, tag = "17")]
    pub want_hint: bool,
    /// Milliseconds; 0: the server's default.
    #[prost(uint32, tag = "18")]
    pub deadline_ms: u32,
    /// From a device to its own front-end alone: 1 is the first pack, 0 all of them. An answer
    /// server refuses any other than 0: which pack is asked for tells half of what is looked up.
    #[prost(uint32, tag = "19")]
    pub pack: u32,
}

/// The answer to one query.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PirResponse {
    /// [`super::PROTOCOL_VERSION`].
    #[prost(uint32, tag = "1")]
    pub protocol_version: u32,
    /// The query's nonce; empty: this answers the whole frame, no query of it was read.
    #[prost(string, tag = "2")]
    pub nonce: String,
    /// The query's uid.
    #[prost(string, tag = "3")]
    pub uid: String,
    /// A [`super::Status`]: 3 is success.
    #[prost(int32, tag = "4")]
    pub response_status: i32,
    /// One element a pack, coefficients packed little-endian by bit.
    #[prost(bytes = "vec", repeated, tag = "5")]
    pub encrypted_response: Vec<Vec<u8>>,
    /// One element a pack, when asked for.
    #[prost(bytes = "vec", repeated, tag = "16")]
    pub hint: Vec<Vec<u8>>,
    /// The epoch served.
    #[prost(uint64, tag = "17")]
    pub epoch: u64,
    /// With OVERLOADED and QUOTA: when to come again.
    #[prost(uint32, tag = "18")]
    pub retry_after_ms: u32,
    /// With MALFORMED: which field, what was found, what was expected.
    #[prost(string, tag = "19")]
    pub detail: String,
    /// Digest of the shard's hint, 16 bytes.
    #[prost(bytes = "vec", tag = "20")]
    pub hint_digest: Vec<u8>,
}

/// Asks for hints.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HintRequest {
    /// Epoch whose hints are wanted.
    #[prost(uint64, tag = "1")]
    pub epoch: u64,
    /// The shards, none twice.
    #[prost(uint32, repeated, tag = "2")]
    pub shards: Vec<u32>,
}

/// The hint of one shard.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Hint {
    /// The shard.
    #[prost(uint32, tag = "1")]
    pub shard: u32,
    /// The epoch served.
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
    /// One element a pack, hint_bits a coefficient.
    #[prost(bytes = "vec", repeated, tag = "3")]
    pub packs: Vec<Vec<u8>>,
    /// First 16 bytes of BLAKE3 over the packs' digests in order.
    #[prost(bytes = "vec", tag = "4")]
    pub digest: Vec<u8>,
    /// A [`super::Status`]: 3 is success.
    #[prost(int32, tag = "5")]
    pub response_status: i32,
    /// With MALFORMED: which field, what was found, what was expected.
    #[prost(string, tag = "6")]
    pub detail: String,
}

impl From<RequestBody> for Request {
    fn from(body: RequestBody) -> Self {
        Self { body: Some(body) }
    }
}

impl From<ReplyBody> for Reply {
    fn from(body: ReplyBody) -> Self {
        Self { body: Some(body) }
    }
}
