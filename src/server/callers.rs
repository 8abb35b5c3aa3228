//! Who may call: front-ends are known by the names in their certificates, and have shares and
//! quotas. TLS has checked the certificate (`tls`); here its names are looked up in the operator's
//! list.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::path::Path;
use std::slice;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use quinn::Connection;
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use webpki::EndEntityCert;

use super::certificate_check::{check_authority, expires};
use super::quota::Quota;
use super::tls::{IdentityError, certificates, read_file};
use crate::limits::{QUOTA_MIB_PER_SECOND_MAX, SHARE_MAX};
use crate::schedule::FrontEnd;
use crate::text;

/// A front-end that may call.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)] // Names say it.
pub struct ListedFrontEnd {
    pub name: Arc<str>,
    /// Its weight beside other front-ends.
    pub share: u32,
    pub quota_mib_per_second: Option<NonZeroU32>,
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
    verifier: Arc<dyn ClientCertVerifier>,
    expires: Option<i64>,
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
        let what = "authority's certificate";
        let found = certificates(what, authorities, origin)?;
        let expires = found.iter().filter_map(|found| expires(slice::from_ref(found))).min();
        let mut roots = RootCertStore::empty();
        for (certificate, index) in found.into_iter().zip(1..) {
            let origin = || origin.to_string();
            check_authority(&certificate).map_err(|problem| IdentityError::Authority {
                index,
                origin: origin(),
                problem,
            })?;
            roots.add(certificate).map_err(|error| IdentityError::Pem {
                what,
                origin: origin(),
                detail: error.to_string(),
            })?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .expect("this is a bug: authorities without a certificate");
        Ok(Self { verifier, expires, allowed })
    }

    /// When the authority that ends first expires, in Unix seconds.
    pub fn expires(&self) -> Option<i64> {
        self.expires
    }

    /// The same from files.
    pub fn from_files(authorities: &Path, allowed: Option<&Path>) -> Result<Self, IdentityError> {
        let pem = read_file("authority's certificate", authorities)?;
        let allowed = allowed.map(AllowList::from_file).transpose()?;
        Self::from_pem(&pem, &authorities.display(), allowed)
    }
}

impl Callers {
    pub(super) fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        match self {
            Self::Loopback | Self::Anyone => WebPkiClientVerifier::no_client_auth(),
            Self::Known(known) => known.verifier.clone(),
        }
    }

    /// The front-end at the other end; nothing where certificates are not asked for.
    pub(super) fn front_end(
        &self,
        connection: &Connection,
    ) -> Result<Option<ListedFrontEnd>, NotAllowed> {
        let Self::Known(KnownCallers { allowed, .. }) = self else { return Ok(None) };
        recognise(chain(connection).first(), allowed.as_ref()).map(Some)
    }

    pub(super) fn shown(&self, connection: &Connection) -> Option<Shown> {
        let Self::Known(KnownCallers { verifier, .. }) = self else { return None };
        Some(Shown { chain: chain(connection), verifier: verifier.clone() })
    }
}

fn chain(connection: &Connection) -> Vec<CertificateDer<'static>> {
    let chain = connection.peer_identity().and_then(|identity| identity.downcast().ok());
    chain.map(|chain: Box<Vec<CertificateDer<'static>>>| *chain).unwrap_or_default()
}

/// The certificates of a connection, to be checked again while it lasts.
pub(super) struct Shown {
    chain: Vec<CertificateDer<'static>>,
    verifier: Arc<dyn ClientCertVerifier>,
}

impl Shown {
    /// Whether a new connection with them would be accepted at this time, by the authorities of
    /// when this one began.
    pub(super) fn is_valid(&self, now: SystemTime) -> bool {
        let now = UnixTime::since_unix_epoch(now.duration_since(UNIX_EPOCH).unwrap_or_default());
        self.chain.split_first().is_some_and(|(certificate, intermediates)| {
            self.verifier.verify_client_cert(certificate, intermediates, now).is_ok()
        })
    }
}

