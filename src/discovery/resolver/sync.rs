//! The order of a call: directory, keys, parameters, evaluation, routing filters, look-ups, and
//! only then what they say.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use tokio::time::{Instant, timeout_at};
use zeroize::Zeroizing;

use super::Resolver;
use super::ask::{Asked, Job, ask_all, compute, expect_ok};
use super::database::Held;
use super::errors::ResolveError;
use super::exchange::Kind;
use super::opening::{Closed, Member, Opened, open_all};
use super::report::{Answer, Finding, Progress, Report};
use super::schedule::{is_due, is_too_late, next_due, put_off};
use super::slots::{Dummies, Newcomer, deal, dummy_key, is_fit};
use super::state::{Batch, Slot};
use crate::discovery::blind::{BlindError, Evaluated, blind};
use crate::discovery::directory::{Database, Directory};
use crate::discovery::identifier::Identifier;
use crate::discovery::sealed::capsule::InnerRequest;
use crate::discovery::sealed::evaluate::{ELEMENTS, EvaluateRequest, EvaluateResponse};
use crate::limits::{CONTACTS_MAX, DIRECTORY_BYTES_MAX, SYNC_BATCHES_MAX, SYNC_TIME_MAX};
use crate::scheme::random_permutation;
use crate::wire::PublicParameters;

const PROTOBUF_TYPE: &str = "application/x-protobuf";

/// Told how far a call is.
type OnProgress<'a> = &'a mut (dyn FnMut(Progress) + Send);

/// What a call is about in one database.
struct Part {
    entry: Database,
    held: Arc<Held>,
    /// Contacts without a slot.
    new: Vec<Identifier>,
}

impl Part {
    fn epoch(&self) -> u64 {
        self.held.known().parameters().map_or(0, PublicParameters::epoch)
    }
}

/// The first thing that ended a call, or part of it; the rest of the call goes on where it can.
#[derive(Default)]
struct Ended(Option<ResolveError>);

impl Ended {
    fn note(&mut self, error: ResolveError) {
        self.0.get_or_insert(error);
    }
}

impl Resolver {
    /// Resolves `contacts`, and asks what is new, or one batch that is due; with `only`, no batch
    /// without it.
    pub(super) async fn run(
        &mut self,
        contacts: &[Identifier],
        only: Option<&Identifier>,
        progress: OnProgress<'_>,
    ) -> Result<(), ResolveError> {
        let with_own = self.with_own(contacts, only);
        let (contacts, max) = (&with_own[..], CONTACTS_MAX);
        let found = contacts.len();
        if found > max {
            return Err(ResolveError::Contacts { found, max });
        }
        self.report = Report::default();
        self.exchange.traffic.reset();
        let result = self.call(contacts, only, progress).await;
        self.exchange.traffic.write_to(&mut self.report);
        result
    }

    /// Contacts, and with them, in a call that is about all of them, the own identifiers.
    fn with_own(&self, contacts: &[Identifier], only: Option<&Identifier>) -> Vec<Identifier> {
        let own = self.own.iter().map(|own| &own.identifier).filter(|_| only.is_none());
        contacts.iter().chain(own.filter(|own| !contacts.contains(own))).cloned().collect()
    }

    async fn call(
        &mut self,
        contacts: &[Identifier],
        only: Option<&Identifier>,
        progress: OnProgress<'_>,
    ) -> Result<(), ResolveError> {
        let deadline = Instant::now() + SYNC_TIME_MAX;
        let mut ended = Ended::default();
        progress(Progress::Fetching);
        self.check_due_times()?;
        let directory = self.fetch_directory().await?;
        self.exchange.fetch_keys().await?;
        let mut parts = self.parts(&directory, contacts, only, &mut ended).await?;
        self.save().await?;
        self.evaluate(&mut parts, deadline, &mut ended, progress).await;
        self.rule_out(&mut parts, &mut ended).await;
        self.deal(&parts)?;
        if only.is_none() {
            self.put_off(&parts)?;
        }
        self.save().await?;
        let jobs = self.jobs(&parts, only)?;
        let total = jobs.len();
        let over = |done| progress(Progress::LookedUp { done, total });
        let all = ask_all(&self.exchange, jobs, deadline, over).await?;
        if let Some(error) = all.stopped {
            ended.note(error);
        }
        self.finish(all.asked, directory, &mut ended).await?;
        let left = |part: &Part| self.due(&part.entry.id, only).count();
        self.report.batches_left = parts.iter().map(left).sum();
        ended.0.map_or(Ok(()), Err)
    }

