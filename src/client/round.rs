//! One round of a call: hints, then key bundles, then queries. What comes back is kept undecoded,
//! and what failed is returned. Nothing here sees a secret or a decoded value.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::task::JoinSet;

use super::call::{Call, View};
use super::connection::Client;
use super::exchange::{Exchange, ask, frame, parameter_reply, parameter_request, refused};
use super::retry::FailedAttempt;
use super::sending::{Hints, Unanswered};
use crate::limits;
use crate::wire::message::{HintRequest, ReplyBody, RequestBody};
use crate::wire::{Bytes, Status};

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
    pub(super) async fn round(&mut self, call: &mut Call, wave: Vec<usize>) -> Unanswered {
        let mut unanswered = Vec::new();
        self.report.rounds += 1;
        let (ready, hints) = self.fetch_hints(call, wave, &mut unanswered).await;
        let ready = self.send_bundles(call, ready, &mut unanswered).await;
        self.send_queries(call, &ready, &hints, &mut unanswered).await;
        unanswered
    }

    /// Fetches the hints that are not held. Back come the look-ups whose hints are there, and the
    /// hints by shard: the cache is bounded and may be smaller than a wave.
    async fn fetch_hints(
        &mut self,
        call: &mut Call,
        wave: Vec<usize>,
        unanswered: &mut Unanswered,
    ) -> (Vec<usize>, Hints) {
        let view = call.view().clone();
        let (mut fetched, mut missing) = (HashMap::new(), Vec::new());
        for shard in wave.iter().filter_map(|&index| call.shard(index)) {
            if let Some(hint) = self.hints.get(&view.digest(shard)) {
                fetched.insert(shard, Fetched::Hint(hint));
            } else {
                missing.push(shard);
            }
        }
        missing.sort_unstable();
        missing.dedup();
        let requests = missing.chunks(limits::HINTS_PER_REQUEST_MAX as usize).map(|shards| {
            let request = HintRequest { epoch: view.parameters.epoch(), shards: shards.to_vec() };
            (shards.to_vec(), frame(RequestBody::Hints(request)), shards.len())
        });
        for (shards, exchange) in self.gather(requests.collect(), &view).await {
            self.report.count(exchange.bytes_up, exchange.bytes_down);
            self.take_hints(&view, shards, exchange, &mut fetched);
        }
        let mut ready = Vec::new();
        for index in wave {
            match call.shard(index).and_then(|shard| fetched.get(&shard)) {
                Some(Fetched::Hint(_)) => ready.push(index),
                Some(Fetched::Forged) => call.distrust(index),
                Some(Fetched::Failed(failed)) => unanswered.push((index, failed.clone())),
                None => {} // it was not asked for, and is in the next round
            }
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
                rest = refused(hint.response_status, 0, &hint.detail);
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

    /// Sends the bundles this connection has not seen. Back come the look-ups whose bundle is
    /// known: only then is a query under it sent.
    async fn send_bundles(
        &mut self,
        call: &Call,
        wave: Vec<usize>,
        unanswered: &mut Unanswered,
    ) -> Vec<usize> {
        let Some(link) = self.link.clone() else { return Vec::new() };
        let mut users: HashMap<String, Vec<usize>> = HashMap::new();
        let mut requests = Vec::new();
        for &index in &wave {
            let Some((uid, bundle)) = call.bundle(index).filter(|(uid, _)| !link.has(uid)) else {
                continue;
            };
            let sharing = users.entry(uid.to_owned()).or_default();
            if sharing.is_empty() {
                requests.push((uid.to_owned(), parameter_request(Some((uid, bundle))), 1));
            }
            sharing.push(index);
        }
        for (uid, exchange) in self.gather(requests, call.view()).await {
            self.report.bundles += 1;
            self.report.count(exchange.bytes_up, exchange.bytes_down);
            match parameter_reply(exchange) {
                Ok(_) => link.keeps(&uid),
                Err(failed) => {
                    let users = users.get(&uid).into_iter().flatten();
                    unanswered.extend(users.map(|&index| (index, failed.clone())));
                }
            }
        }
        let known = |index: &usize| call.bundle(*index).is_some_and(|(uid, _)| link.has(uid));
        wave.into_iter().filter(known).collect()
    }

    /// Asks several things at once, as many as the server lets us have in flight. When the
    /// connection seems lost, what was not asked yet is not asked over it, and is missing in what
    /// comes back: it waits for the next round.
    async fn gather<T: Send + 'static>(
        &mut self,
        requests: Vec<(T, Bytes, usize)>,
        view: &View,
    ) -> Vec<(T, Exchange)> {
        let Some(link) = &self.link else { return Vec::new() };
        let (shape, wait) = (*view.parameters.shape(), self.options.answer_timeout);
        let mut asking = JoinSet::new(); // aborts what is left when the call is cancelled
        let mut answered = Vec::with_capacity(requests.len());
        let mut requests = requests.into_iter();
        let (mut heard, mut lost) = (false, None);
        loop {
            while lost.is_none() && asking.len() < self.allowance.in_flight {
                let Some((tag, frame, replies)) = requests.next() else { break };
                let link = link.clone();
                asking.spawn(async move {
                    (tag, ask(&link.connection, frame, Some(shape), replies, wait).await)
                });
            }
            let Some(done) = asking.join_next().await else { break };
            let (tag, exchange) = done.expect("this is a bug: asking a server panicked");
            heard |= exchange.is_heard();
            lost = lost.or(exchange.lost().map(str::to_owned));
            answered.push((tag, exchange));
        }
        self.outage.note(heard, lost.as_deref());
        answered
    }
}
