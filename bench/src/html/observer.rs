//! What observers of shard numbers learn, as a picture.

use super::chart::{self, Chart, Kind, Point, Series};
use crate::observer::{Observed, Observer};
use crate::units::{Unit, number};

/// The picture of a simulation, as SVG: the larger number of shards.
pub(crate) fn picture(observed: &Observed) -> String {
    let setting = &observed.setting;
    let title = format!(
        "What observers of shard numbers learn: {} devices with {} contacts, {} shards",
        number(setting.devices as f64),
        setting.contacts,
        number(setting.shards[1] as f64),
    );
    chart::picture(&title, &[links(observed), account(observed), first_syncs(observed)])
}

/// What the series are called, shortest time first.
fn after(observed: &Observed) -> [String; 3] {
    observed.setting.days.map(|days| format!("after {days} d"))
}

fn links(observed: &Observed) -> Chart {
    let names = after(observed);
    let of_front_end = observed.links.iter().filter(|links| {
        links.observer == Observer::FrontEnd && links.shards == observed.setting.shards[1]
    });
    let rows = of_front_end.map(|links| {
        let values = names.iter().map(String::as_str).zip(links.list.iter().copied());
        (links.rule.to_owned(), values.collect())
    });
    let note = "a front-end without accounts; one batch of the list is 3%";
    let title = ("Contacts under one pseudonym", note);
    Chart::rows(Kind::Dots, title, ("of a contact list", Unit::Share), rows.collect())
}

fn account(observed: &Observed) -> Chart {
    let names = after(observed);
    let strangers = format!("strangers, {}", names[2]);
    let of_rule = observed.confirmed.iter().filter(|test| test.rule == observed.links[0].rule);
    let rows = of_rule.map(|confirmed| {
        let contacts = confirmed.account.iter().map(|test| test.contact);
        let mut values: Vec<_> = names.iter().map(String::as_str).zip(contacts).collect();
        values.extend(confirmed.account.last().map(|test| (&*strangers, test.stranger)));
        (format!("{} shards", number(confirmed.shards as f64)), values)
    });
    let note = "relay and front-end together test a named person; one batch a call";
    let title = ("For whom the test says yes", note);
    Chart::rows(Kind::Dots, title, ("of all", Unit::Share), rows.collect())
}

fn first_syncs(observed: &Observed) -> Chart {
    let of = |devices: f64, tone| {
        let syncs = observed.first_syncs.iter().filter(|sync| sync.devices == devices);
        let points = syncs.map(|sync| Point::new(sync.seconds * 1e3, sync.probability));
        Series::new(&format!("{} devices", number(devices)), tone, points.collect())
    };
    let mut devices: Vec<f64> = observed.first_syncs.iter().map(|sync| sync.devices).collect();
    devices.dedup();
    let series =
        devices.into_iter().zip(["blue", "orange"]).map(|(devices, tone)| of(devices, tone));
    let note = "the highest probability that two new batches are of one device";
    let x = ("batches spread over", Unit::Ms);
    Chart::lines(("First synchronisation", note), x, ("probability", Unit::Share), series.collect())
}
