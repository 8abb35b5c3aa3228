//! The negacyclic number-theoretic transform of `Z_m[X]/(X^D + 1)` in slot order.
//!
//! Slot k < HALF is the value at psi^(5^k), slot HALF + k the value at psi^(-5^k), so that
//! automorphisms rotate slots ([`super::Automorphism`]). psi is `x^((m-1)/2D)` for the smallest x
//! from 2 on for which it has order 2D (docs/scheme.md, "Pack tables and hints"). Residues are
//! fully reduced on entry and exit.
//!
//! Plan. Cooley-Tukey downwards and Gentleman-Sande upwards with the powers of psi merged into
//! the twiddles (Longa, Naehrig, CANS 2016), multiplications after Shoup (Harvey, J. Symb. Comp.
//! 2014): both leave values in bit-reversed order. Layers at distance 16 and more run over whole
//! vectors as they lie. For the last four layers, blocks of 16 groups of 16 are transposed, so
//! that those layers run over whole vectors too, with one twiddle a lane; the way to and from
//! slot order is a table, which undoes the transposition and the bit reversal at once. The same
//! source is compiled for each instruction set; the compiler makes the vectors.

use std::sync::OnceLock;

use super::isa::{Isa, Loops};
use super::residue::{Poly, add, inverse, pow, reduce_once, sub};
use crate::params::{D, HALF};

const LOG: usize = D.trailing_zeros() as usize;
/// Lanes of a vector, and the distance below which layers run transposed.
const LANES: usize = 16;
/// Values in a transposed block: LANES groups of LANES.
const BLOCK: usize = LANES * LANES;
/// Butterflies of the transposed layers of one block: 1 + 2 + 4 + 8.
const LOW_BUTTERFLIES: usize = 15;

type Row = [u32; LANES];
/// Factors of a transposed block, layer by layer: for each butterfly the values, then what Shoup's
/// multiplication needs beside them, one a lane.
type LowTwiddles = [[Row; 2]; LOW_BUTTERFLIES];

/// A factor and what Shoup's multiplication needs beside it: floor(value * 2^32 / m).
#[derive(Clone, Copy, Default)]
struct Factor {
    value: u32,
    shoup: u32,
}

impl Factor {
    fn new<const M: u32>(value: u32) -> Self {
        Self { value, shoup: ((u64::from(value) << 32) / u64::from(M)) as u32 }
    }
}

/// `x * w mod M` for any x below 2^32; the result is fully reduced.
#[inline(always)]
fn mul_shoup<const M: u32>(x: u32, value: u32, shoup: u32) -> u32 {
    let quotient = (u64::from(x).wrapping_mul(u64::from(shoup)) >> 32) as u32;
    reduce_once::<M>(x.wrapping_mul(value).wrapping_sub(quotient.wrapping_mul(M)))
}

/// Twiddles of one direction: `high[i]` for the layers on whole vectors, `low` for each block.
struct Twiddles {
    high: [Factor; D / LANES],
    low: Vec<LowTwiddles>,
}

impl Twiddles {
    /// From `powers[i]`, the twiddle of group i in the usual heap order (1, then 2..4, ...).
    fn new<const M: u32>(powers: &[u32]) -> Self {
        let mut high = [Factor::default(); D / LANES];
        for (factor, &power) in high.iter_mut().zip(powers) {
            *factor = Factor::new::<M>(power);
        }
        let mut low = vec![[[[0; LANES]; 2]; LOW_BUTTERFLIES]; D / BLOCK];
        for (block, low) in low.iter_mut().enumerate() {
            for groups in [1, 2, 4, 8] {
                for inner in 0..groups {
                    let [values, shoups] = &mut low[groups - 1 + inner];
                    for lane in 0..LANES {
                        let group = (block * LANES + lane) * groups + inner;
                        let factor = Factor::new::<M>(powers[D / LANES * groups + group]);
                        (values[lane], shoups[lane]) = (factor.value, factor.shoup);
                    }
                }
            }
        }
        Self { high, low }
    }
}

/// Tables of the prime `M`, made once a process.
pub struct Tables<const M: u32> {
    psi: u32,
    down: Twiddles,
    up: Twiddles,
    size_inverse: Factor,
    /// Where slot k lies after the downward layers.
    slot_at: [u16; D],
}

fn bit_reversed(index: usize, bits: usize) -> usize {
    index.reverse_bits() >> (usize::BITS as usize - bits)
}

/// Where value `index` of a block-transposed array lies.
fn transposed(index: usize) -> usize {
    let (block, group, lane) = (index / BLOCK, index / LANES % LANES, index % LANES);
    block * BLOCK + lane * LANES + group
}

