//! Copies of a small database from a web server that breaks in every way.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;
use std::{fs, io};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use hyper::body::{Body as HttpBody, Frame};
use tokio::net::TcpListener;

use super::*;
use crate::builder::{self, BuildOptions, Input, Silent};
use crate::client::OperatorKey;
use crate::https::{Bounds, Server, TlsFiles};
use crate::shard::header::file_bytes;
use crate::shard::manifest::{MANIFEST_NAME, MANIFEST_PREVIOUS_NAME, SHARDS_DIR};
use crate::shard::verify::verify;
use crate::shard::{Database, HEADER_BYTES};
use crate::wire::SigningKey;

const LONG: Duration = Duration::from_secs(60);
const SHARDS: u32 = 3;

/// What the web server does wrong with one request of a shard file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Nothing,
    /// The connection breaks after so many bytes.
    Cut(usize),
    Status(u16),
    /// A bit of this byte is another.
    Flip(usize),
    /// It sends the whole file, whatever part was asked for.
    NoRanges,
    /// It sends a part that was not asked for.
    OtherRange,
    /// Of another length.
    Long,
}

struct Site {
    root: PathBuf,
    /// Of the next requests of shard files, in order; the last one of all that follow.
    faults: Mutex<VecDeque<Fault>>,
    /// Of shard files: the range asked for, and the status.
    log: Mutex<Vec<(Option<u64>, u16)>>,
}

/// A body that breaks at its end, after what was before it was sent.
enum Cut {
    All(Bytes),
    Sent,
    End,
}

impl HttpBody for Cut {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        match std::mem::replace(&mut *self, Self::End) {
            Self::All(bytes) => {
                *self = Self::Sent;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Self::Sent => {
                context.waker().wake_by_ref();
                Poll::Pending
            }
            Self::End => Poll::Ready(Some(Err(axum::Error::new(io::Error::other("cut"))))),
        }
    }
}

async fn answer(State(site): State<Arc<Site>>, request: Request) -> Response {
    let name = request.uri().path().trim_start_matches("/db/").to_owned();
    let is_shard = name.starts_with(SHARDS_DIR);
    let header = request.headers().get("range").map(|value| value.to_str().unwrap());
    let from = header.map(|value| {
        let number = value.strip_prefix("bytes=").and_then(|rest| rest.strip_suffix('-'));
        number.unwrap().parse::<u64>().unwrap()
    });
    let mut faults = site.faults.lock().unwrap();
    let fault = match faults.len() {
        _ if !is_shard => Fault::Nothing,
        0 => Fault::Nothing,
        1 => faults[0],
        _ => faults.pop_front().unwrap(),
    };
    drop(faults);
    let response = respond(&site.root.join(name), from, fault);
    if is_shard {
        site.log.lock().unwrap().push((from, response.status().as_u16()));
    }
    response
}

fn respond(path: &Path, from: Option<u64>, fault: Fault) -> Response {
    if let Fault::Status(status) = fault {
        return StatusCode::from_u16(status).unwrap().into_response();
    }
    let Ok(mut bytes) = fs::read(path) else { return StatusCode::NOT_FOUND.into_response() };
    let total = bytes.len();
    if let Fault::Flip(at) = fault {
        bytes[at] ^= 1;
    }
    let from = if fault == Fault::NoRanges { None } else { from };
    let mut response = Response::builder();
    if let Some(from) = from {
        bytes.drain(..from as usize);
        let from = if fault == Fault::OtherRange { from + 1 } else { from };
        let range = format!("bytes {from}-{}/{total}", total - 1);
        response = response.status(206).header("content-range", range);
    }
    if fault == Fault::Long {
        bytes.push(0);
    }
    response = response.header("content-length", bytes.len());
    let body = match fault {
        Fault::Cut(after) => {
            bytes.truncate(after);
            Body::new(Cut::All(bytes.into()))
        }
        _ => bytes.into(),
    };
    response.body(body).unwrap()
}

