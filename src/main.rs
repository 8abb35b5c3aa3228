//! The `sotto` command: reads the command line and runs one of [`commands`].
//!
//! What a command prints for a person or a program goes to standard output; the log goes to
//! standard error. An error is one line, `error: ...`, and exit code 2.

mod commands;

use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

/// Private look-ups: a server that answers without learning for whom.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    Cert(commands::cert::Args),
    Lookup(commands::lookup::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_env("SOTTO_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter).init();
    let ended = match cli.command {
        Command::Cert(args) => commands::cert::run(args),
        Command::Lookup(args) => commands::lookup::run(args),
    };
    ended.unwrap_or_else(|error| {
        eprintln!("error: {error}");
        ExitCode::from(2)
    })
}
