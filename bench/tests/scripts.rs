//! The scripts that make records: each is read by the shell, and those that need nothing but the
//! two programs are run, tiny.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// Runs one with these arguments; the folder that it wrote, and what it said.
fn run(script: &str, arguments: &[&str], place: &Path) -> (PathBuf, String) {
    let programs = Path::new(env!("CARGO_BIN_EXE_sotto-bench")).parent().unwrap();
    assert!(programs.join("sotto").exists(), "`cargo test` builds it beside sotto-bench");
    let mut command = Command::new("bash");
    command.arg(folder().join(script)).args(arguments).env("SOTTO_PROGRAMS", programs);
    // A `cargo` of the test's comes first, where there is one.
    let path = format!("{}:{}", place.display(), std::env::var("PATH").unwrap());
    let output = command.env("TMPDIR", place).env("PATH", path).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (said, error) = (text(&output.stdout), text(&output.stderr));
    // Exit code 1: it ran, and what it judges is not so, as may be within seconds.
    assert!(output.status.code().is_some_and(|code| code < 2), "{said}{error}");
    // Each measurement names its own file before the script names the folder of all.
    let record = said.lines().rev().find_map(|line| {
        line.strip_prefix("record: ").or_else(|| line.strip_prefix("written to "))
    });
    (PathBuf::from(record.unwrap_or_else(|| panic!("no record: {said}{error}"))), said)
}

#[test]
fn the_shell_can_read_every_script() {
    let mut read = 0;
    for entry in fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "sh") {
            let output = Command::new("bash").arg("-n").arg(&path).output().unwrap();
            assert!(output.status.success(), "{path:?}: {:?}", output.stderr);
            read += 1;
        }
    }
    assert!(read >= 7, "{read} scripts");
}

#[test]
fn a_machine_is_measured_and_summarised() {
    let place = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (record, said) = run("measure.sh", &["--quick"], place.path());
    let readme = fs::read_to_string(record.join("README.md")).unwrap_or_else(|_| panic!("{said}"));
    for part in ["## `kernel.json`", "## `build-small.json`", "## `reload-many.json`", "ms/query"] {
        assert!(readme.contains(part), "{part}: {readme}");
    }
    assert!(record.join("machine.txt").exists() && record.join("demo-standard.txt").exists());
}

#[test]
fn loads_are_measured() {
    if !has_two_cores() {
        return;
    }
    let place = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let record = run("load.sh", &["--quick"], place.path()).0;
    for name in ["standard", "many-apart", "one-beside-10", "other-at-10"] {
        let text = fs::read_to_string(record.join(format!("{name}.json"))).unwrap();
        assert!(text.contains("sotto-bench-load/2"), "{name}: {text}");
    }
}

fn has_two_cores() -> bool {
    let two = std::thread::available_parallelism().is_ok_and(|cores| cores.get() >= 2);
    if !two {
        println!("skipped: the server and the generator need a core each");
    }
    two
}

#[test]
fn a_long_run_is_judged() {
    if !has_two_cores() {
        return;
    }
    let place = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let tiny = ["--quick", "--fill", "3", "--hours", "0.001", "--minutes", "0.06", "--rate", "50"];
    let (record, said) = run("soak.sh", &[&tiny[..], &["--every", "0.1"]].concat(), place.path());
    let readme = fs::read_to_string(record.join("README.md")).unwrap_or_else(|_| panic!("{said}"));
    for part in ["| what has to be so |", "steady: anon_kib", "the server leaves when told | exit"]
    {
        assert!(readme.contains(part), "{part}: {readme}");
    }
    assert!(readme.contains("steady: no answer wrong"), "{readme}");
}

/// The tests themselves run in CI; here the scripts list, run and summarise one that passes and one
/// that fails.
#[test]
fn failures_and_attacks_are_run_and_summarised() {
    let place = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let cargo = place.path().join("cargo");
    let text = "#!/bin/sh\ncase \"$*\" in *--list*) printf 'one: test\\ntwo: test\\n' ;;\n\
                *two*) echo \"thread 'x' panicked at y\"; exit 101 ;;\n\
                *) echo 'record: back after 3 ms' ;; esac\n";
    fs::write(&cargo, text).unwrap();
    fs::set_permissions(&cargo, fs::Permissions::from_mode(0o755)).unwrap();
    let (record, said) = run("failures.sh", &["--quick"], place.path());
    assert!(
        said.contains("failures one: ended 0") && said.contains("build two: ended 101"),
        "{said}"
    );
    let one = fs::read_to_string(record.join("failures-one.txt")).unwrap();
    assert_eq!(one, "record: back after 3 ms\nended: 0\n");
    let readme = fs::read_to_string(record.join("README.md")).unwrap();
    assert!(readme.contains("| `failures-one` | back after 3 ms | 0 | yes |"), "{readme}");
    assert!(readme.contains("| `failures-two` | as its name says | 1 | **NO** |"), "{readme}");
    assert!(readme.contains("Failed: build-two"), "{readme}");
    let attacks = run("hostile.sh", &["--quick"], place.path()).0;
    let readme = fs::read_to_string(attacks.join("README.md")).unwrap();
    assert!(readme.contains("back after 3 ms"), "{readme}");
}

/// The same with a program that stands for the load tests.
#[test]
fn registrations_are_summarised() {
    let place = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let program = place.path().join("services-1");
    let cargo = format!("#!/bin/sh\necho '{{\"executable\":\"{}\"}}'\n", program.display());
    let tests = "#!/bin/sh\ncase \"$1\" in\n\
                 floor*) echo 'floor: commits: 9 a second, 111.1 ms each' ;;\n\
                 load*) echo '100 registrations in 20.0 s: 5 a second' ;;\n\
                 size*) echo 'rows: 2 rows; bytes a row: 7' ;;\n\
                 *) exit 101 ;;\nesac\n";
    for (path, text) in [(place.path().join("cargo"), cargo), (program, tests.to_owned())] {
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let (record, said) = run("registration.sh", &["--quick"], place.path());
    let readme = fs::read_to_string(record.join("README.md")).unwrap_or_else(|_| panic!("{said}"));
    for part in [
        "| commits | 9 a second, 111.1 ms each |",
        "100 registrations in 20.0 s: 5 a second |",
        "| rows: 2 rows; bytes a row: 7 |",
        "Failed: claims-10-1 claimers-100.",
    ] {
        assert!(readme.contains(part), "{part}: {readme}");
    }
}
