//! `sotto-bench load`: a load generator that tells the truth about a server.
//!
//! Open loop: when queries are due is fixed before the first one goes out, and a latency counts
//! from then, so that a slow server cannot slow its own measurement down (no coordinated omission).
//! Each front-end is a [`sotto::client::Client`] with a connection of its own, trust checked as by
//! any other; the queries are encrypted under fresh secrets, each sent once.
//!
//! What it deliberately does not do: try again what was refused, adapt to the server, keep secrets
//! from run to run. The server's own numbers are read where somebody says where ([`server_side`]).
//! The way of a run: [`arrivals`] (when), [`prepare`] (what), [`run`] (sending it), [`verify`]
//! (whether it was right), [`ledger`] (what came of it), [`search`] (the next rate), [`report`].

mod arrivals;
pub(crate) mod ledger;
mod prepare;
pub(crate) mod report;
mod run;
pub(crate) mod search;
mod server_side;
mod verify;

use std::time::Duration;

pub use arrivals::{Arrivals, Trace};
pub use ledger::Intervals;
pub use prepare::{Popularity, Records};
pub use report::{
    HEADING, Prepared, Quantiles, Report, Row, SCHEMA, ServerFacts, ServerSide, Trial,
};
pub use search::Limit;
pub use verify::Counts;

use crate::endpoint::Endpoint;
use crate::record::Head;
use ledger::Measure;
use run::Rig;
use sotto::client::{ClientError, Options};
use sotto::limits;
use sotto::scheme::SecretError;

/// Rates shown beside the limit, as multiples of it.
pub(crate) const BEYOND: [f64; 2] = [1.2, 2.0];

/// What a command is to do. Rates are in queries a second.
pub struct LoadOptions {
    /// How each front-end connects.
    pub client: Options,
    /// When frames are due.
    pub arrivals: Arrivals,
    /// How often each shard is asked.
    pub popularity: Popularity,
    /// Keys to ask for; random ones that are not there when absent.
    pub records: Option<Records>,
    /// Fixes arrivals, shards and keys. Never secrets.
    pub seed: u64,
    /// Connections.
    pub front_ends: usize,
    /// Queries a frame.
    pub batch: usize,
    /// Queries a bundle lives for, where their shards are distinct.
    pub bundle_queries: usize,
    /// Share of answers that are decoded.
    pub verify: f64,
    /// A good answer comes within this.
    pub objective: Duration,
    /// Time that does not count.
    pub warm_up: Duration,
    /// Length of a window.
    pub window: Duration,
    /// Longest time a run is measured for.
    pub time: Duration,
    /// Memory for queries made and not yet answered.
    pub memory_bytes: u64,
    /// A frame sent later than this after its time is late.
    pub lag_max: Duration,
    /// Threads that make queries.
    pub threads: usize,
    /// Where the server says its metrics, to be asked too.
    pub metrics: Option<Endpoint>,
}

impl LoadOptions {
    /// The defaults of `sotto-bench load`.
    pub fn new(client: Options) -> Self {
        Self {
            client,
            arrivals: Arrivals::Poisson,
            popularity: Popularity::Uniform,
            records: None,
            seed: 1,
            front_ends: 4,
            batch: 1,
            bundle_queries: limits::QUERIES_PER_SECRET_MAX,
            verify: 0.05,
            objective: Duration::from_millis(500),
            warm_up: Duration::from_secs(2),
            window: Duration::from_secs(2),
            time: Duration::from_secs(30),
            memory_bytes: limits::LOAD_BYTES,
            lag_max: Duration::from_millis(5),
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            metrics: None,
        }
    }

    fn measure(&self) -> Measure {
        let warm_up = self.warm_up.max(run::LEAD).as_secs_f64() / self.window.as_secs_f64();
        Measure {
            window: self.window,
            warm_up: warm_up.ceil() as usize,
            objective: self.objective,
            lag_max: self.lag_max,
        }
    }

    fn check(&self) -> Result<(), LoadError> {
        let within = |what, found: f64, least: f64, most: f64| match (least..=most).contains(&found)
        {
            true => Ok(()),
            false => Err(LoadError::Option { what, found, least, most }),
        };
        let (batch, bundle) = (limits::QUERIES_PER_FRAME_MAX, limits::QUERIES_PER_SECRET_MAX);
        within("front-ends", self.front_ends as f64, 1.0, limits::CONNECTIONS_MAX as f64)?;
        within("batch", self.batch as f64, 1.0, batch.into())?;
        within("bundle-queries", self.bundle_queries as f64, 1.0, bundle as f64)?;
        within("verify", self.verify, 0.0, 1.0)?;
        within("window, in seconds", self.window.as_secs_f64(), 0.05, 3600.0)?;
        within("warm-up, in seconds", self.warm_up.as_secs_f64(), 0.0, 3600.0)?;
        within("time, in seconds", self.time.as_secs_f64(), 0.05, 86_400.0)?;
        within("threads", self.threads as f64, 1.0, 1024.0)
    }

    fn check_rate(rate: f64) -> Result<(), LoadError> {
        let (what, least, most) = ("rate", 0.1, 1e7);
        if (least..=most).contains(&rate) {
            return Ok(());
        }
        Err(LoadError::Option { what, found: rate, least, most })
    }
}

/// What is asked of a command.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Goal {
    /// One run at this rate.
    Rate(f64),
    /// The highest rate within the objective, looked for from this one on.
    Limit(f64),
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// An option that cannot work.
    #[error("{what}: found {found}, expected {least} to {most}")]
    Option {
        /// Which.
        what: &'static str,
        /// What it is.
        found: f64,
        /// The least it may be.
        least: f64,
        /// The most it may be.
        most: f64,
    },
    /// A front-end could not connect.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Queries could not be encrypted.
    #[error("queries cannot be encrypted: {0}")]
    Secret(#[from] SecretError),
    /// The hints to verify with could not be had.
    #[error("answers cannot be verified: {0}")]
    Hints(String),
    /// The server did not say its metrics.
    #[error("the server's metrics (--metrics): {0}")]
    Metrics(String),
    /// A thread could not be started.
    #[error("no thread could be started: {0}")]
    Io(#[from] std::io::Error),
    /// A thread of ours was lost.
    #[error("this is a bug: a thread of the load generator panicked")]
    Thread,
}

/// Runs a command; `shown` is told of each run as soon as it is over.
pub async fn load(
    options: LoadOptions,
    goal: Goal,
    shown: &mut dyn FnMut(&Trial),
) -> Result<Report, LoadError> {
    options.check()?;
    let head = Head::new(SCHEMA);
    let (Goal::Rate(rate) | Goal::Limit(rate)) = goal;
    LoadOptions::check_rate(rate)?;
    let (seed, objective_ms) = (options.seed, options.objective.as_secs_f64() * 1e3);
    let mut rig = Rig::connect(options).await?;
    let server = ServerFacts::of(rig.parameters());
    let mut trials = Vec::new();
    let mut run = async |rate: f64| {
        let trial = rig.trial(rate).await?;
        shown(&trial);
        let verdict = trial.verdict();
        trials.push(trial);
        Ok::<_, LoadError>(verdict)
    };
    let mut limit = None;
    match goal {
        Goal::Rate(rate) => drop(run(rate).await?),
        Goal::Limit(rate) => limit = search::find(rate, &mut run).await?,
    }
    for factor in limit.iter().flat_map(|limit| BEYOND.map(|factor| factor * limit.rate)) {
        run(factor).await?;
    }
    rig.close().await;
    Ok(Report { head, seed, server, objective_ms, trials, limit })
}
