//! What a GPU's engine does when its device goes away or is full, and while another thread uploads
//! shards: no answer is wrong, none is given twice, and once recreated it answers everything.

#![cfg(feature = "gpu")]
#![allow(clippy::unwrap_used)]

mod harness;

use std::collections::HashSet;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use harness::cases::{self, Case, Fill, gpu_engine};
use harness::{Draw, seed};
use sotto::engine::{
    Batch, ContentId, Engine, EngineError, Fault, Faults, GpuEngine, GpuOptions, Probe, Residency,
    ShardStore, ShardView,
};
use sotto::params::Shape;

/// Shards of one shape, with names; two queries each.
struct Shards(Vec<Case>);

impl Shards {
    fn new(count: usize) -> Self {
        let shape = Shape::new(40, 128, 2, 192).unwrap();
        let case = |at| Case::new(format!("shard {at}"), shape, 2, Fill::Random);
        Self((0..count).map(case).collect())
    }

    fn view(&self, at: usize) -> ShardView<'_> {
        ShardView { content: Some(ContentId([at as u8; 16])), ..self.0[at].view() }
    }

    /// Bytes of one of them.
    fn bytes(&self) -> u64 {
        (self.0[0].matrix.len() + self.0[0].tables.len()) as u64
    }

    /// Every answer given is right and given once; without an error, all are.
    fn ask(&self, engine: &mut dyn Engine, asked: &[usize]) -> Result<(), EngineError> {
        let batch = |&at: &usize| Batch { shard: self.view(at), queries: &self.0[at].queries };
        let batches: Vec<_> = asked.iter().map(batch).collect();
        let mut given = HashSet::new();
        engine.answer(&batches, &mut |batch, query, answer| {
            assert!(given.insert((batch, query)), "batch {batch}, query {query} answered twice");
            let case = &self.0[asked[batch]];
            assert_eq!(answer, case.answers[query], "{}, query {query}", case.name);
        })?;
        assert_eq!(given.len(), 2 * asked.len());
        Ok(())
    }

    /// An engine with room for so many of them, and what may go wrong with it.
    fn engine(&self, room: u64) -> Option<(GpuEngine, Faults)> {
        let faults = Faults::default();
        let shard_bytes = Some(room * self.bytes());
        let options = GpuOptions { shard_bytes, faults: faults.clone(), ..GpuOptions::default() };
        Some((gpu_engine(&options)?, faults))
    }

    /// After an error: nothing is answered or kept; then it is recreated, and answers everything.
    fn comes_back(&self, engine: &mut GpuEngine, store: &dyn ShardStore, said: &EngineError) {
        assert!(matches!(said, EngineError::Device(_)), "{said}");
        let error = self.ask(engine, &[0]).unwrap_err();
        assert!(error.to_string().contains("not renewed"), "{error}");
        assert_eq!(store.residency(&self.view(0)), Residency::Never);
        let error = store.upload(&self.view(0)).unwrap_err();
        assert!(error.to_string().contains("not renewed"), "{error}");
        engine.renew().unwrap();
        self.ask(engine, &(0..self.0.len()).collect::<Vec<_>>()).unwrap();
    }
}

/// When a fault happens: at the first occasions, and some of the later.
fn counts() -> impl Iterator<Item = u64> {
    [1, 2].into_iter().chain(std::iter::successors(Some(4), |count| Some(count * 3)))
}

fn store(engine: &GpuEngine) -> Arc<dyn ShardStore> {
    engine.store().expect("a GPU has a store")
}

#[test]
fn a_device_that_fails_at_start_is_an_error() {
    let Some(index) = cases::gpu() else { return };
    for fault in [Fault::LostAtSubmission, Fault::LostAtReadBack, Fault::OutOfMemory] {
        for count in counts() {
            let faults = Faults::default();
            faults.arm(fault, count);
            let shard_bytes = Some(1 << 30);
            let options =
                GpuOptions { shard_bytes, faults: faults.clone(), ..GpuOptions::default() };
            let made = GpuEngine::new(index, &options);
            if faults.left(fault) > 0 {
                assert!(made.is_ok() && count > 1, "{fault:?} does not happen at start");
                break;
            }
            let error = made.err().unwrap_or_else(|| panic!("{fault:?} {count} is not noticed"));
            assert!(matches!(error, EngineError::Device(_)), "{error}");
        }
    }
}

