//! A sample of statements for trying things out: a directory, its keys, a file of signed statements
//! and two batches, half of the statements each. The same options give the same files.
//!
//! The people are invented: numbers below `+1 555`, an area code that does not exist, and addresses
//! at example domains. Some percent of the statements are to be refused. The private keys in the
//! folder follow from [`SEED`], so that whoever has this program has them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Seek as _, Write};
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::{EncodePrivateKey as _, KeypairBytes, spki::der::pem::LineEnding};
use rayon::prelude::*;
use sha2::{Digest as _, Sha256};

use super::batch::{Batch, Body};
use super::directory::{
    Content, Database, Issuer, IssuerKey, Key, LastIndex, Pins, Proof, Provider, RecordKey, Remit,
    RistrettoKey, Validity, draft,
};
use super::identifier::Identifier;
use super::jws;
use super::statement::{Consent, Mapping, Preference, Purpose, Ssi, Withdrawal, WithdrawnBy};

const SEED: &[u8] = b"sotto sample 1";
pub(super) const DAY: u64 = 86_400;
/// The first time of a sample, 2020: statements are older, and no time is negative.
pub const NOW_MIN: u64 = 1_577_836_800;
const YEAR: u64 = 365 * DAY;
/// Statements that one thread makes at a time.
const CHUNK: u64 = 1_024;
/// Chunks that are made before they are written: some megabytes.
const CHUNKS_AT_ONCE: u64 = 32;

/// The issuer that signs each statement, about all providers but the first.
pub(super) const ISSUER: &str = "discovery.example";
/// The provider that speaks for itself in batches.
pub(super) const SELF_ISSUER: &str = "alpha.example";
/// The number authority.
pub(super) const AUTHORITY: &str = "numbers.example";
pub(super) const PROVIDERS: [&str; 4] =
    [SELF_ISSUER, "bravo.example", "charlie.example", "delta.example"];
const PREFIX: &str = "+1";
const REGION: &str = "us";
const OTHER_REGION: &str = "eu";
/// The database of the directory.
pub const DATABASE: &str = "sample";

/// What to make.
#[derive(Debug, Clone)]
pub struct Options {
    /// Number of lines with statements in all files together.
    pub statements: u64,
    /// When they were made, and when the directory begins to be valid.
    pub now: u64,
    /// The blinding public key of the database, if its keys are not plain.
    pub blinding_key: Option<RistrettoKey>,
}

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)] // Names say it.
pub struct Made {
    pub statements: u64,
    /// Of these, those that are to be refused, each alone.
    pub refused: u64,
}

/// File of the directory in the folder.
pub const DIRECTORY: &str = "directory.json";
/// File of its pins.
pub const PINS: &str = "pins.json";
/// File of the statements that are signed one by one.
pub const STATEMENTS: &str = "statements.jsonl";
/// Files of the batches in their order.
pub const BATCHES: [&str; 2] = ["batch-1.jsonl", "batch-2.jsonl"];
/// The database's record key.
pub const RECORD_KEY: &str = "record.pem";

/// Writes a sample into a new folder.
///
/// # Errors
/// A file cannot be written, or is there already.
pub fn write(options: &Options, folder: &Path) -> io::Result<Made> {
    if options.now < NOW_MIN {
        let problem = format!("the time of a sample is {NOW_MIN} (2020) or later");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
    }
    fs::create_dir_all(folder)?;
    let keys = Keys::new();
    keys.write(folder)?;
    write_directory(options, &keys, folder)?;
    let batched = options.statements / 2;
    let single = options.statements - batched;
    let maker = Maker { keys: &keys, now: options.now };
    let mut refused = 0;
    let mut file = BufWriter::new(create(&folder.join(STATEMENTS), 0o644)?);
    refused += write_lines(0..single, |index| maker.single(index), &mut file)?;
    file.flush()?;
    let mut previous = None;
    let middle = batched / 2;
    for (lines, name) in [0..middle, middle..batched].into_iter().zip(BATCHES) {
        refused += write_batch(&maker, lines, &folder.join(name), &mut previous)?;
    }
    Ok(Made { statements: options.statements, refused })
}

