//! What an attacker may take: nothing that others need. Each attack alone and small here; all of
//! them at once, for as long as one likes, in `tests/hostile`.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use quinn::{ConnectionError, VarInt};
use rustls::client::{ClientSessionMemoryCache, ClientSessionStore as _};
use sotto::limits;
use sotto::server::ServerBounds;
use sotto::server::certificates::{self, LocalCertificates};
use sotto::wire::message::*;
use sotto::wire::{ALPN, Status, StreamCode};
use tokio::time::timeout;

use crate::harness::host::*;
use crate::harness::peer;

/// The code a server closes a connection with.
async fn closed(peer: &Peer) -> VarInt {
    match timeout(PATIENCE, peer.connection.closed()).await.unwrap() {
        ConnectionError::ApplicationClosed(close) => close.error_code,
        other => panic!("{other}"),
    }
}

fn code(code: StreamCode) -> VarInt {
    VarInt::from_u32(code.code())
}

/// RFC 9000, section 8.1: three times as much as it sent. Anybody can write any address as sender.
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_first_packet_draws_less_than_it_has() {
    let host = Serving::start(Reference, ServerBounds::default());
    let socket = host.knock().await;
    let (mut packet, mut drawn) = ([0; 2048], 0);
    // Several times as long as a handshake's first packets wait to be sent again.
    let until = tokio::time::Instant::now() + Duration::from_secs(4);
    while let Ok(read) = tokio::time::timeout_at(until, socket.recv(&mut packet)).await {
        drawn += read.unwrap();
    }
    println!("1200 bytes drew {drawn}");
    assert!((1..1200).contains(&drawn), "{drawn}");
    assert_eq!(host.counters.addresses_asked.get(), 1);
    assert_eq!(host.counters.handshakes_failed.get(), 0, "nothing was begun");
}

/// Who resumes a session shows no certificate: one that has expired would be good for ever.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_given_a_ticket_to_resume_a_session_with() {
    let ours = certificates::localhost().unwrap();
    let callers = known(&ours.ca_pem, Some("client.localhost 1"));
    let host = Serving::start_for(callers, ours, Reference, ServerBounds::default());
    let tickets = Arc::new(ClientSessionMemoryCache::new(8));
    let store = tickets.clone();
    let ours = &host.certificates;
    let config = peer::client_config_with(&ours.ca_pem, ALPN, 1 << 20, Some(ours), |tls| {
        tls.resumption = rustls::client::Resumption::store(store);
    });
    let peer = connect(host.address, config).await.unwrap();
    // Tickets would come before the reply.
    assert_eq!(peer.ask_parameters(parameter_request()).await.response_status, 0);
    assert!(tickets.take_tls13_ticket(&"localhost".try_into().unwrap()).is_none());
}

fn localhost() -> LocalCertificates {
    certificates::localhost().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_expires_ends_its_connection() {
    let now = SystemTime::now();
    let short = certificates::localhost_between(now, now + Duration::from_secs(3)).unwrap();
    let callers = known(&short.ca_pem, Some("client.localhost 1"));
    let certificate_check_time = Duration::from_millis(20);
    let bounds = ServerBounds { certificate_check_time, ..Default::default() };
    let host = Serving::start_for(callers, localhost(), Reference, bounds);
    let peer = host.connect_as(&short).await.unwrap();
    assert_eq!(peer.ask_parameters(parameter_request()).await.response_status, 0);
    assert_eq!(closed(&peer).await, code(StreamCode::NotAllowed));
    assert_eq!(host.counters.certificates_expired.get(), 1);
    assert!(host.connect_as(&short).await.is_err() || host.counters.connections.get() == 1);
}

/// A connection that is kept alive and a stream are no question: it has to bring a request. Who
/// waits for an answer asks something.
#[tokio::test(flavor = "multi_thread")]
async fn who_opens_streams_and_asks_nothing_is_ended() {
    let idle_timeout = Duration::from_millis(500);
    let bounds = ServerBounds { idle_timeout, ..Default::default() };
    let (host, gate, busy, key) = gated_host(bounds).await;
    let waiting = busy.send_queries(vec![query("0", &key, 0, 0)]).await;
    let (asks, silent) = (host.connect().await, host.connect().await);
    let (opens, begins) = (host.connect().await, host.connect().await);
    let idle = [&silent, &opens, &begins];
    let mut held = Vec::new();
    let mut pace = tokio::time::interval(Duration::from_millis(20));
    while idle.iter().any(|peer| peer.connection.close_reason().is_none()) {
        pace.tick().await;
        // One never brings anything, one a frame that is none.
        if let Ok(stream) = opens.connection.open_bi().await {
            held.push(stream);
        }
        if let Ok((mut send, _)) = begins.connection.open_bi().await {
            let _ = send.write_all(&[3, 0x22, 1, 0]).await;
        }
        held.drain(..held.len().saturating_sub(8));
        assert_eq!(asks.ask_parameters(parameter_request()).await.response_status, 0);
    }
    for peer in idle {
        assert_eq!(closed(peer).await, code(StreamCode::None));
    }
    assert!(host.counters.connections_idle.get() >= 3);
    gate.go_on();
    assert_eq!(statuses(&answers(waiting).await), [("0", Status::ResponseSuccess)]);
}

/// When all places are taken, those go that ask nothing.
#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_make_room_for_others() {
    let host = Serving::start(Reference, ServerBounds { connections_max: 4, ..Default::default() });
    let (engaged, mut idle) = (host.connect().await, Vec::new());
    for _ in 0..3 {
        idle.push(host.connect().await);
    }
    let begun = Instant::now();
    let late = loop {
        assert_eq!(engaged.ask_parameters(parameter_request()).await.response_status, 0);
        match host.try_connect(ALPN, 1 << 20).await {
            Ok(peer) => break peer,
            Err(error) => assert!(begun.elapsed() < 10 * limits::QUIET_TIME, "{error}"),
        }
    };
    assert_eq!(late.ask_parameters(parameter_request()).await.response_status, 0);
    assert_eq!(engaged.ask_parameters(parameter_request()).await.response_status, 0);
    assert_eq!(host.counters.connections_displaced.get(), 1);
    until("one of the idle is gone", || {
        idle.iter().filter(|peer| peer.connection.close_reason().is_some()).count() == 1
    })
    .await;
}

