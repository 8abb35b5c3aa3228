//! The configuration of a registrar, a TOML file:
//!
//! ```toml
//! listen = "0.0.0.0:8447"
//! cert = "registrar.pem"              # what application providers see
//! key = "registrar.key"
//! client-ca = "providers.pem"         # authorities of their certificates
//! issuer = "dp.example"               # as the directory calls this registrar
//! issuer-key = "issuer.pem"           # its signing key, mode 0600
//! keys = "keys"                       # folder of secrets (`sotto registrar init`)
//! database = "postgres://sotto@db.example/registrar"     # or sqlite:registrar.sqlite
//! directory = "directory.json"
//! directory-pins = "pins.json"
//!
//! [[ap]]                              # an application provider
//! domain = "a.example"                # a name of its certificate
//! name = "Chat A"                     # as messages name it
//! [ap.rules]                          # what may be sent for it
//! countries = ["DE", "FR"]
//! messages-a-day = 20000
//! money-a-day = 1500000               # in thousandths of the currency unit of the prices
//!
//! [[dp]]                              # another discovery provider
//! domain = "dp2.example"
//! url = "https://dp2.example:8447"
//!
//! [log]                               # of what this registrar vouches for; without it, none
//! url = "https://log.example:8445"
//!
//! [fraud]
//! prices = { DE = 75, FR = 52 }       # of a message, in thousandths of a currency unit
//!
//! [channels]
//! dp = "Numbers of Example"           # as messages name this registrar
//! sms = ["main"]                      # gateways, the one that is asked first first
//! [channels.gateways.main]
//! kind = "smpp"
//! address = "smsc.example:3550"
//! credentials = "smsc.credentials"    # mode 0600: user in the first line, password in the second
//! source = "Example"
//! ```
//!
//! Paths are relative to the folder in which the program is started. It is read again at SIGHUP;
//! what cannot change while it runs is named by [`Config::same_process`].

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::shard::files::{open_to_others, read_text};
use serde::Deserialize;

use crate::limits::registrar::{
    SERVICE_CONFIG_BYTES_MAX, SERVICE_CONNECTIONS, SERVICE_DATABASE_CONNECTIONS,
};
use crate::registrar::api::Channel;
use crate::registrar::service::errors::RegistrarError;
use crate::registrar::settings::from_toml;

/// What the file says. It may have a password, and has no Debug.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// Address for application providers; port 0 selects a free one.
    pub listen: SocketAddr,
    /// Certificate chain that they see, PEM.
    pub cert: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// Authorities of the certificates of application and other discovery providers, PEM.
    pub client_ca: PathBuf,
    /// Domain of this registrar among the issuers of the directory.
    pub issuer: String,
    /// The issuer's signing key, Ed25519 as PKCS#8 PEM.
    pub issuer_key: PathBuf,
    /// Folder of the registrar's secrets.
    pub keys: PathBuf,
    /// `postgres://…` or `sqlite:FILE`.
    pub database: String,
    /// Most connections to PostgreSQL.
    #[serde(default = "database_connections")]
    pub database_connections: u32,
    /// The signed directory.
    pub directory: PathBuf,
    /// Pins that it has to satisfy.
    pub directory_pins: PathBuf,
    /// The only region in which its mappings may lie; none: any.
    #[serde(default)]
    pub region: Option<String>,
    /// Beginnings of the numbers of that region, such as `+49`, and `@`; none: everything.
    #[serde(default)]
    pub region_prefixes: Vec<String>,
    /// Most connections of clients.
    #[serde(default = "connections")]
    pub connections: usize,
    /// Address at which gateways report what became of messages, over plain HTTP.
    #[serde(default)]
    pub receipts: Option<SocketAddr>,
    /// Certificate that other discovery providers and the log see; `cert` where none is given.
    #[serde(default)]
    pub client_cert: Option<PathBuf>,
    /// Its private key.
    #[serde(default)]
    pub client_key: Option<PathBuf>,
    /// Authorities of the servers of other discovery providers, PEM.
    #[serde(default = "system_authorities")]
    pub dp_ca: PathBuf,
    /// Application providers.
    #[serde(rename = "ap", default)]
    pub aps: Vec<Ap>,
    /// Other discovery providers.
    #[serde(rename = "dp", default)]
    pub dps: Vec<Dp>,
    /// The log of what this registrar vouches for; none: nothing is logged.
    #[serde(default)]
    pub log: Option<Log>,
    /// What is sent to whom.
    #[serde(default)]
    pub fraud: crate::registrar::fraud::Rules,
    /// How codes are sent.
    pub channels: crate::registrar::channels::Config,
}

