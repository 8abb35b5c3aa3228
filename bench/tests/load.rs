//! The load generator against the real server on a small built database, with engines that stall,
//! hold back or answer wrongly; what it sends is recorded and held against the rule on secrets.
//! No time is asserted but that a server's delay is seen, which no fast machine can undo.

#![allow(clippy::unwrap_used)]

#[path = "../../tests/harness/mod.rs"]
mod harness;

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use harness::{Built, CROWD, Recorder, Serving, Setting, options, serve};
use sotto::client::{Options, Pins};
use sotto::engine::{Answer, Batch, Engine, EngineChoice, EngineError, IsaChoice, select};
use sotto::limits::QUERIES_PER_SECRET_MAX;
use sotto::server::{Admin, AdminCallers};
use sotto::wire::message::RequestBody;
use sotto_bench::Endpoint;
use sotto_bench::load::{Arrivals, Goal, LoadOptions, Report, SCHEMA, Trial, load};

const MS: Duration = Duration::from_millis(1);
const SHARDS: u32 = 5;

fn record(n: u32) -> (String, Vec<u8>) {
    (format!("+155501{n:05}"), format!("value {n}").into_bytes())
}

fn database() -> Built {
    Built::new(&(0..300).map(record).collect::<Vec<_>>(), SHARDS)
}

/// A short run, in which the generator may be as late as it likes.
fn short() -> LoadOptions {
    LoadOptions {
        seed: 7,
        front_ends: 2,
        verify: 1.0,
        warm_up: 500 * MS,
        window: 100 * MS,
        time: 500 * MS,
        lag_max: Duration::MAX,
        ..LoadOptions::default()
    }
}

fn client(built: &Built, address: SocketAddr, ca_pem: &str) -> Options {
    options(address, ca_pem, Pins::operator(built.operator_key()))
}

async fn run(built: &Built, serving: &Serving, options: LoadOptions, rate: f64) -> Report {
    let client = client(built, serving.address, &serving.certificates.ca_pem);
    load(client, options, Goal::Rate(rate), &mut |_| {}).await.unwrap()
}

fn planned(report: &Report) -> u64 {
    report.trials[0].windows.iter().map(|row| row.planned).sum()
}

/// The real engine, and what is done to it.
struct Scripted<F> {
    engine: Box<dyn Engine>,
    before: F,
    /// Every third answer is another one.
    spoiled: Option<Arc<AtomicU64>>,
    answers: u64,
}

impl<F: FnMut() + Send> Engine for Scripted<F> {
    fn name(&self) -> String {
        "scripted".into()
    }

    fn answer(
        &mut self,
        batches: &[Batch<'_>],
        done: &mut dyn FnMut(usize, usize, Answer),
    ) -> Result<(), EngineError> {
        (self.before)();
        let Self { engine, spoiled, answers, .. } = self;
        engine.answer(batches, &mut |batch, query, mut answer| {
            *answers += 1;
            if let Some(spoiled) = spoiled.as_ref().filter(|_| answers.is_multiple_of(3)) {
                spoiled.fetch_add(1, Ordering::SeqCst);
                answer.iter_mut().flatten().for_each(|byte| *byte = 0xa5);
            }
            done(batch, query, answer);
        })
    }
}

fn serve_scripted(
    db: &Path,
    before: impl FnMut() + Send + 'static,
    spoiled: Option<Arc<AtomicU64>>,
) -> Serving {
    let engine = select(EngineChoice::Cpu, IsaChoice::Auto, None).unwrap();
    let engines: Vec<Box<dyn Engine>> =
        vec![Box::new(Scripted { engine, before, spoiled, answers: 0 })];
    Setting { engines, ..Setting::default() }.serve(db)
}

/// Opens once, for all who wait.
#[derive(Default)]
struct Gate(Mutex<bool>, Condvar);

impl Gate {
    fn wait(&self, most: Duration) {
        let open = self.0.lock().unwrap();
        drop(self.1.wait_timeout_while(open, most, |open| !*open).unwrap());
    }

