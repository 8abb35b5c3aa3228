//! From signed statements to signed records: `sotto records make`.
//!
//! Three steps, each of which can be killed and goes on when the same command is started again:
//! [`check`] reads all files and puts what it accepts into buckets by identifier, [`make`] turns a
//! bucket into records by the rules of [`resolve`], and [`collect`] puts the sorted parts together.
//! Memory is bounded by the size of a bucket, whatever the size of the input.
//!
//! The records depend on the statements, the directory, the options and the minute, and on nothing
//! else: neither on the order of files and lines nor on the number of threads. One key never seals
//! two texts in the same minute ([`work`]). What becomes of the records is not decided here:
//! `sotto build` takes them, and needs no key for it.

mod cache;
mod check;
mod collect;
mod errors;
mod input;
mod make;
mod partition;
mod report;
mod resolve;
mod row;
#[cfg(test)]
mod tests;
mod work;

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ed25519_dalek::SigningKey;
use indicatif::ProgressBar;
use sha2::{Digest as _, Sha256};

use self::check::Rules;
use self::errors::IoContext as _;
pub use self::errors::MergeError;
use self::make::{Maker, Part, Times};
pub use self::report::{Counts, Tally};
pub use self::work::Time;
use self::work::{Checked, Run, State, VERSION, WorkDir, identity, minute_start, temporary};
use super::blind::BlindKey;
use super::directory::{Database, Directory};
use super::filter::{self, Signing, Written};
use super::jws;
use super::record;
use crate::limits::RECORD_VALUE_BYTES_MIN;

/// Bytes of the value field when no option says how many: three services and a preference fit.
pub const VALUE_BYTES_DEFAULT: usize = 248;

/// What to make records of, and how.
#[allow(missing_docs)] // Names say it.
pub struct Options<'a> {
    pub directory: &'a Directory,
    /// Name of the database in the directory.
    pub database: &'a str,
    pub record_key: &'a SigningKey,
    /// `None` to leave values unsealed, under the identifiers themselves.
    pub blind: Option<&'a BlindKey>,
    /// Bytes of the value field; the longest value is one byte shorter.
    pub value_bytes: usize,
    pub time: Time,
    /// Folder for what a run needs and leaves for the next; see [`work`].
    pub work: &'a Path,
    pub out: &'a Path,
    /// File for the statements without effect.
    pub report: Option<&'a Path>,
    /// The routing filter over the records.
    pub filter: Option<FilterOptions<'a>>,
    pub files: &'a [PathBuf],
}

/// The routing filter to write beside the records.
#[derive(Clone, Copy)]
#[allow(missing_docs)] // Names say it.
pub struct FilterOptions<'a> {
    pub path: &'a Path,
    /// The operator's key, which signs the parameters of the database too.
    pub key: &'a SigningKey,
    /// The epoch that `sotto build` gives the database with these records.
    pub epoch: u64,
}

