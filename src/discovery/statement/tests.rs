//! Statements: what is refused, and for which reason.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::discovery::batch::BATCH_TYP;
use crate::discovery::directory::DIRECTORY_TYP;
use crate::discovery::jws::base64url;
use crate::discovery::sample::fixture::*;
use crate::limits::{JTI_BYTES_MAX, MAPPING_TAGS_MAX, SSI_BYTES_MAX};

fn read(line: &str) -> Result<Statement, Refusal> {
    Statement::read(line, directory(), NOW)
}

fn code(read: Result<Statement, Refusal>) -> Option<Code> {
    read.err().map(|refusal| refusal.code)
}

fn claims_of(mapping: &Mapping) -> Value {
    serde_json::from_str(&mapping.to_claims()).unwrap()
}

fn signed(typ: &str, claims: &Value, key: &SigningKey) -> String {
    jws::sign(typ, claims.to_string().as_bytes(), key)
}

/// Signs changed claims as the user, where they can still be read, and then as the issuer.
fn issue(claims: &Value) -> String {
    let mut claims = claims.clone();
    if let Ok(mapping) = Mapping::from_claims(claims.to_string().as_bytes())
        && mapping.user.is_some()
    {
        let agreed = claims_of(&agreed(mapping));
        (claims["uk"], claims["up"]) = (agreed["uk"].clone(), agreed["up"].clone());
    }
    signed(MAPPING_TYP, &claims, &signers().issuer)
}

type Change = fn(&mut Value);

fn unset(claims: &mut Value, name: &str) {
    claims.as_object_mut().unwrap().remove(name);
}

#[test]
fn a_mapping_is_read_as_it_was_signed() {
    let mapping = mapping();
    let line = mapping.sign(&signers().issuer);
    assert_eq!(read(&line), Ok(Statement::Mapping(mapping.clone())));
    assert_eq!(read(&line).unwrap().sub(), &mapping.sub);
    let full = agreed(Mapping {
        region: Some("eu".into()),
        new_holder: true,
        tags: vec!["business".into(), "0123456789abcdef".into()],
        purpose: Purpose::Prefer,
        jti: "j".repeat(JTI_BYTES_MAX),
        ..unsigned()
    });
    assert_eq!(read(&full.sign(&signers().issuer)), Ok(Statement::Mapping(full)));
    // Claims of a later version.
    let mut claims = claims_of(&mapping);
    claims["later"] = json!({ "a": [1, null] });
    assert_eq!(read(&issue(&claims)), Ok(Statement::Mapping(mapping)));
}

#[test]
fn an_array_of_the_values_is_no_object() {
    let claims = claims_of(&mapping());
    let names = ["iss", "sub", "ssi", "jti", "iat", "exp", "proof", "proof_at"];
    let values = Value::from_iter(names.map(|name| claims[name].clone()));
    assert_eq!(code(read(&signed(MAPPING_TYP, &values, &signers().issuer))), Some(Code::Malformed));
    let line = Preference::new(unsigned().sub, None, NOW - 60, &user(1)).to_line();
    assert!(read(&line).is_ok());
    let preference: Value = serde_json::from_str(&line).unwrap();
    let preference = preference["preference"].as_object().unwrap();
    let names = ["sub", "ssi", "time", "uk", "signature"];
    let values = names.map(|name| preference.get(name).cloned().unwrap_or_default());
    let line = json!({ "preference": values }).to_string();
    assert!(read(&line).is_err(), "{line}");
}

