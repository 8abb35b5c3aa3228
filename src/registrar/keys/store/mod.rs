//! What the key service keeps, and the one place where key packages are given out.
//!
//! A package is marked as taken in a transaction that is committed before the reply is made. So a
//! crash may lose a package and never gives one out twice. Packages that other requests are about
//! to take are skipped, not waited for.

mod consents;
mod rows;

use std::collections::{HashMap, HashSet};

use crate::discovery::jws::{base64url, from_base64url};
use crate::discovery::statement::Ssi;
use crate::registrar::store::{Failed, transaction};
use crate::registrar::{Databases, Problem, Store, StoreError};
use openmls::prelude::{Capabilities, RequiredCapabilitiesExtension, VerifiableCiphersuite};
use serde::{Deserialize, Serialize};
use sqlx::AnyConnection;
use sqlx::Row as _;
use sqlx::any::AnyRow;
use tls_codec::DeserializeBytes as _;

use crate::discovery::keys::clients::ClientList;
use crate::discovery::keys::mimi::KeyMaterialUserCode;
use crate::discovery::keys::packages::{Package, capabilities_bytes, fits};
use crate::limits::keys::{KEY_PACKAGE_BYTES_MAX, KEY_PURGE_ROWS, KEY_REPLY_BYTES_MAX};

use rows::{GRANTED, REVOKED, number, text, time};

pub use consents::{Consent, ask_consent, cancel_consent, consents_of, decide_consent, find, has};

/// Tables of this version.
pub const MIGRATIONS: &[(i64, &str, &str)] =
    &[(30, "keys", include_str!("../migrations/30_keys.sql"))];

const HOUR: u64 = 3_600;
/// Bytes of a reply besides the packages, and of each client besides its package.
const REPLY_BYTES: usize = 512;
const CLIENT_BYTES: usize = 400;
/// How long a question for consent waits.
const ASKED_SECONDS: i64 = 30 * 86_400;

/// Who may have a user's key packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// Everybody whose consent was not revoked.
    All,
    /// Those to whom it was granted.
    List,
    /// Nobody. The user is not found by an identifier either.
    None,
}

impl Policy {
    fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::List => "list",
            Self::None => "none",
        }
    }

    fn read(text: &str) -> Result<Self, StoreError> {
        let all = [Self::All, Self::List, Self::None];
        let found = all.into_iter().find(|policy| policy.name() == text);
        found.ok_or(StoreError::Row("a policy is none of all, list and none"))
    }
}

/// An identifier of a user, as an issuer's mapping gives it.
#[derive(Clone)]
pub struct Identified {
    /// The identifier under the service's key.
    pub mac: String,
    /// When the issuer signed it: of two users, the later mapping counts.
    pub issued: u64,
    /// When it ends.
    pub expires: u64,
}

/// A user's settings.
pub struct Settings {
    /// The user's key, in base64url.
    pub uk: String,
    /// The list of clients as it was signed.
    pub text: String,
    /// What it says.
    pub list: ClientList,
    /// Who may have key packages.
    pub policy: Policy,
    /// By which the user is found.
    pub identifiers: Vec<Identified>,
}

/// What there is of a client's packages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stock {
    /// Packages that can be given out, without the last resort.
    pub available: u64,
    /// Of those that were sent, how many had been given out before.
    pub taken: u64,
}

/// Who asks for whose keys.
pub struct Asked {
    /// The requester's URI.
    pub requester: String,
    /// The same under the service's key, for counting.
    pub counted_as: String,
    /// Whose keys.
    pub target: Ssi,
    /// The room, or an empty text.
    pub room: String,
    /// Suites that the requester accepts.
    pub suites: Vec<VerifiableCiphersuite>,
    /// What clients have to be able to do.
    pub required: RequiredCapabilitiesExtension,
    /// Most claims an hour.
    pub an_hour: u32,
}

/// What is given of a client.
#[allow(missing_docs)] // Names say it.
pub enum Given {
    Package { client: String, bytes: Vec<u8>, last_resort: bool },
    Exhausted { client: String },
    Incompatible { client: String },
}