/// A database in one folder, a web server of it, and a folder for copies.
struct World {
    folder: tempfile::TempDir,
    site: Arc<Site>,
    address: SocketAddr,
    client: Client,
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        build(folder.path(), 1);
        let root = folder.path().join("db");
        let site = Arc::new(Site { root, faults: Mutex::default(), log: Mutex::default() });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(answer).with_state(site.clone());
        tokio::spawn(async { axum::serve(listener, router).await.unwrap() });
        let client = Client::with_plain(None, LONG).unwrap();
        Self { folder, site, address, client }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn manifest(&self) -> Manifest {
        Manifest::read(&self.path("db").join(MANIFEST_NAME)).unwrap()
    }

    fn options(&self) -> Options {
        Options {
            url: format!("http://{}/db/", self.address),
            db: self.path("copy"),
            operator_key: OperatorKey(self.manifest().operator_key.0),
            bytes_per_second: None,
        }
    }

    async fn pull(&self) -> Result<Pulled, PullError> {
        let now = self.manifest().created;
        pull(&self.client, &self.options(), now, &|_| ()).await
    }

    /// Of the next requests of shard files.
    fn faults(&self, faults: impl IntoIterator<Item = Fault>) {
        *self.site.faults.lock().unwrap() = faults.into_iter().collect();
        self.site.log.lock().unwrap().clear();
    }

    /// What shard files were asked for since `faults`.
    fn log(&self) -> Vec<(Option<u64>, u16)> {
        self.site.log.lock().unwrap().clone()
    }

    /// An error unless the copy is the database, every byte, and nothing else.
    fn check_copy(&self) {
        let copy = Database::open(&self.path("copy")).unwrap();
        assert_eq!(*copy.manifest(), self.manifest());
        let problems = verify(&copy, &|_| ());
        assert!(problems.is_empty(), "{problems:?}");
        let read = |folder: &str| fs::read(self.path(folder).join("operator.pub")).unwrap();
        assert_eq!(read("copy"), read("db"));
    }

    fn copied(&self) -> Vec<String> {
        let names = fs::read_dir(self.path("copy").join(SHARDS_DIR)).unwrap();
        let name = |file: io::Result<fs::DirEntry>| file.unwrap().file_name().into_string();
        let mut names: Vec<String> = names.map(|file| name(file).unwrap()).collect();
        names.sort();
        names
    }

    /// Begins a copy with so many bytes of its first shard, as a broken connection leaves them.
    fn leave_part(&self, bytes: usize) {
        let entry = &self.manifest().shards[0];
        let whole = fs::read(self.path("db").join(SHARDS_DIR).join(&entry.file)).unwrap();
        let folder = self.path("copy").join(SHARDS_DIR);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(format!("{}.part", entry.file)), &whole[..bytes]).unwrap();
    }

    fn file_bytes(&self) -> u64 {
        file_bytes(&self.manifest().shape())
    }
}

/// Builds the database of a folder, or its next epoch: in each the first record's value differs.
fn build(folder: &Path, epoch: u64) {
    let record = |index: u64| {
        let value = if index == 0 { epoch } else { index };
        format!("{{\"sii\":\"key{index}\",\"value\":\"value {value}\"}}\n")
    };
    let text: String = (0..240).map(record).collect();
    fs::write(folder.join("records.jsonl"), text).unwrap();
    let options = BuildOptions {
        shards: Some(SHARDS),
        value_bytes: Some(24),
        jobs: Some(2),
        ..BuildOptions::new(Input::File(folder.join("records.jsonl")), folder.join("db"))
    };
    builder::run(&options, &Silent).unwrap_or_else(|error| panic!("{error}"));
}

