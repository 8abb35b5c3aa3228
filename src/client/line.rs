//! A client's connection for frames made beforehand, which go out when their time has come and
//! not in a call's rounds: what the load generator ([`crate::bench`]) needs beside the [`Client`].
//!
//! The connection was made, and the parameters checked, as for any call; the requests have the same
//! fields. Nothing here encrypts, decodes or tries again.

use std::sync::Arc;
use std::time::Duration;

use quinn::Connection;

use super::Client;
use super::call::{Sending, View};
use super::error::ClientError;
use super::exchange::{parameter_request, query};
use super::net::{End, Heard, exchange};
use crate::wire::message::{HintRequest, PirBatch, Request, RequestBody};
use crate::wire::{Bytes, encode_frame};

/// The connection a client has.
#[derive(Clone)]
pub(crate) struct Line {
    connection: Connection,
    view: Arc<View>,
    wait: Duration,
    deadline_ms: u32,
}

impl Client {
    /// The connection in use, for frames made beforehand.
    pub(crate) async fn line(&mut self) -> Result<Line, ClientError> {
        let connection = self.link().await?;
        let deadline_ms = self.deadline.as_millis() as u32;
        Ok(Line { connection, view: self.view().clone(), wait: self.answer_timeout, deadline_ms })
    }
}

impl Line {
    /// What the connection's frames must be made for.
    pub(crate) fn view(&self) -> &Arc<View> {
        &self.view
    }

    /// A batch of queries, each with its place as nonce.
    pub(crate) fn query_frame(&self, queries: impl Iterator<Item = Sending>) -> Bytes {
        let queries = queries.enumerate().map(|(nonce, s)| query(nonce, s, self.deadline_ms));
        frame(RequestBody::Batch(PirBatch { requests: queries.collect() }))
    }

    /// Asks the server to keep a bundle.
    pub(crate) fn bundle_frame(&self, uid: &str, bundle: Arc<[u8]>) -> Bytes {
        frame(RequestBody::Parameters(parameter_request(Some((uid, bundle)))))
    }

    /// Asks for hints.
    pub(crate) fn hint_frame(&self, shards: Vec<u32>) -> Bytes {
        frame(RequestBody::Hints(HintRequest { epoch: self.view.parameters.epoch(), shards }))
    }

    /// Sends a frame as soon as the server grants a stream, and says of each thing that happens
    /// on it when it does.
    pub(crate) async fn send(
        &self,
        frame: Bytes,
        replies_max: usize,
        hear: &mut (dyn FnMut(Heard) + Send),
    ) -> End {
        let shape = Some(*self.view.parameters.shape());
        exchange(&self.connection, frame, shape, replies_max, self.wait, hear).await
    }
}

fn frame(body: RequestBody) -> Bytes {
    encode_frame(&Request::from(body)).into()
}
