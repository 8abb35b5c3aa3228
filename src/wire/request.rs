//! Requests as types that are valid by construction: what the server works with.
//!
//! A request is decoded once, here; nothing behind this looks at a length or a number again. What
//! depends on the state of a server (epoch, which shards it has, which bundles it knows) is the
//! server's to decide. Nothing of a query's content goes into an error.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use prost::bytes::{Buf, Bytes};
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use super::codes::{PIR_SCHEME_SOTTO_2, PROTOCOL_VERSION};
use super::malformed::Malformed;
use super::message::{HintRequest, PirParameterRequest, PirRequest};
use super::{hex, numbers};
use crate::limits;
use crate::params::Shape;
use crate::scheme::{KeyBundle, bundle_uid};

/// The name of a key bundle: the first 16 bytes of BLAKE3 over its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Uid([u8; 16]);

impl Uid {
    /// The name of these bundle bytes.
    pub fn of(bundle: &[u8]) -> Self {
        Self::parse(&bundle_uid(bundle)).expect("this is a bug: a computed uid is no uid")
    }

    /// Reads 32 lower-case hex digits.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let uid = hex::decode_array(text).filter(|uid| hex::encode(uid) == text);
        uid.map(Self).ok_or_else(|| {
            let found = format_args!("{} bytes of text", text.len());
            Malformed::new("uid", found, "32 lower-case hex digits")
        })
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

/// One query, ready to be computed but for the bundle its `uid` names.
#[derive(Clone)]
pub struct ValidQuery {
    /// 1 to 32 bytes, unique in its frame.
    pub nonce: String,
    /// The key bundle it is under.
    pub uid: Uid,
    /// The shard asked; perhaps unknown.
    pub shard: u32,
    /// The epoch asked; perhaps gone.
    pub epoch: u64,
    /// 3 bytes a column, exactly as many as the shape has.
    pub vector: Arc<[u8]>,
    /// The pack whose answer a device wants, from 1 on; 0 is all of them.
    pub pack: u32,
    /// Whether the answer carries the hint.
    pub want_hint: bool,
    /// From arrival; at most [`limits::DEADLINE_MAX`].
    pub deadline: Duration,
}

/// Whose queries are read: a device may name a pack towards its own front-end, and nobody may
/// towards an answer server, which would learn in which of a shard's groups the record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asker {
    /// Who asks an answer server.
    FrontEnd,
    /// Who asks a front-end.
    Device,
}

/// The queries of one frame.
pub struct ValidQueries {
    /// Those to be computed.
    pub requests: Vec<ValidQuery>,
    /// Those to be answered MALFORMED, by their nonces.
    pub malformed: Vec<(String, Malformed)>,
}

impl ValidQueries {
    /// Decodes the body of a frame of queries.
    ///
    /// # Errors
    /// The frame cannot be read at all: no query of it can be told by its nonce. The answer is one
    /// MALFORMED with an empty nonce.
    pub fn decode(body: Bytes, shape: &Shape, asker: Asker) -> Result<Self, Malformed> {
        let requests = split_frame(body, shape.query_bytes() + limits::FRAME_OVERHEAD_BYTES)?;
        if requests.is_empty() {
            return Err(Malformed::new("requests", "empty", "at least one query"));
        }
        let mut nonces = HashSet::with_capacity(requests.len());
        let mut queries = Self { requests: Vec::with_capacity(requests.len()), malformed: vec![] };
        for bytes in requests {
            let request = PirRequest::decode(bytes.clone())
                .map_err(|error| Malformed::unreadable("requests", &error))?;
            if request.nonce.is_empty() {
                return Err(Malformed::new("nonce", "empty", nonce_expected()));
            }
            let nonce = request.nonce.clone();
            match valid_query(&bytes, request, shape, asker, &mut nonces) {
                Ok(query) => queries.requests.push(query),
                Err(malformed) => queries.malformed.push((echoed(nonce), malformed)),
            }
        }
        Ok(queries)
    }
}

