//! Receipts that are waited for, by the name that the gateway knows the message by.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use tokio::sync::oneshot;

use crate::registrar::channels::gateway::Delivery;

/// Receipts kept that came before the answer they belong to: a gateway may send both at once.
const EARLY_MAX: usize = 1_024;
/// Waiting ones below which those that nobody waits for any more are not looked for.
const SWEEP_MIN: usize = 1_024;

#[derive(Default)]
pub(crate) struct Receipts(Mutex<State>);

#[derive(Default)]
struct State {
    waiting: HashMap<String, oneshot::Sender<Delivery>>,
    early: VecDeque<(String, Delivery)>,
    sweep_at: usize,
}

/// Why a receipt was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // Names and messages say it.
pub enum ReceiptError {
    #[error(
        "the receipt names no message that is waited for: it is late, or the gateway's template \
         does not carry {{id}}"
    )]
    Unknown,
    #[error("the receipt is not as expected; expected token=… and status=… in the query or form")]
    Form,
}

impl Receipts {
    /// What is waited on for the receipt of this name.
    pub(crate) fn wait_for(&self, name: &str) -> oneshot::Receiver<Delivery> {
        let (sender, receiver) = oneshot::channel();
        let name = normal(name);
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = state.early.iter().position(|(early, _)| *early == name) {
            let (_, delivery) = state.early.remove(place).expect("its place was just found");
            // The receiver is right here.
            let _ = sender.send(delivery);
            return receiver;
        }
        if state.waiting.len() >= state.sweep_at.max(SWEEP_MIN) {
            state.waiting.retain(|_, sender| !sender.is_closed());
            state.sweep_at = 2 * state.waiting.len();
        }
        state.waiting.insert(name, sender);
        receiver
    }

    /// A receipt came. One that nobody waits for is kept for the answer that is still to come.
    pub(crate) fn came_maybe_early(&self, name: &str, delivery: Delivery) {
        if self.came(name, delivery).is_err() {
            let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if state.early.len() >= EARLY_MAX {
                state.early.pop_front();
            }
            state.early.push_back((normal(name), delivery));
        }
    }

    /// A receipt came for a message whose name was known before it was sent.
    pub(crate) fn came(&self, name: &str, delivery: Delivery) -> Result<(), ReceiptError> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let sender = state.waiting.remove(&normal(name)).ok_or(ReceiptError::Unknown)?;
        // Nobody may wait any more.
        sender.send(delivery).map_err(|_| ReceiptError::Unknown)
    }
}

/// Message centres disagree with themselves about leading zeros and about the case of hexadecimal
/// digits.
fn normal(name: &str) -> String {
    let trimmed = name.trim_start_matches('0');
    if trimmed.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        trimmed.to_ascii_lowercase()
    } else {
        name.to_owned()
    }
}

/// Reads the query or form of a gateway's callback: `token` and `status`. A status that says
/// neither that the message was delivered nor that it will not be (Kannel's 4 and 8) is `None`.
pub(crate) fn parse(query: &str) -> Result<(String, Option<Delivery>), ReceiptError> {
    let value = |wanted: &str| {
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.into_iter().find(|(name, _)| *name == wanted).map(|(_, value)| value)
    };
    let (token, status) = (value("token"), value("status"));
    let (Some(token), Some(status)) = (token, status) else { return Err(ReceiptError::Form) };
    let is_plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_');
    if token.is_empty() || token.len() > 64 || !token.bytes().all(is_plain) {
        return Err(ReceiptError::Form);
    }
    let delivery = match status {
        "1" | "delivered" => Some(Delivery::Delivered),
        "2" | "16" | "failed" => Some(Delivery::Failed),
        status if status.len() <= 32 && status.bytes().all(is_plain) => None,
        _ => return Err(ReceiptError::Form),
    };
    Ok((token.to_owned(), delivery))
}
