//! Memory of an engine and a full batch, beyond the shard and the queries.

use std::error::Error;

use sotto::arith::IsaName;
use sotto::engine::{EncryptedQuery, ShardView};

use super::answers;

/// By how much the process grew at most, in bytes, between "no engine" and the end of a batch of
/// all `queries`, its threads, scratch and answers included. The shard and
/// the queries are in memory before. None where the system does not say.
pub(super) fn growth(
    isa: IsaName,
    shard: ShardView<'_>,
    queries: &[EncryptedQuery],
    threads: usize,
) -> Result<Option<u64>, Box<dyn Error>> {
    let before = status("VmRSS");
    let mut engine = answers::engine(isa, threads)?;
    // Forgets the peak: what the engine's self-check took and gave back is not the batch's.
    let forgotten = std::fs::write("/proc/self/clear_refs", "5").is_ok();
    answers::time(engine.as_mut(), shard, queries)?;
    answers::time(engine.as_mut(), shard, queries)?;
    let peak = status("VmHWM").filter(|_| forgotten);
    Ok(before.zip(peak).map(|(before, peak)| peak.saturating_sub(before)))
}

/// A number of /proc/self/status, in bytes.
fn status(name: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}
