//! `sotto lookup` and `sotto demo` as programs: output, exit codes, nothing left behind.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use sotto::server::certificates::{LocalCertificates, localhost};
use sotto::shard::Database;

use super::harness::program::{run_beside, sotto};
use super::harness::{Built, CROWD, Setting, known};
use super::records;

struct Served {
    built: Built,
    server: String,
    ca: std::path::PathBuf,
}

/// Writes ca.pem, client.pem and client.key.
fn served(setting: Setting) -> Served {
    let built = Built::new(&records(), 3);
    let serving = setting.serve(&built.db());
    let LocalCertificates { ca_pem, client_pem, client_key, .. } = &serving.certificates;
    for (name, pem) in [("ca.pem", ca_pem), ("client.pem", client_pem), ("client.key", client_key)]
    {
        std::fs::write(built.path(name), pem).unwrap();
    }
    let (server, ca) = (format!("localhost:{}", serving.address.port()), built.path("ca.pem"));
    Served { built, server, ca }
}

impl Served {
    /// `sotto lookup` with everything it needs to work.
    fn lookup(&self, more: &[&str]) -> Command {
        let mut command = self.lookup_unpinned(more);
        command.arg("--operator-key").arg(self.built.operator_key_file());
        command
    }

    fn lookup_unpinned(&self, more: &[&str]) -> Command {
        let mut command = sotto(&["lookup", "--server", &self.server]);
        command.arg("--ca").arg(&self.ca);
        command.args(["--accept-shard-records", &CROWD.to_string()]).args(more);
        command
    }
}

/// Runs a command that fails, prints nothing and says why.
async fn fails(command: Command, said: &str) {
    let (code, out, err) = run_beside(command).await;
    assert_eq!((code, &*out), (2, ""), "{said}: {err}");
    assert!(err.contains("error: ") && err.contains(said), "{said}: {err}");
}