#[test]
fn a_device_lost_in_a_call_gives_no_wrong_answer_and_comes_back() {
    let shards = Shards::new(5);
    let Some((mut engine, faults)) = shards.engine(2) else { return };
    let store = store(&engine);
    for fault in [Fault::LostAtSubmission, Fault::LostAtReadBack] {
        for count in counts() {
            faults.arm(fault, count);
            // More than fit: several rounds, each with uploads.
            let asked = shards.ask(&mut engine, &[0, 1, 2, 3, 4, 0]);
            if faults.left(fault) > 0 {
                assert!(asked.is_ok() && count > 2, "{fault:?} {count}: {asked:?}");
                faults.arm(fault, 0);
                break;
            }
            shards.comes_back(&mut engine, &*store, &asked.unwrap_err());
        }
    }
}

#[test]
fn a_device_lost_during_an_upload_is_noticed_and_comes_back() {
    let shards = Shards::new(3);
    let large = Case::of_table(&(2048, 2, 192, 1, Fill::Random));
    let content = Some(ContentId([255; 16]));
    let large = ShardView { content, ..large.view() };
    let faults = Faults::default();
    let options = GpuOptions { faults: faults.clone(), ..GpuOptions::default() };
    let Some(mut engine) = gpu_engine(&options) else { return };
    let store = store(&engine);
    for count in counts() {
        faults.arm(Fault::LostAtSubmission, count);
        let uploaded = thread::scope(|scope| scope.spawn(|| store.upload(&large)).join().unwrap());
        if faults.left(Fault::LostAtSubmission) > 0 {
            faults.arm(Fault::LostAtSubmission, 0);
            assert!(uploaded.is_ok() && count > 2, "{count}: {uploaded:?}");
            assert_eq!(store.residency(&large), Residency::Here);
            break;
        }
        assert!(matches!(uploaded, Err(EngineError::Device(_))), "{uploaded:?}");
        assert_eq!(store.residency(&large), Residency::Room);
        // Whoever has the engine is told when asking for nothing.
        let said = engine.answer(&[], &mut |_, _, _| panic!("answered")).unwrap_err();
        shards.comes_back(&mut engine, &*store, &said);
    }
    // Lost by either thread, while both are at work.
    for count in [1, 2, 4, 7] {
        faults.arm(Fault::LostAtSubmission, count);
        let asked = thread::scope(|scope| {
            let uploading = scope.spawn(|| store.upload(&large));
            let asked = (0..8).try_for_each(|_| shards.ask(&mut engine, &[0, 1, 2]));
            let _ = uploading.join().unwrap(); // it may have been through
            asked
        });
        let said = asked.and_then(|()| engine.answer(&[], &mut |_, _, _| panic!("answered")));
        assert_eq!(faults.left(Fault::LostAtSubmission), 0);
        shards.comes_back(&mut engine, &*store, &said.unwrap_err());
    }
}

#[test]
fn memory_that_is_too_small_for_lanes_is_an_error_and_comes_back_with_fewer_shards() {
    let shards = Shards::new(3);
    for count in counts() {
        let Some((mut engine, faults)) = shards.engine(4) else { return };
        let store = store(&engine);
        // All are here, and there is one lane.
        (0..3).for_each(|at| store.upload(&shards.view(at)).unwrap());
        faults.arm(Fault::OutOfMemory, count);
        let asked = shards.ask(&mut engine, &[0, 1, 2]);
        if faults.left(Fault::OutOfMemory) > 0 {
            assert!(asked.is_ok() && count > 1, "{count}: {asked:?}");
            break;
        }
        let said = asked.unwrap_err();
        assert!(said.to_string().to_lowercase().contains("memory"), "{said}");
        if count == 1 {
            shards.comes_back(&mut engine, &*store, &said);
            let here = (0..3).filter(|&at| store.residency(&shards.view(at)) == Residency::Here);
            assert_eq!(here.count(), 2, "a quarter is left for lanes");
        }
    }
}

