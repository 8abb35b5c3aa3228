//! The `sotto` command; see [`sotto::commands`].

use std::process::ExitCode;

fn main() -> ExitCode {
    sotto::commands::main()
}
