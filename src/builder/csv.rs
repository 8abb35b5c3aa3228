//! CSV exactly as RFC 4180 has it. The `csv` crate is not used because it accepts a quote anywhere:
//! it turns one forgotten quote into one long record, without an error.

use std::io::BufRead;

use super::lines::{Lines, ReadError, too_long};
use crate::limits;

pub(super) struct Csv<R> {
    pub(super) lines: Lines<R>,
    /// The line that was read last, as it stands there.
    pub(super) text: Vec<u8>,
    /// The fields of the record, one after the other, and where each ends.
    fields: Vec<u8>,
    ends: Vec<usize>,
}

/// A line that is no record.
pub(super) struct Wrong {
    pub(super) line: u64,
    pub(super) problem: String,
}

#[derive(Clone, Copy, PartialEq)]
enum At {
    Start,
    Plain,
    Quoted,
    /// After a quote within quotes: the end, or half of a doubled one.
    Closed,
}

impl<R: BufRead> Csv<R> {
    pub(super) fn new(inner: R) -> Self {
        let (text, fields, ends) = (Vec::new(), Vec::new(), Vec::new());
        Self { lines: Lines::new(inner), text, fields, ends }
    }

    /// Reads the next record that is not an empty line; its first line, or what is wrong with it.
    /// Nothing at the end.
    pub(super) fn next(&mut self) -> Result<Option<Result<u64, Wrong>>, ReadError> {
        loop {
            self.text.clear();
            let Some(end) = self.lines.read(&mut self.text)? else { return Ok(None) };
            if self.text.len() - end > limits::INPUT_RECORD_BYTES_MAX {
                let question = "is a quote not closed, or is it CSV?";
                return Err(too_long(self.lines.number, question));
            }
            if self.text.len() > end {
                return self.record(end).map(Some);
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn field(&self, index: usize) -> &[u8] {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.fields[start..self.ends[index]]
    }

    /// Takes the record apart that begins with the line at hand; `end` bytes of that are its end.
    fn record(&mut self, mut end: usize) -> Result<Result<u64, Wrong>, ReadError> {
        self.fields.clear();
        self.ends.clear();
        let first = self.lines.number;
        if !self.text.contains(&b'"') {
            self.split_plain(end);
            return Ok(Ok(first));
        }
        let (mut at, mut opened) = (At::Start, first);
        loop {
            let line = self.lines.number;
            let wrong = |line, problem| Ok(Err(Wrong { line, problem }));
            for &byte in &self.text[..self.text.len() - end] {
                at = match (at, byte) {
                    (At::Start, b'"') => {
                        opened = line;
                        At::Quoted
                    }
                    (At::Start | At::Plain | At::Closed, b',') => {
                        self.ends.push(self.fields.len());
                        At::Start
                    }
                    (At::Plain, b'"') => return wrong(line, quote_within()),
                    (At::Quoted, b'"') => At::Closed,
                    (At::Closed, b'"') => {
                        self.fields.push(b'"');
                        At::Quoted
                    }
                    (At::Closed, _) => return wrong(opened, text_after(opened, line)),
                    (At::Quoted, _) => {
                        self.fields.push(byte);
                        At::Quoted
                    }
                    (At::Start | At::Plain, _) => {
                        self.fields.push(byte);
                        At::Plain
                    }
                };
            }
            if at != At::Quoted {
                self.ends.push(self.fields.len());
                return Ok(Ok(first));
            }
            self.fields.extend_from_slice(&self.text[self.text.len() - end..]);
            let most = limits::INPUT_RECORD_BYTES_MAX;
            if self.fields.len() > most {
                return Err(unclosed(opened, &format!("within {most} bytes")));
            }
            self.text.clear();
            match self.lines.read(&mut self.text)? {
                Some(next) => end = next,
                None => return Err(unclosed(opened, "before the end of the file")),
            }
        }
    }

    fn split_plain(&mut self, end: usize) {
        let content = &self.text[..self.text.len() - end];
        for field in content.split(|&byte| byte == b',') {
            self.fields.extend_from_slice(field);
            self.ends.push(self.fields.len());
        }
    }
}

fn quote_within() -> String {
    "a quote within a field: a field with quotes stands in quotes, and those in it are doubled"
        .into()
}

fn text_after(opened: u64, line: u64) -> String {
    match line == opened {
        true => "text after the quote that ends a field: quotes in a field are doubled".into(),
        false => format!(
            "the quote that begins here ends on line {line}, before other text: is it one too many?"
        ),
    }
}

fn unclosed(line: u64, where_to: &str) -> ReadError {
    let problem = format!(
        "the quote that begins here is not closed {where_to}: it is one too many, or the file was \
         cut"
    );
    ReadError::Unreadable { line, problem }
}

/// What is on the first line in place of the header, and what to do, as the rest of a sentence.
/// Nothing of the line is repeated: it may be a record.
pub(super) fn instead_of_header(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let text = text.trim();
    let names = |separator: char| -> Vec<String> {
        let name = |name: &str| name.trim().trim_matches('"').trim().to_lowercase();
        text.split(separator).map(name).collect()
    };
    let has_both = |names: &[String]| ["sii", "value"].iter().all(|n| names.iter().any(|m| m == n));
    let begins = [
        ("{", "JSON: one object a line is read from a file named .jsonl"),
        ("[", "a JSON list: write one object a line (`jq -c '.[]'`), named .jsonl"),
        ("<", "a web page or XML: is it the file that was to be downloaded?"),
        ("sep=", "a spreadsheet's line `sep=`: remove it"),
    ];
    if let Some((_, what)) = begins.iter().find(|(begin, _)| text.starts_with(begin)) {
        return (*what).into();
    }
    let separators = [('\t', "tabs"), (';', "semicolons"), ('|', "vertical bars")];
    let separates =
        |separator| has_both(&names(separator)) || text.contains(separator) && !text.contains(',');
    if let Some((_, what)) = separators.into_iter().find(|(separator, _)| separates(*separator)) {
        return format!("fields with {what} between them: put commas there");
    }
    let names = names(',');
    let expected = names == ["sii", "value"];
    match names.len() {
        _ if expected && text.contains(|c: char| c.is_uppercase()) => {
            "it with capitals: write it in small letters".into()
        }
        _ if expected => "it with spaces or other characters that do not show: remove them".into(),
        _ if names == ["value", "sii"] => "the two columns in the other order".into(),
        count if has_both(&names) => format!("{count} columns: keep these two"),
        1 => "one column".into(),
        count if text.contains(|c: char| c.is_ascii_digit() || c == '@') => format!(
            "no header, but what looks like a record of {count} fields: put the header before it"
        ),
        count => format!("{count} columns with other names: rename them"),
    }
}