/// The queries of a frame as slices of it, counted and bounded before one is decoded: a frame of
/// empty queries must not grow into structs many times its size.
fn split_frame(mut body: Bytes, query_bytes_max: usize) -> Result<Vec<Bytes>, Malformed> {
    let unreadable = |error: prost::DecodeError| Malformed::unreadable("batch", &error);
    let most = limits::QUERIES_PER_FRAME_MAX as usize;
    let mut requests = Vec::new();
    while body.has_remaining() {
        let (tag, wire_type) = decode_key(&mut body).map_err(unreadable)?;
        if tag != 1 || wire_type != WireType::LengthDelimited {
            skip_field(wire_type, tag, &mut body, DecodeContext::default()).map_err(unreadable)?;
            continue;
        }
        let length = decode_varint(&mut body).map_err(unreadable)?;
        if length > body.len() as u64 {
            return Err(Malformed::new(
                "batch",
                format_args!("cut off {} bytes into a query", body.len()),
                format!("{length} bytes of it"),
            ));
        }
        if length > query_bytes_max as u64 {
            let found = format_args!("a query of {length} bytes");
            return Err(Malformed::new("batch", found, format!("at most {query_bytes_max}")));
        }
        if requests.len() == most {
            return Err(Malformed::new("batch", "more queries", format!("at most {most}")));
        }
        requests.push(body.split_to(length as usize));
    }
    Ok(requests)
}

fn nonce_expected() -> String {
    format!("1 to {} bytes, unique in its frame", limits::NONCE_BYTES_MAX)
}

fn check_version_and_nonce(version: u32, nonce: &str) -> Result<(), Malformed> {
    if version != PROTOCOL_VERSION {
        return Err(Malformed::new("protocol_version", version, PROTOCOL_VERSION.to_string()));
    }
    if nonce.len() > limits::NONCE_BYTES_MAX {
        let found = format_args!("{} bytes", nonce.len());
        return Err(Malformed::new("nonce", found, nonce_expected()));
    }
    Ok(())
}

/// As much of a nonce as a reply may echo.
fn echoed(mut nonce: String) -> String {
    nonce.truncate(nonce.floor_char_boundary(limits::NONCE_BYTES_MAX));
    nonce
}

fn valid_query(
    bytes: &[u8],
    request: PirRequest,
    shape: &Shape,
    asker: Asker,
    nonces: &mut HashSet<String>,
) -> Result<ValidQuery, Malformed> {
    numbers::check("requests", bytes, PirRequest::FIELDS)?;
    check_version_and_nonce(request.protocol_version, &request.nonce)?;
    if !nonces.insert(request.nonce.clone()) {
        return Err(Malformed::new("nonce", "there twice", nonce_expected()));
    }
    if request.pir_scheme != PIR_SCHEME_SOTTO_2 {
        let expected = PIR_SCHEME_SOTTO_2.to_string();
        return Err(Malformed::new("pir_scheme", request.pir_scheme, expected));
    }
    let uid = Uid::parse(&request.uid)?;
    let [vector] = request.encrypted_vector.as_slice() else {
        let found = format_args!("{} elements", request.encrypted_vector.len());
        return Err(Malformed::new("encrypted_vector", found, "one element"));
    };
    if vector.len() != shape.query_bytes() {
        return Err(Malformed::bytes("encrypted_vector", vector.len(), shape.query_bytes()));
    }
    check_pack(request.pack, shape, asker)?;
    let deadline = match request.deadline_ms {
        0 => limits::DEADLINE_DEFAULT,
        given => Duration::from_millis(given.into()).min(limits::DEADLINE_MAX),
    };
    Ok(ValidQuery {
        nonce: request.nonce,
        uid,
        shard: request.shard,
        epoch: request.epoch,
        vector: Arc::from(vector.as_ref()),
        pack: request.pack,
        want_hint: request.want_hint,
        deadline,
    })
}

