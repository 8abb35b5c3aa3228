//! The command line. Each command has a file with its arguments, what it prints and its exit code;
//! the library does the work.
//!
//! What a command prints for a person or a program goes to standard output, the log to standard
//! error. An error is one line, `error: ...`, and exit code 2.
//!
//! `sotto-bench` has a command line of its own and uses what is public here.

mod build;
mod cert;
mod cli;
mod config;
mod demo;
mod devices;
mod directory;
mod doctor;
mod engine;
mod folder;
#[cfg(feature = "front-end")]
mod front_end;
mod inspect;
#[cfg(feature = "registration")]
mod keys;
mod log;
#[cfg(feature = "registration")]
mod log_service;
mod lookup;
pub mod out;
#[cfg(feature = "store")]
mod part;
mod pins;
mod placement;
#[cfg(feature = "front-end")]
mod pull;
mod records;
#[cfg(feature = "registration")]
mod registrar;
#[cfg(feature = "front-end")]
mod relay;
mod renew;
#[cfg(feature = "front-end")]
mod resolve;
mod rollback;
#[cfg(feature = "front-end")]
mod running;
mod sample;
mod serve;
mod statements;
#[cfg(feature = "store")]
mod store;
mod trusted;
mod verify;

pub use build::pack_rows;
pub use cli::run;
pub use folder::Folder;
pub use log::{Log, LogFormat, start_log};
pub use lookup::ServerArgs;
pub use out::Ended;
