//! `sotto-bench kernel` as a program: everything once and tiny, and its record is read again.

use std::error::Error;
use std::path::Path;
use std::process::{Command, ExitCode};

use sotto_bench::found::Record;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sotto-bench"));
    command.arg("kernel");
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("kernel.json");
    assert!(command.args(["--tiny", "--json"]).arg(&path).status()?.success());
    let Record::Kernel(record) = Record::read(&path)? else { panic!("another kind of record") };
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
    let table = std::fs::read_to_string(path.with_extension("txt"))?;
    assert!(table.contains("1 thread, batch 1") && table.contains("ms/query"), "{table}");
    other_shapes_and_one_engine(folder.path())
}

fn other_shapes_and_one_engine(folder: &Path) -> Result<ExitCode, Box<dyn Error>> {
    let path = folder.join("other.json");
    let arguments = "kernel --tiny --engine portable --records 3000 --packs 2 --value-bytes 40";
    let mut command = Command::new(env!("CARGO_BIN_EXE_sotto-bench"));
    command.args(arguments.split(' ')).arg("--json").arg(&path);
    assert!(command.status()?.success());
    let Record::Kernel(record) = Record::read(&path)? else { panic!("another kind of record") };
    assert_eq!((record.shape.value_len, record.shape.packs), (40, 2));
    assert!(record.shape.shape()?.records_expected() >= 3000, "{:?}", record.shape);
    assert!(record.answers.iter().all(|answer| answer.engine == "portable"));
    Ok(ExitCode::SUCCESS)
}
