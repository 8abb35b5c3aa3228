//! What is over is erased: no identifier, handle or code stays in any table.

use crate::discovery::statement::Preference;
use crate::registrar::store::transaction;

use super::*;
use crate::limits::registrar::ERASE_SECONDS;

const SECRETS: [&str; 3] = ["15112345678", HANDLE, "grace"];

#[tokio::test]
async fn what_is_over_leaves_no_identifier() {
    on_both(async |store| {
        let world = World::new(store);
        let (first, _) = world.proved(A, request(A, NUMBER, 10, NOW), NOW).await;
        let sub = Identifier::from_uri(NUMBER).unwrap();
        let ssi = Ssi::new(A, "grace").unwrap();
        let statement = Preference::new(sub, Some(ssi), NOW, &key(10)).to_line();
        let change = Change::Prefer(NewPreference { statement });
        world.post(A, change, NOW).await.unwrap();
        world.core.close_batch(NOW + 1).await.unwrap();
        // A new holder, whose event nobody acknowledges; a failed and an expired request.
        let new = NewRegistration { new_holder: true, ..request(B, NUMBER, 20, NOW + 2) };
        let (second, _) = world.proved(B, new, NOW + 2).await;
        let (failed, code) = world.register(A, request(A, NUMBER, 10, NOW), NOW + 3).await;
        for _ in 0..5 {
            world.enter(A, &failed, another(&code), NOW + 4).await.unwrap();
        }
        let (pending, code) = world.register(A, request(A, &number(9), 10, NOW), NOW + 4).await;
        // The search finds what is there, and no code even then.
        let dump = world.dump().await;
        for secret in SECRETS {
            assert!(dump.contains(secret), "{secret}");
        }
        assert!(!dump.lines().any(|line| line == code), "a code is stored");
        world.core.sweep(NOW + 700).await.unwrap();
        assert_eq!(world.state(A, &pending, NOW + 700).await, State::Expired);
        world.withdraw(B, &second, NOW + 800).await.unwrap();

        // Not a second too early, and then all of it, though nobody closed a batch.
        let at = NOW + 2 + ERASE_SECONDS;
        world.core.purge(at - 1).await.unwrap();
        assert_eq!(world.state(A, &first, at).await, State::Voided);
        let purged = world.core.purge(at).await.unwrap();
        assert_eq!(purged.registrations, 1);
        let gone = world.core.show(&Caller { ap: A }, &first, at).await.err().unwrap();
        assert_eq!(gone.status, 404);
        world.core.purge(NOW + 800 + DAY).await.unwrap();
        let dump = world.dump().await;
        for secret in SECRETS {
            assert!(!dump.contains(secret), "{secret}");
        }
        for table in ["registrations", "preferences", "events", "replies", "siis"] {
            assert_eq!(world.count(table).await, 0, "{table}");
        }
        // HMAC, state and time stay for 45 days: those of the new holder and of the withdrawal.
        assert_eq!(world.count("tombstones").await, 2);
        world.core.purge(NOW + 800 + 45 * DAY - 1).await.unwrap();
        assert_eq!(world.count("tombstones").await, 1);
        world.core.purge(NOW + 800 + 45 * DAY).await.unwrap();
        assert_eq!(world.count("tombstones").await, 0);
        // Whoever read the feed before is told that all of it is removed.
        let keys = directory(NOW, |_| {}).issuer_of(ISS).unwrap().keys.clone();
        let mut fold = crate::registrar::registrations::Fold::new(ISS, keys);
        for seq in 1..=world.core.last_batch().await.unwrap() {
            fold.read(&world.core.batch(seq).await.unwrap().unwrap()[..]).unwrap();
        }
        assert_eq!(fold.statements().count(), 0);
        assert!(fold.seq() >= 2);
    })
    .await;
}

#[tokio::test]
async fn what_is_in_force_stays_however_often_it_is_purged() {
    on_both(async |store| {
        let world = World::new(store);
        let (id, _) = world.proved(A, request(A, NUMBER, 10, NOW), NOW).await;
        world.core.close_batch(NOW).await.unwrap();
        for day in 1..30 {
            world.core.sweep(NOW + day * DAY).await.unwrap();
            world.core.purge(NOW + day * DAY).await.unwrap();
        }
        assert_eq!(world.state(A, &id, NOW).await, State::Active);
        assert_eq!(world.count("registrations").await, 1);
        assert_eq!(world.count("replies").await, 0);
    })
    .await;
}

/// More rows than one transaction takes.
#[tokio::test]
async fn many_are_swept_and_erased_in_parts() {
    on_both(async |store| {
        let world = World::new(store);
        let insert = "INSERT INTO registrations
            (id, ap, sii_mac, region, purpose, claims, state, since, due_at, iat, exp, code_mac,
             code_expires_at, tries_left, resend_at)
            VALUES ($1, 'a.example', $1, '', 0, 'claims', 0, $2, $2, $2, $2, 'mac', $2, 5, $2)";
        let at = i64::try_from(NOW).unwrap();
        let written = transaction!(world.core.store(), |db| {
            for row in 0..1_100 {
                sqlx::query(insert).bind(format!("id-{row}")).bind(at).execute(&mut *db).await?;
            }
            Ok(())
        });
        written.await.unwrap();
        assert_eq!(world.core.sweep(NOW).await.unwrap().expired, 1_100);
        let purged = world.core.purge(NOW + ERASE_SECONDS - 1).await.unwrap();
        assert_eq!(purged.registrations, 0);
        let purged = world.core.purge(NOW + ERASE_SECONDS).await.unwrap();
        assert_eq!(purged.registrations, 1_100);
    })
    .await;
}
