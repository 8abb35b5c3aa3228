//! What is decided about.

use crate::discovery::identifier::Identifier;
use crate::discovery::statement::Purpose;
use crate::registrar::api::Channel;

/// A code that somebody wants sent.
pub struct Attempt<'a> {
    /// Domain of the application provider.
    pub ap: &'a str,
    /// To whom.
    pub sii: &'a Identifier,
    /// HMAC of the identifier, as rows name it.
    pub sii_mac: &'a str,
    /// How.
    pub channel: Channel,
    /// What for.
    pub purpose: Purpose,
}
