//! The database of a service: PostgreSQL, or SQLite in one file. One set of queries serves both:
//! they use `BIGINT` and `TEXT` alone, bytes as base64url, and parameters `$1`, `$2`.
//!
//! A task holds one connection at a time, never two: SQLite has only one, so a second would be
//! waited for in vain. Work that changes something runs in a [`transaction`], which is tried again
//! when the database asks for that.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use sqlx::any::AnyPoolOptions;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::postgres::PgConnection;
use sqlx::{Any, AnyPool, AssertSqlSafe, Connection as _, Executor as _, SqlStr, Transaction};

use crate::registrar::problem::Problem;

/// Which database it is, where a query has to differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // Names say it.
pub enum Databases {
    Postgres,
    Sqlite,
}

/// Why something was not stored or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // Names and messages say it.
pub enum StoreError {
    #[error(
        "found a database address that begins with something else; expected postgres://... or \
         sqlite:FILE"
    )]
    Address,
    #[error("cannot create the database file {path}: {source}")]
    File { path: String, source: std::io::Error },
    #[error("the database cannot be brought to this version's tables: {0}")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    #[error("the database does not answer: {0}; start it, or correct its address")]
    Unavailable(String),
    #[error("the database refused a query: {0}; this is a bug")]
    Query(String),
    #[error("a row of the database cannot be read: {0}; restore it from a backup")]
    Row(&'static str),
}

/// Connections to a database.
#[derive(Clone)]
pub struct Store {
    pool: AnyPool,
    databases: Databases,
}

/// A connection that was idle for so long is tested before it is used. The pool tests each when it
/// is given back, and a server that restarts is away for longer: so a busy service is not kept
/// waiting for a second test.
const IDLE_TEST_TIME: Duration = Duration::from_millis(100);

/// Most times that a transaction is begun again because the database asks for it.
const ATTEMPTS_MAX: u32 = 8;

/// What a transaction ends with instead of a value.
#[derive(Debug)]
pub enum Failed {
    /// The database: tried again if that helps.
    Store(StoreError),
    /// The request is refused, and nothing is changed.
    Refused(Problem),
    /// The database wants the whole transaction again.
    Again,
}

impl Store {
    /// Removes these schemas of a PostgreSQL with all that is in them, and makes them again.
    ///
    /// # Errors
    /// The database cannot be reached, or its user may not do that.
    pub async fn renew_schemas(url: &str, names: &[String]) -> Result<(), StoreError> {
        let mut database = PgConnection::connect(url).await?;
        for name in names {
            let renew = format!("DROP SCHEMA IF EXISTS {name} CASCADE; CREATE SCHEMA {name}");
            sqlx::raw_sql(AssertSqlSafe(renew)).execute(&mut database).await?;
        }
        Ok(database.close().await?)
    }

    /// Connects, and brings the tables to this version with `migrations`, each (number, name, SQL).
    /// `url` is `postgres://…` or `sqlite:FILE`, which is created with mode 0600 if it is missing.
    ///
    /// # Errors
    /// The database cannot be reached or its tables are of a later version.
    pub async fn open(
        url: &str,
        connections: u32,
        migrations: &[(i64, &'static str, &'static str)],
    ) -> Result<Self, StoreError> {
        sqlx::any::install_default_drivers();
        let (url, databases, connections) = if let Some(path) = url.strip_prefix("sqlite:") {
            create_file(path)?;
            (format!("sqlite:{path}"), Databases::Sqlite, 1)
        } else if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            (url.to_owned(), Databases::Postgres, connections)
        } else {
            return Err(StoreError::Address);
        };
        let pool = AnyPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(Duration::from_secs(5))
            .test_before_acquire(false)
            .before_acquire(|connection, state| {
                Box::pin(async move {
                    Ok(state.idle_for < IDLE_TEST_TIME || connection.ping().await.is_ok())
                })
            })
            .after_connect(move |connection, _| {
                Box::pin(async move {
                    if databases == Databases::Sqlite {
                        // What was acknowledged lasts through a crash of the machine.
                        for pragma in [
                            "PRAGMA journal_mode = WAL",
                            "PRAGMA synchronous = FULL",
                            "PRAGMA busy_timeout = 5000",
                            "PRAGMA secure_delete = ON",
                        ] {
                            connection.execute(pragma).await?;
                        }
                    }
                    Ok(())
                })
            })
            .connect(&url)
            .await
            .map_err(|error| StoreError::Unavailable(said(&error)))?;
        let migrations = migrations.iter().map(|&(number, name, sql)| {
            let sql = SqlStr::from_static(sql);
            Migration::new(number, name.into(), MigrationType::Simple, sql, false)
        });
        Migrator::with_migrations(migrations.collect()).run(&pool).await?;
        Ok(Self { pool, databases })
    }

    /// Which database it is.
    pub fn databases(&self) -> Databases {
        self.databases
    }

    /// Connections for queries that change nothing.
    pub fn pool(&self) -> &AnyPool {
        &self.pool
    }
}

/// Runs `$work` with the connection `$db` in a transaction of `$store`, which is committed if it
/// ends well, and runs it again where the database asks for that: so it must have no effect but in
/// the database. A future of `Result<_, Failed>`. A macro, because the future of an async closure
/// that borrows cannot be shown to be `Send`, as that of a server's handler has to be.
macro_rules! transaction {
    ($store:expr, |$db:ident| $work:expr) => {
        async {
            let mut attempts = 0;
            loop {
                attempts += 1;
                let mut transaction = $crate::registrar::store::begin(&$store).await?;
                let done: Result<_, $crate::registrar::store::Failed> = async {
                    let $db: &mut sqlx::AnyConnection = &mut transaction;
                    $work
                }
                .await;
                if let Some(ended) =
                    $crate::registrar::store::commit(transaction, done, attempts).await
                {
                    break ended;
                }
            }
        }
    };
}
pub(crate) use transaction;

