//! Reading records: CSV (RFC 4180, header `sii,value`) or JSON Lines, as a stream, line by line.
//!
//! Memory is bounded by [`limits::INPUT_RECORD_BYTES_MAX`], whatever the input. A line that is
//! wrong is counted and the reading goes on, so that a person sees the first ten of a thousand
//! mistakes at once. Messages name lines, never keys or values. What this module does not do:
//! open and decompress files ([`super::source`]), look for duplicates ([`super::check`]).

use std::io::{self, BufRead};
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::csv::{self, Csv, Wrong};
use super::lines::Lines;
use super::suspect;
use crate::limits;
use crate::text::{self, BYTE_ORDER_MARK};

/// How many wrong lines a message names.
pub const ERRORS_SHOWN: usize = 10;
const BASE64_PREFIX: &[u8] = b"base64:";

/// Where records come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A file, read twice; a pipe or another stream by this name is as standard input.
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

/// The longest value that a line may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ValueBound {
    /// In bytes.
    pub bytes: usize,
    /// Whose bound it is and what to do about it: ends a message.
    pub why: &'static str,
}

/// What was found besides the entries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Lines that are wrong.
    pub errors: LineErrors,
    /// Lines that are used, and hardly meant as they are.
    pub warnings: LineErrors,
    /// Whether the last line has no line end, as in a file that was cut.
    pub unended: bool,
}

impl Found {
    /// What a person should read, though it is no error.
    pub fn warning(&self) -> Option<String> {
        let mut said = Vec::new();
        if self.warnings.count > 0 {
            let (lines, warnings) = (super::lines(self.warnings.count), &self.warnings);
            said.push(format!("WARNING: {lines} used, but hardly meant as they are:{warnings}"));
        }
        if self.unended {
            said.push("NOTE: the last line has no line end, as in a file that was cut.".into());
        }
        (!said.is_empty()).then(|| said.join("\n"))
    }
}

/// Reads all entries, hands each good one to `each`, and counts the others.
pub fn read<E>(
    reader: impl BufRead,
    format: InputFormat,
    bound: ValueBound,
    each: &mut dyn FnMut(Entry<'_>) -> Result<(), E>,
) -> Result<Found, ReadError<E>> {
    let (errors, warnings) = (LineErrors::default(), LineErrors::default());
    let mut sink = Sink { bound, errors, warnings, decoded: vec![], each };
    let unended = match format {
        InputFormat::Csv => read_csv(reader, &mut sink)?,
        InputFormat::JsonLines => read_json_lines(reader, &mut sink)?,
    };
    Ok(Found { errors: sink.errors, warnings: sink.warnings, unended })
}

struct Sink<'a, E> {
    bound: ValueBound,
    errors: LineErrors,
    warnings: LineErrors,
    decoded: Vec<u8>,
    each: &'a mut dyn FnMut(Entry<'_>) -> Result<(), E>,
}

impl<E> Sink<'_, E> {
    fn entry(&mut self, line: u64, key: &[u8], value: &[u8]) -> Result<(), ReadError<E>> {
        let text = match key_text(key) {
            Ok(text) => text,
            Err(problem) => {
                self.errors.add(line, problem);
                return Ok(());
            }
        };
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
        } else if let Some(reason) = suspect::value(value) {
            self.warnings.add(line, reason);
        }
        let ValueBound { bytes: most, why } = self.bound;
        if value.len() > most {
            let found = value.len();
            self.errors
                .add(line, format!("the value has {found} bytes, expected at most {most}{why}"));
            return Ok(());
        }
        if let Some(reason) = suspect::key(text) {
            self.warnings.add(line, reason);
        }
        (self.each)(Entry { key, value, line }).map_err(ReadError::Entry)
    }
}

fn key_text(key: &[u8]) -> Result<&str, String> {
    if key.is_empty() {
        return Err("the key is empty".into());
    }
    if key.len() > limits::KEY_BYTES_MAX {
        let (found, most) = (key.len(), limits::KEY_BYTES_MAX);
        return Err(format!("the key has {found} bytes, expected at most {most}"));
    }
    std::str::from_utf8(key).map_err(|_| "the key is not UTF-8".into())
}

fn read_csv<E>(reader: impl BufRead, sink: &mut Sink<'_, E>) -> Result<bool, ReadError<E>> {
    let mut csv = Csv::new(reader);
    match csv.next()? {
        None => return Err(no_header(1, "an empty file")),
        Some(Ok(_)) if is_header(&csv) => {}
        Some(Ok(line) | Err(Wrong { line, .. })) => {
            return Err(no_header(line, &csv::instead_of_header(csv.text())));
        }
    }
    while let Some(record) = csv.next()? {
        match record {
            Err(Wrong { line, problem }) => sink.errors.add(line, problem),
            Ok(line) if is_header(&csv) => {
                sink.errors.add(line, "the header once more: were files put one after the other?");
            }
            Ok(line) if csv.len() == 2 => sink.entry(line, csv.field(0), csv.field(1))?,
            Ok(line) => {
                let fields = text::counted(csv.len() as u64, "field");
                sink.errors.add(line, format!("{fields}, expected 2 (sii,value)"));
            }
        }
    }
    Ok(csv.is_unended())
}

fn is_header<R: BufRead>(csv: &Csv<R>) -> bool {
    let field = |at: usize| csv.field(at).strip_prefix(BYTE_ORDER_MARK).unwrap_or(csv.field(at));
    csv.len() == 2 && field(0) == b"sii" && field(1) == b"value"
}

