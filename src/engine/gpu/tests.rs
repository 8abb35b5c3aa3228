//! Tests of the kernels' texts, without a GPU.

#![allow(clippy::unwrap_used)]

use naga::front::wgsl;
use naga::valid::{Capabilities, ValidationFlags, Validator};
use naga::{Module, TypeInner};

use super::super::Integers;
use super::kernels::{FINISH_THREADS, Job, Kernel, THREADS, WORKGROUP_BYTES_MAX};

fn parse(kernel: Kernel) -> Module {
    let source = kernel.source();
    let module = wgsl::parse_str(&source);
    let module =
        module.unwrap_or_else(|error| panic!("{kernel:?}: {}", error.emit_to_string(&source)));
    // No more than what a device is opened with.
    let wide = matches!(kernel, Kernel::Pack { integers: Integers::Wide, .. });
    let mut allowed = Capabilities::IMMEDIATES;
    allowed.set(Capabilities::SHADER_INT64, wide);
    let checked = Validator::new(ValidationFlags::all(), allowed).validate(&module);
    if let Err(error) = checked {
        panic!("{kernel:?}: {}", error.emit_to_string(&source));
    }
    module
}

fn all() -> impl Iterator<Item = Kernel> {
    Kernel::all(&[Integers::Wide, Integers::Halves]).into_iter()
}

#[test]
fn every_kernel_is_valid_and_agrees_with_its_constants() {
    for kernel in all() {
        let module = parse(kernel);
        let entry = module.entry_points.iter().find(|entry| entry.name == kernel.entry());
        let entry = entry.unwrap_or_else(|| panic!("{kernel:?} has no entry point"));
        let threads = if kernel == Kernel::Finish { FINISH_THREADS } else { THREADS };
        assert_eq!(entry.workgroup_size, [threads, 1, 1], "{kernel:?}");
    }
}

#[test]
fn the_job_has_the_same_fields_on_both_sides() {
    for kernel in all() {
        let module = parse(kernel);
        let found = module.types.iter().find(|(_, ty)| ty.name.as_deref() == Some("Job"));
        let (_, ty) = found.expect("a struct Job");
        let TypeInner::Struct { members, span } = &ty.inner else { panic!("{ty:?}") };
        assert_eq!(*span as usize, size_of::<Job>());
        let found: Vec<_> = members
            .iter()
            .map(|member| (member.name.clone().unwrap_or_default(), member.offset as usize))
            .collect();
        // Debug names the fields in order, each of which is one word, but for the last.
        let debug = format!("{:?}", Job::default());
        let fields = debug.trim_start_matches("Job { ").split(": ");
        let names = fields.filter_map(|field| field.split(' ').next_back());
        let own: Vec<_> =
            names.zip(0..found.len()).map(|(name, at)| (name.to_owned(), at * 4)).collect();
        assert_eq!(found, own, "{kernel:?}");
    }
}

#[test]
fn workgroup_memory_stays_within_what_is_asked_of_a_device() {
    for kernel in all() {
        let module = parse(kernel);
        let unused_narrow = matches!(kernel, Kernel::ScanWide { .. });
        let used: u32 = module
            .global_variables
            .iter()
            .filter(|(_, variable)| variable.space == naga::AddressSpace::WorkGroup)
            .filter(|(_, v)| {
                !unused_narrow || v.name.as_deref().is_some_and(|name| name.starts_with("tile"))
            })
            .map(|(_, variable)| module.types[variable.ty].inner.size(module.to_ctx()))
            .sum();
        assert!(used <= WORKGROUP_BYTES_MAX, "{kernel:?}: {used} bytes of workgroup memory");
    }
}

/// Four products an instruction are the whole plan of the scan: none may come out as shifts.
#[test]
fn dot_products_are_instructions() {
    use naga::back::spv;
    const OP_S_DOT: u32 = 4450;
    for kernel in [Kernel::ScanNarrow { queries: 1 }, Kernel::ScanWide { query_groups: 8 }] {
        let module = parse(kernel);
        let checked = Validator::new(ValidationFlags::all(), Capabilities::IMMEDIATES);
        let info = { checked }.validate(&module).unwrap();
        let options = spv::Options { lang_version: (1, 6), ..spv::Options::default() };
        let words = spv::write_vec(&module, &info, &options, None).unwrap();
        let mut rest = &words[5..]; // after the header: operations, each with its length
        let mut dots = 0;
        while let [first, ..] = *rest {
            dots += usize::from(first & 0xffff == OP_S_DOT);
            rest = &rest[(first >> 16) as usize..];
        }
        assert_eq!(dots, 4, "{kernel:?}: one a word of 16 columns, in the function all rows call");
    }
}
