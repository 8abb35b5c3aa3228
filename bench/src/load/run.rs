//! Runs: frames are sent when they are due, whatever the server does, over a few connections.
//!
//! A thread of its own keeps the time (an async runtime's clock is too coarse); a frame's bundles
//! are sent [`LEAD`] before it. What waits for the server (for a stream, for a bundle's
//! acknowledgement) counts as latency; what the generator sends late counts as lag. Only what a
//! dead server left unanswered is sent again, to the next replica, in the identical bytes. Nothing
//! that is sent depends on anything decoded.

use std::collections::VecDeque;
use std::iter::Peekable;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::arrivals::Draws;
use super::ledger::{CONNECTION_CLASS, Ledger, Measure, TIME_OUT_CLASS};
use super::options::{Goal, LoadOptions};
use super::prepare::{Asked, Frame, Maker, Preparing, Stock};
use super::report::{Prepared, Report, SCHEMA, ServerFacts, Trial, TrialEnd};
use super::search::{self, BEYOND};
use super::server_side::Look;
use super::verify::{self, Hints, Job};
use crate::Failed;
use crate::record::Head;
use sotto::client::frames::{BundleFrame, Event, FailedAttempt, FrameSender, Heard};
use sotto::client::{Client, Options};
use sotto::wire::Status;
use sotto::wire::message::{PirResponse, ReplyBody};

/// How long before its first query a bundle is sent.
const LEAD: Duration = Duration::from_millis(500);
/// How soon the pacer looks again where no group was in stock.
const RETRY: Duration = Duration::from_millis(5);
/// Most of a reason that becomes part of an error's class.
const REASON_CHARS_MAX: usize = 100;

/// Runs a command, with front-ends that connect as `client` says; `shown` is called with each run
/// as soon as it is over.
///
/// # Errors
/// An option is out of bounds, a front-end cannot connect, or the hints or metrics cannot be had.
pub async fn load(
    client: Options,
    options: LoadOptions,
    goal: Goal,
    shown: &mut dyn FnMut(&Trial),
) -> Result<Report, Failed> {
    options.check(goal)?;
    let head = Head::new(SCHEMA);
    let (seed, objective_ms) = (options.seed, options.objective.as_secs_f64() * 1e3);
    let mut rig = Rig::connect(client, options).await?;
    let server = ServerFacts::of(rig.senders[0].parameters());
    let mut trials = Vec::new();
    let mut run = async |rate: f64| {
        let trial = rig.trial(rate).await?;
        shown(&trial);
        let verdict = trial.verdict();
        trials.push(trial);
        Ok::<_, Failed>(verdict)
    };
    let limit = match goal {
        Goal::Limit(rate) => search::find(rate, &mut run).await?,
        Goal::Rate(rate) => run(rate).await.map(|_| None)?,
    };
    for factor in limit.iter().flat_map(|limit| BEYOND.map(|factor| factor * limit.rate)) {
        run(factor).await?;
    }
    rig.senders.clear();
    for client in rig.clients {
        drop(client.close().await);
    }
    Ok(Report { head, seed, server, objective_ms, trials, limit })
}

/// Connections, queries in stock and hints: what all runs of a command share.
struct Rig {
    clients: Vec<Client>,
    senders: Vec<FrameSender>,
    maker: Arc<Maker>,
    preparing: Preparing,
    hints: Hints,
    options: LoadOptions,
    trials: u64,
}

impl Rig {
    async fn connect(mut client_options: Options, options: LoadOptions) -> Result<Self, Failed> {
        let (mut clients, mut senders) = (Vec::new(), Vec::new());
        for _ in 0..options.front_ends {
            let mut client = Client::connect(client_options.clone()).await?;
            // Later connections must find what the first one did.
            client_options.pins = client.pins().clone();
            senders.push(client.frame_sender().await?);
            clients.push(client);
        }
        let sender = &senders[0];
        let maker = Arc::new(Maker::new(sender.clone(), &options)?);
        let hints = match options.verify > 0.0 {
            true => verify::fetch_hints(sender).await?,
            false => Hints::default(),
        };
        if let Some(endpoint) = &options.metrics {
            Look::at(endpoint).await?.check(sender.parameters())?;
        }
        let preparing = Preparing::start(&maker, options.memory_bytes)?;
        Ok(Self { clients, senders, maker, preparing, hints, options, trials: 0 })
    }

