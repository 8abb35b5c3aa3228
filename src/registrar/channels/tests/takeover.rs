//! Which gateway gets a message, with scripted gateways and a clock that the test moves.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::registrar::api::Channel;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::{CODE, TEXT, channels, outgoing, providers};
use crate::registrar::channels::counters::Outcome;
use crate::registrar::channels::gateway::{Delivery, Gateway, Receipt, Refused, Sending};
use crate::registrar::channels::message::Message;
use crate::registrar::channels::{Channels, Config, Loopback, NotSent, Provider};

/// What a scripted gateway answers.
enum Answer {
    Refuse(Refused),
    Never,
    Take(Receipt),
}

struct Scripted {
    answers: Mutex<VecDeque<Answer>>,
    asked: mpsc::UnboundedSender<Instant>,
    down: Option<Duration>,
}

impl Gateway for Scripted {
    fn send<'a>(&'a self, _: &'a Message) -> Sending<'a> {
        Box::pin(async move {
            // Not every test listens.
            let _ = self.asked.send(Instant::now());
            let answer = self.answers.lock().unwrap().pop_front();
            match answer.expect("a gateway is asked more often than was expected") {
                Answer::Refuse(refused) => Err(refused),
                Answer::Never => std::future::pending().await,
                Answer::Take(receipt) => Ok(receipt),
            }
        })
    }

    fn down_for(&self) -> Option<Duration> {
        self.down
    }
}

fn scripted(
    answers: impl IntoIterator<Item = Answer>,
) -> (Box<dyn Gateway>, mpsc::UnboundedReceiver<Instant>) {
    let (asked, times) = mpsc::unbounded_channel();
    let answers = Mutex::new(answers.into_iter().collect());
    (Box::new(Scripted { answers, asked, down: None }), times)
}

fn of(waiting_max: usize, gateways: Vec<Box<dyn Gateway>>) -> Channels {
    let config = format!("dp = \"Finder\"\nwaiting-max = {waiting_max}");
    let config: Config = toml::from_str(&config).unwrap();
    let names = ["first", "second", "third"];
    Channels::with_gateways(&config, &providers(), names.into_iter().zip(gateways).collect())
}

