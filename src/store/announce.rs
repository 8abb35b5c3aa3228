//! Which epoch is served.

use crate::wire::Bytes;

use super::errors::StoreError;
use super::place::{ANNOUNCED, MANIFESTS, Store};

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

/// The newest epoch that was announced.
pub(super) async fn newest_announced(store: &Store) -> Result<Option<u64>, StoreError> {
    Ok(store.epochs(ANNOUNCED, "").await?.last().copied())
}
