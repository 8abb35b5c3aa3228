//! `sotto demo`: the whole way of a private look-up, on this machine, in one command.
//!
//! Makes a sample, builds it, serves it on loopback over QUIC, looks keys up, and shows what the
//! client asked, what the server saw and what came back; then a batch with its rate. Every number
//! is measured, every answer compared with the sample; a wrong one makes the exit code 2. The
//! folder it works in goes when it ends, however it ends, unless `--keep` names one.

mod text;

use std::fs;
use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sotto::builder::{self, BuildOptions, BuildReport, Console, Input, Progress, Silent, sample};
use sotto::client::{CallReport, Client, OperatorKey, Options, Outcome, Pins, Replica, SentQuery};
use sotto::engine::select_with;
use sotto::limits;
use sotto::server::{Callers, Identity, Server, ServerBounds, ServerOptions, certificates};
use sotto::shard::Database;
use sotto::text::{bytes, counted, duration, grouped};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use super::Ended;
use super::engine::EngineArgs;
use super::folder::{Folder, write_private};
use super::out::Lost;

use text::{paragraph, say};

/// Value field of the sample: with it, 2^20 records in one shard take the standard shape.
const VALUE_BYTES: u32 = 120;
/// Most records of a sample: gigabytes of text, and minutes.
const RECORDS_MAX: u64 = 100_000_000;
/// Keys shown one by one; every second one is absent. The first one is then asked once more.
const SHOWN_KEYS: u64 = 5;
/// Bytes of each query that are shown.
const HEAD_BYTES: usize = 4;
/// Keys of the batch, likewise.
const BATCH_KEYS: u64 = 256;
/// A slow machine without vector instructions still answers the batch within this.
const DEADLINE: Duration = limits::DEADLINE_MAX;
/// Exit code after Ctrl-C, as shells have it.
const INTERRUPTED: u8 = 130;

/// Shows a private look-up from beginning to end, on this machine.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Number of sample records.
    #[arg(long, value_name = "N", default_value_t = 20_000,
          value_parser = clap::value_parser!(u64).range(1..=RECORDS_MAX))]
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
    let ended = runtime.block_on(async {
        let (mut interrupt, mut terminate) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        tokio::select! {
            shown = show(&args, path) => shown.map(Some),
            _ = interrupt.recv() => Ok(None),
            _ = terminate.recv() => Ok(None),
        }
    });
    // A build that was interrupted still writes until the process ends: its folder goes last.
    runtime.shutdown_background();
    drop(folder);
    match ended {
        Ok(Some(code)) => Ok(code),
        Ok(None) => Ok(ExitCode::from(INTERRUPTED)),
        Err(error) => Err(error),
    }
}

/// A record of the sample, or a key that is not in it.
struct Asked {
    key: String,
    value: Option<String>,
}

async fn show(args: &Args, folder: PathBuf) -> Result<ExitCode, Error> {
    say("A private look-up, from records to answers")?;
    let asked = make_sample(args, &folder)?;
    let report = make_database(args, &folder).await?;
    let (address, ca_pem, stop) = serve(args, &folder).await?;
    let mut client = connect(&folder, address, ca_pem, &report).await?;

    let mut few: Vec<&Asked> = asked[..SHOWN_KEYS as usize].iter().collect();
    few.push(few[0]);
    let many: Vec<&Asked> = asked[few.len() - 1..].iter().collect();
    let mut wrong = show_few(&mut client, &few).await?;
    wrong += show_many(&mut client, &many, &report).await?;

    drop(client.close().await); // the demo's database goes, and with it what is known of it
    stop.leave().await;
    say("")?;
    if let Some(keep) = &args.keep {
        paragraph(&format!("Kept in {}. To go on with it:", keep.display()))?;
        let dir = keep.display();
        say(format_args!(
            "  sotto serve --db {dir}/db --listen 127.0.0.1:4433 \\\n    \
             --cert {dir}/server.pem --key {dir}/server.key"
        ))?;
        say(format_args!(
            "  sotto lookup --server localhost:4433 --ca {dir}/ca.pem \\\n    \
             --operator-key {dir}/db/operator.pub --accept-shard-records {} \\\n    {}",
            crowd(&report).min(limits::RECORDS_PER_SHARD_ACCEPTED_MIN),
            few[0].key,
        ))?;
        say("")?;
    }
    let total = few.len() + many.len();
    match wrong {
        0 => say(format_args!(
            "All {total} answers were compared with the sample: every one is right."
        ))?,
        _ => say(format_args!("{wrong} of {total} answers are WRONG."))?,
    }
    Ok(if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::from(2) })
}

