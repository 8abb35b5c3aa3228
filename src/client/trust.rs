//! What a client believes about a database, and what it refuses to hear.
//!
//! The operator signs a database's parameters; a client that knows the operator's key checks the
//! signature, and from then on holds on to what must not change ([`Pins`]): another seed, an older
//! epoch, or another number of shards would single out what it looks for (docs/wire.md, "Pins").
//! There is no IO and no clock here: `now` is an argument.

use std::fmt;

use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};

use super::error::{ClientError, ParameterError, PinsError};
use crate::limits;
use crate::wire::hex::Hex;
use crate::wire::message::PirParameterResponse;
use crate::wire::parameters::check_database_name;
use crate::wire::{HINT_DIGEST_BYTES, PublicParameters, VerifyingKey, hex, verify};

/// What a DER-encoded Ed25519 public key starts with (RFC 8410): the 32 bytes follow.
const ED25519_SPKI_PREFIX: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// The Ed25519 public key with which an operator signs a database's parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OperatorKey(pub [u8; 32]);

impl OperatorKey {
    /// Reads what `sotto build` writes to `operator.pub` (a PEM file, RFC 8410), or 64 hex digits.
    pub fn from_text(text: &str) -> Result<Self, ClientError> {
        let none = |found| ClientError::OperatorKey { found };
        let plain = crate::text::plain(text.as_bytes());
        let text = std::str::from_utf8(&plain).unwrap_or(text).trim();
        if text.len() == 64 && text.is_ascii() {
            return hex::decode_array(text).map(Self).ok_or(none("64 other characters"));
        }
        let der = SubjectPublicKeyInfoDer::from_pem_slice(text.as_bytes())
            .map_err(|_| none("neither of the two"))?;
        let key = der.as_ref().strip_prefix(&ED25519_SPKI_PREFIX);
        let key = key.and_then(|key| key.try_into().ok());
        key.map(Self).ok_or(none("a PEM file with a key of another kind"))
    }

    /// 16 hex digits to compare by eye: the start of BLAKE3 over the key, in groups of four.
    pub fn fingerprint(&self) -> String {
        let hash = blake3::hash(&self.0);
        let groups = hash.as_bytes()[..8].chunks_exact(2);
        groups.map(|pair| format!("{:02x}{:02x}", pair[0], pair[1])).collect::<Vec<_>>().join(" ")
    }
}

impl fmt::Display for OperatorKey {
    /// 64 hex digits, as [`OperatorKey::from_text`] reads them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

/// Everything a client knows about a database. Before the first contact that is the operator's key
/// ([`Pins::operator`]) or nothing ([`Pins::first_use`]); from then on it is also what must not
/// change: the database's name, seed, epoch and number of shards.
#[must_use = "pins that are not stored cannot show the next session what changed"]
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Stored", into = "Stored")]
pub struct Pins {
    operator_key: Option<OperatorKey>,
    database: Option<String>,
    seen: Option<Seen>,
}

/// What parameters that were accepted leave behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Seen {
    /// The database's seed, for its whole life.
    seed: Hex<32>,
    /// The newest epoch.
    epoch: u64,
    /// BLAKE3 of the parameters of that epoch: every client of an epoch gets the same.
    parameters_hash: Hex<32>,
    shard_count: u32,
    /// Unix seconds: when that number was last seen to double.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    doubled: Option<u64>,
}

impl Pins {
    /// The operator's key is known from elsewhere, nothing else.
    pub fn operator(key: OperatorKey) -> Self {
        Self { operator_key: Some(key), ..Self::default() }
    }

    /// Nothing is known: the key that the first server shows is believed, and warned about. Whoever
    /// answers first can pass for the operator: compare [`super::Client::operator_key`] with what
    /// the operator publishes, and use [`Pins::operator`] from then on.
    pub fn first_use() -> Self {
        Self::default()
    }

