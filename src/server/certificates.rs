//! Certificates for localhost, for trying things out: `sotto cert`, the demo, tests. The key that
//! signed them is thrown away.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

const SERVER_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
/// The name in the client's certificate where no other is asked for.
const CLIENT_NAME: &str = "client.localhost";

/// Certificates and keys, all PEM; server and client chain to `ca_pem`.
#[allow(missing_docs)] // Names say it.
pub struct LocalCertificates {
    pub ca_pem: String,
    pub server_pem: String,
    /// Secret.
    pub server_key: String,
    pub client_pem: String,
    /// Secret.
    pub client_key: String,
}

/// How long certificates are valid where nothing else is asked for, in days.
pub const VALID_DAYS: u32 = 90;
/// They are valid from so long ago on: clocks of other machines may be behind.
const VALID_SINCE: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

/// Makes a fresh set, valid for [`VALID_DAYS`].
///
/// # Errors
/// The operating system gave no random bytes.
pub fn localhost() -> Result<LocalCertificates, rcgen::Error> {
    localhost_for(CLIENT_NAME)
}

/// The same, with another name in the client's certificate.
///
/// # Errors
/// As above.
pub fn localhost_for(client: &str) -> Result<LocalCertificates, rcgen::Error> {
    let now = SystemTime::now();
    between(client, now - VALID_SINCE, now + VALID_DAYS * DAY)
}

/// The same, valid from one moment to another, to the second.
///
/// # Errors
/// As above.
pub fn localhost_between(
    from: SystemTime,
    until: SystemTime,
) -> Result<LocalCertificates, rcgen::Error> {
    between(CLIENT_NAME, from, until)
}

fn between(
    client: &str,
    from: SystemTime,
    until: SystemTime,
) -> Result<LocalCertificates, rcgen::Error> {
    let date = |params: &mut CertificateParams| {
        (params.not_before, params.not_after) = (from.into(), until.into());
    };
    let mut ca = named("sotto local authority", &[])?;
    date(&mut ca);
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let ca_key = KeyPair::generate()?;
    let ca_pem = ca.self_signed(&ca_key)?.pem();
    let issuer = Issuer::new(ca, ca_key);
    let server = (ExtendedKeyUsagePurpose::ServerAuth, &SERVER_NAMES[..]);
    let client = (ExtendedKeyUsagePurpose::ClientAuth, &[client][..]);
    let (server_pem, server_key) = leaf("sotto server", server, &date, &issuer)?;
    let (client_pem, client_key) = leaf("sotto client", client, &date, &issuer)?;
    Ok(LocalCertificates { ca_pem, server_pem, server_key, client_pem, client_key })
}

fn named(common_name: &str, names: &[&str]) -> Result<CertificateParams, rcgen::Error> {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, common_name);
    Ok(params)
}

/// A certificate and its key, both PEM.
fn leaf(
    common_name: &str,
    (purpose, names): (ExtendedKeyUsagePurpose, &[&str]),
    date: &dyn Fn(&mut CertificateParams),
    issuer: &Issuer<'_, KeyPair>,
) -> Result<(String, String), rcgen::Error> {
    let mut params = named(common_name, names)?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![purpose];
    params.use_authority_key_identifier_extension = true;
    date(&mut params);
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, issuer)?;
    Ok((certificate.pem(), key.serialize_pem()))
}
