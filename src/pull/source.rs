//! The web server that is copied from.

use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use http::header::{CONTENT_LENGTH, CONTENT_RANGE};
use http::{HeaderMap, Method};
use tokio::time::sleep;

use super::copy::Step;
use super::errors::PullError;
use super::folder::Folder;
use super::pace::Pace;
use crate::https::{Client, Reply};
use crate::limits;
use crate::params::Shape;
use crate::shard::header::file_bytes;
use crate::shard::manifest::{MANIFEST_NAME, SHARDS_DIR};
use crate::shard::{Manifest, ManifestError, ShardEntry};

/// The web server that is copied from.
pub(super) struct Source<'a> {
    client: &'a Client,
    /// Without a slash at its end.
    url: &'a str,
    pace: &'a Pace,
    pub(super) told: &'a (dyn Fn(Step) + Sync),
    bytes: AtomicU64,
}

impl<'a> Source<'a> {
    pub(super) fn new(
        client: &'a Client,
        url: &'a str,
        pace: &'a Pace,
        told: &'a (dyn Fn(Step) + Sync),
    ) -> Result<Self, PullError> {
        if url.contains(['?', '#']) {
            return Err(PullError::Url { url: url.to_owned() });
        }
        let url = url.trim_end_matches('/');
        Ok(Self { client, url, pace, told, bytes: AtomicU64::new(0) })
    }

    /// Bytes of shard files that came.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    async fn get(&self, name: &str, headers: &[(&str, &str)]) -> Result<Reply, PullError> {
        let url = format!("{}/{name}", self.url);
        Ok(self.client.open(Method::GET, &url, headers, Default::default()).await?)
    }

    /// The newest manifest.
    pub(super) async fn manifest(&self) -> Result<Manifest, PullError> {
        again(|| false, || self.manifest_once()).await
    }

    async fn manifest_once(&self) -> Result<Manifest, PullError> {
        let mut reply = self.get(MANIFEST_NAME, &[("cache-control", "no-cache")]).await?;
        if reply.status != 200 {
            let file = MANIFEST_NAME.to_owned();
            return Err(PullError::Status { file, status: reply.status });
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = reply.chunk().await? {
            if bytes.len() as u64 + chunk.len() as u64 > limits::MANIFEST_BYTES_MAX {
                return Err(ManifestError::TooLarge.into());
            }
            bytes.extend_from_slice(&chunk);
            self.pace.wait(chunk.len() as u64).await;
        }
        Ok(Manifest::parse(&bytes)?)
    }

    /// Downloads what is missing of a shard, verifies it and gives it its name.
    pub(super) async fn fetch(
        &self,
        folder: &Folder,
        shape: &Shape,
        entry: &ShardEntry,
    ) -> Result<(), PullError> {
        folder
            .bring(shape, entry, async || {
                let mut before = folder.part_bytes(entry)?;
                let more = || {
                    let now = folder.part_bytes(entry).unwrap_or(before);
                    now > std::mem::replace(&mut before, now)
                };
                again(more, || self.complete(folder, shape, entry)).await
            })
            .await
    }

    /// Asks once for what is missing of a file.
    async fn complete(
        &self,
        folder: &Folder,
        shape: &Shape,
        entry: &ShardEntry,
    ) -> Result<(), PullError> {
        let (part, expected) = (folder.part(entry), file_bytes(shape));
        let in_part = PullError::io("write", &part);
        let (mut file, mut have) = folder.open_part(shape, entry)?;
        if have == expected {
            return Ok(());
        }
        let range = format!("bytes={have}-");
        let asked = [("range", &*range)];
        let asked: &[_] = if have > 0 { &asked } else { &[] };
        let name = format!("{SHARDS_DIR}/{}", entry.file);
        let mut reply = self.get(&name, asked).await?;
        match reply.status {
            206 if have > 0 => check_range(&reply.headers, &entry.file, have, expected)?,
            // The whole file, from a source that knows no ranges too.
            200 => {
                check_length(&reply.headers, &entry.file, expected)?;
                file.set_len(0).map_err(&in_part)?;
                have = 0;
            }
            status => return Err(PullError::Status { file: name, status }),
        }
        while let Some(chunk) = reply.chunk().await? {
            have += chunk.len() as u64;
            if have > expected {
                let file = entry.file.clone();
                return Err(PullError::Length { file, found: have, expected });
            }
            file.write_all(&chunk).map_err(&in_part)?;
            self.bytes.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            (self.told)(Step::Got(chunk.len() as u64));
            self.pace.wait(chunk.len() as u64).await;
        }
        match expected - have {
            0 => Ok(()),
            missing => Err(PullError::Short { file: entry.file.clone(), missing }),
        }
    }
}

/// Does something until it succeeds, fails for good, or has failed too often without any progress.
async fn again<T>(
    mut more: impl FnMut() -> bool,
    mut attempt: impl AsyncFnMut() -> Result<T, PullError>,
) -> Result<T, PullError> {
    let mut failures = 0;
    loop {
        match attempt().await {
            Err(error) if error.is_passing() => {
                failures = if more() { 0 } else { failures + 1 };
                if failures >= limits::PULL_ATTEMPTS_MAX {
                    return Err(error);
                }
                tracing::warn!("{error}; this is tried again");
                if let Some(doublings) = u32::checked_sub(failures, 1) {
                    let pause = limits::PULL_PAUSE * (1 << doublings);
                    sleep(pause.min(limits::PULL_PAUSE_MAX)).await;
                }
            }
            ended => return ended,
        }
    }
}

/// An error unless a part of a file is the rest of it.
fn check_range(headers: &HeaderMap, file: &str, have: u64, expected: u64) -> Result<(), PullError> {
    let found = headers.get(CONTENT_RANGE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let wanted = format!("bytes {have}-{}/{expected}", expected - 1);
    if found == wanted {
        return Ok(());
    }
    let (file, found) = (file.to_owned(), format!("{found:?}"));
    Err(PullError::Range { file, found, expected: wanted })
}

/// An error if a file announces another length.
fn check_length(headers: &HeaderMap, file: &str, expected: u64) -> Result<(), PullError> {
    let found = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    match found {
        Some(found) if found != expected => {
            Err(PullError::Length { file: file.to_owned(), found, expected })
        }
        _ => Ok(()),
    }
}
