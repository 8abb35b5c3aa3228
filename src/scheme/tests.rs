//! The scheme against tests/vectors/vectors.json (docs/scheme.md, "Test vectors"), on every
//! instruction set; the once-only rule; and the noise, from above and from below.

use serde_json::Value;
use zeroize::Zeroizing;

use super::decode::decode_rows;
use super::mask::{key_mask, query_mask, xof};
use super::random::shuffled;
use super::secret::{Secret, round_to_wire};
use super::terms::Chains;
use super::*;
use crate::arith::{Isa, Rings, zero_poly};
use crate::params::{D, P, Q, Shape, ShapeFields};

const SEED: Seed = [
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25,
    26, 27, 28, 29, 30, 31,
];

fn vectors() -> Value {
    serde_json::from_str(include_str!("../../tests/vectors/vectors.json")).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

fn digest_words(words: impl IntoIterator<Item = u32>) -> String {
    hex(&words.into_iter().flat_map(u32::to_le_bytes).collect::<Vec<_>>())
}

fn first(words: &[u32]) -> Value {
    words[..6].iter().copied().collect()
}

fn residues(bytes: &[u8]) -> Vec<u32> {
    bytes.as_chunks::<3>().0.iter().map(read_residue).collect()
}

/// Small numbers from a labelled stream, as the recipe of the vectors draws its noise.
fn stream(label: &str, count: usize, modulus: u8, shift: i8) -> Vec<i8> {
    let mut bytes = vec![0; count];
    xof(&SEED, label.as_bytes()).fill(&mut bytes);
    bytes.iter().map(|&b| (b % modulus) as i8 - shift).collect()
}

fn rows(count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    xof(&SEED, b"test rows").fill(&mut bytes);
    bytes
}

fn fixed_secret(isa: Isa) -> Secret {
    let coefficients = stream("test secret", D, 3, 1).try_into().unwrap();
    Secret::from_parts(isa, SEED, Box::new(Zeroizing::new([7; 32])), &coefficients)
}

/// A secret that is another one each time.
fn some_secret() -> Secret {
    Secret::from_key(Isa::detect(), SEED, Box::new(Zeroizing::new(random_bytes().unwrap())))
}

/// One query under a secret of its own: the pool and the query's name.
fn one_query(shape: &Shape, shard: u32, selection: Selection) -> (SecretPool, QueryId) {
    let mut pool = SecretPool::new(SEED, *shape);
    let query = pool.encrypt(&[(shard, selection)], Sharing::Shared).unwrap()[0];
    (pool, query)
}

fn fixed_bundle(secret: &Secret, pack_rows: usize, label: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for &key in Chains::new(pack_rows).keys() {
        let errors = stream(&format!("{label}{}", key.index() + 1), D, 7, 3);
        secret.bundle_key(key, pack_rows, &errors, &mut bytes);
    }
    bytes
}

/// Table and hint of a pack.
fn build(isa: Isa, shape: &Shape, rows: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let (mut table, mut hint) = (vec![0; shape.table_bytes()], vec![0; shape.hint_bytes()]);
    ShardMasks::new(isa, &SEED, 5, shape).build_pack(rows, &mut table, &mut hint);
    (table, hint)
}

fn shape(pack_rows: u32, columns: u32, response_bits: u32, hint_bits: u32) -> Shape {
    let (value_len, packs) = (24, 1);
    let fields = ShapeFields { value_len, pack_rows, packs, columns, response_bits, hint_bits };
    Shape::from_fields(fields).unwrap()
}

fn vectors_selection(vectors: &Value, start: u32) -> Selection {
    let hex = vectors["keyword"]["coeffs"].as_str().unwrap();
    Selection::new(start, u128::from_str_radix(hex, 16).unwrap().swap_bytes())
}

#[test]
fn masks_and_transforms_are_those_of_the_vectors() {
    let v = vectors();
    assert_eq!(first(&query_mask(&SEED, 5, 0)), v["query_mask_block0"]);
    for (name, key) in [("key_mask_g", KeyName::G), ("key_mask_h", KeyName::H)] {
        assert_eq!(first(&key_mask::<Q>(&SEED, key, D)[..]), v[name]["Q"]);
        assert_eq!(first(&key_mask::<P>(&SEED, key, D)[..]), v[name]["P"]);
    }
    for isa in Isa::all() {
        let rings = Rings::get(isa);
        assert_eq!(v["psi"]["Q"], rings.q.psi());
        assert_eq!(v["psi"]["P"], rings.p.psi());
        let mut x = [zero_poly(), zero_poly()];
        x.iter_mut().for_each(|x| x[1] = 1);
        rings.q.forward(&mut x[0]);
        rings.p.forward(&mut x[1]);
        assert_eq!(first(&x[0][..]), v["ntt_of_x"]["Q"]);
        assert_eq!(first(&x[1][..]), v["ntt_of_x"]["P"]);
    }
}

/// Builds a pack, encrypts, answers and decodes as the recipe of the vectors says, and compares all
/// of `case` that names a result with what came out; how many did.
fn check_pack(
    isa: Isa,
    case: &Value,
    shape: &Shape,
    start: u32,
    [key_noise, query_noise]: [&str; 2],
) -> usize {
    let secret = fixed_secret(isa);
    let rows = rows(shape.matrix_bytes());
    let (table, hint) = build(isa, shape, &rows);
    let bundle = fixed_bundle(&secret, shape.pack_rows(), key_noise);
    let errors = stream(query_noise, shape.columns(), 7, 3);
    let query = secret.encrypt(5, &vectors_selection(&vectors(), start), &errors);
    let query = round_to_wire(&query);
    let scanned = reference::scan(shape, &rows, &residues(&query));
    let checked = KeyBundle::decode(&bundle, shape).unwrap();
    let response = reference::answer(shape, &rows, &table, &query, &checked);
    let decoded =
        decode_rows(isa, secret.slots_q(), shape, shape.packs(), &response, &hint).unwrap();
    assert_eq!(decoded.trusted_mask(), u32::MAX);
    let hint: Vec<u32> = unpack_bits(&hint, shape.hint_bits()).collect();
    let response: Vec<u32> = unpack_bits(&response[0], shape.response_bits()).collect();
    let made = [
        ("rows_bytes_digest", hex(&rows).into()),
        ("key_bundle", first(&residues(&bundle))),
        ("key_bundle_digest", hex(&bundle).into()),
        ("query", first(&residues(&query))),
        ("query_digest", hex(&query).into()),
        ("hint", first(&hint)),
        ("hint_digest", digest_words(hint).into()),
        ("table", first(&residues(&table))),
        ("table_digest", hex(&table).into()),
        ("scanned", first(&scanned)),
        ("scanned_digest", digest_words(scanned).into()),
        ("response", first(&response)),
        ("response_digest", digest_words(response).into()),
        ("decoded_bytes_digest", hex(decoded.bytes()).into()),
    ];
    let named = made.into_iter().filter(|(name, _)| !case[name].is_null());
    named.inspect(|(name, made)| assert_eq!(case[name], *made, "{name}, {isa:?}")).count()
}

#[test]
fn packs_of_every_size_are_those_of_the_vectors_on_every_path() {
    let v = vectors();
    let start = v["keyword"]["start"].as_u64().unwrap() as u32;
    for isa in Isa::all() {
        let noises = ["test key noise ", "test query noise 1"];
        assert_eq!(check_pack(isa, &v, &shape(2048, 320, 12, 17), start, noises), 14);
        let noises = ["test small key noise ", "test query noise 1"];
        let shape_256 = shape(256, 320, 12, 17);
        assert_eq!(check_pack(isa, &v["pack_256"], &shape_256, start, noises), 6);
        // Packs whose columns take two mask blocks.
        for case in v["packs"].as_array().unwrap() {
            let [size, columns, response_bits, hint_bits] =
                ["size", "columns", "response_bits", "hint_bits"]
                    .map(|name| case[name].as_u64().unwrap() as u32);
            let shape = shape(size, columns, response_bits, hint_bits);
            let noises = [format!("test key noise {size} "), format!("test query noise {size} 1")];
            let found =
                check_pack(isa, case, &shape, columns - 128, noises.each_ref().map(|s| &**s));
            assert_eq!(found, 6);
        }
    }
}

#[test]
fn a_secret_encrypts_one_selection_for_a_shard() {
    let shape = shape(128, 192, 11, 17);
    let encrypt = |queries: Vec<(u32, Selection)>| {
        let planned = queries.iter();
        let planned: Vec<_> = planned
            .map(|(shard, selection)| secret::Planned { secret: 0, shard: *shard, selection })
            .collect();
        std::panic::catch_unwind(|| some_secret().encrypt_all(&shape, &planned).vectors.len())
    };
    let distinct = |count| (0..count).map(|shard| (shard, Selection::new(0, 1))).collect();
    assert_eq!(encrypt(distinct(16)).unwrap(), 16);
    assert!(encrypt(distinct(17)).is_err(), "seventeen queries under one secret");
    for again in [Selection::new(5, 79), Selection::new(6, 77), Selection::new(5, 77)] {
        let twice = encrypt(vec![(3, Selection::new(5, 77)), (3, again)]);
        assert!(twice.is_err(), "two queries for one shard under one secret");
    }

    let mut pool = SecretPool::new(SEED, shape);
    let outside = [(4, Selection::new(0, 1)), (4, Selection::new(65, 1))];
    let refused = pool.encrypt(&outside, Sharing::Shared);
    assert_eq!(refused, Err(SecretError::Selection { columns: 192 }));
    assert_eq!(pool.secret_count(), 0);
    let query = pool.encrypt(&outside[..1], Sharing::Shared).unwrap()[0];
    let (vector, bundle) = (pool.vector(query).unwrap(), pool.bundle(query).unwrap().1);
    assert!(std::sync::Arc::ptr_eq(&vector, &pool.vector(query).unwrap()));
    assert!(std::sync::Arc::ptr_eq(&bundle, &pool.bundle(query).unwrap().1));
}

#[test]
fn the_pool_spreads_a_shards_queries_over_secrets() {
    let shape = shape(128, 192, 11, 17);
    let mut pool = SecretPool::new(SEED, shape);
    let to_one_shard = (0..20).map(|i| (9, Selection::new(i, 1)));
    let to_many = (100..400).map(|shard| (shard, Selection::new(1, 1)));
    let queries: Vec<_> = to_one_shard.chain(to_many).collect();
    let made = pool.encrypt(&queries, Sharing::Shared).unwrap();
    assert_eq!(pool.secret_count(), 20); // 20 secrets of 16 queries hold 320
    let mut distinct: Vec<_> = made[..20].iter().map(|&q| pool.bundle(q).unwrap().0).collect();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), 20);
    // A later step adds to no secret of an earlier one, and apart means one secret each.
    let later: Vec<_> = (0..3).map(|shard| (shard, Selection::new(0, 1))).collect();
    let fresh = pool.encrypt(&later, Sharing::Apart).unwrap();
    assert_eq!(pool.secret_count(), 23);
    let shared = pool.encrypt(&later, Sharing::Shared).unwrap();
    assert_eq!(pool.secret_count(), 24);
    assert_ne!(pool.vector(fresh[0]).unwrap(), pool.vector(shared[0]).unwrap());
    assert_ne!(pool.bundle(fresh[0]).unwrap().0, pool.bundle(fresh[1]).unwrap().0);
    assert_eq!(pool.bundle(shared[0]).unwrap().0, pool.bundle(shared[1]).unwrap().0);
    assert_eq!(pool.encrypt(&[], Sharing::Shared).unwrap(), []);
    let other = SecretPool::new(SEED, shape);
    assert_eq!(other.vector(fresh[0]).unwrap_err(), SecretError::Unknown);
}

