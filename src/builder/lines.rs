//! A stream of any length, line by line, with bounded memory and the line numbers that an editor
//! shows. A line ends in LF, CRLF or CR.

use std::io::{self, BufRead};

use crate::limits;
use crate::text::BYTE_ORDER_MARK;

/// Why reading stopped before the end of the input.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // Names say it.
pub enum ReadError {
    #[error("cannot read the input: {0}")]
    Io(#[from] io::Error),
    /// A header, a quote or a line without end that makes the rest unreadable.
    #[error("line {line}: {problem}")]
    Unreadable { line: u64, problem: String },
    /// What was to be done with an entry failed.
    #[error("{0}")]
    Entry(io::Error),
}

/// The error of a line that is too long, with a question that may explain it.
pub(super) fn too_long(line: u64, question: &str) -> ReadError {
    let most = limits::INPUT_RECORD_BYTES_MAX;
    ReadError::Unreadable { line, problem: format!("a line of more than {most} bytes: {question}") }
}

pub(super) struct Lines<R> {
    inner: R,
    /// Of the line that was read last, from 1.
    pub(super) number: u64,
    /// Whether the last line of the stream had no line end.
    pub(super) unended: bool,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner, number: 0, unended: false }
    }

    /// Appends the next line with its end, and returns the bytes of the end; `None` after the last
    /// line. A line that makes the text longer than [`limits::INPUT_RECORD_BYTES_MAX`] is cut one
    /// byte after that, without its end.
    pub(super) fn read(&mut self, text: &mut Vec<u8>) -> io::Result<Option<usize>> {
        let begin = text.len();
        let mut begun = false;
        let end = loop {
            let buffer = match self.inner.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                read => read?,
            };
            if buffer.is_empty() {
                if !begun {
                    return Ok(None);
                }
                self.unended = true;
                break 0;
            }
            begun = true;
            let length = line_length(buffer);
            let room = (limits::INPUT_RECORD_BYTES_MAX + 1).saturating_sub(text.len());
            text.extend_from_slice(&buffer[..length.min(room)]);
            if length >= room {
                self.inner.consume(room);
                break 0;
            }
            let end = buffer.get(length).copied();
            self.inner.consume(length + usize::from(end.is_some()));
            match end {
                None => {}
                Some(b'\r') if self.take_newline()? => break text_end(text, b"\r\n"),
                Some(byte) => break text_end(text, &[byte]),
            }
        };
        self.number += 1;
        if self.number == 1 && text[begin..].starts_with(BYTE_ORDER_MARK) {
            text.drain(begin..begin + BYTE_ORDER_MARK.len());
        }
        Ok(Some(end))
    }

    fn take_newline(&mut self) -> io::Result<bool> {
        let is_newline = loop {
            match self.inner.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read?.first() == Some(&b'\n'),
            }
        };
        self.inner.consume(usize::from(is_newline));
        Ok(is_newline)
    }
}

fn text_end(text: &mut Vec<u8>, end: &[u8]) -> usize {
    text.extend_from_slice(end);
    end.len()
}

/// Bytes before the first that ends a line.
fn line_length(bytes: &[u8]) -> usize {
    let ends = |&byte: &u8| byte == b'\n' || byte == b'\r';
    // Sixteen at a time, which become one comparison.
    let (chunks, rest) = bytes.as_chunks::<16>();
    let any = |chunk: &[u8; 16]| chunk.iter().fold(false, |any, byte| any | ends(byte));
    match chunks.iter().position(any) {
        Some(chunk) => 16 * chunk + chunks[chunk].iter().position(ends).unwrap_or(16),
        None => 16 * chunks.len() + rest.iter().position(ends).unwrap_or(rest.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8], buffer: usize) -> (Vec<(u64, Vec<u8>, usize)>, bool) {
        let mut lines = Lines::new(io::BufReader::with_capacity(buffer, bytes));
        let mut found = Vec::new();
        let mut text = Vec::new();
        while let Some(end) = lines.read(&mut text).unwrap() {
            found.push((lines.number, std::mem::take(&mut text), end));
        }
        (found, lines.unended)
    }

    /// Lines of all lengths around sixteen, every kind of end, buffers of every size.
    #[test]
    fn lines_are_those_of_an_editor_wherever_reads_are_cut() {
        let mut text = Vec::new();
        let mut expected = Vec::new();
        for length in (0..40).chain([0, 0, 15, 16, 17]) {
            let line = vec![b'x'; length];
            let end = [&b"\n"[..], b"\r\n", b"\r"][length % 3];
            // A lone CR before an empty line with LF would be one CRLF.
            let end = if end == b"\r" { &b"\r\n"[..] } else { end };
            text.extend([&line, end].concat());
            expected.push((expected.len() as u64 + 1, [&line, end].concat(), end.len()));
        }
        for buffer in [1, 2, 3, 15, 16, 17, 33, 4096] {
            assert_eq!(all(&text, buffer), (expected.clone(), false), "{buffer}");
        }
    }

    #[test]
    fn lone_carriage_returns_end_lines_and_the_last_line_may_have_no_end() {
        for buffer in [1, 2, 64] {
            let (found, unended) = all(b"\xef\xbb\xbfa\rb\r\r\nc", buffer);
            let lines: Vec<&[u8]> = found.iter().map(|(_, text, _)| &text[..]).collect();
            assert_eq!(lines, [&b"a\r"[..], b"b\r", b"\r\n", b"c"]);
            assert!(unended);
        }
        assert_eq!(all(b"", 8), (vec![], false));
    }
}