    fn open(&self) {
        *self.0.lock().unwrap() = true;
        self.1.notify_all();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stall_of_the_server_shows_in_all_that_was_planned_during_it() {
    let built = database();
    let never = Gate::default();
    let mut stall = Some(400 * MS);
    let before = move || stall.take().into_iter().for_each(|stall| never.wait(stall));
    let serving = serve_scripted(&built.db(), before, None);
    let options = LoadOptions {
        arrivals: Arrivals::Constant,
        objective: 200 * MS,
        time: 2_000 * MS,
        ..short()
    };
    let report = run(&built, &serving, options, 200.0).await;
    let good: u64 = report.trials[0].windows.iter().map(|row| row.good).sum();
    // 40 were planned in the first half of the stall. Of those, two connections of eight streams
    // could send 16: who counts from sending sees no more.
    let seen = planned(&report) - good;
    assert!(seen >= 38, "{seen} of {} waited", planned(&report));
    let trial = &report.trials[0];
    assert!(trial.errors.is_empty() && trial.verified.wrong == 0, "{:?}", trial.errors);
    assert!(trial.latency_ms.max >= 390.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generator_without_queries_is_invalid_and_a_silent_server_is_timed_out() {
    let built = database();
    let gate = Arc::new(Gate::default());
    let held = gate.clone();
    let serving = serve_scripted(&built.db(), move || held.wait(Duration::from_secs(60)), None);
    let mut client = client(&built, serving.address, &serving.certificates.ca_pem);
    client.answer_timeout = 400 * MS;
    // Each thread makes one group at a time, the next when all of it is over: front-ends wait.
    let threads = std::thread::available_parallelism().unwrap().get();
    let (lag_max, memory_bytes, front_ends) = (100 * MS, 1, 2 * threads);
    let options = LoadOptions { lag_max, memory_bytes, front_ends, ..short() };
    let rate = Goal::Rate(200.0 * threads as f64);
    let report = load(client, options, rate, &mut |_| {}).await.unwrap();
    gate.open();
    let trial = &report.trials[0];
    let reason = trial.invalid.as_deref().unwrap();
    assert!(reason.contains("does not keep up") && !report.is_sound(), "{reason}");
    assert!(trial.late_share > 0.5 && !trial.within);
    let classes: Vec<&str> = trial.errors.keys().map(String::as_str).collect();
    let timed_out = classes.iter().any(|class| class.starts_with("time-out: no "));
    assert!(timed_out && classes.iter().any(|class| class.starts_with("not sent")), "{classes:?}");
    assert_eq!(trial.errors.values().sum::<u64>(), planned(&report));
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_answers_are_found() {
    let built = database();
    let spoiled = Arc::new(AtomicU64::new(0));
    let serving = serve_scripted(&built.db(), || {}, Some(spoiled.clone()));
    let report = run(&built, &serving, short(), 100.0).await;
    let verified = report.trials[0].verified;
    assert!(verified.wrong > 0 && verified.right > 0 && verified.skipped == 0);
    assert_eq!(verified.wrong, spoiled.load(Ordering::SeqCst));
    assert!(!report.is_sound() && report.trials[0].line().contains("WRONG"));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_encrypted_twice_and_every_record_is_right() {
    let built = database();
    let serving = serve(&built.db());
    let recorder = Recorder::start(serving.address, &serving.certificates);
    let records = Some(built.folder.path().join("records.jsonl"));
    let options = LoadOptions { records, batch: 2, ..short() };
    let client = client(&built, recorder.address, &serving.certificates.ca_pem);
    let report = load(client, options, Goal::Rate(200.0), &mut |_| {}).await.unwrap();
    let trial = &report.trials[0];
    assert!(trial.verified.right > 0 && report.is_sound(), "{}", trial.line());
    assert!(trial.errors.is_empty());

    let (mut bundles, mut queries) = (BTreeSet::new(), HashMap::new());
    for crossing in recorder.take() {
        match crossing.request.body.unwrap() {
            RequestBody::Parameters(request) if request.public_key.is_empty() => {}
            RequestBody::Parameters(request) => {
                assert!(bundles.insert(request.uid), "a bundle was sent twice");
            }
            RequestBody::Batch(batch) => {
                assert_eq!(batch.requests.len(), 2);
                for query in batch.requests {
                    let shards: &mut Vec<u32> = queries.entry(query.uid).or_default();
                    shards.push(query.shard);
                }
            }
            RequestBody::Hints(_) => {}
        }
    }
    let total: usize = queries.values().map(Vec::len).sum();
    assert!(total > 50 && queries.values().any(|shards| shards.len() > 1));
    for (uid, shards) in queries {
        assert!(bundles.contains(&uid) && shards.len() <= QUERIES_PER_SECRET_MAX);
        let distinct: BTreeSet<_> = shards.iter().collect();
        assert_eq!(distinct.len(), shards.len(), "a secret encrypted twice for one shard");
    }
}

/// The operator's endpoints of this server: where its metrics are.
async fn metrics(serving: &Serving) -> String {
    let listen = "127.0.0.1:0".parse().unwrap();
    let admin =
        Admin::bind(listen, AdminCallers::Loopback, serving.admin_state.clone()).await.unwrap();
    let url = format!("http://{}/metrics", admin.local_addr());
    tokio::spawn(admin.run());
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_is_asked_what_it_did_meanwhile() {
    let built = database();
    let (serving, other) = (serve(&built.db()), serve(&Built::new(&[record(1)], 1).db()));
    let asking = |url: &str| LoadOptions {
        arrivals: Arrivals::Constant,
        metrics: Some(Endpoint::parse(url).unwrap()),
        ..short()
    };
    let report = run(&built, &serving, asking(&metrics(&serving).await), 200.0).await;
    // What is written is what was measured.
    let mut json = Vec::new();
    report.write_json(&mut json).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!((&json["schema"], &json["seed"]), (&SCHEMA.into(), &7.into()));
    assert_eq!(json["server"]["shards"], SHARDS);
    let windows = json["trials"][0]["windows"].as_array().unwrap();
    let answered: u64 = windows.iter().map(|window| window["answered"].as_u64().unwrap()).sum();
    assert!(answered > 0 && answered == planned(&report));
    let trial = &report.trials[0];
    let server = trial.server.unwrap();
    // Asked somewhat before and after: what was planned at the edges may be in or out.
    assert!(server.seconds >= 0.9 * trial.seconds, "{server:?}");
    let (answers, passes) = (server.answers as f64, server.passes as f64);
    assert!(server.answers > 0 && server.answers <= serving.work.answered_by_processor.get());
    assert!((server.batch_mean * passes - answers).abs() <= 64.0, "{server:?}");
    assert!(server.batch_mean >= 1.0 && server.answer_ms > server.queue_ms, "{server:?}");
    assert!(server.scan_ms > 0.0 && server.pack_ms > 0.0 && server.cpu_seconds > 0.0);
    assert!(server.resident_memory_bytes > 1 << 20);
    assert!(trial.line().contains("queries a batch"), "{}", trial.line());

    let url = metrics(&other).await;
    let refused = async |options| {
        let client = client(&built, serving.address, &serving.certificates.ca_pem);
        let ended = load(client, options, Goal::Rate(1.0), &mut |_| {}).await;
        ended.err().unwrap().to_string()
    };
    let error = refused(asking(&url)).await;
    assert!(error.contains("--metrics") && error.contains("with 1 shards"), "{error}");
    let error = refused(asking(&url.replace("/metrics", "/nowhere"))).await;
    assert!(error.contains("found status 404, expected 200"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_that_finds_no_rate_says_so() {
    let built = database();
    let serving = serve(&built.db());
    let client = client(&built, serving.address, &serving.certificates.ca_pem);
    let options = LoadOptions { objective: Duration::ZERO, ..short() };
    let mut rates = Vec::new();
    let mut shown = |trial: &Trial| rates.push(trial.rate);
    let report = load(client, options, Goal::Limit(0.6), &mut shown).await.unwrap();
    // A busy machine may have failed at one, which is then tried again.
    rates.dedup();
    assert_eq!(rates, [0.6, 0.3, 0.15]);
    assert!(report.limit.is_none() && report.trials.iter().all(|trial| !trial.within));
}

#[tokio::test(flavor = "multi_thread")]
async fn options_that_cannot_work_are_refused() {
    let built = database();
    let nowhere = client(&built, ([127, 0, 0, 1], 1).into(), "");
    let wrong = [
        (LoadOptions { batch: 1_025, ..short() }, 1.0),
        (LoadOptions { front_ends: 0, ..short() }, 1.0),
        (LoadOptions { verify: f64::NAN, ..short() }, 1.0),
        (LoadOptions { window: Duration::ZERO, ..short() }, 1.0),
        (short(), 0.0),
        (short(), f64::INFINITY),
    ];
    for (options, rate) in wrong {
        let ended = load(nowhere.clone(), options, Goal::Rate(rate), &mut |_| {}).await;
        let error = ended.err().unwrap().to_string();
        assert!(error.contains("found") && error.contains("expected"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_runs_and_says_how_it_went_by_its_exit_code() {
    let built = database();
    let serving = serve(&built.db());
    let folder = built.folder.path();
    std::fs::write(folder.join("ca.pem"), &serving.certificates.ca_pem).unwrap();
    let json = folder.join("load.json");
    let program = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sotto-bench"));
        let server = format!("localhost:{}", serving.address.port());
        command.args(["load", "--server", &server]).arg("--ca").arg(folder.join("ca.pem"));
        command.arg("--operator-key").arg(built.operator_key_file());
        command.args(["--accept-shard-records", &CROWD.to_string()]).args(more);
        command.args(["--window", "100ms", "--time", "500ms", "--lag", "100s"]);
        let json = json.clone();
        async move {
            command.arg("--json").arg(json);
            let output = tokio::task::spawn_blocking(move || command.output().unwrap());
            let output = output.await.unwrap();
            let text = |bytes| String::from_utf8(bytes).unwrap();
            (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
        }
    };
    let (code, out, err) = program(&["--rate", "50", "--verify", "all", "--cpus", "0"]).await;
    assert_eq!((code, &*err), (0, ""), "{out}");
    assert!(out.contains("seed ") && out.contains("random absent keys"), "{out}");
    let written: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    assert!(
        written["command"].as_str().unwrap().contains("sotto-bench load "),
        "{}",
        written["command"]
    );
    let (code, out, err) = program(&[]).await;
    assert!(code == 2 && out.is_empty() && err.contains("--find-limit"), "{err}");
}
