//! The device's side: contacts become records, through a relay that knows the account and a
//! front-end that knows the questions (docs/federation.md).
//!
//! **Nothing that is sent, and no time at which it is sent, depends on what was found.** A call
//! first sends everything and collects all answers; then it decodes them, keeps them, and gives
//! them out. Contacts are asked in batches that stay the same for ever, at times that are drawn
//! beforehand. A program keeps this rule too: it calls [`Resolver::sync`] at [`Resolver::next_due`]
//! whatever the last call found, and [`Resolver::resolve`] when a person adds a contact, never
//! because of an outcome.
//!
//! - [`sync`] has the order of a call; [`ask`] sends batches; [`exchange`] speaks with the relay;
//!   [`opening`] looks at answers.
//! - [`slots`] says who is asked with whom, [`schedule`] when.
//! - [`state`] is what is kept, [`store`] its file; [`database`] is what is known of a database,
//!   [`filters`] whom it does not have.
//! - [`own`] looks up the person's own identifiers, among the contacts and like them.
//!
//! Dropping the future of a call ends it and wipes its secrets. What was evaluated is kept, and the
//! next call goes on.

mod ask;
mod database;
mod errors;
mod exchange;
mod filters;
mod opening;
mod openly;
mod options;
mod own;
mod report;
mod schedule;
mod slots;
mod state;
mod store;
mod sync;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use zeroize::Zeroizing;

use super::directory::{Directory, Pins};
use super::identifier::Identifier;
use crate::limits::DEVICE_REQUEST_TIMEOUT;
use database::Held;
use exchange::{Exchange, Traffic};
use filters::Filters;
use state::State;
use store::Store;

pub use errors::{ResolveError, StateError};
pub use options::{Clock, Options, Token, read_front_end_key, state_key, system_clock};
pub use own::{EndedBy, Own, OwnService, Unknown};
pub use report::{Answer, Finding, Progress, Report, Resolved};

/// Resolves the contacts of one device.
pub struct Resolver {
    exchange: Arc<Exchange>,
    state: State,
    store: Arc<Store>,
    state_key: Zeroizing<[u8; 32]>,
    /// Contents of the state that were handed to the store.
    writes: u64,
    directory_pins: Pins,
    directory: Option<Arc<Directory>>,
    pack_records_min: u64,
    held: BTreeMap<String, Arc<Held>>,
    filters: Filters,
    resolved: HashMap<String, Resolved>,
    report: Report,
    own: Vec<Own>,
}

impl Resolver {
    /// Opens the state, or begins a new one. Nothing is sent.
    ///
    /// # Errors
    /// The state is in use, cannot be opened with this key, or is of a later version.
    pub async fn open(options: Options) -> Result<Self, ResolveError> {
        let http = crate::https::Client::new(Some(&options.ca_pem), None, DEVICE_REQUEST_TIMEOUT)
            .map_err(|error| ResolveError::Options(error.to_string()))?;
        let (path, key) = (options.state, options.state_key.clone());
        let read = move || {
            let (store, sealed) = Store::open(&path)?;
            let state = sealed.map(|sealed| State::open(&sealed, &key)).transpose()?;
            Ok::<_, StateError>((store, state))
        };
        let (store, state) = ask::compute(read).await??;
        let state = match state {
            Some(state) => state,
            None => State::new()?,
        };
        let exchange = Exchange {
            http,
            relay: options.relay.trim_end_matches('/').to_owned(),
            token: options.token,
            clock: options.clock,
            front_end_key: options.front_end_key,
            keys: Mutex::new(None),
            traffic: Traffic::default(),
        };
        let mut resolver = Self {
            directory_pins: pins(&state, options.directory_pins)?,
            directory: None,
            exchange: Arc::new(exchange),
            state,
            store: Arc::new(store),
            state_key: options.state_key,
            writes: 0,
            pack_records_min: options.pack_records_min,
            held: BTreeMap::new(),
            filters: Filters::default(),
            resolved: HashMap::new(),
            report: Report::default(),
            own: Vec::new(),
        };
        resolver.open_kept();
        Ok(resolver)
    }

