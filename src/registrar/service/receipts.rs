//! Where gateways report what became of messages: plain HTTP, for a gateway on the same machine or
//! in the same network, or behind a web server that speaks TLS.
//!
//! A receipt names a message by a random token that only its gateway knows; it carries no number,
//! and whoever guesses gets nothing but 404.

use std::collections::VecDeque;
use std::net::SocketAddr;

use crate::https::body;
use crate::limits;
use crate::registrar::channels::{Channels, ReceiptError};
use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::serve::Listener;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::registrar::service::errors::RegistrarError;

/// The longest form that is read.
const FORM_BYTES_MAX: usize = 4 << 10;
/// Connections at once; one more ends the oldest.
const CONNECTIONS_MAX: usize = 256;

/// A listener for receipts. It answers once [`Receipts::run`] runs.
pub(crate) struct Receipts {
    listener: TcpListener,
    address: SocketAddr,
}

impl Receipts {
    /// Listens; port 0 selects a free one.
    pub(crate) async fn bind(address: SocketAddr) -> Result<Self, RegistrarError> {
        let refused = |error| RegistrarError::Receipts(format!("{address} (TCP): {error}"));
        let listener = TcpListener::bind(address).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        Ok(Self { listener, address })
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Answers; does not end.
    pub(crate) async fn run(self, channels: Channels) {
        let mut listener = self.listener;
        let router =
            Router::new().route("/receipts", get(receipt).post(receipt)).with_state(channels);
        let mut connections: VecDeque<JoinHandle<()>> = VecDeque::new();
        loop {
            // axum's own waits where the system has no more files.
            let (stream, _) = Listener::accept(&mut listener).await;
            connections.retain(|connection| !connection.is_finished());
            if connections.len() >= CONNECTIONS_MAX
                && let Some(oldest) = connections.pop_front()
            {
                oldest.abort();
            }
            connections.push_back(tokio::spawn(serve(stream, router.clone())));
        }
    }
}

async fn serve(stream: TcpStream, router: Router) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(limits::ADMIN_HEAD_TIME).keep_alive(false);
    http.max_buf_size(limits::ADMIN_HEAD_BYTES_MAX);
    let served = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    // What went wrong is the peer's doing.
    let _ = timeout(limits::ADMIN_CONNECTION_TIME, served).await;
}

/// `token` and `status` in the query or in a form.
async fn receipt(State(channels): State<Channels>, request: Request) -> Response {
    let (head, sent) = request.into_parts();
    let form = match head.uri.query() {
        Some(query) => query.to_owned(),
        None => match body(sent, FORM_BYTES_MAX).await {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) => return (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
        },
    };
    match channels.receipt(&form) {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error @ ReceiptError::Unknown) => {
            (StatusCode::NOT_FOUND, error.to_string()).into_response()
        }
        Err(error) => (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
    }
}
