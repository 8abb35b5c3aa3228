//! Real records, changed in one place each.

use super::*;
use crate::found::Found;
use crate::plan::{Prices, Scenario, plan};
use crate::record::{Build, Kernel, Spread};

/// A record of this kind from bench/record, to be changed.
macro_rules! sample {
    ($kind:ident) => {{
        let Record::$kind(record) = Record::sample(stringify!($kind)) else { panic!("it is one") };
        *record
    }};
}

const KINDS: [&str; 6] = ["Load", "Kernel", "Gpu", "Build", "Startup", "Reload"];
const OPTIONS: CompareOptions = CompareOptions { tolerance: TOLERANCE, across: false };

fn compared(before: Record, after: Record) -> Comparison {
    compare(&before, &after, OPTIONS).unwrap()
}

fn worse(before: Record, after: Record) -> Vec<String> {
    let rows = compared(before, after).rows.into_iter();
    rows.filter(|row| row.verdict == Some(Verdict::Worse)).map(|row| row.what).collect()
}

/// Around a median, quartiles as far off as `share` of it.
fn spread(median: f64, share: f64) -> Spread {
    let at = |part: f64| median * (1.0 + part * share);
    Spread { best: at(-2.0), q1: at(-1.0), median, q3: at(1.0), runs: 16 }
}

fn build(seconds: Spread) -> Record {
    Record::Build(Box::new(Build { seconds, ..sample!(Build) }))
}

fn building(before: Spread, after: Spread) -> Row {
    let rows = compared(build(before), build(after)).rows;
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
        let row = building(before, after);
        assert_eq!(row.verdict, Some(verdict), "{before:?} {after:?} {row:?}");
    }
    // Twice a notch: 1.57 times a distance of quartiles of a tenth over the root of 16.
    let noise = building(noisy(10.0), noisy(10.0)).noise.unwrap();
    assert!((noise - 2.0 * 1.57 * 0.2 / 4.0).abs() < 1e-9, "{noise}");
}

#[test]
fn what_was_measured_once_is_allowed_a_quarter_and_what_is_counted_nothing() {
    let verdict = |memory: f64, database: f64, what: &str| {
        let (before, mut after) = (sample!(Build), sample!(Build));
        after.peak_memory_bytes = (before.peak_memory_bytes as f64 * memory) as u64;
        after.content.database_bytes = (before.content.database_bytes as f64 * database) as u64;
        let rows = compared(Record::Build(before.into()), Record::Build(after.into())).rows;
        rows.into_iter().find(|row| row.what == what).unwrap().verdict.unwrap()
    };
    assert_eq!(verdict(1.02, 1.0, "most memory"), Verdict::Same);
    assert_eq!(verdict(1.2, 1.0, "most memory"), Verdict::Unclear);
    assert_eq!(verdict(1.28, 1.0, "most memory"), Verdict::Worse);
    assert_eq!(verdict(1.0, 1.01, "database"), Verdict::Same);
    assert_eq!(verdict(1.0, 1.04, "database"), Verdict::Worse);
}

/// Answers took so many times as long, and so did everything that no program can beat.
fn kernel(answers: f64, floors: f64) -> Record {
    let mut kernel: Kernel = sample!(Kernel);
    let scaled = |spread: &mut Spread, by: f64| {
        let Spread { best, q1, median, q3, runs } = *spread;
        *spread = Spread { best: best * by, q1: q1 * by, median: median * by, q3: q3 * by, runs };
    };
    kernel.floors.read.iter_mut().for_each(|read| read.ms *= floors);
    for answer in &mut kernel.answers {
        scaled(&mut answer.ms_per_query, answers);
        answer.floor_ms = answer.floor_ms.map(|ms| ms * floors);
    }
    for cold in &mut kernel.cold {
        scaled(&mut cold.ms, if cold.engine.is_some() { answers } else { floors });
    }
    Record::Kernel(kernel.into())
}

