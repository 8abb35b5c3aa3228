//! How values stand in rows.

use sqlx::Row as _;
use sqlx::any::AnyRow;

use crate::registrar::store::Failed;

/// States of a consent.
pub(super) const ASKED: i64 = 1;
/// See [`ASKED`].
pub(super) const GRANTED: i64 = 2;
/// See [`ASKED`].
pub(super) const REVOKED: i64 = 3;

pub(super) fn text(row: &AnyRow, at: usize) -> Result<String, Failed> {
    Ok(row.try_get::<String, _>(at)?)
}

pub(super) fn number(row: &AnyRow, at: usize) -> Result<i64, Failed> {
    Ok(row.try_get::<i64, _>(at)?)
}

pub(super) fn time(seconds: u64) -> i64 {
    i64::try_from(seconds).unwrap_or(i64::MAX)
}
