//! The `sotto` command; see [`sotto::commands`].

use std::process::ExitCode;

fn main() -> ExitCode {
    sotto::commands::run(&std::env::args_os().collect::<Vec<_>>())
}
