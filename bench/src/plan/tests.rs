//! Plans from fixtures: records made up for tests, or copied from older forms of them, and marked
//! so.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::batch::{Curve, Engine};
use super::*;
use crate::found::Record;
use crate::record::{Head, Kernel};

/// Made-up parts of a head that say whose the rest is.
fn head(schema: &str) -> serde_json::Value {
    let machine = json!({
        "cpu": "AMD EPYC", "cpus": 2, "logical_cpus": 2, "flags": [], "arch": "x86_64",
        "kernel": null, "load": null, "memory_bytes": null,
    });
    json!({
        "schema": schema, "command": "a test's fixture", "commit": null,
        "date": "2026-11-28T18:00:35Z", "machine": machine,
    })
}

fn with_head(schema: &str, mut fields: serde_json::Value) -> serde_json::Value {
    let all = fields.as_object_mut().unwrap();
    all.extend(head(schema).as_object().unwrap().clone());
    fields
}

fn found(name: &str, record: Record) -> Found {
    Found { path: PathBuf::from(name), record }
}

fn standard() -> ShapeFacts {
    ShapeFacts::of(&Shape::new(120, 2048, 4, 17_280).unwrap())
}

/// A kernel record: threads, batch, then median, best, scan, pack and other milliseconds a query.
fn kernel(shape: ShapeFacts, rows: &[(usize, usize, [f64; 5])]) -> Kernel {
    let answers: Vec<_> = rows
        .iter()
        .map(|&(threads, batch, [median, best, scan, pack, other])| {
            json!({
                "engine": "avx512", "threads": threads, "batch": batch,
                "ms_per_query":
                    { "best": best, "q1": best, "median": median, "q3": median, "runs": 20 },
                "scan_ms": scan, "pack_ms": pack, "prepare_ms": 0.0, "finish_ms": 0.0,
                "other_ms": other, "floor_ms": null, "whole_share": null, "scan_share": null,
                "pack_share": null, "times_reading": 1.5,
            })
        })
        .collect();
    let read = |threads: usize, ms: f64, rate: f64| {
        let how = "avx512";
        json!({ "threads": threads, "ms": ms, "gb_per_s": rate, "how": how })
    };
    let disk = json!({
        "what": "plain sequential read", "engine": null, "threads": null, "batch": null,
        "ms": { "best": 71.0, "q1": 71.0, "median": 72.8, "q3": 73.0, "runs": 5 },
        "disk_bytes": 242_200_000, "times_plain_read": 1.0,
    });
    let fields = json!({
        "effort": "quick", "pinned_to": [0, 1], "shape": shape,
        "floors": {
            "read": [read(1, 5.32, 45.5), read(2, 2.58, 93.8)], "peaks_g_per_s": {}, "work": {},
        },
        "answers": answers,
        "client": { "key_bundle_ms": 0.15, "encrypt_ms": 0.31, "decode_ms": 0.12 },
        "batch_memory_bytes": null,
        "refusal": { "queued": 1, "ms_median": 0.0, "ms_worst": 0.0 },
        "counting_ns_per_query": 518.0, "cold": [disk], "targets": [],
    });
    serde_json::from_value(with_head("sotto-bench-kernel/1", fields)).unwrap()
}

/// The numbers of bench/record/2026-11-28-amd-epyc-2-cores-load/kernel-quick.txt, whose form was
/// an older one.
fn epyc() -> Found {
    let rows = [
        (1, 1, [7.940, 7.876, 5.086, 2.588, 0.202]),
        (1, 2, [4.950, 4.925, 2.802, 1.982, 0.141]),
        (1, 4, [2.654, 2.602, 1.428, 1.072, 0.102]),
        (1, 8, [2.007, 1.959, 1.066, 0.808, 0.085]),
        (1, 16, [1.840, 1.814, 0.964, 0.774, 0.076]),
        (1, 32, [1.663, 1.624, 0.887, 0.672, 0.065]),
        (2, 1, [4.292, 4.093, 2.538, 1.306, 0.249]),
        (2, 2, [2.649, 2.565, 1.442, 0.956, 0.167]),
        (2, 4, [1.460, 1.392, 0.758, 0.539, 0.095]),
        (2, 8, [1.074, 1.034, 0.547, 0.398, 0.089]),
        (2, 16, [1.060, 0.963, 0.517, 0.389, 0.057]),
        (2, 32, [0.875, 0.846, 0.454, 0.340, 0.052]),
    ];
    found("kernel.json", Record::Kernel(Box::new(kernel(standard(), &rows))))
}

