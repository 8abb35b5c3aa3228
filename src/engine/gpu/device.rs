//! The device: finding adapters, opening one, catching its errors.
//!
//! Every error of the device becomes [`EngineError::Device`]; none reaches wgpu's default handler,
//! which panics. Scopes of errors are a thread's own, so that two threads can use the device.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use wgpu::{
    Adapter, AdapterInfo, Backends, Buffer, BufferDescriptor, BufferUsages, CommandEncoder, Device,
    DeviceDescriptor, DeviceType, ErrorFilter, Features, Instance, InstanceDescriptor,
    InstanceFlags, Limits, MemoryBudgetThresholds, MemoryHints, PollError, PollType, Queue,
    SubmissionIndex,
};

use super::super::{EngineError, GpuInfo, GpuKind};
use super::kernels;
use super::options::{Fault, Faults};

/// How long one submission may take: so many waits of so long. There are several, so that a machine
/// that stood still during one is not taken for a device that hangs; the processor still answers
/// what waits on such a device in time. A processor that plays a GPU may be busy with other work.
pub(super) const WAITS: u32 = 3;
const WAIT_TIME_REAL: Duration = Duration::from_secs(2);
/// The longest of these.
pub(super) const WAIT_TIME: Duration = Duration::from_secs(20);

/// Of the memory that the system lets this process have on a device, in percent: a buffer that
/// would take it beyond is refused. Some drivers would make it and move others out to the host.
const MEMORY_PERCENT: u8 = 90;
/// Smaller buffers share allocations of this size; larger ones have their own, so that a shard
/// takes no more than its bytes.
const SHARED_ALLOCATION_BYTES: u64 = 8 << 20;
/// Memory is looked for in pieces of this size, at most so many.
const PIECE_BYTES: u64 = 1 << 30;
const PIECES_MAX: usize = 1 << 10;
/// Left for batches, keys and staging of what there is, or a quarter where that is less.
pub(super) const WORK_BYTES: u64 = 1 << 30;
/// Memory for shards on a device that uses the host's, where they are in the page cache already.
const HOST_BUDGET_BYTES: u64 = 4 << 30;

/// How buffers are used that the processor fills and kernels read.
pub(super) const UPLOADED: BufferUsages = BufferUsages::STORAGE.union(BufferUsages::COPY_DST);

/// Label of a buffer that is refused for a test. It is too large for a buffer, for software devices
/// do not run out of memory, and becomes the error that others give.
const REFUSED: &str = "more than there is";

/// The first instance that found an adapter. It stays for as long as the process, and with it the
/// drivers: one that is unloaded with its last instance leaves behind what it has threads do when
/// they end. NVIDIA's crashed processes on an H200 in a jump into its own data, which fits that.
static KEPT: OnceLock<Instance> = OnceLock::new();

/// Every adapter that the Vulkan loader finds, in its order.
pub(super) fn adapters() -> Vec<(Adapter, GpuInfo)> {
    let descriptor = InstanceDescriptor {
        backends: Backends::VULKAN,
        flags: InstanceFlags::empty(),
        memory_budget_thresholds: MemoryBudgetThresholds {
            for_resource_creation: Some(MEMORY_PERCENT),
            for_device_loss: None,
        },
        ..InstanceDescriptor::new_without_display_handle()
    };
    let instance = Instance::new(descriptor);
    let found = pollster::block_on(instance.enumerate_adapters(Backends::VULKAN));
    if !found.is_empty() {
        KEPT.get_or_init(|| instance);
    }
    let described = found.into_iter().enumerate().map(|(index, adapter)| {
        let info = describe(index, &adapter);
        (adapter, info)
    });
    described.collect()
}

pub(in crate::engine) fn infos() -> Vec<GpuInfo> {
    adapters().into_iter().map(|(_, info)| info).collect()
}

fn describe(index: usize, adapter: &Adapter) -> GpuInfo {
    let AdapterInfo { name, driver, driver_info, device_type, device_pci_bus_id, .. } =
        adapter.get_info();
    let limits = adapter.limits();
    let software = device_type == DeviceType::Cpu;
    GpuInfo {
        index,
        name,
        bus: device_pci_bus_id,
        driver: format!("{driver} {driver_info}"),
        kind: if software { GpuKind::Software } else { GpuKind::Real },
        binding_bytes_max: binding_bytes(&limits),
        workgroup_bytes_max: limits.max_compute_workgroup_storage_size,
        lacks: lacks(adapter),
    }
}

