use std::collections::BTreeMap;
use std::path::Path;

use super::*;
use crate::found::Found;
use crate::load::ledger::Intervals;
use crate::load::search::Limit;
use crate::load::{
    Counts, Prepared, Quantiles, Report, Row as WindowRow, ServerFacts, ServerSide, Trial,
};
use crate::plan::{Prices, Scenario, plan};
use crate::record::*;
use sotto::params::Shape;

fn machine() -> Machine {
    Machine {
        cpu: Some("AMD EPYC".into()),
        cpus: 2,
        logical_cpus: 2,
        flags: vec!["avx2".into()],
        arch: "x86_64".into(),
        kernel: Some("Linux 6.1".into()),
        load: Some("0.00 0.01 0.00 1/80 900".into()),
        memory_bytes: Some(4 << 30),
    }
}

fn head(schema: &str) -> Head {
    let (schema, command) = (schema.into(), "sotto-bench".into());
    Head { schema, command, commit: None, date: None, machine: machine() }
}

fn shape(columns: u32) -> ShapeFacts {
    ShapeFacts::of(&Shape::new(120, 2048, 4, columns).unwrap())
}

/// Around a median, quartiles as far off as `share` of it.
fn spread(median: f64, share: f64) -> Spread {
    let at = |part: f64| median * (1.0 + part * share);
    Spread { best: at(-2.0), q1: at(-1.0), median, q3: at(1.0), runs: 16 }
}

fn build(seconds: Spread, memory: u64) -> Build {
    let content =
        Content { records: 1 << 20, shards: 1, database_bytes: 242_000_000, shape: shape(17_280) };
    Build {
        head: head(BUILD_SCHEMA),
        content,
        input_bytes: 1,
        threads: 2,
        seconds,
        cpu_seconds: spread(7.0, 0.001),
        peak_memory_bytes: memory,
        verify_seconds: spread(0.5, 0.001),
    }
}

const OPTIONS: CompareOptions = CompareOptions { tolerance: TOLERANCE, across: false };

fn compared(before: Record, after: Record) -> Comparison {
    compare(&before, &after, OPTIONS).unwrap()
}

fn builds(before: Spread, after: Spread) -> Row {
    let record = |seconds| Record::Build(Box::new(build(seconds, 500_000_000)));
    let rows = compared(record(before), record(after)).rows;
    rows.into_iter().find(|row| row.what == "building").unwrap()
}

#[test]
fn a_change_is_judged_beside_tolerance_and_noise() {
    let quiet = |median| spread(median, 0.005);
    let noisy = |median| spread(median, 0.1);
    let cases = [
        (quiet(10.0), quiet(10.0), Verdict::Same),
        (quiet(10.0), quiet(10.2), Verdict::Same),
        (quiet(10.0), quiet(10.4), Verdict::Worse),
        (quiet(10.0), quiet(9.6), Verdict::Better),
        (noisy(10.0), noisy(10.0), Verdict::Unclear),
        (noisy(10.0), noisy(11.0), Verdict::Unclear),
        (noisy(10.0), noisy(14.0), Verdict::Worse),
        (noisy(10.0), noisy(6.0), Verdict::Better),
        // The median moved and the best did not: a noisy minute.
        (quiet(10.0), Spread { best: quiet(10.0).best, ..quiet(11.0) }, Verdict::Unclear),
        // Too few to know noise.
        (quiet(10.0), Spread { runs: 2, ..quiet(10.2) }, Verdict::Same),
        (quiet(10.0), Spread { runs: 2, ..quiet(12.0) }, Verdict::Unclear),
        (quiet(10.0), Spread { runs: 2, ..quiet(12.6) }, Verdict::Worse),
    ];
    for (before, after, verdict) in cases {
        let row = builds(before, after);
        assert_eq!(row.verdict, Some(verdict), "{before:?} {after:?} {row:?}");
    }
}