/// A server on one core that does one standard shard's 541.7 queries a second in full passes: what
/// that record found, with what its metrics would have told, for it has none.
fn load() -> Found {
    let quantiles =
        json!({ "p50": 100.0, "p90": 200.0, "p99": 333.8, "p999": 373.5, "max": 407.0 });
    let mut server = serde_json::to_value(standard()).unwrap();
    server
        .as_object_mut()
        .unwrap()
        .extend([("epoch".into(), 1.into()), ("shards".into(), 1.into())]);
    let trial = json!({
        "rate": 541.7, "invalid": null, "within": true, "ended": "time up", "seconds": 10.0,
        "planned": 5417, "throughput": 541.7, "goodput": 541.7, "latency_ms": quantiles,
        "from_send_ms": quantiles, "intervals": { "p99": null, "throughput": null }, "errors": {},
        "late_share": 0.0, "lag_max_ms": 0.0,
        "verified": { "right": 0, "wrong": 0, "skipped": 0 },
        "prepared": { "queries": 1, "bytes": 1, "seconds": 0.0 }, "windows": [],
        "server": {
            "seconds": 10.0, "cpu_seconds": 10.0, "answers": 5417, "passes": 170,
            "batch_mean": 31.9, "queue_ms": 50.0, "scan_ms": 0.908, "pack_ms": 0.688,
            "send_ms": 0.1,
            "answer_ms": 100.0, "resident_memory_bytes": 1,
        },
    });
    let fields = json!({
        "seed": 1, "server": server, "objective_ms": 500.0, "trials": [trial], "limit": null,
    });
    let report = serde_json::from_value(with_head("sotto-bench-load/2", fields)).unwrap();
    found("load.json", Record::Load(Box::new(report)))
}

/// One core, one shard at most of everything else.
fn host(name: &str, cores: u32) -> Host {
    Host {
        name: name.into(),
        cores,
        memory_gib: 64.0,
        reserved_memory_gib: 0.0,
        memory_gb_per_s: None,
        network_gbit_per_s: 100.0,
        disk_gb: 1000.0,
        core_hour: 0.05,
        gpus: 0,
        gpu_memory_gib: 0.0,
        gpu_reserved_memory_gib: 0.0,
        gpu_hour: 0.0,
    }
}

fn prices() -> Prices {
    let gpus = Host {
        gpus: 2,
        gpu_memory_gib: 100.0,
        gpu_reserved_memory_gib: 20.0,
        gpu_hour: 4.0,
        ..host("gpu", 16)
    };
    Prices {
        currency: "USD".into(),
        about: "a test's".into(),
        egress_gb: 0.05,
        stored_gb_month: 0.1,
        hosts: vec![host("one", 1), host("two", 2), host("many", 64), gpus],
    }
}

/// A million standard records; a device a second of each look-up of a day.
fn scenario(users: f64) -> Scenario {
    Scenario {
        name: "test".into(),
        about: "a test's".into(),
        users,
        lookups_per_user_day: 86.4,
        lookups_per_sync: 1.0,
        peak_over_mean: 2.0,
        records: 1_048_576.0,
        value_bytes: 120,
        records_per_shard: vec![1 << 20],
        latency_ms: 500.0,
        replication: 1,
        failed_hosts: 0,
        utilisation_max: 0.5,
        epoch_hours: 24.0,
        changed_share: 1.0,
        epochs_in_memory: 2.0,
        hints: Hints::FrontEnd,
        front_ends: 1.0,
        host: "one".into(),
        gpu_host: "gpu".into(),
    }
}

fn hosts(scenario: &Scenario, records: &[Found]) -> f64 {
    plan(scenario, &prices(), records).unwrap().shapes[0].cpu.hosts.value
}

