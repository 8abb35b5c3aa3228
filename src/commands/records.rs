//! `sotto records`: signed statements to signed records, and the key that blinds them.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use indicatif::{ProgressBar, ProgressStyle};
use sotto::discovery::blind::BlindKey;
use sotto::discovery::directory::Directory;
use sotto::discovery::jws::base64url;
use sotto::discovery::merge::{self, FilterOptions, Options, Summary, Tally, Time};
use sotto::text::{bytes, counted, duration, grouped};

use super::trusted::{directory, load, now, read_pins, write};
use super::{Ended, out};

/// Makes signed records of signed statements, and the key that blinds them.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
#[expect(clippy::large_enum_variant, reason = "there is one in a run")]
enum Command {
    Make(MakeArgs),
    BlindKey(BlindKeyArgs),
}

/// Checks statements, applies the rules of merging, and writes records for `sotto build`.
///
/// A run that was killed goes on when it is started again with the same arguments. Statements that
/// are refused are no error: see the summary and --report.
#[derive(clap::Args)]
struct MakeArgs {
    /// The signed directory
    #[arg(long, value_name = "FILE")]
    directory: PathBuf,
    /// Pins that the directory is checked with; those to keep are written back
    #[arg(long, value_name = "FILE")]
    pins: PathBuf,
    /// Id of the database in the directory
    #[arg(long, value_name = "ID")]
    database: String,
    /// The database's record key, Ed25519 as PKCS#8 PEM
    #[arg(long, value_name = "FILE")]
    record_key: PathBuf,
    /// The blinding key, as `sotto records blind-key` makes it
    #[arg(long, value_name = "FILE", required_unless_present = "plain")]
    blind: Option<PathBuf>,
    /// Leave records readable and under the identifiers themselves, for tests
    #[arg(long, conflicts_with = "blind")]
    plain: bool,
    /// Bytes of the value field; the longest value is one byte shorter
    #[arg(long, value_name = "N", default_value_t = merge::VALUE_BYTES_DEFAULT)]
    value_bytes: usize,
    /// Seconds since 1970 to issue records at [default: now]
    #[arg(long, value_name = "SECONDS")]
    now: Option<u64>,
    /// Folder that is kept from run to run, as secret as the blinding key: it sees to it that a
    /// minute seals one thing only [default: BLIND.work, or OUT.work with --plain]
    #[arg(long, value_name = "DIR")]
    work: Option<PathBuf>,
    /// File of the records, CSV
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// File for the statements without effect and why, JSON Lines
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// File for a routing filter over the records: devices that have it do not ask for who is not
    /// there. It is for databases with blinded keys
    #[arg(long, value_name = "FILE", conflicts_with = "plain",
          requires_all = ["filter_key", "filter_epoch"])]
    filter: Option<PathBuf>,
    /// The operator's signing key, as for `sotto build`: it signs the filter
    #[arg(long, value_name = "FILE", requires = "filter")]
    filter_key: Option<PathBuf>,
    /// Epoch that `sotto build` will give the database with these records: 1 for the first, then
    /// one
    /// more than `sotto inspect` shows
    #[arg(long, value_name = "N", requires = "filter",
          value_parser = clap::value_parser!(u64).range(1..))]
    filter_epoch: Option<u64>,
    /// Print errors only
    #[arg(long)]
    quiet: bool,
    /// Files of statements, and all batches of each issuer from the first one on
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
}

