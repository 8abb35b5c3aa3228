//! The public parameters of a database: what the operator signs and every client checks
//! (docs/wire.md, "Messages").
//!
//! Pinning of the operator's key and of the seed is the client's; making and keeping the key is
//! the builder's. Read next: [`crate::params::Shape`], which refuses noisy shapes.

use std::time::Duration;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use prost::Message;

use super::codes::HINT_DIGEST_BYTES;
use super::malformed::Malformed;
use super::{message, numbers};
use crate::limits;
use crate::params::{RIBBON_SEEDS, Shape, ShapeError, ShapeFields};
use crate::scheme::Seed;
use crate::text::duration;

/// What the parameters of one epoch of a database say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParameterFields {
    /// Database seed: public, pinned by clients.
    pub seed: Seed,
    /// Content version.
    pub epoch: u64,
    /// The shape all shards share.
    pub shape: Shape,
    /// The ribbon seed each shard was solved with, in shard order.
    pub ribbon_seeds: Vec<u32>,
    /// BLAKE3 over all hint digests in shard order.
    pub hint_digests_hash: [u8; 32],
    /// From when until when they hold.
    pub lifetime: Lifetime,
    /// The database's name ([`check_database_name`]), pinned by clients.
    pub database: String,
    /// Records of all shards.
    pub record_count: u64,
    /// Records of the emptiest shard: the crowd that a client checks.
    pub shard_records_min: u32,
    /// BLAKE3 over the header digests of all shards in order: covers every byte that is served.
    pub content: [u8; 32],
}

/// The parameters of one epoch of a database, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicParameters(ParameterFields);

/// The time for which signed parameters hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetime {
    /// Unix seconds.
    pub created: u64,
    /// Unix seconds; refused after.
    pub expires: u64,
}

/// Why parameters are refused at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum LifetimeError {
    #[error(
        "expired {} ago by this machine's clock: check the clock; if it is right, the operator \
         has to sign the database again (`sotto renew`, or `sotto build` of newer records)",
        duration(Duration::from_secs(*.seconds))
    )]
    Expired { seconds: u64 },
    #[error(
        "has a date {} after this machine's clock, expected at most {} after: check both clocks",
        duration(Duration::from_secs(*.seconds)), duration(limits::CLOCK_DIFFERENCE_MAX)
    )]
    Future { seconds: u64 },
}

impl Lifetime {
    /// An error unless they hold at `now` (unix seconds). Clocks may differ by
    /// [`limits::CLOCK_DIFFERENCE_MAX`] at the beginning.
    pub fn check(&self, now: u64) -> Result<(), LifetimeError> {
        if now > self.expires {
            return Err(LifetimeError::Expired { seconds: now - self.expires });
        }
        let ahead = self.created.saturating_sub(now);
        if ahead > limits::CLOCK_DIFFERENCE_MAX.as_secs() {
            return Err(LifetimeError::Future { seconds: ahead });
        }
        Ok(())
    }

    /// Whether at most a quarter of their time is left at `now`.
    pub fn is_ending(&self, now: u64) -> bool {
        self.left(now) <= self.expires.saturating_sub(self.created) / 4
    }

    /// Whether at most half of their time is left at `now`: they should be signed again.
    pub fn is_to_be_renewed(&self, now: u64) -> bool {
        self.left(now) <= self.expires.saturating_sub(self.created) / 2
    }

    /// Seconds from `now` until they expire.
    pub fn left(&self, now: u64) -> u64 {
        self.expires.saturating_sub(now)
    }
}