fn all(plan: &Plan) -> Vec<&Figure> {
    let mut all: Vec<&Figure> = plan.demand.iter().collect();
    for shape in &plan.shapes {
        all.extend(shape.device.iter().chain(&shape.provider));
        let mut kinds = vec![&shape.cpu];
        match &shape.gpu {
            GpuPlan::Measured(plan) => kinds.push(plan),
            GpuPlan::NotMeasured { figures, .. } => all.extend(figures),
        }
        for kind in kinds {
            all.extend([&kind.hosts, &kind.units, &kind.batch, &kind.capacity]);
            all.extend([&kind.cost_month, &kind.cost_million]);
            all.extend(kind.costs.iter().chain(&kind.figures));
            all.extend(kind.needs.iter().map(|need| &need.hosts));
        }
    }
    all
}

fn figure<'a>(figures: &'a [Figure], name: &str) -> &'a Figure {
    figures.iter().find(|figure| figure.name == name).unwrap()
}

#[test]
fn by_hand() {
    // A pass takes 10 ms and 1 ms for each query but the first: 32 of them take 41 ms.
    let rows = [(1, 1, [10.0, 10.0, 6.0, 4.0, 0.0]), (1, 32, [41.0 / 32.0; 5])];
    let records = [found("k", Record::Kernel(Box::new(kernel(standard(), &rows))))];
    let prices = prices();
    // A thousandth of a look-up a second each: 500 a second, 1000 at the peak.
    let plan = plan(&scenario(5e5), &prices, &records).unwrap();
    assert_eq!((plan.demand[0].value, plan.demand[1].value), (500.0, 1_000.0));
    let shape = &plan.shapes[0];
    assert_eq!((shape.shards, shape.shape.query_bytes), (1, 51_840));
    let cpu = &shape.cpu;
    // Full passes: 32 / 41 ms = 780 a second, half of which is asked: 2.56 hosts.
    assert!((cpu.capacity.value - 32.0 / 0.041).abs() < 1e-6, "{:?}", cpu.capacity);
    assert_eq!((cpu.hosts.value, cpu.binds), (3.0, Resource::Arithmetic));
    assert!((cpu.needs[0].hosts.value - 1_000.0 / (32.0 / 0.041) / 0.5).abs() < 1e-6);
    // 333 a second: b = 333 (9 + b) / 1000 is 4.5.
    assert!((cpu.batch.value - 4.5).abs() < 1e-6, "{:?}", cpu.batch);
    // Two epochs of 242.2 MB in 64 GiB.
    let memory = &cpu.needs.iter().find(|need| need.resource == Resource::Memory).unwrap().hosts;
    let shard = 8_192.0 * 17_280.0 + 4.0 * 2_047.0 * 2_048.0 * 6.0;
    assert!((memory.value - 2.0 * shard / (64.0 * (1u64 << 30) as f64)).abs() < 1e-9);
    // 1000 a second that bring 76 416 bytes each; 100 Gbit a second, half of it.
    let network = &cpu.needs.iter().find(|need| need.resource == Resource::Network).unwrap().hosts;
    assert!((network.value - 1_000.0 * 8.0 * 76_416.0 / 100e9 / 0.5).abs() < 1e-9);
    // 3 cores for 730 hours; 5e5 devices' answers and hints; 3 copies of two epochs.
    let hints = 17_408.0;
    let sent = 5e5 * (86.4 * 12_288.0 + hints) * 730.0 / 24.0 / 1e9 * 0.05;
    let stored = 3.0 * 2.0 * (shard + hints) / 1e9 * 0.1;
    assert!((cpu.cost_month.value - (3.0 * 0.05 * 730.0 + sent + stored)).abs() < 1e-6);
    let millions = 5e5 * 86.4 * 730.0 / 24.0 / 1e6;
    assert!((cpu.cost_million.value - cpu.cost_month.value / millions).abs() < 1e-9);
    // A device: a bundle for each look-up.
    assert_eq!(figure(&shape.device, "bundles a day").value, 86.4);
    assert_eq!(figure(&shape.device, "down a day: hints").value, hints);
    // Cores cost 0.15 an hour, a GPU with its half of 16 cores 4.40: 0.034 of one.
    let GpuPlan::NotMeasured { figures, .. } = &shape.gpu else { panic!("none was measured") };
    assert_eq!(figure(figures, "GPUs that hold the shards").value, 1.0);
    let affordable = figure(figures, "GPUs that cost as much as the cores").value;
    assert!((affordable - 0.15 / 4.4).abs() < 1e-9);
    assert!(figures[2].formula.ends_with("dearer at any speed"), "{:?}", figures[2]);
}