/// Begins a transaction. SQLite: with the lock for writing at once, for two that read first would
/// wait for each other.
pub(crate) async fn begin(store: &Store) -> Result<Transaction<'static, Any>, Failed> {
    Ok(match store.databases() {
        Databases::Postgres => store.pool().begin().await?,
        Databases::Sqlite => store.pool().begin_with("BEGIN IMMEDIATE").await?,
    })
}

/// Commits what ended well; `None` where the work has to be done again.
pub(crate) async fn commit<T>(
    transaction: Transaction<'static, Any>,
    done: Result<T, Failed>,
    attempts: u32,
) -> Option<Result<T, Failed>> {
    let done = match done {
        Ok(value) => transaction.commit().await.map(|()| value).map_err(Failed::from),
        Err(failed) => Err(failed),
    };
    match done {
        Err(Failed::Again) if attempts < ATTEMPTS_MAX => None,
        done => Some(done),
    }
}

fn create_file(path: &str) -> Result<(), StoreError> {
    let path = path.strip_prefix("//").unwrap_or(path);
    let path = path.split('?').next().unwrap_or(path);
    if Path::new(path).exists() {
        return Ok(());
    }
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    made.map(drop).map_err(|source| StoreError::File { path: path.to_owned(), source })
}

/// What an error of the database says, without values: PostgreSQL quotes values in details only.
fn said(error: &sqlx::Error) -> String {
    match error.as_database_error() {
        Some(error) => {
            let code = error.code().unwrap_or_default();
            format!("{} (code {code})", error.message())
        }
        None => error.to_string(),
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::Database(ref inner) => {
                let code = inner.code().unwrap_or_default();
                // 57: an operator stops the server; 53: no room for it; 08: a connection; 5: busy.
                let passes = ["57", "53", "08"].iter().any(|class| code.starts_with(class));
                // SQLite: busy, locked, read-only, input or output, full.
                let passes = passes || ["5", "6", "8", "10", "13"].contains(&code.as_ref());
                match passes {
                    true => Self::Unavailable(said(&error)),
                    false => Self::Query(said(&error)),
                }
            }
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => {
                Self::Row("a column is not of its type")
            }
            _ => Self::Unavailable(said(&error)),
        }
    }
}

impl From<sqlx::Error> for Failed {
    fn from(error: sqlx::Error) -> Self {
        let code = error.as_database_error().and_then(|error| error.code()).unwrap_or_default();
        // PostgreSQL: serialization_failure, deadlock_detected.
        match code.as_ref() {
            "40001" | "40P01" => Self::Again,
            _ => Self::Store(error.into()),
        }
    }
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<Problem> for Failed {
    fn from(problem: Problem) -> Self {
        Self::Refused(problem)
    }
}

impl From<StoreError> for Problem {
    /// What the client is told: not what the database says.
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Query(_) | StoreError::Row(_) => {
                tracing::error!(%error, "a request failed");
                Self::new(
                    500,
                    "internal",
                    "a failure of this service",
                    "its operator to read the log",
                )
            }
            _ => {
                tracing::warn!(%error, "a request was put off");
                let found = "a database that does not answer";
                Self::new(503, "unavailable", found, "the same request, later").retry_after(5)
            }
        }
    }
}

impl From<Failed> for Problem {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Refused(problem) => problem,
            Failed::Store(error) => error.into(),
            Failed::Again => {
                StoreError::Unavailable("transactions stood in each other's way".into()).into()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registrar::postgres::both;
    use sqlx::Row as _;

    const TABLES: &[(i64, &str, &str)] = &[(
        1,
        "things",
        "CREATE TABLE things (name TEXT PRIMARY KEY, count BIGINT NOT NULL, note TEXT);",
    )];

    #[tokio::test]
    async fn a_transaction_is_done_or_not() {
        both(TABLES, async |store: Store| {
            for count in 0..3_i64 {
                let inserted = transaction!(store, |db| {
                    sqlx::query(
                        "INSERT INTO things (name, count, note) VALUES ($1, $2, $3)
                         ON CONFLICT (name) DO UPDATE SET count = things.count + $2",
                    )
                    .bind("one")
                    .bind(count)
                    .bind(None::<String>)
                    .execute(&mut *db)
                    .await?;
                    match count {
                        2 => Err(Problem::new(409, "no", "two", "less").into()),
                        _ => Ok(count),
                    }
                });
                assert_eq!(inserted.await.is_ok(), count < 2);
            }
            let row = sqlx::query("SELECT count, note FROM things WHERE name = $1").bind("one");
            let row = row.fetch_one(store.pool()).await.unwrap();
            assert_eq!(row.get::<i64, _>(0), 1);
            assert_eq!(row.get::<Option<String>, _>(1), None);
        })
        .await;
    }

    #[tokio::test]
    async fn fifty_at_once_lose_nothing() {
        both(TABLES, async |store: Store| {
            let mut tasks = tokio::task::JoinSet::new();
            for _ in 0..50 {
                let store = store.clone();
                tasks.spawn(async move {
                    let insert = "INSERT INTO things (name, count) VALUES ('all', 1)
                        ON CONFLICT (name) DO UPDATE SET count = things.count + 1";
                    let counted = transaction!(store, |db| {
                        sqlx::query(insert).execute(&mut *db).await?;
                        Ok(())
                    });
                    counted.await.unwrap();
                });
            }
            tasks.join_all().await;
            let row = sqlx::query("SELECT count FROM things");
            let row = row.fetch_one(store.pool()).await.unwrap();
            assert_eq!(row.get::<i64, _>(0), 50);
        })
        .await;
    }
}
