//! The secrets of one call of a client, in two phases: first everything is encrypted, then
//! everything is decoded. [`SecretPool`] encrypts and cannot decode; [`SecretPool::seal`] turns it
//! into a [`Decoder`], which decodes and cannot encrypt: so nothing that is sent can depend on
//! anything that was decoded.
//!
//! Queries are encrypted in steps: all of a call, later those whose old ciphertexts have become
//! useless. The selections of a step are there before a secret of it is drawn, for they are part of
//! what it is drawn from ([`super::hedge`]); a later step never adds to a secret of an earlier one.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::decode::{Decoded, decode_rows};
use super::hedge::Hedge;
use super::mask::Seed;
use super::process::Process;
use super::secret::{Planned, Secret, SecretError, Selection, UsedSecret, wipe_stack};
use crate::arith::Isa;
use crate::limits::QUERIES_PER_SECRET_MAX;
use crate::params::Shape;

/// Names one encrypted query of a [`SecretPool`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueryId {
    secret: usize,
    shard: u32,
}

/// How many queries of a step are encrypted under one secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// Up to 16, to distinct shards.
    Shared,
    /// One.
    Apart,
}

/// The secrets of one call of a client, bound to one database seed. Neither Clone nor Debug; wiped
/// when dropped.
pub struct SecretPool {
    isa: Isa,
    seed: Seed,
    shape: Shape,
    process: Process,
    hedge: Hedge,
    secrets: Vec<UsedSecret>,
}

impl SecretPool {
    /// An empty pool for one database.
    pub fn new(seed: Seed, shape: Shape) -> Self {
        Self::on(Isa::detect(), seed, shape)
    }

    /// As [`SecretPool::new`], on one instruction set. The bytes that come out are the same on all.
    pub fn on(isa: Isa, seed: Seed, shape: Shape) -> Self {
        let (process, hedge) = (Process::this(), Hedge::default());
        Self { isa, seed, shape, process, hedge, secrets: Vec::new() }
    }

    /// Encrypts look-ups, each given as its shard and what it selects there, under secrets drawn
    /// for them together. Names of the queries come back in the same order. The i-th query of the
    /// step to a shard is under the i-th secret that has room.
    ///
    /// # Errors
    /// Nothing is encrypted when a selection does not fit the pool's shape, when the process is a
    /// forked child of the pool's, or when the system gives no random bytes.
    pub fn encrypt(
        &mut self,
        queries: &[(u32, Selection)],
        sharing: Sharing,
    ) -> Result<Vec<QueryId>, SecretError> {
        self.encrypt_while(queries, sharing, &|| true)
    }

    /// [`SecretPool::encrypt`] that asks before each secret whether to go on. A step that is
    /// stopped is [`SecretError::Stopped`], and nothing names what was encrypted of it.
    pub(crate) fn encrypt_while(
        &mut self,
        queries: &[(u32, Selection)],
        sharing: Sharing,
        wanted: &dyn Fn() -> bool,
    ) -> Result<Vec<QueryId>, SecretError> {
        self.process.check()?;
        queries.iter().try_for_each(|(_, selection)| selection.fits(&self.shape))?;
        let most = match sharing {
            Sharing::Shared => QUERIES_PER_SECRET_MAX,
            Sharing::Apart => 1,
        };
        let plan = plan(queries, most);
        let key = self.hedge.draw(&self.seed, &self.shape, &plan)?;
        let first = self.secrets.len();
        let mut by_secret: Vec<Vec<Planned<'_>>> = Vec::new();
        for &query in &plan {
            if query.secret == by_secret.len() {
                by_secret.push(Vec::new());
            }
            by_secret[query.secret].push(query);
        }
        for (index, queries) in by_secret.iter().enumerate() {
            if !wanted() {
                drop(key);
                wipe_stack();
                return Err(SecretError::Stopped);
            }
            let secret = Secret::from_key(self.isa, self.seed, key.secret(first + index));
            self.secrets.push(secret.encrypt_all(&self.shape, queries));
        }
        drop(key);
        wipe_stack();
        let name =
            |query: &Planned<'_>| QueryId { secret: first + query.secret, shard: query.shard };
        Ok(plan.iter().map(name).collect())
    }

    /// Later steps are for this shape; what is encrypted stays as it is.
    pub fn set_shape(&mut self, shape: Shape) {
        self.shape = shape;
    }

