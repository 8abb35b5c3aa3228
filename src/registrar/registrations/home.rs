//! Who may vouch for an identifier: its home by the directory, and the region of this registrar.

use crate::discovery::directory::{Directory, Issuer};
use crate::discovery::identifier::Identifier;
use crate::registrar::Problem;

use crate::registrar::registrations::Core;

/// Stands for all addresses among prefixes.
const ADDRESSES: &str = "@";

/// The issuers that may vouch for an identifier: those of whose remit the longest prefix matches.
/// They are several while a prefix moves from one to the other.
pub(crate) fn homes<'a>(directory: &'a Directory, sii: &Identifier) -> Vec<&'a Issuer> {
    // An authority withdraws and vouches for nobody.
    let issuers = directory.content().issuers.iter().filter(|i| !i.remit.providers.is_empty());
    let matches: Vec<(usize, &Issuer)> = issuers
        .filter_map(|issuer| Some((matched(&issuer.remit.prefixes, sii)?, issuer)))
        .collect();
    let longest = matches.iter().map(|&(length, _)| length).max();
    let homes = matches.into_iter().filter(|&(length, _)| Some(length) == longest);
    let mut homes: Vec<&Issuer> = homes.map(|(_, issuer)| issuer).collect();
    homes.sort_by_key(|issuer| issuer.index);
    homes
}

/// The length of the longest of these prefixes that the identifier has; no prefixes are everything.
fn matched(prefixes: &[String], sii: &Identifier) -> Option<usize> {
    if prefixes.is_empty() {
        return Some(0);
    }
    let is_of = |prefix: &&String| match sii.digits() {
        Some(_) => sii.as_str().starts_with(prefix.as_str()),
        None => prefix.as_str() == ADDRESSES,
    };
    prefixes.iter().filter(is_of).map(String::len).max()
}

impl Core {
    /// Refuses an identifier that another discovery provider or region vouches for.
    pub(crate) fn check_home(
        &self,
        directory: &Directory,
        sii: &Identifier,
    ) -> Result<(), Problem> {
        let homes = homes(directory, sii);
        if !homes.iter().any(|issuer| issuer.domain == self.settings.iss) {
            let found = "an identifier that the directory gives to another discovery provider";
            let expected = "the discovery provider that `home` names, if there is one";
            let problem = Problem::new(421, "not_home", found, expected);
            return Err(match homes.first() {
                Some(home) => problem.with("home", home.domain.clone()),
                None => problem,
            });
        }
        let Some(region) = &self.settings.region else { return Ok(()) };
        match matched(&self.settings.region_prefixes, sii) {
            Some(_) => Ok(()),
            None => {
                let found = format!("an identifier of another region than {region}");
                let expected = "the registrar of the region of this identifier";
                Err(Problem::new(421, "other_region", found, expected))
            }
        }
    }
}
