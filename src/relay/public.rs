//! The public files of the front-end: the directory, its keys, and parameters and filters of
//! databases; and the keys of key services. They need no account, are the same bytes for everybody,
//! and are kept for a minute.
//!
//! A file is given out with the tag of its own bytes, which is what the front-end's tag has to be.
//! So a tag tells no device from another.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use axum::body::Bytes;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};

use super::counters::{Counters, Public};
use super::errors::{Peer, Refusal};
use super::forward::Gateway;
use crate::https::{etag, public_file};
use crate::limits::{
    OHTTP_KEYS_BYTES_MAX, PUBLIC_BYTES_MAX, PUBLIC_FETCHES_MAX, PUBLIC_FILES_MAX,
    PUBLIC_MEMORY_BYTES, PUBLIC_SECONDS,
};
use crate::wire::parameters::check_database_name;

/// How long it is remembered that there was no file, in seconds.
const FAILED_SECONDS: u64 = 1;

/// The files that are kept, by their addresses.
pub(super) struct PublicFiles {
    kept: Mutex<HashMap<String, Kept>>,
    /// Whoever fetches a path holds the lock that its hash selects, so that nobody else does.
    fetching: [tokio::sync::Mutex<()>; PUBLIC_FETCHES_MAX],
}

/// What was found at a path, and when.
#[derive(Clone)]
struct Kept {
    found: Found,
    at: u64,
}

#[derive(Clone)]
enum Found {
    File { body: Bytes, tag: String, content_type: HeaderValue },
    Missing,
    Failed,
}

impl Kept {
    fn is_fresh(&self, now: u64) -> bool {
        let seconds = match self.found {
            Found::Failed => FAILED_SECONDS,
            _ => PUBLIC_SECONDS,
        };
        // A clock that was set back makes nothing last longer.
        (self.at..self.at.saturating_add(seconds)).contains(&now)
    }

    fn bytes(&self) -> usize {
        match &self.found {
            Found::File { body, .. } => body.len(),
            _ => 0,
        }
    }
}

/// The path of a file of a database, where its id is one.
pub(super) fn path_of_database(id: &str, file: &str) -> Option<String> {
    check_database_name(id).ok().map(|()| format!("/databases/{id}/{file}"))
}

impl PublicFiles {
    pub(super) fn new() -> Self {
        Self { kept: Mutex::default(), fetching: std::array::from_fn(|_| Default::default()) }
    }

    /// The file at a path, kept or fetched.
    pub(super) async fn get(
        &self,
        from: &Gateway,
        counters: &Counters,
        path: &str,
        headers: &HeaderMap,
        now: u64,
    ) -> Response {
        let address = from.address(path);
        let (found, how) = match self.kept(&address).filter(|kept| kept.is_fresh(now)) {
            Some(kept) => (kept.found, Public::Kept),
            None => self.fetch_once(from, path, &address, now).await,
        };
        counters.public(match found {
            Found::File { .. } => how,
            Found::Missing => Public::Missing,
            Found::Failed => Public::Failed,
        });
        match found {
            Found::File { body, tag, content_type } => {
                public_file(body, &tag, content_type, headers)
            }
            Found::Missing => StatusCode::NOT_FOUND.into_response(),
            Found::Failed => {
                let why = "does not give this file now";
                Refusal::Peer { peer: from.peer(), why }.into_response()
            }
        }
    }

    async fn fetch_once(
        &self,
        from: &Gateway,
        path: &str,
        address: &str,
        now: u64,
    ) -> (Found, Public) {
        let number = blake3::hash(address.as_bytes()).as_bytes()[0] as usize % PUBLIC_FETCHES_MAX;
        let _fetching = self.fetching[number].lock().await;
        // Another may have fetched it in the meantime.
        let before = self.kept(address);
        if let Some(kept) = before.as_ref().filter(|kept| kept.is_fresh(now)) {
            return (kept.found.clone(), Public::Kept);
        }
        let (found, how) = fetch(from, path, before.map(|kept| kept.found)).await;
        self.keep(address, Kept { found: found.clone(), at: now });
        (found, how)
    }

    fn keep(&self, address: &str, new: Kept) {
        let mut kept = self.lock();
        kept.insert(address.to_owned(), new);
        let mut bytes: usize = kept.values().map(Kept::bytes).sum();
        while kept.len() > PUBLIC_FILES_MAX || bytes > PUBLIC_MEMORY_BYTES {
            let others = kept.iter().filter(|(other, _)| *other != address);
            let Some((oldest, _)) = others.min_by_key(|(_, kept)| kept.at) else { break };
            let oldest = oldest.clone();
            bytes -= kept.remove(&oldest).map_or(0, |kept| kept.bytes());
        }
    }

