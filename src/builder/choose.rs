//! Seed, shard count and shape of a build: from the options, an existing database, or the rule.

use std::fmt::Display;

use super::count::Count;
use super::errors::BuildError;
use super::input::ValueBound;
use super::options::{BuildOptions, check_loss, check_name};
use super::part::{BuildSpec, RECORDS_PER_SHARD_DEFAULT, bounded_shards, fitting_value_len};
use crate::limits;
use crate::params::Shape;
use crate::scheme::random_bytes;
use crate::shard::manifest::Manifest;
use crate::wire::hex::Hex;

fn kept<'a>(options: &BuildOptions, existing: Option<&'a Manifest>) -> Option<&'a Manifest> {
    existing.filter(|_| !options.reshape)
}

/// The longest value a line may have, before anything is known about the others.
pub(super) fn value_bound(options: &BuildOptions, existing: Option<&Manifest>) -> ValueBound {
    let kept = kept(options, existing).map(|manifest| manifest.shape.value_len);
    let (field, why) = match (kept, options.value_bytes) {
        (Some(kept), _) => (kept, ", the database's own bound (--reshape chooses another)"),
        (None, Some(asked)) => (asked, ", by --value-bytes"),
        (None, None) => (limits::VALUE_BYTES_MAX, ", which is all a record can hold"),
    };
    ValueBound { bytes: field.min(limits::VALUE_BYTES_MAX).saturating_sub(1) as usize, why }
}

/// Refuses an input that has much fewer records than the database: the export may be cut, and
/// whoever is not in it is not found any more.
pub(super) fn refuse_loss(
    options: &BuildOptions,
    existing: Option<&Manifest>,
    count: &Count,
) -> Result<(), BuildError> {
    check_loss(
        options.shrink_percent,
        existing.map_or(0, |manifest| manifest.records),
        count.records,
    )
}

/// Decides. A database that exists is kept as it is; options that say otherwise are an error.
pub(super) fn choose(
    options: &BuildOptions,
    existing: Option<&Manifest>,
    count: &Count,
) -> Result<BuildSpec, BuildError> {
    let shard_count = options.shards.map(|shards| bounded_shards(shards.into())).transpose()?;
    options.database.as_deref().map_or(Ok(()), check_name)?;
    let name = existing.map(|manifest| &manifest.database);
    refuse_other(("--database", "name"), options.database.as_ref(), name)?;
    if let Some(manifest) = kept(options, existing) {
        refuse_conflicts(options, manifest)?;
        return Ok(BuildSpec::of(manifest));
    }
    let seed = existing.map(|manifest| manifest.seed);
    refuse_other(("--seed", "seed"), options.seed.map(Hex), seed)?;
    let shard_count = match shard_count {
        Some(shard_count) => shard_count,
        None => bounded_shards(count.records.div_ceil(RECORDS_PER_SHARD_DEFAULT))?,
    };
    let records_per_shard = count.records.div_ceil(shard_count.into());
    let value_len = options.value_bytes.unwrap_or(fitting_value_len(count.value_bytes_longest));
    let shape = Shape::for_records(records_per_shard, value_len, options.wishes)?;
    let seed = match options.seed.or(seed.map(|seed| seed.0)) {
        Some(seed) => seed,
        None => random_bytes()?,
    };
    Ok(BuildSpec { seed, shard_count, shape })
}

fn refuse<T>(problem: impl Into<String>) -> Result<T, BuildError> {
    Err(BuildError::Option(problem.into()))
}

/// Refuses another value of what a database keeps for its life.
fn refuse_other<T: PartialEq + Display>(
    (flag, name): (&str, &str),
    wished: Option<T>,
    kept: Option<T>,
) -> Result<(), BuildError> {
    match (wished, kept) {
        (Some(wished), Some(kept)) if wished != kept => refuse(format!(
            "{flag} asks for {wished}, the database's {name} is {kept}: it keeps its {name} for \
             life, and its clients refuse another. Leave the option out, or build in another \
             directory"
        )),
        _ => Ok(()),
    }
}

fn refuse_conflicts(options: &BuildOptions, manifest: &Manifest) -> Result<(), BuildError> {
    let mut conflicts = Vec::new();
    let mut compare = |flag: &str, wished: Option<u32>, kept: u32| {
        if let Some(wished) = wished.filter(|&wished| wished != kept) {
            conflicts.push(format!("{flag} asks for {wished}, the database has {kept}"));
        }
    };
    compare("--shards", options.shards, manifest.shard_count);
    compare("--value-bytes", options.value_bytes, manifest.shape.value_len);
    compare("--pack-rows", options.wishes.pack_rows, manifest.shape.pack_rows);
    compare("--packs", options.wishes.packs, manifest.shape.packs);
    if let Some(seed) = options.seed.filter(|seed| *seed != manifest.seed.0) {
        let (wished, kept) = (Hex(seed), manifest.seed);
        conflicts.push(format!("--seed asks for {wished}, the database has {kept}"));
    }
    if conflicts.is_empty() {
        return Ok(());
    }
    Err(BuildError::KeptShape { problem: conflicts.join("; ") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builder::{Input, InputFormat};

    #[test]
    fn shard_counts_follow_the_options() {
        let base = BuildOptions::new(Input::Stdin, "x".into());
        let count = Count {
            format: InputFormat::Csv,
            records: 3_000_000,
            value_bytes_longest: 20,
            entry_bytes: 1,
            warning: None,
        };
        let choose = |shards| choose(&BuildOptions { shards, ..base.clone() }, None, &count);
        assert_eq!(choose(None).unwrap().shard_count, 3);
        assert_eq!(choose(Some(7)).unwrap().shard_count, 7);
        assert!(choose(Some(0)).is_err() && choose(Some(limits::SHARDS_MAX + 1)).is_err());
    }
}
