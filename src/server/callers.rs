//! Who may call: front-ends known by the names in their certificates, and how much of the server
//! each may have.
//!
//! TLS has checked by then that a certificate is signed by the operator's authority (`tls`); here
//! its names are looked up in the operator's list. What a share buys is the schedule's to say.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use quinn::Connection;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use webpki::EndEntityCert;

use super::tls::{IdentityError, read_file};
use crate::limits::SHARE_MAX;

/// A front-end that may call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrontEnd {
    /// The name it is listed under.
    pub name: Arc<str>,
    /// Its weight beside other front-ends.
    pub share: u32,
}

/// Who may call.
#[derive(Debug, Clone, Default)]
pub enum Callers {
    /// This machine, without a certificate: the server listens on loopback addresses only.
    #[default]
    Loopback,
    /// Anyone who reaches the server, without a certificate.
    Anyone,
    /// Front-ends with a certificate.
    Known(KnownCallers),
}

/// Front-ends with a certificate from some authorities.
#[derive(Debug, Clone)]
pub struct KnownCallers {
    pub(super) authorities: Arc<RootCertStore>,
    allowed: Option<AllowList>,
}

/// Why a connection is not served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the certificate's names {0:?} are not on the list of front-ends")]
pub struct NotAllowed(Vec<String>);