/// The directory that all of it is checked against, signed by both roots, and its pins.
fn write_directory(options: &Options, keys: &Keys, folder: &Path) -> io::Result<()> {
    let content = content(options, keys);
    let pins = Pins::new(content.threshold, content.roots.clone()).map_err(io::Error::other)?;
    create(&folder.join(PINS), 0o600)?.write_all(pins.to_json().as_bytes())?;
    let file = draft::sign(&content, &keys.roots).map_err(io::Error::other)?;
    create(&folder.join(DIRECTORY), 0o644)?.write_all(file.as_bytes())
}

fn public(key: &SigningKey) -> Key {
    Key::from(key.verifying_key())
}

fn content(options: &Options, keys: &Keys) -> Content {
    let (from, until) = (options.now - 2 * YEAR, options.now + 2 * YEAR);
    let (validity, changed) = (Validity { from, until }, options.now - KEY_AGE);
    let [old, new] = keys.issuer.each_ref().map(public);
    let text = str::to_owned;
    let issuer = |index, domain, key, providers: &[&str]| Issuer {
        index,
        domain: text(domain),
        keys: vec![IssuerKey { key: public(key), validity }],
        remit: Remit {
            providers: providers.iter().copied().map(text).collect(),
            prefixes: vec![text(PREFIX), text("@")],
            regions: vec![text(REGION), text(OTHER_REGION)],
            proof: Proof::Email,
        },
        exempt_before: None,
        authority: false,
    };
    let provider = |(index, domain): (u32, &str)| Provider {
        index,
        domain: text(domain),
        name: text(domain.split('.').next().unwrap_or(domain)),
        keys_url: format!("https://keys.{domain}/"),
        keys_identity: None,
    };
    Content {
        version: 1,
        expires: options.now + 30 * DAY,
        threshold: 2,
        roots: keys.roots.each_ref().map(public).to_vec(),
        providers: (1..).zip(PROVIDERS).map(provider).collect(),
        issuers: vec![
            Issuer {
                exempt_before: Some(options.now - EXEMPT_AGE),
                keys: vec![
                    IssuerKey { key: old, validity: Validity { from, until: changed } },
                    IssuerKey { key: new, validity: Validity { from: changed, until } },
                ],
                ..issuer(1, ISSUER, &keys.issuer[1], &PROVIDERS[1..])
            },
            issuer(2, SELF_ISSUER, &keys.self_issuer, &[SELF_ISSUER]),
            Issuer { authority: true, ..issuer(3, AUTHORITY, &keys.authority, &[]) },
        ],
        databases: vec![Database {
            id: text(DATABASE),
            operator_key: public(&keys.operator),
            record_keys: vec![RecordKey { index: 1, key: public(&keys.record), validity }],
            blinding_key: options.blinding_key,
            log: None,
            prefixes: vec![text(PREFIX)],
            region: text(REGION),
            endpoints: vec![text("localhost:4433")],
        }],
        last_index: LastIndex { provider: 4, issuer: 3, record_key: 1 },
    }
}

/// A line, and whether it is to be refused.
struct Line {
    text: String,
    is_refused: bool,
}

fn create(path: &Path, mode: u32) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).mode(mode).open(path)
}

/// Writes lines in their order, made on all cores; returns how many of them are to be refused.
fn write_lines(
    lines: Range<u64>,
    make: impl Fn(u64) -> Line + Sync,
    mut out: impl Write,
) -> io::Result<u64> {
    let mut refused = 0;
    let at_once = usize::try_from(CHUNK * CHUNKS_AT_ONCE).unwrap_or(usize::MAX);
    for start in lines.clone().step_by(at_once) {
        let indices = start..lines.end.min(start + CHUNK * CHUNKS_AT_ONCE);
        let made: Vec<Line> = indices.into_par_iter().map(&make).collect();
        for line in made {
            writeln!(out, "{}", line.text)?;
            refused += u64::from(line.is_refused);
        }
    }
    Ok(refused)
}