/// Why parameters are refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum ParametersError {
    #[error("the public parameters cannot be read: {0}")]
    Unreadable(String),
    #[error("in the public parameters, {0}")]
    Field(#[from] Malformed),
    #[error("the public parameters name a shape that is refused: {0}")]
    Shape(#[from] ShapeError),
}

fn exact<const N: usize>(field: &'static str, bytes: &[u8]) -> Result<[u8; N], Malformed> {
    bytes.try_into().map_err(|_| Malformed::bytes(field, bytes.len(), N))
}

#[expect(missing_docs, reason = "the getters are named as the fields of ParameterFields")]
impl PublicParameters {
    /// Parameters of `ribbon_seeds.len()` shards.
    pub fn new(fields: ParameterFields) -> Result<Self, ParametersError> {
        check_shards(fields.ribbon_seeds.len() as u64, &fields.ribbon_seeds)?;
        check_database_name(&fields.database)?;
        let Lifetime { created, expires } = fields.lifetime;
        if expires <= created {
            return Err(Malformed::new("expires", expires, format!("after {created}")).into());
        }
        check_counts(&fields)?;
        Ok(Self(fields))
    }

    /// Reads and checks what [`PublicParameters::encode`] wrote. The signature is over `bytes`
    /// and is [`verify`]'s to check, before this is believed.
    pub fn decode(bytes: &[u8]) -> Result<Self, ParametersError> {
        let found = message::PublicParameters::decode(bytes)
            .map_err(|error| ParametersError::Unreadable(error.to_string()))?;
        numbers::check("public parameters", bytes, message::PublicParameters::FIELDS)?;
        // Seeds are below 64, so their varints are one byte each and a longer one shows as >= 128.
        let ribbon_seeds: Vec<u32> = found.ribbon_seeds.iter().map(|&seed| seed.into()).collect();
        check_shards(found.shard_count.into(), &ribbon_seeds)?;
        let shape = Shape::from_fields(ShapeFields {
            value_len: found.value_len,
            pack_rows: found.pack_rows,
            packs: found.packs,
            columns: found.columns,
            response_bits: found.response_bits,
            hint_bits: found.hint_bits,
        })?;
        Self::new(ParameterFields {
            seed: exact("seed", &found.seed)?,
            epoch: found.epoch,
            shape,
            ribbon_seeds,
            hint_digests_hash: exact("hint_digests_hash", &found.hint_digests_hash)?,
            lifetime: Lifetime { created: found.created, expires: found.expires },
            database: found.database,
            record_count: found.record_count,
            shard_records_min: found.shard_records_min,
            content: exact("content", &found.content)?,
        })
    }

    /// The bytes the operator signs: the same for the same parameters.
    pub fn encode(&self) -> Vec<u8> {
        let (fields, shape) = (&self.0, self.0.shape.fields());
        message::PublicParameters {
            seed: fields.seed.to_vec(),
            epoch: fields.epoch,
            shard_count: self.shard_count(),
            value_len: shape.value_len,
            pack_rows: shape.pack_rows,
            packs: shape.packs,
            columns: shape.columns,
            response_bits: shape.response_bits,
            hint_bits: shape.hint_bits,
            ribbon_seeds: fields.ribbon_seeds.iter().map(|&seed| seed as u8).collect(),
            hint_digests_hash: fields.hint_digests_hash.to_vec(),
            created: fields.lifetime.created,
            database: fields.database.clone(),
            expires: fields.lifetime.expires,
            record_count: fields.record_count,
            shard_records_min: fields.shard_records_min,
            content: fields.content.to_vec(),
        }
        .encode_to_vec()
    }

    pub fn fields(&self) -> &ParameterFields {
        &self.0
    }
    pub fn seed(&self) -> &Seed {
        &self.0.seed
    }
    pub fn epoch(&self) -> u64 {
        self.0.epoch
    }
    /// 1 to [`limits::SHARDS_MAX`].
    pub fn shard_count(&self) -> u32 {
        self.0.ribbon_seeds.len() as u32
    }
    pub fn shape(&self) -> &Shape {
        &self.0.shape
    }
    /// `None` where there is no such shard.
    pub fn ribbon_seed(&self, shard: u32) -> Option<u32> {
        self.0.ribbon_seeds.get(shard as usize).copied()
    }
    pub fn lifetime(&self) -> Lifetime {
        self.0.lifetime
    }
    pub fn database(&self) -> &str {
        &self.0.database
    }
    pub fn shard_records_min(&self) -> u32 {
        self.0.shard_records_min
    }

    /// Whether `digests` (16 bytes a shard, in shard order) is the list that was signed.
    pub fn matches_hint_digests(&self, digests: &[u8]) -> bool {
        digests.len() == self.0.ribbon_seeds.len() * HINT_DIGEST_BYTES
            && *blake3::hash(digests).as_bytes() == self.0.hint_digests_hash
    }
}

fn check_shards(shard_count: u64, ribbon_seeds: &[u32]) -> Result<(), Malformed> {
    if !(1..=u64::from(limits::SHARDS_MAX)).contains(&shard_count) {
        let expected = format!("1 to {}", limits::SHARDS_MAX);
        return Err(Malformed::new("shard_count", shard_count, expected));
    }
    if ribbon_seeds.len() as u64 != shard_count {
        return Err(Malformed::bytes("ribbon_seeds", ribbon_seeds.len(), shard_count as usize));
    }
    if let Some(shard) = ribbon_seeds.iter().position(|&seed| seed >= RIBBON_SEEDS) {
        let found = format!("{} for shard {shard}", ribbon_seeds[shard]);
        return Err(Malformed::new("ribbon_seeds", found, format!("below {RIBBON_SEEDS}")));
    }
    Ok(())
}

/// Refuses what is no name of a database: it is shown on terminals and names files, so it is 1 to
/// [`limits::DATABASE_NAME_BYTES_MAX`] ASCII letters, digits and `-`, `_`, `.`, the first of them a
/// letter or a digit.
pub fn check_database_name(name: &str) -> Result<(), Malformed> {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let begins = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    let most = limits::DATABASE_NAME_BYTES_MAX;
    if begins && name.len() <= most && name.bytes().all(inner) {
        return Ok(());
    }
    let expected =
        format!("1 to {most} ASCII letters, digits, `-`, `_` and `.`, a letter or digit first");
    let shown: String = name.chars().take(most).collect();
    Err(Malformed::new("database", format!("{shown:?}"), expected))
}

/// Refuses counts that no records have: the emptiest shard has at most the mean, and no shard has
/// more than its columns can hold.
fn check_counts(fields: &ParameterFields) -> Result<(), Malformed> {
    let (shards, least) = (fields.ribbon_seeds.len() as u64, u64::from(fields.shard_records_min));
    let room = (fields.shape.groups() * fields.shape.columns()) as u64;
    let most = room.min(fields.record_count / shards);
    if least > most {
        return Err(Malformed::new("shard_records_min", least, format!("at most {most}")));
    }
    Ok(())
}

/// A signature that does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum SignatureError {
    #[error("the signature has {0} bytes, expected 64")]
    Length(usize),
    #[error(
        "the signature of the public parameters does not hold under the operator's key: another \
         operator, or changed in between"
    )]
    Wrong,
}

/// The operator's signature over serialized parameters: Ed25519, 64 bytes.
pub fn sign(key: &SigningKey, parameters: &[u8]) -> [u8; 64] {
    key.sign(parameters).to_bytes()
}

/// Checks [`sign`]'s signature, strictly (no small-order keys, no second encoding).
pub fn verify(
    key: &VerifyingKey,
    parameters: &[u8],
    signature: &[u8],
) -> Result<(), SignatureError> {
    let signature =
        Signature::from_slice(signature).map_err(|_| SignatureError::Length(signature.len()))?;
    key.verify_strict(parameters, &signature).map_err(|_| SignatureError::Wrong)
}
