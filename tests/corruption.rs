//! A database that was damaged, cut or mixed up is refused by name, at open or by verify.

#![allow(clippy::unwrap_used)]

mod harness;

use std::fs;
use std::path::Path;

use harness::program::{run as run_program, sotto};
use harness::{Built, record};
use sotto::builder::keys::default_path;
use sotto::builder::{BuildOptions, Silent, run};
use sotto::keyword::{Outcome, band, extract, locate};
use sotto::params::{Shape, ShapeFields};
use sotto::scheme::{KeyBundle, SecretPool, Sharing, reference};
use sotto::shard::header::{HEADER_BYTES, SECTION_NAMES};
use sotto::shard::manifest::{MANIFEST_NAME, SHARDS_DIR};
use sotto::shard::verify::verify;
use sotto::shard::write::entry;
use sotto::shard::{Database, Header, Manifest, ManifestHead};
use sotto::wire::SigningKey;

const SHARDS: u32 = 3;

/// A database of three small shards.
fn built(seed: u8) -> Built {
    let records: Vec<_> = (0..600).map(record).collect();
    Built::with(&records, SHARDS, |options| {
        (options.seed, options.created) = (Some([seed; 32]), Some(1));
    })
}

impl Built {
    fn open_error(&self) -> String {
        Database::open(&self.db()).unwrap_err().to_string()
    }

    /// The problems that verify finds, of a database that opens.
    fn problems(&self) -> Vec<String> {
        let database = Database::open(&self.db()).unwrap();
        verify(&database, &|_| ()).iter().map(ToString::to_string).collect()
    }

    /// With this file in place of shard 1's the database does not open: the error names the file
    /// and has these words.
    fn refuses(&self, bytes: &[u8], words: &[&str]) {
        self.with_shard(bytes, |name| {
            let error = self.open_error();
            let is_said = |word: &&str| error.contains(*word);
            assert!([name].iter().chain(words).all(is_said), "{words:?}: {error}");
        });
    }

    /// Puts a changed file in place of shard 1's for as long as `check` runs.
    fn with_shard(&self, bytes: &[u8], check: impl FnOnce(&str)) {
        let path = self.shard_path(1);
        let good = fs::read(&path).unwrap();
        replace(&path, bytes);
        check(path.file_name().unwrap().to_str().unwrap());
        replace(&path, &good);
    }
}

/// Files are never written in place: other tests' maps stay whole.
fn replace(path: &Path, bytes: &[u8]) {
    let beside = path.with_extension("new");
    fs::write(&beside, bytes).unwrap();
    fs::rename(&beside, path).unwrap();
}

fn header_of(bytes: &[u8]) -> Header {
    Header::decode(bytes[..HEADER_BYTES].try_into().unwrap()).unwrap()
}

/// Headers whose own digest is right, but which are not what the manifest names.
#[test]
fn a_rewritten_header_is_refused_at_open() {
    let built = built(1);
    let good = fs::read(built.shard_path(1)).unwrap();
    let base = header_of(&good);
    let fields = base.shape.fields();
    let bits = Shape::from_fields(ShapeFields { response_bits: 12, ..fields }).unwrap();
    let digests = |section: usize| {
        let mut digests = base.section_digests;
        digests[section][0] ^= 1;
        digests
    };
    let changes = [
        ("seed", Header { seed: [9; 32], ..base.clone() }),
        ("shard number", Header { shard_index: 2, ..base.clone() }),
        ("shard count", Header { shard_count: 4, ..base.clone() }),
        ("shape", Header { shape: bits, ..base.clone() }),
        ("ribbon seed", Header { ribbon_seed: base.ribbon_seed ^ 1, ..base.clone() }),
        ("record count", Header { records: base.records + 1, ..base.clone() }),
        ("records digest", Header { records_digest: [0; 32], ..base.clone() }),
        ("hint digest", Header { section_digests: digests(2), ..base.clone() }),
        ("header digest", Header { section_digests: digests(0), ..base.clone() }),
        ("matrix row", Header { row_square_sum_max: 1 << 40, ..base.clone() }),
    ];
    for (reason, header) in changes {
        let mut changed = good.clone();
        changed[..HEADER_BYTES].copy_from_slice(&header.encode());
        built.refuses(&changed, &[reason]);
    }
}