/// What came of a claim.
#[allow(missing_docs)] // Names say it.
pub enum Claimed {
    Limited { seconds: u64 },
    Answered { code: KeyMaterialUserCode, clients: Vec<Given> },
}

/// What came of asking for a user's key and list.
#[allow(missing_docs)] // Names say it.
pub enum Listed {
    Limited { seconds: u64 },
    NoConsent,
    Found { uk: String, list: String },
}

/// Stores a user's settings, unless there are later ones.
///
/// # Errors
/// 409 `older_list`, or the database.
pub async fn set_user(store: &Store, user: &Settings, now: u64) -> Result<(), Failed> {
    let ssi = user.list.sub.as_str();
    transaction!(store, |db| {
        let stored = sqlx::query(
            "INSERT INTO key_users (ssi, uk, list, version, policy, changed_at)
                 VALUES ($1, $2, $3, $4, $5, $6)
                 ON CONFLICT (ssi) DO UPDATE SET uk = excluded.uk, list = excluded.list,
                 version = excluded.version, policy = excluded.policy,
                 changed_at = excluded.changed_at
                 WHERE key_users.uk <> excluded.uk OR key_users.version < excluded.version
                 OR key_users.list = excluded.list
                 RETURNING version",
        )
        .bind(ssi)
        .bind(&*user.uk)
        .bind(&*user.text)
        .bind(time(user.list.version))
        .bind(user.policy.name())
        .bind(time(now))
        .fetch_optional(&mut *db)
        .await?;
        if stored.is_none() {
            let found = "a list of clients that is not later than the one here";
            return Err(Problem::new(409, "older_list", found, "a higher version").into());
        }
        replace_clients(db, &user.list).await?;
        replace_identifiers(db, ssi, &user.identifiers).await
    })
    .await
}

async fn replace_clients(db: &mut AnyConnection, list: &ClientList) -> Result<(), Failed> {
    let ssi = list.sub.as_str();
    let rows = sqlx::query("SELECT client, signature_key FROM key_clients WHERE ssi = $1");
    let rows = rows.bind(ssi).fetch_all(&mut *db).await?;
    let listed: HashMap<&str, String> =
        list.clients.iter().map(|client| (&*client.id, base64url(&client.key))).collect();
    for row in &rows {
        let (client, key) = (text(row, 0)?, text(row, 1)?);
        if listed.get(&*client) == Some(&key) {
            continue;
        }
        for query in [
            "DELETE FROM key_packages WHERE ssi = $1 AND client = $2 AND taken_at = 0",
            "DELETE FROM key_kinds WHERE ssi = $1 AND client = $2",
        ] {
            sqlx::query(query).bind(ssi).bind(client.clone()).execute(&mut *db).await?;
        }
    }
    sqlx::query("DELETE FROM key_clients WHERE ssi = $1").bind(ssi).execute(&mut *db).await?;
    for (client, key) in &listed {
        let query = "INSERT INTO key_clients (ssi, client, signature_key) VALUES ($1, $2, $3)";
        sqlx::query(query).bind(ssi).bind(*client).bind(&**key).execute(&mut *db).await?;
    }
    Ok(())
}

async fn replace_identifiers(
    db: &mut AnyConnection,
    ssi: &str,
    identifiers: &[Identified],
) -> Result<(), Failed> {
    sqlx::query("DELETE FROM key_identifiers WHERE ssi = $1").bind(ssi).execute(&mut *db).await?;
    for identified in identifiers {
        sqlx::query(
            "INSERT INTO key_identifiers (sii_mac, ssi, issued_at, expires_at)
             VALUES ($1, $2, $3, $4)
             ON CONFLICT (sii_mac) DO UPDATE SET ssi = excluded.ssi,
             issued_at = excluded.issued_at, expires_at = excluded.expires_at
             WHERE key_identifiers.issued_at <= excluded.issued_at",
        )
        .bind(&*identified.mac)
        .bind(ssi)
        .bind(time(identified.issued))
        .bind(time(identified.expires))
        .execute(&mut *db)
        .await?;
    }
    Ok(())
}

