//! The CPU engine: cuts a batch into jobs for the kernels, over threads of its own.
//!
//! Queries become digits and keys sliding windows. Then come the scan, cut by rows, and the pack,
//! cut by (prime, block of 32 slots) with all packs in one job, so that a key word is loaded once
//! for all; then the finish, cut by (query, pack). Each byte of the shard is read once a batch, in
//! the order in which it is stored. Of a shard that is not in memory, the scan follows the matrix
//! as it is read.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rayon::prelude::*;

use super::kernel::{
    BLOCK_SLOTS, BLOCKS, DIGITS, JOB_ROWS, KEY_WORDS_MAX, Kernels, KeyLayout, Line, PRIMES,
    PackJob, Rounding, ScanJob, TERM_BYTES,
};
use super::{
    Answer, Batch, EncryptedQuery, Engine, EngineError, ShardView, StageTimes, check_sizes,
};
use crate::arith::{Isa, Rings};
use crate::limits::{self, BATCH_QUERIES_PER_SCAN_MAX};
use crate::params::{D, Shape};
use crate::scheme::pack_bits;

/// Rows scanned at once of a shard that is still being read: 2 MB at the standard shape.
const PIECE_ROWS: usize = 2 * JOB_ROWS;

const DIGIT_LINES: usize = BATCH_QUERIES_PER_SCAN_MAX * limits::COLUMNS_MAX as usize / 64 * DIGITS;
const KEY_WORDS: usize = 2 * BATCH_QUERIES_PER_SCAN_MAX * KEY_WORDS_MAX;
const SCANNED_WORDS: usize = BATCH_QUERIES_PER_SCAN_MAX * limits::PACKS_MAX as usize * D;
const SUM_WORDS: usize = 2 * SCANNED_WORDS;
// Scratch for a full batch at the largest shape; the standard shape touches 10 MB of it.
const _: () =
    assert!(DIGIT_LINES * 64 + KEY_WORDS * 8 + (SCANNED_WORDS + SUM_WORDS) * 4 < 64 << 20);

#[derive(Clone, Copy)]
enum Stage {
    Prepare,
    Scan,
    Pack,
    Finish,
}

/// Nanoseconds of each [`Stage`], added up over threads.
#[derive(Default)]
struct Clocks([AtomicU64; 4]);

impl Clocks {
    fn time<T>(&self, stage: Stage, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let done = work();
        let nanos = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.0[stage as usize].fetch_add(nanos, Ordering::Relaxed);
        done
    }
}

pub(super) struct CpuEngine {
    clocks: Clocks,
    kernels: Box<dyn Kernels>,
    rings: Rings,
    pool: rayon::ThreadPool,
    scratch: Scratch,
}

/// Kept between calls. Only numbers of the batch under way are ever read.
struct Scratch {
    /// `[block of columns]`, as the kernels want each
    digits: Vec<Line>,
    /// `[prime][query][words]`
    keys: Vec<u64>,
    /// `[job][query][row of the job]`
    scanned: Vec<u32>,
    /// `[prime][block][query][pack][slot of the block]`
    sums: Vec<u32>,
}

impl CpuEngine {
    pub(super) fn new(
        kernels: Box<dyn Kernels>,
        isa: Isa,
        threads: usize,
    ) -> Result<Self, rayon::ThreadPoolBuildError> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|index| format!("engine-cpu-{index}"))
            .build()?;
        let scratch = Scratch {
            digits: vec![Line([0; 64]); DIGIT_LINES],
            keys: vec![0; KEY_WORDS],
            scanned: vec![0; SCANNED_WORDS],
            sums: vec![0; SUM_WORDS],
        };
        Ok(Self { clocks: Clocks::default(), kernels, rings: Rings::get(isa), pool, scratch })
    }

    /// Answers at most [`BATCH_QUERIES_PER_SCAN_MAX`] queries for a shard.
    fn answer_batch(
        &mut self,
        shard: &ShardView<'_>,
        queries: &[EncryptedQuery],
        done: &mut dyn FnMut(usize, Answer),
    ) {
        let batch = Running {
            shard,
            queries,
            kernels: self.kernels.as_ref(),
            rings: self.rings,
            clocks: &self.clocks,
            layout: KeyLayout::new(shard.shape),
        };
        let scratch = &mut self.scratch;
        let (sender, answers) = mpsc::channel();
        self.pool.in_place_scope(|scope| {
            let batch = &batch;
            scope.spawn(move |_| {
                batch.multiply(scratch);
                let scratch = &*scratch;
                let queries = (0..batch.queries.len()).into_par_iter();
                queries.for_each_with(sender, |sender, query| {
                    // The receiver below outlives every sender.
                    let _ = sender.send((query, batch.finish(scratch, query)));
                });
            });
            answers.into_iter().for_each(|(query, answer)| done(query, answer));
        });
    }
}

