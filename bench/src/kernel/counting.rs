//! What counting costs: all that a server adds up and measures for one query, from its admission to
//! its written reply. The same additions and clock readings in the same order (`server::query`,
//! `server::connection`, `worker`), on all processors at once, as if each query came alone.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use sotto::metrics::Counters;
use sotto::wire::Status;
use sotto::worker::WorkCounters;

use super::pin::pin_this_thread;

/// Counts so many queries on each of these processors; what one took, the worst thread's mean.
pub(super) fn measure(queries: u32, cpus: &[usize]) -> Duration {
    let together = Barrier::new(cpus.len());
    let (counters, work) = (Counters::default(), WorkCounters::default());
    let run = |cpu: usize| {
        pin_this_thread(&[cpu]);
        together.wait();
        let begun = Instant::now();
        (0..queries).for_each(|_| count(&counters, &work));
        begun.elapsed() / queries
    };
    let slowest = std::thread::scope(|scope| {
        let run = &run;
        let threads: Vec<_> = cpus.iter().map(|&cpu| scope.spawn(move || run(cpu))).collect();
        let times = threads.into_iter().map(|thread| thread.join());
        times.map(|time| time.expect("this is a bug: counting panicked")).max()
    });
    let counted = counters.queries.get(Status::ResponseSuccess);
    assert_eq!(counted, u64::from(queries) * cpus.len() as u64, "this is a bug: counts are lost");
    slowest.unwrap_or_default()
}

fn count(counters: &Counters, work: &WorkCounters) {
    // Read, in one chunk for its head and one for the rest, and admitted.
    counters.received_bytes.add(11);
    counters.received_bytes.add(51_840);
    let admitted = Instant::now();
    counters.queries_admitted.add(1);
    // Handed out, computed.
    let begun = Instant::now();
    work.queue_time.add(begun.saturating_duration_since(admitted));
    work.answered_by_processor.add(1);
    work.batch_queries.add(1);
    let taken = begun.elapsed();
    work.scan_time.add(taken);
    work.pack_time.add(taken);
    // Sent.
    counters.queries.add(Status::ResponseSuccess);
    let begun = Instant::now();
    counters.send_time.add(begun.elapsed());
    counters.sent_bytes.add(12_400);
    counters.answer_time.add(admitted.elapsed());
}
