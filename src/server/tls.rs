//! Certificates from PEM files, and the QUIC side of a server: TLS 1.3, ALPN, windows, time-outs.
//!
//! Where callers have to be known, the handshake demands a certificate of the operator's authority;
//! `callers` decides whether its name may call.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use quinn::crypto::rustls::QuicServerConfig;
use quinn::{TransportConfig, VarInt};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::ClientCertVerifier;
use zeroize::Zeroizing;

use super::bounds::{ServerBounds, Windows};
use super::certificate_check::{self, CertificateProblem};
use crate::limits;
use crate::shard::files::read_regular;
use crate::text;
use crate::wire::ALPN;

/// A certificate chain and its key.
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // Names and messages say it.
pub enum IdentityError {
    #[error("cannot read the {what} file {}: {source}", .path.display())]
    Io { what: &'static str, path: PathBuf, source: std::io::Error },
    #[error(
        "no {what} in {origin} ({detail}): expected a PEM file, such as `sotto cert --out DIR` \
         makes for localhost"
    )]
    Pem { what: &'static str, origin: String, detail: String },
    #[error("the list of front-ends {origin}: {detail}; expected lines of `NAME SHARE`")]
    List { origin: String, detail: String },
    #[error(
        "the private key in {origin} is encrypted, and a server has nobody to ask for the \
         password; expected a key in the clear, in a file that only the server's user may read: \
         `openssl pkey -in FILE -out NEW` makes one"
    )]
    Encrypted { origin: String },
    #[error(transparent)]
    Certificate(#[from] CertificateProblem),
    #[error("certificate {index} of {origin}: {problem}")]
    Authority { index: usize, origin: String, problem: CertificateProblem },
    #[error("the certificate and the key cannot be used for TLS 1.3: {0}")]
    Unusable(#[from] rustls::Error),
}

impl IdentityError {
    /// Whether another time, or another clock, would make it good.
    pub fn is_about_time(&self) -> bool {
        matches!(self, Self::Certificate(problem) if problem.is_about_time())
    }
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
        let chain = certificates("certificate", certificate, certificate_origin)?;
        let (lines, origin) = (Zeroizing::new(pem_lines(key)), key_origin.to_string());
        if is_encrypted(&lines) {
            return Err(IdentityError::Encrypted { origin });
        }
        let key = PrivateKeyDer::from_pem_slice(&lines).map_err(|error| {
            let detail = match error {
                pem::Error::NoItemsFound => what_else(&lines),
                other => other.to_string(),
            };
            IdentityError::Pem { what: "private key", origin, detail }
        })?;
        Ok(Self { chain, key })
    }

    /// Whether clients accept the chain at `now`, as far as that can be known here, and whether it
    /// works together with the key. The same at start, at a reload and in `sotto doctor`.
    ///
    /// # Errors
    /// Every client refuses it, or no handshake would succeed.
    pub fn check(&self, now: SystemTime) -> Result<(), IdentityError> {
        let accepted = certificate_check::check(&self.chain, now);
        // What no time makes good comes first.
        if let Err(problem) = &accepted
            && !problem.is_about_time()
        {
            return Err(problem.clone().into());
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_single_cert(self.chain.clone(), self.key.clone_key())?;
        Ok(accepted?)
    }

    pub(super) fn secret(&self) -> &[u8] {
        self.key.secret_der()
    }

    /// When the certificate of the chain that ends first expires, in Unix seconds; none where it is
    /// unreadable.
    pub fn expires(&self) -> Option<i64> {
        certificate_check::expires(&self.chain)
    }

    pub(super) fn quic(
        self,
        verifier: Arc<dyn ClientCertVerifier>,
        bounds: &ServerBounds,
        windows: Windows,
    ) -> Result<quinn::ServerConfig, IdentityError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
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

/// Reads a regular file of at most [`limits::IDENTITY_FILE_BYTES_MAX`].
pub(super) fn read_file(what: &'static str, path: &Path) -> Result<Vec<u8>, IdentityError> {
    let bytes_max = limits::IDENTITY_FILE_BYTES_MAX;
    let read = read_regular(path, bytes_max + 1).and_then(|bytes| {
        let text = format!("it has more than {bytes_max} bytes");
        let too_large = std::io::Error::new(std::io::ErrorKind::FileTooLarge, text);
        if bytes.len() as u64 > bytes_max { Err(too_large) } else { Ok(bytes) }
    });
    read.map_err(|source| IdentityError::Io { what, path: path.to_owned(), source })
}

/// The certificates of a PEM text, at least one.
pub(super) fn certificates(
    what: &'static str,
    pem: &[u8],
    origin: &dyn std::fmt::Display,
) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let lines = pem_lines(pem);
    let bad = |detail| IdentityError::Pem { what, origin: origin.to_string(), detail };
    let found = CertificateDer::pem_slice_iter(&lines).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|error| bad(error.to_string()))?;
    if found.is_empty() { Err(bad(what_else(&lines))) } else { Ok(found) }
}

/// A PEM text in which every section begins its line, as the PEM reader wants it: it passes over
/// one with a byte order mark or blanks in front of it.
fn pem_lines(bytes: &[u8]) -> Vec<u8> {
    let plain = Zeroizing::new(text::plain(bytes));
    let mut out = Vec::with_capacity(plain.len());
    for mut line in plain.split_inclusive(|&byte| byte == b'\n') {
        let blanks: [&[u8]; 3] = [b" ", b"\t", text::BYTE_ORDER_MARK];
        while let Some(rest) = blanks.iter().find_map(|blank| line.strip_prefix(*blank)) {
            line = rest;
        }
        out.extend_from_slice(line);
    }
    out
}

