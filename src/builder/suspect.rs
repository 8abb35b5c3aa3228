//! Keys and values that are allowed and hardly meant, as spreadsheets and careless exports write
//! them. Nobody looks such a key up; it is built as it is, with a warning.

const SPREADSHEET_ERRORS: [&str; 6] = ["#N/A", "#REF!", "#NAME?", "#VALUE!", "#NUM!", "#DIV/0!"];
const MISSING: [&str; 6] = ["null", "none", "nil", "nan", "n/a", "undefined"];

/// Why nobody would type this key; nothing of it is repeated but the number of a character.
pub(super) fn key(key: &str) -> Option<String> {
    if let Some((c, kind)) = key.chars().find_map(|c| Some((c, kind(c)?))) {
        return Some(format!("the key has {kind} (U+{:04X})", u32::from(c)));
    }
    let begins = ['=', '\'', '"', '`', '\u{2018}', '\u{2019}'];
    let reasons = [
        (key.trim_matches(' ') != key, "has a space at its beginning or end"),
        (key.starts_with(begins), "begins with a quote or `=`, as spreadsheets write it"),
        (is_shortened(key), "is a number that a spreadsheet shortened"),
        (is_fraction(key), "is a number with a decimal point"),
        (SPREADSHEET_ERRORS.contains(&key), "is a spreadsheet's error"),
        (key.bytes().all(|byte| byte == b'#'), "is a spreadsheet's sign for a narrow column"),
        (
            MISSING.iter().any(|missing| key.eq_ignore_ascii_case(missing)),
            "is a program's word for a missing value",
        ),
    ];
    reasons.iter().find(|(is_so, _)| *is_so).map(|(_, reason)| format!("the key {reason}"))
}

pub(super) fn value(value: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(value).ok()?;
    let reasons = [
        (text.contains(['\n', '\r']), "has a line break: is a quote one too many?"),
        (
            text.contains(char::REPLACEMENT_CHARACTER),
            "has a character that an earlier conversion could not read (U+FFFD)",
        ),
        (SPREADSHEET_ERRORS.contains(&text), "is a spreadsheet's error"),
    ];
    reasons.iter().find(|(is_so, _)| *is_so).map(|(_, reason)| format!("the value {reason}"))
}

/// What a character is that no keyboard has; `None` for those that one has.
fn kind(c: char) -> Option<&'static str> {
    Some(match c {
        _ if c.is_control() => "a control character",
        ' '..='~' => return None,
        '\u{200e}' | '\u{200f}' | '\u{61c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
            "an invisible mark for the direction of text"
        }
        '\u{ad}' | '\u{34f}' | '\u{180e}' | '\u{200b}'..='\u{200d}' | '\u{2060}'..='\u{2065}' => {
            "an invisible character"
        }
        '\u{206a}'..='\u{206f}'
        | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e007f}' => "an invisible character",
        '\u{a0}' | '\u{2007}' | '\u{202f}' => "a no-break space",
        _ if c.is_whitespace() => "an unusual space",
        char::REPLACEMENT_CHARACTER => "a character that an earlier conversion could not read",
        _ => return None,
    })
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
    let is_zeros = |part: &str| is_digits(part) && part.trim_start_matches('0').is_empty();
    key.split_once('.').is_some_and(|(whole, part)| is_digits(whole) && is_zeros(part))
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_values_that_nobody_types_are_found_and_others_are_not() {
        for (text, expected) in [
            ("\u{200e}+12015550100", "direction of text (U+200E)"),
            ("\u{202a}+12015550100\u{202c}", "direction of text (U+202A)"),
            ("+1\u{a0}201", "no-break space (U+00A0)"),
            ("a\u{200b}@example.com", "invisible character (U+200B)"),
            ("a\u{3000}b", "unusual space (U+3000)"),
            ("a\tb", "control character (U+0009)"),
            ("M\u{fffd}ller@example.com", "earlier conversion"),
            (" a", "space at its beginning or end"),
            ("a ", "space at its beginning or end"),
            ("'+12015550100", "begins with a quote"),
            ("=\"+12015550100\"", "begins with a quote"),
            ("1.2E+11", "shortened"),
            ("1,2016E+10", "shortened"),
            ("12e9", "shortened"),
            ("12015550100.0", "decimal point"),
            ("#N/A", "spreadsheet's error"),
            ("########", "narrow column"),
            ("NULL", "missing value"),
        ] {
            let found = key(text).unwrap_or_else(|| panic!("{text:?} is not found"));
            assert!(found.contains(expected), "{text:?}: {found}");
            assert!(!found.contains("12015550100") && !found.contains("example"), "{found}");
        }
        let usual = "+12015550100 nobody@example.org Jürgen 名前@example.jp e1 1e user.name 1.5 \
                     192.0.2.1 o'neil@example.com #hash @name";
        assert!(usual.split(' ').chain(["Jürgen Müller"]).all(|text| key(text).is_none()));
        for (text, expected) in
            [("a\nb", "line break"), ("M\u{fffd}", "U+FFFD"), ("#REF!", "spreadsheet")]
        {
            assert!(value(text.as_bytes()).unwrap().contains(expected), "{text:?}");
        }
        assert!([&b"im:a@x"[..], b"", b"\xff\n\xfe"].iter().all(|fine| value(fine).is_none()));
    }
}
