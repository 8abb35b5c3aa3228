// 32 bits times 32 bits plus 64 bits, as pack_wide.wgsl adds up products.

alias Number = u64;

fn mul_add(x: vec4<u64>, y: vec4<u64>) -> vec4<u64> {
    return x + vec4<u64>(vec4<u32>(x)) * vec4<u64>(vec4<u32>(y));
}
