//! The feed: what is in it, that it is the same each time, and that it cannot be cut or forged.

use crate::discovery::statement::Preference;

use super::*;
use crate::registrar::registrations::feed::FEED_TYP;
use crate::registrar::registrations::{FeedError, Fold};

fn keys(signer: u8) -> Vec<IssuerKey> {
    let validity = Validity { from: NOW - DAY, until: NOW + 4_000 * DAY };
    vec![IssuerKey { key: Key::from(key(signer).verifying_key()), validity }]
}

impl World {
    async fn fold(&self) -> Fold {
        let mut fold = Fold::new(ISS, keys(1));
        for seq in 1..=self.core.last_batch().await.unwrap() {
            fold.read(&self.core.batch(seq).await.unwrap().unwrap()[..]).unwrap();
        }
        fold
    }

    async fn prefer(&self, ap: &str, user: u8, ssi: Option<&str>, time: u64) -> (String, Changed) {
        let sub = Identifier::from_uri(NUMBER).unwrap();
        let ssi = ssi.map(|ssi| Ssi::parse(ssi).unwrap());
        let line = Preference::new(sub, ssi, time, &key(user)).to_line();
        let change = Change::Prefer(NewPreference { statement: line.clone() });
        (line, self.post(ap, change, NOW).await)
    }
}