/// The lines come first, because the first line of the file signs them.
fn write_batch(
    maker: &Maker<'_>,
    lines: Range<u64>,
    path: &Path,
    previous: &mut Option<Batch>,
) -> io::Result<u64> {
    let unsigned = path.with_extension("unsigned");
    let mut body = Hashed { body: Body::default(), out: BufWriter::new(create(&unsigned, 0o644)?) };
    let refused = write_lines(lines, |index| maker.batched(index), &mut body)?;
    let Hashed { body, out } = body;
    let mut file = out.into_inner()?;
    let iat = maker.now - BATCH_AGE;
    let (line, batch) =
        Batch::sign(SELF_ISSUER, &body, previous.as_ref(), iat, &maker.keys.self_issuer);
    let mut out = create(path, 0o644)?;
    writeln!(out, "{line}")?;
    file.rewind()?;
    io::copy(&mut file, &mut out)?;
    fs::remove_file(unsigned)?;
    *previous = Some(batch);
    Ok(refused)
}

/// Writes and hashes.
struct Hashed<W> {
    body: Body,
    out: W,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.body.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// The private keys of a sample.
struct Keys {
    roots: [SigningKey; 2],
    /// The old one and the new one.
    issuer: [SigningKey; 2],
    self_issuer: SigningKey,
    authority: SigningKey,
    operator: SigningKey,
    record: SigningKey,
}

impl Keys {
    fn new() -> Self {
        Self {
            roots: [key("root 1", 0), key("root 2", 0)],
            issuer: [key(ISSUER, 0), key(ISSUER, 1)],
            self_issuer: key(SELF_ISSUER, 0),
            authority: key(AUTHORITY, 0),
            operator: key("operator", 0),
            record: key("record", 0),
        }
    }

    fn write(&self, folder: &Path) -> io::Result<()> {
        let [root_1, root_2] = &self.roots;
        let [issuer_1, issuer_2] = &self.issuer;
        let named = [
            ("root-1.pem", root_1),
            ("root-2.pem", root_2),
            ("issuer-1.pem", issuer_1),
            ("issuer-2.pem", issuer_2),
            ("self-issuer.pem", &self.self_issuer),
            ("authority.pem", &self.authority),
            ("operator.pem", &self.operator),
            (RECORD_KEY, &self.record),
        ];
        for (name, key) in named {
            let pair = KeypairBytes { secret_key: key.to_bytes(), public_key: None };
            let pem = pair.to_pkcs8_pem(LineEnding::LF).map_err(io::Error::other)?;
            create(&folder.join(name), 0o600)?.write_all(pem.as_bytes())?;
        }
        Ok(())
    }
}

/// A key that follows from the seed, a name and a number.
fn key(name: &str, number: u64) -> SigningKey {
    SigningKey::from_bytes(&hash(name, number))
}

fn hash(name: &str, number: u64) -> [u8; 32] {
    Sha256::new()
        .chain_update(SEED)
        .chain_update(name)
        .chain_update(number.to_le_bytes())
        .finalize()
        .into()
}

/// A number below `bound` that follows from a name and a number.
fn pick(name: &str, number: u64, bound: u64) -> u64 {
    let hash = hash(name, number);
    u64::from_le_bytes(std::array::from_fn(|i| hash[i])) % bound
}

/// Makes each line from its index alone. Every hundred lines have one of each special case, which
/// is about the person of a line before.
struct Maker<'a> {
    keys: &'a Keys,
    now: u64,
}

/// Since when the issuer signs with its new key.
const KEY_AGE: u64 = 100 * DAY;
/// Age of what is no ordinary statement.
const SPECIAL_AGE: u64 = 7_200;
const PREFERENCE_AGE: u64 = 3_600;
const BATCH_AGE: u64 = 1_800;
const FRESH_PREFERENCE_AGE: u64 = 900;
/// Accounts older than this have no user's key yet.
const EXEMPT_AGE: u64 = 300 * DAY;
const AGE_MAX: u64 = 280 * DAY;
const VALIDITY: u64 = 390 * DAY;

