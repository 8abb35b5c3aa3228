//! Few connections at once, none for long.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep};

use crate::limits;

/// A listener whose connections are [`Short`].
pub(super) struct ShortLived {
    listener: TcpListener,
    places: Arc<Semaphore>,
}

impl ShortLived {
    /// Each connection takes one of these places, and one is for the next.
    pub(super) fn new(listener: TcpListener, places: Arc<Semaphore>) -> Self {
        Self { listener, places }
    }
}

impl Listener for ShortLived {
    type Io = Short;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Short, SocketAddr) {
        let place = self.places.clone().acquire_owned().await;
        let place = place.expect("this is a bug: a semaphore that nobody closes is closed");
        // axum's own waits where the system has no more files.
        let (stream, address) = Listener::accept(&mut self.listener).await;
        let end = Box::pin(sleep(limits::ADMIN_CONNECTION_TIME));
        (Short { stream, end, _place: place }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that cannot be read from after its time.
pub(super) struct Short {
    stream: TcpStream,
    end: Pin<Box<Sleep>>,
    _place: OwnedSemaphorePermit,
}

impl Short {
    /// An error once its time is over; who polls is woken then.
    fn in_time(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.end.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Short {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.in_time(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Short {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.in_time(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::Waker;
    use std::time::Duration;

    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn one_more_connection_waits_for_a_place_and_none_stays_for_long() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut listener =
            ShortLived::new(listener, Arc::new(Semaphore::new(limits::ADMIN_CONNECTIONS_MAX)));
        let (mut peers, mut accepted) = (Vec::new(), Vec::new());
        for _ in 0..limits::ADMIN_CONNECTIONS_MAX {
            peers.push(TcpStream::connect(address).await.unwrap());
            accepted.push(listener.accept().await.0);
        }
        peers.push(TcpStream::connect(address).await.unwrap());
        {
            let mut one_more = pin!(listener.accept());
            let mut context = Context::from_waker(Waker::noop());
            assert!(one_more.as_mut().poll(&mut context).is_pending());
            accepted.pop();
            accepted.push(one_more.await.0);
        }
        // Its peer says nothing until its time is over.
        let last = accepted.last_mut().unwrap();
        last.end = Box::pin(sleep(Duration::ZERO));
        assert_eq!(last.read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
