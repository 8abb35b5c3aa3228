//! The `sotto-bench` command; see [`sotto_bench::commands`].

use std::process::ExitCode;

fn main() -> ExitCode {
    sotto_bench::commands::main()
}
