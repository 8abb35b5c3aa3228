//! What `deploy` ships for a relay and a front-end: units and configurations start both, a device
//! finds a contact through them, and what is said of their metrics is true.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use ed25519_dalek::SigningKey;
use rustix::process::Signal;
use sotto::discovery::jws::{base64url, key_id, sign};
use sotto::limits::DRAIN_TIMEOUT;

use super::harness::program::{Program, run, run_beside, sotto};
use super::harness::{http, until};
use super::{all_texts, keys, metrics, selectors, settings, text};

/// A record of `sotto sample` that is in the database.
const KNOWN: &str = "ivan.0@example.com";
const DATABASE: &str = "sample";

/// A folder that stands for the system's: `etc` for /etc/sotto, `var` for /var/lib.
struct Place(tempfile::TempDir);

impl Place {
    /// Makes a database, keys and certificates, and puts them where the shipped files expect them.
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        place.make("records blind-key blind.key");
        place.make("sample --statements 300 --out sample --blind blind.key");
        place.make(
            "records make --directory sample/directory.json --pins sample/pins.json --database \
             sample --record-key sample/record.pem --blind blind.key --out records.csv \
             sample/statements.jsonl sample/batch-1.jsonl sample/batch-2.jsonl",
        );
        place.make(
            "build --input records.csv --out db --database sample --shards 2 --value-bytes 248 \
             --signing-key sample/operator.pem",
        );
        place.make("cert --out certs");
        let public = place.make("directory key identity.pem");
        place.write("front-end.pub", &public);
        let copies = [
            ("certs/server.pem", "etc/relay.pem etc/front-end.pem"),
            ("certs/server.key", "etc/relay.key etc/front-end.key"),
            ("certs/client.pem", "etc/relay-client.pem etc/front-end-client.pem"),
            ("certs/client.key", "etc/relay-client.key etc/front-end-client.key"),
            ("certs/ca.pem", "etc/front-end-ca.pem etc/relays-ca.pem etc/answers-ca.pem"),
            ("identity.pem", "etc/front-end-identity.pem"),
            ("sample/pins.json", "etc/directory-pins.json"),
            ("sample/directory.json", "var/sotto-front-end/directory.json"),
            ("blind.key", "etc/eu1.blind"),
        ];
        for folder in ["etc", "var/sotto-relay", "var/sotto-front-end"] {
            fs::create_dir_all(place.path().join(folder)).unwrap();
        }
        for (from, to) in copies {
            for to in to.split(' ') {
                fs::copy(place.path().join(from), place.path().join(to)).unwrap();
            }
        }
        let records = fs::read_to_string(place.path().join("records.csv")).unwrap();
        let first = records.lines().nth(1).unwrap().split(',').next().unwrap();
        place.write("etc/canaries", &format!("{DATABASE} {first}\n"));
        place
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path().join(name), text).unwrap();
    }

    /// Runs a command of the program in the folder.
    fn make(&self, arguments: &str) -> String {
        let arguments: Vec<&str> = arguments.split_whitespace().collect();
        let (code, out, err) = run(sotto(&arguments).current_dir(self.path()));
        assert_eq!(code, 0, "{arguments:?}: {err}");
        out
    }

    /// Writes a file that is shipped, with this folder in place of the system's and other changes.
    fn ship(&self, shipped: &str, changes: &[(&str, &str)]) {
        let folder = self.path().to_str().unwrap();
        let (etc, var) = (format!("{folder}/etc/"), format!("{folder}/var/"));
        let text = changes.iter().fold(text(shipped), |text, (from, to)| {
            assert!(text.contains(from), "{from:?} is not in {shipped}");
            text.replace(from, to)
        });
        let text = text.replace("/etc/sotto/", &etc).replace("/var/lib/", &var);
        self.write(&format!("etc/{shipped}"), &text);
    }

    /// Starts a program as its unit does, with endpoints for the operator at a free port.
    fn start(&self, program: &str) -> Program {
        let unit = text(&format!("sotto-{program}.service"));
        let start = settings(&unit, "ExecStart");
        let words: Vec<&str> = start[0].split(' ').collect();
        let file = format!("/etc/sotto/{program}.toml");
        assert_eq!(words, ["/usr/bin/sotto", program, "--config", &file]);
        let mut command = sotto(&words[1..3]);
        command.arg(self.path().join(format!("etc/{program}.toml")));
        command.env("SOTTO_ADMIN", "127.0.0.1:0");
        Program::start(command, None)
    }
}

/// An answer server, a front-end and a relay.
struct Federation {
    place: Place,
    server: Program,
    front_end: Program,
    relay: Program,
}

