//! Which codes may be sent: number types, countries, budgets, rates and conversion.
//!
//! [`Fraud::admit`] decides before anything is sent and counts what it admits in the transaction
//! that stores the request; what is refused changes nothing in the database. The rules, in their
//! order:
//!
//! | rule | applies to | refusal |
//! |---|---|---|
//! | the provider has rules | all | 403 `fraud_provider` |
//! | the channel suits the identifier | all | 403 `fraud_channel` |
//! | number type: mobile or maybe mobile, calls also fixed | numbers | 403 `fraud_number_type` |
//! | country that the provider declared | numbers | 403 `fraud_country` |
//! | conversion by provider and prefix, domain, country or email | all | 429 `fraud_closed` |
//! | 20 an hour a prefix, 1 000 a domain, over all | not large domains | 429 `fraud_rate` |
//! | messages a day of the provider | all | 429 `fraud_messages` |
//! | money a day of the provider | all | 429 `fraud_money` |
//!
//! A call may go to a fixed line, since the number of one identifies a person too; calls to
//! internet telephony, premium, toll-free and shared numbers, to pagers and to numbers of no known
//! type are refused as messages are. Prices of email are one number. Large mail domains ([`Rules`])
//! have no rate by the hour: the budget and the conversion bound them.
//!
//! Hours and days begin on the clock's full hour and at midnight UTC. Conversion: a code that was
//! sent five to ten minutes ago and not entered counts against the sender. The message that finds
//! that too few were entered is the last one; then it is closed for an hour, and the sample begins
//! again when it reopens. Each further closing within a week lasts twice as long, up to a day.
//!
//! Prefixes and domains are stored as HMAC with a key of the registrar, never by themselves, and
//! rows are deleted after two days (closings: a week) by [`Fraud::purge`].
//!
//! What it does not do: codes by identifier (3 an hour) are the registrar's, and what a number is
//! worth to whom is not known here. [`Recycling`] asks a carrier whether a number changed hands.

mod attempt;
mod counters;
mod counts;
mod errors;
mod plan;
mod recycling;
mod refusal;
mod rules;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use crate::https::Sample;
use crate::registrar::store::Failed;
use sqlx::AnyConnection;
use zeroize::Zeroizing;

pub use attempt::Attempt;
use counters::Counters;
pub use errors::{RecyclingError, RulesError};
pub use recycling::Recycling;
use refusal::Stopped;
use rules::Config;
pub use rules::{ApRules, Rules};

/// Tables of this part: (number, name, SQL).
pub const MIGRATIONS: &[(i64, &str, &str)] =
    &[(10, "fraud", include_str!("migrations/10_fraud.sql"))];

/// Decides whether codes are sent. Clones share their counters and rules.
#[derive(Clone)]
pub struct Fraud(Arc<Shared>);

struct Shared {
    /// Names prefixes and domains in the database.
    key: Zeroizing<[u8; 32]>,
    config: RwLock<Arc<Config>>,
    counters: Counters,
}

impl Fraud {
    /// With the rules for all and those of each application provider, by its domain. `key` names
    /// prefixes and domains in rows: with another key, the counts of the last days are not found.
    ///
    /// # Errors
    /// A rule has a value that it cannot have.
    pub fn new(
        rules: Rules,
        aps: BTreeMap<String, ApRules>,
        key: Zeroizing<[u8; 32]>,
    ) -> Result<Self, RulesError> {
        let config = RwLock::new(Arc::new(Config::new(rules, aps)?));
        Ok(Self(Arc::new(Shared { key, config, counters: Counters::default() })))
    }

    /// Decides by these rules from now on; counts stay. Nothing changes if one of them is wrong.
    ///
    /// # Errors
    /// As for [`Fraud::new`].
    pub fn replace(&self, rules: Rules, aps: BTreeMap<String, ApRules>) -> Result<(), RulesError> {
        let config = Arc::new(Config::new(rules, aps)?);
        *self.0.config.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    fn config(&self) -> Arc<Config> {
        self.0.config.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Admits a code that is about to be sent and counts it, within the transaction that stores the
    /// request, as its last step: rows of counters are locked until the transaction ends.
    ///
    /// # Errors
    /// A typed refusal.
    pub async fn admit(
        &self,
        db: &mut AnyConnection,
        attempt: &Attempt<'_>,
        now: u64,
    ) -> Result<(), Failed> {
        match self.decide(db, attempt, now).await {
            Ok(()) => {
                self.0.counters.admitted(attempt.channel);
                Ok(())
            }
            Err(Stopped::Refused(refused)) => {
                self.0.counters.refused(refused.why, attempt.channel);
                Err(refused.problem(attempt.channel).into())
            }
            Err(Stopped::Failed(failed)) => Err(failed),
        }
    }

    async fn decide(
        &self,
        db: &mut AnyConnection,
        attempt: &Attempt<'_>,
        now: u64,
    ) -> Result<(), Stopped> {
        let config = self.config();
        let plan = plan::plan(&config, &self.0.key, attempt)?;
        let seen = counts::look(db, &plan, now).await?;
        let closing = seen.closings(&config, &plan, now)?;
        if let Some(rate) = &plan.rate {
            counts::count_rate(db, rate, now).await?;
        }
        counts::count_sent(db, &plan, now).await?;
        for (kind, closing) in closing {
            counts::close(db, closing, now).await?;
            self.0.counters.closed(kind);
        }
        // The row that most others wait for is locked last.
        counts::count_budget(db, &plan, seen.used, now).await
    }

    /// Counts that a code which was sent was entered, within that transaction.
    ///
    /// # Errors
    /// The database.
    pub async fn entered(
        &self,
        db: &mut AnyConnection,
        attempt: &Attempt<'_>,
        now: u64,
    ) -> Result<(), Failed> {
        let scopes = plan::scopes(&self.config(), &self.0.key, attempt);
        counts::count_entered(db, &scopes, now).await
    }

    /// Deletes what is not needed any more, and what a wrong clock has counted in a time to come.
    /// Says how many rows those were.
    ///
    /// # Errors
    /// The database.
    pub async fn purge(&self, db: &mut AnyConnection, now: u64) -> Result<u64, Failed> {
        counts::purge(db, now).await
    }

    /// What was admitted and refused, for an exporter.
    pub fn samples(&self) -> Vec<Sample> {
        self.0.counters.samples()
    }
}
