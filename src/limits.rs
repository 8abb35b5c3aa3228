//! Every bound of the program, each with its reason. Nothing else in the tree invents one.
//!
//! A bound says how much of something one peer, one file or one operator may make us hold. What a
//! bound refuses is refused before memory is taken for it, with a message that names the bound.
//!
//! | bound | value | why |
//! |---|---|---|
//! | [`COLUMNS_MAX`] | 26 048 | noise: 12/18 bits carry 26 000; the rule stops at 20 000 |
//! | [`COLUMNS_MIN`] | 192 | a band is 128 columns wide; below 192 the ribbon has no slack |
//! | [`VALUE_BYTES_MAX`] | 2 040 | tag and value fit the rows of one large pack |
//! | [`KEY_BYTES_MAX`] | 1 024 | an email address is at most 254 bytes, a phone number 16 |
//! | [`PACKS_MAX`] | 64 | 131 072 rows: four times what the shape rule asks for |
//! | [`SHARDS_MAX`] | 65 000 | one map a shard, and Linux allows 65 530 maps by default |
//! | [`RECORDS_PER_SHARD_ACCEPTED_MIN`] | 64 000 | 2^16 a shard, and the emptiest of all has less |
//! | [`DATABASE_NAME_BYTES_MAX`] | 64 | docs/wire.md, "Messages" |
//! | [`CLOCK_DIFFERENCE_MAX`] | 5 min | how far an operator's clock may be ahead of a client's |
//! | [`EXPIRES_DAYS_DEFAULT`] | 30 | a signature: monthly renewal, old content passes no longer |
//! | [`EXPIRES_DAYS_MAX`] | 366 | a signature good for longer says nothing about today |
//! | [`DOUBLING_INTERVAL`] | 365 days | each doubling tells a server one more bit of a key's hash |
//! | [`PINS_BYTES_MAX`] | 64 KiB | a file of pins: its largest is below 1 KiB |
//! | [`QUERIES_PER_FRAME_MAX`] | 1 024 | padded frame: docs/scheme.md, "What an observer learns" |
//! | [`FRAMES_IN_FLIGHT_MAX`] | 128 | streams of a connection: a front-end's many users |
//! | [`BUNDLES_PER_CONNECTION`] | 64 | one padded frame of 1 024 at 16 queries a bundle |
//! | [`BUNDLE_CACHE_BYTES`] | 512 MiB | 20 000 large bundles: some seconds of fresh secrets |
//! | [`QUEUED_QUERY_BYTES_MAX`] | 1 GiB | queries waiting for an engine, each with its bundle |
//! | [`LATENCY_TARGET`] | 1 s | what an answer may take, half of it waiting to be batched |
//! | [`FRONT_ENDS_REMEMBERED_MAX`] | 1 024 | who have had more than their share; debts are small |
//! | [`QUERIES_PER_CONNECTION_MAX`] | 8 192 | eight full frames of one connection, or many small |
//! | [`GPU_CALL_QUERIES_MAX`] | 1 024 | 16 for each of 64 shards; 17 ms of 60 000 a second |
//! | [`UPLOADS_WAITING_MAX`] | 4 | shards in line for a device: the processor is sooner than more |
//! | [`UPLOAD_AGAIN_AFTER`] | 10 s | a shard that could not be uploaded is not tried at once |
//! | [`LOOK_AGAIN_TIME`] | 10 ms | how old an estimate of a worker without work may be |
//! | [`RENEW_PAUSE_MIN`] | 100 ms | a device that fails twice in a row is left alone for so long |
//! | [`RENEW_PAUSE_MAX`] | 30 s | pauses double up to this: a reset device is back soon after |
//! | [`READ_BYTES_MAX`] | 512 MiB | requests being read, all together: ten full frames |
//! | [`ANSWER_BYTES_MAX`] | 512 MiB | answers of all connections, computed or not yet sent |
//! | [`WINDOW_QUERIES`] | 64 | on the way on one stream: a round trip of 30 ms at 1 Gbit/s |
//! | [`WINDOW_BYTES_MIN`] | 256 KiB | hints and parameters, too, go in a few round trips |
//! | [`WINDOW_BYTES_LEAST`] | 64 KiB | with little memory: a query in a round trip or two |
//! | [`WINDOW_BYTES_MAX`] | 8 MiB | a connection's, in each direction, at the largest shapes |
//! | [`SOCKET_BYTES`] | 8 MiB | what comes in 60 ms at 1 Gbit/s while nobody reads the socket |
//! | [`CONNECTION_STATE_BYTES`] | 64 KiB | QUIC, TLS and tasks of one connection, about |
//! | [`HANDSHAKE_STATE_BYTES`] | 32 KiB | the same of a handshake, and of one that was given up |
//! | [`CLOSING_MAX`] | 1 024 | QUIC remembers a handshake for 0.9 s after it was given up |
//! | [`INCOMING_MAX`] | 1 024 | first packets that arrived and were not yet looked at |
//! | [`INCOMING_BYTES_MAX`] | 4 MiB | what follows them meanwhile; they are looked at at once |
//! | [`STREAMS_MAX`] | 8 192 | streams of all connections: 32 of each |
//! | [`STREAMS_LEAST`] | 4 096 | with little memory: sixteen of each connection |
//! | [`STREAM_STATE_BYTES`] | 8 KiB | QUIC and the task of one stream, and what it asks for |
//! | [`QUERY_STATE_BYTES`] | 512 | what is remembered of a query until its reply is sent |
//! | [`GIVE_BACK_TIME`] | 10 s | how often the allocator may be told to keep nothing |
//! | [`GIVE_BACK_BYTES`] | 32 MiB | freed since then: less is soon used again |
//! | [`MEMORY_SHARE_MAX`] | 2 | a server takes half the machine: the rest keeps shards in memory |
//! | [`RETRY_AFTER_MIN`] | 50 ms | coming back sooner only adds to the load |
//! | [`RETRY_AFTER_MAX`] | 5 s | half the default deadline: a try again still makes sense |
//! | [`FRAME_OVERHEAD_BYTES`] | 256 | tags, lengths, nonce, uid and numbers around one query |
//! | [`REPLY_OVERHEAD_BYTES`] | 1 KiB | the same around one reply, with a `detail` for a person |
//! | [`PARAMETERS_REPLY_BYTES_MAX`] | 1.6 MiB | before a client knows the shape: 24 bytes a shard |
//! | [`NONCE_BYTES_MAX`] | 32 | docs/wire.md, "Messages" |
//! | [`HINTS_PER_REQUEST_MAX`] | 1 024 | as many shards as one padded frame can name |
//! | [`CONNECTIONS_MAX`] | 256 | front-ends pool their users; each holds stream buffers |
//! | [`HANDSHAKES_MAX`] | 1 024 | two seconds of 500 a second; then the oldest goes |
//! | [`QUIET_TIME`] | 1 s | who asks nothing for so long may lose its place to others |
//! | [`CERTIFICATE_CHECK_TIME`] | 10 s | a client's certificate that expires ends its connection |
//! | [`QUOTA_WAIT_MAX`] | 5 s | a reply waits so long for its quota, then QUOTA is the answer |
//! | [`CONNECTIONS_PER_FRONT_END_MAX`] | 64 | some machines of one; three leave room |
//! | [`SHARE_MAX`] | 1 000 000 | a front-end's weight beside others: parts in a million |
//! | [`QUOTA_MIB_PER_SECOND_MAX`] | 100 000 000 | 100 TB/s: a quota beyond is a slip of the pen |
//! | [`QUOTA_BURST`] | 1 s | what a quota gives in this time may be had at once |
//! | [`STREAM_READ_TIMEOUT`] | 10 s | a request that trickles in is given up alone |
//! | [`STREAM_WRITE_TIMEOUT`] | 10 s | a peer that does not read its answers is given up alone |
//! | [`STREAM_SEND_TIME_MAX`] | 60 s | a slow reader holds a frame's answers: 30 MB at 4 Mbit/s |
//! | [`HANDSHAKE_TIMEOUT`] | 5 s | a handshake holds a place before its peer has shown an address |
//! | [`KEEP_ALIVE_INTERVAL`] | 0.4 s | three of these and a new connection take less than 2 s |
//! | [`SILENCE_MAX`] | 1.2 s | three keep-alives unanswered: the server or the network is dead |
//! | [`IDLE_TIMEOUT`] | 60 s | a connection that says nothing |
//! | [`DEADLINE_DEFAULT`] | 10 s | for queries that name none: two cold scans of a large shard |
//! | [`DEADLINE_MAX`] | 60 s | longer waiting is a queue that should have refused |
//! | [`DRAIN_TIMEOUT`] | 15 s | what is in flight at shutdown gets the default deadline and some |
//! | [`ENGINES_LEAVE_TIMEOUT`] | 15 s | a call under way; a driver that hangs is left behind |
//! | [`CLOSE_TIMEOUT`] | 1 s | how long leaving waits for peers to take note of it |
//! | [`PROVE_EVERY`] | 5 s | how often an engine runs its known-answer test: under 1 ms each |
//! | [`PROVEN_WITHIN`] | 15 s | three times in a row were not right, or a call takes as long |
//! | [`HUNG_AFTER`] | 60 s | the longest a query may wait: a call that takes longer has hung |
//! | [`ADMIN_SILENT_MAX`] | 256 | silent ones cost little; a burst displaces no probe on its way |
//! | [`ADMIN_HEAD_TIME`] | 10 s | a request's head is one packet |
//! | [`ADMIN_HEAD_BYTES_MAX`] | 16 KiB | a browser's are shorter, cookies included |
//! | [`ADMIN_REQUESTS_MAX`] | 32 | scrapers, and some people with a browser; probes besides |
//! | [`ADMIN_CONNECTION_TIME`] | 60 s | what one of them may take, with the reload of a database |
//! | [`BATCH_QUERIES_PER_SCAN_MAX`] | 32 | more gain nothing: arithmetic binds from 8 on |
//! | [`QUERIES_LIKE_A_SCAN`] | 12 | 13 with AMX, 8 with AVX-512 (bench/record) |
//! | [`KEYS_PER_CALL_MAX`] | 2^20 | a client's call: 0.4 GB of records and report, standard shape |
//! | [`KEYS_PER_PART_MAX`] | 16 384 | encrypted at once: 850 MB of queries, standard shape |
//! | [`HINT_CACHE_BYTES`] | 256 MiB | a client's hints: 15 000 standard shards |
//! | [`FRAMES_IN_FLIGHT_WANTED`] | 8 | a client's own: hides a round trip |
//! | [`FRAME_BYTES_WANTED`] | 1 MiB | a client's frames: all in flight arrive in time |
//! | [`UPLINK_BITS_PER_SECOND_MIN`] | 8 Mbit/s | a phone's way up: a sync meets no time-out |
//! | [`FRAME_QUERIES_WANTED`] | 16 | a client's smallest split of a call over its streams |
//! | [`ATTEMPTS_MAX`] | 8 | sendings of one request, whatever went wrong with each |
//! | [`RETRY_WAIT_MIN`] | 20 ms | a server that names no wait is not asked again at once |
//! | [`RETRY_WAIT_MAX`] | 10 s | a server's wish to wait longer is an outage |
//! | [`CONNECT_TIMEOUT`] | 5 s | one handshake: two round trips and their first losses |
//! | [`CONNECT_STAGGER`] | 0.5 s | an address that has not answered by then waits beside the next |
//! | [`FIRST_RTT`] | 0.1 s | a first packet that is lost is sent again after 0.3 s |
//! | [`UNREACHABLE_MAX`] | 30 s | a server's restart and a network's change pass; a death is said |
//! | [`ANSWER_TIMEOUT`] | 15 s | a reply that has not come by then: the default deadline and some |
//! | [`CALL_TIMEOUT`] | 15 min | a whole call of 16 384 standard queries up at 8 Mbit/s |
//! | [`CALL_TIMEOUT_MAX`] | 1 h | a server that trickles its replies holds no caller longer |
//! | [`HEDGES_IN_FLIGHT_MAX`] | 2 | a quarter of a client's frames: hedges do not double a load |
//! | [`BUNDLES_REMEMBERED_MAX`] | 16 384 | names of bundles that went over a connection: 2 MB |
//! | [`LOAD_BYTES`] | 1 GiB | a load generator's queries: 20 000 at the standard shape |
//! | [`LOAD_ANSWERS_UNVERIFIED_MAX`] | 1 024 | answers it keeps to decode: 12 MB, standard shape |
//! | [`LOAD_ERROR_CLASSES_MAX`] | 32 | a peer's words are no way to fill its report |
//! | [`TRACE_BYTES_MAX`] | 64 MiB | a trace it replays: five million frames |
//! | [`LOG_WAITING_BYTES_MAX`] | 1 MiB | lines of a log whose reader is behind; the rest is lost |
//! | [`LOG_LEAVE_TIMEOUT`] | 1 s | a reader that does not read holds up no program that ends |
//! | [`OLD_EPOCH_TIME`] | 10 min | a client's calls end under the epoch they began with |
//! | [`OLD_EPOCHS_MAX`] | 4 | each may have maps of its own for every shard |
//! | [`SCRUB_MIB_PER_SECOND`] | 16 | a hundredth of a core; a shard in 15 s, 1 TiB in 18 hours |
//! | [`SCRUB_PAUSE`] | 1 s | a small database is not read all the time |
//! | [`SCRUB_PAUSE_MIN`] | 50 ms | small shards wake nobody a thousand times a second |
//! | [`WATCH_TIME`] | 2 s | one look at a file's metadata |
//! | [`RELOAD_PAUSE_MAX`] | 60 s | files that came late are found, the log is not flooded |
//! | [`HINT_READS_MAX`] | 16 | each is some 10 us, or a read of the disk |
//! | [`HINT_READ_TIME`] | 10 s | a client gives a reply 15: it hears why |
//! | [`FILE_PATIENCE`] | 30 s | a slow disk is waited for, one that hangs is said |
//! | [`FILE_WORK_MAX`] | 64 | a thread each while it hangs: ten hours of looking again |
//! | [`HUNG_LOOK_PAUSE_MAX`] | 10 min | a look that hangs takes a thread |
//! | [`IDENTITY_FILE_BYTES_MAX`] | 8 MiB | files of certificates and callers are read whole |
//! | [`THREADS_MAX`] | 1 024 | more than a machine has processors; a slip starts no more |
//! | [`INPUT_RECORD_BYTES_MAX`] | 1 MiB | a builder's input line: an open quote ends here |
//! | [`PARTITION_BUFFER_BYTES`] | 256 MiB | a builder's buffers for all partition files |
//! | [`BUILD_MEMORY_BYTES`] | 1 GiB | shards built at once; a larger one is built alone |
//! | [`BUILD_WIDENINGS_MAX`] | 8 | docs/scheme.md, "Shapes": steps of 64 columns |