#[test]
fn format_1_is_refused_with_the_reason_and_the_way() {
    let built = built(1);
    let words = ["format 1, expected 2", "does not bind a value", "in another directory"];
    let refused = |error: &str| assert!(words.iter().all(|word| error.contains(word)), "{error}");
    let mut shard = fs::read(built.shard_path(1)).unwrap();
    shard[8] = 1;
    built.refuses(&shard, &words);
    let path = built.db().join(MANIFEST_NAME);
    let text = fs::read_to_string(&path).unwrap();
    let older = text.replacen("\"format\": 2", "\"format\": 1", 1);
    assert_ne!(older, text);
    fs::write(&path, &older).unwrap();
    refused(&built.open_error());
    refused(&run(&built.options(SHARDS), &Silent).unwrap_err().to_string());
    assert_eq!(fs::read_to_string(&path).unwrap(), older, "nothing is lost");
    // The way: elsewhere, with what clients know the database by.
    let (out, signing_key) = (built.path("again"), Some(default_path(&built.db())));
    let (seed, created) = (Some([1; 32]), Some(1));
    let same = built.options(SHARDS);
    let options = BuildOptions { out: out.clone(), signing_key, seed, created, ..same };
    run(&options, &Silent).unwrap();
    let again = Manifest::read(&out.join(MANIFEST_NAME)).unwrap();
    let before = Manifest::parse(text.as_bytes()).unwrap();
    assert_eq!((again.seed, again.operator_key), (before.seed, before.operator_key));
    assert_eq!(again.shards, before.shards);
}

#[test]
fn a_changed_byte_of_a_section_is_found_by_verify() {
    let built = built(1);
    let good = fs::read(built.shard_path(1)).unwrap();
    let sections = header_of(&good).sections();
    for (section, name) in sections.iter().zip(SECTION_NAMES) {
        let places = [section.offset, section.offset + section.bytes / 2];
        for at in places.into_iter().chain([section.offset + section.bytes - 1]) {
            let mut changed = good.clone();
            changed[at as usize] ^= 0x80;
            built.with_shard(&changed, |file| {
                let problems = built.problems();
                assert_eq!(problems.len(), 1, "{problems:?}");
                assert!(problems[0].contains(file) && problems[0].contains(name), "{problems:?}");
            });
        }
        let fill = (section.offset + section.bytes) as usize;
        if !fill.is_multiple_of(HEADER_BYTES) {
            let mut changed = good.clone();
            changed[fill] = 1;
            built.with_shard(&changed, |file| {
                let problems = built.problems().concat();
                assert!(problems.contains(file) && problems.contains("zero"), "{problems}");
            });
        }
    }
    assert!(built.problems().is_empty());
}

#[test]
fn truncated_and_longer_files_are_refused_at_open() {
    let built = built(1);
    let good = fs::read(built.shard_path(1)).unwrap();
    let mut longer = good.clone();
    longer.push(0);
    for bytes in [&good[..good.len() - 1], &good[..HEADER_BYTES], &good[..100], &[], &longer] {
        built.refuses(bytes, &[&format!("has {} bytes, expected {}", bytes.len(), good.len())]);
    }
    fs::remove_file(built.shard_path(2)).unwrap();
    let error = built.open_error();
    assert!(error.contains(&built.manifest().shards[2].file), "{error}");
}

#[test]
fn a_changed_manifest_is_refused_at_open() {
    let built = built(1);
    let path = built.db().join(MANIFEST_NAME);
    let good = fs::read(&path).unwrap();
    let mut manifest = Manifest::parse(&good).unwrap();
    manifest.shards[0].file = "../../etc/passwd".into();
    fs::write(&path, manifest.to_json()).unwrap();
    let error = built.open_error();
    assert!(error.contains(MANIFEST_NAME) && error.contains("file of shard 0"), "{error}");
    // Signed by another operator, with that operator's key in it: it opens, for which operator to
    // trust is the client's to say, but the key is the other one.
    let parsed = Manifest::parse(&good).unwrap();
    let key = SigningKey::from_bytes(&[8; 32]);
    let mut forged = Manifest::sign(&parsed.head(), parsed.shards.clone(), &key).unwrap();
    fs::write(&path, forged.to_json()).unwrap();
    assert_ne!(Database::open(&built.db()).unwrap().operator_key(), &parsed.operator_key.0);
    forged.operator_key = parsed.operator_key;
    fs::write(&path, forged.to_json()).unwrap();
    assert!(built.open_error().contains("changed after it was signed"), "{}", built.open_error());
    fs::write(&path, &good[..good.len() / 2]).unwrap();
    assert!(built.open_error().contains("is not a manifest"), "{}", built.open_error());
}

