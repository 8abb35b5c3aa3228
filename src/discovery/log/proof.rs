//! The proof of an epoch: that its manifest is in the log, and that this log has everything that it
//! had at the epoch before.
//!
//! A proof is of the tree that ends with the manifest. It has the perfect subtrees that cover the
//! tree of the proof before (`previous` entries), then those up to the manifest (`index`): a
//! verifier adds them from left to right and passes both roots. Every subtree on the boundary is
//! needed once, so that no shorter proof of both exists. The signature is that of the log's
//! checkpoint of `index + 1` entries. Numbers are big-endian:
//!
//! | bytes | what |
//! |---|---|
//! | 1, 4 | version 1, id of the log's key |
//! | 8, 32 | epoch, digest of its parameters |
//! | 8, 8 | `previous`, `index` |
//! | 64 | signature |
//! | 32 each | hashes: their number follows from `previous` and `index` |
//!
//! A proof has at most 2 048 bytes: 60 hashes. A log of 2^40 entries stays below this by padding
//! (see [`is_short`]) while fewer than 2^27 entries lie between two epochs of a database.
//!
//! Devices get a file of the newest proofs, one after the other, oldest first: the same bytes for
//! everybody. Who missed epochs goes through all of them, and nobody learns who did. Who missed
//! more than there are asks for those after the last tree that was verified ([`OldProofs`]), and
//! goes on from there ([`advance`]).

use std::path::{Path, PathBuf};

use ed25519_dalek::{Signer as _, SigningKey};
use serde::{Deserialize, Serialize};

use super::entry::{Entry, Manifest};
use super::errors::LogError;
use super::note::{Checkpoint, LogKey};
use super::tree::{ENTRIES_MAX, HASH_BYTES, Hash, Node, Peaks, cover, leaf_hash};

/// Most bytes of one proof.
pub const PROOF_BYTES_MAX: usize = 2_048;
/// Most proofs of a file: a directory lives for 30 days, and a database has some epoch a day.
pub const PROOFS_MAX: usize = 32;
/// Most bytes of a file of proofs.
pub const FILE_BYTES_MAX: usize = PROOFS_MAX * PROOF_BYTES_MAX;

/// Most proofs that an operator keeps for devices that were away for long: eleven years of days.
pub const OLD_PROOFS_MAX: usize = 4_096;
/// Most bytes of them.
pub const OLD_PROOFS_BYTES_MAX: usize = OLD_PROOFS_MAX * PROOF_BYTES_MAX;

const VERSION: u8 = 1;
const HEAD_BYTES: usize = 1 + 4 + 8 + HASH_BYTES + 8 + 8 + 64;
/// Most hashes of a proof.
pub const HASHES_MAX: usize = (PROOF_BYTES_MAX - HEAD_BYTES) / HASH_BYTES;

/// One proof, read but not verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochProof {
    key_id: [u8; 4],
    /// The epoch.
    pub epoch: u64,
    /// Of its parameters.
    pub digest: Hash,
    /// Entries of the tree of the proof before; 0 where there was none.
    pub previous: u64,
    /// The manifest's place: the last of the tree.
    pub index: u64,
    signature: [u8; 64],
    hashes: Vec<Hash>,
}

/// What a device keeps of the log of a database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pinned {
    /// The log's key.
    pub key: [u8; 32],
    /// Entries of the tree that was verified last.
    pub size: u64,
    /// Its root.
    pub root: Hash,
    /// The epoch whose manifest is its last entry.
    pub epoch: u64,
    /// Of the parameters of that epoch.
    pub digest: Hash,
}

/// The hashes of a proof: those of these subtrees, in this order.
pub fn nodes(previous: u64, index: u64) -> Vec<Node> {
    let mut nodes = cover(0, previous);
    nodes.extend(cover(previous, index));
    nodes
}

/// Whether a proof fits. Where it does not, the log adds padding until a tile begins, which leaves
/// out at least as many hashes as the tile would have needed.
pub fn is_short(previous: u64, index: u64) -> bool {
    nodes(previous, index).len() <= HASHES_MAX
}

