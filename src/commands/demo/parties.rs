//! The parties of `sotto demo --federated`: operators with their databases, answer servers, relays
//! and front-ends, each with files and sockets of its own, on this machine.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path as UrlPath, State};
use axum::http::StatusCode;
use axum::routing::get;
use ed25519_dalek::{SigningKey, VerifyingKey};
use sotto::builder::keys;
use sotto::discovery::jws;
use sotto::front_end::pool::PoolOptions;
use sotto::front_end::{self, FrontEnd};
use sotto::https::{Bounds, Sample, TlsFiles};
#[cfg(feature = "registration")]
use sotto::https::{Client, HttpsError};
use sotto::limits;
use sotto::relay::{self, AccountsFrom, FrontEndFiles, KeyServiceFiles, Quota, Relay};
use sotto::server::certificates::{self, LocalCertificates};
use tokio::net::TcpListener;

use super::stage::{Error, Running, Serving};
use crate::commands::folder::write_new;

/// The longest time between two canaries that the demo has: its canaries are seen at work.
const CANARY_MEAN: Duration = Duration::from_secs(1);
/// Longest time for a request.
#[cfg(feature = "registration")]
const REQUEST_TIME: Duration = Duration::from_secs(10);
/// The name that all certificates of servers here have.
const LOCALHOST: &str = "localhost";

/// Numbers of a relay or a front-end, by the metric and its labels.
pub(super) type Numbers = Box<dyn Fn() -> Vec<Sample> + Send + Sync>;

/// The sum of the samples of a metric that have these labels.
pub(super) fn total(numbers: &Numbers, name: &str, labels: &[(&str, &str)]) -> u64 {
    let has = |sample: &Sample| {
        let is_there = |&(name, value): &(&str, &str)| {
            sample.labels.iter().any(|(known, given)| *known == name && given == value)
        };
        sample.name == name && labels.iter().all(is_there)
    };
    numbers().iter().filter(|sample| has(sample)).map(|sample| sample.value as u64).sum()
}

/// Certificates of a party, and the files that it keeps them in.
pub(super) struct Party {
    pub(super) folder: PathBuf,
    pub(super) made: LocalCertificates,
}

impl Party {
    /// Makes a folder and certificates; `client` is the name that others know the party by.
    pub(super) fn new(parent: &Path, name: &str, client: &str) -> Result<Self, Error> {
        let folder = parent.join(name);
        fs::create_dir(&folder)?;
        let made = certificates::localhost_for(client)?;
        for (file, text, mode) in [
            ("ca.pem", &made.ca_pem, 0o644),
            ("server.pem", &made.server_pem, 0o644),
            ("server.key", &made.server_key, 0o600),
            ("client.pem", &made.client_pem, 0o644),
            ("client.key", &made.client_key, 0o600),
        ] {
            write_new(&folder.join(file), text, mode)?;
        }
        Ok(Self { folder, made })
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Writes a file of this party.
    pub(super) fn write(&self, name: &str, text: &str) -> Result<PathBuf, Error> {
        let path = self.file(name);
        write_new(&path, text, 0o600)?;
        Ok(path)
    }

    /// Asks another party's server, under the name that others know this party by.
    #[cfg(feature = "registration")]
    pub(super) fn client(&self, server: &Self) -> Result<Client, HttpsError> {
        let identity = (self.made.client_pem.as_bytes(), self.made.client_key.as_bytes());
        Client::new(Some(server.made.ca_pem.as_bytes()), Some(identity), REQUEST_TIME)
    }

    /// Asks this party's server, as anybody does.
    #[cfg(feature = "registration")]
    pub(super) fn anybody(&self) -> Result<Client, HttpsError> {
        Client::new(Some(self.made.ca_pem.as_bytes()), None, REQUEST_TIME)
    }

    fn tls(&self, client_ca: Option<PathBuf>) -> TlsFiles {
        TlsFiles { cert: self.file("server.pem"), key: self.file("server.key"), client_ca }
    }
}

/// A database and where it is asked, for a placement file.
pub(super) struct Placed<'a> {
    pub(super) id: &'a str,
    pub(super) servers: Vec<&'a Serving>,
    /// Who evaluates, if not this front-end.
    pub(super) evaluate: Option<String>,
}

fn placement(databases: &[Placed<'_>]) -> String {
    let mut text = String::new();
    for Placed { id, servers, evaluate } in databases {
        text += &format!("[[database]]\nid = \"{id}\"\n");
        if let Some(url) = evaluate {
            text += &format!("evaluate = \"{url}\"\n");
        }
        for server in servers {
            let address = server.running.address;
            text +=
                &format!("[[database.server]]\naddress = \"{address}\"\nname = \"{LOCALHOST}\"\n");
        }
    }
    text
}

/// What a front-end is started with.
pub(super) struct FrontEndSetting<'a> {
    pub(super) party: &'a Party,
    pub(super) databases: &'a [Placed<'a>],
    /// Names of those that may send it requests, and their authorities.
    pub(super) callers: &'a [(&'a str, &'a Party)],
    /// Blinding keys by database.
    pub(super) blind_keys: Vec<(String, PathBuf)>,
    /// Certificates of the answer servers and of other front-ends.
    pub(super) trusted: String,
    pub(super) directory: &'a Path,
    pub(super) directory_pins: &'a Path,
}

