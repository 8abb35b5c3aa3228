//! The resolver of a device against a relay in the same process: what comes out, and what an
//! observer sees.
//!
//! Here the relay and its front-end follow a script (`world`). With real relays, front-ends and
//! answer servers (`estate`): what every link shows (`recorded`), parties that are killed
//! (`killed`), parties that misbehave (`peers`), and what one account gets in a year (`scraper`).

#![allow(clippy::unwrap_used)]

mod estate;
mod filters;
#[path = "../harness/mod.rs"]
mod harness;
mod killed;
mod links;
mod log;
mod openly;
mod peers;
mod recorded;
mod scraper;
mod world;

use std::collections::{HashMap, HashSet};

use world::*;

use sotto::client::ParameterError;
use sotto::discovery::blind::{BlindError, BlindKey};
use sotto::discovery::directory::{Content, DirectoryError};
use sotto::discovery::identifier::Identifier;
use sotto::discovery::resolver::{
    Finding, Options, Progress, Report, ResolveError, Resolver, StateError,
};
use sotto::discovery::sealed::SealedError;
use sotto::discovery::sealed::capsule::InnerResponse;
use sotto::wire::Status;
use zeroize::Zeroizing;

fn contacts(range: std::ops::Range<u64>) -> Vec<Identifier> {
    range.map(number).collect()
}

async fn sync(resolver: &mut Resolver, contacts: &[Identifier]) -> Result<Report, ResolveError> {
    resolver.sync(contacts, |_| {}).await
}

fn found_handle(resolver: &Resolver, contact: &Identifier, now: u64) -> Option<String> {
    let contact = resolver.contact(contact)?.contact(now)?;
    Some(contact.services[0].ssi.as_ref()?.as_str().to_owned())
}

fn finding<'a>(resolver: &'a Resolver, contact: &Identifier, database: &str) -> &'a Finding {
    &resolver.contact(contact).unwrap().answers[database].finding
}

fn sealed_count(seen: &[Seen], path: &str) -> usize {
    seen.iter().filter(|seen| seen.path == path).count()
}

/// Shards of each look-up, in an order of their own.
fn shard_sets(seen: &[Seen]) -> Vec<(String, Vec<u32>)> {
    let mut sets: Vec<_> =
        lookups(seen).into_iter().map(|(path, lookup)| (path, lookup.shards())).collect();
    sets.sort();
    sets
}

