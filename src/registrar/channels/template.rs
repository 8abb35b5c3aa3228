//! Templates of requests to HTTP gateways: text with `{to}`, `{text}` and other fields in braces,
//! whose values are escaped as what they become a part of demands.

use zeroize::Zeroizing;

/// What a value is put into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Escape {
    /// A URL or a form: percent-encoding (RFC 3986, unreserved characters stay).
    Percent,
    /// A string of JSON, between its quotes.
    Json,
    /// Nothing that is escaped.
    Plain,
}

/// What stands in braces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Field {
    To,
    Digits,
    Text,
    Id,
    Language,
    User,
    Password,
    ReceiptUrl,
}

impl Field {
    /// All of them, for messages.
    pub(crate) const NAMES: &str =
        "{to}, {digits}, {text}, {id}, {language}, {user}, {password} and {receipt_url}";

    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "to" => Self::To,
            "digits" => Self::Digits,
            "text" => Self::Text,
            "id" => Self::Id,
            "language" => Self::Language,
            "user" => Self::User,
            "password" => Self::Password,
            "receipt_url" => Self::ReceiptUrl,
            _ => return None,
        })
    }
}

enum Part {
    Fixed(String),
    Field(Field),
}

pub(crate) struct Template {
    parts: Vec<Part>,
    escape: Escape,
}

impl Template {
    /// Reads a template. In one for JSON a brace is a field only around a field's name.
    ///
    /// # Errors
    /// What stands in braces and is no field.
    pub(crate) fn parse(template: &str, escape: Escape) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut fixed = String::new();
        let mut rest = template;
        while let Some((before, after)) = rest.split_once('{') {
            fixed.push_str(before);
            let name = after.split_once('}').map(|(name, _)| name);
            match name.and_then(|name| Some((Field::parse(name)?, name))) {
                Some((field, name)) => {
                    parts.push(Part::Fixed(std::mem::take(&mut fixed)));
                    parts.push(Part::Field(field));
                    rest = &after[name.len() + 1..];
                }
                None if escape == Escape::Json => {
                    fixed.push('{');
                    rest = after;
                }
                None => return Err(name.unwrap_or(after).to_owned()),
            }
        }
        fixed.push_str(rest);
        parts.push(Part::Fixed(fixed));
        Ok(Self { parts, escape })
    }

    pub(crate) fn has(&self, wanted: Field) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Field(field) if *field == wanted))
    }

    /// The template with the values in it.
    pub(crate) fn fill<'a>(&self, value: impl Fn(Field) -> &'a str) -> Zeroizing<String> {
        // Three bytes for one at most in a URL, six in JSON: the text is never moved.
        let longest = self.parts.iter().map(|part| match part {
            Part::Fixed(fixed) => fixed.len(),
            Part::Field(field) => 6 * value(*field).len(),
        });
        let mut filled = Zeroizing::new(String::with_capacity(longest.sum()));
        for part in &self.parts {
            match part {
                Part::Fixed(fixed) => filled.push_str(fixed),
                Part::Field(field) => escaped(value(*field), self.escape, &mut filled),
            }
        }
        filled
    }
}

fn escaped(value: &str, escape: Escape, into: &mut String) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let hex = |byte: u8| {
        [char::from(HEX[usize::from(byte >> 4)]), char::from(HEX[usize::from(byte & 15)])]
    };
    match escape {
        Escape::Plain => into.push_str(value),
        Escape::Percent => {
            for byte in value.bytes() {
                if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
                    into.push(char::from(byte));
                } else {
                    into.push('%');
                    into.extend(hex(byte));
                }
            }
        }
        Escape::Json => {
            for character in value.chars() {
                match character {
                    '"' | '\\' => into.extend(['\\', character]),
                    '\n' => into.push_str("\\n"),
                    control if control < ' ' => {
                        into.push_str("\\u00");
                        into.extend(hex(control as u8));
                    }
                    other => into.push(other),
                }
            }
        }
    }
}
