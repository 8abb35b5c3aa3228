//! What an attacker does, over and over.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use quinn::{RecvStream, SendStream, VarInt};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::{Pid, Signal, kill_process};
use sotto::params::Shape;
use sotto::shard::Database;
use sotto::wire::message::{
    HintRequest, PirBatch, PirParameterRequest, PirRequest, Request, RequestBody,
};
use sotto::wire::{ALPN, Bytes, PIR_SCHEME_SOTTO_2, StreamCode, Uid, encode_frame};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{interval, sleep, timeout};

use super::Draw;
use super::harness::peer::{self, HalfOpener, Peer};
use super::operator::Program;

/// How long an attacker waits for anything.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between looks whether it is over.
const PAUSE: Duration = Duration::from_millis(50);

/// One kind of attack.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Attack {
    /// Frames with some bytes changed, cut off or repeated, reset or stopped at any place.
    MutatedFrames,
    /// Four hundred handshakes a second that are never ended.
    HalfOpen,
    /// Datagrams of noise, some of which begin like those of a handshake.
    Noise,
    /// Hints, parameters and refusals that are asked for on every stream, and never read.
    Unread,
    /// Connections that open a stream every half second and ask nothing on it.
    Idle,
    /// Sockets of the admin endpoints that send one byte.
    SlowAdmin,
    /// A certificate that is a pipe which nobody writes, when the server is told to read it.
    Fifos,
}

pub(crate) const ALL: [Attack; 7] = [
    Attack::MutatedFrames,
    Attack::HalfOpen,
    Attack::Noise,
    Attack::Unread,
    Attack::Idle,
    Attack::SlowAdmin,
    Attack::Fifos,
];

/// Whom it is done to.
pub(crate) struct Target {
    address: SocketAddr,
    admin: SocketAddr,
    /// The server's certificate, and what is in it.
    certificate: (PathBuf, String),
    pid: u32,
    ca_pem: String,
    shape: Shape,
    epoch: u64,
    shards: u32,
}

/// How often it was done, and how often the server did not let it.
#[derive(Debug, Default)]
pub(crate) struct Done {
    pub(crate) times: u64,
    refused: u64,
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} times, refused a connection {} times", self.times, self.refused)
    }
}

impl Target {
    pub(crate) fn of(program: &Program) -> Self {
        let database = Database::open(&program.db()).unwrap();
        Self {
            address: program.address,
            admin: program.admin,
            certificate: (program.certificate(), program.certificates.server_pem.clone()),
            pid: program.pid(),
            ca_pem: program.certificates.ca_pem.clone(),
            shape: *database.shape(),
            epoch: database.epoch(),
            shards: database.shard_count(),
        }
    }

    fn config(&self, window: u32) -> quinn::ClientConfig {
        peer::client_config(&self.ca_pem, ALPN, window, None)
    }

    /// A connection, unless the server has no place or no time.
    async fn connect(&self, window: u32, done: &mut Done) -> Option<Peer> {
        let connecting = timeout(PATIENCE, peer::connect(self.address, self.config(window))).await;
        let peer = connecting.ok().and_then(Result::ok);
        done.refused += u64::from(peer.is_none());
        peer
    }

    fn parameters(&self, bundle: Option<Bytes>) -> RequestBody {
        RequestBody::Parameters(PirParameterRequest {
            protocol_version: 1,
            nonce: "p".into(),
            uid: bundle.as_ref().map_or_else(String::new, |bundle| Uid::of(bundle).to_string()),
            pir_scheme: PIR_SCHEME_SOTTO_2,
            public_key: bundle.into_iter().collect(),
            want_hint_digests: true,
        })
    }

    fn hints(&self) -> RequestBody {
        let shards = (0..self.shards).collect();
        RequestBody::Hints(HintRequest { epoch: self.epoch, shards })
    }

    fn query(&self, nonce: u64, draw: &mut Draw) -> PirRequest {
        PirRequest {
            protocol_version: 1,
            nonce: nonce.to_string(),
            uid: "0".repeat(32),
            pir_scheme: PIR_SCHEME_SOTTO_2,
            shard: draw.below(u64::from(self.shards)) as u32,
            encrypted_vector: vec![draw.bytes(self.shape.query_bytes() as u64).into()],
            epoch: self.epoch,
            want_hint: true,
            ..PirRequest::default()
        }
    }

