//! What may be asked of a front-end, and how a request goes.
//!
//! A relay sends a capsule to `/gateway`: it is known by its certificate, the capsule is opened,
//! what is inside is counted against the relay's bound, answered, and the answer is sealed. Other
//! front-ends ask `/evaluate` in the clear. Public files are for everybody.
//!
//! What is wrong outside the seal is told to the relay, what is wrong inside it to the device alone
//! (RFC 9458, section 5.2). Nothing that was inside a seal is logged or counted by its content.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody as _};
use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use http_body_util::BodyExt as _;
use zeroize::Zeroizing;

use super::counters::{Asked, Counters, Outcome};
use super::errors::Refusal;
use super::evaluate::{Evaluator, PROTOBUF};
use super::keys::{Keyring, Keys};
use super::pool::{Pool, Refused};
use super::public::{FRAMES, File, Files, Which, of_database};
use super::relays::{Kind, NotTaken, Relays};
use super::resolve::Resolving;
use super::room::{Compute, Room, Taken};
use crate::discovery::sealed::SealedError;
use crate::discovery::sealed::capsule::{InnerRequest, InnerResponse, Sealer};
use crate::discovery::sealed::evaluate::EvaluateRequest;
use crate::discovery::sealed::lookup::{join_answers, split_request};
use crate::discovery::sealed::resolve::{RESOLVE_PATH, RESOLVE_TYPE};
use crate::https::{BodyError, PeerInfo, body};
use crate::limits::{
    EVALUATE_BODY_BYTES_MAX, FRONT_END_BODY_COPIES, FRONT_END_REQUEST_BYTES,
    FRONT_END_RETRY_SECONDS, LOOKUP_BODY_BYTES_MAX,
};

const SEALED_REQUEST: &str = "message/ohttp-req";
const SEALED_REPLY: &str = "message/ohttp-res";

/// Unix seconds.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// What all requests share.
pub(super) struct Service {
    pub(super) relays: Relays,
    pub(super) keys: Arc<Keys>,
    pub(super) pool: Arc<Pool>,
    /// The databases that there are here, whether or not a server of theirs works.
    pub(super) databases: HashSet<String>,
    pub(super) evaluator: Arc<Evaluator>,
    /// Where devices may name their contacts.
    pub(super) resolving: Option<Arc<Resolving>>,
    pub(super) files: Files,
    pub(super) compute: Compute,
    pub(super) room: Room,
    pub(super) counters: Arc<Counters>,
    pub(super) clock: Clock,
}

/// What is asked for inside a seal.
enum Inside {
    Evaluate,
    Lookup(String),
    Resolve(Arc<Resolving>),
    NotResolving,
    File(Which),
    WrongMethod,
    Nothing,
}

impl Inside {
    fn of(request: &InnerRequest, resolving: Option<&Arc<Resolving>>) -> Self {
        let inside = match (of_database(&request.path), Which::at(&request.path)) {
            (_, Some(which)) => Self::File(which),
            (Some((id, "lookup")), None) => Self::Lookup(id.to_owned()),
            _ if request.path == "/evaluate" => Self::Evaluate,
            _ if request.path == RESOLVE_PATH => {
                resolving.cloned().map_or(Self::NotResolving, Self::Resolve)
            }
            _ => return Self::Nothing,
        };
        let expected = if let Self::File(_) = inside { "GET" } else { "POST" };
        if request.method == expected { inside } else { Self::WrongMethod }
    }

    fn asked(&self) -> Asked {
        match self {
            Self::Evaluate => Asked::Evaluate,
            Self::Lookup(_) => Asked::Lookup,
            Self::Resolve(_) => Asked::Resolve,
            Self::File(_) => Asked::Public,
            Self::NotResolving | Self::WrongMethod | Self::Nothing => Asked::Other,
        }
    }
}

