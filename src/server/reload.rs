//! Loads a new manifest while serving: it is checked whole, and then replaces the served one in one
//! step. Beside it may lie the manifest of the epoch that comes next: that one is staged, which is
//! that it is answered before clients are told of it. One that is refused changes nothing and is
//! reported. A reload is started by a signal, by the admin endpoint, or by [`Reloader::watch`].

use std::fmt::Display;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::file_work::NotDone;
use super::service::{Service, unix_now};
use crate::limits;
use crate::shard::manifest::{MANIFEST_NAME, MANIFEST_NEXT_NAME};
use crate::shard::{Database, Manifest, OpenError, Shard};

/// The epoch that is served after a reload and, of a new one, how many shards were opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // Names say it.
pub enum Reloaded {
    Changed { epoch: u64, opened: usize },
    Unchanged { epoch: u64 },
}

/// Why a reload changed nothing.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{why}. Epoch {served} is served")]
pub struct ReloadError {
    why: String,
    served: u64,
}

/// How the databases of a server fare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochState {
    /// The newest epoch that is served.
    pub served: u64,
    /// An epoch after it that is answered, and that clients are not told of yet.
    pub staged: Option<u64>,
    /// The epoch of the manifest that a reload last read.
    pub expected: u64,
    /// Shards of the served database that were taken out.
    pub quarantined_shards: usize,
}

/// Reloads the database of a server. Cheap to clone.
#[derive(Clone)]
pub struct Reloader(pub(super) Arc<Service>);

impl Reloader {
    /// Reads the manifest again and serves what it names, if that is another database that may
    /// follow, or if the file of a quarantined shard is good again. One at a time.
    ///
    /// # Errors
    /// Something is refused: all stays as it was.
    pub async fn reload(&self) -> Result<Reloaded, ReloadError> {
        let reloader = self.clone();
        // To its end, counted and said: whoever asked may not wait for it.
        let ended = tokio::spawn(async move { reloader.reload_alone().await }).await;
        ended.unwrap_or_else(|error| Err(self.refused(&NotDone::from(error))))
    }

    async fn reload_alone(&self) -> Result<Reloaded, ReloadError> {
        let service = self.0.clone();
        let _one = service.reloading.lock().await;
        let (read, asked) = (Arc::new(AtomicU64::new(0)), service.clone());
        let (read_here, progress) = (read.clone(), || read.load(Ordering::Relaxed));
        let work = move || find(&asked, &read_here, unix_now());
        let found = service.files.run("reading the database again", progress, work);
        let ended = match found.await {
            Err(not_done) => Err(self.refused(&not_done)),
            Ok(Err(refused)) => Err(self.refused(&refused)),
            Ok(Ok(None)) => Ok(Reloaded::Unchanged { epoch: service.epochs.epoch() }),
            Ok(Ok(Some(database))) => {
                let (epoch, taking) = (database.epoch(), service.clone());
                // Unmapping what is served no more takes its time.
                let opened = tokio::task::spawn_blocking(move || take(&taking, database)).await;
                let changed = opened.map(|opened| Reloaded::Changed { epoch, opened });
                changed.map_err(|error| self.refused(&NotDone::from(error)))
            }
        };
        tell(&service, &ended);
        let ended = ended?;
        let (staging, read_here) = (service.clone(), read.clone());
        let (progress, work) =
            (|| read.load(Ordering::Relaxed), move || stage(&staging, &read_here, unix_now()));
        let refused = match service.files.run("reading the next epoch", progress, work).await {
            Ok(Ok(())) => return Ok(ended),
            Ok(Err(refused)) => self.refused(&refused),
            Err(not_done) => self.refused(&not_done),
        };
        tell(&service, &Err(refused.clone()));
        Err(refused)
    }

    fn refused(&self, why: &dyn Display) -> ReloadError {
        ReloadError { why: why.to_string(), served: self.0.epochs.epoch() }
    }

