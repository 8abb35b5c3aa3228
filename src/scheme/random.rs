//! Randomness from the operating system's generator.

use super::secret::SecretError;

/// 32 bytes from the operating system's generator.
pub fn random_bytes() -> Result<[u8; 32], SecretError> {
    let mut bytes = [0; 32];
    fill_random(&mut bytes)?;
    Ok(bytes)
}

pub(super) fn fill_random(bytes: &mut [u8]) -> Result<(), SecretError> {
    #[cfg(test)]
    if frozen::fill(bytes) {
        return Ok(());
    }
    getrandom::fill(bytes).map_err(|error| SecretError::NoRandomness(error.to_string()))
}

/// The numbers below `len` in uniformly random order, drawn from the operating system's generator
/// (Fisher-Yates).
pub fn random_permutation(len: usize) -> Result<Vec<usize>, SecretError> {
    let seed = zeroize::Zeroizing::new(random_bytes()?);
    Ok(shuffled(len, &seed))
}

pub(super) fn shuffled(len: usize, seed: &[u8; 32]) -> Vec<usize> {
    let mut random = blake3::Hasher::new_keyed(seed).finalize_xof();
    let mut below = |bound: u64| loop {
        let mut bytes = [0; 8];
        random.fill(&mut bytes);
        let drawn = u64::from_le_bytes(bytes);
        // The last, incomplete stretch of multiples would favour small numbers: draw again.
        if drawn < u64::MAX - u64::MAX % bound {
            return (drawn % bound) as usize;
        }
    };
    let mut order: Vec<usize> = (0..len).collect();
    for last in (1..len).rev() {
        order.swap(last, below(last as u64 + 1));
    }
    order
}

/// A generator that gives the same bytes every time, as one may in a virtual machine that is
/// started again from a snapshot. Compiled into the crate's own unit tests and nowhere else.
#[cfg(test)]
pub(crate) mod frozen {
    use std::cell::Cell;

    thread_local!(static BYTE: Cell<Option<u8>> = const { Cell::new(None) });

    /// Runs `work` while this thread's generator is frozen.
    pub(crate) fn while_frozen<T>(byte: u8, work: impl FnOnce() -> T) -> T {
        BYTE.set(Some(byte));
        let out = work();
        BYTE.set(None);
        out
    }

    pub(super) fn fill(bytes: &mut [u8]) -> bool {
        if let Some(byte) = BYTE.get() {
            bytes.fill(byte);
        }
        BYTE.get().is_some()
    }
}
