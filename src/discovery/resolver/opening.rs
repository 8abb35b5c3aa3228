//! What the answers of a call say, once the last one is there: decoded, opened and verified.
//!
//! Its time depends on outcomes. Nothing is sent any more when it begins, and the next times of all
//! batches are drawn before.

use super::report::Finding;
use super::state::{Said, StoredAnswer};
use crate::client::device::DeviceBatch;
use crate::client::{Answers, LookupError, Outcome};
use crate::discovery::blind::Derived;
use crate::discovery::directory::Directory;
use crate::discovery::identifier::Identifier;
use crate::discovery::open::{open, open_sealed};

/// A contact of a batch, as opening its record takes it.
pub(super) struct Member {
    pub(super) contact: Identifier,
    pub(super) derived: Option<Derived>,
}

/// A batch that is over, and who is in its slots; none for dummies.
pub(super) struct Closed {
    pub(super) database: String,
    pub(super) index: usize,
    pub(super) batch: Option<DeviceBatch>,
    pub(super) members: Vec<Option<Member>>,
    pub(super) reason: Option<String>,
}

/// What the answers of a batch said, slot by slot; none for dummies.
pub(super) struct Opened {
    pub(super) database: String,
    pub(super) index: usize,
    pub(super) answers: Vec<Option<Result<(StoredAnswer, Finding), String>>>,
}

/// Decodes the answers of all batches in constant time, and then looks at them.
pub(super) fn open_all(closed: Vec<Closed>, directory: &Directory, now: u64) -> Vec<Opened> {
    let decoded: Vec<_> = closed
        .into_iter()
        .map(|mut closed| (closed.batch.take().map(DeviceBatch::finish), closed))
        .collect();
    let open_one = |(answers, closed): (Option<Answers>, Closed)| {
        let Closed { database, index, members, reason, .. } = closed;
        let outcomes: Vec<Option<Result<Outcome, LookupError>>> = match answers {
            Some(answers) => answers.open().into_iter().map(Some).collect(),
            None => vec![None; members.len()],
        };
        let open_slot = |(member, outcome): (Option<Member>, Option<Result<_, LookupError>>)| {
            let member = member?;
            Some(match outcome {
                Some(Ok(outcome)) => {
                    let stored = stored(outcome, now);
                    let finding = member.finding(&stored, directory, now);
                    Ok((stored, finding))
                }
                Some(Err(error)) => Err(error.to_string()),
                None => Err(reason.clone().unwrap_or_else(|| "the call ended".into())),
            })
        };
        let answers = members.into_iter().zip(outcomes).map(open_slot).collect();
        Opened { database, index, answers }
    };
    decoded.into_iter().map(open_one).collect()
}

fn stored(outcome: Outcome, asked: u64) -> StoredAnswer {
    let (said, value) = match outcome {
        Outcome::Found(value) => (Said::Found, value),
        Outcome::Absent => (Said::Absent, Vec::new()),
        Outcome::Invalid => (Said::Invalid, Vec::new()),
    };
    StoredAnswer { asked, said: said.into(), value }
}

impl Member {
    /// What an answer means: a record that was found is opened and verified.
    pub(super) fn finding(
        &self,
        stored: &StoredAnswer,
        directory: &Directory,
        now: u64,
    ) -> Finding {
        let opened = match stored.said() {
            Said::Absent => return Finding::Absent,
            Said::Invalid => return Finding::Invalid,
            Said::Found => match &self.derived {
                Some(derived) => open_sealed(&self.contact, derived, &stored.value, directory, now),
                None => open(&self.contact, &stored.value, directory, now),
            },
        };
        opened.map_or_else(Finding::Refused, |contact| Finding::Found(Box::new(contact)))
    }
}
