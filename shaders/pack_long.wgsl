// Table times rotated keys, as pack.wgsl, for packs of 1024 or 2048 rows where a shard has several:
// there a key moves by one slot from one term to the next. CPU twins: as there.
//
// A workgroup has one block of 32 slots under one prime, SPLIT_CHUNKS chunks of 16 terms, four
// packs and QUERIES x QUERY_GROUPS queries. Each byte of the table is read once, 16 bytes a load,
// and goes through workgroup memory as four slots a vector, the next chunk on its way while this
// one is multiplied. A thread multiplies four slots of four packs by QUERIES queries, four terms
// that follow each other at a time: their sixteen key words are seven that lie side by side, two
// loads of 16 bytes a query for 64 products. Chunks begin where a run of rotations begins (plain,
// conjugated), so that these loads are whole vectors; the one term of key h is a chunk of its own.
//
// Floors: as in pack.wgsl. On an H200 it multiplies 32 queries (64-bit integers) at 80% of the rate
// of widening multiply-adds, and reads the tables for one query at 42 to 48% of the memory's rate.

// [pack][prime][slot / 32][term][slot % 32], three bytes each
@group(0) @binding(0) var<storage, read> table: array<vec4<u32>>;
// [slot of the pool][prime][word]: [g first half twice][g second half twice][h], so that no window
// wraps
@group(1) @binding(0) var<storage, read> keys: array<vec4<u32>>;

// 16-byte vectors of table one term takes in a block.
const TERM_VECTORS: u32 = 6u;
// Threads of a query group: [term lane][quad]. A term lane has LANE_TERMS terms of each chunk that
// follow each other.
const TERM_LANES: u32 = THREADS / QUADS / QUERY_GROUPS;
const GROUP_THREADS: u32 = TERM_LANES * QUADS;
const LANE_TERMS: u32 = CHUNK / TERM_LANES;

const_assert QUERIES <= 2u;
const_assert CHUNK == 16u && THREADS == 128u; // every thread fetches half a term of one pack
const_assert LANE_TERMS % 4u == 0u;

// Sixteen slots of one term and pack, as they lie in the table.
struct Packed {
    x: vec4<u32>,
    y: vec4<u32>,
    z: vec4<u32>,
}

// A chunk: its terms, where the key word of its first is, and how far it is to that of the next.
struct Chunk {
    first_term: u32,
    terms: u32,
    key: u32,
    key_step: u32,
}

// [pack][term][quad] of a chunk; at the end [pack][thread], one query's sums.
const STAGE_PACK: u32 = CHUNK * QUADS;
var<workgroup> stage: array<vec4<u32>, PACKS * STAGE_PACK>;

// Chunks are counted run by run: the plain rotations, the conjugated, then key h.
fn chunk_at(index: u32, slot: u32) -> Chunk {
    let run = min(job.pack_rows, HALF) - 1u;
    let run_chunks = (run + CHUNK - 1u) / CHUNK;
    if index < run_chunks {
        let first = index * CHUNK;
        return Chunk(first, min(CHUNK, run - first), window(slot) + first, 1u);
    }
    if index < 2u * run_chunks {
        let first = (index - run_chunks) * CHUNK;
        return Chunk(run + first, min(CHUNK, run - first), window(slot ^ HALF) + first, 1u);
    }
    // Terms past this one have a table of zeros, whatever their key words are.
    return Chunk(2u * run, 1u, 2u * D + slot, 0u);
}

// This thread's share of a chunk, as [pack][term][half]; zeros past the last term or pack.
fn fetch(chunk: Chunk, first_pack: u32, in_pack: u32, thread: u32) -> Packed {
    let pack = first_pack + thread / 32u;
    let term = thread % 32u / 2u;
    var packed: Packed;
    if pack < job.part_count && term < chunk.terms {
        let block = (pack * 2u * BLOCKS + in_pack) * (job.pack_rows - 1u);
        let at = (block + chunk.first_term + term) * TERM_VECTORS + thread % 2u * 3u;
        packed = Packed(table[at], table[at + 1u], table[at + 2u]);
    }
    return packed;
}

fn to_stage(packed: Packed, thread: u32) {
    let at = thread * 4u;
    stage[at] = four(packed.x.x, packed.x.y, packed.x.z);
    stage[at + 1u] = four(packed.x.w, packed.y.x, packed.y.y);
    stage[at + 2u] = four(packed.y.z, packed.y.w, packed.z.x);
    stage[at + 3u] = four(packed.z.y, packed.z.z, packed.z.w);
}

