//! `sotto-bench startup`: from a server's start to its first answer. The work is
//! [`crate::operations::startup`]'s.

use std::path::PathBuf;

use crate::numbers;

use super::operation::{OperationArgs, shown, table};
use sotto::commands::Ended;

/// Start a server several times, with its files in the page cache and without: until it listens,
/// is ready, has answered.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    operation: OperationArgs,
    /// Serve this database, on a disk, in place of one that is made; nothing else may read it.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["records", "shards", "value_bytes"])]
    db: Option<PathBuf>,
}

pub(super) fn run(args: Args) -> Ended {
    let db = args.db.as_deref();
    args.operation.measure(
        "startup",
        async |options| crate::operations::startup(&options, db, &mut shown).await,
        |record| table(&record.head, &record.content, record.threads, numbers::startup(record)),
    )
}
