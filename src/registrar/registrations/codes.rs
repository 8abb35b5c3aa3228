//! Codes and what is stored of them; names of rows; HMACs.

use crate::discovery::identifier::Identifier;
use crate::discovery::jws::{base64url, from_base64url};
use crate::registrar::Problem;
use hmac::{Hmac, KeyInit, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::limits::registrar::CODE_DIGITS;
use crate::registrar::registrations::settings::Settings;

/// Codes that there are.
const CODES: u32 = 10_u32.pow(CODE_DIGITS as u32);
/// The largest multiple of [`CODES`] that numbers of 32 bits reach: those below it are as often one
/// code as any other.
const FAIR_BELOW: u32 = u32::MAX - u32::MAX % CODES;

/// A code by the system's generator.
pub(crate) fn generate() -> Result<Zeroizing<String>, Problem> {
    loop {
        let mut bytes = Zeroizing::new([0; 4]);
        fill(&mut *bytes)?;
        let number = u32::from_le_bytes(*bytes);
        if number < FAIR_BELOW {
            return Ok(Zeroizing::new(format!("{:0CODE_DIGITS$}", number % CODES)));
        }
    }
}

/// A name that nobody guesses: 22 characters.
pub(crate) fn name() -> Result<String, Problem> {
    let mut bytes = [0; 16];
    fill(&mut bytes)?;
    Ok(base64url(&bytes))
}

fn fill(bytes: &mut [u8]) -> Result<(), Problem> {
    getrandom::fill(bytes).map_err(|error| {
        tracing::error!(%error, "the system has no random bytes");
        let found = "a system without random bytes";
        Problem::new(503, "unavailable", found, "the same request, later").retry_after(5)
    })
}

/// Whether a text has the form of a code. Nothing else is compared or counted as a try.
pub(crate) fn is_code(text: &str) -> bool {
    text.len() == CODE_DIGITS && text.bytes().all(|byte| byte.is_ascii_digit())
}

impl Settings {
    /// What is stored of the code of a registration: of no use without the key, and for no other
    /// registration.
    pub(crate) fn code_mac(&self, id: &str, code: &str) -> String {
        base64url(&*self.code_bytes(id, code))
    }

    /// Whether a code is the one that was stored, in a time that does not depend on how much of it
    /// is right.
    pub(crate) fn is_code_of(&self, id: &str, code: &str, stored: &str) -> bool {
        let stored = Zeroizing::new(from_base64url(stored).unwrap_or_default());
        bool::from(self.code_bytes(id, code).as_slice().ct_eq(&stored))
    }

    fn code_bytes(&self, id: &str, code: &str) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(mac(&self.pepper, &[b"sotto code 1", id.as_bytes(), code.as_bytes()]))
    }

    /// What stands for an identifier in the database.
    pub(crate) fn sii_mac(&self, sii: &Identifier) -> String {
        base64url(&mac(&self.identifier_key, &[b"sotto identifier 1", sii.as_str().as_bytes()]))
    }
}

/// HMAC-SHA256 of texts, joined by a byte that none of them has.
fn mac(key: &[u8; 32], texts: &[&[u8]]) -> [u8; 32] {
    let hmac = <Hmac<Sha256> as KeyInit>::new_from_slice(key);
    let mut hmac = hmac.expect("this is a bug: HMAC takes a key of any length");
    for text in texts {
        hmac.update(text);
        hmac.update(&[0]);
    }
    hmac.finalize().into_bytes().into()
}
