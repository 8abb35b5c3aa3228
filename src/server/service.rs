//! What all connections of a server share, and the thread of the scrub with them.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Instant, SystemTime};

use tokio::sync::{Semaphore, watch};

use super::bounds::ServerBounds;
use super::bundles::Bundles;
use super::callers::{Callers, Connected};
use super::epochs::Epochs;
use super::file_work::FileWork;
use super::places::{Connections, Holder, Unfinished};
use super::room::Room;
use crate::limits;
use crate::metrics::Counters;
use crate::params::Shape;
use crate::schedule::ConnectionId;
use crate::scheme::KeyBundle;
use crate::shard::guard::quarantined_total;
use crate::wire::Uid;
use crate::worker::Queue;

/// Seconds since 1970 by this machine's clock: what a database's dates are compared with.
pub(super) fn unix_now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

pub(super) struct Service {
    pub(super) epochs: Arc<Epochs>,
    /// Of every epoch.
    pub(super) shape: Shape,
    pub(super) reloading: tokio::sync::Mutex<()>,
    pub(super) files: FileWork,
    /// Free places for reading hints, which may hang too.
    pub(super) hint_reads: Arc<Semaphore>,
    pub(super) hints_hang: AtomicBool,
    pub(super) refused_reload: Mutex<Option<String>>,
    /// Of the manifest that was read last.
    pub(super) expected_epoch: AtomicU64,
    /// When the last whole scrub began; before there was one, the start.
    pub(super) scrub_begun: Mutex<Instant>,
    pub(super) quarantined_reported: AtomicU64,
    pub(super) queue: Queue,
    pub(super) bundles: Mutex<Bundles>,
    pub(super) counters: Arc<Counters>,
    pub(super) bounds: ServerBounds,
    pub(super) draining: AtomicBool,
    pub(super) callers: RwLock<Arc<Callers>>,
    pub(super) connected: Arc<Connected>,
    pub(super) connections: Arc<Connections>,
    pub(super) handshakes: Arc<Unfinished<Holder>>,
    /// Room for streams, one each.
    pub(super) open: Arc<Room>,
    pub(super) reading: Arc<Room>,
    /// Room for answers, and for other replies that wait to be sent.
    pub(super) answers: Arc<Room>,
    pub(super) streams: watch::Sender<usize>,
    pub(super) numbers: AtomicU64,
    /// When the served certificate expires, in seconds since 1970.
    pub(super) certificate_expires: Mutex<Option<i64>>,
    pub(super) started: (Instant, SystemTime),
}

impl Service {
    pub(super) fn new(
        epochs: Arc<Epochs>,
        queue: Queue,
        callers: Callers,
        bounds: ServerBounds,
    ) -> Self {
        let (shape, epoch) = (*epochs.database().shape(), epochs.epoch());
        let handshakes = bounds.handshakes_max.max(1);
        let bundles = bounds.bundle_cache_bytes / shape.bundle_bytes();
        let bundles = NonZeroUsize::new(bundles).unwrap_or(NonZeroUsize::MIN);
        // Whatever others hold, everyone can ask a small frame, and for the hint of a shard.
        let room = |all, wanted| Room::new(all, bounds.connections_max, wanted);
        let small_frame = limits::FRAME_QUERIES_WANTED;
        let query_bytes = shape.query_bytes() + limits::FRAME_OVERHEAD_BYTES;
        let answer_bytes = shape.packs() * shape.response_bytes() + limits::QUERY_STATE_BYTES;
        let hint_bytes = shape.packs() * shape.hint_bytes();
        Self {
            epochs,
            shape,
            reloading: tokio::sync::Mutex::default(),
            files: FileWork::new(bounds.file_patience),
            hint_reads: Arc::new(Semaphore::new(limits::HINT_READS_MAX)),
            hints_hang: AtomicBool::new(false),
            refused_reload: Mutex::default(),
            expected_epoch: AtomicU64::new(epoch),
            scrub_begun: Mutex::new(Instant::now()),
            quarantined_reported: AtomicU64::new(0),
            queue,
            bundles: Mutex::new(Bundles::new(bundles)),
            counters: Arc::default(),
            draining: AtomicBool::new(false),
            callers: RwLock::new(Arc::new(callers)),
            connected: Arc::default(),
            connections: Connections::new(
                bounds.connections_max,
                bounds.connections_per_front_end_max,
            ),
            handshakes: Unfinished::new(handshakes, handshakes.div_ceil(2)),
            open: room(bounds.streams_max, limits::FRAMES_IN_FLIGHT_WANTED as usize),
            reading: room(bounds.read_bytes_max, small_frame * query_bytes),
            answers: room(bounds.answer_bytes_max, hint_bytes.max(small_frame * answer_bytes)),
            streams: watch::Sender::new(0),
            numbers: AtomicU64::new(0),
            certificate_expires: Mutex::default(),
            started: (Instant::now(), SystemTime::now()),
            bounds,
        }
    }

    pub(super) fn draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    pub(super) fn callers(&self) -> Arc<Callers> {
        self.callers.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// For a connection or a front-end, once.
    pub(super) fn next_number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// What one scan of a shard reads, with its pack tables.
    pub(super) fn scan_bytes(&self) -> usize {
        let shape = &self.shape;
        shape.matrix_bytes() + shape.packs() * shape.table_bytes()
    }

    pub(super) fn certificate_expires(&self, at: Option<i64>) {
        *self.certificate_expires.lock().unwrap_or_else(PoisonError::into_inner) = at;
    }

    /// Says which shards were taken out since it was last asked. Not where it happens: a query may
    /// have found it, and nothing of queries is logged.
    pub(super) fn report_quarantined(&self) {
        let total = quarantined_total();
        if self.quarantined_reported.swap(total, Ordering::Relaxed) == total {
            return;
        }
        for file in self.epochs.newly_quarantined() {
            self.counters.scrub_problems.add(1);
            tracing::error!(
                "shard file {file} is damaged, or was truncated while it was served: its queries \
                 are refused. Put the right file in its place and reload"
            );
        }
    }

    pub(super) fn forget_epochs(&self, now: Instant) {
        if self.epochs.forget(now) {
            self.queue.forget_gone();
        }
    }

    pub(super) fn bundles(&self) -> MutexGuard<'_, Bundles> {
        self.bundles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn keep_bundle(&self, peer: ConnectionId, uid: Uid, bundle: KeyBundle) {
        self.counters.bundles.add(1);
        if self.bundles().keep(peer, uid, bundle) {
            self.counters.bundles_evicted.add(1);
        }
    }
}
