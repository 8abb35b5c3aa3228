//! Copying a database from a web server: any that serves the files of a database directory.
//!
//! Nothing that the source or the network says is believed. The manifest has to be signed by the
//! operator whose key the caller gives, and every shard file has to have the digests that the
//! manifest's signature covers, before it gets its name. So plain HTTP is enough.
//!
//! A run that was killed leaves parts of files (`NAME.part`) that the next one goes on with. The
//! manifest is written last, by rename; until then the database in the directory is the one before,
//! and a server that serves it loads the new one when it appears.

mod copy;
mod errors;
mod folder;
mod pace;
mod source;
#[cfg(test)]
mod tests;
mod verify;

use std::sync::atomic::{AtomicUsize, Ordering};

pub use copy::{Options, Pulled, Step};
pub use errors::PullError;
pub(crate) use folder::Folder;

use self::pace::Pace;
use self::source::Source;
use crate::https::Client;
use crate::limits;
use crate::shard::Manifest;

/// Copies the database at a URL. `client` has to be made with [`Client::with_plain`] where the URL
/// is `http://`; `now` is the time in Unix seconds; `told` hears how far the run is.
///
/// # Errors
/// What was copied so far stays, and the same call goes on with it.
pub async fn pull(
    client: &Client,
    options: &Options,
    now: u64,
    told: &(dyn Fn(Step) + Sync),
) -> Result<Pulled, PullError> {
    let pace = Pace::new(options.bytes_per_second);
    let source = Source::new(client, &options.url, &pace, told)?;
    let mut folder = Folder::enter(&options.db)?;
    let mut newest = source.manifest().await?;
    for _ in 0..limits::PULL_ROUNDS_MAX {
        folder.check(&newest, &options.operator_key, now)?;
        match fetch(&source, &folder, &newest).await {
            Ok((files, bytes)) => {
                let (removed, restart) = folder.publish(&newest)?;
                let (epoch, shards) = (newest.epoch, newest.shard_count);
                return Ok(Pulled { epoch, shards, files, bytes, removed, restart });
            }
            // The source may have gone on to another epoch, which does not name this file.
            Err(gone @ PullError::Status { status: 404 | 410, .. }) => {
                let newer = source.manifest().await?;
                if newer.epoch <= newest.epoch {
                    return Err(gone);
                }
                newest = newer;
            }
            Err(error) => return Err(error),
        }
    }
    Err(PullError::Restless { rounds: limits::PULL_ROUNDS_MAX })
}

/// Downloads the files of a manifest that the folder lacks; how many, and their bytes.
async fn fetch(
    source: &Source<'_>,
    folder: &Folder,
    manifest: &Manifest,
) -> Result<(u64, u64), PullError> {
    let shape = manifest.shape();
    let (missing, bytes) = folder.missing(&shape, manifest.shards.iter())?;
    (source.told)(Step::Missing { files: missing.len() as u64, bytes });
    let next = AtomicUsize::new(0);
    let work = async || {
        while let Some(entry) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
            source.fetch(folder, &shape, entry).await?;
        }
        Ok::<(), PullError>(())
    };
    const { assert!(limits::PULL_FILES_AT_ONCE == 2) };
    tokio::try_join!(work(), work())?;
    Ok((missing.len() as u64, source.bytes()))
}
