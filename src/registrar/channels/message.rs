//! The message with a code in it.
//!
//! A dishonest application provider can have a code sent to somebody and ask them for it: only the
//! text can give it away. So it names the application provider, what the code does and the
//! discovery provider, and says whom not to tell. Its last line binds the code to the provider's
//! domain, so that a phone fills it in there only (<https://wicg.github.io/sms-one-time-codes/>).

use crate::discovery::identifier::Identifier;
use crate::discovery::statement::Purpose;
use crate::registrar::api::{Channel, Outgoing};
use zeroize::Zeroizing;

use crate::registrar::channels::gsm;
use crate::registrar::channels::texts::{LANGUAGES, Words};

/// Septets of one segment.
pub const SEGMENT_SEPTETS: usize = 160;

/// Whom a message names.
#[derive(Clone, Copy)]
pub(crate) struct Names<'a> {
    pub(crate) ap: &'a str,
    pub(crate) domain: &'a str,
    pub(crate) dp: &'a str,
}

/// A message on its way; wiped when it is dropped.
pub(crate) struct Message {
    pub(crate) to: Identifier,
    pub(crate) channel: Channel,
    /// Tag of the language that it is in.
    pub(crate) language: &'static str,
    /// Of an email only.
    pub(crate) subject: String,
    pub(crate) text: Zeroizing<String>,
    /// A name for its receipt, which nobody can guess.
    pub(crate) token: String,
}

/// Why an application provider cannot be named in messages.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // Names and messages say it.
pub enum MessageError {
    #[error(
        "{what} has the character {character:?}, which text messages cannot carry in one segment; \
         write it with characters of the GSM 7 bit default alphabet"
    )]
    Character { what: &'static str, character: char },
    #[error(
        "{what} is empty or has spaces around it or a line break in it; write it as people read it"
    )]
    Name { what: &'static str },
    #[error(
        "the domain of the application provider is no domain name; write one such as ap.example"
    )]
    Domain,
    #[error(
        "the message to {purpose} in the language {language:?} would have {septets} septets, and \
         one segment has {SEGMENT_SEPTETS}; shorten the name of the application provider or of the \
         discovery provider by {}", .septets - SEGMENT_SEPTETS
    )]
    TooLong { language: &'static str, purpose: &'static str, septets: usize },
}

/// Checks that text messages of this application provider fit one segment, in every language and
/// for each purpose: `ap` is the name that people know it by, `domain` its domain, `dp` the
/// discovery provider's name.
///
/// # Errors
/// The first text that does not fit, and how long it would be.
pub fn check(ap: &str, domain: &str, dp: &str) -> Result<(), MessageError> {
    for (what, name) in
        [("the application provider's name", ap), ("the discovery provider's name", dp)]
    {
        if name.is_empty() || name.trim() != name || name.contains(['\n', '\r', '\u{c}']) {
            return Err(MessageError::Name { what });
        }
        gsm::septets(name).map_err(|character| MessageError::Character { what, character })?;
    }
    let is_domain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    if !domain.contains('.') || !domain.chars().all(is_domain) {
        return Err(MessageError::Domain);
    }
    let names = Names { ap, domain, dp };
    for words in &LANGUAGES {
        for (place, purpose) in ["register", "prefer"].into_iter().enumerate() {
            let text = short(words.sms[place], names, "000000");
            let what = "the text";
            let septets = gsm::septets(&text)
                .map_err(|character| MessageError::Character { what, character })?;
            if septets > SEGMENT_SEPTETS {
                return Err(MessageError::TooLong { language: words.tag, purpose, septets });
            }
        }
    }
    Ok(())
}

/// Writes the message. Where a language is not known, it is in the first one.
pub(crate) fn compose(outgoing: &Outgoing, names: Names<'_>, token: String) -> Message {
    let words = words(outgoing.language.as_deref());
    let place = match outgoing.purpose {
        Purpose::Register => 0,
        Purpose::Prefer => 1,
    };
    let code = outgoing.code.as_str();
    let text = match outgoing.channel {
        Channel::Sms => short(words.sms[place], names, code),
        Channel::Call => spoken(words, place, names, code),
        Channel::Email => email(words, place, names, code),
    };
    let subject = match outgoing.channel {
        Channel::Email => fill(words.subject, names, "").to_string(),
        Channel::Sms | Channel::Call => String::new(),
    };
    let (to, channel) = (outgoing.to.clone(), outgoing.channel);
    Message { to, channel, language: words.tag, subject, text, token }
}

/// The words of a language tag such as `de-AT`.
fn words(language: Option<&str>) -> &'static Words {
    let primary = language.and_then(|tag| tag.split(['-', '_']).next()).unwrap_or_default();
    let known = LANGUAGES.iter().find(|words| words.tag.eq_ignore_ascii_case(primary));
    known.unwrap_or(&LANGUAGES[0])
}

fn short(template: &str, names: Names<'_>, code: &str) -> Zeroizing<String> {
    let text = fill(template, names, code);
    with_last_line(&text, "\n", names, code)
}

fn email(words: &Words, place: usize, names: Names<'_>, code: &str) -> Zeroizing<String> {
    let code_sentence = fill(words.code, names, code);
    let (why, warning) = (fill(words.why[place], names, ""), fill(words.warning, names, ""));
    let text = joined(&[&code_sentence, "\n\n", &why, "\n", &warning]);
    with_last_line(&text, "\n\n", names, code)
}

/// What a gateway reads aloud: the digits one by one, and the code twice.
fn spoken(words: &Words, place: usize, names: Names<'_>, code: &str) -> Zeroizing<String> {
    // Room for every digit, so that the text is never moved and no copy stays behind.
    let mut digits = Zeroizing::new(String::with_capacity(3 * code.len()));
    for (index, digit) in code.chars().enumerate() {
        if index > 0 {
            digits.push_str(", ");
        }
        digits.push(digit);
    }
    let code = fill(words.code, names, &digits);
    let (why, warning) = (fill(words.why[place], names, ""), fill(words.warning, names, ""));
    joined(&[&code, " ", &why, " ", &warning, " ", &code])
}

/// `@ap.example #123456`, which phones fill in.
fn with_last_line(text: &str, gap: &str, names: Names<'_>, code: &str) -> Zeroizing<String> {
    joined(&[text, gap, "@", names.domain, " #", code])
}

/// The parts in one text that is allocated once.
fn joined(parts: &[&str]) -> Zeroizing<String> {
    let mut whole = Zeroizing::new(String::with_capacity(parts.iter().map(|p| p.len()).sum()));
    for part in parts {
        whole.push_str(part);
    }
    whole
}

/// Puts names and code into a template. What a name contains is not looked at again, so that no
/// name can stand for the code.
fn fill(template: &str, names: Names<'_>, code: &str) -> Zeroizing<String> {
    let mut parts = Vec::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        let (name, after) = after.split_once('}').expect("a text closes each brace: this is a bug");
        let value = match name {
            "ap" => names.ap,
            "dp" => names.dp,
            "code" => code,
            other => unreachable!("a text has no {{{other}}}: this is a bug"),
        };
        parts.extend([before, value]);
        rest = after;
    }
    parts.push(rest);
    joined(&parts)
}