    /// The newest directory, verified. An older one than was seen, or another one, ends the call.
    pub(super) async fn fetch_directory(&mut self) -> Result<Arc<Directory>, ResolveError> {
        let what = "request for the directory";
        let held = &self.state.directory;
        let fetched = self.exchange.get(what, "/directory", held, DIRECTORY_BYTES_MAX).await?;
        let file = fetched.as_deref().unwrap_or(held);
        let directory = Directory::open(file, &self.directory_pins, self.exchange.now())?;
        let pins = directory.pins();
        if let Some(file) = fetched {
            self.state.directory = file.to_vec();
        }
        self.state.directory_pins = pins.to_json();
        self.directory_pins = pins;
        self.report.directory_version = directory.content().version;
        let directory = Arc::new(directory);
        self.directory = Some(directory.clone());
        Ok(directory)
    }

    /// The databases to ask, with the contacts that are new to each, and their parameters. One
    /// that is refused is left out, and the call ends with an error later.
    async fn parts(
        &mut self,
        directory: &Directory,
        contacts: &[Identifier],
        only: Option<&Identifier>,
        ended: &mut Ended,
    ) -> Result<Vec<Part>, ResolveError> {
        let contacts: BTreeSet<&Identifier> = contacts.iter().collect();
        let mut parts = Vec::new();
        for entry in &directory.content().databases {
            let covered = contacts.iter().copied().filter(|contact| entry.covers(contact));
            let covered: Vec<Identifier> = covered.cloned().collect();
            // With `only` it is new. Otherwise what is fetched does not depend on a filter.
            if covered.is_empty() && self.due(&entry.id, only).next().is_none() {
                continue;
            }
            match self.open_database(entry).await {
                Ok(held) => {
                    let new = self.without_slot(&entry.id, &covered);
                    parts.push(Part { entry: entry.clone(), held, new });
                }
                Err(error) if error.is_refusal() || !error.ends_the_call() => ended.note(error),
                Err(error) => return Err(error),
            }
        }
        Ok(parts)
    }

    /// Contacts that have no slot in a database.
    fn without_slot(&self, database: &str, contacts: &[Identifier]) -> Vec<Identifier> {
        let batches = self.state.databases.get(database).into_iter().flat_map(|it| &it.batches);
        let placed: HashSet<&str> =
            batches.flat_map(|batch| &batch.slots).map(|slot| &*slot.contact).collect();
        contacts.iter().filter(|contact| !placed.contains(contact.as_str())).cloned().collect()
    }

    /// Checks what the directory says of a database, and fetches its parameters.
    async fn open_database(&mut self, entry: &Database) -> Result<Arc<Held>, ResolveError> {
        let kept = self.state.databases.entry(entry.id.clone()).or_default();
        let blinding_key = entry.blinding_key.as_ref().map_or(&[][..], |key| &key.0[..]);
        let is_used = !kept.derived.is_empty() || !kept.batches.is_empty();
        if is_used && kept.blinding_key != blinding_key {
            return Err(ResolveError::BlindingKey { database: entry.id.clone() });
        }
        kept.blinding_key = blinding_key.to_vec();
        let held = match self.held.get(&entry.id) {
            Some(held) => {
                held.check(entry)?;
                held.clone()
            }
            None => Arc::new(Held::new(entry, kept, self.pack_records_min)?),
        };
        self.held.insert(entry.id.clone(), held.clone());
        held.refresh(&self.exchange).await?;
        self.write_known(&held);
        self.drop_unfit(&held);
        Ok(held)
    }

