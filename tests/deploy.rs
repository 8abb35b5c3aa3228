//! What `deploy` ships: its unit and configuration start a server that answers, its keys are
//! options, the metrics it names exist, every alert is tried and has an entry in the runbook.
//! `federation` has what is about relay and front-end alone, `registration` what is about
//! registrar, log and key service.

#![allow(clippy::unwrap_used)]

#[cfg(feature = "front-end")]
#[path = "deploy/federation.rs"]
mod federation;
mod harness;
#[cfg(feature = "registration")]
#[path = "deploy/registration.rs"]
mod registration;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use harness::program::{KNOWN, Made, Program, run, sotto};
use sotto::wire::Status;

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy")
}

fn text(name: &str) -> String {
    fs::read_to_string(deploy().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Every file below `deploy`, with its text.
fn all_texts() -> Vec<(PathBuf, String)> {
    let files = harness::tree(&deploy()).into_iter().filter(|path| path.is_file());
    let found: Vec<_> =
        files.map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect();
    assert!(found.len() > 15, "{found:?}");
    found
}

/// Words of lower-case letters, digits and underscores that begin so.
fn words<'a>(text: &'a str, start: &'a str) -> impl Iterator<Item = &'a str> {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    text.split(move |c| !inner(c)).filter(move |word| word.starts_with(start))
}

/// Values of `name = ...` lines of a unit file.
fn settings<'a>(unit: &'a str, name: &str) -> Vec<&'a str> {
    let start = format!("{name}=");
    unit.lines().filter_map(|line| line.strip_prefix(&start)).collect()
}

/// The configuration that is shipped, with a test's folders in place of the system's.
fn shipped_configuration(made: &Made) -> String {
    let folder = made.folder().to_str().unwrap();
    let shipped = text("sotto.toml");
    let renamed = [
        ("/var/lib/sotto", folder.to_owned()),
        ("/etc/sotto/clients-ca.pem", format!("{folder}/certs/ca.pem")),
        ("/etc/sotto/server", format!("{folder}/certs/server")),
        ("0.0.0.0:4433", "127.0.0.1:0".to_owned()),
        ("# admin = \"127.0.0.1:9464\"", "# admin = \"off\"".to_owned()),
    ];
    renamed.iter().fold(shipped, |text, (from, to)| {
        assert!(text.contains(from), "{from} is not in sotto.toml");
        text.replace(from, to)
    })
}

#[tokio::test]
async fn the_shipped_unit_and_configuration_start_a_server_that_answers() {
    let made = Made::new();
    let configuration = made.write("sotto.toml", &shipped_configuration(&made));
    let unit = text("sotto.service");
    let start = settings(&unit, "ExecStart");
    let command: Vec<&str> = start[0].split(' ').collect();
    assert_eq!((start.len(), command[0]), (1, "/usr/bin/sotto"));
    assert_eq!(command.last(), Some(&"/etc/sotto/sotto.toml"));
    let inner = &command[1..command.len() - 1];
    let mut server = sotto(&[inner, &[&configuration]].concat());
    // The admin port's default may be taken on this machine; the rest is as shipped.
    server.env("SOTTO_ADMIN", "off").env("SOTTO_LOG", "warn");
    let server = Program::start(server, None);
    let (address, certs) = (format!("localhost:{}", server.address.port()), made.path("certs"));
    let mut lookup = sotto(&["lookup", "--server", &address, "--accept-shard-records", "50"]);
    lookup.arg("--ca").arg(certs.join("ca.pem"));
    lookup.arg("--client-cert").arg(certs.join("client.pem"));
    lookup.arg("--client-key").arg(certs.join("client.key"));
    lookup.arg("--operator-key").arg(made.path("db/operator.pub")).arg(KNOWN.0);
    let (code, out, err) = run(&mut lookup);
    assert_eq!((code, out), (0, format!("{}\t{}\n", KNOWN.0, KNOWN.1)), "{err}");
    // What the unit says of leaving is long enough for all that the server may wait for.
    use sotto::limits::{CLOSE_TIMEOUT, DRAIN_TIMEOUT, ENGINES_LEAVE_TIMEOUT};
    let leaves = (DRAIN_TIMEOUT + ENGINES_LEAVE_TIMEOUT + CLOSE_TIMEOUT).as_secs();
    let patience: u64 = settings(&unit, "TimeoutStopSec")[0].parse().unwrap();
    assert!(patience > leaves, "{patience} s, and leaving may take {leaves}");
    assert_eq!(settings(&unit, "ExecReload"), ["kill -HUP $MAINPID"]);
    server.signal(rustix::process::Signal::HUP);
    server.leave().await;
}

/// Keys of lines `key = value`, those that are commented out too.
fn keys(toml: &str) -> BTreeSet<&str> {
    let is_key = |key: &&str| {
        !key.is_empty() && !key.contains(|c: char| c != '-' && !c.is_ascii_lowercase())
    };
    let lines = toml.lines().map(|line| line.trim_start_matches("# "));
    lines.filter_map(|line| Some(line.split_once(" =")?.0)).filter(is_key).collect()
}

#[test]
fn the_shipped_configuration_has_every_option() {
    let (code, out, err) = run(&mut sotto(&["config"]));
    assert_eq!(code, 0, "{err}");
    let shipped = text("sotto.toml");
    let missing: Vec<_> = keys(&out).difference(&keys(&shipped)).cloned().collect();
    assert!(missing.is_empty(), "sotto.toml does not speak of {missing:?}");
}

