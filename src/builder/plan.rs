//! What a build would make, before it is made. Reads the input, writes nothing.
//!
//! The expected time comes from building one synthetic pack on this machine.

use std::path::Path;
use std::time::{Duration, Instant};

use super::choose::{self, Choice};
use super::count::{self, Count, Counted};
use super::progress::Progress;
use super::run::free_bytes;
use super::{BuildError, BuildOptions, directory};
use crate::limits;
use crate::params::{Shape, ShapeFields};
use crate::shard::header::file_bytes;
use crate::text::{bytes, duration};

/// Contacts of the sync that bundles are counted for.
const SYNC_CONTACTS: usize = 500;
/// Records the calibration solves at most.
const CALIBRATION_RECORDS_MAX: u64 = 1 << 18;

/// What a build would make.
#[derive(Debug, Clone)]
pub struct BuildPlan {
    /// Seed, shard count and shape.
    pub choice: Choice,
    /// What the input holds.
    pub count: Count,
    /// What a person should read about the input.
    pub warning: Option<String>,
    /// Records of the database that is there.
    pub records_before: Option<u64>,
    /// Bytes of the database on disk.
    pub bytes_on_disk: u64,
    /// Bytes more that are needed while building.
    pub bytes_temporary: u64,
    /// Bytes free where the database would be; `None` when that cannot be found out.
    pub bytes_free: Option<u64>,
    /// Key bundles for a sync of 500 contacts.
    pub bundles_per_sync: usize,
    /// Logarithm (base 2) of the probability that a record is decoded wrongly.
    pub log2_failure: f64,
    /// Expected time, all shards built.
    pub expected: Duration,
    /// Threads it would use.
    pub threads: usize,
}

/// Counts the input, decides as a build would, measures this machine.
pub fn plan(options: &BuildOptions, progress: &dyn Progress) -> Result<BuildPlan, BuildError> {
    let existing = directory::existing(&options.out)?;
    let bound = choose::value_bound(options, existing.as_ref());
    let counted = count::count(&options.input, None, bound, progress);
    progress.end();
    let Counted { count, warning, .. } = counted?;
    choose::refuse_loss(options, existing.as_ref(), &count)?;
    let choice = choose::choose(options, existing.as_ref(), &count)?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(options.jobs.unwrap_or(0)).build();
    let pool = pool.map_err(|error| BuildError::Threads(error.to_string()))?;
    Ok(BuildPlan {
        choice,
        count,
        warning,
        records_before: existing.map(|manifest| manifest.records),
        bytes_on_disk: file_bytes(&choice.shape) * u64::from(choice.shard_count),
        bytes_temporary: count.entry_bytes,
        bytes_free: first_existing(&options.out).and_then(|path| free_bytes(path).ok()),
        bundles_per_sync: bundles_per_sync(choice.shard_count, SYNC_CONTACTS),
        log2_failure: choice.shape.log2_failure(),
        expected: pool.install(|| expected(&choice, &count)),
        threads: pool.current_num_threads(),
    })
}

fn first_existing(path: &Path) -> Option<&Path> {
    let here = Path::new(".");
    let parents = path.ancestors().map(|p| if p.as_os_str().is_empty() { here } else { p });
    parents.into_iter().find(|path| path.exists())
}

/// Secrets that so many look-ups take when the i-th query to one shard uses the i-th secret that
/// is not full, with contacts that fall on shards as a hash lets them fall.
fn bundles_per_sync(shard_count: u32, contacts: usize) -> usize {
    let mut secrets: Vec<Vec<u32>> = Vec::new();
    for contact in 0..contacts as u64 {
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
    super::make::calibrate(&one, records);
    let parts = shape.packs() as f64 / f64::from(packs);
    let one_shard = begun.elapsed().mul_f64(parts);
    // A pack runs on one thread; many packs, of one shard or of many, run on all.
    let all_packs = (shape.packs() as f64 / f64::from(packs)) * f64::from(choice.shard_count);
    let at_once = all_packs.min(rayon::current_num_threads() as f64);
    one_shard.mul_f64(f64::from(choice.shard_count) / at_once)
}

impl std::fmt::Display for BuildPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Choice { shard_count, shape, .. } = &self.choice;
        let packs = shape.packs();
        let per_shard = self.count.records / u64::from(*shard_count);
        let down = (packs * shape.response_bytes()) as u64;
        let hint = (packs * shape.hint_bytes()) as u64;
        let before = self.records_before.map(|before| format!(" (before: {before})"));
        writeln!(f, "records         {}{}", self.count.records, before.unwrap_or_default())?;
        writeln!(f, "shards          {shard_count} of about {per_shard} records")?;
        writeln!(
            f,
            "shape           {} rows ({packs} packs of {}) by {} columns, value field {} bytes, \
             {}/{} bits",
            shape.rows(),
            shape.pack_rows(),
            shape.columns(),
            shape.value_len(),
            shape.response_bits(),
            shape.hint_bits()
        )?;
        writeln!(
            f,
            "on disk         {} ({} a shard), and {} while building",
            bytes(self.bytes_on_disk),
            bytes(file_bytes(shape)),
            bytes(self.bytes_temporary)
        )?;
        if let Some(free) = self.bytes_free {
            let short = self.bytes_on_disk + self.bytes_temporary > free;
            writeln!(
                f,
                "free            {}{}",
                bytes(free),
                if short { ", TOO LITTLE" } else { "" }
            )?;
        }
        writeln!(
            f,
            "a query         {} up, {} down ({} with the hint)",
            bytes(shape.query_bytes() as u64),
            bytes(down),
            bytes(down + hint)
        )?;
        writeln!(
            f,
            "a sync of {SYNC_CONTACTS}   {} key bundles of {} ({})",
            self.bundles_per_sync,
            bytes(shape.bundle_bytes() as u64),
            bytes((self.bundles_per_sync * shape.bundle_bytes()) as u64)
        )?;
        writeln!(f, "failure         at most once in 2^{:.1} look-ups", -self.log2_failure)?;
        write!(f, "expected time   {} on {} threads", duration(self.expected), self.threads)?;
        let few = few_records_warning(emptiest_shard(per_shard, *shard_count), *shard_count);
        let warnings = [self.warning.clone(), few];
        warnings.iter().flatten().try_for_each(|warning| write!(f, "\n{warning}"))
    }
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
        assert_eq!(bundles_per_sync(1, 500), 500);
        assert!((32..=33).contains(&bundles_per_sync(10_000, 500)));
        assert!((32..60).contains(&bundles_per_sync(16, 500)));
    }

    #[test]
    fn a_small_crowd_is_said() {
        assert!(few_records_warning(63_999, 2).unwrap().ends_with("Use fewer shards."));
        assert!(!few_records_warning(63_999, 1).unwrap().contains("fewer shards"));
        assert!(few_records_warning(64_000, 2).is_none());
        assert_eq!((emptiest_shard(65_536, 1), emptiest_shard(65_536, 9)), (65_536, 64_512));
    }
}