/// Makes a blinding key and prints its public key, for the directory.
///
/// Whoever has the key can find out who is in the database. A lost one cannot be recreated, and a
/// new one is a new database.
#[derive(clap::Args)]
struct BlindKeyArgs {
    /// File of the key, which must not exist
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

pub(crate) fn run(args: Args) -> Ended {
    match args.command {
        Command::Make(args) => make(&args),
        Command::BlindKey(args) => {
            let key = BlindKey::generate()?;
            key.create(&args.file)?;
            out::report(base64url(&key.public_key()));
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn make(args: &MakeArgs) -> Ended {
    let clock = now()?;
    let directory = open_directory(args, args.now.unwrap_or(clock))?;
    let record_key = load(&args.record_key)?;
    let blind = args.blind.as_deref().map(BlindKey::read).transpose()?;
    let filter_key = args.filter_key.as_deref().map(load).transpose()?;
    let filter = args.filter.as_deref().zip(filter_key.as_ref()).zip(args.filter_epoch);
    let work = args.work.clone().unwrap_or_else(|| {
        let mut name = args.blind.as_ref().unwrap_or(&args.out).as_os_str().to_owned();
        name.push(".work");
        name.into()
    });
    let options = Options {
        directory: &directory,
        database: &args.database,
        record_key: &record_key,
        blind: blind.as_ref(),
        value_bytes: args.value_bytes,
        time: args.now.map_or(Time::Clock(clock), Time::Given),
        work: &work,
        out: &args.out,
        report: args.report.as_deref(),
        filter: filter.map(|((path, key), epoch)| FilterOptions { path, key, epoch }),
        files: &args.files,
    };
    let bar = if args.quiet { ProgressBar::hidden() } else { bar() };
    let summary = merge::run(&options, &bar)?;
    bar.finish_and_clear();
    if !args.quiet {
        out::report(text(&args.out, &summary));
    }
    Ok(ExitCode::SUCCESS)
}

/// The directory that the pins accept; keeps the pins that follow.
fn open_directory(args: &MakeArgs, now: u64) -> Result<Directory, String> {
    let directory = directory(&args.directory, &args.pins, now)?;
    let pins = directory.pins();
    if args.now.is_none() && read_pins(&args.pins)? != pins {
        write(&args.pins, &pins.to_json())?;
    }
    Ok(directory)
}

fn bar() -> ProgressBar {
    let bar = ProgressBar::new(0);
    match ProgressStyle::with_template("{msg} {wide_bar} {percent}%, {eta} left") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// What a person should read about a run.
fn text(path: &Path, summary: &Summary) -> String {
    let Tally { refused, without_effect, .. } = &summary.tally;
    let tally = &summary.tally;
    let went_on = if summary.resumed { ", going on with a run that was interrupted" } else { "" };
    let mut text = format!(
        "{}: {} ({} with a preference), issued at {}{went_on}\n",
        path.display(),
        counted(tally.records, "record"),
        grouped(tally.records_with_preference),
        summary.issued
    );
    let mut line = |line: String| {
        // Writing into memory cannot fail.
        let _ = writeln!(text, "{line}");
    };
    let statements = counted(tally.lines, "statement");
    line(format!("{statements}: {} accepted", grouped(tally.accepted)));
    if tally.elsewhere > 0 {
        line(format!("  {} of another database", grouped(tally.elsewhere)));
    }
    refused.iter().for_each(|(code, count)| line(format!("  {} refused: {code}", grouped(*count))));
    without_effect.iter().for_each(|(code, count)| {
        line(format!("  {} accepted, without effect: {code}", grouped(*count)));
    });
    for (count, what) in [
        (tally.dropped_key_hashes, "key hash"),
        (tally.dropped_handles, "handle"),
        (tally.dropped_tags, "tag"),
        (tally.dropped_services, "service"),
    ] {
        if count > 0 {
            line(format!("did not fit: {} ({what})", grouped(count)));
        }
    }
    if let Some(filter) = summary.filter {
        let records = counted(filter.count, "record");
        line(format!("routing filter: {records}, {}", bytes(filter.bytes)));
    }
    line(format!("longest value: {}", counted(tally.value_bytes_longest, "byte")));
    line(format!("keys derived before: {}", grouped(tally.keys_from_cache)));
    line(format!("Merkle root of accepted statements: {}", base64url(&summary.merkle_root)));
    summary.times.iter().for_each(|(step, time)| line(format!("{step}: {}", duration(*time))));
    text.trim_end().to_owned()
}
