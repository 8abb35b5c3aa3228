//! `sotto demo --discovery`: from signed statements to verified contacts, on this machine.
//!
//! Two issuers vouch for where people are reached. Some of what they and others say has to be
//! refused. The rest becomes signed and sealed records, which are served over QUIC like any others.
//! A phone turns its contacts into look-up keys, looks them up, and opens what it found. Every
//! contact is compared with what its story says; a difference makes the exit code 2.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ed25519_dalek::SigningKey;
use indicatif::ProgressBar;
use sotto::builder::{self, keys};
use sotto::client::{Client, Outcome};
use sotto::discovery::blind::{self, BlindKey, Derived};
use sotto::discovery::directory::{
    Database, Directory, Issuer, IssuerKey, Key, Pins, Proof, Provider, RecordKey, Remit,
    RistrettoKey, Validity, draft,
};
use sotto::discovery::identifier::{Identifier, Region};
use sotto::discovery::merge::{self, Time, VALUE_BYTES_DEFAULT};
use sotto::discovery::open::{Contact, Preferred, open_sealed};
use sotto::discovery::statement::{
    Consent, Mapping, Preference, Purpose, Ssi, Withdrawal, WithdrawnBy,
};
use sotto::text::{bytes, counted, grouped};

use super::stage::{Args, Error, Serving, build, row};
use crate::commands::out::say;
use crate::commands::trusted::now;

/// The providers.
const AERO: &str = "aero.example";
const BROOK: &str = "brook.example";
/// The issuer for German numbers and for addresses, and the one for British and American numbers.
const NORTH: &str = "north.example";
const WEST: &str = "west.example";
/// A database that is built without a name has this one.
const DATABASE: &str = builder::DATABASE_NAME_DEFAULT;
/// Where the phone is: how it reads numbers in national form.
const REGION: Region = Region::DE;
pub(super) const DAY: u64 = 86_400;

/// A contact as the phone has it, and what is to be found.
struct Entry {
    name: &'static str,
    typed: &'static str,
    /// Domains of the services in their order.
    services: &'static [&'static str],
    is_preferred: bool,
    story: &'static str,
}

/// All numbers are from ranges that are kept free for fiction.
const PHONE_BOOK: [Entry; 8] = [
    Entry {
        name: "Alice",
        typed: "0171 3920012",
        services: &[BROOK, AERO],
        is_preferred: true,
        story: "uses two services and prefers one; the number is in national form",
    },
    Entry {
        name: "Boris",
        typed: "Boris@Bücher.example",
        services: &[AERO],
        is_preferred: false,
        story: "has an address with an international domain",
    },
    Entry {
        name: "Carol",
        typed: "+44 7700 900123",
        services: &[],
        is_preferred: false,
        story: "was registered and has withdrawn",
    },
    Entry {
        name: "Dan",
        typed: "+1 (201) 555-0147",
        services: &[BROOK],
        is_preferred: false,
        story: "has the number since its last holder gave it up, who was at Aero",
    },
    Entry {
        name: "Erin",
        typed: "+49 171 39200 23",
        services: &[AERO, BROOK],
        is_preferred: true,
        story: "chose Aero; Brook, just installed, makes itself her choice",
    },
    Entry {
        name: "Farid",
        typed: "0049 171 3920034",
        services: &[AERO, BROOK],
        is_preferred: false,
        story: "chose nothing; somebody forges a choice in his name",
    },
    Entry {
        name: "Grace",
        typed: "+49-171-3920045",
        services: &[],
        is_preferred: false,
        story: "is claimed by an issuer who may not speak about German numbers",
    },
    Entry {
        name: "Heidi",
        typed: "heidi@example.org",
        services: &[],
        is_preferred: false,
        story: "uses none of these services",
    },
];