    /// Queries that are none: each costs its sender ten bytes, and is answered.
    fn refusals(&self) -> RequestBody {
        let requests = (0..1024u32)
            .map(|nonce| PirRequest { nonce: nonce.to_string(), ..PirRequest::default() });
        RequestBody::Batch(PirBatch { requests: requests.collect() })
    }
}

fn frame(body: RequestBody) -> Vec<u8> {
    encode_frame(&Request::from(body))
}

impl Attack {
    /// Until it is over.
    pub(crate) async fn run(self, target: Arc<Target>, seed: u64, over: Arc<AtomicBool>) -> Done {
        let mut draw = Draw::new(seed, &format!("{self:?}"));
        let mut done = Done::default();
        while !over.load(Ordering::SeqCst) {
            match self {
                Self::MutatedFrames => mutated_frames(&target, &mut draw, &mut done).await,
                Self::HalfOpen => half_open(&target, &mut done, &over).await,
                Self::Noise => noise(&target, &mut draw, &mut done).await,
                Self::Unread => unread(&target, &mut done, &over).await,
                Self::Idle => idle(&target, &mut done, &over).await,
                Self::SlowAdmin => slow_admin(&target, &mut done, &over).await,
                Self::Fifos => fifos(&target, &mut done, &over).await,
            }
        }
        done
    }
}

/// A frame with something wrong with it, most of the time.
fn mutate(mut bytes: Vec<u8>, draw: &mut Draw) -> Vec<u8> {
    for _ in 0..draw.below(4) {
        let at = draw.below(bytes.len() as u64) as usize;
        match draw.below(5) {
            0 => bytes[at] ^= 1 << draw.below(8),
            1 => bytes[at] = draw.below(256) as u8,
            2 => bytes.truncate(at.max(1)),
            3 => {
                let more = 1 + draw.below(16);
                bytes.splice(at..at, draw.bytes(more));
            }
            _ => {
                // The first bytes are lengths and tags.
                let at = draw.below(bytes.len().min(24) as u64) as usize;
                bytes[at] = [0, 0x7f, 0x80, 0xff][draw.below(4) as usize];
            }
        }
    }
    bytes
}

async fn mutated_frames(target: &Target, draw: &mut Draw, done: &mut Done) {
    let Some(peer) = target.connect(1 << 20, done).await else { return sleep(PAUSE).await };
    for _ in 0..64 {
        let body = match draw.below(6) {
            0 => target.parameters(None),
            1 => {
                let bundle = draw.bytes(target.shape.bundle_bytes() as u64);
                target.parameters(Some(bundle.into()))
            }
            2 => target.hints(),
            3 => target.refusals(),
            _ => {
                let count = 1 + draw.below(3);
                let requests = (0..count).map(|nonce| target.query(nonce, draw));
                RequestBody::Batch(PirBatch { requests: requests.collect() })
            }
        };
        let bytes = mutate(frame(body), draw);
        let opened = timeout(PATIENCE, peer.connection.open_bi()).await;
        let Ok(Ok((send, receive))) = opened else { return };
        if draw.below(16) == 0 {
            // And what comes back is read, whatever it is.
            let _ = timeout(PATIENCE, one_frame(send, receive, &bytes, draw)).await;
        } else {
            tokio::spawn(abandon(send, receive, bytes, draw.below(4)));
        }
        done.times += 1;
    }
}

async fn one_frame(mut send: SendStream, mut receive: RecvStream, bytes: &[u8], draw: &mut Draw) {
    let some = draw.below(bytes.len() as u64 + 1) as usize;
    let _ = send.write_all(&bytes[..some]).await;
    let _ = send.finish();
    let _ = receive.read_to_end(1 << 20).await;
}

/// Sends it, and loses interest at some place.
async fn abandon(mut send: SendStream, mut receive: RecvStream, bytes: Vec<u8>, how: u64) {
    let cancelled = VarInt::from_u32(StreamCode::Cancelled.code());
    let half = if how < 2 { &bytes[..bytes.len() / 2] } else { &bytes[..] };
    let _ = timeout(PATIENCE, send.write_all(half)).await;
    match how {
        0 => drop(send.reset(cancelled)),
        1 | 2 => drop(receive.stop(cancelled)),
        _ => drop(send.finish()),
    }
}

