//! One build from beginning to end. Read it top to bottom: [`run`] is the table of contents.

use std::collections::HashSet;
use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, Instant};

use super::errors::{BuildError, IoContext as _};
use super::input::{self, Entry, LineErrors, ReadError, ValueBound};
use super::keys;
use super::options::{BuildOptions, DATABASE_NAME_DEFAULT, check_name};
use super::part::ShardCheck;
use super::partition::PartitionWriter;
use super::progress::{Progress, Stage};
use super::session::Session;
use super::shards::check_shard;
use super::source::Source;
use super::work::WorkFile;
use crate::params::Shape;
use crate::shard::files::{gone, write_atomically};
use crate::shard::header::file_bytes;
use crate::shard::manifest::{MANIFEST_NAME, MANIFEST_PREVIOUS_NAME};
use crate::shard::{Manifest, ManifestHead, ShardEntry};
use crate::wire::SigningKey;

/// What a build ended in.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)] // Names say it.
pub struct BuildReport {
    pub shard_count: u32,
    pub built: u32,
    /// Shards that an interrupted build had finished.
    pub resumed: u32,
    /// Shards of the epoch before whose records did not change.
    pub reused: u32,
    pub records: u64,
    pub records_before: Option<u64>,
    pub shape: Shape,
    pub shard_records_min: u64,
    pub epoch: u64,
    /// Whether the same content was signed for longer.
    pub renewed: bool,
    pub bytes: u64,
    pub elapsed: Duration,
}

/// Builds or rebuilds a database. When it fails on its input or its options, nothing is left
/// behind; when it fails on the disk, what was finished is kept for the next run.
pub fn run(options: &BuildOptions, progress: &dyn Progress) -> Result<BuildReport, BuildError> {
    let begun = Instant::now();
    options.database.as_deref().map_or(Ok(()), check_name)?;
    if let Some(key) = &options.signing_key {
        keys::check_place(key, &options.out)?;
    }
    let session = Session::enter(options, progress)?;
    let outcome = session.run(begun);
    progress.end();
    if let Err(error) = &outcome
        && session.discard_after(error)
    {
        session.discard();
    }
    outcome
}

/// What a build's manifest is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// It names shards that the manifest before does not.
    Change,
    /// The same shards, for longer.
    Renewal,
    /// There is none: what is there is kept.
    Nothing,
}

