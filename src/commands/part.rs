//! `sotto part`: the parts of a build that a cluster runs.

use std::fs;
use std::io::{BufReader, BufWriter, stdin};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::value_parser;
use sotto::builder::part::{
    BuildSpec, FinishOptions, Finished, PartError, ShardRecords, SpecWishes, finish, on_threads,
    read_entries,
};
use sotto::builder::{SHRINK_PERCENT_DEFAULT, few_records_warning, keys, lifetime, now};
use sotto::limits;
use sotto::params::ShapeWishes;
use sotto::shard::files::{read_bounded, write_atomically};
use sotto::shard::{Manifest, ManifestHead, ShardEntry};
use sotto::store::{Store, check_files, newest, publish, shard_name};
use sotto::text::{bytes, counted};
use sotto::wire::parameters::PublicParameters;

use super::build::{pack_rows, parse_seed};
use super::running::runtime;
use super::{Ended, out, trusted};

/// The parts of a build that a cluster runs (docs/scale.md): what all shards share, the shard of
/// each key, one shard from its records, and the manifest at the end.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    part: Part,
}

#[derive(clap::Subcommand)]
enum Part {
    Spec(SpecArgs),
    Locate(LocateArgs),
    Encode(EncodeArgs),
    Finish(FinishArgs),
}

/// Prints what all shards of a database share, as JSON: its seed, its number of shards and their
/// shape.
#[derive(clap::Args)]
#[command(group = clap::ArgGroup::new("change").args(["wider", "more_bits"]))]
struct SpecArgs {
    /// Number of records of the database
    #[arg(long, value_name = "N", required_unless_present = "of",
          value_parser = value_parser!(u64).range(1..))]
    records: Option<u64>,
    /// Bytes of the longest value
    #[arg(long, value_name = "BYTES", required_unless_present = "of",
          value_parser = value_parser!(u32).range(0..i64::from(limits::VALUE_BYTES_MAX)))]
    longest_value: Option<u32>,
    /// Number of shards [default: by --records-per-shard]
    #[arg(long, value_name = "N", conflicts_with = "records_per_shard",
          value_parser = value_parser!(u32).range(1..=i64::from(limits::SHARDS_MAX)))]
    shards: Option<u32>,
    /// Records of a shard [default: 1048576]
    #[arg(long, value_name = "N", value_parser = value_parser!(u64).range(1..))]
    records_per_shard: Option<u64>,
    /// By how many percent the records may grow before the shape has to change. Without headroom
    /// ten thousand shards have room for about one percent
    #[arg(long, value_name = "PERCENT", default_value_t = 0,
          value_parser = value_parser!(u32).range(0..=1_000))]
    headroom: u32,
    /// Rows of a pack: a power of two from 128 to 2048 [default: by the number of records]
    #[arg(long, value_name = "N", value_parser = pack_rows)]
    pack_rows: Option<u32>,
    /// Packs of a shard [default: by the number of records]
    #[arg(long, value_name = "N",
          value_parser = value_parser!(u32).range(1..=i64::from(limits::PACKS_MAX)))]
    packs: Option<u32>,
    /// Database seed, 64 hexadecimal digits [default: random]
    #[arg(long, value_name = "HEX", value_parser = parse_seed, conflicts_with = "previous")]
    seed: Option<[u8; 32]>,
    /// Manifest of the database that is there: its seed is kept, and its shape too unless --shards
    /// or --records-per-shard is given
    #[arg(long, value_name = "MANIFEST")]
    previous: Option<PathBuf>,
    /// Change this spec instead of making one
    #[arg(long, value_name = "SPEC", requires = "change", conflicts_with_all = [
        "records", "longest_value", "shards", "records_per_shard", "headroom", "pack_rows", "packs",
        "seed", "previous",
    ])]
    of: Option<PathBuf>,
    /// 64 columns more, after exit code 10
    #[arg(long, requires = "of")]
    wider: bool,
    /// Larger responses, after exit code 11
    #[arg(long, requires = "of")]
    more_bits: bool,
}

/// Prints the shard of each key of standard input, a line each.
#[derive(clap::Args)]
struct LocateArgs {
    /// What `sotto part spec` printed
    #[arg(long, value_name = "SPEC")]
    spec: PathBuf,
}

