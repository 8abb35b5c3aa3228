//! `sotto-bench federation`: the parts of `bench/federation.sh` that are no `sotto` command.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use sotto::commands::Ended;
use sotto::commands::out::say;

use crate::Failed;
use crate::federation::account::Issuer;
use crate::federation::hollow::{self, HollowOptions};
use crate::federation::relay::{self, IdleOptions, RefusedOptions};

/// Parts of bench/federation.sh: a large database that is mostly zeros, accounts of a relay, and
/// devices that ask a relay.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Make a database whose shards are large and hollow but for some, and address books.
    Hollow(HollowOptions),
    /// Write the keys by which a relay knows accounts, and a token of one.
    Account(AccountOptions),
    /// Have devices look up once and stay connected: what the relay's process holds.
    Idle(IdleOptions),
    /// Ask for twice what quotas allow: how soon the relay refuses.
    Refused(RefusedOptions),
}

#[derive(clap::Args)]
struct AccountOptions {
    /// Key that signs tokens; it is made if it is not there
    #[arg(long, value_name = "PEM")]
    issuer: PathBuf,
    /// File for `sotto relay --accounts jwks:`
    #[arg(long, value_name = "FILE")]
    jwks: PathBuf,
    /// File for the token
    #[arg(long, value_name = "FILE")]
    token: PathBuf,
    /// Name of the account
    #[arg(long, value_name = "NAME", default_value = "device")]
    account: String,
}

pub(super) fn run(args: Args) -> Ended {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let said = match args.command {
        Command::Hollow(options) => hollow::make(&options),
        Command::Account(options) => account(&options),
        Command::Idle(options) => {
            runtime.block_on(relay::idle(&options)).map(|found| format!("{found:#}"))
        }
        Command::Refused(options) => {
            runtime.block_on(relay::refused(&options)).map(|found| format!("{found:#}"))
        }
    };
    let said = said.map_err(|error| -> Box<dyn std::error::Error> { error })?;
    say(said)?;
    Ok(ExitCode::SUCCESS)
}

fn account(options: &AccountOptions) -> Result<String, Failed> {
    let issuer = Issuer::open(&options.issuer)?;
    fs::write(&options.jwks, issuer.jwks())?;
    fs::write(&options.token, issuer.token(&options.account))?;
    Ok(format!("{}, {}", options.jwks.display(), options.token.display()))
}
