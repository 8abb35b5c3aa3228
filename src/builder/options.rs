//! What a build is told.

use std::path::PathBuf;

use super::errors::BuildError;
use super::input::Input;
use crate::limits;
use crate::params::ShapeWishes;
use crate::scheme::Seed;
use crate::wire::parameters::check_database_name;

/// The name of a database that is given none: the same on every machine, so that the same records
/// give the same bytes. An operator who signs several databases with one key names each.
pub const DATABASE_NAME_DEFAULT: &str = "main";

/// Percent of the records that may be missing when no option says how many.
pub const SHRINK_PERCENT_DEFAULT: u8 = 5;

/// The options of a build.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)] // Names say it.
pub struct BuildOptions {
    pub input: Input,
    pub out: PathBuf,
    pub shards: Option<u32>,
    /// Bytes of the value field; the longest value is one byte shorter.
    pub value_bytes: Option<u32>,
    /// Pack rows and packs.
    pub wishes: ShapeWishes,
    pub seed: Option<Seed>,
    /// The database's name; that of the database that is there, or [`DATABASE_NAME_DEFAULT`].
    pub database: Option<String>,
    /// Days for which clients accept what is signed: 1 to [`limits::EXPIRES_DAYS_MAX`].
    pub expires_days: u32,
    /// File of the operator's key; [`super::keys::default_path`] when `None`.
    pub signing_key: Option<PathBuf>,
    /// Threads; all cores when `None`.
    pub jobs: Option<usize>,
    /// Chooses shard count and shape of an existing database again; it keeps its seed and name.
    pub reshape: bool,
    /// Discards an interrupted build, which else goes on with the same arguments and input.
    pub restart: bool,
    /// Percent of an existing database's records that the input may lack: 0 to 100.
    pub shrink_percent: u8,
    /// Unix seconds to write down; the environment's SOURCE_DATE_EPOCH or the clock when `None`.
    pub created: Option<u64>,
}

impl BuildOptions {
    /// Options with every size chosen by rule.
    pub fn new(input: Input, out: PathBuf) -> Self {
        Self {
            input,
            out,
            shards: None,
            value_bytes: None,
            wishes: ShapeWishes::default(),
            seed: None,
            database: None,
            expires_days: limits::EXPIRES_DAYS_DEFAULT,
            signing_key: None,
            jobs: None,
            reshape: false,
            restart: false,
            shrink_percent: SHRINK_PERCENT_DEFAULT,
            created: None,
        }
    }
}

/// Refuses `after` records where there were `before`, if more than `percent` of them are missing.
pub(super) fn check_loss(percent: u8, before: u64, after: u64) -> Result<(), BuildError> {
    let kept_min = u128::from(before) * u128::from(100 - percent.min(100));
    if u128::from(after) * 100 >= kept_min {
        return Ok(());
    }
    Err(BuildError::Shrinks { before, after, percent })
}

/// Refuses a name that no database can have.
pub(super) fn check_name(database: &str) -> Result<(), BuildError> {
    check_database_name(database).map_err(|error| {
        let problem = format!("--database is {}, expected {}", error.found, error.expected);
        BuildError::Option(problem)
    })
}
