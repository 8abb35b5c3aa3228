//! Shards of noise as a database on disk: engines read it through the same map as a server's.

use std::fs::File;
use std::path::{Path, PathBuf};

use sotto::params::{ENTRY_MEAN_SQUARE, P, Q, Shape};
use sotto::shard::manifest::{MANIFEST_NAME, SHARDS_DIR};
use sotto::shard::write::{Sections, write_shard};
use sotto::shard::{Database, Header, Manifest, ManifestHead};
use sotto::wire::{Lifetime, SigningKey};

use crate::Failed;
use crate::common::{Effort, Noise};

pub(super) struct Store {
    folder: PathBuf,
    file: PathBuf,
}

impl Store {
    /// Writes as many shards as exceed the caches of a core, at least one, and has the disk have
    /// them. All have the same noise, each in a file, and so in memory, of its own.
    pub(super) fn write(
        folder: &Path,
        shape: &Shape,
        noise: &mut Noise,
        effort: Effort,
    ) -> Result<Self, Failed> {
        let shards = folder.join(SHARDS_DIR);
        std::fs::create_dir(&shards)?;
        let matrix = noise.bytes(shape.matrix_bytes());
        let residues = shape.packs() * shape.table_bytes() / 3;
        let tables = noise.residues(residues, residues / shape.packs() / 2, [Q, P]);
        let hints = noise.bytes(shape.packs() * shape.hint_bytes());
        let sections = Sections { matrix: &matrix, tables: &tables, hints: &hints };
        let bytes = effort.pick(256_000_000, 256_000_000, 1_000_000);
        let count = (bytes / (matrix.len() + tables.len()) as u64).clamp(1, SHARDS_MAX) as u32;
        let section_digests = sections.digests(shape);
        let mut entries = Vec::new();
        for shard_index in 0..count {
            let header = Header {
                seed: SEED,
                shard_index,
                shard_count: count,
                shape: *shape,
                ribbon_seed: 0,
                records: 1,
                row_square_sum_max: (shape.columns() as f64 * ENTRY_MEAN_SQUARE) as u64,
                records_digest: [0; 32],
                section_digests,
            };
            let entry = write_shard(&shards, &header, &sections)?;
            File::open(shards.join(&entry.file))?.sync_all()?;
            entries.push(entry);
        }
        let file = shards.join(&entries[0].file);
        let lifetime = Lifetime { created: 1, expires: u64::MAX };
        let database = "measured".to_owned();
        let head = ManifestHead { seed: SEED, epoch: 1, lifetime, database, shape: *shape };
        let manifest = Manifest::sign(&head, entries, &SigningKey::from_bytes(&[3; 32]))?;
        std::fs::write(folder.join(MANIFEST_NAME), manifest.to_json())?;
        Ok(Self { folder: folder.into(), file })
    }

    pub(super) fn open(&self) -> Result<Database, Failed> {
        Ok(Database::open(&self.folder)?)
    }

    /// The first shard's: matrix and tables, and some kilobytes.
    pub(super) fn file(&self) -> &Path {
        &self.file
    }
}

const SEED: [u8; 32] = [1; 32];
/// Files of the smallest shards.
const SHARDS_MAX: u64 = 2048;
