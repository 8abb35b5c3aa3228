//! Telling a person how far a build is: a bar on a terminal, lines every few seconds elsewhere.

use std::io::{IsTerminal as _, Write as _};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::text::{bytes, duration};

const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// The parts of a build or a verification, each with its own unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Counting the input, in bytes.
    Counting,
    /// Sorting records into shards, in records.
    Partitioning,
    /// Looking for duplicates, in shards.
    Checking,
    /// Building, in shards.
    Building,
    /// Reading every byte, in bytes.
    Verifying,
}

impl Stage {
    fn label(self) -> &'static str {
        match self {
            Self::Counting => "counting records",
            Self::Partitioning => "sorting records into shards",
            Self::Checking => "checking records",
            Self::Building => "building shards",
            Self::Verifying => "verifying",
        }
    }

    fn is_bytes(self) -> bool {
        matches!(self, Self::Counting | Self::Verifying)
    }
}

/// Hears how far a build is. Called from many threads.
pub trait Progress: Sync {
    /// Something a person should read.
    fn say(&self, line: &str);
    /// A stage begins, of so many units; 0 when that is not known.
    fn begin(&self, stage: Stage, total: u64);
    /// So many units more are done.
    fn advance(&self, units: u64);
    /// The last stage is over.
    fn end(&self);
}

/// Says nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn say(&self, _: &str) {}
    fn begin(&self, _: Stage, _: u64) {}
    fn advance(&self, _: u64) {}
    fn end(&self) {}
}

/// Writes to standard error: a bar where it is a terminal, else lines.
#[derive(Default)]
pub struct Console {
    state: Mutex<Option<ProgressState>>,
}

struct ProgressState {
    stage: Stage,
    total: u64,
    done: u64,
    begun: Instant,
    line_at: Instant,
    bar: Option<ProgressBar>,
}

impl Console {
    /// Writes to standard error.
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, Option<ProgressState>> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Progress for Console {
    fn say(&self, line: &str) {
        match &*self.state() {
            Some(ProgressState { bar: Some(bar), .. }) => bar.suspend(|| print(line)),
            _ => print(line),
        }
    }

    fn begin(&self, stage: Stage, total: u64) {
        self.end();
        let bar = std::io::stderr().is_terminal().then(|| bar(stage, total));
        let now = Instant::now();
        *self.state() =
            Some(ProgressState { stage, total, done: 0, begun: now, line_at: now, bar });
    }

    fn advance(&self, units: u64) {
        let mut state = self.state();
        let Some(state) = &mut *state else { return };
        state.done += units;
        match &state.bar {
            Some(bar) => bar.inc(units),
            None if state.line_at.elapsed() >= LINE_INTERVAL => {
                state.line_at = Instant::now();
                print(&line(state));
            }
            None => {}
        }
    }

    fn end(&self) {
        if let Some(ProgressState { bar: Some(bar), .. }) = self.state().take() {
            bar.finish_and_clear();
        }
    }
}

/// A reader who went away, or a full disk, is no reason to end a build.
fn print(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn bar(stage: Stage, total: u64) -> ProgressBar {
    let template = match (stage.is_bytes(), total) {
        (true, 0) => "{msg} {bytes} ({bytes_per_sec})",
        (true, _) => "{msg} {wide_bar} {bytes} of {total_bytes}, {eta} left",
        (false, _) => "{msg} {wide_bar} {human_pos} of {human_len}, {eta} left",
    };
    let target = ProgressDrawTarget::stderr();
    let bar = ProgressBar::with_draw_target((total > 0).then_some(total), target);
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_message(stage.label());
    bar
}

fn line(state: &ProgressState) -> String {
    let (label, done, total) = (state.stage.label(), state.done, state.total);
    let amount = |units: u64| match state.stage.is_bytes() {
        true => bytes(units),
        false => units.to_string(),
    };
    if total == 0 || done == 0 {
        return format!("{label}: {}", amount(done));
    }
    let left = state.begun.elapsed().mul_f64((total.saturating_sub(done)) as f64 / done as f64);
    format!("{label}: {} of {}, about {} left", amount(done), amount(total), duration(left))
}
