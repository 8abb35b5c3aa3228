//! `sotto part`: the parts of a build make what `sotto build` makes, whatever fails on the way.

#![allow(clippy::unwrap_used)]

mod harness;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use harness::program::sotto;
use sotto::builder::part::{BuildSpec, PartEntry};
use sotto::builder::sample;
use sotto::params::ShapeWishes;
use sotto::shard::manifest::MANIFEST_NAME;
use sotto::shard::verify::verify;
use sotto::shard::{Database, Manifest};

const SEED: &str = "5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e";
const SHARDS: u32 = 4;

/// A sample, and what a cluster would make of it in a folder.
struct Cluster {
    folder: tempfile::TempDir,
    lines: Vec<String>,
    /// Seconds since 1970 at which everything is signed.
    clock: u64,
}

impl Cluster {
    fn new(records: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut text = Vec::new();
        sample::write(records, &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        let lines = text.lines().skip(1).map(str::to_owned).collect();
        let cluster = Self { folder, lines, clock: 1_796_000_000 };
        cluster.spec(&["--shards", "4", "--seed", SEED]);
        cluster
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn spec(&self, more: &[&str]) {
        let longest = self.lines.iter().map(|line| line.split_once(',').unwrap().1.len()).max();
        let (records, longest) = (self.lines.len().to_string(), longest.unwrap().to_string());
        let sizes = ["part", "spec", "--records", &records, "--longest-value", &longest];
        let made = sotto(&[&sizes[..], more].concat()).output().unwrap();
        assert!(made.status.success(), "{}", said(&made));
        fs::write(self.path("spec.json"), made.stdout).unwrap();
    }

    fn parsed_spec(&self) -> BuildSpec {
        BuildSpec::parse(&fs::read(self.path("spec.json")).unwrap()).unwrap()
    }

    fn part(&self, arguments: &[&str]) -> Command {
        let spec = self.text("spec.json");
        let part = ["part", arguments[0], "--spec", &spec];
        let mut command = sotto(&[&part[..], &arguments[1..]].concat());
        command.env("SOURCE_DATE_EPOCH", self.clock.to_string());
        command
    }

    /// Records by shard, as `sotto part locate` says, the last ones first.
    fn by_shard(&self) -> BTreeMap<u32, Vec<String>> {
        let keys: Vec<&str> =
            self.lines.iter().map(|line| line.split_once(',').unwrap().0).collect();
        let located = with_input(&mut self.part(&["locate"]), keys.join("\n").as_bytes());
        assert!(located.status.success(), "{}", said(&located));
        let shards = String::from_utf8(located.stdout).unwrap();
        let mut by_shard: BTreeMap<u32, Vec<String>> =
            (0..SHARDS).map(|shard| (shard, Vec::new())).collect();
        assert_eq!(shards.lines().count(), self.lines.len());
        let located: Vec<_> = self.lines.iter().zip(shards.lines()).collect();
        for (line, shard) in located.into_iter().rev() {
            by_shard.get_mut(&shard.parse().unwrap()).unwrap().push(line.clone());
        }
        by_shard
    }

    fn encode(&self, shard: u32, lines: &[String], more: &[&str]) -> Output {
        let (shard, out) = (shard.to_string(), self.text("store"));
        let arguments = ["encode", "--shard", &shard, "--out", &out];
        let mut command = self.part(&[&arguments[..], more].concat());
        with_input(&mut command, csv(lines).as_bytes())
    }

    /// Encodes all shards; their entries.
    fn encode_all(&self, more: &[&str]) -> Vec<PartEntry> {
        let mut lines = Vec::new();
        let mut entries = Vec::new();
        for (shard, records) in self.by_shard() {
            let done = self.encode(shard, &records, more);
            assert!(done.status.success(), "{}", said(&done));
            entries.push(serde_json::from_slice(&done.stdout).unwrap());
            lines.extend(done.stdout);
        }
        fs::write(self.path("entries"), lines).unwrap();
        entries
    }

    fn finish(&self, more: &[&str]) -> Output {
        let (entries, store) = (self.text("entries"), self.text("store"));
        let arguments = ["finish", "--entries", &entries, "--store", &store];
        self.part(&[&arguments[..], more].concat()).output().unwrap()
    }

    fn finish_signed(&self) -> Output {
        self.finish(&["--signing-key", &self.text("key.pem")])
    }

    /// `sotto build` of the same records, which makes the key.
    fn build(&self) {
        fs::write(self.path("in.csv"), csv(&self.lines)).unwrap();
        let [input, out, key] = ["in.csv", "db", "key.pem"].map(|name| self.text(name));
        let built = sotto(&[
            "build",
            "--quiet",
            "--input",
            &input,
            "--out",
            &out,
            "--signing-key",
            &key,
            "--shards",
            "4",
            "--seed",
            SEED,
        ])
        .env("SOURCE_DATE_EPOCH", self.clock.to_string())
        .output()
        .unwrap();
        assert!(built.status.success(), "{}", said(&built));
    }

    fn manifest(&self, epoch: u64) -> Vec<u8> {
        fs::read(self.path(&format!("store/manifests/{epoch}.json"))).unwrap()
    }
}

fn csv(lines: &[String]) -> String {
    lines.iter().fold("sii,value\n".to_owned(), |text, line| text + line + "\n")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn start(command: &mut Command, input: &[u8]) -> Child {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // It may end before it has read all.
    std::thread::spawn(move || _ = stdin.write_all(&input));
    child
}

fn with_input(command: &mut Command, input: &[u8]) -> Output {
    start(command, input).wait_with_output().unwrap()
}

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let file = |entry: std::io::Result<fs::DirEntry>| {
        let entry = entry.unwrap();
        (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())
    };
    fs::read_dir(folder).unwrap().map(file).collect()
}

#[test]
fn parts_make_what_build_makes_to_the_byte() {
    let mut cluster = Cluster::new(3_000);
    cluster.build();
    let entries = cluster.encode_all(&[]);
    assert!(entries.iter().all(|entry| !entry.unchanged));
    // A shard that was encoded twice has two equal lines.
    let mut lines = fs::read(cluster.path("entries")).unwrap();
    lines.extend(serde_json::to_vec(&entries[2]).unwrap());
    fs::write(cluster.path("entries"), lines).unwrap();
    let finished = cluster.finish_signed();
    assert!(finished.status.success(), "{}", said(&finished));
    assert_eq!(files(&cluster.path("store/shards")), files(&cluster.path("db/shards")));
    assert_eq!(cluster.manifest(1), fs::read(cluster.path("db").join(MANIFEST_NAME)).unwrap());
    // Done again it changes nothing.
    let again = cluster.finish_signed();
    assert!(String::from_utf8_lossy(&again.stdout).contains("Nothing changed"), "{again:?}");

    // Another value of one record: one other shard.
    let before = cluster.text("store/manifests/1.json");
    cluster.lines[7] += "x";
    cluster.spec(&["--previous", &before]);
    let changed = cluster.encode_all(&["--previous", &before]);
    assert_eq!(changed.iter().filter(|entry| entry.unchanged).count(), 3);
    let finished = cluster.finish_signed();
    let text = String::from_utf8_lossy(&finished.stdout).into_owned();
    assert!(text.contains("epoch 2, 3000 records in 4 shards (3 unchanged)"), "{text}");
    cluster.build();
    let built = files(&cluster.path("db/shards"));
    assert_eq!(files(&cluster.path("store/shards")), built);
    let manifest = Manifest::parse(&cluster.manifest(2)).unwrap();
    assert_eq!((manifest.epoch, built.len()), (2, 5));
    // An unchanged shard whose file has gone is encoded again.
    fs::remove_file(cluster.path("store/shards").join(&manifest.shards[0].file)).unwrap();
    cluster.encode_all(&["--previous", &before]);
    assert_eq!(files(&cluster.path("store/shards")), built);
}

#[test]
fn records_that_do_not_belong_have_exit_codes_of_their_own() {
    let cluster = Cluster::new(2_000);
    let by_shard = cluster.by_shard();
    let refused = |shard: u32, lines: &[String], code: i32, expected: &str| {
        let done = cluster.encode(shard, lines, &[]);
        assert_eq!(done.status.code(), Some(code), "{}", said(&done));
        assert!(said(&done).contains(expected), "{}", said(&done));
        // No key is named.
        assert!(!lines.iter().any(|line| said(&done).contains(line.split(',').next().unwrap())));
        assert!(done.stdout.is_empty());
    };
    let own = &by_shard[&1];
    let mut misplaced = own.clone();
    misplaced.insert(4, by_shard[&2][0].clone());
    refused(
        1,
        &misplaced,
        12,
        "1 record of other shards than 1 by this spec:\n  record 5: it belongs to shard 2",
    );
    let mut repeated = own.clone();
    repeated.push(own[0].clone() + "y");
    let at = repeated.len();
    refused(1, &repeated, 12, &format!("record {at}: the key of record 1"));
    refused(4, own, 2, "the database has shards 0 to 3");
    let mut long = own.clone();
    long[3] += &"z".repeat(300);
    refused(1, &long, 2, "line 5: the value has");
    refused(1, &[own[0].clone(), "no record".into()], 2, "1 field, expected 2");
    // Far more records than one group has columns for.
    let spec = cluster.parsed_spec();
    let room = spec.shape.columns() * spec.shape.groups();
    let key = |number: usize| format!("+1{number:010}");
    let ours = (0..).map(key).filter(|key| spec.locate(key.as_bytes()) == 1);
    let many: Vec<String> = ours.take(room + 1).map(|key| key + ",v").collect();
    refused(1, &many, 10, "`sotto part spec --of SPEC --wider`");
    let wider = sotto(&["part", "spec", "--of", &cluster.text("spec.json"), "--wider"]).output();
    let wider = BuildSpec::parse(&wider.unwrap().stdout).unwrap();
    assert_eq!(wider.shape.columns(), spec.shape.columns() + 64);
    // An empty shard has a header alone; no input at all is an error.
    assert!(cluster.encode(3, &[], &[]).status.success());
    let out = cluster.text("store");
    let nothing = with_input(&mut cluster.part(&["encode", "--shard", "3", "--out", &out]), b"");
    assert_eq!(nothing.status.code(), Some(2), "{}", said(&nothing));
}

#[test]
fn a_row_that_is_too_noisy_asks_for_more_bits() {
    let cluster = Cluster::new(50);
    // The widest shape for which 11 bits are enough for a uniform row: the largest is beyond it.
    let shape = |columns| sotto::params::Shape::new(40, 128, 1, columns).unwrap();
    let eleven = |columns: &u32| shape(*columns).response_bits() == 11;
    let columns = (192..).step_by(64).take_while(eleven).last().unwrap();
    let spec = BuildSpec { seed: [4; 32], shard_count: 1, shape: shape(columns) };
    fs::write(cluster.path("spec.json"), spec.to_json()).unwrap();
    let noisy = cluster.encode(0, &cluster.lines, &[]);
    assert_eq!(noisy.status.code(), Some(11), "{}", said(&noisy));
    let more = sotto(&["part", "spec", "--of", &cluster.text("spec.json"), "--more-bits"]).output();
    fs::write(cluster.path("spec.json"), more.unwrap().stdout).unwrap();
    assert!(cluster.encode(0, &cluster.lines, &[]).status.success());
}

#[test]
fn a_manifest_needs_every_shard_and_its_file() {
    let cluster = Cluster::new(1_000);
    cluster.build();
    let entries = cluster.encode_all(&[]);
    let line = |entry: &PartEntry| entry.to_json() + "\n";
    let all: String = entries.iter().map(line).collect();
    let refused = |text: &str, expected: &str| {
        fs::write(cluster.path("entries"), text).unwrap();
        let done = cluster.finish_signed();
        assert_eq!(done.status.code(), Some(2), "{}", said(&done));
        assert!(said(&done).contains(expected), "{}", said(&done));
        assert!(!cluster.path("store/manifests/1.json").exists());
    };
    refused("", "the entries of 4 shards are missing: 0, 1, 2, 3");
    refused(&all.replace(&line(&entries[2]), ""), "the entries of 1 shard are missing: 2");
    refused(&(all.clone() + "{\"shard\""), "line 5 of the entries: it is no entry");
    let mut other = entries[1].clone();
    other.entry.records += 1;
    refused(&(all.clone() + &line(&other)), "another line says something else");
    other.shard = 4;
    refused(&(all.clone() + &line(&other)), "it is of shard 4, expected 0 to 3");
    let mut shaped = entries[1].clone();
    shaped.shape.columns += 64;
    refused(&(all.clone() + &line(&shaped)), "its shape is not that of the spec");
    // Two shards with each other's files.
    let mut swapped = entries.clone();
    (swapped[0].entry, swapped[1].entry) = (entries[1].entry.clone(), entries[0].entry.clone());
    refused(&swapped.iter().map(line).collect::<String>(), "shard number is 1, expected 0");
    let file = cluster.path("store/shards").join(&entries[3].entry.file);
    let bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[..bytes.len() - 1]).unwrap();
    refused(&all, "bytes, expected");
    fs::remove_file(&file).unwrap();
    refused(&all, "is not in the store: remove it if it is there, and encode the");
    fs::write(&file, bytes).unwrap();
    fs::write(cluster.path("entries"), &all).unwrap();
    assert!(cluster.finish_signed().status.success());

    // A second epoch with far fewer records, and one of another seed.
    let mut fewer = Cluster { lines: cluster.lines[..500].to_vec(), ..Cluster::new(1) };
    std::mem::swap(&mut fewer.folder, &mut { cluster }.folder);
    fewer.encode_all(&[]);
    let done = fewer.finish_signed();
    assert!(said(&done).contains("the input has 500 records"), "{}", said(&done));
    let key = fewer.text("key.pem");
    assert!(fewer.finish(&["--signing-key", &key, "--shrink-percent", "60"]).status.success());
    fewer.spec(&["--shards", "4"]);
    fewer.encode_all(&[]);
    let done = fewer.finish(&["--signing-key", &key, "--shrink-percent", "60"]);
    assert!(said(&done).contains("the spec has another seed"), "{}", said(&done));
}

#[test]
fn a_key_that_is_elsewhere_signs_bytes_in_a_file() {
    use ed25519_dalek::Signer as _;
    let cluster = Cluster::new(800);
    cluster.build();
    cluster.encode_all(&[]);
    let [unsigned, signature] = ["unsigned", "signature"].map(|name| cluster.text(name));
    let public = cluster.text("db/operator.pub");
    let first = ["--unsigned", &unsigned, "--operator-key", &public];
    let no_key = cluster.finish(&first[..2]);
    assert!(said(&no_key).contains("needs --operator-key"), "{}", said(&no_key));
    let written = cluster.finish(&first);
    assert!(written.status.success(), "{}", said(&written));
    let key = sotto::builder::keys::load(&cluster.path("key.pem")).unwrap().unwrap();
    let bytes = fs::read(&unsigned).unwrap();
    let signed = key.sign(&bytes).to_bytes();
    let second = [&first[..], &["--signature", &signature]].concat();
    for (wrong, expected) in [
        (&signed[..63], "has 63 bytes, expected the 64"),
        (&[signed, signed].concat(), "has more than 64 bytes"),
        (&[7; 64], "signature"),
    ] {
        fs::write(&signature, wrong).unwrap();
        let done = cluster.finish(&second);
        assert_eq!(done.status.code(), Some(2));
        assert!(said(&done).contains(expected), "{}", said(&done));
    }
    fs::write(&signature, signed).unwrap();
    // Later, by another clock: what was signed says from when on.
    let (entries, store) = (cluster.text("entries"), cluster.text("store"));
    let arguments = ["finish", "--entries", &entries, "--store", &store];
    let mut later = cluster.part(&[&arguments[..], &second].concat());
    let done = later.env("SOURCE_DATE_EPOCH", "1796000500").output().unwrap();
    assert!(done.status.success(), "{}", said(&done));
    assert_eq!(cluster.manifest(1), fs::read(cluster.path("db").join(MANIFEST_NAME)).unwrap());
    fs::remove_file(cluster.path("store/manifests/1.json")).unwrap();
    fs::write(&unsigned, &bytes[..bytes.len() - 1]).unwrap();
    assert_eq!(cluster.finish(&second).status.code(), Some(2));
}

/// One of two processes that encode a shard into one place is killed at a random moment: what is
/// there under the shard's name is always the whole shard.
#[test]
fn two_attempts_at_once_do_no_harm_when_one_is_killed() {
    let cluster = Cluster::new(600);
    let records = csv(&cluster.by_shard()[&2]);
    let whole = cluster.encode(2, &cluster.by_shard()[&2], &[]);
    let entry: PartEntry = serde_json::from_slice(&whole.stdout).unwrap();
    let path = cluster.path("store/shards").join(&entry.entry.file);
    let expected = fs::read(&path).unwrap();
    let out = cluster.text("store");
    let arguments = ["encode", "--shard", "2", "--out", &out];
    let attempt = || start(&mut cluster.part(&arguments), records.as_bytes());
    let begun = std::time::Instant::now();
    assert!(attempt().wait_with_output().unwrap().status.success());
    let takes = begun.elapsed().as_micros() as u64;
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut killed = 0;
    for round in 0..100 {
        fs::remove_file(&path).unwrap();
        let (mut first, second) = (attempt(), attempt());
        let random =
            u64::from_le_bytes(sotto::scheme::random_bytes().unwrap()[..8].try_into().unwrap());
        let moment = Duration::from_micros(random % (3 * takes));
        runtime.block_on(async { tokio::time::sleep(moment).await });
        first.kill().unwrap();
        killed += u32::from(first.wait().unwrap().code().is_none());
        let second = second.wait_with_output().unwrap();
        assert!(second.status.success(), "round {round}: {}", said(&second));
        assert_eq!(second.stdout, whole.stdout);
        assert!(fs::read(&path).unwrap() == expected, "round {round}");
    }
    assert!(killed > 10, "{killed} of 100 were killed before they ended");
    let names: BTreeSet<String> = files(&cluster.path("store/shards")).into_keys().collect();
    let left = names.iter().filter(|name| **name != entry.entry.file);
    assert!(left.clone().all(|name| name.ends_with(".tmp")), "{names:?}");
}

#[test]
fn a_placement_is_made_checked_and_compared() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let hosts = |count: usize| -> String {
        (0..count).map(|at| format!("answers-{at} 127.0.0.1:{} # one\n", 4_433 + at)).collect()
    };
    let make = |count: usize| {
        fs::write(path("hosts"), hosts(count)).unwrap();
        let made = ["placement", "make", "--hosts", &path("hosts"), "--shards", "10000"];
        let made = sotto(&made).output().unwrap();
        assert!(made.status.success(), "{}", said(&made));
        let name = path(&format!("{count}.json"));
        fs::write(&name, made.stdout).unwrap();
        name
    };
    let (before, after) = (make(8), make(9));
    let text = |output: &Output| String::from_utf8_lossy(&output.stdout).into_owned();
    let checked = sotto(&["placement", "check", &before]).output().unwrap();
    assert!(checked.status.success(), "{}", said(&checked));
    assert!(text(&checked).contains("10,000 shards on 8 hosts"), "{}", text(&checked));
    let more = sotto(&["placement", "check", &before, "--copies", "3"]).output().unwrap();
    assert_eq!(more.status.code(), Some(1));
    assert!(said(&more).contains("10,000 shards with fewer than 3 hosts: 0-9999"), "{more:?}");
    let compared = sotto(&["placement", "diff", &before, &after]).output().unwrap();
    assert!(text(&compared).contains("answers-8  fetches 22"), "{}", text(&compared));
    fs::write(path("hosts"), "answers-0\n").unwrap();
    let wrong = sotto(&["placement", "make", "--hosts", &path("hosts"), "--shards", "4"]);
    let wrong = { wrong }.output().unwrap();
    assert!(said(&wrong).contains("line 1: expected a name and an address"), "{wrong:?}");
}

