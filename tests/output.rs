//! What commands do does not depend on who reads what they print: a reader who has gone, a disk
//! that is full. And no option starts more than a machine bears.

#![allow(clippy::unwrap_used)]

mod harness;

use std::fs;
use std::path::Path;

use harness::program::{Background, KNOWN, Made, To, ends, run, sotto};
use sotto::shard::Manifest;

fn epoch(made: &Made) -> u64 {
    Manifest::read(&made.path("db/manifest.json")).unwrap().epoch
}

/// A database with an epoch before.
fn twice_built() -> Made {
    let made = Made::new();
    let records = fs::read_to_string(made.path("records.csv")).unwrap();
    made.write("records.csv", &records.replace("value 101", "other 101"));
    let (records, db) = (made.text("records.csv"), made.text("db"));
    let (code, _, err) = run(&mut sotto(&["build", "--input", &records, "--out", &db]));
    assert_eq!(code, 0, "{err}");
    made
}

#[test]
fn what_was_done_is_done_and_said_where_it_can_be() {
    let made = twice_built();
    let db = made.text("db");
    for (to, expected) in To::BOTH.into_iter().zip([3, 4]) {
        let (code, error) = ends(&mut sotto(&["rollback", "--db", &db]), to);
        assert_eq!((code, epoch(&made)), (0, expected), "{to:?}: {error}");
        let said = error.contains("has the content of epoch");
        assert_eq!(said, to == To::Full, "{to:?}: {error}");
        let (code, error) = ends(&mut sotto(&["verify", &db]), to);
        assert_eq!(code, 0, "{to:?}: {error}");
        assert_eq!(error.contains("every byte matches"), to == To::Full, "{error}");
    }
    let records = made.text("records.csv");
    for to in To::BOTH {
        let (out, certs) = (made.text(&format!("db {to:?}")), made.text(&format!("certs {to:?}")));
        let build = ["build", "--input", &records, "--out", &out, "--shards", "1"];
        let (code, error) = ends(&mut sotto(&build), to);
        assert_eq!(code, 0, "{error}");
        assert!(Path::new(&out).join("manifest.json").exists());
        assert_eq!(ends(&mut sotto(&["cert", "--out", &certs]), to).0, 0);
        assert!(Path::new(&certs).join("client.key").exists());
    }
    // The same where nothing can be written to standard error.
    let full = || fs::File::options().write(true).open("/dev/full").unwrap();
    let status = sotto(&["rollback", "--db", &db]).stdout(full()).stderr(full()).status().unwrap();
    assert_eq!((status.code(), epoch(&made)), (Some(0), 5));
    let status = sotto(&["verify", "/nonexistent"]).stdout(full()).stderr(full()).status().unwrap();
    assert_eq!(status.code(), Some(1));
}

#[test]
fn what_is_asked_for_ends_quietly_without_a_reader_and_with_an_error_on_a_full_disk() {
    let made = Made::new();
    let (db, records) = (made.text("db"), made.text("records.csv"));
    let commands: [&[&str]; 9] = [
        &["inspect", &db],
        &["inspect", "--json", &db],
        &["config"],
        &["devices"],
        &["sample", "--records", "10"],
        &["sample", "--records", "1000000000000"],
        &["build", "--input", &records, "--out", &made.text("new"), "--plan"],
        &["--help"],
        &["build", "--help"],
    ];
    for arguments in commands {
        let (code, error) = ends(&mut sotto(arguments), To::Closed);
        assert!(code == 0 && !error.contains("standard output"), "{arguments:?}: {code}, {error}");
        let (code, error) = ends(&mut sotto(arguments), To::Full);
        assert_eq!(code, 2, "{arguments:?}: {error}");
        assert!(error.contains("error: cannot write to standard output"), "{arguments:?}: {error}");
    }
    // The demo ends at its first line, and its folder goes with it.
    let place = made.path("tmp");
    fs::create_dir(&place).unwrap();
    for (to, expected) in To::BOTH.into_iter().zip([0, 2]) {
        let mut demo = sotto(&["demo", "--records", "300", "--shards", "1", "--engine", "cpu"]);
        let (code, error) = ends(demo.env("TMPDIR", &place), to);
        assert_eq!(code, expected, "{error}");
        assert_eq!(fs::read_dir(&place).unwrap().count(), 0, "{to:?}");
    }
}

#[test]
fn exit_codes_that_are_results_stay() {
    let made = Made::new();
    let missing = made.text("nowhere");
    assert_eq!(ends(&mut sotto(&["doctor", "--db", &missing]), To::Closed).0, 1);
    assert_eq!(ends(&mut sotto(&["doctor"]), To::Closed).0, 0);
    let (code, error) = ends(&mut sotto(&["doctor"]), To::Full);
    assert!(code == 2 && error.contains("standard output"), "{code}, {error}");
    // A shard that is damaged.
    let shard = fs::read_dir(made.path("db/shards")).unwrap().next().unwrap().unwrap().path();
    let mut bytes = fs::read(&shard).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&shard, bytes).unwrap();
    for to in To::BOTH {
        assert_eq!(ends(&mut sotto(&["verify", &made.text("db")]), to).0, 1);
    }
}

#[test]
fn a_server_serves_and_look_ups_end_as_they_would_without_a_reader() {
    let made = Made::new();
    let serving = Background::start(&made, &[], To::Closed.stdio());
    // It is there once a look-up succeeds; until then each gives up after some seconds.
    let mut tries = (0..20).map(|_| run(&mut serving.lookup(&made, &[KNOWN.0])));
    assert!(tries.any(|(code, out, _)| code == 0 && out.contains(KNOWN.1)));
    let (absent, known) = ("nobody@example.org", KNOWN.0);
    for (keys, to, expected) in [
        (vec![known], To::Closed, 0),
        (vec![known, absent], To::Closed, 1),
        (vec![known], To::Full, 2),
    ] {
        let (code, error) = ends(&mut serving.lookup(&made, &keys), to);
        assert_eq!(code, expected, "{to:?}: {error}");
    }
}

#[test]
fn numbers_are_bounded_before_anything_is_done() {
    let huge = u64::MAX.to_string();
    let options: [(&[&str], &str); 4] = [
        (
            &["build", "--input", "x", "--out", "y"],
            "shards=0 shards=65001 value-bytes=0 value-bytes=2041 pack-rows=0 \
             pack-rows=100 pack-rows=4096 packs=0 packs=65 jobs=0 jobs=99999 jobs=1025 \
             shrink-percent=101 seed=5e",
        ),
        (&["doctor"], "threads=0 threads=99999 threads=1025 gpu-memory=0"),
        (&["serve"], "threads=99999 target-ms=0 watch-seconds=86401 memory=-1"),
        (&["demo"], "records=0 shards=0 shards=65001 threads=99999"),
    ];
    for (command, wrong) in options {
        for option in wrong.split(' ') {
            let name = option.split('=').next().unwrap();
            for flag in [format!("--{option}"), format!("--{name}={huge}{huge}")] {
                let (code, out, err) = run(sotto(command).arg(&flag));
                assert_eq!((code, &*out), (2, ""), "{command:?} {flag}: {err}");
                assert!(err.contains(&format!("--{name}")), "{command:?} {flag}: {err}");
            }
        }
    }
}
