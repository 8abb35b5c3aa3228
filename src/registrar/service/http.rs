//! What application providers, other discovery providers and users may ask: routes, who asked, the
//! form of a request, and its reply. What a request means is decided in the core.

use std::sync::Arc;

use crate::https::{BodyError, PeerInfo, body};
use crate::limits::registrar::IDEMPOTENCY_KEY_BYTES_MAX;
use crate::registrar::registrations::Mine;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

use crate::registrar::api::{Change, Reply};
use crate::registrar::problem::{PROBLEM_TYPE, Problem};
use crate::registrar::service::counters::Route;
use crate::registrar::service::shared::{Service, internal};

/// The longest body of a request, and of one with heartbeats.
const BODY_BYTES_MAX: usize = 16 << 10;
const HEARTBEATS_BYTES_MAX: usize = 1 << 20;
/// The scheme of the `Authorization` of a user, who has no certificate.
const USER_SCHEME: &str = "Sotto-User ";
const JSON: &str = "application/json";

/// The code of the problem in a reply, for the counters.
#[derive(Clone)]
struct Refused(String);

/// Everything that may be asked.
pub(crate) fn router(service: &Arc<Service>) -> Router {
    let change = |route: Route| {
        post(move |State(service): State<Arc<Service>>, request: Request| async move {
            change(&service, route, request).await.unwrap_or_else(refused)
        })
    };
    Router::new()
        .route("/v1/registrations", change(Route::Register))
        .route("/v1/registrations/{id}", get(show))
        .route("/v1/registrations/{id}/code", change(Route::Enter))
        .route("/v1/registrations/{id}/resend", change(Route::Resend))
        .route("/v1/heartbeats", change(Route::Heartbeats))
        .route("/v1/withdrawals", change(Route::Withdraw))
        .route("/v1/preferences", change(Route::Prefer))
        .route("/v1/events", change(Route::Event))
        .route("/v1/mine", get(mine))
        .fallback(|| async { refused(no_such_route()) })
        .method_not_allowed_fallback(|| async { refused(other_method()) })
        .layer(from_fn_with_state(service.clone(), count))
        .with_state(service.clone())
}

async fn count(State(service): State<Arc<Service>>, request: Request, next: Next) -> Response {
    let route = route_of(request.uri().path());
    let response = next.run(request).await;
    let (status, counters) = (response.status(), &service.counters);
    counters.request(route, status.as_u16());
    if let Some(Refused(code)) = response.extensions().get() {
        counters.refusal(code);
    }
    response
}

fn route_of(path: &str) -> Route {
    let parts: Vec<&str> = path.split('/').collect();
    match parts[..] {
        ["", "v1", "registrations"] => Route::Register,
        ["", "v1", "registrations", _] => Route::Show,
        ["", "v1", "registrations", _, "code"] => Route::Enter,
        ["", "v1", "registrations", _, "resend"] => Route::Resend,
        ["", "v1", "heartbeats"] => Route::Heartbeats,
        ["", "v1", "withdrawals"] => Route::Withdraw,
        ["", "v1", "preferences"] => Route::Prefer,
        ["", "v1", "events"] => Route::Event,
        ["", "v1", "mine"] => Route::Mine,
        _ => Route::Other,
    }
}

/// The name of a registration in the path. Names have no characters that are escaped there.
fn id_of(head: &Parts) -> String {
    head.uri.path().split('/').nth(3).unwrap_or_default().to_owned()
}

/// A request that changes something, once for its `Idempotency-Key`.
async fn change(
    service: &Arc<Service>,
    route: Route,
    request: Request,
) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    let caller = match route {
        Route::Event => service.callers().dp(&peer(&head))?,
        _ => service.callers().ap(&peer(&head))?,
    };
    let bytes_max = match route {
        Route::Heartbeats => HEARTBEATS_BYTES_MAX,
        _ => BODY_BYTES_MAX,
    };
    let _room = (route == Route::Heartbeats).then(|| service.room_for_large()).transpose()?;
    let body = self::body(body, bytes_max).await.map_err(|error| match error {
        BodyError::TooLong { max } => {
            let expected = format!("at most {max} bytes; send heartbeats in several requests");
            Problem::new(413, "too_long", "a longer body than any such request has", expected)
        }
        BodyError::Broken => Problem::new(400, "gone", "a body that ended early", "all of it"),
    })?;
    // After the body, so that its sender gets to see the reply.
    service.check_database()?;
    let key = idempotency_key(&head.headers)?;
    if !(route == Route::Resend && body.is_empty()) {
        check_content_type(&head.headers)?;
    }
    let change = read_change(route, &head, &body)?;
    let digest = digest(&head, &body);
    let reply = service.change(caller, key, digest, change).await?;
    Ok(reply_of(reply))
}

async fn show(State(service): State<Arc<Service>>, request: Request) -> Response {
    let (head, _) = request.into_parts();
    let shown = async {
        let caller = service.callers().ap(&peer(&head))?;
        service.check_database()?;
        service.show(&caller, &id_of(&head)).await
    };
    shown.await.map_or_else(refused, |shown| json(&shown))
}

async fn mine(State(service): State<Arc<Service>>, request: Request) -> Response {
    let (head, _) = request.into_parts();
    let mine = async {
        let token = user_token(&head.headers)?;
        service.check_database()?;
        service.mine(token).await
    };
    #[derive(Serialize)]
    struct Mappings {
        mappings: Vec<Mine>,
    }
    mine.await.map_or_else(refused, |mappings| json(&Mappings { mappings }))
}