/// The file of all proofs that are kept, beside that of the newest.
pub fn old_proofs_path(newest: &Path) -> PathBuf {
    let mut name = newest.as_os_str().to_owned();
    name.push(".all");
    name.into()
}

/// All proofs of a database that an operator keeps, oldest first.
pub struct OldProofs {
    bytes: Vec<u8>,
    /// Of each proof, how many entries were before it and where it begins.
    starts: Vec<(u64, usize)>,
}

impl OldProofs {
    /// Reads a file that has any number of proofs up to [`OLD_PROOFS_MAX`].
    ///
    /// # Errors
    /// It is none.
    pub fn decode(bytes: Vec<u8>) -> Result<Self, LogError> {
        let (mut starts, mut offset) = (Vec::new(), 0);
        for proof in EpochProof::decode_many(&bytes, OLD_PROOFS_MAX)? {
            starts.push((proof.previous, offset));
            offset += HEAD_BYTES + proof.hashes.len() * HASH_BYTES;
        }
        Ok(Self { bytes, starts })
    }

    /// The proofs that follow a tree of so many entries, as many as a file has.
    pub fn after(&self, size: u64) -> Option<&[u8]> {
        let at = self.starts.binary_search_by_key(&size, |start| start.0).ok()?;
        let end = self.starts.get(at + PROOFS_MAX).map_or(self.bytes.len(), |start| start.1);
        Some(&self.bytes[self.starts[at].1..end])
    }
}

/// Adds the newest proofs to those that are kept, which may be none. The oldest go when there are
/// more than [`OLD_PROOFS_MAX`].
///
/// # Errors
/// One of the files is none, or epochs are missing between them.
pub fn keep(kept: &[u8], newest: &[u8]) -> Result<Vec<u8>, LogError> {
    let mut proofs = match kept {
        [] => Vec::new(),
        kept => EpochProof::decode_many(kept, OLD_PROOFS_MAX)?,
    };
    for proof in EpochProof::decode_all(newest)? {
        if proofs.last().is_none_or(|last| last.index < proof.previous) {
            proof.check_follows(proofs.last())?;
            proofs.push(proof);
        }
    }
    let oldest = proofs.len().saturating_sub(OLD_PROOFS_MAX);
    Ok(proofs[oldest..].iter().flat_map(EpochProof::encode).collect())
}

impl EpochProof {
    /// Signs the proof of a manifest. `hashes` are those of [`nodes`].
    pub fn sign(
        log: &LogKey,
        key: &SigningKey,
        manifest: &Manifest,
        (previous, index): (u64, u64),
        hashes: Vec<Hash>,
    ) -> Self {
        assert_eq!(hashes.len(), nodes(previous, index).len(), "this is a bug: other hashes");
        let (epoch, digest) = (manifest.epoch, manifest.digest);
        let signature = [0; 64];
        let mut proof =
            Self { key_id: log.id(), epoch, digest, previous, index, signature, hashes };
        let text = proof.checkpoint(&manifest.database).text(log.name());
        proof.signature = key.sign(text.as_bytes()).to_bytes();
        proof
    }

    /// The bytes of the proof.
    pub fn encode(&self) -> Vec<u8> {
        [
            &[VERSION][..],
            &self.key_id,
            &self.epoch.to_be_bytes(),
            &self.digest,
            &self.previous.to_be_bytes(),
            &self.index.to_be_bytes(),
            &self.signature,
            self.hashes.as_flattened(),
        ]
        .concat()
    }

