//! HTTP connections to the endpoints: a bounded number, none for long.
//!
//! One connection too many ends the oldest. So neither silent connections nor slow requests keep
//! away the probe that decides whether this server is restarted.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::serve::Listener;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::RwLock;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::limits;

#[derive(Clone)]
pub(super) struct Endpoints {
    pub(super) router: Router,
    /// Every connection holds it for reading.
    pub(super) open: Arc<RwLock<()>>,
    /// How long the head of a request may take, and all of a connection.
    pub(super) head_time: Duration,
    pub(super) connection_time: Duration,
}

impl Endpoints {
    /// Serves whoever connects; does not end.
    pub(super) async fn run(self, mut listener: TcpListener) {
        // The oldest first.
        let mut connections: VecDeque<JoinHandle<()>> = VecDeque::new();
        loop {
            // axum's own waits where the system has no more files.
            let (stream, _) = Listener::accept(&mut listener).await;
            connections.retain(|connection| !connection.is_finished());
            if connections.len() >= limits::ADMIN_CONNECTIONS_MAX
                && let Some(oldest) = connections.pop_front()
            {
                oldest.abort();
            }
            connections.push_back(tokio::spawn(self.clone().serve(stream)));
        }
    }

    async fn serve(self, stream: TcpStream) {
        let _open = self.open.read().await;
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(self.head_time).keep_alive(false);
        http.max_buf_size(limits::ADMIN_HEAD_BYTES_MAX);
        let router = TowerToHyperService::new(self.router);
        let served = http.serve_connection(TokioIo::new(stream), router);
        // What went wrong is the peer's doing.
        let _ = timeout(self.connection_time, served).await;
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const LONG: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(50);

    /// Endpoints of which `/slow` never answers.
    async fn start(head_time: Duration, connection_time: Duration) -> (SocketAddr, Endpoints) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let slow = || std::future::pending::<()>();
        let router = Router::new().route("/livez", get(|| async {})).route("/slow", get(slow));
        let endpoints = Endpoints { router, open: Arc::default(), head_time, connection_time };
        tokio::spawn(endpoints.clone().run(listener));
        (address, endpoints)
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

    #[tokio::test]
    async fn one_connection_too_many_ends_the_oldest() {
        let (address, _) = start(LONG, LONG).await;
        let oldest = [send(address, "GET /livez HTTP/1.1\r\n").await, ask(address, "/slow").await];
        let mut others = Vec::new();
        for _ in 0..limits::ADMIN_CONNECTIONS_MAX / 2 {
            others.extend([send(address, "G").await, ask(address, "/slow").await]);
        }
        for peer in oldest {
            assert_eq!(read(peer).await, "");
        }
        assert!(read(ask(address, "/livez").await).await.starts_with("HTTP/1.1 200"));
    }

    #[tokio::test]
    async fn nobody_stays_for_longer_than_he_may() {
        let (address, endpoints) = start(SHORT, LONG).await;
        for begin in ["", "GET /livez HTTP/1.1\r\n"] {
            assert!(!read(send(address, begin).await).await.contains(" 200 "));
        }
        drop(timeout(LONG, endpoints.open.write()).await.unwrap());
        let (address, endpoints) = start(LONG, SHORT).await;
        assert_eq!(read(ask(address, "/slow").await).await, "");
        drop(timeout(LONG, endpoints.open.write()).await.unwrap());
    }
}
