//! How a client connects: addresses, certificates, trust and time-outs, checked before anything
//! is sent.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::error::ClientError;
use super::trust::Pins;
use crate::hosts::{Host, Placement};
use crate::limits;

/// Where a server listens, and the name its certificate must be for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    /// Addresses of the host, tried in this order.
    pub addresses: Vec<SocketAddr>,
    /// The name in its certificate.
    pub server_name: String,
}

impl Replica {
    /// A server at one address.
    pub fn new(address: SocketAddr, server_name: &str) -> Self {
        Self { addresses: vec![address], server_name: server_name.to_owned() }
    }

    /// Resolves `HOST:PORT`; the host is the certificate's name. IPv4 addresses come first: a
    /// closed UDP port stays silent, and a loopback server rarely listens on both.
    pub async fn resolve(host_port: &str) -> Result<Self, ClientError> {
        let address = |reason: String| ClientError::Address { found: host_port.into(), reason };
        let (host, _) =
            host_port.rsplit_once(':').ok_or_else(|| address("there is no port".into()))?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let found = tokio::net::lookup_host(host_port).await.map_err(|e| address(e.to_string()))?;
        let mut addresses: Vec<SocketAddr> = found.collect();
        addresses.sort_by_key(SocketAddr::is_ipv6); // stable: the resolver's order otherwise
        if addresses.is_empty() {
            return Err(address("the name has no address".into()));
        }
        Ok(Self { addresses, server_name: host.to_owned() })
    }

    /// A host of a placement, whose certificate is for `server_name` or for its own name.
    pub async fn of_host(host: &Host, server_name: Option<&str>) -> Result<Self, ClientError> {
        let server_name = server_name.unwrap_or(&host.name).to_owned();
        Ok(Self { server_name, ..Self::resolve(&host.address).await? })
    }
}

/// What [`super::Client::connect`] needs to know.
#[derive(Clone)]
pub struct Options {
    /// Servers of the same database, at least one. Without a placement each has all of it, and the
    /// first is used until it fails.
    pub replicas: Vec<Replica>,
    /// Which shards each of them has: they are the hosts of this placement, in its order.
    pub placement: Option<Arc<Placement>>,
    /// Certificates (PEM) of the authorities that may sign the servers' certificates.
    pub ca_pem: Vec<u8>,
    /// Certificate chain and private key (PEM) of this client, for servers that ask for them.
    pub identity_pem: Option<(Vec<u8>, Vec<u8>)>,
    /// Whom to trust, and what earlier sessions know of this database.
    pub pins: Pins,
    /// Fewest records a shard, by the signed number of the emptiest. Fewer are a smaller crowd to
    /// hide in.
    pub records_per_shard_min: u64,
    /// By whose time parameters are fresh: the system's unless told otherwise.
    pub clock: fn() -> SystemTime,
    /// How long one address may take to connect.
    pub connect_timeout: Duration,
    /// How long a call goes on without reaching any server; from when the loss was noticed.
    pub unreachable_max: Duration,
    /// How long the next reply on a stream may take. With another replica, a frame of queries that
    /// brings nothing for a quarter of it is sent there too.
    pub answer_timeout: Duration,
    /// How long each part ([`limits::KEYS_PER_PART_MAX`] keys) of a call may take, decoding aside.
    /// What is answered by then is decoded, the rest is [`super::LookupError::CallTimeout`].
    pub call_timeout: Duration,
    /// After how long the server may drop a query; zero: the server's default.
    pub deadline: Duration,
}

impl Options {
    /// What [`ClientError::Option`] calls [`Options::ca_pem`].
    pub const CA_FILE: &str = "CA file";

    /// One server, with the bounds of [`limits`] for everything else.
    pub fn new(replica: Replica, ca_pem: Vec<u8>, pins: Pins) -> Self {
        Self {
            replicas: vec![replica],
            placement: None,
            ca_pem,
            identity_pem: None,
            pins,
            records_per_shard_min: limits::RECORDS_PER_SHARD_ACCEPTED_MIN,
            clock: SystemTime::now,
            connect_timeout: limits::CONNECT_TIMEOUT,
            unreachable_max: limits::UNREACHABLE_MAX,
            answer_timeout: limits::ANSWER_TIMEOUT,
            call_timeout: limits::CALL_TIMEOUT,
            deadline: Duration::ZERO,
        }
    }

    /// The hosts of a placement, whose certificates are for `server_name` or for their own names.
    ///
    /// # Errors
    /// The address of a host does not resolve.
    pub async fn placed(
        placement: Placement,
        server_name: Option<&str>,
        ca_pem: Vec<u8>,
        pins: Pins,
    ) -> Result<Self, ClientError> {
        let mut replicas = Vec::with_capacity(placement.hosts.len());
        for host in &placement.hosts {
            replicas.push(Replica::of_host(host, server_name).await?);
        }
        let nowhere = Replica { addresses: Vec::new(), server_name: String::new() };
        let placement = Some(Arc::new(placement));
        Ok(Self { replicas, placement, ..Self::new(nowhere, ca_pem, pins) })
    }

