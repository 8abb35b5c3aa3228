//! Why rules cannot be used, and why it is not known whether a number changed hands.

use std::io;
use std::path::PathBuf;

use crate::https::HttpsError;
use crate::limits::fraud::{RECYCLING_CHECKS_MAX, RECYCLING_TOKEN_BYTES_MAX};

/// Why rules cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // Names and messages say it.
pub enum RulesError {
    #[error(
        "{of} has the country {found:?}; expected the two capital letters of a country with phone \
         numbers (ISO 3166-1), such as DE"
    )]
    Country { of: String, found: String },
    #[error(
        "the application provider {ap} declares {country}, which has no price; add it to `prices`, \
         or take it from the provider's `countries`"
    )]
    NoPrice { ap: String, country: String },
    #[error("{name} is {found}; expected a number from {min} to {max}")]
    Number { name: String, found: u64, min: u64, max: u64 },
    #[error(
        "`large-domains` has {found:?}; expected a domain in ASCII and lower case, such as \
         example.com"
    )]
    Domain { found: String },
    #[error(
        "an application provider is named {found:?}; expected its domain in the directory, in \
         ASCII and lower case"
    )]
    Provider { found: String },
    #[error(
        "`recycling-check-url` is {found}; expected one like \
         https://carrier.example/number-recycling/v0.2/check"
    )]
    Url { found: &'static str },
    #[error(
        "`recycling-check-url` is there without `recycling-check-token`; name the file of the \
         bearer token"
    )]
    NoToken,
    #[error("cannot check for recycled numbers: {0}")]
    Recycling(#[from] RecyclingError),
    #[error("cannot read the authorities {}: {source}", .path.display())]
    Authorities { path: PathBuf, source: io::Error },
}

/// Why it is not known whether a number changed hands. No message contains a number or a token.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // Names and messages say it.
pub enum RecyclingError {
    #[error("cannot read the token {}: {source}", .path.display())]
    TokenFile { path: PathBuf, source: io::Error },
    #[error(
        "others may read the token {} (mode {mode:04o}); expected mode 0600: chmod 600 it, and \
         have the carrier give another token if others are on this machine", .path.display()
    )]
    TokenOpen { path: PathBuf, mode: u32 },
    #[error(
        "the token {} has other characters than a bearer token has, or none, or more than \
         {RECYCLING_TOKEN_BYTES_MAX}; expected one line with the token alone", .path.display()
    )]
    Token { path: PathBuf },
    #[error("the service for recycled numbers has not answered: {0}")]
    Https(#[from] HttpsError),
    #[error(
        "the service for recycled numbers says {status}: it does not know of this number or day"
    )]
    NotKnown { status: u16 },
    #[error("the service for recycled numbers replied with status {status}; expected 200")]
    Status { status: u16 },
    #[error(
        "the service for recycled numbers replied with something else than an object with \
         `phoneNumberRecycled`; look whether `recycling-check-url` is right"
    )]
    Answer,
    #[error("{RECYCLING_CHECKS_MAX} checks for recycled numbers run, and no more are begun")]
    Busy,
    #[error("an address was to be checked; expected a number: this is a bug")]
    Address,
}
