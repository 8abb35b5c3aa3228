//! What a server can do to a value by adding to the coefficients of an answer.
//!
//! A whole step (2^(bits - 8) of a response coefficient) adds one to the byte of its row, without
//! any noise and without knowing key or secret. So every such change has to end in the tag.

#![allow(clippy::unwrap_used)]

use std::sync::LazyLock;

use super::solve::{Record, Solved, solve};
use super::*;
use crate::arith::Isa;
use crate::scheme::{
    Decoder, KeyBundle, QueryId, SecretPool, ShardMasks, Sharing, pack_bits, reference, unpack_bits,
};

const SEED: Seed = [5; 32];
const PRESENT: u32 = 200;

type Response = Vec<Vec<u8>>;

static SERVER: LazyLock<Server> = LazyLock::new(Server::new);

/// A shard of two packs and five groups, one of which has rows in both packs.
struct Server {
    shape: Shape,
    solved: Solved,
    tables: Vec<u8>,
    hints: Vec<u8>,
}

/// Of key number `i`.
fn place(i: u32, shape: &Shape) -> Location {
    locate(&SEED, format!("key {i}").as_bytes(), 1, shape.groups() as u32)
}

/// Of every length that fits, with bytes that could be taken for the end of a value.
fn value(i: u32) -> Vec<u8> {
    vec![[0, END_OF_VALUE, 7][i as usize % 3]; i as usize % 40]
}

impl Server {
    fn new() -> Self {
        let shape = Shape::new(40, 128, 2, 256).unwrap();
        let record = |i| {
            let place = place(i, &shape);
            Record { group: place.group, identity: place.identity, value: value(i) }
        };
        let records: Vec<Record> = (0..PRESENT).map(record).collect();
        let isa = Isa::detect();
        let solved = solve(isa, &SEED, 0, &shape, &records).unwrap();
        let mut tables = vec![0; shape.packs() * shape.table_bytes()];
        let mut hints = vec![0; shape.packs() * shape.hint_bytes()];
        let masks = ShardMasks::new(isa, &SEED, 0, &shape);
        let packs = solved.matrix.chunks_exact(shape.pack_rows() * shape.columns());
        let packs = packs.zip(tables.chunks_exact_mut(shape.table_bytes()));
        for ((rows, table), hint) in packs.zip(hints.chunks_exact_mut(shape.hint_bytes())) {
            masks.build_pack(rows, table, hint);
        }
        Self { shape, solved, tables, hints }
    }

    /// Start and coefficients of a key's band.
    fn raw_band(&self, place: &Location) -> (u32, u128) {
        let mut raw = [0; BAND_BYTES];
        let mut keyed = blake3::Hasher::new_keyed(&place.identity);
        draw(&mut keyed, b'r', &self.solved.ribbon_seed.to_le_bytes(), &mut raw);
        place_of_band(&raw, &self.shape)
    }

    /// A look-up of a key, answered as an honest server does.
    fn look_up(&'static self, i: u32) -> LookUp {
        let shape = &self.shape;
        let place = place(i, shape);
        let mut pool = SecretPool::new(SEED, *shape);
        let band = band(&place.identity, self.solved.ribbon_seed, shape);
        let query = pool.encrypt(&[(0, band)], Sharing::Shared).unwrap()[0];
        let bundle = KeyBundle::decode(&pool.bundle(query).unwrap().1, shape).unwrap();
        let vector = pool.vector(query).unwrap();
        let (matrix, tables) = (&self.solved.matrix, &self.tables);
        let response = reference::answer(shape, matrix, tables, &vector, &bundle);
        let truth = if i < PRESENT { Outcome::Found(value(i)) } else { Outcome::Absent };
        LookUp { server: self, place, decoder: pool.seal(), query, response, truth }
    }

