//! Text messages through a message centre that speaks SMPP 3.4.
//!
//! One connection is kept, and made again when it ends. At most 16 messages are without an answer
//! (the window). A message that got no answer in time keeps its place in
//! the window until the answer comes or the connection ends: the centre may still be at work on it.
//! A centre that throttles gets the message again, more slowly; nothing else is ever sent twice.
//!
//! The library below logs whole PDUs, numbers and texts included: what runs the connection runs
//! without a log.

mod pdu;

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use rusmpp::pdus::{DeliverSmResp, SubmitSm, SubmitSmResp};
use rusmpp::{Command, CommandStatus, Pdu};
use rusmppc::error::Error;
use rusmppc::{Client, ConnectionBuilder, Event};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;
use tracing::instrument::WithSubscriber as _;
use tracing::subscriber::NoSubscriber;

use crate::registrar::channels::config::{ConfigError, SmppConfig};
use crate::registrar::channels::files::{self, IsPlain};
use crate::registrar::channels::gateway::{Gateway, Receipt, Refused, Sending, backoff};
use crate::registrar::channels::message::Message;
use crate::registrar::channels::pace::Pace;
use crate::registrar::channels::receipts::Receipts;

/// Most messages without an answer.
pub(crate) const WINDOW: usize = 16;
/// Time for an address, a connection, TLS and bind together.
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// How long a centre may take for the answer to its enquire_link.
const ENQUIRE_LINK_ANSWER_TIME: Duration = Duration::from_secs(5);
/// An answer that has not come after so long never will: the connection is made again, because the
/// place in the window would be lost otherwise.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(60);
/// A connection that lasted so long is made again at once.
const LASTING: Duration = Duration::from_secs(30);
/// Longest PDU that is read: a receipt has some hundred bytes.
const PDU_BYTES_MAX: usize = 4_096;

pub(crate) struct Smpp {
    link: Arc<Link>,
    supervisor: JoinHandle<()>,
}

struct Link {
    name: String,
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    identity: pdu::Identity,
    receipts_wanted: bool,
    enquire_link: Duration,
    state: Mutex<State>,
    pace: Pace,
    receipts: Receipts,
}

enum State {
    Up(Session),
    Down { until: Instant },
}

/// A connection on which the centre has accepted our bind.
#[derive(Clone)]
struct Session {
    client: Client,
    window: Arc<Semaphore>,
}

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
enum NoSession {
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    #[error("no TLS: {0}")]
    Tls(io::Error),
    #[error("the centre refused the bind with {0:?}; check the credentials and system-type")]
    Bind(CommandStatus),
    #[error("the connection ended before the centre answered the bind")]
    Ended,
    #[error("not bound within {} s", CONNECT_TIME.as_secs())]
    Late,
}

impl Smpp {
    /// Begins to connect.
    pub(crate) fn start(name: &str, config: &SmppConfig) -> Result<Self, ConfigError> {
        let bad = |detail: &str| ConfigError::Gateway {
            name: name.to_owned(),
            detail: detail.to_owned(),
        };
        let Some((host, port)) = files::host_and_port(&config.address) else {
            return Err(bad("expected an address such as smsc.example:2776"));
        };
        let tls = match config.tls {
            true => Some((
                connector(config)?,
                server_name(&host).map_err(|()| {
                    bad("the host of address is no name or address that a certificate can have")
                })?,
            )),
            false => None,
        };
        if !(1_000..=600_000).contains(&config.enquire_link_ms) {
            return Err(bad("expected enquire-link-ms from 1 000 to 600 000"));
        }
        let known = files::credentials(&config.credentials)?;
        let link = Arc::new(Link {
            name: name.to_owned(),
            host,
            port,
            tls,
            identity: pdu::Identity::new(config, &known).map_err(bad)?,
            receipts_wanted: config.receipts,
            enquire_link: Duration::from_millis(config.enquire_link_ms),
            state: Mutex::new(State::Down { until: Instant::now() }),
            pace: Pace::default(),
            receipts: Receipts::default(),
        });
        let supervisor = tokio::spawn(link.clone().keep_connected());
        Ok(Self { link, supervisor })
    }
}

impl Drop for Smpp {
    fn drop(&mut self) {
        // The connection's task ends with the last client.
        self.supervisor.abort();
        self.link.set(State::Down { until: Instant::now() });
    }
}

impl Gateway for Smpp {
    fn send<'a>(&'a self, message: &'a Message) -> Sending<'a> {
        Box::pin(self.link.submit(message))
    }

    fn down_for(&self) -> Option<Duration> {
        match &*self.link.state() {
            State::Up(_) => None,
            State::Down { until } => Some(until.saturating_duration_since(Instant::now())),
        }
    }
}

