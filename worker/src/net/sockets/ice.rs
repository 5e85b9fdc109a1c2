//! The sockets of WebRTC transports: an unconnected and a connected one for each UDP listener, and a listening one for each
//! TCP listener.
//!
//! When the peer has selected a listener, that listener's connected socket is connected to the peer and sends for the
//! transport; those of the other listeners are parked. Answers to anybody else leave through the unconnected socket that the
//! question came in by, or over the TCP connection (see `connections.rs`).

use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{
    self, AddressFamily, MsgFlags, SockType, SockaddrIn6, SockaddrStorage, getpeername, sendto, sockopt,
};
use weir_channel::message::{IceProtocol, IceTuple, LISTENERS_MAX, WorkerError};

use super::connections::{CONNECTIONS_MAX, Connection};
use super::shared_ports::OnSharedPorts;
use super::{
    Path, PortSockets, Side, SocketStats, Sockets, drop_count, family, local_address, may_segment, os, reconnect,
    stamp_as_others,
};
use crate::net::poll::Source;
use crate::net::send::is_pending_error;
use crate::relay::sink::TransportIx;

/// The sockets of one WebRTC transport.
#[derive(Debug)]
pub struct IceSockets {
    listeners: Vec<Listener>,
    /// By number.
    connections: Vec<Option<Box<Connection>>>,
    /// The connection that is sent on.
    stream: Option<u8>,
    /// It has no listeners of its own.
    pub(super) on_shared_ports: Option<OnSharedPorts>,
    pub(super) rtcp_sent: u64,
    pub(super) truncated: u64,
    pub(super) kernel_drops: u64,
}

#[derive(Debug)]
struct Listener {
    local: SocketAddr,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Udp(Udp),
    Tcp(OwnedFd),
}

#[derive(Debug)]
struct Udp {
    unconnected: OwnedFd,
    /// `None` while it is the socket that the transport sends on.
    connected: Option<OwnedFd>,
    bound: SockaddrStorage,
    /// Where the connected socket is connected to; `None`: it is parked.
    remote: Option<SocketAddr>,
    /// The last count seen of the unconnected socket and of the connected one.
    drop_counts: [u32; 2],
}

impl IceSockets {
    /// Takes the descriptors of a new WebRTC transport, in the order of
    /// [`CreateWebRtcTransport`](weir_channel::message::CreateWebRtcTransport). They are closed if they are refused.
    ///
    /// # Errors
    /// [`WorkerError::Descriptors`] if it is not that many, [`WorkerError::InvalidParameters`] if they are not what the
    /// listeners say, or two of them are bound to the same address, [`WorkerError::Os`] if they cannot be set up.
    pub fn adopt(descriptors: Vec<OwnedFd>, listeners: &[IceProtocol]) -> Result<Self, WorkerError> {
        if listeners.is_empty() || listeners.len() > LISTENERS_MAX {
            return Err(WorkerError::InvalidParameters(format!(
                "{} listeners; a WebRTC transport has 1 to {LISTENERS_MAX}",
                listeners.len()
            )));
        }
        let needed = |protocol: &IceProtocol| match protocol {
            IceProtocol::Udp => 2,
            IceProtocol::Tcp => 1,
        };
        let expected: u8 = listeners.iter().map(needed).sum();
        let received = u8::try_from(descriptors.len()).unwrap_or(u8::MAX);
        if received != expected {
            return Err(WorkerError::Descriptors { expected, received });
        }
        let mut descriptors = descriptors.into_iter();
        let mut next = || {
            descriptors
                .next()
                .ok_or(WorkerError::Descriptors { expected, received })
        };
        let mut adopted: Vec<Listener> = Vec::with_capacity(listeners.len());
        for protocol in listeners {
            let listener = match protocol {
                IceProtocol::Udp => Listener::udp(PortSockets::adopt(next()?, next()?)?)?,
                IceProtocol::Tcp => Listener::tcp(next()?)?,
            };
            let is_same = |other: &&Listener| other.local == listener.local && other.protocol() == *protocol;
            if adopted.iter().any(|other| is_same(&other)) {
                return Err(WorkerError::InvalidParameters(
                    "two listeners are bound to the same address".to_owned(),
                ));
            }
            adopted.push(listener);
        }
        Ok(Self {
            listeners: adopted,
            ..Self::none()
        })
    }

