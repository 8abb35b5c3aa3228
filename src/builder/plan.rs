//! What a build would make, before it is made. Reads the input, writes nothing.
//!
//! The expected time comes from building one synthetic pack on this machine.

use std::path::Path;
use std::time::{Duration, Instant};

use super::choose::{self, Choice};
use super::count::{self, Count};
use super::directory::{self, free_bytes};
use super::errors::BuildError;
use super::make;
use super::options::BuildOptions;
use super::progress::Progress;
use crate::limits;
use crate::params::{Shape, ShapeFields};
use crate::shard::header::file_bytes;
use crate::text::{bytes, duration};

/// Contacts of the sync that bundles are counted for.
const SYNC_CONTACTS: u64 = 500;
/// Records the calibration solves at most.
const CALIBRATION_RECORDS_MAX: u64 = 1 << 18;

/// Counts the input, decides as a build would, and measures this machine. Returns text for people.
pub fn plan(options: &BuildOptions, progress: &dyn Progress) -> Result<String, BuildError> {
    let existing = directory::existing(&options.out)?;
    let existing = existing.as_ref();
    let bound = choose::value_bound(options, existing);
    let count = count::count(&options.input, None, bound, progress);
    progress.end();
    let count = count?;
    choose::refuse_loss(options, existing, &count)?;
    let choice = choose::choose(options, existing, &count)?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(options.jobs.unwrap_or(0)).build()?;
    let expected = duration(pool.install(|| expected(&choice, &count)));
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
    let (bundles, bundle) = (bundles_per_sync(shard_count), shape.bundle_bytes());
    let text = format!(
        "records         {}{before}\n\
         shards          {shard_count} of about {per_shard} records\n\
         shape           {} rows ({packs} packs of {}) by {} columns, value field {} bytes, \
         {}/{} bits\n\
         on disk         {} ({} a shard), and {} while building\n{}\
         a query         {} up, {} down ({} with the hint)\n\
         a sync of {SYNC_CONTACTS}   {bundles} key bundles of {} ({})\n\
         failure         at most once in 2^{:.1} look-ups\n\
         expected time   {expected} on {} threads",
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
        bytes(bundle as u64),
        bytes((bundles * bundle) as u64),
        -shape.log2_failure(),
        pool.current_num_threads()
    );
    let few = few_records_warning(emptiest_shard(per_shard, shard_count), shard_count);
    Ok([Some(text), count.warning, few].into_iter().flatten().collect::<Vec<_>>().join("\n"))
}

fn first_existing(path: &Path) -> Option<&Path> {
    let here = Path::new(".");
    let parents = path.ancestors().map(|p| if p.as_os_str().is_empty() { here } else { p });
    parents.into_iter().find(|path| path.exists())
}

/// Secrets that a sync takes when the i-th query to one shard uses the i-th secret that is not
/// full, with contacts that fall on shards as a hash lets them fall.
fn bundles_per_sync(shard_count: u32) -> usize {
    let mut secrets: Vec<Vec<u32>> = Vec::new();
    for contact in 0..SYNC_CONTACTS {
        let hash = blake3::hash(&contact.to_le_bytes());
        let [a, b, c, d, ..] = *hash.as_bytes();
        let shard = u32::from_le_bytes([a, b, c, d]) % shard_count;
        let has_room =
            |s: &&mut Vec<u32>| s.len() < limits::QUERIES_PER_SECRET_MAX && !s.contains(&shard);
        match secrets.iter_mut().find(has_room) {
            Some(secret) => secret.push(shard),
            None => secrets.push(vec![shard]),
        }
    }
    secrets.len()
}

/// The time for all shards, from a synthetic one of as many packs as hold a record, with at most
/// [`CALIBRATION_RECORDS_MAX`] records.
fn expected(choice: &Choice, count: &Count) -> Duration {
    let shape = choice.shape;
    let packs = shape.record_bytes().div_ceil(shape.pack_rows()) as u32;
    let fields = ShapeFields { packs, ..shape.fields() };
    let Ok(one) = Shape::from_fields(fields) else { return Duration::ZERO };
    let per_group = count.records / u64::from(choice.shard_count) / shape.groups() as u64;
    let records = (per_group * one.groups() as u64).min(CALIBRATION_RECORDS_MAX);
    let begun = Instant::now();
    make::calibrate(&one, records);
    let parts = shape.packs() as f64 / f64::from(packs);
    let one_shard = begun.elapsed().mul_f64(parts);
    // A pack runs on one thread; many packs, of one shard or of many, run on all.
    let all_packs = (shape.packs() as f64 / f64::from(packs)) * f64::from(choice.shard_count);
    let at_once = all_packs.min(rayon::current_num_threads() as f64);
    one_shard.mul_f64(f64::from(choice.shard_count) / at_once)
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
    fn bundles_are_those_of_the_page() {
        assert_eq!(bundles_per_sync(1), 500);
        assert!((32..=33).contains(&bundles_per_sync(10_000)));
        assert!((32..60).contains(&bundles_per_sync(16)));
    }

    #[test]
    fn a_small_crowd_is_said() {
        assert!(few_records_warning(63_999, 2).unwrap().ends_with("Use fewer shards."));
        assert!(!few_records_warning(63_999, 1).unwrap().contains("fewer shards"));
        assert!(few_records_warning(64_000, 2).is_none());
        assert_eq!((emptiest_shard(65_536, 1), emptiest_shard(65_536, 9)), (65_536, 64_512));
    }
}
