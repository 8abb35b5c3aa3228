//! One answer server as the pool sees it: its connection, whether it is healthy, which epoch it
//! has, and what canaries found.
//!
//! A server is healthy while it has a link. It loses the link when its connection is lost, or after
//! [`limits::POOL_FAILURES_MAX`] failures in a row, and gets another when it gives parameters
//! again; [`keep`] tries once a second. Its parameters are fetched every ten seconds and whenever
//! somebody asks ([`Server::refresh`]). A link has its own connection, so what went over the old
//! one ends there.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::bundles::Brought;
use super::epochs::Epochs;
use super::placement::PlacedServer;
use super::pool_counters::ServerCounters;
use crate::client::frames::{Event, FailedAttempt, FrameSender};
use crate::client::{Client, Options, Replica};
use crate::limits;

/// A connection that works, with what is known of the server behind it.
pub(super) struct Link {
    pub(super) sender: FrameSender,
    /// The newest epoch that the server had when it was last asked.
    pub(super) epoch: u64,
    pub(super) traffic: Arc<Traffic>,
}

/// What goes over one connection.
pub(super) struct Traffic {
    pub(super) bundles: Brought,
    pub(super) frames_in_flight: Semaphore,
    pub(super) bundles_in_flight: Semaphore,
    pub(super) hints_in_flight: Semaphore,
}

impl Traffic {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            bundles: Brought::default(),
            frames_in_flight: Semaphore::new(limits::POOL_FRAMES_IN_FLIGHT),
            bundles_in_flight: Semaphore::new(limits::POOL_BUNDLES_IN_FLIGHT),
            hints_in_flight: Semaphore::new(limits::POOL_HINTS_IN_FLIGHT),
        })
    }
}

/// An answer server.
pub(super) struct Server {
    pub(super) place: PlacedServer,
    link: RwLock<Option<Arc<Link>>>,
    failures: AtomicU32,
    /// A canary took it out. Nobody but canaries asks it.
    is_out: AtomicBool,
    standing: Mutex<Standing>,
    look: Notify,
    /// How often asking for parameters began, and which of these was the last that ended.
    begun: AtomicU64,
    ended: watch::Sender<u64>,
    pub(super) counters: ServerCounters,
}

/// What canaries found.
#[derive(Default)]
struct Standing {
    /// Queries of canaries that were answered.
    answers: u64,
    /// Which of them was the last wrong one.
    last_wrong: Option<u64>,
    /// Canaries in a row that were answered right in everything, since the server was taken out.
    right_in_row: u32,
}

/// What one canary query found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Right,
    Wrong,
}

impl Server {
    pub(super) fn new(place: PlacedServer) -> Self {
        Self {
            place,
            link: RwLock::default(),
            failures: AtomicU32::new(0),
            is_out: AtomicBool::new(false),
            standing: Mutex::default(),
            look: Notify::new(),
            begun: AtomicU64::new(0),
            ended: watch::Sender::new(0),
            counters: ServerCounters::default(),
        }
    }

