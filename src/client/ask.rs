//! The way of a call: encrypt everything ([`super::call`]), send rounds until every look-up has its
//! answer or is given up ([`super::round`], [`super::sending`]), then decode everything.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::{Instant, sleep_until, timeout_at};
use zeroize::Zeroizing;

use super::call::{Call, Cancelled, Wishes};
use super::connection::Client;
use super::error::{ClientError, LookupError};
use super::report::CallReport;
use super::retry::Outage;
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
        self.reach().await?;
        let unanswered = self.round(call, wave).await;
        let (now, replicas) = (Instant::now(), self.dialer.replica_count());
        let mut wishes = Wishes::default();
        for (index, failed) in unanswered {
            call.settle(index, &failed, replicas, now, &mut wishes);
        }
        self.go(wishes.via);
        if wishes.refresh {
            self.refresh().await?;
        }
        Ok(wishes.refresh)
    }
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
