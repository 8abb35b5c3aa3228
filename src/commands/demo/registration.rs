//! `sotto demo --registration`: from a person who proves a number to somebody who finds them there.
//!
//! A discovery provider runs a registrar over SQLite. Two application providers register users
//! with it over mutual TLS; one of them is dishonest. A gateway in this process plays the phones.
//! What was vouched for goes through feed, records and database to a phone that looks its contacts
//! up. Then a number gets another holder, and its old mapping is gone. A step that ends otherwise
//! than its story says makes the exit code 2.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::Method;
use ed25519_dalek::SigningKey;
use indicatif::ProgressBar;
use serde_json::{Value, json};
use sotto::builder::keys;
use sotto::client::Outcome;
use sotto::discovery::blind::{self, BlindKey, Derived};
use sotto::discovery::directory::{
    Database, Directory, Issuer, IssuerKey, Pins, Proof, Provider, RecordKey, Remit, RistrettoKey,
    Validity, draft,
};
use sotto::discovery::identifier::Identifier;
use sotto::discovery::jws::base64url;
use sotto::discovery::merge::{self, Time, VALUE_BYTES_DEFAULT};
use sotto::discovery::open::open_sealed;
use sotto::discovery::statement::{Consent, Ssi, consent_text};
use sotto::https::{Client, Response};
use sotto::registrar::channels::{Arrived, Loopback};
use sotto::registrar::service::{self, Registrar, feed};
use sotto::server::certificates;
use sotto::text::{counted, grouped};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::discovery::{DAY, new_user, public, registered, ssi};
use super::parties::Party;
use super::stage::{Args, Error, Serving, build, row};
use crate::commands::out::say;
use crate::commands::trusted::now;

/// The registrar, an issuer of the directory.
const NORTH: &str = "north.example";
/// The application providers. Brook is dishonest.
const AERO: &str = "aero.example";
const BROOK: &str = "brook.example";
const DATABASE: &str = "demo";
/// All numbers are from ranges that are kept free for fiction.
const ALICE: &str = "+491713920012";
const BORIS: &str = "+12015550147";
const CAROL: &str = "carol@example.org";
const DAN: &str = "+491713920034";
/// A line at which every call costs money.
const PREMIUM: &str = "+499001234567";
/// Longest time for a request to the registrar.
const REQUEST_TIME: Duration = Duration::from_secs(10);
const REPLY_BYTES_MAX: usize = 64 << 10;
/// Wrong codes that end a registration.
const GUESSES: usize = 5;
/// A minute seals one set of records: the second set is of a later one.
const LATER: u64 = 120;

/// Shows how people are registered, found, and replaced by the next holder of their number.
pub(super) async fn show(args: &Args, folder: &Path) -> Result<ExitCode, Error> {
    say("Registration: who proves a number is found under it, and nobody else")?;
    let world = World::new(folder)?;
    let mut stage = Stage::start(&world).await?;
    let mut checks = Checks::default();
    say("\n2. Alice, Boris and Carol register with Aero\n")?;
    let alice = stage.register(&world.aero, ALICE, "alice", NewHolder::No).await?;
    stage.register(&world.aero, BORIS, "boris", NewHolder::No).await?;
    stage.register(&world.aero, CAROL, "carol", NewHolder::No).await?;
    say("\n3. Brook claims numbers of people who never asked it to\n")?;
    stage.steal(&world, &mut checks).await?;
    say("\n4. Feed, records, database\n")?;
    let report = world.publish(&stage, args, folder, 0).await?;
    say("\n5. A phone looks them up\n")?;
    let expected = [(ALICE, Some((AERO, "alice"))), (BORIS, Some((AERO, "boris")))];
    let more = [(CAROL, Some((AERO, "carol"))), (DAN, None)];
    let expected = [expected, more].concat();
    look_up(&world, args, folder, report, &expected, &mut checks).await?;
    say("\n6. Alice gives her number up, and Dora gets it\n")?;
    let dora = stage.register(&world.brook, ALICE, "dora", NewHolder::Yes).await?;
    let state = stage.state_of(&world.aero, &alice).await?;
    checks.is(state == "voided", &format!("Alice's registration is {state}"))?;
    let state = stage.state_of(&world.brook, &dora).await?;
    checks.is(state == "active", &format!("Dora's registration is {state}"))?;
    let report = world.publish(&stage, args, folder, LATER).await?;
    let expected = [(ALICE, Some((BROOK, "dora"))), (BORIS, Some((AERO, "boris")))];
    look_up(&world, args, folder, report, &expected, &mut checks).await?;
    stage.end().await;
    if checks.wrong > 0 {
        say(format_args!("\n{} of {} checks are WRONG.", checks.wrong, checks.total))?;
        return Ok(ExitCode::from(2));
    }
    say(format_args!("\nAll {} checks are as the stories say.", checks.total))?;
    Ok(ExitCode::SUCCESS)
}

