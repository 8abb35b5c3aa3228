// How fast a device reads: every word of a buffer once, neighbours side by side, and adds them up
// so that nothing can be left out. `fill` writes what the sum is known of.

// All threads of the dispatch.
override STRIDE: u32 = 1u;
// Goes with every word's place; odd, so that no two words of a buffer are the same.
const FACTOR: u32 = 0x9e3779b1u;

@group(0) @binding(0) var<storage, read_write> filled: array<vec4<u32>>;

@compute @workgroup_size(256)
fn fill(@builtin(global_invocation_id) id: vec3<u32>) {
    for (var i = id.x; i < arrayLength(&filled); i += STRIDE) {
        filled[i] = (vec4(4u * i) + vec4(0u, 1u, 2u, 3u)) * FACTOR;
    }
}

@group(0) @binding(0) var<storage, read> words: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> total: atomic<u32>;

var<workgroup> of_group: atomic<u32>;

fn add_up(sum: vec4<u32>, thread: u32) {
    atomicAdd(&of_group, sum.x + sum.y + sum.z + sum.w);
    workgroupBarrier();
    if thread == 0u {
        atomicAdd(&total, atomicLoad(&of_group));
    }
}

// Eight loads of 16 bytes under way in every thread.
@compute @workgroup_size(256)
fn read_all(
    @builtin(global_invocation_id) id: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    var a: vec4<u32>;
    var b: vec4<u32>;
    var c: vec4<u32>;
    var d: vec4<u32>;
    for (var i = id.x; i < arrayLength(&words); i += 8u * STRIDE) {
        let e = words[i + 4u * STRIDE];
        let f = words[i + 5u * STRIDE];
        let g = words[i + 6u * STRIDE];
        let h = words[i + 7u * STRIDE];
        a += words[i] + e;
        b += words[i + STRIDE] + f;
        c += words[i + 2u * STRIDE] + g;
        d += words[i + 3u * STRIDE] + h;
    }
    add_up(a + b + c + d, thread);
}
