//! Every bound of the program, each with its reason and its relations to others.
//!
//! What exceeds a bound is refused before memory is taken, with a message that names the bound.
//! Constants of kernels and formats are no bounds and stay where they are used.

#[cfg(feature = "registration")]
pub mod fraud;
#[cfg(feature = "registration")]
pub mod keys;
#[cfg(feature = "registration")]
pub mod log;
#[cfg(feature = "registration")]
pub mod registrar;
mod store;

use std::time::Duration;

pub use store::*;

// A database and its shape.
/// Columns come in steps of one AVX-512 register of matrix bytes.
pub const COLUMNS_STEP: u32 = 64;
/// Widest matrix of a shard: the noise allows 26 000 columns with 12 and 18 bits.
pub const COLUMNS_MAX: u32 = 26_048;
const _: () = assert!(COLUMNS_MAX.is_multiple_of(COLUMNS_STEP));
// The scan's 32-bit accumulators: columns * 255 * 128 stays below 2^31.
const _: () = assert!((COLUMNS_MAX as u64) * 255 * 128 < 1 << 31);
// The pack's 64-bit accumulators: 2047 products of two values below 2^24.
const _: () = assert!((1u64 << 48).checked_mul(2047).is_some());
/// Narrowest matrix of a shard, in columns. A band has 128; below 192 the ribbon has no slack.
pub const COLUMNS_MIN: u32 = 192;
const _: () = assert!(COLUMNS_MIN.is_multiple_of(COLUMNS_STEP));
/// Largest value field, in bytes: tag and value fit the rows of one large pack.
pub const VALUE_BYTES_MAX: u32 = 2_040;
const _: () = assert!(VALUE_BYTES_MAX + 8 <= 2048);
/// Longest look-up key, in bytes. An email address has at most 254, a phone number 16.
pub const KEY_BYTES_MAX: usize = 1_024;
/// Most packs of a shard: 131 072 rows, which the rule for shapes takes for 2^20 of the longest
/// records.
pub const PACKS_MAX: u32 = 64;
/// Fewest records of a pack for which the rule for shapes doubles the number of packs: towards its
/// own front-end a look-up hides among the records of its pack. A little less than 2^16, so that
/// the rule gives 2^19 and 500 000 records the same packs.
pub const PACK_RECORDS_MIN: u64 = 60_000;
/// Most shards of a database. Each is a map, and Linux allows 65 530 maps by default.
pub const SHARDS_MAX: u32 = 65_000;
/// Fewest records of a shard that a client accepts by default, among which its own is hidden: a
/// little less than the smallest build, which has 2^16 a shard.
pub const RECORDS_PER_SHARD_ACCEPTED_MIN: u64 = 64_000;
/// Longest name of a database, in bytes (docs/wire.md, "Messages").
pub const DATABASE_NAME_BYTES_MAX: usize = 64;
/// How far an operator's clock may be ahead of a client's.
pub const CLOCK_DIFFERENCE_MAX: Duration = Duration::from_secs(5 * 60);
/// Days for which signed parameters hold by default: a monthly renewal.
pub const EXPIRES_DAYS_DEFAULT: u32 = 30;
/// Most days for which they may hold. A signature that holds for longer says nothing about today.
pub const EXPIRES_DAYS_MAX: u32 = 366;
/// Shortest time between two doublings of the shards, which tell a server a bit of a key's hash.
pub const DOUBLING_INTERVAL: Duration = Duration::from_secs(365 * 86_400);
/// Largest file of pins that is read. The largest there is has less than 1 KiB.
pub const PINS_BYTES_MAX: u64 = 64 << 10;
/// Largest file of an operator's key that is read. PEM has some hundred bytes.
pub const SIGNING_KEY_BYTES_MAX: u64 = 64 << 10;
/// Largest manifest that is read: 65 000 shards at about 400 bytes a line, doubled.
pub const MANIFEST_BYTES_MAX: u64 = 64 << 20;
/// Largest file of certificates, of a key or of callers: ten thousands of callers.
pub const IDENTITY_FILE_BYTES_MAX: u64 = 8 << 20;
/// Most threads that an option may ask for: more than a machine has processors.
pub const THREADS_MAX: usize = 1_024;

// Requests: frames, queries, hints.
/// Most queries of one frame; padded ones have so many (docs/scheme.md, "What an observer learns").
pub const QUERIES_PER_FRAME_MAX: u32 = 1_024;
/// Most queries that one secret encrypts (docs/scheme.md, "Secrets").
pub const QUERIES_PER_SECRET_MAX: usize = 16;
/// Most request streams that a connection has open: the many users of a front-end.
pub const FRAMES_IN_FLIGHT_MAX: u32 = 128;
/// Key bundles that stay known for a connection whatever others bring: those of a padded frame.
pub const BUNDLES_PER_CONNECTION: u32 = 64;
const _: () = assert!(
    BUNDLES_PER_CONNECTION as usize * QUERIES_PER_SECRET_MAX >= QUERIES_PER_FRAME_MAX as usize
);
/// The largest key bundle, which is for two keys, in bytes as received.
pub const BUNDLE_BYTES_MAX: usize = 24 << 10;
/// Memory for the key bundles of all connections: 20 000 large ones, the secrets of some seconds.
pub const BUNDLE_CACHE_BYTES: usize = 512 << 20;
const _: () = assert!(
    BUNDLE_CACHE_BYTES / BUNDLE_BYTES_MAX / CONNECTIONS_MAX >= BUNDLES_PER_CONNECTION as usize
);
/// Longest nonce, in bytes (docs/wire.md, "Messages").
pub const NONCE_BYTES_MAX: usize = 32;
/// Most shards of a hint request: as many as a padded frame can name.
pub const HINTS_PER_REQUEST_MAX: u32 = 1_024;
/// Bytes around one query or bundle in its frame: tags, lengths, nonce, uid, numbers.
pub const FRAME_OVERHEAD_BYTES: usize = 256;
/// Bytes around the packs of one reply in its frame, with a `detail` for a person.
pub const REPLY_OVERHEAD_BYTES: usize = 1_024;
/// Longest reply to a parameter request: a ribbon seed and a hint digest for each shard.
pub const PARAMETERS_REPLY_BYTES_MAX: usize = (64 << 10) + SHARDS_MAX as usize * 24;
/// Most bytes that are taken from a stream at once. They are counted before more are taken.
pub const STREAM_CHUNK_BYTES: usize = 64 << 10;
/// How long a request may take to arrive. One that trickles in is given up alone.
pub const STREAM_READ_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a peer may leave one reply unread. One that does not read is given up alone.
pub const STREAM_WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a peer may delay the replies of one stream in sum: 30 MB at 4 Mbit/s.
pub const STREAM_SEND_TIME_MAX: Duration = Duration::from_secs(60);
const _: () = assert!(STREAM_WRITE_TIMEOUT.as_secs() <= STREAM_SEND_TIME_MAX.as_secs());
/// Deadline of a query that names none: two cold scans of a large shard.
pub const DEADLINE_DEFAULT: Duration = Duration::from_secs(10);
/// Longest deadline of a query. A queue with a longer wait should have refused it.
pub const DEADLINE_MAX: Duration = Duration::from_secs(60);
const _: () = assert!(DEADLINE_DEFAULT.as_secs() <= DEADLINE_MAX.as_secs());
/// Shortest time that an overloaded server asks a client to wait: less only adds to the load.
pub const RETRY_AFTER_MIN: Duration = Duration::from_millis(50);
/// Longest such time: half of the default deadline, so that a retry still makes sense.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(5);
const _: () = assert!(RETRY_AFTER_MAX.as_secs() < DEADLINE_DEFAULT.as_secs());
/// Most hints that are read at once. Each takes some 10 us, or a read of the disk.
pub const HINT_READS_MAX: usize = 16;
/// How long reading a hint may take: less than the 15 s that a client waits.
pub const HINT_READ_TIME: Duration = Duration::from_secs(10);

