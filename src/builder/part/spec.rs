//! What all shards of a database share, and which shard a key belongs to.

use std::io::{BufRead, Write};

use serde::{Deserialize, Serialize};

use super::errors::PartError;
use crate::builder::errors::BuildError;
use crate::keyword::locate_known;
use crate::limits;
use crate::params::{Shape, ShapeFields, ShapeWishes, TAG_BYTES};
use crate::scheme::{Seed, random_bytes};
use crate::shard::Manifest;
use crate::text;
use crate::wire::hex::Hex;

pub(crate) const RECORDS_PER_SHARD_DEFAULT: u64 = 1 << 20;

/// Version of the form of a spec.
const SPEC_VERSION: u32 = 1;

/// What all shards of a database share. There is no secret in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // Names say it.
pub struct BuildSpec {
    pub seed: Seed,
    pub shard_count: u32,
    pub shape: Shape,
}

/// A spec as it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SpecFile {
    version: u32,
    seed: Hex<32>,
    shard_count: u32,
    shape: ShapeFields,
}

/// The version of a spec, whatever its other fields are.
#[derive(Deserialize)]
struct SpecVersion {
    version: u32,
}

/// What a new spec is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpecWishes {
    /// Records of the database.
    pub records: u64,
    /// Bytes of the longest value.
    pub longest_value: u32,
    /// Number of shards; by [`SpecWishes::records_per_shard`] where there is none.
    pub shards: Option<u32>,
    /// Records of a shard on average.
    pub records_per_shard: Option<u64>,
    /// By how many percent the records may grow before the shape has to change.
    pub headroom_percent: u32,
    /// The database's seed; a new one is drawn where there is none.
    pub seed: Option<Seed>,
    /// Pack rows and packs.
    pub shape: ShapeWishes,
}

impl BuildSpec {
    /// A spec for a new database, or for one that gets another shape.
    ///
    /// # Errors
    /// There are too many shards, or no shape fits.
    pub fn new(wishes: &SpecWishes) -> Result<Self, BuildError> {
        let per_shard = wishes.records_per_shard.unwrap_or(RECORDS_PER_SHARD_DEFAULT).max(1);
        let shards = wishes.shards.map_or(wishes.records.div_ceil(per_shard), u64::from);
        let shard_count = bounded_shards(shards)?;
        let growth = u128::from(100 + wishes.headroom_percent);
        let records = (u128::from(wishes.records) * growth).div_ceil(100);
        let records = u64::try_from(records).unwrap_or(u64::MAX).div_ceil(shard_count.into());
        let value_len = fitting_value_len(wishes.longest_value as usize);
        let shape = Shape::for_records(records, value_len, wishes.shape)?;
        let seed = wishes.seed.map_or_else(random_bytes, Ok)?;
        Ok(Self { seed, shard_count, shape })
    }

    /// The spec of a database that is there.
    pub fn of(manifest: &Manifest) -> Self {
        let (seed, shard_count) = (manifest.seed.0, manifest.shard_count);
        Self { seed, shard_count, shape: manifest.shape() }
    }

    /// The same with one step of 64 columns more, after [`PartError::WiderShape`].
    ///
    /// # Errors
    /// No shape is wider.
    pub fn wider(&self) -> Result<Self, BuildError> {
        Ok(Self { shape: self.shape.widened()?, ..*self })
    }

    /// The same with larger responses, after [`PartError::MoreBits`]; `None` where there are none.
    pub fn with_more_bits(&self) -> Option<Self> {
        Some(Self { shape: self.shape.with_more_bits()?, ..*self })
    }

    /// Reads a spec.
    ///
    /// # Errors
    /// It is not JSON of this form and version, or a number is out of its range.
    pub fn parse(text: &[u8]) -> Result<Self, PartError> {
        let wrong = |problem: String| PartError::Spec { problem };
        let text = text.strip_prefix(text::BYTE_ORDER_MARK).unwrap_or(text);
        let json = |error: serde_json::Error| wrong(format!("it is not JSON of a spec: {error}"));
        let SpecVersion { version } = serde_json::from_slice(text).map_err(json)?;
        if version != SPEC_VERSION {
            return Err(wrong(format!("its version is {version}, expected {SPEC_VERSION}")));
        }
        let SpecFile { seed, shard_count, shape, .. } =
            serde_json::from_slice(text).map_err(json)?;
        bounded_shards(shard_count.into()).map_err(|error| wrong(error.to_string()))?;
        let shape = Shape::from_fields(shape).map_err(|error| wrong(error.to_string()))?;
        Ok(Self { seed: seed.0, shard_count, shape })
    }

    /// The spec as JSON for people too.
    pub fn to_json(&self) -> String {
        let Self { seed, shard_count, shape } = *self;
        let (version, seed, shape) = (SPEC_VERSION, Hex(seed), shape.fields());
        let file = SpecFile { version, seed, shard_count, shape };
        serde_json::to_string_pretty(&file).expect("this is a bug: a spec is not JSON")
    }

    /// The shard that a key belongs to (docs/scale.md has the function in four lines).
    pub fn locate(&self, key: &[u8]) -> u32 {
        self.place(key).0
    }

    /// The shard and the group that a key belongs to.
    pub(crate) fn place(&self, key: &[u8]) -> (u32, u32) {
        let groups = self.shape.groups() as u32;
        let place = locate_known(&self.seed, key, self.shard_count, groups);
        (place.shard, place.group)
    }