    /// Reads one proof from the beginning of `bytes`, and returns what is after it.
    ///
    /// # Errors
    /// It is none.
    pub fn decode(bytes: &[u8]) -> Result<(Self, &[u8]), LogError> {
        let wrong = |found: String| LogError::malformed("a proof", found, "a whole proof");
        let short = || wrong(format!("{} bytes", bytes.len()));
        let (head, rest) = bytes.split_first_chunk::<HEAD_BYTES>().ok_or_else(short)?;
        let number =
            |from: usize| u64::from_be_bytes(std::array::from_fn(|place| head[from + place]));
        if head[0] != VERSION {
            return Err(wrong(format!("version {}", head[0])));
        }
        let (previous, index) = (number(45), number(53));
        if previous > index || index >= ENTRIES_MAX {
            return Err(wrong(format!("index {index} after {previous} entries")));
        }
        let count = nodes(previous, index).len();
        if count > HASHES_MAX {
            return Err(wrong(format!("{count} hashes")));
        }
        let (hashes, rest) = rest.split_at_checked(count * HASH_BYTES).ok_or_else(short)?;
        let proof = Self {
            key_id: std::array::from_fn(|place| head[1 + place]),
            epoch: number(5),
            digest: std::array::from_fn(|place| head[13 + place]),
            previous,
            index,
            signature: std::array::from_fn(|place| head[61 + place]),
            hashes: hashes.as_chunks().0.to_vec(),
        };
        Ok((proof, rest))
    }

    /// Reads a file of proofs, oldest first.
    ///
    /// # Errors
    /// It is none, or one does not follow the one before.
    pub fn decode_all(bytes: &[u8]) -> Result<Vec<Self>, LogError> {
        Self::decode_many(bytes, PROOFS_MAX)
    }

    /// Reads at most so many proofs, oldest first.
    ///
    /// # Errors
    /// As [`EpochProof::decode_all`].
    pub fn decode_many(mut bytes: &[u8], max: usize) -> Result<Vec<Self>, LogError> {
        let mut proofs: Vec<Self> = Vec::new();
        while !bytes.is_empty() || proofs.is_empty() {
            let (proof, rest) = Self::decode(bytes)?;
            proof.check_follows(proofs.last())?;
            if proofs.len() == max {
                let found = format!("more than {max} proofs");
                return Err(LogError::malformed("a file of proofs", found, "no more than that"));
            }
            proofs.push(proof);
            bytes = rest;
        }
        Ok(proofs)
    }

    /// Refuses a proof that does not follow the one before it.
    fn check_follows(&self, last: Option<&Self>) -> Result<(), LogError> {
        let follows = |last: &Self| last.index + 1 == self.previous && last.epoch < self.epoch;
        if last.is_none_or(follows) {
            return Ok(());
        }
        let found = format!("a proof of epoch {} out of place", self.epoch);
        Err(LogError::malformed("a file of proofs", found, "each after the one before"))
    }

    /// The roots of the tree before and of the tree that ends with the manifest.
    fn roots(&self, database: &str) -> (Hash, Hash) {
        let (mut peaks, mut size) = (Peaks::default(), 0);
        let mut before = peaks.root();
        for (node, hash) in nodes(self.previous, self.index).iter().zip(&self.hashes) {
            peaks.push(node.height, *hash);
            size += 1_u64 << node.height;
            if size == self.previous {
                before = peaks.root();
            }
        }
        let (database, epoch, digest) = (database.to_owned(), self.epoch, self.digest);
        let manifest = Entry::Manifest(Manifest { database, epoch, digest });
        peaks.push(0, leaf_hash(&manifest.encode()));
        (before, peaks.root())
    }

    /// The checkpoint that the signature is of.
    pub fn checkpoint(&self, database: &str) -> Checkpoint {
        Checkpoint { size: self.index + 1, root: self.roots(database).1 }
    }

    /// Verifies the signature. Returns the roots before and after.
    fn verify(&self, database: &str, log: &LogKey) -> Result<(Hash, Hash), LogError> {
        if self.key_id != log.id() {
            return Err(LogError::AnotherKey { expected: log.id_text() });
        }
        let (before, root) = self.roots(database);
        let checkpoint = Checkpoint { size: self.index + 1, root };
        log.verify(&checkpoint.text(log.name()), &self.signature)?;
        Ok((before, root))
    }
}

