//! Records of all kinds, made up: a server that holds 600 look-ups a second, a processor, a GPU.
//! They are written as JSON, and what reads them is the program.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use sotto::params::Shape;
use sotto_bench::record::ShapeFacts;

/// The strings of a record that are free text.
#[derive(Clone, Copy)]
pub(crate) struct Words {
    /// Of a scenario.
    pub(crate) name: &'static str,
    pub(crate) cpu: &'static str,
    pub(crate) command: &'static str,
    pub(crate) engine: &'static str,
}

pub(crate) const PLAIN: Words = Words {
    name: "small",
    cpu: "Made-up Processor 9000",
    command: "sotto-bench",
    engine: "avx512",
};

const MS_ALONE: f64 = 28.0;

fn with(mut base: Value, more: Value) -> Value {
    let (Value::Object(base), Value::Object(more)) = (&mut base, more) else { panic!("objects") };
    base.extend(more);
    Value::Object(std::mem::take(base))
}

fn head(kind: &str, version: u32, words: Words) -> Value {
    json!({
        "schema": format!("sotto-bench-{kind}/{version}"),
        "command": format!("{} {kind}", words.command),
        "commit": "0123abc",
        "date": "2026-11-28T18:00:35Z",
        "machine": {
            "cpu": words.cpu, "cpus": 8, "logical_cpus": 8, "flags": ["avx512f"],
            "arch": "x86_64", "kernel": "Linux 6.1", "load": "0.00", "memory_bytes": 32_u64 << 30,
        },
    })
}

/// The standard shard's.
pub(crate) fn shape() -> Value {
    let shape = Shape::new(120, 2048, 4, 17_280).unwrap();
    serde_json::to_value(ShapeFacts::of(&shape)).unwrap()
}

fn spread(median: f64, width: f64) -> Value {
    json!({
        "best": median * (1.0 - width), "q1": median * (1.0 - width / 2.0), "median": median,
        "q3": median * (1.0 + width), "runs": 20,
    })
}

fn quantiles(p50: f64, p99: f64) -> Value {
    json!({ "p50": p50, "p90": p99 * 0.6, "p99": p99, "p999": p99 * 1.4, "max": p99 * 1.5 })
}

fn trial(rate: f64) -> Value {
    let busy = (rate / 600.0).min(0.96);
    let answered = rate.min(610.0);
    let good = if rate > 600.0 { answered * 0.97 } else { answered };
    let wait = MS_ALONE * busy / (1.0 - busy) / 3.0;
    let batch = 1.0 + 14.0 * busy * busy;
    let (p50, p99) = (MS_ALONE + wait, 1.3 * MS_ALONE + 2.5 * wait);
    let (scan, pack) = (9.0 / batch + 0.9, 4.0 / batch + 0.7);
    json!({
        "rate": rate,
        "invalid": (rate > 1500.0).then_some("the generator does not keep up"),
        "within": rate <= 600.0,
        "ended": "time up",
        "seconds": 30.0,
        "planned": (rate * 30.0) as u64,
        "throughput": answered,
        "goodput": good,
        "latency_ms": quantiles(p50, p99),
        "from_send_ms": quantiles(p50, p99),
        "intervals": { "p99": 0.04 + 0.2 * busy, "throughput": 0.03 },
        "errors": {},
        "late_share": 0.0,
        "lag_max_ms": 1.0,
        "verified": { "right": 10, "wrong": 0, "skipped": 0 },
        "prepared": { "queries": 10, "bytes": 1000, "seconds": 0.1 },
        "server": {
            "seconds": 30.0, "cpu_seconds": 29.0, "answers": (answered * 30.0) as u64,
            "passes": (answered * 30.0 / batch) as u64, "batch_mean": batch, "queue_ms": wait,
            "scan_ms": scan, "pack_ms": pack, "send_ms": 0.4, "answer_ms": p50 - 1.0,
            "resident_memory_bytes": 400_u64 << 20,
        },
        "windows": [],
    })
}