#[test]
fn what_the_floors_did_too_is_the_machines_doing() {
    let cases = [
        (2.0, 1.0, Verdict::Worse),
        (2.0, 2.0, Verdict::Unclear),
        (4.0, 2.0, Verdict::Worse),
        (0.5, 1.0, Verdict::Better),
        (0.5, 0.5, Verdict::Unclear),
    ];
    for (answers, floors, verdict) in cases {
        let rows = compared(kernel(1.0, 1.0), kernel(answers, floors)).rows;
        for row in rows.iter().filter(|row| row.what.starts_with("avx") && row.best.is_some()) {
            assert_eq!(row.verdict, Some(verdict), "{answers} {floors} {row:?}");
            let is_said = row.note.contains("machine's doing");
            assert_eq!(is_said, verdict == Verdict::Unclear, "{row:?}");
        }
        // Floors and parts are shown, and nobody's fault.
        for row in &rows {
            let is_part = row.what.starts_with("floor") || row.what.ends_with(": scan");
            assert!(!is_part || row.verdict.is_none(), "{row:?}");
        }
    }
}

#[test]
fn what_cannot_be_compared_is_said() {
    let mut machine = sample!(Kernel);
    machine.head.machine.cpu = Some("Intel Xeon".into());
    let mut shape = sample!(Kernel);
    shape.shape.columns = 8_640;
    let cases = [
        ("machine: found AMD EPYC, 2 cores, x86_64 and Intel Xeon, 2", machine),
        ("4 packs of 2048 rows x 17280 columns", shape),
    ];
    for (expected, other) in cases {
        let (before, after) = (Record::sample("Kernel"), Record::Kernel(other.into()));
        let told = compare(&before, &after, OPTIONS).unwrap_err();
        assert!(told.contains(expected), "{told}");
        let across = CompareOptions { across: true, ..OPTIONS };
        assert!(compare(&before, &after, across).unwrap().notes[0].contains("not the same"));
    }
    let told = compare(&Record::sample("Kernel"), &Record::sample("Build"), OPTIONS).unwrap_err();
    assert!(told.contains("sotto-bench-kernel/1 and one of sotto-bench-build/1"));
}

#[test]
fn rates_of_a_server_are_compared_at_equal_rates_and_beside_its_limit() {
    let rate = sample!(Load).trials[0].rate;
    let verdict = |change: &dyn Fn(&mut crate::load::Report), what: &str| {
        let mut after = sample!(Load);
        change(&mut after);
        let found = compared(Record::sample("Load"), Record::Load(after.into()));
        let row = found.rows.iter().find(|row| row.what == what);
        row.unwrap_or_else(|| panic!("no {what}: {found:?}")).verdict
    };
    // Everything of it at lower rates.
    let lower = |share: f64| {
        move |report: &mut crate::load::Report| {
            report.limit.as_mut().unwrap().rate *= share;
            for trial in &mut report.trials[1..] {
                trial.rate *= share;
                trial.goodput *= share;
            }
        }
    };
    assert_eq!(verdict(&lower(0.5), "limit"), Some(Verdict::Worse));
    assert_eq!(verdict(&lower(0.5), "at the limit: good"), Some(Verdict::Worse));
    assert_eq!(verdict(&lower(0.5), "at the limit: p99"), None, "limits differ");
    // Walks end within 5%: so much is no change.
    assert_eq!(verdict(&lower(0.96), "limit"), Some(Verdict::Unclear));
    let slower = |report: &mut crate::load::Report| {
        report.trials[0].latency_ms.p50 *= 4.0;
        report.trials[0].goodput /= 4.0;
    };
    let at = |part: &str| format!("at {rate:.1} a second: {part}");
    assert_eq!(verdict(&slower, &at("p50")), Some(Verdict::Worse));
    assert_eq!(verdict(&slower, &at("slowest")), None);
    // What is refused or late is missed by what is good.
    assert_eq!(verdict(&slower, &at("good")), Some(Verdict::Worse));
}

