//! The results as tables. What a number means stands above its table.

use super::confirm::TOWN;
use super::{BATCH, Habit, Observed, Observer, Test};
use crate::table::Table;
use crate::units::number;

impl Observed {
    /// For people.
    pub(crate) fn text(&self) -> String {
        let setting = &self.setting;
        let mut text = format!(
            "Observers of shard numbers: {} devices of one front-end, {} contacts each, {} added \
             a week, {} packs a shard, seed {}; {} attacks on links, {} devices tested.\n{}\n",
            number(setting.devices as f64),
            setting.contacts,
            setting.added_per_week,
            setting.packs,
            setting.seed,
            setting.seeds,
            setting.samples,
            self.head.origin(),
        );
        let mut add = |title: &str, note: &str, table: &Table| {
            text += &format!("\n{title}\n\n{note}\n\n{}", table.text());
        };
        add(
            "1. The front-end: shards and packs, no account",
            LINKS,
            &self.links(Observer::FrontEnd),
        );
        add("2. Answer servers: shards, no account", LINKS, &self.links(Observer::AnswerServers));
        add("3. Relay and front-end together", &account(), &self.account());
        add("4. A front-end that knows where a named person is", BATCHES, &self.batch());
        add("5. A contact that was added", ADDED, &self.added());
        add("6. The relay: how many contacts has an account?", LENGTHS, &self.lengths());
        add("7. How often a batch is asked", INTERVALS, &self.intervals());
        add("8. A first synchronisation", FIRST, &self.first_syncs());
        add("9. A habit", HABITS, &habits(&self.habits));
        text
    }

    /// Columns for each number of days.
    fn heading(&self, begin: &[&str], of_days: &[&str], end: &[&str]) -> Table {
        let days = of_days
            .iter()
            .flat_map(|what| self.setting.days.iter().map(move |days| format!("{what}{days} d")));
        let begin = begin.iter().map(|word| (*word).to_owned());
        let end = end.iter().map(|word| (*word).to_owned());
        Table { rows: vec![begin.chain(days).chain(end).collect()] }
    }

    fn links(&self, observer: Observer) -> Table {
        let mut table = self.heading(&["rule", "shards"], &["", "right, "], &[]);
        for links in self.links.iter().filter(|links| links.observer == observer) {
            let shares = links.list.iter().map(|&share| Some(share)).chain(links.right.clone());
            let shares = shares.map(|share| share.map_or("-".into(), percent));
            table.row([links.rule.to_owned(), links.shards.to_string()].into_iter().chain(shares));
        }
        table
    }

    fn account(&self) -> Table {
        let end = ["bits", "right of a town"];
        let mut table = self.heading(&["rule", "shards"], &["contact, ", "stranger, "], &end);
        for confirmed in &self.confirmed {
            let tests = || confirmed.account.iter();
            let shares = tests().map(|test| test.contact).chain(tests().map(|test| test.stranger));
            let last = tests()
                .next_back()
                .map(|test| [format!("{:.1}", test.bits), percent(test.right_in_town)]);
            let begin = [confirmed.rule.to_owned(), confirmed.shards.to_string()];
            let cells = begin.into_iter().chain(shares.map(percent));
            table.row(cells.chain(last.into_iter().flatten()));
        }
        table
    }

    fn batch(&self) -> Table {
        let mut table = Table::new(["rule", "shards", "contact", "stranger", "bits"]);
        for confirmed in &self.confirmed {
            let Test { contact, stranger, bits, .. } = confirmed.batch;
            let (rule, shards) = (confirmed.rule.to_owned(), confirmed.shards.to_string());
            let bits = format!("{bits:.1}");
            table.row([rule, shards, percent(contact), percent(stranger), bits]);
        }
        table
    }

