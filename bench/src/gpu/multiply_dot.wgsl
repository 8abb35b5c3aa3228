// Four products of signed bytes, added to 32 bits: one of them counts as one.

alias Number = u32;

fn dot_add(x: u32, y: u32) -> u32 {
    return x + bitcast<u32>(dot4I8Packed(x, y));
}

fn mul_add(x: vec4<u32>, y: vec4<u32>) -> vec4<u32> {
    return vec4(
        dot_add(x.x, y.x),
        dot_add(x.y, y.y),
        dot_add(x.z, y.z),
        dot_add(x.w, y.w),
    );
}