/// What was made.
#[derive(Debug, Clone)]
#[allow(missing_docs)] // Names say it.
pub struct Summary {
    pub tally: Tally,
    /// Seconds since 1970, at the start of a minute.
    pub issued: u64,
    /// Root of the Merkle tree (RFC 9162) over the accepted statements, sorted by hash.
    pub merkle_root: [u8; 32],
    /// The routing filter, if one was asked for.
    pub filter: Option<Written>,
    /// Whether it went on with a run that was interrupted.
    pub resumed: bool,
    /// What each step of this run took.
    pub times: Vec<(&'static str, Duration)>,
}

/// Makes records of statements.
///
/// # Errors
/// Why there are none. Statements that are refused are no error; the report tells of them.
pub fn run(options: &Options<'_>, bar: &ProgressBar) -> Result<Summary, MergeError> {
    let database = database(options)?;
    let work = WorkDir::enter(options.work)?;
    let state = work.state()?;
    let scope = scope(options);
    if state.as_ref().is_some_and(|state| state.scope != scope || state.version != VERSION) {
        return Err(MergeError::OtherWork { path: options.work.to_owned() });
    }
    let arguments = arguments(options)?;
    let interrupted = work.interrupted(&arguments.with_files, options.time)?;
    let resumed = interrupted.is_some();
    let mut run = match interrupted {
        Some(run) => run,
        None => begin(options, &work, &arguments)?,
    };
    let issued = record::minute_of(run.now).ok_or(MergeError::Time(run.now))?;
    check_minute(state.as_ref(), issued).or_else(|refused| given_up(&work, refused))?;
    let signer = signer(options, database, run.now)?;

    let mut times = Vec::new();
    let begun = Instant::now();
    let checked = match run.checked.take() {
        Some(checked) => checked,
        None => {
            let rules = Rules {
                directory: options.directory,
                database,
                now: run.now,
                bucket_count: run.bucket_count,
            };
            let checked = check_all(options, rules, &work, bar, &arguments)?;
            run.checked = Some(checked.clone());
            work.save_run(&run)?;
            checked
        }
    };
    times.push(("checking statements", begun.elapsed()));
    let digest = arguments.digest(&checked.content, run.now);
    let next = State { version: VERSION, scope, issued, digest, batches: checked.batches };
    commit(&work, options.directory, state, next).or_else(|refused| given_up(&work, refused))?;
    cache::keep_only(&work, run.bucket_count)?;

    let maker = Maker {
        region: &database.region,
        key: options.record_key,
        signer,
        blind: options.blind,
        value_bytes_max: options.value_bytes - 1,
        now: run.now,
        issued,
        bucket_count: run.bucket_count,
        files: options.files.iter().map(|path| path.display().to_string()).collect(),
    };
    let mut tally = checked.tally;
    make_all(&maker, &work, bar, &mut tally, &mut times)?;

    let begun = Instant::now();
    let merkle_root = put_out(options, &work, run.bucket_count)?;
    let filter = options.filter.map(|filter| put_filter(options, filter)).transpose()?;
    work.clear()?;
    times.push(("putting records in order", begun.elapsed()));
    Ok(Summary { tally, issued: run.now, merkle_root, filter, resumed, times })
}

/// Checks the options against the directory.
fn database<'a>(options: &Options<'a>) -> Result<&'a Database, MergeError> {
    if options.files.is_empty() {
        return Err(MergeError::NoFiles);
    }
    if options.value_bytes < RECORD_VALUE_BYTES_MIN {
        return Err(MergeError::ValueBytes { found: options.value_bytes });
    }
    let id = options.database.to_owned();
    let Some(database) = options.directory.database(options.database) else {
        return Err(MergeError::NoDatabase(id));
    };
    if let Some(filter) = options.filter {
        if options.blind.is_none() {
            return Err(MergeError::FilterOfPlain);
        }
        if *database.operator_key.verifying_key() != filter.key.verifying_key() {
            return Err(MergeError::FilterKey { database: id });
        }
    }
    match (&database.blinding_key, options.blind) {
        (Some(_), None) => Err(MergeError::NotBlinded { database: id }),
        (Some(key), Some(blind)) if key.0 == blind.public_key() => Ok(database),
        (_, Some(_)) => Err(MergeError::BlindingKey { database: id }),
        (None, None) => Ok(database),
    }
}

/// The index of the record key, which must be in force.
fn signer(options: &Options<'_>, database: &Database, now: u64) -> Result<u32, MergeError> {
    let public = options.record_key.verifying_key();
    let is_ours = |key: &&super::directory::RecordKey| {
        *key.key.verifying_key() == public && key.validity.contains(now)
    };
    let found = database.record_keys.iter().find(is_ours);
    let none = || MergeError::RecordKey { database: database.id.clone() };
    found.map(|key| key.index).ok_or_else(none)
}

