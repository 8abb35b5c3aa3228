//! A shard of noise as a database on disk: engines read it through the same map as a server's.

use std::error::Error;
use std::fs::File;
use std::path::{Path, PathBuf};

use sotto::params::{ENTRY_MEAN_SQUARE, P, Q, Shape};
use sotto::shard::manifest::{MANIFEST_NAME, SHARDS_DIR};
use sotto::shard::write::{Sections, write_shard};
use sotto::shard::{Database, Header, Manifest, ManifestHead};
use sotto::wire::SigningKey;
use tempfile::TempDir;

use crate::common::noise::Noise;

/// A database of one shard of noise in a folder of its own, removed at the end.
pub(super) struct Store {
    folder: TempDir,
    file: PathBuf,
}

impl Store {
    /// Writes it and has the disk have it.
    pub(super) fn write(shape: &Shape, noise: &mut Noise) -> Result<Self, Box<dyn Error>> {
        let parent = Path::new(env!("CARGO_TARGET_TMPDIR"));
        std::fs::create_dir_all(parent)?;
        let folder = tempfile::tempdir_in(parent)?;
        let shards = folder.path().join(SHARDS_DIR);
        std::fs::create_dir(&shards)?;
        let matrix = noise.bytes(shape.matrix_bytes());
        let residues = shape.packs() * shape.table_bytes() / 3;
        let tables = noise.residues(residues, residues / shape.packs() / 2, [Q, P]);
        let hints = noise.bytes(shape.packs() * shape.hint_bytes());
        let sections = Sections { matrix: &matrix, tables: &tables, hints: &hints };
        let header = Header {
            seed: [1; 32],
            shard_index: 0,
            shard_count: 1,
            shape: *shape,
            ribbon_seed: 0,
            records: 1,
            row_square_sum_max: (shape.columns() as f64 * ENTRY_MEAN_SQUARE) as u64,
            records_digest: [0; 32],
            section_digests: sections.digests(),
        };
        let entry = write_shard(&shards, &header, &sections)?;
        let file = shards.join(&entry.file);
        let head = ManifestHead { seed: header.seed, epoch: 1, created: 1, shape: *shape };
        let manifest = Manifest::sign(&head, vec![entry], &SigningKey::from_bytes(&[3; 32]))?;
        std::fs::write(folder.path().join(MANIFEST_NAME), manifest.to_json())?;
        File::open(&file)?.sync_all()?;
        Ok(Self { folder, file })
    }

    pub(super) fn open(&self) -> Result<Database, Box<dyn Error>> {
        Ok(Database::open(self.folder.path())?)
    }

    /// The one shard file: matrix and tables, and some kilobytes.
    pub(super) fn file(&self) -> &Path {
        &self.file
    }
}