impl Maker<'_> {
    /// A line of the file of signed statements.
    fn single(&self, index: u64) -> Line {
        let special = self.now - SPECIAL_AGE;
        let (person, provider) = (index, provider_of(index));
        let of = |back: u64| index - back;
        let issue = |mapping: Mapping| good(self.sign(&mapping));
        match index % 100 {
            80 => {
                let by = WithdrawnBy::Issuer(ISSUER.into());
                good(self.withdrawal(of(10), by).sign(&self.keys.issuer[1]))
            }
            81 => {
                let key = user_key(of(10), provider_of(of(10)));
                let by = WithdrawnBy::User(key.verifying_key().to_bytes());
                good(self.withdrawal(of(10), by).sign(&key))
            }
            82 => good(self.preference(of(10), provider_of(of(10)), PREFERENCE_AGE)),
            // Someone else's: only the merge can tell.
            83 => good(self.preference(of(10), "mallory.example", PREFERENCE_AGE)),
            // The number has another holder now, at another provider.
            84 => {
                let mut mapping = self.unsigned(index, other_provider_of(of(10)), special);
                mapping.sub = identifier(of(10));
                mapping.new_holder = true;
                issue(self.agreed(mapping, &user_key(index, "new holder")))
            }
            86 => {
                let by = WithdrawnBy::Authority(AUTHORITY.into());
                good(self.withdrawal(of(10), by).sign(&self.keys.authority))
            }
            // An address of the person who has a number at the same account.
            87 => {
                let (person, provider) = (of(10), provider_of(of(10)));
                let mut mapping = self.unsigned(person, provider, special);
                mapping.sub = address(person);
                mapping.proof = Proof::Email;
                issue(self.agreed(mapping, &user_key(person, provider)))
            }
            88 => {
                let (person, provider) = (of(10), provider_of(of(10)));
                let mapping = self.unsigned(person, provider, special);
                issue(self.agreed(mapping, &user_key(person, provider)))
            }
            90..94 | 99 => refused(self.wrong(index)),
            94 => issue(self.unsigned(person, provider, self.now - EXEMPT_AGE - DAY)),
            95 | 96 => {
                let mut mapping = self.mapping(person, provider, special);
                let region = if index % 100 == 95 { REGION } else { OTHER_REGION };
                mapping.region = Some(region.into());
                issue(mapping)
            }
            // The person of line 72 and 82 proves the identifier again, to prefer another service.
            97 => {
                let (person, provider) = (of(25), other_provider_of(of(25)));
                let mut mapping = self.unsigned(person, provider, self.now - BATCH_AGE);
                mapping.purpose = Purpose::Prefer;
                issue(self.agreed(mapping, &user_key(person, provider)))
            }
            98 => good(self.preference(of(26), other_provider_of(of(26)), FRESH_PREFERENCE_AGE)),
            _ => issue(self.mapping(person, provider, self.iat(person))),
        }
    }

    /// A line that is to be refused.
    fn wrong(&self, index: u64) -> String {
        let special = self.now - SPECIAL_AGE;
        let (person, provider) = (index, provider_of(index));
        match index % 100 {
            90 => {
                let iat = self.now - VALIDITY - DAY;
                self.sign(&self.mapping(person, provider, iat))
            }
            91 => {
                let mut mapping = self.unsigned(person, provider, special);
                mapping.sub = number(&format!("+447700900{:03}", index / 100 % 1_000));
                self.sign(&self.agreed(mapping, &user_key(person, provider)))
            }
            92 => {
                let line = self.sign(&self.mapping(person, provider, special));
                let other = self.sign(&self.mapping(person, provider, special - 1));
                with_signature_of(&line, &other)
            }
            93 => {
                let mut mapping = self.unsigned(person, provider, special);
                mapping.user = self.mapping(person, provider, special - 1).user;
                self.sign(&mapping)
            }
            _ => self.sign(&self.mapping(person, provider, self.now + DAY)),
        }
    }

    /// A line of the batches. Half of their people are also in the other file.
    fn batched(&self, index: u64) -> Line {
        let person_of = |index: u64| index + index % 2 * BATCH_PEOPLE;
        let person = person_of(index);
        let mapping = |iat| {
            let mut mapping = self.mapping(person, SELF_ISSUER, iat);
            mapping.iss = SELF_ISSUER.into();
            let key = user_key(person, SELF_ISSUER);
            self.agreed(mapping, &key)
        };
        let iat = self.iat(person);
        match index % 100 {
            80 => {
                let by = WithdrawnBy::Issuer(SELF_ISSUER.into());
                good(Batch::line_of_withdrawal(&self.withdrawal(person_of(index - 10), by)))
            }
            90 => refused(Batch::line_of(&mapping(self.now - VALIDITY - DAY))),
            91 => refused(Batch::line_of(&Mapping { iss: ISSUER.into(), ..mapping(iat) })),
            92 => refused(Batch::line_of(&Mapping { user: mapping(iat - 1).user, ..mapping(iat) })),
            93 => refused(Batch::line_of(&Mapping { user: None, ..mapping(iat) })),
            _ => good(Batch::line_of(&mapping(iat))),
        }
    }

    /// With the issuer's key of that time.
    fn sign(&self, mapping: &Mapping) -> String {
        let [old, new] = &self.keys.issuer;
        mapping.sign(if mapping.iat < self.now - KEY_AGE { old } else { new })
    }

    fn iat(&self, person: u64) -> u64 {
        self.now - DAY - pick("iat", person, AGE_MAX)
    }

    fn mapping(&self, person: u64, provider: &str, iat: u64) -> Mapping {
        self.agreed(self.unsigned(person, provider, iat), &user_key(person, provider))
    }

    fn unsigned(&self, person: u64, provider: &str, iat: u64) -> Mapping {
        let sub = identifier(person);
        let proof = if sub.digits().is_some() { Proof::Sms } else { Proof::Email };
        let mut tags = Vec::new();
        if pick("tag", person, 8) == 0 {
            tags.push("business".to_owned());
        }
        Mapping {
            iss: ISSUER.into(),
            sub,
            ssi: ssi(person, provider),
            jti: jti(person, provider, iat),
            iat,
            exp: iat + VALIDITY,
            proof,
            proof_at: iat - 60,
            region: None,
            new_holder: false,
            tags,
            user: None,
            purpose: Purpose::Register,
        }
    }

    fn agreed(&self, mut mapping: Mapping, key: &SigningKey) -> Mapping {
        mapping.user = Some(Consent::new(&mapping.consent_text(), key));
        mapping
    }

    fn withdrawal(&self, person: u64, by: WithdrawnBy) -> Withdrawal {
        let iat = self.now - SPECIAL_AGE;
        let jti = jti(person, "withdrawal", iat);
        Withdrawal { by, sub: identifier(person), ssi: None, jti, iat }
    }

    fn preference(&self, person: u64, provider: &str, age: u64) -> String {
        let ssi = Some(ssi(person, provider));
        let key = user_key(person, provider);
        Preference::new(identifier(person), ssi, self.now - age, &key).to_line()
    }
}