fn recognise(
    certificate: Option<&CertificateDer<'_>>,
    allowed: Option<&AllowList>,
) -> Result<ListedFrontEnd, NotAllowed> {
    // TLS has parsed it before; what is no certificate has no names.
    let parsed = certificate.and_then(|der| EndEntityCert::try_from(der).ok());
    let names: Vec<String> = parsed.map_or_else(Vec::new, |certificate| {
        let hosts = certificate.valid_dns_names().map(str::to_ascii_lowercase);
        // A URI has a scheme; without one it could be taken for a host.
        let uris = certificate.valid_uri_names().filter(|name| name.contains(':'));
        hosts.filter(|name| !name.contains(':')).chain(uris.map(str::to_owned)).collect()
    });
    let known = |name: &String| match allowed {
        Some(list) => list.0.get(name).cloned(),
        None => {
            let name = name.as_str().into();
            Some(ListedFrontEnd { name, share: 1, quota_mib_per_second: None })
        }
    };
    names.iter().find_map(known).ok_or(NotAllowed(names))
}

/// Names that may call, each with its share and quota.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowList(HashMap<String, ListedFrontEnd>);

impl AllowList {
    /// Reads a file of lines `NAME SHARE [MIB_PER_SECOND]`: a host name or URI of the certificates,
    /// then whole numbers of at least 1, its weight beside the others and its quota, if it has one;
    /// `#` begins a comment.
    pub fn from_file(path: &Path) -> Result<Self, IdentityError> {
        let bytes = read_file("list of front-ends", path)?;
        let bad =
            |detail: String| IdentityError::List { origin: path.display().to_string(), detail };
        let text = text::utf8(&bytes).map_err(|error| bad(error.to_string()))?;
        Self::parse(&text).map_err(bad)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut names = HashMap::new();
        for (line, number) in text.lines().zip(1..) {
            let line = line.split_once('#').map_or(line, |(before, _)| before);
            // In the middle of a file that was put together from several.
            let line = line.trim_start_matches('\u{feff}');
            let mut words = line.split_whitespace();
            let Some(name) = words.next() else { continue };
            let name = known_name(name)
                .ok_or_else(|| format!("line {number}: {name:?} {EXPECTED_NAME}"))?;
            let share = words.next().and_then(|share| share.parse().ok());
            let Some(share) = share.filter(|share| (1..=SHARE_MAX).contains(share)) else {
                return Err(format!(
                    "line {number}: {name} has no share, a whole number of 1 to {SHARE_MAX}"
                ));
            };
            let quota = words.next().map(|quota| match quota.parse::<NonZeroU32>() {
                Ok(quota) if quota.get() <= QUOTA_MIB_PER_SECOND_MAX => Ok(quota),
                _ => Err(format!(
                    "line {number}: the quota of {name} is {quota:?}, expected MiB a second, a \
                     whole number of 1 to {QUOTA_MIB_PER_SECOND_MAX}"
                )),
            });
            let quota_mib_per_second = quota.transpose()?;
            if let Some(more) = words.next() {
                return Err(format!("line {number}: {more:?} follows name, share and quota"));
            }
            let front_end =
                ListedFrontEnd { name: name.as_str().into(), share, quota_mib_per_second };
            if names.insert(name, front_end).is_some() {
                return Err(format!("line {number}: the name was listed before"));
            }
        }
        if names.is_empty() {
            return Err("it names nobody".into());
        }
        Ok(Self(names))
    }
}

const EXPECTED_NAME: &str = "is no name of a certificate: callers are known by host names and \
     URIs, not by addresses; expected a host name in ASCII (xn--...) without port, `*` and last \
     dot, such as front-a.example, or a URI such as spiffe://example/front-a";

/// A name as certificates have it: a host name in lower case, or a URI. None where no certificate
/// that TLS lets through can have it, so that nobody would ever be known by it.
fn known_name(name: &str) -> Option<String> {
    if let Some((scheme, rest)) = name.split_once(':') {
        let of_scheme = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
        let is_uri = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.chars().all(of_scheme)
            && name.chars().all(|c| c.is_ascii_graphic())
            && name.parse::<IpAddr>().is_err();
        // Digits alone are a port.
        return (is_uri && rest.contains(|c: char| !c.is_ascii_digit())).then(|| name.to_owned());
    }
    let is_host = matches!(ServerName::try_from(name), Ok(ServerName::DnsName(_)));
    (is_host && !name.ends_with('.')).then(|| name.to_ascii_lowercase())
}

