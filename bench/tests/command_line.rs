//! The command line of `sotto-bench`: what it writes and its exit codes do not depend on who reads
//! what it prints, no option starts more than a machine bears, and a server that dies while it is
//! measured shows in what is printed.

#![allow(clippy::unwrap_used)]

#[path = "../../tests/harness/mod.rs"]
mod harness;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use harness::program::{Background, KNOWN, Made, To, ends, program_as, run};

/// `sotto-bench` without what this process has in its environment for it.
fn bench(arguments: &[&str]) -> Command {
    program_as(env!("CARGO_BIN_EXE_sotto-bench"), arguments)
}

/// A folder of records and a scenario.
fn recorded() -> (String, String) {
    let root = env!("CARGO_MANIFEST_DIR");
    let record = format!("{root}/record/2026-11-28-amd-epyc-2-cores");
    (record, format!("{root}/scenarios/small.toml"))
}

#[test]
fn what_is_asked_for_ends_quietly_without_a_reader_and_with_an_error_on_a_full_disk() {
    let (record, scenario) = recorded();
    let commands: [&[&str]; 2] =
        [&["plan", "--scenario", &scenario, "--record", &record], &["--help"]];
    for arguments in commands {
        let (code, error) = ends(&mut bench(arguments), To::Closed);
        assert!(code == 0 && !error.contains("standard output"), "{arguments:?}: {code}, {error}");
        let (code, error) = ends(&mut bench(arguments), To::Full);
        assert_eq!(code, 2, "{arguments:?}: {error}");
        assert!(error.contains("error: cannot write to standard output"), "{arguments:?}: {error}");
    }
}

