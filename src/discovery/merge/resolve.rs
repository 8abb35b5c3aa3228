//! What all statements about one identifier amount to: the services of its record, the preferred
//! one first, and which statements have no effect and why.
//!
//! The outcome is a function of the set of statements: neither their order nor the file they stand
//! in decides anything.
//!
//! 1. A mapping that names a new holder voids every statement before it, for good: also after it
//!    has expired or was itself withdrawn, for the holder before has not come back.
//! 2. A withdrawal voids the mappings it is about that are not later than it.
//! 3. Of the mappings that are left for a provider the latest stands (then the lower issuer, then
//!    the lower `jti`). These are the ones in force, and their keys are the keys in force.
//! 4. A preference counts if its key is in force. It replaces one by another key only if a proof
//!    was made for this purpose after that one. A preference begins no earlier than its key is
//!    known to stand for the identifier, so that an app just installed gains nothing by a false
//!    time.
//! 5. What may not lie in the region of the database is left out last: it is in force nevertheless.

use std::collections::HashMap;

use super::super::statement::Code;
use super::row::{MappingRow, PreferenceRow, Row, WithdrawalRow};
use crate::limits::FRESH_PROOF_SECONDS_MAX;

/// Why a statement has no effect on the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// The same line is there already.
    Duplicate,
    /// Refused before; kept only because it names a new holder.
    Expired,
    /// The identifier has a new holder since.
    NewHolder { since: u64 },
    /// Withdrawn at this time.
    Withdrawn { at: u64 },
    /// Another one, issued or made then, replaces it.
    Replaced { at: u64 },
    /// It may not lie in this region.
    Region,
    /// A withdrawal by a key that stands in no mapping.
    WithdrawalKey,
    /// A preference by a key that is not in force.
    PreferenceKey,
    /// A preference that would replace that of another key, without a proof made for it.
    PreferenceTaken,
}

impl Reason {
    pub(super) fn code(self) -> &'static str {
        match self {
            Self::Duplicate => "duplicate",
            Self::Expired => Code::Expired.as_str(),
            Self::NewHolder { .. } => "new_holder",
            Self::Withdrawn { .. } => "withdrawn",
            Self::Replaced { .. } => "replaced",
            Self::Region => "region",
            Self::WithdrawalKey => "withdrawal_key",
            Self::PreferenceKey => Code::PreferenceKey.as_str(),
            Self::PreferenceTaken => Code::PreferenceTaken.as_str(),
        }
    }

    /// Whether it is refused. Otherwise it was accepted, and something else has taken its effect.
    pub(super) fn is_refusal(self) -> bool {
        match self {
            Self::Duplicate | Self::Expired | Self::WithdrawalKey => true,
            Self::PreferenceKey | Self::PreferenceTaken => true,
            Self::NewHolder { .. } | Self::Withdrawn { .. } => false,
            Self::Replaced { .. } | Self::Region => false,
        }
    }

    /// Whether it was reported before.
    pub(super) fn is_known(self) -> bool {
        self == Self::Expired
    }

    pub(super) fn found(self) -> String {
        match self {
            Self::Duplicate => "a line that was there before".into(),
            Self::Expired => "a mapping whose exp is over".into(),
            Self::NewHolder { since } => {
                format!("a statement from before {since}, when the identifier had a new holder")
            }
            Self::Withdrawn { at } => format!("a statement that was withdrawn at {at}"),
            Self::Replaced { at } => format!("a statement that another one of {at} replaces"),
            Self::Region => "a mapping that may lie in another region only".into(),
            Self::WithdrawalKey => "a withdrawal by a key that is the uk of no mapping".into(),
            Self::PreferenceKey => "a preference by a key that no mapping in force has".into(),
            Self::PreferenceTaken => {
                "a preference by another key than the one before, which is in force".into()
            }
        }
    }

    pub(super) fn expected(self) -> &'static str {
        match self {
            Self::Duplicate => "each statement once; remove the second line",
            Self::Expired => "exp after now; let the issuer sign a new statement",
            Self::NewHolder { .. } => {
                "a later statement, if the holder before has the identifier again"
            }
            Self::Withdrawn { .. } => "a later statement, if the person is to be found again",
            Self::Replaced { .. } => "nothing; it can be left out of the input",
            Self::Region => "no region, or that of the database; the other database takes it",
            Self::WithdrawalKey => {
                "the key of a mapping of this identifier, or a withdrawal by its issuer"
            }
            Self::PreferenceKey => {
                "the uk of a mapping of this identifier that is neither expired, replaced nor \
                 withdrawn; register first"
            }
            Self::PreferenceTaken => {
                "the same key, or a mapping of this key with purpose prefer, whose proof was made \
                 after the preference before and within an hour of this one"
            }
        }
    }
}

