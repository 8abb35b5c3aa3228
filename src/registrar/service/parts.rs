//! What the core of a registrar is made of: its tables, keys, rules and directory.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, RwLock};

use crate::discovery::directory::{Directory, Pins};
use crate::discovery::jws::key_id;
use crate::limits;
use crate::registrar::Store;
use crate::registrar::fraud::Fraud;
use crate::registrar::registrations::{Core, Settings, SharedDirectory};
use crate::registrar::service::config::Config;
use crate::registrar::service::errors::RegistrarError;
use crate::registrar::service::keys::Keys;
use crate::shard::files::read_regular;

/// The tables of all parts.
pub(crate) fn migrations() -> Vec<(i64, &'static str, &'static str)> {
    [
        crate::registrar::registrations::MIGRATIONS,
        crate::registrar::fraud::MIGRATIONS,
        crate::registrar::log::client::QUEUE_MIGRATIONS,
    ]
    .concat()
}

/// What the core is made of, besides its database.
pub(crate) struct Parts {
    pub(crate) settings: Settings,
    pub(crate) fraud: Fraud,
    pub(crate) directory: SharedDirectory,
}

/// Reads keys and the directory, and checks that they belong together.
pub(crate) fn parts(config: &Config, now: u64) -> Result<(Parts, Pins), RegistrarError> {
    let pins = read("file of pins", &config.directory_pins, limits::PINS_BYTES_MAX)?;
    let directory = read_directory(config, &Pins::from_json(&pins)?, now)?;
    let keys = Keys::read(&config.issuer_key, &config.keys)?;
    let kid = key_id(&keys.signing.verifying_key());
    let issuer = directory.issuer_of(&config.issuer);
    if issuer.and_then(|issuer| issuer.key(&kid, now)).is_none() {
        let (issuer, public) = (config.issuer.clone(), keys.public_key());
        return Err(RegistrarError::NotInDirectory { issuer, public });
    }
    let fraud = Fraud::new(config.fraud.clone(), rules(config), keys.sii.clone());
    let fraud = fraud.map_err(|error| RegistrarError::Rules(error.to_string()))?;
    let pins = directory.pins();
    let settings = Settings {
        iss: config.issuer.clone(),
        signing_key: keys.signing,
        pepper: keys.pepper,
        identifier_key: keys.sii,
        region: config.region.clone(),
        region_prefixes: config.region_prefixes.clone(),
        is_logged: config.log.is_some(),
    };
    let directory = Arc::new(RwLock::new(Arc::new(directory)));
    Ok((Parts { settings, fraud, directory }, pins))
}

/// The core of a registrar for a command that does one thing. The database has to answer.
pub(crate) async fn open(config: &Config, now: u64) -> Result<Core, RegistrarError> {
    let (Parts { settings, fraud, directory }, _) = parts(config, now)?;
    let store = Store::open(&config.database, config.database_connections, &migrations()).await?;
    Ok(Core::new(store, settings, fraud, directory))
}

pub(crate) fn rules(config: &Config) -> BTreeMap<String, crate::registrar::fraud::ApRules> {
    config.aps.iter().map(|ap| (ap.domain.clone(), ap.rules.clone())).collect()
}

pub(crate) fn read_directory(
    config: &Config,
    pins: &Pins,
    now: u64,
) -> Result<Directory, RegistrarError> {
    let bytes = read("directory", &config.directory, limits::DIRECTORY_BYTES_MAX as u64)?;
    Ok(Directory::open(&bytes, pins, now)?)
}

fn read(what: &'static str, path: &Path, bytes_max: u64) -> Result<Vec<u8>, RegistrarError> {
    let unreadable = |source| RegistrarError::Unreadable { what, path: path.to_owned(), source };
    read_regular(path, bytes_max + 1).map_err(unreadable)
}