    /// Writes the shard of each key, a line each; returns how many there were.
    ///
    /// # Errors
    /// A line is no key, which is named by its number, or a side cannot be read or written.
    pub fn locate_lines(
        &self,
        mut keys: impl BufRead,
        mut shards: impl Write,
    ) -> Result<u64, PartError> {
        let (mut line, mut number) = (Vec::new(), 0);
        let read = |source| PartError::Read { source };
        loop {
            line.clear();
            // One byte more than a key and its line end may have.
            let most = limits::KEY_BYTES_MAX as u64 + 3;
            let mut bounded = std::io::Read::take(&mut keys, most);
            if bounded.read_until(b'\n', &mut line).map_err(read)? == 0 {
                break;
            }
            number += 1;
            let ended = line.strip_suffix(b"\n").unwrap_or(&line);
            let key = ended.strip_suffix(b"\r").unwrap_or(ended);
            let problem = match key.len() {
                0 => Some("it is empty".to_owned()),
                found if found > limits::KEY_BYTES_MAX => {
                    Some(format!("it has more than {} bytes", limits::KEY_BYTES_MAX))
                }
                _ => std::str::from_utf8(key).is_err().then(|| "it is not UTF-8".to_owned()),
            };
            if let Some(problem) = problem {
                return Err(PartError::Key { line: number, problem });
            }
            writeln!(shards, "{}", self.locate(key))
                .map_err(|source| PartError::Write { source })?;
        }
        shards.flush().map_err(|source| PartError::Write { source })?;
        Ok(number)
    }
}

/// The smallest field that holds the longest value and its end mark, so that a record is a
/// multiple of 16 bytes.
pub(crate) fn fitting_value_len(value_bytes_longest: usize) -> u32 {
    let bytes = (value_bytes_longest + 1 + TAG_BYTES).next_multiple_of(16) - TAG_BYTES;
    u32::try_from(bytes).unwrap_or(u32::MAX) // which no shape allows
}

pub(crate) fn bounded_shards(shards: u64) -> Result<u32, BuildError> {
    match u32::try_from(shards) {
        Ok(shards) if (1..=limits::SHARDS_MAX).contains(&shards) => Ok(shards),
        _ => {
            let most = limits::SHARDS_MAX;
            Err(BuildError::Option(format!("{shards} shards, expected 1 to {most}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wishes(records: u64) -> SpecWishes {
        SpecWishes {
            records,
            longest_value: 23,
            shards: None,
            records_per_shard: Some(1_000_000),
            headroom_percent: 0,
            seed: Some([5; 32]),
            shape: ShapeWishes::default(),
        }
    }

    #[test]
    fn value_fields_are_the_smallest_that_fit() {
        for (longest, value_len) in
            [(0, 8), (7, 8), (8, 24), (23, 24), (24, 40), (119, 120), (2039, 2040)]
        {
            assert_eq!(fitting_value_len(longest), value_len, "{longest}");
        }
    }

    #[test]
    fn a_spec_comes_back_and_what_is_none_is_refused() {
        let spec = BuildSpec::new(&wishes(10_000_000_000)).unwrap();
        assert_eq!((spec.shard_count, spec.shape.value_len()), (10_000, 24));
        let json = spec.to_json();
        assert_eq!(BuildSpec::parse(format!("\u{feff}{json}").as_bytes()).unwrap(), spec);
        let roomier = SpecWishes { headroom_percent: 20, ..wishes(10_000_000_000) };
        assert!(BuildSpec::new(&roomier).unwrap().shape.columns() > spec.shape.columns());
        for (from, to, said) in [
            ("\"version\": 1", "\"version\": 2", "its version is 2, expected 1"),
            ("\"seed\"", "\"sead\"", "unknown field"),
            ("\"shard_count\": 10000", "\"shard_count\": 0", "0 shards, expected 1 to"),
            ("\"columns\": ", "\"columns\": 9", "columns"),
            ("{", "[", "not JSON"),
        ] {
            let error = BuildSpec::parse(json.replacen(from, to, 1).as_bytes()).unwrap_err();
            assert!(error.to_string().contains(said), "{error} for {said}");
        }
        assert!(BuildSpec::new(&wishes(u64::MAX)).is_err());
        assert!(BuildSpec::new(&SpecWishes { longest_value: u32::MAX, ..wishes(1) }).is_err());
    }

    #[test]
    fn keys_are_located_a_line_each_and_what_is_no_key_is_named() {
        let spec = BuildSpec::new(&wishes(16_000_000)).unwrap();
        let located = |keys: &[u8]| {
            let mut out = Vec::new();
            spec.locate_lines(keys, &mut out).map(|count| (count, String::from_utf8(out).unwrap()))
        };
        let of = |key: &str| spec.locate(key.as_bytes());
        let expected = format!("{}\n{}\n{}\n", of("a"), of("b"), of("c,d"));
        assert_eq!(located(b"a\nb\r\nc,d").unwrap(), (3, expected));
        assert_eq!(located(b"").unwrap(), (0, String::new()));
        let longest = [vec![b'x'; limits::KEY_BYTES_MAX], b"\r\n".to_vec()].concat();
        assert_eq!(located(&longest).unwrap().0, 1);
        let longer = [b"a\nx", &longest[..]].concat();
        for (keys, said) in [
            (&b"a\n\nb"[..], "line 2 is no key: it is empty"),
            (&longer[..], "line 2 is no key: it has more than 1024 bytes"),
            (b"\xff", "line 1 is no key: it is not UTF-8"),
        ] {
            let error = located(keys).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
