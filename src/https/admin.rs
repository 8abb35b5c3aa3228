//! Endpoints for the operator over plain HTTP: `/livez`, `/readyz` and `/metrics`.
//!
//! They tell numbers and conditions, never an account, a token or an address. Nothing can be
//! changed through them. They are on a loopback address unless the operator says otherwise, and
//! are not answered under a host name that may be somebody else's: a page in a browser could have
//! its own name lead to this machine.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HOST};
use axum::http::uri::Authority;
use axum::http::{StatusCode, Version};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::serve::Listener;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use prometheus::TextEncoder;
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::counters::Sample;
use crate::limits;

const TEXT: &str = "text/plain; charset=utf-8";

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
         metrics; use 127.0.0.1, or say that they may (--admin-anyone)"
    )]
    NotLoopback { address: SocketAddr },
    #[error("cannot listen on the admin address {address} (TCP): {source}")]
    Listen { address: SocketAddr, source: std::io::Error },
}

/// Whether requests are to be sent here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Readiness {
    /// Why they are not; empty where they are.
    pub missing: Vec<String>,
    /// What an operator should know besides.
    pub notes: Vec<String>,
}

/// What the endpoints show.
pub struct Shown {
    /// Asked for `/readyz`.
    pub readiness: Box<dyn Fn() -> Readiness + Send + Sync>,
    /// Asked for `/metrics`.
    pub samples: Box<dyn Fn() -> Vec<Sample> + Send + Sync>,
}

/// Endpoints that listen. They answer once [`Admin::run`] runs.
pub struct Admin {
    listener: TcpListener,
    address: SocketAddr,
    started: SystemTime,
}

impl Admin {
    /// Listens; port 0 picks one. To be called within a tokio runtime.
    ///
    /// # Errors
    /// The address is taken, or others reach it who may not.
    pub async fn bind(listen: SocketAddr, callers: AdminCallers) -> Result<Self, AdminError> {
        if callers == AdminCallers::Loopback && !listen.ip().is_loopback() {
            return Err(AdminError::NotLoopback { address: listen });
        }
        let refused = |source| AdminError::Listen { address: listen, source };
        let listener = TcpListener::bind(listen).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        Ok(Self { listener, address, started: SystemTime::now() })
    }

    /// Where they are.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Answers; does not end. One connection too many ends the oldest.
    pub async fn run(self, shown: Shown) {
        let Self { mut listener, started, .. } = self;
        let router = Router::new()
            .route("/livez", get(|| async { reply(StatusCode::OK, "alive\n".into()) }))
            .route("/readyz", get(ready))
            .route("/metrics", get(metrics))
            .layer(from_fn(check))
            .with_state(Arc::new(Endpoints { shown, started }));
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
            connections.push_back(tokio::spawn(serve(stream, router.clone())));
        }
    }
}

/// What requests are answered from.
struct Endpoints {
    shown: Shown,
    started: SystemTime,
}

async fn serve(stream: TcpStream, router: Router) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(limits::ADMIN_HEAD_TIME).keep_alive(false);
    http.max_buf_size(limits::ADMIN_HEAD_BYTES_MAX);
    let served = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    // What went wrong is the peer's doing.
    let _ = timeout(limits::ADMIN_CONNECTION_TIME, served).await;
}

fn reply(status: StatusCode, body: String) -> Response {
    (status, [(CONTENT_TYPE, TEXT), (CACHE_CONTROL, "no-store")], body).into_response()
}

async fn check(request: Request, next: Next) -> Response {
    if is_own_host(&request) {
        return next.run(request).await;
    }
    let body = "ask for localhost or an IP address: another name may lead here from a web page\n";
    reply(StatusCode::MISDIRECTED_REQUEST, body.to_owned())
}

fn is_own_host(request: &Request) -> bool {
    let mut hosts = request.headers().get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        // Those who speak 1.0 may leave it out; no browser does.
        (None, _) => return request.version() == Version::HTTP_10,
        (Some(host), None) => host.to_str().unwrap_or_default(),
        (Some(_), Some(_)) => return false,
    };
    let hosts = [Some(host), request.uri().authority().map(Authority::as_str)];
    hosts.into_iter().flatten().all(|host| {
        let authority = host.parse::<Authority>().ok().filter(|_| !host.contains('@'));
        authority.is_some_and(|authority| {
            let name = authority.host().trim_start_matches('[').trim_end_matches(']');
            name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
        })
    })
}

async fn ready(State(endpoints): State<Arc<Endpoints>>) -> Response {
    let Readiness { missing, notes } = (endpoints.shown.readiness)();
    let (status, state) = match missing.is_empty() {
        true => (StatusCode::OK, "ready"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "not ready"),
    };
    let lines = [vec![state.to_owned()], missing, notes].concat();
    reply(status, lines.join("\n") + "\n")
}

