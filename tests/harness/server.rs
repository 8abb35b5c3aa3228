//! A server that runs in this process.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use sotto::client::{Options, Pins};
use sotto::engine::{Engine, EngineOptions, select_with};
use sotto::server::certificates::{self, LocalCertificates};
use sotto::server::{
    AdminState, AllowList, Callers, Counters, Identity, IdentityReloader, KnownCallers, Reloader,
    Server, ServerBounds, ServerOptions, WorkCounters,
};
use sotto::shard::Database;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{PATIENCE, built};

/// What a server is started with.
pub(crate) struct Setting {
    /// The engines chosen by default where there is none.
    pub(crate) engines: Vec<Box<dyn Engine>>,
    pub(crate) certificates: LocalCertificates,
    pub(crate) callers: Callers,
    pub(crate) bounds: ServerBounds,
}

impl Default for Setting {
    fn default() -> Self {
        Self {
            engines: Vec::new(),
            certificates: certificates::localhost().unwrap(),
            callers: Callers::Loopback,
            // A test may spoil the database, and have it answered from.
            bounds: ServerBounds { scrub_mib_per_second: 0, ..ServerBounds::default() },
        }
    }
}

impl Setting {
    pub(crate) fn options(self) -> (ServerOptions, LocalCertificates) {
        let Self { mut engines, certificates, callers, bounds } = self;
        if engines.is_empty() {
            engines = select_with(&EngineOptions::default()).unwrap().engines;
        }
        let LocalCertificates { server_pem, server_key, .. } = &certificates;
        let identity = Identity::from_pem(server_pem, server_key).unwrap();
        let listen = ([127, 0, 0, 1], 0).into();
        (ServerOptions { listen, identity, callers, engines, bounds }, certificates)
    }

    pub(crate) fn serve(self, db: &Path) -> Serving {
        let (options, certificates) = self.options();
        let database = Arc::new(Database::open(db).unwrap());
        let server = Server::bind(options, database.clone()).unwrap();
        let admin_state = Arc::new(AdminState::default());
        admin_state.watch(&server);
        let (leave, told) = oneshot::channel::<()>();
        let asked = admin_state.clone();
        Serving {
            address: server.local_addr(),
            counters: server.counters(),
            work: server.work_counters(),
            identity_reloader: server.identity_reloader(),
            reloader: server.reloader(),
            running: tokio::spawn(server.run(async move {
                let told = async {
                    if told.await.is_err() {
                        // Dropped without a word: it goes on for as long as the test.
                        std::future::pending::<()>().await;
                    }
                };
                tokio::select! {
                    () = told => {}
                    () = asked.told_to_leave() => {}
                }
            })),
            database,
            folder: None,
            certificates,
            admin_state,
            leave: Some(leave),
        }
    }
}

/// A running server. It goes on when this is dropped.
pub(crate) struct Serving {
    pub(crate) address: SocketAddr,
    pub(crate) certificates: LocalCertificates,
    pub(crate) counters: Arc<Counters>,
    pub(crate) work: Arc<WorkCounters>,
    pub(crate) identity_reloader: IdentityReloader,
    pub(crate) reloader: Reloader,
    /// What the operator's endpoints show of it.
    pub(crate) admin_state: Arc<AdminState>,
    /// The database it was started with.
    pub(crate) database: Arc<Database>,
    /// The folder of the database, if it goes with the server.
    pub(crate) folder: Option<TempDir>,
    leave: Option<oneshot::Sender<()>>,
    running: JoinHandle<()>,
}

impl Serving {
    /// Options of a client of this server.
    pub(crate) fn options(&self, pins: Pins) -> Options {
        built::options(self.address, &self.certificates.ca_pem, pins)
    }

    /// Asks the server to leave.
    pub(crate) fn leave(&mut self) {
        self.leave.take().unwrap().send(()).unwrap();
    }

    /// Waits until it has left.
    pub(crate) async fn left(self) {
        timeout(PATIENCE, self.running).await.unwrap().unwrap();
    }
}

pub(crate) fn serve(db: &Path) -> Serving {
    Setting::default().serve(db)
}

/// Callers whom this authority certifies, those of the list alone where there is one.
pub(crate) fn known(ca_pem: &str, list: Option<&str>) -> Callers {
    let list = list.map(|text| {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        AllowList::from_file(file.path()).unwrap()
    });
    Callers::Known(KnownCallers::from_pem(ca_pem.as_bytes(), &"the test", list).unwrap())
}
