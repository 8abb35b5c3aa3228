//! A small built database served on loopback, and a recorder between client and server.

#[path = "../fake_server/listen.rs"]
mod listen;
#[allow(dead_code)] // not every test speaks raw QUIC
#[path = "../peer/mod.rs"]
pub(crate) mod peer;

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use prost::Message;
use sotto::build::{self, BuildOptions, Input, Silent};
use sotto::client::{OperatorKey, Options, Pins, Replica};
use sotto::engine::{Engine, EngineOptions, select_with};
use sotto::server::certificates::{self, LocalCertificates};
use sotto::server::{
    Callers, Counters, Desk, Doorkeeper, Identity, Server, ServerBounds, ServerOptions,
    WorkCounters,
};
use sotto::shard::Database;
use sotto::shard::manifest::SHARDS_DIR;
use sotto::wire::ALPN;
use sotto::wire::message::Request;

/// What the clients of these tests accept: the databases are small, and the emptiest of five shards
/// of 60 records in the mean has more than this but once in 10^8 databases.
pub(crate) const CROWD: u64 = 20;

/// A built database in a folder that goes with it.
pub(crate) struct Built {
    pub(crate) folder: tempfile::TempDir,
}

impl Built {
    /// Builds `records` over `shards` shards.
    pub(crate) fn new(records: &[(String, Vec<u8>)], shards: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("records.jsonl");
        let mut file = std::fs::File::create(&path).unwrap();
        for (key, value) in records {
            let value = match std::str::from_utf8(value) {
                Ok(text) => text.to_owned(),
                Err(_) => {
                    use base64::Engine as _;
                    let encoded = base64::engine::general_purpose::STANDARD.encode(value);
                    format!("base64:{encoded}")
                }
            };
            writeln!(file, "{}", serde_json::json!({ "sii": key, "value": value })).unwrap();
        }
        drop(file);
        let mut options = BuildOptions::new(Input::File(path), folder.path().join("db"));
        options.shards = Some(shards);
        options.value_bytes = Some(24);
        options.jobs = Some(2);
        build::run(&options, &Silent).unwrap_or_else(|error| panic!("{error}"));
        Self { folder }
    }

    pub(crate) fn db(&self) -> PathBuf {
        self.folder.path().join("db")
    }

    pub(crate) fn operator_key_file(&self) -> PathBuf {
        self.db().join("operator.pub")
    }

    pub(crate) fn operator_key(&self) -> OperatorKey {
        let text = std::fs::read_to_string(self.operator_key_file()).unwrap();
        OperatorKey::from_text(&text).unwrap()
    }

    /// Overwrites every matrix, as a broken disk or a lying server would; headers stay.
    pub(crate) fn spoil(&self) {
        use std::os::unix::fs::FileExt as _;
        let database = Database::open(&self.db()).unwrap();
        for shard in 0..database.shard_count() {
            let matrix = database.shard(shard).unwrap().header().sections()[0];
            let name = &database.manifest().shards[shard as usize].file;
            let path = self.db().join(SHARDS_DIR).join(name);
            let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
            file.write_all_at(&vec![0x55; matrix.bytes as usize], matrix.offset).unwrap();
        }
    }
}

/// A running server.
pub(crate) struct Serving {
    pub(crate) address: SocketAddr,
    pub(crate) certificates: LocalCertificates,
    pub(crate) counters: Arc<Counters>,
    pub(crate) work: Arc<WorkCounters>,
    pub(crate) doorkeeper: Doorkeeper,
    /// Watches it; for whoever wants its operator's endpoints.
    pub(crate) desk: Arc<Desk>,
}

pub(crate) fn serve(db: &Path) -> Serving {
    Setting::default().serve(db)
}

/// What a server is started with, where it is not as always.
pub(crate) struct Setting {
    pub(crate) engines: Vec<Box<dyn Engine>>,
    pub(crate) certificates: LocalCertificates,
    pub(crate) callers: fn(&LocalCertificates) -> Callers,
    pub(crate) bounds: ServerBounds,
}

impl Default for Setting {
    fn default() -> Self {
        Self {
            engines: select_with(&EngineOptions::default()).unwrap().engines,
            certificates: certificates::localhost().unwrap(),
            callers: |_| Callers::Loopback,
            // A spoiled database is to be answered from.
            bounds: ServerBounds { scrub_mib_per_second: 0, ..ServerBounds::default() },
        }
    }
}

