//! The public parameters of a database: what the operator signs and every client checks.
//!
//! Pinning of the operator's key and of the seed is the client's; making and keeping the key is
//! the builder's. Read next: [`crate::params::Shape`], which refuses noisy shapes.

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use prost::Message;

use super::request::Malformed;
use super::{message, numbers};
use crate::limits;
use crate::params::{Shape, ShapeError, ShapeFields};
use crate::scheme::Seed;

/// Ribbon seeds a shard may be solved with (scheme.md: 64 are tried).
pub const RIBBON_SEEDS: u32 = 64;

/// The parameters of one epoch of a database, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicParameters {
    seed: Seed,
    epoch: u64,
    shape: Shape,
    ribbon_seeds: Vec<u8>,
    hint_digests_hash: [u8; 32],
    created: u64,
}

/// Why parameters are refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ParametersError {
    /// Not a protobuf message of this kind.
    #[error("the public parameters cannot be read: {0}")]
    Unreadable(String),
    /// A field is wrong.
    #[error("in the public parameters, {0}")]
    Field(#[from] Malformed),
    /// The shape is out of bounds or too noisy.
    #[error("the public parameters name a shape that is refused: {0}")]
    Shape(#[from] ShapeError),
}

fn exact<const N: usize>(field: &'static str, bytes: &[u8]) -> Result<[u8; N], Malformed> {
    bytes.try_into().map_err(|_| Malformed::bytes(field, bytes.len(), N))
}

impl PublicParameters {
    /// Parameters of `ribbon_seeds.len()` shards.
    ///
    /// # Errors
    /// No shards, more than [`limits::SHARDS_MAX`], or a ribbon seed of [`RIBBON_SEEDS`] or more.
    pub fn new(
        seed: Seed,
        epoch: u64,
        shape: Shape,
        ribbon_seeds: &[u32],
        hint_digests_hash: [u8; 32],
        created: u64,
    ) -> Result<Self, ParametersError> {
        let narrow = |&seed: &u32| u8::try_from(seed).unwrap_or(u8::MAX);
        let ribbon_seeds: Vec<u8> = ribbon_seeds.iter().map(narrow).collect();
        check_shards(ribbon_seeds.len() as u64, &ribbon_seeds)?;
        Ok(Self { seed, epoch, shape, ribbon_seeds, hint_digests_hash, created })
    }

    /// Reads and checks what [`PublicParameters::encode`] wrote. The signature is over `bytes`
    /// and is [`verify`]'s to check, before this is believed.
    pub fn decode(bytes: &[u8]) -> Result<Self, ParametersError> {
        let found = message::PublicParameters::decode(bytes)
            .map_err(|error| ParametersError::Unreadable(error.to_string()))?;
        numbers::check("public parameters", bytes, numbers::PUBLIC_PARAMETERS)?;
        let seed = exact("seed", &found.seed)?;
        let hint_digests_hash = exact("hint_digests_hash", &found.hint_digests_hash)?;
        check_shards(found.shard_count.into(), &found.ribbon_seeds)?;
        let shape = Shape::from_fields(ShapeFields {
            value_len: found.value_len,
            pack_rows: found.pack_rows,
            packs: found.packs,
            columns: found.columns,
            response_bits: found.response_bits,
            hint_bits: found.hint_bits,
        })?;
        let (epoch, created, ribbon_seeds) = (found.epoch, found.created, found.ribbon_seeds);
        Ok(Self { seed, epoch, shape, ribbon_seeds, hint_digests_hash, created })
    }

    /// The bytes the operator signs: the same for the same parameters.
    pub fn encode(&self) -> Vec<u8> {
        let fields = self.shape.fields();
        message::PublicParameters {
            seed: self.seed.to_vec(),
            epoch: self.epoch,
            shard_count: self.shard_count(),
            value_len: fields.value_len,
            pack_rows: fields.pack_rows,
            packs: fields.packs,
            columns: fields.columns,
            response_bits: fields.response_bits,
            hint_bits: fields.hint_bits,
            ribbon_seeds: self.ribbon_seeds.clone(),
            hint_digests_hash: self.hint_digests_hash.to_vec(),
            created: self.created,
        }
        .encode_to_vec()
    }

    /// The database seed: public, pinned by clients.
    pub fn seed(&self) -> &Seed {
        &self.seed
    }
    /// Content version.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }
    /// Shards of the database: 1 to [`limits::SHARDS_MAX`].
    pub fn shard_count(&self) -> u32 {
        self.ribbon_seeds.len() as u32
    }
    /// The shape all shards share.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }
    /// The ribbon seed `shard` was solved with; `None` where there is no such shard.
    pub fn ribbon_seed(&self, shard: u32) -> Option<u32> {
        self.ribbon_seeds.get(shard as usize).map(|&seed| u32::from(seed))
    }
    /// BLAKE3 over all hint digests in shard order.
    pub fn hint_digests_hash(&self) -> &[u8; 32] {
        &self.hint_digests_hash
    }
    /// Unix seconds.
    pub fn created(&self) -> u64 {
        self.created
    }

    /// Whether `digests` (16 bytes a shard, in shard order) is the list that was signed.
    pub fn matches_hint_digests(&self, digests: &[u8]) -> bool {
        digests.len() == self.ribbon_seeds.len() * super::HINT_DIGEST_BYTES
            && *blake3::hash(digests).as_bytes() == self.hint_digests_hash
    }
}

fn check_shards(shard_count: u64, ribbon_seeds: &[u8]) -> Result<(), Malformed> {
    if !(1..=u64::from(limits::SHARDS_MAX)).contains(&shard_count) {
        let expected = format!("1 to {}", limits::SHARDS_MAX);
        return Err(Malformed::new("shard_count", shard_count, expected));
    }
    // Seeds are below 64, so their varints are one byte each and a longer one shows as >= 128.
    if ribbon_seeds.len() as u64 != shard_count {
        return Err(Malformed::bytes("ribbon_seeds", ribbon_seeds.len(), shard_count as usize));
    }
    if let Some(shard) = ribbon_seeds.iter().position(|&seed| u32::from(seed) >= RIBBON_SEEDS) {
        let found = format!("{} for shard {shard}", ribbon_seeds[shard]);
        return Err(Malformed::new("ribbon_seeds", found, format!("below {RIBBON_SEEDS}")));
    }
    Ok(())
}

/// A signature that does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignatureError {
    /// Not 64 bytes.
    #[error("the signature has {0} bytes, expected 64")]
    Length(usize),
    /// Another key signed, or other bytes were signed.
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