impl Federation {
    fn start() -> Self {
        let place = Place::new();
        let mut serve = sotto(&["serve", "--listen", "127.0.0.1:0", "--admin", "off"]);
        serve.args(["--engine", "cpu", "--db", "db", "--client-ca", "certs/ca.pem"]);
        serve.args(["--cert", "certs/server.pem", "--key", "certs/server.key"]);
        serve.current_dir(place.path());
        let server = Program::start(serve, None);
        let answers = server.address.to_string();
        let changes = [
            ("eu1", DATABASE),
            ("evaluate =", "# evaluate ="),
            ("answers-1.example:4433", &*answers),
            ("answers-1.example", "localhost"),
        ];
        place.ship("placement.toml", &changes);
        place.ship("relays", &[("relay.example", "client.localhost")]);
        let changes = [
            ("0.0.0.0:8443", "127.0.0.1:0"),
            ("# blind-key = [\"eu1=", "blind-key = [\"sample="),
            ("# canaries = ", "canaries = "),
            ("# accept-shard-records = 64000", "accept-shard-records = 1"),
        ];
        place.ship("front-end.toml", &changes);
        let front_end = place.start("front-end");
        let url = format!("https://localhost:{}", front_end.address.port());
        let changes = [("0.0.0.0:443", "127.0.0.1:0"), ("https://front-end.example:8443", &*url)];
        place.ship("relay.toml", &changes);
        let key = SigningKey::from_bytes(&[7; 32]);
        let (kid, x) = (key_id(&key.verifying_key()), base64url(key.verifying_key().as_bytes()));
        let jwk = serde_json::json!({ "kty": "OKP", "crv": "Ed25519", "kid": kid, "x": x });
        place.write("etc/accounts.jwks", &serde_json::json!({ "keys": [jwk] }).to_string());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let claims = serde_json::json!({ "sub": "somebody", "exp": now + 3_600 });
        place.write("token", &sign("JWT", claims.to_string().as_bytes(), &key));
        let relay = place.start("relay");
        Self { place, server, front_end, relay }
    }

    /// What a device says of a contact, and its exit code.
    async fn resolve(&self, contact: &str) -> (i32, String) {
        let relay = format!("https://localhost:{}", self.relay.address.port());
        let mut resolve = sotto(&["resolve", "--accept-pack-records", "0", "--relay", &relay]);
        resolve.args(["--relay-ca", "certs/ca.pem", "--token-file", "token"]);
        resolve.args(["--front-end-keys", "front-end.pub", "--state", "state"]);
        resolve.args(["--directory-pins", "sample/pins.json", "--state-key", "state.key", contact]);
        resolve.current_dir(self.place.path());
        let (code, out, err) = run_beside(resolve).await;
        (code, out + &err)
    }
}

/// What a program shows to its operator at a path.
pub(super) async fn shown(program: &Program, path: &str) -> String {
    // A thread reads what the program says.
    let are_said = || program.said().contains("admin endpoints are at http://");
    until("the endpoints are said", are_said).await;
    let said = program.said();
    let url = said.split("admin endpoints are at http://").nth(1).expect("no endpoints");
    let address: SocketAddr = url.split('/').next().unwrap().parse().unwrap();
    let seen = http::request(address, &format!("GET {path}"), "localhost", "").await.unwrap();
    assert_eq!(seen.status, 200, "{}", seen.body);
    seen.body
}

/// The value of a series.
pub(super) fn value(metrics: &str, series: &str) -> f64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series} in {metrics}")).parse().unwrap()
}

/// Metrics as a program shows them, each with its labels and their values.
pub(super) type Shown = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

