//! A GPU's engine: opens a device, gives it up after an error, and recreates it.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use wgpu::Adapter;

use super::super::known_answer::{KNOWN_TO_GPUS, KNOWN_TO_SOFTWARE, prove};
use super::super::{
    Answer, Batch, CallBounds, EncryptedQuery, Engine, EngineError, GpuInfo, GpuKind, ShardStore,
    ShardView, StageTimes,
};
use super::device::{WAIT_TIME, adapters, beside_work};
use super::opened::Opened;
use super::options::{Fault, GpuOptions};
use super::resident::Store;
use crate::limits::GPU_CALL_QUERIES_MAX;

/// Answers on one GPU.
pub struct GpuEngine {
    info: GpuInfo,
    options: GpuOptions,
    store: Arc<Store>,
    /// None after an error.
    opened: Option<Opened>,
    /// Told when a device that was given up is gone.
    gone: Option<Receiver<()>>,
}

impl GpuEngine {
    /// Opens an adapter by its number in [`crate::engine::gpus`], and has it prove itself.
    pub fn new(index: usize, options: &GpuOptions) -> Result<Self, EngineError> {
        let found = adapters().into_iter().nth(index);
        let (adapter, info) =
            found.ok_or_else(|| EngineError::Device(format!("there is no GPU {index}")))?;
        let (options, store) = (options.clone(), Arc::default());
        let mut engine = Self { info, options, store, opened: None, gone: None };
        engine.open(&adapter, engine.info.clone())?;
        Ok(engine)
    }

    /// Device time of one batch on a shard, by repeating each stage until it can be told from the
    /// submission around it; `prepare` is the split into digits. For benchmarks.
    pub fn time_stages(
        &mut self,
        shard: &ShardView<'_>,
        queries: &[EncryptedQuery],
    ) -> Result<StageTimes, EngineError> {
        let opened = self.opened.as_mut().ok_or_else(|| lost(&self.info))?;
        opened.time_stages(shard, queries)
    }

    /// Key bundles that went to the device since it was opened.
    pub fn bundles_uploaded(&self) -> u64 {
        self.opened.as_ref().map_or(0, |opened| opened.bundles.uploaded())
    }

    /// Shards uploaded so far.
    pub fn uploads(&self) -> u64 {
        self.store.uploads()
    }

    /// Gives the device up, on a thread of its own: nobody knows how long a broken one takes.
    fn close(&mut self) {
        let bytes = self.store.bytes();
        if bytes > 0 && self.opened.as_ref().is_some_and(|opened| opened.gpu.is_full()) {
            // Or it would be full again soon: there is less than was found or given. Where there
            // were no shards, fewer of them do not help, and less than one shard is none.
            self.options.shard_bytes = Some(beside_work(bytes).max(self.store.largest()));
        }
        let old = (self.opened.take(), self.store.close());
        let (tell, gone) = channel();
        let dropping = std::thread::Builder::new().name("sotto-gpu-close".into());
        let dropped = dropping.spawn(move || {
            drop(old);
            let _ = tell.send(()); // nobody listens to the last one
        });
        drop(dropped); // without a thread it was dropped here
        self.gone = Some(gone);
    }

    fn reopen(&mut self) -> Result<(), EngineError> {
        let failed = |why| EngineError::Device(format!("{}: {why}", self.info.name));
        if self.options.faults.happens(Fault::NotRenewed) {
            return Err(failed("not renewed, for a test"));
        }
        // Numbers change when a device falls off the bus: it is known by its place.
        let mut found = adapters();
        found.retain(|(_, info)| (&info.name, &info.bus) == (&self.info.name, &self.info.bus));
        let nearest = found.iter().min_by_key(|(_, info)| info.index.abs_diff(self.info.index));
        let (adapter, info) = nearest.ok_or_else(|| failed("it is not there any more"))?;
        self.open(adapter, info.clone())
    }

    /// Opens the device, and has it prove itself: a real one with every kernel.
    fn open(&mut self, adapter: &Adapter, info: GpuInfo) -> Result<(), EngineError> {
        let opened = Opened::new(adapter, info, &self.options, &self.store)?;
        let budget = opened.budget;
        self.opened = Some(opened);
        match self.info.kind {
            GpuKind::Real => prove(self, &KNOWN_TO_GPUS)?,
            GpuKind::Software => prove(self, &KNOWN_TO_SOFTWARE)?,
        }
        self.store.prove(budget);
        Ok(())
    }
}

impl Drop for GpuEngine {
    fn drop(&mut self) {
        // Others may keep the store.
        drop(self.store.close());
    }
}

impl Engine for GpuEngine {
    fn name(&self) -> String {
        match self.opened {
            Some(_) => {
                let budget = self.store.budget() >> 20;
                format!("gpu {}, {budget} MiB for shards", self.info.name)
            }
            None => format!("gpu {}, lost", self.info.name),
        }
    }

    fn call_bounds(&self) -> CallBounds {
        CallBounds { shards_max: GPU_CALL_QUERIES_MAX, queries_max: GPU_CALL_QUERIES_MAX }
    }

    fn store(&self) -> Option<Arc<dyn ShardStore>> {
        Some(Arc::clone(&self.store) as Arc<dyn ShardStore>)
    }

    fn answer(
        &mut self,
        batches: &[Batch<'_>],
        done: &mut dyn FnMut(usize, usize, Answer),
    ) -> Result<(), EngineError> {
        let opened = self.opened.as_mut().ok_or_else(|| lost(&self.info))?;
        let answered = match batches {
            [] => opened.gpu.probe(),
            _ => opened.answer(batches, done),
        };
        if matches!(answered, Err(EngineError::Device(_))) {
            self.close();
        }
        answered
    }

    fn renew(&mut self) -> Result<(), EngineError> {
        if self.opened.is_some() {
            self.close();
        }
        // Its memory is wanted back; a device that hangs is left behind.
        if let Some(gone) = self.gone.take() {
            let _ = gone.recv_timeout(WAIT_TIME);
        }
        self.reopen().inspect_err(|_| self.close())
    }
}

fn lost(info: &GpuInfo) -> EngineError {
    EngineError::Device(format!("{}: given up after an error, not renewed yet", info.name))
}
