//! What secrets are drawn from: the system's randomness together with everything that they will
//! encrypt.
//!
//! A virtual machine that is started twice from one snapshot may get the same random bytes both
//! times, and a secret drawn from these alone would encrypt two selections for a shard. So the keys
//! of all secrets of a step come from a hash, keyed with the fresh randomness, over database,
//! shape, earlier steps, and every query in order with its secret (hedging; Bellare, Brakerski,
//! Naor, Ristenpart, Segev, Shacham, Yilek, ASIACRYPT 2009; docs/scheme.md, "Secrets"). If anything
//! differs, all secrets differ; if nothing does, all bytes are the same, and sending these again is
//! safe. This guards against randomness that repeats, not against randomness that somebody knows.
//!
//! Constant time: a selection is hashed as 20 bytes, whatever it is.

use zeroize::Zeroizing;

use super::mask::Seed;
use super::random::fill_random;
use super::secret::{Planned, PrfKey, SecretError, prf};
use crate::params::Shape;

/// What the steps of a pool so far left behind. Wiped when dropped.
#[derive(Default)]
pub(super) struct Hedge {
    chain: PrfKey,
}

impl Hedge {
    pub(super) fn draw(
        &mut self,
        seed: &Seed,
        shape: &Shape,
        queries: &[Planned<'_>],
    ) -> Result<StepKey, SecretError> {
        let mut random = PrfKey::default();
        fill_random(&mut random[..])?;
        let mut hasher = Zeroizing::new(blake3::Hasher::new_keyed(&random));
        hasher.update(b"d").update(&self.chain[..]).update(seed);
        let fields = shape.fields();
        for size in [fields.value_len, fields.pack_rows, fields.packs, fields.columns] {
            hasher.update(&size.to_le_bytes());
        }
        for bits in [fields.response_bits, fields.hint_bits] {
            hasher.update(&bits.to_le_bytes());
        }
        hasher.update(&(queries.len() as u64).to_le_bytes());
        for query in queries {
            hasher.update(&(query.secret as u64).to_le_bytes());
            hasher.update(&query.shard.to_le_bytes());
            query.selection.hash_into(&mut hasher);
        }
        let mut key = PrfKey::default();
        Zeroizing::new(hasher.finalize_xof()).fill(&mut key[..]);
        prf(&key, b"c", &mut self.chain[..]);
        Ok(StepKey(key))
    }
}

/// What the secrets of one step come from. Wiped when dropped.
pub(super) struct StepKey(PrfKey);

impl StepKey {
    pub(super) fn secret(&self, place: usize) -> PrfKey {
        let mut key = PrfKey::default();
        let label = [&b"p"[..], &(place as u64).to_le_bytes()].concat();
        prf(&self.0, &label, &mut key[..]);
        key
    }
}
