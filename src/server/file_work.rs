//! Work on files that may never end, kept from delaying anything else.
//!
//! A read from a file system that hangs (an unreachable file server, a failing disk) cannot be
//! cancelled. So such work runs on blocking threads and is given up when it makes no progress: the
//! log says so, its place stays taken until it ends, and its result is dropped.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::timeout;

use crate::limits;

/// Why some work on files was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // Names and messages say it.
pub enum NotDone {
    #[error(
        "{what} was given up, nothing of it went on for {} s: does the file system hang?",
        .patience.as_secs_f64()
    )]
    Stalled { what: &'static str, patience: Duration },
    #[error("{what} was not begun, {count} tries before still hang in their file systems")]
    Crowded { what: &'static str, count: usize },
    #[error("it panicked: this is a bug")]
    Panicked,
    #[error("it was cut off, the program ends")]
    CutOff,
}

impl From<JoinError> for NotDone {
    fn from(error: JoinError) -> Self {
        if error.is_cancelled() { Self::CutOff } else { Self::Panicked }
    }
}

/// Has work on files done. Cheap to clone; clones share their places.
#[derive(Clone)]
pub struct FileWork {
    places: Arc<Semaphore>,
    patience: Duration,
}

impl Default for FileWork {
    fn default() -> Self {
        Self::new(limits::FILE_PATIENCE)
    }
}

impl FileWork {
    /// Gives work up of which nothing goes on for so long.
    pub fn new(patience: Duration) -> Self {
        Self { places: Arc::new(Semaphore::new(limits::FILE_WORK_MAX)), patience }
    }

    /// Has `work` done on a blocking thread of tokio; `progress` is a number that changes as it
    /// goes on.
    ///
    /// # Errors
    /// It was given up, or not begun.
    pub async fn run<T: Send + 'static>(
        &self,
        what: &'static str,
        progress: impl Fn() -> u64,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, NotDone> {
        let crowded = |_| NotDone::Crowded { what, count: limits::FILE_WORK_MAX };
        let place = self.places.clone().try_acquire_owned().map_err(crowded)?;
        let mut seen = progress();
        let mut running = spawn_blocking(move || {
            let done = work();
            drop(place);
            done
        });
        loop {
            if let Ok(ended) = timeout(self.patience, &mut running).await {
                return ended.map_err(NotDone::from);
            }
            let now = progress();
            if std::mem::replace(&mut seen, now) == now {
                let stalled = NotDone::Stalled { what, patience: self.patience };
                tracing::error!("{stalled}");
                return Err(stalled);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::mpsc::channel;

    use super::*;

    const SHORT: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn work_that_hangs_is_given_up_and_holds_up_nobody() {
        let files = FileWork::new(SHORT);
        let (release, released) = channel::<()>();
        let hangs = files.run("a test's work", || 0, move || released.recv()).await;
        let stalled = NotDone::Stalled { what: "a test's work", patience: SHORT };
        assert_eq!(hangs.map(|_| ()), Err(stalled));
        assert_eq!(files.run("more", || 0, || 7).await, Ok(7));
        // Its place is its own until it ends.
        assert_eq!(files.places.available_permits(), limits::FILE_WORK_MAX - 1);
        release.send(()).unwrap();
        let all = files.places.acquire_many(limits::FILE_WORK_MAX as u32);
        drop(timeout(Duration::from_secs(60), all).await.unwrap().unwrap());
        let all = files.places.acquire_many(limits::FILE_WORK_MAX as u32).await;
        let crowded = files.run("one more", || 0, || ()).await.unwrap_err();
        assert!(crowded.to_string().contains("still hang"), "{crowded}");
        drop(all);
        // Saying where it panicked may take longer than the others' patience.
        let files = FileWork::new(Duration::from_secs(60));
        let panicked = files.run("a bug", || 0, || panic!("as the test wants it")).await;
        assert_eq!(panicked, Err::<(), _>(NotDone::Panicked));
    }

    #[tokio::test]
    async fn work_that_goes_on_may_take_long() {
        let files = FileWork::new(SHORT);
        let (release, released) = channel::<()>();
        let looks = AtomicU64::new(0);
        // The work ends once its progress was looked at often enough.
        let looked = || {
            let looks = looks.fetch_add(1, Ordering::SeqCst) + 1;
            if looks == 5 {
                release.send(()).unwrap();
            }
            looks
        };
        let ended = files.run("slow", looked, move || released.recv().unwrap());
        assert_eq!(ended.await, Ok(()));
    }
}
