//! What a build would make, before it is made. Reads the input, writes nothing.

use std::path::Path;

use super::choose;
use super::count;
use super::errors::BuildError;
use super::options::BuildOptions;
use super::part::BuildSpec;
use super::progress::Progress;
use super::session::{self, free_bytes};
use crate::limits;
use crate::params::{Shape, ShapeWishes};
use crate::shard::header::file_bytes;
use crate::text::bytes;

/// Numbers of packs that are shown beside the one of the build.
const PACKS_SHOWN: [u32; 3] = [4, 8, 16];

/// Counts the input and decides as a build would. Returns text for people.
pub fn plan(options: &BuildOptions, progress: &dyn Progress) -> Result<String, BuildError> {
    let existing = session::existing(&options.out)?;
    let existing = existing.as_ref();
    let bound = choose::value_bound(options, existing);
    let count = count::count(&options.input, None, bound, progress);
    progress.end();
    let count = count?;
    choose::refuse_loss(options, existing, &count)?;
    let spec = choose::choose(options, existing, &count)?;
    let BuildSpec { shard_count, shape, .. } = spec;
    let (packs, file) = (shape.packs(), file_bytes(&shape));
    let per_shard = count.records / u64::from(shard_count);
    let before = existing.map(|old| format!(" (before: {})", old.records)).unwrap_or_default();
    let on_disk = file * u64::from(shard_count);
    let free = first_existing(&options.out).and_then(|path| free_bytes(path).ok());
    let free = free.map(|free| {
        let short = if on_disk + count.entry_bytes > free { ", TOO LITTLE" } else { "" };
        format!("free            {}{short}\n", bytes(free))
    });
    let down = (packs * shape.response_bytes()) as u64;
    let text = format!(
        "records         {}{before}\n\
         shards          {shard_count} of about {per_shard} records\n\
         shape           {} rows ({packs} packs of {}) by {} columns, value field {} bytes, \
         {}/{} bits\n\
         on disk         {} ({} a shard), and {} while building\n{}\
         a query         {} up, {} down ({} with the hint)\n\
         failure         at most once in 2^{:.1} look-ups\n\n{}",
        count.records,
        shape.rows(),
        shape.pack_rows(),
        shape.columns(),
        shape.value_len(),
        shape.response_bits(),
        shape.hint_bits(),
        bytes(on_disk),
        bytes(file),
        bytes(count.entry_bytes),
        free.unwrap_or_default(),
        bytes(shape.query_bytes() as u64),
        bytes(down),
        bytes(down + (packs * shape.hint_bytes()) as u64),
        -shape.log2_failure(),
        packs_table(&shape, &others(&shape, count.records, shard_count, options), per_shard),
    );
    let few = few_records_warning(emptiest_shard(per_shard, shard_count), shard_count);
    Ok([Some(text), count.warning, few].into_iter().flatten().collect::<Vec<_>>().join("\n"))
}

/// The shapes of other numbers of packs that this database may have.
fn others(shape: &Shape, records: u64, shards: u32, options: &BuildOptions) -> Vec<Shape> {
    let pack_rows = options.wishes.pack_rows;
    let with = |packs| {
        let wishes = ShapeWishes { packs: Some(packs), pack_rows };
        let value_len = shape.fields().value_len;
        Shape::for_records(records.div_ceil(shards.into()), value_len, wishes).ok()
    };
    PACKS_SHOWN
        .into_iter()
        .filter(|&packs| packs != shape.fields().packs)
        .filter_map(with)
        .collect()
}

