//! Sealing and opening: binary HTTP (RFC 9292, known length) inside Oblivious HTTP (RFC 9458).
//!
//! A capsule is bound to its reply: only the [`Opener`] of the request opens what the [`Sealer`] of
//! the same request sealed. The same capsule may arrive twice and opens to the same request.

use std::io::Cursor;

use bhttp::{Message, Mode, StatusCode};
use ohttp::{ClientRequest, ClientResponse, ServerResponse};

use super::errors::SealedError;
use super::keys::{GatewayKey, check_config};
use crate::limits::{SEALED_FIELDS_BYTES_MAX, SEALED_PATH_BYTES_MAX};

/// The scheme and the authority of each request. The name is reserved and never resolves.
const SCHEME: &[u8] = b"https";
const AUTHORITY: &[u8] = b"front-end.invalid";
const CONTENT_TYPE: &[u8] = b"content-type";
const RETRY_AFTER: &[u8] = b"retry-after";
const ETAG: &[u8] = b"etag";
/// Bytes of a capsule around its content: identifiers of key and suite (7), the encapsulated key
/// (32), the tag (16).
pub const REQUEST_OVERHEAD_BYTES: usize = 55;
/// Bytes of a sealed reply around its content: a nonce and the tag, 16 each.
pub const REPLY_OVERHEAD_BYTES: usize = 32;

/// A request as it is inside a capsule. It is content and has no Debug.
#[derive(Clone, PartialEq, Eq)]
#[allow(missing_docs)] // Names say it.
pub struct InnerRequest {
    pub method: String,
    pub path: String,
    pub content_type: Option<String>,
    pub body: Vec<u8>,
}

/// A reply as it is inside a sealed reply. It is content and has no Debug.
#[derive(Clone, PartialEq, Eq)]
pub struct InnerResponse {
    /// 200 to 599.
    pub status: u16,
    #[allow(missing_docs)] // Names say it.
    pub content_type: Option<String>,
    /// Seconds after which the same request may be sent again.
    pub retry_after: Option<u32>,
    /// The tag of the body, with its quotation marks.
    pub etag: Option<String>,
    #[allow(missing_docs)] // Names say it.
    pub body: Vec<u8>,
}

/// Seals a request for the key of this configuration: the capsule, and what opens the reply.
///
/// # Errors
/// The configuration is not one of ours, or the cryptography refuses.
pub fn seal(config: &[u8], request: &InnerRequest) -> Result<(Vec<u8>, Opener), SealedError> {
    seal_to(config, request, 0)
}

/// The same with zeros behind the content, up to `message_bytes` (RFC 9292, section 3.8). Whoever
/// sees only the length of a capsule, such as a relay, then learns nothing of the numbers in it:
/// a shard number takes none to three bytes.
///
/// # Errors
/// As [`seal`].
pub fn seal_to(
    config: &[u8],
    request: &InnerRequest,
    message_bytes: usize,
) -> Result<(Vec<u8>, Opener), SealedError> {
    check_config(config)?;
    let control = [request.method.as_bytes(), SCHEME, AUTHORITY, request.path.as_bytes()];
    let [method, scheme, authority, path] = control.map(<[u8]>::to_vec);
    let mut message = Message::request(method, scheme, authority, path);
    if let Some(content_type) = &request.content_type {
        message.put_header(CONTENT_TYPE, content_type.as_bytes());
    }
    message.write_content(&request.body);
    let mut bytes = written(&message)?;
    bytes.resize(bytes.len().max(message_bytes), 0);
    let client = ClientRequest::from_encoded_config(config).map_err(sealing)?;
    let (capsule, response) = client.encapsulate(&bytes).map_err(sealing)?;
    Ok((capsule, Opener(response)))
}

/// Opens the reply to one request.
pub struct Opener(ClientResponse);

