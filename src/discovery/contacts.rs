//! Contacts from a file: vCard 3 and 4 (RFC 2426, RFC 6350), and of vCard 2.1 what telephones still
//! export.
//!
//! A contact is a name to show and the identifiers to look up. Numbers and addresses of real
//! address
//! books are often none that a person could be found by: a short code, an extension, a number
//! without its country. Such a value is counted by its reason and left out, and is never an error.
//! So is a card that the file does not end: a number that was cut short is another person's number.
//!
//! A file is cut into cards here, and of each card only the lines that matter go to the parser
//! (crate `calcard`). Photos are neither decoded nor copied, and a file that is one endless card
//! takes little memory. No name, number or address is in an error or in Debug.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::io;
use std::path::Path;

use calcard::vcard::{VCard, VCardProperty, VCardValue};
use calcard::{Entry, Parser};

use super::identifier::{Identifier, IdentifierError, Region, percent_decoded};
use crate::limits::{CONTACT_BYTES_MAX, CONTACT_NAME_BYTES_MAX, CONTACTS_BYTES_MAX, CONTACTS_MAX};
use crate::shard::files::read_regular;
use crate::text::{is_utf16, plain};

/// Why a file has no contacts.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // Names say it.
pub enum ContactsError {
    #[error("cannot read the contacts: {0}")]
    Io(#[from] io::Error),
    #[error(
        "the file of contacts has more than {CONTACTS_BYTES_MAX} bytes: export it without photos, \
         or in parts"
    )]
    TooLong,
    #[error("the file has more than {CONTACTS_MAX} contacts: give it in parts")]
    TooMany,
    #[error("the file of contacts is UTF-16, expected UTF-8: save it as UTF-8, or use `iconv`")]
    Utf16,
    #[error("there is no contact in the file, expected vCard: lines from BEGIN:VCARD to END:VCARD")]
    NoCard,
}

/// Why a value or a card was left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)] // Texts say it.
pub enum Reason {
    NeedsRegion,
    ShortNumber,
    LongNumber,
    CountryCode,
    NumberForm,
    Extension,
    LocalNumber,
    AddressForm,
    Empty,
    Nothing,
    Unfinished,
    LongCard,
    Unreadable,
}

impl Reason {
    /// What was found, and what to do about it if anything.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NeedsRegion => "number without country code: give the region (--region)",
            Self::ShortNumber => "number too short: a short code, or one without its area code",
            Self::LongNumber => "number too long: one with an extension, or two in one",
            Self::CountryCode => "number with a country code that does not exist",
            Self::NumberForm => "number with letters or signs that none has",
            Self::Extension => "number with an extension",
            Self::LocalNumber => "number that is dialled in one network only",
            Self::AddressForm => "email address that is none",
            Self::Empty => "empty number or address",
            Self::Nothing => "contact without number and address",
            Self::Unfinished => "contact that does not end (END:VCARD): the file was cut short",
            Self::LongCard => "contact with more lines than are looked at",
            Self::Unreadable => "contact that is no vCard",
        }
    }
}

impl From<IdentifierError> for Reason {
    fn from(error: IdentifierError) -> Self {
        use IdentifierError as E;
        match error {
            E::Empty => Self::Empty,
            E::NeedsRegion => Self::NeedsRegion,
            E::NumberTooShort => Self::ShortNumber,
            E::NumberTooLong | E::NumberLength | E::TooLong(_) => Self::LongNumber,
            E::CountryCode => Self::CountryCode,
            E::NumberCharacter(_) | E::Plus | E::Prefixes | E::Uri => Self::NumberForm,
            E::At(_)
            | E::NoLocalPart
            | E::LocalPartCharacter(_)
            | E::LocalPartTooLong(_)
            | E::Domain
            | E::EmailTooLong(_) => Self::AddressForm,
        }
    }
}

/// A person of an address book.
#[derive(Clone, PartialEq, Eq)]
pub struct Contact {
    /// What to show: one line without control characters, empty if there is no name.
    pub name: String,
    /// Numbers and addresses in the order of the file, each once. There is at least one.
    pub identifiers: Vec<Identifier>,
}

/// Who somebody knows does not belong in logs.
impl fmt::Debug for Contact {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Contact({} identifiers)", self.identifiers.len())
    }
}

