//! Certificates and keys from PEM texts.

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::errors::HttpsError;

/// The certificates of a PEM text, at least one.
pub(super) fn certificates(
    what: &'static str,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, HttpsError> {
    let bad = |detail: String| HttpsError::Pem { what, detail };
    let found = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|error| bad(error.to_string()))?;
    if found.is_empty() { Err(bad("it has no certificate".into())) } else { Ok(found) }
}

/// The private key of a PEM text.
pub(super) fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, HttpsError> {
    PrivateKeyDer::from_pem_slice(pem)
        .map_err(|error| HttpsError::Pem { what: "private key", detail: error.to_string() })
}

/// The authorities of a PEM text. Those that cannot be used are left out, as bundles of systems
/// have some, but one has to remain.
pub(super) fn authorities(pem: &[u8]) -> Result<RootCertStore, HttpsError> {
    let mut roots = RootCertStore::empty();
    let what = "authority's certificate";
    let (usable, _) = roots.add_parsable_certificates(certificates(what, pem)?);
    if usable == 0 {
        let detail = "none of its certificates can be an authority's".into();
        return Err(HttpsError::Pem { what, detail });
    }
    Ok(roots)
}