/// What was compared with its story.
#[derive(Default)]
struct Checks {
    total: usize,
    wrong: usize,
}

impl Checks {
    fn is(&mut self, is_right: bool, what: &str) -> Result<(), Error> {
        self.total += 1;
        self.wrong += usize::from(!is_right);
        Ok(say(format_args!("  {what}{}", if is_right { "" } else { "  WRONG" }))?)
    }
}

/// Whether the person says that somebody else had the number before.
#[derive(Clone, Copy, PartialEq, Eq)]
enum NewHolder {
    No,
    Yes,
}

/// Who takes part, and the directory that has their public keys.
struct World {
    now: u64,
    north: Party,
    aero: Party,
    brook: Party,
    record_key: SigningKey,
    blind_key: BlindKey,
    directory: Directory,
    config: PathBuf,
}

impl World {
    fn new(folder: &Path) -> Result<Self, Error> {
        let now = now()?;
        let north = Party::new(folder, "North", NORTH)?;
        let (aero, brook) =
            (Party::new(folder, "Aero", AERO)?, Party::new(folder, "Brook", BROOK)?);
        let issuer = keys::create(&north.file("issuer.pem"))?;
        let root = keys::create(&folder.join("root.pem"))?;
        let record_key = keys::create(&folder.join("record.pem"))?;
        let operator = keys::create(&folder.join("signing-key.pem"))?;
        let blind_key = BlindKey::generate()?;
        blind_key.create(&folder.join("blind.key"))?;
        let validity = Validity { from: now - DAY, until: now + 400 * DAY };
        let mut content = draft::new(1, vec![public(&root)])?;
        for (domain, name) in [(AERO, "Aero"), (BROOK, "Brook")] {
            let (domain, name) = (domain.to_owned(), name.to_owned());
            let keys_url = format!("https://keys.{domain}/");
            draft::add_provider(&mut content, Provider { index: 0, domain, name, keys_url })?;
        }
        let remit = Remit {
            providers: vec![AERO.to_owned(), BROOK.to_owned()],
            prefixes: Vec::new(),
            regions: Vec::new(),
            proof: Proof::Sms,
        };
        let keys = vec![IssuerKey { key: public(&issuer), validity }];
        let (domain, exempt_before, authority) = (NORTH.to_owned(), None, false);
        let issuer = Issuer { index: 0, domain, keys, remit, exempt_before, authority };
        draft::add_issuer(&mut content, issuer)?;
        let database = Database {
            id: DATABASE.to_owned(),
            operator_key: public(&operator),
            record_keys: vec![RecordKey { index: 0, key: public(&record_key), validity }],
            blinding_key: Some(RistrettoKey(blind_key.public_key())),
            log: None,
            prefixes: Vec::new(),
            region: "EU".to_owned(),
            endpoints: Vec::new(),
        };
        draft::add_database(&mut content, database)?;
        let content = draft::next(content, None, now + 30 * DAY)?;
        let file = draft::sign(&content, &[root])?;
        let pins = Pins::new(content.threshold, content.roots)?;
        fs::write(folder.join("directory.json"), &file)?;
        fs::write(folder.join("pins.json"), pins.to_json())?;
        let directory = Directory::open(file.as_bytes(), &pins, now)?;
        let config = configure(folder, &north, [&aero, &brook])?;
        say(format_args!(
            "\n1. The registrar\n\n  \
             {NORTH} vouches for users of two application providers, Aero and Brook, which the\n  \
             registrar knows by their certificates. Codes, states and statements are in SQLite.",
        ))?;
        Ok(Self { now, north, aero, brook, record_key, blind_key, directory, config })
    }