/// The front-ends that are there, and those with a quota that were: what they used of it is
/// remembered. They are on the operator's list, which bounds them.
#[derive(Default)]
pub(super) struct Connected(Mutex<HashMap<Arc<str>, ConnectedFrontEnd>>);

struct ConnectedFrontEnd {
    number: u64,
    /// As of its last connection.
    share: u32,
    connections: usize,
    quota: Option<(NonZeroU32, Arc<Quota>)>,
}

/// One connection's place.
pub(super) struct FrontEndConnection {
    connected: Arc<Connected>,
    name: Arc<str>,
    pub(super) front_end: FrontEnd,
    pub(super) quota: Option<Arc<Quota>>,
}

impl Connected {
    /// A place for one more connection of this front-end, unless it has `most`. Its number in the
    /// schedule is `new_number` where it has none.
    pub(super) fn enter(
        self: &Arc<Self>,
        front_end: &ListedFrontEnd,
        most: usize,
        new_number: u64,
        scan_bytes: usize,
    ) -> Option<FrontEndConnection> {
        let &ListedFrontEnd { ref name, share, quota_mib_per_second } = front_end;
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || ConnectedFrontEnd { number: new_number, share, connections: 0, quota: None };
        let connected = all.entry(name.clone()).or_insert_with(new);
        if connected.connections >= most {
            return None;
        }
        connected.connections += 1;
        connected.share = share;
        if connected.quota.as_ref().map(|(rate, _)| *rate) != quota_mib_per_second {
            let quota = |rate| (rate, Arc::new(Quota::new(rate, scan_bytes)));
            connected.quota = quota_mib_per_second.map(quota);
        }
        Some(FrontEndConnection {
            connected: self.clone(),
            name: name.clone(),
            front_end: FrontEnd { number: connected.number, share },
            quota: connected.quota.as_ref().map(|(_, quota)| quota.clone()),
        })
    }

    /// Name, share and connections of each that is there, by name.
    pub(super) fn list(&self) -> Vec<(Arc<str>, u32, usize)> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let there = all.iter().filter(|(_, connected)| connected.connections > 0);
        let mut list: Vec<_> =
            there.map(|(name, at)| (name.clone(), at.share, at.connections)).collect();
        list.sort();
        list
    }
}

