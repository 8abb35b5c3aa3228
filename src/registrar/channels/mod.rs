//! How a code reaches the person: the message with the code in it, and the gateways that carry it.
//!
//! [`Channels`] has an ordered list of gateways for each channel (text message, call, email). The
//! next one takes over when one refuses, is away, or has no receipt in time. A gateway is told of a
//! message at most once, whatever comes of it, except where it said that it did not take it because
//! of its load. Nothing here decides whether a code may be sent, stores anything, or sends anything
//! again after a restart: that is the registrar's.
//!
//! No number, address, text or code is in a log line, a counter, an error or a `Debug`. Read
//! `deliver` first, then `gateway`, then the gateways: `smpp`, `http`, `smtp`, `loopback`.

mod config;
mod counters;
mod deliver;
mod files;
mod gateway;
mod gsm;
mod http;
mod loopback;
mod message;
mod pace;
mod receipts;
mod smpp;
mod smtp;
mod template;
#[cfg(test)]
mod tests;
mod texts;

pub use config::{Config, ConfigError, GatewayConfig, HttpConfig, SmppConfig, SmtpConfig};
pub use deliver::{Channels, NotSent, Provider};
pub use gsm::septets;
pub use loopback::{Arrived, Loopback};
pub use message::{MessageError, SEGMENT_SEPTETS, check};
pub use receipts::ReceiptError;
