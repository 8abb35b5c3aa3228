//! A device that is lost while clients ask, end to end over QUIC: the processor answers what it
//! failed at, and it comes back.

use std::time::Instant;

use sotto::engine::{
    Engine, EngineChoice, Fault, Faults, GpuEngine, GpuOptions, IsaChoice, gpus, select,
};

use super::harness::load::{self, Load, reach};
use super::harness::{Setting, skip, until};
use super::{record, settled, times};

#[tokio::test(flavor = "multi_thread")]
async fn a_device_lost_under_load_loses_no_look_up_and_comes_back() {
    let Ok(name) = std::env::var("SOTTO_TEST_GPU") else {
        skip("no GPU is named (SOTTO_TEST_GPU=llvmpipe takes a software one)");
        return;
    };
    let found = gpus().into_iter().find(|gpu| gpu.name.contains(&name)).unwrap();
    let faults = Faults::default();
    let options = GpuOptions { faults: faults.clone(), ..GpuOptions::default() };
    let processor = select(EngineChoice::Cpu, IsaChoice::Auto, None).unwrap();
    let engines: Vec<Box<dyn Engine>> =
        vec![processor, Box::new(GpuEngine::new(found.index, &options).unwrap())];
    let built = load::database();
    let serving = Setting { engines, ..Setting::default() }.serve(&built.db());
    let work = &serving.work;
    let mut load = Load::start(&reach(&built, &serving), 2).await;
    until("the device answers", || work.answered_by_device.get() > 0).await;
    for _ in 0..times(1) {
        for fault in [Fault::LostAtSubmission, Fault::LostAtReadBack] {
            let (failures, renewals) = (work.device_failures.get(), work.renewals.get());
            faults.arm(Fault::NotRenewed, 1);
            faults.arm(fault, 1);
            let lost = Instant::now();
            until("it fails", || work.device_failures.get() > failures).await;
            load.more(2).await;
            until("it comes back", || work.renewals.get() > renewals).await;
            let (back, answered) = (lost.elapsed().as_millis(), work.answered_by_device.get());
            until("it answers again", || work.answered_by_device.get() > answered).await;
            record(&format!("device lost ({fault:?}): recreated within {back} ms"));
        }
    }
    record(&format!("device lost under load: {}", load.stop().await));
    settled(&serving.counters).await;
    assert!(work.answered_by_processor_after_failure.get() > 0, "{work:?}");
}
