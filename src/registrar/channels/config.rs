//! The channels' part of the registrar's configuration (TOML).

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use serde::Deserialize;

use crate::registrar::channels::message::MessageError;
use crate::registrar::channels::template::Field;

/// The channels: `[channels]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// The discovery provider's name, as messages show it.
    pub dp: String,
    /// Names of the gateways for text messages, the one that is asked first first.
    #[serde(default)]
    pub sms: Vec<String>,
    /// The same for calls.
    #[serde(default)]
    pub call: Vec<String>,
    /// The same for emails.
    #[serde(default)]
    pub email: Vec<String>,
    /// How long a receipt is waited for until the next gateway takes over.
    #[serde(default = "receipt_wait_ms")]
    pub receipt_wait_ms: u64,
    /// How long a gateway's answer is waited for until the next one takes over.
    #[serde(default = "answer_wait_ms")]
    pub answer_wait_ms: u64,
    /// Most messages that wait for an answer or a receipt.
    #[serde(default = "waiting_max")]
    pub waiting_max: usize,
    /// The gateways: `[channels.gateways.NAME]`. Metrics show the names.
    #[serde(default)]
    pub gateways: BTreeMap<String, GatewayConfig>,
}

/// Longest wait that may be configured: a code is good for ten minutes.
pub(crate) const WAIT_MS_MAX: u64 = 300_000;
/// Most messages that may wait: each has less than 2 KiB.
pub(crate) const WAITING_MAX: usize = 1_000_000;
/// Longest name of a gateway.
const NAME_BYTES_MAX: usize = 32;

fn receipt_wait_ms() -> u64 {
    20_000
}

fn answer_wait_ms() -> u64 {
    5_000
}

/// 200 messages a second for 20 seconds, more than doubled.
fn waiting_max() -> usize {
    10_000
}

/// One gateway.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
#[allow(missing_docs)] // Their types say it.
pub enum GatewayConfig {
    Smpp(SmppConfig),
    Http(HttpConfig),
    Smtp(SmtpConfig),
}

/// A message centre that speaks SMPP 3.4.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct SmppConfig {
    /// `host:port`.
    pub address: String,
    /// `false` only for this machine and private networks.
    #[serde(default = "yes")]
    pub tls: bool,
    /// A PEM file of authorities.
    #[serde(default = "system_authorities")]
    pub authorities: PathBuf,
    /// A file of mode 0600: system_id in the first line, password in the second.
    pub credentials: PathBuf,
    /// The system-type that the centre asks for, if any.
    #[serde(default)]
    pub system_type: String,
    /// Whom messages come from: a number with +, a short code, or up to 11 letters and digits.
    pub source: String,
    /// Whether the centre sends receipts.
    #[serde(default = "yes")]
    pub receipts: bool,
    /// Seconds between two enquire_link.
    #[serde(default = "enquire_link_ms")]
    pub enquire_link_ms: u64,
}

/// A gateway that takes HTTP requests.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct HttpConfig {
    /// The URL, with fields in braces; `http://` only for this machine and private networks.
    pub url: String,
    /// GET or POST.
    #[serde(default)]
    pub method: HttpMethod,
    /// The body of a POST, with fields in braces.
    #[serde(default)]
    pub body: Option<String>,
    /// What the body is, which decides how fields are escaped.
    #[serde(default)]
    pub body_type: BodyType,
    /// A PEM file of authorities.
    #[serde(default = "system_authorities")]
    pub authorities: PathBuf,
    /// A file of mode 0600: user in the first line, password or token in the second.
    #[serde(default)]
    pub credentials: Option<PathBuf>,
    /// Whether the credentials go into an `Authorization` header.
    #[serde(default)]
    pub authorization: Authorization,
    /// Where the gateway is to send receipts, with `{id}` in it; without, none are waited for.
    #[serde(default)]
    pub receipt_url: Option<String>,
}

/// GET or POST.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[allow(missing_docs)] // Names say it.
pub enum HttpMethod {
    #[default]
    Get,
    Post,
}

