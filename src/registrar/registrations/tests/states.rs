//! Every transition of a registration, and every bound one second before and at it.

use super::*;
use crate::limits::registrar::*;
use crate::registrar::registrations::Swept;
use crate::registrar::registrations::state::{Times, from_number, next, number as number_of};

#[tokio::test]
async fn a_registration_goes_from_request_to_statement() {
    on_both(async |store| {
        let world = World::new(store);
        let asked = request(A, NUMBER, 10, NOW - 200);
        let (reply, outgoing) = world.post(A, Change::Register(asked), NOW).await.unwrap();
        let outgoing = outgoing.unwrap();
        let accepted: Accepted = serde_json::from_slice(&reply.body).unwrap();
        assert_eq!(reply.status, 202);
        assert_eq!((accepted.expires_at, accepted.resend_after), (NOW + 600, NOW + 30));
        assert_eq!(accepted.id, outgoing.id);
        assert_eq!((outgoing.ap.as_str(), outgoing.to.to_uri().as_str()), (A, NUMBER));
        assert_eq!((outgoing.channel, outgoing.purpose), (Channel::Sms, Purpose::Register));
        let id = outgoing.id;
        assert_eq!(world.state(A, &id, NOW).await, State::Requested);
        world.core.sent(&id, Outcome::Refused, NOW + 1).await.unwrap();
        assert_eq!(world.state(A, &id, NOW).await, State::Requested);
        world.core.sent(&id, Outcome::Accepted, NOW + 2).await.unwrap();
        let shown = world.core.show(&Caller { ap: A }, &id, NOW + 2).await.unwrap();
        assert_eq!((shown.state, shown.since), (State::Sent, NOW + 2));
        assert!(shown.statement.is_none());

        let (reply, _) = world.enter(A, &id, &outgoing.code, NOW + 9).await.unwrap();
        let body = json(&reply);
        let line = body["statement"].as_str().unwrap();
        let Statement::Mapping(mapping) =
            Statement::read(line, &directory(NOW, |_| {}), NOW + 9).unwrap()
        else {
            panic!("another statement");
        };
        assert_eq!((mapping.iss.as_str(), mapping.jti.as_str()), (ISS, id.as_str()));
        assert_eq!((mapping.iat, mapping.proof_at), (NOW - 200, NOW - 200));
        assert_eq!(mapping.exp, NOW - 200 + 400 * DAY);
        assert_eq!((mapping.proof, mapping.purpose), (Proof::Sms, Purpose::Register));
        let shown = world.core.show(&Caller { ap: A }, &id, NOW + 9).await.unwrap();
        assert_eq!((shown.state, shown.since), (State::Active, NOW + 9));
        assert_eq!(shown.statement.as_deref(), Some(line));
        // Late news of the message change nothing, and the code works once.
        world.core.sent(&id, Outcome::Accepted, NOW + 10).await.unwrap();
        assert_eq!(world.state(A, &id, NOW + 10).await, State::Active);
        assert_eq!(code_of(&world.enter(A, &id, &outgoing.code, NOW + 10).await), "state");
    })
    .await;
}

#[tokio::test]
async fn five_wrong_codes_fail() {
    on_both(async |store| {
        let world = World::new(store);
        let (id, code) = world.register(A, request(A, NUMBER, 10, NOW), NOW).await;
        for left in (0..5).rev() {
            assert_eq!(world.state(A, &id, NOW).await, State::Requested);
            let (reply, _) = world.enter(A, &id, another(&code), NOW).await.unwrap();
            let body = json(&reply);
            assert_eq!((reply.status, body["code"].as_str()), (409, Some("wrong_code")));
            assert_eq!(body["tries_left"].as_u64(), Some(left));
        }
        assert_eq!(world.state(A, &id, NOW).await, State::Failed);
        let changed = world.enter(A, &id, &code, NOW).await.err().unwrap();
        assert_eq!((changed.status, changed.code), (410, "failed"));
        // What has not the form of a code is no try.
        let (id, code) = world.register(A, request(A, NUMBER, 10, NOW), NOW).await;
        for wrong in ["", "12345", "1234567", "12345a", "１２３４５６"] {
            assert_eq!(code_of(&world.enter(A, &id, wrong, NOW).await), "malformed");
        }
        assert_eq!(code_of(&world.enter(A, &id, &code, NOW).await), "ok");
    })
    .await;
}

