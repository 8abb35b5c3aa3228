//! What devices may ask, and how a request goes: who sent it, whether its account may send it, its
//! body, the front-end or a key service, the reply.
//!
//! What can be refused is refused before the body is read. Then the reply goes out at once, and
//! the rest of the body is read and thrown away, so that its sender gets to see the reply.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody as _};
use axum::extract::{Path, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use http_body_util::BodyExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::accounts::{Accounts, bearer};
use super::bucket::Kind;
use super::counters::{Asked, Counters, Outcome};
use super::errors::{REQUEST_TYPE, Refusal};
use super::forward::{Forwarded, Gateway, NotForwarded, media_type};
use super::keys::KeyServices;
use super::public::{PublicFiles, path_of_database};
use super::quotas::{AccountKey, Clock, NotTaken, Place, Quotas};
use crate::limits::{
    RELAY_DRAIN_TIME, RELAY_EVALUATE_BYTES_MAX, RELAY_LOOKUP_BYTES_MAX, RELAY_LOOKUP_BYTES_MIN,
    RELAY_QUOTA_THREADS, RELAY_QUOTA_TIME, RELAY_REQUEST_BYTES,
};

/// A unit of the memory for bodies.
const ROOM_UNIT: usize = 1 << 10;

/// What all requests share.
pub(super) struct Service {
    pub(super) accounts: Accounts,
    pub(super) quotas: Arc<Quotas>,
    pub(super) front_end: Gateway,
    pub(super) key_services: Option<KeyServices>,
    public: PublicFiles,
    /// Apart, so that a key service that hangs keeps nobody from the front-end's files.
    public_of_keys: PublicFiles,
    pub(super) counters: Arc<Counters>,
    pub(super) clock: Clock,
    /// Memory for bodies, in units.
    room: Arc<Semaphore>,
    room_units: usize,
    /// Requests that may wait for the front-end.
    forwards: Semaphore,
    forwards_max: usize,
    /// Requests that may wait for key services.
    key_forwards: Semaphore,
    /// Threads that may look at quotas.
    lookers: Arc<Semaphore>,
}

/// The parts of a service that its requests change or ask.
pub(super) struct Parts {
    pub(super) accounts: Accounts,
    pub(super) quotas: Arc<Quotas>,
    pub(super) front_end: Gateway,
    pub(super) key_services: Option<KeyServices>,
    pub(super) counters: Arc<Counters>,
    pub(super) clock: Clock,
}

impl Service {
    pub(super) fn new(parts: Parts, memory_bytes: usize, forwards_max: usize) -> Self {
        let Parts { accounts, quotas, front_end, key_services, counters, clock } = parts;
        let room_units = (memory_bytes / ROOM_UNIT).min(Semaphore::MAX_PERMITS);
        Self {
            accounts,
            quotas,
            front_end,
            key_services,
            public: PublicFiles::new(),
            public_of_keys: PublicFiles::new(),
            counters,
            clock,
            room: Arc::new(Semaphore::new(room_units)),
            room_units,
            forwards: Semaphore::new(forwards_max),
            forwards_max,
            key_forwards: Semaphore::new(forwards_max.div_ceil(2)),
            lookers: Arc::new(Semaphore::new(RELAY_QUOTA_THREADS)),
        }
    }

    /// Everything that devices may ask.
    pub(super) fn router(self: &Arc<Self>) -> Router {
        let file = |path: &'static str| {
            get(move |State(service): State<Arc<Self>>, headers: HeaderMap| async move {
                service.public(path, &headers).await
            })
        };
        let of_database = |file: &'static str| {
            get(
                move |State(service): State<Arc<Self>>,
                      Path(id): Path<String>,
                      headers: HeaderMap| async move {
                    service.public_of_database(&id, file, &headers).await
                },
            )
        };
        Router::new()
            .route("/evaluate", post(evaluate))
            .route("/lookup", post(lookup))
            .route("/keys/{domain}", post(keys))
            .route("/keys/{domain}/ohttp-keys", get(public_of_keys))
            .route("/ohttp-keys", file("/ohttp-keys"))
            .route("/directory", file("/directory"))
            .route("/databases/{id}/parameters", of_database("parameters"))
            .route("/databases/{id}/filter", of_database("filter"))
            .route("/databases/{id}/proof", of_database("proof"))
            .route("/databases/{id}/proof/{size}", get(proof_after))
            .with_state(self.clone())
    }

    /// Requests that wait for the front-end.
    pub(super) fn waiting(&self) -> usize {
        self.forwards_max - self.forwards.available_permits()
    }

    /// Memory for bodies that is in use, in bytes.
    pub(super) fn room_used(&self) -> usize {
        (self.room_units - self.room.available_permits()) * ROOM_UNIT
    }

    async fn public(&self, path: &str, headers: &HeaderMap) -> Response {
        let now = (self.clock)();
        self.public.get(&self.front_end, &self.counters, path, headers, now).await
    }

    async fn public_of_database(&self, id: &str, file: &str, headers: &HeaderMap) -> Response {
        match path_of_database(id, file) {
            Some(path) => self.public(&path, headers).await,
            None => axum::http::StatusCode::NOT_FOUND.into_response(),
        }
    }

    /// The key service of a provider.
    fn key_service(&self, domain: &str) -> Result<Arc<Gateway>, Refusal> {
        let of = |services: &KeyServices| services.of(domain);
        self.key_services.as_ref().and_then(of).ok_or(Refusal::NoKeyService)
    }

    /// The reply to a request for a gateway, where there is one.
    async fn answer(
        &self,
        asked: Asked,
        gateway: Result<&Gateway, Refusal>,
        request: Request,
    ) -> Response {
        let (head, mut body) = request.into_parts();
        let kind = kind(asked);
        let forwards = match asked {
            Asked::Keys => &self.key_forwards,
            Asked::Evaluate | Asked::Lookup => &self.forwards,
        };
        let forwarded = match gateway {
            Ok(gateway) => self.forward(kind, (gateway, forwards), &head.headers, &mut body).await,
            Err(refusal) => Err(refusal),
        };
        let (outcome, response) = match forwarded {
            Ok(answered) => answered,
            Err(refusal) => {
                drain(body, bytes_max(kind));
                (refusal.outcome(), refusal.into_response())
            }
        };
        self.counters.request(asked, outcome);
        response
    }

    async fn forward(
        &self,
        kind: Kind,
        (gateway, forwards): (&Gateway, &Semaphore),
        headers: &HeaderMap,
        body: &mut Body,
    ) -> Result<(Outcome, Response), Refusal> {
        let max = bytes_max(kind);
        check_content_type(headers)?;
        if body.size_hint().lower() > max as u64 {
            return Err(Refusal::TooLong { max });
        }
        let account = self.accounts.check(bearer(headers)?, (self.clock)()).await?;
        let account = self.quotas.account(&account);
        let mut place = self.take(account, kind).await?;
        let busy = Refusal::Overloaded { why: "too many requests are on their way", seconds: 1 };
        if forwards.available_permits() == 0 {
            return Err(busy);
        }
        let room = self.take_room(body, max)?;
        let body = read(body, max).await?;
        // The relay cannot see what is sealed, and an evaluation must not pass as a look-up.
        if kind == Kind::Lookup && body.len() < RELAY_LOOKUP_BYTES_MIN {
            return Err(Refusal::TooShort { min: RELAY_LOOKUP_BYTES_MIN });
        }
        let forwarding = forwards.try_acquire().map_err(|_| busy)?;
        let _one = gateway.enter()?;
        place.count();
        self.counters.forwarded_bytes.add(body.len() as u64);
        let forwarded = gateway.send(kind, body).await;
        drop(forwarding);
        match forwarded {
            Ok(forwarded) => Ok(self.reply(forwarded, room)),
            Err(NotForwarded { refusal, never_sent }) => {
                if never_sent {
                    self.counters.given_back.add(1);
                    place.give_back();
                }
                Err(refusal)
            }
        }
    }

    /// Counts the request, on a thread that may wait for a disk.
    async fn take(&self, account: AccountKey, kind: Kind) -> Result<Place, Refusal> {
        let unavailable = Refusal::Overloaded { why: "quotas cannot be looked at now", seconds: 5 };
        let taken = timeout(RELAY_QUOTA_TIME, async {
            // Held by the thread until it ends, so that a disk that hangs holds few threads.
            let looker = self.lookers.clone().acquire_owned().await.ok()?;
            let quotas = self.quotas.clone();
            let take = move || {
                let _looker = looker;
                quotas.take(account, kind)
            };
            tokio::task::spawn_blocking(take).await.ok()
        });
        match taken.await.ok().flatten().ok_or(unavailable)? {
            Ok(place) => Ok(place),
            Err(NotTaken::Quota { seconds }) => Err(Refusal::Quota { kind, seconds }),
            Err(NotTaken::Busy) => Err(Refusal::Overloaded {
                why: "this account has too many requests at once",
                seconds: 1,
            }),
            Err(NotTaken::Unavailable) => Err(unavailable),
        }
    }

    /// Memory for a body, and for the reply to it: no larger one is usual.
    fn take_room(&self, body: &Body, max: usize) -> Result<OwnedSemaphorePermit, Refusal> {
        let announced = body.size_hint().upper().map_or(max, |bytes| max.min(bytes as usize));
        let units = (announced + RELAY_REQUEST_BYTES).div_ceil(ROOM_UNIT) as u32;
        let room = self.room.clone().try_acquire_many_owned(units);
        room.map_err(|_| Refusal::Overloaded { why: "there is no memory for it now", seconds: 1 })
    }

    fn reply(&self, forwarded: Forwarded, room: OwnedSemaphorePermit) -> (Outcome, Response) {
        let Forwarded { status, content_type, body } = forwarded;
        self.counters.reply_bytes.add(body.len() as u64);
        let outcome = if status.is_success() { Outcome::Answered } else { Outcome::OldKey };
        let body = Bytes::from_owner(Held { body, _room: room });
        let mut response = (status, body).into_response();
        response.headers_mut().insert(CONTENT_TYPE, content_type);
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        (outcome, response)
    }
}

