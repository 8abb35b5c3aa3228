//! Sends the queries of a round in frames, and a slow frame a second time to another replica
//! (docs/wire.md, "Hedging and lost servers").
//!
//! A hedge is the identical encrypted vectors under the identical bundles, with other nonces.
//! Whether there is one depends on time and on the state of connections: nothing is decoded before
//! the call ends. A frame that arrived whole and brings nothing for a quarter of the answer
//! time-out is hedged once, [`limits::HEDGES_IN_FLIGHT_MAX`] frames at a time; a replica that
//! refuses a hedge gets no more in this call, so that hedges do not add to an overload. The first
//! answer to a query counts. The other stream is left to its end, because to reset it would say
//! that an answer came.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OnceCell, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::call::Call;
use super::connection::Client;
use super::exchange::{Heard, exchange, frame, query, refused};
use super::link::{Bundle, Dialer, Link, Spare};
use super::report::SentQuery;
use super::retry::{Event, FailedAttempt};
use crate::limits;
use crate::params::Shape;
use crate::wire::Status;
use crate::wire::message::{PirBatch, PirRequest, PirResponse, ReplyBody, RequestBody};

/// Hints of a round by shard.
pub(super) type Hints = HashMap<u32, Arc<[u8]>>;

/// The look-ups of a round that got no answer.
pub(super) type Unanswered = Vec<(usize, FailedAttempt)>;

enum Way {
    Over(Arc<Link>),
    Spare { link: Spare, dialer: Arc<Dialer>, not: usize },
}

/// What happens to a frame.
enum News {
    /// It goes out over this link.
    Over(Arc<Link>),
    /// A bundle went before it: bytes of the request and of the reply.
    Bundle(u64, u64),
    /// It goes out; its bytes.
    Sent(u64),
    /// The server has all of it.
    Arrived,
    /// A reply and its bytes.
    Reply(Box<ReplyBody>, u64),
    /// How the attempt failed for queries without a reply.
    Ended(FailedAttempt),
}

#[derive(Default)]
struct SentFrame {
    /// Look-ups without a reply, by nonce.
    unheard: HashMap<String, usize>,
    link: Option<Arc<Link>>,
    is_hedge: bool,
    hedged: bool,
    ended: bool,
    /// Since when it arrived, or brought its last reply.
    quiet_since: Option<Instant>,
    /// What the server said of the frame as a whole.
    whole: Option<FailedAttempt>,
}

/// A look-up that is asked for and has no answer.
#[derive(Default)]
struct Open {
    /// Frames that may still bring one.
    frames: usize,
    /// How one that brought none failed.
    failed: Option<FailedAttempt>,
}

/// The frames of a round.
struct SentFrames<'a> {
    call: &'a mut Call,
    hints: &'a Hints,
    unanswered: &'a mut Unanswered,
    all: Vec<SentFrame>,
    open: HashMap<usize, Open>,
    running: JoinSet<()>,
    sender: mpsc::UnboundedSender<(usize, News)>,
    news: mpsc::UnboundedReceiver<(usize, News)>,
    heard: bool,
    /// Why the link in use seems lost: nothing more is asked over it.
    lost: Option<String>,
}

impl<'a> SentFrames<'a> {
    fn new(call: &'a mut Call, hints: &'a Hints, unanswered: &'a mut Unanswered) -> Self {
        let (sender, news) = mpsc::unbounded_channel(); // bounded by what was asked for
        let (all, open, running) = (Vec::new(), HashMap::new(), JoinSet::new());
        let (heard, lost) = (false, None);
        Self { call, hints, unanswered, all, open, running, sender, news, heard, lost }
    }

    fn running(&self) -> impl Iterator<Item = &SentFrame> {
        self.all.iter().filter(|frame| !frame.ended)
    }

