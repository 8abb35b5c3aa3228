//! What a look-up costs the client, on one core: a secret with its key bundle, a query, a record.

use std::hint::black_box;
use std::time::{Duration, Instant};

use sotto::keyword::{band, extract, locate};
use sotto::limits::QUERIES_PER_SECRET_MAX;
use sotto::params::Shape;
use sotto::scheme::{SecretError, SecretPool, Sharing};

use crate::common::{Noise, ms};
use crate::record::ClientWork;

const SEED: [u8; 32] = [1; 32];

/// The best times so far, and a noise answer to decode: work does not depend on the bytes.
pub(super) struct Client {
    shape: Shape,
    response: Vec<Vec<u8>>,
    hints: Vec<u8>,
    /// A secret with one query, and one with as many as it may have.
    one: Duration,
    full: Duration,
    decode: Duration,
}

impl Client {
    pub(super) fn new(shape: &Shape, noise: &mut Noise) -> Self {
        Self {
            shape: *shape,
            response: (0..shape.packs()).map(|_| noise.bytes(shape.response_bytes())).collect(),
            hints: noise.bytes(shape.packs() * shape.hint_bytes()),
            one: Duration::MAX,
            full: Duration::MAX,
            decode: Duration::MAX,
        }
    }

    pub(super) fn measure(&mut self) -> Result<(), SecretError> {
        let shape = &self.shape;
        let place = locate(&SEED, b"+12015550100", 1, shape.groups() as u32);
        let queries: Vec<_> = (0..QUERIES_PER_SECRET_MAX as u32)
            .map(|shard| (shard, band(&place.identity, 0, shape)))
            .collect();
        let timed = |count: usize| {
            let mut pool = SecretPool::new(SEED, *shape);
            let start = Instant::now();
            let made = black_box(pool.encrypt(&queries[..count], Sharing::Shared)?);
            Ok::<_, SecretError>((start.elapsed(), pool, made[0]))
        };
        self.one = self.one.min(timed(1)?.0);
        let (full, pool, query) = timed(queries.len())?;
        self.full = self.full.min(full);
        let decoder = pool.seal();
        for _ in 0..QUERIES_PER_SECRET_MAX {
            let start = Instant::now();
            let decoded = decoder.decode(query, shape, &self.response, &self.hints)?;
            black_box(extract(&decoded, &place, shape));
            self.decode = self.decode.min(start.elapsed());
        }
        Ok(())
    }

    pub(super) fn record(&self) -> ClientWork {
        // What the other queries add is theirs.
        let encrypt = self.full.saturating_sub(self.one) / (QUERIES_PER_SECRET_MAX as u32 - 1);
        ClientWork {
            key_bundle_ms: ms(self.one.saturating_sub(encrypt)),
            encrypt_ms: ms(encrypt),
            decode_ms: ms(self.decode),
        }
    }
}
