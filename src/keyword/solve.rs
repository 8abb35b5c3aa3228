//! Makes a shard's matrix: solves, for every group, "the band of each record sums to its tag and
//! field plus keystream, modulo 256" (docs/scheme.md, "Keyword layer").
//!
//! The integers modulo 256 are no field, so the system is eliminated modulo 2 once (a ribbon: each
//! row goes to its first free leading column) and lifted bit by bit: eight right-hand sides through
//! the same elimination, each the residual of those before. Columns that nothing determines take
//! the fill. The solution does not depend on the order of records, so they are sorted by band
//! start, which keeps eliminations short. Groups are solved in parallel on the current rayon pool.
//! Read next: [`super::lift`], the arithmetic on bytes.

use rayon::prelude::*;

pub use super::echelon::Record;
use super::echelon::{Echelon, Group};
use super::lift::solve_into;
use crate::arith::Isa;
use crate::limits::COLUMNS_MAX;
use crate::params::{RIBBON_SEEDS, Shape};
use crate::scheme::Seed;

#[allow(missing_docs)] // Names say it.
pub struct Solved {
    pub ribbon_seed: u32,
    /// rows x columns signed bytes, row-major.
    pub matrix: Vec<u8>,
    /// Largest sum of squares over the rows, entries taken as -128..=127.
    pub row_square_sum_max: u64,
}

/// Solves a shard; `None` when no ribbon seed works (too many records for these columns).
/// Panics when a group is out of range or a value too long: the builder checked both.
pub fn solve(
    isa: Isa,
    seed: &Seed,
    shard: u32,
    shape: &Shape,
    records: &[Record],
) -> Option<Solved> {
    let mut groups: Vec<Vec<&Record>> = vec![Vec::new(); shape.groups()];
    for record in records {
        assert!(record.value.len() < shape.value_len(), "this is a bug: value too long");
        groups[record.group as usize].push(record);
    }
    let groups: Vec<Group<'_>> =
        groups.into_par_iter().map(|records| Group::seal(shape, records)).collect();
    (0..RIBBON_SEEDS)
        .find_map(|ribbon_seed| try_seed(isa, seed, shard, shape, &groups, ribbon_seed))
}

