//! `sotto store` against an S3 server (moto), as operators run it: pushed, announced by two,
//! fetched by a process that is killed, spoiled, collected.
//!
//! moto is a package of Python: SOTTO_TEST_PYTHON is an interpreter that has it. In CI
//! (SOTTO_TEST_SERVICES) there has to be one; elsewhere the tests are skipped with a line.

#![allow(clippy::unwrap_used)]

mod harness;

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use harness::Built;
use harness::program::{program_as, sotto};
use sotto::shard::manifest::{MANIFEST_NAME, SHARDS_DIR};
use sotto::shard::verify::verify;
use sotto::shard::{Database, Manifest};

/// A running moto.
struct Moto {
    child: Child,
    url: String,
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Moto {
    /// `None` where there is none.
    fn start() -> Option<Self> {
        let Some(python) = std::env::var_os("SOTTO_TEST_PYTHON") else {
            assert!(std::env::var_os("SOTTO_TEST_SERVICES").is_none(), "no SOTTO_TEST_PYTHON");
            harness::skip("SOTTO_TEST_PYTHON names no Python with moto");
            return None;
        };
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new(python);
        command.args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port.to_string()]);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let moto = Self { child, url: format!("http://127.0.0.1:{port}") };
        let answers =
            || moto.curl(&["-X", "PUT", &format!("{}/bucket", moto.url)]).status.success();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(harness::until("moto answers", answers));
        Some(moto)
    }

    fn curl(&self, arguments: &[&str]) -> Output {
        let mut command = program_as("curl", &["--silent", "--show-error", "--fail"]);
        let signed = ["--user", "nobody:nothing", "--aws-sigv4", "aws:amz:us-east-1:s3"];
        command.args(["--max-time", "10"]).args(signed).args(arguments).output().unwrap()
    }

    fn sotto(&self, arguments: &[&str]) -> Command {
        let mut command = sotto(arguments);
        command
            .env("AWS_ENDPOINT_URL", &self.url)
            .env("AWS_ALLOW_HTTP", "true")
            .env("AWS_ACCESS_KEY_ID", "nobody")
            .env("AWS_SECRET_ACCESS_KEY", "nothing")
            .env("AWS_REGION", "us-east-1");
        command
    }

    fn run(&self, arguments: &[&str]) -> String {
        let done = self.sotto(arguments).output().unwrap();
        assert!(done.status.success(), "{arguments:?}: {}", said(&done));
        String::from_utf8(done.stdout).unwrap()
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn pause(milliseconds: u64) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async { tokio::time::sleep(Duration::from_millis(milliseconds)).await });
}

const STORE: &str = "s3://bucket/people";

fn records(count: usize, what: &str) -> Vec<(String, Vec<u8>)> {
    (0..count).map(|i| (format!("key{i}"), format!("{what}{i}").into_bytes())).collect()
}

fn built() -> (Built, String) {
    let built = Built::new(&records(2_000, "a"), 8);
    let db = built.db().to_str().unwrap().to_owned();
    (built, db)
}

fn manifest(built: &Built) -> Manifest {
    Manifest::read(&built.db().join(MANIFEST_NAME)).unwrap()
}

