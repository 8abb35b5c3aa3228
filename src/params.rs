//! Shapes and lattice parameters as types, and the noise budget that refuses unsafe ones.
//!
//! A [`Shape`] that exists is one whose records fail at most once in 2^40 look-ups; there is no
//! other way to make one. It knows every size in the program: matrix, tables, hints, queries, key
//! bundles, answers. Source: docs/scheme.md, "Parameters", "Shapes" and "Noise rule". Read next:
//! [`crate::scheme`].

use crate::limits;

/// Ring degree and LWE dimension.
pub const D: usize = 2048;
/// Slots in one half: the orbit of 5 modulo 2D, on which automorphisms rotate.
pub const HALF: usize = D / 2;
/// Ciphertext modulus: the largest prime below 2^24 that is 1 modulo 4096.
pub const Q: u32 = 16_760_833;
/// Special prime of the key switch: the next one below Q.
pub const P: u32 = 16_736_257;
/// Variance of the error: centered binomial with parameter 21.
pub const ERROR_VARIANCE: f64 = 10.5;
/// Variance of a uniform ternary coefficient.
pub const SECRET_VARIANCE: f64 = 2.0 / 3.0;
/// Mean square of a matrix entry that is uniform over -128..=127.
pub const ENTRY_MEAN_SQUARE: f64 = 5461.25;
/// Band width of the ribbon, in columns.
pub const BAND: usize = 128;
/// Ribbon seeds that a shard tries before its shape is too narrow.
pub const RIBBON_SEEDS: u32 = 64;
/// Bytes of a record's tag.
pub const TAG_BYTES: usize = 8;
/// Smallest pack, in rows.
pub const PACK_ROWS_MIN: u32 = 128;
/// A record may fail at most once in 2^40 look-ups.
pub const FAILURE_LOG2_MAX: f64 = -40.0;
/// An answer is believed while every coefficient lies within this part of half a step (Q/512) of a
/// multiple of Q/256.
pub const TRUSTED_PART: f64 = 0.85;
/// (response, hint) bits a coefficient, in the order in which they are tried.
pub const BITS_CHOICES: [(u32, u32); 4] = [(11, 17), (12, 17), (12, 18), (13, 19)];

/// Why a shape is refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // Names say it.
pub enum ShapeError {
    #[error("{what} is {found}, expected {expected}")]
    OutOfRange { what: &'static str, found: u64, expected: String },
    #[error(
        "{columns} columns in packs of {pack_rows} rows fail once in 2^{:.1} records, expected at \
         most once in 2^40: use fewer columns (more rows, or fewer records a shard)",
        -log2_failure
    )]
    TooNoisy {
        columns: u32,
        pack_rows: u32,
        /// Logarithm (base 2) of the failure probability at the best response size.
        log2_failure: f64,
    },
}

/// The sizes all shards of a database share. Valid by construction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape(ShapeFields);

/// A shape as written in a file or a message, not yet believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)] // Names say it.
pub struct ShapeFields {
    /// Bytes of the value field.
    pub value_len: u32,
    pub pack_rows: u32,
    pub packs: u32,
    pub columns: u32,
    pub response_bits: u32,
    pub hint_bits: u32,
}

/// What the operator fixes of a shape; the rule of docs/scheme.md, "Shapes", fills in the rest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)] // Names say it.
pub struct ShapeWishes {
    pub pack_rows: Option<u32>,
    pub packs: Option<u32>,
}

/// What a look-up moves between a device and its front-end, which returns one pack of the answer
/// with its hint; and the records of a pack, among which it hides from that front-end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // Names say it.
pub struct OnePack {
    /// The query, without its part of a key bundle.
    pub up_bytes: usize,
    /// The pack's response and hint.
    pub down_bytes: usize,
    pub records: u64,
}

impl OnePack {
    /// Both ways.
    pub fn bytes(&self) -> usize {
        self.up_bytes + self.down_bytes
    }
}

