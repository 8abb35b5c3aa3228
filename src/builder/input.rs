//! Reading records, line by line: CSV (RFC 4180, header `sii,value`) or JSON Lines.
//!
//! Memory is bounded by [`limits::INPUT_RECORD_BYTES_MAX`]. A wrong line is counted and reading
//! goes on, so that a person sees the first ten mistakes at once. Messages name lines, never keys
//! or values.

use std::io::{self, BufRead};
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::csv::{self, Csv, Wrong};
pub use super::lines::ReadError;
use super::lines::{Lines, too_long};
use super::suspect;
use crate::limits;
use crate::text::{BYTE_ORDER_MARK, counted};

/// How many wrong lines a message names.
pub const ERRORS_SHOWN: usize = 10;
const BASE64_PREFIX: &[u8] = b"base64:";

/// Where records come from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)] // Names say it.
pub enum Input {
    /// A file, read twice; a pipe or another stream by this name is as standard input.
    File(PathBuf),
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

impl Input {
    /// The name of the input in messages.
    pub fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Stdin => "standard input".into(),
        }
    }
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
#[allow(missing_docs)] // Names say it.
pub struct Entry<'a> {
    /// The look-up key: UTF-8, 1 to [`limits::KEY_BYTES_MAX`] bytes.
    pub key: &'a [u8],
    pub value: &'a [u8],
    /// The line it begins on, from 1.
    pub line: u64,
}

/// Lines that are wrong: how many, and the first ten.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs)] // Names say it.
pub struct LineErrors {
    pub first: Vec<(u64, String)>,
    pub count: u64,
}

impl LineErrors {
    /// Counts one more, and keeps it when it is among the first by line.
    pub fn add(&mut self, line: u64, problem: impl Into<String>) {
        self.count += 1;
        let at = self.first.partition_point(|&(other, _)| other <= line);
        if at < ERRORS_SHOWN {
            self.first.insert(at, (line, problem.into()));
            self.first.truncate(ERRORS_SHOWN);
        }
    }

    /// Adds those that were counted elsewhere.
    pub(super) fn merge(&mut self, other: &Self) {
        let count = self.count + other.count;
        other.first.iter().for_each(|(line, problem)| self.add(*line, &**problem));
        self.count = count;
    }
}

impl LineErrors {
    /// Text of those that are kept, with what stands before their numbers.
    pub fn named(&self, what: &str) -> String {
        let named = |(line, problem): &(u64, String)| format!("\n  {what} {line}: {problem}");
        let mut text: String = self.first.iter().map(named).collect();
        let more = self.count - self.first.len() as u64;
        if more > 0 {
            text += &format!("\n  and {more} more");
        }
        text
    }
}

impl std::fmt::Display for LineErrors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.named("line"))
    }
}

/// The longest value that a line may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // Names say it.
pub struct ValueBound {
    pub bytes: usize,
    /// Whose bound it is and what to do about it: ends a message.
    pub why: &'static str,
}

/// What was found besides the entries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs)] // Names say it.
pub struct Found {
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
            let (lines, warnings) = (counted(self.warnings.count, "line"), &self.warnings);
            said.push(format!("WARNING: {lines} used, but hardly meant as they are:{warnings}"));
        }
        if self.unended {
            said.push("NOTE: the last line has no line end, as in a file that was cut.".into());
        }
        (!said.is_empty()).then(|| said.join("\n"))
    }
}

/// Reads all entries, hands each good one to `each`, and counts the others.
pub fn read(
    reader: impl BufRead,
    format: InputFormat,
    bound: ValueBound,
    each: &mut dyn FnMut(Entry<'_>) -> io::Result<()>,
) -> Result<Found, ReadError> {
    let mut sink = Sink { bound, found: Found::default(), decoded: vec![], each };
    match format {
        InputFormat::Csv => read_csv(reader, &mut sink)?,
        InputFormat::JsonLines => read_json_lines(reader, &mut sink)?,
    }
    Ok(sink.found)
}

struct Sink<'a> {
    bound: ValueBound,
    found: Found,
    decoded: Vec<u8>,
    each: &'a mut dyn FnMut(Entry<'_>) -> io::Result<()>,
}

