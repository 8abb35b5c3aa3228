//! What `deploy` ships for a registrar, a log and a key service: units and configurations start all
//! three over SQLite, and what is said of their metrics is true.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use axum::body::Bytes;
use http::Method;
use rustix::process::Signal;
use sotto::https::Client;
use sotto::limits::DRAIN_TIMEOUT;

use super::federation::{Shown, check_list, shown, value};
use super::harness::program::{Program, run, sotto};
use super::{all_texts, keys, metrics, selectors, settings, text};

const SERVICES: [&str; 3] = ["registrar", "log", "keys"];

/// A folder that stands for the system's: `etc` for /etc/sotto, `var` for /var/lib.
struct Place(tempfile::TempDir);

impl Place {
    /// Makes a directory, keys and certificates, and puts them where the shipped files expect them.
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        for folder in ["etc", "var/sotto-registrar", "var/sotto-log", "var/sotto-keys"] {
            fs::create_dir_all(place.path().join(folder)).unwrap();
        }
        place.make("records blind-key blind.key");
        place.make("sample --statements 1 --out sample --blind blind.key");
        place.make("cert --out certs");
        place.make("directory key var/sotto-log/log-key.pem");
        let public = place.make("directory key var/sotto-keys/identity.pem");
        let copies = [
            ("certs/server.pem", "etc/registrar.pem etc/log.pem etc/keys.pem"),
            ("certs/server.key", "etc/registrar.key etc/log.key etc/keys.key"),
            ("certs/ca.pem", "etc/providers-ca.pem etc/log-callers-ca.pem etc/relays-ca.pem"),
            ("certs/ca.pem", "etc/authorities.pem"),
            ("sample/pins.json", "etc/directory-pins.json"),
            ("sample/directory.json", "var/sotto-registrar/directory.json"),
            ("sample/directory.json", "var/sotto-keys/directory.json"),
            // Of the two keys of the issuer, the one that is valid now.
            ("sample/issuer-2.pem", "var/sotto-registrar/issuer.pem"),
        ];
        for (from, to) in copies {
            for to in to.split(' ') {
                fs::copy(place.path().join(from), place.path().join(to)).unwrap();
            }
        }
        let jwk = serde_json::json!({
            "kty": "OKP", "crv": "Ed25519", "kid": "1", "x": public.trim_end(),
        });
        let accounts = serde_json::json!({ "keys": [jwk] });
        place.write("etc/accounts.jwks", &accounts.to_string());
        place.write("etc/centre.credentials", "somebody\nsecret\n");
        let credentials = place.path().join("etc/centre.credentials");
        fs::set_permissions(credentials, fs::Permissions::from_mode(0o600)).unwrap();
        place.ship(
            "registrar.toml",
            &[
                ("0.0.0.0:8447", "127.0.0.1:0"),
                ("issuer = \"dp.example\"", "issuer = \"discovery.example\""),
                ("smsc.example:3550", "localhost:1"),
                (
                    "# authorities = \"/etc/ssl/certs/ca-certificates.crt\"\n# system-type",
                    "authorities = \"/etc/sotto/authorities.pem\"\n# system-type",
                ),
            ],
        );
        place.ship("log.toml", &[("0.0.0.0:8445", "127.0.0.1:0")]);
        place.ship("log-callers.toml", &[]);
        place.ship("keys.toml", &[("0.0.0.0:8446", "127.0.0.1:0")]);
        place.make("registrar init --config etc/registrar.toml");
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

    /// Writes a file that is shipped, with this folder in place of the system's, SQLite in place of
    /// PostgreSQL, and other changes.
    fn ship(&self, shipped: &str, changes: &[(&str, &str)]) {
        let folder = self.path().to_str().unwrap();
        let text = changes.iter().fold(text(shipped), |text, (from, to)| {
            assert!(text.contains(from), "{from:?} is not in {shipped}");
            text.replace(from, to)
        });
        let text = text
            .replace("\"postgres://sotto@db.example/", &format!("\"sqlite:{folder}/var/sqlite-"))
            .replace("/etc/sotto/", &format!("{folder}/etc/"))
            .replace("/var/lib/", &format!("{folder}/var/"));
        self.write(&format!("etc/{shipped}"), &text);
    }

    /// Starts a program as its unit does, with endpoints for the operator at a free port.
    fn start(&self, service: &str) -> Program {
        let unit = text(&format!("sotto-{service}.service"));
        let start = settings(&unit, "ExecStart");
        let words: Vec<&str> = start[0].split(' ').collect();
        let file = format!("/etc/sotto/{service}.toml");
        assert_eq!(words, ["/usr/bin/sotto", service, "serve", "--config", &file]);
        let mut command = sotto(&words[1..4]);
        command.arg(self.path().join(format!("etc/{service}.toml")));
        command.args(["--admin", "127.0.0.1:0"]);
        Program::start(command, None)
    }
}

