//! A small database made by the builder, and what a client needs to use it.

use std::net::SocketAddr;
use std::path::PathBuf;

use base64::Engine as _;
use sotto::builder::{self, BuildOptions, Input, Silent};
use sotto::client::{OperatorKey, Options, Pins, Replica};
use sotto::keyword::locate;
use sotto::shard::manifest::{MANIFEST_NAME, SHARDS_DIR};
use sotto::shard::{Database, Manifest};

/// The fewest records of a shard that the clients of these tests accept: the databases are small,
/// and the emptiest of five shards with 60 records on average has fewer once in 10^8 databases.
pub(crate) const CROWD: u64 = 20;

/// A folder with the database `db`, made from `records.jsonl`.
pub(crate) struct Built {
    pub(crate) folder: tempfile::TempDir,
}

impl Built {
    /// Builds `records` over `shards` shards.
    pub(crate) fn new(records: &[(String, Vec<u8>)], shards: u32) -> Self {
        Self::with(records, shards, |_| {})
    }

    /// The same, with a change of the builder's options.
    pub(crate) fn with(
        records: &[(String, Vec<u8>)],
        shards: u32,
        change: impl FnOnce(&mut BuildOptions),
    ) -> Self {
        let built = Self { folder: tempfile::tempdir().unwrap() };
        built.build_with(records, shards, change);
        built
    }

    /// Builds them as the next epoch of the same database.
    pub(crate) fn build(&self, records: &[(String, Vec<u8>)], shards: u32) {
        self.build_with(records, shards, |_| {});
    }

    fn build_with(
        &self,
        records: &[(String, Vec<u8>)],
        shards: u32,
        change: impl FnOnce(&mut BuildOptions),
    ) {
        let line = |(key, value): &(String, Vec<u8>)| {
            let base64 = || base64::engine::general_purpose::STANDARD.encode(value);
            let text = std::str::from_utf8(value).map(str::to_owned);
            let value = text.unwrap_or_else(|_| format!("base64:{}", base64()));
            format!("{}\n", serde_json::json!({ "sii": key, "value": value }))
        };
        let text: String = records.iter().map(line).collect();
        std::fs::write(self.path("records.jsonl"), text).unwrap();
        let mut options = self.options(shards);
        change(&mut options);
        builder::run(&options, &Silent).unwrap_or_else(|error| panic!("{error}"));
    }

    /// The builder's options.
    pub(crate) fn options(&self, shards: u32) -> BuildOptions {
        BuildOptions {
            shards: Some(shards),
            value_bytes: Some(24),
            jobs: Some(2),
            ..BuildOptions::new(Input::File(self.path("records.jsonl")), self.db())
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn db(&self) -> PathBuf {
        self.path("db")
    }

    pub(crate) fn manifest_path(&self) -> PathBuf {
        self.db().join(MANIFEST_NAME)
    }

    pub(crate) fn manifest(&self) -> Manifest {
        Manifest::read(&self.manifest_path()).unwrap()
    }

    /// The file of a shard of the newest epoch.
    pub(crate) fn shard_path(&self, shard: u32) -> PathBuf {
        self.db().join(SHARDS_DIR).join(&self.manifest().shards[shard as usize].file)
    }

    pub(crate) fn shard_of(&self, key: &str) -> u32 {
        let manifest = self.manifest();
        let (shards, groups) = (manifest.shards.len() as u32, manifest.shape().groups() as u32);
        locate(&manifest.seed.0, key.as_bytes(), shards, groups).shard
    }

    pub(crate) fn operator_key_file(&self) -> PathBuf {
        self.db().join("operator.pub")
    }

    pub(crate) fn operator_key(&self) -> OperatorKey {
        OperatorKey(self.manifest().operator_key.0)
    }

    pub(crate) fn pins(&self) -> Pins {
        Pins::operator(self.operator_key())
    }

    /// Overwrites every matrix, as a broken disk or a lying server would; headers stay.
    pub(crate) fn spoil(&self) {
        use std::os::unix::fs::FileExt as _;
        let database = Database::open(&self.db()).unwrap();
        for shard in 0..database.shard_count() {
            let matrix = database.shard(shard).unwrap().header().sections()[0];
            let file = std::fs::OpenOptions::new().write(true).open(self.shard_path(shard));
            let bytes = vec![0x55; matrix.bytes as usize];
            file.unwrap().write_all_at(&bytes, matrix.offset).unwrap();
        }
    }
}

/// Options of a client of a small database.
pub(crate) fn options(address: SocketAddr, ca_pem: &str, pins: Pins) -> Options {
    let replica = Replica::new(address, "localhost");
    let mut options = Options::new(replica, ca_pem.as_bytes().to_vec(), pins);
    options.records_per_shard_min = CROWD;
    options
}
