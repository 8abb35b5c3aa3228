//! Keys and values that are allowed and hardly meant: what a spreadsheet, a copied web page or a
//! careless export makes of an identifier. A client looks up what a person types, byte for byte, so
//! such a key is never found. They are counted and warned of, and built as they are.

/// What spreadsheets write in place of a value.
const SPREADSHEET_ERRORS: [&str; 6] = ["#N/A", "#REF!", "#NAME?", "#VALUE!", "#NUM!", "#DIV/0!"];
/// What programs write for a value that is missing.
const MISSING: [&str; 6] = ["null", "none", "nil", "nan", "n/a", "undefined"];

/// Why nobody would type this key; nothing of it is repeated but the number of a character.
pub(super) fn key(key: &str) -> Option<String> {
    let begins_so = |c: char| matches!(c, '=' | '\'' | '"' | '`' | '\u{2018}' | '\u{2019}');
    let reason = match key {
        _ if key.chars().any(is_odd) => {
            let c = key.chars().find(|&c| is_odd(c)).unwrap_or_default();
            return Some(format!("the key has {} (U+{:04X})", kind(c), u32::from(c)));
        }
        _ if key.starts_with(' ') || key.ends_with(' ') => "has a space at its beginning or end",
        _ if key.starts_with(begins_so) => "begins with a quote or `=`, as spreadsheets write it",
        _ if is_shortened(key) => "is a number that a spreadsheet shortened",
        _ if is_fraction(key) => "is a number with a decimal point",
        _ if SPREADSHEET_ERRORS.contains(&key) => "is a spreadsheet's error",
        _ if key.bytes().all(|byte| byte == b'#') => "is a spreadsheet's sign for a narrow column",
        _ if MISSING.iter().any(|missing| key.eq_ignore_ascii_case(missing)) => {
            "is a program's word for a missing value"
        }
        _ => return None,
    };
    Some(format!("the key {reason}"))
}

/// Why this value is hardly meant.
pub(super) fn value(value: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(value).ok()?;
    let reason = match text {
        _ if text.contains(['\n', '\r']) => "has a line break: is a quote one too many?",
        _ if text.contains(char::REPLACEMENT_CHARACTER) => {
            "has a character that an earlier conversion could not read (U+FFFD)"
        }
        _ if SPREADSHEET_ERRORS.contains(&text) => "is a spreadsheet's error",
        _ => return None,
    };
    Some(format!("the value {reason}"))
}

fn is_odd(c: char) -> bool {
    !c.is_ascii_graphic() && c != ' ' && !kind(c).is_empty()
}

/// What a character is that no keyboard has; empty for those that one has.
fn kind(c: char) -> &'static str {
    match c {
        _ if c.is_control() => "a control character",
        ' ' => "",
        '\u{200e}' | '\u{200f}' | '\u{61c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
            "an invisible mark for the direction of text"
        }
        '\u{ad}'
        | '\u{34f}'
        | '\u{180e}'
        | '\u{200b}'..='\u{200d}'
        | '\u{2060}'..='\u{2065}'
        | '\u{206a}'..='\u{206f}'
        | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e007f}' => "an invisible character",
        '\u{a0}' | '\u{2007}' | '\u{202f}' => "a no-break space",
        _ if c.is_whitespace() => "an unusual space",
        char::REPLACEMENT_CHARACTER => "a character that an earlier conversion could not read",
        _ => "",
    }
}

/// `1.2E+11`, `1,2e11`.
fn is_shortened(key: &str) -> bool {
    let Some((mantissa, exponent)) = key.split_once(['e', 'E']) else { return false };
    let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    let mantissa = mantissa.strip_prefix(['+', '-']).unwrap_or(mantissa);
    let (whole, part) = mantissa.split_once(['.', ',']).unwrap_or((mantissa, "0"));
    [whole, part, exponent].into_iter().all(is_digits)
}

/// `12015550100.0`.
fn is_fraction(key: &str) -> bool {
    let key = key.strip_prefix(['+', '-']).unwrap_or(key);
    key.split_once('.').is_some_and(|(whole, part)| {
        is_digits(whole) && is_digits(part) && part.bytes().all(|byte| byte == b'0')
    })
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_nobody_types_are_found_and_others_are_not() {
        for (text, expected) in [
            ("\u{200e}+12015550100", "direction of text (U+200E)"),
            ("\u{202a}+12015550100\u{202c}", "direction of text (U+202A)"),
            ("+1\u{a0}201", "no-break space (U+00A0)"),
            ("+1\u{202f}201", "no-break space (U+202F)"),
            ("a\u{200b}@example.com", "invisible character (U+200B)"),
            ("a\u{3000}b", "unusual space (U+3000)"),
            ("a\tb", "control character (U+0009)"),
            ("M\u{fffd}ller@example.com", "earlier conversion"),
            (" a", "space at its beginning or end"),
            ("a ", "space at its beginning or end"),
            ("'+12015550100", "begins with a quote"),
            ("=\"+12015550100\"", "begins with a quote"),
            ("\"a", "begins with a quote"),
            ("1.2E+11", "shortened"),
            ("1,2016E+10", "shortened"),
            ("12e9", "shortened"),
            ("12015550100.0", "decimal point"),
            ("#N/A", "spreadsheet's error"),
            ("########", "narrow column"),
            ("NULL", "missing value"),
            ("NaN", "missing value"),
        ] {
            let found = key(text).unwrap_or_else(|| panic!("{text:?} is not found"));
            assert!(found.contains(expected), "{text:?}: {found}");
            assert!(!found.contains("12015550100") && !found.contains("example"), "{found}");
        }
        for text in [
            "+12015550100",
            "nobody@example.org",
            "Jürgen Müller",
            "名前@example.jp",
            "e1",
            "1e",
            "user.name",
            "1.5",
            "192.0.2.1",
            "o'neil@example.com",
            "#hash",
            "@name",
        ] {
            assert_eq!(key(text), None, "{text:?}");
        }
    }

    #[test]
    fn values_with_line_breaks_and_spreadsheet_errors_are_found() {
        assert!(value(b"a\nb").unwrap().contains("line break"));
        assert!(value("M\u{fffd}".as_bytes()).unwrap().contains("U+FFFD"));
        assert!(value(b"#REF!").unwrap().contains("spreadsheet"));
        for fine in [&b"im:a@x"[..], b"", b"\xff\n\xfe"] {
            assert_eq!(value(fine), None);
        }
    }
}
