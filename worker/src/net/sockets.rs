//! The sockets of transports, by the dense index that the relay gave each transport.
//!
//! The supervisor binds two UDP sockets to the same address for each port. The *connected* socket is connected to the remote
//! and carries the media. The *unconnected* socket receives what anybody else sends. While there is no remote, the connected
//! socket is parked: it is connected to its own address, from which nothing ever comes, so all packets arrive at the other.
//!
//! WebRTC transports have listeners of their own (`ice.rs`), or use ports that all of them share (`shared_ports.rs`).
//!
//! What sending needs of a transport is kept dense (`Path`, less than a cache line), apart from the rest.

mod check;
mod connection;
mod ice;
mod options;
mod path;
mod plain;
mod shared_ports;
mod stream;
mod webrtc;

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use weir_channel::message::{IceTuple, LISTENERS_MAX, Remote, WorkerError};

pub(super) use self::check::check_udp;
pub(crate) use self::check::os;
pub use self::connection::{Accepted, CONNECTIONS_MAX, Connection, Ended, WAITING_BYTES_MAX};
pub use self::ice::IceSockets;
pub(crate) use self::options::may_segment;
pub use self::options::{drop_count, prepare, stamp_arrivals};
use self::options::{reconnect, stamp_as_others};
pub(super) use self::path::Path;
pub use self::plain::TransportSockets;
use self::plain::{Ports, canonical, slot_of};
use self::shared_ports::SharedPort;
pub use self::shared_ports::{FirstPacket, UnassignedConnection};
pub use super::source::Side;
use super::source::Source;
use crate::page::layout::SocketCounts;
use crate::relay::sink::{Port, TransportIx};

/// Counters of one transport that only the network side knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SocketStats {
    /// Packets given to the kernel, RTCP included.
    pub packets_sent: u64,
    /// Their UDP payload bytes.
    pub bytes_sent: u64,
    /// The RTCP packets among them.
    pub rtcp_sent: u64,
    /// Packets the kernel dropped because a socket's receive buffer was full.
    pub kernel_drops: u64,
    /// Datagrams received that did not fit the buffer.
    pub truncated: u64,
    /// Packets that wait for the socket to become writable.
    pub backlog_packets: u64,
}

/// What a transport counts of itself: the part of [`SocketStats`] that is not about its path.
#[derive(Clone, Copy, Debug, Default)]
struct SocketCounters {
    rtcp_sent: u64,
    truncated: u64,
    kernel_drops: u64,
}

/// All transports' sockets.
#[derive(Debug, Default)]
pub struct Sockets {
    pub(super) paths: Vec<Path>,
    ports: Vec<Option<Box<Ports>>>,
    ice: Vec<Option<Box<IceSockets>>>,
    shared_ports: Vec<SharedPort>,
    kernel_drops: u64,
    truncated: u64,
    stamps_arrivals: bool,
    /// Connections that have filled up.
    blocked: Vec<(TransportIx, u8)>,
    /// Connected sockets that are closed, and of which others may have a copy.
    closed: Vec<(TransportIx, IceTuple)>,
}

impl Sockets {
    /// No transports yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers the sockets of a new transport. It cannot send before [`Sockets::connect`]; what its sockets have dropped before is counted
    /// but for [`Sockets::begin_drop_counts`].
    ///
    /// # Panics
    /// If the index is taken.
    pub fn attach(&mut self, transport: TransportIx, sockets: TransportSockets) {
        let index = transport.0 as usize;
        self.reserve(transport);
        assert!(!self.contains(transport), "the relay gave out an index twice");
        let TransportSockets { rtp, rtcp } = sockets;
        self.paths[index] = Path::vacant();
        self.paths[index].socket = Some(rtp.connected);
        self.ports[index] = Some(Box::new(Ports {
            unconnected: rtp.unconnected,
            local: rtp.local,
            rtcp,
            remote: None,
            noted: rtp.noted,
            counters: SocketCounters::default(),
            drop_counts: [0; 4],
        }));
        self.each(transport, |_, _, socket| stamp_as_others(socket, self.stamps_arrivals));
    }

