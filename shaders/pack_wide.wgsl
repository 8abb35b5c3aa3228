// Sums of products of 24-bit numbers where there are 64-bit integers (SHADER_INT64): one widening
// multiply-add a product. The other way: pack_halves.wgsl. What adds them up: pack.wgsl,
// pack_long.wgsl.

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