#[test]
fn memory_that_is_too_small_for_a_shard_lowers_the_budget() {
    let shards = Shards::new(4);
    let Some((mut engine, faults)) = shards.engine(3) else { return };
    let store = store(&engine);
    let here = || (0..4).filter(|&at| store.residency(&shards.view(at)) == Residency::Here);
    assert_eq!(store.residency(&shards.view(0)), Residency::Room);
    (0..2).for_each(|at| store.upload(&shards.view(at)).unwrap());
    faults.arm(Fault::OutOfMemory, 1);
    store.upload(&shards.view(2)).unwrap();
    assert_eq!(faults.left(Fault::OutOfMemory), 0);
    assert_eq!(here().collect::<Vec<_>>(), [1, 2], "in place of the one used longest ago");
    assert!(matches!(store.residency(&shards.view(3)), Residency::InPlace { .. }));
    shards.ask(&mut engine, &[0, 1, 2, 3, 0]).unwrap();
    assert_eq!(here().count(), 2, "it stays low");
    // The engine's own uploads as well; with no other shard to take the place of, it is an error.
    engine.renew().unwrap();
    shards.ask(&mut engine, &[0, 1]).unwrap();
    faults.arm(Fault::OutOfMemory, 1);
    shards.ask(&mut engine, &[2]).unwrap();
    assert_eq!(here().collect::<Vec<_>>(), [1, 2]);
    engine.renew().unwrap();
    faults.arm(Fault::OutOfMemory, 1);
    let said = store.upload(&shards.view(0)).unwrap_err();
    assert!(said.to_string().to_lowercase().contains("memory"), "{said}");
    engine.answer(&[], &mut |_, _, _| panic!("answered")).unwrap();
    shards.ask(&mut engine, &[0, 1, 2, 3]).unwrap();
}

#[test]
fn a_device_that_cannot_be_recreated_is_tried_again() {
    let shards = Shards::new(2);
    let Some((mut engine, faults)) = shards.engine(2) else { return };
    let store = store(&engine);
    faults.arm(Fault::LostAtSubmission, 1);
    let said = shards.ask(&mut engine, &[0, 1]).unwrap_err();
    faults.arm(Fault::NotRenewed, 2);
    for _ in 0..2 {
        engine.renew().unwrap_err();
        assert_eq!(store.residency(&shards.view(0)), Residency::Never);
    }
    // Lost again while it proves itself.
    faults.arm(Fault::LostAtReadBack, 1);
    engine.renew().unwrap_err();
    assert_eq!(faults.left(Fault::LostAtReadBack), 0);
    shards.comes_back(&mut engine, &*store, &said);
    drop(engine);
    assert_eq!(store.residency(&shards.view(0)), Residency::Never, "the store outlives its device");
    store.upload(&shards.view(0)).unwrap_err();
}

#[test]
fn memory_that_is_short_for_a_while_at_renewal_leaves_room_for_shards() {
    let shards = Shards::new(2);
    let Some((mut engine, faults)) = shards.engine(2) else { return };
    let store = store(&engine);
    faults.arm(Fault::OutOfMemory, u64::MAX);
    engine.renew().unwrap();
    let buffers = u64::MAX - faults.left(Fault::OutOfMemory);
    // The last of them are made while it proves itself.
    for count in [buffers - 1, buffers] {
        faults.arm(Fault::OutOfMemory, count);
        let renewed = engine.renew();
        assert_eq!(faults.left(Fault::OutOfMemory), 0, "{count} of {buffers}: {renewed:?}");
        engine.renew().unwrap();
        assert_eq!(store.residency(&shards.view(0)), Residency::Room, "{count} of {buffers}");
    }
}