/// Whose seals a work folder guards.
fn scope(options: &Options<'_>) -> String {
    let blind = options.blind.map(|blind| jws::base64url(&blind.public_key()));
    format!("{} {}", options.database, blind.as_deref().unwrap_or("plain"))
}

/// Digests of what a run is told.
struct Arguments {
    /// All that decides the records, but for the content of the files.
    options: Sha256,
    /// The identities of the files, in the order of the command line.
    identities: Vec<String>,
    /// Tells whether an interrupted run is this one.
    with_files: String,
}

fn arguments(options: &Options<'_>) -> Result<Arguments, MergeError> {
    // The content of a directory is JSON.
    let directory = serde_json::to_vec(options.directory.content()).map_err(io::Error::other);
    let directory = directory.context("read", Path::new("the directory"))?;
    let fixed = Sha256::new()
        .chain_update(format!("sotto records {VERSION}\0{}\0", scope(options)))
        .chain_update(options.record_key.verifying_key().as_bytes())
        .chain_update((options.value_bytes as u64).to_le_bytes())
        .chain_update(directory);
    let identities: Vec<String> = identities(options)?;
    let mut with_files = fixed.clone();
    for (path, identity) in options.files.iter().zip(&identities) {
        with_files.update(path.as_os_str().as_encoded_bytes());
        with_files.update(format!("\0{identity}\0"));
    }
    let with_files = jws::base64url(&with_files.finalize());
    Ok(Arguments { options: fixed, identities, with_files })
}

impl Arguments {
    /// Digest of all that decides the records.
    fn digest(&self, content: &str, now: u64) -> String {
        let all = self.options.clone().chain_update(format!("{content}\0{now}"));
        jws::base64url(&all.finalize())
    }
}

fn identities(options: &Options<'_>) -> Result<Vec<String>, MergeError> {
    options.files.iter().map(|path| identity(path).context("read", path)).collect()
}

/// Begins a run, in place of one that may have been interrupted.
fn begin(options: &Options<'_>, work: &WorkDir, arguments: &Arguments) -> Result<Run, MergeError> {
    work.clear()?;
    let mut bytes = 0;
    for path in options.files {
        bytes += fs::metadata(path).context("read", path)?.len();
    }
    let (Time::Clock(now) | Time::Given(now)) = options.time;
    let run = Run {
        version: VERSION,
        arguments: arguments.with_files.clone(),
        now: minute_start(now),
        bucket_count: partition::bucket_count(bytes),
        checked: None,
    };
    work.save_run(&run)?;
    Ok(run)
}

fn check_all(
    options: &Options<'_>,
    rules: Rules<'_>,
    work: &WorkDir,
    bar: &ProgressBar,
    arguments: &Arguments,
) -> Result<Checked, MergeError> {
    let sources = input::sources(options.files, options.directory, rules.now)?;
    let mut bytes = 0;
    for path in options.files {
        bytes += fs::metadata(path).context("read", path)?.len();
    }
    begin_bar(bar, "checking statements (bytes)", bytes);
    let checked = check::check(&sources, rules, work, bar)?;
    for ((path, before), after) in
        options.files.iter().zip(&arguments.identities).zip(identities(options)?)
    {
        if *before != after {
            return Err(MergeError::InputChanged { path: path.clone() });
        }
    }
    Ok(checked)
}

/// Refuses a minute before the last one that sealed records.
fn check_minute(state: Option<&State>, issued: u32) -> Result<(), MergeError> {
    match state {
        Some(state) if issued < state.issued => Err(MergeError::OlderMinute {
            last: record::time_of(state.issued),
            now: record::time_of(issued),
        }),
        _ => Ok(()),
    }
}

