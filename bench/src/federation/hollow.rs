//! A database with shards of a chosen shape of which most are *hollow*: no records, and zeros where
//! a builder would put noise. Such a shard is as valid as any. Its matrix is zero, so its tables
//! are, it answers every query, and each answer decodes to a record that is absent. On the disk it
//! is a header, a hole and hints, so that a thousand shards of 345 MB fit anywhere. A few shards
//! are *full*: made as `sotto build` makes them, of the records that belong there.
//!
//! What it is for: sizes and times that depend on the shape and the number of shards, but not on
//! what is in them. Kernels do not branch on data; they read and multiply zeros as they do noise.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sotto::arith::Isa;
use sotto::builder::keys;
use sotto::commands::pack_rows;
use sotto::discovery::blind::BlindKey;
use sotto::discovery::identifier::Identifier;
use sotto::discovery::jws;
use sotto::keyword::locate_known;
use sotto::keyword::solve::{Record, Solved, solve};
use sotto::params::{Shape, ShapeWishes};
use sotto::scheme::{ShardMasks, hint_hash, random_bytes};
use sotto::shard::header::file_bytes;
use sotto::shard::manifest::{MANIFEST_NAME, SHARDS_DIR};
use sotto::shard::write::{Sections, entry, write_shard};
use sotto::shard::{Header, Manifest, ManifestHead, ShardEntry};
use sotto::wire::Lifetime;

use super::account::now;
use crate::Failed;

const LIFETIME_SECONDS: u64 = 30 * 86_400;

/// What to make, and of what.
#[derive(Debug, clap::Args)]
pub(crate) struct HollowOptions {
    /// Folder of the database, a new one
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Its name in the directory
    #[arg(long, value_name = "NAME")]
    database: String,
    /// The operator's signing key
    #[arg(long, value_name = "PEM")]
    signing_key: PathBuf,
    /// Statements, one signed token a line: whom contacts are taken from
    #[arg(long, value_name = "FILE")]
    statements: PathBuf,
    /// Records that were made of them
    #[arg(long, value_name = "CSV")]
    records: PathBuf,
    /// The blinding key
    #[arg(long, value_name = "FILE")]
    blind: PathBuf,
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    shards: u32,
    /// So many shards, the first ones, are full
    #[arg(long, value_name = "N", default_value_t = 0)]
    full: u32,
    /// Records of a shard that its shape is for
    #[arg(long, value_name = "N", default_value_t = 1 << 19)]
    shape_records: u64,
    #[arg(long, value_name = "N", default_value_t = 248)]
    value_bytes: u32,
    /// Packs a shard; the shape rule's when absent
    #[arg(long, value_name = "N")]
    packs: Option<u32>,
    /// Rows a pack; the shape rule's when absent
    #[arg(long, value_name = "N", value_parser = pack_rows)]
    pack_rows: Option<u32>,
    /// Contacts of the address books
    #[arg(long, value_name = "N", default_value_t = 500)]
    contacts: usize,
}

/// A record as `sotto records make` wrote it.
struct Found {
    key: String,
    value: Vec<u8>,
}

/// A database that is being made.
struct Maker {
    seed: [u8; 32],
    shape: Shape,
    shards: u32,
}

