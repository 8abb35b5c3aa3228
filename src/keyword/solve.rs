//! Solving a shard: stub, being written.
use crate::params::Shape;
use crate::scheme::Seed;

/// One record as the solver takes it.
pub struct Record {
    /// Group within the shard.
    pub group: u32,
    /// Identity of the key.
    pub identity: [u8; 32],
    /// Value: at most value_len - 1 bytes.
    pub value: Vec<u8>,
}

/// A solved shard.
pub struct Solved {
    /// The ribbon seed that worked.
    pub ribbon_seed: u32,
    /// rows x columns signed bytes, row-major.
    pub matrix: Vec<u8>,
    /// Largest sum of squares over the rows.
    pub row_square_sum_max: u64,
}

/// Solves a shard; `None` when no ribbon seed among 64 works. Uses the current rayon pool.
pub fn solve(seed: &Seed, shard: u32, shape: &Shape, records: &[Record]) -> Option<Solved> {
    let _ = (seed, shard, shape, records);
    todo!()
}
