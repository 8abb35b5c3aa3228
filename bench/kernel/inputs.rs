//! Noise in the form of queries and of a shard, and the shard as a database on disk: engines read
//! it through the same map as a server's.

use std::error::Error;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sotto::engine::EncryptedQuery;
use sotto::params::{D, ENTRY_MEAN_SQUARE, P, Q, Shape};
use sotto::scheme::KeyBundle;
use sotto::shard::manifest::{MANIFEST_NAME, SHARDS_DIR};
use sotto::shard::write::{Sections, write_shard};
use sotto::shard::{Database, Header, Manifest, ManifestHead};
use sotto::wire::SigningKey;
use tempfile::TempDir;

/// Noise, fast: xorshift64.
pub(super) struct Noise(u64);

impl Noise {
    pub(super) fn new() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }

    fn word(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(super) fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        bytes
            .chunks_mut(8)
            .for_each(|to| to.copy_from_slice(&self.word().to_le_bytes()[..to.len()]));
        bytes
    }

    /// Halves of residues modulo Q and modulo P in turn, 3 bytes each.
    fn residues(&mut self, count: usize, half: usize) -> Vec<u8> {
        let mut bytes = self.bytes(3 * count);
        for (index, bytes) in bytes.chunks_exact_mut(3 * half).enumerate() {
            let prime = if index.is_multiple_of(2) { Q } else { P };
            for residue in bytes.chunks_exact_mut(3) {
                let drawn = u32::from_le_bytes([residue[0], residue[1], residue[2], 0]);
                // The primes are just below 2^24: one subtraction is a reduction.
                let reduced = drawn.checked_sub(prime).unwrap_or(drawn);
                residue.copy_from_slice(&reduced.to_le_bytes()[..3]);
            }
        }
        bytes
    }

    pub(super) fn query(&mut self, shape: &Shape) -> EncryptedQuery {
        let bundle = self.residues(shape.bundle_bytes() / 3, D);
        let bundle = KeyBundle::decode(&bundle, shape).expect("residues are below their primes");
        EncryptedQuery { vector: self.bytes(shape.query_bytes()).into(), bundle: Arc::new(bundle) }
    }
}

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
        let tables = noise.residues(residues, residues / shape.packs() / 2);
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
