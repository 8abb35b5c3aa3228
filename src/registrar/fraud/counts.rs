//! The counters in the database.
//!
//! An attempt first reads what was counted, without locks, which refuses most of what is to be
//! refused. Then it counts, each bound within the statement that counts, so that attempts at the
//! same time never exceed it together. Rows are locked in one order: the rate, the conversion of
//! the group, that of the area, closings, the budget.

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row as _};

use crate::registrar::store::{Failed, StoreError};

use super::counters::Closed;
use super::plan::{Plan, Rate, Scope, Scopes};
use super::refusal::{Refusal, Refused, Stopped};
use super::rules::Config;
use crate::limits::fraud::{
    FRAUD_CLOSED_HOURS, FRAUD_CLOSED_HOURS_MAX, FRAUD_CLOSINGS_KEPT_SECONDS,
    FRAUD_COUNTS_KEPT_SECONDS, FRAUD_SLICE_SECONDS,
};

const HOUR: u64 = 3_600;
const DAY: u64 = 86_400;

/// When the hour or the day began.
fn began(now: u64, length: u64) -> u64 {
    now / length * length
}

/// A number as the database has it. No time or bound here is near the end of its range.
fn column(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Messages and money of one row.
struct Used {
    part: u64,
    messages: u64,
    money: u64,
}

/// What was counted of a scope in the current sample.
#[derive(Default)]
struct Conversion {
    sample: u64,
    hours: u64,
    until: u64,
    sent: u64,
    entered: u64,
}

/// What was counted before an attempt.
pub(super) struct Seen {
    group: Conversion,
    area: Conversion,
    rate: u64,
    pub(super) used: Budgets,
}

/// The rows of a provider's budget of a day.
#[derive(Default)]
pub(super) struct Budgets(Vec<Used>);

/// A scope that is to be closed.
pub(super) struct Closing<'a> {
    name: &'a str,
    sample: u64,
    hours: u64,
    until: u64,
}

const LOOK: &str = "
    SELECT 0 AS kind, name, 0 AS part, sample AS a, hours AS b, until AS c, 0 AS d, 0 AS e
    FROM fraud_closings WHERE name IN ($1, $2)
    UNION ALL
    SELECT 1, v.name, v.part, v.slice, v.fresh, v.recent, v.settled, v.entered
    FROM fraud_conversions v
    WHERE v.name IN ($1, $2) AND v.period = $3 AND v.sample = COALESCE(
        (SELECT c.sample FROM fraud_closings c WHERE c.name = v.name), 0)
    UNION ALL
    SELECT 2, name, part, messages, money, 0, 0, 0
    FROM fraud_counts WHERE (name = $4 AND period = $5) OR (name = $6 AND period = $3)";

/// Reads what was counted.
pub(super) async fn look(db: &mut AnyConnection, plan: &Plan, now: u64) -> Result<Seen, Stopped> {
    let rate = plan.rate.as_ref().map_or("", |rate| &rate.name);
    let rows = sqlx::query(LOOK)
        .bind(&*plan.scopes.group.name)
        .bind(&*plan.scopes.area.name)
        .bind(column(began(now, DAY)))
        .bind(rate)
        .bind(column(began(now, HOUR)))
        .bind(&*plan.budget.name)
        .fetch_all(db)
        .await?;
    let mut seen = Seen {
        group: Conversion::default(),
        area: Conversion::default(),
        rate: 0,
        used: Budgets::default(),
    };
    for row in &rows {
        let name: &str = row.try_get(1)?;
        let conversion = match name == plan.scopes.group.name {
            true => &mut seen.group,
            false => &mut seen.area,
        };
        match number(row, 0)? {
            0 => {
                conversion.sample = number(row, 3)?;
                conversion.hours = number(row, 4)?;
                conversion.until = number(row, 5)?;
            }
            1 => {
                conversion.sent += settled(row, now / FRAUD_SLICE_SECONDS)?;
                conversion.entered += number(row, 7)?;
            }
            _ if name == plan.budget.name => seen.used.0.push(used(row, 2)?),
            _ => seen.rate += number(row, 3)?,
        }
    }
    Ok(seen)
}

fn number(row: &AnyRow, index: usize) -> Result<u64, Stopped> {
    let found: i64 = row.try_get(index)?;
    let negative = StoreError::Row("a count against fraud is negative");
    u64::try_from(found).map_err(|_| Stopped::Failed(negative.into()))
}

fn used(row: &AnyRow, first: usize) -> Result<Used, Stopped> {
    let [part, messages, money] = [0, 1, 2].map(|more| number(row, first + more));
    Ok(Used { part: part?, messages: messages?, money: money? })
}

/// How many codes were sent before the last slice of time and the current one.
fn settled(row: &AnyRow, now_slice: u64) -> Result<u64, Stopped> {
    let [slice, fresh, recent, settled] = [3, 4, 5, 6].map(|index| number(row, index));
    let (slice, fresh, recent, settled) = (slice?, fresh?, recent?, settled?);
    // A clock that was set back lets nothing settle.
    Ok(settled
        + match now_slice.saturating_sub(slice) {
            0 => 0,
            1 => recent,
            _ => recent + fresh,
        })
}

