//! The commands that measure: `sotto-bench kernel`, `gpu`, `build`, `startup` and `reload`. Each
//! works in a folder that goes when it ends, however it ends, and keeps a record with its table.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::value_parser;
use sotto::arith::{Isa, IsaName};
use sotto::commands::out::{report, say};
use sotto::commands::{Ended, Folder, pack_rows};
#[cfg(feature = "gpu")]
use sotto::engine::GpuChoice;
use sotto::engine::IsaChoice;
use sotto::limits;
use sotto::params::{Shape, ShapeError, ShapeWishes};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::spawn_blocking;

use super::files::{claim, keep, large_folder};
use crate::Failed;
use crate::common::{Effort, STANDARD};
use crate::found::Record;
use crate::kernel;
use crate::numbers;
use crate::operations::{self, OperationOptions, Place};

/// Exit code after Ctrl-C, as shells have it.
const INTERRUPTED: u8 = 130;
const TINY_RECORDS: u64 = 1 << 10;

#[derive(clap::Args)]
struct Output {
    /// Write the record here, and beside it, in a file that ends in .txt, what is printed;
    /// otherwise to bench/record/<date>-<machine> where there is bench/record, else to the current
    /// folder.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Measure the engines that answer, and this machine's floors, without any server.
#[derive(clap::Args)]
pub(super) struct KernelArgs {
    #[command(flatten)]
    engine_args: EngineArgs,
    /// Only this instruction set, or `auto` for the fastest; all that this processor has when
    /// absent.
    #[arg(long, value_name = "NAME")]
    engine: Option<IsaChoice>,
}

/// Measure a GPU: its engine, and what the device could do at best.
#[cfg(feature = "gpu")]
#[derive(clap::Args)]
pub(super) struct GpuArgs {
    #[command(flatten)]
    engine_args: EngineArgs,
    /// The one with this number, or the first whose name has this in it; the first that is real
    /// when absent.
    #[arg(value_name = "NAME|INDEX")]
    gpu: Option<GpuChoice>,
}

/// How much is measured, and of which shard.
#[derive(clap::Args)]
struct EngineArgs {
    /// In a minute at most instead of five; on a GPU with small shards.
    #[arg(long)]
    quick: bool,
    /// Everything once, with a tiny shard: shows that it works here, and nothing else.
    #[arg(long, conflicts_with = "quick")]
    tiny: bool,
    /// Records of a shard, which decide its shape; 1048576 when absent.
    #[arg(long, value_name = "N", value_parser = value_parser!(u64).range(1..))]
    records: Option<u64>,
    /// Rows a pack; the shape rule's when absent.
    #[arg(long, value_name = "N", value_parser = pack_rows)]
    pack_rows: Option<u32>,
    /// Packs a shard; the shape rule's when absent.
    #[arg(long, value_name = "N",
          value_parser = value_parser!(u32).range(1..=i64::from(limits::PACKS_MAX)))]
    packs: Option<u32>,
    /// Bytes of a value field; 120 when absent.
    #[arg(long, value_name = "N",
          value_parser = value_parser!(u32).range(1..=i64::from(limits::VALUE_BYTES_MAX)))]
    value_bytes: Option<u32>,
    #[command(flatten)]
    output: Output,
}

#[derive(clap::Args)]
pub(super) struct OperationArgs {
    #[command(flatten)]
    options: OperationOptions,
    #[command(flatten)]
    output: Output,
}

#[derive(clap::Args)]
pub(super) struct BuildArgs {
    #[command(flatten)]
    args: OperationArgs,
    /// Build this folder's records.csv once, and print what that took: the process measured.
    #[arg(long, value_name = "DIR", hide = true)]
    once: Option<PathBuf>,
    /// Its number.
    #[arg(long, value_name = "N", hide = true, default_value_t = 0)]
    run: u32,
}

pub(super) fn kernel(KernelArgs { engine_args: args, engine }: KernelArgs) -> Ended {
    let engines = engines(engine)?;
    let records = if args.tiny { TINY_RECORDS } else { STANDARD.0 };
    let default = || Shape::for_records(records, STANDARD.1, ShapeWishes::default());
    let (effort, shape) = (args.effort(), args.shape().unwrap_or_else(default)?);
    measure("kernel", args.output, async |folder| {
        let work = move || kernel::measure(&folder, effort, &engines, &shape);
        Ok(Record::Kernel(Box::new(spawn_blocking(work).await??)))
    })
}

