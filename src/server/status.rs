//! What a server is like now: whether it is alive and ready, and its gauges. Read by `admin`.
//!
//! A server is alive unless all its engines hang in a call. It is ready unless it shuts down,
//! clients refuse its database by the dates, or an engine that takes queries has not passed its
//! known-answer test lately. A device that failed and is being recreated takes no queries: it is
//! named, and does not make the server unready while another engine answers.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, UNIX_EPOCH};

use super::bounds::MemoryBudget;
use super::machine::{cpu_time, machine_bytes, resident_bytes};
use super::reload::EpochState;
use super::service::{Service, unix_now};
use crate::limits;
use crate::metrics::Families;
use crate::wire::Lifetime;
use crate::worker::{EngineKind, EngineReport, EngineState};

/// Whether a server should be asked.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Readiness {
    /// Why not; nothing if it should.
    pub(super) missing: Vec<String>,
    /// What an operator should know all the same.
    pub(super) notes: Vec<String>,
}

impl Readiness {
    /// Clients refuse an expired epoch; one in its last quarter is named. `now` in unix seconds.
    fn add_lifetime(&mut self, lifetime: Lifetime, now: u64) {
        match lifetime.check(now) {
            Err(error) => self.missing.push(format!("the database {error}")),
            Ok(()) if lifetime.is_ending(now) => {
                let hours = lifetime.left(now) / 3_600;
                self.notes.push(format!(
                    "clients refuse the database in {hours} h: sign it again (`sotto renew`)"
                ));
            }
            Ok(()) => {}
        }
    }
}

impl Service {
    pub(super) fn epoch_state(&self) -> EpochState {
        EpochState {
            served: self.epochs.epoch(),
            staged: self.epochs.staged().map(|staged| staged.epoch()),
            expected: self.expected_epoch.load(Ordering::Relaxed),
            quarantined_shards: self.epochs.quarantined(),
        }
    }

    pub(super) fn readiness(&self) -> Readiness {
        let mut readiness =
            of_engines(&self.queue.engines(Instant::now()), self.bounds.prove_every);
        if self.draining() {
            readiness.missing.insert(0, "the server is leaving".into());
        }
        let database = self.epochs.database();
        let EpochState { served, expected, quarantined_shards, .. } = self.epoch_state();
        readiness.add_lifetime(database.manifest().lifetime(), unix_now());
        if served != expected {
            readiness.notes.push(format!("epoch {served} is served, {expected} is on disk"));
        }
        if let Some(refused) = self.refused_reload() {
            readiness.notes.push(format!("what is on disk is refused: {refused}"));
        }
        match quarantined_shards {
            0 => {}
            all if all >= database.held().len() => {
                readiness.missing.push(format!("all {all} shards are damaged and taken out"));
            }
            some => readiness.notes.push(format!("{some} shards are damaged and taken out")),
        }
        readiness
    }

