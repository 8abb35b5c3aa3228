// Table times rotated keys, per slot and prime: the sums of docs/scheme.md, "Answer". CPU twins:
// `pack` in src/engine/avx512.rs and portable.rs. Shards of several packs of 1024 or more rows have
// a kernel of their own: pack_long.wgsl.
//
// A workgroup has one block of 32 slots under one prime, up to SPLIT_TERMS terms, PACKS packs and
// QUERIES x QUERY_GROUPS queries, and goes CHUNK terms at a time. Each byte of the table (96 a term
// and pack, as in the file: four slots are three words) is read once. A thread multiplies four
// slots of each pack with the same four words of a key, of every CHUNK / TERM_LANES-th term. With
// one query group the words a thread reads are its own: bound by reading the table. With more the
// table goes through workgroup memory, the next chunk on its way while this one is multiplied:
// bound by the products. Terms are split so that one query fills a device; the finish adds the
// splits up. A thread multiplies only for queries that there are; a query group is one or more
// whole rows of 32 threads, so that none waits for another's.
//
// Floors for a standard shard of four packs: the tables read once, 100.6 MB, and 33.5 M products a
// query; of eight, twice as much of both. On an H200 they meet near four queries (21 us).

// [pack][prime][slot / 32][term][slot % 32], three bytes each
@group(0) @binding(0) var<storage, read> table: array<u32>;
// [slot of the pool][prime][word]: [g first half twice][g second half twice][h], so that no window
// wraps
@group(1) @binding(0) var<storage, read> keys: array<u32>;

// Words of table one term takes in a block.
const TERM_WORDS: u32 = 24u;

// Threads of a query group: [term lane][quad].
const GROUP_THREADS: u32 = TERM_LANES * QUADS;

// [pack][term][quad] of a chunk, which is where [pack][thread] fetched it; so at the end, too.
// Threads, or terms, lie as many in a row as a query group has.
var<workgroup> stage: array<array<array<vec4<u32>, GROUP_THREADS>, QUERY_GROUPS>, PACKS>;
// Further packs of the stage, where there are four.
const SECOND: u32 = min(1u, PACKS - 1u);
const THIRD: u32 = min(2u, PACKS - 1u);
const FOURTH: u32 = min(3u, PACKS - 1u);

fn to_stage(words: Words, row: u32, at: u32) {
    stage[0][row][at] = words.a;
    if PACKS > 1u {
        stage[SECOND][row][at] = words.b;
        stage[THIRD][row][at] = words.c;
        stage[FOURTH][row][at] = words.d;
    }
}

fn from_stage(row: u32, at: u32) -> Words {
    var words: Words;
    words.a = stage[0][row][at];
    if PACKS > 1u {
        words.b = stage[SECOND][row][at];
        words.c = stage[THIRD][row][at];
        words.d = stage[FOURTH][row][at];
    }
    return words;
}

// Four slots out of three words; none past the last term or pack.
fn fetch_pack(pack: u32, unit: u32, term: u32, end: u32, quad: u32) -> vec4<u32> {
    if pack >= job.part_count || term >= end {
        return vec4(0u);
    }
    let block = pack * 2u * BLOCKS + unit;
    let at = (block * (job.pack_rows - 1u) + term) * TERM_WORDS + quad * 3u;
    return four(table[at], table[at + 1u], table[at + 2u]);
}

fn fetch(first_pack: u32, unit: u32, term: u32, end: u32, quad: u32) -> Words {
    var words: Words;
    words.a = fetch_pack(first_pack, unit, term, end, quad);
    if PACKS > 1u {
        words.b = fetch_pack(first_pack + 1u, unit, term, end, quad);
        words.c = fetch_pack(first_pack + 2u, unit, term, end, quad);
        words.d = fetch_pack(first_pack + 3u, unit, term, end, quad);
    }
    return words;
}

// Where the key word of a term and slot is: the plain rotations, the conjugated, then key h.
fn key_at(term: u32, slot: u32) -> u32 {
    let run = min(job.pack_rows, HALF) - 1u;
    if term < run {
        return window(slot) + term * job.rotation_step;
    }
    if term < 2u * run {
        return window(slot ^ HALF) + (term - run) * job.rotation_step;
    }
    return 2u * D + slot;
}

fn key_words(at: u32) -> vec4<u32> {
    return vec4(keys[at], keys[at + 1u], keys[at + 2u], keys[at + 3u]);
}