    /// Resolves one contact. A new one is asked at once; of another one this gives what is known,
    /// and sends nothing.
    ///
    /// # Errors
    /// Why it was not asked. What a database was asked before that ended it is kept.
    pub async fn resolve(&mut self, contact: &Identifier) -> Result<Resolved, ResolveError> {
        if !self.is_settled(contact) {
            self.run(std::slice::from_ref(contact), Some(contact), &mut |_| {}).await?;
        }
        Ok(self.contact(contact).cloned().unwrap_or_default())
    }

    /// Asks for contacts that are new, all of them at once, or, where none is new, for one batch
    /// whose time has come. Other batches whose time has come get another time of their own, within
    /// a day, for those that are sent together are seen to be of one device. So call it at
    /// [`Resolver::next_due`]: whoever calls once a day asks one batch a day.
    ///
    /// # Errors
    /// Why it ended early, or who was refused. What was answered is kept, and
    /// [`Resolver::report`] tells of it.
    pub async fn sync(
        &mut self,
        contacts: &[Identifier],
        mut progress: impl FnMut(Progress) + Send,
    ) -> Result<Report, ResolveError> {
        self.run(contacts, None, &mut progress).await?;
        Ok(self.report.clone())
    }

    /// What is known of a contact.
    pub fn contact(&self, contact: &Identifier) -> Option<&Resolved> {
        self.resolved.get(contact.as_str())
    }

    /// How many databases that cover a contact have not answered, as far as the directory is known.
    /// As long as there is one, a contact that no other has found may be there.
    pub fn unanswered(&self, contact: &Identifier) -> usize {
        let databases = self.directory.iter().flat_map(|it| &it.content().databases);
        let answers = self.contact(contact).map(|resolved| &resolved.answers);
        let is_open = |name: &String| answers.is_none_or(|answers| !answers.contains_key(name));
        databases.filter(|entry| entry.covers(contact) && is_open(&entry.id)).count()
    }

    /// Says which identifiers are the owner's, and where each was registered. [`Resolver::sync`]
    /// looks them up with the contacts from now on. They have slots like contacts, so that they
    /// stay in their batches when they are left out later.
    pub fn set_own(&mut self, own: Vec<Own>) {
        self.own = own;
    }

    /// The mappings of own identifiers that the owner does not know, as far as databases have
    /// answered. To be asked after each call.
    pub fn unknown_mappings(&self) -> Vec<Unknown> {
        let now = self.exchange.now();
        let mut unknown = Vec::new();
        for own in &self.own {
            let answers = self.contact(&own.identifier).into_iter().flat_map(|it| &it.answers);
            for (database, answer) in answers {
                let Finding::Found(found) = &answer.finding else { continue };
                if found.expires > now {
                    unknown.extend(own.unknown_in(database, &found.services, now));
                }
            }
        }
        unknown
    }

    /// When [`Resolver::sync`] has something to ask again, in seconds since 1970.
    pub fn next_due(&self) -> Option<u64> {
        let directory = self.directory.as_ref();
        let is_listed = |name: &str| directory.is_none_or(|it| it.database(name).is_some());
        let databases = self.state.databases.iter().filter(|(name, _)| is_listed(name));
        databases.flat_map(|(_, database)| database.batches.iter().map(|batch| batch.due)).min()
    }

    /// What the last call did, also if it ended with an error.
    pub fn report(&self) -> &Report {
        &self.report
    }
}

/// The pins to check a directory with: those of the newest one that was seen.
fn pins(state: &State, given: Pins) -> Result<Pins, ResolveError> {
    if state.directory_pins.is_empty() {
        return Ok(given);
    }
    let kept = Pins::from_json(state.directory_pins.as_bytes())?;
    Ok(if given.version() > kept.version() { given } else { kept })
}
