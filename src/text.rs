//! Text files as editors write them: with a byte order mark or without, with lines that end in LF,
//! CRLF or CR.
//!
//! Every small file that a person writes is read through here, so that the same file means the same
//! to every option: configuration, lists, keys, certificates. The builder's input does not fit
//! memory and has a reader of its own (`builder::input`).

use std::io;
use std::path::Path;

/// Some editors write it before UTF-8 text.
pub const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Why bytes are no text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TextError {
    /// Two bytes a character.
    #[error("it is UTF-16, expected UTF-8: save it as UTF-8, or convert it with `iconv`")]
    Utf16,
    /// Something else.
    #[error("line {line} is not UTF-8")]
    NotUtf8 {
        /// The first such line, from 1.
        line: usize,
    },
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
