//! The parties of the demo, the directory that has their public keys, and the database that is made
//! of what was vouched for.

use std::fs;
use std::path::{Path, PathBuf};

use ed25519_dalek::SigningKey;
use indicatif::ProgressBar;
use sotto::builder::keys;
use sotto::discovery::blind::BlindKey;
use sotto::discovery::directory::{
    Content, Database, Directory, Issuer, IssuerKey, Log, Pins, Proof, Provider, RecordKey, Remit,
    RistrettoKey, Validity, draft,
};
use sotto::discovery::identifier::Identifier;
use sotto::discovery::log::LogKey;
use sotto::discovery::merge::{self, Time, VALUE_BYTES_DEFAULT};
use sotto::discovery::statement::Ssi;
use sotto::registrar::Store;
use sotto::registrar::log::client::LogClient;
use sotto::registrar::service::{self, feed};
use sotto::text::grouped;

use super::story::{AERO, BROOK, DATABASE, LEDGER, NORTH, SOUTH};
use crate::commands::demo::discovery::{DAY, new_user, public, registered, ssi};
use crate::commands::demo::parties::Party;
use crate::commands::demo::stage::{Args, Error, build, row};
use crate::commands::log_service::prove;
use crate::commands::out::say;
use crate::commands::trusted::now;

/// The name of the log, and its origin in checkpoints.
pub(super) const LOG_NAME: &str = "ledger.example/1";

/// Who takes part, and the directory that has their public keys.
pub(super) struct World {
    pub(super) folder: PathBuf,
    pub(super) now: u64,
    pub(super) north: Party,
    pub(super) aero: Party,
    pub(super) brook: Party,
    pub(super) ledger: Party,
    /// Sign the tokens of accounts at the providers.
    pub(super) aero_accounts: SigningKey,
    pub(super) brook_accounts: SigningKey,
    pub(super) blind_key: BlindKey,
    pub(super) directory: Directory,
    root: SigningKey,
    record_key: SigningKey,
    log_key: SigningKey,
    /// PostgreSQL, where it is used.
    postgres: Option<String>,
}

/// An epoch that is built and logged.
pub(super) struct Published {
    pub(super) shard_records_min: u64,
    /// That it is in the log, as front-ends give it out.
    pub(super) proofs: Vec<u8>,
}

impl World {
    pub(super) async fn new(args: &Args, folder: &Path) -> Result<Self, Error> {
        let now = now()?;
        let north = Party::new(folder, "North", NORTH)?;
        let ledger = Party::new(folder, "Ledger", LEDGER)?;
        let (aero, brook) =
            (Party::new(folder, "Aero", AERO)?, Party::new(folder, "Brook", BROOK)?);
        let issuer = keys::create(&north.file("issuer.pem"))?;
        let south = keys::create(&folder.join("south.pem"))?;
        let root = keys::create(&folder.join("root.pem"))?;
        let record_key = keys::create(&folder.join("record.pem"))?;
        let operator = keys::create(&folder.join("signing-key.pem"))?;
        let log_key = keys::create(&ledger.file("log-key.pem"))?;
        let identity = keys::create(&aero.file("identity.pem"))?;
        let aero_accounts = keys::create(&aero.file("accounts.pem"))?;
        let brook_accounts = keys::create(&brook.file("accounts.pem"))?;
        let blind_key = BlindKey::generate()?;
        blind_key.create(&folder.join("blind.key"))?;
        let validity = Validity { from: now - DAY, until: now + 400 * DAY };
        let mut content = draft::new(1, vec![public(&root)])?;
        for (domain, name, identity) in [(AERO, "Aero", Some(&identity)), (BROOK, "Brook", None)] {
            let (domain, name) = (domain.to_owned(), name.to_owned());
            let keys_url = format!("https://keys.{domain}/");
            let keys_identity = identity.map(public);
            let provider = Provider { index: 0, domain, name, keys_url, keys_identity };
            draft::add_provider(&mut content, provider)?;
        }
        for (domain, key) in [(NORTH, &issuer), (SOUTH, &south)] {
            let remit = Remit {
                providers: vec![AERO.to_owned(), BROOK.to_owned()],
                prefixes: Vec::new(),
                regions: Vec::new(),
                proof: Proof::Sms,
            };
            let keys = vec![IssuerKey { key: public(key), validity }];
            let (domain, exempt_before, authority) = (domain.to_owned(), None, false);
            let issuer = Issuer { index: 0, domain, keys, remit, exempt_before, authority };
            draft::add_issuer(&mut content, issuer)?;
        }
        let database = Database {
            id: DATABASE.to_owned(),
            operator_key: public(&operator),
            record_keys: vec![RecordKey { index: 0, key: public(&record_key), validity }],
            blinding_key: Some(RistrettoKey(blind_key.public_key())),
            log: Some(Log { name: LOG_NAME.to_owned(), key: public(&log_key) }),
            prefixes: Vec::new(),
            region: "EU".to_owned(),
            endpoints: Vec::new(),
        };
        draft::add_database(&mut content, database)?;
        let pins = Pins::new(content.threshold, content.roots.clone())?;
        fs::write(folder.join("pins.json"), pins.to_json())?;
        let content = draft::next(content, None, now + 30 * DAY)?;
        let directory = sign(folder, &content, &root, now)?;
        let folder = folder.to_owned();
        let postgres = args.postgres.clone();
        let world = Self {
            folder,
            now,
            north,
            aero,
            brook,
            ledger,
            aero_accounts,
            brook_accounts,
            blind_key,
            directory,
            root,
            record_key,
            log_key,
            postgres,
        };
        world.prepare_postgres().await?;
        Ok(world)
    }

