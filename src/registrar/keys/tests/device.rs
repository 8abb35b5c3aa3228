//! A contact is ready only when record, user key, list, client and package fit together.

use crate::discovery::jws;

use super::*;
use crate::discovery::keys::clients::{CLIENTS_TYP, ClientListError};
use crate::discovery::keys::mimi::{ClientKeyMaterial, IdentifierUri};
use crate::discovery::keys::packages::PackageError;
use crate::discovery::keys::{Ready, VerifyError, verify};

fn material(client: &str, package: KeyPackageIn) -> ClientKeyMaterial {
    let client = IdentifierUri::new(&format!("mimi://b.example/d/{client}"));
    ClientKeyMaterial::Success { client, key_package: Box::new(package) }
}

/// What a device says of what an honest service has for a person, after `change`.
struct Offer {
    service: Reachable,
    ssi: Ssi,
    uk: Vec<u8>,
    list: String,
    material: Vec<ClientKeyMaterial>,
    now: u64,
}

impl Offer {
    fn of(bob: &Person) -> Self {
        Self {
            service: bob.reachable(),
            ssi: bob.ssi.clone(),
            uk: bob.uk.verifying_key().to_bytes().to_vec(),
            list: bob.list(1).sign(&bob.uk),
            material: vec![
                material("phone", bob.package(0, 3, false)),
                material("tablet", bob.package(1, 3, true)),
            ],
            now: now(),
        }
    }

    fn verify(self) -> Result<Ready, VerifyError> {
        verify(&self.service, &self.ssi, (&self.uk, &self.list), self.material, self.now)
    }
}

fn refused(bob: &Person, change: impl FnOnce(&mut Offer)) -> VerifyError {
    let mut offer = Offer::of(bob);
    change(&mut offer);
    offer.verify().err().expect("it was accepted")
}

#[test]
fn what_fits_together_is_ready() {
    let bob = Person::new("bob", &["phone", "tablet", "watch"]);
    let mut offer = Offer::of(&bob);
    let watch = IdentifierUri::new("mimi://b.example/d/watch");
    offer.material.push(ClientKeyMaterial::KeyMaterialExhausted { client: watch });
    let ready = offer.verify().unwrap_or_else(|error| panic!("{error}"));
    let found: Vec<_> =
        ready.clients.iter().map(|client| (&*client.id, client.last_resort)).collect();
    assert_eq!(found, [("phone", false), ("tablet", true)]);
    assert_eq!(ready.without, ["watch"]);
    assert!(ready.ssi == bob.ssi && ready.list.version == 1);
    // A record without a handle: the SSI was asked for.
    let mut offer = Offer::of(&bob);
    offer.service.ssi = None;
    assert!(offer.verify().is_ok());
}

#[test]
fn the_record_decides_whose_key_it_is() {
    let bob = Person::new("bob", &["phone", "tablet"]);
    let eve = Person::new("bob", &["phone", "tablet"]);
    assert_eq!(refused(&bob, |it| it.service.key_hash = None), VerifyError::NoKeyHash);
    assert_eq!(refused(&bob, |it| it.uk[0] ^= 1), VerifyError::UserKey);
    assert_eq!(refused(&bob, |it| it.uk.truncate(31)), VerifyError::UserKey);
    // All of another's that fits together, but for the record.
    let other = refused(&bob, |it| {
        let service = it.service.clone();
        *it = Offer { service, ..Offer::of(&eve) };
    });
    assert_eq!(other, VerifyError::UserKey);
    let ssi = Ssi::parse("mimi://b.example/u/carol").unwrap();
    assert_eq!(refused(&bob, |it| it.ssi = ssi.clone()), VerifyError::Ssi);
    let elsewhere = refused(&bob, |it| {
        it.service.ssi = None;
        it.ssi = Ssi::parse("mimi://c.example/u/bob").unwrap();
    });
    assert_eq!(elsewhere, VerifyError::Ssi);
    let other = refused(&bob, |it| {
        it.service.ssi = None;
        it.ssi = ssi;
    });
    assert_eq!(other, VerifyError::OtherUser);
}

#[test]
fn the_list_is_the_users_own_and_holds_now() {
    let bob = Person::new("bob", &["phone", "tablet"]);
    let eve = Person::new("bob", &["phone", "tablet"]);
    let foreign = refused(&bob, |it| it.list = bob.list(1).sign(&eve.uk));
    assert!(matches!(foreign, VerifyError::List(ClientListError::Jws(_))), "{foreign}");
    let list = bob.list(1).sign(&bob.uk);
    for at in 0..list.len() {
        let mut bytes = list.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(bytes).unwrap();
        assert!(matches!(refused(&bob, |it| it.list = changed), VerifyError::List(_)), "{at}");
        assert!(matches!(refused(&bob, |it| it.list.truncate(at)), VerifyError::List(_)), "{at}");
    }
    let expired = refused(&bob, |it| it.now += 101 * DAY);
    assert_eq!(expired, VerifyError::List(ClientListError::Expired));
    let early = refused(&bob, |it| it.now -= DAY);
    assert_eq!(early, VerifyError::List(ClientListError::Future));
    let mut long = bob.list(1);
    long.exp = long.iat + 401 * DAY;
    let long = refused(&bob, |it| it.list = long.sign(&bob.uk));
    assert_eq!(long, VerifyError::List(ClientListError::Expired));
    let mut twice = bob.list(1);
    twice.clients[1].id = "phone".into();
    let twice = refused(&bob, |it| it.list = twice.sign(&bob.uk));
    assert_eq!(twice, VerifyError::List(ClientListError::Clients));
    for claims in ["[]", "{}", r#"{"sub":"mimi://b.example/u/bob","sub":"x"}"#, "null", ""] {
        let list = jws::sign(CLIENTS_TYP, claims.as_bytes(), &bob.uk);
        let found = refused(&bob, |it| it.list = list);
        assert_eq!(found, VerifyError::List(ClientListError::Form), "{claims}");
    }
}

#[test]
fn each_package_is_of_a_client_of_the_list() {
    let bob = Person::new("bob", &["phone", "tablet"]);
    let eve = Person::new("bob", &["phone", "tablet"]);
    let put = |package: KeyPackageIn| {
        refused(&bob, move |it| it.material[1] = material("tablet", package))
    };
    let of_client = |error| VerifyError::Package { number: 2, error };
    assert_eq!(put(eve.package(1, 3, false)), of_client(PackageError::Client));
    assert_eq!(put(bob.package(0, 3, false)), of_client(PackageError::Client));
    let named = bob.package_of("mimi://b.example/u/carol", 1, 3, false);
    assert_eq!(put(named), of_client(PackageError::Owner));
    let late = refused(&bob, |it| it.now += 4 * DAY);
    let number = 1;
    assert_eq!(late, VerifyError::Package { number, error: PackageError::Lifetime });
    let unlisted = refused(&bob, |it| {
        it.material[1] = material("watch", bob.package(1, 3, false));
    });
    assert_eq!(unlisted, VerifyError::UnlistedClient { number: 2 });
    let twice = refused(&bob, |it| it.material[1] = it.material[0].clone());
    assert_eq!(twice, VerifyError::UnlistedClient { number: 2 });
    assert_eq!(refused(&bob, |it| it.material.clear()), VerifyError::Nothing);
}
