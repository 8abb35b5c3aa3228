//! A carrier's service that does what a test says, over real TLS.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::{Arc, Mutex};

use crate::https::{Bounds, Server, TlsFiles};
use crate::server::certificates::localhost;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use serde_json::Value;

use super::*;

const NUMBER: &str = "+4915112345678";
const DAY: u64 = 86_400;
/// 30 November 2026, about noon.
const NOW: u64 = 20_787 * DAY + 43_000;
/// 31 October 2024, at its last second.
const SINCE: u64 = 20_028 * DAY - 1;

/// What the service answers next, and the body and the token of the last request.
#[derive(Default)]
struct Script {
    status: u16,
    body: String,
    asked: Option<(Value, String)>,
}

type Shared = Arc<Mutex<Script>>;

async fn service(State(script): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    let mut script = script.lock().unwrap();
    assert_eq!(headers["content-type"], "application/json");
    let token = headers["authorization"].to_str().unwrap().to_owned();
    script.asked = Some((serde_json::from_slice(&body).unwrap(), token));
    let status = StatusCode::from_u16(script.status).unwrap();
    (status, script.body.clone()).into_response()
}

struct World {
    folder: tempfile::TempDir,
    rules: Rules,
    script: Shared,
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let made = localhost().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            path
        };
        let tls = TlsFiles {
            cert: write("server.pem", &made.server_pem),
            key: write("server.key", &made.server_key),
            client_ca: None,
        };
        let script = Shared::default();
        let path = "/number-recycling/v0.2/check";
        let router = Router::new().route(path, axum::routing::post(service));
        let long = std::time::Duration::from_secs(60);
        let bounds = Bounds {
            connections: 100,
            handshakes: 100,
            handshake_time: long,
            head_time: long,
            idle_time: long,
            body_time: long,
        };
        let server = Server::bind("127.0.0.1:0".parse().unwrap(), &tls, bounds).await.unwrap();
        let port = server.local_addr().port();
        tokio::spawn(server.run(router.with_state(script.clone()), std::future::pending()));
        let rules = Rules {
            recycling_check_url: Some(format!("https://localhost:{port}{path}")),
            recycling_check_token: Some(write("token", "eyJ.first\n")),
            recycling_check_ca: write("ca.pem", &made.ca_pem),
            ..Rules::default()
        };
        Self { folder, rules, script }
    }

    fn recycling(&self) -> Recycling {
        Recycling::new(&self.rules).unwrap().unwrap()
    }

    fn answer(&self, status: u16, body: &str) {
        let mut script = self.script.lock().unwrap();
        *script = Script { status, body: body.to_owned(), asked: None };
    }

    fn asked(&self) -> (Value, String) {
        self.script.lock().unwrap().asked.take().unwrap()
    }

    fn token(&self, text: &[u8], mode: u32) {
        let path = self.folder.path().join("token");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
}

fn number() -> Identifier {
    Identifier::parse(NUMBER, None).unwrap()
}

