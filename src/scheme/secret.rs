//! A secret, and the only ways to use it.
//!
//! The rule (scheme.md, "Secrets"): a secret encrypts one selection for a shard once, ever. A
//! [`Secret`] therefore keeps every ciphertext it made: asked again for an equal selection it gives
//! the stored bytes, asked for another it refuses. Its errors come from a PRF keyed inside it,
//! so that even a broken caller could only make the same bytes again. It is neither Clone nor
//! Serialize nor Debug, is wiped when dropped, and refuses to work in a forked child. Everything
//! here runs in constant time; shard number and shape are public.

use std::collections::BTreeMap;
use std::sync::Arc;

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::coding::write_residue;
use super::mask::{key_mask, query_mask};
use super::{Chains, KeyName, Seed, bundle_uid, fill_random};
use crate::arith::exact::{Pair, Sum};
use crate::arith::{
    Automorphism, Halves, Poly, Rings, SecretPoly, add, from_signed, mul, reduce, secret_poly,
};
use crate::limits::QUERIES_PER_SECRET_MAX;
use crate::params::{BAND, D, P, Q, Shape};

/// Which columns a query selects: bit j of `coeffs` selects column `start + j`. Secret.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Selection {
    start: u32,
    coeffs: u128,
}

impl Selection {
    /// A band of 128 columns from `start`; bit j of `coeffs` selects column `start + j`.
    pub fn new(start: u32, coeffs: u128) -> Self {
        Self { start, coeffs }
    }

    /// Entry `column` of the selection vector: 0 or 1, in constant time.
    #[inline(always)]
    fn at(&self, column: u32) -> u32 {
        let offset = column.wrapping_sub(self.start);
        // One when offset < BAND: the difference borrows.
        let inside = (u64::from(offset).wrapping_sub(BAND as u64) >> 63) as u32;
        (self.coeffs >> (offset % BAND as u32)) as u32 & inside
    }

    /// Whether both select the same columns, in constant time.
    pub(crate) fn equals(&self, other: &Self) -> bool {
        let start = u128::from(self.start ^ other.start);
        std::hint::black_box(start | (self.coeffs ^ other.coeffs)) == 0
    }
}

/// Why a query is not encrypted, or an answer not decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SecretError {
    /// Another selection was encrypted for this shard under this secret.
    #[error("this secret already encrypted another selection for this shard: use a fresh secret")]
    AlreadyUsed,
    /// The secret is full.
    #[error("this secret already encrypted {QUERIES_PER_SECRET_MAX} queries: use a fresh secret")]
    Exhausted,
    /// The process forked after the secret was drawn.
    #[error("this secret was drawn by another process, before a fork: look up again from here")]
    Forked,
    /// The selection does not lie inside the columns.
    #[error("the selection does not fit {columns} columns")]
    Selection {
        /// Columns of the shape.
        columns: usize,
    },
    /// The query or shape is not of this pool.
    #[error("the query was not made by this pool")]
    Unknown,
    /// The operating system gave no random bytes.
    #[error("the operating system gave no random bytes: {0}")]
    NoRandomness(String),
    /// A response or hint has the wrong length.
    #[error("{what} has {found} bytes, expected {expected}")]
    Length {
        /// Which of the two.
        what: &'static str,
        /// Bytes found.
        found: usize,
        /// Bytes expected.
        expected: usize,
    },
}

/// What was encrypted for one shard.
struct Issued {
    /// Boxed: a map moves its entries, and what it moves from is not wiped.
    selection: Box<Selection>,
    vector: Arc<[u8]>,
}

/// A bundle as sent, and its name.
struct Bundle {
    uid: String,
    bytes: Arc<[u8]>,
}

/// What a secret and all its errors are drawn from. Boxed: whoever moves a secret (a growing list
/// of them, say) leaves no copy of it behind.
pub(super) type PrfKey = Box<Zeroizing<[u8; 32]>>;

