//! A server and clients over loopback: honest ones, slow ones and very many.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Extension;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use axum::routing::{get, post};
use http::Method;
use hyper::body::{Body as HttpBody, Frame};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::server::certificates::{LocalCertificates, localhost};

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(100);
const BODY_MAX: usize = 10_000;

/// Bounds that no honest test meets.
fn wide() -> Bounds {
    Bounds {
        connections: 100,
        handshakes: 100,
        handshake_time: LONG,
        head_time: LONG,
        idle_time: LONG,
        body_time: LONG,
    }
}

/// What handlers tell tests.
#[derive(Clone)]
struct Told {
    /// A request of `/wait` has begun.
    waiting: mpsc::UnboundedSender<()>,
    /// Has it end.
    go_on: Arc<Notify>,
    /// The body of `/endless` was dropped.
    dropped: mpsc::UnboundedSender<()>,
}

struct Running {
    address: SocketAddr,
    counters: Arc<Counters>,
    reloader: Reloader,
    made: LocalCertificates,
    files: TlsFiles,
    _folder: tempfile::TempDir,
    waiting: mpsc::UnboundedReceiver<()>,
    dropped: mpsc::UnboundedReceiver<()>,
    go_on: Arc<Notify>,
    leave: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

fn router(told: Told) -> Router {
    let names = |Extension(peer): Extension<PeerInfo>| async move { peer.names.join(",") };
    let length = |taken: Body| async move {
        match body(taken, BODY_MAX).await {
            Ok(bytes) => (StatusCode::OK, bytes.len().to_string()),
            Err(BodyError::TooLong { max }) => (StatusCode::PAYLOAD_TOO_LARGE, max.to_string()),
            Err(BodyError::Broken) => (StatusCode::BAD_REQUEST, String::new()),
        }
    };
    let Told { waiting, go_on, dropped } = told;
    let wait = async move || {
        waiting.send(()).unwrap();
        go_on.notified().await;
        "waited"
    };
    let endless = async move || Body::new(Endless(dropped.clone()));
    Router::new()
        .route("/names", get(names))
        .route("/length", post(length))
        .route("/wait", get(wait))
        .route("/endless", get(endless))
}

/// A body without an end, which tells when it is dropped.
struct Endless(mpsc::UnboundedSender<()>);

impl HttpBody for Endless {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[7; 4096])))))
    }
}

