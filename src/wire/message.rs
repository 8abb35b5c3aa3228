//! The messages of docs/wire.md, "Messages": one struct each, with its names and field numbers.
//! That page says what each field holds.
//!
//! These hold whatever a peer wrote: nothing here is checked. [`super::request`] and
//! [`super::parameters`] turn them into types that are valid by construction.

#![expect(missing_docs, reason = "docs/wire.md has a table of the fields")]

use prost::bytes::Bytes;

use super::numbers::{Field, Holds};

/// What [`super::numbers`] checks of a field of a type.
macro_rules! holds {
    (uint32 $($repeated:tt)*) => {
        Holds::U32
    };
    (int32) => {
        Holds::I32
    };
    (message, optional) => {
        Holds::Message(Limits::FIELDS)
    };
    ($($other:tt)*) => {
        Holds::Other
    };
}

/// Makes the struct of a message and the list of its fields from a table like those of
/// docs/wire.md: number, type (as prost names it), name, type in Rust.
macro_rules! message {
    ($(#[$about:meta])* $name:ident { $($tag:tt ($($kind:tt)*) $field:ident: $type:ty;)* }) => {
        $(#[$about])*
        #[derive(Clone, PartialEq, prost::Message)]
        pub struct $name {
            $(#[prost($($kind)*, tag = $tag)] pub $field: $type,)*
        }

        impl $name {
            pub(super) const FIELDS: &'static [Field] =
                &[$(($tag, stringify!($field), holds!($($kind)*))),*];
        }
    };
}

/// What a front-end sends: one frame a stream.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Request {
    #[prost(oneof = "RequestBody", tags = "1, 2, 3")]
    pub body: Option<RequestBody>,
}

/// The kinds of request.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum RequestBody {
    #[prost(message, tag = "1")]
    Parameters(PirParameterRequest),
    #[prost(message, tag = "2")]
    Batch(PirBatch),
    #[prost(message, tag = "3")]
    Hints(HintRequest),
}

/// What the server sends: one or more frames a stream.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Reply {
    #[prost(oneof = "ReplyBody", tags = "1, 2, 3")]
    pub body: Option<ReplyBody>,
}

/// The kinds of reply.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum ReplyBody {
    #[prost(message, tag = "1")]
    Parameters(PirParameterResponse),
    #[prost(message, tag = "2")]
    Answer(PirResponse),
    #[prost(message, tag = "3")]
    Hint(Hint),
}

message! {
    /// Asks for the parameters; with a key bundle, asks the server to keep it.
    PirParameterRequest {
        1 (uint32) protocol_version: u32;
        2 (string) nonce: String;
        3 (string) uid: String;
        4 (int32) pir_scheme: i32;
        5 (bytes = "bytes", repeated) public_key: Vec<Bytes>;
        16 (bool) want_hint_digests: bool;
    }
}

message! {
    /// The reply to [`PirParameterRequest`].
    PirParameterResponse {
        1 (uint32) protocol_version: u32;
        2 (string) nonce: String;
        3 (string) uid: String;
        4 (int32) response_status: i32;
        5 (int32) pir_scheme: i32;
        16 (bytes = "bytes") parameters: Bytes;
        17 (bytes = "bytes") signature: Bytes;
        18 (bytes = "bytes") hint_digests: Bytes;
        19 (message, optional) limits: Option<Limits>;
        20 (uint32) retry_after_ms: u32;
        21 (string) detail: String;
        22 (bytes = "bytes") operator_key: Bytes;
    }
}

message! {
    /// What the operator signed: the same bytes for every client of an epoch. The checked form is
    /// [`super::PublicParameters`].
    PublicParameters {
        1 (bytes = "vec") seed: Vec<u8>;
        2 (uint64) epoch: u64;
        3 (uint32) shard_count: u32;
        4 (uint32) value_len: u32;
        5 (uint32) pack_rows: u32;
        6 (uint32) packs: u32;
        7 (uint32) columns: u32;
        8 (uint32) response_bits: u32;
        9 (uint32) hint_bits: u32;
        10 (bytes = "vec") ribbon_seeds: Vec<u8>;
        11 (bytes = "vec") hint_digests_hash: Vec<u8>;
        12 (uint64) created: u64;
        13 (string) database: String;
        14 (uint64) expires: u64;
        15 (uint64) record_count: u64;
        16 (uint32) shard_records_min: u32;
        17 (bytes = "vec") content: Vec<u8>;
    }
}

message! {
    /// What a server lets one connection do.
    #[derive(Copy)]
    Limits {
        1 (uint32) queries_per_batch: u32;
        2 (uint32) batches_in_flight: u32;
        3 (uint32) bundles_per_connection: u32;
        4 (uint32) deadline_ms: u32;
    }
}

/// Queries sent in one frame.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PirBatch {
    #[prost(message, repeated, tag = "1")]
    pub requests: Vec<PirRequest>,
}

message! {
    /// One encrypted query. An answer server refuses another `pack` than 0: it would tell which
    /// groups are looked up. A front-end takes one from a device.
    PirRequest {
        1 (uint32) protocol_version: u32;
        2 (string) nonce: String;
        3 (string) uid: String;
        4 (int32) pir_scheme: i32;
        5 (uint32) shard: u32;
        6 (bytes = "bytes", repeated) encrypted_vector: Vec<Bytes>;
        16 (uint64) epoch: u64;
        17 (bool) want_hint: bool;
        18 (uint32) deadline_ms: u32;
        19 (uint32) pack: u32;
    }
}

message! {
    /// The answer to one query. `pack_digests` are only in a front-end's answer to a device.
    PirResponse {
        1 (uint32) protocol_version: u32;
        2 (string) nonce: String;
        3 (string) uid: String;
        4 (int32) response_status: i32;
        5 (bytes = "vec", repeated) encrypted_response: Vec<Vec<u8>>;
        16 (bytes = "vec", repeated) hint: Vec<Vec<u8>>;
        17 (uint64) epoch: u64;
        18 (uint32) retry_after_ms: u32;
        19 (string) detail: String;
        20 (bytes = "vec") hint_digest: Vec<u8>;
        21 (bytes = "bytes") pack_digests: Bytes;
    }
}

message! {
    /// Asks for hints.
    HintRequest {
        1 (uint64) epoch: u64;
        2 (uint32, repeated) shards: Vec<u32>;
        3 (bool) digests_only: bool;
    }
}

message! {
    /// The hint of one shard.
    Hint {
        1 (uint32) shard: u32;
        2 (uint64) epoch: u64;
        3 (bytes = "vec", repeated) packs: Vec<Vec<u8>>;
        4 (bytes = "vec") digest: Vec<u8>;
        5 (int32) response_status: i32;
        6 (string) detail: String;
    }
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
