//! The worker processes: started, watched, replaced.
//!
//! ```text
//!            spawn, Hello                  the server closes
//!  Starting ─────────────► Running ────────────────────────► Closed
//!     ▲                       │ exits, is killed, hangs,        ▲
//!     │ at once, or after     ▼ breaks the protocol, misbehaves │ the server closes
//!     └─ the back-off ─── Restarting ───────────────────────────┘
//! ```
//!
//! Each worker has a *slot*, which outlives the processes in it: [`slot`] is what callers see, [`watch`] is the task that
//! keeps a process in it, [`spawn`] makes the process, [`link`] is the conversation with the worker, which outlives the process: the next
//! one, often a [`spare`] that waits already, is told to make the same rooms again, and what its predecessor has not answered.
//! A first process that does not come up fails the server's start; every later one is replaced.

pub(crate) mod allowance;
pub(crate) mod backoff;
pub(crate) mod birth;
pub(crate) mod body;
pub(crate) mod cpus;
pub(crate) mod descriptors;
pub(crate) mod dtls_certificate;
pub(crate) mod end;
pub(crate) mod link;
pub(crate) mod pending;
pub(crate) mod placement;
pub(crate) mod pollers;
pub(crate) mod ports;
pub(crate) mod shared;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
pub(crate) mod simulated;
pub(crate) mod slot;
pub(crate) mod slots;
pub(crate) mod sockets;
pub(crate) mod spare;
pub(crate) mod spawn;
pub(crate) mod suspicion;
pub(crate) mod totals;
pub(crate) mod turn_clock;
pub(crate) mod watch;
pub(crate) mod worker_log;
pub(crate) mod worker_user;
