//! `sotto resolve`: a device in one command. Resolves contacts through a relay and prints what was
//! found and verified.
//!
//! Nothing is printed before the last answer is there and the connection is given up, so that no
//! byte that is sent, and no time at which it is sent, depends on what was found or on who reads
//! what is printed. Exit code 0: all found; 1: some not found; 2: an error, or some not answered;
//! 3: a mapping of the owner that the owner does not know; 130: interrupted, and then nothing is
//! printed.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use sotto::discovery::contacts::Contacts;
use sotto::discovery::identifier::{Identifier, Region};
use sotto::discovery::jws::from_base64url;
use sotto::discovery::open::{Contact, Preferred};
use sotto::discovery::resolver::{
    EndedBy, Finding, Options, Own, OwnService, Progress, Report, ResolveError, Resolved, Resolver,
    Unknown, read_front_end_key, state_key, system_clock,
};
use sotto::discovery::statement::Ssi;
use sotto::limits;
use sotto::shard::files::read_regular;
use sotto::text::{self, counted};

use super::trusted::{in_file, read_pins};
use super::{Ended, out};

/// Resolves contacts through a relay: neither the relay nor the front-end learns who asks for whom.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The relay, such as https://relay.example
    #[arg(long, value_name = "URL")]
    relay: String,
    /// Certificates (PEM) of the authorities that sign the relay's certificate
    #[arg(long, value_name = "PEM")]
    relay_ca: PathBuf,
    /// File with the token of the account at the relay
    #[arg(long, value_name = "FILE")]
    token_file: PathBuf,
    /// The long-term key (Ed25519, public) with which the front-end signs its keys, in base64url or
    /// PEM
    #[arg(long, value_name = "FILE")]
    front_end_keys: PathBuf,
    /// Pins that the first directory is checked with; later ones are in the state
    #[arg(long, value_name = "FILE")]
    directory_pins: PathBuf,
    /// File that keeps what this device knows, sealed. It is made if it is not there.
    #[arg(long, value_name = "FILE")]
    state: PathBuf,
    /// Key that seals the state, 32 bytes. It is made if it is not there.
    #[arg(long, value_name = "FILE")]
    state_key: PathBuf,
    /// Country whose numbers are read without + and country code, such as DE
    #[arg(long)]
    region: Option<Region>,
    /// The least number of records in a pack that is accepted. Towards the front-end a look-up
    /// hides among them.
    #[arg(long, value_name = "N", default_value_t = limits::RECORDS_PER_PACK_ACCEPTED_MIN)]
    accept_pack_records: u64,
    /// Resolve everybody in an address book (vCard 3 or 4)
    #[arg(long, value_name = "VCF", conflicts_with = "contact")]
    contacts: Option<PathBuf>,
    /// JSON file of the owner's own numbers and addresses and where the owner registered them:
    /// [{"identifier": "+49...", "services": [{"ssi": "mimi://...", "key": "the public key there,
    /// base64url"}]}]. They are looked up with the contacts, and what is found and not in the file
    /// is reported.
    #[arg(long, value_name = "FILE", conflicts_with = "openly")]
    own: Option<PathBuf>,
    /// Tell the front-end the numbers and addresses, which then looks them up itself: THE FRONT-END
    /// LEARNS WHO THE CONTACTS ARE, but not whose, if the relay is another party's. It takes some
    /// hundred bytes a contact. The front-end has to allow it (--resolve there). Nothing is kept in
    /// the state.
    #[arg(long)]
    openly: bool,
    /// Print one JSON object in each line
    #[arg(long)]
    json: bool,
    /// Phone numbers and addresses
    #[arg(value_name = "CONTACT", required_unless_present = "contacts")]
    contact: Vec<String>,
}

