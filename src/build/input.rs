//! Reading records: CSV (RFC 4180, header `sii,value`) or JSON Lines, as a stream, line by line.
//!
//! Memory is bounded by [`limits::INPUT_RECORD_BYTES_MAX`], whatever the input. A line that is
//! wrong is counted and the reading goes on, so that a person sees the first ten of a thousand
//! mistakes at once. Messages name lines, never keys or values. What this module does not do:
//! look for duplicates ([`super::check`]).

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::limits;

/// How many wrong lines a message names.
pub const ERRORS_SHOWN: usize = 10;
/// Some programs write it before UTF-8 text.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
const BASE64_PREFIX: &[u8] = b"base64:";
const BUFFER_BYTES: usize = 1 << 18;

/// Where records come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A file, read twice.
    File(PathBuf),
    /// Standard input, kept in the work directory while it is counted.
    Stdin,
}

/// How records are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InputFormat {
    /// RFC 4180 with the header `sii,value`.
    Csv,
    /// `{"sii": "..", "value": ".."}`, one a line.
    JsonLines,
}

impl InputFormat {
    /// Its name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Csv => "CSV",
            Self::JsonLines => "JSON Lines",
        }
    }

    /// By the file's extension, else by its first byte: `{` begins JSON Lines.
    pub fn detect(input: &Input, reader: &mut impl BufRead) -> io::Result<Self> {
        if let Input::File(path) = input {
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("csv") => return Ok(Self::Csv),
                Some("jsonl" | "ndjson" | "json") => return Ok(Self::JsonLines),
                _ => {}
            }
        }
        let first = reader.fill_buf()?.iter().find(|byte| !byte.is_ascii_whitespace());
        Ok(if first == Some(&b'{') { Self::JsonLines } else { Self::Csv })
    }
}

/// One record of the input.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// The look-up key: UTF-8, 1 to [`limits::KEY_BYTES_MAX`] bytes.
    pub key: &'a [u8],
    /// The value, decoded.
    pub value: &'a [u8],
    /// The line it begins on, from 1.
    pub line: u64,
}

/// Lines that are wrong: how many, and the first ten.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LineErrors {
    /// Line number and what is wrong with it.
    pub first: Vec<(u64, String)>,
    /// How many lines are wrong.
    pub count: u64,
}

impl LineErrors {
    /// Counts one more, and keeps it when it is among the first.
    pub fn add(&mut self, line: u64, problem: impl Into<String>) {
        self.count += 1;
        if self.first.len() < ERRORS_SHOWN {
            self.first.push((line, problem.into()));
        }
    }
}

impl std::fmt::Display for LineErrors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (line, problem) in &self.first {
            write!(f, "\n  line {line}: {problem}")?;
        }
        match self.count - self.first.len() as u64 {
            0 => Ok(()),
            more => write!(f, "\n  and {more} more"),
        }
    }
}

/// Why reading stopped before the end of the input.
#[derive(Debug, thiserror::Error)]
pub enum ReadError<E> {
    /// The input cannot be read.
    #[error("cannot read the input: {0}")]
    Io(#[from] io::Error),
    /// A header or a quote that makes the rest unreadable.
    #[error("line {line}: {problem}")]
    Unreadable {
        /// The line.
        line: u64,
        /// What is wrong with it.
        problem: String,
    },
    /// What was to be done with an entry failed.
    #[error("{0}")]
    Entry(E),
}

/// Reads all entries, hands each good one to `each`, and counts the others. A value may have
/// at most `value_bytes_max` bytes.
pub fn read<E>(
    reader: impl BufRead,
    format: InputFormat,
    value_bytes_max: usize,
    each: &mut dyn FnMut(Entry<'_>) -> Result<(), E>,
) -> Result<LineErrors, ReadError<E>> {
    let mut sink = Sink { value_bytes_max, errors: LineErrors::default(), decoded: vec![], each };
    match format {
        InputFormat::Csv => read_csv(reader, &mut sink)?,
        InputFormat::JsonLines => read_json_lines(reader, &mut sink)?,
    }
    Ok(sink.errors)
}

struct Sink<'a, E> {
    value_bytes_max: usize,
    errors: LineErrors,
    decoded: Vec<u8>,
    each: &'a mut dyn FnMut(Entry<'_>) -> Result<(), E>,
}

