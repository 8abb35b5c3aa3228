//! The way of a call: encrypt everything ([`super::call`]), send rounds until every look-up has its
//! answer or is given up ([`super::round`], [`super::sending`]), then decode everything.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use zeroize::Zeroizing;

use super::call::{Call, Cancelled, Wishes};
use super::connection::Client;
use super::error::{ClientError, LookupError};
use super::link::Link;
use super::report::CallReport;
use super::retry::{Outage, Via, backoff};
use super::round::{Routed, Unanswered};
use super::routes::is_of_shard;
use crate::keyword::{Extracted, Outcome};
use crate::limits;

/// The answers of one call, decoded in constant time and not looked at.
pub struct Answers {
    records: Vec<Result<Extracted, LookupError>>,
}

impl Answers {
    pub(super) fn of(records: Vec<Result<Extracted, LookupError>>) -> Self {
        Self { records }
    }

    /// What each look-up ends in, in the order of the keys. Its time depends on the outcomes: where
    /// the connection ends with this call, [`Client::close`] comes before.
    pub fn open(self) -> Vec<Result<Outcome, LookupError>> {
        let open = |record: Result<Extracted, _>| record.map(|record| record.outcome());
        self.records.into_iter().map(open).collect()
    }
}

impl Client {
    /// Looks up many keys in one call: [`Client::ask`], then [`Answers::open`]. The outcomes come
    /// in the order of the keys.
    pub async fn lookup<K: AsRef<[u8]>>(
        &mut self,
        keys: &[K],
    ) -> Result<Vec<Result<Outcome, LookupError>>, ClientError> {
        Ok(self.ask(keys).await?.open())
    }

    /// Sends the queries of many keys and collects their answers, without looking at a record.
    ///
    /// Each key takes a query to its shard; a key given twice is looked up twice. Keys are bytes,
    /// compared as they are: bring them into one form first (E.164 numbers, lower-case addresses).
    /// More than [`limits::KEYS_PER_PART_MAX`] keys go in parts, one after the other.
    ///
    /// # Errors
    /// The outer error ends the whole call, undecoded: parameters that must not be used or expired,
    /// or no random bytes for secrets. In a later part it ends what was not answered by then
    /// ([`LookupError::Ended`]). Anything else ends only the look-ups it happened to.
    pub async fn ask<K: AsRef<[u8]>>(&mut self, keys: &[K]) -> Result<Answers, ClientError> {
        if keys.len() > limits::KEYS_PER_CALL_MAX {
            return Err(ClientError::TooManyKeys { found: keys.len() });
        }
        self.report = CallReport::default();
        self.sent.clear();
        self.outage = Outage::new(self.options.unreachable_max);
        self.hedging = true;
        self.unreached.clear();
        let mut records = Vec::with_capacity(keys.len());
        let mut ended: Option<LookupError> = None;
        for part in keys.chunks(limits::KEYS_PER_PART_MAX) {
            if let Some(error) = &ended {
                records.extend(part.iter().map(|_| Err(error.clone())));
                continue;
            }
            match self.part(part).await {
                Ok(part) => {
                    let mut failed = part.iter().filter_map(|record| record.as_ref().err());
                    ended = failed.find(|error| error.ends_the_call()).cloned();
                    records.extend(part);
                }
                Err(error) if records.is_empty() => return Err(error),
                Err(error) => {
                    let error = LookupError::Ended { reason: error.to_string() };
                    records.extend(part.iter().map(|_| Err(error.clone())));
                    ended = Some(error);
                }
            }
        }
        Ok(Answers::of(records))
    }

    /// Looks up one part of a call. What comes back was decoded in constant time and not looked
    /// at, so that neither the next part nor its time can depend on it.
    async fn part<K: AsRef<[u8]>>(
        &mut self,
        keys: &[K],
    ) -> Result<Vec<Result<Extracted, LookupError>>, ClientError> {
        let (now, after) = (Instant::now(), self.options.call_timeout);
        let deadline = now + after;
        let encrypt = async {
            if self.view().parameters.lifetime().check(self.now()).is_err() {
                self.refresh().await?;
            }
            let view = self.view().clone();
            let keys = keys.iter().map(|key| Zeroizing::new(key.as_ref().to_vec()));
            let encrypt = move |keys, cancelled: &_| Call::encrypt(view, keys, now, cancelled);
            Ok::<_, ClientError>(compute(keys.collect::<Vec<_>>(), encrypt).await??)
        };
        let Ok(encrypted) = timeout_at(deadline, encrypt).await else {
            return Ok(keys.iter().map(|_| Err(LookupError::CallTimeout { after })).collect());
        };
        let call = self.run(encrypted?, deadline).await?;
        let records = compute(call, |call, gone| call.finish(gone)).await?;
        self.sent.sort_by_key(|&(index, _)| index);
        self.report.queries.extend(self.sent.drain(..).map(|(_, query)| query));
        Ok(records)
    }

