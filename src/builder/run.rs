//! One build from beginning to end. Read it top to bottom: [`run`] is the table of contents.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::check::{Duplicates, ShardCheck, check_shard};
use super::choose::{self, Choice};
use super::count::{self, Counted};
use super::directory::Directory;
use super::input::{self, Entry, Input, ReadError, ValueBound};
use super::make::{self, MakeError, Spec};
use super::partition::{self, Partition, PartitionWriter};
use super::progress::{self, Progress};
use super::source::{self, Source};
use super::work::{InputIdentity, Journal, JournalLine, Stage, WorkFile};
use super::{BuildError, BuildOptions, DATABASE_NAME_DEFAULT, Existing, IoContext as _, keys};
use crate::arith::Isa;
use crate::keyword::locate_known;
use crate::limits;
use crate::params::Shape;
use crate::shard::files::write_atomically;
use crate::shard::header::{self, file_bytes};
use crate::shard::manifest::{MANIFEST_NAME, MANIFEST_PREVIOUS_NAME};
use crate::shard::write::{self, write_shard};
use crate::shard::{Manifest, ManifestHead, ShardEntry};
use crate::text;
use crate::wire::{Lifetime, SigningKey, hex};

/// What a build ended in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildReport {
    /// Shards of the database.
    pub shard_count: u32,
    /// Shards that were built now.
    pub built: u32,
    /// Shards that an interrupted build had finished.
    pub resumed: u32,
    /// Shards of the epoch before whose records did not change.
    pub reused: u32,
    /// Records in the database.
    pub records: u64,
    /// Records in the epoch before, if there was one.
    pub records_before: Option<u64>,
    /// Sizes of every shard.
    pub shape: Shape,
    /// Records of the emptiest shard.
    pub shard_records_min: u64,
    /// The epoch now.
    pub epoch: u64,
    /// Whether the same content was signed for longer.
    pub renewed: bool,
    /// Bytes of the shard files.
    pub bytes: u64,
    /// File of the operator's key.
    pub signing_key: PathBuf,
    /// How long it took.
    pub elapsed: Duration,
}

/// Builds or rebuilds a database. When it fails on its input or its options, nothing is left
/// behind; when it fails on the disk, what was finished is kept for the next run.
pub fn run(options: &BuildOptions, progress: &dyn Progress) -> Result<BuildReport, BuildError> {
    let begun = Instant::now();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(options.jobs.unwrap_or(0)).build();
    let pool = pool.map_err(|error| BuildError::Threads(error.to_string()))?;
    let created = options.created.map_or_else(now, Ok)?;
    let lifetime = lifetime(created, options.expires_days)?;
    choose::check_name(options)?;
    let failed = |source| count::unreadable(&options.input, source);
    let is_stream = source::is_stream(&options.input).map_err(failed)?;
    let key = options.signing_key.as_deref();
    key.map_or(Ok(()), |key| keys::check_place(key, &options.out))?;
    let directory = Directory::enter(options)?;
    let session =
        Session { options, progress, directory: &directory, pool: &pool, lifetime, is_stream };
    let outcome = session.run(begun);
    progress.end();
    if let Err(error) = &outcome
        && directory.discard_after(error)
    {
        directory.discard();
    }
    outcome
}

struct Session<'a> {
    options: &'a BuildOptions,
    progress: &'a dyn Progress,
    directory: &'a Directory,
    pool: &'a rayon::ThreadPool,
    /// When it begins, and until when clients are to accept what is built.
    lifetime: Lifetime,
    /// Whether the input can be read only once.
    is_stream: bool,
}

/// What a build's manifest is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// It names shards that were not there before.
    Change,
    /// The same shards, for longer.
    Renewal,
    /// There is none: what is there is kept.
    Nothing,
}

/// Why a round of building ended without all shards.
enum Stop {
    /// A shard needs more columns.
    Widen(u32),
    /// A shard needs more response bits.
    MoreBits(u32),
    Error(BuildError),
}

