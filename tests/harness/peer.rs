//! A peer that speaks raw QUIC to a server: what it sends is the test's to say.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, ConnectionError, Endpoint, RecvStream, SendStream};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sotto::server::certificates::LocalCertificates;
use tokio::net::UdpSocket;
use tokio::time::timeout;

pub(crate) use super::{PATIENCE, until};

/// One connection to the server.
pub(crate) struct Peer {
    pub(crate) connection: Connection,
    pub(crate) endpoint: Endpoint,
}

/// Whom to trust, this protocol name, this window for the bytes of one stream, who one is.
pub(crate) fn client_config(
    ca_pem: &str,
    alpn: &[u8],
    window: u32,
    client: Option<&LocalCertificates>,
) -> quinn::ClientConfig {
    client_config_with(ca_pem, alpn, window, client, |_| {})
}

/// The same, and what else is to be so of its TLS.
pub(crate) fn client_config_with(
    ca_pem: &str,
    alpn: &[u8],
    window: u32,
    client: Option<&LocalCertificates>,
    change: impl FnOnce(&mut rustls::ClientConfig),
) -> quinn::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate(ca_pem)).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots);
    let mut tls = match client {
        None => tls.with_no_client_auth(),
        Some(LocalCertificates { client_pem, client_key, .. }) => {
            let key = PrivateKeyDer::from_pem_slice(client_key.as_bytes()).unwrap();
            tls.with_client_auth_cert(vec![certificate(client_pem)], key).unwrap()
        }
    };
    tls.alpn_protocols = vec![alpn.to_vec()];
    tls.enable_early_data = true;
    change(&mut tls);
    let tls = QuicClientConfig::try_from(tls).unwrap();
    let mut config = quinn::ClientConfig::new(Arc::new(tls));
    let mut transport = quinn::TransportConfig::default();
    transport.stream_receive_window(window.into());
    // As often as no test is idle for: what is silent for too long is for a server to end.
    transport.keep_alive_interval(Some(Duration::from_millis(100)));
    config.transport_config(Arc::new(transport));
    config
}

fn certificate(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

pub(crate) async fn connect(
    address: SocketAddr,
    config: quinn::ClientConfig,
) -> Result<Peer, ConnectionError> {
    let endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let connecting = endpoint.connect_with(config, address, "localhost").unwrap();
    let connection = timeout(PATIENCE, connecting).await.unwrap()?;
    Ok(Peer { connection, endpoint })
}

/// Sends the first packet of a handshake from an address of its own, and never another.
pub(crate) async fn knock(address: SocketAddr, config: quinn::ClientConfig) -> UdpSocket {
    let relay = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let to = relay.local_addr().unwrap();
    let _connecting = endpoint.connect_with(config, to, "localhost").unwrap();
    let mut packet = [0; 2048];
    let bytes = timeout(PATIENCE, relay.recv(&mut packet)).await.unwrap().unwrap();
    relay.send_to(&packet[..bytes], address).await.unwrap();
    // From here on it hears the server alone: the client says that it gives up.
    relay.connect(address).await.unwrap();
    relay
}

/// Begins handshakes and ends none, all from one address: a relay that carries the first packets of
/// each to the server, as often as it takes to show where it is, and no later ones.
pub(crate) struct HalfOpener {
    endpoint: Endpoint,
    relay: SocketAddr,
    config: quinn::ClientConfig,
    begun: Vec<quinn::Connecting>,
    carrying: tokio::task::JoinHandle<()>,
}

impl HalfOpener {
    pub(crate) async fn new(server: SocketAddr, config: quinn::ClientConfig) -> Self {
        let relay = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let to = relay.local_addr().unwrap();
        let carrying = tokio::spawn(carry_first_packets(relay, server));
        let endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        Self { endpoint, relay: to, config, begun: Vec::new(), carrying }
    }

    /// Begins one more.
    pub(crate) fn begin(&mut self) {
        let config = self.config.clone();
        self.begun.push(self.endpoint.connect_with(config, self.relay, "localhost").unwrap());
    }
}

impl Drop for HalfOpener {
    fn drop(&mut self) {
        self.carrying.abort();
    }
}

/// A first packet, the one that brings the server's token back, and one that may be sent again. A
/// client that gives up sends more that look like these.
const PACKETS_CARRIED: usize = 3;

async fn carry_first_packets(relay: UdpSocket, server: SocketAddr) {
    let (mut packet, mut client) = ([0; 2048], None);
    // By the client's connection ID, which both packets have.
    let mut carried: HashMap<Vec<u8>, usize> = HashMap::new();
    while let Ok((bytes, from)) = relay.recv_from(&mut packet).await {
        let bytes = &packet[..bytes];
        // The kinds of packets with a long header: Initial is 0, Retry is 3.
        let kind = (bytes[0] & 0x80 != 0).then_some((bytes[0] >> 4) & 3);
        if from == server {
            if let (Some(3), Some(client)) = (kind, client) {
                let _ = relay.send_to(bytes, client).await;
            }
            continue;
        }
        client = Some(from);
        if kind.is_none() {
            continue;
        }
        let id_at = 6 + bytes[5] as usize;
        let id = bytes[id_at + 1..][..bytes[id_at] as usize].to_vec();
        let carried = carried.entry(id).or_default();
        if kind == Some(0) && *carried < PACKETS_CARRIED {
            *carried += 1;
            let _ = relay.send_to(bytes, server).await;
        }
    }
}

impl Peer {
    /// Opens a stream, sends these bytes and finishes.
    pub(crate) async fn send(&self, bytes: &[u8]) -> RecvStream {
        let (mut send, receive) = self.open(bytes).await;
        // A server that has seen enough may have stopped the stream already.
        let _ = send.finish();
        receive
    }

    /// Opens a stream and sends these bytes.
    pub(crate) async fn open(&self, bytes: &[u8]) -> (SendStream, RecvStream) {
        let (mut send, receive) = self.connection.open_bi().await.unwrap();
        let _ = timeout(PATIENCE, send.write_all(bytes)).await.unwrap();
        (send, receive)
    }
}