/// Makes the database, `book.vcf` beside it with the contacts, and `book-more.vcf` with one contact
/// more. One contact for each full shard is there; the others' shards are hollow. Returns what was
/// made, in words.
pub(crate) fn make(options: &HollowOptions) -> Result<String, Failed> {
    let wishes = ShapeWishes { pack_rows: options.pack_rows, packs: options.packs };
    let shape = Shape::for_records(options.shape_records, options.value_bytes, wishes)?;
    let maker = Maker { seed: random_bytes()?, shape, shards: options.shards };
    let records = read_records(&options.records)?;
    let folder = options.out.join(SHARDS_DIR);
    fs::create_dir_all(&folder)?;
    let mut entries = Vec::new();
    let mut by_shard: BTreeMap<u32, Vec<&Found>> = BTreeMap::new();
    for record in &records {
        by_shard.entry(maker.shard(&record.key)).or_default().push(record);
    }
    for shard in 0..options.full {
        let there = by_shard.get(&shard).map_or(&[][..], Vec::as_slice);
        entries.push(maker.full(&folder, shard, there)?);
    }
    let hollow = Hollow::new(&maker)?;
    for shard in options.full..options.shards {
        entries.push(hollow.write(&maker, &folder, shard)?);
    }
    let key = keys::load(&options.signing_key)?.ok_or("the signing key is missing")?;
    let lifetime = Lifetime { created: now(), expires: now() + LIFETIME_SECONDS };
    let database = options.database.clone();
    let head = ManifestHead { seed: maker.seed, epoch: 1, lifetime, database, shape };
    let there = entries.iter().map(|entry| entry.records).sum::<u64>();
    fs::write(options.out.join(MANIFEST_NAME), Manifest::sign(&head, entries, &key)?.to_json())?;
    let present = maker.write_books(options, &records)?;
    Ok(format!(
        "{} shards, {} of them full with {there} records, {} rows ({} packs of {}) by {} columns, \
         {} bytes each; {present} of {} contacts are there",
        options.shards,
        options.full,
        shape.rows(),
        shape.packs(),
        shape.pack_rows(),
        shape.columns(),
        file_bytes(&shape),
        options.contacts,
    ))
}

impl Maker {
    fn shard(&self, key: &str) -> u32 {
        let groups = self.shape.groups() as u32;
        locate_known(&self.seed, key.as_bytes(), self.shards, groups).shard
    }

    fn header(&self, shard: u32, records: &[&Found]) -> Header {
        let mut digest = blake3::Hasher::new();
        for record in records {
            digest.update(record.key.as_bytes()).update(&record.value);
        }
        Header {
            seed: self.seed,
            shard_index: shard,
            shard_count: self.shards,
            shape: self.shape,
            ribbon_seed: 0,
            records: records.len() as u64,
            row_square_sum_max: 0,
            records_digest: *digest.finalize().as_bytes(),
            section_digests: [[0; 32]; 3],
        }
    }

    /// Tables and hints of a matrix.
    fn packs(&self, shard: u32, matrix: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let shape = &self.shape;
        let masks = ShardMasks::new(Isa::detect(), &self.seed, shard, shape);
        let mut tables = vec![0; shape.packs() * shape.table_bytes()];
        let mut hints = vec![0; shape.packs() * shape.hint_bytes()];
        let packs =
            tables.chunks_mut(shape.table_bytes()).zip(hints.chunks_mut(shape.hint_bytes()));
        for (rows, (table, hint)) in matrix.chunks(shape.pack_rows() * shape.columns()).zip(packs) {
            masks.build_pack(rows, table, hint);
        }
        (tables, hints)
    }

    fn full(&self, folder: &Path, shard: u32, records: &[&Found]) -> Result<ShardEntry, Failed> {
        let groups = self.shape.groups() as u32;
        let placed = |record: &&Found| {
            let place = locate_known(&self.seed, record.key.as_bytes(), self.shards, groups);
            Record { group: place.group, identity: place.identity, value: record.value.clone() }
        };
        let placed: Vec<Record> = records.iter().map(placed).collect();
        let solved = solve(Isa::detect(), &self.seed, shard, &self.shape, &placed);
        let Solved { ribbon_seed, matrix, row_square_sum_max } =
            solved.ok_or("no ribbon seed solves a shard")?;
        let (tables, hints) = self.packs(shard, &matrix);
        let sections = Sections { matrix: &matrix, tables: &tables, hints: &hints };
        let section_digests = sections.digests(&self.shape);
        let header = self.header(shard, records);
        let header = Header { ribbon_seed, row_square_sum_max, section_digests, ..header };
        Ok(write_shard(folder, &header, &sections)?)
    }

