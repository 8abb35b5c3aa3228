//! Whether the database answers. While it does not, requests are refused at once, and somebody
//! tries it again.

use std::fmt::Display;

use tokio::sync::{Notify, watch};

/// What is known of the database.
pub(crate) struct Health {
    state: watch::Sender<State>,
    doubt: Notify,
}

#[derive(Clone, PartialEq, Eq)]
struct State {
    is_up: bool,
    why: String,
}

impl Default for Health {
    fn default() -> Self {
        let why = "the database has not answered yet".to_owned();
        Self { state: watch::Sender::new(State { is_up: false, why }), doubt: Notify::new() }
    }
}

impl Health {
    /// It answered.
    pub(crate) fn found(&self) {
        let is_news = self.state.send_if_modified(|state| {
            let is_news = !state.is_up;
            *state = State { is_up: true, why: String::new() };
            is_news
        });
        if is_news {
            tracing::info!("the database answers");
        }
    }

    /// It did not. Logged when that is news.
    pub(crate) fn lost(&self, why: &dyn Display) {
        let lost = State { is_up: false, why: why.to_string() };
        let is_news = self.state.send_if_modified(|state| {
            let is_news = *state != lost;
            state.clone_from(&lost);
            is_news
        });
        if is_news {
            tracing::error!("{}; requests are put off until it answers", lost.why);
        }
    }

    /// A request found that it does not answer: somebody has to look.
    pub(crate) fn doubt(&self) {
        self.doubt.notify_one();
    }

    /// Ends when somebody doubts that it answers.
    pub(crate) async fn doubted(&self) {
        self.doubt.notified().await;
    }

    pub(crate) fn is_up(&self) -> bool {
        self.state.borrow().is_up
    }

    /// Ends when it answers, or does not.
    pub(crate) async fn until(&self, is_up: bool) {
        // The sender is here, so that this does not fail.
        let _ = self.state.subscribe().wait_for(|state| state.is_up == is_up).await;
    }

    /// Why it is not ready, for the operator; none where it is.
    pub(crate) fn missing(&self) -> Option<String> {
        let state = self.state.borrow();
        (!state.is_up).then(|| state.why.clone())
    }
}
