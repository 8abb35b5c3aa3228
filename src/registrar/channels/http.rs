//! Gateways that take a message as an HTTP request, such as Kannel's `sendsms`.
//!
//! The request is a template of the configuration. Any status from 200 to 299 says that the message
//! was taken. Receipts come by a callback that names the message by a token of ours, which nobody
//! else can guess.

use std::sync::Arc;
use std::time::Duration;

use crate::https::Client;
use ::http::Method;
use axum::body::Bytes;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use zeroize::Zeroizing;

use crate::registrar::channels::config::{
    Authorization, BodyType, ConfigError, HttpConfig, HttpMethod, WAIT_MS_MAX,
};
use crate::registrar::channels::files::{self, Credentials, IsPlain};
use crate::registrar::channels::gateway::{Gateway, Health, Receipt, Refused, Sending};
use crate::registrar::channels::message::Message;
use crate::registrar::channels::receipts::Receipts;
use crate::registrar::channels::template::{Escape, Field, Template};

/// Longest reply that is read; it is not looked at.
const REPLY_BYTES_MAX: usize = 64 << 10;

pub(crate) struct Http {
    client: Client,
    method: Method,
    url: Template,
    body: Option<(Template, &'static str)>,
    credentials: Option<Credentials>,
    authorization: Option<Zeroizing<String>>,
    receipt_url: Option<Template>,
    /// Where the gateway is spoken to without TLS.
    plain: Option<(String, u16)>,
    receipts: Arc<Receipts>,
    health: Health,
}

impl Http {
    pub(crate) fn new(
        name: &str,
        config: &HttpConfig,
        receipts: Arc<Receipts>,
    ) -> Result<Self, ConfigError> {
        let bad = |detail: &str| ConfigError::Gateway {
            name: name.to_owned(),
            detail: detail.to_owned(),
        };
        let template = |text: &str, escape| {
            let unknown = |found| ConfigError::Template { name: name.to_owned(), found };
            Template::parse(text, escape).map_err(unknown)
        };
        let plain = origin(&config.url).map_err(bad)?;
        // The channels end what takes too long.
        let time = Duration::from_millis(WAIT_MS_MAX);
        let client = match plain {
            Some(_) => Client::with_plain(None, time),
            None => Client::new(Some(&files::authorities_pem(&config.authorities)?), None, time),
        };
        let client = client.map_err(|error| bad(&error.to_string()))?;
        let (method, body) = match (config.method, &config.body, config.body_type) {
            (HttpMethod::Get, None, _) => (Method::GET, None),
            (HttpMethod::Get, Some(_), _) => {
                return Err(bad("a GET has no body; expected method = \"POST\" with body"));
            }
            (HttpMethod::Post, None, _) => (Method::POST, None),
            (HttpMethod::Post, Some(body), BodyType::Form) => {
                let of = "application/x-www-form-urlencoded";
                (Method::POST, Some((template(body, Escape::Percent)?, of)))
            }
            (HttpMethod::Post, Some(body), BodyType::Json) => {
                (Method::POST, Some((template(body, Escape::Json)?, "application/json")))
            }
        };
        let credentials = config.credentials.as_deref().map(files::credentials).transpose()?;
        let made = Self {
            client,
            method,
            url: template(&config.url, Escape::Percent)?,
            body,
            authorization: authorization(config.authorization, credentials.as_ref())
                .map_err(bad)?,
            credentials,
            receipt_url: match &config.receipt_url {
                Some(url) => Some(template(url, Escape::Plain)?),
                None => None,
            },
            plain,
            receipts,
            health: Health::default(),
        };
        made.check_fields(name)?;
        Ok(made)
    }

    /// Checks that the templates have what they need, and what they have is there.
    fn check_fields(&self, name: &str) -> Result<(), ConfigError> {
        let has =
            |field| self.url.has(field) || self.body.as_ref().is_some_and(|(b, _)| b.has(field));
        let missing = |field| ConfigError::Field { name: name.to_owned(), field };
        if !has(Field::To) && !has(Field::Digits) {
            return Err(missing("{to} or {digits}"));
        }
        if !has(Field::Text) {
            return Err(missing("{text}"));
        }
        let bad = |detail: &str| {
            Err(ConfigError::Gateway { name: name.to_owned(), detail: detail.to_owned() })
        };
        if (has(Field::User) || has(Field::Password)) && self.credentials.is_none() {
            return bad("the template has {user} or {password}; expected credentials = a file");
        }
        match &self.receipt_url {
            None if has(Field::ReceiptUrl) => {
                bad("the template has {receipt_url}; expected receipt-url = a URL with {id}")
            }
            Some(url) if !url.has(Field::Id) => Err(missing("{id} in receipt-url")),
            Some(_) if !has(Field::ReceiptUrl) && !has(Field::Id) => {
                Err(missing("{receipt_url} or {id}, without which no receipt names its message"))
            }
            _ => Ok(()),
        }
    }

