//! A hostile crowd: peers that stall, reset, send garbage, never speak or never finish shaking
//! hands, all at once, beside clients that must be served as if they were alone.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use sotto::server::ServerBounds;
use sotto::wire::{ALPN, Bytes, StreamCode, Uid};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

use super::harness::load::{self, Load, reach};
use super::harness::peer::{self, Peer};
use super::harness::target::{Target, frame};
use super::harness::{Draw, Setting, seed, until};
use super::{record, settled, times};

/// What a peer may do to a server.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Misdeed {
    /// Datagrams of noise, some of which begin like those of a handshake.
    Datagrams,
    /// The first packet of a handshake, and no other.
    Knocks,
    /// Another protocol's name.
    OtherProtocol,
    /// A connection that never speaks.
    Silence,
    /// Streams of noise.
    Noise,
    /// A frame of the right kind with one byte changed.
    Flipped,
    /// A frame that is announced, and never comes.
    Stall,
    /// A frame that is reset half-way, on many streams.
    Reset,
    /// Queries whose answers are not wanted any more once they are asked.
    HangUp,
    /// Queries, and then no connection.
    Vanish,
    /// Hints that are asked for and never read.
    Unread,
    /// Key bundles that are none.
    Bundles,
}

const MISDEEDS: [Misdeed; 12] = [
    Misdeed::Datagrams,
    Misdeed::Knocks,
    Misdeed::OtherProtocol,
    Misdeed::Silence,
    Misdeed::Noise,
    Misdeed::Flipped,
    Misdeed::Stall,
    Misdeed::Reset,
    Misdeed::HangUp,
    Misdeed::Vanish,
    Misdeed::Unread,
    Misdeed::Bundles,
];

/// What a peer keeps open, the last few.
#[derive(Default)]
struct Held {
    peers: VecDeque<Peer>,
    sockets: VecDeque<UdpSocket>,
    streams: VecDeque<(quinn::SendStream, quinn::RecvStream)>,
}

const HELD: usize = 8;

fn hold<T>(held: &mut VecDeque<T>, more: T) {
    held.push_back(more);
    if held.len() > HELD {
        held.pop_front();
    }
}

impl Misdeed {
    async fn commit(self, target: &Target, draw: &mut Draw, held: &mut Held) {
        match self {
            Self::Datagrams => {
                target.datagrams_of_noise(draw).await;
            }
            Self::Knocks => {
                let config = target.config(ALPN, 1_000);
                hold(&mut held.sockets, peer::knock(target.address, config).await);
            }
            Self::OtherProtocol => {
                let connected = peer::connect(target.address, target.config(b"h3", 1_000)).await;
                assert!(connected.is_err());
            }
            Self::Silence => {
                if let Some(peer) = target.connect(1_000).await {
                    hold(&mut held.peers, peer);
                }
            }
            Self::Vanish => {
                let Some(peer) = target.connect(1 << 20).await else { return };
                let bundle = target.bundle(draw);
                let known = send(&peer, &frame(target.parameters(Some(bundle.clone())))).await;
                let Some(known) = known else { return };
                drop(read(known).await);
                let uid = Uid::of(&bundle).to_string();
                let answers = send(&peer, &frame(target.batch(&uid, 64, draw))).await;
                peer.connection.close(0u32.into(), b"");
                drop(answers);
            }
            on_a_stream => {
                let Some(peer) = target.connect(1_000).await else { return };
                for _ in 0..4 {
                    if on_a_stream.commit_on(&peer, target, draw, held).await.is_none() {
                        return;
                    }
                }
                if on_a_stream == Self::Stall
                    && let Some((_send, receive)) = held.streams.pop_back()
                {
                    // Until the server has had enough of it.
                    drop(read(receive).await);
                }
                hold(&mut held.peers, peer);
            }
        }
    }

    /// Nothing once the connection is gone.
    async fn commit_on(
        self,
        peer: &Peer,
        target: &Target,
        draw: &mut Draw,
        held: &mut Held,
    ) -> Option<()> {
        let cancelled = StreamCode::Cancelled.code().into();
        match self {
            Self::Noise => {
                let length = draw.below(2_000);
                drop(read(send(peer, &draw.bytes(length)).await?).await);
            }
            Self::Flipped => {
                let bodies = [target.parameters(None), target.batch("0", 1, draw), target.hints()];
                for body in bodies {
                    let mut bytes = frame(body);
                    let at = draw.below(bytes.len() as u64) as usize;
                    bytes[at] ^= 1 + draw.below(255) as u8;
                    drop(read(send(peer, &bytes).await?).await);
                }
            }
            Self::Stall => {
                let whole = frame(target.batch("0", 1, draw));
                let some = draw.below(whole.len() as u64) as usize;
                let stream = open(peer, &whole[..some]).await?;
                hold(&mut held.streams, stream);
            }
            Self::Reset => {
                let whole = frame(target.batch("0", 1, draw));
                let (mut send, mut receive) = open(peer, &whole[..whole.len() / 2]).await?;
                let _ = send.reset(cancelled);
                let _ = receive.stop(cancelled);
            }
            Self::HangUp => {
                let bundle = target.bundle(draw);
                drop(
                    read(send(peer, &frame(target.parameters(Some(bundle.clone())))).await?).await,
                );
                let uid = Uid::of(&bundle).to_string();
                let mut answers = send(peer, &frame(target.batch(&uid, 64, draw))).await?;
                let _ = answers.stop(cancelled);
            }
            Self::Unread => {
                let (mut send, receive) = open(peer, &frame(target.hints())).await?;
                let _ = send.finish();
                hold(&mut held.streams, (send, receive));
            }
            Self::Bundles => {
                let length = draw.below(2 * target.shape.bundle_bytes() as u64);
                let bundle = Bytes::from(draw.bytes(length));
                drop(read(send(peer, &frame(target.parameters(Some(bundle)))).await?).await);
            }
            other => panic!("{other:?} is not done on a stream"),
        }
        Some(())
    }
}

/// Opens a stream and sends these bytes; nothing where the server has ended the connection, as it
/// does with one that has asked for nothing when others need its place.
async fn open(peer: &Peer, bytes: &[u8]) -> Option<(quinn::SendStream, quinn::RecvStream)> {
    let (mut send, receive) = peer.connection.open_bi().await.ok()?;
    let _ = tokio::time::timeout(peer::PATIENCE, send.write_all(bytes)).await.unwrap();
    Some((send, receive))
}

async fn send(peer: &Peer, bytes: &[u8]) -> Option<quinn::RecvStream> {
    let (mut send, receive) = open(peer, bytes).await?;
    // A server that has seen enough may have stopped the stream already.
    let _ = send.finish();
    Some(receive)
}

/// Whatever comes: a reply, a reset, the end of the connection.
async fn read(mut stream: quinn::RecvStream) -> Option<Vec<u8>> {
    tokio::time::timeout(peer::PATIENCE, stream.read_to_end(1 << 20)).await.unwrap().ok()
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
            let mut held = Held::default();
            while !leave.load(Ordering::SeqCst) {
                misdeed.commit(&target, &mut draw, &mut held).await;
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
