//! A phone that looks contacts up, verifies what it is told, and fetches their keys.

use std::sync::Mutex;

use openmls::prelude::{RequiredCapabilitiesExtension, SignatureScheme};
use openmls_basic_credential::SignatureKeyPair;
use sotto::client::Outcome;
use sotto::discovery::blind::{self, Derived};
use sotto::discovery::identifier::Identifier;
use sotto::discovery::keys::fetch::{FetchError, KeyClient, Requester};
use sotto::discovery::log::{LogKey, Pinned, accept, parameters_digest};
use sotto::discovery::open::{Reachable, open_sealed};
use sotto::discovery::statement::Ssi;
use sotto::https::Client;
use sotto::server::certificates;
use zeroize::Zeroizing;

use super::people::SUITE;
use super::services::Services;
use super::story::{BROOK, Checks, DATABASE, LATER};
use super::world::{Published, World};
use crate::commands::demo::parties::token;
use crate::commands::demo::stage::{Args, Error, Serving};
use crate::commands::out::say;
use crate::commands::trusted::now;

/// Whose phone it is.
const ERIN: &str = "erin";

/// Erin's phone.
pub(super) struct Phone {
    /// What was verified of the log.
    pinned: Option<Pinned>,
    log: LogKey,
    user: Ssi,
    client: SignatureKeyPair,
    http: Client,
    /// Brook's relay, and a token of Erin's account there.
    relay: String,
    token: String,
}

impl Phone {
    pub(super) fn new(world: &World, services: &Services) -> Result<Self, Error> {
        let client = SignatureKeyPair::new(SignatureScheme::ED25519);
        let client = client.map_err(|_| "no key of a phone could be made")?;
        let http = world.brook.anybody()?;
        let (relay, token) = (services.relay_url(), token(&world.brook_accounts, ERIN, now()?));
        let (user, log) = (Ssi::new(BROOK, ERIN)?, world.log_key()?);
        Ok(Self { pinned: None, log, user, client, http, relay, token })
    }

    /// Asks the key service of a provider that has one.
    fn key_client(&self, service: &Reachable) -> Option<KeyClient> {
        let token = self.token.clone();
        Some(KeyClient {
            http: self.http.clone(),
            relay: self.relay.clone(),
            provider: service.provider.clone(),
            token: Box::new(move || Zeroizing::new(token.clone())),
            service_key: **service.keys_identity.as_ref()?,
            clock: sotto::relay::system_clock(),
            keys: Mutex::new(None),
        })
    }

    /// Looks up who is to be found where. Gives the services of each.
    pub(super) async fn look_up(
        &mut self,
        world: &World,
        args: &Args,
        published: &Published,
        expected: &[(&str, &[(&str, &str)])],
        checks: &mut Checks,
    ) -> Result<Vec<Vec<Reachable>>, Error> {
        let made = certificates::localhost()?;
        let (serving, ..) = Serving::open(args, &world.folder.join("db"), &made).await?;
        let mut client = serving.client(&world.folder, published.shard_records_min).await?;
        self.verify_epoch(client.parameters().epoch(), client.signed_parameters(), published)?;
        let read =
            |(sii, _): &(&str, &[(&str, &str)])| Ok::<_, Error>(Identifier::parse(sii, None)?);
        let identifiers: Vec<Identifier> = expected.iter().map(read).collect::<Result<_, _>>()?;
        let (blinded, elements) = blind::blind(&identifiers)?;
        let evaluated = world.blind_key.evaluate(&elements)?;
        let derived = blinded.finalize(&evaluated, &world.blind_key.public_key())?;
        let keys: Vec<String> = derived.iter().map(Derived::lookup_key).collect();
        let outcomes = client.lookup(&keys).await?.into_iter().collect::<Result<Vec<_>, _>>()?;
        drop(client.close().await); // the pins of a database that is removed
        serving.end().await;
        let found = identifiers.iter().zip(&derived).zip(outcomes);
        let mut all = Vec::new();
        for ((sii, places), ((sub, derived), outcome)) in expected.iter().zip(found) {
            let services = match outcome {
                Outcome::Found(value) => {
                    let now = world.now + 2 * LATER;
                    open_sealed(sub, derived, &value, &world.directory, now)?.services
                }
                Outcome::Absent | Outcome::Invalid => Vec::new(),
            };
            let ssis = services.iter().filter_map(|service| service.ssi.as_ref());
            let ssis: Vec<&str> = ssis.map(Ssi::as_str).collect();
            let said = if ssis.is_empty() { "nowhere".to_owned() } else { ssis.join(" and ") };
            let place = |(domain, handle): &(&str, &str)| format!("mimi://{domain}/u/{handle}");
            let is_there = |place: String| ssis.contains(&&*place);
            let is_right = ssis.len() == places.len() && places.iter().map(place).all(is_there);
            checks.is(is_right, &format!("{sii}: {said}"))?;
            all.push(services);
        }
        Ok(all)
    }

    /// Nothing is asked of an epoch that is not in the log.
    fn verify_epoch(
        &mut self,
        epoch: u64,
        parameters: &sotto::wire::message::PirParameterResponse,
        published: &Published,
    ) -> Result<(), Error> {
        let digest = parameters_digest(&parameters.parameters);
        let seen = self.pinned.as_ref().map(|pinned| pinned.size);
        let proofs = &published.proofs;
        let accepted = accept(self.pinned.as_ref(), proofs, DATABASE, (epoch, &digest), &self.log)?;
        say(format_args!(
            "  The epoch is entry {} of the log{}: {} bytes of proof\n",
            accepted.size - 1,
            match seen {
                Some(seen) => format!(", which still has the {seen} that were there before"),
                None => String::new(),
            },
            proofs.len(),
        ))?;
        self.pinned = Some(accepted);
        Ok(())
    }

    /// Fetches keys of somebody who was found; `are_theirs` says whether they may be used.
    pub(super) async fn fetch_keys(
        &self,
        name: &str,
        found: &[Reachable],
        are_theirs: bool,
        checks: &mut Checks,
    ) -> Result<(), Error> {
        let service = found.first().ok_or("nobody was found")?;
        let ssi = service.ssi.as_ref().ok_or("a record without a handle")?;
        let keys = self.key_client(service).ok_or("a provider whose key service has no key")?;
        let requester = Requester {
            user: self.user.clone(),
            signer: &self.client,
            suites: vec![SUITE],
            required: RequiredCapabilitiesExtension::default(),
        };
        let room = format!("mimi://{BROOK}/r/{name}");
        match keys.fetch(service, ssi, &requester, &room).await {
            Ok(ready) => {
                let clients = ready.clients.len();
                let said = format!(
                    "{name} is ready: {clients} client with a key package, signed by a key of the \
                     list that\n    the key of the record has signed"
                );
                checks.is(are_theirs && clients == 1, &said)
            }
            Err(FetchError::Refused(why)) => {
                checks.is(!are_theirs, &format!("{name}'s keys are refused: {why}"))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Who was not found is at no service, so that nobody is asked for keys.
    pub(super) fn has_no_key_service(
        &self,
        name: &str,
        found: &[Reachable],
        checks: &mut Checks,
    ) -> Result<(), Error> {
        checks.is(found.is_empty(), &format!("{name} is nowhere: nobody is asked for keys"))
    }
}
