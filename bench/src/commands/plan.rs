//! `sotto-bench plan`: from records, a scenario and prices to hosts, batches, bytes and money. The
//! work is [`crate::plan`]'s.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::found::Found;
use crate::html::html;
use crate::plan::{Prices, Scenario, plan};
use crate::record::Machine;

use sotto::commands::Ended;
use sotto::commands::out::say;

use super::files::{RECORDS, write};

/// Plan hosts for a scenario from what was measured.
///
/// Without --record it takes what was measured on this machine: of the records in bench/record the
/// newest of each kind and file name.
#[derive(clap::Args)]
pub(super) struct Args {
    /// What is wanted, such as bench/scenarios/mimi.toml.
    #[arg(long, value_name = "FILE")]
    scenario: PathBuf,
    /// A record, or a folder with records in it and below, again and again.
    #[arg(long = "record", value_name = "PATH")]
    records: Vec<PathBuf>,
    /// What things cost; deploy/prices.toml when absent, or, where that is not, as it was shipped.
    #[arg(long, value_name = "FILE")]
    prices: Option<PathBuf>,
    /// Show the figures of every shape, not of the first only.
    #[arg(long)]
    all: bool,
    /// Write the plan as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the plan, and the records it stands on, as a page to look at.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// Prices of this checkout.
const PRICES: &str = "deploy/prices.toml";

pub(super) fn run(args: Args) -> Ended {
    let scenario = Scenario::read(&args.scenario)?;
    let prices = prices(args.prices.as_deref())?;
    let records = records(&args.records)?;
    let plan = plan(&scenario, &prices, &records)?;
    write(args.json.as_deref(), |out| {
        serde_json::to_writer_pretty(&mut *out, &plan)?;
        out.write_all(b"\n")
    })?;
    write(args.html.as_deref(), |out| {
        out.write_all(html(&records, std::slice::from_ref(&plan)).as_bytes())
    })?;
    say(plan.text(args.all).trim_end())?;
    Ok(ExitCode::SUCCESS)
}

/// Those of a file; where none is named, this checkout's or those that were shipped.
pub(super) fn prices(named: Option<&Path>) -> Result<Prices, String> {
    match named {
        Some(path) => Prices::read(path),
        None if fs::exists(PRICES).unwrap_or(false) => Prices::read(Path::new(PRICES)),
        None => Prices::shipped(),
    }
}

/// Those that are named, or what was measured on this machine.
pub(super) fn records(named: &[PathBuf]) -> Result<Vec<Found>, Box<dyn std::error::Error>> {
    if !named.is_empty() {
        return Ok(Found::all(named)?);
    }
    let here = Machine::here();
    let mut found = match fs::exists(RECORDS) {
        Ok(true) => Found::newest(Found::all(&[PathBuf::from(RECORDS)])?),
        _ => Vec::new(),
    };
    found.retain(|found| found.record.machine().name() == here.name());
    if found.is_empty() {
        let slug = here.slug();
        return Err(format!(
            "found no record of this machine ({slug}) in {RECORDS}: run `sotto-bench kernel` \
             first, or give what others measured (--record {RECORDS}/...)"
        )
        .into());
    }
    Ok(found)
}