impl Drop for Endless {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

fn write(files: &TlsFiles, made: &LocalCertificates) {
    std::fs::write(&files.cert, &made.server_pem).unwrap();
    std::fs::write(&files.key, &made.server_key).unwrap();
    std::fs::write(files.client_ca.as_ref().unwrap(), &made.ca_pem).unwrap();
}

async fn start(bounds: Bounds) -> Running {
    let (made, folder) = (localhost().unwrap(), tempfile::tempdir().unwrap());
    let path = |name: &str| folder.path().join(name);
    let (cert, key, client_ca) = (path("cert.pem"), path("key.pem"), Some(path("ca.pem")));
    let files = TlsFiles { cert, key, client_ca };
    write(&files, &made);
    let server = Server::bind("127.0.0.1:0".parse().unwrap(), &files, bounds).await.unwrap();
    let (address, counters) = (server.local_addr(), server.counters());
    let (tell_waiting, waiting) = mpsc::unbounded_channel();
    let (tell_dropped, dropped) = mpsc::unbounded_channel();
    let go_on = Arc::new(Notify::new());
    let told = Told { waiting: tell_waiting, go_on: go_on.clone(), dropped: tell_dropped };
    let reloader = server.reloader();
    let (leave, left) = oneshot::channel();
    let left = async { _ = left.await };
    let task = tokio::spawn(server.run(router(told), left));
    let _folder = folder;
    Running {
        address,
        counters,
        reloader,
        made,
        files,
        _folder,
        waiting,
        dropped,
        go_on,
        leave,
        task,
    }
}

impl Running {
    fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.address.port())
    }

    fn client(&self) -> Client {
        Client::new(Some(self.made.ca_pem.as_bytes()), None, LONG).unwrap()
    }

    async fn get(&self, client: &Client, path: &str) -> Result<String, HttpsError> {
        let reply = client.send(Method::GET, &self.url(path), &[], Bytes::new(), 1_000).await?;
        Ok(format!("{} {}", reply.status, String::from_utf8_lossy(&reply.body)))
    }

    /// A TLS connection over which nothing was sent.
    async fn connect(&self) -> TlsStream<TcpStream> {
        let roots = pem::authorities(self.made.ca_pem.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
    }

    /// The same, after these bytes were sent.
    async fn send(&self, bytes: &str) -> TlsStream<TcpStream> {
        let mut stream = self.connect().await;
        stream.write_all(bytes.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        stream
    }

    fn count(&self, counter: fn(&Counters) -> &AtomicU64) -> u64 {
        counter(&self.counters).load(Ordering::Relaxed)
    }
}

const NAMES: &str = "GET /names HTTP/1.1\r\nhost: localhost\r\n\r\n";
const SLOW_BODY: &str = "POST /length HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n1";

/// All that comes until the connection ends, in whatever way.
async fn rest(stream: &mut TlsStream<TcpStream>) -> String {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(LONG, stream.read_to_end(&mut bytes)).await;
    let _ = read.expect("it is not closed");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// One reply, of which the body ends so.
async fn reply(stream: &mut TlsStream<TcpStream>, end: &str) -> String {
    let mut text = String::new();
    while !text.ends_with(end) {
        let mut bytes = [0; 1024];
        let count = tokio::time::timeout(LONG, stream.read(&mut bytes)).await.unwrap().unwrap();
        assert!(count > 0, "it ended after {text:?}");
        text.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
    }
    text
}

#[tokio::test]
async fn requests_share_a_connection_and_say_whose_they_are() {
    let server = start(wide()).await;
    let made = &server.made;
    let identity = Some((made.client_pem.as_bytes(), made.client_key.as_bytes()));
    let known = Client::new(Some(made.ca_pem.as_bytes()), identity, LONG).unwrap();
    for _ in 0..3 {
        assert_eq!(server.get(&known, "/names").await.unwrap(), "200 client.localhost");
    }
    assert_eq!(server.count(|c| &c.accepted), 1);
    assert_eq!(server.get(&server.client(), "/names").await.unwrap(), "200 ");
    assert_eq!(server.get(&server.client(), "/nothing").await.unwrap(), "404 ");
    let stranger = localhost().unwrap();
    let identity = Some((stranger.client_pem.as_bytes(), stranger.client_key.as_bytes()));
    let stranger = Client::new(Some(made.ca_pem.as_bytes()), identity, LONG).unwrap();
    server.get(&stranger, "/names").await.unwrap_err();
    assert_eq!(server.count(|c| &c.requests), 5);
    let samples = server.counters.samples();
    let requests = samples.iter().find(|sample| sample.name == "https_requests_total").unwrap();
    assert_eq!((requests.value, requests.labels.len()), (5.0, 0));
}

#[tokio::test]
async fn a_body_may_have_its_most_bytes_and_not_one_more() {
    let server = start(wide()).await;
    let client = server.client();
    for (bytes, expected) in [
        (0, "200 0"),
        (BODY_MAX - 1, "200 9999"),
        (BODY_MAX, "200 10000"),
        (BODY_MAX + 1, "413 10000"),
        (1 << 20, "413 10000"),
    ] {
        let (url, body) = (server.url("/length"), Bytes::from(vec![1; bytes]));
        let reply = client.send(Method::POST, &url, &[], body, 100).await;
        // Where much is left unread, the connection may break before the reply is read.
        let Ok(reply) = reply else {
            assert!(bytes == 1 << 20);
            continue;
        };
        let text = format!("{} {}", reply.status, String::from_utf8_lossy(&reply.body));
        assert_eq!(text, expected, "{bytes}");
        // The same without a length announced.
        let head = "POST /length HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
        let mut stream = server.send(head).await;
        if bytes > 0 {
            let chunk = format!("{bytes:x}\r\n{}\r\n", "x".repeat(bytes));
            let _ = stream.write_all(chunk.as_bytes()).await;
        }
        let _ = stream.write_all(b"0\r\n\r\n").await;
        let _ = stream.flush().await;
        let (status, end) = expected.split_once(' ').unwrap();
        if bytes < 1 << 20 {
            let text = self::reply(&mut stream, &format!("\r\n\r\n{end}")).await;
            assert!(text.starts_with(&format!("HTTP/1.1 {status}")), "{bytes}: {text}");
        }
    }
}

#[tokio::test]
async fn half_open_connections_keep_nobody_away() {
    let server = start(Bounds { handshakes: 20, connections: 20, ..wide() }).await;
    let mut silent = Vec::new();
    for index in 0..400 {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        if index % 2 == 0 {
            // The beginning of a TLS record.
            let _ = stream.write_all(&[22, 3, 1]).await;
        }
        silent.push(stream);
    }
    assert_eq!(server.get(&server.client(), "/names").await.unwrap(), "200 ");
    assert!(server.count(|c| &c.handshakes_displaced) >= 400 - 20);
    let mut oldest = silent.remove(0);
    let ended = tokio::time::timeout(LONG, oldest.read(&mut [0; 1])).await.unwrap();
    assert!(!matches!(ended, Ok(1..)), "{ended:?}");
}

#[tokio::test]
async fn idle_connections_and_slow_heads_and_bodies_keep_nobody_away() {
    let server = start(Bounds { connections: 10, ..wide() }).await;
    for sent in ["", "GET /names HT", SLOW_BODY, NAMES] {
        let mut slow = Vec::new();
        for _ in 0..40 {
            slow.push(server.send(sent).await);
        }
        assert_eq!(server.get(&server.client(), "/names").await.unwrap(), "200 ", "{sent:?}");
        // Nothing is due for a minute: the first was ended for others.
        rest(&mut slow[0]).await;
    }
    assert!(server.count(|c| &c.connections_displaced) >= 4 * 30);
    assert!(server.count(|c| &c.open) <= 10);
}

#[tokio::test]
async fn a_connection_at_work_is_not_ended_for_another() {
    let mut server = start(Bounds { connections: 2, ..wide() }).await;
    let mut working = server.send("GET /wait HTTP/1.1\r\nhost: a\r\n\r\n").await;
    server.waiting.recv().await.unwrap();
    let mut idle = server.send(NAMES).await;
    reply(&mut idle, "\r\n\r\n").await;
    let mut other = server.send(NAMES).await;
    assert_eq!(rest(&mut idle).await, "");
    reply(&mut other, "\r\n\r\n").await;
    server.go_on.notify_one();
    reply(&mut working, "\r\n\r\nwaited").await;
    assert_eq!(server.count(|c| &c.connections_displaced), 1);
}

#[tokio::test]
async fn where_the_server_itself_is_slow_the_new_connection_is_closed() {
    let mut server = start(Bounds { connections: 2, ..wide() }).await;
    let mut working = Vec::new();
    for _ in 0..2 {
        working.push(server.send("GET /wait HTTP/1.1\r\nhost: a\r\n\r\n").await);
        server.waiting.recv().await.unwrap();
    }
    // Its handshake ends before the server has decided, or is broken off.
    server.get(&server.client(), "/names").await.unwrap_err();
    assert_eq!(server.count(|c| &c.connections_refused), 1);
    for stream in &mut working {
        server.go_on.notify_one();
        reply(stream, "\r\n\r\nwaited").await;
    }
}

#[tokio::test]
async fn nobody_is_waited_for_longer_than_he_may() {
    type Ended = fn(&Counters) -> &AtomicU64;
    let cases: [(Bounds, &str, Ended); 4] = [
        (Bounds { idle_time: SHORT, ..wide() }, "", |c| &c.idle_ended),
        (Bounds { idle_time: 10 * SHORT, ..wide() }, NAMES, |c| &c.idle_ended),
        (Bounds { head_time: SHORT, ..wide() }, "GET /names HT", |c| &c.heads_late),
        (Bounds { body_time: SHORT, ..wide() }, SLOW_BODY, |c| &c.bodies_late),
    ];
    for (bounds, sent, ended) in cases {
        let server = start(bounds).await;
        let text = rest(&mut server.send(sent).await).await;
        assert_eq!(text.contains(" 200 "), sent == NAMES, "{sent}: {text}");
        assert_eq!(server.count(ended), 1, "{sent}");
    }
    let server = start(Bounds { handshake_time: SHORT, ..wide() }).await;
    let mut silent = TcpStream::connect(server.address).await.unwrap();
    let ended = tokio::time::timeout(LONG, silent.read(&mut [0; 1])).await.unwrap();
    assert!(!matches!(ended, Ok(1..)), "{ended:?}");
    assert_eq!(server.count(|c| &c.handshakes_failed), 1);
}

#[tokio::test]
async fn a_reader_who_reads_nothing_is_ended() {
    let mut server = start(Bounds { body_time: SHORT, ..wide() }).await;
    let _reader = server.send("GET /endless HTTP/1.1\r\nhost: a\r\n\r\n").await;
    tokio::time::timeout(LONG, server.dropped.recv()).await.unwrap().unwrap();
    assert_eq!(server.count(|c| &c.replies_late), 1);
}

#[tokio::test]
async fn a_server_that_leaves_finishes_what_was_begun() {
    let mut server = start(wide()).await;
    let mut idle = server.send(NAMES).await;
    reply(&mut idle, "\r\n\r\n").await;
    let mut unused = server.connect().await;
    let half_open = TcpStream::connect(server.address).await.unwrap();
    let mut working = server.send("GET /wait HTTP/1.1\r\nhost: a\r\n\r\n").await;
    server.waiting.recv().await.unwrap();
    server.leave.send(()).unwrap();
    assert_eq!(rest(&mut idle).await, "");
    assert_eq!(rest(&mut unused).await, "");
    TcpStream::connect(server.address).await.unwrap_err();
    assert!(!server.task.is_finished());
    server.go_on.notify_one();
    let text = rest(&mut working).await;
    assert!(text.contains("connection: close") && text.ends_with("waited"), "{text}");
    tokio::time::timeout(LONG, server.task).await.expect("it does not leave").unwrap();
    assert_eq!(server.counters.open.load(Ordering::Relaxed), 0);
    drop(half_open);
}

#[tokio::test]
async fn certificates_are_read_again_and_bad_ones_change_nothing() {
    let server = start(wide()).await;
    let (old, other) = (server.client(), localhost().unwrap());
    let new = Client::new(Some(other.ca_pem.as_bytes()), None, LONG).unwrap();
    assert_eq!(server.get(&old, "/names").await.unwrap(), "200 ");
    let error = server.get(&new, "/names").await.unwrap_err();
    assert!(matches!(error, HttpsError::Handshake { .. }) && error.never_sent(), "{error}");
    std::fs::write(&server.files.cert, &other.server_pem).unwrap();
    let refused = server.reloader.reload().unwrap_err().to_string();
    assert!(refused.contains("cannot be used"), "{refused}");
    assert_eq!(server.get(&old, "/names").await.unwrap(), "200 ");
    let mut kept = server.send(NAMES).await;
    reply(&mut kept, "\r\n\r\n").await;
    let mut working = server.send(SLOW_BODY).await;
    write(&server.files, &other);
    server.reloader.reload().unwrap();
    assert_eq!(server.get(&new, "/names").await.unwrap(), "200 ");
    // Connections from before end, after the request that was begun.
    assert_eq!(rest(&mut kept).await, "");
    working.write_all(b"23456789").await.unwrap();
    working.flush().await.unwrap();
    assert!(rest(&mut working).await.contains("connection: close"));
    let fresh = server.client();
    assert!(matches!(server.get(&fresh, "/names").await, Err(HttpsError::Handshake { .. })));
}

#[tokio::test]
async fn an_error_says_whether_the_request_may_have_arrived() {
    let mut server = start(wide()).await;
    // Nobody listens there.
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let url = format!("https://localhost:{}/secret", free.port());
    let error = server.client().send(Method::GET, &url, &[], Bytes::new(), 10).await.unwrap_err();
    assert!(matches!(error, HttpsError::Connect { .. }) && error.never_sent(), "{error}");
    assert!(!error.to_string().contains("secret"), "{error}");
    let hasty = Client::new(Some(server.made.ca_pem.as_bytes()), None, SHORT).unwrap();
    // It listens, and never speaks.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}/", silent.local_addr().unwrap().port());
    let error = hasty.send(Method::GET, &url, &[], Bytes::new(), 10).await.unwrap_err();
    assert!(matches!(error, HttpsError::Late { .. }) && error.never_sent(), "{error}");
    let hasty = Client::new(Some(server.made.ca_pem.as_bytes()), None, 20 * SHORT).unwrap();
    // Its connection is kept.
    while server.get(&hasty, "/names").await.is_err() {}
    let error = server.get(&hasty, "/wait").await.unwrap_err();
    assert!(matches!(error, HttpsError::Late { .. }) && !error.never_sent(), "{error}");
    server.waiting.recv().await.unwrap();
    let (client, url) = (server.client(), server.url("/endless"));
    let sent = client.send(Method::GET, &url, &[], Bytes::new(), 9_999);
    let error = sent.await.unwrap_err();
    assert!(matches!(error, HttpsError::ReplyTooLong { max: 9_999, .. }), "{error}");
    assert!(!error.never_sent());
}

#[tokio::test]
async fn a_connection_that_the_server_closed_meanwhile_costs_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let (closed, mut heard) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut bytes = [0; 1024];
            let count = stream.read(&mut bytes).await.unwrap();
            assert!(bytes[..count].ends_with(b"\r\n\r\n"));
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
            drop(stream);
            closed.send(()).unwrap();
        }
    });
    let client = Client::with_plain(None, LONG).unwrap();
    for _ in 0..5 {
        let reply = client.send(Method::GET, &url, &[], Bytes::new(), 10).await.unwrap();
        assert_eq!((reply.status, &reply.body[..]), (200, &b"ok"[..]));
        heard.recv().await.unwrap();
    }
}

