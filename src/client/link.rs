//! A connection to one replica: which key bundles went over it, and whether its server is there
//! (docs/wire.md, "Hedging and lost servers").
//!
//! A server that dies says nothing, so a link counts what comes: a client that hears nothing asks
//! after [`limits::KEEP_ALIVE_INTERVAL`] whether the server is there, and a link over which nothing
//! came for [`limits::SILENCE_MAX`] (and two round trips) is closed. Every stream on it then ends
//! at once, and the identical bytes go to the next replica. Silence is counted in looks at what
//! came, so a client that did not run for a while does not take its own pause for the server's.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quinn::{Connection, ConnectionError, VarInt};
use tokio::sync::OnceCell;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval};

use super::call::Attempt;
use super::exchange::{bundle_reply, parameter_request};
use super::net::{Exchange, ask};
use super::retry::{Action, RequestKind, action};
use crate::limits;
use crate::params::Shape;
use crate::wire::message::{Request, RequestBody};
use crate::wire::{Bytes, StreamCode, encode_frame};

/// How often within a keep-alive interval a link looks at what came.
const LOOKS: u32 = 4;

/// A bundle's name and its bytes.
pub(super) type Bundle = (String, Arc<[u8]>);

/// Bytes and bundles that went over a link.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Traffic {
    pub(super) bytes_up: u64,
    pub(super) bytes_down: u64,
    pub(super) bundles: u32,
    pub(super) bundle_bytes: u64,
}

impl Traffic {
    pub(super) fn bundle(exchange: &Exchange) -> Self {
        Self {
            bytes_up: exchange.bytes_up,
            bytes_down: exchange.bytes_down,
            bundles: 1,
            bundle_bytes: exchange.bytes_up,
        }
    }
}

impl std::ops::AddAssign for Traffic {
    fn add_assign(&mut self, other: Self) {
        self.bytes_up += other.bytes_up;
        self.bytes_down += other.bytes_down;
        self.bundles += other.bundles;
        self.bundle_bytes += other.bundle_bytes;
    }
}

/// A connection to one replica.
pub(super) struct Link {
    pub(super) connection: Connection,
    /// Which replica of the client's list.
    pub(super) replica: usize,
    /// The bundles that the server has, and those on their way to it.
    bundles: Mutex<HashMap<String, Arc<OnceCell<()>>>>,
    watch: AbortHandle,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.watch.abort(); // it has a handle of the connection, which would stay open
    }
}

impl Link {
    pub(super) fn new(connection: Connection, replica: usize) -> Self {
        let watch = tokio::spawn(watch(connection.clone())).abort_handle();
        Self { connection, replica, bundles: Mutex::default(), watch }
    }

    /// Whether the connection is there, as far as anybody knows.
    pub(super) fn is_open(&self) -> bool {
        self.connection.close_reason().is_none()
    }

    /// Whether it was closed because nothing came.
    pub(super) fn fell_silent(&self) -> bool {
        self.connection.close_reason() == Some(ConnectionError::LocallyClosed)
    }

    /// Says good-bye: every stream on it ends.
    pub(super) fn close(&self) {
        self.connection.close(VarInt::from_u32(StreamCode::None.code()), b"");
    }

    fn bundles(&self) -> MutexGuard<'_, HashMap<String, Arc<OnceCell<()>>>> {
        self.bundles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the server has said that it keeps this bundle.
    pub(super) fn has(&self, uid: &str) -> bool {
        self.bundles().get(uid).is_some_and(|known| known.initialized())
    }

    /// The server says that it keeps it.
    pub(super) fn keeps(&self, uid: &str) {
        let _ = self.entry(uid).set(()); // set already where a hedge brought it meanwhile
    }

    /// The server says that it does not have it.
    pub(super) fn forget(&self, uid: &str) {
        self.bundles().remove(uid);
    }

    fn entry(&self, uid: &str) -> Arc<OnceCell<()>> {
        let mut bundles = self.bundles();
        // Bundles of calls that are over are never asked for again.
        if bundles.len() >= limits::BUNDLES_REMEMBERED_MAX {
            bundles.clear();
        }
        bundles.entry(uid.to_owned()).or_default().clone()
    }

    /// Sees to it that the server has a bundle. Its bytes go out once over a link however many
    /// wait for it, unless the server forgets it: then the identical bytes again.
    pub(super) async fn bring(
        &self,
        uid: &str,
        frame: impl FnOnce() -> Bytes,
        shape: Shape,
        wait: Duration,
    ) -> (Result<(), Attempt>, Traffic) {
        let mut traffic = Traffic::default();
        let brought = self.entry(uid);
        let kept = brought.get_or_try_init(|| async {
            let exchange = ask(&self.connection, frame(), Some(shape), 1, wait).await;
            traffic = Traffic::bundle(&exchange);
            let attempt = bundle_reply(exchange);
            match action(RequestKind::Parameters, attempt.event, 1, 1) {
                Action::Keep => Ok(()),
                _ => Err(attempt),
            }
        });
        let kept = kept.await.map(|_| ());
        (kept, traffic)
    }

    /// [`Link::bring`] for several at once; the first that fails ends it.
    pub(super) async fn bring_all(
        self: &Arc<Self>,
        bundles: Vec<Bundle>,
        shape: Shape,
        wait: Duration,
    ) -> (Result<(), Attempt>, Traffic) {
        let mut bringing = JoinSet::new();
        for (uid, bytes) in bundles {
            if !self.has(&uid) {
                let link = self.clone();
                let frame = bundle_frame(&uid, bytes);
                bringing.spawn(async move { link.bring(&uid, || frame, shape, wait).await });
            }
        }
        let mut all = Traffic::default();
        while let Some(brought) = bringing.join_next().await {
            let (kept, traffic) = brought.expect("this is a bug: sending a bundle panicked");
            all += traffic;
            if kept.is_err() {
                return (kept, all);
            }
        }
        (Ok(()), all)
    }
}

/// The frame that asks a server to keep a bundle.
pub(super) fn bundle_frame(uid: &str, bytes: Arc<[u8]>) -> Bytes {
    let body = RequestBody::Parameters(parameter_request(Some((uid, bytes))));
    encode_frame(&Request::from(body)).into()
}

/// Closes a connection over which nothing comes any more.
async fn watch(connection: Connection) {
    let pause = limits::KEEP_ALIVE_INTERVAL / LOOKS;
    let mut looks = interval(pause);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut heard, mut silent) = (0, Duration::ZERO);
    while connection.close_reason().is_none() {
        looks.tick().await;
        let now = connection.stats().udp_rx.datagrams;
        silent = if now == heard { silent + pause } else { Duration::ZERO };
        heard = now;
        if silent > limits::SILENCE_MAX + 2 * connection.rtt() {
            let code = VarInt::from_u32(StreamCode::Timeout.code());
            connection.close(code, b"nothing was heard");
        }
    }
}
