//! ICE (RFC 8445) as a server needs it: lite, controlled, one component, and host candidates only.
//!
//! A lite agent answers connectivity checks. The one thing that ours asks itself is whether what it sends by a path arrives
//! (`return_check`): until then no media goes there. Which of the peer's addresses is used, the peer decides: by
//! checks that prove that it knows the password, and, among those that it has so checked, by where its authenticated traffic
//! comes from ([`choice`]). What is not authenticated selects nothing.

pub mod agent;
pub mod candidate;
pub mod check;
pub mod choice;
pub mod credentials;
mod path;
mod return_check;
mod transactions;

pub use agent::{Agent, Event, TUPLES_MAX};
pub use candidate::{Candidate, Listener, Preferences, host_candidates};
pub use check::{Checked, Refusal};
pub use credentials::{Credentials, InvalidCredentials};

pub use weir_channel::message::{IceProtocol as Protocol, IceState as State, IceTuple as Tuple};