fn bounds() -> Bounds {
    Bounds {
        connections: limits::FRONT_END_CONNECTIONS_MAX,
        handshakes: limits::FRONT_END_HANDSHAKES_MAX,
        handshake_time: limits::FRONT_END_HANDSHAKE_TIME,
        head_time: limits::FRONT_END_HEAD_TIME,
        idle_time: limits::FRONT_END_IDLE_TIME,
        body_time: limits::FRONT_END_BODY_TIME,
    }
}

/// Starts a front-end, and gives the key by which devices recognise its keys.
pub(super) async fn start_front_end(
    setting: FrontEndSetting<'_>,
) -> Result<(Running<Numbers>, VerifyingKey), Error> {
    let FrontEndSetting { party, databases, callers, trusted, .. } = setting;
    let authorities: String = callers.iter().map(|(_, party)| &*party.made.ca_pem).collect();
    let callers: String =
        callers.iter().map(|(name, _)| format!("{name} 1000000 1000000\n")).collect();
    let identity = keys::create(&party.file("identity.pem"))?;
    let mut pool = PoolOptions::new(trusted.clone().into_bytes());
    let (cert, key) = (&party.made.client_pem, &party.made.client_key);
    pool.identity_pem = Some((cert.clone().into_bytes(), key.clone().into_bytes().into()));
    pool.records_per_shard_min = 0; // a demo has few records
    pool.canary_mean = CANARY_MEAN;
    let options = front_end::Options {
        listen: ([127, 0, 0, 1], 0).into(),
        tls: party.tls(Some(party.write("callers-ca.pem", &authorities)?)),
        bounds: bounds(),
        keys: party.file("ohttp-keys"),
        identity: party.file("identity.pem"),
        relays: party.write("relays", &callers)?,
        directory: setting.directory.to_owned(),
        directory_pins: setting.directory_pins.to_owned(),
        placement: party.write("placement.toml", &placement(databases))?,
        blind_keys: setting.blind_keys,
        evaluate_ca: Some(party.write("evaluate-ca.pem", &trusted)?),
        pool,
        memory_bytes: limits::FRONT_END_MEMORY_BYTES,
        resolve_bytes: None,
        clock: front_end::system_clock(),
    };
    let front_end = FrontEnd::start(options).await?;
    let (address, shown) = (front_end.local_addr(), front_end.control().shown().samples);
    let running = Running::start(address, shown, |told| front_end.run(told));
    Ok((running, identity.verifying_key()))
}

/// Starts a relay whose accounts have tokens of `issuer`.
pub(super) async fn start_relay(
    party: &Party,
    front_end: (&Party, SocketAddr),
    key_services: Option<KeyServiceFiles>,
    issuer: &SigningKey,
) -> Result<Running<Numbers>, Error> {
    let (provider, address) = front_end;
    let jwks = party.write("accounts.jwks", &jwks(issuer))?;
    let quota = |text: &str| text.parse::<Quota>();
    let options = relay::Options {
        listen: ([127, 0, 0, 1], 0).into(),
        tls: party.tls(None),
        front_end: FrontEndFiles {
            url: format!("https://{LOCALHOST}:{}", address.port()),
            ca: provider.file("ca.pem"),
            cert: party.file("client.pem"),
            key: party.file("client.key"),
            time: limits::RELAY_FORWARD_TIME,
        },
        key_services,
        accounts: AccountsFrom::Jwks { file: jwks, audience: None },
        evaluate: quota("1024,128/day")?,
        lookup: quota("2048,512/day")?,
        state: party.file("state"),
        memory_bytes: limits::RELAY_MEMORY_BYTES,
        forwards: limits::RELAY_FORWARDS_MAX,
        bounds: bounds(),
        clock: relay::system_clock(),
    };
    let relay = Relay::start(options).await?;
    let (address, shown) = (relay.local_addr(), relay.control().shown().samples);
    Ok(Running::start(address, shown, |told| relay.run(told)))
}

/// The JWK set that verifies tokens of `issuer`.
pub(super) fn jwks(issuer: &SigningKey) -> String {
    let x = jws::base64url(issuer.verifying_key().as_bytes());
    let kid = jws::key_id(&issuer.verifying_key());
    let jwk = serde_json::json!({ "kty": "OKP", "crv": "Ed25519", "kid": kid, "x": x });
    serde_json::json!({ "keys": [jwk] }).to_string()
}

/// A token of an account, for an hour.
pub(super) fn token(issuer: &SigningKey, account: &str, now: u64) -> String {
    let claims = serde_json::json!({ "sub": account, "exp": now + 3_600 });
    jws::sign("JWT", claims.to_string().as_bytes(), issuer)
}

/// A web server that gives out the files of a folder, as any does.
pub(super) async fn publish(folder: PathBuf) -> Result<Running<()>, Error> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let read = |State(folder): State<Arc<PathBuf>>, UrlPath(path): UrlPath<String>| async move {
        let is_plain = path.split('/').all(|part| !part.is_empty() && !part.starts_with('.'));
        let read = is_plain.then(|| fs::read(folder.join(path)));
        read.and_then(Result::ok).ok_or(StatusCode::NOT_FOUND)
    };
    let router = axum::Router::new().route("/{*path}", get(read)).with_state(Arc::new(folder));
    Ok(Running::start(address, (), |told| async {
        let _ = axum::serve(listener, router).with_graceful_shutdown(told).await;
    }))
}
