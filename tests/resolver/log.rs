//! Epochs that have to be in a log, and the owner's look-up of themselves.

use super::*;
use sotto::discovery::directory::Log;
use sotto::discovery::log::entry::{Entry, Manifest};
use sotto::discovery::log::proof::nodes;
use sotto::discovery::log::tree::{Node, fold};
use sotto::discovery::log::{EpochProof, Hash, LogError, LogKey, leaf_hash, salted_hash};
use sotto::discovery::resolver::{EndedBy, Own, OwnService};
use sotto::discovery::statement::Ssi;

const NAME: &str = "log.example/1";

/// A log in memory, and the file of its proofs of the first database.
#[derive(Clone, Default)]
struct Leaves {
    leaves: Vec<Hash>,
    previous: u64,
    file: Vec<u8>,
}

impl Leaves {
    fn statements(&mut self, salt: u8, count: u64) {
        let hash = |number: u64| salted_hash(&[salt; 16], &number.to_be_bytes());
        let leaf = |number| leaf_hash(&Entry::Statement(hash(number)).encode());
        self.leaves.extend((0..count).map(leaf));
    }

    fn node(&self, Node { height, number }: Node) -> Hash {
        let first = (number << height) as usize;
        fold(&self.leaves[first..first + (1 << height)])
    }

    /// Adds the manifest of the database, so many epochs later than its answers.
    fn epoch(&mut self, later: u64) {
        let digest = fixture().parameters_digest(later);
        let epoch = fixture().epoch() + later;
        let manifest = Manifest { database: ONE.into(), epoch, digest };
        let places = (self.previous, self.leaves.len() as u64);
        self.leaves.push(leaf_hash(&Entry::Manifest(manifest.clone()).encode()));
        let hashes = nodes(places.0, places.1).into_iter().map(|node| self.node(node)).collect();
        let log = LogKey::new(NAME, &key("log").verifying_key().to_bytes()).unwrap();
        self.file.extend(EpochProof::sign(&log, &key("log"), &manifest, places, hashes).encode());
        self.previous = places.1 + 1;
    }
}

/// The directory, a version later for each `number`, with or without a log.
fn directory(number: u64, log: Option<&str>) -> String {
    let mut content = fixture().content.clone();
    content.version += number;
    let log = log.map(|name| Log { name: NAME.into(), key: key(name).verifying_key().into() });
    content.databases.iter_mut().find(|entry| entry.id == ONE).unwrap().log = log;
    Fixture::sign(&content)
}

