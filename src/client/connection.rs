//! A connection to a database: which server is asked, what is known of the database, and how
//! parameters are fetched. Look-ups begin in [`super::ask`].

use std::collections::HashMap;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::call::View;
use super::error::{ClientError, LookupError, ParameterError};
use super::exchange::{ask, parameter_reply, parameter_request};
use super::hints::HintCache;
use super::link::{Dialer, Link};
use super::options::Options;
use super::report::{CallReport, SentQuery};
use super::retry::{Action, FailedAttempt, Outage, Via, action, backoff};
use super::routes::Routes;
use super::trust::{OperatorKey, Pins, Rules};
use crate::limits;
use crate::wire::PublicParameters;
use crate::wire::message::{Limits, PirParameterResponse};

/// A connection to a database, with what is known of it. See the [module](super).
pub struct Client {
    pub(super) options: Options,
    pub(super) routes: Routes,
    /// Connections that are being made, though nobody waits for them now.
    pub(super) dialing: JoinSet<()>,
    /// Servers of shards that cannot be reached in this call: since when, and how often that was
    /// tried.
    pub(super) unreached: HashMap<Vec<usize>, (Instant, u32)>,
    /// Whether slow frames of this call may be sent to another replica too.
    pub(super) hedging: bool,
    /// Frames whose queries were answered elsewhere.
    pub(super) left: JoinSet<()>,
    rules: Rules,
    view: Option<Arc<View>>,
    /// The reply whose parameters are in use, with their signature.
    signed: PirParameterResponse,
    pub(super) allowance: Allowance,
    pub(super) outage: Outage,
    pub(super) hints: HintCache,
    pub(super) report: CallReport,
    /// Answered queries of this part of a call, with the places of their keys.
    pub(super) sent: Vec<(usize, SentQuery)>,
}

/// What the server lets one connection do, within our own bounds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Allowance {
    queries_per_batch: usize,
    pub(super) in_flight: usize,
    pub(super) bundles: usize,
}

impl Allowance {
    fn new(said: Limits) -> Self {
        let within = |found: u32, max: u32| found.clamp(1, max) as usize;
        Self {
            queries_per_batch: within(said.queries_per_batch, limits::QUERIES_PER_FRAME_MAX),
            in_flight: within(said.batches_in_flight, limits::FRAMES_IN_FLIGHT_WANTED),
            bundles: within(said.bundles_per_connection, limits::BUNDLES_PER_CONNECTION),
        }
    }

    pub(super) fn frame_queries(&self, waiting: usize, query_bytes: usize) -> usize {
        let spread = waiting.div_ceil(self.in_flight).max(limits::FRAME_QUERIES_WANTED);
        let fitting = (limits::FRAME_BYTES_WANTED / query_bytes.max(1)).max(1);
        spread.min(fitting).min(self.queries_per_batch)
    }
}

impl Client {
    /// Connects, fetches the database's parameters and checks them.
    ///
    /// # Errors
    /// [`ClientError::Parameters`] when the database must not be used.
    pub async fn connect(options: Options) -> Result<Self, ClientError> {
        options.check()?;
        let mut client = Self {
            routes: Routes::new(&options, Arc::new(Dialer::new(&options)?)),
            dialing: JoinSet::new(),
            unreached: HashMap::new(),
            hedging: true,
            left: JoinSet::new(),
            rules: Rules::new(options.pins.clone(), options.records_per_shard_min),
            view: None,
            signed: PirParameterResponse::default(),
            allowance: Allowance::new(Limits::default()),
            outage: Outage::new(options.unreachable_max),
            hints: HintCache::new(limits::HINT_CACHE_BYTES),
            report: CallReport::default(),
            sent: Vec::new(),
            options: Options { identity_pem: None, ..options }, // the dialer has the private key
        };
        let longest = client.options.call_timeout;
        let begin = async {
            client.link().await?; // without retries: a missing server is reported at once
            client.refresh().await
        };
        let begun = timeout(longest, begin).await.unwrap_or_else(|_| {
            let reason = format!("none within {longest:?}");
            Err(ClientError::NoParameters { reason })
        });
        if let Err(error) = begun {
            drop(client.close().await);
            return Err(error);
        }
        if client.options.pins.operator_key().is_none() {
            let key = client.operator_key();
            tracing::warn!(
                fingerprint = key.fingerprint(),
                "the operator's key is believed on first use: compare it with what the operator \
                 publishes, then pin it"
            );
        }
        Ok(client)
    }

