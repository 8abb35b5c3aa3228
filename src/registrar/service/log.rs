//! Statements on their way to the log: soon after they were vouched for, many in one request. While
//! the log is away they wait in the database, and registrations go on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use crate::limits::log::{BATCH_ENTRIES_MAX, REQUEST_TIME};
use crate::registrar::log::client::{AppendError, LogClient, submit_pending, waiting};
use crate::registrar::registrations::Core;
use crate::registrar::service::chores::note;
use crate::registrar::service::config::Config;
use crate::registrar::service::counters::Submission;
use crate::registrar::service::errors::RegistrarError;
use crate::registrar::service::events::client;
use crate::registrar::service::shared::Service;
use crate::registrar::{Store, StoreError};

/// After a statement was vouched for: for those that follow it to go with it.
const GATHER_TIME: Duration = Duration::from_millis(100);
/// Between two looks at the queue, for what another process on the same database left there.
const LOOK_TIME: Duration = Duration::from_secs(5);
/// Between two attempts while the log is away: at first, and at most.
const RETRY_TIME: Duration = Duration::from_secs(1);
const RETRY_TIME_MAX: Duration = Duration::from_secs(60);

/// The log that a registrar submits to.
pub(crate) struct Log {
    client: RwLock<LogClient>,
    /// Another client was taken up: it is tried at once.
    replaced: Notify,
    is_away: AtomicBool,
}

impl Log {
    /// The log of the configuration, if it names one. Reads certificates.
    pub(crate) fn new(config: &Config) -> Result<Option<Self>, RegistrarError> {
        let Some(client) = log_client(config)? else { return Ok(None) };
        let (replaced, is_away) = (Notify::new(), AtomicBool::new(false));
        Ok(Some(Self { client: RwLock::new(client), replaced, is_away }))
    }

    /// Reads certificates again.
    pub(crate) fn reload(&self, config: &Config) -> Result<(), RegistrarError> {
        if let Some(client) = log_client(config)? {
            *self.client.write().unwrap_or_else(PoisonError::into_inner) = client;
            self.replaced.notify_one();
        }
        Ok(())
    }

    /// What the operator is to know while the log takes nothing.
    pub(crate) fn missing(&self) -> Option<String> {
        let is_away = self.is_away.load(Ordering::Relaxed);
        is_away.then(|| "the log takes no statements; they wait".to_owned())
    }

    fn client(&self) -> LogClient {
        self.client.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes whether the log takes statements. Logged when that is news.
    fn noted(&self, taken: Result<(), &AppendError>) {
        let was_away = self.is_away.swap(taken.is_err(), Ordering::Relaxed);
        match taken {
            Ok(()) if was_away => tracing::info!("the log takes statements again"),
            Err(error) if !was_away => {
                tracing::error!(%error, "the log takes no statements; they wait");
            }
            _ => {}
        }
    }

    /// Submits some of what waits, and notes what came of it. Says how many the log has taken; none
    /// where it has to be tried again later.
    async fn submit(&self, service: &Service, core: &Core) -> Option<usize> {
        let submitted = submit_pending(core.store(), &self.client()).await;
        let outcome = match &submitted {
            // Nobody was asked.
            Ok(0) => None,
            Ok(_) => Some(Submission::Done),
            Err(AppendError::Refused { .. }) => Some(Submission::Refused),
            Err(AppendError::Store(_) | AppendError::Random(_)) => Some(Submission::Failed),
            Err(AppendError::Https(_) | AppendError::Reply | AppendError::NoProof) => {
                Some(Submission::Away)
            }
        };
        if let Some(outcome) = outcome {
            service.counters.submission(outcome);
        }
        match submitted {
            // Where nothing waits any more the log has taken it, if from another process.
            Ok(count) => {
                self.noted(Ok(()));
                Some(count)
            }
            Err(AppendError::Store(error)) => {
                note(service, Err(error));
                None
            }
            Err(error) => {
                self.noted(Err(&error));
                None
            }
        }
    }
}

/// Submits what waits for the log. Does not end.
pub(crate) async fn submit_all(service: Arc<Service>, log: Arc<Log>) {
    let mut retry_time = RETRY_TIME;
    loop {
        service.health.until(true).await;
        let Some(core) = service.core() else { continue };
        let submitted = log.submit(&service, core).await;
        if let Err(error) = look(&service, core.store()).await {
            note(&service, Err(error));
        }
        match submitted {
            // More may wait.
            Some(count) if count >= BATCH_ENTRIES_MAX => retry_time = RETRY_TIME,
            Some(_) => {
                retry_time = RETRY_TIME;
                if timeout(LOOK_TIME, service.vouched.notified()).await.is_ok() {
                    sleep(GATHER_TIME).await;
                }
            }
            None => {
                let _ = timeout(retry_time, log.replaced.notified()).await;
                retry_time = (2 * retry_time).min(RETRY_TIME_MAX);
            }
        }
    }
}

/// How much waits, and for how long.
async fn look(service: &Service, store: &Store) -> Result<(), StoreError> {
    let found = waiting(store).await?;
    let age = found.oldest.map_or(0, |oldest| service.now().saturating_sub(oldest));
    service.counters.log_waiting.store(found.count, Ordering::Relaxed);
    service.counters.log_age.store(age, Ordering::Relaxed);
    Ok(())
}

fn log_client(config: &Config) -> Result<Option<LogClient>, RegistrarError> {
    let Some(log) = &config.log else { return Ok(None) };
    let client = client(config, "authority of the log", &log.ca, REQUEST_TIME)?;
    Ok(Some(LogClient::new(client.map_err(RegistrarError::Log)?, &log.url)))
}