    /// Writes the address books; says how many of the contacts are in the database.
    fn write_books(&self, options: &HollowOptions, records: &[Found]) -> Result<usize, Failed> {
        let keys: HashMap<&str, u32> =
            records.iter().map(|record| (&*record.key, self.shard(&record.key))).collect();
        let blind = BlindKey::read(&options.blind)?;
        let mut there: BTreeMap<u32, Identifier> = BTreeMap::new();
        let mut others: BTreeMap<String, Identifier> = BTreeMap::new();
        for line in fs::read_to_string(&options.statements)?.lines() {
            let Some(contact) = subject(line).filter(is_covered) else { continue };
            let key = blind.derive(&contact).lookup_key();
            if let Some(&shard) = keys.get(&*key)
                && shard < options.full
            {
                there.entry(shard).or_insert(contact);
            } else if self.shard(&key) >= options.full {
                others.insert(key, contact);
            }
        }
        let all: Vec<&Identifier> = there.values().chain(others.values()).collect();
        if all.len() <= options.contacts {
            return Err(format!("found {} contacts, expected more", all.len()).into());
        }
        fs::write(options.out.join("book.vcf"), cards(&all[..options.contacts]))?;
        fs::write(options.out.join("book-more.vcf"), cards(&all[..=options.contacts]))?;
        Ok(there.len().min(options.contacts))
    }
}

/// What all hollow shards of a database have in common: digests of sections of zeros.
struct Hollow {
    digests: [[u8; 32]; 3],
}

impl Hollow {
    fn new(maker: &Maker) -> Result<Self, Failed> {
        let shape = &maker.shape;
        let matrix = vec![0; shape.matrix_bytes()];
        let (tables, hints) = maker.packs(0, &matrix);
        if tables.iter().chain(&hints).any(|&byte| byte != 0) {
            return Err("this is a bug: tables or hints of zeros are not zero".into());
        }
        let sections = Sections { matrix: &matrix, tables: &tables, hints: &hints };
        Ok(Self { digests: sections.digests(shape) })
    }

    /// Hints have to differ, or else a device would fetch one for all shards. They have the
    /// shard's number in the lowest bits of the first coefficients, which changes them by less than
    /// rounding does.
    fn hints(maker: &Maker, shard: u32) -> Vec<u8> {
        let shape = &maker.shape;
        let mut hints = vec![0; shape.packs() * shape.hint_bytes()];
        for pack in hints.chunks_mut(shape.hint_bytes()) {
            for bit in (0..u32::BITS).filter(|bit| shard >> bit & 1 == 1) {
                let at = (bit * shape.hint_bits()) as usize;
                pack[at / 8] |= 1 << (at % 8);
            }
        }
        hints
    }

    fn write(&self, maker: &Maker, folder: &Path, shard: u32) -> Result<ShardEntry, Failed> {
        let hints = Self::hints(maker, shard);
        let [matrix, tables, _] = self.digests;
        let hint = hint_hash(hints.chunks(maker.shape.hint_bytes()));
        let section_digests = [matrix, tables, hint];
        let header = Header { section_digests, ..maker.header(shard, &[]) };
        let entry = entry(&header);
        let file = File::create_new(folder.join(&entry.file))?;
        file.set_len(file_bytes(&maker.shape))?;
        file.write_all_at(&header.encode(), 0)?;
        let [.., section] = header.sections();
        file.write_all_at(&hints, section.offset)?;
        Ok(entry)
    }
}

fn read_records(path: &Path) -> Result<Vec<Found>, Failed> {
    let read = |line: &str| {
        let (key, value) = line.split_once(",base64:").ok_or("a record is not in base64")?;
        Ok::<_, Failed>(Found { key: key.to_owned(), value: STANDARD.decode(value)? })
    };
    fs::read_to_string(path)?.lines().skip(1).map(read).collect()
}

/// Whom a signed statement is about.
fn subject(line: &str) -> Option<Identifier> {
    let payload = jws::from_base64url(line.split('.').nth(1)?)?;
    let claims: serde_json::Value = serde_json::from_slice(&payload).ok()?;
    Identifier::from_uri(claims.get("sub")?.as_str()?).ok()
}

/// Whether the database of a sample covers a contact.
fn is_covered(contact: &Identifier) -> bool {
    contact.digits().is_none() || contact.as_str().starts_with("+1")
}

fn cards(contacts: &[&Identifier]) -> String {
    let card = |(number, contact): (usize, &&Identifier)| {
        let text = contact.as_str();
        let property = if contact.digits().is_some() { "TEL" } else { "EMAIL" };
        format!(
            "BEGIN:VCARD\r\nVERSION:3.0\r\nFN:Contact {number}\r\nN:;Contact {number};;;\r\n\
             {property}:{text}\r\nEND:VCARD\r\n"
        )
    };
    (1..).zip(contacts).map(card).collect()
}
