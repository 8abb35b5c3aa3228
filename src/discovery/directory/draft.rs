//! Making directories: drafts, which people edit, and their signing.
//!
//! A draft is the [`Content`] as readable JSON. Unknown members are refused in it, because they are
//! typing errors; its `version` and `expires` mean nothing, because [`next`] sets both. Several
//! people sign one after the other: the first makes the file ([`sign`]), the others add to it
//! ([`add_signatures`]). The files of keys are not read here.

use std::fmt::{self, Display};

use ed25519_dalek::SigningKey;
use serde_json::Value;

use super::content::{at, check_roots};
use super::signed::{self, Signed, json};
use super::utc;
use super::{Content, Database, Directory, DirectoryError, Issuer, Key, LastIndex, Pins, Provider};

/// A draft without entries.
///
/// # Errors
/// The roots cannot sign: see [`Pins::new`].
pub fn new(threshold: u32, roots: Vec<Key>) -> Result<Content, DirectoryError> {
    check_roots(threshold, &roots).map_err(|problem| at("the roots", problem))?;
    Ok(Content {
        version: 0,
        expires: 0,
        threshold,
        roots,
        providers: Vec::new(),
        issuers: Vec::new(),
        databases: Vec::new(),
        last_index: LastIndex::default(),
    })
}

/// Reads a draft, strictly.
///
/// # Errors
/// Where which entry is wrong.
pub fn read(bytes: &[u8]) -> Result<Content, DirectoryError> {
    let content: Content = json("draft", bytes)?;
    let found: Value = json("draft", bytes)?;
    if let Some(place) = unknown_member(&found, &serde_json::json!(content)) {
        return Err(at(place, "this member is not known: correct its name, or remove it"));
    }
    content.check()?;
    Ok(content)
}

/// The draft as a file that people can edit.
pub fn to_json(draft: &Content) -> String {
    signed::lines(draft)
}

/// Adds a provider and gives it an index if it has none (0); returns the index.
///
/// # Errors
/// What is wrong about it; the draft is as before.
pub fn add_provider(draft: &mut Content, mut provider: Provider) -> Result<u32, DirectoryError> {
    let index = choose(provider.index, draft.last_index().provider)?;
    provider.index = index;
    change(draft, |draft| draft.providers.push(provider))?;
    Ok(index)
}

/// Adds an issuer and gives it an index if it has none (0); returns the index.
///
/// # Errors
/// What is wrong about it; the draft is as before.
pub fn add_issuer(draft: &mut Content, mut issuer: Issuer) -> Result<u32, DirectoryError> {
    let index = choose(issuer.index, draft.last_index().issuer)?;
    issuer.index = index;
    change(draft, |draft| draft.issuers.push(issuer))?;
    Ok(index)
}

/// Adds a database and gives indices to those of its record keys that have none (0).
///
/// # Errors
/// What is wrong about it; the draft is as before.
pub fn add_database(draft: &mut Content, mut database: Database) -> Result<(), DirectoryError> {
    let mut last = draft.last_index().record_key;
    for key in &mut database.record_keys {
        key.index = choose(key.index, last)?;
        last = last.max(key.index);
    }
    change(draft, |draft| draft.databases.push(database))
}

fn choose(wished: u32, last: u32) -> Result<u32, DirectoryError> {
    match wished {
        0 => last.checked_add(1).ok_or_else(|| at("indices", "there is none after the last one")),
        wished => Ok(wished),
    }
}

fn change(draft: &mut Content, change: impl FnOnce(&mut Content)) -> Result<(), DirectoryError> {
    let mut changed = draft.clone();
    change(&mut changed);
    changed.check()?;
    changed.last_index = changed.last_index();
    *draft = changed;
    Ok(())
}