fn try_seed(
    isa: Isa,
    seed: &Seed,
    shard: u32,
    shape: &Shape,
    groups: &[Group<'_>],
    ribbon_seed: u32,
) -> Option<Solved> {
    // Elimination first: it is what can fail, and the fill is long.
    let echelons: Option<Vec<Echelon<'_>>> =
        groups.par_iter().map(|group| Echelon::new(shape, ribbon_seed, group)).collect();
    let echelons = echelons?;
    let mut matrix = fill(seed, shard, ribbon_seed, shape);
    let group_bytes = shape.record_bytes() * shape.columns();
    matrix
        .par_chunks_mut(group_bytes)
        .zip(&echelons)
        .for_each(|(rows, echelon)| solve_into(echelon, isa, rows, shape));
    let row_square_sum_max = matrix.par_chunks(shape.columns()).map(square_sum).max().unwrap_or(0);
    Some(Solved { ribbon_seed, matrix, row_square_sum_max })
}

/// Uniform bytes for whatever the records leave undetermined: each entry at its own place in one
/// stream, `"f"|shard|ribbon_seed` under the seed. Filled in parallel, which changes nothing.
fn fill(seed: &Seed, shard: u32, ribbon_seed: u32, shape: &Shape) -> Vec<u8> {
    const PIECE: usize = 1 << 20;
    let label = [&b"f"[..], &shard.to_le_bytes(), &ribbon_seed.to_le_bytes()].concat();
    let mut hasher = blake3::Hasher::new_keyed(seed);
    hasher.update(&label);
    let mut out = vec![0; shape.matrix_bytes()];
    out.par_chunks_mut(PIECE).enumerate().for_each(|(index, piece)| {
        let mut reader = hasher.finalize_xof();
        reader.set_position((index * PIECE) as u64);
        reader.fill(piece);
    });
    out
}

fn square_sum(row: &[u8]) -> u64 {
    const { assert!((COLUMNS_MAX as u64) << 14 <= u32::MAX as u64) };
    row.iter().map(|&entry| u32::from((entry as i8).unsigned_abs()).pow(2)).sum::<u32>().into()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::{Location, band, locate, locate_known};
    use super::*;
    use crate::scheme::Selection;

    fn seed() -> Seed {
        std::array::from_fn(|i| i as u8)
    }

    fn vectors() -> Value {
        serde_json::from_str(include_str!("../../tests/vectors/vectors.json")).unwrap()
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    fn record(place: &Location, value: impl Into<Vec<u8>>) -> Record {
        Record { group: place.group, identity: place.identity, value: value.into() }
    }

    #[test]
    fn places_and_bands_are_those_of_the_vectors() {
        let v = &vectors()["keyword"];
        let key = v["sii"].as_str().unwrap().as_bytes();
        let place = locate(&seed(), key, 9, 64);
        assert_eq!(v["shard"], place.shard);
        assert_eq!(v["group"], place.group);
        assert_eq!(v["identity"], hex(&place.identity));
        let known = locate_known(&seed(), key, 9, 64);
        assert_eq!((known.shard, known.group), (place.shard, place.group));
        assert_eq!(known.identity, place.identity);
        let shape = Shape::new(24, 2048, 1, 320).unwrap();
        let record = record(&place, v["value"].as_str().unwrap());
        let group = Group::seal(&shape, vec![&record]);
        let (start, coeffs, _) = group.bands(&shape, 0)[0];
        assert_eq!(v["start"], start);
        assert_eq!(v["coeffs"], hex(&coeffs.to_le_bytes()));
        assert!(band(&place.identity, 0, &shape).equals(&Selection::new(start, coeffs)));
        assert_eq!(v["tag"], hex(&group.sealed[..8]));
        assert_eq!(v["sealed"], hex(&group.sealed));
    }

    #[test]
    fn the_ribbon_of_the_vectors_is_solved_in_any_order() {
        // Its fill is zero: solve one group by hand.
        let v = &vectors()["ribbon"];
        let shape = Shape::new(8, 128, 1, 192).unwrap();
        for reversed in [false, true] {
            let place = |i| locate(&seed(), format!("ribbon {i}").as_bytes(), 1, 1);
            let mut records: Vec<_> = (0..40).map(|i| record(&place(i), format!("v{i}"))).collect();
            if reversed {
                records.reverse();
            }
            let group = Group::seal(&shape, records.iter().collect());
            let echelon = Echelon::new(&shape, 3, &group).unwrap();
            for isa in Isa::all() {
                let mut matrix = vec![0; shape.record_bytes() * shape.columns()];
                solve_into(&echelon, isa, &mut matrix, &shape);
                let columns = shape.columns();
                let column = |column| matrix.iter().skip(column).step_by(columns).copied();
                let solution: Vec<u8> = (0..columns).flat_map(column).collect();
                let digest = blake3::hash(&solution).to_hex().to_string();
                assert_eq!(v["solution_bytes_digest"], digest);
                assert_eq!(v["solution"], solution[..6].iter().copied().collect::<Value>());
            }
        }
    }

    #[test]
    fn the_shard_of_the_vectors_is_built() {
        let v = &vectors()["build"];
        let shape = Shape::new(40, 128, 2, 192).unwrap();
        let place = |i| locate(&seed(), format!("+1555020{i:04}").as_bytes(), 3, 5);
        let records = (0..300).map(|i| (i, place(i))).filter(|(_, place)| place.shard == 2);
        let records = records.map(|(i, place)| record(&place, format!("im:u{i}@x.example")));
        let records: Vec<_> = records.collect();
        assert_eq!(v["count"], records.len());
        for isa in Isa::all() {
            let solved = solve(isa, &seed(), 2, &shape, &records).unwrap();
            assert_eq!(v["ribbon_seed"], solved.ribbon_seed);
            let digest = blake3::hash(&solved.matrix).to_hex().to_string();
            assert_eq!(v["matrix_bytes_digest"], digest);
            let squares = solved.matrix.chunks(192).map(square_sum).max().unwrap();
            assert_eq!(solved.row_square_sum_max, squares);
        }
    }

    /// More bytes than lanes, and a last part that is not full: three parts of one group.
    #[test]
    fn long_records_are_solved_over_their_fill_on_every_path() {
        let shape = Shape::new(300, 512, 1, 320).unwrap();
        let (columns, record_bytes) = (shape.columns(), shape.record_bytes());
        let records: Vec<Record> = (0..250u32)
            .map(|i| {
                let identity = *blake3::hash(&i.to_le_bytes()).as_bytes();
                Record { group: 0, identity, value: vec![i as u8; i as usize] }
            })
            .collect();
        for isa in Isa::all() {
            let solved = solve(isa, &seed(), 7, &shape, &records).unwrap();
            let group = Group::seal(&shape, records.iter().collect());
            for (start, coeffs, index) in group.bands(&shape, solved.ribbon_seed) {
                let sealed = &group.sealed[index as usize * record_bytes..][..record_bytes];
                for (lane, &expected) in sealed.iter().enumerate() {
                    let entries = &solved.matrix[lane * columns + start as usize..];
                    let bits = (0..128).filter(|&j| coeffs >> j & 1 == 1);
                    let sum = bits.fold(0u8, |sum, j| sum.wrapping_add(entries[j]));
                    assert_eq!(sum, expected, "{isa:?} {lane}");
                }
            }
            let echelon = Echelon::new(&shape, solved.ribbon_seed, &group).unwrap();
            let pivots: Vec<_> = echelon.rows.iter().map(|row| row.pivot as usize).collect();
            let fill = fill(&seed(), 7, solved.ribbon_seed, &shape);
            for (at, (&entry, &fill)) in solved.matrix.iter().zip(&fill).enumerate() {
                let determined = at / columns < record_bytes && pivots.contains(&(at % columns));
                assert!(determined || entry == fill, "{isa:?} row {}", at / columns);
            }
        }
    }

    #[test]
    fn too_many_records_find_no_seed() {
        let shape = Shape::new(40, 128, 1, 192).unwrap();
        let place = |i: u32| locate(&seed(), &i.to_le_bytes(), 1, shape.groups() as u32);
        let records: Vec<_> = (0..2 * 192).map(|i| record(&place(i), [1, 2])).collect();
        assert!(solve(Isa::PORTABLE, &seed(), 0, &shape, &records).is_none());
    }
}
