//! Why a log, or something that is said to be from it, is refused.

/// Why a checkpoint, a proof or a log is refused. No message contains an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // Names and messages say it.
pub enum LogError {
    #[error("{what} of a log has {found}, expected {expected}")]
    Malformed { what: &'static str, found: String, expected: &'static str },
    #[error(
        "this is from another log, or signed by another key, than the directory names: expected \
         key id {expected}; do not use it, and tell the operator of the database"
    )]
    AnotherKey { expected: String },
    #[error(
        "the signature does not hold under the log's key: the bytes were changed, or are not from \
         this log; fetch them again, and tell the operator of the log if that does not help"
    )]
    Forged,
    #[error(
        "the directory names another key of the log than before: a log keeps its key; tell the \
         operator of the directory, and do not use this database meanwhile"
    )]
    KeyChanged,
    #[error(
        "the log goes back: found {found} entries, expected at least the {seen} that it had \
         before; tell others, for entries were removed"
    )]
    GoesBack { seen: u64, found: u64 },
    #[error(
        "the log forks: it signed a tree whose first {size} entries differ from those that it \
         signed before; keep both checkpoints and publish them, for they prove it"
    )]
    Forked { size: u64 },
    #[error(
        "the log has another manifest of epoch {epoch} than this server shows: found a database \
         that others do not see; do not use it, and tell its operator"
    )]
    OtherManifest { epoch: u64 },
    #[error(
        "there is no proof of epoch {epoch}: found proofs up to epoch {newest}, expected one of \
         it; ask again later, and tell the operator if it stays so"
    )]
    NoProof { epoch: u64, newest: u64 },
    #[error(
        "the proofs begin at {first} entries, expected to begin where this device was, at {seen}: \
         it was away for longer than they cover; ask the operator for the file of older proofs"
    )]
    Gap { seen: u64, first: u64 },
}

impl LogError {
    pub(super) fn malformed(
        what: &'static str,
        found: impl Into<String>,
        expected: &'static str,
    ) -> Self {
        Self::Malformed { what, found: found.into(), expected }
    }
}
