//! A client's connection for frames made beforehand, which go out when their time has come and
//! not in a call's rounds: what the load generator ([`crate::bench`]) needs beside the [`Client`].
//!
//! The connection was made, and the parameters checked, as for any call; the requests have the same
//! fields. Nothing here encrypts or decodes. A server that is dead, or silent for as long as a link
//! waits ([`super::link`]), is left for the next replica where there is one, and what it had not
//! answered goes there in the identical bytes; nothing else is tried again.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::Client;
use super::call::{Attempt, Sending, View};
use super::error::ClientError;
use super::exchange::query;
use super::link::{Link, bundle_frame};
use super::net::{Dialer, End, Heard, exchange};
use super::retry::Event;
use crate::limits;
use crate::wire::message::{HintRequest, PirBatch, Request, RequestBody};
use crate::wire::{Bytes, encode_frame};

/// A bundle's name, and the frame that asks a server to keep it.
pub(crate) type BundleFrame = (String, Bytes);

/// The connection a client has, and the next one once its server is gone.
#[derive(Clone)]
pub(crate) struct Line {
    route: Arc<Route>,
    view: Arc<View>,
    wait: Duration,
    deadline_ms: u32,
}

/// Whatever goes out over a line goes over one link at a time.
struct Route {
    dialer: Arc<Dialer>,
    state: Mutex<State>,
}

struct State {
    link: Arc<Link>,
    /// When no replica answered, and what was said of it.
    refused: Option<(Instant, String)>,
}

impl Route {
    /// The link in use; where its server is gone, one to the next replica that answers.
    async fn link(&self) -> Result<Arc<Link>, String> {
        let mut state = self.state.lock().await;
        if state.link.is_open() {
            return Ok(state.link.clone());
        }
        // All that waited for the same connection are told the same.
        if let Some((at, reason)) = &state.refused
            && at.elapsed() < limits::CONNECT_STAGGER
        {
            return Err(reason.clone());
        }
        self.dialer.begin_with(state.link.replica + 1);
        match self.dialer.dial().await {
            Ok(link) => state.link = Arc::new(link),
            Err(error) => {
                let reason = error.to_string();
                state.refused = Some((Instant::now(), reason.clone()));
                return Err(reason);
            }
        }
        Ok(state.link.clone())
    }

    fn has_others(&self) -> bool {
        self.dialer.replica_count() > 1
    }
}

impl Client {
    /// The connection in use, for frames made beforehand.
    pub(crate) async fn line(&mut self) -> Result<Line, ClientError> {
        let state = Mutex::new(State { link: self.link().await?, refused: None });
        let route = Arc::new(Route { dialer: self.dialer.clone(), state });
        let deadline_ms = self.deadline.as_millis() as u32;
        Ok(Line { route, view: self.view().clone(), wait: self.answer_timeout, deadline_ms })
    }
}

impl Line {
    /// What the connection's frames must be made for.
    pub(crate) fn view(&self) -> &Arc<View> {
        &self.view
    }

    /// A batch of queries, each with its place as nonce.
    pub(crate) fn query_frame(&self, queries: impl Iterator<Item = Sending>) -> Bytes {
        let queries = queries.enumerate().map(|(nonce, s)| query(nonce, s, self.deadline_ms));
        frame(RequestBody::Batch(PirBatch { requests: queries.collect() }))
    }

    /// Asks the server to keep a bundle.
    pub(crate) fn bundle_frame(&self, uid: &str, bundle: Arc<[u8]>) -> BundleFrame {
        (uid.to_owned(), bundle_frame(uid, bundle))
    }

    /// Asks for hints.
    pub(crate) fn hint_frame(&self, shards: Vec<u32>) -> Bytes {
        frame(RequestBody::Hints(HintRequest { epoch: self.view.parameters.epoch(), shards }))
    }

    /// Sees to it that the server in use has a bundle; otherwise what it said instead.
    pub(crate) async fn bring(&self, bundle: &BundleFrame) -> Result<(), String> {
        let mut refused = Err(String::new());
        for _ in 0..limits::ATTEMPTS_MAX {
            let link = self.route.link().await?;
            refused = self.bring_over(&link, bundle).await.map_err(|attempt| describe(&attempt));
            if refused.is_ok() || link.is_open() || !self.route.has_others() {
                break;
            }
        }
        refused
    }

    async fn bring_over(&self, link: &Link, (uid, frame): &BundleFrame) -> Result<(), Attempt> {
        let shape = *self.view.parameters.shape();
        link.bring(uid, || frame.clone(), shape, self.wait).await.0
    }

    /// Sends a frame as soon as the server grants a stream, and says of each thing that happens
    /// on it when it does. A replica to which it must go again is sent the bundles before.
    pub(crate) async fn send(
        &self,
        frame: Bytes,
        bundles: &[BundleFrame],
        replies_max: usize,
        hear: &mut (dyn FnMut(Heard) + Send),
    ) -> End {
        let mut end = End::Finished;
        for _ in 0..limits::ATTEMPTS_MAX {
            let link = match self.route.link().await {
                Ok(link) => link,
                Err(reason) => return End::ConnectionLost(reason),
            };
            end = self.send_over(&link, frame.clone(), bundles, replies_max, hear).await;
            if !matches!(end, End::ConnectionLost(_)) || !self.route.has_others() {
                break;
            }
        }
        end
    }

    async fn send_over(
        &self,
        link: &Link,
        frame: Bytes,
        bundles: &[BundleFrame],
        replies_max: usize,
        hear: &mut (dyn FnMut(Heard) + Send),
    ) -> End {
        for bundle in bundles {
            if let Err(attempt) = self.bring_over(link, bundle).await {
                let reason = format!("bundle: {}", describe(&attempt));
                return match link.is_open() {
                    true => End::StreamLost(reason),
                    false => End::ConnectionLost(reason),
                };
            }
        }
        let shape = Some(*self.view.parameters.shape());
        exchange(&link.connection, frame, shape, replies_max, self.wait, hear).await
    }
}

/// The name of a status, or how it ended without one.
fn describe(attempt: &Attempt) -> String {
    match attempt.event {
        Event::Answered { status, .. } => status.name().to_owned(),
        _ => attempt.detail.clone(),
    }
}

fn frame(body: RequestBody) -> Bytes {
    encode_frame(&Request::from(body)).into()
}