/// A reply that holds its memory until the device has taken it.
struct Held {
    body: Bytes,
    _room: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

async fn evaluate(State(service): State<Arc<Service>>, request: Request) -> Response {
    service.answer(Asked::Evaluate, Ok(&service.front_end), request).await
}

async fn lookup(State(service): State<Arc<Service>>, request: Request) -> Response {
    service.answer(Asked::Lookup, Ok(&service.front_end), request).await
}

/// Numbers are passed on in one form, so that a file is kept once.
async fn proof_after(
    State(service): State<Arc<Service>>,
    Path((id, size)): Path<(String, u64)>,
    headers: HeaderMap,
) -> Response {
    service.public_of_database(&id, &format!("proof/{size}"), &headers).await
}

async fn keys(
    State(service): State<Arc<Service>>,
    Path(domain): Path<String>,
    request: Request,
) -> Response {
    let gateway = service.key_service(&domain);
    service.answer(Asked::Keys, gateway.as_deref().map_err(|refusal| *refusal), request).await
}

async fn public_of_keys(
    State(service): State<Arc<Service>>,
    Path(domain): Path<String>,
    headers: HeaderMap,
) -> Response {
    match service.key_service(&domain) {
        Ok(gateway) => {
            let (files, now) = (&service.public_of_keys, (service.clock)());
            files.get(&gateway, &service.counters, "/ohttp-keys", &headers, now).await
        }
        Err(refusal) => refusal.into_response(),
    }
}

/// What a request counts as in quotas.
fn kind(asked: Asked) -> Kind {
    match asked {
        Asked::Evaluate | Asked::Keys => Kind::Evaluate,
        Asked::Lookup => Kind::Lookup,
    }
}

fn bytes_max(kind: Kind) -> usize {
    match kind {
        Kind::Evaluate => RELAY_EVALUATE_BYTES_MAX,
        Kind::Lookup => RELAY_LOOKUP_BYTES_MAX,
    }
}

fn check_content_type(headers: &HeaderMap) -> Result<(), Refusal> {
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    let is_right = |value: &HeaderValue| {
        value.to_str().is_ok_and(|value| media_type(value).eq_ignore_ascii_case(REQUEST_TYPE))
    };
    match (values.next(), values.next()) {
        (Some(value), None) if is_right(value) => Ok(()),
        _ => Err(Refusal::ContentType),
    }
}

/// Reads a body of at most `max` bytes.
async fn read(body: &mut Body, max: usize) -> Result<Bytes, Refusal> {
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(max);
    let mut whole = Vec::with_capacity(announced.min(max));
    while let Some(frame) = body.frame().await {
        // What is no data are trailers.
        let Ok(data) = frame.map_err(|_| Refusal::Gone)?.into_data() else { continue };
        if whole.len() + data.len() > max {
            return Err(Refusal::TooLong { max });
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.into())
}

/// Reads and forgets the rest of a body that is not much longer than one may be.
fn drain(mut body: Body, max: usize) {
    if body.size_hint().lower() > 2 * max as u64 {
        return;
    }
    tokio::spawn(timeout(RELAY_DRAIN_TIME, async move {
        let mut bytes = 0;
        while let Some(Ok(frame)) = body.frame().await {
            bytes += frame.data_ref().map_or(0, Bytes::len);
            if bytes > 2 * max {
                return;
            }
        }
    }));
}

#[cfg(test)]
mod tests {
    use std::fmt::{Debug, Write as _};
    use std::sync::Mutex;

    use tracing::field::{Field, Visit};
    use tracing::span::{Attributes, Id, Record};
    use tracing::{Event, Metadata, Subscriber};

    use super::super::tests::{SEALED, SECRET_NAME, Setting, Way, start_with, token, write};
    use super::*;

    /// What this package logs, with all fields.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<String>>);

    impl Visit for Log {
        fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
            writeln!(self.0.lock().unwrap(), "{field}: {value:?}").unwrap();
        }
    }

    impl Subscriber for Log {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            metadata.target().split("::").next() == module_path!().split("::").next()
        }

        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }

