// How fast a device multiplies and adds: eight chains a thread, each of two numbers that feed each
// other, so that no step can be left out, moved or joined with the next. `Number` and `mul_add`
// stand before this text, one of multiply_*.wgsl.

const THREADS: u32 = 256u;
// Turns of the loop, 8 rounds each.
override TURNS: u32 = 1u;

// What is left of every thread's numbers.
@group(0) @binding(0) var<storage, read_write> left: array<u32>;

// Sixteen numbers, two of every chain.
struct Chains {
    a: vec4<Number>,
    b: vec4<Number>,
    c: vec4<Number>,
    d: vec4<Number>,
}

// Sixteen multiply-adds.
fn advance(x: Chains) -> Chains {
    let a = mul_add(x.a, x.b);
    let b = mul_add(x.b, a);
    let c = mul_add(x.c, x.d);
    return Chains(a, b, c, mul_add(x.d, c));
}

@compute @workgroup_size(THREADS)
fn multiply(@builtin(global_invocation_id) id: vec3<u32>) {
    let first = vec4(16u * id.x) + vec4(1u, 2u, 3u, 4u);
    var x = Chains(
        vec4<Number>(first),
        vec4<Number>(first + vec4(4u)),
        vec4<Number>(first + vec4(8u)),
        vec4<Number>(first + vec4(12u)),
    );
    for (var turn = 0u; turn < TURNS; turn++) {
        x = advance(advance(advance(advance(x))));
        x = advance(advance(advance(advance(x))));
    }
    let y = vec4<u32>(x.a) ^ vec4<u32>(x.b) ^ vec4<u32>(x.c) ^ vec4<u32>(x.d);
    left[id.x] = y.x ^ y.y ^ y.z ^ y.w;
}
