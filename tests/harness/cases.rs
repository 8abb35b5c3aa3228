//! Shards with queries and the reference's answers to them; the GPU that tests run on.

use std::sync::Arc;

use rayon::prelude::*;
use sotto::engine::{Answer, EncryptedQuery, ShardView};
#[cfg(feature = "gpu")]
use sotto::engine::{GpuEngine, GpuKind, GpuOptions, gpus};
use sotto::params::{D, P, Q, Shape};
use sotto::scheme::{KeyBundle, reference};

use self::Fill::{Carries, Highest, Lowest, Random};
use super::noise::bytes;
#[cfg(feature = "gpu")]
use super::skip;

/// What the numbers of a case are.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fill {
    /// Pseudorandom bytes and residues.
    Random,
    /// Sums as low as they get: entries -128, query bytes 255, residues one below their prime.
    Lowest,
    /// Sums as high as they get: entries 127, the rest as above.
    Highest,
    /// Numbers that carry from one digit to the next, whatever the digits: bytes, 12 bits, words.
    Carries,
}

const CARRY_ENTRIES: [u8; 6] = [0x80, 0x81, 0xff, 0x00, 0x01, 0x7f];
const CARRY_VALUES: [u32; 24] = [
    0, 1, 0x7f, 0x80, 0xff, 0x7ff, 0x800, 0xfff, 0x7f00, 0x7fff, 0x8000, 0x80ff, 0xff00, 0xffff,
    0x1_0000, 0x7f_7f7f, 0x7f_ffff, 0x80_0000, 0x80_8080, 0x80_0800, 0xff_0000, 0xff_7fff,
    0xff_f800, 0xff_ffff,
];

/// Residues of three bytes, a half modulo Q and a half modulo P.
fn residues(label: &str, count: usize, fill: Fill) -> Vec<u8> {
    let mut bytes = bytes(label, count);
    for (bytes, prime) in bytes.chunks_exact_mut(count / 2).zip([Q, P]) {
        for residue in bytes.as_chunks_mut::<3>().0 {
            let drawn = u32::from_le_bytes([residue[0], residue[1], residue[2], 0]);
            let value = match fill {
                Random => drawn % prime,
                Lowest | Highest => prime - 1,
                Carries => CARRY_VALUES[drawn as usize % CARRY_VALUES.len()].min(prime - 1),
            };
            residue.copy_from_slice(&value.to_le_bytes()[..3]);
        }
    }
    bytes
}

/// Queries of a case whose vector, key bundle and answer are different; more repeat them, each with
/// a copy of the bundle that is its own. No engine has tiles, lanes or slots of eleven.
const DISTINCT: usize = 11;

/// A shard, queries for it, and the reference's answers to them.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) shape: Shape,
    pub(crate) matrix: Vec<u8>,
    pub(crate) tables: Vec<u8>,
    pub(crate) queries: Vec<EncryptedQuery>,
    pub(crate) answers: Vec<Answer>,
}

impl Case {
    pub(crate) fn new(name: String, shape: Shape, queries: usize, fill: Fill) -> Self {
        let label = |what: &str, index: usize| format!("sotto engine test {name} {what} {index}");
        let matrix = match fill {
            Random => bytes(&label("matrix", 0), shape.matrix_bytes()),
            Lowest => vec![0x80; shape.matrix_bytes()],
            Highest => vec![0x7f; shape.matrix_bytes()],
            Carries => bytes(&label("matrix", 0), shape.matrix_bytes())
                .iter()
                .map(|&drawn| CARRY_ENTRIES[usize::from(drawn) % CARRY_ENTRIES.len()])
                .collect(),
        };
        let tables = (0..shape.packs())
            .flat_map(|pack| residues(&label("table", pack), shape.table_bytes(), fill));
        let tables: Vec<u8> = tables.collect();
        let query = |index: usize| {
            let index = index % DISTINCT;
            let vector = match fill {
                Random => bytes(&label("query", index), shape.query_bytes()),
                Lowest | Highest => vec![0xff; shape.query_bytes()],
                Carries => bytes(&label("query", index), shape.columns())
                    .iter()
                    .map(|&drawn| CARRY_VALUES[usize::from(drawn) % CARRY_VALUES.len()])
                    .flat_map(|value| value.to_le_bytes()[..3].to_vec())
                    .collect(),
            };
            let keys = (0..shape.keys())
                .flat_map(|key| residues(&label("key", 2 * index + key), 2 * D * 3, fill));
            let bundle = KeyBundle::decode(&keys.collect::<Vec<_>>(), &shape).unwrap();
            EncryptedQuery { vector: vector.into(), bundle: Arc::new(bundle) }
        };
        let queries: Vec<_> = (0..queries).map(query).collect();
        let answers = queries
            .par_iter()
            .take(DISTINCT)
            .map(|q| reference::answer(&shape, &matrix, &tables, &q.vector, &q.bundle));
        let answers: Vec<Answer> = answers.collect();
        let answers = answers.into_iter().cycle().take(queries.len()).collect();
        Self { name, shape, matrix, tables, queries, answers }
    }

    pub(crate) fn of_table(
        &(pack_rows, packs, columns, queries, fill): &(u32, u32, u32, usize, Fill),
    ) -> Self {
        let shape = Shape::new(40, pack_rows, packs, columns).unwrap();
        let name = format!("{pack_rows} x {packs} rows, {columns} columns, {queries}, {fill:?}");
        Self::new(name, shape, queries, fill)
    }

    pub(crate) fn view(&self) -> ShardView<'_> {
        ShardView { shape: &self.shape, matrix: &self.matrix, tables: &self.tables, content: None }
    }
}

/// The number of the adapter whose name holds what SOTTO_TEST_GPU says, or else of a real one.
#[cfg(feature = "gpu")]
pub(crate) fn gpu() -> Option<usize> {
    let wanted = std::env::var("SOTTO_TEST_GPU").ok();
    let found = gpus().into_iter().find(|info| match &wanted {
        Some(name) => info.name.contains(name.as_str()),
        None => info.kind == GpuKind::Real && info.lacks.is_none(),
    });
    if found.is_none() {
        assert!(wanted.is_none(), "SOTTO_TEST_GPU={wanted:?}: there is none, only {:?}", gpus());
        skip("there is no GPU here (SOTTO_TEST_GPU=llvmpipe takes a software one)");
    }
    found.map(|info| info.index)
}

/// A GPU engine on it. Without a budget it gets one: tests run side by side, and looking for all
/// the memory there is takes it from the others, and on a large GPU seconds.
#[cfg(feature = "gpu")]
pub(crate) fn gpu_engine(options: &GpuOptions) -> Option<GpuEngine> {
    let shard_bytes = options.shard_bytes.or(Some(1 << 30));
    let options = GpuOptions { shard_bytes, ..options.clone() };
    gpu().map(|index| GpuEngine::new(index, &options).unwrap())
}
