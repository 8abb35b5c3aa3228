//! What measurements share: how much is measured, noise in the form of queries and shards, and
//! numbers as they are written down.

pub(crate) mod noise;
pub(crate) mod report;

/// How much is measured.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effort {
    Full,
    Quick,
    Test,
}

impl Effort {
    pub(crate) fn name(self) -> &'static str {
        self.pick("full", "quick", "test")
    }

    pub(crate) fn pick<T>(self, full: T, quick: T, test: T) -> T {
        match self {
            Self::Full => full,
            Self::Quick => quick,
            Self::Test => test,
        }
    }
}