/// Encodes one shard from the records of standard input and prints a line of JSON for `sotto part
/// finish`.
///
/// The records are CSV with the header `sii,value` or JSON Lines, in any order. All have to belong
/// to the shard, and no two may have the same key. Exit codes: 2 an error, 10 the records need a
/// wider shape, 11 they need larger responses, 12 a record belongs to another shard or repeats a
/// key. Encoding a shard again, or twice at the same time, does no harm.
#[derive(clap::Args)]
struct EncodeArgs {
    /// What `sotto part spec` printed
    #[arg(long, value_name = "SPEC")]
    spec: PathBuf,
    /// Number of the shard
    #[arg(long, value_name = "N")]
    shard: u32,
    /// Folder or store that gets the file, below `shards/`
    #[arg(long, value_name = "DIR|URL")]
    out: String,
    /// Manifest of the database that is there: a shard whose records did not change is not encoded
    /// if its file is there
    #[arg(long, value_name = "MANIFEST")]
    previous: Option<PathBuf>,
    /// Number of threads
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = value_parser!(u16).range(1..=limits::THREADS_MAX as i64))]
    jobs: u16,
}

/// Makes and publishes the manifest, once every shard is encoded.
///
/// Each shard needs an entry and its file. The manifest is the next epoch of the store; it is
/// served once it is announced (`sotto store announce`). Where the signing key is in a KMS,
/// --unsigned writes the bytes to be signed (Ed25519), and the same command with --signature
/// publishes.
#[derive(clap::Args)]
#[command(group = clap::ArgGroup::new("how").args(["signing_key", "unsigned"]).required(true))]
struct FinishArgs {
    /// What `sotto part spec` printed
    #[arg(long, value_name = "SPEC")]
    spec: PathBuf,
    /// What `sotto part encode` printed for all shards; `-` is standard input
    #[arg(long, value_name = "FILE")]
    entries: PathBuf,
    /// Folder or store that has the files and gets the manifest
    #[arg(long, value_name = "DIR|URL")]
    store: String,
    /// Manifest of the epoch before [default: the newest of the store]
    #[arg(long, value_name = "MANIFEST")]
    previous: Option<PathBuf>,
    /// The operator's signing key, Ed25519 as PKCS#8 PEM
    #[arg(long, value_name = "PEM")]
    signing_key: Option<PathBuf>,
    /// File for the bytes to be signed; with --signature the file that has them
    #[arg(long, value_name = "OUT")]
    unsigned: Option<PathBuf>,
    /// The signature of the bytes in --unsigned: 64 bytes
    #[arg(long, value_name = "FILE", requires = "unsigned")]
    signature: Option<PathBuf>,
    /// The operator's public key, for a first epoch that is signed elsewhere [default: that of the
    /// epoch before]
    #[arg(long, value_name = "FILE", conflicts_with = "signing_key")]
    operator_key: Option<PathBuf>,
    /// Name of a new database [default: main]
    #[arg(long, value_name = "NAME")]
    database: Option<String>,
    /// Days for which clients accept the epoch
    #[arg(long, value_name = "DAYS", default_value_t = limits::EXPIRES_DAYS_DEFAULT)]
    expires_days: u32,
    /// Refuse entries that have fewer records than the epoch before by more than this percentage
    #[arg(long, value_name = "PERCENT", default_value_t = SHRINK_PERCENT_DEFAULT,
          value_parser = value_parser!(u8).range(0..=100))]
    shrink_percent: u8,
}

pub(crate) fn run(args: Args) -> Ended {
    let ended = match args.part {
        Part::Spec(args) => spec(&args),
        Part::Locate(args) => locate(&args),
        Part::Encode(args) => encode(&args),
        Part::Finish(args) => publish_manifest(&args),
    };
    // Errors of parts have exit codes of their own.
    let error = match ended.map_err(|error| error.downcast::<PartError>()) {
        Err(Ok(error)) => error,
        Err(Err(other)) => return Err(other),
        Ok(code) => return Ok(code),
    };
    out::failed(&error);
    Ok(ExitCode::from(error.exit_code()))
}

