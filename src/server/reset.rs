//! Stateless reset tokens that outlive the process (RFC 9000, section 10.3), so that peers of a
//! killed process learn of it at once and do not wait for their time-out.
//!
//! The key of the tokens is derived from the private key of the certificate and the address alone.
//! Servers that share both share tokens: who sees the packets of a connection to one can have
//! another end it, which they could also do by blocking them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use quinn::crypto::{CryptoError, HmacKey};
use quinn::{ConnectionId, ConnectionIdGenerator, EndpointConfig};

use crate::scheme::{SecretError, random_bytes};

const ID_BYTES: usize = 8;

struct TokenKey([u8; 32]);

impl HmacKey for TokenKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        signature_out.copy_from_slice(blake3::keyed_hash(&self.0, data).as_bytes());
    }

    fn signature_len(&self) -> usize {
        blake3::OUT_LEN
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        let found = <[u8; blake3::OUT_LEN]>::try_from(signature).map_err(|_| CryptoError)?;
        // In constant time.
        if blake3::keyed_hash(&self.0, data) == found { Ok(()) } else { Err(CryptoError) }
    }
}

/// Connection IDs that nobody can guess: hashes of a counter under a random key. quinn's own carry
/// a mark of the process, by which a new process drops silently what was meant for the one before.
/// Random bytes from the system for each ID could fail while the server runs.
struct HashedIds {
    key: [u8; 32],
    next: Arc<AtomicU64>,
}

impl ConnectionIdGenerator for HashedIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let hash = blake3::keyed_hash(&self.key, &number.to_le_bytes());
        ConnectionId::new(&hash.as_bytes()[..ID_BYTES])
    }

    fn cid_len(&self) -> usize {
        ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// The configuration of a listener at this address, whose certificate has this private key.
///
/// # Errors
/// The operating system gives no random bytes.
pub(super) fn endpoint(secret: &[u8], address: SocketAddr) -> Result<EndpointConfig, SecretError> {
    let mut hasher = blake3::Hasher::new_derive_key("sotto 2026-11-28 stateless reset tokens");
    hasher.update(secret).update(address.to_string().as_bytes());
    let token_key = TokenKey(*hasher.finalize().as_bytes());
    let mut config = EndpointConfig::new(Arc::new(token_key));
    let (key, next) = (random_bytes()?, Arc::new(AtomicU64::new(0)));
    config.cid_generator(move || Box::new(HashedIds { key, next: next.clone() }));
    Ok(config)
}
