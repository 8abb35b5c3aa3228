//! [`Channels`]: which gateway gets a message, and what happens until its receipt.
//!
//! Each message has a task of its own, which goes through the channel's gateways in their order,
//! each at most once. The caller is told as soon as one of them has taken the message; the task
//! then waits for the receipt, hands the message to the next gateway where none comes, and wipes
//! it. The task goes on if the caller stops waiting: a request that its client has given up still
//! sends one message, not half of one.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use crate::https::{Counter, Sample};
use crate::registrar::api::{Channel, Outgoing};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::timeout;

use crate::registrar::channels::config::{Config, ConfigError, GatewayConfig};
use crate::registrar::channels::counters::{Counters, Outcome};
use crate::registrar::channels::gateway::{Delivery, Gateway, Receipt, Refused};
use crate::registrar::channels::http::Http;
use crate::registrar::channels::loopback::Loopback;
use crate::registrar::channels::message::{self, Message, Names};
use crate::registrar::channels::receipts::{self, ReceiptError, Receipts};
use crate::registrar::channels::smpp::Smpp;
use crate::registrar::channels::smtp::Smtp;

/// An application provider as messages name it.
#[derive(Debug, Clone)]
pub struct Provider {
    /// Its domain in the directory.
    pub domain: String,
    /// The name that people know it by.
    pub name: String,
}

/// Why no gateway has taken a message. Nothing says whom it was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // Names and messages say it.
pub enum NotSent {
    #[error("as many messages wait as may; try again in {retry_after} s")]
    Busy { retry_after: u64 },
    #[error("no gateway can be reached; try again in {retry_after} s")]
    Down { retry_after: u64 },
    #[error(
        "no gateway has taken the message, and one of them may have it; ask for another code in \
         {retry_after} s"
    )]
    Unknown { retry_after: u64 },
    #[error("every gateway refused the message; check what it was to be sent to")]
    Refused,
    #[error("no gateway is configured for this channel; use another")]
    NoGateway,
    #[error(
        "the channel does not reach such an identifier; expected a number for sms and call, an \
         address for email"
    )]
    Recipient,
    #[error("the application provider has no name for messages; configure one")]
    Provider,
}

impl NotSent {
    /// In how many seconds it makes sense to try again, where it does.
    pub fn retry_after(self) -> Option<u64> {
        match self {
            Self::Busy { retry_after }
            | Self::Down { retry_after }
            | Self::Unknown { retry_after } => Some(retry_after),
            Self::Refused | Self::NoGateway | Self::Recipient | Self::Provider => None,
        }
    }
}

/// Seconds after which one that was turned away for lack of room may try again.
const BUSY_SECONDS: u64 = 5;
/// Seconds after which another code may be asked for, where nobody knows what became of this one.
const UNKNOWN_SECONDS: u64 = 30;

/// The channels, and the gateways behind them.
#[derive(Clone)]
pub struct Channels(Arc<Shared>);

struct Shared {
    dp: String,
    /// Names by domain.
    providers: RwLock<BTreeMap<String, String>>,
    gateways: Vec<Named>,
    /// By channel: places in `gateways`, in order.
    routes: [Vec<usize>; 3],
    receipt_wait: Duration,
    answer_wait: Duration,
    waiting: Arc<Semaphore>,
    waiting_max: usize,
    busy: Counter,
    /// Receipts of HTTP gateways, which name them by our tokens.
    receipts: Arc<Receipts>,
}

struct Named {
    name: String,
    gateway: Box<dyn Gateway>,
    counters: Counters,
}

impl Channels {
    /// The channels of a configuration; connections are made at once and kept. `loopback`, where
    /// there is one, comes after the configured gateways in every channel. Call it within a tokio
    /// runtime.
    ///
    /// # Errors
    /// What is wrong in the configuration, with the names of tables and fields; a file of
    /// credentials that others can read; an application provider whose messages do not fit.
    pub fn new(
        config: &Config,
        providers: &[Provider],
        loopback: Option<Loopback>,
    ) -> Result<Self, ConfigError> {
        config.check()?;
        let providers = checked(providers, &config.dp)?;
        let receipts = Arc::<Receipts>::default();
        let mut gateways = Vec::new();
        for (name, of) in &config.gateways {
            let gateway: Box<dyn Gateway> = match of {
                GatewayConfig::Smpp(smpp) => Box::new(Smpp::start(name, smpp)?),
                GatewayConfig::Http(http) => Box::new(Http::new(name, http, receipts.clone())?),
                GatewayConfig::Smtp(smtp) => Box::new(Smtp::new(name, smtp)?),
            };
            gateways.push(Named::new(name, gateway));
        }
        let mut routes = [
            route(config, "sms", &config.sms)?,
            route(config, "call", &config.call)?,
            route(config, "email", &config.email)?,
        ];
        if let Some(loopback) = loopback {
            gateways.push(Named::new("loopback", Box::new(loopback)));
            routes.iter_mut().for_each(|route| route.push(gateways.len() - 1));
        }
        Ok(Self(Arc::new(Shared {
            dp: config.dp.clone(),
            providers: RwLock::new(providers),
            gateways,
            routes,
            receipt_wait: Duration::from_millis(config.receipt_wait_ms),
            answer_wait: Duration::from_millis(config.answer_wait_ms),
            waiting: Arc::new(Semaphore::new(config.waiting_max)),
            waiting_max: config.waiting_max,
            busy: Counter::default(),
            receipts,
        })))
    }