    /// Runs at `rate` queries a second until the intervals are narrow or the time is up.
    async fn trial(&mut self, rate: f64) -> Result<Trial, Failed> {
        let LoadOptions { window, objective, lag_max, batch, time, .. } = self.options;
        let warm_up = self.options.warm_up.max(LEAD).as_secs_f64() / window.as_secs_f64();
        let warm_up = warm_up.ceil() as usize;
        let measure = Measure { window, warm_up, objective, lag_max };
        let warm_up = window * warm_up as u32;
        let wanted = rate * (warm_up + time).as_secs_f64();
        let groups = (wanted / self.maker.group_queries() as f64).ceil() as u64;
        let groups = groups + self.senders.len() as u64;
        let (stock, begun) = (self.preparing.0.clone(), Instant::now());
        let (ready, bytes) = tokio::task::spawn_blocking(move || stock.prepare(groups)).await??;
        let queries = ready * self.maker.group_queries() as u64;
        let prepared = Prepared { queries, bytes, seconds: begun.elapsed().as_secs_f64() };
        for (sender, client) in self.senders.iter_mut().zip(&mut self.clients) {
            *sender = client.frame_sender().await?; // a new one where it was silent for too long
        }

        let draws = Draws::new(self.options.seed, "arrivals", self.trials);
        self.trials += 1;
        let times = self.options.arrivals.times(rate / batch as f64, draws);
        let ledger = Arc::new(Ledger::new(Instant::now(), measure));
        let (jobs, verifying) =
            verify::start(self.maker.clone(), self.hints.clone(), ledger.clone())?;
        let (running, mut finished) = mpsc::channel::<()>(1);
        let (stop, stopped) = sync_channel(0);
        let senders = self.senders.iter().cloned();
        let pacer = Pacer {
            times: times.peekable(),
            stock: self.preparing.0.clone(),
            front_ends: senders.map(|one| (FrontEnd::new(one), VecDeque::new())).collect(),
            batch: batch as u64,
            exchanges: Arc::new(Exchanges { ledger: ledger.clone(), jobs, _running: running }),
            runtime: Handle::current(),
            staged: VecDeque::new(),
        };
        let pacer =
            thread::Builder::new().name("pacer".into()).spawn(move || pacer.run(&stopped))?;
        let first = self.look(ledger.begin + warm_up);
        let (first, (ended, until)) = tokio::join!(first, wait(&ledger, time));
        let last = self.look(Instant::now()).await;
        drop(stop);
        finished.recv().await; // none: pacer and exchanges have dropped their senders
        let joined = tokio::task::spawn_blocking(move || pacer.join().and(verifying.join()));
        joined.await?.map_err(|_| "this is a bug: a thread of the load generator panicked")?;
        let server = last?.zip(first?).map(|(last, first)| last.since(&first)).transpose()?;
        let end = TrialEnd { ended, prepared, verified: *ledger.verified(), server };
        Ok(Trial::new(rate, measure, &ledger.close(until), end))
    }

    /// Reads the server's metrics at a time, where it said them.
    async fn look(&self, at: Instant) -> Result<Option<Look>, Failed> {
        let Some(endpoint) = &self.options.metrics else { return Ok(None) };
        tokio::time::sleep_until(at.into()).await;
        Look::at(endpoint).await.map(Some)
    }
}

/// Waits, window by window, until the run may end; how it did, and when.
async fn wait(ledger: &Ledger, time: Duration) -> (&'static str, Duration) {
    let Measure { window, warm_up, .. } = ledger.measure;
    let mut until = window * warm_up as u32;
    let last = until + time;
    loop {
        until += window;
        tokio::time::sleep_until((ledger.begin + until).into()).await;
        if ledger.settled(until) {
            return ("intervals narrow", until);
        }
        if until >= last {
            return ("time up", until);
        }
    }
}

