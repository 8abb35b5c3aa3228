//! What `sotto bench kernel` measures with: [`kernel`] a processor, [`gpu`] a GPU. A part of the
//! program, not of the library: loops of one instruction and kernels of its own are no server's.
//!
//! `cargo bench --bench kernel` and `--bench gpu` run that command (`kernel/main.rs`,
//! `gpu/main.rs`), and `cargo test` has them run it tiny. What is found is of
//! [`sotto::bench::record`].

pub(crate) mod common;
#[cfg(feature = "gpu")]
pub(crate) mod gpu;
pub(crate) mod kernel;
