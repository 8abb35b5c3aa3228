//! A database that changes while it is served, over real QUIC with real clients: a new manifest is
//! taken whole or not at all, epochs are answered beside each other, no query is lost; files that
//! shrink or rot harm nobody but their own queries; `sotto rollback` and `sotto serve` as programs.

#![allow(clippy::unwrap_used)]

mod harness;

use std::collections::HashMap;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use harness::load::Load;
use harness::program::{Place, Program, any, run, sotto};
use harness::{Built, PATIENCE, Serving, Setting, record, until};
use rustix::process::Signal;
use sotto::builder::keys;
use sotto::client::staged::lacking;
use sotto::client::{Client, ClientError, LookupError, Options, Outcome, ParameterError, Pins};
use sotto::engine::{EngineChoice, IsaChoice, select};
use sotto::params::Shape;
use sotto::schedule::ScheduleBounds;
use sotto::server::{Reloaded, Server, ServerBounds};
use sotto::shard::manifest::{MANIFEST_NEXT_NAME, MANIFEST_PREVIOUS_NAME, SHARDS_DIR};
use sotto::shard::write::entry;
use sotto::shard::{Database, HEADER_BYTES, Header, Manifest, ManifestHead, files};
use sotto::wire::{Lifetime, SigningKey, Status};
use tokio::time::timeout;

const SHARDS: u32 = 4;
const KEYS: u32 = 300;
/// Its value is another in every epoch that is built.
const CHANGING: &str = "key-7";

fn key(n: u32) -> String {
    format!("key-{n}")
}

/// Every record; the changing key has this value.
fn records(value: u32) -> Vec<(String, Vec<u8>)> {
    let record = |n| match key(n) {
        key if key == CHANGING => (key, format!("changed {value}").into_bytes()),
        key => (key, format!("value {n}").into_bytes()),
    };
    (0..KEYS).map(record).collect()
}

/// A database at epoch 1, of which one shard changes with each build.
fn database() -> Built {
    Built::new(&records(1), SHARDS)
}

impl Built {
    /// Builds the next epoch, in which the changing key has this value.
    fn change(&self, value: u32) {
        self.build(&records(value), SHARDS);
    }

    fn write(&self, manifest: &Manifest) {
        files::write_atomically(&self.manifest_path(), &manifest.to_json()).unwrap();
    }

    fn signing_key(&self) -> SigningKey {
        keys::load(&keys::default_path(&self.db())).unwrap().unwrap()
    }

    /// The content of `of`, as the epoch after the newest.
    fn next_of(&self, of: &Manifest) -> Manifest {
        self.signed(&self.head(), of, &self.signing_key())
    }

    fn head(&self) -> ManifestHead {
        let newest = self.manifest();
        ManifestHead {
            seed: newest.seed.0,
            epoch: newest.epoch + 1,
            lifetime: newest.lifetime(),
            shape: newest.shape(),
            database: newest.database,
        }
    }

    fn signed(&self, head: &ManifestHead, of: &Manifest, key: &SigningKey) -> Manifest {
        Manifest::sign(head, of.shards.clone(), key).unwrap()
    }
}

/// Puts a copy in a file's place, as `rsync` does.
fn replace(path: &Path, bytes: &[u8]) {
    files::write_atomically(path, bytes).unwrap();
}

/// Changes a byte of a file in place.
fn flip(path: &Path, at: u64) {
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&[std::fs::read(path).unwrap()[at as usize] ^ 1], at).unwrap();
}

/// Without scrubbing, for old epochs of ten minutes.
/// No query is refused for a machine that is slow: here it is reloads that must not refuse any.
fn bounds() -> ServerBounds {
    let schedule =
        ScheduleBounds { latency_target: Duration::from_secs(60), ..ScheduleBounds::default() };
    ServerBounds { scrub_mib_per_second: 0, schedule, ..ServerBounds::default() }
}

/// With the processor alone.
fn setting(bounds: ServerBounds) -> Setting {
    let engines = vec![select(EngineChoice::Cpu, IsaChoice::Auto, None).unwrap()];
    Setting { engines, bounds, ..Setting::default() }
}

fn start(db: &Built, bounds: ServerBounds) -> Serving {
    setting(bounds).serve(&db.db())
}

impl Serving {
    async fn client(&self, pins: Pins) -> Client {
        Client::connect(self.options(pins)).await.unwrap()
    }

