//! Comparing every byte of a database with its digests: [`verify`] reads the files, so that a
//! failing disk is an error and not a signal, [`verify_map`] what is served of a shard.

use rayon::prelude::*;

use super::database::{Database, Shard};
use super::errors::{OpenError, ShardError};
use super::header::{SECTION_NAMES, file_bytes};
use super::sections::{Bytes, check, verify_sections};

/// Bytes that [`verify`] will read, for a progress bar.
pub fn verify_bytes(database: &Database) -> u64 {
    file_bytes(database.shape()) * database.held().len() as u64
}

/// Reads every byte of an open database; `read` is told how many bytes more were read. Returns what
/// is wrong, at most one problem a section, in the order of the shards.
pub fn verify(database: &Database, read: &(dyn Fn(u64) + Sync)) -> Vec<OpenError> {
    // Every file's sections are parts of their own, so that one large shard keeps all cores busy.
    let sections = SECTION_NAMES.len();
    let problem = |part: usize| {
        let ((index, shard), section) = (&database.held()[part / sections], part % sections);
        let path = database.shard_path(*index);
        verify_sections(&path, shard.header(), section..section + 1, read).err()
    };
    let parts = (0..database.held().len() * sections).into_par_iter();
    parts.filter_map(problem).collect()
}

/// Reads every byte of a shard of an open database, from its file.
pub fn verify_shard(database: &Database, index: u32, shard: &Shard) -> Result<(), OpenError> {
    let path = database.shard_path(index);
    verify_sections(&path, shard.header(), 0..SECTION_NAMES.len(), &|_| ())
}

/// Reads every byte that is served of a shard, a piece at a time; `go_on` is told how many more
/// were read, and says whether to read more. If not, there is nothing to say of the shard.
pub fn verify_map(shard: &Shard, mut go_on: impl FnMut(u64) -> bool) -> Result<(), ShardError> {
    let (map, sections) = (Bytes::Map(shard.bytes()), 0..SECTION_NAMES.len());
    let checked = check(&map, shard.header(), sections, &mut go_on);
    checked.expect("this is a bug: a map is read without system calls")
}
