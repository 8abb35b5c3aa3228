//! What one check found.

use serde::Serialize;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    Ok,
    Warn,
    Fail,
}

#[derive(Debug, Serialize)]
pub(super) struct Finding {
    pub(super) check: &'static str,
    pub(super) status: Status,
    pub(super) found: String,
    pub(super) expected: String,
    /// What to do; empty where all is well.
    pub(super) advice: String,
}

impl Finding {
    /// All is well, unless one of the calls below says otherwise.
    pub(super) fn new(
        check: &'static str,
        found: impl Into<String>,
        expected: impl Into<String>,
    ) -> Self {
        let (found, expected) = (found.into(), expected.into());
        Self { check, status: Status::Ok, found, expected, advice: String::new() }
    }

    pub(super) fn warn(self, advice: impl Into<String>) -> Self {
        Self { status: Status::Warn, advice: advice.into(), ..self }
    }

    pub(super) fn warn_if(self, is_wrong: bool, advice: impl Into<String>) -> Self {
        if is_wrong { self.warn(advice) } else { self }
    }

    pub(super) fn fail(self, advice: impl Into<String>) -> Self {
        Self { status: Status::Fail, advice: advice.into(), ..self }
    }

    pub(super) fn fail_if(self, is_wrong: bool, advice: impl Into<String>) -> Self {
        if is_wrong { self.fail(advice) } else { self }
    }
}
