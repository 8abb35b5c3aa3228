//! Canaries: look-ups of the front-end's own by which it finds servers that answer wrong.
//!
//! A device decodes one pack and must not react to what it finds, so a server could garble what it
//! likes. The front-end can look: its canaries have random keys, which must be absent, and keys
//! that it was given, which must be found. A canary is made and sent like the batch of a device, at
//! a random time and through the same queue, so that a server cannot tell it from one; all packs of
//! its answers are decoded with the signed hints. [`Server::judge`](super::replicas::Server::judge)
//! is told whether the server that answered was right.
//!
//! [`super::own`] keeps the rule on secrets. When the next canary goes out was drawn before; what
//! it asks is drawn anew. That a server is not asked any more is the one thing that follows from an
//! outcome, and it tells the server about keys of the front-end, never about a device's.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep_until};
use zeroize::Zeroizing;

use super::epochs::Epoch;
use super::mix::PooledDatabase;
use super::own::{OwnQueries, Place};
use super::replicas::Verdict;
use crate::keyword::{Outcome, locate};
use crate::limits;
use crate::scheme::{SecretError, Sharing, random_bytes, random_permutation};
use crate::shard::files::read_text;

/// Most canaries of a database that wait for answers at once.
const IN_FLIGHT_MAX: usize = 8;

/// Keys of a database that are known to be there.
pub(super) type PresentKeys = Arc<Vec<Zeroizing<Vec<u8>>>>;

/// A key that must be found, and the database it is in.
pub type CanaryKey = (String, Zeroizing<Vec<u8>>);

/// Why a file of canaries is refused.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum CanaryError {
    #[error("the file of canaries {path} cannot be read: {error}")]
    Unreadable { path: PathBuf, error: std::io::Error },
    #[error(
        "the file of canaries has {found} bytes, expected at most {}: some hundred keys suffice",
        limits::CANARIES_BYTES_MAX
    )]
    TooLong { found: u64 },
    #[error("line {line} of the file of canaries: found {found}, expected DATABASE KEY")]
    Line { line: usize, found: &'static str },
}

/// Reads a file of canaries: lines `DATABASE KEY`, where the key is the look-up key as it stands in
/// the database. Empty lines and those that begin with `#` say nothing.
///
/// # Errors
/// It cannot be read, or a line is something else. The key of a line is not shown.
pub fn read(path: &Path) -> Result<Vec<CanaryKey>, CanaryError> {
    let unreadable = |error| CanaryError::Unreadable { path: path.to_owned(), error };
    let found = std::fs::metadata(path).map_err(unreadable)?.len();
    if found > limits::CANARIES_BYTES_MAX {
        return Err(CanaryError::TooLong { found });
    }
    parse(&Zeroizing::new(read_text(path, limits::CANARIES_BYTES_MAX).map_err(unreadable)?))
}

fn parse(text: &str) -> Result<Vec<CanaryKey>, CanaryError> {
    let mut keys = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = |found| CanaryError::Line { line: index + 1, found };
        let (database, key) = line.split_once(char::is_whitespace).ok_or(wrong("a single word"))?;
        let key = key.trim().as_bytes();
        if key.len() > limits::KEY_BYTES_MAX {
            return Err(wrong("a key that is longer than any"));
        }
        keys.push((database.to_owned(), Zeroizing::new(key.to_vec())));
    }
    Ok(keys)
}

/// Asks canaries at random times, with this mean between two, for as long as the pool lives.
pub(super) async fn run(database: Arc<PooledDatabase>, present: PresentKeys, mean: Duration) {
    let mut next = Instant::now();
    let mut asking = JoinSet::new();
    loop {
        let Ok(share) = random_share() else {
            tracing::error!("the system gives no random bytes: no canaries are asked any more");
            return;
        };
        next += mean.mul_f64(2.0 * share);
        sleep_until(next).await;
        while asking.try_join_next().is_some() {}
        let out = (0..database.servers.len()).filter(|&at| database.servers[at].is_out());
        for only in out.map(Some).chain([None]) {
            if asking.len() < IN_FLIGHT_MAX {
                asking.spawn(ask(database.clone(), present.clone(), only));
            }
        }
    }
}

/// A random number from 0 to 1.
fn random_share() -> Result<f64, SecretError> {
    let bytes = random_bytes()?;
    let word = u32::from_le_bytes(*bytes.first_chunk().expect("this is a bug: too few bytes"));
    Ok(f64::from(word) / f64::from(u32::MAX))
}