#[test]
fn more_numbers_are_allowed_more_noise_each() {
    assert!((widening(1) - 1.0).abs() < 1e-9);
    // Normal quantiles: 3.2905 at 0.9995 over 1.95996.
    assert!((widening(50) - 3.290_53 / 1.959_96).abs() < 1e-4);
    // Three times of a build are judged together: 2.3940 over 1.95996.
    let row = builds(spread(10.0, 0.05), spread(10.0, 0.05));
    let notch = 1.57 * 2.0 * 0.05 / 4.0;
    assert!((row.noise.unwrap() - 2.0 * notch * 2.393_98 / 1.959_96).abs() < 1e-5, "{row:?}");
}

#[test]
fn what_was_measured_once_is_allowed_a_quarter_and_what_is_counted_nothing() {
    let verdict = |memory: u64, database_bytes: u64, what: &str| {
        let before = build(spread(1.0, 0.001), 400_000_000);
        let mut after = build(spread(1.0, 0.001), memory);
        after.content.database_bytes = database_bytes;
        let rows = compared(Record::Build(before.into()), Record::Build(after.into())).rows;
        rows.into_iter().find(|row| row.what == what).unwrap().verdict.unwrap()
    };
    assert_eq!(verdict(410_000_000, 242_000_000, "most memory"), Verdict::Same);
    assert_eq!(verdict(480_000_000, 242_000_000, "most memory"), Verdict::Unclear);
    assert_eq!(verdict(510_000_000, 242_000_000, "most memory"), Verdict::Worse);
    assert_eq!(verdict(400_000_000, 244_000_000, "database"), Verdict::Same);
    assert_eq!(verdict(400_000_000, 250_000_000, "database"), Verdict::Worse);
}

fn kernel(ms: f64, reading: f64) -> Kernel {
    let answer = |threads: usize, ms: f64, floor_ms: Option<f64>| Answer {
        engine: if floor_ms.is_some() { "avx512" } else { "portable" }.into(),
        threads,
        batch: 1,
        ms_per_query: spread(ms, 0.002),
        scan_ms: ms / 2.0,
        pack_ms: ms / 2.0,
        prepare_ms: 0.0,
        finish_ms: 0.0,
        other_ms: 0.0,
        floor_ms,
        whole_share: None,
        scan_share: None,
        pack_share: None,
        times_reading: 1.0,
    };
    let cold = |what: &str, engine: Option<&str>, ms: f64| Cold {
        what: what.into(),
        engine: engine.map(str::to_owned),
        threads: engine.map(|_| 1),
        batch: engine.map(|_| 1),
        ms: spread(ms, 0.002),
        disk_bytes: None,
        times_plain_read: 1.0,
    };
    let gb_per_s = 242.2 / reading;
    Kernel {
        head: head(KERNEL_SCHEMA),
        effort: "full".into(),
        pinned_to: vec![0, 1],
        shape: shape(17_280),
        floors: Floors {
            read: vec![Read { threads: 1, ms: reading, gb_per_s, how: "some".into() }],
            peaks_g_per_s: BTreeMap::from([("vpdpbusd".into(), 7.78)]),
            work: BTreeMap::new(),
        },
        answers: vec![answer(1, ms, Some(reading)), answer(1, 4.0 * ms, None)],
        client: ClientWork { key_bundle_ms: 0.2, encrypt_ms: 0.4, decode_ms: 0.1 },
        batch_memory_bytes: None,
        refusal: Refusal { queued: 10, ms_median: 4e-4, ms_worst: 0.03 },
        counting_ns_per_query: 500.0,
        cold: vec![
            cold("plain sequential read", None, 10.0 * reading),
            cold("answer", Some("avx512"), 10.0 * ms),
        ],
        targets: Vec::new(),
    }
}

