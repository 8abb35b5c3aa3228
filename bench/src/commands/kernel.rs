//! `sotto-bench kernel` and `gpu`: engines beside what the processor or a GPU can do at best.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::value_parser;
use sotto::arith::{Isa, IsaName};
#[cfg(feature = "gpu")]
use sotto::engine::GpuChoice;
use sotto::engine::IsaChoice;
use sotto::limits;
use sotto::params::{Shape, ShapeError, ShapeWishes};

use super::files::{claim, keep, large_folder};
use crate::common::Effort;
use crate::common::report::Printed;
use crate::kernel;
use sotto::commands::Ended;
use sotto::commands::pack_rows;

/// Measure the engines that answer, and this machine's floors, without any server.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    common: MeasureArgs,
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
    common: MeasureArgs,
    /// The one with this number, or the first whose name has this in it; the first that is real
    /// when absent.
    #[arg(value_name = "NAME|INDEX")]
    gpu: Option<GpuChoice>,
}

/// How much is measured, of which shard, and where the record goes.
#[derive(clap::Args)]
struct MeasureArgs {
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
    /// Write the record here, and beside it, in a file that ends in .txt, what is printed;
    /// otherwise to bench/record where there is such a folder, else to the current folder.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Records and value bytes of the standard shard.
const STANDARD: (u64, u32) = (1 << 20, 120);
const TINY_RECORDS: u64 = 1 << 10;

pub(super) fn run(Args { common: args, engine }: Args) -> Ended {
    let engines = engines(engine)?;
    let records = if args.tiny { TINY_RECORDS } else { STANDARD.0 };
    let default = || Shape::for_records(records, STANDARD.1, ShapeWishes::default());
    let shape = args.shape().unwrap_or_else(default);
    let path = claim("kernel", args.json.clone())?;
    let folder = tempfile::Builder::new().prefix("sotto-bench-").tempdir_in(large_folder())?;
    remove_when_interrupted(folder.path())?;
    let mut printed = Printed::default();
    let record = kernel::measure(folder.path(), args.effort(), &engines, &shape?, &mut printed)?;
    keep(&path, &record, printed.text())?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(feature = "gpu")]
pub(super) fn run_gpu(GpuArgs { common: args, gpu: choice }: GpuArgs) -> Ended {
    use crate::gpu;

    let info = gpu::find(choice.as_ref())?;
    let shape = args.shape().unwrap_or_else(|| gpu::shape(args.effort()))?;
    let path = claim("gpu", args.json.clone())?;
    let mut printed = Printed::default();
    let record = gpu::measure(args.effort(), &info, &shape, &mut printed)?;
    keep(&path, &record, printed.text())?;
    Ok(ExitCode::SUCCESS)
}

/// Does not leave shards behind in a folder that nobody empties.
fn remove_when_interrupted(folder: &Path) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let folder = folder.to_owned();
    let wait = move || {
        if runtime.block_on(tokio::signal::ctrl_c()).is_ok() {
            // Whether it worked or not, this ends here.
            let _ = fs::remove_dir_all(&folder);
            std::process::exit(130);
        }
    };
    std::thread::Builder::new().name("interrupt".into()).spawn(wait)?;
    Ok(())
}

impl MeasureArgs {
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
