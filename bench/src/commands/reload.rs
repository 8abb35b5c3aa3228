//! `sotto-bench reload`: new epochs of a server under load. The work is
//! [`crate::operations::reload`]'s.

use crate::numbers;

use super::operation::{OperationArgs, shown, table};
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
    args.operation.measure("reload", work, |record| {
        table(&record.head, &record.content, record.threads, numbers::reload(record))
    })
}