    fn none() -> Self {
        Self {
            listeners: Vec::new(),
            connections: Vec::new(),
            stream: None,
            on_shared_ports: None,
            rtcp_sent: 0,
            truncated: 0,
            kernel_drops: 0,
        }
    }

    /// Those of a transport that is reached through the worker's shared ports.
    pub fn on_shared_ports() -> Self {
        Self {
            on_shared_ports: Some(OnSharedPorts::default()),
            ..Self::none()
        }
    }

    fn udp_mut(&mut self, listener: u8) -> Option<&mut Udp> {
        match &mut self.listeners.get_mut(usize::from(listener))?.kind {
            Kind::Udp(udp) => Some(udp),
            Kind::Tcp(_) => None,
        }
    }

    /// A listening socket, and where it is bound to.
    pub(super) fn tcp(&self, listener: u8) -> Option<(BorrowedFd<'_>, SocketAddr)> {
        let listener = self.listeners.get(usize::from(listener))?;
        match &listener.kind {
            Kind::Tcp(socket) => Some((socket.as_fd(), listener.local)),
            Kind::Udp(_) => None,
        }
    }

    /// The connections, with their numbers.
    pub(super) fn connections(&self) -> impl Iterator<Item = (u8, &Connection)> {
        let numbered = self.connections.iter().zip(0..);
        numbered.filter_map(|(connection, number)| Some((number, connection.as_deref()?)))
    }

    pub(super) fn connection(&self, number: u8) -> Option<&Connection> {
        self.connections.get(usize::from(number))?.as_deref()
    }

    pub(super) fn connection_mut(&mut self, number: u8) -> Option<&mut Connection> {
        self.connections.get_mut(usize::from(number))?.as_deref_mut()
    }

    /// Keeps a connection, and says its number; `None`: there is no room.
    pub(super) fn insert(&mut self, connection: Connection) -> Option<u8> {
        let vacant = self.connections.iter().position(Option::is_none);
        let number = vacant.unwrap_or(self.connections.len());
        if number >= LISTENERS_MAX * (CONNECTIONS_MAX + 1) {
            return None;
        }
        if number == self.connections.len() {
            self.connections.push(None);
        }
        self.connections[number] = Some(Box::new(connection));
        Some(number as u8)
    }

    /// Closes a connection; whether it was the one that is sent on.
    pub(super) fn remove(&mut self, number: u8) -> bool {
        if let Some(connection) = self.connections.get_mut(usize::from(number)) {
            *connection = None;
        }
        let was_sending = self.stream == Some(number);
        if was_sending {
            self.stream = None;
        }
        was_sending
    }

    fn connection_between(&self, local: SocketAddr, remote: SocketAddr) -> Option<u8> {
        self.connections()
            .find(|(_, one)| one.local() == local && one.remote() == remote)
            .map(|(number, _)| number)
    }

    /// The UDP listener that is bound to an address.
    fn udp_at(&self, local: SocketAddr) -> Option<(u8, &Udp)> {
        self.listeners
            .iter()
            .zip(0..)
            .find_map(|(listener, index)| match &listener.kind {
                Kind::Udp(udp) if listener.local == local => Some((index, udp)),
                _ => None,
            })
    }

    /// The last drop count seen of a socket, and the sum of all of the transport.
    pub(super) fn drop_count_mut(&mut self, listener: u8, side: Side) -> Option<(&mut u32, &mut u64)> {
        if let Some(on_shared_ports) = &mut self.on_shared_ports {
            return Some((&mut on_shared_ports.drop_count, &mut self.kernel_drops));
        }
        match &mut self.listeners.get_mut(usize::from(listener))?.kind {
            Kind::Udp(udp) => Some((&mut udp.drop_counts[side_of(side)], &mut self.kernel_drops)),
            Kind::Tcp(_) => None,
        }
    }

    /// The UDP listener whose connected socket the transport sends on.
    pub(super) fn sending(&self) -> Option<u8> {
        if let Some(on_shared_ports) = &self.on_shared_ports {
            return on_shared_ports.socket.map(|socket| socket.port);
        }
        let lent = |listener: &Listener| matches!(&listener.kind, Kind::Udp(Udp { connected: None, .. }));
        self.listeners.iter().position(lent).map(|index| index as u8)
    }
}

