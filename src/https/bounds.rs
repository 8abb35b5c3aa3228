//! How many connections a server has, and how long it waits for their peers.

use std::time::Duration;

/// How many connections a server has, and how long it waits for their peers.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Connections after their handshake. One more ends one whose peer the server waits for: an
    /// idle one before one that sends or receives, and of these the one that has kept the server
    /// waiting longest. Where the server itself is what all of them wait for, the new one is
    /// closed.
    pub connections: usize,
    /// Handshakes at once. One more ends the oldest.
    pub handshakes: usize,
    /// How long a handshake may take.
    pub handshake_time: Duration,
    /// How long the head of a request may take, from its first byte on.
    pub head_time: Duration,
    /// How long a connection may be open without a request.
    pub idle_time: Duration,
    /// How long the body of a request may take to arrive, and a reply to be taken.
    pub body_time: Duration,
}
