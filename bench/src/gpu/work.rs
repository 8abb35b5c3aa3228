//! What an answer takes at least, stage by stage: bytes that must be read and multiply-adds that
//! must be made, and how long the device at hand takes for them at best.
//!
//! | stage | read | multiplied, a query |
//! |---|---|---|
//! | prepare | the queries, and written again as digits | nothing |
//! | scan | the matrix, once for all queries | rows x columns x 3 digits / 4 dot products |
//! | pack | the tables, once for all queries | packs x terms x 2048 slots x 2 primes products |
//! | finish | scanned values, sums | 14 a butterfly or product modulo a prime, below |
//!
//! A product of the pack is one widening multiply-add, or four of 32 bits where there are no 64-bit
//! integers; whichever is faster here counts. What a batch reads beside shards (keys, digits) stays
//! in caches and is left out, as is what kernels write for one another.

use std::time::Duration;

use crate::record::GpuFloors;
use sotto::params::{D, Shape};

/// Multiply-adds of `multiply` in shaders/job.wgsl: four products, and `combine` folds ten times.
const MODULAR: usize = 14;
/// Layers of a transform of D.
const LAYERS: usize = D.ilog2() as usize;

/// At least that for a batch.
#[derive(Clone, Copy)]
pub(super) struct Floor {
    pub(super) reading: Duration,
    pub(super) multiplying: Duration,
}

impl Floor {
    pub(super) fn time(self) -> Duration {
        self.reading.max(self.multiplying)
    }

    /// Of several stages: reading and multiplying may go on at the same time.
    pub(super) fn sum(stages: &[Self]) -> Self {
        Self {
            reading: stages.iter().map(|stage| stage.reading).sum(),
            multiplying: stages.iter().map(|stage| stage.multiplying).sum(),
        }
    }
}

/// Prepare, scan, pack and finish, for a batch.
pub(super) fn stages(shape: &Shape, batch: usize, floors: &GpuFloors) -> [Floor; 4] {
    let giga = |count: usize, rate: f64| Duration::from_secs_f64(count as f64 / rate / 1e9);
    let dots = shape.rows() * shape.columns() * 3 / 4 * batch;
    let products = shape.packs() * shape.terms() * D * 2 * batch;
    let narrow = giga(4 * products, floors.narrow_g_per_s);
    let wide = floors.wide_g_per_s.map_or(narrow, |rate| giga(products, rate));
    // Two primes, D / 2 butterflies a layer; three products a row.
    let modular = shape.packs() * (2 * LAYERS * D / 2 + 3 * shape.pack_rows()) * batch;
    let values = 4 * (shape.packs() * 2 * D + shape.rows()) * batch;
    let stage = |bytes: usize, multiplying| Floor {
        reading: giga(bytes, floors.read_gb_per_s),
        multiplying,
    };
    [
        stage(2 * shape.query_bytes() * batch, Duration::ZERO),
        stage(shape.matrix_bytes(), giga(dots, floors.dot_g_per_s)),
        stage(shape.packs() * shape.table_bytes(), wide.min(narrow)),
        stage(values, giga(MODULAR * modular, floors.narrow_g_per_s)),
    ]
}