pub(crate) fn run(args: Args) -> Ended {
    let contacts = contacts(&args)?;
    let own = args.own.as_deref().map(read_own).transpose()?.unwrap_or_default();
    let options = options(&args)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let bar = bar();
    let resolved = runtime.block_on(async {
        let mut resolver = Resolver::open(options).await?;
        resolver.set_own(own);
        let ended = tokio::select! {
            ended = ask(&mut resolver, &contacts, args.openly, &bar) => ended,
            _ = tokio::signal::ctrl_c() => return Ok(None),
        };
        let (report, now) = (resolver.report().clone(), (system_clock())());
        let known =
            |contact| Shown::known(resolver.contact(contact), resolver.unanswered(contact), now);
        let (error, found) = match ended {
            Ok(None) => (None, contacts.iter().map(known).collect()),
            Ok(Some(told)) => (None, told.into_iter().map(Shown::told).collect()),
            Err(error) => (Some(error), contacts.iter().map(known).collect::<Vec<_>>()),
        };
        Ok::<_, ResolveError>(Some((error, report, found, resolver.unknown_mappings())))
    });
    // The connection to the relay has ended.
    drop(runtime);
    bar.finish_and_clear();
    let Some((error, report, found, unknown)) = resolved? else {
        return Ok(ExitCode::from(out::INTERRUPTED));
    };
    let line = |(contact, shown): (&Identifier, &Shown)| match args.json {
        true => json_line(contact, shown),
        false => text_line(contact, shown),
    };
    let mut lines: Vec<String> = contacts.iter().zip(&found).map(line).collect();
    lines.extend(unknown.iter().map(|unknown| match args.json {
        true => unknown_json(unknown),
        false => unknown_text(unknown),
    }));
    out::unless_closed(out::say(lines.join("\n")))?;
    out::complain(summary(&report));
    let open = found.iter().filter(|it| it.word == NOT_ANSWERED).count();
    match error {
        Some(error) => Err(error.into()),
        None if open > 0 => Err(format!(
            "{} not answered yet by every database: ask again at the next time",
            counted(open as u64, "contact")
        )
        .into()),
        None if !unknown.is_empty() => Ok(ExitCode::from(UNKNOWN_MAPPING)),
        None if found.iter().all(|it| it.contact.is_some()) => Ok(ExitCode::SUCCESS),
        None => Ok(ExitCode::from(1)),
    }
}

fn contacts(args: &Args) -> Result<Vec<Identifier>, Box<dyn std::error::Error>> {
    if let Some(path) = &args.contacts {
        let found = Contacts::read(path, args.region).map_err(|error| in_file(path, &error))?;
        for (reason, count) in &found.left_out {
            out::complain(format_args!("left out: {count} ({})", reason.as_str()));
        }
        return Ok(found.identifiers());
    }
    let mut contacts = Vec::new();
    for (number, text) in (1..).zip(&args.contact) {
        let contact = Identifier::parse(text, args.region);
        contacts.push(contact.map_err(|error| format!("CONTACT {number}: {error}"))?);
    }
    Ok(contacts)
}

fn options(args: &Args) -> Result<Options, Box<dyn std::error::Error>> {
    let token = text_of(&args.token_file)?;
    Ok(Options {
        relay: args.relay.clone(),
        ca_pem: bytes_of(&args.relay_ca)?,
        token: Box::new(move || token.trim().to_owned()),
        front_end_key: read_front_end_key(&text_of(&args.front_end_keys)?)
            .map_err(|error| in_file(&args.front_end_keys, &error))?,
        state: args.state.clone(),
        state_key: state_key(&args.state_key)?,
        directory_pins: read_pins(&args.directory_pins)?,
        pack_records_min: args.accept_pack_records,
        clock: system_clock(),
    })
}

/// What the file of the owner's own identifiers says.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct OwnEntry {
    identifier: String,
    services: Vec<OwnServiceEntry>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct OwnServiceEntry {
    ssi: String,
    key: String,
}

fn read_own(path: &Path) -> Result<Vec<Own>, Box<dyn std::error::Error>> {
    let entries: Vec<OwnEntry> =
        serde_json::from_str(&text_of(path)?).map_err(|error| in_file(path, &error))?;
    let own = |entry: OwnEntry| -> Result<Own, String> {
        let identifier = Identifier::parse(&entry.identifier, None).map_err(|it| it.to_string())?;
        let service = |service: OwnServiceEntry| {
            let ssi = Ssi::parse(&service.ssi).map_err(|error| error.to_string())?;
            let key = from_base64url(&service.key).and_then(|key| key.try_into().ok());
            let key = key.ok_or("key: expected 43 characters of base64url")?;
            Ok::<_, String>(OwnService { ssi, key })
        };
        let services = entry.services.into_iter().map(service).collect::<Result<_, _>>()?;
        Ok(Own { identifier, services })
    };
    let read = (1..).zip(entries).map(|(number, entry)| {
        own(entry).map_err(|why| in_file(path, &format_args!("entry {number}: {why}")).into())
    });
    read.collect()
}

