//! Which HTTP requests are answered: none from a page in a browser.
//!
//! A page can have its own name lead to this machine (DNS rebinding). Its requests carry that name
//! as their host, so only hosts that cannot be another's are answered. A browser adds to every POST
//! where it comes from (`Origin`, `Sec-Fetch-Site`), and such a POST is refused.

use std::net::IpAddr;

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, HOST, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderName, Method, Request, StatusCode, Version};
use axum::response::{IntoResponse, Response};

pub(super) const TEXT: &str = "text/plain; charset=utf-8";
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

pub(super) fn reply(status: StatusCode, content: &'static str, body: String) -> Response {
    (status, [(CONTENT_TYPE, content)], body).into_response()
}

pub(super) fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The names under which the endpoints may be asked; IP addresses are no names.
pub(super) struct Gate {
    names: Vec<String>,
}

impl Gate {
    /// `localhost`, this machine's name, and these.
    pub(super) fn new(names: Vec<String>) -> Self {
        let known = ["localhost".to_owned(), host_name()];
        let all = known.into_iter().chain(names);
        Self { names: all.map(|name| plain(&name)).collect() }
    }

    /// What a request that is not to be answered gets.
    pub(super) fn refusal<B>(&self, request: &Request<B>) -> Option<Response<Body>> {
        let refuse = |status, body: String| Some(reply(status, TEXT, body));
        if let Err(found) = self.check_host(request) {
            let body = format!(
                "the host asked for is {found:?}, expected localhost, this machine's name or an IP \
                 address: let others be asked for by name (--admin-host)\n"
            );
            return refuse(StatusCode::MISDIRECTED_REQUEST, body);
        }
        let headers = request.headers();
        let from_page = headers.contains_key(ORIGIN)
            || headers.get_all(SEC_FETCH_SITE).iter().any(|site| site != "none");
        if request.method() != Method::GET && request.method() != Method::HEAD && from_page {
            let body = "a page in a browser may not do this: use `curl -X POST`\n";
            return refuse(StatusCode::FORBIDDEN, body.into());
        }
        None
    }

    /// The host of the request's line and that of its header; an error is what was found.
    fn check_host<B>(&self, request: &Request<B>) -> Result<(), String> {
        if let Some(authority) = request.uri().authority() {
            self.check(authority.as_str())?;
        }
        let mut hosts = request.headers().get_all(HOST).iter();
        match (hosts.next(), hosts.next()) {
            // Those who speak 1.0 may leave it out; no browser does.
            (None, _) if request.version() == Version::HTTP_10 => Ok(()),
            (None, _) => Err(String::new()),
            (Some(host), None) => match host.to_str() {
                Ok(host) => self.check(host),
                Err(_) => Err("not text".into()),
            },
            (Some(_), Some(_)) => Err("two of them".into()),
        }
    }

    fn check(&self, host: &str) -> Result<(), String> {
        let found = || host.to_owned();
        let authority: Authority = host.parse().map_err(|_| found())?;
        let name = authority.host();
        let inner = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
        let is_address = inner.unwrap_or(name).parse::<IpAddr>().is_ok();
        let is_known = is_address || self.names.contains(&plain(name));
        if is_known && !host.contains('@') { Ok(()) } else { Err(found()) }
    }
}

fn plain(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(request: axum::http::request::Builder) -> Option<u16> {
        let gate = Gate::new(vec!["Metrics.Example".into()]);
        gate.refusal(&request.body(()).unwrap()).map(|refusal| refusal.status().as_u16())
    }

    #[test]
    fn hosts_are_addresses_and_known_names() {
        let of = |host: &str| status(Request::get("/metrics").header(HOST, host));
        let own = host_name();
        let known = "localhost LOCALHOST:9464 127.0.0.1:9464 10.1.2.3 [::1]:9464 [fe80::1] \
                     metrics.example.:9464";
        for host in known.split(' ').chain([&*own]) {
            assert_eq!(of(host), None, "{host}");
        }
        let others = "evil.example evil.example:9464 localhost.evil.example example [::1 0x7f.1 \
                      127.0.0.1.evil.example evil@127.0.0.1 2130706433";
        for host in others.split(' ').chain(["", "a b"]) {
            assert_eq!(of(host), Some(421), "{host}");
        }
        assert_eq!(status(Request::get("/")), Some(421));
        assert_eq!(status(Request::get("/").version(Version::HTTP_10)), None);
        let both = Request::get("/").header(HOST, "localhost").header(HOST, "evil.example");
        assert_eq!(status(both), Some(421));
        let absolute = Request::get("http://evil.example/metrics").header(HOST, "localhost");
        assert_eq!(status(absolute), Some(421));
    }

    #[test]
    fn pages_post_nothing() {
        let post = || Request::post("/reload").header(HOST, "localhost");
        assert_eq!(status(post()), None);
        for site in ["cross-site", "same-site", "same-origin", "CROSS-SITE", "other"] {
            assert_eq!(status(post().header(SEC_FETCH_SITE, site)), Some(403), "{site}");
            let get = Request::get("/status").header(HOST, "localhost");
            assert_eq!(status(get.header(SEC_FETCH_SITE, site)), None, "{site}");
        }
        assert_eq!(status(post().header(SEC_FETCH_SITE, "none")), None);
        let both = post().header(SEC_FETCH_SITE, "none").header(SEC_FETCH_SITE, "cross-site");
        assert_eq!(status(both), Some(403));
        for origin in ["null", "http://127.0.0.1:9464", "https://evil.example"] {
            assert_eq!(status(post().header(ORIGIN, origin)), Some(403), "{origin}");
        }
    }
}
