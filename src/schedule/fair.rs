//! Whose turn it is: callers share what engines scan, each by its weight.
//!
//! Deficit round robin with the smallest quantum there is: the next turn is that of the caller who
//! has had least for its share, one pass a turn, so that no caller's burst of turns is as long as
//! its share is large. What others' queries cost that ride along is charged to them like a turn of
//! their own. A caller alone has every turn, at no later cost: who comes begins where those who
//! wait are. Who was away saves nothing up, and leaving pays no debt.
//!
//! Numbers only: which shard a turn goes to is `lines`', what rides along `mod.rs`'s to say.

use std::collections::{BTreeSet, HashMap};

use super::Caller;
use crate::limits::CALLERS_REMEMBERED_MAX;

/// What a caller has had, in bytes scanned times [`UNIT`] for each of its share.
type Spent = u128;

/// Above the largest share, so that a byte counts for every caller.
const UNIT: Spent = 1 << 32;

#[derive(Debug)]
struct Account {
    share: u32,
    spent: Spent,
    waits: Waits,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waits {
    Yes,
    No,
}

/// The accounts of all callers.
#[derive(Debug, Default)]
pub(super) struct Turns {
    accounts: HashMap<u64, Account>,
    /// Those who wait, least spent first.
    order: BTreeSet<(Spent, u64)>,
    /// What whoever had the last turn had spent before it: nobody who can take what others can has
    /// had less. Only grows.
    level: Spent,
}

impl Turns {
    /// Callers with queries waiting, the next turn's first.
    pub(super) fn order(&self) -> impl Iterator<Item = u64> {
        self.order.iter().map(|&(_, caller)| caller)
    }

    /// A caller has queries waiting.
    pub(super) fn enter(&mut self, caller: Caller) {
        let Caller { number, share } = caller;
        if !self.accounts.contains_key(&number) {
            // Whoever is level begins as if it had never been here; so do all who are away once
            // there are too many of them.
            let level = self.level;
            let debts = self.accounts.len() < CALLERS_REMEMBERED_MAX;
            self.accounts
                .retain(|_, other| other.waits == Waits::Yes || (debts && other.spent > level));
        }
        let new = Account { share, spent: 0, waits: Waits::No };
        let account = self.accounts.entry(number).or_insert(new);
        account.share = share.max(1);
        if account.waits == Waits::No {
            account.waits = Waits::Yes;
            account.spent = account.spent.max(self.level);
            self.order.insert((account.spent, number));
        }
    }

    /// A caller has no more queries waiting.
    pub(super) fn leave(&mut self, caller: u64) {
        let account = self.accounts.get_mut(&caller);
        let account = account.expect("this is a bug: a caller without account leaves");
        account.waits = Waits::No;
        self.order.remove(&(account.spent, caller));
    }

    /// It is a caller's turn.
    pub(super) fn begin(&mut self, caller: u64) {
        self.level = self.level.max(self.accounts[&caller].spent);
    }

    /// A caller's query was one of so many in a pass of so many bytes.
    pub(super) fn charge(&mut self, caller: u64, pass_bytes: u64, queries: usize) {
        let account = self.accounts.get_mut(&caller);
        let account = account.expect("this is a bug: a caller without account is charged");
        let before = account.spent;
        let part = u128::from(pass_bytes) * UNIT / (queries as u128 * u128::from(account.share));
        // Where engines differ in what they may take, one who could not take is not owed for it.
        account.spent = before.max(self.level) + part;
        if self.order.remove(&(before, caller)) {
            self.order.insert((account.spent, caller));
        }
    }

    /// Callers it knows.
    #[cfg(test)]
    pub(super) fn remembered(&self) -> usize {
        self.accounts.len()
    }
}