    /// The query's encrypted vector, three bytes a column: the same bytes whenever asked.
    pub fn vector(&self, query: QueryId) -> Result<Arc<[u8]>, SecretError> {
        let secret = self.secrets.get(query.secret).ok_or(SecretError::Unknown)?;
        secret.vectors.get(&query.shard).cloned().ok_or(SecretError::Unknown)
    }

    /// Name and bytes of the key bundle the query belongs to: the same whenever asked.
    pub fn bundle(&self, query: QueryId) -> Result<(&str, Arc<[u8]>), SecretError> {
        let secret = self.secrets.get(query.secret).ok_or(SecretError::Unknown)?;
        Ok((&secret.uid, secret.bundle.clone()))
    }

    /// How many secrets were drawn, each with one key bundle.
    pub fn secret_count(&self) -> usize {
        self.secrets.len()
    }

    /// Ends encryption. From here on answers can be decoded and nothing can be encrypted.
    pub fn seal(self) -> Decoder {
        Decoder { isa: self.isa, process: self.process, secrets: self.secrets }
    }
}

/// Which secret of its step each query falls to: the first one that has not seen its shard and has
/// fewer than `most` queries.
fn plan(queries: &[(u32, Selection)], most: usize) -> Vec<Planned<'_>> {
    let mut counts: Vec<usize> = Vec::new();
    // The first secret a shard may still use, and the first that is not full.
    let (mut next, mut full) = (BTreeMap::new(), 0);
    let mut plan = Vec::with_capacity(queries.len());
    for &(shard, ref selection) in queries {
        let from = full.max(next.get(&shard).copied().unwrap_or(0));
        let secret = (from..counts.len()).find(|&i| counts[i] < most).unwrap_or(counts.len());
        if secret == counts.len() {
            counts.push(0);
        }
        counts[secret] += 1;
        next.insert(shard, secret + 1);
        while counts.get(full).is_some_and(|&count| count >= most) {
            full += 1;
        }
        plan.push(Planned { secret, shard, selection });
    }
    plan
}

/// What is left of a pool once everything is encrypted: it decodes. Wiped when dropped. Nothing
/// that can still encrypt decodes:
///
/// ```compile_fail
/// use sotto::scheme::decode_rows;
/// ```
pub struct Decoder {
    isa: Isa,
    process: Process,
    secrets: Vec<UsedSecret>,
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
        self.decode_packs(query, shape, shape.packs(), response, hints)
    }

    /// Decodes one pack of an answer, given with its own packed hint.
    pub fn decode_pack(
        &self,
        query: QueryId,
        shape: &Shape,
        response: Vec<u8>,
        hint: &[u8],
    ) -> Result<Decoded, SecretError> {
        self.decode_packs(query, shape, 1, &[response], hint)
    }

    fn decode_packs(
        &self,
        query: QueryId,
        shape: &Shape,
        packs: usize,
        response: &[Vec<u8>],
        hints: &[u8],
    ) -> Result<Decoded, SecretError> {
        self.process.check()?;
        let secret = self.secrets.get(query.secret).ok_or(SecretError::Unknown)?;
        decode_rows(self.isa, &secret.slots_q, shape, packs, response, hints)
    }
}

