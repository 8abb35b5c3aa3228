//! `sotto-bench report`: records and plans as one page to look at. The page is
//! [`crate::html`]'s.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::found::Found;
use crate::html::html;
use crate::plan::{Plan, Scenario, plan};
use crate::summary::summary;

use sotto::commands::Ended;
use sotto::commands::out::report;

use super::files::RECORDS;

/// Draw what was measured, and what is planned from it, as one HTML file that needs nothing else.
#[derive(clap::Args)]
pub(super) struct Args {
    /// A record, or a folder with records in it and below, again and again; of bench/record the
    /// newest of each kind, name and machine when absent.
    #[arg(long = "record", value_name = "PATH")]
    records: Vec<PathBuf>,
    /// What is wanted, again and again: a plan for each, from the records named or else from this
    /// machine's.
    #[arg(long = "scenario", value_name = "FILE")]
    scenarios: Vec<PathBuf>,
    /// What things cost; deploy/prices.toml when absent, or, where that is not, as it was shipped.
    #[arg(long, value_name = "FILE")]
    prices: Option<PathBuf>,
    /// Where the page goes.
    #[arg(long, value_name = "FILE", default_value = "sotto-report.html")]
    out: PathBuf,
    /// Write no page but README.md in this folder: what its records say, as tables. Exit code 1
    /// where a run that is judged is not as it has to be.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["records", "scenarios", "prices", "out"])]
    summary: Option<PathBuf>,
}

pub(super) fn run(args: Args) -> Ended {
    if let Some(folder) = &args.summary {
        return summarise(folder);
    }
    let records = match args.records.as_slice() {
        [] => Found::newest(Found::all(&[PathBuf::from(RECORDS)])?),
        named => Found::all(named)?,
    };
    if records.is_empty() {
        let help = "expected one: measure with `sotto-bench kernel`, or name some with --record";
        return Err(format!("found no record, {help}").into());
    }
    let plans = plans(&args, &records)?;
    let page = html(&records, &plans);
    fs::write(&args.out, page).map_err(|error| format!("{}: {error}", args.out.display()))?;
    let (out, count, plans) = (args.out.display(), records.len(), plans.len());
    report(format_args!("{out}: {count} records, {plans} plans; open it in a browser"));
    Ok(ExitCode::SUCCESS)
}

fn summarise(folder: &Path) -> Ended {
    let failed = |error| format!("{}: {error}", folder.display());
    let (text, passed) = summary(folder, &Found::all(&[folder.to_owned()])?).map_err(failed)?;
    let readme = folder.join("README.md");
    fs::write(&readme, text).map_err(|error| format!("{}: {error}", readme.display()))?;
    report(format_args!("{}: written", readme.display()));
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn plans(args: &Args, records: &[Found]) -> Result<Vec<Plan>, Box<dyn std::error::Error>> {
    if args.scenarios.is_empty() {
        return Ok(Vec::new());
    }
    let prices = super::plan::prices(args.prices.as_deref())?;
    let of_here;
    let records = match args.records.as_slice() {
        [] => {
            of_here = super::plan::records(&[])?;
            &of_here
        }
        _ => records,
    };
    let plan = |path: &PathBuf| Ok(plan(&Scenario::read(path)?, &prices, records)?);
    args.scenarios.iter().map(plan).collect()
}
