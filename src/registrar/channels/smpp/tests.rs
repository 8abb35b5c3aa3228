//! Against npm's `smpp` in node.

use std::collections::HashSet;

use crate::registrar::api::Channel;

use super::*;
use crate::registrar::channels::config::GatewayConfig;
use crate::registrar::channels::counters::Outcome;
use crate::registrar::channels::tests::smsc::Smsc;
use crate::registrar::channels::tests::{Files, NUMBER, TEXT, channels, counted, outgoing};
use crate::registrar::channels::{Channels, Config, NotSent};

/// A gateway's table.
fn table(name: &str, smsc: &Smsc, files: &Files) -> String {
    format!(
        "[gateways.{name}]\nkind = \"smpp\"\naddress = \"{}\"\ntls = false\n\
         credentials = \"{}\"\nsource = \"Finder\"\n",
        smsc.address(),
        files.text("credentials"),
    )
}

/// Channels over one centre or two, with waits in milliseconds.
async fn bound(receipt_wait: u64, answer_wait: u64, centres: &[&Smsc]) -> (Channels, Files) {
    let files = Files::new();
    let names = &["first", "second"][..centres.len()];
    let mut config = format!(
        "sms = {names:?}\nreceipt-wait-ms = {receipt_wait}\nanswer-wait-ms = {answer_wait}\n"
    );
    for (name, smsc) in names.iter().zip(centres) {
        config += &table(name, smsc, &files);
    }
    let channels = channels(&config);
    for name in names {
        up(&channels, name).await;
    }
    (channels, files)
}

/// Waits until a gateway is up.
async fn up(channels: &Channels, gateway: &str) {
    let is_up = || {
        channels.samples().iter().any(|sample| {
            let is_this = sample.name == "channel_gateway_up" && sample.labels[0].1 == gateway;
            is_this && sample.value == 1.0
        })
    };
    while !is_up() {
        tokio::task::yield_now().await;
    }
}

const LONG: u64 = 60_000;

#[tokio::test]
async fn a_text_arrives_exactly_and_its_receipt_comes_back() {
    let Some(smsc) = Smsc::start() else { return };
    let (channels, _files) = bound(LONG, LONG, &[&smsc]).await;
    let bind = smsc.event("bind").await;
    assert_eq!(bind["system_id"], "sotto");
    assert_eq!(bind["password"], "secret77");
    assert_eq!(bind["interface_version"], 0x34);
    channels.send(outgoing(Channel::Sms)).await.unwrap();
    let submit = smsc.event("submit").await;
    assert_eq!(submit["text"], TEXT);
    assert_eq!(submit["to"], NUMBER.trim_start_matches('+'));
    let fields = ["to_ton", "to_npi", "from_ton", "from_npi", "esm_class", "data_coding"];
    let found = fields.map(|field| submit[field].as_u64().unwrap());
    assert_eq!(found, [1, 1, 5, 0, 0, 0]);
    assert_eq!(submit["from"], "Finder");
    assert_eq!(submit["registered_delivery"], 1);
    counted(&channels, "first", Outcome::Delivered, 1).await;
    // Characters of the extension table and outside ASCII, as the other implementation reads them.
    let mut french = outgoing(Channel::Sms);
    french.language = Some("fr".into());
    channels.send(french).await.unwrap();
    let text = smsc.event("submit").await["text"].as_str().unwrap().to_owned();
    assert!(text.contains("seulement là."), "the accent is lost");
    assert!(text.ends_with("\n@ap.example #480215"));
}

#[tokio::test]
async fn a_centre_that_throttles_gets_it_again_and_no_other_does() {
    let (Some(first), Some(second)) = (Smsc::start(), Smsc::start()) else { return };
    let (channels, _files) = bound(LONG, LONG, &[&first, &second]).await;
    first.tell("answer throttle 3").await;
    channels.send(outgoing(Channel::Sms)).await.unwrap();
    for answer in ["throttle", "throttle", "throttle", "ok"] {
        assert_eq!(first.event("submit").await["answer"], answer);
    }
    counted(&channels, "first", Outcome::Delivered, 1).await;
    assert_eq!(channels.counted("first", Outcome::Accepted), 1);
    assert_eq!(channels.counted("second", Outcome::Accepted), 0);
}