    /// Writes the feed, makes records of what it says and of many others to hide among, and builds
    /// the next epoch. Says how few records a shard has.
    async fn publish(
        &self,
        stage: &Stage,
        args: &Args,
        folder: &Path,
        later: u64,
    ) -> Result<u64, Error> {
        let (feed, now) = (folder.join("feed"), self.now + later);
        let config = service::Config::read(&self.config)?;
        let written = feed::export(&config, stage.batches(&feed)?, &feed, now).await?;
        let statements = folder.join("statements");
        let folded = feed::statements(&feed, &self.directory, NORTH, &statements)?;
        row("feed", &format!("{}, written to one file each", counted(written.made, "new batch")))?;
        row("statements in force", &grouped(folded.statements))?;
        let others = self.others(args.records, folder)?;
        let out = folder.join("records.csv");
        let summary = merge::run(
            &merge::Options {
                directory: &self.directory,
                database: DATABASE,
                record_key: &self.record_key,
                blind: Some(&self.blind_key),
                value_bytes: VALUE_BYTES_DEFAULT,
                time: Time::Given(now),
                work: &folder.join("work"),
                out: &out,
                report: None,
                filter: None,
                files: &[statements, others],
            },
            &ProgressBar::hidden(),
        )?;
        row("records", &format!("{}, signed and sealed", grouped(summary.tally.records)))?;
        Ok(build(args, folder, out, VALUE_BYTES_DEFAULT as u32).await?.shard_records_min)
    }

    /// Statements about people who registered long ago, made once.
    fn others(&self, count: u64, folder: &Path) -> Result<PathBuf, Error> {
        let path = folder.join("others");
        if path.exists() {
            return Ok(path);
        }
        let issuer =
            keys::load(&self.north.file("issuer.pem"))?.ok_or("the issuer's key is gone")?;
        let mut lines = String::new();
        for number in 0..count {
            let user = new_user()?;
            let sub = Identifier::parse(&format!("guest{number}@example.net"), None)?;
            let (ssi, jti) = (ssi(&sub, AERO)?, format!("guest{number}"));
            let mapping = registered(NORTH, &sub, ssi, jti, self.now - 60, &user);
            lines += &(mapping.sign(&issuer) + "\n");
        }
        fs::write(&path, lines)?;
        Ok(path)
    }
}

/// Writes the registrar's configuration, and makes its secrets.
fn configure(folder: &Path, north: &Party, aps: [&Party; 2]) -> Result<PathBuf, Error> {
    let callers: String = aps.iter().map(|party| &*party.made.ca_pem).collect();
    let callers = north.write("callers-ca.pem", &callers)?;
    let path = |path: PathBuf| path.display().to_string();
    let rules = json!({
        "countries": ["DE", "US"], "messages-a-day": 1_000, "money-a-day": 100_000,
    });
    let config = json!({
        "listen": "127.0.0.1:0",
        "cert": path(north.file("server.pem")),
        "key": path(north.file("server.key")),
        "client-ca": path(callers),
        "issuer": NORTH,
        "issuer-key": path(north.file("issuer.pem")),
        "keys": path(north.file("keys")),
        "database": format!("sqlite:{}", path(north.file("registrar.sqlite"))),
        "directory": path(folder.join("directory.json")),
        "directory-pins": path(folder.join("pins.json")),
        "ap": [
            { "domain": AERO, "name": "Aero", "rules": rules },
            { "domain": BROOK, "name": "Brook", "rules": rules },
        ],
        "fraud": { "prices": { "DE": 75, "US": 8 } },
        "channels": { "dp": "North" },
    });
    let config = north.write("registrar.toml", &toml::to_string(&config)?)?;
    service::init(&service::Config::read(&config)?)?;
    Ok(config)
}