    /// The same, for the database of this name only: for an operator who signs several with one
    /// key.
    pub fn for_database(self, name: &str) -> Result<Self, PinsError> {
        check_database_name(name).map_err(|error| PinsError::Name(error.to_string()))?;
        let named = Self { database: Some(name.to_owned()), ..Self::default() };
        named.join(self)
    }

    /// The operator's key; `None` before a first use without one.
    pub fn operator_key(&self) -> Option<OperatorKey> {
        self.operator_key
    }
    /// The database's name, where it is known.
    pub fn database(&self) -> Option<&str> {
        self.database.as_deref()
    }
    /// The newest epoch seen; 0 before.
    pub fn epoch(&self) -> u64 {
        self.seen.map_or(0, |seen| seen.epoch)
    }
    /// The number of shards; 0 before it was seen.
    pub fn shard_count(&self) -> u32 {
        self.seen.map_or(0, |seen| seen.shard_count)
    }

    /// What this and `other` know together, of sessions beside each other: the newer epoch, and the
    /// later doubling.
    pub fn join(self, other: Self) -> Result<Self, PinsError> {
        if let (Some(found), Some(expected)) = (self.operator_key, other.operator_key)
            && found != expected
        {
            let (found, expected) = (found.fingerprint(), expected.fingerprint());
            return Err(PinsError::Operator { found, expected });
        }
        let database = match (self.database, other.database) {
            (Some(found), Some(expected)) if found != expected => {
                return Err(PinsError::Database { found, expected });
            }
            (one, two) => one.or(two),
        };
        let seen = match (self.seen, other.seen) {
            (Some(one), Some(two)) => Some(one.join(two)?),
            (one, two) => one.or(two),
        };
        let operator_key = self.operator_key.or(other.operator_key);
        Ok(Self { operator_key, database, seen })
    }
}

impl Seen {
    fn join(self, other: Self) -> Result<Self, PinsError> {
        if self.seed != other.seed {
            return Err(PinsError::Seed);
        }
        if self.epoch == other.epoch && self.parameters_hash != other.parameters_hash {
            return Err(PinsError::Forked { epoch: self.epoch });
        }
        let newer = if self.epoch >= other.epoch { self } else { other };
        Ok(Self { doubled: self.doubled.max(other.doubled), ..newer })
    }
}

/// [`Pins`] as they are written down.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    operator_key: Option<Hex<32>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    database: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seen: Option<Seen>,
}

const STORED_VERSION: u32 = 1;

impl From<Pins> for Stored {
    fn from(pins: Pins) -> Self {
        let Pins { operator_key, database, seen } = pins;
        let operator_key = operator_key.map(|key| Hex(key.0));
        Self { version: STORED_VERSION, operator_key, database, seen }
    }
}

impl TryFrom<Stored> for Pins {
    type Error = PinsError;

    fn try_from(stored: Stored) -> Result<Self, PinsError> {
        let Stored { version, operator_key, database, seen } = stored;
        if version != STORED_VERSION {
            return Err(PinsError::Version { found: version, expected: STORED_VERSION });
        }
        if let Some(name) = &database {
            check_database_name(name).map_err(|error| PinsError::Name(error.to_string()))?;
        }
        if seen.is_some() && (operator_key.is_none() || database.is_none()) {
            return Err(PinsError::Incomplete);
        }
        Ok(Self { operator_key: operator_key.map(|key| OperatorKey(key.0)), database, seen })
    }
}

/// What a client compares parameters with.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    pub(super) pins: Pins,
    records_per_shard_min: u64,
    /// The number of shards doubled in this session.
    doubled_now: bool,
}

impl Rules {
    pub(super) fn new(pins: Pins, records_per_shard_min: u64) -> Self {
        Self { pins, records_per_shard_min, doubled_now: false }
    }