/// A ternary secret bound to one database seed. Serves at most 16 queries, to distinct shards.
pub struct Secret {
    seed: Seed,
    process: u32,
    prf_key: PrfKey,
    slots_q: SecretPoly,
    slots_p: SecretPoly,
    exact: Zeroizing<Pair>,
    issued: BTreeMap<u32, Issued>,
    bundles: BTreeMap<usize, Bundle>,
}

impl Secret {
    /// Draws a secret from the operating system's randomness.
    pub fn draw(seed: Seed) -> Result<Self, SecretError> {
        let mut key = PrfKey::default();
        fill_random(&mut key[..])?;
        let secret = Self::from_key(seed, key);
        wipe_stack();
        Ok(secret)
    }

    /// The secret is a function of 32 random bytes: its coefficients and all its errors.
    fn from_key(seed: Seed, prf_key: PrfKey) -> Self {
        let coefficients = ternary(&prf_key);
        Self::from_parts(seed, prf_key, &coefficients)
    }

    pub(super) fn from_parts(seed: Seed, prf_key: PrfKey, coefficients: &[i8; D]) -> Self {
        let rings = Rings::get(crate::arith::Isa::detect());
        let mut slots_q = secret_poly();
        let mut slots_p = secret_poly();
        for (at, &c) in coefficients.iter().enumerate() {
            slots_q[at] = from_signed::<Q>(c.into());
            slots_p[at] = from_signed::<P>(c.into());
        }
        rings.q.forward(&mut slots_q);
        rings.p.forward(&mut slots_p);
        let exact = Zeroizing::new(Pair::of_small(&rings, coefficients));
        Self {
            seed,
            process: std::process::id(),
            prf_key,
            slots_q,
            slots_p,
            exact,
            issued: BTreeMap::new(),
            bundles: BTreeMap::new(),
        }
    }

    /// Whether `shard` could still be asked under this secret.
    pub fn has_room_for(&self, shard: u32) -> bool {
        self.issued.len() < QUERIES_PER_SECRET_MAX && !self.issued.contains_key(&shard)
    }

    /// Encrypts `selection` for `shard`: three bytes a column. For an equal selection the stored
    /// bytes, for another an error: there is no way to a second ciphertext.
    pub fn query(
        &mut self,
        shard: u32,
        shape: &Shape,
        selection: Selection,
    ) -> Result<Arc<[u8]>, SecretError> {
        self.check_process()?;
        if let Some(issued) = self.issued.get(&shard) {
            let same =
                issued.selection.equals(&selection) && issued.vector.len() == shape.query_bytes();
            return if same { Ok(issued.vector.clone()) } else { Err(SecretError::AlreadyUsed) };
        }
        if self.issued.len() >= QUERIES_PER_SECRET_MAX {
            return Err(SecretError::Exhausted);
        }
        if selection.start as usize + BAND > shape.columns() {
            return Err(SecretError::Selection { columns: shape.columns() });
        }
        let mut label = vec![b'q'];
        label.extend(self.seed);
        label.extend(shard.to_le_bytes());
        let errors = binomial(&self.prf_key, &label, shape.columns());
        let ciphertext = self.encrypt(shard, &selection, &errors);
        let vector: Arc<[u8]> = round_to_wire(&ciphertext).into();
        let selection = Box::new(selection);
        self.issued.insert(shard, Issued { selection, vector: vector.clone() });
        wipe_stack();
        Ok(vector)
    }

    /// The key bundle for packs of this shape, and its name: computed once, then the same bytes.
    pub fn bundle(&mut self, shape: &Shape) -> Result<(&str, &Arc<[u8]>), SecretError> {
        self.check_process()?;
        let pack_rows = shape.pack_rows();
        if !self.bundles.contains_key(&pack_rows) {
            let bytes: Arc<[u8]> = self.make_bundle(pack_rows).into();
            self.bundles.insert(pack_rows, Bundle { uid: bundle_uid(&bytes), bytes });
            wipe_stack();
        }
        let bundle = &self.bundles[&pack_rows];
        Ok((&bundle.uid, &bundle.bytes))
    }