/// The registrar that runs, and the phones.
struct Stage {
    url: String,
    ca_pem: String,
    phones: mpsc::Receiver<Arrived>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Stage {
    async fn start(world: &World) -> Result<Self, Error> {
        let (loopback, phones) = Loopback::new();
        let clock = service::system_clock();
        let registrar = Registrar::start(&world.config, clock, Some(loopback)).await?;
        let url = format!("https://localhost:{}", registrar.local_addr().port());
        let control = registrar.control();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(registrar.run(async move {
            let _ = stopped.await;
        }));
        control.until_database(true).await;
        let ca_pem = world.north.made.ca_pem.clone();
        Ok(Self { url, ca_pem, phones, stop, task })
    }

    async fn end(self) {
        let _ = self.stop.send(());
        let _ = self.task.await;
    }

    /// How many batches of the feed have been written.
    fn batches(&self, feed: &Path) -> Result<u64, Error> {
        match fs::read_dir(feed) {
            Ok(entries) => Ok(entries.count() as u64),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error.into()),
        }
    }

    /// A request of an application provider.
    async fn ask(
        &self,
        ap: &Party,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<Response, Error> {
        let identity = (ap.made.client_pem.as_bytes(), ap.made.client_key.as_bytes());
        let client = Client::new(Some(self.ca_pem.as_bytes()), Some(identity), REQUEST_TIME)?;
        let key = base64url(&sotto::scheme::random_bytes()?);
        let headers = [("idempotency-key", &*key), ("content-type", "application/json")];
        let body = body.map_or_else(Bytes::new, |body| body.to_string().into());
        let url = format!("{}{path}", self.url);
        Ok(client.send(method, &url, &headers, body, REPLY_BYTES_MAX).await?)
    }

    /// Asks for a code. `user` agrees to be found at `handle`.
    async fn request(
        &self,
        ap: &Party,
        sii: &str,
        handle: &str,
        new_holder: NewHolder,
        user: &SigningKey,
    ) -> Result<Response, Error> {
        let sub = Identifier::parse(sii, None)?;
        let (ssi, iat) = (Ssi::new(domain_of(ap), handle)?, now()?);
        let consent = Consent::new(&consent_text(&sub, &ssi, NORTH, iat), user);
        let body = json!({
            "sii": sub.to_uri(),
            "ssi": ssi.as_str(),
            "uk": base64url(&consent.key),
            "up": base64url(&consent.signature),
            "iat": iat,
            "channel": if sub.digits().is_some() { "sms" } else { "email" },
            "language": "en",
            "new_holder": new_holder == NewHolder::Yes,
        });
        self.ask(ap, Method::POST, "/v1/registrations", Some(body)).await
    }

    /// A person registers: the application asks for a code, the person types it in. Gives the name
    /// of the registration.
    async fn register(
        &mut self,
        ap: &Party,
        sii: &str,
        handle: &str,
        new_holder: NewHolder,
    ) -> Result<String, Error> {
        let reply = self.request(ap, sii, handle, new_holder, &new_user()?).await?;
        let id = text(&reply, 202, "id")?;
        let arrived = self.phones.recv().await.ok_or("the gateway has ended")?;
        say(format_args!("  A message to {sii}:\n"))?;
        for line in arrived.text.lines() {
            say(format_args!("    | {line}"))?;
        }
        let (_, code) = arrived.bound_code().ok_or("a message without a code")?;
        let reply = self.enter(ap, &id, code).await?;
        let statement = text(&reply, 200, "statement")?;
        let bytes = statement.len();
        say(format_args!("\n    typed in: {NORTH} vouches for {handle}, {bytes} bytes, signed\n"))?;
        Ok(id)
    }

    async fn enter(&self, ap: &Party, id: &str, code: &str) -> Result<Response, Error> {
        let path = format!("/v1/registrations/{id}/code");
        self.ask(ap, Method::POST, &path, Some(json!({ "code": code }))).await
    }

    async fn state_of(&self, ap: &Party, id: &str) -> Result<String, Error> {
        let reply = self.ask(ap, Method::GET, &format!("/v1/registrations/{id}"), None).await?;
        text(&reply, 200, "state")
    }

    /// What a dishonest application provider tries.
    async fn steal(&mut self, world: &World, checks: &mut Checks) -> Result<(), Error> {
        let (brook, user) = (&world.brook, new_user()?);
        let reply = self.request(brook, ALICE, "mallory", NewHolder::No, &user).await?;
        let id = text(&reply, 202, "id")?;
        let arrived = self.phones.recv().await.ok_or("the gateway has ended")?;
        let first = arrived.text.lines().next().unwrap_or_default();
        say(format_args!("  Alice's phone shows, and she tells nobody:\n\n    | {first}\n"))?;
        let (domain, code) = arrived.bound_code().ok_or("a message without a code")?;
        checks.is(domain == BROOK, "the phone would fill the code in for Brook's domain only")?;
        let right: u32 = code.parse()?;
        for guess in 1..=GUESSES as u32 {
            let wrong = format!("{:06}", (right + guess) % 1_000_000);
            let reply = self.enter(brook, &id, &wrong).await?;
            let left = member(&reply, "tries_left")?;
            let said = format!("guess {guess}: refused ({}), tries left: {left}", reply.status);
            checks.is(reply.status == 409, &said)?;
        }
        let reply = self.enter(brook, &id, code).await?;
        let code = member(&reply, "code")?;
        let said = format!("after that even the right code is refused ({} {code})", reply.status);
        checks.is(reply.status >= 400, &said)?;
        let state = self.state_of(brook, &id).await?;
        checks.is(state == "failed", &format!("Brook's registration is {state}"))?;
        let reply = self.request(brook, PREMIUM, "mallory", NewHolder::No, &user).await?;
        let code = member(&reply, "code")?;
        let said =
            format!("a code to a line that costs money is refused ({} {code})", reply.status);
        checks.is(reply.status == 403, &said)
    }
}

fn domain_of(ap: &Party) -> &'static str {
    if ap.folder.ends_with("Aero") { AERO } else { BROOK }
}

