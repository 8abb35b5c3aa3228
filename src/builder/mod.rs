//! From input files to a database: count, partition, check, build shard by shard, sign.
//!
//! Memory stays bounded; a build killed at any moment goes on when it is started again; the same
//! records, seed and shape give the same bytes. Read [`run()`] first.

mod choose;
mod count;
mod csv;
mod decide;
mod errors;
pub mod input;
pub mod keys;
mod lines;
mod options;
pub mod part;
mod partition;
mod plan;
pub mod progress;
mod resign;
mod run;
pub mod sample;
mod session;
mod shards;
pub mod source;
mod suspect;
mod work;

pub use errors::BuildError;
pub use input::{Input, InputFormat, LineErrors};
pub use options::{BuildOptions, DATABASE_NAME_DEFAULT, SHRINK_PERCENT_DEFAULT};
pub use plan::{few_records_warning, plan};
pub use progress::{Console, Progress, Silent};
pub use resign::{RolledBack, renew, rollback};
pub use run::{BuildReport, run};
pub use session::{lifetime, now};