    /// Checks a parameter reply that succeeded, from its signature to the last pin, and holds on to
    /// what it pins. What comes back may be used. `now` is in unix seconds.
    pub(super) fn accept(
        &mut self,
        reply: &PirParameterResponse,
        now: u64,
    ) -> Result<PublicParameters, ParameterError> {
        let operator_key = self.operator_key(&reply.operator_key)?;
        let wrong = |found: String| ParameterError::Signature { found };
        let key = VerifyingKey::from_bytes(&operator_key.0).map_err(|e| wrong(e.to_string()))?;
        verify(&key, &reply.parameters, &reply.signature).map_err(|e| wrong(e.to_string()))?;
        let parameters = PublicParameters::decode(&reply.parameters)?;
        if let Some(expected) = &self.pins.database
            && expected != parameters.database()
        {
            let (found, expected) = (parameters.database().to_owned(), expected.clone());
            return Err(ParameterError::DatabaseChanged { found, expected });
        }
        let mut seen = Seen {
            seed: Hex(*parameters.seed()),
            epoch: parameters.epoch(),
            parameters_hash: Hex(*blake3::hash(&reply.parameters).as_bytes()),
            shard_count: parameters.shard_count(),
            doubled: None,
        };
        if let Some(held) = &self.pins.seen {
            seen.doubled = check_change(held, &seen, now, self.doubled_now)?;
        }
        parameters.lifetime().check(now)?;
        let (found, expected) = (parameters.shard_records_min().into(), self.records_per_shard_min);
        if found < expected {
            return Err(ParameterError::TooFewRecords { found, expected });
        }
        if !parameters.matches_hint_digests(&reply.hint_digests) {
            let expected = parameters.shard_count() as usize * HINT_DIGEST_BYTES;
            let found = format!("{} bytes of another list", reply.hint_digests.len());
            let expected = format!("{expected} bytes with the signed hash");
            return Err(ParameterError::HintDigests { found, expected });
        }
        self.doubled_now |= self.pins.seen.is_some_and(|was| was.shard_count != seen.shard_count);
        let database = Some(parameters.database().to_owned());
        self.pins = Pins { operator_key: Some(operator_key), database, seen: Some(seen) };
        Ok(parameters)
    }

    /// The key to check with: the pinned one; the shown one on first use only.
    fn operator_key(&self, shown: &[u8]) -> Result<OperatorKey, ParameterError> {
        let shown: Option<OperatorKey> = shown.try_into().ok().map(OperatorKey);
        match (self.pins.operator_key, shown) {
            (Some(known), Some(shown)) if known != shown => Err(ParameterError::OtherKey {
                found: shown.fingerprint(),
                expected: known.fingerprint(),
            }),
            (Some(known), _) => Ok(known),
            (None, Some(shown)) => Ok(shown),
            (None, None) => Err(ParameterError::NoKey),
        }
    }
}

