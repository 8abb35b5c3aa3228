//! One file a command: its arguments, what it prints, its exit code. The work is the library's.

use std::process::ExitCode;

pub(crate) mod bench;
pub(crate) mod build;
pub(crate) mod cert;
pub(crate) mod config;
pub(crate) mod demo;
pub(crate) mod devices;
pub(crate) mod doctor;
mod engine;
mod folder;
pub(crate) mod inspect;
pub(crate) mod log;
pub(crate) mod lookup;
pub(crate) mod out;
mod pins;
pub(crate) mod renew;
pub(crate) mod rollback;
pub(crate) mod sample;
pub(crate) mod serve;
pub(crate) mod verify;

/// How a command ends: an exit code of its own, or an error for `error: ...` and exit code 2.
pub(crate) type Ended = Result<ExitCode, Box<dyn std::error::Error>>;
