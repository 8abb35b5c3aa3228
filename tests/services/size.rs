//! How large the registrar's database is with so many registrations in force, and how long work
//! takes on one of that size, with PostgreSQL. One registration is made as any is; its rows in each
//! table are then repeated under other names. By default these are a few, which shows that all of
//! it works. For a measurement `SOTTO_LOAD` is their number; to be run alone and optimised:
//! `SOTTO_LOAD=1000000 cargo test --release --features registration --test services size:: --
//! --nocapture` (`bench/registration.sh`).

use std::time::{Duration, Instant};

use serde_json::json;
use sotto::registrar::service::feed::export;
use sotto::registrar::service::{Config, purge};
use sqlx::any::{AnyPoolOptions, AnyRow};
use sqlx::{AnyPool, AssertSqlSafe, Row as _};

use crate::more::{log_at, start_log};
use crate::postgres::said::say;
use crate::timed::load_size;
use crate::world::{APS, Peer, Running, User, World, fresh_key, json_of, number, text};

/// Registrations without a measurement.
const FEW: usize = 300;
/// How many the size is stated for, and how many of them are made in a day: each is proved again
/// after a year.
const MANY: u64 = 100_000_000;
const MANY_A_DAY: u64 = MANY / 365;
/// Lines of a batch of the feed, ids of a request with heartbeats, registrations that a purge
/// erases.
const BATCH: usize = 10_000;
/// Registrations whose time is taken.
const TIMED: u32 = 31;

/// A table: rows in it for [`MANY`] registrations.
struct Table {
    name: &'static str,
    many: u64,
}

/// What stays with a registration, and what goes after one or two days.
const TABLES: [Table; 7] = [
    Table { name: "registrations", many: MANY },
    Table { name: "feed_lines", many: MANY },
    Table { name: "log_statements", many: MANY },
    Table { name: "replies", many: 2 * MANY_A_DAY },
    Table { name: "siis", many: MANY_A_DAY },
    Table { name: "fraud_counts", many: 2 * MANY_A_DAY },
    Table { name: "fraud_conversions", many: 2 * MANY_A_DAY },
];

/// Characters as random as those of a MAC, the same for the same seed: 86 at most.
const RANDOM: &str = r"CREATE FUNCTION random_text(seed TEXT, length INT) RETURNS TEXT
    LANGUAGE SQL IMMUTABLE AS $$ SELECT left(translate(encode(sha512(convert_to(seed, 'UTF8')),
    'base64'), E'+/=\n', '-_'), length) $$";

/// Rows of `$1` registrations, of which `$2` were made today, beside those of the one that is
/// there.
const FILL: [&str; 8] = [
    "INSERT INTO registrations (id, ap, sii_mac, region, purpose, language, statement, state, since,
        due_at, iat, exp, heartbeat_at, feed, code_expires_at, tries_left, resends, resend_at)
     SELECT random_text('id' || n, 22), ap, random_text('sii' || n, length(sii_mac)), region,
        purpose, language, left(statement, -86) || random_text('signature' || n, 86), state, since,
        due_at + n % 2500000, iat, exp, heartbeat_at, feed, code_expires_at, tries_left, resends,
        resend_at
     FROM registrations, generate_series(1, $1) n WHERE $2 > 0",
    "INSERT INTO feed_lines (seq, position, kind, name, digest)
     SELECT 2 + (n - 1) / 10000, 1 + (n - 1) % 10000, 1, id,
        left(translate(encode(sha256(convert_to('{\"add\":\"' || statement || '\"}', 'UTF8')),
        'base64'), '+/', '-_'), 43)
     FROM generate_series(1, $1) n JOIN registrations ON id = random_text('id' || n, 22)
     WHERE $2 > 0",
    "INSERT INTO feed_batches (seq, header) SELECT 2 + n, header
     FROM feed_batches, generate_series(0, ($1 - 1) / 10000) n WHERE $2 > 0",
    "INSERT INTO log_statements (jti, salt, hash, queued_at, place)
     SELECT random_text('id' || n, 22), random_text('salt' || n, length(salt)),
        random_text('hash' || n, length(hash)), queued_at, place + n
     FROM log_statements, generate_series(1, $1) n WHERE $2 > 0",
    "INSERT INTO replies (ap, key, digest, status, body, retry_after, registration, at)
     SELECT ap, random_text(key || n, length(key)), random_text(digest || n, length(digest)),
        status, left(body, -86) || random_text('body' || n, 86), retry_after,
        random_text('id' || n, 22), at
     FROM replies, generate_series($1 - $2 + 1, $1) n WHERE registration IS NOT NULL",
    "INSERT INTO siis (sii_mac, code_1) SELECT random_text('sii' || n, length(sii_mac)), code_1
     FROM siis, generate_series($1 - $2 + 1, $1) n",
    "INSERT INTO fraud_counts (name, period, part, messages, money)
     SELECT 'rate ' || random_text(name || n, length(name) - 5), period, part, messages, money
     FROM fraud_counts, generate_series($1 - $2 + 1, $1) n WHERE name LIKE 'rate %'",
    "INSERT INTO fraud_conversions
        (name, period, sample, part, slice, fresh, recent, settled, entered)
     SELECT 'group ' || random_text(name || n, length(name) - 6), period, sample, part, slice,
        fresh, recent, settled, entered
     FROM fraud_conversions, generate_series($1 - $2 + 1, $1) n WHERE name LIKE 'group %'",
];

