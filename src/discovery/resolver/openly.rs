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
use crate::discovery::open::{OpenError, open};
use crate::discovery::sealed::SealedError;
use crate::discovery::sealed::capsule::InnerRequest;
use crate::discovery::sealed::resolve::{
    Form, RESOLVE_PATH, RESOLVE_TYPE, Resolution, ResolveRequest, Told, decode_reply, groups,
    message_bytes,
};
use crate::limits::{CONTACTS_MAX, RELAY_EVALUATE_REPLY_BYTES_MAX};

const WHAT: &str = "request to resolve";

/// What became of a contact that the front-end was told: what it said, verified, or its reason why
/// it said nothing or refuses the record.
type Opened = Result<Finding, String>;

impl Resolver {
    /// Has the front-end look contacts up, which then knows them. Only a front-end that was started
    /// with `--resolve` does it. Nothing of it is kept, not even in the state file. In the place
    /// of a contact is what was found, verified by this device, or the front-end's reason why it
    /// has no answer or refuses the record.
    ///
    /// # Errors
    /// Why there are no answers.
    pub async fn resolve_openly(
        &mut self,
        contacts: &[Identifier],
    ) -> Result<Vec<Result<Finding, String>>, ResolveError> {
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

    async fn ask_openly(&mut self, contacts: &[Identifier]) -> Result<Vec<Opened>, ResolveError> {
        let directory = self.fetch_directory().await?;
        let mut told = Vec::with_capacity(contacts.len());
        for group in groups(contacts) {
            told.append(&mut self.ask_group(group).await?);
        }
        let (contacts, now) = (contacts.to_vec(), self.exchange.now());
        let open_all = move || -> Vec<Opened> {
            let told = contacts.iter().zip(told);
            told.map(|(contact, told)| opened(contact, told, &directory, now)).collect()
        };
        let opened = compute(open_all).await?;
        for opened in &opened {
            match opened {
                Ok(finding) => self.report.count_finding(finding),
                Err(reason) => self.report.count_failed(reason.clone()),
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
fn opened(contact: &Identifier, told: Told, directory: &Directory, now: u64) -> Opened {
    let record = told.record_bytes();
    Ok(match (told.result, record) {
        (Resolution::Found, Some(record)) => match open(contact, &record, directory, now) {
            Ok(contact) => Finding::Found(Box::new(contact)),
            Err(error) => Finding::Refused(error),
        },
        (Resolution::Found, None) => Finding::Refused(OpenError::Unreadable("record")),
        (Resolution::Absent, _) => Finding::Absent,
        (Resolution::Invalid, _) => Finding::Invalid,
        (Resolution::Refused | Resolution::Failed, _) => {
            let detail = told.detail.as_deref().unwrap_or("the front-end gives no reason");
            return Err(detail.chars().filter(|c| !c.is_control()).collect());
        }
    })
}