#[tokio::test(start_paused = true)]
async fn without_a_receipt_in_20_seconds_the_second_gateway_takes_over() {
    let (_never, awaited) = oneshot::channel();
    let (first, mut first_asked) = scripted([Answer::Take(Receipt::Awaited(awaited))]);
    let (delivered, receipt) = oneshot::channel();
    let (second, mut second_asked) = scripted([Answer::Take(Receipt::Awaited(receipt))]);
    let channels = of(1, vec![first, second]);
    channels.send(outgoing(Channel::Sms)).await.unwrap();
    let from = first_asked.recv().await.unwrap();
    let to = second_asked.recv().await.unwrap();
    assert_eq!(to - from, Duration::from_secs(20));
    // Until then nothing else may wait.
    assert_eq!(channels.is_up(Channel::Sms), Err(5));
    let busy = channels.send(outgoing(Channel::Sms)).await;
    assert_eq!(busy, Err(NotSent::Busy { retry_after: 5 }));
    delivered.send(Delivery::Delivered).unwrap();
    super::counted(&channels, "second", Outcome::Delivered, 1).await;
    assert_eq!(channels.counted("first", Outcome::NoReceipt), 1);
    while channels.is_up(Channel::Sms).is_err() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_never_answers_costs_five_seconds() {
    let (first, mut first_asked) = scripted([Answer::Never]);
    let (second, mut second_asked) = scripted([Answer::Take(Receipt::None)]);
    let channels = of(1, vec![first, second]);
    channels.send(outgoing(Channel::Sms)).await.unwrap();
    let waited = second_asked.recv().await.unwrap() - first_asked.recv().await.unwrap();
    assert_eq!(waited, Duration::from_secs(5));
    assert_eq!(channels.counted("first", Outcome::Late), 1);
}

#[tokio::test(start_paused = true)]
async fn a_failed_receipt_hands_over_at_once_and_nobody_is_asked_twice() {
    let (failed, receipt) = oneshot::channel();
    let (first, mut first_asked) = scripted([Answer::Take(Receipt::Awaited(receipt))]);
    let (second, mut second_asked) = scripted([Answer::Refuse(Refused::Rejected)]);
    let channels = of(1, vec![first, second]);
    failed.send(Delivery::Failed).unwrap();
    channels.send(outgoing(Channel::Sms)).await.unwrap();
    assert_eq!(second_asked.recv().await.unwrap(), first_asked.recv().await.unwrap());
    super::counted(&channels, "second", Outcome::Rejected, 1).await;
    // The script of each has one answer: a second call would have panicked in the task, which
    // holds the only place.
    while channels.is_up(Channel::Sms).is_err() {
        tokio::task::yield_now().await;
    }
    assert_eq!(first_asked.try_recv(), Err(mpsc::error::TryRecvError::Empty));
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_leaves_does_not_stop_the_message() {
    let (first, mut first_asked) = scripted([Answer::Never]);
    let (second, mut second_asked) = scripted([Answer::Take(Receipt::None)]);
    let channels = of(1, vec![first, second]);
    let sending =
        tokio::time::timeout(Duration::from_secs(1), channels.send(outgoing(Channel::Sms)));
    assert!(sending.await.is_err());
    first_asked.recv().await.unwrap();
    second_asked.recv().await.unwrap();
    super::counted(&channels, "second", Outcome::Accepted, 1).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_answered_when_no_gateway_takes_it() {
    let refuse =
        |refused: [Refused; 2]| refused.map(|refused| scripted([Answer::Refuse(refused)]).0).into();
    let cases = [
        ([Refused::Down, Refused::Down], NotSent::Down { retry_after: 1 }),
        ([Refused::Down, Refused::Rejected], NotSent::Refused),
        ([Refused::Late, Refused::Rejected], NotSent::Unknown { retry_after: 30 }),
    ];
    for (refused, expected) in cases {
        let channels = of(10, refuse(refused));
        assert_eq!(channels.send(outgoing(Channel::Sms)).await, Err(expected), "{refused:?}");
    }
    let channels = channels("");
    assert_eq!(channels.send(outgoing(Channel::Sms)).await, Err(NotSent::NoGateway));
}

#[tokio::test]
async fn a_channel_is_up_while_one_of_its_gateways_is() {
    let down = |seconds: u64| -> Box<dyn Gateway> {
        let (asked, _) = mpsc::unbounded_channel();
        let down = Some(Duration::from_millis(seconds * 1_000 + 1));
        Box::new(Scripted { answers: Mutex::default(), asked, down })
    };
    let channels = of(1, vec![down(7), down(3)]);
    assert_eq!(channels.is_up(Channel::Sms), Err(4));
    let channels = of(1, vec![down(7), scripted([]).0]);
    assert_eq!(channels.is_up(Channel::Sms), Ok(()));
    let up = |name: &str| {
        let samples = channels.samples();
        let of = samples
            .into_iter()
            .find(|sample| sample.name == "channel_gateway_up" && sample.labels[0].1 == name);
        of.unwrap().value
    };
    assert_eq!((up("first"), up("second")), (0.0, 1.0));
}

#[tokio::test]
async fn the_loopback_gateway_plays_the_phone() {
    let (loopback, mut phone) = Loopback::new();
    let config: Config = toml::from_str("dp = \"Finder\"").unwrap();
    let channels = Channels::new(&config, &providers(), Some(loopback)).unwrap();
    channels.send(outgoing(Channel::Sms)).await.unwrap();
    let arrived = phone.recv().await.unwrap();
    assert_eq!(*arrived.text, TEXT);
    assert_eq!(arrived.bound_code(), Some(("ap.example", CODE)));
    channels.send(outgoing(Channel::Email)).await.unwrap();
    let arrived = phone.recv().await.unwrap();
    assert_eq!(arrived.subject, "Your code from Finder for Example");
    assert_eq!(arrived.bound_code(), Some(("ap.example", CODE)));
    // A number gets no email, an unknown provider no message.
    let mut wrong = outgoing(Channel::Sms);
    wrong.channel = Channel::Email;
    assert_eq!(channels.send(wrong).await, Err(NotSent::Recipient));
    let mut stranger = outgoing(Channel::Sms);
    stranger.ap = "other.example".into();
    assert_eq!(channels.send(stranger).await, Err(NotSent::Provider));
    let other = Provider { domain: "other.example".into(), name: "Other".into() };
    channels.replace_providers(&[other]).unwrap();
    assert_eq!(channels.send(outgoing(Channel::Sms)).await, Err(NotSent::Provider));
    drop(phone);
    assert_eq!(channels.is_up(Channel::Sms), Err(2));
}

#[tokio::test(start_paused = true)]
async fn a_pace_slows_once_for_what_was_on_the_way_together_and_recovers() {
    let pace = Arc::new(crate::registrar::channels::pace::Pace::default());
    let began = Instant::now();
    pace.turn().await;
    pace.turn().await;
    assert_eq!(Instant::now(), began);
    for _ in 0..16 {
        pace.throttled(began);
    }
    pace.turn().await;
    pace.turn().await;
    // One doubling from nothing: 20 ms until the next and between two.
    assert_eq!(began.elapsed(), Duration::from_millis(40));
    pace.throttled(Instant::now());
    pace.turn().await;
    pace.turn().await;
    assert_eq!(began.elapsed(), Duration::from_millis(120));
    for _ in 0..30 {
        pace.took();
    }
    pace.turn().await;
    let since = Instant::now();
    pace.turn().await;
    assert_eq!(since.elapsed(), Duration::ZERO);
}
