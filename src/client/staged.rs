//! Whether a server answers shards of an epoch that clients may not be told of yet.

use std::collections::HashSet;
use std::sync::Arc;

use super::exchange::{ask, frame};
use super::hints::HintDigest;
use super::link::Dialer;
use super::options::Options;
use super::retry::FailedAttempt;
use crate::limits;
use crate::params::Shape;
use crate::wire::Status;
use crate::wire::message::{HintRequest, ReplyBody, RequestBody};

/// Asks the server of these options which of these shards of an epoch it answers, by their signed
/// hint digests. Back come those that it does not, or of which it has another content.
///
/// # Errors
/// It cannot be reached, or does not say of each shard.
pub async fn lacking(
    options: &Options,
    shape: Shape,
    epoch: u64,
    expected: &[(u32, HintDigest)],
) -> Result<Vec<u32>, FailedAttempt> {
    let dialer = Arc::new(Dialer::new(options)?);
    let link = dialer.clone().first_of((0..options.replicas.len()).collect()).await?;
    let (mut answered, mut ended) = (HashSet::new(), None);
    for part in expected.chunks(limits::HINTS_PER_REQUEST_MAX as usize) {
        let shards = part.iter().map(|&(shard, _)| shard).collect();
        let request = HintRequest { epoch, shards, digests_only: true };
        let (frame, wait) = (frame(RequestBody::Hints(request)), options.answer_timeout);
        let exchange = ask(&link.connection, frame, Some(shape), part.len(), wait).await;
        if exchange.replies.len() < part.len() {
            ended = Some(exchange.end);
            break;
        }
        answered.extend(exchange.replies.into_iter().filter_map(|reply| match reply {
            ReplyBody::Hint(hint)
                if hint.response_status == Status::ResponseSuccess.code()
                    && hint.epoch == epoch
                    && part.iter().any(|(shard, digest)| {
                        *shard == hint.shard && digest[..] == hint.digest[..]
                    }) =>
            {
                Some(hint.shard)
            }
            _ => None,
        }));
    }
    dialer.close().await;
    match ended {
        Some(failed) => Err(failed),
        None => {
            let shards = expected.iter().map(|&(shard, _)| shard);
            Ok(shards.filter(|shard| !answered.contains(shard)).collect())
        }
    }
}