/// Accepts an epoch of a database: `digest` is that of its parameters ([`parameters_digest`]),
/// `file` the proofs as they were fetched, `pinned` what was accepted before. Returns what is to be
/// pinned instead.
///
/// [`parameters_digest`]: super::parameters_digest
///
/// # Errors
/// The manifest is not in the log, or the log is not the one that was pinned: it forks, goes back
/// or has another key. What was pinned stays so.
pub fn accept(
    pinned: Option<&Pinned>,
    file: &[u8],
    database: &str,
    (epoch, digest): (u64, &Hash),
    log: &LogKey,
) -> Result<Pinned, LogError> {
    let proofs = EpochProof::decode_all(file)?;
    let newest = proofs.last().map_or(0, |proof| proof.epoch);
    let at = proofs.iter().position(|proof| proof.epoch == epoch);
    let at = at.ok_or(LogError::NoProof { epoch, newest })?;
    let (first, wanted) = (&proofs[0], &proofs[at]);
    let size = wanted.index + 1;
    let (from, before) = match pinned {
        None => (at, None),
        Some(pinned) => {
            if pinned.key != log.bytes() {
                return Err(LogError::KeyChanged);
            }
            if pinned.epoch == epoch {
                return accept_again(pinned, wanted, database, digest, log);
            }
            // Only what the log signed is held against it.
            wanted.verify(database, log)?;
            if pinned.size > size || pinned.epoch > epoch {
                return Err(LogError::GoesBack { seen: pinned.size, found: size });
            }
            let from = proofs[..=at].iter().position(|proof| proof.previous == pinned.size);
            let from = from.ok_or(match first.previous > pinned.size {
                true => LogError::Gap { seen: pinned.size, first: first.previous },
                false => LogError::Forked { size: pinned.size },
            })?;
            (from, Some(pinned.root))
        }
    };
    let root = follow(&proofs[from..=at], before, database, log)?;
    if wanted.digest != *digest {
        return Err(LogError::OtherManifest { epoch });
    }
    Ok(Pinned { key: log.bytes(), size, root, epoch, digest: *digest })
}

/// Follows older proofs of a database for as far as they go: what a device that was away for long
/// pins before it accepts the newest epoch.
///
/// # Errors
/// They do not begin where this device was, or the log is not the one that was pinned.
pub fn advance(
    pinned: &Pinned,
    file: &[u8],
    database: &str,
    log: &LogKey,
) -> Result<Pinned, LogError> {
    if pinned.key != log.bytes() {
        return Err(LogError::KeyChanged);
    }
    let proofs = EpochProof::decode_all(file)?;
    let (first, last) = (&proofs[0], &proofs[proofs.len() - 1]);
    if first.previous != pinned.size || first.epoch <= pinned.epoch {
        return Err(LogError::Gap { seen: pinned.size, first: first.previous });
    }
    let root = follow(&proofs, Some(pinned.root), database, log)?;
    let (size, epoch, digest) = (last.index + 1, last.epoch, last.digest);
    Ok(Pinned { key: log.bytes(), size, root, epoch, digest })
}

/// Verifies proofs that follow each other, the first of them a tree with this root, if one is
/// given. Returns the root after the last.
fn follow(
    proofs: &[EpochProof],
    mut expected: Option<Hash>,
    database: &str,
    log: &LogKey,
) -> Result<Hash, LogError> {
    for proof in proofs {
        let (before, root) = proof.verify(database, log)?;
        if expected.is_some_and(|expected| expected != before) {
            return Err(LogError::Forked { size: proof.previous });
        }
        expected = Some(root);
    }
    Ok(expected.expect("this is a bug: no proof was verified"))
}

/// The same epoch as before: it has to be the same in everything.
fn accept_again(
    pinned: &Pinned,
    proof: &EpochProof,
    database: &str,
    digest: &Hash,
    log: &LogKey,
) -> Result<Pinned, LogError> {
    let (_, root) = proof.verify(database, log)?;
    if proof.digest != *digest || pinned.digest != *digest {
        return Err(LogError::OtherManifest { epoch: proof.epoch });
    }
    match (proof.index + 1, root) == (pinned.size, pinned.root) {
        true => Ok(pinned.clone()),
        false => Err(LogError::Forked { size: pinned.size }),
    }
}
