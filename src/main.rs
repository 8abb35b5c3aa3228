//! The `sotto` command: reads the command line and runs one of [`commands`].
mod commands;
fn main() {}
