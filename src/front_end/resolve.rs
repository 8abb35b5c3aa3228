//! Resolving contacts that devices name (`--resolve`): this front-end is the client of the answer
//! servers then. It learns every identifier and what was found, still without an account.
//!
//! An identifier is asked in all databases that cover it: of each, what is kept ([`super::cache`]),
//! else what its routing filter says ([`super::filters`]), else what a look-up in the next round of
//! all devices ends in ([`super::rounds`]). A record is verified against the directory each time it
//! is told. Nothing of it is logged, and no number says how many were found.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError, RwLock};

use prost::Message as _;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use zeroize::Zeroizing;

use super::cache::{Cache, Said};
use super::counters::{Counters, count};
use super::errors::{FrontEndError, Refusal};
use super::evaluate::Evaluator;
use super::filters::Filters;
use super::placement::Placement;
use super::pool::{Pool, Refused};
use super::room::Compute;
use super::rounds::Rounds;
use crate::discovery::blind::{Derived, Evaluated, blind};
use crate::discovery::directory::{Database, Directory};
use crate::discovery::identifier::Identifier;
use crate::discovery::open::{Contact, OpenError, open, open_sealed};
use crate::discovery::sealed::evaluate::{ELEMENTS, EvaluateRequest};
use crate::discovery::sealed::resolve::{Form, Resolution, ResolveRequest, Told, encode_reply};
use crate::https::Sample;
use crate::keyword::Outcome;
use crate::limits::FRONT_END_RETRY_SECONDS;
use crate::text;

/// What resolving has beside the rest of a front-end.
pub(super) struct Resolving {
    directory: RwLock<Arc<Directory>>,
    databases: HashSet<String>,
    filters: Filters,
    cache: Cache,
    rounds: Rounds,
    pool: Arc<Pool>,
    evaluator: Arc<Evaluator>,
    compute: Compute,
    counters: Arc<Counters>,
}

/// What resolving shares with the rest.
pub(super) struct Shared {
    pub(super) directory: Arc<Directory>,
    pub(super) pool: Arc<Pool>,
    pub(super) evaluator: Arc<Evaluator>,
    pub(super) compute: Compute,
    pub(super) counters: Arc<Counters>,
}

/// What one database said, or why it said nothing.
type Answer = Result<Said, &'static str>;

/// Why a database has not said anything.
const NOT_ASKED: &str = "a database that covers it is not asked by this front-end";
const NOT_EVALUATED: &str = "its database does not evaluate identifiers now: ask again later";
const NOT_ANSWERED: &str = "no answer server of its database answered: ask again later";
const TOO_MANY: &str = "too many look-ups are in flight: ask again later";

/// What a database is asked for, and what opens the value.
struct Key {
    lookup: Zeroizing<Vec<u8>>,
    derived: Option<Derived>,
}

/// A look-up that was decided by a filter, has been sent, or could not be.
enum Begun {
    RuledOut,
    Sent(oneshot::Receiver<Outcome>),
    NotSent(&'static str),
}

impl Resolving {
    /// With this much memory for what was found.
    ///
    /// # Errors
    /// A routing filter of the placement cannot be read or verified.
    pub(super) fn start(
        placement: &Placement,
        cache_bytes: usize,
        shared: Shared,
    ) -> Result<Arc<Self>, FrontEndError> {
        let Shared { directory, pool, evaluator, compute, counters } = shared;
        let ids = || placement.databases.iter().map(|placed| placed.id.clone());
        let filters = Filters::open(placement, &directory)?;
        let rounds = Rounds::start(pool.clone(), ids(), &compute, &counters.resolve_queries);
        let cache = Cache::new(cache_bytes)
            .map_err(|error| FrontEndError::Randomness { error: error.to_string() })?;
        tracing::warn!(
            found = text::bytes(cache_bytes as u64),
            filters = text::bytes(filters.bytes() as u64),
            "devices may name their contacts here (--resolve), which this front-end then knows; it \
             may hold this much of what was found, and has this much of routing filters"
        );
        Ok(Arc::new(Self {
            directory: RwLock::new(directory),
            databases: ids().collect(),
            filters,
            cache,
            rounds,
            pool,
            evaluator,
            compute,
            counters,
        }))
    }

