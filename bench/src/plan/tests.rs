//! Plans from records of bench/record, some of them changed.

use std::path::{Path, PathBuf};

use super::*;
use crate::found::{Found, Record};
use crate::record::{Answer, Spread};

fn found(name: &str, record: Record) -> Found {
    Found { path: PathBuf::from(name), record }
}

fn epyc() -> Found {
    found("kernel.json", Record::sample("Kernel"))
}

/// A server on one core that holds 541.7 queries a second to one standard shard of four packs.
fn load() -> Found {
    let Record::Load(mut load) = Record::sample("Load") else { panic!("it is one") };
    load.trials.truncate(1);
    let trial = &mut load.trials[0];
    (trial.rate, trial.throughput, trial.goodput, trial.within) = (541.7, 541.7, 541.7, true);
    let server = trial.server.as_mut().unwrap();
    (server.seconds, server.cpu_seconds, server.answers) = (10.0, 10.0, 5_417);
    (server.batch_mean, server.scan_ms, server.pack_ms) = (31.9, 0.908, 0.688);
    found("load.json", Record::Load(load))
}

fn gpu(software: bool) -> Found {
    let Record::Gpu(mut gpu) = Record::sample("Gpu") else { panic!("it is one") };
    gpu.device.software = software;
    gpu.answers.truncate(2);
    for (answer, (batch, us)) in gpu.answers.iter_mut().zip([(1, 200.0), (32, 50.0)]) {
        answer.batch = batch;
        answer.streamed_us.median = us;
    }
    found("gpu.json", Record::Gpu(gpu))
}

fn as_kernel(mut found: Found, change: impl FnOnce(&mut crate::record::Kernel)) -> Found {
    let Record::Kernel(kernel) = &mut found.record else { panic!("it is one") };
    change(kernel);
    found
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
        inside_gb: 0.01,
        stored_gb_month: 0.1,
        store_gb_month: 0.0,
        store_writes_thousand: 0.0,
        store_reads_thousand: 0.0,
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
        // The shape of the record.
        packs: Some(4),
        latency_ms: 500.0,
        replication: 1,
        failed_hosts: 0,
        utilisation_max: 0.5,
        epoch_hours: 24.0,
        changed_share: 1.0,
        epochs_in_memory: 2.0,
        build_hours: None,
        shuffle_us_per_record: 0.0,
        build_host: None,
        asks: Asks::Device,
        front_ends: 1.0,
        front_end_mb_per_core_s: 100.0,
        front_end_host: "two".into(),
        host: "one".into(),
        gpu_host: "gpu".into(),
    }
}

fn hosts(scenario: &Scenario, records: &[Found]) -> f64 {
    plan(scenario, &prices(), records).unwrap().shapes[0].cpu.hosts.value
}

fn all(plan: &Plan) -> Vec<&Figure> {
    let shapes = plan.shapes.iter().flat_map(ShapePlan::groups);
    plan.demand.iter().chain(shapes.flat_map(|(_, figures)| figures)).collect()
}

fn figure<'a>(figures: &'a [Figure], name: &str) -> &'a Figure {
    figures.iter().find(|figure| figure.name == name).unwrap()
}

#[test]
fn by_hand() {
    // A batch takes 10 ms and 1 ms for each query but the first: 32 of them take 41 ms.
    let records = [as_kernel(epyc(), |kernel| {
        let like = kernel.answers[0].clone();
        let answer = |batch, median| {
            let ms_per_query = Spread { median, ..like.ms_per_query };
            Answer { batch, ms_per_query, ..like.clone() }
        };
        kernel.answers = vec![answer(1, 10.0), answer(32, 41.0 / 32.0)];
    })];
    let prices = prices();
    // A thousandth of a look-up a second each: 500 a second, 1000 at the peak.
    let plan = plan(&scenario(5e5), &prices, &records).unwrap();
    assert_eq!((plan.demand[0].value, plan.demand[1].value), (500.0, 1_000.0));
    let shape = &plan.shapes[0];
    assert_eq!((shape.shards, shape.shape.query_bytes), (1, 51_840));
    let cpu = &shape.cpu;
    // Full batches: 32 / 41 ms = 780 a second, half of which is asked: 2.56 hosts.
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
    // 3 cores for 730 hours; 5e5 devices' answers and hints; 3 copies of three epochs.
    let hints = 17_408.0;
    let sent = 5e5 * (86.4 * 12_288.0 + hints) * 730.0 / 24.0 / 1e9 * 0.05;
    let stored = 3.0 * 3.0 * (shard + hints) / 1e9 * 0.1;
    assert!((cpu.cost_month.value - (3.0 * 0.05 * 730.0 + sent + stored)).abs() < 1e-6);
    let millions = 5e5 * 86.4 * 730.0 / 24.0 / 1e6;
    assert!((cpu.cost_million.value - cpu.cost_month.value / millions).abs() < 1e-9);
    // A device: a bundle for each look-up.
    assert_eq!(figure(&shape.device, "bundles a day").value, 86.4);
    assert_eq!(figure(&shape.device, "down a day: hints").value, hints);
}

