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

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::call::Call;
use super::connection::Client;
use super::exchange::{Heard, exchange, frame, query, refused};
use super::link::{Bundle, Dialer, Link};
use super::report::SentQuery;
use super::retry::{Event, FailedAttempt};
use super::round::{Hints, Routed, Unanswered};
use super::routes::Routes;
use crate::limits;
use crate::params::Shape;
use crate::wire::Status;
use crate::wire::message::{PirBatch, PirRequest, PirResponse, ReplyBody, RequestBody};

enum Way {
    Over(Arc<Link>),
    /// To the first of these replicas that answers.
    FirstOf(Vec<usize>, Arc<Dialer>),
}

/// What happens to a frame.
enum News {
    /// It goes out over this link, which was not known before.
    Connected(Arc<Link>),
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
    /// Over which it goes out, or is to go out.
    link: Option<Arc<Link>>,
    /// Of which frame it is the hedge, or a part of it.
    hedge_of: Option<usize>,
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
    /// How one that brought none failed, and over which link.
    failed: Option<(FailedAttempt, Arc<Link>)>,
}

/// The frames of a round.
struct SentFrames<'a> {
    call: &'a mut Call,
    hints: &'a Hints,
    unanswered: &'a mut Vec<Unanswered>,
    all: Vec<SentFrame>,
    open: HashMap<usize, Open>,
    running: JoinSet<()>,
    sender: mpsc::UnboundedSender<(usize, News)>,
    news: mpsc::UnboundedReceiver<(usize, News)>,
    /// Frames that wait until their link has fewer in flight.
    waiting: HashMap<usize, VecDeque<Routed>>,
    /// How many frames there are over the link of each replica.
    in_flight: HashMap<usize, usize>,
    heard: bool,
    /// Why a link seems lost: nothing more is asked over those of these replicas.
    lost: HashMap<usize, String>,
}