#[test]
fn what_the_floors_did_too_is_the_machines_doing() {
    let rows = |before: Kernel, after: Kernel| {
        compared(Record::Kernel(before.into()), Record::Kernel(after.into())).rows
    };
    let verdicts = |rows: &[Row]| {
        let of = |what: &str| rows.iter().find(|row| row.what == what).unwrap().verdict;
        [
            of("avx512, 1 thread, batch 1"),
            of("portable, 1 thread, batch 1"),
            of("not cached: avx512, 1 thread, batch 1"),
        ]
    };
    // All slower by a tenth while the floors stayed; then the floors too, and then more than they.
    let slower = rows(kernel(13.0, 12.0), kernel(14.3, 12.0));
    assert_eq!(verdicts(&slower), [Some(Verdict::Worse); 3]);
    let alike = rows(kernel(13.0, 12.0), kernel(14.3, 13.1));
    assert_eq!(verdicts(&alike), [Some(Verdict::Unclear); 3]);
    assert!(alike.iter().any(|row| row.note.is_some_and(|note| note.contains("machine's doing"))));
    assert_eq!(verdicts(&rows(kernel(13.0, 12.0), kernel(16.0, 13.1))), [Some(Verdict::Worse); 3]);
    // Faster is no merit where the floors are, too.
    let faster = rows(kernel(14.3, 13.1), kernel(13.0, 12.0));
    assert_eq!(verdicts(&faster), [Some(Verdict::Unclear); 3]);
    // Floors and parts are shown, and nobody's fault.
    let context = ["floor: reading the shard, 1 thread", "floor: vpdpbusd"];
    for what in context.into_iter().chain(["avx512, 1 thread, batch 1: scan"]) {
        assert_eq!(slower.iter().find(|row| row.what == what).unwrap().verdict, None, "{what}");
    }
}

#[test]
fn what_cannot_be_compared_is_said() {
    let kernel = || kernel(13.0, 12.0);
    let error = |before: Kernel, after: Kernel| {
        let (before, after) = (Record::Kernel(before.into()), Record::Kernel(after.into()));
        let told = compare(&before, &after, OPTIONS).unwrap_err().to_string();
        let across = CompareOptions { across: true, ..OPTIONS };
        let all_the_same = compare(&before, &after, across);
        (told, all_the_same.map(|found| found.notes))
    };
    let mut other = kernel();
    other.head.machine.cpu = Some("Intel Xeon".into());
    let (told, across) = error(kernel(), other);
    assert!(told.contains("machine: found AMD EPYC, 2 cores, x86_64 and Intel Xeon"), "{told}");
    assert!(across.unwrap()[0].contains("not the same machine"));
    let mut other = kernel();
    other.shape = shape(8_640);
    let (told, across) = error(kernel(), other);
    assert!(told.contains("4 packs of 2048 rows x 17280 columns"), "{told}");
    assert!(across.unwrap()[0].contains("not the same shape"));
    let build = Record::Build(build(spread(1.0, 0.1), 1).into());
    let told = compare(&Record::Kernel(kernel().into()), &build, OPTIONS).unwrap_err().to_string();
    assert!(told.contains("sotto-bench-kernel/1 and one of sotto-bench-build/1"), "{told}");
}

fn trial(rate: f64, p99: f64, good_share: f64) -> Trial {
    let quantiles = |scale: f64| Quantiles {
        p50: 0.4 * p99 * scale,
        p90: 0.8 * p99 * scale,
        p99: p99 * scale,
        p999: 1.1 * p99 * scale,
        max: 1.2 * p99 * scale,
    };
    let row = |number: usize| {
        let scale = 1.0 + 0.005 * (number % 3) as f64;
        WindowRow {
            begin_s: number as f64,
            planned: rate as u64,
            answered: rate as u64,
            good: (rate * good_share * scale) as u64,
            came: rate as u64,
            late: 0,
            lag_max_ms: 0.0,
            latency_ms: quantiles(scale),
            from_send_ms: quantiles(scale),
        }
    };
    let written = serde_json::json!({
        "rate": rate, "invalid": null, "within": true, "ended": "time up", "seconds": 10.0,
        "planned": 10 * rate as u64, "throughput": rate, "goodput": rate * good_share,
        "latency_ms": quantiles(1.0), "from_send_ms": quantiles(1.0),
        "intervals": Intervals { p99: Some(0.01), throughput: Some(0.01) },
        "errors": {}, "late_share": 0.0, "lag_max_ms": 0.0, "verified": Counts::default(),
        "prepared": Prepared { queries: 1, bytes: 1, seconds: 0.0 }, "server": null,
        "windows": (0..10).map(row).collect::<Vec<_>>(),
    });
    serde_json::from_value(written).unwrap()
}

