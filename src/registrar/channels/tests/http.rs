//! Gateways over HTTP: Kannel, and a server of the test's own for what Kannel does not do.

use std::sync::{Arc, Mutex};

use crate::registrar::api::Channel;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::kannel::{self, Kannel};
use super::{Files, NUMBER, TEXT, channels, counted, outgoing};
use crate::registrar::channels::counters::Outcome;
use crate::registrar::channels::template::{Escape, Field, Template};
use crate::registrar::channels::{Channels, NotSent, ReceiptError};

/// A request as it came.
struct Request {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
}

#[derive(Clone)]
struct Served {
    requests: mpsc::UnboundedSender<Request>,
    status: Arc<Mutex<StatusCode>>,
}

/// An HTTP server that shows its requests; its address, and the status it answers.
async fn server() -> (String, mpsc::UnboundedReceiver<Request>, Arc<Mutex<StatusCode>>) {
    async fn take(
        State(served): State<Served>,
        method: Method,
        uri: Uri,
        headers: HeaderMap,
        body: Bytes,
    ) -> StatusCode {
        let _ = served.requests.send(Request { method, uri, headers, body });
        *served.status.lock().unwrap()
    }
    let (requests, received) = mpsc::unbounded_channel();
    let status = Arc::new(Mutex::new(StatusCode::OK));
    let served = Served { requests, status: status.clone() };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let router = Router::new().fallback(take).with_state(served);
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (address, received, status)
}

/// The channels over Kannel, whose receipts go to the server at `receipts`.
fn over_kannel(kannel: &Kannel, receipts: &str, files: &Files) -> Channels {
    let credentials = format!("{}\n{}\n", kannel::USER, kannel::PASSWORD);
    files.credentials("kannel", &credentials, 0o600);
    channels(&format!(
        "sms = [\"kannel\"]\nanswer-wait-ms = 60000\nreceipt-wait-ms = 60000\n\
         [gateways.kannel]\nkind = \"http\"\n\
         url = \"http://127.0.0.1:{}/cgi-bin/sendsms?username={{user}}&password={{password}}\
         &to={{to}}&text={{text}}&charset=UTF-8&coding=0&dlr-mask=19&dlr-url={{receipt_url}}\"\n\
         credentials = \"{}\"\n\
         receipt-url = \"http://{receipts}/v1/receipts?token={{id}}&status=%d\"\n",
        kannel.port,
        files.text("kannel"),
    ))
}

#[tokio::test]
async fn kannel_carries_a_message_and_its_receipt() {
    let Some(kannel) = Kannel::start() else { return };
    let (address, mut callbacks, _) = server().await;
    let files = Files::new();
    let channels = over_kannel(&kannel, &address, &files);
    channels.send(outgoing(Channel::Sms)).await.unwrap();
    // The fake centre's protocol ends a message at each line.
    let (first, last) = TEXT.split_once('\n').unwrap();
    assert_eq!(kannel.line().await, format!("12345 {NUMBER} text {first}"));
    assert_eq!(kannel.line().await, last);
    let callback = callbacks.recv().await.unwrap();
    assert_eq!((callback.method, callback.uri.path()), (Method::GET, "/v1/receipts"));
    let query = callback.uri.query().unwrap();
    assert_eq!(channels.counted("kannel", Outcome::Delivered), 0);
    channels.receipt(query).unwrap();
    counted(&channels, "kannel", Outcome::Delivered, 1).await;
    // Once is enough, and nobody else's token is known.
    assert_eq!(channels.receipt(query), Err(ReceiptError::Unknown));
}

#[tokio::test]
async fn kannel_that_refuses_hands_over() {
    let Some(kannel) = Kannel::start() else { return };
    let files = Files::new();
    let (address, mut requests, _) = server().await;
    files.credentials("wrong", "sotto\nwrong\n", 0o600);
    let channels = channels(&format!(
        "sms = [\"kannel\", \"other\"]\nanswer-wait-ms = 60000\n\
         [gateways.kannel]\nkind = \"http\"\n\
         url = \"http://127.0.0.1:{}/cgi-bin/sendsms?username={{user}}&password={{password}}\
         &to={{to}}&text={{text}}\"\ncredentials = \"{}\"\n\
         [gateways.other]\nkind = \"http\"\n\
         url = \"http://{address}/send?number={{digits}}&text={{text}}\"\n",
        kannel.port,
        files.text("wrong"),
    ));
    channels.send(outgoing(Channel::Sms)).await.unwrap();
    assert_eq!(channels.counted("kannel", Outcome::Rejected), 1);
    let query = requests.recv().await.unwrap().uri.query().unwrap().to_owned();
    assert!(query.starts_with("number=491701234567&text=480215%3A%20Finder%20code%20"));
    assert!(query.ends_with("app.%0A%40ap.example%20%23480215"));
}

