//! The band system of one group modulo 2, and its elimination.

use super::{BAND_BYTES, draw, place_of_band, seal};
use crate::params::Shape;

/// One record as the solver takes it.
#[derive(Clone)]
#[allow(missing_docs)] // Names say it.
pub struct Record {
    pub group: u32,
    pub identity: [u8; 32],
    /// Value: at most value_len - 1 bytes.
    pub value: Vec<u8>,
}

/// The records of one group, with what their bands have to sum to under any ribbon seed.
pub(super) struct Group<'a> {
    records: Vec<&'a Record>,
    /// Each record as [`seal`] stores it, `record_bytes` each.
    pub(super) sealed: Vec<u8>,
}

impl<'a> Group<'a> {
    pub(super) fn seal(shape: &Shape, records: Vec<&'a Record>) -> Self {
        let mut sealed = vec![0; records.len() * shape.record_bytes()];
        for (record, out) in records.iter().zip(sealed.chunks_exact_mut(shape.record_bytes())) {
            seal(&record.identity, &record.value, out);
        }
        Self { records, sealed }
    }

    /// Start, coefficients and index of each record's band, by start: as [`super::band`] draws
    /// one, without wiping, for who builds knows all keys.
    pub(super) fn bands(&self, shape: &Shape, ribbon_seed: u32) -> Vec<(u32, u128, u32)> {
        let mut raw = [0; BAND_BYTES];
        let band = |(record, index): (&&Record, u32)| {
            let mut keyed = blake3::Hasher::new_keyed(&record.identity);
            draw(&mut keyed, b'r', &ribbon_seed.to_le_bytes(), &mut raw);
            let (start, coeffs) = place_of_band(&raw, shape);
            (start, coeffs, index)
        };
        let mut bands: Vec<_> = self.records.iter().zip(0..).map(band).collect();
        bands.sort_unstable_by_key(|&(start, _, index)| (start, index));
        bands
    }
}

/// A band of the system modulo 2, before and after elimination.
pub(super) struct Row {
    /// Coefficients of the record's own band, before elimination.
    pub(super) start: u32,
    pub(super) coeffs: u128,
    /// Leading column after elimination, and the coefficients from there on.
    pub(super) pivot: u32,
    pub(super) reduced: u128,
    /// The record's index in its group.
    pub(super) record: u32,
}

/// One group's system in echelon form modulo 2, with the way there.
pub(super) struct Echelon<'a> {
    /// By band start.
    pub(super) rows: Vec<Row>,
    /// What the rows sum to, by record.
    pub(super) sealed: &'a [u8],
    /// Rows added to each row on its way, by index: those of row i end at `path_ends[i]`.
    pub(super) path: Vec<u32>,
    pub(super) path_ends: Vec<u32>,
}

const NONE: u32 = u32::MAX;

impl<'a> Echelon<'a> {
    /// Eliminates; `None` when rows are dependent modulo 2.
    pub(super) fn new(shape: &Shape, ribbon_seed: u32, group: &'a Group<'_>) -> Option<Self> {
        let bands = group.bands(shape, ribbon_seed);
        let mut row_of_pivot = vec![NONE; shape.columns()];
        let mut rows: Vec<Row> = Vec::with_capacity(bands.len());
        let (mut path, mut path_ends) = (Vec::new(), Vec::with_capacity(bands.len()));
        for (start, coeffs, record) in bands {
            let (mut pivot, mut reduced) = (start, coeffs);
            while row_of_pivot[pivot as usize] != NONE {
                let by = row_of_pivot[pivot as usize];
                path.push(by);
                reduced ^= rows[by as usize].reduced;
                if reduced == 0 {
                    return None;
                }
                pivot += reduced.trailing_zeros();
                reduced >>= reduced.trailing_zeros();
            }
            row_of_pivot[pivot as usize] = rows.len() as u32;
            path_ends.push(path.len() as u32);
            rows.push(Row { start, coeffs, pivot, reduced, record });
        }
        Some(Self { rows, sealed: &group.sealed, path, path_ends })
    }
}
