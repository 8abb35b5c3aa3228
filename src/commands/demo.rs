//! `sotto demo`: a private look-up from beginning to end, on this machine, in one command.
//!
//! It makes sample records, builds a database of them, serves it on loopback over QUIC, looks keys
//! up in one call, and shows what the client asked, what the server saw and what came back. It
//! measures what it prints and compares every answer with the sample; a wrong one makes the exit
//! code 2. Its folder is removed at the end unless `--keep` names one.

use std::fs;
use std::io::{BufRead as _, BufReader, IsTerminal as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sotto::builder::{self, BuildOptions, BuildReport, Console, Input, Progress, Silent, sample};
use sotto::client::{Client, OperatorKey, Options, Outcome, Pins, Replica, SentQuery};
use sotto::engine::select_with;
use sotto::limits;
use sotto::server::{Callers, Identity, Server, ServerBounds, ServerOptions, certificates};
use sotto::shard::Database;
use sotto::text::{bytes, counted, duration, grouped, rate};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, spawn_blocking};

use super::engine::EngineArgs;
use super::folder::{Folder, write_new};
use super::out::{self, Ended, Lost, say};

/// Value field of the sample: with it, 2^20 records in one shard take the standard shape.
const VALUE_BYTES: u32 = 120;
/// Keys that are looked up, every second one absent; the first one is looked up once more.
const KEYS: usize = 260;
/// Look-ups that are shown: some, and the second one of the first key.
const SHOWN: usize = 6;
/// Bytes of each query that are shown.
const HEAD_BYTES: usize = 4;
/// A slow machine without vector instructions still answers the batch within this.
const DEADLINE: Duration = limits::DEADLINE_MAX;
/// Memory of a GPU that the demo takes unless told otherwise, in bytes: a server may use the rest.
const GPU_BYTES: u64 = 1 << 30;

/// Shows a private look-up from beginning to end, on this machine.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Number of sample records.
    #[arg(long, value_name = "N", default_value_t = 20_000,
          value_parser = clap::value_parser!(u64).range(1..=limits::SAMPLE_RECORDS_MAX))]
    records: u64,
    /// Number of shards.
    #[arg(long, value_name = "N", default_value_t = 16,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(limits::SHARDS_MAX)))]
    shards: u32,
    /// Keep sample, database and certificates in this directory, which must be new or empty.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    #[command(flatten)]
    engine: EngineArgs,
}

type Error = Box<dyn std::error::Error + Send + Sync>;

pub(crate) fn run(args: Args) -> Ended {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let folder = match &args.keep {
        Some(path) => Folder::kept(path)?,
        None => Folder::temporary(&std::env::temp_dir(), "demo")?,
    };
    let path = folder.path().to_owned();
    let ended: Result<ExitCode, Error> = runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            shown = show(&args, &path) => shown,
            _ = interrupt.recv() => Ok(ExitCode::from(out::INTERRUPTED)),
            _ = terminate.recv() => Ok(ExitCode::from(out::INTERRUPTED)),
        }
    });
    // A build that was interrupted writes until the process ends, so the folder is removed last.
    runtime.shutdown_background();
    drop(folder);
    ended.map_err(|error| error as _)
}

/// A record of the sample, or a key that is not in it.
#[derive(Clone)]
struct Asked {
    key: String,
    value: Option<String>,
}

async fn show(args: &Args, folder: &Path) -> Result<ExitCode, Error> {
    say("A private look-up, from records to answers")?;
    let asked = make_sample(args.records, folder)?;
    let report = make_database(args, folder).await?;
    let serving = Serving::start(args, folder).await?;
    let accepted = report.shard_records_min.min(limits::RECORDS_PER_SHARD_ACCEPTED_MIN);
    let mut client = serving.client(folder, accepted).await?;

    let wrong = look_up(&mut client, &asked).await?;
    drop(client.close().await); // the pins of a database that is removed
    serving.end().await;
    say("")?;
    if let Some(keep) = &args.keep {
        let dir = keep.display();
        say(format_args!(
            "  Kept in {dir}. To go on with it:\n\n  \
             sotto serve --db {dir}/db --listen 127.0.0.1:4433 \\\n    \
             --cert {dir}/server.pem --key {dir}/server.key\n  \
             sotto lookup --server localhost:4433 --ca {dir}/ca.pem \\\n    \
             --operator-key {dir}/db/operator.pub --accept-shard-records {accepted} \\\n    {}\n",
            asked[0].key,
        ))?;
    }
    let total = asked.len();
    if wrong > 0 {
        say(format_args!("{wrong} of {total} answers are WRONG."))?;
        return Ok(ExitCode::from(2));
    }
    say(format_args!("All {total} answers were compared with the sample: every one is right."))?;
    Ok(ExitCode::SUCCESS)
}

