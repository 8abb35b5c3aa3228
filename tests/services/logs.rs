//! Nothing about persons in logs and metrics.

use std::fmt::{Debug, Write as _};
use std::sync::{Arc, Mutex};

use serde_json::json;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use crate::gateway::Manner;
use crate::world::{User, World, fresh_key, number, text};

/// What the parts of the registrar log, with all fields, whatever the level.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<String>>);

impl Visit for Log {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        writeln!(self.0.lock().unwrap(), "{field}: {value:?}").unwrap();
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let target = metadata.target().split("::").next().unwrap_or_default();
        target == "sotto"
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        event.record(&mut self.clone());
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[tokio::test]
async fn neither_log_nor_metrics_nor_problems_name_a_person() {
    let log = Log::default();
    let _logging = tracing::subscriber::set_default(log.clone());
    let world = World::new().await;
    let running = world.start().await;
    let a = world.peer(running.address, &["a.example"]);
    let user = User::new(&number(1), "a.example");
    let id = a.register(&user.request(world.now())).await;
    let code = world.gateway.code(&number(1), 1).await;
    let mut replies = Vec::new();
    let wrong = if code == "000000" { "000001" } else { "000000" };
    replies.push(a.enter(&id, wrong).await);
    let mut forged = user.request(world.now());
    forged["ssi"] = json!("mimi://a.example/u/other");
    replies.push(a.post("/v1/registrations", &fresh_key(), &forged).await);
    let mut other = user.request(world.now());
    other["sii"] = json!("tel:+49 151 1");
    replies.push(a.post("/v1/registrations", &fresh_key(), &other).await);
    let elsewhere = User::new("+33612345678", "a.example").request(world.now());
    replies.push(a.post("/v1/registrations", &fresh_key(), &elsewhere).await);
    assert!(replies.iter().all(|reply| reply.status >= 400));
    // A message that nobody takes.
    world.gateway.be(Manner::Refuse);
    let refused = User::new(&number(10_001), "a.example");
    a.register(&refused.request(world.now())).await;
    while running.sample("registrar_registrations_total", &["not_sent"]) < 1.0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(a.enter(&id, &code).await.status, 200);
    world.write("registrar.toml", "listen =");
    running.control.reload().unwrap_err();
    let log = log.0.lock().unwrap().clone();
    assert!(log.contains("a message was not sent"), "{log}");
    let metrics = format!("{:?}", running.control.samples());
    assert!(metrics.contains("registrar_requests_total"));
    let handles = [user.ssi.clone(), refused.ssi.clone()];
    let handles = handles.map(|ssi| ssi.rsplit('/').next().unwrap().to_owned());
    let numbers = ["15100000001", "15100010001", "612345678"];
    let problems = replies.iter().map(text).collect::<String>();
    let secrets = numbers.iter().copied().chain(handles.iter().map(String::as_str));
    for secret in secrets.chain([&*id, "/u/other", "mimi://"]) {
        for text in [&log, &metrics] {
            assert!(!text.contains(secret), "{secret}: {text}");
        }
        // What is expected may have the form of an SSI.
        assert!(secret == "mimi://" || !problems.contains(secret), "{secret}: {problems}");
    }
    // Six digits may stand in a number by chance; a word they are not.
    let words = |text: &str| text.split(|c: char| !c.is_ascii_digit()).any(|word| word == code);
    assert!(!words(&log) && !words(&problems), "{log}{problems}");
}
