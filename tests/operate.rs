//! `sotto config` and `sotto doctor` as programs: which layer holds, what is refused, what is said.

#![allow(clippy::unwrap_used)]

mod harness;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use harness::program::{Background, KNOWN, Made, run, sotto};
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use serde_json::Value;

/// What `sotto config` says of one option: the value as it stands there, and where it is from.
fn said(output: &str, key: &str) -> (String, String) {
    let is_meant = |line: &&str| {
        let name = line.trim_start_matches("# ").split(" =").next();
        line.contains(" =") && name == Some(key)
    };
    let line = output.lines().find(is_meant).unwrap_or_else(|| panic!("{key}: {output}"));
    let (line, source) = line.rsplit_once(" # ").unwrap();
    (line.split_once('=').unwrap().1.trim().to_owned(), source.to_owned())
}

#[test]
fn a_flag_comes_before_the_environment_before_the_file_before_the_default() {
    let made = tempfile::tempdir().unwrap();
    let file = made.path().join("sotto.toml");
    std::fs::write(&file, "target-ms = 300\nmemory = 30\nisa = 'avx2'\n").unwrap();
    let file = file.to_str().unwrap();
    let mut command = sotto(&["config", "--config", file, "--target-ms", "100"]);
    command.env("SOTTO_TARGET_MS", "200").env("SOTTO_MEMORY", "20");
    let (code, out, err) = run(&mut command);
    assert_eq!((code, &*err), (0, ""));
    let expected = |value: &str, source: &str| (value.to_owned(), source.to_owned());
    assert_eq!(said(&out, "target-ms"), expected("100", "flag"));
    assert_eq!(said(&out, "memory"), expected("20", "environment SOTTO_MEMORY"));
    assert_eq!(said(&out, "isa"), expected("\"avx2\"", &format!("file {file}")));
    assert_eq!(said(&out, "engine"), expected("\"auto\"", "default"));
    assert_eq!(said(&out, "db"), expected("", "not set"));
    // The file itself may be named by the environment.
    let (_, out, _) = run(sotto(&["config"]).env("SOTTO_CONFIG", file));
    assert_eq!(said(&out, "target-ms"), expected("300", &format!("file {file}")));
}

#[test]
fn a_variable_that_is_almost_an_options_is_warned_of() {
    for (name, meant) in [
        ("SOTTO_TARGT_MS", "SOTTO_TARGET_MS"),
        ("SOTTO_TARGETMS", "SOTTO_TARGET_MS"),
        ("sotto_target_ms", "SOTTO_TARGET_MS"),
        ("SOTTO_LISTN", "SOTTO_LISTEN"),
        ("SOTTO_CLIENTCA", "SOTTO_CLIENT_CA"),
    ] {
        let (code, _, err) = run(sotto(&["config"]).env(name, "5"));
        assert_eq!(code, 0, "{err}");
        assert!(err.contains(name) && err.contains(&format!("{meant} is one")), "{err}");
    }
    // A cluster sets these for a service named sotto; the last is of tests.
    let mut command = sotto(&["config"]);
    for name in ["SERVICE_HOST", "SERVICE_PORT", "PORT", "PORT_4433_UDP", "PORT_4433_UDP_ADDR"] {
        command.env(format!("SOTTO_{name}"), "10.0.0.1");
    }
    command.env("SOTTO_PORT_4433_UDP_PROTO", "udp").env("SOTTO_TEST_GPU", "llvmpipe");
    let (code, _, err) = run(&mut command);
    assert_eq!((code, &*err), (0, ""));
}