/// Writes the sample and chooses keys: its first records, in turn with absent keys, and the very
/// first one again as the last that is shown.
fn make_sample(records: u64, folder: &Path) -> Result<Vec<Asked>, Error> {
    let path = folder.join("sample.csv");
    sample::write(records, fs::File::create(&path)?)?;
    let mut asked: Vec<Asked> = Vec::new();
    for line in BufReader::new(fs::File::open(&path)?).lines().skip(1).take(KEYS / 2) {
        let line = line?;
        // No field of the sample needs quotes.
        let (key, value) = line.split_once(',').ok_or("a line of the sample without a value")?;
        asked.push(Asked { key: key.to_owned(), value: Some(value.to_owned()) });
        asked.push(Asked { key: format!("absent{}@example.com", asked.len()), value: None });
    }
    asked.insert(asked.len().min(SHOWN - 1), asked[0].clone());
    say(format_args!(
        "\n1. The sample\n\n  \
         {} records; the first says that {} is reachable at\n  \
         {}.\n  \
         All numbers and addresses are from ranges reserved for fiction and examples.",
        grouped(records),
        asked[0].key,
        asked[0].value.as_deref().unwrap_or_default(),
    ))?;
    Ok(asked)
}

async fn make_database(args: &Args, folder: &Path) -> Result<BuildReport, Error> {
    let mut options = BuildOptions::new(Input::File(folder.join("sample.csv")), folder.join("db"));
    options.shards = Some(args.shards);
    options.value_bytes = Some(VALUE_BYTES);
    options.signing_key = Some(folder.join("signing-key.pem"));
    let build = move || {
        let progress: &dyn Progress =
            if std::io::stderr().is_terminal() { &Console::default() } else { &Silent };
        builder::run(&options, progress)
    };
    let report = spawn_blocking(build).await??;
    say(format_args!(
        "\n2. The database\n\n  \
         The server sees the shard number of a key and nothing else about it. A look-up\n  \
         hides among the records of its shard: about {} here. Clients accept {}\n  \
         or more unless told otherwise; this one accepts what there is.\n",
        grouped(args.records / u64::from(args.shards)),
        grouped(limits::RECORDS_PER_SHARD_ACCEPTED_MIN),
    ))?;
    let shape = &report.shape;
    let packs = counted(shape.packs() as u64, "pack");
    let columns = grouped(shape.columns() as u64);
    row("shape of a shard", &format!("{packs} of {} rows, {columns} columns", shape.pack_rows()))?;
    row("on disk", &bytes(report.bytes))?;
    let odds = -shape.log2_failure();
    row("a record fails", &format!("at most once in 2^{odds:.0} look-ups"))?;
    row("built and checked in", &duration(report.elapsed))?;
    Ok(report)
}

fn row(name: &str, value: &str) -> Result<(), Lost> {
    say(format_args!("  {name:<22}{value}"))
}

