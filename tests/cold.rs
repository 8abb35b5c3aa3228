//! A shard whose pages are not in memory is noticed, read from front to back, and answered right.

#![allow(clippy::unwrap_used)]

mod harness;

use std::fs::File;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use harness::{noise, skip};
use sotto::engine::{Batch, EncryptedQuery, EngineChoice, IsaChoice, select};
use sotto::params::Shape;
use sotto::scheme::{KeyBundle, reference};
use sotto::shard::manifest::SHARDS_DIR;
use sotto::shard::{Database, ShardView};

/// A database of one shard: 6 MB of matrix, 25 MB of tables.
fn write_database(directory: &Path) -> Shape {
    let shape = Shape::new(120, 2048, 1, 3136).unwrap();
    noise::write_database(directory, shape, 1);
    shape
}

/// The share of a slice's pages that are in memory, as who owns the file is told.
fn resident_share(bytes: &[u8]) -> f64 {
    let page = rustix::param::page_size();
    let begin = bytes.as_ptr().addr() / page * page;
    let length = bytes.as_ptr().addr() + bytes.len() - begin;
    let mut pages = vec![0u8; length.div_ceil(page)];
    let at = std::ptr::without_provenance_mut(begin);
    // SAFETY: nothing is read or written but `pages`, which has a byte for each page.
    assert_eq!(unsafe { libc::mincore(at, length, pages.as_mut_ptr()) }, 0);
    pages.iter().filter(|&&page| page & 1 == 1).count() as f64 / pages.len() as f64
}

/// Opens the database with none of its shard's pages in memory. `None` where the file system keeps
/// them whatever one asks for.
fn open_cold(directory: &Path) -> Option<Database> {
    for file in std::fs::read_dir(directory.join(SHARDS_DIR)).unwrap() {
        let file = File::open(file.unwrap().path()).unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    }
    let database = Database::open(directory).unwrap();
    let ShardView { matrix, tables, .. } = database.shard(0).unwrap().view();
    let there = (resident_share(matrix), resident_share(tables));
    // Opening read the header, and the system a little ahead of it.
    let cold = there.0 < 1.0 && there.1 == 0.0;
    if !cold {
        skip(&format!("{there:?} of the pages stay in memory below {}", directory.display()));
    }
    cold.then_some(database)
}

/// Pages that the engine's own threads have waited for a disk for.
fn pages_from_disk() -> u64 {
    let mut pages = 0;
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        let stat = std::fs::read_to_string(task.unwrap().path().join("stat")).unwrap_or_default();
        if let Some((_, fields)) = stat.split_once("(engine-cpu-") {
            // After the name: state, then field 4 of `proc_pid_stat(5)`; major faults are field 12.
            let (_, fields) = fields.split_once(") ").unwrap();
            pages += fields.split(' ').nth(12 - 3).unwrap().parse::<u64>().unwrap();
        }
    }
    pages
}

fn query(shape: &Shape) -> EncryptedQuery {
    let bundle = noise::residues("sotto cold test bundle", shape.bundle_bytes());
    EncryptedQuery {
        vector: noise::bytes("sotto cold test query", shape.query_bytes()).into(),
        bundle: Arc::new(KeyBundle::decode(&bundle, shape).unwrap()),
    }
}

fn directory() -> tempfile::TempDir {
    // Where the build lies: /tmp may be in memory.
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

#[test]
fn missing_pages_are_noticed_and_brought_in_from_front_to_back() {
    let directory = directory();
    let shape = write_database(directory.path());
    let Some(database) = open_cold(directory.path()) else { return };
    assert!(!database.shard(0).unwrap().view().is_resident());

    let database = open_cold(directory.path()).unwrap();
    let view = database.shard(0).unwrap().view();
    let piece_rows = 100; // does not divide the rows
    let mut seen = Vec::new();
    view.read_in_order(piece_rows, |piece| {
        let bytes = view.matrix.chunks(piece_rows * shape.columns()).nth(piece).unwrap();
        assert_eq!(resident_share(bytes), 1.0, "piece {piece} is there when it is announced");
        seen.push(piece);
    });
    assert!(seen.into_iter().eq(0..shape.rows().div_ceil(piece_rows)));
    assert_eq!((resident_share(view.matrix), resident_share(view.tables)), (1.0, 1.0));
    assert!(view.is_resident());
}

#[test]
fn a_cold_shard_is_answered_right_and_its_kernels_wait_for_no_page() {
    let directory = directory();
    let shape = write_database(directory.path());
    let query = query(&shape);
    let Some(database) = open_cold(directory.path()) else { return };
    let view = database.shard(0).unwrap().view();
    let (matrix, tables) = (view.matrix.to_vec(), view.tables.to_vec());
    let expected = reference::answer(&shape, &matrix, &tables, &query.vector, &query.bundle);
    drop(database);

    let mut engine =
        select(EngineChoice::Cpu, IsaChoice::Auto, NonZeroUsize::new(2)).expect("an engine");
    let mut answer = |shard| {
        let batch = Batch { shard, queries: std::slice::from_ref(&query) };
        let mut answers = Vec::new();
        engine.answer(&[batch], &mut |_, _, answer| answers.push(answer)).unwrap();
        assert!(answers == [&expected[..]], "the answer is the reference's");
    };
    answer(ShardView { shape: &shape, matrix: &matrix, tables: &tables, content: None });
    let before = pages_from_disk();
    answer(ShardView { shape: &shape, matrix: &matrix, tables: &tables, content: None });
    assert_eq!(pages_from_disk(), before, "a warm answer waits for no page");

    let database = open_cold(directory.path()).unwrap();
    let view = database.shard(0).unwrap().view();
    answer(view);
    // One for the look whether the shard is in memory; a few, should the system have dropped some.
    let waited = pages_from_disk() - before;
    assert!((1..3).contains(&waited), "engine threads waited for {waited} pages");
    assert_eq!((resident_share(view.matrix), resident_share(view.tables)), (1.0, 1.0));
}
