//! People who register, and the keys that their phones leave with their provider.

use axum::body::Bytes;
use axum::http::Method;
use ed25519_dalek::SigningKey;
use openmls::prelude::{Ciphersuite, SignatureScheme};
use openmls_basic_credential::SignatureKeyPair;
use openmls_rust_crypto::OpenMlsRustCrypto;
use serde_json::json;
use sotto::discovery::identifier::Identifier;
use sotto::discovery::jws::base64url;
use sotto::discovery::keys::clients::{ClientList, ListedClient};
use sotto::discovery::keys::mimi::encode;
use sotto::discovery::keys::packages;
use sotto::discovery::open::Reachable;
use sotto::discovery::resolver::{EndedBy, Own, OwnService};
use sotto::discovery::statement::{Consent, Ssi, consent_text};
use sotto::https::Response;
use sotto::registrar::keys::UserSettings;
use sotto::registrar::keys::store::Policy;

use super::messages::Messages;
use super::services::{Services, accepted, text};
use super::story::{Checks, DATABASE, NORTH};
use crate::commands::demo::discovery::{DAY, new_user};
use crate::commands::demo::stage::Error;
use crate::commands::out::say;
use crate::commands::trusted::now;

pub(super) const SUITE: Ciphersuite = Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519;
/// Key packages that a phone leaves besides the last one.
const PACKAGES: usize = 10;
const CLIENT: &str = "phone";

/// Whether a person says that somebody else had the number before.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum NewHolder {
    No,
    Yes,
}

/// Somebody with an account at an application provider.
pub(super) struct Person {
    ap: &'static str,
    sii: Identifier,
    ssi: Ssi,
    /// The user's key, which the mapping names.
    key: SigningKey,
    /// The key of the phone, which signs key packages.
    client: SignatureKeyPair,
    registration: String,
}

impl Person {
    pub(super) fn new(ap: &'static str, sii: &str, handle: &str) -> Result<Self, Error> {
        let (sii, ssi) = (Identifier::parse(sii, None)?, Ssi::new(ap, handle)?);
        let client = SignatureKeyPair::new(SignatureScheme::ED25519);
        let client = client.map_err(|_| "no key of a phone could be made")?;
        Ok(Self { ap, sii, ssi, key: new_user()?, client, registration: String::new() })
    }

    pub(super) fn handle(&self) -> &str {
        self.ssi.handle()
    }

    /// Agrees to be found, and has the provider ask for a code.
    pub(super) async fn ask(
        &self,
        services: &Services,
        new_holder: NewHolder,
    ) -> Result<Response, Error> {
        let iat = now()?;
        let consent = Consent::new(&consent_text(&self.sii, &self.ssi, NORTH, iat), &self.key);
        let body = json!({
            "sii": self.sii.to_uri(),
            "ssi": self.ssi.as_str(),
            "uk": base64url(&consent.key),
            "up": base64url(&consent.signature),
            "iat": iat,
            "channel": if self.sii.digits().is_some() { "sms" } else { "email" },
            "language": "en",
            "new_holder": new_holder == NewHolder::Yes,
        });
        services.ask(self.ap, Method::POST, "/v1/registrations", Some(body)).await
    }

    /// Asks for a code and types it in.
    pub(super) async fn register(
        &mut self,
        services: &Services,
        messages: &mut Messages,
        new_holder: NewHolder,
    ) -> Result<(), Error> {
        let reply = self.ask(services, new_holder).await?;
        self.registration = text(&reply, 202, "id")?;
        let message = messages.next(self.sii.as_str()).await?;
        if let Some(shown) = &message.text {
            say(format_args!("  A message to {}:\n", self.sii.as_str()))?;
            for line in shown.lines() {
                say(format_args!("    | {line}"))?;
            }
        }
        let reply = services.enter(self.ap, &self.registration, &message.code).await?;
        let bytes = text(&reply, 200, "statement")?.len();
        let handle = self.handle();
        say(format_args!("\n    typed in: {NORTH} vouches for {handle}, {bytes} bytes, signed\n"))?;
        Ok(())
    }

    /// Whether what databases have of this person is what this person registered.
    pub(super) fn looks_at(&self, found: &[Reachable], checks: &mut Checks) -> Result<(), Error> {
        let services =
            vec![OwnService { ssi: self.ssi.clone(), key: self.key.verifying_key().to_bytes() }];
        let own = Own { identifier: self.sii.clone(), services };
        let unknown = own.unknown_in(DATABASE, found, now()?);
        let ends = unknown.iter().filter(|it| matches!(it.ended_by, EndedBy::NewProof)).count();
        checks.is(
            (unknown.len(), ends) == (1, 1),
            "Boris's phone looks itself up, which no server can tell from the above, and finds it: \
             he\n  proves his number again as its new holder, which ends every mapping before\n",
        )
    }

    pub(super) async fn state(&self, services: &Services) -> Result<String, Error> {
        services.state_of(self.ap, &self.registration).await
    }

    /// The phone leaves the list of this person's clients, and key packages, with the provider.
    pub(super) async fn leave_keys(&self, services: &Services) -> Result<(), Error> {
        self.leave_list(services, &self.key).await?;
        let (owner, now) = (self.ssi.as_str(), now()?);
        let (mls, times) = (OpenMlsRustCrypto::default(), (now - 60, now + 30 * DAY));
        let package = |at| packages::make(&mls, SUITE, &self.client, owner, times, at == PACKAGES);
        let packages: Vec<_> = (0..=PACKAGES).map(package).collect::<Result<_, _>>()?;
        let path = format!("/clients/{CLIENT}/keyPackages");
        let (handle, body) = (self.handle(), encode(&packages));
        let reply = services.put_keys(handle, &path, body.into()).await?;
        accepted(&reply, 200)?;
        say(format_args!(
            "  {handle}: 1 phone in a list that {handle}'s key signed, {PACKAGES} key packages to \
             be given out once\n    each, and one for when there is no other",
        ))?;
        Ok(())
    }

    /// Somebody who has got at the account has its key service give out a list with another key.
    pub(super) async fn lose_account(&self, services: &Services) -> Result<(), Error> {
        say("  Somebody gets at Boris's account, and puts another phone into its list of clients")?;
        self.leave_list(services, &new_user()?).await
    }

    async fn leave_list(&self, services: &Services, key: &SigningKey) -> Result<(), Error> {
        let now = now()?;
        let client = ListedClient { id: CLIENT.to_owned(), key: self.client.to_public_vec() };
        let list = ClientList {
            sub: self.ssi.clone(),
            clients: vec![client],
            iat: now,
            exp: now + 100 * DAY,
            version: now,
        };
        let settings = UserSettings {
            uk: base64url(key.verifying_key().as_bytes()),
            clients: list.sign(key),
            policy: Policy::All,
            mappings: Vec::new(),
        };
        let body = Bytes::from(serde_json::to_vec(&settings)?);
        accepted(&services.put_keys(self.handle(), "/user", body).await?, 204)
    }
}
