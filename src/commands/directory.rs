//! `sotto directory`: makes, signs and checks the directory, the root of trust of records.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use sotto::builder::keys;
use sotto::discovery::directory::draft::{self, Described};
use sotto::discovery::directory::{
    Content, Database, Directory, DirectoryError, Issuer, IssuerKey, Key, Log, Pins, Proof,
    Provider, RecordKey, Remit, RistrettoKey, Validity,
};
use sotto::discovery::log::LogKey;

use super::trusted::{in_file, load, now, read, read_pins, write};
use super::{Ended, out};

const DAY: u64 = 86_400;

/// Makes, signs and checks the directory: who may vouch for what, and which databases there are.
///
/// A draft is JSON that may be edited by hand; signing checks it. Devices pin the root keys.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
#[expect(clippy::large_enum_variant, reason = "there is one in a run")]
enum Command {
    /// Make an Ed25519 key (PKCS#8 PEM, mode 0600) and print its public key
    Key {
        /// The file, which must not exist
        file: PathBuf,
    },
    New(New),
    #[command(subcommand)]
    Add(Add),
    Sign(Sign),
    Check(Check),
}

/// Make a draft that has root keys and no entries
#[derive(clap::Args)]
struct New {
    /// File of the draft, which must not exist
    draft: PathBuf,
    /// Public key of a root; repeat it for each
    #[arg(long, value_name = "KEY", allow_hyphen_values = true, value_parser = key)]
    #[arg(required = true)]
    root: Vec<Key>,
    /// How many of the roots have to sign
    #[arg(long, value_name = "N")]
    threshold: u32,
}

/// Add an entry to a draft; it gets the next index
#[derive(clap::Subcommand)]
#[expect(clippy::large_enum_variant, reason = "there is one in a run")]
enum Add {
    /// A service at which people are reached
    Provider {
        /// File of the draft
        draft: PathBuf,
        /// What its service identifiers name
        #[arg(long)]
        domain: String,
        /// Its name for people
        #[arg(long)]
        name: String,
        /// Its key service
        #[arg(long, value_name = "URL")]
        keys_url: String,
        /// Public key with which its key service signs its OHTTP keys, as that service says when
        /// it starts [default: nobody asks it]
        #[arg(long, value_name = "KEY", allow_hyphen_values = true, value_parser = key)]
        keys_identity: Option<Key>,
    },
    Issuer(AddIssuer),
    Database(AddDatabase),
}

/// Who vouches for mappings, or with --authority a number authority
#[derive(clap::Args)]
struct AddIssuer {
    /// File of the draft
    draft: PathBuf,
    /// The `iss` of its statements
    #[arg(long)]
    domain: String,
    /// Public key that signs its statements; may be repeated
    #[arg(long, value_name = "KEY", allow_hyphen_values = true, value_parser = key)]
    #[arg(required = true)]
    key: Vec<Key>,
    #[command(flatten)]
    validity: ValidityArgs,
    /// Domain of a provider that it may vouch for; may be repeated
    #[arg(long, value_name = "DOMAIN")]
    provider: Vec<String>,
    /// Beginning of the numbers that it may vouch for, such as +49, or @ for addresses; may be
    /// repeated [default: all]
    #[arg(long, value_name = "PREFIX")]
    prefix: Vec<String>,
    /// Region that it may name; may be repeated
    #[arg(long, value_name = "REGION")]
    region: Vec<String>,
    /// Weakest proof that suffices: self, email, call or sms
    #[arg(long, value_parser = proof, default_value = "sms")]
    proof: Proof,
    /// Its mappings from before this time, in seconds since 1970, need no signature of the user
    #[arg(long, value_name = "TIME")]
    exempt_before: Option<u64>,
    /// It is a number authority: its withdrawals void what any issuer says of its prefixes
    #[arg(long)]
    authority: bool,
}

/// A database of records
#[derive(clap::Args)]
struct AddDatabase {
    /// File of the draft
    draft: PathBuf,
    /// Its name, as in `sotto build --database`
    #[arg(long)]
    id: String,
    /// Public key that signs its parameters
    #[arg(long, value_name = "KEY", allow_hyphen_values = true, value_parser = key)]
    operator_key: Key,
    /// Public key that signs its records; may be repeated
    #[arg(long, value_name = "KEY", allow_hyphen_values = true, value_parser = key)]
    #[arg(required = true)]
    record_key: Vec<Key>,
    #[command(flatten)]
    validity: ValidityArgs,
    /// Public key of its blinding [default: look-up keys are plain]
    #[arg(long, value_name = "KEY", allow_hyphen_values = true, value_parser = ristretto_key)]
    blinding_key: Option<RistrettoKey>,
    /// The log that its epochs are in: its name, and after a space its public key [default: none]
    #[arg(long, value_name = "NAME KEY", value_parser = log)]
    log: Option<Log>,
    /// Beginning of the numbers that it has, such as +49; may be repeated [default: all]
    #[arg(long, value_name = "PREFIX")]
    prefix: Vec<String>,
    /// Where its records lie
    #[arg(long)]
    region: String,
    /// One of its servers; may be repeated
    #[arg(long, value_name = "HOST:PORT")]
    endpoint: Vec<String>,
}