/// What a file has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contacts {
    /// Those who can be looked up, in the order of the file.
    pub contacts: Vec<Contact>,
    /// How many values and cards were left out, by reason.
    pub left_out: BTreeMap<Reason, u64>,
}

impl Contacts {
    /// Reads a file. Numbers without country code are read as they are dialled in `region`.
    ///
    /// # Errors
    /// The file cannot be read, is too large, or is no vCard.
    pub fn read(path: &Path, region: Option<Region>) -> Result<Self, ContactsError> {
        Self::parse(&read_regular(path, CONTACTS_BYTES_MAX + 1)?, region)
    }

    /// The same of the bytes of a file.
    ///
    /// # Errors
    /// They are too many, or no vCard.
    pub fn parse(bytes: &[u8], region: Option<Region>) -> Result<Self, ContactsError> {
        if bytes.len() as u64 > CONTACTS_BYTES_MAX {
            return Err(ContactsError::TooLong);
        }
        if is_utf16(bytes) {
            return Err(ContactsError::Utf16);
        }
        let text = plain(bytes);
        let mut found = Self::default();
        let mut cards = Cards::new(&text);
        let mut count = 0;
        while let Some(card) = cards.next_card() {
            count += 1;
            if count > CONTACTS_MAX {
                return Err(ContactsError::TooMany);
            }
            match card {
                Card::Unfinished => found.leave_out(Reason::Unfinished),
                Card::Whole { text, is_cut } => found.add(&text, is_cut, region),
            }
        }
        match count {
            0 if !text.trim_ascii().is_empty() => Err(ContactsError::NoCard),
            _ => Ok(found),
        }
    }

    /// Every identifier of every contact, each once, in the order of the file.
    pub fn identifiers(&self) -> Vec<Identifier> {
        let all = self.contacts.iter().flat_map(|contact| &contact.identifiers);
        let mut seen = HashSet::new();
        all.filter(|&identifier| seen.insert(identifier)).cloned().collect()
    }

    fn leave_out(&mut self, reason: Reason) {
        *self.left_out.entry(reason).or_default() += 1;
    }

    /// Adds the contact of one card.
    fn add(&mut self, text: &[u8], is_cut: bool, region: Option<Region>) {
        if is_cut {
            self.leave_out(Reason::LongCard);
        }
        let text = String::from_utf8_lossy(text);
        let Entry::VCard(card) = Parser::new(&text).entry() else {
            return self.leave_out(Reason::Unreadable);
        };
        let mut identifiers = Vec::new();
        let mut seen = HashSet::new();
        let mut is_bare = true;
        for entry in &card.entries {
            let read = match entry.name {
                VCardProperty::Tel => number,
                VCardProperty::Email => address,
                _ => continue,
            };
            for value in &entry.values {
                is_bare = false;
                match read(text_of(value), region) {
                    Ok(identifier) if seen.insert(identifier.clone()) => {
                        identifiers.push(identifier);
                    }
                    Ok(_) => {}
                    Err(reason) => self.leave_out(reason),
                }
            }
        }
        match identifiers.is_empty() {
            true if is_bare => self.leave_out(Reason::Nothing),
            true => {}
            false => self.contacts.push(Contact { name: name(&card), identifiers }),
        }
    }
}

/// The text of a value; none of what is not text, which is no identifier and no name.
fn text_of(value: &VCardValue) -> &str {
    match value {
        VCardValue::Text(text) => text,
        _ => "",
    }
}

/// The number of a TEL: as people write it, or a URI (RFC 3966).
fn number(text: &str, region: Option<Region>) -> Result<Identifier, Reason> {
    let text = text.trim();
    let identifier = match after_scheme(text, "tel:") {
        None => Identifier::parse(text, region)?,
        Some(uri) => {
            let (number, parameters) = uri.split_once(';').unwrap_or((uri, ""));
            let number = percent_decoded(number).ok_or(Reason::NumberForm)?;
            for parameter in parameters.split(';') {
                let name = parameter.split('=').next().unwrap_or_default().trim();
                if name.eq_ignore_ascii_case("ext") || name.eq_ignore_ascii_case("isub") {
                    return Err(Reason::Extension);
                }
                // Section 5.1.5: what a context begins with need not make a number of E.164.
                let is_context = name.eq_ignore_ascii_case("phone-context");
                if is_context && !number.trim_start().starts_with('+') {
                    return Err(Reason::LocalNumber);
                }
            }
            Identifier::parse(&number, region)?
        }
    };
    if identifier.digits().is_none() {
        return Err(Reason::NumberForm);
    }
    Ok(identifier)
}

