//! The server's offline work for a shard: from rows to pack tables and hints.
//!
//! Source: InspiRING (Mahdavi, Patel, Seo, Yeo, ePrint 2025/1352); docs/scheme.md, "Pack tables and
//! hints". Three steps a pack: every row's mask polynomial, exact modulo 2^32 and rounded to Q; a
//! two-dimensional NTT whose diagonals are the coefficients of all automorphisms at once; and the
//! collapse, one key switch after the other, which leaves the hint. The same bytes on every
//! instruction set and any number of threads. Runs on the current rayon pool.

use rayon::prelude::*;

use super::coding::{pack_bits, round_to_bits, write_residue};
use super::mask::{Seed, key_mask, query_mask};
use super::terms::{Chains, KeyName};
use crate::arith::exact::{Pair, Sum};
use crate::arith::{
    Automorphism, Halves, Isa, Loops, Poly, Rings, inverse, mul, reduce, sub, zero_poly,
};
use crate::params::{D, HALF, P, Q, Shape};

/// Rows of a cache line of residues: how many columns of the grid are transformed together.
const STRIP: usize = 16;

/// A polynomial modulo both primes, in slots.
struct InSlots {
    q: Box<Poly>,
    p: Box<Poly>,
}

fn mask_of(seed: &Seed, key: KeyName, pack_rows: usize) -> InSlots {
    InSlots { q: key_mask::<Q>(seed, key, pack_rows), p: key_mask::<P>(seed, key, pack_rows) }
}

/// The masks of one shard, transformed: what building its tables needs.
pub struct ShardMasks {
    rings: Rings,
    shape: Shape,
    blocks: Vec<Pair>,
    g: InSlots,
    h: Option<InSlots>,
}

impl ShardMasks {
    /// Draws and transforms the masks of `shard`.
    pub fn new(isa: Isa, seed: &Seed, shard: u32, shape: &Shape) -> Self {
        let rings = Rings::get(isa);
        let blocks = (0..shape.blocks() as u32)
            .map(|block| Pair::of_u32(&rings, &query_mask(seed, shard, block)))
            .collect();
        let size = shape.pack_rows();
        let h = (size == D).then(|| mask_of(seed, KeyName::H, size));
        Self { rings, shape: *shape, blocks, g: mask_of(seed, KeyName::G, size), h }
    }

    /// Builds one pack. `rows` is pack_rows x columns signed bytes, row-major; fills `table`
    /// (`shape.table_bytes()`) and `hint` (`shape.hint_bytes()`, packed by bit).
    pub fn build_pack(&self, rows: &[u8], table: &mut [u8], hint: &mut [u8]) {
        assert_eq!(rows.len(), self.shape.pack_rows() * self.shape.columns());
        assert_eq!(table.len(), self.shape.table_bytes());
        assert_eq!(hint.len(), self.shape.hint_bytes());
        let grid = self.grid(&self.row_masks(rows));
        let chains = self.chains();
        let halves: Vec<(Vec<InSlots>, Box<Poly>)> = chains
            .conjugates()
            .par_iter()
            .map(|&conjugate| {
                self.rings.isa.run(Collapse { masks: self, grid: &grid, chains, conjugate })
            })
            .collect();
        let mut walked = Vec::with_capacity(self.shape.terms());
        let mut ends = Vec::with_capacity(2);
        for (walk, end) in halves {
            walked.extend(walk);
            ends.push(end);
        }
        if let (Some(mask), Some(rest)) = (&self.h, ends.pop_if(|_| chains.size == D)) {
            let mut lifted = zero_poly();
            self.rings.lift_to_p(&rest, &mut lifted);
            let spill = self.spill(&rest, &lifted, mask, Automorphism::rotation(0));
            subtract(&mut ends[0], &spill);
            walked.push(InSlots { q: rest, p: lifted });
        }
        store(&walked, table);
        let last = &mut ends[0];
        self.rings.q.inverse(last);
        let bits = self.shape.hint_bits();
        pack_bits(last.iter().map(|&x| round_to_bits(x, bits)), bits, hint);
    }

    /// Step 1: for each row r, sum_j a_j * reverse(row r, block j) modulo 2^32, rounded to Q,
    /// divided by the pack's size, in slots. D residues a row.
    fn row_masks(&self, rows: &[u8]) -> Vec<u32> {
        let mut out = vec![0; self.shape.pack_rows() * D];
        let work = out.par_chunks_mut(D).zip(rows.par_chunks(self.shape.columns()));
        work.for_each_init(Sum::default, |sum, (out, row)| {
            let out: &mut Poly = out.try_into().expect("this is a bug: chunks of D");
            self.rings.isa.run(RowMask { masks: self, row, sum, out });
        });
        out
    }

    /// Step 2: transforms along the rows. Only slots that an automorphism of the pack takes x to
    /// are wanted of the polynomial of slot x; with `size` rows those are the values at one coset
    /// of `size` powers of psi, one block of a transform. So a row of the result is D / size
    /// polynomials at once: row k those of the k-th slot x of every class of slots that the
    /// automorphisms connect, each value at its own slot.
    fn grid(&self, by_row: &[u32]) -> Vec<u32> {
        let (size, stride) = (self.shape.pack_rows(), self.chains().stride);
        let mut grid = vec![0; size * D];
        grid.par_chunks_mut(STRIP * D).enumerate().for_each(|(strip, out)| {
            for class in 0..D / size {
                let slot = class / stride * HALF + class % stride + strip * STRIP * stride;
                let block = self.rings.q.block_of(slot, size);
                for (r, row) in by_row.chunks_exact(D).enumerate() {
                    for lane in 0..STRIP {
                        out[lane * D + block * size + r] = row[slot + lane * stride];
                    }
                }
            }
            for poly in out.chunks_exact_mut(D) {
                let poly = poly.try_into().expect("this is a bug: chunks of D");
                self.rings.q.forward_blocks(poly, size);
            }
        });
        grid
    }

