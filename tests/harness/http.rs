//! Requests to the admin endpoints of a server.

use std::io::{Error, ErrorKind};
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A reply over HTTP.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) status: u16,
    /// In lower case.
    pub(crate) head: String,
    pub(crate) body: String,
}

/// Sends a request such as `GET /livez` with these further headers.
pub(crate) async fn request(
    address: SocketAddr,
    line: &str,
    host: &str,
    headers: &str,
) -> Result<Seen, Error> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("{line} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut reply = String::new();
    // To its end: every reply is its connection's last.
    stream.read_to_string(&mut reply).await?;
    let (head, body) = reply.split_once("\r\n\r\n").ok_or(ErrorKind::UnexpectedEof)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or(ErrorKind::InvalidData)?;
    Ok(Seen { status, head: head.to_ascii_lowercase(), body: body.to_owned() })
}
