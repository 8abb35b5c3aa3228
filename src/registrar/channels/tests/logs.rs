//! Nothing that is logged, counted or shown has a number, an address or a code in it.

use std::fmt::{Debug, Write as _};
use std::sync::{Arc, Mutex};

use crate::registrar::api::Channel;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use super::smsc::Smsc;
use super::{CODE, Files, channels, counted, outgoing};
use crate::registrar::channels::counters::Outcome;

/// Keeps every event of every level.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<String>>);

struct Into<'a>(&'a mut String);

impl Visit for Into<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, " {field}={value:?}").unwrap();
    }
}

impl Subscriber for Kept {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut kept = self.0.lock().unwrap();
        write!(kept, "\n{}", event.metadata().target()).unwrap();
        event.record(&mut Into(&mut kept));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[tokio::test]
async fn no_log_of_any_level_has_the_number_or_the_code() {
    let Some(smsc) = Smsc::start() else { return };
    let kept = Kept::default();
    let _guard = tracing::subscriber::set_default(kept.clone());
    let files = Files::new();
    let channels = channels(&format!(
        "sms = [\"first\"]\nanswer-wait-ms = 60000\nreceipt-wait-ms = 60000\n\
         [gateways.first]\nkind = \"smpp\"\naddress = \"{}\"\ntls = false\n\
         credentials = \"{}\"\nsource = \"Finder\"\n",
        smsc.address(),
        files.text("credentials"),
    ));
    while channels.is_up(Channel::Sms).is_err() {
        tokio::task::yield_now().await;
    }
    channels.send(outgoing(Channel::Sms)).await.unwrap();
    counted(&channels, "first", Outcome::Delivered, 1).await;
    smsc.tell("answer refuse 11").await;
    channels.send(outgoing(Channel::Sms)).await.unwrap_err();
    let mut kept = kept.0.lock().unwrap().clone();
    // It sees what is logged at all.
    assert!(kept.contains("has accepted the bind") && kept.contains("a message was refused"));
    for sample in channels.samples() {
        write!(kept, "{sample:?}").unwrap();
    }
    let octets = CODE.bytes().map(|byte| byte.to_string()).collect::<Vec<_>>().join(", ");
    let hex = CODE.bytes().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(", ");
    for secret in ["1701234567", CODE, &octets, &hex, &hex.to_uppercase(), "secret77"] {
        assert!(!kept.contains(secret), "a log line or a counter has a secret");
    }
}
