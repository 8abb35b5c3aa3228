//! The first step of a build: going on with one that was interrupted, or counting the input and
//! deciding seed, number of shards and shape.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use super::choose;
use super::count::{self, Count};
use super::errors::{BuildError, IoContext as _};
use super::options::BuildOptions;
use super::part::BuildSpec;
use super::session::Session;
use super::work::{WORK_VERSION, WorkFile};
use crate::shard::header::file_bytes;
use crate::text::{bytes, counted};
use crate::wire::hex::{self, Hex};

impl Session<'_> {
    pub(super) fn decide(&self) -> Result<WorkFile, BuildError> {
        let arguments = arguments(self);
        match self.work.load()? {
            Some(work) => self.go_on(work, &arguments),
            None => self.begin(arguments),
        }
    }

    fn go_on(
        &self,
        work: WorkFile,
        arguments: &BTreeMap<String, String>,
    ) -> Result<WorkFile, BuildError> {
        let path = self.work.path.clone();
        if work.arguments != *arguments {
            let differences = differences(&work.arguments, arguments);
            return Err(BuildError::OtherArguments { path, differences });
        }
        let epoch = self.existing().map_or(0, |manifest| manifest.epoch);
        if work.epoch != epoch + 1 && work.epoch != epoch {
            return Err(BuildError::ForeignWork { path });
        }
        let identity = self.input_identity()?;
        match self.input_file() {
            Some(path) if work.input != identity => {
                return Err(BuildError::InputChanged { path: path.to_owned() });
            }
            Some(_) => self.say("Going on with the build that was interrupted."),
            None => self.say(format!(
                "Going on with the build that was interrupted, from the copy it kept of {} \
                 (--restart reads it from its start).",
                self.options.input.name()
            )),
        }
        Ok(work)
    }

    fn begin(&self, arguments: BTreeMap<String, String>) -> Result<WorkFile, BuildError> {
        let (options, folder, existing) = (self.options, &self.work, self.existing());
        let input = self.input_identity()?; // before it is read
        folder.remove()?; // of a build that was interrupted while it counted
        fs::create_dir_all(&folder.path).context("create", &folder.path)?;
        let bound = choose::value_bound(options, existing);
        let count = count::count(&options.input, Some(&folder.spool()), bound, self.progress)?;
        self.progress.end();
        count.warning.iter().for_each(|warning| self.say(warning));
        choose::refuse_loss(options, existing, &count)?;
        let spec = choose::choose(options, existing, &count)?;
        let BuildSpec { seed, shard_count, shape } = spec;
        let Count { format, records, value_bytes_longest, entry_bytes, .. } = count;
        let name = options.input.name();
        let before = existing.map(|old| format!(" (before: {})", old.records)).unwrap_or_default();
        self.say(format!("{records} records in {name}{before}, read as {}.", format.name()));
        self.say(describe(&spec, records));
        if let Some(old) = existing.filter(|old| !splits(old.shard_count, shard_count)) {
            self.say(format!(
                "WARNING: the database had {} shards. Clients that know it accept that number, or \
                 twice that once a year, and refuse {shard_count}.",
                old.shard_count
            ));
        }
        // A rebuild knows only after sorting how many shards changed; it asks again then.
        let shards = if existing.is_some() { 0 } else { u64::from(shard_count) };
        self.room_for(entry_bytes + shards * file_bytes(&shape))?;
        let work = WorkFile {
            version: WORK_VERSION,
            arguments,
            input,
            input_format: format,
            seed: Hex(seed),
            shape: shape.fields(),
            widenings: 0,
            shard_count,
            records,
            value_bytes_longest,
            epoch: existing.map_or(1, |manifest| manifest.epoch + 1),
            is_partitioned: false,
        };
        folder.save(&work)?;
        Ok(work)
    }
}

/// Whether every shard stays or splits in two, as clients accept.
fn splits(before: u32, now: u32) -> bool {
    now == before || before.checked_mul(2) == Some(now)
}

fn describe(spec: &BuildSpec, records: u64) -> String {
    let shape = &spec.shape;
    format!(
        "{} of about {} records, each {} rows ({} of {}) by {} columns, {}.",
        counted(spec.shard_count.into(), "shard"),
        records / u64::from(spec.shard_count),
        shape.rows(),
        counted(shape.packs() as u64, "pack"),
        shape.pack_rows(),
        shape.columns(),
        bytes(file_bytes(shape))
    )
}

/// The command line as far as it changes the outcome, for comparing with that of a later run.
fn arguments(session: &Session<'_>) -> BTreeMap<String, String> {
    let BuildOptions { shards, value_bytes, wishes, .. } = *session.options;
    let options = session.options;
    // One pipe is like the other: `<(zcat x.gz)` has another name each time.
    let input = session.input_file().map_or("-".into(), |path| {
        std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string()
    });
    let number = |number: Option<u32>| number.map(|number| number.to_string());
    let all = [
        ("--input", Some(input)),
        ("--shards", number(shards)),
        ("--value-bytes", number(value_bytes)),
        ("--pack-rows", number(wishes.pack_rows)),
        ("--packs", number(wishes.packs)),
        ("--seed", options.seed.map(|seed| hex::encode(&seed))),
        ("--database", options.database.clone()),
        ("--signing-key", options.signing_key.as_ref().map(|path| path.display().to_string())),
        ("--reshape", options.reshape.then(|| "given".to_owned())),
    ];
    all.into_iter().filter_map(|(flag, value)| Some((flag.to_owned(), value?))).collect()
}

fn differences(before: &BTreeMap<String, String>, now: &BTreeMap<String, String>) -> String {
    let flags: BTreeSet<&String> = before.keys().chain(now.keys()).collect();
    let value = |of: &BTreeMap<String, String>, flag| {
        of.get(flag).cloned().unwrap_or_else(|| "not given".to_owned())
    };
    let differing = flags.into_iter().filter(|flag| before.get(*flag) != now.get(*flag));
    let lines: Vec<String> = differing
        .map(|flag| format!("{flag} was {}, is {}", value(before, flag), value(now, flag)))
        .collect();
    lines.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_may_only_split_once() {
        let fine = |before| (1..16).filter(|&now| splits(before, now)).collect::<Vec<_>>();
        assert_eq!((fine(3), fine(4)), (vec![3, 6], vec![4, 8]));
    }
}
