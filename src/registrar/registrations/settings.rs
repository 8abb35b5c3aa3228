//! What the operator decides about a registrar.

use ed25519_dalek::SigningKey;
use zeroize::Zeroizing;

/// The registrar's own part in the directory, and its keys. It has no `Debug`, for keys are secret;
/// all of them are wiped when it is dropped.
pub struct Settings {
    /// Domain of the issuer that this registrar is.
    pub iss: String,
    /// Signs mappings and the feed: a key that the directory gives this issuer.
    pub signing_key: SigningKey,
    /// Key of the HMAC under which codes are stored. Whoever has it and the database can try codes.
    pub pepper: Zeroizing<[u8; 32]>,
    /// Key of the HMAC by which identifiers are found. It must never change.
    pub identifier_key: Zeroizing<[u8; 32]>,
    /// The only region that it serves and that its mappings name; none: no mapping names one.
    pub region: Option<String>,
    /// Beginnings of the numbers of that region, such as `+49`, and `@` for addresses; empty:
    /// everything.
    pub region_prefixes: Vec<String>,
    /// Whether what it vouches for goes to a log: then each statement is put in the queue for it.
    pub is_logged: bool,
}
