//! What an operator sees: every admin endpoint over real HTTP, the metrics that dashboards and
//! alerts rely on, the page for people.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sotto::arith::IsaName;
use sotto::engine::{EngineChoice, IsaChoice, select};
use sotto::limits;
use sotto::server::certificates::{self, LocalCertificates};
use sotto::server::{
    Admin, AdminCallers, AdminState, Callers, Identity, Reloaded, ServerBounds, Stage,
};
use sotto::shard::manifest::MANIFEST_NAME;
use sotto::wire::{Status, StreamCode};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::harness::host::*;
use crate::harness::http::{self, Seen};
use crate::harness::program::{Program, run};
use crate::{folder, refuses, serve};

/// Every metric: its name, type, and the labels its values differ in.
const GOLDEN: &str = include_str!("../metrics.txt");

/// The values each label may have, for the label `reason` in each family. A closed set each:
/// nothing of a query, no shard's number, no address.
fn label_values() -> BTreeMap<String, BTreeSet<String>> {
    let outcomes = Status::ALL.map(|status| status.name().to_ascii_lowercase()).join(" ");
    let codes = StreamCode::ALL.map(|code| code.name()).join(" ");
    let reasons = "queue_full front_end_full connection_full too_late no_answer_room quarantined";
    let table = [
        ("by", "processor processor_after_failure device device_after_upload"),
        ("code", &codes),
        ("commit", "unknown"),
        ("outcome", &outcomes),
        ("part", "connections requests bundles queries answers"),
        ("result", "changed unchanged refused"),
        ("state", "up down"),
        ("version", env!("CARGO_PKG_VERSION")),
        ("sotto_refusals_total reason", reasons),
        ("sotto_connections_refused_total reason", "full front_end_full not_allowed"),
        ("sotto_connections_ended_total reason", "displaced idle certificate_expired"),
    ];
    let set = |values: &str| values.split(' ').map(str::to_owned).collect();
    table.into_iter().map(|(label, values)| (label.to_owned(), set(values))).collect()
}

async fn ask(address: SocketAddr, line: &str, headers: &str) -> Seen {
    ask_host(address, line, "localhost", headers).await
}

async fn ask_host(address: SocketAddr, line: &str, host: &str, headers: &str) -> Seen {
    let asked = http::request(address, line, host, headers);
    tokio::time::timeout(PATIENCE, asked).await.unwrap().unwrap()
}

async fn get(address: SocketAddr, path: &str) -> Seen {
    ask(address, &format!("GET {path}"), "").await
}

async fn post(address: SocketAddr, path: &str) -> Seen {
    ask(address, &format!("POST {path}"), "Content-Length: 0\r\n").await
}

/// Endpoints with this state, on a port of their own.
pub(crate) async fn admin(admin_state: &Arc<AdminState>) -> SocketAddr {
    let listen = "127.0.0.1:0".parse().unwrap();
    let admin = Admin::bind(listen, AdminCallers::Loopback, admin_state.clone()).await.unwrap();
    let address = admin.local_addr();
    tokio::spawn(admin.run());
    address
}

