//! What the operator gives: the database and its disk, certificates, the list of callers.

use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::OFlags;
use sotto::server::{Identity, KnownCallers};
use sotto::shard::header::file_bytes;
use sotto::shard::verify::verify_shard;
use sotto::shard::{Database, HeldBy};
use sotto::text::{bytes, counted};
use sotto::wire::Lifetime;

use super::finding::Finding;
use super::machine::now;
use crate::commands::serve;

/// How long a disk is read, and how much at most.
const DISK_TIME: Duration = Duration::from_secs(1);
const DISK_BYTES_MAX: u64 = 1 << 30;
/// How long shards are read to be compared with their digests; the last one is read to its end.
const DIGESTS_TIME: Duration = Duration::from_secs(10);
/// Less says nothing of a disk.
const DISK_BYTES_MIN: u64 = 32 << 20;
/// Bytes of one read, as the system reads ahead; and what they have to be aligned to.
const READ_BYTES: usize = 4 << 20;
const ALIGNMENT: usize = 4096;
/// A certificate is to be renewed so long before it ends.
const RENEW_BEFORE_SECONDS: i64 = 14 * DAY_SECONDS;
const DAY_SECONDS: i64 = 24 * 3600;

/// What it is, whether its bytes are what was built, and the disk below it.
pub(super) fn database(database: &Database, args: &serve::Args) -> [Finding; 3] {
    let held = database.held().len() as u64;
    let size = bytes(held * file_bytes(database.shape()));
    let shards = match database.held_by() {
        None => counted(held, "shard"),
        Some(HeldBy { host, .. }) => {
            format!("{} of {} for {host}", counted(held, "shard"), database.shard_count())
        }
    };
    let found = format!("{shards}, {size}, epoch {}", database.epoch());
    let target = Duration::from_millis(args.target_ms);
    let opened = Finding::new("database", found, "a database that opens");
    // The disk first: what was read to compare it is in the system's cache.
    let disk = disk(database, target);
    [opened, digests(database), disk]
}

/// Reads shards and compares them with their digests, all or as many as a person waits for; which
/// ones are read then differs from time to time.
fn digests(database: &Database) -> Finding {
    let expected = "shards whose bytes match their digests";
    let (begun, held) = (Instant::now(), database.held());
    let first = now().unsigned_abs() as usize % held.len().max(1);
    let (mut read, mut bad) = (0, Vec::new());
    for (index, shard) in held[first..].iter().chain(&held[..first]) {
        if begun.elapsed() > DIGESTS_TIME {
            break;
        }
        bad.extend(verify_shard(database, *index, shard).err());
        read += 1;
    }
    let count = held.len();
    let found = match bad.first() {
        Some(first) if bad.len() == 1 => first.to_string(),
        Some(first) => format!("{first}; and {} more like it", bad.len() - 1),
        None if read == count => "every byte matches".to_owned(),
        None => format!("{read} of {count} shards match (`sotto verify` reads all of them)"),
    };
    Finding::new("digests", found, expected).fail_if(
        !bad.is_empty(),
        "copy the file again, or build again (`sotto verify` reads everything)",
    )
}

/// Whether clients accept the database at `now` (unix seconds), and for some time.
pub(super) fn lifetime(lifetime: Lifetime, now: u64) -> Finding {
    let expected = "a database that clients accept for more than a quarter of its time";
    if let Err(error) = lifetime.check(now) {
        return Finding::new("signature", error.to_string(), expected)
            .fail("a server does not start with it: sotto renew, or set the clock");
    }
    let days = counted(lifetime.left(now) / DAY_SECONDS.unsigned_abs(), "day");
    Finding::new("signature", format!("good for {days}"), expected).warn_if(
        lifetime.is_ending(now),
        "sign it again: sotto renew, or sotto build of newer records",
    )
}

/// Whether a shard that is not in memory comes from the disk within half of the target, which is
/// what the server leaves a query to wait to be batched.
fn disk(database: &Database, target: Duration) -> Finding {
    let shard_bytes = file_bytes(database.shape());
    let wanted = (shard_bytes as f64 / target.div_f64(2.0).as_secs_f64()) as u64;
    let expected = format!("{}/s, which reads a shard in half of target-ms", bytes(wanted));
    let paths = database.held().iter().map(|&(index, _)| database.shard_path(index));
    match read_past_cache(paths) {
        Err(error) => Finding::new("disk", format!("not measured: {error}"), expected)
            .warn("put the database on a disk of this machine, with ext4 or xfs"),
        Ok((read, _)) if read < DISK_BYTES_MIN => {
            let found = format!("not measured: {} tell nothing of a disk", bytes(read));
            Finding::new("disk", found, expected)
        }
        Ok((read, elapsed)) => {
            let speed = (read as f64 / elapsed.as_secs_f64()) as u64;
            Finding::new("disk", format!("{}/s", bytes(speed)), expected).warn_if(
                speed < wanted,
                "put the database on a faster disk, have memory for all of it, or build more and \
                 smaller shards (sotto build --shards)",
            )
        }
    }
}