#[test]
fn wrong_answers_are_worse_and_invalid_runs_say_nothing() {
    let mut after = sample!(Load);
    let rate = after.trials[0].rate;
    after.trials[0].invalid = Some("the generator does not keep up".into());
    after.trials[1].verified.wrong = 1;
    let found = compared(Record::sample("Load"), Record::Load(after.into()));
    let worse = found.rows.iter().filter(|row| row.verdict == Some(Verdict::Worse));
    assert_eq!(worse.map(|row| &*row.what).collect::<Vec<_>>(), ["wrong answers"]);
    let gone = format!("at {rate:.1} a second");
    assert!(!found.only_before.is_empty());
    assert!(found.only_before.iter().all(|what| what.contains(&gone)), "{found:?}");
    assert!(found.notes.iter().any(|note| note.contains("INVALID, left out:")), "{found:?}");
}

#[test]
fn the_table_says_all_or_only_what_changed() {
    let found = compared(build(spread(10.0, 0.002)), build(spread(12.0, 0.002)));
    let all = found.table(false);
    let building = all.lines().find(|line| line.starts_with("building ")).unwrap();
    assert!(building.contains(" 10 ") && building.contains(" 12 "), "{all}");
    assert!(building.contains("+20.0%") && building.ends_with("WORSE"), "{all}");
    assert!(all.trim_end().lines().last().unwrap().contains("1 WORSE"), "{all}");
    let changed = found.table(true);
    assert!(changed.contains("building ") && !changed.contains("database"), "{changed}");
}

#[test]
fn a_record_is_the_same_as_itself() {
    for kind in KINDS {
        let found = compared(Record::sample(kind), Record::sample(kind));
        let changed = found.count(Verdict::Better) + found.count(Verdict::Worse);
        assert!(changed == 0 && found.count(Verdict::Same) >= 1, "{found:?}");
        assert!(found.only_before.is_empty() && found.only_after.is_empty(), "{found:?}");
        let mut names: Vec<_> = found.rows.iter().map(|row| &row.what).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), found.rows.len(), "numbers are told apart by their names");
    }
}

#[test]
fn every_kind_can_be_worse() {
    let mut reload = sample!(Reload);
    reload.lost = 1;
    assert_eq!(worse(Record::sample("Reload"), Record::Reload(reload.into())), ["look-ups lost"]);
    let mut startup = sample!(Startup);
    startup.warm.ready_ms = spread(1e4, 0.01);
    let later = worse(Record::sample("Startup"), Record::Startup(startup.into()));
    assert_eq!(later, ["cached: ready"]);
    let mut gpu = sample!(Gpu);
    gpu.answers[0].alone_us = spread(1e6, 0.01);
    gpu.uploads.while_answering_gb_per_s /= 2.0;
    let slower = worse(Record::sample("Gpu"), Record::Gpu(gpu.into()));
    assert_eq!(slower, ["batch 1, alone", "upload while answering"]);
}

/// All names of fields in it, but not those of maps, which are no fields, nor those of scenario and
/// prices, which their files explain.
fn names(value: &serde_json::Value, found: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(fields) => {
            for (name, value) in fields {
                found.push(name.clone());
                match value {
                    _ if ["scenario", "prices"].contains(&&**name) => {}
                    serde_json::Value::Object(map)
                        if ["peaks_g_per_s", "work", "errors"].contains(&&**name) =>
                    {
                        map.values().for_each(|value| names(value, found));
                    }
                    value => names(value, found),
                }
            }
        }
        serde_json::Value::Array(values) => values.iter().for_each(|value| names(value, found)),
        _ => {}
    }
}

#[test]
fn the_guide_explains_every_field() {
    let guide = include_str!("../../README.md");
    let records = KINDS.map(|kind| Found { path: kind.into(), record: Record::sample(kind) });
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let scenario = Scenario::read(&folder.join("scenarios/mimi.toml")).unwrap();
    let plan = plan(&scenario, &Prices::shipped().unwrap(), &records).unwrap();
    let mut values = vec![serde_json::to_value(plan).unwrap()];
    values.extend(records.iter().map(|found| serde_json::to_value(&found.record).unwrap()));
    let mut missing = Vec::new();
    values.iter().for_each(|value| names(value, &mut missing));
    missing.retain(|name| ["`", "."].iter().all(|at| !guide.contains(&format!("{at}{name}`"))));
    missing.dedup();
    assert!(missing.is_empty(), "bench/README.md does not say what these are: {missing:?}");
}
