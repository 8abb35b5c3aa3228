//! Who may call: certificates, the list of names, and changing both while serving.

use quinn::{ConnectionError, VarInt};
use rustix::process::Signal;
use sotto::server::certificates::{self, LocalCertificates};
use sotto::server::{Callers, Identity, Server, ServerBounds, ServerError};
use sotto::shard::Database;
use sotto::wire::{Status, StreamCode};

use crate::harness::host::*;
use crate::harness::program::Program;
use crate::{folder, refuses, serve};

/// The code a server closes this connection with; TLS alerts are no code of ours.
async fn closed(peer: Result<Peer, ConnectionError>) -> Option<VarInt> {
    let reason = match peer {
        Ok(peer) => peer.connection.closed().await,
        Err(reason) => reason,
    };
    match reason {
        ConnectionError::ApplicationClosed(close) => Some(close.error_code),
        // The alert of TLS travels as a connection's error.
        ConnectionError::ConnectionClosed(_) => None,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn only_those_who_are_listed_may_call() {
    let (ours, others) = (certificates::localhost().unwrap(), certificates::localhost().unwrap());
    let callers = known(&ours.ca_pem, Some("client.localhost 3"));
    let bounds = ServerBounds { connections_per_front_end_max: 2, ..Default::default() };
    let host = Serving::start_for(callers, ours, Reference, bounds);
    let counters = &host.counters;
    let first = host.connect_as(&host.certificates).await.unwrap();
    assert_eq!(first.ask_parameters(parameter_request()).await.response_status, 0);
    // Nobody, and somebody of another authority.
    assert_eq!(closed(host.try_connect(sotto::wire::ALPN, 1000).await).await, None);
    assert_eq!(closed(host.connect_as(&others).await).await, None);
    until("both are counted", || counters.handshakes_failed.get() == 2).await;
    // One more than a front-end may have.
    let second = host.connect_as(&host.certificates).await.unwrap();
    assert_eq!(second.ask_parameters(parameter_request()).await.response_status, 0);
    let load = VarInt::from_u32(StreamCode::ExcessiveLoad.code());
    assert_eq!(closed(host.connect_as(&host.certificates).await).await, Some(load));
    assert_eq!(counters.front_end_connections_refused.get(), 1);
    // Its place is free again once it has left.
    second.connection.close(0u32.into(), b"");
    let mut third = host.connect_as(&host.certificates).await.unwrap();
    while third.connection.open_bi().await.is_err() {
        third = host.connect_as(&host.certificates).await.unwrap();
    }
    assert_eq!(third.ask_parameters(parameter_request()).await.response_status, 0);
    assert_eq!(counters.callers_refused.get(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_front_end_that_asks_beyond_its_quota_is_told_to_wait() {
    let ours = certificates::localhost().unwrap();
    let callers = known(&ours.ca_pem, Some("client.localhost 1 1"));
    let host = Serving::start_for(callers, ours, Reference, ServerBounds::default());
    let peers = [&host.certificates; 2].map(|certificates| host.connect_as(certificates));
    let [first, second] = peers;
    let (first, second, key) = (first.await.unwrap(), second.await.unwrap(), bundle(1));
    first.bring(key.clone()).await;
    let mut asked = 0;
    for peer in [&first, &second] {
        // More than a MiB of scans by far, on whichever of its connections.
        let batch = (0..100).map(|i| query(&format!("{i:02}"), &key, 0, i)).collect();
        let found = peer.ask_queries(batch).await;
        let refused: Vec<_> =
            found.iter().filter(|a| a.response_status == Status::Quota.code()).collect();
        assert!(!refused.is_empty(), "all were answered");
        assert!(refused.iter().all(|answer| (50..=5000).contains(&answer.retry_after_ms)));
        asked += refused.len() as u64;
    }
    assert_eq!(host.counters.queries.get(Status::Quota), asked);
    assert_eq!(host.counters.queries_admitted.get(), 200 - asked, "refused before any work");
    // In the end there is enough again.
    let answered = async {
        let ask = || first.ask_queries(vec![query("0", &key, 0, 0)]);
        while ask().await[0].response_status != Status::ResponseSuccess.code() {}
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), answered).await.unwrap();
}

#[tokio::test]
async fn the_list_changes_without_dropping_a_connection() {
    let ours = certificates::localhost().unwrap();
    let new = certificates::localhost().unwrap();
    let host =
        Serving::start_for(known(&ours.ca_pem, None), ours, Reference, ServerBounds::default());
    let before = host.connect_as(&host.certificates).await.unwrap();
    let LocalCertificates { server_pem, server_key, client_key, .. } = &host.certificates;
    let identity = || Identity::from_pem(server_pem, server_key).unwrap();

    // Certificate and key of different pairs: everything stays.
    let wrong = Identity::from_pem(server_pem, client_key).unwrap();
    let nobody = known(&host.certificates.ca_pem, Some("somebody.else 1"));
    let error = host.identity_reloader.change(wrong, nobody.clone()).unwrap_err();
    assert!(matches!(error, ServerError::Identity(_)), "{error}");
    let peer = host.connect_as(&host.certificates).await.unwrap();
    assert_eq!(peer.ask_parameters(parameter_request()).await.response_status, 0);

    host.identity_reloader.change(identity(), nobody).unwrap();
    let code = VarInt::from_u32(StreamCode::NotAllowed.code());
    assert_eq!(closed(host.connect_as(&host.certificates).await).await, Some(code));
    assert_eq!(host.counters.callers_refused.get(), 1);

    // Another authority, and another certificate of the server's.
    host.identity_reloader.change(identity(), known(&new.ca_pem, None)).unwrap();
    assert_eq!(closed(host.connect_as(&host.certificates).await).await, None);
    let peer = host.connect_as(&new).await.unwrap();
    assert_eq!(peer.ask_parameters(parameter_request()).await.response_status, 0);
    let renamed = Identity::from_pem(&new.server_pem, &new.server_key).unwrap();
    host.identity_reloader.change(renamed, Callers::Loopback).unwrap();
    let error = host.try_connect(sotto::wire::ALPN, 1000).await.err().unwrap();
    assert!(error.to_string().contains("certificate"), "{error}");
    let failed = &host.counters.handshakes_failed;
    until("both failures of trust are counted", || failed.get() >= 2).await;

    assert_eq!(before.ask_parameters(parameter_request()).await.response_status, 0);
    assert_eq!(peer.ask_parameters(parameter_request()).await.response_status, 0);
}

#[tokio::test]
async fn others_are_served_only_when_it_is_said_who_may_call() {
    let directory = tempfile::tempdir().unwrap();
    write_database(directory.path());
    let made = certificates::localhost().unwrap();
    let bind = |listen: &str, callers: Callers| {
        let (mut options, _) = Setting { callers, ..Setting::default() }.options();
        options.listen = listen.parse().unwrap();
        Server::bind(options, Database::open(directory.path()).unwrap().into())
    };
    for listen in ["0.0.0.0:0", "[::]:0"] {
        let error = bind(listen, Callers::Loopback).err().unwrap();
        assert!(matches!(error, ServerError::NotLoopback { .. }), "{error}");
        assert!(error.to_string().contains("--client-ca"), "{error}");
    }
    bind("127.0.0.1:0", Callers::Loopback).unwrap();
    bind("0.0.0.0:0", Callers::Anyone).unwrap();
    bind("0.0.0.0:0", known(&made.ca_pem, None)).unwrap();
}

/// The program reads its files again when told, and keeps what it has when they are bad.
#[tokio::test]
async fn the_program_reads_certificates_and_list_again() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    std::fs::copy(path("ca.pem"), path("ca.pem.good")).unwrap();
    std::fs::write(path("allow"), "client.localhost 1\n").unwrap();
    let callers = ["--client-ca", "ca.pem", "--allow", "allow"];
    let server = Program::start(serve(folder.path(), &callers), None);
    let told = async |expected: &[&str]| {
        let line = server.told(Signal::HUP, "certificates and callers").await;
        assert!(expected.iter().all(|part| line.contains(part)), "{line}");
    };
    told(&["were read again"]).await;
    std::fs::write(path("allow"), "client.localhost\n").unwrap();
    told(&["stay as they were", "allow", "line 1"]).await;
    std::fs::remove_file(path("allow")).unwrap();
    told(&["stay as they were", "cannot read the list of front-ends"]).await;
    std::fs::write(path("allow"), "client.localhost 2\n").unwrap();
    std::fs::copy(path("server.key"), path("ca.pem")).unwrap();
    told(&["stay as they were", "ca.pem", "it has PRIVATE KEY"]).await;
    std::fs::copy(path("ca.pem.good"), path("ca.pem")).unwrap();
    std::fs::write(path("allow"), "\u{feff}client.localhost 2\r\n").unwrap();
    told(&["were read again"]).await;
    // None of them is waited for; QUIC, signals and the next reload go on.
    for file in ["allow", "ca.pem", "server.key", "server.pem"] {
        std::fs::rename(path(file), path("aside")).unwrap();
        pipe_at(&path(file));
        told(&["stay as they were", file, "it is a pipe (FIFO)"]).await;
        std::fs::rename(path("aside"), path(file)).unwrap();
        told(&["were read again"]).await;
    }
    server.leave().await;
    refuses(folder.path(), &["--allow", "allow"], "allow needs client-ca");
    let both = ["--client-ca", "ca.pem", "--anyone-may-ask"];
    refuses(folder.path(), &both, "contradict each other");
}
