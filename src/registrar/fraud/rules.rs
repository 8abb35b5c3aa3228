//! What the operator configures: tables of the registrar's TOML file, and their checked form.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::PathBuf;

use crate::registrar::api::Channel;
use rlibphonenumber::PHONE_NUMBER_UTIL;
pub(super) use rlibphonenumber::Region;
use serde::Deserialize;

use super::errors::RulesError;
use crate::limits::fraud::{
    FRAUD_CONVERSION_PERCENT, FRAUD_CONVERSION_SENT, FRAUD_DOMAIN_AN_HOUR, FRAUD_NUMBER_MAX,
    FRAUD_PARTS, FRAUD_PARTS_MESSAGES_MIN, FRAUD_PARTS_PRICES_MIN, FRAUD_PREFIX_AN_HOUR,
};

/// What the operator configures for an application provider. A table of the registrar's TOML file:
///
/// ```toml
/// countries = ["DE", "FR"]      # where its users have their numbers (ISO 3166, two letters)
/// messages-a-day = 20000        # messages, calls and emails
/// money-a-day = 1500000         # in thousandths of the currency unit of the prices
/// ```
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ApRules {
    /// Countries that the application provider declared: two letters each (ISO 3166-1 alpha-2).
    /// One that only sends email has none.
    #[serde(default)]
    pub countries: Vec<String>,
    /// Codes that are sent for it in a day that begins at midnight UTC. None with 0.
    pub messages_a_day: u64,
    /// What these may cost, in thousandths of the currency unit that prices are in.
    pub money_a_day: u64,
}

/// What the operator configures for all. A table of the registrar's TOML file:
///
/// ```toml
/// prices = { DE = 75, FR = 52 } # of a message, in thousandths of a currency unit
/// call-prices = { DE = 20 }     # of a call, where it differs
/// ```
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Rules {
    /// What a message to a country costs, in thousandths of a currency unit.
    pub prices: BTreeMap<String, u64>,
    /// What a call there costs; where this says nothing, what a message does.
    pub call_prices: BTreeMap<String, u64>,
    /// What an email costs.
    pub email_price: u64,
    /// Codes in an hour to numbers of one prefix, over all application providers.
    pub prefix_an_hour: u64,
    /// Codes in an hour to addresses of one domain, over all application providers.
    pub domain_an_hour: u64,
    /// Mail domains of so many people that they have no bound by the hour.
    pub large_domains: Vec<String>,
    /// Codes of a day from which on the rate of those entered counts.
    pub conversion_sent: u64,
    /// Fewest of a hundred that have to be entered.
    pub conversion_percent: u64,
    /// Where it is asked whether a number changed hands, such as
    /// `https://carrier.example/number-recycling/v0.2/check` (CAMARA Number Recycling).
    pub recycling_check_url: Option<String>,
    /// The file of the bearer token for it, of mode 0600; it is read for each check.
    pub recycling_check_token: Option<PathBuf>,
    /// Authorities (PEM) of which one has signed its certificate.
    pub recycling_check_ca: PathBuf,
}

/// Mail domains with many millions of people.
const LARGE_DOMAINS: [&str; 24] = [
    "126.com",
    "163.com",
    "aol.com",
    "gmail.com",
    "gmx.de",
    "gmx.net",
    "googlemail.com",
    "hotmail.com",
    "icloud.com",
    "laposte.net",
    "libero.it",
    "live.com",
    "mail.ru",
    "me.com",
    "msn.com",
    "naver.com",
    "orange.fr",
    "outlook.com",
    "proton.me",
    "protonmail.com",
    "qq.com",
    "t-online.de",
    "web.de",
    "yahoo.com",
];

impl Default for Rules {
    fn default() -> Self {
        Self {
            prices: BTreeMap::new(),
            call_prices: BTreeMap::new(),
            email_price: 0,
            prefix_an_hour: FRAUD_PREFIX_AN_HOUR,
            domain_an_hour: FRAUD_DOMAIN_AN_HOUR,
            large_domains: LARGE_DOMAINS.map(str::to_owned).into(),
            conversion_sent: FRAUD_CONVERSION_SENT,
            conversion_percent: FRAUD_CONVERSION_PERCENT,
            recycling_check_url: None,
            recycling_check_token: None,
            recycling_check_ca: "/etc/ssl/certs/ca-certificates.crt".into(),
        }
    }
}

/// The budget of an application provider, and into how many rows it is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Terms {
    pub(super) messages: u64,
    pub(super) money: u64,
    pub(super) parts: u64,
}

impl Terms {
    fn new(rules: &ApRules, highest_price: u64) -> Self {
        let (messages, money) = (rules.messages_a_day, rules.money_a_day);
        let is_large = messages >= FRAUD_PARTS_MESSAGES_MIN
            && money / FRAUD_PARTS / FRAUD_PARTS_PRICES_MIN >= highest_price;
        Self { messages, money, parts: if is_large { FRAUD_PARTS } else { 1 } }
    }

    /// The messages and the money of a row. Those of all rows add up to the budget.
    pub(super) fn share(&self, part: u64) -> (u64, u64) {
        let share = |all: u64| all * (part + 1) / self.parts - all * part / self.parts;
        (share(self.messages), share(self.money))
    }
}

struct Ap {
    countries: BTreeSet<Region>,
    terms: Terms,
}