fn address() -> Identifier {
    Identifier::parse("bob@example.com", None).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn contacts_are_found_absent_and_asked_again_at_their_time() {
    let relay = Relay::start().await;
    let folder = tempfile::tempdir().unwrap();
    let mut resolver = relay.resolver(&folder).await;
    let mut all = contacts(0..20);
    all.extend(contacts(9_000..9_005));
    all.extend([other_number(3), other_number(9_000), address()]);
    let mut steps = Vec::new();
    let report = resolver.sync(&all, |step| steps.push(step)).await.unwrap();
    assert_eq!((report.found, report.absent, report.invalid), (22, 7, 0));
    assert_eq!((report.evaluated, report.batches, report.batches_left), (26, 3, 0));
    assert_eq!(report.dummies, 3 * 16 - 29);
    assert!(report.refused.is_empty() && report.failed.is_empty());
    assert_eq!((report.directory_version, report.epochs.len()), (5, 2));
    assert_eq!(steps.last(), Some(&Progress::LookedUp { done: 3, total: 3 }));
    for contact in contacts(0..20).iter().chain([&other_number(3), &address()]) {
        let expected = format!("mimi://a.example/u/{}", handle(contact));
        assert_eq!(found_handle(&resolver, contact, now()), Some(expected));
    }
    assert_eq!(finding(&resolver, &number(9_000), ONE), &Finding::Absent);
    assert_eq!(finding(&resolver, &other_number(9_000), TWO), &Finding::Absent);
    // An address is asked for in both.
    assert_eq!(finding(&resolver, &address(), ONE), &Finding::Absent);

    let first = relay.take_seen();
    check_once_only(&first);
    assert_eq!((sealed_count(&first, "/evaluate"), sealed_count(&first, "/lookup")), (2, 3));
    let bytes: usize = first.iter().map(|seen| seen.bytes).sum();
    assert_eq!((report.bytes_up, report.requests), (bytes as u64, first.len() as u64));
    for seen in &first {
        let is_sealed = matches!(&*seen.path, "/evaluate" | "/lookup");
        assert_eq!(seen.authorization.is_some(), is_sealed, "{}", seen.path);
    }
    for (path, lookup) in lookups(&first) {
        let distinct: HashSet<u32> = lookup.shards().into_iter().collect();
        assert!(lookup.want_hints);
        match &*path {
            "/databases/one/lookup" => assert_eq!((lookup.bundles.len(), distinct.len()), (1, 16)),
            _ => assert_eq!(lookup.bundles.len(), 16),
        }
    }

    // Nothing is due, and what everybody may read did not change.
    let report = sync(&mut resolver, &all).await.unwrap();
    assert_eq!((report.lookups, report.evaluations, report.batches), (0, 0, 0));
    assert!(report.bytes_down < 2_000, "{}", report.bytes_down);
    relay.take_seen();

    // A fortnight later all is due: one is asked, and the others get times of their own.
    let due = resolver.next_due().unwrap();
    assert!((now() + 7 * DAY..now() + 14 * DAY).contains(&due));
    relay.set_now(now() + 14 * DAY);
    let report = sync(&mut resolver, &all).await.unwrap();
    assert_eq!((report.batches, report.batches_put_off, report.batches_left), (1, 2, 0));
    let (mut found, mut times) = (report.found, vec![relay.now()]);
    while let Some(due) = resolver.next_due().filter(|&due| due <= now() + 15 * DAY) {
        relay.set_now(due);
        let report = sync(&mut resolver, &all).await.unwrap();
        assert_eq!((report.batches, report.evaluated), (1, 0));
        found += report.found;
        times.push(due);
    }
    assert!((times.len(), found) == (3, 22) && times.is_sorted(), "{found} found at {times:?}");
    // The same sets, under secrets that were never used.
    let second = relay.take_seen();
    assert_eq!(shard_sets(&first), shard_sets(&second));
    let uids = |seen: &[Seen]| -> HashSet<String> {
        lookups(seen).into_iter().flat_map(|(_, lookup)| lookup.bundles).collect()
    };
    assert!(uids(&first).is_disjoint(&uids(&second)));
    check_once_only(&[first, second].concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_starts_again_goes_on() {
    let relay = Relay::start().await;
    let folder = tempfile::tempdir().unwrap();
    let mut resolver = relay.resolver(&folder).await;
    sync(&mut resolver, &contacts(0..3)).await.unwrap();
    let due = resolver.next_due();
    drop(resolver);
    relay.take_seen();

    let mut resolver = relay.resolver(&folder).await;
    assert_eq!(resolver.next_due(), due);
    assert!(found_handle(&resolver, &number(1), now()).is_some());
    assert!(resolver.resolve(&number(1)).await.unwrap().contact(now()).is_some());
    assert!(relay.take_seen().is_empty(), "a contact that is known was asked for");

    // A new one: one batch of its own.
    let resolved = resolver.resolve(&number(50)).await.unwrap();
    assert!(resolved.contact(now()).is_some());
    let report = resolver.report();
    assert_eq!((report.batches, report.evaluations, report.evaluated), (1, 1, 1));
    let seen = relay.take_seen();
    assert_eq!((sealed_count(&seen, "/lookup"), sealed_count(&seen, "/evaluate")), (1, 1));
    // The directory and the parameters were not sent again.
    let statuses = |path: &str| -> Vec<u16> {
        seen.iter().filter(|seen| seen.path == path).map(|seen| seen.status).collect()
    };
    assert_eq!(
        (statuses("/directory"), statuses("/databases/one/parameters")),
        (vec![304], vec![304])
    );

    // The file names nobody.
    drop(resolver);
    let file = std::fs::read(folder.path().join("state")).unwrap();
    let contains = |part: &[u8]| file.windows(part.len()).any(|window| window == part);
    assert!(!contains(b"1555") && !contains(b"one") && !contains(handle(&number(1)).as_bytes()));
    // What expired is not given out.
    relay.set_now(now() + 29 * DAY + DAY / 2);
    let resolver = relay.resolver(&folder).await;
    assert_eq!(found_handle(&resolver, &number(1), relay.now()), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_due_waits_for_what_is_new() {
    let relay = Relay::start().await;
    let folder = tempfile::tempdir().unwrap();
    let mut resolver = relay.resolver(&folder).await;
    sync(&mut resolver, &contacts(0..16)).await.unwrap();
    let old = shard_sets(&relay.take_seen());
    relay.set_now(now() + 14 * DAY);
    let report = sync(&mut resolver, &contacts(0..40)).await.unwrap();
    assert_eq!((report.found, report.batches, report.batches_put_off), (24, 2, 1));
    let new = shard_sets(&relay.take_seen());
    assert!(new.len() == 2 && !new.contains(&old[0]));
    let due = resolver.next_due().unwrap();
    assert!((relay.now() + 1..=relay.now() + DAY).contains(&due));
    // Its time stays, also after a restart, and then it is alone.
    drop(resolver);
    let mut resolver = relay.resolver(&folder).await;
    assert_eq!(resolver.next_due(), Some(due));
    relay.set_now(due);
    assert_eq!(sync(&mut resolver, &contacts(0..40)).await.unwrap().batches, 1);
    assert_eq!(shard_sets(&relay.take_seen()), old);
}

#[tokio::test(flavor = "multi_thread")]
async fn present_absent_and_dummies_look_the_same() {
    let mut shapes: Vec<Vec<(String, usize)>> = Vec::new();
    // Sixteen that are there, sixteen that are not, one and fifteen dummies.
    for contacts in [contacts(0..16), contacts(9_000..9_016), contacts(9_000..9_001)] {
        let relay = Relay::start().await;
        let folder = tempfile::tempdir().unwrap();
        let mut resolver = relay.resolver(&folder).await;
        sync(&mut resolver, &contacts).await.unwrap();
        relay.set_now(now() + 14 * DAY);
        sync(&mut resolver, &contacts).await.unwrap();
        let seen = relay.take_seen();
        let hints: Vec<bool> = lookups(&seen).iter().map(|(_, lookup)| lookup.want_hints).collect();
        assert_eq!(hints, [true, false]);
        shapes.push(seen.into_iter().map(|seen| (seen.path, seen.bytes)).collect());
    }
    assert_eq!(shapes[0], shapes[1]);
    assert_eq!(shapes[0], shapes[2]);
    // Nor do shards show in their length, nor whether hints are held.
    let lookups = shapes[0].iter().filter(|(path, _)| path == "/lookup");
    let lengths: Vec<usize> = lookups.map(|(_, bytes)| *bytes).collect();
    assert!(lengths.len() == 2 && lengths[0] == lengths[1], "{lengths:?}");
}

/// Runs a device through two rounds; its first answers are changed. What is seen of the second.
async fn second_round(
    change: impl FnMut(&str, &mut Vec<sotto::wire::message::PirResponse>) + Send + 'static,
) -> (Report, Vec<(String, usize)>, bool) {
    let relay = Relay::start().await;
    let folder = tempfile::tempdir().unwrap();
    let mut resolver = relay.resolver(&folder).await;
    relay.script().answers = Box::new(change);
    let report = sync(&mut resolver, &contacts(0..16)).await.unwrap();
    relay.script().answers = Box::new(|_, _| {});
    let first = relay.take_seen();
    sync(&mut resolver, &contacts(0..16)).await.unwrap();
    for contact in contacts(0..16) {
        resolver.resolve(&contact).await.unwrap();
    }
    relay.set_now(now() + 14 * DAY);
    let due = resolver.next_due().unwrap();
    assert!((now() + 7 * DAY..now() + 14 * DAY).contains(&due));
    sync(&mut resolver, &contacts(0..16)).await.unwrap();
    let second = relay.take_seen();
    let is_same_set = shard_sets(&first) == shard_sets(&second);
    check_once_only(&[first, second.clone()].concat());
    (report, second.into_iter().map(|seen| (seen.path, seen.bytes)).collect(), is_same_set)
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_is_sent_depends_on_an_outcome() {
    let (found, after_found, same) = second_round(|_, _| {}).await;
    assert_eq!((found.found, same), (16, true));
    // Every answer is changed, so that none can be believed.
    let (invalid, after_invalid, same) = second_round(|_, answers| {
        answers.iter_mut().for_each(|answer| answer.encrypted_response[0].fill(0x5a));
    })
    .await;
    assert_eq!((invalid.found, invalid.invalid, same), (0, 16, true));
    assert_eq!(after_found, after_invalid);
    // Answers that fail: their time is the next one, too.
    let (failed, after_failed, same) = second_round(|_, answers| {
        answers.iter_mut().for_each(|answer| answer.response_status = Status::Malformed.code());
    })
    .await;
    assert_eq!((failed.found, failed.failed.values().sum::<usize>(), same), (0, 16, true));
    assert_eq!(after_found, after_failed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_ends_a_call_and_the_next_one_goes_on() {
    let quota = |kind: &str| {
        let body = format!(r#"{{"error":"quota","detail":"","kind":"{kind}","retry_after":77}}"#);
        Instead::Reply(429, "application/json", body.into_bytes())
    };
    let relay = Relay::start().await;
    let folder = tempfile::tempdir().unwrap();
    let mut resolver = relay.resolver(&folder).await;
    // The second evaluation is refused: the sixteen of the first are looked up.
    let mut evaluations = 0;
    relay.script().before = Box::new(move |path, _| {
        evaluations += usize::from(path == "/evaluate");
        if path == "/evaluate" && evaluations > 1 { quota("evaluate") } else { Instead::Nothing }
    });
    let error = sync(&mut resolver, &contacts(0..40)).await.unwrap_err();
    assert!(
        matches!(&error, ResolveError::Quota { kind, after }
        if kind == "evaluate" && after.as_secs() == 77),
        "{error}"
    );
    assert_eq!((resolver.report().evaluated, resolver.report().found), (16, 16));
    let first = relay.take_seen();
    // Look-ups are refused: the rest is evaluated, dealt, and due at once.
    relay.script().before = Box::new(move |path, _| match path {
        "/lookup" => quota("lookup"),
        _ => Instead::Nothing,
    });
    let error = sync(&mut resolver, &contacts(0..40)).await.unwrap_err();
    assert!(matches!(&error, ResolveError::Quota { kind, .. } if kind == "lookup"), "{error}");
    let report = resolver.report();
    assert_eq!((report.evaluated, report.batches, report.batches_left), (24, 0, 2));
    assert_eq!(resolver.next_due(), Some(now()));
    relay.script().before = Box::new(|_, _| Instead::Nothing);
    let report = sync(&mut resolver, &contacts(0..40)).await.unwrap();
    assert_eq!((report.evaluated, report.evaluations, report.found), (0, 0, 24));
    let seen = [first, relay.take_seen()].concat();
    check_once_only(&seen);
    assert!(
        contacts(0..40).iter().all(|contact| found_handle(&resolver, contact, now()).is_some())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_the_front_end() {
    let relay = Relay::start().await;
    let folder = tempfile::tempdir().unwrap();
    let mut resolver = relay.resolver(&folder).await;
    // The list names a key that the front-end does not have, and goes on doing so.
    {
        let mut script = relay.script();
        script.ohttp = vec![2];
        script.listed = Some(1);
    }
    let error = sync(&mut resolver, &contacts(0..1)).await.unwrap_err();
    assert!(matches!(error, ResolveError::KeyUnknown), "{error}");
    let seen = relay.take_seen();
    assert_eq!((sealed_count(&seen, "/evaluate"), sealed_count(&seen, "/ohttp-keys")), (2, 2));
    relay.script().listed = None;
    assert_eq!(sync(&mut resolver, &contacts(0..1)).await.unwrap().found, 1);
    // The key before the newest one is still held.
    relay.script().listed = Some(2);
    relay.script().ohttp = vec![2, 3];
    assert_eq!(resolver.resolve(&number(2)).await.unwrap().answers.len(), 1);
    // A list that somebody else signed.
    relay.script().listed = None;
    relay.script().front_end_key = key("another front-end");
    let error = sync(&mut resolver, &contacts(0..1)).await.unwrap_err();
    assert!(matches!(error, ResolveError::Keys(SealedError::Signature(_))), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_is_out_of_date_is_fetched_again_once() {
    let relay = Relay::start().await;
    let folder = tempfile::tempdir().unwrap();
    let mut resolver = relay.resolver(&folder).await;
    // The first list names a key that the front-end no longer has.
    let mut lists = 0;
    let (old, new) = {
        let sign = |seed: u8| {
            let config =
                sotto::discovery::sealed::keys::GatewayKey::new(seed, &[seed; 32]).unwrap();
            let configs = [config.config().to_vec()];
            sotto::discovery::sealed::keys::sign_keys(
                &configs,
                &key("front-end"),
                now() - 60,
                now() + DAY,
            )
        };
        (sign(7), sign(1))
    };
    relay.script().before = Box::new(move |path, _| {
        if path != "/ohttp-keys" {
            return Instead::Nothing;
        }
        lists += 1;
        let list = if lists == 1 { &old } else { &new };
        Instead::Reply(200, "application/jwt", list.clone().into_bytes())
    });
    assert_eq!(sync(&mut resolver, &contacts(0..1)).await.unwrap().found, 1);
    let seen = relay.take_seen();
    assert_eq!((sealed_count(&seen, "/evaluate"), sealed_count(&seen, "/ohttp-keys")), (2, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_blinding_key_is_refused_and_other_databases_are_asked() {
    let relay = Relay::start().await;
    let folder = tempfile::tempdir().unwrap();
    let mut resolver = relay.resolver(&folder).await;
    relay.script().blind_key = Some(BlindKey::generate().unwrap());
    let all = [number(0), other_number(0)];
    let error = sync(&mut resolver, &all).await.unwrap_err();
    let ResolveError::Blind { database, error: BlindError::Proof } = &error else {
        panic!("{error}")
    };
    assert_eq!(database, ONE);
    assert!(resolver.contact(&number(0)).is_none());
    assert!(found_handle(&resolver, &other_number(0), now()).is_some());
    // The directory names another key for the same database.
    relay.script().blind_key = None;
    sync(&mut resolver, &all).await.unwrap();
    let mut content = fixture().content.clone();
    content.version += 1;
    content.databases[0].blinding_key =
        Some(sotto::discovery::directory::RistrettoKey(BlindKey::generate().unwrap().public_key()));
    relay.script().directory = Fixture::sign(&content);
    let error = sync(&mut resolver, &contacts(0..2)).await.unwrap_err();
    assert!(matches!(error, ResolveError::BlindingKey { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_or_other_directory_is_refused() {
    let relay = Relay::start().await;
    let folder = tempfile::tempdir().unwrap();
    let mut resolver = relay.resolver(&folder).await;
    sync(&mut resolver, &contacts(0..1)).await.unwrap();
    let directory = |version, expires| {
        Fixture::sign(&Content { version, expires, ..fixture().content.clone() })
    };
    relay.take_seen();
    for restarted in [false, true] {
        if restarted {
            drop(resolver);
            resolver = relay.resolver(&folder).await;
        }
        relay.script().directory = directory(4, now() + 30 * DAY);
        let error = sync(&mut resolver, &contacts(1..2)).await.unwrap_err();
        let is_older = |error: &DirectoryError| matches!(error, DirectoryError::RolledBack { .. });
        assert!(matches!(&error, ResolveError::Directory(error) if is_older(error)), "{error}");
        relay.script().directory = directory(5, now() + 29 * DAY);
        let error = resolver.resolve(&number(1)).await.unwrap_err();
        let is_forked = |error: &DirectoryError| matches!(error, DirectoryError::Forked { .. });
        assert!(matches!(&error, ResolveError::Directory(error) if is_forked(error)), "{error}");
    }
    let seen = relay.take_seen();
    assert!(seen.iter().all(|seen| seen.path == "/directory"), "something else was asked");
    // Roots that nobody pinned.
    relay.script().directory =
        sotto::discovery::directory::draft::sign(&fixture().content, &[key("thief")])
            .unwrap_or_else(|_| "{}".into());
    assert!(matches!(sync(&mut resolver, &contacts(1..2)).await, Err(ResolveError::Directory(_))));
    // A newer one is taken, and what was kept stays.
    relay.script().directory = directory(6, now() + 30 * DAY);
    assert_eq!(sync(&mut resolver, &contacts(0..2)).await.unwrap().directory_version, 6);
    assert!(found_handle(&resolver, &number(0), now()).is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_epoch_is_refused_and_other_databases_are_asked() {
    let relay = Relay::start().await;
    let folder = tempfile::tempdir().unwrap();
    let mut resolver = relay.resolver(&folder).await;
    relay.script().later = 1;
    sync(&mut resolver, &contacts(0..1)).await.unwrap();
    relay.script().later = 0;
    let error = sync(&mut resolver, &[number(1), other_number(1)]).await.unwrap_err();
    let ResolveError::Parameters { database, error: ParameterError::EpochOlder { .. } } = &error
    else {
        panic!("{error}")
    };
    assert_eq!(database, ONE);
    assert!(found_handle(&resolver, &other_number(1), now()).is_some());
    assert!(resolver.contact(&number(1)).is_none());
    // Also after a restart.
    drop(resolver);
    let mut resolver = relay.resolver(&folder).await;
    let error = resolver.resolve(&number(1)).await.unwrap_err();
    assert!(matches!(error, ResolveError::Parameters { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn shifted_answers_are_never_believed() {
    let relay = Relay::start().await;
    let folder = tempfile::tempdir().unwrap();
    let mut resolver = relay.resolver(&folder).await;
    relay.script().answers = Box::new(|_, answers| answers.rotate_left(1));
    let report = sync(&mut resolver, &contacts(0..16)).await.unwrap();
    assert_eq!((report.found, report.failed.values().sum::<usize>()), (0, 16));
    assert!(report.failed.keys().all(|reason| reason.contains("nonce")), "{:?}", report.failed);
    // It is due at its next time, not at once.
    let due = resolver.next_due().unwrap();
    assert!((now() + 7 * DAY..now() + 14 * DAY).contains(&due));
    // The same with nonces that are right.
    relay.set_now(now() + 14 * DAY);
    relay.script().answers = Box::new(|_, answers| {
        answers.rotate_left(1);
        let named = answers.iter_mut().enumerate();
        named.for_each(|(at, answer)| answer.nonce = format!("{at:02}"));
    });
    let report = sync(&mut resolver, &contacts(0..16)).await.unwrap();
    let failed: usize = report.failed.values().sum();
    assert_eq!((report.found, report.absent + report.invalid + failed), (0, 16));
    check_once_only(&relay.take_seen());
}

#[tokio::test(flavor = "multi_thread")]
async fn replies_that_are_cut_off_are_asked_for_again_in_the_identical_bytes() {
    let relay = Relay::start().await;
    let folder = tempfile::tempdir().unwrap();
    let mut resolver = relay.resolver(&folder).await;
    let mut left = 3;
    relay.script().replies = Box::new(move |path, sealed| {
        if path == "/lookup" && left > 0 {
            left -= 1;
            sealed.truncate(sealed.len() * left / 3);
        }
    });
    assert_eq!(sync(&mut resolver, &contacts(0..16)).await.unwrap().found, 16);
    let seen = relay.take_seen();
    assert_eq!(sealed_count(&seen, "/lookup"), 4);
    let bodies: HashSet<Vec<u8>> =
        seen.iter().filter_map(|seen| seen.inner.clone()).map(|inner| inner.body).collect();
    assert_eq!(bodies.len(), 2, "one evaluation, and one look-up in identical bytes");
    check_once_only(&seen);
    // One that always cuts off ends the call, and no batch is asked at once again.
    relay.script().replies = Box::new(|_, sealed| sealed.truncate(sealed.len() - 1));
    relay.set_now(now() + 14 * DAY);
    let error = sync(&mut resolver, &[]).await.unwrap_err();
    assert!(matches!(error, ResolveError::Changed { .. }), "{error}");
    assert!(resolver.next_due().unwrap() >= relay.now() + 7 * DAY);
    assert_eq!(sealed_count(&relay.take_seen(), "/lookup"), 8);
    // What was found before is still there.
    assert!(found_handle(&resolver, &number(0), relay.now()).is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_status_of_the_wire_is_answered_with_identical_bytes() {
    let relay = Relay::start().await;
    let folder = tempfile::tempdir().unwrap();
    let mut resolver = relay.resolver(&folder).await;
    let mut rounds = 0;
    relay.script().answers = Box::new(move |_, answers| {
        let status = match rounds {
            0 => Status::Overloaded,
            1 => Status::KeyMissing,
            2 => Status::EpochGone,
            _ => return,
        };
        rounds += 1;
        // Some of them are answered.
        for answer in answers.iter_mut().skip(3 * rounds) {
            answer.response_status = status.code();
            answer.encrypted_response.clear();
            answer.hint.clear();
        }
    });
    assert_eq!(sync(&mut resolver, &contacts(0..16)).await.unwrap().found, 16);
    let seen = relay.take_seen();
    let lookups = lookups(&seen);
    assert_eq!(lookups.len(), 4);
    let vectors = |lookup: &Lookup| -> HashMap<String, Vec<u8>> {
        lookup
            .queries
            .iter()
            .map(|(_, shard, vector)| (shard.to_string(), vector.clone()))
            .collect()
    };
    assert!(lookups.iter().all(|(_, lookup)| vectors(lookup) == vectors(&lookups[0].1)));
    assert_eq!(sealed_count(&seen, "/databases/one/parameters"), 2);
    check_once_only(&seen);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_front_end_without_room_or_without_the_database() {
    let relay = Relay::start().await;
    let folder = tempfile::tempdir().unwrap();
    let mut resolver = relay.resolver(&folder).await;
    let inner = |status| {
        Instead::Sealed(InnerResponse {
            status,
            content_type: None,
            retry_after: (status == 503).then_some(0),
            etag: None,
            body: b"words\x1b".to_vec(),
        })
    };
    let mut refusals = 2;
    relay.script().before = Box::new(move |path, _| match (path, refusals) {
        ("/lookup", 1..) => {
            refusals -= 1;
            inner(503)
        }
        _ => Instead::Nothing,
    });
    assert_eq!(sync(&mut resolver, &contacts(0..1)).await.unwrap().found, 1);
    relay.script().before = Box::new(move |path, _| match path {
        "/lookup" => inner(404),
        _ => Instead::Nothing,
    });
    let report = sync(&mut resolver, &contacts(0..2)).await.unwrap();
    let (reason, count) = report.failed.first_key_value().unwrap();
    assert!(reason.contains("404") && reason.contains("words") && !reason.contains('\u{1b}'));
    assert_eq!(*count, 1);
    // 502 and 503 of the relay: the front-end never saw it, so it is due at once.
    relay.script().before = Box::new(|path, _| match path {
        "/lookup" => Instead::Reply(502, "application/json", br#"{"error":"front_end"}"#.to_vec()),
        _ => Instead::Nothing,
    });
    let error = sync(&mut resolver, &contacts(0..3)).await.unwrap_err();
    assert!(matches!(error, ResolveError::Relay { status: 502, .. }), "{error}");
    assert_eq!(resolver.next_due(), Some(now()));
    relay.script().before = Box::new(|path, _| match path {
        "/lookup" => Instead::Reply(401, "application/json", br#"{"error":"account"}"#.to_vec()),
        _ => Instead::Nothing,
    });
    assert!(matches!(sync(&mut resolver, &[]).await, Err(ResolveError::Account)));
    relay.script().before = Box::new(|_, _| Instead::Nothing);
    assert_eq!(sync(&mut resolver, &[]).await.unwrap().found, 1);
}

/// Waits until the relay has seen so many look-ups.
async fn until_lookups(relay: &Relay, count: usize, seen: &mut Vec<Seen>) {
    while sealed_count(seen, "/lookup") < count {
        seen.extend(relay.take_seen());
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_dropped_goes_on_later() {
    for restarted in [false, true] {
        let relay = Relay::start().await;
        let folder = tempfile::tempdir().unwrap();
        let mut resolver = relay.resolver(&folder).await;
        // One batch is answered, and the others are not.
        let mut lookups = 0;
        relay.script().before = Box::new(move |path, _| {
            lookups += usize::from(path == "/lookup");
            if path == "/lookup" && lookups > 1 { Instead::Silence } else { Instead::Nothing }
        });
        let (mut first, all) = (Vec::new(), contacts(0..40));
        tokio::select! {
            _ = resolver.sync(&all, |_| {}) => panic!("it ended"),
            () = until_lookups(&relay, 3, &mut first) => {}
        }
        assert!(resolver.contact(&number(0)).is_none(), "given out before the last answer");
        if restarted {
            drop(resolver);
            resolver = relay.resolver(&folder).await;
        }
        assert_eq!(resolver.next_due(), Some(now()));
        relay.script().before = Box::new(|_, _| Instead::Nothing);
        let report = sync(&mut resolver, &contacts(0..40)).await.unwrap();
        assert_eq!((report.evaluations, report.evaluated), (0, 0), "evaluated twice");
        assert_eq!((report.batches, report.found), (3, 40));
        let second = relay.take_seen();
        assert_eq!(shard_sets(&first), shard_sets(&second));
        let secrets: HashSet<String> =
            world::lookups(&first).into_iter().flat_map(|(_, lookup)| lookup.bundles).collect();
        let again = world::lookups(&second).into_iter().flat_map(|(_, lookup)| lookup.bundles);
        assert!(again.into_iter().all(|uid| !secrets.contains(&uid)), "a secret was used again");
        check_once_only(&[first, second].concat());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_dropped_while_it_evaluates_keeps_what_it_has() {
    let relay = Relay::start().await;
    let folder = tempfile::tempdir().unwrap();
    let mut resolver = relay.resolver(&folder).await;
    let mut evaluations = 0;
    relay.script().before = Box::new(move |path, _| {
        evaluations += usize::from(path == "/evaluate");
        if evaluations == 2 && path == "/evaluate" { Instead::Silence } else { Instead::Nothing }
    });
    let mut seen = Vec::new();
    let until_second = async {
        while sealed_count(&seen, "/evaluate") < 2 {
            seen.extend(relay.take_seen());
            tokio::task::yield_now().await;
        }
    };
    let all = contacts(0..32);
    tokio::select! {
        _ = resolver.sync(&all, |_| {}) => panic!("it ended"),
        () = until_second => {}
    }
    // As after a kill: only the file is left.
    drop(resolver);
    let mut resolver = relay.resolver(&folder).await;
    let report = sync(&mut resolver, &all).await.unwrap();
    assert_eq!((report.evaluated, report.evaluations, report.found), (16, 1, 32));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_is_not_there_leaves_everything_due() {
    let relay = Relay::start().await;
    let folder = tempfile::tempdir().unwrap();
    let mut options = relay.options(folder.path().join("state"));
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    options.relay = format!("https://localhost:{}", free.local_addr().unwrap().port());
    drop(free);
    let mut resolver = Resolver::open(options).await.unwrap();
    let error = sync(&mut resolver, &contacts(0..1)).await.unwrap_err();
    assert!(matches!(error, ResolveError::Unreachable(_)), "{error}");
    assert_eq!(resolver.next_due(), None);
    assert!(resolver.contact(&number(0)).is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_resolver_for_a_state_and_one_key() {
    let relay = Relay::start().await;
    let folder = tempfile::tempdir().unwrap();
    let mut resolver = relay.resolver(&folder).await;
    sync(&mut resolver, &contacts(0..1)).await.unwrap();
    let options = || relay.options(folder.path().join("state"));
    let error = Resolver::open(options()).await.err().unwrap();
    assert!(matches!(error, ResolveError::State(StateError::InUse { .. })), "{error}");
    drop(resolver);
    let other = Options { state_key: Zeroizing::new([1; 32]), ..options() };
    let error = Resolver::open(other).await.err().unwrap();
    assert!(matches!(error, ResolveError::State(StateError::Unopened)), "{error}");
    // An older file that somebody put back is a state like any other.
    let path = folder.path().join("state");
    let older = std::fs::read(&path).unwrap();
    let mut resolver = Resolver::open(options()).await.unwrap();
    sync(&mut resolver, &contacts(1..2)).await.unwrap();
    drop(resolver);
    std::fs::write(&path, older).unwrap();
    let mut resolver = Resolver::open(options()).await.unwrap();
    assert!(resolver.contact(&number(0)).is_some() && resolver.contact(&number(1)).is_none());
    assert_eq!(sync(&mut resolver, &contacts(1..2)).await.unwrap().found, 1);
}