/// What is added to the people of a batch who are in no other file.
const BATCH_PEOPLE: u64 = 5_000_000;

fn good(text: String) -> Line {
    Line { text, is_refused: false }
}

fn refused(text: String) -> Line {
    Line { text, is_refused: true }
}

/// A token with the signature of another.
fn with_signature_of(line: &str, other: &str) -> String {
    let signed = line.rsplit_once('.').map_or("", |(signed, _)| signed);
    let signature = other.rsplit_once('.').map_or("", |(_, signature)| signature);
    format!("{signed}.{signature}")
}

fn provider_of(person: u64) -> &'static str {
    PROVIDERS[1 + pick("provider", person, 3) as usize]
}

/// Another provider of the same issuer.
fn other_provider_of(person: u64) -> &'static str {
    PROVIDERS[1 + (pick("provider", person, 3) as usize + 1) % 3]
}

fn user_key(person: u64, provider: &str) -> SigningKey {
    key(provider, person + 1)
}

fn jti(person: u64, what: &str, iat: u64) -> String {
    let hash = hash(what, person ^ iat << 32);
    jws::base64url(&hash[..16])
}

/// Every fifth person has an address; numbers repeat after ten million people.
fn identifier(person: u64) -> Identifier {
    if person.is_multiple_of(5) {
        return address(person);
    }
    // The factor is coprime to the number of numbers, so that none repeats.
    number(&format!("+1555{:07}", person % 10_000_000 * 7_654_321 % 10_000_000))
}

