//! A server of a database of noise, engines that a test controls, and requests and replies of
//! `wire` by hand.

use std::path::Path;

use quinn::{ReadToEndError, RecvStream, VarInt};
use sotto::engine::{Answer, Batch, Engine, EngineError};
use sotto::limits;
use sotto::params::Shape;
use sotto::scheme::reference;
use sotto::server::certificates::{self, LocalCertificates};
use sotto::server::{Callers, ServerBounds};
use sotto::wire::message::*;
use sotto::wire::{
    ALPN, Bytes, PIR_SCHEME_SOTTO_2, Status, StreamCode, Uid, decode_reply, encode_frame,
    reply_head,
};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::noise;
use super::peer;

pub(crate) use super::noise::{EPOCH, operator};
pub(crate) use super::peer::{HalfOpener, PATIENCE, Peer, connect, until};
pub(crate) use super::server::{Serving, Setting, known};

pub(crate) const SHARDS: u32 = 3;

pub(crate) fn shape() -> Shape {
    Shape::new(24, 128, 2, 192).unwrap()
}

/// A key bundle of residues; `index` makes it another one.
pub(crate) fn bundle(index: u8) -> Bytes {
    noise::residues(&format!("bundle {index}"), shape().bundle_bytes()).into()
}

pub(crate) fn write_database(directory: &Path) {
    noise::write_database(directory, shape(), SHARDS);
}

/// Puts a pipe that nobody writes to in a file's place.
pub(crate) fn pipe_at(path: &Path) {
    let _ = std::fs::remove_file(path);
    let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR);
    rustix::fs::mknodat(rustix::fs::CWD, path, kind, mode, 0).unwrap();
}

/// Answers as the reference does.
pub(crate) struct Reference;

impl Engine for Reference {
    fn name(&self) -> String {
        "reference".into()
    }

    fn answer(
        &mut self,
        batches: &[Batch<'_>],
        done: &mut dyn FnMut(usize, usize, Answer),
    ) -> Result<(), EngineError> {
        for (at, Batch { shard, queries }) in batches.iter().enumerate() {
            for (index, query) in queries.iter().enumerate() {
                let (matrix, tables) = (shard.matrix, shard.tables);
                let (vector, bundle) = (&query.vector, &query.bundle);
                done(at, index, reference::answer(shard.shape, matrix, tables, vector, bundle));
            }
        }
        Ok(())
    }
}

/// The test's side of a [`Gated`] engine.
pub(crate) struct Gate {
    began: mpsc::UnboundedReceiver<usize>,
    go_on: std::sync::mpsc::Sender<()>,
}

impl Gate {
    /// Waits until a call begins, and says how many queries it has.
    pub(crate) async fn began(&mut self) -> usize {
        timeout(PATIENCE, self.began.recv()).await.unwrap().unwrap()
    }

    /// Lets one call go on.
    pub(crate) fn go_on(&self) {
        self.go_on.send(()).unwrap();
    }
}

/// Waits in each call until the test lets it go on; fails once the test has dropped its side.
/// Answers with the shape's sizes and the vector's first byte.
pub(crate) struct Gated {
    began: mpsc::UnboundedSender<usize>,
    go_on: std::sync::mpsc::Receiver<()>,
}

pub(crate) fn gated() -> (Gated, Gate) {
    let (began_sender, began) = mpsc::unbounded_channel();
    let (go_on, go_on_receiver) = std::sync::mpsc::channel();
    (Gated { began: began_sender, go_on: go_on_receiver }, Gate { began, go_on })
}

impl Engine for Gated {
    fn name(&self) -> String {
        "gated".into()
    }

