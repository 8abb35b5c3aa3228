//! Look-ups for devices that name their contacts: those of all devices that wait at one time are
//! encrypted together, in random order, under key bundles of the front-end ([`super::own`]).
//!
//! A round is over when its last answer is there or its time has passed; then it is decoded, and
//! only then does anybody learn what was found. Nothing is asked again because of an outcome.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::{Instant, timeout_at};
use zeroize::Zeroizing;

use super::mix::PooledDatabase;
use super::own::OwnQueries;
use super::pool::{Pool, Refused};
use super::room::Compute;
use crate::keyword::{Outcome, locate};
use crate::limits;
use crate::scheme::{Sharing, random_permutation};

/// The queues of all databases. What collects them ends when this is dropped.
pub(super) struct Rounds {
    pool: Arc<Pool>,
    queues: HashMap<String, mpsc::UnboundedSender<Ask>>,
}

/// A look-up that waits for a round. It is content and has no Debug.
struct Ask {
    key: Zeroizing<Vec<u8>>,
    reply: oneshot::Sender<Outcome>,
    _room: Arc<OwnedSemaphorePermit>,
}

impl Rounds {
    /// For these databases of a pool. `queries` counts what is asked of answer servers.
    pub(super) fn start(
        pool: Arc<Pool>,
        databases: impl Iterator<Item = String>,
        compute: &Compute,
        queries: &Arc<AtomicU64>,
    ) -> Self {
        let queue = |id: String| {
            let database = pool.database(&id)?.clone();
            // The pool's memory bounds what waits.
            let (queue, asks) = mpsc::unbounded_channel();
            tokio::spawn(collect(database, asks, compute.clone(), queries.clone()));
            Some((id, queue))
        };
        let queues = databases.filter_map(queue).collect();
        Self { pool, queues }
    }

    /// Looks a key up in a database. The receiver gets nothing where no server answered in time.
    ///
    /// # Errors
    /// It cannot be asked now.
    pub(super) fn ask(
        &self,
        database: &str,
        key: Zeroizing<Vec<u8>>,
    ) -> Result<oneshot::Receiver<Outcome>, Refused> {
        let queue = self.queues.get(database).ok_or(Refused::NoDatabase)?;
        let _room = self.pool.own_room(database)?;
        let (reply, outcome) = oneshot::channel();
        let _ = queue.send(Ask { key, reply, _room }); // a queue that is gone drops the reply
        Ok(outcome)
    }
}

/// Collects what is asked of a database, for as long as somebody may ask.
async fn collect(
    database: Arc<PooledDatabase>,
    mut queue: mpsc::UnboundedReceiver<Ask>,
    compute: Compute,
    queries: Arc<AtomicU64>,
) {
    while let Some(first) = queue.recv().await {
        let until = Instant::now() + database.mix_time;
        let mut asks = vec![first];
        while asks.len() < limits::RESOLVE_ROUND_QUERIES_MAX {
            let Ok(Some(ask)) = timeout_at(until, queue.recv()).await else { break };
            asks.push(ask);
        }
        tokio::spawn(round(database.clone(), asks, compute.clone(), queries.clone()));
    }
}

/// Asks one round and gives out what its look-ups end in.
async fn round(
    database: Arc<PooledDatabase>,
    asks: Vec<Ask>,
    compute: Compute,
    queries: Arc<AtomicU64>,
) {
    let Some(epoch) = database.epochs.newest() else { return };
    let Ok(order) = random_permutation(asks.len()) else {
        tracing::error!("the system gives no random bytes: nothing is looked up");
        return;
    };
    let mut asks: Vec<Option<Ask>> = asks.into_iter().map(Some).collect();
    let asks: Vec<Ask> = order.into_iter().filter_map(|at| asks[at].take()).collect();
    let parameters = &epoch.parameters;
    let (seed, shards) = (parameters.seed(), parameters.shard_count());
    let groups = parameters.shape().groups() as u32;
    let place = |ask: &Ask| Box::new(locate(seed, &ask.key, shards, groups));
    let places = asks.iter().map(place).collect();
    let encrypt = move || OwnQueries::encrypt(epoch, places, Sharing::Shared);
    let Some(Ok(encrypted)) = compute.run(encrypt).await else {
        tracing::error!("look-ups for devices could not be encrypted");
        return;
    };
    queries.fetch_add(asks.len() as u64, Ordering::Relaxed);
    let answers = encrypted.ask(&database, Instant::now() + limits::DEADLINE_DEFAULT, None).await;
    let Some(opened) = compute.run(move || encrypted.open(answers)).await else { return };
    for (ask, opened) in asks.into_iter().zip(opened) {
        if let Some((_, outcome)) = opened {
            let _ = ask.reply.send(outcome); // whoever left needs none
        }
    }
}