/// Removes a user. Of packages that were given out, what prevents a second use remains.
///
/// # Errors
/// The database.
pub async fn remove_user(store: &Store, ssi: &Ssi) -> Result<(), Failed> {
    transaction!(store, |db| {
        for query in [
            "DELETE FROM key_users WHERE ssi = $1",
            "DELETE FROM key_clients WHERE ssi = $1",
            "DELETE FROM key_kinds WHERE ssi = $1",
            "DELETE FROM key_identifiers WHERE ssi = $1",
            "DELETE FROM key_consents WHERE ssi = $1",
            "DELETE FROM key_packages WHERE ssi = $1 AND taken_at = 0",
            "UPDATE key_packages SET ssi = '', client = '', package = '' WHERE ssi = $1",
        ] {
            sqlx::query(query).bind(ssi.as_str()).execute(&mut *db).await?;
        }
        Ok(())
    })
    .await
}

/// Makes these the packages of a client that can be given out.
///
/// # Errors
/// 404 `unknown_client`, 409 `used_package`, 422 `key_package`, or the database.
pub async fn put_packages(
    store: &Store,
    (ssi, client): (&Ssi, &str),
    packages: &[Package],
    now: u64,
) -> Result<Stock, Failed> {
    check_set(packages)?;
    transaction!(store, |db| {
        // Waits for other changes of the same user.
        let user = sqlx::query("UPDATE key_users SET changed_at = $2 WHERE ssi = $1");
        user.bind(ssi.as_str()).bind(time(now)).execute(&mut *db).await?;
        let key =
            sqlx::query("SELECT signature_key FROM key_clients WHERE ssi = $1 AND client = $2");
        let key = key.bind(ssi.as_str()).bind(client).fetch_optional(&mut *db).await?;
        let found = "a client that is not in the user's list";
        let unknown = || Problem::new(404, "unknown_client", found, "a list with it, first");
        let key = from_base64url(&text(&key.ok_or_else(unknown)?, 0)?).unwrap_or_default();
        for package in packages {
            package.check_owner(ssi, &key).map_err(refused)?;
        }
        replace_packages(db, (ssi, client), packages).await
    })
    .await
}

/// What a package that is refused is answered.
pub(crate) fn refused(error: crate::discovery::keys::packages::PackageError) -> Problem {
    let expected = "at most 100 valid key packages of the client, made for this user";
    Problem::new(422, "key_package", error.to_string(), expected)
}

fn check_set(packages: &[Package]) -> Result<(), Problem> {
    let refuse = |found| {
        let expected = "each package and its keys once, and one last resort at most";
        Err(Problem::new(422, "key_package", found, expected))
    };
    let references: HashSet<&str> = packages.iter().map(|package| &*package.reference).collect();
    let inits: HashSet<&str> = packages.iter().map(|package| &*package.init).collect();
    if references.len() < packages.len() || inits.len() < packages.len() {
        return refuse("the same package or key twice");
    }
    match packages.iter().filter(|package| package.last_resort).count() {
        0 | 1 => Ok(()),
        _ => refuse("several last resorts"),
    }
}

async fn replace_packages(
    db: &mut AnyConnection,
    (ssi, client): (&Ssi, &str),
    packages: &[Package],
) -> Result<Stock, Failed> {
    for query in [
        "DELETE FROM key_packages WHERE ssi = $1 AND client = $2 AND taken_at = 0",
        "DELETE FROM key_kinds WHERE ssi = $1 AND client = $2",
    ] {
        sqlx::query(query).bind(ssi.as_str()).bind(client).execute(&mut *db).await?;
    }
    let mut stock = Stock { available: 0, taken: 0 };
    let mut kinds = HashSet::new();
    for package in packages {
        let kind = package.kind();
        if !insert(db, (ssi, client), package, &kind).await? {
            let row = sqlx::query(
                "SELECT taken_at FROM key_packages WHERE reference = $1 AND ssi = $2
                 AND client = $3",
            );
            let row = row.bind(&*package.reference).bind(ssi.as_str()).bind(client);
            if row.fetch_optional(&mut *db).await?.is_none() {
                let found = "a package or key of another client";
                let expected = "packages that were made for this client";
                return Err(Problem::new(409, "used_package", found, expected).into());
            }
            stock.taken += 1;
            continue;
        }
        stock.available += u64::from(!package.last_resort);
        if kinds.insert(kind.clone()) {
            let query = "INSERT INTO key_kinds (ssi, client, kind, suite, capabilities)
                 VALUES ($1, $2, $3, $4, $5)";
            let query = sqlx::query(query).bind(ssi.as_str()).bind(client).bind(kind);
            let capabilities = base64url(&capabilities_bytes(&package.capabilities));
            let query = query.bind(i64::from(package.suite)).bind(capabilities);
            query.execute(&mut *db).await?;
        }
    }
    Ok(stock)
}

