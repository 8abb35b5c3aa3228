//! A crowd of peers that stall, reset, send noise, hang up and vanish, all at once, beside clients
//! that must be served as if they were alone. `tests/hostile` attacks the program in more ways
//! (datagrams, half-open handshakes, idle connections, unread replies, mutated frames and bundles);
//! here the server is in this process, so that every query is accounted for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use sotto::server::ServerBounds;
use sotto::wire::{ALPN, StreamCode, Uid};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::harness::load::{self, Load, reach};
use super::harness::peer::{self, PATIENCE, Peer};
use super::harness::target::{Target, frame};
use super::harness::{Draw, Setting, seed, until};
use super::{record, settled, times};

/// What a peer may do to a server.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Misdeed {
    /// Another protocol's name.
    OtherProtocol,
    /// Streams of noise.
    Noise,
    /// Frames that never come to their end.
    Stall,
    /// Frames that are reset half-way.
    Reset,
    /// Queries whose answers are not wanted any more once they are asked.
    HangUp,
    /// Queries, and then no connection.
    Vanish,
}

use Misdeed::{HangUp, Noise, OtherProtocol, Reset, Stall, Vanish};

const MISDEEDS: [Misdeed; 6] = [OtherProtocol, Noise, Stall, Reset, HangUp, Vanish];

/// Connections that a peer keeps open, the last few.
const HELD: usize = 8;

impl Misdeed {
    /// Commits it on four streams of a new connection, which is returned unless it has ended.
    async fn commit(self, target: &Target, draw: &mut Draw) -> Option<Peer> {
        let cancelled = StreamCode::Cancelled.code().into();
        let alpn = if self == OtherProtocol { &b"h3"[..] } else { ALPN };
        let peer = peer::connect(target.address, target.config(alpn, 1_000)).await.ok()?;
        let mut stalled = Vec::new();
        for _ in 0..4 {
            let whole = frame(target.batch("0", 1, draw));
            match self {
                OtherProtocol => panic!("the server speaks h3"),
                Noise => {
                    let length = draw.below(2_000);
                    read(send(&peer, &draw.bytes(length)).await?).await;
                }
                Stall => {
                    let some = draw.below(whole.len() as u64) as usize;
                    stalled.push(open(&peer, &whole[..some]).await?);
                }
                Reset => {
                    let (mut send, mut receive) = open(&peer, &whole[..whole.len() / 2]).await?;
                    let _ = send.reset(cancelled);
                    let _ = receive.stop(cancelled);
                }
                HangUp | Vanish => {
                    let bundle = target.bundle(draw);
                    let uid = Uid::of(&bundle).to_string();
                    read(send(&peer, &frame(target.parameters(Some(bundle)))).await?).await;
                    let mut answers = send(&peer, &frame(target.batch(&uid, 64, draw))).await?;
                    if self == Vanish {
                        peer.connection.close(0u32.into(), b"");
                    } else {
                        let _ = answers.stop(cancelled);
                    }
                }
            }
        }
        for (_send, receive) in stalled {
            // Until the server has had enough of it.
            read(receive).await;
        }
        Some(peer)
    }
}

/// Opens a stream and sends these bytes; nothing where the server has ended the connection, as it
/// does with one that has asked for nothing when others need its place.
async fn open(peer: &Peer, bytes: &[u8]) -> Option<(quinn::SendStream, quinn::RecvStream)> {
    let (mut send, receive) = peer.connection.open_bi().await.ok()?;
    let _ = timeout(PATIENCE, send.write_all(bytes)).await.unwrap();
    Some((send, receive))
}

async fn send(peer: &Peer, bytes: &[u8]) -> Option<quinn::RecvStream> {
    let (mut send, receive) = open(peer, bytes).await?;
    // A server that has seen enough may have stopped the stream already.
    let _ = send.finish();
    Some(receive)
}

/// Whatever comes: a reply, a reset, the end of the connection.
async fn read(mut stream: quinn::RecvStream) {
    let _ = timeout(PATIENCE, stream.read_to_end(1 << 20)).await.unwrap();
}

/// Patience of a server that gives up soon, and yet long enough for a client on a busy machine.
fn impatient() -> ServerBounds {
    let soon = Duration::from_millis(500);
    ServerBounds {
        stream_read_timeout: soon,
        stream_write_timeout: soon,
        handshake_timeout: soon,
        handshakes_max: 16,
        ..ServerBounds::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_crowd_takes_nothing_from_others() {
    let built = load::database();
    let serving = Setting { bounds: impatient(), ..Setting::default() }.serve(&built.db());
    let counters = &serving.counters;
    let ca_pem = &serving.certificates.ca_pem;
    let target = Arc::new(Target::new(serving.address, ca_pem, &built.db()));
    let (leave, seed) = (Arc::new(AtomicBool::new(false)), seed());
    let done: Arc<[AtomicU64; MISDEEDS.len()]> = Arc::default();
    let mut load = Load::start(&reach(&built, &serving), 2).await;
    let mut crowd = JoinSet::new();
    for (number, misdeed) in MISDEEDS.into_iter().enumerate() {
        let (target, leave, done) = (target.clone(), leave.clone(), done.clone());
        crowd.spawn(async move {
            let mut draw = Draw::new(seed, &format!("{misdeed:?}"));
            let mut held = Vec::new();
            while !leave.load(Ordering::SeqCst) {
                held.extend(misdeed.commit(&target, &mut draw).await);
                held.drain(..held.len().saturating_sub(HELD));
                done[number].fetch_add(1, Ordering::SeqCst);
            }
        });
    }
    for round in 1..=times(10) {
        for (misdeed, done) in MISDEEDS.iter().zip(done.iter()) {
            until(&format!("{misdeed:?}"), || done.load(Ordering::SeqCst) >= round).await;
        }
    }
    load.more(times(5)).await;
    leave.store(true, Ordering::SeqCst);
    while let Some(ended) = crowd.join_next().await {
        ended.unwrap();
    }
    // The crowd is gone, and so is what it held.
    load.more(2).await;
    let committed: u64 = done.iter().map(|done| done.load(Ordering::SeqCst)).sum();
    record(&format!("hostile crowd, {committed} misdeeds: {}", load.stop().await));
    settled(counters).await;
    // It was noticed.
    let reset = |code| counters.streams_reset.get(code);
    let noticed = [
        counters.handshakes_failed.get(),
        counters.streams_abandoned.get(),
        reset(StreamCode::Protocol),
        reset(StreamCode::Timeout),
        counters.queries_cancelled.get() + counters.queries_unclaimed.get(),
    ];
    assert!(noticed.iter().all(|&count| count > 0), "{counters:?}");
}
