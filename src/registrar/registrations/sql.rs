//! Pieces of SQL that several parts use, and the numbers of the database.

use crate::discovery::statement::Mapping;
use crate::registrar::Databases;
use crate::registrar::store::{Failed, StoreError};
use sqlx::{AnyConnection, AssertSqlSafe, Row as _};

use crate::limits::registrar::{CODES_A_DAY, CODES_AN_HOUR};

/// The feed's column where a mapping comes into it: to be added, unless it is still there.
pub(crate) const PUBLISH: &str = "feed = CASE feed WHEN 0 THEN 1 WHEN 3 THEN 2 ELSE feed END";
/// The feed's column where it leaves it: to be removed, unless it never came there.
pub(crate) const WITHHOLD: &str = "feed = CASE feed WHEN 1 THEN 0 WHEN 2 THEN 3 ELSE feed END";

/// A time or a count as the database has it.
pub(crate) fn bigint(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A time or a count of the database.
pub(crate) fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// `($from, $from + 1), …`: places of values for so many rows of so many columns.
pub(crate) fn places(from: usize, columns: usize, rows: usize) -> String {
    let row = |row: usize| {
        let places = (0..columns).map(|column| format!("${}", from + row * columns + column));
        format!("({})", places.collect::<Vec<_>>().join(", "))
    };
    (0..rows).map(row).collect::<Vec<_>>().join(", ")
}

/// `($from, $from + 1, …)`: a list of values.
pub(crate) fn list(from: usize, count: usize) -> String {
    places(from, count, 1)
}

/// A query made of constants and places of values, and of nothing else.
pub(crate) fn made(sql: String) -> AssertSqlSafe<String> {
    AssertSqlSafe(sql)
}

/// The end of a `SELECT` whose rows are changed next: where others hold some of them, those are
/// left for another time. SQLite has one writer only.
pub(crate) fn skip_locked(databases: Databases) -> &'static str {
    match databases {
        Databases::Postgres => " FOR UPDATE SKIP LOCKED",
        Databases::Sqlite => "",
    }
}

/// A mapping as it was stored.
pub(crate) fn stored_mapping(claims: &str) -> Result<Mapping, Failed> {
    let broken = StoreError::Row("claims of a registration");
    Mapping::from_claims(claims.as_bytes()).map_err(|_| broken.into())
}

/// Makes every other transaction about this identifier wait until this one ends.
pub(crate) async fn lock_sii(db: &mut AnyConnection, sii_mac: &str) -> Result<(), Failed> {
    let lock = "INSERT INTO siis (sii_mac) VALUES ($1)
                ON CONFLICT (sii_mac) DO UPDATE SET sii_mac = siis.sii_mac";
    sqlx::query(lock).bind(sii_mac).execute(db).await?;
    Ok(())
}

/// The same for the identifier of a registration of this application provider, which is returned
/// if there is such a registration.
pub(crate) async fn lock_sii_of(
    db: &mut AnyConnection,
    id: &str,
    ap: &str,
) -> Result<Option<String>, Failed> {
    let lock = "INSERT INTO siis (sii_mac)
                SELECT sii_mac FROM registrations WHERE id = $1 AND ap = $2
                ON CONFLICT (sii_mac) DO UPDATE SET sii_mac = siis.sii_mac RETURNING sii_mac";
    let row = sqlx::query(lock).bind(id).bind(ap).fetch_optional(db).await?;
    Ok(row.map(|row| row.try_get(0)).transpose()?)
}

/// Counts a code for an identifier and locks it as [`lock_sii`] does. Where too many were sent, it
/// returns the seconds after which another may be.
pub(crate) async fn count_code(
    db: &mut AnyConnection,
    sii_mac: &str,
    now: u64,
) -> Result<Option<u64>, Failed> {
    const HOUR: u64 = 3_600;
    const DAY: u64 = 86_400;
    let count = "INSERT INTO siis (sii_mac, code_1) VALUES ($1, $2)
        ON CONFLICT (sii_mac) DO UPDATE SET
            code_6 = siis.code_5, code_5 = siis.code_4, code_4 = siis.code_3,
            code_3 = siis.code_2, code_2 = siis.code_1, code_1 = $2
        WHERE siis.code_3 <= $3 AND siis.code_6 <= $4";
    let counted = sqlx::query(count)
        .bind(sii_mac)
        .bind(bigint(now))
        .bind(bigint(now.saturating_sub(HOUR)))
        .bind(bigint(now.saturating_sub(DAY)))
        .execute(&mut *db)
        .await?;
    if counted.rows_affected() == 1 {
        return Ok(None);
    }
    let query = sqlx::query("SELECT code_3, code_6 FROM siis WHERE sii_mac = $1").bind(sii_mac);
    let row = query.fetch_one(db).await?;
    let in_an_hour = unsigned(row.try_get(0)?).saturating_add(HOUR);
    let in_a_day = unsigned(row.try_get(1)?).saturating_add(DAY);
    Ok(Some(in_an_hour.max(in_a_day).saturating_sub(now).max(1)))
}

/// What a transaction without refusals ended with.
pub(crate) fn stored<T>(ended: Result<T, Failed>) -> Result<T, StoreError> {
    ended.map_err(|failed| match failed {
        Failed::Store(error) => error,
        Failed::Refused(problem) => StoreError::Query(problem.code.to_owned()),
        Failed::Again => StoreError::Unavailable("transactions in each other's way".to_owned()),
    })
}

const _: () = assert!(CODES_AN_HOUR == 3 && CODES_A_DAY == 6);
