//! Two replicas, of which one is slow, silent or full: what goes to the other is identical bytes,
//! not more of them than the bounds say, and nothing later than a call may take.

use std::time::Instant;

use super::*;

/// A quarter of it is what a slow batch is waited for.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(12);

struct Pair {
    first: Arc<Fake>,
    second: Arc<Fake>,
}

impl Pair {
    async fn start() -> Self {
        Self { first: started().await, second: started().await }
    }

    async fn connected() -> (Self, Client) {
        let pair = Self::start().await;
        let client = Client::connect(pair.options()).await.unwrap();
        (pair, client)
    }

    fn options(&self) -> Options {
        let (mut options, second) = (self.first.options(1), self.second.options(1));
        options.replicas.extend(second.replicas);
        options.ca_pem.extend(second.ca_pem);
        Options { answer_timeout: ANSWER_TIMEOUT, ..options }
    }

    /// What both were sent, held against the rule as one: they may well talk to each other.
    fn take_logs(&self) -> (Log, Log) {
        let (first, second) = (self.first.take_log(), self.second.take_log());
        check_once_only(&Log {
            bundles: [&first.bundles[..], &second.bundles].concat(),
            queries: [&first.queries[..], &second.queries].concat(),
            hints: Vec::new(),
            too_early: first.too_early + second.too_early,
        });
        (first, second)
    }
}

/// Names and bytes of the queries of a log; nonces and deadlines may differ.
fn identities(log: &Log) -> BTreeSet<(String, u32, Vec<u8>)> {
    let of = |query: &sotto::wire::message::PirRequest| {
        (query.uid.clone(), query.shard, query.encrypted_vector[0].to_vec())
    };
    log.queries.iter().map(of).collect()
}

#[tokio::test]
async fn a_slow_batch_goes_to_a_replica_in_identical_bytes() {
    let (pair, mut client) = Pair::connected().await;
    let keys = keys(24);
    for slow_after in [0, 3] {
        // One batch of the first server brings a few answers, or none, and then nothing.
        pair.first.script(|script| {
            script.queries = vec![Trick::Answer; slow_after].into();
            script.queries.push_back(Trick::Silence);
        });
        let begun = Instant::now();
        look_up(&mut client, &keys).await;
        let took = begun.elapsed();
        assert_eq!(client.last_call().hedges, 1);
        let (first, second) = pair.take_logs();
        // Of a silent batch the first server reads up to the query at which it falls silent.
        assert_eq!(identities(&second).intersection(&identities(&first)).count(), 1);
        assert!(sendings(&second).values().all(|&times| times == 1));
        // The replica had no bundle: it was sent those of these queries before them, and no other.
        let bundles: BTreeSet<String> = second.bundles.iter().map(|(uid, _)| uid.clone()).collect();
        assert_eq!(bundles, uids(&second).into_iter().collect());
        assert!(took >= ANSWER_TIMEOUT / 4 && took < ANSWER_TIMEOUT, "{took:?}");
        // It is the one to ask now. Back to the first one for the next turn.
        pair.second.script(|script| script.queries.clear());
        look_up(&mut client, &keys).await;
        let (first, second) = pair.take_logs();
        assert_eq!((first.queries.len(), second.queries.len()), (0, 24));
        client = Client::connect(pair.options()).await.unwrap();
    }
}

#[tokio::test]
async fn an_undisturbed_or_refused_call_is_not_hedged() {
    let (pair, mut client) = Pair::connected().await;
    look_up(&mut client, &keys(24)).await;
    assert_eq!(client.last_call().hedges, 0, "undisturbed");
    let (_, second) = pair.take_logs();
    assert!(second.queries.is_empty() && second.bundles.is_empty());
    for status in [Status::Overloaded, Status::Quota, Status::Deadline, Status::Device] {
        let (pair, mut client) = Pair::connected().await;
        pair.first.script(|script| script.queries = [Trick::Say(status); 5].into());
        look_up(&mut client, &keys(30)).await;
        assert_eq!(client.last_call().hedges, 0, "{status:?}");
        let (first, second) = pair.take_logs();
        assert_eq!(first.queries.len() + second.queries.len(), 35, "{status:?}");
    }
}

/// Batches of ten queries, eight in flight, all of them slow at the first server.
async fn all_slow(pair: &Pair, call_timeout: Duration) -> (Client, Vec<String>) {
    for fake in [&pair.first, &pair.second] {
        fake.limit(|limits| limits.queries_per_batch = 10);
    }
    pair.first.script(|script| script.queries = [Trick::Silence; 80].into());
    let options = Options { call_timeout, ..pair.options() };
    (Client::connect(options).await.unwrap(), keys(80))
}