    /// A new transport's sockets are about to be read: what was dropped before, when somebody else had them, is not the
    /// transport's.
    pub fn begin_drop_counts(&mut self, transport: TransportIx) {
        let mut drop_counts = [0; 4];
        self.each(transport, |port, side, socket| {
            drop_counts[slot_of(port, side)] = drop_count(socket)
        });
        if let Some(Some(ports)) = self.ports.get_mut(transport.0 as usize) {
            ports.drop_counts = drop_counts;
        }
        self.begin_listener_drop_counts(transport);
    }

    /// Extends the tables to an index.
    fn reserve(&mut self, transport: TransportIx) {
        let index = transport.0 as usize;
        if self.paths.len() <= index {
            self.paths.resize_with(index + 1, Path::vacant);
            self.ports.resize_with(index + 1, || None);
            self.ice.resize_with(index + 1, || None);
        }
    }

    /// Registers a connected datagram socket of any kind as the only socket of a transport.
    #[cfg(test)]
    pub(super) fn attach_unchecked(&mut self, transport: TransportIx, connected: std::os::fd::OwnedFd) {
        let somewhere = SocketAddr::from(([127, 0, 0, 1], 9));
        let rtp = plain::PortSockets {
            unconnected: connected.try_clone().unwrap(),
            connected,
            local: somewhere.into(),
            noted: None,
        };
        self.attach(transport, TransportSockets { rtp, rtcp: None });
        let remote = Remote {
            rtp: somewhere,
            rtcp: None,
        };
        self.set_remote(transport, Some(remote));
    }

    /// Closes a transport's sockets and forgets them. Take them out of the [`Poller`](super::poll::Poller) before: the
    /// supervisor holds them too, and so an epoll would go on reporting them.
    pub fn detach(&mut self, transport: TransportIx) {
        let index = transport.0 as usize;
        if index < self.paths.len() {
            self.paths[index] = Path::vacant();
            self.ports[index] = None;
            self.ice[index] = None;
            self.closed.retain(|(closed, _)| *closed != transport);
        }
    }

    /// Whether there is a transport with this index.
    pub fn contains(&self, transport: TransportIx) -> bool {
        self.ports(transport).is_some() || self.ice(transport).is_some()
    }

    /// Calls `visit` with each socket of a transport.
    pub fn each(&self, transport: TransportIx, mut visit: impl FnMut(Port, Side, BorrowedFd<'_>)) {
        for port in [Port::Rtp, Port::Rtcp] {
            for side in [Side::Unconnected, Side::Connected] {
                if let Some(socket) = self.get(transport, port, side) {
                    visit(port, side, socket);
                }
            }
        }
    }

    /// One of a transport's sockets.
    pub fn get(&self, transport: TransportIx, port: Port, side: Side) -> Option<BorrowedFd<'_>> {
        let ports = self.ports(transport)?;
        Some(match (port, side) {
            (Port::Rtp, Side::Unconnected) => ports.unconnected.as_fd(),
            (Port::Rtp, Side::Connected) => self.paths[transport.0 as usize].socket.as_ref()?.as_fd(),
            (Port::Rtcp, Side::Unconnected) => ports.rtcp.as_ref()?.unconnected.as_fd(),
            (Port::Rtcp, Side::Connected) => ports.rtcp.as_ref()?.connected.as_fd(),
        })
    }