#[test]
fn memory_binds_where_little_is_asked() {
    let mut scenario = scenario(1e3);
    scenario.records = 4096.0 * 1_048_576.0;
    scenario.replication = 3;
    let plan = plan(&scenario, &prices(), &[epyc()]).unwrap();
    let cpu = &plan.shapes[0].cpu;
    let shard = 2.0 * (8_192.0 * 17_280.0 + 4.0 * 2_047.0 * 2_048.0 * 6.0);
    let least = (4096.0 * 3.0 * shard / (64.0 * (1u64 << 30) as f64)).ceil();
    assert_eq!((cpu.hosts.value, cpu.binds), (least, Resource::Memory));
    assert_eq!(cpu.batch.value, 1.0);
    // Copies, where nothing else does.
    let mut scenario = self::scenario(1.0);
    (scenario.replication, scenario.failed_hosts) = (3, 2);
    let plan = self::plan(&scenario, &prices(), &[epyc()]).unwrap();
    let cpu = &plan.shapes[0].cpu;
    assert_eq!((cpu.hosts.value, cpu.binds), (5.0, Resource::Copies));
}

#[test]
fn what_is_harder_never_takes_fewer_hosts() {
    let records = [epyc(), load()];
    let base = || {
        let mut scenario = scenario(4e6);
        scenario.records = 256.0 * 1_048_576.0;
        scenario
    };
    let rising = |what: &str, change: &dyn Fn(&mut Scenario, f64), values: &[f64]| {
        let counts: Vec<f64> = values
            .iter()
            .map(|&value| {
                let mut scenario = base();
                change(&mut scenario, value);
                hosts(&scenario, &records)
            })
            .collect();
        println!("{what}: {counts:?}");
        assert!(counts.is_sorted(), "{what}: {counts:?}");
        assert!(counts[0] < counts[counts.len() - 1], "{what}: {counts:?}");
    };
    rising("users", &|s, v| s.users = v, &[1e5, 1e6, 3e6, 1e7, 1e8]);
    rising("peak", &|s, v| s.peak_over_mean = v, &[1.0, 1.5, 3.0, 10.0]);
    rising("latency", &|s, v| s.latency_ms = v, &[4000.0, 2000.0, 1000.0, 500.0, 250.0, 100.0]);
    rising("utilisation", &|s, v| s.utilisation_max = v, &[1.0, 0.7, 0.5, 0.1]);
    rising("failed", &|s, v| s.failed_hosts = v as u32, &[0.0, 1.0, 5.0]);
    rising("value", &|s, v| s.value_bytes = v as u32, &[56.0, 120.0, 248.0]);
    // More copies are smaller batches.
    rising("copies", &|s, v| s.replication = v as u32, &[1.0, 2.0, 4.0, 16.0]);
}

#[test]
fn more_of_everything_is_never_slower() {
    let pass = |query: f64| Curve::of([(1.0, 0.008), (32.0, 0.007 + 32.0 * query)]).unwrap();
    let engine = |query: f64, cores: f64, outside: f64, reading: f64| Engine {
        pass: pass(query),
        cores,
        outside,
        reading,
    };
    let rate = |engine: Engine, shards: f64, objective: f64| {
        engine.capacity(shards, objective).map_or(0.0, |state| state.rate)
    };
    for shards in [1.0, 3.0, 64.0, 1_000.0] {
        let base = rate(engine(0.001, 2.0, 0.0002, 0.001), shards, 0.5);
        assert!(base > 0.0);
        assert!(rate(engine(0.001, 4.0, 0.0002, 0.001), shards, 0.5) > base);
        assert!(rate(engine(0.001, 2.0, 0.0004, 0.001), shards, 0.5) < base);
        assert!(rate(engine(0.001, 2.0, 0.0002, 0.1), shards, 0.5) < base);
        assert!(rate(engine(0.001, 2.0, 0.0002, 0.001), 2.0 * shards, 0.5) <= base);
        assert!(rate(engine(0.001, 2.0, 0.0002, 0.001), shards, 1.0) >= base);
        // Batches grow with the rate, up to what is told as the most.
        let engine = engine(0.001, 2.0, 0.0002, 0.001);
        let most = engine.capacity(shards, 0.5).unwrap();
        let states = (1..=10).map(|part| engine.at(shards, most.rate * f64::from(part) / 10.0));
        let batches: Vec<f64> = states.map(|state| state.batch).collect();
        assert!(batches.is_sorted() && batches[0] >= 1.0, "{batches:?}");
        assert!((batches[9] - most.batch).abs() < 1e-3, "{batches:?}, {most:?}");
    }
    // A pass that takes longer than answers may.
    assert!(engine(0.001, 0.01, 0.0, 0.0).capacity(1.0, 0.5).is_none());
}

