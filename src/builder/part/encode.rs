//! One shard from its records: solved, packed, checked through the scheme. The outcome depends on
//! seed, shard number, shape and records alone.

use std::io;
use std::path::Path;

use rayon::prelude::*;

use super::errors::PartError;
use super::finish::PartEntry;
use super::records::{ShardCheck, ShardRecords};
use super::spec::BuildSpec;
use crate::arith::Isa;
use crate::builder::errors::BuildError;
use crate::builder::partition::Partition;
use crate::keyword::solve::{self, Record, Solved};
use crate::keyword::{Outcome, band, extract, locate, locate_known};
use crate::params::FAILURE_LOG2_MAX;
use crate::scheme::{
    KeyBundle, SecretError, SecretPool, ShardMasks, Sharing, random_bytes, reference,
};
use crate::shard::write::{self, Sections};
use crate::shard::{Header, Manifest, ShardEntry};

/// How many of a shard's records are queried before it counts as built.
const CHECKED_RECORDS: usize = 2;

/// An encoded shard, as its file has it.
pub struct Encoded {
    header: Header,
    matrix: Vec<u8>,
    tables: Vec<u8>,
    hints: Vec<u8>,
}

impl Encoded {
    fn sections(&self) -> Sections<'_> {
        Sections { matrix: &self.matrix, tables: &self.tables, hints: &self.hints }
    }

    /// What is said of it to [`super::finish`], which knows the database before.
    pub fn part_entry(&self, previous: Option<&Manifest>) -> PartEntry {
        let (entry, shard) = (write::entry(&self.header), self.header.shard_index);
        let before = previous.and_then(|manifest| manifest.shards.get(shard as usize));
        let unchanged = before == Some(&entry);
        PartEntry { shard, shape: self.header.shape.fields(), unchanged, entry }
    }

    /// Writes its file below `folder` under its content's name.
    ///
    /// # Errors
    /// It cannot be written; then there is no such file, or the one that was there.
    pub fn write(&self, folder: &Path) -> io::Result<ShardEntry> {
        write::write_shard(folder, &self.header, &self.sections())
    }

    /// The bytes of its file, in pieces.
    pub fn into_pieces(self) -> Vec<Vec<u8>> {
        let mut pieces = vec![self.header.encode().to_vec()];
        for section in [self.matrix, self.tables, self.hints] {
            let fill = write::fill(&section);
            pieces.extend([section, fill]);
        }
        pieces
    }
}

impl ShardRecords {
    /// The entry of the database before, where that has the same records in the same shape: there
    /// is nothing to encode then.
    pub fn unchanged(&self, spec: &BuildSpec, previous: &Manifest) -> Option<PartEntry> {
        let before = previous.shards.get(self.shard as usize)?;
        let is_same = BuildSpec::of(previous) == *spec
            && (before.records, before.records_digest.0) == (self.check.records, self.check.digest);
        let (shard, shape, entry) = (self.shard, spec.shape.fields(), before.clone());
        is_same.then_some(PartEntry { shard, shape, unchanged: true, entry })
    }

    /// Encodes the shard. Runs on the current rayon pool.
    ///
    /// # Errors
    /// The records need a wider shape or more bits, or the shard was encoded wrongly, by memory
    /// that fails.
    pub fn encode(self, spec: &BuildSpec) -> Result<Encoded, PartError> {
        encode(spec, self.shard, self.rows, &self.check)
    }
}

/// The key and value of a record kept aside, to be queried once the shard is there.
type Sample = (Vec<u8>, Vec<u8>);

