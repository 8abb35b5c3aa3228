//! What a registrar does by itself: it connects to the database and looks after it, brings states
//! up to date, erases what is old, asks whether numbers changed hands, and tells other discovery
//! providers of new holders. What it vouched for goes to the log by `log.rs`.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::registrar::registrations::{Core, Transition};
use sqlx::Row as _;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use crate::registrar::service::counters::Outcome;
use crate::registrar::service::events::Events;
use crate::registrar::service::parts::{Parts, migrations};
use crate::registrar::service::recycling::{Carrier, ask_about_stale};
use crate::registrar::service::shared::Service;
use crate::registrar::{Store, StoreError};

/// Between two attempts to reach the database, and two looks at one that answers.
const DATABASE_RETRY_TIME: Duration = Duration::from_secs(1);
const DATABASE_LOOK_TIME: Duration = Duration::from_secs(5);
/// Between two rounds of bringing states up to date.
const SWEEP_TIME: Duration = Duration::from_secs(60);
/// Between two rounds of erasing.
const PURGE_TIME: Duration = Duration::from_secs(3_600);
/// Between two rounds of asking about stale numbers.
const CARRIER_TIME: Duration = Duration::from_secs(86_400);
/// Between two looks at events and at the age of the feed.
const EVENTS_TIME: Duration = Duration::from_secs(5);

/// Connects to the database, as often as it takes, and then watches it. Does not end.
pub(crate) async fn watch_database(service: Arc<Service>, database: Database) {
    let mut parts = Some(database.parts);
    while service.core().is_none() {
        match Store::open(&database.url, database.connections, &migrations()).await {
            Ok(store) => {
                if let Some(parts) = parts.take() {
                    let Parts { settings, fraud, directory } = parts;
                    service.begin(Core::new(store, settings, fraud, directory));
                }
            }
            Err(error) => {
                service.health.lost(&error);
                sleep(DATABASE_RETRY_TIME).await;
            }
        }
    }
    loop {
        if service.health.is_up() {
            // Sooner where a request found that it does not answer.
            let _ = timeout(DATABASE_LOOK_TIME, service.health.doubted()).await;
        } else {
            sleep(DATABASE_RETRY_TIME).await;
        }
        let Some(core) = service.core() else { continue };
        match sqlx::query("SELECT 1").execute(core.store().pool()).await {
            Ok(_) => service.health.found(),
            Err(_) => service.health.lost(&"the database does not answer"),
        }
    }
}

/// How the database is reached, and what the core is made of once it answers.
pub(crate) struct Database {
    pub(crate) url: String,
    pub(crate) connections: u32,
    pub(crate) parts: Parts,
}

/// Brings states up to date every minute, and erases every hour. Does not end.
pub(crate) async fn keep_up(service: Arc<Service>) {
    let mut sweeps = interval(SWEEP_TIME);
    sweeps.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut purged: Option<Instant> = None;
    loop {
        sweeps.tick().await;
        service.health.until(true).await;
        let Some(core) = service.core() else { continue };
        let is_due = purged.is_none_or(|purged| purged.elapsed() >= PURGE_TIME);
        let done = async {
            sweep(&service, core).await?;
            service.swept.notify_one();
            look_at_feed(&service, core).await?;
            if is_due {
                purge(&service, core).await?;
            }
            Ok(())
        };
        let done = done.await;
        if is_due && done.is_ok() {
            purged = Some(Instant::now());
        }
        note(&service, done);
    }
}

async fn sweep(service: &Service, core: &Core) -> Result<(), StoreError> {
    let swept = core.sweep(service.now()).await?;
    for (to, count) in [
        (Transition::Expired, swept.expired),
        (Transition::Stale, swept.stale),
        (Transition::Ended, swept.ended),
        (Transition::ProofDue, swept.proof_due),
        (Transition::Returned, swept.active),
    ] {
        service.counters.transitions(to, count);
    }
    Ok(())
}

/// How old the oldest change is that no batch has yet.
async fn look_at_feed(service: &Service, core: &Core) -> Result<(), StoreError> {
    let query = sqlx::query("SELECT MIN(since) FROM registrations WHERE feed IN (1, 3)");
    let row = query.fetch_one(core.store().pool()).await?;
    let since = row.try_get::<Option<i64>, _>(0)?.and_then(|since| u64::try_from(since).ok());
    let age = since.map_or(0, |since| service.now().saturating_sub(since));
    service.counters.feed_age.store(age, Ordering::Relaxed);
    Ok(())
}

async fn purge(service: &Service, core: &Core) -> Result<(), StoreError> {
    let purged = core.purge(service.now()).await?;
    service.counters.transitions(Transition::Erased, purged.registrations);
    Ok(())
}

/// Asks a carrier once a day, and first once states are up to date, about registrations that are
/// stale. Does not end.
pub(crate) async fn ask_carrier(service: Arc<Service>, carrier: Arc<Carrier>) {
    let mut asked: Option<Instant> = None;
    loop {
        service.swept.notified().await;
        let (Some(core), Some(recycling)) = (service.core(), carrier.get()) else { continue };
        if asked.is_some_and(|asked| asked.elapsed() < CARRIER_TIME) {
            continue;
        }
        let done = ask_about_stale(&recycling, &service, core).await;
        if done.is_ok() {
            asked = Some(Instant::now());
        }
        note(&service, done);
    }
}

/// Tells other discovery providers of new holders until they acknowledge it. Does not end.
pub(crate) async fn tell_others(service: Arc<Service>, events: Arc<Events>) {
    let mut looks = interval(EVENTS_TIME);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = looks.tick() => {}
            () = service.proved.notified() => {}
        }
        service.health.until(true).await;
        let Some(core) = service.core() else { continue };
        let told = async {
            events.deliver(&service, core).await?;
            let waiting = core.events_waiting().await?;
            service.counters.events_pending.store(waiting, Ordering::Relaxed);
            Ok(())
        };
        note(&service, told.await);
    }
}

/// Counts what was done or not; somebody looks where the database is away.
pub(crate) fn note(service: &Service, done: Result<(), StoreError>) {
    let outcome = if done.is_ok() { Outcome::Done } else { Outcome::Failed };
    service.counters.chore(outcome);
    match done {
        Ok(()) => {}
        Err(StoreError::Unavailable(_)) => service.health.doubt(),
        Err(error) => tracing::error!(%error, "what the registrar does by itself failed"),
    }
}