fn check(is_so: bool, what: &'static str, found: u32, expected: &str) -> Result<(), ShapeError> {
    let refused =
        || ShapeError::OutOfRange { what, found: found.into(), expected: expected.into() };
    if is_so { Ok(()) } else { Err(refused()) }
}

fn in_range(what: &'static str, found: u64, low: u64, high: u64) -> Result<(), ShapeError> {
    if (low..=high).contains(&found) {
        return Ok(());
    }
    Err(ShapeError::OutOfRange { what, found, expected: format!("{low} to {high}") })
}

impl Shape {
    /// The shape with the first of [`BITS_CHOICES`] that meets the noise budget.
    pub fn new(
        value_len: u32,
        pack_rows: u32,
        packs: u32,
        columns: u32,
    ) -> Result<Self, ShapeError> {
        let mut refused = None;
        for (response_bits, hint_bits) in BITS_CHOICES {
            let fields =
                ShapeFields { value_len, pack_rows, packs, columns, response_bits, hint_bits };
            match Self::from_fields(fields) {
                Err(error @ ShapeError::TooNoisy { .. }) => refused = Some(error),
                decided => return decided,
            }
        }
        Err(refused.expect("this is a bug: no response size was tried"))
    }

    /// Checks a shape read from a file or a message: every bound, then the noise budget.
    pub fn from_fields(fields: ShapeFields) -> Result<Self, ShapeError> {
        let ShapeFields { value_len, pack_rows, packs, columns, response_bits, hint_bits } = fields;
        in_range("value field bytes", value_len.into(), 1, limits::VALUE_BYTES_MAX.into())?;
        in_range("pack rows", pack_rows.into(), PACK_ROWS_MIN.into(), D as u64)?;
        check(pack_rows.is_power_of_two(), "pack rows", pack_rows, "a power of two")?;
        in_range("packs", packs.into(), 1, limits::PACKS_MAX.into())?;
        let (least, most) = (limits::COLUMNS_MIN, limits::COLUMNS_MAX);
        in_range("columns", columns.into(), least.into(), most.into())?;
        let step = limits::COLUMNS_STEP;
        check(columns.is_multiple_of(step), "columns", columns, &format!("a multiple of {step}"))?;
        let expected = format!("a (response, hint) pair of {BITS_CHOICES:?}");
        let is_so = BITS_CHOICES.contains(&(response_bits, hint_bits));
        check(is_so, "response bits", response_bits, &expected)?;
        let shape = Self(fields);
        let record_bytes = shape.record_bytes() as u64;
        in_range("record bytes (value field and tag)", record_bytes, 1, shape.rows() as u64)?;
        let log2_failure = shape.log2_failure();
        if log2_failure > FAILURE_LOG2_MAX {
            return Err(ShapeError::TooNoisy { columns, pack_rows, log2_failure });
        }
        Ok(shape)
    }

    /// The rule of docs/scheme.md, "Shapes": rows so that tables weigh about as much as the matrix,
    /// columns for the expected group load and four standard deviations; then more packs, for fewer
    /// bytes of a look-up that takes one of them.
    pub fn for_records(
        records: u64,
        value_len: u32,
        wishes: ShapeWishes,
    ) -> Result<Self, ShapeError> {
        in_range("value field bytes", value_len.into(), 1, limits::VALUE_BYTES_MAX.into())?;
        let rows = Self::rows_for(records, u64::from(value_len) + TAG_BYTES as u64);
        let pack_rows = wishes.pack_rows.unwrap_or(rows.min(D as u64) as u32);
        in_range("pack rows", pack_rows.into(), PACK_ROWS_MIN.into(), D as u64)?;
        let balanced = u32::try_from(rows.div_ceil(pack_rows.into())).unwrap_or(u32::MAX);
        let packs = wishes.packs.unwrap_or(balanced);
        let mut shape = Self::with_packs(records, value_len, pack_rows, packs)?;
        while wishes.packs.is_none()
            && shape.pack_rows() == D
            && let Ok(doubled) = Self::with_packs(records, value_len, pack_rows, 2 * shape.0.packs)
            && records / u64::from(doubled.0.packs) >= limits::PACK_RECORDS_MIN
            && 2 * doubled.packs() * doubled.table_bytes() < 3 * doubled.matrix_bytes()
            && doubled.one_pack().bytes() < shape.one_pack().bytes()
        {
            shape = doubled;
        }
        Ok(shape)
    }

