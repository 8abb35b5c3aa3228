//! Clocks that jump. Waiting, deadlines, shares and time-outs go by the monotonic clock, which does
//! not; the wall clock is read in a few places, listed here, where a jump does no harm.

use std::path::Path;
use std::time::Instant;

use sotto::client::Client;

use super::harness::load::{Load, look_up};
use super::harness::program::{Place, Program, any};
use super::harness::{skip, tree};
use super::{Took, record, times};

/// Files that read the wall clock, and what for.
const WALL_CLOCK: [(&str, &str); 17] = [
    ("builder/session.rs", "when a database was signed, and whether to sign it again"),
    ("client/options.rs", "whether parameters are fresh: one that lags is asked again later"),
    ("commands/doctor/files.rs", "whether a certificate has expired"),
    ("commands/doctor/machine.rs", "whether it is right"),
    ("commands/serve.rs", "whether a certificate has expired"),
    ("commands/trusted.rs", "whether a directory, a statement or a record holds, and from when"),
    ("discovery/resolver/options.rs", "when a batch is due, whether a directory or a record holds"),
    ("front_end/mod.rs", "which week's key is given out, whether the directory has expired"),
    ("front_end/pool.rs", "whether parameters are fresh, as for any client"),
    ("https/admin.rs", "when the program was started, for a metric"),
    ("https/server.rs", "whether a certificate is good when it is read"),
    ("relay/mod.rs", "quotas, in minutes, and whether a token has expired"),
    ("server/certificate_check.rs", "in tests"),
    ("server/certificates.rs", "from when a certificate that is made is good"),
    ("server/connection.rs", "whether a caller's certificate is still good"),
    (
        "server/service.rs",
        "when it was started; whether a database has expired: one served goes on",
    ),
    ("server/tls.rs", "in tests"),
];

#[test]
fn the_wall_clock_is_read_where_a_jump_does_no_harm() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    for path in tree(&source).into_iter().filter(|path| path.is_file()) {
        let text = std::fs::read_to_string(&path).unwrap();
        if text.contains("SystemTime::now") || text.contains("UnixTime::now") {
            found.push(path.strip_prefix(&source).unwrap().to_str().unwrap().to_owned());
        }
    }
    found.sort();
    assert_eq!(found, WALL_CLOCK.map(|(file, _)| file), "say here what for");
}

/// Makes the wall clock of a program another's to say.
const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_clock_jumps_by_days_serves_on() {
    if !Path::new(FAKETIME).exists() {
        skip(&format!("{FAKETIME} is not here"));
        return;
    }
    let place = Place::new();
    let shift = place.built.path("shift");
    std::fs::write(&shift, "+0d").unwrap();
    let mut command = place.command(&[], any());
    command.env("LD_PRELOAD", FAKETIME).env("FAKETIME_TIMESTAMP_FILE", &shift);
    command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    command.env("SOTTO_LOG", "trace");
    let server = Program::start(command, None);
    let mut load = Load::start(&place.options(&server), 2).await;
    let mut new = Took::default();
    for _ in 0..times(1) {
        for days in [1, -1, 400, -400, 0] {
            std::fs::write(&shift, format!("{days:+}d")).unwrap();
            let jumped = Instant::now();
            load.more(4).await;
            // And somebody new, whose handshake has the new time.
            let mut client = Client::connect(place.options(&server)).await.unwrap();
            look_up(&mut client, 0).await;
            drop(client.close().await);
            new.since(jumped);
        }
    }
    let calls = load.stop().await;
    record(&format!("clock jumps by days: a new client is served after {new}; {calls}"));
    let said = server.leave().await;
    // The jumps were seen: the log's own times are the wall clock's.
    let days: std::collections::BTreeSet<&str> =
        said.lines().filter_map(|line| line.get(..10)).filter(|day| day.contains('-')).collect();
    assert!(days.len() >= 4, "{days:?}");
}