    fn kept(&self, address: &str) -> Option<Kept> {
        self.lock().get(address).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks for a file, of which there may have been one before.
async fn fetch(from: &Gateway, path: &str, before: Option<Found>) -> (Found, Public) {
    let known = match &before {
        Some(Found::File { tag, .. }) => Some(tag.as_str()),
        _ => None,
    };
    let max = match from.peer() {
        Peer::FrontEnd => PUBLIC_BYTES_MAX,
        Peer::KeyService => OHTTP_KEYS_BYTES_MAX,
    };
    let reply = match from.get(path, known, max).await {
        Ok(reply) => reply,
        Err(_) => return (Found::Failed, Public::Failed),
    };
    match (reply.status, before) {
        (200, _) => {
            let body = reply.body;
            let content_type = reply.headers.get(CONTENT_TYPE).cloned();
            let octets = HeaderValue::from_static("application/octet-stream");
            let content_type = content_type.unwrap_or(octets);
            (Found::File { tag: etag(&body), body, content_type }, Public::Fetched)
        }
        (304, Some(file @ Found::File { .. })) => (file, Public::Unchanged),
        (404, _) => (Found::Missing, Public::Missing),
        _ => (Found::Failed, Public::Failed),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::Ordering;

    use axum::http::Method;

    use super::super::tests::{World, is_error, start};

    #[tokio::test]
    async fn public_files_are_fetched_once_a_minute_and_are_the_same_for_everybody() {
        let world = start().await;
        let tag = |body: &[u8]| format!("\"{}\"", &blake3::hash(body).to_hex()[..32]);
        let jose =
            [("content-type", "application/jose+json"), ("set-cookie", "a=b"), ("etag", "\"x\"")];
        world.front_end.then(200, &jose, b"the directory");
        for n in 0..3 {
            let cookie = format!("n={n}");
            let headers = [("cookie", &*cookie), ("user-agent", "phone")];
            let response = world.get("/directory?device=1", &headers).await;
            assert_eq!((response.status, &response.body[..]), (200, &b"the directory"[..]));
            assert_eq!(response.headers["content-type"], "application/jose+json");
            assert_eq!(response.headers["cache-control"], "public, max-age=60");
            assert_eq!(response.headers["etag"], &*tag(b"the directory"));
            assert!(!response.headers.contains_key("set-cookie"));
        }
        let known = format!("\"other\", W/{}", tag(b"the directory"));
        let response = world.get("/directory", &[("if-none-match", &known)]).await;
        assert_eq!((response.status, response.body.len()), (304, 0));
        let seen = world.front_end.seen();
        let [seen] = &seen[..] else { panic!("{} requests", seen.len()) };
        assert_eq!((&seen.method, &*seen.uri), (&Method::GET, "/directory"));
        let names: Vec<&str> = seen.headers.keys().map(|name| name.as_str()).collect();
        assert_eq!(names, ["host"]);

        // A minute later it is asked whether it is the same.
        world.now.fetch_add(60, Ordering::Relaxed);
        world.front_end.then(304, &[], b"");
        assert_eq!(world.get("/directory", &[]).await.body, "the directory");
        let asked = world.front_end.seen();
        assert_eq!(asked[0].headers["if-none-match"], &*tag(b"the directory"));
        world.now.fetch_add(60, Ordering::Relaxed);
        world.front_end.then(200, &jose, b"a newer one");
        for _ in 0..2 {
            assert_eq!(world.get("/directory", &[]).await.body, "a newer one");
        }
        assert_eq!(world.front_end.seen().len(), 1);
        // A clock that was set back makes nothing last longer.
        world.now.fetch_sub(3_600, Ordering::Relaxed);
        world.front_end.then(200, &jose, b"the newest");
        assert_eq!(world.get("/directory", &[]).await.body, "the newest");
    }

    #[tokio::test]
    async fn public_files_that_are_not_there_are_not_asked_for_again_and_again() {
        let world = start().await;
        let octets = [("content-type", "application/x-sotto-frames")];
        let files = ["/ohttp-keys", "/databases/eu-1.a_b/parameters", "/databases/eu-1.a_b/filter"];
        for path in files {
            world.front_end.then(200, &octets, path.as_bytes());
            assert_eq!(world.get(path, &[]).await.body, path);
            assert_eq!(world.front_end.seen()[0].uri, path);
        }
        for _ in 0..2 {
            world.front_end.then(404, &[], b"");
            assert_eq!(world.get("/databases/none/filter", &[]).await.status, 404);
        }
        assert_eq!(world.front_end.seen().len(), 1);
        world.front_end.answers.lock().unwrap().clear();
        for (status, body) in [(500, vec![]), (200, vec![0; (5 << 20) + 1])] {
            world.now.fetch_add(1, Ordering::Relaxed);
            world.front_end.then(status, &octets, &body);
            for _ in 0..2 {
                is_error(&world.get("/databases/other/filter", &[]).await, 502, "front_end");
            }
            assert_eq!(world.front_end.seen().len(), 1);
        }
        // Names that are none of a database do not get that far.
        let long = format!("/databases/{}/filter", "a".repeat(65));
        let others = [
            "/databases/..%2f..%2fgateway/filter",
            "/databases/.a/filter",
            "/databases/a%00/filter",
        ];
        for path in
            others.into_iter().chain([&*long, "/databases/a/b/filter", "/databases/a/hints"])
        {
            assert_eq!(world.get(path, &[]).await.status, 404, "{path}");
        }
        assert!(world.front_end.seen().is_empty());
        assert_eq!(world.sample("relay_public_total", Some("missing")), 2.0);
    }

    #[tokio::test]
    async fn many_who_ask_for_one_file_at_once_have_it_fetched_once() {
        let world = Arc::new(start().await);
        world.front_end.then_wait();
        let ask = |world: Arc<World>| async move { world.get("/directory", &[]).await.body };
        let first = tokio::spawn(ask(world.clone()));
        world.front_end.waiting.notified().await;
        let others: Vec<_> = (0..10).map(|_| tokio::spawn(ask(world.clone()))).collect();
        world.front_end.go_on.notify_one();
        assert_eq!(first.await.unwrap(), "waited");
        for other in others {
            assert_eq!(other.await.unwrap(), "waited");
        }
        assert_eq!(world.front_end.seen().len(), 1);
    }
}
