//! A store in a folder: pushed, announced, fetched, collected.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::place::ANNOUNCED;
use super::*;
use crate::client::OperatorKey;
use crate::pull::Step;
use crate::shard::header::file_bytes;
use crate::shard::manifest::{
    MANIFEST_NAME, MANIFEST_NEXT_NAME, MANIFEST_PREVIOUS_NAME, SHARDS_DIR,
};
use crate::shard::verify::verify;
use crate::shard::{Database, HeldBy, Manifest, noise};

const NOW: u64 = 1_000;

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap() };
        fs::create_dir(place.path("db")).unwrap();
        fs::create_dir(place.path("store")).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn store(&self) -> Store {
        Store::open(self.path("store").to_str().unwrap()).unwrap()
    }

    async fn push(&self, epoch: u64, contents: &[u8]) -> Pushed {
        noise::write(&self.path("db"), epoch, contents);
        push(&self.store(), &self.path("db"), &|_| ()).await.unwrap()
    }

    fn manifest(&self, name: &str) -> Manifest {
        Manifest::read(&self.path("copy").join(name)).unwrap()
    }

    async fn fetch(&self, held: Option<&str>) -> Result<Fetched, StoreError> {
        self.fetch_knowing(held, &mut Vec::new()).await
    }

    async fn fetch_knowing(
        &self,
        held: Option<&str>,
        known: &mut Vec<Manifest>,
    ) -> Result<Fetched, StoreError> {
        let manifest = Manifest::read(&self.path("db").join(MANIFEST_NAME)).unwrap();
        let held_by = held.map(|shards| {
            let (placement, host) = (self.path("placement.json"), "a-0".to_owned());
            let host_json = format!(
                "{{\"name\": \"{host}\", \"address\": \"a:4433\", \"shards\": \"{shards}\"}}"
            );
            let shard_count = manifest.shard_count;
            let json = format!(
                "{{\"version\": 1, \"shard_count\": {shard_count}, \"hosts\": [{host_json}]}}"
            );
            fs::write(&placement, json).unwrap();
            HeldBy { placement, host }
        });
        let options = FetchOptions {
            db: self.path("copy"),
            operator_key: OperatorKey(manifest.operator_key.0),
            held_by,
        };
        fetch(&self.store(), &options, NOW, known, &|_: Step| ()).await
    }

    fn files(&self, below: &str) -> usize {
        fs::read_dir(self.path(below)).unwrap().count()
    }
}

fn object(place: &Place, manifest: &Manifest, shard: usize) -> PathBuf {
    place.path("store").join(SHARDS_DIR).join(&manifest.shards[shard].file)
}

