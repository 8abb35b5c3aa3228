//! The service's OHTTP keys while it runs. The folder is that of `crate::front_end::keys`.
//!
//! In the tree, `front_end::keys::Keys` does the same: it is made `pub(crate)`, and this file goes.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::front_end::keys::{Keyring, KeysError as OhttpError};
use crate::limits::OHTTP_KEYS_LOOK_AGAIN_SECONDS;
use ed25519_dalek::SigningKey;

pub(crate) struct Ring {
    folder: PathBuf,
    identity: SigningKey,
    ring: RwLock<Arc<Keyring>>,
    looked: AtomicU64,
    reading: Mutex<()>,
}

impl Ring {
    pub(crate) fn open(
        folder: PathBuf,
        identity: SigningKey,
        now: u64,
    ) -> Result<Self, OhttpError> {
        let ring = RwLock::new(Arc::new(Keyring::open(&folder, &identity, now)?));
        Ok(Self { folder, identity, ring, looked: AtomicU64::new(now), reading: Mutex::new(()) })
    }

    pub(crate) fn public(&self) -> [u8; 32] {
        self.identity.verifying_key().to_bytes()
    }

    pub(crate) fn get(&self) -> Arc<Keyring> {
        self.ring.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the folder again. Where it cannot be used, the keys stay as they were.
    pub(crate) fn refresh(&self, now: u64) -> Result<Arc<Keyring>, OhttpError> {
        let _reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let ring = Arc::new(Keyring::open(&self.folder, &self.identity, now)?);
        *self.ring.write().unwrap_or_else(PoisonError::into_inner) = ring.clone();
        Ok(ring)
    }

    /// The keys for a request whose key is not among them: another process may have made it.
    pub(crate) fn look_again(&self, now: u64) -> Option<Arc<Keyring>> {
        let due =
            |looked: u64| (now.abs_diff(looked) >= OHTTP_KEYS_LOOK_AGAIN_SECONDS).then_some(now);
        self.looked.fetch_update(Ordering::Relaxed, Ordering::Relaxed, due).ok()?;
        self.refresh(now).ok()
    }
}
