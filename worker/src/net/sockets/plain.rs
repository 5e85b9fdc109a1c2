//! The sockets of plain transports: an unconnected and a connected one for each port.

use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::sys::socket::{SockaddrStorage, getpeername};
use weir_channel::message::{Remote, WorkerError};

use super::SocketCounters;
use super::check::{address_of, check_udp, local_address, os};
use super::options::{is_prepared, is_wildcard, prepare, reconnect};
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
    /// Where the connected one was connected to when that was looked at beforehand.
    pub(super) noted: Option<SocketAddr>,
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
        Self::take(descriptors, rtcp_mux, false)
    }

    /// As [`TransportSockets::adopt`], but what is connected stays so: a worker that is dead had them, and what has come meanwhile
    /// is in them. [`Sockets::resume`](super::Sockets::resume) sees to it that they are connected to the right remote.
    ///
    /// # Errors
    /// As there.
    pub fn take_over(descriptors: Vec<OwnedFd>, rtcp_mux: bool) -> Result<Self, WorkerError> {
        Self::take(descriptors, rtcp_mux, true)
    }

    /// Notes where they are connected to, while there is time for that.
    pub fn note_remotes(&mut self) {
        for port in [Some(&mut self.rtp), self.rtcp.as_mut()].into_iter().flatten() {
            port.noted = remote_of(&port.connected, &port.local);
        }
    }

    fn take(descriptors: Vec<OwnedFd>, rtcp_mux: bool, stays: bool) -> Result<Self, WorkerError> {
        let (expected, received) = (if rtcp_mux { 2 } else { 4 }, descriptors.len());
        if received != expected {
            return Err(WorkerError::descriptors(expected, received));
        }
        let mut descriptors = descriptors.into_iter();
        let mut port = || match (descriptors.next(), descriptors.next()) {
            (Some(unconnected), Some(connected)) => PortSockets::take(unconnected, connected, stays).map(Some),
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
        Self::take(unconnected, connected, false)
    }

    pub(super) fn take_over(unconnected: OwnedFd, connected: OwnedFd) -> Result<Self, WorkerError> {
        Self::take(unconnected, connected, true)
    }

    fn take(unconnected: OwnedFd, connected: OwnedFd, stays: bool) -> Result<Self, WorkerError> {
        if stays && is_prepared(&connected) {
            // A worker has checked them already. Of the time that the successor of a busy one takes, this is a third.
            return Ok(Self {
                local: local_address(&unconnected)?,
                unconnected,
                connected,
                noted: None,
            });
        }
        for socket in [&unconnected, &connected] {
            check_udp(socket)?;
        }
        if getpeername::<SockaddrStorage>(unconnected.as_raw_fd()).is_ok() {
            return Err(WorkerError::invalid(
                "the first socket of a port is connected; it must stay open to everybody",
            ));
        }
        let local = local_address(&unconnected)?;
        // A worker that had the socket before has left it connected.
        if !stays {
            reconnect(connected.as_fd(), local, None).map_err(|errno| os("connect", errno))?;
        }
        if !is_wildcard(&local) && local_address(&connected)? != local {
            return Err(WorkerError::invalid(
                "a port's two sockets are bound to different addresses",
            ));
        }
        // At the end, and the connected one as the last: by this a successor knows that all of it was done.
        for socket in [&unconnected, &connected] {
            prepare(socket.as_fd()).map_err(|errno| os("fcntl", errno))?;
        }
        Ok(Self {
            unconnected,
            connected,
            local,
            noted: None,
        })
    }
}

/// Where a port's connected socket is connected to, whose own address is that; `None`: it is parked.
pub(super) fn remote_of(connected: &OwnedFd, local: &SockaddrStorage) -> Option<SocketAddr> {
    let peer = getpeername::<SockaddrStorage>(connected.as_raw_fd()).ok()?;
    let peer = address_of(&peer).ok().filter(|_| peer != *local)?;
    Some(canonical(peer))
}

/// An address in the form in which IPv4 is never mapped to IPv6.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Whether a socket that is bound there is connected to a remote, or to itself if there is none.
pub(super) fn is_connected_to(socket: &impl AsRawFd, local: &SockaddrStorage, remote: Option<SocketAddr>) -> bool {
    let Ok(peer) = getpeername::<SockaddrStorage>(socket.as_raw_fd()) else {
        return false;
    };
    match remote {
        None => peer == *local,
        Some(remote) => {
            let v4 = peer.as_sockaddr_in().map(|peer| SocketAddr::V4((*peer).into()));
            let v6 = peer.as_sockaddr_in6().map(|peer| SocketAddr::V6((*peer).into()));
            let peer = v4.or(v6);
            // A socket for both protocols names IPv4 addresses in their IPv6-mapped form.
            peer.is_some_and(|peer| canonical(peer) == canonical(remote))
        }
    }
}

/// What is kept of a plain transport beside its [`Path`](super::path::Path).
#[derive(Debug)]
pub(super) struct Ports {
    pub(super) unconnected: OwnedFd,
    pub(super) local: SockaddrStorage,
    pub(super) rtcp: Option<PortSockets>,
    pub(super) remote: Option<Remote>,
    /// As [`PortSockets::noted`], of the RTP port.
    pub(super) noted: Option<SocketAddr>,
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
