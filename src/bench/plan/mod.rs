//! The capacity plan: from records and a scenario to hosts, batches, bytes and money.

mod figure;
mod scenario;

pub use figure::*;
pub use scenario::*;
