//! Which epoch is served, and whether hosts are ready for it.

use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use tokio::time::{Instant, sleep};

use super::errors::StoreError;
use super::place::{ANNOUNCED, MANIFESTS, Store};
use super::publish::manifest;
use crate::client::staged::lacking;
use crate::client::{Options, Replica};
use crate::hosts::{Host, Placement, Ranges};
use crate::limits;
use crate::shard::Manifest;
use crate::wire::Bytes;

/// What an announcement came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Announced {
    /// By this call.
    Now,
    /// By an earlier one, or by another at the same time.
    Before,
}

/// Announces an epoch, whose manifest is in the store: hosts serve it from now on.
///
/// # Errors
/// There is no such manifest, or a newer epoch was announced.
pub async fn announce(store: &Store, epoch: u64) -> Result<Announced, StoreError> {
    let manifests = store.epochs(MANIFESTS, ".json").await?;
    let Some(&newest) = manifests.last() else { return Err(StoreError::Empty) };
    if !manifests.contains(&epoch) {
        return Err(StoreError::NoEpoch { epoch, newest });
    }
    match newest_announced(store).await? {
        Some(newest) if newest > epoch => return Err(StoreError::Older { epoch, newest }),
        _ => {}
    }
    let text = format!("{{\"epoch\": {epoch}}}\n");
    let name = format!("{ANNOUNCED}/{epoch}");
    match store.put_new(&name, vec![Bytes::from(text)]).await? {
        true => Ok(Announced::Now),
        false => Ok(Announced::Before),
    }
}

/// Whom an announcement waits for.
#[derive(Clone)]
pub struct Hosts {
    /// Who has which shards.
    pub placement: Placement,
    /// How they are asked; the addresses are those of the placement.
    pub options: Options,
    /// The name in their certificates, where that is not each one's own.
    pub server_name: Option<String>,
    /// So many copies of each shard may be missing, but never the last one.
    pub may_lack: u32,
    /// How long to wait for them.
    pub patience: Duration,
}

/// A host that does not answer all that it is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Behind {
    /// Its name.
    pub host: String,
    /// How many shards it lacks.
    pub shards: u64,
    /// Why, where it did not say itself.
    pub reason: Option<String>,
}

/// Waits until hosts answer each shard of an epoch, and says by `told` who is behind, whenever that
/// changes. Who is behind in the end comes back: copies that may be missing.
///
/// # Errors
/// They did not in time, or the placement is not of this database.
pub async fn until_staged(
    store: &Store,
    epoch: u64,
    hosts: &Hosts,
    told: &(dyn Fn(&[Behind]) + Sync),
) -> Result<Vec<Behind>, StoreError> {
    let newest = store.epochs(MANIFESTS, ".json").await?.last().copied();
    let newest = newest.ok_or(StoreError::Empty)?;
    let manifest = manifest(store, epoch).await?.ok_or(StoreError::NoEpoch { epoch, newest })?;
    hosts.placement.check_shard_count(manifest.shard_count)?;
    let unplaced = hosts.placement.lacking(1);
    if !unplaced.is_empty() {
        return Err(StoreError::Unplaced(unplaced.to_string()));
    }
    let (begun, mut before) = (Instant::now(), Vec::new());
    loop {
        let (behind, short) = ask_all(hosts, &manifest).await;
        if short.is_empty() {
            return Ok(behind);
        }
        if behind != before {
            told(&behind);
            before.clone_from(&behind);
        }
        if begun.elapsed() >= hosts.patience {
            let line = |Behind { host, shards, reason }: &Behind| match reason {
                Some(reason) => format!("{host}: {reason}"),
                None => format!("{host} lacks {shards} shards"),
            };
            let hosts_behind: Vec<String> = behind.iter().map(line).collect();
            let (waited, hosts) = (hosts.patience, hosts_behind.join("; "));
            return Err(StoreError::NotStaged { epoch, waited, hosts });
        }
        sleep(limits::STAGED_PAUSE.min(hosts.patience)).await;
    }
}

/// Who is behind, and the shards that too few hosts answer.
async fn ask_all(hosts: &Hosts, manifest: &Manifest) -> (Vec<Behind>, Ranges) {
    let ask = async |host: &Host| (host.name.clone(), ask(host, hosts, manifest).await);
    let asking = stream::iter(&hosts.placement.hosts).map(ask);
    let mut asking = asking.buffer_unordered(limits::STAGED_HOSTS_AT_ONCE);
    let mut missing = vec![0u32; manifest.shards.len()];
    let mut behind = Vec::new();
    while let Some((name, lacks)) = asking.next().await {
        let (shards, reason) = match lacks {
            Ok(lacks) => (lacks, None),
            Err(reason) => {
                let shards = hosts.placement.host(&name).map(|host| host.shards.iter().collect());
                (shards.unwrap_or_default(), Some(reason))
            }
        };
        shards.iter().for_each(|&shard| missing[shard as usize] += 1);
        if !shards.is_empty() {
            behind.push(Behind { host: name, shards: shards.len() as u64, reason });
        }
    }
    behind.sort_by(|a, b| a.host.cmp(&b.host));
    let placed = hosts.placement.copies();
    let is_short = |&shard: &u32| {
        let (placed, missing) = (placed[shard as usize], missing[shard as usize]);
        missing > hosts.may_lack || missing >= placed
    };
    (behind, Ranges::of((0..manifest.shard_count).filter(is_short)))
}

/// The shards of an epoch that a host is to have and does not answer.
async fn ask(host: &Host, hosts: &Hosts, manifest: &Manifest) -> Result<Vec<u32>, String> {
    let replica = Replica::of_host(host, hosts.server_name.as_deref()).await;
    let replicas = vec![replica.map_err(|error| error.to_string())?];
    let options = Options { replicas, ..hosts.options.clone() };
    let digest = |shard: u32| (shard, manifest.shards[shard as usize].hint_digest.0);
    let expected: Vec<_> = host.shards.iter().map(digest).collect();
    let lacks = lacking(&options, manifest.shape(), manifest.epoch, &expected).await;
    lacks.map_err(|failed| failed.detail)
}

/// The newest epoch that was announced.
pub(super) async fn newest_announced(store: &Store) -> Result<Option<u64>, StoreError> {
    Ok(store.epochs(ANNOUNCED, "").await?.last().copied())
}
