//! Sends the queries of a round in frames, and a slow frame a second time to another replica
//! (docs/wire.md, "Hedging and lost servers").
//!
//! A hedge is the identical encrypted vectors under the identical bundles; only the nonces are
//! other ones. Whether there is one depends on time and on the state of connections, never on
//! anything decoded: nothing is decoded before the call ends. A frame that arrived whole and brings
//! nothing for a quarter of the answer time-out is hedged once, a few frames at a time
//! ([`limits::HEDGES_IN_FLIGHT_MAX`]); a replica that refuses a hedge gets no more in this call, so
//! that hedges do not add to an overload. The first answer to a query counts. The other stream is
//! left to its end, for to reset it would say that an answer came. Read next: [`super::retry`].

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OnceCell, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::Client;
use super::call::{Attempt, Call};
use super::exchange::{Unanswered, answered, describe, ended, lost, query, sent_query};
use super::link::{Bundle, Link, Traffic};
use super::net::{Dialer, Heard, exchange};
use super::retry::{Action, Event, RequestKind, action};
use crate::limits;
use crate::params::Shape;
use crate::wire::message::{PirBatch, PirResponse, ReplyBody, Request, RequestBody};
use crate::wire::{Bytes, encode_frame};

/// Hints of a round by shard.
pub(super) type Hints = HashMap<u32, Arc<[u8]>>;

/// A connection to another replica, made when the first hedge needs it.
pub(super) type Spare = Arc<OnceCell<Arc<Link>>>;

/// Where a frame goes.
enum Way {
    Over(Arc<Link>),
    Spare { link: Spare, dialer: Arc<Dialer>, not: usize },
}

/// What a frame says of itself.
enum Said {
    /// It goes out over this link.
    Over(Arc<Link>),
    /// The server has all of it.
    Arrived,
    Reply(Box<ReplyBody>),
    /// What went over the link since it last said so.
    Traffic(Traffic),
    /// How it ended for queries without a reply.
    Ended(Attempt),
}

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
    whole: Option<Attempt>,
}

/// A look-up that is asked for and has no answer.
#[derive(Default)]
struct Open {
    /// Frames that may still bring one.
    frames: usize,
    /// What a frame brought instead.
    refused: Option<Attempt>,
}

struct SentFrames {
    all: Vec<SentFrame>,
    open: HashMap<usize, Open>,
    running: JoinSet<()>,
    say: mpsc::UnboundedSender<(usize, Said)>,
    said: mpsc::UnboundedReceiver<(usize, Said)>,
    heard: bool,
    /// Why the link in use seems lost: nothing more is asked over it.
    lost: Option<String>,
}

