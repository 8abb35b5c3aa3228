//! `sotto-bench observer` as it is run: text, record and picture agree, and the guide says what
//! each field is.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::process::Command;

#[test]
fn a_quick_simulation_is_printed_and_written() {
    let folder = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let program = env!("CARGO_BIN_EXE_sotto-bench");
        Command::new(program).current_dir(&folder).arg("observer").args(arguments).output().unwrap()
    };
    let ended = run(&["--quick", "--json", "observer.json", "--svg", "observer.svg"]);
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
    let printed = String::from_utf8(ended.stdout).unwrap();
    assert!(printed.ends_with(&read("observer.txt")), "{printed}");
    let record: serde_json::Value = serde_json::from_str(&read("observer.json")).unwrap();
    assert_eq!(record["schema"], "sotto-bench-observer/1");
    let rule = record["links"][0]["rule"].as_str().unwrap();
    assert!(printed.contains(rule) && read("observer.svg").contains(rule));
    let guide = include_str!("../README.md");
    let mut names = Vec::new();
    fields(&record, &mut names);
    names.retain(|name| !guide.contains(&format!("`{name}`")));
    assert!(names.is_empty(), "bench/README.md does not say what these are: {names:?}");
    // A place that cannot be written is said before the work.
    let wrong = run(&["--svg", "none/observer.svg"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("none/observer.svg"));
}

fn fields(value: &serde_json::Value, names: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(members) => members.iter().for_each(|(name, value)| {
            names.push(name.clone());
            fields(value, names);
        }),
        serde_json::Value::Array(values) => values.iter().for_each(|value| fields(value, names)),
        _ => {}
    }
}
