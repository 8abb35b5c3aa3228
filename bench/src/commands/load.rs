//! `sotto-bench load`. Standard output gets a table, a line for each run. Exit code 0: every run
//! was valid and no answer wrong; 1: not so; 2: an error.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use rustix::thread::{CpuSet, sched_setaffinity};
use sotto::commands::out::report;
use sotto::commands::{Ended, ServerArgs};

use super::files::write;
use crate::load::{Goal, HEADING, Limit, LoadOptions, Prepared, Trial, load};

/// Send queries at a planned rate, whatever the server does, and measure what comes of them.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    server: ServerArgs,
    /// Queries a second; with --find-limit, the rate to begin at.
    #[arg(long, value_name = "QUERIES")]
    rate: Option<f64>,
    /// Find the highest rate within the objective; then show 1.2 and 2 times it.
    #[arg(long)]
    find_limit: bool,
    #[command(flatten)]
    options: LoadOptions,
    /// Processors the generator runs on, such as 0,2-3; leave the others to the server.
    #[arg(long, value_name = "LIST", value_parser = cpus)]
    cpus: Option<CpuList>,
    /// Write all that was found as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

const FIRST_RATE: f64 = 50.0;

pub(super) fn run(args: Args) -> Ended {
    if let Some(CpuList(list)) = &args.cpus {
        // Before any thread is started: they inherit it.
        let mut set = CpuSet::new();
        list.iter().for_each(|&cpu| set.set(cpu));
        sched_setaffinity(None, &set).map_err(|error| format!("--cpus: {error}"))?;
    }
    let goal = match (args.find_limit, args.rate) {
        (true, rate) => Goal::Limit(rate.unwrap_or(FIRST_RATE)),
        (false, Some(rate)) => Goal::Rate(rate),
        (false, None) => return Err("expected --rate or --find-limit".into()),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    // A reader of the table who goes away is no reason to lose what the files will hold.
    let found = runtime.block_on(async {
        let mut client = args.server.options().await?;
        // The server's default.
        client.deadline = Duration::ZERO;
        report(header(&args.options, goal));
        report(HEADING);
        let mut shown = |trial: &Trial| report(trial.line());
        let found = load(client, args.options, goal, &mut shown).await;
        found.map_err(|error| -> Box<dyn Error> { error })
    })?;
    write(args.json.as_deref(), |out| found.write_json(out))?;
    let most = found.trials.iter().map(|trial| trial.prepared).max_by_key(|made| made.bytes);
    if let Some(Prepared { queries, bytes, .. }) = most {
        report(format_args!("\nmade ahead of a run: up to {queries} queries, {} MiB", bytes >> 20));
    }
    if args.find_limit {
        report(limit(found.limit.as_ref()));
    }
    Ok(if found.is_sound() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn limit(found: Option<&Limit>) -> String {
    match found {
        None => "no rate is within the objective".into(),
        Some(Limit { rate, generator_bound: true }) => {
            format!("limit: at least {rate:.1} queries a second: the generator can send no more")
        }
        Some(Limit { rate, .. }) => format!("limit: {rate:.1} queries a second"),
    }
}

fn header(options: &LoadOptions, goal: Goal) -> String {
    let LoadOptions { arrivals, seed, front_ends, batch, verify, objective, .. } = options;
    let goal = match goal {
        Goal::Rate(rate) => format!("{rate} queries a second"),
        Goal::Limit(rate) => format!("the limit, from {rate} queries a second on"),
    };
    let keys = if options.records.is_some() { "keys of a file" } else { "random absent keys" };
    format!(
        "{goal}; objective p99 {objective:?}; {arrivals:?} arrivals, seed {seed}; {keys}, {batch} \
         a frame;\n{front_ends} front-ends; {:.0}% of answers verified; at most {} MiB of queries\
         \n",
        verify * 1e2,
        options.memory_bytes >> 20,
    )
}

#[derive(Debug, Clone, PartialEq)]
struct CpuList(Vec<usize>);

/// Numbers and ranges of them, as in 0,2-3.
fn cpus(text: &str) -> Result<CpuList, String> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse().ok()?, last.parse().ok()?);
        (first <= last && last < CpuSet::MAX_CPU).then_some(first..=last)
    };
    let ranges: Option<Vec<_>> = text.split(',').map(range).collect();
    let list = ranges.map(|ranges| CpuList(ranges.into_iter().flatten().collect()));
    list.ok_or_else(|| format!("found {text:?}, expected processors such as 0,2-3"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_numbers_and_ranges() {
        assert_eq!(cpus("0,2-4"), Ok(CpuList(vec![0, 2, 3, 4])));
        for wrong in ["", "a", "3-2", "0,", "99999", "0-99999999999"] {
            assert!(cpus(wrong).is_err(), "{wrong}");
        }
    }
}
