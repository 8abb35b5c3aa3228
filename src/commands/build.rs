//! `sotto build`: input files to a database, or what that would make.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::value_parser;
use sotto::builder::{
    self, BuildOptions, Console, Input, Progress, SHRINK_PERCENT_DEFAULT, Silent,
};
use sotto::limits;
use sotto::params::{D, PACK_ROWS_MIN, ShapeWishes};
use sotto::text::{bytes, duration};
use sotto::wire::hex;

use super::{Ended, out};

/// Builds a database from records, or rebuilds the shards of one whose records changed.
///
/// The input is CSV with the header `sii,value`, or JSON Lines of {"sii": "..", "value": ".."}. A
/// value that is not text is written as `base64:..`. A build that was killed continues when it is
/// started again with the same arguments.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// File of records, plain or compressed with gzip or zstd, or a pipe; `-` is standard input
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// Directory of the database
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Number of shards [default: one for each 1048576 records]
    #[arg(long, value_name = "N",
          value_parser = value_parser!(u32).range(1..=i64::from(limits::SHARDS_MAX)))]
    shards: Option<u32>,
    /// Bytes of the value field; the longest value is one byte shorter [default: what the values
    /// need]
    #[arg(long, value_name = "N",
          value_parser = value_parser!(u32).range(1..=i64::from(limits::VALUE_BYTES_MAX)))]
    value_bytes: Option<u32>,
    /// Rows of a pack: a power of two from 128 to 2048 [default: by the number of records]
    #[arg(long, value_name = "N", value_parser = pack_rows)]
    pack_rows: Option<u32>,
    /// Packs of a shard [default: by the number of records]
    #[arg(long, value_name = "N",
          value_parser = value_parser!(u32).range(1..=i64::from(limits::PACKS_MAX)))]
    packs: Option<u32>,
    /// Database seed, 64 hexadecimal digits [default: that of the database, or random]
    #[arg(long, value_name = "HEX", value_parser = parse_seed)]
    seed: Option<[u8; 32]>,
    /// Name of the database. It never changes, and clients refuse another one. Required when one
    /// key signs several databases [default: that of the database, or main]
    #[arg(long, value_name = "NAME")]
    database: Option<String>,
    /// Days for which clients accept the database. A build signs unchanged records again once half
    /// of that time is over
    #[arg(long, value_name = "DAYS", default_value_t = limits::EXPIRES_DAYS_DEFAULT)]
    expires_days: u32,
    /// The operator's signing key, Ed25519 as PKCS#8 PEM. It is created if the file does not exist
    /// [default: DIR.signing-key.pem]
    #[arg(long, value_name = "FILE")]
    signing_key: Option<PathBuf>,
    /// Number of threads [default: one for each core]
    #[arg(long, value_name = "N",
          value_parser = value_parser!(u16).range(1..=limits::THREADS_MAX as i64))]
    jobs: Option<u16>,
    /// Print errors only
    #[arg(long)]
    quiet: bool,
    /// Print what would be built, and write nothing
    #[arg(long)]
    plan: bool,
    /// Discard a build that was interrupted
    #[arg(long)]
    restart: bool,
    /// Choose the number of shards and the shape of an existing database again
    #[arg(long)]
    reshape: bool,
    /// Refuse an input that has fewer records than the database by more than this percentage
    #[arg(long, value_name = "PERCENT", default_value_t = SHRINK_PERCENT_DEFAULT,
          value_parser = value_parser!(u8).range(0..=100))]
    shrink_percent: u8,
    /// Build even if the input has far fewer records than the database
    #[arg(long)]
    allow_shrink: bool,
}

pub(super) fn parse_seed(text: &str) -> Result<[u8; 32], String> {
    hex::decode_array(text).ok_or_else(|| "expected 64 hexadecimal digits".into())
}

/// A power of two that a pack can have.
pub fn pack_rows(text: &str) -> Result<u32, String> {
    let rows = text.parse().ok().filter(|rows: &u32| rows.is_power_of_two());
    rows.filter(|rows| (PACK_ROWS_MIN..=D as u32).contains(rows))
        .ok_or_else(|| format!("expected a power of two, {PACK_ROWS_MIN} to {D}"))
}

impl Args {
    fn options(self) -> BuildOptions {
        let input = match self.input.to_str() {
            Some("-") => Input::Stdin,
            _ => Input::File(self.input),
        };
        BuildOptions {
            shards: self.shards,
            value_bytes: self.value_bytes,
            wishes: ShapeWishes { pack_rows: self.pack_rows, packs: self.packs },
            seed: self.seed,
            database: self.database,
            expires_days: self.expires_days,
            signing_key: self.signing_key,
            jobs: self.jobs.map(usize::from),
            reshape: self.reshape,
            restart: self.restart,
            shrink_percent: if self.allow_shrink { 100 } else { self.shrink_percent },
            ..BuildOptions::new(input, self.out)
        }
    }
}

pub(crate) fn run(args: Args) -> Ended {
    let (quiet, plan) = (args.quiet, args.plan);
    let options = args.options();
    let progress: &dyn Progress = if quiet { &Silent } else { &Console::default() };
    if plan {
        out::say(builder::plan(&options, progress)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let report = builder::run(&options, progress)?;
    if quiet {
        return Ok(ExitCode::SUCCESS);
    }
    out::report(format_args!(
        "{}: epoch {}, {} records{} in {} shards ({} built, {} finished before, {} unchanged), {}, \
         {}",
        options.out.display(),
        report.epoch,
        report.records,
        report.records_before.map(|before| format!(" (before: {before})")).unwrap_or_default(),
        report.shard_count,
        report.built,
        report.resumed,
        report.reused,
        bytes(report.bytes),
        duration(report.elapsed)
    ));
    if report.renewed {
        out::report("The records are as they were: the same content was signed for longer.");
    }
    let few = builder::few_records_warning(report.shard_records_min, report.shard_count);
    few.into_iter().for_each(out::report);
    Ok(ExitCode::SUCCESS)
}
