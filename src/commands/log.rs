//! The log's way to standard error: whoever logs neither waits for it nor fails by it.
//!
//! Lines wait, within a bound, for a thread that writes them. A disk that is full, a pipe whose
//! reader is gone or does not read cost lines and nothing else; how many is said as soon as
//! something can be said again. Whose lines there are is decided here too ([`may_be_written`]).

use std::collections::VecDeque;
use std::env::{self, VarError};
use std::io::{IsTerminal as _, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use sotto::limits::{LOG_LEAVE_TIMEOUT, LOG_WAITING_BYTES_MAX};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::serve::LogFormat;

/// The variable that says which lines are written.
const VARIABLE: &str = "SOTTO_LOG";
/// The crates that may write at all: this one, and those of GPUs, which know no peers. Crates of
/// the network name peers' addresses, in warnings too.
const WRITERS: [&str; 6] = ["sotto", "sotto_bench", "wgpu", "wgpu_core", "wgpu_hal", "naga"];

/// Whether a line of this target (a path of modules) may be written, whatever the level.
fn may_be_written(target: &str) -> bool {
    WRITERS.contains(&target.split("::").next().unwrap_or(target))
}

/// Which lines are written: those that the environment asks for, or else these.
///
/// # Errors
/// What the environment asks for cannot be understood.
fn filter(otherwise: &str) -> Result<EnvFilter, String> {
    let expected = "expected a level such as debug, or sotto::server=debug,info";
    match env::var(VARIABLE) {
        Ok(asked) if !asked.trim().is_empty() => EnvFilter::try_new(&asked)
            .map_err(|error| format!("{VARIABLE} is {asked:?}: {error}; {expected}")),
        Err(VarError::NotUnicode(asked)) => Err(format!("{VARIABLE} is {asked:?}; {expected}")),
        _ => Ok(EnvFilter::new(otherwise)),
    }
}

/// Starts the log on standard error, in lines for people, from level `info` on or what `SOTTO_LOG`
/// says; [`Log::finish`] writes what still waits.
///
/// # Errors
/// `SOTTO_LOG` cannot be understood, or the log's thread cannot be started.
pub fn start_log() -> Result<Log, String> {
    start("info", LogFormat::Human)
}

/// The same from another level on and in another form.
pub(crate) fn start(level: &str, format: LogFormat) -> Result<Log, String> {
    // What a GPU's driver says comes as an error, or as why there is none; its own lines are noise.
    let filter = filter(&format!("{level},wgpu_hal=off,wgpu_core=off,wgpu=off,naga=off"))?;
    let log = Log::start(std::io::stderr())
        .map_err(|error| format!("cannot start the log's thread: {error}"))?;
    let lines = log.clone();
    let written = tracing_subscriber::fmt()
        .with_writer(move || lines.clone())
        .with_ansi(std::io::stderr().is_terminal())
        .with_env_filter(filter);
    let without_peers = filter_fn(|line| may_be_written(line.target()));
    match format {
        LogFormat::Human => written.finish().with(without_peers).init(),
        LogFormat::Json => {
            written.json().flatten_event(true).finish().with(without_peers).init();
        }
    }
    Ok(log)
}

/// A writer for `tracing`; cheap to clone.
#[derive(Clone)]
pub struct Log(Arc<Shared>);

#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Lines that were not written, and of which that is not said yet.
    lost: u64,
    /// Whether a line is being written.
    writing: bool,
}

impl Log {
    /// Starts the thread that writes.
    pub(crate) fn start(out: impl Write + Send + 'static) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let log = Self(shared.clone());
        std::thread::Builder::new().name("sotto-log".into()).spawn(move || shared.write(out))?;
        Ok(log)
    }

    /// Waits until all lines are written, but not for a reader that does not read.
    pub fn finish(&self) {
        let waiting = self.0.lock();
        let left = |waiting: &mut Waiting| waiting.writing || !waiting.lines.is_empty();
        drop(self.0.changed.wait_timeout_while(waiting, LOG_LEAVE_TIMEOUT, left));
    }
}

/// A line a call: `tracing` hands over whole ones.
impl Write for Log {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        let mut waiting = self.0.lock();
        if waiting.bytes + line.len() > LOG_WAITING_BYTES_MAX {
            waiting.lost += 1;
        } else {
            waiting.bytes += line.len();
            waiting.lines.push_back(line.to_vec());
            self.0.changed.notify_all();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For as long as the process lives.
    fn write(&self, mut out: impl Write) {
        let mut waiting = self.lock();
        loop {
            let Some(line) = waiting.lines.pop_front() else {
                waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            waiting.bytes -= line.len();
            waiting.writing = true;
            let lost = waiting.lost;
            drop(waiting);
            let noted = match lost {
                0 => Ok(()),
                // At one go, or what others write would come between.
                lost => out.write_all(note(lost).as_bytes()),
            };
            let written = noted.and_then(|()| out.write_all(&line));
            waiting = self.lock();
            waiting.writing = false;
            match written {
                Ok(()) => waiting.lost -= lost,
                Err(_) => waiting.lost += 1,
            }
            self.changed.notify_all();
        }
    }
}

fn note(lost: u64) -> String {
    format!("{lost} lines of this log could not be written\n")
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// Writes what and when the test lets it: a line for every answer, or its error.
    struct Slow(Receiver<std::io::Result<()>>, Sender<String>);

    impl Write for Slow {
        fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
            self.0.recv().unwrap()?;
            self.1.send(String::from_utf8(line.to_vec()).unwrap()).unwrap();
            Ok(line.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn crates_of_the_network_write_nothing() {
        for written in ["sotto", "sotto::server::connection", "wgpu_hal::vulkan"] {
            assert!(may_be_written(written), "{written}");
        }
        for other in ["quinn", "quinn_udp", "quinn_proto::connection", "sotto_other", "hyper", ""] {
            assert!(!may_be_written(other), "{other}");
        }
    }

    #[test]
    fn who_logs_never_waits_and_what_is_lost_is_counted() {
        let (answers, let_it) = channel();
        let (written, lines) = channel();
        let mut log = Log::start(Slow(let_it, written)).unwrap();
        let long = vec![b'x'; LOG_WAITING_BYTES_MAX / 4];
        // One is being written, at the most, and four wait: the others are lost.
        (0..10).for_each(|_| log.write_all(&long).unwrap());
        answers.send(Err(std::io::ErrorKind::StorageFull.into())).unwrap();
        (0..100).for_each(|_| answers.send(Ok(())).unwrap());
        log.finish();
        let said: Vec<String> = lines.try_iter().collect();
        assert!(said[0].contains("lines of this log could not be written"), "{}", said[0]);
        let lost: usize = said[0].split(' ').next().unwrap().parse().unwrap();
        let whole = said.iter().filter(|line| line.len() == long.len()).count();
        assert_eq!(lost + whole, 10);
        assert!(whole >= 3, "{whole}");
        log.write_all(b"more\n").unwrap();
        log.finish();
        assert_eq!(lines.try_recv().unwrap(), "more\n");
    }
}
