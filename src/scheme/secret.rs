//! A secret, from its first byte to its last ciphertext.
//!
//! The rule (docs/scheme.md, "Secrets"): a secret encrypts one selection for a shard once, ever. A
//! [`Secret`] therefore knows all its queries before it is drawn (its key comes from them, see
//! [`super::hedge`]), encrypts them and its key bundle in one step that uses it up, and leaves a
//! [`UsedSecret`]: the bytes that were made, and what it takes to decode. There is no other way to
//! encrypt. Errors come from a PRF keyed inside the secret. Neither is Clone nor Serialize nor
//! Debug; both are wiped when dropped. Everything here runs in constant time; shard numbers and
//! shape are public.

use std::collections::BTreeMap;
use std::sync::Arc;

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::bundle::bundle_uid;
use super::coding::write_residue;
use super::mask::{Seed, key_mask, query_mask};
use super::terms::{Chains, KeyName};
use crate::arith::exact::{Pair, Sum};
use crate::arith::{
    Automorphism, Halves, Isa, Rings, SecretPoly, add, from_signed, mul, reduce, secret_poly,
};
use crate::limits::QUERIES_PER_SECRET_MAX;
use crate::params::{BAND, D, P, Q, Shape};

/// Which columns a query selects: bit j of the coefficients selects column `start + j`. Secret.
pub struct Selection {
    /// Boxed: a list moves its entries, and what it moves from is not wiped.
    band: Box<Selected>,
    /// Columns there must be for it to fit. Public.
    columns_min: usize,
}

#[derive(Zeroize, ZeroizeOnDrop)]
struct Selected {
    start: u32,
    coeffs: u128,
}

impl Selection {
    /// A band of 128 columns from `start`; bit j of `coeffs` selects column `start + j`. Whether it
    /// fits a shape is compared later, so `start` is not secret here.
    pub fn new(start: u32, coeffs: u128) -> Self {
        let columns_min = (start as usize).saturating_add(BAND);
        Self { band: Box::new(Selected { start, coeffs }), columns_min }
    }

    /// As [`Selection::new`], of a secret band that is known to lie within `columns` columns.
    pub(crate) fn within(columns: usize, start: u32, coeffs: u128) -> Self {
        Self { band: Box::new(Selected { start, coeffs }), columns_min: columns }
    }

    pub(super) fn fits(&self, shape: &Shape) -> Result<(), SecretError> {
        let columns = shape.columns();
        if self.columns_min <= columns { Ok(()) } else { Err(SecretError::Selection { columns }) }
    }

    pub(super) fn hash_into(&self, hasher: &mut blake3::Hasher) {
        hasher.update(&self.band.start.to_le_bytes()).update(&self.band.coeffs.to_le_bytes());
    }

    /// Entry `column` of the selection vector: 0 or 1, in constant time.
    #[inline(always)]
    fn at(&self, column: u32) -> u32 {
        let offset = column.wrapping_sub(self.band.start);
        // One when offset < BAND: the difference borrows.
        let inside = (u64::from(offset).wrapping_sub(BAND as u64) >> 63) as u32;
        (self.band.coeffs >> (offset % BAND as u32)) as u32 & inside
    }

    /// Whether both select the same columns.
    #[cfg(test)]
    pub(crate) fn equals(&self, other: &Self) -> bool {
        (self.band.start, self.band.coeffs) == (other.band.start, other.band.coeffs)
    }
}

/// A query, and which secret of its step it falls to.
#[derive(Clone, Copy)]
pub(super) struct Planned<'a> {
    pub(super) secret: usize,
    pub(super) shard: u32,
    pub(super) selection: &'a Selection,
}

/// Why a query is not encrypted, or an answer not decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // Names say it.
pub enum SecretError {
    #[error("these secrets are another process's, from before a fork: look up again from here")]
    Forked,
    #[error("the selection does not fit {columns} columns")]
    Selection { columns: usize },
    #[error("the query was not made by this pool")]
    Unknown,
    #[error("encrypting was stopped: nobody waits for it")]
    Stopped,
    #[error("the operating system gave no random bytes: {0}")]
    NoRandomness(String),
    #[error("{what} has {found} bytes, expected {expected}")]
    Length { what: &'static str, found: usize, expected: usize },
}

/// What a secret and all its errors are drawn from. Boxed: whoever moves a secret (a growing list
/// of them, say) leaves no copy of it behind.
pub(super) type PrfKey = Box<Zeroizing<[u8; 32]>>;

/// A ternary secret bound to one database seed, before it encrypted anything.
pub(super) struct Secret {
    isa: Isa,
    seed: Seed,
    prf_key: PrfKey,
    slots_q: SecretPoly,
    slots_p: SecretPoly,
    exact: Zeroizing<Pair>,
}

/// What is left of a secret that encrypted everything it ever will: it decodes.
pub(super) struct UsedSecret {
    /// The secret in slots modulo Q.
    pub(super) slots_q: SecretPoly,
    /// The key bundle as sent, and its name.
    pub(super) bundle: Arc<[u8]>,
    pub(super) uid: String,
    /// The encrypted vector of each shard, three bytes a column.
    pub(super) vectors: BTreeMap<u32, Arc<[u8]>>,
}

impl Secret {
    /// The secret is a function of 32 bytes: its coefficients and all its errors.
    pub(super) fn from_key(isa: Isa, seed: Seed, prf_key: PrfKey) -> Self {
        let coefficients = ternary(&prf_key);
        Self::from_parts(isa, seed, prf_key, &coefficients)
    }

