// Matrix times queries modulo 2^24: the scan of docs/scheme.md, "Answer". CPU twins: `scan` in
// src/engine/avx512.rs and portable.rs.
//
// A query's column is three balanced digits, x = d0 + 2^8 d1 + 2^16 d2 modulo 2^24, each a signed
// byte, so that four columns are one `dot4I8Packed` a digit; sums of digits stay below 2^31 for
// any matrix there is. Columns are split among workgroups; the finish adds the splits up.
//
// Floors: the matrix read once (141.6 MB at the standard shape), and 3/4 of a dot product for each
// of its bytes and queries. On an H200 (4.8 TB/s, 64 dot products a clock on each of 132
// multiprocessors) they meet at four queries: 30 us each.
//
// scan_narrow, up to four queries: bound by reading the matrix. Threads lie along the columns, so
// that a workgroup reads whole runs of a row, 16 bytes a thread and eight rows at once; digits are
// in the first cache (three quarters of a matrix byte read there for each two queries).
// scan_wide, queries by eights: bound by dot products. A tile of rows and of digits, 64 columns
// deep, goes through workgroup memory; a thread multiplies 8 rows by 6 digits: 14 loads of 16
// bytes for 192 instructions.
//
// The eight rows are written out: what stands in arrays would have to be found again in registers.
// An index that the translator cannot prove is limited by it before each use: loops use constants
// beside indices that stay the same (tile.rows[3][own_row]), so that it is done once.

@group(0) @binding(0) var<storage, read> matrix: array<vec4<u32>>;
// [query][digit][column / 16]
@group(1) @binding(0) var<storage, read> digits: array<vec4<u32>>;
// [split][query of the scan][row], modulo 2^32
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

// Where a value belongs; queries are counted from the first of the scan.
fn scanned_at(split: u32, query: u32, row: u32) -> u32 {
    return (split * job.scan_queries + query) * job.rows + job.part_first + row;
}

// Narrow: what every thread has of every row; then what 16 threads have of each.
var<workgroup> by_thread: array<array<u32, THREADS>, ROWS>;
var<workgroup> by_part: array<u32, THREADS>;
const PARTS: u32 = THREADS / ROWS;

// Adds up the workgroup's values of eight rows for one query and writes them.
fn write_query(
    s0: Sums, s1: Sums, s2: Sums, split: u32, query: u32, first_row: u32, thread: u32,
) {
    let low = join(s0.low, s1.low, s2.low);
    let high = join(s0.high, s1.high, s2.high);
    by_thread[0][thread] = low.x;
    by_thread[1][thread] = low.y;
    by_thread[2][thread] = low.z;
    by_thread[3][thread] = low.w;
    by_thread[4][thread] = high.x;
    by_thread[5][thread] = high.y;
    by_thread[6][thread] = high.z;
    by_thread[7][thread] = high.w;
    workgroupBarrier();
    var sum = 0u;
    for (var i = thread % PARTS; i < THREADS; i += PARTS) {
        sum += by_thread[thread / PARTS][i];
    }
    by_part[thread] = sum;
    workgroupBarrier();
    if thread < ROWS {
        sum = 0u;
        for (var i = 0u; i < PARTS; i++) {
            sum += by_part[thread * PARTS + i];
        }
        scanned[scanned_at(split, query, first_row) + thread] = sum;
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
    let first_plane = job.first_query * DIGITS * plane;
    let fourth = job.scan_queries > 3u;
    var a0: Sums;
    var a1: Sums;
    var a2: Sums;
    var b0: Sums;
    var b1: Sums;
    var b2: Sums;
    var c0: Sums;
    var c1: Sums;
    var c2: Sums;
    var d0: Sums;
    var d1: Sums;
    var d2: Sums;
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
        let digit = first_plane + at;
        a0 = dots(a0, tile, digits[digit]);
        a1 = dots(a1, tile, digits[digit + plane]);
        a2 = dots(a2, tile, digits[digit + 2u * plane]);
        if QUERIES > 1u {
            b0 = dots(b0, tile, digits[digit + 3u * plane]);
            b1 = dots(b1, tile, digits[digit + 4u * plane]);
            b2 = dots(b2, tile, digits[digit + 5u * plane]);
        }
        if QUERIES > 2u {
            c0 = dots(c0, tile, digits[digit + 6u * plane]);
            c1 = dots(c1, tile, digits[digit + 7u * plane]);
            c2 = dots(c2, tile, digits[digit + 8u * plane]);
            if fourth {
                d0 = dots(d0, tile, digits[digit + 9u * plane]);
                d1 = dots(d1, tile, digits[digit + 10u * plane]);
                d2 = dots(d2, tile, digits[digit + 11u * plane]);
            }
        }
    }
    let split = group.y;
    write_query(a0, a1, a2, split, 0u, first_row, thread);
    if QUERIES > 1u {
        write_query(b0, b1, b2, split, 1u, first_row, thread);
    }
    if QUERIES > 2u {
        write_query(c0, c1, c2, split, 2u, first_row, thread);
        if fourth {
            write_query(d0, d1, d2, split, 3u, first_row, thread);
        }
    }
}