    fn chains(&self) -> Chains {
        Chains::new(self.shape.pack_rows())
    }

    /// round(current * tau(w) / P) in slots modulo Q.
    #[inline(always)]
    fn spill(&self, q: &Poly, p: &Poly, mask: &InSlots, tau: Automorphism) -> Box<Poly> {
        let (mut spill_q, mut spill_p) = (zero_poly(), zero_poly());
        tau.apply(&mask.q[..], &mut spill_q[..]);
        tau.apply(&mask.p[..], &mut spill_p[..]);
        for (to, &from) in spill_q.iter_mut().zip(q) {
            *to = mul::<Q>(*to, from);
        }
        for (to, &from) in spill_p.iter_mut().zip(p) {
            *to = mul::<P>(*to, from);
        }
        self.rings.divide_by_p(&mut spill_q, &mut spill_p);
        spill_q
    }
}

#[inline(always)]
fn subtract(from: &mut Poly, what: &Poly) {
    for (from, &what) in from.iter_mut().zip(what) {
        *from = sub::<Q>(*from, what);
    }
}

/// Step 1 of one row.
struct RowMask<'a> {
    masks: &'a ShardMasks,
    row: &'a [u8],
    sum: &'a mut Sum,
    out: &'a mut Poly,
}

impl Loops for RowMask<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { masks, row, sum, out } = self;
        let size_inverse = inverse::<Q>(masks.shape.pack_rows() as u32);
        for (values, mask) in row.chunks(D).zip(&masks.blocks) {
            sum.add_product(&Pair::of_small_reversed(&masks.rings, values), mask);
        }
        sum.take(&masks.rings, out);
        for x in out.iter_mut() {
            let rounded = reduce::<Q>((u64::from(*x) * u64::from(Q) + (1 << 31)) >> 32);
            *x = mul::<Q>(rounded, size_inverse);
        }
        masks.rings.q.forward(out);
    }
}

/// Step 3: from the last automorphism of a half down to the first, each switched by key g into the
/// one before it.
struct Collapse<'a> {
    masks: &'a ShardMasks,
    grid: &'a [u32],
    chains: Chains,
    conjugate: Halves,
}

impl Collapse<'_> {
    fn automorphism(&self, step: usize) -> Automorphism {
        Automorphism { rotation: self.chains.stride * step, conjugate: self.conjugate }
    }

    /// What multiplies tau_g(s) for g = +-5^(stride * step), in slots.
    #[inline(always)]
    fn alpha(&self, step: usize) -> Box<Poly> {
        let tau = self.automorphism(step);
        let Chains { size, stride, .. } = self.chains;
        let mut poly = zero_poly();
        for (slot, value) in poly.iter_mut().enumerate() {
            let source = tau.source(slot);
            // Which of its class, see `ShardMasks::grid`; for D rows there is one class.
            let row = if size == D { source } else { source % HALF / stride };
            *value = self.grid[row * D + slot];
        }
        poly
    }
}

impl Loops for Collapse<'_> {
    /// Each switched polynomial with its lift, ascending by rotation, and what is left.
    type Output = (Vec<InSlots>, Box<Poly>);

    #[inline(always)]
    fn run(self) -> Self::Output {
        let (masks, length) = (self.masks, self.chains.length);
        let mut walk = Vec::with_capacity(length - 1);
        let mut current = self.alpha(length - 1);
        for step in (0..length - 1).rev() {
            let mut lifted = zero_poly();
            masks.rings.lift_to_p(&current, &mut lifted);
            let spill = masks.spill(&current, &lifted, &masks.g, self.automorphism(step));
            let mut next = self.alpha(step);
            subtract(&mut next, &spill);
            walk.push(InSlots { q: std::mem::replace(&mut current, next), p: lifted });
        }
        walk.reverse();
        (walk, current)
    }
}

/// Table order: [prime Q, P][slot / 32][term][slot % 32], three bytes little-endian each.
fn store(walked: &[InSlots], table: &mut [u8]) {
    let (by_q, by_p) = table.split_at_mut(table.len() / 2);
    let block_bytes = walked.len() * 32 * 3;
    let fill = |half: &mut [u8], poly: fn(&InSlots) -> &Poly| {
        half.par_chunks_mut(block_bytes).enumerate().for_each(|(block, out)| {
            for (term, out) in walked.iter().zip(out.as_chunks_mut::<96>().0) {
                let (slots, last) = poly(term)[block * 32..][..32].split_at(31);
                for (at, slot) in slots.iter().enumerate() {
                    // The fourth byte is zero, and the next residue's to write.
                    out[3 * at..3 * at + 4].copy_from_slice(&slot.to_le_bytes());
                }
                out[93..].copy_from_slice(&write_residue(last[0]));
            }
        });
    };
    fill(by_q, |term| &term.q);
    fill(by_p, |term| &term.p);
}
