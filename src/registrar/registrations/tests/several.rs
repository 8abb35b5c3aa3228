//! Several discovery providers, regions, new holders, and what holders are shown.

use super::*;
use crate::registrar::registrations::{Event, MINE_TYP};

fn homes(world_directory: &Directory, sii: &str) -> Vec<String> {
    let sii = Identifier::from_uri(sii).unwrap();
    crate::registrar::registrations::home::homes(world_directory, &sii)
        .iter()
        .map(|home| home.domain.clone())
        .collect()
}

#[test]
fn the_longest_prefix_decides_the_home() {
    let directory = directory(NOW, |content| {
        let mut authority = issuer("numbers.example", &key(5), &["+4915"]);
        authority.authority = true;
        authority.remit.providers.clear();
        draft::add_issuer(content, authority).unwrap();
    });
    assert_eq!(homes(&directory, "tel:+4915112345678"), [ISS]);
    assert_eq!(homes(&directory, "tel:+491512123456"), [OTHER]);
    assert_eq!(homes(&directory, "tel:+33612345678"), [OTHER]);
    assert_eq!(homes(&directory, "tel:+4366412345678"), [OTHER]);
    assert_eq!(homes(&directory, "mailto:ada@x.example"), [ISS]);
    assert!(homes(&directory, "tel:+15550000001").is_empty());
    // While a prefix moves both may vouch.
    let moving = super::directory(NOW, |content| {
        content.issuers[1].remit.prefixes.push("+49".into());
    });
    assert_eq!(homes(&moving, "tel:+4915112345678"), [ISS, OTHER]);
    let everything = super::directory(NOW, |content| content.issuers[1].remit.prefixes.clear());
    assert_eq!(homes(&everything, "tel:+4915112345678"), [ISS]);
    assert_eq!(homes(&everything, "tel:+15550000001"), [OTHER]);
}

#[tokio::test]
async fn identifiers_of_others_are_sent_to_their_home() {
    on_both(async |store| {
        let world = World::new(store.clone());
        for sii in ["tel:+33612345678", "tel:+4915121234567"] {
            let asked = Change::Register(request(A, sii, 10, NOW));
            let elsewhere = world.post(A, asked, NOW).await.err().unwrap();
            assert_eq!((elsewhere.status, elsewhere.code), (421, "not_home"));
            assert_eq!(elsewhere.members["home"], OTHER);
        }
        let asked = Change::Register(request(A, "tel:+15550000001", 10, NOW));
        let nowhere = world.post(A, asked, NOW).await.err().unwrap();
        assert_eq!((nowhere.status, nowhere.members.get("home")), (421, None));
        // A region of our own prefix.
        let (region, region_prefixes) = (Some("EU".to_owned()), vec!["+491511".to_owned()]);
        let settings = Settings { region, region_prefixes, ..settings() };
        let world = World::with(store, settings, |_| {});
        let asked = Change::Register(request(A, "tel:+4917012345678", 10, NOW));
        assert_eq!(code_of(&world.keyed(A, "1", [1; 32], asked, NOW).await), "other_region");
        let asked = Change::Register(request(A, "mailto:ada@x.example", 10, NOW));
        assert_eq!(code_of(&world.keyed(A, "2", [1; 32], asked, NOW).await), "other_region");
        let asked = Change::Register(request(A, NUMBER, 10, NOW));
        let (_, outgoing) = world.keyed(A, "3", [1; 32], asked, NOW).await.unwrap();
        let outgoing = outgoing.unwrap();
        let entered = Entered { code: outgoing.code.to_string() };
        let enter = Change::Enter { id: outgoing.id, entered };
        let (reply, _) = world.keyed(A, "4", [1; 32], enter, NOW).await.unwrap();
        let body = json(&reply);
        let statement = body["statement"].as_str().unwrap();
        let Statement::Mapping(mapping) =
            Statement::read(statement, &directory(NOW, |_| {}), NOW).unwrap()
        else {
            panic!("another statement");
        };
        assert_eq!(mapping.region.as_deref(), Some("EU"));
    })
    .await;
}