impl KnownCallers {
    /// Certificates of these authorities (PEM); every name of theirs where there is no list.
    pub fn from_pem(
        authorities: &[u8],
        origin: &dyn fmt::Display,
        allowed: Option<AllowList>,
    ) -> Result<Self, IdentityError> {
        let bad = |detail: String| IdentityError::Pem {
            what: "authority's certificate",
            origin: origin.to_string(),
            detail,
        };
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(authorities) {
            let certificate = certificate.map_err(|error| bad(error.to_string()))?;
            roots.add(certificate).map_err(|error| bad(error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(bad("it has none".into()));
        }
        Ok(Self { authorities: Arc::new(roots), allowed })
    }

    /// The same from files.
    pub fn from_files(authorities: &Path, allowed: Option<&Path>) -> Result<Self, IdentityError> {
        let pem = read_file("authority's certificate", authorities)?;
        let allowed = allowed.map(AllowList::from_file).transpose()?;
        Self::from_pem(&pem, &authorities.display(), allowed)
    }
}

impl Callers {
    /// The front-end at the other end; nothing where certificates are not asked for.
    pub(super) fn front_end(
        &self,
        connection: &Connection,
    ) -> Result<Option<FrontEnd>, NotAllowed> {
        let Self::Known(KnownCallers { allowed, .. }) = self else { return Ok(None) };
        let chain = connection.peer_identity().and_then(|identity| identity.downcast().ok());
        let chain: Box<Vec<CertificateDer<'static>>> = chain.unwrap_or_default();
        recognise(chain.first(), allowed.as_ref()).map(Some)
    }
}

fn recognise(
    certificate: Option<&CertificateDer<'_>>,
    allowed: Option<&AllowList>,
) -> Result<FrontEnd, NotAllowed> {
    // TLS has parsed it before; what is no certificate has no names.
    let parsed = certificate.and_then(|der| EndEntityCert::try_from(der).ok());
    let names: Vec<String> = parsed.map_or_else(Vec::new, |certificate| {
        let hosts = certificate.valid_dns_names().map(str::to_ascii_lowercase);
        hosts.chain(certificate.valid_uri_names().map(str::to_owned)).collect()
    });
    let known = |name: &String| {
        let share = allowed.map_or(Some(1), |list| list.0.get(name).copied())?;
        Some(FrontEnd { name: name.as_str().into(), share })
    };
    names.iter().find_map(known).ok_or(NotAllowed(names))
}

/// Names that may call, each with its share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowList(HashMap<String, u32>);

impl AllowList {
    /// Reads a file of lines `NAME SHARE`: a host name or URI of the certificates, then a whole
    /// number of at least 1, its weight beside the others; `#` begins a comment.
    pub fn from_file(path: &Path) -> Result<Self, IdentityError> {
        let bytes = read_file("list of front-ends", path)?;
        let bad =
            |detail: String| IdentityError::List { origin: path.display().to_string(), detail };
        let text = String::from_utf8(bytes).map_err(|error| bad(error.to_string()))?;
        Self::parse(&text).map_err(bad)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut names = HashMap::new();
        for (line, number) in text.lines().zip(1..) {
            let line = line.split_once('#').map_or(line, |(before, _)| before);
            let mut words = line.split_whitespace();
            let Some(name) = words.next() else { continue };
            let share = words.next().and_then(|share| share.parse().ok());
            let Some(share) = share.filter(|share| (1..=SHARE_MAX).contains(share)) else {
                return Err(format!(
                    "line {number}: {name} has no share, a whole number of 1 to {SHARE_MAX}"
                ));
            };
            if let Some(more) = words.next() {
                return Err(format!("line {number}: {more:?} follows name and share"));
            }
            let name = if name.contains(':') { name.into() } else { name.to_ascii_lowercase() };
            if names.insert(name, share).is_some() {
                return Err(format!("line {number}: the name was listed before"));
            }
        }
        if names.is_empty() {
            return Err("it names nobody".into());
        }
        Ok(Self(names))
    }
}

/// Connections of each front-end.
#[derive(Default)]
pub(super) struct Connected(Mutex<HashMap<Arc<str>, usize>>);

/// One connection's place.
pub(super) struct Place {
    connected: Arc<Connected>,
    name: Arc<str>,
}

impl Connected {
    /// A place for one more connection of this front-end, unless it has as many as it may.
    pub(super) fn enter(self: &Arc<Self>, name: &Arc<str>, most: usize) -> Option<Place> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(name.clone()).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Place { connected: self.clone(), name: name.clone() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.connected.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.name) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::certificates;
    use super::*;

    #[test]
    fn lists_say_what_is_wrong_with_them() {
        let list = AllowList::parse("# ours\nA.example 3 # big\n\nspiffe://x/Y 1\n").unwrap();
        let expected = HashMap::from([("a.example".into(), 3), ("spiffe://x/Y".into(), 1)]);
        assert_eq!(list, AllowList(expected));
        for (text, expected) in [
            ("", "names nobody"),
            ("# only this\n", "names nobody"),
            ("a.example", "line 1: a.example has no share"),
            ("a.example 1\nb.example 0", "line 2: b.example has no share"),
            ("a.example -1", "no share"),
            ("a.example 1000001", "no share"),
            ("a.example 1 2", "line 1: \"2\" follows"),
            ("a.example 1\nA.EXAMPLE 2", "line 2: the name was listed before"),
        ] {
            let error = AllowList::parse(text).unwrap_err();
            assert!(error.contains(expected), "{text:?}: {error}");
        }
    }

    #[test]
    fn certificates_are_known_by_their_names() {
        let made = certificates::localhost().unwrap();
        let der = CertificateDer::from_pem_slice(made.client_pem.as_bytes()).unwrap();
        let list = |text| AllowList::parse(text).unwrap();
        let known = recognise(Some(&der), Some(&list("client.localhost 7"))).unwrap();
        assert_eq!(known, FrontEnd { name: "client.localhost".into(), share: 7 });
        let all = recognise(Some(&der), None).unwrap();
        assert_eq!(all, FrontEnd { name: "client.localhost".into(), share: 1 });
        let other = recognise(Some(&der), Some(&list("sotto 7"))).unwrap_err();
        assert_eq!(other, NotAllowed(vec!["client.localhost".into()]), "not by its common name");
        assert_eq!(recognise(None, None), Err(NotAllowed(vec![])));
        let garbage = CertificateDer::from(vec![0x30, 0x03, 1]);
        assert_eq!(recognise(Some(&garbage), None), Err(NotAllowed(vec![])));
    }

    #[test]
    fn places_are_given_back() {
        let connected = Arc::new(Connected::default());
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let first = connected.enter(&a, 2).unwrap();
        let _second = connected.enter(&a, 2).unwrap();
        assert!(connected.enter(&a, 2).is_none());
        let other = connected.enter(&b, 2).unwrap();
        drop((first, other));
        assert!(connected.enter(&a, 2).is_some());
        assert_eq!(connected.0.lock().unwrap().get(&b), None);
    }
}