/// Reads files from front to back and past the system's cache, which a server beside us may need,
/// for a second or so.
fn read_past_cache(paths: impl Iterator<Item = PathBuf>) -> io::Result<(u64, Duration)> {
    let mut memory = vec![0; READ_BYTES + ALIGNMENT];
    let start = memory.as_ptr().align_offset(ALIGNMENT);
    let buffer = &mut memory[start..start + READ_BYTES];
    let (begun, mut read) = (Instant::now(), 0);
    for path in paths {
        // Whatever has the name by now: nothing is waited for.
        let direct = (OFlags::DIRECT | OFlags::NONBLOCK).bits() as i32;
        let mut file = OpenOptions::new().read(true).custom_flags(direct).open(path)?;
        loop {
            let more = file.read(buffer)?;
            read += more as u64;
            if begun.elapsed() > DISK_TIME || read >= DISK_BYTES_MAX {
                return Ok((read, begun.elapsed()));
            }
            if more < buffer.len() {
                break;
            }
        }
    }
    Ok((read, begun.elapsed()))
}

/// Certificate and key, and who may call.
pub(super) fn certificates(args: &serve::Args) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let (Some(certificate), Some(key)) = (&args.cert, &args.key) {
        findings.push(identity(certificate, key));
        findings.push(secrecy(key));
    }
    if let Some(authority) = &args.client_ca {
        findings.push(callers(authority, args.allow.as_deref()));
    }
    findings
}

/// As the server reads them. It takes an authority whatever its dates: what ends is what it signed.
fn callers(authority: &Path, allow: Option<&Path>) -> Finding {
    let expected = "an authority whose certificate is valid";
    match KnownCallers::from_files(authority, allow) {
        Err(error) => Finding::new("callers", error.to_string(), expected)
            .fail("mend the file (--client-ca, --allow)"),
        Ok(known) => match known.expires() {
            Some(expires) if expires < now() => {
                let found = format!("ended {} ago", days(now() - expires));
                Finding::new("callers", found, expected)
                    .warn("have it renewed, or remove it from its file (--client-ca)")
            }
            expires => ends("callers", expires, expected),
        },
    }
}

/// The check that start and reload make, and whether it will go on to be so.
fn identity(certificate: &Path, key: &Path) -> Finding {
    let expected = "a certificate that clients accept, and its key";
    let read = Identity::from_pem_files(certificate, key);
    let checked = read.and_then(|identity| {
        identity.check(SystemTime::now())?;
        Ok(identity.expires())
    });
    match checked {
        Ok(expires) => ends("certificate", expires, expected),
        Err(error) => {
            let advice = match error.is_about_time() {
                true => "renew it, or set the clock; `kill -HUP` has the server read it",
                false => {
                    "give PEM files that clients accept and that belong together (--cert, --key)"
                }
            };
            Finding::new("certificate", error.to_string(), expected).fail(advice)
        }
    }
}

fn days(seconds: i64) -> String {
    counted((seconds / DAY_SECONDS).unsigned_abs(), "day")
}

/// Whether a certificate that is valid now will be for some time.
fn ends(check: &'static str, expires: Option<i64>, expected: &str) -> Finding {
    let Some(expires) = expires else {
        let found = "when it ends cannot be read";
        return Finding::new(check, found, expected).warn("renew it with another tool");
    };
    let left = expires - now();
    Finding::new(check, format!("good for {}", days(left)), expected)
        .warn_if(left < RENEW_BEFORE_SECONDS, "renew it; `kill -HUP` has the server read it")
}

/// Whether the key is the server's alone.
fn secrecy(key: &Path) -> Finding {
    const ANYONE: u32 = 0o007;
    let expected = "no access for others";
    match std::fs::metadata(key).map(|found| found.permissions().mode() & 0o777) {
        Ok(mode) => Finding::new("key", format!("mode {mode:03o}"), expected)
            .warn_if(mode & ANYONE != 0, format!("chmod o= {}", key.display())),
        Err(error) => Finding::new("key", error.to_string(), expected).fail("give a file (--key)"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Status;
    use super::*;

    #[test]
    fn certificates_and_databases_that_end_soon_are_to_be_renewed() {
        for (days, expected) in [(100, Status::Ok), (10, Status::Warn)] {
            let expires = now() + days * DAY_SECONDS;
            assert_eq!(ends("certificate", Some(expires), "").status, expected);
        }
        assert_eq!(ends("certificate", None, "").status, Status::Warn);
        for (now, expected) in [
            (9_699, Status::Fail),
            (10_000, Status::Ok),
            (39_999, Status::Ok),
            (40_000, Status::Warn),
            (50_000, Status::Warn),
            (50_001, Status::Fail),
        ] {
            let found = lifetime(Lifetime { created: 10_000, expires: 50_000 }, now);
            assert_eq!(found.status, expected, "{now}");
        }
    }

    #[test]
    fn files_are_read_up_to_their_end() {
        // Of the source tree's disk: a temporary folder may be one that has no disk.
        let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let sizes = [READ_BYTES + 3 * ALIGNMENT, ALIGNMENT, 0];
        let paths: Vec<PathBuf> =
            (0..sizes.len()).map(|n| folder.path().join(n.to_string())).collect();
        for (path, size) in paths.iter().zip(sizes) {
            std::fs::write(path, vec![1; size]).unwrap();
        }
        match read_past_cache(paths.into_iter()) {
            Ok((read, _)) => assert_eq!(read, sizes.iter().sum::<usize>() as u64),
            Err(error) => println!("skipped: no reading past the cache here: {error}"),
        }
    }
}
