//! The client: what a resolver front-end or a device links to look up keys privately.
//!
//! [`Client::connect`] checks who signed the database and that it is large enough to hide in;
//! [`Client::lookup`] looks up many keys in one call. The server learns the shard number of each
//! key and nothing else: whether a key is there, what its value is and which of a shard's records
//! it was cannot be told from any byte, size or time the client sends.
//!
//! # What a caller must know
//!
//! - **Nothing that is sent, and no time at which it is sent, may depend on an outcome.** A server
//!   that adds whole steps to the rows of one group makes exactly the records of that group absent,
//!   without any noise. Whoever then looks up again, looks up something else, or takes longer until
//!   the next call, tells the server the group of the key and whether the key exists.
//! - So a call sends everything and collects all answers before it looks at one record. Put what
//!   belongs together in one call. Begin the next call at a time that was fixed before; after the
//!   last one close the connection before the answers are opened ([`Client::ask`]). Do nothing for
//!   [`Outcome::Found`] that a server can see and that is not done for the other two.
//! - [`Outcome::Invalid`] says that an answer cannot be believed: a stale or forged hint, a changed
//!   matrix, a broken server. It is no reason for another try. The key's next look-up comes when it
//!   would have come anyway, and draws a fresh secret.
//! - A [`LookupError`] says nothing of a record: it was decided before anything was decoded.
//! - Dropping a call's future resets its streams, which takes its queries off the server, and wipes
//!   its secrets: at once while it waits for servers, and while it waits for a thread to encrypt or
//!   decode. A thread that is at work looks between any two secrets (at most 16 keys) or any two
//!   answers whether it is still wanted, and wipes what it has once the one it is at is done.
//! - A call ends by [`Options::call_timeout`], decoding aside; what was answered by then is
//!   decoded.
//! - With several replicas, a server that is silent for about three keep-alives is left for the
//!   next one, and a frame that is slow is sent to another one too. That is the identical bytes,
//!   and depends on time and connections only.
//! - [`Pins`] are everything a client knows of a database. A client takes them and gives them back
//!   ([`Client::pins`], [`Client::close`]): store them after connecting and at the end, and begin
//!   the next session with them; what must not change then cannot change unnoticed.
//! - Parameters have an end ([`crate::wire::Lifetime`]): a client that goes on past it fetches new
//!   ones at its next call, and refuses to look up if there are none.
//!
//! What this module does not do: dummies and padding of frames (the front-end's, see
//! docs/scheme.md, "What an observer learns"), keeping values, looking up on its own schedule.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use sotto::client::{Client, Options, OperatorKey, Outcome, Pins, Replica};
//!
//! let key = OperatorKey::from_text(&std::fs::read_to_string("db/operator.pub")?)?;
//! let replica = Replica::resolve("localhost:4433").await?;
//! let mut pins = Pins::operator(key);
//! if let Ok(stored) = std::fs::read("pins.json") {
//!     pins = serde_json::from_slice::<Pins>(&stored)?.join(pins)?; // of the session before
//! }
//! let options = Options::new(replica, std::fs::read("ca.pem")?, pins);
//! let mut client = Client::connect(options).await?;
//!
//! let keys = ["+15550100001", "nobody@example.org"];
//! let answers = client.ask(&keys).await?;
//! let pins = client.close().await; // before anything depends on what was found
//! std::fs::write("pins.json", serde_json::to_vec(&pins)?)?;
//! for (key, outcome) in keys.iter().zip(answers.open()) {
//!     match outcome? {
//!         Outcome::Found(value) => println!("{key}: {}", String::from_utf8_lossy(&value)),
//!         Outcome::Absent => println!("{key}: not found"),
//!         Outcome::Invalid => println!("{key}: the answer cannot be believed"),
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Read next: `retry.rs` (docs/wire.md, "Retries", as a function), then `call.rs`, then
//! `exchange.rs`.

mod call;
mod error;
mod exchange;
pub mod frames;
mod hints;
mod link;
mod net;
mod options;
mod outage;
mod report;
mod retry;
mod sending;
mod trust;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::task::JoinSet;
use tokio::time::{timeout, timeout_at};
use zeroize::Zeroizing;

