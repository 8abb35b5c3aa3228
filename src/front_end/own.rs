//! Look-ups of the front-end's own: canaries ([`super::canary`]) and what devices ask openly
//! ([`super::rounds`]).
//!
//! The rule on secrets holds as for every client: secrets are drawn for queries that are encrypted
//! once, in one step, and nothing is encrypted under them later. A query that was refused or whose
//! epoch is gone is lost, not made again. The pool of secrets is sealed after the last answer, and
//! only then decoded.

use std::sync::Arc;

use tokio::time::{Instant, timeout_at};

use super::bundles::Bundle;
use super::epochs::Epoch;
use super::mix::{Answer, PooledDatabase, Query};
use crate::keyword::{Location, Outcome, band, extract};
use crate::limits;
use crate::scheme::{QueryId, SecretError, SecretPool, Sharing};
use crate::wire::{Bytes, Uid};

/// Where a key is looked up: on the heap, so that no copy stays behind when it moves.
pub(super) type Place = Box<Location>;

/// An answer, with all packs' hints.
pub(super) type Answered = (Answer, Vec<u8>);

/// Queries that were encrypted in one step. Neither Clone nor Debug.
pub(super) struct OwnQueries {
    epoch: Arc<Epoch>,
    secrets: SecretPool,
    asked: Vec<(Place, QueryId)>,
}

impl OwnQueries {
    /// Encrypts look-ups of these places, under secrets that are drawn for them.
    pub(super) fn encrypt(
        epoch: Arc<Epoch>,
        places: Vec<Place>,
        sharing: Sharing,
    ) -> Result<Self, SecretError> {
        let parameters = &epoch.parameters;
        let shape = *parameters.shape();
        let ribbon_seed = |shard| {
            parameters.ribbon_seed(shard).expect("this is a bug: located beyond the last shard")
        };
        let selection =
            |place: &Place| (place.shard, band(&place.identity, ribbon_seed(place.shard), &shape));
        let selections: Vec<_> = places.iter().map(selection).collect();
        let mut secrets = SecretPool::new(*parameters.seed(), shape);
        let queries = secrets.encrypt(&selections, sharing)?;
        let asked = places.into_iter().zip(queries).collect();
        Ok(Self { epoch, secrets, asked })
    }

    /// What goes out for a look-up.
    fn query(&self, index: usize, deadline: Instant, only: Option<usize>) -> Option<Query> {
        let (place, query) = &self.asked[index];
        let (vector, bundle) =
            self.secrets.vector(*query).ok().zip(self.secrets.bundle(*query).ok())?;
        let (uid, bytes) = (Uid::parse(bundle.0).ok()?, Bytes::from_owner(bundle.1));
        let (shard, epoch) = (place.shard, self.epoch.clone());
        let bundle = Arc::new(Bundle::new(uid, bytes));
        Some(Query { shard, epoch, vector, bundle, deadline, only, _room: None })
    }

    /// Has all of them answered, by one server alone where it is named. None for a look-up that has
    /// no answer when the time is over.
    pub(super) async fn ask(
        &self,
        database: &PooledDatabase,
        deadline: Instant,
        only: Option<usize>,
    ) -> Vec<Option<Answered>> {
        let mut sent = Vec::with_capacity(self.asked.len());
        for index in 0..self.asked.len() {
            let hint = database.hint(&self.epoch, self.asked[index].0.shard);
            let query = self.query(index, deadline, only);
            sent.push((query.map(|query| database.ask(query)), hint));
        }
        let mut answers = Vec::with_capacity(sent.len());
        for (answer, hint) in sent {
            let answer = match answer {
                Some(answer) => timeout_at(deadline + limits::POOL_DEADLINE_GRACE, answer).await,
                None => {
                    answers.push(None);
                    continue;
                }
            };
            let answer = answer.ok().and_then(Result::ok).and_then(Result::ok);
            let hint = match hint {
                Some(hint) => hint.get(deadline).await,
                None => None,
            };
            answers.push(answer.zip(hint).map(|(answer, hint)| (answer, hint.concat())));
        }
        answers
    }

    /// Ends encryption for good and decodes all packs of all answers. What each look-up ends in,
    /// with the server that answered; none without an answer.
    pub(super) fn open(self, answers: Vec<Option<Answered>>) -> Vec<Option<(usize, Outcome)>> {
        let (decoder, shape) = (self.secrets.seal(), *self.epoch.parameters.shape());
        let open_one = |((place, query), answer): ((Place, QueryId), Option<Answered>)| {
            let (Answer { response, server }, hints) = answer?;
            let response = &response.encrypted_response;
            let decoded = decoder.decode(query, &shape, response, &hints).ok()?;
            Some((server, extract(&decoded, &place, &shape).outcome()))
        };
        self.asked.into_iter().zip(answers).map(open_one).collect()
    }
}
