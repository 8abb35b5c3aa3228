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
        $($(#[$meaning:meta])* $code:ident = $number:literal, $text:literal;)*
    }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr($repr)]
        pub enum $name {
            $($(#[$meaning])* $code = $number,)*
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
    /// What became of a request: `response_status` of every reply. docs/wire.md says what each
    /// means ("Status codes") and what a client does then ("Retries").
    Status: i32 {
        /// Success of a request for parameters or with a key bundle.
        SchemeMatched = 0, "PIR_SCHEME_MATCHED";
        /// Another scheme was asked for; the reply names the one served.
        SchemeSuggested = 1, "PIR_SCHEME_SUGGESTED";
        /// The draft's: the request failed.
        RequestFailure = 2, "PIR_REQUEST_FAILURE";
        /// Success of a query or a hint.
        ResponseSuccess = 3, "PIR_RESPONSE_SUCCESS";
        /// The draft's: the response failed.
        ResponseFailure = 4, "PIR_RESPONSE_FAILURE";
        /// There is no room.
        Overloaded = 16, "OVERLOADED";
        /// The epoch asked for is not served.
        EpochGone = 17, "EPOCH_GONE";
        /// The server has no such shard.
        ShardUnknown = 18, "SHARD_UNKNOWN";
        /// The server does not know the key bundle.
        KeyMissing = 19, "KEY_MISSING";
        /// The front-end has used its quota.
        Quota = 20, "QUOTA";
        /// The deadline passed; nothing was computed after it.
        Deadline = 21, "DEADLINE";
        /// A defect of the client; `detail` says which field.
        Malformed = 22, "MALFORMED";
        /// The server is shutting down.
        Draining = 23, "DRAINING";
        /// The device failed and no other could answer.
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
        /// Nothing is wrong.
        None = 0, "none";
        /// A defect of the server.
        Internal = 1, "internal";
        /// The peer does not speak as docs/wire.md says.
        Protocol = 2, "protocol";
        /// The peer gave up.
        Cancelled = 3, "cancelled";
        /// There are too many connections or streams.
        ExcessiveLoad = 4, "excessive_load";
        /// The frame is longer than its kind may be.
        FrameTooLarge = 5, "frame_too_large";
        /// The peer did not send or read in time.
        Timeout = 6, "timeout";
        /// The peer's certificate names nobody who may call.
        NotAllowed = 7, "not_allowed";
    }
}
