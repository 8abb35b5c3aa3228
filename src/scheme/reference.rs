//! The whole answer to one query, in the order of docs/scheme.md, "Answer".
//!
//! Written to be read, not to be fast: every engine equals it on every bit, and the builder asks
//! it for some records of each shard it makes. Symbols as on the page.

use super::bundle::KeyBundle;
use super::coding::{pack_bits, read_residue, round_to_bits};
use super::terms::terms;
use crate::arith::{Isa, Poly, Rings, reduce, sub, zero_poly};
use crate::params::{D, P, Q, Shape};

/// Answers one query: one packed response a pack.
///
/// `matrix` is rows x columns signed bytes; `tables` the pack tables one after the other;
/// `query` three bytes a column. Panics when a length does not fit the shape.
pub fn answer(
    shape: &Shape,
    matrix: &[u8],
    tables: &[u8],
    query: &[u8],
    bundle: &KeyBundle,
) -> Vec<Vec<u8>> {
    assert_eq!(matrix.len(), shape.matrix_bytes());
    assert_eq!(tables.len(), shape.packs() * shape.table_bytes());
    assert_eq!(query.len(), shape.query_bytes());
    let query: Vec<u32> = query.as_chunks::<3>().0.iter().map(read_residue).collect();
    let scanned = scan(shape, matrix, &query);
    let packs = scanned.chunks_exact(shape.pack_rows()).zip(tables.chunks(shape.table_bytes()));
    packs.map(|(values, table)| pack(shape, table, values, bundle)).collect()
}

/// Step 1: the dot product of every row with the query, modulo 2^24.
pub(super) fn scan(shape: &Shape, matrix: &[u8], query: &[u32]) -> Vec<u32> {
    let dot = |row: &[u8]| {
        let products = row.iter().zip(query).map(|(&m, &q)| (m as i8 as u32).wrapping_mul(q));
        products.fold(0, u32::wrapping_add) & 0xff_ffff
    };
    matrix.chunks_exact(shape.columns()).map(dot).collect()
}

/// Step 2: the LWE values of one pack's rows become one ring ciphertext; its body, rounded.
fn pack(shape: &Shape, table: &[u8], scanned: &[u32], bundle: &KeyBundle) -> Vec<u8> {
    let rings = Rings::get(Isa::PORTABLE);
    // The mask: the sum over all terms of table times rotated key, modulo QP, divided by P.
    let mut mask = sum_of_terms::<Q>(shape, table, bundle, 0);
    let mut modulo_p = sum_of_terms::<P>(shape, table, bundle, 1);
    rings.divide_by_p(&mut mask, &mut modulo_p);
    rings.q.inverse(&mut mask);
    // The body: scanned values from modulo 2^24 to modulo Q, less the mask, to a few bits.
    let response = scanned.iter().zip(mask.iter()).map(|(&value, &mask)| {
        let body = reduce::<Q>((u64::from(value) * u64::from(Q) + (1 << 23)) >> 24);
        round_to_bits(sub::<Q>(body, mask), shape.response_bits())
    });
    let mut bytes = vec![0; shape.response_bytes()];
    pack_bits(response, shape.response_bits(), &mut bytes);
    bytes
}

/// Per slot, the sum over the terms of table word times rotated key word, modulo the prime `M`.
/// A table lies as [prime][slot / 32][term][slot % 32], three bytes a word.
fn sum_of_terms<const M: u32>(
    shape: &Shape,
    table: &[u8],
    bundle: &KeyBundle,
    prime: usize,
) -> Box<Poly> {
    let terms = terms(shape.pack_rows());
    let words = table.as_chunks::<3>().0;
    let mut sums = zero_poly();
    for (slot, sum) in sums.iter_mut().enumerate() {
        let block = (prime * D / 32 + slot / 32) * terms.len();
        let products = terms.iter().enumerate().map(|(index, term)| {
            let word = read_residue(&words[(block + index) * 32 + slot % 32]);
            let key = bundle.half(term.key.index(), prime)[term.automorphism.source(slot)];
            u64::from(word) * u64::from(key)
        });
        *sum = reduce::<M>(products.sum()); // at most 2047 products below 2^48
    }
    sums
}