fn no_header<E>(line: u64, found: &str) -> ReadError<E> {
    let problem = format!("CSV begins with the header `sii,value`, found {found}");
    ReadError::Unreadable { line, problem }
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonEntry<'a> {
    #[serde(borrow)]
    sii: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    value: std::borrow::Cow<'a, str>,
}

fn read_json_lines<E>(reader: impl BufRead, sink: &mut Sink<'_, E>) -> Result<bool, ReadError<E>> {
    let most = limits::INPUT_RECORD_BYTES_MAX;
    let mut lines = Lines::new(reader);
    let mut text = Vec::new();
    while let Some(end) = lines.read(&mut text)? {
        let line = lines.number();
        if text.len() - end > most {
            sink.errors.add(line, format!("more than {most} bytes"));
            lines.skip()?;
        } else if !text.trim_ascii().is_empty() {
            match serde_json::from_slice::<JsonEntry<'_>>(&text) {
                Ok(entry) => sink.entry(line, entry.sii.as_bytes(), entry.value.as_bytes())?,
                Err(_) if text.trim_ascii_start().starts_with(b"[") => {
                    let what = "a list, expected one object a line (`jq -c '.[]'` makes them)";
                    sink.errors.add(line, what);
                }
                Err(error) => {
                    let (what, column) = (json_problem(&error), error.column());
                    let expected = r#"expected {"sii": "..", "value": ".."}"#;
                    sink.errors.add(line, format!("{what} at column {column}, {expected}"));
                }
            }
        }
        text.clear();
    }
    Ok(lines.is_unended())
}

/// What is wrong, without serde_json's quotations of the line.
fn json_problem(error: &serde_json::Error) -> &'static str {
    match error.classify() {
        serde_json::error::Category::Data => "fields that are missing, unknown or not text",
        serde_json::error::Category::Eof => "an object that does not end",
        serde_json::error::Category::Syntax | serde_json::error::Category::Io => "not JSON",
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    const BOUND: ValueBound = ValueBound { bytes: 20, why: "" };

    type Read1 = Result<(Vec<(String, Vec<u8>, u64)>, LineErrors), ReadError<Infallible>>;

    fn all(format: InputFormat, text: &[u8]) -> Read1 {
        let mut found = Vec::new();
        let Found { errors, .. } = read(text, format, BOUND, &mut |entry| {
            let key = String::from_utf8(entry.key.to_vec()).unwrap();
            found.push((key, entry.value.to_vec(), entry.line));
            Ok::<(), Infallible>(())
        })?;
        Ok((found, errors))
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
        for end in ["\n", "\r\n", "\r"] {
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
            let Found { errors, .. } = read(text.as_bytes(), format, BOUND, &mut each).unwrap();
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
        let expected = ["empty", "1 field,", "3 fields", "key is not", "value is not UTF-8"];
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
        impl<I: Iterator<Item = u8>> io::Read for Endless<I> {
            fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
                out.iter_mut().for_each(|byte| *byte = self.0.next().unwrap());
                Ok(out.len())
            }
        }
        let endless = io::BufReader::new(Endless(text));
        let error = read(endless, InputFormat::Csv, BOUND, &mut |_| Ok::<(), Infallible>(()));
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

    #[test]
    fn what_is_hardly_meant_is_counted_with_its_lines_and_used() {
        let mut text = "sii,value\n+1,a\n\u{200e}+2,b\n1.2E+11,\"c\nd\"\n".to_owned();
        text.push_str(&"=x,y\n".repeat(20));
        let mut used = 0;
        let read = |text: &str, used: &mut u64| {
            read(text.as_bytes(), InputFormat::Csv, BOUND, &mut |_| {
                *used += 1;
                Ok::<(), Infallible>(())
            })
        };
        let found = read(&text, &mut used).unwrap();
        assert_eq!((used, found.errors.count, found.warnings.count), (23, 0, 23));
        let said = found.warning().unwrap();
        for part in ["23 lines", "line 3: the key has", "line 4: the value has a line break"] {
            assert!(said.contains(part), "{said}");
        }
        assert!(said.ends_with("and 13 more"), "{said}");
        let cut = read("sii,value\na,b\nc,d", &mut used).unwrap();
        assert!(cut.unended && cut.warning().unwrap().starts_with("NOTE: the last line"));
        assert_eq!(read("sii,value\na,b\n", &mut used).unwrap().warning(), None);
    }

    #[test]
    fn an_end_within_a_json_string_is_an_error_with_its_line() {
        let whole = "{\"sii\":\"a\",\"value\":\"bc\"}\n{\"sii\":\"d\",\"value\":\"e\\u00e9\"}";
        let second = whole.find('\n').unwrap() + 2;
        for end in second..whole.len() {
            let (found, errors) = all(InputFormat::JsonLines, &whole.as_bytes()[..end]).unwrap();
            assert_eq!((found.len(), errors.first[0].0, errors.count), (1, 2, 1), "{end}");
        }
        assert_eq!(all(InputFormat::JsonLines, whole.as_bytes()).unwrap().0.len(), 2);
    }

    #[test]
    fn a_header_in_the_middle_is_an_error() {
        for again in ["sii,value", "\u{feff}sii,value", "\"sii\",\"value\""] {
            let text = format!("sii,value\na,b\n{again}\nc,d\n");
            let (found, errors) = all(InputFormat::Csv, text.as_bytes()).unwrap();
            assert_eq!((found.len(), errors.first[0].0), (2, 3), "{again}");
        }
    }
}
