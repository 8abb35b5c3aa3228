//! The first pass over the input: how many records, how long, which lines are wrong. What can be
//! read only once (standard input, a pipe) is copied to the work folder meanwhile.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read, Write as _};
use std::path::Path;

use super::errors::{BuildError, IoContext as _};
use super::input::{Entry, Input, InputFormat, ReadError, ValueBound, read as read_records};
use super::partition;
use super::progress::{Progress, Stage};
use super::source::{self, Source};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) format: InputFormat,
    pub(super) records: u64,
    pub(super) value_bytes_longest: usize,
    /// Bytes that the partition files will take.
    pub(super) entry_bytes: u64,
    pub(super) warning: Option<String>,
}

/// Tells how much is read of an input, and copies it where it can be read only once.
struct Counting<'a, R> {
    input: R,
    copy: Option<&'a File>,
    /// Why the copy could not be written: that is not the input's error.
    copy_failed: &'a Cell<Option<io::Error>>,
    progress: &'a dyn Progress,
}

impl<R: Read> Read for Counting<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let bytes = self.input.read(out)?;
        self.progress.advance(bytes as u64);
        if let Some(copy) = &mut self.copy
            && let Err(error) = copy.write_all(&out[..bytes])
        {
            self.copy_failed.set(Some(error));
            return Err(io::Error::other("the input cannot be copied"));
        }
        Ok(bytes)
    }
}

/// Counts the input, and copies it to `spool` where one is given and it can be read only once.
pub(super) fn count(
    input: &Input,
    spool: Option<&Path>,
    bound: ValueBound,
    progress: &dyn Progress,
) -> Result<Count, BuildError> {
    let failed = |source| input.unreadable(source);
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
    let copy_failed = Cell::new(None);
    let reading = |copy| Counting { input: raw, copy, copy_failed: &copy_failed, progress };
    let Some(spool) = spool.filter(|_| is_stream) else {
        return count_reader(input, reading(None), bound);
    };
    let copy = File::create(spool).context("create", spool)?;
    let counted = count_reader(input, reading(Some(&copy)), bound);
    copy_failed.take().map_or(Ok(()), Err).context("write", spool)?;
    copy.sync_all().context("write", spool)?;
    counted
}

fn count_reader(input: &Input, raw: impl Read, bound: ValueBound) -> Result<Count, BuildError> {
    let path = match input {
        Input::File(path) => Some(&**path),
        Input::Stdin => None,
    };
    let (mut records, mut value_bytes_longest, mut entry_bytes) = (0, 0, 0);
    let mut each = |entry: Entry<'_>| {
        records += 1;
        value_bytes_longest = entry.value.len().max(value_bytes_longest);
        entry_bytes += partition::record_bytes(entry.key.len(), entry.value.len()) as u64;
        Ok(())
    };
    let read = Source::of(raw, path).and_then(|source| {
        Ok((source.format, read_records(source.reader, source.format, bound, &mut each)?))
    });
    let (format, found) = read.map_err(|error| match error {
        ReadError::Io(source) | ReadError::Entry(source) => input.unreadable(source),
        ReadError::Unreadable { line, problem } => {
            BuildError::Unreadable { name: input.name(), line, problem }
        }
    })?;
    if found.errors.count > 0 {
        return Err(BuildError::Lines { name: input.name(), errors: found.errors });
    }
    if records == 0 {
        return Err(BuildError::NoRecords { name: input.name() });
    }
    let warning = found.warning();
    Ok(Count { format, records, value_bytes_longest, entry_bytes, warning })
}
