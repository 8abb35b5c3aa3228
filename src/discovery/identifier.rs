//! Identifiers that a person may be found by: an E.164 phone number or an email address, in the one
//! text from which its look-up key is derived.
//!
//! Two devices must make the same text of the same identifier, whatever form it was typed in and
//! whatever version of the numbering plans and of Unicode they were built with. A number therefore
//! has to be *possible* (its country code exists and its length may occur there), never *valid*,
//! because ranges are assigned before a device has heard of them; and characters that are not
//! assigned yet are refused, because their lower case is not known yet. Nothing is guessed: what is
//! neither is an error. `tests/vectors/identifiers.tsv` has the results for other implementations.

use std::fmt;

use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};
use rlibphonenumber::{
    NumberLengthType, PHONE_NUMBER_UTIL, ParseError, PhoneNumber, ValidationError,
};
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_public_assigned;

use crate::limits::{
    EMAIL_BYTES_MAX, IDENTIFIER_TEXT_BYTES_MAX, LOCAL_PART_BYTES_MAX, NUMBER_DIGITS_MAX,
};

pub use rlibphonenumber::Region;

/// The identifier of a person in canonical form: `+` and up to 15 digits, or an address whose local
/// part is in lower case and whose domain is in ASCII.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identifier(String);

/// Why a text is no identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // Names say it.
pub enum IdentifierError {
    #[error("the identifier is empty; write a phone number or an email address")]
    Empty,
    #[error(
        "the identifier has {0} bytes, and at most {IDENTIFIER_TEXT_BYTES_MAX} are read; \
         write one phone number or one email address"
    )]
    TooLong(usize),
    #[error(
        "{0:?} stands in a phone number, where only digits and separators may; \
         write it without letters and without an extension"
    )]
    NumberCharacter(char),
    #[error("a + stands within the phone number; write one +, before the country code")]
    Plus,
    #[error(
        "the phone number has no country code; write + and the country code before it, \
         or give the region where it is dialled like this (--region)"
    )]
    NeedsRegion,
    #[error("the phone number has a country code that does not exist; write + and an existing one")]
    CountryCode,
    #[error(
        "the phone number has fewer digits than any number of its country; write it with its area \
         code (short codes and emergency numbers belong to nobody who could be found)"
    )]
    NumberTooShort,
    #[error(
        "the phone number has more digits than any number of its country, or than the \
         {NUMBER_DIGITS_MAX} of E.164; write it without an extension"
    )]
    NumberTooLong,
    #[error(
        "the phone number has a count of digits that no number of its country has; check whether \
         one is missing or too many"
    )]
    NumberLength,
    #[error("the phone number begins with more prefixes than are dialled; write it with + only")]
    Prefixes,
    #[error("an email address has exactly one @, but {0} were found; write name@example.com")]
    At(usize),
    #[error("nothing stands before the @; write name@example.com")]
    NoLocalPart,
    #[error(
        "{0:?} stands before the @, where quotes, comments, brackets, spaces, invisible and \
         unassigned characters are refused; write the plain address, as in name@example.com"
    )]
    LocalPartCharacter(char),
    #[error(
        "{0} bytes stand before the @, and at most {LOCAL_PART_BYTES_MAX} may; check the address"
    )]
    LocalPartTooLong(usize),
    #[error("what stands after the @ is no domain name; write one such as example.com")]
    Domain,
    #[error("the address has {0} bytes, and at most {EMAIL_BYTES_MAX} may be; check the address")]
    EmailTooLong(usize),
    #[error(
        "the identifier is no URI in canonical form; write tel: and a number with +, or mailto: \
         and an address in lower case, as `sotto statements sign` does"
    )]
    Uri,
}

