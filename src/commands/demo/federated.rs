//! `sotto demo --federated`: a phone finds people at two providers, and no party learns who asks
//! for whom.
//!
//! Two providers, Aero and Brook, have a database each. Aero serves its own with two replicas;
//! Brook publishes its own on a web server, and the discovery provider serves a copy of it. Both
//! providers run a relay for their users and evaluate blinded identifiers. The discovery provider
//! runs the front-end. Everything crosses real sockets. At the end each party says what it saw. A
//! contact that is not as its story says makes the exit code 2.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ed25519_dalek::{SigningKey, VerifyingKey};
use indicatif::ProgressBar;
use sotto::builder::{self, BuildOptions, Input, Silent, keys};
use sotto::client::OperatorKey;
use sotto::discovery::Resolver;
use sotto::discovery::blind::BlindKey;
use sotto::discovery::directory::{
    Database, Directory, Issuer, IssuerKey, Pins, Proof, Provider, RecordKey, Remit, RistrettoKey,
    Validity, draft,
};
use sotto::discovery::identifier::Identifier;
use sotto::discovery::merge::{self, Time, VALUE_BYTES_DEFAULT};
use sotto::discovery::resolver::{Finding, Options, Report, Resolved, system_clock};
use sotto::https::Client;
use sotto::params::{Shape, ShapeWishes};
use sotto::text::{bytes, counted, grouped};
use sotto::{limits, pull};
use tokio::task::spawn_blocking;

use super::discovery::{DAY, new_user, public, registered, ssi};
use super::parties::{
    FrontEndSetting, Numbers, Party, Placed, publish, start_front_end, start_relay, token, total,
};
use super::stage::{Args, Error, Running, Serving, row};
use crate::commands::out::say;
use crate::commands::trusted::now;

/// Shards of each database: so many that sixteen queries share a key bundle.
const SHARDS: u32 = limits::SHARDS_FOR_ONE_BUNDLE;

/// A provider: its domain, its database, and the numbers that this one covers.
struct Home {
    domain: &'static str,
    name: &'static str,
    database: &'static str,
    prefix: &'static str,
}

const HOMES: [Home; 2] = [
    Home { domain: "aero.example", name: "Aero", database: "aero", prefix: "+49" },
    Home { domain: "brook.example", name: "Brook", database: "brook", prefix: "+1" },
];

/// A contact of the phone. All numbers are from ranges that are kept free for fiction.
struct Entry {
    name: &'static str,
    sii: &'static str,
    /// Which of [`HOMES`] has a record, and whether that is what was signed.
    home: Option<(usize, bool)>,
    story: &'static str,
}

const PHONE_BOOK: [Entry; 7] = [
    Entry { name: "Alice", sii: "+491713920012", home: Some((0, true)), story: "is at Aero" },
    Entry { name: "Boris", sii: "boris@example.org", home: Some((1, true)), story: "is at Brook" },
    Entry { name: "Carol", sii: "+12015550123", home: Some((1, true)), story: "is at Brook" },
    Entry { name: "Dan", sii: "+491713920034", home: None, story: "is at neither" },
    Entry { name: "Erin", sii: "+12015550147", home: None, story: "is at neither" },
    Entry { name: "Farid", sii: "farid@example.org", home: None, story: "is at neither" },
    Entry {
        name: "Grace",
        sii: "+491713920045",
        home: Some((0, false)),
        story: "is at Aero, and somebody changed her record on its way to the builder",
    },
];

/// An operator's keys and files.
struct Operator {
    party: Party,
    issuer: SigningKey,
    record_key: SigningKey,
    operator_key: SigningKey,
    blind_key: BlindKey,
}

impl Operator {
    fn new(folder: &Path, home: &Home) -> Result<Self, Error> {
        let party = Party::new(folder, home.name, &format!("relay.{}", home.domain))?;
        let key = |name: &str| keys::create(&party.file(name));
        let (issuer, record_key) = (key("issuer.pem")?, key("record.pem")?);
        let operator_key = key("operator.pem")?;
        let blind_key = BlindKey::generate()?;
        blind_key.create(&party.file("blind.key"))?;
        Ok(Self { party, issuer, record_key, operator_key, blind_key })
    }