async fn half_open(target: &Target, done: &mut Done, over: &AtomicBool) {
    let mut opener = HalfOpener::new(target.address, target.config(1000)).await;
    let mut pace = interval(Duration::from_millis(10));
    // Then from another port: this one's endpoint goes on asking.
    for _ in 0..500 {
        if over.load(Ordering::SeqCst) {
            return;
        }
        pace.tick().await;
        (0..4).for_each(|_| opener.begin());
        done.times += 4;
    }
}

async fn noise(target: &Target, draw: &mut Draw, done: &mut Done) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for _ in 0..64 {
        let bytes = 1 + draw.below(1_500);
        let mut noise = draw.bytes(bytes);
        if noise.len() > 5 && draw.below(2) == 0 {
            // An Initial of version 1.
            noise[0] |= 0xc0;
            noise[1..5].copy_from_slice(&[0, 0, 0, 1]);
        }
        let _ = socket.send_to(&noise, target.address).await;
        done.times += 1;
    }
    sleep(PAUSE).await;
}

/// Connections whose streams are all open, with replies that have nowhere to go.
async fn unread(target: &Target, done: &mut Done, over: &AtomicBool) {
    let mut held = Vec::new();
    let asked = [target.hints(), target.parameters(None), target.refusals()].map(frame);
    for number in 0..44 {
        let Some(peer) = target.connect(0, done).await else { continue };
        let mut streams = Vec::new();
        for stream in 0..128 {
            if over.load(Ordering::SeqCst) {
                return;
            }
            let opened = timeout(PAUSE, peer.connection.open_bi()).await;
            let Ok(Ok((mut send, receive))) = opened else { break };
            // Half of them hints.
            let bytes = &asked[if stream % 2 == 0 { 0 } else { 1 + number % 2 }];
            let _ = timeout(PATIENCE, send.write_all(bytes)).await;
            let _ = send.finish();
            streams.push(receive);
            done.times += 1;
        }
        held.push((peer, streams));
    }
    // As long as the server lets them.
    for _ in 0..100 {
        if over.load(Ordering::SeqCst) {
            return;
        }
        sleep(PAUSE).await;
    }
}

async fn idle(target: &Target, done: &mut Done, over: &AtomicBool) {
    let mut peers: Vec<Peer> = Vec::new();
    while !over.load(Ordering::SeqCst) {
        peers.retain(|peer| peer.connection.close_reason().is_none());
        if peers.len() < 256
            && let Some(peer) = target.connect(1000, done).await
        {
            peers.push(peer);
        }
        // Each is given one in half a second, about.
        for peer in &peers {
            if let Ok(Ok((mut send, _))) = timeout(PAUSE, peer.connection.open_bi()).await {
                let _ = send.write_all(&[0x80]).await;
                done.times += 1;
            }
        }
        sleep(if peers.len() < 256 { PAUSE / 5 } else { 10 * PAUSE }).await;
    }
}

async fn slow_admin(target: &Target, done: &mut Done, over: &AtomicBool) {
    let mut held = Vec::new();
    for _ in 0..64 {
        let connected = timeout(PATIENCE, TcpStream::connect(target.admin)).await;
        let Ok(Ok(mut stream)) = connected else { continue };
        let _ = stream.write_all(b"G").await;
        held.push(stream);
        done.times += 1;
    }
    for _ in 0..100 {
        if over.load(Ordering::SeqCst) {
            return;
        }
        sleep(PAUSE).await;
    }
}

/// Puts a pipe in the place of the certificate, has it read, and puts the certificate back.
async fn fifos(target: &Target, done: &mut Done, over: &AtomicBool) {
    let (path, pem) = &target.certificate;
    let read_again = || {
        let pid = Pid::from_raw(target.pid as i32).unwrap();
        kill_process(pid, Signal::HUP).unwrap();
    };
    let beside = path.with_extension("new");
    mknodat(CWD, &beside, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    std::fs::rename(&beside, path).unwrap();
    read_again();
    done.times += 1;
    for part in 0..40 {
        if over.load(Ordering::SeqCst) || part == 20 {
            std::fs::write(&beside, pem).unwrap();
            std::fs::rename(&beside, path).unwrap();
            read_again();
        }
        if over.load(Ordering::SeqCst) {
            return;
        }
        sleep(PAUSE).await;
    }
}
