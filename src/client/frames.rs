//! Sending frames that were prepared beforehand, each at a time that the caller chooses: what a
//! load generator needs beside the [`Client`].
//!
//! Prepare queries with [`crate::scheme::SecretPool`], put them into a frame with
//! [`FrameSender::query_frame`], upload their key bundles with [`FrameSender::upload`], send the
//! frame with [`FrameSender::send`] and check each answer with [`FrameSender::check_answer`].
//! Nothing here encrypts or decodes: the caller must keep the rule that a secret encrypts one
//! selection for a shard once, ever.
//!
//! When a server is dead or silent, what it had not answered goes to the next replica in the
//! identical bytes. Nothing else is tried again.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

pub use super::call::PreparedQuery;
use super::call::{self, View};
use super::connection::Client;
use super::error::{ClientError, LookupError};
pub use super::exchange::Heard;
use super::exchange::{exchange, frame, parameter_request, query};
use super::link::{Dialer, Link};
pub use super::retry::{Action, Event, FailedAttempt, Via, action};
use crate::limits;
use crate::wire::message::{HintRequest, PirBatch, PirResponse, RequestBody};
use crate::wire::{Bytes, HINT_DIGEST_BYTES, PublicParameters};

/// A key bundle's name, and the frame that asks a server to keep it.
pub type BundleFrame = (String, Bytes);

/// Sends prepared frames over a client's connection; once its server is gone, over one to the next
/// replica. Cheap to clone; clones share the connection.
#[derive(Clone)]
pub struct FrameSender {
    dialer: Arc<Dialer>,
    in_use: Arc<Mutex<InUse>>,
    view: Arc<View>,
    wait: Duration,
    deadline_ms: u32,
}

/// The link of a sender and its clones.
struct InUse {
    link: Arc<Link>,
    /// When no replica answered, and what was said of it.
    refused: Option<(Instant, String)>,
}

impl Client {
    /// A sender of prepared frames over the connection in use, or to the next replica.
    pub async fn frame_sender(&mut self) -> Result<FrameSender, ClientError> {
        let in_use = InUse { link: self.link().await?, refused: None };
        Ok(FrameSender {
            dialer: self.routes.dialer.clone(),
            in_use: Arc::new(Mutex::new(in_use)),
            view: self.view().clone(),
            wait: self.options.answer_timeout,
            deadline_ms: self.options.deadline.as_millis() as u32,
        })
    }
}

impl FrameSender {
    /// What frames must be prepared for.
    pub fn parameters(&self) -> &PublicParameters {
        &self.view.parameters
    }

    /// The signed digest of a shard's hint.
    pub fn hint_digest(&self, shard: u32) -> [u8; HINT_DIGEST_BYTES] {
        self.view.digest(shard)
    }

    /// Checks all of an answer that needs no secret: its lengths, its epoch, its hint digest.
    pub fn check_answer(&self, shard: u32, answer: &PirResponse) -> Result<(), LookupError> {
        call::check_answer(&self.view, shard, self.parameters().shape().packs(), answer)
    }

    /// A frame of queries. The nonce of each is its position in the frame, in decimal digits.
    pub fn query_frame(&self, queries: impl Iterator<Item = PreparedQuery>) -> Bytes {
        let queries = queries.enumerate().map(|(nonce, q)| query(nonce, q, self.deadline_ms));
        frame(RequestBody::Batch(PirBatch { requests: queries.collect() }))
    }

    /// A request that the server keep a key bundle.
    pub fn bundle_frame(&self, uid: &str, bundle: Arc<[u8]>) -> BundleFrame {
        (uid.to_owned(), parameter_request(Some((uid, bundle))))
    }

    /// A request for the hints of these shards.
    pub fn hint_frame(&self, shards: Vec<u32>) -> Bytes {
        let (epoch, digests_only) = (self.view.parameters.epoch(), false);
        frame(RequestBody::Hints(HintRequest { epoch, shards, digests_only }))
    }

    /// The link in use; where its server is gone, one to the next replica that answers.
    async fn link(&self) -> Result<Arc<Link>, String> {
        let mut in_use = self.in_use.lock().await;
        if in_use.link.is_open() {
            return Ok(in_use.link.clone());
        }
        // All that waited for the same connection are told the same.
        if let Some((at, reason)) = &in_use.refused
            && at.elapsed() < limits::CONNECT_STAGGER
        {
            return Err(reason.clone());
        }
        let (next, count) = (in_use.link.replica + 1, self.dialer.replica_count());
        let order = (next..next + count).map(|replica| replica % count).collect();
        match self.dialer.clone().first_of(order).await {
            Ok(link) => in_use.link = link,
            Err(error) => {
                let reason = error.to_string();
                in_use.refused = Some((Instant::now(), reason.clone()));
                return Err(reason);
            }
        }
        Ok(in_use.link.clone())
    }

    /// Uploads a key bundle to the server in use, unless it has it.
    pub async fn upload(&self, bundle: &BundleFrame) -> Result<(), String> {
        let mut refused = Err(String::new());
        for _ in 0..limits::ATTEMPTS_MAX {
            let link = self.link().await?;
            refused = self.bring_over(&link, bundle).await.map_err(describe);
            if refused.is_ok() || link.is_open() || self.dialer.replica_count() == 1 {
                break;
            }
        }
        refused
    }

    async fn bring_over(
        &self,
        link: &Link,
        (uid, frame): &BundleFrame,
    ) -> Result<(), FailedAttempt> {
        let shape = *self.view.parameters.shape();
        link.bring(uid, frame.clone(), shape, self.wait, |_, _| ()).await
    }

    /// Sends a frame as soon as the server grants a stream, and calls `hear` at each event of the
    /// exchange. At most `replies_max` replies are read. A replica to which the frame must go again
    /// is sent the key bundles before. Returns what the end means for queries without a reply.
    pub async fn send(
        &self,
        frame: Bytes,
        bundles: &[BundleFrame],
        replies_max: usize,
        hear: &mut (dyn FnMut(Heard) + Send),
    ) -> FailedAttempt {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let link = match self.link().await {
                Ok(link) => link,
                Err(detail) => return FailedAttempt { event: Event::ConnectionLost, detail },
            };
            let end = self.send_over(&link, frame.clone(), bundles, replies_max, hear).await;
            let lost = end.event == Event::ConnectionLost;
            if !lost || attempts == limits::ATTEMPTS_MAX || self.dialer.replica_count() == 1 {
                return end;
            }
        }
    }

    async fn send_over(
        &self,
        link: &Link,
        frame: Bytes,
        bundles: &[BundleFrame],
        replies_max: usize,
        hear: &mut (dyn FnMut(Heard) + Send),
    ) -> FailedAttempt {
        for bundle in bundles {
            if let Err(failed) = self.bring_over(link, bundle).await {
                let event = if link.is_open() { Event::StreamLost } else { Event::ConnectionLost };
                return FailedAttempt { event, detail: format!("bundle: {}", describe(failed)) };
            }
        }
        let shape = Some(*self.view.parameters.shape());
        exchange(&link.connection, frame, shape, replies_max, self.wait, hear).await
    }
}

/// The name of a status, or how it ended without one.
fn describe(failed: FailedAttempt) -> String {
    match failed.event {
        Event::Refused { status, .. } => status.name().to_owned(),
        _ => failed.detail,
    }
}
