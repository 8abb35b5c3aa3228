//! Evaluations: with a blinding key that is held here, or by the front-end of a database's
//! operator.
//!
//! Whoever has the blinding key of a database can test guesses, so usually only its operator has
//! it. Elements are blinded: neither side learns what they stand for. The proof is verified by the
//! device, against the directory.

use std::collections::HashMap;
use std::sync::Arc;

use axum::body::Bytes;
use axum::http::Method;
use tokio::sync::Semaphore;

use super::counters::{Counters, count};
use super::errors::{FrontEndError, Refusal};
use super::placement::Placement;
use super::room::Compute;
use crate::discovery::blind::{BlindError, BlindKey};
use crate::discovery::directory::Directory;
use crate::discovery::sealed::evaluate::{EvaluateRequest, EvaluateResponse};
use crate::https::Client;
use crate::limits::{EVALUATE_BODY_BYTES_MAX, EVALUATIONS_PASSED_ON_MAX, FRONT_END_RETRY_SECONDS};

/// The content type of both messages.
pub(super) const PROTOBUF: &str = "application/x-protobuf";

/// Evaluates, or has others evaluate.
pub(super) struct Evaluator {
    own: HashMap<String, Arc<BlindKey>>,
    /// Where the evaluator of a database is.
    others: HashMap<String, String>,
    client: Option<Client>,
    waiting: Semaphore,
    compute: Compute,
    counters: Arc<Counters>,
}

impl Evaluator {
    /// With these keys of databases; for the other databases of the placement by their evaluators,
    /// asked by `client`.
    ///
    /// # Errors
    /// A key is not that of its database in the directory, or a database that needs an evaluator
    /// cannot have one.
    pub(super) fn new(
        own: HashMap<String, BlindKey>,
        placement: &Placement,
        directory: &Directory,
        client: Option<Client>,
        compute: Compute,
        counters: Arc<Counters>,
    ) -> Result<Self, FrontEndError> {
        for (id, key) in &own {
            let wrong = |what, todo| FrontEndError::Database { id: id.clone(), what, todo };
            let database = directory.database(id).ok_or_else(|| {
                wrong(
                    "there is a blinding key for it, but it is not in the directory",
                    "check the name",
                )
            })?;
            if database.blinding_key.is_none_or(|public| public.0 != key.public_key()) {
                return Err(wrong(
                    "its blinding key is not the one that the directory names",
                    "give the right file: devices refuse what another key evaluated",
                ));
            }
        }
        let mut others = HashMap::new();
        for placed in placement.databases.iter().filter(|placed| !own.contains_key(&placed.id)) {
            let Some(url) = &placed.evaluate else { continue };
            let wrong = |what, todo| FrontEndError::Database { id: placed.id.clone(), what, todo };
            if !url.starts_with("https://") {
                return Err(wrong(
                    "its evaluator is no https:// URL",
                    "correct the placement file",
                ));
            }
            if client.is_none() {
                return Err(wrong(
                    "another front-end evaluates for it, which needs a certificate of this one",
                    "give --client-cert and --client-key",
                ));
            }
            let url = url.trim_end_matches('/');
            let url =
                if url.ends_with("/evaluate") { url.to_owned() } else { format!("{url}/evaluate") };
            others.insert(placed.id.clone(), url);
        }
        let own = own.into_iter().map(|(id, key)| (id, Arc::new(key))).collect();
        let waiting = Semaphore::new(EVALUATIONS_PASSED_ON_MAX);
        Ok(Self { own, others, client, waiting, compute, counters })
    }

    /// The evaluated elements and their proof.
    pub(super) async fn evaluate(
        &self,
        request: EvaluateRequest,
    ) -> Result<EvaluateResponse, Refusal> {
        match self.others.get(&request.database) {
            Some(url) => {
                let response = self.pass_on(url, &request).await;
                let Counters { passed_on, passed_on_failed, .. } = &*self.counters;
                let is_ok = !matches!(response, Err(Refusal::Overloaded { .. }));
                count(if is_ok { passed_on } else { passed_on_failed });
                response
            }
            None => self.evaluate_here(request).await,
        }
    }

    /// The same with a key that is held here, and never by others: so a request does not go round
    /// in circles.
    pub(super) async fn evaluate_here(
        &self,
        request: EvaluateRequest,
    ) -> Result<EvaluateResponse, Refusal> {
        let key = self.own.get(&request.database).ok_or(Refusal::NoDatabase)?.clone();
        let work = move || key.evaluate(&request.elements);
        let evaluated = self.compute.run(work).await;
        let evaluated = evaluated.ok_or(Refusal::Internal("the evaluation did not end"))?;
        let evaluated = evaluated.map_err(|error| match error {
            BlindError::Element { .. } | BlindError::Count { .. } => {
                Refusal::Malformed(error.to_string())
            }
            _ => Refusal::Internal("the evaluation is not possible here"),
        })?;
        let elements = evaluated.elements.try_into();
        let elements = elements.map_err(|_| Refusal::Internal("the evaluation is incomplete"))?;
        count(&self.counters.evaluated);
        Ok(EvaluateResponse { elements, proof: evaluated.proof })
    }

    async fn pass_on(
        &self,
        url: &str,
        request: &EvaluateRequest,
    ) -> Result<EvaluateResponse, Refusal> {
        let away = |why| Refusal::Overloaded { why, seconds: FRONT_END_RETRY_SECONDS };
        let database = &request.database;
        let client = self.client.as_ref().ok_or(away("nobody can be asked"))?;
        let busy = away("too many evaluations wait for the operator of this database");
        let _waiting = self.waiting.try_acquire().map_err(|_| busy)?;
        let (headers, body) = ([("content-type", PROTOBUF)], Bytes::from(request.encode()));
        let sent = client.send(Method::POST, url, &headers, body, EVALUATE_BODY_BYTES_MAX).await;
        let reply = sent.map_err(|error| {
            tracing::warn!(database, %error, "an evaluator does not answer");
            away("the operator of this database does not answer")
        })?;
        match reply.status {
            200 => EvaluateResponse::decode(&reply.body).map_err(|error| {
                tracing::error!(database, %error, "an evaluator does not answer as it has to");
                away("the operator of this database does not answer as it has to")
            }),
            400 => Err(Refusal::Malformed("an element is none of ristretto255".to_owned())),
            404 => Err(Refusal::NoDatabase),
            status => {
                tracing::warn!(database, status, "an evaluator refuses");
                Err(away("the operator of this database does not evaluate now"))
            }
        }
    }

    /// The blinding key of a database, where it is held here.
    pub(super) fn own_key(&self, database: &str) -> Option<Arc<BlindKey>> {
        self.own.get(database).cloned()
    }

    /// The number of databases that are evaluated for here, and by others.
    pub(super) fn databases(&self) -> [usize; 2] {
        [self.own.len(), self.others.len()]
    }
}