fn is_log_error(error: &ResolveError, expected: &LogError) -> bool {
    matches!(error, ResolveError::Log { database, error } if database == ONE && error == expected)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_epoch_is_accepted_with_its_proof_alone() {
    let relay = Relay::start().await;
    let folder = tempfile::tempdir().unwrap();
    relay.script().directory = directory(1, Some("log"));
    let mut resolver = relay.resolver(&folder).await;
    // There is no proof.
    let error = sync(&mut resolver, &contacts(0..16)).await.unwrap_err();
    assert!(error.to_string().contains("404"), "{error}");
    let epoch = fixture().epoch();
    let mut log = Leaves::default();
    log.statements(1, 9);
    log.epoch(0);
    relay.script().proof = Some(log.file.clone());
    let report = sync(&mut resolver, &contacts(0..16)).await.unwrap();
    assert_eq!(report.found, 16);
    let fetched = |seen: &[Seen]| seen.iter().any(|seen| seen.path == "/databases/one/proof");
    assert!(fetched(&relay.take_seen()));

    // The next epoch without its proof, then with one of a log that had another past.
    relay.script().later = 1;
    let none = LogError::NoProof { epoch: epoch + 1, newest: epoch };
    let mut fork = Leaves::default();
    fork.statements(2, 9);
    fork.epoch(0);
    fork.epoch(1);
    let forked = LogError::Forked { size: 10 };
    for (file, expected) in [(&log.file, none), (&fork.file, forked)] {
        relay.script().proof = Some(file.clone());
        relay.take_seen();
        let error = sync(&mut resolver, &contacts(0..32)).await.unwrap_err();
        assert!(is_log_error(&error, &expected), "{error}");
        assert_eq!(sealed_count(&relay.take_seen(), "/lookup"), 0);
        // What was verified is kept over a restart.
        drop(resolver);
        resolver = relay.resolver(&folder).await;
    }
    // The right proof, two epochs later.
    log.statements(3, 700);
    log.epoch(1);
    log.epoch(2);
    relay.script().later = 2;
    relay.script().proof = Some(log.file.clone());
    sync(&mut resolver, &contacts(0..16)).await.unwrap();
    assert_eq!(resolver.report().epochs[ONE], epoch + 2);
    relay.take_seen();
    sync(&mut resolver, &contacts(0..16)).await.unwrap();
    assert!(!fetched(&relay.take_seen()), "it was verified before");
    // Away for more epochs than the file has: those before are asked for, from where it was.
    let newest = Leaves { file: Vec::new(), ..log.clone() };
    let mut away = newest;
    for later in 3..=40 {
        away.statements(later as u8, later % 4);
        away.epoch(later);
    }
    let newest = |file: &[u8]| {
        let all = EpochProof::decode_many(file, 100).unwrap();
        all[all.len() - 32..].iter().flat_map(EpochProof::encode).collect::<Vec<u8>>()
    };
    relay.script().later = 40;
    relay.script().proof = Some(newest(&away.file));
    let error = sync(&mut resolver, &contacts(0..16)).await.unwrap_err();
    assert!(matches!(&error, ResolveError::Log { error: LogError::Gap { .. }, .. }), "{error}");
    relay.script().old_proofs = Some(away.file.clone());
    sync(&mut resolver, &contacts(0..16)).await.unwrap();
    assert_eq!(resolver.report().epochs[ONE], epoch + 40);
    // A directory with another log, or without, is refused while the pin is kept.
    for (number, other) in [(2, Some("other")), (3, None)] {
        relay.script().directory = directory(number, other);
        let error = sync(&mut resolver, &contacts(0..32)).await.unwrap_err();
        assert!(is_log_error(&error, &LogError::KeyChanged), "{error}");
        drop(resolver);
        resolver = relay.resolver(&folder).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_finds_a_mapping_that_is_not_theirs() {
    let relay = Relay::start().await;
    let folder = tempfile::tempdir().unwrap();
    let mut resolver = relay.resolver(&folder).await;
    let me = number(20);
    let own = |handle: &str| {
        let services =
            vec![OwnService { ssi: Ssi::new("a.example", handle).unwrap(), key: [7; 32] }];
        vec![Own { identifier: me.clone(), services }]
    };
    resolver.set_own(own(&handle(&me)));
    assert!(resolver.unknown_mappings().is_empty());
    let report = sync(&mut resolver, &contacts(0..15)).await.unwrap();
    assert_eq!((report.evaluated, report.found, report.batches), (16, 16, 1));
    assert!(resolver.unknown_mappings().is_empty());
    // What is sent for it is what would be sent for a contact.
    let alone = relay.take_seen();
    let (other, elsewhere) = (Relay::start().await, tempfile::tempdir().unwrap());
    let mut like = other.resolver(&elsewhere).await;
    sync(&mut like, &[contacts(0..15), vec![me.clone()]].concat()).await.unwrap();
    let shape =
        |seen: &[Seen]| seen.iter().map(|seen| (seen.path.clone(), seen.bytes)).collect::<Vec<_>>();
    assert_eq!(shape(&alone), shape(&other.take_seen()));
    // The owner registered something else.
    resolver.set_own(own("somebody-else"));
    let unknown = resolver.unknown_mappings();
    let [found] = &unknown[..] else { panic!("{} mappings", unknown.len()) };
    assert_eq!((&*found.database, &*found.provider), (ONE, "a.example"));
    assert_eq!(found.ssi.as_ref().unwrap().handle(), handle(&me));
    assert!(matches!(found.ended_by, EndedBy::NewProof), "it has no key of the owner");
    assert!(!format!("{found:?}").contains(&handle(&me)));
}