fn load(trials: Vec<Trial>, limit: Option<f64>) -> Record {
    let limit = limit.map(|rate| Limit { rate, generator_bound: false });
    let head = head(crate::load::SCHEMA);
    let server = ServerFacts { epoch: 1, shards: 1, shape: shape(17_280) };
    Record::Load(Box::new(Report { head, seed: 1, server, objective_ms: 500.0, trials, limit }))
}

#[test]
fn rates_of_a_server_are_compared_at_equal_rates_and_beside_its_limit() {
    let before = || load(vec![trial(100.0, 50.0, 1.0), trial(540.0, 450.0, 1.0)], Some(540.0));
    let after = |limit: f64, p99: f64| {
        load(vec![trial(100.0, p99, 1.0), trial(limit, 460.0, 1.0)], Some(limit))
    };
    let of = |found: &Comparison, what: &str| {
        let row = found.rows.iter().find(|row| row.what == what);
        row.unwrap_or_else(|| panic!("no {what}: {found:?}")).verdict
    };
    let found = compared(before(), after(500.0, 50.0));
    assert_eq!(of(&found, "limit"), Some(Verdict::Worse));
    assert_eq!(of(&found, "at 100.0 a second: p99"), Some(Verdict::Same));
    assert_eq!(of(&found, "at the limit: good"), Some(Verdict::Worse));
    assert_eq!(of(&found, "at the limit: p99"), None, "limits differ");
    // Walks end within 5%: so much is no change.
    assert_eq!(of(&compared(before(), after(515.0, 50.0)), "limit"), Some(Verdict::Unclear));
    let slower = compared(before(), after(540.0, 60.0));
    assert_eq!(of(&slower, "at 100.0 a second: p99"), Some(Verdict::Worse));
    assert_eq!(of(&slower, "at 100.0 a second: p50"), Some(Verdict::Worse));
    assert_eq!(of(&slower, "at 100.0 a second: slowest"), None);
    // What is refused or late is missed by what is good.
    let refusing = load(vec![trial(100.0, 50.0, 0.5)], None);
    let found = compared(load(vec![trial(100.0, 50.0, 1.0)], None), refusing);
    assert_eq!(of(&found, "at 100.0 a second: good"), Some(Verdict::Worse));
}

#[test]
fn wrong_answers_are_worse_and_invalid_runs_say_nothing() {
    let mut wrong = trial(100.0, 50.0, 1.0);
    wrong.verified.wrong = 1;
    let mut invalid = trial(200.0, 900.0, 0.1);
    invalid.invalid = Some("the generator does not keep up".into());
    let before = load(vec![trial(100.0, 50.0, 1.0), trial(200.0, 60.0, 1.0)], None);
    let found = compared(before, load(vec![wrong, invalid], None));
    let worse: Vec<_> =
        found.rows.iter().filter(|row| row.verdict == Some(Verdict::Worse)).collect();
    assert_eq!(worse.len(), 1, "{worse:?}");
    assert_eq!(worse[0].what, "wrong answers");
    assert!(found.only_before.iter().all(|what| what.contains("at 200.0 a second")));
    assert!(found.notes.iter().any(|note| note.contains("INVALID, left out: 200.0 a second")));
}

