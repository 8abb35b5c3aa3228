//! The commands that measure as programs, tiny: `sotto-bench kernel`, `gpu`, `build`, `startup` and
//! `reload`. No time is asserted but that one thing comes after the other.

#![allow(clippy::unwrap_used)]

#[path = "../../tests/harness/mod.rs"]
mod harness;

use std::path::{Path, PathBuf};
use std::process::Command;

use harness::program::run;
use sotto_bench::found::Record;
use sotto_bench::record::{Build, Content, Kernel, Reload, Spread, Started, Startup};

const SMALL: [&str; 2] = ["--records=600", "--value-bytes=40"];

/// Below the build: /tmp may be in memory.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// Runs it in this folder, of which nothing but the record may be left.
fn bench(folder: &Path, arguments: &[&str]) -> (i32, String, String, PathBuf) {
    let json = folder.join("record.json");
    let mut command = Command::new(env!("CARGO_BIN_EXE_sotto-bench"));
    command.args(arguments).arg("--json").arg(&json);
    let (code, out, err) = run(command.env("TMPDIR", folder));
    let mut left: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.retain(|name| !name.to_str().unwrap().starts_with("record."));
    assert!(left.is_empty(), "{arguments:?} left {left:?}");
    (code, out, err, json)
}

/// The record, whose table was printed and lies beside it.
fn record(ended: (i32, String, String, PathBuf)) -> Record {
    let (code, out, err, json) = ended;
    assert_eq!((code, &*err), (0, ""), "{out}");
    let table = std::fs::read_to_string(json.with_extension("txt")).unwrap();
    assert!(table.contains("median") && out.contains(table.trim()), "{out}\n{table}");
    Record::read(&json).unwrap()
}

fn check(content: &Content) {
    assert_eq!((content.records, content.shards, content.shape.value_len), (600, 6, 40));
    let shard = (content.shape.matrix_bytes + content.shape.tables_bytes) as u64;
    assert!(content.database_bytes > 6 * shard);
}

fn is_time(spread: &Spread, runs: usize) {
    let Spread { best, q1, median, q3, .. } = *spread;
    assert!(0.0 < best && best <= q1 && q1 <= median && median <= q3, "{spread:?}");
    assert_eq!(spread.runs, runs);
}

fn kernel(folder: &Path, arguments: &[&str]) -> Kernel {
    let (code, _, err, json) = bench(folder, &[&["kernel", "--tiny"], arguments].concat());
    assert_eq!(code, 0, "{err}");
    let Record::Kernel(record) = Record::read(&json).unwrap() else { panic!() };
    *record
}

#[test]
fn engines_are_measured_each_with_all_numbers_of_threads() {
    let folder = folder();
    let record = kernel(folder.path(), &[]);
    let threads: Vec<_> = record.floors.read.iter().map(|read| read.threads).collect();
    let engines: Vec<_> =
        sotto::arith::Isa::all().into_iter().map(|isa| isa.name().name()).collect();
    let combinations = engines.iter().flat_map(|&engine| {
        threads.iter().flat_map(move |&threads| [1, 3].map(|batch| (engine, threads, batch)))
    });
    let answers = record.answers.iter();
    let found = answers.map(|answer| (&*answer.engine, answer.threads, answer.batch));
    assert!(found.eq(combinations), "{:?}", record.answers);
    assert!(record.answers.iter().all(|answer| answer.ms_per_query.best > 0.0));
    assert_eq!((&*record.effort, threads[0], record.targets.len()), ("test", 1, 0));
    assert_eq!(threads.last(), Some(&record.pinned_to.len()), "not all processors");
    let table = std::fs::read_to_string(folder.path().join("record.txt")).unwrap();
    assert!(table.contains("1 thread, batch 1") && table.contains("ms/query"), "{table}");
    // Another shape, one engine.
    let other = "--engine portable --records 3000 --packs 2 --value-bytes 40";
    let record = kernel(folder.path(), &other.split(' ').collect::<Vec<_>>());
    assert_eq!((record.shape.value_len, record.shape.packs), (40, 2));
    assert!(record.shape.shape().unwrap().records_expected() >= 3000, "{:?}", record.shape);
    assert!(record.answers.iter().all(|answer| answer.engine == "portable"));
}

