//! The manifest from what was said of all shards.

use std::io::BufRead;

use serde::{Deserialize, Serialize};

use super::errors::PartError;
use super::spec::BuildSpec;
use crate::builder::errors::BuildError;
use crate::builder::options::{DATABASE_NAME_DEFAULT, check_loss, check_name};
use crate::limits;
use crate::params::ShapeFields;
use crate::shard::{Manifest, ManifestHead, ShardEntry, header};
use crate::wire::Lifetime;
use crate::wire::hex::Hex;

/// What was said of one encoded shard: a line of JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)] // Names say it.
pub struct PartEntry {
    pub shard: u32,
    pub shape: ShapeFields,
    /// Whether the database before has the same shard.
    pub unchanged: bool,
    pub entry: ShardEntry,
}

impl PartEntry {
    /// One line, without its end.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("this is a bug: an entry is not JSON")
    }
}

/// How many shards that have no entry are named.
const MISSING_SHOWN: usize = 10;

/// Reads the entries of all shards, a line each, in any order. A shard that was encoded twice has
/// two lines, which have to be equal.
///
/// # Errors
/// A line is no entry, is of another shape, or contradicts another; or a shard has none.
pub fn read_entries(spec: &BuildSpec, lines: impl BufRead) -> Result<Vec<PartEntry>, PartError> {
    let mut entries: Vec<Option<PartEntry>> = vec![None; spec.shard_count as usize];
    let mut lines = lines.take(limits::MANIFEST_BYTES_MAX);
    let (mut text, mut line) = (Vec::new(), 0);
    loop {
        text.clear();
        if lines.read_until(b'\n', &mut text).map_err(|source| PartError::Read { source })? == 0 {
            break;
        }
        line += 1;
        if text.trim_ascii().is_empty() {
            continue;
        }
        let wrong = |problem: String| PartError::Entry { line, problem };
        let entry: PartEntry = serde_json::from_slice(&text)
            .map_err(|error| wrong(format!("it is no entry of `sotto part encode`: {error}")))?;
        let Some(held) = entries.get_mut(entry.shard as usize) else {
            let (found, most) = (entry.shard, spec.shard_count - 1);
            return Err(wrong(format!("it is of shard {found}, expected 0 to {most}")));
        };
        if entry.shape != spec.shape.fields() {
            let problem = "its shape is not that of the spec: encode the shard by this spec";
            return Err(wrong(problem.into()));
        }
        let name = header::file_name(&entry.entry.header_digest.0);
        if entry.entry.file != name {
            return Err(wrong(format!("its file is {}, expected {name}", entry.entry.file)));
        }
        match held {
            Some(held) if *held != entry => {
                return Err(wrong(format!(
                    "it is of shard {}, of which another line says something else: the shard was \
                     encoded from different records",
                    entry.shard
                )));
            }
            _ => *held = Some(entry),
        }
    }
    let missing = (0..).zip(&entries).filter(|(_, entry)| entry.is_none());
    let missing: Vec<u32> = missing.map(|(shard, _)| shard).collect();
    if missing.is_empty() {
        return Ok(entries.into_iter().flatten().collect());
    }
    let shown = missing.iter().take(MISSING_SHOWN).map(u32::to_string);
    let mut first = shown.collect::<Vec<_>>().join(", ");
    if missing.len() > MISSING_SHOWN {
        first += ", ...";
    }
    Err(PartError::Missing { count: missing.len(), first })
}

/// What is decided about a database's next manifest beside its shards.
#[derive(Debug, Clone)]
pub struct FinishOptions {
    /// The name of a new database.
    pub database: Option<String>,
    /// From when until when clients are to accept it.
    pub lifetime: Lifetime,
    /// The newest epoch there is, or 0.
    pub newest_epoch: u64,
    /// Percent of the records before that may be missing.
    pub shrink_percent: u8,
}

/// What becomes of the entries of all shards.
#[derive(Debug)]
pub enum Finished {
    /// A manifest to be signed, and how many of its shards the database before has.
    #[allow(missing_docs)]
    Next { head: ManifestHead, shards: Vec<ShardEntry>, unchanged: usize },
    /// The database before has exactly these shards, and is not to be signed again yet.
    Nothing,
}

/// Decides on the next manifest of a database, whose newest one is `previous`.
///
/// # Errors
/// It is of another database, or has far fewer records.
pub fn finish(
    spec: &BuildSpec,
    entries: Vec<PartEntry>,
    previous: Option<&Manifest>,
    options: &FinishOptions,
) -> Result<Finished, PartError> {
    let shards: Vec<ShardEntry> = entries.into_iter().map(|entry| entry.entry).collect();
    if shards.len() != spec.shard_count as usize {
        let count = (spec.shard_count as usize).saturating_sub(shards.len());
        return Err(PartError::Missing { count, first: "of those at the end".into() });
    }
    let name = options.database.as_deref();
    name.map_or(Ok(()), check_name)?;
    let mut unchanged = 0;
    if let Some(previous) = previous {
        let other = |what, found: &dyn ToString, expected: &dyn ToString| {
            let (found, expected) = (found.to_string(), expected.to_string());
            Err(PartError::OtherDatabase { what, found, expected })
        };
        if spec.seed != previous.seed.0 {
            return other("seed", &Hex(spec.seed), &previous.seed);
        }
        if let Some(name) = name.filter(|&name| name != previous.database) {
            return other("name", &name, &previous.database);
        }
        let records = shards.iter().map(|shard| shard.records).sum();
        check_loss(options.shrink_percent, previous.records, records)?;
        unchanged = shards.iter().zip(&previous.shards).filter(|(new, old)| new == old).count();
        if shards == previous.shards
            && !previous.lifetime().is_to_be_renewed(options.lifetime.created)
        {
            return Ok(Finished::Nothing);
        }
    }
    let newest = previous.map_or(0, |manifest| manifest.epoch).max(options.newest_epoch);
    let epoch = newest.checked_add(1).ok_or_else(|| {
        BuildError::Option(format!("the newest epoch is {newest}, and there is none after it"))
    })?;
    let database = previous.map(|manifest| &*manifest.database).or(name);
    let head = ManifestHead {
        seed: spec.seed,
        epoch,
        lifetime: options.lifetime,
        database: database.unwrap_or(DATABASE_NAME_DEFAULT).to_owned(),
        shape: spec.shape,
    };
    Ok(Finished::Next { head, shards, unchanged })
}