/// Does not compile when `$type` implements one of the traits: the call would be ambiguous.
macro_rules! implements_none {
    ($type:ty: $($name:path),+) => { $(const _: fn() = || {
        trait Ambiguous<A> { fn call() {} }
        impl<T: ?Sized> Ambiguous<()> for T {}
        struct Implements;
        impl<T: ?Sized + $name> Ambiguous<Implements> for T {}
        <$type as Ambiguous<_>>::call();
    };)+ };
}
implements_none!(Secret: Clone, std::fmt::Debug, serde::Serialize);
implements_none!(secret::UsedSecret: Clone, std::fmt::Debug, serde::Serialize);
implements_none!(SecretPool: Clone, std::fmt::Debug, serde::Serialize);
implements_none!(Decoder: Clone, std::fmt::Debug, serde::Serialize);
implements_none!(Selection: Clone, std::fmt::Debug, serde::Serialize);
implements_none!(Decoded: Clone, std::fmt::Debug, serde::Serialize);
implements_none!(KeyBundle: std::fmt::Debug, serde::Serialize);

/// Variance of centred values.
fn variance(values: &[f64]) -> f64 {
    values.iter().map(|v| v * v).sum::<f64>() / values.len() as f64
}

#[test]
fn errors_of_bundles_and_queries_are_as_large_as_security_needs() {
    let (mut of_bundles, mut of_queries) = (Vec::new(), Vec::new());
    let shape = shape(2048, 2112, 12, 17);
    let rings = Rings::get(Isa::detect());
    for _ in 0..8 {
        let secret = some_secret();
        let (slots_q, columns) = (secret.slots_q().to_vec(), shape.columns());
        let without = secret.encrypt(1, &Selection::new(700, u128::MAX), &vec![0; columns]);
        // The error before rounding cannot be read off the wire; the stream it comes from can.
        let errors = secret.query_errors(1, columns);
        let selection = &Selection::new(700, u128::MAX);
        let planned = [secret::Planned { secret: 0, shard: 1, selection }];
        let used = secret.encrypt_all(&shape, &planned);
        let bundle = KeyBundle::decode(&used.bundle, &shape).unwrap();
        for (key, name) in [(0, KeyName::G), (1, KeyName::H)] {
            let mut error = zero_poly();
            let mask = key_mask::<P>(&SEED, name, D);
            let mut slots_p = zero_poly();
            rings.lift_to_p(slots_q[..].try_into().unwrap(), &mut slots_p);
            for (slot, e) in error.iter_mut().enumerate() {
                let masked = crate::arith::mul::<P>(mask[slot], slots_p[slot]);
                *e = crate::arith::sub::<P>(bundle.half(key, 1)[slot], masked);
            }
            rings.p.inverse(&mut error);
            of_bundles.extend(error.iter().map(|&e| f64::from(crate::arith::centered::<P>(e))));
        }
        let rounded = residues(&used.vectors[&1]);
        for (column, &e) in errors.iter().enumerate() {
            let with = without[column].wrapping_add(i32::from(e) as u32);
            assert_eq!(with.wrapping_add(128) >> 8, rounded[column], "column {column}");
            of_queries.push(f64::from(e));
        }
    }
    for (what, errors) in [("bundles", of_bundles), ("queries", of_queries)] {
        let found = variance(&errors);
        let off = 6.0 * 10.5 * (2.0 / errors.len() as f64).sqrt(); // six sigma of the estimate
        assert!(found > 10.5 - off, "{what}: variance {found}, security needs 10.5");
        assert!(found < 10.5 + off, "{what}: variance {found}, the noise budget assumes 10.5");
        assert!(errors.iter().all(|e| e.abs() <= 21.0), "{what}");
    }
}

