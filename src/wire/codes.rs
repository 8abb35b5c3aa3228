//! The numbers of docs/wire.md: versions, status codes and error codes.

/// Version of the protocol: every message that has the field carries it.
pub const PROTOCOL_VERSION: u32 = 1;
/// Our scheme's number among the draft's `pir_scheme`s. 16 was the first version, whose tag did
/// not bind the value.
pub const PIR_SCHEME_SOTTO_2: i32 = 17;
/// Protocol name in the TLS handshake.
pub const ALPN: &[u8] = b"sotto/1";
/// Bytes of a hint digest.
pub const HINT_DIGEST_BYTES: usize = 16;

/// Makes an enum of codes of docs/wire.md from one table: a code, its number, its name there.
macro_rules! codes {
    ($(#[$about:meta])* $name:ident: $repr:ident {
        $($code:ident = $number:literal, $text:literal;)*
    }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr($repr)]
        #[expect(missing_docs, reason = "docs/wire.md says what each code means")]
        pub enum $name {
            $($code = $number,)*
        }

        impl $name {
            /// All of them, in the order of their numbers.
            pub const ALL: [Self; [$($number),*].len()] = [$(Self::$code),*];

            /// The number on the wire.
            pub fn code(self) -> $repr {
                self as $repr
            }

            /// The name in docs/wire.md; of a code of several words, as one word.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$code => $text,)*
                }
            }
        }
    };
}

codes! {
    /// What became of a request: `response_status` of every reply (docs/wire.md, "Status codes").
    /// "Retries" there says what a client does then.
    Status: i32 {
        SchemeMatched = 0, "PIR_SCHEME_MATCHED";
        SchemeSuggested = 1, "PIR_SCHEME_SUGGESTED";
        RequestFailure = 2, "PIR_REQUEST_FAILURE";
        ResponseSuccess = 3, "PIR_RESPONSE_SUCCESS";
        ResponseFailure = 4, "PIR_RESPONSE_FAILURE";
        Overloaded = 16, "OVERLOADED";
        EpochGone = 17, "EPOCH_GONE";
        ShardUnknown = 18, "SHARD_UNKNOWN";
        KeyMissing = 19, "KEY_MISSING";
        Quota = 20, "QUOTA";
        Deadline = 21, "DEADLINE";
        Malformed = 22, "MALFORMED";
        Draining = 23, "DRAINING";
        Device = 24, "DEVICE";
    }
}

/// A `response_status` that docs/wire.md does not name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("response_status is {0}, expected 0 to 4 or 16 to 24: is the server newer than we are?")]
pub struct UnknownStatus(pub i32);

impl TryFrom<i32> for Status {
    type Error = UnknownStatus;

    fn try_from(code: i32) -> Result<Self, UnknownStatus> {
        Self::ALL.into_iter().find(|status| status.code() == code).ok_or(UnknownStatus(code))
    }
}

codes! {
    /// QUIC application error codes, of streams and of connections.
    StreamCode: u32 {
        None = 0, "none";
        Internal = 1, "internal";
        Protocol = 2, "protocol";
        Cancelled = 3, "cancelled";
        ExcessiveLoad = 4, "excessive_load";
        FrameTooLarge = 5, "frame_too_large";
        Timeout = 6, "timeout";
        NotAllowed = 7, "not_allowed";
    }
}
