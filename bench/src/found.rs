//! Records in files: which one it is, and finding them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use crate::load::report::{Report, SCHEMA as LOAD_SCHEMA};
use crate::record::{BUILD_SCHEMA, Build, RELOAD_SCHEMA, Reload, STARTUP_SCHEMA, Startup};
use crate::record::{Content, Head, Machine, ShapeFacts};
use crate::record::{GPU_SCHEMA, Gpu, KERNEL_SCHEMA, Kernel};

/// One of all kinds of records, each named as the command that writes it.
#[derive(Debug, serde::Serialize)]
#[serde(untagged)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Record {
    Load(Box<Report>),
    Kernel(Box<Kernel>),
    Gpu(Box<Gpu>),
    Build(Box<Build>),
    Startup(Box<Startup>),
    Reload(Box<Reload>),
}

/// A record and the file that holds it.
#[derive(Debug)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Found {
    pub path: PathBuf,
    pub record: Record,
}

impl Record {
    /// Reads one.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text =
            sotto::text::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        Self::parse(&text).map_err(|why| format!("{}: {why}", path.display()))
    }

    fn parse(text: &str) -> Result<Self, String> {
        #[derive(serde::Deserialize)]
        struct Named {
            schema: Option<String>,
        }
        let named: Named = parse(text)?;
        Ok(match named.schema.as_deref() {
            Some(LOAD_SCHEMA) => Self::Load(parse(text)?),
            Some(KERNEL_SCHEMA) => Self::Kernel(parse(text)?),
            Some(GPU_SCHEMA) => Self::Gpu(parse(text)?),
            Some(BUILD_SCHEMA) => Self::Build(parse(text)?),
            Some(STARTUP_SCHEMA) => Self::Startup(parse(text)?),
            Some(RELOAD_SCHEMA) => Self::Reload(parse(text)?),
            other => {
                let found = other.map_or("no schema".into(), |name| format!("schema {name:?}"));
                return Err(format!(
                    "found {found}, expected a record of this program's `bench` ({KERNEL_SCHEMA}, \
                     {GPU_SCHEMA}, {LOAD_SCHEMA}, {BUILD_SCHEMA}, {STARTUP_SCHEMA} or \
                     {RELOAD_SCHEMA}): measure again with this version"
                ));
            }
        })
    }

    /// Which of these, in one word: the name of its schema without program and version.
    pub fn kind(&self) -> &str {
        let schema = &*self.head().schema;
        let kind = schema.strip_prefix("sotto-bench-").unwrap_or(schema);
        kind.split('/').next().unwrap_or(kind)
    }

    /// What it begins with.
    pub fn head(&self) -> &Head {
        match self {
            Self::Load(record) => &record.head,
            Self::Kernel(record) => &record.head,
            Self::Gpu(record) => &record.head,
            Self::Build(record) => &record.head,
            Self::Startup(record) => &record.head,
            Self::Reload(record) => &record.head,
        }
    }

    /// How many shards it was measured with, and of which shape.
    pub(crate) fn shards(&self) -> (u64, &ShapeFacts) {
        let of = |content: &'_ Content| u64::from(content.shards);
        match self {
            Self::Load(record) => (record.server.shards.into(), &record.server.shape),
            Self::Kernel(record) => (1, &record.shape),
            Self::Gpu(record) => (record.traffic.shards as u64, &record.shape),
            Self::Build(record) => (of(&record.content), &record.content.shape),
            Self::Startup(record) => (of(&record.content), &record.content.shape),
            Self::Reload(record) => (of(&record.content), &record.content.shape),
        }
    }

    /// Where it was measured.
    pub fn machine(&self) -> &Machine {
        &self.head().machine
    }
}

impl Found {
    /// Reads files, and all records in folders and below, which may hold other things too; by path.
    pub fn all(paths: &[PathBuf]) -> Result<Vec<Self>, String> {
        let mut found = Vec::new();
        for path in paths {
            if path.is_dir() {
                Self::below(path, &mut found)?;
            } else {
                found.push(Self { path: path.clone(), record: Record::read(path)? });
            }
        }
        Ok(found)
    }

    fn below(folder: &Path, found: &mut Vec<Self>) -> Result<(), String> {
        let entries = fs::read_dir(folder);
        let paths: io::Result<Vec<PathBuf>> =
            entries.and_then(|all| all.map(|entry| Ok(entry?.path())).collect());
        let mut paths = paths.map_err(|error| format!("{}: {error}", folder.display()))?;
        paths.sort();
        for path in paths {
            if path.is_dir() {
                Self::below(&path, found)?;
            } else if path.extension().is_some_and(|extension| extension == "json") {
                let text = sotto::text::read(&path);
                let text = text.map_err(|error| format!("{}: {error}", path.display()))?;
                // Other programs' files, and records of versions before, are left out.
                found.extend(Record::parse(&text).ok().map(|record| Self { path, record }));
            }
        }
        Ok(())
    }

    /// Of all that have kind, file name and machine in common, the one that was measured last.
    pub fn newest(records: Vec<Self>) -> Vec<Self> {
        let mut kept: Vec<Self> = Vec::new();
        for found in records {
            let head = found.record.head();
            let is_like = |other: &&mut Self| {
                let other_head = other.record.head();
                (&other_head.schema, other.path.file_name(), other_head.machine.name())
                    == (&head.schema, found.path.file_name(), head.machine.name())
            };
            match kept.iter_mut().find(is_like) {
                Some(other) if other.record.head().date > head.date => {}
                Some(other) => *other = found,
                None => kept.push(found),
            }
        }
        kept
    }
}

fn parse<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    let expected = "expected a whole record as it was written";
    serde_json::from_str(text).map_err(|error| format!("found {error}, {expected}"))
}

#[cfg(test)]
impl Record {
    /// One of bench/record, by the name of its variant.
    pub(crate) fn sample(kind: &str) -> Self {
        let file = match kind {
            "Load" => "2026-11-28-amd-epyc-2-cores/load-standard",
            "Kernel" => "2026-11-28-amd-epyc-2-cores/kernel",
            "Gpu" => "2026-11-29-nvidia-h200-gpu/gpu",
            "Build" => "2026-11-28-amd-epyc-2-cores/build-standard",
            "Startup" => "2026-11-28-amd-epyc-2-cores/startup-standard",
            "Reload" => "2026-11-28-amd-epyc-2-cores/reload-standard",
            other => panic!("no sample of {other}"),
        };
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("record");
        Self::read(&folder.join(file).with_extension("json")).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_record_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("some.json");
        let read = |text: &str| {
            fs::write(&path, text).unwrap();
            Record::read(&path).unwrap_err()
        };
        assert!(read("").contains("EOF"));
        assert!(read("{}").contains("found no schema, expected a record"));
        assert!(read(r#"{"schema": "sotto-bench-load/1"}"#).contains("\"sotto-bench-load/1\""));
        assert!(read(r#"{"schema": "sotto-bench-build/1"}"#).contains("missing field"));
        let only = [folder.path().to_owned()];
        assert!(Found::all(&only).unwrap().is_empty(), "folders hold other things too");
        assert!(Found::all(&[path.with_extension("gone")]).is_err());
    }
}