/// What the record of an identifier says.
#[derive(Debug)]
pub(super) struct Resolved<'a> {
    /// The preferred service first, if there is a preference; the others by provider.
    pub(super) services: Vec<&'a MappingRow>,
    /// Prefers the first service.
    pub(super) preference: Option<&'a PreferenceRow>,
    /// For each row, why it has no effect.
    pub(super) reasons: Vec<Option<Reason>>,
}

/// Resolves all rows of one identifier, sorted by digest.
pub(super) fn resolve<'a>(rows: &'a [Row], region: &str) -> Resolved<'a> {
    let mut state = State { rows, reasons: vec![None; rows.len()] };
    state.mark_duplicates();
    state.void_before_new_holder();
    state.withdraw();
    state.keep_latest();
    let preference = state.preference();
    state.leave_out_region(region);
    let mut services: Vec<&MappingRow> = state.mappings().map(|(_, mapping)| mapping).collect();
    let is_preferred = |mapping: &MappingRow| {
        preference.is_some_and(|preference| preference.ssi.as_ref() == Some(&mapping.ssi))
    };
    services.sort_by_key(|mapping| (!is_preferred(mapping), mapping.provider));
    let preference =
        preference.filter(|_| services.first().is_some_and(|first| is_preferred(first)));
    Resolved { services, preference, reasons: state.reasons }
}

struct State<'a> {
    rows: &'a [Row],
    reasons: Vec<Option<Reason>>,
}

impl<'a> State<'a> {
    /// Rows that nothing has taken out yet.
    fn open(&self) -> impl Iterator<Item = (usize, &'a Row)> {
        let open = |&(index, _): &(usize, &Row)| self.reasons[index].is_none();
        self.rows.iter().enumerate().filter(open)
    }

    fn mappings(&self) -> impl Iterator<Item = (usize, &'a MappingRow)> {
        self.open().filter_map(|(index, row)| Some((index, row.mapping.as_ref()?)))
    }

    fn preferences(&self) -> impl Iterator<Item = (usize, &'a PreferenceRow)> {
        self.open().filter_map(|(index, row)| Some((index, row.preference.as_ref()?)))
    }

    fn mark_duplicates(&mut self) {
        for index in 1..self.rows.len() {
            if self.rows[index].digest == self.rows[index - 1].digest {
                self.reasons[index] = Some(Reason::Duplicate);
            }
        }
    }

    fn void_before_new_holder(&mut self) {
        let new = self.mappings().filter(|(_, mapping)| mapping.new_holder);
        let since = new.map(|(_, mapping)| mapping.iat).max().unwrap_or(0);
        for (index, row) in self.rows.iter().enumerate() {
            let time = match (&row.mapping, &row.preference) {
                (Some(mapping), _) if mapping.expired => {
                    self.reasons[index].get_or_insert(Reason::Expired);
                    continue;
                }
                (Some(mapping), _) => mapping.iat,
                (None, Some(preference)) => preference.time,
                (None, None) => continue,
            };
            if time < since {
                self.reasons[index].get_or_insert(Reason::NewHolder { since });
            }
        }
    }