/// What the owner of a database's directory can make of it who lacks the operator's key: another
/// matrix, with digests, file name and manifest entry that fit.
#[test]
fn a_zeroed_matrix_is_refused_however_well_the_rest_fits() {
    let built = built(1);
    let mut bytes = fs::read(built.shard_path(1)).unwrap();
    let mut header = header_of(&bytes);
    let [matrix, ..] = header.sections();
    let matrix = &mut bytes[matrix.offset as usize..(matrix.offset + matrix.bytes) as usize];
    matrix.fill(0);
    header.section_digests[0] = *blake3::hash(matrix).as_bytes();
    bytes[..HEADER_BYTES].copy_from_slice(&header.encode());
    let mut manifest = built.manifest();
    manifest.shards[1] = entry(&header);
    let path = built.db().join(MANIFEST_NAME);
    fs::write(&path, manifest.to_json()).unwrap();
    fs::write(built.db().join(SHARDS_DIR).join(&manifest.shards[1].file), &bytes).unwrap();
    let said = "the hash of the header digests (content) is";
    assert!(built.open_error().contains(said), "{}", built.open_error());
    let refused = |arguments: &[&str], code| {
        let (ended, _, error) = run_program(sotto(arguments).arg(built.db()));
        assert_eq!(ended, code, "{error}");
        assert!(error.contains(said), "{error}");
    };
    refused(&["verify"], 1);
    let certs = built.path("certs");
    assert_eq!(run_program(sotto(&["cert", "--out"]).arg(&certs)).0, 0);
    let file = |name: &str| certs.join(name).to_str().unwrap().to_owned();
    let (cert, key) = (file("server.pem"), file("server.key"));
    let serve = ["serve", "--listen", "127.0.0.1:0", "--cert", &cert, "--key", &key, "--db"];
    refused(&serve, 2);
    // The comparison can fail: signed by the operator it is another database, and opens.
    let head = ManifestHead { epoch: 2, ..manifest.head() };
    let key = SigningKey::from_bytes(&[8; 32]);
    let signed = Manifest::sign(&head, manifest.shards.clone(), &key).unwrap();
    fs::write(&path, signed.to_json()).unwrap();
    assert!(built.problems().is_empty());
}

/// What a client sees when matrix, tables and hint do not belong together, although every digest
/// of the files was made right: INVALID, and never a wrong value.
#[test]
fn a_stale_hint_or_a_changed_matrix_gives_invalid() {
    let built = built(1);
    let database = Database::open(&built.db()).unwrap();
    let (shape, seed) = (database.shape(), database.seed());
    let key = record(0).0;
    let place = locate(seed, key.as_bytes(), SHARDS, shape.groups() as u32);
    let shard = database.shard(place.shard).unwrap();
    let band = band(&place.identity, shard.header().ribbon_seed, shape);
    let mut pool = SecretPool::new(*seed, *shape);
    let query = pool.encrypt(&[(place.shard, band)], Sharing::Shared).unwrap()[0];
    let bundle = KeyBundle::decode(&pool.bundle(query).unwrap().1, shape).unwrap();
    let vector = pool.vector(query).unwrap();
    let decoder = pool.seal();
    let outcome = |matrix: &[u8], tables: &[u8], hints: &[u8]| {
        let response = reference::answer(shape, matrix, tables, &vector, &bundle);
        let decoded = decoder.decode(query, shape, &response, hints).unwrap();
        extract(&decoded, &place, shape).outcome()
    };
    let (view, hints) = (shard.view(), shard.hints());
    assert!(matches!(outcome(view.matrix, view.tables, hints), Outcome::Found(_)));
    let stale = database.shard((place.shard + 1) % SHARDS).unwrap();
    assert!(outcome(view.matrix, view.tables, stale.hints()) == Outcome::Invalid);
    assert!(outcome(stale.view().matrix, view.tables, hints) == Outcome::Invalid);
    assert!(outcome(view.matrix, stale.view().tables, hints) == Outcome::Invalid);
}

#[test]
fn verify_and_inspect_say_it_on_the_command_line() {
    let built = built(1);
    let sotto = |arguments: &[&str]| {
        let (code, out, err) = run_program(sotto(arguments).arg(built.db()));
        (Some(code), out + &err)
    };
    let (code, text) = sotto(&["verify"]);
    assert!(code == Some(0) && text.contains("3 shards"), "{text}");
    let (code, text) = sotto(&["inspect"]);
    assert!(code == Some(0) && text.contains("epoch                     1\n"), "{text}");
    let (code, text) = sotto(&["inspect", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, json["records"].as_u64()), (Some(0), Some(600)));
    assert!(json["log2_failure_largest_row"].as_f64().unwrap() < -40.0);
    let mut changed = fs::read(built.shard_path(1)).unwrap();
    let at = changed.len() / 2;
    changed[at] ^= 1;
    built.with_shard(&changed, |name| {
        let (code, text) = sotto(&["verify", "--quiet"]);
        assert!(code == Some(1) && text.contains(name) && text.contains("tables"), "{text}");
    });
    built.with_shard(&changed[..5000], |name| {
        let (code, text) = sotto(&["verify"]);
        assert!(code == Some(1) && text.contains(name), "{text}");
        let (code, text) = sotto(&["inspect"]);
        assert!(code == Some(2) && text.contains(name), "{text}");
    });
}
