//! The server's UDP socket, with as much room as the system allows.
//!
//! What arrives once it is full is dropped, and costs its peer a round trip or more. The system's
//! default, some 200 KiB, is full after two milliseconds at 1 Gbit/s.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use rustix::net::sockopt::{
    set_socket_recv_buffer_size, set_socket_send_buffer_size, socket_recv_buffer_size,
    socket_send_buffer_size,
};

use crate::limits::SOCKET_BYTES;

/// What the system keeps of a socket, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketRoom {
    /// Of what arrived and was not read.
    pub receive: usize,
    /// Of what was written and not sent.
    pub send: usize,
}

/// Linux keeps its own books in the same room, and shows twice what it was asked for.
#[cfg(target_os = "linux")]
const SHOWN_FOR_ASKED: usize = 2;
#[cfg(not(target_os = "linux"))]
const SHOWN_FOR_ASKED: usize = 1;

/// Binds a socket, asks for [`SOCKET_BYTES`] each way, and says how much there is.
///
/// # Errors
/// The address cannot be bound. Less room than asked for is no error.
pub fn udp_socket(address: SocketAddr) -> io::Result<(UdpSocket, SocketRoom)> {
    let socket = UdpSocket::bind(address)?;
    // More than the system's bound gives the bound; other refusals leave what there was.
    let _ = set_socket_recv_buffer_size(&socket, SOCKET_BYTES);
    let _ = set_socket_send_buffer_size(&socket, SOCKET_BYTES);
    let room = SocketRoom {
        receive: socket_recv_buffer_size(&socket)? / SHOWN_FOR_ASKED,
        send: socket_send_buffer_size(&socket)? / SHOWN_FOR_ASKED,
    };
    Ok((socket, room))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_has_the_room_it_says_and_no_more_than_asked() {
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let (socket, room) = udp_socket(loopback).unwrap();
        for bytes in [room.receive, room.send] {
            assert!((1 << 10..=SOCKET_BYTES).contains(&bytes), "{room:?}");
        }
        let taken = udp_socket(socket.local_addr().unwrap()).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
    }
}