/// Asks one canary and judges the servers that answered; the one server alone, where it is named.
async fn ask(database: Arc<PooledDatabase>, present: PresentKeys, only: Option<usize>) {
    let Some(epoch) = database.epochs.newest() else { return };
    let place = only.map(|at| database.servers[at].place.clone());
    let made = spawn_blocking(move || {
        let holds = |shard| place.as_ref().is_none_or(|place| place.holds(shard));
        encrypt(epoch, &present, &holds)
    });
    let Ok(Ok((queries, are_present))) = made.await else {
        tracing::error!("a canary could not be encrypted");
        return;
    };
    database.counters.canaries.add(1);
    let answers = queries.ask(&database, Instant::now() + limits::DEADLINE_DEFAULT, only).await;
    let judge = move || {
        let opened = queries.open(answers).into_iter().zip(are_present);
        opened.map(|(opened, is_present)| Some(verdict(opened?, is_present))).collect::<Vec<_>>()
    };
    let Ok(verdicts) = spawn_blocking(judge).await else { return };
    let lost = verdicts.iter().filter(|verdict| verdict.is_none()).count();
    database.counters.canaries_lost.add(lost as u64);
    for &(server, verdict) in verdicts.iter().flatten() {
        database.servers[server].judge(verdict);
    }
    if let Some(at) = only
        && lost == 0
    {
        let right = verdicts.iter().flatten().all(|(_, verdict)| *verdict == Verdict::Right);
        let verdict = if right { Verdict::Right } else { Verdict::Wrong };
        database.servers[at].judge_whole(verdict);
    }
}

/// Draws keys and encrypts their queries like a device's batch: with many shards in distinct ones
/// under one key bundle, else each under its own. Also says of each whether its key is there.
fn encrypt(
    epoch: Arc<Epoch>,
    present: &[Zeroizing<Vec<u8>>],
    holds: &dyn Fn(u32) -> bool,
) -> Result<(OwnQueries, Vec<bool>), SecretError> {
    let one_bundle = epoch.parameters.shard_count() >= limits::SHARDS_FOR_ONE_BUNDLE;
    let aims = draw(&epoch, present, holds, one_bundle)?;
    let sharing = if one_bundle { Sharing::Shared } else { Sharing::Apart };
    let (places, are_present) = aims.into_iter().unzip();
    Ok((OwnQueries::encrypt(epoch, places, sharing)?, are_present))
}

/// Which server answered, and whether it was right.
fn verdict((server, outcome): (usize, Outcome), is_present: bool) -> (usize, Verdict) {
    let right = match outcome {
        Outcome::Found(value) => {
            drop(Zeroizing::new(value));
            is_present
        }
        Outcome::Absent => !is_present,
        Outcome::Invalid => false,
    };
    (server, if right { Verdict::Right } else { Verdict::Wrong })
}

/// Where a key of a canary is looked up, and whether it is there.
type Aim = (Place, bool);

/// Keys of one canary: up to half of them given ones that are present, the others random.
fn draw(
    epoch: &Epoch,
    present: &[Zeroizing<Vec<u8>>],
    holds: &dyn Fn(u32) -> bool,
    distinct: bool,
) -> Result<Vec<Aim>, SecretError> {
    let parameters = &epoch.parameters;
    let groups = parameters.shape().groups() as u32;
    let (mut aims, mut shards) = (Vec::with_capacity(limits::DEVICE_BATCH), HashSet::new());
    let mut aim = |key: &[u8], is_present| {
        let place = Box::new(locate(parameters.seed(), key, parameters.shard_count(), groups));
        let is_new = holds(place.shard) && (shards.insert(place.shard) || !distinct);
        is_new.then_some((place, is_present))
    };
    for at in random_permutation(present.len())? {
        if aims.len() == limits::DEVICE_BATCH / 2 {
            break;
        }
        aims.extend(aim(&present[at], true));
    }
    for _ in 0..limits::CANARY_DRAWS_MAX {
        if aims.len() == limits::DEVICE_BATCH {
            break;
        }
        aims.extend(aim(&random_bytes()?, false));
    }
    let order = random_permutation(aims.len())?;
    let mut aims: Vec<Option<Aim>> = aims.into_iter().map(Some).collect();
    Ok(order.into_iter().filter_map(|at| aims[at].take()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_canaries_are_read_and_errors_show_no_key() {
        let keys = parse("# ours\n\neu1  +15550101234 \r\nde1\tanna@example.com\n").unwrap();
        let found: Vec<_> = keys.iter().map(|(database, key)| (&**database, &key[..])).collect();
        assert_eq!(found, [("eu1", &b"+15550101234"[..]), ("de1", b"anna@example.com")]);
        let error = parse("eu1 a\nsecretkey").unwrap_err().to_string();
        assert!(error.contains("line 2") && !error.contains("secretkey"), "{error}");
        let long = format!("eu1 {}", "a".repeat(limits::KEY_BYTES_MAX + 1));
        assert!(matches!(parse(&long), Err(CanaryError::Line { line: 1, .. })));
        assert!(matches!(read(Path::new("/nowhere")), Err(CanaryError::Unreadable { .. })));
    }

    #[test]
    fn times_between_canaries_are_spread() {
        let shares: Vec<f64> = (0..1_000).map(|_| random_share().unwrap()).collect();
        let mean = shares.iter().sum::<f64>() / 1_000.0;
        assert!((0.4..0.6).contains(&mean), "{mean}");
        assert!(shares.iter().all(|share| (0.0..=1.0).contains(share)));
    }
}
