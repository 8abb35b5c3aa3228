//! kill -9 of an answer server, the front-end, the relay and the device, each a program, while a
//! device synchronises: afterwards every contact resolves, and no secret has encrypted twice. Then
//! crowds of connections that are never used, at the same relay and front-end.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use sotto::discovery::identifier::Identifier;
use sotto::discovery::resolver::Resolver;
use sotto::limits;

use crate::estate::{estate, placed};
use crate::harness::program::{Program, any, run_beside, sotto};
use crate::harness::{http, until};
use crate::links::{Exchange, Link, Tap};
use crate::recorded::{OnceOnly, is_found};
use crate::world::{ONE, TWO, handle, now, number};

/// A program in the folder of what all share.
fn command(arguments: &[&str]) -> Command {
    let mut command = sotto(arguments);
    command.current_dir(estate().folder());
    command
}

fn serve(database: &str, listen: SocketAddr) -> Program {
    let listen = listen.to_string();
    let files = ["--cert", "server.pem", "--key", "server.key", "--admin", "off"];
    let work = ["--engine", "cpu", "--threads", "1", "--listen", &listen];
    Program::start(command(&[&["serve", "--db", database], &files[..], &work].concat()), None)
}

/// The address of its endpoints for the operator: the log may be a little behind.
async fn admin_of(program: &Program) -> SocketAddr {
    let named = || -> Option<SocketAddr> {
        program.said().split("http://").nth(1)?.split('/').next()?.parse().ok()
    };
    until("the log names the admin endpoints", || named().is_some()).await;
    named().unwrap()
}

/// All parties as programs, with a recorder between relay and front-end.
struct Programs {
    folder: tempfile::TempDir,
    /// Replicas of the first database, and the server of the second.
    servers: [Option<Program>; 3],
    evaluator: Option<Program>,
    front_end: Option<Program>,
    relay: Option<Program>,
    to_relay: Tap,
    to_front_end: Link,
    sent: Vec<Exchange>,
}