// Queue and engines.
/// How long an answer should take at most by default; half of it may be the wait for a batch.
pub const LATENCY_TARGET: Duration = Duration::from_secs(1);
/// Longest target that an operator may set.
pub const LATENCY_TARGET_MAX: Duration = DEADLINE_MAX;
/// Memory for queries that wait for an engine, each with its bundle, of all connections.
pub const QUEUED_QUERY_BYTES_MAX: usize = 1 << 30;
/// Most queries of a connection that wait or are computed: eight full frames.
pub const QUERIES_PER_CONNECTION_MAX: usize = 8_192;
const _: () = assert!(QUERIES_PER_FRAME_MAX as usize <= QUERIES_PER_CONNECTION_MAX);
/// Front-ends without waiting queries whose debts the schedule remembers. A debt is small.
pub const FRONT_ENDS_REMEMBERED_MAX: usize = 1_024;
/// Most queries of one batch. More gain nothing: arithmetic is the bound from 8 on.
pub const BATCH_QUERIES_PER_SCAN_MAX: usize = 32;
/// Queries that take as long as a scan of the shard: 13 with AMX, 8 with AVX-512 (bench/record).
pub const QUERIES_LIKE_A_SCAN: usize = 12;
/// Most queries of one call of a GPU's engine: 16 for each of 64 shards. The device is idle at the
/// ends of a call; one that answers only 2 000 a second takes half a second for it.
pub const GPU_CALL_QUERIES_MAX: usize = 1_024;
const _: () = assert!(BATCH_QUERIES_PER_SCAN_MAX <= GPU_CALL_QUERIES_MAX);
/// Most shards that wait for their upload to one device. For more of them the processor is sooner.
pub const UPLOADS_WAITING_MAX: usize = 4;
/// How long a shard whose upload failed is not uploaded again.
pub const UPLOAD_AGAIN_AFTER: Duration = Duration::from_secs(10);
/// How long a worker waits beside queries that it may not take before it looks again.
pub const LOOK_AGAIN_TIME: Duration = Duration::from_millis(10);
/// Shortest pause before a device that failed again is recreated. The first time there is none.
pub const RENEW_PAUSE_MIN: Duration = Duration::from_millis(100);
/// Longest such pause. A device that was reset is back soon after.
pub const RENEW_PAUSE_MAX: Duration = Duration::from_secs(30);
/// How often an engine runs its known-answer test, which takes less than 1 ms.
pub const PROVE_EVERY: Duration = Duration::from_secs(5);
/// How long an engine that passed it is trusted: three tests failed, or a call takes as long.
pub const PROVEN_WITHIN: Duration = Duration::from_secs(15);
const _: () = assert!(2 * PROVE_EVERY.as_secs() < PROVEN_WITHIN.as_secs());
/// An engine that takes so long for one call does not come back. No query waits for longer.
pub const HUNG_AFTER: Duration = DEADLINE_MAX;
// A failed device that waits to be recreated does not count as hung.
const _: () = assert!(RENEW_PAUSE_MAX.as_secs() < HUNG_AFTER.as_secs());

