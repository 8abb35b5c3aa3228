//! Whether the client's path is constant time as the release build compiles it: no branch and no
//! address depends on a secret.
//!
//! A program to be run by valgrind, whose memcheck reports a branch or an address that depends on
//! undefined bits. Keys are marked as such; from them follow place, selection and, because secrets
//! are drawn from the selections too, every secret and all that is made under it (the program makes
//! sure of that). What becomes public is marked so, here and nowhere else, each with its reason;
//! `public.supp` has the one that lies inside the library. Idea: Adam Langley, ctgrind, 2010. What
//! memcheck does not see: instructions whose time depends on their operands. The path has no
//! division;
//! `.ci/constant-time` looks for the instructions. valgrind does not know AVX-512.
//!
//! `.ci/constant-time` runs it: `self-test` first, where reports are expected, then the instruction
//! sets.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod memcheck;

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn main() -> std::process::ExitCode {
    on_valgrind::main()
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
fn main() -> std::process::ExitCode {
    eprintln!("skipped: valgrind's requests are written for x86-64 with Linux alone");
    std::process::ExitCode::SUCCESS
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod on_valgrind {
    use std::collections::HashSet;
    use std::hint::black_box;
    use std::process::ExitCode;

    use sotto::arith::{Isa, IsaName};
    use sotto::keyword::{Location, Outcome, band, extract, locate};
    use sotto::params::{Shape, TAG_BYTES};
    use sotto::scheme::{Decoder, QueryId, SecretPool, Seed, Sharing, pack_bits};

    use super::memcheck::{is_running, public, reports, secret, secret_bytes};

    const SEED: Seed = [9; 32];
    const SHARDS: u32 = 1000;
    const RIBBON_SEED: u32 = 3;
    const VALUE: &[u8] = b"somebody";

    pub(super) fn main() -> ExitCode {
        let argument = std::env::args().nth(1).unwrap_or_default();
        if !is_running() {
            eprintln!("this program says something under valgrind alone: run .ci/constant-time");
            return ExitCode::FAILURE;
        }
        let result = match IsaName::ALL.into_iter().find(|name| name.name() == argument) {
            Some(name) => path(name),
            None if argument == "self-test" => self_test(),
            None => Err(format!("found {argument:?}, expected self-test or an instruction set")),
        };
        match result {
            Ok(said) => println!("{said}"),
            Err(wrong) => {
                eprintln!("{wrong}");
                return ExitCode::FAILURE;
            }
        }
        ExitCode::SUCCESS
    }

    /// What leaks is reported, what does not is not.
    fn self_test() -> Result<String, String> {
        let key = *b"0123456789abcdef";
        secret(&key);
        type Run = fn(&[u8; 16]) -> u32;
        let leaks: [(&str, bool, Run); 4] = [
            ("a sum", false, |key| key.iter().map(|&byte| u32::from(byte)).sum()),
            ("a choice by mask", false, |key| 7 & u32::from(key[0] >> 7).wrapping_neg()),
            ("a branch", true, |key| if black_box(key[0]) > 47 { branch_taken() } else { 2 }),
            ("a table", true, |key| black_box([3u32; 256])[usize::from(key[5])]),
        ];
        for (what, leaks, run) in leaks {
            let before = reports();
            black_box(run(black_box(&key)));
            if (reports() > before) != leaks {
                let said = if leaks { "not reported" } else { "reported" };
                return Err(format!("self-test: {what} over a secret was {said}"));
            }
        }
        Ok("self-test: a branch and a table over a secret are reported, sums and masks are not"
            .into())
    }

    #[inline(never)]
    fn branch_taken() -> u32 {
        black_box(1)
    }

    /// The whole path at a shape with small packs, and at the standard shape, which has both keys
    /// of a bundle and several mask blocks.
    fn path(name: IsaName) -> Result<String, String> {
        let isa = Isa::new(name);
        let isa =
            isa.ok_or_else(|| format!("{} is not here, or valgrind lacks it", name.name()))?;
        let shape = |value_len, records| Shape::for_records(records, value_len, Default::default());
        let shapes = [shape(24, 1 << 10), shape(120, 1 << 20)];
        for shape in shapes {
            let shape = shape.map_err(|error| error.to_string())?;
            look_up(isa, &shape)?;
            if reports() > 0 {
                return Err(format!(
                    "{}, {shape:?}: found {} times (above) a branch or an address that depends on \
                     a secret, expected none: compute with masks, and keep the compiler from \
                     making branches of them (std::hint::black_box)",
                    name.name(),
                    reports()
                ));
            }
        }
        Ok(format!("{}: no branch and no address depends on a secret", name.name()))
    }

    /// Look-ups of more keys than one secret serves, in the order in which the client does them.
    fn look_up(isa: Isa, shape: &Shape) -> Result<(), String> {
        let groups = shape.groups() as u32;
        let mut places = Vec::new();
        let mut selections = Vec::new();
        for number in 0..20 {
            let key = key(number);
            secret(&key[..]);
            let place = Box::new(locate(&SEED, &key, SHARDS, groups));
            // The shard number is what the server is told, so that it knows where to look.
            public(&place.shard);
            selections.push((place.shard, band(&place.identity, RIBBON_SEED, shape)));
            places.push(place);
        }
        let mut pool = SecretPool::on(isa, SEED, *shape);
        let queries = pool.encrypt(&selections, Sharing::Shared).map_err(|e| e.to_string())?;
        let mut bundles = HashSet::new();
        for &query in &queries {
            publish(&pool, query, &mut bundles)?;
        }
        let decoder = pool.seal();
        for ((number, &query), place) in (0..).zip(&queries).zip(&places) {
            // Who plays the server knows the key: its answer is not computed from marked bytes.
            let known = locate(&SEED, &key(number), SHARDS, groups);
            let (rows, expected) = match number % 2 {
                0 => (rows(shape, Some(&known)), Outcome::Found(VALUE.into())),
                _ => (rows(shape, None), Outcome::Absent),
            };
            if decode(&decoder, query, place, shape, &rows)? != expected {
                return Err(format!("look-up {number} came out wrong: a defect of this check"));
            }
        }
        Ok(())
    }

    fn key(number: u32) -> Vec<u8> {
        format!("+1201555{number:04}").into_bytes()
    }

    /// What goes to the server of a query.
    fn publish(
        pool: &SecretPool,
        query: QueryId,
        bundles: &mut HashSet<*const u8>,
    ) -> Result<(), String> {
        let vector = pool.vector(query).map_err(|error| error.to_string())?;
        let (uid, bundle) = pool.bundle(query).map_err(|error| error.to_string())?;
        let mut out = vec![("vector", &vector[..])];
        if bundles.insert(bundle.as_ptr()) {
            out.push(("bundle", &bundle[..]));
        }
        for (what, bytes) in out {
            // Every byte depends on the keys: nothing on the way has lost the mark.
            let marked = secret_bytes(bytes);
            if marked != bytes.len() {
                let all = bytes.len();
                return Err(format!("{marked} bytes of a {what} carry a mark, expected all {all}"));
            }
            // Encrypted under the secret, and sent as they are.
            public(bytes);
        }
        // A hash of the public bundle, in hex, and sent with it.
        public(uid.as_bytes());
        Ok(())
    }

    /// The bytes that an answer decodes to: everywhere the same, but for one key's record.
    fn rows(shape: &Shape, present: Option<&Location>) -> Vec<u8> {
        let mut rows = vec![0x5a; shape.rows()];
        if let Some(place) = present {
            let record = &mut rows[place.group as usize * shape.record_bytes()..];
            let (tag, field) = record[..shape.record_bytes()].split_at_mut(TAG_BYTES);
            field.fill(0);
            field[..VALUE.len()].copy_from_slice(VALUE);
            field[VALUE.len()] = 0x80;
            let draw = |label: &[u8], data: &[u8], out: &mut [u8]| {
                let mut hasher = blake3::Hasher::new_keyed(&place.identity);
                hasher.update(label).update(data).finalize_xof().fill(out);
            };
            draw(b"t", field, tag);
            let mut keystream = vec![0; field.len()];
            draw(b"s", tag, &mut keystream);
            for (byte, key) in field.iter_mut().zip(keystream) {
                *byte = byte.wrapping_add(key);
            }
        }
        rows
    }

    /// Reads a record out of an answer that decodes to these rows under any secret: its hint is
    /// zero.
    fn decode(
        decoder: &Decoder,
        query: QueryId,
        place: &Location,
        shape: &Shape,
        rows: &[u8],
    ) -> Result<Outcome, String> {
        let bits = shape.response_bits();
        let response = rows.chunks_exact(shape.pack_rows()).map(|rows| {
            let mut packed = vec![0; shape.response_bytes()];
            let values = 8 * packed.len() / bits as usize;
            let value = |at| rows.get(at).map_or(0, |&byte| u32::from(byte) << (bits - 8));
            pack_bits((0..values).map(value), bits, &mut packed);
            packed
        });
        let response: Vec<_> = response.collect();
        let hints = vec![0; shape.packs() * shape.hint_bytes()];
        let decoded = decoder.decode(query, shape, &response, &hints);
        let decoded = decoded.map_err(|error| error.to_string())?;
        let extracted = extract(&decoded, place, shape);
        // The caller asked what became of its key: found and how long, absent, or invalid. Nothing
        // is sent any more. The value itself, on the heap, stays marked while it is copied out.
        public(&extracted);
        let outcome = extracted.outcome();
        if let Outcome::Found(value) = &outcome {
            if secret_bytes(value) != value.len() {
                return Err("a value came back without a mark".into());
            }
            // To be compared here.
            public(&value[..]);
        }
        Ok(outcome)
    }
}
