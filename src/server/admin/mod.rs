//! The operator's endpoints over HTTP: probes, metrics, a page for people, reload and drain.
//!
//! They answer from before the database is opened until the process ends, and never with a record,
//! a query or a peer's address. Who reaches the address may use all of them, so it is a loopback
//! address unless the operator says otherwise; `gate.rs` refuses pages in browsers, and `http.rs`
//! bounds the connections.

mod gate;
mod http;
mod page;
mod state;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_SECURITY_POLICY, HeaderName, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn_with_state, map_response};
use axum::response::Response;
use axum::routing::{get, post};
use tokio::net::TcpListener;

pub use state::{AdminState, Reading, Reload, Stage};

use self::gate::{Gate, TEXT, reply};
use self::http::Endpoints;
use crate::limits;
use crate::metrics::CONTENT_TYPE;

/// Who may reach the endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // Names say it.
pub enum AdminCallers {
    Loopback,
    Anyone,
}

/// Why there are no endpoints.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // Names and messages say it.
pub enum AdminError {
    #[error(
        "the admin address {address} is not a loopback address: whoever reaches it may read \
         metrics and have the server leave; use 127.0.0.1, or say that they may (--admin-anyone)"
    )]
    NotLoopback { address: SocketAddr },
    #[error("cannot listen on the admin address {address} (TCP): {source}")]
    Listen { address: SocketAddr, source: std::io::Error },
}

/// Endpoints that listen. They answer once [`Admin::run`] runs.
pub struct Admin {
    listener: TcpListener,
    address: SocketAddr,
    admin_state: Arc<AdminState>,
    names: Vec<String>,
}

impl Admin {
    /// Listens; port 0 picks one. To be called within a tokio runtime.
    pub async fn bind(
        listen: SocketAddr,
        callers: AdminCallers,
        admin_state: Arc<AdminState>,
    ) -> Result<Self, AdminError> {
        if callers == AdminCallers::Loopback && !listen.ip().is_loopback() {
            return Err(AdminError::NotLoopback { address: listen });
        }
        let refused = |source| AdminError::Listen { address: listen, source };
        let listener = TcpListener::bind(listen).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        Ok(Self { listener, address, admin_state, names: Vec::new() })
    }

    /// Lets the endpoints be asked for under these host names too.
    pub fn named(mut self, names: Vec<String>) -> Self {
        self.names = names;
        self
    }

    /// Where they are.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Answers; does not end.
    pub async fn run(self) {
        let Self { listener, admin_state, names, .. } = self;
        let router = Router::new()
            .route("/livez", get(alive))
            .route("/readyz", get(ready))
            .route("/startupz", get(started))
            .route("/metrics", get(metrics))
            .route("/status", get(status))
            .route("/reload", post(reload))
            .route("/drain", post(drain))
            .layer(from_fn_with_state(Arc::new(Gate::new(names)), check))
            .layer(map_response(last))
            .with_state(admin_state.clone());
        let (head_time, connection_time) = (limits::ADMIN_HEAD_TIME, limits::ADMIN_CONNECTION_TIME);
        let open = admin_state.open.clone();
        Endpoints { router, open, head_time, connection_time }.run(listener).await;
    }
}

async fn check(State(gate): State<Arc<Gate>>, request: Request, next: Next) -> Response {
    match gate.refusal(&request) {
        Some(refusal) => refusal,
        None => next.run(request).await,
    }
}

/// No reply is kept, guessed at or part of another's page, and its connection ends with it.
async fn last(mut response: Response) -> Response {
    const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(RESOURCE_POLICY, HeaderValue::from_static("same-origin"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

fn when(is_so: bool) -> StatusCode {
    if is_so { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

async fn alive(State(admin_state): State<Arc<AdminState>>) -> Response {
    let is_alive = admin_state.is_alive();
    let body = if is_alive { "alive\n" } else { "every engine hangs in a call\n" };
    reply(when(is_alive), TEXT, body.into())
}

async fn ready(State(admin_state): State<Arc<AdminState>>) -> Response {
    let readiness = admin_state.readiness();
    let is_ready = readiness.missing.is_empty();
    let state = if is_ready { "ready" } else { "not ready" }.to_owned();
    let lines = [vec![state], readiness.missing, readiness.notes].concat();
    reply(when(is_ready), TEXT, lines.join("\n") + "\n")
}

async fn started(State(admin_state): State<Arc<AdminState>>) -> Response {
    match admin_state.starting() {
        None => reply(StatusCode::OK, TEXT, "started\n".into()),
        Some(progress) => reply(when(false), TEXT, format!("starting: {progress}\n")),
    }
}

async fn metrics(State(admin_state): State<Arc<AdminState>>) -> Response {
    match admin_state.metrics() {
        Some(text) => reply(StatusCode::OK, CONTENT_TYPE, text),
        None => started(State(admin_state)).await,
    }
}

async fn status(State(admin_state): State<Arc<AdminState>>) -> Response {
    let mut page = reply(StatusCode::OK, "text/html; charset=utf-8", page::render(&admin_state));
    let nothing_else = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'";
    page.headers_mut().insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(nothing_else));
    page
}

async fn reload(State(admin_state): State<Arc<AdminState>>) -> Response {
    let Some(reload) = admin_state.reload.get() else {
        let body = "nothing can be read again here\n";
        return reply(StatusCode::NOT_IMPLEMENTED, TEXT, body.into());
    };
    // To its end, whether or not anyone waits for it.
    let failed = "this is a bug: reading again panicked";
    let (status, body) = match tokio::spawn(reload()).await.unwrap_or_else(|_| Err(failed.into())) {
        Ok(done) => (StatusCode::OK, format!("{done}\n")),
        Err(error) => {
            (StatusCode::INTERNAL_SERVER_ERROR, format!("not all was read again: {error}\n"))
        }
    };
    reply(status, TEXT, body)
}

async fn drain(State(admin_state): State<Arc<AdminState>>) -> Response {
    admin_state.leave.send_replace(true);
    reply(StatusCode::ACCEPTED, TEXT, "leaving: what is in flight is finished first\n".into())
}
