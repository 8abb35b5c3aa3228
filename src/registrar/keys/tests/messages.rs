//! Every message as it is written, cut off at each byte and changed at each byte: none makes
//! anything panic, and nothing that is signed can be changed.

use std::fmt::Debug;

use openmls::prelude::Capabilities;
use tls_codec::{DeserializeBytes, Serialize};

use super::*;
use crate::discovery::keys::fetch::{Requester, request};
use crate::discovery::keys::mimi::*;
use crate::discovery::keys::packages::{CRYPTO, PackageError, read_many};

fn alice(signer: &SignatureKeyPair) -> Requester<'_> {
    Requester {
        user: Ssi::parse("mimi://a.example/u/alice").unwrap(),
        signer,
        suites: vec![SUITE],
        required: RequiredCapabilitiesExtension::default(),
    }
}

/// What is written is read again; what is cut off, longer or changed is refused, or something else.
fn check<M: Serialize + DeserializeBytes + PartialEq>(name: &str, message: &M) {
    let bytes = encode(message);
    assert_eq!(bytes.len(), message.tls_serialized_len(), "{name}");
    assert!(M::tls_deserialize_exact_bytes(&bytes).is_ok_and(|read| read == *message), "{name}");
    for end in 0..bytes.len() {
        assert!(M::tls_deserialize_exact_bytes(&bytes[..end]).is_err(), "{name}: {end} bytes");
    }
    let longer = [&bytes[..], &[0]].concat();
    assert!(M::tls_deserialize_exact_bytes(&longer).is_err(), "{name}: one more");
    for at in 0..bytes.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut changed = bytes.clone();
            changed[at] ^= flip;
            if let Ok(read) = M::tls_deserialize_exact_bytes(&changed) {
                assert!(read != *message, "{name}: byte {at}");
            }
        }
    }
}

fn shown(value: &impl Debug) -> String {
    format!("{value:?}")
}

#[test]
fn messages_are_read_as_written_and_no_other_bytes_are() {
    let bob = Person::new("bob", &["phone"]);
    let user = IdentifierUri::new(bob.ssi.as_str());
    let client = IdentifierUri::new("mimi://b.example/d/phone");
    let package = bob.package(0, 3, true);
    let capabilities = Some(Capabilities::new(None, None, None, None, None));
    let response = KeyMaterialResponse {
        protocol: Protocol::Mls10,
        user_status: KeyMaterialUserCode::PartialSuccess,
        user_uri: user.clone(),
        clients: vec![
            ClientKeyMaterial::Success {
                client: client.clone(),
                key_package: Box::new(package.clone()),
            },
            ClientKeyMaterial::KeyMaterialExhausted { client: client.clone() },
            ClientKeyMaterial::NothingCompatible { client: client.clone(), capabilities },
            ClientKeyMaterial::NothingCompatible { client, capabilities: None },
        ],
    };
    assert!(!shown(&response).contains("bob"), "Debug names a person");
    check("KeyMaterialResponse", &response);
    check(
        "ClientListResponse",
        &ClientListResponse {
            user_status: KeyMaterialUserCode::Success,
            user_uri: user.clone(),
            user_key: vec![7; 32].into(),
            client_list: b"a.b.c".to_vec().into(),
        },
    );
    let entry = |operation, room: Option<&str>, key_packages| ConsentEntry {
        operation,
        requester: user.clone(),
        target: user.clone(),
        room: room.map(IdentifierUri::new),
        key_packages,
    };
    check("request", &entry(ConsentOperation::Request, None, Vec::new()));
    check("grant", &entry(ConsentOperation::Grant, Some("mimi://a/r/1"), vec![package]));
    check("revoke", &entry(ConsentOperation::Revoke, Some(""), Vec::new()));
    let search = |search_type, field_name: Option<&[u8]>| IdentifierRequest {
        search_type,
        search_value: b"+15550100123".to_vec().into(),
        field_name: field_name.map(Into::into),
    };
    check("phone", &search(SearchIdentifierType::Phone, None));
    check("field", &search(SearchIdentifierType::VcardField, Some(b"TEL")));
    let field = ProfileField {
        field_source: FieldSource::VcardField,
        field_name: b"FN".to_vec().into(),
        field_value: b"B".to_vec().into(),
    };
    check(
        "IdentifierResponse",
        &IdentifierResponse {
            response_code: IdentifierQueryCode::Success,
            uri: vec![user.clone(), user.clone()],
            found_profiles: vec![UserProfile { stable_uri: user, fields: vec![field] }],
        },
    );
}

