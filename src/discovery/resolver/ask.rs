//! One batch on its way: encrypted, sent until every look-up has its answer or is given up, and
//! kept undecoded.
//!
//! Several batches are on their way at once. How many, and which one is next, depends on answers
//! having come, never on what they say.

use std::sync::Arc;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};
use zeroize::Zeroizing;

use super::database::Held;
use super::errors::ResolveError;
use super::exchange::{Exchange, Kind};
use crate::client::device::{DeviceBatch, Progress};
use crate::discovery::sealed::capsule::{InnerRequest, InnerResponse};
use crate::discovery::sealed::lookup::{BATCH, join, split_answers};
use crate::limits::{DEVICE_LOOKUPS_IN_FLIGHT, FRAME_OVERHEAD_BYTES, SEALED_LOOKUP_FIELDS_BYTES};
use crate::params::Shape;
use crate::wire::{Bytes, ReplyKind};

/// Bytes of a front-end's reason that an error shows.
const FRONT_END_WORDS_MAX: usize = 200;
const FRAMES_TYPE: &str = "application/x-sotto-frames";

/// A batch that is to be asked.
pub(super) struct Job {
    pub(super) database: Arc<Held>,
    /// Its place among the batches of the database.
    pub(super) index: usize,
    /// The key of each slot.
    pub(super) keys: Vec<Zeroizing<Vec<u8>>>,
}

/// A batch that is over.
pub(super) struct Asked {
    pub(super) database: Arc<Held>,
    pub(super) index: usize,
    /// Its answers, undecoded; none if it could not be encrypted.
    pub(super) batch: Option<DeviceBatch>,
    /// Whether the front-end may have seen it.
    pub(super) may_have_arrived: bool,
    /// What ended it early.
    pub(super) error: Option<ResolveError>,
}

/// What came of many batches.
pub(super) struct AskedAll {
    pub(super) asked: Vec<Asked>,
    /// Why the rest was not sent.
    pub(super) stopped: Option<ResolveError>,
}

/// Runs work of a processor on a thread for it.
pub(super) async fn compute<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ResolveError> {
    let working = tokio::task::spawn_blocking(work);
    working.await.map_err(|error| ResolveError::Computing(error.to_string()))
}

/// Asks batches, a few at a time, until `deadline`. `over` is told how many are over.
pub(super) async fn ask_all(
    exchange: &Arc<Exchange>,
    jobs: Vec<Job>,
    deadline: Instant,
    mut over: impl FnMut(usize),
) -> Result<AskedAll, ResolveError> {
    let mut jobs = jobs.into_iter();
    let mut all = AskedAll { asked: Vec::new(), stopped: None };
    // What is on its way ends with it.
    let mut running = JoinSet::new();
    loop {
        while running.len() < DEVICE_LOOKUPS_IN_FLIGHT && all.stopped.is_none() {
            let Some(job) = jobs.next() else { break };
            if Instant::now() >= deadline {
                all.stopped = Some(ResolveError::TimeOver);
                break;
            }
            running.spawn(ask_until(exchange.clone(), job, deadline));
        }
        let Some(joined) = running.join_next().await else { return Ok(all) };
        let mut asked = joined.map_err(|error| ResolveError::Computing(error.to_string()))?;
        if asked.error.as_ref().is_some_and(ResolveError::ends_the_call) && all.stopped.is_none() {
            all.stopped = asked.error.take();
        }
        all.asked.push(asked);
        over(all.asked.len());
    }
}

async fn ask_until(exchange: Arc<Exchange>, job: Job, deadline: Instant) -> Asked {
    let Job { database, index, keys } = job;
    let mut asked = Asked { database, index, batch: None, may_have_arrived: false, error: None };
    let result = timeout_at(deadline, asked.run(&exchange, keys)).await;
    asked.error = result.unwrap_or(Err(ResolveError::TimeOver)).err();
    if let (Some(batch), Some(error)) = (&mut asked.batch, &asked.error) {
        batch.give_up(&error.to_string());
    }
    asked
}

impl Asked {
    async fn run(
        &mut self,
        exchange: &Exchange,
        keys: Vec<Zeroizing<Vec<u8>>>,
    ) -> Result<(), ResolveError> {
        let database = self.database.clone();
        let encrypt = move || DeviceBatch::encrypt(&database.known(), keys);
        self.batch = Some(compute(encrypt).await??);
        loop {
            match self.send(exchange).await? {
                Progress::Done => return Ok(()),
                Progress::Again { wait } => sleep(wait).await,
                Progress::Refresh { wait } => {
                    sleep(wait).await;
                    self.database.refresh(exchange).await?;
                    self.renew().await?;
                }
            }
        }
    }

    /// Sends the batch once, and takes what comes back.
    async fn send(&mut self, exchange: &Exchange) -> Result<Progress, ResolveError> {
        let batch = self.batch.as_mut().expect("this is a bug: a batch that is not there");
        let shape = self.database.known().parameters().map(|parameters| *parameters.shape());
        let shape = shape.expect("this is a bug: a batch without parameters");
        let request = InnerRequest {
            method: "POST".into(),
            path: format!("/databases/{}/lookup", self.database.name),
            content_type: Some(FRAMES_TYPE.into()),
            body: join(batch.bundles(), batch.batch()),
        };
        let max = BATCH * ReplyKind::Answer.bytes_max(Some(&shape));
        let arrived = &mut self.may_have_arrived;
        let request = (&request, request_bytes(batch, &shape));
        let reply = exchange.ask(Kind::Lookup, request, max, arrived).await?;
        let body = Bytes::from(expect_ok(Kind::Lookup, reply)?);
        let answers = split_answers(body, &shape).map_err(|error| ResolveError::Reply {
            what: Kind::Lookup.name(),
            problem: error.to_string(),
        })?;
        Ok(batch.take(answers))
    }

    /// Renews the batch for new parameters. One whose caller goes away meanwhile is wiped.
    async fn renew(&mut self) -> Result<(), ResolveError> {
        let (batch, database) = (self.batch.take(), self.database.clone());
        let mut batch = batch.expect("this is a bug: a batch that is not there");
        let renew = move || batch.renew(&database.known()).map(|()| batch);
        self.batch = Some(compute(renew).await??);
        Ok(())
    }
}

/// The length that every look-up of a database has with zeros behind it: whatever its shards, whose
/// numbers differ in length, and whether or not it asks for hints.
fn request_bytes(batch: &DeviceBatch, shape: &Shape) -> usize {
    let bundles: usize = batch.bundles().iter().map(Bytes::len).sum();
    bundles + BATCH * (shape.query_bytes() + FRAME_OVERHEAD_BYTES) + SEALED_LOOKUP_FIELDS_BYTES
}

/// The body of a reply that succeeded.
pub(super) fn expect_ok(kind: Kind, reply: InnerResponse) -> Result<Vec<u8>, ResolveError> {
    if reply.status == 200 {
        return Ok(reply.body);
    }
    // The front-end's words, as far as a line of an error may have them.
    let text = String::from_utf8_lossy(&reply.body[..reply.body.len().min(FRONT_END_WORDS_MAX)]);
    let detail = text.chars().filter(|c| !c.is_control()).collect();
    Err(ResolveError::FrontEnd { what: kind.name(), status: reply.status, detail })
}
