//! Connections to the endpoints: there are few, and none lasts long.
//!
//! A connection is silent until its request is here, and has ten seconds for it. One silent
//! connection too many displaces the oldest. The number of requests is bounded too, except for
//! probes: other requests must not keep away the probe that decides whether this server is
//! restarted.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::serve::Listener;
use axum::{Router, body::Body, response::Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::sleep;

use super::gate::{Gate, TEXT, reply};
use crate::limits;
use crate::server::places::{Unfinished, UnfinishedPlace};

const PROBES: [&str; 3] = ["/livez", "/readyz", "/startupz"];

pub(super) struct Seats {
    /// Those whose request is not here yet.
    silent: Arc<Unfinished<()>>,
    /// Free places for requests that are no probes.
    places: Arc<Semaphore>,
}

impl Default for Seats {
    fn default() -> Self {
        Self {
            silent: Unfinished::new(limits::ADMIN_SILENT_MAX, limits::ADMIN_SILENT_MAX),
            places: Arc::new(Semaphore::new(limits::ADMIN_REQUESTS_MAX)),
        }
    }
}

impl Seats {
    /// A seat for one more connection, and what is ready when it was displaced.
    fn take(self: &Arc<Self>) -> (Seat, oneshot::Receiver<()>) {
        let (place, displaced) = self.silent.enter(());
        let held = Mutex::new(Held::Silent(place));
        (Seat { places: self.places.clone(), held }, displaced)
    }

    /// Ready when no request is being answered that is no probe.
    pub(super) async fn quiet(&self) {
        let _ = self.places.acquire_many(limits::ADMIN_REQUESTS_MAX as u32).await;
    }
}

struct Seat {
    places: Arc<Semaphore>,
    held: Mutex<Held>,
}

/// What a connection takes until it ends.
enum Held {
    Silent(#[expect(dead_code)] UnfinishedPlace<()>),
    /// Nothing for a probe, or where there was no place.
    Asked(#[expect(dead_code)] Option<OwnedSemaphorePermit>),
}

impl Seat {
    /// Its request is here; whether there is room to answer it.
    fn ask(&self, path: &str) -> bool {
        let is_probe = PROBES.contains(&path);
        let place = self.places.clone().try_acquire_owned().ok().filter(|_| !is_probe);
        let is_room = is_probe || place.is_some();
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = Held::Asked(place);
        is_room
    }
}

#[derive(Clone)]
pub(super) struct Endpoints {
    pub(super) router: Router,
    pub(super) gate: Arc<Gate>,
    pub(super) seats: Arc<Seats>,
    /// How long the head of a request may take, and all of a connection.
    pub(super) head_time: Duration,
    pub(super) connection_time: Duration,
}

impl Endpoints {
    /// Serves whoever connects; does not end.
    pub(super) async fn run(self, mut listener: TcpListener) {
        loop {
            // axum's own waits where the system has no more files.
            let (stream, _) = Listener::accept(&mut listener).await;
            let (seat, told_to_go) = self.seats.take();
            tokio::spawn(self.clone().serve(stream, seat, told_to_go));
        }
    }

    async fn serve(self, stream: TcpStream, seat: Seat, told_to_go: oneshot::Receiver<()>) {
        let Self { router, gate, head_time, connection_time, .. } = self;
        let router = TowerToHyperService::new(router);
        let service = service_fn(move |request: Request<Incoming>| {
            let refusal = match seat.ask(request.uri().path()) {
                true => gate.refusal(&request),
                false => Some(no_room()),
            };
            let answered = refusal.is_none().then(|| router.call(request));
            async move {
                match (refusal, answered) {
                    (None, Some(answered)) => answered.await,
                    (refusal, _) => Ok(refusal.unwrap_or_else(no_room)),
                }
            }
        });
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(head_time).keep_alive(false);
        http.max_buf_size(limits::ADMIN_HEAD_BYTES_MAX);
        let served = http.serve_connection(TokioIo::new(stream), service);
        tokio::select! {
            // What went wrong is the peer's doing.
            _ = served => {}
            Ok(()) = told_to_go => {}
            () = sleep(connection_time) => {}
        }
    }
}

fn no_room() -> Response<Body> {
    let body = format!("{} requests are being answered, ask again\n", limits::ADMIN_REQUESTS_MAX);
    reply(StatusCode::SERVICE_UNAVAILABLE, TEXT, body)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Instant;

    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::sync::watch;
    use tokio::time::timeout;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    /// Endpoints of which all but probes answer once they are released.
    async fn start(
        head_time: Duration,
        connection_time: Duration,
    ) -> (SocketAddr, Arc<Seats>, watch::Sender<bool>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, seats) = (listener.local_addr().unwrap(), Arc::new(Seats::default()));
        let go_on = watch::Sender::new(false);
        let released = go_on.clone();
        let slow =
            move || async move { drop(released.subscribe().wait_for(|&released| released).await) };
        let router = Router::new().route("/livez", get(|| async {})).route("/slow", get(slow));
        let gate = Arc::new(Gate::new(Vec::new()));
        let endpoints =
            Endpoints { router, gate, seats: seats.clone(), head_time, connection_time };
        tokio::spawn(endpoints.run(listener));
        (address, seats, go_on)
    }

    async fn send(address: SocketAddr, bytes: &str) -> TcpStream {
        let mut peer = TcpStream::connect(address).await.unwrap();
        peer.write_all(bytes.as_bytes()).await.unwrap();
        peer
    }

    /// All that comes back; nothing from a connection that is reset.
    async fn read(mut peer: TcpStream) -> String {
        let mut text = String::new();
        let _ = timeout(LONG, peer.read_to_string(&mut text)).await.expect("it is not closed");
        text
    }

    async fn ask(address: SocketAddr, path: &str) -> TcpStream {
        send(address, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await
    }

    async fn until(what: &str, is_so: impl Fn() -> bool) {
        let begun = Instant::now();
        while !is_so() {
            assert!(begun.elapsed() < LONG, "{what}");
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn the_oldest_who_says_nothing_makes_room() {
        let (address, seats, _) = start(LONG, LONG).await;
        let oldest = send(address, "GET /livez HTTP/1.1\r\n").await;
        until("it has a seat", || seats.silent.count() == 1).await;
        let mut others = Vec::new();
        for _ in 0..limits::ADMIN_SILENT_MAX {
            others.push(send(address, "G").await);
        }
        assert_eq!(read(oldest).await, "");
        assert!(read(ask(address, "/livez").await).await.starts_with("HTTP/1.1 200"));
    }

    #[tokio::test]
    async fn a_head_that_does_not_come_is_not_waited_for() {
        let (address, seats, _) = start(Duration::from_millis(50), LONG).await;
        let peers = [send(address, "").await, send(address, "GET /livez HTTP/1.1\r\n").await];
        for peer in peers {
            assert!(!read(peer).await.contains(" 200 "));
        }
        until("their seats are free", || seats.silent.count() == 0).await;
    }

    #[tokio::test]
    async fn requests_are_bounded_and_probes_are_not_among_them() {
        let (address, seats, go_on) = start(LONG, LONG).await;
        let mut slow = Vec::new();
        for _ in 0..limits::ADMIN_REQUESTS_MAX {
            slow.push(ask(address, "/slow").await);
        }
        until("all are asked", || seats.places.available_permits() == 0).await;
        assert!(read(ask(address, "/slow").await).await.starts_with("HTTP/1.1 503"));
        assert!(read(ask(address, "/livez").await).await.starts_with("HTTP/1.1 200"));
        go_on.send_replace(true);
        for peer in slow {
            assert!(read(peer).await.starts_with("HTTP/1.1 200"));
        }
        timeout(LONG, seats.quiet()).await.unwrap();
        assert!(read(ask(address, "/slow").await).await.starts_with("HTTP/1.1 200"));
        // None stays for longer than it may.
        let (address, seats, _go_on) = start(LONG, Duration::from_millis(50)).await;
        assert_eq!(read(ask(address, "/slow").await).await, "");
        timeout(LONG, seats.quiet()).await.unwrap();
    }
}
