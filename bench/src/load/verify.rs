//! Decodes a sample of the answers and compares them with what they must be.
//!
//! One thread at the lowest priority. It sees a query only once its secret encrypts no more, and
//! what it finds changes nothing that is sent.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;

use super::LoadError;
use super::prepare::{Check, Maker, lowest_priority};
use sotto::client::frames::{FrameSender, Heard};
use sotto::limits;
use sotto::scheme::hint_digest;
use sotto::wire::message::ReplyBody;

/// What came of the sample.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Counts {
    /// Decoded, and as they must be.
    pub right: u64,
    /// Decoded to something else, or no answers to their queries.
    pub wrong: u64,
    /// Of the sample, but decoding could not keep up.
    pub skipped: u64,
}

enum Job {
    Verify(Check, u32, Vec<Vec<u8>>),
    /// Answered when all before it is done.
    Flush(SyncSender<()>),
}

pub(super) struct Verifier {
    jobs: SyncSender<Job>,
    right: Arc<AtomicU64>,
    wrong: Arc<AtomicU64>,
    skipped: AtomicU64,
}

impl Verifier {
    /// Fetches the hints of all shards if anything is to be decoded, and starts the thread.
    pub(super) async fn start(
        sender: &FrameSender,
        maker: Arc<Maker>,
        share: f64,
    ) -> Result<Self, LoadError> {
        let hints = if share > 0.0 { fetch_hints(sender).await? } else { HashMap::new() };
        let (jobs, waiting) = sync_channel(limits::LOAD_ANSWERS_UNVERIFIED_MAX);
        let (right, wrong) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let counters = (right.clone(), wrong.clone());
        thread::Builder::new().name("verify".into()).spawn(move || {
            lowest_priority();
            work(&waiting, &maker, &hints, &counters.0, &counters.1);
        })?;
        Ok(Self { jobs, right, wrong, skipped: AtomicU64::new(0) })
    }

    /// Has an answer verified, unless too many wait.
    pub(super) fn ask(&self, check: Check, shard: u32, response: Vec<Vec<u8>>) {
        match self.jobs.try_send(Job::Verify(check, shard, response)) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => drop(self.skipped.fetch_add(1, Ordering::Relaxed)),
            Err(TrySendError::Disconnected(_)) => self.wrong(),
        }
    }

    /// Something else than an answer came.
    pub(super) fn wrong(&self) {
        self.wrong.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits until all is decoded, and gives and forgets the counts.
    pub(super) fn take(&self) -> Counts {
        let (tell, told) = sync_channel(1);
        if self.jobs.send(Job::Flush(tell)).is_ok() {
            let _ = told.recv();
        }
        let take = |count: &AtomicU64| count.swap(0, Ordering::Relaxed);
        Counts { right: take(&self.right), wrong: take(&self.wrong), skipped: take(&self.skipped) }
    }
}

fn work(
    jobs: &Receiver<Job>,
    maker: &Maker,
    hints: &HashMap<u32, Vec<u8>>,
    right: &AtomicU64,
    wrong: &AtomicU64,
) {
    while let Ok(job) = jobs.recv() {
        match job {
            Job::Verify(check, shard, response) => {
                let is_right =
                    hints.get(&shard).is_some_and(|hint| maker.is_right(&check, &response, hint));
                let count = if is_right { right } else { wrong };
                count.fetch_add(1, Ordering::Relaxed);
            }
            Job::Flush(tell) => drop(tell.send(())),
        }
    }
}

/// The hints of all shards, each the signed one.
async fn fetch_hints(sender: &FrameSender) -> Result<HashMap<u32, Vec<u8>>, LoadError> {
    let parameters = sender.parameters();
    let shape = parameters.shape();
    let bytes = parameters.shard_count() as usize * shape.packs() * shape.hint_bytes();
    if bytes > limits::HINT_CACHE_BYTES {
        return Err(LoadError::Hints(format!(
            "the hints of all shards have {bytes} bytes, expected at most {}: use --verify 0",
            limits::HINT_CACHE_BYTES
        )));
    }
    let mut hints = HashMap::new();
    let shards: Vec<u32> = (0..parameters.shard_count()).collect();
    for shards in shards.chunks(limits::HINTS_PER_REQUEST_MAX as usize) {
        let frame = sender.hint_frame(shards.to_vec());
        let mut hear = |heard| {
            if let Heard::Reply(ReplyBody::Hint(hint), _) = heard {
                hints.insert(hint.shard, hint.packs.concat());
            }
        };
        let end = sender.send(frame, &[], shards.len(), &mut hear).await;
        for &shard in shards {
            let signed = sender.hint_digest(shard);
            let digest = |hint: &Vec<u8>| hint_digest(hint.chunks(shape.hint_bytes()));
            if hints.get(&shard).map(digest) != Some(signed) {
                let found = format!("no hint, or not the signed one, for a shard ({end:?})");
                return Err(LoadError::Hints(found));
            }
        }
    }
    Ok(hints)
}
