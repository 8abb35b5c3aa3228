//! Ten thousand shards open in under two seconds and cost no more memory than their metadata.

#![allow(clippy::unwrap_used)]

mod harness;

use std::io::Write as _;
use std::time::{Duration, Instant};

use harness::noise;
use sotto::params::Shape;
use sotto::shard::Database;
use sotto::shard::header::file_bytes;
use sotto::shard::manifest::SHARDS_DIR;
use sotto::shard::write::entry;

/// Files with nothing in them but a header: opening reads no more.
fn write_hollow(folder: &std::path::Path, shards: u32) {
    let shape = Shape::new(24, 128, 1, 192).unwrap();
    std::fs::create_dir(folder.join(SHARDS_DIR)).unwrap();
    let entry = |shard| {
        let header = noise::header(shape, shard, shards);
        let entry = entry(&header);
        let mut file = std::fs::File::create(folder.join(SHARDS_DIR).join(&entry.file)).unwrap();
        file.write_all(&header.encode()).unwrap();
        file.set_len(file_bytes(&shape)).unwrap();
        entry
    };
    noise::publish(folder, shape, (0..shards).map(entry).collect());
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