impl Session<'_> {
    fn run(&self, begun: Instant) -> Result<BuildReport, BuildError> {
        let mut work = self.begin()?;
        if work.stage == Stage::Counted {
            self.partition(&mut work)?;
        }
        let checks = self.check(&work)?;
        let key_path = self.key_path();
        let key = self.signing_key(&key_path)?;
        let reusable = self.reusable(&work, &checks);
        let reused = reusable.iter().flatten().count() as u32;
        let purpose = match reused == work.shard_count {
            false => Purpose::Change,
            true if self.is_to_be_renewed() => Purpose::Renewal,
            true => Purpose::Nothing,
        };
        if purpose != Purpose::Nothing && self.epoch_is_taken(&work) {
            work.epoch += 1;
            self.directory.work.save(&work)?;
        }
        let shard_records_min = checks.iter().map(|check| check.records).min().unwrap_or(0);
        let report = |work: &WorkFile, built, resumed| BuildReport {
            shard_records_min,
            renewed: purpose == Purpose::Renewal,
            shard_count: work.shard_count,
            built,
            resumed,
            reused,
            records: work.records,
            records_before: self.directory.existing.as_ref().map(|old| old.records),
            shape: shape_of(work),
            epoch: work.epoch,
            bytes: file_bytes(&shape_of(work)) * u64::from(work.shard_count),
            signing_key: key_path.clone(),
            elapsed: begun.elapsed(),
        };
        if purpose == Purpose::Nothing {
            self.progress.say("Nothing changed: the database is kept as it is.");
            self.directory.work.remove()?;
            let folder = self.directory.shards();
            self.directory.remove_unnamed(None).context("clean up", &folder)?;
            let epoch = self.directory.existing.as_ref().map_or(work.epoch, |old| old.epoch);
            return Ok(BuildReport { epoch, ..report(&work, 0, 0) });
        }
        let (entries, built, resumed) = self.build(&mut work, &checks, reusable)?;
        self.publish(&work, entries, &key, purpose)?;
        Ok(report(&work, built, resumed))
    }

    /// Whether the signature of the database that is there has lived half of its time.
    fn is_to_be_renewed(&self) -> bool {
        let existing = self.directory.existing.as_ref();
        existing.is_some_and(|old| old.lifetime().is_to_be_renewed(self.lifetime.created))
    }

    fn say(&self, line: impl AsRef<str>) {
        self.progress.say(line.as_ref());
    }

    /// The input where it is a file, which can be read again.
    fn input_file(&self) -> Option<&Path> {
        match &self.options.input {
            Input::File(path) if !self.is_stream => Some(path),
            _ => None,
        }
    }

    fn identity(&self, path: &Path) -> Result<InputIdentity, BuildError> {
        InputIdentity::of(path).map_err(|source| count::unreadable(&self.options.input, source))
    }

    /// Goes on with an interrupted build, or counts the input and decides.
    fn begin(&self) -> Result<WorkFile, BuildError> {
        let (options, directory) = (self.options, self.directory);
        let arguments = arguments(options, self.is_stream);
        let input = match self.input_file() {
            Some(path) => Some(self.identity(path)?),
            None => None,
        };
        if let Some(work) = directory.work.load()? {
            let path = directory.work.path().to_owned();
            if work.arguments != arguments {
                let differences = differences(&work.arguments, &arguments);
                return Err(BuildError::OtherArguments { path, differences });
            }
            let now = directory.existing.as_ref().map_or(0, |manifest| manifest.epoch);
            if work.epoch != now + 1 && work.epoch != now {
                return Err(BuildError::ForeignWork { path });
            }
            match self.input_file() {
                Some(path) if work.input != input => {
                    return Err(BuildError::InputChanged { path: path.to_owned() });
                }
                Some(_) => self.say("Going on with the build that was interrupted."),
                None => self.say(format!(
                    "Going on with the build that was interrupted, from the copy it kept of {} \
                     (--restart reads it from its start).",
                    count::name(&options.input)
                )),
            }
            return Ok(work);
        }
        directory.work.remove()?; // of a build that was interrupted while it counted
        directory.work.create()?;
        let existing = directory.existing.as_ref();
        let spool = directory.work.spool();
        let bound = choose::value_bound(options, existing);
        let counted = count::count(&options.input, Some(&spool), bound, self.progress)?;
        self.progress.end();
        let Counted { format, count, warning } = counted;
        warning.iter().for_each(|warning| self.say(warning));
        choose::refuse_loss(options, existing, &count)?;
        let choice = choose::choose(options, existing, &count)?;
        let (records, name) = (count.records, count::name(&options.input));
        let before = existing.map(|old| format!(" (before: {})", old.records)).unwrap_or_default();
        self.say(format!("{records} records in {name}{before}, read as {}.", format.name()));
        self.say(describe(&choice, records));
        if let Some(old) = existing.filter(|old| !splits(old.shard_count, choice.shard_count)) {
            self.say(format!(
                "WARNING: the database had {} shards. Clients that know it accept that number, or \
                 twice that once a year, and refuse {}.",
                old.shard_count, choice.shard_count
            ));
        }
        let epoch = existing.map_or(1, |manifest| manifest.epoch + 1);
        let work = WorkFile::new(arguments, input, format, &choice, &count, epoch);
        // A rebuild knows only after sorting how many shards changed; it asks again then.
        let shards = if existing.is_some() { 0 } else { u64::from(work.shard_count) };
        self.room_for(work.input_bytes + shards * file_bytes(&choice.shape))?;
        directory.work.save(&work)?;
        Ok(work)
    }

    /// An error unless so many bytes are free.
    fn room_for(&self, needed: u64) -> Result<(), BuildError> {
        let path = &self.directory.out;
        let found = free_bytes(path).context("look for room in", path)?;
        if found >= needed {
            return Ok(());
        }
        Err(BuildError::DiskSpace { path: path.clone(), found, needed })
    }

    /// The second pass: every record to its shard's partition file.
    fn partition(&self, work: &mut WorkFile) -> Result<(), BuildError> {
        let folder = self.directory.work.partitions();
        let spool = self.directory.work.spool();
        let path = self.input_file().unwrap_or(&spool);
        let name = count::name(&self.options.input);
        let failed = |source| BuildError::Read { name: name.clone(), source };
        let file = File::open(path).map_err(failed)?;
        let mut writer =
            PartitionWriter::create(&folder, work.shard_count).context("create", &folder)?;
        self.progress.begin(progress::Stage::Partitioning, work.records);
        let (seed, shard_count, mut records) = (work.seed.0, work.shard_count, 0u64);
        let groups = shape_of(work).groups() as u32;
        let mut each = |e: Entry<'_>| {
            records += 1;
            if records.is_multiple_of(1 << 12) {
                self.progress.advance(1 << 12);
            }
            let shard = locate_known(&seed, e.key, shard_count, groups).shard;
            writer.push(shard, e.line, e.key, e.value)
        };
        let bound = ValueBound { bytes: work.value_bytes_longest, why: "" };
        let outcome = Source::of(file, None)
            .and_then(|source| input::read(source.reader, work.input_format, bound, &mut each));
        match outcome {
            Ok(found) if found.errors.count == 0 && records == work.records => {}
            Ok(_) | Err(ReadError::Unreadable { .. }) => {
                return Err(BuildError::InputChanged { path: path.to_owned() });
            }
            Err(ReadError::Io(source)) => return Err(BuildError::Read { name, source }),
            Err(ReadError::Entry(error)) => return Err(error).context("write to", &folder),
        }
        if let Some(counted) = &work.input
            && self.identity(path)? != *counted
        {
            return Err(BuildError::InputChanged { path: path.to_owned() });
        }
        writer.finish().context("write to", &folder)?;
        work.stage = Stage::Partitioned;
        self.directory.work.save(work)?;
        match fs::remove_file(&spool) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).context("remove", &spool)
            }
            _ => Ok(()),
        }
    }

    /// Looks at every shard's records; duplicates end the build.
    fn check(&self, work: &WorkFile) -> Result<Vec<ShardCheck>, BuildError> {
        let folder = self.directory.work.partitions();
        self.progress.begin(progress::Stage::Checking, work.shard_count.into());
        let all: Vec<u32> = (0..work.shard_count).collect();
        let spec = spec_of(work);
        let found = self.for_each_shard(&all, shards_at_once(work, self.pool), |shard| {
            let check = || check_shard(&folder, shard, &spec);
            let found = self.pool.install(check);
            self.progress.advance(1);
            found
        })?;
        self.progress.end();
        let mut duplicates = Duplicates::default();
        found.iter().for_each(|(_, some)| duplicates.merge(some));
        if duplicates.count > 0 {
            let name = count::name(&self.options.input);
            return Err(BuildError::Duplicates { name, duplicates });
        }
        let checks: Vec<ShardCheck> = found.into_iter().map(|(check, _)| check).collect();
        if checks.iter().map(|check| check.records).sum::<u64>() != work.records {
            return Err(BuildError::ForeignWork { path: folder });
        }
        Ok(checks)
    }

    fn key_path(&self) -> PathBuf {
        let options = self.options;
        options.signing_key.clone().unwrap_or_else(|| keys::default_path(&options.out))
    }

    fn signing_key(&self, path: &Path) -> Result<SigningKey, BuildError> {
        let key = match keys::load(path)? {
            Some(key) => key,
            None if self.directory.existing.is_some() => {
                return Err(BuildError::OtherOperator { path: path.to_owned() });
            }
            None => {
                let key = keys::create(path)?;
                self.say(format!(
                    "Made a signing key: {}. Keep it safe and off the servers: whoever has it can \
                     sign databases that your clients accept.",
                    path.display()
                ));
                key
            }
        };
        let public = key.verifying_key().to_bytes();
        if self.directory.existing.as_ref().is_some_and(|old| old.operator_key.0 != public) {
            return Err(BuildError::OtherOperator { path: path.to_owned() });
        }
        Ok(key)
    }

    /// Shards of the database that is there whose records, seed, place and shape are the same.
    fn reusable(&self, work: &WorkFile, checks: &[ShardCheck]) -> Vec<Option<ShardEntry>> {
        let Some(old) = &self.directory.existing else { return vec![None; checks.len()] };
        let same =
            old.seed == work.seed && old.shape == work.shape && old.shards.len() == checks.len();
        if !same {
            return vec![None; checks.len()];
        }
        let folder = self.directory.shards();
        let intact = |entry: &ShardEntry| {
            let read = header::read(&folder.join(&entry.file), &shape_of(work));
            read.is_ok_and(|header| write::entry(&header) == *entry)
        };
        let pairs = old.shards.iter().zip(checks);
        pairs
            .map(|(entry, check)| {
                let same = entry.records_digest.0 == check.digest && entry.records == check.records;
                (same && intact(entry)).then(|| entry.clone())
            })
            .collect()
    }

    /// Whether this build's manifest was published before it was interrupted. An epoch has one set
    /// of parameters, so a shard lost since then makes a new one.
    fn epoch_is_taken(&self, work: &WorkFile) -> bool {
        self.directory.existing.as_ref().is_some_and(|published| published.epoch == work.epoch)
    }

    /// Builds what is missing, with a wider shape as often as a shard asks for one. Returns the
    /// entries of all shards, and how many were built now and before the interruption.
    fn build(
        &self,
        work: &mut WorkFile,
        checks: &[ShardCheck],
        reusable: Vec<Option<ShardEntry>>,
    ) -> Result<(Vec<ShardEntry>, u32, u32), BuildError> {
        let folder = self.directory.shards();
        fs::create_dir_all(&folder).context("create", &folder)?;
        loop {
            let mut entries = reusable.clone();
            let resumed = self.take_journal(work, checks, &mut entries)?;
            self.directory.remove_unnamed(Some(&entries)).context("clean up", &folder)?;
            let missing = |(shard, entry): (usize, &Option<ShardEntry>)| {
                entry.is_none().then_some(shard as u32)
            };
            let todo: Vec<u32> = entries.iter().enumerate().filter_map(missing).collect();
            self.room_for(todo.len() as u64 * file_bytes(&shape_of(work)))?;
            match self.build_round(work, checks, &todo) {
                Ok(built) => {
                    let count = built.len() as u32;
                    for (shard, entry) in todo.into_iter().zip(built) {
                        entries[shard as usize] = Some(entry);
                    }
                    let whole = entries.into_iter().collect::<Option<Vec<_>>>();
                    return Ok((
                        whole.expect("this is a bug: a shard without file"),
                        count,
                        resumed,
                    ));
                }
                Err(Stop::Widen(shard)) => self.widen(work, shard)?,
                Err(Stop::MoreBits(shard)) => self.more_bits(work, shard)?,
                Err(Stop::Error(error)) => return Err(error),
            }
            self.directory.work.save(work)?;
        }
    }

    /// Whether the shape is that of a database that is there, and stays.
    fn shape_is_kept(&self) -> bool {
        self.directory.existing.is_some() && self.options.existing == Existing::Keep
    }

    fn widen(&self, work: &mut WorkFile, shard: u32) -> Result<(), BuildError> {
        if self.shape_is_kept() {
            return Err(BuildError::Outgrown { shard, problem: "it has too many records" });
        }
        let shape = shape_of(work);
        let columns = shape.columns();
        if work.widenings == limits::BUILD_WIDENINGS_MAX {
            return Err(BuildError::Unsolvable { shard, columns });
        }
        let wider = shape.widened().map_err(|_| BuildError::Unsolvable { shard, columns })?;
        work.widenings += 1;
        work.shape = wider.fields();
        let columns = wider.columns();
        self.say(format!("A shard is too full; beginning again with {columns} columns."));
        Ok(())
    }

    fn more_bits(&self, work: &mut WorkFile, shard: u32) -> Result<(), BuildError> {
        if self.shape_is_kept() {
            return Err(BuildError::Outgrown { shard, problem: "it has a row that is too noisy" });
        }
        let more = shape_of(work).with_more_bits().ok_or(BuildError::TooNoisy { shard })?;
        work.shape = more.fields();
        let bits = more.response_bits();
        self.say(format!("A shard's largest row is noisy; beginning again with {bits} bits."));
        Ok(())
    }

    /// Puts the shards that an interrupted build finished into `entries`.
    fn take_journal(
        &self,
        work: &WorkFile,
        checks: &[ShardCheck],
        entries: &mut [Option<ShardEntry>],
    ) -> Result<u32, BuildError> {
        let folder = self.directory.shards();
        let mut taken = 0;
        for JournalLine { shard, shape, entry } in self.directory.work.read_journal()? {
            let Some(check) = checks.get(shard as usize) else { continue };
            let whole = shape == work.shape
                && entry.records_digest.0 == check.digest
                && header::read(&folder.join(&entry.file), &shape_of(work)).is_ok_and(|header| {
                    header.shard_index == shard && write::entry(&header) == entry
                });
            if whole && entries[shard as usize].is_none() {
                entries[shard as usize] = Some(entry);
                taken += 1;
            }
        }
        if taken > 0 {
            self.say(format!("{taken} of {} shards were finished before.", work.shard_count));
        }
        Ok(taken)
    }

    /// Builds the shards of `todo` with the shape as it is.
    fn build_round(
        &self,
        work: &WorkFile,
        checks: &[ShardCheck],
        todo: &[u32],
    ) -> Result<Vec<ShardEntry>, Stop> {
        let shape = shape_of(work);
        let too_full =
            |shard: &&u32| checks[**shard as usize].group_load_max > shape.columns() as u64;
        if let Some(&shard) = todo.iter().find(too_full) {
            return Err(Stop::Widen(shard));
        }
        let spec = spec_of(work);
        let journal = self.directory.work.open_journal().map_err(Stop::Error)?;
        self.progress.begin(progress::Stage::Building, todo.len() as u64);
        let at_once = shards_at_once(work, self.pool);
        let built = self.for_each_shard(todo, at_once, |shard| {
            let entry = self.build_shard(&spec, &journal, shard, &checks[shard as usize])?;
            self.progress.advance(1);
            Ok(entry)
        });
        self.progress.end();
        built
    }

    fn build_shard(
        &self,
        spec: &Spec,
        journal: &Journal,
        shard: u32,
        check: &ShardCheck,
    ) -> Result<ShardEntry, Stop> {
        let path = partition::path(&self.directory.work.partitions(), shard);
        let rows = self.pool.install(|| Partition::read(&path));
        let rows = rows.context("read", &path).map_err(Stop::Error)?;
        let made = self.pool.install(|| make::make(spec, shard, rows, check.digest));
        let made = made.map_err(|error| match error {
            MakeError::NoRibbonSeed => Stop::Widen(shard),
            MakeError::TooNoisy => Stop::MoreBits(shard),
            MakeError::Build(error) => Stop::Error(error),
        })?;
        let folder = self.directory.shards();
        let entry = write_shard(&folder, &made.header, &made.sections());
        let entry = entry.context("write a shard to", &folder).map_err(Stop::Error)?;
        let line = JournalLine { shard, shape: spec.shape.fields(), entry };
        journal.append(&line).map_err(Stop::Error)?;
        Ok(line.entry)
    }

    /// Runs `work` for every shard, `at_once` at a time: bounded memory. Each may use the pool. The
    /// error of the first shard by order of those that failed is returned.
    fn for_each_shard<T: Send, E: Send>(
        &self,
        shards: &[u32],
        at_once: usize,
        work: impl Fn(u32) -> Result<T, E> + Sync,
    ) -> Result<Vec<T>, E> {
        let (next, stopped) = (AtomicUsize::new(0), AtomicBool::new(false));
        let done = Mutex::new(Vec::with_capacity(shards.len()));
        let labour = || {
            while !stopped.load(Ordering::Relaxed) {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(&shard) = shards.get(index) else { break };
                let outcome = work(shard);
                if outcome.is_err() {
                    stopped.store(true, Ordering::Relaxed);
                }
                done.lock().expect("this is a bug: a poisoned lock").push((index, outcome));
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..at_once.min(shards.len()) {
                scope.spawn(labour);
            }
        });
        let mut done = done.into_inner().expect("this is a bug: a poisoned lock");
        done.sort_unstable_by_key(|(index, _)| *index);
        done.into_iter().map(|(_, outcome)| outcome).collect()
    }

    fn head(&self, work: &WorkFile) -> ManifestHead {
        let existing = self.directory.existing.as_ref().map(|old| old.database.clone());
        let database = existing.or_else(|| self.options.database.clone());
        ManifestHead {
            seed: work.seed.0,
            epoch: work.epoch,
            lifetime: self.lifetime,
            database: database.unwrap_or_else(|| DATABASE_NAME_DEFAULT.to_owned()),
            shape: shape_of(work),
        }
    }

    /// The manifest, last of all and by rename; then what is not needed any more goes.
    fn publish(
        &self,
        work: &WorkFile,
        entries: Vec<ShardEntry>,
        key: &SigningKey,
        purpose: Purpose,
    ) -> Result<(), BuildError> {
        let out = &self.directory.out;
        let manifest = Manifest::sign(&self.head(work), entries, key)?;
        let operator = out.join("operator.pub");
        write_atomically(&operator, keys::public_pem(key).as_bytes())
            .context("write", &operator)?;
        let path = out.join(MANIFEST_NAME);
        // A renewal leaves the manifest before: a rollback is to go back to other content.
        let replaced = self.directory.existing.as_ref().filter(|_| purpose == Purpose::Change);
        if let Some(old) = replaced {
            let previous = out.join(MANIFEST_PREVIOUS_NAME);
            write_atomically(&previous, &old.to_json()).context("write", &previous)?;
        }
        write_atomically(&path, &manifest.to_json()).context("write", &path)?;
        self.directory.work.remove()?;
        let folder = self.directory.shards();
        self.directory.remove_unnamed(None).context("clean up", &folder)
    }
}

