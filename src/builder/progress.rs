//! Telling a person how far a build is: a bar on a terminal, lines every few seconds elsewhere.

use std::io::Write as _;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::text::{bytes, duration};

const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// The parts of a build, a verification or a copy, each with its own unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // Names say it.
pub enum Stage {
    Counting,
    Partitioning,
    Checking,
    Building,
    Verifying,
    Downloading,
    Uploading,
}

impl Stage {
    /// Its name, and whether its unit is bytes.
    fn label(self) -> (&'static str, bool) {
        match self {
            Self::Counting => ("counting records", true),
            Self::Partitioning => ("sorting records into shards", false),
            Self::Checking => ("checking records", false),
            Self::Building => ("building shards", false),
            Self::Verifying => ("verifying", true),
            Self::Downloading => ("downloading", true),
            Self::Uploading => ("uploading files", false),
        }
    }
}

/// Hears how far a build is. Called from many threads.
pub trait Progress: Sync {
    /// Something a person should read.
    fn say(&self, _line: &str) {}
    /// A stage begins, of so many units; 0 when that is not known.
    fn begin(&self, _stage: Stage, _total: u64) {}
    /// So many units more are done.
    fn advance(&self, _units: u64) {}
    /// The last stage is over.
    fn end(&self) {}
}

/// Shows no progress.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {}

/// Writes to standard error: a bar where it is a terminal, else lines.
#[derive(Default)]
pub struct Console {
    state: Mutex<Option<ProgressState>>,
}

struct ProgressState {
    stage: Stage,
    /// Hidden where standard error is no terminal: it counts there too.
    bar: ProgressBar,
    line_at: Instant,
}

impl Console {
    fn state(&self) -> std::sync::MutexGuard<'_, Option<ProgressState>> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Progress for Console {
    fn say(&self, line: &str) {
        match &*self.state() {
            Some(ProgressState { bar, .. }) => bar.suspend(|| print(line)),
            None => print(line),
        }
    }

    fn begin(&self, stage: Stage, total: u64) {
        self.end();
        let (bar, line_at) = (bar(stage, total), Instant::now());
        *self.state() = Some(ProgressState { stage, bar, line_at });
    }

    fn advance(&self, units: u64) {
        let mut state = self.state();
        let Some(state) = &mut *state else { return };
        state.bar.inc(units);
        if state.bar.is_hidden() && state.line_at.elapsed() >= LINE_INTERVAL {
            state.line_at = Instant::now();
            print(&line(state));
        }
    }

    fn end(&self) {
        if let Some(ProgressState { bar, .. }) = self.state().take() {
            bar.finish_and_clear();
        }
    }
}

/// A reader who went away, or a full disk, is no reason to end a build.
fn print(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn bar(stage: Stage, total: u64) -> ProgressBar {
    let (label, is_bytes) = stage.label();
    let template = match (is_bytes, total) {
        (true, 0) => "{msg} {bytes} ({bytes_per_sec})",
        (true, _) => "{msg} {wide_bar} {bytes} of {total_bytes}, {eta} left",
        (false, _) => "{msg} {wide_bar} {human_pos} of {human_len}, {eta} left",
    };
    let target = ProgressDrawTarget::stderr();
    let bar = ProgressBar::with_draw_target((total > 0).then_some(total), target);
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_message(label);
    bar
}

fn line(state: &ProgressState) -> String {
    let ((label, is_bytes), done) = (state.stage.label(), state.bar.position());
    let amount = |units: u64| if is_bytes { bytes(units) } else { units.to_string() };
    match state.bar.length() {
        Some(total) if done > 0 => {
            let times = total.saturating_sub(done) as f64 / done as f64;
            let left = duration(state.bar.elapsed().mul_f64(times));
            format!("{label}: {} of {}, about {left} left", amount(done), amount(total))
        }
        _ => format!("{label}: {}", amount(done)),
    }
}
