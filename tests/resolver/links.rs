//! Links between the parties that write down what crosses them: [`Tap`] has every byte of TCP,
//! which TLS hides; [`Link`] is an end of TLS itself, so it has requests and replies, and may
//! change them.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use http::{HeaderMap, Method};
use hyper::body::{Body as HttpBody, Frame};
use sotto::https::{Bounds, Client, PeerInfo, Server, TlsFiles};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

const LONG: Duration = Duration::from_secs(60);
/// More than any body here.
const BODY_BYTES_MAX: usize = 8 << 20;

/// Bounds that nobody here meets.
pub(crate) fn wide() -> Bounds {
    Bounds {
        connections: 1_000,
        handshakes: 1_000,
        handshake_time: LONG,
        head_time: LONG,
        idle_time: LONG,
        body_time: LONG,
    }
}

/// What crossed a tap.
#[derive(Default, Clone)]
pub(crate) struct Tapped {
    pub(crate) connections: usize,
    pub(crate) up: Vec<u8>,
    pub(crate) down: Vec<u8>,
}

/// Carries TCP to wherever it leads.
pub(crate) struct Tap {
    pub(crate) port: u16,
    to: Arc<Mutex<SocketAddr>>,
    tapped: Arc<Mutex<Tapped>>,
}

impl Tap {
    pub(crate) async fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (to, tapped) = (Arc::new(Mutex::new(to)), Arc::<Mutex<Tapped>>::default());
        let (way, log) = (to.clone(), tapped.clone());
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                log.lock().unwrap().connections += 1;
                let to = *way.lock().unwrap();
                tokio::spawn(carry(near, to, log.clone()));
            }
        });
        Self { port, to, tapped }
    }

    pub(crate) fn url(&self) -> String {
        format!("https://localhost:{}", self.port)
    }

    /// Where new connections go from now on.
    pub(crate) fn lead_to(&self, to: SocketAddr) {
        *self.to.lock().unwrap() = to;
    }

    pub(crate) fn take(&self) -> Tapped {
        std::mem::take(&mut *self.tapped.lock().unwrap())
    }
}

/// Until one of both ends.
async fn carry(mut near: TcpStream, to: SocketAddr, log: Arc<Mutex<Tapped>>) {
    let Ok(mut far) = TcpStream::connect(to).await else { return };
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let (near_in, near_out) = near.split();
    let (far_in, far_out) = far.split();
    tokio::select! {
        () = copy(near_in, far_out, |bytes| log.lock().unwrap().up.extend_from_slice(bytes)) => {}
        () = copy(far_in, near_out, |bytes| log.lock().unwrap().down.extend_from_slice(bytes)) => {}
    }
}

async fn copy(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, note: impl Fn(&[u8])) {
    let mut bytes = vec![0; 1 << 16];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        note(&bytes[..count]);
        if to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}

/// A request and its reply as they crossed a link.
#[derive(Clone, Default)]
pub(crate) struct Exchange {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    /// Those of the sender's certificate.
    pub(crate) names: Vec<String>,
    pub(crate) body: Bytes,
    /// 0 where no reply came back.
    pub(crate) status: u16,
    pub(crate) reply_headers: HeaderMap,
    pub(crate) reply: Bytes,
}

impl Exchange {
    /// Everything of it, as bytes.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut all = format!("{} {}\n", self.method, self.path).into_bytes();
        for (name, value) in self.headers.iter().chain(&self.reply_headers) {
            all.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\n"].concat());
        }
        all.extend_from_slice(&self.body);
        all.extend_from_slice(&self.reply);
        all
    }

    /// A sealed look-up: an evaluation is shorter.
    fn is_lookup(&self) -> bool {
        self.path == "/gateway" && self.body.len() > sotto::limits::EVALUATE_BODY_BYTES_MAX
    }

    /// What an observer sees of its size: lengths of headers and bodies.
    pub(crate) fn sizes(&self) -> (String, usize, usize, u16, usize, usize) {
        let length = |headers: &HeaderMap| -> usize {
            headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
        };
        let (body, reply) = (self.body.len(), self.reply.len());
        let (up, down) = (length(&self.headers), length(&self.reply_headers));
        (format!("{} {}", self.method, self.path), up, body, self.status, down, reply)
    }
}

type ChangeRequest = Box<dyn FnMut(&str, &mut Vec<u8>) -> usize + Send>;
type ChangeReply = Box<dyn FnMut(&str, &mut Vec<u8>) + Send>;

/// What a link does with bodies on their way.
pub(crate) struct Script {
    /// Changes a request, and says how often it goes on. The last reply goes back.
    pub(crate) request: ChangeRequest,
    pub(crate) reply: ChangeReply,
}

impl Default for Script {
    fn default() -> Self {
        Self { request: Box::new(|_, _| 1), reply: Box::new(|_, _| {}) }
    }
}