/// A change of the claims of a mapping, and why it is refused.
const CLAIMS: &[(&str, Change, Option<Code>)] = &[
    ("as it is", |_| {}, None),
    ("no iss", |c| unset(c, "iss"), Some(Code::Claim)),
    ("no sub", |c| unset(c, "sub"), Some(Code::Claim)),
    ("no ssi", |c| unset(c, "ssi"), Some(Code::Claim)),
    ("no jti", |c| unset(c, "jti"), Some(Code::Claim)),
    ("no iat", |c| unset(c, "iat"), Some(Code::Claim)),
    ("no exp", |c| unset(c, "exp"), Some(Code::Claim)),
    ("no proof", |c| unset(c, "proof"), Some(Code::Claim)),
    ("no proof_at", |c| unset(c, "proof_at"), Some(Code::Claim)),
    ("a number as iss", |c| c["iss"] = json!(1), Some(Code::Claim)),
    ("a text as iat", |c| c["iat"] = json!("1"), Some(Code::Claim)),
    ("a fraction as iat", |c| c["iat"] = json!(1.5), Some(Code::Claim)),
    ("a negative exp", |c| c["exp"] = json!(-1), Some(Code::Claim)),
    ("null as region", |c| c["region"] = json!(null), Some(Code::Claim)),
    ("null as uk", |c| c["uk"] = json!(null), Some(Code::Claim)),
    ("a text as new_holder", |c| c["new_holder"] = json!("no"), Some(Code::Claim)),
    ("a text as tags", |c| c["tags"] = json!("a"), Some(Code::Claim)),
    ("a number as tag", |c| c["tags"] = json!([1]), Some(Code::Claim)),
    ("an empty tag", |c| c["tags"] = json!([""]), Some(Code::Claim)),
    ("8 tags", |c| c["tags"] = json!(vec!["a"; MAPPING_TAGS_MAX]), None),
    ("9 tags", |c| c["tags"] = json!(vec!["a"; MAPPING_TAGS_MAX + 1]), Some(Code::Claim)),
    ("a tag of 17 bytes", |c| c["tags"] = json!(["a".repeat(17)]), Some(Code::Claim)),
    ("a tag with a space", |c| c["tags"] = json!(["a b"]), Some(Code::Claim)),
    ("an empty jti", |c| c["jti"] = json!(""), Some(Code::Claim)),
    ("a jti of 65 bytes", |c| c["jti"] = json!("j".repeat(65)), Some(Code::Claim)),
    ("another purpose", |c| c["purpose"] = json!("spam"), Some(Code::Claim)),
    ("the purpose register", |c| c["purpose"] = json!("register"), None),
    ("another proof", |c| c["proof"] = json!("fax"), Some(Code::Claim)),
    ("a proof in capitals", |c| c["proof"] = json!("SMS"), Some(Code::Claim)),
    ("a short uk", |c| c["uk"] = json!(base64url(&[1; 31])), Some(Code::Claim)),
    ("a long uk", |c| c["uk"] = json!(base64url(&[1; 33])), Some(Code::Claim)),
    ("a long up", |c| c["up"] = json!(base64url(&[1; 65])), Some(Code::Claim)),
    ("padding", |c| c["up"] = json!(base64url(&[1; 64]) + "=="), Some(Code::Claim)),
    ("no uk", |c| unset(c, "uk"), Some(Code::NoConsent)),
    ("no up", |c| unset(c, "up"), Some(Code::NoConsent)),
    ("sub without scheme", |c| c["sub"] = json!("+15550000001"), Some(Code::Identifier)),
    ("sub not canonical", |c| c["sub"] = json!("tel:+1-5550000001"), Some(Code::Identifier)),
    ("a national sub", |c| c["sub"] = json!("tel:5550000001"), Some(Code::Identifier)),
    ("upper case", |c| c["sub"] = json!("mailto:A@example.com"), Some(Code::Identifier)),
    ("ssi by https", |c| c["ssi"] = json!("https://bravo.example/u/a"), Some(Code::Ssi)),
    ("another issuer", |c| c["iss"] = json!("other.example"), Some(Code::UnknownIssuer)),
    ("upper case iss", |c| c["iss"] = json!("Discovery.example"), Some(Code::UnknownIssuer)),
    ("whose key?", |c| c["iss"] = json!(AUTHORITY), Some(Code::OutOfRemit)),
    (
        "another provider",
        |c| c["ssi"] = json!("mimi://mallory.example/u/a"),
        Some(Code::UnknownProvider),
    ),
    (
        "a provider out of remit",
        |c| c["ssi"] = json!("mimi://alpha.example/u/a"),
        Some(Code::OutOfRemit),
    ),
    ("a number out of remit", |c| c["sub"] = json!("tel:+447700900000"), Some(Code::OutOfRemit)),
    ("a region", |c| c["region"] = json!("eu"), None),
    ("a region out of remit", |c| c["region"] = json!("asia"), Some(Code::OutOfRemit)),
    ("call", |c| c["proof"] = json!("call"), None),
    ("self", |c| c["proof"] = json!("self"), Some(Code::WeakProof)),
    ("email for a number", |c| c["proof"] = json!("email"), Some(Code::WeakProof)),
    ("proof after iat", |c| c["proof_at"] = json!(NOW - DAY + 1), Some(Code::WeakProof)),
    ("exp now", |c| c["exp"] = json!(NOW), Some(Code::Expired)),
    ("exp in a second", |c| c["exp"] = json!(NOW + 1), None),
    ("exp before iat", |c| c["exp"] = json!(NOW - 2 * DAY), Some(Code::Expired)),
    ("400 days", |c| c["exp"] = json!(NOW - DAY + MAPPING_SECONDS_MAX), None),
    (
        "400 days and a second",
        |c| c["exp"] = json!(NOW - DAY + MAPPING_SECONDS_MAX + 1),
        Some(Code::Lifetime),
    ),
    (
        "empty lifetime",
        |c| (c["iat"], c["exp"]) = (json!(NOW + 1), json!(NOW + 1)),
        Some(Code::Lifetime),
    ),
    ("the last exp", |c| c["exp"] = json!(u64::MAX), Some(Code::Lifetime)),
    ("300 seconds ahead", |c| c["iat"] = json!(NOW + CLOCK_AHEAD_SECONDS_MAX), None),
    (
        "301 seconds ahead",
        |c| c["iat"] = json!(NOW + CLOCK_AHEAD_SECONDS_MAX + 1),
        Some(Code::Future),
    ),
    ("the last iat", |c| c["iat"] = json!(u64::MAX), Some(Code::Future)),
    ("a proof made for it", |c| c["purpose"] = json!("prefer"), None),
    (
        "a proof of an hour ago",
        |c| {
            c["purpose"] = json!("prefer");
            c["proof_at"] = json!(NOW - DAY - FRESH_PROOF_SECONDS_MAX);
        },
        None,
    ),
    (
        "an older proof",
        |c| {
            c["purpose"] = json!("prefer");
            c["proof_at"] = json!(NOW - DAY - FRESH_PROOF_SECONDS_MAX - 1);
        },
        Some(Code::WeakProof),
    ),
];

