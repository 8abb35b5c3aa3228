//! Pseudorandom bytes, and databases of them: written without the builder, with headers and a
//! manifest that hold.

use std::path::Path;

use sotto::params::{P, Q, Shape};
use sotto::shard::Manifest;
use sotto::shard::header::Header;
use sotto::shard::manifest::{MANIFEST_NAME, ManifestHead, SHARDS_DIR, ShardEntry};
use sotto::shard::write::{Sections, write_shard};
use sotto::wire::{Lifetime, SigningKey};

/// The epoch of a database of noise.
pub(crate) const EPOCH: u64 = 4;

/// Pseudorandom bytes from a label.
pub(crate) fn bytes(label: &str, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    blake3::Hasher::new_derive_key(label).finalize_xof().fill(&mut bytes);
    bytes
}

/// Pseudorandom residues of three bytes below both primes: the top bit is never set.
pub(crate) fn residues(label: &str, count: usize) -> Vec<u8> {
    const { assert!(1 << 23 < Q && 1 << 23 < P) };
    let mut bytes = bytes(label, count);
    bytes.iter_mut().skip(2).step_by(3).for_each(|byte| *byte &= 0x7f);
    bytes
}

/// The key that signs these databases.
pub(crate) fn operator() -> SigningKey {
    SigningKey::from_bytes(&[3; 32])
}

/// The header of a shard, without the digests of its sections.
pub(crate) fn header(shape: Shape, shard_index: u32, shard_count: u32) -> Header {
    Header {
        seed: [1; 32],
        shard_index,
        shard_count,
        shape,
        ribbon_seed: 0,
        records: 1,
        row_square_sum_max: 1_100_000,
        records_digest: [0; 32],
        section_digests: [[0; 32]; 3],
    }
}

/// Writes the manifest of these shards.
pub(crate) fn publish(directory: &Path, shape: Shape, entries: Vec<ShardEntry>) {
    let lifetime = Lifetime { created: 2, expires: u64::MAX };
    let database = "test".to_owned();
    let head = ManifestHead { seed: [1; 32], epoch: EPOCH, lifetime, database, shape };
    let manifest = Manifest::sign(&head, entries, &operator()).unwrap();
    std::fs::write(directory.join(MANIFEST_NAME), manifest.to_json()).unwrap();
}

/// Writes a database of this many shards of noise.
pub(crate) fn write_database(directory: &Path, shape: Shape, shards: u32) {
    let folder = directory.join(SHARDS_DIR);
    std::fs::create_dir_all(&folder).unwrap();
    let entries = (0..shards).map(|shard| {
        let matrix = bytes(&format!("matrix {shard}"), shape.matrix_bytes());
        let tables = residues(&format!("tables {shard}"), shape.packs() * shape.table_bytes());
        let hints = residues(&format!("hints {shard}"), shape.packs() * shape.hint_bytes());
        let sections = Sections { matrix: &matrix, tables: &tables, hints: &hints };
        let section_digests = sections.digests(&shape);
        let header = Header { section_digests, ..header(shape, shard, shards) };
        write_shard(&folder, &header, &sections).unwrap()
    });
    publish(directory, shape, entries.collect());
}
