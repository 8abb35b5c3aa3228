//! Every rule one below and above its bound, on both databases.

use std::collections::BTreeMap;

use crate::discovery::identifier::Identifier;
use crate::discovery::statement::Purpose;
use crate::registrar::api::Channel;
use crate::registrar::postgres::both;
use crate::registrar::store::transaction;
use crate::registrar::{Problem, Store};
use sha2::{Digest as _, Sha256};
use sqlx::Row as _;

use super::*;
use crate::limits::fraud::{FRAUD_PARTS, FRAUD_PARTS_MESSAGES_MIN};

const DAY: u64 = 86_400;
const HOUR: u64 = 3_600;
/// Ten in the morning, UTC.
const NOW: u64 = 20_800 * DAY + 10 * HOUR;
/// When what was sent at [`NOW`] counts.
const SETTLED: u64 = NOW + 10 * 60;
const AP: &str = "ap.example";
const KEY: [u8; 32] = [7; 32];

fn rules() -> Rules {
    let prices = [("DE", 75), ("FR", 50), ("US", 10)];
    let prices = prices.map(|(country, price)| (country.to_owned(), price)).into();
    let call_prices = BTreeMap::from([("DE".to_owned(), 20)]);
    Rules { prices, call_prices, email_price: 1, ..Rules::default() }
}

/// Rules of conversion only, so that a test may send what it likes.
fn without_rates() -> Rules {
    Rules { prefix_an_hour: 100_000, domain_an_hour: 100_000, ..rules() }
}

fn ap(messages_a_day: u64, money_a_day: u64) -> ApRules {
    ApRules { countries: vec!["DE".into(), "US".into()], messages_a_day, money_a_day }
}

fn fraud(rules: Rules, ap: ApRules) -> Fraud {
    let aps = [AP, "other.example"].map(|name| (name.to_owned(), ap.clone()));
    Fraud::new(rules, aps.into(), Zeroizing::new(KEY)).unwrap()
}

fn wide(rules: Rules) -> Fraud {
    fraud(rules, ap(5_000, 5_000_000))
}

fn sii(text: &str) -> Identifier {
    Identifier::parse(text, None).unwrap()
}

/// A German mobile number of a prefix.
fn mobile(prefix: usize, number: usize) -> Identifier {
    sii(&format!("+49151{prefix:04}{number:04}"))
}

fn mac(sii: &Identifier) -> String {
    let digest = Sha256::digest(sii.as_str());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn channel_of(sii: &Identifier) -> Channel {
    if sii.digits().is_some() { Channel::Sms } else { Channel::Email }
}

fn attempt<'a>(ap: &'a str, sii: &'a Identifier, sii_mac: &'a str) -> Attempt<'a> {
    Attempt { ap, sii, sii_mac, channel: channel_of(sii), purpose: Purpose::Register }
}

fn refused(failed: Failed) -> Problem {
    match failed {
        Failed::Refused(problem) => problem,
        failed => panic!("{failed:?}"),
    }
}

/// A world of one database.
struct World<'a> {
    store: &'a Store,
    fraud: Fraud,
}

