//! The registrar on both databases: a directory with two discovery providers, two application
//! providers, users, and what they do.

mod attacks;
mod codes;
mod erasure;
mod feed;
mod logged;
mod several;
mod states;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use crate::discovery::directory::{
    Content, Directory, Issuer, IssuerKey, Key, Pins, Proof, Provider, Remit, Validity, draft,
};
use crate::discovery::identifier::Identifier;
use crate::discovery::jws::{self, base64url};
use crate::discovery::statement::{
    Consent, Mapping, Purpose, Ssi, Statement, Withdrawal, WithdrawnBy, consent_text,
};
use crate::registrar::api::*;
use crate::registrar::fraud::{ApRules, Fraud, Rules};
use crate::registrar::postgres::both;
use crate::registrar::{Problem, Store};
use ed25519_dalek::SigningKey;
use serde_json::Value;
use sqlx::{Column as _, Row as _};
use zeroize::Zeroizing;

use crate::registrar::registrations::{
    Caller, Core, Keyed, Outcome, Settings, SharedDirectory, Transitions,
};

const NOW: u64 = 1_796_000_000;
const DAY: u64 = 86_400;
const ISS: &str = "dp.example";
const OTHER: &str = "other-dp.example";
const A: &str = "a.example";
const B: &str = "b.example";
const NUMBER: &str = "tel:+4915112345678";
const HANDLE: &str = "ada-lovelace";

type Changed = Result<(Reply, Option<Outgoing>), Problem>;

fn key(number: u8) -> SigningKey {
    SigningKey::from_bytes(&[number; 32])
}

fn issuer(domain: &str, key: &SigningKey, prefixes: &[&str]) -> Issuer {
    let validity = Validity { from: 0, until: NOW + 4_000 * DAY };
    let key = IssuerKey { key: Key::from(key.verifying_key()), validity };
    Issuer {
        index: 0,
        domain: domain.into(),
        keys: vec![key],
        remit: Remit {
            providers: vec![A.into(), B.into()],
            prefixes: prefixes.iter().map(|prefix| (*prefix).to_owned()).collect(),
            regions: vec!["EU".into()],
            proof: Proof::Email,
        },
        exempt_before: None,
        authority: false,
    }
}

/// Ours is the home of +49 and addresses, the other one of +491512 and +33.
fn directory(now: u64, change: impl FnOnce(&mut Content)) -> Directory {
    let root = key(99);
    let mut content = draft::new(1, vec![Key::from(root.verifying_key())]).unwrap();
    for domain in [A, B] {
        let (name, keys_url) = (domain.to_owned(), format!("https://keys.{domain}/"));
        let provider =
            Provider { index: 0, domain: domain.into(), name, keys_url, keys_identity: None };
        draft::add_provider(&mut content, provider).unwrap();
    }
    for issuer in
        [issuer(ISS, &key(1), &["+49", "@"]), issuer(OTHER, &key(2), &["+4", "+491512", "+33"])]
    {
        draft::add_issuer(&mut content, issuer).unwrap();
    }
    change(&mut content);
    let content = draft::next(content, None, now + 20 * DAY).unwrap();
    let file = draft::sign(&content, &[root]).unwrap();
    let pins = Pins::new(1, content.roots).unwrap();
    Directory::open(file.as_bytes(), &pins, now).unwrap()
}

fn settings() -> Settings {
    Settings {
        iss: ISS.into(),
        signing_key: key(1),
        pepper: Zeroizing::new([3; 32]),
        identifier_key: Zeroizing::new([4; 32]),
        region: None,
        region_prefixes: Vec::new(),
        is_logged: false,
    }
}

#[derive(Clone)]
struct World {
    core: Core,
    directory: SharedDirectory,
    keys: Arc<AtomicU64>,
    /// What the core reported.
    transitions: Arc<Mutex<Transitions>>,
}

impl World {
    fn new(store: Store) -> Self {
        Self::with(store, settings(), |_| {})
    }

    fn with(store: Store, settings: Settings, change: impl FnOnce(&mut Content)) -> Self {
        let directory = Arc::new(RwLock::new(Arc::new(directory(NOW, change))));
        let prices = BTreeMap::from([("DE".to_owned(), 1), ("FR".to_owned(), 1)]);
        let rules = Rules {
            prices,
            prefix_an_hour: 1_000,
            domain_an_hour: 1_000,
            conversion_sent: 1_000,
            ..Rules::default()
        };
        let ap = ApRules {
            countries: vec!["DE".into(), "FR".into()],
            messages_a_day: 10_000,
            money_a_day: 10_000_000,
        };
        let aps = BTreeMap::from([(A.to_owned(), ap.clone()), (B.to_owned(), ap)]);
        let fraud = Fraud::new(rules, aps, Zeroizing::new([5; 32])).unwrap();
        let core = Core::new(store, settings, fraud, directory.clone());
        Self { core, directory, keys: Arc::default(), transitions: Arc::default() }
    }

    /// A directory that is valid at a later time.
    fn renew(&self, now: u64) {
        *self.directory.write().unwrap() = Arc::new(directory(now, |_| {}));
    }

    async fn post(&self, ap: &str, change: Change, now: u64) -> Changed {
        let key = format!("key-{}", self.keys.fetch_add(1, Ordering::Relaxed));
        self.keyed(ap, &key, [7; 32], change, now).await
    }

