//! Shards on the device: brought up when asked for, kept while they fit, by recent use.
//!
//! A shard is cut into parts that fit one binding, the matrix by rows and the tables by packs.
//! Buffers of a shard that makes room are taken over by the next one of the same shape.

use std::collections::HashMap;

use wgpu::{BindGroup, Buffer, BufferDescriptor, BufferUsages};

use super::super::{EngineError, ShardView};
use super::device::Gpu;
use super::kernels::{BINDING_BYTES_MIN, Pipelines, bind};
use super::staging::{STAGING_BYTES, Staging};
use crate::limits::COLUMNS_MAX;
use crate::params::{D, PACK_ROWS_MIN, Shape};
use crate::shard::ContentId;

/// Names a shard on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum ShardKey {
    /// What the file says it contains.
    Content(ContentId),
    /// Nothing is known of it: good for one call.
    Once(u64),
}

/// Some rows of a matrix, or the tables of some packs.
pub(super) struct Part {
    pub(super) buffer: Buffer,
    pub(super) bound: BindGroup,
    /// First row or pack.
    pub(super) first: u32,
    /// Rows or packs.
    pub(super) count: u32,
}

/// A shard on the device.
pub(super) struct Resident {
    shape: Shape,
    bytes: u64,
    used: u64,
    pub(super) matrix: Vec<Part>,
    pub(super) tables: Vec<Part>,
}

/// All shards on the device.
pub(super) struct Residents {
    shards: HashMap<ShardKey, Resident>,
    budget: u64,
    binding_bytes_max: u64,
    bytes: u64,
    /// Counts calls of [`Residents::touch`] and names shards without a name.
    clock: u64,
    /// Shards brought up so far.
    uploads: u64,
}

impl Residents {
    pub(super) fn new(budget: u64, binding_bytes_max: u64) -> Self {
        let shards = HashMap::new();
        Self { shards, budget, binding_bytes_max, bytes: 0, clock: 0, uploads: 0 }
    }

    /// The name under which a shard is kept.
    pub(super) fn key(&mut self, shard: &ShardView<'_>) -> ShardKey {
        self.clock += 1;
        shard.content.map_or(ShardKey::Once(self.clock), ShardKey::Content)
    }

    pub(super) fn get(&self, key: ShardKey) -> &Resident {
        self.shards.get(&key).expect("this is a bug: a shard in use was dropped")
    }

    /// Shards brought up so far.
    pub(super) fn uploads(&self) -> u64 {
        self.uploads
    }

    /// Takes note that a shard is used; whether it is here.
    pub(super) fn touch(&mut self, key: ShardKey) -> bool {
        self.clock += 1;
        let found = self.shards.get_mut(&key);
        found.map(|resident| resident.used = self.clock).is_some()
    }

    /// Whether a shard fits beside those of `kept`.
    pub(super) fn fits_beside(&self, shape: &Shape, kept: &[ShardKey]) -> bool {
        let kept: u64 = kept.iter().filter_map(|key| self.shards.get(key)).map(|r| r.bytes).sum();
        kept + shard_bytes(shape) <= self.budget
    }

    /// Drops shards that were good for one call, and everything that is not known to be whole.
    pub(super) fn forget(&mut self, keys: &[ShardKey]) {
        for key in keys.iter().filter(|key| matches!(key, ShardKey::Once(_))) {
            self.remove(*key);
        }
    }

    fn remove(&mut self, key: ShardKey) -> Option<Resident> {
        let removed = self.shards.remove(&key)?;
        self.bytes -= removed.bytes;
        Some(removed)
    }