/// Numbers that are still written in a form which their country has given up: those that begin with
/// `old`, with `rest` digits after it of which the first is one of `first`, begin with `new`.
///
/// A country is in the table only if both forms always name the same subscriber. So Brazil (whether
/// a ninth digit is missing depends on the kind of line) and Côte d'Ivoire (the new prefix depends
/// on the former operator) are not. Argentina's 15 and 9 are read by libphonenumber itself.
struct Rewrite {
    old: &'static str,
    first: &'static str,
    rest: usize,
    new: &'static str,
}

const ANY: &str = "0123456789";

/// Mexico: the prefixes 1 (from abroad), 01, 044 and 045 were given up on 3 August 2019 (Instituto
/// Federal de Telecomunicaciones, Plan Técnico Fundamental de Numeración, Diario Oficial de la
/// Federación of 11 May 2018), but the 1 is still shown by messengers.
///
/// Benin: on 30 November 2024 numbers of eight digits got 01 before them (ARCEP Bénin, new national
/// numbering plan); libphonenumber 9 keeps those with 8 (special services) at eight digits.
const REWRITES: [Rewrite; 5] = [
    Rewrite { old: "521", first: ANY, rest: 10, new: "52" },
    Rewrite { old: "5201", first: ANY, rest: 10, new: "52" },
    Rewrite { old: "52044", first: ANY, rest: 10, new: "52" },
    Rewrite { old: "52045", first: ANY, rest: 10, new: "52" },
    Rewrite { old: "229", first: "24569", rest: 8, new: "22901" },
];

impl Identifier {
    /// The identifier that `text` means. A phone number without `+` is read as it is dialled in
    /// `region`.
    ///
    /// # Errors
    /// The reason why `text` is neither a possible phone number nor an address.
    pub fn parse(text: &str, region: Option<Region>) -> Result<Self, IdentifierError> {
        if text.len() > IDENTIFIER_TEXT_BYTES_MAX {
            return Err(IdentifierError::TooLong(text.len()));
        }
        let text: String = text.chars().filter(|&c| !is_bidi_control(c)).collect();
        match text.trim() {
            "" => Err(IdentifierError::Empty),
            text if text.contains(['@', '\u{ff20}', '\u{fe6b}']) => email(text).map(Self),
            text => number(&dialled(text)?, region).map(Self),
        }
    }

    /// The canonical text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The digits of a phone number, its country code first.
    pub fn digits(&self) -> Option<&str> {
        self.0.strip_prefix('+').filter(|_| self.domain().is_none())
    }

    /// The domain of an address, in ASCII.
    pub fn domain(&self) -> Option<&str> {
        self.0.split_once('@').map(|(_, domain)| domain)
    }

    /// The URI of the identifier, as in the `sub` of a statement: `tel:` (RFC 3966) or `mailto:`
    /// (RFC 6068, section 2: every byte that may be misread in a URI is percent-encoded).
    pub fn to_uri(&self) -> String {
        if self.digits().is_some() {
            return format!("tel:{}", self.0);
        }
        let mut uri = String::from("mailto:");
        for byte in self.0.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~!$'*+@".contains(&byte) {
                uri.push(char::from(byte));
            } else {
                uri.push_str(&format!("%{byte:02X}"));
            }
        }
        uri
    }

    /// The identifier of a URI that [`to_uri`](Self::to_uri) makes; any other URI is refused, so
    /// that an identifier has one URI only.
    ///
    /// # Errors
    /// The reason why `uri` is none.
    pub fn from_uri(uri: &str) -> Result<Self, IdentifierError> {
        if uri.len() > 3 * IDENTIFIER_TEXT_BYTES_MAX {
            return Err(IdentifierError::TooLong(uri.len()));
        }
        let found = match (uri.strip_prefix("tel:"), uri.strip_prefix("mailto:")) {
            (Some(text), _) => Self::parse(text, None)?,
            (_, Some(text)) => {
                Self::parse(&percent_decoded(text).ok_or(IdentifierError::Uri)?, None)?
            }
            _ => return Err(IdentifierError::Uri),
        };
        if found.to_uri() == uri { Ok(found) } else { Err(IdentifierError::Uri) }
    }
}

