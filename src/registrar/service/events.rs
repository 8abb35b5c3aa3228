//! Events to other discovery providers: a mapping with `new_holder`, which voids those there. Each
//! is sent until its receiver acknowledges it; when it is due again, the core says.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use crate::https::{Client, HttpsError};
use crate::registrar::registrations::{Core, Event};
use crate::shard::files::read_regular;
use http::Method;
use tokio::task::JoinSet;
use zeroize::Zeroizing;

use crate::registrar::StoreError;
use crate::registrar::service::config::Config;
use crate::registrar::service::counters::Outcome;
use crate::registrar::service::errors::RegistrarError;
use crate::registrar::service::shared::Service;

/// How long one attempt may take.
const TELL_TIME: Duration = Duration::from_secs(10);
/// The longest reply that is read.
const REPLY_BYTES_MAX: usize = 64 << 10;
const PEM_BYTES_MAX: u64 = 4 << 20;

/// How other discovery providers are reached.
pub(crate) struct Events(RwLock<Arc<Others>>);

struct Others {
    /// None where there are no other discovery providers.
    client: Option<Client>,
    /// Addresses by domain.
    urls: BTreeMap<String, String>,
}

impl Events {
    /// Reads certificates.
    pub(crate) fn new(config: &Config) -> Result<Self, RegistrarError> {
        Ok(Self(RwLock::new(Arc::new(others(config)?))))
    }

    /// Reads certificates again.
    pub(crate) fn reload(&self, config: &Config) -> Result<(), RegistrarError> {
        let others = others(config)?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(others);
        Ok(())
    }

    /// Tells every receiver what is due, all of them at once and each in its order. One that does
    /// not answer costs the others nothing.
    pub(crate) async fn deliver(
        &self,
        service: &Arc<Service>,
        core: &Core,
    ) -> Result<(), StoreError> {
        let others = self.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        let mut by_receiver: BTreeMap<String, Vec<Event>> = BTreeMap::new();
        for event in core.pending_events(service.now()).await? {
            by_receiver.entry(event.dp.clone()).or_default().push(event);
        }
        let mut told = JoinSet::new();
        for (receiver, events) in by_receiver {
            let (others, service) = (others.clone(), service.clone());
            told.spawn(async move { others.tell_all(&service, &receiver, events).await });
        }
        while let Some(told) = told.join_next().await {
            told.unwrap_or(Ok(()))?;
        }
        Ok(())
    }
}

impl Others {
    /// Tells one receiver of one event after the other. After the first that fails the others fail
    /// too: it is away.
    async fn tell_all(
        &self,
        service: &Service,
        receiver: &str,
        events: Vec<Event>,
    ) -> Result<(), StoreError> {
        let Some(core) = service.core() else { return Ok(()) };
        let mut is_away = false;
        for event in events {
            // What is tried again waits from the moment of the attempt on.
            let now = service.now();
            let told = if is_away { None } else { Some(self.tell(receiver, &event).await) };
            match told {
                Some(Ok(())) => {
                    service.counters.event(Outcome::Done);
                    core.event_acknowledged(&event).await?;
                    continue;
                }
                Some(Err(why)) => {
                    service.counters.event(Outcome::Failed);
                    tracing::warn!("{receiver} was not told of a new holder: {why}");
                    is_away = true;
                }
                None => {}
            }
            core.event_failed(&event, now).await?;
        }
        Ok(())
    }

    /// Tells one receiver of one event; what is wrong otherwise.
    async fn tell(&self, receiver: &str, event: &Event) -> Result<(), String> {
        let (Some(client), Some(url)) = (&self.client, self.urls.get(receiver)) else {
            return Err("found no address of it, expected one in [[dp]]".into());
        };
        let url = format!("{}/v1/events", url.trim_end_matches('/'));
        let body = serde_json::json!({ "statement": &event.statement }).to_string();
        // The receiver knows the event by this name when it comes again.
        let key = ("idempotency-key", &*event.registration);
        let headers = [("content-type", "application/json"), key];
        let sent = client.send(Method::POST, &url, &headers, body.into(), REPLY_BYTES_MAX);
        match sent.await.map_err(|error| error.to_string())?.status {
            200..300 => Ok(()),
            status => Err(format!("found status {status}, expected success")),
        }
    }
}

fn others(config: &Config) -> Result<Others, RegistrarError> {
    let urls = config.dps.iter().map(|dp| (dp.domain.clone(), dp.url.clone())).collect();
    if config.dps.is_empty() {
        return Ok(Others { client: None, urls });
    }
    let client = client(config, "authority (dp-ca)", &config.dp_ca, TELL_TIME)?;
    Ok(Others { client: Some(client.map_err(RegistrarError::Client)?), urls })
}

/// A client that shows the registrar's certificate to servers of an authority; why there is none
/// though all files could be read.
pub(crate) fn client(
    config: &Config,
    authority: &'static str,
    ca: &Path,
    time: Duration,
) -> Result<Result<Client, HttpsError>, RegistrarError> {
    let read = |what, path: &Path| {
        let unreadable =
            |source| RegistrarError::Unreadable { what, path: path.to_owned(), source };
        read_regular(path, PEM_BYTES_MAX).map_err(unreadable)
    };
    let ca = read(authority, ca)?;
    let cert = read("certificate", config.client_cert.as_ref().unwrap_or(&config.cert))?;
    let key = config.client_key.as_ref().unwrap_or(&config.key);
    let key = Zeroizing::new(read("private key", key)?);
    Ok(Client::new(Some(&ca), Some((&cert, &key)), time))
}
