//! The WGSL kernels: their texts, in `shaders/`, and tile sizes. What both sides have to agree on
//! is written before each text from the constants here; a test compares [`Job`] with its twin.

use crate::arith::P_INVERSE;
use crate::limits::BATCH_QUERIES_PER_SCAN_MAX;
use crate::params::{D, HALF, P, Q};
use bytemuck::{Pod, Zeroable};

/// Threads of a scan or pack workgroup.
pub(super) const THREADS: u32 = 128;
pub(super) const FINISH_THREADS: u32 = 1024;
/// Rows a narrow scan's workgroup has.
const NARROW_ROWS: u32 = 8;
pub(super) const NARROW_QUERIES: u32 = 4;
/// Queries a wide scan has, or a multiple.
pub(super) const WIDE_QUERIES: u32 = 8;
/// 16-byte groups of columns in a tile of the wide scan.
pub(super) const DEPTH: u32 = 4;
/// Terms a pack workgroup stages at once.
const CHUNK: u32 = 16;
/// Terms of a pack workgroup.
pub(super) const SPLIT_TERMS: u32 = 256;
/// Packs of a workgroup of the long pack.
const LONG_PACKS: u32 = 4;
/// Words of one bundle's place in the pool of keys: those of two keys.
pub(super) const SLOT_WORDS: usize = 2 * 3 * D;
/// What fits into 4 GiB of 32-bit words, and less than the least there is of a binding: 128 MiB.
pub(super) const BINDING_BYTES_MIN: u64 = 64 << 20;
/// Workgroup memory of the largest kernel, the wide scan of eight queries.
pub(super) const WORKGROUP_BYTES_MAX: u32 = DEPTH * 16 * ((THREADS / 4 * 8 + 2) + (4 * 2 * 3 + 2));

/// The numbers of one dispatch: `Job` of shaders/job.wgsl, which says what they are.
#[derive(Debug, Clone, Copy, Default, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Job {
    pub(super) rows: u32,
    pub(super) packs: u32,
    pub(super) queries: u32,
    pub(super) pack_rows: u32,
    pub(super) part_first: u32,
    pub(super) part_count: u32,
    pub(super) first_tile: u32,
    pub(super) row_groups: u32,
    pub(super) scan_queries: u32,
    pub(super) first_query: u32,
    pub(super) split_groups: u32,
    pub(super) column_splits: u32,
    pub(super) rotation_step: u32,
    pub(super) term_splits: u32,
    pub(super) response_bits: u32,
    pub(super) key_slots: [u32; BATCH_QUERIES_PER_SCAN_MAX / 2],
}

// What every device that has immediates takes.
const _: () = assert!(size_of::<Job>() <= 128);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kernel {
    SplitDigits,
    ScanNarrow { queries: u32 },
    ScanWide { query_groups: u32 },
    Pack { packs: u32, queries: u32, query_groups: u32 },
    PackLong { queries: u32, query_groups: u32 },
    Finish,
}

/// Tiles of the pack and of the long pack, (queries, query groups), the smallest first.
const PACK_TILES: [(u32, u32); 4] = [(1, 1), (4, 1), (4, 2), (4, 4)];
const PACK_LONG_TILES: [(u32, u32); 4] = [(1, 4), (2, 4), (2, 8), (2, 16)];

impl Kernel {
    pub(super) fn all() -> Vec<Kernel> {
        let mut all = vec![Kernel::SplitDigits, Kernel::Finish];
        all.extend([1, 2, 4].map(|queries| Kernel::ScanNarrow { queries }));
        all.extend([4, 8].map(|query_groups| Kernel::ScanWide { query_groups }));
        for packs in [1, 4] {
            let pack = |(queries, query_groups)| Kernel::Pack { packs, queries, query_groups };
            all.extend(PACK_TILES.map(pack));
        }
        let long = |(queries, query_groups)| Kernel::PackLong { queries, query_groups };
        all.extend(PACK_LONG_TILES.map(long));
        all
    }

    /// The scan for so many queries: a narrow one, or the widest whose tiles have no room to spare.
    pub(super) fn scan(queries: u32) -> Kernel {
        let room = queries.next_multiple_of(WIDE_QUERIES);
        match queries {
            0..=NARROW_QUERIES => Kernel::ScanNarrow { queries: queries.next_power_of_two() },
            _ if room.is_multiple_of(2 * WIDE_QUERIES) => Kernel::ScanWide { query_groups: 8 },
            _ => Kernel::ScanWide { query_groups: 4 },
        }
    }

