//! Contacts that the front-end is told: it looks them up itself, and this device verifies what it
//! says. For whoever trusts the front-end; it learns every identifier, still without an account if
//! the relay is another party's. A contact takes some hundred bytes.
//!
//! As everywhere here, all is sent before anything that came is looked at.

use super::Resolver;
use super::ask::{compute, expect_ok};
use super::errors::ResolveError;
use super::exchange::Kind;
use super::report::{Finding, Report};
use crate::discovery::directory::Directory;
use crate::discovery::identifier::Identifier;
use crate::discovery::open::{Contact, OpenError, open};
use crate::discovery::sealed::SealedError;
use crate::discovery::sealed::capsule::InnerRequest;
use crate::discovery::sealed::resolve::{
    Form, RESOLVE_PATH, RESOLVE_TYPE, Resolution, ResolveRequest, Told, decode_reply, groups,
    message_bytes,
};
use crate::limits::{CONTACTS_MAX, RELAY_EVALUATE_REPLY_BYTES_MAX};

const WHAT: &str = "request to resolve";

/// What became of a contact that the front-end was told. No Debug of it shows a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToldOpenly {
    /// A record that this device verified.
    Found(Box<Contact>),
    /// No database that covers it has a record, or somebody withholds it.
    Absent,
    /// An answer that the front-end could not believe.
    Invalid,
    /// A record that this device refuses.
    Refused(OpenError),
    /// There is no answer, or a record that the front-end refuses, for this reason of its.
    Failed(String),
}

impl Resolver {
    /// Has the front-end look contacts up, which then knows them. Only a front-end that was started
    /// with `--resolve` does it. Nothing of it is kept, not even in the state file.
    ///
    /// # Errors
    /// Why there are no answers. What is wrong with one contact is in its place.
    pub async fn resolve_openly(
        &mut self,
        contacts: &[Identifier],
    ) -> Result<Vec<ToldOpenly>, ResolveError> {
        let (found, max) = (contacts.len(), CONTACTS_MAX);
        if found > max {
            return Err(ResolveError::Contacts { found, max });
        }
        self.report = Report::default();
        self.exchange.traffic.reset();
        let result = self.ask_openly(contacts).await;
        self.exchange.traffic.write_to(&mut self.report);
        result
    }

    async fn ask_openly(
        &mut self,
        contacts: &[Identifier],
    ) -> Result<Vec<ToldOpenly>, ResolveError> {
        let directory = self.fetch_directory().await?;
        if self.exchange.newest_key().is_none() {
            self.exchange.fetch_keys().await?;
        }
        let mut told = Vec::with_capacity(contacts.len());
        for group in groups(contacts) {
            told.append(&mut self.ask_group(group).await?);
        }
        let (contacts, now) = (contacts.to_vec(), self.exchange.now());
        let open_all = move || -> Vec<ToldOpenly> {
            let told = contacts.iter().zip(told);
            told.map(|(contact, told)| opened(contact, told, &directory, now)).collect()
        };
        let opened = compute(open_all).await?;
        for told in &opened {
            match told {
                ToldOpenly::Found(contact) => {
                    self.report.count_finding(&Finding::Found(contact.clone()));
                }
                ToldOpenly::Absent => self.report.count_finding(&Finding::Absent),
                ToldOpenly::Invalid => self.report.count_finding(&Finding::Invalid),
                ToldOpenly::Refused(error) => {
                    self.report.count_finding(&Finding::Refused(error.clone()));
                }
                ToldOpenly::Failed(reason) => self.report.count_failed(reason.clone()),
            }
        }
        Ok(opened)
    }

    /// Asks for contacts that fit into one request.
    async fn ask_group(&self, group: &[Identifier]) -> Result<Vec<Told>, ResolveError> {
        let request = ResolveRequest { identifiers: group.to_vec(), form: Form::Record };
        let request = InnerRequest {
            method: "POST".into(),
            path: RESOLVE_PATH.into(),
            content_type: Some(RESOLVE_TYPE.into()),
            body: request.encode(),
        };
        let (bytes, max) = (message_bytes(&request.body), RELAY_EVALUATE_REPLY_BYTES_MAX);
        // To the relay it is an evaluation.
        let reply = self.exchange.ask(Kind::Evaluate, (&request, bytes), max, &mut false).await?;
        let body = expect_ok(Kind::Evaluate, reply)?;
        let refused =
            |error: SealedError| ResolveError::Reply { what: WHAT, problem: error.to_string() };
        decode_reply(&body, group.len()).map_err(refused)
    }
}

/// What the front-end said of a contact, verified against the directory alone.
fn opened(contact: &Identifier, told: Told, directory: &Directory, now: u64) -> ToldOpenly {
    let record = told.record_bytes();
    let reason = || {
        let detail = told.detail.as_deref().unwrap_or("the front-end gives no reason");
        detail.chars().filter(|c| !c.is_control()).collect()
    };
    match (told.result, record) {
        (Resolution::Found, Some(record)) => match open(contact, &record, directory, now) {
            Ok(contact) => ToldOpenly::Found(Box::new(contact)),
            Err(error) => ToldOpenly::Refused(error),
        },
        (Resolution::Found, None) => ToldOpenly::Refused(OpenError::Unreadable("record")),
        (Resolution::Absent, _) => ToldOpenly::Absent,
        (Resolution::Invalid, _) => ToldOpenly::Invalid,
        (Resolution::Refused | Resolution::Failed, _) => ToldOpenly::Failed(reason()),
    }
}
