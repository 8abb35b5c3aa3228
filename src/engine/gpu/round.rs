//! Rounds of a call: some lanes, one submission, what they read and what comes back.
//!
//! Several rounds are under way: while the device computes one, the processor fills the next and
//! hands out the answers of the one before. Each has lanes and a way back of its own, kept between
//! calls, so that nothing is made for a batch once there was one as large. Submissions run in
//! order, so that a round may take over a shard's or a bundle's place from the one before it.

use std::cmp::Reverse;
use std::ops::Range;

use wgpu::{ComputePassDescriptor, SubmissionIndex};

use super::super::{Answer, EncryptedQuery, EngineError, ShardView};
use super::Opened;
use super::bundles::{Bundles, SLOT_BYTES, SLOTS};
use super::device::{Gpu, WORK_BYTES};
use super::kernels::Pipelines;
use super::lane::{Lane, LanePlan, Recorder};
use super::resident::{Held, ShardKey};
use super::staging::{Readback, STAGING_BUFFERS, STAGING_BYTES};
use crate::limits::{BATCH_QUERIES_PER_SCAN_MAX, COLUMNS_MAX};

/// Rounds under way: one that is computed, one that waits for the device, one that is filled.
pub(super) const ROUNDS: usize = 3;
/// Input of a round, in bytes, after which no lane is added: 160 queries of the standard shape. An
/// H200 computes them for three times as long as they take to copy, and has less than a fiftieth of
/// that time nothing to do between two rounds.
const ROUND_BYTES: u64 = 8 << 20;
/// The same for the first round of a call, which nothing overlaps; each further one has twice the
/// bytes of the one before.
const FIRST_ROUND_BYTES: u64 = 2 << 20;
/// Memory of a round's lanes, in bytes, unless one alone takes more: of the standard shape 300
/// queries. All rounds, their staging and the keys stay below the GiB that is left for them.
const LANES_BYTES_MAX: u64 = 256 << 20;
// Two rings of staging buffers: the engine's, and that of the thread that brings shards up.
const _: () = assert!(
    ROUNDS as u64 * LANES_BYTES_MAX
        + 2 * STAGING_BUFFERS as u64 * STAGING_BYTES
        + SLOTS as u64 * SLOT_BYTES
        <= WORK_BYTES
);
/// Input of the largest lane, each query with a bundle of its own.
const LANE_BYTES_MAX: u64 =
    BATCH_QUERIES_PER_SCAN_MAX as u64 * (COLUMNS_MAX as u64 * 3 + SLOT_BYTES);
const _: () = assert!(ROUND_BYTES + LANE_BYTES_MAX <= STAGING_BYTES);

/// At most 32 queries for one shard.
pub(super) struct Work<'a> {
    pub(super) batch: usize,
    /// Of its batch.
    pub(super) first_query: usize,
    pub(super) queries: &'a [EncryptedQuery],
    pub(super) shard: ShardView<'a>,
    pub(super) key: ShardKey,
    pub(super) plan: LanePlan,
}

/// Buffers of one round, and what is under way in them.
#[derive(Default)]
pub(super) struct Round {
    pub(super) lanes: Vec<Lane>,
    readback: Readback,
    pending: Option<Pending>,
}

/// A submission whose answers were not handed out.
struct Pending {
    works: Range<usize>,
    bytes: u64,
    submission: SubmissionIndex,
}