#[test]
fn as_measured() {
    // bench/record/2026-11-28-amd-epyc-2-cores-load: an engine with a core to itself.
    let mut one = scenario(1e6);
    one.utilisation_max = 0.7;
    let of = |scenario: &Scenario, records: &[Found]| {
        let plan = plan(scenario, &prices(), records).unwrap();
        plan.shapes[0].cpu.capacity.value
    };
    let apart = of(&one, &[epyc()]);
    println!("one standard shard, the engine alone: {apart}");
    assert!((apart / 591.0 - 1.0).abs() < 0.05, "{apart}");
    // Everything on that core: what was found, which says what a query takes beside its pass.
    let whole = of(&one, &[epyc(), load()]);
    println!("one standard shard: {whole}");
    assert!((whole / 541.7 - 1.0).abs() < 0.02, "{whole}");
    // With that, another shape: 64 shards of 2^16, 3200 to 3340 found, one host and 16 queries a
    // bundle.
    let mut many = one;
    many.records = 64.0 * 65_536.0;
    many.records_per_shard = vec![65_536];
    many.lookups_per_sync = 16.0;
    many.lookups_per_user_day = 16.0;
    let many = of(&many, &[epyc(), load()]);
    println!("64 shards of 2^16: {many}");
    assert!((3_000.0..3_700.0).contains(&many), "{many}");
}

#[test]
fn figures_say_where_they_come_from_and_what_is_extrapolated() {
    let mut scenario = scenario(1e7);
    let records = [epyc(), load()];
    scenario.host = "two".into();
    let own = plan(&scenario, &prices(), &records).unwrap();
    for figure in all(&own) {
        assert!(figure.value.is_finite() && figure.value >= 0.0, "{figure:?}");
        assert!(!figure.formula.is_empty() && !figure.sources.is_empty(), "{figure:?}");
        assert!(!figure.formula.contains("NaN") && !figure.formula.contains("inf"), "{figure:?}");
    }
    // Two cores were measured, and the standard shape; a query of one shard's load record.
    let cpu = &own.shapes[0].cpu;
    assert_eq!(cpu.hosts.extrapolated, None);
    let sources = cpu.hosts.sources.join("\n");
    assert!(sources.contains("kernel.json: answers[engine=avx512, threads=2]"), "{sources}");
    assert!(sources.contains("load.json: trials[rate=541.7].server.cpu_seconds"), "{sources}");
    // More cores, another shape, no load record: each is said.
    let why = |scenario: &Scenario, records: &[Found]| {
        let plan = plan(scenario, &prices(), records).unwrap();
        plan.shapes[0].cpu.hosts.extrapolated.clone().unwrap()
    };
    let other = Scenario { host: "many".into(), ..scenario.clone() };
    assert!(why(&other, &records).contains("2 cores measured, 64 taken"));
    let other = Scenario { records_per_shard: vec![1 << 18], ..scenario.clone() };
    assert!(why(&other, &records).contains("measured for shards of 242.2 MB"));
    assert!(why(&scenario, &[epyc()]).contains("no record of a server under load"));
    // As text, and as JSON and back.
    let text = own.text(Shown::Every);
    assert!(
        text.contains("hosts that each resource takes") && text.contains("kernel.json"),
        "{text}"
    );
    let written = serde_json::to_string(&own).unwrap();
    let read: Plan = serde_json::from_str(&written).unwrap();
    assert_eq!((&read.scenario, all(&read).len()), (&own.scenario, all(&own).len()));
    for (read, own) in all(&read).into_iter().zip(all(&own)) {
        // Numbers but for their last digit.
        assert!((read.value - own.value).abs() <= 1e-12 * own.value, "{read:?}, {own:?}");
        assert_eq!(Figure { value: own.value, ..read.clone() }, *own);
    }
}