fn address(person: u64) -> Identifier {
    let domain = ["example.com", "example.org", "example.net"][(person % 3) as usize];
    number(&format!("{}.{person}@{domain}", name(person)))
}

fn number(text: &str) -> Identifier {
    Identifier::parse(text, None).expect("sample identifiers are canonical")
}

fn name(person: u64) -> &'static str {
    const NAMES: [&str; 12] = [
        "alice", "bob", "carol", "dave", "erin", "faythe", "grace", "heidi", "ivan", "judy",
        "niaj", "olivia",
    ];
    NAMES[pick("name", person, NAMES.len() as u64) as usize]
}

fn ssi(person: u64, provider: &str) -> Ssi {
    Ssi::new(provider, &format!("{}{person}", name(person))).expect("sample SSIs are well formed")
}

/// What the tests of statements start from: the directory of a sample, its keys, and a person.
#[cfg(test)]
pub(super) mod fixture {
    use std::sync::LazyLock;

    use super::*;
    pub(in crate::discovery) use super::{AUTHORITY, DAY, ISSUER, PROVIDERS, SELF_ISSUER};
    use crate::discovery::directory::Directory;

    pub(crate) const NOW: u64 = 1_796_000_000;
    /// The keys that sign as the issuer, the provider that speaks for itself, the authority.
    pub(crate) struct Signers {
        pub(crate) issuer: SigningKey,
        pub(crate) old_issuer: SigningKey,
        pub(crate) self_issuer: SigningKey,
        pub(crate) authority: SigningKey,
    }

    pub(crate) fn signers() -> Signers {
        let Keys { issuer: [old_issuer, issuer], self_issuer, authority, .. } = Keys::new();
        Signers { issuer, old_issuer, self_issuer, authority }
    }