/// Records of the emptiest shard: fewer than clients accept unless told otherwise.
fn crowd(report: &BuildReport) -> u64 {
    report.shard_records_min
}

fn make_sample(args: &Args, folder: &Path) -> Result<Vec<Asked>, Error> {
    let path = folder.join("sample.csv");
    sample::write(args.records, fs::File::create(&path)?)?;
    let wanted = SHOWN_KEYS + BATCH_KEYS;
    let reader = io::BufReader::with_capacity(1 << 18, fs::File::open(&path)?);
    let mut asked: Vec<Asked> = Vec::new();
    let (mut first, mut index) = (None, 0);
    for line in io::BufRead::lines(reader).skip(1) {
        let line = line?;
        // The sample's own lines: no field needs quotes.
        let (key, value) = line.split_once(',').ok_or("a sample line without a value")?;
        first.get_or_insert_with(|| (key.to_owned(), value.to_owned()));
        // Spread over the sample; in turn with keys that are not in it.
        let place = |n: usize| (n as u64 / 2) * args.records / wanted.div_ceil(2);
        while (asked.len() as u64) < wanted && place(asked.len()) == index {
            let n = asked.len();
            asked.push(match n % 2 {
                0 => Asked { key: key.to_owned(), value: Some(value.to_owned()) },
                _ => Asked { key: format!("absent{n}@example.com"), value: None },
            });
        }
        index += 1;
    }
    let (key, value) = first.ok_or("an empty sample")?;
    say("\n1. The sample\n")?;
    paragraph(&format!(
        "{} records; the first says that {key} is reachable at {value}. Numbers and addresses are \
         from ranges reserved for fiction and for examples.",
        grouped(args.records),
    ))?;
    Ok(asked)
}

async fn make_database(args: &Args, folder: &Path) -> Result<BuildReport, Error> {
    let mut options = BuildOptions::new(Input::File(folder.join("sample.csv")), folder.join("db"));
    options.shards = Some(args.shards);
    options.value_bytes = Some(VALUE_BYTES);
    options.signing_key = Some(folder.join("signing-key.pem"));
    let build = move || {
        let console = Console::new();
        let silent = Silent;
        let progress: &dyn Progress = if io::stderr().is_terminal() { &console } else { &silent };
        builder::run(&options, progress)
    };
    let report = tokio::task::spawn_blocking(build).await??;
    let shape = &report.shape;
    say("\n2. The database\n")?;
    paragraph(&shards_explained(args))?;
    say("")?;
    let packs = counted(shape.packs() as u64, "pack");
    let columns = grouped(shape.columns() as u64);
    row("shape of a shard", &format!("{packs} of {} rows, {columns} columns", shape.pack_rows()))?;
    row("on disk", &bytes(report.bytes))?;
    let odds = -shape.log2_failure();
    row("a record fails", &format!("at most once in 2^{odds:.0} look-ups"))?;
    row("built and checked in", &duration(report.elapsed))?;
    Ok(report)
}

fn shards_explained(args: &Args) -> String {
    let crowd = grouped(args.records / u64::from(args.shards));
    let bound = limits::RECORDS_PER_SHARD_ACCEPTED_MIN;
    let why = match args.shards {
        1 => {
            "One shard: so the shard number, the only thing about a key that the server sees, says \
              nothing here."
                .to_owned()
        }
        n => format!(
            "{n} shards: so that one batch crosses shards, and the shard number can be shown. It \
             is the only thing about a key that the server sees."
        ),
    };
    let enough = if args.records / u64::from(args.shards) < bound {
        format!(
            "far below the {} that a client accepts unless told otherwise. This one is told: \
             nobody's contacts are in here.",
            grouped(bound)
        )
    } else {
        format!("and a client accepts no fewer than {} unless told otherwise.", grouped(bound))
    };
    format!("{why} A look-up hides among the records of its shard: about {crowd}, {enough}")
}

fn row(name: &str, value: &str) -> Result<(), Lost> {
    say(format_args!("  {name:<22}{value}"))
}