    /// The shape of so many packs: columns for the expected group load.
    fn with_packs(
        records: u64,
        value_len: u32,
        pack_rows: u32,
        packs: u32,
    ) -> Result<Self, ShapeError> {
        let record_bytes = u64::from(value_len) + TAG_BYTES as u64;
        let rows = u64::from(packs) * u64::from(pack_rows);
        in_range("record bytes (value field and tag)", record_bytes, 1, rows.max(1))?;
        let groups = rows / record_bytes;
        let columns = columns_for(records as f64 / groups as f64);
        in_range("columns", columns, limits::COLUMNS_MIN.into(), limits::COLUMNS_MAX.into())?;
        Self::new(value_len, pack_rows, packs, columns as u32)
    }

    fn rows_for(records: u64, record_bytes: u64) -> u64 {
        let balanced = u128::from(records) * u128::from(record_bytes) / 12_288;
        let balanced = u64::try_from(balanced).unwrap_or(u64::MAX).max(1);
        let mut rows = 1u64 << balanced.ilog2().min(40);
        rows = rows.max(PACK_ROWS_MIN.into()).max(record_bytes.next_power_of_two());
        let most = u64::from(limits::PACKS_MAX) * D as u64;
        while columns_for(records as f64 / (rows / record_bytes) as f64) > 20_000 && rows < most {
            rows *= 2;
        }
        rows
    }

    /// One step of 64 columns wider, for a shard that found no ribbon seed.
    pub fn widened(&self) -> Result<Self, ShapeError> {
        let ShapeFields { value_len, pack_rows, packs, columns, .. } = self.0;
        Self::new(value_len, pack_rows, packs, columns + limits::COLUMNS_STEP)
    }

    /// The same shape with the next larger response and hint, for a matrix whose largest row
    /// is noisier than a uniform one.
    pub fn with_more_bits(&self) -> Option<Self> {
        let bits = (self.0.response_bits, self.0.hint_bits);
        let at = BITS_CHOICES.iter().position(|&choice| choice == bits);
        let (response_bits, hint_bits) = *BITS_CHOICES.get(at? + 1)?;
        Self::from_fields(ShapeFields { response_bits, hint_bits, ..self.0 }).ok()
    }

    /// The sizes, to be written down.
    pub fn fields(&self) -> ShapeFields {
        self.0
    }

