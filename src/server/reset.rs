//! What lets a server that was killed and started again say so to peers of the process before it.
//!
//! A peer that goes on sending to a process that is gone waits for its own time-out, unless the new
//! process answers with the connection's stateless reset token (RFC 9000, section 10.3). So tokens
//! come from a key that outlives the process: from the private key of the certificate and the
//! address, nothing else. Servers that share both share tokens: whoever sees the packets of a
//! connection to one can have another end it, as he could by holding them up; the client begins
//! again with the same bytes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::{CryptoError, HmacKey};
use quinn::{ConnectionId, ConnectionIdGenerator, EndpointConfig};
use rustls::crypto::SecureRandom;

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

/// Random connection IDs. quinn's own carry a mark of the process, by which a new one would drop
/// what was meant for the one before it without a word.
struct RandomIds(&'static dyn SecureRandom);

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; ID_BYTES];
        self.0.fill(&mut id).expect("the operating system gives no random bytes");
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// The configuration of a listener at this address, whose certificate has this private key.
pub(super) fn endpoint(secret: &[u8], address: SocketAddr) -> EndpointConfig {
    let mut hasher = blake3::Hasher::new_derive_key("sotto 2026-11-28 stateless reset tokens");
    hasher.update(secret).update(address.to_string().as_bytes());
    let key = TokenKey(*hasher.finalize().as_bytes());
    let random = rustls::crypto::ring::default_provider().secure_random;
    let mut config = EndpointConfig::new(Arc::new(key));
    config.cid_generator(move || Box::new(RandomIds(random)));
    config
}