/// What is to be signed: the draft as the version after `previous`, or the first.
///
/// # Errors
/// Something is wrong in it, or an index of `previous` stands for something else.
pub fn next(
    draft: Content,
    previous: Option<&Content>,
    expires: u64,
) -> Result<Content, DirectoryError> {
    draft.check()?;
    let mut last_index = draft.last_index();
    let mut version = 1;
    if let Some(previous) = previous {
        check_successor(previous, &draft)?;
        let before = previous.last_index();
        last_index.provider = last_index.provider.max(before.provider);
        last_index.issuer = last_index.issuer.max(before.issuer);
        last_index.record_key = last_index.record_key.max(before.record_key);
        let none = || at("version", "there is none after that of the previous directory");
        version = previous.version.checked_add(1).ok_or_else(none)?;
    }
    Ok(Content { version, expires, last_index, ..draft })
}

/// Refuses a directory in which an index that `previous` or one before it gave away stands for
/// something else: records and statements would change their meaning.
///
/// # Errors
/// Which index it is.
pub fn check_successor(previous: &Content, next: &Content) -> Result<(), DirectoryError> {
    let last = previous.last_index();
    let providers = |content: &Content| -> Vec<Given> {
        content.providers.iter().map(|entry| (entry.index, entry.domain.clone())).collect()
    };
    let issuers = |content: &Content| -> Vec<Given> {
        content.issuers.iter().map(|entry| (entry.index, entry.domain.clone())).collect()
    };
    check_given("provider", &providers(previous), &providers(next), last.provider)?;
    check_given("issuer", &issuers(previous), &issuers(next), last.issuer)?;
    check_given("record key", &record_keys(previous), &record_keys(next), last.record_key)
}

/// An index, and what it stands for.
type Given = (u32, String);

fn record_keys(content: &Content) -> Vec<Given> {
    let of = |database: &Database| -> Vec<Given> {
        let name = |key: &Key| format!("{key} of database {}", database.id);
        database.record_keys.iter().map(|entry| (entry.index, name(&entry.key))).collect()
    };
    content.databases.iter().flat_map(of).collect()
}

fn check_given(
    what: &str,
    before: &[Given],
    now: &[Given],
    last: u32,
) -> Result<(), DirectoryError> {
    for (index, found) in now {
        let was = before.iter().find(|(other, _)| other == index);
        let problem = match was {
            Some((_, was)) if was != found => {
                format!("it stood for {was:?} before, and an index is never used again")
            }
            None if *index <= last => {
                "it was given away before, and an index is never used again".to_owned()
            }
            Some(_) | None => continue,
        };
        let place = format!("{what} {index} ({found:?})");
        return Err(at(
            place,
            format!("{problem}: take {} or a higher one", last.saturating_add(1)),
        ));
    }
    Ok(())
}

/// The file of a directory, signed with each of these keys.
///
/// # Errors
/// Something is wrong in it, or it is longer than a directory may be.
pub fn sign(content: &Content, keys: &[SigningKey]) -> Result<String, DirectoryError> {
    content.check()?;
    within_bounds(signed::sign(signed::text(content).as_bytes(), keys))
}

/// The same file with the signatures of these keys besides those it has.
///
/// # Errors
/// It is not the file of a directory, or longer than one may be.
pub fn add_signatures(file: &[u8], keys: &[SigningKey]) -> Result<String, DirectoryError> {
    unverified(file)?;
    within_bounds(signed::add_signatures(file, keys)?)
}

fn within_bounds(file: String) -> Result<String, DirectoryError> {
    Signed::read(file.as_bytes()).map(|_| file)
}

/// Whether a file is one that was signed, in contrast to a draft.
pub fn is_signed(file: &[u8]) -> bool {
    Signed::read(file).is_ok()
}

/// What a file says, verified by nothing but the roots that it names itself, and whether or not it
/// has expired: for the version before the one that is to be made, and for a first use without
/// pins.
///
/// # Errors
/// It is not the file of a directory, or lacks signatures of its own roots.
pub fn open_unpinned(file: &[u8]) -> Result<Directory, DirectoryError> {
    let content = unverified(file)?;
    let pins = Pins::new(content.threshold, content.roots)?;
    Directory::open(file, &pins, content.expires.saturating_sub(1))
}

