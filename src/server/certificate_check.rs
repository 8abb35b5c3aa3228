//! Whether clients would accept a certificate chain: their own check, before it is served.
//!
//! Clients verify with webpki through rustls, and so does [`check`]. webpki reports codes, so
//! x509-parser finds what an operator has to change, in words ([`CertificateProblem`]). The check
//! cannot know which authorities a client trusts and which name it asks for: a chain that does not
//! contain its authority is accepted.

use std::ops::RangeInclusive;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use x509_parser::asn1_rs::Tag;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::x509::{SubjectPublicKeyInfo, X509Version};

use crate::text::duration;

/// Bits of an RSA key that TLS works with here, from and to.
const RSA_BITS: RangeInclusive<usize> = 2048..=4096;
const EXPECTED_KEYS: &str = "P-256, P-384, Ed25519, or RSA with 2048 to 4096 bits";

/// Why clients refuse a certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // Names and messages say it.
pub enum CertificateProblem {
    #[error(
        "the certificate expired {} ago: every client refuses it, have it renewed; if it has not, \
         this machine's clock is wrong", duration(*.ago)
    )]
    Expired { ago: Duration },
    #[error(
        "the certificate is not valid yet, but in {}: every client refuses it until then; if it is \
         valid, this machine's clock is wrong", duration(*.within)
    )]
    NotYet { within: Duration },
    #[error(
        "the certificate is an authority's (basicConstraints CA:TRUE), which clients accept from \
         no server; expected one with CA:FALSE, which an authority signed or which signs itself"
    )]
    Authority,
    #[error(
        "the certificate is not for servers: its extendedKeyUsage lacks serverAuth, which clients \
         expect"
    )]
    Purpose,
    #[error(
        "the certificate names no host: clients look at its subjectAltName alone, expected one \
         with a DNS name or an IP address"
    )]
    Nameless,
    #[error("the certificate is of X.509 version {found}, expected version 3")]
    Version { found: u32 },
    #[error("the certificate has a key that is not supported, {found}; expected {EXPECTED_KEYS}")]
    Key { found: String },
    #[error(
        "the certificate is signed with {found}, which clients do not accept; expected SHA-256 or \
         SHA-384 with RSA or ECDSA, or Ed25519"
    )]
    Signature { found: String },
    #[error("the certificate cannot be read: {0}")]
    Unreadable(String),
    #[error("certificate {index} of the chain is no authority's, and cannot have signed others")]
    NoAuthority { index: usize },
    #[error("clients refuse the certificate: {0}")]
    Other(String),
}

impl CertificateProblem {
    /// Whether another time, or another clock, would make it good.
    pub fn is_about_time(&self) -> bool {
        matches!(self, Self::Expired { .. } | Self::NotYet { .. })
    }
}

/// Checks a chain, the server's certificate first, as clients will at `now`.
pub(super) fn check(
    chain: &[CertificateDer<'_>],
    now: SystemTime,
) -> Result<(), CertificateProblem> {
    let (Some(own), Some(last)) = (chain.first(), chain.last()) else {
        return Err(CertificateProblem::Unreadable("there is none".into()));
    };
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() as i64;
    let parsed = chain.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
    for (index, certificate) in looked_at(&parsed) {
        check_one(certificate)?;
        if index > 0 && !certificate.is_ca() {
            return Err(CertificateProblem::NoAuthority { index: index + 1 });
        }
    }
    check_names(&parsed[0])?;
    // At a time at which the first is valid: what no time makes good comes before what one does.
    let (not_before, not_after) = validity(&parsed[0]);
    let at = now.min(not_after).max(not_before).unsigned_abs();
    // Where the chain has but one, which authority signed it is not known here.
    let anchors = match chain.len() {
        1 => None,
        _ => Some(anchor_from_trusted_cert(last).map_err(|error| in_words(&error))?),
    };
    let anchors = anchors.as_slice();
    let own = EndEntityCert::try_from(own).map_err(|error| in_words(&error))?;
    let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms;
    let (time, usage) = (Duration::from_secs(at), KeyUsage::server_auth());
    let time = UnixTime::since_unix_epoch(time);
    match own.verify_for_usage(algorithms.all, anchors, &chain[1..], time, usage, None, None) {
        // Which certificate is valid when is compared below.
        Ok(_)
        | Err(
            webpki::Error::UnknownIssuer
            | webpki::Error::CertExpired { .. }
            | webpki::Error::CertNotValidYet { .. },
        ) => {}
        Err(error) => return Err(in_words(&error)),
    }
    looked_at(&parsed).try_for_each(|(_, certificate)| check_time(certificate, now))
}

/// The certificates of a chain that clients look at, with their places: not an authority's own.
fn looked_at<'a, 'c>(
    chain: &'a [X509Certificate<'c>],
) -> impl Iterator<Item = (usize, &'a X509Certificate<'c>)> {
    let self_issued =
        |found: &X509Certificate<'_>| found.subject().as_raw() == found.issuer().as_raw();
    let all = chain.iter().enumerate();
    all.filter(move |&(index, found)| index == 0 || !self_issued(found))
}

