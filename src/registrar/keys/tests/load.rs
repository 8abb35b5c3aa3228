//! Claims a second. Each claim has its signature verified, and its package taken in a transaction
//! of its own, by a PostgreSQL with fsync on. `SOTTO_LOAD` is the number of users, and of the
//! packages of each; by default both are few. For a measurement: `SOTTO_LOAD=100 cargo test
//! --release --lib --features registration claims_a_second -- --nocapture`.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use crate::registrar::postgres::Postgres;
use crate::registrar::postgres::said::{load_size, say};
use tls_codec::DeserializeBytes as _;
use tokio::task::JoinSet;

use super::*;
use crate::discovery::keys::fetch::{Requester, request};
use crate::discovery::keys::mimi::{KeyMaterialRequest, encode};
use crate::discovery::keys::packages::CRYPTO;
use crate::registrar::keys::store::MIGRATIONS;

/// Users and packages of each without a measurement.
const FEW: usize = 4;
const WORKERS: usize = 32;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_a_second() {
    let Some(server) = Postgres::start() else { return };
    let size = load_size(FEW);
    let store = Store::open(&server.database(), WORKERS as u32, MIGRATIONS).await.unwrap();
    let signer = SignatureKeyPair::new(SignatureScheme::ED25519).unwrap();
    let mut requests = Vec::new();
    for at in 0..size {
        let person = Person::new(&format!("user{at}"), &["phone"]);
        person.store(&store, Policy::All, size).await;
        for _ in 0..size {
            let requester = Requester {
                user: Ssi::parse(&format!("mimi://a.example/u/{}", requests.len())).unwrap(),
                signer: &signer,
                suites: vec![SUITE],
                required: RequiredCapabilitiesExtension::default(),
            };
            let request = encode(&request(&requester, &person.ssi, "").unwrap());
            requests.push((request, person.ssi.clone()));
        }
    }
    // Neighbours ask for different users.
    let order = move |at: usize| (at % size) * size + at / size;
    let (requests, next) = (Arc::new(requests), Arc::new(AtomicUsize::new(0)));
    let (mut workers, begun) = (JoinSet::new(), Instant::now());
    for _ in 0..WORKERS {
        let (store, requests, next) = (store.clone(), requests.clone(), next.clone());
        workers.spawn(async move {
            let mut done = Vec::new();
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                if at >= requests.len() {
                    return done;
                }
                let (began, (bytes, target)) = (Instant::now(), &requests[order(at)]);
                let request = KeyMaterialRequest::tls_deserialize_exact_bytes(bytes).unwrap();
                request.authenticate(&*CRYPTO, SignatureScheme::ED25519).unwrap();
                let (code, given) = claimed(&store, &asked(&at.to_string(), target), now()).await;
                assert_eq!((code, given.len()), (KeyMaterialUserCode::Success, 1));
                let (package, last_resort) = given.into_iter().next().unwrap();
                assert!(!last_resort);
                done.push((began.elapsed(), package));
            }
        });
    }
    let done: Vec<_> = workers.join_all().await.into_iter().flatten().collect();
    let seconds = begun.elapsed().as_secs_f64();
    let (mut times, packages): (Vec<_>, HashSet<_>) = done.into_iter().unzip();
    assert_eq!(
        (times.len(), packages.len()),
        (size * size, size * size),
        "one each, and none twice"
    );
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64() * 1e3;
    say(&format!(
        "{} claims in {seconds:.2} s: {:.0} a second; {WORKERS} at once; milliseconds at 50%: \
         {:.1}, 90%: {:.1}, 99%: {:.1}, all: {:.1}",
        times.len(),
        times.len() as f64 / seconds,
        at(50),
        at(90),
        at(99),
        at(100)
    ));
}
