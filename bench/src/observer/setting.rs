//! How much is simulated.

use serde::Serialize;

use super::world::{BATCH, PACKS, Size};
use crate::common::Effort;

/// How much is simulated.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Setting {
    /// Everything random follows from it.
    pub(super) seed: u64,
    pub(crate) devices: usize,
    /// Of each device at the beginning.
    pub(crate) contacts: usize,
    pub(crate) shards: [usize; 2],
    pub(super) packs: usize,
    /// How long observers watch.
    pub(crate) days: [f64; 3],
    pub(super) added_per_week: f64,
    /// Batches from which attacks start.
    pub(super) seeds: usize,
    /// Devices that are tested for contacts.
    pub(super) samples: usize,
}

impl Setting {
    /// `Effort::Test` is as small as tests need it.
    pub(crate) fn new(effort: Effort) -> Self {
        Self {
            seed: 18,
            devices: effort.pick(10_000, 300, 30),
            contacts: 500,
            shards: [1_000, 20_000],
            packs: PACKS,
            days: [1.0, 7.0, 30.0],
            added_per_week: 1.0,
            seeds: effort.pick(300, 60, 5),
            samples: effort.pick(2_000, 200, 30),
        }
    }

    pub(super) fn size(&self, shards: usize) -> Size {
        let Self { seed, devices, contacts, added_per_week, .. } = *self;
        Size { seed, devices, contacts, shards, added_per_week, days: self.days[2] }
    }

    /// Batches that the contacts of the beginning fill.
    pub(super) fn batches(&self) -> f64 {
        self.contacts.div_ceil(BATCH) as f64
    }
}
