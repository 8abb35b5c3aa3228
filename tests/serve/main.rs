//! The answer server over real QUIC on loopback: every session of docs/wire.md, every refusal with
//! its typed reply and its counter. The database is noise: answers are compared with the reference.

#![allow(clippy::unwrap_used)]

mod attacks;
mod callers;
#[path = "../harness/mod.rs"]
mod harness;
mod seeing;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use harness::host::*;
use harness::program::{Program, run, sotto};
use rustix::process::Signal;
use seeing::{admin, metrics};
use sotto::schedule::ScheduleBounds;
use sotto::scheme::{KeyBundle, hint_digest, reference};
use sotto::server::ServerBounds;
use sotto::wire::message::*;
use sotto::wire::{Bytes, PublicParameters, Status, StreamCode, Uid, encode_frame, verify};

fn host() -> Serving {
    Serving::start(Reference, ServerBounds::default())
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_are_served_as_signed() {
    let host = host();
    let peer = host.connect().await;
    let request = PirParameterRequest { want_hint_digests: true, ..parameter_request() };
    let reply = peer.ask_parameters(request).await;
    assert_eq!((reply.response_status, reply.nonce.as_str()), (0, "p"));
    let key = operator().verifying_key();
    assert_eq!(reply.operator_key, key.as_bytes()[..]);
    verify(&key, &reply.parameters, &reply.signature).unwrap();
    let parameters = PublicParameters::decode(&reply.parameters).unwrap();
    assert_eq!((parameters.shape(), parameters.epoch()), (&shape(), EPOCH));
    assert!(parameters.matches_hint_digests(&reply.hint_digests));
    let limits = reply.limits.unwrap();
    assert_eq!((limits.queries_per_batch, limits.batches_in_flight), (1024, 128));
    let without = peer.ask_parameters(parameter_request()).await;
    assert_eq!((without.hint_digests.len(), without.parameters), (0, reply.parameters));
    assert_eq!(host.counters.parameters.get(Status::SchemeMatched), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_those_of_the_reference() {
    let host = host();
    let (first, second) = (bundle(1), bundle(2));
    host.connect().await.bring(first.clone()).await;
    // Bundles are known to all connections.
    let peer = host.connect().await;
    peer.bring(second.clone()).await;
    let mut batch = Vec::new();
    for (index, key) in [&first, &second, &first, &second, &first].into_iter().enumerate() {
        batch.push(query(&index.to_string(), key, index as u32 % SHARDS, index as u8));
    }
    batch[1].want_hint = true;
    let answers = peer.ask_queries(batch.clone()).await;
    assert_eq!(answers.len(), batch.len());
    let (shape, database) = (shape(), &host.database);
    for (query, answer) in batch.iter().zip(&answers) {
        let shard = database.shard(query.shard).unwrap();
        let key = if query.uid == Uid::of(&first).to_string() { &first } else { &second };
        let key = KeyBundle::decode(key, &shape).unwrap();
        let (view, vector) = (shard.view(), &query.encrypted_vector[0]);
        let expected = reference::answer(&shape, view.matrix, view.tables, vector, &key);
        assert_eq!(answer.encrypted_response, expected);
        assert_eq!((&answer.nonce, &answer.uid), (&query.nonce, &query.uid));
        assert_eq!((answer.epoch, answer.detail.as_str()), (EPOCH, ""));
        assert_eq!(answer.hint_digest, shard.hint_digest());
        let hint = if query.want_hint { shard.hints() } else { &[] };
        assert_eq!(answer.hint.concat(), hint);
    }
    assert_eq!(statuses(&answers)[0], ("0", Status::ResponseSuccess));
    assert_eq!(host.counters.queries.get(Status::ResponseSuccess), 5);
    assert_eq!((host.counters.bundles.get(), host.counters.connections.get()), (2, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn hints_are_served_by_shard() {
    let host = host();
    let peer = host.connect().await;
    let hints = peer.ask_hints(EPOCH, vec![2, 0, SHARDS]).await;
    for (hint, index) in hints.iter().zip([2, 0]) {
        let shard = host.database.shard(index).unwrap();
        assert_eq!((hint.shard, hint.response_status), (index, 3));
        assert_eq!((hint.packs.len(), hint.packs.concat()), (2, shard.hints().to_vec()));
        assert_eq!(hint.digest, hint_digest(shard.hints().chunks(shape().hint_bytes())));
    }
    assert_eq!(hints[2].response_status, Status::ShardUnknown.code());
    let gone = peer.ask_hints(EPOCH + 1, vec![0]).await;
    assert_eq!((gone[0].response_status, gone[0].epoch), (Status::EpochGone.code(), EPOCH));
    let repeated = peer.ask_hints(EPOCH, vec![1, 1]).await;
    assert_eq!((repeated.len(), repeated[0].response_status), (1, Status::Malformed.code()));
    assert!(repeated[0].detail.contains("a list with repeats"));
    let counted = [Status::ResponseSuccess, Status::ShardUnknown, Status::EpochGone];
    assert_eq!(counted.map(|status| host.counters.hints.get(status)), [2, 1, 1]);
    assert_eq!(host.counters.hints.get(Status::Malformed), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_one_query_is_said_of_it_alone() {
    let host = host();
    let peer = host.connect().await;
    let (known, unknown) = (bundle(1), bundle(9));
    peer.bring(known.clone()).await;
    let good = |nonce| query(nonce, &known, 0, 0);
    let batch = vec![
        good("a good one"),
        PirRequest { epoch: EPOCH - 1, ..good("b stale") },
        PirRequest { shard: SHARDS, ..good("c unknown shard") },
        query("d unknown key", &unknown, 0, 0),
        PirRequest { encrypted_vector: vec![Bytes::from_static(&[1])], ..good("e malformed") },
        PirRequest { protocol_version: 9, ..good("f malformed") },
        good("g good too"),
    ];
    let answers = peer.ask_queries(batch).await;
    let expected = [
        ("a good one", Status::ResponseSuccess),
        ("b stale", Status::EpochGone),
        ("c unknown shard", Status::ShardUnknown),
        ("d unknown key", Status::KeyMissing),
        ("e malformed", Status::Malformed),
        ("f malformed", Status::Malformed),
        ("g good too", Status::ResponseSuccess),
    ];
    assert_eq!(statuses(&answers), expected);
    assert_eq!(answers[4].detail, "encrypted_vector is 1 bytes, expected 576 bytes");
    assert_eq!(answers[1].epoch, EPOCH);
    let counted = |status| host.counters.queries.get(status);
    assert_eq!([Status::EpochGone, Status::ShardUnknown, Status::KeyMissing].map(counted), [1; 3]);
    assert_eq!([Status::Malformed, Status::ResponseSuccess].map(counted), [2; 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_bundles_and_other_schemes_are_answered() {
    let host = host();
    let peer = host.connect().await;
    let short = bundle(1).slice(3..);
    let other_name =
        PirParameterRequest { uid: Uid::of(&bundle(2)).to_string(), ..bundle_request(bundle(1)) };
    for request in [bundle_request(short), other_name] {
        let reply = peer.ask_parameters(request).await;
        assert_eq!((reply.response_status, reply.nonce.as_str()), (22, "p"), "{reply:?}");
        assert!(reply.detail.contains("expected"), "{}", reply.detail);
    }
    for pir_scheme in [7, 16] {
        let other = PirParameterRequest { pir_scheme, ..bundle_request(bundle(1)) };
        let reply = peer.ask_parameters(other).await;
        assert_eq!((reply.response_status, reply.pir_scheme), (1, 17));
    }
    assert_eq!(host.counters.parameters.get(Status::Malformed), 2);
    assert_eq!(host.counters.parameters.get(Status::SchemeSuggested), 2);
    assert_eq!(host.counters.bundles.get(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_batch_has_one_answer() {
    let host = host();
    let peer = host.connect().await;
    let nothing = peer.ask_queries(vec![]).await;
    assert_eq!(statuses(&nothing), [("", Status::Malformed)]);
    let noise = answers(peer.send(&[5, 0x12, 3, 0x0a, 9, 9]).await).await;
    assert_eq!(statuses(&noise), [("", Status::Malformed)]);
    assert!(noise[0].detail.contains("cut off"), "{}", noise[0].detail);
    assert_eq!(host.counters.frames_refused.get(Status::Malformed), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_stream_ends_alone() {
    let host = host();
    let peer = host.connect().await;
    let whole = encode_frame(&Request::from(RequestBody::Parameters(parameter_request())));
    let cases: [(&[u8], StreamCode); 6] = [
        (&[0xff, 0xff, 0xff, 0xff, 0x0f, 0x12], StreamCode::FrameTooLarge),
        (&[3, 0x22, 1, 0], StreamCode::Protocol),
        (&[], StreamCode::Protocol),
        (&[0x80], StreamCode::Protocol),
        (&whole[..whole.len() - 1], StreamCode::Protocol),
        (&[&whole[..], &[0]].concat(), StreamCode::Protocol),
    ];
    for (bytes, code) in cases {
        let (mut send, receive) = peer.open(bytes).await;
        let _ = send.finish();
        assert_eq!(reset_code(receive).await, code, "{bytes:?}");
    }
    assert_eq!(peer.ask_parameters(parameter_request()).await.response_status, 0);
    until("the resets are counted", || {
        let reset = &host.counters.streams_reset;
        (reset.get(StreamCode::FrameTooLarge), reset.get(StreamCode::Protocol)) == (1, 5)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_stall_or_are_not_read_are_given_up_alone() {
    let soon = Duration::from_millis(50);
    let (stream_read_timeout, stream_write_timeout) = (soon, soon);
    let bounds = ServerBounds { stream_read_timeout, stream_write_timeout, ..Default::default() };
    let host = Serving::start(Reference, bounds);
    let peer = host.try_connect(sotto::wire::ALPN, 1000).await.unwrap();
    let timed_out = || host.counters.streams_reset.get(StreamCode::Timeout);
    let (_send, receive) = peer.open(&[0x80]).await;
    assert_eq!(reset_code(receive).await, StreamCode::Timeout);
    assert_eq!(peer.ask_parameters(parameter_request()).await.response_status, 0);
    assert_eq!(timed_out(), 1);
    let hints = HintRequest { epoch: EPOCH, shards: vec![0, 1, 2], digests_only: false };
    let receive = peer.send_request(RequestBody::Hints(hints)).await;
    until("the unread stream is reset", || timed_out() == 2).await;
    assert_eq!(reset_code(receive).await, StreamCode::Timeout);
    assert_eq!(peer.ask_parameters(parameter_request()).await.response_status, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_reads_slowly_is_given_up_in_the_end() {
    let stream_send_time_max = Duration::from_millis(200);
    let host =
        Serving::start(Reference, ServerBounds { stream_send_time_max, ..Default::default() });
    let peer = host.try_connect(sotto::wire::ALPN, 1000).await.unwrap();
    let hints = HintRequest { epoch: EPOCH, shards: vec![0, 1, 2], digests_only: false };
    let mut receive = peer.send_request(RequestBody::Hints(hints)).await;
    // Fast enough for the time that one reply may take, too slow for all of them.
    let mut pace = tokio::time::interval(Duration::from_millis(20));
    let ended = loop {
        pace.tick().await;
        match receive.read_chunk(100, true).await {
            Ok(Some(_)) => {}
            ended => break ended,
        }
    };
    let timed_out = quinn::VarInt::from_u32(StreamCode::Timeout.code());
    assert!(matches!(ended, Err(quinn::ReadError::Reset(code)) if code == timed_out), "{ended:?}");
    assert_eq!(peer.ask_parameters(parameter_request()).await.response_status, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_that_never_end_leave_room_for_others() {
    let host = Serving::start(Reference, ServerBounds { handshakes_max: 4, ..Default::default() });
    // Without a token that it got where it says it is, a peer costs nothing.
    let _knocked = [host.knock().await, host.knock().await, host.knock().await];
    let mut flood = host.half_opener().await;
    (0..20).for_each(|_| flood.begin());
    // A network has half of the places, and loses its oldest.
    until("the oldest went", || host.counters.handshakes_displaced.get() == 18).await;
    let reply = host.connect().await.ask_parameters(parameter_request()).await;
    assert_eq!((reply.response_status, host.counters.connections_refused.get()), (0, 0));
    assert!(host.counters.addresses_asked.get() > 3 + 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_read_before_a_handshake_is_over() {
    let host = Serving::start(Reference, ServerBounds::default());
    assert!(!host.early_data().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_that_never_end_give_their_place_back() {
    let handshake_timeout = Duration::from_millis(50);
    let bounds = ServerBounds { handshakes_max: 1, handshake_timeout, ..Default::default() };
    let host = Serving::start(Reference, bounds);
    let (mut flood, begun) = (host.half_opener().await, Instant::now());
    flood.begin();
    until("it is given up", || host.counters.handshakes_failed.get() == 1).await;
    // Not by falling silent, which takes half a minute.
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_least_recently_used_bundle_goes_first() {
    let bundle_cache_bytes = 2 * shape().bundle_bytes();
    let host = Serving::start(Reference, ServerBounds { bundle_cache_bytes, ..Default::default() });
    let peer = host.connect().await;
    let bundles = [bundle(1), bundle(2), bundle(3)];
    peer.bring(bundles[0].clone()).await;
    peer.bring(bundles[1].clone()).await;
    peer.bring(bundles[1].clone()).await; // again: no one has to go
    peer.ask_queries(vec![query("0", &bundles[0], 0, 0)]).await;
    peer.bring(bundles[2].clone()).await;
    let ask = |index: usize| query(&index.to_string(), &bundles[index], 0, 0);
    let answers = peer.ask_queries((0..3).map(ask).collect()).await;
    let (known, missing) = (Status::ResponseSuccess, Status::KeyMissing);
    assert_eq!(statuses(&answers), [("0", known), ("1", missing), ("2", known)]);
    assert_eq!((host.counters.bundles.get(), host.counters.bundles_evicted.get()), (4, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_brings_many_bundles_pushes_out_its_own() {
    let bundle_cache_bytes = 4 * shape().bundle_bytes();
    let host = Serving::start(Reference, ServerBounds { bundle_cache_bytes, ..Default::default() });
    let (modest, greedy) = (host.connect().await, host.connect().await);
    modest.bring(bundle(1)).await;
    modest.bring(bundle(2)).await;
    for index in 10..20 {
        greedy.bring(bundle(index)).await;
    }
    let ask = |index: u8| query(&format!("{index:02}"), &bundle(index), 0, 0);
    let found = modest.ask_queries([1, 2, 17, 18, 19].map(ask).to_vec()).await;
    let (known, missing) = (Status::ResponseSuccess, Status::KeyMissing);
    let expected = [("01", known), ("02", known), ("17", missing), ("18", known), ("19", known)];
    assert_eq!(statuses(&found), expected);
    assert_eq!(host.counters.bundles_evicted.get(), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_the_queue_is_overloaded() {
    // Four queries, each with the bundle it keeps in memory at four bytes a residue.
    let queued_bytes_max = 4 * (shape().query_bytes() + shape().bundle_bytes() / 3 * 4);
    let schedule = ScheduleBounds { queued_bytes_max, ..Default::default() };
    let (host, mut gate, first, key) =
        gated_host(ServerBounds { schedule, ..Default::default() }).await;
    let others = [host.connect().await, host.connect().await, host.connect().await];
    let computed = first.send_queries(vec![query("x", &key, 0, 0)]).await;
    assert_eq!(gate.began().await, 1);
    // Each takes as much as is left for others: two of four, one of two, and the last.
    let waiting = |count| (0..count).map(|i| query(&i.to_string(), &key, 1, i)).collect();
    let mut found = vec![first.send_queries(waiting(3)).await];
    let counters = &host.counters;
    until("its half is full", || counters.refused_front_end_full.get() == 1).await;
    found.push(others[0].send_queries(waiting(2)).await);
    until("its part is full", || counters.refused_front_end_full.get() == 2).await;
    found.push(others[1].send_queries(waiting(1)).await);
    until("the queue is full", || counters.queries_admitted.get() == 5).await;
    found.push(others[2].send_queries(waiting(1)).await);
    until("the queue is full for all", || counters.refused_queue_full.get() == 1).await;
    gate.go_on();
    assert_eq!(gate.began().await, 4);
    gate.go_on();
    let (fine, refused) = (Status::ResponseSuccess, Status::Overloaded);
    assert_eq!(statuses(&answers(computed).await), [("x", fine)]);
    let expected: [&[_]; 4] = [
        &[("0", fine), ("1", fine), ("2", refused)],
        &[("0", fine), ("1", refused)],
        &[("0", fine)],
        &[("0", refused)],
    ];
    for (found, expected) in found.into_iter().zip(expected) {
        let found = answers(found).await;
        assert_eq!(statuses(&found), expected);
        for answer in found.iter().filter(|answer| answer.response_status == refused.code()) {
            assert!((50..=5000).contains(&answer.retry_after_ms), "{}", answer.retry_after_ms);
        }
    }
    assert_eq!(counters.queries.get(refused), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_not_sent_leave_no_room_for_more() {
    let answer_bytes_max = room_for_one_answer();
    let bounds = ServerBounds { answer_bytes_max, ..Default::default() };
    let (host, gate, peer, key) = gated_host(bounds).await;
    for _ in 0..3 {
        let batch = (0..2).map(|i| query(&i.to_string(), &key, 0, i)).collect();
        let receive = peer.send_queries(batch).await;
        gate.go_on();
        let found = answers(receive).await;
        let expected = [("0", Status::ResponseSuccess), ("1", Status::Overloaded)];
        assert_eq!(statuses(&found), expected, "the first gives its place back");
        assert_eq!(found[1].retry_after_ms, 5000);
    }
    let now = metrics(admin(&host.admin_state).await).await;
    assert_eq!(now["sotto_refusals_total{reason=\"no_answer_room\"}"], 3.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_cannot_fill_the_queue_for_others() {
    let (engine, gate) = gated();
    let schedule = ScheduleBounds { queries_per_connection_max: 1, ..Default::default() };
    let host = Serving::start(engine, ServerBounds { schedule, ..Default::default() });
    let (greedy, other, key) = (host.connect().await, host.connect().await, bundle(1));
    other.bring(key.clone()).await;
    let batch = vec![query("0", &key, 0, 0), query("1", &key, 0, 1)];
    let greedy_answers = greedy.send_queries(batch).await;
    until("one is refused", || host.counters.refused_connection_full.get() == 1).await;
    let other_answers = other.send_queries(vec![query("0", &key, 0, 0)]).await;
    until("another's is admitted", || host.counters.queries_admitted.get() == 2).await;
    gate.go_on();
    gate.go_on();
    let expected = [("0", Status::ResponseSuccess), ("1", Status::Overloaded)];
    assert_eq!(statuses(&answers(greedy_answers).await), expected);
    assert_eq!(statuses(&answers(other_answers).await), expected[..1]);
    // What was answered is not in the way any more.
    gate.go_on();
    let again = greedy.ask_queries(vec![query("0", &key, 0, 0)]).await;
    assert_eq!(statuses(&again), expected[..1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_while_it_arrives_is_overloaded() {
    // One caller has half of it.
    let host = Serving::start(Reference, ServerBounds { read_bytes_max: 40, ..Default::default() });
    let (peer, key) = (host.connect().await, bundle(1));
    let refused = peer.ask_queries(vec![query("0", &key, 0, 0)]).await;
    assert_eq!(statuses(&refused), [("", Status::Overloaded)]);
    assert!(refused[0].retry_after_ms > 0);
    let refused = peer.ask_parameters(bundle_request(key)).await;
    assert_eq!(refused.response_status, Status::Overloaded.code());
    assert!(refused.retry_after_ms > 0);
    let refused = peer.ask_hints(EPOCH, (0..100).collect()).await;
    assert_eq!(refused[0].response_status, Status::Overloaded.code());
    assert_eq!(host.counters.frames_refused.get(Status::Overloaded), 1);
    assert_eq!(host.counters.parameters.get(Status::Overloaded), 1);
    assert_eq!(host.counters.hints.get(Status::Overloaded), 1);
    // What was refused gives its room back.
    assert_eq!(peer.ask_parameters(parameter_request()).await.response_status, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn late_queries_are_answered_and_not_computed() {
    let (host, mut gate, peer, key) = gated_host(ServerBounds::default()).await;
    let computed = peer.send_queries(vec![query("x", &key, 0, 0)]).await;
    assert_eq!(gate.began().await, 1);
    let late = PirRequest { deadline_ms: 1, ..query("late", &key, 0, 1) };
    let batch = peer.send_queries(vec![late, query("not late", &key, 0, 2)]).await;
    until("both wait", || host.counters.queries_admitted.get() == 3).await;
    let admitted = Instant::now();
    until("one is late", || admitted.elapsed() > Duration::from_millis(1)).await;
    gate.go_on();
    assert_eq!(gate.began().await, 1);
    gate.go_on();
    assert_eq!(statuses(&answers(computed).await), [("x", Status::ResponseSuccess)]);
    let expected = [("late", Status::Deadline), ("not late", Status::ResponseSuccess)];
    assert_eq!(statuses(&answers(batch).await), expected);
    assert_eq!(host.counters.queries.get(Status::Deadline), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_nobody_waits_for_are_not_computed() {
    let (host, mut gate, peer, key) = gated_host(ServerBounds::default()).await;
    let leaving = host.connect().await;
    let computed = peer.send_queries(vec![query("x", &key, 0, 0)]).await;
    assert_eq!(gate.began().await, 1);
    let pair = || vec![query("0", &key, 1, 0), query("1", &key, 2, 1)];
    let mut stopped = peer.send_queries(pair()).await;
    let _lost = leaving.send_queries(pair()).await;
    let kept = peer.send_queries(vec![query("kept", &key, 1, 7)]).await;
    until("all wait", || host.counters.queries_admitted.get() == 6).await;
    stopped.stop(StreamCode::Cancelled.code().into()).unwrap();
    until("a stopped stream's are gone", || host.counters.queries_cancelled.get() == 2).await;
    leaving.connection.close(0u32.into(), b"");
    until("a lost connection's are gone", || host.counters.queries_cancelled.get() == 4).await;
    gate.go_on();
    assert_eq!(gate.began().await, 1);
    gate.go_on();
    assert_eq!(statuses(&answers(computed).await), [("x", Status::ResponseSuccess)]);
    assert_eq!(statuses(&answers(kept).await), [("kept", Status::ResponseSuccess)]);
    // A request that is reset before it is whole is nobody's either.
    let (mut send, _receive) = peer.open(&[0x80]).await;
    send.reset(StreamCode::Cancelled.code().into()).unwrap();
    until("all three are counted", || host.counters.streams_abandoned.get() == 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_engine_is_answered_as_a_device() {
    let (host, gate, peer, key) = gated_host(ServerBounds::default()).await;
    drop(gate);
    for _ in 0..2 {
        let answers = peer.ask_queries(vec![query("0", &key, 0, 0)]).await;
        assert_eq!(statuses(&answers), [("0", Status::Device)]);
    }
    assert_eq!(host.counters.queries.get(Status::Device), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn leaving_finishes_what_is_in_flight() {
    let (mut host, mut gate, peer, key) = gated_host(ServerBounds::default()).await;
    let computed = peer.send_queries(vec![query("x", &key, 0, 0)]).await;
    assert_eq!(gate.began().await, 1);
    host.leave();
    let mut status = 0;
    while status == 0 {
        status = peer.ask_parameters(parameter_request()).await.response_status;
    }
    assert_eq!(status, Status::Draining.code());
    let refused = peer.ask_queries(vec![query("0", &key, 0, 0), query("1", &key, 9, 0)]).await;
    assert_eq!(statuses(&refused), [("0", Status::Draining), ("1", Status::Draining)]);
    let refused = peer.ask_hints(EPOCH, vec![1, 0]).await;
    assert_eq!(refused[1].response_status, Status::Draining.code());
    host.try_connect(sotto::wire::ALPN, 1000).await.err().unwrap();
    assert_eq!(host.counters.connections_refused.get(), 1);
    gate.go_on();
    assert_eq!(statuses(&answers(computed).await), [("x", Status::ResponseSuccess)]);
    let counters = host.counters.clone();
    host.left().await;
    let closed = peer.connection.closed().await;
    let quinn::ConnectionError::ApplicationClosed(close) = closed else { panic!("{closed}") };
    assert_eq!(close.error_code, StreamCode::None.code().into());
    assert_eq!(counters.queries.get(Status::Draining), 2);
    assert_eq!(counters.hints.get(Status::Draining), 2);
    assert!(counters.parameters.get(Status::Draining) >= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn leaving_does_not_wait_for_ever() {
    let drain_timeout = Duration::from_millis(50);
    let (mut host, mut gate, peer, key) =
        gated_host(ServerBounds { drain_timeout, ..Default::default() }).await;
    let _computed = peer.send_queries(vec![query("x", &key, 0, 0)]).await;
    assert_eq!(gate.began().await, 1);
    host.leave();
    peer.connection.closed().await;
    drop(gate); // the engine's thread is waited for, and its call ends only now
    host.left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_bounded_and_speak_our_protocol() {
    let host = Serving::start(Reference, ServerBounds { connections_max: 1, ..Default::default() });
    host.try_connect(b"h3", 1000).await.err().unwrap();
    until("it is counted", || host.counters.handshakes_failed.get() == 1).await;
    let peer = host.connect_in_turn().await;
    assert_eq!(peer.ask_parameters(parameter_request()).await.response_status, 0);
    let before = host.counters.connections_refused.get();
    host.try_connect(sotto::wire::ALPN, 1000).await.err().unwrap();
    assert_eq!(host.counters.connections_refused.get(), before + 1);
    peer.connection.close(0u32.into(), b"");
    let again = host.connect_in_turn().await;
    assert_eq!(again.ask_parameters(parameter_request()).await.response_status, 0);
}

/// A folder in which the program can serve a database of noise.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    write_database(&folder.path().join("db"));
    make_certificates(folder.path());
    folder
}

fn make_certificates(folder: &Path) {
    let (code, _, err) = run(sotto(&["cert", "--out", "."]).current_dir(folder));
    assert_eq!(code, 0, "{err}");
}

/// `sotto serve` in this folder.
fn serve(folder: &Path, more: &[&str]) -> Command {
    let mut command = sotto(&["serve", "--db=db", "--cert=server.pem", "--key=server.key"]);
    command.args(["--listen=127.0.0.1:0", "--threads=1", "--isa=portable", "--target-ms=250"]);
    if !more.iter().any(|option| option.starts_with("--admin")) {
        command.arg("--admin=127.0.0.1:0");
    }
    command.args(more).current_dir(folder);
    command
}

/// It ends before it serves, with an error.
fn refuses(folder: &Path, more: &[&str], expected: &str) {
    let (code, out, err) = run(&mut serve(folder, more));
    assert_eq!((code, &*out), (2, ""), "{err}");
    let line = err.lines().last().unwrap();
    assert!(line.starts_with("error: ") && line.contains(expected), "{err}");
}

#[tokio::test]
async fn the_program_says_where_it_listens_and_leaves_when_told() {
    let folder = folder();
    for signal in [Signal::TERM, Signal::INT] {
        let server = Program::start(serve(folder.path(), &[]), None);
        assert!(server.address.ip().is_loopback() && server.address.port() != 0);
        server.signal(signal);
        let log = server.left().await;
        assert_eq!(log.matches("answers with").count(), 1, "{log}");
        assert_eq!(log.matches("memory is at most").count(), 1, "{log}");
    }
}

#[test]
fn the_program_says_why_it_does_not_serve() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    refuses(folder, &[], "cannot read the certificate file server.pem");
    make_certificates(folder);
    refuses(folder, &[], "db is not a finished database");
    write_database(&folder.join("db"));
    refuses(folder, &["--memory", "1"], "do not hold one full frame");
    refuses(folder, &["--memory", "4294967295"], "this machine or its control group has");
    std::fs::write(folder.join("server.key"), "no key").unwrap();
    refuses(folder, &[], "no private key in server.key");
    let (code, _, err) = run(sotto(&["cert", "--out", "."]).current_dir(folder));
    assert!(code == 2 && err.contains("ca.pem exists"), "{err}");
}
