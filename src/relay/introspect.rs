//! Tokens about which a service is asked (RFC 7662). Its answer is used again for at most a minute,
//! and never after the token has expired.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Bytes;
use axum::http::Method;
use serde::Deserialize;
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use super::counters::{Counters, Introspected};
use super::errors::{AccountError, Refusal};
use crate::https::Client;
use crate::limits::{
    ACCOUNT_NAME_BYTES_MAX, INTROSPECTION_BYTES_MAX, INTROSPECTION_SECONDS_MAX, INTROSPECTIONS_MAX,
    INTROSPECTIONS_REMEMBERED_MAX,
};

/// How a device is told that its account cannot be looked at.
const UNAVAILABLE: Refusal =
    Refusal::Overloaded { why: "accounts cannot be looked at now", seconds: 5 };

/// A service that knows tokens.
pub(super) struct Introspection {
    client: Client,
    url: String,
    /// The value of the header by which the service recognises this relay.
    authorization: Option<Zeroizing<String>>,
    remembered: Mutex<HashMap<[u8; 32], Remembered>>,
    running: Semaphore,
    counters: Arc<Counters>,
}

/// The account of a token, known in `[from, until)`.
struct Remembered {
    account: String,
    from: u64,
    until: u64,
}

#[derive(Deserialize)]
struct Answer {
    active: bool,
    sub: Option<String>,
    exp: Option<u64>,
}

impl Introspection {
    pub(super) fn new(
        client: Client,
        url: String,
        authorization: Option<Zeroizing<String>>,
        counters: Arc<Counters>,
    ) -> Self {
        let running = Semaphore::new(INTROSPECTIONS_MAX);
        Self { client, url, authorization, remembered: Mutex::default(), running, counters }
    }

    /// The name of the account whose token this is.
    pub(super) async fn check(&self, token: &str, now: u64) -> Result<String, Refusal> {
        // Tokens themselves are not kept.
        let digest = *blake3::hash(token.as_bytes()).as_bytes();
        if let Some(account) = self.remembered(&digest, now) {
            self.counters.introspected(Introspected::Kept);
            return Ok(account);
        }
        let _running = self.running.try_acquire().map_err(|_| UNAVAILABLE)?;
        let answer = self.ask(token).await.and_then(|body| read(&body, now));
        self.counters.introspected(match &answer {
            Ok(_) => Introspected::Active,
            Err(Refusal::Account(_)) => Introspected::Inactive,
            Err(_) => Introspected::Failed,
        });
        let (account, until) = answer?;
        self.remember(digest, Remembered { account: account.clone(), from: now, until });
        Ok(account)
    }

    async fn ask(&self, token: &str) -> Result<Bytes, Refusal> {
        // The characters of a token that mean something else in a form.
        let escaped = token.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
        let body = Bytes::from(format!("token={escaped}&token_type_hint=access_token"));
        let mut headers = vec![
            ("content-type", "application/x-www-form-urlencoded"),
            ("accept", "application/json"),
        ];
        if let Some(authorization) = &self.authorization {
            headers.push(("authorization", authorization));
        }
        let max = INTROSPECTION_BYTES_MAX;
        let reply = self.client.send(Method::POST, &self.url, &headers, body, max).await;
        let reply = reply.map_err(|error| {
            tracing::debug!(%error, "the service that knows tokens has not answered");
            UNAVAILABLE
        })?;
        if reply.status == 200 { Ok(reply.body) } else { Err(UNAVAILABLE) }
    }

    fn remembered(&self, digest: &[u8; 32], now: u64) -> Option<String> {
        let remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        // A clock that was set back makes nothing last longer.
        let found = remembered.get(digest).filter(|known| (known.from..known.until).contains(&now));
        found.map(|known| known.account.clone())
    }

    fn remember(&self, digest: [u8; 32], known: Remembered) {
        let now = known.from;
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= INTROSPECTIONS_REMEMBERED_MAX {
            remembered.retain(|_, known| (known.from..known.until).contains(&now));
        }
        if remembered.len() >= INTROSPECTIONS_REMEMBERED_MAX {
            remembered.clear();
        }
        remembered.insert(digest, known);
    }
}

/// The account of an answer, and until when it may be used.
fn read(body: &[u8], now: u64) -> Result<(String, u64), Refusal> {
    let answer: Answer = object(body).ok_or(UNAVAILABLE)?;
    if !answer.active {
        return Err(AccountError::Inactive.into());
    }
    let until = now.saturating_add(INTROSPECTION_SECONDS_MAX).min(answer.exp.unwrap_or(u64::MAX));
    if until <= now {
        return Err(AccountError::Expired.into());
    }
    let names = 1..=ACCOUNT_NAME_BYTES_MAX;
    let account = answer.sub.filter(|sub| names.contains(&sub.len())).ok_or(UNAVAILABLE)?;
    Ok((account, until))
}