/// Whether every shard stays or splits in two, as clients accept.
fn splits(before: u32, now: u32) -> bool {
    now == before || before.checked_mul(2) == Some(now)
}

fn shape_of(work: &WorkFile) -> Shape {
    Shape::from_fields(work.shape).expect("this is a bug: work with an unchecked shape")
}

fn spec_of(work: &WorkFile) -> Spec {
    let (seed, shard_count, shape) = (work.seed.0, work.shard_count, shape_of(work));
    Spec { seed, shard_count, shape, isa: Isa::detect() }
}

/// From `created` (unix seconds) for so many days.
pub(super) fn lifetime(created: u64, days: u32) -> Result<Lifetime, BuildError> {
    if !(1..=limits::EXPIRES_DAYS_MAX).contains(&days) {
        let problem =
            format!("--expires-days is {days}, expected 1 to {}", limits::EXPIRES_DAYS_MAX);
        return Err(BuildError::Option { problem });
    }
    Ok(Lifetime { created, expires: created.saturating_add(u64::from(days) * 86_400) })
}

/// Unix seconds, or what SOURCE_DATE_EPOCH says, so that builds can be repeated to the byte.
pub(super) fn now() -> Result<u64, BuildError> {
    let Some(fixed) = std::env::var_os("SOURCE_DATE_EPOCH") else {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        return Ok(since.map_or(0, |since| since.as_secs()));
    };
    fixed.to_str().and_then(|text| text.parse().ok()).ok_or_else(|| BuildError::Option {
        problem: format!("SOURCE_DATE_EPOCH is {fixed:?}, expected seconds since 1970 in digits"),
    })
}