    async fn submit(&self, message: &Message) -> Result<Receipt, Refused> {
        if self.health.down_for().is_some() {
            return Err(Refused::Down);
        }
        if let Some((host, port)) = &self.plain
            && files::addresses(host, *port, IsPlain::Yes).await.is_err()
        {
            self.health.failed();
            return Err(Refused::Down);
        }
        let receipt_url = self.receipt_url.as_ref().map(|url| {
            url.fill(|field| if field == Field::Id { message.token.as_str() } else { "" })
        });
        let fields =
            |field| self.value(field, message, receipt_url.as_ref().map(|url| url.as_str()));
        let url = self.url.fill(fields);
        let body = self.body.as_ref().map(|(body, _)| Wiped(body.fill(fields)));
        let body = body.map_or_else(Bytes::new, Bytes::from_owner);
        let mut headers = Vec::new();
        headers.extend(self.body.as_ref().map(|(_, of)| ("content-type", *of)));
        headers.extend(self.authorization.as_ref().map(|value| ("authorization", value.as_str())));
        // The gateway may send the receipt before its reply is read.
        let receipt = self.receipt_url.as_ref().map(|_| self.receipts.wait_for(&message.token));
        let sent = self.client.send(self.method.clone(), &url, &headers, body, REPLY_BYTES_MAX);
        match sent.await {
            Ok(reply) if (200..300).contains(&reply.status) => {
                self.health.worked();
                Ok(receipt.map_or(Receipt::None, Receipt::Awaited))
            }
            Ok(_) => {
                self.health.worked();
                Err(Refused::Rejected)
            }
            Err(error) if error.never_sent() => {
                self.health.failed();
                Err(Refused::Down)
            }
            Err(_) => {
                self.health.failed();
                Err(Refused::Late)
            }
        }
    }

    fn value<'a>(
        &'a self,
        field: Field,
        message: &'a Message,
        receipt_url: Option<&'a str>,
    ) -> &'a str {
        let credentials = self.credentials.as_ref();
        match field {
            Field::To => message.to.as_str(),
            Field::Digits => message.to.digits().unwrap_or_default(),
            Field::Text => &message.text,
            Field::Id => &message.token,
            Field::Language => message.language,
            Field::User => credentials.map_or("", |credentials| &credentials.user),
            Field::Password => credentials.map_or("", |credentials| &credentials.password),
            Field::ReceiptUrl => receipt_url.unwrap_or_default(),
        }
    }
}

impl Gateway for Http {
    fn send<'a>(&'a self, message: &'a Message) -> Sending<'a> {
        Box::pin(self.submit(message))
    }

    fn down_for(&self) -> Option<Duration> {
        self.health.down_for()
    }
}

/// A body that is wiped when it is dropped.
struct Wiped(Zeroizing<String>);

impl AsRef<[u8]> for Wiped {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

fn authorization(
    kind: Authorization,
    credentials: Option<&Credentials>,
) -> Result<Option<Zeroizing<String>>, &'static str> {
    let of = || credentials.ok_or("authorization needs credentials; expected a file of them");
    Ok(match kind {
        Authorization::None => None,
        Authorization::Bearer => {
            Some(Zeroizing::new(format!("Bearer {}", of()?.password.as_str())))
        }
        Authorization::Basic => {
            let Credentials { user, password } = of()?;
            let both = Zeroizing::new(format!("{user}:{}", password.as_str()));
            let encoded = Zeroizing::new(BASE64_STANDARD.encode(both.as_bytes()));
            Some(Zeroizing::new(format!("Basic {}", encoded.as_str())))
        }
    })
}

/// Host and port of an `http://` URL; none of an `https://` one.
fn origin(url: &str) -> Result<Option<(String, u16)>, &'static str> {
    let expected = "expected a url such as https://gateway.example/send?to={to}&text={text}";
    let (is_plain, rest) = match (url.strip_prefix("http://"), url.strip_prefix("https://")) {
        (Some(rest), _) => (true, rest),
        (_, Some(rest)) => (false, rest),
        _ => return Err(expected),
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.is_empty() || authority.contains(['{', '@']) {
        return Err(expected);
    }
    let with_port = files::host_and_port(authority);
    let origin = with_port.unwrap_or_else(|| {
        (authority.trim_start_matches('[').trim_end_matches(']').to_owned(), 80)
    });
    if let (true, Ok(address)) = (is_plain, origin.0.parse())
        && !files::is_private(address)
    {
        return Err("http:// is only for this machine and private networks; expected https://");
    }
    Ok(is_plain.then_some(origin))
}
