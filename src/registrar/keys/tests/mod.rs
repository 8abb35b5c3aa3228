//! Tests of the key service and of the device, and what they have in common: people with clients
//! and key packages. `openmls` validates by this machine's clock, so tests begin now and go on.

mod consent;
mod device;
mod messages;
mod relay;
mod store;

use crate::discovery::jws::base64url;
use crate::discovery::open::Reachable;
use crate::discovery::record::key_hash;
use crate::discovery::statement::Ssi;
use crate::registrar::Store;
use ed25519_dalek::SigningKey;
use openmls::prelude::{Ciphersuite, KeyPackageIn, RequiredCapabilitiesExtension, SignatureScheme};
use openmls_basic_credential::SignatureKeyPair;
use openmls_rust_crypto::OpenMlsRustCrypto;

use crate::discovery::keys::clients::{ClientList, ListedClient};
use crate::discovery::keys::mimi::KeyMaterialUserCode;
use crate::discovery::keys::packages::{Package, make};
use crate::registrar::keys::store::{
    Asked, Claimed, Given, Policy, Settings, claim, put_packages, set_user,
};

pub(super) const SUITE: Ciphersuite = Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519;
pub(super) const DAY: u64 = 86_400;

pub(super) fn now() -> u64 {
    crate::relay::system_clock()()
}

/// A user of b.example.
pub(super) struct Person {
    pub(super) ssi: Ssi,
    pub(super) uk: SigningKey,
    pub(super) clients: Vec<(String, SignatureKeyPair)>,
    mls: OpenMlsRustCrypto,
}

impl Person {
    pub(super) fn new(handle: &str, clients: &[&str]) -> Self {
        let client = |id: &&str| {
            ((*id).to_owned(), SignatureKeyPair::new(SignatureScheme::ED25519).unwrap())
        };
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).unwrap();
        Self {
            ssi: Ssi::new("b.example", handle).unwrap(),
            uk: SigningKey::from_bytes(&seed),
            clients: clients.iter().map(client).collect(),
            mls: OpenMlsRustCrypto::default(),
        }
    }

    pub(super) fn list(&self, version: u64) -> ClientList {
        let client = |(id, key): &(String, SignatureKeyPair)| ListedClient {
            id: id.clone(),
            key: key.to_public_vec(),
        };
        ClientList {
            sub: self.ssi.clone(),
            clients: self.clients.iter().map(client).collect(),
            iat: now(),
            exp: now() + 100 * DAY,
            version,
        }
    }

    pub(super) fn settings(&self, version: u64, policy: Policy) -> Settings {
        let list = self.list(version);
        Settings {
            uk: base64url(self.uk.verifying_key().as_bytes()),
            text: list.sign(&self.uk),
            list,
            policy,
            identifiers: Vec::new(),
        }
    }

    /// A key package of a client, for so many days from now.
    pub(super) fn package(&self, client: usize, days: u64, last_resort: bool) -> KeyPackageIn {
        self.package_of(self.ssi.as_str(), client, days, last_resort)
    }

    pub(super) fn package_of(
        &self,
        identity: &str,
        client: usize,
        days: u64,
        last_resort: bool,
    ) -> KeyPackageIn {
        let (signer, times) = (&self.clients[client].1, (now() - 60, now() + days * DAY));
        make(&self.mls, SUITE, signer, identity, times, last_resort).unwrap()
    }

    pub(super) fn packages(&self, client: usize, count: usize) -> Vec<Package> {
        let package = |_| Package::validate(self.package(client, 30, false), now()).unwrap();
        (0..count).map(package).collect()
    }

    /// Stores the user with so many packages of each client.
    pub(super) async fn store(&self, store: &Store, policy: Policy, packages: usize) {
        set_user(store, &self.settings(1, policy), now()).await.unwrap();
        for (at, (client, _)) in self.clients.iter().enumerate() {
            let packages = self.packages(at, packages);
            put_packages(store, (&self.ssi, client), &packages, now()).await.unwrap();
        }
    }

    /// The service of the person's record.
    pub(super) fn reachable(&self) -> Reachable {
        Reachable {
            provider: "b.example".into(),
            name: "B".into(),
            keys_url: "https://keys.b.example".into(),
            keys_identity: None,
            ssi: Some(self.ssi.clone()),
            tags: Vec::new(),
            key_hash: Some(key_hash(self.uk.verifying_key().as_bytes())),
        }
    }
}

/// A claim by a requester of a.example.
pub(super) fn asked(requester: &str, target: &Ssi) -> Asked {
    Asked {
        requester: format!("mimi://a.example/u/{requester}"),
        counted_as: format!("mac of {requester}"),
        target: target.clone(),
        room: String::new(),
        suites: vec![SUITE.into()],
        required: RequiredCapabilitiesExtension::default(),
        an_hour: 100,
    }
}

/// The code of a claim, and the packages that were given, each with whether it is a last resort.
pub(super) async fn claimed(
    store: &Store,
    asked: &Asked,
    now: u64,
) -> (KeyMaterialUserCode, Vec<(Vec<u8>, bool)>) {
    match claim(store, asked, now).await.unwrap() {
        Claimed::Answered { code, clients } => (code, packages_of(clients)),
        Claimed::Limited { .. } => panic!("the requester has asked too often"),
    }
}

pub(super) fn packages_of(clients: Vec<Given>) -> Vec<(Vec<u8>, bool)> {
    let package = |given| match given {
        Given::Package { bytes, last_resort, .. } => Some((bytes, last_resort)),
        _ => None,
    };
    clients.into_iter().filter_map(package).collect()
}