impl<const M: u32> Tables<M> {
    fn new() -> Self {
        let order = 2 * D as u64;
        let psi = (2..M)
            .map(|x| pow::<M>(x, (u64::from(M) - 1) / order))
            .find(|&root| pow::<M>(root, order / 2) == M - 1)
            .expect("this is a bug: the prime is 1 modulo 2D");
        let psi_inverse = inverse::<M>(psi);
        let powers = |root: u32| -> Vec<u32> {
            (0..D).map(|i| pow::<M>(root, bit_reversed(i, LOG) as u64)).collect()
        };
        let mut slot_at = [0; D];
        let mut exponent = 1;
        for k in 0..HALF {
            let place = |e: usize| transposed(bit_reversed((e - 1) / 2, LOG)) as u16;
            slot_at[k] = place(exponent);
            slot_at[HALF + k] = place(2 * D - exponent);
            exponent = exponent * 5 % (2 * D);
        }
        Self {
            psi,
            down: Twiddles::new::<M>(&powers(psi)),
            up: Twiddles::new::<M>(&powers(psi_inverse)),
            size_inverse: Factor::new::<M>(inverse::<M>(D as u32)),
            slot_at,
        }
    }
}

/// The transform modulo the prime `M` on one instruction set. Copies are cheap.
#[derive(Clone, Copy)]
pub struct Ntt<const M: u32> {
    tables: &'static Tables<M>,
    isa: Isa,
}

impl<const M: u32> Ntt<M> {
    /// Uses the tables in `cell`, which it fills on first use.
    pub(super) fn new(cell: &'static OnceLock<Tables<M>>, isa: Isa) -> Self {
        const { assert!(M < 1 << 31 && (M as usize - 1).is_multiple_of(2 * D)) };
        Self { tables: cell.get_or_init(Tables::new), isa }
    }

    /// The root of unity of order 2D that the slots are powers of.
    pub fn psi(&self) -> u32 {
        self.tables.psi
    }

    /// Coefficients to slots, in place.
    pub fn forward(&self, poly: &mut Poly) {
        self.forward_blocks(poly, D);
    }

    /// As [`Ntt::forward`], of as many polynomials of `length` coefficients as there is room for,
    /// a power of two from LANES: each slot becomes the value of the one in block
    /// [`Ntt::block_of`] the slot. Below the layer where they are alone, blocks do not meet.
    pub fn forward_blocks(&self, poly: &mut Poly, length: usize) {
        assert!(length.is_power_of_two() && (LANES..=D).contains(&length), "this is a bug: length");
        let first_layer = LOG - length.trailing_zeros() as usize;
        self.isa.run(Forward { tables: self.tables, poly, first_layer });
    }

    /// Which of the blocks of `length` coefficients becomes the slot's value.
    pub fn block_of(&self, slot: usize, length: usize) -> usize {
        transposed(self.tables.slot_at[slot].into()) / length
    }

    /// Slots to coefficients, in place.
    pub fn inverse(&self, poly: &mut Poly) {
        self.isa.run(Backward { tables: self.tables, poly });
    }
}

struct Forward<'a, const M: u32> {
    tables: &'a Tables<M>,
    poly: &'a mut Poly,
    first_layer: usize,
}

struct Backward<'a, const M: u32> {
    tables: &'a Tables<M>,
    poly: &'a mut Poly,
}

impl<const M: u32> Loops for Forward<'_, M> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { tables, poly, first_layer } = self;
        let (rows, _) = poly.as_chunks_mut::<LANES>();
        for layer in first_layer..LOG - 4 {
            high_layer(rows, &tables.down, 1 << layer, down::<M>);
        }
        let mut scratch = [[0; LANES]; D / LANES];
        let (blocks, _) = rows.as_chunks::<LANES>();
        let (out_blocks, _) = scratch.as_chunks_mut::<LANES>();
        for ((block, out), low) in blocks.iter().zip(out_blocks).zip(&tables.down.low) {
            let mut block = transpose(block);
            low_layer::<1>(&mut block, low, down::<M>);
            low_layer::<2>(&mut block, low, down::<M>);
            low_layer::<4>(&mut block, low, down::<M>);
            low_layer::<8>(&mut block, low, down::<M>);
            *out = block;
        }
        let scratch = scratch.as_flattened();
        for (value, &at) in poly.iter_mut().zip(&tables.slot_at) {
            *value = scratch[usize::from(at) % D];
        }
    }
}

impl<const M: u32> Loops for Backward<'_, M> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { tables, poly } = self;
        let mut scratch = [[0; LANES]; D / LANES];
        let flat = scratch.as_flattened_mut();
        for (&value, &at) in poly.iter().zip(&tables.slot_at) {
            flat[usize::from(at) % D] = value;
        }
        let (rows, _) = poly.as_chunks_mut::<LANES>();
        let (blocks, _) = scratch.as_chunks::<LANES>();
        let (out_blocks, _) = rows.as_chunks_mut::<LANES>();
        for ((block, out), low) in blocks.iter().zip(out_blocks).zip(&tables.up.low) {
            let mut block = *block;
            low_layer::<8>(&mut block, low, up::<M>);
            low_layer::<4>(&mut block, low, up::<M>);
            low_layer::<2>(&mut block, low, up::<M>);
            low_layer::<1>(&mut block, low, up::<M>);
            *out = transpose(&block);
        }
        for layer in (0..LOG - 4).rev() {
            high_layer(rows, &tables.up, 1 << layer, up::<M>);
        }
        let Factor { value, shoup } = tables.size_inverse;
        for x in poly.iter_mut() {
            *x = mul_shoup::<M>(*x, value, shoup);
        }
    }
}