    /// What a band sums to over the rows of a group: a record, if a record of the group has it.
    fn sum(&self, group: usize, (start, coeffs): (u32, u128)) -> Vec<u8> {
        let (columns, record_bytes) = (self.shape.columns(), self.shape.record_bytes());
        let rows = &self.solved.matrix[group * record_bytes * columns..];
        let sum = |row: &[u8]| {
            let selected = (0..BAND).filter(|&j| coeffs >> j & 1 == 1);
            selected.fold(0u8, |sum, j| sum.wrapping_add(row[start as usize + j]))
        };
        rows.chunks_exact(columns).take(record_bytes).map(sum).collect()
    }
}

struct LookUp {
    server: &'static Server,
    place: Location,
    decoder: Decoder,
    query: QueryId,
    response: Response,
    truth: Outcome,
}

impl LookUp {
    fn read(&self, response: &Response) -> Outcome {
        let (shape, hints) = (&self.server.shape, &self.server.hints);
        let decoded = self.decoder.decode(self.query, shape, response, hints).unwrap();
        extract(&decoded, &self.place, shape).outcome()
    }

    /// The answer with so many whole steps more at each row.
    fn shifted(&self, steps: impl Fn(usize) -> u8) -> Outcome {
        let bits = self.server.shape.response_bits();
        self.changed(|row| u32::from(steps(row)) << (bits - 8))
    }

    /// The answer with this added to the response coefficient of each row.
    fn changed(&self, amount: impl Fn(usize) -> u32) -> Outcome {
        let shape = &self.server.shape;
        let (bits, rows) = (shape.response_bits(), shape.pack_rows());
        let pack = |(index, pack): (usize, &Vec<u8>)| {
            let add = |(at, value): (usize, u32)| {
                value.wrapping_add(amount(index * rows + at)) & ((1 << bits) - 1)
            };
            let changed: Vec<u32> =
                unpack_bits(pack, bits).take(rows).enumerate().map(add).collect();
            let mut out = vec![0; pack.len()];
            pack_bits(changed.into_iter(), bits, &mut out);
            out
        };
        self.read(&self.response.iter().enumerate().map(pack).collect())
    }

    /// Never a value other than the true one, nor any for a key that is not there.
    fn refuses(&self, outcome: Outcome, what: &str) {
        let refused = matches!(outcome, Outcome::Absent | Outcome::Invalid);
        assert!(refused, "group {}: a changed record is accepted: {what}", self.place.group);
    }
}

/// Bytes that are different every run; the seed is printed.
fn random() -> impl FnMut() -> u8 {
    let seed = crate::scheme::random_bytes().unwrap();
    println!("seed {seed:02x?}");
    let mut reader = blake3::Hasher::new_keyed(&seed).finalize_xof();
    move || {
        let mut byte = [0];
        reader.fill(&mut byte);
        byte[0]
    }
}

/// Look-ups of present and absent keys, among them some of every group.
fn look_ups(server: &'static Server) -> Vec<LookUp> {
    let look_ups: Vec<_> = (0..12).chain(PRESENT..PRESENT + 8).map(|i| server.look_up(i)).collect();
    for group in 0..server.shape.groups() as u32 {
        let of_group = look_ups.iter().filter(|look_up| look_up.place.group == group);
        assert!(of_group.count() > 0, "no key in group {group}");
    }
    look_ups
}

#[test]
fn values_of_every_length_are_found_and_a_forged_hint_is_invalid() {
    for i in (0..40).chain(PRESENT..PRESENT + 8) {
        let look_up = SERVER.look_up(i);
        assert!(look_up.read(&look_up.response) == look_up.truth, "key {i}");
        let (shape, forged) = (&SERVER.shape, vec![0x55; SERVER.hints.len()]);
        let decoded = look_up.decoder.decode(look_up.query, shape, &look_up.response, &forged);
        let outcome = extract(&decoded.unwrap(), &look_up.place, shape).outcome();
        assert!(outcome == Outcome::Invalid, "key {i}");
    }
}

