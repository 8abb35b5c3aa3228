//! A log over real TLS and both databases: what it appends, refuses, publishes and survives.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use crate::https::Client;
use crate::registrar::postgres::{both, shared};
use crate::registrar::store::transaction;
use crate::server::certificates::{LocalCertificates, localhost_for};
use http::Method;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::check::{CheckError, Checked, Source, check};
use super::client::{
    AppendError, LogClient, QUEUE_MIGRATIONS, Waiting, enqueue, forget, submit_pending, waiting,
};
use super::tree::{self, Request};
use super::*;
use crate::discovery::log::entry::{Entry, Manifest, salted_hash};
use crate::discovery::log::{Checkpoint, LogError, Pinned, accept};
use crate::limits::log::BATCH_BYTES_MAX;

const NOW: u64 = 1_796_000_040;
const NAME: &str = "log.example/1";
const LONG: Duration = Duration::from_secs(60);
const DATABASE: &str = "eu1";

fn clock() -> Clock {
    Arc::new(|| NOW)
}

fn no_step(_: Step) {}

/// A folder with the files of a log, and the certificates of its two callers.
struct Files {
    folder: tempfile::TempDir,
    registrar: LocalCertificates,
    operator: LocalCertificates,
}

impl Files {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let registrar = localhost_for("registrar.example").unwrap();
        let operator = localhost_for("operator.example").unwrap();
        let write =
            |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("server.pem", &registrar.server_pem);
        write("server.key", &registrar.server_key);
        write("callers.pem", &[&registrar.ca_pem[..], &operator.ca_pem].concat());
        write(
            "callers.toml",
            "[callers.\"registrar.example\"]\nstatements = true\n\
             [callers.\"operator.example\"]\ndatabases = [\"eu1\"]\n",
        );
        crate::builder::keys::create(&folder.path().join("log.pem")).unwrap();
        Self { folder, registrar, operator }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn sqlite(&self) -> String {
        format!("sqlite:{}", self.path("log.sqlite").display())
    }

    fn client(&self, caller: Option<&LocalCertificates>) -> Client {
        let identity = caller.map(|made| (made.client_pem.as_bytes(), made.client_key.as_bytes()));
        Client::new(Some(self.registrar.ca_pem.as_bytes()), identity, LONG).unwrap()
    }

    fn key(&self) -> LogKey {
        let key = read_key(&self.path("log.pem")).unwrap();
        LogKey::new(NAME, &key.verifying_key().to_bytes()).unwrap()
    }

    /// Of the static files.
    fn source(&self) -> Source {
        Source::Folder(self.path("public"))
    }

    async fn check(&self) -> Result<Checked, CheckError> {
        check(&self.source(), &self.key(), &self.path("remembered.json")).await
    }
}

fn options(folder: &Path, store: &str, at_step: fn(Step)) -> Options {
    let path = |name: &str| folder.join(name);
    Options {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        tls: TlsFiles {
            cert: path("server.pem"),
            key: path("server.key"),
            client_ca: Some(path("callers.pem")),
        },
        name: NAME.into(),
        key: path("log.pem"),
        callers: path("callers.toml"),
        store: store.into(),
        connections: 4,
        folder: path("public"),
        publish_time: Duration::ZERO,
        bounds: Bounds {
            connections: 100,
            handshakes: 100,
            handshake_time: LONG,
            head_time: LONG,
            idle_time: LONG,
            body_time: LONG,
        },
        clock: clock(),
        at_step,
    }
}