        fn record(&self, _: &Id, _: &Record<'_>) {}

        fn record_follows_from(&self, _: &Id, _: &Id) {}

        fn event(&self, event: &Event<'_>) {
            event.record(&mut self.clone());
        }

        fn enter(&self, _: &Id) {}

        fn exit(&self, _: &Id) {}
    }

    #[tokio::test]
    async fn neither_log_nor_metrics_name_an_account_a_token_or_a_device() {
        let log = Log::default();
        let _logging = tracing::subscriber::set_default(log.clone());
        let world = start_with(Setting { lookup: "32,16/day", ..Setting::default() }).await;
        let bad = format!("Bearer {}.x", token(SECRET_NAME));
        let headers = [SEALED, ("authorization", &*bad), ("user-agent", "phone-of-alice")];
        assert_eq!(world.post("/lookup", &headers, b"content").await.status, 401);
        *world.way.lock().unwrap() = Way::Closed;
        assert_eq!(world.ask("/lookup", SECRET_NAME, b"content").await.status, 502);
        *world.way.lock().unwrap() = Way::Open;
        world.front_end.then(403, &[], b"content");
        for status in [502, 200, 429] {
            assert_eq!(world.ask("/lookup", SECRET_NAME, b"content").await.status, status);
        }
        write(&world.folder, "jwks.json", "{}");
        world.control.reload().unwrap_err();
        let log = log.0.lock().unwrap().clone();
        for expected in ["does not answer", "refuses this relay", "the front-end answers"] {
            assert!(log.contains(expected), "{expected}: {log}");
        }
        let metrics = format!("{:?}", world.control.samples());
        assert!(metrics.contains("relay_requests_total"), "{metrics}");
        let token = token(SECRET_NAME);
        for secret in [SECRET_NAME, "alice", "content", "127.0.0.1", &*token, "eyJ"] {
            for text in [&log, &metrics] {
                // Whose type it is, a metric may say.
                let text = text.replace("content_type", "");
                assert!(!text.contains(secret), "{secret}: {text}");
            }
        }
    }
}
