//! Shared ports: all WebRTC transports without ports of their own use them.
//!
//! A shared port is one unconnected UDP socket, or a listening TCP one. A transport sends through it, each message with its
//! destination, until it gets a socket of its own that is bound to the same port and connected to its peer. The kernel then
//! delivers that peer's packets to this socket, and needs no route lookup for what is sent. Such a socket lives as long as
//! its tuple is the selected one.

use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, Shutdown, SockaddrStorage, getpeername, recv, shutdown};
use weir_channel::message::{IceProtocol, IceTuple, LISTENERS_MAX, SHARED_PORTS_MAX, WorkerError};

use super::Sockets;
use super::check::{address_of, check_tcp, check_udp, local_address, os};
use super::connection::{Accepted, Connection, accept_at, unmapped};
use super::options::{drop_count, prepare, reconnect, stamp_as_others};
use super::path::{Path, SharedRoute};
use crate::net::send::{Destination, Route};
use crate::relay::sink::TransportIx;
use crate::time::Time;
use crate::webrtc::framing::PREFIX_BYTES;

/// The longest first packet of a connection: a check is a few hundred bytes.
const FIRST_PACKET_BYTES_MAX: usize = 1_500;

/// One shared port.
#[derive(Debug)]
pub(super) struct SharedPort {
    local: SocketAddr,
    kind: Kind,
    /// The last count seen.
    pub(super) drop_count: u32,
    pub(super) kernel_drops: u64,
}

#[derive(Debug)]
enum Kind {
    /// Shared with the transports that send through it.
    Udp {
        socket: Arc<OwnedFd>,
        is_v6: bool,
    },
    Tcp(OwnedFd),
}

/// What a transport on shared ports has of its own.
#[derive(Debug, Default)]
pub(super) struct OnSharedPorts {
    /// The connected socket that it sends on at the moment.
    pub(super) socket: Option<OwnSocket>,
    /// The last count seen of that socket.
    pub(super) drop_count: u32,
    /// The one that another worker has left, until its tuple is selected.
    left: Option<(IceTuple, OwnedFd)>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct OwnSocket {
    pub(super) port: u8,
    tuple: IceTuple,
}

impl OnSharedPorts {
    /// Closes the connected socket, and stops sending through the shared port. Returns where that socket was connected to.
    pub(super) fn leave(&mut self, path: &mut Path) -> Option<IceTuple> {
        path.shared = None;
        let closed = self.socket.take()?.tuple;
        if let Some(socket) = path.socket.take() {
            park(&socket, &closed);
        }
        Some(closed)
    }

    /// Sends through a shared port to a tuple's remote end from now on.
    pub(super) fn enter(&self, path: &mut Path, shared_ports: &[SharedPort], tuple: IceTuple) -> Result<(), Errno> {
        let (number, port) = udp_at(shared_ports, tuple.local).ok_or(Errno::EADDRNOTAVAIL)?;
        path.shared = port.shared(number, tuple.remote).map(Box::new);
        Ok(())
    }

    /// Sends on the socket that another worker has left, if it is connected to the tuple that is sent to now: what has come is in it.
    pub(super) fn go_on(&mut self, path: &mut Path, tuple: IceTuple) {
        if let Some(port) = path.shared.as_ref().map(|shared| shared.number)
            && let Some((tuple, socket)) = self.left.take_if(|(left, _)| *left == tuple)
        {
            self.drop_count = drop_count(socket.as_fd());
            self.socket = Some(OwnSocket { port, tuple });
            path.socket = Some(socket);
        }
    }
}

impl SharedPort {
    fn adopt(protocol: IceProtocol, socket: OwnedFd) -> Result<Self, WorkerError> {
        if protocol == IceProtocol::Tcp {
            return Ok(Self {
                local: check_tcp(&socket)?,
                kind: Kind::Tcp(socket),
                drop_count: 0,
                kernel_drops: 0,
            });
        }
        check_udp(&socket)?;
        if getpeername::<SockaddrStorage>(socket.as_raw_fd()).is_ok() {
            return Err(WorkerError::invalid(
                "a shared port is connected; it must stay open to everybody",
            ));
        }
        prepare(socket.as_fd()).map_err(|errno| os("fcntl", errno))?;
        let bound = local_address(&socket)?;
        Ok(Self {
            local: address_of(&bound)?,
            // What was dropped before, when another worker had the socket, is not this worker's.
            drop_count: drop_count(socket.as_fd()),
            kind: Kind::Udp {
                socket: Arc::new(socket),
                is_v6: bound.as_sockaddr_in6().is_some(),
            },
            kernel_drops: 0,
        })
    }

