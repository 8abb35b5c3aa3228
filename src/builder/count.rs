//! The first pass over the input: how many records, how long, which lines are wrong.
//!
//! What can be read only once (standard input, a pipe) is copied to the work folder, as it is,
//! while it is counted.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use super::input::{self, Entry, Input, InputFormat, ReadError, ValueBound};
use super::progress::{Progress, Stage};
use super::source::{self, Source};
use super::{BuildError, IoContext as _, partition};

/// What the first pass found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Records.
    pub records: u64,
    /// Bytes of the longest value.
    pub value_bytes_longest: usize,
    /// Bytes that the partition files will take.
    pub entry_bytes: u64,
}

/// A first pass without errors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// How records are written.
    pub format: InputFormat,
    /// How many there are, and how long.
    pub count: Count,
    /// What a person should read, though it is no error.
    pub warning: Option<String>,
}

/// Reads from one place and writes what it read to another.
struct Tee<R, W> {
    from: R,
    to: W,
}

impl<R: Read, W: Write> Read for Tee<R, W> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let bytes = self.from.read(out)?;
        self.to.write_all(&out[..bytes]).map_err(|error| io::Error::other(SpoolFailed(error)))?;
        Ok(bytes)
    }
}

/// Tells a full disk under the copy of a stream from a broken input.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct SpoolFailed(io::Error);

struct CountedBytes<'a, R> {
    inner: R,
    progress: &'a dyn Progress,
}

impl<R: Read> Read for CountedBytes<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let bytes = self.inner.read(out)?;
        self.progress.advance(bytes as u64);
        Ok(bytes)
    }
}

/// Whether this error is of the copy that is kept, not of the input.
pub(super) fn is_of_copy(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<SpoolFailed>())
}

/// The name of an input for messages.
pub fn name(input: &Input) -> String {
    match input {
        Input::File(path) => path.display().to_string(),
        Input::Stdin => "standard input".into(),
    }
}

/// The error of an input that cannot be read.
pub(super) fn unreadable(input: &Input, source: io::Error) -> BuildError {
    BuildError::Read { name: name(input), source }
}

/// Counts the input, and copies it to `spool` where one is given and it can be read only once.
pub fn count(
    input: &Input,
    spool: Option<&Path>,
    bound: ValueBound,
    progress: &dyn Progress,
) -> Result<Counted, BuildError> {
    let failed = |source| unreadable(input, source);
    let is_stream = source::is_stream(input).map_err(failed)?;
    let (raw, bytes): (Box<dyn Read>, u64) = match input {
        Input::Stdin => (Box::new(io::stdin().lock()), 0),
        Input::File(path) => {
            let file = File::open(path).map_err(failed)?;
            let bytes = file.metadata().map_or(0, |metadata| metadata.len());
            (Box::new(file), bytes)
        }
    };
    progress.begin(Stage::Counting, bytes);
    let reader = CountedBytes { inner: raw, progress };
    let Some(spool) = spool.filter(|_| is_stream) else {
        return count_reader(input, reader, bound);
    };
    let copy = File::create(spool).context("create", spool)?;
    let counted = count_reader(input, Tee { from: reader, to: &copy }, bound);
    let counted = counted.map_err(|error| spool_error(error, spool))?;
    copy.sync_all().context("write", spool)?;
    Ok(counted)
}

fn spool_error(error: BuildError, spool: &Path) -> BuildError {
    match error {
        BuildError::Read { name, source } if is_of_copy(&source) => {
            let inner = source.into_inner().and_then(|e| e.downcast::<SpoolFailed>().ok());
            match inner {
                Some(failed) => {
                    BuildError::Io { doing: "write", path: spool.to_owned(), source: failed.0 }
                }
                None => BuildError::Read { name, source: io::Error::other("lost") },
            }
        }
        other => other,
    }
}

fn count_reader(input: &Input, raw: impl Read, bound: ValueBound) -> Result<Counted, BuildError> {
    let name = name(input);
    let path = match input {
        Input::File(path) => Some(&**path),
        Input::Stdin => None,
    };
    let mut count = Count::default();
    let mut each = |entry: Entry<'_>| {
        count.records += 1;
        count.value_bytes_longest = count.value_bytes_longest.max(entry.value.len());
        count.entry_bytes += partition::record_bytes(entry.key.len(), entry.value.len()) as u64;
        Ok::<(), std::convert::Infallible>(())
    };
    let read = Source::of(raw, path).and_then(|source| {
        Ok((source.format, input::read(source.reader, source.format, bound, &mut each)?))
    });
    let (format, found) = match read {
        Ok(read) => read,
        Err(ReadError::Io(source)) => return Err(BuildError::Read { name, source }),
        Err(ReadError::Unreadable { line, problem }) => {
            return Err(BuildError::Unreadable { name, line, problem });
        }
        Err(ReadError::Entry(never)) => match never {},
    };
    match (found.errors.count, count.records) {
        (0, 0) => Err(BuildError::NoRecords { name }),
        (0, _) => Ok(Counted { format, count, warning: found.warning() }),
        _ => Err(BuildError::Lines { name, errors: found.errors }),
    }
}