/// Reads one JSON object; serde would take an array for a structure, too.
pub(crate) fn object<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Option<T> {
    let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
    if first != Some(&b'{') {
        return None;
    }
    serde_json::from_slice(bytes).ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::Router;
    use axum::extract::{Request, State};
    use axum::http::StatusCode;
    use axum::response::{IntoResponse as _, Response};
    use http_body_util::BodyExt as _;
    use serde_json::json;

    use super::super::tests::{LONG, NOW, serve, write};
    use super::*;
    use crate::https::TlsFiles;
    use crate::server::certificates::localhost;

    /// A service that knows tokens; its answers depend on the token.
    async fn introspection(
        State(asked): State<Arc<Mutex<Vec<String>>>>,
        request: Request,
    ) -> Response {
        let authorization = request.headers()["authorization"].to_str().unwrap().to_owned();
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let body = String::from_utf8(body.to_vec()).unwrap();
        asked.lock().unwrap().push(body.clone());
        assert_eq!(authorization, "Basic cmVsYXk6eA==");
        let answer = |body: String| body.into_response();
        let found = body.strip_prefix("token=").unwrap().split('&').next().unwrap();
        match found {
            "good%2B%2F%3D" => answer(
                json!({"active": true, "sub": "a", "exp": NOW + 30, "scope": "x"}).to_string(),
            ),
            "long" => answer(json!({"active": true, "sub": "b", "exp": NOW + 9_000}).to_string()),
            "inactive" => answer(json!({"active": false}).to_string()),
            "expired" => {
                answer(json!({"active": true, "sub": "a", "exp": NOW - 3_600}).to_string())
            }
            "nameless" => answer(json!({"active": true, "exp": NOW + 30}).to_string()),
            "text" => answer("good".into()),
            "list" => answer("[true,\"a\",1]".into()),
            "large" => answer(" ".repeat(1 << 20)),
            "html" => (StatusCode::BAD_GATEWAY, "<html>").into_response(),
            _ => std::future::pending().await,
        }
    }

    #[tokio::test]
    async fn a_service_is_asked_about_tokens_and_its_answers_are_used_for_a_minute() {
        let folder = tempfile::tempdir().unwrap();
        let made = localhost().unwrap();
        let cert = write(&folder, "server.pem", &made.server_pem);
        let key = write(&folder, "server.key", &made.server_key);
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let router = Router::new().fallback(introspection).with_state(asked.clone());
        let address = serve(&TlsFiles { cert, key, client_ca: None }, router).await;
        let client = |time| Client::new(Some(made.ca_pem.as_bytes()), None, time).unwrap();
        let url = format!("https://localhost:{}/introspect", address.port());
        let counters = Arc::<Counters>::default();
        let with = |time| {
            let authorization = Some(Zeroizing::new("Basic cmVsYXk6eA==".to_owned()));
            Introspection::new(client(time), url.clone(), authorization, counters.clone())
        };
        let accounts = with(LONG);
        let questions = || std::mem::take(&mut *asked.lock().unwrap()).len();
        for _ in 0..3 {
            assert_eq!(accounts.check("good+/=", NOW).await.unwrap(), "a");
            assert_eq!(accounts.check("long", NOW).await.unwrap(), "b");
        }
        assert_eq!(questions(), 2);
        // Until the token expires, and not for more than a minute.
        assert_eq!(accounts.check("good+/=", NOW + 29).await.unwrap(), "a");
        assert_eq!(accounts.check("long", NOW + 59).await.unwrap(), "b");
        assert_eq!(questions(), 0);
        let expired = Refusal::Account(AccountError::Expired);
        assert_eq!(accounts.check("good+/=", NOW + 30).await, Err(expired));
        assert_eq!(accounts.check("long", NOW + 60).await.unwrap(), "b");
        assert_eq!(accounts.check("long", NOW - 3_600).await.unwrap(), "b");
        assert_eq!(questions(), 3);

        let inactive = Refusal::Account(AccountError::Inactive);
        assert_eq!(accounts.check("inactive", NOW).await, Err(inactive));
        assert_eq!(accounts.check("inactive", NOW).await, Err(inactive));
        assert_eq!(questions(), 2, "that it is inactive may change at any time");
        assert_eq!(accounts.check("expired", NOW).await, Err(expired));
        for token in ["nameless", "text", "list", "large", "html"] {
            let refusal = accounts.check(token, NOW).await.unwrap_err();
            assert!(matches!(refusal, Refusal::Overloaded { .. }), "{token}: {refusal}");
        }
        let refusal = with(Duration::from_millis(200)).check("slow", NOW).await.unwrap_err();
        assert!(matches!(refusal, Refusal::Overloaded { .. }), "{refusal}");
    }

    #[tokio::test]
    async fn what_is_known_of_tokens_has_a_bound() {
        let counters = Arc::<Counters>::default();
        let made = localhost().unwrap();
        let client = Client::new(Some(made.ca_pem.as_bytes()), None, LONG).unwrap();
        let accounts = Introspection::new(client, "https://localhost:1/".into(), None, counters);
        for token in 0..INTROSPECTIONS_REMEMBERED_MAX + 10 {
            let digest = *blake3::hash(&token.to_le_bytes()).as_bytes();
            let known = Remembered { account: token.to_string(), from: NOW, until: NOW + 60 };
            accounts.remember(digest, known);
        }
        assert!(accounts.remembered.lock().unwrap().len() <= INTROSPECTIONS_REMEMBERED_MAX);
    }
}