    fn protocol(&self) -> IceProtocol {
        match self.kind {
            Kind::Udp { .. } => IceProtocol::Udp,
            Kind::Tcp(_) => IceProtocol::Tcp,
        }
    }

    fn socket(&self) -> BorrowedFd<'_> {
        match &self.kind {
            Kind::Udp { socket, .. } => socket.as_fd(),
            Kind::Tcp(socket) => socket.as_fd(),
        }
    }

    fn shared(&self, number: u8, remote: SocketAddr) -> Option<SharedRoute> {
        match &self.kind {
            Kind::Udp { socket, is_v6 } => Some(SharedRoute {
                port: Arc::clone(socket),
                number,
                names_source: !self.local.ip().is_unspecified(),
                destination: Destination::new(remote, *is_v6),
            }),
            Kind::Tcp(_) => None,
        }
    }
}

/// The two ends of a connected UDP socket.
fn ends_of(socket: &OwnedFd) -> Result<(SocketAddr, SocketAddr), WorkerError> {
    check_udp(socket)?;
    let remote = getpeername::<SockaddrStorage>(socket.as_raw_fd()).map_err(|errno| os("getpeername", errno))?;
    Ok((address_of(&local_address(socket)?)?, unmapped(address_of(&remote)?)))
}

/// Has nothing come to a socket any more, which others may have a copy of: what its peer sends is for the shared port.
fn park(socket: &OwnedFd, tuple: &IceTuple) {
    // Otherwise it goes on taking what comes until the copy is closed.
    let _ = reconnect(socket.as_fd(), tuple.local.into(), None);
}

fn udp_at(shared_ports: &[SharedPort], local: SocketAddr) -> Option<(u8, &SharedPort)> {
    let numbered = (0..).zip(shared_ports);
    let mut udp = numbered.filter(|(_, port)| port.protocol() == IceProtocol::Udp);
    udp.find(|(_, port)| port.local == local)
}

impl Sockets {
    /// Opens the shared ports of a worker, in the order of their descriptors, which are closed if they are refused.
    ///
    /// # Errors
    /// [`WorkerError::Descriptors`] if there are more or fewer than that, [`WorkerError::InvalidParameters`] if they are not
    /// what `protocols` says, or the worker has shared ports already, [`WorkerError::Os`] if they cannot be set up.
    pub fn open_shared_ports(
        &mut self,
        protocols: &[IceProtocol],
        descriptors: Vec<OwnedFd>,
    ) -> Result<(), WorkerError> {
        if !self.shared_ports.is_empty() {
            return Err(WorkerError::invalid("the shared ports are open already"));
        }
        if protocols.is_empty() || protocols.len() > SHARED_PORTS_MAX {
            return Err(WorkerError::invalid(format!(
                "{} shared ports; a worker has 1 to {SHARED_PORTS_MAX}",
                protocols.len()
            )));
        }
        if protocols.len() != descriptors.len() {
            return Err(WorkerError::descriptors(protocols.len(), descriptors.len()));
        }
        let mut shared_ports: Vec<SharedPort> = Vec::with_capacity(protocols.len());
        for (protocol, socket) in protocols.iter().zip(descriptors) {
            let port = SharedPort::adopt(*protocol, socket)?;
            stamp_as_others(port.socket(), self.stamps_arrivals);
            if shared_ports
                .iter()
                .any(|other| other.local == port.local && other.protocol() == *protocol)
            {
                return Err(WorkerError::invalid("two shared ports are bound to the same address"));
            }
            shared_ports.push(port);
        }
        self.shared_ports = shared_ports;
        Ok(())
    }

    /// Closes the shared ports, because they could not be watched.
    pub fn close_shared_ports(&mut self) {
        self.shared_ports.clear();
    }

    /// Whether the worker has shared ports.
    pub fn has_shared_ports(&self) -> bool {
        !self.shared_ports.is_empty()
    }

    /// Calls `visit` with the number and the socket of each.
    pub fn each_shared_port(&self, mut visit: impl FnMut(u8, BorrowedFd<'_>)) {
        for (number, port) in (0..).zip(&self.shared_ports) {
            visit(number, port.socket());
        }
    }

    /// The socket of a shared port.
    pub fn shared_port(&self, number: u8) -> Option<BorrowedFd<'_>> {
        Some(self.shared_ports.get(usize::from(number))?.socket())
    }