/// Runs a command that succeeds and says nothing.
async fn succeeds(command: Command) -> String {
    let (code, out, err) = run_beside(command).await;
    assert_eq!((code, &*err), (0, ""), "{out}");
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn lookup_prints_what_it_finds_and_says_it_by_its_exit_code() {
    let served = served(Setting::default());
    let out = succeeds(served.lookup(&["+15550100007", "empty", "bytes"])).await;
    assert_eq!(out, "+15550100007\tvalue 7\nempty\t\nbytes\tbase64:/wCAAA==\n");
    let (code, out, _) = run_beside(served.lookup(&["nobody", "longest"])).await;
    assert_eq!((code, out), (1, format!("nobody\tnot found\nlongest\t{}\n", "x".repeat(23))));
    let (code, out, _) = run_beside(served.lookup(&["--json", "nobody", "empty", "bytes"])).await;
    let lines: Vec<serde_json::Value> =
        out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let expected = serde_json::json!([
        { "key": "nobody", "found": false },
        { "key": "empty", "found": true, "value": "" },
        { "key": "bytes", "found": true, "value": "base64:/wCAAA==" },
    ]);
    assert_eq!((code, serde_json::Value::from(lines)), (1, expected));

    let keys = served.built.path("keys.txt");
    std::fs::write(&keys, "+15550100001\r\n\n+15550100002").unwrap();
    let keys = keys.to_str().unwrap();
    let out = succeeds(served.lookup(&["--keys-from", keys, "+15550100000"])).await;
    assert_eq!(out, "+15550100000\tvalue 0\n+15550100001\tvalue 1\n+15550100002\tvalue 2\n");
    std::fs::write(keys, "\u{feff}+15550100001\n").unwrap();
    let out = succeeds(served.lookup(&["--keys-from", keys])).await;
    assert_eq!(out, "+15550100001\tvalue 1\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn lookup_says_whom_it_believes() {
    let served = served(Setting::default());
    let (code, _, err) = run_beside(served.lookup_unpinned(&["empty"])).await;
    let key = served.built.operator_key();
    assert_eq!(code, 0);
    for said in [key.to_string(), key.fingerprint()] {
        assert_eq!(err.matches(&said).count(), 1, "{err}");
    }
    assert!(err.contains("--operator-key"), "{err}");
    // What it says to pin can be pinned.
    let pinned = served.built.path("pinned");
    std::fs::write(&pinned, key.to_string()).unwrap();
    for pin in [pinned.to_str().unwrap(), &key.to_string()] {
        succeeds(served.lookup_unpinned(&["--operator-key", pin, "empty"])).await;
    }
}

/// The value of a field of a file of pins.
fn pinned(file: &Path, field: &str) -> serde_json::Value {
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    json.pointer(field).unwrap_or_else(|| panic!("{field} of {json}")).clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn lookup_keeps_pins_between_runs_and_refuses_what_goes_back() {
    let served = served(Setting::default());
    let folder = served.built.folder.path();
    let state = folder.join("state");
    let with_state = |mut command: Command| {
        command.env("XDG_STATE_HOME", &state);
        command
    };
    // By operator, by server, not at all, or where the user says.
    let (code, _, err) = run_beside(with_state(served.lookup(&["--no-pins", "empty"]))).await;
    assert!(code == 0 && !state.exists(), "{err}");
    succeeds(with_state(served.lookup(&["empty"]))).await;
    let by_operator = format!("operator-{}.json", served.built.operator_key());
    let by_server = format!("server-{}.json", served.server.replace(':', "_"));
    let (code, _, err) = run_beside(with_state(served.lookup_unpinned(&["empty"]))).await;
    assert!(code == 0 && err.contains("believed on first use"), "{err}");
    succeeds(with_state(served.lookup_unpinned(&["empty"]))).await; // the second use is no first
    for name in [by_operator, by_server] {
        let file = state.join("sotto/pins").join(&name);
        assert_eq!(pinned(&file, "/seen/epoch"), 1, "{name}");
    }
    let file = folder.join("pins.json");
    let pins = ["--pins", file.to_str().unwrap(), "empty"];
    succeeds(served.lookup(&pins)).await;
    let expected = Database::open(&served.built.db()).unwrap();
    assert_eq!(pinned(&file, "/database"), expected.manifest().database);
    assert_eq!(pinned(&file, "/seen/shard_count"), 3);
    // What a later session saw: this server is behind, or another.
    let good = std::fs::read_to_string(&file).unwrap();
    let seed = pinned(&file, "/seen/seed");
    let changes = [
        ("\"epoch\": 1", "\"epoch\": 2", "expected 2 or newer"),
        ("\"shard_count\": 3", "\"shard_count\": 4", "has 3 shards, expected 4"),
        ("\"database\": \"main\"", "\"database\": \"mails\"", "called main, expected mails"),
        (seed.as_str().unwrap(), &"07".repeat(32), "another seed than before"),
        ("\"version\": 1", "\"version\": 9", "version 9, expected 1"),
        ("{", "", "cannot be used"),
    ];
    for (what, with, said) in changes {
        let changed = good.replacen(what, with, 1);
        assert_ne!(changed, good);
        std::fs::write(&file, &changed).unwrap();
        fails(served.lookup(&pins), said).await;
        assert_eq!(std::fs::read_to_string(&file).unwrap(), changed, "{said}");
    }
    // Where it cannot be written the user hears of it, and is served if the file was not named.
    let missing = folder.join("pins.json/below");
    let pins = ["--pins", missing.to_str().unwrap(), "empty"];
    fails(served.lookup(&pins), "--no-pins").await;
    let mut command = served.lookup(&["empty"]);
    command.env("XDG_STATE_HOME", "/proc/sotto");
    let (code, _, err) = run_beside(command).await;
    assert!(code == 0 && err.contains("cannot write pins to /proc/sotto"), "{err}");
    // A name that the user gave is the one that counts.
    let mails = served.lookup(&["--database", "mails", "empty"]);
    fails(mails, "called main, expected mails").await;
    succeeds(served.lookup(&["--database", "main", "empty"])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lookup_explains_what_is_wrong_and_ends_with_2() {
    let served = served(Setting::default());
    let [other, missing] = ["other", "missing"].map(|name| served.built.path(name));
    std::fs::write(&other, "00".repeat(32)).unwrap();
    let [other, missing, ca] = [&other, &missing, &served.ca].map(|path| path.to_str().unwrap());
    let cases: [(Command, &str); 7] = [
        (served.lookup_unpinned(&["--operator-key", other, "k"]), "expected the pinned"),
        (served.lookup_unpinned(&["--operator-key", missing, "k"]), missing),
        (served.lookup_unpinned(&["--operator-key", ca, "k"]), "operator key"),
        (served.lookup(&[]), "no key to look up"),
        (served.lookup(&["empty", ""]), "found an empty key"),
        (served.lookup(&["--keys-from", missing]), missing),
        (served.lookup(&["--server-name", "elsewhere", "k"]), "no connection to"),
    ];
    for (command, said) in cases {
        fails(command, said).await;
    }
    let stranger = localhost().unwrap().ca_pem;
    for wrong in ["", &stranger] {
        let file = served.built.path("wrong-ca.pem");
        std::fs::write(&file, wrong).unwrap();
        let mut command = sotto(&["lookup", "--server", &served.server, "k", "--ca"]);
        command.arg(&file);
        fails(command, file.to_str().unwrap()).await;
    }
    for said in ["--accept-shard-records", "64000"] {
        fails(sotto(&["lookup", "--server", &served.server, "--ca", ca, "k"]), said).await;
    }
}

const SMALL: [&str; 4] = ["--records", "2000", "--shards", "4"];

fn demo(temporary: &Path, more: &[&str]) -> Command {
    let mut command = sotto(&["demo"]);
    command.env("TMPDIR", temporary).args(more);
    // A layer of Mesa's Vulkan loader complains on standard error where there is no display.
    command.env("NODEVICE_SELECT", "1");
    command
}

fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder).unwrap().next().is_none()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_checks_every_answer_and_leaves_nothing() {
    let temporary = tempfile::tempdir().unwrap();
    let out = succeeds(demo(temporary.path(), &SMALL)).await;
    assert!(out.contains("every one is right"), "{out}");
    assert!(out.lines().all(|line| line.chars().count() <= 80), "{out}");
    assert!(is_empty(temporary.path()));

    let kept = temporary.path().join("kept");
    let keep = [&SMALL[..], &["--keep", kept.to_str().unwrap()]].concat();
    let (code, out, _) = run_beside(demo(temporary.path(), &keep)).await;
    assert_eq!(code, 0, "{out}");
    assert!(kept.join("db/operator.pub").exists() && kept.join("ca.pem").exists());
    fails(demo(temporary.path(), &keep), "expected a new folder").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_of_discovery_finds_each_contact_as_its_story_says() {
    let temporary = tempfile::tempdir().unwrap();
    let small = ["--discovery", "--records", "300", "--shards", "2"];
    let out = succeeds(demo(temporary.path(), &small)).await;
    assert!(out.contains("All 8 contacts are as their stories say"), "{out}");
    for refused in ["new_holder", "out_of_remit", "preference_taken", "user_forged", "withdrawn"] {
        assert!(out.contains(refused), "{refused}: {out}");
    }
    assert!(out.contains("boris@xn--bcher-kva.example"), "{out}");
    assert!(is_empty(temporary.path()));
}

#[cfg(feature = "front-end")]
#[tokio::test(flavor = "multi_thread")]
async fn the_federated_demo_finds_who_is_at_which_provider() {
    let temporary = tempfile::tempdir().unwrap();
    let out = succeeds(demo(temporary.path(), &["--federated", "--records", "400"])).await;
    assert!(out.contains("All 7 contacts are as their stories say"), "{out}");
    for said in ["asked aero and brook, found mimi://brook.example/u/boris, verified", "refused:"] {
        assert!(out.contains(said), "{said}: {out}");
    }
    assert!(is_empty(temporary.path()));
}

#[test]
fn an_interrupted_demo_leaves_nothing() {
    let temporary = tempfile::tempdir().unwrap();
    let mut command = demo(temporary.path(), &["--records", "300000", "--shards", "100"]);
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    // The sample is made and the build begins.
    lines.find(|line| line.as_ref().unwrap().contains("1. The sample")).unwrap().unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let rest: Vec<_> = lines.map(Result::unwrap).collect();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{rest:?}");
    assert!(is_empty(temporary.path()));
}

#[tokio::test(flavor = "multi_thread")]
async fn lookup_shows_who_it_is_where_that_is_asked() {
    let certificates = localhost().unwrap();
    let callers = known(&certificates.ca_pem, None);
    let served = served(Setting { certificates, callers, ..Setting::default() });
    let [cert, key] = ["client.pem", "client.key"].map(|name| served.built.path(name));
    let (cert, key) = (cert.to_str().unwrap(), key.to_str().unwrap());
    let known = ["+15550100007", "--client-cert", cert, "--client-key", key];
    assert_eq!(succeeds(served.lookup(&known)).await, "+15550100007\tvalue 7\n");
    fails(served.lookup(&known[..3]), "--client-key").await;
    fails(served.lookup(&known[..1]), "certificate").await;
}
