//! A gateway that plays the phone: messages come out in the same process. Only code can make one,
//! no configuration.

use crate::discovery::identifier::Identifier;
use crate::registrar::api::Channel;
use tokio::sync::mpsc;
use zeroize::Zeroizing;

use crate::registrar::channels::gateway::{Gateway, Receipt, Refused, Sending};
use crate::registrar::channels::message::Message;

/// Messages that nobody has taken out yet; one more is refused.
const QUEUE_MAX: usize = 1_024;

/// The gateway.
pub struct Loopback(mpsc::Sender<Arrived>);

/// A message as the phone shows it.
pub struct Arrived {
    /// Whose phone or mailbox it is.
    pub to: Identifier,
    /// How it came.
    pub channel: Channel,
    /// Of an email only.
    pub subject: String,
    /// What it says.
    pub text: Zeroizing<String>,
}

impl Arrived {
    /// The domain and the code of the last line, which a phone fills in for that domain only.
    pub fn bound_code(&self) -> Option<(&str, &str)> {
        self.text.lines().last()?.strip_prefix('@')?.split_once(" #")
    }
}

impl Loopback {
    /// The gateway, and what comes out of it.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<Arrived>) {
        let (sender, receiver) = mpsc::channel(QUEUE_MAX);
        (Self(sender), receiver)
    }
}

impl Gateway for Loopback {
    fn send<'a>(&'a self, message: &'a Message) -> Sending<'a> {
        Box::pin(async move {
            let arrived = Arrived {
                to: message.to.clone(),
                channel: message.channel,
                subject: message.subject.clone(),
                text: message.text.clone(),
            };
            self.0.try_send(arrived).map_err(|_| Refused::Rejected)?;
            Ok(Receipt::None)
        })
    }

    fn down_for(&self) -> Option<std::time::Duration> {
        self.0.is_closed().then_some(std::time::Duration::from_secs(1))
    }
}