#[test]
fn a_front_end_by_hand() {
    let scenario = Scenario { asks: Asks::FrontEnd, packs: None, ..scenario(5e5) };
    let plan = plan(&scenario, &prices(), &[epyc()]).unwrap();
    let shape = &plan.shapes[0];
    let device = 86.4 * 2_816.0 + 8.0 * (1.0 - (7f64 / 8.0).powf(86.4)) * 4_352.0;
    let down = figure(&shape.device, "down a day: answers").value
        + figure(&shape.device, "down a day: hints").value;
    assert!((down - device).abs() < 1e-6, "{down}, {device}");
    // A bundle for each look-up; all packs, and once a day the hints of all.
    let front_ends = shape.cpu.front_ends.as_ref().unwrap();
    let (up, all) = (26_304.0 + 24_576.0, 22_528.0 + 34_816.0 / 86_400.0 / 1_000.0);
    let said = |name: &str| figure(&front_ends.figures, name).value;
    assert!((said("a look-up: from the device") - up).abs() < 1e-6);
    assert!((said("a look-up: to the servers") - up).abs() < 1e-6);
    assert!((said("a look-up: to the device") - device / 86.4).abs() < 1e-6);
    assert!((said("a look-up: from the servers") - all).abs() < 1e-9);
    // 1000 a second at the peak; 100 MB a second of a core, of which a host has two, half of it.
    let moved = 2.0 * up + all + device / 86.4;
    assert!((said("arithmetic") - 1e3 * moved / 1e8 / 2.0 / 0.5).abs() < 1e-9);
    assert!(
        (said("network") - 8e3 * (up + device / 86.4).max(up + all) / 100e9 / 0.5).abs() < 1e-9
    );
    assert_eq!(front_ends.hosts.value, 2.0);
    let between = 5e5 * 86.4 * 730.0 / 24.0 * (up + all) / 1e9 * 0.01;
    let cost = 2.0 * 2.0 * 0.05 * 730.0 + between;
    assert!((front_ends.cost_month.value / cost - 1.0).abs() < 1e-9);
    assert!(front_ends.cost_month.extrapolated.as_ref().unwrap().contains("assumed"));
    assert_eq!(figure(&shape.cpu.costs, "front-ends").value, front_ends.cost_month.value);
    assert!(shape.cpu.cost_million.extrapolated.as_ref().unwrap().contains("assumed"));
    let direct = Scenario { asks: Asks::Device, ..scenario };
    let direct = self::plan(&direct, &prices(), &[epyc()]).unwrap();
    assert_eq!(direct.shapes[0].cpu.front_ends, None);
}

