//! The WGSL kernels: their texts, tile sizes and pipelines.
//!
//! The texts are in `shaders/`; what they have to agree on with this side, sizes of tiles and the
//! primes, is written before each text from the constants here. A test reads every text with naga
//! and compares [`Job`] with its twin.

use std::fmt::Write;

use bytemuck::{Pod, Zeroable};
use wgpu::{
    BindGroup, BindGroupDescriptor, BindGroupEntry, BindGroupLayout, BindGroupLayoutDescriptor,
    BindGroupLayoutEntry, BindingType, Buffer, BufferBindingType, ComputePipeline,
    ComputePipelineDescriptor, PipelineCompilationOptions, PipelineLayoutDescriptor,
    ShaderModuleDescriptor, ShaderSource, ShaderStages,
};

use super::super::{EngineError, Integers};
use super::device::Gpu;
use crate::arith::P_INVERSE;
use crate::limits::BATCH_QUERIES_PER_SCAN_MAX;
use crate::params::{D, HALF, P, Q};

/// Threads of a scan or pack workgroup.
pub(super) const THREADS: u32 = 128;
/// Threads of a finish workgroup.
pub(super) const FINISH_THREADS: u32 = 1024;
/// Rows a narrow scan's workgroup has.
pub(super) const NARROW_ROWS: u32 = 8;
/// Most queries of a narrow scan.
pub(super) const NARROW_QUERIES: u32 = 4;
/// Queries a wide scan has, or a multiple.
pub(super) const WIDE_QUERIES: u32 = 8;
/// 16-byte groups of columns in a tile of the wide scan.
pub(super) const DEPTH: u32 = 4;
/// Terms a pack workgroup stages at once.
const CHUNK: u32 = 16;
/// Terms of a pack workgroup.
pub(super) const SPLIT_TERMS: u32 = 256;
/// Packs of a workgroup of the long pack.
const LONG_PACKS: u32 = 4;
/// Words of one bundle's place in the pool of keys: those of two keys.
pub(super) const SLOT_WORDS: usize = 2 * 3 * D;
/// What fits into 4 GiB of 32-bit words, and less than the least there is of a binding: 128 MiB.
pub(super) const BINDING_BYTES_MIN: u64 = 64 << 20;
/// Workgroup memory of the largest kernel, the wide scan of eight queries.
pub(super) const WORKGROUP_BYTES_MAX: u32 = DEPTH * 16 * ((THREADS / 4 * 8 + 2) + (4 * 2 * 3 + 2));

/// The numbers of one dispatch: `Job` of shaders/job.wgsl, which says what they are.
#[derive(Debug, Clone, Copy, Default, Pod, Zeroable)]
#[repr(C)]
#[allow(missing_docs)]
pub(super) struct Job {
    pub(super) rows: u32,
    pub(super) packs: u32,
    pub(super) queries: u32,
    pub(super) pack_rows: u32,
    pub(super) part_first: u32,
    pub(super) part_count: u32,
    pub(super) first_tile: u32,
    pub(super) row_groups: u32,
    pub(super) scan_queries: u32,
    pub(super) first_query: u32,
    pub(super) split_groups: u32,
    pub(super) column_splits: u32,
    pub(super) rotation_step: u32,
    pub(super) term_splits: u32,
    pub(super) response_bits: u32,
    pub(super) key_slots: [u32; BATCH_QUERIES_PER_SCAN_MAX / 2],
}

// What every device that has immediates takes.
const _: () = assert!(size_of::<Job>() <= 128);

/// One kernel with its tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kernel {
    Split,
    ScanNarrow { queries: u32 },
    ScanWide { query_groups: u32 },
    Pack { integers: Integers, packs: u32, queries: u32, query_groups: u32 },
    PackLong { integers: Integers, queries: u32, query_groups: u32 },
    Finish,
}

impl Kernel {
    /// Every kernel a device runs with these integers, the smallest tiles of each kind first.
    pub(super) fn all(integers: &[Integers]) -> Vec<Kernel> {
        let mut all = vec![Kernel::Split, Kernel::Finish];
        all.extend([1, 2, 4].map(|queries| Kernel::ScanNarrow { queries }));
        all.extend([4, 8].map(|query_groups| Kernel::ScanWide { query_groups }));
        for &integers in integers {
            let queries = match integers {
                Integers::Wide => 4,
                Integers::Halves => 2, // three sums a product instead of two
            };
            for packs in [1, 4] {
                for (queries, query_groups) in [(1, 1), (queries, 1), (queries, 2), (queries, 4)] {
                    all.push(Kernel::Pack { integers, packs, queries, query_groups });
                }
            }
            // With halves a thread's sums have room for 128 products, which is eight queries.
            let tiles: &[_] = match integers {
                Integers::Wide => &[(1, 4), (2, 4), (2, 8), (2, 16)],
                Integers::Halves => &[(1, 4), (2, 4)],
            };
            let long = |&(queries, query_groups): &(u32, u32)| Kernel::PackLong {
                integers,
                queries,
                query_groups,
            };
            all.extend(tiles.iter().map(long));
        }
        all
    }