#[test]
fn each_claim_is_checked() {
    for (name, change, expected) in CLAIMS {
        let mut claims = claims_of(&mapping());
        change(&mut claims);
        assert_eq!(code(read(&issue(&claims))), *expected, "{name}");
    }
}

#[test]
fn the_times_of_keys_and_exemptions_count() {
    let signers = signers();
    let at = |iat| Mapping { iat, proof_at: iat, exp: NOW + DAY, ..unsigned() };
    let change = NOW - 100 * DAY;
    let exempt = NOW - 300 * DAY;
    let cases = [
        ("new key", agreed(at(change)), &signers.issuer, None),
        ("new key too early", agreed(at(change - 1)), &signers.issuer, Some(Code::UnknownKey)),
        ("old key", agreed(at(change - 1)), &signers.old_issuer, None),
        ("old key too late", agreed(at(change)), &signers.old_issuer, Some(Code::UnknownKey)),
        ("another's key", mapping(), &signers.self_issuer, Some(Code::UnknownKey)),
        ("the user's key", mapping(), &user(1), Some(Code::UnknownKey)),
        ("exempt", at(exempt - 1), &signers.old_issuer, None),
        ("no longer exempt", at(exempt), &signers.old_issuer, Some(Code::NoConsent)),
        ("not exempt", unsigned(), &signers.issuer, Some(Code::NoConsent)),
        (
            "a preference is not exempt",
            Mapping { purpose: Purpose::Prefer, ..at(exempt - 1) },
            &signers.old_issuer,
            Some(Code::NoConsent),
        ),
    ];
    for (name, mapping, key, expected) in cases {
        assert_eq!(code(read(&mapping.sign(key))), expected, "{name}");
    }
}

#[test]
fn proofs_are_as_strong_as_the_remit_demands() {
    use Proof::{Call, Email, SelfDeclared, Sms};
    let address = Identifier::parse("a@example.com", None).unwrap();
    let number = unsigned().sub;
    for (weakest, found, number_passes, address_passes) in [
        (SelfDeclared, SelfDeclared, true, true),
        (Email, SelfDeclared, false, false),
        (Call, Call, true, false),
        (Sms, Call, false, false),
        (Sms, Sms, true, false),
        (Sms, Email, false, true),
        (Email, Email, false, true),
    ] {
        let directory = directory_with(|content| content.issuers[0].remit.proof = weakest);
        for (sub, passes) in [(&number, number_passes), (&address, address_passes)] {
            let mapping = agreed(Mapping { sub: sub.clone(), proof: found, ..unsigned() });
            let read = Statement::read(&mapping.sign(&signers().issuer), &directory, NOW);
            let expected = (!passes).then_some(Code::WeakProof);
            assert_eq!(code(read), expected, "{weakest:?} {found:?} {sub:?}");
        }
    }
    // What nobody proved makes no preference.
    let directory = directory_with(|content| content.issuers[0].remit.proof = SelfDeclared);
    let mapping = agreed(Mapping { proof: SelfDeclared, purpose: Purpose::Prefer, ..unsigned() });
    let read = Statement::read(&mapping.sign(&signers().issuer), &directory, NOW);
    assert_eq!(code(read), Some(Code::WeakProof));
}

