//! The report: records and plans as one page, whole in itself: style, data and scripts stand in the
//! file, and its first line forbids it to ask for anything else. Strings of records and scenarios
//! are input: they get into the page through maud, which escapes them, or through JSON without `<`.
//! `bench/tests/report` looks at the page in a browser. [`picture`] is a file by itself.

mod chart;
mod observer;
mod page;
mod plan;
mod records;

use crate::found::Found;
use crate::plan::Plan;

pub(crate) use observer::picture;

/// A page of its own about all of it.
pub fn html(records: &[Found], plans: &[Plan]) -> String {
    let mut sections: Vec<_> = plans.iter().filter_map(|one| plan::section(one, records)).collect();
    sections.extend(records::sections(records));
    page::page(&sections, records, plans)
}