struct Price {
    message: u64,
    call: u64,
}

/// Checked rules.
pub(super) struct Config {
    rules: Rules,
    aps: BTreeMap<String, Ap>,
    prices: BTreeMap<Region, Price>,
    large: HashSet<String>,
}

impl Config {
    pub(super) fn new(rules: Rules, aps: BTreeMap<String, ApRules>) -> Result<Self, RulesError> {
        for (name, found, min) in [
            ("prefix-an-hour", rules.prefix_an_hour, 1),
            ("domain-an-hour", rules.domain_an_hour, 1),
            ("conversion-sent", rules.conversion_sent, 1),
            ("email-price", rules.email_price, 0),
        ] {
            number(name, found, min, FRAUD_NUMBER_MAX)?;
        }
        number("conversion-percent", rules.conversion_percent, 0, 100)?;
        for domain in &rules.large_domains {
            if !is_domain(domain) {
                return Err(RulesError::Domain { found: domain.clone() });
            }
        }
        let prices = prices(&rules)?;
        let mut checked = BTreeMap::new();
        for (domain, ap) in aps {
            let ap = self::ap(&domain, &ap, &prices, rules.email_price)?;
            checked.insert(domain, ap);
        }
        let large = rules.large_domains.iter().cloned().collect();
        Ok(Self { rules, aps: checked, prices, large })
    }

    pub(super) fn terms(&self, ap: &str) -> Option<Terms> {
        self.aps.get(ap).map(|ap| ap.terms)
    }

    /// What a code to a country costs, where the application provider has declared it.
    pub(super) fn price(&self, ap: &str, country: Region, channel: Channel) -> Option<u64> {
        self.aps.get(ap).filter(|ap| ap.countries.contains(&country))?;
        let price = self.prices.get(&country)?;
        Some(if channel == Channel::Call { price.call } else { price.message })
    }

    pub(super) fn email_price(&self) -> u64 {
        self.rules.email_price
    }

    pub(super) fn prefix_an_hour(&self) -> u64 {
        self.rules.prefix_an_hour
    }

    pub(super) fn domain_an_hour(&self) -> u64 {
        self.rules.domain_an_hour
    }

    pub(super) fn is_large(&self, domain: &str) -> bool {
        self.large.contains(domain)
    }

    /// Whether so few of these codes were entered that no more are sent.
    pub(super) fn is_too_few(&self, entered: u64, sent: u64) -> bool {
        sent >= self.rules.conversion_sent
            && entered.saturating_mul(100) < sent.saturating_mul(self.rules.conversion_percent)
    }
}

fn number(name: &str, found: u64, min: u64, max: u64) -> Result<(), RulesError> {
    match (min..=max).contains(&found) {
        true => Ok(()),
        false => Err(RulesError::Number { name: name.to_owned(), found, min, max }),
    }
}

fn is_domain(text: &str) -> bool {
    let plain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
    (1..=253).contains(&text.len())
        && text.bytes().all(plain)
        && text.split('.').all(|label| !label.is_empty())
}

fn country(of: &str, text: &str) -> Result<Region, RulesError> {
    let wrong = || RulesError::Country { of: of.to_owned(), found: text.to_owned() };
    let region: Region = text.parse().map_err(|_| wrong())?;
    let is_exact = region != Region::World && region.to_string() == text;
    let is_known = PHONE_NUMBER_UTIL.get_supported_regions().any(|known| known == region);
    if is_exact && is_known { Ok(region) } else { Err(wrong()) }
}

fn prices(rules: &Rules) -> Result<BTreeMap<Region, Price>, RulesError> {
    let mut prices = BTreeMap::new();
    for (text, &message) in &rules.prices {
        let region = country("`prices`", text)?;
        number(&format!("the price of {text}"), message, 0, FRAUD_NUMBER_MAX)?;
        prices.insert(region, Price { message, call: message });
    }
    for (text, &call) in &rules.call_prices {
        let region = country("`call-prices`", text)?;
        number(&format!("the price of a call to {text}"), call, 0, FRAUD_NUMBER_MAX)?;
        // A country that only has a price of calls is none that messages go to.
        let no_price = || RulesError::NoPrice { ap: "`call-prices`".into(), country: text.clone() };
        prices.get_mut(&region).ok_or_else(no_price)?.call = call;
    }
    Ok(prices)
}

fn ap(
    domain: &str,
    rules: &ApRules,
    prices: &BTreeMap<Region, Price>,
    email_price: u64,
) -> Result<Ap, RulesError> {
    if !is_domain(domain) {
        return Err(RulesError::Provider { found: domain.to_owned() });
    }
    number(&format!("messages-a-day of {domain}"), rules.messages_a_day, 0, FRAUD_NUMBER_MAX)?;
    number(&format!("money-a-day of {domain}"), rules.money_a_day, 0, FRAUD_NUMBER_MAX)?;
    let (mut countries, mut highest) = (BTreeSet::new(), email_price);
    for text in &rules.countries {
        let region = country(&format!("`countries` of {domain}"), text)?;
        let no_price = || RulesError::NoPrice { ap: domain.to_owned(), country: text.to_owned() };
        let price = prices.get(&region).ok_or_else(no_price)?;
        highest = highest.max(price.message).max(price.call);
        countries.insert(region);
    }
    Ok(Ap { countries, terms: Terms::new(rules, highest) })
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