    fn directory(&self) -> Arc<Directory> {
        self.directory.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Trusts a newer directory from now on.
    pub(super) fn replace_directory(&self, directory: Arc<Directory>) {
        *self.directory.write().unwrap_or_else(PoisonError::into_inner) = directory;
    }

    /// Reads routing filters again.
    ///
    /// # Errors
    /// Those that are not used; what was there before stays in use.
    pub(super) fn reload_filters(&self, placement: &Placement) -> Vec<FrontEndError> {
        let refused = self.filters.reload(placement, &self.directory());
        refused.iter().for_each(|_| count(&self.counters.filters_refused));
        refused
    }

    /// The reply to a request, at `now`.
    pub(super) async fn answer(
        self: &Arc<Self>,
        body: Zeroizing<Vec<u8>>,
        now: u64,
    ) -> Result<Vec<u8>, Refusal> {
        let request = ResolveRequest::decode(&body);
        drop(body);
        let ResolveRequest { identifiers, form } =
            request.map_err(|error| Refusal::Malformed(error.to_string()))?;
        let directory = self.directory();
        if directory.content().expires <= now {
            let why = "the directory of this front-end has expired";
            return Err(Refusal::Overloaded { why, seconds: FRONT_END_RETRY_SECONDS });
        }
        let mut asking = JoinSet::new();
        for entry in &directory.content().databases {
            let covered = identifiers.iter().cloned().enumerate();
            let covered: Vec<_> = covered.filter(|(_, it)| entry.covers(it)).collect();
            if !covered.is_empty() {
                asking.spawn(self.clone().ask(entry.clone(), covered, directory.clone(), now));
            }
        }
        let mut said: Vec<Vec<Answer>> = identifiers.iter().map(|_| Vec::new()).collect();
        while let Some(joined) = asking.join_next().await {
            let answers = joined.map_err(|_| Refusal::Internal("asking a database did not end"))?;
            for (at, answer) in answers {
                said[at].push(answer);
            }
        }
        let tell = move || {
            let told = identifiers.iter().zip(&said);
            let told = told.map(|(it, said)| told_of(it, said, form, &directory, now));
            encode_reply(&told.collect::<Vec<_>>())
        };
        self.compute.run(tell).await.ok_or(Refusal::Internal("opening did not end"))
    }

    /// What one database says of contacts, with their places in the request.
    async fn ask(
        self: Arc<Self>,
        entry: Database,
        covered: Vec<(usize, Identifier)>,
        directory: Arc<Directory>,
        now: u64,
    ) -> Vec<(usize, Answer)> {
        let mut answers = Vec::with_capacity(covered.len());
        let (mut places, mut missing) = (Vec::new(), Vec::new());
        for (at, identifier) in covered {
            count(&self.counters.resolve_contacts);
            match self.cache.get(&entry.id, &identifier, now) {
                Some(said) => {
                    count(&self.counters.resolve_cached);
                    answers.push((at, Ok(said)));
                }
                None => {
                    places.push(at);
                    missing.push(identifier);
                }
            }
        }
        let missing: Arc<[Identifier]> = missing.into();
        let found = match self.look_up(&entry, &missing, directory, now).await {
            Ok(found) => found,
            Err(why) => missing.iter().map(|_| Err(why)).collect(),
        };
        for ((at, identifier), answer) in places.into_iter().zip(&*missing).zip(found) {
            match &answer {
                Ok(said) => self.cache.put(&entry.id, identifier, said.clone(), now),
                Err(_) => count(&self.counters.resolve_failed),
            }
            answers.push((at, answer));
        }
        answers
    }

    async fn look_up(
        &self,
        entry: &Database,
        identifiers: &Arc<[Identifier]>,
        directory: Arc<Directory>,
        now: u64,
    ) -> Result<Vec<Answer>, &'static str> {
        if identifiers.is_empty() {
            return Ok(Vec::new());
        }
        if !self.databases.contains(&entry.id) {
            return Err(NOT_ASKED);
        }
        let epoch = self.pool.database(&entry.id).and_then(|it| it.epochs.newest());
        let epoch = epoch.ok_or(NOT_ANSWERED)?.parameters.epoch();
        let keys = self.keys(entry, identifiers).await?;
        let begun: Vec<Begun> =
            keys.iter().map(|key| self.begin(&entry.id, epoch, &key.lookup)).collect();
        let mut outcomes = Vec::with_capacity(begun.len());
        for begun in begun {
            outcomes.push(match begun {
                Begun::RuledOut => Ok(Outcome::Absent),
                Begun::Sent(outcome) => outcome.await.map_err(|_| NOT_ANSWERED),
                Begun::NotSent(why) => Err(why),
            });
        }
        let identifiers = identifiers.clone();
        let open_all = move || {
            let all = identifiers.iter().zip(&keys).zip(outcomes);
            all.map(|((it, key), outcome)| Ok(opened(it, key, outcome?, &directory, now))).collect()
        };
        self.compute.run(open_all).await.ok_or(NOT_ANSWERED)
    }

    fn begin(&self, database: &str, epoch: u64, key: &Zeroizing<Vec<u8>>) -> Begun {
        if self.filters.rules_out(database, epoch, key) {
            count(&self.counters.resolve_filtered);
            return Begun::RuledOut;
        }
        match self.rounds.ask(database, key.clone()) {
            Ok(outcome) => Begun::Sent(outcome),
            Err(Refused::Overloaded { .. }) => Begun::NotSent(TOO_MANY),
            Err(_) => Begun::NotSent(NOT_ANSWERED),
        }
    }

