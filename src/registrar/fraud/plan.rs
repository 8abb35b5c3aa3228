//! What an attempt is counted as: its names in the database, its bounds and its price.

use crate::discovery::identifier::Identifier;
use crate::discovery::jws::base64url;
use crate::registrar::api::Channel;
use hmac::{Hmac, KeyInit, Mac as _};
use rlibphonenumber::{PhoneNumber, PhoneNumberType};
use sha2::Sha256;

use super::attempt::Attempt;
use super::refusal::{Refusal, Refused};
use super::rules::{Config, Region, Terms};

/// A counter of sent and entered codes, in so many rows.
pub(super) struct Scope {
    pub(super) name: String,
    /// The row of this attempt.
    pub(super) part: i64,
}

/// A bound of an hour over all application providers.
pub(super) struct Rate {
    pub(super) name: String,
    pub(super) bound: u64,
}

/// The budget of the application provider.
pub(super) struct Budget {
    pub(super) name: String,
    pub(super) terms: Terms,
    pub(super) price: u64,
    /// Where rows with room are looked for first.
    pub(super) first: u64,
}

/// The conversions that a code counts for.
pub(super) struct Scopes {
    /// Those of the same prefix or domain.
    pub(super) group: Scope,
    /// Those of the same country, or all by email.
    pub(super) area: Scope,
}

/// All that is counted for an attempt.
pub(super) struct Plan {
    pub(super) scopes: Scopes,
    pub(super) rate: Option<Rate>,
    pub(super) budget: Budget,
}

/// What an identifier is to the rules.
enum Target<'a> {
    Number { prefix: &'a str, country: Option<Region>, kind: PhoneNumberType },
    Address { domain: &'a str },
}

const LAST_DIGITS: usize = 4;

fn target(sii: &Identifier) -> Target<'_> {
    if let Some(domain) = sii.domain() {
        return Target::Address { domain };
    }
    let text = sii.as_str();
    let prefix = text.get(..text.len().saturating_sub(LAST_DIGITS)).unwrap_or_default();
    match PhoneNumber::parse(text, None) {
        Ok(number) => {
            let (country, kind) = (number.get_region_code(), number.get_type());
            Target::Number { prefix, country, kind }
        }
        Err(_) => Target::Number { prefix, country: None, kind: PhoneNumberType::Unknown },
    }
}

/// Whether codes go to such numbers.
fn is_sent_to(kind: PhoneNumberType, channel: Channel) -> bool {
    match kind {
        PhoneNumberType::Mobile | PhoneNumberType::FixedLineOrMobile => true,
        PhoneNumberType::FixedLine => channel == Channel::Call,
        _ => false,
    }
}

/// The plan for an attempt.
///
/// # Errors
/// A rule that needs no counting refuses it.
pub(super) fn plan(
    config: &Config,
    key: &[u8; 32],
    attempt: &Attempt<'_>,
) -> Result<Plan, Refused> {
    let terms = config.terms(attempt.ap).ok_or(Refusal::Provider.at_once())?;
    let target = target(attempt.sii);
    let price = match (&target, attempt.channel) {
        (Target::Number { country, kind, .. }, channel @ (Channel::Sms | Channel::Call)) => {
            if !is_sent_to(*kind, channel) {
                return Err(Refusal::NumberType.at_once());
            }
            let price = country.and_then(|country| config.price(attempt.ap, country, channel));
            price.ok_or(Refusal::Country.at_once())?
        }
        (Target::Address { .. }, Channel::Email) => config.email_price(),
        _ => return Err(Refusal::Channel.at_once()),
    };
    let rate = match target {
        Target::Number { prefix, .. } => {
            let name = format!("rate {}", mac(key, &["prefix", prefix]));
            Some(Rate { name, bound: config.prefix_an_hour() })
        }
        Target::Address { domain } if config.is_large(domain) => None,
        Target::Address { domain } => {
            let name = format!("rate {}", mac(key, &["domain", domain]));
            Some(Rate { name, bound: config.domain_an_hour() })
        }
    };
    let (name, first) = (format!("budget {}", attempt.ap), spread(attempt) % terms.parts);
    let budget = Budget { name, terms, price, first };
    Ok(Plan { scopes: scopes_of(&target, terms.parts, key, attempt), rate, budget })
}

/// Where it is counted that the code of an attempt was entered, whatever the rules are by now.
pub(super) fn scopes(config: &Config, key: &[u8; 32], attempt: &Attempt<'_>) -> Scopes {
    let parts = config.terms(attempt.ap).map_or(1, |terms| terms.parts);
    scopes_of(&target(attempt.sii), parts, key, attempt)
}

fn scopes_of(target: &Target<'_>, parts: u64, key: &[u8; 32], attempt: &Attempt<'_>) -> Scopes {
    let ap = attempt.ap;
    // Numbers of one prefix are few, addresses of one domain may be half of all.
    let (group, area, group_parts) = match target {
        Target::Number { prefix, country, .. } => {
            let country = country.map(|country| country.to_string());
            (mac(key, &[ap, "prefix", prefix]), country.unwrap_or_default(), 1)
        }
        Target::Address { domain } => (mac(key, &[ap, "domain", domain]), "email".into(), parts),
    };
    let part = |parts: u64| (spread(attempt) % parts) as i64;
    Scopes {
        group: Scope { name: format!("group {group}"), part: part(group_parts) },
        area: Scope { name: format!("area {ap} {area}"), part: part(parts) },
    }
}

/// A number by which identifiers spread over the parts of a counter.
fn spread(attempt: &Attempt<'_>) -> u64 {
    let bytes = attempt.sii_mac.bytes();
    bytes.fold(0u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()))
}

/// What stands for texts that are not to be stored.
fn mac(key: &[u8; 32], texts: &[&str]) -> String {
    let hmac = <Hmac<Sha256> as KeyInit>::new_from_slice(key);
    let mut hmac = hmac.expect("this is a bug: HMAC takes a key of any length");
    hmac.update(b"sotto registrar fraud");
    for text in texts {
        hmac.update(&[0]);
        hmac.update(text.as_bytes());
    }
    base64url(&hmac.finalize().into_bytes()[..16])
}