#[tokio::test]
async fn a_body_of_json_with_a_bearer_token_for_a_call() {
    let (address, mut requests, status) = server().await;
    let files = Files::new();
    let channels = channels(&format!(
        "call = [\"voice\"]\n[gateways.voice]\nkind = \"http\"\nurl = \"http://{address}/call\"\n\
         method = \"POST\"\nbody-type = \"json\"\n\
         body = '{{\"to\": \"{{to}}\", \"say\": \"{{text}}\", \"language\": \"{{language}}\"}}'\n\
         credentials = \"{}\"\nauthorization = \"bearer\"\n",
        files.text("credentials"),
    ));
    channels.send(outgoing(Channel::Call)).await.unwrap();
    let request = requests.recv().await.unwrap();
    assert_eq!(request.method, Method::POST);
    assert_eq!(request.headers["authorization"], "Bearer secret77");
    assert_eq!(request.headers["content-type"], "application/json");
    let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!((body["to"].as_str(), body["language"].as_str()), (Some(NUMBER), Some("en")));
    assert!(
        body["say"].as_str().unwrap().starts_with("Your code from Finder is: 4, 8, 0, 2, 1, 5.")
    );
    *status.lock().unwrap() = StatusCode::SERVICE_UNAVAILABLE;
    assert_eq!(channels.send(outgoing(Channel::Call)).await, Err(NotSent::Refused));
}

#[tokio::test]
async fn a_gateway_that_cannot_be_reached_is_left_alone_for_a_while() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let channels = channels(&format!(
        "sms = [\"gone\"]\n[gateways.gone]\nkind = \"http\"\n\
         url = \"http://{address}/?to={{to}}&text={{text}}\"\n"
    ));
    assert_eq!(channels.is_up(Channel::Sms), Ok(()));
    let sent = channels.send(outgoing(Channel::Sms)).await;
    assert_eq!(sent, Err(NotSent::Down { retry_after: 1 }));
    assert_eq!(channels.is_up(Channel::Sms), Err(1));
}

#[test]
fn callbacks_that_are_none_are_refused() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let _entered = runtime.enter();
    let channels = channels("");
    for query in
        ["", "token=a", "status=1", "token=&status=1", "token=%41&status=1", "token=a&status=%41"]
    {
        assert_eq!(channels.receipt(query), Err(ReceiptError::Form), "{query}");
    }
    assert_eq!(channels.receipt("token=a&status=1"), Err(ReceiptError::Unknown));
    // Kannel's "buffered" and "accepted by the centre" say nothing that is waited for.
    assert_eq!(channels.receipt("status=8&token=a"), Ok(()));
}

#[test]
fn templates_escape_what_they_become_a_part_of() {
    let value = |field| if field == Field::To { "+49 \"ü\"\\\n\u{1}" } else { "x" };
    let filled =
        |template: &str, escape| Template::parse(template, escape).unwrap().fill(value).to_string();
    let url = filled("http://x/?a={to}&b={text}", Escape::Percent);
    assert_eq!(url, "http://x/?a=%2B49%20%22%C3%BC%22%5C%0A%01&b=x");
    let json = filled("{\"a\":{\"b\":\"{to}\"}}", Escape::Json);
    assert_eq!(json, "{\"a\":{\"b\":\"+49 \\\"ü\\\"\\\\\\n\\u0001\"}}");
    let parsed: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(parsed["a"]["b"], "+49 \"ü\"\\\n\u{1}");
    for (template, found) in [("{tox}", "tox"), ("a{", ""), ("{to", "to"), ("{}", "")] {
        assert_eq!(Template::parse(template, Escape::Percent).err().as_deref(), Some(found));
    }
}