    /// Whether every look-up has an answer or none to wait for. A frame whose replies are all there
    /// is waited for, so that its stream ends as it should.
    fn are_over(&self) -> bool {
        let whole = |frame: &SentFrame| frame.unheard.is_empty();
        let mut running = self.running().peekable();
        running.peek().is_none() || (self.open.is_empty() && !running.any(whole))
    }

    fn over(&self, link: &Arc<Link>) -> usize {
        let over = |frame: &&SentFrame| frame.link.as_ref().is_some_and(|l| Arc::ptr_eq(l, link));
        self.running().filter(over).count()
    }

    /// The frames that are to be hedged at a time, the longest quiet first.
    fn next_hedge(&self, after: Duration) -> Option<(Instant, usize)> {
        if self.running().filter(|frame| frame.is_hedge).count() >= limits::HEDGES_IN_FLIGHT_MAX {
            return None;
        }
        let open = |frame: &SentFrame| frame.unheard.values().any(|at| self.open.contains_key(at));
        let quiet = self.all.iter().enumerate().filter_map(|(number, frame)| {
            let waits = !(frame.ended || frame.is_hedge || frame.hedged) && open(frame);
            Some((frame.quiet_since.filter(|_| waits)? + after, number))
        });
        quiet.min()
    }

    /// A frame brought no answer to a look-up. That counts once no other frame may bring one; what
    /// came of a hedge counts least.
    fn fail(&mut self, lookup: usize, failed: FailedAttempt, is_hedge: bool) {
        let Some(open) = self.open.get_mut(&lookup) else { return };
        let failed = open.failed.take().filter(|_| is_hedge).unwrap_or(failed);
        open.frames -= 1;
        if open.frames == 0 {
            self.open.remove(&lookup);
            self.unanswered.push((lookup, failed));
        } else {
            open.failed = Some(failed);
        }
    }
}

impl Client {
    /// Sends queries whose bundles the server has, and keeps the answers, undecoded.
    pub(super) async fn send_queries(
        &mut self,
        call: &mut Call,
        ready: &[usize],
        hints: &Hints,
        unanswered: &mut Unanswered,
    ) {
        let query_bytes = call.view().parameters.shape().query_bytes();
        let size = self.allowance.frame_queries(ready.len(), query_bytes);
        let mut waiting: VecDeque<&[usize]> = ready.chunks(size).collect();
        let mut frames = SentFrames::new(call, hints, unanswered);
        loop {
            self.send_waiting(&mut frames, &mut waiting);
            if frames.are_over() {
                break;
            }
            let hedges = self.hedging && self.dialer.replica_count() > 1;
            let after = self.options.answer_timeout / limits::HEDGE_AFTER_PART;
            let hedge = frames.next_hedge(after).filter(|_| hedges);
            let hedging = async {
                let Some((at, number)) = hedge else { return std::future::pending().await };
                sleep_until(at).await;
                number
            };
            tokio::select! {
                biased;
                Some((number, news)) = frames.news.recv() => {
                    self.hear(&mut frames, number, news);
                }
                number = hedging => self.hedge(&mut frames, number),
            }
        }
        self.outage.note(frames.heard, frames.lost.as_deref());
        self.leave(frames.running);
    }

    /// Frames that found their answers elsewhere go on to their ends, but not for ever.
    fn leave(&mut self, mut running: JoinSet<()>) {
        while self.left.try_join_next().is_some() {}
        while running.try_join_next().is_some() {}
        if !running.is_empty() {
            let longest = self.options.answer_timeout;
            self.left.spawn(async move {
                let ends = async { while running.join_next().await.is_some() {} };
                let _ = timeout(longest, ends).await;
            });
        }
    }

    /// As many frames as the server lets us have in flight. When the connection seems lost, what
    /// was not asked yet is not asked over it: it waits for the next round.
    fn send_waiting(&self, frames: &mut SentFrames<'_>, waiting: &mut VecDeque<&[usize]>) {
        let Some(link) = &self.link else { return };
        while frames.lost.is_none() && frames.over(link) < self.allowance.in_flight {
            let Some(lookups) = waiting.pop_front() else { break };
            self.send(frames, lookups, Way::Over(link.clone()), false);
        }
    }