impl Service {
    /// Everything that may be asked.
    pub(super) fn router(self: &Arc<Self>) -> Router {
        Router::new()
            .route("/gateway", post(gateway))
            .route("/evaluate", post(evaluate))
            .fallback(file)
            .with_state(self.clone())
    }

    /// The sealed reply to a capsule.
    async fn answer(&self, head: &Parts, sent: &mut Body) -> Result<Bytes, Refusal> {
        let names = self.sender(head)?;
        check_content_type(&head.headers, SEALED_REQUEST)?;
        let (capsule, mut taken) = self.read(sent, LOOKUP_BODY_BYTES_MAX).await?;
        let capsule_bytes = capsule.len();
        let (inside, sealer) = self.open(capsule).await?;
        let response = match inside {
            Ok(request) => {
                let inside = Inside::of(&request, self.resolving.as_ref());
                let asked = inside.asked();
                self.count(&names, asked)?;
                let fits = capsule_bytes <= EVALUATE_BODY_BYTES_MAX;
                let response = match inside {
                    Inside::Evaluate | Inside::Resolve(_) if !fits => {
                        Err(Refusal::Malformed(format!(
                            "such a sealed request has at most {EVALUATE_BODY_BYTES_MAX} bytes: \
                             relays count a longer one as a look-up"
                        )))
                    }
                    inside => self.inside(inside, request.body, &mut taken).await,
                };
                let response = response.unwrap_or_else(|refusal| refusal.inside());
                self.counters.inside(asked, response.status);
                response
            }
            Err(error) => {
                let response = Refusal::Malformed(error.to_string()).inside();
                self.counters.inside(Asked::Other, response.status);
                response
            }
        };
        let sealed = self.compute.run(move || sealer.seal(&response)).await;
        let sealed = sealed.and_then(Result::ok).ok_or(Refusal::Internal("sealing failed"))?;
        Ok(taken.hold(sealed))
    }

    /// The names in the certificate of a relay that is known.
    fn sender(&self, head: &Parts) -> Result<Vec<String>, Refusal> {
        let peer = head.extensions.get::<PeerInfo>();
        let names = peer.map(|peer| peer.names.clone()).unwrap_or_default();
        if self.relays.knows(&names) { Ok(names) } else { Err(Refusal::UnknownRelay) }
    }

    /// Reads a body, once there is memory for it. One that is refused before is left to be drained.
    async fn read(&self, sent: &mut Body, max: usize) -> Result<(Bytes, Taken), Refusal> {
        let hint = sent.size_hint();
        if hint.lower() > max as u64 {
            return Err(Refusal::TooLong { max });
        }
        let announced = hint.upper().map_or(max, |bytes| bytes.min(max as u64) as usize);
        let bytes = announced * FRONT_END_BODY_COPIES + FRONT_END_REQUEST_BYTES;
        let taken = self.room.take(bytes).ok_or(overloaded("there is no memory for it now"))?;
        match body(std::mem::take(sent), max).await {
            Ok(body) => Ok((body, taken)),
            Err(BodyError::TooLong { max }) => Err(Refusal::TooLong { max }),
            Err(BodyError::Broken) => Err(Refusal::Gone),
        }
    }

    /// Opens a capsule. If its key is not known, another process may just have made it.
    async fn open(
        &self,
        capsule: Bytes,
    ) -> Result<(Result<InnerRequest, SealedError>, Sealer), Refusal> {
        let (keys, ring, now) = (self.keys.clone(), self.keys.ring(), (self.clock)());
        let opened = self.compute.run(move || {
            let open = |ring: &Keyring| ring.gateway.decapsulate(&capsule);
            match open(&ring) {
                Err(SealedError::UnknownKey) => {
                    keys.look_again(now).map_or(Err(SealedError::UnknownKey), |ring| open(&ring))
                }
                opened => opened,
            }
        });
        let opened = opened.await.ok_or(Refusal::Internal("opening did not end"))?;
        opened.map_err(|error| match error {
            SealedError::UnknownKey => Refusal::OldKey,
            SealedError::Unopened => Refusal::Unopened,
            error => Refusal::Malformed(error.to_string()),
        })
    }