/// A link between two parties that ends TLS on both sides.
pub(crate) struct Link {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    to: Mutex<SocketAddr>,
    client: Client,
    exchanges: Mutex<Vec<Exchange>>,
    script: Mutex<Script>,
    /// Exchanges that began before it rose are broken.
    generation: AtomicU64,
    /// Whether replies to look-ups are kept back.
    holds: watch::Sender<bool>,
}

impl Link {
    /// With a certificate for both sides: who connects sees `tls`, the other one `client`'s.
    pub(crate) async fn start(to: SocketAddr, tls: &TlsFiles, client: Client) -> Self {
        let server = Server::bind(([127, 0, 0, 1], 0).into(), tls, wide()).await.unwrap();
        let shared = Arc::new(Shared {
            to: Mutex::new(to),
            client,
            exchanges: Mutex::default(),
            script: Mutex::default(),
            generation: AtomicU64::new(0),
            holds: watch::channel(false).0,
        });
        let address = server.local_addr();
        let router = Router::new().fallback(pass).with_state(shared.clone());
        tokio::spawn(server.run(router, std::future::pending()));
        Self { address, shared }
    }

    pub(crate) fn url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }

    /// Where requests go from now on.
    pub(crate) fn lead_to(&self, to: SocketAddr) {
        *self.shared.to.lock().unwrap() = to;
    }

    pub(crate) fn script(&self) -> MutexGuard<'_, Script> {
        self.shared.script.lock().unwrap()
    }

    pub(crate) fn take(&self) -> Vec<Exchange> {
        std::mem::take(&mut *self.shared.exchanges.lock().unwrap())
    }

    /// Look-ups that came since the last [`Link::take`], those without a reply included.
    pub(crate) fn lookups(&self) -> usize {
        let exchanges = self.shared.exchanges.lock().unwrap();
        exchanges.iter().filter(|exchange| exchange.is_lookup()).count()
    }

    /// Keeps replies to look-ups back, or no longer.
    pub(crate) fn hold(&self, holds: bool) {
        self.shared.holds.send_replace(holds);
    }

    /// Whoever waits for a reply sees the connection break, as when the other side is killed.
    pub(crate) fn break_all(&self) {
        self.shared.generation.fetch_add(1, Ordering::SeqCst);
    }
}

/// A body that breaks the connection.
struct Broken;

impl HttpBody for Broken {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        std::task::Poll::Ready(Some(Err(std::io::ErrorKind::BrokenPipe.into())))
    }
}

async fn pass(State(link): State<Arc<Shared>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let Ok(body) = sotto::https::body(body, BODY_BYTES_MAX).await else {
        return Response::new(Body::new(Broken));
    };
    let path = head.uri.path().to_owned();
    let names = head.extensions.get::<PeerInfo>().map(|peer| peer.names.clone());
    let mut exchange = Exchange {
        method: head.method,
        path: path.clone(),
        headers: head.headers,
        names: names.unwrap_or_default(),
        body: body.clone(),
        ..Exchange::default()
    };
    let place = {
        let mut exchanges = link.exchanges.lock().unwrap();
        exchanges.push(exchange.clone());
        exchanges.len() - 1
    };
    let generation = link.generation.load(Ordering::SeqCst);
    let mut body = body.to_vec();
    let times = (link.script.lock().unwrap().request)(&path, &mut body);
    let mut reply = None;
    for _ in 0..times {
        reply = link.send(&exchange, body.clone()).await;
    }
    if exchange.is_lookup() {
        let _ = link.holds.subscribe().wait_for(|holds| !holds).await;
    }
    let is_over = generation != link.generation.load(Ordering::SeqCst);
    let Some(reply) = reply.filter(|_| !is_over) else {
        return Response::new(Body::new(Broken));
    };
    let mut reply_body = reply.body.to_vec();
    (link.script.lock().unwrap().reply)(&path, &mut reply_body);
    exchange.status = reply.status;
    exchange.reply = reply_body.into();
    exchange.reply_headers = reply.headers;
    let mut response = Response::builder().status(exchange.status);
    for (name, value) in &exchange.reply_headers {
        if name != "content-length" && name != "date" && name != "connection" {
            response = response.header(name, value);
        }
    }
    let response = response.body(Body::from(exchange.reply.clone())).unwrap();
    if let Some(kept) = link.exchanges.lock().unwrap().get_mut(place) {
        *kept = exchange;
    }
    response
}

impl Shared {
    async fn send(&self, exchange: &Exchange, body: Vec<u8>) -> Option<sotto::https::Response> {
        let own = ["host", "content-length", "connection"];
        let headers = exchange.headers.iter().filter(|(name, _)| !own.contains(&name.as_str()));
        let headers: Vec<(&str, &str)> =
            headers.map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        let port = self.to.lock().unwrap().port();
        let url = format!("https://localhost:{port}{}", exchange.path);
        let method = exchange.method.clone();
        let sent = self.client.send(method, &url, &headers, body.into(), BODY_BYTES_MAX);
        sent.await.ok()
    }
}