    /// Whether it encrypted as many queries as it may.
    pub fn is_full(&self) -> bool {
        self.issued.len() >= QUERIES_PER_SECRET_MAX
    }

    /// The stored vector of a shard.
    pub(super) fn issued(&self, shard: u32) -> Option<Arc<[u8]>> {
        self.issued.get(&shard).map(|issued| issued.vector.clone())
    }

    /// The stored bundle, of the pool's one shape.
    pub(super) fn only_bundle(&self) -> Option<(&str, Arc<[u8]>)> {
        self.bundles.values().next().map(|bundle| (&*bundle.uid, bundle.bytes.clone()))
    }

    /// The secret in slots modulo Q, for decoding.
    pub(super) fn slots_q(&self) -> Result<&Poly, SecretError> {
        self.check_process()?;
        Ok(&self.slots_q)
    }

    fn check_process(&self) -> Result<(), SecretError> {
        if self.process == std::process::id() { Ok(()) } else { Err(SecretError::Forked) }
    }

    /// b = a*s + e + u*2^24 modulo 2^32, a value a column; columns are those of `errors`.
    pub(super) fn encrypt(
        &self,
        shard: u32,
        selection: &Selection,
        errors: &[i8],
    ) -> Zeroizing<Vec<u32>> {
        let rings = Rings::get(crate::arith::Isa::detect());
        let mut out = Zeroizing::new(vec![0u32; errors.len()]);
        let (mut sum, mut product) = (Sum::default(), secret_poly());
        for (block, values) in out.chunks_mut(D).enumerate() {
            let mask = query_mask(&self.seed, shard, block as u32);
            sum.add_product(&Pair::of_u32(&rings, &mask), &self.exact);
            sum.take(&rings, &mut product);
            for (at, value) in values.iter_mut().enumerate() {
                let column = block * D + at;
                let selected = selection.at(column as u32) << 24;
                *value = product[at]
                    .wrapping_add(i32::from(errors[column]) as u32)
                    .wrapping_add(selected);
            }
        }
        out
    }

    fn make_bundle(&self, pack_rows: usize) -> Vec<u8> {
        let chains = Chains::new(pack_rows);
        let mut out = Vec::with_capacity(chains.keys().len() * 2 * D * 3);
        for &key in chains.keys() {
            let size = (pack_rows as u32).to_le_bytes();
            let label = [&[b'e', key.label()][..], &size].concat();
            let errors = binomial(&self.prf_key, &label, D);
            self.bundle_key(key, pack_rows, &errors, &mut out);
        }
        out
    }

    #[cfg(test)]
    pub(super) fn errors_for_test(&self, label: &[u8], count: usize) -> Zeroizing<Vec<i8>> {
        binomial(&self.prf_key, label, count)
    }

    /// y = w*s + e + P*target modulo Q and P, in slots; the same error for both primes.
    pub(super) fn bundle_key(
        &self,
        key: KeyName,
        pack_rows: usize,
        errors: &[i8],
        out: &mut Vec<u8>,
    ) {
        let rings = Rings::get(crate::arith::Isa::detect());
        let to_target = match key {
            KeyName::G => Automorphism::rotation(Chains::new(pack_rows).stride),
            KeyName::H => Automorphism { rotation: 0, conjugate: Halves::Swapped },
        };
        let mut target = secret_poly();
        to_target.apply(&self.slots_q[..], &mut target[..]);
        let mut noise = secret_poly();
        for (to, &e) in noise.iter_mut().zip(errors) {
            *to = from_signed::<Q>(e.into());
        }
        rings.q.forward(&mut noise);
        let mask = key_mask::<Q>(&self.seed, key, pack_rows);
        for slot in 0..D {
            let masked = mul::<Q>(mask[slot], self.slots_q[slot]);
            let image = mul::<Q>(target[slot], const { reduce::<Q>(P as u64) });
            let y = add::<Q>(add::<Q>(masked, noise[slot]), image);
            out.extend(write_residue(y));
        }
        for (to, &e) in noise.iter_mut().zip(errors) {
            *to = from_signed::<P>(e.into());
        }
        rings.p.forward(&mut noise);
        let mask = key_mask::<P>(&self.seed, key, pack_rows); // P*target vanishes modulo P
        for slot in 0..D {
            let y = add::<P>(mul::<P>(mask[slot], self.slots_p[slot]), noise[slot]);
            out.extend(write_residue(y));
        }
    }
}