impl<E> Sink<'_, E> {
    fn entry(&mut self, line: u64, key: &[u8], value: &[u8]) -> Result<(), ReadError<E>> {
        if let Some(problem) = key_problem(key) {
            self.errors.add(line, problem);
            return Ok(());
        }
        let mut value = value;
        if let Some(text) = value.strip_prefix(BASE64_PREFIX) {
            self.decoded.clear();
            if let Err(error) = STANDARD.decode_vec(text, &mut self.decoded) {
                self.errors.add(line, format!("the value is not base64 after `base64:`: {error}"));
                return Ok(());
            }
            value = &self.decoded;
        } else if std::str::from_utf8(value).is_err() {
            self.errors.add(line, "the value is not UTF-8 (bytes are written as `base64:..`)");
            return Ok(());
        }
        if value.len() > self.value_bytes_max {
            let (found, most) = (value.len(), self.value_bytes_max);
            self.errors.add(line, format!("the value has {found} bytes, expected at most {most}"));
            return Ok(());
        }
        (self.each)(Entry { key, value, line }).map_err(ReadError::Entry)
    }
}

fn key_problem(key: &[u8]) -> Option<String> {
    if key.is_empty() {
        return Some("the key is empty".into());
    }
    if key.len() > limits::KEY_BYTES_MAX {
        let (found, most) = (key.len(), limits::KEY_BYTES_MAX);
        return Some(format!("the key has {found} bytes, expected at most {most}"));
    }
    std::str::from_utf8(key).err().map(|_| "the key is not UTF-8".into())
}

/// Watches what the csv crate reads: ends the input once one record has taken more bytes than any
/// may have (the crate would read on until memory ends when a quote is never closed), and knows
/// where lines begin (the crate's own line numbers are one less after CRLF).
struct Watched<'a, R> {
    inner: R,
    lines: &'a RefCell<Lines>,
}

struct Lines {
    /// Bytes read since the last record was asked for.
    since_record: usize,
    /// Bytes and newlines read.
    bytes: u64,
    newlines: u64,
    at_line_start: bool,
    /// Byte and number of each line that is not empty, of the lines read and not yet handed out.
    starts: VecDeque<(u64, u64)>,
}

impl Lines {
    fn new() -> Self {
        let starts = VecDeque::new();
        Self { since_record: 0, bytes: 0, newlines: 0, at_line_start: true, starts }
    }

    fn read(&mut self, bytes: &[u8]) {
        let mut at = 0;
        while at < bytes.len() {
            let text = line_length(&bytes[at..]);
            if text > 0 && self.at_line_start {
                self.starts.push_back((self.bytes + at as u64, self.newlines + 1));
            }
            let end = bytes.get(at + text);
            self.newlines += u64::from(end == Some(&b'\n'));
            self.at_line_start = end.is_some();
            at += text + 1;
        }
        self.bytes += bytes.len() as u64;
        self.since_record += bytes.len();
    }

    /// The number of the first line that is not empty from `byte` on.
    fn line_from(&mut self, byte: u64) -> u64 {
        while self.starts.front().is_some_and(|&(start, _)| start < byte) {
            self.starts.pop_front();
        }
        self.starts.front().map_or(self.newlines + 1, |&(_, line)| line)
    }
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

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let mut lines = self.lines.borrow_mut();
        if lines.since_record > limits::INPUT_RECORD_BYTES_MAX {
            return Err(io::Error::other(RecordTooLong));
        }
        let bytes = self.inner.read(out)?;
        lines.read(&out[..bytes]);
        Ok(bytes)
    }
}

#[derive(Debug, thiserror::Error)]
#[error("a record is too long")]
struct RecordTooLong;