#[test]
fn packs_side_by_side() {
    let scenario = Scenario { packs: None, lookups_per_sync: 16.0, ..scenario(5e5) };
    let scenario = Scenario { records: 1024.0 * 1_048_576.0, ..scenario };
    let plan = plan(&scenario, &prices(), &[epyc()]).unwrap();
    let packs = &plan.shapes[0].packs;
    let said = |at: usize, name: &str| figure(&packs[at].figures, name);
    for (at, (count, up, one, all)) in
        [(4, 51_840, 7_424, 29_696), (8, 26_304, 7_168, 57_344), (16, 13_440, 7_168, 114_688)]
            .into_iter()
            .enumerate()
    {
        assert_eq!(packs[at].shape.packs, count);
        let bundle = said(at, "up").value - f64::from(up);
        assert!((1_536.0..1_800.0).contains(&bundle), "{bundle}");
        assert_eq!(said(at, "down, one pack").value, f64::from(one));
        assert_eq!(said(at, "down, all packs").value, f64::from(all));
        assert_eq!(said(at, "records a pack").value, 1_048_576.0 / f64::from(count));
    }
    assert_eq!(said(1, "a shard in memory").value, 143_654_912.0 + 201_228_288.0);
    // Four packs were measured; of eight the pack takes twice as long, the scan hardly more.
    let times = [0, 1, 2].map(|at| said(at, "core time").value);
    assert!(times.is_sorted() && times[1] < 1.6 * times[0], "{times:?}");
    assert_eq!(said(0, "core time").extrapolated, None);
    assert!(said(1, "core time").extrapolated.as_ref().unwrap().contains("each stage scaled"));
    // The plan's own are among them, and what is told beside it is the same.
    assert_eq!(said(1, "hosts").value, plan.shapes[0].cpu.hosts.value);
    assert_eq!(said(1, "a million").value, plan.shapes[0].cpu.cost_million.value);
    let text = plan.text(false);
    let row = text.lines().find(|line| line.starts_with("8*")).unwrap();
    assert!(row.contains("7.168 KB") && row.contains("344.9 MB"), "{text}");
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
    // So many would have room for the mean, and not for the shard more that a placement may give.
    assert_eq!((cpu.hosts.value, cpu.binds), (least + 1.0, Resource::Memory));
    let fullest = figure(&cpu.figures, "shards of the fullest host").value;
    assert_eq!(fullest, (4096.0 * 3.0 / (least + 1.0)).ceil() + 1.0);
    assert!(fullest * shard <= 64.0 * (1u64 << 30) as f64);
    assert_eq!(cpu.batch.value, 1.0);
    // Copies, where nothing else does.
    let mut scenario = self::scenario(1.0);
    (scenario.replication, scenario.failed_hosts) = (3, 2);
    let plan = self::plan(&scenario, &prices(), &[epyc()]).unwrap();
    let cpu = &plan.shapes[0].cpu;
    assert_eq!((cpu.hosts.value, cpu.binds), (5.0, Resource::Copies));
}

#[test]
fn building_and_fetching_by_hand() {
    let scenario = Scenario {
        records: 64.0 * 1_048_576.0,
        replication: 2,
        epoch_hours: 24.0,
        build_hours: Some(0.5),
        build_host: Some("two".into()),
        shuffle_us_per_record: 3.0,
        ..scenario(1e3)
    };
    let prices = Prices {
        store_gb_month: 0.02,
        store_writes_thousand: 5.0,
        store_reads_thousand: 0.5,
        ..prices()
    };
    let records = [epyc(), found("build.json", Record::sample("Build"))];
    let Record::Build(build) = &records[1].record else { panic!("it is one") };
    let plan = plan(&scenario, &prices, &records).unwrap();
    let cpu = &plan.shapes[0].cpu;
    let said = |name: &str| figure(&cpu.figures, name).value;
    let file = plan.shapes[0].shape.shard_bytes() as f64;
    // Each shard, the manifest and the announcement; each header, and two copies in ranges.
    assert_eq!(said("requests to the object store that write, an epoch"), 66.0);
    let reads = 64.0 + 128.0 * (file / (8 << 20) as f64).ceil();
    assert_eq!(said("requests that read, an epoch"), reads);
    let fullest = said("shards of the fullest host");
    assert_eq!(fullest, ((128.0 / cpu.hosts.value).ceil() + 1.0).min(64.0));
    let seconds = said("time in which the fullest host can fetch an epoch");
    assert!((seconds - fullest * file * 8.0 / 100e9).abs() < 1e-9);
    let from = build.content.shape.scan_bytes() as f64;
    let encode = build.cpu_seconds.median / f64::from(build.content.shards)
        * plan.shapes[0].shape.scan_bytes() as f64
        / from;
    let hours = (64.0 * encode + scenario.records * 3e-6) / 3600.0;
    assert!((said("core-hours of building an epoch") / hours - 1.0).abs() < 1e-9);
    assert!((said("cores that build, to be done in time") / (hours / 0.5) - 1.0).abs() < 1e-9);
    assert_eq!(said("hosts that build"), (hours / 0.5 / 2.0).ceil());
    let epochs = 730.0 / 24.0;
    let building = figure(&cpu.costs, "building epochs").value;
    assert!((building / (hours * epochs * 0.05) - 1.0).abs() < 1e-9);
    let stored = 64.0 * 3.0 * file / 1e9 * 0.02;
    let requests = epochs * (66.0 * 5.0 + reads * 0.5) / 1e3;
    let store = figure(&cpu.costs, "object store").value;
    assert!((store / (stored + requests) - 1.0).abs() < 1e-9, "{store}");
}