/// What the number of packs decides, for the shape that is built and for others.
fn packs_table(built: &Shape, others: &[Shape], records_per_shard: u64) -> String {
    let mut shapes: Vec<_> = others.iter().chain([built]).collect();
    shapes.sort_by_key(|shape| shape.packs());
    let mut text = format!(
        "{:>7}{:>11}{:>13}{:>11}{:>13}{:>11}{:>15}{:>16}\n",
        "packs",
        "device up",
        "device down",
        "client up",
        "client down",
        "in memory",
        "tables/matrix",
        "records a pack"
    );
    for shape in shapes {
        let (packs, matrix) = (shape.packs(), shape.matrix_bytes());
        let tables = packs * shape.table_bytes();
        let up = shape.query_bytes() + shape.bundle_bytes() / limits::QUERIES_PER_SECRET_MAX;
        let all = packs * (shape.response_bytes() + shape.hint_bytes());
        let shown = |size: usize| bytes(size as u64);
        text += &format!(
            "{:>7}{:>11}{:>13}{:>11}{:>13}{:>11}{:>15.2}{:>16}\n",
            format!("{}{packs}", if shape == built { "* " } else { "" }),
            shown(up),
            shown(shape.one_pack().down_bytes),
            shown(up),
            shown(all),
            shown(matrix + tables),
            tables as f64 / matrix as f64,
            records_per_shard / packs as u64,
        );
    }
    text + "device: asks through a front-end, which returns one pack of the answer with its\n\
            hint, and from which it hides among the records of the pack; client: asks the\n\
            server itself, takes all packs and hints. Up: a query and a sixteenth of a key\n\
            bundle. *: this build; --packs chooses another, with --reshape where a database is"
}

fn first_existing(path: &Path) -> Option<&Path> {
    let here = Path::new(".");
    let parents = path.ancestors().map(|p| if p.as_os_str().is_empty() { here } else { p });
    parents.into_iter().find(|path| path.exists())
}

/// About how many records the emptiest of so many shards has: they fall into shards by a hash, and
/// four standard deviations below the mean is where the emptiest of 30 000 is expected.
fn emptiest_shard(per_shard: u64, shards: u32) -> u64 {
    match shards {
        1 => per_shard,
        _ => per_shard.saturating_sub(4 * per_shard.isqrt()),
    }
}

/// A warning when the crowd that a look-up hides in is small.
pub fn few_records_warning(shard_records_min: u64, shard_count: u32) -> Option<String> {
    let accepted = limits::RECORDS_PER_SHARD_ACCEPTED_MIN;
    let advice = match shard_count {
        1 => "Clients have to be told (--accept-shard-records).",
        _ => "Use fewer shards.",
    };
    (shard_records_min < accepted).then(|| {
        format!(
            "WARNING: a look-up hides among the records of its shard, here as few as \
             {shard_records_min}; clients want {accepted} in the emptiest shard unless told \
             otherwise. {advice}"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packs_are_shown_side_by_side() {
        let options = BuildOptions::new(crate::builder::Input::Stdin, "x".into());
        let shape = Shape::for_records(1 << 20, 120, ShapeWishes::default()).unwrap();
        let others = others(&shape, 1 << 20, 1, &options);
        let text = packs_table(&shape, &others, 1 << 20);
        let joined = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        let rows: Vec<String> = text.lines().skip(1).take(3).map(joined).collect();
        let four = "4 53.4 kB 7.4 kB 53.4 kB 29.7 kB 242.2 MB 0.71 262144";
        let eight = "* 8 27.8 kB 7.2 kB 27.8 kB 57.3 kB 344.9 MB 1.40 131072";
        let sixteen = "16 15.0 kB 7.2 kB 15.0 kB 114.7 kB 549.3 MB 2.74 65536";
        assert_eq!(rows, [four, eight, sixteen]);
        assert!(text.lines().all(|line| line.len() <= 100), "{text}");
    }

    #[test]
    fn a_small_crowd_is_said() {
        assert!(few_records_warning(63_999, 2).unwrap().ends_with("Use fewer shards."));
        assert!(!few_records_warning(63_999, 1).unwrap().contains("fewer shards"));
        assert!(few_records_warning(64_000, 2).is_none());
        assert_eq!((emptiest_shard(65_536, 1), emptiest_shard(65_536, 9)), (65_536, 64_512));
    }
}