/// An application provider.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Ap {
    /// Its domain: in its certificate, in the directory and in SSIs.
    pub domain: String,
    /// Its name in messages to people.
    pub name: String,
    /// What may be sent for it.
    pub rules: crate::registrar::fraud::ApRules,
}

/// Another discovery provider.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Dp {
    /// Its domain among the issuers of the directory, and in its certificate.
    pub domain: String,
    /// Where its registrar answers.
    pub url: String,
}

/// A log that takes statements of this registrar.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Log {
    /// Where it answers.
    pub url: String,
    /// Authorities of its certificate, PEM.
    #[serde(default = "system_authorities")]
    pub ca: PathBuf,
}

fn database_connections() -> u32 {
    SERVICE_DATABASE_CONNECTIONS
}

fn connections() -> usize {
    SERVICE_CONNECTIONS
}

fn system_authorities() -> PathBuf {
    "/etc/ssl/certs/ca-certificates.crt".into()
}

impl Config {
    /// Reads and checks a configuration.
    ///
    /// # Errors
    /// It cannot be read, or what is wrong in it.
    pub fn read(path: &Path) -> Result<Self, RegistrarError> {
        let unreadable = |source| RegistrarError::Unreadable {
            what: "configuration",
            path: path.to_owned(),
            source,
        };
        let text = read_text(path, SERVICE_CONFIG_BYTES_MAX).map_err(unreadable)?;
        let wrong = |why: String| RegistrarError::Config { path: path.to_owned(), why };
        let config = Self::parse(&text).map_err(wrong)?;
        let found = std::fs::metadata(path).map_err(unreadable)?;
        if let Some(mode) = open_to_others(&found).filter(|_| config.has_password()) {
            return Err(wrong(format!(
                "it has the password of the database and may be used by others than its owner \
                 (mode {mode:03o}): use chmod go-rwx, or give the password in PGPASSFILE"
            )));
        }
        Ok(config)
    }

    /// The text of a configuration, checked. Errors do not quote its lines: one may be secret.
    fn parse(text: &str) -> Result<Self, String> {
        let config: Self = from_toml(text)?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), String> {
        let mut known = BTreeSet::new();
        for domain in self.aps.iter().map(|ap| &ap.domain) {
            if !known.insert(domain) {
                return Err(format!("[[ap]]: found {domain} twice, expected each domain once"));
            }
        }
        let mut known = BTreeSet::from([&self.issuer]);
        for Dp { domain, url } in &self.dps {
            if !known.insert(domain) {
                return Err(format!(
                    "[[dp]]: found {domain} twice, or the registrar itself; expected each other \
                     discovery provider once"
                ));
            }
            if !is_address(url) {
                return Err(format!(
                    "[[dp]] {domain}: url: expected one like https://host.example:8447, without \
                     a query"
                ));
            }
        }
        if self.log.as_ref().is_some_and(|log| !is_address(&log.url)) {
            let expected = "one like https://log.example:8445, without a query";
            return Err(format!("[log]: url: expected {expected}"));
        }
        let domains =
            self.aps.iter().map(|ap| &ap.domain).chain(self.dps.iter().map(|d| &d.domain));
        for domain in domains.chain([&self.issuer]) {
            if domain.is_empty() || domain.chars().any(|c| c.is_ascii_uppercase() || c == ' ') {
                return Err(format!("found {domain:?}, expected a domain in lower case"));
            }
        }
        if self.client_cert.is_some() != self.client_key.is_some() {
            return Err("found one of client-cert and client-key, expected both or none".into());
        }
        let is_known = |scheme: &&str| self.database.starts_with(*scheme);
        if !["sqlite:", "postgres://", "postgresql://"].iter().any(is_known) {
            return Err("database: expected postgres://USER@HOST/NAME or sqlite:FILE".into());
        }
        if self.database_connections == 0 || self.connections == 0 {
            return Err("found 0 connections, expected at least 1".into());
        }
        Ok(())
    }

    /// Names of the gateways of a channel.
    pub(crate) fn gateways(&self, channel: Channel) -> &[String] {
        match channel {
            Channel::Sms => &self.channels.sms,
            Channel::Call => &self.channels.call,
            Channel::Email => &self.channels.email,
        }
    }

    fn has_password(&self) -> bool {
        let rest = self.database.split_once("://").map_or("", |(_, rest)| rest);
        let user = rest.split_once('@').map_or("", |(user, _)| user);
        user.contains(':') || rest.contains("password=")
    }

