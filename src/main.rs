//! The `sotto` command: reads the command line and runs one of [`commands`].
//!
//! What a command prints for a person or a program goes to standard output; the log goes to
//! standard error. An error is one line, `error: ...`, and exit code 2.

mod commands;
#[path = "../bench/mod.rs"]
mod measure;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use commands::log::Log;
use commands::out;
use commands::serve::LogFormat;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Private look-ups: a server that answers without learning for whom.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    Build(commands::build::Args),
    Sample(commands::sample::Args),
    Verify(commands::verify::Args),
    Inspect(commands::inspect::Args),
    Renew(commands::renew::Args),
    Rollback(commands::rollback::Args),
    Cert(commands::cert::Args),
    Serve(commands::serve::Args),
    Config(commands::config::Args),
    Doctor(commands::doctor::Args),
    Lookup(commands::lookup::Args),
    Demo(commands::demo::Args),
    Devices(commands::devices::Args),
    Bench(commands::bench::Args),
}

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    let parsed = commands::config::parse::<Cli>(&arguments);
    let (cli, sources) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => return out::parsed(&error),
    };
    // The demo tells its story on standard output; its server's log would only get in the way.
    let level = if matches!(cli.command, Command::Demo(_)) { "error" } else { "info" };
    // What a GPU's driver says comes as an error, or as why there is none; its own lines are noise.
    let directives = format!("{level},wgpu_hal=off,wgpu_core=off,wgpu=off,naga=off");
    let filter = match commands::log::filter(&directives) {
        Ok(filter) => filter,
        Err(error) => return out::failed(&error),
    };
    let format = match &cli.command {
        Command::Serve(args) => args.log_format(),
        _ => LogFormat::Human,
    };
    let log = match Log::start(std::io::stderr()) {
        Ok(log) => log,
        Err(error) => return out::failed(&format!("cannot start the log's thread: {error}")),
    };
    let lines = log.clone();
    let written = tracing_subscriber::fmt()
        .with_writer(move || lines.clone())
        .with_ansi(std::io::stderr().is_terminal())
        .with_env_filter(filter);
    let without_peers = filter_fn(|line| commands::log::may_be_written(line.target()));
    match format {
        LogFormat::Human => written.finish().with(without_peers).init(),
        LogFormat::Json => {
            written.json().flatten_event(true).finish().with(without_peers).init();
        }
    }
    sources.near_misses.iter().for_each(|sentence| tracing::warn!("{sentence}"));
    let ended = match cli.command {
        Command::Build(args) => commands::build::run(args),
        Command::Sample(args) => commands::sample::run(args),
        Command::Verify(args) => commands::verify::run(args),
        Command::Inspect(args) => commands::inspect::run(args),
        Command::Renew(args) => commands::renew::run(args),
        Command::Rollback(args) => commands::rollback::run(args),
        Command::Cert(args) => commands::cert::run(args),
        Command::Serve(args) => commands::serve::run(args),
        Command::Config(args) => commands::config::run(args, &sources),
        Command::Doctor(args) => commands::doctor::run(args),
        Command::Lookup(args) => commands::lookup::run(args),
        Command::Demo(args) => commands::demo::run(args),
        Command::Devices(args) => commands::devices::run(args),
        Command::Bench(args) => commands::bench::run(args),
    };
    log.finish();
    out::ended(ended)
}
