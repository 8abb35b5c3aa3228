//! Which shards of a database a host holds, by the placement that all hosts share.

use std::path::{Path, PathBuf};

use super::errors::OpenError;
use super::files::read_regular;
use crate::hosts::{Placement, Ranges};
use crate::limits;

/// A host of a placement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldBy {
    /// The file of the placement. It is read again with each manifest.
    pub placement: PathBuf,
    /// The host's name there.
    pub host: String,
}

impl HeldBy {
    /// The shards of this host in a database of so many. Reads the file.
    ///
    /// # Errors
    /// The file is no placement of so many shards, or gives this host none.
    pub fn shards(&self, shard_count: u32) -> Result<Ranges, OpenError> {
        let placement = read_placement(&self.placement)?;
        let shards = placement.shards_of(&self.host, shard_count);
        shards.map_err(OpenError::placement(&self.placement))
    }
}

/// Reads the file of a placement.
///
/// # Errors
/// It cannot be read, or is no placement.
pub fn read_placement(path: &Path) -> Result<Placement, OpenError> {
    let json = read_regular(path, limits::PLACEMENT_FILE_BYTES_MAX).map_err(OpenError::io(path))?;
    Placement::parse(&json).map_err(OpenError::placement(path))
}