impl Programs {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let servers = [serve(ONE, any()), serve(ONE, any()), serve(TWO, any())];
        let [first, second, other] = [0, 1, 2].map(|at| servers[at].address);
        let mut programs = Self {
            folder,
            servers: servers.map(Some),
            evaluator: None,
            front_end: None,
            relay: None,
            to_relay: Tap::start(any()).await,
            to_front_end: Link::start(any(), &estate().tls(true), estate().client()).await,
            sent: Vec::new(),
        };
        std::fs::write(programs.path("evaluator.toml"), placed(ONE, &[first], None)).unwrap();
        let evaluator = programs.front_end_of("evaluator", &["--blind-key", "one=blind.key"]);
        let url = format!("https://localhost:{}", evaluator.address.port());
        programs.evaluator = Some(evaluator);
        let placement = placed(ONE, &[first, second], Some(&url)) + &placed(TWO, &[other], None);
        std::fs::write(programs.path("front-end.toml"), placement).unwrap();
        programs.start_front_end();
        programs.start_relay();
        programs
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn front_end_of(&self, name: &str, more: &[&str]) -> Program {
        let (placement, keys) = (self.text(&format!("{name}.toml")), self.text(name));
        let files = [
            ["--cert", "server.pem"],
            ["--key", "server.key"],
            ["--relay-ca", "ca.pem"],
            ["--relays", "relays"],
            ["--ohttp-keys", &keys],
            ["--identity", "identity.pem"],
            ["--directory", "directory.json"],
            ["--directory-pins", "pins.json"],
            ["--placement", &placement],
            ["--ca", "ca.pem"],
            ["--client-cert", "client.pem"],
            ["--client-key", "client.key"],
        ];
        let others = ["--accept-shard-records", "1", "--canary-seconds", "3600"];
        let at = ["front-end", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
        Program::start(command(&[&at[..], &files.concat(), &others, more].concat()), None)
    }

    fn start_front_end(&mut self) {
        let front_end = self.front_end_of("front-end", &[]);
        self.to_front_end.lead_to(front_end.address);
        self.front_end = Some(front_end);
    }

    fn start_relay(&mut self) {
        let (url, state) = (self.to_front_end.url(), self.text("relay-state"));
        let files = [
            ["--cert", "server.pem"],
            ["--key", "server.key"],
            ["--front-end", &url],
            ["--front-end-ca", "ca.pem"],
            ["--client-cert", "client.pem"],
            ["--client-key", "client.key"],
            ["--accounts", "jwks:accounts.jwks"],
            ["--state", &state],
        ];
        let at = ["relay", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
        let relay = Program::start(command(&[&at[..], &files.concat()].concat()), None);
        self.to_relay.lead_to(relay.address);
        self.relay = Some(relay);
    }

    async fn device(&self, name: &str) -> Resolver {
        let clock = Arc::new(AtomicU64::new(now()));
        let options = estate().device(self.to_relay.url(), self.path(name), clock);
        Resolver::open(options).await.unwrap()
    }

    /// `sotto resolve` of these contacts, as the device of a name.
    fn resolve(&self, name: &str, contacts: &[Identifier]) -> Command {
        let (url, state) = (self.to_relay.url(), self.text(name));
        let state_key = format!("{state}.key");
        let files = [
            ["--relay", &url],
            ["--relay-ca", "ca.pem"],
            ["--token-file", "token"],
            ["--front-end-keys", "front-end.pub"],
            ["--directory-pins", "pins.json"],
            ["--state", &state],
            ["--state-key", &state_key],
            ["--accept-pack-records", "1"],
        ];
        let contacts: Vec<&str> = contacts.iter().map(Identifier::as_str).collect();
        command(&[&["resolve", "--json"][..], &files.concat(), &contacts].concat())
    }

    /// Waits until look-ups are on their way.
    async fn until_lookups(&self) {
        until("look-ups are on their way", || self.to_front_end.lookups() >= 2).await;
    }

    /// All that devices have sent so far keeps the rule on secrets.
    fn check_once_only(&mut self) {
        self.sent.extend(self.to_front_end.take());
        let mut once_only = OnceOnly::default();
        once_only.add_inner(&estate().opened(&self.path("front-end"), now(), &self.sent));
        assert!(once_only.queries > 0);
    }
}

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Victim {
    Replica,
    FrontEnd,
    Relay,
}

/// Forty contacts of the first database that no other round has.
fn contacts(round: u64) -> Vec<Identifier> {
    (40 * round..40 * round + 40).map(number).collect()
}

/// A device synchronises, and somebody is killed while its look-ups wait for their answers.
async fn killed(programs: &mut Programs, victim: Victim, round: u64) {
    let (mut device, all) = (programs.device(&format!("{victim:?}")).await, contacts(round));
    programs.sent.extend(programs.to_front_end.take());
    let kill = async {
        match victim {
            // It takes queries, and answers none, until it is killed.
            Victim::Replica => programs.servers[0].as_ref().unwrap().signal(Signal::STOP),
            _ => programs.to_front_end.hold(true),
        }
        programs.until_lookups().await;
        match victim {
            Victim::Replica => {
                let replica = programs.servers[0].take().unwrap();
                let address = replica.address;
                replica.kill();
                programs.servers[0] = Some(serve(ONE, address));
            }
            Victim::FrontEnd => {
                programs.front_end.take().unwrap().kill();
                programs.to_front_end.break_all();
                programs.start_front_end();
            }
            Victim::Relay => {
                programs.relay.take().unwrap().kill();
                programs.start_relay();
            }
        }
        programs.to_front_end.hold(false);
    };
    let begun = Instant::now();
    let (synced, ()) = tokio::join!(device.sync(&all, |_| {}), kill);
    println!("{victim:?} killed: synchronised after {} ms", begun.elapsed().as_millis());
    // Whatever was not asked in the end is due.
    if synced.is_err() {
        device.sync(&all, |_| {}).await.unwrap_or_else(|error| panic!("{victim:?}: {error}"));
    }
    let missing = all.iter().filter(|it| !is_found(&device, it, now())).count();
    assert_eq!(missing, 0, "{victim:?}: {:?}", device.report());
    programs.check_once_only();
    // The next one finds everybody there.
    let one_more = number(640 + round);
    let resolved = device.resolve(&one_more).await.unwrap();
    assert!(resolved.contact(now()).is_some(), "{victim:?}");
}

/// The device itself is killed, and started again.
async fn killed_device(programs: &mut Programs, round: u64) {
    let all = contacts(round);
    programs.sent.extend(programs.to_front_end.take());
    programs.to_front_end.hold(true);
    let mut command = programs.resolve("device", &all);
    let mut child = command.stdout(Stdio::null()).spawn().unwrap();
    programs.until_lookups().await;
    child.kill().unwrap();
    child.wait().unwrap();
    programs.to_front_end.break_all();
    programs.to_front_end.hold(false);
    let (code, out, err) = run_beside(programs.resolve("device", &all)).await;
    assert_eq!(code, 0, "{err}");
    assert_eq!(out.lines().filter(|line| line.contains(r#""result":"found""#)).count(), 40);
    programs.check_once_only();
    // The owner is one of them, and has registered somewhere else than a database says.
    for (registered, code) in [(handle(&all[0]), 0), ("somebody-else".to_owned(), 3)] {
        let key = "A".repeat(43);
        let ssi = format!("mimi://a.example/u/{registered}");
        let services = [serde_json::json!({ "ssi": ssi, "key": key })];
        let own = [serde_json::json!({ "identifier": all[0].as_str(), "services": services })];
        let file = programs.path("own.json");
        std::fs::write(&file, serde_json::to_string(&own).unwrap()).unwrap();
        let mut command = programs.resolve("device", &all[..1]);
        command.arg("--own").arg(&file);
        let (found, out, err) = run_beside(command).await;
        assert_eq!(found, code, "{out}{err}");
        assert_eq!(out.contains("unknown mapping"), code == 3, "{out}");
    }
}

/// Connections of a crowd. Half of them begin a handshake.
const CROWD: u64 = 10_000;

/// As many files as this process may have; how many of a crowd that lets it hold.
fn crowd() -> u64 {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    let crowd = maximum.map_or(CROWD, |files| CROWD.min(files.saturating_sub(1_000)));
    println!("a crowd of {crowd} connections");
    crowd
}

/// Memory without the pages of files, in MiB, and open files.
fn held(program: &Program) -> (u64, u64) {
    let of = |name: &str| format!("/proc/{}/{name}", program.pid());
    let status = std::fs::read_to_string(of("status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    let kib: u64 = line.trim().strip_suffix(" kB").unwrap().parse().unwrap();
    (kib / 1024, std::fs::read_dir(of("fd")).unwrap().count() as u64)
}

/// A crowd connects and says nothing, or half a word: a device is served all the same, and the
/// program holds no more than it may.
async fn crowded(programs: &Programs, program: &Program, handshakes: usize, contact: u64) {
    let (crowd, before) = (crowd(), held(program));
    let mut silent = Vec::new();
    for number in 0..crowd {
        let mut stream = tokio::net::TcpStream::connect(program.address).await.unwrap();
        if number % 2 == 0 {
            // The beginning of a TLS record.
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, &[22, 3, 1]).await;
        }
        silent.push(stream);
    }
    let admin = admin_of(program).await;
    let displaced = async || -> u64 {
        let page = http::request(admin, "GET /metrics", "localhost", "").await.unwrap().body;
        let name = "sotto_https_connections_ended_total{reason=\"handshake_displaced\"} ";
        page.lines().find_map(|line| line.strip_prefix(name)).unwrap().parse().unwrap()
    };
    // A new device, so that every connection of it is a new one.
    let mut device = programs.device(&format!("crowd-{contact}")).await;
    let resolved = device.resolve(&number(contact)).await.unwrap();
    assert!(resolved.contact(now()).is_some());
    let ended = displaced().await;
    assert!(ended >= crowd - handshakes as u64, "{ended} were ended");
    let (mib, files) = held(program);
    println!("before the crowd {before:?} (MiB, files), with it {:?}", (mib, files));
    assert!(mib < before.0 + 64 && files < before.1 + handshakes as u64 + 100, "{mib} {files}");
    drop(silent);
}

#[tokio::test(flavor = "multi_thread")]
async fn parties_that_are_killed_lose_nothing_and_crowds_keep_nobody_away() {
    let mut programs = Programs::start().await;
    let victims = [Victim::Replica, Victim::FrontEnd, Victim::Relay];
    for (round, victim) in (0..).zip(victims) {
        killed(&mut programs, victim, round).await;
    }
    killed_device(&mut programs, 3).await;
    let relay = programs.relay.as_ref().unwrap();
    crowded(&programs, relay, limits::RELAY_HANDSHAKES_MAX, 650).await;
    let front_end = programs.front_end.as_ref().unwrap();
    crowded(&programs, front_end, limits::FRONT_END_HANDSHAKES_MAX, 651).await;
    programs.check_once_only();
    // None of them has panicked, and each leaves when it is told to.
    let Programs { servers, evaluator, front_end, relay, .. } = programs;
    for program in servers.into_iter().chain([evaluator, front_end, relay]).flatten() {
        program.leave().await;
    }
}