/// Every claim changed by someone who has no key, and by an issuer without the user.
#[test]
fn a_changed_claim_breaks_the_signatures() {
    let changes: [(Change, Option<Code>); 13] = [
        // The user signed these.
        (|c| c["sub"] = json!("tel:+15550000002"), Some(Code::UserForged)),
        (|c| c["sub"] = json!("mailto:a@example.com"), Some(Code::UserForged)),
        (|c| c["ssi"] = json!("mimi://bravo.example/u/mallory"), Some(Code::UserForged)),
        (|c| c["ssi"] = json!("mimi://delta.example/u/alice-smith"), Some(Code::UserForged)),
        (|c| c["iat"] = json!(NOW - DAY + 1), Some(Code::UserForged)),
        (
            |c| c["uk"] = json!(base64url(user(2).verifying_key().as_bytes())),
            Some(Code::UserForged),
        ),
        (|c| c["up"] = json!(base64url(&[0; 64])), Some(Code::UserForged)),
        // The issuer may say these.
        (|c| c["exp"] = json!(NOW + 2 * DAY), None),
        (|c| c["jti"] = json!("2"), None),
        (|c| c["proof"] = json!("call"), None),
        (|c| c["proof_at"] = json!(NOW - DAY - 1), None),
        (|c| c["new_holder"] = json!(true), None),
        (|c| c["tags"] = json!(["business"]), None),
    ];
    let honest = Mapping { proof: Proof::Sms, ..unsigned() };
    let email = |claims: &mut Value| {
        if claims["sub"].as_str().unwrap().starts_with("mailto:") {
            claims["proof"] = json!("email");
        }
    };
    for (index, (change, by_issuer)) in changes.into_iter().enumerate() {
        let mut claims = claims_of(&agreed(honest.clone()));
        let line = signed(MAPPING_TYP, &claims, &signers().issuer);
        change(&mut claims);
        email(&mut claims);
        let resigned = signed(MAPPING_TYP, &claims, &signers().issuer);
        assert_eq!(code(read(&resigned)), by_issuer, "by the issuer: {index}");
        let [header, _, signature] = parts(&line);
        let forged = [header, parts(&resigned)[1], signature].join(".");
        assert_eq!(code(read(&forged)), Some(Code::Forged), "by anyone: {index}");
    }
}

fn parts(line: &str) -> [&str; 3] {
    line.split('.').collect::<Vec<_>>().try_into().unwrap()
}

#[test]
fn consent_cannot_be_copied() {
    let donor = mapping();
    let others = [
        ("sub", Mapping { sub: Identifier::parse("+15550000002", None).unwrap(), ..unsigned() }),
        ("ssi", Mapping { ssi: Ssi::new(PROVIDERS[2], "alice-smith").unwrap(), ..unsigned() }),
        ("iat", Mapping { iat: donor.iat + 1, ..unsigned() }),
    ];
    for (name, other) in others {
        let copied = Mapping { user: donor.user, ..other };
        assert_eq!(code(read(&copied.sign(&signers().issuer))), Some(Code::UserForged), "{name}");
    }
    // By another issuer about the same provider.
    let directory = directory_with(|content| {
        content.issuers[1].remit.providers.push(PROVIDERS[1].into());
    });
    let copied = Mapping { iss: SELF_ISSUER.into(), ..donor.clone() };
    let line = copied.sign(&signers().self_issuer);
    assert_eq!(code(Statement::read(&line, &directory, NOW)), Some(Code::UserForged));
    // A signature over a preference is none over a mapping.
    let preference =
        Preference::new(donor.sub.clone(), Some(donor.ssi.clone()), donor.iat, &user(1));
    let copied = Mapping { user: Some(preference.user), ..donor };
    assert_eq!(code(read(&copied.sign(&signers().issuer))), Some(Code::UserForged));
}

#[test]
fn weak_keys_and_malleable_signatures_of_users_are_refused() {
    // The neutral element, of which every text is signed by (R, s) = (neutral element, 0).
    let mut neutral = [0; 32];
    neutral[0] = 1;
    let mut signature = [0; 64];
    signature[..32].copy_from_slice(&neutral);
    let weak = Mapping { user: Some(Consent { key: neutral, signature }), ..unsigned() };
    assert_eq!(code(read(&weak.sign(&signers().issuer))), Some(Code::UserForged));
    // s + L, which is s modulo the order L of the group.
    const L: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde,
        0x14, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let mut mapping = mapping();
    let user = mapping.user.as_mut().unwrap();
    let mut carry = 0;
    for (s, l) in user.signature[32..].iter_mut().zip(L) {
        let sum = u16::from(*s) + u16::from(l) + carry;
        (*s, carry) = (sum as u8, sum >> 8);
    }
    assert_eq!(code(read(&mapping.sign(&signers().issuer))), Some(Code::UserForged));
    // No point at all.
    let none = Consent { key: [0xff; 32], signature: [0; 64] };
    let line = Mapping { user: Some(none), ..unsigned() }.sign(&signers().issuer);
    assert_eq!(code(read(&line)), Some(Code::UserForged));
}