    async fn keyed(
        &self,
        ap: &str,
        key: &str,
        digest: [u8; 32],
        change: Change,
        now: u64,
    ) -> Changed {
        let (caller, keyed) = (Caller { ap }, Keyed { key, digest });
        let changed = self.core.change(&caller, &keyed, change, now).await;
        let changed = changed.map(|changed| {
            self.transitions.lock().unwrap().extend(changed.transitions);
            (changed.reply, changed.outgoing)
        });
        if let Err(problem) = &changed {
            assert_clean(&format!("{problem} {problem:?} {}", text(&problem.to_json())));
        }
        changed
    }

    /// Registers; returns the name and the code.
    async fn register(&self, ap: &str, request: NewRegistration, now: u64) -> (String, String) {
        let (reply, outgoing) = self.post(ap, Change::Register(request), now).await.unwrap();
        assert_eq!(reply.status, 202);
        let outgoing = outgoing.unwrap();
        (outgoing.id, outgoing.code.to_string())
    }

    async fn enter(&self, ap: &str, id: &str, code: &str, now: u64) -> Changed {
        let entered = Entered { code: code.into() };
        self.post(ap, Change::Enter { id: id.into(), entered }, now).await
    }

    /// From request to statement.
    async fn proved(&self, ap: &str, request: NewRegistration, now: u64) -> (String, String) {
        let (id, code) = self.register(ap, request, now).await;
        self.core.sent(&id, Outcome::Accepted, now).await.unwrap();
        let (reply, outgoing) = self.enter(ap, &id, &code, now).await.unwrap();
        assert!(outgoing.is_none());
        assert_eq!(reply.status, 200, "{}", text(&reply.body));
        (id, json(&reply)["statement"].as_str().unwrap().to_owned())
    }

    async fn heartbeat(&self, ap: &str, id: &str, now: u64) -> u64 {
        let heartbeats = Heartbeats { ids: vec![id.into(), id.into(), "none".into()] };
        let change = Change::Heartbeats(heartbeats);
        json(&self.post(ap, change, now).await.unwrap().0)["noted"].as_u64().unwrap()
    }

    async fn withdraw(&self, ap: &str, id: &str, now: u64) -> Changed {
        let withdrawal = NewWithdrawal { id: Some(id.into()), statement: None };
        self.post(ap, Change::Withdraw(withdrawal), now).await
    }

    async fn state(&self, ap: &str, id: &str, now: u64) -> State {
        self.core.show(&Caller { ap }, id, now).await.unwrap().state
    }

    /// The text of all rows, and of everything in them that is base64url.
    async fn dump(&self) -> String {
        let mut dump = String::new();
        for table in TABLES {
            let rows = sqlx::query(sqlx::AssertSqlSafe(format!("SELECT * FROM {table}")));
            for row in rows.fetch_all(self.core.store().pool()).await.unwrap() {
                for column in row.columns() {
                    let Ok(Some(text)) = row.try_get::<Option<String>, _>(column.ordinal()) else {
                        continue;
                    };
                    dump.push_str(&text);
                    dump.push('\n');
                    for part in text.split(['.', '"']) {
                        let bytes = jws::from_base64url(part).unwrap_or_default();
                        dump.push_str(&String::from_utf8_lossy(&bytes));
                        dump.push('\n');
                    }
                }
            }
        }
        dump
    }

    async fn count(&self, table: &str) -> i64 {
        let query = sqlx::query(sqlx::AssertSqlSafe(format!("SELECT COUNT(*) FROM {table}")));
        query.fetch_one(self.core.store().pool()).await.unwrap().get(0)
    }
}

const TABLES: [&str; 9] = [
    "registrations",
    "siis",
    "tombstones",
    "replies",
    "preferences",
    "feed_batches",
    "feed_lines",
    "events",
    "log_statements",
];

/// Runs a test on both databases.
async fn on_both(test: impl AsyncFn(Store)) {
    let migrations = [
        crate::registrar::registrations::MIGRATIONS,
        crate::registrar::fraud::MIGRATIONS,
        crate::registrar::log::client::QUEUE_MIGRATIONS,
    ];
    let migrations = migrations.concat();
    both(&migrations, test).await;
}

/// What the user with a key signed for an application provider.
fn request(ap: &str, sii: &str, user: u8, iat: u64) -> NewRegistration {
    let sub = Identifier::from_uri(sii).unwrap();
    let ssi = Ssi::new(ap, HANDLE).unwrap();
    let consent = Consent::new(&consent_text(&sub, &ssi, ISS, iat), &key(user));
    NewRegistration {
        sii: sii.into(),
        ssi: ssi.as_str().into(),
        uk: base64url(&consent.key),
        up: base64url(&consent.signature),
        iat,
        channel: if sub.digits().is_some() { Channel::Sms } else { Channel::Email },
        purpose: Purpose::Register,
        language: None,
        new_holder: false,
    }
}

fn number(at: u64) -> String {
    format!("tel:+491511{at:07}")
}

/// Another code than this one.
fn another(code: &str) -> &'static str {
    if code == "000000" { "000001" } else { "000000" }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn json(reply: &Reply) -> Value {
    serde_json::from_slice(&reply.body).unwrap()
}

fn code_of(changed: &Changed) -> String {
    match changed {
        Ok((reply, _)) => json(reply)["code"].as_str().unwrap_or("ok").to_owned(),
        Err(problem) => problem.code.to_owned(),
    }
}

/// That a message names nobody.
fn assert_clean(message: &str) {
    for secret in ["15112345678", "4915", "ada", "lovelace", "ada-lovelace"] {
        assert!(!message.contains(secret), "{message}");
    }
}