impl Listener {
    fn udp(port: PortSockets) -> Result<Self, WorkerError> {
        Ok(Self {
            local: address_of(&port.local)?,
            kind: Kind::Udp(Udp {
                unconnected: port.unconnected,
                connected: Some(port.connected),
                bound: port.local,
                remote: None,
                drop_counts: [0; 2],
            }),
        })
    }

    fn tcp(socket: OwnedFd) -> Result<Self, WorkerError> {
        Ok(Self {
            local: check_tcp(&socket)?,
            kind: Kind::Tcp(socket),
        })
    }

    fn protocol(&self) -> IceProtocol {
        match self.kind {
            Kind::Udp(_) => IceProtocol::Udp,
            Kind::Tcp(_) => IceProtocol::Tcp,
        }
    }
}

/// That a descriptor is a listening TCP socket, which does not block from now on; where it listens.
pub(super) fn check_tcp(socket: &OwnedFd) -> Result<SocketAddr, WorkerError> {
    let is_ip = matches!(family(socket), Ok(AddressFamily::Inet | AddressFamily::Inet6));
    let is_listening = socket::getsockopt(socket, sockopt::SockType) == Ok(SockType::Stream)
        && socket::getsockopt(socket, sockopt::AcceptConn) == Ok(true);
    if !is_ip || !is_listening {
        return Err(WorkerError::InvalidParameters(
            "a descriptor is not a listening TCP socket".to_owned(),
        ));
    }
    let local = address_of(&local_address(socket)?)?;
    let failed = |errno| os("fcntl", errno);
    let flags = OFlag::from_bits_retain(fcntl(socket, FcntlArg::F_GETFL).map_err(failed)?);
    fcntl(socket, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).map_err(failed)?;
    Ok(local)
}

/// An IP address as the kernel wrote it.
pub(super) fn address_of(storage: &SockaddrStorage) -> Result<SocketAddr, WorkerError> {
    match (storage.as_sockaddr_in(), storage.as_sockaddr_in6()) {
        (Some(v4), _) => Ok(SocketAddr::from((v4.ip(), v4.port()))),
        (_, Some(v6)) => Ok(std::net::SocketAddrV6::new(v6.ip(), v6.port(), 0, v6.scope_id()).into()),
        _ => Err(WorkerError::InvalidParameters("a socket is not bound".to_owned())),
    }
}

/// Sends to somebody through a socket that is not connected.
fn send_from(unconnected: &Udp, remote: SocketAddr, packet: &[u8]) -> Result<(), Errno> {
    let (socket, flags) = (
        unconnected.unconnected.as_raw_fd(),
        MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL,
    );
    match remote {
        // A socket for both protocols names IPv4 addresses in their IPv6-mapped form.
        SocketAddr::V4(v4) if unconnected.bound.as_sockaddr_in6().is_some() => {
            let mapped = std::net::SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0);
            sendto(socket, packet, &SockaddrIn6::from(mapped), flags)
        }
        remote => sendto(socket, packet, &SockaddrStorage::from(remote), flags),
    }
    .map(drop)
}

impl Sockets {
    /// Registers the sockets of a new WebRTC transport. It cannot send before [`Sockets::select`] and [`Sockets::open`].
    ///
    /// # Panics
    /// If the index is taken.
    pub fn attach_ice(&mut self, transport: TransportIx, sockets: IceSockets) {
        let index = transport.0 as usize;
        self.reserve(transport);
        assert!(!self.contains(transport), "the relay gave out an index twice");
        self.paths[index] = Path {
            is_protected: true,
            ..Path::vacant()
        };
        self.ice[index] = Some(Box::new(sockets));
        let mut drop_counts = [[0; 2]; LISTENERS_MAX];
        let stamps_arrivals = self.stamps_arrivals;
        self.each_listener(transport, |listener, side, socket| {
            // What was dropped before, when another worker had the socket, is not this transport's.
            drop_counts[usize::from(listener)][side_of(side)] = drop_count(socket);
            stamp_as_others(socket, stamps_arrivals); // which a listening socket takes too
        });
        if let Some(ice) = &mut self.ice[index] {
            for (listener, counts) in drop_counts.into_iter().enumerate() {
                if let Some(udp) = ice.udp_mut(listener as u8) {
                    udp.drop_counts = counts;
                }
            }
        }
    }