#[test]
fn algorithms_and_types_cannot_be_confused() {
    let line = mapping().sign(&signers().issuer);
    let [header, payload, signature] = parts(&line);
    let kid = jws::key_id(&signers().issuer.verifying_key());
    let header_of = |alg: &str, typ: &str, more: &str| {
        base64url(
            format!("{{\"alg\":\"{alg}\",\"typ\":\"{typ}\",\"kid\":\"{kid}\"{more}}}").as_bytes(),
        )
    };
    assert_eq!(header_of("EdDSA", MAPPING_TYP, "").len(), header.len());
    let resign = |header: &str| {
        let text = format!("{header}.{payload}");
        let signature = signers().issuer.sign(text.as_bytes()).to_bytes();
        format!("{text}.{}", base64url(&signature))
    };
    assert_eq!(code(read(&resign(&header_of("EdDSA", MAPPING_TYP, "")))), None);
    for (alg, typ, more) in [
        ("none", MAPPING_TYP, ""),
        ("None", MAPPING_TYP, ""),
        ("HS256", MAPPING_TYP, ""),
        ("eddsa", MAPPING_TYP, ""),
        ("ES256", MAPPING_TYP, ""),
        ("", MAPPING_TYP, ""),
        ("EdDSA", BATCH_TYP, ""),
        ("EdDSA", DIRECTORY_TYP, ""),
        ("EdDSA", "JWT", ""),
        ("EdDSA", "", ""),
        ("EdDSA", "Sotto-Mapping+JWT", ""),
        ("EdDSA", MAPPING_TYP, ",\"crit\":[]"),
        ("EdDSA", MAPPING_TYP, ",\"crit\":[\"exp\"],\"exp\":1"),
        ("EdDSA", MAPPING_TYP, ",\"alg\":\"EdDSA\""),
        ("EdDSA", MAPPING_TYP, ",\"typ\":\"sotto-withdrawal+jwt\""),
    ] {
        let line = resign(&header_of(alg, typ, more));
        assert_eq!(code(read(&line)), Some(Code::Header), "{alg} {typ} {more}");
    }
    // The claims of one type under the other.
    assert_eq!(code(read(&resign(&header_of("EdDSA", WITHDRAWAL_TYP, "")))), Some(Code::Claim));
    // Without a signature, or with that of another header.
    for line in [
        format!("{}.{payload}.", header_of("none", MAPPING_TYP, "")),
        format!("{header}.{payload}."),
        format!("{header}.{payload}"),
        format!("{header}.{payload}.{signature}."),
        format!("{}.{payload}.{signature}", header_of("none", MAPPING_TYP, "")),
    ] {
        assert!(read(&line).is_err());
    }
    // A key that is not named is not guessed.
    let unnamed = base64url(format!("{{\"alg\":\"EdDSA\",\"typ\":\"{MAPPING_TYP}\"}}").as_bytes());
    assert_eq!(code(read(&resign(&unnamed))), Some(Code::UnknownKey));
}

#[test]
fn no_cut_and_no_other_byte_is_accepted() {
    let key = &signers().issuer;
    let directory = directory();
    let withdrawal = Withdrawal {
        by: WithdrawnBy::User(user(1).verifying_key().to_bytes()),
        sub: unsigned().sub,
        ssi: None,
        jti: "1".into(),
        iat: NOW,
    };
    let preference = Preference::new(unsigned().sub, Some(unsigned().ssi), NOW, &user(1));
    for line in [mapping().sign(key), withdrawal.sign(&user(1)), preference.to_line()] {
        Statement::read(&line, directory, NOW).unwrap();
        for end in 0..line.len() {
            assert!(Statement::read(&line[..end], directory, NOW).is_err(), "cut at {end}");
        }
        for at in 0..line.len() {
            let mut bytes = line.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            assert!(Statement::read(&changed, directory, NOW).is_err(), "changed at {at}");
        }
        for changed in [format!("{line}A"), format!("{line} x"), format!(" {line}")] {
            assert!(Statement::read(&changed, directory, NOW).is_err());
        }
    }
}

#[test]
fn long_lines_are_refused_before_they_are_read() {
    let long = |length| " ".repeat(length);
    assert_eq!(code(read(&long(JWS_BYTES_MAX))), Some(Code::Malformed));
    assert_eq!(code(read(&long(JWS_BYTES_MAX + 1))), Some(Code::TooLong));
    let mut claims = claims_of(&mapping());
    claims["later"] = json!("x".repeat(JWS_BYTES_MAX));
    assert_eq!(code(read(&issue(&claims))), Some(Code::TooLong));
}

fn withdrawal(by: WithdrawnBy, sub: &str) -> Withdrawal {
    let sub = Identifier::parse(sub, None).unwrap();
    Withdrawal { by, sub, ssi: None, jti: "1".into(), iat: NOW }
}

