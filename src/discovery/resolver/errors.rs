//! Why a device has no answer. No text carries an identifier, a token, a key or a shard number.

use std::io;
use std::time::Duration;

use crate::client::{ClientError, ParameterError, PinsError};
use crate::discovery::blind::BlindError;
use crate::discovery::directory::DirectoryError;
use crate::discovery::filter::FilterError;
use crate::discovery::log::LogError;
use crate::discovery::sealed::SealedError;
use crate::https::HttpsError;
use crate::scheme::SecretError;

/// Why a [`super::Resolver`] does not open, or why a call ended early. What was answered before is
/// kept in any case, and [`super::Resolver::report`] tells of it.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // The texts say it.
pub enum ResolveError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error("{0}")]
    Randomness(#[from] SecretError),
    #[error("the options are refused: {0}")]
    Options(String),
    #[error("{found} contacts, expected at most {max}: leave some out")]
    Contacts { found: usize, max: usize },
    #[error("the relay is not reached: {0}; check the network, then try again")]
    Unreachable(HttpsError),
    #[error("the relay does not know this account: sign in again, so that there is a new token")]
    Account,
    #[error(
        "this account has used what the relay allows ({kind}): try again in {} s",
        after.as_secs()
    )]
    Quota { kind: String, after: Duration },
    #[error("the relay answers {status} ({detail}): try again later")]
    Relay { status: u16, detail: String },
    #[error("the reply to the {what} is refused: {problem}")]
    Reply { what: &'static str, problem: String },
    #[error(
        "the sealed reply to the {what} cannot be opened: {problem}; the relay, or what is \
         between, cuts replies off or changes them"
    )]
    Changed { what: &'static str, problem: String },
    #[error(transparent)]
    Keys(SealedError),
    #[error(
        "the front-end does not know the key that it signed last: try again later, and tell the \
         provider"
    )]
    KeyUnknown,
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    #[error("the directory has expired or was never fetched: connect to the relay once")]
    NoDirectory,
    #[error("the parameters of database {database} are refused: {error}")]
    Parameters { database: String, error: ParameterError },
    #[error("database {database} contradicts what is known of it: {error}")]
    Pins { database: String, error: PinsError },
    #[error(
        "the directory names another blinding key for database {database} than before: a new key \
         is a new database; tell the operator"
    )]
    BlindingKey { database: String },
    #[error("the epoch of database {database} is refused: {error}")]
    Log { database: String, error: LogError },
    #[error("the routing filter of database {database} is refused: {error}")]
    Filter { database: String, error: FilterError },
    #[error("identifiers of database {database} were not evaluated: {error}")]
    Blind { database: String, error: BlindError },
    #[error("the front-end refuses the {what} with status {status}: {detail}")]
    FrontEnd { what: &'static str, status: u16, detail: String },
    #[error("{0}")]
    Client(#[from] ClientError),
    #[error("the time for this synchronisation is over; the rest is due at the next one")]
    TimeOver,
    #[error("this is a bug: computing failed ({0})")]
    Computing(String),
}

impl ResolveError {
    /// Whether other requests of the same call would end in the same way.
    pub(super) fn ends_the_call(&self) -> bool {
        match self {
            Self::Unreachable(_)
            | Self::Options(_)
            | Self::Account
            | Self::Quota { .. }
            | Self::Relay { .. }
            | Self::Changed { .. }
            | Self::Keys(_)
            | Self::KeyUnknown
            | Self::State(_)
            | Self::Randomness(_)
            | Self::TimeOver
            | Self::Computing(_) => true,
            Self::FrontEnd { status, .. } => *status == 503,
            _ => false,
        }
    }

    /// Whether somebody may be trying to single a device out: a call never succeeds with it.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::Directory(_)
                | Self::Parameters { .. }
                | Self::Pins { .. }
                | Self::BlindingKey { .. }
                | Self::Log { .. }
                | Self::Filter { .. }
                | Self::Blind { .. }
        )
    }
}

/// Why the state of a device cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // The texts say it.
pub enum StateError {
    #[error("cannot {doing} the state {path}: {error}")]
    File { doing: &'static str, path: String, error: io::Error },
    #[error("the state {path} is in use by another resolver: end that one first")]
    InUse { path: String },
    #[error("the state has more than {max} bytes, which no state has")]
    TooLong { max: u64 },
    #[error("the state has {found} bytes, expected at least {expected}: it was cut off")]
    Short { found: usize, expected: usize },
    #[error("the state has version {found}, expected {expected}: update this program")]
    Version { found: u8, expected: u8 },
    #[error(
        "the state cannot be opened: its key is another one, or it was changed. Without it, begin \
         with a new file: contacts are then looked up again in other company, which shows an \
         observer more of them"
    )]
    Unopened,
    #[error("the state was opened, but {0}: this is a bug, report it")]
    Content(&'static str),
}
