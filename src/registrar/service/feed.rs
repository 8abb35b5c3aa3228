//! The feed as files: batches written by `sotto registrar export`, and the statements in force that
//! follow from them, for `sotto records make`.

use std::fs;
use std::io::{self, BufReader, BufWriter, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use crate::discovery::directory::Directory;
use crate::discovery::jws::base64url;
use crate::registrar::registrations::Fold;
use crate::registrar::registrations::feed::Line;
use crate::shard::files::{open_regular, write_atomically, write_file};
use sha2::{Digest as _, Sha256};

use crate::registrar::service::config::Config;
use crate::registrar::service::errors::RegistrarError;
use crate::registrar::service::parts::open;

/// Why the feed is not written or not accepted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // Names and messages say it.
pub enum FeedError {
    #[error("cannot {doing} {}: {source}", .path.display())]
    File { doing: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "{} is there already, and is not batch {seq} of this registrar; nothing was replaced: \
         name another folder, or find out who changed the file", .path.display()
    )]
    Different { path: PathBuf, seq: u64 },
    #[error(
        "there is no batch {since} yet: the newest one is {newest}; a reader that has it read \
         another registrar, or this database is an old copy"
    )]
    Ahead { since: u64, newest: u64 },
    #[error("the database has no batch {seq}, though it has later ones; restore it from a backup")]
    Gone { seq: u64 },
    #[error("{}: {why}", .path.display())]
    Batch { path: PathBuf, why: String },
    #[error("the directory has no issuer {0}; use a newer directory, or name another one")]
    NoIssuer(String),
    #[error("{} has no batch, expected feed-0000000001.jsonl and those after it", .0.display())]
    Empty(PathBuf),
    #[error(transparent)]
    Registrar(#[from] RegistrarError),
    #[error(transparent)]
    Store(#[from] crate::registrar::StoreError),
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// The last batch that is there; none where there is none after the one given.
    pub last: Option<u64>,
    /// Files that were written.
    pub made: u64,
    /// Files that were there, and are equal.
    pub kept: u64,
}

/// What the feed says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // Names say it.
pub struct Folded {
    pub batches: u64,
    pub statements: u64,
}

fn path_of(folder: &Path, seq: u64) -> PathBuf {
    folder.join(format!("feed-{seq:010}.jsonl"))
}

/// Closes a batch if there is something to give out, and writes all after `since`. A run that was
/// interrupted is done by running it again.
///
/// # Errors
/// The database or the folder cannot be used, or a file there is not what it should be.
pub async fn export(
    config: &Config,
    since: u64,
    out: &Path,
    now: u64,
) -> Result<Written, FeedError> {
    let core = open(config, now).await?;
    while core.close_batch(now).await?.is_some() {}
    let newest = core.last_batch().await?;
    if since > newest {
        return Err(FeedError::Ahead { since, newest });
    }
    fs::create_dir_all(out).map_err(|error| file("make", out, error))?;
    let mut written = Written { last: None, made: 0, kept: 0 };
    for seq in since + 1..=newest {
        let batch = core.batch(seq).await?.ok_or(FeedError::Gone { seq })?;
        let path = path_of(out, seq);
        match fs::read(&path) {
            Ok(found) if found == batch => written.kept += 1,
            Ok(found) if !is_erased_from(&batch, &found) => {
                return Err(FeedError::Different { path, seq });
            }
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(file("read", &path, error));
            }
            Ok(_) | Err(_) => {
                write_atomically(&path, &batch).map_err(|error| file("write", &path, error))?;
                written.made += 1;
            }
        }
        written.last = Some(seq);
    }
    Ok(written)
}

/// Whether a batch is what was found, but for lines that were erased since.
fn is_erased_from(batch: &[u8], found: &[u8]) -> bool {
    let (batch, found): (Vec<_>, Vec<_>) =
        (batch.split(|&b| b == b'\n').collect(), found.split(|&b| b == b'\n').collect());
    let is_same = |(now, before): (&&[u8], &&[u8])| {
        now == before
            || Line::Erased(base64url(&Sha256::digest(before))).to_text().as_bytes() == *now
    };
    batch.len() == found.len() && batch.iter().zip(&found).all(is_same)
}

/// Verifies all batches of a folder from the first on, and writes the statements in force.
///
/// # Errors
/// A batch is missing, forged, or does not follow the one before; nothing is written then.
pub fn statements(
    folder: &Path,
    directory: &Directory,
    issuer: &str,
    out: &Path,
) -> Result<Folded, FeedError> {
    let keys = directory.issuer_of(issuer).map(|issuer| issuer.keys.clone());
    let keys = keys.ok_or_else(|| FeedError::NoIssuer(issuer.to_owned()))?;
    let mut fold = Fold::new(issuer, keys);
    let mut batches = 0;
    loop {
        let path = path_of(folder, batches + 1);
        let batch = match open_regular(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => break,
            opened => opened.map_err(|error| file("read", &path, error))?,
        };
        fold.read(BufReader::new(batch))
            .map_err(|error| FeedError::Batch { path, why: error.to_string() })?;
        batches += 1;
    }
    check_no_gap(folder, batches)?;
    if batches == 0 {
        return Err(FeedError::Empty(folder.to_owned()));
    }
    let mut statements = 0;
    let written = write_file(out, |out| {
        let mut out = BufWriter::new(out);
        for line in fold.statements() {
            writeln!(out, "{line}")?;
            statements += 1;
        }
        out.flush()
    });
    written.map_err(|error| file("write", out, error))?;
    Ok(Folded { batches, statements })
}

/// A batch beyond the last that follows was given out after one that is missing here.
fn check_no_gap(folder: &Path, last: u64) -> Result<(), FeedError> {
    let entries = fs::read_dir(folder).map_err(|error| file("list", folder, error))?;
    for entry in entries {
        let name = entry.map_err(|error| file("list", folder, error))?.file_name();
        let name = name.to_string_lossy();
        let seq = name.strip_prefix("feed-").and_then(|rest| rest.strip_suffix(".jsonl"));
        if seq.and_then(|seq| seq.parse::<u64>().ok()).is_some_and(|seq| seq > last) {
            let why = "it is missing, and later ones are there; export it again".to_owned();
            return Err(FeedError::Batch { path: path_of(folder, last + 1), why });
        }
    }
    Ok(())
}

fn file(doing: &'static str, path: &Path, source: io::Error) -> FeedError {
    FeedError::File { doing, path: path.to_owned(), source }
}
