//! Who may have whose keys, and that nothing tells an unknown user from one who does not consent.

use crate::registrar::postgres::both;
use openmls::prelude::{
    Capabilities, CredentialType, ExtensionType, ProposalType, VerifiableCiphersuite,
};

use super::*;
use crate::discovery::keys::mimi::KeyMaterialUserCode as Code;
use crate::discovery::keys::packages::fits;
use crate::registrar::keys::store::{
    Listed, MIGRATIONS, ask_consent, cancel_consent, consents_of, decide_consent, list,
};

const ALICE: &str = "mimi://a.example/u/alice";

async fn code(store: &Store, target: &Ssi, room: &str) -> Code {
    let ask = Asked { room: room.into(), ..asked("alice", target) };
    claimed(store, &ask, now()).await.0
}

#[tokio::test]
async fn the_policy_and_the_users_decisions_say_who_may_have_keys() {
    both(MIGRATIONS, async |store: Store| {
        let bob = Person::new("bob", &["phone"]);
        let policy = async |policy: Policy| {
            set_user(&store, &bob.settings(now() + policy as u64, policy), now()).await.unwrap();
        };
        let decide = async |room: &str, is_granted| {
            decide_consent(&store, &bob.ssi, (ALICE, room), is_granted, now()).await.unwrap();
        };
        policy(Policy::All).await;
        put_packages(&store, (&bob.ssi, "phone"), &bob.packages(0, 20), now()).await.unwrap();
        assert_eq!(code(&store, &bob.ssi, "").await, Code::Success);
        policy(Policy::List).await;
        assert_eq!(code(&store, &bob.ssi, "").await, Code::NoConsent);
        ask_consent(&store, &bob.ssi, (ALICE, ""), now()).await.unwrap();
        assert_eq!(code(&store, &bob.ssi, "").await, Code::NoConsent);
        assert_eq!(consents_of(&store, &bob.ssi).await.unwrap()[0].state, "asked");
        decide("mimi://a.example/r/1", true).await;
        assert_eq!(code(&store, &bob.ssi, "mimi://a.example/r/1").await, Code::Success);
        assert_eq!(code(&store, &bob.ssi, "mimi://a.example/r/2").await, Code::NoConsent);
        decide("", true).await;
        assert_eq!(code(&store, &bob.ssi, "mimi://a.example/r/2").await, Code::Success);
        decide("mimi://a.example/r/2", false).await;
        assert_eq!(code(&store, &bob.ssi, "mimi://a.example/r/2").await, Code::NoConsent);
        // A question after the decision does not change it, and cannot take it back.
        ask_consent(&store, &bob.ssi, (ALICE, ""), now()).await.unwrap();
        cancel_consent(&store, &bob.ssi, (ALICE, "")).await.unwrap();
        assert_eq!(code(&store, &bob.ssi, "").await, Code::Success);
        decide("", false).await;
        assert_eq!(code(&store, &bob.ssi, "").await, Code::NoConsent);
        policy(Policy::None).await;
        decide("", true).await;
        assert_eq!(code(&store, &bob.ssi, "").await, Code::NoConsent);
    })
    .await;
}

#[tokio::test]
async fn questions_are_kept_only_where_somebody_decides_by_a_list() {
    both(MIGRATIONS, async |store: Store| {
        let [all, some, none] = ["all", "some", "none"].map(|name| Person::new(name, &["phone"]));
        all.store(&store, Policy::All, 0).await;
        some.store(&store, Policy::List, 0).await;
        none.store(&store, Policy::None, 0).await;
        let unknown = Person::new("unknown", &["phone"]);
        for person in [&all, &some, &none, &unknown] {
            ask_consent(&store, &person.ssi, (ALICE, ""), now()).await.unwrap();
        }
        for (person, count) in [(&all, 0), (&some, 1), (&none, 0), (&unknown, 0)] {
            assert_eq!(consents_of(&store, &person.ssi).await.unwrap().len(), count);
        }
        cancel_consent(&store, &some.ssi, (ALICE, "")).await.unwrap();
        assert!(consents_of(&store, &some.ssi).await.unwrap().is_empty());
        for at in 0..105 {
            let who = format!("mimi://a.example/u/{at}");
            ask_consent(&store, &some.ssi, (&who, ""), now()).await.unwrap();
        }
        assert_eq!(consents_of(&store, &some.ssi).await.unwrap().len(), 100);
    })
    .await;
}

#[tokio::test]
async fn the_list_is_for_who_may_have_packages() {
    both(MIGRATIONS, async |store: Store| {
        let bob = Person::new("bob", &["phone"]);
        let unknown = Person::new("unknown", &["phone"]);
        bob.store(&store, Policy::All, 0).await;
        let found = list(&store, &asked("alice", &bob.ssi), now()).await.unwrap();
        let Listed::Found { uk, list: text } = found else { panic!("no list") };
        assert_eq!(uk, base64url(bob.uk.verifying_key().as_bytes()));
        assert!(ClientList::open(&text, &bob.uk.verifying_key(), now()).is_ok());
        let none = list(&store, &asked("alice", &unknown.ssi), now()).await.unwrap();
        assert!(matches!(none, Listed::NoConsent));
        decide_consent(&store, &bob.ssi, (ALICE, ""), false, now()).await.unwrap();
        let none = list(&store, &asked("alice", &bob.ssi), now()).await.unwrap();
        assert!(matches!(none, Listed::NoConsent));
    })
    .await;
}

#[test]
fn what_a_room_needs_decides_which_packages_fit() {
    let capabilities =
        Capabilities::new(None, None, Some(&[ExtensionType::LastResort]), None, None);
    let need = |extensions: &[ExtensionType], proposals: &[ProposalType], kinds: &[_]| {
        RequiredCapabilitiesExtension::new(extensions, proposals, kinds)
    };
    let (basic, x509) = (CredentialType::Basic, CredentialType::X509);
    let default = ExtensionType::ExternalSenders;
    let cases = [
        (need(&[], &[], &[]), true),
        (need(&[ExtensionType::LastResort, default], &[ProposalType::Add], &[basic]), true),
        (need(&[ExtensionType::Unknown(0xf001)], &[], &[]), false),
        (need(&[], &[ProposalType::Custom(0xf002)], &[]), false),
        (need(&[], &[], &[basic, x509]), false),
    ];
    for (required, expected) in cases {
        let suites = [2_u16, SUITE.into()].map(VerifiableCiphersuite::new);
        assert_eq!(fits(SUITE.into(), &capabilities, &suites, &required), expected);
        assert!(!fits(SUITE.into(), &capabilities, &suites[..1], &required));
    }
}
