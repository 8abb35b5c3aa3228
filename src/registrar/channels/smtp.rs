//! Email through one mail server, with STARTTLS unless it is configured otherwise.
//!
//! That the server has taken a message is all that is heard of it.

use std::time::Duration;

use lettre::message::Mailbox;
use lettre::message::header::{ContentType, Header, HeaderName, HeaderValue};
use lettre::transport::smtp::Error;
use lettre::transport::smtp::authentication::Credentials as Login;
use lettre::transport::smtp::client::{Certificate, CertificateStore, Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Tokio1Executor};

use crate::registrar::channels::config::{ConfigError, SmtpConfig, SmtpTls, WAIT_MS_MAX};
use crate::registrar::channels::files::{self, IsPlain};
use crate::registrar::channels::gateway::{Gateway, Health, Receipt, Refused, Sending};
use crate::registrar::channels::message::Message;

pub(crate) struct Smtp {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
    /// Where the server is spoken to without TLS.
    plain: Option<(String, u16)>,
    health: Health,
}

impl Smtp {
    pub(crate) fn new(name: &str, config: &SmtpConfig) -> Result<Self, ConfigError> {
        let bad = |detail: String| ConfigError::Gateway { name: name.to_owned(), detail };
        let Some((host, port)) = files::host_and_port(&config.address) else {
            return Err(bad("expected an address such as mail.example:587".into()));
        };
        let from = config.from.parse().map_err(|_| {
            bad("from is no mailbox; expected one such as Example <codes@dp.example>".into())
        })?;
        let parameters = || -> Result<TlsParameters, ConfigError> {
            let mut parameters =
                TlsParameters::builder(host.clone()).certificate_store(CertificateStore::None);
            let pem = files::authorities_pem(&config.authorities)?;
            // Checks that there is one at all.
            files::authorities(&config.authorities)?;
            let found = Certificate::from_pem(&pem).map_err(|error| bad(error.to_string()))?;
            parameters = parameters.add_root_certificate(found);
            parameters.build_rustls().map_err(|error| bad(error.to_string()))
        };
        let tls = match config.tls {
            SmtpTls::Starttls => Tls::Required(parameters()?),
            SmtpTls::Implicit => Tls::Wrapper(parameters()?),
            SmtpTls::Plain => Tls::None,
        };
        let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(host.clone())
            .port(port)
            .tls(tls)
            // The channels end what takes too long.
            .timeout(Some(Duration::from_millis(WAIT_MS_MAX)));
        if let Some(path) = &config.credentials {
            let known = files::credentials(path)?;
            let password = known.password.as_str().to_owned();
            builder = builder.credentials(Login::new(known.user, password));
        }
        let plain = (config.tls == SmtpTls::Plain).then_some((host, port));
        Ok(Self { transport: builder.build(), from, plain, health: Health::default() })
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
        let to = message.to.as_str().parse().map_err(|_| Refused::Rejected)?;
        let email = lettre::Message::builder()
            .from(self.from.clone())
            .to(Mailbox::new(None, to))
            .subject(message.subject.clone())
            .header(AutoSubmitted)
            .header(ContentType::TEXT_PLAIN)
            .body(message.text.to_string())
            .map_err(|_| Refused::Rejected)?;
        match self.transport.send(email).await {
            Ok(_) => {
                self.health.worked();
                Ok(Receipt::None)
            }
            Err(error) => Err(self.refused(&error)),
        }
    }

    fn refused(&self, error: &Error) -> Refused {
        if error.is_permanent() || error.is_transient() {
            // The server has answered.
            self.health.worked();
            return Refused::Rejected;
        }
        self.health.failed();
        // What the error says may contain an address: only its kind is looked at.
        if error.is_timeout() || error.is_response() { Refused::Late } else { Refused::Down }
    }
}

impl Gateway for Smtp {
    fn send<'a>(&'a self, message: &'a Message) -> Sending<'a> {
        Box::pin(self.submit(message))
    }

    fn down_for(&self) -> Option<Duration> {
        self.health.down_for()
    }
}

/// Says that no person wrote the message, so that no program answers it (RFC 3834).
#[derive(Clone)]
struct AutoSubmitted;

impl Header for AutoSubmitted {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self)
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}
