//! What runs: the registrar, the log, Aero's key service and Brook's relay; and what is asked of
//! them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use axum::body::Bytes;
use axum::http::Method;
use ed25519_dalek::SigningKey;
use serde_json::{Value, json};
use sotto::discovery::jws::base64url;
use sotto::https::{Client, Response};
use sotto::registrar::channels::Loopback;
use sotto::registrar::keys::{self, KeyService, RelayEntry};
use sotto::registrar::log::{self, LogServer};
use sotto::registrar::service::{self, Registrar};
use sotto::relay::KeyServiceFiles;

use super::messages::Messages;
use super::story::{AERO, BROOK, Checks, DATABASE, NORTH};
use super::world::{LOG_NAME, STORES, World};
use crate::commands::demo::parties::{Numbers, Party, jwks, start_relay, token, total};
use crate::commands::demo::stage::{Args, Error, Running, row};
use crate::commands::trusted::now;

const REPLY_BYTES_MAX: usize = 64 << 10;
/// Nobody listens there: this relay has no front-end, and none is needed to ask for keys.
const NO_FRONT_END: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1);

/// All that runs. They end in this order.
pub(super) struct Services {
    registrar: Running<()>,
    keys: Running<()>,
    log: Running<()>,
    relay: Running<Numbers>,
    aps: [Caller; 2],
    /// Signs tokens of Aero's users.
    aero_accounts: SigningKey,
    /// A device of a user of Aero.
    device: Client,
}

/// An application provider, as the registrar knows it.
struct Caller {
    domain: &'static str,
    client: Client,
}

impl Services {
    /// Starts them, and gives the messages that people will get.
    pub(super) async fn start(world: &mut World, args: &Args) -> Result<(Self, Messages), Error> {
        world.introduce()?;
        let log = start_log(world).await?;
        let keys = start_keys(world).await?;
        world.set_key_service(keys.url())?;
        let config = configure(world, args, &log.url())?;
        let (loopback, played) = Loopback::new();
        let clock = service::system_clock();
        let registrar = Registrar::start(&config, clock, Some(loopback)).await?;
        let (address, control) = (registrar.local_addr(), registrar.control());
        let registrar = Running::start(address, (), |told| registrar.run(told));
        control.until_database(true).await;
        let key_services = KeyServiceFiles {
            directory: world.directory_file(),
            pins: world.pins_file(),
            ca: world.aero.file("ca.pem"),
        };
        let no_front_end = (&world.north, NO_FRONT_END);
        let relay =
            start_relay(&world.brook, no_front_end, Some(key_services), &world.brook_accounts);
        let relay = relay.await?;
        let caller = |domain, party: &Party| {
            Ok::<_, Error>(Caller { domain, client: party.client(&world.north)? })
        };
        let aps = [caller(AERO, &world.aero)?, caller(BROOK, &world.brook)?];
        let aero_accounts = world.aero_accounts.clone();
        let device = world.aero.anybody()?;
        let services = Self { registrar, keys, log, relay, aps, aero_accounts, device };
        Ok((services, Messages::new(played, args.smpp.is_some())))
    }

    pub(super) fn relay_url(&self) -> String {
        self.relay.url()
    }

    pub(super) fn log_url(&self) -> String {
        self.log.url()
    }

    pub(super) async fn end(self) {
        for service in [self.registrar, self.keys, self.log] {
            service.end().await;
        }
        self.relay.end().await;
    }