/// Whether the server has a group's bundles: not yet, yes, or no and why.
type Known = watch::Receiver<Option<Result<(), String>>>;

/// A connection, and the bundles that were sent on it last.
#[derive(Clone)]
struct FrontEnd {
    sender: FrameSender,
    bundles: Arc<[BundleFrame]>,
    known: Known,
}

impl FrontEnd {
    fn new(sender: FrameSender) -> Self {
        Self { sender, bundles: Arc::new([]), known: watch::channel(None).1 }
    }
}

struct Staged {
    at: Duration,
    front_end: FrontEnd,
    frame: Frame,
}

struct Pacer<T: Iterator<Item = Duration>> {
    times: Peekable<T>,
    stock: Arc<Stock>,
    /// Each with the frames of its group that are left, the next to send first.
    front_ends: VecDeque<(FrontEnd, VecDeque<Frame>)>,
    batch: u64,
    exchanges: Arc<Exchanges>,
    runtime: Handle,
    staged: VecDeque<Staged>,
}

impl<T: Iterator<Item = Duration>> Pacer<T> {
    /// Sends what is due until the other side of `stopped` is dropped.
    fn run(mut self, stopped: &Receiver<()>) {
        let begin = self.exchanges.ledger.begin;
        loop {
            let fetched = self.stage();
            while let Some(staged) = self.staged.pop_front_if(|staged| staged.at <= begin.elapsed())
            {
                let exchanges = self.exchanges.clone();
                self.runtime.spawn(async move { exchanges.send(staged).await });
            }
            let mut next = self.times.peek().map_or(Duration::MAX, |&at| match fetched {
                true => at, // staged when it is LEAD before its time: at begin + at
                false => begin.elapsed() + RETRY,
            });
            if let Some(staged) = self.staged.front() {
                next = next.min(staged.at);
            }
            let left = next.saturating_sub(begin.elapsed());
            if !matches!(stopped.recv_timeout(left), Err(RecvTimeoutError::Timeout)) {
                break;
            }
        }
        let (end, ledger) = (begin.elapsed(), &self.exchanges.ledger);
        for staged in self.staged.iter().take_while(|staged| staged.at <= end) {
            ledger.never_sent(staged.at, self.batch);
        }
        while let Some(at) = self.times.next_if(|&at| at + LEAD <= end) {
            ledger.planned(at + LEAD, self.batch);
            ledger.never_sent(at + LEAD, self.batch);
        }
    }

    /// Gives the frames of the next [`LEAD`] their time; false when none was there to be given
    /// one. The first frame is due LEAD after the beginning.
    fn stage(&mut self) -> bool {
        let begin = self.exchanges.ledger.begin;
        while self.times.peek().is_some_and(|&at| at <= begin.elapsed()) {
            let (front_end, frames) = &mut self.front_ends[0];
            if frames.is_empty() {
                let Some(group) = self.stock.take() else { return false };
                let (uploaded, known) = watch::channel(None);
                (*frames, front_end.bundles, front_end.known) =
                    (group.frames, group.bundles.into(), known);
                let (sender, bundles) = (front_end.sender.clone(), front_end.bundles.clone());
                self.runtime.spawn(async move {
                    let _ = uploaded.send(Some(upload(sender, &bundles).await));
                });
            }
            let at = self.times.next().expect("this is a bug: a time was peeked") + LEAD;
            let frame = frames.pop_front().expect("this is a bug: a group without frames");
            self.exchanges.ledger.planned(at, frame.queries.len() as u64);
            self.staged.push_back(Staged { at, front_end: front_end.clone(), frame });
            self.front_ends.rotate_left(1);
        }
        true
    }
}

/// Sends bundles, and waits until the server has all of them.
async fn upload(sender: FrameSender, bundles: &[BundleFrame]) -> Result<(), String> {
    let mut asking = JoinSet::new();
    for bundle in bundles {
        let (sender, bundle) = (sender.clone(), bundle.clone());
        asking.spawn(async move { sender.upload(&bundle).await });
    }
    let ended: Result<(), String> = asking.join_all().await.into_iter().collect();
    ended.map_err(|reason| format!("bundle: {}", plain(&reason)))
}

