//! The person's own identifiers: looked up like contacts, in batches with them, so that nobody who
//! answers can show the owner one record and the world another. Nothing that is sent depends on
//! what they say.

use crate::discovery::identifier::Identifier;
use crate::discovery::jws::base64url;
use crate::discovery::open::Reachable;
use crate::discovery::record::key_hash;
use crate::discovery::ssi::Ssi;
use crate::discovery::statement::{UserKey, Withdrawal, WithdrawnBy};

/// An identifier of the device's owner, and where the owner registered it.
#[derive(Clone)]
pub struct Own {
    /// The number or address.
    pub identifier: Identifier,
    /// Every mapping of it that the owner agreed to.
    pub services: Vec<OwnService>,
}

/// A mapping that the owner agreed to.
#[derive(Clone)]
pub struct OwnService {
    /// Where the owner is reached.
    pub ssi: Ssi,
    /// The owner's public key there.
    pub key: UserKey,
}

/// A mapping that the owner does not know. No Debug of it shows a person.
#[derive(Clone)]
pub struct Unknown {
    /// Whom it is about.
    pub identifier: Identifier,
    /// The database that has it.
    pub database: String,
    /// Domain of the provider.
    pub provider: String,
    /// The name there, where the record has it.
    pub ssi: Option<Ssi>,
    /// What ends it.
    pub ended_by: EndedBy,
}

/// What ends a mapping that the owner does not know.
#[derive(Clone)]
pub enum EndedBy {
    /// It has a key of the owner: this withdrawal, once that key has signed it
    /// ([`Withdrawal::sign`]).
    Withdrawal(Box<Withdrawal>),
    /// It has a key of somebody else, which the owner cannot withdraw: a new proof of the
    /// identifier with `new_holder`, at any provider, voids every mapping before it.
    NewProof,
}

impl std::fmt::Debug for Unknown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("Unknown");
        shown.field("database", &self.database).field("provider", &self.provider);
        shown.finish_non_exhaustive()
    }
}

impl Own {
    /// The mappings that the owner does not know among the services that a database has.
    pub fn unknown_in(&self, database: &str, found: &[Reachable], now: u64) -> Vec<Unknown> {
        let strange = found.iter().filter(|service| !self.knows(service));
        let unknown = strange.map(|service| Unknown {
            identifier: self.identifier.clone(),
            database: database.to_owned(),
            provider: service.provider.clone(),
            ssi: service.ssi.clone(),
            ended_by: self.ended_by(service, now),
        });
        unknown.collect()
    }

    /// Whether the owner registered what was found.
    fn knows(&self, found: &Reachable) -> bool {
        self.services.iter().any(|own| {
            own.ssi.domain() == found.provider
                && found.ssi.as_ref().is_none_or(|ssi| *ssi == own.ssi)
                && found.key_hash.is_none_or(|hash| hash == key_hash(&own.key))
        })
    }

    /// What ends it where the owner did not.
    fn ended_by(&self, found: &Reachable, now: u64) -> EndedBy {
        let is_its = |own: &&OwnService| found.key_hash == Some(key_hash(&own.key));
        let own = self.services.iter().find(is_its);
        // Without an SSI a withdrawal would end every mapping with this key.
        let (Some(own), Some(ssi)) = (own, &found.ssi) else { return EndedBy::NewProof };
        let named = blake3::hash(format!("{}\0{now}", ssi.as_str()).as_bytes());
        EndedBy::Withdrawal(Box::new(Withdrawal {
            by: WithdrawnBy::User(own.key),
            sub: self.identifier.clone(),
            ssi: Some(ssi.clone()),
            jti: base64url(&named.as_bytes()[..16]),
            iat: now,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn own() -> Own {
        let ssi = Ssi::new("a.example", "alice").unwrap();
        let identifier = Identifier::parse("+4930901820", None).unwrap();
        Own { identifier, services: vec![OwnService { ssi, key: [7; 32] }] }
    }

    fn found(provider: &str, handle: Option<&str>, key: Option<[u8; 32]>) -> Reachable {
        Reachable {
            provider: provider.into(),
            name: String::new(),
            keys_url: String::new(),
            keys_identity: None,
            ssi: handle.map(|handle| Ssi::new(provider, handle).unwrap()),
            tags: Vec::new(),
            key_hash: key.map(|key| key_hash(&key)),
        }
    }

    #[test]
    fn what_the_owner_registered_is_known_and_nothing_else() {
        let known = [
            found("a.example", Some("alice"), Some([7; 32])),
            found("a.example", None, Some([7; 32])),
            found("a.example", Some("alice"), None),
            found("a.example", None, None),
        ];
        assert!(known.iter().all(|found| own().knows(found)));
        let strange = [
            found("b.example", Some("alice"), Some([7; 32])),
            found("a.example", Some("mallory"), Some([7; 32])),
            found("a.example", Some("alice"), Some([8; 32])),
            found("b.example", None, None),
        ];
        assert!(!strange.iter().any(|found| own().knows(found)));
        // The owner's key ends what has it; nothing else is the owner's to withdraw.
        let ended = strange.map(|found| match own().ended_by(&found, NOW) {
            EndedBy::Withdrawal(withdrawal) => {
                assert_eq!(withdrawal.ssi, found.ssi);
                assert_eq!(withdrawal.by, WithdrawnBy::User([7; 32]));
                true
            }
            EndedBy::NewProof => false,
        });
        assert_eq!(ended, [true, true, false, false]);
    }
}