impl Session<'_> {
    fn run(&self, begun: Instant) -> Result<BuildReport, BuildError> {
        let existing = self.existing();
        let mut work = self.decide()?;
        if !work.is_partitioned {
            self.partition(&mut work)?;
        }
        let checks = self.check(&work)?;
        let signing_key = self.options.signing_key.clone();
        let signing_key = signing_key.unwrap_or_else(|| keys::default_path(&self.options.out));
        let key = self.signing_key(&signing_key)?;
        let finished = self.finished(&work, &checks)?;
        let is_whole = finished.iter().all(Option::is_some);
        let mut reused = self.reused(finished.iter().flatten());
        let purpose = match existing {
            Some(old) if is_whole && reused as usize == old.shards.len() => {
                match old.lifetime().is_to_be_renewed(self.lifetime.created) {
                    true => Purpose::Renewal,
                    false => Purpose::Nothing,
                }
            }
            _ => Purpose::Change,
        };
        let mut built = 0;
        if purpose == Purpose::Nothing {
            self.say("Nothing changed: the database is kept as it is.");
            self.work.remove()?;
            self.clean_up(&[])?;
            work.epoch = existing.map_or(work.epoch, |old| old.epoch);
        } else {
            // Where this build's manifest was published before it was interrupted: an epoch has one
            // set of parameters, so a shard lost since then makes a new one.
            if existing.is_some_and(|published| published.epoch == work.epoch) {
                work.epoch += 1;
                self.work.save(&work)?;
            }
            let entries;
            (entries, built) = self.build(&mut work, &checks, finished)?;
            // Fewer, where a shard did not fit the shape and all were built once more.
            reused = reused.min(work.shard_count - built);
            self.publish(&work, entries, &key, purpose)?;
        }
        let shape = work.spec().shape;
        Ok(BuildReport {
            shard_count: work.shard_count,
            built,
            resumed: work.shard_count - built - reused,
            reused,
            records: work.records,
            records_before: existing.map(|old| old.records),
            shape,
            shard_records_min: checks.iter().map(|check| check.records).min().unwrap_or(0),
            epoch: work.epoch,
            renewed: purpose == Purpose::Renewal,
            bytes: file_bytes(&shape) * u64::from(work.shard_count),
            elapsed: begun.elapsed(),
        })
    }

    /// How many of these shards the database that is there has too.
    fn reused<'a>(&self, entries: impl Iterator<Item = &'a ShardEntry>) -> u32 {
        let Some(old) = self.existing() else { return 0 };
        let old: HashSet<_> = old.shards.iter().map(|entry| entry.header_digest.0).collect();
        entries.filter(|entry| old.contains(&entry.header_digest.0)).count() as u32
    }

    /// The second pass: every record to its shard's partition file.
    fn partition(&self, work: &mut WorkFile) -> Result<(), BuildError> {
        let (folder, spool) = (self.work.partitions(), self.work.spool());
        let path = self.input_file().unwrap_or(&spool);
        let input = &self.options.input;
        let changed = || BuildError::InputChanged { path: path.to_owned() };
        let file = File::open(path).map_err(|source| input.unreadable(source))?;
        let writer = PartitionWriter::create(&folder, work.shard_count);
        let mut writer = writer.context("create", &folder)?;
        self.progress.begin(Stage::Partitioning, work.records);
        let (spec, mut records) = (work.spec(), 0u64);
        let mut each = |e: Entry<'_>| {
            records += 1;
            if records.is_multiple_of(1 << 12) {
                self.progress.advance(1 << 12);
            }
            writer.push(spec.locate(e.key), e.line, e.key, e.value)
        };
        let bound = ValueBound { bytes: work.value_bytes_longest, why: "" };
        let outcome = Source::of(file, None)
            .and_then(|source| input::read(source.reader, work.input_format, bound, &mut each));
        match outcome {
            Ok(found) if found.errors.count == 0 && records == work.records => {}
            Ok(_) | Err(ReadError::Unreadable { .. }) => return Err(changed()),
            Err(ReadError::Io(source)) => return Err(input.unreadable(source)),
            Err(ReadError::Entry(error)) => return Err(error).context("write to", &folder),
        }
        if self.input_identity()? != work.input {
            return Err(changed());
        }
        writer.finish().context("write to", &folder)?;
        work.is_partitioned = true;
        self.work.save(work)?;
        gone(fs::remove_file(&spool)).context("remove", &spool)
    }

    /// Looks at every shard's records; duplicates end the build.
    fn check(&self, work: &WorkFile) -> Result<Vec<ShardCheck>, BuildError> {
        let folder = self.work.partitions();
        self.progress.begin(Stage::Checking, work.shard_count.into());
        let all: Vec<u32> = (0..work.shard_count).collect();
        let spec = work.spec();
        let found = self.for_each_shard(work, &all, |shard| {
            let found = self.pool.install(|| check_shard(&folder, shard, &spec));
            self.progress.advance(1);
            found
        })?;
        self.progress.end();
        let mut duplicates = LineErrors::default();
        found.iter().for_each(|(_, some)| duplicates.merge(some));
        if duplicates.count > 0 {
            let name = self.options.input.name();
            return Err(BuildError::Duplicates { name, duplicates });
        }
        let checks: Vec<ShardCheck> = found.into_iter().map(|(check, _)| check).collect();
        if checks.iter().map(|check| check.records).sum::<u64>() != work.records {
            return Err(BuildError::ForeignWork { path: folder });
        }
        Ok(checks)
    }

    fn signing_key(&self, path: &Path) -> Result<SigningKey, BuildError> {
        let key = match (keys::load(path)?, self.existing()) {
            (None, None) => {
                let key = keys::create(path)?;
                self.say(format!(
                    "Made a signing key: {}. Keep it safe and off the servers: whoever has it can \
                     sign databases that your clients accept.",
                    path.display()
                ));
                return Ok(key);
            }
            (None, Some(_)) => return Err(BuildError::OtherOperator { path: path.to_owned() }),
            (Some(key), _) => key,
        };
        self.existing().map_or(Ok(()), |old| keys::check_operator(&key, path, old))?;
        Ok(key)
    }

    /// The manifest, last of all and by rename; then what is not needed any more goes.
    fn publish(
        &self,
        work: &WorkFile,
        entries: Vec<ShardEntry>,
        key: &SigningKey,
        purpose: Purpose,
    ) -> Result<(), BuildError> {
        let existing = self.existing();
        let database = existing.map(|old| &old.database).or(self.options.database.as_ref());
        let head = ManifestHead {
            seed: work.seed.0,
            epoch: work.epoch,
            lifetime: self.lifetime,
            database: database.map_or_else(|| DATABASE_NAME_DEFAULT.to_owned(), String::clone),
            shape: work.spec().shape,
        };
        let manifest = Manifest::sign(&head, entries, key)?;
        let write = |name: &str, bytes: &[u8]| {
            let path = self.options.out.join(name);
            write_atomically(&path, bytes).context("write", &path)
        };
        write("operator.pub", keys::public_pem(key).as_bytes())?;
        // A renewal leaves the manifest before: a rollback is to go back to other content.
        if let Some(old) = existing.filter(|_| purpose == Purpose::Change) {
            write(MANIFEST_PREVIOUS_NAME, &old.to_json())?;
        }
        write(MANIFEST_NAME, &manifest.to_json())?;
        self.work.remove()?;
        self.clean_up(&[])
    }
}
