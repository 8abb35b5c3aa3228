//! Databases of noise for tests: enough for everything but answers.

use std::path::Path;

use super::manifest::{MANIFEST_NAME, SHARDS_DIR};
use super::write::{Sections, write_shard};
use super::{Header, Manifest, ManifestHead};
use crate::params::Shape;
use crate::wire::{Lifetime, SigningKey};

/// Writes an epoch: one shard a label, which decides what it contains.
pub(crate) fn write(directory: &Path, epoch: u64, labels: &[u8]) {
    let shape = Shape::new(40, 128, 1, 192).unwrap();
    let folder = directory.join(SHARDS_DIR);
    std::fs::create_dir_all(&folder).unwrap();
    let mut entries = Vec::new();
    for (shard_index, &label) in labels.iter().enumerate() {
        let noise = |bytes: usize, section: u8| {
            let mut out = vec![0; bytes];
            let hasher = blake3::Hasher::new().update(&[section, label]).clone();
            hasher.finalize_xof().fill(&mut out);
            out
        };
        let matrix = noise(shape.matrix_bytes(), 0);
        let tables = noise(shape.table_bytes(), 1);
        let hints = noise(shape.hint_bytes(), 2);
        let sections = Sections { matrix: &matrix, tables: &tables, hints: &hints };
        let header = Header {
            seed: [1; 32],
            shard_index: shard_index as u32,
            shard_count: labels.len() as u32,
            shape,
            ribbon_seed: 0,
            records: 1,
            row_square_sum_max: 1_100_000,
            records_digest: [0; 32],
            section_digests: sections.digests(&shape),
        };
        entries.push(write_shard(&folder, &header, &sections).unwrap());
    }
    // For ever: these tests are not about clocks.
    let lifetime = Lifetime { created: 2, expires: u64::MAX };
    let head = ManifestHead { seed: [1; 32], epoch, lifetime, database: "noise".into(), shape };
    let manifest = Manifest::sign(&head, entries, &SigningKey::from_bytes(&[3; 32])).unwrap();
    std::fs::write(directory.join(MANIFEST_NAME), manifest.to_json()).unwrap();
}
