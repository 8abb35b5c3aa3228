//! What an attacker does, over and over.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use quinn::{RecvStream, SendStream, VarInt};
use rustix::process::Signal;
use sotto::wire::message::{PirBatch, PirRequest, RequestBody};
use sotto::wire::{ALPN, StreamCode};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{interval, sleep, timeout};

use super::harness::Draw;
use super::harness::host::pipe_at;
use super::harness::peer::{HalfOpener, Peer};
use super::harness::target::frame;
use super::operator::Served;

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

use Attack::{Fifos, HalfOpen, Idle, MutatedFrames, Noise, SlowAdmin, Unread};

pub(crate) const ALL: [Attack; 7] =
    [MutatedFrames, HalfOpen, Noise, Unread, Idle, SlowAdmin, Fifos];

/// How often it was done, and how often the server did not let it.
#[derive(Debug, Default)]
pub(crate) struct Done {
    pub(crate) times: u64,
    pub(crate) refused: u64,
}

/// A connection, unless the server has no place or no time.
async fn connect(served: &Served, window: u32, done: &mut Done) -> Option<Peer> {
    let peer = timeout(PATIENCE, served.target.connect(window)).await.ok().flatten();
    done.refused += u64::from(peer.is_none());
    peer
}

/// Queries that are none: each costs its sender ten bytes, and is answered.
fn refusals() -> RequestBody {
    let request = |nonce: u32| PirRequest { nonce: nonce.to_string(), ..PirRequest::default() };
    RequestBody::Batch(PirBatch { requests: (0..1024).map(request).collect() })
}

impl Attack {
    /// Until it is over.
    pub(crate) async fn run(self, served: Arc<Served>, seed: u64, over: Arc<AtomicBool>) -> Done {
        let mut draw = Draw::new(seed, &format!("{self:?}"));
        let mut done = Done::default();
        while !over.load(Ordering::SeqCst) {
            match self {
                MutatedFrames => mutated_frames(&served, &mut draw, &mut done).await,
                HalfOpen => half_open(&served, &mut done, &over).await,
                Noise => noise(&served, &mut draw, &mut done).await,
                Unread => unread(&served, &mut done, &over).await,
                Idle => idle(&served, &mut done, &over).await,
                SlowAdmin => slow_admin(&served, &mut done, &over).await,
                Fifos => fifos(&served, &mut done, &over).await,
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

async fn mutated_frames(served: &Served, draw: &mut Draw, done: &mut Done) {
    let Some(peer) = connect(served, 1 << 20, done).await else { return sleep(PAUSE).await };
    for _ in 0..64 {
        let body = match draw.below(6) {
            0 => served.target.parameters(None),
            1 => {
                let bundle = draw.bytes(served.target.shape.bundle_bytes() as u64);
                served.target.parameters(Some(bundle.into()))
            }
            2 => served.target.hints(),
            3 => refusals(),
            _ => {
                let count = 1 + draw.below(3);
                served.target.batch(&"0".repeat(32), count, draw)
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

async fn half_open(served: &Served, done: &mut Done, over: &AtomicBool) {
    let mut opener = HalfOpener::new(served.target.address, served.target.config(ALPN, 1000)).await;
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

async fn noise(served: &Served, draw: &mut Draw, done: &mut Done) {
    done.times += served.target.datagrams_of_noise(draw).await;
    sleep(PAUSE).await;
}

/// Connections whose streams are all open, with replies that have nowhere to go.
async fn unread(served: &Served, done: &mut Done, over: &AtomicBool) {
    let mut held = Vec::new();
    let asked = [served.target.hints(), served.target.parameters(None), refusals()].map(frame);
    for number in 0..44 {
        let Some(peer) = connect(served, 0, done).await else { continue };
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
    pause(100, over).await;
}

/// Waits for so many pauses, or until it is over.
async fn pause(pauses: u32, over: &AtomicBool) {
    for _ in 0..pauses {
        if over.load(Ordering::SeqCst) {
            return;
        }
        sleep(PAUSE).await;
    }
}

async fn idle(served: &Served, done: &mut Done, over: &AtomicBool) {
    let mut peers: Vec<Peer> = Vec::new();
    while !over.load(Ordering::SeqCst) {
        peers.retain(|peer| peer.connection.close_reason().is_none());
        if peers.len() < 256
            && let Some(peer) = connect(served, 1000, done).await
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

async fn slow_admin(served: &Served, done: &mut Done, over: &AtomicBool) {
    let mut held = Vec::new();
    for _ in 0..64 {
        let connected = timeout(PATIENCE, TcpStream::connect(served.admin)).await;
        let Ok(Ok(mut stream)) = connected else { continue };
        let _ = stream.write_all(b"G").await;
        held.push(stream);
        done.times += 1;
    }
    pause(100, over).await;
}

/// Puts a pipe in the place of the certificate, has it read, and puts the certificate back.
async fn fifos(served: &Served, done: &mut Done, over: &AtomicBool) {
    let path = served.place.built.path("server.pem");
    let pem = &served.place.certificates.server_pem;
    let read_again = || served.program.signal(Signal::HUP);
    let beside = path.with_extension("new");
    pipe_at(&beside);
    std::fs::rename(&beside, &path).unwrap();
    read_again();
    done.times += 1;
    pause(20, over).await;
    std::fs::write(&beside, pem).unwrap();
    std::fs::rename(&beside, &path).unwrap();
    read_again();
    pause(20, over).await;
}