#[tokio::test]
async fn a_carrier_is_asked_and_its_answer_read() {
    let world = World::new().await;
    let recycling = world.recycling();
    for (body, expected) in [
        (r#"{"phoneNumberRecycled":true}"#, true),
        (r#" {"phoneNumberRecycled": false, "x": 1}"#, false),
    ] {
        world.answer(200, body);
        assert_eq!(recycling.check(&number(), SINCE, NOW).await.unwrap(), expected);
        let (asked, token) = world.asked();
        let sent = json!({ "phoneNumber": NUMBER, "specifiedDate": "2024-10-31" });
        assert_eq!((asked, &*token), (sent, "Bearer eyJ.first"));
    }
    // A proof of tomorrow, by another clock, is asked about as of today.
    recycling.check(&number(), NOW + DAY, NOW).await.unwrap();
    assert_eq!(world.asked().0["specifiedDate"], "2026-11-30");
    // Another token in the file is used at once.
    world.token(b"eyJ.second", 0o600);
    recycling.check(&number(), SINCE, NOW).await.unwrap();
    assert_eq!(world.asked().1, "Bearer eyJ.second");
    assert_eq!(values(&recycling), [1.0, 3.0, 0.0, 0.0]);
    // Another service goes on counting.
    let newer = recycling.replaced(&world.rules).unwrap().unwrap();
    newer.check(&number(), SINCE, NOW).await.unwrap();
    assert_eq!(values(&newer), [1.0, 4.0, 0.0, 0.0]);
    assert!(newer.replaced(&Rules::default()).unwrap().is_none());
}

/// Recycled, unchanged, not known, failed.
fn values(recycling: &Recycling) -> Vec<f64> {
    recycling.samples().into_iter().map(|sample| sample.value).collect()
}

#[tokio::test]
async fn what_is_no_answer_is_none() {
    let world = World::new().await;
    let recycling = world.recycling();
    let not_known = [400, 404, 422];
    for status in not_known {
        world.answer(status, r#"{"status":400,"code":"OUT_OF_RANGE","message":"x"}"#);
        let error = recycling.check(&number(), SINCE, NOW).await.unwrap_err();
        assert!(matches!(error, RecyclingError::NotKnown { .. }), "{error}");
    }
    let large = format!("{}{}", " ".repeat(RECYCLING_REPLY_BYTES_MAX), "{}");
    let failures = [
        (401, "{}"),
        (429, "{}"),
        (500, "<html>"),
        (302, ""),
        (200, ""),
        (200, "{}"),
        (200, r#"{"phoneNumberRecycled":"false"}"#),
        (200, r#"{"phoneNumberRecycled":null}"#),
        (200, "[false]"),
        (200, "false"),
        (200, &large),
    ];
    for (status, body) in failures {
        world.answer(status, body);
        let error = recycling.check(&number(), SINCE, NOW).await.unwrap_err();
        let said = format!("{error} {error:?}");
        assert!(!said.contains("4915") && !said.contains("eyJ"), "{said}");
    }
    let counted = [0.0, 0.0, not_known.len() as f64, failures.len() as f64];
    assert_eq!(values(&recycling), counted);
}

#[tokio::test]
async fn a_service_that_is_gone_or_busy_is_no_answer() {
    let mut world = World::new().await;
    // Nobody listens on port 1.
    world.rules.recycling_check_url = Some("https://localhost:1/check".into());
    let recycling = world.recycling();
    let error = recycling.check(&number(), SINCE, NOW).await.unwrap_err();
    assert!(matches!(error, RecyclingError::Https(_)), "{error}");
    let all = recycling.running.acquire_many(RECYCLING_CHECKS_MAX as u32).await.unwrap();
    let error = recycling.check(&number(), SINCE, NOW).await.unwrap_err();
    assert!(matches!(error, RecyclingError::Busy), "{error}");
    drop(all);
    let address = Identifier::parse("anna@example.com", None).unwrap();
    let error = recycling.check(&address, SINCE, NOW).await.unwrap_err();
    assert!(matches!(error, RecyclingError::Address), "{error}");
    world.token(b"eyJ.first", 0o640);
    let error = recycling.check(&number(), SINCE, NOW).await.unwrap_err();
    assert!(matches!(error, RecyclingError::TokenOpen { .. }), "{error}");
    assert_eq!(values(&recycling), [0.0, 0.0, 0.0, 4.0]);
}

#[tokio::test]
async fn what_the_rules_and_files_may_be() {
    let world = World::new().await;
    let found = |rules: &Rules| match Recycling::new(rules) {
        Ok(_) => String::new(),
        Err(error) => error.to_string(),
    };
    assert!(Recycling::new(&Rules::default()).unwrap().is_none());
    assert_eq!(found(&world.rules), "");
    for url in [
        "http://carrier.example/check",
        "https://",
        "carrier.example/check",
        "https://user:secret@carrier.example/check",
        "https://carrier.example/check?x=1",
        "https://carrier.example/check#x",
        "",
    ] {
        let rules = Rules { recycling_check_url: Some(url.into()), ..world.rules.clone() };
        let said = found(&rules);
        assert!(said.contains("`recycling-check-url` is "), "{url}: {said}");
        assert!(!said.contains("secret"), "{said}");
    }
    let rules = Rules { recycling_check_token: None, ..world.rules.clone() };
    assert!(found(&rules).contains("without `recycling-check-token`"), "{}", found(&rules));
    let rules = Rules { recycling_check_ca: "/nowhere".into(), ..world.rules.clone() };
    assert!(found(&rules).contains("cannot read the authorities /nowhere"), "{}", found(&rules));
    for (text, mode, expected) in [
        (&b"eyJ.x"[..], 0o644, "mode 0644"),
        (b"eyJ.x", 0o620, "mode 0620"),
        (b"eyJ.x", 0o400, ""),
        (b"", 0o600, "other characters"),
        (b" \n", 0o600, "other characters"),
        (b"Bearer eyJ.x", 0o600, "other characters"),
        (b"eyJ\xff", 0o600, "other characters"),
        (&[b'x'; RECYCLING_TOKEN_BYTES_MAX as usize], 0o600, ""),
        (&[b'x'; RECYCLING_TOKEN_BYTES_MAX as usize + 1], 0o600, "other characters"),
    ] {
        world.token(b"", 0o600);
        world.token(text, mode);
        let said = found(&world.rules);
        assert!(said.contains(expected) && said.is_empty() == expected.is_empty(), "{said}");
        assert!(!said.contains("eyJ"), "{said}");
    }
    fs::remove_file(world.folder.path().join("token")).unwrap();
    assert!(found(&world.rules).contains("cannot read the token"));
}

#[test]
fn days() {
    for (days, text) in [
        (0, "1970-01-01"),
        (58, "1970-02-28"),
        (59, "1970-03-01"),
        (364, "1970-12-31"),
        (789, "1972-02-29"),
        (790, "1972-03-01"),
        (11_016, "2000-02-29"),
        (11_017, "2000-03-01"),
        (20_027, "2024-10-31"),
        (20_787, "2026-11-30"),
        (47_541, "2100-03-01"),
    ] {
        assert_eq!(date(days * DAY), text);
        assert_eq!(date(days * DAY + DAY - 1), text);
    }
    for (days, text) in [(20_027, "2024-10-31"), (47_540, "2100-02-28")] {
        assert_eq!(date(days * DAY), text);
    }
}