#[test]
fn files_of_any_editor_mean_the_same() {
    let made = Made::new();
    let ca = std::fs::read_to_string(made.path("certs/ca.pem")).unwrap();
    for (text, line) in [("", "\n"), ("\u{feff}", "\r\n"), ("\u{feff}", "\r")] {
        let file = |name: &str, content: &str| {
            made.write(name, &format!("{text}{}", content.replace('\n', line)))
        };
        let ca = file("ca.pem", &ca);
        let allow = file("allow", "# front-ends\nclient.localhost 1\n");
        let config = file("sotto.toml", "target-ms = 300\nmemory = 3000\n");
        let (code, out, err) = run(&mut sotto(&["config", "--config", &config]));
        assert_eq!((code, said(&out, "target-ms").0), (0, "300".to_owned()), "{err}");
        let mut doctor = made.doctor(&["--client-ca", &ca, "--allow", &allow]);
        let (code, findings) = Findings::of(&mut doctor);
        assert_eq!((code, findings.get("callers", "status")), (0, "ok"), "{:?}", findings.0);
    }
}

#[test]
fn switches_and_lists_come_from_every_layer() {
    let made = tempfile::tempdir().unwrap();
    let file = made.path().join("sotto.toml");
    std::fs::write(&file, "gpu = [1, 'b']\nanyone-may-ask = true\n").unwrap();
    let file = ["config", "--config", file.to_str().unwrap()];
    let of = |command: &mut Command| {
        let (code, out, err) = run(command);
        assert_eq!((code, &*err), (0, ""), "{command:?}");
        (said(&out, "gpu").0, said(&out, "anyone-may-ask").0)
    };
    let pair = |gpu: &str, switch: &str| (gpu.to_owned(), switch.to_owned());
    assert_eq!(of(&mut sotto(&["config"])), pair("", "false"));
    assert_eq!(of(&mut sotto(&file)), pair("[1, \"b\"]", "true"));
    let environment = |command: &mut Command| {
        of(command.env("SOTTO_GPU", "c,2").env("SOTTO_ANYONE_MAY_ASK", "false"))
    };
    assert_eq!(environment(&mut sotto(&file)), pair("[\"c\", 2]", "false"));
    let flags = [&file[..], &["--gpu", "d", "--gpu", "3", "--anyone-may-ask"]].concat();
    assert_eq!(environment(&mut sotto(&flags)), pair("[\"d\", 3]", "true"));
    let off = [&file[..], &["--anyone-may-ask=false"]].concat();
    assert_eq!(of(&mut sotto(&off)).1, "false");
}

#[test]
fn what_config_prints_may_be_given_back() {
    let made = tempfile::tempdir().unwrap();
    let flags = "--listen=[::1]:0 --cert=c.pem --key=k.pem --anyone-may-ask --gpu=0 --gpu=h200 \
                 --memory=900 --threads=3 --isa=portable";
    let mut first = sotto(&["config", "--db", "/srv/a \"b\""]);
    let (code, out, err) = run(first.args(flags.split(' ')));
    assert_eq!((code, &*err), (0, ""));
    let file = made.path().join("sotto.toml");
    std::fs::write(&file, &out).unwrap();
    let (code, again, err) = run(&mut sotto(&["config", "--config", file.to_str().unwrap()]));
    assert_eq!((code, &*err), (0, ""));
    let values = |out: &str| out.parse::<toml::Table>().unwrap();
    assert_eq!(values(&out), values(&again));
    assert_eq!(values(&out)["db"].as_str(), Some("/srv/a \"b\""));
    for key in ["db", "listen", "gpu", "anyone-may-ask", "engine", "target-ms"] {
        assert_eq!(said(&again, key).1, format!("file {}", file.display()), "{again}");
    }
}

