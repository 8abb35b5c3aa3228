//! `sotto-bench compare`: two records side by side; the comparing is [`crate::compare`]'s.
//!
//! Exit code 0: nothing is worse; 1: something is; 2: they cannot be compared.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::compare::{CompareOptions, TOLERANCE, Verdict, compare};
use crate::found::Found;
use crate::load::share;

use sotto::commands::Ended;
use sotto::commands::out::report;

/// Hold two records side by side: which numbers changed by more than noise. Exit code 1 where one
/// is worse, 2 where the two cannot be compared.
#[derive(clap::Args)]
pub(super) struct Args {
    /// A record, or a folder of them: what was.
    #[arg(value_name = "BEFORE")]
    before: PathBuf,
    /// The other one, or a folder with files of the same names: what is now.
    #[arg(value_name = "AFTER")]
    after: PathBuf,
    /// Changes up to this do not matter.
    #[arg(long, value_name = "SHARE", default_value_t = TOLERANCE, value_parser = share)]
    tolerance: f64,
    /// Compare also what was measured on another machine, at another shape or with other options.
    #[arg(long)]
    across: bool,
    /// Show only what is not the same.
    #[arg(long)]
    changed: bool,
}

pub(super) fn run(args: &Args) -> Ended {
    let options = CompareOptions { tolerance: args.tolerance, across: args.across };
    let before = Found::all(std::slice::from_ref(&args.before))?;
    let mut after = Found::all(std::slice::from_ref(&args.after))?;
    let mut pairs = Vec::new();
    if args.before.is_dir() && args.after.is_dir() {
        let inner = |found: &Found, folder: &Path| {
            found.path.strip_prefix(folder).unwrap_or(&found.path).to_owned()
        };
        for old in before {
            let name = inner(&old, &args.before);
            match after.iter().position(|new| inner(new, &args.after) == name) {
                Some(place) => pairs.push((old, after.remove(place))),
                None => report(format_args!("only before: {}", old.path.display())),
            }
        }
        for new in after {
            report(format_args!("only after: {}", new.path.display()));
        }
    } else {
        pairs.extend(before.into_iter().zip(after));
    }
    if pairs.is_empty() {
        let (before, after) = (args.before.display(), args.after.display());
        return Err(format!(
            "found no records of one name below {before} and {after}, expected two records, or two \
             folders that hold some"
        )
        .into());
    }
    let mut worse = 0;
    for (old, new) in &pairs {
        report(format_args!("before {}: {}", old.path.display(), old.record.head().origin()));
        report(format_args!("after  {}: {}", new.path.display(), new.record.head().origin()));
        let compared = compare(&old.record, &new.record, options)?;
        report(compared.table(args.changed));
        worse += compared.count(Verdict::Worse);
    }
    Ok(if worse == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
