//! The known-answer test: small shards and queries whose answers the reference has computed.
//!
//! Every engine passes it before it serves, and while it serves a [`Probe`] is asked now and then.

use std::sync::Arc;

use super::kernel::PRIMES;
use super::{Answer, Batch, ContentId, EncryptedQuery, Engine, EngineError, Residency, ShardView};
use crate::params::{D, Shape};
use crate::scheme::{KeyBundle, reference};

/// The shape of a small shard, and how many queries for it are answered at once.
pub(super) struct Known {
    pub(super) pack_rows: u32,
    pub(super) packs: u32,
    columns: u32,
    pub(super) batches: &'static [usize],
}

/// Queries that differ: tiles of six and of five, or of two and one over, of the processor's
/// kernels. Larger batches repeat them.
const KNOWN_QUERIES: usize = 11;

/// What a processor has to know: a four and a one, twos and a one of packs, so that two tile shapes
/// run of each of its pack kernels.
pub(super) const KNOWN_TO_PROCESSORS: [Known; 1] =
    [Known { pack_rows: 128, packs: 5, columns: 2112, batches: &[11] }];

/// What a GPU has to know: each of its kernels runs, which depends on packs and queries, and both
/// keys are used.
#[cfg(feature = "gpu")]
pub(super) const KNOWN_TO_GPUS: [Known; 3] = [
    Known { pack_rows: 128, packs: 5, columns: 2112, batches: &[1, 2, 3, 8, 11, 16, 32] },
    Known { pack_rows: 2048, packs: 1, columns: 192, batches: &[1, 2, 3, 7, 17] },
    Known { pack_rows: 2048, packs: 2, columns: 192, batches: &[1, 5, 9, 17] },
];

/// What a software GPU has to know. It takes seconds for the rest, each time it is opened, and
/// exists for tests, which compare all of its kernels with the reference.
#[cfg(feature = "gpu")]
pub(super) const KNOWN_TO_SOFTWARE: [Known; 2] = [
    Known { pack_rows: 128, packs: 5, columns: 2112, batches: &[11] },
    Known { pack_rows: 2048, packs: 1, columns: 192, batches: &[1] },
];

/// Has an engine prove itself: before it serves, and when its device was recreated.
///
/// # Errors
/// The engine failed, or one of its answers is wrong.
pub(super) fn prove(engine: &mut dyn Engine, known: &[Known]) -> Result<(), EngineError> {
    for known in known {
        let probe = Probe::of(known, KNOWN_QUERIES, None);
        known.batches.iter().try_for_each(|&queries| probe.compare(engine, queries))?;
    }
    Ok(())
}

/// The name under which the probe's shard stays on a device: uploaded each time, it would take
/// other shards' room. No file's digest is likely to begin like this.
pub(super) const PROBE_CONTENT: ContentId = ContentId(*b"sotto's probe \0\0");

/// A small shard of pseudorandom bytes, queries for it, and what the reference answers. It shows
/// that an engine that serves still answers, and correctly. It takes the processor less than a
/// millisecond, and a device the room of no other shard.
pub struct Probe {
    shape: Shape,
    matrix: Vec<u8>,
    tables: Vec<u8>,
    queries: Vec<EncryptedQuery>,
    answers: Vec<Answer>,
    content: Option<ContentId>,
}

impl Default for Probe {
    fn default() -> Self {
        let known = Known { pack_rows: 128, packs: 1, columns: 192, batches: &[] };
        Self::of(&known, 1, Some(PROBE_CONTENT))
    }
}