#[test]
fn the_table_says_all_or_only_what_changed() {
    let record = |seconds| Record::Build(Box::new(build(seconds, 500_000_000)));
    let found = compared(record(spread(10.0, 0.002)), record(spread(12.0, 0.002)));
    let all = found.table(false);
    let building = all.lines().find(|line| line.starts_with("building ")).unwrap();
    assert!(building.contains("10.00") && building.contains("12.00"), "{all}");
    assert!(building.contains("+20.0%") && building.ends_with("WORSE"), "{all}");
    assert!(all.ends_with("0 better, 4 same, 1 WORSE, 0 unclear\n"), "{all}");
    let changed = found.table(true);
    assert!(changed.contains("building ") && !changed.contains("verifying"), "{changed}");
}

fn gpu() -> Gpu {
    Gpu {
        head: head(GPU_SCHEMA),
        effort: "full".into(),
        shape: shape(17_280),
        device: GpuDevice {
            name: "H200".into(),
            driver: "NVIDIA".into(),
            software: false,
            binding_bytes_max: 1 << 31,
            buffer_bytes_max: 1 << 34,
            workgroup_bytes_max: 1 << 15,
            workgroup_threads_max: 1024,
            subgroup_sizes: [32, 32],
            integers_64_bits: true,
            features: "some".into(),
        },
        engine: "gpu H200".into(),
        floors: GpuFloors {
            read_gb_per_s: 4000.0,
            read_bytes: 1 << 32,
            read_how: "some".into(),
            narrow_g_per_s: 20_000.0,
            wide_g_per_s: Some(10_000.0),
            dot_g_per_s: 30_000.0,
        },
        answers: vec![GpuAnswer {
            batch: 32,
            alone_us: spread(40.0, 0.002),
            streamed_us: spread(30.0, 0.002),
            prepare_us: 1.0,
            scan_us: 10.0,
            pack_us: 10.0,
            finish_us: 1.0,
            floor_us: 15.0,
            alone_share: 0.4,
            streamed_share: 0.5,
            prepare_share: None,
            scan_share: Some(0.5),
            pack_share: Some(0.5),
            finish_share: None,
            reading_alone: [0.5, 0.4],
            multiplying_alone: [0.5, 0.4],
            multiplying_streamed: 0.5,
        }],
        uploads: GpuUploads {
            shards: 64,
            into_free_memory_gb_per_s: 10.0,
            in_place_of_others_gb_per_s: 9.0,
            while_answering_gb_per_s: 8.0,
            batch: 16,
            answers_per_s: 30_000.0,
            answers_per_s_while_uploading: 25_000.0,
        },
        traffic: GpuTraffic {
            shards: 64,
            loops: vec![GpuLoop {
                outstanding: 256,
                queries_per_s: 20_000.0,
                median_ms: 10.0,
                p99_ms: 20.0,
            }],
            waited_for_upload: 0,
            checked: 1000,
        },
        targets: Vec::new(),
    }
}

fn content() -> Content {
    build(spread(1.0, 0.1), 1).content
}

fn startup(ready: f64) -> Startup {
    let started = Started {
        listening_ms: spread(ready, 0.002),
        ready_ms: spread(ready, 0.002),
        first_answer_ms: spread(ready, 0.002),
        own_memory_bytes: 30_000_000,
    };
    let head = head(STARTUP_SCHEMA);
    Startup { head, content: content(), threads: 2, warm: started, cold: started }
}

fn reload(lost: u64) -> Reload {
    let change = Change { shards: 1, bytes: 1, reload_ms: spread(80.0, 0.002), lookup_ms_max: 9.0 };
    let (head, content) = (head(RELOAD_SCHEMA), content());
    Reload { head, content, threads: 2, changes: vec![change], lookups: 1000, lost }
}

fn served() -> Record {
    let mut trial = trial(100.0, 50.0, 1.0);
    trial.server = Some(ServerSide {
        seconds: 10.0,
        cpu_seconds: 5.0,
        answers: 1000,
        passes: 500,
        batch_mean: 2.0,
        queue_ms: 10.0,
        scan_ms: 2.0,
        pack_ms: 1.0,
        send_ms: 0.1,
        answer_ms: 15.0,
        resident_memory_bytes: 500_000_000,
    });
    load(vec![trial], Some(100.0))
}

