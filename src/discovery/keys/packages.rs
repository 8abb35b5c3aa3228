//! Key packages (RFC 9420, section 10): which are accepted, by the service and by the device.
//!
//! `openmls` verifies the two signatures, the version, that every extension is in the leaf's
//! capabilities, and the lifetime by this machine's clock. The lifetime is checked again at the
//! time that is given, and the rest is what sotto adds: the suites, the owner and the owner's key.

use std::sync::LazyLock;

use crate::discovery::jws::base64url;
use crate::discovery::statement::Ssi;
use openmls::prelude::{
    BasicCredential, Capabilities, Ciphersuite, CredentialWithKey, ExtensionType, KeyPackage,
    KeyPackageIn, Lifetime, OpenMlsCrypto as _, OpenMlsProvider, ProtocolVersion,
    RequiredCapabilitiesExtension,
};
use openmls::prelude::{KeyPackageVerifyError, SignatureScheme, VerifiableCiphersuite};
use openmls_basic_credential::SignatureKeyPair;
use openmls_rust_crypto::RustCrypto;
use sha2::{Digest as _, Sha256};
use tls_codec::{DeserializeBytes as _, Serialize as _};

use crate::discovery::keys::mimi::identity_of;
use crate::limits::keys::{KEY_PACKAGE_BYTES_MAX, KEY_PACKAGES_MAX};

/// The cryptography of MLS.
pub static CRYPTO: LazyLock<RustCrypto> = LazyLock::new(RustCrypto::default);

/// Why a key package is refused. Nothing in it is quoted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // Names and messages say it.
pub enum PackageError {
    #[error("the key package has {0} bytes, expected at most {KEY_PACKAGE_BYTES_MAX}")]
    Long(usize),
    #[error("it is no key package of MLS 1.0")]
    Unreadable,
    #[error("its suite is not supported: expected 1, 2 or 3 (RFC 9420, section 17.1)")]
    Suite,
    #[error("a signature in it is not that of its key: it was changed")]
    Signature,
    #[error("it does not hold now: make a new one; if it is new, compare the clocks")]
    Lifetime,
    #[error("it holds for longer than 84 days: make one that holds for less")]
    LongLifetime,
    #[error("it is in another form than a key package may have: {0}")]
    Form(&'static str),
    #[error("its credential is not a basic one of this user's SSI")]
    Owner,
    #[error("it cannot be made: the key is not of the suite's scheme, or the cryptography refuses")]
    Unmade,
    #[error("its signature key is not that of this client in the user's list of clients")]
    Client,
}

/// A key package that holds now.
#[derive(Clone)]
pub struct Package {
    /// As it is sent.
    pub bytes: Vec<u8>,
    /// The reference by which a Welcome names it, in base64url.
    pub reference: String,
    /// SHA-256 of the key for the first message, in base64url: used once, like the package.
    pub init: String,
    /// Number of its suite.
    pub suite: u16,
    /// What its client can do.
    pub capabilities: Capabilities,
    /// Whether it may be given out when there is nothing else.
    pub last_resort: bool,
    /// Seconds since 1970.
    pub not_before: u64,
    /// Seconds since 1970.
    pub not_after: u64,
    /// The client's key for signatures.
    pub signature_key: Vec<u8>,
    /// Whose it is, by its own credential.
    pub owner: Option<String>,
}

impl Package {
    /// Validates a key package at `now`.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn validate(package: KeyPackageIn, now: u64) -> Result<Self, PackageError> {
        let credential = package.unverified_credential();
        let owner = identity_of(&credential.credential);
        let bytes = package.tls_serialize_detached().map_err(|_| PackageError::Unreadable)?;
        if bytes.len() > KEY_PACKAGE_BYTES_MAX {
            return Err(PackageError::Long(bytes.len()));
        }
        let valid = package.validate(&*CRYPTO, ProtocolVersion::Mls10).map_err(refusal)?;
        CRYPTO.supports(valid.ciphersuite()).map_err(|_| PackageError::Suite)?;
        let lifetime = *valid.life_time();
        if lifetime.not_before() > now || lifetime.not_after() <= now {
            return Err(PackageError::Lifetime);
        }
        if !lifetime.has_acceptable_range() {
            return Err(PackageError::LongLifetime);
        }
        let reference = valid.hash_ref(&*CRYPTO).map_err(|_| PackageError::Form("no reference"))?;
        Ok(Self {
            bytes,
            reference: base64url(reference.as_slice()),
            init: base64url(&Sha256::digest(valid.hpke_init_key().as_slice())),
            suite: valid.ciphersuite().into(),
            capabilities: valid.leaf_node().capabilities().clone(),
            last_resort: valid.last_resort(),
            not_before: lifetime.not_before(),
            not_after: lifetime.not_after(),
            signature_key: valid.leaf_node().signature_key().as_slice().to_vec(),
            owner,
        })
    }

