//! Tests of the channels, against real peers where there is a network.

mod files;
mod http;
mod logs;
mod message;
mod smtp;
mod takeover;

#[path = "../../../../tests/services/child.rs"]
pub(crate) mod child;
#[path = "../../../../tests/services/kannel.rs"]
mod kannel;
#[path = "../../../../tests/services/smtp.rs"]
mod mail;
#[path = "../../../../tests/services/smsc.rs"]
pub(crate) mod smsc;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::discovery::identifier::Identifier;
use crate::discovery::statement::Purpose;
use crate::registrar::api::{Channel, Outgoing};
// The files of the services look for it here.
use crate::registrar::postgres;
use zeroize::Zeroizing;

use crate::registrar::channels::{Channels, Config, Provider};

pub(crate) const CODE: &str = "480215";
pub(crate) const NUMBER: &str = "+491701234567";
pub(crate) const DOMAIN: &str = "ap.example";

/// A folder with a file of credentials and a certificate for `localhost` and 127.0.0.1.
pub(crate) struct Files(tempfile::TempDir);

impl Files {
    pub(crate) fn new() -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        for of in ["", "other-"] {
            let made = rcgen::generate_simple_self_signed(names.clone()).unwrap();
            fs::write(files.path(&format!("{of}cert.pem")), made.cert.pem()).unwrap();
            let key = made.signing_key.serialize_pem();
            fs::write(files.path(&format!("{of}key.pem")), key).unwrap();
        }
        files.credentials("credentials", "sotto\nsecret77\n", 0o600);
        files
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn credentials(&self, name: &str, text: &str, mode: u32) {
        fs::write(self.path(name), text).unwrap();
        mode_of(&self.path(name), mode);
    }
}

pub(crate) fn mode_of(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

pub(crate) fn providers() -> Vec<Provider> {
    vec![Provider { domain: DOMAIN.into(), name: "Example".into() }]
}

/// The channels of a configuration that begins with `dp`.
pub(crate) fn channels(rest: &str) -> Channels {
    let config: Config = toml::from_str(&format!("dp = \"Finder\"\n{rest}")).unwrap();
    Channels::new(&config, &providers(), None).unwrap()
}

pub(crate) fn outgoing(channel: Channel) -> Outgoing {
    let to = if channel == Channel::Email { "someone@mail.example" } else { NUMBER };
    Outgoing {
        id: "registration".into(),
        ap: DOMAIN.into(),
        to: Identifier::parse(to, None).unwrap(),
        channel,
        purpose: Purpose::Register,
        language: Some("en-GB".into()),
        code: Zeroizing::new(CODE.into()),
    }
}

/// The English text message to be found.
pub(crate) const TEXT: &str = "480215: Finder code to be found on Example. Enter it only there. \
                               Give it to no person and no other app.\n@ap.example #480215";

/// Waits until a gateway has counted so many of an outcome: tasks do that after the last event that
/// a peer can see.
pub(crate) async fn counted(
    channels: &Channels,
    gateway: &str,
    outcome: crate::registrar::channels::counters::Outcome,
    count: u64,
) {
    while channels.counted(gateway, outcome) < count {
        tokio::task::yield_now().await;
    }
    assert_eq!(channels.counted(gateway, outcome), count, "{gateway}: {outcome:?}");
}
