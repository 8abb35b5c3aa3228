//! The scan for AMX: tiles of 16 rows of 64 bytes, multiplied 16 by 16 (`tdpbsud`); everything else
//! is [`super::avx512`]'s.
//!
//! One `tdpbsud` is 256 `vpdpbusd` and takes 16 cycles. Floor at the standard shape: 26 k of them a
//! query, 0.12 ms, and reading the matrix, 7 ms a batch where memory gives 20 GB/s. So it does the
//! simplest that keeps memory busy: the digits of a block of columns stay in the second cache for
//! all rows of a job; 16 rows at a time are multiplied with 48 digits of 16 queries; the rows that
//! come next are prefetched. It is assembly because the intrinsics are not stable
//! (rust-lang/rust#126622).

use std::arch::asm;
use std::ops::Range;

use super::EncryptedQuery;
use super::avx512::{Avx512, DigitPlaces};
use super::kernel::{DIGITS, JOB_ROWS, Kernels, Line, PackJob, Rounding, ScanJob};
use crate::arith::{Isa, IsaName};
use crate::limits::BATCH_QUERIES_PER_SCAN_MAX;

/// Rows and digits of a tile; also its rows of 4 columns.
const SIDE: usize = 16;
/// Tiles of digits that some rows are multiplied with at once.
const GROUP_TILES: usize = 3;
/// Queries whose digits fill these tiles: a group of queries.
const GROUP_QUERIES: usize = GROUP_TILES * SIDE / DIGITS;
/// Groups of the largest batch.
const GROUPS_MAX: usize = BATCH_QUERIES_PER_SCAN_MAX.div_ceil(GROUP_QUERIES);
/// Columns whose digits stay in the second cache: 576 KB of 32 queries.
const BLOCK_COLUMNS: usize = 96 * 64;

/// Tiles that the digits of a batch fill, 64 columns of them.
fn digit_tiles(queries: usize) -> usize {
    (queries * DIGITS).div_ceil(SIDE)
}

/// Proof that the processor has what these kernels use, and that the system lets it.
pub(super) struct Amx(Avx512);

impl Amx {
    /// Only where `isa` says AMX, and an `Isa` says so only where it may be used.
    pub(super) fn new(isa: Isa) -> Option<Self> {
        Avx512::new(isa).filter(|_| isa.name() == IsaName::Amx).map(Self)
    }
}

impl Kernels for Amx {
    fn name(&self) -> &'static str {
        "amx"
    }

    fn digit_lines(&self, queries: usize) -> usize {
        digit_tiles(queries) * SIDE
    }

    fn digit_block(&self, _columns: usize) -> usize {
        BLOCK_COLUMNS
    }

    fn split_digits(&self, queries: &[EncryptedQuery], columns: Range<usize>, digits: &mut [Line]) {
        // SAFETY: `self` exists only where the processor has these instructions.
        unsafe { split_digits(queries, columns, digits) }
    }

    fn scan(&self, job: &ScanJob<'_>, out: &mut [u32]) {
        job.check(self.digit_lines(job.queries), out);
        // SAFETY: `self` exists only where these instructions may be used, and `check` has
        // compared the slices with the numbers.
        unsafe { scan(job, out) }
    }

    fn pack(&self, job: &PackJob<'_>, out: &mut [u32]) {
        self.0.pack(job, out);
    }

    fn round(&self, rounding: &Rounding<'_>, out: &mut [u32]) {
        self.0.round(rounding, out);
    }
}

/// Planes to tiles, `[column / 64][tile][column / 4 % 16][digit of the tile][column % 4]`; digit p
/// of query q is the 3q + p-th. What no digit fills is zero.
#[target_feature(enable = "avx512dq,avx512vl,avx512vnni,avx512ifma,avx512vbmi")]
fn split_digits(queries: &[EncryptedQuery], columns: Range<usize>, digits: &mut [Line]) {
    let places = DigitPlaces::new();
    digits.fill(Line([0; 64]));
    let step_lines = digit_tiles(queries.len()) * SIDE;
    for (lines, column) in digits.chunks_exact_mut(step_lines).zip(columns.step_by(64)) {
        for (index, query) in queries.iter().enumerate() {
            let mut split = [Line([0; 64]); DIGITS];
            places.split_digits(&query.vector[column * 3..][..64 * DIGITS], &mut split);
            for (digit, line) in (index * DIGITS..).zip(&split) {
                let tile = &mut lines[digit / SIDE * SIDE..][..SIDE];
                for (to, from) in tile.iter_mut().zip(line.0.as_chunks::<4>().0) {
                    to.0.as_chunks_mut::<4>().0[digit % SIDE] = *from;
                }
            }
        }
    }
}

/// How tiles lie in registers (Intel SDM, `LDTILECFG`): palette 1, eight of 16 rows of 64 bytes.
#[repr(C, align(64))]
struct TileConfig([u8; 64]);

impl TileConfig {
    const FULL: Self = {
        let mut bytes = [0; 64];
        bytes[0] = 1;
        let mut tile = 0;
        while tile < 8 {
            bytes[16 + 2 * tile] = 64;
            bytes[48 + tile] = SIDE as u8;
            tile += 1;
        }
        Self(bytes)
    };
}

/// Sums of 16 rows and the digits of a group of queries, `[tile][row][digit of the tile]`.
#[repr(C, align(64))]
struct Sums([[[u32; SIDE]; SIDE]; GROUP_TILES]);