    /// An issuer's word that a person is at this provider, as a line.
    fn mapping(&self, home: &Home, sub: &Identifier, now: u64) -> Result<String, Error> {
        let (user, iat) = (new_user()?, now - 30 * DAY);
        let jti = sotto::discovery::jws::key_id(&user.verifying_key());
        let ssi = ssi(sub, home.domain)?;
        let mapping = registered(home.domain, sub, ssi, jti, iat, &user);
        Ok(mapping.sign(&self.issuer))
    }

    /// Signs and seals records of those who are here and of many others, and builds the database.
    async fn build(&self, home: usize, world: &World, others: u64) -> Result<(), Error> {
        let (place, now) = (&HOMES[home], world.now);
        let mut lines = Vec::new();
        for entry in PHONE_BOOK.iter().filter(|entry| entry.home.is_some_and(|it| it.0 == home)) {
            lines.push(self.mapping(place, &Identifier::parse(entry.sii, None)?, now)?);
        }
        for number in 0..others {
            let guest = format!("guest{number}@{}.example", place.database);
            lines.push(self.mapping(place, &Identifier::parse(&guest, None)?, now)?);
        }
        let statements = self.party.write("statements", &(lines.join("\n") + "\n"))?;
        let out = self.party.file("records.csv");
        let options = merge::Options {
            directory: &world.directory,
            database: place.database,
            record_key: &self.record_key,
            blind: Some(&self.blind_key),
            value_bytes: VALUE_BYTES_DEFAULT,
            time: Time::Given(now),
            work: &self.party.file("work"),
            out: &out,
            report: None,
            filter: None,
            files: &[statements],
        };
        let summary = merge::run(&options, &ProgressBar::hidden())?;
        self.forge(home, &out)?;
        let mut options = BuildOptions::new(Input::File(out), self.party.file("db"));
        options.shards = Some(SHARDS);
        options.value_bytes = Some(VALUE_BYTES_DEFAULT as u32);
        options.signing_key = Some(self.party.file("operator.pem"));
        options.database = Some(place.database.to_owned());
        let report = spawn_blocking(move || builder::run(&options, &Silent)).await??;
        let (records, shape) = (summary.tally.records, &report.shape);
        let packs = counted(shape.packs() as u64, "pack");
        let said = format!("{}, {SHARDS} shards of {packs}", counted(records, "record"));
        Ok(row(place.database, &said)?)
    }

    /// Changes a byte of a sealed record, as somebody could who brings records to the builder.
    fn forge(&self, home: usize, records: &Path) -> Result<(), Error> {
        let mut text = fs::read_to_string(records)?;
        for entry in PHONE_BOOK.iter().filter(|entry| entry.home == Some((home, false))) {
            let key = self.blind_key.derive(&Identifier::parse(entry.sii, None)?).lookup_key();
            let at = text.find(&key).ok_or("this is a bug: the forged record is missing")?;
            // A letter of the value, well behind its beginning.
            let at = at + key.len() + 40;
            let other = if &text[at..=at] == "A" { "B" } else { "A" };
            text.replace_range(at..=at, other);
        }
        Ok(fs::write(records, text)?)
    }
}

/// What everybody knows.
struct World {
    now: u64,
    directory: Directory,
    file: PathBuf,
    pins: Pins,
    pins_file: PathBuf,
}

impl World {
    fn new(folder: &Path, operators: &[Operator; 2]) -> Result<Self, Error> {
        let now = now()?;
        let root = keys::create(&folder.join("root.pem"))?;
        let mut content = draft::new(1, vec![public(&root)])?;
        let validity = Validity { from: now - 400 * DAY, until: now + 400 * DAY };
        for (home, operator) in HOMES.iter().zip(operators) {
            let (domain, name) = (home.domain.to_owned(), home.name.to_owned());
            let keys_url = format!("https://keys.{domain}/");
            let provider =
                Provider { index: 0, domain: domain.clone(), name, keys_url, keys_identity: None };
            draft::add_provider(&mut content, provider)?;
            let remit = Remit {
                providers: vec![domain.clone()],
                prefixes: Vec::new(),
                regions: Vec::new(),
                proof: Proof::Sms,
            };
            let keys = vec![IssuerKey { key: public(&operator.issuer), validity }];
            let (exempt_before, authority) = (None, false);
            let issuer = Issuer { index: 0, domain, keys, remit, exempt_before, authority };
            draft::add_issuer(&mut content, issuer)?;
            let record_key = RecordKey { index: 0, key: public(&operator.record_key), validity };
            let database = Database {
                id: home.database.to_owned(),
                operator_key: public(&operator.operator_key),
                record_keys: vec![record_key],
                blinding_key: Some(RistrettoKey(operator.blind_key.public_key())),
                log: None,
                prefixes: vec![home.prefix.to_owned()],
                region: "EU".to_owned(),
                endpoints: Vec::new(),
            };
            draft::add_database(&mut content, database)?;
        }
        let content = draft::next(content, None, now + 30 * DAY)?;
        let text = draft::sign(&content, &[root])?;
        let pins = Pins::new(content.threshold, content.roots)?;
        let (file, pins_file) = (folder.join("directory.json"), folder.join("pins.json"));
        fs::write(&file, &text)?;
        fs::write(&pins_file, pins.to_json())?;
        let directory = Directory::open(text.as_bytes(), &pins, now)?;
        Ok(Self { now, directory, file, pins, pins_file })
    }
}