use crate::keyword::Extracted;
pub use crate::keyword::Outcome;
pub use error::{ClientError, LookupError, ParameterError, PinsError};
pub use options::{Options, Replica};
pub use report::{CallReport, SentQuery};
pub use trust::{OperatorKey, Pins};

use crate::limits;
use crate::wire::PublicParameters;
use call::{Call, Cancelled, View};
use exchange::Allowance;
use hints::HintCache;
use link::Link;
use net::Dialer;
use outage::Outage;
use sending::Spare;
use trust::Rules;

/// A connection to a database, with what is known of it. See the [module](self).
pub struct Client {
    dialer: Arc<Dialer>,
    link: Option<Arc<Link>>,
    spare: Spare,
    /// Whether slow frames of this call may be sent to another replica too.
    hedging: bool,
    /// Frames that found their answers elsewhere.
    left: JoinSet<()>,
    rules: Rules,
    clock: fn() -> SystemTime,
    view: Option<Arc<View>>,
    allowance: Allowance,
    outage: Outage,
    unreachable_max: Duration,
    hints: HintCache,
    answer_timeout: Duration,
    call_timeout: Duration,
    deadline: Duration,
    report: CallReport,
    sent: Vec<(usize, SentQuery)>,
}

impl Client {
    /// Connects, fetches the database's parameters and checks them: the operator's signature, the
    /// pinned seed, the epoch, the number of shards, and the crowd in each.
    ///
    /// # Errors
    /// [`ClientError::Parameters`] when the database must not be used; the others when it cannot be
    /// reached.
    pub async fn connect(options: Options) -> Result<Self, ClientError> {
        options.check()?;
        let mut client = Self {
            dialer: Arc::new(Dialer::new(&options)?),
            link: None,
            spare: Spare::default(),
            hedging: true,
            left: JoinSet::new(),
            rules: Rules::new(options.pins.clone(), options.records_per_shard_min),
            clock: options.clock,
            view: None,
            allowance: Allowance::new(None),
            outage: Outage::new(options.unreachable_max),
            unreachable_max: options.unreachable_max,
            hints: HintCache::new(limits::HINT_CACHE_BYTES),
            answer_timeout: options.answer_timeout,
            call_timeout: options.call_timeout,
            deadline: options.deadline,
            report: CallReport::default(),
            sent: Vec::new(),
        };
        let begun = timeout(options.call_timeout, client.begin()).await;
        let begun = begun.unwrap_or_else(|_| {
            let reason = format!("none within {:?}", options.call_timeout);
            Err(ClientError::NoParameters { reason })
        });
        if let Err(error) = begun {
            // What it was given is still whoever's who connects.
            drop(client.close().await);
            return Err(error);
        }
        if options.pins.operator_key().is_none() {
            let key = client.operator_key();
            tracing::warn!(
                fingerprint = key.fingerprint(),
                "the operator's key is believed on first use: compare it with what the operator \
                 publishes, then pin it"
            );
        }
        Ok(client)
    }

    async fn begin(&mut self) -> Result<(), ClientError> {
        self.link().await?; // a server that is not there is said at once, without retries
        self.refresh().await?;
        Ok(())
    }