#[derive(clap::Args)]
struct ValidityArgs {
    /// From when on the keys are valid, in seconds since 1970 [default: now]
    #[arg(long, value_name = "TIME")]
    from: Option<u64>,
    /// For how many days the keys are valid
    #[arg(long, value_name = "DAYS", default_value_t = 366)]
    days: u32,
}

/// Sign a draft as the next version, or add signatures to a file that others have signed
#[derive(clap::Args)]
struct Sign {
    /// The draft, or the signed file to which signatures are added
    file: PathBuf,
    /// Root key that signs; may be repeated
    #[arg(long, value_name = "PEM", required = true)]
    key: Vec<PathBuf>,
    /// Where the signed file is written
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// The directory before, whose version and indices decide; none: this is the first version
    #[arg(long, value_name = "FILE")]
    previous: Option<PathBuf>,
    /// Days for which it holds
    #[arg(long, value_name = "DAYS", default_value_t = 30,
          value_parser = clap::value_parser!(u32).range(1..=30))]
    expires_days: u32,
}

/// Check a signed directory as a device does, and print what is in it
#[derive(clap::Args)]
struct Check {
    /// The signed file
    file: PathBuf,
    /// What is trusted and what was seen; updated when the directory is accepted
    #[arg(long, value_name = "FILE")]
    pins: PathBuf,
    /// Make the file of pins from the roots that this directory names itself. Compare them with
    /// what the roots publish
    #[arg(long)]
    trust_on_first_use: bool,
    /// Check as of this time, in seconds since 1970, and update nothing
    #[arg(long, value_name = "TIME")]
    now: Option<u64>,
}

fn key(text: &str) -> Result<Key, &'static str> {
    Key::try_from(text.to_owned())
}

fn log(text: &str) -> Result<Log, String> {
    let (name, text) = text.split_once(' ').ok_or("expected a name, a space and a key")?;
    let key = key(text)?;
    let found = LogKey::new(name, &key.to_bytes()).map_err(|error| error.to_string())?;
    Ok(Log { name: found.name().to_owned(), key })
}

fn ristretto_key(text: &str) -> Result<RistrettoKey, &'static str> {
    RistrettoKey::try_from(text.to_owned())
}

fn proof(text: &str) -> Result<Proof, &'static str> {
    serde_json::from_value(text.into()).map_err(|_| "expected self, email, call or sms")
}

pub(crate) fn run(args: Args) -> Ended {
    match args.command {
        Command::Key { file } => {
            let key = keys::create(&file)?;
            out::say(Key::from(key.verifying_key()))?;
        }
        Command::New(args) => new(args)?,
        Command::Add(args) => add(args)?,
        Command::Sign(args) => sign(args)?,
        Command::Check(args) => check(args)?,
    }
    Ok(ExitCode::SUCCESS)
}

type Done = Result<(), Box<dyn std::error::Error>>;

fn new(args: New) -> Done {
    let draft = draft::new(args.threshold, args.root)?;
    super::folder::write_new(&args.draft, &draft::to_json(&draft), 0o644)?;
    out::report(format_args!("{}: a draft without entries", args.draft.display()));
    Ok(())
}

fn add(args: Add) -> Done {
    match args {
        Add::Provider { draft, domain, name, keys_url, keys_identity } => {
            let provider = Provider { index: 0, domain, name, keys_url, keys_identity };
            edit(&draft, |content| {
                draft::add_provider(content, provider).map(|index| format!("provider {index}"))
            })
        }
        Add::Issuer(args) => {
            let path = args.draft.clone();
            let issuer = args.issuer()?;
            edit(&path, |content| {
                draft::add_issuer(content, issuer).map(|index| format!("issuer {index}"))
            })
        }
        Add::Database(args) => {
            let path = args.draft.clone();
            let database = args.database()?;
            let name = format!("database {}", database.id);
            edit(&path, |content| draft::add_database(content, database).map(|()| name))
        }
    }
}

/// Changes a draft, and prints what was added.
fn edit(path: &Path, change: impl FnOnce(&mut Content) -> Result<String, DirectoryError>) -> Done {
    let mut content = draft::read(&read(path)?).map_err(|error| in_file(path, &error))?;
    let added = change(&mut content)?;
    write(path, &draft::to_json(&content))?;
    out::report(format_args!("{}: {added} added", path.display()));
    Ok(())
}

