//! One round of a call: hints, then key bundles, then queries. What comes back is kept undecoded,
//! and what failed is returned. Nothing here sees a secret or a decoded value.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use tokio::task::JoinSet;

use super::call::{Call, View};
use super::connection::Client;
use super::exchange::{Exchange, ask, frame, parameter_reply, parameter_request, refused};
use super::link::Link;
use super::retry::FailedAttempt;

use crate::limits;
use crate::wire::message::{HintRequest, ReplyBody, RequestBody};
use crate::wire::{Bytes, Status};

/// Hints of a round by shard.
pub(super) type Hints = HashMap<u32, Arc<[u8]>>;

/// Look-ups and the link that they go over.
pub(super) struct Routed {
    pub(super) link: Arc<Link>,
    pub(super) lookups: Vec<usize>,
}

/// A look-up of a round that got no answer.
pub(super) struct Unanswered {
    pub(super) lookup: usize,
    pub(super) failed: FailedAttempt,
    /// Over which it was asked.
    pub(super) link: Arc<Link>,
}

/// A request over a link: what it is about, its frame, and how many replies it may have.
struct Asked<T> {
    link: Arc<Link>,
    about: T,
    frame: Bytes,
    replies: usize,
}

/// What became of a hint that was asked for.
enum Fetched {
    Hint(Arc<[u8]>),
    /// It is not the hint that the operator signed.
    Forged,
    Failed(FailedAttempt),
}

impl Client {
    /// Sends what is needed for these look-ups and collects the answers. Back come the look-ups
    /// without an answer.
    pub(super) async fn round(&mut self, call: &mut Call, routed: Vec<Routed>) -> Vec<Unanswered> {
        let mut unanswered = Vec::new();
        self.report.rounds += 1;
        let (ready, hints) = self.fetch_hints(call, routed, &mut unanswered).await;
        let ready = self.send_bundles(call, ready, &mut unanswered).await;
        self.send_queries(call, &ready, &hints, &mut unanswered).await;
        unanswered
    }

    /// Fetches the hints that are not held. Back come the look-ups whose hints are there, and the
    /// hints by shard: the cache is bounded and may be smaller than a wave.
    async fn fetch_hints(
        &mut self,
        call: &mut Call,
        routed: Vec<Routed>,
        unanswered: &mut Vec<Unanswered>,
    ) -> (Vec<Routed>, Hints) {
        let view = call.view().clone();
        let (mut fetched, mut requests) = (HashMap::new(), Vec::new());
        for Routed { link, lookups } in &routed {
            let mut missing = Vec::new();
            for shard in lookups.iter().filter_map(|&lookup| call.shard(lookup)) {
                if let Some(hint) = self.hints.get(&view.digest(shard)) {
                    fetched.insert(shard, Fetched::Hint(hint));
                } else {
                    missing.push(shard);
                }
            }
            missing.sort_unstable();
            missing.dedup();
            for shards in missing.chunks(limits::HINTS_PER_REQUEST_MAX as usize) {
                let (epoch, digests_only) = (view.parameters.epoch(), false);
                let request = HintRequest { epoch, shards: shards.to_vec(), digests_only };
                requests.push(Asked {
                    link: link.clone(),
                    about: shards.to_vec(),
                    frame: frame(RequestBody::Hints(request)),
                    replies: shards.len(),
                });
            }
        }
        for (_, shards, exchange) in self.gather(requests, &view).await {
            self.report.count(exchange.bytes_up, exchange.bytes_down);
            self.take_hints(&view, shards, exchange, &mut fetched);
        }
        let mut ready = Vec::with_capacity(routed.len());
        for Routed { link, lookups } in routed {
            let mut with_hints = Vec::with_capacity(lookups.len());
            for lookup in lookups {
                match call.shard(lookup).and_then(|shard| fetched.get(&shard)) {
                    Some(Fetched::Hint(_)) => with_hints.push(lookup),
                    Some(Fetched::Forged) => call.distrust(lookup),
                    Some(Fetched::Failed(failed)) => {
                        let (failed, link) = (failed.clone(), link.clone());
                        unanswered.push(Unanswered { lookup, failed, link });
                    }
                    None => {} // it was not asked for, and is in the next round
                }
            }
            ready.push(Routed { link, lookups: with_hints });
        }
        let hints = fetched.into_iter().filter_map(|(shard, fetched)| match fetched {
            Fetched::Hint(hint) => Some((shard, hint)),
            _ => None,
        });
        (ready, hints.collect())
    }

