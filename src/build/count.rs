//! The first pass over the input: how many records, how long, which lines are wrong.
//!
//! Standard input cannot be read twice: it is copied to the work folder while it is counted.

use std::fs::File;
use std::io::{self, BufRead, Read, Write};
use std::path::Path;

use super::input::{self, Entry, Input, InputFormat, ReadError};
use super::progress::{Progress, Stage};
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

/// Tells a full disk under the copy of standard input from a broken input.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct SpoolFailed(io::Error);

struct Counted<'a, R> {
    inner: R,
    progress: &'a dyn Progress,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let bytes = self.inner.read(out)?;
        self.progress.advance(bytes as u64);
        Ok(bytes)
    }
}

/// The name of an input for messages.
pub fn name(input: &Input) -> String {
    match input {
        Input::File(path) => path.display().to_string(),
        Input::Stdin => "standard input".into(),
    }
}

/// Counts the input, and copies standard input to `spool` where one is given.
pub fn count(
    input: &Input,
    spool: Option<&Path>,
    value_bytes_max: usize,
    progress: &dyn Progress,
) -> Result<(InputFormat, Count), BuildError> {
    match (input, spool) {
        (Input::File(path), _) => {
            let file = File::open(path).context("open", path)?;
            progress.begin(Stage::Counting, file.metadata().map_or(0, |metadata| metadata.len()));
            count_reader(input, input::buffered(Counted { inner: file, progress }), value_bytes_max)
        }
        (Input::Stdin, None) => {
            progress.begin(Stage::Counting, 0);
            let reader = Counted { inner: io::stdin().lock(), progress };
            count_reader(input, input::buffered(reader), value_bytes_max)
        }
        (Input::Stdin, Some(spool)) => {
            progress.begin(Stage::Counting, 0);
            let copy = File::create(spool).context("create", spool)?;
            let reader = Tee { from: Counted { inner: io::stdin().lock(), progress }, to: &copy };
            let counted = count_reader(input, input::buffered(reader), value_bytes_max);
            let counted = counted.map_err(|error| spool_error(error, spool))?;
            copy.sync_all().context("write", spool)?;
            Ok(counted)
        }
    }
}

fn spool_error(error: BuildError, spool: &Path) -> BuildError {
    match error {
        BuildError::Read { name, source }
            if source.get_ref().is_some_and(|e| e.is::<SpoolFailed>()) =>
        {
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

fn count_reader(
    input: &Input,
    mut reader: impl BufRead,
    value_bytes_max: usize,
) -> Result<(InputFormat, Count), BuildError> {
    let name = name(input);
    let format = InputFormat::detect(input, &mut reader)
        .map_err(|source| BuildError::Read { name: name.clone(), source })?;
    let mut count = Count::default();
    let mut each = |entry: Entry<'_>| {
        count.records += 1;
        count.value_bytes_longest = count.value_bytes_longest.max(entry.value.len());
        count.entry_bytes += partition::record_bytes(entry.key.len(), entry.value.len()) as u64;
        Ok::<(), std::convert::Infallible>(())
    };
    let errors = match input::read(reader, format, value_bytes_max, &mut each) {
        Ok(errors) => errors,
        Err(ReadError::Io(source)) => return Err(BuildError::Read { name, source }),
        Err(ReadError::Unreadable { line, problem }) => {
            return Err(BuildError::Unreadable { name, line, problem });
        }
        Err(ReadError::Entry(never)) => match never {},
    };
    match (errors.count, count.records) {
        (0, 0) => Err(BuildError::NoRecords { name }),
        (0, _) => Ok((format, count)),
        _ => Err(BuildError::Lines { name, errors }),
    }
}