/// One of each kind.
fn all() -> Vec<Record> {
    vec![
        served(),
        Record::Kernel(kernel(13.0, 12.0).into()),
        Record::Gpu(gpu().into()),
        Record::Build(build(spread(1.0, 0.001), 1).into()),
        Record::Startup(startup(50.0).into()),
        Record::Reload(reload(0).into()),
    ]
}

#[test]
fn a_record_is_the_same_as_itself() {
    // Within the steps of the walk to a limit nothing can be the same.
    let options = CompareOptions { tolerance: 0.06, ..OPTIONS };
    for (before, after) in all().into_iter().zip(all()) {
        let found = compare(&before, &after, options).unwrap();
        let other =
            found.rows.iter().find(|row| !matches!(row.verdict, None | Some(Verdict::Same)));
        assert!(other.is_none(), "{other:?}");
        assert!(found.count(Verdict::Same) >= 2, "{found:?}");
        assert!(found.only_before.is_empty() && found.only_after.is_empty(), "{found:?}");
        let mut names: Vec<_> = found.rows.iter().map(|row| &row.what).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), found.rows.len(), "numbers are told apart by their names");
    }
}

#[test]
fn every_kind_can_be_worse() {
    let worse = |before: Record, after: Record| -> Vec<String> {
        let rows = compared(before, after).rows.into_iter();
        rows.filter(|row| row.verdict == Some(Verdict::Worse)).map(|row| row.what).collect()
    };
    let lost = worse(Record::Reload(reload(0).into()), Record::Reload(reload(1).into()));
    assert_eq!(lost, ["look-ups lost"]);
    let later = worse(Record::Startup(startup(50.0).into()), Record::Startup(startup(60.0).into()));
    assert_eq!(later.len(), 6, "{later:?}");
    let mut slower = gpu();
    slower.answers[0].alone_us = spread(50.0, 0.002);
    slower.uploads.while_answering_gb_per_s = 5.0;
    let slower = worse(Record::Gpu(gpu().into()), Record::Gpu(slower.into()));
    assert_eq!(slower, ["batch 32, alone", "upload while answering"]);
}

/// All names of fields in it.
fn names(value: &serde_json::Value, found: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(fields) => {
            for (name, value) in fields {
                found.push(name.clone());
                names(value, found);
            }
        }
        serde_json::Value::Array(values) => values.iter().for_each(|value| names(value, found)),
        _ => {}
    }
}

#[test]
fn the_guide_explains_every_field() {
    let guide = include_str!("../../README.md");
    let mut found = Vec::new();
    for record in all() {
        let value = match &record {
            Record::Load(record) => serde_json::to_value(record),
            Record::Kernel(record) => serde_json::to_value(record),
            Record::Gpu(record) => serde_json::to_value(record),
            Record::Build(record) => serde_json::to_value(record),
            Record::Startup(record) => serde_json::to_value(record),
            Record::Reload(record) => serde_json::to_value(record),
        };
        names(&value.unwrap(), &mut found);
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let scenario = Scenario::read(&folder.join("scenarios/mimi.toml")).unwrap();
    let record = Record::Kernel(kernel(13.0, 12.0).into());
    let records = [Found { path: "kernel.json".into(), record }];
    let plan = plan(&scenario, &Prices::shipped().unwrap(), &records).unwrap();
    names(&serde_json::to_value(plan).unwrap(), &mut found);
    // An instruction is none.
    let explained = |name: &String| {
        name == "vpdpbusd"
            || [format!("`{name}`"), format!(".{name}`")].iter().any(|n| guide.contains(n))
    };
    let mut missing: Vec<_> = found.into_iter().filter(|name| !explained(name)).collect();
    missing.dedup();
    assert!(missing.is_empty(), "bench/README.md does not say what these are: {missing:?}");
}