/// Replies that nobody reads take room, whatever they are, and never all of it.
#[tokio::test(flavor = "multi_thread")]
async fn unread_hints_leave_room_for_others() {
    let hint_bytes = shape().packs() * shape().hint_bytes();
    // Each of four connections has a place of its own that nobody else can take.
    let (answer_bytes_max, connections_max) = (8 * hint_bytes, 4);
    let bounds = ServerBounds { answer_bytes_max, connections_max, ..Default::default() };
    let host = Serving::start(Reference, bounds);
    let greedy = host.try_connect(ALPN, 16).await.unwrap();
    let mut unread = Vec::new();
    for _ in 0..100 {
        let hints = HintRequest { epoch: EPOCH, shards: vec![0, 1, 2], digests_only: false };
        unread.push(greedy.send_request(RequestBody::Hints(hints)).await);
    }
    until("all are asked for", || host.counters.streams.get() == 100).await;
    let honest = host.connect().await;
    for _ in 0..20 {
        let hints = honest.ask_hints(EPOCH, vec![0, 1, 2]).await;
        assert!(hints.iter().all(|hint| hint.response_status == 3), "{hints:?}");
    }
    // Of 8 places the greedy one has half.
    assert!(host.counters.hints.get(Status::ResponseSuccess) <= 4 + 60);
}

/// What a front-end is sent or brings counts, not its queries alone.
#[tokio::test(flavor = "multi_thread")]
async fn hints_digests_and_bundles_come_out_of_the_quota() {
    let ours = localhost();
    // More than a pass over a shard, which a front-end may always have at once.
    let callers = known(&ours.ca_pem, Some("client.localhost 1 4"));
    let host = Serving::start_for(callers, ours, Reference, ServerBounds::default());
    let quota = 4 << 20;
    let peer = Arc::new(host.connect_as(&host.certificates).await.unwrap());
    let begun = Instant::now();
    let mut drawn = 0;
    let mut index = 0;
    while drawn < 3 * quota {
        let request = PirParameterRequest { want_hint_digests: true, ..parameter_request() };
        let (hints, parameters, brought) = tokio::join!(
            peer.ask_hints(EPOCH, vec![0, 1, 2]),
            peer.ask_parameters(request),
            peer.ask_parameters(bundle_request(bundle(index))),
        );
        let hints = hints.iter().map(|hint| hint.packs.concat().len()).sum::<usize>();
        drawn += hints + parameters.parameters.len() + parameters.hint_digests.len();
        drawn += if brought.response_status == 0 { shape().bundle_bytes() } else { 0 };
        index = index.wrapping_add(1);
    }
    // A second's may be had at once.
    let allowed = quota as f64 * (1.0 + begun.elapsed().as_secs_f64());
    println!("{drawn} bytes in {:.2} s", begun.elapsed().as_secs_f64());
    assert!(drawn as f64 <= allowed, "{drawn} bytes, {allowed} allowed");
}
