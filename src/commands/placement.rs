//! `sotto placement`: which hosts have which shards.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::value_parser;
use sotto::hosts::make;
use sotto::limits;
use sotto::shard::files::read_text;
use sotto::shard::{Manifest, read_placement};
use sotto::text::counted;

use super::{Ended, out, trusted};

/// Which hosts have which shards of a database (docs/scale.md).
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    Make(MakeArgs),
    Check(CheckArgs),
    Diff(DiffArgs),
}

/// Prints a placement of shards on hosts. Hosts hold about the same, and the same hosts give the
/// same placement; a host more or less moves few shards.
#[derive(clap::Args)]
struct MakeArgs {
    /// The hosts: a name and an address (`host:port`) a line; `#` begins a remark
    #[arg(long, value_name = "FILE")]
    hosts: PathBuf,
    /// Hosts that have each shard
    #[arg(long, value_name = "N", default_value_t = 2,
          value_parser = value_parser!(u32).range(1..))]
    copies: u32,
    /// Number of shards
    #[arg(long, value_name = "N", required_unless_present = "manifest", conflicts_with = "manifest",
          value_parser = value_parser!(u32).range(1..=i64::from(limits::SHARDS_MAX)))]
    shards: Option<u32>,
    /// Manifest of the database
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
}

/// Checks a placement and prints what each host has. Exit code 1 where a shard has too few hosts.
#[derive(clap::Args)]
struct CheckArgs {
    /// The placement
    #[arg(value_name = "FILE")]
    placement: PathBuf,
    /// Hosts that each shard is to have
    #[arg(long, value_name = "N", default_value_t = 2)]
    copies: u32,
}

/// Prints what hosts have to fetch, and hold no more, from one placement to another.
#[derive(clap::Args)]
struct DiffArgs {
    /// The placement before
    #[arg(value_name = "FILE")]
    from: PathBuf,
    /// The placement after
    #[arg(value_name = "FILE")]
    to: PathBuf,
}

pub(crate) fn run(args: Args) -> Ended {
    match args.command {
        Command::Make(args) => run_make(&args),
        Command::Check(args) => run_check(&args),
        Command::Diff(args) => run_diff(&args),
    }
}

fn run_make(args: &MakeArgs) -> Ended {
    let shard_count = match (&args.manifest, args.shards) {
        (Some(path), _) => Manifest::read(path)?.shard_count,
        (None, shards) => shards.ok_or("expected --shards")?,
    };
    let text = read_text(&args.hosts, limits::PLACEMENT_FILE_BYTES_MAX)
        .map_err(|error| trusted::in_file(&args.hosts, &error))?;
    let mut hosts = Vec::new();
    for (line, text) in (1..).zip(text.lines()) {
        let words: Vec<&str> = text.split('#').next().unwrap_or("").split_whitespace().collect();
        match words[..] {
            [] => {}
            [name, address] => hosts.push((name.to_owned(), address.to_owned())),
            _ => {
                let problem = format!("line {line}: expected a name and an address (host:port)");
                return Err(trusted::in_file(&args.hosts, &problem).into());
            }
        }
    }
    let placement = make(shard_count, hosts, args.copies)?;
    out::write(|out| out.write_all(placement.to_json().as_bytes()))?;
    Ok(ExitCode::SUCCESS)
}

fn run_check(args: &CheckArgs) -> Ended {
    let placement = read_placement(&args.placement)?;
    let mut text = String::new();
    for host in &placement.hosts {
        text += &format!("{}  {}\n", host.name, counted(host.shards.count(), "shard"));
    }
    let held = placement.hosts.iter().map(|host| host.shards.count());
    let (least, most) = (held.clone().min().unwrap_or(0), held.clone().max().unwrap_or(0));
    let mean = held.sum::<u64>() as f64 / placement.hosts.len() as f64;
    text += &format!(
        "{} on {}, {least} to {most} shards a host, the most {:.2} times the mean",
        counted(placement.shard_count.into(), "shard"),
        counted(placement.hosts.len() as u64, "host"),
        most as f64 / mean.max(f64::MIN_POSITIVE),
    );
    out::say(text)?;
    let lacking = placement.lacking(args.copies);
    if lacking.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    let (few, copies) = (counted(lacking.count(), "shard"), counted(args.copies.into(), "host"));
    out::complain(format_args!("{few} with fewer than {copies}: {lacking}"));
    Ok(ExitCode::from(1))
}

fn run_diff(args: &DiffArgs) -> Ended {
    let (from, to) = (read_placement(&args.from)?, read_placement(&args.to)?);
    if from.shard_count != to.shard_count {
        return Err(format!(
            "the placements are of {} and of {} shards: of different databases",
            from.shard_count, to.shard_count
        )
        .into());
    }
    let difference = from.difference(&to);
    let mut text = String::new();
    for (name, fetched, gone) in &difference.hosts {
        text += &format!("{name}  fetches {}, holds no more {}\n", fetched.count(), gone.count());
    }
    difference.left.iter().for_each(|name| text += &format!("{name}  has left\n"));
    text += &format!("{} of shards on hosts that lack them now", difference.moved);
    out::say(text)?;
    Ok(ExitCode::SUCCESS)
}
