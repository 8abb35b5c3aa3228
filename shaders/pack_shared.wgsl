// What pack.wgsl and pack_long.wgsl share: sums of products of 24-bit numbers in 64-bit integers
// (SHADER_INT64), one widening multiply-add a product.

// [split][query][pack][prime][slot / 4], each number below 2^28
@group(1) @binding(1) var<storage, read_write> sums: array<vec4<u32>>;

const HALF: u32 = D / 2u;
const BLOCK_SLOTS: u32 = 32u;
const BLOCKS: u32 = D / BLOCK_SLOTS;
// Threads side by side in a block, four slots each.
const QUADS: u32 = 8u;

// Sums of four slots; 512 products each stay below 2^57.
alias Sum = vec4<u64>;

const_assert THREAD_TERMS_MAX <= 512u;

fn add_product(sum: Sum, words: vec4<u32>, key: vec4<u32>) -> Sum {
    return sum + vec4<u64>(words) * vec4<u64>(key);
}

fn fold_wide(x: u64, prime: Prime) -> u64 {
    return (x >> 24u) * u64(prime.rest) + (x & 0xfffffflu);
}

// 2^57, 2^49, 2^40, below 2^32: the rest is the 32-bit reduction's.
fn residue_wide(x: u64, prime: Prime) -> u32 {
    return reduce(u32(fold_wide(fold_wide(fold_wide(x, prime), prime), prime)), prime);
}

fn residues(sum: Sum, prime: Prime) -> vec4<u32> {
    return vec4(
        residue_wide(sum.x, prime),
        residue_wide(sum.y, prime),
        residue_wide(sum.z, prime),
        residue_wide(sum.w, prime),
    );
}

// Four slots of each pack.
struct Words {
    a: vec4<u32>,
    b: vec4<u32>,
    c: vec4<u32>,
    d: vec4<u32>,
}

// Their sums with one query.
struct PackSums {
    a: Sum,
    b: Sum,
    c: Sum,
    d: Sum,
}

// Where the window of a slot without rotation begins in key g.
fn window(slot: u32) -> u32 {
    return slot / HALF * D + slot % HALF;
}

// Where a query's keys under a prime begin. Queries past the last are the last again; they are not
// multiplied.
fn keys_of(query: u32, prime: u32) -> u32 {
    let own = min(query, job.queries - 1u);
    let slot = (job.key_slots[own / 2u] >> (own % 2u * 16u)) & 0xffffu;
    return slot * SLOT_WORDS + prime * select(2u * D, 3u * D, job.pack_rows == D);
}

fn add_query(sums: PackSums, words: Words, key: vec4<u32>) -> PackSums {
    var out = sums;
    out.a = add_product(sums.a, words.a, key);
    if PACKS > 1u {
        out.b = add_product(sums.b, words.b, key);
        out.c = add_product(sums.c, words.c, key);
        out.d = add_product(sums.d, words.d, key);
    }
    return out;
}