fn from_stage(at: u32) -> Words {
    return Words(
        stage[at],
        stage[STAGE_PACK + at],
        stage[2u * STAGE_PACK + at],
        stage[3u * STAGE_PACK + at],
    );
}

// Adds up the workgroup's sums of one query of each group and writes them.
fn write_query(own: PackSums, query: u32, first_pack: u32, unit: u32, thread: u32) {
    let in_pack = unit % (2u * BLOCKS);
    let prime = prime_of(in_pack / BLOCKS);
    workgroupBarrier(); // the stage is used up
    stage[thread] = residues(own.a, prime);
    stage[THREADS + thread] = residues(own.b, prime);
    stage[2u * THREADS + thread] = residues(own.c, prime);
    stage[3u * THREADS + thread] = residues(own.d, prime);
    workgroupBarrier();
    for (var i = thread; i < PACKS * QUERY_GROUPS * QUADS; i += THREADS) {
        let quad = i % QUADS;
        let group = i / QUADS % QUERY_GROUPS;
        let pack = i / QUADS / QUERY_GROUPS;
        let of_group = query + group * QUERIES;
        if first_pack + pack < job.part_count && of_group < job.queries {
            var sum = vec4(0u);
            for (var lane = 0u; lane < TERM_LANES; lane++) {
                sum += stage[pack * THREADS + group * GROUP_THREADS + lane * QUADS + quad];
            }
            let split = unit / (2u * BLOCKS);
            let poly = (split * job.queries + of_group) * job.packs
                + job.part_first + first_pack + pack;
            sums[(poly * 2u * BLOCKS + in_pack) * QUADS + quad] = sum;
        }
    }
}

@compute @workgroup_size(THREADS)
fn pack_long(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    // [split][prime][block]
    let unit = job.first_tile + group.z;
    let in_pack = unit % (2u * BLOCKS);
    let split = unit / (2u * BLOCKS);
    // The last split has the chunk of key h, too.
    let own_h = job.pack_rows == D && split + 1u == job.term_splits;
    let begin = split * SPLIT_CHUNKS;
    let end = begin + SPLIT_CHUNKS + select(0u, 1u, own_h);
    let first_pack = group.y * PACKS;
    let quad = thread % QUADS;
    let term_lane = thread / QUADS % TERM_LANES;
    let first_query = group.x * QUERIES * QUERY_GROUPS;
    let query = first_query + thread / GROUP_THREADS * QUERIES;
    let slot = in_pack % BLOCKS * BLOCK_SLOTS + quad * 4u;
    let keys_a = keys_of(query, in_pack / BLOCKS);
    let keys_b = keys_of(query + 1u, in_pack / BLOCKS);
    var a: PackSums;
    var b: PackSums;
    var chunk = chunk_at(begin, slot);
    var next = fetch(chunk, first_pack, in_pack, thread);
    for (var index = begin; index < end; index++) {
        workgroupBarrier(); // the chunk before is used up
        to_stage(next, thread);
        workgroupBarrier();
        let key = chunk.key;
        let key_step = chunk.key_step;
        if index + 1u < end {
            chunk = chunk_at(index + 1u, slot);
            next = fetch(chunk, first_pack, in_pack, thread);
        }
        if query >= job.queries {
            continue;
        }
        for (var turn = 0u; turn < LANE_TERMS; turn += 4u) {
            // All loads before the first product, so that one wait is for all.
            let term = term_lane * LANE_TERMS + turn;
            let at_a = (keys_a + key + term * key_step) / 4u;
            let at_b = (keys_b + key + term * key_step) / 4u;
            let a_low = keys[at_a];
            let a_high = keys[at_a + 1u];
            let b_low = keys[at_b];
            let b_high = keys[at_b + 1u];
            let at = term * QUADS + quad;
            let first = from_stage(at);
            a = add_query(a, first, a_low);
            let second = from_stage(at + QUADS);
            a = add_query(a, second, vec4(a_low.yzw, a_high.x));
            let third = from_stage(at + 2u * QUADS);
            a = add_query(a, third, vec4(a_low.zw, a_high.xy));
            let fourth = from_stage(at + 3u * QUADS);
            a = add_query(a, fourth, vec4(a_low.w, a_high.xyz));
            if QUERIES > 1u {
                b = add_query(b, first, b_low);
                b = add_query(b, second, vec4(b_low.yzw, b_high.x));
                b = add_query(b, third, vec4(b_low.zw, b_high.xy));
                b = add_query(b, fourth, vec4(b_low.w, b_high.xyz));
            }
        }
    }
    write_query(a, first_query, first_pack, unit, thread);
    if QUERIES > 1u {
        write_query(b, first_query + 1u, first_pack, unit, thread);
    }
}