impl SentFrames {
    fn new() -> Self {
        let (say, said) = mpsc::unbounded_channel(); // as much as was asked for
        let (all, open, running) = (Vec::new(), HashMap::new(), JoinSet::new());
        Self { all, open, running, say, said, heard: false, lost: None }
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

    /// A frame brought something else than an answer. It counts once no other may bring one; what
    /// came of a hedge then counts least.
    fn refuse(
        &mut self,
        lookup: usize,
        attempt: Attempt,
        is_hedge: bool,
        unanswered: &mut Unanswered,
    ) {
        let Some(open) = self.open.get_mut(&lookup) else { return };
        let refused = match open.refused.take() {
            Some(before) if is_hedge => before,
            _ => attempt,
        };
        open.frames -= 1;
        if open.frames == 0 {
            self.open.remove(&lookup);
            unanswered.push((lookup, refused));
        } else {
            open.refused = Some(refused);
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
        let mut frames = SentFrames::new();
        loop {
            self.send_waiting(&mut frames, &mut waiting, call);
            if frames.are_over() {
                break;
            }
            let hedge = match self.hedging && self.dialer.replica_count() > 1 {
                true => frames.next_hedge(self.hedge_after()),
                false => None,
            };
            let hedge_at = hedge.map_or_else(Instant::now, |(at, _)| at);
            tokio::select! {
                biased;
                Some((number, said)) = frames.said.recv() => {
                    self.hear(&mut frames, number, said, call, hints, unanswered);
                }
                () = sleep_until(hedge_at), if hedge.is_some() => {
                    let (_, number) = hedge.expect("this is a bug: no frame to hedge");
                    self.hedge(&mut frames, number, call);
                }
            }
        }
        match frames.lost {
            _ if frames.heard => self.outage.heard(),
            Some(reason) => self.outage.silent(&reason, Instant::now()),
            None => {}
        }
        self.leave(frames.running);
    }

    /// Frames that found their answers elsewhere go on to their ends, but not for ever.
    fn leave(&mut self, mut running: JoinSet<()>) {
        while self.left.try_join_next().is_some() {}
        while running.try_join_next().is_some() {}
        if !running.is_empty() {
            let longest = self.answer_timeout;
            self.left.spawn(async move {
                let ends = async { while running.join_next().await.is_some() {} };
                let _ = timeout(longest, ends).await;
            });
        }
    }

    /// As many frames as the server lets us have in flight. When the connection seems lost, what
    /// was not asked yet is not asked over it: it waits for the next round.
    fn send_waiting(&self, frames: &mut SentFrames, waiting: &mut VecDeque<&[usize]>, call: &Call) {
        let Some(link) = &self.link else { return };
        while frames.lost.is_none() && frames.over(link) < self.allowance.in_flight {
            let Some(lookups) = waiting.pop_front() else { break };
            self.send(frames, lookups, Way::Over(link.clone()), false, call);
        }
    }

    fn send(
        &self,
        frames: &mut SentFrames,
        lookups: &[usize],
        way: Way,
        is_hedge: bool,
        call: &Call,
    ) {
        let (mut unheard, mut requests) = (HashMap::new(), Vec::new());
        let mut bundles: HashMap<String, Arc<[u8]>> = HashMap::new();
        let deadline_ms = self.deadline.as_millis() as u32;
        for (nonce, &lookup) in lookups.iter().enumerate() {
            let (Some(sending), Some(bundle)) = (call.sending(lookup), call.bundle(lookup)) else {
                continue;
            };
            frames.open.entry(lookup).or_default().frames += 1;
            unheard.insert(nonce.to_string(), lookup);
            bundles.insert(sending.uid.clone(), bundle);
            requests.push(query(nonce, sending, deadline_ms));
        }
        let (number, say, wait) = (frames.all.len(), frames.say.clone(), self.answer_timeout);
        let link = match &way {
            Way::Over(link) => Some(link.clone()),
            Way::Spare { .. } => None,
        };
        let (hedged, ended, quiet_since, whole) = (false, false, None, None);
        let frame = SentFrame { unheard, link, is_hedge, hedged, ended, quiet_since, whole };
        frames.all.push(frame);
        let shape = *call.view().parameters.shape();
        let request = Request::from(RequestBody::Batch(PirBatch { requests }));
        frames.running.spawn(async move {
            // Nobody listens once every look-up has its answer.
            let tell = |said| drop(say.send((number, said)));
            let bundles = bundles.into_iter().collect();
            tell(Said::Ended(carry(way, bundles, request, shape, wait, &tell).await));
        });
    }

    /// Sends what a frame has no replies to once more, to another replica.
    fn hedge(&mut self, frames: &mut SentFrames, number: usize, call: &Call) {
        let frame = &mut frames.all[number];
        frame.hedged = true;
        let Some(slow) = frame.link.clone() else { return };
        let mut lookups: Vec<usize> = frame.unheard.values().copied().collect();
        lookups.retain(|lookup| frames.open.contains_key(lookup));
        lookups.sort_unstable(); // an order that is random already, and not a map's
        let usable = |link: &&Arc<Link>| link.is_open() && link.replica != slow.replica;
        let links = [self.link.as_ref(), self.spare.get()];
        let other = links.into_iter().flatten().find(usable).cloned();
        let way = match other {
            Some(link) => Way::Over(link),
            None => {
                // Unless it is on its way to be one.
                if self.spare.initialized() {
                    self.spare = Spare::default();
                }
                let (link, dialer) = (self.spare.clone(), self.dialer.clone());
                Way::Spare { link, dialer, not: slow.replica }
            }
        };
        self.report.hedges += 1;
        self.report.hedged_queries += lookups.len() as u32;
        tracing::debug!(queries = lookups.len(), "a slow frame is sent to another replica too");
        self.send(frames, &lookups, way, true, call);
    }

    fn hear(
        &mut self,
        frames: &mut SentFrames,
        number: usize,
        said: Said,
        call: &mut Call,
        hints: &Hints,
        unanswered: &mut Unanswered,
    ) {
        let frame = &mut frames.all[number];
        match said {
            Said::Over(link) => frame.link = Some(link),
            Said::Arrived => frame.quiet_since = Some(Instant::now()),
            Said::Reply(reply) => {
                frame.quiet_since = Some(Instant::now());
                frames.heard = true;
                if let ReplyBody::Answer(answer) = *reply {
                    self.take_answer(frames, number, answer, call, hints, unanswered);
                }
            }
            Said::Traffic(traffic) => self.count(traffic),
            Said::Ended(attempt) => {
                frame.ended = true;
                let in_use = self.link.as_ref().zip(frame.link.as_ref());
                let in_use = in_use.is_some_and(|(link, over)| Arc::ptr_eq(link, over));
                frames.heard |= attempt.event == Event::NotAllowed;
                if in_use && attempt.event != Event::StreamLost {
                    frames.lost.get_or_insert_with(|| attempt.detail.clone());
                }
                // A replica that leaves a hedge without answers gets no more of them.
                self.hedging &= !frame.is_hedge || frame.unheard.is_empty();
                let (attempt, is_hedge) = (frame.whole.take().unwrap_or(attempt), frame.is_hedge);
                for lookup in std::mem::take(&mut frame.unheard).into_values() {
                    frames.refuse(lookup, attempt.clone(), is_hedge, unanswered);
                }
            }
        }
    }

    fn take_answer(
        &mut self,
        frames: &mut SentFrames,
        number: usize,
        answer: PirResponse,
        call: &mut Call,
        hints: &Hints,
        unanswered: &mut Unanswered,
    ) {
        let frame = &mut frames.all[number];
        let event = answered(answer.response_status, answer.retry_after_ms);
        let attempt = lost(event, &describe(answer.response_status, &answer.detail));
        if answer.nonce.is_empty() {
            frame.whole = Some(attempt);
            return;
        }
        let Some(lookup) = frame.unheard.remove(&answer.nonce) else { return };
        let (is_hedge, link) = (frame.is_hedge, frame.link.clone());
        let Some(sending) = call.sending(lookup) else { return }; // answered by the other one
        let wanted = action(RequestKind::Answer, event, 1, 1);
        if let (Action::Keep, Some(hint)) = (wanted, hints.get(&sending.shard)) {
            frames.open.remove(&lookup);
            let response_bytes = answer.encrypted_response.iter().map(Vec::len).sum();
            self.sent.push((call.place(lookup), sent_query(&sending, response_bytes)));
            call.keep(lookup, answer, hint.clone());
            if is_hedge && self.turn_to(link.as_ref()) {
                frames.lost = None;
            }
            return;
        }
        if let (Action::ResendBundle { .. }, Some(link)) = (wanted, link) {
            link.forget(&sending.uid);
        }
        self.hedging &= !is_hedge;
        frames.refuse(lookup, attempt, is_hedge, unanswered);
    }

    /// The replica that answered a hedge is asked from now on, and the slow one is the spare.
    fn turn_to(&mut self, answered: Option<&Arc<Link>>) -> bool {
        let Some(answered) = answered.filter(|link| link.is_open()) else { return false };
        match &self.link {
            Some(slow) if !Arc::ptr_eq(slow, answered) && slow.replica != answered.replica => {
                self.spare = Arc::new(OnceCell::new_with(Some(slow.clone())));
                self.link = Some(answered.clone());
                true
            }
            _ => false,
        }
    }

    pub(super) fn count(&mut self, traffic: Traffic) {
        self.report.bytes_up += traffic.bytes_up;
        self.report.bytes_down += traffic.bytes_down;
        self.report.bundles += traffic.bundles;
        self.report.bundle_bytes += traffic.bundle_bytes;
    }
}

/// Takes one frame to a server, its bundles first where the server has not seen them. Back comes
/// how it ended for queries without a reply.
async fn carry(
    way: Way,
    bundles: Vec<Bundle>,
    request: Request,
    shape: Shape,
    wait: Duration,
    tell: &(impl Fn(Said) + Sync),
) -> Attempt {
    let link = match way {
        Way::Over(link) => link,
        Way::Spare { link, dialer, not } => {
            let dial = async || dialer.dial_other_than(not).await.map(Arc::new);
            match link.get_or_try_init(dial).await {
                Ok(link) => link.clone(),
                Err(error) => return lost(Event::ConnectionLost, &error),
            }
        }
    };
    tell(Said::Over(link.clone()));
    let (brought, traffic) = link.bring_all(bundles, shape, wait).await;
    tell(Said::Traffic(traffic));
    if let Err(attempt) = brought {
        return attempt;
    }
    let replies_max = match &request.body {
        Some(RequestBody::Batch(frame)) => frame.requests.len(),
        _ => 0,
    };
    let frame = Bytes::from(encode_frame(&request));
    drop(request);
    tell(Said::Traffic(Traffic { bytes_up: frame.len() as u64, ..Traffic::default() }));
    let mut hear = |heard| match heard {
        Heard::Opened => {}
        Heard::Arrived => tell(Said::Arrived),
        Heard::Reply(reply, bytes) => {
            tell(Said::Traffic(Traffic { bytes_down: bytes as u64, ..Traffic::default() }));
            tell(Said::Reply(Box::new(reply)));
        }
    };
    let shape = Some(shape);
    let end = exchange(&link.connection, frame, shape, replies_max, wait, &mut hear).await;
    let (event, detail) = ended(&end);
    lost(event, &detail)
}