/// A log that runs in this process.
struct Running {
    url: String,
    control: Control,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Running {
    async fn start(files: &Files, store: &str) -> Self {
        let log = LogServer::start(options(files.folder.path(), store, no_step)).await.unwrap();
        let url = format!("https://localhost:{}", log.local_addr().port());
        let control = log.control();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(log.run(async move { drop(stopped.await) }));
        Self { url, control, stop, task }
    }

    fn client(&self, files: &Files, caller: &LocalCertificates) -> LogClient {
        LogClient::new(files.client(Some(caller)), &self.url)
    }

    /// Ends it, after everything is published.
    async fn stop(self) {
        let _ = self.stop.send(());
        self.task.await.unwrap();
    }
}

/// The databases to test with.
fn stores(files: &Files) -> Vec<String> {
    let postgres = shared().map(|server| server.database());
    [files.sqlite()].into_iter().chain(postgres).collect()
}

fn statement(number: u64) -> Entry {
    Entry::Statement(salted_hash(&[1; 16], &number.to_be_bytes()))
}

fn digest(epoch: u64) -> [u8; 32] {
    [epoch as u8; 32]
}

fn manifest(epoch: u64) -> Manifest {
    Manifest { database: DATABASE.into(), epoch, digest: digest(epoch) }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_appended_is_published_and_proved() {
    // PostgreSQL has to outlive its databases.
    let _server = shared();
    let files = Files::new();
    for store in stores(&files) {
        let _ = std::fs::remove_dir_all(files.path("public"));
        let _ = std::fs::remove_file(files.path("remembered.json"));
        let log = Running::start(&files, &store).await;
        let registrar = log.client(&files, &files.registrar);
        let operator = log.client(&files, &files.operator);
        let entries: Vec<Entry> = (0..1_000).map(statement).collect();
        let places = registrar.append(&entries).await.unwrap();
        assert_eq!(places, (0..1_000).collect::<Vec<_>>());
        assert_eq!(operator.append_manifest(&manifest(4)).await.unwrap(), 1_000);
        // What is there keeps its place, alone and among others.
        let again = [statement(7), statement(1_000), statement(8), statement(1_000)];
        assert_eq!(registrar.append(&again).await.unwrap(), [7, 1_001, 8, 1_001]);
        assert_eq!(operator.append_manifest(&manifest(4)).await.unwrap(), 1_000);
        assert_eq!(operator.append_manifest(&manifest(6)).await.unwrap(), 1_002);
        log.stop().await;
        let checked = files.check().await.unwrap();
        let manifests = vec![(DATABASE.to_owned(), 4), (DATABASE.to_owned(), 6)];
        let expected = Checked { before: 0, size: 1_003, statements: 1_001, padding: 0, manifests };
        assert_eq!(checked, expected);
        // It goes on, and is served as it lies there.
        let log = Running::start(&files, &store).await;
        let registrar = log.client(&files, &files.registrar);
        assert_eq!(registrar.append(&[statement(9_999)]).await.unwrap(), [1_003]);
        let proofs = registrar.proofs(DATABASE, 6).await.unwrap();
        let shown = (6, &digest(6));
        let pinned = accept(None, &proofs, DATABASE, shown, &files.key()).unwrap();
        let first = registrar.proofs(DATABASE, 4).await.unwrap();
        let before = accept(None, &first, DATABASE, (4, &digest(4)), &files.key()).unwrap();
        let after = accept(Some(&before), &proofs, DATABASE, shown, &files.key()).unwrap();
        assert_eq!(pinned, after);
        let missing = registrar.proofs(DATABASE, 5).await.unwrap_err();
        assert!(matches!(missing, AppendError::NoProof), "{missing}");
        let source = Source::Web(files.client(None), log.url.clone());
        check(&source, &files.key(), &files.path("remembered.json")).await.unwrap();
        log.stop().await;
        let checked = files.check().await.unwrap();
        assert_eq!((checked.size, checked.manifests.len()), (1_004, 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_refused_by_name_and_counted() {
    let files = Files::new();
    let log = Running::start(&files, &files.sqlite()).await;
    let url = format!("{}/v1/entries", log.url);
    let post = async |caller: Option<&LocalCertificates>, key: &str, body: String| {
        let headers = [("content-type", "application/json"), ("idempotency-key", key)];
        let client = files.client(caller);
        let sent = client.send(Method::POST, &url, &headers, body.into(), 64 << 10).await;
        // A body that is too long may be refused, and its connection ended, while it is being sent.
        if matches!(&sent, Err(crate::https::HttpsError::Broken { .. })) {
            return (413, "too_long".to_owned());
        }
        let reply = sent.unwrap();
        let said: serde_json::Value = serde_json::from_slice(&reply.body).unwrap_or_default();
        (reply.status, said["code"].as_str().unwrap_or_default().to_owned())
    };
    let hash = "A".repeat(43);
    let one = format!(r#"{{"entries":[{{"statement":"{hash}"}}]}}"#);
    let of = |database: &str, epoch: u64, digest: &str| {
        let manifest =
            format!(r#"{{"database":"{database}","epoch":{epoch},"digest":"{digest}"}}"#);
        format!(r#"{{"entries":[{{"manifest":{manifest}}}]}}"#)
    };
    let (registrar, operator) = (Some(&files.registrar), Some(&files.operator));
    let many = vec![format!(r#"{{"statement":"{hash}"}}"#); 1_001].join(",");
    let cases = [
        (None, "a", one.clone(), 403, "caller"),
        (operator, "a", one.clone(), 403, "caller"),
        (registrar, "a", of("eu1", 4, &hash), 403, "caller"),
        (operator, "a", of("us1", 4, &hash), 403, "caller"),
        (registrar, "", one.clone(), 400, "malformed"),
        (registrar, "a", "{}".into(), 400, "malformed"),
        (registrar, "a", r#"{"entries":[]}"#.into(), 400, "malformed"),
        (registrar, "a", one.replace("AAA", "A"), 400, "malformed"),
        (operator, "a", of("../eu1", 4, &hash), 400, "malformed"),
        (operator, "a", of("eu1", u64::MAX, &hash), 400, "malformed"),
        (registrar, "a", format!(r#"{{"entries":[{many}]}}"#), 413, "too_long"),
        (registrar, "a", " ".repeat(BATCH_BYTES_MAX + 1), 413, "too_long"),
        (registrar, "a", one.clone(), 200, ""),
        (registrar, "a", one.clone(), 200, ""),
        (registrar, "a", one.replace('A', "E"), 422, "idempotency_key"),
        (operator, "a", of("eu1", 4, &hash), 200, ""),
        (operator, "b", of("eu1", 4, &hash.replace('A', "E")), 409, "other_manifest"),
        (operator, "c", of("eu1", 3, &hash), 409, "epoch_order"),
    ];
    for (caller, key, body, status, code) in cases {
        let shown = body.chars().take(80).collect::<String>();
        assert_eq!(post(caller, key, body).await, (status, code.to_owned()), "{shown}");
    }
    let samples = log.control.samples();
    let counted = |outcome: &str| {
        let label = ("outcome", outcome.to_owned());
        samples.iter().find(|sample| sample.labels.contains(&label)).unwrap().value
    };
    assert_eq!((counted("stored"), counted("caller"), counted("malformed")), (3., 4., 6.));
    // A caller that is removed is refused after the next reload, and a broken file changes nothing.
    std::fs::write(files.path("callers.toml"), "[callers").unwrap();
    assert!(log.control.reload().unwrap_err().contains("callers.toml"));
    assert_eq!(post(registrar, "d", one.clone()).await.0, 200);
    std::fs::write(files.path("callers.toml"), "").unwrap();
    log.control.reload().unwrap();
    assert_eq!(post(registrar, "d", one).await.0, 403);
    let get = async |path: &str| {
        let url = format!("{}/{path}", log.url);
        let client = files.client(None);
        client.send(Method::GET, &url, &[], Default::default(), 64 << 10).await.unwrap().status
    };
    for path in ["tile/0/000", "tile/0/..%2f..%2flog.pem", "v1/proofs/..%2f/1", "v1/proofs/eu1/04"]
    {
        assert_eq!(get(path).await, 404, "{path}");
    }
    log.stop().await;
    let checked = files.check().await.unwrap();
    assert_eq!((checked.size, checked.statements), (2, 1));
}

#[tokio::test]
async fn many_at_once_get_places_of_their_own() {
    both(MIGRATIONS, async |store: Store| {
        let mut tasks = tokio::task::JoinSet::new();
        for task in 0..20_u64 {
            let store = store.clone();
            tasks.spawn(async move {
                let entries: Vec<Entry> =
                    (0..30).map(|number| statement(task / 2 * 100 + number)).collect();
                let (caller, name) = ("registrar.example".to_owned(), task.to_string());
                let digest = tree::request_digest(&entries);
                let request = Request { caller, name, digest };
                tree::append(&store, request, entries, NOW).await.unwrap().places
            });
        }
        let mut places: Vec<u64> = tasks.join_all().await.concat();
        places.sort_unstable();
        // Each was sent by two.
        let expected: Vec<u64> = (0..300).flat_map(|place| [place, place]).collect();
        assert_eq!(places, expected);
        let mut db = store.pool().acquire().await.unwrap();
        let state = tree::state(&mut *db).await.unwrap();
        assert_eq!(state.size, 300);
        let entries = tree::entries(&mut db, 0, 300).await.unwrap();
        let mut tree = crate::discovery::log::tiles::Frontier::new(0, Default::default()).unwrap();
        entries.iter().for_each(|entry| drop(tree.push(crate::discovery::log::leaf_hash(entry))));
        assert_eq!(tree::frontier(&mut db, 300).await.unwrap(), tree);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_never_signs_two_trees_of_a_size() {
    let files = Files::new();
    let log = Running::start(&files, &files.sqlite()).await;
    let registrar = log.client(&files, &files.registrar);
    registrar.append(&[statement(1)]).await.unwrap();
    log.stop().await;
    let store = Store::open(&files.sqlite(), 1, MIGRATIONS).await.unwrap();
    let copy = files.path("backup.sqlite").display().to_string();
    sqlx::query("VACUUM INTO $1").bind(copy).execute(store.pool()).await.unwrap();
    drop(store);
    let log = Running::start(&files, &files.sqlite()).await;
    log.client(&files, &files.registrar).append(&[statement(2)]).await.unwrap();
    log.stop().await;
    let start = async |store: &str| {
        LogServer::start(options(files.folder.path(), store, no_step)).await.err()
    };
    // An older copy of the database.
    let backup = format!("sqlite:{}", files.path("backup.sqlite").display());
    let found = start(&backup).await;
    assert!(matches!(found, Some(ServeError::Behind { found: 1, signed: 2 })), "{found:?}");
    // One that went on from there with something else, before the folder was seen.
    let store = Store::open(&backup, 1, MIGRATIONS).await.unwrap();
    let entries = vec![statement(3)];
    let digest = tree::request_digest(&entries);
    let request = Request { caller: "registrar.example".into(), name: "x".into(), digest };
    tree::append(&store, request, entries, NOW).await.unwrap();
    drop(store);
    let found = start(&backup).await;
    assert!(matches!(found, Some(ServeError::Differs { size: 2 })), "{found:?}");
    // No other tree of a size is signed, nor a smaller one, nor one that is not stored.
    let store = Store::open(&files.sqlite(), 1, MIGRATIONS).await.unwrap();
    let signed = tree::sign(&store, 2, &[3; 32]).await.unwrap();
    assert!(!signed, "another tree of the size that was signed");
    assert!(!tree::sign(&store, 1, &[3; 32]).await.unwrap(), "a smaller one");
    assert!(!tree::sign(&store, 3, &[3; 32]).await.unwrap(), "one that is not stored");
    // The folder is lost, and the database has another tree than it signed.
    std::fs::remove_dir_all(files.path("public")).unwrap();
    transaction!(store, |db| {
        let update = sqlx::query("UPDATE log_state SET signed_root = $1");
        update.bind(tree::base64(&[3; 32])).execute(&mut *db).await?;
        Ok(())
    })
    .await
    .unwrap();
    drop(store);
    let found = start(&files.sqlite()).await;
    assert!(matches!(found, Some(ServeError::Differs { size: 2 })), "{found:?}");
    // A key that others may read.
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::Permissions::from_mode(0o640);
    std::fs::set_permissions(files.path("log.pem"), mode).unwrap();
    let found = start(&files.sqlite()).await.unwrap().to_string();
    assert!(found.contains("mode 640"), "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_files_are_written_again_where_they_are_lost() {
    let files = Files::new();
    let log = Running::start(&files, &files.sqlite()).await;
    let registrar = log.client(&files, &files.registrar);
    registrar.append(&(0..600).map(statement).collect::<Vec<_>>()).await.unwrap();
    log.stop().await;
    let read = || std::fs::read(files.path("public/checkpoint")).unwrap();
    let before = read();
    std::fs::remove_dir_all(files.path("public")).unwrap();
    Running::start(&files, &files.sqlite()).await.stop().await;
    assert_eq!(read(), before);
    assert_eq!(files.check().await.unwrap().size, 600);
    assert!(!files.path("public/tile/0/000.p").exists());
    assert!(files.path("public/tile/0/002.p/88").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_auditor_finds_forks_and_broken_files() {
    let (files, other) = (Files::new(), Files::new());
    std::fs::copy(files.path("log.pem"), other.path("log.pem")).unwrap();
    for (files, numbers) in [(&files, [1_u64, 2]), (&other, [1, 3])] {
        let log = Running::start(files, &files.sqlite()).await;
        let entries = numbers.map(statement);
        log.client(files, &files.registrar).append(&entries).await.unwrap();
        log.stop().await;
    }
    files.check().await.unwrap();
    // The same operator and key, another tree of the same size, then a larger one.
    let remembered = files.path("remembered.json");
    let kept = std::fs::read(&remembered).unwrap();
    for size in [2, 3] {
        let error = check(&other.source(), &files.key(), &remembered).await.unwrap_err();
        assert!(error.is_evidence(), "{error}");
        let CheckError::Fork { what, found, expected } = error else { panic!("{error}") };
        assert_eq!(what, LogError::Forked { size: 2 });
        let found = Checkpoint::open(found.as_bytes(), &files.key()).unwrap();
        let expected = Checkpoint::open(expected.as_bytes(), &files.key()).unwrap();
        assert_eq!((found.size, expected.size), (size, 2));
        assert_eq!(std::fs::read(&remembered).unwrap(), kept);
        let log = Running::start(&other, &other.sqlite()).await;
        log.client(&other, &other.registrar).append(&[statement(4)]).await.unwrap();
        log.stop().await;
    }
    // Files that are not what the checkpoint says prove nothing, and are an error.
    let log = Running::start(&files, &files.sqlite()).await;
    let more: Vec<Entry> = (10..300).map(statement).collect();
    log.client(&files, &files.registrar).append(&more).await.unwrap();
    log.stop().await;
    for path in ["tile/0/000", "tile/1/000.p/1", "tile/entries/000", "tile/entries/001.p/36"] {
        let file = files.path("public").join(path);
        let bytes = std::fs::read(&file).unwrap();
        for at in [0, bytes.len() / 2, bytes.len() - 1] {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            std::fs::write(&file, changed).unwrap();
            let error = files.check().await.unwrap_err();
            assert!(matches!(error, CheckError::Broken { .. }), "{path} {at}: {error}");
            assert!(!error.is_evidence());
        }
        std::fs::write(&file, &bytes).unwrap();
    }
    let checkpoint = files.path("public/checkpoint");
    let newest = std::fs::read(&checkpoint).unwrap();
    assert_eq!(files.check().await.unwrap().size, 292);
    let kept: serde_json::Value = serde_json::from_slice(&kept).unwrap();
    std::fs::write(&checkpoint, kept["checkpoint"].as_str().unwrap()).unwrap();
    let error = files.check().await.unwrap_err();
    assert!(matches!(error, CheckError::Older { found: 2, seen: 292 }), "{error}");
    std::fs::write(&checkpoint, newest).unwrap();
    assert_eq!(files.check().await.unwrap().statements, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_registrar_s_statements_get_to_the_log_once() {
    let files = Files::new();
    let log = Running::start(&files, &files.sqlite()).await;
    let registrar = log.client(&files, &files.registrar);
    both(QUEUE_MIGRATIONS, async |store: Store| {
        let add = async |jti: &str| {
            transaction!(store, |db| enqueue(db, jti, "header.claims.signature", NOW).await).await
        };
        let remove = async |jti: &str| {
            let jtis = [jti.to_owned(), "none".to_owned()];
            transaction!(store, |db| forget(db, &jtis).await).await.unwrap();
        };
        let rows = async || {
            let query = "SELECT jti, salt, place FROM log_statements ORDER BY jti";
            let rows = sqlx::query(query).fetch_all(store.pool()).await.unwrap();
            rows.len()
        };
        for jti in ["a", "b", "c"] {
            add(jti).await.unwrap();
        }
        // Refused by the log: they wait.
        let stranger = LogClient::new(files.client(None), &log.url);
        let error = submit_pending(&store, &stranger).await.unwrap_err();
        assert!(matches!(&error, AppendError::Refused { status: 403, code } if code == "caller"));
        // One is withdrawn on its way; its hash gets there all the same.
        remove("c").await;
        assert_eq!(rows().await, 3);
        let all = Waiting { count: 3, oldest: Some(NOW) };
        assert_eq!(waiting(&store).await.unwrap(), all);
        assert_eq!(submit_pending(&store, &registrar).await.unwrap(), 3);
        assert_eq!(rows().await, 2);
        assert_eq!(waiting(&store).await.unwrap(), Waiting::default());
        assert_eq!(submit_pending(&store, &registrar).await.unwrap(), 0);
        remove("a").await;
        assert_eq!(rows().await, 1);
        // As after a crash between the log's reply and this database.
        transaction!(store, |db| {
            sqlx::query("UPDATE log_statements SET place = NULL").execute(&mut *db).await?;
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(submit_pending(&store, &registrar).await.unwrap(), 1);
    })
    .await;
    let runs = if shared().is_some() { 2 } else { 1 };
    log.stop().await;
    assert_eq!(files.check().await.unwrap().statements, 3 * runs);
}

/// Set once the child listens: from then on it stops where it is told to.
static IS_ARMED: AtomicBool = AtomicBool::new(false);
const STEP_VARIABLE: &str = "SOTTO_LOG_TEST_STEP";
const FOLDER_VARIABLE: &str = "SOTTO_LOG_TEST_FOLDER";
const STORE_VARIABLE: &str = "SOTTO_LOG_TEST_STORE";

fn stop_there(step: Step) {
    let wanted = std::env::var(STEP_VARIABLE).unwrap();
    if IS_ARMED.load(Ordering::Acquire) && format!("{step:?}") == wanted {
        println!("\nat {step:?}");
        loop {
            std::thread::park();
        }
    }
}

/// The process that is killed, if the test below runs it; it does nothing otherwise.
#[tokio::test(flavor = "multi_thread")]
async fn child() {
    let Some(folder) = std::env::var_os(FOLDER_VARIABLE).map(PathBuf::from) else { return };
    let store = std::env::var(STORE_VARIABLE).unwrap();
    let log = LogServer::start(options(&folder, &store, stop_there)).await.unwrap();
    IS_ARMED.store(true, Ordering::Release);
    println!("\nlistening on {}", log.local_addr().port());
    log.run(std::future::pending()).await;
}

/// A process that is killed when it is dropped.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the child, and waits for its port.
fn spawn_child(
    files: &Files,
    store: &str,
    step: Step,
) -> (Killed, impl Iterator<Item = String> + use<>, u16) {
    let (_, module) = module_path!().split_once("::").unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", &format!("{module}::child"), "--nocapture"]);
    command.env(STEP_VARIABLE, format!("{step:?}")).env(STORE_VARIABLE, store);
    command.env(FOLDER_VARIABLE, files.folder.path()).stdout(Stdio::piped());
    let mut child = Killed(command.spawn().unwrap());
    let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines().map_while(Result::ok);
    let port = lines.find_map(|line| line.strip_prefix("listening on ")?.parse().ok());
    (child, lines, port.expect("the child ended"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_killed_at_any_step_goes_on_without_a_fork() {
    let server = shared();
    let steps = [
        Step::Asked,
        Step::Stored,
        Step::TilesWritten,
        Step::SignatureNoted,
        Step::CheckpointWritten,
        Step::ProofWritten,
        Step::ProofKept,
    ];
    let stores = |files: &Files| {
        let postgres = server.as_ref().map(|server| server.database());
        [files.sqlite()].into_iter().chain(postgres).collect::<Vec<_>>()
    };
    for postgres in [false, true] {
        let files = Files::new();
        let Some(store) = stores(&files).into_iter().nth(usize::from(postgres)) else { continue };
        // Whoever may append statements may append this manifest too.
        let both = "[callers.\"registrar.example\"]\nstatements = true\ndatabases = [\"eu1\"]\n";
        std::fs::write(files.path("callers.toml"), both).unwrap();
        let mut pinned: Option<Pinned> = None;
        for (round, step) in steps.into_iter().enumerate() {
            let (first, epoch) = (round as u64 * 100, round as u64 + 1);
            let mut entries: Vec<Entry> = (first..first + 90).map(statement).collect();
            entries.push(Entry::Manifest(manifest(epoch)));
            let (child, mut lines, port) = spawn_child(&files, &store, step);
            let url = format!("https://localhost:{port}");
            let client = LogClient::new(files.client(Some(&files.registrar)), &url);
            let asked = {
                let entries = entries.clone();
                tokio::spawn(async move { client.append(&entries).await })
            };
            let wanted = format!("at {step:?}");
            let (lines, found) = tokio::task::spawn_blocking(move || {
                let found = lines.any(|line| line == wanted);
                (lines, found)
            })
            .await
            .unwrap();
            assert!(found, "{step:?} was not reached");
            drop((child, lines));
            let acknowledged = asked.await.unwrap().ok();
            // What is public is whole whenever it is looked at.
            files.check().await.unwrap();
            let log = Running::start(&files, &store).await;
            let client = log.client(&files, &files.registrar);
            let places = client.append(&entries).await.unwrap();
            assert_eq!(places, (first / 100 * 91..first / 100 * 91 + 91).collect::<Vec<_>>());
            assert!(acknowledged.is_none_or(|before| before == places), "{step:?}");
            log.stop().await;
            files.check().await.unwrap();
            let file = std::fs::read(files.path(&format!("public/v1/proofs/eu1/{epoch}"))).unwrap();
            let shown = (epoch, &digest(epoch));
            let accepted = accept(pinned.as_ref(), &file, DATABASE, shown, &files.key());
            pinned = Some(accepted.unwrap());
        }
        assert_eq!(pinned.unwrap().size, 7 * 91);
    }
}