impl Engine for CpuEngine {
    fn name(&self) -> String {
        let threads = self.pool.current_num_threads();
        let plural = if threads == 1 { "" } else { "s" };
        format!("cpu {}, {threads} thread{plural}", self.kernels.name())
    }

    fn stage_times(&self) -> StageTimes {
        let read = |clock: &AtomicU64| Duration::from_nanos(clock.load(Ordering::Relaxed));
        let [prepare, scan, pack, finish] = self.clocks.0.each_ref().map(read);
        StageTimes { prepare, scan, pack, finish }
    }

    fn answer(
        &mut self,
        batches: &[Batch<'_>],
        done: &mut dyn FnMut(usize, usize, Answer),
    ) -> Result<(), EngineError> {
        check_sizes(batches)?;
        for (index, batch) in batches.iter().enumerate() {
            for (cut, queries) in batch.queries.chunks(BATCH_QUERIES_PER_SCAN_MAX).enumerate() {
                let first = cut * BATCH_QUERIES_PER_SCAN_MAX;
                self.answer_batch(&batch.shard, queries, &mut |query, answer| {
                    done(index, first + query, answer);
                });
            }
        }
        Ok(())
    }
}

struct Running<'a> {
    shard: &'a ShardView<'a>,
    queries: &'a [EncryptedQuery],
    kernels: &'a dyn Kernels,
    rings: Rings,
    clocks: &'a Clocks,
    layout: KeyLayout,
}

