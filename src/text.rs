//! Text for people and from people: numbers as people read them, and small files as editors write
//! them, with a byte order mark or lines that end in CRLF or CR.

use std::io;
use std::path::Path;
use std::time::Duration;

/// A number in groups of three digits: "1,048,576".
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy);
    groups.collect::<Vec<_>>().join(",")
}

/// A number and its noun: "1 shard", "2 shards".
pub fn counted(number: u64, noun: &str) -> String {
    format!("{} {noun}{}", grouped(number), if number == 1 { "" } else { "s" })
}

/// Bytes in decimal units: "999 B", "242.2 MB".
pub fn bytes(bytes: u64) -> String {
    let (mut amount, mut unit) = (bytes as f64, "B");
    for larger in ["kB", "MB", "GB", "TB", "PB"] {
        // What would be rounded to a thousand is in the larger unit.
        if amount < 999.95 {
            break;
        }
        (amount, unit) = (amount / 1e3, larger);
    }
    let digits = usize::from(unit != "B");
    format!("{amount:.digits$} {unit}")
}

/// How often something happens: "0.04/s", "123/s".
pub fn rate(per_second: f64) -> String {
    match per_second {
        0.0 => "0/s".into(),
        ..1.0 => format!("{per_second:.2}/s"),
        ..10.0 => format!("{per_second:.1}/s"),
        _ => grouped(per_second.round() as u64) + "/s",
    }
}

/// A duration in the unit that suits it, from milliseconds to whole days.
pub fn duration(duration: Duration) -> String {
    const DAY: f64 = 86_400.0;
    let seconds = duration.as_secs_f64();
    let (amount, digits, unit) = match seconds {
        ..0.01 => (seconds * 1e3, 2, "ms"),
        ..1.0 => (seconds * 1e3, 0, "ms"),
        ..120.0 => (seconds, 1, "s"),
        ..7_200.0 => (seconds / 60.0, 1, "min"),
        ..172_800.0 => (seconds / 3_600.0, 1, "h"),
        _ => ((seconds / DAY).floor(), 0, "days"),
    };
    let amount = format!("{amount:.digits$}");
    format!("{} {unit}", amount.strip_suffix(".0").unwrap_or(&amount))
}

/// Some editors write it before UTF-8 text.
pub const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Why bytes are no text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // Names and messages say it.
pub enum TextError {
    #[error("it is UTF-16, expected UTF-8: save it as UTF-8, or convert it with `iconv`")]
    Utf16,
    #[error("line {line} is not UTF-8")]
    NotUtf8 { line: usize },
}

/// The bytes without a byte order mark, each line ended by LF.
pub fn plain(bytes: &[u8]) -> Vec<u8> {
    let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
    let mut out = Vec::with_capacity(bytes.len());
    for (at, &byte) in bytes.iter().enumerate() {
        match byte {
            b'\r' if bytes.get(at + 1) == Some(&b'\n') => {}
            b'\r' => out.push(b'\n'),
            _ => out.push(byte),
        }
    }
    out
}

/// The same as text.
///
/// # Errors
/// The bytes are not UTF-8.
pub fn utf8(bytes: &[u8]) -> Result<String, TextError> {
    if is_utf16(bytes) {
        return Err(TextError::Utf16);
    }
    String::from_utf8(plain(bytes)).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        TextError::NotUtf8 { line: good.iter().filter(|&&byte| byte == b'\n').count() + 1 }
    })
}

/// A file as text.
///
/// # Errors
/// It cannot be read, or is not UTF-8: of the kind `InvalidData` then.
pub fn read(path: &Path) -> io::Result<String> {
    utf8(&std::fs::read(path)?).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Whether the beginning of a text has two bytes a character, by its byte order mark or by every
/// second byte being zero.
pub fn is_utf16(head: &[u8]) -> bool {
    const PAIRS: usize = 4;
    let (pairs, _) = head.as_chunks::<2>();
    let zero = |at: usize| pairs.len() >= PAIRS && pairs[..PAIRS].iter().all(|pair| pair[at] == 0);
    head.starts_with(b"\xff\xfe") || head.starts_with(b"\xfe\xff") || (zero(0) != zero(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        let numbers = [(0, "0"), (999, "999"), (1_000, "1,000"), (1_048_576, "1,048,576")];
        for (number, text) in numbers {
            assert_eq!(grouped(number), text);
        }
        assert_eq!([0, 1, 2000].map(|n| counted(n, "row")), ["0 rows", "1 row", "2,000 rows"]);
        let sizes = [(0, "0 B"), (999, "999 B"), (51_840, "51.8 kB"), (999_960, "1.0 MB")];
        for (amount, text) in sizes.into_iter().chain([(u64::MAX, "18446.7 PB")]) {
            assert_eq!(bytes(amount), text);
        }
        assert_eq!([0.0, 0.04, 9.96, 1234.4].map(rate), ["0/s", "0.04/s", "10.0/s", "1,234/s"]);
        let times = [
            (0, "0.00 ms"),
            (1_234, "1.23 ms"),
            (123_400, "123 ms"),
            (90_000_000, "90 s"),
            (12_340_000, "12.3 s"),
            (150_000_000, "2.5 min"),
            (7_200_000_000, "2 h"),
            (20 * 86_400_000_000 - 1, "19 days"),
        ];
        for (micros, text) in times {
            assert_eq!(duration(Duration::from_micros(micros)), text);
        }
    }

    #[test]
    fn marks_go_and_every_line_ends_alike() {
        for text in ["a\nb\n\nc", "a\r\nb\r\n\r\nc", "a\rb\r\rc", "\u{feff}a\nb\r\n\rc"] {
            assert_eq!(utf8(text.as_bytes()).unwrap(), "a\nb\n\nc", "{text:?}");
        }
        assert_eq!(plain(b"\xef\xbb\xbf"), b"");
        assert_eq!(plain(b"\xff\r"), b"\xff\n");
    }

    #[test]
    fn what_is_no_utf8_is_said_with_its_line() {
        let utf16: Vec<u8> = "front-a 1\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let marked = [b"\xff\xfe".as_slice(), &utf16].concat();
        let swapped: Vec<u8> = utf16.chunks(2).flat_map(|pair| [pair[1], pair[0]]).collect();
        for bytes in [utf16, marked, swapped] {
            assert_eq!(utf8(&bytes), Err(TextError::Utf16));
        }
        assert_eq!(utf8(b"a\r\nb\rc\xff"), Err(TextError::NotUtf8 { line: 3 }));
        assert!(utf8(&[0; 16]).is_ok());
    }
}