fn unknown_text(unknown: &Unknown) -> String {
    let (sub, database) = (unknown.identifier.as_str(), &unknown.database);
    let place = unknown.ssi.as_ref().map_or(&*unknown.provider, |ssi| ssi.as_str());
    let end = match unknown.ended_by {
        EndedBy::Withdrawal(_) => "withdraw it: it has your key",
        EndedBy::NewProof => {
            "prove the number again, at any provider and as its new holder, which ends it"
        }
    };
    format!("{sub}: the database {database} has {place}, which you did not register; {end}")
}

fn unknown_json(unknown: &Unknown) -> String {
    let ended_by = match unknown.ended_by {
        EndedBy::Withdrawal(_) => "withdrawal",
        EndedBy::NewProof => "new_proof",
    };
    json!({
        "own": unknown.identifier.as_str(),
        "result": "unknown mapping",
        "database": unknown.database,
        "provider": unknown.provider,
        "ssi": unknown.ssi.as_ref().map(|ssi| ssi.as_str()),
        "ended_by": ended_by,
    })
    .to_string()
}

fn bytes_of(path: &Path) -> Result<Vec<u8>, String> {
    let max = limits::RESOLVE_FILE_BYTES_MAX;
    let bytes = read_regular(path, max + 1).map_err(|error| in_file(path, &error))?;
    match bytes.len() as u64 > max {
        true => Err(format!("{}: found more than {max} bytes", path.display())),
        false => Ok(text::plain(&bytes)),
    }
}

fn text_of(path: &Path) -> Result<String, String> {
    String::from_utf8(bytes_of(path)?).map_err(|_| format!("{}: it is no text", path.display()))
}

fn bar() -> ProgressBar {
    let bar = ProgressBar::new(0);
    match ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn show(bar: &ProgressBar, step: Progress) {
    let (what, done, total) = match step {
        Progress::Evaluated { done, total } => ("evaluating", done, total),
        Progress::LookedUp { done, total } => ("looking up", done, total),
        _ => ("fetching directory and parameters", 0, 0),
    };
    bar.set_message(what);
    bar.set_length(total as u64);
    bar.set_position(done as u64);
}

/// Asks for contacts. What the front-end said, where it was told them.
async fn ask(
    resolver: &mut Resolver,
    contacts: &[Identifier],
    openly: bool,
    bar: &ProgressBar,
) -> Result<Option<Vec<Result<Finding, String>>>, ResolveError> {
    match openly {
        true => resolver.resolve_openly(contacts).await.map(Some),
        false => resolver.sync(contacts, |step| show(bar, step)).await.map(|_| None),
    }
}

/// The exit code where the owner has a mapping that the owner does not know.
const UNKNOWN_MAPPING: u8 = 3;
const FOUND: &str = "found";
/// A database that covers a contact has not answered, and no other has found it.
const NOT_ANSWERED: &str = "not answered yet";

/// What is printed of a contact.
struct Shown {
    word: &'static str,
    reasons: Vec<String>,
    contact: Option<Contact>,
}

impl Shown {
    /// Of several databases the one that found it counts, or else the last answer.
    fn known(resolved: Option<&Resolved>, unanswered: usize, now: u64) -> Self {
        let answers = resolved.iter().flat_map(|resolved| resolved.answers.values());
        let findings: Vec<&Finding> = answers.map(|answer| &answer.finding).collect();
        let contact = resolved.and_then(|resolved| resolved.contact(now)).cloned();
        let word = match findings.last() {
            _ if contact.is_some() => FOUND,
            None => NOT_ANSWERED,
            Some(Finding::Absent) if unanswered > 0 => NOT_ANSWERED,
            Some(Finding::Found(_)) => "expired",
            Some(finding) => word(finding),
        };
        Self { word, reasons: findings.into_iter().filter_map(reason).collect(), contact }
    }

    /// Of what the front-end said.
    fn told(told: Result<Finding, String>) -> Self {
        let (word, reason) = match &told {
            Ok(finding) => (word(finding), reason(finding)),
            Err(reason) => (NOT_ANSWERED, Some(reason.clone())),
        };
        let contact = match told {
            Ok(Finding::Found(contact)) => Some(*contact),
            _ => None,
        };
        Self { word, reasons: reason.into_iter().collect(), contact }
    }
}

/// The word for what an answer means.
fn word(finding: &Finding) -> &'static str {
    match finding {
        Finding::Found(_) => FOUND,
        Finding::Absent => "not found",
        Finding::Invalid => "answer not believed",
        Finding::Refused(_) => "record refused",
    }
}

