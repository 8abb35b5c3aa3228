//! What a server is like now: whether it is alive and ready, and its gauges. Read by `admin`.
//!
//! A server is alive unless all its engines hang in a call. It is ready unless it shuts down,
//! clients refuse its database by the dates, or an engine that takes queries has not passed its
//! known-answer test lately. A device that failed and is being recreated takes no queries: it is
//! named, and does not make the server unready while another engine answers.

use std::sync::PoisonError;
use std::time::{Duration, Instant, UNIX_EPOCH};

use super::bounds::MemoryBudget;
use super::machine::{cpu_time, resident_bytes};
use super::reload::EpochState;
use super::service::{Service, unix_now};
use crate::limits;
use crate::metrics::Gauges;
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
    /// What the dates of the served epoch say at `now` (unix seconds): an expired one is refused by
    /// every client, so who asks should ask elsewhere; in the last quarter it is named.
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
    pub(super) fn readiness(&self) -> Readiness {
        let mut readiness =
            of_engines(&self.queue.engines(Instant::now()), self.bounds.prove_every);
        if self.draining() {
            readiness.missing.insert(0, "the server is leaving".into());
        }
        let EpochState { served, expected, lifetime, shards, quarantined_shards, .. } =
            self.epoch_state();
        readiness.add_lifetime(lifetime, unix_now());
        if served != expected {
            readiness.notes.push(format!("epoch {served} is served, {expected} is on disk"));
        }
        if let Some(refused) = self.refused_reload() {
            readiness.notes.push(format!("what is on disk is refused: {refused}"));
        }
        match quarantined_shards {
            0 => {}
            all if all >= shards as usize => {
                readiness.missing.push(format!("all {shards} shards are damaged and taken out"));
            }
            some => readiness.notes.push(format!("{some} shards are damaged and taken out")),
        }
        readiness
    }

    /// Why the last reload changed nothing; none where it succeeded.
    pub(super) fn refused_reload(&self) -> Option<String> {
        self.refused_reload.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What is taken of the memory that is budgeted, by its parts. Of connections it is what they
    /// may have on the way.
    pub(super) fn memory_used(&self) -> MemoryBudget {
        let streams = *self.streams.borrow();
        let bundles = self.bundles().count() * self.shape.bundle_bytes();
        MemoryBudget {
            connections: self.bounds.connection_bytes(&self.shape, self.connected(), streams),
            requests: self.reading.taken() as u64,
            bundles: bundles as u64 / 3 * 4,
            queries: self.queue.queued_bytes() as u64,
            answers: self.answers.taken() as u64,
        }
    }

    pub(super) fn is_alive(&self) -> bool {
        is_alive(&self.queue.engines(Instant::now()))
    }

    pub(super) fn connected(&self) -> usize {
        self.connections.count()
    }

    /// When the served certificate expires, in seconds since 1970; none where it does not say.
    pub(super) fn certificate_expiry(&self) -> Option<i64> {
        *self.certificate_expires.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(super) fn gauges(&self) -> Gauges {
        let engines = self.queue.engines(Instant::now());
        let devices = || {
            engines.iter().filter_map(|engine| match engine.kind {
                EngineKind::Processor => None,
                EngineKind::Device(held) => Some((engine.state, held)),
            })
        };
        let in_state = |wanted| devices().filter(|&(state, _)| state == wanted).count();
        let state = self.epoch_state();
        let started = self.started.1.duration_since(UNIX_EPOCH).unwrap_or_default();
        // Not below: there the locks would be held until all is read, and others lock them again.
        let (streams, bundles) = (*self.streams.borrow(), self.bundles().count());
        Gauges {
            connections: self.connected(),
            streams,
            bundles,
            queued_queries: self.queue.queued(),
            queued_bytes: self.queue.queued_bytes(),
            shards: state.shards,
            resident_shards: devices().map(|(_, held)| held.shards).sum(),
            resident_bytes: devices().map(|(_, held)| held.bytes).sum(),
            devices_up: in_state(EngineState::Up),
            devices_down: in_state(EngineState::Down),
            served_epoch: state.served,
            expected_epoch: state.expected,
            database_created_timestamp_seconds: state.lifetime.created,
            database_expiry_timestamp_seconds: state.lifetime.expires,
            quarantined_shards: state.quarantined_shards,
            scrub_age_seconds: state.scrub_age.as_secs_f64(),
            certificate_expiry_timestamp_seconds: self.certificate_expiry(),
            memory_budget_bytes: self.bounds.memory(&self.shape).parts().into(),
            memory_used_bytes: self.memory_used().parts().into(),
            machine_memory_bytes: self.machine_bytes,
            draining: self.draining(),
            ready: self.readiness().missing.is_empty(),
            start_time_seconds: started.as_secs_f64(),
            process_cpu_seconds: cpu_time().as_secs_f64(),
            process_resident_memory_bytes: resident_bytes().unwrap_or_default(),
        }
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
