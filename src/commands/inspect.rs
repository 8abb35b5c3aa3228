//! `sotto inspect`: what a database is, from its manifest and headers.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::{Value, json};
use sotto::shard::Database;
use sotto::shard::header::file_bytes;
use sotto::text::bytes;

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

pub(crate) fn run(args: Args) -> Ended {
    let facts = facts(&Database::open(&args.db)?);
    out::say(if args.json { serde_json::to_string_pretty(&facts)? } else { text(&facts) })?;
    Ok(ExitCode::SUCCESS)
}

fn facts(database: &Database) -> Value {
    let (shape, manifest) = (database.shape(), database.manifest());
    let headers: Vec<_> = database.shards().map(|shard| shard.header()).collect();
    let records = || headers.iter().map(|header| header.records);
    let largest_row = headers.iter().map(|header| header.row_square_sum_max).max().unwrap_or(0);
    json!({
        "seed": manifest.seed,
        "epoch": manifest.epoch,
        "database": manifest.database,
        "created": manifest.created,
        "expires": manifest.expires,
        "operator_key": manifest.operator_key,
        "records": manifest.records,
        "records_expected": shape.records_expected() * u64::from(manifest.shard_count),
        "shard_count": manifest.shard_count,
        "records_per_shard_min": records().min(),
        "records_per_shard_max": records().max(),
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
        "log2_failure_largest_row": shape.log2_failure_for(largest_row as f64),
    })
}

/// A line for each of them; times are unix seconds.
fn text(facts: &Value) -> String {
    let line = |(name, value): (&String, &Value)| {
        let value = match (value, value.as_u64()) {
            (Value::String(text), _) => text.clone(),
            (_, Some(count)) if name.ends_with("_bytes") => bytes(count),
            _ => value.to_string(),
        };
        format!("{name:<25} {value}")
    };
    facts.as_object().into_iter().flatten().map(line).collect::<Vec<_>>().join("\n")
}