    /// Closes the connection, so that the server need not wait for it to fall silent, and gives the
    /// pins back for the next session. The time of this must not depend on an outcome.
    pub async fn close(mut self) -> Pins {
        self.left.shutdown().await;
        self.dialing.shutdown().await;
        self.routes.dialer.close().await;
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

    /// The same as they came: fields 16, 17 and 18 of the reply, for whoever hands them on.
    pub fn signed_parameters(&self) -> &PirParameterResponse {
        &self.signed
    }

    /// Fetches the parameters again, to see whether there is a new epoch.
    ///
    /// # Errors
    /// No server gives any, or those that it gives must not be used; those before stay.
    pub async fn fetch_parameters(&mut self) -> Result<(), ClientError> {
        self.outage = Outage::new(self.options.unreachable_max);
        self.refresh().await
    }

    /// What the last call did.
    pub fn last_call(&self) -> &CallReport {
        &self.report
    }

    pub(super) fn view(&self) -> &Arc<View> {
        self.view.as_ref().expect("this is a bug: connected without parameters")
    }

    /// Unix seconds.
    pub(super) fn now(&self) -> u64 {
        (self.options.clock)().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
    }

    /// Tries until there is a connection or the outage has lasted too long. A try that finds no
    /// server is no attempt of a look-up: nothing went out.
    async fn reach(&mut self) -> Result<Arc<Link>, ClientError> {
        let mut tries = 0;
        loop {
            let left = self.outage.left(Instant::now())?;
            let failed = match timeout(left, self.link()).await {
                Ok(Ok(link)) => return Ok(link),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no address answered".to_owned(),
            };
            let now = Instant::now();
            self.outage.silent(&failed, now);
            tries += 1;
            sleep(backoff(tries).min(self.outage.left(now)?)).await;
        }
    }

    /// A connection to any server: an open one or a new one.
    pub(super) async fn link(&mut self) -> Result<Arc<Link>, ClientError> {
        self.routes.note_silent();
        if let Some(link) = self.routes.any_open() {
            return Ok(link);
        }
        let order = self.routes.order(None);
        let link = self.routes.dialer.clone().first_of(order.clone()).await?;
        self.routes.passed_over(&order, link.replica);
        Ok(link)
    }

    /// Fetches and checks parameters, with retries, and remembers what they pin.
    pub(super) async fn refresh(&mut self) -> Result<(), ClientError> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let link = self.reach().await?;
            let replicas = self.routes.dialer.replica_count();
            let lagging = match self.ask_parameters(&link).await {
                Ok(reply) => match self.accept(&reply) {
                    // This replica lags behind the others: the next one may not.
                    Err(error) if replicas > 1 && error.is_of_one_replica() => error.to_string(),
                    decided => return Ok(decided?),
                },
                Err(failed) => match action(&failed, attempts, replicas) {
                    Action::Resend { via, wait } => {
                        self.routes.go(&link, via, None);
                        sleep(wait).await;
                        continue;
                    }
                    Action::Fail(LookupError::NotAllowed { reason }) => {
                        return Err(ClientError::NotAllowed { reason });
                    }
                    _ => return Err(ClientError::NoParameters { reason: failed.detail }),
                },
            };
            if attempts >= limits::ATTEMPTS_MAX {
                return Err(ClientError::NoParameters { reason: lagging });
            }
            self.routes.go(&link, Via::Replica, None);
            sleep(limits::RETRY_WAIT_MIN).await;
        }
    }

    async fn ask_parameters(&mut self, link: &Link) -> Result<PirParameterResponse, FailedAttempt> {
        let wait = self.options.answer_timeout;
        let exchange = ask(&link.connection, parameter_request(None), None, 1, wait).await;
        self.report.count(exchange.bytes_up, exchange.bytes_down);
        self.outage.note(exchange.is_heard(), exchange.lost());
        parameter_reply(exchange)
    }

    fn accept(&mut self, reply: &PirParameterResponse) -> Result<(), ParameterError> {
        let parameters = self.rules.accept(reply, self.now())?;
        if let Some(placement) = &self.options.placement {
            placement.check_shard_count(parameters.shard_count())?;
        }
        self.allowance = Allowance::new(reply.limits.unwrap_or_default());
        self.view = Some(Arc::new(View { parameters, digests: reply.hint_digests.clone() }));
        self.signed = reply.clone();
        Ok(())
    }
}