impl Sink<'_> {
    fn entry(&mut self, line: u64, key: &[u8], value: &[u8]) -> Result<(), ReadError> {
        let text = key_text(key);
        let decoded = decode(value, &mut self.decoded, self.bound);
        match text.and_then(|text| Ok((text, decoded?))) {
            Err(problem) => self.found.errors.add(line, problem),
            Ok((text, decoded)) => {
                let reasons = [suspect::value(value), suspect::key(text)];
                let warnings = &mut self.found.warnings;
                reasons.into_iter().flatten().for_each(|reason| warnings.add(line, reason));
                (self.each)(Entry { key, value: decoded, line }).map_err(ReadError::Entry)?;
            }
        }
        Ok(())
    }
}

fn key_text(key: &[u8]) -> Result<&str, String> {
    let most = limits::KEY_BYTES_MAX;
    match key.len() {
        0 => Err("the key is empty".into()),
        found if found > most => Err(format!("the key has {found} bytes, expected at most {most}")),
        _ => std::str::from_utf8(key).map_err(|_| "the key is not UTF-8".into()),
    }
}

/// The bytes of a value, in `buffer` where they are written as base64.
fn decode<'a>(
    value: &'a [u8],
    buffer: &'a mut Vec<u8>,
    bound: ValueBound,
) -> Result<&'a [u8], String> {
    let decoded = match value.strip_prefix(BASE64_PREFIX) {
        Some(text) => {
            buffer.clear();
            let decoded = STANDARD.decode_vec(text, buffer);
            decoded.map_err(|e| format!("the value is not base64 after `base64:`: {e}"))?;
            &**buffer
        }
        None if std::str::from_utf8(value).is_err() => {
            return Err("the value is not UTF-8 (bytes are written as `base64:..`)".into());
        }
        None => value,
    };
    let (found, ValueBound { bytes: most, why }) = (decoded.len(), bound);
    match found <= most {
        true => Ok(decoded),
        false => Err(format!("the value has {found} bytes, expected at most {most}{why}")),
    }
}

fn read_csv(reader: impl BufRead, sink: &mut Sink<'_>) -> Result<(), ReadError> {
    let mut csv = Csv::new(reader);
    match csv.next()? {
        None => return Err(no_header(1, "an empty file")),
        Some(Ok(_)) if is_header(&csv) => {}
        Some(Ok(line) | Err(Wrong { line, .. })) => {
            return Err(no_header(line, &csv::instead_of_header(&csv.text)));
        }
    }
    while let Some(record) = csv.next()? {
        match record {
            Err(Wrong { line, problem }) => sink.found.errors.add(line, problem),
            Ok(line) if is_header(&csv) => {
                sink.found
                    .errors
                    .add(line, "the header once more: were files put one after the other?");
            }
            Ok(line) if csv.len() == 2 => sink.entry(line, csv.field(0), csv.field(1))?,
            Ok(line) => {
                let fields = counted(csv.len() as u64, "field");
                sink.found.errors.add(line, format!("{fields}, expected 2 (sii,value)"));
            }
        }
    }
    sink.found.unended = csv.lines.unended;
    Ok(())
}

fn is_header<R: BufRead>(csv: &Csv<R>) -> bool {
    let field = |at: usize| csv.field(at).strip_prefix(BYTE_ORDER_MARK).unwrap_or(csv.field(at));
    csv.len() == 2 && field(0) == b"sii" && field(1) == b"value"
}