#[test]
fn secrets_are_uniform_ternary() {
    let mut counts = [0f64; 3];
    for _ in 0..16 {
        let mut poly = zero_poly();
        poly.copy_from_slice(some_secret().slots_q());
        Rings::get(Isa::detect()).q.inverse(&mut poly);
        for &c in poly.iter() {
            counts[(crate::arith::centered::<Q>(c) + 1) as usize] += 1.0;
        }
    }
    let expected = 16.0 * D as f64 / 3.0;
    let chi_squared: f64 = counts.iter().map(|c| (c - expected).powi(2) / expected).sum();
    assert!(chi_squared < 27.6, "{counts:?}"); // once in a million with two degrees of freedom
}

/// Noise of decoded coefficients, with the secret at hand, against the formula from above.
#[test]
fn noise_of_answers_is_within_the_budget() {
    for (pack_rows, columns, bits) in
        [(2048, 320, (12, 17)), (2048, 4096, (12, 17)), (256, 192, (11, 17)), (128, 2112, (12, 18))]
    {
        let shape = shape(pack_rows, columns, bits.0, bits.1);
        let rows = rows((pack_rows * columns) as usize);
        let (table, hint) = build(Isa::detect(), &shape, &rows);
        let tries = (4096 / pack_rows).max(3);
        let mut noise = Vec::new();
        for round in 0..tries {
            let (start, coeffs) = (round * 3, 0x1234_5678_9abc_def1_u128 << round);
            let selection = &Selection::new(start, coeffs);
            let planned = [secret::Planned { secret: 0, shard: 5, selection }];
            let used = some_secret().encrypt_all(&shape, &planned);
            let bundle = KeyBundle::decode(&used.bundle, &shape).unwrap();
            let response = reference::answer(&shape, &rows, &table, &used.vectors[&5], &bundle);
            let (isa, slots) = (Isa::detect(), &used.slots_q);
            let decoded = decode_rows(isa, slots, &shape, shape.packs(), &response, &hint).unwrap();
            assert_eq!(decoded.trusted_mask(), u32::MAX);
            let phase = decode::phase(isa, slots, &shape, &response[0], &hint);
            for (row, &value) in phase[..pack_rows as usize].iter().enumerate() {
                let selected = rows[row * columns as usize + start as usize..].iter().take(128);
                let sum = selected.enumerate().fold(0u8, |sum, (j, &m)| {
                    sum.wrapping_add(m.wrapping_mul((coeffs >> j) as u8 & 1))
                });
                assert_eq!(decoded.bytes()[row], sum, "row {row}");
                let exact = f64::from(sum) * f64::from(Q) / 256.0;
                let off = (f64::from(value) - exact).rem_euclid(f64::from(Q));
                noise.push(if off > f64::from(Q) / 2.0 { off - f64::from(Q) } else { off });
            }
        }
        let found = variance(&noise).sqrt();
        let allowed = shape.noise_std() * 1.03 + 6.0 * found / (2.0 * noise.len() as f64).sqrt();
        assert!(found <= allowed, "{found} against {} by the formula", shape.noise_std());
        assert!(found >= shape.noise_std() * 0.9, "the formula is far too wide: {found}");
    }
}

