//! Looking at every shard's records before anything is built: duplicates, digests, group loads.

use std::path::Path;

use rayon::prelude::*;

use super::choose::Choice;
use super::errors::{BuildError, IoContext as _};
use super::input::LineErrors;
use super::partition::{self, Partition};
use crate::keyword::locate_known;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ShardCheck {
    pub(super) records: u64,
    pub(super) digest: [u8; 32],
    /// Records of the fullest group: more than columns cannot be solved.
    pub(super) group_load_max: u64,
}

/// Reads one shard's partition file and looks at its records. Also says which lines repeat a key.
pub(super) fn check_shard(
    partitions: &Path,
    shard: u32,
    choice: &Choice,
) -> Result<(ShardCheck, LineErrors), BuildError> {
    let path = partition::path(partitions, shard);
    let rows = Partition::read(&path).context("read", &path)?;
    let mut duplicates = LineErrors::default();
    for index in 1..rows.len() {
        let (row, before) = (rows.row(index), rows.row(index - 1));
        if row.key == before.key {
            duplicates.add(row.line, format!("the key of line {}", before.line));
        }
    }
    let groups = choice.shape.groups() as u32;
    let group_of =
        |index| locate_known(&choice.seed, rows.row(index).key, choice.shard_count, groups).group;
    let places: Vec<u32> = (0..rows.len()).into_par_iter().map(group_of).collect();
    let mut loads = vec![0u64; groups as usize];
    places.into_iter().for_each(|group| loads[group as usize] += 1);
    let check = ShardCheck {
        records: rows.len() as u64,
        digest: rows.digest(),
        group_load_max: loads.into_iter().max().unwrap_or(0),
    };
    Ok((check, duplicates))
}