/// What a file says, verified by nothing: for who is to sign it too.
///
/// # Errors
/// It is not the file of a directory.
pub fn unverified(file: &[u8]) -> Result<Content, DirectoryError> {
    let content = Signed::read(file)?.content()?;
    content.check()?;
    Ok(content)
}

/// What a directory says, for people.
pub struct Described<'a>(pub &'a Content);

impl Display for Described<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Content { version, expires, threshold, roots, .. } = self.0;
        writeln!(f, "version {version}, expires {}", utc(*expires))?;
        writeln!(f, "{threshold} of {} root keys have to sign:", roots.len())?;
        roots.iter().try_for_each(|root| writeln!(f, "  {root}"))?;
        writeln!(f, "providers: {}", self.0.providers.len())?;
        for Provider { index, domain, name, keys_url, keys_identity } in &self.0.providers {
            write!(f, "  {index} {domain} ({name}), keys at {keys_url}")?;
            match keys_identity {
                Some(key) => writeln!(f, ", sealed to what {key} signs")?,
                None => writeln!(f)?,
            }
        }
        writeln!(f, "issuers: {}", self.0.issuers.len())?;
        self.0.issuers.iter().try_for_each(|issuer| describe_issuer(f, issuer))?;
        write!(f, "databases: {}", self.0.databases.len())?;
        self.0.databases.iter().try_for_each(|database| describe_database(f, database))
    }
}

fn describe_issuer(f: &mut fmt::Formatter<'_>, issuer: &Issuer) -> fmt::Result {
    let Issuer { index, domain, keys, remit, exempt_before, authority } = issuer;
    let kind = if *authority { ", number authority" } else { "" };
    writeln!(f, "  {index} {domain}{kind}")?;
    writeln!(
        f,
        "    for {}; {}; regions {}; proof {} or stronger",
        list(&remit.providers, "no provider"),
        list(&remit.prefixes, "everything"),
        list(&remit.regions, "none"),
        remit.proof
    )?;
    if let Some(before) = exempt_before {
        writeln!(f, "    before {} without signatures of users", utc(*before))?;
    }
    keys.iter().try_for_each(|key| {
        let (from, until) = (utc(key.validity.from), utc(key.validity.until));
        writeln!(f, "    key {} from {from} until {until}", key.key)
    })
}

fn describe_database(f: &mut fmt::Formatter<'_>, database: &Database) -> fmt::Result {
    let Database { id, operator_key, record_keys, blinding_key, log, prefixes, region, endpoints } =
        database;
    let blinding = blinding_key.map_or("plain".to_owned(), |key| format!("blinded by {key}"));
    write!(f, "\n  {id} in {region}: {}; {blinding}", list(prefixes, "all numbers"))?;
    write!(f, "\n    at {}", list(endpoints, "no endpoint"))?;
    write!(f, "\n    operator key {operator_key}")?;
    if let Some(log) = log {
        write!(f, "\n    in the log {} with the key {}", log.name, log.key)?;
    }
    record_keys.iter().try_for_each(|key| {
        let (from, until) = (utc(key.validity.from), utc(key.validity.until));
        write!(f, "\n    record key {} {} from {from} until {until}", key.index, key.key)
    })
}

fn list(items: &[String], none: &str) -> String {
    if items.is_empty() { none.to_owned() } else { items.join(" ") }
}

/// Where `found` has a member that `known`, the same read and written again, has not.
fn unknown_member(found: &Value, known: &Value) -> Option<String> {
    match (found, known) {
        (Value::Object(found), Value::Object(known)) => found.iter().find_map(|(name, value)| {
            let below = match known.get(name) {
                Some(known) => unknown_member(value, known)?,
                None => String::new(),
            };
            Some(format!("{name:?} {below}").trim_end().to_owned())
        }),
        (Value::Array(found), Value::Array(known)) => {
            let mut pairs = found.iter().zip(known).enumerate();
            pairs.find_map(|(at, (found, known))| {
                unknown_member(found, known).map(|below| format!("entry {} {below}", at + 1))
            })
        }
        (Value::Object(_) | Value::Array(_), _) => Some(String::new()),
        _ => None,
    }
}
