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
//! - Dropping a call's future wipes its secrets and takes its queries off the server.
//! - [`Pins`] are everything a client knows of a database. A client takes them and gives them back
//!   ([`Client::pins`], [`Client::close`]): store them after connecting and at the end, and begin
//!   the next session with them; what must not change then cannot change unnoticed.
//! - Parameters have an end ([`crate::wire::Lifetime`]): a client that goes on past it fetches new
//!   ones at its next call, and refuses to look up if there are none.
//!
//! What this module does not do: dummies and padding of batches (the front-end's, see scheme.md,
//! "What an observer learns"), keeping values, looking up on its own schedule.
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
//! Read next: `retry.rs` (wire.md's table as a function), then `call.rs`, then `exchange.rs`.

mod call;
mod error;
mod exchange;
mod hints;
#[cfg(feature = "server")]
mod line;
mod net;
mod options;
mod outage;
mod report;
mod retry;
mod trust;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use zeroize::Zeroizing;

use crate::keyword::Extracted;
pub use crate::keyword::Outcome;
pub use error::{ClientError, LookupError, ParameterError, PinsError};
pub use options::{Options, Replica};
pub use report::{CallReport, SentQuery};
pub use trust::{OperatorKey, Pins};

#[cfg(feature = "server")]
pub(crate) use self::{
    call::{Sending, check_answer},
    line::Line,
    net::{End, Heard},
};

use crate::limits;
use crate::wire::PublicParameters;
use call::{Call, View};
use exchange::{Allowance, Link};
use hints::HintCache;
use net::Dialer;
use outage::Outage;
use retry::Via;
use trust::Rules;

/// A connection to a database, with what is known of it. See the [module](self).
pub struct Client {
    dialer: Dialer,
    link: Option<Link>,
    rules: Rules,
    clock: fn() -> SystemTime,
    view: Option<Arc<View>>,
    allowance: Allowance,
    outage: Outage,
    unreachable_max: Duration,
    hints: HintCache,
    answer_timeout: Duration,
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
            dialer: Dialer::new(&options)?,
            link: None,
            rules: Rules::new(options.pins.clone(), options.records_per_shard_min),
            clock: options.clock,
            view: None,
            allowance: Allowance::new(None),
            outage: Outage::new(options.unreachable_max),
            unreachable_max: options.unreachable_max,
            hints: HintCache::new(limits::HINT_CACHE_BYTES),
            answer_timeout: options.answer_timeout,
            deadline: options.deadline,
            report: CallReport::default(),
            sent: Vec::new(),
        };
        if let Err(error) = client.begin().await {
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
    /// all that still wait.
    pub async fn ask<K: AsRef<[u8]>>(&mut self, keys: &[K]) -> Result<Answers, ClientError> {
        if keys.len() > limits::KEYS_PER_CALL_MAX {
            return Err(ClientError::TooManyKeys { found: keys.len() });
        }
        self.report = CallReport::default();
        self.sent.clear();
        self.outage = Outage::new(self.unreachable_max);
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
                        Err(error @ LookupError::Unreachable { .. }) => Some(error.clone()),
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
        if self.view().parameters.lifetime().check(self.now()).is_err() {
            self.refresh().await?;
        }
        let view = self.view().clone();
        let keys: Vec<_> = keys.iter().map(|key| Zeroizing::new(key.as_ref().to_vec())).collect();

        let started = Instant::now();
        let now = tokio::time::Instant::now();
        let call = compute(move || Call::encrypt(view, keys, now)).await??;
        self.report.encrypt_time += started.elapsed();

        let call = self.run(call).await?;

        let started = Instant::now();
        let records = compute(move || call.finish()).await?;
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
        self.go(Via::Reconnect);
        self.dialer.close().await;
        self.rules.pins
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

/// Encrypts or decodes on a thread of its own: async code moves bytes only. When the caller is
/// dropped meanwhile, the result is dropped with it, and so the secrets in it.
async fn compute<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ClientError> {
    tokio::task::spawn_blocking(work).await.map_err(|e| ClientError::Computing(e.to_string()))
}
