//! Limits of TCP connections, at listeners and at shared ports.

use std::time::Duration;

/// A connection is closed after this time without a valid check.
pub(super) const CHECK_TIME_MAX: Duration = Duration::from_secs(10);

/// Connections that are accepted at once. Others wait for the next turn.
pub(super) const ACCEPTED_MAX: usize = 4;

/// How long no connections are accepted after the kernel could not take any more.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_secs(1);