impl Probe {
    fn of(known: &Known, queries: usize, content: Option<ContentId>) -> Self {
        let shape = Shape::new(120, known.pack_rows, known.packs, known.columns)
            .expect("this is a bug: known shape");
        let mut bytes = blake3::Hasher::new_derive_key("sotto engine known answer").finalize_xof();
        let mut fill = |count: usize| {
            let mut drawn = vec![0; count];
            bytes.fill(&mut drawn);
            drawn
        };
        let matrix = fill(shape.matrix_bytes());
        let mut tables = fill(shape.packs() * shape.table_bytes());
        tables.chunks_exact_mut(shape.table_bytes()).for_each(reduce_residues);
        let query = |_| {
            let vector = fill(shape.query_bytes()).into();
            let mut bundle = fill(shape.bundle_bytes());
            bundle.chunks_exact_mut(2 * D * 3).for_each(reduce_residues);
            let bundle = KeyBundle::decode(&bundle, &shape).expect("this is a bug: known bundle");
            EncryptedQuery { vector, bundle: Arc::new(bundle) }
        };
        let queries: Vec<_> = (0..queries).map(query).collect();
        let answer = |query: &EncryptedQuery| {
            reference::answer(&shape, &matrix, &tables, &query.vector, &query.bundle)
        };
        let answers = queries.iter().map(answer).collect();
        Self { shape, matrix, tables, queries, answers, content }
    }

    fn shard(&self) -> ShardView<'_> {
        let Self { shape, matrix, tables, content, .. } = self;
        ShardView { shape, matrix, tables, content: *content }
    }

    /// Asks an engine. A device without memory for any shard is not asked.
    ///
    /// # Errors
    /// The engine failed, or its answer is wrong.
    pub fn ask(&self, engine: &mut dyn Engine) -> Result<(), EngineError> {
        let store = engine.store();
        if store.is_some_and(|store| store.residency(&self.shard()) == Residency::Never) {
            return Ok(());
        }
        self.compare(engine, 1)
    }

    /// Has so many queries answered at once, which repeat, and compares every answer.
    fn compare(&self, engine: &mut dyn Engine, count: usize) -> Result<(), EngineError> {
        let queries: Vec<_> = self.queries.iter().cycle().take(count).cloned().collect();
        let mut right = 0;
        let batch = Batch { shard: self.shard(), queries: &queries };
        engine.answer(&[batch], &mut |_, query, answer| {
            right += usize::from(answer == self.answers[query % self.answers.len()]);
        })?;
        match right == count {
            true => Ok(()),
            false => Err(EngineError::WrongAnswer { engine: engine.name() }),
        }
    }
}

/// Random bytes to residues of 3 bytes: a half modulo Q, a half modulo P.
fn reduce_residues(bytes: &mut [u8]) {
    let half = bytes.len() / 2;
    for (bytes, prime) in bytes.chunks_exact_mut(half).zip(PRIMES) {
        for residue in bytes.chunks_exact_mut(3) {
            let drawn = u32::from_le_bytes([residue[0], residue[1], residue[2], 0]);
            residue.copy_from_slice(&(drawn % prime).to_le_bytes()[..3]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers as the reference does, but for one bit of the answer to one query.
    struct Wrong(usize);

    impl Engine for Wrong {
        fn name(&self) -> String {
            "wrong".into()
        }

        fn answer(
            &mut self,
            batches: &[Batch<'_>],
            done: &mut dyn FnMut(usize, usize, Answer),
        ) -> Result<(), EngineError> {
            for (at, Batch { shard, queries }) in batches.iter().enumerate() {
                for (index, query) in queries.iter().enumerate() {
                    let ShardView { shape, matrix, tables, .. } = *shard;
                    let EncryptedQuery { vector, bundle } = query;
                    let mut answer = reference::answer(shape, matrix, tables, vector, bundle);
                    answer[0][0] ^= u8::from(index == self.0);
                    done(at, index, answer);
                }
            }
            Ok(())
        }
    }

    #[test]
    fn an_engine_that_is_wrong_in_one_bit_fails() {
        let wrong = Err(EngineError::WrongAnswer { engine: "wrong".into() });
        let probe = Probe::default();
        assert_eq!(probe.ask(&mut Wrong(1)), Ok(()));
        assert_eq!(probe.ask(&mut Wrong(0)), wrong);
        assert_eq!(prove(&mut Wrong(KNOWN_QUERIES), &KNOWN_TO_PROCESSORS), Ok(()));
        for query in [0, KNOWN_QUERIES - 1] {
            assert_eq!(prove(&mut Wrong(query), &KNOWN_TO_PROCESSORS), wrong);
        }
    }
}