/// Encodes one shard, whose records were checked. Runs on the current rayon pool.
pub(crate) fn encode(
    spec: &BuildSpec,
    shard: u32,
    rows: Partition,
    check: &ShardCheck,
) -> Result<Encoded, PartError> {
    let columns = spec.shape.columns();
    check.fits(spec, shard)?;
    let samples = samples(&rows)?;
    let records = located(spec, &rows);
    drop(rows);
    let count = records.len() as u64;
    let solved = solve::solve(Isa::detect(), &spec.seed, shard, &spec.shape, &records);
    drop(records);
    let Solved { ribbon_seed, matrix, row_square_sum_max } =
        solved.ok_or(PartError::WiderShape { shard, columns })?;
    if spec.shape.log2_failure_for(row_square_sum_max as f64) > FAILURE_LOG2_MAX {
        return Err(PartError::MoreBits { shard, bits: spec.shape.response_bits() });
    }
    let (tables, hints) = build_packs(spec, shard, &matrix);
    let sections = Sections { matrix: &matrix, tables: &tables, hints: &hints };
    self_check(spec, shard, ribbon_seed, &sections, &samples)?;
    let header = Header {
        seed: spec.seed,
        shard_index: shard,
        shard_count: spec.shard_count,
        shape: spec.shape,
        ribbon_seed,
        records: count,
        row_square_sum_max,
        records_digest: check.digest,
        section_digests: sections.digests(&spec.shape),
    };
    Ok(Encoded { header, matrix, tables, hints })
}

fn located(spec: &BuildSpec, rows: &Partition) -> Vec<Record> {
    let groups = spec.shape.groups() as u32;
    let record = |index| {
        let row = rows.row(index);
        let place = locate_known(&spec.seed, row.key, spec.shard_count, groups);
        Record { group: place.group, identity: place.identity, value: row.value.to_vec() }
    };
    (0..rows.len()).into_par_iter().map(record).collect()
}

fn build_packs(spec: &BuildSpec, shard: u32, matrix: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let shape = &spec.shape;
    let masks = ShardMasks::new(Isa::detect(), &spec.seed, shard, shape);
    let mut tables = vec![0; shape.packs() * shape.table_bytes()];
    let mut hints = vec![0; shape.packs() * shape.hint_bytes()];
    matrix
        .par_chunks(shape.pack_rows() * shape.columns())
        .zip(tables.par_chunks_mut(shape.table_bytes()))
        .zip(hints.par_chunks_mut(shape.hint_bytes()))
        .for_each(|((rows, table), hint)| masks.build_pack(rows, table, hint));
    (tables, hints)
}

fn samples(rows: &Partition) -> Result<Vec<Sample>, BuildError> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let random = random_bytes()?;
    let (draws, _) = random.as_chunks::<8>();
    let sample = |draw: &[u8; 8]| {
        let row = rows.row((u64::from_le_bytes(*draw) % rows.len() as u64) as usize);
        (row.key.to_vec(), row.value.to_vec())
    };
    Ok(draws.iter().take(CHECKED_RECORDS).map(sample).collect())
}