#[test]
fn a_probe_is_answered_and_its_shard_stays_beside_others() {
    let shards = Shards::new(2);
    let Some((mut engine, faults)) = shards.engine(3) else { return };
    let (probe, store) = (Probe::default(), store(&engine));
    probe.ask(&mut engine).unwrap();
    let known = store.held();
    assert_eq!((known.shards, known.bytes_max), (0, 3 * shards.bytes()));
    assert!(known.bytes > 0 && known.bytes < shards.bytes(), "{known:?}");
    shards.ask(&mut engine, &[0, 1]).unwrap();
    probe.ask(&mut engine).unwrap();
    let held = store.held();
    assert_eq!((held.shards, held.bytes), (2, known.bytes + 2 * shards.bytes()));
    // It is how a lost device is noticed while nobody asks.
    faults.arm(Fault::LostAtSubmission, 1);
    let lost = probe.ask(&mut engine).unwrap_err();
    assert_eq!(store.held().bytes_max, 0);
    shards.comes_back(&mut engine, &*store, &lost);
    probe.ask(&mut engine).unwrap();
    // A device without memory for a shard is not asked.
    let (mut engine, faults) = shards.engine(0).unwrap();
    faults.arm(Fault::LostAtSubmission, 1);
    probe.ask(&mut engine).unwrap();
    assert_eq!(faults.left(Fault::LostAtSubmission), 1);
}

#[test]
fn a_shard_wanted_by_two_threads_at_once_is_uploaded_once() {
    let shards = Shards::new(8);
    let Some((mut engine, _)) = shards.engine(8) else { return };
    let store = store(&engine);
    let before = engine.uploads();
    let together = Barrier::new(2);
    thread::scope(|scope| {
        scope.spawn(|| {
            for at in 0..8 {
                together.wait();
                store.upload(&shards.view(at)).unwrap();
            }
        });
        for at in 0..8 {
            together.wait();
            shards.ask(&mut engine, &[at]).unwrap();
        }
    });
    assert_eq!(engine.uploads() - before, 8);
}

#[test]
fn shards_come_and_go_while_others_are_answered() {
    let seed = seed();
    let shards = Shards::new(8);
    let Some((mut engine, faults)) = shards.engine(4) else { return };
    let store = store(&engine);
    let (ended, ends) = channel::<()>();
    let drawn = |label: &str| Draw::new(seed, label).bytes(450);
    let before = engine.uploads();
    let (store, shards, drawn) = (&*store, &shards, &drawn);
    thread::scope(|scope| {
        scope.spawn(move || {
            for at in drawn("uploads").iter().cycle() {
                // Rests when the device is gone, so that it comes back the sooner.
                let uploaded = store.upload(&shards.view(usize::from(at % 8)));
                let rest = Duration::from_millis(if uploaded.is_ok() { 0 } else { 10 });
                if ends.recv_timeout(rest) != Err(RecvTimeoutError::Timeout) {
                    break;
                }
            }
        });
        let mut lost = 0;
        for (round, draw) in drawn("answers").as_chunks::<3>().0.iter().enumerate() {
            // At first with what is there only, then anything, then with failures.
            let mut asked: Vec<_> = draw.iter().map(|at| usize::from(at % 8)).collect();
            if round < 50 {
                asked.retain(|&at| store.residency(&shards.view(at)) == Residency::Here);
            }
            if round > 100 && round % 10 == 0 {
                let fault = [Fault::LostAtSubmission, Fault::OutOfMemory][round / 10 % 2];
                faults.arm(fault, 1 + u64::from(draw[0] % 16));
            }
            if let Err(said) = shards.ask(&mut engine, &asked) {
                assert!(round > 100, "{said}");
                lost += 1;
                while engine.renew().is_err() {}
            }
        }
        println!("{lost} times recreated, {} uploads", engine.uploads() - before);
        drop(ended);
    });
    faults.arm(Fault::LostAtSubmission, 0);
    faults.arm(Fault::OutOfMemory, 0);
    engine.renew().unwrap();
    shards.ask(&mut engine, &[0, 1, 2, 3, 4, 5, 6, 7]).unwrap();
}