/// The names in a list of metrics in `tests`.
fn metrics(list: &str) -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(list);
    let mut names = BTreeSet::new();
    for line in fs::read_to_string(path).unwrap().lines() {
        let [name, kind, _labels] = line.split(' ').collect::<Vec<_>>()[..] else {
            panic!("{line:?}: expected `name type labels`");
        };
        names.insert(name.to_owned());
        if kind == "histogram" {
            names.extend(["bucket", "sum", "count"].map(|part| format!("{name}_{part}")));
        }
    }
    names
}

/// Metrics in a text, each with a label and the values that it has or is compared with there.
fn selectors(text: &str) -> Vec<(String, String, Vec<String>)> {
    let text = text.replace('\\', "");
    let mut found = Vec::new();
    for (at, _) in text.match_indices("sotto_") {
        let name = words(&text[at..], "sotto_").next().unwrap();
        let Some(inner) = text[at + name.len()..].strip_prefix('{') else { continue };
        for matcher in inner.split('}').next().unwrap().split(',') {
            let (label, values) = matcher.split_once('=').unwrap();
            let values = values.trim_matches(['~', '"']).split('|').map(str::to_owned).collect();
            let label = label.trim_matches([' ', '!']).to_owned();
            found.push((name.to_owned(), label, values));
        }
    }
    found
}

#[test]
fn every_metric_that_is_named_exists() {
    let of_server = metrics("metrics.txt");
    let lists = ["relay", "front-end", "registrar", "log", "keys"];
    let lists = lists.map(|program| metrics(&format!("metrics-{program}.txt")));
    let mut named = BTreeSet::new();
    for (path, text) in all_texts() {
        for name in words(&text, "sotto_").chain(words(&text, "process_")) {
            let exists = of_server.contains(name) || lists.iter().any(|list| list.contains(name));
            assert!(exists, "{}: {name} is no metric", path.display());
            named.insert(name.to_owned());
        }
    }
    assert!(named.len() > 90, "{named:?}");
    // Values of labels, where a list of them is part of the program.
    let outcomes = Status::ALL.map(|status| status.name().to_ascii_lowercase());
    for (path, text) in all_texts() {
        for (name, label, values) in selectors(&text) {
            if label == "outcome" && of_server.contains(&name) {
                let known = values.iter().all(|value| outcomes.contains(value));
                assert!(known, "{}: {name}, outcome {values:?}", path.display());
            }
        }
    }
}

#[test]
fn every_alert_is_tried_and_has_an_entry_in_the_runbook() {
    let alerts = text("prometheus/alerts.yml");
    let names: Vec<&str> =
        alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(names.len() >= 15, "{names:?}");
    let page = "RUNBOOK.md";
    let link = |line| str::trim(line).strip_prefix("runbook_url: ")?.strip_prefix(page);
    let links = alerts.lines().filter_map(link).filter_map(|link| link.strip_prefix('#'));
    let links: Vec<&str> = links.collect();
    let expected: Vec<String> = names.iter().map(|name| name.to_ascii_lowercase()).collect();
    assert_eq!(links, expected, "an alert links to another's entry");
    let runbook = text(page);
    let (entries, tasks) = runbook.split_once("\n# Tasks\n").unwrap();
    let headings: Vec<&str> = entries.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    assert_eq!(headings, names, "the runbook has other entries, or in another order");
    let anchor = |heading: &str| heading.to_ascii_lowercase().replace(' ', "-");
    let tasks = tasks.lines().filter_map(|line| line.strip_prefix("## "));
    let anchors: BTreeSet<String> = headings.into_iter().chain(tasks).map(anchor).collect();
    for link in runbook.split("](#").skip(1).map(|rest| rest.split(')').next().unwrap()) {
        assert!(link == "tasks" || anchors.contains(link), "{page}: {link} leads nowhere");
    }
    let tests = text("prometheus/alerts.test.yml");
    for name in names {
        let fires = format!("labels: '{{alertname=\"{name}\"}}', value: 1");
        assert!(tests.contains(&fires), "no test in which {name} fires");
    }
}

#[test]
fn the_dashboards_are_whole() {
    for name in ["sotto.json", "federation.json", "registration.json"] {
        check_dashboard(name);
    }
}

fn check_dashboard(name: &str) {
    let dashboard = text(&format!("grafana/{name}"));
    let dashboard: serde_json::Value = serde_json::from_str(&dashboard).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "two panels with one id");
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{}", panel["title"]);
        for target in targets {
            let expression = target["expr"].as_str().unwrap();
            assert!(expression.contains("job=~\"$job\""), "{expression}: of every job");
        }
    }
}

#[test]
fn the_system_settings_are_what_the_program_asks_for() {
    let shipped = text("90-sotto.conf");
    let value = |name: &str| -> u64 {
        let line = shipped.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().trim_start_matches(" = ").parse().unwrap()
    };
    let socket = sotto::limits::SOCKET_BYTES as u64;
    assert_eq!((value("net.core.rmem_max"), value("net.core.wmem_max")), (socket, socket));
    let shards = u64::from(sotto::limits::SHARDS_MAX);
    assert_eq!(value("vm.max_map_count"), 2 * shards + 1_000);
    // The chart and the image know the same user.
    assert!(text("Containerfile").contains("--uid 10001"));
    assert!(text("helm/sotto/templates/statefulset.yaml").contains("runAsUser: 10001"));
}