async fn insert(
    db: &mut AnyConnection,
    (ssi, client): (&Ssi, &str),
    package: &Package,
    kind: &str,
) -> Result<bool, Failed> {
    let inserted = sqlx::query(
        "INSERT INTO key_packages (reference, init, ssi, client, kind, last_resort, taken_at,
         not_before, not_after, package) VALUES ($1, $2, $3, $4, $5, $6, 0, $7, $8, $9)
         ON CONFLICT DO NOTHING",
    )
    .bind(&*package.reference)
    .bind(&*package.init)
    .bind(ssi.as_str())
    .bind(client)
    .bind(kind)
    .bind(i64::from(package.last_resort))
    .bind(time(package.not_before))
    .bind(time(package.not_after))
    .bind(base64url(&package.bytes))
    .execute(&mut *db)
    .await?;
    Ok(inserted.rows_affected() == 1)
}

/// What there is of each client of a user.
///
/// # Errors
/// The database.
pub async fn stocks(store: &Store, ssi: &Ssi, now: u64) -> Result<Vec<(String, u64)>, Failed> {
    let rows = sqlx::query(
        "SELECT c.client, (SELECT COUNT(*) FROM key_packages p WHERE p.ssi = c.ssi
         AND p.client = c.client AND p.taken_at = 0 AND p.last_resort = 0 AND p.not_after > $2)
         FROM key_clients c WHERE c.ssi = $1 ORDER BY c.client",
    );
    let rows = rows.bind(ssi.as_str()).bind(time(now)).fetch_all(store.pool()).await?;
    rows.iter().map(|row| Ok((text(row, 0)?, number(row, 1)? as u64))).collect()
}

/// Counts a request, and says whether the user is there and the requester may have its keys; none
/// where there were as many requests as there may be in this hour. One statement, whatever the
/// answer.
async fn count(
    db: &mut AnyConnection,
    asked: &Asked,
    counted_as: &str,
    now: u64,
) -> Result<Option<bool>, Failed> {
    let row = sqlx::query(
        "INSERT INTO key_limits (requester, hour, used) VALUES ($1, $2, 1)
         ON CONFLICT (requester, hour) DO UPDATE SET used = key_limits.used + 1
         WHERE key_limits.used < $3
         RETURNING (SELECT u.policy FROM key_users u WHERE u.ssi = $4),
         (SELECT MAX(c.state) FROM key_consents c WHERE c.ssi = $4 AND c.requester = $5
         AND c.room IN ('', $6))",
    )
    .bind(counted_as)
    .bind(time(now / HOUR))
    .bind(i64::from(asked.an_hour))
    .bind(asked.target.as_str())
    .bind(&*asked.requester)
    .bind(&*asked.room)
    .fetch_optional(&mut *db)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let Some(policy) = row.try_get::<Option<String>, _>(0)? else { return Ok(Some(false)) };
    let state = row.try_get::<Option<i64>, _>(1)?;
    Ok(Some(match Policy::read(&policy)? {
        Policy::All => state != Some(REVOKED),
        Policy::List => state == Some(GRANTED),
        Policy::None => false,
    }))
}

/// Takes a package of each client of a user. It is taken for good once this returns.
///
/// # Errors
/// The database.
pub async fn claim(store: &Store, asked: &Asked, now: u64) -> Result<Claimed, Failed> {
    let databases = store.databases();
    transaction!(store, |db| {
        match count(db, asked, &asked.counted_as, now).await? {
            None => Ok(Claimed::Limited { seconds: HOUR - now % HOUR }),
            Some(false) => {
                let code = KeyMaterialUserCode::NoConsent;
                Ok(Claimed::Answered { code, clients: Vec::new() })
            }
            Some(true) => take_all(db, databases, asked, now).await,
        }
    })
    .await
}