/// Cooley-Tukey: (a, b) -> (a + wb, a - wb), one twiddle for all lanes.
#[inline(always)]
fn down<const M: u32>(a: &mut Row, b: &mut Row, value: &Row, shoup: &Row) {
    for lane in 0..LANES {
        let t = mul_shoup::<M>(b[lane], value[lane], shoup[lane]);
        (a[lane], b[lane]) = (add::<M>(a[lane], t), sub::<M>(a[lane], t));
    }
}

/// Gentleman-Sande: (a, b) -> (a + b, (a - b)w).
#[inline(always)]
fn up<const M: u32>(a: &mut Row, b: &mut Row, value: &Row, shoup: &Row) {
    for lane in 0..LANES {
        let d = a[lane].wrapping_add(M).wrapping_sub(b[lane]);
        a[lane] = add::<M>(a[lane], b[lane]);
        b[lane] = mul_shoup::<M>(d, value[lane], shoup[lane]);
    }
}

/// One layer on whole vectors: `groups` groups of two runs of `distance` rows.
#[inline(always)]
fn high_layer(
    rows: &mut [Row],
    twiddles: &Twiddles,
    groups: usize,
    butterfly: impl Fn(&mut Row, &mut Row, &Row, &Row),
) {
    let distance = rows.len() / (2 * groups);
    for (group, run) in rows.chunks_exact_mut(2 * distance).enumerate() {
        let factor = twiddles.high[groups + group];
        let (value, shoup) = ([factor.value; LANES], [factor.shoup; LANES]);
        let (a, b) = run.split_at_mut(distance);
        for (a, b) in a.iter_mut().zip(b) {
            butterfly(a, b, &value, &shoup);
        }
    }
}

/// One layer of a transposed block: `groups` groups of two runs of 8 / groups rows.
#[inline(always)]
fn low_layer<const GROUPS: usize>(
    block: &mut [Row; LANES],
    twiddles: &LowTwiddles,
    butterfly: impl Fn(&mut Row, &mut Row, &Row, &Row),
) {
    let distance = LANES / (2 * GROUPS);
    for group in 0..GROUPS {
        let [value, shoup] = &twiddles[GROUPS - 1 + group];
        let run = &mut block[group * 2 * distance..(group + 1) * 2 * distance];
        let (a, b) = run.split_at_mut(distance);
        for (a, b) in a.iter_mut().zip(b) {
            butterfly(a, b, value, shoup);
        }
    }
}

#[inline(always)]
fn transpose(rows: &[Row; LANES]) -> [Row; LANES] {
    let mut out = [[0; LANES]; LANES];
    for (i, row) in rows.iter().enumerate() {
        for (j, &value) in row.iter().enumerate() {
            out[j][i] = value;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::residue::{BIG0, BIG1, mul, zero_poly};
    use super::super::rings::Rings;
    use super::*;
    use crate::params::{P, Q};

    fn random(seed: u64, m: u32) -> Box<Poly> {
        let mut poly = zero_poly();
        let mut xof = blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof();
        for value in poly.iter_mut() {
            let mut raw = [0; 4];
            xof.fill(&mut raw);
            *value = u32::from_le_bytes(raw) % m;
        }
        poly
    }

    /// Slots are the values at the powers of psi that slot order names; back again is identity.
    fn check<const M: u32>(ntt: Ntt<M>) {
        let mut edges = zero_poly();
        edges.fill(M - 1);
        for poly in [random(1, M), random(2, M), edges] {
            let mut slots = poly.clone();
            ntt.forward(&mut slots);
            for slot in [0, 1, 2, 777, HALF - 1, HALF, HALF + 1, D - 1] {
                let mut exponent = (0..slot % HALF).fold(1u64, |e, _| e * 5 % (2 * D as u64));
                if slot >= HALF {
                    exponent = 2 * D as u64 - exponent;
                }
                let point = pow::<M>(ntt.psi(), exponent);
                let value = poly.iter().rev().fold(0, |sum, &c| add::<M>(mul::<M>(sum, point), c));
                assert_eq!(slots[slot], value, "slot {slot} modulo {M}");
            }
            ntt.inverse(&mut slots);
            assert!(slots == poly, "modulo {M}");
        }
    }

    #[test]
    fn slots_are_values_in_slot_order_on_every_path() {
        for isa in Isa::all() {
            let rings = Rings::get(isa);
            check::<Q>(rings.q);
            check::<P>(rings.p);
            check::<BIG0>(rings.big0);
            check::<BIG1>(rings.big1);
        }
    }
}
