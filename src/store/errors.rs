//! Why a store was not read or written.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::hosts::HostsError;
use crate::pull::PullError;
use crate::shard::{ManifestError, OpenError, ShardError};

/// Why a store was not read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // Names and messages say it.
pub enum StoreError {
    #[error(
        "the store {place} is refused: {problem}. Expected a folder, or a URL such as \
         s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX"
    )]
    Place { place: String, problem: String },
    #[error("cannot {doing} {name} in the store: {source}")]
    Request { doing: &'static str, name: String, source: object_store::Error },
    #[error("cannot {doing} {}: {source}", .path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("{name} of the store {problem}")]
    Object { name: String, problem: String },
    #[error("the manifest {name} {source}")]
    Manifest { name: String, source: ManifestError },
    #[error(
        "the store has another manifest of epoch {epoch} already: somebody else has published it. \
         Make the manifest again; it will be of the next epoch"
    )]
    Taken { epoch: u64 },
    #[error(
        "the file of shard {shard}, {name}, {problem}: remove it if it is there, and encode the \
         shard again"
    )]
    File { shard: u32, name: String, problem: String },
    #[error(
        "the store has no manifest: publish one first (`sotto part finish`, `sotto store push`)"
    )]
    Empty,
    #[error("the store has no manifest of epoch {epoch}; its newest one is of {newest}")]
    NoEpoch { epoch: u64, newest: u64 },
    #[error(
        "epoch {epoch} cannot be announced: {newest} was, and what is served never goes back. To \
         serve old content again, publish it as the next epoch (`sotto rollback`)"
    )]
    Older { epoch: u64, newest: u64 },
    #[error("the store has announced no epoch: announce one first (`sotto store announce`)")]
    NothingAnnounced,
    #[error("the database that is to be copied cannot be used: {0}")]
    Database(#[from] OpenError),
    #[error("{0}")]
    Placement(OpenError),
    #[error(
        "epoch {epoch} is not announced: after {waited:?} too few hosts answer it. {hosts}. Bring \
         them up, or announce with a greater --may-lack"
    )]
    NotStaged { epoch: u64, waited: Duration, hosts: String },
    #[error(
        "the placement has no host for shards {0}: make one that has (`sotto placement check` \
         shows it)"
    )]
    Unplaced(String),
    #[error("the placement does not fit the store: {0}")]
    Hosts(#[from] HostsError),
    #[error("the file {name} is damaged: {problem}. Nothing of it was copied")]
    Damaged { name: String, problem: ShardError },
    #[error("{0}")]
    Copy(#[from] PullError),
}

impl StoreError {
    pub(super) fn io(doing: &'static str, path: &Path) -> impl Fn(io::Error) -> Self {
        move |source| Self::Io { doing, path: path.to_owned(), source }
    }

    pub(super) fn request(doing: &'static str, name: &str) -> impl Fn(object_store::Error) -> Self {
        move |source| Self::Request { doing, name: name.to_owned(), source }
    }
}