/// Bytes that an ordinary user may still write below a path.
pub(super) fn free_bytes(path: &Path) -> io::Result<u64> {
    let space = rustix::fs::statvfs(path)?;
    Ok(space.f_bavail.saturating_mul(space.f_frsize))
}

/// How many shards fit [`limits::BUILD_MEMORY_BYTES`] at once: one more than threads, so that
/// writing one overlaps with computing others, but at least one.
fn shards_at_once(work: &WorkFile, pool: &rayon::ThreadPool) -> usize {
    let shape = shape_of(work);
    let records = work.records.div_ceil(work.shard_count.into());
    let threads = pool.current_num_threads() as u64;
    // Twice the matrix for the solver, the tables, records as read and as solved.
    let bytes = 2 * shape.matrix_bytes() as u64
        + (shape.packs() * shape.table_bytes()) as u64
        + records * (2 * shape.value_len() as u64 + 200);
    (limits::BUILD_MEMORY_BYTES / bytes.max(1)).clamp(1, threads + 1) as usize
}

fn describe(choice: &Choice, records: u64) -> String {
    let shape = &choice.shape;
    format!(
        "{} of about {} records, each {} rows ({} of {}) by {} columns, {}.",
        text::counted(choice.shard_count.into(), "shard"),
        records / u64::from(choice.shard_count),
        shape.rows(),
        text::counted(shape.packs() as u64, "pack"),
        shape.pack_rows(),
        shape.columns(),
        text::bytes(file_bytes(shape))
    )
}