fn new_holder(ap: &str, sii: &str, user: u8, iat: u64) -> NewRegistration {
    NewRegistration { new_holder: true, ..request(ap, sii, user, iat) }
}

#[tokio::test]
async fn a_new_holder_voids_every_other_mapping() {
    on_both(async |store| {
        let world = World::new(store);
        let (a, _) = world.proved(A, request(A, NUMBER, 10, NOW), NOW).await;
        let later = NOW + 3_600;
        let (b, _) = world.proved(B, request(B, NUMBER, 10, later), later).await;
        let (old, old_code) = world.register(A, request(A, NUMBER, 10, later), later).await;
        assert!(world.core.pending_events(later).await.unwrap().is_empty());
        let (new, statement) =
            world.proved(B, new_holder(B, NUMBER, 20, later + 9), later + 9).await;
        assert_eq!(world.state(A, &a, later).await, State::Voided);
        assert_eq!(world.state(B, &b, later).await, State::Voided);
        assert_eq!(world.state(B, &new, later).await, State::Active);
        // The holder before has a code and a consent, and gains nothing by them.
        let entered = world.enter(A, &old, &old_code, later + 20).await;
        assert_eq!(code_of(&entered), "consent_old");

        // The other discovery provider is told until it has acknowledged.
        assert_eq!(world.core.events_waiting().await.unwrap(), 1);
        let events = world.core.pending_events(later + 9).await.unwrap();
        let [Event { registration, dp, statement: sent }] = &events[..] else { panic!("events") };
        assert_eq!((registration, dp.as_str(), sent), (&new, OTHER, &statement));
        for (wait, before) in [(60, 0), (120, 60), (240, 180)] {
            let at = later + 9 + before;
            world.core.event_failed(&events[0], at).await.unwrap();
            assert!(world.core.pending_events(at + wait - 1).await.unwrap().is_empty());
            assert_eq!(world.core.pending_events(at + wait).await.unwrap().len(), 1);
        }
        world.core.event_acknowledged(&events[0]).await.unwrap();
        assert!(world.core.pending_events(u64::MAX / 2).await.unwrap().is_empty());
        assert_eq!(world.core.events_waiting().await.unwrap(), 0);
    })
    .await;
}

#[tokio::test]
async fn an_event_of_another_discovery_provider_voids_what_is_earlier() {
    on_both(async |store| {
        let moving = |content: &mut Content| {
            content.issuers[1].remit.prefixes.push("+49".into());
        };
        let world = World::with(store, settings(), moving);
        let (early, _) = world.proved(A, request(A, NUMBER, 10, NOW - 9), NOW).await;
        let (late, _) = world.proved(B, request(B, NUMBER, 11, NOW + 1), NOW).await;
        let event = |iss: &str, signer: u8, new_holder: bool, sii: &str| {
            let sub = Identifier::from_uri(sii).unwrap();
            let ssi = Ssi::new(A, "grace").unwrap();
            let mapping = Mapping {
                iss: iss.into(),
                jti: "e".into(),
                iat: NOW,
                exp: NOW + DAY,
                proof: Proof::Sms,
                proof_at: NOW,
                region: None,
                new_holder,
                tags: Vec::new(),
                user: Some(Consent::new(&consent_text(&sub, &ssi, iss, NOW), &key(30))),
                purpose: Purpose::Register,
                sub,
                ssi,
            };
            Change::Event(NewEvent { statement: mapping.sign(&key(signer)) })
        };
        let refused = [
            (event(OTHER, 2, false, NUMBER), "malformed"),
            (event(OTHER, 3, true, NUMBER), "unknown_key"),
            (event(ISS, 1, true, NUMBER), "event_issuer"),
            (Change::Event(NewEvent { statement: "x".into() }), "malformed"),
        ];
        for (change, code) in refused {
            assert_eq!(code_of(&world.post(OTHER, change, NOW).await), code);
        }
        assert_eq!(
            code_of(&world.post(A, event(OTHER, 2, true, NUMBER), NOW).await),
            "event_issuer"
        );
        assert_eq!(world.state(A, &early, NOW).await, State::Active);
        let (reply, _) = world.post(OTHER, event(OTHER, 2, true, NUMBER), NOW).await.unwrap();
        let (none, _) = world.post(OTHER, event(OTHER, 2, true, &number(5)), NOW).await.unwrap();
        assert_eq!(reply, none);
        assert_eq!(reply.status, 200);
        assert_eq!(world.state(A, &early, NOW).await, State::Voided);
        assert_eq!(world.state(B, &late, NOW).await, State::Active);
        // A consent of the holder before.
        let (id, code) = world.register(A, request(A, NUMBER, 10, NOW - 1), NOW).await;
        assert_eq!(code_of(&world.enter(A, &id, &code, NOW).await), "consent_old");
    })
    .await;
}

