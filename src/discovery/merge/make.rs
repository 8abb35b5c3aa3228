//! The second step: a bucket of accepted statements to signed and sealed records.

use std::collections::HashMap;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::SigningKey;
use rayon::prelude::*;

use super::super::blind::{BlindKey, Derived, SEAL_BYTES};
use super::super::identifier::Identifier;
use super::super::record::{self, Body, Dropped, LIFETIME_DAYS_DEFAULT};
use super::super::ssi::Ssi;
use super::cache::Cache;
use super::errors::{IoContext as _, MergeError};
use super::partition::{self, identifier_hash};
use super::report::{Finding, Tally};
use super::resolve::{Resolved, resolve};
use super::row::{MappingRow, Row, decode_all};
use super::work::{WorkDir, create_file, write_atomically};

const DAY_SECONDS: u64 = 86_400;

/// What all records of a run have in common.
pub(super) struct Maker<'a> {
    pub(super) region: &'a str,
    pub(super) key: &'a SigningKey,
    /// The index of that key in the directory.
    pub(super) signer: u32,
    /// `None` to write records unsealed, under the identifier itself.
    pub(super) blind: Option<&'a BlindKey>,
    /// Longest value.
    pub(super) value_bytes_max: usize,
    pub(super) now: u64,
    pub(super) issued: u32,
    pub(super) bucket_count: u32,
    /// Names of the input files.
    pub(super) files: Vec<String>,
}

/// The time that each part took.
#[derive(Default)]
pub(super) struct Times {
    pub(super) resolving: Duration,
    pub(super) deriving: Duration,
    pub(super) signing: Duration,
    pub(super) files: Duration,
}

/// The files of a finished bucket.
pub(super) struct Part {
    /// Lines of records, sorted.
    pub(super) records: PathBuf,
    /// Hashes of accepted statements, sorted.
    pub(super) leaves: PathBuf,
    /// Statements without effect.
    pub(super) findings: PathBuf,
    /// The tally; written last.
    done: PathBuf,
}

impl Part {
    pub(super) fn of(work: &WorkDir, bucket: u32) -> Self {
        let path = |kind: &str| work.parts().join(format!("{bucket:05}.{kind}"));
        Self {
            records: path("records"),
            leaves: path("leaves"),
            findings: path("findings"),
            done: path("done"),
        }
    }

    /// The tally, if the bucket is finished.
    pub(super) fn tally(&self) -> Option<Tally> {
        serde_json::from_slice(&fs::read(&self.done).ok()?).ok()
    }
}

/// What the statements of one identifier become.
#[derive(Default)]
struct Made {
    record: Option<(Identifier, Body)>,
    leaves: Vec<[u8; 32]>,
    findings: Vec<u8>,
    tally: Tally,
}

