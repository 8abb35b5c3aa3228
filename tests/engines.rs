//! Every engine present gives the reference's answers on every bit: one table of cases, one
//! `check`, run by each instruction set on one, two and three threads.

#![allow(clippy::unwrap_used)]

mod harness;

use std::num::NonZeroUsize;
#[cfg(feature = "gpu")]
use std::sync::{Mutex, OnceLock};

#[cfg(feature = "gpu")]
use rayon::prelude::*;
use sotto::arith::{Isa, IsaName};
use sotto::engine::{
    Answer, Batch, EncryptedQuery, Engine, EngineChoice, EngineError, EngineOptions, GpuChoice,
    GpuKind, IsaChoice, SelectError, Selected, ShardView, gpus, select, select_with,
};
#[cfg(feature = "gpu")]
use sotto::engine::{ContentId, GpuEngine, GpuOptions};
use sotto::limits::{BATCH_QUERIES_PER_SCAN_MAX, COLUMNS_MAX};
use sotto::params::Shape;

#[cfg(feature = "gpu")]
use harness::cases::gpu_engine;
use harness::cases::{
    Case,
    Fill::{self, Carries, Highest, Lowest, Random},
};
use harness::{Draw, seed, skip};

/// Pack rows, packs, columns, queries, numbers. One below and above what the kernels tile by:
/// 32 rows, 64 columns, blocks of 8, 18, 32, 48 and 96 steps of 64 columns, packs in twos and in
/// fours, queries in twos, threes, fours and sixes, terms in twos, by 32 and by 64.
const CASES: &[(u32, u32, u32, usize, Fill)] = &[
    (128, 1, 192, 1, Random),
    (128, 1, 192, 2, Random),
    (128, 2, 256, 3, Random),
    (128, 3, 320, 7, Random),
    (128, 5, 2112, 16, Random),
    (128, 1, 320, 33, Random),
    (128, 2, 3072, 2, Random),
    (128, 2, 3136, 3, Random),
    (128, 1, COLUMNS_MAX, 3, Random),
    (128, 1, COLUMNS_MAX, 2, Lowest),
    (128, 1, COLUMNS_MAX, 2, Highest),
    (128, 1, 384, 5, Carries),
    (128, 3, 448, 6, Carries),
    (128, 2, 512, 13, Carries),
    (128, 4, 576, 12, Random),
    (128, 1, 3136, 11, Carries),
    (256, 1, 256, 2, Random),
    (256, 2, 320, 7, Random),
    (256, 5, 192, 33, Random),
    (256, 64, 192, 2, Random),
    (512, 1, 192, 16, Random),
    (512, 3, 2112, 3, Random),
    (1024, 1, 2112, 7, Random),
    (1024, 2, 320, 2, Random),
    (1024, 5, 256, 1, Random),
    (2048, 1, 192, 1, Random),
    (2048, 1, 192, 33, Random),
    (2048, 1, 2112, 16, Lowest),
    (2048, 2, 256, 3, Random),
    (2048, 3, 320, 7, Highest),
    (2048, 5, 2112, 2, Random),
    (128, 1, 1088, 7, Carries),
    (128, 1, 1152, 17, Random),
    (128, 1, 1216, 18, Carries),
    (128, 1, 6080, 17, Random),
    (128, 1, 6144, 11, Carries),
    (128, 1, 6208, 33, Carries),
    (128, 1, 12_352, 18, Random),
    (128, 1, 2048, 3, Carries),
    (256, 2, 4160, 4, Carries),
];

/// The engine's answers to the first `counts[i]` queries of case i, all in one call, are the
/// reference's, each given once.
fn check(engine: &mut dyn Engine, cases: &[(&Case, usize)]) {
    let batches: Vec<_> = cases
        .iter()
        .map(|(case, count)| Batch { shard: case.view(), queries: &case.queries[..*count] })
        .collect();
    let mut given: Vec<Vec<Option<Answer>>> =
        cases.iter().map(|(_, count)| vec![None; *count]).collect();
    engine
        .answer(&batches, &mut |batch, query, answer| {
            let before = given[batch][query].replace(answer);
            assert!(before.is_none(), "batch {batch}, query {query} answered twice");
        })
        .unwrap();
    for ((case, count), given) in cases.iter().zip(given) {
        for (query, answer) in given.into_iter().enumerate() {
            let answer = answer.unwrap_or_else(|| panic!("{}: no answer to {query}", case.name));
            for (pack, bytes) in answer.iter().enumerate() {
                assert_eq!(bytes.len(), case.shape.response_bytes());
                let off = bytes.iter().zip(&case.answers[query][pack]).position(|(a, b)| a != b);
                let name = engine.name();
                assert_eq!(
                    off, None,
                    "{name}: {}: query {query} of {count}, pack {pack}",
                    case.name
                );
            }
            assert_eq!(answer.len(), case.shape.packs());
        }
    }
}