fn peer(head: &Parts) -> PeerInfo {
    head.extensions.get::<PeerInfo>().cloned().unwrap_or_default()
}

fn idempotency_key(headers: &HeaderMap) -> Result<String, Problem> {
    let mut values = headers.get_all("idempotency-key").iter();
    let found = match (values.next(), values.next()) {
        (None, _) => "none",
        (Some(_), Some(_)) => "several",
        (Some(value), None) => {
            let is_visible = value.as_bytes().iter().all(u8::is_ascii_graphic);
            match value.to_str() {
                Ok(text) if is_visible && (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&text.len()) => {
                    return Ok(text.to_owned());
                }
                _ => "one of another length or with other characters",
            }
        }
    };
    let expected = format!(
        "one Idempotency-Key of 1 to {IDEMPOTENCY_KEY_BYTES_MAX} visible characters of ASCII: \
         another one for each request, and the same when a request is sent again"
    );
    Err(Problem::new(400, "idempotency_key", found, expected))
}

fn check_content_type(headers: &HeaderMap) -> Result<(), Problem> {
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    let is_json = |value: &HeaderValue| {
        let text = value.to_str().unwrap_or_default();
        text.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(JSON)
    };
    match (values.next(), values.next()) {
        (Some(value), None) if is_json(value) => Ok(()),
        _ => Err(Problem::new(415, "content_type", "another content type", JSON)),
    }
}

fn user_token(headers: &HeaderMap) -> Result<&str, Problem> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let token = match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok().and_then(|it| it.strip_prefix(USER_SCHEME)),
        _ => None,
    };
    let expected = "one header `Authorization: Sotto-User JWS`, signed with the user's key";
    token.ok_or_else(|| Problem::new(401, "user_token", "no token of a user", expected))
}

fn read_change(route: Route, head: &Parts, body: &[u8]) -> Result<Change, Problem> {
    Ok(match route {
        Route::Register => {
            let expected = "an object of sii, ssi, uk, up, iat, channel (sms, call or email) and, \
                            if at all, purpose, language and new_holder";
            Change::Register(read(body, expected)?)
        }
        Route::Enter => {
            let entered = read(body, "an object with the text code: six digits")?;
            Change::Enter { id: id_of(head), entered }
        }
        Route::Resend => {
            #[derive(serde::Deserialize)]
            #[serde(deny_unknown_fields)]
            struct Nothing {}
            if !body.is_empty() {
                let Nothing {} = read(body, "no body, or an empty object")?;
            }
            Change::Resend { id: id_of(head) }
        }
        Route::Heartbeats => {
            Change::Heartbeats(read(body, "an object with ids, the names of registrations")?)
        }
        Route::Withdraw => Change::Withdraw(read(body, "an object with either id or statement")?),
        Route::Prefer => Change::Prefer(read(body, "an object with the text statement")?),
        Route::Event => Change::Event(read(body, "an object with the text statement")?),
        Route::Show | Route::Mine | Route::Other => return Err(no_such_route()),
    })
}

/// Reads an object strictly. What it says is not repeated: that could be a number or a code.
fn read<T: DeserializeOwned>(body: &[u8], expected: &str) -> Result<T, Problem> {
    let malformed = |found: String| Problem::new(400, "malformed", found, expected);
    // Serde would take an array for an object.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(malformed("a body that is no JSON object".to_owned()));
    }
    serde_json::from_slice(body).map_err(|error| {
        let what = match error.classify() {
            serde_json::error::Category::Data => {
                "a member that is missing, unknown, there twice or of another type"
            }
            _ => "what is no JSON",
        };
        malformed(format!("{what}, by line {}, column {}", error.line(), error.column()))
    })
}

/// What a request was, so that another one under the same key is recognised.
fn digest(head: &Parts, body: &[u8]) -> [u8; 32] {
    let path = head.uri.path_and_query().map_or("", |path| path.as_str());
    let mut digest = Sha256::new();
    for part in [head.method.as_str(), path] {
        digest.update(part.as_bytes());
        digest.update([0]);
    }
    digest.update(body);
    digest.finalize().into()
}

fn reply_of(reply: Reply) -> Response {
    let Reply { status, body, retry_after } = reply;
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let is_problem = status.is_client_error() || status.is_server_error();
    let code = is_problem.then(|| code_of(&body));
    let mut response = (status, Bytes::from(body)).into_response();
    if let Some(code) = code {
        response.extensions_mut().insert(Refused(code));
    }
    let headers = response.headers_mut();
    let content_type = if is_problem { PROBLEM_TYPE } else { JSON };
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(seconds) = retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// The code of a problem of ours that was stored.
fn code_of(body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Coded {
        code: String,
    }
    serde_json::from_slice(body).map_or_else(|_| "unknown".to_owned(), |coded: Coded| coded.code)
}

fn json(value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => reply_of(Reply { status: 200, body, retry_after: None }),
        Err(_) => refused(internal()),
    }
}

fn refused(problem: Problem) -> Response {
    let code = problem.code.to_owned();
    let mut response = problem.into_response();
    response.extensions_mut().insert(Refused(code));
    response
}

fn no_such_route() -> Problem {
    let expected = "one of the paths under /v1/ that the documentation has";
    Problem::new(404, "no_such_route", "a path that is none here", expected)
}

fn other_method() -> Problem {
    let expected = "the method that the header Allow names";
    Problem::new(405, "method", "another method than this path has", expected)
}