    pub(super) fn from_parts(
        isa: Isa,
        seed: Seed,
        prf_key: PrfKey,
        coefficients: &[i8; D],
    ) -> Self {
        let rings = Rings::get(isa);
        let mut slots_q = secret_poly();
        let mut slots_p = secret_poly();
        for (at, &c) in coefficients.iter().enumerate() {
            slots_q[at] = from_signed::<Q>(c.into());
            slots_p[at] = from_signed::<P>(c.into());
        }
        rings.q.forward(&mut slots_q);
        rings.p.forward(&mut slots_p);
        let exact = Zeroizing::new(Pair::of_small(&rings, coefficients));
        Self { isa, seed, prf_key, slots_q, slots_p, exact }
    }

    /// Encrypts all queries there will ever be under this secret, and its key bundle, and uses it
    /// up. The selections fit the shape.
    ///
    /// # Panics
    /// With more than 16 queries, or two for one shard: whoever plans them has a defect, and a
    /// second ciphertext must not exist.
    pub(super) fn encrypt_all(self, shape: &Shape, queries: &[Planned<'_>]) -> UsedSecret {
        assert!(queries.len() <= QUERIES_PER_SECRET_MAX, "this is a bug: too many under a secret");
        let bundle: Arc<[u8]> = self.make_bundle(shape.pack_rows()).into();
        let mut vectors = BTreeMap::new();
        for query in queries {
            let errors = self.query_errors(query.shard, shape.columns());
            let ciphertext = self.encrypt(query.shard, query.selection, &errors);
            let before = vectors.insert(query.shard, round_to_wire(&ciphertext).into());
            assert!(before.is_none(), "this is a bug: two queries for a shard under one secret");
        }
        UsedSecret { slots_q: self.slots_q, uid: bundle_uid(&bundle), bundle, vectors }
    }

    pub(super) fn query_errors(&self, shard: u32, columns: usize) -> Zeroizing<Vec<i8>> {
        let label = [&b"q"[..], &self.seed, &shard.to_le_bytes()].concat();
        binomial(&self.prf_key, &label, columns)
    }

    /// The secret in slots modulo Q, for tests that decode what they encrypted by hand.
    #[cfg(test)]
    pub(super) fn slots_q(&self) -> &crate::arith::Poly {
        &self.slots_q
    }

    /// b = a*s + e + u*2^24 modulo 2^32, a value a column (docs/scheme.md, "Key bundle and query");
    /// columns are those of `errors`.
    pub(super) fn encrypt(
        &self,
        shard: u32,
        selection: &Selection,
        errors: &[i8],
    ) -> Zeroizing<Vec<u32>> {
        let rings = Rings::get(self.isa);
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

    /// y = w*s + e + P*target modulo Q and P, in slots; the same error for both primes
    /// (docs/scheme.md, "Key bundle and query").
    pub(super) fn bundle_key(
        &self,
        key: KeyName,
        pack_rows: usize,
        errors: &[i8],
        out: &mut Vec<u8>,
    ) {
        let rings = Rings::get(self.isa);
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
pub(super) fn prf(key: &[u8; 32], label: &[u8], out: &mut [u8]) {
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
        let secret = Secret::from_key(Isa::detect(), [1; 32], Box::new(Zeroizing::new([2; 32])));
        let places = |secret: &Secret| {
            let key: *const u8 = secret.prf_key.as_ptr();
            (key, secret.slots_q.as_ptr(), secret.slots_p.as_ptr())
        };
        let before = places(&secret);
        let mut moved = vec![secret];
        moved.reserve_exact(100);
        assert_eq!(places(&moved[0]), before);

        let selection = Selection::new(3, 5);
        let place = |selection: &Selection| -> *const Selected { &*selection.band };
        let before = place(&selection);
        let mut moved = vec![(7, selection)];
        moved.reserve_exact(100);
        assert_eq!(place(&moved[0].1), before);

        let secret = Secret::from_key(Isa::detect(), [1; 32], Box::new(Zeroizing::new([2; 32])));
        let before = secret.slots_q.as_ptr();
        let shape = Shape::new(24, 128, 1, 192).unwrap();
        let mut used = vec![secret.encrypt_all(&shape, &[])];
        used.reserve_exact(100);
        assert_eq!(used[0].slots_q.as_ptr(), before);
    }
}
