//! What no engine can beat: the time to read the shard once, and the rate of its multiply-adds.
//!
//! Best of everything tried in the run. A floor is a bound for the machine as it is: the shard is
//! read through the same map that engines read it through.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use sotto::arith::IsaName;
use sotto::engine::ShardView;
use sotto::params::{D, Shape};

use super::peaks::{self, Peak};
use super::pin::{Cores, pin_this_thread};

/// Tries to find a peak each time: short ones, which other work on the machine may miss.
const PEAK_TRIES: usize = 12;

#[derive(Default)]
pub(super) struct Floors {
    /// By number of threads: how long, and how it was read.
    pub(super) read: BTreeMap<usize, (Duration, &'static str)>,
    /// By name: instructions (or pairs of them) a nanosecond on one core.
    pub(super) peaks: BTreeMap<&'static str, f64>,
}

/// The multiply-adds of one kernel: what it uses (`src/engine`), and how many a query takes.
pub(super) struct Work {
    pub(super) instruction: &'static str,
    pub(super) count: f64,
}

/// Scan and pack of one engine at a shape; nothing for those whose instructions have no peak here.
pub(super) fn work(isa: IsaName, shape: &Shape) -> Option<[Work; 2]> {
    // How many a query: in the scan for 64 columns of a row, in the pack for 8 slots of a term.
    let (scan, for_columns, pack, for_slots) = match isa {
        IsaName::Portable | IsaName::Neon => return None,
        IsaName::Avx2 => (peaks::MADDWD_256, 6.0, peaks::MULUDQ_256, 2),
        IsaName::Avx512Bw => (peaks::MADDWD_512, 3.0, peaks::MULUDQ_512, 1),
        IsaName::Avx512 => (peaks::DPBUSD, 3.0, peaks::MADD52, 1),
        IsaName::Amx => (peaks::TDPBSUD, 3.0 / 256.0, peaks::MADD52, 1),
    };
    let scan_count = (shape.rows() * shape.columns() / 64) as f64 * for_columns;
    let pack_count = shape.packs() * shape.terms() * 2 * D / 8 * for_slots;
    Some([
        Work { instruction: scan, count: scan_count },
        Work { instruction: pack, count: pack_count as f64 },
    ])
}

impl Floors {
    /// Measures all of it once more and keeps what is better.
    pub(super) fn measure(&mut self, shards: &[ShardView<'_>], cores: &Cores, peak_loops: u64) {
        for threads in cores.counts() {
            for (name, reader) in readers() {
                let found = (read(shards, &cores.cpus[..threads], reader), name);
                let best = self.read.entry(threads).or_insert(found);
                *best = found.min(*best);
            }
        }
        for Peak { name, per_loop, run } in peaks::present() {
            for _ in 0..PEAK_TRIES {
                let start = Instant::now();
                run(peak_loops);
                let nanos = start.elapsed().as_nanos().max(1) as f64;
                let rate = (peak_loops * per_loop) as f64 / nanos;
                let best = self.peaks.entry(name).or_default();
                *best = best.max(rate);
            }
        }
    }

    /// Milliseconds that a query's multiply-adds take one core at best.
    pub(super) fn work_ms(&self, work: &Work) -> Option<f64> {
        Some(work.count / self.peaks.get(work.instruction)? / 1e6)
    }
}

type Reader = fn(&[u8]) -> u64;

/// Reads every byte once, each thread its part of each section; the time of one shard.
fn read(shards: &[ShardView<'_>], cpus: &[usize], reader: Reader) -> Duration {
    let part = |thread: usize| {
        for section in shards.iter().flat_map(|shard| [shard.matrix, shard.tables]) {
            let (first, last) = (thread, thread + 1);
            let at = |cut: usize| section.len() / 64 * cut / cpus.len() * 64;
            black_box(reader(black_box(&section[at(first)..at(last)])));
        }
    };
    let barrier = Barrier::new(cpus.len());
    let timed = |thread: usize| {
        pin_this_thread(&cpus[thread..=thread]);
        barrier.wait();
        let start = Instant::now();
        part(thread);
        (start, Instant::now())
    };
    let times: Vec<_> = std::thread::scope(|scope| {
        let timed = &timed;
        let threads: Vec<_> =
            (0..cpus.len()).map(|thread| scope.spawn(move || timed(thread))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a reader ended")).collect()
    });
    let start = times.iter().map(|times| times.0).min();
    let end = times.iter().map(|times| times.1).max();
    start.zip(end).map_or(Duration::MAX, |(start, end)| (end - start) / shards.len() as u32)
}

/// Ways to read: which is best depends on the machine, and on what else its host does. Where there
/// is AVX-512, memory is read faster with its registers on some.
fn readers() -> Vec<(&'static str, Reader)> {
    let mut readers: Vec<(&str, Reader)> = vec![
        ("plain, 1 stream", sum::<1, 0>),
        ("plain, 2 streams", sum::<2, 0>),
        ("plain, 4 streams, 1 KB ahead", sum::<4, 1024>),
        ("plain, 4 streams, 8 KB ahead", sum::<4, 8192>),
    ];
    #[cfg(target_arch = "x86_64")]
    if sotto::arith::Isa::new(IsaName::Avx512Bw).is_some() {
        // SAFETY: this processor has AVX-512 F, here and below.
        readers.push(("avx512, 1 stream", |bytes| unsafe { sum_avx512::<1, 0>(bytes) }));
        readers.push(("avx512, 4 streams, 1 KB ahead", |bytes| {
            // SAFETY: as above.
            unsafe { sum_avx512::<4, 1024>(bytes) }
        }));
    }
    readers
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn sum_avx512<const STREAMS: usize, const AHEAD: usize>(bytes: &[u8]) -> u64 {
    sum::<STREAMS, AHEAD>(bytes)
}

/// The words of so many equal parts, added up, with what is so many bytes ahead prefetched to the
/// second cache. One text, which `sum_avx512` compiles for wider registers.
#[inline(always)]
fn sum<const STREAMS: usize, const AHEAD: usize>(bytes: &[u8]) -> u64 {
    const STEP: usize = 64;
    let part = bytes.len() / STREAMS / STEP * STEP;
    let streams: [&[[u8; STEP]]; STREAMS] =
        std::array::from_fn(|stream| bytes[stream * part..][..part].as_chunks().0);
    let mut sums = [0u64; STEP / 8];
    for at in 0..part / STEP {
        for stream in streams {
            let line = &stream[at];
            #[cfg(target_arch = "x86_64")]
            if AHEAD > 0 {
                // SAFETY: a prefetch of any address is harmless.
                unsafe {
                    use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
                    _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().wrapping_add(AHEAD).cast());
                }
            }
            for (sum, word) in sums.iter_mut().zip(line.as_chunks().0) {
                *sum = sum.wrapping_add(u64::from_ne_bytes(*word));
            }
        }
    }
    let rest = bytes[STREAMS * part..].iter().map(|&byte| u64::from(byte)).sum::<u64>();
    sums.iter().fold(rest, |all, &sum| all.wrapping_add(sum))
}
