//! Bytes to messages and back: what a resolver front-end and the answer server say to each other.
//!
//! Source: docs/wire.md. A frame ([`frame`]) is a protobuf message ([`message`]) with its length in
//! front; a request becomes a type that is valid by construction ([`request`]) exactly once; the
//! signed [`PublicParameters`] are checked by client and server alike. This module does no IO,
//! reads no clock, and allocates nothing a frame's bound does not cover. It decides what a message
//! means, never what to do about it: that is `server` and `client`.

pub mod frame;
pub mod hex;
pub mod message;
mod numbers;
pub mod parameters;
pub mod request;

pub use ed25519_dalek::{SigningKey, VerifyingKey, pkcs8};
pub use frame::{
    FRAME_HEAD_BYTES_MAX, FrameError, FrameHead, ReplyKind, RequestKind, decode_reply,
    encode_frame, parameters_frame, reply_head, request_head,
};
pub use parameters::{
    Lifetime, LifetimeError, ParameterFields, PublicParameters, SignatureError, sign, verify,
};
pub use prost::bytes::Bytes;
pub use request::{
    Malformed, Uid, ValidHints, ValidParameters, ValidQueries, ValidQuery, decode_hints,
    decode_parameters,
};

/// Version of the protocol: every message that has the field carries it.
pub const PROTOCOL_VERSION: u32 = 1;
/// Our scheme's number among the draft's `pir_scheme`s. 16 was the first version, whose tag did
/// not bind the value.
pub const PIR_SCHEME_SOTTO_2: i32 = 17;
/// Protocol name in the TLS handshake.
pub const ALPN: &[u8] = b"sotto/1";
/// Bytes of a hint digest.
pub const HINT_DIGEST_BYTES: usize = 16;

/// What became of a request: `response_status` of every reply. docs/wire.md says what each means
/// ("Status codes") and what a client does then ("Retries").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(i32)]
pub enum Status {
    /// Parameters and bundles: success.
    SchemeMatched = 0,
    /// Another scheme was asked for; the reply names the one served.
    SchemeSuggested = 1,
    /// The draft's: the request failed.
    RequestFailure = 2,
    /// Answers and hints: success.
    ResponseSuccess = 3,
    /// The draft's: the response failed.
    ResponseFailure = 4,
    /// No room: identical bytes after retry_after_ms.
    Overloaded = 16,
    /// The query's epoch is not the one served.
    EpochGone = 17,
    /// No such shard here.
    ShardUnknown = 18,
    /// The bundle is not known here.
    KeyMissing = 19,
    /// This front-end has used its share.
    Quota = 20,
    /// The answer would have come too late; nothing was computed after the deadline.
    Deadline = 21,
    /// A defect of the client; detail says which field.
    Malformed = 22,
    /// The server is leaving.
    Draining = 23,
    /// The device failed and no other could answer.
    Device = 24,
}

/// A `response_status` that docs/wire.md does not name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("response_status is {0}, expected 0 to 4 or 16 to 24: is the server newer than we are?")]
pub struct UnknownStatus(pub i32);

impl Status {
    /// Every status, in the order of its number.
    pub const ALL: [Status; 14] = [
        Status::SchemeMatched,
        Status::SchemeSuggested,
        Status::RequestFailure,
        Status::ResponseSuccess,
        Status::ResponseFailure,
        Status::Overloaded,
        Status::EpochGone,
        Status::ShardUnknown,
        Status::KeyMissing,
        Status::Quota,
        Status::Deadline,
        Status::Malformed,
        Status::Draining,
        Status::Device,
    ];

    /// The number on the wire.
    pub fn code(self) -> i32 {
        self as i32
    }

    /// Its name in docs/wire.md, "Status codes".
    pub fn name(self) -> &'static str {
        match self {
            Status::SchemeMatched => "PIR_SCHEME_MATCHED",
            Status::SchemeSuggested => "PIR_SCHEME_SUGGESTED",
            Status::RequestFailure => "PIR_REQUEST_FAILURE",
            Status::ResponseSuccess => "PIR_RESPONSE_SUCCESS",
            Status::ResponseFailure => "PIR_RESPONSE_FAILURE",
            Status::Overloaded => "OVERLOADED",
            Status::EpochGone => "EPOCH_GONE",
            Status::ShardUnknown => "SHARD_UNKNOWN",
            Status::KeyMissing => "KEY_MISSING",
            Status::Quota => "QUOTA",
            Status::Deadline => "DEADLINE",
            Status::Malformed => "MALFORMED",
            Status::Draining => "DRAINING",
            Status::Device => "DEVICE",
        }
    }
}

impl TryFrom<i32> for Status {
    type Error = UnknownStatus;

    fn try_from(code: i32) -> Result<Self, UnknownStatus> {
        Self::ALL.into_iter().find(|status| status.code() == code).ok_or(UnknownStatus(code))
    }
}

/// QUIC application error codes, of streams and of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum StreamCode {
    /// Nothing is wrong.
    None = 0,
    /// A defect of the server.
    Internal = 1,
    /// The peer does not speak as docs/wire.md says.
    Protocol = 2,
    /// The peer gave up.
    Cancelled = 3,
    /// Too many connections or streams.
    ExcessiveLoad = 4,
    /// The frame is longer than its kind may be.
    FrameTooLarge = 5,
    /// The peer did not send or read in time.
    Timeout = 6,
    /// The peer's certificate names nobody who may call.
    NotAllowed = 7,
}

impl StreamCode {
    /// All of them, by number.
    pub const ALL: [Self; 8] = [
        Self::None,
        Self::Internal,
        Self::Protocol,
        Self::Cancelled,
        Self::ExcessiveLoad,
        Self::FrameTooLarge,
        Self::Timeout,
        Self::NotAllowed,
    ];

    /// The number on the wire.
    pub fn code(self) -> u32 {
        self as u32
    }

    /// Its name in docs/wire.md, "Error codes", in one word.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Internal => "internal",
            Self::Protocol => "protocol",
            Self::Cancelled => "cancelled",
            Self::ExcessiveLoad => "excessive_load",
            Self::FrameTooLarge => "frame_too_large",
            Self::Timeout => "timeout",
            Self::NotAllowed => "not_allowed",
        }
    }
}
