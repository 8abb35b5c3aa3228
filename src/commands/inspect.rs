//! `sotto inspect`: what a database is, from its manifest and headers.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;
use sotto::params::Shape;
use sotto::shard::Database;
use sotto::shard::header::file_bytes;
use sotto::text::{bytes, counted};
use sotto::wire::hex;

use super::{Ended, out};

/// Prints the shape, noise margin, sizes and epoch of a database.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Directory of the database
    #[arg(value_name = "DIR")]
    db: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What the headers say of all shards together.
struct Extremes {
    records_min: u64,
    records_max: u64,
    row_square_sum_max: u64,
}

impl Extremes {
    fn of(database: &Database) -> Self {
        let mut out = Self { records_min: u64::MAX, records_max: 0, row_square_sum_max: 0 };
        for index in 0..database.shard_count() {
            let Some(shard) = database.shard(index) else { continue };
            let header = shard.header();
            out.records_min = out.records_min.min(header.records);
            out.records_max = out.records_max.max(header.records);
            out.row_square_sum_max = out.row_square_sum_max.max(header.row_square_sum_max);
        }
        out
    }

    /// Logarithm (base 2) of a record's failure probability in the noisiest row there is.
    fn log2_failure(&self, shape: &Shape) -> f64 {
        shape.log2_failure_for(self.row_square_sum_max as f64)
    }
}

/// Runs the command.
pub(crate) fn run(args: Args) -> Ended {
    let database = Database::open(&args.db)?;
    let extremes = Extremes::of(&database);
    let json = || serde_json::to_string_pretty(&json(&database, &extremes));
    out::say(if args.json { json()? } else { text(&database, &extremes) })?;
    Ok(ExitCode::SUCCESS)
}

/// How many records the shape is meant for; some percent more may fit.
fn room(shape: &Shape, shard_count: u32) -> u64 {
    shape.records_expected() * u64::from(shard_count)
}

fn json(database: &Database, extremes: &Extremes) -> serde_json::Value {
    let (shape, manifest) = (database.shape(), database.manifest());
    json!({
        "seed": manifest.seed,
        "epoch": manifest.epoch,
        "database": manifest.database,
        "created": manifest.created,
        "expires": manifest.expires,
        "operator_key": manifest.operator_key,
        "records": manifest.records,
        "records_expected": room(shape, manifest.shard_count),
        "shard_count": manifest.shard_count,
        "records_per_shard_min": extremes.records_min,
        "records_per_shard_max": extremes.records_max,
        "shape": manifest.shape,
        "shard_file_bytes": file_bytes(shape),
        "matrix_bytes": shape.matrix_bytes(),
        "tables_bytes": shape.packs() * shape.table_bytes(),
        "hints_bytes": shape.packs() * shape.hint_bytes(),
        "database_bytes": file_bytes(shape) * u64::from(manifest.shard_count),
        "query_bytes": shape.query_bytes(),
        "response_bytes": shape.packs() * shape.response_bytes(),
        "bundle_bytes": shape.bundle_bytes(),
        "log2_failure_expected": shape.log2_failure(),
        "log2_failure_largest_row": extremes.log2_failure(shape),
    })
}

fn text(database: &Database, extremes: &Extremes) -> String {
    let (shape, manifest) = (database.shape(), database.manifest());
    let packs = shape.packs();
    let lines = [
        ("seed", hex::encode(&manifest.seed.0)),
        ("operator key", hex::encode(&manifest.operator_key.0)),
        ("database", manifest.database.clone()),
        ("epoch", manifest.epoch.to_string()),
        (
            "lifetime",
            format!(
                "signed at unix second {}, accepted by clients until {}",
                manifest.created, manifest.expires
            ),
        ),
        (
            "records",
            format!("{} (meant for about {})", manifest.records, room(shape, manifest.shard_count)),
        ),
        (
            "shards",
            format!(
                "{} of {} to {} records",
                manifest.shard_count, extremes.records_min, extremes.records_max
            ),
        ),
        (
            "shape",
            format!(
                "{} rows ({} of {}) by {} columns, {} groups, value field {} bytes",
                shape.rows(),
                counted(packs as u64, "pack"),
                shape.pack_rows(),
                shape.columns(),
                shape.groups(),
                shape.value_len()
            ),
        ),
        ("bits", format!("{} response, {} hint", shape.response_bits(), shape.hint_bits())),
        (
            "noise",
            format!(
                "a record fails once in 2^{:.1} (expected), 2^{:.1} (largest row), at most 2^40 \
                 allowed",
                -shape.log2_failure(),
                -extremes.log2_failure(shape)
            ),
        ),
        (
            "a shard",
            format!(
                "{}: matrix {}, tables {}, hints {}",
                bytes(file_bytes(shape)),
                bytes(shape.matrix_bytes() as u64),
                bytes((packs * shape.table_bytes()) as u64),
                bytes((packs * shape.hint_bytes()) as u64)
            ),
        ),
        ("all shards", bytes(file_bytes(shape) * u64::from(manifest.shard_count))),
        (
            "a query",
            format!(
                "{} up, {} down, key bundle {}",
                bytes(shape.query_bytes() as u64),
                bytes((packs * shape.response_bytes()) as u64),
                bytes(shape.bundle_bytes() as u64)
            ),
        ),
    ];
    lines.map(|(name, text)| format!("{name:<13} {text}")).join("\n")
}
