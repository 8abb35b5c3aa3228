//! The thread that uploads shards to one device while its engine answers.

use std::time::Instant;

use super::job::catch_panics;
use super::queue::Shared;

/// Uploads one shard after the other, until the queue is closed.
pub(super) fn run(shared: &Shared, device: usize, engine: &str) {
    while !shared.is_closed() {
        let next = shared.lock().placement.begin_upload(Instant::now(), device);
        let Some(shard) = next else {
            shared.wait(&shared.uploaders[device], None);
            continue;
        };
        let begun = Instant::now();
        let content = shared.shards.content(shard);
        let ended = content.map(|content| {
            catch_panics(|| shared.stores[device].upload(&content.view()))
                .map(|()| content.is_whole())
        });
        let mut state = shared.lock();
        match ended {
            None | Some(Ok(false)) => state.placement.upload_dropped(device),
            Some(Ok(true)) => {
                state.placement.uploaded(Instant::now(), device);
                shared.counters.uploads.add(1);
                shared.counters.upload_time.add(begun.elapsed());
            }
            Some(Err(why)) => {
                state.placement.upload_failed(Instant::now(), device);
                state.suspects[device] = true;
                shared.counters.uploads_failed.add(1);
                tracing::warn!(engine, "a shard could not be uploaded: {why}");
            }
        }
        drop(state);
        shared.wake(|_| true);
    }
}