#[test]
fn what_is_wrong_is_said_with_its_place_and_exit_code_2() {
    let made = tempfile::tempdir().unwrap();
    let file = made.path().join("sotto.toml");
    let name = file.to_str().unwrap();
    let refused = |command: &mut Command, expected: &str| {
        let (code, out, err) = run(command);
        assert_eq!((code, &*out), (2, ""), "{command:?}: {err}");
        let first = err.lines().next().unwrap();
        assert!(first.starts_with("error: ") && first.contains(expected), "{err}");
    };
    refused(&mut sotto(&["serve", "--config", name]), "cannot read the configuration");
    for (text, expected) in [
        ("taget-ms = 1", "unknown key `taget-ms`: did you mean `target-ms`?"),
        ("target-ms = true", "target-ms: found boolean (true), expected one text or number"),
        ("listen = 4433", "listen: invalid value '4433' for '--listen <ADDR:PORT>'"),
        ("db = 'x'\nlisten", ", line 2: "),
    ] {
        std::fs::write(&file, text).unwrap();
        for command in ["serve", "config", "doctor"] {
            refused(&mut sotto(&[command, "--config", name]), name);
            refused(&mut sotto(&[command, "--config", name]), expected);
        }
    }
    std::fs::write(&file, "anyone-may-ask = true").unwrap();
    refused(
        &mut sotto(&["serve"]),
        "db is not set: give --db, SOTTO_DB, or `db = ...` in a --config file",
    );
    refused(sotto(&["config"]).env("SOTTO_TARGET_MS", "soon"), "'soon' for '--target-ms <MS>'");
    refused(sotto(&["config"]).env("SOTTO_ANYONE_MAY_ASK", "1"), "'1' for '--anyone-may-ask");
    // What is wrong in the environment is named by its variable, an empty value too.
    for (name, value) in [
        ("SOTTO_LISTEN", ""),
        ("SOTTO_DB", ""),
        ("SOTTO_TARGET_MS", "soon"),
        ("SOTTO_THREADS", "99999"),
        ("SOTTO_GPU_MEMORY", "0"),
        ("SOTTO_ANYONE_MAY_ASK", ""),
    ] {
        for command in ["serve", "config", "doctor"] {
            refused(sotto(&[command]).env(name, value), &format!("error: {name}: "));
        }
    }
    // A flag comes before it.
    let (code, _, err) = run(sotto(&["config", "--target-ms", "5"]).env("SOTTO_TARGET_MS", "soon"));
    assert_eq!((code, &*err), (0, ""));
    // What options want of each other, whatever layers they come from.
    let contradict = "anyone-may-ask and client-ca contradict each other";
    let file = ["config", "--config", name];
    refused(sotto(&file).env("SOTTO_CLIENT_CA", "x"), contradict);
    refused(&mut sotto(&[&file[..], &["--client-ca", "x"]].concat()), contradict);
    refused(&mut sotto(&["serve", "--anyone-may-ask", "--client-ca=x"]), contradict);
    refused(sotto(&["serve"]).env("SOTTO_ALLOW", "x"), "allow needs client-ca");
    std::fs::write(name, "client-ca = 'x'").unwrap();
    let (code, _, err) = run(sotto(&file).env("SOTTO_ALLOW", "y"));
    assert_eq!(code, 0, "{err}");
}

/// The checks whose names have two words.
const BUFFERS: [&str; 2] = ["receive buffer", "send buffer"];

/// Findings of `sotto doctor --json`, by their check.
struct Findings(Vec<Value>);

impl Findings {
    fn of(command: &mut Command) -> (i32, Self) {
        let (code, out, err) = run(command);
        let parsed = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}{err}"));
        (code, Self(parsed))
    }

    fn get(&self, check: &str, field: &str) -> &str {
        let finding = self.0.iter().find(|finding| finding["check"] == check);
        let finding = finding.unwrap_or_else(|| panic!("no {check}: {:?}", self.0));
        finding[field].as_str().unwrap_or_else(|| panic!("{check} has no {field}"))
    }

    fn failed(&self) -> Vec<&str> {
        let failed = self.0.iter().filter(|finding| finding["status"] == "fail");
        failed.map(|finding| finding["check"].as_str().unwrap()).collect()
    }
}

/// Of all checks of `sotto doctor --json` this one fails, for what it found.
fn fails(command: &mut Command, check: &str, found: &str) {
    let (code, findings) = Findings::of(command);
    assert_eq!((code, findings.failed()), (1, vec![check]), "{:?}", findings.0);
    assert!(findings.get(check, "found").contains(found), "{found}: {:?}", findings.0);
    assert_ne!(findings.get(check, "advice"), "");
}

