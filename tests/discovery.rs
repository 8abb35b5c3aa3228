//! Discovery as programs: the worked example of docs/records.md, samples, runs that are killed.

#![allow(clippy::unwrap_used)]

mod harness;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use harness::program::{program, run, sotto};
use harness::until;
use sotto::discovery::blind::BlindKey;
use sotto::discovery::directory::{Directory, Pins};
use sotto::discovery::identifier::{Identifier, Region};
use sotto::discovery::open::open_sealed;

/// The blocks of shell commands of a section of a page.
fn shell_blocks(page: &str, section: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(page);
    let text = fs::read_to_string(path).unwrap();
    let (_, rest) = text.split_once(&format!("\n## {section}\n")).unwrap();
    let section = rest.split("\n## ").next().unwrap();
    let blocks = section.split("```sh\n").skip(1);
    blocks.map(|block| block.split("```").next().unwrap().to_owned()).collect()
}

/// Runs commands as a reader would, in a folder; what they print.
fn shell(folder: &Path, commands: &str) -> String {
    let programs = Path::new(&program()).parent().unwrap().to_owned();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let mut bash = Command::new("bash");
    bash.args(["-e", "-o", "pipefail", "-c", commands]).current_dir(folder).env("PATH", path);
    let (code, out, err) = run(&mut bash);
    assert_eq!(code, 0, "{commands}\n{out}{err}");
    out
}

fn unix_time() -> u64 {
    std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs()
}

#[test]
fn the_worked_example_of_the_page_leads_to_a_contact() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let blocks = shell_blocks("records.md", "A worked example");
    let [keys, directory, statements, records, ..] = &blocks[..] else { panic!("{blocks:?}") };
    let printed = shell(path, keys);
    let printed: Vec<&str> = printed.lines().collect();
    let [root, operator, record, issuer, _alice, blinding] = printed[..] else {
        panic!("{printed:?}")
    };
    let directory = [
        ("ROOT_KEY", root),
        ("OPERATOR_KEY", operator),
        ("RECORD_KEY", record),
        ("ISSUER_KEY", issuer),
        ("BLINDING_KEY", blinding),
    ]
    .iter()
    .fold(directory.clone(), |text, (name, key)| text.replace(name, key));
    shell(path, &directory);
    let said = shell(path, statements);
    assert!(said.contains("tel:+4930901820"), "show prints the claims: {said}");
    // Up to the server, which other tests start.
    let (made, _) = records.split_once("sotto serve").unwrap();
    shell(path, made);
    assert!(path.join("db/manifest.json").exists());

    let csv = fs::read_to_string(path.join("records.csv")).unwrap();
    let (key, value) = csv.lines().nth(1).unwrap().split_once(',').unwrap();
    let value = value.strip_prefix("base64:").unwrap();
    let value = base64_of(value);
    let pins = Pins::from_json(&fs::read(path.join("pins.json")).unwrap()).unwrap();
    let file = fs::read(path.join("directory.json")).unwrap();
    let directory = Directory::open(&file, &pins, unix_time()).unwrap();
    let sii = Identifier::parse("030 901820", Some(Region::DE)).unwrap();
    let derived = BlindKey::read(&path.join("blind.key")).unwrap().derive(&sii);
    assert_eq!(derived.lookup_key(), key);
    let contact = open_sealed(&sii, &derived, &value, &directory, unix_time()).unwrap();
    let ssi = contact.services[0].ssi.as_ref().unwrap();
    assert_eq!(ssi.as_str(), "mimi://a.example/u/alice");
}

fn base64_of(text: &str) -> Vec<u8> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text).unwrap()
}

/// Makes a sample of statements, sealed if there is a key.
fn sample(folder: &Path, statements: &str, now: &str) {
    let blind = folder.join("blind.key");
    let blind = blind.to_str().unwrap();
    assert_eq!(run(&mut sotto(&["records", "blind-key", blind])).0, 0);
    let out = folder.join("sample");
    let made = ["sample", "--statements", statements, "--now", now, "--blind", blind, "--out"];
    let (code, said, err) = run(sotto(&made).arg(&out));
    assert_eq!(code, 0, "{said}{err}");
}

