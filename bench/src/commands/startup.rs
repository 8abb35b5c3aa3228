//! `sotto-bench startup`: from a server's start to its first answer. The work is
//! [`crate::operations::startup`]'s.

use std::path::PathBuf;

use crate::record::{Started, Startup};
use sotto::build::progress::bytes;

use super::operation::{COLUMNS, OperationArgs, heading, row, shown};
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
        table,
    )
}

fn table(record: &Startup) -> String {
    let Startup { head, content, threads, warm, cold } = record;
    let mut lines = vec![heading(head, content, *threads), COLUMNS.into()];
    for (pages, started) in [("warm", warm), ("cold", cold)] {
        let Started { listening_ms, ready_ms, first_answer_ms, .. } = started;
        lines.push(row(&format!("{pages}: listening"), "ms", listening_ms));
        lines.push(row(&format!("{pages}: ready"), "ms", ready_ms));
        lines.push(row(&format!("{pages}: first answer"), "ms", first_answer_ms));
    }
    lines.push(format!(
        "\nthe server's own memory after its first answer: at most {} warm, {} cold",
        bytes(warm.own_memory_bytes),
        bytes(cold.own_memory_bytes)
    ));
    lines.join("\n")
}