#[test]
fn withdrawals_are_of_those_who_may() {
    let signers = signers();
    let issuer = || WithdrawnBy::Issuer(ISSUER.into());
    let authority = || WithdrawnBy::Authority(AUTHORITY.into());
    let key_of = |number| WithdrawnBy::User(user(number).verifying_key().to_bytes());
    let number = "+15550000001";
    let cases = [
        ("issuer", withdrawal(issuer(), number), &signers.issuer, None),
        // What it may no longer vouch for it may still withdraw.
        ("elsewhere", withdrawal(issuer(), "+447700900000"), &signers.issuer, None),
        ("forged", withdrawal(issuer(), number), &signers.authority, Some(Code::UnknownKey)),
        ("user", withdrawal(key_of(1), number), &user(1), None),
        ("other user", withdrawal(key_of(1), number), &user(2), Some(Code::UserForged)),
        ("issuer as user", withdrawal(key_of(1), number), &signers.issuer, Some(Code::UserForged)),
        ("authority", withdrawal(authority(), number), &signers.authority, None),
        (
            "authority elsewhere",
            withdrawal(authority(), "+447700900000"),
            &signers.authority,
            Some(Code::OutOfRemit),
        ),
        (
            "authority over an address",
            withdrawal(authority(), "a@example.com"),
            &signers.authority,
            Some(Code::OutOfRemit),
        ),
        (
            "no authority",
            withdrawal(WithdrawnBy::Authority(ISSUER.into()), number),
            &signers.issuer,
            Some(Code::OutOfRemit),
        ),
        (
            "unknown",
            withdrawal(WithdrawnBy::Issuer("other.example".into()), number),
            &signers.issuer,
            Some(Code::UnknownIssuer),
        ),
        (
            "300 seconds ahead",
            Withdrawal { iat: NOW + 300, ..withdrawal(issuer(), number) },
            &signers.issuer,
            None,
        ),
        (
            "future",
            Withdrawal { iat: NOW + 301, ..withdrawal(issuer(), number) },
            &signers.issuer,
            Some(Code::Future),
        ),
        (
            "user in the future",
            Withdrawal { iat: u64::MAX, ..withdrawal(key_of(1), number) },
            &user(1),
            Some(Code::Future),
        ),
    ];
    for (name, withdrawal, key, expected) in cases {
        let ssi = Some(Ssi::new(PROVIDERS[1], "a").unwrap());
        for withdrawal in [withdrawal.clone(), Withdrawal { ssi, ..withdrawal }] {
            let read = read(&withdrawal.sign(key));
            match expected {
                None => assert_eq!(read, Ok(Statement::Withdrawal(withdrawal)), "{name}"),
                Some(_) => assert_eq!(code(read), expected, "{name}"),
            }
        }
    }
}

#[test]
fn each_claim_of_a_withdrawal_is_checked() {
    let uk = base64url(user(1).verifying_key().as_bytes());
    let sub = "tel:+15550000001";
    let good = json!({ "by": "issuer", "iss": ISSUER, "sub": sub, "jti": "1", "iat": NOW });
    let cases: [(&str, Value, Code); 12] = [
        ("by", json!("admin"), Code::Claim),
        ("by", json!("user"), Code::Claim),
        ("by", json!(1), Code::Claim),
        ("by", json!("Issuer"), Code::Claim),
        ("uk", json!(uk), Code::Claim),
        ("uk", json!(null), Code::Claim),
        ("iss", json!(null), Code::Claim),
        ("sub", json!("tel:1"), Code::Identifier),
        ("ssi", json!("mimi://x"), Code::Ssi),
        ("ssi", json!(null), Code::Claim),
        ("jti", json!(""), Code::Claim),
        ("iat", json!("now"), Code::Claim),
    ];
    let sign = |claims: &Value| signed(WITHDRAWAL_TYP, claims, &signers().issuer);
    assert_eq!(code(read(&sign(&good))), None);
    for (name, value, expected) in cases {
        let mut claims = good.clone();
        claims[name] = value.clone();
        assert_eq!(code(read(&sign(&claims))), Some(expected), "{name} {value}");
    }
    for name in ["by", "iss", "sub", "jti", "iat"] {
        let mut claims = good.clone();
        unset(&mut claims, name);
        assert_eq!(code(read(&sign(&claims))), Some(Code::Claim), "{name}");
    }
}