    fn withdraw(&mut self) {
        let rows = self.rows;
        let has_key = |key: &Vec<u8>| {
            rows.iter().filter_map(|row| row.mapping.as_ref()?.key.as_ref()).any(|k| k == key)
        };
        let withdrawals: Vec<(usize, &WithdrawalRow)> = self
            .open()
            .filter_map(|(index, row)| Some((index, row.withdrawal.as_ref()?)))
            .collect();
        for (index, withdrawal) in withdrawals {
            if withdrawal.key.as_ref().is_some_and(|key| !has_key(key)) {
                self.reasons[index] = Some(Reason::WithdrawalKey);
                continue;
            }
            for (row, reason) in rows.iter().zip(&mut self.reasons) {
                if voids(withdrawal, row) && replaceable(reason, withdrawal.iat) {
                    *reason = Some(Reason::Withdrawn { at: withdrawal.iat });
                }
            }
        }
    }

    fn keep_latest(&mut self) {
        let mut latest: HashMap<u32, (usize, &MappingRow)> = HashMap::new();
        let mut replaced = Vec::new();
        for (index, mapping) in self.mappings() {
            let standing = latest.entry(mapping.provider).or_insert((index, mapping));
            if standing.0 == index {
                continue;
            }
            // Rows are sorted by digest, which decides what is equal in everything else.
            if rank(mapping) < rank(standing.1) {
                replaced.push(*standing);
                *standing = (index, mapping);
            } else {
                replaced.push((index, mapping));
            }
        }
        for (index, mapping) in replaced {
            let at = latest.get(&mapping.provider).map_or(0, |(_, standing)| standing.iat);
            self.reasons[index] = Some(Reason::Replaced { at });
        }
    }

    /// The preference that counts.
    fn preference(&mut self) -> Option<&'a PreferenceRow> {
        // Mappings that are not void: those in force, and those they replace.
        let rows = self.rows.iter().zip(&self.reasons);
        let standing: Vec<&MappingRow> = rows
            .filter(|(_, reason)| matches!(reason, None | Some(Reason::Replaced { .. })))
            .filter_map(|(row, _)| row.mapping.as_ref())
            .collect();
        let of = |key: &[u8]| {
            let key = key.to_vec();
            standing.iter().filter(move |mapping| mapping.key.as_ref() == Some(&key))
        };
        let in_force: Vec<&Vec<u8>> =
            self.mappings().filter_map(|(_, mapping)| mapping.key.as_ref()).collect();

        let mut candidates = Vec::new();
        let mut refused = Vec::new();
        for (index, preference) in self.preferences() {
            if !in_force.contains(&&preference.key) {
                refused.push((index, Reason::PreferenceKey));
                continue;
            }
            let since = of(&preference.key).map(|mapping| mapping.proof_at.min(mapping.iat)).min();
            let begins = preference.time.max(since.unwrap_or(0));
            candidates.push((begins, preference.time, index, preference));
        }
        candidates.sort_by_key(|&(begins, time, index, _)| (begins, time, index));

        let mut current: Option<(u64, usize, &PreferenceRow)> = None;
        for (begins, time, index, preference) in candidates {
            if let Some((before, replaced, standing)) = current {
                let is_proved = |mapping: &&&MappingRow| {
                    mapping.prefer
                        && mapping.proof_at >= before
                        && mapping.proof_at.abs_diff(time) <= FRESH_PROOF_SECONDS_MAX
                };
                if standing.key != preference.key && !of(&preference.key).any(|m| is_proved(&m)) {
                    refused.push((index, Reason::PreferenceTaken));
                    continue;
                }
                refused.push((replaced, Reason::Replaced { at: time }));
            }
            current = Some((begins, index, preference));
        }
        for (index, reason) in refused {
            self.reasons[index] = Some(reason);
        }
        current.map(|(_, _, preference)| preference)
    }

    fn leave_out_region(&mut self, region: &str) {
        let elsewhere: Vec<usize> = self
            .mappings()
            .filter(|(_, mapping)| mapping.region.as_deref().is_some_and(|only| only != region))
            .map(|(index, _)| index)
            .collect();
        for index in elsewhere {
            self.reasons[index] = Some(Reason::Region);
        }
    }
}

/// Lower stands before higher: later, then the lower issuer, then the lower `jti`.
fn rank(mapping: &MappingRow) -> (std::cmp::Reverse<u64>, u32, &str) {
    (std::cmp::Reverse(mapping.iat), mapping.issuer, &mapping.jti)
}