    /// Refuses what cannot work, before anything is sent.
    pub(crate) fn check(&self) -> Result<(), ClientError> {
        let refuse = |what, found, expected| Err(ClientError::Option { what, found, expected });
        if self.replicas.iter().all(|replica| replica.addresses.is_empty()) {
            return refuse("servers", "no address".into(), "at least one");
        }
        let hosts = self.placement.as_ref().map(|placement| placement.hosts.len());
        if hosts.is_some_and(|hosts| hosts != self.replicas.len()) {
            let found = self.replicas.len().to_string();
            return refuse("servers", found, "as many as the placement has hosts");
        }
        let Self { connect_timeout, unreachable_max, answer_timeout, call_timeout, .. } = *self;
        let timeouts = [connect_timeout, unreachable_max, answer_timeout, call_timeout];
        if timeouts.iter().any(Duration::is_zero) {
            return refuse("time-outs", "zero".into(), "more than that");
        }
        if call_timeout > limits::CALL_TIMEOUT_MAX {
            return refuse("call time-out", format!("{call_timeout:?}"), "at most one hour");
        }
        if self.deadline > limits::DEADLINE_MAX {
            return refuse("deadline", format!("{:?}", self.deadline), "at most one minute");
        }
        Ok(())
    }

    /// The TLS side: TLS 1.3, the given authorities only, our protocol.
    pub(crate) fn tls(&self, alpn: &[u8]) -> Result<rustls::ClientConfig, ClientError> {
        let bad = |what, found: String, expected| ClientError::Option { what, found, expected };
        let ca = |found: String| bad(Self::CA_FILE, found, "PEM certificates");
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&self.ca_pem) {
            let certificate = certificate.map_err(|e| ca(e.to_string()))?;
            roots.add(certificate).map_err(|e| ca(e.to_string()))?;
        }
        if roots.is_empty() {
            return Err(ca("no certificate".into()));
        }
        let provider = rustls::crypto::ring::default_provider();
        let builder = rustls::ClientConfig::builder_with_provider(provider.into())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("this is a bug: ring has no TLS 1.3")
            .with_root_certificates(roots);
        let mut config = match &self.identity_pem {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                let own = |e: String| bad("client certificate", e, "a PEM chain and its PEM key");
                let chain = CertificateDer::pem_slice_iter(chain)
                    .collect::<Result<Vec<_>, _>>()
                    .map_err(|e| own(e.to_string()))?;
                let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| own(e.to_string()))?;
                builder.with_client_auth_cert(chain, key).map_err(|e| own(e.to_string()))?
            }
        };
        config.alpn_protocols = vec![alpn.to_vec()];
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::super::trust::OperatorKey;
    use super::*;

    fn options() -> Options {
        let replica = Replica::new(([127, 0, 0, 1], 4433).into(), "localhost");
        Options::new(replica, Vec::new(), Pins::operator(OperatorKey([1; 32])))
    }

    #[test]
    fn options_that_cannot_work_are_refused_before_anything_is_sent() {
        options().check().unwrap();
        let bad = [
            Options { replicas: Vec::new(), ..options() },
            Options { answer_timeout: Duration::ZERO, ..options() },
            Options { call_timeout: Duration::ZERO, ..options() },
            Options { call_timeout: Duration::from_secs(3_601), ..options() },
            Options { deadline: Duration::from_secs(3_600), ..options() },
        ];
        for options in bad {
            assert!(matches!(options.check(), Err(ClientError::Option { .. })));
        }
        for ca_pem in [&b""[..], b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"] {
            let options = Options { ca_pem: ca_pem.to_vec(), ..options() };
            assert!(matches!(options.tls(b"x"), Err(ClientError::Option { .. })));
        }
    }

    #[cfg(feature = "server")]
    #[test]
    fn certificates_are_read() {
        let made = crate::server::certificates::localhost().unwrap();
        let mut options = Options { ca_pem: made.ca_pem.clone().into(), ..options() };
        options.tls(b"x").unwrap();
        for (key, fits) in
            [(&made.client_key, true), (&made.server_key, false), (&made.ca_pem, false)]
        {
            options.identity_pem = Some((made.client_pem.clone().into(), key.clone().into()));
            let tls = options.tls(b"x");
            assert_eq!(tls.is_ok(), fits);
            assert!(fits || matches!(tls, Err(ClientError::Option { .. })));
        }
    }

    #[tokio::test]
    async fn addresses_resolve_or_say_why_not() {
        let replica = Replica::resolve("127.0.0.1:4433").await.unwrap();
        assert_eq!(replica, Replica::new(([127, 0, 0, 1], 4433).into(), "127.0.0.1"));
        let six = Replica::resolve("[::1]:4433").await.unwrap();
        assert_eq!(six.server_name, "::1");
        for bad in ["localhost", "localhost:none", ""] {
            let error = Replica::resolve(bad).await.unwrap_err();
            assert!(matches!(error, ClientError::Address { .. }), "{bad}: {error}");
        }
    }
}