    /// Why the last reload changed nothing; none where it succeeded.
    pub(super) fn refused_reload(&self) -> Option<String> {
        self.refused_reload.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What is taken of the budget; of connections it is what they may have on the way.
    pub(super) fn memory_used(&self) -> MemoryBudget {
        let streams = *self.streams.borrow();
        let bundles = self.bundles().count() * self.shape.bundle_bytes();
        MemoryBudget {
            connections: self.bounds.connection_bytes(
                &self.shape,
                self.connections.count(),
                streams,
            ),
            requests: self.reading.taken() as u64,
            bundles: bundles as u64 / 3 * 4,
            queries: self.queue.queued_bytes() as u64,
            answers: self.answers.taken() as u64,
        }
    }

    pub(super) fn is_alive(&self) -> bool {
        is_alive(&self.queue.engines(Instant::now()))
    }

    pub(super) fn certificate_expiry(&self) -> Option<i64> {
        *self.certificate_expires.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add_gauges(&self, families: &mut Families) {
        let engines = self.queue.engines(Instant::now());
        let devices = engines.iter().filter_map(|engine| match engine.kind {
            EngineKind::Processor => None,
            EngineKind::Device(held) => Some((engine.state, held)),
        });
        let devices: Vec<_> = devices.collect();
        let in_state = |wanted| devices.iter().filter(|(state, _)| *state == wanted).count() as f64;
        let shards_on_devices: usize = devices.iter().map(|(_, held)| held.shards).sum();
        let bytes_on_devices: u64 = devices.iter().map(|(_, held)| held.bytes).sum();
        let database = self.epochs.database();
        let EpochState { served, staged, expected, quarantined_shards } = self.epoch_state();
        let Lifetime { created, expires } = database.manifest().lifetime();
        let started = self.started.1.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let mut gauge = |name, help, value| families.gauge(name, help, value);
        gauge("sotto_connections", "Connections served now", self.connections.count() as f64);
        gauge("sotto_streams", "Request streams open now", *self.streams.borrow() as f64);
        gauge("sotto_bundles", "Key bundles kept now", self.bundles().count() as f64);
        gauge(
            "sotto_queued_queries",
            "Queries that wait for an engine",
            self.queue.queued() as f64,
        );
        gauge("sotto_queued_bytes", "Memory they may take", self.queue.queued_bytes() as f64);
        gauge("sotto_shards", "Shards that are held", database.held().len() as f64);
        let help = "Shards on devices, each device's";
        gauge("sotto_resident_shards", help, shards_on_devices as f64);
        let help = "Memory of devices that shards take";
        gauge("sotto_resident_bytes", help, bytes_on_devices as f64);
        gauge(
            "sotto_start_time_seconds",
            "When the server was started, seconds since 1970",
            started,
        );
        gauge("sotto_served_epoch", "Epoch that is answered from", served as f64);
        let help = "Newest epoch that is answered, though clients may not be told of it yet";
        gauge("sotto_staged_epoch", help, staged.unwrap_or(served) as f64);
        gauge("sotto_expected_epoch", "Epoch on disk, as far as it was looked at", expected as f64);
        let help = "When the served epoch was signed, since 1970";
        gauge("sotto_database_created_timestamp_seconds", help, created as f64);
        let help = "When clients refuse it, since 1970";
        gauge("sotto_database_expiry_timestamp_seconds", help, expires as f64);
        let help = "Shards not served because their files are damaged";
        gauge("sotto_quarantined_shards", help, quarantined_shards as f64);
        let help = "Time since every byte was last found undamaged, or since the start";
        let scrub_begun = self.scrub_begun.lock().unwrap_or_else(PoisonError::into_inner);
        gauge("sotto_scrub_age_seconds", help, scrub_begun.elapsed().as_secs_f64());
        drop(scrub_begun);
        let help = "When the served certificate expires, seconds since 1970";
        let expiry = self.certificate_expiry().map_or(f64::NAN, |seconds| seconds as f64);
        gauge("sotto_certificate_expiry_timestamp_seconds", help, expiry);
        let help = "Memory that the process may have: the machine's or its control group's";
        let machine = machine_bytes().map_or(f64::NAN, |bytes| bytes as f64);
        gauge("sotto_machine_memory_bytes", help, machine);
        gauge("sotto_draining", "Whether the server is leaving", f64::from(self.draining()));
        let ready = f64::from(self.readiness().missing.is_empty());
        gauge("sotto_ready", "Whether the server should be sent queries", ready);
        let help = "Memory of the process, with the pages of shards it looks at";
        let resident = resident_bytes().unwrap_or_default() as f64;
        gauge("process_resident_memory_bytes", help, resident);
        let states = [("up", in_state(EngineState::Up)), ("down", in_state(EngineState::Down))];
        families.gauges("sotto_devices", "Devices such as GPUs", "state", &states);
        let parts = |memory: MemoryBudget| memory.parts().map(|(part, bytes)| (part, bytes as f64));
        let help = "Most memory that connections and queues may take, by part";
        let budget = parts(self.bounds.memory(&self.shape));
        families.gauges("sotto_memory_budget_bytes", help, "part", &budget);
        let help = "Memory of it that is taken, by part";
        families.gauges("sotto_memory_used_bytes", help, "part", &parts(self.memory_used()));
        families.process_cpu_seconds(cpu_time().as_secs_f64());
    }
}

fn is_alive(engines: &[EngineReport]) -> bool {
    let hung = |engine: &EngineReport| engine.busy.is_some_and(|busy| busy >= limits::HUNG_AFTER);
    engines.is_empty() || !engines.iter().all(hung)
}

fn of_engines(engines: &[EngineReport], asked_every: Option<Duration>) -> Readiness {
    let mut readiness = Readiness::default();
    let up = |engine: &&EngineReport| engine.state == EngineState::Up;
    for engine in engines.iter().filter(|engine| !up(engine)) {
        readiness.notes.push(format!("{} failed and is being recreated", engine.name));
    }
    if !engines.iter().any(|engine| up(&engine)) {
        readiness.missing.push("no engine takes queries".into());
    }
    for engine in engines.iter().filter(up).filter(|_| asked_every.is_some()) {
        let name = &engine.name;
        let missing = match engine.proven {
            Some(ago) if ago <= limits::PROVEN_WITHIN => continue,
            Some(ago) => {
                format!("{name} last passed its known-answer test {} s ago", ago.as_secs())
            }
            None => format!("{name} has not passed its known-answer test"),
        };
        readiness.missing.push(missing);
    }
    readiness
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::StoreUse;

    fn engine(name: &str, kind: EngineKind, proven_s: Option<u64>) -> EngineReport {
        let proven = proven_s.map(Duration::from_secs);
        EngineReport { name: name.into(), kind, state: EngineState::Up, busy: None, proven }
    }

    #[test]
    fn who_takes_queries_has_to_be_right_about_a_known_one() {
        let every = Some(limits::PROVE_EVERY);
        let device = EngineKind::Device(StoreUse::default());
        let within = limits::PROVEN_WITHIN.as_secs();
        let mut engines = vec![
            engine("cpu", EngineKind::Processor, Some(within)),
            engine("gpu", device, Some(0)),
        ];
        assert_eq!(of_engines(&engines, every), Readiness::default());
        engines[0].proven = Some(Duration::from_secs(within + 1));
        engines[1].proven = None;
        let missing = of_engines(&engines, every).missing;
        let expected = [
            "cpu last passed its known-answer test 16 s ago",
            "gpu has not passed its known-answer test",
        ];
        assert_eq!(missing, expected);
        assert_eq!(of_engines(&engines, None), Readiness::default(), "nobody is asked");
        // A device that failed takes nothing, and is named.
        engines[0].proven = Some(Duration::ZERO);
        engines[1].state = EngineState::Down;
        let Readiness { missing, notes } = of_engines(&engines, every);
        assert_eq!((missing.len(), notes), (0, vec!["gpu failed and is being recreated".into()]));
        let alone = of_engines(&engines[1..], every);
        assert_eq!(alone.missing, ["no engine takes queries"]);
    }

    #[test]
    fn a_database_is_named_in_its_last_quarter_and_is_not_ready_after() {
        let lifetime = Lifetime { created: 1_000, expires: 401_000 };
        let at = |now| {
            let mut readiness = Readiness::default();
            readiness.add_lifetime(lifetime, now);
            readiness
        };
        for fresh in [1_000, 701, 300_999] {
            assert_eq!(at(fresh), Readiness::default(), "{fresh}");
        }
        for ending in [301_000, 401_000] {
            let Readiness { missing, notes } = at(ending);
            assert_eq!((missing.len(), notes.len()), (0, 1), "{ending}");
        }
        assert!(at(301_000).notes[0].contains("in 27 h"), "{:?}", at(301_000));
        let Readiness { missing, notes } = at(401_001);
        assert_eq!((missing.len(), notes.len()), (1, 0));
        assert!(missing[0].starts_with("the database expired 1 s ago"), "{missing:?}");
        assert!(at(600).missing[0].contains("after this machine's clock"));
    }

    #[test]
    fn one_engine_that_gets_done_is_enough_to_be_alive() {
        let mut engines = [1, 2].map(|_| engine("cpu", EngineKind::Processor, None)).to_vec();
        assert!(is_alive(&engines) && is_alive(&[]));
        engines[0].busy = Some(limits::HUNG_AFTER);
        assert!(is_alive(&engines));
        engines[1].busy = Some(limits::HUNG_AFTER - Duration::from_millis(1));
        assert!(is_alive(&engines));
        engines[1].busy = Some(limits::HUNG_AFTER);
        assert!(!is_alive(&engines));
    }
}
