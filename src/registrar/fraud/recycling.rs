//! Asks a carrier whether a number changed hands since a day: CAMARA Number Recycling 0.2 and 0.3,
//! `POST …/check` with `phoneNumber` and `specifiedDate`, answered by `phoneNumberRecycled`.
//!
//! It is asked, once a day and outside of any transaction, about stale registrations: whether the
//! number changed hands since it was proved. Then the registration is void at once, and not first
//! after 45 days. A carrier that does not know, is slow or fails changes nothing: it is counted,
//! and all goes on as if there was none to ask.
//!
//! It is not asked about a registration with `new_holder`. Before the code is sent, the answer
//! would tell whoever asks whether the number is registered elsewhere. After the right code was
//! entered it would stand between a try that is taken and the statement, for seconds and outside
//! of the transaction; and carriers know of changes days late, so that it would keep the rightful
//! holder out, who has just shown to have the number.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::discovery::identifier::Identifier;
use crate::https::{Client, Counter, Sample};
use crate::shard::files::open_to_others;
use axum::body::Bytes;
use axum::http::{Method, Uri};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use super::errors::{RecyclingError, RulesError};
use super::rules::Rules;
use crate::limits::fraud::{
    RECYCLING_CHECKS_MAX, RECYCLING_REPLY_BYTES_MAX, RECYCLING_TIME, RECYCLING_TOKEN_BYTES_MAX,
};

/// How checks ended.
#[derive(Debug, Clone, Copy)]
enum Outcome {
    Recycled,
    Unchanged,
    NotKnown,
    Failed,
}

impl Outcome {
    const ALL: [(Self, &str); 4] = [
        (Self::Recycled, "recycled"),
        (Self::Unchanged, "unchanged"),
        (Self::NotKnown, "not_known"),
        (Self::Failed, "failed"),
    ];
}

/// A carrier's service, or that of somebody who asks carriers.
pub struct Recycling {
    client: Client,
    url: String,
    token: PathBuf,
    running: Semaphore,
    /// What was counted stays where the rules name another service.
    outcomes: Arc<[Counter; Outcome::ALL.len()]>,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "phoneNumberRecycled")]
    recycled: bool,
}

impl Recycling {
    /// The service that the rules name, if they name one. Reads its files.
    ///
    /// # Errors
    /// The address, the token or the authorities cannot be used.
    pub fn new(rules: &Rules) -> Result<Option<Self>, RulesError> {
        let Some(url) = rules.recycling_check_url.clone() else {
            return Ok(None);
        };
        if let Some(found) = wrong_in(&url) {
            return Err(RulesError::Url { found });
        }
        let token = rules.recycling_check_token.clone().ok_or(RulesError::NoToken)?;
        read_token(&token)?;
        let path = &rules.recycling_check_ca;
        let authorities = |source| RulesError::Authorities { path: path.clone(), source };
        let ca = std::fs::read(path).map_err(authorities)?;
        let client = Client::new(Some(&ca), None, RECYCLING_TIME).map_err(RecyclingError::Https)?;
        let running = Semaphore::new(RECYCLING_CHECKS_MAX);
        Ok(Some(Self { client, url, token, running, outcomes: Arc::default() }))
    }

    /// The service that newer rules name, with the counts of this one.
    ///
    /// # Errors
    /// As for [`Recycling::new`].
    pub fn replaced(&self, rules: &Rules) -> Result<Option<Self>, RulesError> {
        let newer = Self::new(rules)?;
        Ok(newer.map(|newer| Self { outcomes: self.outcomes.clone(), ..newer }))
    }

    /// Whether the number changed hands after the day (UTC) of `since`.
    ///
    /// # Errors
    /// It is not known. The caller goes on as if nobody had been asked.
    pub async fn check(
        &self,
        number: &Identifier,
        since: u64,
        now: u64,
    ) -> Result<bool, RecyclingError> {
        let answer = self.ask(number, since.min(now)).await;
        let outcome = match &answer {
            Ok(true) => Outcome::Recycled,
            Ok(false) => Outcome::Unchanged,
            Err(RecyclingError::NotKnown { .. }) => Outcome::NotKnown,
            Err(_) => Outcome::Failed,
        };
        self.outcomes[outcome as usize].add(1);
        answer
    }