    fn added(&self) -> Table {
        let mut table = Table::new(["rule", "shards", "asked once", "asked again", "bits"]);
        for confirmed in &self.confirmed {
            let Some(crowd) = confirmed.added else { continue };
            let cells = (confirmed.shards * self.setting.packs) as f64;
            let begin = [confirmed.rule.to_owned(), confirmed.shards.to_string()];
            let numbers = [crowd.first, crowd.again, (cells / crowd.again).log2()];
            table.row(begin.into_iter().chain(numbers.map(|number| format!("{number:.1}"))));
        }
        table
    }

    fn lengths(&self) -> Table {
        let mut table = self.heading(&["rule"], &["width, ", "counted, "], &[]);
        for length in &self.lengths {
            let widths = length.width.iter().map(|width| format!("{width:.0}"));
            let cells = [length.rule.to_owned()].into_iter().chain(widths);
            table.row(cells.chain(length.counted.iter().map(|&share| percent(share))));
        }
        table
    }

    fn intervals(&self) -> Table {
        let heading = ["rule", "contacts", "batches", "mean, days", "nine of ten", "99 of 100"];
        let mut table = Table::new(heading);
        for interval in &self.intervals {
            let batches = interval.contacts.div_ceil(BATCH);
            let begin = [interval.rule.to_owned()];
            let counts = [interval.contacts, batches].map(|count| count.to_string());
            let days = [interval.mean, interval.p90, interval.p99].map(|days| format!("{days:.1}"));
            table.row(begin.into_iter().chain(counts).chain(days));
        }
        table
    }

    fn first_syncs(&self) -> Table {
        let heading = ["devices", "spread over, s", "list linked", "right", "highest probability"];
        let mut table = Table::new(heading);
        for sync in &self.first_syncs {
            let right = sync.right.map_or("-".into(), percent);
            let (devices, seconds) = (number(sync.devices), number(sync.seconds));
            table.row([devices, seconds, percent(sync.list), right, percent(sync.probability)]);
        }
        table
    }
}

fn habits(habits: &[Habit]) -> Table {
    let mut table = Table::new(["always within, s", "bits", "devices with the same"]);
    for Habit { seconds, bits, in_common } in habits {
        let in_common = format!("{in_common:.1}");
        table.row([number(*seconds), format!("{bits:.1}"), in_common]);
    }
    table
}

const LINKS: &str = "\
The share of a contact list that the attack puts under one pseudonym, from one batch on, which
alone is 3%; and the share of the linked batches that are right (-: hardly any is linked).";

fn account() -> String {
    format!(
        "Does account X have contact Y? Yes where a batch of X names Y's cell: for contacts and for
others, what a yes is worth in the end, in bits, and which share is right of all in a town of
{} for whom the test says yes. Closed form: a stranger is a yes with 1 - (1 - 1/M)^n, for n
members that X sent and M cells (packs of shards).",
        number(TOWN),
    )
}

const BATCHES: &str = "\
The evaluator's key tells the cell of each identifier. One batch is known to be of X: does X have
contact Y? Closed form: for a contact 1/n with n batches, for a stranger 16/M.";

const ADDED: &str = "\
The cells among which it hides from who knows the account, when it was asked once, and when all
batches were asked again; and what it is worth then to know that Y's cell is one of them, in
bits: log2(M / cells). Closed form with dummies that stick: 1 + 15 (1 - 1/M)^512.";

const LENGTHS: &str = "\
Width of the interval of contacts that has the number in 90 of 100 cases, and accounts that sent
what is counted. All accounts begin with equally many; what they add widens it.";

const INTERVALS: &str = "\
Days from one look-up of a batch to the next; contacts are not added here.";

const FIRST: &str = "\
Closed forms of what the front-end and answer servers link by times alone, of batches that they
never saw before; and the highest probability that two of them are of one device.";

const HABITS: &str = "\
What it is worth at most to know that two batches always come at the same time of the day, and
how many devices have that time. Two batches of one device of N are linked with log2(N) bits:
13.3 for 10 000.";

fn percent(share: f64) -> String {
    match share * 100.0 {
        percent if percent >= 10.0 => format!("{percent:.0}%"),
        percent if percent >= 1.0 => format!("{percent:.1}%"),
        percent => format!("{percent:.2}%"),
    }
}