async fn take_all(
    db: &mut AnyConnection,
    databases: Databases,
    asked: &Asked,
    now: u64,
) -> Result<Claimed, Failed> {
    let mut given = Vec::new();
    let mut bytes_left = KEY_REPLY_BYTES_MAX - REPLY_BYTES;
    for (client, kinds) in fitting_kinds(db, asked).await? {
        if kinds.is_empty() {
            given.push(Given::Incompatible { client });
            continue;
        }
        // One that would not fit into the reply is not taken.
        let is_room = bytes_left >= KEY_PACKAGE_BYTES_MAX + CLIENT_BYTES;
        let taken = match is_room {
            true => take(db, databases, (&asked.target, &client), &kinds, now).await?,
            false => None,
        };
        given.push(match taken {
            Some((bytes, last_resort)) => {
                bytes_left -= bytes.len() + CLIENT_BYTES;
                Given::Package { client, bytes, last_resort }
            }
            None => Given::Exhausted { client },
        });
    }
    let packages = given.iter().filter(|one| matches!(one, Given::Package { .. })).count();
    let code = match packages {
        0 => KeyMaterialUserCode::NoCompatibleMaterial,
        all if all == given.len() => KeyMaterialUserCode::Success,
        _ => KeyMaterialUserCode::PartialSuccess,
    };
    Ok(Claimed::Answered { code, clients: given })
}

/// The clients of the user, each with the kinds of packages that fit.
async fn fitting_kinds(
    db: &mut AnyConnection,
    asked: &Asked,
) -> Result<Vec<(String, Vec<String>)>, Failed> {
    let rows = sqlx::query(
        "SELECT c.client, k.kind, k.suite, k.capabilities FROM key_clients c
         LEFT JOIN key_kinds k ON k.ssi = c.ssi AND k.client = c.client
         WHERE c.ssi = $1 ORDER BY c.client, k.kind",
    );
    let rows = rows.bind(asked.target.as_str()).fetch_all(&mut *db).await?;
    let mut clients: Vec<(String, Vec<String>)> = Vec::new();
    for row in &rows {
        let client = text(row, 0)?;
        if clients.last().is_none_or(|(last, _)| *last != client) {
            clients.push((client, Vec::new()));
        }
        let Some(kind) = row.try_get::<Option<String>, _>(1)? else { continue };
        let unreadable = StoreError::Row("capabilities cannot be read");
        let capabilities = from_base64url(&text(row, 3)?)
            .and_then(|bytes| Capabilities::tls_deserialize_exact_bytes(&bytes).ok())
            .ok_or(unreadable)?;
        let suite = u16::try_from(number(row, 2)?).unwrap_or(0);
        if fits(suite, &capabilities, &asked.suites, &asked.required)
            && let Some((_, kinds)) = clients.last_mut()
        {
            kinds.push(kind);
        }
    }
    Ok(clients)
}

/// PostgreSQL: rows that another claim holds are skipped. The inner query runs once.
const TAKE_POSTGRES: &str = "UPDATE key_packages SET taken_at = $5 WHERE reference = (
     SELECT reference FROM key_packages WHERE ssi = $1 AND client = $2 AND kind = $3
     AND taken_at = 0 AND last_resort = 0 AND not_before <= $4 AND not_after > $4
     ORDER BY not_after LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING package";
/// SQLite has one writer.
const TAKE_SQLITE: &str = "UPDATE key_packages SET taken_at = $5 WHERE reference = (
     SELECT reference FROM key_packages WHERE ssi = $1 AND client = $2 AND kind = $3
     AND taken_at = 0 AND last_resort = 0 AND not_before <= $4 AND not_after > $4
     ORDER BY not_after LIMIT 1) RETURNING package";
const LAST_RESORT: &str = "SELECT package FROM key_packages WHERE ssi = $1 AND client = $2
     AND kind = $3 AND taken_at = 0 AND last_resort = 1 AND not_before <= $4 AND not_after > $4";