use std::time::Duration;

/// Widest matrix a shard may have, in columns.
pub const COLUMNS_MAX: u32 = 26_048;
/// Narrowest matrix a shard may have, in columns.
pub const COLUMNS_MIN: u32 = 192;
/// Columns come in steps of one AVX-512 register of matrix bytes.
pub const COLUMNS_STEP: u32 = 64;
/// Largest value field, in bytes; the longest value is one byte shorter.
pub const VALUE_BYTES_MAX: u32 = 2_040;
/// Longest look-up key (service independent identifier), in bytes.
pub const KEY_BYTES_MAX: usize = 1_024;
/// Most packs a shard may have.
pub const PACKS_MAX: u32 = 64;
/// Most shards a database may have.
pub const SHARDS_MAX: u32 = 65_000;
/// Fewest records in the emptiest shard that a client accepts unasked: the crowd one hides in.
pub const RECORDS_PER_SHARD_ACCEPTED_MIN: u64 = 64_000;
/// Longest name of a database, in bytes.
pub const DATABASE_NAME_BYTES_MAX: usize = 64;
/// How far ahead of ours the clock may be that an operator signed by.
pub const CLOCK_DIFFERENCE_MAX: Duration = Duration::from_secs(5 * 60);
/// Days for which signed parameters hold unless the operator says otherwise.
pub const EXPIRES_DAYS_DEFAULT: u32 = 30;
/// Most days for which an operator may sign parameters.
pub const EXPIRES_DAYS_MAX: u32 = 366;
/// How long after a doubling of the number of shards a client refuses the next one.
pub const DOUBLING_INTERVAL: Duration = Duration::from_secs(365 * 86_400);
/// Largest file of pins that is read.
pub const PINS_BYTES_MAX: u64 = 64 << 10;

