//! What rules may say, and what is said of wrong ones.

use super::*;

fn rules(text: &str) -> Rules {
    toml::from_str(text).unwrap()
}

fn aps(text: &str) -> BTreeMap<String, ApRules> {
    toml::from_str(text).unwrap()
}

const PRICES: &str = "prices = { DE = 75, FR = 52 }\ncall-prices = { FR = 20 }";
const AP: &str = "[\"ap.example\"]\ncountries = [\"DE\", \"FR\"]\nmessages-a-day = 20000\n\
                  money-a-day = 1500000\n";

#[test]
fn tables_of_the_file() {
    let config = Config::new(rules(PRICES), aps(AP)).ok().unwrap();
    let price = |country, channel| config.price("ap.example", country, channel);
    assert_eq!(price(Region::DE, Channel::Sms), Some(75));
    assert_eq!(price(Region::DE, Channel::Call), Some(75));
    assert_eq!(price(Region::FR, Channel::Sms), Some(52));
    assert_eq!(price(Region::FR, Channel::Call), Some(20));
    assert_eq!(price(Region::AT, Channel::Sms), None);
    assert_eq!(config.price("other.example", Region::DE, Channel::Sms), None);
    assert!(config.is_large("gmail.com") && !config.is_large("example.com"));
    assert_eq!((config.prefix_an_hour(), config.domain_an_hour()), (20, 1_000));
    // An empty table has the defaults; names that are not known are refused.
    Config::new(rules(""), BTreeMap::new()).ok().unwrap();
    assert!(toml::from_str::<Rules>("prefix-a-day = 1").is_err());
    assert!(toml::from_str::<ApRules>("messages-a-day = 1\nmoney-a-day = 1\nx = 1").is_err());
    assert!(toml::from_str::<ApRules>("money-a-day = 1").is_err());
    assert!(toml::from_str::<ApRules>("messages-a-day = -1\nmoney-a-day = 1").is_err());
}

#[test]
fn wrong_rules_and_what_is_said_of_them() {
    let found = |text: &str, ap: &str| match Config::new(rules(text), aps(ap)) {
        Ok(_) => String::new(),
        Err(error) => error.to_string(),
    };
    assert_eq!(found(PRICES, AP), "");
    for (text, ap, expected) in [
        ("prices = { DE = 75 }", AP, "ap.example declares FR, which has no price"),
        ("call-prices = { DE = 75 }", "", "`call-prices` declares DE, which has no price"),
        ("prices = { de = 75 }", "", "`prices` has the country \"de\"; expected the two capital"),
        ("prices = { UK = 75 }", "", "`prices` has the country \"UK\""),
        ("prices = { 001 = 75 }", "", "`prices` has the country \"001\""),
        ("prices = { Germany = 75 }", "", "`prices` has the country \"Germany\""),
        ("prices = { DE = 1000000000001 }", "", "the price of DE is 1000000000001; expected"),
        ("prefix-an-hour = 0", "", "prefix-an-hour is 0; expected a number from 1 to"),
        ("domain-an-hour = 0", "", "domain-an-hour is 0"),
        ("conversion-sent = 0", "", "conversion-sent is 0"),
        ("conversion-percent = 101", "", "conversion-percent is 101; expected a number from 0 to"),
        ("email-price = 1000000000001", "", "email-price is 1000000000001"),
        ("large-domains = [\"Gmail.com\"]", "", "`large-domains` has \"Gmail.com\"; expected a"),
        ("large-domains = [\"\"]", "", "`large-domains` has \"\""),
        ("large-domains = [\"a..b\"]", "", "`large-domains` has \"a..b\""),
    ] {
        let said = found(text, ap);
        assert!(said.contains(expected), "{text}: {said}");
    }
    for (ap, expected) in [
        (AP.replace("\"DE\"", "\"XX\""), "`countries` of ap.example has the country \"XX\""),
        (AP.replace("ap.example", "AP.example"), "is named \"AP.example\"; expected its domain"),
        (AP.replace("20000", "1000000000001"), "messages-a-day of ap.example is 1000000000001"),
        (AP.replace("1500000", "1000000000001"), "money-a-day of ap.example is 1000000000001"),
    ] {
        let said = found(PRICES, &ap);
        assert!(said.contains(expected), "{ap}: {said}");
    }
}

#[test]
fn budgets_are_divided_where_each_part_stays_large() {
    let ap = |messages_a_day, money_a_day| ApRules {
        countries: Vec::new(),
        messages_a_day,
        money_a_day,
    };
    let parts = |messages, money| Terms::new(&ap(messages, money), 75).parts;
    let (messages, money) = (FRAUD_PARTS_MESSAGES_MIN, FRAUD_PARTS * FRAUD_PARTS_PRICES_MIN * 75);
    assert_eq!(parts(messages, money), FRAUD_PARTS);
    assert_eq!(parts(messages - 1, money), 1);
    assert_eq!(parts(messages, money - 1), 1);
    let terms = Terms::new(&ap(FRAUD_NUMBER_MAX, FRAUD_NUMBER_MAX - 1), 75);
    let shares = (0..terms.parts).map(|part| terms.share(part));
    let sums = shares.fold((0, 0), |sums, share| (sums.0 + share.0, sums.1 + share.1));
    assert_eq!(sums, (FRAUD_NUMBER_MAX, FRAUD_NUMBER_MAX - 1));
}
