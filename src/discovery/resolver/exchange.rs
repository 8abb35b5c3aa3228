//! What a device and its relay say to each other: what everybody may read in the clear, and sealed
//! requests. What was not answered is sent again, in a new seal and with the identical content.
//!
//! Nothing here knows what an answer says. What is sent, and when, depends on statuses and time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ed25519_dalek::VerifyingKey;
use http::Method;
use serde::Deserialize;

use super::errors::ResolveError;
use super::options::{Clock, Token};
use super::report::Report;
use crate::discovery::sealed::capsule::{InnerRequest, InnerResponse, Opener, seal_to};
use crate::discovery::sealed::keys::KeyList;
use crate::https::{Client, HttpsError, Response, etag};
use crate::limits;
use crate::wire::Bytes;

const REQUEST_TYPE: &str = "message/ohttp-req";
const REPLY_TYPE: &str = "message/ohttp-res";
/// What tells that the front-end does not hold a key (RFC 9458, section 5.3).
const KEY_PROBLEM: &str = "https://iana.org/assignments/http-problem-types#ohttp-key";
/// What `relay_bound` means.
const RELAY_BOUND: &str = "the relay has used its own bound at the front-end";
const OK: u16 = 200;
const NOT_MODIFIED: u16 = 304;
const UNAVAILABLE: u16 = 503;

/// The relay as this device reaches it.
pub(super) struct Exchange {
    pub(super) http: Client,
    /// Its URL, without a slash at the end.
    pub(super) relay: String,
    pub(super) token: Token,
    pub(super) clock: Clock,
    pub(super) front_end_key: VerifyingKey,
    pub(super) keys: Mutex<Option<KeyList>>,
    pub(super) traffic: Traffic,
}

/// What was sent and received since the last report.
#[derive(Default)]
pub(super) struct Traffic {
    bytes_up: AtomicU64,
    bytes_down: AtomicU64,
    requests: AtomicU64,
    evaluations: AtomicU64,
    lookups: AtomicU64,
}

/// The two kinds of sealed requests, which the relay counts apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Evaluate,
    Lookup,
}

impl Kind {
    fn path(self) -> &'static str {
        match self {
            Self::Evaluate => "/evaluate",
            Self::Lookup => "/lookup",
        }
    }

    /// Its name in errors.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Evaluate => "evaluation",
            Self::Lookup => "look-up",
        }
    }
}

/// What lies at a path in the clear.
pub(super) enum Fetched {
    /// Nothing.
    Nothing,
    /// What is held already.
    Same,
    /// Something else.
    Other(Bytes),
}

/// Why one attempt has no reply.
enum Failed {
    /// Trying again would not help.
    Finally(ResolveError),
    /// The front-end does not hold the key that was sealed for.
    UnknownKey,
    /// Trying again may help, after what the peer asks for.
    ForNow { error: ResolveError, wait: Option<Duration> },
}

/// What a relay says of an error.
#[derive(Deserialize)]
struct RelayError {
    error: String,
    kind: Option<String>,
    retry_after: Option<u64>,
}

impl Exchange {
    pub(super) fn now(&self) -> u64 {
        (self.clock)()
    }

    /// What lies at a path in the clear; none if it still is what is `held`.
    pub(super) async fn get(
        &self,
        what: &'static str,
        path: &str,
        held: &[u8],
        bytes_max: usize,
    ) -> Result<Option<Bytes>, ResolveError> {
        match self.get_if_there(what, path, held, bytes_max).await? {
            Fetched::Other(body) => Ok(Some(body)),
            Fetched::Same => Ok(None),
            Fetched::Nothing => {
                let problem = "the relay answers 404".into();
                Err(ResolveError::Reply { what, problem })
            }
        }
    }

    /// The same, of what need not be there.
    pub(super) async fn get_if_there(
        &self,
        what: &'static str,
        path: &str,
        held: &[u8],
        bytes_max: usize,
    ) -> Result<Fetched, ResolveError> {
        let mut failures = 0;
        loop {
            match self.try_get(what, path, held, bytes_max).await {
                Ok(body) => return Ok(body),
                Err(failed) => pause(failed, &mut failures).await?,
            }
        }
    }