fn spec(args: &SpecArgs) -> Ended {
    let spec = match (&args.of, &args.previous) {
        (Some(path), _) if args.wider => read_spec(path)?.wider()?,
        (Some(path), _) => {
            let more = read_spec(path)?.with_more_bits();
            more.ok_or("no shape has larger responses: use more shards")?
        }
        (None, Some(path))
            if args.shards.or(args.packs).or(args.pack_rows).is_none()
                && args.records_per_shard.is_none() =>
        {
            let kept = BuildSpec::of(&read_manifest(path)?);
            let (longest, room) =
                (args.longest_value.unwrap_or(0), kept.shape.value_len() as u32 - 1);
            if longest > room {
                return Err(format!(
                    "the longest value has {longest} bytes, the database has room for {room}: give \
                     --shards to choose another shape"
                )
                .into());
            }
            kept
        }
        (None, previous) => {
            let previous = previous.as_deref().map(read_manifest).transpose()?;
            BuildSpec::new(&SpecWishes {
                records: args.records.unwrap_or(1),
                longest_value: args.longest_value.unwrap_or(0),
                shards: args.shards,
                records_per_shard: args.records_per_shard,
                headroom_percent: args.headroom,
                seed: args.seed.or(previous.map(|manifest| manifest.seed.0)),
                shape: ShapeWishes { pack_rows: args.pack_rows, packs: args.packs },
            })?
        }
    };
    out::say(spec.to_json())?;
    Ok(ExitCode::SUCCESS)
}

fn locate(args: &LocateArgs) -> Ended {
    let spec = read_spec(&args.spec)?;
    let mut failed = None;
    out::write(|out| match spec.locate_lines(stdin().lock(), BufWriter::new(out)) {
        Ok(_) => Ok(()),
        Err(PartError::Write { source }) => Err(source),
        Err(error) => {
            failed = Some(error);
            Ok(())
        }
    })?;
    failed.map_or(Ok(ExitCode::SUCCESS), |error| Err(error.into()))
}

fn encode(args: &EncodeArgs) -> Ended {
    let spec = read_spec(&args.spec)?;
    let previous = args.previous.as_deref().map(read_manifest).transpose()?;
    let store = Store::create(&args.out)?;
    let runtime = runtime()?;
    let jobs = args.jobs.into();
    let records = on_threads(jobs, || ShardRecords::read(&spec, args.shard, stdin()))??;
    records.warning.iter().for_each(out::complain);
    let known = previous.as_ref().and_then(|manifest| records.unchanged(&spec, manifest));
    if let Some(entry) = known
        && runtime.block_on(store.size(&shard_name(&entry.entry.file)))?.is_some()
    {
        out::say(entry.to_json())?;
        return Ok(ExitCode::SUCCESS);
    }
    let encoded = on_threads(jobs, || records.encode(&spec))??;
    let entry = encoded.part_entry(previous.as_ref());
    let pieces = encoded.into_pieces().into_iter().map(Into::into).collect();
    runtime.block_on(store.put_new(&shard_name(&entry.entry.file), pieces))?;
    out::say(entry.to_json())?;
    Ok(ExitCode::SUCCESS)
}

fn publish_manifest(args: &FinishArgs) -> Ended {
    let spec = read_spec(&args.spec)?;
    let entries = match args.entries.to_str() {
        Some("-") => read_entries(&spec, stdin().lock()),
        _ => {
            let file = fs::File::open(&args.entries)
                .map_err(|error| trusted::in_file(&args.entries, &error))?;
            read_entries(&spec, BufReader::new(file))
        }
    }?;
    let (store, runtime) = (Store::open(&args.store)?, runtime()?);
    let newest = runtime.block_on(newest(&store))?;
    let newest_epoch = newest.as_ref().map_or(0, |manifest| manifest.epoch);
    let given = args.previous.as_deref().map(read_manifest).transpose()?;
    let previous = given.or(newest);
    let options = FinishOptions {
        database: args.database.clone(),
        lifetime: lifetime(now()?, args.expires_days)?,
        newest_epoch,
        shrink_percent: args.shrink_percent,
    };
    let (head, shards, unchanged) = match finish(&spec, entries, previous.as_ref(), &options)? {
        Finished::Next { head, shards, unchanged } => (head, shards, unchanged),
        Finished::Nothing => {
            out::report(format_args!(
                "Nothing changed: epoch {newest_epoch} of {} has the same shards",
                store.place()
            ));
            return Ok(ExitCode::SUCCESS);
        }
    };
    let Some(manifest) = signed(args, head, shards, previous.as_ref())? else {
        return Ok(ExitCode::SUCCESS);
    };
    runtime.block_on(async {
        check_files(&store, &manifest).await?;
        publish(&store, &manifest).await
    })?;
    out::report(format_args!(
        "{}: epoch {}, {} records in {} ({unchanged} unchanged), {}; `sotto store announce --epoch \
         {}` has it served",
        store.place(),
        manifest.epoch,
        manifest.records,
        counted(manifest.shard_count.into(), "shard"),
        bytes(sotto::shard::header::file_bytes(&spec.shape) * u64::from(spec.shard_count)),
        manifest.epoch
    ));
    let few = few_records_warning(manifest.shard_records_min().into(), manifest.shard_count);
    few.into_iter().for_each(out::report);
    Ok(ExitCode::SUCCESS)
}

