//! The records of one shard, read in any order and checked.

use std::io::Read;

use rayon::prelude::*;

use super::errors::PartError;
use super::spec::BuildSpec;
use crate::builder::errors::BuildError;
use crate::builder::input::{self, Entry, LineErrors, ReadError, ValueBound};
use crate::builder::partition::{Partition, push_record};
use crate::builder::source::Source;

/// The records of one shard, sorted. Each belongs to the shard, and no two have one key.
pub struct ShardRecords {
    pub(super) shard: u32,
    pub(super) rows: Partition,
    pub(super) check: ShardCheck,
    /// Records that are used, and hardly meant as they are; or a last line without an end.
    pub warning: Option<String>,
}

/// What is known of a shard's records before it is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ShardCheck {
    pub(crate) records: u64,
    pub(crate) digest: [u8; 32],
    /// Records of the fullest group: more than columns cannot be solved.
    pub(crate) group_load_max: u64,
}

impl ShardCheck {
    /// An error if a group has more records than can be solved, whatever the ribbon seed.
    pub(crate) fn fits(&self, spec: &BuildSpec, shard: u32) -> Result<(), PartError> {
        let columns = spec.shape.columns();
        match self.group_load_max <= columns as u64 {
            true => Ok(()),
            false => Err(PartError::WiderShape { shard, columns }),
        }
    }
}

/// Looks at the records of a shard, which are sorted. Also says which repeat a key.
pub(crate) fn check(spec: &BuildSpec, rows: &Partition, what: &str) -> (ShardCheck, LineErrors) {
    let mut repeated = LineErrors::default();
    for index in 1..rows.len() {
        let (row, before) = (rows.row(index), rows.row(index - 1));
        if row.key == before.key {
            repeated.add(row.line, format!("the key of {what} {}", before.line));
        }
    }
    let group_of = |index| spec.place(rows.row(index).key).1;
    let places: Vec<u32> = (0..rows.len()).into_par_iter().map(group_of).collect();
    let mut loads = vec![0u64; spec.shape.groups()];
    places.into_iter().for_each(|group| loads[group as usize] += 1);
    let check = ShardCheck {
        records: rows.len() as u64,
        digest: rows.digest(),
        group_load_max: loads.into_iter().max().unwrap_or(0),
    };
    (check, repeated)
}

/// Does something on a rayon pool of so many threads.
///
/// # Errors
/// The threads cannot be started.
pub fn on_threads<T: Send>(
    threads: usize,
    work: impl FnOnce() -> T + Send,
) -> Result<T, BuildError> {
    Ok(rayon::ThreadPoolBuilder::new().num_threads(threads).build()?.install(work))
}

impl ShardRecords {
    /// Reads the records of a shard: CSV with the header `sii,value` or JSON Lines, plain or
    /// compressed, in any order. Runs on the current rayon pool.
    ///
    /// # Errors
    /// A line is wrong, or a record belongs to another shard, or a key is there twice. Records are
    /// named by their ordinal number from 1 on, and never by their keys.
    pub fn read(spec: &BuildSpec, shard: u32, raw: impl Read) -> Result<Self, PartError> {
        if shard >= spec.shard_count {
            return Err(PartError::NoSuchShard { shard, shard_count: spec.shard_count });
        }
        let why = ", the spec's own bound";
        let bound = ValueBound { bytes: spec.shape.value_len() - 1, why };
        let (mut bytes, mut ordinal, mut misplaced) = (Vec::new(), 0, LineErrors::default());
        let mut each = |entry: Entry<'_>| {
            ordinal += 1;
            match spec.locate(entry.key) {
                found if found == shard => push_record(&mut bytes, ordinal, entry.key, entry.value),
                found => misplaced.add(ordinal, format!("it belongs to shard {found}")),
            }
            Ok(())
        };
        let read = Source::of(raw, None)
            .and_then(|source| input::read(source.reader, source.format, bound, &mut each));
        let found = read.map_err(|error| match error {
            ReadError::Io(source) | ReadError::Entry(source) => PartError::Read { source },
            ReadError::Unreadable { line, problem } => PartError::Unreadable { line, problem },
        })?;
        if found.errors.count > 0 {
            return Err(PartError::Lines { lines: found.errors });
        }
        if misplaced.count > 0 {
            return Err(PartError::Misplaced { shard, found: misplaced });
        }
        bytes.shrink_to_fit();
        let rows = Partition::from_bytes(bytes).map_err(|source| PartError::Read { source })?;
        let (check, repeated) = check(spec, &rows, "record");
        if repeated.count > 0 {
            return Err(PartError::Repeated { shard, found: repeated });
        }
        Ok(Self { shard, rows, check, warning: found.warning() })
    }
}