pub(crate) fn load(words: Words, rates: &[f64]) -> Value {
    let trials: Vec<_> = rates.iter().map(|rate| trial(*rate)).collect();
    let server = with(shape(), json!({ "epoch": 1, "shards": 1 }));
    let more = json!({
        "seed": 7, "objective_ms": 500.0, "server": server, "trials": trials,
        "limit": { "rate": 600.0, "generator_bound": false },
    });
    with(head("load", 2, words), more)
}

fn answer(engine: &str, slow: f64, threads: usize, batch: usize) -> Value {
    let (b, n) = (batch as f64, threads as f64);
    let (scan, pack) = (slow * (22.0 / b + 1.1) / n, slow * (9.0 / b + 0.8) / n);
    let all = scan + pack + 0.4;
    let floor = 24.0 / b.max(n) / n.sqrt() + 0.9 / n;
    json!({
        "engine": engine, "threads": threads, "batch": batch, "ms_per_query": spread(all, 0.06),
        "scan_ms": scan, "pack_ms": pack, "prepare_ms": 0.1, "finish_ms": 0.15, "other_ms": 0.15,
        "floor_ms": floor, "whole_share": floor / all, "scan_share": 0.9, "pack_share": 0.8,
        "times_reading": 1.2,
    })
}

pub(crate) fn kernel(words: Words) -> Value {
    let engines = [(words.engine, 1.0), ("avx2", 2.1), ("portable", 9.0)];
    let answers: Vec<_> = engines
        .into_iter()
        .flat_map(|(engine, slow)| {
            let sizes = [1, 2, 4, 8]
                .into_iter()
                .flat_map(|threads| [1, 2, 4, 8, 16, 32].map(|batch| (threads, batch)));
            sizes.map(move |(threads, batch)| answer(engine, slow, threads, batch))
        })
        .collect();
    let reads: Vec<_> = [1, 2, 4, 8]
        .map(|threads| {
            let gb_per_s = 12.0 * f64::from(threads).sqrt();
            let ms = 242.0 / gb_per_s;
            json!({ "threads": threads, "ms": ms, "gb_per_s": gb_per_s, "how": "u64" })
        })
        .into();
    let more = json!({
        "effort": "full", "pinned_to": [0, 1, 2, 3, 4, 5, 6, 7], "shape": shape(),
        "floors": { "read": reads, "peaks_g_per_s": {}, "work": {} },
        "answers": answers,
        "client": { "key_bundle_ms": 1.0, "encrypt_ms": 2.0, "decode_ms": 0.1 },
        "batch_memory_bytes": 1_000_000,
        "refusal": { "queued": 100, "ms_median": 0.1, "ms_worst": 0.3 },
        "counting_ns_per_query": 20.0, "cold": [], "targets": [],
    });
    with(head("kernel", 1, words), more)
}