/// Shows how contacts are found at two providers.
pub(super) async fn show(args: &Args, folder: &Path) -> Result<ExitCode, Error> {
    say("Federation: one phone, two providers, and nobody who learns who asks for whom")?;
    say("\n1. Two databases, signed by their operators, with blinded keys\n")?;
    let operators = [Operator::new(folder, &HOMES[0])?, Operator::new(folder, &HOMES[1])?];
    let world = World::new(folder, &operators)?;
    for (home, operator) in operators.iter().enumerate() {
        operator.build(home, &world, args.records / 2).await?;
    }
    let stage = Stage::start(args, folder, &world, &operators).await?;
    let wrong = stage.look_up(&world, &operators, folder).await?;
    stage.say_who_saw_what()?;
    stage.end().await;
    let total = PHONE_BOOK.len();
    if wrong > 0 {
        say(format_args!("\n{wrong} of {total} contacts are WRONG."))?;
        return Ok(ExitCode::from(2));
    }
    say(format_args!("\nAll {total} contacts are as their stories say."))?;
    Ok(ExitCode::SUCCESS)
}

/// Everything that runs.
struct Stage {
    /// Two replicas of Aero's database, Brook's own server, and the server of the copy.
    servers: [Serving; 4],
    web: Running<()>,
    /// Those of Aero and Brook evaluate, the last one opens sealed requests.
    front_ends: [Running<Numbers>; 3],
    relays: [Running<Numbers>; 2],
    /// The key by which devices recognise the front-end's keys.
    identity: VerifyingKey,
}

impl Stage {
    async fn start(
        args: &Args,
        folder: &Path,
        world: &World,
        operators: &[Operator; 2],
    ) -> Result<Self, Error> {
        let [aero, brook] = operators;
        let discovery = Party::new(folder, "Discovery", "front-end.discovery.example")?;
        say("\n2. Who takes part\n")?;
        let serve = async |party: &Party, db: &Path| Serving::open(args, db, &party.made).await;
        let (first, engines, _) = serve(&aero.party, &aero.party.file("db")).await?;
        let (second, ..) = serve(&aero.party, &aero.party.file("db")).await?;
        let (own, ..) = serve(&brook.party, &brook.party.file("db")).await?;
        let web = publish(brook.party.file("db")).await?;
        let copy = discovery.file("brook");
        let pulled = pull_database(&web, &copy, brook, world.now).await?;
        let (copied, ..) = serve(&discovery, &copy).await?;
        row("Aero", "two answer servers, a relay; evaluates its identifiers")?;
        row("Brook", "an answer server, a web server, a relay; evaluates its identifiers")?;
        row(
            "Discovery",
            &format!("the front-end, and an answer server of what it pulled: {pulled}"),
        )?;
        row("answers with", &engines.join(", "))?;
        let servers = [first, second, own, copied];
        let (front_ends, identity) = front_ends(world, operators, &discovery, &servers).await?;
        let [.., opens] = &front_ends;
        let front_end = (&discovery, opens.address);
        let relays = [
            start_relay(&aero.party, front_end, None, &aero.issuer).await?,
            start_relay(&brook.party, front_end, None, &brook.issuer).await?,
        ];
        Ok(Self { servers, web, front_ends, relays, identity })
    }