    /// Notes what is known of a database for the next session.
    fn write_known(&mut self, held: &Held) {
        held.write_to(self.state.database(&held.name));
        if let Some(parameters) = held.known().parameters() {
            self.report.epochs.insert(held.name.clone(), parameters.epoch());
        }
    }

    /// Batches that were dealt among fewer shards than a batch has members cannot be sent once one
    /// key bundle serves a batch, which is two doublings of the number of shards later at least.
    /// Their contacts are new again.
    fn drop_unfit(&mut self, held: &Held) {
        let known = held.known();
        let shard_count = known.parameters().map_or(0, PublicParameters::shard_count);
        let is_fit = |batch: &Batch| {
            let keys = batch.slots.iter().filter_map(|slot| self.key(&held.name, slot));
            is_fit(keys.filter_map(|key| known.shard(&key)), shard_count)
        };
        let kept = self.state.databases.get(&held.name).into_iter().flat_map(|it| &it.batches);
        let fit: Vec<bool> = kept.map(is_fit).collect();
        let mut fit = fit.into_iter();
        let batches = &mut self.state.database(&held.name).batches;
        batches.retain(|_| fit.next().unwrap_or(true));
    }

    /// The key that a slot looks up; none of a contact that was not evaluated.
    fn key(&self, database: &str, slot: &Slot) -> Option<Zeroizing<Vec<u8>>> {
        let kept = self.state.databases.get(database)?;
        let key = match slot.contact.as_str() {
            "" => dummy_key(&self.state.device_key(), database, slot.number, slot.attempt),
            contact if kept.blinding_key.is_empty() => contact.to_owned(),
            contact => kept.derived_key(contact)?.lookup_key(),
        };
        Some(Zeroizing::new(key.into_bytes()))
    }

    /// Has contacts evaluated that never were, sixteen at a time. Those that were not in the end
    /// are left for the next call.
    async fn evaluate(
        &mut self,
        parts: &mut [Part],
        deadline: Instant,
        ended: &mut Ended,
        progress: OnProgress<'_>,
    ) {
        let missing = |part: &Part| -> Vec<Identifier> {
            let kept = self.state.databases.get(&part.entry.id);
            let is_missing = |contact: &&Identifier| {
                kept.is_none_or(|kept| !kept.derived.contains_key(contact.as_str()))
            };
            match part.entry.blinding_key {
                Some(_) => part.new.iter().filter(is_missing).cloned().collect(),
                None => Vec::new(),
            }
        };
        let missing: Vec<Vec<Identifier>> = parts.iter().map(missing).collect();
        let total: usize = missing.iter().map(|missing| missing.len().div_ceil(ELEMENTS)).sum();
        let (mut done, mut is_over) = (0, false);
        for (part, missing) in parts.iter_mut().zip(missing) {
            for contacts in missing.chunks(ELEMENTS) {
                if is_over {
                    break;
                }
                let evaluate = self.evaluate_some(&part.entry, contacts);
                let evaluated = timeout_at(deadline, evaluate).await;
                match evaluated.unwrap_or(Err(ResolveError::TimeOver)) {
                    Ok(()) => {
                        done += 1;
                        progress(Progress::Evaluated { done, total });
                    }
                    // Another database has another evaluator, and look-ups another quota.
                    Err(error) => {
                        is_over = error.ends_the_call();
                        ended.note(error);
                        break;
                    }
                }
            }
            let kept = self.state.database(&part.entry.id);
            if part.entry.blinding_key.is_some() {
                part.new.retain(|contact| kept.derived.contains_key(contact.as_str()));
            }
        }
    }

