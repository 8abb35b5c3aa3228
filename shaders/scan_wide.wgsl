// The tiled scan; scan.wgsl stands before this text. A tile of rows and of digits, DEPTH 16-byte
// groups of columns deep, goes through workgroup memory. A thread multiplies 8 rows by 6 digits: 14
// loads of 16 bytes for 192 instructions.

// Threads share a tile as [row group][query group]; a thread has every ROW_GROUPS-th row and every
// QUERY_GROUPS-th query, so that neighbours read neighbouring words.
const ROW_GROUPS: u32 = THREADS / QUERY_GROUPS;
const TILE_ROWS: u32 = ROW_GROUPS * ROWS;
const TILE_QUERIES: u32 = 2u * QUERY_GROUPS;
const TILE_LINES: u32 = TILE_QUERIES * DIGITS;
// Lines of digits a thread multiplies by.
const LINES: u32 = 2u * DIGITS;
// Pairs of loads with which a thread fetches its share of the tile's rows: 4 or 2; and loads with
// which it fetches that of the digits: 1 or 2.
const ROW_PAIRS: u32 = TILE_ROWS * DEPTH / THREADS / 2u;
const LINE_LOADS: u32 = (TILE_LINES * DEPTH + THREADS - 1u) / THREADS;

const_assert ROW_PAIRS == 2u || ROW_PAIRS == 4u;
const_assert LINE_LOADS <= 2u;
const_assert DEPTH == 4u;

// A 16-byte group of every row, and of every digit: [digit][query]. Two more than needed, so that
// the groups of two rows, which eight neighbours write, lie in different banks.
struct RowTile {
    rows: array<array<vec4<u32>, ROW_GROUPS>, ROWS>,
    unused: array<vec4<u32>, 2>,
}

struct LineTile {
    lines: array<array<vec4<u32>, QUERY_GROUPS>, LINES>,
    unused: array<vec4<u32>, 2>,
}

var<workgroup> tile_rows: array<RowTile, DEPTH>;
var<workgroup> tile_lines: array<LineTile, DEPTH>;

struct Pair {
    first: vec4<u32>,
    second: vec4<u32>,
}

fn fetch_row(item: u32, first_row: u32, at: u32) -> vec4<u32> {
    let row = min(first_row + item / DEPTH, job.part_count - 1u);
    return matrix[row * job.row_groups + at + item % DEPTH];
}

fn fetch_rows(item: u32, first_row: u32, at: u32) -> Pair {
    return Pair(fetch_row(item, first_row, at), fetch_row(item + THREADS, first_row, at));
}

fn store_row(item: u32, value: vec4<u32>) {
    let row = item / DEPTH;
    tile_rows[item % DEPTH].rows[row / ROW_GROUPS][row % ROW_GROUPS] = value;
}

fn store_rows(item: u32, pair: Pair) {
    store_row(item, pair.first);
    store_row(item + THREADS, pair.second);
}

// Queries past the last are the last again; their sums are not written.
fn fetch_line(item: u32, first_query: u32, at: u32) -> vec4<u32> {
    let line = min(item / DEPTH, TILE_LINES - 1u);
    let query = job.first_query + min(first_query + line % TILE_QUERIES, job.scan_queries - 1u);
    return digits[(query * DIGITS + line / TILE_QUERIES) * job.row_groups + at + item % DEPTH];
}

fn store_line(item: u32, value: vec4<u32>) {
    if item < TILE_LINES * DEPTH {
        let line = item / DEPTH;
        tile_lines[item % DEPTH].lines[line / QUERY_GROUPS][line % QUERY_GROUPS] = value;
    }
}

fn write_row(value: u32, split: u32, query: u32, row: u32) {
    if query < job.scan_queries && row < job.part_count {
        scanned[scanned_at(split, query, row)] = value;
    }
}

