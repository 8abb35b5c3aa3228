//! Tests of the kernels' texts, without a GPU.

#![allow(clippy::unwrap_used)]

use naga::front::wgsl;
use naga::valid::{Capabilities, ValidationFlags, Validator};
use naga::{Module, TypeInner};

use super::super::known_answer::KNOWN_TO_GPUS;
use super::batch::scan_counts;
use super::kernels::{FINISH_THREADS, Job, Kernel, THREADS, WORKGROUP_BYTES_MAX};

fn parse(kernel: Kernel) -> Module {
    let source = kernel.source();
    let module = wgsl::parse_str(&source);
    let module =
        module.unwrap_or_else(|error| panic!("{kernel:?}: {}", error.emit_to_string(&source)));
    // No more than what a device is opened with.
    let allowed = Capabilities::IMMEDIATES | Capabilities::SHADER_INT64;
    let checked = Validator::new(ValidationFlags::all(), allowed).validate(&module);
    if let Err(error) = checked {
        panic!("{kernel:?}: {}", error.emit_to_string(&source));
    }
    module
}

#[test]
fn every_kernel_is_valid_and_takes_the_threads_and_memory_that_a_device_has() {
    for kernel in Kernel::all() {
        let module = parse(kernel);
        let entry = module.entry_points.iter().find(|entry| entry.name == kernel.entry());
        let entry = entry.unwrap_or_else(|| panic!("{kernel:?} has no entry point"));
        let threads = if kernel == Kernel::Finish { FINISH_THREADS } else { THREADS };
        assert_eq!(entry.workgroup_size, [threads, 1, 1], "{kernel:?}");
        // The text of the wide scan has the narrow one, too.
        let of = if matches!(kernel, Kernel::ScanWide { .. }) { "tile" } else { "" };
        let variables = module.global_variables.iter().map(|(_, variable)| variable);
        let used = variables
            .filter(|variable| variable.space == naga::AddressSpace::WorkGroup)
            .filter(|variable| variable.name.as_deref().unwrap_or_default().starts_with(of))
            .map(|variable| module.types[variable.ty].inner.size(module.to_ctx()));
        let used: u32 = used.sum();
        assert!(used <= WORKGROUP_BYTES_MAX, "{kernel:?}: {used} bytes of workgroup memory");
    }
}

#[test]
fn the_job_has_the_same_fields_on_both_sides() {
    let module = parse(Kernel::Finish);
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
    assert_eq!(found, own);
}

/// A kernel as the device's driver gets it: its operations, each with its words.
fn operations(kernel: Kernel) -> Vec<Vec<u32>> {
    use naga::back::spv;
    let module = parse(kernel);
    let info = Validator::new(ValidationFlags::all(), Capabilities::all()).validate(&module);
    let options = spv::Options { lang_version: (1, 6), ..spv::Options::default() };
    let words = spv::write_vec(&module, &info.unwrap(), &options, None).unwrap();
    let mut rest = &words[5..]; // after the header
    let mut operations = Vec::new();
    while let [first, ..] = *rest {
        let (operation, after) = rest.split_at((first >> 16) as usize);
        operations.push([&[first & 0xffff], &operation[1..]].concat());
        rest = after;
    }
    operations
}

/// Four products an instruction are the whole plan of the scan: none may come out as shifts.
#[test]
fn dot_products_are_instructions() {
    const OP_S_DOT: u32 = 4450;
    for kernel in [Kernel::ScanNarrow { queries: 1 }, Kernel::ScanWide { query_groups: 8 }] {
        let dots = operations(kernel).iter().filter(|operation| operation[0] == OP_S_DOT).count();
        assert_eq!(dots, 4, "{kernel:?}: one a word of 16 columns, in the function all rows call");
    }
}

/// A product of 64 bits whose factors are not known to have 32 would be three multiplications.
#[test]
fn wide_products_are_of_widened_words() {
    const OP_TYPE_INT: u32 = 21;
    const OP_TYPE_VECTOR: u32 = 23;
    const OP_U_CONVERT: u32 = 113;
    const OP_I_MUL: u32 = 132;
    for kernel in [
        Kernel::Pack { packs: 4, queries: 4, query_groups: 4 },
        Kernel::PackLong { queries: 2, query_groups: 16 },
    ] {
        let all = operations(kernel);
        let of = |wanted: u32| all.iter().filter(move |operation| operation[0] == wanted);
        let long = of(OP_TYPE_INT).find(|int| int[2] == 64).expect("64-bit integers")[1];
        let longs = of(OP_TYPE_VECTOR).find(|vector| vector[2] == long).expect("four of them")[1];
        let widened: Vec<u32> = of(OP_U_CONVERT).map(|convert| convert[2]).collect();
        let products: Vec<_> = of(OP_I_MUL).filter(|product| product[1] == longs).collect();
        assert_eq!(products.len(), 1, "{kernel:?}: in the function all queries call");
        assert!(products[0][3..].iter().all(|factor| widened.contains(factor)), "{products:?}");
    }
}

/// The known answers come from every kernel that a device may use afterwards.
#[test]
fn known_answers_use_every_kernel() {
    let mut used = vec![Kernel::SplitDigits, Kernel::Finish];
    for known in &KNOWN_TO_GPUS {
        for count in known.batches.iter().map(|&count| count as u32) {
            let scans = scan_counts(count).into_iter().filter(|&queries| queries > 0);
            used.extend(scans.map(Kernel::scan));
            used.push(Kernel::pack((known.packs, known.pack_rows), count));
        }
    }
    let all = Kernel::all();
    let unused: Vec<_> = all.iter().filter(|kernel| !used.contains(kernel)).collect();
    assert!(unused.is_empty(), "{unused:?}");
    // Whatever is asked for was compiled.
    for queries in 1..=32 {
        assert!(all.contains(&Kernel::scan(queries)), "{queries}");
        for shape in [(1, 128), (4, 512), (1, 1024), (2, 1024), (4, 2048)] {
            let pack = Kernel::pack(shape, queries);
            assert!(all.contains(&pack), "{pack:?}");
        }
    }
}
