//! Requests: entries to append, from callers with a certificate, and the static files, for
//! everybody.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use crate::https::{BodyError, PeerInfo, body};
use crate::registrar::{Clock, Problem, Store};
use crate::shard::files::read_regular;
use axum::body::Body;
use axum::extract::{Extension, Path, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::callers::{Allowed, Callers};
use super::counters::Counters;
use super::publish::{CHECKPOINT, Step, proof_path};
use super::tree::{self, Request};
use crate::discovery::log::LogKey;
use crate::discovery::log::entry::{ENTRY_BYTES_MAX, Entry, Manifest, is_name};
use crate::discovery::log::tiles::{Place, TILE_WIDTH};
use crate::discovery::log::tree::Hash;
use crate::limits::log::{BATCH_BYTES_MAX, BATCH_ENTRIES_MAX};
use crate::limits::registrar::IDEMPOTENCY_KEY_BYTES_MAX;

/// Most bytes of a static file: a bundle.
const FILE_BYTES_MAX: u64 = (TILE_WIDTH * (2 + ENTRY_BYTES_MAX)) as u64;
const IMMUTABLE: &str = "public, max-age=31536000, immutable";
const BRIEF: &str = "public, max-age=1";

/// POST `/v1/entries`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewEntries {
    /// 1 to 1 000.
    pub entries: Vec<NewEntry>,
}

/// An entry to append. Hashes are base64url.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
#[allow(missing_docs)] // `Entry` says it.
pub enum NewEntry {
    /// The salted hash of an accepted statement.
    Statement(String),
    Manifest {
        database: String,
        epoch: u64,
        digest: String,
    },
}

/// Its reply, once all are stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// Where each entry is, in the order of the request.
    pub places: Vec<u64>,
    /// Entries of the log.
    pub size: u64,
}

impl NewEntry {
    /// The JSON form of an entry; none of padding, which only the log itself adds.
    pub fn new(entry: &Entry) -> Option<Self> {
        match entry {
            Entry::Padding(_) => None,
            Entry::Statement(hash) => Some(Self::Statement(BASE64.encode(hash))),
            Entry::Manifest(Manifest { database, epoch, digest }) => Some(Self::Manifest {
                database: database.clone(),
                epoch: *epoch,
                digest: BASE64.encode(digest),
            }),
        }
    }

    fn read(&self) -> Option<Entry> {
        let hash = |text: &str| -> Option<Hash> { BASE64.decode(text).ok()?.try_into().ok() };
        match self {
            Self::Statement(text) => hash(text).map(Entry::Statement),
            Self::Manifest { database, epoch, digest } => {
                // Databases have numbers up to 2^63 - 1.
                let is_valid = is_name(database) && i64::try_from(*epoch).is_ok();
                let (database, epoch, digest) = (database.clone(), *epoch, hash(digest)?);
                is_valid.then_some(Entry::Manifest(Manifest { database, epoch, digest }))
            }
        }
    }
}

pub(super) struct Service {
    store: Store,
    folder: PathBuf,
    pub(super) log: LogKey,
    callers: RwLock<Arc<Callers>>,
    pub(super) counters: Arc<Counters>,
    clock: Clock,
    /// Told when there is something to publish.
    pub(super) appended: Notify,
    at_step: fn(Step),
}

impl Service {
    pub(super) fn new(
        store: Store,
        folder: PathBuf,
        log: LogKey,
        callers: Callers,
        counters: Arc<Counters>,
        clock: Clock,
        at_step: fn(Step),
    ) -> Self {
        let callers = RwLock::new(Arc::new(callers));
        let appended = Notify::new();
        Self { store, folder, log, callers, counters, clock, appended, at_step }
    }

    pub(super) fn set_callers(&self, callers: Callers) {
        *self.callers.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(callers);
    }