fn read_csv<E>(reader: impl Read, sink: &mut Sink<'_, E>) -> Result<(), ReadError<E>> {
    let lines = RefCell::new(Lines::new());
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .buffer_capacity(BUFFER_BYTES)
        .from_reader(Watched { inner: reader, lines: &lines });
    let mut record = csv::ByteRecord::new();
    let mut header_seen = false;
    loop {
        lines.borrow_mut().since_record = 0;
        let byte = reader.position().byte();
        let outcome = reader.read_byte_record(&mut record);
        let line = lines.borrow_mut().line_from(byte);
        match outcome {
            Ok(true) => {}
            Ok(false) if header_seen => return Ok(()),
            Ok(false) => return Err(no_header(1, "an empty file")),
            Err(error) => return Err(csv_error(error, line)),
        }
        if !header_seen {
            let first =
                record.get(0).map(|name| name.strip_prefix(BYTE_ORDER_MARK).unwrap_or(name));
            if record.len() != 2 || first != Some(b"sii") || record.get(1) != Some(b"value") {
                return Err(no_header(line, "another first line"));
            }
            header_seen = true;
            continue;
        }
        match (record.get(0), record.get(1), record.len()) {
            (Some(key), Some(value), 2) => sink.entry(line, key, value)?,
            (_, _, fields) => {
                sink.errors.add(line, format!("{fields} fields, expected 2 (sii,value)"));
            }
        }
    }
}

fn no_header<E>(line: u64, found: &str) -> ReadError<E> {
    let problem = format!(
        "CSV begins with the header `sii,value`, found {found} (JSON Lines begins with a brace)"
    );
    ReadError::Unreadable { line, problem }
}

fn csv_error<E>(error: csv::Error, line: u64) -> ReadError<E> {
    match error.into_kind() {
        csv::ErrorKind::Io(error) if error.get_ref().is_some_and(|e| e.is::<RecordTooLong>()) => {
            let most = limits::INPUT_RECORD_BYTES_MAX;
            let problem =
                format!("a record of more than {most} bytes: a quote that is not closed?");
            ReadError::Unreadable { line, problem }
        }
        csv::ErrorKind::Io(error) => ReadError::Io(error),
        other => ReadError::Unreadable { line, problem: format!("{other:?}") },
    }
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonEntry<'a> {
    #[serde(borrow)]
    sii: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    value: std::borrow::Cow<'a, str>,
}

fn read_json_lines<E>(
    mut reader: impl BufRead,
    sink: &mut Sink<'_, E>,
) -> Result<(), ReadError<E>> {
    let most = limits::INPUT_RECORD_BYTES_MAX;
    let mut text = Vec::new();
    for line in 1.. {
        text.clear();
        if reader.by_ref().take(most as u64 + 1).read_until(b'\n', &mut text)? == 0 {
            break;
        }
        if text.len() > most && text.last() != Some(&b'\n') {
            sink.errors.add(line, format!("more than {most} bytes"));
            skip_line(&mut reader)?;
            continue;
        }
        if line == 1 && text.starts_with(BYTE_ORDER_MARK) {
            text.drain(..BYTE_ORDER_MARK.len());
        }
        if text.trim_ascii().is_empty() {
            continue;
        }
        match serde_json::from_slice::<JsonEntry<'_>>(&text) {
            Ok(entry) => sink.entry(line, entry.sii.as_bytes(), entry.value.as_bytes())?,
            Err(error) => {
                let (what, column) = (json_problem(&error), error.column());
                let expected = r#"expected {"sii": "..", "value": ".."}"#;
                sink.errors.add(line, format!("{what} at column {column}, {expected}"));
            }
        }
    }
    Ok(())
}

/// What is wrong, without serde_json's quotations of the line.
fn json_problem(error: &serde_json::Error) -> &'static str {
    match error.classify() {
        serde_json::error::Category::Data => "fields that are missing, unknown or not text",
        serde_json::error::Category::Eof => "an object that does not end",
        serde_json::error::Category::Syntax | serde_json::error::Category::Io => "not JSON",
    }
}

