// From scanned values and key switch sums to the bits of a response: docs/scheme.md, "Answer". CPU
// twins: `round` in src/engine/kernel.rs (the transform is linear, so dividing by P
// needs none of its own), `backward` in src/arith/ntt.rs, `pack_bits` in src/scheme/coding.rs.
//
// One workgroup a query and pack. Both primes' sums are transformed in workgroup memory, eleven
// layers of Gentleman-Sande butterflies from bit-reversed order upwards. There is little to do
// beside scan and pack, but one query has few workgroups: all the threads there are, so that
// waiting is short. All steps are exact in 32-bit integers.

// [prime][twiddle], heap order, D^-1 in place 0; then [slot], the place it starts from
@group(0) @binding(0) var<storage, read> tables: array<u32>;
// [split][query of the scan][row]
@group(1) @binding(0) var<storage, read> scanned: array<u32>;
// [split][query][pack][prime][slot]
@group(1) @binding(1) var<storage, read> sums: array<u32>;
// [query of the scan][pack][word]
@group(1) @binding(2) var<storage, read_write> responses: array<u32>;

// [prime][place]
var<workgroup> poly: array<u32, 2u * D>;

fn split_sum(split: u32, at: u32, stride: u32) -> u32 {
    let last = job.term_splits - 1u;
    return select(0u, sums[min(split, last) * stride + at], split <= last);
}

fn split_scanned(split: u32, at: u32, stride: u32) -> u32 {
    let last = job.column_splits - 1u;
    return select(0u, scanned[min(split, last) * stride + at], split <= last);
}

// Adds up the splits of both polynomials and puts slots into their places.
fn load(query: u32, pack: u32, thread: u32) {
    let stride = job.queries * job.packs * 2u * D;
    for (var i = thread; i < 2u * D; i += FINISH_THREADS) {
        let at = ((job.first_query + query) * job.packs + pack) * 2u * D + i;
        var sum = 0u; // of at most 8 splits below 2^28; four loads under way at a time
        for (var split = 0u; split < job.term_splits; split += 4u) {
            sum += split_sum(split, at, stride);
            sum += split_sum(split + 1u, at, stride);
            sum += split_sum(split + 2u, at, stride);
            sum += split_sum(split + 3u, at, stride);
        }
        let place = i / D * D + tables[2u * D + i % D];
        poly[place] = reduce(sum, prime_of(i / D));
    }
}

// Slots to coefficients, both primes.
fn transform(thread: u32) {
    for (var distance = 1u; distance < D; distance *= 2u) {
        let groups = D / 2u / distance;
        workgroupBarrier();
        for (var i = thread; i < D; i += FINISH_THREADS) {
            let index = i / (D / 2u);
            let prime = prime_of(index);
            let butterfly = i % (D / 2u);
            let group = butterfly / distance;
            let at = index * D + group * 2u * distance + butterfly % distance;
            let a = poly[at];
            let b = poly[at + distance];
            let twiddle = tables[index * D + groups + group];
            poly[at] = reduce_once(a + b, prime);
            let less = reduce_once(a + prime.value - b, prime);
            poly[at + distance] = multiply(less, twiddle, prime);
        }
    }
    workgroupBarrier();
}

// round(x Q / 2^24) for x below 2^24: with Q = 2^24 - r, x less floor((x r + 2^23 - 1) / 2^24);
// the product is 38 bits, 12 of them apart.
fn to_modulo_q(x: u32) -> u32 {
    let rest = (1u << 24u) - Q;
    let low = (x & 0xfffu) * rest;
    let high = (x >> 12u) * rest + (low >> 12u);
    return x - ((high + 2047u + (((low & 0xfffu) + 4095u) >> 12u)) >> 12u);
}

// round(x 2^bits / Q) modulo 2^bits for x below Q, a bit at a time.
fn to_bits(x: u32, bits: u32) -> u32 {
    var rest = x;
    var quotient = 0u;
    for (var i = 0u; i < bits; i++) {
        rest *= 2u;
        let bit = u32(rest >= Q);
        rest -= bit * Q;
        quotient = quotient * 2u + bit;
    }
    quotient += u32(2u * rest >= Q);
    return quotient & ((1u << bits) - 1u);
}

// One coefficient of the response.
fn coefficient(query: u32, pack: u32, row: u32) -> u32 {
    let q = prime_of(0u);
    let stride = job.scan_queries * job.rows;
    let at = query * job.rows + pack * job.pack_rows + row;
    var value = 0u;
    for (var split = 0u; split < job.column_splits; split += 4u) {
        value += split_scanned(split, at, stride);
        value += split_scanned(split + 1u, at, stride);
        value += split_scanned(split + 2u, at, stride);
        value += split_scanned(split + 3u, at, stride);
    }
    let mask_q = multiply(poly[row], tables[0], q);
    let mask_p = multiply(poly[D + row], tables[D], prime_of(1u));
    // The centred residue modulo P, as a residue modulo Q.
    let e = select(mask_p, mask_p + (Q - P), mask_p > P / 2u);
    let mask = multiply(reduce_once(mask_q + Q - e, q), P_INVERSE, q);
    let body = to_modulo_q(value & 0xffffffu);
    return to_bits(reduce_once(body + Q - mask, q), job.response_bits);
}

@compute @workgroup_size(FINISH_THREADS)
fn finish(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let query = job.first_tile + group.z;
    let pack = group.y;
    load(query, pack, thread);
    transform(thread);
    for (var row = thread; row < job.pack_rows; row += FINISH_THREADS) {
        poly[row] = coefficient(query, pack, row);
    }
    workgroupBarrier();
    let bits = job.response_bits;
    let words = job.pack_rows * bits / 32u;
    let first = (query * job.packs + pack) * words;
    for (var at = thread; at < words; at += FINISH_THREADS) {
        // The value that bit 32 at lies in, then as many as it takes to fill the word.
        var value = at * 32u / bits;
        let skipped = at * 32u % bits;
        var word = poly[value] >> skipped;
        for (var filled = bits - skipped; filled < 32u; filled += bits) {
            value++;
            word |= poly[value] << filled;
        }
        responses[first + at] = word;
    }
}
