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

/// At least that of one stage, for a batch.
#[derive(Clone, Copy, Default)]
pub(super) struct Floor {
    reading: Duration,
    pub(super) multiplying: Duration,
}

impl Floor {
    pub(super) fn time(self) -> Duration {
        self.reading.max(self.multiplying)
    }
}

/// At least that of every stage, for a batch.
#[derive(Clone, Copy)]
pub(super) struct StageFloors {
    pub(super) prepare: Floor,
    pub(super) scan: Floor,
    pub(super) pack: Floor,
    pub(super) finish: Floor,
}

impl StageFloors {
    pub(super) fn new(shape: &Shape, batch: usize, floors: &GpuFloors) -> Self {
        let giga = |count: f64, rate: f64| Duration::from_secs_f64(count / rate / 1e9);
        let reading = |bytes: usize| giga(bytes as f64, floors.read_gb_per_s);
        let narrow = |count: usize| giga((count * batch) as f64, floors.narrow_g_per_s);
        let dots = shape.rows() * shape.columns() * 3 / 4;
        let products = shape.packs() * shape.terms() * D * 2;
        let wide = floors.wide_g_per_s.map(|rate| giga((products * batch) as f64, rate));
        // Two primes, D / 2 butterflies a layer; three products a row.
        let modular = shape.packs() * (2 * LAYERS * D / 2 + 3 * shape.pack_rows());
        let values = 4 * (shape.packs() * 2 * D + shape.rows()) * batch;
        Self {
            prepare: Floor {
                reading: reading(2 * shape.query_bytes() * batch),
                multiplying: Duration::ZERO,
            },
            scan: Floor {
                reading: reading(shape.matrix_bytes()),
                multiplying: giga((dots * batch) as f64, floors.dot_g_per_s),
            },
            pack: Floor {
                reading: reading(shape.packs() * shape.table_bytes()),
                multiplying: wide
                    .map_or(narrow(4 * products), |wide| wide.min(narrow(4 * products))),
            },
            finish: Floor { reading: reading(values), multiplying: narrow(MODULAR * modular) },
        }
    }

    /// All stages: reading and multiplying may go on at the same time.
    pub(super) fn whole(&self) -> Floor {
        let all = [self.prepare, self.scan, self.pack, self.finish];
        all.into_iter().fold(Floor::default(), |sum, stage| Floor {
            reading: sum.reading + stage.reading,
            multiplying: sum.multiplying + stage.multiplying,
        })
    }

    pub(super) fn shard_reading(&self) -> Duration {
        self.scan.reading + self.pack.reading
    }
}
