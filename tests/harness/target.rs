//! A server that peers misbehave towards: where it is, and requests that it has to read.

use std::net::SocketAddr;
use std::path::Path;

use sotto::params::Shape;
use sotto::shard::Database;
use sotto::wire::message::*;
use sotto::wire::{ALPN, Bytes, PIR_SCHEME_SOTTO_2, encode_frame};
use tokio::net::UdpSocket;

use super::Draw;
use super::host::{bundle_request, parameter_request};
use super::peer::{self, Peer};

pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) shape: Shape,
    ca_pem: String,
    epoch: u64,
    shards: u32,
}

impl Target {
    /// The server at this address, certified by this authority, which serves this database.
    pub(crate) fn new(address: SocketAddr, ca_pem: &str, db: &Path) -> Self {
        let database = Database::open(db).unwrap();
        let (shape, epoch, shards) = (*database.shape(), database.epoch(), database.shard_count());
        Self { address, shape, ca_pem: ca_pem.to_owned(), epoch, shards }
    }

    pub(crate) fn config(&self, alpn: &[u8], window: u32) -> quinn::ClientConfig {
        peer::client_config(&self.ca_pem, alpn, window, None)
    }

    /// A connection, unless the server has no place for it.
    pub(crate) async fn connect(&self, window: u32) -> Option<Peer> {
        peer::connect(self.address, self.config(ALPN, window)).await.ok()
    }

    /// A key bundle, whose every three bytes are a residue.
    pub(crate) fn bundle(&self, draw: &mut Draw) -> Bytes {
        let mut bundle = draw.bytes(self.shape.bundle_bytes() as u64);
        bundle.iter_mut().skip(2).step_by(3).for_each(|byte| *byte &= 0x7f);
        bundle.into()
    }

    /// Asks for the parameters, and brings a bundle.
    pub(crate) fn parameters(&self, bundle: Option<Bytes>) -> RequestBody {
        let request = bundle.map_or_else(parameter_request, bundle_request);
        RequestBody::Parameters(PirParameterRequest { want_hint_digests: true, ..request })
    }

    /// Asks for every hint.
    pub(crate) fn hints(&self) -> RequestBody {
        let (epoch, shards) = (self.epoch, (0..self.shards).collect());
        RequestBody::Hints(HintRequest { epoch, shards, digests_only: false })
    }

    /// Random queries under the bundle of this name. Some are late before they are looked at.
    pub(crate) fn batch(&self, uid: &str, queries: u64, draw: &mut Draw) -> RequestBody {
        let query = |nonce: u64| PirRequest {
            protocol_version: 1,
            nonce: nonce.to_string(),
            uid: uid.to_owned(),
            pir_scheme: PIR_SCHEME_SOTTO_2,
            shard: draw.below(u64::from(self.shards)) as u32,
            encrypted_vector: vec![draw.bytes(self.shape.query_bytes() as u64).into()],
            epoch: self.epoch,
            want_hint: true,
            deadline_ms: u32::from(draw.below(4) == 0),
            pack: 0,
        };
        RequestBody::Batch(PirBatch { requests: (0..queries).map(query).collect() })
    }

    /// Sends datagrams of noise, some of which begin like those of a handshake; says how many.
    pub(crate) async fn datagrams_of_noise(&self, draw: &mut Draw) -> u64 {
        const COUNT: u64 = 64;
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        for _ in 0..COUNT {
            let bytes = 1 + draw.below(1_500);
            let mut noise = draw.bytes(bytes);
            if noise.len() > 5 && draw.below(2) == 0 {
                // An Initial packet of version 1.
                noise[0] |= 0xc0;
                noise[1..5].copy_from_slice(&[0, 0, 0, 1]);
            }
            let _ = socket.send_to(&noise, self.address).await;
        }
        COUNT
    }
}

pub(crate) fn frame(body: RequestBody) -> Vec<u8> {
    encode_frame(&Request::from(body))
}