#[tokio::test]
async fn a_code_expires_after_ten_minutes() {
    on_both(async |store| {
        let world = World::new(store);
        let (first, code) = world.register(A, request(A, &number(1), 10, NOW), NOW).await;
        assert_eq!(code_of(&world.enter(A, &first, &code, NOW + 599).await), "ok");
        let (second, code) = world.register(A, request(A, &number(2), 10, NOW), NOW).await;
        let late = world.enter(A, &second, &code, NOW + 600).await.err().unwrap();
        assert_eq!((late.status, late.code), (410, "expired"));
        assert_eq!(world.state(A, &second, NOW + 599).await, State::Requested);
        assert_eq!(world.state(A, &second, NOW + 600).await, State::Expired);
        assert_eq!(world.core.sweep(NOW + 599).await.unwrap(), Swept::default());
        let swept = world.core.sweep(NOW + 600).await.unwrap();
        assert_eq!(swept, Swept { expired: 1, ..Swept::default() });
        assert_eq!(code_of(&world.enter(A, &second, &code, NOW + 600).await), "expired");
        let resend = Change::Resend { id: second };
        assert_eq!(code_of(&world.post(A, resend, NOW + 601).await), "expired");
    })
    .await;
}

#[tokio::test]
async fn without_heartbeats_a_mapping_is_stale_and_then_ended() {
    on_both(async |store| {
        let world = World::new(store);
        let (id, _) = world.proved(A, request(A, NUMBER, 10, NOW), NOW).await;
        assert_eq!(world.heartbeat(A, &id, NOW + 5 * DAY).await, 1);
        // Of nobody else's.
        assert_eq!(world.heartbeat(B, &id, NOW + 9 * DAY).await, 0);
        let beaten = NOW + 5 * DAY;
        assert_eq!(world.core.sweep(beaten + 30 * DAY - 1).await.unwrap(), Swept::default());
        assert_eq!(world.state(A, &id, NOW).await, State::Active);
        let stale = Swept { stale: 1, ..Swept::default() };
        assert_eq!(world.core.sweep(beaten + 30 * DAY).await.unwrap(), stale);
        let shown = world.core.show(&Caller { ap: A }, &id, NOW).await.unwrap();
        assert_eq!((shown.state, shown.since), (State::Stale, beaten + 30 * DAY));
        // Back by a heartbeat, for another 30 days.
        let back = beaten + 45 * DAY - 1;
        assert_eq!(world.core.sweep(back).await.unwrap(), Swept::default());
        assert_eq!(world.heartbeat(A, &id, back).await, 1);
        assert_eq!(world.state(A, &id, back).await, State::Active);
        assert_eq!(world.core.sweep(back + 30 * DAY - 1).await.unwrap(), Swept::default());
        assert_eq!(world.core.sweep(back + 30 * DAY).await.unwrap(), stale);
        assert_eq!(world.core.sweep(back + 45 * DAY - 1).await.unwrap(), Swept::default());
        let ended = Swept { ended: 1, ..Swept::default() };
        assert_eq!(world.core.sweep(back + 45 * DAY).await.unwrap(), ended);
        assert_eq!(world.state(A, &id, back).await, State::Ended);
        assert_eq!(world.heartbeat(A, &id, back + 45 * DAY).await, 0);
        let withdrawn = world.withdraw(A, &id, back + 45 * DAY).await;
        assert_eq!(code_of(&withdrawn), "state");
    })
    .await;
}

#[tokio::test]
async fn a_proof_is_due_after_a_year_and_void_with_its_mapping() {
    on_both(async |store| {
        let world = World::new(store);
        let (id, _) = world.proved(A, request(A, NUMBER, 10, NOW), NOW).await;
        for day in (20..=380).step_by(20) {
            assert_eq!(world.heartbeat(A, &id, NOW + day * DAY).await, 1);
            let swept = world.core.sweep(NOW + day * DAY).await.unwrap();
            assert_eq!(swept.proof_due, u64::from(day == 380), "{day}");
        }
        assert_eq!(world.state(A, &id, NOW).await, State::ProofDue);
        assert_eq!(world.heartbeat(A, &id, NOW + 399 * DAY).await, 1);
        let swept = world.core.sweep(NOW + 400 * DAY - 1).await.unwrap();
        assert_eq!(swept, Swept::default());
        let swept = world.core.sweep(NOW + 400 * DAY).await.unwrap();
        assert_eq!(swept, Swept { ended: 1, ..Swept::default() });
    })
    .await;
}