    /// The keys of at most sixteen identifiers: derived where the blinding key is held here, else
    /// evaluated by who has it and verified against the directory.
    async fn keys(
        &self,
        entry: &Database,
        identifiers: &Arc<[Identifier]>,
    ) -> Result<Vec<Key>, &'static str> {
        let Some(public) = entry.blinding_key else {
            let lookup = |it: &Identifier| Zeroizing::new(it.as_str().as_bytes().to_vec());
            let key = |it| Key { lookup: lookup(it), derived: None };
            return Ok(identifiers.iter().map(key).collect());
        };
        let all = identifiers.clone();
        let derived: Vec<Derived> = match self.evaluator.own_key(&entry.id) {
            Some(key) => {
                let derive = move || all.iter().map(|it| key.derive(it)).collect();
                self.compute.run(derive).await.ok_or(NOT_EVALUATED)?
            }
            None => {
                let filled =
                    move || blind(&all.iter().cycle().take(ELEMENTS).cloned().collect::<Vec<_>>());
                let blinded = self.compute.run(filled).await.and_then(Result::ok);
                let (blinded, elements) = blinded.ok_or(NOT_EVALUATED)?;
                let elements = elements.try_into().map_err(|_| NOT_EVALUATED)?;
                let request = EvaluateRequest { database: entry.id.clone(), elements };
                let reply = self.evaluator.evaluate(request).await.map_err(|_| NOT_EVALUATED)?;
                let evaluated = Evaluated { elements: reply.elements.to_vec(), proof: reply.proof };
                let finalize = move || blinded.finalize(&evaluated, &public.0);
                let derived = self.compute.run(finalize).await.ok_or(NOT_EVALUATED)?;
                derived.map_err(|error| {
                    let database = &entry.id;
                    tracing::error!(database, %error, "an evaluation is refused");
                    NOT_EVALUATED
                })?
            }
        };
        let key = |derived: Derived| Key {
            lookup: Zeroizing::new(derived.lookup_key().into_bytes()),
            derived: Some(derived),
        };
        Ok(derived.into_iter().take(identifiers.len()).map(key).collect())
    }

    /// The present state, for an exporter.
    pub(super) fn samples(&self) -> Vec<Sample> {
        let sample = |name, help, labels, value| Sample { name, help, labels, value };
        let mut samples = vec![sample(
            "front_end_resolve_cache_bytes",
            "Memory of what was found for devices that name their contacts.",
            Vec::new(),
            self.cache.bytes() as f64,
        )];
        for (id, epoch) in self.filters.epochs() {
            let newest = self.pool.database(&id).map_or(0, |it| it.epochs.newest_number());
            let help = "Whether a routing filter is as new as its database, and used.";
            let is_used = f64::from(u8::from(epoch >= newest));
            samples.push(sample("front_end_filter_used", help, vec![("database", id)], is_used));
        }
        samples
    }
}

/// What an outcome means; a record that was found is opened and verified.
fn opened(
    identifier: &Identifier,
    key: &Key,
    outcome: Outcome,
    directory: &Directory,
    now: u64,
) -> Said {
    let value = match outcome {
        Outcome::Found(value) => Zeroizing::new(value),
        Outcome::Absent => return Said::Absent,
        Outcome::Invalid => return Said::Invalid,
    };
    let opened = match &key.derived {
        Some(derived) => open_sealed(identifier, derived, &value, directory, now),
        None => open(identifier, &value, directory, now),
    };
    match opened {
        Ok(Contact { record, .. }) => Said::Record(Zeroizing::new(record.encode_to_vec())),
        Err(error) => Said::Refused(error),
    }
}

/// What is told of a contact of which databases said this: the newest record that is verified now.
fn told_of(
    identifier: &Identifier,
    said: &[Answer],
    form: Form,
    directory: &Directory,
    now: u64,
) -> Told {
    let refused =
        |error: &OpenError| (Told::without(Resolution::Refused, Some(&error.to_string())), 0);
    let told = |answer: &Answer| match answer {
        Ok(Said::Record(record)) => match open(identifier, record, directory, now) {
            Ok(contact) => (Told::found(&contact, record, form), contact.issued),
            Err(error) => refused(&error),
        },
        Ok(Said::Absent) => (Told::without(Resolution::Absent, None), 0),
        Ok(Said::Invalid) => {
            let reason = "the answer cannot be believed: ask again later";
            (Told::without(Resolution::Invalid, Some(reason)), 0)
        }
        Ok(Said::Refused(error)) => refused(error),
        Err(why) => (Told::without(Resolution::Failed, Some(why)), 0),
    };
    let newest = said.iter().map(told).max_by_key(|(told, issued)| (told.result, *issued));
    newest.map_or_else(|| Told::without(Resolution::Absent, None), |(told, _)| told)
}
