//! A gateway for messages over HTTP that keeps what it is given, as a test asks it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// What the gateway does with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    Take,
    Refuse,
    /// Takes it and does not answer.
    Stall,
}

/// Messages by number, in the order in which they came.
pub(crate) type Messages = BTreeMap<String, Vec<String>>;

pub(crate) struct Gateway {
    pub(crate) address: SocketAddr,
    manner: watch::Sender<Manner>,
    messages: watch::Sender<Messages>,
}

impl Gateway {
    pub(crate) async fn start() -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let gateway = Arc::new(Self {
            address: listener.local_addr().unwrap(),
            manner: watch::Sender::new(Manner::Take),
            messages: watch::Sender::default(),
        });
        let router = Router::new().fallback(take).with_state(gateway.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        gateway
    }

    pub(crate) fn be(&self, manner: Manner) {
        self.manner.send_replace(manner);
    }

    /// A message that came another way.
    pub(crate) fn put(&self, to: String, text: String) {
        self.messages.send_modify(|all| all.entry(to).or_default().push(text));
    }

    pub(crate) fn messages(&self) -> Messages {
        self.messages.borrow().clone()
    }

    pub(crate) fn count(&self) -> usize {
        self.messages.borrow().values().map(Vec::len).sum()
    }

    /// The code in the message of this number to somebody, counted from 1, once it is there.
    pub(crate) async fn code(&self, to: &str, nth: usize) -> String {
        let mut messages = self.messages.subscribe();
        let there = messages.wait_for(|all| all.get(to).is_some_and(|those| those.len() >= nth));
        let there = there.await.unwrap();
        code_of(&there[to][nth - 1])
    }
}

/// The code at the end of a message, as a phone finds it.
pub(crate) fn code_of(text: &str) -> String {
    let (_, code) = text.rsplit_once('#').unwrap();
    assert!(code.len() == 6 && code.bytes().all(|b| b.is_ascii_digit()), "{text}");
    code.to_owned()
}

async fn take(State(gateway): State<Arc<Gateway>>, request: Request) -> StatusCode {
    let query = request.uri().query().unwrap_or_default();
    let field = |name: &str| {
        let value = query.split('&').find_map(|part| part.strip_prefix(name)).unwrap();
        unescape(value.strip_prefix('=').unwrap())
    };
    let manner = *gateway.manner.borrow();
    if manner == Manner::Refuse {
        return StatusCode::BAD_REQUEST;
    }
    let (to, text) = (field("to"), field("text"));
    gateway.put(to, text);
    if manner == Manner::Stall {
        std::future::pending::<()>().await;
    }
    StatusCode::ACCEPTED
}

fn unescape(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first == b'%' {
            let hex = std::str::from_utf8(&rest[..2]).unwrap();
            bytes.push(u8::from_str_radix(hex, 16).unwrap());
            rest = &rest[2..];
        } else {
            bytes.push(*first);
        }
    }
    String::from_utf8(bytes).unwrap()
}