    /// The socket that RTCP leaves on.
    pub(super) fn rtcp_socket(&self, transport: TransportIx) -> Option<BorrowedFd<'_>> {
        let port = match self.ports(transport)?.rtcp {
            Some(_) => Port::Rtcp,
            None => Port::Rtp,
        };
        self.get(transport, port, Side::Connected)
    }

    /// Whether RTCP has somewhere to go: the remote's own port for it, known or supposed, or with mux the one remote.
    pub(super) fn has_rtcp_remote(&self, transport: TransportIx, remote: Remote) -> bool {
        self.ports(transport)
            .is_some_and(|ports| ports.rtcp.is_none() || remote.rtcp_or_next().is_some())
    }

    /// Connects a transport's sockets to a remote, its first or another one. If that fails, they stay connected to the old
    /// remote, if there was one.
    ///
    /// A port for RTCP is connected to the remote's for RTCP, if that is known, else to the one above RTP's (RFC 3550 §11).
    ///
    /// # Errors
    /// [`WorkerError::Os`] with what the kernel says, e.g. that there is no route.
    pub fn connect(&mut self, transport: TransportIx, remote: Remote) -> Result<(), WorkerError> {
        let previous = self.remote(transport);
        match self.connect_all(transport, Some(remote)) {
            Ok(()) => {
                self.set_remote(transport, Some(remote));
                Ok(())
            }
            Err(errno) => {
                // It has been connected there before, so only an interface that has gone since could refuse now; then
                // sending to it fails too, and is counted.
                let _ = self.connect_all(transport, previous);
                Err(os("connect", errno))
            }
        }
    }

    /// Goes on with sockets that another worker has left connected. They are connected anew only if that was to somewhere else:
    /// what comes between would go to the other socket, and be out of order. `is_noted`: they have stayed where
    /// [`TransportSockets::note_remotes`] has found them.
    ///
    /// # Errors
    /// As [`Sockets::connect`].
    pub fn resume(
        &mut self,
        transport: TransportIx,
        remote: Option<Remote>,
        is_noted: bool,
    ) -> Result<(), WorkerError> {
        let rtp = self.get(transport, Port::Rtp, Side::Connected);
        let is_kept = self.ports(transport).zip(rtp).is_some_and(|(ports, rtp)| {
            let is_as_noted = |noted: Option<SocketAddr>, remote: Option<SocketAddr>| {
                is_noted && remote.is_some_and(|remote| noted == Some(canonical(remote)))
            };
            let (rtp_remote, rtcp_remote) = (
                remote.map(|remote| remote.rtp),
                remote.and_then(|remote| remote.rtcp_or_next()),
            );
            (is_as_noted(ports.noted, rtp_remote) || plain::is_connected_to(&rtp, &ports.local, rtp_remote))
                && ports.rtcp.as_ref().is_none_or(|rtcp| {
                    is_as_noted(rtcp.noted, rtcp_remote)
                        || plain::is_connected_to(&rtcp.connected, &rtcp.local, rtcp_remote)
                })
        });
        if is_kept {
            self.set_remote(transport, remote);
            return Ok(());
        }
        self.restore(transport, remote)
    }

    /// Undoes a [`Sockets::connect`]: back to `remote`, or to none.
    ///
    /// # Errors
    /// As [`Sockets::connect`].
    pub fn restore(&mut self, transport: TransportIx, remote: Option<Remote>) -> Result<(), WorkerError> {
        self.connect_all(transport, remote)
            .map_err(|errno| os("connect", errno))?;
        self.set_remote(transport, remote);
        Ok(())
    }

    /// Where a transport is connected to.
    pub fn remote(&self, transport: TransportIx) -> Option<Remote> {
        self.ports(transport)?.remote
    }

    /// Starts or stops stamping arrivals, at all sockets and at those that come.
    ///
    /// # Errors
    /// What the kernel says. No arrivals are stamped then.
    pub fn stamp_arrivals(&mut self, on: bool) -> Result<(), Errno> {
        let before = std::mem::replace(&mut self.stamps_arrivals, on);
        if on == before {
            return Ok(());
        }
        let result = self.stamp_all(on);
        if result.is_err() {
            self.stamps_arrivals = false;
            // Those that could be switched on can be switched off.
            let _ = self.stamp_all(false);
        }
        result
    }

    fn stamp_all(&self, on: bool) -> Result<(), Errno> {
        let mut result = Ok(());
        for index in 0..self.ports.len() as u32 {
            self.each(TransportIx(index), |_, _, socket| {
                result = result.and(stamp_arrivals(socket, on));
            });
            self.each_listener(TransportIx(index), |_, _, socket| {
                result = result.and(stamp_arrivals(socket, on));
            });
        }
        self.each_shared_port(|_, socket| result = result.and(stamp_arrivals(socket, on)));
        result
    }

    /// Notes the drop count of a socket, as a [`Received`](super::receive::Received) has brought it.
    pub fn note_drop_count(&mut self, source: Source, count: u32) {
        let (last, total) = match source {
            Source::Channel | Source::Open | Source::Connection { .. } | Source::Unassigned { .. } => return,
            Source::SharedPort { number } => match self.shared_ports.get_mut(usize::from(number)) {
                Some(unconnected) => (&mut unconnected.drop_count, &mut unconnected.kernel_drops),
                None => return,
            },
            Source::Socket { transport, port, side } => {
                let Some(Some(ports)) = self.ports.get_mut(transport.0 as usize) else {
                    return;
                };
                (
                    &mut ports.drop_counts[slot_of(port, side)],
                    &mut ports.counters.kernel_drops,
                )
            }
            Source::Listener {
                transport,
                listener,
                side,
            } => {
                let ice = self.ice.get_mut(transport.0 as usize);
                let Some(counts) = ice.and_then(|ice| ice.as_deref_mut()?.drop_count_mut(listener, side)) else {
                    return;
                };
                counts
            }
        };
        let more = u64::from(count.wrapping_sub(*last));
        // A report can be older than a count that was asked for; such a difference is not half the range ahead.
        if more <= u64::from(u32::MAX / 2) {
            *last = count;
            *total += more;
            self.kernel_drops += more;
        }
    }

    /// The socket that a transport's packets leave on, and what it is watched as.
    pub fn sending_socket(&self, transport: TransportIx) -> Option<(BorrowedFd<'_>, Source)> {
        let side = Side::Connected;
        if let Some(ice) = self.ice(transport) {
            let listener = ice.sending()?;
            let source = Source::Listener {
                transport,
                listener,
                side,
            };
            return Some((self.listener(transport, listener, side)?, source));
        }
        let port = Port::Rtp;
        let source = Source::Socket { transport, port, side };
        Some((self.get(transport, port, side)?, source))
    }

    /// Counts datagrams that did not fit.
    pub fn note_truncated(&mut self, transport: TransportIx, datagrams: u32) {
        self.truncated += u64::from(datagrams);
        if let Some(counters) = self.counters_mut(transport) {
            counters.truncated += u64::from(datagrams);
        }
    }

    pub(super) fn note_rtcp_sent(&mut self, transport: TransportIx, len: usize) {
        if let Some(counters) = self.counters_mut(transport) {
            counters.rtcp_sent += 1;
        }
        if let Some(path) = self.paths.get_mut(transport.0 as usize) {
            path.packets_sent += 1;
            path.bytes_sent += len as u64;
        }
    }

    /// The counters of a transport, after asking the kernel for drops that no packet has reported yet.
    pub fn stats(&mut self, transport: TransportIx) -> Option<SocketStats> {
        let mut counts = Vec::new();
        self.each(transport, |port, side, socket| {
            let source = Source::Socket { transport, port, side };
            counts.push((source, drop_count(socket)));
        });
        self.each_listener(transport, |listener, side, socket| {
            let source = Source::Listener {
                transport,
                listener,
                side,
            };
            counts.push((source, drop_count(socket)));
        });
        for (source, count) in counts {
            self.note_drop_count(source, count);
        }
        let counters = *self.counters_mut(transport)?;
        let path = &self.paths[transport.0 as usize];
        Some(SocketStats {
            packets_sent: path.packets_sent,
            bytes_sent: path.bytes_sent,
            rtcp_sent: counters.rtcp_sent,
            kernel_drops: counters.kernel_drops,
            truncated: counters.truncated,
            backlog_packets: u64::from(path.backlog.packets()),
        })
    }

    /// What is kept of a transport's counters, for a worker that comes after this one: without what the kernel has not said yet.
    pub(super) fn kept_counts(&self, transport: TransportIx) -> SocketCounts {
        let index = transport.0 as usize;
        let (Some(path), ports, ice) = (self.paths.get(index), self.ports(transport), self.ice(transport)) else {
            return SocketCounts::default();
        };
        let plain = ports.map(|ports| {
            let mut drop_counts = [0; 2 * LISTENERS_MAX];
            drop_counts[..ports.drop_counts.len()].copy_from_slice(&ports.drop_counts);
            (ports.counters, drop_counts)
        });
        let counted = plain.or_else(|| ice.map(|ice| (ice.counters, ice.drop_counts())));
        let (counters, drop_counts) = counted.unwrap_or_default();
        SocketCounts {
            drop_counts,
            kernel_drops: counters.kernel_drops,
            packets_sent: path.packets_sent,
            bytes_sent: path.bytes_sent,
            rtcp_sent: counters.rtcp_sent,
            truncated: counters.truncated,
            ..SocketCounts::default()
        }
    }

    /// A new transport goes on with what another worker has counted at its sockets. What they have dropped since then counts.
    pub(super) fn go_on_counting(&mut self, transport: TransportIx, kept: &SocketCounts) {
        let index = transport.0 as usize;
        let Some(counters) = self.counters_mut(transport) else {
            return;
        };
        *counters = SocketCounters {
            rtcp_sent: kept.rtcp_sent,
            truncated: kept.truncated,
            kernel_drops: kept.kernel_drops,
        };
        self.paths[index].packets_sent = kept.packets_sent;
        self.paths[index].bytes_sent = kept.bytes_sent;
        if let Some(Some(ports)) = self.ports.get_mut(index) {
            for (count, kept) in ports.drop_counts.iter_mut().zip(kept.drop_counts) {
                *count = kept;
            }
        }
        if let Some(Some(ice)) = self.ice.get_mut(index) {
            ice.set_drop_counts(kept.drop_counts);
        }
    }

    /// Packets dropped by the kernel at all sockets, closed ones included, as far as packets have reported it.
    pub fn kernel_drops(&self) -> u64 {
        self.kernel_drops
    }

    /// Datagrams of all transports that did not fit.
    pub fn truncated(&self) -> u64 {
        self.truncated
    }

    fn ports(&self, transport: TransportIx) -> Option<&Ports> {
        self.ports.get(transport.0 as usize)?.as_deref()
    }

    fn ports_mut(&mut self, transport: TransportIx) -> Option<&mut Ports> {
        self.ports.get_mut(transport.0 as usize)?.as_deref_mut()
    }

    fn counters_mut(&mut self, transport: TransportIx) -> Option<&mut SocketCounters> {
        let index = transport.0 as usize;
        let (ports, ice) = (self.ports.get_mut(index)?, self.ice.get_mut(index)?);
        let plain = ports.as_mut().map(|ports| &mut ports.counters);
        plain.or_else(|| ice.as_mut().map(|ice| &mut ice.counters))
    }

    fn set_remote(&mut self, transport: TransportIx, remote: Option<Remote>) {
        if let Some(ports) = self.ports_mut(transport) {
            ports.remote = remote;
            let path = &mut self.paths[transport.0 as usize];
            path.is_connected = remote.is_some();
            // Another route: it may segment where the last one did not.
            path.uses_gso = may_segment();
            path.refusals = 0;
        }
    }

    fn connect_all(&self, transport: TransportIx, remote: Option<Remote>) -> Result<(), Errno> {
        let (Some(ports), Some(connected)) = (self.ports(transport), self.get(transport, Port::Rtp, Side::Connected))
        else {
            return Err(Errno::EBADF);
        };
        reconnect(connected, ports.local, remote.map(|remote| remote.rtp))?;
        if let Some(rtcp) = &ports.rtcp {
            let to = remote.and_then(|remote| remote.rtcp_or_next());
            reconnect(rtcp.connected.as_fd(), rtcp.local, to)?;
        }
        Ok(())
    }
}