impl Seen {
    /// Refuses what may not be sent. Otherwise says what is closed by this attempt.
    pub(super) fn closings<'a>(
        &self,
        config: &Config,
        plan: &'a Plan,
        now: u64,
    ) -> Result<Vec<(Closed, Closing<'a>)>, Refused> {
        let until = self.group.until.max(self.area.until);
        if now < until {
            return Err(Refusal::Closed.until(until, now));
        }
        if plan.rate.as_ref().is_some_and(|rate| self.rate >= rate.bound) {
            return Err(rate_reached(now));
        }
        if let Some(refused) = self.used.reached(plan, now) {
            return Err(refused);
        }
        let scopes = [
            (Closed::Group, &plan.scopes.group, &self.group),
            (Closed::Area, &plan.scopes.area, &self.area),
        ];
        let closing = scopes.into_iter().filter(|(_, _, seen)| {
            let Conversion { entered, sent, .. } = **seen;
            config.is_too_few(entered, sent)
        });
        Ok(closing.map(|(kind, scope, seen)| (kind, seen.closing(&scope.name, now))).collect())
    }
}

impl Conversion {
    fn closing<'a>(&self, name: &'a str, now: u64) -> Closing<'a> {
        let is_again = self.hours > 0 && now <= self.until + FRAUD_CLOSINGS_KEPT_SECONDS;
        let hours = match is_again {
            true => (self.hours * 2).min(FRAUD_CLOSED_HOURS_MAX),
            false => FRAUD_CLOSED_HOURS,
        };
        Closing { name, sample: self.sample + 1, hours, until: now + hours * HOUR }
    }
}

fn rate_reached(now: u64) -> Refused {
    Refusal::Rate.until(began(now, HOUR) + HOUR, now)
}

impl Budgets {
    /// The refusal, if the budget has no room for this attempt.
    fn reached(&self, plan: &Plan, now: u64) -> Option<Refused> {
        let sum = |of: fn(&Used) -> u64| self.0.iter().map(of).sum::<u64>();
        let terms = plan.budget.terms;
        let why = if sum(|used| used.messages) >= terms.messages {
            Refusal::Messages
        } else if sum(|used| used.money) + plan.budget.price > terms.money {
            Refusal::Money
        } else {
            return None;
        };
        Some(why.until(began(now, DAY) + DAY, now))
    }

    /// A row with room for this attempt.
    fn part(&self, plan: &Plan) -> Option<u64> {
        let (budget, terms) = (&plan.budget, plan.budget.terms);
        let parts = (0..terms.parts).map(|part| (budget.first + part) % terms.parts);
        parts.into_iter().find(|&part| {
            let used = self.0.iter().find(|used| used.part == part);
            let (messages, money) = used.map_or((0, 0), |used| (used.messages, used.money));
            let (messages_max, money_max) = terms.share(part);
            messages < messages_max && money + budget.price <= money_max
        })
    }
}

const COUNT: &str = "
    INSERT INTO fraud_counts (name, period, part, messages, money) VALUES ($1, $2, $3, 1, $4)
    ON CONFLICT (name, period, part) DO UPDATE
    SET messages = fraud_counts.messages + 1, money = fraud_counts.money + excluded.money
    WHERE fraud_counts.messages < $5 AND fraud_counts.money + excluded.money <= $6
    RETURNING part";

/// Counts against the bound of an hour.
pub(super) async fn count_rate(
    db: &mut AnyConnection,
    rate: &Rate,
    now: u64,
) -> Result<(), Stopped> {
    let counted = sqlx::query(COUNT)
        .bind(&*rate.name)
        .bind(column(began(now, HOUR)))
        .bind(0_i64)
        .bind(0_i64)
        .bind(column(rate.bound))
        .bind(0_i64)
        .fetch_all(db)
        .await?;
    if counted.is_empty() { Err(rate_reached(now).into()) } else { Ok(()) }
}

/// Counts against the provider's budget of the day, in a row that has room. `seen` is what was read
/// of the budget before; where others were faster, it is read again.
pub(super) async fn count_budget(
    db: &mut AnyConnection,
    plan: &Plan,
    mut seen: Budgets,
    now: u64,
) -> Result<(), Stopped> {
    let (budget, day) = (&plan.budget, began(now, DAY));
    let full = Refusal::Money.until(day + DAY, now);
    // More than one round for each row means that the last room is taken at this moment.
    for _ in 0..=budget.terms.parts {
        if let Some(refused) = seen.reached(plan, now) {
            return Err(refused.into());
        }
        let part = seen.part(plan).ok_or(full)?;
        let (messages_max, money_max) = budget.terms.share(part);
        let counted = sqlx::query(COUNT)
            .bind(&*budget.name)
            .bind(column(day))
            .bind(column(part))
            .bind(column(budget.price))
            .bind(column(messages_max))
            .bind(column(money_max))
            .fetch_all(&mut *db)
            .await?;
        if !counted.is_empty() {
            return Ok(());
        }
        let sql = "SELECT part, messages, money FROM fraud_counts WHERE name = $1 AND period = $2";
        let rows = sqlx::query(sql).bind(&*budget.name).bind(column(day));
        let rows = rows.fetch_all(&mut *db).await?;
        seen = Budgets(rows.iter().map(|row| used(row, 0)).collect::<Result<_, _>>()?);
    }
    Err(full.into())
}

