//! Answers from a shard that is not in the page cache, beside a plain sequential read of it. What
//! the process had the disk read tells that the pages were gone; a guest's host may still have
//! them.

use std::error::Error;
use std::fs::File;
use std::hint::black_box;
use std::io::Read as _;
use std::time::{Duration, Instant};

use sotto::arith::IsaName;
use sotto::engine::EncryptedQuery;

use super::answers;
use super::inputs::Store;
use super::pin::{Cores, pin_engines};
use crate::operations::{disk_bytes, drop_pages};

/// All runs of one way to read the file.
pub(super) struct Cold {
    /// Threads and batch of an answer; nothing for the plain read.
    pub(super) answer: Option<(usize, usize)>,
    pub(super) isa: IsaName,
    pub(super) runs: Vec<Duration>,
    /// Bytes that a run had the disk read, at least.
    pub(super) disk_bytes: Option<u64>,
}

/// Rounds over a plain read and answers of one query and of 16, on one thread and on all.
pub(super) fn measure(
    store: &Store,
    queries: &[EncryptedQuery],
    isa: IsaName,
    cores: &Cores,
    rounds: usize,
) -> Result<Vec<Cold>, Box<dyn Error>> {
    let batches = [1, queries.len().min(16)];
    let mut threads = vec![1, cores.cpus.len()];
    threads.dedup();
    let answers =
        threads.into_iter().flat_map(|threads| batches.map(|batch| Some((threads, batch))));
    let cold = |answer| Cold { answer, isa, runs: Vec::new(), disk_bytes: None };
    let mut all: Vec<_> = std::iter::once(None).chain(answers).map(cold).collect();
    for _ in 0..rounds {
        for cold in &mut all {
            drop_pages(store.file()).map_err(|error| error.to_string())?;
            let run = match cold.answer {
                None => plain_read(store),
                Some((threads, batch)) => answer(store, &queries[..batch], isa, threads, cores),
            };
            let (time, disk_bytes) = run?;
            cold.runs.push(time);
            cold.disk_bytes =
                cold.disk_bytes.map_or(disk_bytes, |old| disk_bytes.map(|new| new.min(old)));
        }
    }
    Ok(all)
}

/// A time, and the bytes that the process had the disk read in it where the system says so.
type Timed = (Duration, Option<u64>);

fn plain_read(store: &Store) -> Result<Timed, Box<dyn Error>> {
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
) -> Result<Timed, Box<dyn Error>> {
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