impl World<'_> {
    async fn admit_by(
        &self,
        ap: &str,
        channel: Channel,
        sii: &Identifier,
        now: u64,
    ) -> Result<(), Problem> {
        let sii_mac = mac(sii);
        let admitted = transaction!(self.store, |db| {
            let attempt = Attempt { channel, ..attempt(ap, sii, &sii_mac) };
            self.fraud.admit(db, &attempt, now).await
        });
        admitted.await.map_err(refused)
    }

    async fn admit(&self, ap: &str, sii: &Identifier, now: u64) -> Result<(), Problem> {
        self.admit_by(ap, channel_of(sii), sii, now).await
    }

    async fn refusal(&self, sii: &Identifier, now: u64) -> (&'static str, u16, Option<u64>) {
        let problem = self.admit(AP, sii, now).await.unwrap_err();
        (problem.code, problem.status, problem.retry_after)
    }

    /// Sends codes to all and lets the first of them be entered, in one transaction.
    async fn send(&self, siis: &[Identifier], entered: usize, now: u64) {
        let sent = transaction!(self.store, |db| {
            for (index, sii) in siis.iter().enumerate() {
                let sii_mac = mac(sii);
                let attempt = attempt(AP, sii, &sii_mac);
                self.fraud.admit(db, &attempt, now).await?;
                if index < entered {
                    self.fraud.entered(db, &attempt, now).await?;
                }
            }
            Ok(())
        });
        sent.await.unwrap();
    }

    async fn rows(&self) -> Vec<String> {
        let mut found = Vec::new();
        for sql in [
            "SELECT name, period, part, messages, money FROM fraud_counts ORDER BY 1, 2, 3",
            "SELECT name, period, sample, part, slice, fresh, recent, settled, entered
             FROM fraud_conversions ORDER BY 1, 2, 3, 4",
            "SELECT name, sample, hours, until FROM fraud_closings ORDER BY 1",
        ] {
            for row in sqlx::query(sql).fetch_all(self.store.pool()).await.unwrap() {
                let numbers: Vec<i64> = (1..row.len()).map(|index| row.get(index)).collect();
                found.push(format!("{} {numbers:?}", row.get::<String, _>(0)));
            }
        }
        found
    }

    fn sample(&self, name: &str, labels: &[&str]) -> f64 {
        let samples = self.fraud.samples();
        let values = |sample: &Sample| -> Vec<String> {
            sample.labels.iter().map(|(_, value)| value.clone()).collect()
        };
        let found = samples.iter().find(|sample| sample.name == name && values(sample) == labels);
        found.unwrap_or_else(|| panic!("{name} {labels:?}")).value
    }
}

/// Fifty numbers of as many prefixes.
fn spread_out(count: usize) -> Vec<Identifier> {
    (0..count).map(|prefix| mobile(prefix, 1)).collect()
}

#[tokio::test]
async fn number_types_and_channels() {
    both(MIGRATIONS, async |store| {
        let world = World { store: &store, fraud: wide(rules()) };
        let cases = [
            ("+4915112345678", true, true),   // mobile
            ("+12015550123", true, true),     // fixed or mobile
            ("+4930901820", false, true),     // fixed
            ("+498001234567", false, false),  // toll-free
            ("+499001234567", false, false),  // premium rate
            ("+491801123456", false, false),  // shared cost
            ("+493222123456", false, false),  // internet telephony
            ("+4916412345", false, false),    // pager
            ("+4970012345678", false, false), // personal
            ("+12000000000", false, false),   // possible, of no type
        ];
        for (text, by_message, by_call) in cases {
            let sii = sii(text);
            for (channel, passes) in [(Channel::Sms, by_message), (Channel::Call, by_call)] {
                let admitted = world.admit_by(AP, channel, &sii, NOW).await;
                let code = admitted.as_ref().err().map(|problem| (problem.code, problem.status));
                let expected = (!passes).then_some(("fraud_number_type", 403));
                assert_eq!(code, expected, "{text} {channel:?}");
            }
            let problem = world.admit_by(AP, Channel::Email, &sii, NOW).await.unwrap_err();
            assert_eq!((problem.code, problem.status), ("fraud_channel", 403));
        }
        let address = sii("anna@example.com");
        for channel in [Channel::Sms, Channel::Call] {
            let problem = world.admit_by(AP, channel, &address, NOW).await.unwrap_err();
            assert_eq!((problem.code, problem.status), ("fraud_channel", 403));
        }
        world.admit(AP, &address, NOW).await.unwrap();
        let refusals =
            |reason, channel| world.sample("registrar_fraud_refusals_total", &[reason, channel]);
        assert_eq!(refusals("number_type", "sms"), 8.0);
        assert_eq!(refusals("number_type", "call"), 7.0);
        assert_eq!(refusals("channel", "email"), 10.0);
        assert_eq!(refusals("channel", "call"), 1.0);
        assert_eq!(world.sample("registrar_fraud_admitted_total", &["sms"]), 2.0);
        assert_eq!(world.sample("registrar_fraud_admitted_total", &["call"]), 3.0);
    })
    .await;
}

