//! The command line: reads it and runs one command. A command is a file: its arguments, what it
//! prints, its exit code; the work is the library's.
//!
//! What a command prints for a person or a program goes to standard output; the log goes to
//! standard error. An error is one line, `error: ...`, and exit code 2.
//!
//! `sotto-bench`, which measures, has a command line of its own and shares with this one what is
//! public here: printing ([`out`]), the log, the options that name a server, a working folder.

mod build;
mod cert;
mod config;
mod demo;
mod devices;
mod doctor;
mod engine;
mod folder;
mod inspect;
mod log;
mod lookup;
pub mod out;
mod pins;
mod renew;
mod rollback;
mod sample;
mod serve;
mod verify;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

pub use build::pack_rows;
pub use folder::Folder;
pub use log::{Log, start_log};
pub use lookup::ServerArgs;
use serve::LogFormat;

/// How a command ends: an exit code of its own, or an error for `error: ...` and exit code 2.
pub type Ended = Result<ExitCode, Box<dyn std::error::Error>>;

/// Private look-ups: a server that answers without learning for whom.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    Build(build::Args),
    Sample(sample::Args),
    Verify(verify::Args),
    Inspect(inspect::Args),
    Renew(renew::Args),
    Rollback(rollback::Args),
    Cert(cert::Args),
    Serve(serve::Args),
    Config(config::Args),
    Doctor(doctor::Args),
    Lookup(lookup::Args),
    Demo(demo::Args),
    Devices(devices::Args),
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    run(&std::env::args_os().collect::<Vec<_>>())
}

/// Runs the command of these arguments, of which the first is the program's name.
pub fn run(arguments: &[OsString]) -> ExitCode {
    let (cli, sources) = match config::parse::<Cli>(arguments) {
        Ok(parsed) => parsed,
        Err(error) => return out::parsed(&error),
    };
    // The demo tells its story on standard output; its server's log would only get in the way.
    let level = if matches!(cli.command, Command::Demo(_)) { "error" } else { "info" };
    let format = match &cli.command {
        Command::Serve(args) => args.log_format(),
        _ => LogFormat::Human,
    };
    let log = match log::start(level, format) {
        Ok(log) => log,
        Err(error) => return out::failed(&error),
    };
    sources.near_misses.iter().for_each(|sentence| tracing::warn!("{sentence}"));
    let ended = match cli.command {
        Command::Build(args) => build::run(args),
        Command::Sample(args) => sample::run(args),
        Command::Verify(args) => verify::run(args),
        Command::Inspect(args) => inspect::run(args),
        Command::Renew(args) => renew::run(args),
        Command::Rollback(args) => rollback::run(args),
        Command::Cert(args) => cert::run(args),
        Command::Serve(args) => serve::run(args),
        Command::Config(args) => config::run(args, &sources),
        Command::Doctor(args) => doctor::run(args),
        Command::Lookup(args) => lookup::run(args),
        Command::Demo(args) => demo::run(args),
        Command::Devices(args) => devices::run(args),
    };
    log.finish();
    out::ended(ended)
}
