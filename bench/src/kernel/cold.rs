//! Answers from a shard that is not in the page cache, beside a plain sequential read of it. What
//! the process had the disk read tells that the pages were gone; a guest's host may still have
//! them.

use std::fs::File;
use std::hint::black_box;
use std::io::Read as _;
use std::time::{Duration, Instant};

use sotto::arith::IsaName;
use sotto::engine::EncryptedQuery;

use super::answers;
use super::inputs::Store;
use super::pin::{Cores, pin_engines};
use crate::Failed;
use crate::operations::{disk_bytes, drop_pages};
use crate::record::{Cold, Spread, rounded};

/// Rounds over a plain read and answers of one query and of 16, on one thread and on all.
pub(super) fn measure(
    store: &Store,
    queries: &[EncryptedQuery],
    isa: IsaName,
    cores: &Cores,
    rounds: usize,
) -> Result<Vec<Cold>, Failed> {
    let batches = [1, queries.len().min(16)];
    let mut threads = vec![1, cores.cpus.len()];
    threads.dedup();
    let answers =
        threads.into_iter().flat_map(|threads| batches.map(|batch| Some((threads, batch))));
    let mut all: Vec<Way> =
        std::iter::once(None).chain(answers).map(|answer| (answer, Vec::new())).collect();
    for _ in 0..rounds {
        for (answer, runs) in &mut all {
            drop_pages(store.file())?;
            runs.push(match *answer {
                None => plain_read(store)?,
                Some((threads, batch)) => {
                    self::answer(store, &queries[..batch], isa, threads, cores)?
                }
            });
        }
    }
    let best = |runs: &[Timed]| runs.iter().map(|run| run.0.as_secs_f64()).reduce(f64::min);
    let plain = best(&all[0].1);
    let row = |(answer, runs): &Way| {
        Some(Cold {
            what: if answer.is_some() { "answer" } else { "plain sequential read" }.into(),
            engine: answer.map(|_| isa.name().into()),
            threads: answer.map(|answer| answer.0),
            batch: answer.map(|answer| answer.1),
            ms: Spread::of(runs.iter().map(|run| run.0.as_secs_f64() * 1e3))?,
            disk_bytes: runs.iter().map(|run| run.1).min().flatten(),
            times_plain_read: rounded(best(runs)? / plain?),
        })
    };
    Ok(all.iter().filter_map(row).collect())
}

/// A time, and the bytes that the process had the disk read in it where the system says so.
type Timed = (Duration, Option<u64>);

/// Threads and batch of an answer, or nothing for the plain read; and its runs.
type Way = (Option<(usize, usize)>, Vec<Timed>);

fn plain_read(store: &Store) -> Result<Timed, Failed> {
    let mut file = File::open(store.file())?;
    let mut block = vec![1; 1 << 20];
    let (before, start) = (disk_bytes("self").ok(), Instant::now());
    while file.read(&mut block)? > 0 {
        black_box(&block);
    }
    Ok(timed(start, before))
}

fn answer(
    store: &Store,
    queries: &[EncryptedQuery],
    isa: IsaName,
    threads: usize,
    cores: &Cores,
) -> Result<Timed, Failed> {
    let mut engine = answers::engine(isa, threads)?;
    pin_engines(&cores.cpus)?;
    let database = store.open()?;
    let shard = database.shard(0).ok_or("the database has no shard")?;
    let (before, start) = (disk_bytes("self").ok(), Instant::now());
    answers::time(engine.as_mut(), shard.view(), queries)?;
    Ok(timed(start, before))
}

fn timed(start: Instant, before: Option<u64>) -> Timed {
    let time = start.elapsed();
    (time, disk_bytes("self").ok().zip(before).map(|(after, before)| after - before))
}