/// Where the number is not the other's any more, it cannot void anything.
#[tokio::test]
async fn only_a_home_sends_events() {
    on_both(async |store| {
        let world = World::new(store);
        let sub = Identifier::from_uri(NUMBER).unwrap();
        let ssi = Ssi::new(A, "grace").unwrap();
        let mapping = Mapping {
            iss: OTHER.into(),
            jti: "e".into(),
            iat: NOW,
            exp: NOW + DAY,
            proof: Proof::Sms,
            proof_at: NOW,
            region: None,
            new_holder: true,
            tags: Vec::new(),
            user: Some(Consent::new(&consent_text(&sub, &ssi, OTHER, NOW), &key(30))),
            purpose: Purpose::Register,
            sub,
            ssi,
        };
        let event = Change::Event(NewEvent { statement: mapping.sign(&key(2)) });
        assert_eq!(code_of(&world.post(OTHER, event, NOW).await), "not_home");
    })
    .await;
}

#[tokio::test]
async fn a_holder_sees_every_mapping() {
    on_both(async |store| {
        let world = World::new(store);
        let (_, a) = world.proved(A, request(A, NUMBER, 10, NOW), NOW).await;
        let (gone, _) = world.proved(B, request(B, NUMBER, 11, NOW), NOW).await;
        let (_, b) = world.proved(B, request(B, NUMBER, 11, NOW + 1), NOW + 1).await;
        assert_eq!(world.state(B, &gone, NOW).await, State::Superseded);
        let token = |aud: &str, sub: &str, user: u8, signer: u8, iat: u64| {
            let uk = base64url(&key(user).verifying_key().to_bytes());
            let claims = serde_json::json!({ "aud": aud, "sub": sub, "uk": uk, "iat": iat });
            jws::sign(MINE_TYP, claims.to_string().as_bytes(), &key(signer))
        };
        for user in [10, 11] {
            let mine = world.core.mine(&token(ISS, NUMBER, user, user, NOW), NOW).await;
            let Ok(mine) = mine else { panic!("refused") };
            let found: Vec<(&str, State, &str)> = mine
                .iter()
                .map(|one| (one.ap.as_str(), one.state, one.statement.as_str()))
                .collect();
            assert_eq!(found, [(A, State::Active, a.as_str()), (B, State::Active, b.as_str())]);
        }
        let other_typ = jws::sign("sotto-other+jwt", b"{}", &key(10));
        let refused = [
            (token(ISS, NUMBER, 12, 12, NOW), "unknown"),
            (token(ISS, &number(1), 10, 10, NOW), "unknown"),
            (token(ISS, NUMBER, 10, 12, NOW), "token"),
            (token(OTHER, NUMBER, 10, 10, NOW), "token"),
            (token(ISS, "tel:1", 10, 10, NOW), "token"),
            (token(ISS, NUMBER, 10, 10, NOW - 301), "clock"),
            (token(ISS, NUMBER, 10, 10, NOW + 3_600), "clock"),
            (jws::sign(MINE_TYP, b"[]", &key(10)), "token"),
            (other_typ, "token"),
            ("a.b.c".to_owned(), "token"),
        ];
        for (token, code) in refused {
            let problem = world.core.mine(&token, NOW).await.err().unwrap();
            assert_eq!(problem.code, code);
            assert_clean(&format!("{problem:?}"));
        }
    })
    .await;
}