#[tokio::test]
async fn countries_and_providers() {
    both(MIGRATIONS, async |store| {
        let world = World { store: &store, fraud: wide(rules()) };
        world.admit(AP, &mobile(1, 1), NOW).await.unwrap();
        // France has a price, but this provider did not declare it; Canada has the code of the US.
        for text in ["+33612345678", "+15062345678", "+41781234567"] {
            assert_eq!(
                world.refusal(&sii(text), NOW).await,
                ("fraud_country", 403, None),
                "{text}"
            );
        }
        let problem = world.admit("nobody.example", &mobile(1, 2), NOW).await.unwrap_err();
        assert_eq!((problem.code, problem.status), ("fraud_provider", 403));
        let reasons = ["country", "provider"];
        let counted =
            reasons.map(|reason| world.sample("registrar_fraud_refusals_total", &[reason, "sms"]));
        assert_eq!(counted, [3.0, 1.0]);
    })
    .await;
}

#[tokio::test]
async fn one_prefix_pumped_through_ten_providers() {
    both(MIGRATIONS, async |store| {
        let names: Vec<String> = (0..10).map(|index| format!("ap{index}.example")).collect();
        let aps = names.iter().map(|name| (name.clone(), ap(1_000, 1_000_000))).collect();
        let fraud = Fraud::new(rules(), aps, Zeroizing::new(KEY)).unwrap();
        let world = World { store: &store, fraud };
        for number in 0..20 {
            world.admit(&names[number % 10], &mobile(5, number), NOW + 60).await.unwrap();
        }
        for name in &names {
            let problem = world.admit(name, &mobile(5, 77), NOW + 60).await.unwrap_err();
            assert_eq!((problem.code, problem.status), ("fraud_rate", 429));
            assert_eq!(problem.retry_after, Some(HOUR - 60));
        }
        // By call it is the same prefix; another prefix is another; the next hour begins anew.
        let call = world.admit_by(&names[0], Channel::Call, &mobile(5, 1), NOW + 60).await;
        assert_eq!(call.unwrap_err().code, "fraud_rate");
        world.admit(&names[0], &mobile(6, 1), NOW + 60).await.unwrap();
        let last = world.admit(&names[0], &mobile(5, 1), NOW + HOUR - 1).await.unwrap_err();
        assert_eq!(last.retry_after, Some(1));
        world.admit(&names[0], &mobile(5, 1), NOW + HOUR).await.unwrap();
        // A clock that is set back an hour finds the hour as full as it was.
        let back = world.admit(&names[0], &mobile(5, 2), NOW + 1).await.unwrap_err();
        assert_eq!(back.code, "fraud_rate");
        assert_eq!(world.sample("registrar_fraud_refusals_total", &["rate", "sms"]), 12.0);
    })
    .await;
}