fn check_pack(pack: u32, shape: &Shape, asker: Asker) -> Result<(), Malformed> {
    match asker {
        Asker::FrontEnd if pack != 0 => {
            Err(Malformed::new("pack", pack, "0: an answer holds all packs"))
        }
        Asker::Device if pack as usize > shape.packs() => {
            Err(Malformed::new("pack", pack, format!("at most {}, or 0 for all", shape.packs())))
        }
        _ => Ok(()),
    }
}

/// A parameter request.
pub struct ValidParameters {
    /// Echoed: at most 32 bytes, perhaps empty.
    pub nonce: String,
    /// The scheme asked for; perhaps another one than ours, which is answered, not refused.
    pub pir_scheme: i32,
    /// Whether the reply carries the hint digests.
    pub want_hint_digests: bool,
    /// The bundle brought along, under the name its content has.
    pub bundle: Option<(Uid, KeyBundle)>,
}

/// Decodes the body of a parameter request.
///
/// # Errors
/// The nonce to answer under (empty where it could not be read), and what is wrong.
pub fn decode_parameters(
    body: Bytes,
    shape: &Shape,
) -> Result<ValidParameters, (String, Malformed)> {
    let request = PirParameterRequest::decode(body.clone())
        .map_err(|error| (String::new(), Malformed::unreadable("parameter request", &error)))?;
    let nonce = request.nonce.clone();
    let fits = numbers::check("parameter request", &body, PirParameterRequest::FIELDS);
    fits.and_then(|()| valid_parameters(request, shape))
        .map_err(|malformed| (echoed(nonce), malformed))
}

fn valid_parameters(
    request: PirParameterRequest,
    shape: &Shape,
) -> Result<ValidParameters, Malformed> {
    check_version_and_nonce(request.protocol_version, &request.nonce)?;
    let PirParameterRequest { nonce, pir_scheme, want_hint_digests, .. } = request;
    let bundle = match request.public_key.as_slice() {
        // Keys of another scheme are not ours to judge: the reply says which scheme is.
        _ if pir_scheme != PIR_SCHEME_SOTTO_2 => None,
        [] => None,
        [bytes] => Some(valid_bundle(&request.uid, bytes, shape)?),
        more => {
            let found = format_args!("{} elements", more.len());
            return Err(Malformed::new("public_key", found, "none or one"));
        }
    };
    Ok(ValidParameters { nonce, pir_scheme, want_hint_digests, bundle })
}

fn valid_bundle(uid: &str, bytes: &[u8], shape: &Shape) -> Result<(Uid, KeyBundle), Malformed> {
    let bundle = KeyBundle::decode(bytes, shape)
        .map_err(|error| Malformed::new("public_key", error, "a key bundle of this shape"))?;
    let named = Uid::parse(uid)?;
    if named != Uid::of(bytes) {
        return Err(Malformed::new("uid", "another bundle's", "the name of public_key's content"));
    }
    Ok((named, bundle))
}

/// Decodes the body of a hint request. The epoch and the shards may be unknown; there is at least
/// one shard, and none twice.
pub fn decode_hints(body: Bytes) -> Result<HintRequest, Malformed> {
    let kind = "hint request";
    let request =
        HintRequest::decode(body.clone()).map_err(|error| Malformed::unreadable(kind, &error))?;
    numbers::check(kind, &body, HintRequest::FIELDS)?;
    let most = limits::HINTS_PER_REQUEST_MAX as usize;
    if !(1..=most).contains(&request.shards.len()) {
        let found = format_args!("{} shards", request.shards.len());
        return Err(Malformed::new("shards", found, format!("1 to {most}")));
    }
    let mut seen = HashSet::with_capacity(request.shards.len());
    if !request.shards.iter().all(|shard| seen.insert(shard)) {
        return Err(Malformed::new("shards", "a list with repeats", "each shard once"));
    }
    Ok(request)
}
