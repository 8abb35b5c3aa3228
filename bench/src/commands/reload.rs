//! `sotto-bench reload`: new epochs of a server under load. The work is
//! [`crate::operations::reload`]'s.

use crate::record::{Change, Reload};
use sotto::build::progress::{bytes, counted};

use super::operation::{COLUMNS, OperationArgs, heading, row, shown};
use sotto::commands::Ended;

/// Serve a database to clients that ask all the time, and give it new epochs: until one is served,
/// and that no look-up is lost. Changes one shard, a tenth of them, and all.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    operation: OperationArgs,
}

pub(super) fn run(args: Args) -> Ended {
    let work = async |options| crate::operations::reload(&options, &mut shown).await;
    args.operation.measure("reload", work, table)
}

fn table(record: &Reload) -> String {
    let Reload { head, content, threads, changes, lookups, lost } = record;
    let mut lines = vec![heading(head, content, *threads), COLUMNS.into()];
    for Change { shards, reload_ms, .. } in changes {
        lines.push(row(
            &format!("{} changed", counted((*shards).into(), "shard")),
            "ms",
            reload_ms,
        ));
    }
    lines.push(String::new());
    for Change { shards, bytes: changed, lookup_ms_max, .. } in changes {
        lines.push(format!(
            "{} changed ({}): the slowest look-up meanwhile took {lookup_ms_max:.1} ms",
            counted((*shards).into(), "shard"),
            bytes(*changed)
        ));
    }
    lines.push(format!("{lookups} look-ups meanwhile, {lost} without the right answer"));
    lines.join("\n")
}
