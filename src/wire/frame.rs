//! Frames: a message with its length in front, and how long each kind may be (docs/wire.md,
//! "Frames").
//!
//! Reading is in two steps. The first [`FRAME_HEAD_BYTES_MAX`] bytes of a frame say its kind and
//! length; what is longer than that kind may be is refused before any of it is kept. Only then is
//! the rest read and the body decoded. A frame holds exactly one message: nothing before or after
//! it, so the kind the bound was chosen for is the kind that is decoded.

use prost::Message;
use prost::bytes::{Buf, Bytes};
use prost::encoding::{
    DecodeContext, WireType, decode_key, decode_varint, encode_key, encode_varint,
    encoded_len_varint, skip_field,
};

use super::codes::StreamCode;
use super::message::{Hint, PirParameterResponse, PirResponse, Reply, ReplyBody};
use super::numbers;
use crate::limits;
use crate::params::Shape;

/// Enough bytes of a frame to know its kind and length: two five-byte varints and a tag.
pub const FRAME_HEAD_BYTES_MAX: usize = 11;
/// Longest varint of a length below 2^32.
const LENGTH_VARINT_BYTES_MAX: usize = 5;

/// Why a frame is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum FrameError {
    #[error("the frame does not begin with a length below 2^32")]
    Length,
    #[error("the frame begins with field tag {found:#04x}, expected 0x0a, 0x12 or 0x1a")]
    Kind { found: u8 },
    #[error("the frame has {found} bytes, expected {expected} for the one message it holds")]
    NotOneMessage { found: usize, expected: usize },
    #[error("the {kind} frame has {found} bytes, expected at most {max}")]
    TooLong { kind: &'static str, found: usize, max: usize },
    #[error("the {kind} message has more than {max} elements in field {field}, one a pack")]
    TooManyElements { kind: &'static str, field: u32, max: usize },
    #[error("the {kind} message cannot be read: {detail}")]
    Unreadable { kind: &'static str, detail: String },
}

impl FrameError {
    /// The code a stream is reset with for this.
    pub fn stream_code(&self) -> StreamCode {
        match self {
            FrameError::TooLong { .. } => StreamCode::FrameTooLarge,
            _ => StreamCode::Protocol,
        }
    }
}

/// The requests a stream may bring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "they are the messages of RequestBody")]
pub enum RequestKind {
    Parameters,
    Queries,
    Hints,
}

/// The replies a stream may bring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "they are the messages of ReplyBody")]
pub enum ReplyKind {
    Parameters,
    Answer,
    Hint,
}

/// Kinds of frame, each with the tag of its message and its name in errors.
type Kinds<Kind> = [(u8, Kind, &'static str); 3];

const REQUESTS: Kinds<RequestKind> = [
    (0x0a, RequestKind::Parameters, "parameter request"),
    (0x12, RequestKind::Queries, "batch"),
    (0x1a, RequestKind::Hints, "hint request"),
];
const REPLIES: Kinds<ReplyKind> = [
    (0x0a, ReplyKind::Parameters, "parameter reply"),
    (0x12, ReplyKind::Answer, "answer"),
    (0x1a, ReplyKind::Hint, "hint"),
];

/// What the first bytes of a frame say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHead<Kind> {
    /// Which message the frame holds.
    pub kind: Kind,
    /// Where the message begins; it ends with the frame.
    pub body_at: usize,
    /// Bytes of the whole frame, its length prefix included.
    pub frame_bytes: usize,
}

impl<Kind> FrameHead<Kind> {
    /// The message in `frame`, which is to be the whole frame and nothing else.
    pub fn body(&self, frame: Bytes) -> Result<Bytes, FrameError> {
        if frame.len() != self.frame_bytes {
            let (found, expected) = (frame.len(), self.frame_bytes);
            return Err(FrameError::NotOneMessage { found, expected });
        }
        Ok(frame.slice(self.body_at..))
    }
}

impl RequestKind {
    /// Longest frame of this kind for a database of this shape.
    pub fn bytes_max(self, shape: &Shape) -> usize {
        let overhead = limits::FRAME_OVERHEAD_BYTES;
        match self {
            RequestKind::Parameters => shape.bundle_bytes() + overhead,
            RequestKind::Queries => {
                limits::QUERIES_PER_FRAME_MAX as usize * (shape.query_bytes() + overhead)
            }
            RequestKind::Hints => {
                limits::HINTS_PER_REQUEST_MAX as usize * LENGTH_VARINT_BYTES_MAX + overhead
            }
        }
    }
}

impl ReplyKind {
    /// Longest frame of this kind; the shape is not known before the first parameters, when only
    /// they are accepted.
    pub fn bytes_max(self, shape: Option<&Shape>) -> usize {
        let fixed = limits::REPLY_OVERHEAD_BYTES;
        match (self, shape) {
            (ReplyKind::Parameters, _) => limits::PARAMETERS_REPLY_BYTES_MAX,
            (_, None) => fixed,
            (ReplyKind::Answer, Some(shape)) => {
                let pack_bytes = shape.response_bytes() + shape.hint_bytes() + 32;
                shape.packs() * pack_bytes + fixed
            }
            (ReplyKind::Hint, Some(shape)) => shape.packs() * (shape.hint_bytes() + 8) + fixed,
        }
    }
}

/// Kind and length of the request whose first bytes these are; `None` when there are too few of
/// them yet. With [`FRAME_HEAD_BYTES_MAX`] bytes, or the whole of a shorter frame, it is never
/// `None`.
pub fn request_head(
    first: &[u8],
    shape: &Shape,
) -> Result<Option<FrameHead<RequestKind>>, FrameError> {
    head(first, &REQUESTS, |kind| kind.bytes_max(shape))
}

/// The same for a reply.
pub fn reply_head(
    first: &[u8],
    shape: Option<&Shape>,
) -> Result<Option<FrameHead<ReplyKind>>, FrameError> {
    head(first, &REPLIES, |kind| kind.bytes_max(shape))
}

fn head<Kind: Copy>(
    first: &[u8],
    kinds: &Kinds<Kind>,
    bytes_max: impl Fn(Kind) -> usize,
) -> Result<Option<FrameHead<Kind>>, FrameError> {
    let Some((length, rest)) = length_varint(first)? else { return Ok(None) };
    if length == 0 {
        return Err(FrameError::NotOneMessage { found: 0, expected: 2 });
    }
    let prefix = first.len() - rest.len();
    let Some((&tag, rest)) = rest.split_first() else { return Ok(None) };
    let known = kinds.iter().find(|(known, ..)| *known == tag);
    let &(_, kind, name) = known.ok_or(FrameError::Kind { found: tag })?;
    let (found, max) = (prefix + length, bytes_max(kind));
    if found > max {
        return Err(FrameError::TooLong { kind: name, found, max });
    }
    if length == 1 {
        return Err(FrameError::NotOneMessage { found: 1, expected: 2 });
    }
    let Some((body_bytes, rest)) = length_varint(rest)? else { return Ok(None) };
    let body_at = first.len() - rest.len();
    if length != body_at - prefix + body_bytes {
        let expected = body_at - prefix + body_bytes;
        return Err(FrameError::NotOneMessage { found: length, expected });
    }
    Ok(Some(FrameHead { kind, body_at, frame_bytes: found }))
}

/// A length and what follows it; `None` when it is cut off. Only the shortest encoding counts.
fn length_varint(bytes: &[u8]) -> Result<Option<(usize, &[u8])>, FrameError> {
    let window = &bytes[..bytes.len().min(LENGTH_VARINT_BYTES_MAX)];
    let Some(last) = window.iter().position(|&byte| byte < 0x80) else {
        let cut_off = bytes.len() < LENGTH_VARINT_BYTES_MAX;
        return if cut_off { Ok(None) } else { Err(FrameError::Length) };
    };
    let mut varint = &window[..=last];
    let length = decode_varint(&mut varint).map_err(|_| FrameError::Length)?;
    if length > u64::from(u32::MAX) || encoded_len_varint(length) != last + 1 {
        return Err(FrameError::Length);
    }
    Ok(Some((length as usize, &bytes[last + 1..])))
}

/// A message with its length in front.
pub fn encode_frame(message: &impl Message) -> Vec<u8> {
    message.encode_length_delimited_to_vec()
}

/// Shortest field that is sent from where it lies. Of a shorter one a copy costs less.
const SHARED_BYTES_MIN: usize = 1 << 10;

/// The frame of a parameter reply, in pieces: the serialized parameters and the hint digests are
/// the same for every client of an epoch, and are not copied. Put together the pieces are the frame
/// that [`encode_frame`] makes.
pub fn parameters_frame(mut reply: PirParameterResponse) -> Vec<Bytes> {
    let body_bytes = reply.encoded_len() as u64;
    let mut piece = Vec::new();
    encode_varint(1 + encoded_len_varint(body_bytes) as u64 + body_bytes, &mut piece);
    encode_key(1, WireType::LengthDelimited, &mut piece);
    encode_varint(body_bytes, &mut piece);

    let parameters = take_shared(&mut reply.parameters);
    let digests = take_shared(&mut reply.hint_digests);
    // What follows each of the two, by field number.
    let signature = std::mem::take(&mut reply.signature);
    let between = PirParameterResponse { signature, ..Default::default() };
    let after = PirParameterResponse {
        hint_digests: std::mem::take(&mut reply.hint_digests),
        limits: reply.limits.take(),
        retry_after_ms: std::mem::take(&mut reply.retry_after_ms),
        detail: std::mem::take(&mut reply.detail),
        operator_key: std::mem::take(&mut reply.operator_key),
        ..Default::default()
    };
    piece.extend(reply.encode_to_vec());
    let mut pieces = Vec::new();
    for (tag, shared, next) in [(16, parameters, between), (18, digests, after)] {
        if let Some(bytes) = shared {
            encode_key(tag, WireType::LengthDelimited, &mut piece);
            encode_varint(bytes.len() as u64, &mut piece);
            pieces.extend([std::mem::take(&mut piece).into(), bytes]);
        }
        piece.extend(next.encode_to_vec());
    }
    pieces.push(piece.into());
    pieces
}

/// Takes a field out of its message where it is long enough to be sent from where it lies.
fn take_shared(field: &mut Bytes) -> Option<Bytes> {
    (field.len() >= SHARED_BYTES_MIN).then(|| std::mem::take(field))
}

/// Decodes the reply whose head was read; `frame` is the whole frame. Without a shape, as before
/// the first parameters, no reply may carry a pack.
pub fn decode_reply(
    head: &FrameHead<ReplyKind>,
    frame: Bytes,
    shape: Option<&Shape>,
) -> Result<Reply, FrameError> {
    let body = head.body(frame)?;
    let (kind, repeated, fields) = match head.kind {
        ReplyKind::Parameters => ("parameter reply", &[][..], PirParameterResponse::FIELDS),
        ReplyKind::Answer => ("answer", &[5, 16][..], PirResponse::FIELDS),
        ReplyKind::Hint => ("hint", &[3][..], Hint::FIELDS),
    };
    check_elements(kind, body.clone(), repeated, shape.map_or(0, Shape::packs))?;
    numbers::check(kind, &body, fields)
        .map_err(|malformed| FrameError::Unreadable { kind, detail: malformed.to_string() })?;
    let body = match head.kind {
        ReplyKind::Parameters => PirParameterResponse::decode(body).map(ReplyBody::Parameters),
        ReplyKind::Answer => PirResponse::decode(body).map(ReplyBody::Answer),
        ReplyKind::Hint => Hint::decode(body).map(ReplyBody::Hint),
    };
    body.map(Reply::from).map_err(unreadable(kind))
}

/// Counts the elements of repeated fields before one is decoded: two bytes of a frame, an empty
/// element, would grow into a vector of twenty-four.
fn check_elements(
    kind: &'static str,
    mut body: Bytes,
    repeated: &[u32],
    max: usize,
) -> Result<(), FrameError> {
    let mut found = [0; 2];
    while body.has_remaining() {
        let (field, wire_type) = decode_key(&mut body).map_err(unreadable(kind))?;
        if let Some(at) = repeated.iter().position(|&known| known == field) {
            found[at] += 1;
            if found[at] > max {
                return Err(FrameError::TooManyElements { kind, field, max });
            }
        }
        let context = DecodeContext::default();
        skip_field(wire_type, field, &mut body, context).map_err(unreadable(kind))?;
    }
    Ok(())
}

fn unreadable(kind: &'static str) -> impl Fn(prost::DecodeError) -> FrameError {
    move |error| FrameError::Unreadable { kind, detail: error.to_string() }
}