#[tokio::test]
async fn a_newer_mapping_supersedes_that_of_its_provider() {
    on_both(async |store| {
        let world = World::new(store);
        let (old, _) = world.proved(A, request(A, NUMBER, 10, NOW), NOW).await;
        let (other, _) = world.proved(B, request(B, NUMBER, 10, NOW), NOW).await;
        let (new, _) = world.proved(A, request(A, NUMBER, 11, NOW + 5), NOW + 5).await;
        assert_eq!(world.state(A, &old, NOW).await, State::Superseded);
        assert_eq!(world.state(B, &other, NOW).await, State::Active);
        assert_eq!(world.state(A, &new, NOW).await, State::Active);
        // A pending one is replaced by a newer request for the same, and by no other.
        let sii = number(7);
        let (first, code) = world.register(A, request(A, &sii, 10, NOW), NOW).await;
        let prefer = NewRegistration { purpose: Purpose::Prefer, ..request(A, &sii, 10, NOW) };
        let (second, _) = world.register(A, prefer, NOW).await;
        assert_eq!(world.state(A, &first, NOW).await, State::Requested);
        let (third, _) = world.register(A, request(A, &sii, 10, NOW), NOW).await;
        assert_eq!(world.state(A, &first, NOW).await, State::Superseded);
        assert_eq!(world.state(A, &second, NOW).await, State::Requested);
        assert_eq!(world.state(A, &third, NOW).await, State::Requested);
        assert_eq!(code_of(&world.enter(A, &first, &code, NOW).await), "expired");
    })
    .await;
}

#[tokio::test]
async fn an_older_consent_supersedes_nothing() {
    on_both(async |store| {
        let world = World::new(store);
        let (late, code) = world.register(A, request(A, NUMBER, 10, NOW - 60), NOW).await;
        let prefer = NewRegistration { purpose: Purpose::Prefer, ..request(A, NUMBER, 10, NOW) };
        let (first, _) = world.proved(A, prefer, NOW).await;
        assert_eq!(code_of(&world.enter(A, &late, &code, NOW).await), "consent_old");
        assert_eq!(world.state(A, &first, NOW).await, State::Active);
        assert_eq!(world.state(A, &late, NOW).await, State::Failed);
    })
    .await;
}

#[tokio::test]
async fn a_user_withdraws_what_has_the_key() {
    on_both(async |store| {
        let world = World::new(store);
        let (a, _) = world.proved(A, request(A, NUMBER, 10, NOW), NOW).await;
        let (b, _) = world.proved(B, request(B, NUMBER, 11, NOW), NOW).await;
        let withdrawal = |user: u8, iat: u64, ssi: Option<Ssi>| {
            let withdrawal = Withdrawal {
                by: WithdrawnBy::User(key(user).verifying_key().to_bytes()),
                sub: Identifier::from_uri(NUMBER).unwrap(),
                ssi,
                jti: "1".into(),
                iat,
            };
            let statement = Some(withdrawal.sign(&key(user)));
            Change::Withdraw(NewWithdrawal { id: None, statement })
        };
        let elsewhere = Some(Ssi::new(A, "someone-else").unwrap());
        for (change, withdrawn) in [
            (withdrawal(12, NOW + 9, None), 0),
            (withdrawal(10, NOW - 1, None), 0),
            (withdrawal(10, NOW, elsewhere), 0),
            (withdrawal(10, NOW, None), 1),
            (withdrawal(10, NOW, None), 0),
        ] {
            let (reply, _) = world.post(B, change, NOW + 9).await.unwrap();
            assert_eq!(json(&reply)["withdrawn"].as_u64(), Some(withdrawn));
        }
        assert_eq!(world.state(A, &a, NOW).await, State::Withdrawn);
        assert_eq!(world.state(B, &b, NOW).await, State::Active);
        // A pending one too.
        let (id, _) = world.register(A, request(A, NUMBER, 10, NOW + 10), NOW + 10).await;
        world.post(A, withdrawal(10, NOW + 10, None), NOW + 10).await.unwrap();
        assert_eq!(world.state(A, &id, NOW + 10).await, State::Withdrawn);
    })
    .await;
}