    /// The directory's next version has the address that Aero's key service got.
    pub(super) fn set_key_service(&mut self, keys_url: String) -> Result<(), Error> {
        let before = self.directory.content();
        let mut content = before.clone();
        for provider in content.providers.iter_mut().filter(|provider| provider.domain == AERO) {
            provider.keys_url.clone_from(&keys_url);
        }
        let content = draft::next(content, Some(before), self.now + 30 * DAY)?;
        self.directory = sign(&self.folder, &content, &self.root, self.now)?;
        Ok(())
    }

    pub(super) fn directory_file(&self) -> PathBuf {
        self.folder.join("directory.json")
    }

    pub(super) fn pins_file(&self) -> PathBuf {
        self.folder.join("pins.json")
    }

    pub(super) fn log_key(&self) -> Result<LogKey, Error> {
        Ok(LogKey::new(LOG_NAME, self.log_key.verifying_key().as_bytes())?)
    }

    /// The database of one of the services: a file of `party`, or a schema of PostgreSQL.
    pub(super) fn store(&self, party: &Party, name: &str) -> String {
        match &self.postgres {
            None => format!("sqlite:{}", party.file(&format!("{name}.sqlite")).display()),
            Some(url) => {
                let joint = if url.contains('?') { '&' } else { '?' };
                format!("{url}{joint}options[search_path]={}", schema(name))
            }
        }
    }

    /// Drops and creates the schemas of this demo: codes that an earlier run sent would count.
    async fn prepare_postgres(&self) -> Result<(), Error> {
        let Some(url) = &self.postgres else { return Ok(()) };
        let made = Store::renew_schemas(url, &STORES.map(schema)).await;
        made.map_err(|error| format!("--postgres cannot be used: {error}").into())
    }

    /// Writes the feed, makes records of what it says and of many others to hide among, builds the
    /// next epoch, and has it logged.
    pub(super) async fn publish(
        &self,
        log_url: &str,
        args: &Args,
        later: u64,
    ) -> Result<Published, Error> {
        let (folder, now) = (&self.folder, self.now + later);
        let feed = folder.join("feed");
        let config = service::Config::read(&self.north.file("registrar.toml"))?;
        let written = feed::export(&config, batches(&feed)?, &feed, now).await?;
        let statements = folder.join("statements");
        let folded = feed::statements(&feed, &self.directory, NORTH, &statements)?;
        row("new batches of feed", &grouped(written.made))?;
        row("statements in force", &grouped(folded.statements))?;
        let mut files = vec![statements, self.others(args.records)?];
        files.extend(Some(self.forged()).filter(|forged| forged.exists()));
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
                files: &files,
            },
            &ProgressBar::hidden(),
        )?;
        row("records", &format!("{}, signed and sealed", grouped(summary.tally.records)))?;
        let built = build(args, folder, out, VALUE_BYTES_DEFAULT as u32).await?;
        let log = LogClient::new(self.north.client(&self.ledger)?, log_url);
        let proved = prove(&log, &folder.join("db")).await?;
        let (epoch, place) = (proved.manifest.epoch, proved.place);
        row("log", &format!("the manifest of epoch {epoch} is entry {place} of {LEDGER}"))?;
        Ok(Published { shard_records_min: built.shard_records_min, proofs: proved.file })
    }

    fn forged(&self) -> PathBuf {
        self.folder.join("south-statements")
    }

    /// Has South vouch for somebody whom it never had prove the number.
    pub(super) fn forge(&self, sii: &str, provider: &str, handle: &str) -> Result<(), Error> {
        let issuer = keys::load(&self.folder.join("south.pem"))?.ok_or("South's key is gone")?;
        let (sub, ssi) = (Identifier::parse(sii, None)?, Ssi::new(provider, handle)?);
        let mapping = registered(SOUTH, &sub, ssi, handle.to_owned(), self.now, &new_user()?);
        Ok(fs::write(self.forged(), mapping.sign(&issuer) + "\n")?)
    }

    /// Statements about people who registered long ago, made once.
    fn others(&self, count: u64) -> Result<PathBuf, Error> {
        let path = self.folder.join("others");
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

    pub(super) fn introduce(&self) -> Result<(), Error> {
        let kept = if self.postgres.is_some() { "PostgreSQL" } else { "SQLite" };
        Ok(say(format_args!(
            "\n1. The services\n\n  \
             {NORTH} vouches for users of two application providers, Aero and Brook, which\n  \
             its registrar knows by their certificates. {LEDGER} runs the log of what is\n  \
             vouched for and of the epochs that are made of it. Aero hands out keys of its\n  \
             users, and Brook's relay passes sealed requests on. Codes, states, statements,\n  \
             log and keys are in {kept}.\n",
        ))?)
    }
}

/// Names of the services' databases.
pub(super) const STORES: [&str; 3] = ["registrar", "log", "keys"];

fn schema(name: &str) -> String {
    format!("sotto_demo_{name}")
}

/// Signs a version of the directory, writes it, and opens it.
fn sign(folder: &Path, content: &Content, root: &SigningKey, now: u64) -> Result<Directory, Error> {
    let file = draft::sign(content, std::slice::from_ref(root))?;
    fs::write(folder.join("directory.json"), &file)?;
    let pins = Pins::new(content.threshold, content.roots.clone())?;
    Ok(Directory::open(file.as_bytes(), &pins, now)?)
}

/// How many batches of the feed have been written.
fn batches(feed: &Path) -> Result<u64, Error> {
    match fs::read_dir(feed) {
        Ok(entries) => Ok(entries.count() as u64),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error.into()),
    }
}