fn gpu(words: Words) -> Value {
    let answer = |batch: u32| {
        let us = 400.0 / f64::from(batch) + 18.0;
        json!({
            "batch": batch, "alone_us": spread(us * 1.4, 0.03), "streamed_us": spread(us, 0.03),
            "prepare_us": 1.0, "scan_us": us * 0.6, "pack_us": us * 0.3, "finish_us": 1.0,
            "floor_us": us * 0.7, "alone_share": 0.5, "streamed_share": 0.7,
            "prepare_share": null, "scan_share": 0.7, "pack_share": 0.7, "finish_share": null,
            "reading_alone": [0.5, 0.5], "multiplying_alone": [0.5, 0.5],
            "multiplying_streamed": 0.6,
        })
    };
    let answers: Vec<_> = [1, 2, 4, 8, 16, 32].map(answer).into();
    let each = |outstanding: u32| {
        let rate = 30_000.0 * (1.0 - 0.97_f64.powf(f64::from(outstanding)));
        let ms = f64::from(outstanding) / rate * 1e3;
        json!({
            "outstanding": outstanding, "queries_per_s": rate, "median_ms": ms, "p99_ms": ms * 2.2,
        })
    };
    let loops: Vec<_> = [1, 8, 32, 128, 512].map(each).into();
    let more = json!({
        "effort": "full", "shape": shape(), "engine": "gpu",
        "device": {
            "name": words.cpu, "driver": "1", "software": false, "binding_bytes_max": 1,
            "buffer_bytes_max": 1, "workgroup_bytes_max": 1, "workgroup_threads_max": 1,
            "subgroup_sizes": [32, 32], "integers_64_bits": true, "features": "",
        },
        "floors": {
            "read_gb_per_s": 4000.0, "read_bytes": 1, "read_how": "", "narrow_g_per_s": 1.0,
            "wide_g_per_s": null, "dot_g_per_s": 1.0,
        },
        "answers": answers,
        "uploads": {
            "shards": 64, "into_free_memory_gb_per_s": 20.0, "in_place_of_others_gb_per_s": 20.0,
            "while_answering_gb_per_s": 10.0, "batch": 32, "answers_per_s": 30_000.0,
            "answers_per_s_while_uploading": 28_000.0,
        },
        "traffic": { "shards": 64, "loops": loops, "waited_for_upload": 0, "checked": 1000 },
        "targets": [],
    });
    with(head("gpu", 1, words), more)
}

fn content(records: u64, shards: u32) -> Value {
    let of = json!({ "records": records, "shards": shards, "database_bytes": 250_000_000 });
    with(shape(), of)
}

fn build(words: Words, records: u64, shards: u32, seconds: f64) -> Value {
    let more = json!({
        "content": content(records, shards), "input_bytes": 100_000_000, "threads": 8,
        "seconds": spread(seconds, 0.05), "cpu_seconds": spread(seconds * 7.5, 0.05),
        "peak_memory_bytes": 1_u64 << 30, "verify_seconds": spread(seconds / 6.0, 0.05),
    });
    with(head("build", 1, words), more)
}

fn startup(words: Words) -> Value {
    let started = |ms: f64| {
        json!({
            "listening_ms": spread(ms, 0.1), "ready_ms": spread(ms * 1.6, 0.1),
            "first_answer_ms": spread(ms * 2.0, 0.1), "own_memory_bytes": 50_000_000,
        })
    };
    let more = json!({
        "content": content(1_000_000, 1), "threads": 8, "warm": started(90.0),
        "cold": started(400.0),
    });
    with(head("startup", 1, words), more)
}

fn reload(words: Words) -> Value {
    let change = |shards: u32, ms: f64| {
        json!({
            "shards": shards, "bytes": u64::from(shards) * 250_000, "reload_ms": spread(ms, 0.1),
            "lookup_ms_max": 60.0,
        })
    };
    let changes = [change(0, 9.0), change(10, 21.0), change(1000, 900.0)];
    let more = json!({
        "content": content(1_000_000, 10_000), "threads": 8, "changes": changes, "lookups": 12_000,
        "lost": 0,
    });
    with(head("reload", 1, words), more)
}

/// One of every kind, in files of a folder.
pub(crate) fn write(folder: &Path, words: Words) {
    let rates = [50.0, 100.0, 200.0, 400.0, 500.0, 560.0, 600.0, 720.0, 1200.0, 2000.0];
    let records = [
        ("standard", load(words, &rates)),
        ("steady", load(words, &[480.0])),
        ("kernel", kernel(words)),
        ("gpu", gpu(words)),
        ("build", build(words, 1_000_000, 1, 22.0)),
        ("build-many", build(words, 4_000_000, 64, 70.0)),
        ("startup", startup(words)),
        ("reload", reload(words)),
    ];
    for (name, record) in records {
        let text = serde_json::to_string_pretty(&record).unwrap();
        fs::write(folder.join(name).with_extension("json"), text).unwrap();
    }
}