    /// Whether it is this user's, by its credential and the key that the user's list has for it.
    ///
    /// # Errors
    /// It is another's.
    pub fn check_owner(&self, ssi: &Ssi, client_key: &[u8]) -> Result<(), PackageError> {
        if self.owner.as_deref() != Some(ssi.as_str()) {
            return Err(PackageError::Owner);
        }
        if self.signature_key != client_key { Err(PackageError::Client) } else { Ok(()) }
    }

    /// By what packages that can be used for the same rooms are recognised.
    pub fn kind(&self) -> String {
        let digest = Sha256::new_with_prefix(self.suite.to_be_bytes());
        base64url(&digest.chain_update(capabilities_bytes(&self.capabilities)).finalize()[..12])
    }
}

/// The bytes of capabilities.
pub fn capabilities_bytes(capabilities: &Capabilities) -> Vec<u8> {
    crate::discovery::keys::mimi::encode(capabilities)
}

/// Makes a key package of a client, which holds between two times. Its private keys stay in `mls`,
/// where the client finds them when it is welcomed to a room.
///
/// # Errors
/// The key is not of the scheme of the suite, or the cryptography refuses.
pub fn make(
    mls: &impl OpenMlsProvider,
    suite: Ciphersuite,
    signer: &SignatureKeyPair,
    owner: &str,
    (from, until): (u64, u64),
    last_resort: bool,
) -> Result<KeyPackageIn, PackageError> {
    let owner = CredentialWithKey {
        credential: BasicCredential::new(owner.as_bytes().to_vec()).into(),
        signature_key: signer.public().into(),
    };
    let extensions = [ExtensionType::LastResort];
    let builder = KeyPackage::builder()
        .key_package_lifetime(Lifetime::init(from, until))
        .leaf_node_capabilities(Capabilities::new(None, None, Some(&extensions), None, None));
    let builder = if last_resort { builder.mark_as_last_resort() } else { builder };
    let bundle = builder.build(suite, mls, signer, owner).map_err(|_| PackageError::Unmade)?;
    Ok(bundle.key_package().clone().into())
}

/// Reads the body of an upload: `KeyPackage keyPackages<V>`.
///
/// # Errors
/// It has another form, or too many.
pub fn read_many(body: &[u8]) -> Result<Vec<KeyPackageIn>, PackageError> {
    let read = Vec::<KeyPackageIn>::tls_deserialize_exact_bytes(body);
    let read = read.map_err(|_| PackageError::Unreadable)?;
    match read.len() {
        0..=KEY_PACKAGES_MAX => Ok(read),
        _ => Err(PackageError::Form("more than 100 at once")),
    }
}

/// Whether a client with these capabilities and packages of this suite can join such a room.
pub fn fits(
    suite: u16,
    capabilities: &Capabilities,
    acceptable: &[VerifiableCiphersuite],
    required: &RequiredCapabilitiesExtension,
) -> bool {
    let has_all = |required: &RequiredCapabilitiesExtension| {
        // RFC 9420, section 7.2: what every client has is not listed.
        let extensions = required.extension_types().iter().all(|kind| {
            (1..=5).contains(&u16::from(*kind)) || capabilities.extensions().contains(kind)
        });
        let proposals = required.proposal_types().iter().all(|kind| {
            (1..=7).contains(&u16::from(*kind)) || capabilities.proposals().contains(kind)
        });
        let credentials = required.credential_types().iter();
        extensions
            && proposals
            && credentials.into_iter().all(|kind| capabilities.credentials().contains(kind))
    };
    acceptable.iter().any(|one| one.value() == suite) && has_all(required)
}

/// The scheme of the first suite that is known here: that of the requester's signature.
pub fn scheme_of(suites: &[VerifiableCiphersuite]) -> Option<SignatureScheme> {
    let known = suites.iter().find_map(|suite| Ciphersuite::try_from(*suite).ok());
    known.map(|suite| suite.signature_algorithm())
}

fn refusal(error: KeyPackageVerifyError) -> PackageError {
    use KeyPackageVerifyError as Error;
    match error {
        Error::LifetimeError(_) => PackageError::Lifetime,
        Error::InvalidSignature | Error::InvalidLeafNodeSignature => PackageError::Signature,
        Error::MissingLifetime | Error::InvalidLeafNodeSourceType => {
            PackageError::Form("its leaf is not one of a key package")
        }
        Error::UnsupportedExtension => {
            PackageError::Form("an extension is not in its leaf's capabilities")
        }
        Error::InitKeyEqualsEncryptionKey => {
            PackageError::Form("its two encryption keys are the same")
        }
        _ => PackageError::Unreadable,
    }
}
