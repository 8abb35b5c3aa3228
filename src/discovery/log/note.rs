//! Checkpoints: the size and the root of a tree as a signed note (C2SP signed-note and
//! tlog-checkpoint, Ed25519).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use sha2::{Digest as _, Sha256};

use super::errors::LogError;
use super::tree::{ENTRIES_MAX, HASH_BYTES, Hash};

/// Most bytes of a signed note: it may have signatures of others.
pub const NOTE_BYTES_MAX: usize = 16 << 10;
/// Most bytes of a log's name.
pub const NAME_BYTES_MAX: usize = 128;
/// The type of Ed25519 signatures of notes.
const ED25519: u8 = 1;
const SIGNATURE_LINE: &str = "\u{2014} ";

/// A log: its name, which is the origin of its checkpoints, and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogKey {
    name: String,
    key: VerifyingKey,
}

/// The tree at one size, as the log signed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Entries.
    pub size: u64,
    /// Root of their tree.
    pub root: Hash,
}

impl LogKey {
    /// A log with this name and key.
    ///
    /// # Errors
    /// The name cannot stand in a note, or the key is none or a weak one.
    pub fn new(name: &str, key: &[u8; 32]) -> Result<Self, LogError> {
        let is_name = (1..=NAME_BYTES_MAX).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'+');
        if !is_name {
            let expected = "1 to 128 ASCII characters without spaces and +, such as log.example/1";
            return Err(LogError::malformed("the name", format!("{} bytes", name.len()), expected));
        }
        let key = VerifyingKey::from_bytes(key).ok().filter(|key| !key.is_weak());
        let key = key.ok_or_else(|| {
            LogError::malformed("the key", "32 bytes that are none", "an Ed25519 public key")
        })?;
        Ok(Self { name: name.to_owned(), key })
    }

    /// From the text `name+id+key` that tools for notes use.
    ///
    /// # Errors
    /// It is no such text.
    pub fn parse(text: &str) -> Result<Self, LogError> {
        let wrong = || {
            let expected = "name+id+key as C2SP signed-note writes it, with an Ed25519 key";
            LogError::malformed("the key", "another text", expected)
        };
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(wrong());
        };
        let key = STANDARD.decode(key).map_err(|_| wrong())?;
        let key = key.strip_prefix(&[ED25519]).and_then(|key| key.try_into().ok());
        let found = Self::new(name, key.ok_or_else(wrong)?)?;
        if found.id_text() == id { Ok(found) } else { Err(wrong()) }
    }

    /// The log's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The key's bytes.
    pub fn bytes(&self) -> [u8; 32] {
        self.key.to_bytes()
    }

    /// Names the key in a note.
    pub fn id(&self) -> [u8; 4] {
        let hash = Sha256::new()
            .chain_update(&self.name)
            .chain_update([b'\n', ED25519])
            .chain_update(self.key.as_bytes())
            .finalize();
        [hash[0], hash[1], hash[2], hash[3]]
    }

    pub(super) fn id_text(&self) -> String {
        self.id().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Verifies a signature over a checkpoint, strictly.
    pub(super) fn verify(&self, text: &str, signature: &[u8; 64]) -> Result<(), LogError> {
        let signature = Signature::from_bytes(signature);
        self.key.verify_strict(text.as_bytes(), &signature).map_err(|_| LogError::Forged)
    }
}

impl std::fmt::Display for LogKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let key = STANDARD.encode([&[ED25519][..], self.key.as_bytes()].concat());
        write!(f, "{}+{}+{key}", self.name, self.id_text())
    }
}

impl Checkpoint {
    /// What is signed.
    pub fn text(&self, name: &str) -> String {
        format!("{name}\n{}\n{}\n", self.size, STANDARD.encode(self.root))
    }

    /// The signed note. The same checkpoint has the same note, whenever it is signed.
    pub fn sign(&self, log: &LogKey, key: &SigningKey) -> String {
        self.note(log, &key.sign(self.text(&log.name).as_bytes()).to_bytes())
    }

    /// The note with a signature that was made before.
    pub fn note(&self, log: &LogKey, signature: &[u8; 64]) -> String {
        let signature = STANDARD.encode([&log.id()[..], signature].concat());
        format!("{}\n{SIGNATURE_LINE}{} {signature}\n", self.text(&log.name), log.name)
    }

    /// Verifies a signed note. Signatures of other keys are ignored.
    ///
    /// # Errors
    /// It is no note, not of this log, or its signature does not hold.
    pub fn open(note: &[u8], log: &LogKey) -> Result<Self, LogError> {
        let wrong = |found: &str| {
            LogError::malformed("a checkpoint", found, "a signed note of name, size and root")
        };
        if note.len() > NOTE_BYTES_MAX {
            return Err(wrong("more than 16 KiB"));
        }
        let note = std::str::from_utf8(note).map_err(|_| wrong("bytes that are no text"))?;
        if note.chars().any(|char| char.is_ascii_control() && char != '\n') {
            return Err(wrong("control characters"));
        }
        let end = note.rfind("\n\n").ok_or_else(|| wrong("no signatures"))?;
        let (text, signatures) = (&note[..=end], &note[end + 2..]);
        let signatures = signatures.strip_suffix('\n').ok_or_else(|| wrong("no last line end"))?;
        let mut is_signed = false;
        for line in signatures.split('\n') {
            let (name, signature) = line
                .strip_prefix(SIGNATURE_LINE)
                .and_then(|line| line.split_once(' '))
                .ok_or_else(|| wrong("a line that is no signature"))?;
            let signature =
                STANDARD.decode(signature).map_err(|_| wrong("a signature that is no base64"))?;
            let (id, signature) = signature
                .split_first_chunk::<4>()
                .ok_or_else(|| wrong("a signature without a key id"))?;
            if name == log.name && *id == log.id() {
                let signature = signature.try_into().map_err(|_| LogError::Forged)?;
                log.verify(text, signature)?;
                is_signed = true;
            }
        }
        match is_signed {
            true => Self::parse(text, &log.name).ok_or_else(|| wrong("another text")),
            false => Err(LogError::AnotherKey { expected: log.id_text() }),
        }
    }

    /// Reads the text of a note. Lines after the third are of no meaning.
    fn parse(text: &str, name: &str) -> Option<Self> {
        let mut lines = text.strip_suffix('\n')?.split('\n');
        let origin = lines.next()?;
        let (size, root) = (lines.next()?, lines.next()?);
        let root: [u8; HASH_BYTES] = STANDARD.decode(root).ok()?.try_into().ok()?;
        let found = Self { size: size.parse().ok()?, root };
        let is_one_form = found.size.to_string() == size && found.size <= ENTRIES_MAX;
        (origin == name && is_one_form && lines.all(|line| !line.is_empty())).then_some(found)
    }
}