    fn epoch(&self) -> u64 {
        self.reloader.state().served
    }

    async fn reload(&self) -> Result<Reloaded, String> {
        let ended = timeout(PATIENCE, self.reloader.reload()).await.unwrap();
        ended.map_err(|error| error.to_string())
    }

    /// Ends it, which its threads must not hold up.
    async fn end(mut self) {
        self.leave();
        self.left().await;
    }
}

async fn value(client: &mut Client, key: &str) -> Result<String, LookupError> {
    match client.lookup(&[key]).await.unwrap().pop().unwrap()? {
        Outcome::Found(value) => Ok(String::from_utf8(value).unwrap()),
        _ => panic!("{key}: nothing found"),
    }
}

/// Three clients that look every key up, again and again. No answer may be wrong, and only keys of
/// the `lost` shard may have none.
async fn load(db: &Built, serving: &Serving, lost: Option<u32>) -> Load {
    let names: Vec<String> = (0..KEYS).map(key).collect();
    let shards: HashMap<_, _> = names.iter().map(|k| (k.clone(), db.shard_of(k))).collect();
    let check = move |name: &str, outcome: Result<_, _>| match outcome {
        Ok(Outcome::Found(value)) if name == CHANGING => {
            assert!(value.starts_with(b"changed "), "{name}");
        }
        Ok(Outcome::Found(value)) => {
            assert_eq!(value, name.replace("key-", "value ").into_bytes(), "{name}");
        }
        Err(LookupError::ShardUnknown) if lost == Some(shards[name]) => {}
        Err(error) => panic!("{name}: {error}"),
        Ok(_) => panic!("{name}: another outcome"),
    };
    Load::with(&serving.options(db.pins()), 3, move |_| names.clone(), check).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_epoch_is_answered_until_its_time_and_then_gone() {
    for (time, seen, gone) in [(600, "changed 1", 0), (0, "changed 2", 1)] {
        let db = database();
        let old_epoch_time = Duration::from_secs(time);
        let serving = start(&db, ServerBounds { old_epoch_time, ..bounds() });
        let mut early = serving.client(db.pins()).await;
        assert_eq!(value(&mut early, CHANGING).await.unwrap(), "changed 1");
        assert_eq!(serving.reload().await, Ok(Reloaded::Unchanged { epoch: 1 }));
        db.change(2);
        assert_eq!(serving.reload().await, Ok(Reloaded::Changed { epoch: 2, opened: 1 }));
        // Parameters are the new ones, and so is what is decoded with them.
        let mut late = serving.client(db.pins()).await;
        assert_eq!(late.parameters().epoch(), 2);
        assert_eq!(value(&mut late, CHANGING).await.unwrap(), "changed 2");
        assert_eq!(value(&mut early, CHANGING).await.unwrap(), seen);
        assert_eq!(value(&mut early, "key-8").await.unwrap(), "value 8");
        assert_eq!(serving.counters.queries.get(Status::EpochGone).min(1), gone);
        let state = serving.reloader.state();
        assert_eq!((state.served, state.expected, state.quarantined_shards), (2, 2, 0));
        serving.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_epoch_is_answered_before_clients_are_told_of_it() {
    let db = database();
    let serving = start(&db, bounds());
    let mut client = serving.client(db.pins()).await;
    // The next epoch comes under the name of one that is not announced.
    let first = std::fs::read(db.manifest_path()).unwrap();
    db.change(2);
    let next = db.manifest();
    let (path, second) = (db.db().join(MANIFEST_NEXT_NAME), next.to_json());
    replace(&path, &second);
    replace(&db.manifest_path(), &first);
    let digests: Vec<_> = (0..).zip(&next.shards).map(|(n, it)| (n, it.hint_digest.0)).collect();
    let options = serving.options(db.pins());
    let lacks = async |epoch, expected: &[_]| {
        lacking(&options, next.shape(), epoch, expected).await.unwrap().len()
    };
    assert_eq!(lacks(2, &digests).await, SHARDS as usize);
    let staged = || serving.reloader.state().staged;
    assert_eq!((serving.reload().await, staged()), (Ok(Reloaded::Unchanged { epoch: 1 }), Some(2)));
    assert_eq!((lacks(2, &digests).await, lacks(3, &digests).await), (0, SHARDS as usize));
    let others: Vec<_> = digests.iter().map(|&(n, _)| (n, [7; 16])).collect();
    assert_eq!(lacks(2, &others).await, SHARDS as usize, "of another content");
    client.fetch_parameters().await.unwrap();
    assert_eq!(client.parameters().epoch(), 1);
    assert_eq!(value(&mut client, CHANGING).await.unwrap(), "changed 1");

    // One that is refused harms neither what is served nor what is staged.
    replace(&path, b"{}");
    let refused = serving.reload().await.unwrap_err();
    assert!(refused.contains("is not a manifest") && refused.contains("Epoch 1 is served"));
    assert_eq!(staged(), Some(2));
    std::fs::remove_file(&path).unwrap();
    assert_eq!((serving.reload().await, staged()), (Ok(Reloaded::Unchanged { epoch: 1 }), None));
    assert_eq!(lacks(2, &digests).await, SHARDS as usize);
    replace(&path, &second);
    assert_eq!((serving.reload().await, staged()), (Ok(Reloaded::Unchanged { epoch: 1 }), Some(2)));

    // Announced: what is staged is served, though its files are gone by now.
    replace(&db.manifest_path(), &second);
    let held = next.shards.iter().map(|entry| db.db().join(SHARDS_DIR).join(&entry.file));
    held.for_each(|file| std::fs::remove_file(file).unwrap());
    assert_eq!(serving.reload().await, Ok(Reloaded::Changed { epoch: 2, opened: 1 }));
    assert_eq!(staged(), None);
    let mut late = serving.client(db.pins()).await;
    assert_eq!(value(&mut late, CHANGING).await.unwrap(), "changed 2");
    assert_eq!(value(&mut client, CHANGING).await.unwrap(), "changed 1");
    serving.end().await;
}

#[test]
fn only_what_changed_is_opened() {
    let db = database();
    let first = Database::open(&db.db()).unwrap();
    assert!(first.follow(db.manifest(), &|_| ()).unwrap().is_none());
    db.change(2);
    let second = first.follow(db.manifest(), &|_| ()).unwrap().unwrap();
    let changed = db.shard_of(CHANGING) as usize;
    for (shard, (old, new)) in first.shards().zip(second.shards()).enumerate() {
        assert_eq!(Arc::ptr_eq(old, new), shard != changed, "shard {shard}");
        assert_eq!(old.view().content == new.view().content, shard != changed, "shard {shard}");
    }
}

/// What is said, and what has to go wrong before.
type Wrong<'a> = (&'static str, Box<dyn Fn() + 'a>);

/// What may be wrong with the next epoch.
fn wrongs(db: &Built) -> Vec<Wrong<'_>> {
    let (good, head) = (db.manifest(), || db.head());
    let now = good.created;
    let expired = Lifetime { created: now - 20, expires: now - 10 };
    let future = Lifetime { created: now + 86_400, expires: now + 2 * 86_400 };
    let database = "another".to_owned();
    let good = db.next_of(&good);
    let json = good.to_json();
    let file = db.shard_path(db.shard_of(CHANGING));
    let bytes = std::fs::read(&file).unwrap();
    let write = |bytes: Vec<u8>| move || replace(&db.manifest_path(), &bytes);
    let sign = |head: ManifestHead, key: SigningKey, shards: usize| {
        let mut of = good.clone();
        of.shards.truncate(shards);
        write(db.signed(&head, &of, &key).to_json())
    };
    let all = SHARDS as usize;
    let (key, other_key) = (|| db.signing_key(), SigningKey::from_bytes(&[9; 32]));
    let shape = Shape::new(32, 128, 1, 256).unwrap();
    let mut forged = good.clone();
    forged.signature.0[0] ^= 1;
    let mut swapped = good.clone();
    swapped.shards.swap(0, 1);
    let (good, path) = (good.clone(), file.clone());
    let with_file = move |change: fn(&Path)| {
        let (good, path, bytes) = (good.clone(), path.clone(), bytes.clone());
        move || {
            replace(&path, &bytes);
            change(&path);
            db.write(&good);
        }
    };
    vec![
        ("no manifest.json", Box::new(|| std::fs::remove_file(db.manifest_path()).unwrap())),
        ("is not a manifest", Box::new(write(json[..json.len() / 2].to_vec()))),
        ("changed after it was signed", Box::new(write(forged.to_json()))),
        ("disagrees with itself", Box::new(write(swapped.to_json()))),
        ("hash of the header digests", Box::new(write(zeroed(db).to_json()))),
        ("has operator key", Box::new(sign(head(), other_key, all))),
        ("has seed", Box::new(sign(ManifestHead { seed: [9; 32], ..head() }, key(), all))),
        ("has database name", Box::new(sign(ManifestHead { database, ..head() }, key(), all))),
        ("has shard count", Box::new(sign(head(), key(), all / 2))),
        ("has shape", Box::new(sign(ManifestHead { shape, ..head() }, key(), all))),
        ("has epoch 1", Box::new(sign(ManifestHead { epoch: 1, ..head() }, key(), all))),
        ("expired", Box::new(sign(ManifestHead { lifetime: expired, ..head() }, key(), all))),
        ("has a date", Box::new(sign(ManifestHead { lifetime: future, ..head() }, key(), all))),
        ("No such file", Box::new(with_file(|path| std::fs::remove_file(path).unwrap()))),
        ("bytes, expected", Box::new(with_file(|path| cut(path, 2 * HEADER_BYTES as u64)))),
        ("matrix section", Box::new(with_file(|path| flip(path, HEADER_BYTES as u64 + 5)))),
        ("header", Box::new(with_file(|path| flip(path, 100)))),
    ]
}

/// The database that is there with a matrix of zeros, as who lacks the operator's key can make it:
/// digests, file name and manifest entry fit the zeros.
fn zeroed(db: &Built) -> Manifest {
    let mut manifest = db.manifest();
    let path = db.db().join(SHARDS_DIR).join(&manifest.shards[0].file);
    let mut bytes = std::fs::read(path).unwrap();
    let mut header = Header::decode(bytes[..HEADER_BYTES].try_into().unwrap()).unwrap();
    let [matrix, ..] = header.sections();
    let matrix = &mut bytes[matrix.offset as usize..(matrix.offset + matrix.bytes) as usize];
    matrix.fill(0);
    header.section_digests[0] = *blake3::hash(matrix).as_bytes();
    bytes[..HEADER_BYTES].copy_from_slice(&header.encode());
    manifest.shards[0] = entry(&header);
    std::fs::write(db.db().join(SHARDS_DIR).join(&manifest.shards[0].file), bytes).unwrap();
    manifest
}

fn cut(path: &Path, bytes: u64) {
    std::fs::OpenOptions::new().write(true).open(path).unwrap().set_len(bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_does_not_start_with_what_clients_refuse_by_its_dates() {
    let db = database();
    let good = db.manifest();
    let (day, now) = (86_400, good.created);
    let cases = [
        (now - 20 * day, now - 10 * day, "expired 10 days ago"),
        (now + 20 * day - 60, now + 30 * day, "19 days after this machine's clock"),
    ];
    for (created, expires, said) in cases {
        let head = ManifestHead { lifetime: Lifetime { created, expires }, ..db.head() };
        db.write(&db.signed(&head, &good, &db.signing_key()));
        let database = Arc::new(Database::open(&db.db()).unwrap());
        let error = Server::bind(setting(bounds()).options().0, database).err().expect("a refusal");
        let error = error.to_string();
        assert!(error.contains("manifest.json") && error.contains(said), "{error}");
    }
}

/// What the clients of the next test think the time is, in unix seconds.
static SECOND: AtomicU64 = AtomicU64::new(0);

#[tokio::test(flavor = "multi_thread")]
async fn expired_parameters_are_fetched_again_before_anything_is_looked_up() {
    const DAY: u64 = 86_400;
    let db = database();
    let made = db.manifest();
    let serving = start(&db, bounds());
    let at = |second| SECOND.store(second, Ordering::Relaxed);
    let clock = || SystemTime::UNIX_EPOCH + Duration::from_secs(SECOND.load(Ordering::Relaxed));
    let options = |replicas| {
        let options = serving.options(db.pins());
        Options { clock, replicas: vec![options.replicas[0].clone(); replicas], ..options }
    };
    let stale = |error| matches!(error, ClientError::Parameters(ParameterError::Lifetime(_)));
    for wrong in [made.created - 301, made.expires + 1] {
        at(wrong);
        assert!(stale(Client::connect(options(1)).await.err().expect("a refusal")));
    }
    // The second replica was asked too: neither has parameters that hold.
    let error = Client::connect(options(2)).await.err().expect("a refusal");
    let ClientError::NoParameters { reason } = error else { panic!("{error}") };
    assert!(reason.contains("expired 1 s ago"), "{reason}");
    at(made.created - 300);
    let mut client = Client::connect(options(1)).await.unwrap();
    at(made.expires);
    assert_eq!(value(&mut client, CHANGING).await.unwrap(), "changed 1");
    // A second later, and nothing newer is served: no query goes out.
    at(made.expires + 1);
    let admitted = serving.counters.queries_admitted.get();
    for _ in 0..2 {
        assert!(stale(client.lookup(&[CHANGING]).await.err().expect("a refusal")));
    }
    assert_eq!(serving.counters.queries_admitted.get(), admitted);
    let lifetime = Lifetime { created: made.created, expires: made.expires + 30 * DAY };
    let head = ManifestHead { lifetime, ..db.head() };
    db.write(&db.signed(&head, &made, &db.signing_key()));
    assert_eq!(serving.reload().await, Ok(Reloaded::Changed { epoch: 2, opened: 0 }));
    assert_eq!(value(&mut client, CHANGING).await.unwrap(), "changed 1");
    assert_eq!(client.close().await.epoch(), 2);
    serving.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_changes_nothing_and_is_said() {
    let db = database();
    let first = db.manifest();
    let serving = start(&db, bounds());
    let mut client = serving.client(db.pins()).await;
    db.change(2);
    let second = db.manifest();
    let bytes = std::fs::read(db.shard_path(db.shard_of(CHANGING))).unwrap();
    let mut refused = 0;
    for (said, go_wrong) in wrongs(&db) {
        go_wrong();
        let error = serving.reload().await.unwrap_err();
        assert!(error.contains(said) && error.contains("Epoch 1 is served"), "{said}: {error}");
        refused += 1;
        assert_eq!(serving.counters.reloads_refused.get(), refused);
        assert_eq!(serving.epoch(), 1);
        assert_eq!(value(&mut client, CHANGING).await.unwrap(), "changed 1");
        db.write(&second);
    }
    // One that lacks only its shard's file, until that is there.
    assert!(serving.reload().await.unwrap_err().contains("header"));
    replace(&db.shard_path(db.shard_of(CHANGING)), &bytes);
    assert_eq!(serving.reload().await, Ok(Reloaded::Changed { epoch: 2, opened: 1 }));
    // What was served before is older than what clients have seen.
    db.write(&first);
    let error = serving.reload().await.unwrap_err();
    assert!(error.contains("has epoch 1") && error.contains("rollback"), "{error}");
    assert_eq!((serving.epoch(), serving.reloader.state().expected), (2, 1));
    serving.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_reloads_under_load_lose_no_query() {
    let db = database();
    let contents = [db.manifest(), {
        db.change(2);
        db.manifest()
    }];
    let serving = start(&db, bounds());
    let mut load = load(&db, &serving, None).await;
    load.more(3).await;
    for n in 0..100 {
        let next = db.next_of(&contents[n % 2]);
        db.write(&next);
        let changed = Ok(Reloaded::Changed { epoch: next.epoch, opened: 1 });
        assert_eq!(serving.reload().await, changed);
        let admitted = serving.counters.queries_admitted.get();
        until("queries go on", || serving.counters.queries_admitted.get() > admitted).await;
    }
    load.more(3).await;
    load.stop().await;
    assert_eq!((serving.counters.reloads_changed.get(), serving.epoch()), (100, 102));
    for status in [Status::ShardUnknown, Status::Device, Status::Deadline, Status::Overloaded] {
        assert_eq!(serving.counters.queries.get(status), 0, "{status:?}");
    }
    serving.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_truncated_under_load_harms_its_own_queries_only() {
    let db = database();
    let lost = db.shard_of(CHANGING);
    let path = db.shard_path(lost);
    let good = std::fs::read(&path).unwrap();
    let database = Database::open(&db.db()).unwrap();
    let sections = database.shard(lost).unwrap().header().sections();
    // In the matrix, in the last page of the tables, in the hints, and to nothing.
    let [matrix, tables, hints] = sections.map(|section| section.offset + section.bytes);
    for length in [matrix / 2, tables - 10, hints - 5000, 0] {
        replace(&path, &good);
        let serving = start(&db, bounds());
        let mut load = load(&db, &serving, Some(lost)).await;
        load.more(3).await;
        cut(&path, length);
        let refused = &serving.counters.refused_quarantined;
        until("its queries are refused", || refused.get() > 0).await;
        load.more(6).await;
        load.stop().await;
        assert_eq!(serving.reloader.state().quarantined_shards, 1);
        assert_eq!(serving.counters.queries.get(Status::Device), 0);
        // Told by the thread that looks after what is served, also without scrubbing.
        until("it is told", || serving.counters.scrub_problems.get() == 1).await;
        let mut client = serving.client(db.pins()).await;
        assert!(matches!(value(&mut client, CHANGING).await, Err(LookupError::ShardUnknown)));
        // While the file is still bad nothing changes; then it comes back.
        assert!(serving.reload().await.unwrap_err().contains("bytes, expected"));
        replace(&path, &good);
        assert_eq!(serving.reload().await, Ok(Reloaded::Changed { epoch: 1, opened: 1 }));
        assert_eq!(value(&mut client, CHANGING).await.unwrap(), "changed 1");
        assert_eq!(serving.reloader.state().quarantined_shards, 0);
        serving.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_shard_does_not_keep_a_new_epoch_out() {
    let db = database();
    let serving = start(&db, bounds());
    let mut client = serving.client(db.pins()).await;
    let changing = db.shard_of(CHANGING);
    let other = (0..KEYS).map(key).find(|key| db.shard_of(key) != changing).unwrap();
    cut(&db.shard_path(db.shard_of(&other)), 0);
    assert!(matches!(value(&mut client, &other).await, Err(LookupError::ShardUnknown)));
    // The builder would not go on with a bad file: another machine's does.
    let content = db.manifest();
    db.write(&db.next_of(&content));
    assert_eq!(serving.reload().await, Ok(Reloaded::Changed { epoch: 2, opened: 0 }));
    let mut client = serving.client(db.pins()).await;
    assert!(matches!(value(&mut client, &other).await, Err(LookupError::ShardUnknown)));
    assert_eq!(value(&mut client, CHANGING).await.unwrap(), "changed 1");
    serving.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_removed_goes_on_being_served() {
    let db = database();
    let serving = start(&db, ServerBounds { scrub_mib_per_second: 1024, ..bounds() });
    (0..SHARDS).for_each(|shard| std::fs::remove_file(db.shard_path(shard)).unwrap());
    let scrubbed = serving.counters.scrub_bytes.get();
    let mut client = serving.client(db.pins()).await;
    assert_eq!(value(&mut client, CHANGING).await.unwrap(), "changed 1");
    until("it is read again", || serving.counters.scrub_bytes.get() > scrubbed + 1_000_000).await;
    assert_eq!(serving.counters.scrub_problems.get(), 0);
    serving.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotten_shard_is_found_and_taken_out_and_others_are_not() {
    let db = database();
    let serving = start(&db, ServerBounds { scrub_mib_per_second: 1024, ..bounds() });
    let rotten = db.shard_of(CHANGING);
    let mut early = serving.client(db.pins()).await;
    assert_eq!(value(&mut early, CHANGING).await.unwrap(), "changed 1");
    // In the matrix. Nobody asks until it is found: such an answer would be INVALID.
    let (path, at) = (db.shard_path(rotten), HEADER_BYTES as u64 + 5);
    flip(&path, at);
    until("it is found", || serving.counters.scrub_problems.get() > 0).await;
    // Who has its hint is refused the answer, others the hint.
    assert!(matches!(value(&mut early, CHANGING).await, Err(LookupError::ShardUnknown)));
    assert_eq!(serving.counters.refused_quarantined.get(), 1);
    let mut late = serving.client(db.pins()).await;
    assert!(matches!(value(&mut late, CHANGING).await, Err(LookupError::ShardUnknown)));
    let mut load = load(&db, &serving, Some(rotten)).await;
    load.more(3).await;
    load.stop().await;
    let state = serving.reloader.state();
    assert_eq!((state.quarantined_shards, serving.counters.scrub_problems.get()), (1, 1));
    flip(&path, at);
    assert_eq!(serving.reload().await, Ok(Reloaded::Changed { epoch: 1, opened: 1 }));
    assert_eq!(value(&mut early, CHANGING).await.unwrap(), "changed 1");
    serving.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_is_found_by_who_watches() {
    let db = database();
    let serving = start(&db, bounds());
    let watching = tokio::spawn(serving.reloader.clone().watch(Duration::from_millis(5)));
    until("it has looked", || serving.counters.reloads_unchanged.get() > 0).await;
    // A manifest that comes before its file is tried again.
    db.change(2);
    let file = db.shard_path(db.shard_of(CHANGING));
    let (bytes, manifest) = (std::fs::read(&file).unwrap(), db.manifest());
    until("it is taken", || serving.epoch() == 2).await;
    db.change(3);
    until("it is taken", || serving.epoch() == 3).await;
    std::fs::remove_file(&file).unwrap();
    db.write(&db.next_of(&manifest));
    until("it is refused", || serving.counters.reloads_refused.get() > 1).await;
    assert_eq!(serving.epoch(), 3);
    replace(&file, &bytes);
    until("it is taken", || serving.epoch() == 4).await;
    watching.abort();
    serving.end().await;
}

fn rollback(db: &Built) -> (i32, String) {
    let (code, out, err) = run(sotto(&["rollback", "--db"]).arg(db.db()));
    (code, out + &err)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_is_a_new_epoch_and_the_next_one_the_way_back() {
    let db = database();
    let (code, said) = rollback(&db);
    assert!(code == 2 && said.contains("no epoch before"), "{said}");
    let first = db.manifest();
    db.change(2);
    let second = db.manifest();
    let serving = start(&db, bounds());
    let mut client = serving.client(db.pins()).await;
    for (epoch, content, then) in [(3, &first, "changed 1"), (4, &second, "changed 2")] {
        let (code, said) = rollback(&db);
        assert_eq!(code, 0, "{said}");
        assert!(said.contains(&format!("epoch {epoch} has the content of")), "{said}");
        let newest = db.manifest();
        assert_eq!((newest.epoch, &newest.shards), (epoch, &content.shards));
        assert_eq!(serving.reload().await, Ok(Reloaded::Changed { epoch, opened: 1 }));
        // A client that saw the epochs before goes along.
        let pins = client.close().await;
        client = serving.client(pins.clone()).await;
        assert!(client.pins().epoch() > pins.epoch());
        assert_eq!(value(&mut client, CHANGING).await.unwrap(), then);
    }
    // Without a file of the epoch before, or with another key: nothing changes.
    let before = Manifest::read(&db.db().join(MANIFEST_PREVIOUS_NAME)).unwrap();
    assert_eq!((before.epoch, &before.shards), (3, &first.shards));
    let key = keys::default_path(&db.db());
    let (right, newest) = (std::fs::read(&key).unwrap(), db.manifest());
    std::fs::remove_file(&key).unwrap();
    assert!(rollback(&db).1.contains("no such file"));
    keys::create(&key).unwrap();
    assert!(rollback(&db).1.contains("another key"));
    std::fs::write(&key, right).unwrap();
    let changed = db.shard_of(CHANGING) as usize;
    // A byte of it is wrong: its header is right, so that it would open.
    let file = db.db().join(SHARDS_DIR).join(&before.shards[changed].file);
    let whole = std::fs::read(&file).unwrap();
    flip(&file, whole.len() as u64 / 2);
    let (code, said) = rollback(&db);
    assert!(code == 2 && said.contains("does not match its digest"), "{said}");
    assert_eq!(db.manifest(), newest);
    std::fs::remove_file(&file).unwrap();
    let (code, said) = rollback(&db);
    assert!(code == 2 && said.contains(&before.shards[changed].file), "{said}");
    assert_eq!(db.manifest(), newest);
    serving.end().await;
}

#[tokio::test]
async fn a_server_reloads_at_sighup_and_leaves() {
    let place = Place::new();
    let mut command = place.command(&[], any());
    command.args(["--watch-seconds", "0"]);
    let server = Program::start(command, None);
    let mut records: Vec<_> = (0..300).map(record).collect();
    records[7].1 = b"changed".to_vec();
    place.built.build(&records, 3);
    let said = server.told(Signal::HUP, "another database is served").await;
    assert!(said.contains("epoch=2"), "{said}");
    server.leave().await;
}