    /// A phone of a user of Aero finds its contacts; one of Brook finds one of them. Counts the
    /// contacts that are not as they should be.
    async fn look_up(
        &self,
        world: &World,
        operators: &[Operator; 2],
        folder: &Path,
    ) -> Result<usize, Error> {
        let read = |entry: &Entry| Ok::<_, Error>(Identifier::parse(entry.sii, None)?);
        let contacts: Vec<Identifier> = PHONE_BOOK.iter().map(read).collect::<Result<_, _>>()?;
        let mut other = self.phone(1, world, operators, folder).await?;
        other.sync(&contacts[..1], |_| {}).await?;
        let mut phone = self.phone(0, world, operators, folder).await?;
        let report = phone.sync(&contacts, |_| {}).await?;
        say("\n3. What the phone found\n")?;
        let mut wrong = 0;
        for (entry, contact) in PHONE_BOOK.iter().zip(&contacts) {
            let found = phone.contact(contact).cloned().unwrap_or_default();
            let is_right = is_expected(entry, &found, world.now);
            wrong += usize::from(!is_right);
            say(format_args!("  {} {}", entry.name, entry.story))?;
            say(format_args!("    {}", told(&found, world.now)))?;
            if !is_right {
                say("    WRONG")?;
            }
        }
        say_bytes(&report)?;
        Ok(wrong)
    }

    /// The phone of a user of a provider.
    async fn phone(
        &self,
        home: usize,
        world: &World,
        operators: &[Operator; 2],
        folder: &Path,
    ) -> Result<Resolver, Error> {
        let operator = &operators[home];
        let token = token(&operator.issuer, &format!("account of {}", HOMES[home].name), world.now);
        let options = Options {
            relay: self.relays[home].url(),
            ca_pem: operator.party.made.ca_pem.clone().into_bytes(),
            token: Box::new(move || token.clone()),
            front_end_key: self.identity,
            state: folder.join(format!("phone-of-{}", HOMES[home].name)),
            state_key: sotto::scheme::random_bytes()?.into(),
            directory_pins: world.pins.clone(),
            pack_records_min: 0, // a demo has few records
            clock: system_clock(),
        };
        Ok(Resolver::open(options).await?)
    }

    fn say_who_saw_what(&self) -> Result<(), Error> {
        say("\n4. What each party saw\n")?;
        for (home, relay) in HOMES.iter().zip(&self.relays) {
            let of = |kind| {
                let labels = [("kind", kind), ("outcome", "answered")];
                total(&relay.shown, "relay_requests_total", &labels)
            };
            let (evaluations, lookups) = (of("evaluate"), of("lookup"));
            let seen = format!(
                "an account with {evaluations} sealed evaluations and {lookups} sealed look-ups"
            );
            row(&format!("{}'s relay", home.name), &seen)?;
        }
        let [aero, brook, discovery] = &self.front_ends;
        for (home, front_end) in HOMES.iter().zip([aero, brook]) {
            let answered = [("outcome", "answered")];
            let asked = total(&front_end.shown, "front_end_evaluate_requests_total", &answered);
            let elements = grouped(asked * limits::DEVICE_BATCH as u64);
            let seen = format!("{elements} blinded elements from a front-end, dummies among them");
            row(&format!("{}'s evaluator", home.name), &seen)?;
        }
        let opened =
            total(&discovery.shown, "front_end_requests_total", &[("outcome", "answered")]);
        row(
            "the front-end",
            &format!("{opened} requests of two relays: shards and packs, no account"),
        )?;
        for (name, servers) in [("Aero's servers", 0..2), ("the copy's server", 3..4)] {
            let count = |server: &Serving| server.running.shown.queries_admitted.get();
            let queries: Vec<u64> = self.servers[servers].iter().map(count).collect();
            let each: Vec<String> = queries.iter().map(|&queries| grouped(queries)).collect();
            let seen = format!("{} queries to all packs, canaries among them", each.join(" and "));
            row(name, &seen)?;
        }
        row("the network", "TLS and QUIC between these, sizes that do not depend on who is there")?;
        Ok(())
    }

    async fn end(self) {
        for relay in self.relays {
            relay.end().await;
        }
        for front_end in self.front_ends {
            front_end.end().await;
        }
        self.web.end().await;
        for server in self.servers {
            server.end().await;
        }
    }
}

