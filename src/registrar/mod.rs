//! Where records come from: three services over PostgreSQL or SQLite, behind the feature
//! `registration`. docs/registration.md explains all of it.
//!
//! - [`service`] is the registrar: application providers register their users with it. What a
//!   request means is decided in [`registrations`], whether a code may be sent in [`fraud`], and
//!   [`channels`] carries it to the person.
//! - [`log`] is an append-only log of what was vouched for and of the epochs that were made of it.
//! - [`keys`] hands out the key packages with which people who found each other begin to write.
//!
//! They share a [`store`], and refuse with a [`problem`]. [`api`] has the registrar's requests and
//! replies.

pub mod api;
pub mod channels;
pub mod fraud;
pub mod keys;
pub mod log;
#[cfg(test)]
#[path = "../../tests/services/postgres.rs"]
mod postgres;
pub mod problem;
pub mod registrations;
pub mod service;
mod settings;
pub mod store;

pub use crate::relay::Clock;
pub use problem::Problem;
pub use store::{Databases, Store, StoreError};