fn lines(batch: &[u8]) -> Vec<String> {
    text(batch).lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn the_feed_follows_what_is_in_force() {
    on_both(async |store| {
        let world = World::new(store);
        assert_eq!(world.core.close_batch(NOW).await.unwrap(), None);
        assert_eq!(world.core.last_batch().await.unwrap(), 0);
        assert_eq!(world.core.batch(1).await.unwrap(), None);
        let (a, a_line) = world.proved(A, request(A, &number(1), 10, NOW), NOW).await;
        let (b, b_line) = world.proved(A, request(A, &number(2), 10, NOW), NOW).await;
        // What came and went in between is in no batch; nor is what is not proved.
        let (c, _) = world.proved(A, request(A, &number(3), 10, NOW), NOW).await;
        world.withdraw(A, &c, NOW + 1).await.unwrap();
        world.register(A, request(A, &number(4), 10, NOW), NOW).await;
        assert_eq!(world.core.close_batch(NOW + 2).await.unwrap(), Some(1));
        assert_eq!(world.core.close_batch(NOW + 2).await.unwrap(), None);
        let fold = world.fold().await;
        let mut expected = vec![a_line.as_str(), b_line.as_str()];
        expected.sort_by_key(|line| if *line == a_line { &a } else { &b });
        assert_eq!(fold.statements().collect::<Vec<_>>(), expected);

        world.withdraw(A, &a, NOW + 3).await.unwrap();
        world.core.sweep(NOW + 30 * DAY).await.unwrap();
        assert_eq!(world.core.close_batch(NOW + 30 * DAY).await.unwrap(), Some(2));
        let removed = lines(&world.core.batch(2).await.unwrap().unwrap());
        let mut found = removed[1..].to_vec();
        found.sort();
        let mut expected = [&a, &b].map(|id| format!(r#"{{"remove":"{id}"}}"#));
        expected.sort();
        assert_eq!(found, expected);
        assert_eq!(world.fold().await.statements().count(), 0);
        // Back from stale, and stale again before a batch: nothing.
        world.heartbeat(A, &b, NOW + 31 * DAY).await;
        assert_eq!(world.core.close_batch(NOW + 31 * DAY).await.unwrap(), Some(3));
        assert_eq!(world.fold().await.statements().collect::<Vec<_>>(), [b_line.as_str()]);
        world.core.sweep(NOW + 61 * DAY).await.unwrap();
        assert_eq!(world.state(A, &b, NOW).await, State::Stale);
        world.heartbeat(A, &b, NOW + 61 * DAY).await;
        assert_eq!(world.core.close_batch(NOW + 61 * DAY).await.unwrap(), None);
        assert_eq!(world.fold().await.seq(), 3);
    })
    .await;
}

#[tokio::test]
async fn a_batch_is_the_same_each_time_until_a_line_is_erased() {
    on_both(async |store| {
        let world = World::new(store);
        let mut ids = Vec::new();
        for at in 0..3 {
            ids.push(world.proved(A, request(A, &number(at), 10, NOW), NOW).await.0);
        }
        world.core.close_batch(NOW).await.unwrap();
        let first = world.core.batch(1).await.unwrap().unwrap();
        world.withdraw(A, &ids[0], NOW + 1).await.unwrap();
        world.core.close_batch(NOW + 2).await.unwrap();
        assert_eq!(world.core.batch(1).await.unwrap().unwrap(), first);
        world.core.purge(NOW + DAY).await.unwrap();
        let erased = world.core.batch(1).await.unwrap().unwrap();
        let (before, after) = (lines(&first), lines(&erased));
        assert_eq!(before.len(), after.len());
        let changed: Vec<usize> = (0..before.len()).filter(|&at| before[at] != after[at]).collect();
        let [at] = changed[..] else { panic!("{changed:?}") };
        use sha2::Digest as _;
        let digest = base64url(&sha2::Sha256::digest(before[at].as_bytes()));
        assert_eq!(after[at], format!(r#"{{"erased":"{digest}"}}"#));
        assert_eq!(world.fold().await.statements().count(), 2);
    })
    .await;
}

#[tokio::test]
async fn a_batch_that_was_changed_does_not_count() {
    on_both(async |store| {
        let world = World::new(store);
        for at in 0..2 {
            world.proved(A, request(A, &number(at), 10, NOW), NOW).await;
        }
        world.core.close_batch(NOW).await.unwrap();
        let (id, _) = world.proved(A, request(A, &number(5), 10, NOW), NOW).await;
        world.core.close_batch(NOW).await.unwrap();
        world.withdraw(A, &id, NOW).await.unwrap();
        world.core.close_batch(NOW).await.unwrap();
        let mut batches = Vec::new();
        for seq in 1..=3 {
            batches.push(world.core.batch(seq).await.unwrap().unwrap());
        }
        let read = |batch: &[u8]| Fold::new(ISS, keys(1)).read(batch);
        assert!(read(&batches[0]).is_ok());
        // Cut at each byte, and each line left out, doubled or changed.
        for end in 0..batches[0].len() {
            let error = read(&batches[0][..end]).err().unwrap();
            assert_clean(&format!("{error} {error:?}"));
        }
        let found = lines(&batches[0]);
        let join = |lines: &[String]| format!("{}\n", lines.join("\n")).into_bytes();
        let without = [&found[..1], &found[2..]].concat();
        assert!(matches!(read(&join(&without)), Err(FeedError::Count { found: 1, expected: 2 })));
        let doubled = [&found[..], &found[2..]].concat();
        assert!(matches!(read(&join(&doubled)), Err(FeedError::Count { .. })));
        let swapped = [found[0].clone(), found[2].clone(), found[1].clone()];
        assert!(matches!(read(&join(&swapped)), Err(FeedError::Digest)));
        let removed = [found[0].clone(), found[1].clone(), r#"{"remove":"x"}"#.to_owned()];
        assert!(matches!(read(&join(&removed)), Err(FeedError::Digest)));
        let spaced = [found[0].clone(), found[1].clone(), found[2].replace("\":\"", "\": \"")];
        assert!(matches!(read(&join(&spaced)), Err(FeedError::Line(3))));
        let mut forged = batches[0].clone();
        forged[found[0].len() - 5] ^= 1;
        assert!(read(&forged).is_err());

        // In order, each once, and of one chain.
        let mut fold = Fold::new(ISS, keys(1));
        let sequence = fold.read(&batches[1][..]);
        assert!(matches!(sequence, Err(FeedError::Sequence { found: 2, expected: 1 })));
        fold.read(&batches[0][..]).unwrap();
        assert!(fold.read(&batches[0][..]).is_err());
        let payload = |previous: &str| {
            let sha256 = base64url(&<sha2::Sha256 as sha2::Digest>::digest(b""));
            let claims = serde_json::json!({
                "iss": ISS, "seq": 2, "previous": previous, "count": 0, "sha256": sha256, "iat": NOW
            });
            claims.to_string().into_bytes()
        };
        let other = format!("{}\n", jws::sign(FEED_TYP, &payload("AAAA"), &key(1)));
        assert!(matches!(fold.read(other.as_bytes()), Err(FeedError::Previous)));
        fold.read(&batches[1][..]).unwrap();
        fold.read(&batches[2][..]).unwrap();
        assert_eq!((fold.seq(), fold.statements().count()), (3, 2));

        // By another key, or in another's name.
        assert!(matches!(Fold::new(ISS, keys(2)).read(&batches[0][..]), Err(FeedError::Key)));
        let other = Fold::new(OTHER, keys(1)).read(&batches[0][..]);
        assert!(matches!(other, Err(FeedError::Issuer(_))));
    })
    .await;
}

#[tokio::test]
async fn two_who_close_batches_at_once_make_one_chain() {
    on_both(async |store| {
        let world = World::new(store);
        for at in 0..6 {
            world.proved(A, request(A, &number(at), 10, NOW), NOW).await;
        }
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..4 {
            let core = world.core.clone();
            tasks.spawn(async move { while core.close_batch(NOW).await.unwrap().is_some() {} });
        }
        tasks.join_all().await;
        assert_eq!(world.fold().await.statements().count(), 6);
    })
    .await;
}

#[tokio::test]
async fn a_preference_is_in_the_feed_while_its_mapping_is_in_force() {
    on_both(async |store| {
        let world = World::new(store);
        let (id, mapping) = world.proved(A, request(A, NUMBER, 10, NOW - 9), NOW).await;
        world.proved(B, request(B, &number(1), 12, NOW), NOW).await;
        let ssi = format!("mimi://{A}/u/{HANDLE}");
        let (_, refused) = world.prefer(A, 11, Some(&ssi), NOW).await;
        assert_eq!(code_of(&refused), "preference_key");
        // Another provider learns nothing of the mapping here.
        let (_, refused) = world.prefer(B, 10, Some(&ssi), NOW).await;
        assert_eq!(code_of(&refused), "preference_key");
        let (_, future) = world.prefer(A, 10, Some(&ssi), NOW + 301).await;
        assert_eq!(code_of(&future), "future");
        let (first, done) = world.prefer(A, 10, Some(&ssi), NOW - 5).await;
        assert_eq!(code_of(&done), "ok");
        world.core.close_batch(NOW).await.unwrap();
        let has = async |line: &str| world.fold().await.statements().any(|found| found == line);
        assert!(has(&first).await && has(&mapping).await);
        assert_eq!(code_of(&world.prefer(A, 10, None, NOW - 5).await.1), "preference_old");
        assert_eq!(code_of(&world.prefer(A, 10, Some(&ssi), NOW - 5).await.1), "ok");
        let (second, _) = world.prefer(A, 10, None, NOW - 4).await;
        world.core.close_batch(NOW).await.unwrap();
        assert!(!has(&first).await && has(&second).await);
        // It goes over to a new mapping of the same key, and ends with that of another.
        let (renewed, _) = world.proved(A, request(A, NUMBER, 10, NOW), NOW).await;
        assert_eq!(world.state(A, &id, NOW).await, State::Superseded);
        world.core.close_batch(NOW).await.unwrap();
        assert!(has(&second).await);
        world.proved(A, request(A, NUMBER, 13, NOW + 2), NOW + 2).await;
        assert_eq!(world.state(A, &renewed, NOW).await, State::Superseded);
        world.core.close_batch(NOW).await.unwrap();
        assert!(!has(&second).await);
        world.core.purge(NOW + DAY).await.unwrap();
        assert_eq!(world.count("preferences").await, 0);
    })
    .await;
}
