// Splits a query's columns (3 bytes each) into three planes of balanced digits, four columns a
// word: what the scans read.
//
// x = d0 + 2^8 d1 + 2^16 d2 modulo 2^24, each digit a signed byte. Half a base added to the lower
// two digits makes the carries; taken away again without carry it leaves signed bytes. A thread
// takes four columns: three words in, a word of each plane out, beside its neighbours'.

// [query][word]
@group(0) @binding(0) var<storage, read> vectors: array<u32>;
// [query][digit][column / 4]
@group(0) @binding(1) var<storage, read_write> digits: array<u32>;

fn plane_word(balanced: vec4<u32>, shift: u32) -> u32 {
    let bytes = (balanced >> vec4(shift)) & vec4(0xffu);
    return bytes.x | (bytes.y << 8u) | (bytes.z << 16u) | (bytes.w << 24u);
}

@compute @workgroup_size(THREADS)
fn split_digits(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let plane = job.row_groups * 4u; // words
    let at = group.x * THREADS + thread;
    if at >= plane {
        return;
    }
    let first = (job.first_tile + group.z) * 3u * plane;
    let read = first + 3u * at;
    let columns = four(vectors[read], vectors[read + 1u], vectors[read + 2u]);
    let balanced = (columns + vec4(0x8080u)) ^ vec4(0x8080u);
    digits[first + at] = plane_word(balanced, 0u);
    digits[first + plane + at] = plane_word(balanced, 8u);
    digits[first + 2u * plane + at] = plane_word(balanced, 16u);
}
