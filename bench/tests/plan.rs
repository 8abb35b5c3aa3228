//! `sotto-bench plan` as it is run: a scenario and a record to text, JSON and a page; and what it
//! says when something is missing.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::json;
use sotto::params::Shape;
use sotto_bench::plan::Plan;
use sotto_bench::record::{Head, KERNEL_SCHEMA, ShapeFacts};

/// A record with made-up numbers.
fn fixture() -> serde_json::Value {
    let answer = |batch: usize, ms: f64| {
        json!({
            "engine": "avx512", "threads": 2, "batch": batch,
            "ms_per_query": { "best": ms, "q1": ms, "median": ms, "q3": ms, "runs": 5 },
            "scan_ms": ms, "pack_ms": 0.0, "prepare_ms": 0.0, "finish_ms": 0.0, "other_ms": 0.0,
            "floor_ms": null, "whole_share": null, "scan_share": null, "pack_share": null,
            "times_reading": 1.0,
        })
    };
    let mut record = json!({
        "effort": "quick", "pinned_to": [0, 1],
        "shape": ShapeFacts::of(&Shape::new(120, 2048, 4, 17_280).unwrap()),
        "floors": {
            "read": [{ "threads": 2, "ms": 2.6, "gb_per_s": 93.0, "how": "made up" }],
            "peaks_g_per_s": {}, "work": {},
        },
        "answers": [answer(1, 4.0), answer(32, 0.9)],
        "client": { "key_bundle_ms": 0.1, "encrypt_ms": 0.1, "decode_ms": 0.1 },
        "batch_memory_bytes": null,
        "refusal": { "queued": 1, "ms_median": 0.1, "ms_worst": 0.1 },
        "counting_ns_per_query": 1.0, "cold": [], "targets": [],
    });
    let head = serde_json::to_value(Head::new(KERNEL_SCHEMA)).unwrap();
    record.as_object_mut().unwrap().extend(head.as_object().unwrap().clone());
    record
}

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
    // Now it was, where records lie; and the same record named.
    let records = folder.join("bench/record/some");
    fs::create_dir_all(&records).unwrap();
    fs::write(records.join("kernel.json"), fixture().to_string()).unwrap();
    let found = plan(folder, &["--json", "plan.json", "--html", "plan.html"]);
    let text = String::from_utf8(found.stdout).unwrap();
    assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stderr));
    for part in ["small: ", "hosts that each resource takes", "some/kernel.json", "not measured"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let json = fs::read_to_string(folder.join("plan.json")).unwrap();
    let written: Plan = serde_json::from_str(&json).unwrap();
    assert_eq!((written.shapes.len(), written.records.len()), (2, 1));
    // One query beside no other, 4 ms on two cores: what eight hardly notice.
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
