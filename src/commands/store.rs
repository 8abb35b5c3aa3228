//! `sotto store`: databases in object storage.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};

use clap::value_parser;
use sotto::builder::progress::Stage;
use sotto::builder::{Console, Progress, Silent};
use sotto::client::{Options, Pins, Replica};
use sotto::pull::Step;
use sotto::shard::{HeldBy, read_placement};
use sotto::store::{
    Announced, Behind, FetchOptions, Fetched, Hosts, Keep, Store, StoreError, announce, collect,
    fetch, push, until_staged,
};
use sotto::text::{bytes, counted};
use tokio::time::sleep;

use super::pull::RESTART;
use super::running::runtime;
use super::{Ended, out, trusted};

/// Databases in object storage: copies them there and to hosts, and says which epoch is served.
///
/// A store is a folder, or a URL such as s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or
/// az://CONTAINER/PREFIX. Credentials come from the environment, by the names that the programs of
/// these stores use.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    Push(PushArgs),
    Announce(AnnounceArgs),
    Fetch(FetchArgs),
    Gc(GcArgs),
}

/// Copies a database directory to a store: the files that it lacks, and the manifest. The epoch is
/// served once it is announced.
#[derive(clap::Args)]
struct PushArgs {
    /// Directory of the database
    #[arg(long, value_name = "DIR")]
    db: PathBuf,
    /// The store
    #[arg(long, value_name = "DIR|URL")]
    store: String,
    /// Print only errors
    #[arg(long)]
    quiet: bool,
}

/// Announces an epoch of a store: hosts serve it from now on. An announced epoch cannot be taken
/// back; old content is served again as a new epoch.
///
/// With `--placement` it first waits until the hosts answer each shard of it.
#[derive(clap::Args)]
struct AnnounceArgs {
    /// The store
    #[arg(long, value_name = "DIR|URL")]
    store: String,
    /// The epoch
    #[arg(long, value_name = "N")]
    epoch: u64,
    /// Which hosts have which shards: all of them are waited for
    #[arg(long, value_name = "FILE", requires = "ca")]
    placement: Option<PathBuf>,
    /// Certificates (PEM) of the authorities that sign the hosts' certificates
    #[arg(long, value_name = "FILE", requires = "placement")]
    ca: Option<PathBuf>,
    /// Certificate chain of this client, for hosts that require one
    #[arg(long, value_name = "PEM", requires_all = ["client_key", "placement"])]
    client_cert: Option<PathBuf>,
    /// Private key of that certificate
    #[arg(long, value_name = "PEM", requires = "client_cert")]
    client_key: Option<PathBuf>,
    /// Name in the certificates of the hosts, if it is not each one's name in the placement
    #[arg(long, value_name = "NAME", requires = "placement")]
    server_name: Option<String>,
    /// So many copies of each shard may be missing, but never the last one
    #[arg(long, value_name = "N", default_value_t = 0, requires = "placement")]
    may_lack: u32,
    /// How long to wait for the hosts. Hours (`24h`), minutes or seconds
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = age,
          requires = "placement")]
    wait: Duration,
}

/// Copies what a host holds from a store to its disk, and verifies it: the announced epoch as
/// `manifest.json`, and a newer one as `manifest.next.json`.
///
/// A run that was interrupted is gone on with by the next.
#[derive(clap::Args)]
struct FetchArgs {
    /// The store
    #[arg(long, value_name = "DIR|URL")]
    store: String,
    /// Directory of the copy; it is created
    #[arg(long, value_name = "DIR")]
    db: PathBuf,
    /// The operator's public key: `operator.pub`, from the operator and not from the store
    #[arg(long, value_name = "FILE")]
    operator_key: PathBuf,
    /// Which hosts have which shards [default: this one has all]
    #[arg(long, value_name = "FILE", requires = "host")]
    placement: Option<PathBuf>,
    /// The name of this host in the placement
    #[arg(long, value_name = "NAME", requires = "placement")]
    host: Option<String>,
    /// Go on and look for newer epochs
    #[arg(long)]
    watch: bool,
    /// Seconds between two looks
    #[arg(long, value_name = "SECONDS", default_value_t = 30,
          value_parser = value_parser!(u64).range(1..=86_400))]
    every: u64,
    /// Print only errors
    #[arg(long)]
    quiet: bool,
}

/// Removes old epochs from a store, and files that no kept epoch needs.
#[derive(clap::Args)]
struct GcArgs {
    /// The store
    #[arg(long, value_name = "DIR|URL")]
    store: String,
    /// So many of the newest epochs are kept, and always the announced one and all after it
    #[arg(long, value_name = "N", default_value_t = 3,
          value_parser = value_parser!(u16).range(1..))]
    keep_epochs: u16,
    /// Only what is older is removed: it protects a build under way. Hours (`24h`), minutes or
    /// seconds
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = age)]
    older_than: Duration,
}

fn age(text: &str) -> Result<Duration, String> {
    let wrong = || "expected a number and h, m or s, such as 24h".to_owned();
    let unit = text.chars().last().ok_or_else(wrong)?;
    let number = text[..text.len() - unit.len_utf8()].parse::<u32>().map_err(|_| wrong())?;
    let seconds = match unit {
        'h' => 3_600,
        'm' => 60,
        's' => 1,
        _ => return Err(wrong()),
    };
    Ok(Duration::from_secs(u64::from(number) * seconds))
}

pub(crate) fn run(args: Args) -> Ended {
    match args.command {
        Command::Push(args) => run_push(&args),
        Command::Announce(args) => run_announce(&args),
        Command::Fetch(args) => run_fetch(&args),
        Command::Gc(args) => run_gc(&args),
    }
}