    /// Bytes of the value field: the longest value is one byte shorter.
    pub fn value_len(&self) -> usize {
        self.0.value_len as usize
    }
    /// Rows one pack sums up: a power of two, 128 to 2048.
    pub fn pack_rows(&self) -> usize {
        self.0.pack_rows as usize
    }
    /// Packs a shard.
    pub fn packs(&self) -> usize {
        self.0.packs as usize
    }
    /// Matrix columns: the length of a query, a multiple of 64.
    pub fn columns(&self) -> usize {
        self.0.columns as usize
    }
    /// Bits a response coefficient.
    pub fn response_bits(&self) -> u32 {
        self.0.response_bits
    }
    /// Bits a hint coefficient.
    pub fn hint_bits(&self) -> u32 {
        self.0.hint_bits
    }
    /// Matrix rows: `packs * pack_rows`.
    pub fn rows(&self) -> usize {
        self.packs() * self.pack_rows()
    }
    /// Rows one record takes: tag and value field.
    pub fn record_bytes(&self) -> usize {
        TAG_BYTES + self.value_len()
    }
    /// Records that share a column position.
    pub fn groups(&self) -> usize {
        self.rows() / self.record_bytes()
    }
    /// Records of a pack that share a column position; `None` where a record may straddle packs.
    pub fn groups_per_pack(&self) -> Option<usize> {
        // The rows of a pack are a power of two, so what divides them is one too.
        let (rows, record_bytes) = (self.pack_rows(), self.record_bytes());
        let is_whole = record_bytes.is_power_of_two() && record_bytes <= rows;
        is_whole.then(|| rows >> record_bytes.trailing_zeros())
    }
    /// Mask polynomials a query takes: columns in blocks of D.
    pub fn blocks(&self) -> usize {
        self.columns().div_ceil(D)
    }
    /// Terms of one pack table: one key switch fewer than rows.
    pub fn terms(&self) -> usize {
        self.pack_rows() - 1
    }
    /// Keys of a bundle: g, and h for packs of D rows.
    pub fn keys(&self) -> usize {
        if self.pack_rows() == D { 2 } else { 1 }
    }
    /// Bytes of the matrix section.
    pub fn matrix_bytes(&self) -> usize {
        self.rows() * self.columns()
    }
    /// Bytes of one pack table: terms x D slots x 2 primes x 3 bytes.
    pub fn table_bytes(&self) -> usize {
        self.terms() * D * 2 * 3
    }
    /// Bytes of one pack's hint.
    pub fn hint_bytes(&self) -> usize {
        D * self.0.hint_bits as usize / 8
    }
    /// Bytes of one pack's response.
    pub fn response_bytes(&self) -> usize {
        self.pack_rows() * self.0.response_bits as usize / 8
    }
    /// Bytes of a key bundle on the wire.
    pub fn bundle_bytes(&self) -> usize {
        self.keys() * 2 * D * 3
    }
    /// Bytes of a query's encrypted vector on the wire.
    pub fn query_bytes(&self) -> usize {
        self.columns() * 3
    }
    /// Records the shape is meant for: the load whose columns by the rule are these.
    pub fn records_expected(&self) -> u64 {
        let columns = f64::from(self.0.columns) / 1.02;
        let load = ((columns + 4.0).sqrt() - 2.0).powi(2); // m + 4 sqrt m = columns / 1.02
        (load * self.groups() as f64) as u64
    }

    /// A look-up by a device whose front-end returns one pack of the answer.
    pub fn one_pack(&self) -> OnePack {
        OnePack {
            up_bytes: self.query_bytes(),
            down_bytes: self.response_bytes() + self.hint_bytes(),
            records: self.records_expected() / u64::from(self.0.packs),
        }
    }

    /// Standard deviation of a response coefficient's noise, modulo Q, for uniform entries
    /// (docs/scheme.md, "Noise rule").
    pub fn noise_std(&self) -> f64 {
        self.noise_std_for(f64::from(self.0.columns) * ENTRY_MEAN_SQUARE)
    }

    /// The same for a row whose entries' squares add up to `row_square_sum`.
    pub fn noise_std_for(&self, row_square_sum: f64) -> f64 {
        let (q, p, d) = (f64::from(Q), f64::from(P), D as f64);
        let scan = row_square_sum
            * ((q / 24f64.exp2()).powi(2) / 12.0 + ERROR_VARIANCE * (q / 32f64.exp2()).powi(2));
        let switches = f64::from(self.0.pack_rows - 1)
            * (d * q * q / 12.0 * ERROR_VARIANCE / (p * p) + d * SECRET_VARIANCE / 12.0);
        let response = (q / f64::from(self.0.response_bits).exp2()).powi(2) / 12.0;
        let hint = d * SECRET_VARIANCE * (q / f64::from(self.0.hint_bits).exp2()).powi(2) / 12.0;
        (scan + switches + response + hint).sqrt()
    }