// Connections.
/// Most connections at once. Front-ends pool their users; each connection holds buffers.
pub const CONNECTIONS_MAX: usize = 256;
/// Most that may be asked for.
pub const CONNECTIONS_ASKED_MAX: usize = 16_384;
/// Most connections of a known front-end, or of one network where none is known: three of them
/// leave room for others.
pub const CONNECTIONS_PER_FRONT_END_MAX: usize = 64;
/// Most handshakes at once: two seconds of 500 a second. Then the oldest is displaced.
pub const HANDSHAKES_MAX: usize = 1_024;
/// How long a handshake may take.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Memory of one handshake, and for some seconds of one that was given up.
pub const HANDSHAKE_STATE_BYTES: u64 = 32 << 10;
/// Handshakes that were given up and that QUIC still remembers, which it does for 0.9 s.
pub const CLOSING_MAX: usize = 1_024;
/// Most first packets of handshakes that arrived and were not yet looked at.
pub const INCOMING_MAX: usize = 1_024;
/// Memory for what follows these packets until they are. That is at once.
pub const INCOMING_BYTES_MAX: u64 = 4 << 20;
/// Most request streams of all connections together: 32 of each.
pub const STREAMS_MAX: usize = 8_192;
/// The same where memory is short: 16 of each connection.
pub const STREAMS_LEAST: usize = 4_096;
/// Memory of one connection besides its windows: QUIC, TLS and tasks, about.
pub const CONNECTION_STATE_BYTES: u64 = 64 << 10;
/// Memory of one stream besides its request and its replies: QUIC and its task.
pub const STREAM_STATE_BYTES: u64 = 8 << 10;
/// Memory of one query of a frame besides its bytes and its answer, until its reply is sent.
pub const QUERY_STATE_BYTES: usize = 512;
/// Memory for requests that are read, of all connections: ten full frames.
pub const READ_BYTES_MAX: usize = 512 << 20;
/// Memory for answers that are computed or not yet sent, of all connections.
pub const ANSWER_BYTES_MAX: usize = 512 << 20;
/// Queries that one stream may have on the way: a round trip of 30 ms at 1 Gbit/s.
pub const WINDOW_QUERIES: usize = 64;
/// Smallest window where memory is short: a query in a round trip or two.
pub const WINDOW_BYTES_LEAST: u32 = 64 << 10;
/// Smallest window otherwise. Hints and parameters take a few round trips too.
pub const WINDOW_BYTES_MIN: u32 = 256 << 10;
/// Largest window of a connection, in each direction, at the largest shapes.
pub const WINDOW_BYTES_MAX: u32 = 8 << 20;
const _: () = assert!(WINDOW_BYTES_LEAST <= WINDOW_BYTES_MIN);
const _: () = assert!(WINDOW_BYTES_MIN <= WINDOW_BYTES_MAX);
/// Buffer of the server's socket in each direction: what arrives in 60 ms at 1 Gbit/s.
pub const SOCKET_BYTES: usize = 8 << 20;
/// A connection that asks nothing for so long may have to make room for another.
pub const QUIET_TIME: Duration = Duration::from_secs(1);
/// How long a connection may be silent.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
const _: () = assert!(QUIET_TIME.as_secs() < IDLE_TIMEOUT.as_secs());
/// How often the certificates of open connections are checked again, for they may expire.
pub const CERTIFICATE_CHECK_TIME: Duration = Duration::from_secs(10);
/// Largest share of a front-end, which is its weight beside the others: parts in a million.
pub const SHARE_MAX: u32 = 1_000_000;
/// Largest quota of a front-end. More than 100 TB/s is a typing error.
pub const QUOTA_MIB_PER_SECOND_MAX: u32 = 100_000_000;
/// A front-end within its quota may have what it gives in this time at once.
pub const QUOTA_BURST: Duration = Duration::from_secs(1);
/// Longest time that a reply waits until the quota of its front-end allows it.
pub const QUOTA_WAIT_MAX: Duration = Duration::from_secs(5);
const _: () = assert!(QUOTA_WAIT_MAX.as_secs() < ANSWER_TIMEOUT.as_secs());
/// How often the allocator is asked to give free memory back.
pub const GIVE_BACK_TIME: Duration = Duration::from_secs(10);
/// A server's bounds are one in so many parts of the machine's memory. The rest is for shards.
pub const MEMORY_SHARE_MAX: u64 = 2;
/// How long shutdown waits for what is in flight: the default deadline and some.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(15);
const _: () = assert!(DEADLINE_DEFAULT.as_secs() < DRAIN_TIMEOUT.as_secs());
/// How long shutdown waits for the call of each engine. A driver that hangs is left behind.
pub const ENGINES_LEAVE_TIMEOUT: Duration = Duration::from_secs(15);
/// How long shutdown waits until peers know of it.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// Lines of the log that wait for a slow reader, in bytes. The rest is lost.
pub const LOG_WAITING_BYTES_MAX: usize = 1 << 20;
/// How long a program that ends waits for the reader of its log.
pub const LOG_LEAVE_TIMEOUT: Duration = Duration::from_secs(1);

// Endpoints for the operator.
/// Most connections at once; then the oldest is ended. A burst ends no probe on its way.
pub const ADMIN_CONNECTIONS_MAX: usize = 256;
/// How long the head of a request may take to arrive. It is one packet.
pub const ADMIN_HEAD_TIME: Duration = Duration::from_secs(10);
/// Longest such head, in bytes. A browser's is shorter, with its cookies.
pub const ADMIN_HEAD_BYTES_MAX: usize = 16 << 10;
/// How long a connection may last, with the reload of a database.
pub const ADMIN_CONNECTION_TIME: Duration = Duration::from_secs(60);

// Epochs, reloads, scrub.
/// How long queries of an epoch are answered after the next one came: calls of clients end by then.
pub const OLD_EPOCH_TIME: Duration = Duration::from_secs(600);
/// Longest such time that an operator may set.
pub const OLD_EPOCH_TIME_MAX: Duration = Duration::from_secs(30 * 86_400);
/// Most epochs that are answered beside the newest. Each may have its own maps of every shard.
pub const OLD_EPOCHS_MAX: usize = 4;
/// How fast shards are read again by default: a hundredth of a core, 1 TiB in 18 hours.
pub const SCRUB_MIB_PER_SECOND: u32 = 16;
/// Pause between two rounds over all shards, so that a small database is not read all the time.
pub const SCRUB_PAUSE: Duration = Duration::from_secs(1);
/// Shortest pause within a round, so that the thread does not wake a thousand times a second.
pub const SCRUB_PAUSE_MIN: Duration = Duration::from_millis(50);
/// How often the metadata of the manifest's file is looked at by default.
pub const WATCH_TIME: Duration = Duration::from_secs(2);
/// Longest time between two looks that an operator may set.
pub const WATCH_TIME_MAX: Duration = Duration::from_secs(86_400);
/// Longest pause before a refused manifest is read again: late files are found, the log is short.
pub const RELOAD_PAUSE_MAX: Duration = Duration::from_secs(60);
/// Work on files that made no progress for so long is given up. A slow disk makes progress.
pub const FILE_PATIENCE: Duration = Duration::from_secs(30);
/// Most work on files at once, with what was given up and has not ended: a thread each.
pub const FILE_WORK_MAX: usize = 64;
/// Longest pause between two looks at a manifest whose file system hangs. Each takes a thread.
pub const HUNG_LOOK_PAUSE_MAX: Duration = Duration::from_secs(600);

