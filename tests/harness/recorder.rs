//! A recorder between client and server.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use prost::Message;
use sotto::server::certificates::LocalCertificates;
use sotto::wire::ALPN;
use sotto::wire::message::{Reply, Request};

use super::{listen, peer};

/// One request as it crossed the wire: its message, its bytes, and the bytes of its replies.
#[derive(Clone)]
pub(crate) struct Crossing {
    pub(crate) request: Request,
    pub(crate) request_bytes: Vec<u8>,
    /// Reply frames in the order in which they came.
    pub(crate) replies: Vec<Vec<u8>>,
}

type Change = Box<dyn FnMut(&mut Reply) + Send>;

struct Shared {
    crossings: Mutex<Vec<Crossing>>,
    connections: Mutex<usize>,
    change: Mutex<Change>,
}

/// Stands between a client and a server and writes down what crosses. It may change replies.
pub(crate) struct Recorder {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

impl Recorder {
    /// In front of a server; `own` are the recorder's certificates and the server's authority.
    pub(crate) fn start(to: SocketAddr, own: &LocalCertificates) -> Self {
        let endpoint = listen::on_loopback(own);
        let address = endpoint.local_addr().unwrap();
        let shared = Arc::new(Shared {
            crossings: Mutex::default(),
            connections: Mutex::default(),
            change: Mutex::new(Box::new(|_| {})),
        });
        let (log, ca_pem) = (shared.clone(), own.ca_pem.clone());
        tokio::spawn(async move {
            while let Some(incoming) = endpoint.accept().await {
                let config = peer::client_config(&ca_pem, ALPN, 1 << 20, None);
                tokio::spawn(carry(incoming, to, config, log.clone()));
            }
        });
        Self { address, shared }
    }

    /// What becomes of replies from now on.
    pub(crate) fn change(&self, change: impl FnMut(&mut Reply) + Send + 'static) {
        *self.shared.change.lock().unwrap() = Box::new(change);
    }

    /// Connections so far.
    pub(crate) fn connections(&self) -> usize {
        *self.shared.connections.lock().unwrap()
    }

    pub(crate) fn take(&self) -> Vec<Crossing> {
        std::mem::take(&mut self.shared.crossings.lock().unwrap())
    }
}

async fn carry(
    incoming: quinn::Incoming,
    to: SocketAddr,
    config: quinn::ClientConfig,
    log: Arc<Shared>,
) {
    let Ok(upstream) = peer::connect(to, config).await else { return };
    let Ok(connection) = incoming.await else { return };
    *log.connections.lock().unwrap() += 1;
    loop {
        let (send, receive) = tokio::select! {
            opened = connection.accept_bi() => match opened {
                Ok(opened) => opened,
                Err(_) => return,
            },
            _ = upstream.connection.closed() => return,
        };
        let (upstream, log) = (upstream.connection.clone(), log.clone());
        // An error ends the stream, as it would without a recorder.
        tokio::spawn(async move {
            let _ = relay(&upstream, send, receive, &log).await;
        });
    }
}

async fn relay(
    upstream: &quinn::Connection,
    mut send: quinn::SendStream,
    mut receive: quinn::RecvStream,
    log: &Shared,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let request_bytes = receive.read_to_end(64 << 20).await?;
    let (mut up, mut down) = upstream.open_bi().await?;
    up.write_all(&request_bytes).await?;
    up.finish()?;
    let bytes = down.read_to_end(64 << 20).await?;
    let mut replies = frames(&bytes);
    for frame in &mut replies {
        let mut reply = Reply::decode_length_delimited(&frame[..])?;
        (log.change.lock().unwrap())(&mut reply);
        *frame = reply.encode_length_delimited_to_vec();
    }
    send.write_all(&replies.concat()).await?;
    send.finish()?;
    let request = Request::decode_length_delimited(&request_bytes[..])?;
    log.crossings.lock().unwrap().push(Crossing { request, request_bytes, replies });
    Ok(())
}

fn frames(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let mut rest = bytes;
        let length = prost::encoding::decode_varint(&mut rest).unwrap() as usize;
        let whole = bytes.len() - rest.len() + length;
        frames.push(bytes[..whole].to_vec());
        bytes = &bytes[whole..];
    }
    frames
}
