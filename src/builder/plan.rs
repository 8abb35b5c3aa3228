//! What a build would make, before it is made. Reads the input, writes nothing.

use std::path::Path;

use super::choose::{self, Choice};
use super::count;
use super::errors::BuildError;
use super::options::BuildOptions;
use super::progress::Progress;
use super::session::{self, free_bytes};
use crate::limits;
use crate::shard::header::file_bytes;
use crate::text::bytes;

/// Counts the input and decides as a build would. Returns text for people.
pub fn plan(options: &BuildOptions, progress: &dyn Progress) -> Result<String, BuildError> {
    let existing = session::existing(&options.out)?;
    let existing = existing.as_ref();
    let bound = choose::value_bound(options, existing);
    let count = count::count(&options.input, None, bound, progress);
    progress.end();
    let count = count?;
    choose::refuse_loss(options, existing, &count)?;
    let choice = choose::choose(options, existing, &count)?;
    let Choice { shard_count, shape, .. } = choice;
    let (packs, file) = (shape.packs(), file_bytes(&shape));
    let per_shard = count.records / u64::from(shard_count);
    let before = existing.map(|old| format!(" (before: {})", old.records)).unwrap_or_default();
    let on_disk = file * u64::from(shard_count);
    let free = first_existing(&options.out).and_then(|path| free_bytes(path).ok());
    let free = free.map(|free| {
        let short = if on_disk + count.entry_bytes > free { ", TOO LITTLE" } else { "" };
        format!("free            {}{short}\n", bytes(free))
    });
    let down = (packs * shape.response_bytes()) as u64;
    let text = format!(
        "records         {}{before}\n\
         shards          {shard_count} of about {per_shard} records\n\
         shape           {} rows ({packs} packs of {}) by {} columns, value field {} bytes, \
         {}/{} bits\n\
         on disk         {} ({} a shard), and {} while building\n{}\
         a query         {} up, {} down ({} with the hint)\n\
         failure         at most once in 2^{:.1} look-ups",
        count.records,
        shape.rows(),
        shape.pack_rows(),
        shape.columns(),
        shape.value_len(),
        shape.response_bits(),
        shape.hint_bits(),
        bytes(on_disk),
        bytes(file),
        bytes(count.entry_bytes),
        free.unwrap_or_default(),
        bytes(shape.query_bytes() as u64),
        bytes(down),
        bytes(down + (packs * shape.hint_bytes()) as u64),
        -shape.log2_failure()
    );
    let few = few_records_warning(emptiest_shard(per_shard, shard_count), shard_count);
    Ok([Some(text), count.warning, few].into_iter().flatten().collect::<Vec<_>>().join("\n"))
}

fn first_existing(path: &Path) -> Option<&Path> {
    let here = Path::new(".");
    let parents = path.ancestors().map(|p| if p.as_os_str().is_empty() { here } else { p });
    parents.into_iter().find(|path| path.exists())
}

/// About how many records the emptiest of so many shards has: they fall into shards by a hash, and
/// four standard deviations below the mean is where the emptiest of 30 000 is expected.
fn emptiest_shard(per_shard: u64, shards: u32) -> u64 {
    match shards {
        1 => per_shard,
        _ => per_shard.saturating_sub(4 * per_shard.isqrt()),
    }
}

/// A warning when the crowd that a look-up hides in is small.
pub fn few_records_warning(shard_records_min: u64, shard_count: u32) -> Option<String> {
    let accepted = limits::RECORDS_PER_SHARD_ACCEPTED_MIN;
    let advice = match shard_count {
        1 => "Clients have to be told (--accept-shard-records).",
        _ => "Use fewer shards.",
    };
    (shard_records_min < accepted).then(|| {
        format!(
            "WARNING: a look-up hides among the records of its shard, here as few as \
             {shard_records_min}; clients want {accepted} in the emptiest shard unless told \
             otherwise. {advice}"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_crowd_is_said() {
        assert!(few_records_warning(63_999, 2).unwrap().ends_with("Use fewer shards."));
        assert!(!few_records_warning(63_999, 1).unwrap().contains("fewer shards"));
        assert!(few_records_warning(64_000, 2).is_none());
        assert_eq!((emptiest_shard(65_536, 1), emptiest_shard(65_536, 9)), (65_536, 64_512));
    }
}
