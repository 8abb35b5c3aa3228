//! Every bound of the registrar, with its reason.

use std::time::Duration;

/// Digits of a code: as many as people copy without a mistake.
pub const CODE_DIGITS: usize = 6;
/// How long a code may be entered.
pub const CODE_SECONDS: u64 = 600;
/// Wrong codes after which a registration has failed. With 6 codes a day for each identifier, a
/// guesser has 30 tries in a million a day, and succeeds once in 33 000 days.
pub const CODE_TRIES: u64 = 5;
/// How long to wait after the first, second and every further code before another is sent.
pub const RESEND_SECONDS: [u64; 3] = [30, 60, 120];
/// Codes that are sent for one identifier within an hour, whoever asks.
pub const CODES_AN_HOUR: u64 = 3;
/// Codes that are sent for one identifier within a day, whoever asks.
pub const CODES_A_DAY: u64 = 6;
/// The longest time that codes for an identifier are counted over.
pub const CODES_SECONDS: u64 = DAY_SECONDS;
/// How far `iat` of a request may be from now: it becomes the time of the mapping.
pub const CLOCK_SECONDS_MAX: u64 = 300;
/// Without a heartbeat for so long, a mapping is left out of the feed.
pub const STALE_SECONDS: u64 = 30 * DAY_SECONDS;
/// Without a heartbeat for so long, a registration ends. In the US a number rests 45 days before it
/// is given to somebody else.
pub const ENDED_SECONDS: u64 = 45 * DAY_SECONDS;
/// After so long the number has to be proved again.
pub const PROOF_SECONDS: u64 = 365 * DAY_SECONDS;
/// How long a mapping stays in force after that, unless it expires before.
pub const PROOF_GRACE_SECONDS: u64 = 60 * DAY_SECONDS;
/// How long a registration that is over can still be read. What was in force has to be erased
/// within 24 hours, and [`Core::purge`](crate::registrar::registrations::Core::purge) runs each
/// hour; so this is less.
pub const ERASE_SECONDS: u64 = 20 * 3_600;
/// How long replies are kept for requests that are sent again.
pub const REPLY_SECONDS: u64 = DAY_SECONDS;
/// How long HMAC, state and time of what is over are kept against replays.
pub const TOMBSTONE_SECONDS: u64 = 45 * DAY_SECONDS;
/// Registrations that one request names as alive.
pub const HEARTBEATS_MAX: usize = 10_000;
/// Longest name of a registration that is looked at, in bytes: ours have 22.
pub const ID_BYTES_MAX: usize = 64;
/// Longest `Idempotency-Key` of the registrar and of the log, in bytes: a UUID has 36.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 64;
/// Longest name of a language, in bytes (RFC 5646, section 4.4.1).
pub const LANGUAGE_BYTES_MAX: usize = 35;
/// Rows that a sweep or an erasure changes in one transaction, so that none is long.
pub const SWEEP_ROWS: u64 = 500;
/// Rows that one statement of SQL names by parameters. SQLite takes 32 766 parameters.
pub const SQL_ROWS: usize = 500;
/// Lines of a batch of the feed: some 12 MB, which are in memory at once.
pub const FEED_LINES_MAX: u64 = 10_000;
/// Longest line of a batch, in bytes: a statement as a string of JSON, where quotes take two.
pub const FEED_LINE_BYTES_MAX: usize = 2 * crate::limits::JWS_BYTES_MAX + 64;
/// Events that are handed out at once.
pub const EVENTS_MAX: u64 = 100;
/// Stale registrations that are handed out at once, for asking about them.
pub const STALE_CHECKS_MAX: u64 = 100;
/// How long to wait before an event is sent a second time; then twice as long each time.
pub const EVENT_RETRY_SECONDS: u64 = 60;
/// The longest wait before an event is sent again.
pub const EVENT_RETRY_SECONDS_MAX: u64 = 3_600;

const DAY_SECONDS: u64 = 86_400;

const _: () = {
    assert!(ERASE_SECONDS + 2 * 3_600 < DAY_SECONDS);
    assert!(STALE_SECONDS < ENDED_SECONDS);
    // The shift of six columns in `sql::count_code` is written out.
    assert!(CODES_AN_HOUR == 3 && CODES_A_DAY == 6);
};

/// The longest configuration of a registrar or a log.
pub const SERVICE_CONFIG_BYTES_MAX: u64 = 1 << 20;
/// Connections of clients to one of them where its configuration says nothing.
pub const SERVICE_CONNECTIONS: usize = 1_024;
/// Connections of one of them to PostgreSQL where its configuration says nothing.
pub const SERVICE_DATABASE_CONNECTIONS: u32 = 16;
/// Handshakes at once.
pub const SERVICE_HANDSHAKES_MAX: usize = 256;
/// How long a client may take for a handshake.
pub const SERVICE_HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// How long it may take for the head of a request.
pub const SERVICE_HEAD_TIME: Duration = Duration::from_secs(10);
/// How long a connection may be without a request.
pub const SERVICE_IDLE_TIME: Duration = Duration::from_secs(120);
/// How long a client may take for the body of a request.
pub const SERVICE_BODY_TIME: Duration = Duration::from_secs(60);
