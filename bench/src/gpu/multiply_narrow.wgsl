// 32 bits times 32 bits plus 32 bits, of which 32 are kept.

alias Number = u32;

fn mul_add(x: vec4<u32>, y: vec4<u32>) -> vec4<u32> {
    return x * y + vec4(0x9e3779b1u);
}
