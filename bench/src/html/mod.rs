//! The report: records and plans as one page that a person would rather look at than read. It is
//! whole in itself: style, data, the plotting library and what calls it stand in the file, and its
//! first line forbids it to ask for anything else.
//!
//! Strings of records and scenarios are input: they get into the page as text through maud, which
//! escapes them, or through JSON without `<` ([`page`]), and into charts as text nodes. Here: the
//! order of sections. [`chart`] is what a chart is, a module a kind of record what is drawn of it.
//! The page is looked at by a browser in `bench/tests/report`.

mod chart;
mod load;
mod number;
mod operations;
mod page;
mod plan;
mod processor;

use maud::html;

use crate::found::{Found, Record};
use crate::plan::Plan;
use page::Page;

/// A page of its own about all of it.
pub fn html(records: &[Found], plans: &[Plan]) -> String {
    let mut page = Page::default();
    let loads: Vec<_> = records
        .iter()
        .filter_map(|found| match &found.record {
            Record::Load(report) => Some((found, &**report)),
            _ => None,
        })
        .collect();
    let sections = html! {
        @for plan in plans { (plan::section(&mut page, plan, &loads)) }
        (load::section(&mut page, &loads))
        @for found in records {
            @match &found.record {
                Record::Kernel(kernel) => (processor::kernel(&mut page, found, kernel)),
                Record::Gpu(gpu) => (processor::gpu(&mut page, found, gpu)),
                _ => {}
            }
        }
        (operations::section(&mut page, records))
    };
    page.finish(&sections, records, plans)
}