fn binding_bytes(limits: &Limits) -> u64 {
    limits.max_storage_buffer_binding_size.min(limits.max_buffer_size)
}

fn lacks(adapter: &Adapter) -> Option<String> {
    let limits = adapter.limits();
    if !adapter.features().contains(Features::IMMEDIATES) {
        return Some("numbers given with a dispatch (push constants)".into());
    }
    if !adapter.features().contains(Features::SHADER_INT64) {
        return Some("64-bit integers (shaderInt64)".into());
    }
    let wanted: [(&str, u64, u64); 3] = [
        (
            "bytes of workgroup memory",
            limits.max_compute_workgroup_storage_size.into(),
            kernels::WORKGROUP_BYTES_MAX.into(),
        ),
        (
            "threads in a workgroup",
            limits.max_compute_invocations_per_workgroup.into(),
            kernels::FINISH_THREADS.into(),
        ),
        ("bytes in a binding", binding_bytes(&limits), kernels::BINDING_BYTES_MIN),
    ];
    let short = wanted.into_iter().find(|(_, found, wanted)| found < wanted);
    short.map(|(what, found, wanted)| format!("{what}: it has {found}, {wanted} are needed"))
}

/// What shards may have of so many bytes, for the rest of the work to have some as well.
pub(super) fn beside_work(bytes: u64) -> u64 {
    bytes - WORK_BYTES.min(bytes / 4)
}

fn say_lost(lost: &Mutex<Option<String>>, why: impl FnOnce() -> String) {
    lost.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(why);
}

/// An open device. Clones are the same device.
#[derive(Clone)]
pub(super) struct Gpu {
    pub(super) device: Device,
    pub(super) queue: Queue,
    pub(super) info: GpuInfo,
    device_type: DeviceType,
    /// What the driver said when the device went away.
    lost: Arc<Mutex<Option<String>>>,
    /// There was no memory for something else than a shard.
    full: Arc<AtomicBool>,
    faults: Faults,
}

