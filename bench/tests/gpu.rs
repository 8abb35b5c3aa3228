//! `sotto-bench gpu` as a program: everything once and tiny, on the device that
//! SOTTO_TEST_GPU names or a real one, or not at all; and its record is read again.

use std::error::Error;
use std::process::{Command, ExitCode};

use sotto::engine::{GpuKind, gpus};
use sotto_bench::found::Record;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sotto-bench"));
    command.arg("gpu");
    let named = std::env::var("SOTTO_TEST_GPU").ok();
    let real = || gpus().iter().any(|info| info.kind == GpuKind::Real && info.lacks.is_none());
    if named.is_none() && !real() {
        println!("skipped: there is no real GPU, and SOTTO_TEST_GPU names no other");
        return Ok(ExitCode::SUCCESS);
    }
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("gpu.json");
    command.args(["--tiny", "--json"]).arg(&path).args(named);
    assert!(command.status()?.success());
    let Record::Gpu(record) = Record::read(&path)? else { panic!("another kind of record") };
    let batches: Vec<_> = record.answers.iter().map(|answer| answer.batch).collect();
    assert_eq!(batches, [1, 3]);
    assert!(record.answers.iter().all(|answer| answer.streamed_us.best > 0.0));
    assert_eq!((&*record.effort, record.targets.len()), ("test", 0));
    assert_eq!(record.traffic.checked, 20, "answers beside the processor's");
    let table = std::fs::read_to_string(path.with_extension("txt"))?;
    assert!(table.contains(&format!("device {}", record.device.name)), "{table}");
    Ok(ExitCode::SUCCESS)
}
