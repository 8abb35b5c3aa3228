//! Input files: their lines with bounded memory, and which of them are batches that count.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::super::batch::{Batch, Body};
use super::super::directory::Directory;
use super::super::files::next_line;
use super::super::statement::{Code, Refusal};
use super::errors::{IoContext as _, MergeError};
use crate::limits::{JWS_BYTES_MAX, MERGE_CHUNK_BYTES};

const READ_BYTES: usize = 1 << 20;

/// Lines of a file, some megabytes at a time.
pub(super) struct Lines<R> {
    inner: BufReader<R>,
    line: Vec<u8>,
    number: u64,
}

#[derive(Default)]
pub(super) struct Chunk {
    pub(super) bytes: Vec<u8>,
    /// Where each line ends, after its line feed.
    ends: Vec<usize>,
    /// The number of the first line, from 1.
    first: u64,
}

impl Chunk {
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// A line without its end, and its number.
    pub(super) fn line(&self, index: usize) -> (&[u8], u64) {
        let begin = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        (&self.bytes[begin..self.ends[index] - 1], self.first + index as u64)
    }
}

impl<R: io::Read> Lines<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner: BufReader::with_capacity(READ_BYTES, inner), line: Vec::new(), number: 0 }
    }

    /// Reads the next lines; none at the end.
    pub(super) fn read(&mut self, chunk: &mut Chunk) -> io::Result<()> {
        chunk.bytes.clear();
        chunk.ends.clear();
        chunk.first = self.number + 1;
        while chunk.bytes.len() < MERGE_CHUNK_BYTES
            && next_line(&mut self.inner, &mut self.line, |_| {})?
        {
            chunk.bytes.extend_from_slice(&self.line);
            chunk.bytes.push(b'\n');
            chunk.ends.push(chunk.bytes.len());
            self.number += 1;
        }
        Ok(())
    }
}

/// A file whose lines are to be read.
pub(super) struct Source {
    pub(super) path: PathBuf,
    /// The signed first line, if it is a batch.
    pub(super) batch: Option<Batch>,
    /// Why no line of it counts.
    pub(super) refusal: Option<Refusal>,
}

impl Source {
    pub(super) fn name(&self) -> String {
        self.path.display().to_string()
    }
}

/// Opens all files and decides which batches count: per issuer a chain from number 1 on. What
/// cannot be in the chain is refused, with all batches after it.
pub(super) fn sources(
    files: &[PathBuf],
    directory: &Directory,
    now: u64,
) -> Result<Vec<Source>, MergeError> {
    let opened: Result<Vec<Source>, MergeError> =
        files.par_iter().map(|path| open(path, directory, now)).collect();
    let mut sources = opened?;
    let mut issuers: BTreeMap<String, Vec<(usize, Batch)>> = BTreeMap::new();
    for (index, source) in sources.iter().enumerate() {
        if let Some(batch) = &source.batch {
            issuers.entry(batch.iss.clone()).or_default().push((index, batch.clone()));
        }
    }
    issuers.into_values().for_each(|batches| check_chain(&mut sources, batches));
    Ok(sources)
}

fn open(path: &Path, directory: &Directory, now: u64) -> Result<Source, MergeError> {
    let source = |batch, refusal| Source { path: path.to_owned(), batch, refusal };
    let file = File::open(path).context("open", path)?;
    let mut reader = BufReader::with_capacity(READ_BYTES, file);
    let mut first = Vec::new();
    let most = JWS_BYTES_MAX as u64 + 2;
    reader.by_ref().take(most).read_until(b'\n', &mut first).context("read", path)?;
    let text = std::str::from_utf8(&first).unwrap_or_default();
    let text = text.strip_suffix('\n').unwrap_or(text);
    if !Batch::is_first_line(text) {
        return Ok(source(None, None));
    }
    let batch = match Batch::open(text, directory, now) {
        Ok(batch) => batch,
        Err(refusal) => return Ok(source(None, Some(refusal))),
    };
    let mut body = Body::default();
    loop {
        let buffer = reader.fill_buf().context("read", path)?;
        if buffer.is_empty() {
            break;
        }
        body.update(buffer);
        let read = buffer.len();
        reader.consume(read);
    }
    let refusal = batch.check_body(&body).err();
    Ok(source(Some(batch), refusal))
}

/// Checks the chain of one issuer. The files come in any order; a good copy of a batch stands
/// before a broken one.
fn check_chain(sources: &mut [Source], batches: Vec<(usize, Batch)>) {
    let mut batches = batches;
    batches.sort_by_key(|(index, batch)| {
        (batch.seq, batch.digest, sources[*index].refusal.is_some(), *index)
    });
    let mut seen = BTreeSet::new();
    let (batches, copies): (Vec<_>, Vec<_>) =
        batches.into_iter().partition(|(_, batch)| seen.insert((batch.seq, batch.digest)));
    for (index, _) in copies {
        let copy = Refusal::new(Code::BatchSequence, "a copy of a batch", "each batch once");
        sources[index].refusal.get_or_insert(copy);
    }
    let mut before: Option<&Batch> = None;
    let mut is_broken = false;
    for (at, (index, batch)) in batches.iter().enumerate() {
        let beside = [at.checked_sub(1), Some(at + 1)].into_iter().flatten();
        let mut beside = beside.filter_map(|at| batches.get(at));
        let is_fork = beside.any(|(_, other)| other.seq == batch.seq);
        let own = &mut sources[*index].refusal;
        if is_fork {
            *own = Some(Refusal::new(
                Code::BatchSequence,
                format!("two different batches with the number {}", batch.seq),
                "one batch of each number; ask the issuer which one counts",
            ));
        } else if is_broken {
            *own = Some(Refusal::new(
                Code::BatchBefore,
                "a batch after one that was refused or is missing",
                "all batches of this issuer from number 1 on, each as it was signed",
            ));
        } else if own.is_none() {
            *own = batch.follows(before).err();
        }
        is_broken |= own.is_some();
        before = Some(batch);
    }
}