impl Gpu {
    /// Opens an adapter with all the limits it has and no feature that is not used.
    pub(super) fn open(
        adapter: &Adapter,
        info: GpuInfo,
        faults: &Faults,
    ) -> Result<Self, EngineError> {
        if let Some(lacking) = &info.lacks {
            return Err(EngineError::Device(format!("{} has too few {lacking}", info.name)));
        }
        let wanted = Features::IMMEDIATES | Features::SHADER_INT64;
        let limits = adapter.limits();
        let descriptor = DeviceDescriptor {
            label: Some("sotto"),
            required_features: adapter.features() & wanted,
            required_limits: limits,
            memory_hints: MemoryHints::Manual {
                suballocated_device_memory_block_size: SHARED_ALLOCATION_BYTES
                    ..SHARED_ALLOCATION_BYTES,
            },
            ..DeviceDescriptor::default()
        };
        let (device, queue) = pollster::block_on(adapter.request_device(&descriptor))
            .map_err(|error| EngineError::Device(format!("{}: {error}", info.name)))?;
        let lost = Arc::new(Mutex::new(None));
        let said = Arc::clone(&lost);
        device.set_device_lost_callback(move |reason, message| {
            say_lost(&said, || format!("lost ({reason:?}): {message}"));
        });
        // What no scope catches: a device that is going away.
        let said = Arc::clone(&lost);
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            say_lost(&said, || error.to_string());
        }));
        let (device_type, faults) = (adapter.get_info().device_type, faults.clone());
        let full = Arc::default();
        Ok(Self { device, queue, info, device_type, lost, full, faults })
    }

    /// Does something with the device; an error it meets on the way is returned.
    pub(super) fn checked<T>(
        &self,
        work: impl FnOnce() -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        let done = self.caught(work).map_err(|error| {
            if matches!(error, wgpu::Error::OutOfMemory { .. }) {
                self.full.store(true, Ordering::Relaxed);
            }
            self.failed(&error)
        })?;
        self.alive()?;
        done
    }

    /// The same, for those who want to know which error; out of memory is the first to be named.
    pub(super) fn caught<T>(&self, work: impl FnOnce() -> T) -> Result<T, wgpu::Error> {
        let filters = [ErrorFilter::Internal, ErrorFilter::Validation, ErrorFilter::OutOfMemory];
        let scopes = filters.map(|filter| self.device.push_error_scope(filter));
        let done = work();
        // The last pushed is the first popped.
        let caught = scopes.into_iter().rev().fold(None, |caught, scope| {
            let popped = pollster::block_on(scope.pop());
            caught.or(popped)
        });
        match caught {
            None => Ok(done),
            Some(error) if error.to_string().contains(REFUSED) => {
                Err(wgpu::Error::OutOfMemory { source: Box::new(error) })
            }
            Some(error) => Err(error),
        }
    }

    /// A buffer, mapped where it is for writing; inside of one of the two above, which say whether
    /// there was memory for it.
    pub(super) fn buffer(&self, label: &str, size: u64, usage: BufferUsages) -> Buffer {
        let (label, size) = match self.faults.happens(Fault::OutOfMemory) {
            true => (REFUSED, self.device.limits().max_buffer_size + 1),
            false => (label, size),
        };
        let mapped_at_creation = usage.contains(BufferUsages::MAP_WRITE);
        let label = Some(label);
        self.device.create_buffer(&BufferDescriptor { label, size, usage, mapped_at_creation })
    }

    /// How many bytes of shards the device can keep: what it gives now, but for what answering
    /// takes. Asked for in buffers, for no interface says it; they are given back.
    pub(super) fn budget(&self) -> u64 {
        if !matches!(self.device_type, DeviceType::DiscreteGpu | DeviceType::VirtualGpu) {
            return HOST_BUDGET_BYTES;
        }
        let descriptor = BufferDescriptor {
            label: Some("piece of memory"),
            size: PIECE_BYTES.min(self.info.binding_bytes_max),
            usage: UPLOADED,
            mapped_at_creation: false,
        };
        let piece = || self.caught(|| self.device.create_buffer(&descriptor)).ok();
        let pieces: Vec<_> = std::iter::from_fn(piece).take(PIECES_MAX).collect();
        beside_work(pieces.len() as u64 * descriptor.size)
    }

    /// Whether there was no memory for something else than a shard.
    pub(super) fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// Gives commands to the device; inside of [`Gpu::checked`].
    pub(super) fn submit(&self, encoder: CommandEncoder) -> SubmissionIndex {
        self.lose_at(Fault::LostAtSubmission);
        self.queue.submit([encoder.finish()])
    }

    pub(super) fn probe(&self) -> Result<(), EngineError> {
        let nothing = || self.device.create_command_encoder(&Default::default());
        let submission = self.checked(|| Ok(self.submit(nothing())))?;
        self.wait(submission)
    }

    /// For tests: the device goes away if this fault was armed.
    pub(super) fn lose_at(&self, fault: Fault) {
        if self.faults.happens(fault) {
            say_lost(&self.lost, || "given up for a test".into());
            self.device.destroy();
        }
    }

    /// Waits until a submission is done and what was mapped after it is mapped.
    pub(super) fn wait(&self, submission: SubmissionIndex) -> Result<(), EngineError> {
        self.alive()?;
        let wait = || {
            let wait = PollType::Wait {
                submission_index: Some(submission.clone()),
                timeout: Some(match self.info.kind {
                    GpuKind::Real => WAIT_TIME_REAL,
                    GpuKind::Software => WAIT_TIME,
                }),
            };
            // A device that is lost meanwhile is no error to wgpu here, but a panic.
            let waited = catch_unwind(AssertUnwindSafe(|| self.device.poll(wait)));
            waited.map_err(|_| self.failed(&"lost while it was waited for"))
        };
        let mut waited = wait()?;
        for _ in 1..WAITS {
            if matches!(waited, Err(PollError::Timeout)) {
                waited = wait()?;
            }
        }
        waited.map_err(|error| self.failed(&error))?;
        self.alive()
    }

    /// An error of this device, by its name.
    pub(super) fn failed(&self, error: &dyn std::fmt::Display) -> EngineError {
        EngineError::Device(format!("{}: {error}", self.info.name))
    }

    /// Whether nothing was said against it. To be asked before it is waited for, and before mapped
    /// memory is written: wgpu frees what a lost device had, mapped or not, when it is next waited
    /// for. So nobody waits who knows, and those who did not know are not writing.
    pub(super) fn alive(&self) -> Result<(), EngineError> {
        let lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        lost.as_ref().map_or(Ok(()), |said| Err(self.failed(said)))
    }
}
