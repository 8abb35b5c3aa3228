//! The report: records and plans as one page that a person would rather look at than read. It is
//! whole in itself: style, data, the plotting library and what calls it stand in the file, and its
//! first line forbids it to ask for anything else.
//!
//! Strings of records and scenarios are input: they get into the page as text through maud, which
//! escapes them, or through JSON without `<`, and into charts as text nodes. [`plan`] and
//! [`records`] say what is drawn; [`page`] is the template of all sections. `bench/tests/report`
//! looks at the page in a browser.

mod chart;
mod page;
mod plan;
mod records;

use crate::found::Found;
use crate::plan::Plan;

/// A page of its own about all of it.
pub fn html(records: &[Found], plans: &[Plan]) -> String {
    let mut sections: Vec<_> = plans.iter().filter_map(|one| plan::section(one, records)).collect();
    sections.extend(records::sections(records));
    page::page(&sections, records, plans)
}