fn write_tile(own: QuerySums, split: u32, query: u32, row: u32) {
    let low = join(own.d0.low, own.d1.low, own.d2.low);
    let high = join(own.d0.high, own.d1.high, own.d2.high);
    write_row(low.x, split, query, row);
    write_row(low.y, split, query, row + ROW_GROUPS);
    write_row(low.z, split, query, row + 2u * ROW_GROUPS);
    write_row(low.w, split, query, row + 3u * ROW_GROUPS);
    write_row(high.x, split, query, row + 4u * ROW_GROUPS);
    write_row(high.y, split, query, row + 5u * ROW_GROUPS);
    write_row(high.z, split, query, row + 6u * ROW_GROUPS);
    write_row(high.w, split, query, row + 7u * ROW_GROUPS);
}

// What a thread has: sums of eight rows for each digit of two queries.
struct Own {
    a: QuerySums,
    b: QuerySums,
}

// Adds the products of one 16-byte group. A function, so that every group is written out: the
// translator counts the turns of every loop.
fn add_group(sums: Own, depth: u32, own_row: u32, own_query: u32) -> Own {
    let tile = Tile(
        tile_rows[depth].rows[0][own_row],
        tile_rows[depth].rows[1][own_row],
        tile_rows[depth].rows[2][own_row],
        tile_rows[depth].rows[3][own_row],
        tile_rows[depth].rows[4][own_row],
        tile_rows[depth].rows[5][own_row],
        tile_rows[depth].rows[6][own_row],
        tile_rows[depth].rows[7][own_row],
    );
    let a = QuerySums(
        dots(sums.a.d0, tile, tile_lines[depth].lines[0][own_query]),
        dots(sums.a.d1, tile, tile_lines[depth].lines[2][own_query]),
        dots(sums.a.d2, tile, tile_lines[depth].lines[4][own_query]),
    );
    let b = QuerySums(
        dots(sums.b.d0, tile, tile_lines[depth].lines[1][own_query]),
        dots(sums.b.d1, tile, tile_lines[depth].lines[3][own_query]),
        dots(sums.b.d2, tile, tile_lines[depth].lines[5][own_query]),
    );
    return Own(a, b);
}

@compute @workgroup_size(THREADS)
fn scan_wide(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let first_row = (job.first_tile + group.z) * TILE_ROWS;
    let first_query = group.x * TILE_QUERIES;
    let begin = group.y * job.split_groups;
    let end = min(begin + job.split_groups, job.row_groups);
    let own_query = thread % QUERY_GROUPS;
    let own_row = thread / QUERY_GROUPS;
    var own: Own;
    for (var at = begin; at < end; at += DEPTH) {
        let rows0 = fetch_rows(thread, first_row, at);
        let rows1 = fetch_rows(thread + 2u * THREADS, first_row, at);
        var rows2: Pair;
        var rows3: Pair;
        if ROW_PAIRS > 2u {
            rows2 = fetch_rows(thread + 4u * THREADS, first_row, at);
            rows3 = fetch_rows(thread + 6u * THREADS, first_row, at);
        }
        let line0 = fetch_line(thread, first_query, at);
        var line1: vec4<u32>;
        if LINE_LOADS > 1u {
            line1 = fetch_line(thread + THREADS, first_query, at);
        }
        workgroupBarrier(); // the tile before is used up
        store_rows(thread, rows0);
        store_rows(thread + 2u * THREADS, rows1);
        if ROW_PAIRS > 2u {
            store_rows(thread + 4u * THREADS, rows2);
            store_rows(thread + 6u * THREADS, rows3);
        }
        store_line(thread, line0);
        if LINE_LOADS > 1u {
            store_line(thread + THREADS, line1);
        }
        workgroupBarrier();
        own = add_group(own, 0u, own_row, own_query);
        own = add_group(own, 1u, own_row, own_query);
        own = add_group(own, 2u, own_row, own_query);
        own = add_group(own, 3u, own_row, own_query);
    }
    let query = first_query + own_query;
    write_tile(own.a, group.y, query, first_row + own_row);
    write_tile(own.b, group.y, query + QUERY_GROUPS, first_row + own_row);
}