/// With a generator that gives the same bytes every time.
#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::scheme::frozen::while_frozen;

    /// Shard, start and coefficients.
    type Query = (u32, u32, u128);

    /// A pool as somebody uses it: its steps, each with the shape it is made for.
    #[derive(Clone, PartialEq, Eq, Debug)]
    struct Use {
        seed: u8,
        steps: Vec<(u32, Vec<Query>, Sharing)>,
    }

    /// What a secret is, by its slots, and what was made under it.
    struct Made {
        slots: Vec<u32>,
        bundle: Arc<[u8]>,
        vectors: Vec<(Query, Arc<[u8]>)>,
    }

    fn shape(columns: u32) -> Shape {
        Shape::new(24, 128, 1, columns).unwrap()
    }

    fn run(of: &Use) -> Vec<Made> {
        let mut pool = SecretPool::new([of.seed; 32], shape(192));
        let mut asked = Vec::new();
        for (columns, queries, sharing) in &of.steps {
            pool.set_shape(shape(*columns));
            let select = |&(shard, start, coeffs)| (shard, Selection::new(start, coeffs));
            let selections: Vec<_> = queries.iter().map(select).collect();
            let made = pool.encrypt(&selections, *sharing).unwrap();
            asked.extend(made.into_iter().zip(queries.clone()));
        }
        let of_secret = |(index, secret): (usize, &UsedSecret)| {
            let vector = |(id, query): &(QueryId, Query)| (*query, pool.vector(*id).unwrap());
            let under = asked.iter().filter(|(id, _)| id.secret == index);
            let (slots, bundle) = (secret.slots_q.to_vec(), secret.bundle.clone());
            Made { slots, bundle, vectors: under.map(vector).collect() }
        };
        pool.secrets.iter().enumerate().map(of_secret).collect()
    }

    /// Five queries, two of them alike and so under different secrets.
    fn base() -> Use {
        let queries = vec![(3, 5, 77), (4, 6, 1), (3, 5, 77), (9, 0, u128::MAX), (0, 63, 1 << 127)];
        Use { seed: 1, steps: vec![(192, queries, Sharing::Shared)] }
    }

    /// The same, changed in one thing each.
    fn variants() -> Vec<Use> {
        let mut all = Vec::new();
        let mut changed = |change: &dyn Fn(&mut Use)| {
            let mut variant = base();
            change(&mut variant);
            all.push(variant);
        };
        changed(&|u| u.seed = 2);
        for at in 0..5 {
            changed(&|u| u.steps[0].1[at].0 ^= 1 << 20);
            changed(&|u| u.steps[0].1[at].1 ^= 1);
            for bit in [0, 64, 127] {
                changed(&|u| u.steps[0].1[at].2 ^= 1 << bit);
            }
            changed(&|u| _ = u.steps[0].1.remove(at));
            changed(&|u| u.steps[0].1.insert(at, (70, 1, 1)));
            for other in 0..at {
                changed(&|u| u.steps[0].1.swap(at, other));
            }
            // The same queries in two steps, and one of them once more in a later step.
            changed(&|u| {
                let later = u.steps[0].1.split_off(at);
                u.steps.push((192, later, Sharing::Shared));
            });
            changed(&|u| u.steps.push((192, vec![u.steps[0].1[at]], Sharing::Apart)));
        }
        changed(&|u| u.steps[0].0 = 256);
        changed(&|u| u.steps[0].2 = Sharing::Apart);
        changed(&|u| u.steps.push(u.steps[0].clone()));
        // Two copies of a process that went apart after the first step.
        changed(&|u| u.steps.push((192, vec![(3, 7, 77)], Sharing::Apart)));
        changed(&|u| u.steps.push((192, vec![(3, 7, 79)], Sharing::Apart)));
        changed(&|u| u.steps.push((256, vec![(3, 7, 77)], Sharing::Apart)));
        all
    }

    #[test]
    fn the_identical_use_makes_identical_bytes() {
        for of in variants().iter().chain([&base()]) {
            let twice = while_frozen(7, || [run(of), run(of)]);
            let bytes = |made: &[Made]| -> Vec<_> {
                made.iter().map(|m| (m.bundle.clone(), m.vectors.clone())).collect()
            };
            assert!(bytes(&twice[0]) == bytes(&twice[1]), "{of:?}");
        }
    }

    /// The rule, over all uses that a frozen generator would give the same bytes: nowhere does one
    /// secret meet two selections of a shard, or two seeds, or make two bundles.
    #[test]
    fn whatever_differs_is_encrypted_under_other_secrets() {
        let mut seen: HashMap<Vec<u32>, (u8, Use)> = HashMap::new();
        let mut selected: HashMap<(Vec<u32>, u32), Query> = HashMap::new();
        let mut count = 0;
        for (byte, of) in
            [7, 8].into_iter().flat_map(|b| variants().into_iter().map(move |u| (b, u)))
        {
            let made = while_frozen(byte, || run(&of));
            // Steps that two uses begin with in common are the same bytes, and the only ones.
            for secret in made {
                count += 1;
                for (query, _) in &secret.vectors {
                    let before = selected.insert((secret.slots.clone(), query.0), *query);
                    assert!(before.is_none_or(|other| other == *query), "{of:?}");
                }
                if let Some((other_byte, other)) = seen.insert(secret.slots, (byte, of.clone())) {
                    let common = other.seed == of.seed && other.steps[0] == of.steps[0];
                    assert!(byte == other_byte && common, "{of:?} and {other:?} share a secret");
                }
            }
        }
        assert!(seen.len() > 200, "{count} secrets, only {} distinct", seen.len());
    }

    #[test]
    fn a_generator_that_is_not_frozen_never_repeats() {
        let [once, twice] = [run(&base()), run(&base())];
        assert!(once.iter().all(|a| twice.iter().all(|b| a.slots != b.slots)));
    }
}