/// The signed manifest; `None` where the bytes to be signed were written.
fn signed(
    args: &FinishArgs,
    mut head: ManifestHead,
    shards: Vec<ShardEntry>,
    previous: Option<&Manifest>,
) -> Result<Option<Manifest>, Box<dyn std::error::Error>> {
    if let Some(path) = &args.signing_key {
        let key = trusted::load(path)?;
        if let Some(previous) = previous {
            keys::check_operator(&key, path, previous)?;
        }
        return Ok(Some(Manifest::sign(&head, shards, &key).map_err(PartError::from)?));
    }
    let operator_key = match (&args.operator_key, previous) {
        (Some(path), _) => trusted::operator_key(path)?.0,
        (None, Some(previous)) => previous.operator_key.0,
        (None, None) => {
            return Err("a first epoch that is signed elsewhere needs --operator-key".into());
        }
    };
    if previous.is_some_and(|previous| previous.operator_key.0 != operator_key) {
        return Err("--operator-key is another than that of the database that is there".into());
    }
    let unsigned = args.unsigned.as_deref().ok_or("expected --unsigned")?;
    let Some(signature) = &args.signature else {
        let manifest = Manifest::unsigned(&head, shards, operator_key).map_err(PartError::from)?;
        write_atomically(unsigned, &manifest.parameters.0)
            .map_err(|error| format!("cannot write {}: {error}", unsigned.display()))?;
        out::report(format_args!(
            "{}: the {} bytes of epoch {} to be signed (Ed25519, not hashed before)",
            unsigned.display(),
            manifest.parameters.0.len(),
            manifest.epoch
        ));
        return Ok(None);
    };
    // What was signed says from when on; all else has to be what would be signed now.
    let written = read(unsigned, limits::PARAMETERS_REPLY_BYTES_MAX as u64)?;
    let parameters =
        PublicParameters::decode(&written).map_err(|error| trusted::in_file(unsigned, &error))?;
    head.lifetime = parameters.lifetime();
    let manifest = Manifest::unsigned(&head, shards, operator_key).map_err(PartError::from)?;
    if manifest.parameters.0 != written {
        return Err(format!(
            "{} is not what these entries are signed as: entries changed, or another epoch was \
             published since (that file has epoch {}, the next one is {}). Write it again and have \
             it signed",
            unsigned.display(),
            parameters.epoch(),
            manifest.epoch
        )
        .into());
    }
    let found = read(signature, 65)?;
    let found: [u8; 64] = found.try_into().map_err(|found: Vec<u8>| {
        let length = if found.len() > 64 { "more than 64".into() } else { found.len().to_string() };
        format!("{} has {length} bytes, expected the 64 of a signature", signature.display())
    })?;
    let signed = manifest.with_signature(found);
    Ok(Some(signed.map_err(|error| format!("with {}, the manifest {error}", signature.display()))?))
}

fn read(path: &Path, bytes_max: u64) -> Result<Vec<u8>, String> {
    read_bounded(path, bytes_max).map_err(|error| trusted::in_file(path, &error))
}

fn read_spec(path: &Path) -> Result<BuildSpec, Box<dyn std::error::Error>> {
    let text = read(path, limits::SIGNING_KEY_BYTES_MAX)?;
    Ok(BuildSpec::parse(&text).map_err(|error| trusted::in_file(path, &error))?)
}

fn read_manifest(path: &Path) -> Result<Manifest, Box<dyn std::error::Error>> {
    Ok(Manifest::read(path)?)
}