    async fn try_get(
        &self,
        what: &'static str,
        path: &str,
        held: &[u8],
        bytes_max: usize,
    ) -> Result<Fetched, Failed> {
        let tag = etag(held);
        let headers = [("if-none-match", &*tag)];
        let headers = if held.is_empty() { &[][..] } else { &headers[..] };
        let url = format!("{}{path}", self.relay);
        let sent = self.send(Method::GET, &url, headers, Bytes::new(), bytes_max).await;
        let reply = sent.map_err(unreachable)?;
        match reply.status {
            OK => Ok(Fetched::Other(reply.body)),
            NOT_MODIFIED if !held.is_empty() => Ok(Fetched::Same),
            NOT_MODIFIED => {
                let problem = "the relay answers 304, and nothing was held".into();
                Err(Failed::Finally(ResolveError::Reply { what, problem }))
            }
            404 => Ok(Fetched::Nothing),
            _ => Err(refused(&reply)),
        }
    }

    /// Fetches the front-end's keys and verifies them.
    pub(super) async fn fetch_keys(&self) -> Result<(), ResolveError> {
        let max = limits::OHTTP_KEYS_BYTES_MAX;
        let body = self.get("request for keys", "/ohttp-keys", &[], max).await?.unwrap_or_default();
        let text = std::str::from_utf8(&body).map_err(|_| ResolveError::Reply {
            what: "request for keys",
            problem: "it is no text".into(),
        })?;
        let list = KeyList::open(text, &self.front_end_key, self.now());
        *self.lock() = Some(list.map_err(ResolveError::Keys)?);
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<KeyList>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest key that is known, if it still holds.
    fn newest_key(&self) -> Option<Vec<u8>> {
        let now = self.now();
        let keys = self.lock();
        keys.as_ref().filter(|keys| keys.expires() > now).map(|keys| keys.newest().to_vec())
    }

    /// Asks the front-end, through the relay, with zeros behind the request up to so many bytes,
    /// so that the relay cannot tell requests apart by their lengths. Sets `may_have_arrived` once
    /// the front-end may have the request.
    pub(super) async fn ask(
        &self,
        kind: Kind,
        (request, request_bytes): (&InnerRequest, usize),
        bytes_max: usize,
        may_have_arrived: &mut bool,
    ) -> Result<InnerResponse, ResolveError> {
        let (mut failures, mut is_renewed) = (0, false);
        loop {
            match self.try_ask(kind, (request, request_bytes), bytes_max, may_have_arrived).await {
                Ok(reply) => return Ok(reply),
                Err(Failed::UnknownKey) if is_renewed => return Err(ResolveError::KeyUnknown),
                Err(Failed::UnknownKey) => {
                    is_renewed = true;
                    self.fetch_keys().await?;
                }
                Err(failed) => pause(failed, &mut failures).await?,
            }
        }
    }

    async fn try_ask(
        &self,
        kind: Kind,
        (request, request_bytes): (&InnerRequest, usize),
        bytes_max: usize,
        may_have_arrived: &mut bool,
    ) -> Result<InnerResponse, Failed> {
        let Some(key) = self.newest_key() else { return Err(Failed::UnknownKey) };
        let sealed = seal_to(&key, request, request_bytes).map_err(ResolveError::Keys);
        let (capsule, opener) = sealed.map_err(Failed::Finally)?;
        let bearer = zeroize::Zeroizing::new(format!("Bearer {}", (self.token)()));
        let headers = [("content-type", REQUEST_TYPE), ("authorization", &*bearer)];
        let url = format!("{}{}", self.relay, kind.path());
        self.traffic.count(kind, capsule.len());
        let max = bytes_max + crate::discovery::sealed::capsule::REPLY_OVERHEAD_BYTES;
        let max = max.max(limits::RELAY_ERROR_BYTES_MAX);
        let sent = self.send(Method::POST, &url, &headers, capsule.into(), max).await;
        let reply = sent.map_err(|error| {
            *may_have_arrived |= !error.never_sent();
            unreachable(error)
        })?;
        if reply.status != OK {
            // The relay says of the others that it did not pass the request on.
            *may_have_arrived |= !matches!(reply.status, 400 | 401 | 413 | 415 | 429 | 502 | 503);
            return Err(refused(&reply));
        }
        *may_have_arrived = true;
        opened(kind, &reply, opener)
    }

    async fn send(
        &self,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
        body: Bytes,
        bytes_max: usize,
    ) -> Result<Response, HttpsError> {
        self.traffic.requests.fetch_add(1, Ordering::Relaxed);
        let reply = self.http.send(method, url, headers, body, bytes_max).await?;
        self.traffic.bytes_down.fetch_add(reply.body.len() as u64, Ordering::Relaxed);
        Ok(reply)
    }
}

impl Traffic {
    fn count(&self, kind: Kind, bytes: usize) {
        self.bytes_up.fetch_add(bytes as u64, Ordering::Relaxed);
        let counter = if kind == Kind::Lookup { &self.lookups } else { &self.evaluations };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Begins again at zero.
    pub(super) fn reset(&self) {
        let Self { bytes_up, bytes_down, requests, evaluations, lookups } = self;
        for counter in [bytes_up, bytes_down, requests, evaluations, lookups] {
            counter.store(0, Ordering::Relaxed);
        }
    }

    pub(super) fn write_to(&self, report: &mut Report) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        report.bytes_up = read(&self.bytes_up);
        report.bytes_down = read(&self.bytes_down);
        report.requests = read(&self.requests);
        report.evaluations = read(&self.evaluations);
        report.lookups = read(&self.lookups);
    }
}

/// What is inside a sealed reply.
fn opened(kind: Kind, reply: &Response, opener: Opener) -> Result<InnerResponse, Failed> {
    let what = kind.name();
    let refuse = |problem| {
        let error = ResolveError::Changed { what, problem };
        Failed::ForNow { error, wait: None }
    };
    if !has_type(reply, REPLY_TYPE) {
        return Err(refuse("it is no sealed reply".into()));
    }
    let inner = opener.open(&reply.body).map_err(|error| refuse(error.to_string()))?;
    if inner.status == UNAVAILABLE {
        let wait = inner.retry_after.map(|seconds| Duration::from_secs(seconds.into()));
        let detail = "it has no room".into();
        let error = ResolveError::FrontEnd { what, status: inner.status, detail };
        return Err(Failed::ForNow { error, wait });
    }
    Ok(inner)
}

fn has_type(reply: &Response, expected: &str) -> bool {
    let found = reply.headers.get("content-type").and_then(|value| value.to_str().ok());
    found.is_some_and(|found| found.split(';').next().is_some_and(|it| it.trim() == expected))
}

fn unreachable(error: HttpsError) -> Failed {
    match error {
        HttpsError::Url { .. } | HttpsError::Header { .. } => {
            Failed::Finally(ResolveError::Options(error.to_string()))
        }
        error => Failed::ForNow { error: ResolveError::Unreachable(error), wait: None },
    }
}

/// What a status other than success means.
fn refused(reply: &Response) -> Failed {
    let status = reply.status;
    let body = &reply.body[..reply.body.len().min(limits::RELAY_ERROR_BYTES_MAX)];
    if status == 400 && is_key_problem(body) {
        return Failed::UnknownKey;
    }
    let said: Option<RelayError> = serde_json::from_slice(body).ok();
    let header = reply.headers.get("retry-after").and_then(|value| value.to_str().ok());
    let after = said.as_ref().and_then(|said| said.retry_after);
    let after = after.or_else(|| header?.parse().ok()).map(Duration::from_secs);
    // Words of a relay are shown only if they are some that are known.
    let word = |found: Option<&str>, known: &[&'static str]| {
        let known = known.iter().find(|known| found == Some(**known));
        known.map_or("no reason", |known| *known).to_owned()
    };
    let detail = word(
        said.as_ref().map(|said| &*said.error),
        &[
            "too_long",
            "content_type",
            "front_end",
            "relay_bound",
            "overloaded",
            "late",
            "malformed",
        ],
    );
    match status {
        401 => Failed::Finally(ResolveError::Account),
        429 if detail == "relay_bound" => {
            Failed::Finally(ResolveError::Relay { status, detail: RELAY_BOUND.into() })
        }
        429 => {
            let kind = said.as_ref().and_then(|said| said.kind.as_deref());
            let kind = word(kind, &["evaluate", "lookup"]);
            let after = after.unwrap_or(limits::QUOTA_WAIT_DEFAULT);
            Failed::Finally(ResolveError::Quota { kind, after })
        }
        502..=504 => Failed::ForNow { error: ResolveError::Relay { status, detail }, wait: after },
        _ => Failed::Finally(ResolveError::Relay { status, detail }),
    }
}

fn is_key_problem(body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Problem {
        r#type: String,
    }
    serde_json::from_slice::<Problem>(body).is_ok_and(|problem| problem.r#type == KEY_PROBLEM)
}

/// Waits before the next attempt, unless there is none.
async fn pause(failed: Failed, failures: &mut u32) -> Result<(), ResolveError> {
    let (error, wait) = match failed {
        Failed::ForNow { error, wait } => (error, wait),
        Failed::Finally(error) => return Err(error),
        Failed::UnknownKey => return Err(ResolveError::KeyUnknown),
    };
    *failures += 1;
    // What the front-end refuses has been counted by the relay.
    let is_counted = matches!(error, ResolveError::FrontEnd { .. });
    let max = if is_counted { limits::DEVICE_COUNTED_ATTEMPTS_MAX } else { limits::ATTEMPTS_MAX };
    if *failures >= max {
        return Err(error);
    }
    tokio::time::sleep(wait_for(wait, *failures)).await;
    Ok(())
}

/// The peer's wish, within bounds; where it has none, a wait that doubles.
fn wait_for(wish: Option<Duration>, failures: u32) -> Duration {
    let doubled = limits::DEVICE_RETRY_WAIT_MIN.saturating_mul(1 << (failures - 1).min(10));
    wish.unwrap_or(doubled).clamp(limits::DEVICE_RETRY_WAIT_MIN, limits::RETRY_WAIT_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(status: u16, body: &str) -> Response {
        let body = Bytes::copy_from_slice(body.as_bytes());
        Response { status, headers: http::HeaderMap::new(), body }
    }

    #[test]
    fn what_a_relay_says_becomes_a_typed_error() {
        let finally = |status, body| match refused(&reply(status, body)) {
            Failed::Finally(error) => error,
            _ => panic!("{status}"),
        };
        let quota = r#"{"error":"quota","detail":"","kind":"lookup","retry_after":77}"#;
        assert!(matches!(finally(429, quota), ResolveError::Quota { kind, after }
            if kind == "lookup" && after == Duration::from_secs(77)));
        assert!(matches!(finally(429, ""), ResolveError::Quota { kind, after }
            if kind == "no reason" && after == limits::QUOTA_WAIT_DEFAULT));
        assert!(matches!(finally(401, "{}"), ResolveError::Account));
        assert!(matches!(finally(400, r#"{"error":"malformed"}"#), ResolveError::Relay { .. }));
        let shown = finally(413, r#"{"error":"\u001b[31m","detail":"x"}"#).to_string();
        assert!(!shown.contains('\u{1b}') && shown.contains("413"), "{shown}");
        let late = r#"{"error":"late","retry_after":3}"#;
        assert!(matches!(refused(&reply(504, late)),
            Failed::ForNow { error: ResolveError::Relay { detail, .. }, wait }
                if detail == "late" && wait == Some(Duration::from_secs(3))));
        let problem = format!(r#"{{"type":"{KEY_PROBLEM}","title":"t"}}"#);
        assert!(matches!(refused(&reply(400, &problem)), Failed::UnknownKey));
        assert!(matches!(refused(&reply(403, &problem)), Failed::Finally(_)));
        let mut with_header = reply(503, "");
        with_header.headers.insert("retry-after", "4".parse().unwrap());
        assert!(matches!(refused(&with_header),
            Failed::ForNow { wait: Some(wait), .. } if wait == Duration::from_secs(4)));
    }

    #[test]
    fn waits_double_and_are_bounded() {
        let least = limits::DEVICE_RETRY_WAIT_MIN;
        assert_eq!((wait_for(None, 1), wait_for(None, 3)), (least, 4 * least));
        assert_eq!(wait_for(None, 99), (1_024 * least).min(limits::RETRY_WAIT_MAX));
        let seconds = Duration::from_secs;
        assert_eq!(wait_for(Some(seconds(0)), 1), least);
        assert_eq!(wait_for(Some(seconds(7)), 1), seconds(7));
        assert_eq!(wait_for(Some(Duration::MAX), 1), limits::RETRY_WAIT_MAX);
    }

    #[test]
    fn the_tag_of_a_body() {
        // BLAKE3 of nothing.
        assert_eq!(etag(b""), "\"af1349b9f5f9a1a6a0404dea36dcc949\"");
    }
}
