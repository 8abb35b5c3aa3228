//! Checking the records of every shard, and building the shards that are not there yet.

use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::errors::{BuildError, IoContext as _};
use super::input::LineErrors;
use super::part::{self, BuildSpec, PartError, ShardCheck};
use super::partition::{self, Partition};
use super::progress::Stage;
use super::session::Session;
use super::work::WorkFile;
use crate::limits;
use crate::shard::ShardEntry;
use crate::shard::header::{self, file_bytes};
use crate::shard::write;

/// Reads one shard's partition file and looks at its records. Also says which lines repeat a key.
pub(super) fn check_shard(
    partitions: &Path,
    shard: u32,
    spec: &BuildSpec,
) -> Result<(ShardCheck, LineErrors), BuildError> {
    let path = partition::path(partitions, shard);
    let rows = Partition::read(&path).context("read", &path)?;
    Ok(part::check(spec, &rows, "line"))
}

/// The shards of a build that are finished: `None` where a shard has no file.
pub(super) type Finished = Vec<Option<ShardEntry>>;

impl Session<'_> {
    /// The shards whose files are there, whoever built them: a file appears whole or not at all,
    /// and its header says of which records, shape and seed it is.
    pub(super) fn finished(
        &self,
        work: &WorkFile,
        checks: &[ShardCheck],
    ) -> Result<Finished, BuildError> {
        let (folder, spec) = (self.shards(), work.spec());
        fs::create_dir_all(&folder).context("create", &folder)?;
        let mut finished = vec![None; checks.len()];
        for file in fs::read_dir(&folder).context("read", &folder)? {
            let file = file.context("read", &folder)?;
            let Ok(header) = header::read(&file.path(), &spec.shape) else { continue };
            let Some(check) = checks.get(header.shard_index as usize) else { continue };
            let entry = write::entry(&header);
            let found = (header.seed, header.shard_count, header.records, header.records_digest);
            if found == (spec.seed, spec.shard_count, check.records, check.digest)
                && header.shape == spec.shape
                && file.file_name() == *entry.file
            {
                finished[header.shard_index as usize] = Some(entry);
            }
        }
        Ok(finished)
    }

    /// Builds what is missing, with a wider shape as often as a shard asks for one. Returns the
    /// entries of all shards, and how many were built.
    pub(super) fn build(
        &self,
        work: &mut WorkFile,
        checks: &[ShardCheck],
        mut finished: Finished,
    ) -> Result<(Vec<ShardEntry>, u32), BuildError> {
        loop {
            self.clean_up(&finished)?;
            let count = finished.iter().flatten().count();
            if count > 0 {
                self.say(format!("{count} of {} shards are finished.", work.shard_count));
            }
            let is_missing = |shard: &u32| finished[*shard as usize].is_none();
            let todo: Vec<u32> = (0..work.shard_count).filter(is_missing).collect();
            self.room_for(todo.len() as u64 * file_bytes(&work.spec().shape))?;
            match self.build_round(work, checks, &todo) {
                Ok(built) => {
                    let built_now = built.len() as u32;
                    for (shard, entry) in todo.into_iter().zip(built) {
                        finished[shard as usize] = Some(entry);
                    }
                    let all = finished.into_iter().collect::<Option<_>>();
                    return Ok((all.expect("this is a bug: a shard without file"), built_now));
                }
                Err((shard, PartError::WiderShape { .. })) => self.widen(work, shard)?,
                Err((shard, PartError::MoreBits { .. })) => self.more_bits(work, shard)?,
                Err((_, PartError::Build(error))) => return Err(error),
                Err((shard, error)) => {
                    let problem = error.to_string();
                    return Err(BuildError::SelfCheck { shard, problem });
                }
            }
            self.work.save(work)?;
            finished = self.finished(work, checks)?;
        }
    }

    /// Whether the shape is that of a database that is there, and stays.
    fn shape_is_kept(&self) -> bool {
        self.existing().is_some() && !self.options.reshape
    }

    fn widen(&self, work: &mut WorkFile, shard: u32) -> Result<(), BuildError> {
        if self.shape_is_kept() {
            return Err(BuildError::Outgrown { shard, problem: "it has too many records" });
        }
        let shape = work.spec().shape;
        let wider = shape.widened().ok().filter(|_| work.widenings < limits::BUILD_WIDENINGS_MAX);
        let wider = wider.ok_or(BuildError::Unsolvable { shard, columns: shape.columns() })?;
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
        let more = work.spec().shape.with_more_bits().ok_or(BuildError::TooNoisy { shard })?;
        work.shape = more.fields();
        let bits = more.response_bits();
        self.say(format!("A shard's largest row is noisy; beginning again with {bits} bits."));
        Ok(())
    }

    /// Builds the shards of `todo` with the shape as it is. An error names its shard.
    fn build_round(
        &self,
        work: &WorkFile,
        checks: &[ShardCheck],
        todo: &[u32],
    ) -> Result<Vec<ShardEntry>, (u32, PartError)> {
        let spec = work.spec();
        todo.iter().try_for_each(|&shard| {
            checks[shard as usize].fits(&spec, shard).map_err(|error| (shard, error))
        })?;
        self.progress.begin(Stage::Building, todo.len() as u64);
        let built = self.for_each_shard(work, todo, |shard| {
            let built = self.build_shard(work, shard, &checks[shard as usize]);
            self.progress.advance(1);
            built.map_err(|error| (shard, error))
        });
        self.progress.end();
        built
    }

    fn build_shard(
        &self,
        work: &WorkFile,
        shard: u32,
        check: &ShardCheck,
    ) -> Result<ShardEntry, PartError> {
        let path = partition::path(&self.work.partitions(), shard);
        let rows = self.pool.install(|| Partition::read(&path)).context("read", &path)?;
        let made = self.pool.install(|| part::encode(&work.spec(), shard, rows, check))?;
        let folder = self.shards();
        Ok(made.write(&folder).context("write a shard to", &folder)?)
    }

    /// Runs `each` for every shard, as many at a time as memory allows. Each may use the pool. The
    /// error of the first shard by order of those that failed is returned.
    pub(super) fn for_each_shard<T: Send, E: Send>(
        &self,
        work: &WorkFile,
        shards: &[u32],
        each: impl Fn(u32) -> Result<T, E> + Sync,
    ) -> Result<Vec<T>, E> {
        let (next, stopped) = (AtomicUsize::new(0), AtomicBool::new(false));
        let done = Mutex::new(Vec::with_capacity(shards.len()));
        let run = || {
            while !stopped.load(Ordering::Relaxed) {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(&shard) = shards.get(index) else { break };
                let outcome = each(shard);
                stopped.fetch_or(outcome.is_err(), Ordering::Relaxed);
                done.lock().expect("this is a bug: a poisoned lock").push((index, outcome));
            }
        };
        let at_once = shards_at_once(work, self.pool.current_num_threads() as u64);
        std::thread::scope(|scope| {
            for _ in 0..at_once.min(shards.len()) {
                scope.spawn(run);
            }
        });
        let mut done = done.into_inner().expect("this is a bug: a poisoned lock");
        done.sort_unstable_by_key(|(index, _)| *index);
        done.into_iter().map(|(_, outcome)| outcome).collect()
    }
}

/// How many shards fit [`limits::BUILD_MEMORY_BYTES`] at once: one more than threads, so that
/// writing one overlaps with computing others, but at least one.
fn shards_at_once(work: &WorkFile, threads: u64) -> usize {
    let shape = work.spec().shape;
    let records = work.records.div_ceil(work.shard_count.into());
    // Twice the matrix for the solver, the tables, records as read and as solved.
    let bytes = 2 * shape.matrix_bytes() as u64
        + (shape.packs() * shape.table_bytes()) as u64
        + records * (2 * shape.value_len() as u64 + 200);
    (limits::BUILD_MEMORY_BYTES / bytes.max(1)).clamp(1, threads + 1) as usize
}