    /// Logarithm (base 2) of the probability that an honest answer is INVALID by chance, uniform
    /// entries: that one of all its rows, not only the record's, lies beyond [`TRUSTED_PART`] of
    /// half a step. All bytes are right then, as good as always.
    pub fn log2_invalid(&self) -> f64 {
        let sigmas = TRUSTED_PART * f64::from(Q) / 512.0 / self.noise_std();
        (self.rows() as f64 * libm::erfc(sigmas / std::f64::consts::SQRT_2)).log2()
    }

    /// Logarithm (base 2) of the probability that a record fails, uniform entries: that the noise
    /// of one of its rows is larger than half a step, so that a byte of it is decoded wrongly.
    pub fn log2_failure(&self) -> f64 {
        self.log2_failure_for(f64::from(self.0.columns) * ENTRY_MEAN_SQUARE)
    }

    /// The same when every row is as heavy as one with this sum of squares.
    pub fn log2_failure_for(&self, row_square_sum: f64) -> f64 {
        let sigmas = f64::from(Q) / 512.0 / self.noise_std_for(row_square_sum);
        (self.record_bytes() as f64 * libm::erfc(sigmas / std::f64::consts::SQRT_2)).log2()
    }
}

/// Columns for an expected group load m: 1.02 (m + 4 sqrt m), up to a multiple of 64, at least 192.
fn columns_for(load: f64) -> u64 {
    let columns = (1.02 * (load + 4.0 * load.sqrt())).ceil() as u64;
    let step = u64::from(limits::COLUMNS_STEP);
    columns.div_ceil(step).saturating_mul(step).max(limits::COLUMNS_MIN.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standard_shape_is_the_one_of_the_page() {
        let shape = Shape::for_records(1 << 20, 120, ShapeWishes::default()).unwrap();
        assert_eq!((shape.pack_rows(), shape.packs()), (2048, 8));
        assert_eq!((shape.groups(), shape.columns()), (128, 8_768));
        assert_eq!((shape.response_bits(), shape.hint_bits()), (11, 17));
        assert_eq!(shape.matrix_bytes(), 143_654_912);
        assert_eq!(shape.packs() * shape.table_bytes(), 201_228_288);
        assert_eq!(shape.packs() * shape.hint_bytes(), 34_816);
        assert_eq!(shape.query_bytes(), 26_304);
        assert_eq!(shape.packs() * shape.response_bytes(), 22_528);
        assert_eq!(shape.bundle_bytes(), 24_576);
        assert!(shape.records_expected().abs_diff(1 << 20) < 1 << 13);
        let one = shape.one_pack();
        assert_eq!((one.up_bytes, one.down_bytes), (26_304, 7_168));
        assert!(one.records.abs_diff(1 << 17) < 1 << 10);
    }

    #[test]
    fn the_shape_of_four_packs_is_the_one_of_the_page() {
        let four = ShapeWishes { packs: Some(4), ..ShapeWishes::default() };
        let shape = Shape::for_records(1 << 20, 120, four).unwrap();
        assert_eq!((shape.pack_rows(), shape.packs()), (2048, 4));
        assert_eq!((shape.groups(), shape.columns()), (64, 17_280));
        assert_eq!((shape.response_bits(), shape.hint_bits()), (12, 17));
        assert_eq!(shape.matrix_bytes(), 141_557_760);
        assert_eq!(shape.packs() * shape.table_bytes(), 100_614_144);
        assert_eq!(shape.packs() * shape.hint_bytes(), 17_408);
        assert_eq!(shape.query_bytes(), 51_840);
        assert_eq!(shape.packs() * shape.response_bytes(), 12_288);
        let one = shape.one_pack();
        assert_eq!((one.up_bytes, one.down_bytes), (51_840, 7_424));
    }

    #[test]
    fn packs_are_doubled_while_the_rule_says_so() {
        // Log of the records, record bytes, packs: 2^16 records have packs of fewer rows, which
        // are not doubled. Of 2^20 records 16 packs would have tables 2.7 times the matrix.
        for (log, record_bytes, pack_rows, packs) in [
            (16, 128, 512, 1),
            (17, 128, 1024, 1),
            (18, 128, 2048, 2),
            (19, 128, 2048, 4),
            (20, 128, 2048, 8),
            (22, 128, 2048, 32),
            (19, 256, 2048, 8),
            (20, 256, 2048, 16),
            (20, 64, 2048, 4),
            // Eight packs would have 32 768 records each.
            (18, 512, 2048, 4),
        ] {
            let wishes = ShapeWishes::default();
            let shape = Shape::for_records(1 << log, record_bytes - 8, wishes).unwrap();
            let found = (shape.pack_rows() as u32, shape.packs() as u32);
            assert_eq!(found, (pack_rows, packs), "2^{log} records of {record_bytes}");
            // What the operator fixes is taken as it is, and the rest is as without.
            for wished in [1, 4, 16] {
                let wishes = ShapeWishes { packs: Some(wished), ..wishes };
                match Shape::for_records(1 << log, record_bytes - 8, wishes) {
                    Ok(shape) => assert_eq!(
                        (shape.pack_rows() as u32, shape.packs() as u32),
                        (pack_rows, wished)
                    ),
                    Err(error) => assert!(wished < packs, "{error}"),
                }
            }
        }
        let wishes = ShapeWishes { pack_rows: Some(1024), packs: None };
        let shape = Shape::for_records(1 << 20, 120, wishes).unwrap();
        assert_eq!((shape.pack_rows(), shape.packs(), shape.columns()), (1024, 8, 17_280));
    }

    #[test]
    fn bits_are_those_of_the_vectors() {
        let vectors: serde_json::Value =
            serde_json::from_str(include_str!("../tests/vectors/vectors.json")).unwrap();
        for case in vectors["bits_for"].as_array().unwrap() {
            let n = |i: usize| case[i].as_u64().unwrap() as u32;
            let shape = Shape::new(n(2) - 8, n(1), 2048 / n(1), n(0)).unwrap();
            assert_eq!((shape.response_bits(), shape.hint_bits()), (n(3), n(4)), "{case}");
        }
    }

    #[test]
    fn every_size_in_reach_makes_a_shape_or_a_clear_error() {
        for log in 0..44 {
            for value_len in [1, 8, 24, 40, 120, 500, 1000, 2040] {
                match Shape::for_records(1 << log, value_len, ShapeWishes::default()) {
                    Ok(shape) => assert!(shape.log2_failure() <= FAILURE_LOG2_MAX),
                    Err(error) => assert!(log > 20, "{log} {value_len}: {error}"),
                }
            }
        }
        let nothing = ShapeWishes { pack_rows: Some(0), packs: Some(0) };
        assert!(Shape::for_records(1000, 120, nothing).is_err());
    }

    #[test]
    fn noisy_and_odd_shapes_are_refused() {
        let noisy = Shape::new(120, 2048, 4, 26_048);
        assert!(matches!(noisy, Ok(_) | Err(ShapeError::TooNoisy { .. })), "{noisy:?}");
        let base = Shape::new(120, 2048, 4, 17_280).unwrap().fields();
        for bad in [
            ShapeFields { pack_rows: 100, ..base },
            ShapeFields { pack_rows: 192, ..base },
            ShapeFields { packs: 0, ..base },
            ShapeFields { packs: 65, ..base },
            ShapeFields { columns: 17_281, ..base },
            ShapeFields { columns: 128, ..base },
            ShapeFields { columns: 1 << 30, ..base },
            ShapeFields { value_len: 0, ..base },
            ShapeFields { value_len: u32::MAX, ..base },
            ShapeFields { response_bits: 10, ..base },
            ShapeFields { response_bits: 11, ..base }, // too noisy at this width
            ShapeFields { hint_bits: 18, response_bits: 11, ..base },
        ] {
            assert!(Shape::from_fields(bad).is_err(), "{bad:?}");
        }
        let small = ShapeFields { pack_rows: 128, packs: 1, ..base };
        assert!(Shape::from_fields(small).is_ok());
    }
}
