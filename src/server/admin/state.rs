//! What the operator's endpoints know, and what they can start. It exists before the server, and
//! learns of it when that listens ([`AdminState::watch`]).

use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::sync::{RwLock, watch};
use tokio::time::timeout;

use super::super::Server;
use super::super::service::Service;
use super::super::status::Readiness;
use crate::limits;
use crate::metrics;
use crate::shard::Opening;
use crate::worker::WorkCounters;

/// What a server is at before it listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stage {
    /// Opening the database.
    #[default]
    Opening,
    /// Finding engines and having them prove themselves.
    Proving,
}

/// Reading certificates, callers and database again.
pub type Reload = Box<dyn Fn() -> Reading + Send + Sync>;

/// What came of it, or why nothing changed.
pub type Reading = Pin<Box<dyn Future<Output = Result<String, String>> + Send>>;

/// What the endpoints know of one server.
#[derive(Default)]
pub struct AdminState {
    stage: Mutex<Stage>,
    /// Where opening the database notes how far it is.
    pub opening: Opening,
    pub(super) server: OnceLock<Watched>,
    pub(super) reload: OnceLock<Reload>,
    pub(super) leave: watch::Sender<bool>,
    /// Held for reading by every connection to the endpoints.
    pub(super) open: Arc<RwLock<()>>,
}

pub(super) struct Watched {
    pub(super) service: Arc<Service>,
    work: Arc<WorkCounters>,
}

impl AdminState {
    /// What is being done now.
    pub fn enter(&self, stage: Stage) {
        *self.stage.lock().unwrap_or_else(PoisonError::into_inner) = stage;
    }

    /// The server is started: from now on this is about it. One state watches one server.
    pub fn watch(&self, server: &Server) {
        let (service, work) = (server.service.clone(), server.work_counters());
        assert!(
            self.server.set(Watched { service, work }).is_ok(),
            "this is a bug: one state for two servers"
        );
    }

    /// What reading again is.
    pub fn on_reload(&self, reload: Reload) {
        assert!(self.reload.set(reload).is_ok(), "this is a bug: two ways to read again");
    }

    /// Ready once somebody asked the server to leave.
    pub async fn told_to_leave(&self) {
        let mut leave = self.leave.subscribe();
        // The sender is ours: it is not gone.
        let _ = leave.wait_for(|&leave| leave).await;
    }

    /// Waits until whoever asked something has the reply, but not long: the process may end then.
    pub async fn replied(&self) {
        let _ = timeout(limits::CLOSE_TIMEOUT, self.open.write()).await;
    }

    /// How far starting has come; none when it is done.
    pub(super) fn starting(&self) -> Option<String> {
        if self.server.get().is_some() {
            return None;
        }
        Some(match *self.stage.lock().unwrap_or_else(PoisonError::into_inner) {
            Stage::Opening => {
                let (opened, shards) = self.opening.progress();
                format!("opening the database, {opened} of {shards} shards")
            }
            Stage::Proving => "having engines prove themselves".into(),
        })
    }

    pub(super) fn is_alive(&self) -> bool {
        self.server.get().is_none_or(|server| server.service.is_alive())
    }

    pub(super) fn readiness(&self) -> Readiness {
        if let Some(server) = self.server.get() {
            return server.service.readiness();
        }
        let progress = self.starting().unwrap_or_default();
        let missing = vec![format!("the server is starting: {progress}")];
        Readiness { missing, notes: Vec::new() }
    }

    /// None before there is a server.
    pub(super) fn metrics(&self) -> Option<String> {
        let Watched { service, work } = self.server.get()?;
        Some(metrics::text(&service.counters, work, |families| service.add_gauges(families)))
    }
}
