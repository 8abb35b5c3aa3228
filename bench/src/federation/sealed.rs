//! Requests as a device seals them: real queries and real blinded elements, made once and sent
//! often. A front-end answers the same bytes each time (docs/federation.md).

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sotto::builder::keys;
use sotto::client::device::{DeviceBatch, Known};
use sotto::client::{OperatorKey, Pins};
use sotto::discovery::blind::blind;
use sotto::discovery::identifier::Identifier;
use sotto::discovery::resolver::read_front_end_key;
use sotto::discovery::sealed::capsule::{InnerRequest, seal};
use sotto::discovery::sealed::evaluate::{ELEMENTS, EvaluateRequest};
use sotto::discovery::sealed::keys::KeyList;
use sotto::discovery::sealed::lookup::{BATCH, join};
use sotto::https::{Client, Response};
use sotto::scheme::random_bytes;
use sotto::wire::message::{PirParameterResponse, ReplyBody};
use sotto::wire::{Bytes, FRAME_HEAD_BYTES_MAX, decode_reply, hex, reply_head};

use super::account::{Issuer, now};
use crate::Failed;

/// How long a request may take.
const PATIENCE: Duration = Duration::from_secs(60);
const PUBLIC_BYTES_MAX: usize = 1 << 20;
const REPLY_BYTES_MAX: usize = 4 << 20;

/// The kinds of requests, which a relay counts apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    Evaluate,
    Lookup,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Evaluate => "evaluate",
            Self::Lookup => "lookup",
        }
    }
}

/// The relay, and what devices know.
#[derive(Debug, clap::Args)]
pub(crate) struct Reach {
    /// The relay, such as https://localhost:4443
    #[arg(long, value_name = "URL")]
    pub(super) relay: String,
    /// Authority that signs its certificate
    #[arg(long, value_name = "PEM")]
    relay_ca: PathBuf,
    /// The key by which devices recognise the front-end's keys
    #[arg(long, value_name = "FILE")]
    front_end_keys: PathBuf,
    /// Database that is asked
    #[arg(long, value_name = "NAME")]
    database: String,
    /// The operator's signing key, which stands for its public key
    #[arg(long, value_name = "PEM")]
    signing_key: PathBuf,
    /// Key that signs tokens of accounts
    #[arg(long, value_name = "PEM")]
    issuer: PathBuf,
}

/// What all devices of a run share.
pub(crate) struct Devices {
    relay: String,
    ca: Vec<u8>,
    issuer: Issuer,
    database: String,
    /// The front-end's OHTTP key.
    config: Vec<u8>,
    known: Known,
}

impl Devices {
    /// Fetches the front-end's keys and the parameters, as a device does.
    pub(crate) async fn open(reach: &Reach) -> Result<Self, Failed> {
        let ca = read(&reach.relay_ca)?;
        let http = Client::new(Some(&ca), None, PATIENCE)?;
        let front_end_key = read_front_end_key(&String::from_utf8(read(&reach.front_end_keys)?)?)?;
        let list = fetch(&http, &format!("{}/ohttp-keys", reach.relay)).await?;
        let list = KeyList::open(std::str::from_utf8(&list)?, &front_end_key, now())?;
        let operator = keys::load(&reach.signing_key)?.ok_or("the signing key is missing")?;
        let operator = OperatorKey(operator.verifying_key().to_bytes());
        let mut known = Known::new(Pins::operator(operator), 0);
        let url = format!("{}/databases/{}/parameters", reach.relay, reach.database);
        known.accept(&parameters(fetch(&http, &url).await?)?, now())?;
        Ok(Self {
            relay: reach.relay.clone(),
            ca,
            issuer: Issuer::open(&reach.issuer)?,
            database: reach.database.clone(),
            config: list.newest().to_vec(),
            known,
        })
    }

    /// A device with an account of its own; it has no connection yet.
    pub(crate) fn device(&self, account: &str) -> Result<Device, Failed> {
        let http = Client::new(Some(&self.ca), None, PATIENCE)?;
        let bearer = format!("Bearer {}", self.issuer.token(account));
        Ok(Device { http, bearer, relay: self.relay.clone() })
    }

    /// A sealed request of fresh content.
    pub(crate) fn request(&self, kind: Kind) -> Result<Bytes, Failed> {
        let request = match kind {
            Kind::Evaluate => self.evaluation()?,
            Kind::Lookup => self.lookup()?,
        };
        Ok(seal(&self.config, &request)?.0.into())
    }

    fn evaluation(&self) -> Result<InnerRequest, Failed> {
        let contact = |number| Identifier::parse(&format!("device.{number}@example.com"), None);
        let contacts: Vec<Identifier> = (0..ELEMENTS).map(contact).collect::<Result<_, _>>()?;
        let (_, elements) = blind(&contacts)?;
        let elements = elements.try_into().map_err(|_| "this is a bug: not 16 elements")?;
        let request = EvaluateRequest { database: self.database.clone(), elements };
        Ok(InnerRequest {
            method: "POST".into(),
            path: "/evaluate".into(),
            content_type: Some("application/x-protobuf".into()),
            body: request.encode(),
        })
    }

    /// Of random keys, which are absent, in distinct shards.
    fn lookup(&self) -> Result<InnerRequest, Failed> {
        let (mut keys, mut shards) = (Vec::new(), Vec::new());
        while keys.len() < BATCH {
            let key = hex::encode(&random_bytes()?).into_bytes();
            let shard = self.known.shard(&key);
            if !shards.contains(&shard) {
                shards.push(shard);
                keys.push(key.into());
            }
        }
        let batch = DeviceBatch::encrypt(&self.known, keys)?;
        Ok(InnerRequest {
            method: "POST".into(),
            path: format!("/databases/{}/lookup", self.database),
            content_type: Some("application/x-sotto-frames".into()),
            body: join(batch.bundles(), batch.batch()),
        })
    }
}

/// A device: an account, and a connection that stays once it was used.
#[derive(Clone)]
pub(crate) struct Device {
    http: Client,
    bearer: String,
    relay: String,
}

impl Device {
    /// Sends a sealed request.
    pub(crate) async fn ask(&self, kind: Kind, body: Bytes) -> Result<Response, Failed> {
        let headers = [("content-type", "message/ohttp-req"), ("authorization", &*self.bearer)];
        let url = format!("{}/{}", self.relay, kind.name());
        Ok(self.http.send("POST".parse()?, &url, &headers, body, REPLY_BYTES_MAX).await?)
    }

    /// Fetches a public file, which makes the connection.
    pub(crate) async fn connect(&self) -> Result<(), Failed> {
        fetch(&self.http, &format!("{}/ohttp-keys", self.relay)).await.map(drop)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Failed> {
    fs::read(path).map_err(|error| format!("{}: {error}", path.display()).into())
}

async fn fetch(http: &Client, url: &str) -> Result<Bytes, Failed> {
    let reply = http.send("GET".parse()?, url, &[], Bytes::new(), PUBLIC_BYTES_MAX).await?;
    match reply.status {
        200 => Ok(reply.body),
        status => Err(format!("{url}: the relay answers {status}").into()),
    }
}

/// The parameters in a frame.
fn parameters(body: Bytes) -> Result<PirParameterResponse, Failed> {
    let head = reply_head(&body[..body.len().min(FRAME_HEAD_BYTES_MAX)], None)?;
    let head = head.ok_or("the parameters end early")?;
    match decode_reply(&head, body, None)?.body {
        Some(ReplyBody::Parameters(reply)) => Ok(reply),
        _ => Err("found another reply, expected parameters".into()),
    }
}