// The client.
/// Most keys of one call, whose records wait for its last answer: 0.4 GB at the standard shape.
pub const KEYS_PER_CALL_MAX: usize = 1 << 20;
/// Most keys of a call that are encrypted at once: 430 MB of queries at the standard shape.
pub const KEYS_PER_PART_MAX: usize = 16_384;
/// Memory for hints: 7 700 standard shards.
pub const HINT_CACHE_BYTES: usize = 256 << 20;
/// Most request streams that a client has open at once: they hide a round trip.
pub const FRAMES_IN_FLIGHT_WANTED: u32 = 8;
const _: () = assert!(FRAMES_IN_FLIGHT_WANTED <= FRAMES_IN_FLIGHT_MAX);
/// Bytes of queries that a client puts in one frame, unless one query is larger.
pub const FRAME_BYTES_WANTED: usize = 1 << 20;
/// Queries below which a client does not split its queries to fill its streams.
pub const FRAME_QUERIES_WANTED: usize = 16;
/// Slowest way up over which all frames in flight arrive before the server gives up: a phone's.
pub const UPLINK_BITS_PER_SECOND_MIN: u64 = 8_000_000;
const _: () = assert!(
    FRAMES_IN_FLIGHT_WANTED as u64 * FRAME_BYTES_WANTED as u64 * 8
        <= UPLINK_BITS_PER_SECOND_MIN * STREAM_READ_TIMEOUT.as_secs()
);
/// How often a client sends one request, the first time included.
pub const ATTEMPTS_MAX: u32 = 8;
/// Shortest wait before a refused request is sent again, where the server names none.
pub const RETRY_WAIT_MIN: Duration = Duration::from_millis(20);
/// Longest such wait. A server that asks for more is out of service.
pub const RETRY_WAIT_MAX: Duration = Duration::from_secs(10);
const _: () = assert!(RETRY_WAIT_MIN.as_millis() < RETRY_WAIT_MAX.as_millis());
/// How long a client asks the other hosts of a shard before one that failed: with several hosts, a
/// connection to one that is dead costs half a second each time.
pub const HOST_AVOIDED_TIME: Duration = Duration::from_secs(30);
/// Failures of hosts that a client remembers, and of shards of them.
pub const GIVEN_UP_MAX: usize = 4_096;
/// How long a client tries to connect to one address: two round trips and their first losses.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a client waits for one address before it tries the next one too.
pub const CONNECT_STAGGER: Duration = Duration::from_millis(500);
/// The round trip before one is measured. A lost first packet is sent again after three of these,
/// not after QUIC's whole second; a server remembers a handshake that was given up for nine.
pub const FIRST_RTT: Duration = Duration::from_millis(100);
/// How often a client that hears nothing asks whether its server is still there.
pub const KEEP_ALIVE_INTERVAL: Duration = Duration::from_millis(400);
/// Silence, besides two round trips, after which a client gives a connection up: three keep-alives.
pub const SILENCE_MAX: Duration = Duration::from_millis(1_200);
const _: () = assert!(SILENCE_MAX.as_millis() == 3 * KEEP_ALIVE_INTERVAL.as_millis());
/// How long a call goes on without any server: a restart passes, a dead server is reported.
pub const UNREACHABLE_MAX: Duration = Duration::from_secs(30);
/// How long a client waits for the next reply on a stream: the default deadline and some.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
const _: () = assert!(DEADLINE_DEFAULT.as_secs() < ANSWER_TIMEOUT.as_secs());
/// A frame that brings nothing for this part of the time-out is hedged: one in so many.
pub const HEDGE_AFTER_PART: u32 = 4;
/// Most frames hedged at once: a quarter of a client's, so that hedges do not double a load.
pub const HEDGES_IN_FLIGHT_MAX: usize = 2;
const _: () = assert!(4 * HEDGES_IN_FLIGHT_MAX <= FRAMES_IN_FLIGHT_WANTED as usize);
/// Fewest expected records of a pack that a device accepts: the crowd towards its own front-end.
pub const RECORDS_PER_PACK_ACCEPTED_MIN: u64 = 49_152;
/// Hints of packs that a device holds: 9 MB at the standard shape.
pub const DEVICE_HINTS_MAX: usize = 2_048;
/// Queries of a sealed batch of a device, dummies among them.
pub const DEVICE_BATCH: usize = 16;
const _: () = assert!(DEVICE_BATCH <= QUERIES_PER_SECRET_MAX);
/// With so many shards or more the queries of a device's batch share a key bundle: sixteen contacts
/// in distinct shards are found easily then.
pub const SHARDS_FOR_ONE_BUNDLE: u32 = 64;
/// How long a whole call may take by default: 16 384 standard queries up at 5 Mbit/s.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(900);
/// Longest time that a call may be given: a server that trickles its replies holds nobody longer.
pub const CALL_TIMEOUT_MAX: Duration = Duration::from_secs(3_600);
/// Bundles of which a client remembers that they went over a connection: 2 MB of names.
pub const BUNDLES_REMEMBERED_MAX: usize = 16_384;
const _: () = assert!(BUNDLES_PER_CONNECTION as usize <= BUNDLES_REMEMBERED_MAX);

// The load generator.
/// Memory for queries that were made and not yet answered, by default: 40 000 standard ones.
pub const LOAD_BYTES: u64 = 1 << 30;
/// Most answers that are kept to be verified: 23 MB at the standard shape. The report says so.
pub const LOAD_ANSWERS_UNVERIFIED_MAX: usize = 1_024;
/// Most classes of errors in the report, so that a peer's words cannot fill it.
pub const LOAD_ERROR_CLASSES_MAX: usize = 32;
// The builder.
/// Most records of the demo's sample: gigabytes of text, and minutes.
pub const SAMPLE_RECORDS_MAX: u64 = 100_000_000;
/// Longest record of the input, in bytes as written. A quote that is never closed ends here.
pub const INPUT_RECORD_BYTES_MAX: usize = 1 << 20;
/// Memory for records on their way to partition files.
pub const PARTITION_BUFFER_BYTES: usize = 256 << 20;
/// Memory for shards that are built at the same time. A larger one is built alone.
pub const BUILD_MEMORY_BYTES: u64 = 1 << 30;
/// How often the builder widens the shape by 64 columns (docs/scheme.md, "Shapes").
pub const BUILD_WIDENINGS_MAX: u32 = 8;