#[test]
fn every_byte_shifted_by_whole_steps_is_refused_and_any_amount_gives_no_other_value() {
    let record_bytes = SERVER.shape.record_bytes();
    let mut random = random();
    for look_up in look_ups(&SERVER) {
        let group = look_up.place.group as usize;
        for byte in 0..record_bytes {
            let at = |row: usize| row % record_bytes == byte;
            for amount in [1, 128, 255, random() | 1, random() & 0xfe | 2] {
                let in_all = look_up.shifted(|row| if at(row) { amount } else { 0 });
                look_up.refuses(in_all, &format!("byte {byte} by {amount} in all groups"));
                let in_one = |one: usize| {
                    let in_group = |row: usize| row / record_bytes == one && at(row);
                    look_up.shifted(move |row| if in_group(row) { amount } else { 0 })
                };
                look_up.refuses(in_one(group), &format!("byte {byte} by {amount} in its group"));
                // What is done to other groups changes nothing of this record.
                let other = (group + 1) % SERVER.shape.groups();
                assert!(in_one(other) == look_up.truth, "byte {byte} of another group");
            }
            // Amounts that are no whole steps either round to some, or are INVALID.
            let amount = u32::from(random()) << 8 | u32::from(random());
            let changed = look_up.changed(|row| if at(row) { amount } else { 0 });
            if changed != look_up.truth {
                look_up.refuses(changed, &format!("byte {byte} by {amount} of its coefficient"));
            }
        }
        for amount in 1..=255 {
            look_up.refuses(look_up.shifted(|_| amount), &format!("all bytes by {amount}"));
        }
        for parts in [0..TAG_BYTES, TAG_BYTES..record_bytes, 0..record_bytes] {
            for _ in 0..50 {
                let noise: Vec<u8> = (0..record_bytes).map(|_| random()).collect();
                let steps = |row: usize| {
                    let byte = row % record_bytes;
                    if parts.contains(&byte) { noise[byte] } else { 0 }
                };
                look_up.refuses(look_up.shifted(steps), &format!("{noise:?} in {parts:?}"));
            }
        }
    }
}

/// What a server has that knows the matrix and not whom it answers: sums of its bands.
#[test]
fn records_added_from_the_matrix_are_refused() {
    let server = &*SERVER;
    let (shape, rows) = (&server.shape, server.shape.groups() * server.shape.record_bytes());
    let bands: Vec<_> = (0..40).map(|i| server.raw_band(&place(i, shape))).collect();
    for look_up in look_ups(server) {
        for pair in bands.windows(2) {
            let [one, other] = [pair[0], pair[1]].map(|band| -> Vec<u8> {
                (0..shape.groups()).flat_map(|group| server.sum(group, band)).collect()
            });
            let more = |row: usize| if row < rows { one[row] } else { 0 };
            look_up.refuses(look_up.shifted(more), "another record on top");
            let difference = |row: usize| other[row].wrapping_sub(one[row]);
            let swapped = |row| if row < rows { difference(row) } else { 0 };
            look_up.refuses(look_up.shifted(swapped), "the difference of two records");
        }
    }
}

/// What is left, as SECURITY.md says: a server that guesses whom it answers knows the identity,
/// reads the record out of its matrix, and seals any value in its place.
#[test]
fn a_server_that_guesses_the_identifier_can_forge_this_record_alone() {
    let server = &*SERVER;
    let (shape, record_bytes) = (&server.shape, server.shape.record_bytes());
    let guessed = 3;
    let place = place(guessed, shape);
    let group = place.group as usize;
    let stored = server.sum(group, server.raw_band(&place));
    let mut forged = vec![0; record_bytes];
    seal(&place.identity, b"forged", &mut forged);
    let steps = |row: usize| match row.checked_sub(group * record_bytes) {
        Some(byte) if byte < record_bytes => forged[byte].wrapping_sub(stored[byte]),
        _ => 0,
    };
    assert!(server.look_up(guessed).shifted(steps) == Outcome::Found(b"forged".to_vec()));
    for look_up in look_ups(server).iter().filter(|look_up| look_up.place.group == place.group) {
        if look_up.place.identity != place.identity {
            look_up.refuses(look_up.shifted(steps), "forged for another key");
        }
    }
}
