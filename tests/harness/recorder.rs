//! A recorder between client and server.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use prost::Message;
use sotto::server::certificates;
use sotto::wire::ALPN;
use sotto::wire::message::Request;

use super::server::Serving;
use super::{listen, peer};

/// One request as it crossed the wire: its message, its bytes, and the bytes of its replies.
#[derive(Clone)]
pub(crate) struct Crossing {
    pub(crate) request: Request,
    pub(crate) request_bytes: usize,
    /// Lengths of the reply frames, sorted: answers come in any order.
    pub(crate) reply_bytes: Vec<usize>,
}

/// Stands between a client and a server and writes down what crosses.
pub(crate) struct Recorder {
    pub(crate) address: SocketAddr,
    pub(crate) ca_pem: String,
    crossings: Arc<Mutex<Vec<Crossing>>>,
}

impl Recorder {
    pub(crate) fn start(to: &Serving) -> Self {
        let own = certificates::localhost().unwrap();
        let endpoint = listen::on_loopback(&own);
        let (address, ca_pem) = (endpoint.local_addr().unwrap(), own.ca_pem);
        let crossings = Arc::new(Mutex::new(Vec::new()));
        let (upstream, ca, log) = (to.address, to.certificates.ca_pem.clone(), crossings.clone());
        tokio::spawn(async move {
            while let Some(incoming) = endpoint.accept().await {
                let connection = incoming.await.unwrap();
                let config = peer::client_config(&ca, ALPN, 1 << 20, None);
                let upstream = peer::connect(upstream, config).await.unwrap();
                let log = log.clone();
                tokio::spawn(async move {
                    while let Ok((send, receive)) = connection.accept_bi().await {
                        relay(&upstream.connection, send, receive, &log).await;
                    }
                });
            }
        });
        Self { address, ca_pem, crossings }
    }

    pub(crate) fn take(&self) -> Vec<Crossing> {
        std::mem::take(&mut self.crossings.lock().unwrap())
    }
}

async fn relay(
    upstream: &quinn::Connection,
    mut send: quinn::SendStream,
    mut receive: quinn::RecvStream,
    log: &Mutex<Vec<Crossing>>,
) {
    let request = receive.read_to_end(64 << 20).await.unwrap();
    let (mut up, mut down) = upstream.open_bi().await.unwrap();
    up.write_all(&request).await.unwrap();
    up.finish().unwrap();
    let replies = down.read_to_end(64 << 20).await.unwrap();
    log.lock().unwrap().push(Crossing {
        request: Request::decode_length_delimited(&request[..]).unwrap(),
        request_bytes: request.len(),
        reply_bytes: frame_lengths(&replies),
    });
    send.write_all(&replies).await.unwrap();
    send.finish().unwrap();
}

fn frame_lengths(mut bytes: &[u8]) -> Vec<usize> {
    let mut lengths = Vec::new();
    while !bytes.is_empty() {
        let before = bytes.len();
        let length = prost::encoding::decode_varint(&mut bytes).unwrap() as usize;
        bytes = &bytes[length..];
        lengths.push(before - bytes.len());
    }
    lengths.sort_unstable();
    lengths
}