/// A server that ends a connection it kept when the next request comes over it.
#[tokio::test]
async fn a_get_over_a_connection_that_is_being_closed_goes_over_another() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut bytes = [0; 1024];
            let _ = stream.read(&mut bytes).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
            tokio::spawn(async move { stream.read(&mut [0; 1024]).await });
        }
    });
    let client = Client::with_plain(None, LONG).unwrap();
    for _ in 0..5 {
        let reply = client.send(Method::GET, &url, &[], Bytes::new(), 10).await.unwrap();
        assert_eq!((reply.status, &reply.body[..]), (200, &b"ok"[..]));
    }
    let error = client.send(Method::POST, &url, &[], Bytes::new(), 10).await.unwrap_err();
    assert!(matches!(error, HttpsError::Broken { .. }) && !error.never_sent(), "{error}");
}

#[tokio::test]
async fn a_connection_that_breaks_during_a_request_is_an_error_and_nothing_is_sent_twice() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let accepted = Arc::new(AtomicU64::new(0));
    let seen = accepted.clone();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            seen.fetch_add(1, Ordering::Relaxed);
            let _ = stream.read(&mut [0; 1024]).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nok").await;
        }
    });
    let client = Client::with_plain(None, LONG).unwrap();
    let error = client.send(Method::POST, &url, &[], Bytes::new(), 10).await.unwrap_err();
    assert!(matches!(error, HttpsError::Broken { .. }) && !error.never_sent(), "{error}");
    assert_eq!(accepted.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn urls_and_headers_that_cannot_be_sent_are_refused() {
    let made = localhost().unwrap();
    let client = Client::new(Some(made.ca_pem.as_bytes()), None, LONG).unwrap();
    let send = async |url: &str, headers: &[(&str, &str)]| {
        let error = client.send(Method::GET, url, headers, Bytes::new(), 10).await.unwrap_err();
        assert!(error.never_sent());
        error.to_string()
    };
    for (url, expected) in [
        ("http://localhost/", "which everybody can read"),
        ("ftp://localhost/", "does not begin with https://"),
        ("/path", "does not begin with https://"),
        ("", "it is no URL"),
        ("https://user:password@localhost/", "it names a user"),
        ("https://local host/", "it is no URL"),
    ] {
        let error = send(url, &[]).await;
        assert!(error.contains(expected), "{url}: {error}");
        assert!(!error.contains("password"));
    }
    for header in [("na me", "value"), ("name", "val\nue")] {
        assert!(send("https://localhost/", &[header]).await.contains("a header is refused"));
    }
    assert!(matches!(Client::new(None, None, LONG), Err(HttpsError::NoAuthority)));
    let plain = Client::with_plain(None, LONG).unwrap();
    let error = plain.send(Method::GET, "https://localhost/", &[], Bytes::new(), 10).await;
    assert!(matches!(error, Err(HttpsError::NoAuthority)));
    for (pem, expected) in [("", "has no certificate"), (&*made.server_key, "has no certificate")] {
        let error = Client::new(Some(pem.as_bytes()), None, LONG).err().unwrap().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
