//! Looking at every shard's records before anything is built: duplicates, digests, group loads.

use std::path::Path;

use rayon::prelude::*;

use super::input::ERRORS_SHOWN;
use super::make::Spec;
use super::partition::{self, Partition};
use super::{BuildError, IoContext as _};
use crate::keyword::locate_known;

/// What is known of a shard's records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ShardCheck {
    pub(super) records: u64,
    pub(super) digest: [u8; 32],
    /// Records of the fullest group: more than columns cannot be solved.
    pub(super) group_load_max: u64,
}

/// Keys that are there more than once: how many lines too many, and the first ten, as the line
/// and the line of the same key before it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Duplicates {
    /// (line, earlier line), by line.
    pub first: Vec<(u64, u64)>,
    /// Lines whose key was there before.
    pub count: u64,
}

impl Duplicates {
    fn add(&mut self, line: u64, earlier: u64) {
        self.count += 1;
        let at = self.first.partition_point(|&(other, _)| other < line);
        if at < ERRORS_SHOWN {
            self.first.insert(at, (line, earlier));
            self.first.truncate(ERRORS_SHOWN);
        }
    }

    pub(super) fn merge(&mut self, other: &Duplicates) {
        let more = other.count - other.first.len() as u64;
        other.first.iter().for_each(|&(line, earlier)| self.add(line, earlier));
        self.count += more;
    }
}

impl std::fmt::Display for Duplicates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (line, earlier) in &self.first {
            write!(f, "\n  line {line}: the key of line {earlier}")?;
        }
        match self.count - self.first.len() as u64 {
            0 => Ok(()),
            more => write!(f, "\n  and {more} more"),
        }
    }
}

/// Reads one shard's partition file and looks at its records.
pub(super) fn check_shard(
    partitions: &Path,
    shard: u32,
    spec: &Spec,
) -> Result<(ShardCheck, Duplicates), BuildError> {
    let path = partition::path(partitions, shard);
    let rows = Partition::read(&path).context("read", &path)?;
    let mut duplicates = Duplicates::default();
    for index in 1..rows.len() {
        let (row, before) = (rows.row(index), rows.row(index - 1));
        if row.key == before.key {
            duplicates.add(row.line, before.line);
        }
    }
    let (seed, count, groups) = (&spec.seed, spec.shard_count, spec.shape.groups() as u32);
    let group_of = |index| locate_known(seed, rows.row(index).key, count, groups).group;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_ten_duplicates_by_line_are_kept() {
        let mut all = Duplicates::default();
        for part in [[40u64, 30, 20, 10], [41, 31, 21, 11], [42, 32, 22, 12], [1, 2, 3, 4]] {
            let mut some = Duplicates::default();
            part.iter().for_each(|&line| some.add(line, 0));
            all.merge(&some);
        }
        assert_eq!(all.count, 16);
        let lines: Vec<u64> = all.first.iter().map(|pair| pair.0).collect();
        assert_eq!(lines, [1, 2, 3, 4, 10, 11, 12, 20, 21, 22]);
        assert!(all.to_string().ends_with("and 6 more"));
    }
}