    /// The pack for so many packs of so many rows, and queries: the one whose tile holds them all,
    /// or else the largest. Several packs whose keys move by a slot a term have the long pack.
    pub(super) fn pack((packs, pack_rows): (u32, u32), queries: u32) -> Kernel {
        let long = packs > 1 && pack_rows as usize >= HALF;
        let tiles = if long { PACK_LONG_TILES } else { PACK_TILES };
        let fits = tiles.into_iter().find(|(each, groups)| each * groups >= queries);
        let (queries, query_groups) = fits.unwrap_or(tiles[tiles.len() - 1]);
        match (long, packs) {
            (true, _) => Kernel::PackLong { queries, query_groups },
            (false, 1) => Kernel::Pack { packs: 1, queries, query_groups },
            (false, _) => Kernel::Pack { packs: 4, queries, query_groups },
        }
    }

    pub(super) fn entry(self) -> &'static str {
        match self {
            Kernel::SplitDigits => "split_digits",
            Kernel::ScanNarrow { .. } => "scan_narrow",
            Kernel::ScanWide { .. } => "scan_wide",
            Kernel::Pack { .. } => "pack",
            Kernel::PackLong { .. } => "pack_long",
            Kernel::Finish => "finish",
        }
    }

    /// Rows, packs or queries one workgroup has along the first dimension it is cut by.
    pub(super) fn tile_rows(self) -> u32 {
        match self {
            Kernel::ScanNarrow { .. } => NARROW_ROWS,
            Kernel::ScanWide { query_groups } => THREADS / query_groups * 8,
            Kernel::Pack { packs, .. } => packs,
            Kernel::PackLong { .. } => LONG_PACKS,
            Kernel::SplitDigits | Kernel::Finish => 1,
        }
    }

    pub(super) fn tile_queries(self) -> u32 {
        match self {
            Kernel::ScanNarrow { queries } => queries,
            Kernel::ScanWide { query_groups } => 2 * query_groups,
            Kernel::Pack { queries, query_groups, .. }
            | Kernel::PackLong { queries, query_groups, .. } => queries * query_groups,
            Kernel::SplitDigits | Kernel::Finish => 1,
        }
    }

    /// The whole text: constants, what all kernels share, the kernel.
    pub(super) fn source(self) -> String {
        let split_chunks = SPLIT_TERMS / CHUNK;
        let (own, parts): (Vec<(&str, u32)>, &[&str]) = match self {
            Kernel::SplitDigits => (vec![], &[SPLIT_DIGITS]),
            Kernel::ScanNarrow { queries } => (vec![("QUERIES", queries)], &[SCAN]),
            // The narrow kernel stands in the same text, unused.
            Kernel::ScanWide { query_groups } => {
                (vec![("QUERIES", 1), ("QUERY_GROUPS", query_groups)], &[SCAN, SCAN_WIDE])
            }
            Kernel::Pack { packs, queries, query_groups } => {
                let terms = split_chunks * query_groups;
                let tile = [("PACKS", packs), ("QUERIES", queries), ("QUERY_GROUPS", query_groups)];
                let terms = [("TERM_LANES", CHUNK / query_groups), ("THREAD_TERMS_MAX", terms)];
                ([&tile[..], &terms].concat(), &[PACK_SHARED, PACK])
            }
            Kernel::PackLong { queries, query_groups } => {
                let terms = (split_chunks + 1) * query_groups; // with the chunk of key h
                let tile =
                    [("PACKS", LONG_PACKS), ("QUERIES", queries), ("QUERY_GROUPS", query_groups)];
                let terms = [("SPLIT_CHUNKS", split_chunks), ("THREAD_TERMS_MAX", terms)];
                ([&tile[..], &terms].concat(), &[PACK_SHARED, PACK_LONG])
            }
            Kernel::Finish => (vec![], &[FINISH]),
        };
        let shared = [
            ("Q", Q),
            ("P", P),
            ("P_INVERSE", P_INVERSE),
            ("D", D as u32),
            ("QUERIES_MAX", BATCH_QUERIES_PER_SCAN_MAX as u32),
            ("THREADS", THREADS),
            ("FINISH_THREADS", FINISH_THREADS),
            ("DEPTH", DEPTH),
            ("SLOT_WORDS", SLOT_WORDS as u32),
            ("CHUNK", CHUNK),
            ("SPLIT_TERMS", SPLIT_TERMS),
        ];
        let constants = shared.into_iter().chain(own);
        let constants: String =
            constants.map(|(name, value)| format!("const {name}: u32 = {value}u;\n")).collect();
        constants + JOB + &parts.concat()
    }
}

const JOB: &str = include_str!("../../../shaders/job.wgsl");
const SPLIT_DIGITS: &str = include_str!("../../../shaders/split_digits.wgsl");
const SCAN: &str = include_str!("../../../shaders/scan.wgsl");
const SCAN_WIDE: &str = include_str!("../../../shaders/scan_wide.wgsl");
const PACK_SHARED: &str = include_str!("../../../shaders/pack_shared.wgsl");
const PACK: &str = include_str!("../../../shaders/pack.wgsl");
const PACK_LONG: &str = include_str!("../../../shaders/pack_long.wgsl");
const FINISH: &str = include_str!("../../../shaders/finish.wgsl");
