//! Certificates from PEM files, and the QUIC side of a server: TLS 1.3, ALPN, windows, time-outs.
//!
//! Where callers have to be known, only who shows a certificate of the operator's authority gets
//! through the handshake; whether its name may ask is `callers`' to say.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use quinn::crypto::rustls::QuicServerConfig;
use quinn::{TransportConfig, VarInt};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};

use super::ServerBounds;
use super::callers::Callers;
use super::memory::Windows;
use crate::limits;
use crate::wire::ALPN;

/// What a server shows to prove its name: a certificate chain and its key.
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// A file cannot be read.
    #[error("cannot read the {what} file {}: {source}", .path.display())]
    Io {
        /// What it was to be.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Not PEM, or not of this kind.
    #[error(
        "no {what} in {origin} ({detail}): expected a PEM file, such as `sotto cert --out DIR` \
         makes for localhost"
    )]
    Pem {
        /// What was looked for.
        what: &'static str,
        /// Where it was looked for.
        origin: String,
        /// What the PEM reader said.
        detail: String,
    },
    /// A list of front-ends that cannot be read.
    #[error("the list of front-ends {origin}: {detail}; expected lines of `NAME SHARE`")]
    List {
        /// Where it was looked for.
        origin: String,
        /// What is wrong with it.
        detail: String,
    },
    /// A certificate whose time is over.
    #[error(
        "the certificate expired {} days ago: every client refuses it, have it renewed; if it has \
         not, this machine's clock is wrong", .days
    )]
    Expired {
        /// How long it has been expired by this machine's clock.
        days: u64,
    },
    /// Certificate and key do not work together.
    #[error("the certificate and the key cannot be used for TLS 1.3: {0}")]
    Unusable(#[from] rustls::Error),
}

impl Identity {
    /// Reads a certificate chain (server's first) and its private key from PEM files.
    pub fn from_pem_files(certificate: &Path, key: &Path) -> Result<Self, IdentityError> {
        let chain = read_file("certificate", certificate)?;
        let key_pem = read_file("key", key)?;
        Self::parse(&chain, &certificate.display(), &key_pem, &key.display())
    }

    /// The same from memory.
    pub fn from_pem(certificate: &str, key: &str) -> Result<Self, IdentityError> {
        let origin = "the text given";
        Self::parse(certificate.as_bytes(), &origin, key.as_bytes(), &origin)
    }

    fn parse(
        certificate: &[u8],
        certificate_origin: &dyn std::fmt::Display,
        key: &[u8],
        key_origin: &dyn std::fmt::Display,
    ) -> Result<Self, IdentityError> {
        let bad = |what, origin: &dyn std::fmt::Display, detail: String| IdentityError::Pem {
            what,
            origin: origin.to_string(),
            detail,
        };
        let chain = CertificateDer::pem_slice_iter(certificate)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| bad("certificate", certificate_origin, error.to_string()))?;
        if chain.is_empty() {
            return Err(bad("certificate", certificate_origin, "it has none".into()));
        }
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|error| bad("private key", key_origin, error.to_string()))?;
        Ok(Self { chain, key })
    }

    /// Refuses a chain of which a certificate has expired.
    pub fn check_time(&self, now: SystemTime) -> Result<(), IdentityError> {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let until = self.chain.iter().filter_map(Validity::of).map(|valid| valid.not_after).min();
        match until.map(|until| now.saturating_sub_signed(until)) {
            Some(seconds) if seconds > 0 => Err(IdentityError::Expired { days: seconds / 86_400 }),
            _ => Ok(()),
        }
    }

    /// The private key.
    pub(super) fn secret(&self) -> &[u8] {
        self.key.secret_der()
    }

    /// Whether certificate and key work together.
    pub fn check(&self) -> Result<(), IdentityError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_single_cert(self.chain.clone(), self.key.clone_key())?;
        Ok(())
    }

    /// When the server's own certificate is good; nothing where it cannot be read.
    pub fn validity(&self) -> Option<Validity> {
        Validity::of(self.chain.first()?)
    }

    /// The listener's configuration.
    pub(super) fn quic(
        self,
        callers: &Callers,
        bounds: &ServerBounds,
        windows: Windows,
    ) -> Result<quinn::ServerConfig, IdentityError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = match callers {
            Callers::Loopback | Callers::Anyone => WebPkiClientVerifier::no_client_auth(),
            Callers::Known(known) => known.verifier.clone(),
        };
        let mut tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(self.chain, self.key)?;
        tls.alpn_protocols = vec![ALPN.to_vec()];
        // Nobody resumes a session: the client's certificate is verified in every handshake.
        tls.send_tls13_tickets = 0;
        tls.session_storage = Arc::new(NoServerSessionStorage {});
        let tls = QuicServerConfig::try_from(tls)
            .expect("this is a bug: TLS 1.3 without the suite QUIC starts with");
        let mut config = quinn::ServerConfig::with_crypto(Arc::new(tls));
        config.transport_config(Arc::new(transport(bounds, windows)));
        // What comes before its handshake is accepted, which is at once.
        config
            .max_incoming(limits::INCOMING_MAX)
            .incoming_buffer_size(limits::INCOMING_BYTES_MAX / limits::INCOMING_MAX as u64)
            .incoming_buffer_size_total(limits::INCOMING_BYTES_MAX);
        Ok(config)
    }
}