#[test]
fn every_byte_of_a_request_is_signed() {
    let signer = SignatureKeyPair::new(SignatureScheme::ED25519).unwrap();
    let bob = Ssi::parse("mimi://b.example/u/bob").unwrap();
    let signed = request(&alice(&signer), &bob, "mimi://a.example/r/1").unwrap();
    let bytes = encode(&signed);
    let read = |bytes: &[u8]| {
        let request = KeyMaterialRequest::tls_deserialize_exact_bytes(bytes).ok()?;
        request.authenticate(&*CRYPTO, SignatureScheme::ED25519).ok()
    };
    assert!(read(&bytes).is_some());
    for at in 0..bytes.len() {
        assert!(read(&bytes[..at]).is_none(), "the first {at} bytes");
        let mut changed = bytes.clone();
        changed[at] ^= 0x04;
        assert!(read(&changed).is_none(), "byte {at}");
    }
    // Another's credential, signed all the same.
    let mut unsigned = KeyMaterialRequestTbs {
        protocol: Protocol::Mls10,
        requesting_user: signed.requesting_user.clone(),
        target_user: signed.target_user.clone(),
        room_id: signed.room_id.clone(),
        acceptable_ciphersuites: signed.acceptable_ciphersuites.clone(),
        required_capabilities: signed.required_capabilities.clone(),
        requester_signature_key: signed.requester_signature_key.clone(),
        requester_credential: signed.requester_credential.clone(),
    };
    unsigned.requesting_user = IdentifierUri::new("mimi://a.example/u/carol");
    let forged = openmls::prelude::Signable::sign(unsigned, &signer).unwrap();
    assert!(read(&encode(&forged)).is_none());
}

#[test]
fn every_byte_of_a_key_package_is_signed() {
    let bob = Person::new("bob", &["phone"]);
    let bytes = encode(&bob.package(0, 3, false));
    let read = |bytes: &[u8]| {
        let package = KeyPackageIn::tls_deserialize_exact_bytes(bytes).ok()?;
        Package::validate(package, now()).ok()
    };
    assert!(read(&bytes).unwrap().bytes == bytes);
    for at in 0..bytes.len() {
        assert!(read(&bytes[..at]).is_none(), "the first {at} bytes");
        let mut changed = bytes.clone();
        changed[at] ^= 0x04;
        assert!(read(&changed).is_none(), "byte {at}");
    }
    let signature = KeyPackageIn::tls_deserialize_exact_bytes(&{
        let mut changed = bytes.clone();
        *changed.last_mut().unwrap() ^= 1;
        changed
    });
    let refused = Package::validate(signature.unwrap(), now()).err();
    assert_eq!(refused, Some(PackageError::Signature));
    let long = Package::validate(bob.package(0, 90, false), now()).err();
    assert_eq!(long, Some(PackageError::LongLifetime));
}

#[test]
fn an_upload_has_at_most_a_hundred_packages() {
    let bob = Person::new("bob", &["phone"]);
    let package = bob.package(0, 3, false);
    assert_eq!(read_many(&encode(&vec![package.clone(); 100])).unwrap().len(), 100);
    assert!(read_many(&encode(&vec![package; 101])).is_err());
    assert!(read_many(&encode(&Vec::<KeyPackageIn>::new())).unwrap().is_empty());
    for body in [&b""[..], b"\x01", b"\xbf\xff\xff\xff", b"\xff"] {
        assert_eq!(read_many(body).err(), Some(PackageError::Unreadable));
    }
}