    /// Brings a shard up, in place of those used longest ago, `kept` excepted.
    pub(super) fn upload(
        &mut self,
        gpu: &Gpu,
        pipelines: &Pipelines,
        staging: &mut Staging,
        (key, shard): (ShardKey, &ShardView<'_>),
        kept: &[ShardKey],
    ) -> Result<(), EngineError> {
        let needed = shard_bytes(shard.shape);
        let mut reused = None;
        while self.bytes + needed > self.budget {
            let droppable = self.shards.iter().filter(|(key, _)| !kept.contains(key));
            let Some(oldest) = droppable.min_by_key(|(_, shard)| shard.used).map(|(key, _)| *key)
            else {
                let message = format!("a shard has {needed} bytes, the budget {}", self.budget);
                return Err(gpu.failed(&message));
            };
            let dropped = self.remove(oldest);
            reused = dropped.filter(|dropped| dropped.shape == *shard.shape).or(reused);
        }
        self.clock += 1;
        let mut resident = match reused {
            Some(reused) => reused,
            None => self.make(gpu, pipelines, shard.shape)?,
        };
        resident.used = self.clock;
        let columns = shard.shape.columns();
        let table_bytes = shard.shape.table_bytes();
        let sections = [
            (&resident.matrix, shard.matrix, columns),
            (&resident.tables, shard.tables, table_bytes),
        ];
        for (parts, bytes, unit) in sections {
            for part in parts {
                let bytes = &bytes[part.first as usize * unit..][..part.count as usize * unit];
                send(gpu, staging, bytes, &part.buffer)?;
            }
        }
        self.bytes += needed;
        self.uploads += 1;
        self.shards.insert(key, resident);
        Ok(())
    }

    /// Buffers for a shard of this shape.
    fn make(
        &self,
        gpu: &Gpu,
        pipelines: &Pipelines,
        shape: &Shape,
    ) -> Result<Resident, EngineError> {
        let limit = self.binding_bytes_max;
        let row_step = PACK_ROWS_MIN; // whole tiles of any scan but the widest
        let matrix = cut(shape.rows() as u32, row_step, shape.columns() as u64, limit);
        let tables = cut(shape.packs() as u32, 1, shape.table_bytes() as u64, limit);
        gpu.checked(|| {
            let part = |unit: usize| {
                move |(first, count): (u32, u32)| {
                    let buffer = gpu.device.create_buffer(&BufferDescriptor {
                        label: Some("shard"),
                        size: u64::from(count) * unit as u64,
                        usage: BufferUsages::STORAGE | BufferUsages::COPY_DST,
                        mapped_at_creation: false,
                    });
                    let bound = bind(gpu, &pipelines.part, &[&buffer]);
                    Part { buffer, bound, first, count }
                }
            };
            Ok(Resident {
                shape: *shape,
                bytes: shard_bytes(shape),
                used: 0,
                matrix: matrix.into_iter().map(part(shape.columns())).collect(),
                tables: tables.into_iter().map(part(shape.table_bytes())).collect(),
            })
        })
    }
}

/// Bytes of a shard that the device holds.
fn shard_bytes(shape: &Shape) -> u64 {
    (shape.matrix_bytes() + shape.packs() * shape.table_bytes()) as u64
}

/// Cuts `count` units of `bytes` each into parts of at most `limit` bytes, or one step of `step`
/// units where that is more: (first, count).
fn cut(count: u32, step: u32, bytes: u64, limit: u64) -> Vec<(u32, u32)> {
    let steps = u32::try_from(limit / (bytes * u64::from(step))).unwrap_or(u32::MAX);
    let most = steps.clamp(1, count.div_ceil(step)) * step;
    let parts = (0..count).step_by(most as usize);
    parts.map(|first| (first, most.min(count - first))).collect()
}

// One step always fits.
const _: () = assert!(PACK_ROWS_MIN as u64 * COLUMNS_MAX as u64 <= BINDING_BYTES_MIN);
const _: () = assert!((D * (D - 1) * 2 * 3) as u64 <= BINDING_BYTES_MIN);

/// Copies bytes into a buffer, a staging buffer at a time.
fn send(gpu: &Gpu, staging: &mut Staging, bytes: &[u8], to: &Buffer) -> Result<(), EngineError> {
    for (index, piece) in bytes.chunks(STAGING_BYTES as usize).enumerate() {
        let offset = index as u64 * STAGING_BYTES;
        staging.send(
            gpu,
            |write| write(0, piece),
            |encoder, from| {
                encoder.copy_buffer_to_buffer(from, 0, to, offset, piece.len() as u64);
            },
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::cut;

    #[test]
    fn parts_cover_everything_and_fit() {
        assert_eq!(cut(8192, 128, 17_280, 1 << 31), [(0, 8192)]);
        let parts = cut(8192, 128, 17_280, 128 << 20);
        assert_eq!(parts, [(0, 7680), (7680, 512)]);
        assert_eq!(cut(5, 1, 100, 250), [(0, 2), (2, 2), (4, 1)]);
        assert_eq!(cut(3, 1, 100, 99), [(0, 1), (1, 1), (2, 1)]);
    }
}