#[test]
fn a_changed_hint_or_matrix_is_not_trusted() {
    let shape = shape(256, 192, 11, 17);
    let mut rows = rows(256 * 192);
    let (table, hint) = build(Isa::detect(), &shape, &rows);
    let (pool, query) = one_query(&shape, 5, Selection::new(9, 0b1011));
    let bundle = KeyBundle::decode(&pool.bundle(query).unwrap().1, &shape).unwrap();
    let vector = pool.vector(query).unwrap();
    let decoder = pool.seal();
    let trusted = |rows: &[u8], hint: &[u8]| {
        let response = reference::answer(&shape, rows, &table, &vector, &bundle);
        decoder.decode(query, &shape, &response, hint).unwrap().trusted_mask()
    };
    assert_eq!(trusted(&rows, &hint), u32::MAX);
    // One entry of each row, each in a column of its own: a changed row goes unseen with
    // probability 0.85, all of them with less than 0.85^100.
    rows.iter_mut().skip(30).step_by(193).for_each(|entry| *entry ^= 1);
    let stale = build(Isa::detect(), &shape, &rows).1;
    assert_eq!(trusted(&rows, &hint), 0, "a changed matrix");
    rows.iter_mut().skip(30).step_by(193).for_each(|entry| *entry ^= 1);
    assert_eq!(trusted(&rows, &stale), 0, "a hint of another matrix");
    assert_eq!(trusted(&rows, &hint), u32::MAX);
    let short = decoder.decode(query, &shape, &[vec![]], &hint);
    assert!(matches!(short, Err(SecretError::Length { .. })));
}

#[test]
fn permutations_are_uniform() {
    assert_eq!((shuffled(0, &[0; 32]), shuffled(1, &[0; 32])), (vec![], vec![0]));
    let mut counts = std::collections::BTreeMap::new();
    for n in 0..24_000u32 {
        let seed = *blake3::hash(&n.to_le_bytes()).as_bytes();
        *counts.entry(shuffled(4, &seed)).or_insert(0i32) += 1;
    }
    assert_eq!(counts.len(), 24);
    // 1 000 of each expected; six standard deviations.
    assert!(counts.values().all(|count| (count - 1_000).abs() < 186), "{counts:?}");
    let (a, b) = (random_permutation(64).unwrap(), random_permutation(64).unwrap());
    assert_ne!(a, b);
    let mut sorted = a;
    sorted.sort_unstable();
    assert!(sorted.into_iter().eq(0..64));
}