/// # Safety
/// AMX may be used; `job` is checked.
unsafe fn scan(job: &ScanJob<'_>, out: &mut [u32]) {
    assert!(job.rows.is_multiple_of(SIDE), "this is a bug: rows of a scan job");
    let tiles = digit_tiles(job.queries);
    let mut sums =
        [const { [const { Sums([[[0; SIDE]; SIDE]; GROUP_TILES]) }; GROUPS_MAX] }; JOB_ROWS / SIDE];
    let place = |row: usize, column: usize| {
        job.matrix.as_ptr().wrapping_add((job.first_row + row) * job.columns + column)
    };
    for column in (0..job.columns).step_by(BLOCK_COLUMNS) {
        let end = job.columns.min(column + BLOCK_COLUMNS);
        for (group, sums) in sums[..job.rows / SIDE].iter_mut().enumerate() {
            let row = group * SIDE;
            let next = match (row + SIDE < job.rows, end < job.columns) {
                (true, _) => place(row + SIDE, column),
                (false, true) => place(0, end),
                (false, false) => place(job.rows, 0),
            };
            for (queries, (first, sums)) in (0..tiles).step_by(GROUP_TILES).zip(sums).enumerate() {
                let rows = Rows {
                    matrix: place(row, column),
                    stride: job.columns,
                    next: if queries == 0 { next } else { place(row, column) },
                    steps: (end - column) / 64,
                    digits: job.digits[(column / 64 * tiles + first) * SIDE..].as_ptr(),
                    step_bytes: tiles * SIDE * 64,
                };
                // SAFETY: `ScanJob::check`: 16 rows from `row` lie in the matrix, `tiles` tiles
                // for each step in the digits.
                unsafe {
                    match tiles - first {
                        1 => rows.times_one(sums),
                        2 => rows.times_two(sums),
                        _ => rows.times_three(sums),
                    }
                }
            }
        }
    }
    for query in 0..job.queries {
        for (group, sums) in sums[..job.rows / SIDE].iter().enumerate() {
            let out = &mut out[query * job.rows + group * SIDE..][..SIDE];
            add_digits(&sums[query / GROUP_QUERIES], query % GROUP_QUERIES, out);
        }
    }
}

/// What the digits of query `query` of a group add up to, modulo 2^24.
fn add_digits(sums: &Sums, query: usize, out: &mut [u32]) {
    for (row, out) in out.iter_mut().enumerate() {
        let [low, mid, high] = std::array::from_fn(|digit| {
            let digit = query * DIGITS + digit;
            sums.0[digit / SIDE][row][digit % SIDE]
        });
        *out = low.wrapping_add(mid << 8).wrapping_add(high << 16) & 0x00ff_ffff;
    }
}

/// 16 rows, some columns of them, and the digits of a group of queries.
struct Rows {
    matrix: *const u8,
    stride: usize,
    /// As many rows and columns to prefetch meanwhile, from their first.
    next: *const u8,
    /// Of 64 columns.
    steps: usize,
    /// The first tile of the first step.
    digits: *const Line,
    /// From step to step.
    step_bytes: usize,
}

/// Defines a product with a constant number of tiles of digits: a sum, a register and a place each.
macro_rules! times {
    ($name:ident: $($sum:literal $tile:literal $at:literal),*) => {
        /// Adds rows times digits to `sums`.
        ///
        /// # Safety
        /// AMX may be used; rows and digits are readable.
        #[inline(never)]
        unsafe fn $name(&self, sums: &mut Sums) {
            // SAFETY: the caller's promise; a prefetch of any address is harmless; the sums that
            // are read and written are those of `sums`. Tiles are set up and given back within.
            unsafe {
                asm!(
                    "ldtilecfg [{row}]",
                    $(concat!("tileloadd ", $sum, ", [{sums} + {line} + ", $at, "]"),)*
                    "2:",
                    "tileloadd tmm3, [{matrix} + {stride}]",
                    $(
                        concat!("tileloadd ", $tile, ", [{digits} + {line} + ", $at, "]"),
                        concat!("tdpbsud ", $sum, ", tmm3, ", $tile),
                    )*
                    "mov {row}, {next}",
                    "mov {rows:e}, 4",
                    "3:", // four rows at a time
                    "prefetcht1 [{row}]",
                    "prefetcht1 [{row} + {stride}]",
                    "prefetcht1 [{row} + 2*{stride}]",
                    "add {row}, {stride}",
                    "prefetcht1 [{row} + 2*{stride}]",
                    "lea {row}, [{row} + 2*{stride}]",
                    "add {row}, {stride}",
                    "dec {rows:e}",
                    "jnz 3b",
                    "add {matrix}, 64",
                    "add {next}, 64",
                    "add {digits}, {step_bytes}",
                    "dec {steps}",
                    "jnz 2b",
                    $(concat!("tilestored [{sums} + {line} + ", $at, "], ", $sum),)*
                    "tilerelease",
                    matrix = inout(reg) self.matrix => _,
                    stride = in(reg) self.stride,
                    next = inout(reg) self.next => _,
                    digits = inout(reg) self.digits => _,
                    step_bytes = in(reg) self.step_bytes,
                    steps = inout(reg) self.steps => _,
                    line = in(reg) 64usize,
                    sums = in(reg) sums,
                    row = inout(reg) &TileConfig::FULL => _,
                    rows = out(reg) _,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _,
                    options(nostack),
                );
            }
        }
    };
}

impl Rows {
    times!(times_one: "tmm0" "tmm4" "0");
    times!(times_two: "tmm0" "tmm4" "0", "tmm1" "tmm5" "1024");
    times!(times_three: "tmm0" "tmm4" "0", "tmm1" "tmm5" "1024", "tmm2" "tmm6" "2048");
}