/// Every engine present, the slowest first; those of GPUs alone if SOTTO_TEST_ENGINES is gpu, for
/// bench/gpu.sh, which has no time for more.
fn engines() -> Vec<Box<dyn Engine>> {
    if std::env::var("SOTTO_TEST_ENGINES").is_ok_and(|which| which == "gpu") {
        let engines = gpu_engines();
        assert!(!engines.is_empty(), "SOTTO_TEST_ENGINES=gpu: there is none");
        return engines;
    }
    let mut engines = Vec::new();
    for isa in IsaName::ALL {
        for threads in [1, 2, 3] {
            match select(EngineChoice::Cpu, IsaChoice::Only(isa), NonZeroUsize::new(threads)) {
                Ok(engine) => engines.push(engine),
                Err(error @ SelectError::IsaMissing { .. }) => {
                    skip(&error.to_string());
                    break;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
    assert!(engines.len() >= 3, "the portable engine is always here");
    engines.extend(gpu_engines());
    engines
}

/// None was compiled in.
#[cfg(not(feature = "gpu"))]
fn gpu_engines() -> Vec<Box<dyn Engine>> {
    skip("built without the feature gpu");
    Vec::new()
}

/// The GPU engine twice, the second with shards and work cut small. The tests share them: compiling
/// the kernels takes a software GPU seconds.
#[cfg(feature = "gpu")]
fn gpu_engines() -> Vec<Box<dyn Engine>> {
    static ENGINES: OnceLock<Vec<Mutex<GpuEngine>>> = OnceLock::new();
    let engines = ENGINES.get_or_init(|| {
        let options = GpuOptions {
            binding_bytes: Some(1 << 20),
            dispatch_products: Some(1),
            bundle_slots: Some(1),
            ..GpuOptions::default()
        };
        let all = [GpuOptions::default(), options];
        all.iter().flat_map(gpu_engine).map(Mutex::new).collect()
    });
    engines.iter().map(|engine| Box::new(Shared(engine)) as Box<dyn Engine>).collect()
}

/// An engine that several tests have.
#[cfg(feature = "gpu")]
struct Shared(&'static Mutex<GpuEngine>);

#[cfg(feature = "gpu")]
impl Engine for Shared {
    fn name(&self) -> String {
        self.0.lock().unwrap().name()
    }

    fn answer(
        &mut self,
        batches: &[Batch<'_>],
        done: &mut dyn FnMut(usize, usize, Answer),
    ) -> Result<(), EngineError> {
        self.0.lock().unwrap().answer(batches, done)
    }
}

#[test]
fn engines_equal_the_reference_on_every_case() {
    let mut engines = engines();
    for case in CASES {
        let case = Case::of_table(case);
        for engine in &mut engines {
            check(engine.as_mut(), &[(&case, case.queries.len())]);
        }
    }
}

/// Batch sizes on both sides of what kernels tile queries by: pairs, fours, sixes, eights, 16, 32.
const EDGES: [usize; 16] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 16, 17, 31, 32, 33];

/// Every size with one pack, with several packs those of [`EDGES`]. A software GPU gets
/// these alone, for it takes long; hardware gets every size.
#[test]
fn engines_equal_the_reference_at_every_batch_size() {
    let mut engines = engines();
    let software = gpus().iter().all(|gpu| gpu.kind == GpuKind::Software);
    let most = BATCH_QUERIES_PER_SCAN_MAX + 1;
    for (packs, columns) in [(1, 192), (2, 192), (7, 256)] {
        let case = Case::of_table(&(128, packs, columns, most, Random));
        for count in 1..=most {
            for engine in &mut engines {
                let slow = packs > 1 || (software && engine.name().starts_with("gpu"));
                if !slow || EDGES.contains(&count) {
                    check(engine.as_mut(), &[(&case, count)]);
                }
            }
        }
    }
}

#[test]
fn one_call_answers_many_shards() {
    let shards: Vec<_> = [
        (128, 2, 320, 3, Random),
        (2048, 1, 192, 2, Random),
        (128, 2, 320, 33, Highest),
        (512, 3, 256, 5, Random),
    ]
    .iter()
    .map(Case::of_table)
    .collect();
    let [a, b, c, d] = [0, 1, 2, 3].map(|at| &shards[at]);
    for engine in &mut engines() {
        // Also: the same shard twice, a batch without queries, scratch of a larger batch before.
        check(engine.as_mut(), &[(a, 3), (b, 1), (c, 33), (d, 0), (b, 2), (d, 5), (a, 1)]);
        check(engine.as_mut(), &[]);
    }
}

#[test]
fn engines_equal_the_reference_on_random_cases() {
    let seed = seed();
    let mut engines = engines();
    for round in 0..6 {
        let mut draw = Draw::new(seed, &format!("engine test shapes {round}"));
        let pack_rows = 128 << draw.below(4);
        let packs = 1 + draw.below(6) as u32;
        let columns = 192 + 64 * draw.below(80) as u32;
        let queries = 1 + draw.below(36) as usize;
        let shape = Shape::new(40, pack_rows, packs, columns).unwrap();
        let case = Case::new(format!("{seed} {round} {shape:?}"), shape, queries, Random);
        for engine in &mut engines {
            check(engine.as_mut(), &[(&case, queries)]);
        }
    }
}

#[test]
fn wrong_sizes_are_refused_before_any_work() {
    let case = Case::of_table(&(128, 1, 192, 1, Random));
    let mut short = case.queries[0].clone();
    short.vector = short.vector[1..].into();
    let mut two_keys = case.queries[0].clone();
    two_keys.bundle = Case::of_table(&(2048, 1, 192, 1, Random)).queries[0].bundle.clone();
    let shape = &case.shape;
    for engine in &mut engines() {
        let mut refused = |matrix: &[u8], tables: &[u8], query: &EncryptedQuery| {
            let queries = std::slice::from_ref(query);
            let shard = ShardView { shape, matrix, tables, content: None };
            let good = Batch { shard: case.view(), queries: &case.queries };
            let error = engine
                .answer(&[good, Batch { shard, queries }], &mut |_, _, _| panic!("work was done"))
                .unwrap_err();
            assert!(matches!(error, EngineError::Size { batch: 1, .. }), "{error}");
            error.to_string()
        };
        let (matrix, tables) = (&case.matrix[..], &case.tables[..]);
        let message = refused(&matrix[1..], tables, &case.queries[0]);
        assert_eq!(message, "batch 1: the matrix has 24575 bytes, the shard's shape says 24576");
        refused(matrix, &tables[..tables.len() - 1], &case.queries[0]);
        refused(matrix, tables, &short);
        refused(matrix, tables, &two_keys);
    }
}

#[test]
fn choices_are_taken_or_refused() {
    let one = NonZeroUsize::new(1);
    let auto = select(EngineChoice::Auto, IsaChoice::Auto, NonZeroUsize::new(2)).unwrap();
    if gpus().iter().all(|gpu| gpu.kind == GpuKind::Software) {
        assert_eq!(auto.name(), format!("cpu {}, 2 threads", Isa::detect().name().name()));
    }
    for isa in IsaName::ALL {
        let choice = isa.name().parse().unwrap();
        assert_eq!(choice, IsaChoice::Only(isa));
        match select(EngineChoice::Cpu, choice, one) {
            Ok(engine) => assert_eq!(engine.name(), format!("cpu {}, 1 thread", isa.name())),
            Err(error) => {
                assert!(Isa::new(isa).is_none());
                assert!(error.to_string().contains("use one of portable"), "{error}");
            }
        }
    }
    for name in ["auto", "gpu", "cpu"] {
        assert!(name.parse::<EngineChoice>().is_ok());
    }
    assert_eq!("auto".parse(), Ok(IsaChoice::Auto));
    assert_eq!("1".parse(), Ok(GpuChoice::Index(1)));
    assert_eq!("H200".parse(), Ok(GpuChoice::Name("h200".into())));
    let error = "sse2".parse::<IsaChoice>().unwrap_err();
    let expected = "found \"sse2\", expected auto, portable, avx2, avx512bw, avx512, amx or neon";
    assert_eq!(error.to_string(), expected);
}

/// What is forced is taken or refused; left to choose, every real GPU is taken beside the
/// processor, or a line says why not.
#[test]
fn gpus_are_taken_beside_the_processor() {
    let names = |selected: &Selected| -> Vec<String> {
        selected.engines.iter().map(|engine| engine.name()).collect()
    };
    let found = gpus();
    let real = found.iter().filter(|gpu| gpu.kind == GpuKind::Real && gpu.lacks.is_none()).count();
    let forced = EngineOptions { engine: EngineChoice::Gpu, ..EngineOptions::default() };
    let auto = select_with(&EngineOptions::default()).unwrap();
    let taken = names(&auto);
    assert!(taken[0].starts_with("cpu"), "{taken:?}");
    assert!(taken[1..].iter().all(|name| name.starts_with("gpu")), "{taken:?}");
    assert_eq!(taken.len(), 1 + real, "{taken:?}, {:?}", auto.why_no_gpu);
    if real == 0 {
        let why = auto.why_no_gpu.expect("a reason");
        assert!(found.iter().all(|gpu| why.contains(&gpu.name)), "{why}");
        let error = select_with(&forced).err().expect("no real GPU to take").to_string();
        assert!(found.iter().all(|gpu| error.contains(&gpu.name)), "{error}");
    }
    let cpu = EngineOptions { engine: EngineChoice::Cpu, ..EngineOptions::default() };
    assert_eq!(names(&select_with(&cpu).unwrap()), taken[..1]);
    let with = |engine, gpus: &[&str]| {
        let gpus = gpus.iter().map(|gpu| gpu.parse().unwrap()).collect();
        select_with(&EngineOptions { engine, gpus, ..EngineOptions::default() })
    };
    let missing = with(EngineChoice::Auto, &["no such device"]);
    assert!(matches!(missing, Err(SelectError::Gpu { .. })));
    assert!(matches!(with(EngineChoice::Cpu, &["0"]), Err(SelectError::Gpu { .. })));
    let Ok(wanted) = std::env::var("SOTTO_TEST_GPU") else { return };
    // That two are taken is seen where they serve (tests/lookup).
    let taken = names(&with(EngineChoice::Auto, &[&wanted]).unwrap());
    assert!(taken.len() == 2 && taken[0].starts_with("cpu"), "{taken:?}");
    assert!(taken[1].starts_with("gpu"), "{taken:?}");
    let one_missing = with(EngineChoice::Gpu, &[&wanted, "no such device"]);
    assert!(matches!(one_missing, Err(SelectError::Gpu { .. })));
}

/// Shards with names stay on a GPU while they fit, the one used longest ago makes room, and one
/// without a name leaves with its call.
#[cfg(feature = "gpu")]
#[test]
fn shards_stay_on_a_gpu_by_recent_use() {
    let cases: Vec<_> = (0..3)
        .map(|_| Case::of_table(&(128, 2, 192, 2, Random)))
        .chain([Case::of_table(&(128, 1, 256, 1, Random))])
        .collect();
    let shard_bytes = (cases[0].matrix.len() + cases[0].tables.len()) as u64;
    let options = GpuOptions { shard_bytes: Some(2 * shard_bytes), ..GpuOptions::default() };
    let Some(mut engine) = gpu_engine(&options) else { return };
    let measured = engine.uploads();
    let mut ask = |named: &[usize], uploads: u64| {
        let view = |&at: &usize| ShardView {
            content: Some(ContentId([at as u8; 16])),
            ..cases[at].view()
        };
        let batch = |at| Batch { shard: view(at), queries: &cases[*at].queries };
        let batches: Vec<_> = named.iter().map(batch).collect();
        let mut given = 0;
        engine
            .answer(&batches, &mut |batch, query, answer| {
                assert_eq!(answer, cases[named[batch]].answers[query]);
                given += 1;
            })
            .unwrap();
        assert_eq!(given, named.iter().map(|&at| cases[at].queries.len()).sum::<usize>());
        assert_eq!(engine.uploads() - measured, uploads, "{named:?}");
    };
    ask(&[0], 1);
    ask(&[0, 1, 0], 2);
    ask(&[2], 3); // in place of 0 or 1: 0 was used last
    ask(&[0], 3);
    ask(&[1], 4);
    ask(&[0, 1, 2, 0, 1], 7); // more than fit: in two submissions
    ask(&[3], 8); // of another shape
    let views = [cases[0].view(), cases[0].view()];
    let batches = views.map(|shard| Batch { shard, queries: &cases[0].queries });
    engine
        .answer(&batches, &mut |_, _, answer| assert!(cases[0].answers.contains(&answer)))
        .unwrap();
    assert_eq!(engine.uploads() - measured, 10, "without a name, nothing is shared or kept");
    let small = GpuOptions { shard_bytes: Some(shard_bytes - 1), ..GpuOptions::default() };
    let mut engine = gpu_engine(&small).unwrap();
    let batch = Batch { shard: cases[0].view(), queries: &cases[0].queries };
    let error = engine.answer(&[batch], &mut |_, _, _| panic!("answered")).unwrap_err();
    assert!(matches!(error, EngineError::Device(_)), "{error}");
    engine.renew().unwrap();
    let batch = Batch { shard: cases[3].view(), queries: &cases[3].queries };
    engine.answer(&[batch], &mut |_, _, answer| assert_eq!(answer, cases[3].answers[0])).unwrap();
}

/// The same shard and vectors, each 16 queries under the bundle of the first of them.
#[cfg(feature = "gpu")]
fn sharing_bundles(case: &Case) -> Case {
    let Case { name, shape, matrix, tables, queries, .. } = case;
    let queries = queries.iter().enumerate().map(|(index, query)| EncryptedQuery {
        vector: query.vector.clone(),
        bundle: queries[index / 16 * 16].bundle.clone(),
    });
    let queries: Vec<_> = queries.collect();
    let answers = queries
        .par_iter()
        .map(|q| sotto::scheme::reference::answer(shape, matrix, tables, &q.vector, &q.bundle))
        .collect();
    let (matrix, tables) = (matrix.clone(), tables.clone());
    Case { name: format!("{name}, shared"), shape: *shape, matrix, tables, queries, answers }
}

/// A bundle goes to the device once while it lives and there is a place for it, whatever asks for
/// it; more bundles than there are places are answered all the same.
#[cfg(feature = "gpu")]
#[test]
fn bundles_stay_on_a_gpu() {
    let many = Case::of_table(&(128, 1, 192, 70, Random));
    let two_keys = Case::of_table(&(2048, 1, 192, 3, Random));
    // Queries of one secret are answered as if each had come with a bundle of its own.
    let shared = sharing_bundles(&Case::of_table(&(128, 1, 256, 70, Random)));
    let options = GpuOptions { bundle_slots: Some(40), ..GpuOptions::default() };
    let Some(mut engine) = gpu_engine(&options) else { return };
    let mut before = engine.bundles_uploaded();
    let mut ask = |engine: &mut GpuEngine, cases: &[(&Case, usize)], uploads: u64| {
        check(engine, cases);
        assert_eq!(engine.bundles_uploaded() - before, uploads);
        before = engine.bundles_uploaded();
    };
    ask(&mut engine, &[(&shared, 16)], 1);
    ask(&mut engine, &[(&shared, 70), (&shared, 16)], 4);
    ask(&mut engine, &[(&two_keys, 3), (&shared, 1)], 3);
    ask(&mut engine, &[(&two_keys, 3), (&shared, 17)], 0);
    // The least recently used make room: all of them, for 70 different ones in rounds of 40.
    ask(&mut engine, &[(&many, 70)], 70);
    ask(&mut engine, &[(&shared, 70)], 5);
    // Many short lives: addresses come again, answers do not.
    for round in 0..50 {
        let case = Case::of_table(&(128, 1, 192, 1, if round % 2 == 0 { Random } else { Carries }));
        ask(&mut engine, &[(&case, 1)], 1);
    }
    // More rounds than are under way at a time.
    check(&mut engine, &[(&many, 70), (&shared, 70), (&two_keys, 3), (&many, 61), (&shared, 9)]);
}
