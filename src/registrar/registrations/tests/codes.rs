//! Codes: how many are sent, when, and for what each works.

use std::collections::BTreeSet;

use super::*;
use crate::registrar::registrations::codes::generate;

#[test]
fn codes_are_six_digits_and_differ() {
    let codes: BTreeSet<String> = (0..2_000).map(|_| generate().unwrap().to_string()).collect();
    assert!(codes.iter().all(|code| code.len() == 6 && code.bytes().all(|b| b.is_ascii_digit())));
    // Of a million, 2 000 draws repeat some two codes.
    assert!(codes.len() > 1_950, "{}", codes.len());
    assert!(codes.iter().any(|code| code.starts_with('0')));
}

#[test]
fn a_code_is_bound_to_its_registration() {
    let settings = settings();
    let stored = settings.code_mac("one", "123456");
    assert!(settings.is_code_of("one", "123456", &stored));
    assert!(!settings.is_code_of("two", "123456", &stored));
    assert!(!settings.is_code_of("one", "123457", &stored));
    assert!(!settings.is_code_of("one", "123456", ""));
    assert!(!stored.contains("123456"));
    let other = Settings { pepper: Zeroizing::new([9; 32]), ..super::settings() };
    assert_ne!(other.code_mac("one", "123456"), stored);
}

#[tokio::test]
async fn another_code_is_sent_after_a_while_and_ends_the_one_before() {
    on_both(async |store| {
        let world = World::new(store);
        let (id, first) = world.register(A, request(A, NUMBER, 10, NOW), NOW).await;
        let resend = || Change::Resend { id: id.clone() };
        let early = world.post(A, resend(), NOW + 29).await.err().unwrap();
        assert_eq!((early.status, early.code, early.retry_after), (429, "resend_later", Some(1)));
        world.enter(A, &id, another(&first), NOW + 29).await.unwrap();
        let (reply, outgoing) = world.post(A, resend(), NOW + 30).await.unwrap();
        let accepted: Accepted = serde_json::from_slice(&reply.body).unwrap();
        assert_eq!((reply.status, accepted.expires_at), (202, NOW + 630));
        assert_eq!(accepted.resend_after, NOW + 90);
        let second = outgoing.unwrap().code.to_string();
        let early = world.post(A, resend(), NOW + 89).await.err().unwrap();
        assert_eq!((early.code, early.retry_after), ("resend_later", Some(1)));
        let (reply, outgoing) = world.post(A, resend(), NOW + 90).await.unwrap();
        let accepted: Accepted = serde_json::from_slice(&reply.body).unwrap();
        assert_eq!(accepted.resend_after, NOW + 210);
        let third = outgoing.unwrap().code.to_string();
        let early = world.post(A, resend(), NOW + 209).await.err().unwrap();
        assert_eq!((early.code, early.retry_after), ("resend_later", Some(1)));
        let many = world.post(A, resend(), NOW + 210).await.err().unwrap();
        assert_eq!((many.status, many.code), (429, "too_many_codes"));
        assert_eq!(many.retry_after, Some(3_600 - 210));
        // By chance two of a million are equal.
        if first != third && second != third {
            for old in [first, second] {
                assert_eq!(code_of(&world.enter(A, &id, &old, NOW + 100).await), "wrong_code");
            }
        }
        assert_eq!(code_of(&world.enter(A, &id, &third, NOW + 689).await), "ok");
        assert_eq!(code_of(&world.post(A, resend(), NOW + 690).await), "state");
    })
    .await;
}