impl Link {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, state: State) {
        let before = std::mem::replace(&mut *self.state(), state);
        if let State::Up(session) = before {
            session.window.close();
        }
    }

    fn session(&self) -> Result<Session, Refused> {
        match &*self.state() {
            State::Up(session) => Ok(session.clone()),
            State::Down { .. } => Err(Refused::Down),
        }
    }

    /// Hands a message over, again where the centre throttles.
    async fn submit(&self, message: &Message) -> Result<Receipt, Refused> {
        let submit = self.identity.submit(message, self.receipts_wanted)?;
        loop {
            self.pace.turn().await;
            let session = self.session()?;
            let place = session.window.clone().acquire_owned().await;
            let place = place.map_err(|_| Refused::Down)?;
            let handed = Instant::now();
            // A task of its own: it keeps the place when this future is dropped.
            let answer = tokio::spawn(answer(session, place, submit.clone())).await;
            match answer.map_err(|_| Refused::Late)? {
                Ok(answer) => {
                    self.pace.took();
                    let id = answer.message_id().as_str();
                    if !self.receipts_wanted || id.is_empty() {
                        return Ok(Receipt::None);
                    }
                    return Ok(Receipt::Awaited(self.receipts.wait_for(id)));
                }
                Err(Error::UnexpectedResponse { response }) => match response.status() {
                    CommandStatus::EsmeRthrottled | CommandStatus::EsmeRmsgqful => {
                        self.pace.throttled(handed);
                    }
                    status => {
                        tracing::debug!(gateway = self.name, ?status, "a message was refused");
                        return Err(Refused::Rejected);
                    }
                },
                Err(_) => return Err(Refused::Late),
            }
        }
    }

    /// Connects, and again whenever the connection ends.
    async fn keep_connected(self: Arc<Self>) {
        let mut failures = 0_u32;
        loop {
            let connecting = timeout(CONNECT_TIME, self.connect()).await;
            match connecting.unwrap_or(Err(NoSession::Late)) {
                Ok((session, events)) => {
                    tracing::info!(gateway = self.name, "the message centre has accepted the bind");
                    let since = Instant::now();
                    self.set(State::Up(session.clone()));
                    self.serve(session, events).await;
                    tracing::warn!(gateway = self.name, "the connection to the centre ended");
                    failures = if since.elapsed() >= LASTING { 0 } else { failures };
                }
                Err(why) => {
                    tracing::warn!(gateway = self.name, %why, "the message centre is not there");
                }
            }
            failures = failures.saturating_add(1);
            let wait = backoff(failures);
            self.set(State::Down { until: Instant::now() + wait });
            sleep(wait).await;
        }
    }

    async fn connect(&self) -> Result<(Session, Events), NoSession> {
        let is_plain = if self.tls.is_none() { IsPlain::Yes } else { IsPlain::No };
        let addresses = files::addresses(&self.host, self.port, is_plain).await;
        let stream = TcpStream::connect(&*addresses.map_err(NoSession::Connect)?).await;
        let stream = stream.map_err(NoSession::Connect)?;
        // Only slower where this fails.
        let _ = stream.set_nodelay(true);
        match &self.tls {
            None => self.bind(stream).await,
            Some((connector, name)) => {
                let stream = connector.connect(name.clone(), stream).await;
                self.bind(stream.map_err(NoSession::Tls)?).await
            }
        }
    }

    async fn bind<S>(&self, stream: S) -> Result<(Session, Events), NoSession>
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (client, events, connection) = ConnectionBuilder::new()
            .max_command_length(PDU_BYTES_MAX)
            .enquire_link_interval(self.enquire_link)
            .enquire_link_response_timeout(ENQUIRE_LINK_ANSWER_TIME)
            .no_response_timeout()
            .disable_interface_version_check()
            .no_spawn()
            .connected(stream);
        tokio::spawn(driven(connection).with_subscriber(NoSubscriber::default()));
        match client.bind_transceiver(self.identity.bind()).await {
            Ok(_) => {
                let window = Arc::new(Semaphore::new(WINDOW));
                Ok((Session { client, window }, Box::new(events)))
            }
            Err(Error::UnexpectedResponse { response }) => Err(NoSession::Bind(response.status())),
            Err(_) => Err(NoSession::Ended),
        }
    }

    /// Takes what comes from the centre until the connection ends.
    async fn serve(&self, session: Session, mut events: Events) {
        while let Some(event) = events.next().await {
            let Event::Incoming(command) = event else { return };
            if self.take(&session.client, &command).await.is_err() {
                return;
            }
        }
    }

    async fn take(&self, client: &Client, command: &Command) -> Result<(), Error> {
        let number = command.sequence_number();
        match command.pdu() {
            Some(Pdu::DeliverSm(deliver)) => {
                if let Some((id, delivery)) = pdu::receipt(deliver) {
                    self.receipts.came_maybe_early(&id, delivery);
                }
                // What people write back is acknowledged and dropped.
                client.deliver_sm_resp(number, DeliverSmResp::default()).await
            }
            Some(Pdu::Unbind) => {
                client.unbind_resp(number).await?;
                client.close().await
            }
            // An answer that came too late has its place in the window given back by its task.
            _ => Ok(()),
        }
    }
}

type Events = Box<dyn Stream<Item = Event> + Send + Unpin>;

/// Sends a message and waits for the answer, for as long as one may come.
async fn answer(
    session: Session,
    _place: OwnedSemaphorePermit,
    submit: SubmitSm,
) -> Result<SubmitSmResp, Error> {
    match timeout(ANSWER_TIME_MAX, session.client.submit_sm(submit)).await {
        Ok(answer) => answer,
        Err(_) => {
            session.client.close().await?;
            Err(Error::ConnectionClosed)
        }
    }
}

fn connector(config: &SmppConfig) -> Result<TlsConnector, ConfigError> {
    let roots = files::authorities(&config.authorities)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring knows the protocol versions of rustls")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(tls)))
}

fn server_name(host: &str) -> Result<ServerName<'static>, ()> {
    ServerName::try_from(host.to_owned()).map_err(|_| ())
}

/// Runs the library's connection. In one poll it looks at five commands at most and writes two or
/// three, and does not ask to be polled again for the others (rusmppc 0.4.0, `connection.rs`): they
/// would lie there until something comes from the centre. So it is polled often enough for a full
/// window.
async fn driven(connection: impl Future<Output = ()>) {
    let mut connection = pin!(connection);
    poll_fn(|context| {
        for _ in 0..2 * WINDOW {
            if connection.as_mut().poll(context).is_ready() {
                return Poll::Ready(());
            }
        }
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests;
