//! `cargo bench --bench gpu [-- [--gpu NAME] OPTIONS]`: runs `sotto bench kernel --gpu OPTIONS`. As
//! `cargo test` runs it (without `--bench`), everything once and tiny, on the device that
//! SOTTO_TEST_GPU names or a real one, or not at all; and its record is read again.

use std::error::Error;
use std::process::{Command, ExitCode};

use sotto::bench::record::Record;
use sotto::engine::{GpuKind, gpus};

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut arguments: Vec<_> = std::env::args().skip(1).collect();
    let measured = arguments.iter().any(|argument| argument == "--bench");
    let mut command = Command::new(env!("CARGO_BIN_EXE_sotto"));
    command.args(["bench", "kernel"]);
    if measured {
        arguments.retain(|argument| argument != "--bench");
        if !arguments.iter().any(|argument| argument.starts_with("--gpu")) {
            arguments.push("--gpu".into());
        }
        let status = command.args(arguments).status()?;
        return Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let named = std::env::var("SOTTO_TEST_GPU").ok();
    let real = || gpus().iter().any(|info| info.kind == GpuKind::Real && info.lacks.is_none());
    if named.is_none() && !real() {
        println!("skipped: there is no real GPU, and SOTTO_TEST_GPU names no other");
        return Ok(ExitCode::SUCCESS);
    }
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("gpu.json");
    command.args(["--tiny", "--json"]).arg(&path).arg("--gpu").args(named);
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