    /// Looks up many keys in one call: [`Client::ask`], then [`Answers::open`]. The outcomes come
    /// in the order of the keys.
    ///
    /// # Errors
    /// Those of [`Client::ask`].
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
    /// The outer error ends the whole call, undecoded: new parameters that must not be used,
    /// parameters that expired and no newer ones, or no random bytes for secrets. In a later part
    /// it ends what was not answered by then ([`LookupError::Ended`]). Anything else ends only the
    /// look-ups it happened to; a server that cannot be reached for [`Options::unreachable_max`],
    /// and a part that takes longer than [`Options::call_timeout`], all that still wait.
    pub async fn ask<K: AsRef<[u8]>>(&mut self, keys: &[K]) -> Result<Answers, ClientError> {
        if keys.len() > limits::KEYS_PER_CALL_MAX {
            return Err(ClientError::TooManyKeys { found: keys.len() });
        }
        self.report = CallReport::default();
        self.sent.clear();
        self.outage = Outage::new(self.unreachable_max);
        self.hedging = true;
        let mut records = Vec::with_capacity(keys.len());
        let mut ended = None;
        for part in keys.chunks(limits::KEYS_PER_PART_MAX) {
            if let Some(error) = &ended {
                records.extend(part.iter().map(|_| Err(LookupError::clone(error))));
                continue;
            }
            match self.part(part).await {
                Ok(part) => {
                    let gone = |record: &Result<_, _>| match record {
                        Err(
                            error @ (LookupError::Unreachable { .. }
                            | LookupError::CallTimeout { .. }),
                        ) => Some(error.clone()),
                        _ => None,
                    };
                    ended = part.iter().find_map(gone);
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
        Ok(Answers { records })
    }

    /// Looks up one part of a call. What comes back was decoded in constant time and not looked
    /// at, so that neither the next part nor its time can depend on it.
    async fn part<K: AsRef<[u8]>>(
        &mut self,
        keys: &[K],
    ) -> Result<Vec<Result<Extracted, LookupError>>, ClientError> {
        let now = tokio::time::Instant::now();
        let (deadline, after, count) = (now + self.call_timeout, self.call_timeout, keys.len());
        let timed_out = || (0..count).map(|_| Err(LookupError::CallTimeout { after })).collect();
        if self.view().parameters.lifetime().check(self.now()).is_err() {
            match timeout_at(deadline, self.refresh()).await {
                Ok(refreshed) => drop(refreshed?),
                Err(_) => return Ok(timed_out()),
            }
        }
        let view = self.view().clone();
        let keys: Vec<_> = keys.iter().map(|key| Zeroizing::new(key.as_ref().to_vec())).collect();

        let started = Instant::now();
        let encrypt = compute(keys, move |keys, gone| Call::encrypt(view, keys, now, gone));
        let Ok(encrypted) = timeout_at(deadline, encrypt).await else { return Ok(timed_out()) };
        self.report.encrypt_time += started.elapsed();

        let call = self.run(encrypted??, deadline).await?;

        let started = Instant::now();
        let records = compute(call, |call, gone| call.finish(gone)).await?;
        self.report.decode_time += started.elapsed();
        self.sent.sort_by_key(|&(index, _)| index);
        self.report.queries.extend(self.sent.drain(..).map(|(_, query)| query));
        Ok(records)
    }

    /// Says good-bye, so that the server need not wait for the connection to fall silent, and gives
    /// the pins back for the next session. A client that is merely dropped is also safe, but a
    /// program that then ends at once leaves the server with a connection that it holds for alive.
    /// When it is said must not depend on an outcome.
    pub async fn close(mut self) -> Pins {
        self.left.shutdown().await;
        for link in self.spare.get().into_iter().chain(&self.link) {
            link.close();
        }
        self.dialer.close().await;
        self.rules.pins
    }

    /// After this long without a reply a frame is sent to another replica too.
    fn hedge_after(&self) -> Duration {
        self.answer_timeout / limits::HEDGE_AFTER_PART
    }

    /// What is known of this database by now, for the next session.
    pub fn pins(&self) -> &Pins {
        &self.rules.pins
    }

    /// The key the parameters are signed with: the pinned one, or on first use the one shown.
    pub fn operator_key(&self) -> OperatorKey {
        self.pins().operator_key().expect("this is a bug: connected without an operator's key")
    }

    /// The database's parameters as last fetched.
    pub fn parameters(&self) -> &PublicParameters {
        &self.view().parameters
    }

    /// What the last call sent and took.
    pub fn last_call(&self) -> &CallReport {
        &self.report
    }

    /// Unix seconds.
    fn now(&self) -> u64 {
        (self.clock)().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
    }

    fn view(&self) -> &Arc<View> {
        self.view.as_ref().expect("this is a bug: connected without parameters")
    }
}

/// The answers of one call, decoded in constant time and not looked at.
pub struct Answers {
    records: Vec<Result<Extracted, LookupError>>,
}

impl Answers {
    /// What each look-up ends in, in the order of the keys. Its time depends on the outcomes: where
    /// the connection ends with this call, [`Client::close`] comes before.
    pub fn open(self) -> Vec<Result<Outcome, LookupError>> {
        let open = |record: Result<Extracted, _>| record.map(|record| record.outcome());
        self.records.into_iter().map(open).collect()
    }
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
/// dropped before the thread begins, its input is dropped at once, and so the secrets in it; when
/// the thread is at work, as soon as it has looked at `Cancelled`; later, its result.
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
        let runtime = runtime();
        runtime.block_on(async {
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