    /// Counts a request against its relay.
    fn count(&self, names: &[String], asked: Asked) -> Result<(), Refusal> {
        let kinds: &[Kind] = match asked {
            Asked::Evaluate => &[Kind::Evaluate],
            Asked::Lookup => &[Kind::Lookup],
            Asked::Resolve => &[Kind::Evaluate, Kind::Lookup],
            Asked::Public | Asked::Other => return Ok(()),
        };
        self.relays.take(names, kinds, (self.clock)()).map_err(|not_taken| match not_taken {
            NotTaken::Unknown => Refusal::UnknownRelay,
            NotTaken::Bound { seconds } => Refusal::RelayBound { seconds },
        })
    }

    /// The reply to a request that was opened and counted.
    async fn inside(
        &self,
        inside: Inside,
        body: Vec<u8>,
        taken: &mut Taken,
    ) -> Result<InnerResponse, Refusal> {
        match inside {
            Inside::Evaluate => {
                let request = EvaluateRequest::decode(&body).map_err(malformed)?;
                let response = self.evaluator.evaluate(request).await?;
                Ok(success(PROTOBUF, None, response.encode()))
            }
            Inside::Lookup(id) => self.lookup(&id, body).await,
            Inside::File(which) => {
                let File { body, etag, content_type } = self.file(&which)?;
                // Once as it is, once sealed.
                let more = self.room.take(2 * body.len());
                taken.add(more.ok_or(overloaded("there is no memory for it now"))?);
                Ok(success(content_type, Some(etag), body.to_vec()))
            }
            Inside::Resolve(resolving) => {
                let body = Zeroizing::new(body);
                Ok(success(RESOLVE_TYPE, None, resolving.answer(body, (self.clock)()).await?))
            }
            Inside::NotResolving => Err(Refusal::NotResolving),
            Inside::WrongMethod => Err(Refusal::WrongMethod),
            Inside::Nothing => Err(Refusal::NoPath),
        }
    }

    async fn lookup(&self, id: &str, body: Vec<u8>) -> Result<InnerResponse, Refusal> {
        let shape = self.pool.shape(id).ok_or_else(|| match self.databases.contains(id) {
            true => overloaded("no answer server of this database is known to work"),
            false => Refusal::NoDatabase,
        })?;
        let split = self.compute.run(move || split_request(body.into(), &shape)).await;
        let split = split.ok_or(Refusal::Internal("reading the look-up did not end"))?;
        let answers = self.pool.lookup(id, split.map_err(malformed)?).await;
        let answers = answers.map_err(|refused| match refused {
            Refused::NoDatabase => Refusal::NoDatabase,
            Refused::NotReady { after } => Refusal::Overloaded {
                why: "no answer server of this database is known to work",
                seconds: seconds(after),
            },
            Refused::Overloaded { after } => Refusal::Overloaded {
                why: "too many look-ups are in flight",
                seconds: seconds(after),
            },
        })?;
        Ok(success(FRAMES, None, join_answers(&answers)))
    }

    fn file(&self, which: &Which) -> Result<File, Refusal> {
        match which {
            Which::Directory => Ok(self.files.directory()),
            Which::Keys => Ok(File::keys(&self.keys.ring().list)),
            Which::Filter(id) => self.files.filter(id).ok_or(Refusal::NoPath),
            Which::Proof(id) => self.files.proof(id).ok_or(Refusal::NoPath),
            Which::ProofAfter(id, size) => self.files.proof_after(id, *size).ok_or(Refusal::NoPath),
            Which::Parameters(id) => match self.pool.parameters(id) {
                Some(frame) => Ok(File::parameters(frame)),
                None if self.databases.contains(id) => {
                    Err(overloaded("no answer server of this database is known to work"))
                }
                None => Err(Refusal::NoDatabase),
            },
        }
    }

