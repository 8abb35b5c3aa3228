use crate::discovery::statement::Purpose;
use crate::registrar::api::Channel;
use proptest::prelude::*;
use zeroize::Zeroizing;

use super::{CODE, DOMAIN, TEXT, outgoing};
use crate::registrar::channels::gsm;
use crate::registrar::channels::message::{
    Message, MessageError, Names, SEGMENT_SEPTETS, check, compose,
};
use crate::registrar::channels::texts::LANGUAGES;

fn message(
    names: Names<'_>,
    channel: Channel,
    purpose: Purpose,
    language: Option<&str>,
    code: &str,
) -> Message {
    let mut outgoing = outgoing(channel);
    outgoing.purpose = purpose;
    outgoing.language = language.map(str::to_owned);
    outgoing.code = Zeroizing::new(code.into());
    compose(&outgoing, names, "token".into())
}

const NAMES: Names<'_> = Names { ap: "Example", domain: DOMAIN, dp: "Finder" };

#[test]
fn every_language_names_everyone_and_ends_in_the_bound_code() {
    check("Example", DOMAIN, "Finder").unwrap();
    for words in &LANGUAGES {
        let of = |purpose| message(NAMES, Channel::Sms, purpose, Some(words.tag), CODE);
        let both = [of(Purpose::Register), of(Purpose::Prefer)];
        assert_ne!(*both[0].text, *both[1].text, "{}", words.tag);
        for made in &both {
            assert_eq!(made.language, words.tag);
            let lines: Vec<_> = made.text.lines().collect();
            assert_eq!(lines.len(), 2, "{}", words.tag);
            assert_eq!(lines[1], "@ap.example #480215");
            for name in ["Example", "Finder", CODE] {
                assert!(lines[0].contains(name), "{}: {name}", words.tag);
            }
            assert!(gsm::septets(&made.text).unwrap() <= SEGMENT_SEPTETS, "{}", words.tag);
            // As the head of texts.rs promises operators.
            let empty = Names { ap: "", domain: "", dp: "" };
            let bare = message(empty, Channel::Sms, Purpose::Register, Some(words.tag), CODE);
            let first = bare.text.lines().next().unwrap().to_owned();
            assert!(gsm::septets(&first).unwrap() <= 110, "{}", words.tag);
        }
    }
    let english = message(NAMES, Channel::Sms, Purpose::Register, Some("en"), CODE);
    assert_eq!(*english.text, TEXT);
}

#[test]
fn an_unknown_language_is_english_and_regions_do_not_matter() {
    let language =
        |tag| message(NAMES, Channel::Sms, Purpose::Register, tag, CODE).language.to_owned();
    assert_eq!(language(None), "en");
    assert_eq!(language(Some("xx")), "en");
    assert_eq!(language(Some("")), "en");
    assert_eq!(language(Some("DE_at")), "de");
    assert_eq!(language(Some("pt-BR")), "pt");
}

#[test]
fn a_name_that_does_not_fit_is_refused_with_the_length_it_would_make() {
    let longest = (1..200).take_while(|&long| check(&"x".repeat(long), DOMAIN, "Finder").is_ok());
    let longest = longest.last().unwrap();
    let error = check(&"x".repeat(longest + 1), DOMAIN, "Finder").unwrap_err();
    let MessageError::TooLong { language, septets, .. } = error else { panic!("{error}") };
    assert_eq!(septets, SEGMENT_SEPTETS + 1, "{language}");
    assert!(error.to_string().contains("161 septets"), "{error}");
    // A character of the extension table counts for two.
    let euro = format!("{}€", "x".repeat(longest - 1));
    assert!(matches!(check(&euro, DOMAIN, "Finder"), Err(MessageError::TooLong { .. })));
    let other = check("Пример", DOMAIN, "Finder").unwrap_err();
    assert!(matches!(other, MessageError::Character { character: 'П', .. }), "{other}");
    for (ap, domain, dp) in
        [("", DOMAIN, "F"), ("A ", DOMAIN, "F"), ("A\nB", DOMAIN, "F"), ("A", DOMAIN, "")]
    {
        assert!(matches!(check(ap, domain, dp), Err(MessageError::Name { .. })), "{ap:?}");
    }
    for domain in ["", "ap", "AP.example", "ap.example #1", "ap.example\n"] {
        assert_eq!(check("A", domain, "F"), Err(MessageError::Domain), "{domain:?}");
    }
}