    /// Has at most sixteen contacts evaluated, and keeps what is derived of them at once.
    async fn evaluate_some(
        &mut self,
        entry: &Database,
        contacts: &[Identifier],
    ) -> Result<(), ResolveError> {
        let failed = |error: BlindError| ResolveError::Blind { database: entry.id.clone(), error };
        let key = entry.blinding_key.expect("this is a bug: keys are plain").0;
        // What fills up is blinded by other factors: no element tells that it is of one contact.
        let filled: Vec<Identifier> = contacts.iter().cycle().take(ELEMENTS).cloned().collect();
        let (blinded, elements) = compute(move || blind(&filled)).await?.map_err(failed)?;
        let elements = elements.try_into().expect("this is a bug: sixteen were blinded");
        let request = InnerRequest {
            method: "POST".into(),
            path: "/evaluate".into(),
            content_type: Some(PROTOBUF_TYPE.into()),
            body: EvaluateRequest { database: entry.id.clone(), elements }.encode(),
        };
        let max = crate::limits::EVALUATE_BODY_BYTES_MAX;
        let reply = self.exchange.ask(Kind::Evaluate, (&request, 0), max, &mut false).await?;
        let body = expect_ok(Kind::Evaluate, reply)?;
        let reply = EvaluateResponse::decode(&body).map_err(|error| ResolveError::Reply {
            what: Kind::Evaluate.name(),
            problem: error.to_string(),
        })?;
        let evaluated = Evaluated { elements: reply.elements.to_vec(), proof: reply.proof };
        let finalize = move || blinded.finalize(&evaluated, &key);
        let derived = compute(finalize).await?.map_err(failed)?;
        let kept = self.state.database(&entry.id);
        for (contact, derived) in contacts.iter().zip(derived) {
            kept.derived.insert(contact.as_str().to_owned(), derived.as_bytes().to_vec());
        }
        self.report.evaluated += contacts.len();
        self.save().await
    }

    /// Leaves out the contacts that their routing filters rule out. Where a filter is refused or
    /// cannot be fetched, contacts stay new.
    async fn rule_out(&mut self, parts: &mut [Part], ended: &mut Ended) {
        let asked = self.exchange.now();
        for part in parts.iter_mut().filter(|part| part.entry.blinding_key.is_some()) {
            let (id, epoch) = (part.entry.id.clone(), part.epoch());
            let kept = self.state.database(&id);
            let refreshed = self.filters.refresh(&self.exchange, &part.entry, kept, epoch).await;
            if let Err(error) = refreshed {
                part.new.clear();
                ended.note(error);
            }
            let is_out = |contact: &Identifier| self.is_ruled_out(&id, contact);
            let (out, new) = std::mem::take(&mut part.new).into_iter().partition(is_out);
            part.new = new;
            self.report.ruled_out += out.len();
            for contact in out {
                let answers =
                    &mut self.resolved.entry(contact.as_str().into()).or_default().answers;
                answers.insert(id.clone(), Answer { asked, finding: Finding::Absent });
            }
        }
    }

    /// Whether the filter of a database says that it does not have a contact.
    fn is_ruled_out(&self, database: &str, contact: &Identifier) -> bool {
        let slot = Slot { contact: contact.as_str().to_owned(), ..Slot::default() };
        let key = self.key(database, &slot);
        key.is_some_and(|key| self.filters.rules_out(database, &key))
    }

    /// Gives new contacts their slots.
    fn deal(&mut self, parts: &[Part]) -> Result<(), ResolveError> {
        let now = self.exchange.now();
        let device_key = self.state.device_key();
        for Part { entry, held, new } in parts {
            let known = held.known();
            let (Some(parameters), false) = (known.parameters(), new.is_empty()) else { continue };
            let shard_of = |key: &[u8]| known.shard(key).unwrap_or(0);
            let newcomer = |contact: &Identifier| {
                let contact = contact.as_str().to_owned();
                let slot = Slot { contact: contact.clone(), ..Slot::default() };
                Some(Newcomer { shard: shard_of(self.key(&entry.id, &slot)?.as_slice()), contact })
            };
            let newcomers = new.iter().filter_map(newcomer).collect();
            let dummies = Dummies {
                device_key: &device_key,
                database: &entry.id,
                shard_count: parameters.shard_count(),
                shard_of,
            };
            deal(self.state.database(&entry.id), newcomers, &dummies, now)?;
        }
        Ok(())
    }