    pub(crate) fn directory() -> &'static Directory {
        static DIRECTORY: LazyLock<Directory> = LazyLock::new(|| directory_with(|_| {}));
        &DIRECTORY
    }

    /// With changes, such as another remit.
    pub(crate) fn directory_with(change: impl FnOnce(&mut Content)) -> Directory {
        let keys = Keys::new();
        let mut content = content(&Options { statements: 0, now: NOW, blinding_key: None }, &keys);
        change(&mut content);
        let file = draft::sign(&content, &keys.roots).unwrap();
        let pins = Pins::new(content.threshold, content.roots).unwrap();
        Directory::open(file.as_bytes(), &pins, NOW).unwrap()
    }

    pub(crate) fn user(number: u64) -> SigningKey {
        key("user", number)
    }

    /// A mapping that is right but for the user's signature.
    pub(crate) fn unsigned() -> Mapping {
        Mapping {
            iss: ISSUER.into(),
            sub: identifier(1),
            ssi: Ssi::new(PROVIDERS[1], "alice-smith").unwrap(),
            jti: "1".into(),
            iat: NOW - DAY,
            exp: NOW + DAY,
            proof: Proof::Sms,
            proof_at: NOW - DAY,
            region: None,
            new_holder: false,
            tags: Vec::new(),
            user: None,
            purpose: Purpose::Register,
        }
    }

    pub(crate) fn agreed(mut mapping: Mapping) -> Mapping {
        mapping.user = Some(Consent::new(&mapping.consent_text(), &user(1)));
        mapping
    }

    pub(crate) fn mapping() -> Mapping {
        agreed(unsigned())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::fixture::NOW;
    use super::*;
    use crate::discovery::directory::Directory;
    use crate::discovery::files;
    use crate::discovery::statement::{Code, Statement};

    const OPTIONS: Options = Options { statements: 2_000, now: NOW, blinding_key: None };

    fn open(folder: &Path, now: u64) -> Directory {
        let pins: Pins = serde_json::from_slice(&fs::read(folder.join(PINS)).unwrap()).unwrap();
        Directory::open(&fs::read(folder.join(DIRECTORY)).unwrap(), &pins, now).unwrap()
    }

    #[test]
    fn a_sample_is_the_same_for_the_same_options() {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        for folder in &folders {
            write(&OPTIONS, folder.path()).unwrap();
        }
        let names = |folder: &Path| -> BTreeSet<_> {
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect()
        };
        let [a, b] = folders.each_ref().map(|folder| folder.path());
        assert_eq!(names(a), names(b));
        assert_eq!(names(a).len(), 13);
        for name in names(a) {
            assert_eq!(fs::read(a.join(&name)).unwrap(), fs::read(b.join(&name)).unwrap());
        }
        // Nothing is replaced.
        assert_eq!(write(&OPTIONS, a).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        let early = Options { now: 5, ..OPTIONS };
        assert_eq!(write(&early, b).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn what_is_to_be_refused_is_refused_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let made = write(&OPTIONS, folder.path()).unwrap();
        let directory = open(folder.path(), NOW);
        let (mut accepted, mut refused) = (0, BTreeMap::<Code, u64>::new());
        let mut batches: Vec<Option<Batch>> = Vec::new();
        for name in [STATEMENTS, BATCHES[0], BATCHES[1]] {
            let file = io::BufReader::new(File::open(folder.path().join(name)).unwrap());
            let verified = files::verify(file, &directory, NOW, |_, _| {}).unwrap();
            accepted += verified.accepted;
            verified.refused.iter().for_each(|(code, n)| *refused.entry(*code).or_default() += n);
            batches.push(verified.batch);
        }
        let [None, Some(first), Some(second)] = &batches[..] else { panic!("two are batches") };
        assert_eq!((first.count, second.count), (500, 500));
        first.follows(None).unwrap();
        second.follows(Some(first)).unwrap();
        assert_eq!(accepted + refused.values().sum::<u64>(), made.statements);
        assert_eq!(refused.values().sum::<u64>(), made.refused);
        let expected = [
            (Code::Forged, 10),
            (Code::OutOfRemit, 10),
            (Code::Expired, 20),
            (Code::Future, 10),
            (Code::NoConsent, 10),
            (Code::UserForged, 20),
            (Code::BatchIssuer, 10),
        ];
        assert_eq!(refused, BTreeMap::from(expected));
    }

    #[test]
    fn each_line_is_what_its_maker_says() {
        let keys = Keys::new();
        let maker = Maker { keys: &keys, now: NOW };
        let directory = fixture::directory();
        let read = |index| Statement::read(&maker.single(index).text, directory, NOW);
        let mut kinds = [0; 3];
        for index in 0..200 {
            let read = read(index);
            assert_eq!(read.is_err(), maker.single(index).is_refused, "{index}: {read:?}");
            match read {
                Ok(Statement::Mapping(_)) => kinds[0] += 1,
                Ok(Statement::Withdrawal(_)) => kinds[1] += 1,
                Ok(Statement::Preference(_)) => kinds[2] += 1,
                Err(_) => {}
            }
        }
        assert_eq!(kinds, [178, 6, 6]);
        let mapping = |index| match read(index).unwrap() {
            Statement::Mapping(mapping) => mapping,
            other => panic!("{other:?}"),
        };
        let (recycled, before) = (mapping(84), mapping(74));
        assert!(recycled.new_holder && recycled.sub == before.sub && recycled.iat > before.iat);
        assert_ne!(recycled.ssi, before.ssi);
        let (address, number) = (mapping(87), mapping(77));
        assert_eq!(
            (address.ssi.as_str(), address.user.map(|u| u.key)),
            (number.ssi.as_str(), number.user.map(|u| u.key))
        );
        assert!(address.sub.domain().is_some() && number.sub.digits().is_some());
        assert_eq!(mapping(97).purpose, Purpose::Prefer);
    }
}
