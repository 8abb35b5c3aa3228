//! Against Debian's `python3-aiosmtpd`.

use crate::registrar::api::Channel;

use super::mail::MailServer;
use super::{CODE, Files, channels, outgoing};
use crate::registrar::channels::counters::Outcome;
use crate::registrar::channels::{Channels, NotSent};

fn table(name: &str, server: &MailServer, files: &Files, authorities: &str) -> String {
    format!(
        "[gateways.{name}]\nkind = \"smtp\"\naddress = \"{}\"\nauthorities = \"{}\"\n\
         credentials = \"{}\"\nfrom = \"Finder <codes@finder.example>\"\n",
        server.address(),
        files.text(authorities),
        files.text("credentials"),
    )
}

fn over(servers: &[&MailServer], files: &Files, authorities: &str) -> Channels {
    let names = &["first", "second"][..servers.len()];
    let tables: String =
        names.iter().zip(servers).map(|(name, of)| table(name, of, files, authorities)).collect();
    channels(&format!("email = {names:?}\nanswer-wait-ms = 60000\n{tables}"))
}

#[tokio::test]
async fn an_email_arrives_exactly_over_starttls() {
    let files = Files::new();
    let (key, cert) = (files.path("key.pem"), files.path("cert.pem"));
    let Some(server) = MailServer::start(&key, &cert) else { return };
    let channels = over(&[&server], &files, "cert.pem");
    let mut german = outgoing(Channel::Email);
    german.language = Some("de".into());
    channels.send(german).await.unwrap();
    let message = server.event("message").await;
    assert_eq!(message["tls"], true);
    assert_eq!(message["user"], "sotto");
    assert_eq!(message["from"], "codes@finder.example");
    assert_eq!(message["to"], serde_json::json!(["someone@mail.example"]));
    assert_eq!(message["subject"], "Ihr Code von Finder für Example");
    assert_eq!(message["auto_submitted"], "auto-generated");
    let text = message["text"].as_str().unwrap().replace("\r\n", "\n");
    assert!(text.starts_with(&format!("Ihr Code von Finder lautet: {CODE}.\n\nMit ihm kann man")));
    assert_eq!(text.trim_end().lines().last(), Some("@ap.example #480215"));
}

#[tokio::test]
async fn a_server_that_refuses_hands_over_to_the_second() {
    let files = Files::new();
    let (key, cert) = (files.path("key.pem"), files.path("cert.pem"));
    let (Some(first), Some(second)) =
        (MailServer::start(&key, &cert), MailServer::start(&key, &cert))
    else {
        return;
    };
    let channels = over(&[&first, &second], &files, "cert.pem");
    first.tell("answer refuse").await;
    channels.send(outgoing(Channel::Email)).await.unwrap();
    let (to_first, to_second) = (first.event("message").await, second.event("message").await);
    assert_eq!(to_first["text"], to_second["text"]);
    assert_eq!(channels.counted("first", Outcome::Rejected), 1);
    assert_eq!(channels.counted("second", Outcome::Accepted), 1);
}

#[tokio::test]
async fn nothing_is_sent_without_starttls_or_to_a_stranger() {
    let files = Files::new();
    let (key, cert) = (files.path("key.pem"), files.path("cert.pem"));
    let Some(plain) = MailServer::start_plain(&key, &cert) else { return };
    let sent = over(&[&plain], &files, "cert.pem").send(outgoing(Channel::Email)).await;
    assert!(matches!(sent, Err(NotSent::Down { .. })), "{sent:?}");
    let Some(known) = MailServer::start(&key, &cert) else { return };
    let sent = over(&[&known], &files, "other-cert.pem").send(outgoing(Channel::Email)).await;
    assert!(matches!(sent, Err(NotSent::Down { .. })), "{sent:?}");
    // Neither has got anything: what they said since is the answer to the command alone.
    for server in [&plain, &known] {
        server.tell_and_expect_nothing_before("answer ok").await;
    }
}
