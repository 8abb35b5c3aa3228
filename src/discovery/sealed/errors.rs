//! Why a sealed message is refused.

use crate::discovery::jws::JwsError;
use crate::wire::{FrameError, Malformed};

/// Why a message, or a list of keys, is refused. No text quotes content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // The texts say it.
pub enum SealedError {
    #[error(
        "the list of OHTTP keys is refused: {0}; check that the file with the front-end's key is \
         this front-end's"
    )]
    Signature(#[from] JwsError),
    #[error("the list of OHTTP keys is signed, but {found}; expected {expected}")]
    KeyList { found: String, expected: &'static str },
    #[error(
        "the list of OHTTP keys expired {seconds} s ago by this machine's clock: fetch it again; \
         if it stays so, check the clock"
    )]
    Expired { seconds: u64 },
    #[error(
        "the list of OHTTP keys has a date {seconds} s after this machine's clock: check the clock"
    )]
    Future { seconds: u64 },
    #[error(
        "an OHTTP key configuration of {found} bytes is not one key of X25519, HKDF-SHA256 and \
         AES-128-GCM (41 bytes)"
    )]
    KeyConfig { found: usize },
    #[error("the sealed message has {found} bytes, expected more than {expected}")]
    Short { found: usize, expected: usize },
    #[error(
        "the request is sealed for an OHTTP key that is not held here: fetch /ohttp-keys again"
    )]
    UnknownKey,
    #[error(
        "the sealed message cannot be opened: it was sealed for another key, or changed or cut off \
         on its way; fetch /ohttp-keys again"
    )]
    Unopened,
    #[error("sealing failed: {0}; report it, this is a bug")]
    Seal(String),
    #[error("the content is no binary HTTP message of known length: {0}")]
    NotHttp(&'static str),
    #[error("the {what} has {found} bytes, expected at most {max}")]
    TooLong { what: &'static str, found: usize, max: usize },
    #[error("the {message} cannot be read: {detail}")]
    Unreadable { message: &'static str, detail: String },
    #[error("the {message} has {found} in field {field}, expected {expected}")]
    Field { message: &'static str, field: u32, found: String, expected: &'static str },
    #[error("frame {index} of the look-up is refused: {error}")]
    Frame { index: usize, error: FrameError },
    #[error("frame {index} of the look-up is refused: {error}")]
    Malformed { index: usize, error: Malformed },
    #[error("the look-up has {found}, expected {expected}")]
    Batch { found: String, expected: &'static str },
}