/// The address of an EMAIL: as people write it, or a URI (RFC 6068).
fn address(text: &str, _: Option<Region>) -> Result<Identifier, Reason> {
    let text = text.trim();
    let identifier = match after_scheme(text, "mailto:") {
        None if text.is_empty() => return Err(Reason::Empty),
        None if !text.contains('@') => return Err(Reason::AddressForm),
        None => Identifier::parse(text, None)?,
        Some(uri) => {
            let address = uri.split('?').next().unwrap_or_default();
            Identifier::parse(&percent_decoded(address).ok_or(Reason::AddressForm)?, None)?
        }
    };
    if identifier.domain().is_none() {
        return Err(Reason::AddressForm);
    }
    Ok(identifier)
}

fn after_scheme<'a>(text: &'a str, scheme: &str) -> Option<&'a str> {
    let (begin, rest) = text.split_at_checked(scheme.len())?;
    begin.eq_ignore_ascii_case(scheme).then_some(rest)
}

/// The name of a card: as it is to be shown (FN), else made of its parts, else a nickname or an
/// organisation.
fn name(card: &VCard) -> String {
    let values = |name: &VCardProperty| {
        let entry = card.entries.iter().find(|entry| entry.name == *name);
        entry.map_or(&[][..], |entry| &entry.values[..])
    };
    let part = |at: usize| match values(&VCardProperty::N).get(at) {
        Some(VCardValue::Component(parts)) => parts.join(" "),
        Some(value) => text_of(value).to_owned(),
        None => String::new(),
    };
    let first = |name: &VCardProperty| values(name).first().map_or("", text_of);
    // The parts are family name, given name and additional names.
    let names = [
        first(&VCardProperty::Fn),
        &[part(1), part(2), part(0)].join(" "),
        first(&VCardProperty::Nickname),
        first(&VCardProperty::Org),
    ];
    names.into_iter().map(shown).find(|name| !name.is_empty()).unwrap_or_default()
}

/// One line that is safe to print: without control characters and marks of direction.
fn shown(text: &str) -> String {
    let is_mark = |c: char| {
        matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2066}'..='\u{2069}')
    };
    let words = text.split(|c: char| c.is_whitespace() || c.is_control());
    let words = words.map(|word| word.replace(is_mark, "")).filter(|word| !word.is_empty());
    let mut line = words.collect::<Vec<_>>().join(" ");
    line.truncate(line.floor_char_boundary(CONTACT_NAME_BYTES_MAX));
    line
}

/// A card of a file.
enum Card {
    /// The lines of names, numbers and addresses between BEGIN and END, with these two.
    Whole {
        text: Vec<u8>,
        /// Whether lines were left out because there were too many.
        is_cut: bool,
    },
    /// The file ends within it, or the next one begins.
    Unfinished,
}

const BEGIN: &[u8] = b"BEGIN:VCARD";
const END: &[u8] = b"END:VCARD";
/// Names of the properties that are read.
const WANTED: [&[u8]; 7] = [b"VERSION", b"FN", b"N", b"NICKNAME", b"ORG", b"TEL", b"EMAIL"];

/// Cuts a file into cards.
struct Cards<'a> {
    rest: &'a [u8],
    /// Whether the line that was read last has begun a card.
    is_begun: bool,
}

impl<'a> Cards<'a> {
    fn new(text: &'a [u8]) -> Self {
        Self { rest: text, is_begun: false }
    }

    fn next_line(&mut self) -> Option<&'a [u8]> {
        if self.rest.is_empty() {
            return None;
        }
        let end = self.rest.iter().position(|&byte| byte == b'\n').unwrap_or(self.rest.len());
        let (line, rest) = self.rest.split_at(end);
        self.rest = rest.get(1..).unwrap_or_default();
        Some(line)
    }

    fn next_card(&mut self) -> Option<Card> {
        while !self.is_begun {
            self.is_begun = is_mark(self.next_line()?, BEGIN);
        }
        self.is_begun = false;
        let mut card = Wanted::default();
        while let Some(line) = self.next_line() {
            if is_mark(line, BEGIN) {
                self.is_begun = true;
                return Some(Card::Unfinished);
            }
            if is_mark(line, END) {
                let text = [BEGIN, b"\n", &card.text, END, b"\n"].concat();
                return Some(Card::Whole { text, is_cut: card.is_cut });
            }
            card.push(line);
        }
        Some(Card::Unfinished)
    }
}