#[test]
fn what_is_harder_never_takes_fewer_hosts() {
    let records = [epyc(), load()];
    let base = || {
        let mut scenario = scenario(4e6);
        (scenario.records, scenario.packs) = (256.0 * 1_048_576.0, None);
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
fn as_measured() {
    // bench/record/2026-11-28-amd-epyc-2-cores-load: an engine with a core to itself.
    let mut one = scenario(1e6);
    one.utilisation_max = 0.7;
    let of = |scenario: &Scenario, records: &[Found]| {
        let plan = plan(scenario, &prices(), records).unwrap();
        plan.shapes[0].cpu.capacity.value
    };
    let apart = of(&one, &[epyc()]);
    assert!((apart / 591.0 - 1.0).abs() < 0.05, "{apart}");
    // Everything on that core: what was found, which says what a query takes beside its batch.
    let whole = of(&one, &[epyc(), load()]);
    assert!((whole / 541.7 - 1.0).abs() < 0.02, "{whole}");
    // With that, another shape: 64 shards of 2^16, 3200 to 3340 found, one host and 16 queries a
    // bundle.
    let mut many = Scenario { packs: None, ..one };
    many.records = 64.0 * 65_536.0;
    many.records_per_shard = vec![65_536];
    many.lookups_per_sync = 16.0;
    many.lookups_per_user_day = 16.0;
    let many = of(&many, &[epyc(), load()]);
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
    // Two cores were measured, and four packs; a query of one shard's load record.
    let cpu = &own.shapes[0].cpu;
    assert_eq!(cpu.hosts.extrapolated, None);
    let sources = cpu.hosts.sources.join("\n");
    assert!(sources.contains("kernel.json: answers[engine=avx512, threads=2]"), "{sources}");
    assert!(sources.contains("load.json: trials[rate="), "{sources}");
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
    let text = own.text(true);
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
    let scenario = scenario(1e6);
    let plan = plan(&scenario, &prices(), &[load, epyc()]).unwrap();
    let why = plan.shapes[0].cpu.hosts.extrapolated.as_deref().unwrap();
    assert!(why.contains("measured on other, 2 cores, not on AMD EPYC, 2 cores"), "{why}");
    // The newest kernel record says of which machine a plan is.
    let old = as_kernel(epyc(), |kernel| {
        kernel.head.date = Some("2026-11-01T00:00:00Z".into());
        kernel.head.machine.cpu = Some("older".into());
        kernel.answers.iter_mut().for_each(|answer| answer.ms_per_query.median *= 10.0);
    });
    assert_eq!(hosts(&scenario, &[old, epyc()]), hosts(&scenario, &[epyc()]));
}

#[test]
fn a_software_gpu_is_none_and_a_real_one_is_planned() {
    // 64 shards, so that both GPUs of a host have some: 20 000 a second each in full batches.
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
    // A batch of 8 ms, of which a schedule wants to see the end within 0.6 of 10.
    let other = Scenario { latency_ms: 10.0, ..good.clone() };
    assert!(said(&other, &[epyc()]).contains("a batch of one query takes 8"));
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
        assert!(plan.warnings.len() == 1 && plan.warnings[0].contains("building"));
        for figure in all(&plan) {
            assert!(figure.value.is_finite() && figure.value >= 0.0, "{figure:?}");
        }
        assert_eq!(plan.shapes.len(), scenario.records_per_shard.len());
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
