//! The worker processes: started, watched, replaced.
//!
//! ```text
//!            spawn, Hello                  the server closes
//!  Starting ─────────────► Running ────────────────────────► Closed
//!     ▲                       │ exits, is killed, hangs,        ▲
//!     │ after the back-off    ▼ breaks the protocol, misbehaves │ the server closes
//!     └─────────────────── Restarting ──────────────────────────┘
//! ```
//!
//! Each worker has a *slot*, which outlives the processes in it: [`slot`] is what callers see, [`watch`] is the task that
//! keeps a process in it, [`spawn`] makes the process, [`link`] is the conversation with it. A first process that does not
//! come up fails the server's start; every later one is replaced.

pub(crate) mod allowance;
pub(crate) mod backoff;
pub(crate) mod cpus;
pub(crate) mod descriptors;
pub(crate) mod dtls_certificate;
pub(crate) mod link;
pub(crate) mod pending;
pub(crate) mod placement;
pub(crate) mod ports;
pub(crate) mod shared;
pub(crate) mod slot;
pub(crate) mod slots;
pub(crate) mod sockets;
pub(crate) mod spawn;
pub(crate) mod watch;
pub(crate) mod worker_log;
pub(crate) mod worker_user;
