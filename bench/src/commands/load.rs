//! `sotto-bench load`: puts a server under load and tells what it can do. The work is
//! [`crate::load`]'s.
//!
//! Standard output gets a table, a line a run. Exit code 0: every run was valid and no answer
//! wrong; 1: not so; 2: an error.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::load::{
    Arrivals, Goal, HEADING, Limit, LoadOptions, Popularity, Prepared, Records, Trial, load,
};
use clap::value_parser;
use rustix::thread::{CpuSet, sched_setaffinity};
use sotto::limits;

use crate::Endpoint;

use super::{report, write};
use sotto::commands::Ended;
use sotto::commands::ServerArgs;

/// Send queries at a planned rate, whatever the server does, and measure what comes of them.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    server: ServerArgs,
    /// Queries a second; with --find-limit, the rate to begin at. A trace has its own.
    #[arg(long, value_name = "QUERIES")]
    rate: Option<f64>,
    /// Find the highest rate within the objective; then show 1.2 and 2 times it.
    #[arg(long)]
    find_limit: bool,
    /// The objective: 99% of the queries are to be answered within this.
    #[arg(long, value_name = "TIME", default_value = "500ms", value_parser = time)]
    slo_p99: Duration,
    /// poisson, constant, bursts:N or trace:FILE (a line a frame: seconds from any start).
    #[arg(long, value_name = "KIND", default_value = "poisson", value_parser = Arrivals::parse)]
    arrivals: Arrivals,
    /// How often each shard is asked: uniform or zipf:S.
    #[arg(long, value_name = "KIND", default_value = "uniform", value_parser = Popularity::parse)]
    shards: Popularity,
    /// Fixes arrivals, shards and keys; the time in seconds, and shown, when absent.
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// Connections, each from a socket of its own.
    #[arg(long, value_name = "N", default_value_t = 4)]
    front_ends: usize,
    /// Queries a frame.
    #[arg(long, value_name = "N", default_value_t = 1)]
    batch: usize,
    /// Queries a key bundle lives for, where their shards are distinct: 1 to 16.
    #[arg(long, value_name = "N", default_value_t = limits::QUERIES_PER_SECRET_MAX)]
    bundle_queries: usize,
    /// Records of the database (the builder's input) to ask for; random keys that are not there
    /// when absent.
    #[arg(long, value_name = "FILE")]
    records: Option<PathBuf>,
    /// Share of the answers that are decoded and compared: `all`, or 0 to 1.
    #[arg(long, value_name = "SHARE", default_value = "0.05", value_parser = share)]
    verify: f64,
    /// After how long the server may drop a query; the server's default when absent.
    #[arg(long, value_name = "TIME", value_parser = time)]
    deadline: Option<Duration>,
    /// Time at the beginning of a run that does not count.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = time)]
    warm_up: Duration,
    /// Windows a run is cut into: it ends when over five or more of them the 95% confidence
    /// intervals of p99 and throughput are under 5%.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = time)]
    window: Duration,
    /// Longest time a run is measured for.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = time)]
    time: Duration,
    /// A query sent later than this after its time is late; a run with more than 1% is invalid.
    #[arg(long, value_name = "TIME", default_value = "5ms", value_parser = time)]
    lag: Duration,
    /// Memory for queries made and not yet answered.
    #[arg(long, value_name = "MIB", default_value_t = limits::LOAD_BYTES >> 20,
          value_parser = value_parser!(u64).range(1..=MEMORY_MIB_MAX))]
    memory: u64,
    /// Where the server says its metrics, such as http://127.0.0.1:9464/metrics: batch sizes, times
    /// and processor time of the time that is measured.
    #[arg(long, value_name = "URL", value_parser = Endpoint::parse)]
    metrics: Option<Endpoint>,
    /// Processors the generator runs on, such as 0,2-3; leave the others to the server.
    #[arg(long, value_name = "LIST", value_parser = cpus)]
    cpus: Option<CpuList>,
    /// Write all that was found as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the windows as CSV.
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Write the windows' latencies as an HDR interval log.
    #[arg(long, value_name = "FILE")]
    hdr: Option<PathBuf>,
}

/// Most memory that may be asked for: 16 TiB.
const MEMORY_MIB_MAX: u64 = 1 << 24;
/// Rate a search begins at.
const FIRST_RATE: f64 = 50.0;

