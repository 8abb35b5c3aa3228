//! Requests to a server's endpoints for the operator: as much HTTP as they need.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longest reply that is taken.
const REPLY_BYTES_MAX: u64 = 4 << 20;

/// Where something is asked: host with port, and path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    authority: String,
    path: String,
}

/// The server's reply.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) body: String,
}

impl Endpoint {
    /// Of an address such as `http://127.0.0.1:9464/metrics`.
    ///
    /// # Errors
    /// It is no such address.
    pub fn parse(url: &str) -> Result<Self, String> {
        let parts = url.strip_prefix("http://").and_then(|rest| rest.split_once('/'));
        match parts {
            Some((host, path)) if is_plain(host) && is_plain(path) && host.contains(':') => {
                Ok(Self { authority: host.into(), path: format!("/{path}") })
            }
            _ => Err(format!(
                "found {url:?}, expected an address such as http://127.0.0.1:9464/metrics"
            )),
        }
    }

    pub(super) fn with_path(&self, path: &str) -> Self {
        Self { path: path.into(), ..self.clone() }
    }

    /// Asks with a method such as GET, and waits so long for the whole reply.
    pub(super) async fn ask(&self, method: &str, patience: Duration) -> io::Result<Reply> {
        tokio::time::timeout(patience, self.exchange(method)).await.unwrap_or_else(|_| {
            let waited = format!("no whole reply within {patience:?}");
            Err(io::Error::new(io::ErrorKind::TimedOut, waited))
        })
    }

    async fn exchange(&self, method: &str) -> io::Result<Reply> {
        let Self { authority, path } = self;
        // In version 1.0 a reply ends with its connection.
        let request =
            format!("{method} {path} HTTP/1.0\r\nHost: {authority}\r\nContent-Length: 0\r\n\r\n");
        let mut stream = TcpStream::connect(authority).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut bytes = Vec::new();
        stream.take(REPLY_BYTES_MAX).read_to_end(&mut bytes).await?;
        let no_http = || io::Error::new(io::ErrorKind::InvalidData, "what came back is no HTTP");
        Reply::read(&String::from_utf8_lossy(&bytes)).ok_or_else(no_http)
    }
}

/// Whether it may stand in a request's line.
fn is_plain(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_graphic())
}

impl Reply {
    fn read(text: &str) -> Option<Self> {
        let (head, body) = text.split_once("\r\n\r\n")?;
        let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
        Some(Self { status, body: body.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_replies_are_read() {
        let endpoint = Endpoint::parse("http://[::1]:9464/metrics").unwrap();
        assert_eq!((&*endpoint.authority, &*endpoint.path), ("[::1]:9464", "/metrics"));
        assert_eq!(endpoint.with_path("/readyz").path, "/readyz");
        for wrong in ["", "https://a:1/", "http://a:1", "http://a/", "http://a:1/ b", "a:1/m"] {
            assert!(Endpoint::parse(wrong).unwrap_err().contains("expected"), "{wrong}");
        }
        let reply = Reply::read("HTTP/1.1 503 Service Unavailable\r\na: b\r\n\r\nnot\r\n\r\nyet");
        assert_eq!(reply, Some(Reply { status: 503, body: "not\r\n\r\nyet".into() }));
        for wrong in ["", "HTTP/1.1 200 OK\r\n", "SSH-2.0 200 OK\r\n\r\n", "HTTP/1.1 x\r\n\r\n"] {
            assert_eq!(Reply::read(wrong), None, "{wrong}");
        }
    }
}