#[test]
fn preferences_are_signed_by_their_key() {
    let sub = unsigned().sub;
    for ssi in [Some(unsigned().ssi), None] {
        let preference = Preference::new(sub.clone(), ssi, NOW + 300, &user(1));
        assert_eq!(read(&preference.to_line()), Ok(Statement::Preference(preference)));
    }
    let good = Preference::new(sub, Some(unsigned().ssi), NOW, &user(1));
    let change = |change: Change| {
        let mut line: Value = serde_json::from_str(&good.to_line()).unwrap();
        change(&mut line);
        code(read(&line.to_string()))
    };
    let cases: [(Change, Option<Code>); 17] = [
        (|_| {}, None),
        (|l| l["later"] = json!(1), None),
        (|l| l["preference"]["later"] = json!(1), None),
        (|l| l["preference"]["sub"] = json!("tel:+15550000002"), Some(Code::UserForged)),
        (|l| l["preference"]["ssi"] = json!("mimi://delta.example/u/a"), Some(Code::UserForged)),
        (|l| unset(&mut l["preference"], "ssi"), Some(Code::UserForged)),
        (|l| l["preference"]["time"] = json!(NOW - 1), Some(Code::UserForged)),
        (|l| l["preference"]["time"] = json!(NOW + 301), Some(Code::Future)),
        (
            |l| l["preference"]["uk"] = json!(base64url(user(2).verifying_key().as_bytes())),
            Some(Code::UserForged),
        ),
        (|l| l["preference"]["signature"] = json!(base64url(&[0; 64])), Some(Code::UserForged)),
        (|l| l["preference"]["signature"] = json!(""), Some(Code::Claim)),
        (|l| l["preference"]["ssi"] = json!(""), Some(Code::Ssi)),
        (|l| l["preference"]["ssi"] = json!(null), Some(Code::Claim)),
        (|l| l["preference"]["sub"] = json!("tel:+1 5550000001"), Some(Code::Identifier)),
        (|l| unset(&mut l["preference"], "uk"), Some(Code::Claim)),
        (|l| l["preference"] = json!([]), Some(Code::Claim)),
        (|l| unset(l, "preference"), Some(Code::Claim)),
    ];
    for (index, (edit, expected)) in cases.into_iter().enumerate() {
        assert_eq!(change(edit), expected, "{index}");
    }
    // The consent to a mapping is no preference.
    let line = Preference { user: mapping().user.unwrap(), ..good }.to_line();
    assert_eq!(code(read(&line)), Some(Code::UserForged));
}

#[test]
fn a_claim_that_is_there_twice_is_refused() {
    let claims = mapping().to_claims();
    for name in ["sub", "exp", "up", "new_holder"] {
        let value = json!({ "sub": "tel:+15550000002", "exp": 1, "up": "", "new_holder": false });
        let twice = format!("{{\"{name}\":{},\"new_holder\":true,{}", value[name], &claims[1..]);
        let refusal = Mapping::from_claims(twice.as_bytes()).unwrap_err();
        assert_eq!(refusal.code, Code::Claim, "{name}");
    }
    let line = Preference::new(unsigned().sub, None, NOW, &user(1)).to_line();
    let twice = line.replace("\"time\"", "\"time\":1,\"time\"");
    assert_eq!(code(read(&twice)), Some(Code::Claim));
}

/// Texts of claims that name a person, or may.
#[test]
fn refusals_and_debug_name_nobody() {
    let secrets = ["5550000001", "447700900000", "alice-smith", "secret", "4915112345678"];
    let mut texts = vec![format!("{:?}", mapping()), format!("{:?}", unsigned().ssi)];
    let changes: [Change; 14] = [
        |c| c["iss"] = json!("+4915112345678"),
        |c| c["iss"] = json!("4915112345678.example"),
        |c| c["sub"] = json!("tel:+15550000001x"),
        |c| c["sub"] = json!("tel:+447700900000"),
        |c| c["ssi"] = json!("mimi://4915112345678.example/u/secret"),
        |c| c["ssi"] = json!("secret"),
        |c| c["ssi"] = json!("mimi://alpha.example/u/secret"),
        |c| c["iat"] = json!("secret"),
        |c| c["proof"] = json!("secret"),
        |c| c["purpose"] = json!("secret"),
        |c| c["tags"] = json!(["secret tag"]),
        |c| c["uk"] = json!("secret"),
        |c| c["region"] = json!("secret"),
        |c| c["exp"] = json!(1),
    ];
    for change in changes {
        let mut claims = claims_of(&mapping());
        change(&mut claims);
        let refusal = read(&issue(&claims)).unwrap_err();
        texts.extend([refusal.to_string(), format!("{refusal:?}")]);
    }
    for text in ["secret", "{\"secret\":1}", "{\"preference\":\"secret\"}", "{secret", "a.secret.b"]
    {
        texts.push(read(text).unwrap_err().to_string());
    }
    for text in texts {
        assert!(secrets.iter().all(|secret| !text.contains(secret)), "{text}");
    }
}

#[test]
fn ssis_have_one_form() {
    let good = [
        "mimi://a.example/u/alice",
        "mimi://xn--bcher-kva.example/u/A.b_c-d~1",
        "mimi://a/u/%C3%A4%2F",
        "mimi://a.example/u/alice@home;x=1",
    ];
    for text in good {
        let ssi = Ssi::parse(text).unwrap();
        assert_eq!(ssi.as_str(), text);
        assert_eq!(Ssi::new(ssi.domain(), ssi.handle()).unwrap(), ssi);
    }
    let long = |handle| format!("mimi://a.example/u/{}", "a".repeat(handle));
    assert_eq!(long(109).len(), SSI_BYTES_MAX);
    Ssi::parse(&long(109)).unwrap();
    let bad = [
        &long(110),
        "",
        "mimi://",
        "mimi://a.example",
        "mimi://a.example/u/",
        "mimi:///u/alice",
        "MIMI://a.example/u/alice",
        "mimi://A.example/u/alice",
        "mimi://a..example/u/alice",
        "mimi://a.example./u/alice",
        "mimi://-a.example/u/alice",
        "mimi://a.example:443/u/alice",
        "mimi://user@a.example/u/alice",
        "mimi://a.example/u/alice/x",
        "mimi://a.example/u/..",
        "mimi://a.example/u/alice?x",
        "mimi://a.example/u/alice#x",
        "mimi://a.example/u/al ice",
        "mimi://a.example/u/al\0ice",
        "mimi://a.example/u/\u{e4}",
        "mimi://b\u{fc}cher.example/u/alice",
        "mimi://a.example/u/%",
        "mimi://a.example/u/%4",
        "mimi://a.example/u/%c3%a4",
        "mimi://a.example/u/%41",
        "mimi://a.example/u/%0A",
        "mimi://a.example/r/alice",
    ];
    for text in bad {
        assert_eq!(Ssi::parse(text).unwrap_err().code, Code::Ssi, "{text}");
    }
}