#[test]
fn keys_are_located_as_the_vectors_say() {
    #[derive(serde::Deserialize)]
    struct Vector {
        seed: String,
        shard_count: u32,
        key: String,
        shard: u32,
    }
    let vectors = include_bytes!("vectors/locate.json");
    let vectors: Vec<Vector> = serde_json::from_slice(vectors).unwrap();
    assert_eq!(vectors.len(), 1_000);
    let shape = sotto::params::Shape::for_records(1_000, 40, ShapeWishes::default()).unwrap();
    for Vector { seed, shard_count, key, shard } in vectors {
        let seed = sotto::wire::hex::decode_array(&seed).unwrap();
        let spec = BuildSpec { seed, shard_count, shape };
        assert_eq!(spec.locate(key.as_bytes()), shard, "{key}");
    }
}

#[test]
fn what_parts_made_is_served_from_a_copy() {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let cluster = Cluster { clock: since.as_secs(), ..Cluster::new(1_000) };
    cluster.build();
    cluster.encode_all(&[]);
    assert!(cluster.finish_signed().status.success());
    let [store, copy, key] = ["store", "copy", "db/operator.pub"].map(|name| cluster.text(name));
    let announced = sotto(&["store", "announce", "--store", &store, "--epoch", "1"]).output();
    assert!(announced.unwrap().status.success());
    let fetch = ["store", "fetch", "--store", &store, "--db", &copy, "--operator-key", &key];
    let fetched = sotto(&fetch).output().unwrap();
    assert!(fetched.status.success(), "{}", said(&fetched));
    let database = Database::open(&cluster.path("copy")).unwrap();
    assert!(verify(&database, &|_| ()).is_empty());
}
