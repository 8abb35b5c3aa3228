//! Times the CPU engine at the standard shape, stage by stage, beside the memory's speed.
//!
//! `cargo bench --bench kernel [-- --quick]`; numbers worth quoting go to `bench/record`. Without
//! `--bench` (as `cargo test --benches` runs it) a tiny shape is run once and nothing is timed for
//! show. The answers are checked elsewhere (`tests/engines.rs`); inputs here are noise.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sotto::arith::IsaName;
use sotto::engine::{
    Batch, EncryptedQuery, Engine, EngineChoice, IsaChoice, ShardView, StageTimes, select,
};
use sotto::params::{D, P, Q, Shape, ShapeWishes};
use sotto::scheme::KeyBundle;

/// How much is run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Effort {
    /// Once, at a tiny shape.
    Test,
    /// The best of three.
    Quick,
    /// The best of ten.
    Full,
}

const PAGE: usize = 4096;

/// Bytes that start a page.
struct Section {
    bytes: Vec<u8>,
    start: usize,
    count: usize,
}

impl Section {
    fn get(&self) -> &[u8] {
        &self.bytes[self.start..][..self.count]
    }
}

/// Noise, fast: xorshift64.
struct Noise(u64);

impl Noise {
    fn word(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        bytes
            .chunks_mut(8)
            .for_each(|to| to.copy_from_slice(&self.word().to_le_bytes()[..to.len()]));
        bytes
    }

    /// A section as a memory map would have it: at the start of a page.
    fn section(&mut self, count: usize) -> Section {
        let bytes = self.bytes(count + PAGE);
        let start = bytes.as_ptr().align_offset(PAGE);
        Section { bytes, start, count }
    }

    fn query(&mut self, shape: &Shape) -> EncryptedQuery {
        let mut bundle = Vec::with_capacity(shape.bundle_bytes());
        for index in 0..shape.bundle_bytes() / 3 {
            let prime = if (index / D).is_multiple_of(2) { Q } else { P };
            let residue = (self.word() >> 40) as u32 % prime;
            bundle.extend_from_slice(&residue.to_le_bytes()[..3]);
        }
        let bundle = KeyBundle::decode(&bundle, shape).expect("residues are below their primes");
        EncryptedQuery { vector: self.bytes(shape.query_bytes()).into(), bundle: Arc::new(bundle) }
    }
}

fn main() {
    let has = |name: &str| std::env::args().any(|argument| argument == name);
    let effort = match (has("--bench") && !has("--test"), has("--quick")) {
        (false, _) => Effort::Test,
        (true, true) => Effort::Quick,
        (true, false) => Effort::Full,
    };
    let (records, batches): (u64, &[usize]) = match effort {
        Effort::Test => (1 << 10, &[1, 3]),
        _ => (1 << 20, &[1, 2, 4, 8, 16, 32]),
    };
    let shape = Shape::for_records(records, 120, ShapeWishes::default()).expect("a standard shape");
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    let sections = [shape.matrix_bytes(), shape.packs() * shape.table_bytes()];
    let sections = sections.map(|count| noise.section(count));
    let [matrix, tables] = sections.each_ref().map(Section::get);
    let most = batches.iter().max().copied().unwrap_or(1);
    let queries: Vec<_> = (0..most).map(|_| noise.query(&shape)).collect();
    let shard = ShardView { shape: &shape, matrix, tables };
    let megabytes = (matrix.len() + tables.len()) as f64 / 1e6;
    println!(
        "{} x {} matrix, {} packs of {} rows: {megabytes:.1} MB",
        shape.rows(),
        shape.columns(),
        shape.packs(),
        shape.pack_rows()
    );

    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let mut thread_counts = vec![1, cores];
    thread_counts.dedup();
    for threads in thread_counts {
        let read = best(effort, || read_all(&[matrix, tables], threads));
        let isas: &[IsaChoice] = match effort {
            Effort::Test => &[IsaChoice::Only(IsaName::Portable), IsaChoice::Auto],
            _ => &[IsaChoice::Auto],
        };
        for &isa in isas {
            let engine = select(EngineChoice::Cpu, isa, NonZeroUsize::new(threads));
            let mut engine = engine.expect("an engine that is present");
            println!(
                "\n{}; the shard is read in {:.2} ms ({:.1} GB/s)",
                engine.name(),
                read.as_secs_f64() * 1e3,
                megabytes / 1e3 / read.as_secs_f64()
            );
            println!("batch   ms a batch   x reading   ms a query: whole, scan, pack, rest");
            for &batch in batches {
                let queries = &queries[..batch];
                report(engine.as_mut(), effort, &Batch { shard, queries }, threads, read);
            }
        }
    }
}

/// One line: the best run, whole and by stage. Stages are thread time over threads; the rest is
/// everything else, waiting included.
fn report(
    engine: &mut dyn Engine,
    effort: Effort,
    batch: &Batch<'_>,
    threads: usize,
    read: Duration,
) {
    let runs = (0..rounds(effort)).map(|_| {
        let before = engine.stage_times();
        let mut answers = 0;
        let start = Instant::now();
        let call = Batch { shard: batch.shard, queries: batch.queries };
        engine.answer(&[call], &mut |_, _, _| answers += 1).expect("an answer");
        let whole = start.elapsed();
        assert_eq!(answers, batch.queries.len());
        (whole, before, engine.stage_times())
    });
    let Some((whole, before, after)) = runs.min_by_key(|run| run.0) else { return };
    let each = |time: Duration, threads: usize| {
        time.as_secs_f64() * 1e3 / threads as f64 / batch.queries.len() as f64
    };
    let stage = |of: fn(&StageTimes) -> Duration| each(of(&after) - of(&before), threads);
    let (scan, pack) = (stage(|times| times.scan), stage(|times| times.pack));
    println!(
        "{:5}   {:10.2}   {:9.2}   {:.3}, {scan:.3}, {pack:.3}, {:.3}",
        batch.queries.len(),
        whole.as_secs_f64() * 1e3,
        whole.as_secs_f64() / read.as_secs_f64(),
        each(whole, 1),
        each(whole, 1) - scan - pack
    );
}

fn rounds(effort: Effort) -> usize {
    match effort {
        Effort::Test => 1,
        Effort::Quick => 3,
        Effort::Full => 10,
    }
}

fn best(effort: Effort, mut work: impl FnMut()) -> Duration {
    let time = |_| {
        let start = Instant::now();
        work();
        start.elapsed()
    };
    (0..rounds(effort)).map(time).min().unwrap_or_default()
}

/// Reads every byte once, each thread its part of each section.
fn read_all(sections: &[&[u8]], threads: usize) {
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || {
                for section in sections {
                    let part = section.len() / threads;
                    std::hint::black_box(sum(&section[thread * part..][..part]));
                }
            });
        }
    });
}

/// Four streams at once, which memory answers faster than one, and eight sums, few enough to stay
/// in registers everywhere.
fn sum(bytes: &[u8]) -> u64 {
    let mut sums = [0u64; 8];
    let quarter = (bytes.len() / 256).max(1) * 64;
    let streams: Vec<_> =
        bytes.chunks_exact(quarter).map(|part| part.as_chunks::<64>().0).collect();
    let [a, b, c, d] = streams[..] else { return 0 };
    for (((a, b), c), d) in a.iter().zip(b).zip(c).zip(d) {
        for line in [a, b, c, d] {
            for (sum, word) in sums.iter_mut().zip(line.as_chunks::<8>().0) {
                *sum = sum.wrapping_add(u64::from_le_bytes(*word));
            }
        }
    }
    sums.iter().fold(0, |all, &sum| all.wrapping_add(sum))
}