/// Most queries one frame may carry.
pub const QUERIES_PER_FRAME_MAX: u32 = 1_024;
/// Most request streams one connection may have open.
pub const FRAMES_IN_FLIGHT_MAX: u32 = 128;
/// How many key bundles one connection may count on staying known, whatever others bring.
pub const BUNDLES_PER_CONNECTION: u32 = 64;
/// Memory for key bundles of all connections, in bytes as received.
pub const BUNDLE_CACHE_BYTES: usize = 512 << 20;
/// Memory for queries waiting for an engine, each with its bundle, all connections together.
pub const QUEUED_QUERY_BYTES_MAX: usize = 1 << 30;
/// How long an answer should take at most, unless told otherwise.
pub const LATENCY_TARGET: Duration = Duration::from_secs(1);
/// Longest target that an operator may set.
pub const LATENCY_TARGET_MAX: Duration = DEADLINE_MAX;
/// Callers whose debts the schedule remembers while they have nothing waiting.
pub const FRONT_ENDS_REMEMBERED_MAX: usize = 1_024;
/// Most queries one connection may have waiting or being computed.
pub const QUERIES_PER_CONNECTION_MAX: usize = 8_192;
/// Most queries, and shards, that one call of a GPU's engine answers. Many, for a scan of a shard
/// costs as much for one query as for four, and at the ends of a call the device has nothing to do;
/// a device that answers but 2 000 a second is done in half a second.
pub const GPU_CALL_QUERIES_MAX: usize = 1_024;
/// Most shards that wait to be uploaded to one device.
pub const UPLOADS_WAITING_MAX: usize = 4;
/// How long a shard whose upload failed is not uploaded.
pub const UPLOAD_AGAIN_AFTER: Duration = Duration::from_secs(10);
/// How long a worker waits beside queries it may not take before it looks again.
pub const LOOK_AGAIN_TIME: Duration = Duration::from_millis(10);
/// Shortest pause before a device that failed again is recreated; the first time there is none.
pub const RENEW_PAUSE_MIN: Duration = Duration::from_millis(100);
/// Longest pause before a device that failed again is recreated.
pub const RENEW_PAUSE_MAX: Duration = Duration::from_secs(30);
/// Memory for requests being read, all connections together.
pub const READ_BYTES_MAX: usize = 512 << 20;
/// Memory for answers that are computed or not yet sent, all connections together.
pub const ANSWER_BYTES_MAX: usize = 512 << 20;
/// Queries one stream may have on the way; a connection has twice as many, and their answers.
pub const WINDOW_QUERIES: usize = 64;
/// Smallest window of a stream or connection where memory is short.
pub const WINDOW_BYTES_LEAST: u32 = 64 << 10;
/// Smallest window of a stream or connection.
pub const WINDOW_BYTES_MIN: u32 = 256 << 10;
/// Largest window of a stream or connection.
pub const WINDOW_BYTES_MAX: u32 = 8 << 20;
/// What the system may keep of the server's socket, in each direction, if it lets us.
pub const SOCKET_BYTES: usize = 8 << 20;
/// Memory of one connection besides its windows.
pub const CONNECTION_STATE_BYTES: u64 = 64 << 10;
/// Memory of one handshake, and for some seconds of one that was given up.
pub const HANDSHAKE_STATE_BYTES: u64 = 32 << 10;
/// Handshakes that were given up and that QUIC still remembers.
pub const CLOSING_MAX: usize = 1_024;
/// Most first packets of handshakes that are not yet looked at.
pub const INCOMING_MAX: usize = 1_024;
/// Memory for what follows these packets until they are.
pub const INCOMING_BYTES_MAX: u64 = 4 << 20;
/// Most request streams of all connections together.
pub const STREAMS_MAX: usize = 8_192;
/// The same where memory is short.
pub const STREAMS_LEAST: usize = 4_096;
/// Memory of one of them besides its request and its replies.
pub const STREAM_STATE_BYTES: u64 = 8 << 10;
/// Memory of one query of a frame besides its bytes and its answer, until its reply is sent.
pub const QUERY_STATE_BYTES: usize = 512;
/// Shortest time between two requests to the allocator to give back what it keeps.
pub const GIVE_BACK_TIME: Duration = Duration::from_secs(10);
/// Memory that must have become free since for such a request.
pub const GIVE_BACK_BYTES: usize = 32 << 20;
/// The part of the machine's memory that a server's bounds add up to at most: one in so many.
pub const MEMORY_SHARE_MAX: u64 = 2;
/// Shortest time an overloaded server asks a client to wait.
pub const RETRY_AFTER_MIN: Duration = Duration::from_millis(50);
/// Longest time an overloaded server asks a client to wait.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(5);
/// Bytes around one query or bundle in its frame.
pub const FRAME_OVERHEAD_BYTES: usize = 256;
/// Bytes around the packs of one reply in its frame.
pub const REPLY_OVERHEAD_BYTES: usize = 1_024;
/// Longest reply to a parameter request: a ribbon seed and a hint digest a shard.
pub const PARAMETERS_REPLY_BYTES_MAX: usize = (64 << 10) + SHARDS_MAX as usize * 24;
/// Longest nonce, in bytes.
pub const NONCE_BYTES_MAX: usize = 32;
/// Most shards one hint request may name.
pub const HINTS_PER_REQUEST_MAX: u32 = 1_024;
/// Most connections at once.
pub const CONNECTIONS_MAX: usize = 256;
/// Most handshakes at once.
pub const HANDSHAKES_MAX: usize = 1_024;
/// A connection that asks nothing for so long may have to make room for another.
pub const QUIET_TIME: Duration = Duration::from_secs(1);
/// How often the certificates of open connections are checked again.
pub const CERTIFICATE_CHECK_TIME: Duration = Duration::from_secs(10);
/// Longest time that a reply waits until its front-end's quota allows it.
pub const QUOTA_WAIT_MAX: Duration = Duration::from_secs(5);
/// Most connections of one front-end that is known by its certificate, or of one network where
/// front-ends are not known.
pub const CONNECTIONS_PER_FRONT_END_MAX: usize = 64;
/// Largest share one front-end may be given.
pub const SHARE_MAX: u32 = 1_000_000;
/// Largest quota of a front-end.
pub const QUOTA_MIB_PER_SECOND_MAX: u32 = 100_000_000;
/// A front-end within its quota may have what it gives in this time at once.
pub const QUOTA_BURST: Duration = Duration::from_secs(1);
/// How often an engine runs its known-answer test.
pub const PROVE_EVERY: Duration = Duration::from_secs(5);
/// For so long an engine that answered it right is trusted.
pub const PROVEN_WITHIN: Duration = Duration::from_secs(15);
/// An engine that is at one thing for so long does not come back.
pub const HUNG_AFTER: Duration = DEADLINE_MAX;
/// Most connections to the admin endpoints whose request is not there yet.
pub const ADMIN_SILENT_MAX: usize = 256;
/// How long the head of such a request may take to arrive.
pub const ADMIN_HEAD_TIME: Duration = Duration::from_secs(10);
/// Longest such head, in bytes.
pub const ADMIN_HEAD_BYTES_MAX: usize = 16 << 10;
/// Most requests to the admin endpoints that are answered at once, besides probes.
pub const ADMIN_REQUESTS_MAX: usize = 32;
/// How long such a connection may last.
pub const ADMIN_CONNECTION_TIME: Duration = Duration::from_secs(60);
/// Most queries one secret encrypts (docs/scheme.md, "Secrets").
pub const QUERIES_PER_SECRET_MAX: usize = 16;
/// Most queries one batch has.
pub const BATCH_QUERIES_PER_SCAN_MAX: usize = 32;
/// So many queries of a batch take as long as its scan of the shard.
pub const QUERIES_LIKE_A_SCAN: usize = 12;