#[cfg(feature = "gpu")]
pub(super) fn gpu(GpuArgs { engine_args: args, gpu: choice }: GpuArgs) -> Ended {
    use crate::gpu;

    let info = gpu::find(choice.as_ref())?;
    let effort = args.effort();
    let shape = args.shape().unwrap_or_else(|| gpu::shape(effort))?;
    measure("gpu", args.output, async |_| {
        let work = move || gpu::measure(effort, &info, &shape);
        Ok(Record::Gpu(Box::new(spawn_blocking(work).await??)))
    })
}

pub(super) fn build(BuildArgs { args, once, run }: BuildArgs) -> Ended {
    let OperationArgs { options, output } = args;
    if let Some(folder) = once {
        let usage = operations::build_once(&Place { options, folder }, run);
        say(serde_json::to_string(&usage.map_err(plain)?)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    measure("build", output, async |folder| {
        Ok(Record::Build(Box::new(operations::build(Place { options, folder }).await?)))
    })
}

pub(super) fn startup(OperationArgs { options, output }: OperationArgs) -> Ended {
    measure("startup", output, async |folder| {
        Ok(Record::Startup(Box::new(operations::startup(Place { options, folder }).await?)))
    })
}

pub(super) fn reload(OperationArgs { options, output }: OperationArgs) -> Ended {
    measure("reload", output, async |folder| {
        Ok(Record::Reload(Box::new(operations::reload(Place { options, folder }).await?)))
    })
}

fn plain(error: Failed) -> Box<dyn Error> {
    error
}

/// Runs `work` in a temporary folder until it ends or is interrupted; prints and keeps its record.
fn measure(
    kind: &str,
    Output { json }: Output,
    work: impl AsyncFnOnce(PathBuf) -> Result<Record, Failed>,
) -> Ended {
    let path = claim(kind, json)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let folder = Folder::temporary(&large_folder(), &format!("bench-{kind}"))?;
    let place = folder.path().to_owned();
    let ended = runtime.block_on(async {
        let (mut interrupt, mut terminate) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        Ok::<_, Failed>(tokio::select! {
            record = work(place) => Some(record?),
            _ = interrupt.recv() => None,
            _ = terminate.recv() => None,
        })
    });
    // What was interrupted may still write until the process ends: its folder goes last.
    runtime.shutdown_background();
    drop(folder);
    let Some(record) = ended.map_err(plain)? else { return Ok(ExitCode::from(INTERRUPTED)) };
    let text = numbers::text(&record);
    report(format_args!("\n{}", text.trim_end()));
    keep(&path, &record, &text)?;
    Ok(ExitCode::SUCCESS)
}

impl EngineArgs {
    fn effort(&self) -> Effort {
        match (self.tiny, self.quick) {
            (true, _) => Effort::Test,
            (_, true) => Effort::Quick,
            _ => Effort::Full,
        }
    }

    /// The one that is asked for, if any is.
    fn shape(&self) -> Option<Result<Shape, ShapeError>> {
        let Self { records, pack_rows, packs, value_bytes, .. } = *self;
        let asked = (records, pack_rows, packs, value_bytes) != (None, None, None, None);
        let (records, value_bytes) =
            (records.unwrap_or(STANDARD.0), value_bytes.unwrap_or(STANDARD.1));
        let wishes = ShapeWishes { pack_rows, packs };
        asked.then(|| Shape::for_records(records, value_bytes, wishes))
    }
}

/// Those to measure, slowest first.
fn engines(choice: Option<IsaChoice>) -> Result<Vec<IsaName>, String> {
    let present: Vec<_> = Isa::all().into_iter().map(Isa::name).collect();
    match choice {
        None => Ok(present),
        Some(IsaChoice::Auto) => Ok(present.last().copied().into_iter().collect()),
        Some(IsaChoice::Only(name)) if present.contains(&name) => Ok(vec![name]),
        Some(IsaChoice::Only(name)) => {
            let present: Vec<_> = present.iter().map(|isa| isa.name()).collect();
            Err(format!("--engine: found {:?}, expected one of {present:?}", name.name()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_are_those_that_are_here() {
        let all = engines(None).unwrap();
        assert_eq!(all[0], IsaName::Portable);
        let fastest = Isa::detect().name();
        assert_eq!(engines(Some(IsaChoice::Auto)).unwrap(), [fastest]);
        assert_eq!(engines(Some(IsaChoice::Only(fastest))).unwrap(), [fastest]);
        let missing = IsaName::ALL.into_iter().find(|isa| !all.contains(isa)).unwrap();
        let error = engines(Some(IsaChoice::Only(missing))).unwrap_err();
        assert!(error.contains(missing.name()) && error.contains("portable"), "{error}");
    }
}
