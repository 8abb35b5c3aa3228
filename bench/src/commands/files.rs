//! Where records and pages are written.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use sotto::commands::out::report;

use crate::record::Head;

/// Where records lie, below the top of a checkout.
pub(super) const RECORDS: &str = "bench/record";

/// The default place of a record below `folder`: in a checkout its machine's folder of the day,
/// else that folder. It is never the place of a record that exists.
fn record_path(folder: &Path, kind: &str, head: &Head) -> PathBuf {
    let records = folder.join(RECORDS);
    let stem = if records.is_dir() {
        let day = head.date.as_deref().and_then(|date| date.get(..10)).unwrap_or("undated");
        records.join(format!("{day}-{}", head.machine.slug())).join(kind)
    } else {
        folder.join(format!("sotto-bench-{kind}"))
    };
    let numbered = |number: u32| match number {
        1 => stem.with_added_extension("json"),
        _ => PathBuf::from(format!("{}-{number}.json", stem.display())),
    };
    let free = |path: &PathBuf| !path.exists();
    (1..).map(numbered).find(free).unwrap_or_else(|| numbered(1))
}

/// Where a record of this machine will be written: `asked`, or [`record_path`]. Makes the folder
/// and an empty file for its table, so that a place that cannot be written fails before the work.
pub(super) fn claim(kind: &str, asked: Option<PathBuf>) -> Result<PathBuf, String> {
    let path = asked.unwrap_or_else(|| record_path(Path::new(""), kind, &Head::new("")));
    if path.extension().is_some_and(|extension| extension == "txt") {
        let place = path.display();
        return Err(format!("{place}: found .txt, expected another end: the table goes there"));
    }
    let folder = path.parent().unwrap_or(Path::new(""));
    let made = fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()));
    made.and_then(|()| write(Some(&path.with_extension("txt")), |_| Ok(())))?;
    Ok(path)
}

/// Writes a record as JSON and its table beside it, in a file that ends in `.txt`, and says where.
pub(super) fn keep(path: &Path, record: &impl Serialize, table: &str) -> Result<(), String> {
    let failed = |error| format!("{}: {error}", path.display());
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    write(Some(path), |out| {
        serde_json::to_writer_pretty(&mut *out, record)?;
        out.write_all(b"\n")
    })?;
    write(Some(&path.with_extension("txt")), |out| out.write_all(table.as_bytes()))?;
    report(format_args!("\nrecord: {}", path.display()));
    Ok(())
}

/// Where TMPDIR says, else the system's folder for what is large: a disk where /tmp may be memory.
pub(super) fn large_folder() -> PathBuf {
    let large = Path::new("/var/tmp");
    if std::env::var_os("TMPDIR").is_none() && large.is_dir() {
        return large.into();
    }
    std::env::temp_dir()
}

pub(super) fn write(
    path: Option<&Path>,
    content: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> Result<(), String> {
    let Some(path) = path else { return Ok(()) };
    let written = File::create(path).and_then(|file| {
        let mut out = BufWriter::new(file);
        content(&mut out)?;
        out.flush()
    });
    written.map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_has_a_place_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let mut head = Head::new("sotto-bench-kernel/1");
        let outside = record_path(folder.path(), "kernel", &head);
        assert_eq!(outside, folder.path().join("sotto-bench-kernel.json"));
        fs::create_dir_all(folder.path().join(RECORDS)).unwrap();
        head.date = Some("2026-11-28T18:00:35Z".into());
        head.machine.cpu = Some("AMD EPYC 7.5".into());
        head.machine.logical_cpus = 2;
        let below = folder.path().join(RECORDS).join("2026-11-28-amd-epyc-7-5-2-cores");
        let path = record_path(folder.path(), "kernel", &head);
        assert_eq!(path, below.join("kernel.json"));
        keep(&path, &head, "a table\n").unwrap();
        assert_eq!(fs::read_to_string(below.join("kernel.txt")).unwrap(), "a table\n");
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(serde_json::from_str::<Head>(&text).unwrap(), head);
        let second = record_path(folder.path(), "kernel", &head);
        assert_eq!(second, below.join("kernel-2.json"));
    }
}