    /// The protocol and the address of a shared port.
    pub fn shared_port_at(&self, number: u8) -> Option<(IceProtocol, SocketAddr)> {
        let port = self.shared_ports.get(usize::from(number))?;
        Some((port.protocol(), port.local))
    }

    /// Whether a transport is reached through the shared ports.
    pub fn uses_shared_ports(&self, transport: TransportIx) -> bool {
        self.ice(transport).is_some_and(|ice| ice.on_shared_ports.is_some())
    }

    /// The shared port that a transport sends through, as long as it has no socket of its own for that.
    pub fn sends_through(&self, transport: TransportIx) -> Option<u8> {
        let path = self.paths.get(transport.0 as usize)?;
        let shared = path.shared.as_ref().filter(|_| path.socket.is_none())?;
        Some(shared.number)
    }

    /// From now on, a transport that sends through a shared port to a tuple sends on this socket, which is connected to the
    /// same tuple. The socket is closed if it is refused.
    ///
    /// # Errors
    /// [`WorkerError::InvalidParameters`] if it is another socket, or not for this transport, [`WorkerError::Os`] if it cannot be set
    /// up.
    pub fn use_connected(
        &mut self,
        transport: TransportIx,
        tuple: IceTuple,
        socket: OwnedFd,
    ) -> Result<(), WorkerError> {
        let (local, remote) = ends_of(&socket)?;
        let number = self.sends_through(transport);
        let (Some(number), true) = (number, (local, remote) == (tuple.local, tuple.remote)) else {
            return Err(WorkerError::invalid(
                "a socket that is not connected to where its transport sends",
            ));
        };
        prepare(socket.as_fd()).map_err(|errno| os("fcntl", errno))?;
        stamp_as_others(socket.as_fd(), self.stamps_arrivals);
        let drops = drop_count(socket.as_fd());
        let on_shared_ports = self.ice.get_mut(transport.0 as usize);
        let Some(on_shared_ports) = on_shared_ports.and_then(|ice| ice.as_deref_mut()?.on_shared_ports.as_mut()) else {
            return Ok(());
        };
        on_shared_ports.socket = Some(OwnSocket { port: number, tuple });
        on_shared_ports.drop_count = drops;
        self.paths[transport.0 as usize].socket = Some(socket);
        Ok(())
    }

    /// Another worker has left a transport on shared ports this socket, connected to this tuple. It goes on when that is selected
    /// ([`Sockets::select`]).
    ///
    /// # Errors
    /// As [`Sockets::use_connected`].
    pub fn take_over_connected(
        &mut self,
        transport: TransportIx,
        tuple: IceTuple,
        socket: OwnedFd,
    ) -> Result<(), WorkerError> {
        if ends_of(&socket)? != (tuple.local, tuple.remote) {
            return Err(WorkerError::invalid(
                "a socket that is not connected to where it should be",
            ));
        }
        prepare(socket.as_fd()).map_err(|errno| os("fcntl", errno))?;
        stamp_as_others(socket.as_fd(), self.stamps_arrivals);
        let ice = self.ice.get_mut(transport.0 as usize).and_then(Option::as_deref_mut);
        match ice.and_then(|ice| ice.on_shared_ports.as_mut()) {
            Some(on_shared_ports) => on_shared_ports.left = Some((tuple, socket)),
            None => return Err(WorkerError::invalid("a transport that is not on a shared port")),
        }
        Ok(())
    }

    /// All is as another worker has left it: a socket that is not used by now is closed.
    pub fn end_take_over(&mut self, transport: TransportIx) {
        let ice = self.ice.get_mut(transport.0 as usize).and_then(Option::as_deref_mut);
        let on_shared_ports = ice.and_then(|ice| ice.on_shared_ports.as_mut());
        if let Some((tuple, socket)) = on_shared_ports.and_then(|on_shared_ports| on_shared_ports.left.take()) {
            self.leave_unused(transport, tuple, socket);
        }
    }

    /// The number of the listener, or of the shared port, by which connections of a transport come at an address.
    pub fn tcp_at(&self, transport: TransportIx, local: SocketAddr) -> Option<u8> {
        (0..LISTENERS_MAX as u8).find(|number| self.listens_at(transport, *number) == Some((IceProtocol::Tcp, local)))
    }

    /// A connected socket that a transport has no use for. It is closed.
    pub fn leave_unused(&mut self, transport: TransportIx, tuple: IceTuple, socket: OwnedFd) {
        match tuple.protocol {
            IceProtocol::Udp => park(&socket, &tuple),
            // Whoever has a copy.
            IceProtocol::Tcp => drop(shutdown(socket.as_raw_fd(), Shutdown::Both)),
        }
        self.closed.push((transport, tuple));
    }