/// The first and the last second at which a certificate is valid, in Unix seconds.
fn validity(certificate: &X509Certificate<'_>) -> (i64, i64) {
    let validity = certificate.validity();
    (validity.not_before.timestamp(), validity.not_after.timestamp())
}

/// The last second at which a chain is valid: of the certificate that ends first, of those that
/// clients look at. None where one cannot be read.
pub(super) fn expires(chain: &[CertificateDer<'_>]) -> Option<i64> {
    let parsed = chain.iter().map(parse).collect::<Result<Vec<_>, _>>().ok()?;
    looked_at(&parsed).map(|(_, certificate)| validity(certificate).1).min()
}

/// Checks that signatures with an authority's key can be checked.
pub(super) fn check_authority(der: &CertificateDer<'_>) -> Result<(), CertificateProblem> {
    check_key(parse(der)?.public_key())
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, CertificateProblem> {
    let parsed = x509_parser::parse_x509_certificate(der);
    let (_, parsed) = parsed.map_err(|error| CertificateProblem::Unreadable(error.to_string()))?;
    Ok(parsed)
}

fn check_one(certificate: &X509Certificate<'_>) -> Result<(), CertificateProblem> {
    let X509Version(version) = certificate.version();
    if certificate.version() != X509Version::V3 {
        return Err(CertificateProblem::Version { found: version + 1 });
    }
    check_key(certificate.public_key())?;
    let signature = certificate.signature_algorithm.algorithm.as_bytes();
    let provider = rustls::crypto::ring::default_provider();
    let known = provider.signature_verification_algorithms.all.iter();
    // An AlgorithmIdentifier without its outer tag: tag and length of the object identifier first.
    let mut known = known.map(|algorithm| algorithm.signature_alg_id());
    if !known.any(|known| known.get(2..).is_some_and(|rest| rest.starts_with(signature))) {
        let found = certificate.signature_algorithm.algorithm.to_id_string();
        return Err(CertificateProblem::Signature { found: named(&found) });
    }
    Ok(())
}

fn check_time(certificate: &X509Certificate<'_>, now: i64) -> Result<(), CertificateProblem> {
    let (not_before, not_after) = validity(certificate);
    let seconds = |seconds: i64| Duration::from_secs(seconds.unsigned_abs());
    if now < not_before {
        return Err(CertificateProblem::NotYet { within: seconds(not_before - now) });
    }
    if now > not_after {
        return Err(CertificateProblem::Expired { ago: seconds(now - not_after) });
    }
    Ok(())
}

fn check_names(certificate: &X509Certificate<'_>) -> Result<(), CertificateProblem> {
    let names = certificate.subject_alternative_name();
    let names = names.map_err(|error| CertificateProblem::Unreadable(error.to_string()))?;
    let of_host = |name: &GeneralName<'_>| {
        matches!(name, GeneralName::DNSName(_) | GeneralName::IPAddress(_))
    };
    match names.is_some_and(|names| names.value.general_names.iter().any(of_host)) {
        true => Ok(()),
        false => Err(CertificateProblem::Nameless),
    }
}

const RSA: &str = "1.2.840.113549.1.1.1";
const ELLIPTIC: &str = "1.2.840.10045.2.1";
const ED25519: &str = "1.3.101.112";
/// The curves that TLS works with here: P-256, P-384.
const CURVES: [&str; 2] = ["1.2.840.10045.3.1.7", "1.3.132.0.34"];

/// Names of what is not supported, for people.
const NAMES: [(&str, &str); 8] = [
    ("1.2.840.113549.1.1.10", "RSA for PSS alone"),
    ("1.3.101.113", "Ed448"),
    ("1.3.132.0.35", "the curve P-521"),
    ("1.3.132.0.10", "the curve secp256k1"),
    ("1.2.840.113549.1.1.4", "MD5 and RSA"),
    ("1.2.840.113549.1.1.5", "SHA-1 and RSA"),
    ("1.2.840.10045.4.1", "SHA-1 and ECDSA"),
    ("1.2.840.10045.4.3.4", "SHA-512 and ECDSA"),
];

fn named(found: &str) -> String {
    let name = NAMES.iter().find(|(id, _)| *id == found).map(|(_, name)| (*name).to_owned());
    name.unwrap_or_else(|| format!("the algorithm {found}"))
}

fn check_key(key: &SubjectPublicKeyInfo<'_>) -> Result<(), CertificateProblem> {
    let algorithm = key.algorithm.algorithm.to_id_string();
    let found = match &*algorithm {
        ED25519 => return Ok(()),
        RSA => match key.parsed().map_or(0, |key| key.key_size()) {
            bits if RSA_BITS.contains(&bits) => return Ok(()),
            bits => format!("RSA with {bits} bits"),
        },
        ELLIPTIC => {
            let given = key.algorithm.parameters.as_ref();
            // Reading it as a name would not look at what it is.
            let named_by = given.filter(|given| given.tag() == Tag::Oid);
            let curve = named_by.and_then(|given| given.as_oid().ok());
            match curve.map(|curve| curve.to_id_string()) {
                Some(curve) if CURVES.contains(&&*curve) => return Ok(()),
                Some(curve) => named(&curve),
                None => "a curve given by its parameters".into(),
            }
        }
        other => named(other),
    };
    Err(CertificateProblem::Key { found })
}

fn in_words(error: &webpki::Error) -> CertificateProblem {
    use webpki::Error;
    match error {
        Error::CaUsedAsEndEntity => CertificateProblem::Authority,
        Error::RequiredEkuNotFoundContext(_) => CertificateProblem::Purpose,
        Error::InvalidSignatureForPublicKey => CertificateProblem::Other(
            "it is not signed by the certificate that follows it in the file".into(),
        ),
        other => CertificateProblem::Other(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::pem::PemObject as _;

    use super::super::certificates;
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn chain(pem: &str) -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().unwrap()
    }

    macro_rules! vector {
        ($name:literal) => {
            ($name, include_str!(concat!("../../tests/vectors/certificates/", $name, ".pem")))
        };
    }

    #[test]
    fn what_every_client_refuses_is_refused_and_named() {
        let now = SystemTime::now();
        for ((name, pem), expected) in [
            (vector!("authority"), "CA:TRUE"),
            (vector!("client"), "lacks serverAuth"),
            (vector!("nameless"), "names no host"),
            (vector!("email"), "names no host"),
            (vector!("p521"), "the curve P-521; expected P-256, P-384"),
            (vector!("secp256k1"), "the curve secp256k1"),
            (vector!("explicit"), "a curve given by its parameters"),
            (vector!("ed448"), "Ed448"),
            (vector!("rsa1024"), "RSA with 1024 bits"),
            (vector!("rsa8192"), "RSA with 8192 bits"),
            (vector!("sha1"), "signed with SHA-1 and RSA"),
            (vector!("v1"), "X.509 version 1, expected version 3"),
        ] {
            let problem = check(&chain(pem), now).unwrap_err();
            assert!(problem.to_string().contains(expected), "{name}: {problem}");
            assert!(!problem.is_about_time(), "{name}");
            // Also where its time is over: what no time makes good comes first.
            let late = check(&chain(pem), now + 200 * 365 * DAY).unwrap_err();
            assert_eq!(late, problem, "{name}");
        }
        for (name, pem) in [vector!("good-rsa"), vector!("good-p384"), vector!("good-ed25519")] {
            check(&chain(pem), now).unwrap_or_else(|problem| panic!("{name}: {problem}"));
        }
        let none = check(&[], now).unwrap_err();
        assert!(none.to_string().contains("there is none"), "{none}");
        let garbage = CertificateDer::from(vec![0x30, 0x03, 1]);
        assert!(matches!(check(&[garbage], now), Err(CertificateProblem::Unreadable(_))));
    }

    #[test]
    fn chains_lead_from_one_to_the_next_and_are_in_time() {
        let now = SystemTime::now();
        let made = certificates::localhost_between(now - DAY, now + DAY).unwrap();
        let own = chain(&made.server_pem);
        let with = |more: &str| [own.clone(), chain(more)].concat();
        let full = with(&made.ca_pem);
        for chain in [&own, &full] {
            check(chain, now).unwrap();
            let late = check(chain, now + 4 * DAY).unwrap_err();
            assert!(late.is_about_time() && late.to_string().contains("expired 3 days ago"));
            let early = check(chain, now - 3 * DAY).unwrap_err();
            assert!(early.is_about_time(), "{early}");
            assert!(early.to_string().contains("not valid yet, but in 2 days"), "{early}");
        }
        // Of the same name and another key: the authority was renewed, the certificate was not.
        let other = certificates::localhost_between(now - DAY, now + DAY).unwrap();
        let problem = check(&with(&other.ca_pem), now).unwrap_err();
        assert!(problem.to_string().contains("not signed by the certificate that follows"));
        let problem = check(&with(&other.server_pem), now).unwrap_err();
        assert!(problem.to_string().contains("certificate 2 of the chain is no authority's"));
        // Clients may know the authority all the same.
        check(&with(vector!("authority").1), now).unwrap();
    }
}