    /// The reply to another front-end, which passes an evaluation on.
    async fn evaluate(&self, head: &Parts, sent: &mut Body) -> Result<Vec<u8>, Refusal> {
        let names = self.sender(head)?;
        check_content_type(&head.headers, PROTOBUF)?;
        let (body, _taken) = self.read(sent, EVALUATE_BODY_BYTES_MAX).await?;
        let request = EvaluateRequest::decode(&body).map_err(malformed)?;
        self.count(&names, Asked::Evaluate)?;
        Ok(self.evaluator.evaluate_here(request).await?.encode())
    }
}

async fn gateway(State(service): State<Arc<Service>>, request: Request) -> Response {
    let (head, mut sent) = request.into_parts();
    let answered = service.answer(&head, &mut sent).await;
    service.counters.gateway(outcome(&answered));
    match answered {
        Ok(body) => reply(SEALED_REPLY, body),
        Err(refusal) => refused(refusal, sent),
    }
}

async fn evaluate(State(service): State<Arc<Service>>, request: Request) -> Response {
    let (head, mut sent) = request.into_parts();
    let evaluated = service.evaluate(&head, &mut sent).await;
    service.counters.evaluate(outcome(&evaluated));
    match evaluated {
        Ok(body) => reply(PROTOBUF, body.into()),
        Err(refusal) => refused(refusal, sent),
    }
}

/// The reply to a request whose body may still be on its way. It goes out at once, and the rest of
/// the body is read and thrown away: if the connection was closed instead, its sender might not see
/// the reply. The server ends a body that arrives too slowly.
fn refused(refusal: Refusal, mut sent: Body) -> Response {
    let max = 2 * LOOKUP_BODY_BYTES_MAX;
    if !sent.is_end_stream() && sent.size_hint().lower() <= max as u64 {
        tokio::spawn(async move {
            let mut bytes = 0;
            while let Some(Ok(frame)) = sent.frame().await {
                bytes += frame.data_ref().map_or(0, Bytes::len);
                if bytes > max {
                    return;
                }
            }
        });
    }
    refusal.into_response()
}

async fn file(State(service): State<Arc<Service>>, request: Request) -> Response {
    let which = Which::at(request.uri().path()).ok_or(Refusal::NoPath);
    let found = which.and_then(|which| match *request.method() {
        Method::GET => service.file(&which),
        _ => Err(Refusal::WrongMethod),
    });
    match found {
        Ok(file) => {
            let response = file.into_response(request.headers());
            service.counters.file(response.status().as_u16());
            response
        }
        Err(refusal) => refusal.into_response(),
    }
}

fn outcome<T>(result: &Result<T, Refusal>) -> Outcome {
    result.as_ref().err().map_or(Outcome::Answered, Refusal::outcome)
}

fn reply(content_type: &'static str, body: Bytes) -> Response {
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn success(content_type: &str, etag: Option<String>, body: Vec<u8>) -> InnerResponse {
    let content_type = Some(content_type.to_owned());
    InnerResponse { status: 200, content_type, retry_after: None, etag, body }
}

fn check_content_type(headers: &HeaderMap, expected: &'static str) -> Result<(), Refusal> {
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    let is_right = |value: &HeaderValue| {
        value.to_str().is_ok_and(|value| {
            value.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(expected)
        })
    };
    match (values.next(), values.next()) {
        (Some(value), None) if is_right(value) => Ok(()),
        _ => Err(Refusal::Malformed(format!("the content type is not {expected}"))),
    }
}

fn malformed(error: SealedError) -> Refusal {
    Refusal::Malformed(error.to_string())
}

fn overloaded(why: &'static str) -> Refusal {
    Refusal::Overloaded { why, seconds: FRONT_END_RETRY_SECONDS }
}

/// Whole seconds, at least one.
fn seconds(after: Duration) -> u32 {
    (after.as_millis().div_ceil(1_000) as u32).max(1)
}