/// A statement about a contact: about whom, and its line.
type Told = (&'static str, String);

/// Shows how contacts are discovered.
pub(super) async fn show(args: &Args, folder: &Path) -> Result<ExitCode, Error> {
    say("Discovery: from signed statements to contacts that a phone can trust")?;
    let world = World::new(folder)?;
    let told = world.make_statements(args.records, folder)?;
    let records = world.make_records(&told, folder)?;
    say("\n4. The database and its server\n")?;
    let report = build(args, folder, records, VALUE_BYTES_DEFAULT as u32).await?;
    let serving = Serving::start(args, folder).await?;
    let mut client = serving.client(folder, report.shard_records_min).await?;
    let wrong = world.look_up(&mut client).await?;
    drop(client.close().await); // the pins of a database that is removed
    serving.end().await;
    let total = PHONE_BOOK.len();
    if wrong > 0 {
        say(format_args!("\n{wrong} of {total} contacts are WRONG."))?;
        return Ok(ExitCode::from(2));
    }
    say(format_args!("\nAll {total} contacts are as their stories say."))?;
    Ok(ExitCode::SUCCESS)
}

/// The contacts as the phone reads them.
fn identifiers() -> Result<Vec<Identifier>, Error> {
    let read = |entry: &Entry| Ok(Identifier::parse(entry.typed, Some(REGION))?);
    PHONE_BOOK.iter().map(read).collect()
}

/// Who takes part: their private keys, and the directory that has the public ones.
struct World {
    now: u64,
    north: SigningKey,
    west: SigningKey,
    record_key: SigningKey,
    blind_key: BlindKey,
    directory: Directory,
}

impl World {
    fn new(folder: &Path) -> Result<Self, Error> {
        let now = now()?;
        let key = |name: &str| keys::create(&folder.join(name));
        let roots = [key("root-1.pem")?, key("root-2.pem")?];
        let (north, west) = (key("north.pem")?, key("west.pem")?);
        let (record_key, operator) = (key("record.pem")?, key("signing-key.pem")?);
        let blind_key = BlindKey::generate()?;
        blind_key.create(&folder.join("blind.key"))?;

        let root_keys = roots.iter().map(public).collect();
        let mut content = draft::new(2, root_keys)?;
        for (domain, name) in [(AERO, "Aero"), (BROOK, "Brook")] {
            let keys_url = format!("https://keys.{domain}/");
            let (domain, name) = (domain.to_owned(), name.to_owned());
            draft::add_provider(
                &mut content,
                Provider { index: 0, domain, name, keys_url, keys_identity: None },
            )?;
        }
        let validity = Validity { from: now - 400 * DAY, until: now + 400 * DAY };
        for (domain, key, prefixes) in
            [(NORTH, &north, &["+49", "@"][..]), (WEST, &west, &["+44", "+1"])]
        {
            draft::add_issuer(
                &mut content,
                Issuer {
                    index: 0,
                    domain: domain.to_owned(),
                    keys: vec![IssuerKey { key: public(key), validity }],
                    remit: Remit {
                        providers: vec![AERO.to_owned(), BROOK.to_owned()],
                        prefixes: prefixes.iter().map(|&prefix| prefix.to_owned()).collect(),
                        regions: Vec::new(),
                        proof: Proof::Sms,
                    },
                    exempt_before: None,
                    authority: false,
                },
            )?;
        }
        draft::add_database(
            &mut content,
            Database {
                id: DATABASE.to_owned(),
                operator_key: public(&operator),
                record_keys: vec![RecordKey { index: 0, key: public(&record_key), validity }],
                blinding_key: Some(RistrettoKey(blind_key.public_key())),
                log: None,
                prefixes: Vec::new(),
                region: "EU".to_owned(),
                endpoints: Vec::new(),
            },
        )?;
        let content = draft::next(content, None, now + 30 * DAY)?;
        let file = draft::sign(&content, &roots)?;
        fs::write(folder.join("directory.json"), &file)?;
        // What the phone was shipped with.
        let pins = Pins::new(content.threshold, content.roots)?;
        let directory = Directory::open(file.as_bytes(), &pins, now)?;
        say(format_args!(
            "\n1. The directory\n\n  \
             Signed by two root keys, which the phone knows. It names two providers, Aero and\n  \
             Brook, and two issuers that may vouch for their users: {NORTH} for German\n  \
             numbers, {WEST} for British and American ones.",
        ))?;
        Ok(Self { now, north, west, record_key, blind_key, directory })
    }

    /// Writes what everybody says: the stories of the phone book, and many others to hide among.
    fn make_statements(&self, others: u64, folder: &Path) -> Result<Vec<Told>, Error> {
        let told = self.stories()?;
        let mut lines: Vec<String> = told.iter().map(|(_, line)| line.clone()).collect();
        for number in 0..others {
            let key = new_user()?;
            let sub = Identifier::parse(&format!("guest{number}@example.net"), None)?;
            lines.push(self.mapping(&self.north, &sub, AERO, 100, &key)?.sign(&self.north));
        }
        fs::write(folder.join("statements"), lines.join("\n") + "\n")?;
        say(format_args!(
            "\n2. The statements\n\n  \
             {} about the contacts of one phone, and {} about others to hide among.",
            told.len(),
            grouped(others),
        ))?;
        Ok(told)
    }

    fn stories(&self) -> Result<Vec<Told>, Error> {
        let [alice, boris, carol, dan, erin, farid, grace, _] = &identifiers()?[..] else {
            return Err("this is a bug: the phone book has another length".into());
        };
        let (north, west) = (&self.north, &self.west);
        let user = new_user;
        let mut lines = Vec::new();
        let mut add = |whom, line| lines.push((whom, line));

        let (alice_aero, alice_brook) = (user()?, user()?);
        add("Alice", self.mapping(north, alice, AERO, 90, &alice_aero)?.sign(north));
        add("Alice", self.mapping(north, alice, BROOK, 60, &alice_brook)?.sign(north));
        add("Alice", self.preference(alice, BROOK, 50, &alice_brook)?.to_line());

        add("Boris", self.mapping(north, boris, AERO, 70, &user()?)?.sign(north));

        add("Carol", self.mapping(west, carol, AERO, 80, &user()?)?.sign(west));
        let withdrawal = Withdrawal {
            by: WithdrawnBy::Issuer(WEST.to_owned()),
            sub: carol.clone(),
            ssi: None,
            jti: "carol-withdraws".to_owned(),
            iat: self.now - 10 * DAY,
        };
        add("Carol", withdrawal.sign(west));

        add("Dan", self.mapping(west, dan, AERO, 200, &user()?)?.sign(west));
        let mut recycled = self.mapping(west, dan, BROOK, 20, &user()?)?;
        recycled.new_holder = true;
        add("Dan", recycled.sign(west));

        let (erin_aero, erin_brook) = (user()?, user()?);
        add("Erin", self.mapping(north, erin, AERO, 90, &erin_aero)?.sign(north));
        add("Erin", self.preference(erin, AERO, 80, &erin_aero)?.to_line());
        add("Erin", self.mapping(north, erin, BROOK, 1, &erin_brook)?.sign(north));
        add("Erin", self.preference(erin, BROOK, 0, &erin_brook)?.to_line());

        let (farid_aero, farid_brook) = (user()?, user()?);
        add("Farid", self.mapping(north, farid, AERO, 90, &farid_aero)?.sign(north));
        add("Farid", self.mapping(north, farid, BROOK, 60, &farid_brook)?.sign(north));
        let mut forged = self.preference(farid, BROOK, 5, &farid_brook)?;
        forged.user.signature = self.preference(farid, BROOK, 6, &farid_brook)?.user.signature;
        add("Farid", forged.to_line());

        add("Grace", self.mapping(west, grace, AERO, 3, &user()?)?.sign(west));
        Ok(lines)
    }

    /// An issuer's word, `days` old, that a user agreed to.
    fn mapping(
        &self,
        issuer: &SigningKey,
        sub: &Identifier,
        provider: &str,
        days: u64,
        user: &SigningKey,
    ) -> Result<Mapping, Error> {
        let iss = if issuer == &self.north { NORTH } else { WEST };
        let iat = self.now - days * DAY - 60;
        let jti = format!("{provider} {days} {}", Key::from(user.verifying_key()).id());
        Ok(registered(iss, sub, ssi(sub, provider)?, jti, iat, user))
    }

    fn preference(
        &self,
        sub: &Identifier,
        provider: &str,
        days: u64,
        user: &SigningKey,
    ) -> Result<Preference, Error> {
        let time = self.now - days * DAY - 30;
        Ok(Preference::new(sub.clone(), Some(ssi(sub, provider)?), time, user))
    }

    /// Makes signed and sealed records of the statements, and says what was refused.
    fn make_records(&self, told: &[Told], folder: &Path) -> Result<PathBuf, Error> {
        let (out, report) = (folder.join("records.csv"), folder.join("report.jsonl"));
        let summary = merge::run(
            &merge::Options {
                directory: &self.directory,
                database: DATABASE,
                record_key: &self.record_key,
                blind: Some(&self.blind_key),
                value_bytes: VALUE_BYTES_DEFAULT,
                time: Time::Given(self.now),
                work: &folder.join("work"),
                out: &out,
                report: Some(&report),
                filter: None,
                files: &[folder.join("statements")],
            },
            &ProgressBar::hidden(),
        )?;
        say("\n3. The records\n")?;
        let tally = &summary.tally;
        row("made", &format!("{}, signed and sealed", counted(tally.records, "record")))?;
        row("longest", &bytes(tally.value_bytes_longest))?;
        say("\n  Refused, or without effect:\n")?;
        for line in fs::read_to_string(&report)?.lines() {
            let finding: serde_json::Value = serde_json::from_str(line)?;
            let text = |name: &str| finding[name].as_str().unwrap_or_default().to_owned();
            let line = finding["line"].as_u64().unwrap_or_default() as usize;
            let whom = told.get(line.wrapping_sub(1)).map_or("others", |&(whom, _)| whom);
            say(format_args!("  {whom}, line {line}: {}", text("code")))?;
            say(format_args!("    found {}", text("found")))?;
            say(format_args!("    expected {}", text("expected")))?;
        }
        say(
            "\n  The server that gets these records reads neither numbers nor names in them: keys \
             are\n  pseudorandom, and values are sealed.",
        )?;
        Ok(out)
    }

    /// Does what a phone does, and counts the contacts that are not as they should be.
    async fn look_up(&self, client: &mut Client) -> Result<usize, Error> {
        let identifiers = identifiers()?;
        // Whoever has the blinding key sees blinded elements only, and proves that it used this
        // key.
        let (blinded, elements) = blind::blind(&identifiers)?;
        let evaluated = self.blind_key.evaluate(&elements)?;
        let database =
            self.directory.database(DATABASE).ok_or("the directory lost its database")?;
        let public = database.blinding_key.ok_or("the directory lost its blinding key")?;
        let derived = blinded.finalize(&evaluated, &public.0)?;

        let keys: Vec<String> = derived.iter().map(Derived::lookup_key).collect();
        let outcomes = client.lookup(&keys).await?.into_iter().collect::<Result<Vec<_>, _>>()?;
        let call = client.last_call();
        say(format_args!(
            "\n5. The phone looks up {} contacts in one call: {} up, {} down\n",
            keys.len(),
            bytes(call.bytes_up),
            bytes(call.bytes_down),
        ))?;
        let mut wrong = 0;
        for ((entry, sii), (derived, outcome)) in
            PHONE_BOOK.iter().zip(&identifiers).zip(derived.iter().zip(outcomes))
        {
            say(format_args!("  {}, {} = {}", entry.name, entry.typed, sii.as_str()))?;
            say(format_args!("    {}", entry.story))?;
            let contact = match outcome {
                Outcome::Found(value) => {
                    match open_sealed(sii, derived, &value, &self.directory, self.now) {
                        Ok(contact) => Some(contact),
                        Err(refused) => {
                            say(format_args!("    refused: {refused}"))?;
                            None
                        }
                    }
                }
                Outcome::Absent => None,
                Outcome::Invalid => {
                    say("    the answer cannot be believed")?;
                    None
                }
            };
            let is_right = is_expected(entry, contact.as_ref());
            wrong += usize::from(!is_right);
            print(contact.as_ref(), self.now)?;
            say(if is_right { "" } else { "    WRONG\n" })?;
        }
        Ok(wrong)
    }
}

fn is_expected(entry: &Entry, contact: Option<&Contact>) -> bool {
    let found = contact.map_or(&[][..], |contact| &contact.services);
    let is_preferred =
        contact.is_some_and(|contact| matches!(contact.preferred, Preferred::Verified { .. }));
    let domains = found.iter().map(|service| &*service.provider);
    domains.eq(entry.services.iter().copied()) && is_preferred == entry.is_preferred
}

fn print(contact: Option<&Contact>, now: u64) -> Result<(), Error> {
    let Some(contact) = contact else { return Ok(say("    found at no service")?) };
    for (at, service) in contact.services.iter().enumerate() {
        let ssi = service.ssi.as_ref().map_or("(ask the provider)", Ssi::as_str);
        let note = match contact.preferred {
            Preferred::Verified { .. } if at == 0 => " (the choice)",
            _ => "",
        };
        say(format_args!("    {}. {}: {ssi}{note}", at + 1, service.name))?;
    }
    let choice = match contact.preferred {
        Preferred::None => "",
        Preferred::Verified { .. } => "; the choice is signed by the person's own key",
        Preferred::NotVerifiable(_) => "; nobody can verify the choice",
    };
    say(format_args!(
        "    verified: signed by database {} for this identifier, good for {} days{choice}",
        contact.database,
        (contact.expires - now) / DAY,
    ))?;
    Ok(())
}

pub(super) fn public(key: &SigningKey) -> Key {
    Key::from(key.verifying_key())
}

pub(super) fn new_user() -> Result<SigningKey, Error> {
    Ok(SigningKey::from_bytes(&sotto::scheme::random_bytes()?))
}

/// What an issuer says of a user who registered, and agreed, at a time: for a year.
pub(super) fn registered(
    iss: &str,
    sub: &Identifier,
    ssi: Ssi,
    jti: String,
    iat: u64,
    user: &SigningKey,
) -> Mapping {
    let mut mapping = Mapping {
        iss: iss.to_owned(),
        sub: sub.clone(),
        ssi,
        jti,
        iat,
        exp: iat + 365 * DAY,
        proof: if sub.digits().is_some() { Proof::Sms } else { Proof::Email },
        proof_at: iat,
        region: None,
        new_holder: false,
        tags: Vec::new(),
        user: None,
        purpose: Purpose::Register,
    };
    mapping.user = Some(Consent::new(&mapping.consent_text(), user));
    mapping
}

/// The person's name at a provider: the end of the number, or the part before the @.
pub(super) fn ssi(sub: &Identifier, provider: &str) -> Result<Ssi, Error> {
    let handle = match sub.digits() {
        Some(digits) => format!("user{}", &digits[digits.len() - 4..]),
        None => sub.as_str().split('@').next().unwrap_or_default().to_owned(),
    };
    Ok(Ssi::new(provider, &handle)?)
}
