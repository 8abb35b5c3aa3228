//! The program, as its operator sees it: started, probed, looked at in /proc, told to leave.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::harness::program::{Place, Program, any};
use super::harness::target::Target;
use super::harness::{Built, http, record, until};

pub(crate) const RECORDS: u64 = 1_000;
const SHARDS: u32 = 2;
/// Large hints: 8 packs of 2048 rows, some 50 KB a shard.
const PACKS: u32 = 8;
const PACK_ROWS: u32 = 2_048;
/// How long a probe may take: what asks probes gives up later.
const PROBE_TIME: Duration = Duration::from_secs(5);

/// A running server, with its database and certificates.
pub(crate) struct Served {
    pub(crate) place: Place,
    pub(crate) target: Target,
    pub(crate) program: Program,
    pub(crate) admin: SocketAddr,
}

impl Served {
    /// Builds a database and serves it within so much memory.
    pub(crate) async fn start(memory_mib: u64) -> Self {
        let records: Vec<_> = (0..RECORDS).map(record).collect();
        let built = Built::with(&records, SHARDS, |options| {
            options.wishes.packs = Some(PACKS);
            options.wishes.pack_rows = Some(PACK_ROWS);
        });
        let (place, memory) = (Place::of(built), memory_mib.to_string());
        let more = ["--admin", "127.0.0.1:0", "--memory", &memory];
        let program = Program::start(place.command_with(&[], any(), &more), None);
        // They answer before it listens; its log may be a little behind.
        until("the log names the admin endpoints", || admin_of(&program.said()).is_some()).await;
        let admin = admin_of(&program.said()).unwrap();
        let ca_pem = &place.certificates.ca_pem;
        let target = Target::new(program.address, ca_pem, &place.built.db());
        Self { place, target, program, admin }
    }

    /// It is there, and has not panicked.
    pub(crate) fn assert_runs(&self) {
        let (status, said) = (format!("/proc/{}/status", self.program.pid()), self.program.said());
        assert!(Path::new(&status).exists() && !said.contains("panicked"), "{said}");
    }
}

/// Where its log says the admin endpoints are.
fn admin_of(said: &str) -> Option<SocketAddr> {
    said.split("http://").nth(1)?.split('/').next()?.parse().ok()
}

/// Memory of a process without the pages of its files, in MiB.
pub(crate) fn anonymous_mib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}

/// What probes of the admin endpoints came to.
#[derive(Default)]
pub(crate) struct Probed {
    pub(crate) asked: u64,
    pub(crate) failed: u64,
    pub(crate) longest_ms: u64,
}

/// Probes once a second until `leave` is set.
pub(crate) async fn probe(admin: SocketAddr, leave: Arc<AtomicBool>) -> Probed {
    let mut probed = Probed::default();
    while !leave.load(Ordering::SeqCst) {
        let begun = Instant::now();
        probed.asked += 1;
        let asked = timeout(PROBE_TIME, http::request(admin, "GET /livez", "localhost", ""));
        let is_alive = matches!(asked.await, Ok(Ok(seen)) if seen.status == 200);
        probed.failed += u64::from(!is_alive);
        probed.longest_ms = probed.longest_ms.max(begun.elapsed().as_millis() as u64);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    probed
}

/// What the server counted of refusals, resets and displacements, a line each.
pub(crate) async fn refusals(admin: SocketAddr) -> Vec<String> {
    let page = http::request(admin, "GET /metrics", "localhost", "").await.unwrap().body;
    let counted = |line: &&str| {
        let about = ["refused", "overloaded", "OVERLOADED", "displaced", "reset", "handshakes"];
        !line.starts_with('#') && !line.ends_with(" 0") && about.iter().any(|a| line.contains(a))
    };
    page.lines().filter(counted).map(str::to_owned).collect()
}