    fn callers(&self) -> Arc<Callers> {
        self.callers.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn router(self: &Arc<Self>) -> Router {
        Router::new()
            .route("/v1/entries", post(append))
            .route("/checkpoint", get(checkpoint))
            .route("/tile/{*path}", get(tile))
            .route("/v1/proofs/{database}/{epoch}", get(proof))
            .with_state(self.clone())
    }

    async fn append(
        &self,
        peer: &PeerInfo,
        headers: &HeaderMap,
        sent: Body,
    ) -> Result<Stored, Problem> {
        let callers = self.callers();
        let known = peer.names.iter().find_map(|name| callers.callers.get_key_value(name));
        let Some((caller, allowed)) = known else {
            let expected = "the client certificate of a caller that this log knows";
            return Err(Problem::new(403, "caller", "no certificate of a caller", expected));
        };
        let name = idempotency_key(headers)?;
        let sent = body(sent, BATCH_BYTES_MAX).await.map_err(|error| match error {
            BodyError::TooLong { .. } => too_long("a longer body"),
            BodyError::Broken => malformed("a body that ended early"),
        })?;
        let entries = read_entries(&sent)?;
        check_allowed(allowed, &entries)?;
        (self.at_step)(Step::Asked);
        let (caller, name) = (caller.clone(), name.to_owned());
        let request = Request { caller, name, digest: tree::request_digest(&entries) };
        let appended = tree::append(&self.store, request, entries, (self.clock)()).await;
        let appended = appended.map_err(Problem::from)?;
        self.counters.set_size(appended.size);
        (self.at_step)(Step::Stored);
        self.appended.notify_one();
        Ok(Stored { places: appended.places, size: appended.size })
    }

    async fn file(
        &self,
        path: String,
        content_type: &'static str,
        cached: &'static str,
    ) -> Response {
        let file = self.folder.join(path);
        let read = tokio::task::spawn_blocking(move || read_regular(&file, FILE_BYTES_MAX)).await;
        match read {
            Ok(Ok(bytes)) => {
                ([(CONTENT_TYPE, content_type), (CACHE_CONTROL, cached)], bytes).into_response()
            }
            _ => missing(),
        }
    }
}

fn missing() -> Response {
    let expected = "a file of the newest checkpoint; the same again in a second if it is new";
    Problem::new(404, "missing", "no file of this name", expected).retry_after(1).into_response()
}

fn malformed(found: &str) -> Problem {
    Problem::new(400, "malformed", found, "1 to 1000 entries as JSON, hashes as base64url")
}

fn too_long(found: &str) -> Problem {
    Problem::new(413, "too_long", found, "at most 1000 entries and 256 KiB in a request")
}

fn idempotency_key(headers: &HeaderMap) -> Result<&str, Problem> {
    let key = headers.get("idempotency-key").and_then(|key| key.to_str().ok());
    key.filter(|key| (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&key.len())).ok_or_else(|| {
        let found = "no Idempotency-Key that can be used";
        let expected =
            format!("one of 1 to {IDEMPOTENCY_KEY_BYTES_MAX} ASCII characters in every request");
        Problem::new(400, "malformed", found, expected)
    })
}

fn read_entries(sent: &[u8]) -> Result<Vec<Entry>, Problem> {
    let sent: NewEntries = serde_json::from_slice(sent).map_err(|_| malformed("another body"))?;
    if sent.entries.len() > BATCH_ENTRIES_MAX {
        return Err(too_long("more entries"));
    }
    let entries: Option<Vec<Entry>> = sent.entries.iter().map(NewEntry::read).collect();
    let entries = entries.ok_or_else(|| malformed("an entry that is none"))?;
    if entries.is_empty() { Err(malformed("no entry")) } else { Ok(entries) }
}

fn check_allowed(allowed: &Allowed, entries: &[Entry]) -> Result<(), Problem> {
    let is_allowed = |entry: &Entry| match entry {
        Entry::Padding(_) => false,
        Entry::Statement(_) => allowed.statements,
        Entry::Manifest(manifest) => allowed.databases.contains(&manifest.database),
    };
    if entries.iter().all(is_allowed) {
        return Ok(());
    }
    let found = "an entry that this caller may not append";
    Err(Problem::new(403, "caller", found, "statements of a registrar, or its own databases"))
}

async fn append(
    State(service): State<Arc<Service>>,
    Extension(peer): Extension<PeerInfo>,
    headers: HeaderMap,
    sent: Body,
) -> Response {
    match service.append(&peer, &headers, sent).await {
        Ok(stored) => {
            service.counters.request("stored");
            (StatusCode::OK, [(CACHE_CONTROL, "no-store")], Json(stored)).into_response()
        }
        Err(problem) => {
            service.counters.request(problem.code);
            problem.into_response()
        }
    }
}

async fn checkpoint(State(service): State<Arc<Service>>) -> Response {
    service.file(CHECKPOINT.to_owned(), "text/plain; charset=utf-8", BRIEF).await
}

async fn tile(State(service): State<Arc<Service>>, Path(path): Path<String>) -> Response {
    match Place::parse(&format!("tile/{path}")) {
        Some(place) => service.file(place.path(), "application/octet-stream", IMMUTABLE).await,
        None => missing(),
    }
}

async fn proof(
    State(service): State<Arc<Service>>,
    Path((database, epoch)): Path<(String, String)>,
) -> Response {
    match epoch.parse::<u64>() {
        Ok(number) if is_name(&database) && number.to_string() == epoch => {
            let path = proof_path(&database, number);
            service.file(path, "application/octet-stream", IMMUTABLE).await
        }
        _ => missing(),
    }
}
