//! A relay with many connections: what it holds of those that are idle, and how soon it refuses.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use sotto::wire::Bytes;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::sealed::{Device, Devices, Kind, Reach};
use crate::Failed;

/// Sealed look-ups that are made; devices take turns with them.
const BODIES: usize = 16;
/// How long connections are idle before memory is read again.
const IDLE: Duration = Duration::from_secs(10);

/// Devices that look up once and stay.
#[derive(Debug, clap::Args)]
pub(crate) struct IdleOptions {
    #[command(flatten)]
    reach: Reach,
    #[arg(long, value_name = "N", default_value_t = 2_000)]
    devices: usize,
    /// Devices that look up at the same time
    #[arg(long, value_name = "N", default_value_t = 8)]
    at_once: usize,
    /// The relay's process
    #[arg(long, value_name = "PID")]
    process: u32,
}

/// Devices of which a half has used its quota.
#[derive(Debug, clap::Args)]
pub(crate) struct RefusedOptions {
    #[command(flatten)]
    reach: Reach,
    #[arg(long)]
    kind: Kind,
    /// Requests that the relay's quota allows an account
    #[arg(long, value_name = "N")]
    quota: usize,
    /// Accounts, an even number
    #[arg(long, value_name = "N", default_value_t = 100)]
    accounts: usize,
    /// Requests a second, of which every second one is refused
    #[arg(long, value_name = "N")]
    rate: f64,
}

/// Has every device connect, look up once, and keep its connection. Returns what the relay's
/// process holds before, with all of them, and a while later.
pub(crate) async fn idle(options: &IdleOptions) -> Result<Value, Failed> {
    let devices = Arc::new(Devices::open(&options.reach).await?);
    let bodies = bodies(&devices, Kind::Lookup)?;
    let before = memory(options.process)?;
    let began = Instant::now();
    let (mut running, mut kept, mut down) = (JoinSet::new(), Vec::new(), 0);
    for number in 0..options.devices {
        let (devices, body) = (devices.clone(), bodies[number % BODIES].clone());
        running.spawn(async move {
            let device = devices.device(&format!("idle {number}"))?;
            let reply = device.ask(Kind::Lookup, body).await?;
            match reply.status {
                200 => Ok((device, reply.body.len())),
                status => Err::<(Device, usize), Failed>(format!("it answers {status}").into()),
            }
        });
        if running.len() >= options.at_once
            && let Some(joined) = running.join_next().await
        {
            kept.push(joined??);
        }
    }
    while let Some(joined) = running.join_next().await {
        kept.push(joined??);
    }
    let seconds = began.elapsed().as_secs_f64();
    kept.iter().for_each(|(_, bytes)| down += bytes);
    let all = memory(options.process)?;
    tokio::time::sleep(IDLE).await;
    let later = memory(options.process)?;
    Ok(json!({
        "devices": kept.len(),
        "seconds": seconds,
        "up_bytes_each": bodies[0].len(),
        "down_bytes_each": down / kept.len().max(1),
        "before": before,
        "with_all": all,
        "seconds_later": IDLE.as_secs(),
        "later": later,
    }))
}

/// Sends requests at a rate of which half is more than quotas allow, mixed with the others, and
/// returns how long replies took by their status.
pub(crate) async fn refused(options: &RefusedOptions) -> Result<Value, Failed> {
    let kind = options.kind;
    let devices = Devices::open(&options.reach).await?;
    let bodies = bodies(&devices, kind)?;
    let account = |number| devices.device(&format!("{} {number}", kind.name()));
    let accounts: Vec<Device> = (0..options.accounts).map(account).collect::<Result<_, _>>()?;
    // Every second account uses its quota beforehand.
    for (number, device) in accounts.iter().enumerate() {
        device.connect().await?;
        for body in bodies.iter().cycle().take(options.quota * (number % 2)) {
            let reply = device.ask(kind, body.clone()).await?;
            if reply.status != 200 {
                return Err(format!("a request within the quota: {}", reply.status).into());
            }
        }
    }
    let start = Instant::now() + Duration::from_millis(100);
    let mut running = JoinSet::new();
    for number in 0..options.accounts * options.quota {
        let (device, body) =
            (accounts[number % accounts.len()].clone(), bodies[number % BODIES].clone());
        let due = start + Duration::from_secs_f64(number as f64 / options.rate);
        running.spawn(async move {
            sleep_until(due).await;
            let sent = Instant::now();
            let reply = device.ask(kind, body).await?;
            Ok::<_, Failed>((number % 2, reply.status, sent - due, sent.elapsed()))
        });
    }
    let (mut served, mut refused, mut lag) = (Vec::new(), Vec::new(), Vec::new());
    while let Some(joined) = running.join_next().await {
        let (is_over, status, late, took) = joined??;
        lag.push(late);
        match (is_over, status) {
            (0, 200) => served.push(took),
            (1, 429) => refused.push(took),
            other => return Err(format!("found {other:?}, expected 200 or 429").into()),
        }
    }
    Ok(json!({
        "kind": kind.name(),
        "rate": options.rate,
        "up_bytes_each": bodies[0].len(),
        "refused_429_ms": spread(refused),
        "served_200_ms": spread(served),
        "generator_lag_ms": spread(lag),
    }))
}

fn bodies(devices: &Devices, kind: Kind) -> Result<Vec<Bytes>, Failed> {
    (0..BODIES).map(|_| devices.request(kind)).collect()
}

fn spread(mut all: Vec<Duration>) -> Value {
    all.sort_unstable();
    let at = |share: f64| {
        let index = ((all.len() as f64 * share).ceil() as usize).clamp(1, all.len().max(1)) - 1;
        all.get(index).map(|time| (time.as_secs_f64() * 1e5).round() / 1e2)
    };
    let within = all.iter().filter(|time| **time <= Duration::from_millis(10)).count();
    json!({
        "count": all.len(), "p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "p999": at(0.999),
        "max": at(1.0), "within_10_ms": within,
    })
}

/// What a process holds, in KiB, and how many sockets.
fn memory(process: u32) -> Result<Value, Failed> {
    let folder = PathBuf::from(format!("/proc/{process}"));
    let text = fs::read_to_string(folder.join("smaps_rollup"))?;
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok())
    };
    let mut sockets = 0;
    for entry in fs::read_dir(folder.join("fd"))? {
        let target = fs::read_link(entry?.path()).unwrap_or_default();
        sockets += usize::from(target.to_string_lossy().starts_with("socket:"));
    }
    let [rss, pss, anonymous] = ["Rss:", "Pss:", "Anonymous:"].map(field);
    Ok(json!({
        "rss_kib": rss, "pss_kib": pss, "anonymous_kib": anonymous, "sockets": sockets,
    }))
}