// Adds up the workgroup's sums of one query of each group and writes them.
fn write_query(own: PackSums, query: u32, first_pack: u32, unit: u32, thread: u32) {
    let prime = prime_of(unit / BLOCKS % 2u);
    workgroupBarrier(); // the stage is used up
    var words: Words;
    words.a = residues(own.a, prime);
    if PACKS > 1u {
        words.b = residues(own.b, prime);
        words.c = residues(own.c, prime);
        words.d = residues(own.d, prime);
    }
    to_stage(words, thread / GROUP_THREADS, thread % GROUP_THREADS);
    workgroupBarrier();
    let quad = thread % QUADS;
    let group = thread / QUADS % QUERY_GROUPS;
    let pack = thread / (QUADS * QUERY_GROUPS);
    let pack_in_part = first_pack + pack;
    let of_group = query + group * QUERIES;
    if pack >= PACKS || pack_in_part >= job.part_count || of_group >= job.queries {
        return;
    }
    var sum = vec4(0u);
    for (var lane = 0u; lane < TERM_LANES; lane++) {
        sum += stage[pack][group][lane * QUADS + quad];
    }
    let split = unit / (2u * BLOCKS);
    let poly = (split * job.queries + of_group) * job.packs + job.part_first + pack_in_part;
    sums[(poly * 2u * BLOCKS + unit % (2u * BLOCKS)) * QUADS + quad] = sum;
}

@compute @workgroup_size(THREADS)
fn pack(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    // [split][prime][block]
    let unit = job.first_tile + group.z;
    let in_pack = unit % (2u * BLOCKS);
    let prime = in_pack / BLOCKS;
    let begin = unit / (2u * BLOCKS) * SPLIT_TERMS;
    let end = min(begin + SPLIT_TERMS, job.pack_rows - 1u);
    let first_pack = group.y * PACKS;
    let quad = thread % QUADS;
    let fetched_term = thread / QUADS;
    let term_lane = thread / QUADS % TERM_LANES;
    let query_group = thread / GROUP_THREADS;
    let in_group = thread % GROUP_THREADS;
    let first_query = group.x * QUERIES * QUERY_GROUPS;
    let query = first_query + query_group * QUERIES;
    let slot = in_pack % BLOCKS * BLOCK_SLOTS + quad * 4u;
    // How many queries this thread multiplies.
    let live = max(job.queries, query) - query;
    let keys_a = keys_of(query, prime);
    let keys_b = keys_of(query + 1u, prime);
    let keys_c = keys_of(query + 2u, prime);
    let keys_d = keys_of(query + 3u, prime);
    var a: PackSums;
    var b: PackSums;
    var c: PackSums;
    var d: PackSums;
    var next = fetch(first_pack, in_pack, begin + fetched_term, end, quad);
    for (var chunk = begin; chunk < end; chunk += CHUNK) {
        var words = next;
        if QUERY_GROUPS > 1u {
            workgroupBarrier(); // the chunk before is used up
            to_stage(words, query_group, in_group);
            workgroupBarrier();
        }
        next = fetch(first_pack, in_pack, chunk + CHUNK + fetched_term, end, quad);
        if live == 0u {
            continue;
        }
        for (var turn = 0u; turn < QUERY_GROUPS; turn++) {
            if QUERY_GROUPS > 1u {
                words = from_stage(turn, in_group);
            }
            // Terms past the last have words of zero.
            let key_from = key_at(min(chunk + turn * TERM_LANES + term_lane, end - 1u), slot);
            // All loads before the first product, so that one wait is for all.
            let key_a = key_words(keys_a + key_from);
            let key_b = key_words(keys_b + key_from);
            let key_c = key_words(keys_c + key_from);
            let key_d = key_words(keys_d + key_from);
            a = add_query(a, words, key_a);
            if QUERIES > 1u && live > 1u {
                b = add_query(b, words, key_b);
            }
            if QUERIES > 2u && live > 2u {
                c = add_query(c, words, key_c);
            }
            if QUERIES > 2u && live > 3u {
                d = add_query(d, words, key_d);
            }
        }
    }
    write_query(a, first_query, first_pack, unit, thread);
    if QUERIES > 1u {
        write_query(b, first_query + 1u, first_pack, unit, thread);
    }
    if QUERIES > 2u {
        write_query(c, first_query + 2u, first_pack, unit, thread);
        write_query(d, first_query + 3u, first_pack, unit, thread);
    }
}