    fn answer(
        &mut self,
        batches: &[Batch<'_>],
        done: &mut dyn FnMut(usize, usize, Answer),
    ) -> Result<(), EngineError> {
        let _ = self.began.send(batches.iter().map(|batch| batch.queries.len()).sum());
        self.go_on.recv().map_err(|_| EngineError::Device("the test let go".into()))?;
        for (at, Batch { shard, queries }) in batches.iter().enumerate() {
            for (index, query) in queries.iter().enumerate() {
                let pack = vec![query.vector[0]; shard.shape.response_bytes()];
                done(at, index, vec![pack; shard.shape.packs()]);
            }
        }
        Ok(())
    }
}

/// Room for the answer to one query, and not for two.
pub(crate) fn room_for_one_answer() -> usize {
    let answer = shape().packs() * shape().response_bytes();
    // One caller has half of it.
    2 * (2 * limits::QUERY_STATE_BYTES + 2 * answer) - 1
}

impl Serving {
    /// Serves a database of noise to callers on this machine.
    pub(crate) fn start(engine: impl Engine + 'static, bounds: ServerBounds) -> Self {
        let certificates = certificates::localhost().unwrap();
        Self::start_for(Callers::Loopback, certificates, engine, bounds)
    }

    pub(crate) fn start_for(
        callers: Callers,
        certificates: LocalCertificates,
        engine: impl Engine + 'static,
        bounds: ServerBounds,
    ) -> Self {
        Self::of(Setting { engines: vec![Box::new(engine)], certificates, callers, bounds })
    }

    pub(crate) fn of(setting: Setting) -> Self {
        let folder = tempfile::tempdir().unwrap();
        write_database(folder.path());
        let mut serving = setting.serve(folder.path());
        serving.folder = Some(folder);
        serving
    }

    pub(crate) async fn connect(&self) -> Peer {
        self.try_connect(ALPN, 1 << 20).await.unwrap()
    }

    /// Connects with this protocol name and this window for the bytes of one stream.
    pub(crate) async fn try_connect(
        &self,
        alpn: &[u8],
        window: u32,
    ) -> Result<Peer, quinn::ConnectionError> {
        peer::connect(self.address, self.client_config(alpn, window, None)).await
    }

    /// Connects as soon as there is a place: one that has left may hold its own for a moment.
    pub(crate) async fn connect_in_turn(&self) -> Peer {
        loop {
            if let Ok(peer) = self.try_connect(ALPN, 1 << 20).await {
                return peer;
            }
        }
    }

    /// Connects with these certificates' client identity, trusting this server.
    pub(crate) async fn connect_as(
        &self,
        client: &LocalCertificates,
    ) -> Result<Peer, quinn::ConnectionError> {
        peer::connect(self.address, self.client_config(ALPN, 1 << 20, Some(client))).await
    }

    /// Whether one who was here before may send before the handshake is over (0-RTT).
    pub(crate) async fn early_data(&self) -> bool {
        let config = self.client_config(ALPN, 1 << 20, None);
        // The ticket to come again with is there before the reply.
        let first = peer::connect(self.address, config.clone()).await.unwrap();
        first.ask_parameters(parameter_request()).await;
        first.endpoint.connect_with(config, self.address, "localhost").unwrap().into_0rtt().is_ok()
    }

    /// Sends the first packet of a handshake from an address of its own, and never another.
    pub(crate) async fn knock(&self) -> UdpSocket {
        peer::knock(self.address, self.client_config(ALPN, 1000, None)).await
    }

    /// Whoever begins handshakes and ends none.
    pub(crate) async fn half_opener(&self) -> HalfOpener {
        HalfOpener::new(self.address, self.client_config(ALPN, 1000, None)).await
    }

    fn client_config(
        &self,
        alpn: &[u8],
        window: u32,
        client: Option<&LocalCertificates>,
    ) -> quinn::ClientConfig {
        peer::client_config(&self.certificates.ca_pem, alpn, window, client)
    }
}

/// A server with a gated engine, and a peer whose bundle it knows.
pub(crate) async fn gated_host(bounds: ServerBounds) -> (Serving, Gate, Peer, Bytes) {
    let (engine, gate) = gated();
    let host = Serving::start(engine, bounds);
    let (peer, key) = (host.connect().await, bundle(1));
    peer.bring(key.clone()).await;
    (host, gate, peer, key)
}

impl Peer {
    pub(crate) async fn send_request(&self, body: RequestBody) -> RecvStream {
        self.send(&encode_frame(&Request::from(body))).await
    }

    /// One request and all its replies.
    pub(crate) async fn ask(&self, body: RequestBody) -> Vec<ReplyBody> {
        replies(self.send_request(body).await).await
    }

