//! What all requests share: the service's state, who asks and how often, and refusals.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::discovery::directory::Directory;
use crate::discovery::identifier::Identifier;
use crate::discovery::jws::base64url;
use crate::discovery::statement::Ssi;
use crate::https::{BodyError, body};
use crate::registrar::{Clock, Problem, Store};
use axum::body::Body;
use axum::http::header::WWW_AUTHENTICATE;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse as _, Response};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use tokio::sync::{Semaphore, SemaphorePermit};
use zeroize::Zeroizing;

use crate::front_end::keys::Keys as OhttpKeys;
use crate::limits::keys::{KEY_MAC_BYTES, KEY_RETRY_SECONDS, KEY_URI_BYTES_MAX};
use crate::registrar::keys::config::Relays;
use crate::registrar::keys::counters::Counters;
use crate::relay::{Jwks, bearer};

const HOUR: u64 = 3_600;

pub(crate) struct Service {
    pub(crate) store: Store,
    pub(crate) domain: String,
    pub(crate) accounts: Jwks,
    pub(crate) relays: RwLock<Relays>,
    pub(crate) ring: OhttpKeys,
    /// The long-term key by which devices recognise this service.
    pub(crate) identity: [u8; 32],
    pub(crate) directory: RwLock<Arc<Directory>>,
    pub(crate) mac_key: Zeroizing<[u8; KEY_MAC_BYTES]>,
    pub(crate) claims_an_hour: u32,
    pub(crate) queries_an_hour: u32,
    /// Searches and questions of this hour, by relay.
    pub(crate) queries: Mutex<(u64, HashMap<String, u32>)>,
    pub(crate) counters: Counters,
    pub(crate) clock: Clock,
    pub(crate) permits: Semaphore,
}

impl Service {
    pub(crate) fn now(&self) -> u64 {
        (self.clock)()
    }

    /// Room for one more request.
    pub(crate) fn permit(&self) -> Result<SemaphorePermit<'_>, Problem> {
        let found = "too many requests at once";
        self.permits.try_acquire().map_err(|_| {
            Problem::new(503, "overloaded", found, "the same request, later")
                .retry_after(KEY_RETRY_SECONDS)
        })
    }

    /// Whose token this is.
    pub(crate) fn user(&self, headers: &HeaderMap) -> Result<Ssi, Problem> {
        let account = bearer(headers).and_then(|token| self.accounts.check(token, self.now()));
        let expected = "a token of an account of this provider";
        let account =
            account.map_err(|error| Problem::new(401, "account", error.to_string(), expected))?;
        let ssi = match account.starts_with("mimi://") {
            true => Ssi::parse(&account),
            false => Ssi::new(&self.domain, &account),
        };
        let ssi = ssi.ok().filter(|ssi| ssi.domain() == self.domain);
        let found = "an account whose name is no handle here";
        ssi.ok_or_else(|| Problem::new(403, "account", found, expected))
    }

    /// A text under the service's key: what a text is stored as that has to be found again.
    pub(crate) fn mac(&self, what: &str, text: &str) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(&*self.mac_key)
            .expect("this is a bug: HMAC takes keys of every length");
        mac.update(what.as_bytes());
        mac.update(&[0]);
        mac.update(text.as_bytes());
        base64url(&mac.finalize().into_bytes())
    }

    pub(crate) fn mac_of(&self, sii: &Identifier) -> String {
        self.mac("sii", &sii.to_uri())
    }

    /// Counts a search or a question that a relay passes on.
    pub(crate) fn count_query(&self, relay: &str) -> Result<(), Problem> {
        let (now, mut queries) =
            (self.now(), self.queries.lock().unwrap_or_else(PoisonError::into_inner));
        let hour = now / HOUR;
        if queries.0 != hour {
            *queries = (hour, HashMap::new());
        }
        let used = queries.1.entry(relay.to_owned()).or_default();
        if *used >= self.queries_an_hour {
            let found = "as many searches as this relay may pass on in an hour";
            let problem = Problem::new(429, "relay_limit", found, "the same request, later");
            return Err(problem.retry_after(HOUR - now % HOUR));
        }
        *used += 1;
        Ok(())
    }
}

/// Reads a body of at most so many bytes.
pub(crate) async fn read(sent: Body, max: usize) -> Result<axum::body::Bytes, Problem> {
    body(sent, max).await.map_err(|error| match error {
        BodyError::TooLong { max } => {
            let expected = format!("at most {max} bytes");
            Problem::new(413, "too_long", "a longer body", expected)
        }
        BodyError::Broken => Problem::new(400, "gone", "a body that ended early", "all of it"),
    })
}

/// A text of a message that is a URI.
pub(crate) fn uri(text: Option<&str>) -> Result<&str, Problem> {
    let is_uri = |text: &&str| {
        (1..=KEY_URI_BYTES_MAX).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_graphic())
    };
    let expected = format!("URIs of 1 to {KEY_URI_BYTES_MAX} visible ASCII characters");
    let wrong = || Problem::new(400, "malformed", "a URI that is none", expected);
    text.filter(is_uri).ok_or_else(wrong)
}

/// A message that cannot be read.
pub(crate) fn malformed(what: &str) -> Problem {
    Problem::new(400, "malformed", format!("a body that is no {what}"), "what the draft defines")
}

/// A refusal as it is sent.
pub(crate) fn refusal(problem: Problem) -> Response {
    let is_account = problem.status == 401;
    let mut response = problem.into_response();
    if is_account {
        let value = HeaderValue::from_static("Bearer");
        response.headers_mut().insert(WWW_AUTHENTICATE, value);
    }
    response
}
