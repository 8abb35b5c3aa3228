//! The client: what a resolver front-end or a device links to look up keys privately.
//!
//! [`Client::connect`] checks who signed the database and that it is large enough to hide in;
//! [`Client::lookup`] looks up many keys in one call. The server learns the shard number of each
//! key and nothing else: whether a key is there, what its value is and which of a shard's records
//! it was cannot be told from any byte, size or time the client sends.
//!
//! # What a caller must know
//!
//! - **Nothing that is sent, and no time at which it is sent, may depend on an outcome.** A server
//!   that adds whole steps to the rows of one group makes exactly the records of that group absent,
//!   without any noise. Whoever then looks up again, looks up something else, or takes longer until
//!   the next call, tells the server the group of the key and whether the key exists.
//! - So a call sends everything and collects all answers before it looks at one record. Put what
//!   belongs together in one call. Begin the next call at a time that was fixed before; after the
//!   last one close the connection before the answers are opened ([`Client::ask`]). Do nothing for
//!   [`Outcome::Found`] that a server can see and that is not done for the other two.
//! - [`Outcome::Invalid`] says that an answer cannot be believed: a stale or forged hint, a changed
//!   matrix, a broken server. It is no reason for another try. The key's next look-up comes when it
//!   would have come anyway, and draws a fresh secret.
//! - A [`LookupError`] says nothing of a record: it was decided before anything was decoded.
//! - Dropping a call's future resets its streams, which takes its queries off the server, and wipes
//!   its secrets. A thread that encrypts or decodes at that time first finishes what it is at: one
//!   secret (at most 16 keys) or one answer.
//! - Store [`Pins`] after connecting and at the end ([`Client::pins`], [`Client::close`]), and
//!   begin the next session with them: what must not change then cannot change unnoticed.
//!
//! What this module does not do: dummies and padding of frames (the front-end's, see
//! docs/scheme.md, "What an observer learns"), keeping values, looking up on its own schedule.
//!
//! The way of a look-up: `ask.rs` (a call), `call.rs` (what is encrypted and decoded), `routes.rs`
//! (whom it goes to), `round.rs` and `sending.rs` (what is sent), `retry.rs` (what happens after a
//! failure).

mod ask;
mod call;
mod connection;
#[cfg(feature = "client")]
pub mod device;
mod error;
mod exchange;
pub mod frames;
mod hints;
mod link;
mod options;
mod report;
mod retry;
mod round;
mod routes;
mod sending;
pub mod staged;
mod trust;

pub use crate::keyword::Outcome;
pub use ask::Answers;
pub use connection::Client;
pub use error::{ClientError, LookupError, ParameterError, PinsError};
pub use options::{Options, Replica};
pub use report::{CallReport, SentQuery};
pub use trust::{OperatorKey, Pins};
