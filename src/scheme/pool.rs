//! The secrets of one batch of look-ups, in two phases: first everything is encrypted, then
//! everything is decoded. [`SecretPool`] encrypts and cannot decode; [`SecretPool::seal`] turns it
//! into a [`Decoder`], which decodes and cannot encrypt: so nothing that is sent can depend on
//! anything that was decoded.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::decode::{Decoded, decode_rows};
use super::{Secret, SecretError, Seed, Selection};
use crate::params::Shape;

/// Names one encrypted query of a [`SecretPool`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueryId {
    secret: usize,
    shard: u32,
}

/// The secrets of one batch of look-ups, bound to one database seed and shape. Neither Clone nor
/// Debug; wiped when dropped.
pub struct SecretPool {
    seed: Seed,
    shape: Shape,
    secrets: Vec<Secret>,
    /// The first secret a shard may still use: the i-th query to it uses the i-th.
    next: BTreeMap<u32, usize>,
    /// Every secret before this one is full.
    full: usize,
}

impl SecretPool {
    /// An empty pool for one database.
    pub fn new(seed: Seed, shape: Shape) -> Self {
        Self { seed, shape, secrets: Vec::new(), next: BTreeMap::new(), full: 0 }
    }

    /// Encrypts a look-up's selection for `shard` under the first secret of the pool that has
    /// not seen this shard and is not full; draws a new one where there is none.
    pub fn query(&mut self, shard: u32, selection: Selection) -> Result<QueryId, SecretError> {
        let from = self.full.max(self.next.get(&shard).copied().unwrap_or(0));
        let found = (from..self.secrets.len()).find(|&i| self.secrets[i].has_room_for(shard));
        let secret = match found {
            Some(index) => index,
            None => self.draw()?,
        };
        self.encrypt(secret, shard, selection)
    }

    /// Encrypts under a secret drawn for this query alone: after a new ribbon seed or shape of
    /// its shard, when the old ciphertext has become useless.
    pub fn query_fresh(
        &mut self,
        shard: u32,
        selection: Selection,
    ) -> Result<QueryId, SecretError> {
        let secret = self.draw()?;
        self.encrypt(secret, shard, selection)
    }

    /// Later queries and fresh secrets are for this shape; what is encrypted stays as it is.
    pub fn set_shape(&mut self, shape: Shape) {
        if shape != self.shape {
            self.shape = shape;
            self.full = self.secrets.len(); // older secrets hold bundles for another shape
        }
    }

    fn draw(&mut self) -> Result<usize, SecretError> {
        let mut secret = Secret::draw(self.seed)?;
        secret.bundle(&self.shape)?;
        self.secrets.push(secret);
        Ok(self.secrets.len() - 1)
    }

    fn encrypt(
        &mut self,
        secret: usize,
        shard: u32,
        selection: Selection,
    ) -> Result<QueryId, SecretError> {
        self.secrets[secret].query(shard, &self.shape, selection)?;
        self.next.insert(shard, secret + 1);
        while self.secrets.get(self.full).is_some_and(Secret::is_full) {
            self.full += 1;
        }
        Ok(QueryId { secret, shard })
    }

    /// The query's encrypted vector, three bytes a column: the same bytes whenever asked.
    pub fn vector(&self, query: QueryId) -> Result<Arc<[u8]>, SecretError> {
        let secret = self.secrets.get(query.secret).ok_or(SecretError::Unknown)?;
        secret.issued(query.shard).ok_or(SecretError::Unknown)
    }

    /// Name and bytes of the key bundle the query belongs to: the same whenever asked.
    pub fn bundle(&self, query: QueryId) -> Result<(&str, Arc<[u8]>), SecretError> {
        let secret = self.secrets.get(query.secret).ok_or(SecretError::Unknown)?;
        secret.only_bundle().ok_or(SecretError::Unknown)
    }

    /// How many secrets were drawn, each with one key bundle.
    pub fn secret_count(&self) -> usize {
        self.secrets.len()
    }

    /// Ends encryption. From here on answers can be decoded and nothing can be encrypted.
    pub fn seal(self) -> Decoder {
        Decoder { secrets: self.secrets }
    }
}

/// What is left of a pool once everything is encrypted: it decodes. Wiped when dropped. Nothing
/// that can still encrypt decodes:
///
/// ```compile_fail
/// use sotto::scheme::decode_rows;
/// ```
pub struct Decoder {
    secrets: Vec<Secret>,
}

impl Decoder {
    /// Decodes one answer: `response` holds a slice a pack, `hints` all packs' packed hints in
    /// order, both of the `shape` the query was made for.
    pub fn decode(
        &self,
        query: QueryId,
        shape: &Shape,
        response: &[Vec<u8>],
        hints: &[u8],
    ) -> Result<Decoded, SecretError> {
        let secret = self.secrets.get(query.secret).ok_or(SecretError::Unknown)?;
        decode_rows(secret, shape, response, hints)
    }
}