    pub(crate) async fn ask_parameters(
        &self,
        request: PirParameterRequest,
    ) -> PirParameterResponse {
        let mut replies = self.ask(RequestBody::Parameters(request)).await;
        match (replies.pop(), replies.pop()) {
            (Some(ReplyBody::Parameters(reply)), None) => reply,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn ask_queries(&self, requests: Vec<PirRequest>) -> Vec<PirResponse> {
        answers(self.send_queries(requests).await).await
    }

    pub(crate) async fn send_queries(&self, requests: Vec<PirRequest>) -> RecvStream {
        self.send_request(RequestBody::Batch(PirBatch { requests })).await
    }

    pub(crate) async fn ask_hints(&self, epoch: u64, shards: Vec<u32>) -> Vec<Hint> {
        let replies =
            self.ask(RequestBody::Hints(HintRequest { epoch, shards, digests_only: false })).await;
        let hint = |reply| match reply {
            ReplyBody::Hint(hint) => hint,
            other => panic!("{other:?}"),
        };
        replies.into_iter().map(hint).collect()
    }

    /// Makes a bundle known.
    pub(crate) async fn bring(&self, bundle: Bytes) -> PirParameterResponse {
        let reply = self.ask_parameters(bundle_request(bundle)).await;
        assert_eq!(reply.response_status, Status::SchemeMatched.code(), "{}", reply.detail);
        reply
    }
}

/// All replies of a stream that the server finishes.
pub(crate) async fn replies(mut receive: RecvStream) -> Vec<ReplyBody> {
    let bytes = timeout(PATIENCE, receive.read_to_end(1 << 24)).await.unwrap().unwrap();
    let mut bytes = Bytes::from(bytes);
    let mut replies = Vec::new();
    while !bytes.is_empty() {
        let head = reply_head(&bytes, Some(&shape())).unwrap().unwrap();
        let frame = bytes.split_to(head.frame_bytes);
        replies.push(decode_reply(&head, frame, Some(&shape())).unwrap().body.unwrap());
    }
    replies
}

/// The answers of a batch's stream, by nonce.
pub(crate) async fn answers(receive: RecvStream) -> Vec<PirResponse> {
    let answer = |reply| match reply {
        ReplyBody::Answer(answer) => answer,
        other => panic!("{other:?}"),
    };
    let mut answers: Vec<PirResponse> = replies(receive).await.into_iter().map(answer).collect();
    answers.sort_by(|a, b| a.nonce.cmp(&b.nonce));
    answers
}

/// The code a stream that ends without replies is reset with.
pub(crate) async fn reset_code(mut receive: RecvStream) -> StreamCode {
    let ended = timeout(PATIENCE, receive.read_to_end(1 << 24)).await.unwrap();
    let Err(ReadToEndError::Read(quinn::ReadError::Reset(code))) = ended else {
        panic!("{ended:?}");
    };
    StreamCode::ALL.into_iter().find(|known| VarInt::from_u32(known.code()) == code).unwrap()
}

pub(crate) fn parameter_request() -> PirParameterRequest {
    PirParameterRequest {
        protocol_version: 1,
        nonce: "p".into(),
        pir_scheme: PIR_SCHEME_SOTTO_2,
        ..Default::default()
    }
}

pub(crate) fn bundle_request(bundle: Bytes) -> PirParameterRequest {
    let uid = Uid::of(&bundle).to_string();
    PirParameterRequest { uid, public_key: vec![bundle], ..parameter_request() }
}

/// A query under a bundle, its vector made of `label`.
pub(crate) fn query(nonce: &str, bundle: &Bytes, shard: u32, label: u8) -> PirRequest {
    PirRequest {
        protocol_version: 1,
        nonce: nonce.into(),
        uid: Uid::of(bundle).to_string(),
        pir_scheme: PIR_SCHEME_SOTTO_2,
        shard,
        encrypted_vector: vec![
            noise::residues(&format!("query {label}"), shape().query_bytes()).into(),
        ],
        epoch: EPOCH,
        ..Default::default()
    }
}

pub(crate) fn statuses(answers: &[PirResponse]) -> Vec<(&str, Status)> {
    let status = |code| Status::try_from(code).unwrap();
    answers.iter().map(|a| (a.nonce.as_str(), status(a.response_status))).collect()
}