/// Most keys of one look-up call: their records wait, decoded and not looked at, until the last
/// query of the call is answered.
pub const KEYS_PER_CALL_MAX: usize = 1 << 20;
/// Most keys of a call that are encrypted at once; a call of more goes in parts.
pub const KEYS_PER_PART_MAX: usize = 16_384;
/// Memory of a client for hints.
pub const HINT_CACHE_BYTES: usize = 256 << 20;
/// Most request streams a client has open at once.
pub const FRAMES_IN_FLIGHT_WANTED: u32 = 8;
/// Bytes of queries a client puts in one frame, unless one query is larger.
pub const FRAME_BYTES_WANTED: usize = 1 << 20;
/// Slowest way up over which a client's frames arrive before the server gives their streams up.
pub const UPLINK_BITS_PER_SECOND_MIN: u64 = 8_000_000;
/// Queries below which a client does not split its queries to fill its streams.
pub const FRAME_QUERIES_WANTED: usize = 16;
/// How often a client sends one request, the first time included.
pub const ATTEMPTS_MAX: u32 = 8;
/// Shortest wait of a client before it sends a refused request again.
pub const RETRY_WAIT_MIN: Duration = Duration::from_millis(20);
/// Longest wait of a client before it sends a refused request again.
pub const RETRY_WAIT_MAX: Duration = Duration::from_secs(10);
/// How long a client tries to connect to one address.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a client waits for one address before it tries the next one too.
pub const CONNECT_STAGGER: Duration = Duration::from_millis(500);
/// What both sides take for the round trip before they have measured one. A first packet that is
/// lost is sent again after three of these, not after QUIC's whole second, and a server remembers
/// a handshake that was given up for nine of them.
pub const FIRST_RTT: Duration = Duration::from_millis(100);
/// How long a call of a client goes on without reaching any server.
pub const UNREACHABLE_MAX: Duration = Duration::from_secs(30);
/// How long a client waits for the next reply on a stream.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// A frame that brings nothing for this part of the time-out is hedged: one in so many.
pub const HEDGE_AFTER_PART: u32 = 4;
/// Most frames that a client has at another replica too because they are slow.
pub const HEDGES_IN_FLIGHT_MAX: usize = 2;
/// How long a whole call of a client may take, unless told otherwise.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(900);
/// Longest time a call may be given.
pub const CALL_TIMEOUT_MAX: Duration = Duration::from_secs(3_600);
/// Most bundles of which a client remembers that they went over a connection.
pub const BUNDLES_REMEMBERED_MAX: usize = 16_384;