// Discovery: identifiers, the directory, statements and records.
/// Most elements that are evaluated at once: as many as a padded frame has queries.
pub const BLINDED_ELEMENTS_MAX: usize = 1_024;
/// Largest file of a blinding key that is read. It has 58 bytes.
pub const BLIND_KEY_FILE_BYTES_MAX: u64 = 4_096;
/// Longest compact token, in bytes. A mapping with every claim at its longest has about 2 KiB.
pub const JWS_BYTES_MAX: usize = 4_096;
/// Longest name of a key in a header, in bytes: ours have 11, other issuers may use hashes.
pub const KEY_ID_BYTES_MAX: usize = 64;
/// The longest text that is looked at, in bytes: an address with marks of direction, or a number
/// with separators, is far shorter.
pub const IDENTIFIER_TEXT_BYTES_MAX: usize = 1_024;
/// The longest local part of an address, in bytes (RFC 5321, section 4.5.3.1.1).
pub const LOCAL_PART_BYTES_MAX: usize = 64;
/// The longest address, in bytes (RFC 5321, section 4.5.3.1.3, less the angle brackets).
pub const EMAIL_BYTES_MAX: usize = 254;
/// The most digits of a phone number (ITU-T E.164, section 6.2.1).
pub const NUMBER_DIGITS_MAX: usize = 15;
/// The longest record that is read, in bytes. The largest value field of a database has 2 040, and
/// sixteen services with handles fit in half of that.
pub const RECORD_BYTES_MAX: usize = 1_024;
const _: () = assert!(RECORD_BYTES_MAX < VALUE_BYTES_MAX as usize);
/// Most services of a record. Few people are at more, and each is a row on a screen.
pub const RECORD_SERVICES_MAX: usize = 16;
/// Most days for which a record may hold, as for the signature of a database.
pub const RECORD_LIFETIME_DAYS_MAX: u32 = 366;
/// Longest `jti`, in bytes: more than a UUID or a hash has.
pub const JTI_BYTES_MAX: usize = 64;
/// Most tags of a mapping. A record repeats them.
pub const MAPPING_TAGS_MAX: usize = 8;
/// Longest tag, in bytes.
pub const TAG_BYTES_MAX: usize = 16;
/// Longest validity of a mapping: a number is proved again about once a year.
pub const MAPPING_SECONDS_MAX: u64 = 400 * 86_400;
/// The same in seconds, for whoever signs a directory, a statement or a record.
pub const CLOCK_AHEAD_SECONDS_MAX: u64 = CLOCK_DIFFERENCE_MAX.as_secs();
/// Age of the proof of a mapping whose purpose is a preference: it was made for this purpose.
pub const FRESH_PROOF_SECONDS_MAX: u64 = 3_600;
/// Longest SSI, in bytes: a record has room for three.
pub const SSI_BYTES_MAX: usize = 128;
/// Most root keys, and most signatures that are looked at: people who meet for a ceremony.
pub const DIRECTORY_ROOTS_MAX: usize = 16;
/// Most keys of an issuer or a database: one a month for years.
pub const DIRECTORY_KEYS_MAX: usize = 64;
/// Most prefixes of a remit or a database, which are compared one after the other: more than there
/// are country codes.
pub const REMIT_PREFIXES_MAX: usize = 512;
/// Most endpoints of a database.
pub const DATABASE_ENDPOINTS_MAX: usize = 64;
/// Longest name of a region, in bytes: `EU`, `eu-west-1`.
pub const REGION_BYTES_MAX: usize = 16;
/// Longest name of a provider, in bytes, which devices show in one line.
pub const PROVIDER_NAME_BYTES_MAX: usize = 64;
/// Longest URL of a key service, in bytes.
pub const KEYS_URL_BYTES_MAX: usize = 256;
/// Largest file of a directory. A thousand providers, issuers and databases fit.
pub const DIRECTORY_BYTES_MAX: usize = 256 << 10;
/// Longest time for which a directory holds, in seconds: who withholds newer ones wins a month.
pub const DIRECTORY_SECONDS_MAX: u64 = 30 * 86_400;
/// Largest file of JSON in the work folder of `sotto records make`.
pub const WORK_FILE_BYTES_MAX: u64 = 1 << 20;
/// How long `sotto records make` may go on with the time of a run that was interrupted, in seconds.
pub const MERGE_RESUME_SECONDS_MAX: u64 = 86_400;
/// Lines of statements that are in memory at once, in bytes. They keep all cores busy for about a
/// second.
pub const MERGE_CHUNK_BYTES: usize = 8 << 20;
/// Memory for accepted statements on their way to the files of buckets.
pub const MERGE_BUFFER_BYTES: usize = 64 << 20;
/// Input of a bucket, which is in memory at once, decoded: about three times as much. Unit tests
/// have several buckets of small inputs.
pub const MERGE_BUCKET_INPUT_BYTES: u64 = if cfg!(test) { 64 << 10 } else { 64 << 20 };
/// Most buckets: each has two files open when they are put together.
pub const MERGE_BUCKETS_MAX: u64 = 256;
/// Fewest bytes of the value field: one service with its preference fits.
pub const RECORD_VALUE_BYTES_MIN: usize = 212;
// HTTPS of the relay and the front-end.
/// Longest head of a request or a reply, and what is read of a connection at once: heads here have
/// less than 1 KiB, and an idle connection keeps a buffer of half of this.
pub const HTTPS_HEAD_BYTES_MAX: usize = 16 << 10;
/// Bytes of a reply that TLS has encrypted and the peer has not taken yet: two TLS records.
pub const HTTPS_TLS_BYTES_MAX: usize = 32 << 10;
/// How long a connection gets further requests: so long may a client certificate that expired, or
/// an address that moved, go on.
pub const HTTPS_CONNECTION_TIME_MAX: Duration = Duration::from_secs(3_600);
/// Idle connections that a client keeps to one server.
pub const HTTPS_CLIENT_IDLE_MAX: usize = 64;
/// How long a client keeps an idle connection: less than servers do, so that a request seldom
/// meets one that is just being closed.
pub const HTTPS_CLIENT_IDLE_TIME: Duration = Duration::from_secs(20);
/// How long one address of a host may take to be connected to before the next is tried.
pub const HTTPS_CONNECT_TIME: Duration = Duration::from_secs(5);