/// The command line as far as it changes the outcome, for comparing with that of a later run.
fn arguments(options: &BuildOptions, is_stream: bool) -> BTreeMap<String, String> {
    let input = match &options.input {
        Input::File(path) if !is_stream => {
            std::path::absolute(path).unwrap_or_else(|_| path.clone()).display().to_string()
        }
        // One pipe is like the other: `<(zcat x.gz)` has another name each time.
        _ => "-".into(),
    };
    let number = |number: Option<u64>| number.map(|number| number.to_string());
    let key = options.signing_key.as_ref().map(|path| path.display().to_string());
    let reshape = (options.existing == Existing::Reshape).then(|| "given".to_owned());
    let all = [
        ("--input", Some(input)),
        ("--shards", number(options.shards.map(u64::from))),
        ("--records-per-shard", number(options.records_per_shard)),
        ("--value-bytes", number(options.value_bytes.map(u64::from))),
        ("--pack-rows", number(options.wishes.pack_rows.map(u64::from))),
        ("--packs", number(options.wishes.packs.map(u64::from))),
        ("--seed", options.seed.map(|seed| hex::encode(&seed))),
        ("--database", options.database.clone()),
        ("--signing-key", key),
        ("--reshape", reshape),
    ];
    let given = all.into_iter().filter_map(|(flag, value)| Some((flag.to_owned(), value?)));
    given.collect()
}

fn differences(before: &BTreeMap<String, String>, now: &BTreeMap<String, String>) -> String {
    let flags: std::collections::BTreeSet<&String> = before.keys().chain(now.keys()).collect();
    let absent = || "not given".to_owned();
    let differing = flags.into_iter().filter(|flag| before.get(*flag) != now.get(*flag));
    let lines: Vec<String> = differing
        .map(|flag| {
            let was = before.get(flag).cloned().unwrap_or_else(absent);
            let is = now.get(flag).cloned().unwrap_or_else(absent);
            format!("{flag} was {was}, is {is}")
        })
        .collect();
    lines.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_may_only_split_once() {
        for (before, now, fine) in [
            (4, 4, true),
            (4, 8, true),
            (3, 12, false),
            (4, 12, false),
            (4, 2, false),
            (4, 5, false),
        ] {
            assert_eq!(splits(before, now), fine, "{before} to {now}");
        }
    }
}
