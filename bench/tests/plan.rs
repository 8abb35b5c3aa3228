//! `sotto-bench plan` as it is run: a scenario and a record to text, JSON and a page; and what it
//! says when something is missing.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use sotto_bench::plan::Plan;
use sotto_bench::record::Machine;

fn plan(folder: &Path, arguments: &[&str]) -> Output {
    let scenario = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios/small.toml");
    Command::new(env!("CARGO_BIN_EXE_sotto-bench"))
        .current_dir(folder)
        .args(["plan", "--scenario", scenario.to_str().unwrap()])
        .args(arguments)
        .output()
        .unwrap()
}

#[test]
fn a_plan_is_printed_and_written() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    // Nothing was measured here.
    let none = plan(folder, &[]);
    let error = String::from_utf8(none.stderr).unwrap();
    assert_eq!(none.status.code(), Some(2));
    assert!(error.contains("run `sotto-bench kernel` first"), "{error}");
    // Now it was, where records lie: a record as if it were of this machine.
    let of = "record/2026-11-28-amd-epyc-2-cores/kernel.json";
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(of)).unwrap();
    let mut record: serde_json::Value = serde_json::from_str(&text).unwrap();
    record["machine"] = serde_json::to_value(Machine::here()).unwrap();
    let records = folder.join("bench/record/some");
    fs::create_dir_all(&records).unwrap();
    fs::write(records.join("kernel.json"), record.to_string()).unwrap();
    let found = plan(folder, &["--json", "plan.json", "--html", "plan.html"]);
    let text = String::from_utf8(found.stdout).unwrap();
    assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stderr));
    for part in ["small: ", "hosts that each resource takes", "some/kernel.json", "not measured"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let json = fs::read_to_string(folder.join("plan.json")).unwrap();
    let written: Plan = serde_json::from_str(&json).unwrap();
    assert_eq!((written.shapes.len(), written.records.len()), (2, 1));
    assert_eq!(written.shapes[0].cpu.hosts.value, 1.0);
    let page = fs::read_to_string(folder.join("plan.html")).unwrap();
    assert!(page.starts_with("<!DOCTYPE html>") && page.contains(&written.scenario.about));
    let named = plan(folder, &["--record", "bench/record", "--all"]);
    let every = String::from_utf8(named.stdout).unwrap();
    assert!(every.len() > text.len() && named.status.success(), "{every}");
    // Prices that are none.
    fs::write(folder.join("prices.toml"), "currency = 1").unwrap();
    let wrong = plan(folder, &["--prices", "prices.toml"]);
    let error = String::from_utf8(wrong.stderr).unwrap();
    assert!(wrong.status.code() == Some(2) && error.contains("prices.toml"), "{error}");
}