    /// Closes a transport's connected socket, and sends through the shared port again.
    pub fn give_up_connected(&mut self, transport: TransportIx) {
        if let Some(Some(ice)) = self.ice.get_mut(transport.0 as usize)
            && let Some(on_shared_ports) = &mut ice.on_shared_ports
        {
            on_shared_ports.socket = None;
            self.paths[transport.0 as usize].socket = None;
        }
    }

    /// Sends one datagram from a shared port to anybody, on the transport's own socket if that is connected so.
    pub(super) fn send_by_shared_port(
        &mut self,
        transport: TransportIx,
        local: SocketAddr,
        remote: SocketAddr,
        datagram: &[u8],
    ) -> Result<(), Errno> {
        let on_shared_ports = self.ice(transport).and_then(|ice| ice.on_shared_ports.as_ref());
        let is_own = on_shared_ports
            .and_then(|on_shared_ports| on_shared_ports.socket)
            .is_some_and(|socket| (socket.tuple.local, socket.tuple.remote) == (local, remote));
        let (number, port) = udp_at(&self.shared_ports, local).ok_or(Errno::EADDRNOTAVAIL)?;
        let shared;
        let route = match &self.paths[transport.0 as usize].socket {
            Some(socket) if is_own => Route::from(socket.as_fd()),
            _ => {
                shared = port.shared(number, remote).ok_or(Errno::EADDRNOTAVAIL)?;
                shared.route()
            }
        };
        route.send_despite_pending(datagram)
    }

    /// Accepts the next connection at a shared port.
    ///
    /// # Errors
    /// What the kernel says if it cannot take any more connections (EMFILE, ENOBUFS …).
    pub fn accept_at_shared_port(&self, now: Time, number: u8) -> Result<Accepted<UnassignedConnection>, Errno> {
        let Some(SharedPort {
            local,
            kind: Kind::Tcp(listener),
            ..
        }) = self.shared_ports.get(usize::from(number))
        else {
            return Ok(Accepted::None);
        };
        Ok(accept_at(listener.as_fd())?.and_then(|(socket, remote)| {
            let connection = Connection::new(socket, number, *local, remote, now);
            let bytes = Vec::new();
            Some(UnassignedConnection { connection, bytes })
        }))
    }
}

/// A connection to a shared port whose transport is not known yet. It is read up to the end of its first packet.
#[derive(Debug)]
pub struct UnassignedConnection {
    connection: Connection,
    /// What was read, from the prefix of the first packet on.
    bytes: Vec<u8>,
}

/// How much of the first packet of an [`UnassignedConnection`] has arrived.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FirstPacket {
    /// A part of the packet is missing.
    Incomplete,
    /// The packet is complete.
    Complete,
    /// It never will be: the peer has closed the connection, or says more than a check does.
    Never,
}

impl UnassignedConnection {
    /// As a transport's connection, which it is not yet; the shared port is its listener.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The first packet, when it is complete.
    pub fn packet_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(PREFIX_BYTES..).unwrap_or_default()
    }

    /// Reads what has come, up to the end of the first packet.
    pub fn read(&mut self) -> FirstPacket {
        loop {
            let held = self.bytes.len();
            let wanted = match self.bytes.first_chunk::<PREFIX_BYTES>() {
                None => PREFIX_BYTES,
                Some(prefix) => {
                    let len = usize::from(u16::from_be_bytes(*prefix));
                    if len == 0 || len > FIRST_PACKET_BYTES_MAX {
                        return FirstPacket::Never;
                    }
                    PREFIX_BYTES + len
                }
            };
            if held == wanted {
                return FirstPacket::Complete;
            }
            self.bytes.resize(wanted, 0);
            let read = recv(
                self.connection.socket().as_raw_fd(),
                &mut self.bytes[held..],
                MsgFlags::MSG_DONTWAIT,
            );
            self.bytes.truncate(held + read.unwrap_or(0));
            match read {
                Ok(0) => return FirstPacket::Never,
                Ok(_) | Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return FirstPacket::Incomplete,
                Err(_) => return FirstPacket::Never,
            }
        }
    }

    /// As a transport's connection, and its first packet.
    pub fn into_connection(mut self) -> (Connection, Vec<u8>) {
        self.bytes.drain(..PREFIX_BYTES.min(self.bytes.len()));
        (self.connection, self.bytes)
    }
}