fn spoil(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn a_push_uploads_what_is_missing_and_an_epoch_has_one_manifest() {
    let place = Place::new();
    let first = place.push(1, &[0, 1, 2]).await;
    assert_eq!((first.epoch, first.shards, first.files), (1, 3, 3));
    let again = place.push(1, &[0, 1, 2]).await;
    assert_eq!((again.files, again.bytes), (0, 0));
    assert_eq!(place.push(2, &[0, 1, 9]).await.files, 1);
    assert_eq!(newest(&place.store()).await.unwrap().unwrap().epoch, 2);
    // Another manifest of an epoch that is there.
    noise::write(&place.path("db"), 2, &[0, 1, 8]);
    let taken = push(&place.store(), &place.path("db"), &|_| ()).await.unwrap_err();
    assert!(matches!(taken, StoreError::Taken { epoch: 2 }), "{taken}");
    // A file that is not what its header says is not copied.
    noise::write(&place.path("db"), 3, &[0, 1, 7]);
    let manifest = Manifest::read(&place.path("db").join(MANIFEST_NAME)).unwrap();
    spoil(&place.path("db").join(SHARDS_DIR).join(&manifest.shards[2].file), 9_000);
    let damaged = push(&place.store(), &place.path("db"), &|_| ()).await.unwrap_err();
    assert!(matches!(damaged, StoreError::Damaged { .. }), "{damaged}");
    assert!(!object(&place, &manifest, 2).exists());
}

#[tokio::test]
async fn of_two_who_announce_one_does_and_no_epoch_goes_back() {
    let place = Place::new();
    let store = place.store();
    assert!(matches!(announce(&store, 1).await, Err(StoreError::Empty)));
    for epoch in 1..=3 {
        place.push(epoch, &[epoch as u8]).await;
    }
    let none = announce(&store, 7).await.unwrap_err();
    assert!(matches!(none, StoreError::NoEpoch { epoch: 7, newest: 3 }), "{none}");
    let (one, other) = tokio::join!(announce(&store, 2), announce(&store, 2));
    let both = [one.unwrap(), other.unwrap()];
    assert!(both.contains(&Announced::Now) && both.contains(&Announced::Before), "{both:?}");
    let older = announce(&store, 1).await.unwrap_err();
    assert!(matches!(older, StoreError::Older { epoch: 1, newest: 2 }), "{older}");
}

#[tokio::test]
async fn a_host_gets_what_it_holds_and_an_announced_epoch_takes_the_place_of_the_one_before() {
    let place = Place::new();
    assert!(matches!(newest(&place.store()).await, Ok(None)));
    place.push(1, &[0, 1, 2, 3]).await;
    announce(&place.store(), 1).await.unwrap();
    let fetched = place.fetch(Some("1-2")).await.unwrap();
    assert_eq!((fetched.epoch, fetched.staged, fetched.files), (Some(1), None, 2));
    assert_eq!(place.files("copy/shards"), 2);
    // The next epoch comes, and is not to be used yet.
    place.push(2, &[0, 11, 2, 13]).await;
    let fetched = place.fetch(Some("1-2")).await.unwrap();
    assert_eq!((fetched.epoch, fetched.staged, fetched.files), (Some(1), Some(2), 1));
    let epochs = [MANIFEST_NAME, MANIFEST_NEXT_NAME].map(|name| place.manifest(name).epoch);
    assert_eq!((epochs, place.files("copy/shards")), ([1, 2], 3));
    assert_eq!(place.fetch(Some("1-2")).await.unwrap().files, 0);
    announce(&place.store(), 2).await.unwrap();
    let fetched = place.fetch(Some("1-2")).await.unwrap();
    assert_eq!((fetched.epoch, fetched.staged, fetched.files), (Some(2), None, 0));
    let epochs = [MANIFEST_NAME, MANIFEST_PREVIOUS_NAME].map(|name| place.manifest(name).epoch);
    assert_eq!(epochs, [2, 1]);
    assert!(!place.path("copy").join(MANIFEST_NEXT_NAME).exists());
    // A host that has all serves what comes.
    let all = place.fetch(None).await.unwrap();
    assert_eq!(all.files, 2);
    assert!(verify(&Database::open(&place.path("copy")).unwrap(), &|_| ()).is_empty());
}

#[tokio::test]
async fn a_manifest_is_read_once_by_who_looks_again_and_again() {
    let place = Place::new();
    place.push(1, &[0, 1]).await;
    announce(&place.store(), 1).await.unwrap();
    place.push(2, &[0, 2]).await;
    let mut known = Vec::new();
    let first = place.fetch_knowing(None, &mut known).await.unwrap();
    let epochs: Vec<u64> = known.iter().map(|manifest| manifest.epoch).collect();
    assert_eq!((first.epoch, first.staged, epochs), (Some(1), Some(2), vec![1, 2]));
    // What nobody reads may be anything.
    for epoch in [1, 2] {
        fs::write(place.path(&format!("store/manifests/{epoch}.json")), "{").unwrap();
    }
    let again = place.fetch_knowing(None, &mut known).await.unwrap();
    assert_eq!((again.epoch, again.staged, again.files), (Some(1), Some(2), 0));
    assert!(place.fetch(None).await.is_err());
}

#[tokio::test]
async fn a_download_that_was_cut_goes_on_and_a_rotten_object_is_refused() {
    let place = Place::new();
    place.push(1, &[0, 1]).await;
    announce(&place.store(), 1).await.unwrap();
    let manifest = Manifest::read(&place.path("db").join(MANIFEST_NAME)).unwrap();
    let whole = fs::read(object(&place, &manifest, 0)).unwrap();
    fs::create_dir_all(place.path("copy/shards")).unwrap();
    let part = place.path("copy/shards").join(format!("{}.part", manifest.shards[0].file));
    let half = whole.len() / 2;
    // What came before is right, then wrong, then too long.
    for (start, came) in [
        (whole[..half].to_vec(), whole.len() - half),
        (vec![7; half], 2 * whole.len() - half),
        (vec![7; whole.len() + 1], whole.len()),
        (whole.clone(), 0),
    ] {
        let _ = fs::remove_file(place.path("copy/shards").join(&manifest.shards[0].file));
        fs::write(&part, start).unwrap();
        let before = place.fetch(Some("0")).await.unwrap();
        assert_eq!((before.files, before.bytes), (1, came as u64));
        assert!(!part.exists());
    }
    let rotten = object(&place, &manifest, 1);
    spoil(&rotten, 9_000);
    let refused = place.fetch(None).await.unwrap_err().to_string();
    assert!(refused.contains("is not what its operator signed"), "{refused}");
    assert!(!place.path("copy/shards").join(&manifest.shards[1].file).exists());
    fs::write(&rotten, b"short").unwrap();
    let refused = place.fetch(None).await.unwrap_err().to_string();
    assert!(refused.contains(&format!("has 5 bytes, expected {}", whole.len())), "{refused}");
    fs::remove_file(&rotten).unwrap();
    let refused = place.fetch(None).await.unwrap_err().to_string();
    assert!(refused.contains("is not there"), "{refused}");
    assert_eq!(whole.len() as u64, file_bytes(&manifest.shape()));
    let found = check_files(&place.store(), &manifest).await.unwrap_err();
    assert!(matches!(found, StoreError::File { shard: 1, .. }), "{found}");
}

#[tokio::test]
async fn what_kept_epochs_name_stays_and_what_is_young() {
    let place = Place::new();
    let store = place.store();
    // By the clock of the store, which is this machine's.
    let now = fs::metadata(place.path("db")).unwrap().modified().unwrap();
    let later = now + Duration::from_secs(7_200);
    let keep = Keep { epochs: 2, younger: Duration::from_secs(3_600) };
    assert!(matches!(collect(&store, &keep, later).await, Err(StoreError::Empty)));
    for epoch in 1..=5 {
        place.push(epoch, &[0, epoch as u8]).await;
    }
    let stray = place.path("store/shards/aa.shard.x.tmp");
    fs::write(&stray, "left by a process that was killed").unwrap();
    // The announced epoch is older than the newest two, and stays with all after it.
    announce(&store, 3).await.unwrap();
    assert_eq!(collect(&store, &keep, now).await.unwrap(), Collected::default());
    let collected = collect(&store, &keep, later).await.unwrap();
    assert_eq!((collected.manifests, collected.files), (2, 3));
    assert!(!stray.exists());
    for epoch in 3..=5 {
        let manifest = super::publish::manifest(&store, epoch).await.unwrap().unwrap();
        check_files(&store, &manifest).await.unwrap();
    }
    announce(&store, 5).await.unwrap();
    let collected = collect(&store, &keep, later).await.unwrap();
    assert_eq!((collected.manifests, collected.files), (1, 1));
    assert_eq!(store.epochs(ANNOUNCED, "").await.unwrap(), [5]);
    assert_eq!(collect(&store, &keep, later).await.unwrap(), Collected::default());
}

#[test]
fn a_place_is_a_folder_or_a_url() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    assert!(Store::open(path).is_ok() && Store::open(&format!("file://{path}")).is_ok());
    for (place, said) in [
        (format!("{path}/none"), "there is no such folder"),
        ("gopher://a/b".into(), "gopher"),
        ("s3://".into(), "s3://"),
    ] {
        let error = Store::open(&place).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
}
