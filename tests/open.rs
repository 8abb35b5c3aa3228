//! Ten thousand shards open in under two seconds and cost no more memory than their metadata.

#![allow(clippy::unwrap_used)]

use std::io::Write as _;
use std::time::{Duration, Instant};

use sotto::params::Shape;
use sotto::shard::header::{Header, file_bytes};
use sotto::shard::manifest::{MANIFEST_NAME, ManifestHead, SHARDS_DIR};
use sotto::shard::write::entry;
use sotto::shard::{Database, Manifest};
use sotto::wire::{Lifetime, SigningKey};

/// Files with nothing in them but a header: opening reads no more.
fn write_hollow(folder: &std::path::Path, shards: u32) {
    let shape = Shape::new(24, 128, 1, 192).unwrap();
    std::fs::create_dir(folder.join(SHARDS_DIR)).unwrap();
    let entry = |shard_index| {
        let header = Header {
            seed: [1; 32],
            shard_index,
            shard_count: shards,
            shape,
            ribbon_seed: 0,
            records: 1,
            row_square_sum_max: 1_100_000,
            records_digest: [0; 32],
            section_digests: [[0; 32]; 3],
        };
        let entry = entry(&header);
        let mut file = std::fs::File::create(folder.join(SHARDS_DIR).join(&entry.file)).unwrap();
        file.write_all(&header.encode()).unwrap();
        file.set_len(file_bytes(&shape)).unwrap();
        entry
    };
    let lifetime = Lifetime { created: 2, expires: u64::MAX };
    let database = "test".to_owned();
    let head = ManifestHead { seed: [1; 32], epoch: 1, lifetime, database, shape };
    let entries = (0..shards).map(entry).collect();
    let manifest = Manifest::sign(&head, entries, &SigningKey::from_bytes(&[3; 32])).unwrap();
    std::fs::write(folder.join(MANIFEST_NAME), manifest.to_json()).unwrap();
}

/// Memory of this process that is its own, in bytes.
fn own_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

#[test]
fn ten_thousand_shards_open_at_once_and_cost_their_metadata() {
    let folder = tempfile::tempdir().unwrap();
    write_hollow(folder.path(), 10_000);
    let (before, begun) = (own_memory(), Instant::now());
    let database = Database::open(folder.path()).unwrap();
    let (elapsed, taken) = (begun.elapsed(), own_memory().saturating_sub(before));
    println!("opened in {elapsed:?}, {taken} bytes of memory");
    assert_eq!(database.shard_count(), 10_000);
    assert!(elapsed < Duration::from_secs(2), "{elapsed:?}");
    // The manifest, its text while it is read, and a header a shard: no sections.
    assert!(taken < 64 << 20, "{taken} bytes");
}
