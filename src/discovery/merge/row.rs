//! An accepted statement on its way to the others of its identifier, as it lies in a bucket file.

use std::fmt;

use prost::Message as _;
use sha2::{Digest as _, Sha256};

use super::super::directory::{Directory, Proof};
use super::super::identifier::Identifier;
use super::super::statement::{
    Consent, Mapping, Preference, Purpose, Statement, Withdrawal, WithdrawnBy,
};

/// Where a statement stands: index of the input file, and line from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) file: u32,
    pub(super) line: u64,
}

/// A statement whose signatures were verified.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub(super) struct Row {
    /// The identifier, as the `sub` of a statement.
    #[prost(string, tag = "1")]
    pub(super) sub: String,
    /// [`leaf_hash`] of its line.
    #[prost(bytes = "vec", tag = "2")]
    pub(super) digest: Vec<u8>,
    #[prost(uint32, tag = "3")]
    pub(super) file: u32,
    #[prost(uint64, tag = "4")]
    pub(super) line: u64,
    /// One of these three.
    #[prost(message, optional, tag = "5")]
    pub(super) mapping: Option<MappingRow>,
    #[prost(message, optional, tag = "6")]
    pub(super) withdrawal: Option<WithdrawalRow>,
    #[prost(message, optional, tag = "7")]
    pub(super) preference: Option<PreferenceRow>,
}

#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub(super) struct MappingRow {
    #[prost(uint32, tag = "1")]
    pub(super) issuer: u32,
    #[prost(uint32, tag = "2")]
    pub(super) provider: u32,
    #[prost(string, tag = "3")]
    pub(super) ssi: String,
    #[prost(string, tag = "4")]
    pub(super) jti: String,
    #[prost(uint64, tag = "5")]
    pub(super) iat: u64,
    #[prost(uint64, tag = "6")]
    pub(super) exp: u64,
    #[prost(uint64, tag = "7")]
    pub(super) proof_at: u64,
    #[prost(string, optional, tag = "8")]
    pub(super) region: Option<String>,
    #[prost(bool, tag = "9")]
    pub(super) new_holder: bool,
    #[prost(string, repeated, tag = "10")]
    pub(super) tags: Vec<String>,
    /// The user's key; none where the directory exempts the issuer.
    #[prost(bytes = "vec", optional, tag = "11")]
    pub(super) key: Option<Vec<u8>>,
    /// Whether the proof was made to set the preferred service.
    #[prost(bool, tag = "12")]
    pub(super) prefer: bool,
    /// Whether it was refused because it has expired. A number that it says has a new holder does
    /// not go back to the one before.
    #[prost(bool, tag = "13")]
    pub(super) expired: bool,
}

/// Voids the mappings of an issuer or of a user's key; of all, if neither is there.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub(super) struct WithdrawalRow {
    #[prost(uint32, optional, tag = "1")]
    pub(super) issuer: Option<u32>,
    #[prost(bytes = "vec", optional, tag = "2")]
    pub(super) key: Option<Vec<u8>>,
    #[prost(string, optional, tag = "3")]
    pub(super) ssi: Option<String>,
    #[prost(uint64, tag = "4")]
    pub(super) iat: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub(super) struct PreferenceRow {
    #[prost(string, optional, tag = "1")]
    pub(super) ssi: Option<String>,
    #[prost(uint64, tag = "2")]
    pub(super) time: u64,
    #[prost(bytes = "vec", tag = "3")]
    pub(super) key: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    pub(super) signature: Vec<u8>,
}

// Rows tell who is found where, so none of it is printed.
macro_rules! debug_without_content {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(..)"))
            }
        }
    )*};
}
debug_without_content!(Row, MappingRow, WithdrawalRow, PreferenceRow);

/// The hash of a leaf of the Merkle tree over accepted statements (RFC 9162, section 2.1.1): of the
/// line as it stands in its file, without its end.
pub(super) fn leaf_hash(line: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update([0]).chain_update(line).finalize().into()
}

impl Row {
    /// The row of a statement that was read from this line. `None` if the directory lacks its
    /// issuer or provider, which reading the statement has refused before.
    pub(super) fn new(
        statement: Statement,
        line: &[u8],
        place: Place,
        directory: &Directory,
    ) -> Option<Self> {
        let mut row = Self {
            sub: statement.sub().to_uri(),
            digest: leaf_hash(line).to_vec(),
            file: place.file,
            line: place.line,
            ..Self::default()
        };
        match statement {
            Statement::Mapping(mapping) => row.mapping = Some(mapping_row(mapping, directory)?),
            Statement::Withdrawal(withdrawal) => {
                row.withdrawal = Some(withdrawal_row(withdrawal, directory)?);
            }
            Statement::Preference(preference) => row.preference = Some(preference_row(preference)),
        }
        Some(row)
    }

    pub(super) fn place(&self) -> Place {
        Place { file: self.file, line: self.line }
    }

    /// The identifier; `None` in a file that is damaged.
    pub(super) fn identifier(&self) -> Option<Identifier> {
        Identifier::from_uri(&self.sub).ok()
    }
}

fn mapping_row(mapping: Mapping, directory: &Directory) -> Option<MappingRow> {
    Some(MappingRow {
        issuer: directory.issuer_of(&mapping.iss)?.index,
        provider: directory.provider_of(mapping.ssi.domain())?.index,
        ssi: mapping.ssi.as_str().to_owned(),
        jti: mapping.jti,
        iat: mapping.iat,
        exp: mapping.exp,
        proof_at: mapping.proof_at,
        region: mapping.region,
        new_holder: mapping.new_holder,
        tags: mapping.tags,
        key: mapping.user.map(|user| user.key.to_vec()),
        prefer: mapping.purpose == Purpose::Prefer && mapping.proof != Proof::SelfDeclared,
        expired: false,
    })
}

fn withdrawal_row(withdrawal: Withdrawal, directory: &Directory) -> Option<WithdrawalRow> {
    let (issuer, key) = match withdrawal.by {
        WithdrawnBy::Issuer(domain) => (Some(directory.issuer_of(&domain)?.index), None),
        WithdrawnBy::User(key) => (None, Some(key.to_vec())),
        WithdrawnBy::Authority(_) => (None, None),
    };
    let ssi = withdrawal.ssi.map(|ssi| ssi.as_str().to_owned());
    Some(WithdrawalRow { issuer, key, ssi, iat: withdrawal.iat })
}

fn preference_row(preference: Preference) -> PreferenceRow {
    let Consent { key, signature } = preference.user;
    PreferenceRow {
        ssi: preference.ssi.map(|ssi| ssi.as_str().to_owned()),
        time: preference.time,
        key: key.to_vec(),
        signature: signature.to_vec(),
    }
}

/// Appends a row with its length.
pub(super) fn encode(row: &Row) -> Vec<u8> {
    row.encode_length_delimited_to_vec()
}

/// The rows of a bucket file; `None` if it is damaged.
pub(super) fn decode_all(bytes: &[u8]) -> Option<Vec<Row>> {
    use rayon::prelude::*;
    let mut parts = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let length = prost::decode_length_delimiter(&mut rest).ok()?;
        let (part, after) = rest.split_at_checked(length)?;
        parts.push(part);
        rest = after;
    }
    parts.into_par_iter().map(|part| Row::decode(part).ok()).collect()
}