/// Whether a withdrawal voids this row. A preference falls with its own key, or with all.
fn voids(withdrawal: &WithdrawalRow, row: &Row) -> bool {
    let (time, ssi, issuer, key) = match (&row.mapping, &row.preference) {
        (Some(m), _) => (m.iat, Some(&m.ssi), Some(m.issuer), m.key.as_ref()),
        (None, Some(p)) => (p.time, p.ssi.as_ref(), None, Some(&p.key)),
        (None, None) => return false,
    };
    let is_whose = match (&withdrawal.issuer, &withdrawal.key) {
        (Some(by), _) => issuer == Some(*by),
        (None, Some(by)) => key == Some(by),
        (None, None) => true,
    };
    is_whose
        && time <= withdrawal.iat
        && (withdrawal.ssi.is_none() || withdrawal.ssi.as_ref() == ssi)
}

/// Whether a withdrawal at this time is the reason to tell: the latest one is.
fn replaceable(reason: &Option<Reason>, at: u64) -> bool {
    match reason {
        None => true,
        Some(Reason::Withdrawn { at: other }) => *other < at,
        Some(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "mimi://a.example/u/ann";
    const B: &str = "mimi://b.example/u/ann";
    const DAY: u64 = 86_400;

    /// A mapping of provider 1 (`a.example`) or 2 (`b.example`) by issuer 1, with a key of one
    /// byte.
    fn mapping(ssi: &str, iat: u64, key: u8) -> MappingRow {
        MappingRow {
            issuer: 1,
            provider: if ssi.contains("a.example") { 1 } else { 2 },
            ssi: ssi.into(),
            jti: "j".into(),
            iat,
            exp: iat + 400 * DAY,
            proof_at: iat,
            key: Some(vec![key]),
            ..MappingRow::default()
        }
    }

    fn preference(ssi: &str, time: u64, key: u8) -> PreferenceRow {
        PreferenceRow {
            ssi: (!ssi.is_empty()).then(|| ssi.to_owned()),
            time,
            key: vec![key],
            signature: vec![7; 64],
        }
    }

    fn by_issuer(issuer: u32, iat: u64) -> WithdrawalRow {
        WithdrawalRow { issuer: Some(issuer), iat, ..WithdrawalRow::default() }
    }
    fn by_key(key: u8, iat: u64) -> WithdrawalRow {
        WithdrawalRow { key: Some(vec![key]), iat, ..WithdrawalRow::default() }
    }
    fn by_authority(iat: u64) -> WithdrawalRow {
        WithdrawalRow { iat, ..WithdrawalRow::default() }
    }

    impl From<MappingRow> for Row {
        fn from(mapping: MappingRow) -> Self {
            Self { mapping: Some(mapping), ..Self::default() }
        }
    }
    impl From<WithdrawalRow> for Row {
        fn from(withdrawal: WithdrawalRow) -> Self {
            Self { withdrawal: Some(withdrawal), ..Self::default() }
        }
    }
    impl From<PreferenceRow> for Row {
        fn from(preference: PreferenceRow) -> Self {
            Self { preference: Some(preference), ..Self::default() }
        }
    }

    /// What comes out: the services, the key of the preference, and the code of each row.
    #[derive(Debug, PartialEq, Eq)]
    struct Outcome {
        services: Vec<(String, u64)>,
        preference: Option<u8>,
        codes: Vec<&'static str>,
    }

    /// Resolves the rows in every rotation and in reverse, with digests by content.
    fn outcome(rows: &[Row]) -> Outcome {
        let mut outcomes = Vec::new();
        for order in 0..2 * rows.len().max(1) {
            let mut indexed: Vec<(usize, Row)> = rows.iter().cloned().enumerate().collect();
            indexed.rotate_left(order / 2);
            if order % 2 == 1 {
                indexed.reverse();
            }
            // The digest of the content, as if it were the line, so that equal rows are duplicates.
            for (_, row) in &mut indexed {
                row.digest = super::super::row::leaf_hash(&super::super::row::encode(row)).to_vec();
            }
            indexed.sort_by(|(_, a), (_, b)| a.digest.cmp(&b.digest));
            let sorted: Vec<Row> = indexed.iter().map(|(_, row)| row.clone()).collect();
            let resolved = resolve(&sorted, "eu");
            let mut codes = vec![""; rows.len()];
            for ((index, _), reason) in indexed.iter().zip(&resolved.reasons) {
                codes[*index] = reason.map_or("", Reason::code);
            }
            let services = resolved.services.iter().map(|m| (m.ssi.clone(), m.iat)).collect();
            let preference = resolved.preference.map(|preference| preference.key[0]);
            outcomes.push(Outcome { services, preference, codes });
        }
        let first = outcomes.remove(0);
        let strip = |outcome: &Outcome| (outcome.services.clone(), outcome.preference);
        for other in &outcomes {
            assert_eq!(strip(other), strip(&first), "the order of rows decides");
        }
        first
    }

    #[track_caller]
    fn check(rows: Vec<Row>, services: &[&str], preference: Option<u8>, codes: &[&str]) {
        let outcome = outcome(&rows);
        let found: Vec<&str> = outcome.services.iter().map(|(ssi, _)| ssi.as_str()).collect();
        assert_eq!(
            (&found[..], outcome.preference, &outcome.codes[..]),
            (services, preference, codes)
        );
    }

    #[test]
    fn services_are_those_in_force_one_a_provider() {
        check(vec![], &[], None, &[]);
        check(vec![mapping(B, 10, 2).into(), mapping(A, 10, 1).into()], &[A, B], None, &["", ""]);
        // The latest wins, whoever issued it and whatever it expires.
        let later = MappingRow { issuer: 9, exp: 30, ..mapping("mimi://a.example/u/new", 20, 1) };
        check(
            vec![mapping(A, 10, 1).into(), later.into()],
            &["mimi://a.example/u/new"],
            None,
            &["replaced", ""],
        );
    }

    #[test]
    fn ties_go_to_the_lower_issuer_then_to_the_lower_jti_then_to_the_digest() {
        let tied = |issuer, jti: &str, handle: &str| MappingRow {
            issuer,
            jti: jti.into(),
            ..mapping(&format!("mimi://a.example/u/{handle}"), 10, 1)
        };
        let one = |rows: &[MappingRow]| {
            let outcome = outcome(&rows.iter().cloned().map(Row::from).collect::<Vec<_>>());
            assert_eq!(outcome.services.len(), 1);
            outcome.services[0].0.clone()
        };
        assert_eq!(one(&[tied(2, "a", "x"), tied(1, "z", "y")]), "mimi://a.example/u/y");
        assert_eq!(one(&[tied(1, "b", "x"), tied(1, "a", "y")]), "mimi://a.example/u/y");
        // Equal in all of it: the same one in every order, which `outcome` asserts.
        one(&[tied(1, "a", "x"), tied(1, "a", "y"), tied(1, "a", "z")]);
        // The number of an issuer is compared as a number.
        assert_eq!(one(&[tied(10, "a", "x"), tied(9, "a", "y")]), "mimi://a.example/u/y");
    }

    #[test]
    fn a_copy_counts_once_and_a_replay_changes_nothing() {
        let old = mapping("mimi://a.example/u/old", 10, 1);
        let found = outcome(&[old.clone().into(), old.clone().into(), old.clone().into()]);
        assert_eq!(found.services.len(), 1);
        assert_eq!(found.codes.iter().filter(|code| **code == "duplicate").count(), 2);
        let rows = vec![
            old.clone().into(),
            mapping(A, 20, 1).into(),
            Row { line: 9, ..old.clone().into() },
        ];
        assert_eq!(outcome(&rows).services, [(A.to_owned(), 20)]);
        check(vec![old.into(), by_issuer(1, 15).into()], &[], None, &["withdrawn", ""]);
    }

    #[test]
    fn a_new_holder_voids_all_that_is_earlier_for_good() {
        let new = |iat, key| MappingRow { new_holder: true, ..mapping(A, iat, key) };
        // Services of the holder before, at every provider and by every issuer, and the preference.
        let old = MappingRow { issuer: 2, ..mapping(B, 99, 2) };
        check(
            vec![old.clone().into(), preference(B, 99, 2).into(), new(100, 1).into()],
            &[A],
            None,
            &["new_holder", "new_holder", ""],
        );
        // At the same second it is not earlier, and later ones are of the new holder.
        let same = MappingRow { issuer: 2, ..mapping(B, 100, 2) };
        check(vec![same.into(), new(100, 1).into()], &[A, B], None, &["", ""]);
        // It stays so after a withdrawal by the new holder, after a later mapping of the same
        // provider, and after it has expired.
        check(
            vec![old.clone().into(), new(100, 1).into(), by_key(1, 200).into()],
            &[],
            None,
            &["new_holder", "withdrawn", ""],
        );
        check(
            vec![old.clone().into(), new(100, 1).into(), mapping(A, 300, 1).into()],
            &[A],
            None,
            &["new_holder", "replaced", ""],
        );
        let expired = MappingRow { expired: true, ..new(100, 1) };
        check(
            vec![old.clone().into(), expired.clone().into()],
            &[],
            None,
            &["new_holder", "expired"],
        );
        // What has expired is no service itself, and its key is no key in force.
        check(
            vec![expired.into(), preference(A, 150, 1).into()],
            &[],
            None,
            &["expired", "preference_key"],
        );
        // The holder before who has the number again is found again.
        let again = MappingRow { issuer: 2, ..mapping(B, 400, 2) };
        check(
            vec![old.into(), new(100, 1).into(), again.into()],
            &[A, B],
            None,
            &["new_holder", "", ""],
        );
    }

    #[test]
    fn a_new_holder_ends_the_preference_of_the_same_key_too() {
        let new = MappingRow { new_holder: true, ..mapping(A, 100, 1) };
        check(
            vec![mapping(A, 10, 1).into(), preference(A, 20, 1).into(), new.into()],
            &[A],
            None,
            &["new_holder", "new_holder", ""],
        );
    }

    #[test]
    fn withdrawals_void_what_is_not_later_and_theirs() {
        let other = MappingRow { issuer: 2, ..mapping(B, 10, 2) };
        let both = |withdrawal: WithdrawalRow| {
            vec![mapping(A, 10, 1).into(), other.clone().into(), withdrawal.into()]
        };
        check(both(by_issuer(1, 10)), &[B], None, &["withdrawn", "", ""]);
        check(both(by_issuer(1, 9)), &[A, B], None, &["", "", ""]);
        check(both(by_issuer(3, 99)), &[A, B], None, &["", "", ""]);
        check(both(by_key(2, 10)), &[A], None, &["", "withdrawn", ""]);
        check(both(by_key(2, 9)), &[A, B], None, &["", "", ""]);
        check(both(by_authority(10)), &[], None, &["withdrawn", "withdrawn", ""]);
        check(both(by_authority(9)), &[A, B], None, &["", "", ""]);
        // A key that stands in no mapping withdraws nothing, and that is reported.
        check(both(by_key(3, 99)), &[A, B], None, &["", "", "withdrawal_key"]);
        // Of one SSI.
        let of = |ssi: &str| WithdrawalRow { ssi: Some(ssi.into()), ..by_authority(99) };
        check(both(of(A)), &[B], None, &["withdrawn", "", ""]);
        check(both(of("mimi://a.example/u/bob")), &[A, B], None, &["", "", ""]);
        // Whoever registers again after a withdrawal is found, and the old one stays void.
        check(
            vec![mapping(A, 10, 1).into(), by_authority(10).into(), mapping(A, 11, 1).into()],
            &[A],
            None,
            &["withdrawn", "", ""],
        );
    }

    #[test]
    fn a_user_without_a_key_is_withdrawn_by_the_issuer_only() {
        let exempt = MappingRow { key: None, ..mapping(A, 10, 1) };
        check(
            vec![exempt.clone().into(), by_key(1, 99).into()],
            &[A],
            None,
            &["", "withdrawal_key"],
        );
        check(vec![exempt.into(), by_issuer(1, 99).into()], &[], None, &["withdrawn", ""]);
    }

    #[test]
    fn a_preference_counts_if_its_key_is_in_force() {
        let both = || vec![Row::from(mapping(A, 10, 1)), mapping(B, 10, 2).into()];
        let with = |rows: Vec<Row>| [both(), rows].concat();
        check(with(vec![preference(B, 20, 1).into()]), &[B, A], Some(1), &["", "", ""]);
        check(with(vec![preference(A, 20, 2).into()]), &[A, B], Some(2), &["", "", ""]);
        // Forged: by a key that stands for nobody, or for another identifier.
        let forged = with(vec![preference(B, 20, 3).into()]);
        check(forged, &[A, B], None, &["", "", "preference_key"]);
        // Of a key whose mapping was withdrawn, replaced by another key, or has expired.
        let withdrawn = with(vec![preference(A, 20, 2).into(), by_issuer(1, 30).into()]);
        check(withdrawn, &[], None, &["withdrawn", "withdrawn", "preference_key", ""]);
        let replaced = with(vec![preference(B, 20, 1).into(), mapping(A, 30, 9).into()]);
        check(replaced, &[A, B], None, &["replaced", "", "preference_key", ""]);
        // For nobody, and for what is not there: no service is preferred.
        check(with(vec![preference("", 20, 1).into()]), &[A, B], None, &["", "", ""]);
        let gone = "mimi://c.example/u/ann";
        check(with(vec![preference(gone, 20, 1).into()]), &[A, B], None, &["", "", ""]);
        // The same key again: the later one, also if it prefers nobody; an old one replayed is old.
        let again = with(vec![preference(B, 20, 1).into(), preference(A, 30, 1).into()]);
        check(again, &[A, B], Some(1), &["", "", "replaced", ""]);
        let none = with(vec![preference(B, 20, 1).into(), preference("", 30, 1).into()]);
        check(none, &[A, B], None, &["", "", "replaced", ""]);
    }

    #[test]
    fn the_user_withdraws_the_preference_with_the_mapping() {
        // The same key registers again later; what it preferred before is over.
        let rows = vec![
            mapping(A, 10, 1).into(),
            preference(A, 20, 1).into(),
            by_key(1, 30).into(),
            mapping(A, 40, 1).into(),
        ];
        check(rows, &[A], None, &["withdrawn", "withdrawn", "", ""]);
    }

    /// The attack that the rules of preferences are about.
    #[test]
    fn an_app_just_installed_cannot_make_itself_the_default() {
        let hour = FRESH_PROOF_SECONDS_MAX;
        let (year, now) = (365 * DAY, 400 * DAY);
        let settled = || vec![Row::from(mapping(A, 1_000, 1)), preference(A, 2_000, 1).into()];
        let app = |mapping: MappingRow, preferred: PreferenceRow| {
            [settled(), vec![mapping.into(), preferred.into()]].concat()
        };
        let refused = ["", "", "", "preference_taken"];
        // It registers, and prefers itself: later, and with a time before the one that stands.
        for time in [now, 1_500, 500, 0] {
            check(app(mapping(B, now, 2), preference(B, time, 2)), &[A, B], Some(1), &refused);
        }
        // Nor with a fresh proof that was made to register.
        check(app(mapping(B, now, 2), preference(B, now + 10, 2)), &[A, B], Some(1), &refused);
        // Nor can it say that nobody is preferred, or prefer a third one.
        check(app(mapping(B, now, 2), preference("", now, 2)), &[A, B], Some(1), &refused);
        // Its issuer vouches that the person proved the number for this purpose: it may.
        let proved = |proof_at| MappingRow { prefer: true, proof_at, ..mapping(B, now, 2) };
        let accepted = ["", "replaced", "", ""];
        for time in [now - hour, now, now + hour] {
            check(app(proved(now), preference(B, time, 2)), &[B, A], Some(2), &accepted);
        }
        // Not much later, nor much earlier, nor with a proof from before what it replaces.
        for time in [now - hour - 1, now + hour + 1, now + year] {
            check(app(proved(now), preference(B, time, 2)), &[A, B], Some(1), &refused);
        }
        let early = app(proved(1_999), preference(B, 2_001, 2));
        check(early, &[A, B], Some(1), &refused);
        // The proof of one key is none of another, even at the same provider.
        let third = MappingRow { provider: 3, ..mapping("mimi://c.example/u/ann", now, 3) };
        let mut rows = app(proved(now), preference("mimi://c.example/u/ann", now, 3));
        rows.push(third.into());
        check(
            rows,
            &[A, B, "mimi://c.example/u/ann"],
            Some(1),
            &["", "", "", "preference_taken", ""],
        );
    }

    #[test]
    fn the_key_before_cannot_take_a_preference_back_that_was_proved() {
        let proved = MappingRow { prefer: true, ..mapping(B, 5_000, 2) };
        let rows = vec![
            mapping(A, 1_000, 1).into(),
            preference(A, 2_000, 1).into(),
            proved.clone().into(),
            preference(B, 5_010, 2).into(),
            preference(A, 6_000, 1).into(),
        ];
        check(rows.clone(), &[B, A], Some(2), &["", "replaced", "", "", "preference_taken"]);
        // A renewal without the purpose does not undo it.
        let renewed = [rows, vec![mapping(B, 7_000, 2).into()]].concat();
        let codes = ["", "replaced", "replaced", "", "preference_taken", ""];
        check(renewed, &[B, A], Some(2), &codes);
    }

    #[test]
    fn a_key_no_longer_in_force_leaves_its_place() {
        let rows = |end: Row| {
            vec![
                mapping(A, 1_000, 1).into(),
                preference(A, 2_000, 1).into(),
                mapping(B, 3_000, 2).into(),
                preference(B, 4_000, 2).into(),
                end,
            ]
        };
        // The app that was the default is removed: by its user, or as another installation.
        let codes = ["withdrawn", "withdrawn", "", "", ""];
        check(rows(by_key(1, 5_000).into()), &[B], Some(2), &codes);
        let codes = ["replaced", "preference_key", "", "", ""];
        check(rows(mapping(A, 5_000, 9).into()), &[B, A], Some(2), &codes);
    }

    /// Renewed mappings keep the time of the proof, so that an old preference stays the earlier one
    /// after the mapping it began with is gone.
    #[test]
    fn a_renewed_key_keeps_its_place_against_a_false_time() {
        let renewed = MappingRow { proof_at: 1_000, ..mapping(A, 9_000, 1) };
        let rows = vec![
            renewed.into(),
            preference(A, 2_000, 1).into(),
            mapping(B, 5_000, 2).into(),
            preference(B, 1_500, 2).into(),
        ];
        check(rows, &[A, B], Some(1), &["", "", "", "preference_taken"]);
    }

    #[test]
    fn a_region_takes_what_may_lie_there_and_decides_nothing_else() {
        let only = |region: &str, mapping| MappingRow { region: Some(region.into()), ..mapping };
        check(
            vec![only("eu", mapping(A, 10, 1)).into(), only("us", mapping(B, 10, 2)).into()],
            &[A],
            None,
            &["", "region"],
        );
        // The older one without a region does not come back in place of the later one.
        check(
            vec![mapping(A, 10, 1).into(), only("us", mapping(A, 20, 1)).into()],
            &[],
            None,
            &["replaced", "region"],
        );
        // The preferred one lies elsewhere: none is preferred here, and no other takes its place.
        let rows = vec![
            only("us", mapping(A, 10, 1)).into(),
            mapping(B, 10, 2).into(),
            preference(A, 20, 1).into(),
            preference(B, 30, 2).into(),
        ];
        check(rows, &[B], None, &["region", "", "", "preference_taken"]);
        // A new holder elsewhere is a new holder here.
        let new = only("us", MappingRow { new_holder: true, ..mapping(A, 100, 1) });
        check(vec![mapping(B, 10, 2).into(), new.into()], &[], None, &["new_holder", "region"]);
    }
}
