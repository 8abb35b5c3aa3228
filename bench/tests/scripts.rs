//! The scripts that make records: each is read by the shell, and those that need nothing but the
//! two programs are run, tiny.

#![allow(clippy::unwrap_used)]

use std::fs;
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
    let output = command.env("TMPDIR", place).output().unwrap();
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
    assert!(read >= 8, "{read} scripts");
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
fn a_long_run_is_judged() {
    if std::thread::available_parallelism().is_ok_and(|cores| cores.get() < 2) {
        println!("skipped: the server and the generator need a core each");
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