const BEGIN: &str = "-----BEGIN ";

/// What a file has that lacks what was looked for.
fn what_else(pem: &[u8]) -> String {
    let text = match text::utf8(pem) {
        Ok(text) => text,
        Err(_) if pem.starts_with(&[0x30]) => {
            return "it is DER or PKCS #12: `openssl x509`, `pkey` or `pkcs12` makes PEM of it"
                .into();
        }
        Err(error) => return error.to_string(),
    };
    let labels = text.lines().filter_map(|line| line.strip_prefix(BEGIN)?.split_once("-----"));
    let mut labels: Vec<&str> = labels.map(|(label, _)| label).collect();
    labels.dedup();
    match &labels[..] {
        _ if text.trim().is_empty() => "it is empty".into(),
        [] => "it has no line of -----BEGIN ...-----".into(),
        labels => format!("it has {}", labels.join(", ")),
    }
}

/// Whether a key is under a password: by PKCS #8, or by the head of the older format.
fn is_encrypted(pem: &[u8]) -> bool {
    let lines = || pem.split(|&byte| byte == b'\n');
    let encrypted = |line: &[u8]| {
        line.starts_with(b"-----BEGIN ENCRYPTED PRIVATE KEY")
            || line.starts_with(b"Proc-Type: 4,ENCRYPTED")
    };
    let in_the_clear = |line: &[u8]| line.starts_with(b"-----BEGIN PRIVATE KEY");
    lines().any(encrypted) && !lines().any(in_the_clear)
}

fn transport(bounds: &ServerBounds, windows: Windows) -> TransportConfig {
    let mut transport = TransportConfig::default();
    let idle = bounds.idle_timeout.try_into();
    transport
        .max_concurrent_bidi_streams(limits::FRAMES_IN_FLIGHT_MAX.into())
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(windows.stream.into())
        .receive_window(windows.receive.into())
        .send_window(windows.send.into())
        .datagram_receive_buffer_size(None)
        // A handshake that was given up is remembered for nine times this.
        .initial_rtt(limits::FIRST_RTT)
        .max_idle_timeout(Some(idle.expect("this is a bug: idle time-out too long")));
    transport
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::certificates;
    use super::super::service::unix_now;
    use super::*;

    fn refused(certificate: &str, key: &str) -> String {
        Identity::from_pem(certificate, key).err().unwrap().to_string()
    }

    #[test]
    fn what_is_no_certificate_or_key_is_refused_by_name() {
        let made = certificates::localhost().unwrap();
        assert!(refused("", &made.server_key).contains("no certificate in the text given"));
        assert!(refused(&made.server_pem, &made.server_pem).contains("no private key"));
        let now = SystemTime::now();
        let identity = Identity::from_pem(&made.server_pem, &made.server_key).unwrap();
        identity.check(now).unwrap();
        let left = identity.expires().unwrap() - unix_now() as i64;
        assert_eq!((left + 600) / 86_400, i64::from(certificates::VALID_DAYS));
        let other = Identity::from_pem(&made.server_pem, &made.client_key).unwrap();
        assert!(matches!(other.check(now), Err(IdentityError::Unusable(_))));
        // That the key is another's does not wait for a good time.
        let late = now + Duration::from_secs(86_400 * 365);
        assert!(matches!(other.check(late), Err(IdentityError::Unusable(_))));
        let late = identity.check(late).unwrap_err();
        assert!(late.to_string().contains("the certificate expired 27"), "{late}");
    }

    #[test]
    fn files_of_another_kind_are_named() {
        let made = certificates::localhost().unwrap();
        let of_key = |key: &str| refused(&made.server_pem, key);
        let vectors = [
            include_str!("../../tests/vectors/certificates/encrypted-pkcs8.key"),
            include_str!("../../tests/vectors/certificates/encrypted-sec1.key"),
        ];
        for encrypted in vectors {
            let error = of_key(&encrypted.replace('\n', "\r\n"));
            assert!(error.contains("is encrypted"), "{error}");
        }
        assert!(refused(&made.server_key, &made.server_key).contains("it has PRIVATE KEY"));
        assert!(of_key(&made.server_pem).contains("it has CERTIFICATE"));
        assert!(of_key(" \n").contains("it is empty"));
        assert!(of_key("secret").contains("it has no line of -----BEGIN"));
        let der = CertificateDer::from_pem_slice(made.server_pem.as_bytes()).unwrap();
        assert!(what_else(&der).contains("it is DER or PKCS #12"));
        assert!(what_else(b"\xff\xfe-\0").contains("it is UTF-16"));
    }

    #[test]
    fn a_byte_order_mark_hides_no_certificate() {
        let made = certificates::localhost().unwrap();
        let marked = |pem: &str| format!("\u{feff} {}", pem.replace('\n', "\r\n\t"));
        let both = marked(&made.server_pem) + &marked(&made.ca_pem);
        let identity = Identity::from_pem(&both, &marked(&made.server_key)).unwrap();
        assert_eq!(identity.chain.len(), 2);
        identity.check(SystemTime::now()).unwrap();
        super::super::KnownCallers::from_pem(marked(&made.ca_pem).as_bytes(), &"it", None).unwrap();
    }

    #[test]
    fn files_are_small() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(1 << 40).unwrap();
        let refused = read_file("certificate", file.path()).unwrap_err().to_string();
        assert!(refused.contains("it has more than"), "{refused}");
    }
}
