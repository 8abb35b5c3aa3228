// Sums of products of 24-bit numbers without 64-bit integers: two halves of 12 bits, three sums.
// The other way: pack_wide.wgsl. What adds them up: pack.wgsl, pack_long.wgsl.

// Sums of four slots: low + 2^12 middle + 2^24 high. A middle product is at most 2 x 4095^2, so
// that 128 stay below 2^32: nothing has to be folded before a thread's last term.
struct Sum {
    low: vec4<u32>,
    middle: vec4<u32>,
    high: vec4<u32>,
}

const_assert THREAD_TERMS_MAX <= 128u;

fn add_product(sum: Sum, words: vec4<u32>, key: vec4<u32>) -> Sum {
    let w0 = words & vec4(0xfffu);
    let w1 = words >> vec4(12u);
    let k0 = key & vec4(0xfffu);
    let k1 = key >> vec4(12u);
    return Sum(sum.low + w0 * k0, sum.middle + w0 * k1 + w1 * k0, sum.high + w1 * k1);
}

fn residues(sum: Sum, prime: Prime) -> vec4<u32> {
    return vec4(
        combine(sum.low.x, sum.middle.x, sum.high.x, prime),
        combine(sum.low.y, sum.middle.y, sum.high.y, prime),
        combine(sum.low.z, sum.middle.z, sum.high.z, prime),
        combine(sum.low.w, sum.middle.w, sum.high.w, prime),
    );
}