impl<'a> SentFrames<'a> {
    fn new(call: &'a mut Call, hints: &'a Hints, unanswered: &'a mut Vec<Unanswered>) -> Self {
        let (sender, news) = mpsc::unbounded_channel(); // bounded by what was asked for
        Self {
            call,
            hints,
            unanswered,
            all: Vec::new(),
            open: HashMap::new(),
            running: JoinSet::new(),
            sender,
            news,
            waiting: HashMap::new(),
            in_flight: HashMap::new(),
            heard: false,
            lost: HashMap::new(),
        }
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

    /// Whether another frame may go out over a link that lets so many be in flight.
    fn may_send(&self, link: &Arc<Link>, in_flight: usize) -> bool {
        let over = self.in_flight.get(&link.replica).copied().unwrap_or(0);
        over < in_flight && !self.lost.contains_key(&link.replica)
    }

    /// The frames that are to be hedged at a time, the longest quiet first.
    fn next_hedge(&self, after: Duration) -> Option<(Instant, usize)> {
        let hedged: HashSet<usize> = self.running().filter_map(|frame| frame.hedge_of).collect();
        if hedged.len() >= limits::HEDGES_IN_FLIGHT_MAX {
            return None;
        }
        let open = |frame: &SentFrame| frame.unheard.values().any(|at| self.open.contains_key(at));
        let quiet = self.all.iter().enumerate().filter_map(|(number, frame)| {
            let is_hedge = frame.hedge_of.is_some();
            let waits = !(frame.ended || is_hedge || frame.hedged) && open(frame);
            Some((frame.quiet_since.filter(|_| waits)? + after, number))
        });
        quiet.min()
    }

    /// A frame brought no answer to a look-up. That counts once no other frame may bring one; what
    /// came of a hedge counts least.
    fn fail(&mut self, lookup: usize, failed: (FailedAttempt, Arc<Link>), is_hedge: bool) {
        let Some(open) = self.open.get_mut(&lookup) else { return };
        let (failed, link) = open.failed.take().filter(|_| is_hedge).unwrap_or(failed);
        open.frames -= 1;
        if open.frames == 0 {
            self.open.remove(&lookup);
            self.unanswered.push(Unanswered { lookup, failed, link });
        } else {
            open.failed = Some((failed, link));
        }
    }
}

impl Client {
    /// Sends queries whose bundles the server has, and keeps the answers, undecoded.
    pub(super) async fn send_queries(
        &mut self,
        call: &mut Call,
        ready: &[Routed],
        hints: &Hints,
        unanswered: &mut Vec<Unanswered>,
    ) {
        let query_bytes = call.view().parameters.shape().query_bytes();
        let mut frames = SentFrames::new(call, hints, unanswered);
        for Routed { link, lookups } in ready {
            let size = self.allowance.frame_queries(lookups.len(), query_bytes);
            let part = |part: &[usize]| Routed { link: link.clone(), lookups: part.to_vec() };
            let parts = lookups.chunks(size.max(1)).map(part).collect();
            frames.waiting.insert(link.replica, parts);
        }
        loop {
            self.send_waiting(&mut frames);
            if frames.are_over() {
                break;
            }
            let hedges = self.hedging && self.routes.dialer.replica_count() > 1;
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
        let lost = frames.lost.into_values().next();
        self.outage.note(frames.heard, lost.as_deref());
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

    /// As many frames as each server lets us have in flight. When a connection seems lost, what was
    /// not asked yet is not asked over it: it waits for the next round.
    fn send_waiting(&self, frames: &mut SentFrames<'_>) {
        let mut waiting = std::mem::take(&mut frames.waiting);
        for parts in waiting.values_mut() {
            while let Some(Routed { link, lookups }) =
                parts.pop_front_if(|part| frames.may_send(&part.link, self.allowance.in_flight))
            {
                self.send(frames, &lookups, Way::Over(link), None);
            }
        }
        frames.waiting = waiting;
    }

    fn send(
        &self,
        frames: &mut SentFrames<'_>,
        lookups: &[usize],
        way: Way,
        hedge_of: Option<usize>,
    ) {
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
            Way::Over(link) => {
                *frames.in_flight.entry(link.replica).or_default() += 1;
                Some(link.clone())
            }
            Way::FirstOf(..) => None,
        };
        let (number, sender) = (frames.all.len(), frames.sender.clone());
        frames.all.push(SentFrame { unheard, link, hedge_of, ..SentFrame::default() });
        let (shape, wait) = (*frames.call.view().parameters.shape(), self.options.answer_timeout);
        frames.running.spawn(async move {
            // Nobody listens once every look-up has its answer.
            let tell = move |news| drop(sender.send((number, news)));
            let bundles = bundles.into_iter().collect();
            let ended = carry(way, bundles, requests, shape, wait, tell.clone()).await;
            tell(News::Ended(ended));
        });
    }

    /// Sends what a frame has no replies to once more, to the other replicas that have its shards.
    fn hedge(&mut self, frames: &mut SentFrames<'_>, number: usize) {
        let frame = &mut frames.all[number];
        frame.hedged = true;
        let Some(slow) = frame.link.as_ref().map(|link| link.replica) else { return };
        let mut by_order: BTreeMap<Vec<usize>, Vec<usize>> = BTreeMap::new();
        for &lookup in frame.unheard.values().filter(|lookup| frames.open.contains_key(lookup)) {
            let mut order = self.routes.order(frames.call.shard(lookup));
            order.retain(|&replica| replica != slow);
            if !order.is_empty() {
                by_order.entry(order).or_default().push(lookup);
            }
        }
        self.report.hedges += u32::from(!by_order.is_empty());
        for (order, mut lookups) in by_order {
            lookups.sort_unstable(); // an order that is random already, and not a map's
            let dialer = &self.routes.dialer;
            let way = match order.iter().find_map(|&replica| dialer.open(replica)) {
                Some(link) => Way::Over(link),
                None => Way::FirstOf(order, dialer.clone()),
            };
            tracing::debug!(queries = lookups.len(), "a slow frame is sent to another replica too");
            self.send(frames, &lookups, way, Some(number));
        }
    }

    fn hear(&mut self, frames: &mut SentFrames<'_>, number: usize, news: News) {
        let frame = &mut frames.all[number];
        match news {
            News::Connected(link) => {
                *frames.in_flight.entry(link.replica).or_default() += 1;
                frame.link = Some(link);
            }
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
                let is_hedge = frame.hedge_of.is_some();
                frames.heard |= failed.event == Event::NotAllowed;
                // A replica that leaves a hedge without answers gets no more of them.
                self.hedging &= !is_hedge || frame.unheard.is_empty();
                // A hedge whose connection could not be made was not sent: the frame itself counts.
                let of = frame.hedge_of.unwrap_or(number);
                let link = frame.link.clone().or_else(|| frames.all[of].link.clone());
                let Some(link) = link else { return };
                let frame = &mut frames.all[number];
                if frame.link.is_some() {
                    *frames.in_flight.entry(link.replica).or_default() -= 1;
                }
                if failed.event != Event::StreamLost && frame.link.is_some() {
                    frames.lost.entry(link.replica).or_insert_with(|| failed.detail.clone());
                }
                let failed = frame.whole.take().unwrap_or(failed);
                for lookup in std::mem::take(&mut frame.unheard).into_values() {
                    frames.fail(lookup, (failed.clone(), link.clone()), is_hedge);
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
        let (is_hedge, Some(link)) = (frame.hedge_of.is_some(), frame.link.clone()) else { return };
        let Some(query) = frames.call.query(lookup) else { return }; // answered by the other one
        let succeeds = status == Status::ResponseSuccess.code();
        if let Some(hint) = frames.hints.get(&query.shard).filter(|_| succeeds) {
            frames.open.remove(&lookup);
            let response_bytes = answer.encrypted_response.iter().map(Vec::len).sum();
            self.sent.push((frames.call.place(lookup), SentQuery::new(query, response_bytes)));
            frames.call.keep(lookup, answer, hint.clone());
            let slow = frames.all[number].hedge_of.and_then(|of| frames.all[of].link.clone());
            if let Some(slow) = slow {
                self.turn_away(frames, &slow);
            }
            return;
        }
        if status == Status::KeyMissing.code() {
            link.forget(&query.uid);
        }
        self.hedging &= !is_hedge;
        let failed = refused(status, answer.retry_after_ms, &answer.detail);
        let failed = failed.of_epochs(query.epoch, answer.epoch);
        frames.fail(lookup, (failed, link), is_hedge);
    }

    /// Another replica has answered a hedge: from now on this one is asked after the others, and
    /// what waits for it goes to them.
    fn turn_away(&mut self, frames: &mut SentFrames<'_>, slow: &Arc<Link>) {
        let first = |routes: &Routes, shard| routes.order(Some(shard)).first().copied();
        let waiting = frames.waiting.remove(&slow.replica).unwrap_or_default();
        self.routes.give_up(slow.replica, None);
        for Routed { lookups, .. } in waiting {
            let mut by_replica: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
            for lookup in lookups {
                let shard = frames.call.shard(lookup);
                let replica = shard.and_then(|shard| first(&self.routes, shard));
                by_replica.entry(replica.unwrap_or(slow.replica)).or_default().push(lookup);
            }
            for (replica, lookups) in by_replica {
                let link = self.routes.dialer.open(replica).unwrap_or_else(|| slow.clone());
                let part = Routed { link, lookups };
                frames.waiting.entry(part.link.replica).or_default().push_back(part);
            }
        }
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
        Way::FirstOf(replicas, dialer) => match dialer.first_of(replicas).await {
            Ok(link) => {
                tell(News::Connected(link.clone()));
                link
            }
            Err(error) => return error.into(),
        },
    };
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
