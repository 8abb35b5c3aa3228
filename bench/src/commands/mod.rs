//! The command line of `sotto-bench`: one file for each command.

mod compare;
#[cfg(feature = "front-end")]
mod federation;
mod files;
mod load;
mod measure;
mod observer;
mod plan;
mod report;

use std::process::ExitCode;

use clap::Parser as _;
use sotto::commands::out;
use sotto::commands::{LogFormat, start_log};

use crate::operations::AS_SOTTO;

/// Measures sotto on this machine, its files and servers, and plans hosts from what was measured.
#[derive(clap::Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    Kernel(measure::KernelArgs),
    #[cfg(feature = "gpu")]
    Gpu(measure::GpuArgs),
    Load(Box<load::Args>),
    /// Build a database of made-up records from nothing, several times: time, processor time,
    /// memory; and verify every byte of it.
    Build(measure::BuildArgs),
    /// Start a server several times, with its files in the page cache and without: until it
    /// listens, is ready, has answered.
    Startup(measure::OperationArgs),
    /// Serve a database to clients that ask all the time, and give it new epochs: until one is
    /// served, and that no look-up is lost. Changes one shard, a tenth of them, and all.
    Reload(measure::OperationArgs),
    #[cfg(feature = "front-end")]
    Federation(Box<federation::Args>),
    Plan(plan::Args),
    Observer(observer::Args),
    Report(report::Args),
    Compare(compare::Args),
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    if arguments.get(1).is_some_and(|first| first == AS_SOTTO) {
        return sotto::commands::run(&arguments[1..]);
    }
    let command = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli.command,
        Err(error) => return out::parsed(&error),
    };
    let log = match start_log("info", LogFormat::Human) {
        Ok(log) => log,
        Err(error) => return out::failed(&error),
    };
    let ended = match command {
        Command::Kernel(args) => measure::kernel(args),
        #[cfg(feature = "gpu")]
        Command::Gpu(args) => measure::gpu(args),
        Command::Load(args) => load::run(*args),
        Command::Build(args) => measure::build(args),
        Command::Startup(args) => measure::startup(args),
        Command::Reload(args) => measure::reload(args),
        #[cfg(feature = "front-end")]
        Command::Federation(args) => federation::run(*args),
        Command::Plan(args) => plan::run(args),
        Command::Observer(args) => observer::run(args),
        Command::Report(args) => report::run(args),
        Command::Compare(args) => compare::run(&args),
    };
    log.finish();
    out::ended(ended)
}