/// A server that runs beside the demo's client.
struct Serving {
    address: SocketAddr,
    ca_pem: String,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Serving {
    async fn start(args: &Args, folder: &Path) -> Result<Self, Error> {
        let made = certificates::localhost()?;
        write_new(&folder.join("ca.pem"), &made.ca_pem, 0o644)?;
        write_new(&folder.join("server.pem"), &made.server_pem, 0o644)?;
        write_new(&folder.join("server.key"), &made.server_key, 0o600)?;
        let begun = Instant::now();
        let database = Arc::new(Database::open(&folder.join("db"))?);
        let opened = begun.elapsed();
        let mut options = args.engine.options();
        options.gpu_bytes.get_or_insert(GPU_BYTES);
        let engines = spawn_blocking(move || select_with(&options)).await??.engines;
        let names: Vec<String> = engines.iter().map(|engine| engine.name()).collect();
        let options = ServerOptions {
            listen: ([127, 0, 0, 1], 0).into(),
            identity: Identity::from_pem(&made.server_pem, &made.server_key)?,
            callers: Callers::Loopback,
            engines,
            bounds: ServerBounds::default(),
        };
        let server = Server::bind(options, database)?;
        let address = server.local_addr();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(server.run(async move {
            let _ = stopped.await;
        }));
        say("\n3. The server\n")?;
        row("listens on", &format!("{address} (QUIC, TLS 1.3)"))?;
        names.iter().try_for_each(|name| row("answers with", name))?;
        row("database opened in", &duration(opened))?;
        Ok(Self { address, ca_pem: made.ca_pem, stop, task })
    }

    async fn client(&self, folder: &Path, accepted: u64) -> Result<Client, Error> {
        let key = OperatorKey::from_text(&fs::read_to_string(folder.join("db/operator.pub"))?)?;
        let replica = Replica::new(self.address, "localhost");
        let ca_pem = self.ca_pem.clone().into_bytes();
        let mut options = Options::new(replica, ca_pem, Pins::operator(key));
        options.records_per_shard_min = accepted;
        options.deadline = DEADLINE;
        options.answer_timeout = DEADLINE + limits::ANSWER_TIMEOUT;
        Ok(Client::connect(options).await?)
    }

    async fn end(self) {
        let _ = self.stop.send(());
        let _ = self.task.await;
    }
}

/// Looks all keys up in one call and shows some; counts the answers that differ from the sample.
async fn look_up(client: &mut Client, asked: &[Asked]) -> Result<usize, Error> {
    let keys: Vec<&str> = asked.iter().map(|asked| &*asked.key).collect();
    let begun = Instant::now();
    let outcomes = client.lookup(&keys).await?.into_iter().collect::<Result<Vec<_>, _>>()?;
    let elapsed = begun.elapsed();
    let call = client.last_call();
    say(format_args!("\n4. {} look-ups in one call\n", asked.len()))?;
    let line = |a: &str, b: &str, c: &str| say(format_args!("  {a:<20}  {b:<21}  {c}"));
    line("the client asked", "the server saw", "the client read\n")?;
    let mut wrong = 0;
    for (n, ((asked, query), outcome)) in asked.iter().zip(&call.queries).zip(outcomes).enumerate()
    {
        let (text, is_right) = match outcome {
            Outcome::Found(value) => {
                let is_right = asked.value.as_ref().is_some_and(|v| v.as_bytes() == value);
                (String::from_utf8_lossy(&value).into_owned(), is_right)
            }
            Outcome::Absent => ("not found".into(), asked.value.is_none()),
            Outcome::Invalid => ("cannot be believed".into(), false),
        };
        wrong += usize::from(!is_right);
        if n < SHOWN || !is_right {
            let head = query.vector_head.iter().take(HEAD_BYTES);
            let head: String = head.map(|byte| format!("{byte:02x}")).collect();
            let mark = if is_right { "" } else { "  (WRONG)" };
            line(&asked.key, &format!("shard {}, {head}..", query.shard), &(text + mark))?;
        }
    }
    wrong += queries_that_tell(&call.queries)?;
    let (queries, bundles) = (call.queries.len(), counted(call.bundles.into(), "key bundle"));
    row("up", &format!("{queries} queries and {bundles}: {}", bytes(call.bytes_up)))?;
    let hints = counted(call.hints.into(), "hint");
    row("down", &format!("{queries} answers and {hints} to keep: {}", bytes(call.bytes_down)))?;
    let looked_up = rate(asked.len() as f64 / elapsed.as_secs_f64());
    row("in all", &format!("{}, look-ups: {looked_up}", duration(elapsed)))?;
    say("\n  The server computed every query over all of its shard: if it skipped a part,")?;
    say("  it would know that this part does not matter.")?;
    Ok(wrong)
}

/// Shows that queries and answers are of one size each, and that equal keys give different bytes;
/// counts those for which that is wrong.
fn queries_that_tell(queries: &[SentQuery]) -> Result<usize, Lost> {
    let (first, again) = (&queries[0], &queries[queries.len().min(SHOWN) - 1]);
    say(format_args!(
        "\n  \
         Each query went out as {} bytes of ciphertext, of which the first {HEAD_BYTES} are\n  \
         shown, and each answer came back as {} bytes: as many for a key that is\n  \
         there as for one that is not.",
        grouped(first.vector_bytes as u64),
        grouped(first.response_bytes as u64),
    ))?;
    let sizes = |query: &SentQuery| (query.vector_bytes, query.response_bytes);
    let uneven = queries.iter().filter(|query| sizes(query) != sizes(first)).count();
    if again.vector_head == first.vector_head || again.uid == first.uid {
        say("  The last key repeats the first, and so do the bytes: WRONG.\n")?;
        return Ok(uneven + 1);
    }
    say("  The last key repeats the first: the same shard, under another secret.\n")?;
    Ok(uneven)
}