/// From modulo 2^32 to three bytes a column: (b + 128) >> 8 modulo 2^24.
pub(super) fn round_to_wire(ciphertext: &[u32]) -> Vec<u8> {
    ciphertext.iter().flat_map(|&b| write_residue(b.wrapping_add(128) >> 8)).collect()
}

/// BLAKE3 keyed with the secret's key. Hasher and reader hold that key, so both are wiped.
fn prf(key: &[u8; 32], label: &[u8], out: &mut [u8]) {
    let mut hasher = Zeroizing::new(blake3::Hasher::new_keyed(key));
    hasher.update(label);
    Zeroizing::new(hasher.finalize_xof()).fill(out);
}

/// Overwrites what the calls before this one left below it on the stack: a transform's scratch
/// space holds a secret as surely as its outcome does.
#[inline(never)]
pub(super) fn wipe_stack() {
    let mut room = [0u64; 4 << 10];
    room.zeroize();
    std::hint::black_box(&mut room);
}

/// D uniform ternary coefficients: floor(3 x / 2^64) - 1 of 64 random bits each (the bias is below
/// 2^-62), so every coefficient costs the same.
fn ternary(prf_key: &[u8; 32]) -> Box<Zeroizing<[i8; D]>> {
    let mut bytes = Zeroizing::new([0u8; 8 * D]);
    prf(prf_key, b"s", &mut bytes[..]);
    let mut out = Box::new(Zeroizing::new([0; D]));
    for (to, raw) in out.iter_mut().zip(bytes.as_chunks::<8>().0) {
        let x = u128::from(u64::from_le_bytes(*raw));
        *to = ((x * 3) >> 64) as i8 - 1;
    }
    out
}

/// Centered binomial errors with parameter 21: the difference of two counts over 21 bits each.
fn binomial(prf_key: &[u8; 32], label: &[u8], count: usize) -> Zeroizing<Vec<i8>> {
    let mut bytes = Zeroizing::new(vec![0; 6 * count]);
    prf(prf_key, label, &mut bytes);
    let draws = bytes.as_chunks::<6>().0.iter().map(|&[a, b, c, d, e, f]| {
        let bits = u64::from_le_bytes([a, b, c, d, e, f, 0, 0]);
        let ones = |bits: u64| (bits & 0x1f_ffff).count_ones() as i8;
        ones(bits) - ones(bits >> 21)
    });
    Zeroizing::new(draws.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_that_is_moved_leaves_nothing_behind() {
        let shape = Shape::new(24, 128, 1, 192).unwrap();
        let mut secret = Secret::draw([1; 32]).unwrap();
        secret.query(7, &shape, Selection::new(3, 5)).unwrap();
        let places = |secret: &Secret| {
            let key: *const u8 = secret.prf_key.as_ptr();
            let selection: *const Selection = &*secret.issued[&7].selection;
            (key, selection, secret.slots_q.as_ptr(), secret.slots_p.as_ptr())
        };
        let before = places(&secret);
        let mut moved = vec![secret];
        moved.reserve_exact(100);
        assert_eq!(places(&moved[0]), before);
    }
}