/// Notes, before anything is sealed, what this minute seals. Nothing else may be sealed in it. What
/// an issuer had in an earlier run may not be missing now, unless it left the directory.
fn commit(
    work: &WorkDir,
    directory: &Directory,
    state: Option<State>,
    mut next: State,
) -> Result<(), MergeError> {
    let Some(state) = state else { return work.save_state(&next) };
    if state.issued == next.issued {
        return if state.digest == next.digest { Ok(()) } else { Err(MergeError::SameMinute) };
    }
    for (issuer, expected) in state.batches {
        let last = next.batches.entry(issuer.clone()).or_default();
        if *last < expected && directory.issuer_of(&issuer).is_some() {
            return Err(MergeError::BatchesMissing { issuer, found: *last, expected });
        }
        *last = expected.max(*last);
    }
    work.save_state(&next)
}

/// Removes a run whose minute is refused, so that the next one does not go on with that minute.
fn given_up(work: &WorkDir, refused: MergeError) -> Result<(), MergeError> {
    work.clear()?;
    Err(refused)
}

/// Makes the records of all buckets that are not finished.
fn make_all(
    maker: &Maker<'_>,
    work: &WorkDir,
    bar: &ProgressBar,
    tally: &mut Tally,
    times: &mut Vec<(&'static str, Duration)>,
) -> Result<(), MergeError> {
    begin_bar(bar, "making records (buckets)", u64::from(maker.bucket_count));
    let mut spent = Times::default();
    for bucket in 0..maker.bucket_count {
        let made = match Part::of(work, bucket).tally() {
            Some(made) => made,
            None => maker.make(work, bucket, &mut spent)?,
        };
        tally.add(&made);
        bar.inc(1);
    }
    times.push(("applying the rules", spent.resolving));
    times.push(("deriving keys", spent.deriving));
    times.push(("signing and sealing", spent.signing));
    times.push(("reading and writing buckets", spent.files));
    Ok(())
}

/// Puts the output and the report in place. Returns the Merkle root.
fn put_out(
    options: &Options<'_>,
    work: &WorkDir,
    bucket_count: u32,
) -> Result<[u8; 32], MergeError> {
    let parts: Vec<Part> = (0..bucket_count).map(|bucket| Part::of(work, bucket)).collect();
    if let Some(report) = options.report {
        let findings = parts.iter().map(|part| part.findings.clone());
        let files: Vec<PathBuf> = std::iter::once(work.refused()).chain(findings).collect();
        let copy = |out: &mut BufWriter<File>| {
            files.iter().try_for_each(|path| io::copy(&mut File::open(path)?, out).map(|_| ()))
        };
        put_file(report, copy).context("write", report)?;
    }
    let records: Vec<PathBuf> = parts.iter().map(|part| part.records.clone()).collect();
    let write = |out: &mut BufWriter<File>| {
        out.write_all(b"sii,value\n")?;
        collect::merge_lines(&records, out)
    };
    put_file(options.out, write).context("write", options.out)?;
    let leaves: Vec<PathBuf> = parts.iter().map(|part| part.leaves.clone()).collect();
    collect::merkle_root(&leaves).context("read", work.path())
}

/// Puts the filter over the records that were put out in place.
fn put_filter(
    options: &Options<'_>,
    FilterOptions { path, key, epoch }: FilterOptions<'_>,
) -> Result<Written, MergeError> {
    let signing = Signing { database: options.database, epoch, key };
    let records = File::open(options.out).context("open", options.out)?;
    let records = BufReader::with_capacity(1 << 20, records);
    let written = put_file(path, |out| filter::write(records, &signing, out));
    written.map_err(|source| MergeError::Filter { path: path.to_owned(), source })
}

fn put_file<T, E: From<io::Error>>(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> Result<T, E>,
) -> Result<T, E> {
    let temporary = temporary(path);
    let mut out = BufWriter::with_capacity(1 << 20, File::create(&temporary)?);
    let written = write(&mut out)?;
    let file = out.into_inner().map_err(io::Error::from)?;
    work::put_in_place(&file, &temporary, path)?;
    Ok(written)
}

fn begin_bar(bar: &ProgressBar, what: &'static str, length: u64) {
    bar.reset();
    bar.set_length(length);
    bar.set_message(what);
}
