//! Buffers that both sides see: what goes to the device, and what comes back.
//!
//! A buffer of the ring is written, copied from by one submission, and mapped again when that is
//! done, while the next one is being filled. Each thread that writes to the device has its own
//! ring.

use std::sync::mpsc::{Receiver, Sender, channel};

use wgpu::{Buffer, BufferUsages, CommandEncoder, MapMode, SubmissionIndex};

use super::super::EngineError;
use super::device::{Gpu, WAIT_TIME};
use super::options::Fault;

/// Bytes of one staging buffer: the input of a submission, or a piece of a shard.
pub(super) const STAGING_BYTES: u64 = 16 << 20;
/// Staging buffers: one is written while one is copied from.
pub(super) const STAGING_BUFFERS: usize = 3;

/// One buffer, and who says when it is mapped.
struct Shared {
    buffer: Buffer,
    send_mapped: Sender<bool>,
    mapped: Receiver<bool>,
    /// It is being mapped after this one.
    submission: Option<SubmissionIndex>,
}

impl Shared {
    fn new(buffer: Buffer) -> Self {
        let (send_mapped, mapped) = channel();
        Self { buffer, send_mapped, mapped, submission: None }
    }

    fn map(&mut self, mode: MapMode, bytes: u64, submission: SubmissionIndex) {
        self.submission = Some(submission);
        let send_mapped = self.send_mapped.clone();
        self.buffer.map_async(mode, 0..bytes, move |mapped| {
            let _ = send_mapped.send(mapped.is_ok()); // nobody listens to a buffer that was dropped
        });
    }

    fn wait(&mut self, gpu: &Gpu) -> Result<(), EngineError> {
        let Some(submission) = self.submission.take() else { return Ok(()) };
        let mapped = self.mapped.try_recv().or_else(|_| {
            gpu.wait(submission)?;
            // Whichever thread waits is told for all: it may be about to pass it on.
            Ok(self.mapped.recv_timeout(WAIT_TIME).unwrap_or(false))
        })?;
        if mapped { Ok(()) } else { Err(gpu.failed(&"a staging buffer was not mapped")) }
    }
}

pub(super) struct Staging {
    ring: Vec<Shared>,
    next: usize,
}

impl Staging {
    pub(super) fn new(gpu: &Gpu) -> Result<Self, EngineError> {
        gpu.checked(|| {
            let usage = BufferUsages::MAP_WRITE | BufferUsages::COPY_SRC;
            let buffer = |_| gpu.buffer("staging", STAGING_BYTES, usage);
            let made = (0..STAGING_BUFFERS).map(buffer).map(Shared::new);
            Ok(Self { ring: made.collect(), next: 0 })
        })
    }

    /// Fills the next free buffer, has commands recorded that copy from it, and submits them.
    /// `fill` may write at most [`STAGING_BYTES`], through what it is given.
    pub(super) fn send(
        &mut self,
        gpu: &Gpu,
        fill: impl FnOnce(&mut dyn FnMut(u64, &[u8])),
        record: impl FnOnce(&mut CommandEncoder, &Buffer),
    ) -> Result<SubmissionIndex, EngineError> {
        let at = self.next;
        self.next = (at + 1) % self.ring.len();
        let shared = &mut self.ring[at];
        shared.wait(gpu)?;
        gpu.alive()?;
        gpu.checked(|| {
            let mut view = shared
                .buffer
                .get_mapped_range_mut(..)
                .map_err(|error| gpu.failed(&format!("{error:?}")))?;
            fill(&mut |offset, bytes| {
                let offset = offset as usize;
                view.slice(offset..offset + bytes.len()).copy_from_slice(bytes);
            });
            drop(view);
            shared.buffer.unmap();
            let mut encoder = gpu.device.create_command_encoder(&Default::default());
            record(&mut encoder, &shared.buffer);
            let submission = gpu.submit(encoder);
            shared.map(MapMode::Write, STAGING_BYTES, submission.clone());
            Ok(submission)
        })
    }

    /// Waits until all that was sent is on the device.
    pub(super) fn wait(&mut self, gpu: &Gpu) -> Result<(), EngineError> {
        self.ring.iter_mut().try_for_each(|shared| shared.wait(gpu))
    }
}

#[derive(Default)]
pub(super) struct Readback {
    shared: Option<Shared>,
}

impl Readback {
    /// A buffer of at least so many bytes; recreated only when a batch is larger than all before.
    pub(super) fn buffer(&mut self, gpu: &Gpu, bytes: u64) -> Buffer {
        if self.shared.as_ref().is_none_or(|shared| shared.buffer.size() < bytes) {
            let usage = BufferUsages::MAP_READ | BufferUsages::COPY_DST;
            let buffer = gpu.buffer("readback", bytes.next_power_of_two(), usage);
            self.shared = Some(Shared::new(buffer));
        }
        self.shared.as_ref().expect("this is a bug: made above").buffer.clone()
    }

    /// Waits for the submission that copied into the buffer and shows its first bytes.
    pub(super) fn read<T>(
        &mut self,
        gpu: &Gpu,
        bytes: u64,
        submission: SubmissionIndex,
        read: impl FnOnce(&[u8]) -> T,
    ) -> Result<T, EngineError> {
        let shared = self.shared.as_mut().expect("this is a bug: nothing was copied back");
        gpu.checked(|| {
            gpu.lose_at(Fault::LostAtReadBack);
            shared.map(MapMode::Read, bytes, submission);
            shared.wait(gpu)?;
            let view = shared
                .buffer
                .get_mapped_range(0..bytes)
                .map_err(|error| gpu.failed(&format!("{error:?}")))?;
            let done = read(&view);
            drop(view);
            shared.buffer.unmap();
            Ok(done)
        })
    }
}