    /// Puts batches off whose time has come: all where something is new, otherwise all but one.
    fn put_off(&mut self, parts: &[Part]) -> Result<(), ResolveError> {
        let now = self.exchange.now();
        let is_part = |name: &String| parts.iter().any(|part| part.entry.id == *name);
        let databases = self.state.databases.iter_mut().filter(|(name, _)| is_part(name));
        let due = databases.flat_map(|(_, kept)| &mut kept.batches);
        let due = due.filter(|batch| is_due(batch.due, now));
        let (mut again, new): (Vec<_>, Vec<_>) = due.partition(|batch| batch.is_asked);
        again.sort_by_key(|batch| batch.due);
        for batch in again.into_iter().skip(usize::from(new.is_empty())) {
            batch.due = put_off(now)?;
            self.report.batches_put_off += 1;
        }
        Ok(())
    }

    /// The batches of a database to ask, with their places; with `only`, those that were never
    /// asked for it.
    fn due<'a>(
        &'a self,
        database: &str,
        only: Option<&'a Identifier>,
    ) -> impl Iterator<Item = (usize, &'a Batch)> {
        let now = self.exchange.now();
        let kept = self.state.databases.get(database);
        let batches = kept.into_iter().flat_map(|kept| kept.batches.iter().enumerate());
        batches.filter(move |(_, batch)| {
            is_due(batch.due, now) && only.is_none_or(|only| is_new_with(batch, only))
        })
    }

    /// The batches to ask, in random order. Of more than a call may send the rest remains due.
    fn jobs(&self, parts: &[Part], only: Option<&Identifier>) -> Result<Vec<Job>, ResolveError> {
        let mut jobs = Vec::new();
        for Part { entry, held, .. } in parts {
            for (index, batch) in self.due(&entry.id, only) {
                let keys = batch.slots.iter().map(|slot| self.key(&entry.id, slot));
                let keys: Option<Vec<_>> = keys.collect();
                let keys = keys.expect("this is a bug: a slot of a contact without its key");
                jobs.push(Some(Job { database: held.clone(), index, keys }));
            }
        }
        let order = random_permutation(jobs.len())?;
        let order = order.into_iter().take(SYNC_BATCHES_MAX);
        Ok(order.filter_map(|at| jobs[at].take()).collect())
    }

    /// Draws again what no clock that is right could have drawn.
    fn check_due_times(&mut self) -> Result<(), ResolveError> {
        let now = self.exchange.now();
        let kept = self.state.databases.values_mut();
        for batch in kept.flat_map(|kept| &mut kept.batches) {
            if is_too_late(batch.due, now) {
                batch.due = next_due(now)?;
            }
        }
        Ok(())
    }

    /// Hands the state to its file. A call that is dropped meanwhile changes nothing: the content
    /// is written, or a later one is.
    async fn save(&mut self) -> Result<(), ResolveError> {
        let sealed = self.state.seal(&self.state_key)?;
        self.writes += 1;
        let (store, number) = (self.store.clone(), self.writes);
        compute(move || store.write(number, &sealed)).await??;
        Ok(())
    }

    /// Decodes and opens all answers, now that the last one is there; keeps them; then gives them
    /// out. A batch that the front-end may have seen is due again at a random time, whatever came
    /// of it; one that it never saw remains due.
    async fn finish(
        &mut self,
        asked: Vec<Asked>,
        directory: Arc<Directory>,
        ended: &mut Ended,
    ) -> Result<(), ResolveError> {
        let now = self.exchange.now();
        let mut closed = Vec::new();
        for asked in asked {
            self.write_known(&asked.database);
            if asked.may_have_arrived {
                // Before anything is opened, so that no opening could end in another time.
                let due = next_due(now)?;
                let name = &asked.database.name;
                let batch = &mut self.state.database(name).batches[asked.index];
                (batch.due, batch.is_asked) = (due, true);
                let batch = &self.state.databases[name].batches[asked.index];
                closed.push(Closed {
                    members: batch.slots.iter().map(|slot| self.member(&asked, slot)).collect(),
                    database: asked.database.name.clone(),
                    index: asked.index,
                    batch: asked.batch,
                    reason: asked.error.as_ref().map(ToString::to_string),
                });
            }
            // A batch that failed on its way is counted. What is not counted is told.
            let may_have_arrived = asked.may_have_arrived;
            let is_told = |error: &ResolveError| error.is_refusal() || !may_have_arrived;
            if let Some(error) = asked.error.filter(is_told) {
                ended.note(error);
            }
        }
        let opened = compute(move || open_all(closed, &directory, now)).await?;
        let mut given = Vec::new();
        for opened in opened {
            self.keep(opened, now, &mut given);
        }
        self.save().await?;
        for (contact, database, answer) in given {
            self.resolved.entry(contact).or_default().answers.insert(database, answer);
        }
        Ok(())
    }

    fn member(&self, asked: &Asked, slot: &Slot) -> Option<Member> {
        if slot.contact.is_empty() {
            return None;
        }
        let kept = &self.state.databases[&asked.database.name];
        Some(Member {
            contact: Identifier::parse(&slot.contact, None).ok()?,
            derived: kept.derived_key(&slot.contact),
        })
    }

    /// Notes what a batch said in the state and in the report.
    fn keep(&mut self, opened: Opened, now: u64, given: &mut Vec<(String, String, Answer)>) {
        let Opened { database, index, answers } = opened;
        let batch = &mut self.state.database(&database).batches[index];
        self.report.batches += 1;
        for (slot, answer) in batch.slots.iter_mut().zip(answers) {
            let (stored, finding) = match answer {
                None => {
                    self.report.dummies += 1;
                    continue;
                }
                Some(Err(reason)) => {
                    self.report.count_failed(reason);
                    continue;
                }
                Some(Ok(said)) => said,
            };
            self.report.count_finding(&finding);
            // What cannot be believed does not replace what was verified and still holds.
            let was = self.resolved.get(&slot.contact).and_then(|it| it.answers.get(&database));
            let holds = was.is_some_and(|was| was.holds(now));
            if holds && matches!(finding, Finding::Invalid | Finding::Refused(_)) {
                continue;
            }
            slot.answer = Some(stored);
            given.push((slot.contact.clone(), database.clone(), Answer { asked: now, finding }));
        }
    }

    /// Opens again what was kept, if the directory still holds.
    pub(super) fn open_kept(&mut self) {
        let now = self.exchange.now();
        let file = &self.state.directory;
        let Ok(directory) = Directory::open(file, &self.directory_pins, now) else { return };
        for (name, kept) in &self.state.databases {
            for slot in kept.batches.iter().flat_map(|batch| &batch.slots) {
                let Some(stored) = &slot.answer else { continue };
                let Ok(contact) = Identifier::parse(&slot.contact, None) else { continue };
                let derived = kept.derived_key(&slot.contact);
                let member = Member { contact, derived };
                let finding = member.finding(stored, &directory, now);
                let answers = &mut self.resolved.entry(slot.contact.clone()).or_default().answers;
                answers.insert(name.clone(), Answer { asked: stored.asked, finding });
            }
        }
        self.directory = Some(Arc::new(directory));
    }

    /// Whether a contact has been asked for in every database that covers it, as far as is known.
    pub(super) fn is_settled(&self, contact: &Identifier) -> bool {
        let now = self.exchange.now();
        let Some(directory) = &self.directory else { return false };
        let one = std::slice::from_ref(contact);
        let is_settled = |entry: &Database| {
            // Who has no slot and yet an answer was ruled out by a filter.
            let has_answer =
                self.contact(contact).is_some_and(|it| it.answers.contains_key(&entry.id));
            let is_placed = has_answer || self.without_slot(&entry.id, one).is_empty();
            is_placed && self.due(&entry.id, Some(contact)).next().is_none()
        };
        let mut covering =
            directory.content().databases.iter().filter(|entry| entry.covers(contact));
        directory.content().expires > now && covering.all(is_settled)
    }
}

/// Whether a batch was never asked and has a contact.
fn is_new_with(batch: &Batch, contact: &Identifier) -> bool {
    !batch.is_asked && batch.slots.iter().any(|slot| slot.contact == contact.as_str())
}