    /// Other application providers, when the configuration is read again.
    ///
    /// # Errors
    /// One of them does not fit into messages; all stay as they were.
    pub fn replace_providers(&self, providers: &[Provider]) -> Result<(), ConfigError> {
        let providers = checked(providers, &self.0.dp)?;
        *self.0.providers.write().unwrap_or_else(PoisonError::into_inner) = providers;
        Ok(())
    }

    /// Sends a code: returns when one gateway has taken the message.
    ///
    /// # Errors
    /// No gateway has; [`NotSent::retry_after`] says when to try again.
    pub async fn send(&self, outgoing: Outgoing) -> Result<(), NotSent> {
        let shared = self.0.clone();
        let is_number = outgoing.to.digits().is_some();
        if is_number != (outgoing.channel != Channel::Email) {
            return Err(NotSent::Recipient);
        }
        if shared.route(outgoing.channel).is_empty() {
            return Err(NotSent::NoGateway);
        }
        let permit = shared.waiting.clone().try_acquire_owned().map_err(|_| {
            shared.busy.add(1);
            NotSent::Busy { retry_after: BUSY_SECONDS }
        })?;
        let message = shared.compose(&outgoing)?;
        drop(outgoing);
        let (taken, answer) = oneshot::channel();
        tokio::spawn(async move { shared.deliver(message, permit, taken).await });
        // The task always answers, unless the runtime ends.
        answer.await.unwrap_or(Err(NotSent::Unknown { retry_after: UNKNOWN_SECONDS }))
    }

    /// Whether a message could be sent now.
    ///
    /// # Errors
    /// In how many seconds to try again.
    pub fn is_up(&self, channel: Channel) -> Result<(), u64> {
        if self.0.waiting.available_permits() == 0 {
            return Err(BUSY_SECONDS);
        }
        self.0.back_in(self.0.route(channel)).map_or(Ok(()), Err)
    }

    /// A gateway's callback with a receipt: its query or form.
    ///
    /// # Errors
    /// It is not of the form expected, or nobody waits for it.
    pub fn receipt(&self, query: &str) -> Result<(), ReceiptError> {
        match receipts::parse(query)? {
            (token, Some(delivery)) => self.0.receipts.came(&token, delivery),
            (_, None) => Ok(()),
        }
    }

    /// All numbers, for an exporter.
    pub fn samples(&self) -> Vec<Sample> {
        let mut found = Vec::new();
        for named in &self.0.gateways {
            named.counters.samples(&named.name, &mut found);
            found.push(Sample {
                name: "channel_gateway_up",
                help: "Whether a gateway can be reached: 1 or 0.",
                labels: vec![("gateway", named.name.clone())],
                value: f64::from(u8::from(named.gateway.down_for().is_none())),
            });
        }
        let waiting = self.0.waiting_max - self.0.waiting.available_permits();
        found.push(Sample {
            name: "channel_waiting",
            help: "Messages that wait for a gateway's answer or receipt.",
            labels: Vec::new(),
            value: waiting as f64,
        });
        found.push(Sample {
            name: "channel_busy_total",
            help: "Messages that were refused because too many waited.",
            labels: Vec::new(),
            value: self.0.busy.get() as f64,
        });
        found
    }

    /// Channels over other gateways, in their order for every channel.
    #[cfg(test)]
    pub(crate) fn with_gateways(
        config: &Config,
        providers: &[Provider],
        gateways: Vec<(&str, Box<dyn Gateway>)>,
    ) -> Self {
        let made = Self::new(config, providers, None).unwrap();
        let mut shared = Arc::into_inner(made.0).unwrap();
        shared.routes = [(); 3].map(|()| (0..gateways.len()).collect());
        let named = gateways.into_iter().map(|(name, gateway)| Named::new(name, gateway));
        shared.gateways = named.collect();
        Self(Arc::new(shared))
    }

    #[cfg(test)]
    pub(crate) fn counted(&self, gateway: &str, outcome: Outcome) -> u64 {
        let named = self.0.gateways.iter().find(|named| named.name == gateway).unwrap();
        named.counters.get(outcome)
    }
}

impl Named {
    fn new(name: &str, gateway: Box<dyn Gateway>) -> Self {
        Self { name: name.to_owned(), gateway, counters: Counters::default() }
    }
}

