//! The registrar as application providers, other discovery providers and attackers meet it: over
//! real TLS, with SQLite and PostgreSQL, with gateways that keep what they are given.
//!
//! `postgres.rs`, `smsc.rs`, `kannel.rs` and `smtp.rs` start real peers, which unit tests of
//! `registrar::channels` use as well. Where one is not installed its tests are skipped with a line;
//! with `SOTTO_TEST_SERVICES` set that is a failure.

// Unit tests of the library use the rest.
#![allow(dead_code, clippy::unwrap_used)]

mod attacks;
mod child;
mod claims;
mod demo;
mod events;
mod feed;
mod floor;
mod gateway;
mod kills;
mod load;
mod logs;
mod more;
mod outages;
mod postgres;
mod routes;
mod size;
mod smpp;
mod smsc;
mod timed;
mod world;

use sotto::registrar::Store;

/// What each application provider may do in these tests.
const RULES: &str = "countries = ['DE']\nmessages-a-day = 1000000\nmoney-a-day = 1000000000";
/// What holds for all.
const FRAUD: &str = "prices = { DE = 75 }\nlarge-domains = ['mail.example']";