    /// Runs a call until nothing of it waits, or its time is over.
    async fn run(&mut self, mut call: Call, deadline: Instant) -> Result<Call, ClientError> {
        while let Some((at, wave)) = call.wave(self.allowance.bundles, Instant::now()) {
            match timeout_at(deadline, self.attempt(&mut call, at, wave)).await {
                Ok(Ok(false)) => {}
                Ok(Ok(true)) => {
                    let view = self.view().clone();
                    let rebase =
                        |mut call: Call, cancelled: &_| call.rebase(view, cancelled).map(|()| call);
                    call = compute(call, rebase).await??;
                }
                // What was answered stays answered; these parameters must not be used at all.
                Ok(Err(error @ ClientError::Parameters(_))) => return Err(error),
                Ok(Err(error)) => give_up(&mut call, error),
                Err(_) => {
                    let after = self.options.call_timeout;
                    call.give_up(|_| LookupError::CallTimeout { after });
                }
            }
        }
        Ok(call)
    }

    /// Sends what is ready once; whether new parameters were fetched for what comes next.
    async fn attempt(
        &mut self,
        call: &mut Call,
        at: Instant,
        wave: Vec<usize>,
    ) -> Result<bool, ClientError> {
        sleep_until(at).await;
        let routed = self.reach_holders(call, wave).await?;
        let unanswered = self.round(call, routed).await;
        let (now, mut refresh) = (Instant::now(), false);
        // What is to happen to each link, and to single shards of it.
        let mut ways: HashMap<(usize, Option<u32>), (Arc<Link>, Via)> = HashMap::new();
        for Unanswered { lookup, failed, link } in unanswered {
            let Some(shard) = call.shard(lookup) else { continue };
            let mut wishes = Wishes::default();
            call.settle(lookup, &failed, self.routes.holders(shard), now, &mut wishes);
            refresh |= wishes.refresh;
            let target = (link.replica, is_of_shard(&failed).then_some(shard));
            let (_, via) = ways.entry(target).or_insert((link, Via::Same));
            *via = wishes.via.max(*via);
        }
        for ((_, shard), (link, via)) in ways {
            self.routes.go(&link, via, shard);
        }
        if refresh {
            self.refresh().await?;
        }
        Ok(refresh)
    }

    /// Connects to the servers that have the shards of these look-ups. Back come those that can be
    /// sent now, by server. Others wait for a server of theirs, or are given up after their time.
    ///
    /// # Errors
    /// No server was reached for too long.
    async fn reach_holders(
        &mut self,
        call: &mut Call,
        wave: Vec<usize>,
    ) -> Result<Vec<Routed>, ClientError> {
        let mut tries = 0;
        loop {
            self.routes.note_silent();
            let mut by_order: HashMap<Vec<usize>, Vec<usize>> = HashMap::new();
            for &lookup in &wave {
                let Some(shard) = call.shard(lookup) else { continue };
                match self.routes.order(Some(shard)) {
                    order if order.is_empty() => call.fail(lookup, LookupError::ShardUnknown),
                    order => by_order.entry(order).or_default().push(lookup),
                }
            }
            if by_order.is_empty() {
                return Ok(Vec::new());
            }
            let left = self.outage.left(Instant::now())?;
            let orders: Vec<_> = by_order.keys().cloned().collect();
            let (links, failed) = self.connect_all(orders, left).await;
            if links.is_empty() {
                let now = Instant::now();
                self.outage.silent(&failed, now);
                tries += 1;
                sleep(backoff(tries).min(self.outage.left(now)?)).await;
                continue;
            }
            let mut routed: BTreeMap<usize, Routed> = BTreeMap::new();
            for (order, lookups) in by_order {
                match links.get(&order) {
                    Some(link) => {
                        self.unreached.remove(&all_of(order));
                        let entry = routed
                            .entry(link.replica)
                            .or_insert_with(|| Routed { link: link.clone(), lookups: Vec::new() });
                        entry.lookups.extend(lookups);
                    }
                    None => self.wait_for_holder(call, order, lookups, &failed),
                }
            }
            let mut routed: Vec<Routed> = routed.into_values().collect();
            // In their random order, and not a map's.
            routed.iter_mut().for_each(|routed| routed.lookups.sort_unstable());
            return Ok(routed);
        }
    }

    /// These look-ups wait for the servers of their shards, while others go on.
    fn wait_for_holder(
        &mut self,
        call: &mut Call,
        order: Vec<usize>,
        lookups: Vec<usize>,
        last: &str,
    ) {
        let (now, longest) = (Instant::now(), self.options.unreachable_max);
        let (since, tries) = self.unreached.entry(all_of(order)).or_insert((now, 0));
        *tries += 1;
        for lookup in lookups {
            if now.duration_since(*since) >= longest {
                let last = last.to_owned();
                call.fail(lookup, LookupError::Unreachable { tried: longest, last });
            } else {
                call.postpone(lookup, now + backoff(*tries));
            }
        }
    }