/// Compares what a program shows with the list of its metrics.
pub(super) fn check_list(shown: &str, list: &str) -> Shown {
    let mut found = Shown::new();
    for line in shown.lines().filter(|line| !line.starts_with('#')) {
        let (series, _value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let of_metric = found.entry(name.to_owned()).or_default();
        for label in labels.trim_end_matches('}').split(',').filter(|label| !label.is_empty()) {
            let (label, value) = label.split_once('=').unwrap();
            let values = of_metric.entry(label.to_owned()).or_default();
            values.insert(value.trim_matches('"').to_owned());
        }
    }
    let kind = |name: &str| {
        let start = format!("# TYPE {name} ");
        shown.lines().find_map(|line| line.strip_prefix(&start)).unwrap()
    };
    let line = |(name, labels): (&String, &BTreeMap<String, BTreeSet<String>>)| {
        let labels: Vec<&str> = labels.keys().map(String::as_str).collect();
        let labels = if labels.is_empty() { "-".to_owned() } else { labels.join(",") };
        format!("{name} {} {labels}\n", kind(name))
    };
    let lines: String = found.iter().map(line).collect();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(list);
    assert_eq!(fs::read_to_string(path).unwrap(), lines, "{list} differs from what is shown");
    found
}

#[tokio::test]
async fn the_shipped_units_and_configurations_start_a_relay_and_a_front_end_that_answer() {
    let federation = Federation::start();
    let found = federation.resolve(KNOWN).await;
    assert!(found.0 == 0 && found.1.starts_with(&format!("{KNOWN}: found\n")), "{found:?}");
    let absent = federation.resolve("nobody@example.com").await;
    assert!(absent.0 == 1 && absent.1.starts_with("nobody@example.com: not found"), "{absent:?}");
    let Federation { server, front_end, relay, .. } = federation;
    let mut all = Shown::new();
    for (program, list) in [(&relay, "metrics-relay.txt"), (&front_end, "metrics-front-end.txt")] {
        assert_eq!(shown(program, "/readyz").await.lines().next(), Some("ready"));
        let metrics = shown(program, "/metrics").await;
        assert_eq!(value(&metrics, "sotto_ready"), 1.0);
        let started = value(&metrics, "sotto_start_time_seconds");
        for role in ["server", "client"] {
            let ends = format!("sotto_certificate_expiry_timestamp_seconds{{role=\"{role}\"}}");
            // Certificates of `sotto cert` are valid for 90 days.
            let days = (value(&metrics, &ends) - started) / 86_400.0;
            assert!((89.0..91.0).contains(&days), "{role}: {days} days");
        }
        for (name, labels) in check_list(&metrics, list) {
            for (label, values) in labels {
                all.entry(name.clone()).or_default().entry(label).or_default().extend(values);
            }
        }
    }
    // Whatever an alert or a panel selects by is there; what is in the operator's files may differ.
    let open = ["job", "instance", "database", "server", "relay"];
    let mut compared = 0;
    for (path, text) in all_texts() {
        for (name, label, values) in selectors(&text) {
            let Some(labels) = all.get(&name).filter(|_| !open.contains(&&*label)) else {
                continue;
            };
            for value in values {
                let known = labels.get(&label).is_some_and(|known| known.contains(&value));
                assert!(known, "{}: {name}{{{label}={value:?}}}", path.display());
                compared += 1;
            }
        }
    }
    assert!(compared > 50, "{compared}");
    for program in [&relay, &front_end] {
        program.told(Signal::HUP, "files were read again").await;
    }
    for program in [relay, front_end, server] {
        program.leave().await;
    }
}

#[test]
fn the_units_fit_the_configurations() {
    for program in ["relay", "front-end"] {
        let (name, unit) = (format!("sotto-{program}"), text(&format!("sotto-{program}.service")));
        for setting in ["User", "Group", "StateDirectory"] {
            assert_eq!(settings(&unit, setting), [&*name], "{setting}");
        }
        assert_eq!(settings(&unit, "StateDirectoryMode"), ["0700"]);
        assert_eq!(settings(&unit, "ExecReload"), ["kill -HUP $MAINPID"]);
        let patience: u64 = settings(&unit, "TimeoutStopSec")[0].parse().unwrap();
        assert!(patience > DRAIN_TIMEOUT.as_secs(), "{patience} s");
        assert!(text("sotto.sysusers").contains(&format!("\nu {name} -")), "{name}");
        // What is written lies in the folder that the unit permits.
        let configuration = text(&format!("{program}.toml"));
        for line in configuration.lines().filter(|line| line.contains("/var/lib/")) {
            assert!(line.contains(&format!("/var/lib/{name}")), "{line}");
        }
        let privileged = configuration.contains("listen = \"0.0.0.0:443\"");
        let capabilities = if privileged { "CAP_NET_BIND_SERVICE" } else { "" };
        assert_eq!(settings(&unit, "CapabilityBoundingSet"), [capabilities], "{name}");
    }
}

#[test]
fn the_shipped_configurations_have_every_option_and_no_other() {
    for program in ["relay", "front-end"] {
        let (code, help, err) = run(&mut sotto(&[program, "--help"]));
        assert_eq!(code, 0, "{err}");
        let options = help.lines().filter_map(|line| line.trim().strip_prefix("--"));
        let options = options.map(|line| line.split([' ', '[']).next().unwrap());
        let options: BTreeSet<&str> = options.filter(|option| *option != "config").collect();
        let shipped = text(&format!("{program}.toml"));
        assert_eq!(keys(&shipped), options, "{program}");
    }
}

#[test]
fn every_program_has_a_list_of_metrics_and_an_image() {
    for (list, start) in
        [("metrics-relay.txt", "sotto_relay_"), ("metrics-front-end.txt", "sotto_pool_")]
    {
        assert!(metrics(list).iter().any(|name| name.starts_with(start)), "{list}");
    }
    let image = text("Containerfile");
    assert!(image.contains("AS federation"));
    assert!(image.contains("--no-default-features --features front-end"));
    assert!(text("helm/sotto/templates/_helpers.tpl").contains("runAsUser: 10001"));
}