/// A registrar with a full database.
struct Full {
    world: World,
    running: Running,
    peer: Peer,
    database: AnyPool,
    config: Config,
    /// The last batch of the feed.
    batches: u64,
}

impl Full {
    async fn fill(count: usize) -> Option<Self> {
        let world = World::with_postgres().await?;
        let (log, _) = start_log(&world).await;
        world.write_config(&log_at(&world, log.port()));
        let running = world.start().await;
        let peer = world.peer(running.address, &[APS[0]]);
        let config = Config::read(&world.config_path()).unwrap();
        let database = AnyPoolOptions::new().max_connections(1).connect(&world.database);
        let database = database.await.unwrap();
        let mut full = Self { world, running, peer, database, config, batches: 0 };
        full.register(0).await;
        while full.number("SELECT COUNT(*) FROM log_statements WHERE place IS NOT NULL").await < 1 {
            tokio::task::yield_now().await;
        }
        let out = full.world.path("feed");
        export(&full.config, 0, &out, full.world.now()).await.unwrap();
        let begun = Instant::now();
        full.execute(RANDOM).await;
        for statement in FILL {
            let statement = sqlx::query(statement).bind(count as i64);
            let statement = statement.bind((count as i64 / 100).max(1));
            statement.execute(&full.database).await.unwrap();
        }
        full.execute("VACUUM ANALYZE").await;
        full.batches = full.number("SELECT MAX(seq) FROM feed_batches").await as u64;
        say(&format!("filled with {count} in {:.0} s", begun.elapsed().as_secs_f64()));
        Some(full)
    }

    async fn rows(&self, sql: &str) -> Vec<AnyRow> {
        sqlx::query(AssertSqlSafe(sql)).fetch_all(&self.database).await.unwrap()
    }

    async fn number(&self, sql: &str) -> i64 {
        self.rows(sql).await[0].get(0)
    }

    async fn execute(&self, sql: &str) {
        sqlx::query(AssertSqlSafe(sql)).execute(&self.database).await.unwrap();
    }

    /// Registers somebody: the time from request to statement, without the wait for the code.
    async fn register(&self, index: u32) -> Duration {
        let to = number(index * 10_000);
        let request = User::new(&to, APS[0]).request(self.world.now());
        let begun = Instant::now();
        let id = self.peer.register(&request).await;
        let registered = begun.elapsed();
        let code = self.world.gateway.code(&to, 1).await;
        let begun = Instant::now();
        let entered = self.peer.enter(&id, &code).await;
        assert_eq!(entered.status, 200, "{}", text(&entered));
        registered + begun.elapsed()
    }

    /// Heartbeats of these, which are in force.
    async fn heartbeats(&self, ids: &[String]) -> Duration {
        let begun = Instant::now();
        let reply = self.peer.post("/v1/heartbeats", &fresh_key(), &json!({ "ids": ids })).await;
        assert_eq!(reply.status, 200, "{}", text(&reply));
        assert_eq!(json_of(&reply)["noted"], ids.len());
        begun.elapsed()
    }