/// Memory of a load generator for queries made and not yet answered, unless told otherwise.
pub const LOAD_BYTES: u64 = 1 << 30;
/// Most answers a load generator keeps to decode; those beyond are not verified, and it says so.
pub const LOAD_ANSWERS_UNVERIFIED_MAX: usize = 1_024;
/// Most classes of error a load generator tells apart.
pub const LOAD_ERROR_CLASSES_MAX: usize = 32;
/// Largest file of times that a load generator replays.
pub const TRACE_BYTES_MAX: u64 = 64 << 20;

/// How long a request may take to arrive once its stream is open.
pub const STREAM_READ_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a peer may leave one reply unread.
pub const STREAM_WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a peer may hold up the replies of one stream, all waits together.
pub const STREAM_SEND_TIME_MAX: Duration = Duration::from_secs(60);
/// How long a handshake may take.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a client that hears nothing asks whether its server is still there: one that was
/// killed and started again says no.
pub const KEEP_ALIVE_INTERVAL: Duration = Duration::from_millis(400);
/// Besides two round trips, how long a client hears nothing before it gives a connection up.
pub const SILENCE_MAX: Duration = Duration::from_millis(1_200);
/// How long a connection may be silent.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Deadline of a query that names none.
pub const DEADLINE_DEFAULT: Duration = Duration::from_secs(10);
/// Longest deadline a query may ask for.
pub const DEADLINE_MAX: Duration = Duration::from_secs(60);
/// How long shutdown waits for what is in flight.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(15);
/// How long leaving waits for the engines to end the call each is in.
pub const ENGINES_LEAVE_TIMEOUT: Duration = Duration::from_secs(15);
/// How long leaving waits for peers to take note of it.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Lines of the log that wait to be written, in bytes: what a reader may be behind.
pub const LOG_WAITING_BYTES_MAX: usize = 1 << 20;
/// How long a program that ends waits for the reader of its log.
pub const LOG_LEAVE_TIMEOUT: Duration = Duration::from_secs(1);