/// A package of one of these kinds; the last resort only when there is no other.
async fn take(
    db: &mut AnyConnection,
    databases: Databases,
    (ssi, client): (&Ssi, &str),
    kinds: &[String],
    now: u64,
) -> Result<Option<(Vec<u8>, bool)>, Failed> {
    let taking = match databases {
        Databases::Postgres => TAKE_POSTGRES,
        Databases::Sqlite => TAKE_SQLITE,
    };
    let bytes = |row: &AnyRow| -> Result<Vec<u8>, Failed> {
        let unreadable = StoreError::Row("a key package is no base64url");
        Ok(from_base64url(&text(row, 0)?).ok_or(unreadable)?)
    };
    for kind in kinds {
        let query = sqlx::query(taking).bind(ssi.as_str()).bind(client).bind(&**kind);
        let query = query.bind(time(now)).bind(time(now.max(1)));
        if let Some(row) = query.fetch_optional(&mut *db).await? {
            return Ok(Some((bytes(&row)?, false)));
        }
    }
    for kind in kinds {
        let query = sqlx::query(LAST_RESORT).bind(ssi.as_str()).bind(client).bind(&**kind);
        if let Some(row) = query.bind(time(now)).fetch_optional(&mut *db).await? {
            return Ok(Some((bytes(&row)?, true)));
        }
    }
    Ok(None)
}

/// The user's key and its list of clients, for who may have its packages.
///
/// # Errors
/// The database.
pub async fn list(store: &Store, asked: &Asked, now: u64) -> Result<Listed, Failed> {
    let counted_as = format!("{}.list", asked.counted_as);
    transaction!(store, |db| {
        match count(db, asked, &counted_as, now).await? {
            None => return Ok(Listed::Limited { seconds: HOUR - now % HOUR }),
            Some(false) => return Ok(Listed::NoConsent),
            Some(true) => {}
        }
        let row = sqlx::query("SELECT uk, list FROM key_users WHERE ssi = $1");
        match row.bind(asked.target.as_str()).fetch_optional(&mut *db).await? {
            Some(row) => Ok(Listed::Found { uk: text(&row, 0)?, list: text(&row, 1)? }),
            None => Ok(Listed::NoConsent),
        }
    })
    .await
}

/// Removes what has expired: how many packages.
///
/// # Errors
/// The database.
pub async fn purge(store: &Store, now: u64) -> Result<u64, Failed> {
    let mut removed = 0;
    let hour = time(now / HOUR) - 1;
    let steps: [(&'static str, i64); 5] = [
        (
            "DELETE FROM key_packages WHERE reference IN (
             SELECT reference FROM key_packages WHERE not_after <= $1 LIMIT $2)",
            time(now),
        ),
        (
            "UPDATE key_packages SET package = '' WHERE reference IN (SELECT reference
             FROM key_packages WHERE taken_at > 0 AND package <> '' AND taken_at <= $1 LIMIT $2)",
            time(now),
        ),
        (
            "DELETE FROM key_limits WHERE requester IN (
             SELECT requester FROM key_limits WHERE hour < $1 LIMIT $2) AND hour < $1",
            hour,
        ),
        (
            "DELETE FROM key_identifiers WHERE sii_mac IN (
             SELECT sii_mac FROM key_identifiers WHERE expires_at <= $1 LIMIT $2)",
            time(now),
        ),
        (
            "DELETE FROM key_consents WHERE state = 1 AND changed_at <= $1 AND ssi IN (SELECT ssi
             FROM key_consents WHERE state = 1 AND changed_at <= $1 LIMIT $2)",
            time(now) - ASKED_SECONDS,
        ),
    ];
    for (at, (query, until)) in steps.into_iter().enumerate() {
        loop {
            let done = transaction!(store, |db| {
                let done = sqlx::query(query).bind(until).bind(KEY_PURGE_ROWS);
                Ok(done.execute(&mut *db).await?.rows_affected())
            })
            .await;
            let rows = done?;
            removed += if at == 0 { rows } else { 0 };
            if (rows as i64) < KEY_PURGE_ROWS {
                break;
            }
        }
    }
    Ok(removed)
}