fn make(folder: &Path, now: &str, out: &str) -> Command {
    let of = |name: &str| folder.join("sample").join(name).to_str().unwrap().to_owned();
    let mut command = sotto(&["records", "make", "--database", "sample", "--now", now]);
    command.args(["--directory", &of("directory.json"), "--pins", &of("pins.json")]);
    command.args(["--record-key", &of("record.pem"), "--blind"]).arg(folder.join("blind.key"));
    command.arg("--out").arg(folder.join(format!("{out}.csv")));
    command.arg("--report").arg(folder.join(format!("{out}.jsonl")));
    command.args(["--filter-epoch", "1", "--filter-key", &of("operator.pem"), "--filter"]);
    command.arg(folder.join(format!("{out}.filter")));
    command.args([of("statements.jsonl"), of("batch-1.jsonl"), of("batch-2.jsonl")]);
    command
}

/// Names of the files in a folder that may not be there yet.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().into_string().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_killed_at_any_moment_goes_on_to_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let now = (unix_time() / 60 * 60).to_string();
    sample(path, "20000", &now);
    let work = path.join("blind.key.work");
    // Moments are states of the work folder: what has to be there before the process is killed.
    let run_has = |mark: &str| {
        fs::read_to_string(work.join("run.json")).is_ok_and(|text| text.contains(mark))
    };
    let moments: [(&str, &dyn Fn() -> bool); 5] = [
        ("begun", &|| run_has("arguments")),
        ("a bucket has rows", &|| !names(&work.join("buckets")).is_empty()),
        ("every statement is checked", &|| run_has("accepted")),
        ("a minute is taken", &|| names(&work).contains(&"state.json".to_owned())),
        ("a part is finished", &|| !names(&work.join("parts")).is_empty()),
    ];
    let mut killed = 0;
    for (_, holds) in moments {
        let mut command = make(path, &now, "killed");
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let child = std::cell::RefCell::new(&mut child);
        let has_ended = || child.borrow_mut().try_wait().unwrap().is_some();
        until("the moment", || holds() || has_ended()).await;
        killed += u32::from(!has_ended());
        child.borrow_mut().kill().unwrap();
        child.borrow_mut().wait().unwrap();
    }
    assert!(killed >= 3, "most runs are killed before their end, found {killed}");
    assert_eq!(run(&mut make(path, &now, "killed")).0, 0);
    // Once more from the beginning, without what the other runs left.
    fs::rename(&work, path.join("other.work")).unwrap();
    let (code, said, err) = run(&mut make(path, &now, "whole"));
    assert_eq!(code, 0, "{said}{err}");
    for end in ["csv", "jsonl", "filter"] {
        let [whole, killed] =
            ["whole", "killed"].map(|name| fs::read(path.join(format!("{name}.{end}"))).unwrap());
        assert!(!whole.is_empty());
        assert!(whole == killed, "{end} differs");
    }
}

#[test]
fn a_minute_seals_one_set_of_records() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let now = (unix_time() / 60 * 60).to_string();
    sample(path, "1000", &now);
    assert_eq!(run(&mut make(path, &now, "records")).0, 0);
    let first = fs::read(path.join("records.csv")).unwrap();
    // The same input gives the same bytes.
    assert_eq!(run(&mut make(path, &now, "records")).0, 0);
    assert!(fs::read(path.join("records.csv")).unwrap() == first);
    // One statement less.
    let file = path.join("sample/statements.jsonl");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.split_once('\n').unwrap().1).unwrap();
    let (code, _, err) = run(&mut make(path, &now, "records"));
    assert_eq!(code, 2);
    assert!(err.contains("wait a minute"), "{err}");
    assert!(fs::read(path.join("records.csv")).unwrap() == first, "what was there stays");
}

#[test]
fn an_older_directory_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let now = (unix_time() / 60 * 60).to_string();
    sample(path, "100", &now);
    let of = |name: &str| path.join("sample").join(name).to_str().unwrap().to_owned();
    let pins = fs::read_to_string(of("pins.json")).unwrap();
    let pins: serde_json::Value = serde_json::from_str(&pins).unwrap();
    let mut newer = pins.clone();
    newer["version"] = 2.into();
    newer["digest"] = pins["roots"][0].clone(); // any 32 bytes
    fs::write(of("pins.json"), newer.to_string()).unwrap();
    let (code, _, err) = run(&mut make(path, &now, "records"));
    assert_eq!(code, 2);
    assert!(err.contains("version 1") && err.contains("version 2"), "{err}");
}
