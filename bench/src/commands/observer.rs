//! `sotto-bench observer`: what observers of shard numbers link over time. The simulation is
//! [`crate::observer`]'s.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::common::Effort;
use crate::html::picture;
use crate::observer::{Setting, observe};

use sotto::commands::Ended;
use sotto::commands::out::say;

use super::files::{claim, keep, write};

/// Simulate devices, and what relay, front-end and answer servers link and confirm after 1, 7 and
/// 30 days.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Fewer devices, so that it takes seconds and not minutes, and more is linked.
    #[arg(long)]
    quick: bool,
    /// Write the record here, and beside it, in a file that ends in .txt, what is printed.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a picture.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

pub(super) fn run(args: Args) -> Ended {
    // A place that cannot be written fails before the work.
    let json = args.json.map(|path| claim("observer", Some(path))).transpose()?;
    write(args.svg.as_deref(), |_| Ok(()))?;
    let observed = observe(Setting::new(if args.quick { Effort::Quick } else { Effort::Full }));
    let text = observed.text();
    if let Some(path) = json {
        keep(&path, &observed, &text)?;
    }
    write(args.svg.as_deref(), |out| out.write_all(picture(&observed).as_bytes()))?;
    say(text.trim_end())?;
    Ok(ExitCode::SUCCESS)
}