impl AddIssuer {
    fn issuer(self) -> Result<Issuer, String> {
        let validity = self.validity.validity()?;
        Ok(Issuer {
            index: 0,
            domain: self.domain,
            keys: self.key.into_iter().map(|key| IssuerKey { key, validity }).collect(),
            remit: Remit {
                providers: self.provider,
                prefixes: self.prefix,
                regions: self.region,
                proof: self.proof,
            },
            exempt_before: self.exempt_before,
            authority: self.authority,
        })
    }
}

impl AddDatabase {
    fn database(self) -> Result<Database, String> {
        let validity = self.validity.validity()?;
        let record_key = |key| RecordKey { index: 0, key, validity };
        Ok(Database {
            id: self.id,
            operator_key: self.operator_key,
            record_keys: self.record_key.into_iter().map(record_key).collect(),
            blinding_key: self.blinding_key,
            log: self.log,
            prefixes: self.prefix,
            region: self.region,
            endpoints: self.endpoint,
        })
    }
}

impl ValidityArgs {
    fn validity(&self) -> Result<Validity, String> {
        // Records are issued at the start of a minute, also in the one in which their key is added.
        let from = match self.from {
            Some(from) => from,
            None => now()? / 60 * 60,
        };
        Ok(Validity { from, until: from.saturating_add(u64::from(self.days) * DAY) })
    }
}

fn sign(args: Sign) -> Done {
    let bytes = read(&args.file)?;
    let keys = args.key.iter().map(|path| load(path)).collect::<Result<Vec<_>, _>>()?;
    let previous = args.previous.as_deref().map(previous).transpose()?;
    let signed = if draft::is_signed(&bytes) {
        check_before_signing_too(&args.file, &bytes, previous.as_ref())?;
        draft::add_signatures(&bytes, &keys).map_err(|error| in_file(&args.file, &error))?
    } else {
        if previous.is_none() && args.out.exists() {
            let out = args.out.display();
            return Err(format!(
                "{out} exists: say --previous {out} if this is the version after it, or else name \
                 another file"
            )
            .into());
        }
        let draft = draft::read(&bytes).map_err(|error| in_file(&args.file, &error))?;
        let expires = now()?.saturating_add(u64::from(args.expires_days) * DAY);
        let content = draft::next(draft, previous.as_ref().map(Directory::content), expires)?;
        draft::sign(&content, &keys)?
    };
    // Before the file is written: whether devices will take it.
    let accepted = accepted(signed.as_bytes(), previous.as_ref())?;
    write(&args.out, &signed)?;
    out::report(format_args!("{}: {accepted}", args.out.display()));
    Ok(())
}

/// Refuses to add a signature to what the first signer made of the previous version if an index
/// changed its meaning, which only a look at that version shows.
fn check_before_signing_too(
    path: &Path,
    file: &[u8],
    previous: Option<&Directory>,
) -> Result<(), String> {
    let next = draft::unverified(file).map_err(|error| in_file(path, &error))?;
    match previous {
        Some(previous) => {
            draft::check_successor(previous.content(), &next).map_err(|error| in_file(path, &error))
        }
        None if next.version == 1 => Ok(()),
        None => Err(format!(
            "{} is version {}: give the version before it (--previous FILE), with which it is \
             compared before you sign it",
            path.display(),
            next.version
        )),
    }
}

/// Whether devices that know the previous version, or trust the roots of the first, accept a file.
fn accepted(signed: &[u8], previous: Option<&Directory>) -> Result<String, String> {
    let opened = match previous {
        Some(previous) => Directory::open(signed, &previous.pins(), now()?),
        None => draft::open_unpinned(signed),
    };
    Ok(match opened {
        Ok(directory) => format!("version {}, complete", directory.content().version),
        Err(error) => format!("signed, and not accepted yet: {error}"),
    })
}

fn previous(path: &Path) -> Result<Directory, String> {
    draft::open_unpinned(&read(path)?).map_err(|error| in_file(path, &error))
}

fn check(args: Check) -> Done {
    let bytes = read(&args.file)?;
    let pins = match (args.pins.exists(), args.trust_on_first_use) {
        (true, _) => read_pins(&args.pins)?,
        (false, true) => {
            let named = draft::open_unpinned(&bytes).map_err(|e| in_file(&args.file, &e))?;
            let content = named.content();
            Pins::new(content.threshold, content.roots.clone())?
        }
        (false, false) => {
            let pins = args.pins.display();
            return Err(format!(
                "there are no pins in {pins}: get them from those who run the directory, or say \
                 --trust-on-first-use and compare the root keys that are printed"
            )
            .into());
        }
    };
    let time = args.now.map_or_else(now, Ok)?;
    let directory =
        Directory::open(&bytes, &pins, time).map_err(|error| in_file(&args.file, &error))?;
    if args.now.is_none() && directory.pins() != pins {
        write(&args.pins, &directory.pins().to_json())?;
    }
    out::say(Described(directory.content()))?;
    Ok(())
}
