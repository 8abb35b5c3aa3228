//! Certificates that have expired, on either side, and their renewal while the server runs.

use std::time::{Duration, Instant, SystemTime};

use rustix::process::Signal;
use sotto::client::{Client, Options};
use sotto::server::Identity;
use sotto::server::certificates::{LocalCertificates, localhost, localhost_between};

use super::harness::load::{self, Load, look_up, reach};
use super::harness::program::{Place, Program, any};
use super::harness::{Setting, known, options, until};
use super::{record, settled};

const DAY: Duration = Duration::from_secs(86_400);

fn expired_certificates() -> LocalCertificates {
    let now = SystemTime::now();
    localhost_between(now - 3 * DAY, now - DAY).unwrap()
}

async fn refusal(options: Options) -> String {
    Client::connect(options).await.err().expect("a refusal").to_string()
}

fn shown_by(certificates: &LocalCertificates, to: &Options) -> Options {
    let LocalCertificates { client_pem, client_key, .. } = certificates;
    let identity = (client_pem.clone().into_bytes(), client_key.clone().into_bytes());
    Options { identity_pem: Some(identity), ..to.clone() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_front_end_whose_certificate_expired_is_refused_and_the_others_are_served() {
    let built = load::database();
    let certificates = localhost().unwrap();
    let callers = known(&certificates.ca_pem, None);
    let serving = Setting { certificates, callers, ..Setting::default() }.serve(&built.db());
    let expired = expired_certificates();
    let server = &serving.certificates;
    let both = [&*server.ca_pem, &expired.ca_pem].concat();
    let identity = Identity::from_pem(&server.server_pem, &server.server_key).unwrap();
    serving.identity_reloader.change(identity, known(&both, None)).unwrap();

    let reach = reach(&built, &serving);
    let good = shown_by(server, &reach);
    let mut load = Load::start(&good, 2).await;
    load.more(2).await;
    let failed = serving.counters.handshakes_failed.get();
    let error = refusal(shown_by(&expired, &reach)).await;
    assert!(error.contains("CertificateExpired"), "{error}");
    until("it is counted", || serving.counters.handshakes_failed.get() > failed).await;
    load.more(2).await;
    record(&format!("expired front-end beside others: {}", load.stop().await));
    settled(&serving.counters).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_keeps_what_it_has_when_the_new_certificate_has_expired() {
    let place = Place::new();
    let server = Program::start(place.command(&[], any()), None);
    let mut load = Load::start(&place.options(&server), 1).await;
    let expired = expired_certificates();
    place.show(&expired);
    let said = server.told(Signal::HUP, "certificates and callers stay as they were").await;
    assert!(said.contains("the certificate expired"), "{said}");
    // Nor is anything taken that every client refuses for another reason.
    let now = SystemTime::now();
    let early = localhost_between(now + DAY, now + 2 * DAY).unwrap();
    for (certificates, expected) in [
        (early, "the certificate is not valid yet"),
        (for_clients(), "extendedKeyUsage lacks serverAuth"),
        (authority(), "basicConstraints CA:TRUE"),
    ] {
        place.show(&certificates);
        let said = server.told(Signal::HUP, "certificates and callers stay as they were").await;
        assert!(said.contains(expected), "{said}");
    }
    load.more(2).await;
    // New connections meet the old one.
    let mut client = Client::connect(place.options(&server)).await.unwrap();
    look_up(&mut client, 0).await;
    drop(client.close().await);
    // A good one is taken, and drops nobody.
    let new = localhost().unwrap();
    place.show(&new);
    server.told(Signal::HUP, "certificates and callers were read again").await;
    load.more(2).await;
    let trusting = options(server.address, &new.ca_pem, place.built.pins());
    let mut client = Client::connect(trusting).await.unwrap();
    look_up(&mut client, 1).await;
    drop(client.close().await);
    record(&format!("expired certificate at SIGHUP: {}", load.stop().await));
    server.leave().await;
    // At start there is nothing better to keep: it says so, loudly, and serves.
    place.show(&expired);
    let server = Program::start(place.command(&[], any()), None);
    server.says("", "server.pem: the certificate expired").await;
    let trusting =
        |made: &LocalCertificates| options(server.address, &made.ca_pem, place.built.pins());
    let error = refusal(trusting(&expired)).await;
    assert!(error.contains("certificate expired"), "{error}");
    // Renewed, it answers at once.
    place.show(&new);
    let renewed = Instant::now();
    server.told(Signal::HUP, "certificates and callers were read again").await;
    let mut client = Client::connect(trusting(&new)).await.unwrap();
    look_up(&mut client, 0).await;
    let took = renewed.elapsed().as_millis();
    record(&format!("certificate expired, then renewed: first answer after {took} ms, 0 wrong"));
    drop(client.close().await);
    server.leave().await;
    // What no clock makes good does not start.
    for (certificates, expected) in
        [(for_clients(), "extendedKeyUsage lacks serverAuth"), (authority(), "CA:TRUE")]
    {
        place.show(&certificates);
        let ended = place.command(&[], any()).output().unwrap();
        let error = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(2), "{error}");
        assert!(error.contains("server.pem: ") && error.contains(expected), "{error}");
    }
}

/// A client's certificate where the server's should be.
fn for_clients() -> LocalCertificates {
    let mut made = localhost().unwrap();
    (made.server_pem, made.server_key) = (made.client_pem.clone(), made.client_key.clone());
    made
}

/// An authority's certificate where the server's should be, as `openssl req -x509` makes it.
fn authority() -> LocalCertificates {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let (server_pem, server_key) = (params.self_signed(&key).unwrap().pem(), key.serialize_pem());
    LocalCertificates { server_pem, server_key, ..localhost().unwrap() }
}
