//! Tests of the kernels' texts, without a GPU.

#![allow(clippy::unwrap_used)]

use naga::front::wgsl;
use naga::valid::{Capabilities, ValidationFlags, Validator};
use naga::{Module, TypeInner};

use super::super::Integers;
use super::super::known_answer::KNOWN_TO_GPUS;
use super::kernels::{FINISH_THREADS, Job, Kernel, THREADS, WORKGROUP_BYTES_MAX};
use super::lane::scan_counts;

fn parse(kernel: Kernel) -> Module {
    let source = kernel.source();
    let module = wgsl::parse_str(&source);
    let module =
        module.unwrap_or_else(|error| panic!("{kernel:?}: {}", error.emit_to_string(&source)));
    // No more than what a device is opened with.
    let wide = matches!(
        kernel,
        Kernel::Pack { integers: Integers::Wide, .. }
            | Kernel::PackLong { integers: Integers::Wide, .. }
    );
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
    let integers = Integers::Wide;
    for kernel in [
        Kernel::Pack { integers, packs: 4, queries: 4, query_groups: 4 },
        Kernel::PackLong { integers, queries: 2, query_groups: 16 },
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
    for integers in [Integers::Wide, Integers::Halves] {
        let all = Kernel::all(&[integers]);
        let mut used = vec![Kernel::Split, Kernel::Finish];
        for known in &KNOWN_TO_GPUS {
            for count in known.batches.iter().map(|&count| count as u32) {
                let scans = scan_counts(count).into_iter().filter(|&queries| queries > 0);
                used.extend(scans.map(|queries| Kernel::scan(all.iter().copied(), queries)));
                let shape = (known.packs, known.pack_rows);
                used.push(Kernel::pack(all.iter().copied(), integers, shape, count));
            }
        }
        let unused: Vec<_> = all.iter().filter(|kernel| !used.contains(kernel)).collect();
        assert!(unused.is_empty(), "{unused:?}");
    }
}

/// Both integers are compiled where both are measured: each is found.
#[test]
fn the_integers_asked_for_are_used() {
    let all = Kernel::all(&[Integers::Wide, Integers::Halves]);
    for wanted in [Integers::Wide, Integers::Halves] {
        for queries in 1..=32 {
            let pack =
                |pack_rows| Kernel::pack(all.iter().copied(), wanted, (4, pack_rows), queries);
            let (short, long) = (pack(512), pack(1024));
            assert!(matches!(short, Kernel::Pack { integers, .. } if integers == wanted));
            assert!(matches!(long, Kernel::PackLong { integers, .. } if integers == wanted));
        }
    }
}
