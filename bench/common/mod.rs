//! What both benchmarks share: noise in the form of queries and shards, the machine, how numbers
//! are written down. No measuring here: `bench/kernel` measures processors, `bench/gpu` a GPU.

pub(crate) mod machine;
pub(crate) mod noise;
pub(crate) mod report;