#[test]
fn the_exit_code_of_a_comparison_stays() {
    let folder = tempfile::tempdir().unwrap();
    let record = |best: f64| {
        let source = "record/2026-11-28-amd-epyc-2-cores/build-small.json";
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(source);
        let mut record: serde_json::Value =
            serde_json::from_str(&fs::read_to_string(source).unwrap()).unwrap();
        for number in ["best", "q1", "median", "q3"] {
            record["seconds"][number] = best.into();
        }
        let path = folder.path().join(format!("{best}.json"));
        fs::write(&path, record.to_string()).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (fast, slow) = (record(50.0), record(500.0));
    for to in To::BOTH {
        let compare = ["compare", &fast, &slow];
        let (code, error) = ends(&mut bench(&compare), to);
        assert_eq!(code, 1, "{to:?}: {error}");
    }
}

#[test]
fn files_are_whole_whoever_reads_the_text_beside_them() {
    let folder = tempfile::tempdir().unwrap();
    let text = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (record, scenario) = recorded();
    let plan = ["plan", "--scenario", &scenario, "--record", &record];
    let whole = text("whole.html");
    assert_eq!(run(&mut bench(&[&plan[..], &["--html", &whole]].concat())).0, 0);
    for (to, expected) in To::BOTH.into_iter().zip([0, 2]) {
        let (page, json) = (text(&format!("{to:?}.html")), text(&format!("{to:?}.json")));
        let files = ["--html", &page, "--json", &json];
        assert_eq!(ends(&mut bench(&[&plan[..], &files].concat()), to).0, expected);
        assert_eq!(fs::read(&page).unwrap().len(), fs::read(&whole).unwrap().len());
        assert!(serde_json::from_slice::<serde_json::Value>(&fs::read(&json).unwrap()).is_ok());
        let page = text(&format!("report {to:?}.html"));
        let report = ["report", "--record", &record, "--out", &page];
        let (code, error) = ends(&mut bench(&report), to);
        assert_eq!(code, 0, "{error}");
        assert!(fs::metadata(&page).unwrap().len() > 0);
        let json = text(&format!("build {to:?}.json"));
        let build = ["build", "--records", "300", "--runs", "1", "--json", &json];
        let (code, error) = ends(&mut bench(&build), to);
        assert_eq!(code, 0, "{error}");
        assert!(serde_json::from_slice::<serde_json::Value>(&fs::read(&json).unwrap()).is_ok());
    }
}

#[test]
fn a_load_generator_whose_table_nobody_reads_writes_its_files() {
    let made = Made::new();
    let serving = serving(&made);
    let json = made.text("load.json");
    let mut load = load(&made, &serving, &["--rate", "20", "--time", "1s", "--window", "200ms"]);
    let (_, error) = ends(load.args(["--json", &json]), To::Closed);
    assert!(fs::read_to_string(&json).is_ok_and(|text| text.ends_with("}\n")), "{error}");
}

/// A server that answers.
fn serving(made: &Made) -> Background {
    let serving = Background::start(made, &[], Stdio::null());
    let mut tries = (0..20).map(|_| run(&mut serving.lookup(made, &[KNOWN.0])).0);
    assert!(tries.any(|code| code == 0));
    serving
}

/// The generator for it.
fn load(made: &Made, serving: &Background, arguments: &[&str]) -> Command {
    let mut load = bench(&["load", "--warm-up", "0s", "--accept-shard-records", "1"]);
    load.args(arguments).arg("--server").arg(format!("localhost:{}", serving.port()));
    load.arg("--ca").arg(made.path("certs/ca.pem"));
    load.arg("--operator-key").arg(made.path("db/operator.pub"));
    load
}

#[test]
fn numbers_are_bounded_before_anything_is_done() {
    let huge = u64::MAX.to_string();
    let options: [(&[&str], &[&str]); 2] = [
        (
            &["build"],
            &["records=0", "shards=0", "shards=65001", "runs=0", "runs=1001", "threads=1025"],
        ),
        (&["kernel"], &["records=0", "packs=0", "pack-rows=3", "value-bytes=0"]),
    ];
    for (command, wrong) in options {
        for option in wrong {
            let name = option.split('=').next().unwrap();
            for flag in [format!("--{option}"), format!("--{name}={huge}{huge}")] {
                let (code, out, err) = run(bench(command).arg(&flag));
                assert_eq!((code, &*out), (2, ""), "{command:?} {flag}: {err}");
                assert!(err.contains(&format!("--{name}")), "{command:?} {flag}: {err}");
            }
        }
    }
}

#[test]
fn a_load_run_whose_server_dies_is_invalid_in_its_line() {
    let made = Made::new();
    // On a busy machine the generator may not be connected yet when the server dies.
    let (line, rest, status, err) = std::iter::repeat_with(|| load_until_the_server_dies(&made))
        .take(10)
        .find(|(line, _, _, err)| line.is_some() || !err.contains("no connection"))
        .expect("a run that began");
    let line = line.unwrap_or_else(|| panic!("no line of a run: {rest:?} {err}"));
    assert!(line.contains("INVALID") && !line.contains("within"), "{line}");
    assert!(rest.iter().any(|line| line.contains("the server said nothing")), "{rest:?}");
    assert_eq!(status, Some(1), "{err}");
}

/// The line of its run if there is one, what follows it, the exit code and what it complains of.
fn load_until_the_server_dies(made: &Made) -> (Option<String>, Vec<String>, Option<i32>, String) {
    let mut serving = serving(made);
    let timing = ["--rate", "50", "--time", "3s", "--window", "500ms", "--lag", "1s"];
    let mut load = load(made, &serving, &timing)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(load.stdout.take().unwrap()).lines().map(Result::unwrap);
    // Its heading is there: it is connected, or about to be.
    assert!(lines.any(|line| line.contains("offered")));
    assert_eq!(run(&mut serving.lookup(made, &[KNOWN.0])).0, 0);
    serving.kill();
    let line = lines.find(|line| line.contains("50.0"));
    let rest = lines.collect();
    let ended = load.wait_with_output().unwrap();
    (line, rest, ended.status.code(), String::from_utf8(ended.stderr).unwrap())
}
