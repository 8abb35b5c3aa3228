//! Who may append what: a TOML file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;

use super::errors::ServeError;
use crate::limits::log::CALLERS_BYTES_MAX;
use crate::shard::files::read_text;

/// Who may append what: by the DNS name of the certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Callers {
    /// For each name, what it may append.
    #[serde(default)]
    pub callers: BTreeMap<String, Allowed>,
}

/// What a caller may append.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Allowed {
    /// Statements: a registrar.
    #[serde(default)]
    pub statements: bool,
    /// Manifests of these databases: their operator.
    #[serde(default)]
    pub databases: BTreeSet<String>,
}

/// Reads the file.
pub(super) fn read_callers(path: &Path) -> Result<Callers, ServeError> {
    let wrong = |why: String| ServeError::Callers { path: path.to_owned(), why };
    let text = read_text(path, CALLERS_BYTES_MAX).map_err(|error| wrong(error.to_string()))?;
    toml::from_str(&text).map_err(|error| wrong(error.message().to_owned()))
}