    /// Calls `visit` with each socket of a WebRTC transport but those of connections. A listening one counts as unconnected.
    pub fn each_listener(&self, transport: TransportIx, mut visit: impl FnMut(u8, Side, BorrowedFd<'_>)) {
        for listener in 0..LISTENERS_MAX as u8 {
            for side in [Side::Unconnected, Side::Connected] {
                if let Some(socket) = self.listener(transport, listener, side) {
                    visit(listener, side, socket);
                }
            }
        }
    }

    /// One of a WebRTC transport's sockets. A TCP listener has a listening socket only, which counts as unconnected.
    pub fn listener(&self, transport: TransportIx, listener: u8, side: Side) -> Option<BorrowedFd<'_>> {
        let ice = self.ice(transport)?;
        if let Some(on_shared_ports) = &ice.on_shared_ports {
            let socket = on_shared_ports
                .socket
                .filter(|socket| socket.port == listener && side == Side::Connected);
            return socket.and(self.paths[transport.0 as usize].socket.as_ref().map(AsFd::as_fd));
        }
        let udp = match &ice.listeners.get(usize::from(listener))?.kind {
            Kind::Udp(udp) => udp,
            Kind::Tcp(socket) => return Some(socket.as_fd()).filter(|_| side == Side::Unconnected),
        };
        match (side, &udp.connected) {
            (Side::Unconnected, _) => Some(udp.unconnected.as_fd()),
            (Side::Connected, Some(connected)) => Some(connected.as_fd()),
            (Side::Connected, None) => Some(self.paths[transport.0 as usize].socket.as_ref()?.as_fd()),
        }
    }

    /// What a listener of a WebRTC transport is, and where it is bound to.
    pub fn listens_at(&self, transport: TransportIx, listener: u8) -> Option<(IceProtocol, SocketAddr)> {
        let ice = self.ice(transport)?;
        if ice.on_shared_ports.is_some() {
            return self.shared_port_at(listener);
        }
        let listener = ice.listeners.get(usize::from(listener))?;
        Some((listener.protocol(), listener.local))
    }

    /// Whether a listener of a WebRTC transport takes connections.
    pub fn is_tcp(&self, transport: TransportIx, listener: u8) -> bool {
        self.listens_at(transport, listener)
            .is_some_and(|(protocol, _)| protocol == IceProtocol::Tcp)
    }

    /// The connection that a WebRTC transport sends on.
    #[inline]
    pub(in crate::net) fn stream(&self, transport: TransportIx) -> Option<u8> {
        self.ice(transport)?.stream
    }

    /// Sends between the two ends of a tuple from now on: on the connected socket of the UDP listener at its local end, or
    /// over the TCP connection between them. The socket that was used before is parked. Nothing can be sent until
    /// [`Sockets::open`].
    ///
    /// # Errors
    /// What the kernel says, e.g. that there is no route, or [`Errno::EADDRNOTAVAIL`] if there is no such listener or
    /// connection. Nothing is sent then.
    pub fn select(&mut self, transport: TransportIx, tuple: Option<IceTuple>) -> Result<(), Errno> {
        let Some(Some(ice)) = self.ice.get_mut(transport.0 as usize) else {
            return Err(Errno::EBADF);
        };
        let path = &mut self.paths[transport.0 as usize];
        path.is_connected = false;
        // Another route: it may segment where the last one did not.
        path.uses_gso = may_segment();
        path.refusals = 0;
        path.is_stream = false;
        ice.stream = None;
        if let Some(on_shared_ports) = &mut ice.on_shared_ports {
            on_shared_ports.leave(path);
            if let Some(tuple) = tuple.filter(|tuple| tuple.protocol == IceProtocol::Udp) {
                return on_shared_ports.enter(path, &self.shared_ports, tuple);
            }
        }
        let by_udp = tuple.filter(|tuple| tuple.protocol == IceProtocol::Udp);
        let wanted = by_udp.and_then(|tuple| ice.udp_at(tuple.local)).map(|(index, _)| index);
        let sending = ice.sending();
        if let Some(sending) = sending.filter(|sending| Some(*sending) != wanted)
            && let Some(udp) = ice.udp_mut(sending)
            && let Some(socket) = path.socket.take()
        {
            // If it cannot be parked it goes on receiving from where it did, which everybody who reads it checks.
            udp.remote = udp
                .remote
                .filter(|_| reconnect(socket.as_fd(), udp.bound, None).is_err());
            udp.connected = Some(socket);
        }
        let Some(IceTuple {
            protocol,
            local,
            remote,
        }) = tuple
        else {
            return Ok(());
        };
        if protocol == IceProtocol::Tcp {
            ice.stream = ice.connection_between(local, remote);
            path.is_stream = ice.stream.is_some();
            return ice.stream.map(drop).ok_or(Errno::EADDRNOTAVAIL);
        }
        let udp = wanted
            .and_then(|wanted| ice.udp_mut(wanted))
            .ok_or(Errno::EADDRNOTAVAIL)?;
        if let Some(socket) = udp.connected.take() {
            path.socket = Some(socket);
        }
        let socket = path.socket.as_ref().ok_or(Errno::EBADF)?;
        match reconnect(socket.as_fd(), udp.bound, Some(remote)) {
            Ok(()) => {
                udp.remote = Some(remote);
                Ok(())
            }
            Err(errno) => {
                // It is left unconnected, or connected to where it was.
                udp.remote = udp
                    .remote
                    .filter(|_| getpeername::<SockaddrStorage>(socket.as_raw_fd()).is_ok());
                udp.connected = path.socket.take();
                Err(errno)
            }
        }
    }