pub(super) fn run(args: Args) -> Ended {
    if let Some(CpuList(list)) = &args.cpus {
        // Before any thread is started: they inherit it.
        let mut set = CpuSet::new();
        list.iter().for_each(|&cpu| set.set(cpu));
        sched_setaffinity(None, &set).map_err(|error| format!("--cpus: {error}"))?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    // A reader of the table who goes away is no reason to lose what the files will hold.
    let found = runtime.block_on(async {
        let (options, goal) = plan(&args).await?;
        report(header(&args, &options, goal));
        report(HEADING);
        let mut shown = |trial: &Trial| report(trial.line());
        Ok::<_, Box<dyn std::error::Error>>(load(options, goal, &mut shown).await?)
    })?;
    write(args.json.as_deref(), |out| found.write_json(out))?;
    write(args.csv.as_deref(), |out| found.write_csv(out))?;
    write(args.hdr.as_deref(), |out| found.write_hdr(out))?;
    let most = found.trials.iter().map(|trial| trial.prepared).max_by_key(|made| made.bytes);
    if let Some(Prepared { queries, bytes, .. }) = most {
        report(format_args!("\nmade ahead of a run: up to {queries} queries, {} MiB", bytes >> 20));
    }
    if args.find_limit {
        report(limit(found.limit.as_ref()));
    }
    Ok(if found.is_sound() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What a search came to.
fn limit(found: Option<&Limit>) -> String {
    match found {
        None => "no rate is within the objective".into(),
        Some(Limit { rate, generator_bound: true, .. }) => {
            format!("limit: at least {rate:.1} queries a second: the generator gave out")
        }
        Some(Limit { rate, .. }) => format!("limit: {rate:.1} queries a second"),
    }
}

async fn plan(args: &Args) -> Result<(LoadOptions, Goal), Box<dyn std::error::Error>> {
    let mut client = args.server.options().await?;
    client.deadline = args.deadline.unwrap_or_default();
    let own = args.arrivals.frames_per_second().map(|frames| frames * args.batch as f64);
    let goal = match (args.find_limit, args.rate.or(own)) {
        (true, rate) => Goal::Limit(rate.unwrap_or(FIRST_RATE)),
        (false, Some(rate)) => Goal::Rate(rate),
        (false, None) => return Err("expected --rate or --find-limit".into()),
    };
    let mut options = LoadOptions::new(client);
    options.arrivals = args.arrivals.clone();
    options.popularity = args.shards;
    options.records = args.records.as_deref().map(Records::read).transpose()?;
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    options.seed = args.seed.unwrap_or_else(now);
    options.front_ends = args.front_ends;
    options.batch = args.batch;
    options.bundle_queries = args.bundle_queries;
    options.verify = args.verify;
    options.objective = args.slo_p99;
    options.warm_up = args.warm_up;
    options.window = args.window;
    options.time = args.time;
    options.memory_bytes = args.memory << 20;
    options.lag_max = args.lag;
    options.metrics = args.metrics.clone();
    Ok((options, goal))
}

fn header(args: &Args, options: &LoadOptions, goal: Goal) -> String {
    let arrivals = match &args.arrivals {
        Arrivals::Poisson => "Poisson arrivals".to_owned(),
        Arrivals::Constant => "constant arrivals".to_owned(),
        Arrivals::Bursts(frames) => format!("Poisson bursts of {frames} frames"),
        Arrivals::Trace(_) => "a replayed trace".to_owned(),
    };
    let shards = match args.shards {
        Popularity::Uniform => "uniform".to_owned(),
        Popularity::Zipf(exponent) => format!("Zipf({exponent})"),
    };
    let goal = match goal {
        Goal::Rate(rate) => format!("{rate} queries a second"),
        Goal::Limit(rate) => format!("the limit, from {rate} queries a second on"),
    };
    let keys = if args.records.is_some() { "keys of a file" } else { "random absent keys" };
    format!(
        "{goal}; objective p99 {:?}; {arrivals}, seed {}; shards {shards}, {keys}, {} a frame, \
         {} a bundle;\n{} front-ends; {:.0}% of answers verified; at most {} MiB of queries\n",
        args.slo_p99,
        options.seed,
        args.batch,
        args.bundle_queries,
        args.front_ends,
        args.verify * 1e2,
        args.memory,
    )
}

/// `500ms` or `2s`.
fn time(text: &str) -> Result<Duration, String> {
    let wrong = || format!("found {text:?}, expected a time such as 500ms or 2.5s");
    let (number, scale) = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(number), _) => (number, 1e-3),
        (None, Some(number)) => (number, 1.0),
        (None, None) => return Err(wrong()),
    };
    let seconds = number.parse::<f64>().map_err(|_| wrong())? * scale;
    Duration::try_from_secs_f64(seconds).map_err(|_| wrong())
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        _ if text == "all" => Ok(1.0),
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err(format!("found {text:?}, expected `all` or a number from 0 to 1")),
    }
}

/// Numbers of processors.
#[derive(Debug, Clone, PartialEq)]
struct CpuList(Vec<usize>);

/// Numbers and ranges of them, as in 0,2-3.
fn cpus(text: &str) -> Result<CpuList, String> {
    let wrong = || format!("found {text:?}, expected processors such as 0,2-3");
    let mut list = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| text.parse::<usize>().ok().filter(|&cpu| cpu < CpuSet::MAX_CPU);
        let (first, last) = number(first).zip(number(last)).ok_or_else(wrong)?;
        if first > last {
            return Err(wrong());
        }
        list.extend(first..=last);
    }
    Ok(CpuList(list))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_and_mistakes_are_said() {
        assert_eq!(time("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(time("2.5s"), Ok(Duration::from_millis(2_500)));
        for wrong in ["", "5", "ms", "-1s", "1m", "infs", "NaNms"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
        assert_eq!(cpus("0,2-4"), Ok(CpuList(vec![0, 2, 3, 4])));
        for wrong in ["", "a", "3-2", "0,", "99999", "0-99999999999"] {
            assert!(cpus(wrong).is_err(), "{wrong}");
        }
        assert_eq!((share("all"), share("0.25")), (Ok(1.0), Ok(0.25)));
        assert!(share("2").is_err() && share("some").is_err());
    }
}