/// From when until when a certificate is good, in Unix seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// The first second.
    pub not_before: i64,
    /// The last.
    pub not_after: i64,
}

impl Validity {
    /// Of one certificate; nothing where it is none.
    fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
        let validity = parsed.validity();
        let (not_before, not_after) = (validity.not_before, validity.not_after);
        Some(Self { not_before: not_before.timestamp(), not_after: not_after.timestamp() })
    }

    /// The shortest validity of the certificates in a PEM file.
    pub fn of_pem_file(path: &Path) -> Result<Option<Self>, IdentityError> {
        let pem = read_file("certificate", path)?;
        let all = CertificateDer::pem_slice_iter(&pem).filter_map(|der| Self::of(&der.ok()?));
        Ok(all.min_by_key(|validity| validity.not_after))
    }
}

pub(super) fn read_file(what: &'static str, path: &Path) -> Result<Vec<u8>, IdentityError> {
    std::fs::read(path).map_err(|source| IdentityError::Io { what, path: path.to_owned(), source })
}

fn transport(bounds: &ServerBounds, windows: Windows) -> TransportConfig {
    let mut transport = TransportConfig::default();
    let idle = bounds.idle_timeout.try_into();
    transport
        .max_concurrent_bidi_streams(limits::BATCHES_IN_FLIGHT_MAX.into())
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(windows.stream.into())
        .receive_window(windows.receive.into())
        .send_window(windows.send.into())
        .datagram_receive_buffer_size(None)
        .max_idle_timeout(Some(idle.expect("this is a bug: idle time-out too long")));
    transport
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::certificates;
    use super::*;

    #[test]
    fn what_is_no_certificate_or_key_is_refused_by_name() {
        let made = certificates::localhost().unwrap();
        let refused = |certificate: &str, key: &str| {
            Identity::from_pem(certificate, key).err().unwrap().to_string()
        };
        assert!(refused("", &made.server_key).contains("no certificate in the text given"));
        assert!(refused(&made.server_pem, &made.server_pem).contains("no private key"));
        let identity = Identity::from_pem(&made.server_pem, &made.server_key).unwrap();
        assert!(identity.check().is_ok());
        let Validity { not_before, not_after } = identity.validity().unwrap();
        // rcgen's, where nothing is said: the year 4096.
        assert!(not_before < not_after && not_after == 67_090_118_400);
        let windows = Windows { stream: 1, receive: 1, send: 1 };
        let other = Identity::from_pem(&made.server_pem, &made.client_key).unwrap();
        assert!(matches!(other.check(), Err(IdentityError::Unusable(_))));
        assert!(matches!(
            other.quic(&Callers::Anyone, &ServerBounds::default(), windows),
            Err(IdentityError::Unusable(_))
        ));
        let identity = |year| {
            let made = certificates::localhost_until(year).unwrap();
            Identity::from_pem(&made.server_pem, &made.server_key).unwrap()
        };
        let (day, until) = (Duration::from_secs(86_400), Duration::from_secs(946_684_800));
        let at = |time| identity(2000).check_time(SystemTime::UNIX_EPOCH + time);
        at(until - day).unwrap();
        let error = at(until + 3 * day).unwrap_err().to_string();
        assert!(error.contains("expired 3 days ago"), "{error}");
        let later = SystemTime::UNIX_EPOCH + until;
        assert!(identity(4096).check_time(later).is_ok());
        let missing = Path::new("/nonexistent/server.pem");
        let error = Identity::from_pem_files(missing, missing).err().unwrap().to_string();
        assert!(error.contains("/nonexistent/server.pem"), "{error}");
    }
}
