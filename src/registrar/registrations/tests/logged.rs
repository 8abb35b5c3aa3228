//! What is vouched for waits for the log, and what happens to registrations is reported once.

use super::*;
use crate::limits::registrar::ERASE_SECONDS;
use crate::registrar::log::client::{Waiting, waiting};
use crate::registrar::registrations::Transition;

const WITHOUT_SALT: &str = "log_statements WHERE salt = ''";

#[tokio::test]
async fn what_is_vouched_for_waits_for_the_log_and_is_forgotten_with_its_row() {
    on_both(async |store| {
        let settings = Settings { is_logged: true, ..settings() };
        let world = World::with(store, settings, |_| {});
        let (id, code) = world.register(A, request(A, NUMBER, 10, NOW), NOW).await;
        world.enter(A, &id, another(&code), NOW).await.unwrap();
        assert_eq!(waiting(world.core.store()).await.unwrap(), Waiting::default());
        world.enter(A, &id, &code, NOW + 1).await.unwrap();
        let queued = Waiting { count: 1, oldest: Some(NOW + 1) };
        assert_eq!(waiting(world.core.store()).await.unwrap(), queued);
        // The log has it.
        let placed = sqlx::query("UPDATE log_statements SET place = 5");
        placed.execute(world.core.store().pool()).await.unwrap();
        let at = NOW + 2 + ERASE_SECONDS;
        world.withdraw(A, &id, NOW + 2).await.unwrap();
        world.core.purge(at - 1).await.unwrap();
        assert_eq!(world.count("log_statements").await, 1);
        world.core.purge(at).await.unwrap();
        assert_eq!(world.count("log_statements").await, 0);
        // One that is erased before the log has it gets there without a salt.
        let (id, _) = world.proved(B, request(B, NUMBER, 10, at), at).await;
        world.withdraw(B, &id, at).await.unwrap();
        assert_eq!(world.count(WITHOUT_SALT).await, 0);
        world.core.purge(at + ERASE_SECONDS).await.unwrap();
        assert_eq!(world.count(WITHOUT_SALT).await, 1);
        assert_eq!(waiting(world.core.store()).await.unwrap().count, 1);
    })
    .await;
}

#[tokio::test]
async fn what_happens_is_reported_once_and_waits_for_no_log_where_there_is_none() {
    on_both(async |store| {
        let world = World::new(store);
        let reported = || std::mem::take(&mut *world.transitions.lock().unwrap());
        let (id, code) = world.register(A, request(A, NUMBER, 10, NOW), NOW).await;
        assert_eq!(reported(), [(Transition::Requested, 1)]);
        for _ in 0..4 {
            world.enter(A, &id, another(&code), NOW).await.unwrap();
            assert_eq!(reported(), [(Transition::WrongCode, 1)]);
        }
        world.enter(A, &id, another(&code), NOW).await.unwrap();
        assert_eq!(reported(), [(Transition::WrongCode, 1), (Transition::Failed, 1)]);
        // What is refused without a change is no transition.
        assert_eq!(code_of(&world.enter(A, &id, &code, NOW).await), "failed");
        assert!(reported().is_empty());
        world.register(A, request(A, NUMBER, 10, NOW), NOW).await;
        reported();
        let (id, code) = world.register(A, request(A, NUMBER, 10, NOW), NOW).await;
        assert_eq!(reported(), [(Transition::Superseded, 1), (Transition::Requested, 1)]);
        let once: [&[(Transition, u64)]; 2] = [&[(Transition::Active, 1)], &[]];
        for expected in once {
            let entered = Entered { code: code.clone() };
            let change = Change::Enter { id: id.clone(), entered };
            let (reply, _) = world.keyed(A, "enter", [1; 32], change, NOW).await.unwrap();
            assert_eq!(reply.status, 200);
            assert_eq!(reported(), expected);
        }
        let later = NOW + 3_601;
        let new = NewRegistration { new_holder: true, ..request(B, NUMBER, 20, later) };
        let (new, _) = world.proved(B, new, later).await;
        let expected =
            [(Transition::Requested, 1), (Transition::Voided, 1), (Transition::Active, 1)];
        assert_eq!(reported(), expected);
        let (id, _) = world.register(A, request(A, &number(1), 10, later), later).await;
        reported();
        world.post(A, Change::Resend { id: id.clone() }, later + 30).await.unwrap();
        assert_eq!(reported(), [(Transition::Resent, 1)]);
        world.withdraw(A, &id, later + 31).await.unwrap();
        assert_eq!(reported(), [(Transition::Withdrawn, 1)]);
        let stale = later + 30 * DAY;
        world.core.sweep(stale).await.unwrap();
        assert_eq!(world.heartbeat(B, &new, stale).await, 1);
        assert_eq!(reported(), [(Transition::Returned, 1)]);
        assert_eq!(world.heartbeat(B, &new, stale + 1).await, 1);
        assert!(reported().is_empty());
        assert_eq!(world.state(B, &new, stale).await, State::Active);
        assert_eq!(world.count("log_statements").await, 0);
    })
    .await;
}