#[tokio::test]
async fn a_gateway_that_refuses_lets_another_be_asked_for_at_once() {
    on_both(async |store| {
        let world = World::new(store);
        let (id, _) = world.register(A, request(A, NUMBER, 10, NOW), NOW).await;
        world.core.sent(&id, Outcome::Refused, NOW + 3).await.unwrap();
        let (reply, _) = world.post(A, Change::Resend { id }, NOW + 3).await.unwrap();
        assert_eq!(reply.status, 202);
        world.core.sent("unknown", Outcome::Accepted, NOW).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn three_codes_an_hour_and_six_a_day_over_all_providers() {
    on_both(async |store| {
        let world = World::new(store);
        let ask = async |ap: &str, now: u64| {
            world.post(ap, Change::Register(request(ap, NUMBER, 10, now)), now).await
        };
        for (ap, at) in [(A, 0), (B, 10), (A, 20)] {
            assert_eq!(ask(ap, NOW + at).await.unwrap().0.status, 202);
        }
        for ap in [A, B] {
            let many = ask(ap, NOW + 3_599).await.err().unwrap();
            assert_eq!((many.code, many.retry_after), ("too_many_codes", Some(1)));
        }
        for (ap, at) in [(B, 3_600), (A, 3_610), (B, 3_620)] {
            assert_eq!(ask(ap, NOW + at).await.unwrap().0.status, 202);
        }
        let many = ask(A, NOW + DAY - 1).await.err().unwrap();
        assert_eq!((many.code, many.retry_after), ("too_many_codes", Some(1)));
        assert_eq!(ask(A, NOW + DAY).await.unwrap().0.status, 202);
        assert_eq!(code_of(&ask(B, NOW + DAY).await), "too_many_codes");
        // Of another number nothing was sent.
        let other = Change::Register(request(A, &number(1), 10, NOW));
        assert_eq!(world.post(A, other, NOW).await.unwrap().0.status, 202);
    })
    .await;
}

#[tokio::test]
async fn a_code_of_another_purpose_or_provider_is_wrong() {
    on_both(async |store| {
        let world = World::new(store);
        let (register, code) = world.register(A, request(A, NUMBER, 10, NOW), NOW).await;
        let prefer = NewRegistration { purpose: Purpose::Prefer, ..request(A, NUMBER, 10, NOW) };
        let (prefer, prefer_code) = world.register(A, prefer, NOW).await;
        let (elsewhere, elsewhere_code) = world.register(B, request(B, NUMBER, 10, NOW), NOW).await;
        let codes = BTreeSet::from([&code, &prefer_code, &elsewhere_code]);
        if codes.len() == 3 {
            for wrong in [&prefer_code, &elsewhere_code] {
                assert_eq!(code_of(&world.enter(A, &register, wrong, NOW).await), "wrong_code");
            }
            for wrong in [&code, &elsewhere_code] {
                assert_eq!(code_of(&world.enter(A, &prefer, wrong, NOW).await), "wrong_code");
            }
        }
        let (reply, _) = world.enter(A, &prefer, &prefer_code, NOW).await.unwrap();
        let body = json(&reply);
        let line = body["statement"].as_str().unwrap();
        let statement = Statement::read(line, &directory(NOW, |_| {}), NOW).unwrap();
        let Statement::Mapping(mapping) = statement else { panic!("another statement") };
        assert_eq!(mapping.purpose, Purpose::Prefer);
        assert_eq!(code_of(&world.enter(B, &elsewhere, &elsewhere_code, NOW).await), "ok");
    })
    .await;
}

#[tokio::test]
async fn fifty_guesses_at_once_are_five_tries() {
    on_both(async |store| {
        let world = World::new(store);
        let (id, code) = world.register(A, request(A, NUMBER, 10, NOW), NOW).await;
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..50 {
            let (world, id, wrong) = (world.clone(), id.clone(), another(&code));
            tasks.spawn(async move { code_of(&world.enter(A, &id, wrong, NOW).await) });
        }
        let codes = tasks.join_all().await;
        let count = |code: &str| codes.iter().filter(|found| *found == code).count();
        assert_eq!((count("wrong_code"), count("failed")), (5, 45), "{codes:?}");
        assert_eq!(code_of(&world.enter(A, &id, &code, NOW).await), "failed");
    })
    .await;
}