#[tokio::test]
async fn domains_have_a_rate_and_large_ones_none() {
    both(MIGRATIONS, async |store| {
        let fraud = wide(Rules { domain_an_hour: 30, ..rules() });
        let world = World { store: &store, fraud };
        let address = |index, domain| sii(&format!("user{index}@{domain}"));
        let all = |domain| (0..30).map(|index| address(index, domain)).collect::<Vec<_>>();
        world.send(&all("company.example"), 30, NOW).await;
        let refusal = world.refusal(&address(31, "company.example"), NOW).await;
        assert_eq!(refusal, ("fraud_rate", 429, Some(HOUR)));
        world.admit(AP, &address(1, "other.example"), NOW).await.unwrap();
        world.send(&all("gmail.com"), 30, NOW).await;
        world.admit(AP, &address(31, "gmail.com"), NOW).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn budgets_end_at_midnight_and_come_back_then() {
    both(MIGRATIONS, async |store| {
        let late = NOW + 13 * HOUR + HOUR / 2;
        let midnight = 20_801 * DAY;
        let world = World { store: &store, fraud: fraud(rules(), ap(10, 1_000_000)) };
        world.send(&spread_out(9), 9, late).await;
        world.admit(AP, &mobile(10, 1), late).await.unwrap();
        let refusal = ("fraud_messages", 429, Some(HOUR / 2));
        assert_eq!(world.refusal(&mobile(11, 1), late).await, refusal);
        // Emails are messages, too; other providers have their own budget.
        assert_eq!(world.refusal(&sii("anna@example.com"), late).await, refusal);
        world.admit("other.example", &mobile(11, 1), late).await.unwrap();
        assert_eq!(world.refusal(&mobile(11, 1), midnight - 1).await.2, Some(1));
        world.send(&spread_out(10), 10, midnight).await;
        assert_eq!(world.refusal(&mobile(11, 1), midnight).await.0, "fraud_messages");
        // A clock that is set back over midnight finds yesterday's budget used up.
        assert_eq!(world.refusal(&mobile(11, 1), midnight - HOUR / 2).await, refusal);
        let name = "registrar_fraud_refusals_total";
        assert_eq!(world.sample(name, &["messages", "email"]), 1.0);
    })
    .await;
}

#[tokio::test]
async fn money_is_counted_by_the_price_of_the_country_and_the_channel() {
    both(MIGRATIONS, async |store| {
        // 75 + 10 + 20 + 1 and what is left.
        let world = World { store: &store, fraud: fraud(rules(), ap(1_000, 116)) };
        world.admit(AP, &mobile(1, 1), NOW).await.unwrap();
        world.admit(AP, &sii("+12015550123"), NOW).await.unwrap();
        world.admit_by(AP, Channel::Call, &mobile(1, 1), NOW).await.unwrap();
        world.admit(AP, &sii("anna@example.com"), NOW).await.unwrap();
        let refusal = ("fraud_money", 429, Some(14 * HOUR));
        assert_eq!(world.refusal(&mobile(2, 1), NOW).await, refusal);
        world.admit(AP, &sii("+12015550124"), NOW).await.unwrap();
        assert_eq!(world.refusal(&sii("bert@example.com"), NOW).await, refusal);
        assert!(world.rows().await[0].ends_with("0, 5, 116]"), "{:?}", world.rows().await);
    })
    .await;
}

#[tokio::test]
async fn the_rows_of_a_large_budget_are_used_to_the_last_message() {
    both(MIGRATIONS, async |store| {
        let messages = FRAUD_PARTS_MESSAGES_MIN + 5;
        let world = World { store: &store, fraud: fraud(rules(), ap(messages, 75 * messages)) };
        let config = world.fraud.config();
        let terms = config.terms(AP).unwrap();
        assert_eq!(terms.parts, FRAUD_PARTS);
        let shares: Vec<_> = (0..terms.parts).map(|part| terms.share(part)).collect();
        assert_eq!(shares.iter().map(|share| share.0).sum::<u64>(), messages);
        assert_eq!(shares.iter().map(|share| share.1).sum::<u64>(), 75 * messages);
        // All but two messages of the third row.
        for (part, share) in (0..).zip(&shares) {
            let sql = "INSERT INTO fraud_counts VALUES ('budget ap.example', $1, $2, $3, 0)";
            let used = share.0 as i64 - if part == 2 { 2 } else { 0 };
            let query = sqlx::query(sql).bind((NOW - 10 * HOUR) as i64).bind(part).bind(used);
            query.execute(store.pool()).await.unwrap();
        }
        let firsts: std::collections::BTreeSet<_> = spread_out(50)
            .iter()
            .map(|sii| {
                let sii_mac = mac(sii);
                let attempt = attempt(AP, sii, &sii_mac);
                plan::plan(&config, &KEY, &attempt).ok().unwrap().budget.first
            })
            .collect();
        assert_eq!(firsts.len() as u64, FRAUD_PARTS, "{firsts:?}");
        world.admit(AP, &mobile(1, 1), NOW).await.unwrap();
        world.admit(AP, &mobile(2, 1), NOW).await.unwrap();
        assert_eq!(world.refusal(&mobile(3, 1), NOW).await.0, "fraud_messages");
    })
    .await;
}

#[tokio::test]
async fn what_is_refused_changes_nothing() {
    both(MIGRATIONS, async |store| {
        let world = World { store: &store, fraud: fraud(rules(), ap(20, 1_000_000)) };
        let numbers: Vec<_> = (0..20).map(|number| mobile(5, number)).collect();
        world.send(&numbers, 3, NOW).await;
        let before = world.rows().await;
        assert_eq!(before.len(), 4, "{before:?}");
        for sii in [mobile(5, 21), mobile(6, 1), sii("anna@example.com"), sii("+4930901820")] {
            world.admit(AP, &sii, NOW).await.unwrap_err();
        }
        assert_eq!(world.rows().await, before);
    })
    .await;
}

#[tokio::test]
async fn rules_are_replaced_and_counts_stay() {
    both(MIGRATIONS, async |store| {
        let world = World { store: &store, fraud: fraud(rules(), ap(2, 1_000_000)) };
        world.send(&spread_out(2), 2, NOW).await;
        assert_eq!(world.refusal(&mobile(9, 1), NOW).await.0, "fraud_messages");
        let with = |rules: ApRules| BTreeMap::from([(AP.to_owned(), rules)]);
        let wrong = ApRules { countries: vec!["AT".into()], ..ap(100, 1_000_000) };
        assert!(world.fraud.replace(rules(), with(wrong)).is_err());
        assert_eq!(world.refusal(&mobile(9, 1), NOW).await.0, "fraud_messages");
        world.fraud.replace(rules(), with(ap(3, 1_000_000))).unwrap();
        world.admit(AP, &mobile(9, 1), NOW).await.unwrap();
        assert_eq!(world.refusal(&mobile(9, 2), NOW).await.0, "fraud_messages");
        let problem = world.admit("other.example", &mobile(9, 2), NOW).await.unwrap_err();
        assert_eq!(problem.code, "fraud_provider");
    })
    .await;
}

/// One task for each number, all at once; says how many codes were admitted.
async fn at_once(store: &Store, fraud: &Fraud, numbers: Vec<Identifier>, now: u64) -> usize {
    let tasks = async {
        let mut tasks = tokio::task::JoinSet::new();
        for number in numbers {
            let (store, fraud) = (store.clone(), fraud.clone());
            tasks.spawn_local(async move {
                let world = World { store: &store, fraud };
                world.admit(AP, &number, now).await
            });
        }
        tasks.join_all().await
    };
    let ended = tokio::task::LocalSet::new().run_until(tasks).await;
    ended.into_iter().filter(Result::is_ok).count()
}

#[tokio::test]
async fn fifty_at_once_never_exceed_a_bound() {
    both(MIGRATIONS, async |store| {
        let one_prefix = (0..50).map(|number| mobile(1, number)).collect();
        assert_eq!(at_once(&store, &wide(rules()), one_prefix, NOW).await, 20);
    })
    .await;
    both(MIGRATIONS, async |store| {
        let messages = fraud(rules(), ap(30, 1_000_000));
        assert_eq!(at_once(&store, &messages, spread_out(50), NOW).await, 30);
    })
    .await;
    both(MIGRATIONS, async |store| {
        let money = fraud(rules(), ap(1_000, 75 * 31 - 1));
        assert_eq!(at_once(&store, &money, spread_out(50), NOW).await, 30);
    })
    .await;
}

#[tokio::test]
async fn one_of_fifty_at_once_closes() {
    both(MIGRATIONS, async |store| {
        let world = World { store: &store, fraud: wide(without_rates()) };
        let numbers: Vec<_> = (0..50).map(|number| mobile(1, number)).collect();
        world.send(&numbers, 0, NOW).await;
        assert_eq!(at_once(&store, &world.fraud, numbers, SETTLED).await, 1);
        let refusal = world.refusal(&mobile(1, 1), SETTLED).await;
        assert_eq!(refusal, ("fraud_closed", 429, Some(HOUR)));
    })
    .await;
}

/// Servers of many threads hold these futures.
#[tokio::test]
async fn futures_may_move_between_threads() {
    fn is_send<T: Send>(future: T) -> T {
        future
    }
    both(MIGRATIONS, async |store| {
        let fraud = wide(rules());
        let (number, sii_mac) = (mobile(1, 1), mac(&mobile(1, 1)));
        let attempt = attempt(AP, &number, &sii_mac);
        let mut transaction = store.pool().begin().await.unwrap();
        is_send(fraud.admit(&mut transaction, &attempt, NOW)).await.unwrap();
        is_send(fraud.entered(&mut transaction, &attempt, NOW)).await.unwrap();
        assert_eq!(is_send(fraud.purge(&mut transaction, NOW)).await.unwrap(), 0);
    })
    .await;
}

#[tokio::test]
async fn old_rows_are_deleted_and_those_of_a_wrong_clock() {
    both(MIGRATIONS, async |store| {
        let world = World { store: &store, fraud: wide(rules()) };
        let purge = async |now| {
            let purged = transaction!(store, |db| world.fraud.purge(db, now).await);
            purged.await.unwrap()
        };
        world.admit(AP, &mobile(1, 1), NOW).await.unwrap();
        let sql = "INSERT INTO fraud_closings VALUES ('group x', 1, 1, $1)";
        sqlx::query(sql).bind((NOW + HOUR) as i64).execute(store.pool()).await.unwrap();
        assert_eq!(world.rows().await.len(), 5);
        assert_eq!(purge(NOW).await, 0);
        // The rows of the day began ten hours before that of the hour.
        assert_eq!(purge(NOW - 10 * HOUR + 2 * DAY).await, 0);
        assert_eq!(purge(NOW - 10 * HOUR + 2 * DAY + 1).await, 3);
        assert_eq!(purge(NOW + 2 * DAY).await, 0);
        assert_eq!(purge(NOW + 2 * DAY + 1).await, 1);
        assert_eq!(purge(NOW + HOUR + 7 * DAY).await, 0);
        assert_eq!(purge(NOW + HOUR + 7 * DAY + 1).await, 1);
        world.admit(AP, &mobile(1, 1), NOW + 100 * DAY).await.unwrap();
        assert_eq!(purge(NOW).await, 4);
        assert!(world.rows().await.is_empty());
    })
    .await;
}

#[tokio::test]
async fn no_number_is_in_rows_problems_or_metrics() {
    both(MIGRATIONS, async |store| {
        let world = World { store: &store, fraud: fraud(rules(), ap(75, 1_000_000)) };
        let mut shown = String::new();
        let siis = [
            mobile(4711, 815),
            sii("+33698765432"),
            sii("+4930901820"),
            sii("secretive@hidden.example"),
            sii("secretive@gmail.com"),
        ];
        for round in 0..30 {
            for sii in &siis {
                for channel in counters::CHANNELS {
                    if let Err(problem) = world.admit_by(AP, channel, sii, NOW + round).await {
                        shown += &format!("{problem} {problem:?}");
                        shown += &String::from_utf8(problem.to_json()).unwrap();
                    }
                }
            }
        }
        for code in ["country", "number_type", "channel", "rate", "messages"] {
            assert!(shown.contains(&format!("fraud_{code}")), "{code}");
        }
        shown += &format!("{:?} {:?}", world.rows().await, world.fraud.samples());
        for hidden in ["4711", "0815", "9876", "3090", "secretive", "hidden", "gmail"] {
            assert!(!shown.contains(hidden), "{hidden} in {shown}");
        }
        // With another key, the same prefix has another name.
        let names = |key: [u8; 32]| {
            let (config, sii_mac) = (world.fraud.config(), mac(&siis[0]));
            let plan = plan::plan(&config, &key, &attempt(AP, &siis[0], &sii_mac)).ok().unwrap();
            (plan.rate.unwrap().name, plan.scopes.group.name)
        };
        assert_ne!(names(KEY).0, names([8; 32]).0);
        assert_ne!(names(KEY).1, names([8; 32]).1);
    })
    .await;
}

#[path = "conversion_tests.rs"]
mod conversion;
