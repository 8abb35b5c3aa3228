//! A device of the benchmark's own, on which the floors are measured: kernels, buffers, time.
//! Errors of the device end the run (wgpu panics at what no scope catches), but for lacking memory.

use std::time::{Duration, Instant};

use wgpu::{
    Adapter, Backends, BindGroup, BindGroupDescriptor, BindGroupEntry, Buffer, BufferDescriptor,
    BufferUsages, CommandEncoder, ComputePass, ComputePassDescriptor, ComputePipeline,
    ComputePipelineDescriptor, Device, DeviceDescriptor, ErrorFilter, Features, Instance,
    InstanceDescriptor, InstanceFlags, Limits, MapMode, PipelineCompilationOptions, PollType,
    Queue, ShaderModuleDescriptor, ShaderSource,
};

use crate::Failed;
use crate::common::Effort;

pub(super) struct Probe {
    device: Device,
    queue: Queue,
    pub(super) limits: Limits,
    pub(super) features: Features,
    pub(super) subgroup_sizes: [u32; 2],
}

impl Probe {
    /// The GPU with this number in the engine's list, which is the Vulkan loader's.
    pub(super) fn open(index: usize) -> Result<Self, Failed> {
        let descriptor = InstanceDescriptor {
            backends: Backends::VULKAN,
            flags: InstanceFlags::empty(),
            ..InstanceDescriptor::new_without_display_handle()
        };
        let instance = Instance::new(descriptor);
        let found = pollster::block_on(instance.enumerate_adapters(Backends::VULKAN));
        let adapter: Adapter = found.into_iter().nth(index).ok_or("the GPU is gone")?;
        let (limits, features) = (adapter.limits(), adapter.features());
        let about = adapter.get_info();
        let subgroup_sizes = [about.subgroup_min_size, about.subgroup_max_size];
        let descriptor = DeviceDescriptor {
            label: Some("floors"),
            required_features: features & Features::SHADER_INT64,
            required_limits: limits.clone(),
            ..DeviceDescriptor::default()
        };
        let (device, queue) = pollster::block_on(adapter.request_device(&descriptor))?;
        Ok(Self { device, queue, limits, features, subgroup_sizes })
    }

    pub(super) fn pipeline(
        &self,
        source: &str,
        entry: &str,
        constants: &[(&str, f64)],
    ) -> ComputePipeline {
        let module = self.device.create_shader_module(ShaderModuleDescriptor {
            label: Some(entry),
            source: ShaderSource::Wgsl(source.into()),
        });
        self.device.create_compute_pipeline(&ComputePipelineDescriptor {
            label: Some(entry),
            layout: None,
            module: &module,
            entry_point: Some(entry),
            compilation_options: PipelineCompilationOptions {
                constants,
                ..PipelineCompilationOptions::default()
            },
            cache: None,
        })
    }

    /// So many buffers, or none if there is no memory for them all.
    pub(super) fn buffers(&self, count: usize, bytes: u64) -> Option<Vec<Buffer>> {
        let scope = self.device.push_error_scope(ErrorFilter::OutOfMemory);
        let make = |_| {
            self.device.create_buffer(&BufferDescriptor {
                label: Some("floors"),
                size: bytes,
                usage: BufferUsages::STORAGE | BufferUsages::COPY_SRC | BufferUsages::COPY_DST,
                mapped_at_creation: false,
            })
        };
        let made = (0..count).map(make).collect();
        pollster::block_on(scope.pop()).is_none().then_some(made)
    }

    pub(super) fn bind(&self, pipeline: &ComputePipeline, buffers: &[&Buffer]) -> BindGroup {
        let entries: Vec<_> = buffers
            .iter()
            .zip(0..)
            .map(|(buffer, binding)| BindGroupEntry {
                binding,
                resource: buffer.as_entire_binding(),
            })
            .collect();
        self.device.create_bind_group(&BindGroupDescriptor {
            label: None,
            layout: &pipeline.get_bind_group_layout(0),
            entries: &entries,
        })
    }

    /// Has the device do what is recorded and waits for it.
    pub(super) fn run(&self, record: impl FnOnce(&mut CommandEncoder)) -> Result<Duration, Failed> {
        let mut encoder = self.device.create_command_encoder(&Default::default());
        record(&mut encoder);
        let commands = encoder.finish();
        let start = Instant::now();
        let submission = Some(self.queue.submit([commands]));
        self.device.poll(PollType::Wait { submission_index: submission, timeout: None })?;
        Ok(start.elapsed())
    }

    /// What the pass takes at best of some tries, repeated within one submission until it takes so
    /// long that submitting it does not count.
    pub(super) fn best(
        &self,
        effort: Effort,
        record: impl Fn(&mut ComputePass<'_>),
    ) -> Result<Duration, Failed> {
        let timed = |repeats: u32| {
            self.run(|encoder| {
                let mut pass = encoder.begin_compute_pass(&ComputePassDescriptor::default());
                (0..repeats).for_each(|_| record(&mut pass));
            })
        };
        let least = Duration::from_millis(effort.pick(20, 20, 0));
        let mut repeats = 1;
        timed(repeats)?; // drivers finish compiling when a kernel first runs
        let mut best = timed(repeats)?;
        while best < least {
            repeats *= 2;
            best = timed(repeats)?;
        }
        for _ in 1..effort.pick(8, 2, 1) {
            best = best.min(timed(repeats)?);
        }
        Ok(best / repeats)
    }

    pub(super) fn words(&self, buffer: &Buffer) -> Result<Vec<u32>, Failed> {
        let back = self.device.create_buffer(&BufferDescriptor {
            label: Some("back"),
            size: buffer.size(),
            usage: BufferUsages::MAP_READ | BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        self.run(|encoder| encoder.copy_buffer_to_buffer(buffer, 0, &back, 0, buffer.size()))?;
        let (sender, mapped) = std::sync::mpsc::channel();
        back.map_async(MapMode::Read, .., move |result| {
            // The receiver waits below.
            let _ = sender.send(result);
        });
        self.device.poll(PollType::wait_indefinitely())?;
        mapped.recv()??;
        let view = back.get_mapped_range(..).map_err(|error| format!("{error:?}"))?;
        Ok(bytemuck::cast_slice(&view).to_vec())
    }
}
