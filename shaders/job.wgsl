// What all kernels share: the numbers of one dispatch, and arithmetic modulo the two primes
// without 64-bit integers. src/engine/gpu/kernels.rs puts this text before every kernel's, and
// before it the constants that no text declares (Q, P, P_INVERSE, D, QUERIES_MAX, tile sizes).

// The numbers of one dispatch: `Job` of src/engine/gpu/kernels.rs, field by field.
struct Job {
    // Rows, packs and queries of the whole batch; what buffers are laid out by.
    rows: u32,
    packs: u32,
    queries: u32,
    pack_rows: u32,
    // Rows or packs of the bound part of the shard, and the first of them.
    part_first: u32,
    part_count: u32,
    // The first tile of this dispatch: large jobs are cut. Tiles of queries lie along x, what they
    // share along z, so that workgroups of the same part of a shard run side by side.
    first_tile: u32,
    // 16-byte groups of a matrix row.
    row_groups: u32,
    // Queries of one scan and its finish, and the first of them.
    scan_queries: u32,
    first_query: u32,
    // The columns of a row are split: groups of one split, and how many splits there are.
    split_groups: u32,
    column_splits: u32,
    // Slots a key moves by from one term to the next.
    rotation_step: u32,
    // Splits of a pack's terms.
    term_splits: u32,
    response_bits: u32,
    // Where each query's keys are in the pool, two numbers a word.
    key_slots: array<u32, QUERIES_MAX / 2u>,
}

var<immediate> job: Job;

// Four numbers of 24 bits out of three words.
fn four(x: u32, y: u32, z: u32) -> vec4<u32> {
    return vec4(x, (x >> 24u) | (y << 8u), (y >> 16u) | (z << 16u), z >> 8u) & vec4(0xffffffu);
}

// 2^24 - prime and the prime itself, as a pair.
struct Prime {
    rest: u32,
    value: u32,
}

fn prime_of(index: u32) -> Prime {
    if index == 0u {
        return Prime((1u << 24u) - Q, Q);
    }
    return Prime((1u << 24u) - P, P);
}

// A number congruent to x modulo the prime. Below 2^25 for any x, for rest is below 2^16; below
// 2^24 + 2^18 for x below 2^26.
fn fold(x: u32, prime: Prime) -> u32 {
    return (x >> 24u) * prime.rest + (x & 0xffffffu);
}

// The residue of a number below twice the prime.
fn reduce_once(x: u32, prime: Prime) -> u32 {
    return select(x, x - prime.value, x >= prime.value);
}

// The residue of any 32-bit number.
fn reduce(x: u32, prime: Prime) -> u32 {
    return reduce_once(fold(fold(x, prime), prime), prime);
}

// The residue of low + 2^12 middle + 2^24 high, for any three 32-bit numbers: 2^12 is taken in two
// steps, 7 bits of a number below 2^25 and 5 of the next.
fn combine(low: u32, middle: u32, high: u32, prime: Prime) -> u32 {
    var sum = fold(fold(high, prime), prime);
    sum = fold(fold(sum << 7u, prime) << 5u, prime) + fold(middle, prime);
    sum = fold(sum, prime);
    sum = fold(fold(sum << 7u, prime) << 5u, prime) + fold(low, prime);
    return reduce_once(fold(sum, prime), prime);
}

// The product of two numbers below 2^24, modulo the prime.
fn multiply(x: u32, y: u32, prime: Prime) -> u32 {
    let x0 = x & 0xfffu;
    let x1 = x >> 12u;
    let y0 = y & 0xfffu;
    let y1 = y >> 12u;
    return combine(x0 * y0, x0 * y1 + x1 * y0, x1 * y1, prime);
}
