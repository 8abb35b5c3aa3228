//! Who sends a request: an application provider or another discovery provider, recognised by the
//! DNS names of its certificate, which TLS has verified.

use std::collections::BTreeSet;

use crate::https::PeerInfo;

use crate::registrar::Problem;

/// The domains of those who may ask.
#[derive(Debug, Default)]
pub(crate) struct Callers {
    /// Application providers.
    pub(crate) aps: BTreeSet<String>,
    /// Other discovery providers.
    pub(crate) dps: BTreeSet<String>,
}

impl Callers {
    /// The application provider of a connection.
    pub(crate) fn ap(&self, peer: &PeerInfo) -> Result<String, Problem> {
        one(&self.aps, peer, "application provider")
    }

    /// The other discovery provider of a connection.
    pub(crate) fn dp(&self, peer: &PeerInfo) -> Result<String, Problem> {
        one(&self.dps, peer, "other discovery provider")
    }
}

/// A certificate for several of them would let its owner choose who it is.
fn one(known: &BTreeSet<String>, peer: &PeerInfo, what: &str) -> Result<String, Problem> {
    let found: BTreeSet<&String> = peer.names.iter().filter(|name| known.contains(*name)).collect();
    let said = match (peer.names.len(), found.len()) {
        (_, 1) => return Ok(found.into_iter().next().cloned().unwrap_or_default()),
        (0, _) => "no client certificate".to_owned(),
        (_, 0) => format!("a client certificate that names no {what} of this service"),
        _ => format!("a client certificate that names more than one {what}"),
    };
    let expected = format!("a certificate for the domain of exactly one {what}");
    Err(Problem::new(403, "caller", said, expected))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_names_exactly_one() {
        let set = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        let callers = Callers { aps: set(&["a.example", "b.example"]), dps: set(&["dp.example"]) };
        for (names, ap, dp) in [
            (&["a.example"][..], Some("a.example"), None),
            (&["a.example", "www.a.example"], Some("a.example"), None),
            (&["a.example", "a.example"], Some("a.example"), None),
            (&["a.example", "b.example"], None, None),
            (&["a.example", "dp.example"], Some("a.example"), Some("dp.example")),
            (&["dp.example"], None, Some("dp.example")),
            (&["x.a.example"], None, None),
            (&["*.example"], None, None),
            (&[], None, None),
        ] {
            let peer = PeerInfo { names: names.iter().map(ToString::to_string).collect() };
            assert_eq!(callers.ap(&peer).ok().as_deref(), ap, "{names:?}");
            assert_eq!(callers.dp(&peer).ok().as_deref(), dp, "{names:?}");
        }
        let refused = callers.ap(&PeerInfo::default()).unwrap_err();
        assert_eq!((refused.status, refused.code), (403, "caller"));
    }
}