#[test]
fn records_of_another_machine_are_used_and_said() {
    let mut load = load();
    let Record::Load(report) = &mut load.record else { panic!("it is one") };
    report.head.machine.cpu = Some("other".into());
    let plan = plan(&scenario(1e6), &prices(), &[load, epyc()]).unwrap();
    let why = plan.shapes[0].cpu.hosts.extrapolated.as_deref().unwrap();
    assert!(why.contains("measured on other, 2 cores, not on AMD EPYC, 2 cores"), "{why}");
}

#[test]
fn a_software_gpu_is_none_and_a_real_one_is_planned() {
    let spread = |us: f64| json!({ "best": us, "q1": us, "median": us, "q3": us, "runs": 5 });
    let answer = |batch: usize, us: f64| {
        json!({
            "batch": batch, "alone_us": spread(us), "streamed_us": spread(us), "prepare_us": 1.0,
            "scan_us": us / 2.0, "pack_us": us / 2.0, "finish_us": 1.0, "floor_us": 1.0,
            "alone_share": 0.5, "streamed_share": 0.5, "prepare_share": null,
            "scan_share": null, "pack_share": null, "finish_share": null,
            "reading_alone": [0.5, 0.5], "multiplying_alone": [0.5, 0.5],
            "multiplying_streamed": 0.5,
        })
    };
    let gpu = |software: bool| {
        let fields = json!({
            "effort": "full", "shape": standard(), "engine": "gpu",
            "device": {
                "name": "made up", "driver": "none", "software": software,
                "binding_bytes_max": 1, "buffer_bytes_max": 1, "workgroup_bytes_max": 1,
                "workgroup_threads_max": 1, "subgroup_sizes": [32, 32], "integers_64_bits": true,
                "features": "",
            },
            "floors": {
                "read_gb_per_s": 4000.0, "read_bytes": 1, "read_how": "", "narrow_g_per_s": 1.0,
                "wide_g_per_s": null, "dot_g_per_s": 1.0,
            },
            "answers": [answer(1, 200.0), answer(32, 50.0)],
            "uploads": {
                "shards": 1, "into_free_memory_gb_per_s": 1.0, "in_place_of_others_gb_per_s": 1.0,
                "while_answering_gb_per_s": 1.0, "batch": 1, "answers_per_s": 1.0,
                "answers_per_s_while_uploading": 1.0,
            },
            "traffic": { "shards": 1, "loops": [], "waited_for_upload": 0, "checked": 0 },
            "targets": [],
        });
        let gpu = serde_json::from_value(with_head("sotto-bench-gpu/1", fields)).unwrap();
        found("gpu.json", Record::Gpu(Box::new(gpu)))
    };
    // 64 shards, so that both GPUs of a host have some: 20 000 a second each in full passes.
    let mut scenario = scenario(4e7);
    scenario.records *= 64.0;
    let software = plan(&scenario, &prices(), &[epyc(), gpu(true)]).unwrap();
    assert!(matches!(software.shapes[0].gpu, GpuPlan::NotMeasured { .. }));
    let real = plan(&scenario, &prices(), &[epyc(), gpu(false)]).unwrap();
    let GpuPlan::Measured(host) = &real.shapes[0].gpu else { panic!("it was measured") };
    assert!((host.capacity.value - 40_000.0).abs() < 1.0, "{:?}", host.capacity);
    // 80 000 at the peak, half of 40 000 each: four hosts, eight GPUs.
    assert_eq!((host.hosts.value, host.units.value), (4.0, 8.0));
    assert_eq!((&*host.units.name, host.binds), ("GPUs", Resource::Arithmetic));
    assert_eq!(host.costs[1].value, 4.0 * 2.0 * 4.0 * 730.0);
    // One shard is on one GPU of a host.
    scenario.records /= 64.0;
    let real = plan(&scenario, &prices(), &[epyc(), gpu(false)]).unwrap();
    let GpuPlan::Measured(host) = &real.shapes[0].gpu else { panic!("it was measured") };
    assert_eq!(host.hosts.value, 8.0);
}