fn is_mark(line: &[u8], mark: &[u8]) -> bool {
    line.trim_ascii_end().eq_ignore_ascii_case(mark)
}

/// The lines of a card that matter. A property may go on in the next lines, and is kept whole or
/// not at all.
#[derive(Default)]
struct Wanted {
    text: Vec<u8>,
    is_cut: bool,
    /// Whether the property of the line before is kept, and where it begins.
    keeps: bool,
    begin: usize,
    /// Whether it is quoted-printable, and is said to go on.
    is_quoted: bool,
    goes_on: bool,
}

impl Wanted {
    fn push(&mut self, line: &[u8]) {
        let is_folded = line.starts_with(b" ") || line.starts_with(b"\t");
        if !is_folded && !self.goes_on {
            self.keeps = is_wanted(line);
            self.begin = self.text.len();
            self.is_quoted = is_quoted_printable(line);
        }
        self.goes_on = self.is_quoted && line.trim_ascii_end().ends_with(b"=");
        if !self.keeps {
            return;
        }
        self.text.extend_from_slice(line);
        self.text.push(b'\n');
        if self.text.len() > CONTACT_BYTES_MAX {
            self.text.truncate(self.begin);
            (self.keeps, self.is_cut) = (false, true);
        }
    }
}

fn is_wanted(line: &[u8]) -> bool {
    let name = line.split(|byte| b":;".contains(byte)).next().unwrap_or_default();
    // Before a dot stands the name of a group.
    let name = name.rsplit(|&byte| byte == b'.').next().unwrap_or_default().trim_ascii();
    WANTED.iter().any(|wanted| name.eq_ignore_ascii_case(wanted))
}