#[tokio::test]
async fn a_copy_is_the_database_and_then_only_what_changed_comes() {
    let world = World::new().await;
    let pulled = world.pull().await.unwrap();
    let bytes = u64::from(SHARDS) * world.file_bytes();
    let expected = Pulled { epoch: 1, shards: SHARDS, files: 3, bytes, removed: 0, restart: false };
    assert_eq!(pulled, expected);
    world.check_copy();
    world.faults([]);
    assert_eq!(world.pull().await.unwrap(), Pulled { files: 0, bytes: 0, ..expected });
    assert_eq!(world.log(), []);
    // One record of one shard.
    build(world.folder.path(), 2);
    let pulled = world.pull().await.unwrap();
    let bytes = world.file_bytes();
    assert_eq!(pulled, Pulled { epoch: 2, files: 1, bytes, ..expected });
    world.check_copy();
    let previous = Manifest::read(&world.path("copy").join(MANIFEST_PREVIOUS_NAME)).unwrap();
    assert_eq!((previous.epoch, world.copied().len()), (1, 4));
    // What only the epoch before the last one names goes.
    fs::write(world.path("copy/shards/notes.txt"), "mine").unwrap();
    build(world.folder.path(), 3);
    let pulled = world.pull().await.unwrap();
    assert_eq!(pulled, Pulled { epoch: 3, files: 1, bytes, removed: 1, ..expected });
    world.check_copy();
    assert_eq!(world.copied().len(), 5);
}

#[tokio::test]
async fn a_file_that_is_gone_or_no_shard_is_replaced() {
    let world = World::new().await;
    world.pull().await.unwrap();
    let names = world.copied();
    let shards = world.path("copy").join(SHARDS_DIR);
    fs::remove_file(shards.join(&names[0])).unwrap();
    fs::rename(shards.join(&names[1]), shards.join(&names[2])).unwrap();
    let pulled = world.pull().await.unwrap();
    assert_eq!(pulled.files, 3);
    world.check_copy();
}

#[tokio::test]
async fn what_came_before_a_connection_broke_is_not_asked_for_again() {
    let world = World::new().await;
    let whole = world.file_bytes();
    let cuts = [10_000, 1, 20_000, 0, 5_000].map(Fault::Cut);
    world.faults(cuts.into_iter().chain([Fault::Nothing]));
    let pulled = world.pull().await.unwrap();
    assert_eq!(pulled.bytes, u64::from(SHARDS) * whole);
    world.check_copy();
    let log = world.log();
    assert!(log.iter().any(|(from, status)| from.is_some() && *status == 206), "{log:?}");
    assert_eq!(log.len(), 3 + 5);
    // The same of a source that knows no ranges.
    fs::remove_dir_all(world.path("copy")).unwrap();
    world.leave_part(10_000);
    world.faults([Fault::NoRanges]);
    world.pull().await.unwrap();
    world.check_copy();
    assert!(world.log().contains(&(Some(10_000), 200)));
}

#[tokio::test]
async fn a_run_that_was_killed_is_gone_on_with() {
    let world = World::new().await;
    let (options, now) = (world.options(), world.manifest().created);
    let whole = u64::from(SHARDS) * world.file_bytes();
    let mut came = 0;
    // Each run is dropped when some more bytes have come, and has nothing cleaned up.
    for round in 1.. {
        assert!(round < 100, "no run brings more: {came} of {whole}");
        let got = AtomicU64::new(0);
        let enough = tokio::sync::Notify::new();
        let told = |step| {
            if let Step::Got(bytes) = step
                && got.fetch_add(bytes, Ordering::Relaxed) + bytes >= whole / 5
            {
                enough.notify_one();
            }
        };
        let ended = tokio::select! {
            biased;
            () = enough.notified() => None,
            pulled = pull(&world.client, &options, now, &told) => Some(pulled.unwrap()),
        };
        came += got.load(Ordering::Relaxed);
        match ended {
            None => assert!(!world.path("copy").join(MANIFEST_NAME).exists()),
            Some(_) => break,
        }
    }
    assert_eq!(came, whole);
    world.check_copy();
    assert!(world.copied().iter().all(|name| name.ends_with(".shard")));
}

