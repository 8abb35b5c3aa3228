//! Shards and queries of noise. Every shard is a window into one pool, so that many take little of
//! the host's memory.

use std::sync::Arc;

use sotto::engine::{ContentId, EncryptedQuery, ShardView};
use sotto::params::{P, Shape, ShapeError};
use sotto::scheme::KeyBundle;
use sotto::worker::{Content, Shards};

use crate::common::{Effort, Noise, standard_shape};

/// From one window to the next, in bytes of a matrix and of tables (whole residues).
const MATRIX_STEP: usize = 4096;
const TABLES_STEP: usize = 3 * 4096;
/// Windows; more shards than these have the content of others under names of their own.
const WINDOWS: usize = 256;
/// Queries that come from one secret, and so with one key bundle.
const QUERIES_PER_BUNDLE: usize = 16;

/// The shards' shape where none is asked for: the standard one, or what a processor that plays a
/// GPU gets done.
pub(crate) fn shape(effort: Effort) -> Result<Shape, ShapeError> {
    match effort {
        Effort::Full => standard_shape(),
        Effort::Quick => Shape::new(120, 128, 4, 2048),
        Effort::Test => Shape::new(120, 128, 1, 192),
    }
}

/// Shards 0, 1, .. of one shape.
pub(super) struct Pool {
    pub(super) shape: Shape,
    matrix: Vec<u8>,
    tables: Vec<u8>,
}

impl Pool {
    pub(super) fn new(shape: &Shape, noise: &mut Noise) -> Self {
        let tables = shape.packs() * shape.table_bytes() + WINDOWS * TABLES_STEP;
        Self {
            shape: *shape,
            matrix: noise.bytes(shape.matrix_bytes() + WINDOWS * MATRIX_STEP),
            // Below the smaller prime all of them: a window may begin in the middle of a table.
            tables: noise.residues(tables / 3, tables / 6, [P, P]),
        }
    }

    pub(super) fn shard(&self, number: usize) -> ShardView<'_> {
        let (matrix, tables) = (number % WINDOWS * MATRIX_STEP, number % WINDOWS * TABLES_STEP);
        let mut content = [0; 16];
        content[..8].copy_from_slice(&(number as u64).to_le_bytes());
        ShardView {
            shape: &self.shape,
            matrix: &self.matrix[matrix..][..self.shape.matrix_bytes()],
            tables: &self.tables[tables..][..self.shape.packs() * self.shape.table_bytes()],
            content: Some(ContentId(content)),
        }
    }

    pub(super) fn shard_bytes(&self) -> u64 {
        (self.shape.matrix_bytes() + self.shape.packs() * self.shape.table_bytes()) as u64
    }
}

/// One shard of a pool.
struct Window(Arc<Pool>, usize);

impl Content for Window {
    fn view(&self) -> ShardView<'_> {
        self.0.shard(self.1)
    }
}

/// The shards of a pool, as workers find them.
pub(super) struct Windows(pub(super) Arc<Pool>);

impl Shards for Windows {
    fn content(&self, shard: u32) -> Option<Arc<dyn Content>> {
        Some(Arc::new(Window(self.0.clone(), shard as usize)))
    }
}

/// So many different queries, sixteen a key bundle.
pub(super) fn queries(shape: &Shape, count: usize, noise: &mut Noise) -> Vec<EncryptedQuery> {
    let mut bundle = noise.bundle(shape);
    let draw = |at: usize| {
        if at.is_multiple_of(QUERIES_PER_BUNDLE) {
            bundle = noise.bundle(shape);
        }
        noise.query(shape, bundle.clone())
    };
    (0..count).map(draw).collect()
}

/// Gives the queries key bundles that no device has seen, as front-ends' next secrets would.
pub(super) fn renew_bundles(queries: &mut [EncryptedQuery]) {
    for queries in queries.chunks_mut(QUERIES_PER_BUNDLE) {
        let bundle = Arc::new(KeyBundle::clone(&queries[0].bundle));
        queries.iter_mut().for_each(|query| query.bundle = bundle.clone());
    }
}
