//! Disks that are full or take nothing, and readers of the log that go away or do not read: the
//! server needs none of them to serve.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use rustix::process::Signal;

use super::harness::load::Load;
use super::harness::program::{Place, Program, To, any, ends, run};
use super::harness::{skip, tree};
use super::{record, times};

#[tokio::test(flavor = "multi_thread")]
async fn it_serves_on_when_its_log_goes_nowhere() {
    for (what, is_full, stalls) in [
        ("log on a full disk", true, false),
        ("log's reader gone", false, false),
        ("log's reader stalls", false, true),
    ] {
        let place = Place::new();
        let (reader, writer) = std::io::pipe().unwrap();
        // As small as the system lets it be: less than what is logged.
        rustix::pipe::fcntl_setpipe_size(&writer, 4096).unwrap();
        let log = if is_full { To::Full.stdio() } else { writer.into() };
        // Gone, or there without reading.
        let reader = stalls.then_some(reader);
        let mut command = place.command(&[], any());
        // A line a pass over a shard: more than a small pipe holds.
        command.env("SOTTO_LOG", "trace");
        let server = Program::start(command, Some(log));
        let mut load = Load::start(&place.options(&server), 2).await;
        load.more(times(10)).await;
        // It reads its certificates again, which it logs.
        server.signal(Signal::HUP);
        load.more(times(10)).await;
        record(&format!("{what}: {}", load.stop().await));
        server.leave().await;
        drop(reader);
    }
}

/// At every level, for every crate: whoever asks, and from which port, is in no line.
#[tokio::test(flavor = "multi_thread")]
async fn no_level_of_the_log_shows_who_asks() {
    for asked in ["trace", "debug", "quinn=trace,quinn_proto=trace,quinn_udp=trace,info"] {
        let place = Place::new();
        let mut command = place.command(&[], any());
        command.env("SOTTO_LOG", asked);
        let server = Program::start(command, None);
        let mut load = Load::start(&place.options(&server), 2).await;
        load.more(times(4)).await;
        // One that breaks its handshake off, and one that speaks no QUIC.
        let stranger = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        stranger.send_to(&[0xc3; 1200], server.address).unwrap();
        load.more(times(4)).await;
        load.stop().await;
        let own = server.address.to_string();
        let said = server.leave().await.replace(&own, "");
        assert!(said.contains("listening") || said.contains("opened"), "{said}");
        assert!(!said.contains("127.0.0.1:") && !said.contains("quinn"), "{asked}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_level_that_is_none_is_an_error() {
    let place = Place::new();
    let (code, _, error) = run(place.command(&[], any()).env("SOTTO_LOG", "sotto=loud"));
    assert_eq!(code, 2, "{error}");
    assert!(error.contains("SOTTO_LOG is \"sotto=loud\""), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_is_an_exit_code_where_it_cannot_be_said() {
    let place = Place::new();
    std::fs::write(place.built.path("server.pem"), "none").unwrap();
    let mut command = place.command(&[], any());
    command.stdout(Stdio::null()).stderr(To::Full.stdio());
    assert_eq!(command.status().unwrap().code(), Some(2));
    // Whoever waits for the first line would wait for ever: it does not go on without it.
    let (code, error) = ends(&mut Place::new().command(&[], any()), To::Full);
    assert_eq!(code, 2, "{error}");
    assert!(error.contains("error: cannot write to standard output"), "{error}");
}

/// Sizes and times of all files and folders below.
fn files(folder: &Path) -> BTreeMap<PathBuf, (u64, SystemTime)> {
    let seen = |path: &PathBuf| std::fs::metadata(path).unwrap();
    let sizes = |path: &PathBuf| (seen(path).len(), seen(path).modified().unwrap());
    tree(folder).into_iter().map(|path| (path.clone(), sizes(&path))).collect()
}

fn set_modes(folder: &Path, folders: u32, files: u32) {
    for path in tree(folder) {
        let mode = if path.is_dir() { folders } else { files };
        std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    }
}

/// Files, not pipes or sockets, that a process may write to.
fn writable_files(pid: u32) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
        let path = entry.unwrap().path();
        let (Ok(to), number) = (std::fs::read_link(&path), path.file_name().unwrap()) else {
            continue; // closed meanwhile
        };
        let number = number.to_str().unwrap();
        let info = std::fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}"));
        let info = info.unwrap_or_default();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
        let flags = flags.map_or(0, |flags| u32::from_str_radix(flags.trim(), 8).unwrap());
        if flags & 3 != 0 && to.is_file() {
            found.push(to.display().to_string());
        }
    }
    found
}

/// Where this process may mount, a mount that cannot be written to.
const READ_ONLY: [&str; 5] = [
    "unshare",
    "--mount",
    "sh",
    "-c",
    "mount --bind . . && mount -o remount,bind,ro . && cd \"$PWD\" && exec \"$0\" \"$@\"",
];

#[tokio::test(flavor = "multi_thread")]
async fn it_only_reads_and_serves_from_a_disk_that_takes_nothing() {
    let place = Place::new();
    let folder = place.built.folder.path();
    let succeeds = |command: &[&str]| {
        let mut wrapped = Command::new(READ_ONLY[0]);
        let ended = wrapped.args(&READ_ONLY[1..]).args(command).current_dir(folder).output();
        ended.is_ok_and(|ended| ended.status.success())
    };
    let can_mount = succeeds(&["true"]);
    if can_mount {
        assert!(!succeeds(&["touch", "written"]));
    } else {
        skip("this process may not mount, so the disk is not one that takes nothing");
    }
    set_modes(folder, 0o555, 0o444);
    let before = files(folder);
    let through: &[&str] = if can_mount { &READ_ONLY } else { &[] };
    let server = Program::start(place.command(through, any()), None);
    let mut load = Load::start(&place.options(&server), 2).await;
    load.more(times(10)).await;
    // But those it was started with, if there are such.
    let mine = writable_files(std::process::id());
    let its: Vec<String> = writable_files(server.pid());
    assert!(its.iter().all(|file| mine.contains(file)), "{its:?}");
    // One would be seen.
    let held = tempfile::NamedTempFile::new().unwrap();
    let name = held.path().display().to_string();
    assert!(writable_files(std::process::id()).contains(&name));
    record(&format!("read-only disk: {}", load.stop().await));
    server.leave().await;
    assert_eq!(files(folder), before);
    set_modes(folder, 0o755, 0o644);
}
