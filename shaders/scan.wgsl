// Matrix times queries modulo 2^24: the scan of docs/scheme.md, "Answer". CPU twins: `scan` in
// src/engine/avx512.rs and portable.rs.
//
// A query's column is three balanced digits, x = d0 + 2^8 d1 + 2^16 d2 modulo 2^24, each a signed
// byte, so that four columns are one `dot4I8Packed` a digit; sums of digits stay below 2^31 for
// any matrix there is. Columns are split among workgroups; the finish adds the splits up.
//
// Floors: the matrix read once (143.7 MB at the standard shape), and 3/4 of a dot product for each
// of its bytes and queries. On an H200 (4.8 TB/s, 64 dot products a clock on each of 132
// multiprocessors) they meet at four queries: 30 us each.
//
// scan_narrow, up to four queries, is bound by reading the matrix: threads lie along the columns,
// so that a workgroup reads whole runs of a row, 16 bytes a thread and eight rows at once, and
// digits stay in the first cache. scan_wide, queries by eights, is bound by dot products.
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

// Sums of eight rows for one query.
struct QuerySums {
    d0: Sums,
    d1: Sums,
    d2: Sums,
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
fn write_query(own: QuerySums, split: u32, query: u32, first_row: u32, thread: u32) {
    let low = join(own.d0.low, own.d1.low, own.d2.low);
    let high = join(own.d0.high, own.d1.high, own.d2.high);
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

// Adds the products of 16 columns and the digits of one query, the first of them at `at`.
fn add_query(sums: QuerySums, tile: Tile, at: u32) -> QuerySums {
    let plane = job.row_groups;
    return QuerySums(
        dots(sums.d0, tile, digits[at]),
        dots(sums.d1, tile, digits[at + plane]),
        dots(sums.d2, tile, digits[at + 2u * plane]),
    );
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
    let query_groups = DIGITS * row;
    let fourth = job.scan_queries > 3u;
    var a: QuerySums;
    var b: QuerySums;
    var c: QuerySums;
    var d: QuerySums;
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
        let digit = job.first_query * query_groups + at;
        a = add_query(a, tile, digit);
        if QUERIES > 1u {
            b = add_query(b, tile, digit + query_groups);
        }
        if QUERIES > 2u {
            c = add_query(c, tile, digit + 2u * query_groups);
            if fourth {
                d = add_query(d, tile, digit + 3u * query_groups);
            }
        }
    }
    write_query(a, group.y, 0u, first_row, thread);
    if QUERIES > 1u {
        write_query(b, group.y, 1u, first_row, thread);
    }
    if QUERIES > 2u {
        write_query(c, group.y, 2u, first_row, thread);
        if fourth {
            write_query(d, group.y, 3u, first_row, thread);
        }
    }
}