/// What exchanges share; dropped by the last of them.
struct Exchanges {
    ledger: Arc<Ledger>,
    jobs: SyncSender<Job>,
    _running: mpsc::Sender<()>,
}

impl Exchanges {
    async fn send(&self, staged: Staged) {
        let Staged { at, front_end: FrontEnd { sender, bundles, mut known }, frame } = staged;
        let queries = frame.queries.len();
        self.ledger.begun(at, queries as u64, Instant::now());
        let answered = known.wait_for(Option::is_some).await.map(|known| known.clone());
        if let Ok(Some(Err(class))) = answered {
            self.ledger.failed(at, &class, queries as u64);
            return;
        }
        let Frame { bytes, queries: asked, held } = frame;
        let mut open: Vec<Option<Asked>> = asked.into_iter().map(Some).collect();
        let (mut sent, mut whole) = (None, None);
        let mut hear = |heard| match heard {
            Heard::Opened => sent = Some(Instant::now()),
            Heard::Reply(ReplyBody::Answer(answer), _) if answer.nonce.is_empty() => {
                whole = Some(status_class(answer.response_status));
            }
            Heard::Reply(ReplyBody::Answer(answer), _) => {
                let nonce = answer.nonce.parse::<usize>().ok();
                let asked = nonce.and_then(|nonce| open.get_mut(nonce)?.take());
                if let (Some(asked), Some(sent)) = (asked, sent) {
                    self.take(&sender, at, sent, asked, answer);
                }
            }
            Heard::Reply(..) | Heard::Arrived => {}
        };
        let end = sender.send(bytes, &bundles, queries, &mut hear).await;
        drop(held);
        let left = open.iter().flatten().count() as u64;
        if left > 0 {
            let silence = if sent.is_some() { "no answer" } else { "no stream was granted" };
            self.ledger.failed(at, &whole.unwrap_or_else(|| end_class(&end, silence)), left);
        }
    }

    fn take(
        &self,
        sender: &FrameSender,
        at: Duration,
        sent: Instant,
        asked: Asked,
        answer: PirResponse,
    ) {
        let now = Instant::now();
        if answer.response_status != Status::ResponseSuccess.code() {
            self.ledger.failed(at, &status_class(answer.response_status), 1);
            return;
        }
        if sender.check_answer(asked.shard, &answer).is_err() {
            self.ledger.verified().wrong += 1;
            self.ledger.failed(at, "not an answer to the query", 1);
            return;
        }
        self.ledger.answered(at, sent, now);
        let Some(check) = asked.check else { return };
        let job = Job { check, shard: asked.shard, response: answer.encrypted_response };
        match self.jobs.try_send(job) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => self.ledger.verified().skipped += 1,
            // The verifying thread panicked, which the end of the run reports.
            Err(TrySendError::Disconnected(_)) => self.ledger.verified().wrong += 1,
        }
    }
}

fn status_class(status: i32) -> String {
    match Status::try_from(status) {
        Ok(status) => status.name().to_owned(),
        Err(_) => format!("status {status}"),
    }
}

/// Part of a reason is what a peer wrote.
fn plain(reason: &str) -> String {
    reason.chars().filter(|c| !c.is_control()).take(REASON_CHARS_MAX).collect()
}

fn end_class(end: &FailedAttempt, silence: &str) -> String {
    let detail = end.detail.trim_start_matches("stream lost: ");
    let reason = plain(detail.trim_start_matches("connection lost: "));
    match end.event {
        Event::TimedOut => format!("{TIME_OUT_CLASS}{silence}"),
        Event::ConnectionLost | Event::NotAllowed => format!("{CONNECTION_CLASS}{reason}"),
        Event::StreamLost | Event::Behind | Event::Refused { .. } => format!("stream: {reason}"),
    }
}