    /// Of these, the scan for so many queries: a narrow one, or the widest whose tiles have no room
    /// to spare.
    pub(super) fn scan(all: impl Iterator<Item = Kernel> + Clone, queries: u32) -> Kernel {
        let narrow = queries <= NARROW_QUERIES;
        let room = if narrow { queries } else { queries.next_multiple_of(WIDE_QUERIES) };
        let fits = move |kernel: &Kernel| match kernel {
            Kernel::ScanNarrow { .. } => narrow,
            Kernel::ScanWide { .. } => !narrow && room.is_multiple_of(kernel.tile_queries()),
            _ => false,
        };
        smallest(all.filter(fits), room)
    }

    /// Of these, the pack with these integers for so many packs of so many rows, and queries.
    pub(super) fn pack(
        all: impl Iterator<Item = Kernel> + Clone,
        wanted: Integers,
        (packs, pack_rows): (u32, u32),
        queries: u32,
    ) -> Kernel {
        let long = is_long(packs, pack_rows);
        let tile = if packs == 1 { 1 } else { 4 };
        let fits = move |kernel: &Kernel| match *kernel {
            Kernel::Pack { integers, packs, .. } => !long && (integers, packs) == (wanted, tile),
            Kernel::PackLong { integers, .. } => long && integers == wanted,
            _ => false,
        };
        smallest(all.filter(fits), queries)
    }

    /// Name of the entry point.
    pub(super) fn entry(self) -> &'static str {
        match self {
            Kernel::Split => "split",
            Kernel::ScanNarrow { .. } => "scan_narrow",
            Kernel::ScanWide { .. } => "scan_wide",
            Kernel::Pack { .. } => "pack",
            Kernel::PackLong { .. } => "pack_long",
            Kernel::Finish => "finish",
        }
    }

    /// Rows, packs or queries one workgroup has along the first dimension it is cut by.
    pub(super) fn tile_rows(self) -> u32 {
        match self {
            Kernel::ScanNarrow { .. } => NARROW_ROWS,
            Kernel::ScanWide { query_groups } => THREADS / query_groups * 8,
            Kernel::Pack { packs, .. } => packs,
            Kernel::PackLong { .. } => LONG_PACKS,
            Kernel::Split | Kernel::Finish => 1,
        }
    }

    /// Queries one workgroup has.
    pub(super) fn tile_queries(self) -> u32 {
        match self {
            Kernel::ScanNarrow { queries } => queries,
            Kernel::ScanWide { query_groups } => 2 * query_groups,
            Kernel::Pack { queries, query_groups, .. }
            | Kernel::PackLong { queries, query_groups, .. } => queries * query_groups,
            Kernel::Split | Kernel::Finish => 1,
        }
    }

    /// The whole text: constants, what all kernels share, the kernel.
    pub(super) fn source(self) -> String {
        let mut text = String::new();
        let mut constant = |name: &str, value: u32| {
            writeln!(text, "const {name}: u32 = {value}u;").expect("this is a bug: a String grows");
        };
        constant("Q", Q);
        constant("P", P);
        constant("P_INVERSE", P_INVERSE);
        constant("D", D as u32);
        constant("QUERIES_MAX", BATCH_QUERIES_PER_SCAN_MAX as u32);
        match self {
            Kernel::ScanNarrow { queries } => constant("QUERIES", queries),
            // The narrow kernel stands in the same text, unused.
            Kernel::ScanWide { query_groups } => {
                constant("QUERIES", 1);
                constant("QUERY_GROUPS", query_groups);
                constant("DEPTH", DEPTH);
            }
            Kernel::Pack { packs, queries, query_groups, .. } => {
                constant("PACKS", packs);
                constant("QUERIES", queries);
                constant("QUERY_GROUPS", query_groups);
                constant("SLOT_WORDS", SLOT_WORDS as u32);
                constant("CHUNK", CHUNK);
                constant("TERM_LANES", CHUNK / query_groups);
                constant("SPLIT_TERMS", SPLIT_TERMS);
                constant("THREAD_TERMS_MAX", SPLIT_TERMS * query_groups / CHUNK);
            }
            Kernel::PackLong { queries, query_groups, .. } => {
                let split_chunks = SPLIT_TERMS / CHUNK;
                constant("QUERIES", queries);
                constant("QUERY_GROUPS", query_groups);
                constant("SLOT_WORDS", SLOT_WORDS as u32);
                constant("CHUNK", CHUNK);
                constant("SPLIT_CHUNKS", split_chunks);
                // Of each chunk, and of that of key h.
                constant("THREAD_TERMS_MAX", (split_chunks + 1) * query_groups);
            }
            Kernel::Split | Kernel::Finish => {}
        }
        match self {
            Kernel::Finish => constant("FINISH_THREADS", FINISH_THREADS),
            _ => constant("THREADS", THREADS),
        }
        text.push_str(include_str!("../../../shaders/job.wgsl"));
        let parts: &[&str] = match self {
            Kernel::Split => &[include_str!("../../../shaders/split.wgsl")],
            Kernel::ScanNarrow { .. } => &[include_str!("../../../shaders/scan.wgsl")],
            Kernel::ScanWide { .. } => &[
                include_str!("../../../shaders/scan.wgsl"),
                include_str!("../../../shaders/scan_wide.wgsl"),
            ],
            Kernel::Pack { integers, .. } => &[products(integers), PACK],
            Kernel::PackLong { integers, .. } => &[products(integers), PACK_LONG],
            Kernel::Finish => &[include_str!("../../../shaders/finish.wgsl")],
        };
        parts.iter().for_each(|part| text.push_str(part));
        text
    }
}

