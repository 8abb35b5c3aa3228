//! One shard from its records: solved, packed, checked through the scheme. The outcome depends on
//! seed, shard number, shape and records alone.

use rayon::prelude::*;

use super::choose::Choice;
use super::errors::BuildError;
use super::partition::Partition;
use crate::arith::Isa;
use crate::keyword::solve::{self, Record, Solved};
use crate::keyword::{Outcome, band, extract, locate, locate_known};
use crate::params::FAILURE_LOG2_MAX;
use crate::scheme::{
    KeyBundle, SecretError, SecretPool, ShardMasks, Sharing, random_bytes, reference,
};
use crate::shard::Header;
use crate::shard::write::Sections;

/// How many of a shard's records are queried before it counts as built.
const CHECKED_RECORDS: usize = 2;

pub(super) struct Made {
    pub(super) header: Header,
    matrix: Vec<u8>,
    tables: Vec<u8>,
    hints: Vec<u8>,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum MakeError {
    #[error("no ribbon seed solves it: more columns are needed")]
    NoRibbonSeed,
    #[error("its largest row is too noisy: more response bits are needed")]
    TooNoisy,
    #[error(transparent)]
    Build(#[from] BuildError),
}

impl Made {
    pub(super) fn sections(&self) -> Sections<'_> {
        Sections { matrix: &self.matrix, tables: &self.tables, hints: &self.hints }
    }
}

/// The key and value of a record kept aside, to be queried once the shard is there.
type Sample = (Vec<u8>, Vec<u8>);

/// Makes one shard. Runs on the current rayon pool.
pub(super) fn make(
    choice: &Choice,
    shard: u32,
    rows: Partition,
    records_digest: [u8; 32],
) -> Result<Made, MakeError> {
    let samples = samples(&rows)?;
    let records = located(choice, &rows);
    drop(rows);
    let count = records.len() as u64;
    let solved = solve::solve(Isa::detect(), &choice.seed, shard, &choice.shape, &records);
    drop(records);
    let Solved { ribbon_seed, matrix, row_square_sum_max } =
        solved.ok_or(MakeError::NoRibbonSeed)?;
    if choice.shape.log2_failure_for(row_square_sum_max as f64) > FAILURE_LOG2_MAX {
        return Err(MakeError::TooNoisy);
    }
    let (tables, hints) = build_packs(choice, shard, &matrix);
    let sections = Sections { matrix: &matrix, tables: &tables, hints: &hints };
    self_check(choice, shard, ribbon_seed, &sections, &samples)?;
    let header = Header {
        seed: choice.seed,
        shard_index: shard,
        shard_count: choice.shard_count,
        shape: choice.shape,
        ribbon_seed,
        records: count,
        row_square_sum_max,
        records_digest,
        section_digests: sections.digests(&choice.shape),
    };
    Ok(Made { header, matrix, tables, hints })
}

fn located(choice: &Choice, rows: &Partition) -> Vec<Record> {
    let groups = choice.shape.groups() as u32;
    let record = |index| {
        let row = rows.row(index);
        let place = locate_known(&choice.seed, row.key, choice.shard_count, groups);
        Record { group: place.group, identity: place.identity, value: row.value.to_vec() }
    };
    (0..rows.len()).into_par_iter().map(record).collect()
}

fn build_packs(choice: &Choice, shard: u32, matrix: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let shape = &choice.shape;
    let masks = ShardMasks::new(Isa::detect(), &choice.seed, shard, shape);
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
    choice: &Choice,
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
    let shape = &choice.shape;
    let mut pool = SecretPool::new(choice.seed, *shape);
    let aim = |(key, outcome)| {
        let place = locate(&choice.seed, key, choice.shard_count, shape.groups() as u32);
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
    use super::super::partition::PartitionWriter;
    use super::*;
    use crate::params::Shape;

    fn choice() -> Choice {
        let shape = Shape::new(40, 128, 1, 256).unwrap();
        Choice { seed: [4; 32], shard_count: 1, shape }
    }

    fn rows(records: u64) -> Partition {
        let directory = tempfile::tempdir().unwrap();
        let folder = directory.path().join("parts");
        let mut writer = PartitionWriter::create(&folder, 1).unwrap();
        for index in 0..records {
            writer.push(0, index, format!("key{index}").as_bytes(), b"value").unwrap();
        }
        writer.finish().unwrap();
        Partition::read(&super::super::partition::path(&folder, 0)).unwrap()
    }

    #[test]
    fn the_check_finds_any_part_that_does_not_belong() {
        let choice = choice();
        let samples = samples(&rows(300)).unwrap();
        let [made, other] =
            [300, 299].map(|records| make(&choice, 0, rows(records), [0; 32]).unwrap());
        let seed = made.header.ribbon_seed;
        let check = |seed, sections| self_check(&choice, 0, seed, &sections, &samples);
        let (good, bad) = (made.sections(), other.sections());
        check(seed, good).unwrap();
        assert!(check(seed, Sections { matrix: bad.matrix, ..good }).is_err());
        assert!(check(seed, Sections { tables: bad.tables, ..good }).is_err());
        assert!(check(seed, Sections { hints: bad.hints, ..good }).is_err());
        assert!(check(seed + 1, good).is_err());
        let wrong = [(samples[0].0.clone(), b"another".to_vec())];
        assert!(self_check(&choice, 0, seed, &good, &wrong).is_err());
    }

    #[test]
    fn more_records_than_columns_find_no_ribbon_seed() {
        let outcome = make(&choice(), 0, rows(600), [0; 32]);
        assert!(matches!(outcome, Err(MakeError::NoRibbonSeed)));
    }

    #[test]
    fn the_largest_row_is_measured_and_more_bits_help() {
        // The widest shape that 11 bits allow for uniform rows: the largest of 128 is beyond it.
        let eleven =
            |columns: &u32| Shape::new(40, 128, 1, *columns).unwrap().response_bits() == 11;
        let columns = (192..).step_by(64).take_while(eleven).last().unwrap();
        let narrow = Choice { shape: Shape::new(40, 128, 1, columns).unwrap(), ..choice() };
        assert!(matches!(make(&narrow, 0, rows(50), [0; 32]), Err(MakeError::TooNoisy)));
        let wide = Choice { shape: narrow.shape.with_more_bits().unwrap(), ..narrow };
        assert!(make(&wide, 0, rows(50), [0; 32]).is_ok());
    }
}