#[tokio::test]
async fn sixteen_messages_at_most_have_no_answer() {
    let Some(smsc) = Smsc::start() else { return };
    let (channels, _files) = bound(LONG, LONG, &[&smsc]).await;
    smsc.tell("answer stall").await;
    let mut sending = tokio::task::JoinSet::new();
    for _ in 0..40 {
        let channels = channels.clone();
        sending.spawn(async move { channels.send(outgoing(Channel::Sms)).await });
    }
    let mut ids = HashSet::new();
    let mut most = 0;
    while ids.len() < 40 {
        let submit = smsc.event("submit").await;
        assert!(ids.insert(submit["id"].as_str().unwrap().to_owned()));
        let open = submit["open"].as_u64().unwrap();
        most = most.max(open);
        assert!(open <= WINDOW as u64, "{open} have no answer");
        if open == WINDOW as u64 {
            // Nothing more comes before the centre answers: no event is lost here.
            if ids.len() == 2 * WINDOW {
                smsc.tell("answer ok").await;
            }
            smsc.tell("release").await;
        }
    }
    assert_eq!(most, WINDOW as u64);
    while let Some(sent) = sending.join_next().await {
        sent.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_centre_that_stalls_refuses_or_fails_hands_over_to_the_second() {
    // A wait is short only where the test waits for its end.
    for (receipt_wait, answer_wait, command, outcome) in [
        (LONG, 2_000, "answer stall", Outcome::Late),
        (LONG, LONG, "answer refuse 11", Outcome::Rejected),
        (LONG, LONG, "receipts failed", Outcome::Failed),
        (2_000, LONG, "receipts none", Outcome::NoReceipt),
    ] {
        let (Some(first), Some(second)) = (Smsc::start(), Smsc::start()) else { return };
        let (channels, _files) = bound(receipt_wait, answer_wait, &[&first, &second]).await;
        first.tell(command).await;
        channels.send(outgoing(Channel::Sms)).await.unwrap();
        let (to_first, to_second) = (first.event("submit").await, second.event("submit").await);
        assert_eq!(to_first["text"], to_second["text"], "{command}");
        counted(&channels, "second", Outcome::Delivered, 1).await;
        assert_eq!(channels.counted("first", outcome), 1, "{command}");
        assert_eq!(channels.counted("first", Outcome::Delivered), 0, "{command}");
    }
}

#[tokio::test]
async fn a_lost_connection_is_made_again_and_nothing_is_sent_twice() {
    let Some(smsc) = Smsc::start() else { return };
    let (channels, _files) = bound(LONG, LONG, &[&smsc]).await;
    smsc.event("bind").await;
    smsc.tell("answer stall").await;
    let sending = tokio::spawn({
        let channels = channels.clone();
        async move { channels.send(outgoing(Channel::Sms)).await }
    });
    smsc.event("submit").await;
    smsc.tell("answer ok").await;
    smsc.tell("drop").await;
    // The centre may have it: it is not sent again.
    assert_eq!(sending.await.unwrap(), Err(NotSent::Unknown { retry_after: 30 }));
    assert_eq!(channels.counted("first", Outcome::Late), 1);
    smsc.event("bind").await;
    up(&channels, "first").await;
    channels.send(outgoing(Channel::Sms)).await.unwrap();
    // The first one after the connection came back is the new message.
    assert_eq!(smsc.event("submit").await["id"], "0000000002");
    // A centre that asks us to leave is left, and bound again.
    smsc.tell("unbind").await;
    smsc.event("unbound").await;
    smsc.event("bind").await;
    up(&channels, "first").await;
}

#[tokio::test]
async fn a_centre_that_is_gone_is_down_with_the_time_to_come_back() {
    let Some(smsc) = Smsc::start() else { return };
    let (channels, _files) = bound(LONG, LONG, &[&smsc]).await;
    drop(smsc);
    while channels.is_up(Channel::Sms).is_ok() {
        tokio::task::yield_now().await;
    }
    let again = channels.is_up(Channel::Sms).unwrap_err();
    assert!((1..=31).contains(&again), "{again}");
    let sent = channels.send(outgoing(Channel::Sms)).await;
    assert!(matches!(sent, Err(NotSent::Down { .. })), "{sent:?}");
}

#[tokio::test]
async fn tls_is_verified() {
    let files = Files::new();
    let Some(smsc) = Smsc::start_tls(&files.path("key.pem"), &files.path("cert.pem")) else {
        return;
    };
    let with = |authorities: &str| {
        let table = table("first", &smsc, &files).replace("tls = false\n", "");
        format!("{table}authorities = \"{}\"\n", files.text(authorities))
    };
    let channels = channels(&format!("sms = [\"first\"]\n{}", with("cert.pem")));
    up(&channels, "first").await;
    channels.send(outgoing(Channel::Sms)).await.unwrap();
    assert_eq!(smsc.event("submit").await["text"], TEXT);
    counted(&channels, "first", Outcome::Delivered, 1).await;

    let stranger = gateway(&with("other-cert.pem"));
    assert!(matches!(stranger.link.connect().await, Err(NoSession::Tls(_))));
    let plain = gateway(&table("first", &smsc, &files));
    assert!(matches!(plain.link.connect().await, Err(NoSession::Ended)));
}

fn gateway(table: &str) -> Smpp {
    let config: Config = toml::from_str(&format!("dp = \"Finder\"\n{table}")).unwrap();
    let GatewayConfig::Smpp(config) = &config.gateways["first"] else { panic!() };
    Smpp::start("first", config).unwrap()
}

#[tokio::test]
async fn a_refused_bind_says_so_and_public_networks_need_tls() {
    let Some(smsc) = Smsc::start() else { return };
    let files = Files::new();
    smsc.tell("bind refuse").await;
    let refused = gateway(&table("first", &smsc, &files)).link.connect().await;
    let Err(NoSession::Bind(status)) = refused else { panic!() };
    assert_eq!(status, CommandStatus::EsmeRinvpaswd);
    let public = table("first", &smsc, &files).replace(&smsc.address(), "192.0.2.1:2775");
    let Err(NoSession::Connect(error)) = gateway(&public).link.connect().await else { panic!() };
    assert!(error.to_string().contains("use TLS"), "{error}");
}
