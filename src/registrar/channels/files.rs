//! Files and names that gateways are given: credentials, authorities, addresses.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::net::lookup_host;
use zeroize::Zeroizing;

use crate::registrar::channels::config::ConfigError;
use crate::shard::files::open_to_others;

/// Largest file of credentials that is read: two lines.
const CREDENTIALS_BYTES_MAX: u64 = 4 << 10;
/// Largest file of authorities that is read; the system's has some hundred KiB.
const AUTHORITIES_BYTES_MAX: u64 = 8 << 20;

/// How a gateway knows us.
pub(crate) struct Credentials {
    pub(crate) user: String,
    pub(crate) password: Zeroizing<String>,
}

/// Reads credentials: the user in the first line, the password in the second. The file is its
/// owner's alone.
pub(crate) fn credentials(path: &Path) -> Result<Credentials, ConfigError> {
    let file = |source| ConfigError::File { path: path.to_owned(), source };
    let found = fs::metadata(path).map_err(file)?;
    if let Some(mode) = open_to_others(&found) {
        return Err(ConfigError::Open { path: path.to_owned(), mode });
    }
    if found.len() > CREDENTIALS_BYTES_MAX {
        return Err(ConfigError::Credentials { path: path.to_owned() });
    }
    let text = Zeroizing::new(fs::read_to_string(path).map_err(file)?);
    let mut lines = text.lines();
    let user = lines.next().filter(|line| !line.is_empty());
    let password = lines.next().filter(|line| !line.is_empty());
    match (user, password, lines.next()) {
        (Some(user), Some(password), None) => {
            Ok(Credentials { user: user.to_owned(), password: Zeroizing::new(password.to_owned()) })
        }
        _ => Err(ConfigError::Credentials { path: path.to_owned() }),
    }
}

/// The PEM text of authorities.
pub(crate) fn authorities_pem(path: &Path) -> Result<Vec<u8>, ConfigError> {
    let file = |source| ConfigError::File { path: path.to_owned(), source };
    if fs::metadata(path).map_err(file)?.len() > AUTHORITIES_BYTES_MAX {
        return Err(file(io::Error::other(format!(
            "it has more than {AUTHORITIES_BYTES_MAX} bytes; expected authorities in PEM"
        ))));
    }
    fs::read(path).map_err(file)
}

/// The authorities of a PEM file.
pub(crate) fn authorities(path: &Path) -> Result<RootCertStore, ConfigError> {
    let pem = authorities_pem(path)?;
    let found = CertificateDer::pem_slice_iter(&pem).flatten();
    let mut roots = RootCertStore::empty();
    if roots.add_parsable_certificates(found).0 == 0 {
        return Err(ConfigError::File {
            path: path.to_owned(),
            source: io::Error::other("it has no certificate of an authority in PEM"),
        });
    }
    Ok(roots)
}

/// The addresses of a host. Without TLS all have to be of this machine or of a private network:
/// what is sent there is read by whoever is on the way.
pub(crate) async fn addresses(
    host: &str,
    port: u16,
    is_plain: IsPlain,
) -> io::Result<Vec<SocketAddr>> {
    let found: Vec<_> = lookup_host((host, port)).await?.collect();
    if found.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the host has no address"));
    }
    if is_plain == IsPlain::Yes && !found.iter().all(|address| is_private(address.ip())) {
        return Err(io::Error::other(
            "its address is a public one, and without TLS only this machine and private networks \
             are spoken to: use TLS",
        ));
    }
    Ok(found)
}

/// Whether a connection goes without TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IsPlain {
    Yes,
    No,
}

/// Of this machine, or of a network that is not the internet.
pub(crate) fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            address.is_loopback() || address.is_private() || address.is_link_local()
        }
        IpAddr::V6(address) => {
            address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local()
        }
    }
}

/// A host and a port from `host:port`; an address of version 6 is in brackets.
pub(crate) fn host_and_port(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let is_host = !host.is_empty() && !host.contains(['/', '@', ' ']);
    Some((host.to_owned(), port.parse().ok()?)).filter(|_| is_host)
}
