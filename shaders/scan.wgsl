// Matrix times queries modulo 2^24: the scan of scheme.md, "Online", 1. CPU twins: `scan` in
// src/engine/avx512.rs and portable.rs.
//
// A query's column is three balanced digits, x = d0 + 2^8 d1 + 2^16 d2 modulo 2^24, each a signed
// byte, so that four columns are one `dot4I8Packed` a digit; sums of digits stay below 2^31 for
// any matrix there is. Columns are split among workgroups; the finish adds the splits up.
//
// scan_narrow, one or two queries: bound by reading the matrix. Threads lie along the columns, so
// that a workgroup reads whole runs of a row, 16 bytes a thread and eight rows at once; digits are
// in the first cache. One dot product is three instructions for four bytes.
// scan_wide, up to 32 queries: bound by dot products. A tile of rows and of digits, 64 columns
// deep, goes through workgroup memory; a thread multiplies 8 rows by 6 digits: 14 loads of 16
// bytes for 192 instructions.
//
// The eight rows are written out: what stands in arrays would have to be found again in registers.

@group(0) @binding(0) var<storage, read> matrix: array<vec4<u32>>;
// [query][digit][column / 16]
@group(1) @binding(0) var<storage, read> digits: array<vec4<u32>>;
// [split][query][row], modulo 2^32
@group(1) @binding(1) var<storage, read_write> scanned: array<u32>;

// Rows of a thread.
const ROWS: u32 = 8u;
// Digits of a column.
const DIGITS: u32 = 3u;

// 16 columns of eight rows.
struct Tile {
    a: vec4<u32>,
    b: vec4<u32>,
    c: vec4<u32>,
    d: vec4<u32>,
    e: vec4<u32>,
    f: vec4<u32>,
    g: vec4<u32>,
    h: vec4<u32>,
}

// Sums of eight rows for one digit.
struct Sums {
    low: vec4<i32>,
    high: vec4<i32>,
}

fn dot16(sum: i32, entries: vec4<u32>, digit: vec4<u32>) -> i32 {
    var total = sum + dot4I8Packed(entries.x, digit.x);
    total += dot4I8Packed(entries.y, digit.y);
    total += dot4I8Packed(entries.z, digit.z);
    total += dot4I8Packed(entries.w, digit.w);
    return total;
}

fn dots(sums: Sums, tile: Tile, digit: vec4<u32>) -> Sums {
    let low = vec4(
        dot16(sums.low.x, tile.a, digit),
        dot16(sums.low.y, tile.b, digit),
        dot16(sums.low.z, tile.c, digit),
        dot16(sums.low.w, tile.d, digit),
    );
    let high = vec4(
        dot16(sums.high.x, tile.e, digit),
        dot16(sums.high.y, tile.f, digit),
        dot16(sums.high.z, tile.g, digit),
        dot16(sums.high.w, tile.h, digit),
    );
    return Sums(low, high);
}

// The value of four rows out of the sums of their digits.
fn join(d0: vec4<i32>, d1: vec4<i32>, d2: vec4<i32>) -> vec4<u32> {
    return bitcast<vec4<u32>>(d0 + (d1 << vec4(8u)) + (d2 << vec4(16u)));
}

// Where a value belongs.
fn scanned_at(split: u32, query: u32, row: u32) -> u32 {
    return (split * job.queries + query) * job.rows + job.part_first + row;
}

// Narrow: what every thread has of every row; then what 16 threads have of each.
var<workgroup> by_thread: array<u32, ROWS * THREADS>;
var<workgroup> by_part: array<u32, THREADS>;
const PARTS: u32 = THREADS / ROWS;

// Adds up the workgroup's values of eight rows and writes them.
fn write_rows(low: vec4<u32>, high: vec4<u32>, at: u32, thread: u32) {
    by_thread[thread] = low.x;
    by_thread[THREADS + thread] = low.y;
    by_thread[2u * THREADS + thread] = low.z;
    by_thread[3u * THREADS + thread] = low.w;
    by_thread[4u * THREADS + thread] = high.x;
    by_thread[5u * THREADS + thread] = high.y;
    by_thread[6u * THREADS + thread] = high.z;
    by_thread[7u * THREADS + thread] = high.w;
    workgroupBarrier();
    var sum = 0u;
    let own = thread / PARTS * THREADS + thread % PARTS;
    for (var i = 0u; i < THREADS; i += PARTS) {
        sum += by_thread[own + i];
    }
    by_part[thread] = sum;
    workgroupBarrier();
    if thread < ROWS {
        sum = 0u;
        for (var i = 0u; i < PARTS; i++) {
            sum += by_part[thread * PARTS + i];
        }
        scanned[at + thread] = sum;
    }
    workgroupBarrier();
}

@compute @workgroup_size(THREADS)
fn scan_narrow(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let first_row = (job.first_tile + group.z) * ROWS;
    let begin = group.y * job.split_groups;
    let end = min(begin + job.split_groups, job.row_groups);
    let row = job.row_groups;
    let plane = job.row_groups;
    var a0: Sums;
    var a1: Sums;
    var a2: Sums;
    var b0: Sums;
    var b1: Sums;
    var b2: Sums;
    for (var at = begin + thread; at < end; at += THREADS) {
        let base = first_row * row + at;
        let tile = Tile(
            matrix[base],
            matrix[base + row],
            matrix[base + 2u * row],
            matrix[base + 3u * row],
            matrix[base + 4u * row],
            matrix[base + 5u * row],
            matrix[base + 6u * row],
            matrix[base + 7u * row],
        );
        a0 = dots(a0, tile, digits[at]);
        a1 = dots(a1, tile, digits[at + plane]);
        a2 = dots(a2, tile, digits[at + 2u * plane]);
        if QUERIES > 1u {
            b0 = dots(b0, tile, digits[at + 3u * plane]);
            b1 = dots(b1, tile, digits[at + 4u * plane]);
            b2 = dots(b2, tile, digits[at + 5u * plane]);
        }
    }
    let low = join(a0.low, a1.low, a2.low);
    let high = join(a0.high, a1.high, a2.high);
    write_rows(low, high, scanned_at(group.y, 0u, first_row), thread);
    if QUERIES > 1u {
        let low = join(b0.low, b1.low, b2.low);
        let high = join(b0.high, b1.high, b2.high);
        write_rows(low, high, scanned_at(group.y, 1u, first_row), thread);
    }
}
