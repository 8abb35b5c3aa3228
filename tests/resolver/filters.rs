//! Routing filters: who is not there is not looked up, and nobody is singled out with a filter.

use std::io::Cursor;

use super::*;
use sotto::discovery::filter::{FilterError, Signing, write};

/// The epoch of the database.
fn epoch() -> u64 {
    fixture().epoch()
}

/// A filter of the first database that covers some numbers.
fn filter(numbers: std::ops::Range<u64>, epoch: u64, operator: &str) -> Vec<u8> {
    let key_of = |contact| fixture().blind_key.derive(&contact).lookup_key();
    let mut keys: Vec<String> = numbers.map(number).map(key_of).collect();
    keys.sort_unstable();
    let records = keys.iter().fold("sii,value\n".to_owned(), |all, key| all + key + ",value\n");
    let mut file = Vec::new();
    let signing = Signing { database: ONE, epoch, key: &key(operator) };
    write(Cursor::new(records), &signing, &mut file).unwrap();
    file
}

type Expected = fn(&FilterError) -> bool;

fn is_filter_error(error: &ResolveError, expected: Expected) -> bool {
    matches!(error, ResolveError::Filter { database, error } if database == ONE && expected(error))
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_ruled_out_is_evaluated_and_not_looked_up() {
    let relay = Relay::start().await;
    let folder = tempfile::tempdir().unwrap();
    let mut resolver = relay.resolver(&folder).await;
    relay.script().filter = Some(filter(0..16, epoch(), "operator one"));
    let all = [contacts(0..16), contacts(9_000..9_032)].concat();
    let report = sync(&mut resolver, &all).await.unwrap();
    // One key in 256 is let through although it is not there.
    assert_eq!((report.evaluated, report.found), (48, 16));
    assert_eq!(report.absent + report.ruled_out, 32);
    assert!(report.ruled_out > 16, "{}", report.ruled_out);
    assert!(report.batches <= 2);
    let ruled_out = report.ruled_out;
    for contact in contacts(9_000..9_032) {
        assert_eq!(finding(&resolver, &contact, ONE), &Finding::Absent);
    }
    relay.take_seen();

    // Nothing is asked for them, at once or after a restart; the filter is not fetched again.
    resolver.resolve(&number(9_000)).await.unwrap();
    assert!(relay.take_seen().is_empty());
    drop(resolver);
    let mut resolver = relay.resolver(&folder).await;
    let report = sync(&mut resolver, &all).await.unwrap();
    assert_eq!((report.evaluations, report.lookups, report.ruled_out), (0, 0, ruled_out));
    let seen = relay.take_seen();
    let of_filter = seen.iter().find(|seen| seen.path == "/databases/one/filter").unwrap();
    assert_eq!(of_filter.status, 304);

    // A new contact that is not there: evaluated, and not looked up.
    resolver.resolve(&number(9_040)).await.unwrap();
    assert!(resolver.report().ruled_out == 1 || resolver.report().absent == 1);
    assert_eq!(resolver.report().evaluated, 1);

    // The next filter has them all: those that were ruled out are looked up, the others stay.
    relay.take_seen();
    relay.script().filter = None;
    let report = sync(&mut resolver, &all).await.unwrap();
    assert_eq!((report.evaluated, report.absent, report.ruled_out), (0, ruled_out, 0));
    check_once_only(&relay.take_seen());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_that_lacks_records_of_the_epoch_is_not_used() {
    let relay = Relay::start().await;
    let folder = tempfile::tempdir().unwrap();
    let mut resolver = relay.resolver(&folder).await;
    // It covers nobody who is asked for.
    relay.script().filter = Some(filter(100..200, epoch() - 1, "operator one"));
    let report = sync(&mut resolver, &contacts(0..16)).await.unwrap();
    assert_eq!((report.found, report.ruled_out), (16, 0));
    // That of a later epoch is.
    relay.script().filter = Some(filter(100..200, epoch() + 1, "operator one"));
    let report = sync(&mut resolver, &contacts(0..32)).await.unwrap();
    assert_eq!(report.found + report.ruled_out, 16);
    assert!(report.ruled_out > 8 && found_handle(&resolver, &number(3), now()).is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_another_or_a_strange_filter_is_refused_and_what_is_due_is_asked() {
    let relay = Relay::start().await;
    let folder = tempfile::tempdir().unwrap();
    let mut resolver = relay.resolver(&folder).await;
    let accepted = filter(0..99, epoch() + 1, "operator one");
    relay.script().filter = Some(accepted.clone());
    sync(&mut resolver, &contacts(0..16)).await.unwrap();
    // Also after a restart.
    drop(resolver);
    let mut resolver = relay.resolver(&folder).await;
    let older = filter(0..99, epoch(), "operator one");
    // One that was made for this device: it covers one number only.
    let forked = filter(20..21, epoch() + 1, "operator one");
    let strange = filter(0..99, epoch() + 2, "operator two");
    let mut cut = filter(0..99, epoch() + 2, "operator one");
    cut.pop();
    let cases: [(Vec<u8>, Expected); 4] = [
        (older, |error| matches!(error, FilterError::Older { .. })),
        (forked, |error| matches!(error, FilterError::Forked { .. })),
        (strange, |error| matches!(error, FilterError::Header(_))),
        (cut, |error| matches!(error, FilterError::Digest)),
    ];
    for (file, expected) in cases {
        relay.script().filter = Some(file);
        relay.take_seen();
        let error = sync(&mut resolver, &contacts(0..32)).await.unwrap_err();
        assert!(is_filter_error(&error, expected), "{error}");
        assert_eq!(sealed_count(&relay.take_seen(), "/lookup"), 0);
    }
    relay.set_now(now() + 14 * DAY);
    sync(&mut resolver, &contacts(0..32)).await.unwrap_err();
    assert_eq!(sealed_count(&relay.take_seen(), "/lookup"), 1);
    // The one that was accepted is as good as before.
    relay.script().filter = Some(accepted);
    let report = sync(&mut resolver, &contacts(0..32)).await.unwrap();
    assert_eq!((report.found, report.evaluated), (16, 0));
}