#[test]
fn calls_are_read_aloud_and_emails_have_a_subject() {
    for words in &LANGUAGES {
        let call = message(NAMES, Channel::Call, Purpose::Prefer, Some(words.tag), CODE);
        assert_eq!(call.text.matches("4, 8, 0, 2, 1, 5").count(), 2, "{}", words.tag);
        assert!(!call.text.contains(CODE) && !call.text.contains('@'), "{}", words.tag);
        let email = message(NAMES, Channel::Email, Purpose::Prefer, Some(words.tag), CODE);
        assert_eq!(email.text.lines().last(), Some("@ap.example #480215"), "{}", words.tag);
        assert!(email.subject.contains("Finder") && email.subject.contains("Example"));
        assert!(!email.subject.contains(CODE), "{}", words.tag);
        for text in [&*email.text, &*call.text] {
            assert!(text.contains("Example") && text.contains("Finder"), "{}", words.tag);
            assert!(!text.contains(['{', '}']), "{}", words.tag);
        }
    }
}

#[test]
fn a_name_cannot_stand_for_the_code() {
    let names = Names { ap: "{code}", domain: DOMAIN, dp: "{ap}" };
    let message = message(names, Channel::Sms, Purpose::Register, Some("en"), CODE);
    assert!(message.text.starts_with("480215: {ap} code to be found on {code}. "));
}

#[test]
fn the_alphabet_is_that_of_the_standard() {
    // Samples of 3GPP TS 23.038, tables 6.2.1 and 6.2.1.1.
    let cases = [
        ("@£$¥èéùìòÇ", &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9][..]),
        ("_ΔΞ", &[0x11, 0x10, 0x1a]),
        ("¡A¿aà", &[0x40, 0x41, 0x60, 0x61, 0x7f]),
        ("{€]", &[0x1b, 0x28, 0x1b, 0x65, 0x1b, 0x3e]),
    ];
    for (text, septets) in cases {
        assert_eq!(gsm::encode(text).unwrap(), septets, "{text}");
    }
    for other in ['ê', 'ı', '`', '\u{1b}', '漢'] {
        assert_eq!(gsm::encode(&other.to_string()), Err(other));
    }
}

/// A name that people could read, with characters of one and of two septets.
fn name() -> impl Strategy<Value = String> {
    proptest::string::string_regex("[A-Za-z0-9àéÄñß€\\[~.-]{1,40}").unwrap()
}

proptest! {
    #[test]
    fn lengths_are_what_is_encoded(text in "[ -_a-zàéÄñß€\\[\\]{}~^|]{0,200}") {
        let octets = gsm::encode(&text).unwrap();
        prop_assert_eq!(gsm::septets(&text).unwrap(), octets.len());
        let two = text.chars().filter(|c| "€[]{}~^|\\".contains(*c)).count();
        prop_assert_eq!(octets.len(), text.chars().count() + two);
        prop_assert!(octets.iter().all(|octet| *octet < 128));
    }

    #[test]
    fn what_is_configured_fits_in_every_language(
        ap in name(),
        dp in name(),
        domain in "[a-z]{1,20}\\.[a-z]{2,10}",
        code in "[0-9]{6}",
    ) {
        let checked = check(&ap, &domain, &dp);
        let names = Names { ap: &ap, domain: &domain, dp: &dp };
        let mut longest = 0;
        for words in &LANGUAGES {
            for purpose in [Purpose::Register, Purpose::Prefer] {
                let message = message(names, Channel::Sms, purpose, Some(words.tag), &code);
                longest = longest.max(gsm::encode(&message.text).unwrap().len());
                let last = format!("@{domain} #{code}");
                prop_assert_eq!(message.text.lines().last(), Some(last.as_str()));
            }
        }
        prop_assert_eq!(checked.is_ok(), longest <= SEGMENT_SEPTETS);
    }
}