#[tokio::test]
async fn hedges_are_bounded_where_all_is_slow_or_full() {
    for second_does in [Trick::Silence, Trick::Say(Status::Overloaded)] {
        let pair = Pair::start().await;
        // Over before the first server's batches are.
        let (mut client, keys) = all_slow(&pair, ANSWER_TIMEOUT * 3 / 4).await;
        pair.second.script(|script| script.queries = [second_does; 80].into());
        for outcome in client.lookup(&keys).await.unwrap() {
            assert!(matches!(outcome, Err(LookupError::CallTimeout { .. })));
        }
        let count = client.last_call().hedges as usize;
        let (first, second) = pair.take_logs();
        let most = limits::HEDGES_IN_FLIGHT_MAX;
        assert!((1..=most).contains(&count), "{count}");
        if second_does == Trick::Silence {
            assert_eq!(count, most);
            // One query each was read of a batch before the server fell silent.
            assert_eq!((first.queries.len(), second.queries.len()), (8, most));
        }
    }
}

#[tokio::test]
async fn a_replica_that_is_quick_answers_all_that_is_slow() {
    let pair = Pair::start().await;
    let (mut client, keys) = all_slow(&pair, limits::CALL_TIMEOUT).await;
    let begun = Instant::now();
    look_up(&mut client, &keys).await;
    assert!(begun.elapsed() < ANSWER_TIMEOUT, "waited for the slow one");
    assert_eq!(client.last_call().hedges, 8);
    let (_, second) = pair.take_logs();
    assert_eq!(sendings(&second).len(), 80);
    // Cancelled or closed, it takes along what it left at the slow one.
    drop(client.close().await);
}

#[tokio::test]
async fn a_replica_that_does_not_answer_leaves_the_call_to_the_slow_one() {
    let pair = Pair::start().await;
    let answer_timeout = Duration::from_secs(2);
    let options = Options { answer_timeout, ..pair.options() };
    let mut client = Client::connect(options).await.unwrap();
    pair.first.script(|script| script.queries.push_back(Trick::Silence));
    pair.second.script(|script| script.bundles = [Trick::Say(Status::Quota); 6].into());
    look_up(&mut client, &keys(40)).await;
    assert!(client.last_call().hedges >= 1 && client.last_call().rounds > 1);
    pair.take_logs();
}

#[tokio::test]
async fn one_that_forgot_a_bundle_between_hedge_and_query_gets_the_identical_bundle() {
    let (pair, mut client) = Pair::connected().await;
    let keys = keys(40);
    pair.first.script(|script| script.queries.push_back(Trick::Silence));
    look_up(&mut client, &keys).await; // over the second one, from the hedge on
    pair.take_logs();
    pair.second.script(|script| script.queries = [Trick::Silence].into());
    pair.first.script(|script| script.queries = [Trick::Forget].into());
    look_up(&mut client, &keys).await;
    let (mut log, second) = (pair.first.take_log(), pair.second.take_log());
    log.bundles.extend(second.bundles);
    log.queries.extend(second.queries);
    // Queries that came too early did so through no fault of the client.
    check_once_only(&Log { too_early: 0, ..log });
}

#[tokio::test]
async fn a_call_that_is_dropped_in_mid_hedge_takes_its_secrets_along() {
    let (pair, mut client) = Pair::connected().await;
    let keys = keys(30);
    for fake in [&pair.first, &pair.second] {
        fake.script(|script| script.queries = [Trick::Silence; 2].into());
    }
    {
        let call = client.lookup(&keys);
        tokio::select! {
            _ = call => panic!("both kept a stream silent"),
            permit = pair.second.arrived.acquire() => permit.unwrap().forget(),
        }
    }
    for fake in [&pair.first, &pair.second] {
        fake.script(|script| script.queries.clear());
    }
    look_up(&mut client, &keys).await;
    let (first, second) = pair.take_logs();
    let names: BTreeSet<_> = first.queries.iter().chain(&second.queries).map(|q| &q.uid).collect();
    assert!(names.len() > uids(&second).len(), "one call's secrets served the other");
}

#[tokio::test]
async fn a_server_that_trickles_ends_with_the_call_and_what_was_answered_is_decoded() {
    let fake = started().await;
    fake.limit(|limits| limits.batches_in_flight = 1);
    let call_timeout = Duration::from_secs(10);
    let options = Options { call_timeout, ..fake.options(1) };
    let mut client = Client::connect(options).await.unwrap();
    let keys = keys(30);
    look_up(&mut client, &keys).await; // hints are there
    fake.script(|script| script.trickle = Some(Duration::from_secs(1)));
    let begun = Instant::now();
    let in_time = LookupError::CallTimeout { after: call_timeout };
    let answered = answered(&mut client, &keys, |error| assert_eq!(error, in_time)).await;
    let took = begun.elapsed();
    assert!(took >= call_timeout && took < 3 * call_timeout, "{took:?}");
    assert!((1..30).contains(&answered), "{answered}");
    fake.script(|script| script.trickle = None);
    look_up_once_only(&fake, &mut client, &keys).await;
}
