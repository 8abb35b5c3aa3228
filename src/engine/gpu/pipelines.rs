//! The kernels compiled for a device, and how buffers are bound to them.

use wgpu::{
    BindGroup, BindGroupDescriptor, BindGroupEntry, BindGroupLayout, BindGroupLayoutDescriptor,
    BindGroupLayoutEntry, BindingType, Buffer, BufferBindingType, ComputePipeline,
    ComputePipelineDescriptor, PipelineCompilationOptions, PipelineLayoutDescriptor,
    ShaderModuleDescriptor, ShaderSource, ShaderStages,
};

use super::super::EngineError;
use super::device::Gpu;
use super::kernels::{Job, Kernel};

pub(super) struct Pipelines {
    compiled: Vec<(Kernel, ComputePipeline)>,
    /// Group 0: a part of a shard, or the finish's tables.
    pub(super) part: BindGroupLayout,
    /// Group 1 of scan and pack, group 0 of the split: one buffer read, one written.
    pub(super) product: BindGroupLayout,
    /// Group 1 of the finish: two buffers read, one written.
    pub(super) finish: BindGroupLayout,
}

impl Pipelines {
    pub(super) fn new(gpu: &Gpu) -> Result<Self, EngineError> {
        gpu.checked(|| {
            let part = layout(gpu, &[true]);
            let product = layout(gpu, &[true, false]);
            let finish = layout(gpu, &[true, true, false]);
            let compile = |kernel: Kernel| {
                let groups: &[_] = match kernel {
                    Kernel::SplitDigits => &[&product],
                    Kernel::Finish => &[&part, &finish],
                    _ => &[&part, &product],
                };
                (kernel, compile(gpu, kernel, groups))
            };
            let compiled = Kernel::all().into_iter().map(compile).collect();
            Ok(Self { compiled, part, product, finish })
        })
    }

    pub(super) fn get(&self, wanted: Kernel) -> &ComputePipeline {
        let found = self.compiled.iter().find(|(kernel, _)| *kernel == wanted);
        &found.expect("this is a bug: a kernel that was not compiled").1
    }
}

/// Storage buffers in order, each read only or also written.
fn layout(gpu: &Gpu, read_only: &[bool]) -> BindGroupLayout {
    let entry = |(binding, &read_only): (usize, &bool)| BindGroupLayoutEntry {
        binding: binding as u32,
        visibility: ShaderStages::COMPUTE,
        ty: BindingType::Buffer {
            ty: BufferBindingType::Storage { read_only },
            has_dynamic_offset: false,
            min_binding_size: None,
        },
        count: None,
    };
    let entries: Vec<_> = read_only.iter().enumerate().map(entry).collect();
    let descriptor = BindGroupLayoutDescriptor { label: None, entries: &entries };
    gpu.device.create_bind_group_layout(&descriptor)
}

fn compile(gpu: &Gpu, kernel: Kernel, groups: &[&BindGroupLayout]) -> ComputePipeline {
    let name = format!("{kernel:?}");
    let groups: Vec<_> = groups.iter().copied().map(Some).collect();
    let module = gpu.device.create_shader_module(ShaderModuleDescriptor {
        label: Some(&name),
        source: ShaderSource::Wgsl(kernel.source().into()),
    });
    let layout = gpu.device.create_pipeline_layout(&PipelineLayoutDescriptor {
        label: Some(&name),
        bind_group_layouts: &groups,
        immediate_size: size_of::<Job>() as u32,
    });
    gpu.device.create_compute_pipeline(&ComputePipelineDescriptor {
        label: Some(&name),
        layout: Some(&layout),
        module: &module,
        entry_point: Some(kernel.entry()),
        // Every kernel writes workgroup memory before it reads it.
        compilation_options: PipelineCompilationOptions {
            zero_initialize_workgroup_memory: false,
            ..PipelineCompilationOptions::default()
        },
        cache: None,
    })
}

/// Buffers bound whole, in order.
pub(super) fn bind(gpu: &Gpu, layout: &BindGroupLayout, buffers: &[&Buffer]) -> BindGroup {
    let buffers = buffers.iter().zip(0..);
    let entries: Vec<_> = buffers
        .map(|(buffer, binding)| BindGroupEntry { binding, resource: buffer.as_entire_binding() })
        .collect();
    gpu.device.create_bind_group(&BindGroupDescriptor { label: None, layout, entries: &entries })
}
