//! Bytes to messages and back: what a resolver front-end and the answer server say to each other.
//!
//! Source: docs/wire.md. A frame ([`frame`]) is a protobuf message ([`message`]) with its length in
//! front; a request becomes a type that is valid by construction ([`request`]) exactly once; the
//! signed [`PublicParameters`] are checked by client and server alike. This module does no IO,
//! reads no clock, and allocates nothing a frame's bound does not cover. It decides what a message
//! means, never what to do about it: that is `server` and `client`.

mod codes;
pub mod frame;
pub mod hex;
mod malformed;
pub mod message;
mod numbers;
pub mod parameters;
pub mod request;

pub use codes::{
    ALPN, HINT_DIGEST_BYTES, PIR_SCHEME_SOTTO_2, PROTOCOL_VERSION, Status, StreamCode,
    UnknownStatus,
};
pub use ed25519_dalek::{SigningKey, VerifyingKey, pkcs8};
pub use frame::{
    FRAME_HEAD_BYTES_MAX, FrameError, FrameHead, ReplyKind, RequestKind, decode_reply,
    encode_frame, parameters_frame, reply_head, request_head,
};
pub use malformed::Malformed;
pub use parameters::{
    Lifetime, LifetimeError, ParameterFields, PublicParameters, SignatureError, sign, verify,
};
pub use prost::bytes::Bytes;
pub use request::{
    Asker, Uid, ValidParameters, ValidQueries, ValidQuery, decode_hints, decode_parameters,
};