/// On the device that SOTTO_TEST_GPU names or a real one, or not at all.
#[cfg(feature = "gpu")]
#[test]
fn a_gpu_is_measured_and_checked() {
    use sotto::engine::{GpuKind, gpus};

    let named = std::env::var("SOTTO_TEST_GPU").ok();
    let real = || gpus().iter().any(|info| info.kind == GpuKind::Real && info.lacks.is_none());
    if named.is_none() && !real() {
        println!("skipped: there is no real GPU, and SOTTO_TEST_GPU names no other");
        return;
    }
    let folder = folder();
    let mut arguments = vec!["gpu", "--tiny"];
    arguments.extend(named.as_deref());
    let (code, _, err, json) = bench(folder.path(), &arguments);
    assert_eq!(code, 0, "{err}");
    let Record::Gpu(record) = Record::read(&json).unwrap() else { panic!() };
    let batches: Vec<_> = record.answers.iter().map(|answer| answer.batch).collect();
    assert_eq!(batches, [1, 3]);
    assert!(record.answers.iter().all(|answer| answer.streamed_us.best > 0.0));
    assert_eq!((&*record.effort, record.targets.len()), ("test", 0));
    assert_eq!(record.traffic.checked, 20, "answers beside the processor's");
    let table = std::fs::read_to_string(json.with_extension("txt")).unwrap();
    assert!(table.contains(&format!("device: {}", record.device.name)), "{table}");
}

#[test]
fn building_is_measured_in_a_process_of_its_own() {
    let folder = folder();
    let Record::Build(record) =
        record(bench(folder.path(), &[&["build", "--shards=6", "--runs=2"], &SMALL[..]].concat()))
    else {
        panic!()
    };
    let Build { head, content, input_bytes, threads, seconds, cpu_seconds, .. } = &*record;
    check(content);
    assert!(head.command.contains("sotto-bench build --shards=6") && *threads >= 1);
    // "sii,value", and lines that are no shorter than a number with its value.
    assert!(*input_bytes > 10 + 600 * 30);
    for spread in [seconds, cpu_seconds, &record.verify_seconds] {
        is_time(spread, 2);
    }
    let peak = record.peak_memory_bytes;
    assert!(peak > content.shape.tables_bytes as u64, "{peak}: a shard's tables were in memory");
}

#[test]
fn starts_are_measured_warm_and_cold() {
    let outer = folder();
    let ended = bench(outer.path(), &[&["startup", "--shards=6", "--runs=2"], &SMALL[..]].concat());
    if ended.2.contains("keeps pages in memory") {
        println!("skipped: {}", ended.2);
        return;
    }
    let Record::Startup(record) = record(ended) else { panic!() };
    let Startup { content, warm, cold, .. } = &*record;
    check(content);
    for Started { listening_ms, ready_ms, first_answer_ms, own_memory_bytes } in [warm, cold] {
        for spread in [listening_ms, ready_ms, first_answer_ms] {
            is_time(spread, 2);
        }
        assert!(first_answer_ms.best > listening_ms.best && ready_ms.best > listening_ms.best);
        assert!(*own_memory_bytes > 1 << 16);
    }
}

#[test]
fn reloads_are_measured_and_no_look_up_is_lost() {
    let folder = folder();
    let arguments = [&["reload", "--shards=12", "--runs=3"], &SMALL[..]].concat();
    let Record::Reload(record) = record(bench(folder.path(), &arguments)) else { panic!() };
    let Reload { content, changes, lookups, lost, .. } = &*record;
    let shards: Vec<_> = changes.iter().map(|change| change.shards).collect();
    assert_eq!((content.shards, shards), (12, vec![1, 12]));
    for change in changes {
        // There and back.
        is_time(&change.reload_ms, 4);
        let shard = content.database_bytes / u64::from(content.shards);
        assert_eq!(change.bytes, u64::from(change.shards) * shard);
        assert!(change.lookup_ms_max > 0.0);
    }
    // Four clients, each at least once in every reload.
    assert!(*lookups >= 4 * 4 * 2 && *lost == 0, "{lookups}");
}
