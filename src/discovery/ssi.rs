//! Where a person is reached: the identifier that one service has for them (SSI).

use std::fmt;

use super::refusal::{Code, Refusal};
use crate::limits::SSI_BYTES_MAX;

/// A service specific identifier: `mimi://domain/u/handle`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ssi {
    text: String,
    domain_end: usize,
}

impl Ssi {
    /// Reads `mimi://domain/u/handle`. The domain is lower case; the handle has the characters of a
    /// path segment (RFC 3986, section 3.3) in their one form.
    ///
    /// # Errors
    /// What is expected.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        let refused = |found: &str| Refusal::new(Code::Ssi, found, EXPECTED_SSI);
        if text.len() > SSI_BYTES_MAX {
            return Err(refused("an SSI that is too long"));
        }
        let rest = text.strip_prefix(SSI_SCHEME).ok_or_else(|| refused("another scheme"))?;
        let (domain, handle) =
            rest.split_once(SSI_PATH).ok_or_else(|| refused("an SSI without /u/ and a handle"))?;
        if !is_domain(domain) {
            return Err(refused("an SSI without a domain in lower case"));
        }
        if !is_handle(handle) {
            return Err(refused("an SSI with a handle that is empty or has other characters"));
        }
        Ok(Self { text: text.to_owned(), domain_end: SSI_SCHEME.len() + domain.len() })
    }

    /// The SSI of a handle at a provider's domain.
    ///
    /// # Errors
    /// What is expected.
    pub fn new(domain: &str, handle: &str) -> Result<Self, Refusal> {
        Self::parse(&format!("{SSI_SCHEME}{domain}{SSI_PATH}{handle}"))
    }

    /// The whole text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The provider's domain.
    pub fn domain(&self) -> &str {
        &self.text[SSI_SCHEME.len()..self.domain_end]
    }

    /// The person's name at the provider.
    pub fn handle(&self) -> &str {
        &self.text[self.domain_end + SSI_PATH.len()..]
    }
}

const SSI_SCHEME: &str = "mimi://";
const SSI_PATH: &str = "/u/";
const EXPECTED_SSI: &str = "mimi://domain/u/handle, at most 128 bytes";

/// Handles of people do not belong in logs.
impl fmt::Debug for Ssi {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Ssi({})", self.domain())
    }
}

/// A domain as the directory writes it: labels of lower case letters, digits and inner hyphens.
fn is_domain(text: &str) -> bool {
    let is_inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let is_label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(is_inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.split('.').all(is_label)
}

fn is_handle(text: &str) -> bool {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&b);
    let mut rest = text.as_bytes();
    loop {
        rest = match rest {
            [] => return !matches!(text, "" | "." | ".."),
            [b'%', high, low, rest @ ..] if is_escape(*high, *low) => rest,
            [b, rest @ ..] if is_plain(*b) => rest,
            _ => return false,
        };
    }
}

/// Whether `%` and two digits are the only way to write a character: upper case hexadecimal, of
/// one that needs it.
fn is_escape(high: u8, low: u8) -> bool {
    let digit = |b: u8| match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'A'..=b'F' => Some(b - b'A' + 10),
        _ => None,
    };
    let (Some(high), Some(low)) = (digit(high), digit(low)) else { return false };
    let byte = high << 4 | low;
    !(byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || byte.is_ascii_control())
}

/// A domain for a message, unless it may be something else, such as a number.
pub(super) fn nameable_domain(text: &str) -> &str {
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    if text.len() <= 80 && text.contains('.') && digits <= 3 && is_domain(text) {
        text
    } else {
        "(a text that is no domain)"
    }
}