/// Whether a database that was `held` may at `now` be what was `seen`; with it, when its shards
/// last doubled.
fn check_change(
    held: &Seen,
    seen: &Seen,
    now: u64,
    doubled_now: bool,
) -> Result<Option<u64>, ParameterError> {
    if seen.seed != held.seed {
        return Err(ParameterError::SeedChanged);
    }
    if seen.epoch < held.epoch {
        let (found, expected) = (seen.epoch, held.epoch);
        return Err(ParameterError::EpochOlder { found, expected });
    }
    if seen.epoch == held.epoch && seen.parameters_hash != held.parameters_hash {
        return Err(ParameterError::EpochForked { epoch: seen.epoch });
    }
    if seen.shard_count == held.shard_count {
        return Ok(held.doubled);
    }
    let (found, expected) = (seen.shard_count, held.shard_count);
    // Then a key's shard splits in two, and the key does not move among the others.
    if held.shard_count.checked_mul(2) != Some(seen.shard_count) {
        return Err(ParameterError::ShardCountChanged { found, expected });
    }
    // A clock that went back lets no time pass.
    let since = held.doubled.map(|doubled| now.saturating_sub(doubled));
    let soon = since.is_some_and(|since| since < limits::DOUBLING_INTERVAL.as_secs());
    if doubled_now || soon {
        return Err(ParameterError::DoubledAgain { found, expected });
    }
    Ok(Some(now))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::Shape;
    use crate::wire::{Lifetime, LifetimeError, ParameterFields, SigningKey, sign};

    const SPKI: &str = "-----BEGIN PUBLIC KEY-----\n\
        MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";

    #[test]
    fn operator_keys_are_read_as_pem_and_as_hex() {
        // The public key of RFC 8410, section 10.1.
        let hex = "19bf44096984cdfe8541bac167dc3b96c85086aa30b6b6cb0c5c38ad703166e1";
        let from_windows = format!("\u{feff}{}", SPKI.replace('\n', "\r\n"));
        let digits = [format!("  {hex}\n"), hex.to_uppercase(), format!("\u{feff}{hex}\r\n")];
        for good in digits.into_iter().chain([SPKI.to_owned(), from_windows]) {
            let key = OperatorKey::from_text(&good).unwrap();
            assert_eq!((&*key.to_string(), key.fingerprint().len()), (hex, 19), "{good}");
        }
        let other = SPKI.replace("K2Vw", "K2Vu"); // X25519
        for bad in ["", "19bf", &hex.replace('f', "g"), &other, &SPKI[..60]] {
            let error = OperatorKey::from_text(bad).unwrap_err();
            assert!(matches!(error, ClientError::OperatorKey { .. }), "{bad}: {error}");
        }
    }

    fn signer() -> SigningKey {
        SigningKey::from_bytes(&[42; 32])
    }

    fn digests(shards: usize) -> Vec<u8> {
        (0..shards * HINT_DIGEST_BYTES).map(|at| at as u8).collect()
    }

    /// When these tests are.
    const NOW: u64 = 1_800_000_000;
    const DAY: u64 = 86_400;
    const YEAR: u64 = 365 * DAY;
    /// Records of each shard.
    const RECORDS: u32 = limits::RECORDS_PER_SHARD_ACCEPTED_MIN as u32;

    fn fields(seed: u8, epoch: u64, shards: usize) -> ParameterFields {
        ParameterFields {
            seed: [seed; 32],
            epoch,
            shape: Shape::for_records(1 << 17, 40, Default::default()).unwrap(),
            ribbon_seeds: vec![0; shards],
            hint_digests_hash: *blake3::hash(&digests(shards)).as_bytes(),
            lifetime: Lifetime { created: NOW, expires: NOW + 3 * YEAR },
            database: "phones".into(),
            record_count: u64::from(RECORDS) * shards as u64,
            shard_records_min: RECORDS,
            content: [3; 32],
        }
    }

    fn parameters(seed: u8, epoch: u64, shards: usize) -> PublicParameters {
        PublicParameters::new(fields(seed, epoch, shards)).unwrap()
    }

    /// Epoch 6 of a database of 12 shards, changed.
    fn changed(change: impl FnOnce(&mut ParameterFields)) -> PublicParameters {
        let mut fields = fields(1, 6, 12);
        change(&mut fields);
        PublicParameters::new(fields).unwrap()
    }

    fn reply(parameters: &PublicParameters) -> PirParameterResponse {
        let bytes = parameters.encode();
        PirParameterResponse {
            signature: sign(&signer(), &bytes).to_vec().into(),
            parameters: bytes.into(),
            hint_digests: digests(parameters.shard_count() as usize).into(),
            operator_key: signer().verifying_key().to_bytes().to_vec().into(),
            ..Default::default()
        }
    }

    fn rules() -> Rules {
        let key = OperatorKey(signer().verifying_key().to_bytes());
        Rules::new(Pins::operator(key), limits::RECORDS_PER_SHARD_ACCEPTED_MIN)
    }

    impl Rules {
        /// What this session pins once it has seen these parameters.
        fn after(mut self, parameters: &PublicParameters) -> Self {
            self.accept(&reply(parameters), NOW).unwrap();
            self
        }

        /// The next session with what this one pinned.
        fn next_session(&self) -> Self {
            Self::new(self.pins.clone(), self.records_per_shard_min)
        }
    }

    /// Parameters are refused with a message that says this, and change nothing.
    fn refuse(rules: &Rules, reply: &PirParameterResponse, now: u64, said: &str) {
        let mut tried = rules.clone();
        let error = tried.accept(reply, now).unwrap_err().to_string();
        assert!(error.contains(said), "{error} for {said}");
        assert_eq!(tried.pins, rules.pins);
    }

    #[test]
    fn what_may_change_is_accepted_and_what_would_single_out_a_key_is_refused() {
        let held = rules().after(&parameters(1, 5, 12));
        let pins = &held.pins;
        assert_eq!(pins.seen.map(|seen| seen.seed.0), Some([1; 32]));
        assert_eq!((pins.epoch(), pins.shard_count()), (5, 12));
        assert_eq!(pins.database(), Some("phones"));
        for allowed in [parameters(1, 5, 12), parameters(1, 6, 12), parameters(1, 6, 24)] {
            held.clone().after(&allowed);
            held.next_session().after(&allowed);
        }
        for (refused, said) in [
            (parameters(2, 6, 12), "another seed than before"),
            (parameters(1, 4, 12), "of epoch 4, expected 5 or newer"),
            (parameters(1, 5, 24), "epoch 5 has two sets"),
        ] {
            refuse(&held, &reply(&refused), NOW, said);
        }
        for shards in [1, 6, 11, 13, 36, 48, 96] {
            let said = format!("has {shards} shards, expected 12 or twice that");
            refuse(&held, &reply(&parameters(1, 6, shards)), NOW, &said);
        }
        // Another name, also where nothing but the name was known.
        let named = Rules::new(Pins { seen: None, ..held.pins.clone() }, 1);
        let mails = reply(&changed(|f| f.database = "mails".into()));
        for rules in [held, named] {
            refuse(&rules, &mails, NOW, "is called mails, expected phones");
        }
    }

    #[test]
    fn the_number_of_shards_doubles_once_a_session_and_once_a_year() {
        let refuse = |rules: &Rules, shards, now| {
            let said = format!("has {shards} shards, expected {}: that number", shards / 2);
            refuse(rules, &reply(&parameters(1, 8, shards)), now, &said);
        };
        let mut session = rules().after(&parameters(1, 5, 12)).after(&parameters(1, 6, 24));
        // Not again in the session, however long it is or whatever the clock says.
        for now in [NOW, NOW + YEAR, NOW + 2 * YEAR] {
            refuse(&session, 48, now);
        }
        // Epochs with that number are fine, and do not count as a doubling.
        session.accept(&reply(&parameters(1, 6, 24)), NOW + DAY).unwrap();
        let next = session.next_session();
        for now in [NOW - 250, NOW, NOW + YEAR - 1] {
            refuse(&next, 48, now);
        }
        let mut later = next.clone();
        later.accept(&reply(&parameters(1, 7, 48)), NOW + YEAR).unwrap();
        refuse(&later.next_session(), 96, NOW + 2 * YEAR - 1);
        // It is remembered over a store and over epochs without a doubling.
        let stored = serde_json::to_string(&next.pins).unwrap();
        let read: Pins = serde_json::from_str(&stored).unwrap();
        assert_eq!(read, next.pins);
        refuse(&Rules::new(read, 1), 48, NOW + DAY);
    }

    #[test]
    fn parameters_hold_from_when_they_were_made_until_they_expire() {
        let parameters = changed(|f| f.lifetime.expires = NOW + 30 * DAY);
        for good in [NOW - 300, NOW, NOW + 30 * DAY] {
            rules().accept(&reply(&parameters), good).unwrap();
        }
        // Whether or not the database is known.
        for rules in [rules(), rules().after(&parameters)] {
            let early = LifetimeError::Future { seconds: 301 };
            let late = LifetimeError::Expired { seconds: 1 };
            for (now, error) in [(NOW - 301, early), (NOW + 30 * DAY + 1, late)] {
                refuse(&rules, &reply(&parameters), now, &error.to_string());
            }
        }
    }

    #[test]
    fn the_crowd_is_what_was_signed_of_the_emptiest_shard() {
        let of = |records| changed(|f| f.shard_records_min = records);
        let told = Rules { records_per_shard_min: 100, ..rules() };
        for (rules, least) in [(rules(), RECORDS), (told, 100)] {
            rules.clone().after(&of(least));
            let said = format!("has {} records, expected at least {least}:", least - 1);
            refuse(&rules, &reply(&of(least - 1)), NOW, &said);
        }
    }

    #[test]
    fn signature_key_and_digests_are_checked() {
        let good = reply(&parameters(1, 5, 12));
        let refuse = |said, change: &dyn Fn(&mut PirParameterResponse)| {
            let mut reply = good.clone();
            change(&mut reply);
            refuse(&rules(), &reply, NOW, said);
        };
        let mut changed = good.parameters.to_vec();
        changed[40] ^= 1;
        refuse("not signed", &|reply| reply.parameters = changed.clone().into());
        refuse("not signed", &|reply| reply.signature.clear());
        refuse("expected the pinned", &|reply| reply.operator_key = vec![7; 32].into());
        for list in [Vec::new(), digests(11), digests(13), digests(13)[16..].to_vec()] {
            refuse("hint digests: ", &|reply| reply.hint_digests = list.clone().into());
        }
    }

    #[test]
    fn first_use_believes_once_and_then_remembers() {
        let first = Rules { pins: Pins::first_use(), ..rules() };
        let good = reply(&parameters(1, 5, 12));
        let mut later = first.clone();
        later.accept(&good, NOW).unwrap();
        assert_eq!(later.pins.operator_key().unwrap().0, signer().verifying_key().to_bytes());
        let silent = PirParameterResponse { operator_key: Default::default(), ..good.clone() };
        refuse(&first, &silent, NOW, "shows no operator key");
        later.accept(&silent, NOW).unwrap();
        let impostor = SigningKey::from_bytes(&[43; 32]);
        let other = PirParameterResponse {
            signature: sign(&impostor, &good.parameters).to_vec().into(),
            operator_key: impostor.verifying_key().to_bytes().to_vec().into(),
            ..good
        };
        first.clone().accept(&other, NOW).unwrap();
        refuse(&later, &other, NOW, "expected the pinned");
    }

    #[test]
    fn sessions_beside_each_other_join_what_they_know() {
        let one = rules().after(&parameters(1, 5, 12)).pins;
        let two = rules().after(&parameters(1, 5, 12)).after(&parameters(1, 6, 24)).pins;
        assert_eq!(one.clone().join(two.clone()), Ok(two.clone()));
        assert_eq!(two.clone().join(one.clone()), Ok(two.clone()));
        assert_eq!(Pins::first_use().join(one.clone()), Ok(one.clone()));
        // The doubling stays known where a newer epoch was first seen by who did not see it double.
        let newer = rules().after(&parameters(1, 7, 24)).pins;
        let joined = two.clone().join(newer).unwrap();
        assert_eq!((joined.epoch(), joined.seen.unwrap().doubled), (7, Some(NOW)));
        // What is of different databases does not join.
        let of = |parameters: PublicParameters| rules().after(&parameters).pins;
        let named = PinsError::Database { found: "phones".into(), expected: "mails".into() };
        let contradictions = [
            (of(changed(|f| (f.epoch, f.content) = (5, [4; 32]))), PinsError::Forked { epoch: 5 }),
            (of(parameters(2, 9, 12)), PinsError::Seed),
            (of(changed(|f| f.database = "mails".into())), named),
        ];
        for (other, error) in contradictions {
            assert_eq!(one.clone().join(other), Err(error));
        }
        let stranger = one.clone().join(Pins::operator(OperatorKey([7; 32])));
        assert!(matches!(stranger, Err(PinsError::Operator { .. })), "{stranger:?}");
        assert!(one.clone().for_database("mails").is_err() && one.for_database("phones").is_ok());
        assert!(Pins::first_use().for_database("../x").is_err());
    }
}