const PACK: &str = include_str!("../../../shaders/pack.wgsl");
const PACK_LONG: &str = include_str!("../../../shaders/pack_long.wgsl");

/// How a pack multiplies and adds up.
fn products(integers: Integers) -> &'static str {
    match integers {
        Integers::Wide => include_str!("../../../shaders/pack_wide.wgsl"),
        Integers::Halves => include_str!("../../../shaders/pack_halves.wgsl"),
    }
}

/// Whether a shard's packs are those of the long pack: several, of whose keys each term takes the
/// next slot.
pub(super) fn is_long(packs: u32, pack_rows: u32) -> bool {
    packs > 1 && pack_rows as usize >= HALF
}

/// The compiled kernels of a device and how buffers are bound to them.
pub(super) struct Pipelines {
    compiled: Vec<(Kernel, ComputePipeline)>,
    /// Which of the pack's kernels are used.
    pub(super) integers: Integers,
    /// The same of the long pack.
    pub(super) long_integers: Integers,
    /// Group 0: a part of a shard, or the finish's tables.
    pub(super) part: BindGroupLayout,
    /// Group 1 of scan and pack, group 0 of the split: one buffer read, one written.
    pub(super) product: BindGroupLayout,
    /// Group 1 of the finish: two buffers read, one written.
    pub(super) finish: BindGroupLayout,
}

impl Pipelines {
    /// Compiles every kernel; the first of the integers are used until told otherwise.
    pub(super) fn new(gpu: &Gpu, integers: &[Integers]) -> Result<Self, EngineError> {
        gpu.checked(|| {
            let part = layout(gpu, &[true]);
            let product = layout(gpu, &[true, false]);
            let finish = layout(gpu, &[true, true, false]);
            let compile = |kernel: Kernel| {
                let groups: &[_] = match kernel {
                    Kernel::Split => &[&product],
                    Kernel::Finish => &[&part, &finish],
                    _ => &[&part, &product],
                };
                (kernel, compile(gpu, kernel, groups))
            };
            let compiled = Kernel::all(integers).into_iter().map(compile).collect();
            let [integers, long_integers] = [integers[0]; 2];
            Ok(Self { compiled, integers, long_integers, part, product, finish })
        })
    }

    /// The scan for so many queries.
    pub(super) fn scan(&self, queries: u32) -> &(Kernel, ComputePipeline) {
        self.of(Kernel::scan(self.kernels(), queries))
    }

    /// The split of columns into digits.
    pub(super) fn split(&self) -> &(Kernel, ComputePipeline) {
        self.of(Kernel::Split)
    }

    /// The pack for a lane's packs and queries.
    pub(super) fn pack(&self, job: &Job) -> &(Kernel, ComputePipeline) {
        let shape = (job.packs, job.pack_rows);
        let long = is_long(job.packs, job.pack_rows);
        let integers = if long { self.long_integers } else { self.integers };
        self.of(Kernel::pack(self.kernels(), integers, shape, job.queries))
    }

    /// The finish.
    pub(super) fn finish(&self) -> &(Kernel, ComputePipeline) {
        self.of(Kernel::Finish)
    }

    fn kernels(&self) -> impl Iterator<Item = Kernel> + Clone {
        self.compiled.iter().map(|(kernel, _)| *kernel)
    }

    fn of(&self, wanted: Kernel) -> &(Kernel, ComputePipeline) {
        let found = self.compiled.iter().find(|(kernel, _)| *kernel == wanted);
        found.expect("this is a bug: a kernel that was not compiled")
    }
}

/// Of some kernels the one whose tile holds all queries, or else the largest.
fn smallest(kernels: impl Iterator<Item = Kernel> + Clone, queries: u32) -> Kernel {
    let fits = kernels.clone().find(|kernel| kernel.tile_queries() >= queries);
    fits.or_else(|| kernels.last()).expect("this is a bug: a kernel of every kind")
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