/// A server that runs beside the demo's client.
struct Running {
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

impl Running {
    async fn leave(self) {
        let _ = self.stop.send(());
        let _ = self.task.await;
    }
}

/// Memory of a GPU that the demo takes unless told otherwise, in bytes.
const GPU_BYTES: u64 = 1 << 30;

async fn serve(
    args: &Args,
    folder: &Path,
) -> Result<(std::net::SocketAddr, String, Running), Error> {
    let made = certificates::localhost()?;
    let files = [
        ("ca.pem", &made.ca_pem),
        ("server.pem", &made.server_pem),
        ("server.key", &made.server_key),
    ];
    for (name, content) in files {
        write_private(&folder.join(name), content)?;
    }
    let opened = Instant::now();
    let database = Arc::new(Database::open(&folder.join("db"))?);
    let opened = opened.elapsed();
    let mut options = args.engine.options();
    // A server may be at work on the same GPU: not all its memory is asked for.
    options.gpu_bytes.get_or_insert(GPU_BYTES);
    let selected = tokio::task::spawn_blocking(move || select_with(&options)).await??;
    let names: Vec<String> = selected.engines.iter().map(|engine| engine.name()).collect();
    let options = ServerOptions {
        listen: ([127, 0, 0, 1], 0).into(),
        identity: Identity::from_pem(&made.server_pem, &made.server_key)?,
        callers: Callers::Loopback,
        engines: selected.engines,
        bounds: ServerBounds::default(),
    };
    let server = Server::bind(options, database)?;
    let address = server.local_addr();
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn(server.run(async move { drop(stopped.await) }));
    say("\n3. The server\n")?;
    row("listens on", &format!("{address} (QUIC, TLS 1.3)"))?;
    names.iter().try_for_each(|name| row("answers with", name))?;
    row("database opened in", &duration(opened))?;
    Ok((address, made.ca_pem, Running { stop, task }))
}

async fn connect(
    folder: &Path,
    address: std::net::SocketAddr,
    ca_pem: String,
    report: &BuildReport,
) -> Result<Client, Error> {
    let key = OperatorKey::from_text(&fs::read_to_string(folder.join("db/operator.pub"))?)?;
    let replica = Replica::new(address, "localhost");
    let mut options = Options::new(replica, ca_pem.into_bytes(), Pins::operator(key));
    options.records_per_shard_min = crowd(report).min(limits::RECORDS_PER_SHARD_ACCEPTED_MIN);
    options.deadline = DEADLINE;
    options.answer_timeout = DEADLINE + limits::ANSWER_TIMEOUT;
    Ok(Client::connect(options).await?)
}

/// Looks up and counts the answers that are not the sample's. A program that keeps a secret must
/// not print between its calls, as this one does: here server and client are one process, and the
/// keys are the sample's.
async fn look_up(client: &mut Client, asked: &[&Asked]) -> Result<(Vec<String>, usize), Error> {
    let keys: Vec<&str> = asked.iter().map(|asked| &*asked.key).collect();
    let outcomes = client.lookup(&keys).await?;
    let (mut shown, mut wrong) = (Vec::new(), 0);
    for (asked, outcome) in asked.iter().zip(outcomes) {
        let (text, right) = match outcome {
            Ok(Outcome::Found(value)) => {
                let right = asked.value.as_ref().is_some_and(|v| v.as_bytes() == value);
                (String::from_utf8_lossy(&value).into_owned(), right)
            }
            Ok(Outcome::Absent) => ("not found".into(), asked.value.is_none()),
            Ok(Outcome::Invalid) => ("cannot be believed".into(), false),
            Err(error) => (error.to_string(), false),
        };
        wrong += usize::from(!right);
        shown.push(if right { text } else { format!("{text}  (WRONG)") });
    }
    Ok((shown, wrong))
}

async fn show_few(client: &mut Client, asked: &[&Asked]) -> Result<usize, Error> {
    let (shown, mut wrong) = look_up(client, asked).await?;
    let call = client.last_call();
    say(format_args!("\n4. {} look-ups in one call\n", asked.len()))?;
    let [.., again] = &call.queries[..] else { return Ok(asked.len()) };
    let saw = |query: &SentQuery| {
        let head = query.vector_head.iter().take(HEAD_BYTES);
        let head: String = head.map(|byte| format!("{byte:02x}")).collect();
        format!("shard {}, {head}..", query.shard)
    };
    let saw: Vec<String> = call.queries.iter().map(saw).collect();
    let wide = |texts: &mut dyn Iterator<Item = &str>, heading: &str| {
        texts.map(|text| text.chars().count()).max().unwrap_or(0).max(heading.len())
    };
    let headings = ["the client asked", "the server saw", "the client read"];
    let key_width = wide(&mut asked.iter().map(|asked| &*asked.key), headings[0]);
    let saw_width = wide(&mut saw.iter().map(|saw| &**saw), headings[1]);
    let line = |[a, b, c]: [&str; 3]| say(format_args!("  {a:<key_width$}  {b:<saw_width$}  {c}"));
    line(headings)?;
    say("")?;
    for ((asked, saw), shown) in asked.iter().zip(&saw).zip(&shown) {
        line([&asked.key, saw, shown])?;
    }
    say("")?;
    paragraph(&format!(
        "Each query went out as {} bytes of ciphertext, of which the first {HEAD_BYTES} are shown, \
         and each answer came back as {}: as many for a key that is there as for one that is not.",
        grouped(again.vector_bytes as u64),
        grouped(again.response_bytes as u64),
    ))?;
    let first = &call.queries[0];
    wrong += uneven(&call.queries);
    if again.vector_head == first.vector_head || again.uid == first.uid {
        wrong += 1;
        paragraph("The last key repeats the first, and so do the bytes: WRONG.")?;
    } else {
        paragraph("The last key repeats the first: the same shard, under another secret.")?;
    }
    say("")?;
    traffic(call)?;
    Ok(wrong)
}

/// Queries and answers that are not of one size, as all must be.
fn uneven(queries: &[SentQuery]) -> usize {
    let sizes = |query: &SentQuery| (query.vector_bytes, query.response_bytes);
    queries.iter().filter(|query| sizes(query) != sizes(&queries[0])).count()
}

fn traffic(call: &CallReport) -> Result<(), Lost> {
    let queries = call.queries.len();
    let query_bytes = bytes(call.bytes_up - call.bundle_bytes);
    let bundles = counted(call.bundles.into(), "key bundle");
    let bundles = format!("{bundles} {}", bytes(call.bundle_bytes));
    row("up", &format!("{queries} queries {query_bytes}, {bundles}"))?;
    let hints = match call.hints {
        0 => "the hints were here already".to_owned(),
        n => format!("{} {}, kept for later", counted(n.into(), "hint"), bytes(call.hint_bytes)),
    };
    let answer_bytes = bytes(call.bytes_down - call.hint_bytes);
    row("down", &format!("{queries} answers {answer_bytes}, {hints}"))?;
    row("drawing, encrypting", &duration(call.encrypt_time))?;
    if call.hints > 0 {
        row("fetching hints", &duration(call.hint_time))?;
    }
    row("sending bundles", &duration(call.bundle_time))?;
    row("queries to answers", &duration(call.answer_time))?;
    row("decoding", &duration(call.decode_time))
}

async fn show_many(
    client: &mut Client,
    asked: &[&Asked],
    report: &BuildReport,
) -> Result<usize, Error> {
    let begun = Instant::now();
    let (_, wrong) = look_up(client, asked).await?;
    let elapsed = begun.elapsed();
    let call = client.last_call();
    say(format_args!("\n5. {} look-ups in one call\n", asked.len()))?;
    traffic(call)?;
    let rate = asked.len() as f64 / elapsed.as_secs_f64();
    let each = duration(elapsed / asked.len() as u32);
    row("in all", &format!("{}: {rate:.0} look-ups a second, {each} each", duration(elapsed)))?;
    let rate = asked.len() as f64 / call.answer_time.as_secs_f64();
    let each = duration(call.answer_time / asked.len() as u32);
    row("answering alone", &format!("{rate:.0} queries a second, {each} each"))?;
    say("")?;
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    paragraph(&format!(
        "Client and server share this machine ({}). Every one of those queries was computed over \
         all {} of its shard, for to skip a part would be to know that it does not matter; \
         queries to one shard share a pass over it.",
        counted(cores as u64, "core"),
        bytes(
            (report.shape.matrix_bytes() + report.shape.packs() * report.shape.table_bytes())
                as u64
        ),
    ))?;
    Ok(wrong)
}
