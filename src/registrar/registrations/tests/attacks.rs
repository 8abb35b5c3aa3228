//! What dishonest application providers try, and what is refused before anything is stored.

use super::*;

type Changes = [(&'static str, u16, fn(&mut NewRegistration)); 12];

const REFUSED: Changes = [
    ("user_forged", 422, |r| r.up = base64url(&[1; 64])),
    ("user_forged", 422, |r| r.sii = "tel:+4915112345679".into()),
    ("user_forged", 422, |r| r.iat += 1),
    ("user_forged", 422, |r| r.ssi = format!("mimi://{A}/u/ada")),
    ("user_forged", 422, |r| r.uk = base64url(&key(11).verifying_key().to_bytes())),
    ("malformed", 422, |r| r.uk = "AAAA".into()),
    ("malformed", 422, |r| r.language = Some("de_DE".into())),
    ("ssi_domain", 403, |r| r.ssi = format!("mimi://{B}/u/{HANDLE}")),
    ("ssi", 422, |r| r.ssi = HANDLE.into()),
    ("identifier", 422, |r| r.sii = "tel:015112345678".into()),
    ("channel", 422, |r| r.channel = Channel::Email),
    ("channel", 422, |r| r.sii = "mailto:ada@lovelace.example".into()),
];

#[tokio::test]
async fn what_the_user_did_not_sign_is_neither_stored_nor_sent() {
    on_both(async |store| {
        let world = World::new(store);
        for (index, (code, status, change)) in REFUSED.into_iter().enumerate() {
            let mut asked = request(A, NUMBER, 10, NOW);
            change(&mut asked);
            let problem = world.post(A, Change::Register(asked), NOW).await.err().unwrap();
            assert_eq!((problem.code, problem.status), (code, status), "{index}");
        }
        for table in TABLES {
            assert_eq!(world.count(table).await, 0, "{table}");
        }
        // A provider that the directory does not know.
        let asked = request("c.example", NUMBER, 10, NOW);
        let refused = world.post("c.example", Change::Register(asked), NOW).await;
        assert_eq!(code_of(&refused), "unknown_provider");
    })
    .await;
}

#[tokio::test]
async fn a_clock_may_differ_by_five_minutes() {
    on_both(async |store| {
        let world = World::new(store);
        let far = [301_i64, 3_600, -301, -3_600];
        for apart in far {
            let iat = NOW.checked_add_signed(apart).unwrap();
            let asked = Change::Register(request(A, NUMBER, 10, iat));
            assert_eq!(code_of(&world.post(A, asked, NOW).await), "clock", "{apart}");
        }
        for apart in [300_i64, -300] {
            let iat = NOW.checked_add_signed(apart).unwrap();
            world.register(A, request(A, NUMBER, 10, iat), NOW).await;
        }
        let asked = Change::Register(request(A, NUMBER, 10, u64::MAX));
        assert_eq!(code_of(&world.post(A, asked, NOW).await), "clock");
    })
    .await;
}

#[tokio::test]
async fn the_id_of_another_is_an_unknown_one() {
    on_both(async |store| {
        let world = World::new(store);
        let (id, code) = world.register(A, request(A, NUMBER, 10, NOW), NOW).await;
        let long = "x".repeat(65);
        let unknown = world.core.show(&Caller { ap: B }, "unknown", NOW).await.err().unwrap();
        assert_eq!(unknown.status, 404);
        for other in [id.as_str(), "", "a b", long.as_str()] {
            let shown = world.core.show(&Caller { ap: B }, other, NOW).await.err().unwrap();
            assert_eq!(shown, unknown);
            assert_eq!(world.enter(B, other, &code, NOW).await.err().unwrap(), unknown);
            let resend = Change::Resend { id: other.into() };
            assert_eq!(world.post(B, resend, NOW + 60).await.err().unwrap(), unknown);
            assert_eq!(world.withdraw(B, other, NOW).await.err().unwrap(), unknown);
        }
        assert_eq!(world.heartbeat(B, &id, NOW).await, 0);
        assert_eq!(code_of(&world.enter(A, &id, &code, NOW).await), "ok");
        assert_eq!(world.heartbeat(B, &id, NOW).await, 0);
        assert_eq!(world.withdraw(B, &id, NOW).await.err().unwrap(), unknown);
        assert_eq!(world.state(A, &id, NOW).await, State::Active);
    })
    .await;
}

#[tokio::test]
async fn a_request_that_is_sent_again_gets_the_same_reply() {
    on_both(async |store| {
        let world = World::new(store);
        let asked = || Change::Register(request(A, NUMBER, 10, NOW));
        let (first, outgoing) = world.keyed(A, "k", [1; 32], asked(), NOW).await.unwrap();
        let outgoing = outgoing.unwrap();
        // Also when its time would not be accepted any more.
        for later in [0, 1, 3_600] {
            let (again, none) = world.keyed(A, "k", [1; 32], asked(), NOW + later).await.unwrap();
            assert_eq!(again, first);
            assert!(none.is_none());
        }
        let other = world.keyed(A, "k", [2; 32], asked(), NOW).await.err().unwrap();
        assert_eq!((other.status, other.code), (422, "idempotency_key"));
        let other = world.keyed(A, "k", [2; 32], asked(), NOW + 3_600).await.err().unwrap();
        assert_eq!(other.code, "idempotency_key");
        assert_eq!(world.count("registrations").await, 1);
        // Another provider may have the same key.
        let elsewhere = Change::Register(request(B, NUMBER, 10, NOW));
        world.keyed(B, "k", [2; 32], elsewhere, NOW).await.unwrap();
        // A wrong code sent again is one try.
        let enter = |code: &str| {
            let entered = Entered { code: code.to_owned() };
            Change::Enter { id: outgoing.id.clone(), entered }
        };
        let wrong = another(&outgoing.code);
        for _ in 0..9 {
            let (reply, _) = world.keyed(A, "w", [3; 32], enter(wrong), NOW).await.unwrap();
            assert_eq!(json(&reply)["tries_left"].as_u64(), Some(4));
        }
        let right = || enter(&outgoing.code);
        let (right_reply, _) = world.keyed(A, "r", [4; 32], right(), NOW).await.unwrap();
        assert_eq!(right_reply.status, 200);
        let (again, _) = world.keyed(A, "r", [4; 32], right(), NOW + 9).await.unwrap();
        assert_eq!(again, right_reply);
        for key in ["", "a b", "ä", &"k".repeat(65)] {
            let refused = world.keyed(A, key, [5; 32], asked(), NOW).await;
            assert_eq!(code_of(&refused), "idempotency_key");
        }
        world.keyed(A, &"k".repeat(64), [5; 32], asked(), NOW).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_request_that_is_sent_twenty_times_at_once_is_done_once() {
    on_both(async |store| {
        let world = World::new(store);
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..20 {
            let world = world.clone();
            let asked = Change::Register(request(A, NUMBER, 10, NOW));
            tasks.spawn(async move { world.keyed(A, "k", [1; 32], asked, NOW).await.unwrap() });
        }
        let replies = tasks.join_all().await;
        assert!(replies.iter().all(|(reply, _)| *reply == replies[0].0));
        assert_eq!(replies.iter().filter(|(_, outgoing)| outgoing.is_some()).count(), 1);
        assert_eq!(world.count("registrations").await, 1);
    })
    .await;
}

#[tokio::test]
async fn no_consent_from_before_a_withdrawal_counts() {
    on_both(async |store| {
        let world = World::new(store);
        let (id, _) = world.proved(A, request(A, NUMBER, 10, NOW - 100), NOW).await;
        // Asked for before, after, and with the very time of the withdrawal.
        let (before, code) = world.register(B, request(B, NUMBER, 10, NOW + 50), NOW + 50).await;
        world.withdraw(A, &id, NOW + 50).await.unwrap();
        assert_eq!(world.state(A, &id, NOW).await, State::Withdrawn);
        let late = world.enter(B, &before, &code, NOW + 60).await;
        assert_eq!(code_of(&late), "consent_old");
        assert_eq!(code_of(&world.enter(B, &before, &code, NOW + 61).await), "failed");
        let (after, code) = world.register(A, request(A, NUMBER, 10, NOW + 51), NOW + 70).await;
        assert_eq!(code_of(&world.enter(A, &after, &code, NOW + 80).await), "ok");
    })
    .await;
}

/// An application provider learns nothing of registrations elsewhere.
#[tokio::test]
async fn a_reply_does_not_depend_on_registrations_elsewhere() {
    on_both(async |store| {
        let world = World::new(store);
        let (id, _) = world.proved(A, request(A, &number(1), 10, NOW), NOW).await;
        world.withdraw(A, &id, NOW).await.unwrap();
        world.proved(A, request(A, &number(2), 10, NOW), NOW).await;
        let mut replies = Vec::new();
        for at in 1..=3 {
            let asked = request(B, &number(at), 11, NOW);
            let (reply, _) = world.post(B, Change::Register(asked), NOW + 1).await.unwrap();
            let mut body = json(&reply);
            body["id"] = Value::Null;
            replies.push((reply.status, body.to_string(), reply.retry_after));
        }
        assert!(replies.iter().all(|reply| *reply == replies[0]), "{replies:?}");
    })
    .await;
}

#[tokio::test]
async fn nothing_is_vouched_for_by_an_expired_directory() {
    on_both(async |store| {
        let world = World::new(store);
        let last = NOW + 20 * DAY - 1;
        let (id, code) = world.register(A, request(A, NUMBER, 10, last), last).await;
        let expired = world.enter(A, &id, &code, last + 1).await.err().unwrap();
        assert_eq!((expired.status, expired.code), (503, "directory_expired"));
        assert!(expired.retry_after.is_some());
        world.renew(NOW + 20 * DAY);
        assert_eq!(code_of(&world.enter(A, &id, &code, NOW + 20 * DAY).await), "ok");
        // Another key than the directory's signs nothing.
        let settings = Settings { signing_key: key(50), ..settings() };
        let world = World::with(world.core.store().clone(), settings, |_| {});
        let asked = Change::Register(request(A, &number(3), 10, NOW));
        let refused = world.keyed(A, "other", [1; 32], asked, NOW).await;
        assert_eq!(code_of(&refused), "issuer_key");
    })
    .await;
}

#[tokio::test]
async fn heartbeats_are_bounded() {
    on_both(async |store| {
        let world = World::new(store);
        let (id, _) = world.proved(A, request(A, NUMBER, 10, NOW), NOW).await;
        let mut ids: Vec<String> = (1..10_000).map(|at| format!("id-{at}")).collect();
        ids.push(id);
        let beat = Change::Heartbeats(Heartbeats { ids: ids.clone() });
        let (reply, _) = world.post(A, beat, NOW + 1).await.unwrap();
        assert_eq!(json(&reply)["noted"].as_u64(), Some(1));
        ids.push("one more".into());
        let beat = Change::Heartbeats(Heartbeats { ids });
        assert_eq!(code_of(&world.post(A, beat, NOW + 1).await), "too_many_ids");
    })
    .await;
}