/// How long queries of an epoch are answered after the next one came, unless told otherwise.
pub const OLD_EPOCH_TIME: Duration = Duration::from_secs(600);
/// Longest such time that an operator may set.
pub const OLD_EPOCH_TIME_MAX: Duration = Duration::from_secs(30 * 86_400);
/// Most epochs that are answered beside the newest.
pub const OLD_EPOCHS_MAX: usize = 4;
/// How fast shards are read again and compared, unless told otherwise.
pub const SCRUB_MIB_PER_SECOND: u32 = 16;
/// Pause between two rounds over all shards; so often old epochs are looked after at least.
pub const SCRUB_PAUSE: Duration = Duration::from_secs(1);
/// Shortest pause within a round.
pub const SCRUB_PAUSE_MIN: Duration = Duration::from_millis(50);
/// How often the manifest's file is looked at, unless told otherwise.
pub const WATCH_TIME: Duration = Duration::from_secs(2);
/// Longest time between two looks that an operator may set.
pub const WATCH_TIME_MAX: Duration = Duration::from_secs(86_400);
/// Longest pause before a manifest that was refused is read again.
pub const RELOAD_PAUSE_MAX: Duration = Duration::from_secs(60);

/// Most hints that are read at once.
pub const HINT_READS_MAX: usize = 16;
/// How long reading one may take, waiting for its turn included.
pub const HINT_READ_TIME: Duration = Duration::from_secs(10);
/// Work on files of which nothing went on for so long is given up.
pub const FILE_PATIENCE: Duration = Duration::from_secs(30);
/// Most work on files at once, with what was given up and has not ended.
pub const FILE_WORK_MAX: usize = 64;
/// Longest pause between two looks at a manifest whose file system hangs.
pub const HUNG_LOOK_PAUSE_MAX: Duration = Duration::from_secs(600);