    /// The link in use; none while the server is not healthy.
    pub(super) fn link(&self) -> Option<Arc<Link>> {
        self.link.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_link(&self, link: Option<Arc<Link>>) {
        *self.link.write().unwrap_or_else(PoisonError::into_inner) = link;
    }

    /// Whether canaries took it out.
    pub(super) fn is_out(&self) -> bool {
        self.is_out.load(Ordering::Acquire)
    }

    /// Gives a link up: the next request goes over a new connection. Nothing happens where that
    /// connection was given up already.
    pub(super) fn give_up(&self, traffic: &Arc<Traffic>) {
        let mut link = self.link.write().unwrap_or_else(PoisonError::into_inner);
        if link.as_ref().is_some_and(|link| Arc::ptr_eq(&link.traffic, traffic)) {
            *link = None;
            drop(link);
            self.look.notify_one();
        }
    }

    /// Something came from the server.
    pub(super) fn heard(&self) {
        self.failures.store(0, Ordering::Relaxed);
    }

    /// A request ended like this without a reply. A lost connection is given up at once.
    pub(super) fn failed(&self, traffic: &Arc<Traffic>, failed: &FailedAttempt) {
        self.counters.failures.add(1);
        let failures = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
        let lost = matches!(failed.event, Event::ConnectionLost | Event::NotAllowed);
        if lost || failures >= limits::POOL_FAILURES_MAX {
            let (server, reason) = (&self.place.address, &failed.detail);
            tracing::debug!(server, reason, "an answer server is not healthy");
            self.give_up(traffic);
        }
    }

    /// Fetches parameters again, and waits until that was tried, but not for long.
    pub(super) async fn refresh(&self) {
        let begun = self.begun.load(Ordering::Acquire);
        self.look.notify_one();
        self.looked(begun + 1).await;
    }

    /// Waits until parameters were asked for so often, but not for long.
    pub(super) async fn looked(&self, times: u64) {
        let mut ended = self.ended.subscribe();
        let enough = ended.wait_for(|&ended| ended >= times);
        let _ = timeout(limits::POOL_REFRESH_TIMEOUT, enough).await;
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what a canary's query found. Two that are wrong within [`limits::CANARY_WINDOW`] take
    /// the server out.
    pub(super) fn judge(&self, verdict: Verdict) {
        let mut standing = self.standing();
        standing.answers += 1;
        let answers = standing.answers;
        if verdict == Verdict::Right {
            self.counters.canaries_right.add(1);
            return;
        }
        self.counters.canaries_failed.add(1);
        let before = standing.last_wrong.replace(answers);
        standing.right_in_row = 0;
        let twice = before.is_some_and(|before| answers - before < limits::CANARY_WINDOW);
        if twice && !self.is_out.swap(true, Ordering::AcqRel) {
            tracing::error!(
                server = self.place.address,
                "canaries found wrong answers: this server is not asked any more; compare its \
                 files with the manifest (sotto verify) and its version; or a key of --canaries is \
                 no longer in the database"
            );
        }
    }

    /// Notes a whole canary that was asked of this server alone, after it was taken out. It is
    /// asked by devices again after [`limits::CANARIES_RIGHT_TO_RETURN`] right ones in a row.
    pub(super) fn judge_whole(&self, verdict: Verdict) {
        let mut standing = self.standing();
        standing.right_in_row = match verdict {
            Verdict::Right => standing.right_in_row + 1,
            Verdict::Wrong => 0,
        };
        if standing.right_in_row >= limits::CANARIES_RIGHT_TO_RETURN {
            *standing = Standing { answers: standing.answers, ..Standing::default() };
            if self.is_out.swap(false, Ordering::AcqRel) {
                let server = &self.place.address;
                tracing::warn!(server, "canaries are answered right again: this server is asked");
            }
        }
    }
}

/// How servers of a database are connected to.
pub(super) struct Connecting {
    /// Everything but the address.
    pub(super) options: Options,
    pub(super) refresh: Duration,
    pub(super) retry: Duration,
}

/// Keeps a server's link and parameters up to date, until it is dropped.
pub(super) async fn keep(server: Arc<Server>, epochs: Arc<Epochs>, connecting: Arc<Connecting>) {
    let mut client: Option<Client> = None;
    let mut traffic = Traffic::new();
    let mut was_healthy = true;
    loop {
        let began = Instant::now();
        let look_number = server.begun.fetch_add(1, Ordering::AcqRel) + 1;
        if server.link().is_none() && client.take().is_some() {
            traffic = Traffic::new();
        }
        let looked = timeout(
            limits::POOL_REFRESH_TIMEOUT,
            look(&server, &mut client, &epochs, &connecting, &traffic),
        );
        let looked = looked.await.unwrap_or_else(|_| Err("no parameters in time".into()));
        match &looked {
            Ok(link) => {
                server.heard();
                server.set_link(Some(link.clone()));
                if !was_healthy {
                    tracing::info!(server = server.place.address, "an answer server is back");
                }
            }
            Err(reason) => {
                server.set_link(None);
                client = None;
                traffic = Traffic::new();
                if was_healthy {
                    let server = &server.place.address;
                    tracing::warn!(server, reason, "an answer server gives no parameters");
                }
            }
        }
        was_healthy = looked.is_ok();
        server.ended.send_replace(look_number);
        let next = if was_healthy { connecting.refresh } else { connecting.retry };
        tokio::select! {
            () = sleep_until(began + next) => {}
            () = server.look.notified() => {
                sleep_until(began + limits::POOL_REFRESH_PAUSE.min(next)).await;
            }
        }
    }
}

/// Asks for parameters once, over a new connection where there is none.
async fn look(
    server: &Server,
    client: &mut Option<Client>,
    epochs: &Epochs,
    connecting: &Connecting,
    traffic: &Arc<Traffic>,
) -> Result<Arc<Link>, String> {
    let client = match client {
        Some(client) => {
            client.fetch_parameters().await.map_err(|error| error.to_string())?;
            client
        }
        None => client.insert(connect(&server.place, connecting).await?),
    };
    let parameters = client.parameters().clone();
    let (placed, there) = (server.place.shard_count, parameters.shard_count());
    if placed.is_some_and(|placed| placed != there) {
        return Err(format!("it has {there} shards: the placement is of another database"));
    }
    epochs
        .accept(client.pins(), &parameters, client.signed_parameters())
        .map_err(|error| error.to_string())?;
    let sender = client.frame_sender().await.map_err(|error| error.to_string())?;
    Ok(Arc::new(Link { sender, epoch: parameters.epoch(), traffic: traffic.clone() }))
}

async fn connect(place: &PlacedServer, connecting: &Connecting) -> Result<Client, String> {
    let replica = Replica::resolve(&place.address).await.map_err(|error| error.to_string())?;
    let replica = Replica { server_name: place.name.clone(), ..replica };
    let options = Options { replicas: vec![replica], ..connecting.options.clone() };
    Client::connect(options).await.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server() -> Server {
        Server::new(PlacedServer {
            address: "localhost:1".into(),
            name: "localhost".into(),
            ..PlacedServer::default()
        })
    }

    #[test]
    fn two_wrong_answers_close_to_each_other_take_a_server_out() {
        let far = server();
        for _ in 0..5 {
            far.judge(Verdict::Wrong);
            (1..limits::CANARY_WINDOW).for_each(|_| far.judge(Verdict::Right));
            assert!(!far.is_out());
        }
        let near = server();
        near.judge(Verdict::Wrong);
        (2..limits::CANARY_WINDOW).for_each(|_| near.judge(Verdict::Right));
        assert!(!near.is_out());
        near.judge(Verdict::Wrong);
        assert!(near.is_out());
        assert_eq!(near.counters.canaries_failed.get(), 2);
    }

    #[test]
    fn it_returns_after_enough_right_canaries_in_a_row() {
        let server = server();
        let wrong = || {
            server.judge(Verdict::Wrong);
            server.judge_whole(Verdict::Wrong);
        };
        let right = || {
            server.judge(Verdict::Right);
            server.judge_whole(Verdict::Right);
        };
        server.judge(Verdict::Wrong);
        server.judge(Verdict::Wrong);
        (1..limits::CANARIES_RIGHT_TO_RETURN).for_each(|_| right());
        wrong();
        (1..limits::CANARIES_RIGHT_TO_RETURN).for_each(|_| right());
        assert!(server.is_out());
        right();
        assert!(!server.is_out());
        // What was before does not count any more.
        server.judge(Verdict::Wrong);
        assert!(!server.is_out());
    }
}