impl Drop for FrontEndConnection {
    fn drop(&mut self) {
        let mut all = self.connected.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(connected) = all.get_mut(&self.name) {
            connected.connections -= 1;
            if connected.connections == 0 && connected.quota.is_none() {
                all.remove(&self.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::pem::PemObject as _;

    use super::super::certificates::localhost;
    use super::*;

    fn front_end(name: &str, share: u32, quota: u32) -> ListedFrontEnd {
        ListedFrontEnd { name: name.into(), share, quota_mib_per_second: NonZeroU32::new(quota) }
    }

    #[test]
    fn lists_say_what_is_wrong_with_them() {
        let listed = |text: &str| AllowList::parse(&text::utf8(text.as_bytes()).unwrap()).unwrap();
        let expected = |all: [(&str, u32, u32); 2]| {
            let all =
                all.map(|(name, share, quota)| (name.to_owned(), front_end(name, share, quota)));
            AllowList(all.into())
        };
        let list = listed("# ours\nA.example 3 # big\n\nspiffe://x/Y 1 250\n");
        assert_eq!(list, expected([("a.example", 3, 0), ("spiffe://x/Y", 1, 250)]));
        // As editors and `cat` write it.
        let list = listed("\u{feff}# ours\r\nA.example 3\r\n\u{feff}b_1.example 1\r\n");
        assert_eq!(list, expected([("a.example", 3, 0), ("b_1.example", 1, 0)]));
        for (text, expected) in [
            ("", "names nobody"),
            ("# only this\n", "names nobody"),
            ("a.example", "line 1: a.example has no share"),
            ("a.example 1\nb.example 0", "line 2: b.example has no share"),
            ("a.example -1", "no share"),
            ("a.example 1000001", "no share"),
            ("a.example 1 2 3", "line 1: \"3\" follows"),
            ("a.example 1 0", "line 1: the quota of a.example is \"0\""),
            ("a.example 1 100000001", "a whole number of 1 to 100000000"),
            ("a.example 1\nA.EXAMPLE 2", "line 2: the name was listed before"),
            ("a\u{feff} 1", "line 1: \"a\\u{feff}\" is no name of a certificate"),
        ] {
            let error = AllowList::parse(text).unwrap_err();
            assert!(error.contains(expected), "{text:?}: {error}");
        }
        let names = "a\u{202e}b b\u{fc}cher.example a.example, \"a.example\" a..example -a \
                     a.example. *.example 10.0.0.1 ::1 a.example:4433 spiffe://x/\u{e9} 1x://y";
        for name in names.split(' ') {
            let error = AllowList::parse(&format!("{name} 1")).unwrap_err();
            let expected = format!("line 1: {name:?} is no name of a certificate");
            assert!(error.starts_with(&expected), "{error}");
        }
    }

    #[test]
    fn certificates_are_known_by_their_names() {
        let made = localhost().unwrap();
        let der = CertificateDer::from_pem_slice(made.client_pem.as_bytes()).unwrap();
        let known = |list| recognise(Some(&der), Some(&AllowList::parse(list).unwrap()));
        assert_eq!(known("client.localhost 7"), Ok(front_end("client.localhost", 7, 0)));
        assert_eq!(known("client.localhost 7 9"), Ok(front_end("client.localhost", 7, 9)));
        assert_eq!(recognise(Some(&der), None), Ok(front_end("client.localhost", 1, 0)));
        let other = NotAllowed(vec!["client.localhost".into()]);
        assert_eq!(known("sotto 7"), Err(other), "not by its common name");
        assert_eq!(recognise(None, None), Err(NotAllowed(vec![])));
        let garbage = CertificateDer::from(vec![0x30, 0x03, 1]);
        assert_eq!(recognise(Some(&garbage), None), Err(NotAllowed(vec![])));
    }

    #[test]
    fn a_uri_is_no_host_name() {
        let uri = |text: &str| rcgen::SanType::URI(text.try_into().unwrap());
        let mut params = rcgen::CertificateParams::default();
        params.subject_alt_names = vec![uri("front-a.example"), uri("spiffe://x/Y")];
        let made = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
        let listed = |list: Option<&str>| {
            let list = list.map(|text| AllowList::parse(text).unwrap());
            recognise(Some(made.der()), list.as_ref()).map(|front_end| front_end.name.to_string())
        };
        let found = listed(Some("front-a.example 1"));
        assert_eq!(found, Err(NotAllowed(vec!["spiffe://x/Y".into()])));
        for list in [Some("spiffe://x/Y 1"), None] {
            assert_eq!(listed(list).as_deref(), Ok("spiffe://x/Y"));
        }
    }

    #[test]
    fn places_are_given_back_and_quotas_are_not() {
        let connected = Arc::new(Connected::default());
        let mut numbers = 0..;
        let mut enter = |name: &str, quota| {
            connected.enter(&front_end(name, 1, quota), 2, numbers.next().unwrap(), 1 << 20)
        };
        let (first, second) = (enter("a", 0).unwrap(), enter("a", 0).unwrap());
        assert!(enter("a", 0).is_none());
        assert_eq!([first.front_end, second.front_end], [FrontEnd { number: 0, share: 1 }; 2]);
        let other = enter("b", 0).unwrap();
        assert_eq!(connected.list(), [("a".into(), 1, 2), ("b".into(), 1, 1)]);
        assert_ne!(other.front_end, first.front_end);
        drop((first, other));
        assert!(enter("a", 0).is_some());
        assert!(!connected.0.lock().unwrap().contains_key("b"));
        assert_eq!(connected.list(), [("a".into(), 1, 1)]);
        // What was used stays used: by another connection, and by one that comes later.
        let place = enter("c", 1).unwrap();
        let quota = place.quota.clone().unwrap();
        let mut is_same = |rate| {
            let later = enter("c", rate).unwrap();
            later.quota.as_ref().map(|later| Arc::ptr_eq(&quota, later))
        };
        assert_eq!(is_same(1), Some(true));
        drop(place);
        assert_eq!(is_same(1), Some(true));
        // Another list, another quota.
        assert_eq!((is_same(2), is_same(0)), (Some(false), None));
    }
}
