//! The connections that are open, and which of them goes when there is one too many.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::bounds::Bounds;
use super::phase::{Phase, State};
use crate::limits;

/// All connections of a server.
pub(super) struct Table {
    bounds: Bounds,
    places: Mutex<Places>,
}

#[derive(Default)]
struct Places {
    /// Rises with every connection.
    next: u64,
    handshakes: BTreeMap<u64, AbortHandle>,
    open: HashMap<u64, Open>,
}

struct Open {
    state: Arc<State>,
    task: AbortHandle,
    settings: u64,
    begun: Instant,
}

/// The place of one connection, which is free when this is dropped.
pub(super) struct Place {
    table: Arc<Table>,
    id: u64,
}

/// What became of a connection that wants to be open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entered {
    Free,
    /// Another one was ended for it.
    Displaced,
    Refused,
}

impl Table {
    pub(super) fn new(bounds: Bounds) -> Arc<Self> {
        Arc::new(Self { bounds, places: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the task of a connection that is in its handshake. Whether the oldest handshake was
    /// ended for it.
    pub(super) fn begin(self: &Arc<Self>, spawn: impl FnOnce(Place) -> AbortHandle) -> bool {
        let mut places = self.lock();
        let full = places.handshakes.len() >= self.bounds.handshakes;
        let oldest = if full { places.handshakes.pop_first() } else { None };
        let id = places.next;
        places.next += 1;
        // Its place is dropped only when this lock is free, and so after it was entered.
        let task = spawn(Place { table: self.clone(), id });
        places.handshakes.insert(id, task);
        drop(places);
        oldest.is_some_and(|(_, task)| {
            task.abort();
            true
        })
    }

    /// Connections that have waited for their peer for too long, or that are idle and are not to
    /// get another request (`is_outdated`, of their settings and their beginning): each is ended.
    /// Their phases.
    pub(super) fn sweep(
        &self,
        now: Instant,
        is_outdated: impl Fn(u64, Instant) -> bool,
    ) -> Vec<Phase> {
        let mut ended = Vec::new();
        for open in self.lock().open.values() {
            let (phase, since) = open.state.get();
            let time_max = phase.time_max(&self.bounds);
            let late = time_max.is_some_and(|time_max| now.duration_since(since) >= time_max);
            if late || phase == Phase::Idle && is_outdated(open.settings, open.begun) {
                ended.push((phase, open.task.clone()));
            }
        }
        let end = |(phase, task): (Phase, AbortHandle)| {
            task.abort();
            phase
        };
        ended.into_iter().map(end).collect()
    }
}

impl Place {
    /// The handshake is done. Where there is one connection too many, one that waits for its peer
    /// goes: one that has asked nothing for [`limits::QUIET_TIME`], or else any, and of these the
    /// one that has waited for longest. So a new one has time to ask, and who sends or takes slowly
    /// goes before it.
    pub(super) fn open(&self, state: &Arc<State>, settings: u64, begun: Instant) -> Entered {
        let mut places = self.table.lock();
        let Some(task) = places.handshakes.remove(&self.id) else { return Entered::Refused };
        let mut entered = Entered::Free;
        if places.open.len() >= self.table.bounds.connections {
            let ranked = places.open.iter().filter_map(|(id, open)| {
                let (phase, since) = open.state.get();
                let is_quiet = begun.duration_since(since) >= limits::QUIET_TIME;
                let goes_later = match phase {
                    Phase::Idle | Phase::Head => !is_quiet,
                    Phase::Body | Phase::Sending | Phase::Flushing => true,
                    Phase::Working => return None,
                };
                Some((goes_later, since, *id))
            });
            let Some((_, _, first)) = ranked.min() else { return Entered::Refused };
            if let Some(open) = places.open.remove(&first) {
                open.task.abort();
            }
            entered = Entered::Displaced;
        }
        let state = state.clone();
        places.open.insert(self.id, Open { state, task, settings, begun });
        entered
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut places = self.table.lock();
        places.handshakes.remove(&self.id);
        places.open.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::oneshot;
    use tokio::task::JoinHandle;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    struct Connection {
        place: Option<Place>,
        task: JoinHandle<()>,
    }

    fn table(connections: usize, handshakes: usize) -> Arc<Table> {
        let [handshake_time, head_time, idle_time, body_time] =
            [5, 10, 20, 30].map(|part| LONG / part);
        Table::new(Bounds {
            connections,
            handshakes,
            handshake_time,
            head_time,
            idle_time,
            body_time,
        })
    }

    /// A connection in its handshake, whose task waits for ever.
    fn begin(table: &Arc<Table>) -> (Connection, bool) {
        let (mut place, mut task) = (None, None);
        let displaced = table.begin(|given| {
            place = Some(given);
            let spawned = tokio::spawn(std::future::pending());
            let abort = spawned.abort_handle();
            task = Some(spawned);
            abort
        });
        (Connection { place, task: task.unwrap() }, displaced)
    }

    impl Connection {
        fn open(&self, state: &Arc<State>, now: Instant) -> Entered {
            self.place.as_ref().unwrap().open(state, 0, now)
        }

        async fn has_ended(self) -> bool {
            let (send, ended) = oneshot::channel::<()>();
            // What was ended before this ends before it: one thread runs all.
            tokio::spawn(async { drop(send) });
            let _ = ended.await;
            self.task.is_finished()
        }
    }

    #[tokio::test]
    async fn one_handshake_too_many_ends_the_oldest() {
        let table = table(10, 2);
        let [first, second, third] = [begin(&table), begin(&table), begin(&table)];
        assert_eq!([first.1, second.1, third.1], [false, false, true]);
        // Its place is another's, whatever it still does.
        let state = Arc::new(State::new(Instant::now()));
        assert_eq!(first.0.open(&state, Instant::now()), Entered::Refused);
        assert!(first.0.has_ended().await);
        drop(second.0.place);
        assert!(!begin(&table).1);
        assert!(!third.0.has_ended().await);
    }

    #[tokio::test]
    async fn who_has_kept_the_server_waiting_longest_goes() {
        let begin_at = Instant::now();
        let at = |millis| begin_at + Duration::from_millis(millis);
        type Enter = fn(&State, Instant);
        let idle: Enter = |_, _| ();
        let head: Enter = |state, now| state.heard(now);
        let body: Enter = |state, now| state.asked(now);
        let working: Enter = |state, now| {
            state.asked(now);
            state.received(now);
        };
        let sending: Enter = |state, now| state.answering(now);
        // Since when each is in its phase, and which goes at 5 s.
        type Case = ([(Enter, u64); 3], Option<usize>);
        let cases: [Case; 7] = [
            ([(idle, 3), (idle, 2), (idle, 1)], Some(2)),
            ([(body, 1_000), (idle, 3_000), (sending, 2_000)], Some(1)),
            ([(body, 1_000), (head, 3_500), (idle, 3_700)], Some(1)),
            ([(body, 2_000), (idle, 4_500), (sending, 1_000)], Some(2)),
            ([(working, 0), (idle, 4_999), (working, 0)], Some(1)),
            ([(working, 0), (body, 4_999), (working, 0)], Some(1)),
            ([(working, 0), (working, 0), (working, 0)], None),
        ];
        for (case, (phases, goes)) in cases.into_iter().enumerate() {
            let table = table(3, 10);
            let mut connections = Vec::new();
            for (enter, since) in phases {
                let (connection, state) = (begin(&table).0, Arc::new(State::new(at(since))));
                assert_eq!(connection.open(&state, at(since)), Entered::Free);
                enter(&state, at(since));
                connections.push(connection);
            }
            let state = Arc::new(State::new(at(5_000)));
            let entered = begin(&table).0.open(&state, at(5_000));
            let expected = if goes.is_some() { Entered::Displaced } else { Entered::Refused };
            assert_eq!(entered, expected, "case {case}");
            for (index, connection) in connections.into_iter().enumerate() {
                assert_eq!(connection.has_ended().await, goes == Some(index), "case {case}");
            }
        }
    }

    #[tokio::test]
    async fn a_sweep_ends_who_is_late_or_outdated() {
        let table = table(10, 10);
        let now = Instant::now();
        let states: Vec<_> = (0..3).map(|_| Arc::new(State::new(now))).collect();
        states[1].heard(now);
        states[2].asked(now);
        states[2].received(now);
        let connections: Vec<_> = states.iter().map(|_| begin(&table).0).collect();
        for (connection, state) in connections.iter().zip(&states) {
            connection.open(state, now);
        }
        let swept = |after: Duration, outdated| {
            let mut phases = table.sweep(now + after, |_, _| outdated);
            phases.sort_by_key(|phase| *phase as u8);
            phases
        };
        let second = Duration::from_secs(1);
        assert_eq!(swept(2 * second, false), []);
        assert_eq!(swept(2 * second, true), [Phase::Idle]);
        assert_eq!(swept(3 * second, false), [Phase::Idle]);
        assert_eq!(swept(10_000 * second, false), [Phase::Idle, Phase::Head]);
        states[2].answering(now);
        assert_eq!(swept(2 * second, false), [Phase::Sending]);
    }
}