    /// Sorts the replies to one request for the hints of these shards.
    fn take_hints(
        &mut self,
        view: &View,
        shards: Vec<u32>,
        exchange: Exchange,
        fetched: &mut HashMap<u32, Fetched>,
    ) {
        // What is said of the shards without a reply of their own.
        let mut rest = exchange.end;
        for reply in exchange.replies {
            let ReplyBody::Hint(hint) = reply else { continue };
            let outcome = if hint.response_status != Status::ResponseSuccess.code() {
                let refused = refused(hint.response_status, 0, &hint.detail);
                rest = refused.of_epochs(view.parameters.epoch(), hint.epoch);
                Fetched::Failed(rest.clone())
            } else if !shards.contains(&hint.shard) {
                continue;
            } else if let Some(kept) = self.hints.keep(view.digest(hint.shard), &hint.packs) {
                self.report.hints += 1;
                Fetched::Hint(kept)
            } else {
                Fetched::Forged
            };
            if !matches!(fetched.get(&hint.shard), Some(Fetched::Hint(_))) {
                fetched.insert(hint.shard, outcome);
            }
        }
        for shard in shards {
            fetched.entry(shard).or_insert_with(|| Fetched::Failed(rest.clone()));
        }
    }

    /// Sends the bundles that a connection has not seen. Back come the look-ups whose bundle is
    /// known: only then is a query under it sent.
    async fn send_bundles(
        &mut self,
        call: &Call,
        routed: Vec<Routed>,
        unanswered: &mut Vec<Unanswered>,
    ) -> Vec<Routed> {
        let mut users: HashMap<(usize, String), Vec<usize>> = HashMap::new();
        let mut requests = Vec::new();
        for Routed { link, lookups } in &routed {
            for &lookup in lookups {
                let bundle = call.bundle(lookup).filter(|(uid, _)| !link.has(uid));
                let Some((uid, bundle)) = bundle else { continue };
                let sharing = users.entry((link.replica, uid.to_owned())).or_default();
                if sharing.is_empty() {
                    let frame = parameter_request(Some((uid, bundle)));
                    let (link, about) = (link.clone(), uid.to_owned());
                    requests.push(Asked { link, about, frame, replies: 1 });
                }
                sharing.push(lookup);
            }
        }
        for (link, uid, exchange) in self.gather(requests, call.view()).await {
            self.report.bundles += 1;
            self.report.count(exchange.bytes_up, exchange.bytes_down);
            match parameter_reply(exchange) {
                Ok(_) => link.keeps(&uid),
                Err(failed) => {
                    for &lookup in users.get(&(link.replica, uid)).into_iter().flatten() {
                        let (failed, link) = (failed.clone(), link.clone());
                        unanswered.push(Unanswered { lookup, failed, link });
                    }
                }
            }
        }
        let known = |mut routed: Routed| {
            let has = |lookup| call.bundle(lookup).is_some_and(|(uid, _)| routed.link.has(uid));
            routed.lookups.retain(|&lookup| has(lookup));
            routed
        };
        routed.into_iter().map(known).collect()
    }

    /// Asks several things at once, of each server as many as it lets us have in flight. When a
    /// connection seems lost, what was not asked yet is not asked over it, and is missing in what
    /// comes back: it waits for the next round.
    async fn gather<T: Send + 'static>(
        &mut self,
        requests: Vec<Asked<T>>,
        view: &View,
    ) -> Vec<(Arc<Link>, T, Exchange)> {
        let (shape, wait) = (*view.parameters.shape(), self.options.answer_timeout);
        let mut asking = JoinSet::new(); // aborts what is left when the call is cancelled
        let mut answered = Vec::with_capacity(requests.len());
        let mut waiting: HashMap<usize, VecDeque<Asked<T>>> = HashMap::new();
        for request in requests {
            waiting.entry(request.link.replica).or_default().push_back(request);
        }
        let mut in_flight: HashMap<usize, usize> = HashMap::new();
        let (mut heard, mut lost) = (false, None);
        loop {
            for (replica, requests) in &mut waiting {
                let in_flight = in_flight.entry(*replica).or_default();
                while *in_flight < self.allowance.in_flight {
                    let Some(Asked { link, about, frame, replies }) = requests.pop_front() else {
                        break;
                    };
                    *in_flight += 1;
                    asking.spawn(async move {
                        let shape = Some(shape);
                        let exchange = ask(&link.connection, frame, shape, replies, wait).await;
                        (link, about, exchange)
                    });
                }
            }
            let Some(done) = asking.join_next().await else { break };
            let (link, about, exchange) = done.expect("this is a bug: asking a server panicked");
            *in_flight.entry(link.replica).or_default() -= 1;
            heard |= exchange.is_heard();
            if let Some(reason) = exchange.lost() {
                waiting.remove(&link.replica);
                lost.get_or_insert_with(|| reason.to_owned());
            }
            answered.push((link, about, exchange));
        }
        self.outage.note(heard, lost.as_deref());
        answered
    }
}