#[tokio::test]
async fn the_shipped_units_and_configurations_start_all_three() {
    let place = Place::new();
    let ca = fs::read(place.path().join("certs/ca.pem")).unwrap();
    let client = Client::new(Some(&ca), None, Duration::from_secs(60)).unwrap();
    let mut all = Shown::new();
    for (service, route) in SERVICES.into_iter().zip(["/v1/registrations", "/v1/entries", "/user"])
    {
        let program = place.start(service);
        // Nobody who is known: refused, and counted.
        let url = format!("https://localhost:{}{route}", program.address.port());
        let method = if service == "keys" { Method::GET } else { Method::POST };
        let refused = client.send(method, &url, &[], Bytes::new(), 4_096).await.unwrap();
        assert!([401, 403].contains(&refused.status), "{service}: {}", refused.status);
        let metrics = shown(&program, "/metrics").await;
        assert!(value(&metrics, "sotto_start_time_seconds") > 0.0);
        for (name, labels) in check_list(&metrics, &format!("metrics-{service}.txt")) {
            for (label, values) in labels {
                all.entry(name.clone()).or_default().entry(label).or_default().extend(values);
            }
        }
        program.told(Signal::HUP, "files were read again").await;
        program.leave().await;
    }
    // Whatever an alert or a panel selects by is there; what the operator names may differ, and
    // codes of refusals are there once one happened.
    // Relay and front-end have other certificates than these three.
    let open = ["job", "instance", "gateway", "code", "role"];
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
}

#[test]
fn the_units_fit_the_configurations() {
    // Beside requests in flight a registrar waits 15 s for messages on their way.
    for (service, leaves) in SERVICES.into_iter().zip([15, 0, 0]) {
        let (name, unit) = (format!("sotto-{service}"), text(&format!("sotto-{service}.service")));
        for setting in ["User", "Group", "StateDirectory"] {
            assert_eq!(settings(&unit, setting), [&*name], "{setting}");
        }
        assert_eq!(settings(&unit, "StateDirectoryMode"), ["0700"]);
        assert_eq!(settings(&unit, "ExecReload"), ["kill -HUP $MAINPID"]);
        assert_eq!(settings(&unit, "CapabilityBoundingSet"), [""], "{name}");
        let password = format!("PGPASSFILE=/etc/sotto/{service}.pgpass");
        assert_eq!(settings(&unit, "Environment"), [&*password]);
        let patience: u64 = settings(&unit, "TimeoutStopSec")[0].parse().unwrap();
        assert!(patience > DRAIN_TIMEOUT.as_secs() + leaves, "{patience} s");
        assert!(text("sotto.sysusers").contains(&format!("\nu {name} -")), "{name}");
        // What is written lies in the folder that the unit permits.
        let configuration = text(&format!("{service}.toml"));
        for line in configuration.lines().filter(|line| line.contains("/var/lib/")) {
            assert!(line.contains(&format!("/var/lib/{name}")), "{line}");
        }
    }
}

/// Options by the fields of the types that read them.
fn options(source: &str) -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(source);
    let code = fs::read_to_string(path).unwrap();
    let field = |line: &str| {
        let (name, _) = line.strip_prefix("    pub ")?.split_once(": ")?;
        let is_field = name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        is_field.then(|| name.replace('_', "-"))
    };
    let tables = ["aps", "dps", "log", "fraud", "channels", "relays"].map(str::to_owned);
    code.lines().filter_map(field).filter(|name| !tables.contains(name)).collect()
}

#[test]
fn the_shipped_configurations_have_every_option() {
    let sources = [
        ("registrar.toml", "src/registrar/service/config.rs"),
        ("keys.toml", "src/registrar/keys/config.rs"),
    ];
    for (shipped, source) in sources {
        let (options, text) = (options(source), text(shipped));
        let said: BTreeSet<String> = keys(&text).into_iter().map(str::to_owned).collect();
        let missing: Vec<_> = options.difference(&said).collect();
        assert!(
            options.len() > 10 && missing.is_empty(),
            "{shipped} does not speak of {missing:?}"
        );
    }
}

#[test]
fn every_service_has_a_list_of_metrics_and_an_image() {
    for service in SERVICES {
        let (list, start) = (format!("metrics-{service}.txt"), format!("sotto_{service}_"));
        assert!(metrics(&list).iter().any(|name| name.starts_with(&start)), "{list}");
    }
    let image = text("Containerfile");
    assert!(image.contains("AS registration"));
    assert!(image.contains("--no-default-features --features registration"));
}