    /// Says how large each table and index is, and what that makes for [`MANY`].
    async fn say_sizes(&self) {
        let mut sum = 0.0;
        for Table { name, many } in TABLES {
            let rows = self.number(&format!("SELECT COUNT(*) FROM {name}")).await;
            let each = |bytes: i64| bytes as f64 / rows as f64;
            let indexes = format!(
                "SELECT indexrelid::regclass::text, pg_relation_size(indexrelid) FROM pg_index
                 WHERE indrelid = '{name}'::regclass ORDER BY 1"
            );
            let mut line = format!(
                "{name}: {rows} rows; bytes a row: table {:.0}",
                each(self.number(&format!("SELECT pg_table_size('{name}')")).await)
            );
            for row in self.rows(&indexes).await {
                line += &format!(", {} {:.0}", row.get::<String, _>(0), each(row.get(1)));
            }
            let total = self.number(&format!("SELECT pg_total_relation_size('{name}')")).await;
            let many_gb = each(total) * many as f64 / 1e9;
            sum += many_gb;
            say(&format!(
                "{line}, all {:.0}; of {MANY}: {many} rows, {many_gb:.2} GB",
                each(total)
            ));
        }
        say(&format!("of {MANY} registrations in all: {sum:.0} GB"));
    }

    /// The time of an export that closes one batch.
    async fn export(&self, lines: usize) -> Duration {
        self.execute(&format!(
            "UPDATE registrations SET feed = 1 WHERE id IN (SELECT id FROM registrations
             WHERE feed = 2 AND state = 2 ORDER BY sii_mac LIMIT {lines})"
        ))
        .await;
        let waiting = self.number("SELECT COUNT(*) FROM registrations WHERE feed = 1").await;
        let (out, begun) = (self.world.path("feed"), Instant::now());
        let written = export(&self.config, self.batches, &out, self.world.now()).await.unwrap();
        let took = begun.elapsed();
        assert_eq!(written.made, (waiting as u64).div_ceil(BATCH as u64));
        took
    }

    /// The time of a purge that erases so many which were withdrawn.
    async fn purge(&self, count: usize) -> Duration {
        let now = self.world.now();
        self.execute(&format!(
            "UPDATE registrations SET state = 8, feed = 3, since = {now}, due_at = {now}
             WHERE id IN (SELECT id FROM registrations WHERE feed = 2 AND state = 2
             ORDER BY sii_mac DESC LIMIT {count})"
        ))
        .await;
        let begun = Instant::now();
        let purged = purge(&self.config, now).await.unwrap();
        let took = begun.elapsed();
        assert_eq!(purged.registrations, count as u64);
        took
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn size() {
    let count = load_size(FEW);
    let Some(full) = Full::fill(count).await else { return };
    full.say_sizes().await;
    let mut times = Vec::new();
    for index in 1..=TIMED {
        times.push(full.register(index).await);
    }
    say_times("a registration from request to statement", times);
    let ids = full.rows("SELECT id FROM registrations WHERE ap = 'a.example' ORDER BY sii_mac");
    let ids: Vec<String> = ids.await.iter().map(|row| row.get(0)).collect();
    let mut times = Vec::new();
    for some in ids.chunks(BATCH.min(count)) {
        times.push(full.heartbeats(some).await);
    }
    say_times(&format!("heartbeats of {}", BATCH.min(count)), times);
    let bytes = full.number("SELECT pg_total_relation_size('registrations')").await;
    say(&format!(
        "registrations after a heartbeat of each: {:.0} bytes a row",
        bytes as f64 / ids.len() as f64
    ));
    // The registrations that were just timed are in it too.
    let lines = BATCH.min(count / 2) - TIMED as usize;
    say_times(
        &format!("the export of a batch of {}", BATCH.min(count / 2)),
        vec![full.export(lines).await],
    );
    say_times("a purge of nothing", vec![full.purge(0).await]);
    let some = BATCH.min(count / 2);
    say_times(&format!("a purge of {some}"), vec![full.purge(some).await]);
    let Full { running, .. } = full;
    running.stop().await;
}

fn say_times(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
    say(&format!(
        "{what}: median {:.1} ms, slowest {:.1} ms, of {}",
        milliseconds(times[times.len() / 2]),
        milliseconds(times[times.len() - 1]),
        times.len()
    ));
}