    fn send(&self, frames: &mut SentFrames<'_>, lookups: &[usize], way: Way, is_hedge: bool) {
        let call = &*frames.call;
        let (mut unheard, mut requests) = (HashMap::new(), Vec::new());
        let mut bundles: HashMap<String, Arc<[u8]>> = HashMap::new();
        let deadline_ms = self.options.deadline.as_millis() as u32;
        for (nonce, &lookup) in lookups.iter().enumerate() {
            let (Some(prepared), Some((uid, bundle))) = (call.query(lookup), call.bundle(lookup))
            else {
                continue;
            };
            frames.open.entry(lookup).or_default().frames += 1;
            unheard.insert(nonce.to_string(), lookup);
            bundles.insert(uid.to_owned(), bundle);
            requests.push(query(nonce, prepared, deadline_ms));
        }
        let link = match &way {
            Way::Over(link) => Some(link.clone()),
            Way::Spare { .. } => None,
        };
        let (number, sender) = (frames.all.len(), frames.sender.clone());
        frames.all.push(SentFrame { unheard, link, is_hedge, ..SentFrame::default() });
        let (shape, wait) = (*frames.call.view().parameters.shape(), self.options.answer_timeout);
        frames.running.spawn(async move {
            // Nobody listens once every look-up has its answer.
            let tell = move |news| drop(sender.send((number, news)));
            let bundles = bundles.into_iter().collect();
            let ended = carry(way, bundles, requests, shape, wait, tell.clone()).await;
            tell(News::Ended(ended));
        });
    }

    /// Sends what a frame has no replies to once more, to another replica.
    fn hedge(&mut self, frames: &mut SentFrames<'_>, number: usize) {
        let frame = &mut frames.all[number];
        frame.hedged = true;
        let Some(slow) = frame.link.clone() else { return };
        let mut lookups: Vec<usize> = frame.unheard.values().copied().collect();
        lookups.retain(|lookup| frames.open.contains_key(lookup));
        lookups.sort_unstable(); // an order that is random already, and not a map's
        let usable = |link: &&Arc<Link>| link.is_open() && link.replica != slow.replica;
        let links = [self.link.as_ref(), self.spare.get()];
        let way = if let Some(link) = links.into_iter().flatten().find(usable) {
            Way::Over(link.clone())
        } else {
            // One that is being made is kept.
            if self.spare.initialized() {
                self.spare = Spare::default();
            }
            let (link, dialer) = (self.spare.clone(), self.dialer.clone());
            Way::Spare { link, dialer, not: slow.replica }
        };
        self.report.hedges += 1;
        tracing::debug!(queries = lookups.len(), "a slow frame is sent to another replica too");
        self.send(frames, &lookups, way, true);
    }

    fn hear(&mut self, frames: &mut SentFrames<'_>, number: usize, news: News) {
        let frame = &mut frames.all[number];
        match news {
            News::Over(link) => frame.link = Some(link),
            News::Bundle(bytes_up, bytes_down) => {
                self.report.bundles += 1;
                self.report.count(bytes_up, bytes_down);
            }
            News::Sent(bytes) => self.report.bytes_up += bytes,
            News::Arrived => frame.quiet_since = Some(Instant::now()),
            News::Reply(reply, bytes) => {
                frame.quiet_since = Some(Instant::now());
                frames.heard = true;
                self.report.bytes_down += bytes;
                if let ReplyBody::Answer(answer) = *reply {
                    self.take_answer(frames, number, answer);
                }
            }
            News::Ended(failed) => {
                frame.ended = true;
                let in_use = self.link.as_ref().zip(frame.link.as_ref());
                let in_use = in_use.is_some_and(|(link, over)| Arc::ptr_eq(link, over));
                frames.heard |= failed.event == Event::NotAllowed;
                if in_use && failed.event != Event::StreamLost {
                    frames.lost.get_or_insert_with(|| failed.detail.clone());
                }
                // A replica that leaves a hedge without answers gets no more of them.
                self.hedging &= !frame.is_hedge || frame.unheard.is_empty();
                let (failed, is_hedge) = (frame.whole.take().unwrap_or(failed), frame.is_hedge);
                for lookup in std::mem::take(&mut frame.unheard).into_values() {
                    frames.fail(lookup, failed.clone(), is_hedge);
                }
            }
        }
    }

