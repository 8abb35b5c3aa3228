//! Whose turn it is: front-ends share what engines scan, each by its weight.
//!
//! This is deficit round robin with the smallest possible quantum, so that a large share does not
//! mean a long burst of turns.
//!
//! The measure is bytes scanned. A batch reads its shard once, and each of its queries takes as
//! long as reading a part of it ([`QUERIES_LIKE_A_SCAN`]). Who rides along pays as in a full batch:
//! for its queries, and for as many of the batch's places; whoever's turn it is pays for the empty
//! ones. Otherwise riders would pay more for small batches of others than for full ones of their
//! own.
//!
//! A front-end alone has every turn, at no later cost: a new one begins where those who wait are.
//! Nobody saves up turns by being away, and leaving pays no debt.

use std::collections::{BTreeSet, HashMap};

use super::query::FrontEnd;
use crate::limits::{BATCH_QUERIES_PER_SCAN_MAX, FRONT_ENDS_REMEMBERED_MAX, QUERIES_LIKE_A_SCAN};

/// What a front-end has had, in bytes times [`UNIT`] for each of its share.
pub(super) type Spent = u128;

/// Above the largest share, so that a byte counts for every front-end.
const UNIT: Spent = 1 << 32;

/// Batches of shards of one size, and their queries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Load {
    pub(super) batches: usize,
    pub(super) queries: usize,
}

impl Load {
    /// Takes note that a line, which had `before` queries, has `after`.
    pub(super) fn change(&mut self, before: usize, after: usize) {
        let batches = |queries: usize| queries.div_ceil(BATCH_QUERIES_PER_SCAN_MAX);
        self.batches = self.batches + batches(after) - batches(before);
        self.queries = self.queries + after - before;
    }

    /// All of it in scans that answer nothing.
    pub(super) fn in_scans(self) -> f64 {
        self.batches as f64 + self.queries as f64 / QUERIES_LIKE_A_SCAN as f64
    }
}

/// What a part of a batch that reads `scan_bytes` costs: so many of its places, taken or empty, and
/// so many queries.
pub(super) fn cost(scan_bytes: u64, places: usize, queries: usize) -> Spent {
    let scan = u128::from(scan_bytes) * UNIT;
    let places = scan * places as u128 / BATCH_QUERIES_PER_SCAN_MAX as u128;
    places + scan * queries as u128 / QUERIES_LIKE_A_SCAN as u128
}

#[derive(Debug)]
struct Account {
    share: u32,
    spent: Spent,
    waits: bool,
}

#[derive(Debug, Default)]
pub(super) struct Turns {
    accounts: HashMap<u64, Account>,
    /// Those who wait, least spent first.
    order: BTreeSet<(Spent, u64)>,
    /// What the front-end of the last turn had spent before it. It only grows.
    level: Spent,
    /// Of those who wait, added up.
    shares: u64,
}

impl Turns {
    /// Front-ends with queries waiting, the next turn's first.
    pub(super) fn order(&self) -> impl Iterator<Item = u64> {
        self.order.iter().map(|&(_, front_end)| front_end)
    }

    pub(super) fn enter(&mut self, front_end: FrontEnd) {
        let level = self.level;
        let account = self.account(front_end);
        let before = if account.waits { u64::from(account.share) } else { 0 };
        account.share = front_end.share.max(1);
        let share = u64::from(account.share);
        if !account.waits {
            account.waits = true;
            account.spent = account.spent.max(level);
            let place = (account.spent, front_end.number);
            self.order.insert(place);
        }
        self.shares = self.shares - before + share;
    }

    /// A front-end's account; a new one where it has none.
    fn account(&mut self, front_end: FrontEnd) -> &mut Account {
        let FrontEnd { number, share } = front_end;
        if !self.accounts.contains_key(&number) {
            // Who owes nothing begins as if it were new; once there are too many, so do all who
            // are away.
            let level = self.level;
            let debts = self.accounts.len() < FRONT_ENDS_REMEMBERED_MAX;
            self.accounts.retain(|_, other| other.waits || (debts && other.spent > level));
        }
        let new = Account { share: share.max(1), spent: 0, waits: false };
        self.accounts.entry(number).or_insert(new)
    }

    /// A front-end, whether it waits or not, was sent or brought so many bytes that are no query's.
    pub(super) fn charge_bytes(&mut self, front_end: FrontEnd, bytes: u64) {
        self.account(front_end);
        self.charge(front_end.number, Spent::from(bytes) * UNIT);
    }

    pub(super) fn leave(&mut self, front_end: u64) {
        let account = self.accounts.get_mut(&front_end);
        let account = account.expect("this is a bug: a front-end without account leaves");
        account.waits = false;
        self.shares -= u64::from(account.share);
        self.order.remove(&(account.spent, front_end));
    }

    /// A front-end that waits has one part in so many of the engines, beside the others who wait.
    pub(super) fn one_in(&self, front_end: u64) -> f64 {
        self.shares as f64 / f64::from(self.accounts[&front_end].share)
    }

    pub(super) fn begin(&mut self, front_end: u64) {
        self.level = self.level.max(self.accounts[&front_end].spent);
    }

    /// Those of the others who may ride along, whoever has had least first. Who is a full batch
    /// ahead may not: it would make everybody's batch full, and owe ever more.
    pub(super) fn riders(
        &self,
        turn_of: u64,
        scan_bytes: u64,
        others: impl Iterator<Item = u64>,
    ) -> Vec<u64> {
        let full = cost(scan_bytes, BATCH_QUERIES_PER_SCAN_MAX, BATCH_QUERIES_PER_SCAN_MAX);
        let most =
            |other: &Account| self.accounts[&turn_of].spent + full / Spent::from(other.share);
        let mut riders: Vec<_> = others
            .map(|other| (&self.accounts[&other], other))
            .filter(|(account, other)| *other != turn_of && account.spent <= most(account))
            .map(|(account, other)| (account.spent, other))
            .collect();
        riders.sort_unstable();
        riders.into_iter().map(|(_, other)| other).collect()
    }

    /// A front-end with an account had a part of a batch, or other bytes.
    pub(super) fn charge(&mut self, front_end: u64, cost: Spent) {
        let account = self.accounts.get_mut(&front_end);
        let account = account.expect("this is a bug: a front-end without account is charged");
        let before = account.spent;
        // Where engines differ in what they may take, one who could not take is not owed for it.
        account.spent = before.max(self.level) + cost / Spent::from(account.share);
        if self.order.remove(&(before, front_end)) {
            self.order.insert((account.spent, front_end));
        }
    }

    #[cfg(test)]
    pub(super) fn remembered(&self) -> usize {
        self.accounts.len()
    }
}
