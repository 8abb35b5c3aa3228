//! Reads the command line and runs one command.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use super::log::{LogFormat, start_log};
use super::{
    build, cert, config, demo, devices, directory, doctor, inspect, lookup, out, placement,
    records, renew, rollback, sample, serve, statements, verify,
};
#[cfg(feature = "front-end")]
use super::{front_end, pull, relay, resolve};
#[cfg(feature = "registration")]
use super::{keys, log_service, registrar};
#[cfg(feature = "store")]
use super::{part, store};

/// Private look-ups: a server that answers without learning for whom.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
#[allow(clippy::large_enum_variant)] // There is one.
enum Command {
    Build(build::Args),
    Sample(sample::Args),
    Directory(directory::Args),
    Statements(statements::Args),
    Records(records::Args),
    Verify(verify::Args),
    Inspect(inspect::Args),
    Renew(renew::Args),
    Placement(placement::Args),
    Rollback(rollback::Args),
    Cert(cert::Args),
    Serve(serve::Args),
    Config(config::Args),
    Doctor(doctor::Args),
    Lookup(lookup::Args),
    Demo(demo::Args),
    Devices(devices::Args),
    #[cfg(feature = "front-end")]
    Relay(relay::Args),
    #[cfg(feature = "front-end")]
    FrontEnd(front_end::Args),
    #[cfg(feature = "front-end")]
    Pull(pull::Args),
    #[cfg(feature = "front-end")]
    Resolve(resolve::Args),
    #[cfg(feature = "store")]
    Part(part::Args),
    #[cfg(feature = "store")]
    Store(store::Args),
    #[cfg(feature = "registration")]
    Registrar(registrar::Args),
    #[cfg(feature = "registration")]
    Log(log_service::Args),
    #[cfg(feature = "registration")]
    Keys(keys::Args),
}

/// Runs the command of these arguments, of which the first is the program's name.
pub fn run(arguments: &[OsString]) -> ExitCode {
    let (cli, sources) = match config::parse::<Cli>(arguments) {
        Ok(parsed) => parsed,
        Err(error) => return out::parsed(&error),
    };
    let (level, format) = match &cli.command {
        Command::Serve(args) => ("info", args.log_format),
        #[cfg(feature = "front-end")]
        Command::Relay(args) => ("info", args.log_format),
        #[cfg(feature = "front-end")]
        Command::FrontEnd(args) => ("info", args.log_format),
        #[cfg(feature = "registration")]
        Command::Registrar(args) => ("info", args.log_format()),
        #[cfg(feature = "registration")]
        Command::Log(args) => ("info", args.log_format()),
        #[cfg(feature = "registration")]
        Command::Keys(args) => ("info", args.log_format()),
        // The log of the demo's server would interrupt what the demo prints.
        Command::Demo(_) => ("error", LogFormat::Human),
        _ => ("info", LogFormat::Human),
    };
    let log = match start_log(level, format) {
        Ok(log) => log,
        Err(error) => return out::failed(&error),
    };
    sources.near_misses.iter().for_each(|sentence| tracing::warn!("{sentence}"));
    let ended = match cli.command {
        Command::Build(args) => build::run(args),
        Command::Sample(args) => sample::run(args),
        Command::Directory(args) => directory::run(args),
        Command::Statements(args) => statements::run(args),
        Command::Records(args) => records::run(args),
        Command::Verify(args) => verify::run(args),
        Command::Inspect(args) => inspect::run(args),
        Command::Renew(args) => renew::run(args),
        Command::Placement(args) => placement::run(args),
        Command::Rollback(args) => rollback::run(args),
        Command::Cert(args) => cert::run(args),
        Command::Serve(args) => serve::run(args),
        Command::Config(args) => config::run(args, &sources),
        Command::Doctor(args) => doctor::run(args),
        Command::Lookup(args) => lookup::run(args),
        Command::Demo(args) => demo::run(args),
        Command::Devices(args) => devices::run(args),
        #[cfg(feature = "front-end")]
        Command::Relay(args) => relay::run(args),
        #[cfg(feature = "front-end")]
        Command::FrontEnd(args) => front_end::run(args),
        #[cfg(feature = "front-end")]
        Command::Pull(args) => pull::run(args),
        #[cfg(feature = "front-end")]
        Command::Resolve(args) => resolve::run(args),
        #[cfg(feature = "store")]
        Command::Part(args) => part::run(args),
        #[cfg(feature = "store")]
        Command::Store(args) => store::run(args),
        #[cfg(feature = "registration")]
        Command::Registrar(args) => registrar::run(args),
        #[cfg(feature = "registration")]
        Command::Log(args) => log_service::run(args),
        #[cfg(feature = "registration")]
        Command::Keys(args) => keys::run(args),
    };
    log.finish();
    out::ended(ended)
}