/// Largest file of certificates, of a key or of callers that a server reads: 4 000 certificates,
/// or callers by the ten thousand.
pub const IDENTITY_FILE_BYTES_MAX: u64 = 8 << 20;
/// Largest manifest read from disk: 65 000 shards at about 400 bytes a line, doubled.
pub const MANIFEST_BYTES_MAX: u64 = 64 << 20;

/// Most threads that an option may ask for.
pub const THREADS_MAX: usize = 1_024;

/// Longest record of the builder's input, in bytes as written.
pub const INPUT_RECORD_BYTES_MAX: usize = 1 << 20;
/// Memory for records on their way to partition files.
pub const PARTITION_BUFFER_BYTES: usize = 256 << 20;
/// Memory for shards that are built at the same time.
pub const BUILD_MEMORY_BYTES: u64 = 1 << 30;
/// How often the builder widens the shape before it gives up.
pub const BUILD_WIDENINGS_MAX: u32 = 8;

const _: () = assert!(COLUMNS_MIN.is_multiple_of(COLUMNS_STEP));
const _: () = assert!(COLUMNS_MAX.is_multiple_of(COLUMNS_STEP));
const _: () = assert!(VALUE_BYTES_MAX + 8 <= 2048);
const _: () = assert!(DEADLINE_DEFAULT.as_secs() < DRAIN_TIMEOUT.as_secs());
const _: () = assert!(RETRY_AFTER_MAX.as_secs() < DEADLINE_DEFAULT.as_secs());
const _: () = assert!(BATCH_QUERIES_PER_SCAN_MAX <= GPU_CALL_QUERIES_MAX);
const _: () = assert!(STREAM_WRITE_TIMEOUT.as_secs() <= STREAM_SEND_TIME_MAX.as_secs());
const _: () = assert!(WINDOW_BYTES_LEAST <= WINDOW_BYTES_MIN);
const _: () = assert!(WINDOW_BYTES_MIN <= WINDOW_BYTES_MAX);
const _: () = assert!(QUOTA_WAIT_MAX.as_secs() < ANSWER_TIMEOUT.as_secs());
const _: () = assert!(QUIET_TIME.as_secs() < IDLE_TIMEOUT.as_secs());
const _: () = assert!(2 * PROVE_EVERY.as_secs() < PROVEN_WITHIN.as_secs());
// While a failed device is left alone nobody is at anything.
const _: () = assert!(RENEW_PAUSE_MAX.as_secs() < HUNG_AFTER.as_secs());
const _: () = assert!(DEADLINE_DEFAULT.as_secs() <= DEADLINE_MAX.as_secs());
const _: () = assert!(DEADLINE_DEFAULT.as_secs() < ANSWER_TIMEOUT.as_secs());
const _: () = assert!(
    FRAMES_IN_FLIGHT_WANTED as u64 * FRAME_BYTES_WANTED as u64 * 8
        <= UPLINK_BITS_PER_SECOND_MIN * STREAM_READ_TIMEOUT.as_secs()
);
const _: () = assert!(FRAMES_IN_FLIGHT_WANTED <= FRAMES_IN_FLIGHT_MAX);
const _: () = assert!(4 * HEDGES_IN_FLIGHT_MAX <= FRAMES_IN_FLIGHT_WANTED as usize);
const _: () = assert!(SILENCE_MAX.as_millis() == 3 * KEEP_ALIVE_INTERVAL.as_millis());
const _: () = assert!(BUNDLES_PER_CONNECTION as usize <= BUNDLES_REMEMBERED_MAX);
const _: () = assert!(QUERIES_PER_FRAME_MAX as usize <= QUERIES_PER_CONNECTION_MAX);
const _: () = assert!(RETRY_WAIT_MIN.as_millis() < RETRY_WAIT_MAX.as_millis());
const _: () = assert!(
    BUNDLES_PER_CONNECTION as usize * QUERIES_PER_SECRET_MAX >= QUERIES_PER_FRAME_MAX as usize
);
// The scan's 32-bit accumulators: columns * 255 * 128 stays below 2^31.
const _: () = assert!((COLUMNS_MAX as u64) * 255 * 128 < 1 << 31);
// The pack's 64-bit accumulators: 2047 products of two values below 2^24.
const _: () = assert!((1u64 << 48).checked_mul(2047).is_some());