#[test]
fn a_database_goes_through_s3_and_comes_out_whole() {
    let Some(moto) = Moto::start() else { return };
    let (built, db) = built();
    let push = || moto.run(&["store", "push", "--db", &db, "--store", STORE]);
    assert!(push().contains("of which 8 files"));
    assert!(push().contains("of which 0 files (0 B) were uploaded"), "{}", push());

    // Two announce at the same time.
    let announce = ["store", "announce", "--store", STORE, "--epoch", "1"];
    let start = || moto.sotto(&announce).stdout(Stdio::piped()).spawn().unwrap();
    let both = [start(), start()].map(|child| child.wait_with_output().unwrap().stdout);
    let texts = both.map(|text| String::from_utf8(text).unwrap());
    let ones = texts.iter().filter(|text| text.contains("epoch 1 announced")).count();
    assert_eq!(ones, 1, "{texts:?}");
    assert!(texts.iter().any(|text| text.contains("was announced before")), "{texts:?}");

    // A fetch that is killed again and again, and then goes on to its end.
    let copy = built.path("copy").to_str().unwrap().to_owned();
    let key = built.db().join("operator.pub").to_str().unwrap().to_owned();
    let fetch = ["store", "fetch", "--store", STORE, "--db", &copy, "--operator-key", &key];
    for round in 0..12u64 {
        let mut killed = moto.sotto(&fetch).stdout(Stdio::null()).spawn().unwrap();
        pause(20 + 10 * round);
        let _ = killed.kill();
        killed.wait().unwrap();
        if let Ok(opened) = Database::open(&built.path("copy")) {
            assert!(verify(&opened, &|_| ()).is_empty(), "round {round}");
        }
    }
    moto.run(&fetch);
    let opened = Database::open(&built.path("copy")).unwrap();
    assert!(verify(&opened, &|_| ()).is_empty());
    assert!(moto.run(&fetch).contains("epoch 1; 0 files"));

    // The next epoch is staged before it is announced. A rotten object of it is refused.
    built.build(&records(2_000, "b"), 8);
    push();
    let next = manifest(&built);
    let object = format!("{}/bucket/people/{SHARDS_DIR}/{}", moto.url, next.shards[3].file);
    let file = built.db().join(SHARDS_DIR).join(&next.shards[3].file);
    let mut rotten = fs::read(&file).unwrap();
    let middle = rotten.len() / 2;
    rotten[middle] ^= 1;
    let spoiled: PathBuf = built.path("rotten");
    fs::write(&spoiled, &rotten).unwrap();
    let put = |path: &PathBuf| {
        let upload = moto.curl(&["-T", path.to_str().unwrap(), &object]);
        assert!(upload.status.success(), "{}", said(&upload));
    };
    put(&spoiled);
    let refused = moto.sotto(&fetch).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(said(&refused).contains("is not what its operator signed"), "{}", said(&refused));
    assert!(!built.path("copy").join(SHARDS_DIR).join(&next.shards[3].file).exists());
    put(&file);
    assert!(moto.run(&fetch).contains("epoch 1, epoch 2 is staged"));
    assert_eq!(Database::open(&built.path("copy")).unwrap().epoch(), 1);
    moto.run(&["store", "announce", "--store", STORE, "--epoch", "2"]);
    moto.run(&fetch);
    assert_eq!(Database::open(&built.path("copy")).unwrap().epoch(), 2);

    // What no kept epoch names goes, once it is old enough.
    let gc = |older: &str| {
        let keep = ["store", "gc", "--store", STORE, "--keep-epochs", "1", "--older-than", older];
        moto.run(&keep)
    };
    assert!(gc("24h").contains("removed 0 manifests and 0 files"));
    pause(1_100); // S3 knows seconds
    assert!(gc("0s").contains("removed 1 manifest and 8 files"));
    assert!(moto.run(&fetch).contains("epoch 2; 0 files"));
    let older = moto.sotto(&announce).output().unwrap();
    assert!(said(&older).contains("no manifest of epoch 1"), "{}", said(&older));
}

#[test]
fn a_store_that_is_away_or_refuses_is_named() {
    let Some(moto) = Moto::start() else { return };
    let (_built, db) = built();
    let none = moto.sotto(&["store", "push", "--db", &db, "--store", "s3://none/x"]).output();
    let none = none.unwrap();
    assert_eq!(none.status.code(), Some(2));
    assert!(said(&none).contains("in the store"), "{}", said(&none));
    assert!(!said(&none).contains("nothing"), "{}", said(&none)); // the secret of the environment
    let empty = moto.sotto(&["store", "announce", "--store", STORE, "--epoch", "1"]).output();
    assert!(said(&empty.unwrap()).contains("the store has no manifest"));
}
