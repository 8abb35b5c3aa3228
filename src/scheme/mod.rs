//! The answer scheme: stub, being written.
use crate::arith::Isa;
use crate::params::Shape;
pub mod reference;

/// The database seed: public, 32 bytes, for the life of the database.
pub type Seed = [u8; 32];

/// A key bundle as the server holds it: checked, in slots.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyBundle {
    words: Vec<u32>,
}

/// Why a key bundle is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// Wrong length.
    #[error("key bundle has {found} bytes, expected {expected}")]
    Length {
        /// Bytes received.
        found: usize,
        /// Bytes for the shape.
        expected: usize,
    },
    /// A residue at or above its prime.
    #[error("key bundle residue {index} is not below its prime")]
    Residue {
        /// Which residue.
        index: usize,
    },
}

impl KeyBundle {
    /// Bytes of the wire to residues; every one is checked.
    pub fn decode(bytes: &[u8], shape: &Shape) -> Result<Self, BundleError> {
        let _ = (bytes, shape);
        todo!()
    }
    /// Residues of key `key` (0: g, 1: h) modulo prime `prime` (0: Q, 1: P), D of them in slots.
    pub fn half(&self, key: usize, prime: usize) -> &[u32] {
        let at = (key * 2 + prime) * crate::params::D;
        &self.words[at..at + crate::params::D]
    }
}

/// The name of a bundle: the first 16 bytes of BLAKE3 over its bytes, in lower-case hex.
pub fn bundle_uid(bytes: &[u8]) -> String {
    let _ = bytes;
    todo!()
}

/// First 16 bytes of BLAKE3 over a shard's packed hints, in pack order.
pub fn hint_digest(hints: &[u8]) -> [u8; 16] {
    let _ = hints;
    todo!()
}

/// Which columns a query selects: `coeffs` bit j selects column `start + j`. Secret.
#[derive(zeroize::Zeroize, zeroize::ZeroizeOnDrop)]
pub struct Selection {
    start: u32,
    coeffs: u128,
}

impl Selection {
    /// A band of 128 columns from `start`; bit j of `coeffs` selects column `start + j`.
    pub fn new(start: u32, coeffs: u128) -> Self {
        Self { start, coeffs }
    }
}

/// Why a query is not encrypted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SecretError {
    /// Another selection was encrypted for this shard under this secret.
    #[error("this secret already encrypted another selection for this shard")]
    AlreadyUsed,
    /// Sixteen queries were encrypted.
    #[error("this secret already encrypted 16 queries")]
    Exhausted,
    /// The process forked.
    #[error("this secret belongs to another process")]
    Forked,
    /// The operating system gave no random bytes.
    #[error("the operating system gave no random bytes: {0}")]
    NoRandomness(String),
    /// A response or hint has the wrong length.
    #[error("{what} has {found} bytes, expected {expected}")]
    Length {
        /// Which of the two.
        what: &'static str,
        /// Bytes found.
        found: usize,
        /// Bytes expected.
        expected: usize,
    },
}

/// Names one encrypted query of a [`SecretPool`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct QueryId {
    secret: usize,
    shard: u32,
}

/// The secrets of one batch of look-ups. Encrypts; cannot decode until [`SecretPool::seal`] ends
/// encryption.
pub struct SecretPool {
    _private: (),
}

impl SecretPool {
    /// An empty pool for one database.
    pub fn new(seed: Seed, shape: Shape) -> Self {
        let _ = (seed, shape);
        todo!()
    }
    /// Encrypts a look-up's selection for `shard` under the first secret of the pool that has
    /// not seen this shard and is not full; draws a new one where there is none.
    pub fn query(&mut self, shard: u32, selection: Selection) -> Result<QueryId, SecretError> {
        let _ = (shard, selection);
        todo!()
    }
    /// Encrypts under a secret drawn for this query alone (a new ribbon seed, a second try).
    pub fn query_fresh(&mut self, shard: u32, sel: Selection) -> Result<QueryId, SecretError> {
        let _ = (shard, sel);
        todo!()
    }
    /// The query's encrypted vector: the same bytes whenever asked.
    pub fn vector(&self, query: QueryId) -> std::sync::Arc<[u8]> {
        let _ = query;
        todo!()
    }
    /// Name of the key bundle the query belongs to.
    pub fn uid(&self, query: QueryId) -> &str {
        let _ = query;
        todo!()
    }
    /// The key bundle the query belongs to: the same bytes whenever asked.
    pub fn bundle(&self, query: QueryId) -> std::sync::Arc<[u8]> {
        let _ = query;
        todo!()
    }
    /// Ends encryption. From here on answers can be decoded and nothing can be encrypted.
    pub fn seal(self) -> Decoder {
        todo!()
    }
}

/// What is left of a pool once everything is encrypted: it decodes.
pub struct Decoder {
    _private: (),
}

impl Decoder {
    /// Response (one slice a pack) and packed hints (all packs in order) -> the bytes of all rows.
    pub fn decode(
        &self,
        query: QueryId,
        response: &[Vec<u8>],
        hints: &[u8],
    ) -> Result<Decoded, SecretError> {
        let _ = (query, response, hints);
        todo!()
    }
}

/// The decoded bytes of all rows, and whether they can be believed.
pub struct Decoded {
    _bytes: zeroize::Zeroizing<Vec<u8>>,
    _trusted: bool,
}

/// Transforms of the masks of one shard: what building its tables needs.
pub struct ShardMasks {
    _private: (),
}

impl ShardMasks {
    /// Draws and transforms the masks of `shard`.
    pub fn new(isa: Isa, seed: &Seed, shard: u32, shape: &Shape) -> Self {
        let _ = (isa, seed, shard, shape);
        todo!()
    }
    /// Builds one pack: `rows` is pack_rows x columns signed bytes; fills `table`
    /// (shape.table_bytes()) and `hint` (shape.hint_bytes(), packed).
    pub fn build_pack(&self, rows: &[u8], table: &mut [u8], hint: &mut [u8]) {
        let _ = (rows, table, hint);
        todo!()
    }
}