fn no_header(line: u64, found: &str) -> ReadError {
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

fn read_json_lines(reader: impl BufRead, sink: &mut Sink<'_>) -> Result<(), ReadError> {
    let mut lines = Lines::new(reader);
    let mut text = Vec::new();
    while let Some(end) = lines.read(&mut text)? {
        let line = lines.number;
        if text.len() - end > limits::INPUT_RECORD_BYTES_MAX {
            return Err(too_long(line, "is it JSON Lines?"));
        }
        if !text.trim_ascii().is_empty() {
            match serde_json::from_slice::<JsonEntry<'_>>(&text) {
                Ok(entry) => sink.entry(line, entry.sii.as_bytes(), entry.value.as_bytes())?,
                Err(_) if text.trim_ascii_start().starts_with(b"[") => {
                    let what = "a list, expected one object a line (`jq -c '.[]'` makes them)";
                    sink.found.errors.add(line, what);
                }
                Err(error) => {
                    let (what, column) = (json_problem(&error), error.column());
                    let expected = r#"expected {"sii": "..", "value": ".."}"#;
                    sink.found.errors.add(line, format!("{what} at column {column}, {expected}"));
                }
            }
        }
        text.clear();
    }
    sink.found.unended = lines.unended;
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

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: ValueBound = ValueBound { bytes: 20, why: "" };

    type Read = Result<(Vec<(String, Vec<u8>, u64)>, LineErrors), ReadError>;

    fn all(format: InputFormat, text: &[u8]) -> Read {
        let mut found = Vec::new();
        let Found { errors, .. } = read(text, format, BOUND, &mut |entry| {
            let key = String::from_utf8(entry.key.to_vec()).unwrap();
            found.push((key, entry.value.to_vec(), entry.line));
            Ok(())
        })?;
        Ok((found, errors))
    }

    #[test]
    fn records_are_read_with_their_lines() {
        let check = |format, text: &str, expected: &[(&str, &[u8], u64)]| {
            let (found, errors) = all(format, text.as_bytes()).unwrap();
            let found: Vec<_> = found.iter().map(|(k, v, line)| (&**k, &**v, *line)).collect();
            assert_eq!((&*found, errors), (expected, LineErrors::default()), "{text}");
        };
        for end in ["\n", "\r\n", "\r"] {
            let lines =
                ["sii,value", "+1,im:a@x", "", "\"a,\"\"b\",\"2", "lines\"", "c,base64:/wA="];
            let text = [&lines[..], &["d,", "e,\"\"", "last,x"]].concat().join(end);
            let expected: [(&str, &[u8], u64); 6] = [
                ("+1", b"im:a@x", 2),
                ("a,\"b", &[b"2", end.as_bytes(), b"lines"].concat(), 4),
                ("c", b"\xff\0", 6),
                ("d", b"", 7),
                ("e", b"", 8),
                ("last", b"x", 9),
            ];
            check(InputFormat::Csv, &text, &expected);
        }
        check(InputFormat::Csv, "\u{feff}sii,value\n\na,b", &[("a", b"b", 3)]);
        let json = "\u{feff}{\"sii\":\"a\",\"value\":\"1\"}\n\n\
                    {\"value\":\"base64:AA==\",\"sii\":\"\\u00e9\"}";
        check(InputFormat::JsonLines, json, &[("a", b"1", 1), ("é", b"\0", 3)]);
    }

    #[test]
    fn wrong_quotes_name_the_line_where_they_begin() {
        let all = |text: &str| all(InputFormat::Csv, format!("sii,value\n{text}").as_bytes());
        let cut = "the quote that begins here is not closed before the end of the file";
        for (text, line) in [
            ("+1,\"abc\n+2,d\n+3,e\n", 2),
            ("a,b\n\"x\",\"", 3),
            ("a,\"x\ny\",\"z\nw", 3),
            ("a,\"b\"\"", 2),
        ] {
            let error = all(text).unwrap_err().to_string();
            assert!(error.starts_with(&format!("line {line}: {cut}")), "{text:?}: {error}");
        }
        let long = format!("a,b\n\"{}", "x\n".repeat(limits::INPUT_RECORD_BYTES_MAX));
        let error = all(&long).unwrap_err().to_string();
        assert!(error.starts_with("line 3: ") && error.contains("within 1048576 bytes"), "{error}");
        // After these, reading goes on.
        for (text, problem, line) in [
            ("a\"b,c\nd,e\n", "a quote within a field", 3),
            ("\"a\" ,c\nd,e\n", "text after the quote", 3),
            ("x,\"a\n+2,b\n+3,\"c\"\nd,e\n", "begins here ends on line 4", 5),
        ] {
            let (found, errors) = all(text).unwrap();
            assert_eq!((errors.count, errors.first[0].0), (1, 2), "{text:?}: {errors}");
            assert!(errors.first[0].1.contains(problem), "{text:?}: {errors}");
            assert_eq!(found, [("d".into(), b"e".to_vec(), line)], "{text:?}");
        }
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
        text.extend(b"{\"sii\":1,\"value\":\"b\"}\n{\"sii\":\"a\",\"value\":\"b\"}\n");
        let (found, errors) = all(InputFormat::JsonLines, &text).unwrap();
        assert_eq!(found, vec![("a".into(), b"b".to_vec(), 6)]);
        let lines: Vec<u64> = errors.first.iter().map(|error| error.0).collect();
        assert_eq!(lines, [1, 2, 3, 4, 5]);
        let most = limits::INPUT_RECORD_BYTES_MAX;
        let longest = [&text[..], &vec![b' '; most][..], b"\n"].concat();
        assert_eq!(all(InputFormat::JsonLines, &longest).unwrap().0.len(), 1);
        text.extend(vec![b'x'; 3 * most]);
        let error = all(InputFormat::JsonLines, &text).unwrap_err().to_string();
        assert!(error.starts_with("line 7: a line of more than"), "{error}");
        // An object that was cut, wherever.
        let whole = b"{\"sii\":\"d\",\"value\":\"e\\u00e9\"}";
        for end in 1..whole.len() {
            let (found, errors) = all(InputFormat::JsonLines, &whole[..end]).unwrap();
            assert_eq!((found.len(), errors.first[0].0, errors.count), (0, 1, 1), "{end}");
        }
    }

    #[test]
    fn a_header_is_first_and_only_first() {
        for text in ["", "a,b\n", "sii\n", "sii,value,more\n", "{}\n"] {
            let error = all(InputFormat::Csv, text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains("`sii,value`"), "{text}: {error}");
        }
        for again in ["sii,value", "\u{feff}sii,value", "\"sii\",\"value\""] {
            let text = format!("sii,value\na,b\n{again}\nc,d\n");
            let (found, errors) = all(InputFormat::Csv, text.as_bytes()).unwrap();
            assert_eq!((found.len(), errors.first[0].0), (2, 3), "{again}");
        }
    }

    #[test]
    fn what_is_hardly_meant_is_counted_with_its_lines_and_used() {
        let read = |text: &str| {
            let mut used = 0;
            let found = read(text.as_bytes(), InputFormat::Csv, BOUND, &mut |_| {
                used += 1;
                Ok(())
            });
            (found.unwrap(), used)
        };
        let text = "sii,value\n+1,a\n\u{200e}+2,b\n1.2E+11,\"c\nd\"\n".to_owned();
        let (found, used) = read(&(text + &"=x,y\n".repeat(20)));
        assert_eq!((used, found.errors.count, found.warnings.count), (23, 0, 23));
        let said = found.warning().unwrap();
        for part in ["23 lines", "line 3: the key has", "line 4: the value has a line break"] {
            assert!(said.contains(part), "{said}");
        }
        assert!(said.ends_with("and 13 more"), "{said}");
        let (cut, _) = read("sii,value\na,b\nc,d");
        assert!(cut.unended && cut.warning().unwrap().starts_with("NOTE: the last line"));
        assert_eq!(read("sii,value\na,b\n").0.warning(), None);
    }
}