#[tokio::test]
async fn damage_on_the_way_is_noticed_and_repaired_once() {
    let world = World::new().await;
    let last = world.file_bytes() as usize - 1;
    for at in [0, 100, HEADER_BYTES - 1, HEADER_BYTES, last / 2, last] {
        world.faults([Fault::Flip(at), Fault::Nothing]);
        assert!(world.pull().await.unwrap().bytes > 0);
        world.check_copy();
        world.faults([Fault::Flip(at)]);
        fs::remove_dir_all(world.path("copy")).unwrap();
        let error = world.pull().await.unwrap_err();
        assert!(matches!(error, PullError::Damaged { .. }), "{at}: {error}");
        assert!(!world.path("copy").join(MANIFEST_NAME).exists());
        assert!(world.copied().iter().all(|name| name.ends_with(".part")));
    }
    // What a killed run left on a failing disk.
    world.faults([Fault::Nothing]);
    let entry = &world.manifest().shards[1];
    let part = world.path("copy/shards").join(format!("{}.part", entry.file));
    for bytes in [1, 5_000, last, last + 1, last + 2] {
        fs::remove_dir_all(world.path("copy")).unwrap();
        fs::create_dir_all(part.parent().unwrap()).unwrap();
        fs::write(&part, vec![9; bytes]).unwrap();
        world.pull().await.unwrap();
        world.check_copy();
    }
}

#[tokio::test]
async fn a_source_that_is_away_for_a_while_is_waited_for_and_not_for_ever() {
    let world = World::new().await;
    world.faults([503, 429, 500, 408].map(Fault::Status).into_iter().chain([Fault::Nothing]));
    world.pull().await.unwrap();
    world.check_copy();
    fs::remove_dir_all(world.path("copy")).unwrap();
    for (fault, tries) in [(Fault::Status(503), true), (Fault::Status(403), false)] {
        world.faults([fault]);
        let error = world.pull().await.unwrap_err();
        assert!(matches!(error, PullError::Status { .. }), "{error}");
        assert_eq!(world.log().len() >= limits::PULL_ATTEMPTS_MAX as usize, tries, "{error}");
    }
    world.faults([Fault::Cut(0)]);
    assert!(matches!(world.pull().await, Err(PullError::Http(_))));
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let options = Options { url: format!("http://{nobody}"), ..world.options() };
    let error = pull(&world.client, &options, 0, &|_| ()).await.unwrap_err();
    assert!(matches!(error, PullError::Http(crate::https::HttpsError::Connect { .. })), "{error}");
}

#[tokio::test]
async fn another_length_or_part_is_refused() {
    let world = World::new().await;
    world.faults([Fault::Long]);
    let error = world.pull().await.unwrap_err();
    assert!(matches!(error, PullError::Length { .. }), "{error}");
    world.leave_part(10_000);
    world.faults([Fault::OtherRange]);
    let error = world.pull().await.unwrap_err();
    assert!(matches!(error, PullError::Range { .. }), "{error}");
    world.faults([Fault::Nothing]);
    world.pull().await.unwrap();
    world.check_copy();
}

#[tokio::test]
async fn only_the_operators_newest_manifest_is_taken() {
    let world = World::new().await;
    let source = world.path("db").join(MANIFEST_NAME);
    let first = fs::read(&source).unwrap();
    let options = world.options();
    let now = world.manifest().created;
    let refused = async |options: &Options, now| {
        pull(&world.client, options, now, &|_| ()).await.unwrap_err()
    };
    let other = Options { operator_key: OperatorKey([1; 32]), ..options.clone() };
    assert!(matches!(refused(&other, now).await, PullError::Operator { .. }));
    let expires = world.manifest().expires;
    assert!(matches!(refused(&options, expires + 1).await, PullError::Lifetime(_)));
    assert!(matches!(refused(&options, 0).await, PullError::Lifetime(_)));
    let url = format!("{}?a", options.url);
    assert!(matches!(
        refused(&Options { url, ..options.clone() }, now).await,
        PullError::Url { .. }
    ));
    assert_eq!(world.log(), []);
    build(world.folder.path(), 2);
    world.pull().await.unwrap();
    let newest = fs::read(&source).unwrap();
    fs::write(&source, &first).unwrap();
    let error = refused(&options, now).await;
    assert!(matches!(error, PullError::Older { found: 1, held: 2 }), "{error}");
    // The same epoch with other content, which the operator's key signed.
    let key_file = builder::keys::default_path(&world.path("db"));
    let key = builder::keys::load(&key_file).unwrap().unwrap();
    let second = Manifest::parse(&newest).unwrap();
    let mut head = second.head();
    head.lifetime.expires += 1;
    let sign = |key: &SigningKey, head: &crate::shard::manifest::ManifestHead| {
        let manifest = Manifest::sign(head, second.shards.clone(), key).unwrap();
        fs::write(&source, manifest.to_json()).unwrap();
    };
    sign(&key, &head);
    assert!(matches!(refused(&options, now).await, PullError::Forked { epoch: 2 }));
    head.epoch = 3;
    head.database = "other".into();
    sign(&key, &head);
    assert!(matches!(refused(&options, now).await, PullError::Other { what: "name" }));
    sign(&SigningKey::from_bytes(&[5; 32]), &second.head());
    assert!(matches!(refused(&options, now).await, PullError::Operator { .. }));
    fs::write(&source, &newest[..newest.len() / 2]).unwrap();
    assert!(matches!(refused(&options, now).await, PullError::Manifest(_)));
    fs::write(&source, &newest).unwrap();
    world.pull().await.unwrap();
    world.check_copy();
    fs::write(world.path("copy").join(MANIFEST_NAME), "damaged").unwrap();
    assert!(matches!(refused(&options, now).await, PullError::Held(_)));
}