    /// A request of an application provider.
    pub(super) async fn ask(
        &self,
        ap: &str,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<Response, Error> {
        let caller = self.aps.iter().find(|caller| caller.domain == ap);
        let caller = caller.ok_or("an application provider that is not there")?;
        let key = base64url(&sotto::scheme::random_bytes()?);
        let headers = [("idempotency-key", &*key), ("content-type", "application/json")];
        let body = body.map_or_else(Bytes::new, |body| body.to_string().into());
        let url = format!("{}{path}", self.registrar.url());
        Ok(caller.client.send(method, &url, &headers, body, REPLY_BYTES_MAX).await?)
    }

    pub(super) async fn enter(&self, ap: &str, id: &str, code: &str) -> Result<Response, Error> {
        let path = format!("/v1/registrations/{id}/code");
        self.ask(ap, Method::POST, &path, Some(json!({ "code": code }))).await
    }

    pub(super) async fn state_of(&self, ap: &str, id: &str) -> Result<String, Error> {
        let reply = self.ask(ap, Method::GET, &format!("/v1/registrations/{id}"), None).await?;
        text(&reply, 200, "state")
    }

    /// What a user of Aero leaves with its key service.
    pub(super) async fn put_keys(
        &self,
        account: &str,
        path: &str,
        body: Bytes,
    ) -> Result<Response, Error> {
        let bearer = format!("Bearer {}", token(&self.aero_accounts, account, now()?));
        let headers = [("authorization", &*bearer)];
        let url = format!("{}{path}", self.keys.url());
        Ok(self.device.send(Method::PUT, &url, &headers, body, REPLY_BYTES_MAX).await?)
    }

    /// Brook's relay knows its user and the provider; the rest was sealed.
    pub(super) fn say_what_the_relay_saw(&self, checks: &mut Checks) -> Result<(), Error> {
        let numbers = &self.relay.shown;
        let answered = [("kind", "keys"), ("outcome", "answered")];
        let requests = total(numbers, "relay_requests_total", &answered);
        let bytes = total(numbers, "relay_forwarded_bytes_total", &[]);
        let said = format!(
            "Brook's relay saw {requests} sealed requests of one account to Aero, {bytes} bytes, \
             and no name"
        );
        // The list and the packages of Alice, and the list of Boris.
        checks.is(requests == 3, &said)
    }
}

/// Ledger's log takes statements and epochs of North.
async fn start_log(world: &World) -> Result<Running<()>, Error> {
    let ledger = &world.ledger;
    let client_ca = ledger.write("callers-ca.pem", &world.north.made.ca_pem)?;
    let allowed = json!({ "statements": true, "databases": [DATABASE] });
    let callers = toml::to_string(&json!({ "callers": { NORTH: allowed } }))?;
    let config = json!({
        "listen": "127.0.0.1:0",
        "cert": path(ledger.file("server.pem")),
        "key": path(ledger.file("server.key")),
        "client-ca": path(client_ca),
        "callers": path(ledger.write("callers.toml", &callers)?),
        "name": LOG_NAME,
        "log-key": path(ledger.file("log-key.pem")),
        "database": world.store(ledger, STORES[1]),
        "folder": path(ledger.file("public")),
    });
    let config = ledger.write("log.toml", &toml::to_string(&config)?)?;
    let options = log::Config::read(&config)?.options(sotto::relay::system_clock());
    let log = LogServer::start(options).await?;
    let address = log.local_addr();
    row("log", &format!("{address}, key {}", world.log_key()?))?;
    Ok(Running::start(address, (), |told| log.run(told)))
}

/// Aero's key service answers what Brook's relay passes on.
async fn start_keys(world: &World) -> Result<Running<()>, Error> {
    let aero = &world.aero;
    let config = keys::Config {
        listen: ([127, 0, 0, 1], 0).into(),
        cert: aero.file("server.pem"),
        key: aero.file("server.key"),
        client_ca: aero.write("relays-ca.pem", &world.brook.made.ca_pem)?,
        database: world.store(aero, STORES[2]),
        connections: 2,
        domain: AERO.to_owned(),
        accounts: aero.write("accounts.jwks", &jwks(&world.aero_accounts))?,
        audience: None,
        ohttp_keys: aero.file("ohttp-keys"),
        identity: aero.file("identity.pem"),
        identifiers_key: aero.file("identifiers.key"),
        directory: world.directory_file(),
        directory_pins: world.pins_file(),
        claims_an_hour: sotto::limits::keys::KEY_CLAIMS_AN_HOUR,
        queries_an_hour: sotto::limits::keys::KEY_QUERIES_AN_HOUR,
        relays: vec![RelayEntry { name: BROOK.to_owned(), domains: vec![BROOK.to_owned()] }],
    };
    let service = KeyService::start(config, None, sotto::relay::system_clock()).await?;
    let address = service.local_addr();
    row("key service of Aero", &address.to_string())?;
    Ok(Running::start(address, (), |told| service.run(told)))
}

fn path(path: PathBuf) -> String {
    path.display().to_string()
}

/// Writes the registrar's configuration, and makes its secrets.
fn configure(world: &World, args: &Args, log_url: &str) -> Result<PathBuf, Error> {
    let north = &world.north;
    let callers = world.aero.made.ca_pem.clone() + &world.brook.made.ca_pem;
    let rules = json!({
        "countries": ["DE", "US"], "messages-a-day": 1_000, "money-a-day": 100_000,
    });
    let channels = match &args.smpp {
        None => json!({ "dp": "North" }),
        Some(address) => {
            let credentials = credentials(north, args.smpp_credentials.as_deref())?;
            let centre = json!({
                "kind": "smpp",
                "address": address,
                "tls": false,
                "credentials": credentials,
                "source": "North",
            });
            json!({ "dp": "North", "sms": ["centre"], "gateways": { "centre": centre } })
        }
    };
    let config = json!({
        "listen": "127.0.0.1:0",
        "cert": path(north.file("server.pem")),
        "key": path(north.file("server.key")),
        "client-ca": path(north.write("callers-ca.pem", &callers)?),
        "client-cert": path(north.file("client.pem")),
        "client-key": path(north.file("client.key")),
        "issuer": NORTH,
        "issuer-key": path(north.file("issuer.pem")),
        "keys": path(north.file("keys")),
        "database": world.store(north, STORES[0]),
        "directory": path(world.directory_file()),
        "directory-pins": path(world.pins_file()),
        "ap": [
            { "domain": AERO, "name": "Aero", "rules": rules },
            { "domain": BROOK, "name": "Brook", "rules": rules },
        ],
        "log": { "url": log_url, "ca": path(world.ledger.file("ca.pem")) },
        "fraud": { "prices": { "DE": 75, "US": 8 } },
        "channels": channels,
    });
    let config = north.write("registrar.toml", &toml::to_string(&config)?)?;
    service::init(&service::Config::read(&config)?)?;
    Ok(config)
}

/// The file of the credentials at the message centre.
fn credentials(north: &Party, given: Option<&Path>) -> Result<String, Error> {
    Ok(path(match given {
        Some(file) => std::path::absolute(file)?,
        None => north.write("centre.credentials", "sotto\ndemo\n")?,
    }))
}

/// A member of a reply that has to have this status.
pub(super) fn text(reply: &Response, status: u16, name: &str) -> Result<String, Error> {
    accepted(reply, status)?;
    let body: Value = serde_json::from_slice(&reply.body)?;
    let member = body[name].as_str().ok_or_else(|| format!("a reply without {name}"))?;
    Ok(member.to_owned())
}

/// A member of a reply of any status, for people.
pub(super) fn member(reply: &Response, name: &str) -> Result<String, Error> {
    let body: Value = serde_json::from_slice(&reply.body)?;
    Ok(match &body[name] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    })
}

/// Refuses a reply of another status.
pub(super) fn accepted(reply: &Response, status: u16) -> Result<(), Error> {
    match reply.status == status {
        true => Ok(()),
        false => {
            let said = String::from_utf8_lossy(&reply.body);
            Err(format!("found status {}, expected {status}: {said}", reply.status).into())
        }
    }
}
