//! The summary of a record's folder, as Markdown for its README: every number, targets met and
//! missed, and for a long run (`soak.sh`) what has to be so and is not. What is there decides what
//! is said: records, `machine.txt` with steps and how they ended, `parity.txt`, `samples.csv` of a
//! long run.

mod judged;

use std::io;
use std::path::Path;

use judged::read;

use crate::found::Found;
use crate::numbers;
use crate::record::Target;

/// What a record's folder says, as Markdown, and whether all that is judged is as it has to be.
///
/// # Errors
/// The folder or a file in it cannot be read.
pub(crate) fn summary(folder: &Path, records: &[Found]) -> io::Result<(String, bool)> {
    let machine = read(folder, "machine.txt")?;
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let mut text = format!("# {name}\n\n");
    let commit = machine.lines().find_map(|line| line.strip_prefix("commit")).unwrap_or("").trim();
    let commit = if commit.is_empty() { "unknown" } else { commit };
    text += &format!("Commit {commit}. The machine and its load: `machine.txt`.\n");
    // Lines such as `parity ended 0 after 12 s`.
    let step = |line: &'_ str| {
        let (name, rest) = line.split_once(" ended ")?;
        let (code, time) = rest.split_once(" after ")?;
        let failed = format!("**{name} failed** (exit {code}) after {time}: `{name}.txt`.\n");
        (code != "0").then_some(failed)
    };
    text.extend(machine.lines().filter_map(step));
    let parity = read(folder, "parity.txt")?;
    if let Some(result) = parity.lines().find_map(|line| line.strip_prefix("test result: ")) {
        let result = result.split(';').next().unwrap_or(result);
        text += &format!("Engines beside the reference: {result} (`parity.txt`).\n");
    }
    let targets: Vec<Target> =
        records.iter().flat_map(|found| numbers::targets(&found.record)).collect();
    if !targets.is_empty() {
        text += "\nThe best of the runs decides, the median stands beside.\n\n";
        text += &numbers::targets_table(&targets).markdown();
    }
    for found in records {
        let file = found.path.strip_prefix(folder).unwrap_or(&found.path).display();
        text += &format!("\n## `{file}`\n\n");
        for doubt in numbers::doubts(&found.record) {
            text += &format!("**Note**: {doubt}.\n\n");
        }
        text += &numbers::table(&numbers::of(&found.record)).markdown();
    }
    let (judged, passed) = judged::long_run(folder, records)?.unwrap_or((String::new(), true));
    Ok((text + &judged, passed))
}