#[test]
fn codes_are_distinct_words() {
    let words: std::collections::BTreeSet<&str> = Code::ALL.iter().map(|c| c.as_str()).collect();
    assert_eq!(words.len(), Code::ALL.len());
    let is_word = |word: &&str| word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    assert!(words.iter().all(is_word));
}

#[test]
fn the_signed_texts_are_those_of_the_documents() {
    let text = String::from_utf8(mapping().consent_text()).unwrap();
    let (iat, sub) = (NOW - DAY, mapping().sub.to_uri());
    let expected = format!(
        "sotto mapping 1\0{sub}\0mimi://bravo.example/u/alice-smith\0discovery.example\0{iat}"
    );
    assert_eq!(text, expected);
    assert_eq!(preference_text("+1", None, 7), b"sotto preference 1\0+1\0\x007");
    let ssi = Some("mimi://a/u/b");
    assert_eq!(preference_text("+1", ssi, 7), b"sotto preference 1\0+1\0mimi://a/u/b\x007");
}

proptest! {
    #[test]
    fn any_text_is_refused_without_a_panic(text in "\\PC{0,200}", json in any_json()) {
        prop_assert!(read(&text).is_err());
        let line = format!("{{\"preference\":{json}}}");
        prop_assert!(read(&line).is_err());
        for typ in [MAPPING_TYP, WITHDRAWAL_TYP] {
            prop_assert!(read(&jws::sign(typ, json.as_bytes(), &signers().issuer)).is_err());
            prop_assert!(read(&jws::sign(typ, text.as_bytes(), &signers().issuer)).is_err());
        }
    }

    #[test]
    fn claims_written_are_claims_read(mapping in any_mapping()) {
        let read = Mapping::from_claims(mapping.to_claims().as_bytes());
        prop_assert_eq!(read, Ok(mapping));
    }
}

/// JSON with the names of claims and values of any kind.
fn any_json() -> impl Strategy<Value = String> {
    let names = prop::sample::select(vec![
        "iss", "sub", "ssi", "jti", "iat", "exp", "proof", "proof_at", "uk", "up", "by", "time",
    ]);
    let values = prop_oneof![
        any::<u64>().prop_map(|n| json!(n)),
        "\\PC{0,20}".prop_map(|text| json!(text)),
        any::<bool>().prop_map(|b| json!(b)),
        Just(json!(null)),
        Just(json!(["a", 1])),
    ];
    let members = prop::collection::hash_map(names, values, 0..12);
    members.prop_map(|members| json!(members).to_string())
}

fn any_mapping() -> impl Strategy<Value = Mapping> {
    let texts = ("[a-z0-9.]{1,20}", "\\PC{1,16}", "[a-zA-Z0-9._~-]{3,20}");
    let times = (any::<u64>(), any::<u64>(), any::<u64>());
    let options = (
        prop::option::of("[a-z]{2}"),
        any::<bool>(),
        prop::collection::vec("[!-~]{1,16}", 0..=MAPPING_TAGS_MAX),
        prop::option::of((any::<[u8; 32]>(), any::<[u8; 32]>(), any::<[u8; 32]>())),
        any::<bool>(),
        prop::sample::select(vec![Proof::SelfDeclared, Proof::Email, Proof::Call, Proof::Sms]),
    );
    (texts, times, options).prop_map(|((iss, jti, handle), (iat, exp, proof_at), options)| {
        let (region, new_holder, tags, user, prefers, proof) = options;
        let user =
            user.map(|(key, r, s)| Consent { key, signature: [r, s].concat().try_into().unwrap() });
        let purpose = if prefers { Purpose::Prefer } else { Purpose::Register };
        let (sub, ssi) = (unsigned().sub, Ssi::new(PROVIDERS[1], &handle).unwrap());
        Mapping {
            iss,
            sub,
            ssi,
            jti,
            iat,
            exp,
            proof,
            proof_at,
            region,
            new_holder,
            tags,
            user,
            purpose,
        }
    })
}