/// Queries the samples and one key that is not there, as a client would, and compares.
fn self_check(
    spec: &BuildSpec,
    shard: u32,
    ribbon_seed: u32,
    sections: &Sections<'_>,
    samples: &[Sample],
) -> Result<(), BuildError> {
    // Keys are UTF-8, so one that begins with 0xff is in no database.
    let absent = [&[0xff][..], &random_bytes()?[..]].concat();
    let mut wanted: Vec<(&[u8], Outcome)> =
        samples.iter().map(|(key, value)| (&key[..], Outcome::Found(value.clone()))).collect();
    wanted.push((&absent, Outcome::Absent));
    let failed = |problem: &str| BuildError::SelfCheck { shard, problem: problem.to_owned() };
    let secret = |error: SecretError| failed(&error.to_string());
    let shape = &spec.shape;
    let mut pool = SecretPool::new(spec.seed, *shape);
    let aim = |(key, outcome)| {
        let place = locate(&spec.seed, key, spec.shard_count, shape.groups() as u32);
        let band = band(&place.identity, ribbon_seed, shape);
        ((place, outcome), (shard, band))
    };
    let (aims, selections): (Vec<_>, Vec<_>) = wanted.into_iter().map(aim).unzip();
    let made = pool.encrypt(&selections, Sharing::Shared).map_err(secret)?;
    let mut queries = Vec::new();
    for (query, (place, outcome)) in made.into_iter().zip(aims) {
        let (_, bundle) = pool.bundle(query).map_err(secret)?;
        let bundle = KeyBundle::decode(&bundle, shape).map_err(|e| failed(&e.to_string()))?;
        let vector = pool.vector(query).map_err(secret)?;
        queries.push((query, vector, bundle, place, outcome));
    }
    let decoder = pool.seal();
    queries.into_par_iter().try_for_each(|(query, vector, bundle, place, outcome)| {
        let (matrix, tables) = (sections.matrix, sections.tables);
        let answer = reference::answer(shape, matrix, tables, &vector, &bundle);
        let decoded = decoder.decode(query, shape, &answer, sections.hints).map_err(secret)?;
        match extract(&decoded, &place, shape).outcome() == outcome {
            true => Ok(()),
            false => Err(failed("a record that was queried did not come back")),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builder::partition::PartitionWriter;
    use crate::params::Shape;

    fn spec() -> BuildSpec {
        let shape = Shape::new(40, 128, 1, 256).unwrap();
        BuildSpec { seed: [4; 32], shard_count: 1, shape }
    }

    fn rows(records: u64) -> Partition {
        let directory = tempfile::tempdir().unwrap();
        let folder = directory.path().join("parts");
        let mut writer = PartitionWriter::create(&folder, 1).unwrap();
        for index in 0..records {
            writer.push(0, index, format!("key{index}").as_bytes(), b"value").unwrap();
        }
        writer.finish().unwrap();
        Partition::read(&crate::builder::partition::path(&folder, 0)).unwrap()
    }

    fn made(spec: &BuildSpec, rows: Partition) -> Result<Encoded, PartError> {
        // The fullest group is not looked at, so that the solver finds out.
        let check = ShardCheck { records: 0, digest: [0; 32], group_load_max: 0 };
        encode(spec, 0, rows, &check)
    }

    #[test]
    fn the_check_finds_any_part_that_does_not_belong() {
        let spec = spec();
        let samples = samples(&rows(300)).unwrap();
        let [made, other] = [300, 299].map(|records| made(&spec, rows(records)).unwrap());
        let seed = made.header.ribbon_seed;
        let check = |seed, sections| self_check(&spec, 0, seed, &sections, &samples);
        let (good, bad) = (made.sections(), other.sections());
        check(seed, good).unwrap();
        assert!(check(seed, Sections { matrix: bad.matrix, ..good }).is_err());
        assert!(check(seed, Sections { tables: bad.tables, ..good }).is_err());
        assert!(check(seed, Sections { hints: bad.hints, ..good }).is_err());
        assert!(check(seed + 1, good).is_err());
        let wrong = [(samples[0].0.clone(), b"another".to_vec())];
        assert!(self_check(&spec, 0, seed, &good, &wrong).is_err());
    }

    #[test]
    fn more_records_than_columns_find_no_ribbon_seed() {
        let outcome = made(&spec(), rows(600));
        assert!(matches!(outcome, Err(PartError::WiderShape { .. })));
    }

    #[test]
    fn the_largest_row_is_measured_and_more_bits_help() {
        // The widest shape that 11 bits allow for uniform rows: the largest of 128 is beyond it.
        let eleven =
            |columns: &u32| Shape::new(40, 128, 1, *columns).unwrap().response_bits() == 11;
        let columns = (192..).step_by(64).take_while(eleven).last().unwrap();
        let narrow = BuildSpec { shape: Shape::new(40, 128, 1, columns).unwrap(), ..spec() };
        assert!(matches!(made(&narrow, rows(50)), Err(PartError::MoreBits { .. })));
        let wide = BuildSpec { shape: narrow.shape.with_more_bits().unwrap(), ..narrow };
        assert!(made(&wide, rows(50)).is_ok());
    }
}