    fn take_answer(&mut self, frames: &mut SentFrames<'_>, number: usize, answer: PirResponse) {
        let frame = &mut frames.all[number];
        let status = answer.response_status;
        if answer.nonce.is_empty() {
            frame.whole = Some(refused(status, answer.retry_after_ms, &answer.detail));
            return;
        }
        let Some(lookup) = frame.unheard.remove(&answer.nonce) else { return };
        let (is_hedge, link) = (frame.is_hedge, frame.link.clone());
        let Some(query) = frames.call.query(lookup) else { return }; // answered by the other one
        let succeeds = status == Status::ResponseSuccess.code();
        if let Some(hint) = frames.hints.get(&query.shard).filter(|_| succeeds) {
            frames.open.remove(&lookup);
            let response_bytes = answer.encrypted_response.iter().map(Vec::len).sum();
            self.sent.push((frames.call.place(lookup), SentQuery::new(query, response_bytes)));
            frames.call.keep(lookup, answer, hint.clone());
            if is_hedge && self.turn_to(link.as_ref()) {
                frames.lost = None;
            }
            return;
        }
        if let (true, Some(link)) = (status == Status::KeyMissing.code(), link) {
            link.forget(&query.uid);
        }
        self.hedging &= !is_hedge;
        let failed = refused(status, answer.retry_after_ms, &answer.detail);
        frames.fail(lookup, failed, is_hedge);
    }

    /// The replica that answered a hedge is asked from now on, and the slow one is the spare.
    fn turn_to(&mut self, answered: Option<&Arc<Link>>) -> bool {
        let Some(answered) = answered.filter(|link| link.is_open()) else { return false };
        let Some(slow) = self.link.clone() else { return false };
        if slow.replica == answered.replica {
            return false;
        }
        self.spare = Arc::new(OnceCell::new_with(Some(slow)));
        self.link = Some(answered.clone());
        true
    }
}

/// Takes one frame to a server, its bundles first where the server has not seen them. Back comes
/// how the attempt failed for queries without a reply.
async fn carry(
    way: Way,
    bundles: Vec<Bundle>,
    requests: Vec<PirRequest>,
    shape: Shape,
    wait: Duration,
    tell: impl Fn(News) + Clone + Send + Sync + 'static,
) -> FailedAttempt {
    let link = match way {
        Way::Over(link) => link,
        Way::Spare { link, dialer, not } => {
            let dial = async || dialer.dial_other_than(not).await.map(Arc::new);
            match link.get_or_try_init(dial).await {
                Ok(link) => link.clone(),
                Err(error) => return error.into(),
            }
        }
    };
    tell(News::Over(link.clone()));
    let told = tell.clone();
    let count = move |bytes_up, bytes_down| told(News::Bundle(bytes_up, bytes_down));
    if let Err(failed) = link.bring_all(bundles, shape, wait, count).await {
        return failed;
    }
    let replies_max = requests.len();
    let frame = frame(RequestBody::Batch(PirBatch { requests }));
    tell(News::Sent(frame.len() as u64));
    let mut hear = |heard| match heard {
        Heard::Opened => {}
        Heard::Arrived => tell(News::Arrived),
        Heard::Reply(reply, bytes) => tell(News::Reply(Box::new(reply), bytes as u64)),
    };
    exchange(&link.connection, frame, Some(shape), replies_max, wait, &mut hear).await
}
