//! The text of an input, a file or a stream, decompressed (gzip, zstd) with bounded memory. What is
//! no text (another compression, a spreadsheet, UTF-16) is named.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, BufReader, Cursor, ErrorKind, Read};
use std::path::Path;

use super::input::{Input, InputFormat, ReadError};
use crate::text;

const BUFFER_BYTES: usize = 1 << 18;
/// Bytes at the beginning of an input that say what it is.
const HEAD_BYTES: u64 = 1 << 10;
/// Ends of file names that a compression adds.
const COMPRESSED_ENDS: [&str; 4] = ["gz", "gzip", "zst", "zstd"];
const GZIP: &[u8] = b"\x1f\x8b";
const ZSTD: &[u8] = b"\x28\xb5\x2f\xfd";

/// Beginnings of files that are no text, with what they are and what to do.
const OTHERS: [(&[u8], &str); 10] = [
    (b"BZh", "bzip2: give what `bzip2 -dc` prints, by a pipe"),
    (b"\xfd7zXZ\0", "xz: give what `xz -dc` prints, by a pipe"),
    (b"\x04\"M\x18", "lz4: give what `lz4 -dc` prints, by a pipe"),
    (b"PK\x03\x04", "a ZIP file or a spreadsheet (.xlsx, .ods): unpack it, or export it as CSV"),
    (b"7z\xbc\xaf\x27\x1c", "7z: give what `7z x -so` prints, by a pipe"),
    (b"Rar!", "RAR: unpack it"),
    (b"PAR1", "Parquet: export it as CSV"),
    (b"SQLite format 3\0", "an SQLite database: export it as CSV"),
    (b"\xd0\xcf\x11\xe0", "an Office file (.xls): export it as CSV"),
    (b"%PDF", "PDF: export the records as CSV"),
];

/// An input's text, and how records are written in it.
#[allow(missing_docs)] // Names say it.
pub struct Source<'a> {
    pub format: InputFormat,
    pub reader: BufReader<Box<dyn Read + 'a>>,
}

impl<'a> Source<'a> {
    /// Looks at the beginning of what `raw` has, and decompresses it where it is compressed. The
    /// path is that of the file, if it is one: the end of its name says how records are written.
    ///
    /// # Errors
    /// It cannot be read, or is no text.
    pub fn of(raw: impl Read + 'a, path: Option<&Path>) -> Result<Self, ReadError> {
        let (mut head, mut reader) = behead(Box::new(raw))?;
        let mut within = String::new();
        if let Some(what) = compression(&head) {
            let inner: Boxed<'a> = match what {
                "gzip" => Box::new(flate2::bufread::MultiGzDecoder::new(buffered(reader))),
                _ => Box::new(zstd::stream::read::Decoder::with_buffer(buffered(reader))?),
            };
            (head, reader) = behead(Box::new(Decompressed { inner, what }))?;
            within = format!(" within {what}");
        }
        if let Some(what) = no_text(&head) {
            let problem = format!("expected text, found{within} {what}");
            return Err(ReadError::Unreadable { line: 1, problem });
        }
        let format = format(&head, path);
        Ok(Self { format, reader: buffered(reader) })
    }

    /// The same of a whole input.
    pub fn open(input: &Input) -> Result<Self, ReadError> {
        match input {
            Input::File(path) => Self::of(fs::File::open(path)?, Some(path)),
            Input::Stdin => Self::of(io::stdin().lock(), None),
        }
    }
}

/// Whether an input can be read only once: standard input, a pipe, a device.
///
/// # Errors
/// There is none, or nobody may look at it.
pub fn is_stream(input: &Input) -> io::Result<bool> {
    let Input::File(path) = input else { return Ok(true) };
    let kind = fs::metadata(path)?.file_type();
    Ok(!kind.is_file() && !kind.is_dir())
}

fn buffered<R: Read>(reader: R) -> BufReader<R> {
    BufReader::with_capacity(BUFFER_BYTES, reader)
}

type Boxed<'a> = Box<dyn Read + 'a>;

/// The first bytes, and a reader that has them still.
fn behead(mut reader: Boxed<'_>) -> io::Result<(Vec<u8>, Boxed<'_>)> {
    let mut head = Vec::new();
    reader.by_ref().take(HEAD_BYTES).read_to_end(&mut head)?;
    Ok((head.clone(), Box::new(Cursor::new(head).chain(reader))))
}

fn compression(head: &[u8]) -> Option<&'static str> {
    match head {
        _ if head.starts_with(GZIP) => Some("gzip"),
        _ if head.starts_with(ZSTD) => Some("zstd"),
        // A frame that may be skipped before the first one, as `pzstd` writes.
        [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Some("zstd"),
        _ => None,
    }
}

/// Says of an error whether compressed data end too early or are damaged.
struct Decompressed<'a> {
    inner: Boxed<'a>,
    what: &'static str,
}

impl Read for Decompressed<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let what = self.what;
        self.inner.read(out).map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => {
                let said = format!("the {what} data end too early: the file was cut");
                io::Error::new(ErrorKind::UnexpectedEof, said)
            }
            // What the system says below is of other kinds, or has its own error within.
            _ if error.raw_os_error().is_some() => error,
            ErrorKind::InvalidData | ErrorKind::InvalidInput | ErrorKind::Other => io::Error::new(
                ErrorKind::InvalidData,
                format!("the {what} data are damaged ({error})"),
            ),
            _ => error,
        })
    }
}