impl Maker<'_> {
    /// Makes all records of a bucket, and writes its files.
    pub(super) fn make(
        &self,
        work: &WorkDir,
        bucket: u32,
        times: &mut Times,
    ) -> Result<Tally, MergeError> {
        let part = Part::of(work, bucket);
        let begun = Instant::now();
        let mut rows = self.rows(work, bucket)?;
        let mut clock = Clock(begun);
        clock.lap(&mut times.files);

        rows.par_sort_unstable_by(|a, b| {
            (&a.sub, &a.digest, a.file, a.line).cmp(&(&b.sub, &b.digest, b.file, b.line))
        });
        let groups: Vec<&[Row]> = rows.chunk_by(|a, b| a.sub == b.sub).collect();
        let mut made: Vec<Made> = groups.par_iter().map(|rows| self.resolve(rows)).collect();
        drop(groups);
        drop(rows);
        let records: Vec<_> = made.iter_mut().filter_map(|made| made.record.take()).collect();
        clock.lap(&mut times.resolving);

        let (keys, from_cache) = self.derive(work, bucket, &records)?;
        clock.lap(&mut times.deriving);
        let key = |index: usize| keys.as_ref().map(|keys| &keys[index]);
        let line =
            |(index, (sii, body)): (usize, &(Identifier, Body))| self.line(sii, body, key(index));
        let mut lines: Vec<(String, usize)> = records.par_iter().enumerate().map(line).collect();
        lines.par_sort_unstable();
        clock.lap(&mut times.signing);

        let mut tally = Tally { keys_from_cache: from_cache, ..Tally::default() };
        made.iter().for_each(|made| tally.add(&made.tally));
        tally.value_bytes_longest = lines.iter().map(|(_, bytes)| *bytes as u64).max().unwrap_or(0);
        write_part(&part, &lines, &mut made, &tally)?;
        clock.lap(&mut times.files);
        Ok(tally)
    }

    fn rows(&self, work: &WorkDir, bucket: u32) -> Result<Vec<Row>, MergeError> {
        let path = partition::path(&work.buckets(), bucket);
        let bytes = fs::read(&path).context("read", &path)?;
        decode_all(&bytes).ok_or(MergeError::Damaged { path })
    }

    fn resolve(&self, rows: &[Row]) -> Made {
        let resolved = resolve(rows, self.region);
        let mut made = Made::default();
        for (row, reason) in rows.iter().zip(&resolved.reasons) {
            if let Some(reason) = *reason {
                if reason.is_known() {
                    continue;
                }
                match reason.is_refusal() {
                    true => made.tally.refuse(reason.code()),
                    false => made.tally.no_effect(reason.code()),
                }
                let file = self.files.get(row.file as usize).map_or("", String::as_str);
                Finding::without_effect(file, row.place(), reason).write(&mut made.findings);
            }
            if reason.is_none_or(|reason| !reason.is_refusal())
                && let Ok(leaf) = row.digest.as_slice().try_into()
            {
                made.leaves.push(leaf);
            }
        }
        made.tally.accepted = made.leaves.len() as u64;
        let identifier = rows.first().and_then(Row::identifier);
        let body = self.body(&resolved, &mut made.tally);
        made.record = identifier.zip(body);
        made
    }

    /// What the record says, as far as it fits. `None` for who is not to be found.
    fn body(&self, resolved: &Resolved<'_>, tally: &mut Tally) -> Option<Body> {
        let earliest = resolved.services.iter().map(|mapping| mapping.exp).min()?;
        let mut body = Body {
            signer: self.signer,
            issued: self.issued,
            lifetime_days: lifetime_days(earliest, self.now),
            services: resolved.services.iter().map(|mapping| service(mapping)).collect(),
            preference: resolved.preference.map(|preference| record::Preference {
                key: preference.key.clone(),
                signature: preference.signature.clone(),
                // Later than 2106 is later than now, which reading it refuses.
                time: preference.time as u32,
            }),
        };
        let seal_bytes = if self.blind.is_some() { SEAL_BYTES } else { 0 };
        let dropped = record::fit(&mut body, self.value_bytes_max.saturating_sub(seal_bytes));
        let Dropped { key_hashes, handles, tags, services } = dropped;
        tally.dropped_key_hashes = key_hashes as u64;
        tally.dropped_handles = handles as u64;
        tally.dropped_tags = tags as u64;
        tally.dropped_services = services as u64;
        if body.services.is_empty() {
            return None;
        }
        tally.records = 1;
        tally.records_with_preference = u64::from(body.preference.is_some());
        Some(body)
    }

    /// The derived keys of these identifiers, and how many were there already.
    fn derive(
        &self,
        work: &WorkDir,
        bucket: u32,
        records: &[(Identifier, Body)],
    ) -> Result<(Option<Vec<Derived>>, u64), MergeError> {
        let Some(blind) = self.blind else { return Ok((None, 0)) };
        let cache = Cache::of(work, bucket, self.bucket_count, blind);
        let known: HashMap<_, _> = cache.read()?;
        let derived: Vec<([u8; 32], Derived, bool)> = records
            .par_iter()
            .map(|(sii, _)| {
                let hash = identifier_hash(&sii.to_uri());
                match known.get(&hash) {
                    Some(derived) => (hash, derived.clone(), true),
                    None => (hash, blind.derive(sii), false),
                }
            })
            .collect();
        let from_cache = derived.iter().filter(|(_, _, is_known)| *is_known).count();
        if from_cache < derived.len() || from_cache < known.len() {
            cache.write(derived.iter().map(|(hash, derived, _)| (hash, derived)))?;
        }
        let keys = derived.into_iter().map(|(_, derived, _)| derived).collect();
        Ok((Some(keys), from_cache as u64))
    }

    /// The line of a record in the input of `sotto build`, and the bytes of its value.
    fn line(&self, sii: &Identifier, body: &Body, key: Option<&Derived>) -> (String, usize) {
        let record = record::sign(body, sii, self.key);
        let (key, value) = match key {
            Some(derived) => (derived.lookup_key(), derived.seal(self.issued, &record)),
            None => (sii.as_str().to_owned(), record),
        };
        // Neither an identifier nor base64 has a comma or a quote.
        (format!("{key},base64:{}\n", STANDARD.encode(&value)), value.len())
    }
}

fn service(mapping: &MappingRow) -> record::Service {
    let key: Option<&[u8; 32]> =
        mapping.key.as_ref().and_then(|key| key.as_slice().try_into().ok());
    record::Service {
        provider: mapping.provider,
        handle: Ssi::parse(&mapping.ssi).ok().map(|ssi| ssi.handle().to_owned()),
        tags: mapping.tags.clone(),
        key_hash: key.map_or_else(Vec::new, |key| record::key_hash(key).to_vec()),
    }
}

/// Whole days until the first mapping expires, where that is before a record does; at least one.
fn lifetime_days(earliest: u64, now: u64) -> Option<u32> {
    let days = earliest.saturating_sub(now) / DAY_SECONDS;
    let is_shorter = days < u64::from(LIFETIME_DAYS_DEFAULT);
    is_shorter.then_some(days.max(1) as u32)
}

fn write_part(
    part: &Part,
    lines: &[(String, usize)],
    made: &mut [Made],
    tally: &Tally,
) -> Result<(), MergeError> {
    let lines = lines.iter().map(|(line, _)| line.as_bytes());
    write_file(&part.records, lines)?;
    let mut leaves: Vec<[u8; 32]> = made.iter().flat_map(|made| &made.leaves).copied().collect();
    leaves.par_sort_unstable();
    write_file(&part.leaves, leaves.iter().map(|leaf| &leaf[..]))?;
    write_file(&part.findings, made.iter().map(|made| &made.findings[..]))?;
    let done = serde_json::to_vec(tally).map_err(std::io::Error::other);
    done.and_then(|done| write_atomically(&part.done, &done)).context("write", &part.done)
}

fn write_file<'a>(
    path: &std::path::Path,
    items: impl Iterator<Item = &'a [u8]>,
) -> Result<(), MergeError> {
    let write = || {
        let mut file = std::io::BufWriter::with_capacity(1 << 20, create_file(path)?);
        for item in items {
            file.write_all(item)?;
        }
        file.into_inner()?.sync_all()?;
        super::work::fault::step()
    };
    write().context("write", path)
}

struct Clock(Instant);

impl Clock {
    fn lap(&mut self, sum: &mut Duration) {
        let now = Instant::now();
        *sum += now - self.0;
        self.0 = now;
    }
}