/// A member of a reply that has to have this status.
fn text(reply: &Response, status: u16, name: &str) -> Result<String, Error> {
    if reply.status != status {
        let said = String::from_utf8_lossy(&reply.body);
        return Err(format!("found status {}, expected {status}: {said}", reply.status).into());
    }
    let body: Value = serde_json::from_slice(&reply.body)?;
    let member = body[name].as_str().ok_or_else(|| format!("a reply without {name}"))?;
    Ok(member.to_owned())
}

/// A member of a reply of any status, for people.
fn member(reply: &Response, name: &str) -> Result<String, Error> {
    let body: Value = serde_json::from_slice(&reply.body)?;
    Ok(match &body[name] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    })
}

/// Serves the database, and looks up who is to be found where.
async fn look_up(
    world: &World,
    args: &Args,
    folder: &Path,
    accepted: u64,
    expected: &[(&str, Option<(&str, &str)>)],
    checks: &mut Checks,
) -> Result<(), Error> {
    let made = certificates::localhost()?;
    let (serving, ..) = Serving::open(args, &folder.join("db"), &made).await?;
    let mut client = serving.client(folder, accepted).await?;
    let read = |(sii, _): &(&str, _)| Ok::<_, Error>(Identifier::parse(sii, None)?);
    let identifiers: Vec<Identifier> = expected.iter().map(read).collect::<Result<_, _>>()?;
    let (blinded, elements) = blind::blind(&identifiers)?;
    let evaluated = world.blind_key.evaluate(&elements)?;
    let derived = blinded.finalize(&evaluated, &world.blind_key.public_key())?;
    let keys: Vec<String> = derived.iter().map(Derived::lookup_key).collect();
    let outcomes = client.lookup(&keys).await?.into_iter().collect::<Result<Vec<_>, _>>()?;
    let found = identifiers.iter().zip(&derived).zip(outcomes);
    for ((sii, place), ((sub, derived), outcome)) in expected.iter().zip(found) {
        let contact = match outcome {
            Outcome::Found(value) => {
                Some(open_sealed(sub, derived, &value, &world.directory, world.now + LATER)?)
            }
            Outcome::Absent | Outcome::Invalid => None,
        };
        let services = contact.iter().flat_map(|contact| &contact.services);
        let ssis: Vec<&str> =
            services.filter_map(|service| service.ssi.as_ref()).map(Ssi::as_str).collect();
        let place = place.map(|(domain, handle)| format!("mimi://{domain}/u/{handle}"));
        let said = if ssis.is_empty() { "nowhere".to_owned() } else { ssis.join(" and ") };
        let is_right = ssis == place.as_deref().into_iter().collect::<Vec<_>>();
        checks.is(is_right, &format!("{sii}: {said}"))?;
    }
    drop(client.close().await); // the pins of a database that is removed
    serving.end().await;
    Ok(())
}