impl Opener {
    /// The reply.
    ///
    /// # Errors
    /// It is not the reply to this request, was changed, or is no binary HTTP.
    pub fn open(self, reply: &[u8]) -> Result<InnerResponse, SealedError> {
        let (found, expected) = (reply.len(), REPLY_OVERHEAD_BYTES);
        if found <= expected {
            return Err(SealedError::Short { found, expected });
        }
        let bytes = self.0.decapsulate(reply).map_err(|_| SealedError::Unopened)?;
        let message = read(&bytes, Kind::Reply)?;
        let status = message.control().status().ok_or(SealedError::NotHttp("a request"))?.code();
        let retry_after = match text(&message, RETRY_AFTER)? {
            Some(text) => {
                Some(text.parse().map_err(|_| SealedError::NotHttp("retry-after is no seconds"))?)
            }
            None => None,
        };
        Ok(InnerResponse {
            status,
            content_type: text(&message, CONTENT_TYPE)?,
            retry_after,
            etag: text(&message, ETAG)?,
            body: message.content().to_vec(),
        })
    }
}

/// The keys of a front-end that open requests.
pub struct Gateway {
    keys: Vec<GatewayKey>,
}

/// Seals the reply to one request.
pub struct Sealer(ServerResponse);

impl Gateway {
    /// With these keys, each under an identifier of its own; the first that fits is used.
    pub fn new(keys: Vec<GatewayKey>) -> Self {
        Self { keys }
    }

    /// The configurations of the keys, in their order.
    pub fn configs(&self) -> Vec<Vec<u8>> {
        self.keys.iter().map(|key| key.config().to_vec()).collect()
    }

    /// The request in a capsule, and what seals the reply.
    ///
    /// # Errors
    /// As [`Gateway::decapsulate`], or the content is no request.
    pub fn open(&self, capsule: &[u8]) -> Result<(InnerRequest, Sealer), SealedError> {
        let (request, sealer) = self.decapsulate(capsule)?;
        Ok((request?, sealer))
    }

    /// The same with content that is no request told apart: RFC 9458, section 5.2, has errors that
    /// are found after opening be sealed.
    ///
    /// # Errors
    /// [`SealedError::UnknownKey`] for a key that is not held, [`SealedError::Unopened`] or
    /// [`SealedError::Short`] for a capsule that was changed or cut off.
    pub fn decapsulate(
        &self,
        capsule: &[u8],
    ) -> Result<(Result<InnerRequest, SealedError>, Sealer), SealedError> {
        let (found, expected) = (capsule.len(), REQUEST_OVERHEAD_BYTES);
        if found <= expected {
            return Err(SealedError::Short { found, expected });
        }
        let key = self.keys.iter().find(|key| key.id() == capsule[0]);
        let server = &key.ok_or(SealedError::UnknownKey)?.server;
        let (bytes, response) = server.decapsulate(capsule).map_err(|error| match error {
            ohttp::Error::InvalidKem | ohttp::Error::Unsupported => SealedError::UnknownKey,
            _ => SealedError::Unopened,
        })?;
        Ok((request(&bytes), Sealer(response)))
    }
}

impl Sealer {
    /// The sealed reply.
    ///
    /// # Errors
    /// [`SealedError::Seal`], for a status below 200 or above 599, or if the cryptography refuses.
    pub fn seal(self, response: &InnerResponse) -> Result<Vec<u8>, SealedError> {
        self.seal_to(response, 0)
    }

    /// The same with zeros behind the content, up to `message_bytes`: see the function [`seal_to`].
    ///
    /// # Errors
    /// As [`Sealer::seal`].
    pub fn seal_to(
        self,
        response: &InnerResponse,
        message_bytes: usize,
    ) -> Result<Vec<u8>, SealedError> {
        let status = StatusCode::try_from(response.status)
            .ok()
            .filter(|status| !status.informational())
            .ok_or_else(|| SealedError::Seal(format!("status {}", response.status)))?;
        let mut message = Message::response(status);
        if let Some(content_type) = &response.content_type {
            message.put_header(CONTENT_TYPE, content_type.as_bytes());
        }
        if let Some(seconds) = response.retry_after {
            message.put_header(RETRY_AFTER, seconds.to_string());
        }
        if let Some(etag) = &response.etag {
            message.put_header(ETAG, etag.as_bytes());
        }
        message.write_content(&response.body);
        let mut bytes = written(&message)?;
        bytes.resize(bytes.len().max(message_bytes), 0);
        self.0.encapsulate(&bytes).map_err(sealing)
    }
}