fn is_quoted_printable(line: &[u8]) -> bool {
    let before = line.split(|&byte| byte == b':').next().unwrap_or_default();
    let mut parameters = before.split(|byte| b";=".contains(byte));
    parameters.any(|word| word.trim_ascii().eq_ignore_ascii_case(b"QUOTED-PRINTABLE"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the address books of three makers export it, shortened: vCard 3 with groups, folded lines
    /// and a photo, vCard 4 with URIs, vCard 2.1 in quoted-printable.
    const BOOK: &str = "\u{feff}BEGIN:VCARD\r\n\
        VERSION:3.0\r\n\
        PRODID:-//Apple Inc.//iPhone OS 17.1//EN\r\n\
        N:M\u{fc}ller;Anna Lena;;Dr.;\r\n\
        FN:Anna\r\n  Lena M\u{fc}ller\r\n\
        item1.TEL;type=CELL;type=VOICE;type=pref:030 90 18 20\r\n\
        item1.X-ABLabel:_$!<Mobile>!$_\r\n\
        TEL;type=WORK:+1 (555) 010-\r\n 0123\r\n\
        item2.EMAIL;type=INTERNET:Anna@B\u{fc}cher.example\r\n\
        PHOTO;ENCODING=b;TYPE=JPEG:/9j/4AAQSkZJRgABAQAASABIAAD\r\n TEL:+15550199999AAAA\r\n\
        END:VCARD\r\n\
        BEGIN:VCARD\r\n\
        VERSION:4.0\r\n\
        FN:Bob\\, Jr.\r\n\
        TEL;VALUE=uri;TYPE=\"voice,home\";PREF=1:tel:+1-555-010-0124\r\n\
        TEL;VALUE=uri:tel:+1-555-010-0124;ext=102\r\n\
        TEL;VALUE=uri:TEL:7042;phone-context=example.com\r\n\
        EMAIL;PID=1.1:bob@example.com\r\n\
        EMAIL:mailto:bob%2Bx@example.com?subject=hi\r\n\
        END:VCARD\r\n\
        begin:vcard\r\n\
        VERSION:2.1\r\n\
        N;CHARSET=UTF-8;ENCODING=QUOTED-PRINTABLE:=4D=C3=B6=\r\n=6C=6C=65;=43=61=72=6C;;;\r\n\
        TEL;CELL:110\r\n\
        TEL;HOME;PREF:+44 7700 900123\r\n\
        EMAIL;HOME:nobody\r\n\
        end:vcard\r\n\
        BEGIN:VCARD\r\n\
        VERSION:3.0\r\n\
        FN:Nobody\r\n\
        END:VCARD\r\n";

    fn parse(text: &str) -> Contacts {
        Contacts::parse(text.as_bytes(), Some(Region::DE)).unwrap()
    }

    fn card(lines: &str) -> String {
        format!("BEGIN:VCARD\nVERSION:4.0\n{lines}\nEND:VCARD\n")
    }

    /// Names with their identifiers.
    fn listed(found: &Contacts) -> Vec<(&str, Vec<&str>)> {
        assert!(found.contacts.iter().all(|contact| !contact.identifiers.is_empty()));
        let contacts = found.contacts.iter();
        contacts
            .map(|Contact { name, identifiers }| {
                (&name[..], identifiers.iter().map(Identifier::as_str).collect())
            })
            .collect()
    }

    #[test]
    fn three_forms_are_read_and_what_is_no_identifier_is_counted() {
        let found = parse(BOOK);
        let expected = [
            (
                "Anna Lena M\u{fc}ller",
                vec!["+4930901820", "+15550100123", "anna@xn--bcher-kva.example"],
            ),
            ("Bob, Jr.", vec!["+15550100124", "bob@example.com", "bob+x@example.com"]),
            ("Carl M\u{f6}lle", vec!["+447700900123"]),
        ];
        assert_eq!(listed(&found), expected);
        let left_out = [
            (Reason::ShortNumber, 1),
            (Reason::Extension, 1),
            (Reason::LocalNumber, 1),
            (Reason::AddressForm, 1),
            (Reason::Nothing, 1),
        ];
        assert_eq!(found.left_out, left_out.into());
        assert_eq!(found.identifiers().len(), 7);
        // Each once, though two have it.
        assert_eq!(parse(&[BOOK, BOOK].concat()).identifiers(), found.identifiers());
    }

    #[test]
    fn a_book_without_a_region_has_the_numbers_with_country_code() {
        let found = Contacts::parse(BOOK.as_bytes(), None).unwrap();
        assert_eq!(found.left_out[&Reason::NeedsRegion], 2);
        assert_eq!(found.contacts[0].identifiers.len(), 2);
    }

    #[test]
    fn every_value_is_read_or_has_its_reason() {
        let read = |line: &str| {
            let found = parse(&card(line));
            match (&found.contacts[..], found.left_out.iter().next()) {
                ([contact], None) => contact.identifiers[0].as_str().to_owned(),
                ([], Some((reason, 1))) => format!("{reason:?}"),
                other => panic!("{line}: {other:?}"),
            }
        };
        for (line, expected) in [
            ("TEL:+15550100123", "+15550100123"),
            ("tel:(030) 90.18-20", "+4930901820"),
            ("TEL;TYPE=\"cell\",home:0049 30 901820", "+4930901820"),
            ("TEL;VALUE=uri:tel:+1-555-010-0123", "+15550100123"),
            ("TEL;VALUE=uri:tel:+1%20555%20010%200123", "+15550100123"),
            ("TEL;VALUE=uri:tel:+15550100123;phone-context=+1", "+15550100123"),
            ("TEL;VALUE=uri:tel:030901820", "+4930901820"),
            ("TEL;VALUE=text:\\+15550100123", "+15550100123"),
            ("TEL:\u{202a}+1 555 010 0123\u{202c}", "+15550100123"),
            ("item1.TEL:+15550100123", "+15550100123"),
            ("TEL:", "Empty"),
            ("TEL", "Nothing"),
            ("TEL;VALUE=uri:tel:", "Empty"),
            ("TEL:112", "ShortNumber"),
            ("TEL:+155501001234567890", "LongNumber"),
            ("TEL:+999 12345678", "CountryCode"),
            ("TEL:+1 555 010 0123 x4", "NumberForm"),
            ("TEL:+15550100123,,42#", "NumberForm"),
            ("TEL:+1555+0100123", "NumberForm"),
            ("TEL:ask my wife", "NumberForm"),
            ("TEL:alice@example.com", "NumberForm"),
            ("TEL;VALUE=uri:sip:alice@example.com", "AddressForm"),
            ("TEL;VALUE=uri:data:text/plain,%41", "Empty"),
            ("TEL;VALUE=uri:tel:%4", "NumberForm"),
            ("TEL;VALUE=uri:tel:%ff", "NumberForm"),
            ("TEL;VALUE=uri:tel:+15550100123;isub=1", "Extension"),
            ("TEL;VALUE=uri:tel:863-1234;phone-context=+1-914-555", "LocalNumber"),
            ("EMAIL:Alice@Example.COM", "alice@example.com"),
            ("EMAIL;TYPE=work:mailto:alice@example.com", "alice@example.com"),
            ("EMAIL:", "Empty"),
            ("EMAIL:alice", "AddressForm"),
            ("EMAIL:+15550100123", "AddressForm"),
            ("EMAIL:Alice <alice@example.com>", "AddressForm"),
            ("EMAIL:a@b@example.com", "AddressForm"),
            ("EMAIL:mailto:a%4", "AddressForm"),
            ("EMAIL:alice@[127.0.0.1]", "AddressForm"),
            ("IMPP:xmpp:alice@example.com", "Nothing"),
            ("X-TEL:+15550100123", "Nothing"),
        ] {
            assert_eq!(read(line), expected, "{line}");
        }
    }

    #[test]
    fn names_are_one_line_without_control_characters() {
        let name = |lines: &str| {
            let found = parse(&card(&format!("{lines}\nTEL:+15550100123")));
            found.contacts[0].name.clone()
        };
        for (lines, expected) in [
            ("FN:Alice", "Alice"),
            ("FN:  Alice \\n Smith\t", "Alice Smith"),
            ("FN:A\u{1b}[31ml\u{7}ice\u{85}\u{2028}x", "A [31ml ice x"),
            ("FN:\u{202e}ecilA\u{200f}", "ecilA"),
            ("FN:\nN:Smith;Alice;B.,C.;;", "Alice B. C. Smith"),
            ("N:;;;;\nNICKNAME:Ali,Lice", "Ali"),
            ("ORG:ACME;Sales", "ACME"),
            ("FN:First\nFN:Second", "First"),
            ("NOTE:none", ""),
        ] {
            assert_eq!(name(lines), expected, "{lines:?}");
        }
        let long = name(&format!("FN:{}", "\u{e4}".repeat(1_000)));
        assert_eq!(long, "\u{e4}".repeat(CONTACT_NAME_BYTES_MAX / 2));
        let odd = name(&format!("FN:x{}", "\u{e4}".repeat(1_000)));
        assert_eq!(odd.len(), CONTACT_NAME_BYTES_MAX - 1);
    }

    #[test]
    fn a_file_is_bounded_and_has_to_be_one_of_contacts() {
        let one = card("TEL:+15550100123");
        let error = |bytes: &[u8]| Contacts::parse(bytes, None).unwrap_err().to_string();
        let utf16: Vec<u8> = one.encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert!(error(&utf16).contains("UTF-16"));
        assert!(error(b"name,number\nAlice,+15550100123\n").contains("expected vCard"));
        assert!(error(b"BEGIN:VCALENDAR\nEND:VCALENDAR\n").contains("expected vCard"));
        assert!(
            error(&vec![b'\n'; CONTACTS_BYTES_MAX as usize + 1]).contains("more than 67108864")
        );
        assert_eq!(Contacts::parse(b"\r\n \n", None).unwrap(), Contacts::default());
        let empty = "BEGIN:VCARD\nEND:VCARD\n";
        let found = parse(&empty.repeat(CONTACTS_MAX));
        assert_eq!(found.left_out, [(Reason::Nothing, CONTACTS_MAX as u64)].into());
        assert!(error(empty.repeat(CONTACTS_MAX + 1).as_bytes()).contains("more than 100000"));
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &one).unwrap();
        assert_eq!(Contacts::read(file.path(), None).unwrap(), parse(&one));
        let folder = std::env::temp_dir();
        assert!(Contacts::read(&folder, None).unwrap_err().to_string().contains("a folder"));
    }

    #[test]
    fn a_large_contact_is_cut_between_its_lines() {
        let lines = |count: u64| -> String {
            (0..count).map(|last| format!("TEL:+1555\n  010{last:04}\n")).collect()
        };
        // What is not read counts for nothing, however long it is.
        let photo = format!("PHOTO:{}\n", "A".repeat(1 << 20));
        let found = parse(&card(&(photo.clone() + &lines(1_000) + &photo)));
        assert_eq!((found.contacts[0].identifiers.len(), found.left_out.len()), (1_000, 0));
        let found = parse(&card(&(String::from("FN:Alice\n") + &lines(5_000))));
        let contact = &found.contacts[0];
        assert_eq!(found.left_out, [(Reason::LongCard, 1)].into());
        assert!((2_000..5_000).contains(&contact.identifiers.len()));
        assert_eq!(contact.name, "Alice");
        assert!(contact.identifiers.iter().all(|sii| sii.as_str().len() == 12));
    }

    #[test]
    fn a_file_that_was_cut_anywhere_gives_its_whole_cards_only() {
        let whole = parse(BOOK);
        let bytes = BOOK.as_bytes();
        let mut contacts_before = 0;
        for end in 0..=bytes.len() {
            let Ok(found) = Contacts::parse(&bytes[..end], Some(Region::DE)) else {
                assert!(end < "\u{feff}BEGIN:VCARD".len());
                continue;
            };
            let count = found.contacts.len();
            assert_eq!(found.contacts, whole.contacts[..count], "{end}");
            assert!(count >= contacts_before, "{end}");
            contacts_before = count;
            assert!(found.left_out.get(&Reason::Unfinished).is_none_or(|&count| count == 1));
        }
        assert_eq!(contacts_before, whole.contacts.len());
        // The next card begins where one was cut.
        let cut = format!("{}{}", &BOOK[..BOOK.find("PHOTO").unwrap()], card("TEL:+15550100125"));
        let found = parse(&cut);
        assert_eq!(listed(&found), [("", vec!["+15550100125"])]);
        assert_eq!(found.left_out, [(Reason::Unfinished, 1)].into());
    }

    /// Bytes of a real file replaced, removed and repeated: any result is good, a panic is not.
    #[test]
    fn no_bytes_panic() {
        let mut seed = 0x2026_1130_u64;
        println!("seed {seed:#x}");
        let mut random = |below: usize| {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) as usize % below
        };
        const BYTES: &[u8] = b"\n\r\t \\\"=:;,.%+@-0BEN\0\x7f\x80\xc3\xff";
        for _ in 0..3_000 {
            let mut bytes = BOOK.as_bytes().to_vec();
            for _ in 0..1 + random(8) {
                let at = random(bytes.len());
                match random(4) {
                    0 => bytes[at] = BYTES[random(BYTES.len())],
                    1 => bytes.insert(at, BYTES[random(BYTES.len())]),
                    2 => {
                        bytes.drain(at..(at + random(20)).min(bytes.len()));
                    }
                    _ => {
                        let part = bytes[at..(at + random(60)).min(bytes.len())].to_vec();
                        let to = random(bytes.len());
                        bytes.splice(to..to, part);
                    }
                }
            }
            if let Ok(found) = Contacts::parse(&bytes, Some(Region::DE)) {
                let names = found.contacts.iter().map(|contact| &contact.name);
                assert!(names.clone().all(|name| !name.contains(char::is_control)));
            }
        }
        // Each byte alone as the whole value, and as the end of a line.
        for byte in 0..=u8::MAX {
            for property in ["FN", "N", "TEL", "EMAIL", "ORG", "TEL;TYPE=", "TEL;JSCOMPS=\"s,"] {
                let begin = format!("BEGIN:VCARD\n{property}:");
                let text = [begin.as_bytes(), &[byte], b"\nEND:VCARD"].concat();
                Contacts::parse(&text, None).unwrap();
            }
        }
    }

    #[test]
    fn nothing_of_a_contact_is_in_debug_or_errors() {
        let text = format!("{:?}", parse(BOOK));
        for secret in ["Anna", "Bob", "Carl", "555", "4930", "example"] {
            assert!(!text.contains(secret), "{text}");
        }
    }
}