/// What the beginning is of, when it is not UTF-8 text.
fn no_text(head: &[u8]) -> Option<&'static str> {
    let other = OTHERS.iter().find(|(begin, _)| head.starts_with(begin));
    let by_content = [
        (compression(head).is_some(), "compressed data: decompress them once"),
        (
            head.get(257..262) == Some(b"ustar"),
            "a tar archive: give what `tar -xO` prints, by a pipe",
        ),
        (
            text::is_utf16(head),
            "UTF-16: save it as UTF-8, or convert it (`iconv -f UTF-16 -t UTF-8`)",
        ),
        (head.contains(&0), "bytes of another kind (with zeros in them)"),
    ];
    let by_content = by_content.iter().find(|(is_so, _)| *is_so);
    other.map(|(_, what)| *what).or(by_content.map(|(_, what)| *what))
}

/// By the end of the file's name, else by the first byte: a brace begins JSON Lines.
fn format(head: &[u8], path: Option<&Path>) -> InputFormat {
    let end = |path: &Path| path.extension().and_then(OsStr::to_str).map(str::to_ascii_lowercase);
    let named = path.and_then(|path| {
        let compressed = end(path).is_some_and(|end| COMPRESSED_ENDS.contains(&&*end));
        if compressed { end(Path::new(path.file_stem()?)) } else { end(path) }
    });
    match named.as_deref() {
        Some("csv") => return InputFormat::Csv,
        Some("jsonl" | "ndjson" | "json") => return InputFormat::JsonLines,
        _ => {}
    }
    let head = head.strip_prefix(text::BYTE_ORDER_MARK).unwrap_or(head);
    match head.iter().find(|byte| !byte.is_ascii_whitespace()) {
        Some(b'{') => InputFormat::JsonLines,
        _ => InputFormat::Csv,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        out.write_all(text).unwrap();
        out.finish().unwrap()
    }

    fn zstd(text: &[u8]) -> Vec<u8> {
        let mut out = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
        out.include_checksum(true).unwrap(); // as the program does
        out.write_all(text).unwrap();
        out.finish().unwrap()
    }

    /// A byte a call, as a slow pipe may have it.
    struct Slow<'a>(&'a [u8]);

    impl Read for Slow<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let some = out.len().min(1);
            self.0.read(&mut out[..some])
        }
    }

    fn all(bytes: &[u8], name: &str) -> Result<(InputFormat, String), ReadError> {
        let mut source = Source::of(Slow(bytes), Some(Path::new(name)))?;
        let mut text = String::new();
        source.reader.read_to_string(&mut text)?;
        Ok((source.format, text))
    }

    #[test]
    fn text_is_decompressed_by_its_bytes_and_its_format_is_the_names_or_the_first_bytes() {
        let text = format!("sii,value\n{}", "a,b\n".repeat(2_000));
        let skippable = [b"\x50\x2a\x4d\x18\x01\0\0\0x".to_vec(), zstd(text.as_bytes())].concat();
        let halves = text.split_at(5_000);
        let members = [gzip(halves.0.as_bytes()), gzip(halves.1.as_bytes())].concat();
        for bytes in [gzip(text.as_bytes()), members, zstd(text.as_bytes()), skippable] {
            for name in ["x.csv", "x.csv.gz", "x.zst", "63"] {
                let (format, read) = all(&bytes, name).unwrap();
                assert!((format, &read) == (InputFormat::Csv, &text), "{name}");
            }
        }
        for (bytes, name, format) in [
            (&b""[..], "x", InputFormat::Csv),
            (b"{}", "x.csv", InputFormat::Csv),
            (b"{}", "x.CSV.GZ", InputFormat::Csv),
            (b"x", "x.jsonl.zst", InputFormat::JsonLines),
            (b"x", "x.ndjson", InputFormat::JsonLines),
            (b" \n{}", "63", InputFormat::JsonLines),
            (b"\xef\xbb\xbf{}", "x.gz", InputFormat::JsonLines),
            (b"a", "x.txt", InputFormat::Csv),
        ] {
            let text = String::from_utf8(bytes.to_vec()).unwrap();
            assert_eq!(all(bytes, name).unwrap(), (format, text), "{name}");
        }
    }

    #[test]
    fn cut_and_damaged_compression_is_an_error_wherever_it_is_cut() {
        let text: String = (0..2_000).map(|n| format!("key{n},value{}\n", n * 7919)).collect();
        for (what, whole) in [("gzip", gzip(text.as_bytes())), ("zstd", zstd(text.as_bytes()))] {
            for end in (4..whole.len()).step_by(97).chain([whole.len() - 1]) {
                let error = all(&whole[..end], "x").unwrap_err().to_string();
                let expected = format!("the {what} data end too early");
                assert!(error.contains(&expected), "{what} cut at {end}: {error}");
            }
            let mut damaged = whole.clone();
            damaged[whole.len() / 2] ^= 0x55;
            assert!(all(&damaged, "x").is_err(), "{what}");
            let trailing = [&whole[..], b"sii,value\n"].concat();
            assert!(all(&trailing, "x").is_err(), "{what}");
        }
    }
}
