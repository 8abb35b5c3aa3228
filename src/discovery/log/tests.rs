//! Known answers of RFC 6962 and C2SP, comparison with another implementation of the tree, proofs
//! that were changed, and logs that cheat.

use ct_merkle::mem_backed_tree::MemoryBackedTree;
use ed25519_dalek::{Signer as _, SigningKey};
use proptest::prelude::*;
use sha2::Sha256;

use super::entry::{ENTRY_BYTES_MAX, Entry, Manifest};
use super::proof::{HASHES_MAX, OldProofs, PROOF_BYTES_MAX, PROOFS_MAX, is_short, keep, nodes};
use super::tiles::*;
use super::tree::{ENTRIES_MAX, Node, Peaks, cover, fold, node_hash};
use super::*;

const DATABASE: &str = "eu1";

fn hex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn log_key(seed: u8) -> LogKey {
    LogKey::new("log.example/1", &key(seed).verifying_key().to_bytes()).unwrap()
}

/// A log in memory that does as a test says.
#[derive(Clone, Default)]
struct Log {
    leaves: Vec<Hash>,
    places: Vec<(u64, u64)>,
    file: Vec<u8>,
}

impl Log {
    fn statements(&mut self, from: u64, count: u64) {
        let one = |number: u64| {
            let hash = salted_hash(&[7; 16], &number.to_be_bytes());
            leaf_hash(&Entry::Statement(hash).encode())
        };
        self.leaves.extend((from..from + count).map(one));
    }

    fn node(&self, Node { height, number }: Node) -> Hash {
        let first = (number << height) as usize;
        fold(&self.leaves[first..first + (1 << height)])
    }

    fn proof(&self, seed: u8, manifest: &Manifest, previous: u64, index: u64) -> Vec<u8> {
        let hashes = nodes(previous, index).into_iter().map(|node| self.node(node)).collect();
        EpochProof::sign(&log_key(seed), &key(seed), manifest, (previous, index), hashes).encode()
    }

    /// Adds a manifest, and its proof to the file.
    fn manifest(&mut self, epoch: u64) {
        let manifest = manifest(epoch);
        let previous = self.places.last().map_or(0, |(_, place)| place + 1);
        let index = self.leaves.len() as u64;
        self.leaves.push(leaf_hash(&Entry::Manifest(manifest.clone()).encode()));
        self.file.extend(self.proof(1, &manifest, previous, index));
        self.places.push((epoch, index));
    }

    fn accept(&self, pinned: Option<&Pinned>, epoch: u64) -> Result<Pinned, LogError> {
        accept(pinned, &self.file, DATABASE, (epoch, &digest(epoch)), &log_key(1))
    }
}

fn digest(epoch: u64) -> Hash {
    parameters_digest(format!("parameters of epoch {epoch}").as_bytes())
}

fn manifest(epoch: u64) -> Manifest {
    Manifest { database: DATABASE.into(), epoch, digest: digest(epoch) }
}

/// Epochs 4, 5 and 7, with statements between them.
fn honest() -> Log {
    let mut log = Log::default();
    log.statements(0, 5);
    log.manifest(4);
    log.statements(5, 300);
    log.manifest(5);
    log.statements(305, 77);
    log.manifest(7);
    log
}

