//! How soon a query is refused at a full queue: from its frame decoded to its reply encoded,
//! without the network. As many front-ends as a server has connections fill the queue, and no
//! engine takes anything.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use sotto::engine::EncryptedQuery;
use sotto::limits;
use sotto::schedule::{Arrival, ConnectionId, FrontEnd, Full, Overloaded, ScheduleBounds};
use sotto::shard::Database;
use sotto::wire::message::{PirResponse, Reply, ReplyBody};
use sotto::wire::{Status, encode_frame};
use sotto::worker::{Job, Queue, Workers};
use tokio::sync::mpsc::unbounded_channel;

use crate::Failed;
use crate::common::{median, ms};
use crate::record::Refusal;

const SHARDS: u32 = 10_000;

/// Fills a queue, then has this many queries refused.
pub(super) fn measure(
    database: Arc<Database>,
    query: &EncryptedQuery,
    refusals: usize,
) -> Result<Refusal, Failed> {
    let workers = Workers::start(Vec::new(), database, ScheduleBounds::default(), None)?;
    let queue = workers.queue();
    for front_end in 0..limits::CONNECTIONS_MAX as u64 {
        admit(&queue, query, front_end, 0).map_err(|_| "the queue is full too soon")?;
    }
    // Each fills its own part of the queue, until all of it is full.
    let (mut front_end, mut next) = (0, 0);
    loop {
        next = (next + 1) % SHARDS;
        match admit(&queue, query, front_end, next).map_err(|refused| refused.full) {
            Ok(()) => {}
            Err(Full::Queue) => break,
            Err(Full::FrontEnd | Full::Connection | Full::Time) => front_end += 1,
        }
    }
    let queued = queue.queued();
    let front_end = limits::CONNECTIONS_MAX as u64;
    let mut times = Vec::with_capacity(refusals);
    for _ in 0..refusals {
        let begun = Instant::now();
        let refused = admit(&queue, query, front_end, 0).err().ok_or("the queue is not full")?;
        let reply = PirResponse {
            nonce: "0".into(),
            response_status: Status::Overloaded.code(),
            retry_after_ms: refused.retry_after.as_millis() as u32,
            ..Default::default()
        };
        black_box(encode_frame(&Reply::from(ReplyBody::Answer(reply))));
        times.push(begun.elapsed());
    }
    Ok(Refusal {
        queued,
        ms_median: median(times.iter().copied()).map_or(0.0, ms),
        ms_worst: times.iter().max().copied().map_or(0.0, ms),
    })
}

fn admit(
    queue: &Queue,
    query: &EncryptedQuery,
    front_end: u64,
    shard: u32,
) -> Result<(), Overloaded> {
    let now = Instant::now();
    let arrival = Arrival {
        connection: ConnectionId(front_end),
        front_end: FrontEnd { number: front_end, share: 1 },
        shard,
        scan_bytes: 1,
        bytes: query.vector.len() + query.bundle.held_bytes(),
        deadline: now + limits::DEADLINE_MAX,
        item: Job { query: query.clone(), index: 0, outcomes: unbounded_channel().0 },
    };
    queue.submit(now, arrival).map(|_| ())
}