impl Setting {
    pub(crate) fn serve(self, db: &Path) -> Serving {
        let Self { engines, certificates, callers, bounds } = self;
        let LocalCertificates { server_pem, server_key, .. } = &certificates;
        let options = ServerOptions {
            listen: ([127, 0, 0, 1], 0).into(),
            identity: Identity::from_pem(server_pem, server_key).unwrap(),
            callers: callers(&certificates),
            engines,
            bounds,
        };
        let database = Arc::new(Database::open(db).unwrap());
        let server = Server::bind(options, database).unwrap();
        let (address, counters) = (server.local_addr(), server.counters());
        let (work, doorkeeper) = (server.work_counters(), server.doorkeeper());
        let desk = Arc::new(Desk::default());
        desk.watch(&server);
        tokio::spawn(server.run(std::future::pending()));
        Serving { address, certificates, counters, work, doorkeeper, desk }
    }
}

pub(crate) fn options(address: SocketAddr, ca_pem: &str, pins: Pins) -> Options {
    let replica = Replica::new(address, "localhost");
    let mut options = Options::new(replica, ca_pem.as_bytes().to_vec(), pins);
    options.records_per_shard_min = CROWD;
    options
}

/// One request as it crossed the wire: its message, its bytes, and the bytes of its replies.
#[derive(Clone)]
pub(crate) struct Crossing {
    pub(crate) request: Request,
    pub(crate) request_bytes: usize,
    /// Lengths of the reply frames, sorted: answers come in any order.
    pub(crate) reply_bytes: Vec<usize>,
}

/// Stands between a client and a server and writes down what crosses.
pub(crate) struct Recorder {
    pub(crate) address: SocketAddr,
    pub(crate) ca_pem: String,
    crossings: Arc<Mutex<Vec<Crossing>>>,
}

impl Recorder {
    pub(crate) fn start(to: &Serving) -> Self {
        let own = certificates::localhost().unwrap();
        let endpoint = listen::on_loopback(&own);
        let (address, ca_pem) = (endpoint.local_addr().unwrap(), own.ca_pem);
        let crossings = Arc::new(Mutex::new(Vec::new()));
        let (upstream, ca, log) = (to.address, to.certificates.ca_pem.clone(), crossings.clone());
        tokio::spawn(async move {
            while let Some(incoming) = endpoint.accept().await {
                let connection = incoming.await.unwrap();
                let upstream = dial(upstream, &ca).await;
                let log = log.clone();
                tokio::spawn(async move {
                    while let Ok((send, receive)) = connection.accept_bi().await {
                        relay(&upstream.connection, send, receive, &log).await;
                    }
                });
            }
        });
        Self { address, ca_pem, crossings }
    }

    pub(crate) fn take(&self) -> Vec<Crossing> {
        std::mem::take(&mut self.crossings.lock().unwrap())
    }
}

async fn relay(
    upstream: &quinn::Connection,
    mut send: quinn::SendStream,
    mut receive: quinn::RecvStream,
    log: &Mutex<Vec<Crossing>>,
) {
    let request = receive.read_to_end(64 << 20).await.unwrap();
    let (mut up, mut down) = upstream.open_bi().await.unwrap();
    up.write_all(&request).await.unwrap();
    up.finish().unwrap();
    let replies = down.read_to_end(64 << 20).await.unwrap();
    log.lock().unwrap().push(Crossing {
        request: Request::decode_length_delimited(&request[..]).unwrap(),
        request_bytes: request.len(),
        reply_bytes: frame_lengths(&replies),
    });
    send.write_all(&replies).await.unwrap();
    send.finish().unwrap();
}

fn frame_lengths(mut bytes: &[u8]) -> Vec<usize> {
    let mut lengths = Vec::new();
    while !bytes.is_empty() {
        let before = bytes.len();
        let length = prost::encoding::decode_varint(&mut bytes).unwrap() as usize;
        bytes = &bytes[length..];
        lengths.push(before - bytes.len());
    }
    lengths.sort_unstable();
    lengths
}

async fn dial(address: SocketAddr, ca_pem: &str) -> peer::Peer {
    let config = peer::client_config(ca_pem, ALPN, 1 << 20, None);
    peer::connect(address, config).await.unwrap()
}