/// The identifiers of people do not belong in logs.
impl fmt::Debug for Identifier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.digits().is_some() { "number" } else { "address" };
        write!(formatter, "Identifier({kind})")
    }
}

/// Marks of the direction of text (Unicode Standard Annex 9), which stay when a contact is copied.
fn is_bidi_control(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2066}'..='\u{2069}')
}

/// Characters that stand between the digits of a number, in any script.
fn is_separator(c: char) -> bool {
    matches!(c, '-' | '.' | '/' | '(' | ')' | '[' | ']' | '~' | '\t'
        | '\u{ad}' | '\u{200b}'..='\u{200d}' | '\u{2060}' | '\u{feff}' // show nothing
        | '\u{2010}'..='\u{2015}' | '\u{2212}' | '\u{30fc}' // hyphens, dashes
        | '\u{2053}' | '\u{223c}' | '\u{ff5e}' // tildes
        | '\u{ff08}' | '\u{ff09}' | '\u{ff0d}'..='\u{ff0f}' | '\u{ff3b}' | '\u{ff3d}') // wide
        || (c.is_whitespace() && !c.is_control())
}

/// The ASCII digit of a character of the category Nd (decimal digit), in any script.
fn ascii_digit(c: char) -> Option<char> {
    if c.is_ascii() {
        return Some(c).filter(char::is_ascii_digit);
    }
    PHONE_NUMBER_UTIL.normalize_digits_only(c.encode_utf8(&mut [0; 4])).chars().next()
}

/// The keys that are pressed for a number: at most one `+`, then ASCII digits. What the library
/// leaves out or reads as an extension does not reach it.
fn dialled(text: &str) -> Result<String, IdentifierError> {
    let mut keys = String::new();
    for c in text.chars().filter(|&c| !is_separator(c)) {
        match c {
            '+' | '\u{ff0b}' if keys.is_empty() => keys.push('+'),
            '+' | '\u{ff0b}' => return Err(IdentifierError::Plus),
            _ => keys.push(ascii_digit(c).ok_or(IdentifierError::NumberCharacter(c))?),
        }
    }
    if keys.trim_start_matches('+').is_empty() {
        return Err(IdentifierError::NumberTooShort);
    }
    Ok(keys)
}

/// A number in canonical form. What the library makes of the keys must be what it makes of its own
/// result; otherwise a prefix is still in it, and the result would depend on how often it is read.
fn number(keys: &str, region: Option<Region>) -> Result<String, IdentifierError> {
    if region.is_none() && !keys.starts_with('+') {
        return Err(IdentifierError::NeedsRegion);
    }
    let mut number = read(keys, region)?;
    let text = rewritten(number.to_string());
    if text.len() > 1 + NUMBER_DIGITS_MAX {
        return Err(IdentifierError::NumberTooLong);
    }
    if text != keys {
        number = read(&text, None)?;
    }
    match number.is_possible_with_reason() {
        Ok(NumberLengthType::IsPossible) if number.to_string() == text => Ok(text),
        Ok(NumberLengthType::IsPossible) => Err(IdentifierError::Prefixes),
        Ok(NumberLengthType::IsPossibleLocalOnly) | Err(ValidationError::TooShort) => {
            Err(IdentifierError::NumberTooShort)
        }
        Err(ValidationError::InvalidCountryCode) => Err(IdentifierError::CountryCode),
        Err(ValidationError::InvalidLength) => Err(IdentifierError::NumberLength),
        Err(_) => Err(IdentifierError::NumberTooLong),
    }
}

fn read(keys: &str, region: Option<Region>) -> Result<PhoneNumber, IdentifierError> {
    PhoneNumber::parse(keys, region).map_err(|error| match error {
        ParseError::InvalidCountryCode => IdentifierError::CountryCode,
        ParseError::TooLongNsn => IdentifierError::NumberTooLong,
        ParseError::TooShortAfterIdd | ParseError::TooShortNsn | ParseError::NotANumber(_) => {
            IdentifierError::NumberTooShort
        }
    })
}