impl Made {
    /// `sotto doctor --json` with all that a server is given.
    fn doctor(&self, more: &[&str]) -> Command {
        let certs = self.path("certs");
        let mut command = sotto(&["doctor", "--json", "--listen", "127.0.0.1:0"]);
        command.arg("--db").arg(self.path("db"));
        command.arg("--cert").arg(certs.join("server.pem"));
        command.arg("--key").arg(certs.join("server.key")).args(more);
        command
    }
}

#[test]
fn doctor_finds_nothing_that_fails_where_a_server_would_serve() {
    let made = Made::new();
    let ca = made.text("certs/ca.pem");
    let (code, findings) = Findings::of(&mut made.doctor(&["--client-ca", &ca]));
    assert_eq!((code, findings.failed()), (0, vec![]));
    let checks = [
        "options processor gpu engines database digests disk certificate key callers memory files",
        "maps address signature",
    ];
    for check in checks.iter().flat_map(|line| line.split(' ')).chain(BUFFERS) {
        for field in ["found", "expected"] {
            assert_ne!(findings.get(check, field), "", "{check} {field}");
        }
        let is_well = findings.get(check, "status") == "ok";
        assert_eq!(findings.get(check, "advice").is_empty(), is_well, "{check}");
    }
    assert!(findings.get("database", "found").starts_with("2 shards, "));
    // For a person: one line each, in the same order, and what was not given.
    let (code, out, _) = run(&mut sotto(&["doctor"]));
    assert_eq!(code, 0, "{out}");
    let last = out.lines().last().unwrap();
    assert!(last.starts_with("not given, so not checked: database and disk (--db)"), "{out}");
    for line in out.lines().filter(|line| *line != last) {
        assert!(line.starts_with("ok    ") || line.starts_with("warn  "), "{out}");
    }
}

#[test]
fn doctor_fails_what_would_keep_a_server_from_serving() {
    let made = Made::new();
    let ca = made.text("certs/ca.pem");
    let wrong = made.write("allow", "a_b.example 1\n10.0.0.1 1\n");
    let no_authority = made.text("records.csv");
    let cases: [(&[&str], &str, &str); 5] = [
        (&["--memory", "1"], "memory", "do not hold one full frame"),
        (&["--allow", "x"], "options", "allow needs client-ca"),
        (&["--client-ca", &no_authority], "callers", "no authority's certificate"),
        (&["--client-ca", &ca, "--allow", &wrong], "callers", "not by addresses"),
        (&["--gpu", "no-such"], "engines", "a GPU was asked for"),
    ];
    for (more, check, found) in cases {
        fails(&mut made.doctor(more), check, found);
    }
    let bare = |arguments: &[&str]| sotto(&[&["doctor", "--json"], arguments].concat());
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let (code, findings) = Findings::of(&mut bare(&["--listen", &taken]));
    assert_eq!((code, findings.get("address", "status")), (0, "warn"));
    fails(&mut bare(&["--listen", "0.0.0.0:0"]), "options", "not a loopback address");
    fails(&mut bare(&["--listen", "192.0.2.1:4433", "--anyone-may-ask"]), "address", "192.0.2.1");
    let no_database = made.text("certs");
    fails(&mut bare(&["--db", &no_database]), "database", "is not a finished database");
    // The limits are those of its own process.
    let script = format!("ulimit -n 64 && exec {} doctor --json", env!("CARGO_BIN_EXE_sotto"));
    let mut limited = Command::new("bash");
    fails(limited.args(["-c", &script]), "files", "64");
    let shards = made.path("db/shards");
    let shard = std::fs::read_dir(shards).unwrap().last().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&shard).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&shard, bytes).unwrap();
    fails(&mut made.doctor(&[]), "digests", shard.file_name().unwrap().to_str().unwrap());
}