/// Why a record is refused.
fn reason(finding: &Finding) -> Option<String> {
    match finding {
        Finding::Refused(error) => Some(error.to_string()),
        _ => None,
    }
}

fn text_line(identifier: &Identifier, shown: &Shown) -> String {
    let mut line = format!("{}: {}", identifier.as_str(), shown.word);
    for reason in &shown.reasons {
        line.push_str(&format!(" ({reason})"));
    }
    let Some(contact) = &shown.contact else { return line };
    for service in &contact.services {
        let ssi = service.ssi.as_ref().map_or("ask its key service", |ssi| ssi.as_str());
        line.push_str(&format!("\n  {}: {ssi}", service.name));
    }
    match contact.preferred {
        Preferred::None => {}
        Preferred::Verified { .. } => line.push_str("\n  the first one is preferred (verified)"),
        Preferred::NotVerifiable(why) => {
            line.push_str(&format!("\n  the first one may be preferred: {why}"));
        }
    }
    line
}

fn json_line(identifier: &Identifier, shown: &Shown) -> String {
    let mut object = json!({
        "contact": identifier.as_str(),
        "result": shown.word,
    });
    if let Some(contact) = &shown.contact {
        object["database"] = json!(contact.database);
        object["issued"] = json!(contact.issued);
        object["expires"] = json!(contact.expires);
        object["preferred"] = preferred(contact);
        object["services"] = contact.services.iter().map(service).collect();
    }
    object.to_string()
}

fn preferred(contact: &Contact) -> Value {
    match contact.preferred {
        Preferred::None => Value::Null,
        Preferred::Verified { time } => json!({ "verified": true, "time": time }),
        Preferred::NotVerifiable(why) => json!({ "verified": false, "why": why.to_string() }),
    }
}

fn service(service: &sotto::discovery::open::Reachable) -> Value {
    json!({
        "provider": service.provider,
        "name": service.name,
        "keys_url": service.keys_url,
        "keys_identity": service.keys_identity.map(|key| key.to_string()),
        "ssi": service.ssi.as_ref().map(|ssi| ssi.as_str()),
        "tags": service.tags,
        "key_hash": service.key_hash.map(|hash| sotto::wire::hex::encode(&hash)),
    })
}

fn summary(report: &Report) -> String {
    let mut lines = vec![format!(
        "{} up, {} down, in {}: {} and {}",
        text::bytes(report.bytes_up),
        text::bytes(report.bytes_down),
        counted(report.requests, "request"),
        counted(report.evaluations, "evaluation"),
        counted(report.lookups, "sealed look-up"),
    )];
    let verified = report.epochs.iter().map(|(name, epoch)| format!("{name} epoch {epoch}"));
    let verified: Vec<String> = verified.collect();
    lines.push(format!(
        "verified: directory version {}, proofs of {}{}{}",
        report.directory_version,
        counted(report.evaluated as u64, "evaluated identifier"),
        if verified.is_empty() { "" } else { ", " },
        verified.join(", ")
    ));
    let failed = report.failed.iter().map(|it| ("look-ups not answered", it));
    let refused = report.refused.iter().map(|it| ("records refused", it));
    let reasons = failed.chain(refused);
    lines.extend(reasons.map(|(what, (reason, count))| format!("{what}: {count}: {reason}")));
    let counts = [
        ("not looked up, because a routing filter says that they are not there", report.ruled_out),
        ("new batches left for the next time", report.batches_left),
        ("batches put off to times of their own, within a day", report.batches_put_off),
    ];
    let counts = counts.into_iter().filter(|(_, count)| *count > 0);
    lines.extend(counts.map(|(what, count)| format!("{what}: {count}")));
    lines.join("\n")
}