fn rewritten(text: String) -> String {
    REWRITES
        .iter()
        .find_map(|rule| {
            let rest = text.strip_prefix('+')?.strip_prefix(rule.old)?;
            (rest.len() == rule.rest && rest.starts_with(|c| rule.first.contains(c)))
                .then(|| format!("+{}{rest}", rule.new))
        })
        .unwrap_or(text)
}

fn email(text: &str) -> Result<String, IdentifierError> {
    let (local, domain) = match text.split_once('@') {
        Some((local, domain)) if !domain.contains('@') => (local, domain),
        _ => return Err(IdentifierError::At(text.matches('@').count())),
    };
    let local: String = local.nfc().flat_map(char::to_lowercase).nfc().collect();
    if let Some(c) = local.chars().find(|&c| !is_local_part(c)) {
        return Err(IdentifierError::LocalPartCharacter(c));
    }
    match local.len() {
        0 => return Err(IdentifierError::NoLocalPart),
        1..=LOCAL_PART_BYTES_MAX => {}
        bytes => return Err(IdentifierError::LocalPartTooLong(bytes)),
    }
    let text = format!("{local}@{}", ascii_domain(domain)?);
    if text.len() > EMAIL_BYTES_MAX {
        return Err(IdentifierError::EmailTooLong(text.len()));
    }
    Ok(text)
}

fn is_local_part(c: char) -> bool {
    let shows_nothing = matches!(c, '\u{ad}' | '\u{200b}' | '\u{2060}'..='\u{2064}' | '\u{feff}'
        | '\u{e0000}'..='\u{e0fff}');
    let at = matches!(c, '\u{ff20}' | '\u{fe6b}');
    let syntax = "\"(),:;<>[\\]".contains(c) || c.is_whitespace() || c.is_control();
    !(shows_nothing || at || syntax) && is_public_assigned(c)
}

/// A domain as DNS has it (UTS 46). One whose last label is digits is an IP address, not a name.
fn ascii_domain(domain: &str) -> Result<String, IdentifierError> {
    let ascii = Uts46::new()
        .to_ascii(
            domain.as_bytes(),
            AsciiDenyList::STD3,
            Hyphens::CheckFirstLast,
            DnsLength::Verify,
        )
        .map_err(|_| IdentifierError::Domain)?;
    let top = ascii.rsplit('.').next().unwrap_or_default();
    if top.is_empty() || top.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(IdentifierError::Domain);
    }
    Ok(ascii.into_owned())
}