fn request(bytes: &[u8]) -> Result<InnerRequest, SealedError> {
    let message = read(bytes, Kind::Request)?;
    let control = message.control();
    if control.scheme() != Some(SCHEME) || control.authority() != Some(AUTHORITY) {
        return Err(SealedError::NotHttp("the target is not https://front-end.invalid"));
    }
    let path = control.path().unwrap_or_default();
    let (found, max) = (path.len(), SEALED_PATH_BYTES_MAX);
    if found > max {
        return Err(SealedError::TooLong { what: "path", found, max });
    }
    Ok(InnerRequest {
        method: utf8(control.method().unwrap_or_default())?,
        path: utf8(path)?,
        content_type: text(&message, CONTENT_TYPE)?,
        body: message.content().to_vec(),
    })
}

/// Which kind of message is expected.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Request,
    Reply,
}

/// Reads a message whose form is right. The crate `bhttp` has no bound of its own for fields.
fn read(bytes: &[u8], kind: Kind) -> Result<Message, SealedError> {
    check_form(bytes, kind)?;
    Message::read_bhttp(&mut Cursor::new(bytes)).map_err(|_| SealedError::NotHttp("unreadable"))
}

/// Checks the frame of a message of known length (RFC 9292, section 3.1): its kind, the length of
/// its header section, no trailers, and nothing but zeros behind it.
fn check_form(mut bytes: &[u8], kind: Kind) -> Result<(), SealedError> {
    let cut_off = || SealedError::NotHttp("cut off");
    let indicator = varint(&mut bytes).ok_or_else(cut_off)?;
    let status_or_method = match (indicator, kind) {
        (0, Kind::Request) => {
            for _ in 0..3 {
                section(&mut bytes).ok_or_else(cut_off)?;
            }
            section(&mut bytes).map(|_| 200)
        }
        (1, Kind::Reply) => varint(&mut bytes),
        _ => return Err(SealedError::NotHttp("of another kind, or of indeterminate length")),
    };
    if !(200..600).contains(&status_or_method.ok_or_else(cut_off)?) {
        return Err(SealedError::NotHttp("the status is not final"));
    }
    let (found, max) = (section(&mut bytes).ok_or_else(cut_off)?, SEALED_FIELDS_BYTES_MAX);
    if found > max {
        return Err(SealedError::TooLong { what: "header section", found, max });
    }
    section(&mut bytes).ok_or_else(cut_off)?;
    if bytes.iter().any(|&byte| byte != 0) {
        return Err(SealedError::NotHttp("something follows the content"));
    }
    Ok(())
}

/// Takes a length and the bytes it announces: how many they are, or `None` if they are cut off.
fn section(bytes: &mut &[u8]) -> Option<usize> {
    let length = usize::try_from(varint(bytes)?).ok()?;
    *bytes = bytes.get(length..)?;
    Some(length)
}

/// Takes an integer of variable length (RFC 9000, section 16).
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let first = *bytes.first()?;
    let length = 1usize << (first >> 6);
    let (integer, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    let start = u64::from(first & 0x3f);
    Some(integer[1..].iter().fold(start, |value, &byte| value << 8 | u64::from(byte)))
}

fn text(message: &Message, name: &[u8]) -> Result<Option<String>, SealedError> {
    message.header().get(name).map(utf8).transpose()
}

fn utf8(bytes: &[u8]) -> Result<String, SealedError> {
    let visible = bytes.iter().all(|byte| (0x20..0x7f).contains(byte));
    let text = std::str::from_utf8(bytes).ok().filter(|_| visible);
    text.map(str::to_owned).ok_or(SealedError::NotHttp("a field is no visible ASCII"))
}

fn written(message: &Message) -> Result<Vec<u8>, SealedError> {
    let mut bytes = Vec::new();
    message
        .write_bhttp(Mode::KnownLength, &mut bytes)
        .map_err(|error| SealedError::Seal(error.to_string()))?;
    Ok(bytes)
}

fn sealing(error: ohttp::Error) -> SealedError {
    SealedError::Seal(error.to_string())
}

#[cfg(test)]
#[path = "capsule_tests.rs"]
mod tests;
