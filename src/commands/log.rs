//! The log on standard error. Whoever logs neither waits for it nor fails because of it.
//!
//! Lines wait, within a bound in bytes, for a thread that writes them. A full disk, or a pipe that
//! nobody reads, costs lines and nothing else; the next line that is written comes with their
//! number. The crate `tracing-appender` bounds the number of lines but not their bytes, and does
//! not count lines that could not be written.

use std::env::{self, VarError};
use std::io::{IsTerminal as _, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, channel};

use sotto::limits::{LOG_LEAVE_TIMEOUT, LOG_WAITING_BYTES_MAX};
use tracing_subscriber::filter::{Targets, filter_fn};
use tracing_subscriber::fmt;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

/// The variable that says which lines are written.
const VARIABLE: &str = "SOTTO_LOG";
/// The crates that may write at all: these packages, and the crates of GPUs, which know no peers.
/// Crates of the network name the addresses of peers, in warnings too.
const WRITERS: [&str; 6] = ["sotto", "sotto_bench", "wgpu", "wgpu_core", "wgpu_hal", "naga"];

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Lines of text.
    Human,
    /// One JSON object in each line.
    Json,
}

/// Whether a line of this target (a path of modules) may be written, whatever its level.
fn may_be_written(target: &str) -> bool {
    WRITERS.contains(&target.split("::").next().unwrap_or(target))
}

/// Which lines are written: those that the environment asks for, or else those from a level on.
fn wanted(level: &str) -> Result<Targets, String> {
    let asked = match env::var(VARIABLE) {
        Ok(asked) if !asked.trim().is_empty() => asked,
        Err(VarError::NotUnicode(asked)) => asked.to_string_lossy().into_owned(),
        // An error says what a GPU's driver found; the lines of its crates add nothing.
        _ => format!("{level},wgpu_hal=off,wgpu_core=off,wgpu=off,naga=off"),
    };
    asked.parse::<Targets>().map_err(|error| {
        format!(
            "{VARIABLE} is {asked:?}: {error}; expected a level such as debug, or \
             sotto::server=debug,info"
        )
    })
}

/// Starts the log with the lines from `level` on, or those that `SOTTO_LOG` asks for.
pub fn start_log(level: &str, format: LogFormat) -> Result<Log, String> {
    let wanted = wanted(level)?;
    let log = Log::start(std::io::stderr())
        .map_err(|error| format!("cannot start the thread of the log: {error}"))?;
    let lines = log.clone();
    let written =
        fmt::layer().with_writer(move || lines.clone()).with_ansi(std::io::stderr().is_terminal());
    let written = match format {
        LogFormat::Human => written.boxed(),
        LogFormat::Json => written.json().flatten_event(true).boxed(),
    };
    let without_peers = filter_fn(|line| may_be_written(line.target()));
    tracing_subscriber::registry().with(written).with(wanted).with(without_peers).init();
    Ok(log)
}

enum Message {
    Line(Vec<u8>),
    /// Everything before this message is written: says so.
    Finish(Sender<()>),
}

#[derive(Default)]
struct Counts {
    bytes_waiting: AtomicUsize,
    /// Lines that were not written and are not in any note yet.
    lost: AtomicU64,
}

/// A writer for `tracing`; cheap to clone.
#[derive(Clone)]
pub struct Log {
    messages: Sender<Message>,
    counts: Arc<Counts>,
}

impl Log {
    /// Starts the thread that writes.
    fn start(out: impl Write + Send + 'static) -> std::io::Result<Self> {
        let (messages, received) = channel();
        let counts = Arc::<Counts>::default();
        let log = Self { messages, counts: counts.clone() };
        let write = move || write(out, &received, &counts);
        std::thread::Builder::new().name("sotto-log".into()).spawn(write)?;
        Ok(log)
    }

    /// Waits until all lines are written, but not long for a reader that does not read.
    pub fn finish(&self) {
        let (done, is_done) = channel();
        if self.messages.send(Message::Finish(done)).is_ok() {
            let _ = is_done.recv_timeout(LOG_LEAVE_TIMEOUT);
        }
    }
}

/// One call for each line: `tracing` hands over whole lines.
impl Write for Log {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        let waiting = self.counts.bytes_waiting.fetch_add(line.len(), Relaxed);
        if waiting + line.len() > LOG_WAITING_BYTES_MAX
            || self.messages.send(Message::Line(line.to_vec())).is_err()
        {
            self.counts.bytes_waiting.fetch_sub(line.len(), Relaxed);
            self.counts.lost.fetch_add(1, Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Writes lines for as long as the process lives.
fn write(mut out: impl Write, messages: &Receiver<Message>, counts: &Counts) {
    for message in messages {
        let line = match message {
            Message::Line(line) => line,
            Message::Finish(done) => {
                let _ = done.send(());
                continue;
            }
        };
        counts.bytes_waiting.fetch_sub(line.len(), Relaxed);
        let lost = counts.lost.load(Relaxed);
        let noted = match lost {
            0 => Ok(()),
            // In one call, or the output of others would come between.
            _ => {
                out.write_all(format!("{lost} lines of this log could not be written\n").as_bytes())
            }
        };
        match noted.and_then(|()| out.write_all(&line)) {
            Ok(()) => counts.lost.fetch_sub(lost, Relaxed),
            Err(_) => counts.lost.fetch_add(1, Relaxed),
        };
    }
}

#[cfg(test)]
mod tests {
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
