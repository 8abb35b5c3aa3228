//! Each package once, expired ones never, the last resort only when there is nothing else: on
//! SQLite and on PostgreSQL, a hundred at once, and through a crash of the database.

use std::collections::HashSet;

use crate::registrar::postgres::{Postgres, both};
use crate::registrar::store::Failed;
use tokio::task::JoinSet;

use super::*;
use crate::discovery::keys::mimi::KeyMaterialUserCode as Code;
use crate::registrar::keys::store::{MIGRATIONS, Stock, purge, remove_user, stocks};

/// The code of a refusal.
#[track_caller]
fn code_of<T>(refused: Result<T, Failed>) -> &'static str {
    match refused {
        Err(Failed::Refused(problem)) => problem.code,
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("it was accepted"),
    }
}

/// Claims at once by so many requesters; those that had an answer.
async fn claim_at_once(store: &Store, target: &Ssi, count: usize, name: &str) -> Vec<Vec<u8>> {
    let mut claims = JoinSet::new();
    for at in 0..count {
        let (store, asked) = (store.clone(), asked(&format!("{name}{at}"), target));
        claims.spawn(async move { claim(&store, &asked, now()).await });
    }
    let mut given = Vec::new();
    while let Some(claimed) = claims.join_next().await {
        if let Ok(Claimed::Answered { clients, .. }) = claimed.unwrap() {
            given.extend(packages_of(clients).into_iter().map(|(bytes, _)| bytes));
        }
    }
    given
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_hundred_claimers_of_one_user_get_distinct_packages() {
    both(MIGRATIONS, async |store: Store| {
        let bob = Person::new("bob", &["phone"]);
        bob.store(&store, Policy::All, 100).await;
        let given = claim_at_once(&store, &bob.ssi, 100, "r").await;
        assert_eq!(given.len(), 100);
        assert_eq!(given.iter().collect::<HashSet<_>>().len(), 100);
        let (code, rest) = claimed(&store, &asked("late", &bob.ssi), now()).await;
        assert_eq!((code, rest.len()), (Code::NoCompatibleMaterial, 0));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_crash_of_the_database_gives_no_package_twice() {
    let Some(server) = Postgres::start() else { return };
    let store = Store::open(&server.database(), 16, MIGRATIONS).await.unwrap();
    let bob = Person::new("bob", &["phone"]);
    bob.store(&store, Policy::All, 100).await;
    let mut claims = JoinSet::new();
    for at in 0..100 {
        let (store, asked) = (store.clone(), asked(&format!("r{at}"), &bob.ssi));
        claims.spawn(async move { claim(&store, &asked, now()).await });
    }
    let mut given = Vec::new();
    while let Some(claimed) = claims.join_next().await {
        if let Ok(Claimed::Answered { clients, .. }) = claimed.unwrap() {
            given.extend(packages_of(clients).into_iter().map(|(bytes, _)| bytes));
        }
        // In the middle of the others.
        if given.len() == 10 {
            server.kill();
        }
    }
    assert!(given.len() >= 10);
    server.resume();
    loop {
        let before = given.len();
        given.extend(claim_at_once(&store, &bob.ssi, 50, &format!("again{before}")).await);
        // Connections that the crash has broken are found out one by one.
        if given.len() == before && claim(&store, &asked("last", &bob.ssi), now()).await.is_ok() {
            break;
        }
    }
    assert_eq!(given.iter().collect::<HashSet<_>>().len(), given.len());
    assert!(given.len() <= 100);
}

#[tokio::test]
async fn a_claim_that_is_dropped_gives_no_package_twice() {
    both(MIGRATIONS, async |store: Store| {
        let bob = Person::new("bob", &["phone"]);
        bob.store(&store, Policy::All, 20).await;
        let mut given = Vec::new();
        for at in 0..60_usize {
            let asked = asked(&format!("r{at}"), &bob.ssi);
            let claim = claim(&store, &asked, now());
            // Drops the claim after so many times that it was woken.
            let mut claim = std::pin::pin!(claim);
            for _ in 0..at % 30 {
                let polled = std::future::poll_fn(|context| {
                    std::task::Poll::Ready(claim.as_mut().poll(context))
                });
                if let std::task::Poll::Ready(claimed) = polled.await {
                    if let Ok(Claimed::Answered { clients, .. }) = claimed {
                        given.extend(packages_of(clients));
                    }
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        given.extend(
            claim_at_once(&store, &bob.ssi, 30, "end")
                .await
                .into_iter()
                .map(|bytes| (bytes, false)),
        );
        let distinct: HashSet<_> = given.iter().map(|(bytes, _)| bytes).collect();
        assert_eq!(distinct.len(), given.len());
        assert!(!given.is_empty() && given.len() <= 20);
    })
    .await;
}

#[tokio::test]
async fn expired_packages_are_not_given_and_the_last_resort_comes_last() {
    both(MIGRATIONS, async |store: Store| {
        let bob = Person::new("bob", &["phone", "tablet"]);
        set_user(&store, &bob.settings(1, Policy::All), now()).await.unwrap();
        let valid = |package| Package::validate(package, now()).unwrap();
        let short = valid(bob.package(0, 1, false));
        let long = valid(bob.package(0, 20, false));
        let last = valid(bob.package(0, 40, true));
        let all = [last.clone(), long.clone(), short.clone()];
        let phone = (&bob.ssi, "phone");
        let stock = put_packages(&store, phone, &all, now()).await.unwrap();
        assert_eq!(stock, Stock { available: 2, taken: 0 });
        // The one that expires first comes first; the tablet has none.
        let ask = |name: &str| asked(name, &bob.ssi);
        let (code, given) = claimed(&store, &ask("1"), now()).await;
        assert_eq!(code, Code::PartialSuccess);
        assert!(given == [(short.bytes.clone(), false)]);
        let later = now() + 21 * DAY;
        for name in ["2", "3"] {
            let (code, given) = claimed(&store, &ask(name), later).await;
            assert_eq!(code, Code::PartialSuccess);
            assert!(given == [(last.bytes.clone(), true)], "the other one has expired");
        }
        let (_, given) = claimed(&store, &ask("4"), now()).await;
        assert!(given == [(long.bytes.clone(), false)]);
        let (code, given) = claimed(&store, &ask("5"), now() + 41 * DAY).await;
        assert_eq!((code, given.len()), (Code::NoCompatibleMaterial, 0));
        // What was given out cannot come back, until it has expired anyway.
        let stock = put_packages(&store, phone, &all, now()).await.unwrap();
        assert_eq!(stock, Stock { available: 0, taken: 2 });
        assert_eq!(purge(&store, later).await.unwrap(), 2);
        assert_eq!(purge(&store, later).await.unwrap(), 0);
        assert_eq!(
            Package::validate(bob.package(0, 1, false), later).err().unwrap(),
            crate::discovery::keys::packages::PackageError::Lifetime
        );
    })
    .await;
}

#[tokio::test]
async fn what_is_not_the_clients_own_is_refused() {
    both(MIGRATIONS, async |store: Store| {
        let bob = Person::new("bob", &["phone", "tablet"]);
        bob.store(&store, Policy::All, 2).await;
        let eve = Person::new("eve", &["phone"]);
        eve.store(&store, Policy::All, 1).await;
        let valid = |package| Package::validate(package, now()).unwrap();
        let put = async |person: &Person, client: &str, packages: &[Package]| {
            put_packages(&store, (&person.ssi, client), packages, now()).await
        };
        let mine = valid(bob.package(0, 5, false));
        let last = [valid(bob.package(0, 5, true)), valid(bob.package(0, 6, true))];
        assert_eq!(code_of(put(&bob, "phone", &[mine.clone(), mine.clone()]).await), "key_package");
        assert_eq!(code_of(put(&bob, "phone", &last).await), "key_package");
        assert_eq!(code_of(put(&bob, "tablet", std::slice::from_ref(&mine)).await), "key_package");
        assert_eq!(
            code_of(put(&bob, "watch", std::slice::from_ref(&mine)).await),
            "unknown_client"
        );
        let nobody = Person::new("nobody", &["phone"]);
        assert_eq!(
            code_of(put(&nobody, "phone", std::slice::from_ref(&mine)).await),
            "unknown_client"
        );
        let foreign = valid(eve.package_of(bob.ssi.as_str(), 0, 5, false));
        assert_eq!(code_of(put(&bob, "phone", &[foreign]).await), "key_package");
        let named = valid(bob.package_of(eve.ssi.as_str(), 0, 5, false));
        assert_eq!(code_of(put(&bob, "phone", &[named]).await), "key_package");
        // Nothing was changed by what was refused.
        let left = stocks(&store, &bob.ssi, now()).await.unwrap();
        assert_eq!(left, [("phone".to_owned(), 2), ("tablet".to_owned(), 2)]);
        // A client's new key ends its packages; the other client's stay.
        let mut renewed = Person::new("bob", &["phone", "tablet"]);
        renewed.uk = bob.uk.clone();
        renewed.clients.pop();
        let mut kept = bob.clients;
        renewed.clients.push(kept.pop().unwrap());
        set_user(&store, &renewed.settings(2, Policy::All), now()).await.unwrap();
        let left = stocks(&store, &renewed.ssi, now()).await.unwrap();
        assert_eq!(left, [("phone".to_owned(), 0), ("tablet".to_owned(), 2)]);
        assert_eq!(code_of(put(&renewed, "phone", &[mine]).await), "key_package");
    })
    .await;
}

#[tokio::test]
async fn an_older_list_is_not_taken() {
    both(MIGRATIONS, async |store: Store| {
        let bob = Person::new("bob", &["phone"]);
        let (old, new) = (bob.settings(4, Policy::All), bob.settings(5, Policy::All));
        set_user(&store, &new, now()).await.unwrap();
        assert_eq!(code_of(set_user(&store, &old, now()).await), "older_list");
        let mut other = bob.list(5);
        other.exp += 1;
        let other =
            Settings { text: other.sign(&bob.uk), list: other, ..bob.settings(5, Policy::All) };
        assert_eq!(code_of(set_user(&store, &other, now()).await), "older_list");
        // The same list again changes the policy.
        let same = Settings {
            policy: Policy::None,
            text: new.text.clone(),
            ..bob.settings(5, Policy::None)
        };
        set_user(&store, &same, now()).await.unwrap();
        // A new key of the user begins again.
        let again = Person::new("bob", &["phone"]);
        set_user(&store, &again.settings(1, Policy::All), now()).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_requester_has_a_hundred_claims_an_hour() {
    both(MIGRATIONS, async |store: Store| {
        let bob = Person::new("bob", &["phone"]);
        bob.store(&store, Policy::None, 0).await;
        let hour = (now() / 3_600 + 1) * 3_600;
        let ask = asked("alice", &bob.ssi);
        for _ in 0..100 {
            let (code, _) = claimed(&store, &ask, hour + 10).await;
            assert_eq!(code, Code::NoConsent);
        }
        let limited = claim(&store, &ask, hour + 600).await.unwrap();
        assert!(matches!(limited, Claimed::Limited { seconds: 3_000 }));
        claimed(&store, &asked("carol", &bob.ssi), hour + 600).await;
        claimed(&store, &ask, hour + 3_600).await;
        // Old numbers are removed.
        purge(&store, hour + 3 * 3_600).await.unwrap();
        let row = sqlx::query("SELECT COUNT(*) FROM key_limits").fetch_one(store.pool()).await;
        assert_eq!(sqlx::Row::get::<i64, _>(&row.unwrap(), 0), 0);
    })
    .await;
}

#[tokio::test]
async fn a_removed_user_is_gone_and_no_package_comes_back() {
    both(MIGRATIONS, async |store: Store| {
        let bob = Person::new("bob", &["phone"]);
        set_user(&store, &bob.settings(1, Policy::All), now()).await.unwrap();
        let packages = bob.packages(0, 2);
        let phone = (&bob.ssi, "phone");
        put_packages(&store, phone, &packages, now()).await.unwrap();
        let (_, given) = claimed(&store, &asked("alice", &bob.ssi), now()).await;
        remove_user(&store, &bob.ssi).await.unwrap();
        let (code, _) = claimed(&store, &asked("alice", &bob.ssi), now()).await;
        assert_eq!(code, Code::NoConsent);
        set_user(&store, &bob.settings(1, Policy::All), now()).await.unwrap();
        let used = packages.iter().find(|package| package.bytes == given[0].0).unwrap().clone();
        let other = packages.iter().find(|package| package.bytes != given[0].0).unwrap().clone();
        assert_eq!(code_of(put_packages(&store, phone, &[used], now()).await), "used_package");
        put_packages(&store, phone, &[other], now()).await.unwrap();
    })
    .await;
}