/// What a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)] // Names say it.
pub enum BodyType {
    #[default]
    Form,
    Json,
}

/// What an `Authorization` header carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)] // Names say it.
pub enum Authorization {
    #[default]
    None,
    Basic,
    Bearer,
}

/// A mail server.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct SmtpConfig {
    /// `host:port`, such as `mail.example:587`.
    pub address: String,
    /// How the connection is protected.
    #[serde(default)]
    pub tls: SmtpTls,
    /// A PEM file of authorities.
    #[serde(default = "system_authorities")]
    pub authorities: PathBuf,
    /// A file of mode 0600: user in the first line, password in the second.
    #[serde(default)]
    pub credentials: Option<PathBuf>,
    /// Whom messages come from, such as `Example <codes@dp.example>`.
    pub from: String,
}

/// How a connection to a mail server is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SmtpTls {
    /// STARTTLS, without which nothing is sent.
    #[default]
    Starttls,
    /// TLS from the first byte (port 465).
    Implicit,
    /// Not at all: only to this machine and private networks.
    Plain,
}

fn yes() -> bool {
    true
}

fn enquire_link_ms() -> u64 {
    30_000
}

fn system_authorities() -> PathBuf {
    "/etc/ssl/certs/ca-certificates.crt".into()
}

/// Why channels cannot be made of a configuration.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // Names and messages say it.
pub enum ConfigError {
    #[error("{path}: {source}", path = .path.display())]
    File { path: PathBuf, source: io::Error },
    #[error(
        "{path} has mode {mode:04o}, and others could read the credentials; run chmod 600 on it",
        path = .path.display()
    )]
    Open { path: PathBuf, mode: u32 },
    #[error(
        "{path} has no credentials; expected two lines, the user in the first and the password in \
         the second",
        path = .path.display()
    )]
    Credentials { path: PathBuf },
    #[error("channels.{field} is {found}; expected {expected}")]
    Value { field: &'static str, found: String, expected: &'static str },
    #[error(
        "channels.{channel} names the gateway {name:?}, which is not there; expected one of \
         [channels.gateways]"
    )]
    NoGateway { channel: &'static str, name: String },
    #[error(
        "channels.{channel} names the gateway {name:?}, whose kind does not carry that; expected \
         smpp or http for sms, http for call, smtp or http for email"
    )]
    Kind { channel: &'static str, name: String },
    #[error("channels.{channel} names the gateway {name:?} twice; expected each once")]
    Twice { channel: &'static str, name: String },
    #[error("channels.gateways.{name}: {detail}")]
    Gateway { name: String, detail: String },
    #[error(
        "channels.gateways.{name}: the template has {{{found}}}; expected {names}",
        names = Field::NAMES
    )]
    Template { name: String, found: String },
    #[error("channels.gateways.{name}: the template has no {field}; expected one in it")]
    Field { name: String, field: &'static str },
    #[error("the application provider {domain}: {source}")]
    Provider { domain: String, source: MessageError },
}

impl Config {
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let wait = |field, found: u64| {
            let expected = "1 to 300 000 ms";
            let is_good = (1..=WAIT_MS_MAX).contains(&found);
            let bad = || ConfigError::Value { field, found: found.to_string(), expected };
            if is_good { Ok(()) } else { Err(bad()) }
        };
        wait("receipt-wait-ms", self.receipt_wait_ms)?;
        wait("answer-wait-ms", self.answer_wait_ms)?;
        if !(1..=WAITING_MAX).contains(&self.waiting_max) {
            let (field, found) = ("waiting-max", self.waiting_max.to_string());
            return Err(ConfigError::Value { field, found, expected: "1 to 1 000 000" });
        }
        let is_plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_');
        for name in self.gateways.keys() {
            if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(is_plain) {
                let expected = "a name of at most 32 letters, digits, - and _";
                let field = "gateways";
                return Err(ConfigError::Value { field, found: format!("{name:?}"), expected });
            }
        }
        Ok(())
    }
}