/// The front-ends of both providers, which evaluate, and the one that opens sealed requests.
async fn front_ends(
    world: &World,
    operators: &[Operator; 2],
    discovery: &Party,
    servers: &[Serving; 4],
) -> Result<([Running<Numbers>; 3], VerifyingKey), Error> {
    let [aero, brook] = operators;
    let [first, second, own, copied] = servers;
    let parties = [&aero.party, &brook.party, discovery];
    let trusted = parties.map(|party| party.made.ca_pem.as_str()).concat();
    let setting = |party, databases, callers, blind_keys| FrontEndSetting {
        party,
        databases,
        callers,
        blind_keys,
        trusted: trusted.clone(),
        directory: &world.file,
        directory_pins: &world.pins_file,
    };
    let blind_key = |home: usize| {
        let file = operators[home].party.file("blind.key");
        vec![(HOMES[home].database.to_owned(), file)]
    };
    let placed =
        |home: usize, servers, evaluate| Placed { id: HOMES[home].database, servers, evaluate };
    let callers = [("front-end.discovery.example", discovery)];
    let databases = [placed(0, vec![first, second], None)];
    let (one, _) =
        start_front_end(setting(&aero.party, &databases, &callers, blind_key(0))).await?;
    let databases = [placed(1, vec![own], None)];
    let (two, _) =
        start_front_end(setting(&brook.party, &databases, &callers, blind_key(1))).await?;

    let url = |running: &Running<Numbers>| format!("{}/evaluate", running.url());
    let databases =
        [placed(0, vec![first, second], Some(url(&one))), placed(1, vec![copied], Some(url(&two)))];
    let relays = [("relay.aero.example", &aero.party), ("relay.brook.example", &brook.party)];
    let (opens, identity) =
        start_front_end(setting(discovery, &databases, &relays, Vec::new())).await?;
    Ok(([one, two, opens], identity))
}

/// Copies a database from the web server that publishes it, and says how much.
async fn pull_database(
    web: &Running<()>,
    to: &Path,
    operator: &Operator,
    now: u64,
) -> Result<String, Error> {
    let client = Client::with_plain(None, limits::PULL_SILENCE_MAX)?;
    let options = pull::Options {
        url: format!("http://{}", web.address),
        db: to.to_owned(),
        operator_key: OperatorKey(operator.operator_key.verifying_key().to_bytes()),
        bytes_per_second: None,
    };
    let pulled = pull::pull(&client, &options, now, &|_| {}).await?;
    Ok(format!("{} in {}", bytes(pulled.bytes), counted(pulled.files, "file")))
}

fn is_expected(entry: &Entry, found: &Resolved, now: u64) -> bool {
    let refused = found.answers.values().any(|it| matches!(it.finding, Finding::Refused(_)));
    let provider = found.contact(now).map(|contact| &*contact.services[0].provider);
    match entry.home {
        None => provider.is_none() && !refused && !found.is_unknown(),
        Some((home, true)) => provider == Some(HOMES[home].domain) && !refused,
        Some((_, false)) => provider.is_none() && refused,
    }
}

/// What was found, in words.
fn told(found: &Resolved, now: u64) -> String {
    let asked: Vec<&str> = found.answers.keys().map(String::as_str).collect();
    let asked = format!("asked {}", asked.join(" and "));
    if let Some(contact) = found.contact(now) {
        let service = &contact.services[0];
        let ssi = service.ssi.as_ref().map_or("(ask the provider)", |ssi| ssi.as_str());
        return format!("{asked}, found {ssi}, verified");
    }
    let refused = found.answers.values().find_map(|answer| match &answer.finding {
        Finding::Refused(error) => Some(error.to_string()),
        _ => None,
    });
    refused.map_or(format!("{asked}, not found"), |error| format!("{asked}, refused:\n    {error}"))
}

fn say_bytes(report: &Report) -> Result<(), Error> {
    say("\n  What it took:\n")?;
    row("requests", &grouped(report.requests))?;
    row("batches of 16", &grouped(report.batches as u64))?;
    row("up", &bytes(report.bytes_up))?;
    row("down", &bytes(report.bytes_down))?;
    let shape = Shape::for_records(1 << 20, 120, ShapeWishes::default())?;
    let up = shape.query_bytes() + shape.bundle_bytes() / limits::DEVICE_BATCH;
    let down = shape.response_bytes() + shape.hint_bytes();
    let standard =
        format!("{} up and {} down at the standard shape", bytes(up as u64), bytes(down as u64));
    Ok(row("a look-up", &standard)?)
}