    async fn ask(&self, number: &Identifier, since: u64) -> Result<bool, RecyclingError> {
        number.digits().ok_or(RecyclingError::Address)?;
        let _running = self.running.try_acquire().map_err(|_| RecyclingError::Busy)?;
        // A token is replaced in its file before it expires. It is a few bytes on a local disk.
        let token = read_token(&self.token)?;
        let authorization = Zeroizing::new(format!("Bearer {}", *token));
        let body = json!({ "phoneNumber": number.as_str(), "specifiedDate": date(since) });
        let headers = [
            ("authorization", &**authorization),
            ("content-type", "application/json"),
            ("accept", "application/json"),
        ];
        let (body, max) = (Bytes::from(body.to_string()), RECYCLING_REPLY_BYTES_MAX);
        let reply = self.client.send(Method::POST, &self.url, &headers, body, max).await?;
        match reply.status {
            200 => read(&reply.body).ok_or(RecyclingError::Answer),
            // OUT_OF_RANGE and the like: nothing is said about the number.
            status @ (400 | 404 | 422) => Err(RecyclingError::NotKnown { status }),
            status => Err(RecyclingError::Status { status }),
        }
    }

    /// How checks ended, for an exporter.
    pub fn samples(&self) -> Vec<Sample> {
        let (name, help) = ("registrar_recycling_checks_total", "Checks for recycled numbers.");
        let checks = Outcome::ALL.into_iter().map(|(outcome, text)| {
            let labels = vec![("outcome", text.to_owned())];
            Sample { name, help, labels, value: self.outcomes[outcome as usize].get() as f64 }
        });
        checks.collect()
    }
}

/// Reads one JSON object; serde would take an array for a structure, too.
fn read(body: &[u8]) -> Option<bool> {
    let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
    let answer: Answer = serde_json::from_slice(body).ok().filter(|_| first == Some(&b'{'))?;
    Some(answer.recycled)
}

/// What is wrong with an address. A user in it may be a secret, so it is not said again.
fn wrong_in(url: &str) -> Option<&'static str> {
    let Ok(uri) = url.parse::<Uri>() else { return Some("no URL") };
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    if uri.scheme_str() != Some("https") || authority.is_empty() {
        Some("one that does not begin with https:// and a host")
    } else if authority.contains('@') {
        Some("one with a user")
    } else if uri.query().is_some() || url.contains('#') {
        Some("one with a query or a fragment")
    } else {
        None
    }
}

fn read_token(path: &Path) -> Result<Zeroizing<String>, RecyclingError> {
    let unreadable = |source| RecyclingError::TokenFile { path: path.to_owned(), source };
    let file = File::open(path).map_err(unreadable)?;
    if let Some(mode) = open_to_others(&file.metadata().map_err(unreadable)?) {
        return Err(RecyclingError::TokenOpen { path: path.to_owned(), mode });
    }
    let mut text = Zeroizing::new(String::with_capacity(RECYCLING_TOKEN_BYTES_MAX as usize + 1));
    let wrong = || RecyclingError::Token { path: path.to_owned() };
    let read = file.take(RECYCLING_TOKEN_BYTES_MAX + 1).read_to_string(&mut text);
    read.map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => wrong(),
        _ => unreadable(error),
    })?;
    let token = text.trim_ascii();
    let is_sound = !token.is_empty()
        && text.len() as u64 <= RECYCLING_TOKEN_BYTES_MAX
        && token.bytes().all(|byte| byte.is_ascii_graphic());
    if is_sound { Ok(Zeroizing::new(token.to_owned())) } else { Err(wrong()) }
}

/// The day of a time, UTC, as RFC 3339 writes it. (H. Hinnant, "chrono-compatible low-level date
/// algorithms", `civil_from_days`: years begin in March, so that a leap day is their last.)
fn date(time: u64) -> String {
    let days = time / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
#[path = "recycling_tests.rs"]
mod tests;