impl Running<'_> {
    fn shape(&self) -> &Shape {
        self.shard.shape
    }

    fn key_words(&self) -> usize {
        self.kernels.key_words(&self.layout, self.queries.len())
    }

    /// Words of the scratch that one pack job writes.
    fn block_words(&self) -> usize {
        self.queries.len() * self.shape().packs() * BLOCK_SLOTS
    }

    /// Fills `scanned` and `sums`: everything that reads the shard.
    fn multiply(&self, scratch: &mut Scratch) {
        let queries = self.queries.len();
        let lines = self.shape().columns() / 64 * self.kernels.digit_lines(queries);
        let digits = &mut scratch.digits[..lines];
        let keys = &mut scratch.keys[..2 * queries * self.key_words()];
        let scanned = &mut scratch.scanned[..queries * self.shape().rows()];
        let sums = &mut scratch.sums[..2 * BLOCKS * self.block_words()];
        self.prepare(digits, keys);
        let (digits, keys) = (&*digits, &*keys);
        if self.shard.is_resident() {
            rayon::join(|| self.pack(keys, sums), || self.scan(digits, 0, scanned));
            return;
        }
        let mut pieces = scanned.chunks_mut(queries * PIECE_ROWS);
        self.shard.read_in_order(PIECE_ROWS, |piece| {
            let out = pieces.next().expect("this is a bug: more pieces than rows");
            self.scan(digits, piece * PIECE_ROWS, out);
        });
        self.pack(keys, sums);
    }

    fn prepare(&self, digits: &mut [Line], keys: &mut [u64]) {
        let (words, queries, columns) = (self.key_words(), self.queries, self.shape().columns());
        let block = self.kernels.digit_block(columns);
        let lines = block / 64 * self.kernels.digit_lines(queries.len());
        rayon::join(
            || {
                digits.par_chunks_mut(lines).enumerate().for_each(|(at, digits)| {
                    let columns = at * block..((at + 1) * block).min(columns);
                    let split = || self.kernels.split_digits(queries, columns, digits);
                    self.clocks.time(Stage::Prepare, split);
                });
            },
            || {
                keys.par_chunks_exact_mut(words).enumerate().for_each(|(at, out)| {
                    let (prime, query) = (at / queries.len(), at % queries.len());
                    let key = |key| queries[query].bundle.half(key, prime);
                    let write = || self.kernels.write_keys(&self.layout, queries.len(), &key, out);
                    self.clocks.time(Stage::Prepare, write);
                });
            },
        );
    }

    /// The rows from `first_row` on that `scanned` has room for.
    fn scan(&self, digits: &[Line], first_row: usize, scanned: &mut [u32]) {
        let job_words = self.queries.len() * JOB_ROWS;
        scanned.par_chunks_exact_mut(job_words).enumerate().for_each(|(job, out)| {
            let job = ScanJob {
                matrix: self.shard.matrix,
                columns: self.shape().columns(),
                first_row: first_row + job * JOB_ROWS,
                rows: JOB_ROWS,
                digits,
                queries: self.queries.len(),
            };
            self.clocks.time(Stage::Scan, || self.kernels.scan(&job, out));
        });
    }

    fn pack(&self, keys: &[u64], sums: &mut [u32]) {
        let (shape, queries) = (self.shape(), self.queries.len());
        let key_words = self.key_words();
        sums.par_chunks_exact_mut(self.block_words()).enumerate().for_each(|(at, out)| {
            let (prime, block) = (at / BLOCKS, at % BLOCKS);
            let job = PackJob {
                tables: self.shard.tables,
                table_bytes: shape.table_bytes(),
                block_at: at * shape.terms() * TERM_BYTES,
                packs: shape.packs(),
                segments: &self.layout.segments(block),
                keys: &keys[prime * queries * key_words..][..queries * key_words],
                key_words,
                queries,
                prime: PRIMES[prime],
            };
            self.clocks.time(Stage::Pack, || self.kernels.pack(&job, out));
        });
    }

    fn finish(&self, scratch: &Scratch, query: usize) -> Answer {
        let packs = (0..self.shape().packs()).into_par_iter();
        let finish =
            |pack| self.clocks.time(Stage::Finish, || self.finish_pack(scratch, query, pack));
        packs.map(finish).collect()
    }

    fn finish_pack(&self, scratch: &Scratch, query: usize, pack: usize) -> Vec<u8> {
        let shape = self.shape();
        let (packs, rows) = (shape.packs(), shape.pack_rows());
        let mut masks = [[0u32; D]; 2];
        let blocks = scratch.sums.chunks_exact(self.block_words());
        let slots = masks.as_flattened_mut().chunks_exact_mut(BLOCK_SLOTS);
        for (block, slots) in blocks.zip(slots) {
            let at = (query * packs + pack) * BLOCK_SLOTS;
            slots.copy_from_slice(&block[at..at + BLOCK_SLOTS]);
        }
        self.rings.q.inverse(&mut masks[0]);
        self.rings.p.inverse(&mut masks[1]);

        let mut scanned = [0u32; D];
        let jobs = scratch.scanned.chunks_exact(self.queries.len() * JOB_ROWS);
        let jobs = jobs.skip(pack * rows / JOB_ROWS);
        for (values, job) in scanned[..rows].chunks_exact_mut(JOB_ROWS).zip(jobs) {
            values.copy_from_slice(&job[query * JOB_ROWS..][..JOB_ROWS]);
        }
        let rounding = Rounding {
            scanned: &scanned[..rows],
            mask_q: &masks[0][..rows],
            mask_p: &masks[1][..rows],
            response_bits: shape.response_bits(),
        };
        let mut coefficients = [0u32; D];
        self.kernels.round(&rounding, &mut coefficients[..rows]);
        let mut response = vec![0; shape.response_bytes()];
        pack_bits(coefficients[..rows].iter().copied(), shape.response_bits(), &mut response);
        response
    }
}