fn skip_line(reader: &mut impl BufRead) -> io::Result<()> {
    loop {
        let buffer = reader.fill_buf()?;
        if buffer.is_empty() {
            return Ok(());
        }
        let newline = buffer.iter().position(|&byte| byte == b'\n');
        let bytes = newline.map_or(buffer.len(), |at| at + 1);
        reader.consume(bytes);
        if newline.is_some() {
            return Ok(());
        }
    }
}

/// A buffered reader of the size this module likes.
pub fn buffered<R: Read>(reader: R) -> BufReader<R> {
    BufReader::with_capacity(BUFFER_BYTES, reader)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    type Read1 = Result<(Vec<(String, Vec<u8>, u64)>, LineErrors), ReadError<Infallible>>;

    fn all(format: InputFormat, text: &[u8]) -> Read1 {
        let mut found = Vec::new();
        let errors = read(text, format, 20, &mut |entry| {
            let key = String::from_utf8(entry.key.to_vec()).unwrap();
            found.push((key, entry.value.to_vec(), entry.line));
            Ok::<(), Infallible>(())
        })?;
        Ok((found, errors))
    }

    /// Lines of all lengths around sixteen, empty ones, every kind of end, cut anywhere.
    #[test]
    fn lines_begin_after_line_ends_wherever_reads_are_cut() {
        let mut text = Vec::new();
        for length in (0..40).chain([0, 0, 15, 16, 17]) {
            text.extend(vec![b'x'; length]);
            text.extend([&b"\n"[..], b"\r\n", b"\r", b"\n\n"][length % 4]);
        }
        let (mut expected, mut newlines) = (Vec::new(), 0);
        for (at, &byte) in text.iter().enumerate() {
            let first = at == 0 || matches!(text[at - 1], b'\n' | b'\r');
            if first && !matches!(byte, b'\n' | b'\r') {
                expected.push((at as u64, newlines + 1));
            }
            newlines += u64::from(byte == b'\n');
        }
        for cut in [1, 2, 3, 15, 16, 17, 33, text.len()] {
            let mut lines = Lines::new();
            text.chunks(cut).for_each(|bytes| lines.read(bytes));
            assert!(lines.starts.iter().eq(&expected), "cut every {cut}");
            assert_eq!((lines.newlines, lines.bytes), (newlines, text.len() as u64));
        }
    }

    #[test]
    fn csv_with_quotes_and_bytes_is_read() {
        let text = b"sii,value\r\n+1,im:a@x\r\n\"a,\"\"b\",\"two\r\nlines\"\r\nc,base64:/wA=\r\n\
            d,\r\n";
        let (found, errors) = all(InputFormat::Csv, text).unwrap();
        assert_eq!(errors, LineErrors::default());
        assert_eq!(found[0], ("+1".into(), b"im:a@x".to_vec(), 2));
        assert_eq!(found[1], ("a,\"b".into(), b"two\r\nlines".to_vec(), 3));
        assert_eq!(found[2], ("c".into(), vec![255, 0], 5));
        assert_eq!(found[3], ("d".into(), vec![], 6));
    }

    #[test]
    fn csv_lines_are_numbered_as_an_editor_numbers_them() {
        for end in ["\n", "\r\n"] {
            let text =
                ["", "sii,value", "", "", "a,1", "\"b\",\"x", "y\"", "c,2", "", "d"].join(end);
            let (found, errors) = all(InputFormat::Csv, text.as_bytes()).unwrap();
            let lines: Vec<u64> = found.iter().map(|entry| entry.2).collect();
            assert_eq!((lines, errors.first[0].0), (vec![5, 6, 8], 10));
        }
    }

    #[test]
    fn a_byte_order_mark_is_not_part_of_the_first_line() {
        for (format, text) in [
            (InputFormat::Csv, "\u{feff}sii,value\na,b\n"),
            (InputFormat::JsonLines, "\u{feff}{\"sii\":\"a\",\"value\":\"b\"}\n"),
        ] {
            let mut found = Vec::new();
            let mut each = |entry: Entry<'_>| -> Result<(), std::convert::Infallible> {
                found.push((entry.key.to_vec(), entry.value.to_vec()));
                Ok(())
            };
            let errors = read(text.as_bytes(), format, 39, &mut each).unwrap();
            assert_eq!(errors.count, 0, "{errors}");
            assert_eq!(found, [(b"a".to_vec(), b"b".to_vec())]);
        }
    }

    #[test]
    fn json_lines_are_read() {
        let text =
            "{\"sii\":\"a\",\"value\":\"1\"}\n\n{\"value\":\"base64:AA==\",\"sii\":\"\\u00e9\"}";
        let (found, errors) = all(InputFormat::JsonLines, text.as_bytes()).unwrap();
        assert_eq!(errors, LineErrors::default());
        assert_eq!(found[0], ("a".into(), b"1".to_vec(), 1));
        assert_eq!(found[1], ("é".into(), vec![0], 3));
    }

    #[test]
    fn wrong_lines_are_counted_and_the_first_ten_named() {
        let mut text = b"sii,value\n,x\na\na,b,c\n\xff,x\nk,\xff\nk,base64:!\nk,".to_vec();
        text.extend([b'v'; 21]);
        text.extend([b"\n", &vec![b'k'; limits::KEY_BYTES_MAX + 1][..], b",v\n"].concat());
        text.extend(b"a\n".repeat(5));
        text.extend(b"good,1\n");
        let (found, errors) = all(InputFormat::Csv, &text).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!((errors.count, errors.first.len()), (13, 10));
        let expected = ["empty", "1 fields", "3 fields", "key is not", "value is not UTF-8"];
        for (i, part) in expected.iter().enumerate() {
            assert_eq!(errors.first[i].0, i as u64 + 2);
            assert!(errors.first[i].1.contains(part), "{errors}");
        }
        assert!(errors.to_string().contains("line 8: the value has 21 bytes"), "{errors}");
        assert!(errors.to_string().ends_with("and 3 more"), "{errors}");
    }

    #[test]
    fn wrong_json_lines_are_named() {
        let mut text =
            b"{\"sii\":\"a\"}\n[]\n{\"sii\":\"a\",\"value\":\"b\",\"x\":1}\n{\"sii\n".to_vec();
        text.extend(b"{\"sii\":1,\"value\":\"b\"}\n");
        text.extend(vec![b'x'; limits::INPUT_RECORD_BYTES_MAX + 5]);
        text.extend(b"\n{\"sii\":\"a\",\"value\":\"b\"}\n");
        let (found, errors) = all(InputFormat::JsonLines, &text).unwrap();
        assert_eq!(found, vec![("a".into(), b"b".to_vec(), 7)]);
        let lines: Vec<u64> = errors.first.iter().map(|error| error.0).collect();
        assert_eq!(lines, [1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn a_quote_that_is_never_closed_ends_within_bounds() {
        let text = b"sii,value\na,b\n\"c,".iter().copied().chain(std::iter::repeat(b'x'));
        struct Endless<I>(I);
        impl<I: Iterator<Item = u8>> Read for Endless<I> {
            fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
                out.iter_mut().for_each(|byte| *byte = self.0.next().unwrap());
                Ok(out.len())
            }
        }
        let error =
            read(buffered(Endless(text)), InputFormat::Csv, 20, &mut |_| Ok::<(), Infallible>(()));
        let error = error.unwrap_err().to_string();
        assert!(error.contains("line 3") && error.contains("quote"), "{error}");
    }

    #[test]
    fn a_missing_header_is_said() {
        for text in ["", "a,b\n", "sii\n", "sii,value,more\n", "{}\n"] {
            let error = all(InputFormat::Csv, text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains("`sii,value`"), "{text}: {error}");
        }
        assert!(all(InputFormat::Csv, b"\xef\xbb\xbfsii,value\n").is_ok());
    }
}
