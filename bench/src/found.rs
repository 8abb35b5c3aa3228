//! Records in files: which one it is, and finding them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use crate::load::report::{Report, SCHEMA as LOAD_SCHEMA};
use crate::record::{BUILD_SCHEMA, Build, RELOAD_SCHEMA, Reload, STARTUP_SCHEMA, Startup};
use crate::record::{GPU_SCHEMA, Gpu, KERNEL_SCHEMA, Kernel};
use crate::record::{Head, Machine};

/// One of all kinds of records.
#[derive(Debug)]
pub enum Record {
    /// `sotto-bench load`.
    Load(Box<Report>),
    /// `sotto-bench kernel`.
    Kernel(Box<Kernel>),
    /// `sotto-bench gpu`.
    Gpu(Box<Gpu>),
    /// `sotto-bench build`.
    Build(Box<Build>),
    /// `sotto-bench startup`.
    Startup(Box<Startup>),
    /// `sotto-bench reload`.
    Reload(Box<Reload>),
}

/// Why there is no record.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It is none of ours.
    #[error(
        "{}: found {found}, expected a record of this program's `bench` ({KERNEL_SCHEMA}, \
         {GPU_SCHEMA}, {LOAD_SCHEMA}, {BUILD_SCHEMA}, {STARTUP_SCHEMA} or {RELOAD_SCHEMA}): \
         measure again with this version", path.display()
    )]
    Schema {
        /// Which.
        path: PathBuf,
        /// What it says it is.
        found: String,
    },
    /// It is not what its name promises.
    #[error("{}: found {source}, expected a whole record as it was written", path.display())]
    Content {
        /// Which.
        path: PathBuf,
        /// Where it ends being one.
        source: serde_json::Error,
    },
}

/// A record and where it lies.
#[derive(Debug)]
pub struct Found {
    /// Its file.
    pub path: PathBuf,
    /// What it says.
    pub record: Record,
}

impl Record {
    /// Reads one.
    pub fn read(path: &Path) -> Result<Self, RecordError> {
        let read = sotto::text::read(path);
        let text = read.map_err(|source| RecordError::Io { path: path.into(), source })?;
        #[derive(serde::Deserialize)]
        struct Named {
            schema: Option<String>,
        }
        let named: Named = parse(path, &text)?;
        Ok(match named.schema.as_deref() {
            Some(LOAD_SCHEMA) => Self::Load(parse(path, &text)?),
            Some(KERNEL_SCHEMA) => Self::Kernel(parse(path, &text)?),
            Some(GPU_SCHEMA) => Self::Gpu(parse(path, &text)?),
            Some(BUILD_SCHEMA) => Self::Build(parse(path, &text)?),
            Some(STARTUP_SCHEMA) => Self::Startup(parse(path, &text)?),
            Some(RELOAD_SCHEMA) => Self::Reload(parse(path, &text)?),
            other => {
                let found = other.map_or("no schema".into(), |name| format!("schema {name:?}"));
                return Err(RecordError::Schema { path: path.into(), found });
            }
        })
    }

    /// Which of these, in one word: the name of its form without program and version.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Load(_) => "load",
            Self::Kernel(_) => "kernel",
            Self::Gpu(_) => "gpu",
            Self::Build(_) => "build",
            Self::Startup(_) => "startup",
            Self::Reload(_) => "reload",
        }
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

    /// Where it was measured.
    pub fn machine(&self) -> &Machine {
        &self.head().machine
    }
}

impl Found {
    /// Reads files, and all records in folders and below, which may hold other things too; by path.
    pub fn all(paths: &[PathBuf]) -> Result<Vec<Self>, RecordError> {
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

    fn below(folder: &Path, found: &mut Vec<Self>) -> Result<(), RecordError> {
        let io = |source| RecordError::Io { path: folder.into(), source };
        let entries = fs::read_dir(folder).map_err(io)?;
        let paths: Result<Vec<_>, _> = entries.map(|entry| Ok(entry?.path())).collect();
        let mut paths = paths.map_err(io)?;
        paths.sort();
        for path in paths {
            if path.is_dir() {
                Self::below(&path, found)?;
            } else if path.extension().is_some_and(|extension| extension == "json") {
                match Record::read(&path) {
                    Ok(record) => found.push(Self { path, record }),
                    // Other programs' files, and records of versions before.
                    Err(RecordError::Schema { .. } | RecordError::Content { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }
}

fn parse<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, RecordError> {
    serde_json::from_str(text).map_err(|source| RecordError::Content { path: path.into(), source })
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
            Record::read(&path).unwrap_err().to_string()
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
