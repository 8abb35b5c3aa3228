//! What tests say: that something is not installed here, and what they have measured.

use std::io::Write as _;

/// Whether a program or file is there. In CI (`SOTTO_TEST_SERVICES=1`) it has to be; elsewhere the
/// running test, or a part of it, is skipped. To be called on the thread of the test, which has its
/// name.
pub(crate) fn there(what: &str, is_there: bool, install: &str) -> bool {
    if !is_there {
        let reason = format!("{what} is not installed ({install})");
        assert!(std::env::var_os("SOTTO_TEST_SERVICES").is_none(), "{reason}");
        skip(&reason);
    }
    is_there
}

/// Prints why the running test, or a part of it, cannot run here, and appends it with the test's
/// name to the file that SOTTO_TEST_SKIPS names, for `.ci/run` to count.
fn skip(reason: &str) {
    say(&format!("skipped: {reason}"));
    let Some(list) = std::env::var_os("SOTTO_TEST_SKIPS") else { return };
    // Cargo adds a hash to the name of a test program; a test's thread has the test's name.
    let program = std::env::current_exe().unwrap();
    let program = program.file_stem().unwrap().to_string_lossy();
    let program = program.rsplit_once('-').map_or(&*program, |(name, _)| name);
    let test = std::thread::current();
    let test = test.name().unwrap_or("main");
    let line = format!("{program}::{test}\t{}\n", reason.replace(['\t', '\n'], " "));
    let mut list = std::fs::OpenOptions::new().create(true).append(true).open(list).unwrap();
    list.write_all(line.as_bytes()).unwrap();
}

/// Prints a line, such as a measurement. `--nocapture` shows it.
pub(crate) fn say(line: &str) {
    println!("{line}");
}
