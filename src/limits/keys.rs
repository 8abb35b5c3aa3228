//! Bounds of the key service, each with its reason.

/// Longest key package, in bytes: one of a usual client has 300 to 600.
pub const KEY_PACKAGE_BYTES_MAX: usize = 4 << 10;
/// Most key packages of a client.
pub const KEY_PACKAGES_MAX: usize = 100;
/// Longest body of an upload.
pub const KEY_UPLOAD_BYTES_MAX: usize = KEY_PACKAGES_MAX * KEY_PACKAGE_BYTES_MAX + 8;
/// Most clients of a user: their keys fit into a list.
pub const CLIENTS_MAX: usize = 16;
/// Longest name of a client.
pub const CLIENT_NAME_BYTES_MAX: usize = 32;
/// Longest public key for signatures: a point of P-521 has 133 bytes.
pub const CLIENT_KEY_BYTES_MAX: usize = 160;
/// Longest list of clients: sixteen with long names and keys of P-256 have about 3 500 bytes.
pub const CLIENT_LIST_BYTES_MAX: usize = 4 << 10;
/// Longest time that a list of clients may hold: 400 days, as mappings.
pub const CLIENT_LIST_SECONDS_MAX: u64 = 400 * 86_400;
/// Longest body of a user's own settings: a list of clients and a few mappings.
pub const KEY_USER_BYTES_MAX: usize = 32 << 10;
/// Most mappings in a user's settings.
pub const KEY_MAPPINGS_MAX: usize = 4;
/// Claims, and as many looks at a list of clients, that a requester may make in an hour.
pub const KEY_CLAIMS_AN_HOUR: u32 = 100;
/// Searches and questions for consent that a relay may pass on in an hour.
pub const KEY_QUERIES_AN_HOUR: u32 = 10_000;
/// Longest sealed request: relays forward no longer one of this kind.
pub const KEY_REQUEST_BYTES_MAX: usize = crate::limits::EVALUATE_BODY_BYTES_MAX;
/// Longest reply before it is sealed: relays pass no longer one on than 16 KiB.
pub const KEY_REPLY_BYTES_MAX: usize = 15 << 10;
const _: () = assert!(KEY_REPLY_BYTES_MAX + 1_024 <= crate::limits::RELAY_EVALUATE_REPLY_BYTES_MAX);
/// Replies are padded to a multiple of this before they are sealed, so that the relay does not see
/// from their length whether a user consents: the keys of most users fit into one.
pub const KEY_REPLY_STEP_BYTES: usize = 4 << 10;
/// What a reply has beside its body before it is sealed, at most.
pub const KEY_REPLY_FIELDS_BYTES: usize = 128;
/// Requests are padded to a multiple of this before they are sealed.
pub const KEY_REQUEST_STEP_BYTES: usize = 1 << 10;
/// Longest URI of a user or room in a message.
pub const KEY_URI_BYTES_MAX: usize = 256;
/// Questions for consent that wait for an answer of one user. Later ones are not kept.
pub const KEY_CONSENTS_WAITING_MAX: i64 = 100;
/// Decisions about consent that a user may store.
pub const KEY_CONSENTS_MAX: i64 = 10_000;
/// Requests at once; one more is answered 503.
pub const KEY_REQUESTS_MAX: usize = 512;
/// How often what has expired is removed.
pub const KEY_PURGE_TIME: std::time::Duration = std::time::Duration::from_secs(60);
/// Rows that one step of removing takes.
pub const KEY_PURGE_ROWS: i64 = 1_000;
/// What a reply that is put off says, in seconds.
pub const KEY_RETRY_SECONDS: u64 = 1;
/// Longest configuration file.
pub const KEY_CONFIG_BYTES_MAX: u64 = 64 << 10;
/// Bytes of the key under which identifiers and requesters are stored.
pub const KEY_MAC_BYTES: usize = 32;