async fn metrics(State(endpoints): State<Arc<Endpoints>>) -> Response {
    let Endpoints { shown, started } = &*endpoints;
    let gauge = |name, help, value| Sample { name, help, labels: Vec::new(), value };
    let mut samples = (shown.samples)();
    let started = started.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let help = "When the program was started, seconds since 1970.";
    samples.push(gauge("start_time_seconds", help, started));
    let is_ready = f64::from((shown.readiness)().missing.is_empty());
    samples.push(gauge("ready", "Whether requests should be sent here.", is_ready));
    let mut response = reply(StatusCode::OK, text(samples));
    let content_type = axum::http::HeaderValue::from_static(prometheus::TEXT_FORMAT);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

/// Samples as Prometheus reads them, by name. What ends in `_total` is a counter.
fn text(samples: Vec<Sample>) -> String {
    let mut families: Vec<MetricFamily> = Vec::new();
    for sample in samples {
        let name = format!("sotto_{}", sample.name);
        let is_counter = name.ends_with("_total");
        let at = families.iter().position(|family| family.name() == name);
        let at = at.unwrap_or_else(|| {
            let mut family = MetricFamily::default();
            family.set_name(name);
            family.set_help(sample.help.to_owned());
            let kind = if is_counter { MetricType::COUNTER } else { MetricType::GAUGE };
            family.set_field_type(kind);
            families.push(family);
            families.len() - 1
        });
        families[at].mut_metric().push(metric(&sample, is_counter));
    }
    families.sort_by(|a, b| a.name().cmp(b.name()));
    let text = TextEncoder::new().encode_to_string(&families);
    text.expect("this is a bug: a metric that cannot be written down")
}

fn metric(sample: &Sample, is_counter: bool) -> Metric {
    let labels = sample.labels.iter().map(|(name, value)| {
        let mut label = LabelPair::default();
        label.set_name((*name).to_owned());
        label.set_value(value.clone());
        label
    });
    let mut metric = Metric::from_label(labels.collect());
    if is_counter {
        let mut counter = Counter::default();
        counter.set_value(sample.value);
        metric.set_counter(counter);
    } else {
        let mut gauge = Gauge::default();
        gauge.set_value(sample.value);
        metric.set_gauge(gauge);
    }
    metric
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn ask(address: SocketAddr, path: &str, host: &str) -> String {
        let mut peer = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        peer.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        peer.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn the_operator_sees_numbers_and_conditions() {
        let any = "0.0.0.0:0".parse().unwrap();
        let refused = Admin::bind(any, AdminCallers::Loopback).await.err().unwrap();
        assert!(matches!(refused, AdminError::NotLoopback { .. }), "{refused}");
        let local = "127.0.0.1:0".parse().unwrap();
        let admin = Admin::bind(local, AdminCallers::Loopback).await.unwrap();
        let address = admin.local_addr();
        let sample = |kind: &str, value| Sample {
            name: "relay_requests_total",
            help: "Requests.",
            labels: vec![("kind", kind.to_owned())],
            value,
        };
        let missing = vec!["the front-end is away".to_owned()];
        let readiness =
            move || Readiness { missing: missing.clone(), notes: vec!["a note".to_owned()] };
        let gauge = Sample { name: "relay_accounts", help: "Now.", labels: vec![], value: 7.0 };
        let samples = move || vec![sample("lookup", 3.0), gauge.clone(), sample("evaluate", 1.0)];
        let shown = Shown { readiness: Box::new(readiness), samples: Box::new(samples) };
        tokio::spawn(admin.run(shown));

        assert!(ask(address, "/livez", "localhost").await.starts_with("HTTP/1.1 200"));
        let ready = ask(address, "/readyz", "127.0.0.1:1").await;
        assert!(ready.starts_with("HTTP/1.1 503"), "{ready}");
        assert!(ready.ends_with("not ready\nthe front-end is away\na note\n"), "{ready}");
        let metrics = ask(address, "/metrics", "[::1]").await;
        assert!(metrics.contains("# TYPE sotto_relay_accounts gauge\nsotto_relay_accounts 7\n"));
        assert!(metrics.contains("# TYPE sotto_relay_requests_total counter\n"), "{metrics}");
        assert!(metrics.contains("sotto_relay_requests_total{kind=\"lookup\"} 3\n"), "{metrics}");
        assert!(metrics.contains("\nsotto_ready 0\n"), "{metrics}");
        assert!(metrics.contains("\nsotto_start_time_seconds 1"), "{metrics}");
        for host in ["evil.example", "localhost.evil.example", "", "a@127.0.0.1"] {
            let refused = ask(address, "/metrics", host).await;
            assert!(refused.starts_with("HTTP/1.1 421"), "{host}: {refused}");
        }
    }
}