    /// A link for each order of servers, as far as there is one; and why one of the others has
    /// none. Once there are links, those that are still being made are not waited for.
    async fn connect_all(
        &mut self,
        orders: Vec<Vec<usize>>,
        longest: Duration,
    ) -> (HashMap<Vec<usize>, Arc<Link>>, String) {
        let (mut links, mut failed) = (HashMap::new(), "no address answered".to_owned());
        let mut connecting = JoinSet::new();
        for order in orders {
            match self.routes.dialer.open(order[0]) {
                Some(link) => _ = links.insert(order, link),
                None => {
                    let connected = self.routes.dialer.clone().first_of(order.clone());
                    connecting.spawn(async move { (order, connected.await) });
                }
            }
        }
        let end = Instant::now() + longest;
        let soon = Instant::now() + 2 * limits::CONNECT_STAGGER;
        while !connecting.is_empty() {
            let until = if links.is_empty() { end } else { end.min(soon) };
            match timeout_at(until, connecting.join_next()).await {
                Ok(Some(joined)) => match joined.expect("this is a bug: connecting panicked") {
                    (order, Ok(link)) => {
                        self.routes.passed_over(&order, link.replica);
                        links.insert(order, link);
                    }
                    (order, Err(error)) => {
                        self.routes.passed_over(&order, usize::MAX);
                        failed = error.to_string();
                    }
                },
                Ok(None) | Err(_) => break,
            }
        }
        while self.dialing.try_join_next().is_some() {}
        if !connecting.is_empty() {
            self.dialing.spawn(async move { while connecting.join_next().await.is_some() {} });
        }
        (links, failed)
    }
}

/// The servers of an order, whichever is asked first.
fn all_of(mut order: Vec<usize>) -> Vec<usize> {
    order.sort_unstable();
    order
}

/// No server can be reached, or none gives parameters.
fn give_up(call: &mut Call, error: ClientError) {
    let last = error.to_string();
    call.give_up(|attempts| match &error {
        ClientError::Unreachable { tried, last } => {
            LookupError::Unreachable { tried: *tried, last: last.clone() }
        }
        _ => LookupError::Exhausted { attempts, last: last.clone() },
    });
}

/// What a blocking thread works on, until it begins; then what tells it to stop.
struct Handed<I> {
    input: Mutex<Option<I>>,
    cancelled: Cancelled,
}

/// Dropped with the future that waits for the thread.
struct Waits<I>(Arc<Handed<I>>);

impl<I> Drop for Waits<I> {
    fn drop(&mut self) {
        self.0.cancelled.set();
        drop(self.0.input.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

/// Encrypts or decodes on a thread of its own: async code moves bytes only. When the caller is
/// dropped before the thread begins, its input is dropped at once, and so the secrets in it; later,
/// as soon as the thread has looked at `Cancelled`.
async fn compute<I: Send + 'static, T: Send + 'static>(
    input: I,
    work: impl FnOnce(I, &Cancelled) -> T + Send + 'static,
) -> Result<T, ClientError> {
    let handed = Handed { input: Mutex::new(Some(input)), cancelled: Cancelled::default() };
    let waits = Waits(Arc::new(handed));
    let handed = waits.0.clone();
    let working = tokio::task::spawn_blocking(move || {
        let input = handed.input.lock().unwrap_or_else(PoisonError::into_inner).take();
        input.map(|input| work(input, &handed.cancelled))
    });
    let done = working.await.map_err(|e| ClientError::Computing(e.to_string()))?;
    Ok(done.expect("this is a bug: the input was taken while its caller waits"))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    /// Stands for secrets: says when it is dropped.
    struct LocalLock(Arc<AtomicBool>);

    impl Drop for LocalLock {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    fn runtime() -> tokio::runtime::Runtime {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.max_blocking_threads(1).enable_all().build().unwrap()
    }

    #[test]
    fn what_waits_for_a_thread_is_dropped_with_its_future() {
        let (busy, free) = channel::<()>();
        let dropped = Arc::new(AtomicBool::new(false));
        runtime().block_on(async {
            let thread = tokio::task::spawn_blocking(move || free.recv());
            {
                let waits = compute(LocalLock(dropped.clone()), |held, _| drop(held));
                let waits = std::pin::pin!(waits);
                assert!(timeout(Duration::from_millis(20), waits).await.is_err());
                assert!(!dropped.load(Ordering::SeqCst));
            }
            // The only thread is still busy with something else.
            assert!(dropped.load(Ordering::SeqCst) && !thread.is_finished());
            drop(busy);
            let _ = thread.await.unwrap();
            // And the next one that waits is served.
            assert_eq!(compute(7, |seven, _| seven + 1).await.unwrap(), 8);
        });
    }

    #[test]
    fn a_thread_at_work_is_told_that_its_future_was_dropped() {
        let (begins, begun) = channel();
        let dropped = Arc::new(AtomicBool::new(false));
        let held = LocalLock(dropped.clone());
        let runtime = runtime();
        runtime.block_on(async {
            let work = compute(held, move |held, cancelled| {
                begins.send(()).unwrap();
                while !cancelled.is_set() {
                    std::thread::yield_now();
                }
                drop(held);
            });
            let work = std::pin::pin!(work);
            assert!(timeout(Duration::from_millis(20), work).await.is_err());
            begun.recv().unwrap();
        });
        drop(runtime); // waits for the thread, which would otherwise never end
        assert!(dropped.load(Ordering::SeqCst));
    }
}