const CONVERT: &str = "
    INSERT INTO fraud_conversions
        (name, period, sample, part, slice, fresh, recent, settled, entered)
    VALUES
        ($1, $3, COALESCE((SELECT sample FROM fraud_closings WHERE name = $1), 0),
            $4, $6, $7, 0, 0, $8),
        ($2, $3, COALESCE((SELECT sample FROM fraud_closings WHERE name = $2), 0),
            $5, $6, $7, 0, 0, $8)
    ON CONFLICT (name, period, sample, part) DO UPDATE SET
        fresh = CASE
            WHEN excluded.slice > fraud_conversions.slice THEN excluded.fresh
            ELSE fraud_conversions.fresh + excluded.fresh END,
        recent = CASE
            WHEN excluded.slice > fraud_conversions.slice + 1 THEN 0
            WHEN excluded.slice > fraud_conversions.slice THEN fraud_conversions.fresh
            ELSE fraud_conversions.recent END,
        settled = fraud_conversions.settled + CASE
            WHEN excluded.slice > fraud_conversions.slice + 1
                THEN fraud_conversions.recent + fraud_conversions.fresh
            WHEN excluded.slice > fraud_conversions.slice THEN fraud_conversions.recent
            ELSE 0 END,
        entered = fraud_conversions.entered + excluded.entered,
        slice = CASE
            WHEN excluded.slice > fraud_conversions.slice THEN excluded.slice
            ELSE fraud_conversions.slice END";

/// Counts a code that is sent.
pub(super) async fn count_sent(
    db: &mut AnyConnection,
    plan: &Plan,
    now: u64,
) -> Result<(), sqlx::Error> {
    convert(db, &plan.scopes, (1, 0), now).await
}

/// Counts a code that was entered.
pub(super) async fn count_entered(
    db: &mut AnyConnection,
    scopes: &Scopes,
    now: u64,
) -> Result<(), Failed> {
    Ok(convert(db, scopes, (0, 1), now).await?)
}

async fn convert(
    db: &mut AnyConnection,
    Scopes { group, area }: &Scopes,
    (sent, entered): (i64, i64),
    now: u64,
) -> Result<(), sqlx::Error> {
    let [Scope { name: group, part: group_part }, Scope { name: area, part: area_part }] =
        [group, area];
    let query = sqlx::query(CONVERT).bind(&**group).bind(&**area).bind(column(began(now, DAY)));
    let query = query.bind(*group_part).bind(*area_part).bind(column(now / FRAUD_SLICE_SECONDS));
    query.bind(sent).bind(entered).execute(db).await?;
    Ok(())
}

const CLOSE: &str = "
    INSERT INTO fraud_closings (name, sample, hours, until) VALUES ($1, $2, $3, $4)
    ON CONFLICT (name) DO UPDATE
    SET sample = excluded.sample, hours = excluded.hours, until = excluded.until
    WHERE fraud_closings.sample < excluded.sample
    RETURNING sample";

/// Closes a scope, unless another attempt has just done so, which is a refusal.
pub(super) async fn close(
    db: &mut AnyConnection,
    closing: Closing<'_>,
    now: u64,
) -> Result<(), Stopped> {
    let closed = sqlx::query(CLOSE)
        .bind(closing.name)
        .bind(column(closing.sample))
        .bind(column(closing.hours))
        .bind(column(closing.until))
        .fetch_all(db)
        .await?;
    match closed.is_empty() {
        true => Err(Refusal::Closed.until(closing.until, now).into()),
        false => Ok(()),
    }
}

/// Deletes what is not needed any more, and what is later than any clock may be ahead.
pub(super) async fn purge(db: &mut AnyConnection, now: u64) -> Result<u64, Failed> {
    let mut deleted = 0;
    let ahead = column(now.saturating_add(FRAUD_COUNTS_KEPT_SECONDS));
    for (sql, kept) in [
        ("DELETE FROM fraud_counts WHERE period < $1 OR period > $2", FRAUD_COUNTS_KEPT_SECONDS),
        (
            "DELETE FROM fraud_conversions WHERE period < $1 OR period > $2",
            FRAUD_COUNTS_KEPT_SECONDS,
        ),
        ("DELETE FROM fraud_closings WHERE until < $1 OR until > $2", FRAUD_CLOSINGS_KEPT_SECONDS),
    ] {
        let query = sqlx::query(sql).bind(column(now.saturating_sub(kept))).bind(ahead);
        deleted += query.execute(&mut *db).await?.rows_affected();
    }
    Ok(deleted)
}