#[tokio::test]
async fn a_recycled_number_voids_what_is_stale_and_nothing_in_use() {
    on_both(async |store| {
        let world = World::new(store);
        let (a, _) = world.proved(A, request(A, NUMBER, 10, NOW), NOW).await;
        let (b, _) = world.proved(B, request(B, NUMBER, 10, NOW), NOW).await;
        world.heartbeat(B, &b, NOW + DAY).await;
        assert!(world.core.stale(None).await.unwrap().is_empty());
        world.core.sweep(NOW + 30 * DAY).await.unwrap();
        let stale = world.core.stale(None).await.unwrap();
        let [one] = &stale[..] else { panic!("{} are stale", stale.len()) };
        assert_eq!((&one.id, one.sii.to_uri().as_str(), one.proved_at), (&a, NUMBER, NOW));
        assert_eq!(one.ends_at, NOW + 45 * DAY);
        assert!(world.core.stale(Some(one)).await.unwrap().is_empty());
        assert!(!world.core.recycled(&b, NOW + 30 * DAY).await.unwrap());
        assert!(!world.core.recycled("unknown", NOW + 30 * DAY).await.unwrap());
        assert!(world.core.recycled(&a, NOW + 30 * DAY).await.unwrap());
        assert!(!world.core.recycled(&a, NOW + 30 * DAY).await.unwrap());
        assert_eq!(world.state(A, &a, NOW).await, State::Voided);
        assert_eq!(world.state(B, &b, NOW).await, State::Active);
    })
    .await;
}

#[test]
fn every_state_has_the_number_that_queries_have() {
    for at in 0..11 {
        assert_eq!(number_of(from_number(at).unwrap()), at);
    }
    assert!(from_number(11).is_none() && from_number(-1).is_none());
    let numbers = [State::Requested, State::Sent, State::Active, State::ProofDue, State::Stale];
    assert_eq!(numbers.map(number_of), [0, 1, 2, 3, 4]);
    assert_eq!(number_of(State::Superseded), 9);
}

#[test]
fn times_decide_the_state() {
    let times = |heartbeat_at| Times {
        code_expires_at: NOW + 600,
        iat: NOW,
        exp: NOW + 400 * DAY,
        heartbeat_at,
    };
    let fresh = times(NOW + 364 * DAY);
    let next = |state, times: &Times, at| next(state, times, NOW + at);
    assert_eq!(next(State::Sent, &fresh, 599), (State::Sent, Some(NOW + 600)));
    assert_eq!(next(State::Sent, &fresh, 600), (State::Expired, None));
    let due = (State::ProofDue, Some(NOW + 394 * DAY));
    assert_eq!(
        next(State::Active, &fresh, PROOF_SECONDS - 1),
        (State::Active, Some(NOW + PROOF_SECONDS))
    );
    assert_eq!(next(State::Active, &fresh, PROOF_SECONDS), due);
    assert_eq!(next(State::Stale, &fresh, PROOF_SECONDS), due);
    assert_eq!(next(State::ProofDue, &fresh, 394 * DAY), (State::Stale, Some(NOW + 400 * DAY)));
    assert_eq!(next(State::ProofDue, &times(NOW + 399 * DAY), 400 * DAY), (State::Ended, None));
    let silent = times(NOW);
    assert_eq!(next(State::Active, &silent, STALE_SECONDS - 1).0, State::Active);
    assert_eq!(next(State::Active, &silent, STALE_SECONDS).0, State::Stale);
    assert_eq!(next(State::Stale, &silent, ENDED_SECONDS - 1).0, State::Stale);
    assert_eq!(next(State::Stale, &silent, ENDED_SECONDS).0, State::Ended);
    // With a longer validity the grace is sixty days.
    let long = Times { exp: u64::MAX, ..times(NOW + 424 * DAY) };
    assert_eq!(next(State::ProofDue, &long, 425 * DAY - 1).0, State::ProofDue);
    assert_eq!(next(State::ProofDue, &long, 425 * DAY).0, State::Ended);
    assert_eq!(next(State::Voided, &silent, 0), (State::Voided, None));
}
