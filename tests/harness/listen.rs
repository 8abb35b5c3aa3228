//! A QUIC listener that stands in for a server.

use std::sync::Arc;

use quinn::crypto::rustls::QuicServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sotto::server::certificates::LocalCertificates;
use sotto::wire::ALPN;

pub(crate) fn on_loopback(own: &LocalCertificates) -> quinn::Endpoint {
    let chain = CertificateDer::from_pem_slice(own.server_pem.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(own.server_key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![chain], key)
        .unwrap();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let crypto = QuicServerConfig::try_from(tls).unwrap();
    let config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    quinn::Endpoint::server(config, ([127, 0, 0, 1], 0).into()).unwrap()
}