#[test]
fn roots_are_those_of_the_known_answers() {
    // Of the reference implementation of Certificate Transparency.
    let leaves = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657"];
    let last = "606162636465666768696a6b6c6d6e6f";
    let roots = [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];
    let (mut peaks, mut tiles) = (Peaks::default(), Frontier::new(0, Default::default()).unwrap());
    let empty = hex("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    assert_eq!(peaks.root().to_vec(), empty);
    for (leaf, root) in leaves.into_iter().chain([last]).zip(roots) {
        peaks.push(0, leaf_hash(&hex(leaf)));
        assert!(tiles.push(leaf_hash(&hex(leaf))).is_empty());
        assert_eq!(peaks.root().to_vec(), hex(root));
        assert_eq!(tiles.root().to_vec(), hex(root));
    }
}

#[test]
fn roots_and_proofs_are_those_of_ct_merkle() {
    let mut theirs = MemoryBackedTree::<Sha256, Vec<u8>>::new();
    let mut tiles = Frontier::new(0, Default::default()).unwrap();
    let mut log = Log::default();
    for number in 0..600_u64 {
        let entry = Entry::Statement(salted_hash(&[3; 16], &number.to_be_bytes())).encode();
        theirs.push(entry.clone());
        log.leaves.push(leaf_hash(&entry));
        tiles.push(leaf_hash(&entry));
        let root = theirs.root();
        assert_eq!(tiles.root()[..], root.as_bytes()[..], "{number}");
        // From any size before, over the boundary of a proof.
        let size = number + 1;
        for before in [size / 3, size / 2, size.saturating_sub(1)] {
            let (mut peaks, mut at) = (Peaks::default(), 0);
            for node in nodes(before, size) {
                peaks.push(node.height, log.node(node));
                at += 1 << node.height;
                if at == before {
                    let mut old = Frontier::new(0, Default::default()).unwrap();
                    log.leaves[..before as usize].iter().for_each(|leaf| drop(old.push(*leaf)));
                    assert_eq!(peaks.root(), old.root());
                    let proof = theirs.prove_consistency((size - before) as usize);
                    let old = ct_merkle::RootHash::<Sha256>::new(old.root().into(), before);
                    root.verify_consistency(&old, &proof).unwrap();
                }
            }
            assert_eq!(peaks.root()[..], root.as_bytes()[..]);
        }
    }
}

#[test]
fn a_note_is_that_of_the_known_answer() {
    // golang.org/x/mod/sumdb/note.
    let text = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    let log = LogKey::parse(text).unwrap();
    assert_eq!(log.to_string(), text);
    let seed = hex("810a1402d5146c8d84f2443330f54080ebf98ee17d9c74f6252fc5d5c7283173");
    let key = SigningKey::from_bytes(&seed.try_into().unwrap());
    assert_eq!(key.verifying_key().to_bytes(), log.bytes());
    let text = "If you think cryptography is the answer to your problem,\n\
                then you don't know what your problem is.\n";
    let signature = "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngot\
                     pRZb6KE6RyyBwJnAM=";
    use base64::Engine as _;
    let signature = base64::engine::general_purpose::STANDARD.decode(signature).unwrap();
    assert_eq!(signature[..4], log.id());
    assert_eq!(signature[4..], key.sign(text.as_bytes()).to_bytes());
    log.verify(text, signature[4..].try_into().unwrap()).unwrap();
    let written = log.to_string();
    for at in 0..written.len() {
        assert!(LogKey::parse(&written[..at]).is_err(), "{at}");
    }
}

#[test]
fn a_checkpoint_is_as_c2sp_has_it_and_nothing_else_is_one() {
    let checkpoint = Checkpoint { size: 70_000, root: [5; 32] };
    let note = checkpoint.sign(&log_key(1), &key(1));
    let root = "BQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQU=";
    assert!(note.starts_with(&format!("log.example/1\n70000\n{root}\n\n\u{2014} log.example/1 ")));
    assert_eq!(Checkpoint::open(note.as_bytes(), &log_key(1)).unwrap(), checkpoint);
    assert_eq!(note, checkpoint.sign(&log_key(1), &key(1)));
    // Signatures of others are ignored, before and after.
    let other = note.lines().last().unwrap().replace("log.example/1 ", "witness.example ");
    let (text, own) = note.split_at(note.find('\u{2014}').unwrap());
    let both = format!("{text}{other}\n{own}{other}\n");
    assert_eq!(Checkpoint::open(both.as_bytes(), &log_key(1)).unwrap(), checkpoint);
    let alone = format!("{text}{other}\n");
    let error = Checkpoint::open(alone.as_bytes(), &log_key(1)).unwrap_err();
    assert!(matches!(error, LogError::AnotherKey { .. }), "{error}");
    let error = Checkpoint::open(note.as_bytes(), &log_key(2)).unwrap_err();
    assert!(matches!(error, LogError::AnotherKey { .. }), "{error}");
    for length in 0..note.len() {
        assert!(Checkpoint::open(&note.as_bytes()[..length], &log_key(1)).is_err(), "{length}");
    }
    for bit in 0..note.len() * 8 {
        let mut changed = note.clone().into_bytes();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(Checkpoint::open(&changed, &log_key(1)).is_err(), "bit {bit}");
    }
    // What a log would sign and no verifier reads.
    let signed = |text: &str| {
        let signature = key(1).sign(text.as_bytes()).to_bytes();
        let line = checkpoint.note(&log_key(1), &signature);
        format!("{text}\n{}\n", line.lines().last().unwrap())
    };
    let refused = [
        format!("log.example/1\n070000\n{root}\n"),
        format!("log.example/1\n+70000\n{root}\n"),
        format!("log.example/1\n99999999999999\n{root}\n"),
        format!("log.example/2\n70000\n{root}\n"),
        format!("log.example/1\n70000\n{}\n", &root[4..]),
        "log.example/1\n70000\n".to_owned(),
    ];
    for text in refused {
        assert!(Checkpoint::open(signed(&text).as_bytes(), &log_key(1)).is_err(), "{text}");
    }
    let longer = signed(&format!("log.example/1\n70000\n{root}\nextension\n"));
    assert_eq!(Checkpoint::open(longer.as_bytes(), &log_key(1)).unwrap(), checkpoint);
}

#[test]
fn files_are_named_as_c2sp_names_them() {
    let place = |content, number, width| Place { content, number, width };
    let cases = [
        (place(Content::Hashes(0), 0, 256), "tile/0/000"),
        (place(Content::Hashes(1), 1_234_067, 256), "tile/1/x001/x234/067"),
        (place(Content::Entries, 273, 112), "tile/entries/273.p/112"),
        (place(Content::Hashes(2), 1_000, 1), "tile/2/x001/000.p/1"),
    ];
    for (place, path) in cases {
        assert_eq!(place.path(), path);
        assert_eq!(Place::parse(path), Some(place));
    }
    let others = [
        "",
        "tile",
        "tile/0",
        "tile/0/",
        "tile/0/0",
        "tile/0/0000",
        "tile/00/000",
        "tile/64/000",
        "tile/0/x000/001",
        "tile/0/001/000",
        "tile/0/x001/x000",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/01",
        "tile/0/000.p/",
        "tile/entries/../000",
        "tile/+1/000",
        "tile/0/+12",
        "tile/0/x001/x234/x067",
        "tile/0/000.p/1.p/1",
        "/tile/0/000",
        "tile/0/x999/x999/x999/x999/x999/x999/x999/999",
    ];
    for path in others {
        assert_eq!(Place::parse(path), None, "{path}");
    }
    // The example of tlog-tiles: a tree of 70 000.
    let widths: Vec<_> = (0..3)
        .map(|level| {
            let places: Vec<_> = changed(Content::Hashes(level), 0, 70_000).collect();
            (places.len(), places.last().unwrap().width)
        })
        .collect();
    assert_eq!(widths, [(274, 112), (2, 17), (1, 1)]);
    assert_eq!(changed(Content::Hashes(3), 0, 70_000).count(), 0);
    let changed: Vec<_> = changed(Content::Entries, 512, 513).collect();
    assert_eq!(changed, [place(Content::Entries, 2, 1)]);
}

#[test]
fn tiles_hold_the_hashes_that_proofs_need() {
    let mut tree = Frontier::new(0, Default::default()).unwrap();
    let (mut stored, mut log) = (std::collections::HashMap::new(), Log::default());
    log.statements(0, 70_000);
    for leaf in &log.leaves {
        for tile in tree.push(*leaf) {
            stored.insert((tile.level, tile.number), tile.hashes);
        }
    }
    stored.extend(tree.tiles().map(|tile| ((tile.level, tile.number), tile.hashes)));
    assert_eq!(stored.len(), 274 + 2 + 1);
    for (previous, index) in [(0, 69_999), (1, 65_536), (65_535, 65_537), (300, 70_000)] {
        for node in nodes(previous, index) {
            let (level, number, first, count) = within(node);
            let found = fold(&stored[&(level, number)][first..first + count]);
            assert_eq!(found, log.node(node), "{node:?}");
        }
    }
    // The tree at any size before is in the tiles too.
    for size in [0_u64, 1, 255, 256, 257, 65_535, 65_536, 69_999] {
        let mut levels: [Vec<Hash>; LEVELS] = Default::default();
        for (level, (number, width)) in Frontier::places(size).into_iter().enumerate() {
            if width > 0 {
                levels[level] = stored[&(level as u8, number)].clone();
            }
        }
        let mut peaks = Peaks::default();
        cover(0, size).into_iter().for_each(|node| peaks.push(node.height, log.node(node)));
        assert_eq!(Frontier::new(size, levels).unwrap().root(), peaks.root(), "{size}");
    }
    assert!(Frontier::new(3, Default::default()).is_err());
}

#[test]
fn a_device_follows_an_honest_log() {
    let log = honest();
    let mut pinned = None;
    for epoch in [4, 5, 7] {
        let accepted = log.accept(pinned.as_ref(), epoch).unwrap();
        assert_eq!((accepted.epoch, accepted.digest), (epoch, digest(epoch)));
        // The same once more changes nothing.
        assert_eq!(log.accept(Some(&accepted), epoch).unwrap(), accepted);
        pinned = Some(accepted);
    }
    // Who missed an epoch, or is new, ends where the others are.
    let first = log.accept(None, 4).unwrap();
    assert_eq!(log.accept(Some(&first), 7).ok(), pinned);
    assert_eq!(log.accept(None, 7).ok(), pinned);
    assert_eq!(pinned.as_ref().unwrap().size, log.leaves.len() as u64);
    let none = log.accept(pinned.as_ref(), 8).unwrap_err();
    assert_eq!(none, LogError::NoProof { epoch: 8, newest: 7 });
}

#[test]
fn a_log_that_cheats_is_found() {
    let log = honest();
    let pinned = log.accept(None, 5).unwrap();
    // It shows somebody another past.
    let mut fork = Log::default();
    fork.statements(1, 5);
    fork.manifest(4);
    fork.statements(5, 300);
    fork.manifest(5);
    fork.statements(305, 77);
    fork.manifest(7);
    let forked = LogError::Forked { size: pinned.size };
    assert_eq!(fork.accept(Some(&pinned), 7), Err(forked.clone()));
    assert_eq!(fork.accept(Some(&pinned), 5), Err(forked));
    // Another number of entries before.
    let mut longer = Log::default();
    longer.statements(0, 6);
    longer.manifest(4);
    longer.statements(6, 300);
    longer.manifest(5);
    longer.manifest(7);
    let error = longer.accept(Some(&pinned), 7).unwrap_err();
    assert!(matches!(error, LogError::Forked { .. }), "{error}");
    // It goes back.
    let newest = log.accept(None, 7).unwrap();
    let back = log.accept(Some(&newest), 5).unwrap_err();
    assert_eq!(back, LogError::GoesBack { seen: newest.size, found: pinned.size });
    let mut shorter = Log::default();
    shorter.manifest(8);
    let back = shorter.accept(Some(&newest), 8).unwrap_err();
    assert_eq!(back, LogError::GoesBack { seen: newest.size, found: 1 });
    // Parameters that are not those of the manifest.
    let shown = (7, &digest(8));
    let other = accept(Some(&pinned), &log.file, DATABASE, shown, &log_key(1)).unwrap_err();
    assert_eq!(other, LogError::OtherManifest { epoch: 7 });
    let again = accept(Some(&newest), &log.file, DATABASE, shown, &log_key(1)).unwrap_err();
    assert_eq!(again, LogError::OtherManifest { epoch: 7 });
    // Another database's proof, another log, another key.
    let shown = (7, &digest(7));
    let error = accept(None, &log.file, "us1", shown, &log_key(1)).unwrap_err();
    assert_eq!(error, LogError::Forged);
    let error = accept(None, &log.file, DATABASE, shown, &log_key(2)).unwrap_err();
    assert!(matches!(error, LogError::AnotherKey { .. }), "{error}");
    let error = accept(Some(&pinned), &log.file, DATABASE, shown, &log_key(2)).unwrap_err();
    assert_eq!(error, LogError::KeyChanged);
    // It begins after what was seen.
    let first = log.accept(None, 4).unwrap();
    let last = log.proof(1, &manifest(7), pinned.size, newest.size - 1);
    let error = accept(Some(&first), &last, DATABASE, shown, &log_key(1)).unwrap_err();
    assert_eq!(error, LogError::Gap { seen: first.size, first: pinned.size });
}

#[test]
fn every_shortened_and_every_changed_proof_is_refused() {
    let log = honest();
    let pinned = log.accept(None, 4).unwrap();
    let refused = |file: &[u8]| {
        let shown = (7, &digest(7));
        accept(Some(&pinned), file, DATABASE, shown, &log_key(1)).is_err()
    };
    assert!(!refused(&log.file));
    for length in 0..log.file.len() {
        assert!(refused(&log.file[..length]), "{length}");
    }
    assert!(refused(&[&log.file[..], &[0]].concat()));
    let own = {
        let (first, rest) = EpochProof::decode(&log.file).unwrap();
        assert_eq!(first.epoch, 4);
        log.file.len() - rest.len()
    };
    // The first proof ends where this device begins, so that nothing rests on its bytes.
    for bit in own * 8..log.file.len() * 8 {
        let mut changed = log.file.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(refused(&changed), "bit {bit}");
    }
    let twice = [&log.file[own..], &log.file[own..]].concat();
    assert!(refused(&twice));
}

#[test]
fn two_kilobytes_hold_a_log_of_a_trillion_entries() {
    let most = |index: u64, gap: u64| {
        // The boundary that needs most: all bits below the gap set, and one subtree more.
        (0..=gap.ilog2())
            .flat_map(move |bits| {
                let low = (1_u64 << bits) - 1;
                [index - gap, index - gap + low, (index - gap) | low, (index - gap / 2) | low]
            })
            .filter(move |previous| (index - gap..=index).contains(previous))
    };
    let gap = 1_u64 << 27;
    let mut longest = 0;
    for bits in 28..=40 {
        for tail in [0, 1, 255, 256, gap / 2, gap - 1, gap - 256, gap] {
            let index = ((1_u64 << bits) - 1 - tail).min(ENTRIES_MAX - 1);
            let aligned = index.next_multiple_of(256).min(ENTRIES_MAX - 256);
            for previous in most(aligned, gap) {
                assert!(is_short(previous, aligned), "{previous} {aligned}");
                longest = longest.max(nodes(previous, aligned).len());
            }
        }
    }
    assert!(longest > 40 && longest <= HASHES_MAX, "{longest}");
    // As long as a proof may be, and written.
    let (previous, index) = ((1 << 39) - 1, ENTRIES_MAX - 1);
    assert!(!is_short(previous, index), "padding is for something");
    let (previous, index) = (ENTRIES_MAX - (1 << 21) + (1 << 20) - 1, ENTRIES_MAX - 1);
    let hashes = vec![[9; 32]; nodes(previous, index).len()];
    assert_eq!(hashes.len(), HASHES_MAX);
    let proof = EpochProof::sign(&log_key(1), &key(1), &manifest(9), (previous, index), hashes);
    let pinned = accept(None, &proof.encode(), DATABASE, (9, &digest(9)), &log_key(1)).unwrap();
    assert_eq!(pinned.size, index + 1);
    assert!(proof.encode().len() <= PROOF_BYTES_MAX);
    assert_eq!(HASHES_MAX, 60);
}

#[test]
fn a_file_has_at_most_as_many_proofs_as_it_may() {
    let mut log = Log::default();
    for epoch in 1..=PROOFS_MAX as u64 {
        log.manifest(epoch);
    }
    log.accept(None, 32).unwrap();
    log.manifest(33);
    assert!(log.accept(None, 33).is_err());
}

#[test]
fn a_device_that_was_away_for_long_goes_on_from_where_it_was() {
    let mut log = Log::default();
    let (mut kept, mut first) = (Vec::new(), None);
    for epoch in 1..=100 {
        log.statements(epoch * 10, epoch % 3);
        log.manifest(epoch);
        // What the log gives out are the newest, and an operator asks after each epoch or so.
        let all = EpochProof::decode_many(&log.file, 100).unwrap();
        let newest = all[all.len().saturating_sub(PROOFS_MAX)..].iter();
        let newest: Vec<u8> = newest.flat_map(EpochProof::encode).collect();
        if epoch % 7 == 0 || epoch == 100 {
            kept = keep(&kept, &newest).unwrap();
        }
        first.get_or_insert_with(|| log.accept(None, 1).unwrap());
        log.file = newest;
    }
    let old = OldProofs::decode(kept.clone()).unwrap();
    let mut pinned = first.unwrap();
    let mut steps = 0;
    let accepted = loop {
        match log.accept(Some(&pinned), 100) {
            Err(LogError::Gap { seen, .. }) => {
                let after = old.after(seen).unwrap();
                pinned = advance(&pinned, after, DATABASE, &log_key(1)).unwrap();
                steps += 1;
            }
            accepted => break accepted.unwrap(),
        }
    };
    assert_eq!((accepted.epoch, steps), (100, 3));
    assert!(old.after(pinned.size + 1).is_none());

    // Proofs that begin elsewhere, of another log, or of one that had another past.
    let from = |size: u64| old.after(size).unwrap();
    let second = advance(&pinned, from(pinned.size), DATABASE, &log_key(1)).unwrap();
    let gap = advance(&pinned, from(accepted.size - 1 - 100 % 3), DATABASE, &log_key(1));
    assert!(matches!(gap, Err(LogError::Gap { .. })), "{gap:?}");
    let other = advance(&pinned, from(pinned.size), DATABASE, &log_key(2));
    assert_eq!(other, Err(LogError::KeyChanged));
    let mut fork = pinned.clone();
    fork.root[0] ^= 1;
    let forked = advance(&fork, from(pinned.size), DATABASE, &log_key(1));
    assert_eq!(forked, Err(LogError::Forked { size: pinned.size }));
    let mut changed = from(pinned.size).to_vec();
    *changed.last_mut().unwrap() ^= 1;
    assert!(advance(&pinned, &changed, DATABASE, &log_key(1)).is_err());
    assert!(second.size > pinned.size);
    // An operator who missed more epochs than the log gives out cannot go on with what was kept.
    let early = keep(&[], &kept[..from_start(&kept, 3)]).unwrap();
    assert!(keep(&early, &log.file).is_err());
    assert!(OldProofs::decode(kept[1..].to_vec()).is_err());
}

/// How long the first proofs are.
fn from_start(file: &[u8], count: usize) -> usize {
    let proofs = EpochProof::decode_many(file, 100).unwrap();
    proofs[..count].iter().map(|proof| proof.encode().len()).sum()
}

#[test]
fn entries_are_read_as_they_were_written() {
    let entries = [
        Entry::Padding(77),
        Entry::Statement([8; 32]),
        Entry::Manifest(manifest(u64::MAX)),
        Entry::Manifest(Manifest { database: "a".repeat(64), epoch: 0, digest: [1; 32] }),
    ];
    for entry in entries {
        let bytes = entry.encode();
        assert_eq!(Entry::decode(&bytes).unwrap(), entry);
        assert!(bytes.len() <= ENTRY_BYTES_MAX);
        for length in 0..bytes.len() {
            assert!(Entry::decode(&bytes[..length]).is_err(), "{length}");
        }
        assert!(Entry::decode(&[&bytes[..], &[0]].concat()).is_err());
    }
    let bundle: Vec<Vec<u8>> = (0..256).map(|at| Entry::Padding(at).encode()).collect();
    let bytes = bundle_bytes(&bundle);
    assert_eq!(read_bundle(&bytes, 256).unwrap(), bundle);
    assert!(read_bundle(&bytes[..bytes.len() - 1], 1).is_err());
    assert!(read_bundle(&bytes[..11 * 3], 4).is_err());
    assert_eq!(read_bundle(&bytes[..11 * 3], 3).unwrap().len(), 3);
    assert!(read_tile(&[0; 33], 1).is_err());
    assert!(read_tile(&[0; 32], 2).is_err());
    assert!(read_tile(&[0; 32 * 257], 1).is_err());
}

proptest! {
    #[test]
    fn a_cover_is_whole_aligned_and_shortest(
        from in 0..ENTRIES_MAX, length in 0..ENTRIES_MAX,
    ) {
        let to = (from + length).min(ENTRIES_MAX);
        let mut at = from;
        for node in cover(from, to) {
            prop_assert_eq!(node.number << node.height, at);
            at += 1 << node.height;
        }
        prop_assert_eq!(at, to);
        prop_assert!(cover(from, to).len() <= 80);
        prop_assert_eq!(cover(0, to).len(), to.count_ones() as usize);
    }

    #[test]
    fn padding_makes_every_proof_short(
        previous in 0..ENTRIES_MAX - (1 << 28),
        gap in 0..1_u64 << 27,
    ) {
        let index = (previous + gap).next_multiple_of(256);
        prop_assert!(is_short(previous, index));
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = EpochProof::decode_all(&bytes);
        let _ = Checkpoint::open(&bytes, &log_key(1));
        let _ = Entry::decode(&bytes);
        let _ = read_bundle(&bytes, 1);
        let _ = read_tile(&bytes, 1);
        let text = String::from_utf8_lossy(&bytes);
        let _ = (Place::parse(&text), LogKey::parse(&text));
    }

    #[test]
    fn what_begins_as_a_proof_does_not_panic(
        head in proptest::collection::vec(any::<u8>(), 124), rest in 0..3_000_usize,
    ) {
        let mut bytes = [&[1][..], &head, &vec![1; rest]].concat();
        // Numbers that are in range.
        bytes[45..48].fill(0);
        bytes[53..56].fill(0);
        let shown = (u64::from_be_bytes(bytes[5..13].try_into().unwrap()), &[0; 32]);
        prop_assert!(accept(None, &bytes, DATABASE, shown, &log_key(1)).is_err());
    }
}

#[test]
fn nodes_are_hashed_as_the_rfc_says() {
    let (left, right) = (leaf_hash(b"a"), leaf_hash(b"b"));
    assert_eq!(fold(&[left, right]), node_hash(&left, &right));
    assert_ne!(leaf_hash(&[&left[..], &right].concat()), node_hash(&left, &right));
}