// Sealed requests of devices.
/// Longest body of a sealed request for evaluation, in bytes: 16 elements of 32 bytes, the name of
/// a database, and what sealing adds; the rest of it is room for later fields.
pub const EVALUATE_BODY_BYTES_MAX: usize = 4 << 10;
/// Longest body of a sealed look-up, in bytes: 16 key bundles of 36 KB and 16 queries of 26 KB.
pub const LOOKUP_BODY_BYTES_MAX: usize = 1_572_864;
/// Longest header section of a sealed message, in bytes. It has three short fields; without a bound
/// a body of empty fields would grow into structs forty times its size.
pub const SEALED_FIELDS_BYTES_MAX: usize = 1 << 10;
/// Longest path of a sealed request, in bytes: that of a key service's user, a URI of at most 256
/// bytes of which some are written with three.
pub const SEALED_PATH_BYTES_MAX: usize = 512;
/// Room in a look-up before it is sealed for what is not its queries: the path has a database's
/// name of at most 64 bytes.
pub const SEALED_LOOKUP_FIELDS_BYTES: usize = 128;
/// Most keys of a signed list of OHTTP keys: the newest, the one before it, and one that another
/// process of the front-end has just made.
pub const OHTTP_KEYS_MAX: usize = 4;
/// Longest signed list of OHTTP keys, in bytes: four keys have about 500.
pub const OHTTP_KEYS_BYTES_MAX: usize = 4 << 10;
/// Longest time that a signed list of OHTTP keys may hold: a week until the next key, and the two
/// days for which the one before it is accepted.
pub const OHTTP_KEYS_SECONDS_MAX: u64 = 9 * 86_400;
const _: () = assert!(LOOKUP_BODY_BYTES_MAX > EVALUATE_BODY_BYTES_MAX);
// Routing filters and contacts.
/// Largest routing filter that a device loads, in bytes: 3.7 million records. A larger one costs
/// more bytes than the look-ups that it saves.
pub const FILTER_DEVICE_BYTES_MAX: u64 = 4 << 20;
/// Most records of a routing filter. A place in it is a number of 32 bits, and making it takes some
/// 34 bytes of memory a record.
pub const FILTER_RECORDS_MAX: u64 = 1 << 31;
/// Largest routing filter that a front-end loads, in bytes: the most records, 9.1 bits each.
pub const FILTER_BYTES_MAX: u64 = FILTER_RECORDS_MAX / 80 * 91 + (1 << 20);
/// Longest first line of a routing filter, in bytes. One with the longest name of a database has
/// about 450.
pub const FILTER_HEADER_BYTES_MAX: usize = 1_024;
/// Longest segment of a routing filter: the construction never makes a longer one.
pub const FILTER_SEGMENT_LENGTH_MAX: u32 = 1 << 18;
/// Largest file of contacts that is read, in bytes. Photos are most of a large one.
pub const CONTACTS_BYTES_MAX: u64 = 64 << 20;
/// Most contacts of a file, ten times as many as any address book that we heard of.
pub const CONTACTS_MAX: usize = 100_000;
/// Most bytes of one contact's names, numbers and addresses that are looked at. What comes after is
/// counted and left out, so that a file that is one large contact takes little memory.
pub const CONTACT_BYTES_MAX: usize = 64 << 10;
/// Longest name of a contact that is kept, in bytes: a line of a terminal or two.
pub const CONTACT_NAME_BYTES_MAX: usize = 256;
// The device's resolver.
/// Earliest time after which a batch is due again, in seconds: a week, as quotas and cost are
/// planned.
pub const DUE_SECONDS_MIN: u64 = 7 * 86_400;
/// Latest time after which a batch is due again, in seconds. Records hold for 30 days, so that two
/// look-ups may fail before a contact is lost.
pub const DUE_SECONDS_MAX: u64 = 14 * 86_400;
/// Latest time to which a batch is put off whose time has come together with that of another one,
/// in seconds. Within a day, what a device sends is not told apart from what others send.
pub const PUT_OFF_SECONDS_MAX: u64 = 86_400;
/// Most new batches that a synchronisation of a device sends; the rest remain due. Their answers
/// wait for the last one, some 40 MB at the standard shape, and the default quota of a relay is as
/// much.
pub const SYNC_BATCHES_MAX: usize = 128;
/// How long a synchronisation may send: as long as a call of the client.
pub const SYNC_TIME_MAX: Duration = Duration::from_secs(900);
/// Look-ups of a device on their way at once: they hide round trips, and each has half a megabyte.
pub const DEVICE_LOOKUPS_IN_FLIGHT: usize = 4;
/// How long a device waits for the reply to one request: half a megabyte at 256 kbit/s, and the
/// deadline of the look-up.
pub const DEVICE_REQUEST_TIMEOUT: Duration = Duration::from_secs(45);
/// How often a device sends a request that the front-end refuses for now. The relay counts each of
/// them, so an outage takes three times its share of a quota at most.
pub const DEVICE_COUNTED_ATTEMPTS_MAX: u32 = 3;
/// Shortest wait of a device before it sends a request again that had no reply; it doubles. Unit
/// tests do not wait for it.
pub const DEVICE_RETRY_WAIT_MIN: Duration = Duration::from_millis(if cfg!(test) { 1 } else { 100 });
/// Largest file with the state of a device: the most contacts with a record in two databases.
pub const DEVICE_STATE_BYTES_MAX: u64 = 256 << 20;
/// Longest reply of a relay that tells of an error, in bytes.
pub const RELAY_ERROR_BYTES_MAX: usize = 4 << 10;
/// How long an account waits whose relay names no time with 429.
pub const QUOTA_WAIT_DEFAULT: Duration = Duration::from_secs(3_600);
/// Largest file that `sotto resolve` reads: the authorities of a system have some 250 kB.
pub const RESOLVE_FILE_BYTES_MAX: u64 = 4 << 20;
// The relay.
/// What one request counts as: the elements or the queries that it always has.
pub const RELAY_REQUEST_ITEMS: u32 = 16;
/// Most items that a quota may have, at once or a day. More than a million is a typing error.
pub const QUOTA_ITEMS_MAX: u32 = 1_000_000;
/// Longest request for evaluations, in bytes: 16 elements, sealed, are below 1 KiB.
pub const RELAY_EVALUATE_BYTES_MAX: usize = 4 << 10;
/// Longest request for look-ups, in bytes: 16 queries and 16 key bundles of the largest shape.
pub const RELAY_LOOKUP_BYTES_MAX: usize = 1_572_864;
/// Shortest request for look-ups, in bytes: longer than any evaluation, which so cannot pass as
/// one.
/// The smallest queries there are have 9 KiB. Unit tests send a few bytes.
pub const RELAY_LOOKUP_BYTES_MIN: usize = if cfg!(test) { 1 } else { RELAY_EVALUATE_BYTES_MAX + 1 };
/// Longest reply of a front-end to evaluations, in bytes: 16 elements and a proof, sealed.
pub const RELAY_EVALUATE_REPLY_BYTES_MAX: usize = 16 << 10;
/// Longest reply of a front-end to look-ups: 16 answers of all packs with hints have half of it.
pub const RELAY_LOOKUP_REPLY_BYTES_MAX: usize = 4 << 20;
/// Memory for bodies on their way, from devices and to them, by default: 400 usual look-ups.
pub const RELAY_MEMORY_BYTES: usize = 256 << 20;
/// What a request takes of this memory beside its body, at least.
pub const RELAY_REQUEST_BYTES: usize = 16 << 10;
/// Most requests that wait for the front-end at once by default.
pub const RELAY_FORWARDS_MAX: usize = 256;
/// Most requests that wait for one key service at once: one that hangs leaves places for others.
pub const RELAY_KEY_SERVICE_FORWARDS_MAX: usize = 32;
/// Most requests of one account at once. A device sends one after the other or a few.
pub const RELAY_ACCOUNT_REQUESTS_MAX: u32 = 8;
/// How long a front-end may take: the deadline of its queries and some.
pub const RELAY_FORWARD_TIME: Duration = Duration::from_secs(20);
const _: () = assert!(RELAY_FORWARD_TIME.as_secs() > ANSWER_TIMEOUT.as_secs());
/// How long the rest of a refused request is read, so that its sender sees the refusal.
pub const RELAY_DRAIN_TIME: Duration = Duration::from_secs(30);
/// How long a request waits until its quota is looked at. A disk that hangs takes longer.
pub const RELAY_QUOTA_TIME: Duration = Duration::from_secs(1);
/// Most quotas that are looked at at once: each takes a thread while the disk is asked.
pub const RELAY_QUOTA_THREADS: usize = 32;
/// How often quotas are written: a crash forgets at most what was counted since.
pub const QUOTA_WRITE_TIME: Duration = Duration::from_secs(1);
/// How often accounts are forgotten whose buckets are empty.
pub const QUOTA_SWEEP_TIME: Duration = Duration::from_secs(86_400);
/// Accounts whose buckets are in memory: those of the last second, more if the disk is full.
pub const QUOTA_ACCOUNTS_IN_MEMORY_MAX: usize = 1 << 18;
/// Memory for pages of the file of quotas.
pub const QUOTA_CACHE_BYTES: usize = 16 << 20;
/// Longest token of an account, in bytes. One with many claims has 2 KiB.
pub const ACCOUNT_TOKEN_BYTES_MAX: usize = 4_096;
/// Longest name of an account, in bytes: longer than a UUID, a URL or an address.
pub const ACCOUNT_NAME_BYTES_MAX: usize = 256;
/// How far clocks of a token's issuer and of the relay may differ, in seconds.
pub const ACCOUNT_CLOCK_SECONDS: u64 = 60;
/// Largest file of keys that verify tokens.
pub const JWKS_BYTES_MAX: u64 = 64 << 10;
/// Most keys in it: a new one a week for a year.
pub const JWKS_KEYS_MAX: usize = 64;
/// How long the answer about a token may be used again, in seconds.
pub const INTROSPECTION_SECONDS_MAX: u64 = 60;
/// Most such answers that are remembered: 10 MB at the longest names.
pub const INTROSPECTIONS_REMEMBERED_MAX: usize = 16_384;
/// Most questions about tokens at once.
pub const INTROSPECTIONS_MAX: usize = 64;
/// How long the answer about a token may take. The device waits.
pub const INTROSPECTION_TIME: Duration = Duration::from_secs(5);
/// Longest answer about a token, in bytes.
pub const INTROSPECTION_BYTES_MAX: usize = 64 << 10;
/// How long a relay gives the same public file to everybody before it asks again, in seconds.
pub const PUBLIC_SECONDS: u64 = 60;
/// Largest public file: a filter of 3.7 million records has 4 MiB.
pub const PUBLIC_BYTES_MAX: usize = 5 << 20;
/// Most public files of all databases that are kept.
pub const PUBLIC_FILES_MAX: usize = 256;
/// Memory for them: a dozen filters of the largest size.
pub const PUBLIC_MEMORY_BYTES: usize = 64 << 20;
/// Most of them that are fetched at once.
pub const PUBLIC_FETCHES_MAX: usize = 8;
/// Most connections of devices by default. An idle one takes some tens of KiB.
pub const RELAY_CONNECTIONS_MAX: usize = 4_096;
/// Most handshakes with devices at once.
pub const RELAY_HANDSHAKES_MAX: usize = 512;
/// How long a handshake with a device may take: a few round trips of a bad network.
pub const RELAY_HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// How long the head of a request may take. It is one packet.
pub const RELAY_HEAD_TIME: Duration = Duration::from_secs(10);
/// How long a device may keep a connection without a request.
pub const RELAY_IDLE_TIME: Duration = Duration::from_secs(120);
/// How long a body may take: the longest one at 200 kbit/s.
pub const RELAY_BODY_TIME: Duration = Duration::from_secs(60);
// The front-end's pool of answer servers.
/// Largest placement file that is read: some thousands of servers.
pub const PLACEMENT_BYTES_MAX: u64 = 1 << 20;
/// Most answer servers of one database: more than a database has copies of its shards.
pub const SERVERS_PER_DATABASE_MAX: usize = 256;
/// Largest file of canaries that is read: ten thousands of keys.
pub const CANARIES_BYTES_MAX: u64 = 4 << 20;
/// How long queries of devices are collected before they go out in random order. Longer hides no
/// more where there are many devices, and every look-up waits for it.
pub const MIX_TIME: Duration = Duration::from_millis(50);
/// Most queries that are collected; then they go out at once. They fill a frame of the longest.
pub const MIX_QUERIES_MAX: usize = QUERIES_PER_FRAME_MAX as usize;
/// Memory for look-ups in flight by default: six hundred of the standard shape.
pub const POOL_MEMORY_BYTES: u64 = 1 << 30;
/// Memory for hints by default: those of 14 000 shards of the standard shape.
pub const POOL_HINT_BYTES: usize = 512 << 20;
/// Frames that one answer server is sent at once. With key bundles and hints they stay below the
/// streams that a server grants.
pub const POOL_FRAMES_IN_FLIGHT: usize = 32;
/// Key bundles that one answer server is sent at once.
pub const POOL_BUNDLES_IN_FLIGHT: usize = 32;
/// Requests for hints that one answer server is sent at once.
pub const POOL_HINTS_IN_FLIGHT: usize = 8;
const _: () = assert!(
    POOL_FRAMES_IN_FLIGHT + POOL_BUNDLES_IN_FLIGHT + POOL_HINTS_IN_FLIGHT
        < FRAMES_IN_FLIGHT_MAX as usize
);
/// Hints of one request: 2 MB at the standard shape, so that one slow reply holds few look-ups.
pub const POOL_HINTS_PER_REQUEST: usize = 64;
const _: () = assert!(POOL_HINTS_PER_REQUEST <= HINTS_PER_REQUEST_MAX as usize);
/// Epochs of a database whose queries are passed on: as many as an answer server answers.
pub const POOL_EPOCHS_MAX: usize = OLD_EPOCHS_MAX + 1;
/// How often the parameters of each answer server are fetched.
pub const POOL_REFRESH_TIME: Duration = Duration::from_secs(10);
/// How often a server that is not healthy is tried again.
pub const POOL_RETRY_TIME: Duration = Duration::from_secs(1);
/// Shortest time between two fetches of parameters from one server, whatever devices ask.
pub const POOL_REFRESH_PAUSE: Duration = Duration::from_millis(250);
/// How long connecting to a server and fetching its parameters may take.
pub const POOL_REFRESH_TIMEOUT: Duration = Duration::from_secs(5);
/// Failures in a row after which a server counts as unhealthy.
pub const POOL_FAILURES_MAX: u32 = 3;
/// How long a query waits for a healthy server before it looks again.
pub const POOL_LOOK_AGAIN_TIME: Duration = Duration::from_millis(100);
/// When a device is to ask again where no server answered.
pub const POOL_RETRY_AFTER: Duration = Duration::from_secs(1);
/// How much longer than its deadline a look-up waits for what is on its way.
pub const POOL_DEADLINE_GRACE: Duration = Duration::from_secs(1);
/// Mean time between two canaries of a database by default.
pub const CANARY_MEAN: Duration = Duration::from_secs(10);
/// Longest such mean: a server that lies is to be found on the same day.
pub const CANARY_MEAN_MAX: Duration = Duration::from_secs(3_600);
/// Two wrong answers among so many canary queries take a server out. By chance one is INVALID once
/// in 2^17 at the worst usual shape, so two so close to each other are once in years.
pub const CANARY_WINDOW: u64 = 256;
/// Canaries in a row that a server which was taken out has to answer right.
pub const CANARIES_RIGHT_TO_RETURN: u32 = 10;
/// Random keys that are drawn for one canary before it makes do with fewer distinct shards.
pub const CANARY_DRAWS_MAX: usize = 10_000;
// The front-end as a gateway.
/// How long a key of Oblivious HTTP is given to devices: keys are named by weeks since 1970.
pub const OHTTP_KEY_SECONDS: u64 = 7 * 86_400;
/// How much longer it opens requests: devices and relays may hold an older list of keys, and phones
/// are offline over a weekend.
pub const OHTTP_KEY_GRACE_SECONDS: u64 = 48 * 3_600;
// A signed list holds from the beginning of its week until its key opens nothing any more.
const _: () = assert!(OHTTP_KEY_SECONDS + OHTTP_KEY_GRACE_SECONDS <= OHTTP_KEYS_SECONDS_MAX);
/// Largest file of such a key that is read. It has one line of 60 bytes.
pub const OHTTP_KEY_FILE_BYTES_MAX: u64 = 256;
/// How often the time is compared with the week of the keys, and whether the folder of keys is
/// still usable.
pub const OHTTP_KEYS_LOOK_TIME: Duration = Duration::from_secs(30);
/// Shortest time, in seconds, between two readings of the folder for a request with an unknown key:
/// another process may just have made it, and no stranger may have the folder read all the time.
pub const OHTTP_KEYS_LOOK_AGAIN_SECONDS: u64 = 2;
/// What a request counts as against its relay: the elements or queries that it always has.
pub const RELAY_REQUEST_COUNT: u64 = 16;
/// Largest file of relays that is read: some ten thousand lines.
pub const RELAYS_BYTES_MAX: u64 = 1 << 20;
/// Most relays of a front-end.
pub const RELAYS_MAX: usize = 10_000;
/// Most evaluations or look-ups that a relay may be allowed in a day: more than one of a billion
/// devices needs, and small enough for the arithmetic of its buckets.
pub const RELAY_A_DAY_MAX: u64 = 1_000_000_000_000;
/// The part of a day's requests that a relay may send at once: an hour's worth.
pub const RELAY_BURST_PARTS: u64 = 24;
/// Memory for requests and replies of relays by default; look-ups have the pool's beside it.
pub const FRONT_END_MEMORY_BYTES: usize = 512 << 20;
/// What a request takes of this memory beside its body, at least.
pub const FRONT_END_REQUEST_BYTES: usize = 64 << 10;
/// How often a body is there at once: sealed, opened, and as its message.
pub const FRONT_END_BODY_COPIES: usize = 3;
/// Most evaluations that wait for another front-end at once.
pub const EVALUATIONS_PASSED_ON_MAX: usize = 256;
/// How long another front-end may take for one. The relay waits for 20 s.
pub const EVALUATION_TIME: Duration = Duration::from_secs(10);
/// After how many seconds a device is to ask again when there was no room or nobody to answer.
pub const FRONT_END_RETRY_SECONDS: u32 = 1;
/// Largest routing filter that is given to devices, in bytes: 4 MiB and its header, which is what
/// devices load.
pub const FRONT_END_FILTER_BYTES_MAX: u64 = (4 << 20) + (1 << 10);
/// Most connections of relays and of those who fetch public files, by default.
pub const FRONT_END_CONNECTIONS_MAX: usize = 1_024;
/// Most handshakes at once.
pub const FRONT_END_HANDSHAKES_MAX: usize = 256;
/// How long a handshake may take.
pub const FRONT_END_HANDSHAKE_TIME: Duration = Duration::from_secs(5);
/// How long the head of a request may take to arrive.
pub const FRONT_END_HEAD_TIME: Duration = Duration::from_secs(5);
/// How long a connection may be idle: longer than clients of ours keep one.
pub const FRONT_END_IDLE_TIME: Duration = Duration::from_secs(60);
const _: () = assert!(FRONT_END_IDLE_TIME.as_secs() > HTTPS_CLIENT_IDLE_TIME.as_secs());
/// How long a body may take to arrive, and a reply to be taken: relays are well connected.
pub const FRONT_END_BODY_TIME: Duration = Duration::from_secs(15);
// The front-end as the client of the answer servers (`--resolve`).
/// Most contacts of one request, which relays and front-ends count as so many.
pub const RESOLVE_CONTACTS_MAX: usize = RELAY_REQUEST_COUNT as usize;
/// A request is padded to steps of so many bytes: one number takes one step, sixteen take two.
pub const RESOLVE_STEP_BYTES: usize = 256;
/// Longest request before it is sealed: a step less than relays take for an evaluation.
pub const RESOLVE_MESSAGE_BYTES_MAX: usize = EVALUATE_BODY_BYTES_MAX - RESOLVE_STEP_BYTES;
/// Length of what is said of one contact: a record of the usual value field of 248 bytes in
/// base64url, with room to spare. A record beyond 350 bytes does not fit.
pub const RESOLVE_RESULT_BYTES: usize = 512;
const _: () = assert!(
    RESOLVE_CONTACTS_MAX * (RESOLVE_RESULT_BYTES + 1) + SEALED_FIELDS_BYTES_MAX
        < RELAY_EVALUATE_REPLY_BYTES_MAX
);
/// Longest reason that is said of a contact, in bytes.
pub const RESOLVE_DETAIL_BYTES_MAX: usize = 200;
/// How long an answer is kept, in seconds, whatever it was: who has just registered is found within
/// a day, and asking for the same all the time costs one look-up a day.
pub const RESOLVE_KEPT_SECONDS: u64 = 86_400;
/// Memory for answers by default: some hundred thousand.
pub const RESOLVE_CACHE_BYTES: usize = 64 << 20;
/// What an answer takes of it: a record that fits into a reply, and what leads to it.
pub const RESOLVE_ENTRY_BYTES: usize = 192 + RESOLVE_RESULT_BYTES;
/// Most look-ups that are encrypted together: some 100 ms of a core.
pub const RESOLVE_ROUND_QUERIES_MAX: usize = 16 * QUERIES_PER_SECRET_MAX;
