//! How soon a query is refused at a full queue: from its frame decoded to its reply encoded,
//! without the network. As many front-ends as a server has connections fill the queue, and no
//! engine takes anything.

use std::error::Error;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sotto::engine::EncryptedQuery;
use sotto::limits;
use sotto::schedule::{Arrival, ConnectionId, FrontEnd, Full, Overloaded, ScheduleBounds};
use sotto::shard::Database;
use sotto::wire::message::{PirResponse, Reply, ReplyBody};
use sotto::wire::{Status, encode_frame};
use sotto::worker::{Job, Queue, Workers};
use tokio::sync::mpsc::unbounded_channel;

const SHARDS: u32 = 10_000;

pub(super) struct Refusal {
    pub(super) queued: usize,
    pub(super) times: Vec<Duration>,
}

/// Fills a queue, then has this many queries refused.
pub(super) fn measure(
    database: Arc<Database>,
    query: &EncryptedQuery,
    refusals: usize,
) -> Result<Refusal, Box<dyn Error>> {
    let workers = Workers::start(Vec::new(), database, ScheduleBounds::default(), None)?;
    let queue = workers.queue();
    for front_end in 0..limits::CONNECTIONS_MAX as u64 {
        admit(&queue, query, front_end, 0).map_err(|_| "the queue is full too soon")?;
    }
    let mut next = 0;
    for front_end in 0.. {
        match fill(&queue, query, front_end, &mut next) {
            Full::Queue => break,
            Full::FrontEnd | Full::Connection | Full::Time => {}
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
    Ok(Refusal { queued, times })
}

/// Admits queries of one front-end until there is no room.
fn fill(queue: &Queue, query: &EncryptedQuery, front_end: u64, next: &mut u32) -> Full {
    loop {
        *next = (*next + 1) % SHARDS;
        if let Err(refused) = admit(queue, query, front_end, *next) {
            return refused.full;
        }
    }
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
