//! Decodes a sample of the answers on a thread of its own at the lowest priority, and compares them
//! with what they must say. It never slows a run: what it cannot keep up with is skipped and
//! counted, and what it finds changes nothing that is sent.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use super::ledger::Ledger;
use super::prepare::{Check, Maker, lowest_priority};
use crate::Failed;
use sotto::client::frames::{FrameSender, Heard};
use sotto::limits;
use sotto::scheme::hint_digest;
use sotto::wire::message::ReplyBody;

/// The hints of all shards.
pub(super) type Hints = Arc<HashMap<u32, Vec<u8>>>;

/// An answer of the right sizes from a shard, and what it must say.
pub(super) struct Job {
    pub(super) check: Check,
    pub(super) shard: u32,
    pub(super) response: Vec<Vec<u8>>,
}

/// Starts the thread. It ends when the sender is dropped and all before is counted.
pub(super) fn start(
    maker: Arc<Maker>,
    hints: Hints,
    ledger: Arc<Ledger>,
) -> io::Result<(SyncSender<Job>, JoinHandle<()>)> {
    let (jobs, waiting) = sync_channel::<Job>(limits::LOAD_ANSWERS_UNVERIFIED_MAX);
    let thread = thread::Builder::new().name("verify".into()).spawn(move || {
        lowest_priority();
        for Job { check, shard, response } in waiting {
            let hint = hints.get(&shard);
            let is_right = hint.is_some_and(|hint| maker.is_right(&check, &response, hint));
            let mut counts = ledger.verified();
            *(if is_right { &mut counts.right } else { &mut counts.wrong }) += 1;
        }
    })?;
    Ok((jobs, thread))
}

/// The hints of all shards, each the signed one.
pub(super) async fn fetch_hints(sender: &FrameSender) -> Result<Hints, Failed> {
    let parameters = sender.parameters();
    let shape = parameters.shape();
    let bytes = parameters.shard_count() as usize * shape.packs() * shape.hint_bytes();
    if bytes > limits::HINT_CACHE_BYTES {
        let most = limits::HINT_CACHE_BYTES;
        let found = format!("the hints of all shards have {bytes} bytes, expected at most {most}");
        return Err(format!("answers cannot be verified: {found}: use --verify 0").into());
    }
    let mut hints = HashMap::new();
    let shards: Vec<u32> = (0..parameters.shard_count()).collect();
    for shards in shards.chunks(limits::HINTS_PER_REQUEST_MAX as usize) {
        let mut hear = |heard| {
            if let Heard::Reply(ReplyBody::Hint(hint), _) = heard {
                hints.insert(hint.shard, hint.packs.concat());
            }
        };
        let frame = sender.hint_frame(shards.to_vec());
        let end = sender.send(frame, &[], shards.len(), &mut hear).await;
        let is_signed = |shard: &u32| {
            let digest = |hint: &Vec<u8>| hint_digest(hint.chunks(shape.hint_bytes()));
            hints.get(shard).map(digest) == Some(sender.hint_digest(*shard))
        };
        if !shards.iter().all(is_signed) {
            let found = format!("no hint, or not the signed one, for a shard ({end:?})");
            return Err(format!("answers cannot be verified: {found}").into());
        }
    }
    Ok(Arc::new(hints))
}
