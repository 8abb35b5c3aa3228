//! The registrar: proves that a number or an address is somebody's, and then vouches for where that
//! person is reached.
//!
//! [`Core`] decides everything and does nothing but read and write its database: no HTTP, no clock,
//! no message leaves here. [`Core::change`] takes each request that changes something and gives the
//! reply, and the code to send once the request is stored; [`Core::sent`] is told what became of
//! it.
//!
//! A registration goes through the states of [`State`](crate::registrar::api::State). What the
//! number of each state means in the database, and when a state ends by itself, is in
//! [`mod@state`]. A registration from request to statement is three transactions: request, sent,
//! code.
//!
//! The identifier of a person (SII) stands in plain text in three places only: the claims of a
//! pending request, the signed statement (also within the reply that is kept for a day), and
//! preferences. Rows are found by an HMAC of it. What is over
//! is wiped by [`Core::purge`]; only that HMAC, the state and the time stay for 45 days.
//!
//! Transactions lock in this order: the row of the identifier, rows of registrations, the counters
//! of [`fraud`](crate::registrar::fraud). So most never wait for each other in a circle; where two
//! do, the database ends one of them, and it is run again.

mod sql;

mod change;
mod codes;
mod end;
mod enter;
mod events;
pub mod feed;
mod heartbeats;
mod home;
mod preferences;
mod purge;
mod reads;
mod recycling;
mod register;
mod settings;
pub mod state;
mod sweep;
mod transition;

#[cfg(test)]
mod tests;

use std::sync::{Arc, PoisonError, RwLock};

use crate::discovery::directory::Directory;
use crate::registrar::fraud::Fraud;
use crate::registrar::{Problem, Store};

pub use change::{Caller, Changed, Keyed};
pub use events::Event;
pub use feed::fold::{FeedError, Fold};
pub use purge::Purged;
pub use reads::{MINE_TYP, Mine};
pub use recycling::Stale;
pub use register::Outcome;
pub use settings::Settings;
pub use sweep::Swept;
pub use transition::{Transition, Transitions};

/// The tables of the registrar: number, name, SQL. Those of [`fraud`](crate::registrar::fraud) and
/// of the queue to the log ([`QUEUE_MIGRATIONS`](crate::registrar::log::client::QUEUE_MIGRATIONS))
/// are beside them.
pub const MIGRATIONS: &[(i64, &str, &str)] =
    &[(1, "registrations", include_str!("migrations/1_registrations.sql"))];

/// The directory as it is now: whoever reads a newer one puts it in place of the old.
pub type SharedDirectory = Arc<RwLock<Arc<Directory>>>;

/// What decides. Clones are the same registrar.
#[derive(Clone)]
pub struct Core {
    store: Store,
    settings: Arc<Settings>,
    fraud: Fraud,
    directory: SharedDirectory,
}

impl Core {
    /// A registrar over a database with the tables of [`MIGRATIONS`], those of
    /// [`fraud`](crate::registrar::fraud), and the queue to the log.
    pub fn new(store: Store, settings: Settings, fraud: Fraud, directory: SharedDirectory) -> Self {
        Self { store, settings: Arc::new(settings), fraud, directory }
    }

    /// The database.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The directory, unless it has expired: then nothing is vouched for until there is a newer
    /// one.
    fn directory(&self, now: u64) -> Result<Arc<Directory>, Problem> {
        let directory = self.last_directory();
        if directory.content().expires > now {
            return Ok(directory);
        }
        let found = "a directory that has expired";
        let expected = "the same request, once this service has a newer directory";
        Err(Problem::new(503, "directory_expired", found, expected).retry_after(60))
    }

    /// The directory, expired or not: enough for what users sign.
    fn last_directory(&self) -> Arc<Directory> {
        self.directory.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