impl Shared {
    fn route(&self, channel: Channel) -> &[usize] {
        &self.routes[match channel {
            Channel::Sms => 0,
            Channel::Call => 1,
            Channel::Email => 2,
        }]
    }

    fn compose(&self, outgoing: &Outgoing) -> Result<Message, NotSent> {
        let providers = self.providers.read().unwrap_or_else(PoisonError::into_inner);
        let ap = providers.get(&outgoing.ap).ok_or(NotSent::Provider)?;
        let names = Names { ap, domain: &outgoing.ap, dp: &self.dp };
        Ok(message::compose(outgoing, names, token()))
    }

    /// In how many seconds the first of these gateways may be back; none where one is there.
    fn back_in(&self, route: &[usize]) -> Option<u64> {
        let mut soonest = None::<Duration>;
        for &place in route {
            let wait = self.gateways[place].gateway.down_for()?;
            soonest = Some(soonest.map_or(wait, |soonest| soonest.min(wait)));
        }
        Some(soonest.map_or(UNKNOWN_SECONDS, |wait| wait.as_secs() + 1))
    }

    /// Hands a message to one gateway after the other until one has delivered it.
    async fn deliver(
        &self,
        message: Message,
        _permit: OwnedSemaphorePermit,
        taken: oneshot::Sender<Result<(), NotSent>>,
    ) {
        let mut taken = Some(taken);
        let mut refusals = Vec::new();
        for &place in self.route(message.channel) {
            let named = &self.gateways[place];
            let sending = timeout(self.answer_wait, named.gateway.send(&message));
            let receipt = match sending.await.unwrap_or(Err(Refused::Late)) {
                Ok(receipt) => receipt,
                Err(refused) => {
                    named.counters.add(refused.into());
                    refusals.push(refused);
                    continue;
                }
            };
            named.counters.add(Outcome::Accepted);
            if let Some(taken) = taken.take() {
                // The caller may have stopped waiting.
                let _ = taken.send(Ok(()));
            }
            let Some(outcome) = self.heard(receipt).await else { return };
            named.counters.add(outcome);
            if outcome == Outcome::Delivered {
                return;
            }
        }
        if let Some(taken) = taken {
            let _ = taken.send(Err(self.not_sent(&message, &refusals)));
        }
    }

    /// What is heard of a message that was taken; none where nothing is ever heard.
    async fn heard(&self, receipt: Receipt) -> Option<Outcome> {
        let Receipt::Awaited(receipt) = receipt else { return None };
        let delivery = async {
            match receipt.await {
                Ok(delivery) => delivery,
                // Another message has got the same name at the gateway: whose receipt comes cannot
                // be known.
                Err(_) => std::future::pending().await,
            }
        };
        Some(match timeout(self.receipt_wait, delivery).await {
            Ok(Delivery::Delivered) => Outcome::Delivered,
            Ok(Delivery::Failed) => Outcome::Failed,
            Err(_) => Outcome::NoReceipt,
        })
    }

    fn not_sent(&self, message: &Message, refusals: &[Refused]) -> NotSent {
        if refusals.contains(&Refused::Late) {
            return NotSent::Unknown { retry_after: UNKNOWN_SECONDS };
        }
        if refusals.contains(&Refused::Rejected) {
            return NotSent::Refused;
        }
        let route = self.route(message.channel);
        NotSent::Down { retry_after: self.back_in(route).unwrap_or(1) }
    }
}

fn checked(providers: &[Provider], dp: &str) -> Result<BTreeMap<String, String>, ConfigError> {
    let mut checked = BTreeMap::new();
    for Provider { domain, name } in providers {
        message::check(name, domain, dp)
            .map_err(|source| ConfigError::Provider { domain: domain.clone(), source })?;
        checked.insert(domain.clone(), name.clone());
    }
    Ok(checked)
}

/// Places of the gateways that a channel names.
fn route(
    config: &Config,
    channel: &'static str,
    names: &[String],
) -> Result<Vec<usize>, ConfigError> {
    let mut route = Vec::new();
    for name in names {
        let place = config.gateways.keys().position(|known| known == name);
        let Some(place) = place else {
            return Err(ConfigError::NoGateway { channel, name: name.clone() });
        };
        let fits = match config.gateways[name] {
            GatewayConfig::Smpp(_) => channel == "sms",
            GatewayConfig::Http(_) => true,
            GatewayConfig::Smtp(_) => channel == "email",
        };
        if !fits {
            return Err(ConfigError::Kind { channel, name: name.clone() });
        }
        if route.contains(&place) {
            return Err(ConfigError::Twice { channel, name: name.clone() });
        }
        route.push(place);
    }
    Ok(route)
}

/// 128 bits that nobody can guess, in hexadecimal.
fn token() -> String {
    let mut random = [0; 16];
    getrandom::fill(&mut random).expect("the system has random numbers");
    random.iter().map(|byte| format!("{byte:02x}")).collect()
}