    /// What is the same in another version of the file, or has to wait for the next start.
    pub(crate) fn same_process(&self, newer: &Self) -> Result<(), RegistrarError> {
        let is_same = [
            ("listen", self.listen == newer.listen),
            ("issuer", self.issuer == newer.issuer),
            ("issuer-key", self.issuer_key == newer.issuer_key),
            ("keys", self.keys == newer.keys),
            ("database", self.database == newer.database),
            ("database-connections", self.database_connections == newer.database_connections),
            ("region", self.region == newer.region),
            ("region-prefixes", self.region_prefixes == newer.region_prefixes),
            ("connections", self.connections == newer.connections),
            ("receipts", self.receipts == newer.receipts),
            ("cert", self.cert == newer.cert),
            ("key", self.key == newer.key),
            ("client-ca", self.client_ca == newer.client_ca),
            ("log", self.log.is_some() == newer.log.is_some()),
        ];
        match is_same.into_iter().find(|(_, is_same)| !is_same) {
            None => Ok(()),
            Some((what, _)) => Err(RegistrarError::Setting {
                what,
                found: "another value than at the start".into(),
                expected: "the same; restart the registrar to change it".into(),
            }),
        }
    }
}

/// Whether requests can be sent there. A user in it may be a secret.
fn is_address(url: &str) -> bool {
    url.starts_with("https://") && !url.contains(['?', '#', '@'])
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const RIGHT: &str = "listen = '127.0.0.1:0'\ncert = 'c'\nkey = 'k'\nclient-ca = 'a'\n\
        issuer = 'dp.example'\nissuer-key = 'i'\nkeys = 'f'\ndatabase = 'sqlite:r'\n\
        directory = 'd'\ndirectory-pins = 'p'\n";
    const REST: &str = "[channels]\ndp = 'Dp'\n";

    fn with(more: &str) -> Result<Config, String> {
        Config::parse(&format!("{RIGHT}{more}{REST}"))
    }

    fn dp(domain: &str, url: &str) -> String {
        format!("[[dp]]\ndomain = '{domain}'\nurl = '{url}'\n")
    }

    fn log(url: &str) -> String {
        format!("[log]\nurl = '{url}'\n")
    }

    #[test]
    fn what_is_wrong_is_said_and_no_line_is_quoted() {
        assert!(with("").is_ok());
        assert!(with(&dp("x.example", "https://x.example:8447")).is_ok());
        let config = with(&log("https://log.example:8445")).map(|config| config.log);
        let authorities = config.ok().flatten().map(|log| log.ca);
        assert_eq!(authorities, Some(system_authorities()));
        for (more, expected) in [
            ("lisen = 'x'\n".to_owned(), "line 11: unknown field `lisen`"),
            ("region = \n".to_owned(), "line 11: "),
            ("connections = 0\n".to_owned(), "found 0 connections"),
            ("client-cert = 'x'\n".to_owned(), "expected both or none"),
            (dp("dp.example", "https://x"), "or the registrar itself"),
            (dp("X.example", "https://x"), "a domain in lower case"),
            (dp("x.example", "http://x"), "url: expected one like"),
            (dp("x.example", "https://user:secret@x"), "url: expected one like"),
            (log("http://x"), "[log]: url: expected one like"),
            (log("https://user:secret@x"), "[log]: url: expected one like"),
            (log("https://x?secret"), "[log]: url: expected one like"),
            ("[log]\n".to_owned(), "missing field `url`"),
        ] {
            let Err(error) = with(&more) else { panic!("{more} was accepted") };
            assert!(error.contains(expected), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
        let Err(error) = Config::parse(RIGHT) else { panic!("no channels") };
        assert!(error.contains("channels"), "{error}");
    }

    #[test]
    fn a_file_with_a_password_is_its_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("registrar.toml");
        let secret = RIGHT.replace("sqlite:r", "postgres://u:secret@db.example/r");
        let mode = |mode| {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        for (text, is_secret) in [(RIGHT, false), (&*secret, true)] {
            std::fs::write(&path, format!("{text}{REST}")).unwrap();
            mode(0o600);
            assert!(Config::read(&path).is_ok());
            mode(0o644);
            let read = Config::read(&path).map(drop);
            assert_eq!(read.is_err(), is_secret);
            if let Err(error) = read {
                assert!(!error.to_string().contains("secret@"), "{error}");
            }
        }
    }
}