/// Until this endpoint answers with this status.
async fn until_status(address: SocketAddr, path: &str, status: u16) -> Seen {
    let waiting = async {
        loop {
            let seen = get(address, path).await;
            if seen.status == status {
                return seen;
            }
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap()
}

/// Every sample of /metrics, by name and labels.
pub(crate) async fn metrics(address: SocketAddr) -> BTreeMap<String, f64> {
    let text = get(address, "/metrics").await.body;
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ').unwrap();
        (name.to_owned(), value.parse().unwrap())
    };
    samples.map(sample).collect()
}

fn proving() -> ServerBounds {
    ServerBounds { prove_every: Some(limits::PROVE_EVERY), ..Default::default() }
}

/// A server with the processor's engine, whose stages take time.
fn processor() -> Serving {
    let (portable, one) = (IsaChoice::Only(IsaName::Portable), NonZeroUsize::new(1));
    let engine = select(EngineChoice::Cpu, portable, one).unwrap();
    Serving::of(Setting { engines: vec![engine], bounds: proving(), ..Setting::default() })
}

/// Name, type and labels of each metric, and the values of each label.
type Families = (Vec<(String, String, String)>, BTreeMap<String, BTreeSet<String>>);

fn families(text: &str) -> Families {
    let (mut families, mut values) = (Vec::new(), BTreeMap::<String, BTreeSet<String>>::new());
    for line in text.lines().filter(|line| !line.starts_with("# HELP")) {
        if let Some(family) = line.strip_prefix("# TYPE ") {
            let (name, kind) = family.split_once(' ').unwrap();
            families.push((name.to_owned(), kind.to_owned(), String::new()));
            continue;
        }
        let (name, labels) =
            line.rsplit_once(' ').unwrap().0.split_once('{').unwrap_or((line, "}"));
        let (family, _, names) = families.last_mut().unwrap();
        assert!(name.starts_with(&**family), "{line}");
        let labels = labels.strip_suffix('}').unwrap().split(',').filter(|l| !l.is_empty());
        let labels = labels.map(|label| label.split_once('=').unwrap());
        let labels: Vec<_> = labels.filter(|(label, _)| *label != "le").collect();
        *names = labels.iter().map(|(label, _)| *label).collect::<Vec<_>>().join(",");
        for (label, value) in labels {
            let key = if label == "reason" { format!("{family} {label}") } else { label.into() };
            values.entry(key).or_default().insert(value.trim_matches('"').to_owned());
        }
    }
    (families, values)
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_have_the_names_and_labels_that_others_rely_on() {
    let host = processor();
    let (admin, peer, key) = (admin(&host.admin_state).await, host.connect().await, bundle(1));
    peer.bring(key.clone()).await;
    peer.ask_queries((0..3).map(|i| query(&i.to_string(), &key, i, 0)).collect()).await;
    let seen = get(admin, "/metrics").await;
    assert!(seen.head.contains("content-type: text/plain; version=0.0.4"), "{}", seen.head);
    let (found, values) = families(&seen.body);
    let line = |(name, kind, labels): &(String, String, String)| {
        let labels = if labels.is_empty() { "-" } else { labels };
        format!("{name} {kind} {labels}")
    };
    let found: BTreeSet<_> = found.iter().map(line).collect();
    assert_eq!(found, GOLDEN.lines().map(str::to_owned).collect());
    assert_eq!(values, label_values());
    let buckets = |name: &str| {
        let start = format!("{name}_bucket{{le=\"");
        let bounds = seen.body.lines().filter_map(|line| line.strip_prefix(&start));
        bounds.map(|rest| rest.split_once('"').unwrap().0).collect::<Vec<_>>().join(" ")
    };
    let times =
        "0.0001 0.00025 0.0005 0.001 0.0025 0.005 0.01 0.025 0.05 0.1 0.25 0.5 1 2.5 5 10 +Inf";
    for stage in ["queue", "scan", "pack", "upload", "send", "answer"] {
        assert_eq!(buckets(&format!("sotto_{stage}_seconds")), times);
    }
    assert_eq!(buckets("sotto_batch_queries"), "1 2 4 8 16 24 32 +Inf");
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_move_with_what_is_asked() {
    let host = processor();
    let (admin, peer, key) = (admin(&host.admin_state).await, host.connect().await, bundle(1));
    let before = metrics(admin).await;
    peer.bring(key.clone()).await;
    let batch = (0..5).map(|i| query(&i.to_string(), &key, i % SHARDS, 0));
    let unknown = query("u", &key, SHARDS, 0);
    peer.ask_queries(batch.chain([unknown]).collect()).await;
    peer.ask_hints(EPOCH, vec![0, 1]).await;
    // The time of a call is known once it has ended, after its answers.
    let mut after = metrics(admin).await;
    while after["sotto_scan_seconds_count"] != after["sotto_batch_queries_count"] {
        after = metrics(admin).await;
    }
    let counted = |name: &str| before[name];
    let moved = |name: &str| after[name] - counted(name);
    for (name, more) in [
        ("sotto_queries_total{outcome=\"pir_response_success\"}", 5.0),
        ("sotto_queries_total{outcome=\"shard_unknown\"}", 1.0),
        ("sotto_queries_total{outcome=\"overloaded\"}", 0.0),
        ("sotto_parameter_requests_total{outcome=\"pir_scheme_matched\"}", 1.0),
        ("sotto_hints_total{outcome=\"pir_response_success\"}", 2.0),
        ("sotto_queries_admitted_total", 5.0),
        ("sotto_answers_total{by=\"processor\"}", 5.0),
        ("sotto_answers_total{by=\"device\"}", 0.0),
        ("sotto_bundles_total", 1.0),
        ("sotto_bundles", 1.0),
        ("sotto_streams_total", 3.0),
        ("sotto_queue_seconds_count", 5.0),
        ("sotto_answer_seconds_count", 5.0),
        ("sotto_batch_queries_sum", 5.0),
        ("sotto_send_seconds_count", 9.0),
    ] {
        assert_eq!(moved(name), more, "{name}");
    }
    let sent = 5 * shape().packs() * shape().response_bytes();
    let received = 6 * shape().query_bytes() + shape().bundle_bytes();
    for (name, least) in [
        ("sotto_sent_bytes_total", sent as f64),
        ("sotto_received_bytes_total", received as f64),
        ("sotto_scan_seconds_count", SHARDS as f64),
        ("sotto_pack_seconds_count", SHARDS as f64),
        ("sotto_scan_seconds_sum", 1e-9),
        ("sotto_answer_seconds_sum", 1e-9),
        ("process_cpu_seconds_total", 1e-6),
        ("process_resident_memory_bytes", 1.0 - counted("process_resident_memory_bytes")),
    ] {
        assert!(moved(name) >= least, "{name}: {}", moved(name));
    }
    let now = |name: &str| after[name];
    assert_eq!((now("sotto_connections"), now("sotto_connections_total")), (1.0, 1.0));
    assert_eq!((now("sotto_shards"), now("sotto_resident_shards")), (SHARDS.into(), 0.0));
    assert_eq!([now("sotto_served_epoch"), now("sotto_expected_epoch")], [EPOCH as f64; 2]);
    assert_eq!((now("sotto_queued_queries"), now("sotto_draining")), (0.0, 0.0));
    let used = |part: &str| now(&format!("sotto_memory_used_bytes{{part=\"{part}\"}}"));
    assert_eq!(used("bundles"), (shape().bundle_bytes() / 3 * 4) as f64);
    assert!(used("connections") > 0.0);
    assert!(now("sotto_machine_memory_bytes") > 1e6);
    let memory = ServerBounds::default().memory(&shape());
    assert_eq!(now("sotto_memory_budget_bytes{part=\"answers\"}"), memory.answers as f64);
    let validity = certificates::VALID_DAYS as f64 * 86_400.0;
    let expires = now("sotto_certificate_expiry_timestamp_seconds") - validity;
    let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    assert!((since_1970.as_secs_f64() - expires).abs() < 600.0, "{expires}");
    peer.connection.close(0u32.into(), b"");
    let mut connections = 1.0;
    while connections != 0.0 {
        connections = metrics(admin).await["sotto_connections"];
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_ready_once_its_engine_was_right() {
    let host = Serving::start(Reference, proving());
    let address = admin(&host.admin_state).await;
    assert_eq!(until_status(address, "/readyz", 200).await.body, "ready\n");
    assert_eq!(get(address, "/livez").await.body, "alive\n");
    assert_eq!(get(address, "/startupz").await.body, "started\n");
    assert_eq!(metrics(address).await["sotto_ready"], 1.0);
    // An engine that answers, and wrong.
    let (engine, mut gate) = gated();
    let wrong = Serving::start(engine, proving());
    let address = admin(&wrong.admin_state).await;
    assert_eq!(gate.began().await, 1);
    let missing = "not ready\ngated has not passed its known-answer test\n";
    let seen = get(address, "/readyz").await;
    assert_eq!((seen.status, &*seen.body), (503, missing));
    gate.go_on();
    let (peer, key) = (wrong.connect().await, bundle(1));
    peer.bring(key.clone()).await;
    gate.go_on();
    // Answers of its own show that it lives, not that it is right.
    let answers = peer.ask_queries(vec![query("0", &key, 0, 0)]).await;
    assert_eq!(statuses(&answers), [("0", Status::ResponseSuccess)]);
    let seen = get(address, "/readyz").await;
    assert_eq!((seen.status, &*seen.body), (503, missing));
    assert_eq!(metrics(address).await["sotto_ready"], 0.0);
    assert_eq!(get(address, "/livez").await.status, 200);
    assert!(get(address, "/status").await.body.contains(missing.lines().nth(1).unwrap()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_a_shard_to_answer_from_is_not_ready() {
    let host = Serving::start(Reference, proving());
    let address = admin(&host.admin_state).await;
    until_status(address, "/readyz", 200).await;
    let quarantine = |shard| host.database.shard(shard).unwrap().quarantine();
    (1..SHARDS).for_each(quarantine);
    let some = get(address, "/readyz").await;
    assert_eq!((some.status, &*some.body), (200, "ready\n2 shards are damaged and taken out\n"));
    quarantine(0);
    let none = get(address, "/readyz").await;
    let missing = "not ready\nall 3 shards are damaged and taken out\n";
    assert_eq!((none.status, &*none.body), (503, missing));
    assert_eq!(metrics(address).await["sotto_ready"], 0.0);
    assert_eq!(get(address, "/livez").await.status, 200);
}

/// A manifest that is refused, for its content or because nobody could read it to its end, harms
/// neither what is served nor the next reload; why is said where an operator looks.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_is_said_until_something_else_is_read() {
    let host = Serving::start(Reference, proving());
    let address = admin(&host.admin_state).await;
    let manifest = host.database.directory().join(MANIFEST_NAME);
    let good = std::fs::read(&manifest).unwrap();
    let folder = || {
        std::fs::remove_file(&manifest).unwrap();
        std::fs::create_dir(&manifest).unwrap();
    };
    let refusals: [(&dyn Fn(), &str); 3] = [
        (&|| std::fs::write(&manifest, "{}").unwrap(), "is not a manifest"),
        (&|| pipe_at(&manifest), "it is a pipe (FIFO), expected a regular file"),
        (&folder, "it is a folder"),
    ];
    for (spoil, expected) in refusals {
        spoil();
        let refused = tokio::time::timeout(PATIENCE, host.reloader.reload()).await.unwrap();
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains(expected) && refused.contains("Epoch 4 is served"), "{refused}");
        let seen = until_status(address, "/readyz", 200).await;
        assert!(seen.body.contains("what is on disk is refused: "), "{}", seen.body);
        assert!(seen.body.contains(expected), "{}", seen.body);
        let page = get(address, "/status").await.body;
        assert!(page.contains(expected) && page.contains("what is on disk is refused"), "{page}");
        let _ = std::fs::remove_file(&manifest);
        let _ = std::fs::remove_dir(&manifest);
        std::fs::write(&manifest, &good).unwrap();
        let unchanged = host.reloader.reload().await.unwrap();
        assert_eq!(unchanged, Reloaded::Unchanged { epoch: EPOCH });
        assert_eq!(get(address, "/readyz").await.body, "ready\n");
    }
    assert_eq!(host.counters.reloads_refused.get(), 3);
}

/// Nothing goes on from the first moment: given up, and the next one is not held up by it.
#[tokio::test(flavor = "multi_thread")]
async fn a_reload_of_which_nothing_goes_on_is_given_up() {
    let bounds = ServerBounds { file_patience: Duration::ZERO, ..Default::default() };
    let host = Serving::start(Reference, bounds);
    for _ in 0..3 {
        let reload = tokio::time::timeout(PATIENCE, host.reloader.reload()).await.unwrap();
        // It may have been quick.
        if let Err(error) = reload {
            assert!(error.to_string().contains("was given up, nothing of it went on"), "{error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_answer_before_there_is_a_server() {
    let admin_state = Arc::new(AdminState::default());
    let address = admin(&admin_state).await;
    let opening = "starting: opening the database, 0 of 0 shards\n";
    for path in ["/startupz", "/metrics"] {
        let seen = get(address, path).await;
        assert_eq!((seen.status, &*seen.body), (503, opening), "{path}");
    }
    admin_state.enter(Stage::Proving);
    let seen = get(address, "/readyz").await;
    let missing = "not ready\nthe server is starting: having engines prove themselves\n";
    assert_eq!((seen.status, &*seen.body), (503, missing));
    assert_eq!(get(address, "/livez").await.status, 200);
    let page = get(address, "/status").await;
    assert!(page.status == 200 && page.body.contains("having engines prove themselves"));
    assert_eq!(get(address, "/").await.status, 404);
    assert_eq!(post(address, "/reload").await.status, 501);
    for listen in ["0.0.0.0:0", "[::]:0"] {
        let bound =
            Admin::bind(listen.parse().unwrap(), AdminCallers::Loopback, admin_state.clone());
        let error = bound.await.err().unwrap().to_string();
        assert!(error.contains("is not a loopback address"), "{error}");
    }
    let anyone = Admin::bind("0.0.0.0:0".parse().unwrap(), AdminCallers::Anyone, admin_state).await;
    assert_ne!(anyone.unwrap().local_addr().port(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_something_is_asked_for_with_post_and_by_no_page() {
    let host = Serving::start(Reference, ServerBounds::default());
    let address = admin(&host.admin_state).await;
    for path in ["/reload", "/drain"] {
        assert_eq!(get(address, path).await.status, 405, "{path}");
        let headers = "Content-Length: 0\r\nOrigin: http://127.0.0.1:9464\r\n";
        let seen = ask(address, &format!("POST {path}"), headers).await;
        assert_eq!(seen.status, 403, "{path}: {}", seen.body);
        let headers = "Content-Length: 0\r\nSec-Fetch-Site: cross-site\r\n";
        let seen = ask(address, &format!("POST {path}"), headers).await;
        assert_eq!(seen.status, 403, "{path}: {}", seen.body);
    }
    for path in ["/livez", "/readyz", "/startupz", "/metrics", "/status"] {
        assert_eq!(post(address, path).await.status, 405, "{path}");
    }
    let answers = std::sync::Mutex::new(vec![Err("the list is bad".to_owned()), Ok("done".into())]);
    host.admin_state.on_reload(Box::new(move || {
        let answer = answers.lock().unwrap().pop().unwrap();
        Box::pin(async move { answer })
    }));
    let seen = [post(address, "/reload").await, post(address, "/reload").await];
    assert_eq!(seen.each_ref().map(|seen| seen.status), [200, 500]);
    assert_eq!(
        seen.each_ref().map(|s| &*s.body),
        ["done\n", "not all was read again: the list is bad\n"]
    );
    assert_eq!(get(address, "/readyz").await.status, 200);
    // Leaving waits for what is in flight, and says so meanwhile.
    let peer = host.connect().await;
    let (_send, receive) = peer.open(&[0x80]).await;
    until("the stream is open", || host.counters.streams.get() == 1).await;
    assert_eq!(post(address, "/drain").await.status, 202);
    let seen = until_status(address, "/readyz", 503).await;
    assert_eq!(seen.body, "not ready\nthe server is leaving\n");
    assert_eq!(metrics(address).await["sotto_draining"], 1.0);
    assert!(get(address, "/status").await.body.contains(">leaving<"));
    drop((peer, receive));
    host.left().await;
    assert_eq!(get(address, "/livez").await.status, 200);
}

/// A page whose own name leads to this machine, by DNS rebinding, reads nothing.
#[tokio::test(flavor = "multi_thread")]
async fn only_hosts_that_cannot_be_anothers_are_answered() {
    let admin_state = Arc::new(AdminState::default());
    let listen = "127.0.0.1:0".parse().unwrap();
    let admin = Admin::bind(listen, AdminCallers::Loopback, admin_state).await.unwrap();
    let address = admin.local_addr();
    tokio::spawn(admin.named(vec!["metrics.example".into()]).run());
    let paths =
        ["GET /metrics", "GET /status", "GET /readyz", "GET /livez", "POST /reload", "POST /drain"];
    for line in paths {
        let asked = async |host: &str| ask_host(address, line, host, "").await;
        let refused = asked("evil.example:9464").await;
        assert_eq!(refused.status, 421, "{line}: {}", refused.body);
        assert!(refused.body.contains("--admin-host"), "{}", refused.body);
        for host in [address.to_string(), "localhost".into(), "metrics.example:9464".into()] {
            assert_ne!(asked(&host).await.status, 421, "{line} of {host}");
        }
    }
}

/// Sockets that send one byte, or nothing, or the beginning of a request.
#[tokio::test(flavor = "multi_thread")]
async fn probes_are_answered_whoever_says_nothing() {
    let host = Serving::start(Reference, proving());
    let address = admin(&host.admin_state).await;
    let mut silent = Vec::new();
    for begin in ["", "G", "POST /reload HTTP/1.1\r\n"] {
        for _ in 0..limits::ADMIN_CONNECTIONS_MAX {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(begin.as_bytes()).await.unwrap();
            silent.push(stream);
        }
        let begun = Instant::now();
        assert_eq!(get(address, "/livez").await.status, 200);
        assert_eq!(get(address, "/startupz").await.status, 200);
        assert_eq!(get(address, "/metrics").await.status, 200);
        assert!(begun.elapsed() < limits::ADMIN_HEAD_TIME, "{:?}", begun.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_names_front_ends_and_no_address() {
    let made = certificates::localhost().unwrap();
    let host = Serving::start_for(known(&made.ca_pem, None), made, Reference, proving());
    let address = admin(&host.admin_state).await;
    let none = get(address, "/status").await;
    assert!(none.body.contains("None is connected."), "{}", none.body);
    let peer = host.connect_as(&host.certificates).await.unwrap();
    let key = bundle(1);
    peer.bring(key.clone()).await;
    let asked = [query("0", &key, 0, 0), query("1", &key, SHARDS, 0)];
    peer.ask_queries(asked.to_vec()).await;
    until_status(address, "/readyz", 200).await;
    let page = get(address, "/status").await;
    assert!(page.head.contains("content-type: text/html; charset=utf-8"), "{}", page.head);
    assert!(page.head.contains("content-security-policy: default-src 'none'"), "{}", page.head);
    for part in [
        ">ready<",
        "epoch 4",
        "<h3>reference</h3>",
        "passed its known-answer test ",
        "<th>client.localhost</th><td>1</td><td>1</td>",
        "<th>shard unknown</th><td>1</td>",
        "<th>used</th><th>at most</th>",
        rustix::system::uname().nodename().to_str().unwrap(),
    ] {
        assert!(page.body.contains(part), "{part}: {}", page.body);
    }
    for address in ["127.0.0.1", &host.address.port().to_string()] {
        assert!(!page.body.contains(address), "{address}: {}", page.body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_certificate_that_is_served_now_says_when_it_expires() {
    let host = Serving::start(Reference, ServerBounds::default());
    let address = admin(&host.admin_state).await;
    let certificate = |year| {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut made = rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap();
        made.not_after = rcgen::date_time_ymd(year, 1, 1);
        (made.self_signed(&key).unwrap().pem(), key.serialize_pem())
    };
    for (year, seconds) in [(2030, 1_893_456_000.0), (2001, 978_307_200.0)] {
        let (pem, key) = certificate(year);
        let identity = Identity::from_pem(&pem, &key).unwrap();
        host.identity_reloader.change(identity, Callers::Loopback).unwrap();
        let now = metrics(address).await;
        assert_eq!(now["sotto_certificate_expiry_timestamp_seconds"], seconds);
    }
    assert!(get(address, "/status").await.body.contains("CERTIFICATE EXPIRED"));
    // What cannot be used changes nothing.
    let LocalCertificates { client_key, .. } = &host.certificates;
    let mixed = Identity::from_pem(&certificate(2050).0, client_key).unwrap();
    host.identity_reloader.change(mixed, Callers::Loopback).unwrap_err();
    let now = metrics(address).await;
    assert_eq!(now["sotto_certificate_expiry_timestamp_seconds"], 978_307_200.0);
}

/// The messages of a log, of which every line is an object.
fn messages(log: &str) -> Vec<String> {
    let message = |line: &str| {
        let said = serde_json::from_str(line).unwrap_or(serde_json::Value::Null);
        said["message"].as_str().unwrap_or_else(|| panic!("{line}")).to_owned()
    };
    log.lines().map(message).collect()
}

#[tokio::test]
async fn the_program_says_where_its_endpoints_are_and_leaves_when_asked_there() {
    let folder = folder();
    let server = Program::start(serve(folder.path(), &["--log-format=json", "--engine=cpu"]), None);
    let place = |line: String| {
        let at = line.strip_prefix("admin endpoints are at http://")?.strip_suffix("/status")?;
        at.parse::<SocketAddr>().ok()
    };
    let found = || messages(&server.said()).into_iter().find_map(place);
    until("the log names the endpoints", || found().is_some()).await;
    let at = found().unwrap();
    until_status(at, "/readyz", 200).await;
    let said = "certificates and callers were read again; epoch 4 is served as before\n";
    assert_eq!(post(at, "/reload").await.body, said);
    let now = metrics(at).await;
    assert!(now["sotto_reloads_total{result=\"unchanged\"}"] >= 1.0, "{now:?}");
    assert_eq!(post(at, "/drain").await.status, 202);
    assert_eq!(messages(&server.left().await).last().unwrap(), "left");
    refuses(folder.path(), &["--admin=0.0.0.0:0"], "is not a loopback address");
    let (code, _, err) = run(&mut serve(folder.path(), &["--admin=9464"]));
    assert!(code == 2 && err.contains("expected an address with a port"), "{err}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = format!("--admin={}", taken.local_addr().unwrap());
    refuses(folder.path(), &[&taken], "cannot listen on the admin address 127.0.0.1:");
}
