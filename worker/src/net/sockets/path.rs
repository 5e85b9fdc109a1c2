//! What sending needs of a transport: its socket, or the route through a shared port, and what waits for it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use super::options::may_segment;
use crate::net::backlog::Queue;
use crate::net::gather::List;
use crate::net::prefetch::prefetch;
use crate::net::send::{Destination, Route};

/// What sending needs of a transport.
#[derive(Debug)]
pub(in crate::net) struct Path {
    /// `None`: there is no transport with this index, or it sends through a shared port.
    pub(in crate::net) socket: Option<OwnedFd>,
    /// The shared port that is sent through, and where to, as long as there is no socket for that.
    pub(super) shared: Option<Box<SharedRoute>>,
    /// Whether there is a remote to send to.
    pub(in crate::net) is_connected: bool,
    /// Whether packets are protected on their way here.
    pub(in crate::net) is_protected: bool,
    /// Whether they leave over a connection, and not here.
    pub(in crate::net) is_stream: bool,
    /// Whether trains go out as one message.
    pub(in crate::net) uses_gso: bool,
    /// Trains refused in a row.
    pub(in crate::net) refusals: u8,
    /// Times in a row that the socket was writable and yet took nothing.
    pub(in crate::net) stalls: u8,
    /// What waits for the end of the turn.
    pub(in crate::net) gathered: List,
    /// The turn in which something was last to be gathered.
    pub(in crate::net) gather_turn: u32,
    /// Turns in a row in which one train was gathered, and so copied for nothing.
    pub(in crate::net) lonely_turns: u8,
    /// What waits for the socket to become writable.
    pub(in crate::net) backlog: Queue,
    pub(in crate::net) packets_sent: u64,
    pub(in crate::net) bytes_sent: u64,
}

const _: () = assert!(size_of::<Path>() <= 64);

impl Path {
    /// A socket that is connected to where it sends, and stays so.
    pub(in crate::net) fn connected(socket: OwnedFd) -> Self {
        Self {
            socket: Some(socket),
            is_connected: true,
            ..Self::vacant()
        }
    }

    /// The route that packets take out.
    #[inline]
    pub(in crate::net) fn route(&self) -> Option<Route<'_>> {
        match (&self.socket, &self.shared) {
            (Some(socket), _) => Some(Route::from(socket.as_fd())),
            (None, Some(shared)) => Some(shared.route()),
            (None, None) => None,
        }
    }

    /// The shared port through which packets can leave together with those of others, also if there is a connected socket:
    /// the receiver sees no difference.
    #[inline]
    pub(in crate::net) fn scattered(&self) -> Option<Scattered<'_>> {
        let shared = self.shared.as_deref().filter(|shared| shared.names_source)?;
        Some(Scattered {
            port: shared.number,
            socket: shared.port.as_fd(),
            destination: &shared.destination,
        })
    }

    /// Begins to bring into the caches what sending needs beside this record.
    #[inline]
    pub(in crate::net) fn prefetch(&self) {
        if let Some(shared) = self.shared.as_deref() {
            prefetch(shared);
        }
    }

    pub(super) fn vacant() -> Self {
        Self {
            socket: None,
            shared: None,
            is_connected: false,
            is_protected: false,
            is_stream: false,
            uses_gso: may_segment(),
            refusals: 0,
            stalls: 0,
            gathered: List::EMPTY,
            gather_turn: 0,
            lonely_turns: 0,
            backlog: Queue::new(),
            packets_sent: 0,
            bytes_sent: 0,
        }
    }
}

/// How a packet leaves through a shared port together with others.
#[derive(Clone, Copy, Debug)]
pub(in crate::net) struct Scattered<'a> {
    /// The number of the port.
    pub(in crate::net) port: u8,
    pub(in crate::net) socket: BorrowedFd<'a>,
    pub(in crate::net) destination: &'a Destination,
}

/// The route out through a shared port.
#[derive(Debug)]
pub(super) struct SharedRoute {
    pub(super) port: Arc<OwnedFd>,
    pub(super) number: u8,
    /// The port is bound to one address. Else the kernel would choose what packets come from, and a connected socket may have
    /// another one.
    pub(super) names_source: bool,
    pub(super) destination: Destination,
}

impl SharedRoute {
    #[inline]
    pub(super) fn route(&self) -> Route<'_> {
        Route {
            socket: self.port.as_fd(),
            destination: Some(&self.destination),
        }
    }
}