/// A text without its percent-encoding (RFC 3986, section 2.1); none where it has another form.
pub(crate) fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut parts = text.split('%');
    bytes.extend_from_slice(parts.next().unwrap_or_default().as_bytes());
    for part in parts {
        let (code, rest) = part.split_at_checked(2)?;
        // The parser of numbers would take a sign.
        let is_hex = code.bytes().all(|byte| byte.is_ascii_hexdigit());
        bytes.push(u8::from_str_radix(code, 16).ok().filter(|_| is_hex)?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    /// From the manifest's folder.
    const VECTORS: &str = "tests/vectors/identifiers.tsv";

    fn unescaped(text: &str) -> String {
        let mut plain = String::new();
        let mut rest = text;
        while let Some((before, escape)) = rest.split_once('\\') {
            plain.push_str(before);
            if let Some(after) = escape.strip_prefix('\\') {
                plain.push('\\');
                rest = after;
            } else {
                let (code, after) =
                    escape.strip_prefix("u{").and_then(|code| code.split_once('}')).unwrap();
                let code = u32::from_str_radix(code, 16).unwrap();
                plain.push(char::from_u32(code).unwrap());
                rest = after;
            }
        }
        plain + rest
    }

    /// The text or `!` and the name of the error, without what it holds.
    fn outcome(text: &str, region: Option<Region>) -> String {
        match Identifier::parse(text, region) {
            Ok(identifier) => identifier.0,
            Err(error) => {
                let debug = format!("{error:?}");
                format!("!{}", debug.split('(').next().unwrap())
            }
        }
    }

    fn assert_canonical(identifier: &Identifier) {
        let text = identifier.as_str();
        assert_eq!(Identifier::parse(text, None).as_ref(), Ok(identifier), "{text:?} again");
        for region in [Region::DE, Region::US, Region::AR] {
            assert_eq!(Identifier::parse(text, Some(region)).as_ref(), Ok(identifier), "{text:?}");
        }
        let uri = identifier.to_uri();
        assert!(uri.is_ascii(), "{uri:?}");
        assert_eq!(Identifier::from_uri(&uri).as_ref(), Ok(identifier), "{uri:?}");
        match identifier.digits() {
            Some(digits) => {
                assert!(digits.len() <= NUMBER_DIGITS_MAX, "{digits}");
                assert!(digits.bytes().all(|byte| byte.is_ascii_digit()), "{digits}");
                assert_eq!(identifier.domain(), None);
            }
            None => {
                assert!(text.len() <= EMAIL_BYTES_MAX, "{text:?}");
                assert!(identifier.domain().unwrap().is_ascii(), "{text:?}");
            }
        }
    }

    #[test]
    fn vectors() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(VECTORS);
        let file = fs::read_to_string(path).unwrap();
        let mut count = 0;
        let mut wrong = Vec::new();
        for (line, text) in (1..).zip(file.lines()).filter(|(_, text)| !text.starts_with('#')) {
            let [text, region, expected] = text.split('\t').collect::<Vec<_>>().try_into().unwrap();
            let region = (region != "-").then(|| region.parse::<Region>().unwrap());
            let (text, expected) = (unescaped(text), unescaped(expected));
            let found = outcome(&text, region);
            if found != expected {
                wrong.push(format!("line {line}: {text:?} gave {found:?}, not {expected:?}"));
            }
            if let Ok(identifier) = Identifier::parse(&text, region) {
                assert_canonical(&identifier);
            }
            count += 1;
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        assert!(count >= 200, "{count} vectors");
    }

    #[test]
    fn a_region_where_a_number_is_dialled_changes_no_international_number() {
        let expected = Identifier::parse("+390612345678", None).unwrap();
        for region in ["DE", "US", "AR", "MX", "SM", "IT", "BJ", "RU"] {
            let region = region.parse().unwrap();
            assert_eq!(Identifier::parse("+39 06 1234 5678", Some(region)), Ok(expected.clone()));
        }
    }

    #[test]
    fn uris() {
        for (text, uri) in [
            ("+49 30 901820", "tel:+4930901820"),
            ("Anna+News@Example.com", "mailto:anna+news@example.com"),
            ("50%_a&b=c?d#e/f@example.com", "mailto:50%25_a%26b%3Dc%3Fd%23e%2Ff@example.com"),
            ("jörg@bücher.example", "mailto:j%C3%B6rg@xn--bcher-kva.example"),
        ] {
            let identifier = Identifier::parse(text, None).unwrap();
            assert_eq!(identifier.to_uri(), uri);
            assert_eq!(Identifier::from_uri(uri), Ok(identifier));
        }
        for uri in [
            "",
            "+4930901820",
            "sip:anna@example.com",
            "TEL:+4930901820",
            "tel:+49 30 901820",
            "tel:+49-30-901820",
            "tel:+4930901820;ext=5",
            "tel:+5215512345678",
            "tel:+493090182\u{660}",
            "tel:anna@example.com",
            "tel:",
            "mailto:+4930901820",
            "mailto:Anna@example.com",
            "mailto:anna@example.com?subject=x",
            "mailto:anna@Example.com",
            "mailto:%61nna@example.com",
            "mailto:j%c3%b6rg@example.com",
            "mailto:jörg@example.com",
            "mailto:j%C3rg@example.com",
            "mailto:j%@example.com",
            "mailto:j%2@example.com",
            "mailto:j%+2@example.com",
            "mailto:j%ü@example.com",
            "mailto:anna%40example.com",
            "mailto: anna@example.com",
        ] {
            assert!(Identifier::from_uri(uri).is_err(), "{uri:?}");
        }
        let long = format!("mailto:{}", "%C3".repeat(2_000));
        assert_eq!(Identifier::from_uri(&long), Err(IdentifierError::TooLong(long.len())));
    }

    #[test]
    fn digits_and_domain() {
        let number = Identifier::parse("+49 30 901820", None).unwrap();
        assert_eq!((number.digits(), number.domain()), (Some("4930901820"), None));
        let address = Identifier::parse("+49@example.com", None).unwrap();
        assert_eq!((address.digits(), address.domain()), (None, Some("example.com")));
    }

    #[test]
    fn debug_has_no_content() {
        for text in ["+4930901820", "anna@example.com"] {
            let debug = format!("{:?}", Identifier::parse(text, None).unwrap());
            assert!(!debug.contains("30901820") && !debug.contains("anna"), "{debug}");
        }
    }

    /// Every assigned character before the @ gives a text that stays as it is.
    #[test]
    fn each_character_alone() {
        for c in '\0'..=char::MAX {
            if let Ok(identifier) = Identifier::parse(&format!("x{c}y@example.com"), None) {
                let again = Identifier::parse(identifier.as_str(), None);
                assert_eq!(again.as_ref(), Ok(&identifier), "U+{:04X}", u32::from(c));
            }
            let keys = format!("+493090182{c}");
            if let Ok(identifier) = Identifier::parse(&keys, None) {
                assert_canonical(&identifier);
            }
        }
    }

    fn region() -> impl Strategy<Value = Option<Region>> {
        let codes: Vec<Region> = ('A'..='Z')
            .flat_map(|a| ('A'..='Z').map(move |b| format!("{a}{b}")))
            .filter_map(|code| code.parse().ok())
            .collect();
        assert!(codes.len() > 200, "{} regions", codes.len());
        proptest::option::of(proptest::sample::select(codes))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_096))]

        #[test]
        fn a_result_gives_itself(
            text in prop_oneof![
                "\\PC{0,40}",
                "[+]?[0-9() ./-]{1,20}",
                "[+]?0{0,3}[1-9][0-9]{2,17}",
                "[+](52|54|229|55|39|378|1|7|49|225)[0-9]{4,14}",
                "\\PC{1,20}@[a-zA-Zäßß例.-]{1,12}[.][a-z]{2,4}",
                "[\\p{Lu}\\p{Ll}\\p{M}\\p{Nd}\\p{S}]{1,16}@example[.]com",
            ],
            region in region(),
        ) {
            if let Ok(identifier) = Identifier::parse(&text, region) {
                assert_canonical(&identifier);
            }
        }

        #[test]
        fn separators_and_scripts_change_nothing(
            digits in "[1-9][0-9]{6,13}",
            zero in proptest::sample::select(
                vec!['0', '\u{660}', '\u{6f0}', '\u{966}', '\u{ff10}'],
            ),
            separator in proptest::sample::select(vec![" ", "-", " (", ")", "\u{a0}", "\u{202d}"]),
        ) {
            let written: String = digits
                .chars()
                .map(|c| char::from_u32(u32::from(zero) + c.to_digit(10).unwrap()).unwrap())
                .flat_map(|c| [c.to_string(), separator.to_owned()])
                .collect();
            prop_assert_eq!(
                Identifier::parse(&format!("+{written}"), None),
                Identifier::parse(&format!("+{digits}"), None)
            );
        }

        #[test]
        fn any_text_as_a_uri(text in "(tel:|mailto:)?\\PC{0,40}") {
            if let Ok(identifier) = Identifier::from_uri(&text) {
                prop_assert_eq!(identifier.to_uri(), text);
            }
        }
    }
}