impl Opened {
    /// Answers all works, a few rounds at a time. After an error the device is given up, and with
    /// it what is under way.
    pub(super) fn answer_works(
        &mut self,
        works: &mut [Work<'_>],
        done: &mut dyn FnMut(usize, usize, Answer),
    ) -> Result<(), EngineError> {
        self.gpu.checked(|| Ok(()))?; // also asked for by a call without queries
        let (mut first, mut begun, mut given) = (0, 0, 0);
        loop {
            if first < works.len() && begun - given < ROUNDS {
                let (end, held) = self.fill(begun, first, works)?;
                // The largest first, so that each lane gets as much in one round as in another.
                works[first..end].sort_by_key(|work| Reverse(work.queries.len()));
                self.submit(begun % ROUNDS, first..end, works, &held)?;
                (first, begun) = (end, begun + 1);
            } else if given < begun {
                self.hand_out(given % ROUNDS, works, done)?;
                given += 1;
            } else {
                return Ok(());
            }
        }
    }

    /// Finds a place on the device for what the works from `first` on read, until the round has
    /// enough of them; where the next round begins. Shards are held until the submission, after
    /// which it comes before whatever takes their place.
    fn fill(
        &mut self,
        round: usize,
        first: usize,
        works: &mut [Work<'_>],
    ) -> Result<(usize, Held), EngineError> {
        self.bundles.begin();
        let bytes_max = ROUND_BYTES.min(FIRST_ROUND_BYTES << round.min(8));
        let mut held = Held::new(&self.store, &self.open);
        let (mut bytes, mut lane_bytes, mut queries) = (0, 0, 0);
        for (index, work) in works.iter_mut().enumerate().skip(first) {
            queries += work.queries.len();
            lane_bytes += work.plan.lane_bytes();
            let fits = bytes + self.bundles.fresh_bytes() < bytes_max
                && lane_bytes <= LANES_BYTES_MAX
                && queries <= self.bundles.queries_max()
                && held.fits(work.key, work.shard.shape);
            if index > first && !fits {
                return Ok((index, held));
            }
            held.add(&mut self.staging, work.key, &work.shard)?;
            work.plan.set_keys(self.bundles.place(work.queries));
            bytes += work.plan.input_bytes();
        }
        Ok((works.len(), held))
    }

    /// Submits works whose shards and bundles have places.
    fn submit(
        &mut self,
        round: usize,
        range: Range<usize>,
        works: &[Work<'_>],
        held: &Held,
    ) -> Result<(), EngineError> {
        let works = &works[range.clone()];
        let Self { gpu, pipelines, transform, staging, bundles, rounds, rates, .. } = self;
        let Round { lanes, readback, pending } = &mut rounds[round];
        let bytes: u64 = works.iter().map(|work| work.plan.response_bytes()).sum();
        let back = gpu.checked(|| {
            grow(lanes, works, gpu, pipelines, bundles);
            Ok(readback.buffer(gpu, bytes))
        })?;
        let lanes = &lanes[..works.len()];
        let both = || lanes.iter().zip(works);
        let fill = |write: &mut dyn FnMut(u64, &[u8])| {
            let mut at = 0;
            let mut next = |bytes: &[u8]| {
                write(at, bytes);
                at += bytes.len() as u64;
            };
            works.iter().flat_map(|work| work.queries).for_each(|query| next(&query.vector));
            bundles.write(next);
        };
        let submission = staging.send(gpu, fill, |encoder, from| {
            let mut at = 0;
            for (lane, work) in both() {
                lane.copy_in(encoder, from, at, &work.plan);
                at += work.plan.input_bytes();
            }
            bundles.copy_in(encoder, from, at);
            let read = lanes.iter().map(Lane::before_split).chain([bundles.before_pack()]);
            encoder.transition_resources(read, std::iter::empty());
            let mut pass = encoder.begin_compute_pass(&ComputePassDescriptor::default());
            let mut recorder = Recorder { pass: &mut pass, pipelines, rates: *rates };
            both().for_each(|(lane, work)| lane.split(&mut recorder, &work.plan));
            let read = lanes.iter().map(Lane::before_scan);
            recorder.pass.transition_resources(read, std::iter::empty());
            for (lane, work) in both() {
                let shard = held.get(work.key);
                lane.scan(&mut recorder, &work.plan, shard);
                lane.pack(&mut recorder, &work.plan, shard);
            }
            let read = lanes.iter().flat_map(Lane::before_finish);
            recorder.pass.transition_resources(read, std::iter::empty());
            both().for_each(|(lane, work)| lane.finish(&mut recorder, &work.plan, transform));
            drop(pass);
            let copied = lanes.iter().flat_map(Lane::before_copy_out);
            encoder.transition_resources(copied, std::iter::empty());
            let mut at = 0;
            for (lane, work) in both() {
                lane.copy_out(encoder, &back, at, &work.plan);
                at += work.plan.response_bytes();
            }
        })?;
        bundles.sent();
        *pending = Some(Pending { works: range, bytes, submission });
        Ok(())
    }

    /// Waits for a round and hands out its answers.
    fn hand_out(
        &mut self,
        round: usize,
        works: &[Work<'_>],
        done: &mut dyn FnMut(usize, usize, Answer),
    ) -> Result<(), EngineError> {
        let Round { readback, pending, .. } = &mut self.rounds[round];
        let pending = pending.take().expect("this is a bug: a round is handed out once");
        readback.read(&self.gpu, pending.bytes, pending.submission, |mut bytes| {
            for work in &works[pending.works] {
                let (own, rest) = bytes.split_at(work.plan.response_bytes() as usize);
                bytes = rest;
                let shape = work.shard.shape;
                let answers = own.chunks_exact(shape.packs() * shape.response_bytes());
                for (query, answer) in answers.enumerate() {
                    let packs = answer.chunks_exact(shape.response_bytes());
                    let answer = packs.map(<[u8]>::to_vec).collect();
                    done(work.batch, work.first_query + query, answer);
                }
            }
        })
    }
}

/// Makes lanes as large as the works need; recreates all of them if together they would be too
/// large.
fn grow(
    lanes: &mut Vec<Lane>,
    works: &[Work<'_>],
    gpu: &Gpu,
    pipelines: &Pipelines,
    bundles: &Bundles,
) {
    lanes.resize_with(lanes.len().max(works.len()), Lane::default);
    let needed = works.iter().map(|work| work.plan.lane_bytes()).chain(std::iter::repeat(0));
    let grown: u64 = lanes.iter().zip(needed).map(|(lane, needed)| lane.bytes().max(needed)).sum();
    if grown > LANES_BYTES_MAX {
        lanes.clear();
        lanes.resize_with(works.len(), Lane::default);
    }
    let lanes = lanes.iter_mut().zip(works);
    lanes.for_each(|(lane, work)| lane.grow(gpu, pipelines, &bundles.pool, &work.plan));
}