    /// Looks at the files of the manifests and of the placement once a period, and reloads when one
    /// was changed; after a refused reload also when none was, with growing pauses. Never ends.
    pub async fn watch(self, period: Duration) {
        let database = self.0.epochs.database();
        let manifests = [MANIFEST_NAME, MANIFEST_NEXT_NAME];
        let mut paths = manifests.map(|name| database.directory().join(name)).to_vec();
        paths.extend(database.held_by().map(|held_by| held_by.placement.clone()));
        drop(database);
        let (mut seen, mut again, mut pause) = (None, None::<Instant>, period);
        let mut until_next = period;
        loop {
            tokio::time::sleep(until_next).await;
            let paths = paths.clone();
            let look = move || paths.iter().map(|path| identity(path)).collect::<Vec<_>>();
            let look = self.0.files.run("looking at the manifests", || 0, look);
            let Ok(found) = look.await else {
                until_next = (2 * until_next).min(limits::HUNG_LOOK_PAUSE_MAX).max(period);
                continue;
            };
            until_next = period;
            let found = Some(found);
            if found == seen && again.is_none_or(|again| again > Instant::now()) {
                continue;
            }
            if found != seen {
                (seen, pause) = (found, period);
            }
            again = self.reload().await.err().map(|_| Instant::now() + pause);
            pause = (2 * pause).min(limits::RELOAD_PAUSE_MAX);
        }
    }

    /// How the databases fare.
    pub fn state(&self) -> EpochState {
        self.0.epoch_state()
    }
}

/// Inode, time and length of the file that has a name.
fn identity(path: &Path) -> Option<[u64; 4]> {
    let found = path.metadata().ok()?;
    Some([found.ino(), found.mtime() as u64, found.mtime_nsec() as u64, found.len()])
}

/// Reads the manifest and what it names, unless that is served already; `read` counts the bytes.
/// What clients refuse by its dates at `now` (unix seconds) is not taken up. Of an epoch that is
/// staged nothing is read again.
fn find(service: &Service, read: &AtomicU64, now: u64) -> Result<Option<Arc<Database>>, OpenError> {
    service.report_quarantined();
    let served = service.epochs.database();
    let manifest = Database::read_manifest(served.directory())?;
    service.expected_epoch.store(manifest.epoch, Ordering::Relaxed);
    // One that is served already goes on, whatever the time: it may be the clock that is wrong.
    if manifest != *served.manifest() {
        manifest.check_time(served.directory(), now)?;
    }
    let count = |bytes| {
        read.fetch_add(bytes, Ordering::Relaxed);
    };
    let staged = service.epochs.staged().filter(|staged| *staged.manifest() == manifest);
    let found = staged.as_ref().unwrap_or(&served).follow(manifest, &count)?.map(Arc::new);
    Ok(found.or(staged))
}

/// Stages what the manifest of the next epoch names, where there is one.
fn stage(service: &Service, read: &AtomicU64, now: u64) -> Result<(), OpenError> {
    let (served, staged) = (service.epochs.database(), service.epochs.staged());
    let path = served.directory().join(MANIFEST_NEXT_NAME);
    let next = match Manifest::read(&path) {
        Ok(next) => Some(next).filter(|next| next.epoch > served.epoch()),
        Err(OpenError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let Some(next) = next else {
        if staged.is_some() {
            service.epochs.stage(None);
        }
        return Ok(());
    };
    let staged = staged.filter(|staged| *staged.manifest() == next);
    if staged.is_none() {
        next.check_time(served.directory(), now)?;
    }
    let (epoch, count) = (next.epoch, |bytes| {
        read.fetch_add(bytes, Ordering::Relaxed);
    });
    if let Some(found) = staged.as_ref().unwrap_or(&served).follow(next, &count)? {
        service.epochs.stage(Some(Arc::new(found)));
        tracing::info!(epoch, "the next epoch is staged: it is answered, and clients are not told");
    }
    Ok(())
}

/// Serves a database; says how many of its shards were opened for it.
fn take(service: &Service, database: Arc<Database>) -> usize {
    let served = service.epochs.database();
    let is_new = |&&(index, ref shard): &&(u32, Arc<Shard>)| {
        served.shard(index).is_none_or(|before| !Arc::ptr_eq(before, shard))
    };
    let opened = database.held().iter().filter(is_new).count();
    service.epochs.swap(Instant::now(), database);
    service.forget_epochs(Instant::now());
    opened
}

fn tell(service: &Service, ended: &Result<Reloaded, ReloadError>) {
    let counters = &service.counters;
    let refused = ended.as_ref().err().map(ToString::to_string);
    *service.refused_reload.lock().unwrap_or_else(PoisonError::into_inner) = refused;
    match ended {
        Ok(Reloaded::Changed { epoch, opened }) => {
            counters.reloads_changed.add(1);
            tracing::info!(epoch, opened, "another database is served");
        }
        Ok(Reloaded::Unchanged { epoch }) => {
            counters.reloads_unchanged.add(1);
            tracing::info!(epoch, "the database is what is served already");
        }
        // A server that leaves cuts work off.
        Err(_) if service.draining() => {}
        Err(error) => {
            counters.reloads_refused.add(1);
            tracing::error!("what is on disk is refused: {error}");
        }
    }
}