#[tokio::test]
async fn a_source_that_goes_on_to_another_epoch_is_followed() {
    let world = World::new().await;
    let (options, now) = (world.options(), world.manifest().created);
    // As soon as the first run knows what is missing, the source has another epoch alone.
    let told = |step| {
        if let Step::Missing { files: 3, .. } = step
            && world.manifest().epoch == 1
        {
            let files: Vec<String> =
                world.manifest().shards.iter().map(|entry| entry.file.clone()).collect();
            build(world.folder.path(), 2);
            fs::remove_file(world.path("db").join(MANIFEST_PREVIOUS_NAME)).unwrap();
            let named = |file: &String| world.manifest().shards.iter().any(|e| e.file == *file);
            for file in files.iter().filter(|file| !named(file)) {
                fs::remove_file(world.path("db").join(SHARDS_DIR).join(file)).unwrap();
            }
        }
    };
    assert_eq!(pull(&world.client, &options, now + 60, &told).await.unwrap().epoch, 2);
    world.check_copy();
    // A file that is gone while the epoch is the same is an error.
    fs::remove_dir_all(world.path("copy")).unwrap();
    world.faults([Fault::Status(404)]);
    let error = world.pull().await.unwrap_err();
    assert!(matches!(error, PullError::Status { status: 404, .. }), "{error}");
}

#[tokio::test]
async fn two_runs_do_not_write_to_one_folder() {
    let world = World::new().await;
    let _one = Folder::enter(&world.path("copy")).unwrap();
    let error = world.pull().await.unwrap_err();
    assert!(matches!(error, PullError::Busy { .. }), "{error}");
}

#[tokio::test]
async fn a_source_with_tls_is_believed_by_its_certificate() {
    let world = World::new().await;
    let made = crate::server::certificates::localhost().unwrap();
    let (cert, key) = (world.path("cert.pem"), world.path("key.pem"));
    fs::write(&cert, &made.server_pem).unwrap();
    fs::write(&key, &made.server_key).unwrap();
    let bounds = Bounds {
        connections: 10,
        handshakes: 10,
        handshake_time: LONG,
        head_time: LONG,
        idle_time: LONG,
        body_time: LONG,
    };
    let files = TlsFiles { cert, key, client_ca: None };
    let server = Server::bind("127.0.0.1:0".parse().unwrap(), &files, bounds).await.unwrap();
    let url = format!("https://localhost:{}/db", server.local_addr().port());
    let router = Router::new().fallback(answer).with_state(world.site.clone());
    tokio::spawn(server.run(router, std::future::pending()));
    let client = Client::new(Some(made.ca_pem.as_bytes()), None, LONG).unwrap();
    let options = Options { url, ..world.options() };
    world.faults([Fault::Cut(30_000), Fault::Nothing]);
    pull(&client, &options, world.manifest().created, &|_| ()).await.unwrap();
    world.check_copy();
}
