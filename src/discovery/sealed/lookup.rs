//! The bodies of a look-up: frames of docs/wire.md, one after the other.
//!
//! A request has one key bundle, or one for each query, and then one batch of exactly [`BATCH`]
//! queries; its reply has an answer for each query, in their order. A [`LookupRequest`] is valid by
//! construction. Whether its shards, packs and epochs exist is decided by whoever answers.

use std::collections::HashSet;

use prost::Message;
use prost::bytes::Bytes;

use super::errors::SealedError;
use crate::params::Shape;
use crate::wire::message::{PirParameterRequest, PirResponse, Reply, ReplyBody};
use crate::wire::{
    Asker, FRAME_HEAD_BYTES_MAX, FrameError, FrameHead, Malformed, RequestKind, Uid, ValidQueries,
    ValidQuery, decode_parameters, decode_reply, encode_frame, reply_head, request_head,
};

/// Queries of a look-up.
pub const BATCH: usize = 16;

/// A look-up whose form is right. It is content and has no Debug.
pub struct LookupRequest {
    /// Bundles, each under the name that its content has: one, or one for each query.
    pub bundles: Vec<(Uid, Bytes)>,
    /// The queries, each under one of the bundles; all want their hints, or none does.
    pub queries: Vec<ValidQuery>,
}

/// The nonce of the query at `index`.
pub fn nonce(index: usize) -> String {
    format!("{index:02}")
}

/// The body of a request: frames of bundles, then the frame of a batch.
pub fn join(bundles: &[Bytes], batch: Bytes) -> Vec<u8> {
    let mut body = bundles.concat();
    body.extend_from_slice(&batch);
    body
}

/// Reads the body of a request.
///
/// # Errors
/// Which frame is wrong, and how.
pub fn split_request(mut body: Bytes, shape: &Shape) -> Result<LookupRequest, SealedError> {
    let mut bundles = Vec::new();
    loop {
        let index = bundles.len();
        let frame = |error| SealedError::Frame { index, error };
        let head = request_head(first_bytes(&body), shape).map_err(frame)?;
        let (head, message) = take(&mut body, head).map_err(frame)?;
        let malformed = |error| SealedError::Malformed { index, error };
        match head.kind {
            RequestKind::Parameters if index < BATCH => {
                bundles.push(bundle(message, shape).map_err(malformed)?);
            }
            RequestKind::Queries => {
                let queries = ValidQueries::decode(message, shape, Asker::Device);
                let queries = queries.map_err(malformed)?;
                if !body.is_empty() {
                    return Err(batch_error(
                        format!("{} bytes after the batch", body.len()),
                        "none",
                    ));
                }
                return checked(bundles, queries);
            }
            RequestKind::Parameters | RequestKind::Hints => {
                let found = format!("another frame at {index}");
                return Err(batch_error(found, "1 or 16 key bundles, then one batch"));
            }
        }
    }
}

/// The body of a reply: an answer for each query, in their order.
pub fn join_answers(answers: &[PirResponse]) -> Vec<u8> {
    let frame =
        |answer: &PirResponse| encode_frame(&Reply::from(ReplyBody::Answer(answer.clone())));
    answers.iter().flat_map(frame).collect()
}

/// Reads the body of a reply: [`BATCH`] answers, the one at `index` under [`nonce`] of it. What an
/// answer holds is not looked at.
///
/// # Errors
/// Which frame is wrong, and how.
pub fn split_answers(mut body: Bytes, shape: &Shape) -> Result<Vec<PirResponse>, SealedError> {
    let mut answers = Vec::with_capacity(BATCH);
    for index in 0..BATCH {
        let frame = |error| SealedError::Frame { index, error };
        let head = reply_head(first_bytes(&body), Some(shape)).map_err(frame)?;
        let head = whole(&body, head).map_err(frame)?;
        let reply = decode_reply(&head, body.split_to(head.frame_bytes), Some(shape));
        let Some(ReplyBody::Answer(answer)) = reply.map_err(frame)?.body else {
            return Err(batch_error(format!("another reply at {index}"), "16 answers"));
        };
        if answer.nonce != nonce(index) {
            let expected = "the nonces 00 to 15 in order";
            return Err(batch_error(format!("another nonce at {index}"), expected));
        }
        answers.push(answer);
    }
    if !body.is_empty() {
        return Err(batch_error(format!("{} bytes after the answers", body.len()), "none"));
    }
    Ok(answers)
}

fn bundle(message: Bytes, shape: &Shape) -> Result<(Uid, Bytes), Malformed> {
    let bytes = PirParameterRequest::decode(message.clone()).ok();
    let bytes = bytes.and_then(|mut request| request.public_key.pop());
    let valid = decode_parameters(message, shape).map_err(|(_, malformed)| malformed)?;
    match (valid.bundle, bytes) {
        (Some((uid, _)), Some(bytes)) => Ok((uid, bytes)),
        _ => Err(Malformed::new("public_key", "missing", "a key bundle")),
    }
}

fn checked(
    bundles: Vec<(Uid, Bytes)>,
    queries: ValidQueries,
) -> Result<LookupRequest, SealedError> {
    let index = bundles.len();
    if let Some((_, error)) = queries.malformed.into_iter().next() {
        return Err(SealedError::Malformed { index, error });
    }
    let queries = queries.requests;
    if queries.len() != BATCH {
        return Err(batch_error(format!("{} queries", queries.len()), "16 queries"));
    }
    if index != 1 && index != BATCH {
        return Err(batch_error(format!("{index} key bundles"), "1 or 16 key bundles"));
    }
    if !queries.iter().enumerate().all(|(index, query)| query.nonce == nonce(index)) {
        return Err(batch_error("other nonces".to_owned(), "the nonces 00 to 15 in order"));
    }
    if !queries.iter().all(|query| query.want_hint == queries[0].want_hint) {
        return Err(batch_error("hints for some queries".to_owned(), "hints for all or none"));
    }
    // As many names as bundles on both sides, all of them known: each query is under one bundle,
    // each bundle has a query, and no bundle is there twice.
    let known: HashSet<Uid> = bundles.iter().map(|(uid, _)| *uid).collect();
    let used: HashSet<Uid> = queries.iter().map(|query| query.uid).collect();
    if known.len() != index || known != used {
        let expected = "all queries under the one bundle, or each under one of its own";
        return Err(batch_error("queries under other bundles".to_owned(), expected));
    }
    Ok(LookupRequest { bundles, queries })
}

fn first_bytes(body: &Bytes) -> &[u8] {
    &body[..body.len().min(FRAME_HEAD_BYTES_MAX)]
}

/// The head of a frame that the body holds whole.
fn whole<Kind: Copy>(
    body: &Bytes,
    head: Option<FrameHead<Kind>>,
) -> Result<FrameHead<Kind>, FrameError> {
    let found = body.len();
    match head {
        Some(head) if head.frame_bytes <= found => Ok(head),
        Some(head) => Err(FrameError::NotOneMessage { found, expected: head.frame_bytes }),
        None => Err(FrameError::NotOneMessage { found, expected: found + 1 }),
    }
}

/// Takes a frame off the body: its head and its message.
fn take<Kind: Copy>(
    body: &mut Bytes,
    head: Option<FrameHead<Kind>>,
) -> Result<(FrameHead<Kind>, Bytes), FrameError> {
    let head = whole(body, head)?;
    let message = head.body(body.split_to(head.frame_bytes))?;
    Ok((head, message))
}

fn batch_error(found: String, expected: &'static str) -> SealedError {
    SealedError::Batch { found, expected }
}

#[cfg(test)]
#[path = "lookup_tests.rs"]
mod tests;