#[test]
fn mistakes_are_said() {
    let said = |scenario: &Scenario, records: &[Found]| {
        plan(scenario, &prices(), records).unwrap_err().to_string()
    };
    let good = scenario(1e6);
    assert!(said(&good, &[]).contains("run `sotto-bench kernel` here"));
    assert!(said(&good, &[load()]).contains("among 1 records"));
    let other = Scenario { host: "none".into(), ..good.clone() };
    assert!(
        said(&other, &[epyc()]).contains("found \"none\", expected one of the prices' hosts: one")
    );
    let other = Scenario { users: f64::NAN, ..good.clone() };
    assert!(said(&other, &[epyc()]).contains("scenario: users: found NaN, expected 1 to"));
    let other = Scenario { records_per_shard: Vec::new(), ..good.clone() };
    assert!(said(&other, &[epyc()]).contains("shapes: found 0"));
    // A pass of 8 ms, of which a schedule wants to see the end within 0.6 of 10.
    let other = Scenario { latency_ms: 10.0, ..good.clone() };
    assert!(said(&other, &[epyc()]).contains("a pass of one query takes 7.94 ms on one"));
    let other = Scenario { records: 1e12, records_per_shard: vec![1 << 20], ..good.clone() };
    assert!(said(&other, &[epyc()]).contains("more than the 65000"));
    let mut small = prices();
    small.hosts[0].memory_gib = 0.4;
    let error = plan(&good, &small, &[epyc()]).unwrap_err().to_string();
    assert!(error.contains("a shard takes 0.4843 GB of memory"), "{error}");
}

#[test]
fn what_is_shipped_can_be_planned() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let prices = Prices::read(&top.join("deploy/prices.toml")).unwrap();
    assert_eq!(Prices::shipped().unwrap(), prices);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(top.join("bench/scenarios")).unwrap() {
        let path = entry.unwrap().path();
        let scenario = Scenario::read(&path).unwrap();
        let plan = plan(&scenario, &prices, &[epyc(), load()]).unwrap();
        let missing = ["building", "starting", "new epoch"];
        assert_eq!(plan.warnings.len(), missing.len(), "{:?}", plan.warnings);
        for (warning, what) in plan.warnings.iter().zip(missing) {
            assert!(warning.contains(what), "{}: {warning}", path.display());
        }
        for figure in all(&plan) {
            assert!(figure.value.is_finite() && figure.value >= 0.0, "{figure:?}");
        }
        assert_eq!(plan.shapes.len(), scenario.records_per_shard.len());
        println!("{}", plan.text(Shown::First));
        names.push(path.file_stem().unwrap().to_str().unwrap().to_owned());
    }
    names.sort();
    assert_eq!(names, ["laptop", "large", "mimi", "small"]);
    // A key that is none is an error that names it.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wrong.toml");
    let text = std::fs::read_to_string(top.join("bench/scenarios/small.toml")).unwrap();
    std::fs::write(&path, text + "\nusres = 1\n").unwrap();
    let error = Scenario::read(&path).unwrap_err().to_string();
    assert!(error.contains("usres") && error.contains("wrong.toml"), "{error}");
    assert!(Scenario::read(&folder.path().join("none")).is_err());
}

#[test]
fn the_newest_kernel_record_says_of_which_machine() {
    let mut old = epyc();
    let Record::Kernel(kernel) = &mut old.record else { panic!("it is one") };
    let Head { date, machine, .. } = &mut kernel.head;
    *date = Some("2026-11-01T00:00:00Z".into());
    machine.cpu = Some("older".into());
    kernel.answers.iter_mut().for_each(|answer| answer.ms_per_query.median *= 10.0);
    let scenario = scenario(1e6);
    assert_eq!(hosts(&scenario, &[old, epyc()]), hosts(&scenario, &[epyc()]));
}

#[test]
fn of_many_records_the_newest_of_this_machine_are_taken() {
    let here = epyc().record.machine().clone();
    let mut of_others = load();
    let Record::Load(report) = &mut of_others.record else { panic!("it is one") };
    report.head.machine.logical_cpus = 4;
    let mut old = epyc();
    old.path = "old.json".into();
    let Record::Kernel(kernel) = &mut old.record else { panic!("it is one") };
    kernel.head.date = Some("2026-11-01T00:00:00Z".into());
    let mut other_shape = epyc();
    other_shape.path = "shape.json".into();
    let Record::Kernel(kernel) = &mut other_shape.record else { panic!("it is one") };
    kernel.shape.packs = 2;
    let records = vec![epyc(), old, other_shape, of_others, load()];
    let mut names: Vec<_> = newest(records, &here).into_iter().map(|found| found.path).collect();
    names.sort();
    assert_eq!(names, ["kernel.json", "load.json", "shape.json"].map(PathBuf::from));
}