fn run_push(args: &PushArgs) -> Ended {
    let store = Store::create(&args.store)?;
    let console = Console::default();
    let progress: &dyn Progress = if args.quiet { &Silent } else { &console };
    let told = |missing| match missing {
        Some(files) => progress.begin(Stage::Uploading, files),
        None => progress.advance(1),
    };
    let pushed = runtime()?.block_on(push(&store, &args.db, &told));
    progress.end();
    let pushed = pushed?;
    if !args.quiet {
        out::report(format_args!(
            "{}: epoch {}, {}, of which {} ({}) were uploaded",
            store.place(),
            pushed.epoch,
            counted(pushed.shards.into(), "shard"),
            counted(pushed.files, "file"),
            bytes(pushed.bytes)
        ));
    }
    Ok(ExitCode::SUCCESS)
}

fn run_announce(args: &AnnounceArgs) -> Ended {
    let store = Store::open(&args.store)?;
    let hosts = args.hosts()?;
    let told = |behind: &[Behind]| {
        for Behind { host, shards, reason } in behind {
            let reason = reason.as_deref().unwrap_or("it does not answer them yet");
            tracing::info!("waiting for {host}: it lacks {}: {reason}", counted(*shards, "shard"));
        }
    };
    let announced = runtime()?.block_on(async {
        let behind = match &hosts {
            Some(hosts) => until_staged(&store, args.epoch, hosts, &told).await?,
            None => Vec::new(),
        };
        Ok::<_, StoreError>((announce(&store, args.epoch).await?, behind))
    });
    let (announced, behind) = announced?;
    let said = match announced {
        Announced::Now => "announced",
        Announced::Before => "was announced before",
    };
    let mut line = format!("{}: epoch {} {said}", store.place(), args.epoch);
    for Behind { host, shards, .. } in behind {
        line += &format!("; {host} lacks {}", counted(shards, "shard"));
    }
    out::report(line);
    Ok(ExitCode::SUCCESS)
}

impl AnnounceArgs {
    /// The hosts that are waited for.
    fn hosts(&self) -> Result<Option<Hosts>, Box<dyn std::error::Error>> {
        let (Some(placement), Some(ca)) = (&self.placement, &self.ca) else { return Ok(None) };
        let nowhere = Replica { addresses: Vec::new(), server_name: String::new() };
        let mut options = Options::new(nowhere, trusted::read(ca)?, Pins::first_use());
        if let (Some(chain), Some(key)) = (&self.client_cert, &self.client_key) {
            options.identity_pem = Some((trusted::read(chain)?, trusted::read(key)?));
        }
        Ok(Some(Hosts {
            placement: read_placement(placement)?,
            options,
            server_name: self.server_name.clone(),
            may_lack: self.may_lack,
            patience: self.wait,
        }))
    }
}

fn run_fetch(args: &FetchArgs) -> Ended {
    let store = Store::open(&args.store)?;
    let operator_key = trusted::operator_key(&args.operator_key)?;
    let held_by = args.placement.clone().zip(args.host.clone());
    let held_by = held_by.map(|(placement, host)| HeldBy { placement, host });
    let options = FetchOptions { db: args.db.clone(), operator_key, held_by };
    let runtime = runtime()?;
    let console = Console::default();
    let progress: &dyn Progress = if args.quiet { &Silent } else { &console };
    let told = |step| match step {
        Step::Missing { bytes, .. } => progress.begin(Stage::Downloading, bytes),
        Step::Got(bytes) => progress.advance(bytes),
    };
    let mut known = Vec::new();
    let mut once = || -> Result<Fetched, Box<dyn std::error::Error>> {
        let fetched = runtime.block_on(fetch(&store, &options, trusted::now()?, &mut known, &told));
        progress.end();
        Ok(fetched?)
    };
    let mut before = None;
    loop {
        match once() {
            Ok(fetched) => {
                let state = (fetched.epoch, fetched.staged);
                if !args.quiet && before.replace(state) != Some(state) {
                    out::report(describe(&args.db, &fetched));
                }
                if fetched.restart {
                    out::complain(RESTART);
                }
            }
            Err(error) if args.watch => tracing::warn!("{error}; this is tried again"),
            Err(error) => return Err(error),
        }
        if !args.watch {
            return Ok(ExitCode::SUCCESS);
        }
        runtime.block_on(async { sleep(Duration::from_secs(args.every)).await });
    }
}

fn describe(db: &std::path::Path, fetched: &Fetched) -> String {
    let epoch = match fetched.epoch {
        Some(epoch) => format!("epoch {epoch}"),
        None => "no announced epoch".into(),
    };
    let staged = fetched.staged.map(|epoch| format!(", epoch {epoch} is staged"));
    format!(
        "{}: {epoch}{}; {} ({}) came and were verified",
        db.display(),
        staged.unwrap_or_default(),
        counted(fetched.files, "file"),
        bytes(fetched.bytes)
    )
}

fn run_gc(args: &GcArgs) -> Ended {
    let store = Store::open(&args.store)?;
    let keep = Keep { epochs: args.keep_epochs.into(), younger: args.older_than };
    let now = UNIX_EPOCH + Duration::from_secs(trusted::now()?);
    let collected = runtime()?.block_on(collect(&store, &keep, now))?;
    out::report(format_args!(
        "{}: removed {} and {} ({})",
        store.place(),
        counted(collected.manifests, "manifest"),
        counted(collected.files, "file"),
        bytes(collected.bytes)
    ));
    Ok(ExitCode::SUCCESS)
}