#[test]
fn doctor_reads_certificates_and_their_dates() {
    let made = Made::new();
    let write = |name: &str, year: i32| {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        (params.not_before, params.not_after) =
            (date_time_ymd(2000, 1, 1), date_time_ymd(year, 1, 1));
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let key = made.write(&format!("{name}.key"), &key.serialize_pem());
        (made.write(&format!("{name}.pem"), &certificate.pem()), key)
    };
    let ((old, old_key), (good, good_key)) = (write("old", 2001), write("good", 2999));
    let doctor = |certificate: &str, key: &str| {
        sotto(&["doctor", "--json", "--cert", certificate, "--key", key])
    };
    let (code, findings) = Findings::of(&mut doctor(&good, &good_key));
    assert_eq!((code, findings.get("certificate", "status")), (0, "ok"));
    assert!(findings.get("certificate", "found").starts_with("good for "));
    // The check that start and reload make: what every client refuses fails.
    let vector =
        |name: &str| format!("{}/tests/vectors/certificates/{name}", env!("CARGO_MANIFEST_DIR"));
    for (certificate, key, found) in [
        (&old, &old_key, "the certificate expired "),
        (&good, &old_key, ""),
        (&vector("authority.pem"), &good_key, "CA:TRUE"),
        (&vector("client.pem"), &good_key, "lacks serverAuth"),
        (&vector("p521.pem"), &good_key, "the curve P-521"),
        (&vector("v1.pem"), &good_key, "X.509 version 1"),
        (&vector("nameless.pem"), &good_key, "names no host"),
        (&good, &vector("encrypted-pkcs8.key"), "is encrypted"),
        (&"/nonexistent".to_owned(), &good_key, "/nonexistent"),
    ] {
        fails(&mut doctor(certificate, key), "certificate", found);
    }
    // What others may read is no secret.
    use std::os::unix::fs::PermissionsExt as _;
    for (mode, expected) in [(0o644, "warn"), (0o640, "ok"), (0o600, "ok")] {
        std::fs::set_permissions(&good_key, std::fs::Permissions::from_mode(mode)).unwrap();
        let (_, findings) = Findings::of(&mut doctor(&good, &good_key));
        assert_eq!(findings.get("key", "status"), expected, "{mode:o}");
    }
}

/// Waits for the server to answer somebody, then has others ask, whom it may not serve.
#[test]
fn a_caller_whom_the_server_does_not_serve_is_told_at_once() {
    let made = Made::new();
    let (code, _, err) = run(&mut sotto(&["cert", "--out", &made.text("others")]));
    assert_eq!(code, 0, "{err}");
    let (ca, allow) = (made.text("certs/ca.pem"), made.write("allow", "somebody.else 1\n"));
    let serving = Background::start(&made, &["--client-ca", &ca], Stdio::null());
    let listed = Background::start(&made, &["--client-ca", &ca, "--allow", &allow], Stdio::null());
    let as_one = |serving: &Background, folder: &str| {
        let mut lookup = serving.lookup(&made, &[KNOWN.0]);
        if !folder.is_empty() {
            lookup.arg("--client-cert").arg(made.path(folder).join("client.pem"));
            lookup.arg("--client-key").arg(made.path(folder).join("client.key"));
        }
        let begun = Instant::now();
        (run(&mut lookup), begun.elapsed())
    };
    // It is there once it answers; until then each look-up gives up after some seconds.
    let mut tries = (0..20).map(|_| as_one(&serving, "certs").0.0);
    assert!(tries.any(|code| code == 0));
    let mut refused = (0..20).map(|_| {
        let ((code, _, err), elapsed) = as_one(&listed, "certs");
        assert_eq!(code, 2, "{err}");
        (err, elapsed)
    });
    let told = refused.find(|(err, _)| err.contains("refuses this caller"));
    let (err, elapsed) = told.expect("the second server did not start");
    assert!(err.contains("no name of this caller's certificate"), "{err}");
    assert!(elapsed < MOMENT, "{elapsed:?}");
    // Without a certificate, and with one that another authority signed.
    for folder in ["", "others"] {
        let ((code, _, err), elapsed) = as_one(&serving, folder);
        assert!(code == 2 && err.contains("TLS alert"), "{folder}: {err}");
        assert!(err.contains("--client-cert") && elapsed < MOMENT, "{folder}: {elapsed:?}, {err}");
    }
}

/// Half a minute is what a client tries for a server that is gone.
const MOMENT: Duration = Duration::from_secs(5);
