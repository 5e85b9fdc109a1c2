//! The sockets of plain transports: an unconnected and a connected one for each port.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::sys::socket::{SockaddrStorage, getpeername};
use weir_channel::message::{Remote, WorkerError};

use super::SocketCounters;
use super::check::{check_udp, local_address, os};
use super::options::{is_wildcard, prepare, reconnect};
use crate::net::source::Side;
use crate::relay::sink::Port;

/// The sockets of one transport, checked and prepared, on their way into [`Sockets`](super::Sockets).
#[derive(Debug)]
pub struct TransportSockets {
    pub(super) rtp: PortSockets,
    pub(super) rtcp: Option<PortSockets>,
}

#[derive(Debug)]
pub(super) struct PortSockets {
    pub(super) unconnected: OwnedFd,
    pub(super) connected: OwnedFd,
    /// Where both are bound to.
    pub(super) local: SockaddrStorage,
}

impl TransportSockets {
    /// Takes the descriptors of a new plain transport, in the order of
    /// [`CreatePlainTransport`](weir_channel::message::CreatePlainTransport): the unconnected and the connected socket of the
    /// RTP port, then, without `rtcp_mux`, those of the RTCP port. They are closed if they are refused.
    ///
    /// # Errors
    /// [`WorkerError::Descriptors`] if it is not that many, [`WorkerError::InvalidParameters`] if they are not pairs of UDP
    /// sockets bound to the same address, [`WorkerError::Os`] if they cannot be set up.
    pub fn adopt(descriptors: Vec<OwnedFd>, rtcp_mux: bool) -> Result<Self, WorkerError> {
        let (expected, received) = (if rtcp_mux { 2 } else { 4 }, descriptors.len());
        if received != expected {
            return Err(WorkerError::descriptors(expected, received));
        }
        let mut descriptors = descriptors.into_iter();
        let mut port = || match (descriptors.next(), descriptors.next()) {
            (Some(unconnected), Some(connected)) => PortSockets::adopt(unconnected, connected).map(Some),
            _ => Ok(None),
        };
        match (port()?, port()?) {
            (Some(rtp), rtcp) => Ok(Self { rtp, rtcp }),
            (None, _) => Err(WorkerError::descriptors(expected, received)),
        }
    }
}

impl PortSockets {
    pub(super) fn adopt(unconnected: OwnedFd, connected: OwnedFd) -> Result<Self, WorkerError> {
        for socket in [&unconnected, &connected] {
            check_udp(socket)?;
            prepare(socket.as_fd()).map_err(|errno| os("fcntl", errno))?;
        }
        if getpeername::<SockaddrStorage>(unconnected.as_raw_fd()).is_ok() {
            return Err(WorkerError::invalid(
                "the first socket of a port is connected; it must stay open to everybody",
            ));
        }
        let local = local_address(&unconnected)?;
        // A worker that had the socket before has left it connected.
        reconnect(connected.as_fd(), local, None).map_err(|errno| os("connect", errno))?;
        if !is_wildcard(&local) && local_address(&connected)? != local {
            return Err(WorkerError::invalid(
                "a port's two sockets are bound to different addresses",
            ));
        }
        Ok(Self {
            unconnected,
            connected,
            local,
        })
    }
}

/// What is kept of a plain transport beside its [`Path`](super::path::Path).
#[derive(Debug)]
pub(super) struct Ports {
    pub(super) unconnected: OwnedFd,
    pub(super) local: SockaddrStorage,
    pub(super) rtcp: Option<PortSockets>,
    pub(super) remote: Option<Remote>,
    pub(super) counters: SocketCounters,
    /// The last count seen of each socket; see [`slot_of`].
    pub(super) drop_counts: [u32; 4],
}

/// Where a socket's count is in [`Ports::drop_counts`].
pub(super) const fn slot_of(port: Port, side: Side) -> usize {
    match (port, side) {
        (Port::Rtp, Side::Unconnected) => 0,
        (Port::Rtp, Side::Connected) => 1,
        (Port::Rtcp, Side::Unconnected) => 2,
        (Port::Rtcp, Side::Connected) => 3,
    }
}