    /// Allows or forbids a WebRTC transport to send media.
    pub fn open(&mut self, transport: TransportIx, is_open: bool) {
        if let Some(path) = self.paths.get_mut(transport.0 as usize) {
            path.is_connected = is_open && (path.route().is_some() || path.is_stream);
        }
    }

    /// Sends one datagram, which is neither RTP nor RTCP, between two addresses: on the socket that is connected so, else
    /// through the unconnected one, or over the TCP connection.
    ///
    /// # Errors
    /// What the kernel says, [`Errno::EADDRNOTAVAIL`] if there is no such listener or connection, [`Errno::EAGAIN`] if the
    /// connection is full.
    pub fn send_to(&mut self, transport: TransportIx, tuple: IceTuple, datagram: &[u8]) -> Result<(), Errno> {
        let IceTuple {
            protocol,
            local,
            remote,
        } = tuple;
        if protocol == IceProtocol::Tcp {
            let connection = self
                .ice(transport)
                .and_then(|ice| ice.connection_between(local, remote));
            let connection = connection.ok_or(Errno::EADDRNOTAVAIL)?;
            let taken = self.send_frames(transport, connection, datagram, datagram.len());
            return if taken == 1 { Ok(()) } else { Err(Errno::EAGAIN) };
        }
        if self.uses_shared_ports(transport) {
            return self.send_by_shared_port(transport, local, remote, datagram);
        }
        let (listener, udp) = self
            .ice(transport)
            .and_then(|ice| ice.udp_at(local))
            .ok_or(Errno::EADDRNOTAVAIL)?;
        let path = self
            .listener(transport, listener, Side::Connected)
            .filter(|_| udp.remote == Some(remote));
        let send = || match path {
            Some(path) => {
                let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
                socket::send(path.as_raw_fd(), datagram, flags).map(drop)
            }
            None => send_from(udp, remote, datagram),
        };
        match send() {
            Err(errno) if is_pending_error(errno) => send(),
            result => result,
        }
    }

    pub(super) fn ice_stats(&mut self, transport: TransportIx) -> Option<SocketStats> {
        let mut counts = [[None; 2]; LISTENERS_MAX];
        self.each_listener(transport, |listener, side, socket| {
            let source = Source::Listener {
                transport,
                listener,
                side,
            };
            counts[usize::from(listener)][side_of(side)] = Some((source, drop_count(socket)));
        });
        for (source, count) in counts.into_iter().flatten().flatten() {
            self.note_drop_count(source, count);
        }
        let ice = self.ice(transport)?;
        let path = &self.paths[transport.0 as usize];
        Some(SocketStats {
            packets_sent: path.packets_sent,
            bytes_sent: path.bytes_sent,
            rtcp_sent: ice.rtcp_sent,
            kernel_drops: ice.kernel_drops,
            truncated: ice.truncated,
            backlog_packets: u64::from(path.backlog.packets()),
        })
    }

    pub(super) fn ice(&self, transport: TransportIx) -> Option<&IceSockets> {
        self.ice.get(transport.0 as usize)?.as_deref()
    }
}

const fn side_of(side: Side) -> usize {
    match side {
        Side::Unconnected => 0,
        Side::Connected => 1,
    }
}
